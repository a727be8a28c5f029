"""Losses: functions (y, target, mask) -> (loss, gradient of y).

All of them take the same arguments:

    y           (B,T,F), what a model said; or (B,F), one output a sequence
    target      as y, where the loss does not say otherwise
    mask        (B,T) or (B,) bool, True = counts; None: all of it
    weights     (B,T) or (B,), how much a step counts; None: all alike
    reduction   "steps", "sequences" or "sum": the mean of what (``reduction.py``)

and return the loss, a float, and dy (..,F), 0 where masked.  Whatever stands in masked steps, NaN included, is never
read.  Where nothing counts the loss is 0, and so is dy.  Each raises TypeError or ValueError that says which argument
does not fit.

``mean_squared_error`` and ``softmax_cross_entropy`` are computed on a GPU too, as the mean over steps without weights:
y is then a DeviceArray, as a layer on a GPU gives it, target and mask may be so or not, the loss is a DeviceArray (1,),
for which nobody has waited (float(loss) does), and dy one of the shape of y.
"""
import math

import numpy as np

from .. import backends
from ..arguments import describe, positive_number
from ..cells.activations import sigmoid, softplus
from ..device import DeviceArray
from .reduction import check_weights, reduce
from .softmax import log_softmax, log_softmax_backward


def mean_squared_error(y, target, mask=None, *, weights=None, reduction="steps"):
    """(y - target)**2"""
    arrays = _arrays_of(y)
    target, mask = _target(y, target, arrays), _mask(mask, y, arrays)
    if isinstance(y, DeviceArray):
        _check_plain_mean(weights, reduction)
        return backends.module("training", "gpu").mean_squared_error(y, arrays.from_numpy(target), mask)
    difference = _difference(y, target, mask)
    return _reduced(np.square(difference, dtype=np.float64), 2 * difference, y, mask, weights, reduction)


def mean_absolute_error(y, target, mask=None, *, weights=None, reduction="steps"):
    """|y - target|, whose mean is least where y is the median of the target.  Its gradient at 0 is 0."""
    target, mask = _on_host(y, target, mask)
    difference = _difference(y, target, mask)
    return _reduced(np.abs(difference), np.sign(difference), y, mask, weights, reduction)


def huber(y, target, mask=None, *, delta=1.0, weights=None, reduction="steps"):
    """(y - target)**2 / 2 up to a distance of delta, and from there on as steep as at delta, so that an outlier cannot
    pull with more than that: delta * (|y - target| - delta / 2).  Source: Huber 1964."""
    delta = positive_number("delta", delta)
    target, mask = _on_host(y, target, mask)
    difference = _difference(y, target, mask)
    near = np.clip(difference, -delta, delta)
    # near * (difference - near / 2) is difference**2 / 2 inside, and delta * (|difference| - delta / 2) outside
    costs = near.astype(np.float64) * (difference - 0.5 * near.astype(np.float64))
    return _reduced(costs, near, y, mask, weights, reduction)


def quantile_loss(y, target, mask=None, *, quantiles=(0.1, 0.5, 0.9), weights=None, reduction="steps"):
    """Several quantiles at once: for each of them, q, a target above y costs q a unit, one below y 1 - q, so that the
    mean is least where a part q of all targets is below y.  Source: Koenker and Bassett 1978.

    y (...,F*Q), target (...,F): for each of F features Q numbers, one for each of ``quantiles``, in their order.  A
    ``NonCrossing`` layer in front keeps them in order.  The gradient at y = target is 0."""
    q = _quantiles(quantiles)
    mask = _several(y, target, mask, len(q), "its quantiles")
    below = _difference(y, np.repeat(target, len(q), axis=-1), mask)            # how far the target is below y
    q = np.tile(q, target.shape[-1])
    costs = np.maximum((1 - q) * below, -q * below)
    d_costs = np.where(below > 0, 1 - q, np.where(below < 0, -q, 0)).astype(y.dtype)
    return _reduced(costs, d_costs, y, mask, weights, reduction)


def binary_cross_entropy(y, target, mask=None, *, weights=None, reduction="steps"):
    """-log(p) where the target is 1 and -log(1 - p) where it is 0, p = sigmoid(y): the target may also be a chance
    between the two.  Several features are as many questions of their own.

    -(target * log(p) + (1 - target) * log(1 - p)) = log(1 + exp(y)) - y * target, where nothing becomes log(0)."""
    target, mask = _on_host(y, target, mask)
    wrong = mask[..., None] & ~((target >= 0) & (target <= 1))
    if wrong.any():
        raise ValueError(f"target: expected numbers from 0 to 1, got {target[wrong][0]}")
    y, target = (np.where(mask[..., None], array, 0) for array in (y, target))
    costs = softplus(y.astype(np.float64)) - y.astype(np.float64) * target
    return _reduced(costs, sigmoid(y) - target, y, mask, weights, reduction)


def gaussian_loss(y, target, mask=None, *, floor=1e-3, weights=None, reduction="steps"):
    """-log of the density of the target under a normal distribution whose mean and spread both are said.

    y (...,2F), target (...,F): F means, then for each the number s of which its standard deviation is made,
    sigma = floor + log(1 + exp(s)); the floor keeps one lucky guess from being worth more than all others.
    ``gaussian_of(y)`` -> the means and the sigmas.  Source: Nix and Weigend 1994; the softplus is DeepAR's (Salinas et
    al. 2020, section 3.1)."""
    floor, mask = positive_number("floor", floor), _several(y, target, mask, 2, "its mean and its spread")
    F = target.shape[-1]
    y = np.where(mask[..., None], y, 0)
    mean, sigma = gaussian_of(y.astype(np.float64), floor)
    far = (mean - np.where(mask[..., None], target, mean)) / sigma
    costs = 0.5 * np.square(far) + np.log(sigma) + 0.5 * math.log(2 * math.pi)
    d_mean = far / sigma                                                # far = (mean - target) / sigma
    d_sigma = (1 - np.square(far)) / sigma                              # costs = far**2 / 2 + log(sigma)
    ds = d_sigma * sigmoid(y[..., F:].astype(np.float64))               # sigma = floor + log(1 + exp(s))
    d_costs = np.concatenate([d_mean, ds], axis=-1).astype(y.dtype)
    return _reduced(costs, d_costs, y, mask, weights, reduction)


def gaussian_of(y, floor=1e-3):
    """y (...,2F) of a model trained with ``gaussian_loss`` -> means, standard deviations (...,F).

    Raises TypeError or ValueError for another y."""
    if not isinstance(y, np.ndarray) or y.dtype.kind != "f":
        raise TypeError(f"y: expected a floating-point array (...,2F), got {describe(y)}")
    if y.ndim == 0 or y.shape[-1] % 2:
        raise ValueError(f"y: expected two numbers for each feature, got {describe(y)}")
    mean, s = np.split(y, 2, axis=-1)
    return mean, y.dtype.type(floor) + softplus(s)


def softmax_cross_entropy(y, target, mask=None, *, class_weights=None, weights=None, reduction="steps"):
    """-log(p), p the chance that the softmax of y gives to the class that was right.

    y (...,F), a number for each of F classes; target (...) integers from 0 to F - 1, int32 where they are on a GPU.
    class_weights (F,) or None: how much a step of each class counts, as do its ``weights``.

    A target on a GPU is not looked at: a number there that is no class makes the loss NaN, and the gradient at its
    step."""
    arrays = _arrays_of(y)
    shape, F = y.shape[:-1], y.shape[-1]
    target = arrays.adopted("target", target)
    if not isinstance(target, arrays.KNOWN) or target.dtype.kind not in "iu" or target.shape != shape:
        raise ValueError(f"target: expected integers {shape}, classes from 0 to {F - 1}, got {describe(target)}")
    mask = _mask(mask, y, arrays)
    if isinstance(target, np.ndarray):
        _check_classes(target, arrays.to_numpy(mask), F)
    if isinstance(y, DeviceArray):
        _check_plain_mean(weights, reduction, class_weights)
        return backends.module("training", "gpu").softmax_cross_entropy(y, arrays.integers("target", target), mask)
    log_p = log_softmax(np.where(mask[..., None], y, y.dtype.type(0)))
    right = np.where(mask, target, 0)
    if class_weights is not None:
        of_steps = check_weights(class_weights, (F,), y.dtype, name="class_weights")[right]
        weights = of_steps if weights is None else of_steps * check_weights(weights, shape, y.dtype, mask)
    right = right[..., None]
    d_log_p = np.zeros_like(log_p)
    np.put_along_axis(d_log_p, right, y.dtype.type(-1), axis=-1)                # costs = -log_p of the right class
    costs = -np.take_along_axis(log_p, right, axis=-1)
    d_costs = log_softmax_backward(d_log_p, log_p)                              # log_p = log_softmax(y)
    return _reduced(costs, d_costs, y, mask, weights, reduction)


# ------------------------------------------------------------------------------------------------------------- helpers

def _reduced(costs, d_costs, y, mask, weights, reduction):
    weights = check_weights(weights, mask.shape, y.dtype, mask)
    return reduce(costs, d_costs.astype(y.dtype, copy=False), mask, weights, reduction)


def _difference(y, target, mask):
    """y - target, 0 where masked"""
    return np.subtract(y, target, where=mask[..., None], out=np.zeros_like(y))


# -------------------------------------------------------------------------------------------------------------- checks

def _arrays_of(y):
    """The module of ``minilstm/arrays`` for a y that is checked."""
    if (not isinstance(y, (np.ndarray, DeviceArray)) or isinstance(y, np.ma.MaskedArray) or y.ndim not in (2, 3)
            or y.dtype.kind != "f"):
        raise TypeError(f"y: expected a floating-point array (B,T,F) or (B,F), got {describe(y)}")
    if isinstance(y, DeviceArray) and y.dtype != np.float32:
        raise TypeError(f"y: expected float32, as a layer on a GPU gives it, got {describe(y)}")
    return backends.arrays("gpu" if isinstance(y, DeviceArray) else "cpu")


def _host_arrays_of(y):
    """The same, of a loss that is not computed on a GPU."""
    arrays = _arrays_of(y)
    if isinstance(y, DeviceArray):
        raise ValueError("y: expected a NumPy array; on a GPU there are mean_squared_error and softmax_cross_entropy")
    return arrays


def _on_host(y, target, mask):
    """-> target, mask, checked, of a loss that is not computed on a GPU."""
    arrays = _host_arrays_of(y)
    return _target(y, target, arrays), _mask(mask, y, arrays)


def _several(y, target, mask, n, what):
    """The mask, checked, of a loss that is told n numbers for each feature of the target.  what: they are"""
    mask = _mask(mask, y, _host_arrays_of(y))
    if y.shape[-1] == 0 or y.shape[-1] % n:
        raise ValueError(f"y: expected {n} numbers for each feature of the target, {what}, as a Linear(H, {n}) has for "
                         f"one feature, got {describe(y)}")
    shape = (*y.shape[:-1], y.shape[-1] // n)
    if not isinstance(target, np.ndarray) or target.dtype != y.dtype or target.shape != shape:
        raise ValueError(f"target: expected {y.dtype} {shape}, since y has {n} numbers for each feature, {what}; got "
                         f"{describe(target)}")
    return mask


def _target(y, target, arrays):
    target = arrays.adopted("target", target)
    if not isinstance(target, arrays.KNOWN) or target.dtype != y.dtype or target.shape != y.shape:
        cure = (f"; nothing is cast silently: target.astype('{y.dtype}')"
                if isinstance(target, np.ndarray) and target.shape == y.shape and target.dtype.kind in "fiub" else "")
        raise ValueError(f"target: expected {describe(y)}, as y is, got {describe(target)}{cure}")
    return target


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


def _check_plain_mean(weights, reduction, class_weights=None):
    if weights is not None or class_weights is not None or reduction != "steps":
        raise ValueError("weights, reduction: expected none and 'steps' on a GPU, where a loss is the mean over all "
                         f"steps, got {reduction!r} and weights {describe(weights)}")


def _quantiles(quantiles):
    q = np.asarray(quantiles, float)
    if q.ndim != 1 or not len(q) or not ((0 < q) & (q < 1)).all() or not (np.diff(q) > 0).all():
        raise ValueError(f"quantiles: expected numbers between 0 and 1, each larger than the one before it, got "
                         f"{quantiles!r}")
    return q
