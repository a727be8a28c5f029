"""Layers that join a sequence and a condition, step by step.

    Concatenated    [x_t, c]
    Late            [x_t, tanh(W c + b)]
    FiLM            gamma * x_t + beta              with gamma = 1 + W_gamma c + b_gamma, beta = W_beta c + b_beta
    Gated           gate * x_t + shift              with gate = sigmoid(W_gate c + b_gate),
                                                         shift = tanh(W_shift c + b_shift)

    x (B,T,F)       condition c (B,C), one for each sequence        y (B,T,output_size)

They stand behind a recurrent layer, where x_t is its h_t, or before one.  What c says is computed once for a sequence.
Late fusion adds: what c does to a linear layer behind it is the same whatever x is.  FiLM and the gate multiply.

Sources: E. Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, 2018, section 2 (with gamma as the
difference from 1); the gate is that of J. Arevalo et al., Gated Multimodal Units, 2017, opened by the condition alone.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import flag, floats, mask_of, positive
from ..cells.activations import d_sigmoid, d_tanh, sigmoid, tanh
from ..layers.layer import ConditionedGradients, Layer, own_cache, seed_of, stream
from ..layers.linear import Linear
from ..masking.reference import select
from .condition import condition_of


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    identity: tuple
    branches: list          # the caches of the Linear layers
    saved: tuple            # what ``fuse`` saved
    mask: np.ndarray        # (B,T)


class Fusion(Layer):
    """What the layers of this file share.  A subclass says which Linear branches read the condition, and has ``fuse``
    and its reverse.

    input_size      F, of x
    condition_size  C
    dtype, backend, seed        as for ``Linear``

    params: those of the branches, as in gamma.weight (F,C), gamma.bias (F,)
    """
    takes_mask = True
    takes_condition = True

    def __init__(self, input_size, condition_size, branches, gives, dtype, backend, seed):
        """branches: dict name -> width of what it says; gives: the width of y."""
        super().__init__(dtype, backend)
        self.input_size, self.condition_size, self.output_size = input_size, condition_size, gives
        self.identity = (type(self).__name__, input_size, condition_size, gives)
        rng = stream(seed, *self.identity)
        self.branches = {name: Linear(condition_size, width, dtype=self.dtype, backend=backend, seed=seed_of(rng))
                         for name, width in branches.items()}

    def children(self):
        return self.branches

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "condition_size": self.condition_size}

    def forward(self, x, condition, mask=None, *, lengths=None, cache=True):
        """x (B,T,F), condition (B,C), mask (B,T) bool or lengths (B,), as for ``LSTM`` -> y (B,T,output_size), 0 at
        masked steps; cache.

        Raises TypeError or ValueError for what does not fit."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "F"))
        mask = mask_of(x, mask, lengths)
        keeps = flag("cache", cache)
        condition = condition_of(condition, self.condition_size, self.dtype, mask)
        said = [branch.forward(condition, cache=keeps) for branch in self.branches.values()]
        y, saved = self.fuse(select(x, mask), condition, *(a for a, _ in said))
        return select(y, mask), Cache(self.identity, [kept for _, kept in said], saved, mask) if keeps else None

    def backward(self, cache, dy):
        """The gradient of y -> ConditionedGradients(dx (B,T,F), dcondition (B,C)); adds to ``grads``."""
        _, kept, saved, mask = own_cache(cache, Cache, self.identity)
        dy = select(floats("dy", dy, self.dtype, (*mask.shape, self.output_size), ("B", "T", "F")), mask)
        dx, dcondition, *d_said = self.fuse_backward(saved, dy)                     # y, saved = fuse(...)
        for branch, branch_cache, da in zip(self.branches.values(), kept, d_said):
            dcondition = dcondition + branch.backward(branch_cache, da)             # a = branch(condition)
        return ConditionedGradients(select(dx, mask), dcondition)


class Concatenated(Fusion):
    """y_t = [x_t, c]"""

    def __init__(self, input_size, condition_size, *, dtype="float32", backend="cpu", seed=0):
        F, C = positive("input_size", input_size), positive("condition_size", condition_size)
        super().__init__(F, C, {}, F + C, dtype, backend, seed)

    def fuse(self, x, c):
        return beside(x, c), ()

    def fuse_backward(self, saved, dy):
        return beside_backward(dy, self.input_size)                             # y = beside(x, c)


class Late(Fusion):
    """y_t = [x_t, tanh(W c + b)].  branch_size: of what the condition adds; None: F."""

    def __init__(self, input_size, condition_size, *, branch_size=None, dtype="float32", backend="cpu", seed=0):
        F, C = positive("input_size", input_size), positive("condition_size", condition_size)
        self.branch_size = F if branch_size is None else positive("branch_size", branch_size)
        super().__init__(F, C, {"branch": self.branch_size}, F + self.branch_size, dtype, backend, seed)

    def arguments(self):
        return super().arguments() | {"branch_size": self.branch_size}

    def fuse(self, x, c, a):
        s = tanh(a)
        return beside(x, s), (s,)

    def fuse_backward(self, saved, dy):
        s, = saved
        dx, ds = beside_backward(dy, self.input_size)                           # y = beside(x, s)
        da = ds * d_tanh(s)                                                     # s = tanh(a)
        return dx, 0, da


class FiLM(Fusion):
    """y_t = gamma * x_t + beta, with gamma = 1 + W_gamma c + b_gamma, beta = W_beta c + b_beta"""

    def __init__(self, input_size, condition_size, *, dtype="float32", backend="cpu", seed=0):
        F, C = positive("input_size", input_size), positive("condition_size", condition_size)
        super().__init__(F, C, {"gamma": F, "beta": F}, F, dtype, backend, seed)

    def fuse(self, x, c, a_gamma, beta):
        gamma = 1 + a_gamma
        y = gamma[:, None] * x + beta[:, None]
        return y, (x, gamma)

    def fuse_backward(self, saved, dy):
        x, gamma = saved
        dx = dy * gamma[:, None]                                                # y = gamma * x + beta
        d_gamma, d_beta = (dy * x).sum(axis=1), dy.sum(axis=1)                  # y = gamma * x + beta
        return dx, 0, d_gamma, d_beta                                           # gamma = 1 + a_gamma


class Gated(Fusion):
    """y_t = gate * x_t + shift, with gate = sigmoid(W_gate c + b_gate), shift = tanh(W_shift c + b_shift)"""

    def __init__(self, input_size, condition_size, *, dtype="float32", backend="cpu", seed=0):
        F, C = positive("input_size", input_size), positive("condition_size", condition_size)
        super().__init__(F, C, {"gate": F, "shift": F}, F, dtype, backend, seed)

    def fuse(self, x, c, a_gate, a_shift):
        gate, shift = sigmoid(a_gate), tanh(a_shift)
        y = gate[:, None] * x + shift[:, None]
        return y, (x, gate, shift)

    def fuse_backward(self, saved, dy):
        x, gate, shift = saved
        dx = dy * gate[:, None]                                                 # y = gate * x + shift
        d_gate, d_shift = (dy * x).sum(axis=1), dy.sum(axis=1)                  # y = gate * x + shift
        da_gate, da_shift = d_gate * d_sigmoid(gate), d_shift * d_tanh(shift)   # gate, shift = sigmoid, tanh
        return dx, 0, da_gate, da_shift


def beside(x, s):
    """x (B,T,F), s (B,S) -> [x_t, s] for every step, (B,T,F+S)."""
    return np.concatenate([x, np.broadcast_to(s[:, None], (*x.shape[:2], s.shape[1]))], axis=2)


def beside_backward(dy, F):
    """The reverse of ``beside`` -> dx (B,T,F), ds (B,S)."""
    return dy[:, :, :F], dy[:, :, F:].sum(axis=1)
