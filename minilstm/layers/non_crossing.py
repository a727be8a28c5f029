"""Quantiles that cannot cross: the lowest one as it is, each of the others by what it is above the one before it."""
import numpy as np

from ..arguments import describe, positive
from ..cells.activations import sigmoid, softplus
from .layer import Layer


class NonCrossing(Layer):
    """y_1 = a_1, y_k = y_{k-1} + softplus(a_k), softplus(a) = log(1 + exp(a)): in order, whatever a is.

    input_size      F*Q, for each of F features Q numbers, as ``quantile_loss`` reads them
    quantiles       Q, how many

    The idea of adding up positive increments: Gasthaus et al. 2019, section 3.  Raises ValueError for sizes that do not
    fit."""
    needs_whole = None

    def __init__(self, input_size, quantiles, *, dtype="float32", backend="cpu"):
        super().__init__(dtype, backend)
        self.input_size = self.output_size = positive("input_size", input_size)
        self.quantiles = positive("quantiles", quantiles)
        if input_size % quantiles:
            raise ValueError(f"input_size: expected a multiple of quantiles={quantiles}, got {input_size}")

    def arguments(self):
        """The arguments that build this layer again, but for dtype and backend."""
        return {"input_size": self.input_size, "quantiles": self.quantiles}

    def forward(self, x, *, cache=True):
        """x (...,F*Q) -> y (...,F*Q), cache"""
        a = self._by_feature(self.arrays.floats("x", x, self.dtype, (..., self.input_size), ("...", "F*Q")))
        above = softplus(a)
        above[..., 0] = a[..., 0]
        y = np.cumsum(above, axis=-1)
        return y.reshape(x.shape), a if cache else None

    def backward(self, cache, dy):
        """The gradient of y -> dx"""
        if not isinstance(cache, np.ndarray) or cache.shape[-1:] != (self.quantiles,):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        shape = (*cache.shape[:-2], self.input_size)
        dy = self._by_feature(self.arrays.floats("dy", dy, self.dtype, shape, ("...", "F*Q")))
        d_above = np.cumsum(dy[..., ::-1], axis=-1)[..., ::-1]              # y = cumsum(above)
        da = d_above * sigmoid(cache)                                       # above = softplus(a)
        da[..., 0] = d_above[..., 0]                                        # above[..., 0] = a[..., 0]
        return da.reshape(shape)

    def _by_feature(self, array):
        return array.reshape(*array.shape[:-1], -1, self.quantiles)
