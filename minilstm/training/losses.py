"""Losses: functions (y, target, mask) -> (loss, gradient of y).

y may be a NumPy array or, as a layer on a GPU gives it, a DeviceArray.  Then target and mask may be either, the loss is
a DeviceArray (1,), for which nobody has waited (float(loss) does), and dy one of the shape of y.
"""
import numpy as np

from .. import backends
from ..arguments import describe
from ..device import DeviceArray
from .softmax import log_softmax, log_softmax_backward


def mean_squared_error(y, target, mask=None):
    """The mean of (y - target)**2 over the real steps and their features, and its gradient.

    y, target (B,T,F), one dtype; mask (B,T) bool, True = counts -> loss (float), dy (B,T,F), 0 where masked.  Or, for
    one output a sequence, y, target (B,F) and mask (B,).
    Whatever stands in masked steps, NaN included, is never read.  With no real step the loss is 0, and so is dy.

    Raises TypeError or ValueError that says which argument does not fit."""
    arrays = _arrays_of(y)
    target = arrays.adopted("target", target)
    if not isinstance(target, arrays.KNOWN) or target.dtype != y.dtype or target.shape != y.shape:
        raise ValueError(f"target: expected {describe(y)}, as y is, got {describe(target)}")
    mask = _mask(mask, y, arrays)
    if isinstance(y, DeviceArray):
        return backends.module("training", "gpu").mean_squared_error(y, arrays.from_numpy(target), mask)
    difference = np.subtract(y, target, where=mask[..., None], out=np.zeros_like(y))
    count = max(1, int(mask.sum()) * y.shape[-1])
    loss = float(np.square(difference, dtype=np.float64).sum() / count)         # loss = sum(difference**2) / count
    return loss, difference * y.dtype.type(2 / count)                           # difference = y - target


def softmax_cross_entropy(y, target, mask=None):
    """The mean of -log(p) over the real steps, p the chance that the softmax of y gives to the class that was right;
    and its gradient.

    y (B,T,F), a number for each of F classes; target (B,T) integers from 0 to F - 1, int32 where they are on a GPU;
    mask (B,T) bool, True = counts -> loss (float), dy (B,T,F), 0 where masked.  Or, for one output a sequence, y (B,F),
    target and mask (B,).
    Whatever stands in masked steps is never read.  With no real step the loss is 0, and so is dy.

    Raises TypeError or ValueError that says which argument does not fit.  Only a target on a GPU is not looked at: a
    number there that is no class makes the loss NaN, and the gradient at its step."""
    arrays = _arrays_of(y)
    shape, F = y.shape[:-1], y.shape[-1]
    target = arrays.adopted("target", target)
    if not isinstance(target, arrays.KNOWN) or target.dtype.kind not in "iu" or target.shape != shape:
        raise ValueError(f"target: expected integers {shape}, classes from 0 to {F - 1}, got {describe(target)}")
    mask = _mask(mask, y, arrays)
    if isinstance(target, np.ndarray):
        _check_classes(target, arrays.to_numpy(mask), F)
    if isinstance(y, DeviceArray):
        return backends.module("training", "gpu").softmax_cross_entropy(y, arrays.integers("target", target), mask)
    log_p = log_softmax(np.where(mask[..., None], y, y.dtype.type(0)))
    right = np.where(mask, target, 0)[..., None]
    count = max(1, np.count_nonzero(mask))
    chosen = np.take_along_axis(log_p, right, axis=-1)[..., 0]
    loss = float(-chosen.sum(where=mask, dtype=np.float64) / count)
    d_log_p = np.zeros_like(log_p)
    np.put_along_axis(d_log_p, right, mask[..., None] * y.dtype.type(-1 / count), axis=-1)      # loss = -sum / count
    return loss, log_softmax_backward(d_log_p, log_p)                                   # log_p = log_softmax(y)


def _arrays_of(y):
    """The module of ``minilstm/arrays`` for a y that is checked."""
    if not isinstance(y, (np.ndarray, DeviceArray)) or y.ndim not in (2, 3) or y.dtype.kind != "f":
        raise TypeError(f"y: expected a floating-point array (B,T,F) or (B,F), got {describe(y)}")
    if isinstance(y, DeviceArray) and y.dtype != np.float32:
        raise TypeError(f"y: expected float32, as a layer on a GPU gives it, got {describe(y)}")
    return backends.arrays("gpu" if isinstance(y, DeviceArray) else "cpu")


def _mask(mask, y, arrays):
    """-> where y is: mask, or True everywhere for None."""
    shape = y.shape[:-1]
    if mask is None:
        return arrays.everywhere(shape)
    mask = arrays.adopted("mask", mask)
    if not isinstance(mask, arrays.KNOWN) or mask.dtype != bool or mask.shape != shape:
        raise ValueError(f"mask: expected bool {shape}, got {describe(mask)}")
    return arrays.from_numpy(mask)


def _check_classes(target, mask, F):
    wrong = mask & ((target < 0) | (target >= F))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"target: expected classes from 0 to {F - 1}, got {target[place]} in place {place}")
