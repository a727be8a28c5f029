"""The GRU-D layer: a GRU for series in which values are missing."""
from typing import NamedTuple

import numpy as np

from .. import cells
from ..arrays.host import finite_or_nan, select
from ..arguments import describe, flag, floats, mask_of, one_of, positive
from ..cells.gru_d import Imputed, impute, impute_backward
from ..sequences.missing import last_true, no_nan, time_since_seen
from ..sequences.shapes import observed_array
from .layer import Layer, stream
from .one_state import Gradients, Output
from .recurrent import PARAMETERS, Direction, initial_weights

FADING_AT_FIRST = 0.3, 0.1      # w_x, and the sum of a row of W_h: memories of some units of time


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    identity: tuple
    run: tuple              # the cache of recurrence.forward
    imputed: Imputed
    measured: np.ndarray    # (B,T,D) bool, at real steps alone
    source: np.ndarray      # (B,T,D): the last step at which a feature was measured, -1 for none
    mask: np.ndarray        # (B,T)
    masked_output: str


class GRUD(Layer):
    """A GRU over a batch of sequences with gaps.  The equations, and which of their variants these are, stand in
    ``minilstm/cells/gru_d.py``.

    input_size      D
    hidden_size     H
    mean            (D,) numbers, to which a feature fades while it is not measured: its mean in the training data
                    (``sequences.observed_mean``).  None: 0, for features from which the mean has been subtracted
    reset_after     False: the GRU of the paper; True: with the reset after the product, as in ``GRU``
    dtype, backend, seed        as for ``LSTM``

    params: those of a GRU that reads 2D features, [x_hat, m]; and decay_x_weight, decay_x_bias (D,) and decay_h_weight
    (H,D), decay_h_bias (H,) of the two fadings.  The biases begin at 0 and the weights well above it: at first inputs
    fade by a quarter in one unit of time, and the state by a tenth.  Where training brings a sum below 0 nothing fades,
    and nothing brings it back.

    In ``Sequential`` and ``fit`` NaN in x marks what is missing; ``observed`` and ``times`` cannot be passed there.
    """
    takes_mask = True
    needs_whole = "h carries neither what was last measured nor when"

    def __init__(self, input_size, hidden_size, *, mean=None, reset_after=False, dtype="float32", backend="cpu",
                 seed=0):
        super().__init__(dtype, backend)
        self.input_size = D = positive("input_size", input_size)
        self.hidden_size = self.output_size = H = positive("hidden_size", hidden_size)
        self.mean = numbers_of("mean", mean, D)
        self.cell = cells.GRU_D_RESET_AFTER_CELL if flag("reset_after", reset_after) else cells.GRU_D_CELL
        self.num_layers, self.directions, self.widths = 1, (Direction("", False),), (H,)    # as ``Recurrent`` has them
        self.identity = (self.cell.name, D, H)
        initial = initial_weights(self.cell, 2 * D, H, H, stream(seed, *self.identity))
        for field in ("W", "U", "b_ih", "b_hh"):
            self._own(f"{PARAMETERS[field]}_l0", getattr(initial, field))
        w_x, W_h = (0, 0) if seed is None else FADING_AT_FIRST
        self._own("decay_x_weight", np.full(D, w_x))
        self._own("decay_x_bias", np.zeros(D))
        self._own("decay_h_weight", np.full((H, D), W_h / D))
        self._own("decay_h_bias", np.zeros(H))

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, "mean": self.mean.tolist(),
                "reset_after": self.cell == cells.GRU_D_RESET_AFTER_CELL}

    def forward(self, x, observed=None, mask=None, times=None, h0=None, *, masked_output="zero", lengths=None,
                cache=True):
        """x (B,T,D) -> Output(y (B,T,H), h_n (1,1,B,H)), cache.

        observed        (B,T,D) bool, True = was measured; None: all that is not NaN was.  Whatever x holds elsewhere is
                        never read
        times           (B,T) floats: when each step was, rising; None: real steps are one unit apart
        h0              (1,1,B,H), zeros if not given.  It carries h alone, not what was last measured and when: a
                        sequence in pieces is not the whole
        mask, lengths, masked_output, cache     as for ``LSTM``.  A step without any measurement is a step; a masked one
                        is none: no time goes by, unless ``times`` says so

        Raises TypeError for another dtype or kind of array, ValueError for another shape or value."""
        D, H = self.input_size, self.hidden_size
        x = floats("x", x, self.dtype, (None, None, D), ("B", "T", "D"))
        B = len(x)
        mask = mask_of(x, mask, lengths)
        one_of("masked_output", masked_output, ("zero", "hold"))
        flag("cache", cache)
        h0 = (np.zeros((1, 1, B, H), self.dtype) if h0 is None else
              floats("h0", h0, self.dtype, (1, 1, B, H), ("layers", "dirs", "B", "H")))
        h0 = finite_or_nan(h0[0, 0], mask.any(axis=1))
        measured = _measured(x, observed, mask)
        x = finite_or_nan(np.where(measured, x, 0))
        delta = time_since_seen(measured, mask, times, self.dtype.type(0).real.dtype).astype(self.dtype)
        source = last_true(measured)
        x_last = np.where(source >= 0, np.take_along_axis(x, np.maximum(source, 0), axis=1), self._mean)
        W_h = self._param("decay_h_weight")
        a_h = self._product(delta.reshape(-1, D), W_h.T, self._param("decay_h_bias")).reshape(*mask.shape, H)
        read, imputed = impute(x, measured, x_last, self._mean, delta, self._param("decay_x_weight"),
                               self._param("decay_x_bias"), a_h)
        read = select(read, mask)
        y, (h_n,), run = self._module("recurrence").forward(self.cell, self._weights(), read, mask, [h0],
                                                            caching=cache)
        if masked_output == "hold":
            y = self._module("masking").hold(y, mask)
        kept = Cache(self.identity, run, imputed, measured, source, mask, masked_output) if cache else None
        return Output(y, h_n[None, None].copy()), kept

    def backward(self, cache, dy=None, dh_n=None):
        """The gradients of y and h_n (None: zero), in their shapes -> dx (B,T,D), dh0; adds to ``grads``.

        dx is 0 where nothing was measured.  Raises ValueError if both are None, else as ``forward`` does."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        if cache.identity != self.identity:
            raise ValueError(f"cache: expected one of this layer, {self.identity}, got one of {cache.identity}")
        if dy is None and dh_n is None:
            raise ValueError("dy, dh_n: expected at least one gradient, got None for each")
        _, run, imputed, measured, source, mask, masked_output = cache
        (B, T), D, H = mask.shape, self.input_size, self.hidden_size
        dy = (np.zeros((B, T, H), self.dtype) if dy is None else
              floats("dy", dy, self.dtype, (B, T, H), ("B", "T", "H")))
        dh_n = (np.zeros((1, 1, B, H), self.dtype) if dh_n is None else
                floats("dh_n", dh_n, self.dtype, (1, 1, B, H), ("layers", "dirs", "B", "H")))
        if masked_output == "hold":
            dy = self._module("masking").hold_backward(dy, mask)                # y = hold(y)
        d_read, (dh0,), d_weights = self._module("recurrence").backward(run, dy, [dh_n[0, 0]])  # y, (h_n,), run = ...
        dx, dx_last, dw_x, db_x, da_h = impute_backward(imputed, measured, d_read)      # read, imputed = impute(...)
        da_h, delta = da_h.reshape(-1, H), imputed.delta.reshape(-1, D)
        dW_h, db_h = self._product(da_h.T, delta), da_h.sum(axis=0)         # a_h = delta @ W_h.T + b_h
        rows, steps, features = np.nonzero(source >= 0)
        taken_from = rows, source[rows, steps, features], features
        np.add.at(dx, taken_from, dx_last[rows, steps, features])           # x_last = x[source]
        self._add_grads({f"{PARAMETERS[field]}_l0": getattr(d_weights, field) for field in ("W", "U", "b_ih", "b_hh")})
        self._add_grads({"decay_x_weight": dw_x, "decay_x_bias": db_x, "decay_h_weight": dW_h, "decay_h_bias": db_h})
        return Gradients(dx, dh0[None, None].copy())

    def _weights(self):
        nothing = np.zeros((0, self.hidden_size), self.dtype)
        arrays = {field: self._param(f"{PARAMETERS[field]}_l0") for field in ("W", "U", "b_ih", "b_hh")}
        return cells.Weights(**arrays, own=nothing, W_hr=nothing)

    def _product(self, A, B, bias=None):
        return self._module("matmul").product(A, B, bias)

    @property
    def _mean(self):
        return self.mean.astype(self.dtype)


def _measured(x, observed, mask):
    """Where a value was measured at a real step: (B,T,D) bool."""
    if observed is None:
        return ~np.isnan(x) & mask[:, :, None]
    measured = observed_array(observed, x.shape) & mask[:, :, None]
    no_nan("x", x, measured, "wherever observed is True", "observed_of(x) is False where x is NaN")
    return measured


def numbers_of(name, value, D):
    """(D,) finite numbers, or None for zeros -> float64 (D,)."""
    if value is None:
        return np.zeros(D)
    try:
        found = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected (D={D},) numbers, got {describe(value)}") from None
    if found.shape != (D,) or not np.isfinite(found).all():
        raise ValueError(f"{name}: expected (D={D},) finite numbers, got {describe(found)}")
    return found
