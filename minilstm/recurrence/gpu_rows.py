"""A cell over a sequence on a GPU, one launch for the whole sequence: a block owns up to four rows of the batch.

Rows of a batch never meet, so no block waits for another one.  The weights U are read once: every thread keeps its part
of them in registers, for all steps.  So U has to fit into the registers of one block (``fits``).

Forward, a unit belongs to four threads, its lanes.  A lane has a quarter of the unit's G rows of U and multiplies it by
the same quarter of h_prev, which is in shared memory; then the lanes add up what they have found, by shuffles, in such a
way that lane r gets the sums of row r, and lane r computes the cell's formulas for row r.

    unit j:     lane 0  U[g*H+j, k]  of a quarter of all k, all g      its share of each sum      formulas of row 0
                lane 1  another quarter                                its share                  formulas of row 1
                ...

Backward, sixteen lanes have four units together: a lane has a sixteenth of the four columns of U and multiplies it by
the same sixteenth of da_h.  Each lane then gets the sum of one of the four units, and computes the formulas of one unit
of one row.

A number in shared memory is written for the next step while others still read that of this one: there are two places,
used in turn, so that one barrier a step is enough.  Numbers of the next step are loaded while this one is computed.

A step that is masked in all rows of a block costs next to nothing, and what lies before the first real step or behind
the last one is only cleared.  The order of all sums is the same for any number of rows in a block.  Letters as in
``gpu_steps.py``.
"""
import functools

from numba import cuda, float32, int32

from ..device import ptx
from ..device.gpu import current, launch
from ..device.kernel import B2, F1, F2, F3, F4, Int, device_function, kernel, unroll
from .gpu_steps import sizes

ROWS = 1, 2, 4              # of a block: as few as give every multiprocessor one
LANES, UNITS = 4, 4         # forward, lanes of one unit; backward, units of LANES * UNITS lanes
REGISTERS, PER_THREAD = 65536, 255
ALL = 0xffffffff            # lanes of a warp
OTHERS = 72                 # registers of a thread besides its weights


def fits(cell, B, H, multiprocessors):
    """Do the weights U of a block fit into its registers?"""
    return all(threads <= 1024 and weights + OTHERS <= min(PER_THREAD, REGISTERS // threads)
               for threads, weights in (forward_sizes(cell, H)[:2], backward_sizes(cell, H)[:2]))


def forward_sizes(cell, H):
    """-> threads, weights of a thread, quads of h_prev that it multiplies, padded H."""
    quads = -(-H // (4 * LANES))
    return whole_warps(LANES * H), len(cell.blocks) * 4 * quads, quads, quads * 4 * LANES


def backward_sizes(cell, H):
    """-> threads, weights of a thread, quads of da_h that it multiplies, padded G*H."""
    lanes = LANES * UNITS
    quads = -(-len(cell.blocks) * H // (4 * lanes))
    return whole_warps(-(-H // UNITS) * lanes), UNITS * 4 * quads, quads, quads * 4 * lanes


def whole_warps(threads):
    return -(-threads // 32) * 32


def rows_of_block(B):
    """As few as still give each multiprocessor no more than one block, and at most four."""
    return next((rows for rows in ROWS if rows * current().multiprocessors >= B), ROWS[-1])


# ------------------------------------------------------------------------------------------------------------ forward

def forward(cell, weights, b_h, a_x, mask, states, saved, y, finals, reverse):
    """As ``gpu_steps.forward``; but states are filled only if there is a backward pass to read them, from the first to
    the last real step of a block."""
    B, _, H = y.shape
    rows = rows_of_block(B)
    launch(forward_kernel(cell, H, rows, saved is not None), -(-B // rows), a_x, b_h, weights.U, weights.own, mask, states,
           states if saved is None else saved, y, finals, int(reverse))


@functools.cache
def forward_kernel(cell, H, rows, saving):
    S, G, A, N, P = sizes(cell)
    states_shape, a_shape, saved_shape, own_shape = sizes(cell).local()
    forward_row, apart = cell.forward_row, cell.apart
    threads, W_SIZE, QUADS, WIDTH = forward_sizes(cell, H)
    SUMS, H_SIZE = LANES * G, 2 * rows * WIDTH

    @kernel(threads=threads)
    def forward_rows(a_x: F3, b_h: F1, U: F2, own: F2, mask: B2, states: F4, saved: F4, y: F3, finals: F3,
                     reverse: Int):
        thread = cuda.threadIdx.x
        j, lane = thread // LANES, thread % LANES
        B, T, _ = y.shape
        first_row = cuda.blockIdx.x * rows
        b = first_row + lane
        mine = lane < rows and b < B and j < H                              # this thread has a row of the unit
        w = cuda.local.array(W_SIZE, float32)
        for q in unroll(QUADS):
            for e in unroll(4):
                for g in unroll(G):
                    k = (q * LANES + lane) * 4 + e
                    w[(q * 4 + e) * G + g] = U[g * H + j, k] if j < H and k < H else float32(0)

        first, end = real_span(mask, first_row, rows)
        clear_outside(y, first_row, rows, first, end)
        step = -1 if reverse else 1
        t = end - 1 if reverse else first
        before, after = t + reverse, t + 1 - reverse
        initial = T if reverse else 0

        h = cuda.shared.array(H_SIZE, float32, alignment=16)                # (2, rows, WIDTH), two places in turn
        for i in range(thread, H_SIZE, threads):
            h[i] = float32(0)
        cuda.syncthreads()
        state = cuda.local.array(states_shape, float32)
        new = cuda.local.array(states_shape, float32)
        own_j = cuda.local.array(own_shape, float32)
        b_j = cuda.local.array(G, float32)
        if mine:
            for s in range(S):
                state[s, 0] = states[s, b, initial, j]
                if saving:
                    states[s, b, before, j] = state[s, 0]
            for p in range(P):
                own_j[p, 0] = own[p, j]
            for g in range(G):
                b_j[g] = b_h[g * H + j]
            h[lane * WIDTH + j] = state[0, 0]
        cuda.syncthreads()

        a_next = cuda.local.array(G, float32)
        a = cuda.local.array(a_shape, float32)
        saved_j = cuda.local.array(saved_shape, float32)
        sums = cuda.local.array(SUMS, float32)
        place = 0
        real_next = real_rows(mask, first_row, rows, t) if first < end else 0
        if mine and real_next >> lane & 1:
            for g in range(G):
                a_next[g] = a_x[b, t, g * H + j]
        for _ in range(first, end):
            real = real_next
            for g in range(G):
                a[g, 0] = a_next[g]
            if t + step >= first and t + step < end:
                real_next = real_rows(mask, first_row, rows, t + step)
                if mine and real_next >> lane & 1:
                    for g in range(G):
                        a_next[g] = a_x[b, t + step, g * H + j]

            if real:
                for i in unroll(SUMS):
                    sums[i] = float32(0)
                for r in unroll(rows):
                    if real >> r & 1:
                        for q in unroll(QUADS):
                            h0, h1, h2, h3 = ptx.load4(h, (place * rows + r) * WIDTH + (q * LANES + lane) * 4)
                            for g in unroll(G):
                                sums[g * LANES + r] += w[(q * 4) * G + g] * h0
                                sums[g * LANES + r] += w[(q * 4 + 1) * G + g] * h1
                                sums[g * LANES + r] += w[(q * 4 + 2) * G + g] * h2
                                sums[g * LANES + r] += w[(q * 4 + 3) * G + g] * h3
                for g in unroll(G):                                         # a_h = b_h + h_prev @ U.T
                    a_h = b_j[g] + sum_of_own(sums[g * LANES], sums[g * LANES + 1], sums[g * LANES + 2],
                                              sums[g * LANES + 3], lane)
                    if apart:
                        a[A - G + g, 0] = a_h
                    else:
                        a[g, 0] += a_h

            if mine:
                if real >> lane & 1:
                    forward_row(a, own_j, state, new, saved_j)
                    for s in range(S):
                        state[s, 0] = new[s, 0]
                    if saving:
                        for n in range(N):
                            saved[b, t, n, j] = saved_j[n, 0]
                    y[b, t, j] = state[0, 0]
                else:
                    y[b, t, j] = float32(0)
                if saving:
                    for s in range(S):
                        states[s, b, after, j] = state[s, 0]
            if real:
                if mine:
                    h[((1 - place) * rows + lane) * WIDTH + j] = state[0, 0]
                cuda.syncthreads()
                place = 1 - place
            t += step
            before += step
            after += step

        if mine:
            for s in range(S):
                finals[s, b, j] = state[s, 0]

    return forward_rows


# ----------------------------------------------------------------------------------------------------------- backward

def backward(cell, weights, mask, saved, states, dy, d_state, da, d_own, reverse):
    """As ``gpu_steps.backward``."""
    B, _, H = dy.shape
    rows = rows_of_block(B)
    launch(backward_kernel(cell, H, rows), -(-B // rows), weights.U, weights.own, mask, saved, states, dy, d_state, da, d_own,
           int(reverse))


@functools.cache
def backward_kernel(cell, H, rows):
    S, G, A, N, P = sizes(cell)
    states_shape, a_shape, saved_shape, own_shape = sizes(cell).local()
    backward_row = cell.backward_row
    threads, W_SIZE, QUADS, WIDTH = backward_sizes(cell, H)
    ALL_LANES, DA_SIZE = LANES * UNITS, 2 * rows * WIDTH

    @device_function
    def load_step(saved, states, dy, b, t, before, after, j, saved_j, prev, new):
        """What the formulas of one unit need of a step -> its dy."""
        for n in range(N):
            saved_j[n, 0] = saved[b, t, n, j]
        for s in range(S):
            prev[s, 0] = states[s, b, before, j]
            new[s, 0] = states[s, b, after, j]
        return dy[b, t, j]

    @kernel(threads=threads)
    def backward_rows(U: F2, own: F2, mask: B2, saved: F4, states: F4, dy: F3, d_state: F3, da: F3, d_own: F3,
                      reverse: Int):
        thread = cuda.threadIdx.x
        lane = thread % ALL_LANES
        first_unit = thread // ALL_LANES * UNITS
        row, j = lane // UNITS, first_unit + lane % UNITS
        B, T, _ = dy.shape
        first_row = cuda.blockIdx.x * rows
        b = first_row + row
        mine = row < rows and b < B and j < H
        w = cuda.local.array(W_SIZE, float32)
        for q in unroll(QUADS):
            for e in unroll(4):
                for u in unroll(UNITS):
                    k = (q * ALL_LANES + lane) * 4 + e
                    w[(q * 4 + e) * UNITS + u] = (U[k, first_unit + u] if k < G * H and first_unit + u < H else
                                                  float32(0))

        first, end = real_span(mask, first_row, rows)
        clear_outside(da, first_row, rows, first, end)
        step = 1 if reverse else -1                                         # from the end of the walk to its beginning
        t = first if reverse else end - 1
        before, after = t + reverse, t + 1 - reverse

        da_h = cuda.shared.array(DA_SIZE, float32, alignment=16)            # (2, rows, WIDTH), two places in turn
        for i in range(thread, DA_SIZE, threads):
            da_h[i] = float32(0)
        cuda.syncthreads()
        d = cuda.local.array(states_shape, float32)
        own_j = cuda.local.array(own_shape, float32)
        d_own_j = cuda.local.array(own_shape, float32)
        if mine:
            for s in range(S):
                d[s, 0] = d_state[s, b, j]
            for p in range(P):
                own_j[p, 0] = own[p, j]
                d_own_j[p, 0] = float32(0)

        prev = cuda.local.array(states_shape, float32)
        new = cuda.local.array(states_shape, float32)
        saved_j = cuda.local.array(saved_shape, float32)
        d_a = cuda.local.array(a_shape, float32)
        sums = cuda.local.array(UNITS, float32)
        dy_j = float32(0)
        place = 0
        real_next = real_rows(mask, first_row, rows, t) if first < end else 0
        if mine and real_next >> row & 1:
            dy_j = load_step(saved, states, dy, b, t, before, after, j, saved_j, prev, new)
        for _ in range(first, end):
            real = real_next
            if mine:
                if real >> row & 1:
                    d[0, 0] += dy_j                                         # y = h, the first state
                    backward_row(saved_j, own_j, prev, new, d, d_a, d_own_j)
                    for g in range(G):
                        da_h[(place * rows + row) * WIDTH + g * H + j] = d_a[A - G + g, 0]
                else:
                    for k in range(A):
                        d_a[k, 0] = float32(0)
                for k in range(A):
                    da[b, t, k * H + j] = d_a[k, 0]

            t += step
            before += step
            after += step
            if t >= first and t < end:
                real_next = real_rows(mask, first_row, rows, t)
                if mine and real_next >> row & 1:
                    dy_j = load_step(saved, states, dy, b, t, before, after, j, saved_j, prev, new)

            if real:
                cuda.syncthreads()
                for r in range(rows):
                    if real >> r & 1:
                        for u in unroll(UNITS):
                            sums[u] = float32(0)
                        for q in unroll(QUADS):
                            a0, a1, a2, a3 = ptx.load4(da_h, (place * rows + r) * WIDTH + (q * ALL_LANES + lane) * 4)
                            for u in unroll(UNITS):
                                sums[u] += w[(q * 4) * UNITS + u] * a0
                                sums[u] += w[(q * 4 + 1) * UNITS + u] * a1
                                sums[u] += w[(q * 4 + 2) * UNITS + u] * a2
                                sums[u] += w[(q * 4 + 3) * UNITS + u] * a3
                        dh = sum_of_own(sums[0], sums[1], sums[2], sums[3], lane)
                        dh += cuda.shfl_xor_sync(ALL, dh, 4)
                        dh += cuda.shfl_xor_sync(ALL, dh, 8)
                        if row == r:
                            d[0, 0] += dh                                   # a_h = b_h + h_prev @ U.T
                place = 1 - place

        if mine:
            for s in range(S):
                d_state[s, b, j] = d[s, 0]
            for p in range(P):
                d_own[b, p, j] += d_own_j[p, 0]

    return backward_rows


# ---------------------------------------------------------------------------------------------------------- small parts

@device_function
def sum_of_own(s0, s1, s2, s3, lane):
    """Four neighbouring lanes have a share of each of four sums -> the whole of the sum with the lane's own number.

    In each of two turns a lane keeps half of its sums, and gives the other half to the lane that keeps those."""
    odd, upper = lane & 1, lane >> 1 & 1
    low = (s1 if odd else s0) + cuda.shfl_xor_sync(ALL, s0 if odd else s1, 1)
    high = (s3 if odd else s2) + cuda.shfl_xor_sync(ALL, s2 if odd else s3, 1)
    return (high if upper else low) + cuda.shfl_xor_sync(ALL, low if upper else high, 2)


@device_function
def real_rows(mask, first_row, rows, t):
    """Which of a block's rows are real at step t: bit r for the row first_row + r."""
    bits = int32(0)
    for r in range(rows):
        if first_row + r < mask.shape[0] and mask[first_row + r, t]:
            bits |= 1 << r
    return bits


@device_function
def real_span(mask, first_row, rows):
    """The first step that is real in any of a block's rows, and the one behind the last; T and 0 if none is.  Each warp
    looks for itself."""
    first, end = int32(mask.shape[1]), int32(0)
    for t in range(cuda.laneid, mask.shape[1], 32):
        if real_rows(mask, first_row, rows, t):
            first, end = min(first, int32(t)), int32(t + 1)
    for turn in range(5):
        first = min(first, cuda.shfl_xor_sync(ALL, first, 1 << turn))
        end = max(end, cuda.shfl_xor_sync(ALL, end, 1 << turn))
    return first, end


@device_function
def clear_outside(array, first_row, rows, first, end):
    """array (B,T,n) = 0 in a block's rows, at the steps before ``first`` and from ``end`` on."""
    B, T, n = array.shape
    inside = end - first if first < end else 0
    for r in range(rows):
        if first_row + r < B:
            for i in range(cuda.threadIdx.x, (T - inside) * n, cuda.blockDim.x):
                t = i // n
                array[first_row + r, t if t < first else t + inside, i % n] = float32(0)
