"""Masks on a GPU.  Same functions and parameters as ``reference``, for DeviceArrays of float32.

The same bits as ``reference`` too, with two exceptions.

*   ``reference`` adds up in double precision, which is slow on a GPU.  Here a sum is a float32 and, beside it, what its
    roundings left out (Neumaier 1974).  So ``masked_sum`` and ``masked_mean`` differ from ``reference`` by one unit in
    the last place at most, and seldom by that, unless numbers cancel until less than 1e-5 of the largest sum on the way
    is left.  A sum that exceeds 3.4e38 on the way stays infinite, or NaN.
*   The source of ``masked_max`` is int32.

    B  batch      T  time steps      F  features (D where they are a net's inputs)
    mask (B,T) bool, True = a real step

Who does what: where all numbers can be made at once, a warp makes those of one step of one row, lane by lane along the
features, and asks only once what the mask says.  Where the steps follow one another, as in a sum, one thread walks
through the time of one row and one feature, AHEAD steps at once: it reads all of them before it adds the first, since a
read takes much longer than an addition.  Its indices are unsigned: Numba then leaves out the code for negative ones.
"""
import functools

import numpy as np
from numba import boolean, cuda, float32, int32, uint32

from ..device.elementwise import THREADS, blocks_for, two_sum, with_rest
from ..device.gpu import empty, launch, zeros
from ..device.kernel import B2, B3, F1, F2, F3, I2, Int, device_function, kernel, unroll

WARP, ALL = 32, 0xffffffff          # lanes of a warp; all of them
AHEAD = 8                           # steps that a thread reads before it uses the first
ZERO = np.float32(0)


def by_warps(kernel, warps, *arguments):
    """A launch with one warp for each of so many tasks: the kernel asks for its own by ``task()``."""
    launch(kernel, blocks_for(warps * WARP), *arguments)


@device_function
def task():
    return cuda.grid(1) // WARP


# -------------------------------------------------------------------------------------------------- a sequence for one

def select(x, mask):
    """x (B,T,F) where mask (B,T) is True, 0 elsewhere: a new array.  Its backward pass is itself."""
    y = empty(x.shape)
    by_warps(_select, mask.size, x, mask, y)
    return y


@kernel(threads=THREADS)
def _select(x: F3, mask: B2, y: F3):
    """x (B,T,F), or (B,1,F) for the same at every step."""
    B, T, F = y.shape
    b = task() // T
    t = task() - b * T
    if b < B:
        real = mask[b, t]
        for j in range(cuda.laneid, F, WARP):
            y[b, t, j] = x[b, t if x.shape[1] > 1 else 0, j] if real else ZERO


def feature_mask(x, keep, fill):
    """x (B,T,D) where keep is True, fill (D,) elsewhere.  keep (B,T,D) bool, or 1 long in place of B, of T or of both.
    -> (B,T,D)"""
    y = empty(x.shape)
    by_warps(_feature_mask, x.shape[0] * x.shape[1], x, keep, fill, y)
    return y


def feature_mask_backward(dy, keep):
    """The reverse of ``feature_mask``.  dy (B,T,D) -> dx (B,T,D)."""
    return feature_mask(dy, keep, zeros(dy.shape[2]))               # y[b, t, j] = x[b, t, j] where kept


@kernel(threads=THREADS)
def _feature_mask(x: F3, keep: B3, fill: F1, y: F3):
    B, T, D = y.shape
    b = task() // T
    t = task() - b * T
    if b < B:
        for j in range(cuda.laneid, D, WARP):
            kept = keep[b if keep.shape[0] > 1 else 0, t if keep.shape[1] > 1 else 0, j]
            y[b, t, j] = x[b, t, j] if kept else fill[j]


def hold(y, mask, reverse=False):
    """At each masked step the last real y before it, 0 where there is none; ``reverse`` walks from the other end.

    y (B,T,F), mask (B,T) -> (B,T,F)."""
    held = empty(y.shape)
    by_warps(_gather, mask.size, y, last_real_step(mask, reverse), 0, held)
    return held


def hold_backward(d_held, mask, reverse=False):
    """The reverse of ``hold``: every step's gradient goes to the real step it was taken from, the nearest one's first.
    -> dy (B,T,F)"""
    dy = empty(d_held.shape)
    grid = blocks_for(mask.size * WARP), -(-dy.shape[2] // WARP)
    launch(_hold_backward(reverse), grid, d_held, mask, last_real_step(mask, not reverse), dy)
    return dy


@kernel(threads=THREADS)
def _gather(y: F3, source: I2, first: Int, found: F3):
    """found[b, s] = y[b, source[b, first + s]], or 0 where that is no step."""
    B, S, F = found.shape
    b = task() // S
    s = task() - b * S
    if b < B:
        t = source[b, first + s]
        for j in range(cuda.laneid, F, WARP):
            found[b, s, j] = y[b, t, j] if t >= 0 else ZERO


@functools.cache
def _hold_backward(reverse):
    forth = -1 if reverse else 1

    @kernel(threads=THREADS)
    def add_copies(d_held: F3, mask: B2, next_real: I2, dy: F3):
        """The copies of a real step stand behind it, up to the next real one.  The features of a step are shared out
        to several warps, as one step may have very many copies."""
        B, T, F = dy.shape
        b = task() // T
        t = task() - b * T
        j = cuda.blockIdx.y * WARP + cuda.laneid
        if b < B and j < F:
            total = ZERO
            if mask[b, t]:
                end = -1 if reverse else T
                until = next_real[b, t + forth] if t + forth != end else -1
                for copy in range(t, end if until < 0 else until, forth):
                    total += d_held[b, copy, j]                     # found[b, s] = y[b, source[b, s]]
            dy[b, t, j] = total

    return add_copies


def last_real_step(mask, reverse):
    """The last real step up to each step, itself included, -1 for none: int32 (B,T).  ``reverse``: from the end."""
    source = empty(mask.shape, "int32")
    by_warps(_last_real_step(reverse), len(mask), mask, source)
    return source


@functools.cache
def _last_real_step(reverse):
    @kernel(threads=THREADS)
    def find_last_real_step(mask: B2, source: I2):
        """A warp for each row, 32 steps at once.  After the exchange over a distance of 2**k each lane knows the last
        real step among its own and the 2**(k+1) - 1 before (Hillis and Steele 1986)."""
        B, T = mask.shape
        b = task()
        if b < B:
            so_far = -1
            for first in range(0, T, WARP):
                step = first + cuda.laneid
                t = T - 1 - step if reverse else step
                found = t if step < T and mask[b, t] else -1
                for k in range(5):
                    earlier = cuda.shfl_up_sync(ALL, found, 1 << k)
                    found = earlier if found < 0 else found
                found = so_far if found < 0 else found
                if step < T:
                    source[b, t] = found
                so_far = cuda.shfl_sync(ALL, found, WARP - 1)

    return find_last_real_step


# ------------------------------------------------------------------------------------------------- one step for a row

def first_valid(y, mask):
    """y (B,T,F) at the first real step of each row -> (B,F)."""
    return _end(y, mask, True)


def first_valid_backward(d_first, mask):
    """The reverse of ``first_valid``.  d_first (B,F) -> dy (B,T,F)."""
    return _end_backward(d_first, mask, True)


def last_valid(y, mask):
    """y (B,T,F) at the last real step of each row -> (B,F)."""
    return _end(y, mask, False)


def last_valid_backward(d_last, mask):
    """The reverse of ``last_valid``.  d_last (B,F) -> dy (B,T,F)."""
    return _end_backward(d_last, mask, False)


def _end(y, mask, reverse):
    """Walked through in reverse, the first real step is the last one met."""
    B, T, F = y.shape
    if T == 0:
        return zeros((B, F))
    end = empty((B, 1, F))
    by_warps(_gather, B, y, last_real_step(mask, reverse), 0 if reverse else T - 1, end)
    return end.reshape(B, F)


def _end_backward(d_end, mask, reverse):
    B, T = mask.shape
    dy = empty((B, T, d_end.shape[1]))
    by_warps(_end_only, mask.size, d_end, last_real_step(mask, reverse), 0 if reverse else T - 1, dy)
    return dy


@kernel(threads=THREADS)
def _end_only(d_end: F2, source: I2, last: Int, dy: F3):
    B, T, F = dy.shape
    b = task() // T
    t = task() - b * T
    if b < B:
        is_source = source[b, last] == t
        for j in range(cuda.laneid, F, WARP):
            dy[b, t, j] = d_end[b, j] if is_source else ZERO            # found[b, 0, j] = y[b, source[b, last], j]


# ------------------------------------------------------------------------------------------------ all steps in one row

def masked_sum(y, mask):
    """The sum of y (B,T,F) over the real steps of each row -> (B,F)."""
    return _sum(y, mask, False)


def masked_sum_backward(d_sum, mask):
    """The reverse of ``masked_sum``.  d_sum (B,F) -> dy (B,T,F)."""
    B, F = d_sum.shape
    dy = empty((*mask.shape, F))
    by_warps(_select, mask.size, d_sum.reshape(B, 1, F), mask, dy)      # total += y[b, t, j] where mask[b, t]
    return dy


def masked_mean(y, mask):
    """The mean of y (B,T,F) over the real steps of each row -> (B,F)."""
    return _sum(y, mask, True)


def masked_mean_backward(d_mean, mask):
    """The reverse of ``masked_mean``.  d_mean (B,F) -> dy (B,T,F)."""
    d_sum = empty(d_mean.shape)
    by_warps(_shares, len(mask), d_mean, mask, d_sum)                   # mean = sum / count
    return masked_sum_backward(d_sum, mask)


def masked_max(y, mask):
    """The largest y (B,T,F) over the real steps of each row -> (B,F), and the step it stands at, int32 (B,F): the first
    one of several, the first NaN if there is one, -1 in a row without a real step."""
    largest, source = empty(y.shape[::2]), empty(y.shape[::2], "int32")
    launch(_largest_step, blocks_for(largest.size), y, mask, largest, source)
    return largest, source


def masked_max_backward(d_max, mask, source):
    """The reverse of ``masked_max``.  d_max (B,F), source int32 (B,F) -> dy (B,T,F)."""
    dy = empty((*mask.shape, d_max.shape[1]))
    by_warps(_largest_step_backward, mask.size, d_max, source, dy)
    return dy


def _sum(y, mask, mean):
    """One step after the other: padding anywhere changes no bit."""
    total = empty(y.shape[::2])
    launch(_add_steps(mean), blocks_for(total.size), y, mask, total)
    return total


@functools.cache
def _add_steps(mean):
    @kernel(threads=THREADS)
    def add_steps(y: F3, mask: B2, result: F2):
        seen, real = cuda.local.array(AHEAD, float32), cuda.local.array(AHEAD, boolean)
        B, T, F = uint32(y.shape[0]), uint32(y.shape[1]), uint32(y.shape[2])
        b = uint32(cuda.grid(1)) // F
        j = uint32(cuda.grid(1)) - b * F
        if b < B:
            total, rest, count = ZERO, ZERO, 0
            for first in range(uint32(0), T, uint32(AHEAD)):
                for k in unroll(AHEAD):
                    real[k] = first + uint32(k) < T and mask[b, first + uint32(k)]
                for k in unroll(AHEAD):
                    seen[k] = y[b, first + uint32(k), j] if real[k] else ZERO       # to add 0 changes no bit
                for k in unroll(AHEAD):
                    total, left_out = two_sum(total, seen[k])
                    rest += left_out
                    count += real[k]
            result[b, j] = quotient(total, rest, float32(max(count, 1))) if mean else with_rest(total, rest)

    return add_steps


@device_function
def quotient(total, rest, count):
    """(total + rest) / count, by one step of a long division with total / count as its first digits."""
    first = total / count
    return with_rest(first, (cuda.fma(-first, count, total) + rest) / count)


@kernel(threads=THREADS)
def _shares(d_mean: F2, mask: B2, d_sum: F2):
    B, T = mask.shape
    b = task()
    if b < B:
        count = 0
        for t in range(cuda.laneid, T, WARP):
            count += mask[b, t]
        for k in range(5):
            count += cuda.shfl_xor_sync(ALL, count, 1 << k)
        for j in range(cuda.laneid, d_mean.shape[1], WARP):
            d_sum[b, j] = d_mean[b, j] / float32(max(count, 1))


@kernel(threads=THREADS)
def _largest_step(y: F3, mask: B2, largest: F2, source: I2):
    seen, real = cuda.local.array(AHEAD, float32), cuda.local.array(AHEAD, boolean)
    B, T, F = uint32(y.shape[0]), uint32(y.shape[1]), uint32(y.shape[2])
    b = uint32(cuda.grid(1)) // F
    j = uint32(cuda.grid(1)) - b * F
    if b < B:
        so_far, step = ZERO, -1
        for first in range(uint32(0), T, uint32(AHEAD)):
            for k in unroll(AHEAD):
                real[k] = first + uint32(k) < T and mask[b, first + uint32(k)]
            for k in unroll(AHEAD):
                seen[k] = y[b, first + uint32(k), j] if real[k] else ZERO
            for k in unroll(AHEAD):
                beyond = not seen[k] <= so_far and so_far == so_far     # greater, or the first NaN
                if real[k] and (beyond or step < 0):
                    so_far, step = seen[k], int32(first) + k
        largest[b, j], source[b, j] = so_far, step


@kernel(threads=THREADS)
def _largest_step_backward(d_max: F2, source: I2, dy: F3):
    B, T, F = dy.shape
    b = task() // T
    t = task() - b * T
    if b < B:
        for j in range(cuda.laneid, F, WARP):
            dy[b, t, j] = d_max[b, j] if source[b, j] == t else ZERO    # largest[b, j] = y[b, source[b, j], j]
