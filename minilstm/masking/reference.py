"""Masks in plain NumPy.  Every function selects; none multiplies by a mask, since 0 * NaN is NaN."""
import numpy as np


def select(x, mask):
    """x (B,T,F) where mask (B,T) is True, 0 elsewhere: a new array.  Its backward pass is itself."""
    return x.copy() if mask.all() else np.where(mask[:, :, None], x, x.dtype.type(0))


def hold(y, mask, reverse=False):
    """At each masked step the last real y before it, 0 where there is none; ``reverse`` walks from the other end.

    y (B,T,F), mask (B,T) -> (B,T,F)."""
    source = _last_real_step(mask, reverse)                             # (B,T), -1 for none
    held = np.take_along_axis(y, np.maximum(source, 0)[:, :, None], axis=1)
    return select(held, source >= 0)


def hold_backward(d_held, mask, reverse=False):
    """The reverse of ``hold``: every step's gradient goes to the real step it was taken from.  -> dy (B,T,F)."""
    source = _last_real_step(mask, reverse)
    dy = np.zeros_like(d_held)
    rows, steps = np.nonzero(source >= 0)
    np.add.at(dy, (rows, source[rows, steps]), d_held[rows, steps])     # held = y[source]
    return dy


def _last_real_step(mask, reverse):
    steps = np.arange(mask.shape[1])
    if reverse:
        last = mask.shape[1]
        source = np.minimum.accumulate(np.where(mask, steps, last)[:, ::-1], axis=1)[:, ::-1]
        return np.where(source == last, -1, source)
    return np.maximum.accumulate(np.where(mask, steps, -1), axis=1)
