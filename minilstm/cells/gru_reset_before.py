"""The GRU as first published: reset before the product.

The GRU of ``gru.py``, but the reset gate acts on the old state itself, and not on what U makes of it:

    a_x = x @ W.T + b_ih                            three blocks a_xr a_xz a_xn;  likewise U and b_hh: U_r U_z U_n ...

    r = sigmoid(a_xr + h_prev @ U_r.T + b_hr)       reset gate
    z = sigmoid(a_xz + h_prev @ U_z.T + b_hz)       update gate
    v = r * h_prev                                  what the candidate hears of the old state
    n = tanh(a_xn + v @ U_n.T + b_hn)               candidate
    h = (1 - z) * n + z * h_prev

    v (B,H); all else as in ``gru.py``

Beside ``gru.py``: a gate can hide a unit from all others, where there it only scales what reaches its own unit; the
price is a second product inside the step, which has to wait for the first.  The two are different functions: weights
of one are of no use to the other, unless U_n is diagonal and b_hn zero.  Here the two biases of n do add up to one.

Source: K. Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, 2014, equations 5 to 8, with z and
1 - z in each other's places.  Keras has it as reset_after=False, ONNX as linear_before_reset=0, its default.
"""
from typing import NamedTuple

import numpy as np

from .activations import ONE, d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .products import heard, shift_backward, shifted, zeros_like


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward_gates(a_r, a_z, h_prev):
    """Before the second product: r, z, v."""
    r = sigmoid(a_r)
    z = sigmoid(a_z)
    v = r * h_prev
    return r, z, v


@formula
def forward_state(a_n, z, h_prev):
    """After it: n, h."""
    n = tanh(a_n)
    h = (ONE - z) * n + z * h_prev
    return n, h


@formula
def backward_state(z, n, h_prev, dh):
    """The reverse of ``forward_state``: da_z, da_n, and dh_from_h, the part of dh_prev that comes from h itself."""
    dz = dh * (h_prev - n)                      # h = (1 - z) * n + z * h_prev
    dn = dh * (ONE - z)                         # h = (1 - z) * n + z * h_prev
    dh_from_h = dh * z                          # h = (1 - z) * n + z * h_prev
    da_n = dn * d_tanh(n)                       # n = tanh(a_n)
    da_z = dz * d_sigmoid(z)                    # z = sigmoid(a_z)
    return da_z, da_n, dh_from_h


@formula
def backward_gates(r, h_prev, dv):
    """The reverse of v in ``forward_gates``: da_r, and dh_from_v, the part of dh_prev that comes from v."""
    dr = dv * h_prev                            # v = r * h_prev
    dh_from_v = dv * r                          # v = r * h_prev
    da_r = dr * d_sigmoid(r)                    # r = sigmoid(a_r)
    return da_r, dh_from_v


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,H), like all below
    r: np.ndarray
    z: np.ndarray
    v: np.ndarray
    n: np.ndarray


def step(weights, x, h_prev):
    """One step of a whole layer.  x (B,D), h_prev (B,H) -> (h,), Step."""
    U_r, U_z, U_n = np.split(weights.U, 3)
    s_x = shifted(weights, x @ weights.W.T)
    a_r, a_z, a_n = np.split(s_x + weights.b_ih + weights.b_hh, 3, axis=1)
    a_r = a_r + heard(weights, h_prev) @ U_r.T
    a_z = a_z + heard(weights, h_prev) @ U_z.T
    r, z, v = forward_gates(a_r, a_z, h_prev)
    a_n = a_n + heard(weights, v) @ U_n.T
    n, h = forward_state(a_n, z, h_prev)
    return (h,), Step(x, h_prev, r, z, v, n)


def step_backward(weights, saved, dh):
    """The reverse of ``step``.  dh (B,H) -> dx (B,D), (dh_prev,), Weights of gradients."""
    U_r, U_z, U_n = np.split(weights.U, 3)
    x, h_prev, r, z, v, n = saved
    da_z, da_n, dh_from_h = backward_state(z, n, h_prev, dh)            # n, h = forward_state(a_n, z, h_prev)
    dv = heard(weights, da_n @ U_n)                                     # a_n = a_n + heard(weights, v) @ U_n.T
    dU_n = da_n.T @ heard(weights, v)                                   # a_n = a_n + heard(weights, v) @ U_n.T
    da_r, dh_from_v = backward_gates(r, h_prev, dv)                     # r, z, v = forward_gates(a_r, a_z, h_prev)
    dh_from_a = heard(weights, da_z @ U_z + da_r @ U_r)                 # a_z = a_z + heard(weights, h_prev) @ U_z.T
    h_heard = heard(weights, h_prev)
    dU_z, dU_r = da_z.T @ h_heard, da_r.T @ h_heard                     # a_z = a_z + heard(weights, h_prev) @ U_z.T
    da = np.concatenate([da_r, da_z, da_n], axis=1)                     # a_r, a_z, a_n = np.split(s_x + ...)
    db = da.sum(axis=0)                                                 # a_r, a_z, a_n = np.split(s_x + b_ih + b_hh)
    d_row_bias = shift_backward(weights, da)                            # s_x = shifted(weights, x @ W.T)
    dx = da @ weights.W                                                 # s_x = shifted(weights, x @ W.T)
    dW = da.T @ x                                                       # s_x = shifted(weights, x @ W.T)
    dU = np.concatenate([dU_r, dU_z, dU_n])                             # U_r, U_z, U_n = np.split(U, 3)
    d_weights = zeros_like(weights)._replace(W=dW, U=dU, b_ih=db, b_hh=db, row_bias=d_row_bias)
    dh_prev = dh_from_h + dh_from_v + dh_from_a
    return dx, (dh_prev,), d_weights


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit

@formula
def forward_row(a, own, before, after, saved):
    """Before the second product.  a (2,H): a_r, a_z; before (1,H): h_prev.  Fills r, z and v of saved (4,H)."""
    for j in range(a.shape[1]):
        saved[0, j], saved[1, j], saved[3, j] = forward_gates(a[0, j], a[1, j], before[0, j])


@formula
def second_forward_row(a, before, after, saved):
    """After it.  a (H,): a_n.  Fills n of saved (4,H), and after (1,H): h."""
    for j in range(a.shape[0]):
        saved[2, j], after[0, j] = forward_state(a[j], saved[1, j], before[0, j])


@formula
def second_backward_row(saved, before, d_state, da, da_n):
    """The reverse of ``second_forward_row``.  Fills da_n (H,), and da_z, the second row of da (2,H).

    d_state (1,H): on entry dh of ``after``, on return that part of dh of ``before`` that comes from h itself."""
    for j in range(da.shape[1]):
        da[1, j], da_n[j], d_state[0, j] = backward_state(saved[1, j], saved[2, j], before[0, j], d_state[0, j])


@formula
def backward_row(saved, own, before, after, d_state, da, d_own, dv):
    """The reverse of ``forward_row``.  dv (H,).  Fills da_r, the first row of da (2,H); adds to d_state (1,H) what
    comes from v."""
    for j in range(da.shape[1]):
        da[0, j], dh_from_v = backward_gates(saved[0, j], before[0, j], dv[j])
        d_state[0, j] += dh_from_v


GRU_RESET_BEFORE_CELL = Cell(
    name="GRU, reset before", blocks=("r", "z", "n"), states=("h",), saved=("r", "z", "n", "v"),
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row,
    second_forward_row=second_forward_row, second_backward_row=second_backward_row)
