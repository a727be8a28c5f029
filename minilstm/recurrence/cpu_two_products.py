"""The kernels of ``cpu.py`` for a cell with a second product inside the step.

    a = blocks of x @ W.T + b + (h_prev * keep) @ U.T that need not wait
    v = what cell.forward_row makes of a and the old state

                                     gru_reset_before.py                          lstm_projection.py
    second product    w =            last block of x @ W.T + b                    v @ W_hr.T
                                     + (v * keep) @ last block of U.T
    then              h =            what cell.second_forward_row makes of w, in both

K is the width of w.  Everything else is as in ``cpu_one_product.py``; reading the two side by side shows what the
second product costs.
"""
import numpy as np

from ..machine.rows import clear_row, copy_row
from ..matmul.cpu import multiply
from .rows import add_row, fade, fade_backward, mix, mix_backward, multiply_row, window


def two_product_kernels(cell, compiled):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them.  ``compiled``: the decorator."""
    forward_row, second_forward_row = cell.forward_row, cell.second_forward_row
    backward_row, second_backward_row = cell.backward_row, cell.second_backward_row
    waits = not cell.projects           # does the last block of pre-activations wait for the second product?
    G, N, S, fades = len(cell.blocks), len(cell.saved), len(cell.states), cell.fades
    F = G - waits                       # blocks that do not

    @compiled
    def forward_rows(x, a_x, y, saved, states, fresh, mask, number, zone, keep, order, moments, units, W_panels,
                     U_panels, second_panels, b_x, b_h, own, reverse):
        """With the parameters of its namesake in ``cpu_one_product.py``.  The last block that a cell saves is v."""
        R, slots, H, lanes = y.shape[2], states.shape[1], states.shape[3], U_panels.shape[2]
        D = x.shape[2] - R if fades else x.shape[2]
        K = H if waits else R
        first, last = moments
        real = np.empty(len(order), np.int64)
        x_t = np.empty((len(order), D), x.dtype)
        b_rows = np.empty((len(order) if len(b_x) > 1 else 0, b_x.shape[1]), x.dtype)
        h_prev = np.empty((len(order), R), x.dtype)
        v = np.empty((len(order), H), x.dtype)
        a = np.empty((len(order), G * H + lanes), x.dtype)
        a_row = a.shape[1]
        w = np.zeros((len(order), len(second_panels) * lanes), x.dtype)
        unkept = np.empty((len(order), N, H), x.dtype)
        faded = np.empty((len(order) if fades else 0, S, H), x.dtype)
        for turn in range(last - first):
            t = last - 1 - turn if reverse else first + turn
            before, after = (t + 1) % slots if reverse else t % slots, t % slots if reverse else (t + 1) % slots
            n = 0
            for b in order:
                if mask[b, t]:
                    real[n] = b
                    if fades:
                        fade(states[b, before], x[b, t, D:], faded[n])
                    copy_row(h_prev[n], (faded[n] if fades else states[b, before])[0])
                    if len(keep):
                        multiply_row(h_prev[n], keep[b])
                    if len(a_x):
                        copy_row(a[n, :G * H], a_x[number[t] + n])
                    else:
                        copy_row(x_t[n], x[b, t])
                    if len(b_rows):
                        copy_row(b_rows[n], b_x[b])
                    n += 1
                else:
                    for k in range(S):
                        copy_row(states[b, after, k], states[b, before, k])
                    clear_row(y[b, t])
            if not len(a_x):                                                # a = x @ W.T + b
                multiply(x_t, 0, n, W_panels, 0, len(W_panels), b_rows if len(b_rows) else b_x, 0,
                         b_rows.shape[1] if len(b_rows) else 0, a, 0)
            for r in range(n):
                copy_row(w[r, :(G - F) * H], a[r, F * H:])
            multiply(h_prev, 0, n, U_panels, 0, len(U_panels), a, 0, a_row, a, 0)      # a += h_prev @ U.T
            for r in range(n):
                b = real[r]
                new = fresh[b, t] if len(zone) else states[b, after]
                kept = saved[b, t] if len(saved) else unkept[r]
                if not waits:
                    clear_row(w[r])
                forward_row(window(a, r * a_row, F, H), own, faded[r] if fades else states[b, before], new, kept)
                copy_row(v[r], kept[N - 1])
                if waits and len(keep):
                    multiply_row(v[r], keep[b])
            multiply(v, 0, n, second_panels, 0, len(second_panels), w, 0, w.shape[1], w, 0)     # w += v @ second.T
            for r in range(n):
                b = real[r]
                new = fresh[b, t] if len(zone) else states[b, after]
                prev = faded[r] if fades else states[b, before]
                second_forward_row(w[r, :K], prev, new, saved[b, t] if len(saved) else unkept[r])
                if len(zone):
                    mix(zone[b, t], prev, new, states[b, after])
                copy_row(y[b, t], states[b, after, 0])

    @compiled
    def backward_rows(x, dy, dx, saved, states, fresh, mask, number, zone, keep, order, moments, U_panels, W_panels,
                      second_panels, own, reverse, d_state, da, heard, d_own, d_row_bias):
        """The reverse of ``forward_rows``, with the parameters of its namesake in ``cpu_one_product.py``.
        da (n,F*H+K): of the blocks that do not wait, then of w; heard (n,D+R+H): x, h_prev * keep, and v or, for a cell
        that waits, v * keep."""
        N, R, H, lanes = saved.shape[2], dy.shape[2], states.shape[3], U_panels.shape[2]
        D = x.shape[2] - R if fades else x.shape[2]
        K = H if waits else R
        first, last = moments
        da_row = F * H + K
        real = np.empty(len(order), np.int64)
        stay = np.empty((len(order), *d_state.shape[1:]), x.dtype)
        dv = np.empty((len(order), len(second_panels) * lanes), x.dtype)
        dh_prev = np.empty((len(order), len(U_panels) * lanes), x.dtype)
        dx_t = np.empty((len(order), len(W_panels) * lanes), x.dtype)
        faded = np.empty((len(order) if fades else 0, S, H), x.dtype)
        zero = np.zeros((1, max(dv.shape[1], dh_prev.shape[1], dx_t.shape[1])), x.dtype)
        for turn in range(last - first):
            t = first + turn if reverse else last - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in order:
                if mask[b, t]:
                    add_row(d_state[b, 0, :R], dy[b, t])                    # y = h
                    if len(zone):
                        mix_backward(zone[b, t], d_state[b], stay[n])
                    if fades:
                        fade(states[b, before], x[b, t, D:], faded[n])
                    step = number[t] + n
                    second_backward_row(saved[b, t], faded[n] if fades else states[b, before], d_state[b],
                                        window(da, step * da_row, F, H), da[step, F * H:])
                    real[n] = b
                    n += 1
                elif len(W_panels) or fades:
                    clear_row(dx[b, t])
            a = number[t] * da_row
            multiply(da, a + F * H, n, second_panels, 0, len(second_panels), zero, 0, 0, dv, 0)  # w += v @ second.T
            for r in range(n):
                b, step = real[r], number[t] + r
                prev = faded[r] if fades else states[b, before]
                copy_row(heard[step, :D], x[b, t])
                copy_row(heard[step, D:D + R], prev[0])
                copy_row(heard[step, D + R:], saved[b, t, N - 1])
                if len(keep):
                    multiply_row(heard[step, D:D + R], keep[b])
                if waits and len(keep):
                    multiply_row(dv[r, :H], keep[b])
                    multiply_row(heard[step, D + R:], keep[b])
                new = fresh[b, t] if len(zone) else states[b, after]
                backward_row(saved[b, t], own, prev, new, d_state[b], window(da, step * da_row, F, H), d_own[b],
                             dv[r, :H])
                if len(zone):
                    for k in range(S):
                        add_row(d_state[b, k], stay[r, k])
            multiply(da, a, n, U_panels, 0, len(U_panels), zero, 0, 0, dh_prev, 0)              # a += h_prev @ U.T
            if len(W_panels):                                                                   # a = x @ W.T + b
                multiply(da, a, n, W_panels, 0, len(W_panels), zero, 0, 0, dx_t, 0)
            for r in range(n):
                b = real[r]
                if len(W_panels):
                    copy_row(dx[b, t, :D], dx_t[r])
                if len(d_row_bias):                                         # a_x = x @ W.T + row_bias + b_ih
                    add_row(d_row_bias[b], da[number[t] + r])
                if len(keep):
                    multiply_row(dh_prev[r, :R], keep[b])
                add_row(d_state[b, 0, :R], dh_prev[r])
                if fades:
                    fade_backward(states[b, before], x[b, t, D:], d_state[b], dx[b, t, D:])

    return forward_rows, backward_rows
