"""Masks, compiled.  Same functions, parameters and bits as ``reference``.

Each kernel works on the batch rows from ``first`` to ``last``, and threads share rows out.  So what a row gives depends
on nothing but the row: the results are the same bits for any number of threads and any batch around it.

    B  batch      T  time steps      F  features (D where they are a net's inputs)
    mask (B,T) bool, True = a real step
"""
import numpy as np
from numba.extending import register_jitable

from ..machine.buffers import empty
from ..machine.kernel import kernel
from ..machine.rows import clear_row, copy_row
from ..machine.threads import spread, threads_for

MULTIPLY_ADDS_A_NUMBER = 10     # that could be done while one number is read and written: some 0.2 nanoseconds


def by_rows(work, B, numbers):
    """Call work(first, last) for ranges of batch rows, on as many threads as it is worth to read or write so many
    numbers."""
    threads = max(1, min(B, threads_for(numbers * MULTIPLY_ADDS_A_NUMBER)))
    cuts = [B * k // threads for k in range(threads + 1)]
    spread(lambda k: work(cuts[k], cuts[k + 1]), threads, threads)


@register_jitable
def at(step, T, reverse):
    """The ``step``-th t of a walk from one end to the other."""
    return T - 1 - step if reverse else step


# -------------------------------------------------------------------------------------------------- a sequence for one

def select(x, mask):
    """x (B,T,F) where mask (B,T) is True, 0 elsewhere: a new array.  Its backward pass is itself."""
    y = empty(x.shape, x.dtype)
    by_rows(lambda first, last: _select(x, mask, y, first, last), len(x), x.size)
    return y


@kernel
def _select(x, mask, y, first, last):
    """x (B,T,F), or (B,1,F) for the same at every step."""
    for b in range(first, last):
        for t in range(mask.shape[1]):
            if mask[b, t]:
                copy_row(y[b, t], x[b, t if x.shape[1] > 1 else 0])
            else:
                clear_row(y[b, t])


def feature_mask(x, keep, fill):
    """x (B,T,D) where keep is True, fill (D,) elsewhere.  keep (B,T,D) bool, or 1 long in place of B, of T or of both.
    -> (B,T,D)"""
    y = empty(x.shape, x.dtype)
    by_rows(lambda first, last: _feature_mask(x, keep, fill, y, first, last), len(x), x.size)
    return y


def feature_mask_backward(dy, keep):
    """The reverse of ``feature_mask``.  dy (B,T,D) -> dx (B,T,D)."""
    return feature_mask(dy, keep, np.zeros(dy.shape[2], dy.dtype))      # y[b, t, j] = x[b, t, j] where kept


@kernel
def _feature_mask(x, keep, fill, y, first, last):
    for b in range(first, last):
        for t in range(x.shape[1]):
            kept = keep[b if keep.shape[0] > 1 else 0, t if keep.shape[1] > 1 else 0]
            for j in range(x.shape[2]):
                y[b, t, j] = x[b, t, j] if kept[j] else fill[j]


def hold(y, mask, reverse=False):
    """At each masked step the last real y before it, 0 where there is none; ``reverse`` walks from the other end.

    y (B,T,F), mask (B,T) -> (B,T,F)."""
    held = empty(y.shape, y.dtype)
    by_rows(lambda first, last: _hold(y, mask, reverse, held, first, last), len(y), y.size)
    return held


def hold_backward(d_held, mask, reverse=False):
    """The reverse of ``hold``: every step's gradient goes to the real step it was taken from, the nearest one's first.
    -> dy (B,T,F)"""
    dy = empty(d_held.shape, d_held.dtype)
    by_rows(lambda first, last: _hold_backward(d_held, mask, reverse, dy, first, last), len(dy), dy.size)
    return dy


@kernel
def _hold(y, mask, reverse, held, first, last):
    T = mask.shape[1]
    for b in range(first, last):
        source = -1
        for step in range(T):
            t = at(step, T, reverse)
            if mask[b, t]:
                source = t
            if source < 0:
                clear_row(held[b, t])
            else:
                copy_row(held[b, t], y[b, source])


@kernel
def _hold_backward(d_held, mask, reverse, dy, first, last):
    T = mask.shape[1]
    for b in range(first, last):
        source = -1
        for step in range(T):
            t = at(step, T, reverse)
            clear_row(dy[b, t])
            if mask[b, t]:
                source = t
            if source >= 0:
                for j in range(dy.shape[2]):
                    dy[b, source, j] += d_held[b, t, j]             # copy_row(held[b, t], y[b, source])


# ------------------------------------------------------------------------------------------------- one step for a row

def first_valid(y, mask):
    """y (B,T,F) at the first real step of each row -> (B,F)."""
    return _end(y, mask, False)


def first_valid_backward(d_first, mask):
    """The reverse of ``first_valid``.  d_first (B,F) -> dy (B,T,F)."""
    return _end_backward(d_first, mask, False)


def last_valid(y, mask):
    """y (B,T,F) at the last real step of each row -> (B,F)."""
    return _end(y, mask, True)


def last_valid_backward(d_last, mask):
    """The reverse of ``last_valid``.  d_last (B,F) -> dy (B,T,F)."""
    return _end_backward(d_last, mask, True)


def _end(y, mask, reverse):
    end = empty(y.shape[::2], y.dtype)
    by_rows(lambda first, last: _copy_end(y, mask, reverse, end, first, last), len(y), mask.size + end.size)
    return end


def _end_backward(d_end, mask, reverse):
    dy = empty((*mask.shape, d_end.shape[1]), d_end.dtype)
    by_rows(lambda first, last: _copy_end_backward(d_end, mask, reverse, dy, first, last), len(dy), dy.size)
    return dy


@kernel
def _copy_end(y, mask, reverse, end, first, last):
    T = mask.shape[1]
    for b in range(first, last):
        clear_row(end[b])
        for step in range(T):
            t = at(step, T, reverse)
            if mask[b, t]:
                copy_row(end[b], y[b, t])
                break


@kernel
def _copy_end_backward(d_end, mask, reverse, dy, first, last):
    T = mask.shape[1]
    for b in range(first, last):
        found = False
        for step in range(T):
            t = at(step, T, reverse)
            if mask[b, t] and not found:
                copy_row(dy[b, t], d_end[b])                            # copy_row(end[b], y[b, t])
                found = True
            else:
                clear_row(dy[b, t])


# ------------------------------------------------------------------------------------------------ all steps in one row

def masked_sum(y, mask):
    """The sum of y (B,T,F) over the real steps of each row -> (B,F)."""
    return _sum(y, mask).astype(y.dtype)


def masked_sum_backward(d_sum, mask):
    """The reverse of ``masked_sum``.  d_sum (B,F) -> dy (B,T,F)."""
    dy = empty((*mask.shape, d_sum.shape[1]), d_sum.dtype)
    d_step = d_sum[:, None]                                             # total[b, j] += y[b, t, j] where mask[b, t]
    by_rows(lambda first, last: _select(d_step, mask, dy, first, last), len(dy), dy.size)
    return dy


def masked_mean(y, mask):
    """The mean of y (B,T,F) over the real steps of each row -> (B,F)."""
    return (_sum(y, mask) / _count(mask)).astype(y.dtype)


def masked_mean_backward(d_mean, mask):
    """The reverse of ``masked_mean``.  d_mean (B,F) -> dy (B,T,F)."""
    d_sum = (d_mean / _count(mask)).astype(d_mean.dtype)                # mean = sum / count
    return masked_sum_backward(d_sum, mask)


def masked_max(y, mask):
    """The largest y (B,T,F) over the real steps of each row -> (B,F), and the step it stands at, int64 (B,F): the first
    one of several, the first NaN if there is one, -1 in a row without a real step."""
    largest, source = empty(y.shape[::2], y.dtype), empty(y.shape[::2], np.int64)
    by_rows(lambda first, last: _largest_step(y, mask, largest, source, first, last), len(y), y.size)
    return largest, source


def masked_max_backward(d_max, mask, source):
    """The reverse of ``masked_max``.  d_max, source (B,F) -> dy (B,T,F)."""
    dy = empty((*mask.shape, d_max.shape[1]), d_max.dtype)
    by_rows(lambda first, last: _largest_step_backward(d_max, source, dy, first, last), len(dy), dy.size)
    return dy


def _sum(y, mask):
    """One step after the other, in double precision: padding anywhere changes no bit.  -> float64 (B,F)"""
    total = empty(y.shape[::2], np.float64)
    by_rows(lambda first, last: _add_steps(y, mask, total, first, last), len(y), y.size)
    return total


def _count(mask):
    """(B,1): what the sum over a row is divided by; 1 in a row without a real step."""
    return np.maximum(np.count_nonzero(mask, axis=1), 1)[:, None]


@kernel
def _add_steps(y, mask, total, first, last):
    for b in range(first, last):
        clear_row(total[b])
        for t in range(mask.shape[1]):
            if mask[b, t]:
                for j in range(total.shape[1]):
                    total[b, j] += y[b, t, j]


@kernel
def _largest_step(y, mask, largest, source, first, last):
    for b in range(first, last):
        for j in range(largest.shape[1]):
            largest[b, j], source[b, j] = 0, -1
        for t in range(mask.shape[1]):
            if mask[b, t]:
                for j in range(largest.shape[1]):
                    value, so_far = y[b, t, j], largest[b, j]
                    beyond = not value <= so_far and so_far == so_far   # greater, or the first NaN
                    if beyond or source[b, j] < 0:
                        largest[b, j], source[b, j] = value, t


@kernel
def _largest_step_backward(d_max, source, dy, first, last):
    for b in range(first, last):
        for t in range(dy.shape[1]):
            clear_row(dy[b, t])
        for j in range(dy.shape[2]):
            if source[b, j] >= 0:
                dy[b, source[b, j], j] = d_max[b, j]                    # largest[b, j] = y[b, source[b, j], j]
