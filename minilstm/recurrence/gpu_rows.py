"""A cell over a sequence on a GPU, one launch for the whole sequence: a block owns up to four rows of the batch.

Rows of a batch never meet, so no block waits for another one.  U is read once: every thread keeps its part in registers
for all steps (``gpu_lanes.py`` says which part).  So U has to fit into the registers of one block.

A step of a block:

1.  Each thread multiplies its weights by the numbers of shared memory that belong to them, row by row.  A row that is
    masked is left out.
2.  The lanes of a unit add up what they have found.  Each lane has one row (backward: one unit of one row) whose sums
    it keeps, and for which it now computes the cell's formulas; the state of that row and unit is in its registers.
3.  It writes the new h (backward: da_h) to shared memory, for all, and they wait for each other: one barrier a step is
    enough, since the numbers of one step and of the next have different places, used in turn.

What the formulas read of the next step is loaded one step ahead.  All threads of a block take every shuffle and every
barrier at every step, though a step that is masked in all rows needs none: the compiler then knows that they are
together, and needs less code and fewer registers.  The order of all sums is the same for any number of rows in a block.
Letters as in ``gpu_steps.py``.
"""
import functools

from numba import cuda, float32, int32

from ..device import ptx
from ..device.gpu import current, launch
from ..device.kernel import B2, F1, F2, F3, F4, Int, device_function, kernel
from .gpu_lanes import (
    ALL_LANES, LANES, UNITS, backward_deal, backward_weights, forward_deal, forward_weights, registers, sum_for_all,
    sum_of_own)
from .gpu_steps import sizes

ROWS = 1, 2, 4              # of a block, at most LANES
BESIDE = 72                 # registers that a thread needs beside its weights, at most, on compute capability 9.0


def fits(cell, B, H, multiprocessors):
    """Does U fit into the registers of a block?"""
    G = len(cell.blocks)
    return all(deal.threads <= 1024 and deal.weights + BESIDE <= registers(deal.threads)
               for deal in (forward_deal(G, H), backward_deal(G, H)))


def rows_of_block(B):
    """As few as still give no multiprocessor more than one block, but at most four."""
    return next((rows for rows in ROWS if rows * current().multiprocessors >= B), ROWS[-1])


# ------------------------------------------------------------------------------------------------------------ forward

def forward(cell, weights, b_h, a_x, mask, states, saved, y, finals, reverse):
    """As ``gpu_steps.forward``, but states are filled only if a backward pass is to read them."""
    B, _, H = y.shape
    rows = rows_of_block(B)
    U_dealt = forward_weights(weights.U, len(cell.blocks))
    launch(forward_kernel(cell, H, rows, saved is not None), -(-B // rows), a_x, b_h, U_dealt, weights.own, mask,
           states, states if saved is None else saved, y, finals, int(reverse))


@functools.cache
def forward_kernel(cell, H, rows, saving):
    S, G, A, N, P = sizes(cell)
    states_shape, a_shape, saved_shape, own_shape = sizes(cell).local()
    forward_row, apart = cell.forward_row, cell.apart
    THREADS, QUADS, W_SIZE, WIDTH = forward_deal(G, H)
    GH, W_QUADS, H_SIZE = G * H, W_SIZE // 4, 2 * rows * WIDTH

    @kernel(threads=THREADS)
    def forward_rows(a_x: F3, b_h: F1, U_dealt: F3, own: F2, mask: B2, states: F4, saved: F4, y: F3, finals: F3,
                     reverse: Int):
        thread = cuda.threadIdx.x
        j, lane = thread // LANES, thread % LANES
        B, T, _ = y.shape
        first_row = cuda.blockIdx.x * rows
        b = first_row + lane
        mine = lane < rows and b < B and j < H                              # this lane has a row
        w = cuda.local.array(W_SIZE, float32)
        for n in range(W_QUADS):
            w[4 * n], w[4 * n + 1], w[4 * n + 2], w[4 * n + 3] = ptx.load4(U_dealt, (n * THREADS + thread) * 4)

        step = -1 if reverse else 1
        t = T - 1 if reverse else 0
        at = b * T + t                                                      # of all steps of the batch
        slots, W = states.shape[2], states.shape[3]
        size = B * slots * W                                                # of one state in all slots
        slot = (b * slots + t + reverse) * W + j                            # before the step

        h = cuda.shared.array(H_SIZE, float32, alignment=16)                # (2, rows, WIDTH): the two places
        for i in range(thread, H_SIZE, THREADS):
            h[i] = float32(0)
        cuda.syncthreads()
        state = cuda.local.array(states_shape, float32)
        new = cuda.local.array(states_shape, float32)
        own_j = cuda.local.array(own_shape, float32)
        b_j = cuda.local.array(G, float32)
        if mine:
            for s in range(S):
                state[s, 0] = ptx.load(states, s * size + slot)
            for p in range(P):
                own_j[p, 0] = own[p, j]
            for g in range(G):
                b_j[g] = b_h[g * H + j]
            h[lane * WIDTH + j] = state[0, 0]
        cuda.syncthreads()

        a_next = cuda.local.array(G, float32)
        a = cuda.local.array(a_shape, float32)
        saved_j = cuda.local.array(saved_shape, float32)
        sums = cuda.local.array(G, float32)
        place = 0
        real_next = real_rows(mask, first_row, rows, t)
        if mine and real_next >> lane & 1:
            for g in range(G):
                a_next[g] = ptx.load(a_x, at * GH + g * H + j)
        for turn in range(T):
            real = real_next
            for g in range(G):
                a[g, 0] = a_next[g]
            real_next = real_rows(mask, first_row, rows, t + step)
            if mine and real_next >> lane & 1:
                for g in range(G):
                    a_next[g] = ptx.load(a_x, (at + step) * GH + g * H + j)

            for r in range(rows):
                for g in range(G):
                    sums[g] = float32(0)
                if real >> r & 1:
                    for q in range(QUADS):
                        h0, h1, h2, h3 = ptx.load4(h, (place * rows + r) * WIDTH + (q * LANES + lane) * 4)
                        for g in range(G):
                            sums[g] += w[(q * 4) * G + g] * h0
                            sums[g] += w[(q * 4 + 1) * G + g] * h1
                            sums[g] += w[(q * 4 + 2) * G + g] * h2
                            sums[g] += w[(q * 4 + 3) * G + g] * h3
                for g in range(G):                                          # a_h = b_h + h_prev @ U.T
                    a_h = b_j[g] + sum_for_all(sums[g])
                    if lane == r:
                        if apart:
                            a[G + g, 0] = a_h
                        else:
                            a[g, 0] += a_h

            slot += step * W
            if mine:
                if real >> lane & 1:
                    forward_row(a, own_j, state, new, saved_j)
                    for s in range(S):
                        state[s, 0] = new[s, 0]
                    if saving:
                        for n in range(N):
                            ptx.store(saved, (at * N + n) * H + j, saved_j[n, 0])
                ptx.store(y, at * H + j, state[0, 0] if real >> lane & 1 else float32(0))
                if saving:
                    for s in range(S):
                        ptx.store(states, s * size + slot, state[s, 0])
            place = 1 - place
            if mine:
                ptx.store(h, (place * rows + lane) * WIDTH + j, state[0, 0])
            cuda.syncthreads()
            t += step
            at += step

        if mine:
            for s in range(S):
                finals[s, b, j] = state[s, 0]

    return forward_rows


# ----------------------------------------------------------------------------------------------------------- backward

def backward(cell, weights, mask, saved, states, dy, d_state, da, d_own, reverse):
    """As ``gpu_steps.backward``."""
    B, _, H = dy.shape
    rows = rows_of_block(B)
    U_dealt = backward_weights(weights.U, len(cell.blocks))
    launch(backward_kernel(cell, H, rows), -(-B // rows), U_dealt, weights.own, mask, saved, states, dy, d_state, da,
           d_own, int(reverse))


@functools.cache
def backward_kernel(cell, H, rows):
    S, G, A, N, P = sizes(cell)
    states_shape, a_shape, saved_shape, own_shape = sizes(cell).local()
    backward_row = cell.backward_row
    THREADS, QUADS, W_SIZE, WIDTH = backward_deal(G, H)
    W_QUADS, DA_SIZE = W_SIZE // 4, 2 * rows * WIDTH

    @device_function
    def load_step(saved, states, dy, at, before, after, size, j, saved_j, prev, new):
        """What the formulas of one unit need of a step -> its dy."""
        for n in range(N):
            saved_j[n, 0] = ptx.load(saved, (at * N + n) * H + j)
        for s in range(S):
            prev[s, 0] = ptx.load(states, s * size + before)
            new[s, 0] = ptx.load(states, s * size + after)
        return ptx.load(dy, at * H + j)

    @kernel(threads=THREADS)
    def backward_rows(U_dealt: F3, own: F2, mask: B2, saved: F4, states: F4, dy: F3, d_state: F3, da: F3, d_own: F3,
                      reverse: Int):
        thread = cuda.threadIdx.x
        lane = thread % ALL_LANES
        row, j = lane // UNITS, thread // ALL_LANES * UNITS + lane % UNITS
        B, T, _ = dy.shape
        first_row = cuda.blockIdx.x * rows
        b = first_row + row
        mine = row < rows and b < B and j < H                               # this lane has a unit of a row
        w = cuda.local.array(W_SIZE, float32)
        for n in range(W_QUADS):
            w[4 * n], w[4 * n + 1], w[4 * n + 2], w[4 * n + 3] = ptx.load4(U_dealt, (n * THREADS + thread) * 4)

        step = 1 if reverse else -1                                         # against the walk of the forward pass
        t = 0 if reverse else T - 1
        at = b * T + t
        slots, W = states.shape[2], states.shape[3]
        size = B * slots * W
        before, after = (b * slots + t + reverse) * W + j, (b * slots + t + 1 - reverse) * W + j

        da_h = cuda.shared.array(DA_SIZE, float32, alignment=16)            # (2, rows, WIDTH): the two places
        for i in range(thread, DA_SIZE, THREADS):
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
        real_next = real_rows(mask, first_row, rows, t)
        if mine and real_next >> row & 1:
            dy_j = load_step(saved, states, dy, at, before, after, size, j, saved_j, prev, new)
        for turn in range(T):
            real = real_next
            if mine:
                if real >> row & 1:
                    d[0, 0] += dy_j                                         # y = h, the first state
                    backward_row(saved_j, own_j, prev, new, d, d_a, d_own_j)
                    for g in range(G):
                        ptx.store(da_h, (place * rows + row) * WIDTH + g * H + j, d_a[A - G + g, 0])
                else:
                    for k in range(A):
                        d_a[k, 0] = float32(0)
                for k in range(A):
                    ptx.store(da, (at * A + k) * H + j, d_a[k, 0])

            t += step
            at += step
            before += step * W
            after += step * W
            real_next = real_rows(mask, first_row, rows, t)
            if mine and real_next >> row & 1:
                dy_j = load_step(saved, states, dy, at, before, after, size, j, saved_j, prev, new)

            cuda.syncthreads()
            for r in range(rows):
                for u in range(UNITS):
                    sums[u] = float32(0)
                if real >> r & 1:
                    for q in range(QUADS):
                        a0, a1, a2, a3 = ptx.load4(da_h, (place * rows + r) * WIDTH + (q * ALL_LANES + lane) * 4)
                        for u in range(UNITS):
                            sums[u] += w[(q * 4) * UNITS + u] * a0
                            sums[u] += w[(q * 4 + 1) * UNITS + u] * a1
                            sums[u] += w[(q * 4 + 2) * UNITS + u] * a2
                            sums[u] += w[(q * 4 + 3) * UNITS + u] * a3
                dh = sum_of_own(sums[0], sums[1], sums[2], sums[3], lane)
                if row == r and real >> r & 1:
                    d[0, 0] += dh                                           # a_h = b_h + h_prev @ U.T
            place = 1 - place

        if mine:
            for s in range(S):
                d_state[s, b, j] = d[s, 0]
            for p in range(P):
                d_own[b, p, j] += d_own_j[p, 0]

    return backward_rows


# ---------------------------------------------------------------------------------------------------- masks of a block

@device_function
def real_rows(mask, first_row, rows, t):
    """Which of a block's rows are real at step t: bit r for the row first_row + r.  None where there is no step t."""
    B, T = mask.shape
    bits = int32(0)
    if 0 <= t < T:
        for r in range(rows):
            if first_row + r < B and ptx.load(mask, (first_row + r) * T + t):
                bits |= 1 << r
    return bits
