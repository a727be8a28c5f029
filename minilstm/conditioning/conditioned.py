"""A recurrent layer with a condition: one layer, and one argument that says how the condition comes in."""
import inspect
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, mask_of, one_of, positive
from ..arrays.host import frozen
from ..layers.layer import ConditionedGradients, Layer, own_cache
from ..layers.lstm import LSTM
from ..layers.one_state import GRU, RNN
from .attending import AttendConditions, AttendTime
from .condition import condition_of
from .covariate_lstm import CovariateLSTM
from .fusion import Concatenated, FiLM, Gated, Late
from .within import GateBias, InitialState

KINDS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
STRATEGIES = {                                          # strategy -> where the condition comes in, and by what
    "concat": ("before", Concatenated),
    "gated_cell": ("before", Concatenated),             # and the cell of a CovariateLSTM
    "gate_bias": ("within", GateBias),
    "initial_state": ("within", InitialState),
    "late": ("behind", Late),
    "film": ("behind", FiLM),
    "gated": ("behind", Gated),
    "attend_conditions": ("behind", AttendConditions),
    "attend_time": ("behind", AttendTime),
}


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    identity: tuple
    run: tuple              # of the recurrent layer
    part: tuple             # of what brings the condition in
    mask: np.ndarray        # (B,T)


class Conditioned(Layer):
    """A recurrent layer over x (B,T,D) that is told a condition c (B,C), one for each sequence.

    strategy        how c comes in; h_t are the outputs of the recurrent layer, F wide
        "concat"            before: x_t becomes [x_t, c]
        "gate_bias"         the same function, but what c says to the gates is computed once and not at every step
        "initial_state"     h0, and c0 of an LSTM, are made of c: it is told once, and may be forgotten
        "gated_cell"        an LSTM in whose memory c has a candidate and an input gate of its own, which opens anew at
                            every step (``cells/lstm_covariate.py``)
        "late"              behind: y_t = [h_t, tanh(W c + b)].  A linear layer on top can only add what c says to what
                            x says, never let the one depend on the other
        "film"              behind: y_t = gamma(c) * h_t + beta(c)
        "gated"             behind: y_t = sigmoid(W c + b) * h_t + tanh(V c + d)
        "attend_conditions" behind: c is a set (B,M,C), at which every step looks; y_t = [h_t, what it found]
        "attend_time"       behind: c is a query to h_1 .. h_t; y_t = what it found
    input_size      D
    condition_size  C
    hidden_size     H
    kind            "LSTM", "GRU" or "RNN"; "gated_cell" is an LSTM
    options         of the recurrent layer: num_layers, bidirectional, dropout ...
    dtype, backend, seed        as for ``LSTM``.  With one seed the recurrent weights of the strategies begin alike as
                    far as their sizes are; "concat" and "gate_bias" begin as the same function

    Children: ``recurrent`` and ``condition``, whose parameters are named by them: recurrent.weight_ih_l0,
    condition.gamma.weight.
    """
    takes_mask = True
    takes_training = True
    takes_condition = True

    def __init__(self, strategy, input_size, condition_size, hidden_size, *, kind="LSTM", dtype="float32",
                 backend="cpu", seed=0, **options):
        super().__init__(dtype, backend)
        self.strategy, self.kind = one_of("strategy", strategy, tuple(STRATEGIES)), one_of("kind", kind, tuple(KINDS))
        self.place, part = STRATEGIES[strategy]
        self.input_size = D = positive("input_size", input_size)
        self.condition_size = C = positive("condition_size", condition_size)
        self.hidden_size = H = positive("hidden_size", hidden_size)
        given = {"dtype": dtype, "backend": backend, "seed": seed}
        if strategy == "gated_cell":
            if kind != "LSTM":
                raise ValueError(f"kind: expected 'LSTM', in whose memory 'gated_cell' writes, got {kind!r}")
            self.recurrent = CovariateLSTM(D, C, H, **given, **_known(CovariateLSTM, options))
        else:
            reads = D + C if strategy == "concat" else D
            self.recurrent = KINDS[kind](reads, H, **given, **_known(KINDS[kind], options))
        if self.place == "within":
            self.condition = part(self.recurrent, C, seed)
        else:
            self.condition = part(D if self.place == "before" else self.recurrent.output_size, C, **given)
        if strategy == "gate_bias":
            self._begin_like(KINDS[kind](D + C, H, **given, **options))
        self.output_size = self.condition.output_size if self.place == "behind" else self.recurrent.output_size
        self.identity = (strategy, D, C, *self.recurrent.identity)

    def children(self):
        return {"recurrent": self.recurrent, "condition": self.condition}

    @property
    def noise(self):
        """What the recurrent layer draws in training."""
        return self.recurrent.noise

    @property
    def counter(self):
        """Of the draws in training."""
        return self.noise.counter

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        options = {name: value for name, value in self.recurrent.arguments().items()
                   if name not in ("input_size", "covariate_size", "hidden_size")}
        return {"strategy": self.strategy, "input_size": self.input_size, "condition_size": self.condition_size,
                "hidden_size": self.hidden_size, "kind": self.kind, **options}

    def forward(self, x, condition, mask=None, *, condition_mask=None, lengths=None, training=False, draw=None,
                cache=True):
        """x (B,T,D), condition (B,C) -> y (B,T,output_size), 0 at masked steps; cache.

        mask, lengths, training, draw, cache    as for ``LSTM``
        condition, condition_mask               of "attend_conditions": (B,M,C), and (B,M) bool, True = a real vector

        A condition is read where its sequence has a real step; what is not a finite number there shows in y, as NaN.
        Raises TypeError or ValueError for what does not fit."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "D"))
        mask = mask_of(x, mask, lengths)
        keeps = flag("cache", cache)
        told = {"condition": condition, "mask": mask, "cache": keeps}
        if self.strategy == "attend_conditions":
            told["condition_mask"] = condition_mask
        elif condition_mask is not None:
            raise ValueError(f"condition_mask: expected None with {self.strategy!r}, which has one condition for a "
                             f"sequence, got {describe(condition_mask)}")
        initial, row_biases, part = {}, (), None
        y = x
        if self.place == "before":
            y, part = self.condition.forward(x, **told)
        if self.place == "within":
            condition = condition_of(condition, self.condition_size, self.dtype, mask)
            (initial, row_biases), part = self.condition.forward(condition, keeps)
        states = {f"{state}0": None for state in self.recurrent.cell.states}
        (y, *_), run = self.recurrent._forward(y, mask, None, states | initial, "zero", training, draw, keeps,
                                               row_biases)
        if self.place == "behind":
            y, part = self.condition.forward(y, **told)
        return y, Cache(self.identity, run, part, mask) if keeps else None

    def backward(self, cache, dy):
        """The gradient of y -> ConditionedGradients(dx (B,T,D), dcondition, as the condition is); adds to ``grads``.

        dx is 0 at masked steps, dcondition where no real step reads it."""
        _, run, part, mask = own_cache(cache, Cache, self.identity)
        dy = floats("dy", dy, self.dtype, (*mask.shape, self.output_size), ("B", "T", "F"))
        if self.place == "behind":
            dy, dcondition = self.condition.backward(part, dy)              # y, part = condition.forward(y, ...)
        states = self.recurrent.cell.states
        dx, *d_rest = self.recurrent._backward(run, dy, {f"d{state}_n": None for state in states})
        if self.place == "within":                                          # initial, row_biases = condition.forward()
            dcondition = self.condition.backward(part, d_rest[:len(states)], d_rest[len(states):])
        if self.place == "before":
            dx, dcondition = self.condition.backward(part, dx)              # y, part = condition.forward(x, ...)
        return ConditionedGradients(dx, dcondition)

    def _begin_like(self, wide):
        """Take the initial weights of a net that reads [x, c]: its columns for c are those of the gates' biases."""
        for name, p in wide.params.items():
            columns = name.removeprefix("weight_ih_")
            if columns in self.condition.branches:
                self.condition.branches[columns].params["weight"] = frozen(p[:, self.input_size:])
                p = p[:, :self.input_size]
            self.recurrent.params[name] = frozen(p)


def _known(layer_class, options):
    """The options, if all are those of this class."""
    known = [name for name in inspect.signature(layer_class).parameters
             if name not in ("input_size", "covariate_size", "hidden_size", "dtype", "backend", "seed")]
    if unknown := sorted(options.keys() - set(known)):
        raise TypeError(f"{', '.join(unknown)}: expected options of {layer_class.__name__}, {', '.join(known)}")
    return options
