"""Where does the first NaN come from?  A model runs once more, forward and backward, and every number is looked at.

Order is what finds a cause: a NaN spreads, and what is seen at the end, in a loss, has gone through everything.  So the
search follows the computation: layer by layer; in a recurrent layer each run (layer of a stack, direction) step by step
in the order of its walk through time, and within a step line by line of the cell's code, as ``trace`` sees it; then the
loss, and the same way back.  What is first there has been computed from finite numbers alone.

It computes in the model's own dtype: a float32 overflows at 3.4e38, and in float64 the same number would look healthy.
It computes on the reference backend, in plain NumPy, where there are steps and lines to be looked at.  The fast
backends round differently, so that a number just below the limit may come out on its other side there.

An infinity counts, too, even where a sigmoid makes a finite number of it again.
"""
import inspect
import re
from typing import NamedTuple

import numpy as np

from ..arguments import check_mask, cure_of_mask, describe
from ..layers import Layer, Sequential
from ..layers.layer import first
from ..masking.reference import select
from ..recurrence import reference
from ..training.data import counted
from ..training.losses import mean_squared_error
from .trace import of_units
from .twin import call_recurrence, given
from .watching import Watch

WIDER = {"float32": np.float64, "float64": np.longdouble}
LEVEL = re.compile(r"_l\d+(_reverse)?$")                     # of the name of a parameter
READ = {"x": ("x",), "dy": ("dy", "dh")}                    # what is passed in -> as what a layer reads it


class NonFinite(NamedTuple):
    """The result of ``find_nonfinite``; prints as a sentence.  None where something does not apply."""
    phase: str                      # "forward" or "backward"
    name: str                       # of the layer in the model, "0" or "encoder"; "" for the model itself, or its loss
    kind: str                       # its class, or the name of the loss
    layer: int | None               # of a stack
    direction: int | None
    t: int | None                   # the step
    row: int | None                 # which sequence of the batch
    quantity: str                   # as the cell's code calls it, a_f, c ...; x, y, dy or dx of a layer; "loss"; "d "
    #                                 and a parameter's name, for its gradient
    unit: int | tuple | None        # or the feature; of a parameter's gradient the index
    value: float                    # nan, inf or -inf
    hint: str = ""                  # the cause, where it is evident

    def __str__(self):
        what, unit = self.quantity, "feature" if self.quantity in ("x", "y", "dx", "dy") else "unit"
        if self.unit is not None:
            what += f" of {unit} {self.unit}" if isinstance(self.unit, int) else _spelled(self.unit)
        place = f"layer {self.name!r} ({self.kind})" if self.name else self.kind
        if self.layer is not None:
            place += f", layer {self.layer} of its stack, direction {self.direction}"
        when = [f"step {self.t}"] * (self.t is not None) + [f"sequence {self.row}"] * (self.row is not None)
        return f"{self.phase}: {', '.join([f'{what} is {self.value}', *when])}, in {place}" + (
            f": {self.hint}" if self.hint else "")


def find_nonfinite(model, x, mask=None, *, target=None, loss=mean_squared_error, loss_mask=None, dy=None, dh_n=None,
                   dc_n=None, training=False, draw=None):
    """The first number that is not finite, in a forward pass and, with a gradient or a target, in the backward pass.

    model       a Layer.  A copy of it computes, in its dtype on the reference backend; nothing in ``model`` changes
    x           (B,T,D), or a dict of the arguments of ``model.forward``, as ``fit`` has it
    mask        (B,T) bool or None.  Masked steps are not looked at
    target, loss, loss_mask     as for ``fit``: the gradient is then that of the loss
    dy, dh_n, dc_n              or the gradients themselves, as for ``model.backward``
    training, draw              as for ``LSTM.forward``, for a model that is random in training

    -> NonFinite, or None where all is finite.  A parameter that is never read, such as the embedding of a category that
    does not occur, is not looked at.
    Raises TypeError or ValueError for bad input, as ``forward``, ``loss`` and ``backward`` do."""
    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a Layer, got {describe(model)}")
    gradients = given(dy=dy, dh_n=dh_n, dc_n=dc_n)
    if target is not None and gradients:
        raise ValueError(f"target, {', '.join(gradients)}: expected a target or gradients, got both")
    for name, one in (("mask", mask), ("loss_mask", loss_mask)):
        if one is not None and not (isinstance(one, np.ndarray) and one.dtype == bool):
            raise TypeError(f"{name}: expected a bool array (B,T), True = a step that is real, or counts, got "
                            f"{describe(one)}; {cure_of_mask(one)}")
    inputs = dict(x) if isinstance(x, dict) else {"x": x}
    if "mask" in inputs:
        raise ValueError("x: expected a dict without mask, which is an argument of its own")
    options = {"mask": mask} if model.takes_mask or "mask" in inspect.signature(model.forward).parameters else {}
    if mask is not None and not options and isinstance(inputs.get("x"), np.ndarray) and inputs["x"].ndim == 3:
        check_mask(mask, True, *inputs["x"].shape[:2])
        inputs["x"] = select(inputs["x"], mask)                     # as ``fit`` hands it to a layer without mask=
    options |= {"training": training, "draw": draw} if model.takes_training else {}
    twin = _twin(model)
    with np.errstate(all="ignore"):
        try:
            _look_at_all(twin, mask)
            out, cache = twin.forward(**inputs, **options)
            if target is not None:
                gradients = {"dy": _of_loss(model, first(out), target, mask, loss, loss_mask)}
            if gradients:
                twin.backward(cache, **gradients)
        except _Found as found:
            return _explained(found, inputs | gradients)
    return None


class _Found(Exception):
    """Ends the search.  remark: what there is to say if neither a parameter nor what was passed in is the cause."""

    def __init__(self, report, layer=None, remark=""):
        super().__init__(str(report))
        self.report, self.layer, self.remark = report, layer, remark


def _twin(model):
    """A copy in the same dtype, in plain NumPy wherever a layer has it."""
    twin = model.astype("float64").astype(model.dtype) if model.backend == "gpu" else model.astype(model.dtype)
    for _, layer in _tree(twin):
        layer.backend = "reference" if "reference" in layer.backends else layer.backend
    return twin


def _tree(layer, name=""):
    """The layer and all that are inside it: (name, layer)."""
    yield name, layer
    for child_name, child in layer.children().items():
        yield from _tree(child, f"{name}.{child_name}" if name else child_name)


def _look_at_all(model, mask):
    """Let every layer of this model raise _Found at the first number that is not finite."""
    names = {}
    for name, layer in _tree(model):
        names.setdefault(id(layer), (layer, []))[1].append(name)
    for layer, places in names.values():                            # a shared layer goes by all its names
        _Lookout(layer, " and ".join(places), mask)


def _of_loss(model, y, target, mask, loss, loss_mask):
    """The gradient of the loss, as ``fit`` has it."""
    counts = counted(model, y.shape, mask, loss_mask)
    value, dy = loss(y, target, counts)
    place = NonFinite("forward", "", getattr(loss, "__name__", type(loss).__name__), *[None] * 4, "loss", None, 0.0)
    if not np.isfinite(value):
        bad = np.argwhere(~np.isfinite(target) & counts.reshape(counts.shape + (1,) * (target.ndim - counts.ndim)))
        hints = [f"target{_spelled(index)} as passed in is {target[tuple(index)]}" for index in bad[:1].tolist()]
        raise _Found(place._replace(value=float(value)), None, "".join(hints) or _largest("y", y))
    _look(place._replace(phase="backward"), "dy", dy, counts)
    return dy


# ---------------------------------------------------------------------------------------------------- looking at arrays

def _look(place, quantity, array, mask, layer=None, remark=""):
    """Raise _Found if a number of an array (B,T,...) or (B,F) is not finite; the earliest step counts as the first."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or np.isfinite(array).all():
        return
    timed = array.ndim >= 3
    bad = ~np.isfinite(array)
    if timed and mask is not None and mask.shape == array.shape[:2]:
        bad[~mask] = False
    found = np.argwhere(bad.swapaxes(0, 1) if timed else bad)
    if len(found):
        t, row, *rest = found[0].tolist() if timed else (None, *found[0].tolist())
        value = array[(row, t, *rest) if timed else (row, *rest)]
        unit = rest[-1] if rest else None
        raise _Found(place._replace(t=t, row=row, quantity=quantity, unit=unit, value=float(value)), layer, remark)


class _Lookout:
    """Looks at what a layer of the copy reads and writes and, if it has a cell, at every step of it."""

    def __init__(self, layer, name, mask):
        self.layer, self.mask, self.calls = layer, mask, {}
        self.place = NonFinite("forward", name, type(layer).__name__, *[None] * 4, "", None, 0.0)
        self.run, self.run_back = layer.forward, layer.backward
        self.signature = inspect.signature(layer.forward)
        if hasattr(layer, "cell"):
            call_recurrence(layer, _Runs(layer, self.place))
        layer.forward, layer.backward = self.forward, self.backward

    def forward(self, *args, **options):
        arguments = self.signature.bind(*args, **options).arguments
        mask = arguments["mask"] if isinstance(arguments.get("mask"), np.ndarray) else self.mask
        x = arguments.get("x")
        if self.reads_at_once():
            _look(self.place, "x", x, mask, self.layer)
        out, cache = self.run(*args, **options)
        self.calls[id(cache)] = cache, mask                 # with the cache itself, whose id nothing else can have then
        _look(self.place, "y", first(out), mask, self.layer, _largest("x", x))
        return out, cache

    def backward(self, cache, *args, **options):
        place, mask = self.place._replace(phase="backward"), self.calls.get(id(cache), (None, self.mask))[1]
        dy = args[0] if args else options.get("dy")
        if self.reads_at_once():
            _look(place, "dy", dy, mask, self.layer)
        gradients = self.run_back(cache, *args, **options)
        _look(place, "dx", first(gradients), mask, self.layer, _largest("dy", dy))
        for name, d in self.layer.grads.items():
            for index in np.argwhere(~np.isfinite(d))[:1].tolist():
                report = place._replace(quantity=f"d {name}", unit=tuple(index), value=float(d[tuple(index)]))
                raise _Found(report, self.layer, _largest("dy", dy))
        return gradients

    def reads_at_once(self):
        """Not one whose steps are looked at, one after the other, nor one that hands x on to others."""
        return not isinstance(self.layer, Sequential) and not any(hasattr(part, "cell") for _, part in
                                                                  _tree(self.layer))


def _largest(name, array):
    """What there is to say where no step can be computed again: how near was it to an overflow?"""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or not np.isfinite(array).any():
        return ""
    largest = np.abs(array, where=np.isfinite(array), out=np.zeros_like(array)).max()
    return f"the largest number of {name} was {largest:.3g}, {_limit(array.dtype)}"


def _limit(dtype):
    return f"{dtype} ends at {np.finfo(dtype).max:.2g}"


# ----------------------------------------------------------------------------------------------------- looking at steps

class _Runs:
    """The reference backend of ``recurrence`` for one layer of the copy, looked at."""
    backward = staticmethod(reference.backward)

    def __init__(self, layer, place):
        self.layer, self.place, self.begun = layer, place, 0

    def forward(self, cell, weights, x, mask, initial, reverse=False, zoneout=None, caching=True):
        """A layer calls it once for each layer of its stack and each direction, in this order."""
        level, direction = divmod(self.begun % (self.layer.num_layers * len(self.layer.directions)),
                                  len(self.layer.directions))
        self.begun += 1
        place = self.place._replace(layer=level, direction=direction)
        times = [t for t, _, _ in reference.walk(x.shape[1], reverse)]
        there = _Steps(self.layer, cell.step, place, mask, times)
        back = _Steps(self.layer, cell.step_backward, place._replace(phase="backward"), mask, times[::-1])
        return reference.forward(cell._replace(step=there, step_backward=back), weights, x, mask, initial, reverse,
                                 zoneout, caching)


class _Steps:
    """``cell.step`` or ``cell.step_backward`` over one run, each line of it looked at."""

    def __init__(self, layer, function, place, mask, times):
        self.layer, self.function, self.place, self.mask, self.times = layer, function, place, mask, iter(times)
        self.before = {}                                # k-th assignment -> (B,H), of the last real step of each row

    def __call__(self, weights, *arrays):
        t = next(self.times)
        result, seen = self.watched(weights, arrays)
        rows = self.mask[:, t, None]
        for k, (quantity, value, _) in enumerate(seen):
            for row, unit in np.argwhere(~np.isfinite(value) & rows)[:1].tolist():
                report = self.place._replace(t=t, row=row, quantity=quantity, unit=unit, value=float(value[row, unit]))
                raise _Found(report, self.layer, self.overflow(weights, arrays, k, row, unit))
            self.before[k] = np.where(rows, value, self.before.get(k, np.nan))
        return result

    def watched(self, weights, arrays):
        with Watch(self.function) as watch:
            result = self.function(weights, *arrays)
        return result, of_units(watch.calls[0], len(self.mask), {self.layer.hidden_size, *self.layer.widths})

    def overflow(self, weights, arrays, k, row, unit):
        """The same step in a wider dtype: is the number finite there?"""
        dtype = self.layer.dtype
        _, seen = self.watched(*_cast((weights, arrays), WIDER[dtype.name]))
        _, value, _ = seen[k]
        if not np.isfinite(value[row, unit]):
            return ""
        before = self.before.get(k, np.full(value.shape, np.nan))[row, unit]
        was = "" if np.isnan(before) else f"; at the step before it was {before:.3g}"
        return f"an overflow: {value[row, unit]:.3g}, {_limit(dtype)}{was}"


def _cast(value, dtype):
    """Arrays, in tuples of whatever depth, in another dtype."""
    if isinstance(value, tuple):
        parts = [_cast(part, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


# ------------------------------------------------------------------------------------------------------------ the cause

def _explained(found, arrays):
    """The report, with a hint: a parameter, or what was passed in; else a remark."""
    report, layer = found.report, found.layer
    if hint := layer and _parameter(report, layer):
        return report._replace(hint=hint)
    if (passed := _passed(report, arrays)) is None:
        return report._replace(hint=found.remark)
    name, index, value = passed
    # a recurrent layer reads infinity as NaN: say what it was
    return report._replace(hint=f"{name}{_spelled(index)} as passed in is {value}",
                           value=float(value) if report.quantity == name else report.value)


def _parameter(report, layer):
    suffix = "" if report.layer is None else f"_l{report.layer}{layer.directions[report.direction].suffix}"
    for prefix, owner in layer.walk():
        for name, p in owner.params.items():
            if suffix and LEVEL.search(name) and not name.endswith(suffix):
                continue                                    # of another layer of the stack, or of the other direction
            for index in np.argwhere(~np.isfinite(p))[:1].tolist():
                place = report.name.split(" and ")[0]
                return f"parameter {place}{'.' * bool(place)}{prefix}{name}{_spelled(index)} is {p[tuple(index)]}"
    return ""


def _passed(report, arrays):
    """x and dy are looked at where the number was found, other arrays, such as h0, over the whole sequence.  -> (name,
    index, value), or None"""
    for name, array in arrays.items():
        if report.row is None or not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            continue
        bad = np.isinf(array) if report.kind == "GRUD" else ~np.isfinite(array)         # where NaN means missing
        if name not in READ:
            rows = 2 if array.ndim == 4 else 0              # (layers,dirs,B,H), or (B,...)
            indices = [index for index in np.argwhere(bad).tolist() if index[rows] == report.row]
        elif report.quantity in READ[name]:
            place = [report.row] if array.ndim < 3 else [report.row, report.t]
            indices = [[*place, *index] for index in np.argwhere(bad[tuple(place)]).tolist()]
        else:
            indices = []
        for index in indices[:1]:
            return name, index, array[tuple(index)]
    return None


def _spelled(index):
    return f"[{', '.join(map(str, index))}]"
