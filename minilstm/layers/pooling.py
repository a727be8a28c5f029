"""One output for a whole sequence: what becomes of y at its steps."""
from typing import NamedTuple

import numpy as np

from .. import backends
from ..arguments import describe, flag, one_of
from .layer import Layer

HOWS = ("last", "first", "ends", "mean", "sum", "max")


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    how: str
    mask: np.ndarray                # (B,T)
    source: np.ndarray | None       # (B,F): the step of the maximum


class Pooling(Layer):
    """y (B,F) of x (B,T,F), from the real steps of each row; 0 for a row without any.

    how     "last"      x at the last real step, where a forward net has seen all of the sequence
            "first"     x at the first, where a net that walks from the end has
            "ends"      the outputs of a bidirectional net, merged by "concat": each half where it has seen all, so the
                        first half of x at the last real step, the second half at the first
            "mean", "sum", "max"    over the real steps.  Of equal maxima the first one gets the gradient

    The functions are those of ``minilstm.masking``.  A model of layers in a row needs no mask behind a Pooling: there
    is no time any more.
    """
    backends = backends.NAMES
    takes_mask = True
    pools = True
    needs_whole = "it makes one output of all steps"

    def __init__(self, how, *, dtype="float32", backend="cpu"):
        super().__init__(dtype, backend)
        self.how = one_of("how", how, HOWS)

    def arguments(self):
        """The arguments that build this layer again, but for dtype and backend."""
        return {"how": self.how}

    def forward(self, x, mask=None, *, lengths=None, cache=True):
        """x (B,T,F), mask (B,T) bool or lengths (B,), as for ``LSTM`` -> y (B,F), cache.

        Raises TypeError or ValueError for what does not fit, as for "ends" an odd F."""
        kernels, arrays = self._module("masking"), self.arrays
        x = arrays.floats("x", x, self.dtype, (None, None, None), ("B", "T", "F"))
        mask = arrays.mask_of(x, mask, lengths)
        keeps = flag("cache", cache)
        F, source = x.shape[2], None
        if self.how == "ends":
            if F % 2:
                raise ValueError(f"x: expected an even number of features, two halves of one size, got {describe(x)}")
            y = arrays.side_by_side([kernels.last_valid(arrays.columns(x, 0, F // 2), mask),
                                     kernels.first_valid(arrays.columns(x, F // 2, F), mask)])
        elif self.how == "max":
            y, source = kernels.masked_max(x, mask)
        else:
            y = getattr(kernels, NAMES[self.how])(x, mask)
        return y, Cache(self.how, mask, source) if keeps else None

    def backward(self, cache, dy):
        """The gradient of y (B,F) -> dx (B,T,F), 0 at masked steps."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        how, mask, source = cache
        if how != self.how:
            raise ValueError(f"cache: expected one of this layer, how={self.how!r}, got one of how={how!r}")
        kernels, arrays = self._module("masking"), self.arrays
        dy = arrays.floats("dy", dy, self.dtype, (len(mask), None), ("B", "F"))
        F = dy.shape[1]
        if how == "ends":                                   # y = side_by_side([last_valid(...), first_valid(...)])
            return arrays.side_by_side([kernels.last_valid_backward(arrays.columns(dy, 0, F // 2), mask),
                                        kernels.first_valid_backward(arrays.columns(dy, F // 2, F), mask)])
        if how == "max":
            if dy.shape != source.shape:
                raise ValueError(f"dy: expected {self.dtype} {source.shape}, as y is, got {describe(dy)}")
            return kernels.masked_max_backward(dy, mask, source)
        return getattr(kernels, NAMES[how] + "_backward")(dy, mask)


NAMES = {"last": "last_valid", "first": "first_valid", "mean": "masked_mean", "sum": "masked_sum"}
