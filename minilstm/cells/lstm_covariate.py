"""The LSTM with a covariate that has a candidate and an input gate of its own.

The LSTM of ``lstm.py`` reads x and, beside it, a covariate z, side by side: [x, z].  What the covariate says by itself
is a second candidate s, and a second input gate k decides at every step how much of it is written:

    a = [x, z] @ W.T + b_ih + h_prev @ U.T + b_hh       six blocks a_i a_f a_g a_o a_k a_s

    i, f, g, o          as in ``lstm.py``; they hear x, z and h_prev
    k = sigmoid(a_k)                                    the covariate's gate: hears x, z and h_prev as well
    s = tanh(a_s)                                       the covariate's candidate: hears z alone
    c = f * c_prev + i * g + k * s                      memory
    h = o * tanh(c)

    x (B,D)      z (B,C)      W (6H,D+C)      U (6H,H)      b_ih, b_hh (6H,);  i, f, g, o, k, s (B,H)

That s hears z alone is a matter of zeros in W and U: there are no parameters in these places (``free``), and what puts
the matrices together, ``joined``, writes zeros there.

Beside an LSTM that reads [x, z]: with k shut it is just that.  There one gate i admits what x and z propose together;
here the memory can take up the covariate at a step at which x is to be ignored.

After T.-H. Wen et al., Semantically Conditioned LSTM-based Natural Language Generation for Spoken Dialogue Systems,
2015, who add tanh(W d) of a covariate d to the memory; there the gate acts on d itself, and what it takes away is gone
for all later steps.
"""
from typing import NamedTuple

import numpy as np

from .activations import d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward(a_i, a_f, a_g, a_o, a_k, a_s, c_prev):
    """The gates, then the new state: i, f, g, o, k, s, h, c."""
    i = sigmoid(a_i)
    f = sigmoid(a_f)
    g = tanh(a_g)
    o = sigmoid(a_o)
    k = sigmoid(a_k)
    s = tanh(a_s)
    c = f * c_prev + i * g + k * s
    h = o * tanh(c)
    return i, f, g, o, k, s, h, c


@formula
def backward(i, f, g, o, k, s, c_prev, c, dh, dc):
    """The gradients da_i, da_f, da_g, da_o, da_k, da_s, dc_prev."""
    tanh_c = tanh(c)
    do = dh * tanh_c                            # h = o * tanh(c)
    dc_total = dc + dh * o * d_tanh(tanh_c)     # h = o * tanh(c)
    df = dc_total * c_prev                      # c = f * c_prev + i * g + k * s
    dc_prev = dc_total * f                      # c = f * c_prev + i * g + k * s
    di = dc_total * g                           # c = f * c_prev + i * g + k * s
    dg = dc_total * i                           # c = f * c_prev + i * g + k * s
    dk = dc_total * s                           # c = f * c_prev + i * g + k * s
    ds = dc_total * k                           # c = f * c_prev + i * g + k * s
    da_i = di * d_sigmoid(i)                    # i = sigmoid(a_i)
    da_f = df * d_sigmoid(f)                    # f = sigmoid(a_f)
    da_g = dg * d_tanh(g)                       # g = tanh(a_g)
    da_o = do * d_sigmoid(o)                    # o = sigmoid(a_o)
    da_k = dk * d_sigmoid(k)                    # k = sigmoid(a_k)
    da_s = ds * d_tanh(s)                       # s = tanh(a_s)
    return da_i, da_f, da_g, da_o, da_k, da_s, dc_prev


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D+C): x and z
    h_prev: np.ndarray      # (B,H), like all below
    c_prev: np.ndarray
    i: np.ndarray
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    k: np.ndarray
    s: np.ndarray
    c: np.ndarray


def step(weights, x, h_prev, c_prev):
    """One step of a whole layer.  x (B,D+C): x and z, h_prev and c_prev (B,H) -> (h, c), Step."""
    a_x, a_h = products(weights, x, h_prev)
    a = a_x + a_h
    a_i, a_f, a_g, a_o, a_k, a_s = np.split(a, 6, axis=1)
    i, f, g, o, k, s, h, c = forward(a_i, a_f, a_g, a_o, a_k, a_s, c_prev)
    return (h, c), Step(x, h_prev, c_prev, i, f, g, o, k, s, c)


def step_backward(weights, saved, dh, dc):
    """The reverse of ``step``.  dh, dc (B,H) -> dx (B,D+C), (dh_prev, dc_prev), Weights of gradients."""
    x, h_prev, c_prev, i, f, g, o, k, s, c = saved
    *da, dc_prev = backward(i, f, g, o, k, s, c_prev, c, dh, dc)            # i, ..., c = forward(a_i, ...)
    da = np.concatenate(da, axis=1)                                         # a_i, ..., a_s = np.split(a)
    dx, dh_prev, d_weights = products_backward(weights, x, h_prev, da, da)  # a = a_x + a_h
    return dx, (dh_prev, dc_prev), d_weights


# -------------------------------------------------------------------------------------------- weights without the zeros

def free(W, U, C):
    """The parts of W (6H,D+C) and U (6H,H), or of their gradients, that are parameters -> W_gates (5H,D+C), W_s (H,C),
    U_gates (5H,H)."""
    H = U.shape[1]
    return W[:5 * H], W[5 * H:, W.shape[1] - C:], U[:5 * H]


def joined(W_gates, W_s, U_gates):
    """The reverse of ``free`` -> W (6H,D+C), U (6H,H), with zeros where s does not hear."""
    H, C = W_s.shape
    W = np.zeros((6 * H, W_gates.shape[1]), W_gates.dtype)
    U = np.zeros((6 * H, H), U_gates.dtype)
    W[:5 * H], W[5 * H:, W.shape[1] - C:], U[:5 * H] = W_gates, W_s, U_gates
    return W, U


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit

@formula
def forward_row(a, own, before, after, saved):
    """a (6,H) pre-activations; before, after (2,H): h and c at the two ends of the step; saved (6,H): i, f, g, o, k, s.
    Fills ``after`` and ``saved``."""
    for j in range(a.shape[1]):
        saved[0, j], saved[1, j], saved[2, j], saved[3, j], saved[4, j], saved[5, j], after[0, j], after[1, j] = (
            forward(a[0, j], a[1, j], a[2, j], a[3, j], a[4, j], a[5, j], before[1, j]))


@formula
def backward_row(saved, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (6,H); d_state (2,H) as in ``lstm.py``."""
    for j in range(da.shape[1]):
        da[0, j], da[1, j], da[2, j], da[3, j], da[4, j], da[5, j], d_state[1, j] = backward(
            saved[0, j], saved[1, j], saved[2, j], saved[3, j], saved[4, j], saved[5, j], before[1, j], after[1, j],
            d_state[0, j], d_state[1, j])
        d_state[0, j] = 0


LSTM_COVARIATE_CELL = Cell(
    name="LSTM with a gated covariate", blocks=("i", "f", "g", "o", "k", "s"), states=("h", "c"),
    saved=("i", "f", "g", "o", "k", "s"), step=step, step_backward=step_backward, forward_row=forward_row,
    backward_row=backward_row)
