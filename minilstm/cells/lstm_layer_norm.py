"""The LSTM with layer normalisation.

The LSTM of ``lstm.py``, but what input and state say is normalised over the layer before it is added, and so is the
memory before it is shown:

    s_x = x @ W.T                   s_h = h_prev @ U.T                              (B,4H)
    a   = normalise(s_x) * gain_x + b_ih  +  normalise(s_h) * gain_h + b_hh         four blocks a_i a_f a_g a_o

    i, f, g, o, c       as in ``lstm.py``
    n_c = normalise(c)
    h   = o * tanh(n_c * gain_c + b_c)

    gain_x, gain_h (4H,), gain_c, b_c (H,), kept as one array own (10,H);  normalise: ``normalise.py``, over all 4H
    numbers of a row of s_x or s_h at once, over the H numbers of a row of c

Beside the LSTM: the size of W, U and x no longer matters, within the limits that ``normalise.py`` states, only their
direction; a unit depends on all others of its layer within the step.  The path c_prev -> c stays as it was.

Source: J. Ba, J. Kiros and G. Hinton, Layer Normalization, 2016, supplementary material; b_ih and b_hh are their
two beta.  It is haste's LayerNormLSTM, which has one bias for these two.
"""
from typing import NamedTuple

import numpy as np

from .activations import d_sigmoid, d_tanh, formula, sigmoid, tanh
from .cell import Cell
from .normalise import moments, normalise, normalise_backward, normalise_row_backward
from .products import sums, sums_backward


# ------------------------------------------------------------------------------------------------- one unit, one step

@formula
def forward_memory(a_i, a_f, a_g, a_o, c_prev):
    """The gates, then the new memory: i, f, g, o, c."""
    i = sigmoid(a_i)
    f = sigmoid(a_f)
    g = tanh(a_g)
    o = sigmoid(a_o)
    c = f * c_prev + i * g
    return i, f, g, o, c


@formula
def forward_output(o, n_c, gain_c, b_c):
    h = o * tanh(n_c * gain_c + b_c)
    return h


@formula
def backward_output(o, n_c, gain_c, b_c, dh):
    """The reverse of ``forward_output``: do, dn_c, dgain_c, db_c."""
    shown = tanh(n_c * gain_c + b_c)
    do = dh * shown                             # h = o * tanh(n_c * gain_c + b_c)
    db_c = dh * o * d_tanh(shown)               # h = o * tanh(n_c * gain_c + b_c), like the next two
    dgain_c = db_c * n_c
    dn_c = db_c * gain_c
    return do, dn_c, dgain_c, db_c


@formula
def backward_memory(i, f, g, o, c_prev, do, dc):
    """The reverse of ``forward_memory``: da_i, da_f, da_g, da_o, dc_prev.  dc is all of it."""
    df = dc * c_prev                            # c = f * c_prev + i * g
    dc_prev = dc * f                            # c = f * c_prev + i * g
    di = dc * g                                 # c = f * c_prev + i * g
    dg = dc * i                                 # c = f * c_prev + i * g
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
    s_x: np.ndarray         # (B,4H), like s_h
    s_h: np.ndarray
    i: np.ndarray           # (B,H), like all below
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    c: np.ndarray


def step(weights, x, h_prev, c_prev):
    """One step of a whole layer.  x (B,D), h_prev and c_prev (B,H) -> (h, c), Step."""
    gain_x, gain_h, gain_c, b_c = split_own(weights.own)
    s_x, s_h = sums(weights, x, h_prev)
    a = normalise(s_x) * gain_x + weights.b_ih + normalise(s_h) * gain_h + weights.b_hh
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    i, f, g, o, c = forward_memory(a_i, a_f, a_g, a_o, c_prev)
    h = forward_output(o, normalise(c), gain_c, b_c)
    return (h, c), Step(x, h_prev, c_prev, s_x, s_h, i, f, g, o, c)


def step_backward(weights, saved, dh, dc):
    """The reverse of ``step``.  dh, dc (B,H) -> dx (B,D), (dh_prev, dc_prev), Weights of gradients."""
    x, h_prev, c_prev, s_x, s_h, i, f, g, o, c = saved
    gain_x, gain_h, gain_c, b_c = split_own(weights.own)
    do, dn_c, dgain_c, db_c = backward_output(o, normalise(c), gain_c, b_c, dh)     # h = forward_output(o, n_c, ...)
    dc_total = dc + normalise_backward(c, dn_c)                                     # n_c = normalise(c)
    da_i, da_f, da_g, da_o, dc_prev = backward_memory(i, f, g, o, c_prev, do, dc_total)     # forward_memory(a_i, ...)
    da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)                           # a_i, a_f, a_g, a_o = np.split(a)
    ds_x = normalise_backward(s_x, da * gain_x)                                     # a = normalise(s_x) * gain_x + ...
    ds_h = normalise_backward(s_h, da * gain_h)                                     # a = ... normalise(s_h) * gain_h
    d_own = join_own(da * normalise(s_x), da * normalise(s_h), dgain_c, db_c)       # a = ..., h = ...
    dx, dh_prev, d_weights = sums_backward(weights, x, h_prev, ds_x, ds_h)          # s_x, s_h = sums(...)
    db = da.sum(axis=0)                                                             # a = ... + b_ih + ... + b_hh
    return dx, (dh_prev, dc_prev), d_weights._replace(b_ih=db, b_hh=db, own=d_own)


def split_own(own):
    """own (10,H) -> gain_x (4H,), gain_h (4H,), gain_c (H,), b_c (H,)."""
    return own[0:4].ravel(), own[4:8].ravel(), own[8], own[9]


def join_own(dgain_x, dgain_h, dgain_c, db_c):
    """The reverse of ``split_own``, summed over the batch."""
    return np.concatenate([dgain_x, dgain_h, dgain_c, db_c], axis=1).sum(axis=0).reshape(10, -1)


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit
# own (18,H): the rows of weights.own, below them b_ih and b_hh

@formula
def forward_row(a, own, before, after, saved):
    """a (8,H): s_x and below it s_h; before, after (2,H): h and c at the two ends of the step; saved (12,H): s_x, s_h,
    then i, f, g, o.  Fills ``after`` and ``saved``."""
    mean_x, scale_x = moments(a[0:4])
    mean_h, scale_h = moments(a[4:8])
    for k in range(4):
        for j in range(a.shape[1]):
            saved[k, j], saved[4 + k, j] = a[k, j], a[4 + k, j]
            n_x, n_h = (a[k, j] - mean_x) * scale_x, (a[4 + k, j] - mean_h) * scale_h
            a[k, j] = n_x * own[k, j] + own[10 + k, j] + n_h * own[4 + k, j] + own[14 + k, j]
    for j in range(a.shape[1]):
        saved[8, j], saved[9, j], saved[10, j], saved[11, j], after[1, j] = forward_memory(
            a[0, j], a[1, j], a[2, j], a[3, j], before[1, j])
    mean_c, scale_c = moments(after[1:2])
    for j in range(a.shape[1]):
        after[0, j] = forward_output(saved[11, j], (after[1, j] - mean_c) * scale_c, own[8, j], own[9, j])


@formula
def backward_row(saved, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (8,H) with ds_x and ds_h, adds to d_own (18,H); d_state (2,H) as in
    ``lstm.py``."""
    mean_x, scale_x = moments(saved[0:4])
    mean_h, scale_h = moments(saved[4:8])
    mean_c, scale_c = moments(after[1:2])
    do, dc = da[3], da[4:5]                                                 # held here until their place is needed
    for j in range(da.shape[1]):
        n_c = (after[1, j] - mean_c) * scale_c
        do[j], dc[0, j], dgain_c, db_c = backward_output(saved[11, j], n_c, own[8, j], own[9, j], d_state[0, j])
        d_own[8, j] += dgain_c
        d_own[9, j] += db_c
    normalise_row_backward(after[1:2], dc)                                  # n_c = normalise(c)
    for j in range(da.shape[1]):
        da[0, j], da[1, j], da[2, j], da[3, j], d_state[1, j] = backward_memory(
            saved[8, j], saved[9, j], saved[10, j], saved[11, j], before[1, j], do[j], d_state[1, j] + dc[0, j])
        d_state[0, j] = 0
    for k in range(4):                                                      # a = n_x * gain_x + b_ih + ...
        for j in range(da.shape[1]):
            d_own[k, j] += da[k, j] * ((saved[k, j] - mean_x) * scale_x)
            d_own[4 + k, j] += da[k, j] * ((saved[4 + k, j] - mean_h) * scale_h)
            d_own[10 + k, j] += da[k, j]
            d_own[14 + k, j] += da[k, j]
            da[4 + k, j] = da[k, j] * own[4 + k, j]
            da[k, j] = da[k, j] * own[k, j]
    normalise_row_backward(saved[0:4], da[0:4])                             # n_x = normalise(s_x)
    normalise_row_backward(saved[4:8], da[4:8])                             # n_h = normalise(s_h)


LSTM_LAYER_NORM_CELL = Cell(
    name="LSTM, layer-normalised", blocks=("i", "f", "g", "o"), states=("h", "c"),
    saved=("s_xi", "s_xf", "s_xg", "s_xo", "s_hi", "s_hf", "s_hg", "s_ho", "i", "f", "g", "o"),
    own=("gain_xi", "gain_xf", "gain_xg", "gain_xo", "gain_hi", "gain_hf", "gain_hg", "gain_ho", "gain_c", "b_c"),
    apart=True, normalises=True,
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row)
