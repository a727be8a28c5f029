"""What a model is trained on: do the arrays fit together, what counts, and how much?"""
import inspect
from typing import NamedTuple

import numpy as np

from ..arguments import describe
from .reduction import check_weights


class Data(NamedTuple):
    """Of all N sequences, or of those in a batch."""
    inputs: dict                    # name -> (N,...)
    target: np.ndarray
    mask: np.ndarray | None         # (N,T)
    counts: np.ndarray | None       # (N,T) or (N,): of the target, what is given as loss_mask, and later what counts
    weights: np.ndarray | None      # (N,T) or (N,): how much

    def each(self, function):
        """function(name, array) in place of every array."""
        others = zip(("target", "mask", "loss_mask", "weights"), self[1:])
        return Data({name: function(name, array) for name, array in self.inputs.items()},
                    *(None if array is None else function(name, array) for name, array in others))


def prepared(model, x, target, mask, loss_mask, weights, class_weights):
    """Raise TypeError or ValueError unless the arrays, as ``fit`` has them, fit together -> Data, where the backend
    wants them, and, NumPy's, what counts and its weights."""
    arrays = model.arrays
    inputs = x if isinstance(x, dict) else {"x": x}
    data = Data(inputs, target, mask, loss_mask, None).each(arrays.adopted)
    counts = _checked(model, data)
    weights = _weights(weights, class_weights, data.target, counts, model)
    return data._replace(counts=counts, weights=weights).each(arrays.data), counts, weights


def _weights(weights, class_weights, target, counts, model):
    """Of each step, those of its class included; None if there are none."""
    if model.backend == "gpu" and (weights is not None or class_weights is not None):
        raise ValueError("weights, class_weights: expected None for a model on a GPU, where all steps count alike")
    weights = check_weights(weights, counts.shape, model.dtype)
    if class_weights is None:
        return weights
    if target.dtype.kind not in "iu":
        raise ValueError(f"class_weights: expected None, since the target is no class, got {describe(class_weights)}")
    classes = np.where(counts, target, 0)
    shape = np.shape(class_weights) if np.ndim(class_weights) == 1 else (int(classes.max()) + 1,)
    if not 0 <= classes.min() <= classes.max() < shape[0]:
        raise ValueError(f"class_weights: expected one for each class, from 0 to {classes.max()}, got "
                         f"{describe(class_weights)}")
    of_classes = check_weights(class_weights, shape, model.dtype, "class_weights")[classes]
    return of_classes if weights is None else weights * of_classes


def _checked(model, data):
    """Do the arrays fit together?  -> what counts of the target: steps (N,T) bool, or sequences (N,); NumPy's."""
    inputs, known, kinds = data.inputs, model.arrays.KNOWN, model.arrays.KINDS
    data = {"target": data.target, "mask": data.mask, "loss_mask": data.counts}
    if own := sorted(inputs.keys() & {"training", "draw", "cache", *(("mask",) if model.takes_mask else ())}):
        raise ValueError(f"x: expected a dict without {', '.join(own)}, which fit passes itself")
    if model.takes_mask and "lengths" in inputs:
        raise ValueError("x: expected a dict without lengths, of which the loss would not know: pass "
                         "mask=sequences.lengths_to_mask(lengths, T)")
    if not model.walk():
        raise ValueError(f"model: expected one with parameters, got a {type(model).__name__} without: children() names "
                         "the layers inside")
    if data["mask"] is not None and not model.takes_mask and "mask" in inspect.signature(model.forward).parameters:
        raise ValueError(f"mask: {type(model).__name__} would not get it: its class has to say takes_mask = True")
    leader = "x" if "x" in inputs else "target"         # whose N and T the others must have
    data = {leader: (inputs | data)[leader]} | data
    for name, array in data.items():
        is_mask = name.endswith("mask")
        if not (isinstance(array, known) and (array.dtype == bool or not is_mask) or is_mask and array is None):
            raise TypeError(f"{name}: expected {kinds}{' of bool' * is_mask}, got {describe(array)}")
        times = 1 if model.pools and name in ("target", "loss_mask") else 2     # axes that are as in the leader
        is_class = name == "target" and array.dtype.kind in "iu" or name == "x" and model.takes_categories
        axes = ("N", "T")[:times] + (() if is_mask or is_class else ("...",))
        times = 1 if model.pools and leader == "target" else times
        if array is not None and (array.ndim != len(axes) or array.shape[:times] != data[leader].shape[:times]
                                  or len(array) == 0):
            raise ValueError(f"{name}: expected {len(axes)} axes, ({','.join(axes)}), with N > 0, and "
                             f"{' and '.join(axes[:times])} as in {leader}, got {describe(array)}"
                             f"{_cure(name, array, axes, model)}")
    target, mask, loss_mask = data["target"], data["mask"], data["loss_mask"]
    for name, array in inputs.items():
        if not isinstance(array, known) or array.shape[:1] != target.shape[:1]:
            error = ValueError if isinstance(array, known) else TypeError
            raise error(f"{name}: expected {kinds} (N={len(target)},...), got {describe(array)}")
    counts = np.ones(target.shape[:1 if model.pools else 2], bool)
    if mask is not None:
        mask = np.asarray(mask)
        counts = mask.any(axis=1) if model.pools else mask
    return counts if loss_mask is None else counts & np.asarray(loss_mask)


def _cure(name, array, axes, model):
    if name == "target" and array.ndim == len(axes) - 1 == 1:
        return "; target[:, None] gives (N,) numbers an axis of one feature"
    if name == "target" and array.ndim == 2 and not model.pools:
        return "; a model with one output a sequence has a layer that pools, or says pools = True"
    return ""


def blamed(batch):
    """Of a loss that is not finite: are the data of the batch to blame?  -> a part of a sentence, or nothing."""
    if batch.target.dtype.kind == "f" and not np.isfinite(batch.target[batch.counts]).all():
        return "; target has NaN or infinity where it counts: leave these out by loss_mask="
    for name, array in batch.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"; {name} has NaN or infinity: fill what is missing (minilstm.sequences), or read it by a GRUD"
    if batch.target.dtype.kind in "iu":
        return f"; the classes in target are {batch.target[batch.counts].min()} to {batch.target[batch.counts].max()}"
    return ""
