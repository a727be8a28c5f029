"""The LSTM with coupled gates: what is forgotten makes room for what is written.

The LSTM of ``lstm.py`` with f = 1 - i in place of a forget gate of its own:

    a = x @ W.T + b_ih + h_prev @ U.T + b_hh        three blocks a_i a_g a_o

    i = sigmoid(a_i)
    g = tanh(a_g)
    o = sigmoid(a_o)
    c = (1 - i) * c_prev + i * g                    a weighted mean: c stays between -1 and 1 if it starts there
    h = o * tanh(c)

Beside the LSTM: three blocks and not four, so a quarter less to compute and to learn.  Beside the GRU, whose z does the
same: still an output gate, and a memory apart from the output.

Source: K. Greff et al., LSTM: A Search Space Odyssey, 2015 ("coupled input and forget gate").  ONNX has this cell as
input_forget=1, and keeps a fourth, unused block.
"""
from typing import NamedTuple

import numpy as np

from .activations import ONE, d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward(a_i, a_g, a_o, c_prev):
    """The gates, then the new state: i, g, o, h, c."""
    i = sigmoid(a_i)
    g = tanh(a_g)
    o = sigmoid(a_o)
    c = (ONE - i) * c_prev + i * g
    h = o * tanh(c)
    return i, g, o, h, c


@formula
def backward(i, g, o, c_prev, c, dh, dc):
    """The gradients da_i, da_g, da_o, dc_prev."""
    tanh_c = tanh(c)
    do = dh * tanh_c                            # h = o * tanh(c)
    dc_total = dc + dh * o * d_tanh(tanh_c)     # h = o * tanh(c)
    di = dc_total * (g - c_prev)                # c = (1 - i) * c_prev + i * g
    dg = dc_total * i                           # c = (1 - i) * c_prev + i * g
    dc_prev = dc_total * (ONE - i)              # c = (1 - i) * c_prev + i * g
    da_i = di * d_sigmoid(i)                    # i = sigmoid(a_i)
    da_g = dg * d_tanh(g)                       # g = tanh(a_g)
    da_o = do * d_sigmoid(o)                    # o = sigmoid(a_o)
    return da_i, da_g, da_o, dc_prev


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,H)
    c_prev: np.ndarray      # (B,H)
    i: np.ndarray           # (B,H), like g, o
    g: np.ndarray
    o: np.ndarray
    c: np.ndarray           # (B,H)


def step(weights, x, h_prev, c_prev):
    """One step of a whole layer.  x (B,D), h_prev and c_prev (B,H) -> (h, c), Step."""
    a_x, a_h = products(weights, x, h_prev)
    a = a_x + a_h
    a_i, a_g, a_o = np.split(a, 3, axis=1)
    i, g, o, h, c = forward(a_i, a_g, a_o, c_prev)
    return (h, c), Step(x, h_prev, c_prev, i, g, o, c)


def step_backward(weights, saved, dh, dc):
    """The reverse of ``step``.  dh, dc (B,H) -> dx (B,D), (dh_prev, dc_prev), Weights of gradients."""
    x, h_prev, c_prev, i, g, o, c = saved
    da_i, da_g, da_o, dc_prev = backward(i, g, o, c_prev, c, dh, dc)        # i, g, o, h, c = forward(a_i, ...)
    da = np.concatenate([da_i, da_g, da_o], axis=1)                         # a_i, a_g, a_o = np.split(a)
    dx, dh_prev, d_weights = products_backward(weights, x, h_prev, da, da)  # a = a_x + a_h
    return dx, (dh_prev, dc_prev), d_weights


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit

@formula
def forward_row(a, own, before, after, gates):
    """a (3,H) pre-activations; before, after (2,H): h and c at the two ends of the step; gates (3,H): i, g, o.
    Fills ``after`` and ``gates``."""
    for j in range(a.shape[1]):
        gates[0, j], gates[1, j], gates[2, j], after[0, j], after[1, j] = forward(
            a[0, j], a[1, j], a[2, j], before[1, j])


@formula
def backward_row(gates, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (3,H); d_state (2,H) as in ``lstm.py``."""
    for j in range(da.shape[1]):
        da[0, j], da[1, j], da[2, j], d_state[1, j] = backward(
            gates[0, j], gates[1, j], gates[2, j], before[1, j], after[1, j], d_state[0, j], d_state[1, j])
        d_state[0, j] = 0


LSTM_COUPLED_CELL = Cell(
    name="LSTM with coupled gates", blocks=("i", "g", "o"), states=("h", "c"), saved=("i", "g", "o"),
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row)
