"""A policy: from what an agent has seen to the chances of its actions, over whole episodes or one step at a time.

    B  batch, episodes      T  steps      D  numbers in an observation      A  actions      F  features of the body
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, mask_of, positive
from ..layers.layer import Layer, first
from ..layers.linear import Linear
from ..layers.recurrent import Recurrent
from ..masking.reference import select
from .softmax import log_softmax


class PolicyOutput(NamedTuple):
    """What ``Policy.forward`` returns."""
    logits: np.ndarray          # (B,T,A)   log_softmax makes logarithms of chances of them
    values: np.ndarray          # (B,T)     the return that is expected from here on


class Act(NamedTuple):
    """What ``Policy.act`` returns."""
    actions: np.ndarray             # (B,) integers from 0 to A - 1
    log_probabilities: np.ndarray   # (B,) of these actions
    values: np.ndarray              # (B,)
    state: tuple                    # for the next step


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses: the caches of the layers, and the mask."""
    body: tuple
    logits: tuple
    values: tuple
    mask: np.ndarray            # (B,T)


class Policy(Layer):
    """body -> two linear heads: ``logits`` of the actions, and ``value``, a guess of the return from here on.

    body        an LSTM, GRU or RNN that walks forward: what it does now depends on all that it has seen; or a Linear,
                for a policy without memory.  Its dropout and zoneout, if it has any, are off
    actions     A, how many there are
    seed        of the heads' initial weights

    Over whole episodes it is a layer like others, ``forward`` and ``backward``.  To act, it goes one step at a time:
    ``state = policy.start(B)``, then again and again ``policy.act(x, state, rng)``, each with the state of the one
    before.  Both ways give the same chances, up to rounding.
    """
    takes_mask = True

    def __init__(self, body, actions, *, seed=0):
        one_way = isinstance(body, Recurrent) and not (body.bidirectional or body.reverse)
        if not one_way and not isinstance(body, Linear):
            way = " that reads the future" if isinstance(body, Recurrent) else ""
            raise TypeError(f"body: expected an LSTM, GRU or RNN that walks forward, or a Linear, got {describe(body)}"
                            f"{way}")
        super().__init__(body.dtype, body.backend)
        self.body = body
        self.input_size, self.output_size = body.input_size, positive("actions", actions)
        options = {"dtype": body.dtype, "backend": body.backend}
        self.logits = Linear(body.output_size, actions, seed=seed, **options)
        self.value = Linear(body.output_size, 1, seed=seed if seed is None else seed + 1, **options)

    def children(self):
        return {"body": self.body, "logits": self.logits, "value": self.value}

    def start(self, B):
        """The state before the first step of B episodes, zeros: a tuple, empty for a policy without memory."""
        if not isinstance(self.body, Recurrent):
            return ()
        return tuple(np.zeros((self.body.num_layers, 1, positive("B", B), width), self.dtype)
                     for width in self.body.widths)

    def act(self, x, state, rng, *, greedy=False):
        """One step: x (B,D), what is seen now -> Act.  The state that came in stays as it is.

        rng         NumPy Generator that draws the actions
        greedy      True: the most likely action instead of a drawn one

        Raises TypeError or ValueError for what does not fit, FloatingPointError where a chance is not a number."""
        x = floats("x", x, self.dtype, (None, self.input_size), ("B", "D"))
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a NumPy Generator, got {describe(rng)}; np.random.default_rng(seed) is one")
        if not isinstance(state, tuple) or len(state) != len(self.start(1)):
            raise TypeError(f"state: expected what start, or the act before, gave, got {describe(state)}")
        states = {} if not state else {f"{name}0": s for name, s in zip(self.body.cell.states, state)}
        out, _ = self.body.forward(x[:, None], **states, cache=False)
        h, state = first(out)[:, 0], tuple(out[1:]) if state else ()
        log_p = log_softmax(self.logits.forward(h, cache=False)[0])
        if np.isnan(log_p).any():
            raise FloatingPointError("x, params: expected numbers that give every action a chance, got NaN")
        # the largest of log_p + Gumbel noise is action a with chance p_a, and is never one whose chance is 0
        noise = 0 if flag("greedy", greedy) else rng.gumbel(size=log_p.shape)
        actions = np.argmax(log_p + noise, axis=-1)
        return Act(actions, log_p[np.arange(len(x)), actions],
                   self.value.forward(h, cache=False)[0][:, 0], state)

    def forward(self, x, mask=None, *, lengths=None, cache=True):
        """x (B,T,D), mask (B,T) bool or lengths (B,) -> PolicyOutput(logits, values), cache.  Masked steps are never
        read, and the output is 0 there."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "D"))
        mask = mask_of(x, mask, lengths)
        keeps = flag("cache", cache)
        masked = {"mask": mask} if self.body.takes_mask else {}
        out, body = self.body.forward(x if masked else select(x, mask), **masked, cache=keeps)
        logits, logits_cache = self.logits.forward(first(out), cache=keeps)
        values, values_cache = self.value.forward(first(out), cache=keeps)
        output = PolicyOutput(select(logits, mask), select(values, mask)[:, :, 0])
        return output, Cache(body, logits_cache, values_cache, mask) if keeps else None

    def backward(self, cache, d_logits, d_values=None):
        """The gradients of logits (B,T,A) and of values (B,T), None: zero -> dx (B,T,D); adds to all ``grads``.

        Gradients at masked steps are never read, and dx is 0 there."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        B, T = cache.mask.shape
        d_logits = floats("d_logits", d_logits, self.dtype, (B, T, self.output_size), ("B", "T", "A"))
        d_logits = select(d_logits, cache.mask)                             # output = select(logits, mask)
        dh = self.logits.backward(cache.logits, d_logits)                   # logits = self.logits.forward(h)
        if d_values is not None:
            d_values = floats("d_values", d_values, self.dtype, (B, T), ("B", "T"))
            d_values = select(d_values[:, :, None], cache.mask)             # output = select(values, mask)
            dh = dh + self.value.backward(cache.values, d_values)           # values = self.value.forward(h)
        return first(self.body.backward(cache.body, dh))                    # out = self.body.forward(x, mask)
