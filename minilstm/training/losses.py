"""Losses: functions (y, target, mask) -> (loss, gradient of y)."""
import numpy as np

from ..arguments import describe


def mean_squared_error(y, target, mask=None):
    """The mean of (y - target)**2 over the real steps and their features, and its gradient.

    y, target (B,T,F), one dtype; mask (B,T) bool, True = counts -> loss (float), dy (B,T,F), 0 where masked.  Or, for
    one output a sequence, y, target (B,F) and mask (B,).
    Whatever stands in masked steps, NaN included, is never read.  With no real step the loss is 0, and so is dy.

    Raises TypeError or ValueError that says which argument does not fit."""
    if not isinstance(y, np.ndarray) or y.ndim not in (2, 3) or y.dtype.kind != "f":
        raise TypeError(f"y: expected a floating-point array (B,T,F) or (B,F), got {describe(y)}")
    if not isinstance(target, np.ndarray) or target.dtype != y.dtype or target.shape != y.shape:
        raise ValueError(f"target: expected {describe(y)}, as y is, got {describe(target)}")
    if mask is None:
        mask = np.ones(y.shape[:-1], bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != y.shape[:-1]:
        raise ValueError(f"mask: expected bool {y.shape[:-1]}, got {describe(mask)}")
    difference = np.subtract(y, target, where=mask[..., None], out=np.zeros_like(y))
    count = max(1, int(mask.sum()) * y.shape[-1])
    loss = float(np.square(difference, dtype=np.float64).sum() / count)         # loss = sum(difference**2) / count
    return loss, difference * y.dtype.type(2 / count)                           # difference = y - target
