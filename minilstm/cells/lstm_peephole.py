"""The LSTM with peepholes: its gates also see the memory.

The LSTM of ``lstm.py``, with three numbers p_i, p_f, p_o for each unit, from its own memory to its own gates:

    a = x @ W.T + b_ih + h_prev @ U.T + b_hh        four blocks a_i a_f a_g a_o

    i = sigmoid(a_i + p_i * c_prev)                 sees the old memory
    f = sigmoid(a_f + p_f * c_prev)                 sees the old memory
    g = tanh(a_g)
    c = f * c_prev + i * g
    o = sigmoid(a_o + p_o * c)                      sees the new memory
    h = o * tanh(c)

    p_i, p_f, p_o (H,), kept as one array own (3,H)

Beside the LSTM: h alone hides the memory while the output gate is shut; with peepholes the gates can time themselves by
it all the same.

Source: F. Gers and J. Schmidhuber, Recurrent Nets that Time and Count, 2000.  ONNX has this cell (its P holds p_i, p_o,
p_f); PyTorch and Keras have not.
"""
import numpy as np

from .activations import d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .lstm import Step
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward(a_i, a_f, a_g, a_o, p_i, p_f, p_o, c_prev):
    """The gates, then the new state: i, f, g, o, h, c."""
    i = sigmoid(a_i + p_i * c_prev)
    f = sigmoid(a_f + p_f * c_prev)
    g = tanh(a_g)
    c = f * c_prev + i * g
    o = sigmoid(a_o + p_o * c)
    h = o * tanh(c)
    return i, f, g, o, h, c


@formula
def backward(i, f, g, o, p_i, p_f, p_o, c_prev, c, dh, dc):
    """The gradients da_i, da_f, da_g, da_o, dp_i, dp_f, dp_o, dc_prev."""
    tanh_c = tanh(c)
    do = dh * tanh_c                            # h = o * tanh(c)
    da_o = do * d_sigmoid(o)                    # o = sigmoid(a_o + p_o * c)
    dp_o = da_o * c                             # o = sigmoid(a_o + p_o * c)
    dc_total = dc + dh * o * d_tanh(tanh_c) + da_o * p_o        # h = o * tanh(c), o = sigmoid(a_o + p_o * c)
    df = dc_total * c_prev                      # c = f * c_prev + i * g
    di = dc_total * g                           # c = f * c_prev + i * g
    dg = dc_total * i                           # c = f * c_prev + i * g
    da_g = dg * d_tanh(g)                       # g = tanh(a_g)
    da_f = df * d_sigmoid(f)                    # f = sigmoid(a_f + p_f * c_prev)
    dp_f = da_f * c_prev                        # f = sigmoid(a_f + p_f * c_prev)
    da_i = di * d_sigmoid(i)                    # i = sigmoid(a_i + p_i * c_prev)
    dp_i = da_i * c_prev                        # i = sigmoid(a_i + p_i * c_prev)
    dc_prev = dc_total * f + da_f * p_f + da_i * p_i            # c = ..., f = sigmoid(...), i = sigmoid(...)
    return da_i, da_f, da_g, da_o, dp_i, dp_f, dp_o, dc_prev


# ------------------------------------------------------------------------------------------------ one layer, one step

def step(weights, x, h_prev, c_prev):
    """One step of a whole layer.  x (B,D), h_prev and c_prev (B,H) -> (h, c), Step."""
    a_x, a_h = products(weights, x, h_prev)
    a = a_x + a_h
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    p_i, p_f, p_o = weights.own
    i, f, g, o, h, c = forward(a_i, a_f, a_g, a_o, p_i, p_f, p_o, c_prev)
    return (h, c), Step(x, h_prev, c_prev, i, f, g, o, c)


def step_backward(weights, saved, dh, dc):
    """The reverse of ``step``.  dh, dc (B,H) -> dx (B,D), (dh_prev, dc_prev), Weights of gradients."""
    x, h_prev, c_prev, i, f, g, o, c = saved
    p_i, p_f, p_o = weights.own
    da_i, da_f, da_g, da_o, dp_i, dp_f, dp_o, dc_prev = backward(i, f, g, o, p_i, p_f, p_o, c_prev, c, dh, dc)
    d_own = np.stack([dp_i, dp_f, dp_o]).sum(axis=1)                        # p_i, p_f, p_o, the same for every row
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)                   # a_i, a_f, a_g, a_o = np.split(a)
    dx, dh_prev, d_weights = products_backward(weights, x, h_prev, da, da)  # a = a_x + a_h
    return dx, (dh_prev, dc_prev), d_weights._replace(own=d_own)


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit

@formula
def forward_row(a, own, before, after, gates):
    """a (4,H) pre-activations; own (3,H); before, after (2,H): h and c at the two ends of the step; gates (4,H).
    Fills ``after`` and ``gates``."""
    for j in range(a.shape[1]):
        gates[0, j], gates[1, j], gates[2, j], gates[3, j], after[0, j], after[1, j] = forward(
            a[0, j], a[1, j], a[2, j], a[3, j], own[0, j], own[1, j], own[2, j], before[1, j])


@formula
def backward_row(gates, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (4,H), adds to d_own (3,H); d_state (2,H) as in ``lstm.py``."""
    for j in range(da.shape[1]):
        da[0, j], da[1, j], da[2, j], da[3, j], dp_i, dp_f, dp_o, d_state[1, j] = backward(
            gates[0, j], gates[1, j], gates[2, j], gates[3, j], own[0, j], own[1, j], own[2, j],
            before[1, j], after[1, j], d_state[0, j], d_state[1, j])
        d_own[0, j] += dp_i
        d_own[1, j] += dp_f
        d_own[2, j] += dp_o
        d_state[0, j] = 0


LSTM_PEEPHOLE_CELL = Cell(
    name="LSTM with peepholes", blocks=("i", "f", "g", "o"), states=("h", "c"), saved=("i", "f", "g", "o"),
    own=("p_i", "p_f", "p_o"), step=step, step_backward=step_backward, forward_row=forward_row,
    backward_row=backward_row)
