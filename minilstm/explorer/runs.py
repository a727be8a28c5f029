"""A model run once, forward and backward, and what each of its recurrent layers was given."""
import contextlib
from typing import NamedTuple

import numpy as np

from ..checks.twin import doubles
from ..layers import Sequential
from ..layers.layer import first
from ..layers.recurrent import Recurrent


class Use(NamedTuple):
    """One use of a recurrent layer, for one row of the batch."""
    layer: Recurrent        # in float64
    x: np.ndarray           # (1,T,D)
    mask: np.ndarray | None     # (1,T)
    options: dict           # other arguments of its forward
    dy: np.ndarray | None   # (1,T,dirs*R)


class Run(NamedTuple):
    """A model's run."""
    uses: dict              # place of a recurrent layer, as ``recurrent_layers`` has it -> Use
    loss: float | None


def recurrent_layers(model, place=""):
    """Of a model of layers in a row: [(place, layer)], the recurrent ones, in the order in which they compute, as often
    as they are used.  The place is "" where the model itself is one."""
    if isinstance(model, Recurrent):
        return [(place, model)]
    if isinstance(model, Sequential):
        return [found for k, child in enumerate(model.layers)
                for found in recurrent_layers(child, f"{place}.{k}" if place else str(k))]
    return []


def run(model, x, mask, options, target, loss, dy, row):
    """A float64 copy of the model computes, on the reference backend -> Run.  ``target`` and ``dy`` may be None."""
    twin = model.astype("float64")
    _compute_by_reference(twin)
    places = recurrent_layers(twin)
    x, target, dy = doubles(model, {"x": x, "target": target, "dy": dy}).values()
    options = doubles(model, options)
    heard = []
    with _listening({id(layer): layer for _, layer in places}.values(), heard):
        out, cache = twin.forward(x, mask=mask, **options)
        value = None
        if target is not None:
            y = first(out)
            value, dy = loss(y, target, mask.any(axis=1) if mask is not None and y.ndim == 2 else mask)
        if dy is not None:
            twin.backward(cache, dy)
    return Run({place: _of_row(layer, call, row) for (place, layer), call in zip(places, heard)}, value)


def _of_row(layer, call, row):
    """-> Use, of what the layer was given for the whole batch."""
    options = {name: value[:, :, [row]] if name in ("h0", "c0") and value is not None else value
               for name, value in call["options"].items()}
    mask, dy = options.pop("mask", None), call["dy"]
    return Use(layer, call["x"][[row]], None if mask is None else mask[[row]], options,
               None if dy is None else dy[[row]])


def _compute_by_reference(layer):
    layer.backend = "reference"
    for child in layer.children().values():
        _compute_by_reference(child)


@contextlib.contextmanager
def _listening(layers, heard):
    """While it is open: what the layers' forward and backward are given is appended to ``heard``, a dict a call."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(vars(layer).pop, "forward")
            stack.callback(vars(layer).pop, "backward")
            layer.forward, layer.backward = _heard(layer.forward, layer.backward, heard)
        yield


def _heard(forward, backward, heard):
    def listening_forward(x, **options):
        out, cache = forward(x, **options)
        heard.append({"x": x, "options": options, "cache": cache, "dy": None})
        return out, cache

    def listening_backward(cache, dy):
        for call in heard:
            if call["cache"] is cache:
                call["dy"] = dy
        return backward(cache, dy)

    return listening_forward, listening_backward
