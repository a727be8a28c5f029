"""Gradient clipping: one long step in a bad place must not undo a thousand good ones."""
import math

import numpy as np

from .. import backends


def clip_global_norm(model, limit):
    """Scale all gradients of ``model`` by min(1, limit / norm); norm = sqrt of the sum of all their squares.

    -> the norm before clipping.  Source: Pascanu, Mikolov and Bengio 2013, algorithm 1.
    Raises ValueError for a limit that is not positive, FloatingPointError for a norm that is not finite: a scaled NaN
    is still a NaN, and the next step of the optimizer would spread it over all weights.

    On a GPU the norm is a DeviceArray (1,), and nobody waits for it.  If it is not finite (or the sum of the squares
    exceeds 3.4e38) all gradients become NaN, and ``Adam`` then moves nothing: look at the norm now and then."""
    if not limit > 0:
        raise ValueError(f"limit: expected a positive number, got {limit!r}")
    layers = [layer for _, layer in model.walk()]
    if model.backend == "gpu":
        return backends.module("training", "gpu").Notes(1).clip(layers, limit)
    norm = math.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for layer in layers for g in layer.grads.values()))
    if not math.isfinite(norm):
        bad = [prefix + name for prefix, layer in model.walk() for name, g in layer.grads.items()
               if not np.isfinite(g).all()]
        raise FloatingPointError(f"the norm of the gradients is {norm}; not finite: {', '.join(bad) or 'their sum'}")
    if norm > limit:
        for layer in layers:
            for g in layer.grads.values():
                g *= g.dtype.type(limit / norm)
    return norm
