"""Masks in plain NumPy: the definition that the fast backends are held against.

    B  batch      T  time steps      F  features (D where they are a net's inputs)
    mask (B,T) bool, True = a real step

Every function selects; none multiplies by a mask, since 0 * NaN is NaN.  What stands at a masked step reaches nothing,
and its gradient is 0.  A row without a real step gives 0 and gets gradient 0.

Nothing here checks its arguments: the functions of the same names in ``masking`` do.  All but ``masked_max`` work for
complex numbers too.
"""
import numpy as np


# -------------------------------------------------------------------------------------------------- a sequence for one

def select(x, mask):
    """x (B,T,F) where mask (B,T) is True, 0 elsewhere: a new array.  Its backward pass is itself."""
    return x.copy() if mask.all() else np.where(mask[:, :, None], x, x.dtype.type(0))


def feature_mask(x, keep, fill):
    """x (B,T,D) where keep is True, fill (D,) elsewhere.  keep (B,T,D) bool, or 1 long in place of B, of T or of both.
    -> (B,T,D)"""
    return np.where(keep, x, fill)


def feature_mask_backward(dy, keep):
    """The reverse of ``feature_mask``.  dy (B,T,D) -> dx (B,T,D)."""
    return np.where(keep, dy, dy.dtype.type(0))                         # y = np.where(keep, x, fill)


def hold(y, mask, reverse=False):
    """At each masked step the last real y before it, 0 where there is none; ``reverse`` walks from the other end.

    y (B,T,F), mask (B,T) -> (B,T,F)."""
    source = _last_real_step(mask, reverse)                             # (B,T), -1 for none
    held = np.take_along_axis(y, np.maximum(source, 0)[:, :, None], axis=1)
    return select(held, source >= 0)


def hold_backward(d_held, mask, reverse=False):
    """The reverse of ``hold``: every step's gradient goes to the real step it was taken from, the nearest one's first.
    -> dy (B,T,F)"""
    source = _last_real_step(mask, reverse)
    dy = np.zeros_like(d_held)
    rows, steps = (places[::-1 if reverse else 1] for places in np.nonzero(source >= 0))
    np.add.at(dy, (rows, source[rows, steps]), d_held[rows, steps])     # held = y[source]
    return dy


def _last_real_step(mask, reverse):
    steps = np.arange(mask.shape[1])
    if reverse:
        last = mask.shape[1]
        source = np.minimum.accumulate(np.where(mask, steps, last)[:, ::-1], axis=1)[:, ::-1]
        return np.where(source == last, -1, source)
    return np.maximum.accumulate(np.where(mask, steps, -1), axis=1)


# ------------------------------------------------------------------------------------------------- one step for a row

def first_valid(y, mask):
    """y (B,T,F) at the first real step of each row -> (B,F)."""
    first = np.zeros(y.shape[::2], y.dtype)
    first[mask.any(axis=1)] = y[_first(mask)]
    return first


def first_valid_backward(d_first, mask):
    """The reverse of ``first_valid``.  d_first (B,F) -> dy (B,T,F)."""
    dy = np.zeros((*mask.shape, d_first.shape[1]), d_first.dtype)
    dy[_first(mask)] = d_first[mask.any(axis=1)]                        # first[mask.any(axis=1)] = y[_first(mask)]
    return dy


def last_valid(y, mask):
    """y (B,T,F) at the last real step of each row -> (B,F)."""
    return first_valid(y[:, ::-1], mask[:, ::-1])


def last_valid_backward(d_last, mask):
    """The reverse of ``last_valid``.  d_last (B,F) -> dy (B,T,F)."""
    return np.ascontiguousarray(first_valid_backward(d_last, mask[:, ::-1])[:, ::-1])


def _first(mask):
    """mask with only the first True of each row left."""
    return mask & (np.cumsum(mask, axis=1) == 1)


# ------------------------------------------------------------------------------------------------ all steps in one row

def masked_sum(y, mask):
    """The sum of y (B,T,F) over the real steps of each row -> (B,F)."""
    return _sum(y, mask).astype(y.dtype)


def masked_sum_backward(d_sum, mask):
    """The reverse of ``masked_sum``.  d_sum (B,F) -> dy (B,T,F)."""
    return np.where(mask[:, :, None], d_sum[:, None], d_sum.dtype.type(0))      # total += y[:, t], at real steps


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
    largest = np.zeros(y.shape[::2], y.dtype)
    source = np.full(largest.shape, -1, np.int64)
    for t in range(y.shape[1]):
        beyond = ~(y[:, t] <= largest) & ~np.isnan(largest)             # greater, or the first NaN
        better = mask[:, t, None] & (beyond | (source < 0))
        largest = np.where(better, y[:, t], largest)
        source = np.where(better, t, source)
    return largest, source


def masked_max_backward(d_max, mask, source):
    """The reverse of ``masked_max``.  d_max, source (B,F) -> dy (B,T,F)."""
    dy = np.zeros((*mask.shape, d_max.shape[1]), d_max.dtype)
    rows, features = np.nonzero(source >= 0)
    dy[rows, source[rows, features], features] = d_max[rows, features]  # largest = y[source]
    return dy


def _sum(y, mask):
    """One step after the other, in double precision: padding anywhere changes no bit.  -> float64 (B,F)"""
    total = np.zeros(y.shape[::2], np.promote_types(y.dtype, np.float64))
    for t in range(y.shape[1]):
        np.add(total, y[:, t], out=total, where=mask[:, t, None])
    return total


def _count(mask):
    """(B,1): what the sum over a row is divided by; 1 in a row without a real step."""
    return np.maximum(np.count_nonzero(mask, axis=1), 1)[:, None]
