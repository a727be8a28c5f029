"""The GRU-D: a gated recurrent unit for series with missing values.

What was measured is used as it is.  For what was not, the input is the last measured value, fading to the feature's
mean, and the old state fades too: both the more, the longer ago the last measurement is.

    gamma_x = exp(-max(0, w_x * delta + b_x))                   of each feature
    gamma_h = exp(-max(0, delta @ W_h.T + b_h))                 of each unit
    x_hat = x                                                   where measured, m = 1
    x_hat = gamma_x * x_last + (1 - gamma_x) * mean             where not, m = 0
    h_hat = gamma_h * h_prev

    r, z, n, h = a GRU that reads [x_hat, m], with h_hat as its old state

    B  batch      D  features      H  hidden units
    delta (B,D)  time since each feature was last measured (``sequences.time_since_seen``)      m (B,D)  1 or 0
    x, x_last, x_hat, gamma_x (B,D)      gamma_h, h (B,H)      w_x, b_x, mean (D,)      W_h (H,D)      b_h (H,)

In the paper the GRU resets before the product (``gru_reset_before.py``), with z and 1 - z in each other's places; with
``gru.py`` in its stead it is another function.  One W (3H,2D) has the paper's W and V side by side.

x_hat and gamma_h do not depend on the state, so they are made for all steps at once (``impute``).  The cell itself then
is a GRU whose x (B,2D+H) is [x_hat, m, gamma_h].

Source: Z. Che, S. Purushotham, K. Cho, D. Sontag and Y. Liu, Recurrent Neural Networks for Multivariate Time Series
with Missing Values, Scientific Reports 8:6085, 2018.  The first author's own program (PeterChe1990/GRU-D) is another
variant: x_last fades to 0, 1 - m is read in place of m, and h = (1 - z) * n + z * h_prev takes the old state unfaded.
"""
from typing import Any, NamedTuple

import numpy as np

from . import gru, gru_reset_before
from .cell import Cell


# ------------------------------------------------------------------------------------------------ all steps, the input

def fading(a):
    """exp(-max(0, a)): 1 for what has just been measured, and less with time."""
    return np.exp(-np.maximum(0, a))


def fading_backward(gamma, a, d_gamma):
    """The reverse of ``fading``.  At a = 0, where it bends, the slope of the falling side."""
    return np.where(a.real >= 0, -gamma * d_gamma, 0)                   # gamma = exp(-max(0, a))


class Imputed(NamedTuple):
    """What ``impute_backward`` needs.  All (B,T,D), but a_h and gamma_h (B,T,H)."""
    delta: np.ndarray
    a_x: np.ndarray
    gamma_x: np.ndarray
    from_mean: np.ndarray       # x_last - mean
    a_h: np.ndarray
    gamma_h: np.ndarray


def impute(x, m, x_last, mean, delta, w_x, b_x, a_h):
    """x, x_last, delta (B,T,D), m (B,T,D) bool, mean, w_x, b_x (D,), a_h (B,T,H): delta @ W_h.T + b_h
    -> [x_hat, m, gamma_h] (B,T,2D+H), Imputed."""
    a_x = w_x * delta + b_x
    gamma_x = fading(a_x)
    from_mean = x_last - mean
    x_hat = np.where(m, x, mean + gamma_x * from_mean)
    gamma_h = fading(a_h)
    return np.concatenate([x_hat, m.astype(x.dtype), gamma_h], axis=2), Imputed(delta, a_x, gamma_x, from_mean, a_h,
                                                                                gamma_h)


def impute_backward(saved, m, d_all):
    """The reverse of ``impute``.  d_all (B,T,2D+H) -> dx, dx_last (B,T,D), dw_x, db_x (D,), da_h (B,T,H)."""
    delta, a_x, gamma_x, from_mean, a_h, gamma_h = saved
    D = m.shape[2]
    dx_hat, d_gamma_h = d_all[:, :, :D], d_all[:, :, 2 * D:]                # m.astype is constant
    da_h = fading_backward(gamma_h, a_h, d_gamma_h)                         # gamma_h = fading(a_h)
    dx = np.where(m, dx_hat, 0)                                             # x_hat = np.where(m, x, ...)
    d_fill = np.where(m, 0, dx_hat)                                         # x_hat = np.where(m, ..., fill)
    dx_last = d_fill * gamma_x                                              # fill = mean + gamma_x * from_mean
    da_x = fading_backward(gamma_x, a_x, d_fill * from_mean)                # fill = ...;  gamma_x = fading(a_x)
    dw_x, db_x = (da_x * delta).sum(axis=(0, 1)), da_x.sum(axis=(0, 1))     # a_x = w_x * delta + b_x
    return dx, dx_last, dw_x, db_x, da_h


# ------------------------------------------------------------------------------------------------ one layer, one step

class Step(NamedTuple):
    """What ``step_backward`` needs of the step it reverses."""
    gamma_h: np.ndarray     # (B,H), like h_prev
    h_prev: np.ndarray
    inner: Any              # what the GRU saved


def faded(cell, name):
    """The cell of a GRU-D, from that of the GRU inside it."""
    def step(weights, x, h_prev):
        """x (B,2D+H): [x_hat, m, gamma_h]; h_prev (B,H) -> (h,), Step."""
        read, gamma_h = np.split(x, [weights.W.shape[1]], axis=1)
        h_hat = gamma_h * h_prev
        (h,), inner = cell.step(weights, read, h_hat)
        return (h,), Step(gamma_h, h_prev, inner)

    def step_backward(weights, saved, dh):
        """The reverse of ``step``.  dh (B,H) -> dx (B,2D+H), (dh_prev,), Weights of gradients."""
        d_read, (dh_hat,), d_weights = cell.step_backward(weights, saved.inner, dh)     # (h,), inner = cell.step(...)
        d_gamma_h = dh_hat * saved.h_prev                                               # h_hat = gamma_h * h_prev
        dh_prev = dh_hat * saved.gamma_h                                                # h_hat = gamma_h * h_prev
        return np.concatenate([d_read, d_gamma_h], axis=1), (dh_prev,), d_weights       # read, gamma_h = np.split(x)

    return cell._replace(name=name, step=step, step_backward=step_backward, fades=True)


GRU_D_CELL: Cell = faded(gru_reset_before.GRU_RESET_BEFORE_CELL, "GRU-D")
GRU_D_RESET_AFTER_CELL: Cell = faded(gru.GRU_CELL, "GRU-D, reset after")
