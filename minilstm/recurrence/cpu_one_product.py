"""The kernels of ``cpu.py`` for a cell with one product inside the step.

    a = x @ W.T + b + (h_prev * keep) @ U.T         for some units at a time,
    new state = cell.forward_row of these           while their pre-activations are in the nearest cache

A step needs all of h_prev for every unit of h, so h_prev is copied aside before it is overwritten.
"""
import numpy as np

from ..machine.rows import clear_row, copy_row
from ..matmul.cpu import multiply
from .rows import add_row, fade, fade_backward, from_column, mix, mix_backward, multiply_row, window


def one_product_kernels(cell, compiled):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them.  ``compiled``: the decorator."""
    forward_row, backward_row = cell.forward_row, cell.backward_row
    G = len(cell.blocks)
    A = G * (1 + cell.apart)
    N, S, fades = len(cell.saved), len(cell.states), cell.fades

    @compiled
    def forward_rows(x, a_x, y, saved, states, fresh, mask, number, zone, keep, order, moments, units, W_panels,
                     U_panels, second_panels, b_x, b_h, own, reverse):
        """Some moments (first, last) of the rows ``order``, so many units at a time.  Fills y (B,T,R), states, and
        saved (B,T,N,H) unless that has no rows.  a_x (n,G*H): x @ W.T + b_x; without rows if it is to be computed here.
        b_x: one row for each of the batch, or one for all.  number (T,): of the rows' first real step at a moment."""
        R, slots, H, lanes = y.shape[2], states.shape[1], states.shape[3], U_panels.shape[2]
        D = x.shape[2] - R if fades else x.shape[2]
        first, last = moments
        real = np.empty(len(order), np.int64)
        x_t = np.empty((len(order), D), x.dtype)
        b_rows = np.empty((len(order) if len(b_x) > 1 else 0, b_x.shape[1]), x.dtype)
        h_prev = np.empty((len(order), R), x.dtype)
        a = np.empty((len(order), A * units + lanes), x.dtype)
        a_row = a.shape[1]
        unkept = np.empty((N, H), x.dtype)
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
                    if not len(a_x):
                        copy_row(x_t[n], x[b, t])
                    if len(b_rows):
                        copy_row(b_rows[n], b_x[b])
                    n += 1
                else:
                    for k in range(S):
                        copy_row(states[b, after, k], states[b, before, k])
                    clear_row(y[b, t])
            panel = 0
            for u in range(0, H, units):
                count = min(units, H - u)
                panels = (G * count + lanes - 1) // lanes
                if len(a_x):
                    width = a_x.shape[1] // G                               # H, or less than the H of states
                    for r in range(n):
                        for k in range(G):
                            copy_row(a[r, k * count:k * count + min(count, width)], a_x[number[t] + r, k * width + u:])
                else:                                                       # a_x = x @ W.T + b_x
                    multiply(x_t, 0, n, W_panels, panel, panel + panels, b_rows if len(b_rows) else b_x, panel * lanes,
                             b_rows.shape[1] if len(b_rows) else 0, a, 0)
                if A > G:                                                   # a_h = h_prev @ U.T + b_h
                    multiply(h_prev, 0, n, U_panels, panel, panel + panels, b_h, panel * lanes, 0, a, G * count)
                else:                                                       # a = a_x + h_prev @ U.T
                    multiply(h_prev, 0, n, U_panels, panel, panel + panels, a, 0, a_row, a, 0)
                panel += panels
                for r in range(n):
                    b = real[r]
                    new = fresh[b, t] if len(zone) else states[b, after]
                    prev = faded[r] if fades else states[b, before]
                    gates = saved[b, t] if len(saved) else unkept
                    forward_row(window(a, r * a_row, A, count), from_column(own, u), from_column(prev, u),
                                from_column(new, u), from_column(gates, u))
            for r in range(n):
                b = real[r]
                if len(zone):
                    mix(zone[b, t], faded[r] if fades else states[b, before], fresh[b, t], states[b, after])
                copy_row(y[b, t], states[b, after, 0])

    @compiled
    def backward_rows(x, dy, dx, saved, states, fresh, mask, number, zone, keep, order, moments, U_panels, W_panels,
                      second_panels, own, reverse, d_state, da, heard, d_own, d_row_bias):
        """The reverse of ``forward_rows``.  d_state (B,S,H): after the moments on entry, before them on return.

        Fills da (n,A*H) and heard (n,D+R), x and h_prev * keep side by side, for every real step; and dx (B,T,D), if
        there are W_panels.  Adds to d_own (B,P,H), and to d_row_bias (B,G*H) if it has rows."""
        R, H, lanes = dy.shape[2], d_state.shape[2], U_panels.shape[2]
        D = x.shape[2] - R if fades else x.shape[2]
        first, last = moments
        da_row = A * H
        real = np.empty(len(order), np.int64)
        stay = np.empty((len(order), *d_state.shape[1:]), x.dtype)
        dh_prev = np.empty((len(order), len(U_panels) * lanes), x.dtype)
        dx_t = np.empty((len(order), len(W_panels) * lanes), x.dtype)
        faded = np.empty((len(order) if fades else 0, S, states.shape[3]), x.dtype)
        zero = np.zeros((1, max(dh_prev.shape[1], dx_t.shape[1])), x.dtype)
        for turn in range(last - first):
            t = first + turn if reverse else last - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in order:
                if mask[b, t]:
                    add_row(d_state[b, 0, :R], dy[b, t])                    # y = h
                    new = fresh[b, t] if len(zone) else states[b, after]
                    if len(zone):
                        mix_backward(zone[b, t], d_state[b], stay[n])
                    if fades:
                        fade(states[b, before], x[b, t, D:], faded[n])
                    prev = faded[n] if fades else states[b, before]
                    step = number[t] + n
                    backward_row(saved[b, t], own, prev, new, d_state[b], window(da, step * da_row, A, H), d_own[b])
                    if len(zone):
                        for k in range(S):
                            add_row(d_state[b, k], stay[n, k])
                    copy_row(heard[step, :D], x[b, t])
                    copy_row(heard[step, D:], prev[0])
                    if len(keep):
                        multiply_row(heard[step, D:], keep[b])
                    real[n] = b
                    n += 1
                elif len(W_panels) or fades:
                    clear_row(dx[b, t])
            a = number[t] * da_row
            if len(W_panels):                                               # a_x = x @ W.T + b_ih
                multiply(da, a, n, W_panels, 0, len(W_panels), zero, 0, 0, dx_t, 0)
            multiply(da, a + (A - G) * H, n, U_panels, 0, len(U_panels), zero, 0, 0, dh_prev, 0)    # a_h = h_prev @ U.T
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
