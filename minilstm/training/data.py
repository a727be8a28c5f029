"""What a model is trained on: do the arrays fit together, what counts, and how much?"""
import inspect
from typing import NamedTuple

import numpy as np

from ..arguments import cure_of_mask, describe
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
    _check_model(model, data)
    _check_arrays(model, data)
    masks = (None if array is None else np.asarray(array) for array in (data.mask, data.counts))
    counts = counted(model, data.target.shape, *masks)
    weights = _weights(weights, class_weights, data.target, counts, model)
    counts = counts if weights is None else counts & (weights > 0)
    return data._replace(counts=counts, weights=weights).each(arrays.data), counts, weights


def counted(model, shape, mask, loss_mask):
    """What counts of a target of this shape: steps (N,T) bool, or for a model that pools sequences (N,)."""
    counts = np.ones(shape[:1 if model.pools else 2], bool)
    if mask is not None:
        counts = mask.any(axis=1) if model.pools else mask
    return counts if loss_mask is None else counts & loss_mask


def _weights(weights, class_weights, target, counts, model):
    """Of each step, those of its class included; None if there are none."""
    if model.backend == "gpu" and (weights is not None or class_weights is not None):
        raise ValueError("weights, class_weights: expected None for a model on a GPU, where all steps count alike")
    weights = check_weights(weights, counts.shape, model.dtype, counts)
    if class_weights is None:
        return weights
    if target.dtype.kind not in "iu":
        raise ValueError(f"class_weights: expected None, since the target is no class, got {describe(class_weights)}")
    classes = np.where(counts, target, 0)
    F = getattr(model, "output_size", None) or max(int(classes.max()) + 1, np.size(class_weights))
    if np.shape(class_weights) != (F,):
        raise ValueError(f"class_weights: expected one for each class, from 0 to {F - 1}, got "
                         f"{describe(class_weights)}")
    if not 0 <= classes.min() <= classes.max() < F:
        raise ValueError(f"target: expected classes from 0 to {F - 1}, got {classes.min()} to {classes.max()}")
    of_classes = check_weights(class_weights, (F,), model.dtype, name="class_weights")[classes]
    return of_classes if weights is None else weights * of_classes


def _check_model(model, data):
    """Can it be given these inputs, and be trained?"""
    if own := sorted(data.inputs.keys() & {"training", "draw", "cache", *(("mask",) if model.takes_mask else ())}):
        raise ValueError(f"x: expected a dict without {', '.join(own)}, which fit passes itself")
    if model.takes_mask and "lengths" in data.inputs:
        raise ValueError("x: expected a dict without lengths, of which the loss would not know: pass "
                         "mask=sequences.lengths_to_mask(lengths, T)")
    if not model.walk():
        raise ValueError(f"model: expected one with parameters, got a {type(model).__name__} without: children() names "
                         "the layers inside")
    if data.mask is not None and not model.takes_mask and "mask" in inspect.signature(model.forward).parameters:
        raise ValueError(f"mask: {type(model).__name__} would not get it: its class has to say takes_mask = True")


def _check_arrays(model, data):
    """Are they arrays, with the axes that they should have?  N and T are those of x, or else of target."""
    known, kinds = model.arrays.KNOWN, model.arrays.KINDS
    arrays = {"x": data.inputs["x"]} if "x" in data.inputs else {}
    arrays |= {"target": data.target, "mask": data.mask, "loss_mask": data.counts}
    leader, *_ = arrays
    for name, array in arrays.items():
        is_mask = name.endswith("mask")
        if is_mask and array is None:
            continue
        if not isinstance(array, known) or is_mask and array.dtype != bool:
            raise TypeError(f"{name}: expected {kinds}{' of bool' * is_mask}, got {describe(array)}"
                            f"{'; ' + cure_of_mask(array, model.pools) if is_mask else ''}")
        if name == "target" and array.dtype.kind not in "fiub":
            raise TypeError(f"target: expected numbers, or integers for classes, got {describe(array)}; "
                            "np.unique(target, return_inverse=True)[1] numbers the classes")
        axes = _axes(model, name, array)
        alike = len([axis for axis in axes if axis in _axes(model, leader, arrays[leader]) and axis != "..."])
        if (array.ndim != len(axes) or array.shape[:alike] != arrays[leader].shape[:alike] or len(array) == 0):
            raise ValueError(f"{name}: expected {len(axes)} {'axes' if len(axes) > 1 else 'axis'}, ({','.join(axes)}), "
                             f"with N > 0, and {' and '.join(axes[:alike])} as in {leader}, got {describe(array)}"
                             f"{_cure_of_target(array, len(axes), model) if name == 'target' else ''}")
    for name in [name for name in ("x", "target") if name in arrays]:
        if arrays[name].dtype.kind == "f" and arrays[name].dtype != model.dtype:
            raise TypeError(f"{name}: expected {model.dtype}, as the model computes, got {describe(arrays[name])}; "
                            f"nothing is cast silently: {name}.astype('{model.dtype}')")
    for name, array in data.inputs.items():
        if not isinstance(array, known) or array.shape[:1] != data.target.shape[:1]:
            error = ValueError if isinstance(array, known) else TypeError
            raise error(f"{name}: expected {kinds} (N={len(data.target)},...), got {describe(array)}")


def _axes(model, name, array):
    """Their names: N sequences, T steps, and ... for what a step, or a sequence, has."""
    of_steps = name in ("x", "mask") or not model.pools
    is_class = name == "target" and array.dtype.kind in "iu" or name == "x" and model.takes_categories
    return ("N", *(("T",) if of_steps else ()), *(() if is_class or name.endswith("mask") else ("...",)))


def _cure_of_target(target, axes, model):
    kind, cures = target.dtype.kind, []
    if not model.pools and target.ndim == (1 if kind in "iu" else 2):
        cures.append("one target a sequence is for a model that has a layer that pools, such as Pooling('last'), or "
                     "says pools = True")
    if kind in "iu" and target.ndim == axes + 1:
        one = target.shape[-1] == 1
        cures.append("classes have no axis of their own: target" + ("[..., 0]" if one else ".argmax(axis=-1)"))
        cures.append(f"numbers that are no classes have the model's dtype: target.astype('{model.dtype}')")
    if kind in "iu" and model.pools and target.ndim == 2:
        cures.append("a model that pools has one target a sequence")
    if kind not in "iu" and target.ndim == axes - 1:
        cures.append("target[..., None] gives numbers an axis of one feature, and classes are integers: "
                     "target.astype(int)")
    return "".join("; " + cure for cure in cures)


def blamed(data, rows):
    """Of a loss that is not finite: are the data of these sequences to blame?  -> a part of a sentence.

    data: Data, NumPy's"""
    counts = data.counts[rows]
    if data.target.dtype.kind == "f" and (found := _first_not_finite(data.target, rows, counts)):
        return f"; target{found}, and counts: leave what is missing out by loss_mask="
    for name, array in data.inputs.items():
        real = data.mask[rows] if data.mask is not None and array.shape[:2] == data.mask.shape else None
        if array.dtype.kind == "f" and (found := _first_not_finite(array, rows, real)):
            return (f"; {name}{found}: fill what is missing (minilstm.sequences), unless a GRUD reads it; "
                    "minilstm.find_nonfinite says where it began")
    classes = ""
    if data.target.dtype.kind in "iu" and counts.any():
        of_rows = data.target[rows][counts]
        classes = f"; the classes in target are {of_rows.min()} to {of_rows.max()}"
    return classes + "; minilstm.find_nonfinite says where it began; a smaller rate or clip_norm may keep it away"


def _first_not_finite(array, rows, where):
    """Of the numbers in these rows, and where they are looked at: "[3, 4, 1] is nan"; None if there is none."""
    bad = ~np.isfinite(array[rows])
    if where is not None:
        bad &= where.reshape(where.shape + (1,) * (bad.ndim - where.ndim))
    for row, *rest in np.argwhere(bad)[:1].tolist():
        place = int(rows[row]), *rest
        return f"{list(place)} is {array[place]}"
    return None
