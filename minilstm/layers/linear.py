"""A linear layer, applied to the last axis: one prediction per step, or per sequence."""
import math
from typing import NamedTuple

import numpy as np

from .. import backends
from ..arguments import describe, flag, positive
from .layer import Layer, stream


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    x: np.ndarray           # (N,D), all leading axes in one
    weight: np.ndarray      # (F,D)
    shape: tuple            # of y


class Linear(Layer):
    """y = x @ weight.T + bias

    x (...,D) -> y (...,F)        params: weight (F,D), bias (F,), PyTorch's names and layout

    input_size    D
    output_size   F
    bias          without one, y = x @ weight.T
    backend       "cpu", "reference" or "gpu", as for ``LSTM``
    seed          of the initial weights, Glorot uniform; None: all zero.  The bias begins at 0.
    """

    backends = backends.NAMES
    needs_whole = None

    def __init__(self, input_size, output_size, *, bias=True, dtype="float32", backend="cpu", seed=0):
        super().__init__(dtype, backend)
        self.input_size = D = positive("input_size", input_size)
        self.output_size = F = positive("output_size", output_size)
        rng = stream(seed, "Linear", D, F)
        limit = np.sqrt(6 / (D + F))                    # Glorot and Bengio 2010, equation 16
        self._own("weight", np.zeros((F, D)) if rng is None else rng.uniform(-limit, limit, (F, D)))
        if flag("bias", bias):
            self._own("bias", np.zeros(F))

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "output_size": self.output_size, "bias": "bias" in self.params}

    def forward(self, x, *, cache=True):
        """x (...,D) -> y (...,F), cache, or None in its place with cache=False, for no backward pass.

        Raises TypeError or ValueError where x has another dtype or width."""
        keeps = flag("cache", cache)
        x = self.arrays.floats("x", x, self.dtype, (..., self.input_size), ("...", "D"))
        shape = (*x.shape[:-1], self.output_size)
        weight = self._param("weight")
        bias = self._param("bias") if "bias" in self.params else None
        rows = x.reshape(math.prod(x.shape[:-1]), self.input_size)
        y = self._module("matmul").product(rows, weight.T, bias)
        return y.reshape(shape), Cache(self.arrays.copy_of(rows), weight, shape) if keeps else None

    def backward(self, cache, dy):
        """dy (...,F), the gradient of y -> dx (...,D); adds to ``grads``."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        x, weight, shape = cache
        product = self._module("matmul").product
        dy = self.arrays.floats("dy", dy, self.dtype, shape, ("...",) * (len(shape) - 1) + ("F",))
        dy = dy.reshape(len(x), self.output_size)
        dx = product(dy, weight)                        # y = x @ weight.T + bias
        gradients = {"weight": product(dy.T, x)}        # y = x @ weight.T + bias
        if "bias" in self.params:
            gradients["bias"] = self.arrays.column_sums(dy)     # y = x @ weight.T + bias
        self._add_grads(gradients)
        return dx.reshape(*shape[:-1], self.input_size)
