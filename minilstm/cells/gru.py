"""The GRU: a gated recurrent unit, reset after the product, as in cuDNN and PyTorch.

One step takes the input x and the state h_prev to the new state h:

    a_x = x @ W.T + b_ih            what the input says,       three blocks a_xr a_xz a_xn
    a_h = h_prev @ U.T + b_hh       what the old state says,   three blocks a_hr a_hz a_hn

    r = sigmoid(a_xr + a_hr)                        reset gate: how much the candidate hears of the old state
    z = sigmoid(a_xz + a_hz)                        update gate: how much of the old state is kept
    n = tanh(a_xn + r * a_hn)                       candidate
    h = (1 - z) * n + z * h_prev                    new state, and output

    B  batch      D  input features      H  hidden units
    x (B,D)      h, r, z, n, a_xr ... (B,H)      a_x, a_h (B,3H)      W (3H,D)      U (3H,H)      b_ih, b_hh (3H,)

Beside the LSTM: one state and not two, three blocks and not four, and z does the work of both i = 1 - z and f = z.  The
candidate needs the two parts of its pre-activation apart, since r stands between them, so its two biases are not
one bias written twice.

Sources: K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014 (the cell, with the reset before
the product: ``gru_reset_before.py``; there z and 1 - z have changed places); J. Appleyard, T. Kocisky and P. Blunsom,
Optimizing Performance of Recurrent Neural Networks on GPUs, 2016 (this form, one product a step).  Block order r, z, n
is PyTorch's.
"""
from typing import NamedTuple

import numpy as np

from .activations import ONE, d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .products import products, products_backward


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward(a_r, a_z, a_xn, a_hn, h_prev):
    """The gates, then the new state: r, z, n, h.  a_r = a_xr + a_hr, a_z = a_xz + a_hz."""
    r = sigmoid(a_r)
    z = sigmoid(a_z)
    n = tanh(a_xn + r * a_hn)
    h = (ONE - z) * n + z * h_prev
    return r, z, n, h


@formula
def backward(r, z, n, a_hn, h_prev, dh):
    """The gradients da_r, da_z, da_xn, da_hn, and dh_direct, the part of dh_prev that does not go through a_h."""
    dz = dh * (h_prev - n)                      # h = (1 - z) * n + z * h_prev
    dn = dh * (ONE - z)                         # h = (1 - z) * n + z * h_prev
    dh_direct = dh * z                          # h = (1 - z) * n + z * h_prev
    da_xn = dn * d_tanh(n)                      # n = tanh(a_xn + r * a_hn)
    da_hn = da_xn * r                           # n = tanh(a_xn + r * a_hn)
    dr = da_xn * a_hn                           # n = tanh(a_xn + r * a_hn)
    da_z = dz * d_sigmoid(z)                    # z = sigmoid(a_z)
    da_r = dr * d_sigmoid(r)                    # r = sigmoid(a_r)
    return da_r, da_z, da_xn, da_hn, dh_direct


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,H)
    r: np.ndarray           # (B,H), like z, n, a_hn
    z: np.ndarray
    n: np.ndarray
    a_hn: np.ndarray


def step(weights, x, h_prev):
    """One step of a whole layer.  x (B,D), h_prev (B,H) -> (h,), Step."""
    a_x, a_h = products(weights, x, h_prev)
    a_xr, a_xz, a_xn = np.split(a_x, 3, axis=1)
    a_hr, a_hz, a_hn = np.split(a_h, 3, axis=1)
    r, z, n, h = forward(a_xr + a_hr, a_xz + a_hz, a_xn, a_hn, h_prev)
    return (h,), Step(x, h_prev, r, z, n, a_hn)


def step_backward(weights, saved, dh):
    """The reverse of ``step``.  dh (B,H) -> dx (B,D), (dh_prev,), Weights of gradients."""
    x, h_prev, r, z, n, a_hn = saved
    da_r, da_z, da_xn, da_hn, dh_direct = backward(r, z, n, a_hn, h_prev, dh)   # r, z, n, h = forward(a_xr + ...)
    da_x = np.concatenate([da_r, da_z, da_xn], axis=1)                          # a_xr, a_xz, a_xn = np.split(a_x)
    da_h = np.concatenate([da_r, da_z, da_hn], axis=1)                          # a_hr, a_hz, a_hn = np.split(a_h)
    dx, dh_through_a, d_weights = products_backward(weights, x, h_prev, da_x, da_h)     # a_x, a_h = products(...)
    dh_prev = dh_direct + dh_through_a
    return dx, (dh_prev,), d_weights


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit

@formula
def forward_row(a, own, before, after, saved):
    """a (6,H): a_x and below it a_h; before, after (1,H): h at the two ends of the step; saved (4,H): r, z, n, a_hn.
    Fills ``after`` and ``saved``."""
    for j in range(a.shape[1]):
        saved[0, j], saved[1, j], saved[2, j], after[0, j] = forward(
            a[0, j] + a[3, j], a[1, j] + a[4, j], a[2, j], a[5, j], before[0, j])
        saved[3, j] = a[5, j]


@formula
def backward_row(saved, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (6,H).

    d_state (1,H): on entry dh of ``after``, on return dh of ``before`` but for what goes through the product with U,
    which the caller adds."""
    for j in range(da.shape[1]):
        da_r, da_z, da[2, j], da[5, j], d_state[0, j] = backward(
            saved[0, j], saved[1, j], saved[2, j], saved[3, j], before[0, j], d_state[0, j])
        da[0, j], da[3, j] = da_r, da_r
        da[1, j], da[4, j] = da_z, da_z


GRU_CELL = Cell(
    name="GRU", blocks=("r", "z", "n"), states=("h",), saved=("r", "z", "n", "a_hn"), apart=True,
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row)
