"""The LSTM layer, with its variants."""
from typing import NamedTuple

import numpy as np

from .. import cells
from ..arguments import flag, natural
from .recurrent import Recurrent


class LSTMOutput(NamedTuple):
    """What ``LSTM.forward`` returns.  B batch, T steps, H hidden units, R width of h, dirs 1 or 2."""
    y: np.ndarray           # (B,T,dirs*R)        h of the top layer at every step; merged (B,T,R)
    h_n: np.ndarray         # (layers,dirs,B,R)   h after the last real step of each row
    c_n: np.ndarray         # (layers,dirs,B,H)   c after the last real step of each row


class LSTMGradients(NamedTuple):
    """What ``LSTM.backward`` returns."""
    dx: np.ndarray          # (B,T,D)
    dh0: np.ndarray         # (layers,dirs,B,R)
    dc0: np.ndarray         # (layers,dirs,B,H)


class LSTM(Recurrent):
    """Long short-term memory over a batch of sequences.  The equations are in ``minilstm/cells/lstm.py``.

    input_size      D, features of one step
    hidden_size     H, units of a layer in one direction
    num_layers      layers on top of each other, each reading the y of the one below
    bidirectional   also walk every sequence from its end
    reverse         walk it from its end only: y at a step has seen that step and all later ones
    merge           of two directions, for y and for the layer above: "concat", "sum", "ave" or "mul" (``merge.py``)
    peephole        gates also see the memory: ``minilstm/cells/lstm_peephole.py``
    coupled         1 - i in place of a forget gate: ``minilstm/cells/lstm_coupled.py``
    layer_norm      sums and memory normalised over the layer: ``minilstm/cells/lstm_layer_norm.py``
    proj_size       R > 0: h is R mixtures of the units: ``minilstm/cells/lstm_projection.py``; 0: R = H.  At most one
                    of these four
    dropout, recurrent_dropout, zoneout_h, zoneout_c
                    probabilities: of a number between two layers to be 0; of a unit of h to be 0 where U reads it, in a
                    whole sequence; of a unit of h, or of c, to stay as it was in one step (``noise.py``).  Nothing is
                    drawn outside training
    dtype           "float32" or "float64"
    backend         "cpu" (compiled), "reference" (plain NumPy) or "gpu" (a CUDA GPU, float32 only).  On a GPU inputs
                    may be NumPy arrays or arrays that are there already, outputs and gradients are DeviceArrays
                    (``layer.py``).  layer_norm, proj_size, recurrent_dropout and zoneout are not for it: forward raises
                    ValueError
    seed            of the initial weights: Glorot uniform W, orthogonal U, forget bias and gains 1, all else 0; None:
                    all 0.  Also of what is drawn in training.  Layers of one kind, size and seed begin with the same
                    weights: give those of one model different seeds.
    """

    def __init__(self, input_size, hidden_size, *, num_layers=1, bidirectional=False, reverse=False, merge="concat",
                 peephole=False, coupled=False, layer_norm=False, proj_size=0, dropout=0.0, recurrent_dropout=0.0,
                 zoneout_h=0.0, zoneout_c=0.0, dtype="float32", backend="cpu", seed=0):
        variants = {"peephole": (flag("peephole", peephole), cells.LSTM_PEEPHOLE_CELL),
                    "coupled": (flag("coupled", coupled), cells.LSTM_COUPLED_CELL),
                    "layer_norm": (flag("layer_norm", layer_norm), cells.LSTM_LAYER_NORM_CELL),
                    "proj_size": (natural("proj_size", proj_size) > 0, cells.LSTM_PROJECTION_CELL)}
        chosen = {name: cell for name, (wanted, cell) in variants.items() if wanted}
        if len(chosen) > 1:
            raise ValueError(f"{', '.join(chosen)}: expected at most one of {', '.join(variants)}, got {len(chosen)}")
        cell = next(iter(chosen.values()), cells.LSTM_CELL)
        super().__init__(cell, input_size, hidden_size, proj_size=proj_size, num_layers=num_layers,
                         bidirectional=bidirectional, reverse=reverse, merge=merge, dropout=dropout,
                         recurrent_dropout=recurrent_dropout, zoneout=(zoneout_h, zoneout_c), dtype=dtype,
                         backend=backend, seed=seed)

    def arguments(self):
        return super().arguments() | {"peephole": self.cell == cells.LSTM_PEEPHOLE_CELL,
                                      "coupled": self.cell == cells.LSTM_COUPLED_CELL,
                                      "layer_norm": self.cell == cells.LSTM_LAYER_NORM_CELL,
                                      "proj_size": self.proj_size}

    def forward(self, x, mask=None, h0=None, c0=None, *, masked_output="zero", lengths=None, training=False,
                draw=None, cache=True):
        """x (B,T,D) -> LSTMOutput(y, h_n, c_n), cache.

        mask            (B,T) bool, True = a real step; any pattern.  On a masked step h and c are carried bit for bit,
                        and whatever x holds there, NaN included, is never read.
        lengths         (B,) integers, instead of a mask: the first so many steps are real
        h0, c0          (layers,dirs,B,R) and (layers,dirs,B,H), zeros if not given
        masked_output   y at a masked step: "zero", or "hold" for the last real output (0 before the first one)
        training        True: dropout and zoneout are drawn
        draw            the number of the draw, to repeat one; None takes the next
        cache           False: keep nothing for a backward pass, which is faster, and return None in its place

        An infinite real input, or initial state of a row that has a real step, counts as NaN: it would only saturate
        the gates, and nobody would see it.
        Raises TypeError for another dtype or kind of array, ValueError for another shape or value."""
        output, kept = self._forward(x, mask, lengths, {"h0": h0, "c0": c0}, masked_output, training, draw, cache)
        return LSTMOutput(*output), kept

    def backward(self, cache, dy=None, dh_n=None, dc_n=None):
        """The gradients of y, h_n and c_n (None: zero), in their shapes -> dx (B,T,D), dh0, dc0; adds to ``grads``.

        dx is 0 at masked steps.  Raises ValueError if all three are None, else as ``forward`` does."""
        return LSTMGradients(*self._backward(cache, dy, {"dh_n": dh_n, "dc_n": dc_n}))
