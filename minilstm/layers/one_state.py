"""The layers with one state: GRU and the simple RNN."""
from typing import NamedTuple

import numpy as np

from .. import cells
from ..arguments import flag, one_of
from .recurrent import Recurrent


class Output(NamedTuple):
    """What ``forward`` returns.  B batch, T steps, H hidden units, dirs 1 or 2."""
    y: np.ndarray           # (B,T,dirs*H)        h of the top layer at every step; merged (B,T,H)
    h_n: np.ndarray         # (layers,dirs,B,H)   h after the last real step of each row


class Gradients(NamedTuple):
    """What ``backward`` returns."""
    dx: np.ndarray          # (B,T,D)
    dh0: np.ndarray         # (layers,dirs,B,H)


class OneState(Recurrent):
    """The two verbs of a layer whose state is h alone."""

    def forward(self, x, mask=None, h0=None, *, masked_output="zero", lengths=None, training=False, draw=None,
                cache=True):
        """x (B,T,D) -> Output(y, h_n), cache.  The arguments, and the errors raised, are those of ``LSTM.forward``."""
        output, kept = self._forward(x, mask, lengths, {"h0": h0}, masked_output, training, draw, cache)
        return Output(*output), kept

    def backward(self, cache, dy=None, dh_n=None):
        """The gradients of y and h_n (None: zero), in their shapes -> dx (B,T,D), dh0; adds to ``grads``.

        dx is 0 at masked steps.  Raises ValueError if both are None, else as ``forward`` does."""
        return Gradients(*self._backward(cache, dy, {"dh_n": dh_n}))


class GRU(OneState):
    """Gated recurrent units over a batch of sequences.

    reset_after   True: the reset gate acts after the product with U, as in PyTorch and cuDNN (``cells/gru.py``);
                  False: before it, as first published (``cells/gru_reset_before.py``), another function of its weights;
                  not on a GPU
    layer_norm    sums normalised over the layer: ``cells/gru_layer_norm.py``; only with the reset after the product
    The other arguments are those of ``LSTM``."""

    def __init__(self, input_size, hidden_size, *, reset_after=True, layer_norm=False, num_layers=1,
                 bidirectional=False, reverse=False, merge="concat", dropout=0.0, recurrent_dropout=0.0, zoneout_h=0.0,
                 dtype="float32", backend="cpu", seed=0):
        if flag("layer_norm", layer_norm) and not flag("reset_after", reset_after):
            raise ValueError("layer_norm, reset_after: expected reset_after=True with layer normalisation, got False")
        cell = (cells.GRU_LAYER_NORM_CELL if layer_norm else
                cells.GRU_CELL if flag("reset_after", reset_after) else cells.GRU_RESET_BEFORE_CELL)
        super().__init__(cell, input_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional,
                         reverse=reverse, merge=merge, dropout=dropout, recurrent_dropout=recurrent_dropout,
                         zoneout=(zoneout_h,), dtype=dtype, backend=backend, seed=seed)

    def arguments(self):
        return super().arguments() | {"reset_after": self.cell != cells.GRU_RESET_BEFORE_CELL,
                                      "layer_norm": self.cell == cells.GRU_LAYER_NORM_CELL}


class RNN(OneState):
    """The simple recurrent net over a batch of sequences.  The equations are in ``minilstm/cells/rnn.py``.

    activation   "tanh" or "relu"; the other arguments are those of ``LSTM``"""

    def __init__(self, input_size, hidden_size, *, activation="tanh", num_layers=1, bidirectional=False, reverse=False,
                 merge="concat", dropout=0.0, recurrent_dropout=0.0, zoneout_h=0.0, dtype="float32", backend="cpu",
                 seed=0):
        one_of("activation", activation, ("tanh", "relu"))
        cell = cells.RNN_TANH_CELL if activation == "tanh" else cells.RNN_RELU_CELL
        super().__init__(cell, input_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional,
                         reverse=reverse, merge=merge, dropout=dropout, recurrent_dropout=recurrent_dropout,
                         zoneout=(zoneout_h,), dtype=dtype, backend=backend, seed=seed)

    def arguments(self):
        return super().arguments() | {"activation": "tanh" if self.cell == cells.RNN_TANH_CELL else "relu"}
