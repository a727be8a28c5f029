"""The LSTM with a projection, LSTMP: a wide memory behind a narrow output.

The LSTM of ``lstm.py``, whose output is not o * tanh(c) itself but R mixtures of it:

    a = x @ W.T + b_ih + h_prev @ U.T + b_hh        four blocks a_i a_f a_g a_o;  h_prev (B,R), so U is (4H,R)

    i, f, g, o, c       as in ``lstm.py``
    m = o * tanh(c)                                 what was the output there,  (B,H)
    h = m @ W_hr.T                                  output and first state,     (B,R)

    B  batch      D  input features      H  hidden units      R  width of h, less than H      W_hr (R,H)

Beside the LSTM: what the gates hear of the memory goes through U @ W_hr, a matrix of rank R that has 4HR + RH numbers
and not 4HH.  h is no longer bounded by 1.  The two states have different widths.

Source: H. Sak, A. Senior and F. Beaufays, Long Short-Term Memory Recurrent Neural Network Architectures for Large
Scale Acoustic Modeling, Interspeech 2014 (there with peepholes besides).  It is PyTorch's proj_size, with its
weight_hr; Keras and ONNX do not have it.
"""
from typing import NamedTuple

import numpy as np

from .activations import formula
from .cell import Cell
from .lstm import backward, forward
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------ one layer, one step
# one unit, one step: the formulas of lstm.py, with m in the place of h

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,R)
    c_prev: np.ndarray      # (B,H)
    i: np.ndarray           # (B,H), like all below
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    m: np.ndarray
    c: np.ndarray


def step(weights, x, h_prev, c_prev):
    """One step of a whole layer.  x (B,D), h_prev (B,R), c_prev (B,H) -> (h, c), Step."""
    a_x, a_h = products(weights, x, h_prev)
    a = a_x + a_h
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    i, f, g, o, m, c = forward(a_i, a_f, a_g, a_o, c_prev)
    h = m @ weights.W_hr.T
    return (h, c), Step(x, h_prev, c_prev, i, f, g, o, m, c)


def step_backward(weights, saved, dh, dc):
    """The reverse of ``step``.  dh (B,R), dc (B,H) -> dx (B,D), (dh_prev, dc_prev), Weights of gradients."""
    x, h_prev, c_prev, i, f, g, o, m, c = saved
    dm = dh @ weights.W_hr                                                          # h = m @ W_hr.T
    dW_hr = dh.T @ m                                                                # h = m @ W_hr.T
    da_i, da_f, da_g, da_o, dc_prev = backward(i, f, g, o, c_prev, c, dm, dc)       # i, ..., c = forward(a_i, ...)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)                           # a_i, a_f, a_g, a_o = np.split(a)
    dx, dh_prev, d_weights = products_backward(weights, x, h_prev, da, da)          # a = a_x + a_h
    return dx, (dh_prev, dc_prev), d_weights._replace(W_hr=dW_hr)


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit
# states (2,H): in the row of h only the first R columns are used

@formula
def forward_row(a, own, before, after, saved):
    """Before the product with W_hr.  a (4,H) pre-activations; before, after (2,H): h and c at the two ends of the step.
    Fills c of ``after``, and saved (5,H): i, f, g, o, m."""
    for j in range(a.shape[1]):
        saved[0, j], saved[1, j], saved[2, j], saved[3, j], saved[4, j], after[1, j] = forward(
            a[0, j], a[1, j], a[2, j], a[3, j], before[1, j])


@formula
def second_forward_row(h, before, after, saved):
    """After it.  h (R,) = W_hr @ m.  Fills h of ``after``."""
    for j in range(h.shape[0]):
        after[0, j] = h[j]


@formula
def second_backward_row(saved, before, d_state, da, dh):
    """The reverse of ``second_forward_row``.  Fills dh (R,) from d_state (2,H), in whose row of h it leaves 0: all of
    it goes through the products."""
    for j in range(dh.shape[0]):
        dh[j] = d_state[0, j]
        d_state[0, j] = 0


@formula
def backward_row(saved, own, before, after, d_state, da, d_own, dm):
    """The reverse of ``forward_row``.  dm (H,).  Fills da (4,H); d_state (2,H): dc of ``after`` on entry, of ``before``
    on return."""
    for j in range(da.shape[1]):
        da[0, j], da[1, j], da[2, j], da[3, j], d_state[1, j] = backward(
            saved[0, j], saved[1, j], saved[2, j], saved[3, j], before[1, j], after[1, j], dm[j], d_state[1, j])


LSTM_PROJECTION_CELL = Cell(
    name="LSTM with projection", blocks=("i", "f", "g", "o"), states=("h", "c"), saved=("i", "f", "g", "o", "m"),
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row,
    second_forward_row=second_forward_row, second_backward_row=second_backward_row, projects=True)
