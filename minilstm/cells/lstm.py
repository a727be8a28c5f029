"""The LSTM: long short-term memory with forget gates.

One step takes the input x and the state (h_prev, c_prev) to the new state (h, c):

    a = x @ W.T + b_ih + h_prev @ U.T + b_hh        pre-activations, four blocks a_i a_f a_g a_o

    i = sigmoid(a_i)                                input gate: how much of the candidate is written
    f = sigmoid(a_f)                                forget gate: how much of the old memory is kept
    g = tanh(a_g)                                   candidate: what would be written
    o = sigmoid(a_o)                                output gate: how much of the memory is shown
    c = f * c_prev + i * g                          memory
    h = o * tanh(c)                                 output

    B  batch      D  input features      H  hidden units
    x (B,D)      h, c, i, f, g, o, a_i ... (B,H)      a (B,4H)      W (4H,D)      U (4H,H)      b_ih, b_hh (4H,)
    dX is the gradient of the loss with respect to X and has the shape of X.

The path c_prev -> c has no weight and no squashing on it, only the factor f: a gradient that travels along it is
neither blown up nor squeezed while f is near 1.  That is the point of the cell.

Sources: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997 (memory cell, input and
output gates); F. Gers, J. Schmidhuber and F. Cummins, Learning to Forget, Neural Computation 12(10), 2000 (the forget
gate).  Block order i, f, g, o and the two biases are PyTorch's.
"""
from typing import NamedTuple

import numpy as np

from .activations import d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------- one unit, one step
# @formula: plain Python here, and compiled into the loops of the fast backends (activations.py)

@formula
def forward(a_i, a_f, a_g, a_o, c_prev):
    """The gates, then the new state: i, f, g, o, h, c.  On scalars, or on arrays of one shape."""
    i = sigmoid(a_i)
    f = sigmoid(a_f)
    g = tanh(a_g)
    o = sigmoid(a_o)
    c = f * c_prev + i * g
    h = o * tanh(c)
    return i, f, g, o, h, c


@formula
def backward(i, f, g, o, c_prev, c, dh, dc):
    """The gradients da_i, da_f, da_g, da_o, dc_prev, from the activated gates and the gradients dh, dc.

    dc comes from the later steps alone; what h = o * tanh(c) adds to it is added here.  tanh(c) is computed again, so
    that a step has one array less to keep.  The forget gate's derivative is the pair of lines df and da_f."""
    tanh_c = tanh(c)
    do = dh * tanh_c                            # h = o * tanh(c)
    dc_total = dc + dh * o * d_tanh(tanh_c)     # h = o * tanh(c)
    df = dc_total * c_prev                      # c = f * c_prev + i * g
    dc_prev = dc_total * f                      # c = f * c_prev + i * g
    di = dc_total * g                           # c = f * c_prev + i * g
    dg = dc_total * i                           # c = f * c_prev + i * g
    da_i = di * d_sigmoid(i)                    # i = sigmoid(a_i)
    da_f = df * d_sigmoid(f)                    # f = sigmoid(a_f)
    da_g = dg * d_tanh(g)                       # g = tanh(a_g)
    da_o = do * d_sigmoid(o)                    # o = sigmoid(a_o)
    return da_i, da_f, da_g, da_o, dc_prev


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,H)
    c_prev: np.ndarray      # (B,H)
    i: np.ndarray           # (B,H), like f, g, o
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    c: np.ndarray           # (B,H)


def step(weights, x, h_prev, c_prev):
    """One step of a whole layer.  x (B,D), h_prev and c_prev (B,H) -> (h, c), Step."""
    a_x, a_h = products(weights, x, h_prev)
    a = a_x + a_h
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    i, f, g, o, h, c = forward(a_i, a_f, a_g, a_o, c_prev)
    return (h, c), Step(x, h_prev, c_prev, i, f, g, o, c)


def step_backward(weights, saved, dh, dc):
    """The reverse of ``step``.  dh, dc (B,H) -> dx (B,D), (dh_prev, dc_prev), Weights of gradients."""
    x, h_prev, c_prev, i, f, g, o, c = saved
    da_i, da_f, da_g, da_o, dc_prev = backward(i, f, g, o, c_prev, c, dh, dc)       # i, ..., c = forward(a_i, ...)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)                           # a_i, a_f, a_g, a_o = np.split(a)
    dx, dh_prev, d_weights = products_backward(weights, x, h_prev, da, da)          # a = a_x + a_h
    return dx, (dh_prev, dc_prev), d_weights


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit

@formula
def forward_row(a, own, before, after, gates):
    """a (4,H) pre-activations; before, after (2,H): h and c at the two ends of the step; gates (4,H): i, f, g, o.
    Fills ``after`` and ``gates``.  own: of no use here, an LSTM has none (``cell.py``)."""
    for j in range(a.shape[1]):
        gates[0, j], gates[1, j], gates[2, j], gates[3, j], after[0, j], after[1, j] = forward(
            a[0, j], a[1, j], a[2, j], a[3, j], before[1, j])


@formula
def backward_row(gates, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (4,H).  own, d_own: of no use here.

    d_state (2,H): on entry dh and dc of ``after``, on return those of ``before`` but for what goes through the product
    with U, which the caller adds.  All of dh goes that way, so its row returns 0."""
    for j in range(da.shape[1]):
        da[0, j], da[1, j], da[2, j], da[3, j], d_state[1, j] = backward(
            gates[0, j], gates[1, j], gates[2, j], gates[3, j], before[1, j], after[1, j], d_state[0, j], d_state[1, j])
        d_state[0, j] = 0


LSTM_CELL = Cell(
    name="LSTM", blocks=("i", "f", "g", "o"), states=("h", "c"), saved=("i", "f", "g", "o"),
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row)
