"""The two kernels of ``gpu_blocks.py``: a whole walk through time, forward and back.

They stand below one another and have the same parts.  What a unit of a row carries from step to step (its states, or
their gradients) is in shared memory, at a place that no other thread touches: thread ``tid`` owns unit ``tid % UNITS``
of row ``tid // UNITS`` of each chunk.  Arrays in global memory are addressed flat (``ptx.load``).
"""
import functools

import numpy as np
from numba import cuda, float32

from ..device import ptx
from ..device.kernel import F1, F2, F3, F4, I1, I2, Int, device_function, kernel
from ..device.ptx import UNWRITTEN
from .gpu_blocks_plan import sizes
from .gpu_blocks_products import float32_product
from .gpu_blocks_tensor import tensor_product

QUIET_NAN = np.float32(np.nan)


def product_of(layout):
    return (tensor_product if layout.tensor else float32_product)(layout)


@functools.cache
def pack_kernel(layout, backward):
    """Fills packed (P*weights*threads,) with the weights of every thread of a group, so that neighbours load
    neighbours: four of a thread, then four of the next thread, ...  On tensor cores they are rounded to TF32."""
    H, L, UNITS, SUMS = layout.H, layout.L, layout.units, layout.sums
    WEIGHTS, THREADS, rounded = layout.weights, layout.threads, layout.tensor
    place_of = product_of(layout).place

    @kernel(threads=THREADS)
    def pack(U: F2, packed: F1):
        part, n = cuda.blockIdx.x // WEIGHTS, cuda.blockIdx.x % WEIGHTS
        row, column = place_of(cuda.threadIdx.x, n)
        unit = part * UNITS + row % UNITS
        weight = float32(0)
        if row < SUMS and unit < H and column < L:
            weight = U[column, unit] if backward else U[row // UNITS * H + unit, column]
        if rounded:
            weight = ptx.float_of(ptx.to_tf32(weight))
        packed[((part * WEIGHTS + n) // 4 * THREADS + cuda.threadIdx.x) * 4 + n % 4] = weight

    return pack


@device_function
def publish(array, place, value):
    """Write a number that other blocks wait for.  A NaN with the very bits of UNWRITTEN becomes another NaN."""
    ptx.store_relaxed(array, place, QUIET_NAN if ptx.bits_of(value) == UNWRITTEN else value)


# -------------------------------------------------------------------------------------------------------------- forward

@functools.cache
def forward_kernel(cell, layout, saves):
    """saves: whether ``saved`` is filled."""
    S, G, A, N, P = sizes(cell)
    H, UNITS, BLOCKS = layout.H, layout.units, layout.blocks
    THREADS, WEIGHTS, QUADS, SCRATCH = layout.threads, layout.weights, layout.weights // 4, layout.scratch
    LOCAL_N, LOCAL_P = max(1, N), max(1, P)
    KIND = UNITS * layout.rows                              # numbers of a kind that a chunk carries from step to step
    CARRIED = S * KIND * layout.chunks
    apart, forward_row = cell.apart, cell.forward_row
    product = product_of(layout)
    clear, multiply, total = product.clear, product.multiply, product.total

    @device_function
    def pre_activations(a, bias, scratch, r, u):
        """a holds what x says, as loaded; the sums are what h_prev says."""
        for g in range(G):
            a_h = total(scratch, r, u, g * UNITS)
            if apart:
                a[G + g, 0] = a_h + bias[g]
            else:
                a[g, 0] += a_h

    @device_function
    def store_states(states, moment, plane, after):
        """Into a slot: h, for which others wait, first."""
        publish(states, moment, after[0, 0])
        for k in range(1, S):
            ptx.store(states, k * plane + moment, after[k, 0])

    @kernel(threads=THREADS, resident=True)
    def blocks_forward(packed: F1, own: F2, b_h: F1, a_x: F3, real: I2, states: F4, saved: F4, y: F3, finals: F3,
                       error: I1, rows: Int, chunks: Int, groups: Int, reverse: Int):
        scratch = cuda.shared.array(SCRATCH, float32, alignment=16)
        carried = cuda.shared.array(CARRIED, float32)
        w = cuda.local.array(WEIGHTS, float32)
        own_of_unit = cuda.local.array((LOCAL_P, 1), float32)
        bias = cuda.local.array(G, float32)
        a = cuda.local.array((A, 1), float32)
        before = cuda.local.array((S, 1), float32)
        after = cuda.local.array((S, 1), float32)
        kept = cuda.local.array((LOCAL_N, 1), float32)
        B, T = y.shape[0], y.shape[1]
        plane = B * (T + 1) * H                                         # numbers of a state
        tid, part, group = cuda.threadIdx.x, cuda.blockIdx.x % BLOCKS, cuda.blockIdx.x // BLOCKS
        r, u = tid // UNITS, tid % UNITS
        unit = part * UNITS + u
        for n in range(QUADS):
            w[4 * n], w[4 * n + 1], w[4 * n + 2], w[4 * n + 3] = ptx.load4(
                packed, ((part * QUADS + n) * THREADS + tid) * 4)
        clear(scratch)
        if unit < H:
            for p in range(P):
                own_of_unit[p, 0] = ptx.load(own, p * H + unit)
            for g in range(G):
                bias[g] = ptx.load(b_h, g * H + unit)

        while group * chunks < real.shape[0]:
            for chunk in range(chunks):
                b = (group * chunks + chunk) * rows + r
                if r < rows and b < B and unit < H:
                    moment = (b * (T + 1) + (T if reverse else 0)) * H + unit
                    for k in range(S):
                        ptx.store(carried, (chunk * S + k) * KIND + tid, ptx.load(states, k * plane + moment))

            for step in range(T):
                t = T - 1 - step if reverse else step
                slot, next_slot = (t + 1, t) if reverse else (t, t + 1)
                for chunk in range(chunks):
                    first = (group * chunks + chunk) * rows             # row of the batch
                    b = first + r
                    bits = real[group * chunks + chunk, t]
                    owner = r < rows and b < B and unit < H
                    is_real = owner and bits >> r & 1 == 1
                    place, moment = b * T + t, (b * (T + 1) + next_slot) * H + unit
                    mine = chunk * S * KIND + tid
                    if is_real:
                        for g in range(G):                              # begun before the wait, which hides it
                            a[g, 0] = ptx.load(a_x, place * G * H + unit + g * H)
                    if bits != 0:
                        multiply(w, states, (first * (T + 1) + slot) * H, (T + 1) * H, step > 0, bits, rows, scratch,
                                 error)
                        cuda.syncthreads()
                    if is_real:
                        pre_activations(a, bias, scratch, r, u)
                        for k in range(S):
                            before[k, 0] = ptx.load(carried, mine + k * KIND)
                        forward_row(a, own_of_unit, before, after, kept)
                        store_states(states, moment, plane, after)
                        for k in range(S):
                            ptx.store(carried, mine + k * KIND, after[k, 0])
                        if saves:
                            for n in range(N):
                                ptx.store(saved, place * N * H + unit + n * H, kept[n, 0])
                        ptx.store(y, place * H + unit, after[0, 0])
                    elif owner:                                         # carried over
                        for k in range(S):
                            after[k, 0] = ptx.load(carried, mine + k * KIND)
                        store_states(states, moment, plane, after)
                        ptx.store(y, place * H + unit, float32(0))

            for chunk in range(chunks):
                b = (group * chunks + chunk) * rows + r
                if r < rows and b < B and unit < H:
                    for k in range(S):
                        ptx.store(finals, (k * B + b) * H + unit, ptx.load(carried, (chunk * S + k) * KIND + tid))
            group += groups

    return blocks_forward


# ------------------------------------------------------------------------------------------------------------- backward

@functools.cache
def backward_kernel(cell, layout):
    S, G, A, N, P = sizes(cell)
    H, UNITS, BLOCKS = layout.H, layout.units, layout.blocks
    THREADS, WEIGHTS, QUADS, SCRATCH = layout.threads, layout.weights, layout.weights // 4, layout.scratch
    LOCAL_N, LOCAL_P = max(1, N), max(1, P)
    KIND, KINDS = UNITS * layout.rows, S + P                # what a chunk carries: d_state, and the sums of d_own
    CARRIED = KINDS * KIND * layout.chunks
    STRIDE, H_SIDE = A * H, (A - G) * H                     # of da; where in it that of the state's side begins
    backward_row = cell.backward_row
    product = product_of(layout)
    clear, multiply, total = product.clear, product.multiply, product.total

    @device_function
    def load_step(dy, saved, states, place, moment, next_moment, plane, unit, d_state, kept, before, after):
        """What the forward pass left of a step of one unit, and dy."""
        d_state[0, 0] = ptx.load(dy, place * H + unit)                  # y = h
        for n in range(N):
            kept[n, 0] = ptx.load(saved, place * N * H + unit + n * H)
        for k in range(S):
            before[k, 0] = ptx.load(states, k * plane + moment)
            after[k, 0] = ptx.load(states, k * plane + next_moment)

    @device_function
    def store_gradients(da, place, unit, d_a):
        """The state's side, for which others wait, first."""
        for g in range(G):
            publish(da, place * STRIDE + unit + H_SIDE + g * H, d_a[A - G + g, 0])
        for g in range(A - G):
            ptx.store(da, place * STRIDE + unit + g * H, d_a[g, 0])

    @kernel(threads=THREADS, resident=True)
    def blocks_backward(packed: F1, own: F2, real: I2, saved: F4, states: F4, dy: F3, d_states: F3, da: F3, d_own: F3,
                        error: I1, rows: Int, chunks: Int, groups: Int, reverse: Int):
        scratch = cuda.shared.array(SCRATCH, float32, alignment=16)
        carried = cuda.shared.array(CARRIED, float32)
        w = cuda.local.array(WEIGHTS, float32)
        own_of_unit = cuda.local.array((LOCAL_P, 1), float32)
        d_own_of_unit = cuda.local.array((LOCAL_P, 1), float32)
        before = cuda.local.array((S, 1), float32)
        after = cuda.local.array((S, 1), float32)
        kept = cuda.local.array((LOCAL_N, 1), float32)
        d_state = cuda.local.array((S, 1), float32)
        d_a = cuda.local.array((A, 1), float32)
        B, T = dy.shape[0], dy.shape[1]
        plane = B * (T + 1) * H
        tid, part, group = cuda.threadIdx.x, cuda.blockIdx.x % BLOCKS, cuda.blockIdx.x // BLOCKS
        r, u = tid // UNITS, tid % UNITS
        unit = part * UNITS + u
        for n in range(QUADS):
            w[4 * n], w[4 * n + 1], w[4 * n + 2], w[4 * n + 3] = ptx.load4(
                packed, ((part * QUADS + n) * THREADS + tid) * 4)
        clear(scratch)
        if unit < H:
            for p in range(P):
                own_of_unit[p, 0] = ptx.load(own, p * H + unit)

        while group * chunks < real.shape[0]:
            for chunk in range(chunks):
                b = (group * chunks + chunk) * rows + r
                if r < rows and b < B and unit < H:
                    for k in range(S):
                        ptx.store(carried, (chunk * KINDS + k) * KIND + tid, ptx.load(d_states, (k * B + b) * H + unit))
                    for p in range(P):
                        ptx.store(carried, (chunk * KINDS + S + p) * KIND + tid, float32(0))

            for step in range(T + 1):                       # after the last step back its da is taken in: T + 1 rounds
                t = step if reverse else T - 1 - step
                later = t - 1 if reverse else t + 1         # the step that was walked back before this one
                slot, next_slot = (t + 1, t) if reverse else (t, t + 1)
                for chunk in range(chunks):
                    first = (group * chunks + chunk) * rows             # row of the batch
                    b = first + r
                    bits = real[group * chunks + chunk, t] if step < T else 0
                    later_bits = real[group * chunks + chunk, later] if step > 0 else 0
                    owner = r < rows and b < B and unit < H
                    is_real = owner and bits >> r & 1 == 1
                    place, moments = b * T + t, b * (T + 1)
                    mine = chunk * KINDS * KIND + tid
                    if is_real:                                         # begun before the wait, which hides it
                        load_step(dy, saved, states, place, (moments + slot) * H + unit,
                                  (moments + next_slot) * H + unit, plane, unit, d_state, kept, before, after)
                    if later_bits != 0:
                        multiply(w, da, (first * T + later) * STRIDE + H_SIDE, T * STRIDE, True, later_bits, rows,
                                 scratch, error)
                        cuda.syncthreads()
                        if owner and later_bits >> r & 1 == 1:
                            dh = total(scratch, r, u, 0)                 # a_h = h_prev @ U.T
                            ptx.store(carried, mine, ptx.load(carried, mine) + dh)
                    if is_real:
                        d_state[0, 0] += ptx.load(carried, mine)
                        for k in range(1, S):
                            d_state[k, 0] = ptx.load(carried, mine + k * KIND)
                        for p in range(P):
                            d_own_of_unit[p, 0] = ptx.load(carried, mine + (S + p) * KIND)
                        backward_row(kept, own_of_unit, before, after, d_state, d_a, d_own_of_unit)
                        store_gradients(da, place, unit, d_a)
                        for k in range(S):
                            ptx.store(carried, mine + k * KIND, d_state[k, 0])
                        for p in range(P):
                            ptx.store(carried, mine + (S + p) * KIND, d_own_of_unit[p, 0])
                    elif owner and step < T:
                        for g in range(A):
                            ptx.store(da, place * STRIDE + unit + g * H, float32(0))

            for chunk in range(chunks):
                b = (group * chunks + chunk) * rows + r
                if r < rows and b < B and unit < H:
                    for k in range(S):
                        ptx.store(d_states, (k * B + b) * H + unit, ptx.load(carried, (chunk * KINDS + k) * KIND + tid))
                    for p in range(P):
                        ptx.store(d_own, (b * P + p) * H + unit,
                                  ptx.load(carried, (chunk * KINDS + S + p) * KIND + tid))
            group += groups

    return blocks_backward
