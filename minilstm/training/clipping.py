"""Gradient clipping: one long step in a bad place must not undo a thousand good ones."""
import functools
import math
from typing import NamedTuple

import numpy as np

from .. import backends
from ..machine.kernel import kernel


class Clipped(NamedTuple):
    """What was done to the gradients."""
    norm: float         # before
    factor: float       # by which all of them were multiplied, 1 or less


def clip_global_norm(model, limit):
    """Scale all gradients of ``model`` by min(1, limit / norm); norm = sqrt of the sum of all their squares.

    -> Clipped(norm, factor).  Source: Pascanu, Mikolov and Bengio 2013, algorithm 1.
    Raises ValueError for a limit that is not positive, FloatingPointError for a norm that is not finite: a scaled NaN
    is still a NaN, and the next step of the optimizer would spread it over all weights.

    On a GPU norm and factor are DeviceArrays (1,), and nobody waits for them.  If the norm is not finite (or the sum of
    the squares exceeds 3.4e38) all gradients become NaN, and ``Adam`` then moves nothing: look at it now and then."""
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit!r}")
    layers = [layer for _, layer in model.walk()]
    if model.backend == "gpu":
        return Clipped(*backends.module("training", "gpu").Notes(1).clip(layers, limit))
    norm = math.sqrt(sum(_sum_of_squares(g.ravel()) for layer in layers for g in layer.grads.values()))
    if not math.isfinite(norm):
        bad = [prefix + name for prefix, layer in model.walk() for name, g in layer.grads.items()
               if not np.isfinite(g).all()]
        raise FloatingPointError(f"the norm of the gradients is {norm}; not finite: {', '.join(bad) or 'their sum'}")
    factor = min(1.0, limit / norm) if norm else 1.0
    if factor < 1:
        for layer in layers:
            for g in layer.grads.values():
                g *= g.dtype.type(factor)
    return Clipped(norm, factor)


def clip_value(model, limit):
    """Cut every number of every gradient of ``model`` to between -limit and limit; the direction may change.

    -> how many numbers were cut, of all.  Source: Mikolov 2012, section 3.2.2.  Raises ValueError for a limit that is
    not positive or a model on a GPU, FloatingPointError for a gradient that is NaN, which nothing can cut."""
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit!r}")
    if model.backend == "gpu":
        raise ValueError("model: expected one on the host; on a GPU gradients are clipped by clip_global_norm")
    cut = 0
    for prefix, layer in model.walk():
        for name, g in layer.grads.items():
            if np.isnan(g).any():
                raise FloatingPointError(f"the gradient of {prefix}{name} has NaN")
            cut += int(np.count_nonzero(np.abs(g) > limit))
            np.clip(g, -limit, limit, out=g)
    return cut


@functools.partial(kernel, any_order=True)
def _sum_of_squares(g):
    """g (n,) -> in float64, which holds the square of every float32"""
    total = 0.0
    for j in range(g.size):
        total += np.float64(g[j]) * np.float64(g[j])
    return total
