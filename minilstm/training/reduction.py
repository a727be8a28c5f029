"""From the losses of single numbers to one loss: what counts, how much, and out of how many.

    costs       (B,T,F) or (B,F)    the loss of each number; that of a step is the mean of its F numbers
    mask    (B,T) or (B,)       True = counts
    w       as the mask         weights of the steps, 0 or more

    "steps"         sum(w * cost) / sum(w)          every step counts alike, so a long sequence counts more
    "sequences"     the mean over sequences of      every sequence counts alike, however long it is
                    sum(w * cost) / sum(w) of its steps
    "sum"           sum(w * cost), where all F numbers of a step are added; nothing is divided

Each over what the mask lets count.  With nothing to count the loss is 0, and so is its gradient.
"""
import numpy as np

from ..arguments import describe, one_of

REDUCTIONS = ("steps", "sequences", "sum")


def check_weights(weights, shape, dtype, mask=None, name="weights"):
    """None, or numbers of 0 or more where the mask says that they count; raises TypeError or ValueError else.  name: of
    the argument"""
    if weights is None:
        return None
    if not isinstance(weights, np.ndarray) or weights.dtype != dtype or weights.shape != shape:
        raise TypeError(f"{name}: expected {dtype} {shape}, got {describe(weights)}")
    wrong = ~(np.isfinite(weights) & (weights >= 0)) & (True if mask is None else mask)
    if wrong.any():
        raise ValueError(f"{name}: expected finite numbers, 0 or more, got {weights[wrong][0]}")
    return weights


def total_weight(mask, weights, reduction):
    """What the sum over a batch is divided by: the weight of its steps, its sequences, or 1.  So the losses of two
    batches, each times its total weight, add up to that of both."""
    if reduction == "sum":
        return 1.0
    if reduction == "sequences":
        of_rows = _of_rows(mask if weights is None else np.where(mask, weights, 0))
        return float(np.count_nonzero(of_rows))
    return float(np.count_nonzero(mask) if weights is None else weights.sum(where=mask, dtype=np.float64))


def reduce(costs, d_costs, mask, weights, reduction):
    """costs (...,F), and d_costs, its gradient with respect to y, as y is; finite also where masked -> loss (float),
    dy."""
    one_of("reduction", reduction, REDUCTIONS)
    share = _share(mask, weights, reduction, costs.shape[-1])
    loss = float((costs * share).sum(where=mask[..., None], dtype=np.float64))
    dy = d_costs * (d_costs.dtype.type(share) if isinstance(share, float) else share.astype(d_costs.dtype))
    return loss, dy if mask.all() else np.where(mask[..., None], dy, d_costs.dtype.type(0))


def _share(mask, weights, reduction, F):
    """By what the loss of a number is multiplied: a float for all, or (...,1)."""
    total = total_weight(mask, weights, reduction)
    if not total:
        return 0.0
    per_number = 1.0 if reduction == "sum" else 1 / (total * F)
    if weights is None and reduction != "sequences":
        return per_number
    counted = np.where(mask, 1.0 if weights is None else weights, 0.0)
    if reduction != "sequences":
        return (counted * per_number)[..., None]
    of_rows = _of_rows(counted).reshape(-1, *(1,) * (mask.ndim - 1))
    return (np.divide(counted, of_rows, where=of_rows > 0, out=np.zeros_like(counted)) * per_number)[..., None]


def _of_rows(counted):
    """(B,T) or (B,) -> the sum of each row (B,)"""
    return counted.sum(axis=tuple(range(1, counted.ndim)), dtype=np.float64)
