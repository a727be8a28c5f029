"""The part that all cells share: what the input says and what the old state says, before any squashing.

    a_x = x @ W.T + b_ih                x (B,D),       W (G*H,D)     G blocks of H columns each
    a_h = h_prev @ U.T + b_hh           h_prev (B,R),  U (G*H,R)     R is H unless the cell projects its output

Recurrent dropout (Gal and Ghahramani, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks,
2016) takes whole columns out of U, others for each sequence, the same at every step: row b of the batch has the matrix
U * keep[b], and so

    a_h = (h_prev * keep) @ U.T + b_hh

A row bias is what a row of the batch says at every one of its steps, such as a condition times weights of its own.  It
is the same as more columns of x that do not change from step to step, multiplied once and not T times:

    a_x = x @ W.T + row_bias + b_ih         row_bias (B,G*H)
"""
import numpy as np

from .cell import Weights


def products(weights, x, h_prev):
    """-> a_x, a_h, both (B,G*H)."""
    s_x, s_h = sums(weights, x, h_prev)
    a_x = s_x + weights.b_ih
    a_h = s_h + weights.b_hh
    return a_x, a_h


def products_backward(weights, x, h_prev, da_x, da_h):
    """The reverse of ``products`` -> dx (B,D), dh_prev (B,R), Weights of gradients."""
    dx, dh_prev, d_weights = sums_backward(weights, x, h_prev, da_x, da_h)
    db_ih = da_x.sum(axis=0)                # a_x = s_x + b_ih
    db_hh = da_h.sum(axis=0)                # a_h = s_h + b_hh
    return dx, dh_prev, d_weights._replace(b_ih=db_ih, b_hh=db_hh)


def sums(weights, x, h_prev):
    """The same without biases: s_x = x @ W.T + row_bias, s_h = (h_prev * keep) @ U.T."""
    s_x = shifted(weights, x @ weights.W.T)
    s_h = heard(weights, h_prev) @ weights.U.T
    return s_x, s_h


def sums_backward(weights, x, h_prev, ds_x, ds_h):
    """The reverse of ``sums``; in the Weights that it returns all but W, U and row_bias is zero."""
    dx = ds_x @ weights.W                               # s_x = x @ W.T + row_bias
    dW = ds_x.T @ x                                     # s_x = x @ W.T + row_bias
    d_row_bias = shift_backward(weights, ds_x)          # s_x = x @ W.T + row_bias
    dh_prev = heard(weights, ds_h @ weights.U)          # s_h = (h_prev * keep) @ U.T
    dU = ds_h.T @ heard(weights, h_prev)                # s_h = (h_prev * keep) @ U.T
    return dx, dh_prev, zeros_like(weights)._replace(W=dW, U=dU, row_bias=d_row_bias)


def heard(weights, h_prev):
    """h_prev * keep: what U hears of the old state.  Its reverse is itself: dh_prev = d_heard * keep."""
    return h_prev if weights.keep is None else h_prev * weights.keep


def shifted(weights, s_x):
    """s_x + row_bias."""
    return s_x if weights.row_bias is None else s_x + weights.row_bias


def shift_backward(weights, ds_x):
    """The reverse of ``shifted`` -> the gradient of row_bias, None where there is none."""
    return None if weights.row_bias is None else ds_x


def zeros_like(weights):
    """Gradients to begin with."""
    return Weights(*(np.zeros_like(p) for p in weights.parameters()))
