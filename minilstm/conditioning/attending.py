"""Layers that join a sequence and a condition by attention.

    AttendConditions    the condition is a set of M vectors, such as the words of an instruction: every step looks at
                        all of them and takes what it needs
                        y_t = [x_t, attention(query x_t, keys and values condition_1 .. condition_M)]
    AttendTime          the condition asks, the steps so far answer
                        y_t = attention(query condition, keys and values x_1 .. x_t)

    x (B,T,F)

Attention over one vector is none: its weight is always 1, whatever the query is.  So a condition that is one vector is
the query, and not the key.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, mask_of, positive
from ..arrays.host import finite_or_nan, select
from ..attention import mask_of as set_mask_of
from ..layers.attention import Attention
from ..layers.layer import ConditionedGradients, Layer, own_cache
from .condition import condition_of


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    identity: tuple
    attended: tuple         # of the Attention layer
    mask: np.ndarray        # (B,T)


class Attending(Layer):
    """What the two share.

    input_size      F, of x
    condition_size  C, of a condition
    attention_size  of queries and keys; None: F
    heads, score, dtype, backend, seed      as for ``Attention``

    params: those of the ``Attention`` layer, as attention.q_proj.weight
    """
    takes_mask = True
    takes_condition = True

    def __init__(self, input_size, condition_size, *, attention_size=None, heads=1, score="scaled", dtype="float32",
                 backend="cpu", seed=0):
        super().__init__(dtype, backend)
        self.input_size = F = positive("input_size", input_size)
        self.condition_size = positive("condition_size", condition_size)
        self.attention_size = F if attention_size is None else positive("attention_size", attention_size)
        self.attention = self.build(attention_size=self.attention_size, value_size=F, heads=heads, score=score,
                                    dtype=dtype, backend=backend, seed=seed)
        self.identity = (type(self).__name__, *self.attention.identity)

    def children(self):
        return {"attention": self.attention}

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "condition_size": self.condition_size,
                "attention_size": self.attention_size, "heads": self.attention.heads, "score": self.attention.score}

    def _sequence(self, x, mask, lengths):
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "F"))
        mask = mask_of(x, mask, lengths)
        return select(x, mask), mask

    def _d_sequence(self, cache, dy):
        _, attended, mask = own_cache(cache, Cache, self.identity)
        dy = floats("dy", dy, self.dtype, (*mask.shape, self.output_size), ("B", "T", "F"))
        return attended, mask, select(dy, mask)


class AttendConditions(Attending):
    """y_t = [x_t, what step t takes from the conditions], (B,T,2F)"""

    def build(self, **options):
        self.output_size = 2 * self.input_size
        return Attention(self.input_size, memory_size=self.condition_size, **options)

    def forward(self, x, condition, mask=None, *, condition_mask=None, lengths=None, cache=True):
        """x (B,T,F), condition (B,M,C), mask (B,T) bool or lengths (B,), as for ``LSTM``; condition_mask (B,M) bool,
        True = a real vector of the set, None: all are -> y (B,T,2F), 0 at masked steps; cache.

        Where a set is empty its part of y is 0.  Raises TypeError or ValueError for what does not fit; warns with
        OneKeyWarning if M is 1."""
        x, mask = self._sequence(x, mask, lengths)
        keeps = flag("cache", cache)
        if isinstance(condition, np.ndarray) and condition.ndim == 2:
            raise ValueError(f"condition: expected a set of vectors (B={len(x)}, M, C={self.condition_size}), got "
                             f"{describe(condition)}; attention over one vector is none, but it can be the query: "
                             "'attend_time'")
        condition = floats("condition", condition, self.dtype, (len(x), None, self.condition_size), ("B", "M", "C"))
        is_read = set_mask_of("condition_mask", condition_mask, len(x), condition.shape[1], "M")
        is_read &= mask.any(axis=1)[:, None]
        condition = finite_or_nan(select(condition, is_read))
        context, attended = self.attention.forward(x, mask, memory=condition, memory_mask=is_read, cache=keeps)
        y = np.concatenate([x, context], axis=2)
        return y, Cache(self.identity, attended, mask) if keeps else None

    def backward(self, cache, dy):
        """The gradient of y -> ConditionedGradients(dx (B,T,F), dcondition (B,M,C)); adds to ``grads``."""
        attended, mask, dy = self._d_sequence(cache, dy)
        d_direct, d_context = np.split(dy, 2, axis=2)                           # y = [x, context]
        dx, dcondition = self.attention.backward(attended, d_context)           # context, _ = attention(...)
        return ConditionedGradients(d_direct + dx, dcondition)


class AttendTime(Attending):
    """y_t = what the condition takes from the steps up to t, (B,T,F)"""

    def build(self, **options):
        self.output_size = self.input_size
        return Attention(self.condition_size, memory_size=self.input_size, causal=True, **options)

    def forward(self, x, condition, mask=None, *, lengths=None, cache=True):
        """x (B,T,F), condition (B,C), mask (B,T) bool or lengths (B,), as for ``LSTM`` -> y (B,T,F), 0 at masked steps;
        cache.

        Raises TypeError or ValueError for what does not fit; warns with OneKeyWarning if T is 1."""
        x, mask = self._sequence(x, mask, lengths)
        keeps = flag("cache", cache)
        condition = condition_of(condition, self.condition_size, self.dtype, mask)
        asks = np.repeat(condition[:, None], mask.shape[1], axis=1)
        y, attended = self.attention.forward(asks, mask, memory=x, memory_mask=mask, cache=keeps)
        return y, Cache(self.identity, attended, mask) if keeps else None

    def backward(self, cache, dy):
        """The gradient of y -> ConditionedGradients(dx (B,T,F), dcondition (B,C)); adds to ``grads``."""
        attended, mask, dy = self._d_sequence(cache, dy)
        d_asks, dx = self.attention.backward(attended, dy)                      # y, _ = attention(asks, memory=x)
        return ConditionedGradients(dx, d_asks.sum(axis=1))                     # asks = repeat(condition)
