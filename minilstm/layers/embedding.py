"""Categories as vectors: words, weekdays, sensors."""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, mask_of, positive
from ..masking.reference import select
from .layer import Layer, stream


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    x: np.ndarray           # (B,T), 0 at masked steps
    mask: np.ndarray        # (B,T)


class Embedding(Layer):
    """y = weight[x]: each category has a vector of its own, which is learnt.

    x (B,T) integers from 0 to V - 1 -> y (B,T,F)       params: weight (V,F), PyTorch's name and layout

    categories    V
    output_size   F
    seed          of the initial vectors, whose numbers are normal with variance 1, as in PyTorch; None: all zero

    No number is set aside for padding: steps that are none are named by a mask, and what stands there is never read."""
    takes_mask = True
    takes_categories = True
    needs_whole = None

    def __init__(self, categories, output_size, *, dtype="float32", backend="cpu", seed=0):
        super().__init__(dtype, backend)
        self.categories = V = positive("categories", categories)
        self.output_size = F = positive("output_size", output_size)
        rng = stream(seed, "Embedding", V, F)
        self._own("weight", np.zeros((V, F)) if rng is None else rng.standard_normal((V, F)))

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"categories": self.categories, "output_size": self.output_size}

    def forward(self, x, mask=None, *, lengths=None, cache=True):
        """x (B,T) integers, mask (B,T) bool or lengths (B,), as for ``LSTM`` -> y (B,T,F), 0 at masked steps; cache.

        Raises TypeError for what are no integers, ValueError for another shape and for a category that is none."""
        V = self.categories
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu":
            raise TypeError(f"x: expected integers (B,T) from 0 to {V - 1}, got {describe(x)}")
        if x.ndim != 2:
            cure = f"; {x.shape[2]} features of categories need an Embedding each" if x.ndim == 3 else ""
            raise ValueError(f"x: expected integers (B,T), got {describe(x)}{cure}")
        mask = mask_of(x[:, :, None], mask, lengths)
        known = np.where(mask, x, 0)
        wrong = (known < 0) | (known >= V)
        if wrong.any():
            row, step = np.argwhere(wrong)[0]
            raise ValueError(f"x: expected categories from 0 to {V - 1}, got {x[row, step]} in row {row}, step {step}")
        y = select(self._param("weight")[known], mask)
        return y, Cache(known, mask) if flag("cache", cache) else None

    def backward(self, cache, dy):
        """The gradient of y (B,T,F); adds to ``grads``.  -> None: a category has no gradient."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        x, mask = cache
        dy = floats("dy", dy, self.dtype, (*mask.shape, self.output_size), ("B", "T", "F"))
        d_weight = np.zeros_like(self.grads["weight"])
        np.add.at(d_weight, x[mask], dy[mask])                              # y = select(weight[x], mask)
        self._add_grads({"weight": d_weight})
