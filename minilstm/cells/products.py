"""The part that all cells share: what the input says and what the old state says, before any squashing.

    a_x = x @ W.T + b_ih                x (B,D),       W (G*H,D)     G blocks of H columns each
    a_h = h_prev @ U.T + b_hh           h_prev (B,H),  U (G*H,H)
"""
import numpy as np

from .cell import Weights


def products(weights, x, h_prev):
    """-> a_x, a_h, both (B,G*H)."""
    W, U, b_ih, b_hh, _ = weights
    a_x = x @ W.T + b_ih
    a_h = h_prev @ U.T + b_hh
    return a_x, a_h


def products_backward(weights, x, h_prev, da_x, da_h):
    """The reverse of ``products`` -> dx (B,D), dh_prev (B,H), Weights of gradients, in which ``own`` is zero."""
    W, U, _, _, own = weights
    dx = da_x @ W                           # a_x = x @ W.T + b_ih
    dW = da_x.T @ x                         # a_x = x @ W.T + b_ih
    db_ih = da_x.sum(axis=0)                # a_x = x @ W.T + b_ih
    dh_prev = da_h @ U                      # a_h = h_prev @ U.T + b_hh
    dU = da_h.T @ h_prev                    # a_h = h_prev @ U.T + b_hh
    db_hh = da_h.sum(axis=0)                # a_h = h_prev @ U.T + b_hh
    return dx, dh_prev, Weights(dW, dU, db_ih, db_hh, np.zeros_like(own))
