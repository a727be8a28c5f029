"""The kernels of ``cpu.py`` for a cell with a second product inside the step.

    a = blocks of x @ W.T + b + (h_prev * keep) @ U.T that need not wait
    v = what cell.forward_row makes of a and the old state

                                     gru_reset_before.py                          lstm_projection.py
    second product    w =            last block of x @ W.T + b                    v @ W_hr.T
                                     + (v * keep) @ last block of U.T
    then              h =            what cell.second_forward_row makes of w, in both

K is the width of w.  Everything else is as there; reading the two files side by side shows what the second product
costs.
"""
import numpy as np

from ..matmul.cpu import add_product
from .rows import copy_row, mix, mix_backward


def two_product_kernels(cell, compiled):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them.  ``compiled``: the decorator."""
    forward_row, second_forward_row = cell.forward_row, cell.second_forward_row
    backward_row, second_backward_row = cell.backward_row, cell.second_backward_row
    waits = not cell.projects           # does the last block of pre-activations wait for the second product?
    G = len(cell.blocks)
    F = G - waits                       # blocks that do not

    @compiled
    def forward_rows(x, saved, states, fresh, mask, zone, keep, rows, R, W_panels, U_panels, second_panels, b_x, b_h,
                     own, reverse):
        """With the parameters of its namesake in ``cpu.py``.  The last block that a cell saves is v."""
        T, N, H = saved.shape[1:]
        K = H if waits else R
        D, lanes = x.shape[2], U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        x_t = np.empty((len(rows), D), saved.dtype)
        h_prev = np.empty((len(rows), R), saved.dtype)
        v = np.empty((len(rows), H), saved.dtype)
        a = np.zeros((len(rows), (G * H // lanes + 1) * lanes), saved.dtype)
        w = np.zeros((len(rows), len(second_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = T - 1 - turn if reverse else turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    real[n] = b
                    copy_row(h_prev[n], states[b, before, 0])
                    if len(keep):
                        h_prev[n] *= keep[b]
                    if len(W_panels):
                        copy_row(x_t[n], x[b, t])
                        copy_row(a[n, :G * H], b_x)
                    else:
                        for k in range(G):
                            copy_row(a[n, k * H:(k + 1) * H], saved[b, t, k])
                    n += 1
                else:
                    states[b, after] = states[b, before]
            for p in range(len(W_panels)):                                  # a += x @ W.T
                add_product(x_t, n, W_panels, p, 0, D, a, p * lanes)
            for p in range(len(U_panels)):                                  # a += h_prev @ U.T
                add_product(h_prev, n, U_panels, p, 0, R, a, p * lanes)
            for r in range(n):
                b = real[r]
                new = fresh[b, t] if len(zone) else states[b, after]
                for j in range(w.shape[1]):
                    w[r, j] = 0
                copy_row(w[r, :(G - F) * H], a[r, F * H:])
                forward_row(a[r, :F * H].reshape((F, H)), own, states[b, before], new, saved[b, t])
                copy_row(v[r], saved[b, t, N - 1])
                if waits and len(keep):
                    v[r] *= keep[b]
            for p in range(len(second_panels)):                             # w += v @ second.T
                add_product(v, n, second_panels, p, 0, H, w, p * lanes)
            for r in range(n):
                b = real[r]
                new = fresh[b, t] if len(zone) else states[b, after]
                second_forward_row(w[r, :K], states[b, before], new, saved[b, t])
                if len(zone):
                    mix(zone[b, t], states[b, before], new, states[b, after])

    @compiled
    def backward_rows(saved, states, fresh, mask, zone, keep, rows, R, U_panels, second_panels, own, reverse, dy,
                      d_state, da, d_own):
        """The reverse of ``forward_rows``, with the parameters of its namesake in ``cpu.py``.  da (B,T,F*H+K): of the
        blocks that do not wait, then of w."""
        T, H = saved.shape[1], saved.shape[3]
        K = H if waits else R
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        stay = np.empty((len(rows), *d_state.shape[1:]), saved.dtype)
        da_first = np.empty((len(rows), F * H), saved.dtype)
        dw = np.empty((len(rows), K), saved.dtype)
        dv = np.empty((len(rows), len(second_panels) * lanes), saved.dtype)
        dh_prev = np.empty((len(rows), len(U_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = turn if reverse else T - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    for j in range(R):
                        d_state[b, 0, j] += dy[b, t, j]                     # y = h
                    if len(zone):
                        mix_backward(zone[b, t], d_state[b], stay[n])
                    second_backward_row(saved[b, t], states[b, before], d_state[b],
                                        da[b, t, :F * H].reshape((F, H)), da[b, t, F * H:])
                    real[n] = b
                    copy_row(dw[n], da[b, t, F * H:])
                    for j in range(dv.shape[1]):
                        dv[n, j] = 0
                    for j in range(dh_prev.shape[1]):
                        dh_prev[n, j] = 0
                    n += 1
            for p in range(len(second_panels)):                             # w += v @ second.T
                add_product(dw, n, second_panels, p, 0, K, dv, p * lanes)
            for r in range(n):
                b = real[r]
                if waits and len(keep):
                    dv[r, :H] *= keep[b]
                new = fresh[b, t] if len(zone) else states[b, after]
                backward_row(saved[b, t], own, states[b, before], new, d_state[b], da[b, t, :F * H].reshape((F, H)),
                             d_own[b], dv[r, :H])
                if len(zone):
                    d_state[b] += stay[r]
                copy_row(da_first[r], da[b, t])
            for p in range(len(U_panels)):                                  # a += h_prev @ U.T
                add_product(da_first, n, U_panels, p, 0, F * H, dh_prev, p * lanes)
            for r in range(n):
                b = real[r]
                if len(keep):
                    dh_prev[r, :R] *= keep[b]
                for j in range(R):
                    d_state[b, 0, j] += dh_prev[r, j]

    return forward_rows, backward_rows
