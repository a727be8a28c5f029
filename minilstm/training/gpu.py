"""Losses, clipping and Adam on a GPU.  Nothing here waits for the GPU: what is not finite is noted there, and moves
nothing.

A loss takes four launches: some blocks count the real steps, and one adds up what they found; then some blocks write
the gradient and add up their parts of the loss, and one adds up these parts.  Shapes alone decide who adds what, and in
which order, and each number is added with what its rounding left out (``device/elementwise.py``).

    N  steps of all sequences, or sequences where there is one output for each      F  features
    y (N,F)      mask (N,), True = counts
"""
import math

import numpy as np
from numba import cuda, float32

from ..cells.activations import ONE, exp, formula
from ..device.elementwise import (
    MOST_BLOCKS, NUMBERS_A_THREAD, THREADS, added_up, blocks_for, store_partial, sum_of_squares, two_sum)
from ..device.gpu import empty, launch, zeros
from ..device.kernel import B1, F1, F2, Float, I1, Int, device_function, kernel
from .optimizers import moved_by_adam

WARP, ALL = 32, 0xffffffff
WARPS = THREADS // WARP
ZERO, TWO, INFINITY, NAN = np.float32(0), np.float32(2), np.float32(np.inf), np.float32(np.nan)
LOSS, NORM, FACTOR = range(3)           # the columns of what is noted of a batch


def blocks_to_add(n):
    """How many blocks share out n numbers that are added up."""
    return max(1, min(MOST_BLOCKS, -(-blocks_for(n) // NUMBERS_A_THREAD)))


# -------------------------------------------------------------------------------------------------------------- losses

def mean_squared_error(y, target, mask):
    """y, target (...,F), mask (...) -> the loss (1,), dy (...,F)."""
    dy, blocks, F = empty(y.shape), blocks_to_add(y.size), y.shape[-1]
    partial = empty((blocks, 2))
    launch(square_differences, blocks, y.reshape(-1), target.reshape(-1), mask.reshape(-1), counted(mask),
           dy.reshape(-1), partial, F, y.size)
    return added_up(partial, blocks), dy


@kernel(threads=THREADS)
def square_differences(y: F1, target: F1, mask: B1, real: F1, dy: F1, partial: F2, F: Int, n: Int):
    per_number = ONE / max(ONE, real[0] * float32(F))
    total, rest = ZERO, ZERO
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        difference = y[i] - target[i] if mask[i // F] else ZERO
        dy[i] = difference * (TWO * per_number)                 # loss = sum(difference**2) * per_number
        total, left_out = two_sum(total, difference * difference)
        rest += left_out
    store_partial(partial, total * per_number, rest * per_number)


def softmax_cross_entropy(y, target, mask):
    """y (...,F), target (...) int32, mask (...) -> the loss (1,), dy (...,F).  A target that is no class gives NaN."""
    dy, N, F = empty(y.shape), mask.size, y.shape[-1]
    blocks = max(1, min(MOST_BLOCKS, -(-N // WARPS)))
    partial = empty((blocks, 2))
    launch(cross_entropies, blocks, y.reshape(N, F), target.reshape(-1), mask.reshape(-1), counted(mask),
           dy.reshape(N, F), partial)
    return added_up(partial, blocks), dy


@kernel(threads=THREADS)
def cross_entropies(y: F2, target: I1, mask: B1, real: F1, dy: F2, partial: F2):
    """A warp for a step: its lanes share the classes."""
    N, F = y.shape
    lane = cuda.laneid
    per_step = ONE / max(ONE, real[0])
    loss, rest = ZERO, ZERO
    for n in range(cuda.grid(1) // WARP, N, cuda.gridsize(1) // WARP):
        if mask[n]:
            largest = -INFINITY
            for j in range(lane, F, WARP):
                largest = max(largest, y[n, j])
            largest = largest_in_warp(largest)
            total = ZERO
            for j in range(lane, F, WARP):
                total += exp(y[n, j] - largest)
            total = sum_in_warp(total)
            known = 0 <= target[n] < F
            if lane == 0:
                log_p = y[n, target[n]] - largest - math.log(total) if known else NAN
                loss, left_out = two_sum(loss, -log_p)
                rest += left_out
            for j in range(lane, F, WARP):
                p = exp(y[n, j] - largest) / total
                dy[n, j] = (p - ONE if j == target[n] else p) * (per_step if known else NAN)    # loss = -log_p
        else:
            for j in range(lane, F, WARP):
                dy[n, j] = ZERO
    store_partial(partial, loss * per_step, rest * per_step)


def counted(mask):
    """How many are True -> (1,), a float32."""
    blocks = blocks_to_add(mask.size)
    partial = empty((blocks, 2))
    launch(count, blocks, mask.reshape(-1), partial, mask.size)
    return added_up(partial, blocks)


@kernel(threads=THREADS)
def count(mask: B1, partial: F2, n: Int):
    found = ZERO
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        found += ONE if mask[i] else ZERO
    store_partial(partial, found, ZERO)


@device_function
def largest_in_warp(value):
    for k in range(5):
        value = max(value, cuda.shfl_xor_sync(ALL, value, 1 << k))
    return value


@device_function
def sum_in_warp(value):
    for k in range(5):
        value += cuda.shfl_xor_sync(ALL, value, 1 << k)
    return value


# ------------------------------------------------------------------------------------------------------------ clipping

class Notes:
    """What is noted of the batches of an epoch, on the GPU: the loss, the norm of the gradients, and by what these were
    multiplied.  That is NaN from the first batch on whose loss or norm is not finite, so that nothing moves any more
    until somebody looks."""

    def __init__(self, batches):
        self.rows = zeros((1 + batches, 3))         # that of a batch stands behind the one of the batch before it
        self.batches = 0

    def clip(self, layers, limit, loss=None):
        """Multiply all gradients by min(1, limit / norm) -> the norm (1,), the factor (1,).  loss (1,) on the GPU, or
        None."""
        squares = sum_of_squares([g for layer in layers for g in layer.grads.values()])
        self.batches += 1
        launch(judge, 1, self.rows, self.batches, squares if loss is None else loss, squares, limit)
        note = self.rows[self.batches]
        for layer in layers:
            for name, g in layer.grads.items():
                layer.grads[name] = multiplied(g, note.part(FACTOR, FACTOR + 1))
        return note.part(NORM, NORM + 1), note.part(FACTOR, FACTOR + 1)

    def read(self):
        """-> (batches,) losses, (batches,) norms, NumPy's.  Waits for the GPU."""
        rows = self.rows.part(1, 1 + self.batches).copy_to_host()
        return rows[:, LOSS], rows[:, NORM]


@kernel(threads=WARP)
def judge(notes: F2, k: Int, loss: F1, squares: F1, limit: Float):
    if cuda.threadIdx.x == 0:
        norm = math.sqrt(squares[0])
        sound = is_finite(loss[0]) and is_finite(norm) and is_finite(notes[k - 1, FACTOR])
        notes[k, LOSS] = loss[0]
        notes[k, NORM] = norm
        notes[k, FACTOR] = (limit / norm if norm > limit else ONE) if sound else NAN


@formula
def is_finite(x):
    return abs(x) < INFINITY


def multiplied(array, factor):
    """array * factor (1,), a new array."""
    product = empty(array.shape)
    launch(multiply_by_one, blocks_for(array.size), array.reshape(-1), factor, product.reshape(-1), array.size)
    return product


@kernel(threads=THREADS)
def multiply_by_one(array: F1, factor: F1, product: F1, n: Int):
    i = cuda.grid(1)
    if i < n:
        product[i] = array[i] * factor[0]


# ----------------------------------------------------------------------------------------------------------- optimizer

def adam(p, g, m, v, *numbers):
    """One step for the numbers of one array -> p, a new array; m and v are written to.  numbers: as for
    ``moved_by_adam``.  Where g is NaN nothing moves."""
    moved = empty(p.shape)
    launch(move, blocks_for(p.size), *(array.reshape(-1) for array in (p, g, m, v, moved)), *numbers, p.size)
    return moved


@kernel(threads=THREADS)
def move(p: F1, g: F1, m: F1, v: F1, moved: F1, stays: Float, part1: Float, part2: Float, rate: Float, per_bias: Float,
         epsilon: Float, n: Int):
    i = cuda.grid(1)
    if i < n:
        moved[i] = p[i]
        if g[i] == g[i]:                    # or else it is NaN
            moved[i], m[i], v[i] = moved_by_adam(
                p[i], g[i], m[i], v[i], stays, part1, part2, rate, per_bias, epsilon)
