"""The kernels of ``cpu.py`` for a cell whose last block of U has to wait: a second product inside the step.

    a      = gates' part of x @ W.T + b + h_prev @ U[:-H].T
    v      = what cell.forward_row makes of a and h_prev
    a_last = last block of x @ W.T + b + v @ U[-H:].T
    h      = what cell.second_forward_row makes of a_last

Everything else is as there; reading the two files side by side shows what the second product costs.
"""
import numpy as np

from ..matmul.cpu import add_product


def two_product_kernels(cell, compiled):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them.  ``compiled``: the decorator."""
    forward_row, second_forward_row = cell.forward_row, cell.second_forward_row
    backward_row, second_backward_row = cell.backward_row, cell.second_backward_row
    G = len(cell.blocks)
    F = G - 1                           # blocks that do not wait

    @compiled
    def forward_rows(saved, states, mask, rows, U_panels, last_panels, a_h, own, reverse):
        """saved (B,T,N,H) holds x @ W.T + b in its first G blocks on entry, what the cell saves, v last, on return."""
        T, N, H = saved.shape[1:]
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        h_prev = np.empty((len(rows), H), saved.dtype)
        v = np.empty((len(rows), H), saved.dtype)
        a = np.zeros((len(rows), len(U_panels) * lanes), saved.dtype)
        a_last = np.zeros((len(rows), len(last_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = T - 1 - turn if reverse else turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    real[n] = b
                    h_prev[n] = states[b, before, 0]
                    for k in range(F):
                        a[n, k * H:(k + 1) * H] = saved[b, t, k]
                    a_last[n, :H] = saved[b, t, F]
                    n += 1
                else:
                    states[b, after] = states[b, before]
            for p in range(len(U_panels)):                                  # a += h_prev @ U[:-H].T
                add_product(h_prev, n, U_panels, p, 0, H, a, p * lanes)
            for r in range(n):
                b = real[r]
                forward_row(a[r, :F * H].reshape((F, H)), own, states[b, before], states[b, after], saved[b, t])
                v[r] = saved[b, t, N - 1]
            for p in range(len(last_panels)):                               # a_last += v @ U[-H:].T
                add_product(v, n, last_panels, p, 0, H, a_last, p * lanes)
            for r in range(n):
                b = real[r]
                second_forward_row(a_last[r, :H], states[b, before], states[b, after], saved[b, t])

    @compiled
    def backward_rows(saved, states, mask, rows, U_panels, last_panels, own, reverse, dy, d_state, da, d_own):
        """The reverse of ``forward_rows``, with the parameters of its namesake in ``cpu.py``."""
        T, H = saved.shape[1], saved.shape[3]
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        da_first = np.empty((len(rows), F * H), saved.dtype)
        da_last = np.empty((len(rows), H), saved.dtype)
        dv = np.empty((len(rows), len(last_panels) * lanes), saved.dtype)
        dh_prev = np.empty((len(rows), len(U_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = turn if reverse else T - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    for j in range(H):
                        d_state[b, 0, j] += dy[b, t, j]                     # y = h
                    second_backward_row(saved[b, t], states[b, before], d_state[b], da[b, t])
                    real[n] = b
                    da_last[n] = da[b, t, F]
                    dv[n] = 0
                    dh_prev[n] = 0
                    n += 1
            for p in range(len(last_panels)):                               # a_last += v @ U[-H:].T
                add_product(da_last, n, last_panels, p, 0, H, dv, p * lanes)
            for r in range(n):
                b = real[r]
                backward_row(saved[b, t], own, states[b, before], states[b, after], d_state[b], da[b, t], d_own[b],
                             dv[r, :H])
                for k in range(F):
                    da_first[r, k * H:(k + 1) * H] = da[b, t, k]
            for p in range(len(U_panels)):                                  # a += h_prev @ U[:-H].T
                add_product(da_first, n, U_panels, p, 0, F * H, dh_prev, p * lanes)
            for r in range(n):
                b = real[r]
                for j in range(H):
                    d_state[b, 0, j] += dh_prev[r, j]

    return forward_rows, backward_rows
