"""The GRU with layer normalisation.

The GRU of ``gru.py``, but what input and state say is normalised over the layer before the gates hear it:

    s_x = x @ W.T                   s_h = h_prev @ U.T                              (B,3H)
    a_x = normalise(s_x) * gain_x + b_ih            three blocks a_xr a_xz a_xn
    a_h = normalise(s_h) * gain_h + b_hh            three blocks a_hr a_hz a_hn

    r, z, n, h          as in ``gru.py``

    gain_x, gain_h (3H,), kept as one array own (6,H);  normalise: ``normalise.py``, over all 3H numbers of a row

Beside the GRU: the size of W, U and x no longer matters, within the limits that ``normalise.py`` states, only their
direction; a unit depends on all others of its layer within the step.  The path h_prev -> h through z stays as it was.

Source: haste's LayerNormGRU.  J. Ba, J. Kiros and G. Hinton, Layer Normalization, 2016, have a GRU too
(supplementary material); they normalise the two gates and the candidate apart.
"""
from typing import NamedTuple

import numpy as np

from .activations import formula
from .cell import Cell
from .gru import backward, forward
from .normalise import moments, normalise, normalise_backward, normalise_row_backward
from .products import sums, sums_backward


# ------------------------------------------------------------------------------------------------ one layer, one step
# one unit, one step: the formulas of gru.py

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    x: np.ndarray           # (B,D)
    h_prev: np.ndarray      # (B,H)
    s_x: np.ndarray         # (B,3H), like s_h
    s_h: np.ndarray
    r: np.ndarray           # (B,H), like all below
    z: np.ndarray
    n: np.ndarray
    a_hn: np.ndarray


def step(weights, x, h_prev):
    """One step of a whole layer.  x (B,D), h_prev (B,H) -> (h,), Step."""
    gain_x, gain_h = weights.own[0:3].ravel(), weights.own[3:6].ravel()
    s_x, s_h = sums(weights, x, h_prev)
    a_xr, a_xz, a_xn = np.split(normalise(s_x) * gain_x + weights.b_ih, 3, axis=1)
    a_hr, a_hz, a_hn = np.split(normalise(s_h) * gain_h + weights.b_hh, 3, axis=1)
    r, z, n, h = forward(a_xr + a_hr, a_xz + a_hz, a_xn, a_hn, h_prev)
    return (h,), Step(x, h_prev, s_x, s_h, r, z, n, a_hn)


def step_backward(weights, saved, dh):
    """The reverse of ``step``.  dh (B,H) -> dx (B,D), (dh_prev,), Weights of gradients."""
    x, h_prev, s_x, s_h, r, z, n, a_hn = saved
    gain_x, gain_h = weights.own[0:3].ravel(), weights.own[3:6].ravel()
    da_r, da_z, da_xn, da_hn, dh_direct = backward(r, z, n, a_hn, h_prev, dh)   # r, z, n, h = forward(a_xr + ...)
    da_x = np.concatenate([da_r, da_z, da_xn], axis=1)                          # a_xr, a_xz, a_xn = np.split(...)
    da_h = np.concatenate([da_r, da_z, da_hn], axis=1)                          # a_hr, a_hz, a_hn = np.split(...)
    ds_x = normalise_backward(s_x, da_x * gain_x)                               # ... normalise(s_x) * gain_x + b_ih
    ds_h = normalise_backward(s_h, da_h * gain_h)                               # ... normalise(s_h) * gain_h + b_hh
    dgains = np.concatenate([da_x * normalise(s_x), da_h * normalise(s_h)], axis=1)     # ... normalise(s_x) * gain_x
    d_own = dgains.sum(axis=0).reshape(6, -1)                                   # the same for every row of the batch
    dx, dh_through_s, d_weights = sums_backward(weights, x, h_prev, ds_x, ds_h)     # s_x, s_h = sums(...)
    d_weights = d_weights._replace(b_ih=da_x.sum(axis=0), b_hh=da_h.sum(axis=0), own=d_own)     # ... + b_ih, + b_hh
    dh_prev = dh_direct + dh_through_s
    return dx, (dh_prev,), d_weights


# ------------------------------------------------------------------------------- one batch row, one step, unit by unit
# own (12,H): the rows of weights.own, below them b_ih and b_hh

@formula
def forward_row(a, own, before, after, saved):
    """a (6,H): s_x and below it s_h; before, after (1,H): h at the two ends of the step; saved (10,H): s_x, s_h, then
    r, z, n, a_hn.  Fills ``after`` and ``saved``."""
    mean_x, scale_x = moments(a[0:3])
    mean_h, scale_h = moments(a[3:6])
    for k in range(3):
        for j in range(a.shape[1]):
            saved[k, j], saved[3 + k, j] = a[k, j], a[3 + k, j]
            a[k, j] = (a[k, j] - mean_x) * scale_x * own[k, j] + own[6 + k, j]
            a[3 + k, j] = (a[3 + k, j] - mean_h) * scale_h * own[3 + k, j] + own[9 + k, j]
    for j in range(a.shape[1]):
        saved[6, j], saved[7, j], saved[8, j], after[0, j] = forward(
            a[0, j] + a[3, j], a[1, j] + a[4, j], a[2, j], a[5, j], before[0, j])
        saved[9, j] = a[5, j]


@formula
def backward_row(saved, own, before, after, d_state, da, d_own):
    """The reverse of ``forward_row``.  Fills da (6,H) with ds_x and ds_h, adds to d_own (12,H); d_state (1,H) as in
    ``gru.py``."""
    mean_x, scale_x = moments(saved[0:3])
    mean_h, scale_h = moments(saved[3:6])
    for j in range(da.shape[1]):
        da_r, da_z, da[2, j], da[5, j], d_state[0, j] = backward(
            saved[6, j], saved[7, j], saved[8, j], saved[9, j], before[0, j], d_state[0, j])
        da[0, j], da[3, j] = da_r, da_r
        da[1, j], da[4, j] = da_z, da_z
    for k in range(3):                                                      # a_x = n_x * gain_x + b_ih, a_h = ...
        for j in range(da.shape[1]):
            d_own[k, j] += da[k, j] * ((saved[k, j] - mean_x) * scale_x)
            d_own[3 + k, j] += da[3 + k, j] * ((saved[3 + k, j] - mean_h) * scale_h)
            d_own[6 + k, j] += da[k, j]
            d_own[9 + k, j] += da[3 + k, j]
            da[k, j] = da[k, j] * own[k, j]
            da[3 + k, j] = da[3 + k, j] * own[3 + k, j]
    normalise_row_backward(saved[0:3], da[0:3])                             # n_x = normalise(s_x)
    normalise_row_backward(saved[3:6], da[3:6])                             # n_h = normalise(s_h)


GRU_LAYER_NORM_CELL = Cell(
    name="GRU, layer-normalised", blocks=("r", "z", "n"), states=("h",),
    saved=("s_xr", "s_xz", "s_xn", "s_hr", "s_hz", "s_hn", "r", "z", "n", "a_hn"),
    own=("gain_xr", "gain_xz", "gain_xn", "gain_hr", "gain_hz", "gain_hn"), apart=True, normalises=True,
    step=step, step_backward=step_backward, forward_row=forward_row, backward_row=backward_row)
