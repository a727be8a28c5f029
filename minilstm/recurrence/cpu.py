"""A cell over a whole sequence, compiled.  Same functions, parameters and results as ``reference``.

What makes it fast:

1.  All input projections of the sequence, x @ W.T + b, are one matrix product; only h @ U.T stays in the loop.
2.  A thread owns some batch rows for the whole sequence.  Rows of a batch never meet, so no step waits for a thread,
    and the cell's formulas run while the pre-activations are in the nearest cache.
3.  U is packed once per call and multiplied by a register-blocked kernel (``matmul/micro_kernel.py``).
4.  A masked step is skipped: at every step the rows that are real are gathered, and only these are computed.

Rows are dealt to the threads by falling length, like cards, so that each gets long and short ones.  What a row computes
depends on nothing but the row: the results are the same bits for any number of threads, any batch around it and any
padding.

    B  batch     T  time steps     D  input features     H  hidden units     G  pre-activation blocks     S  states
"""
import functools
from typing import NamedTuple

import numpy as np

from ..cells import Cell, Weights
from ..machine.kernel import kernel
from ..machine.threads import parts, spread
from ..matmul.cpu import add_product, pack, product

ROWS_AT_ONCE = 32           # of one group: each panel of U is read once for so many rows


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    cell: Cell
    weights: Weights
    x: np.ndarray           # (B,T,D)
    mask: np.ndarray        # (B,T)
    reverse: bool
    gates: np.ndarray       # (B,T,G,H), activated
    states: np.ndarray      # (B,T+1,S,H)


def forward(cell, weights, x, mask, initial, reverse=False):
    """x (B,T,D), mask (B,T), initial: one (B,H) for each of cell.states -> a tuple of states (B,T+1,H), Cache."""
    B, T, D = x.shape
    W, U, b_ih, b_hh = weights
    G, H = len(cell.gates), U.shape[1]
    states = np.empty((B, T + 1, len(cell.states), H), x.dtype)
    for k, s0 in enumerate(initial):
        states[:, T if reverse else 0, k] = s0
    gates = product(x.reshape(B * T, D), W.T, b_ih + b_hh).reshape(B, T, G, H)
    U_panels = pack(U.T)
    forward_rows, _ = kernels(cell)
    groups = deal(mask, mask.sum() * U.size)
    spread(lambda k: forward_rows(gates, states, mask, groups[k], U_panels, reverse), len(groups))
    return tuple(states[:, :, k] for k in range(states.shape[2])), Cache(cell, weights, x, mask, reverse, gates, states)


def backward(cache, dy, d_final):
    """dy (B,T,H): gradient of the output h of every real step; d_final: one (B,H) for each state, of its final value.

    -> dx (B,T,D), the gradients of the initial states as a tuple, Weights of gradients."""
    cell, weights, x, mask, reverse, gates, states = cache
    B, T, D = x.shape
    W, U, _, _ = weights
    H = U.shape[1]
    da = np.zeros_like(gates)
    d_state = np.stack(d_final, axis=1)                                     # (B,S,H)
    U_panels = pack(U)
    _, backward_rows = kernels(cell)
    groups = deal(mask, mask.sum() * U.size)
    spread(lambda k: backward_rows(gates, states, mask, groups[k], U_panels, reverse, dy, d_state, da), len(groups))

    da = da.reshape(B * T, len(U))
    h_prev = (states[:, 1:, 0] if reverse else states[:, :T, 0]).reshape(B * T, H)
    dx = product(da, W).reshape(B, T, D)                                    # gates = x @ W.T + b_ih + b_hh
    dW = product(da.T, x.reshape(B * T, D))                                 # gates = x @ W.T + b_ih + b_hh
    dU = product(da.T, h_prev)                                              # a = gates + h_prev @ U.T
    db = da.sum(axis=0)                                                     # gates = x @ W.T + b_ih + b_hh
    return dx, tuple(d_state.swapaxes(0, 1)), Weights(dW, dU, db, db)


def deal(mask, multiply_adds):
    """Batch rows in groups, one call of a kernel each: longest first, dealt in turn."""
    B = len(mask)
    longest_first = np.argsort(-mask.sum(axis=1), kind="stable")
    threads = parts(B, multiply_adds)
    rounds = max(1, -(-B // (threads * ROWS_AT_ONCE)))
    return [np.ascontiguousarray(longest_first[k::threads * rounds]) for k in range(min(B, threads * rounds))]


@functools.cache
def kernels(cell):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them."""
    forward_row, backward_row = cell.forward_row, cell.backward_row

    @kernel
    def forward_rows(gates, states, mask, rows, U_panels, reverse):
        """The whole sequence for some batch rows.  gates holds x @ W.T + b on entry, the activated gates on return."""
        _, T, G, H = gates.shape
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        h_prev = np.empty((len(rows), H), gates.dtype)
        a = np.empty((len(rows), len(U_panels) * lanes), gates.dtype)
        for turn in range(T):
            t = T - 1 - turn if reverse else turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    real[n] = b
                    h_prev[n] = states[b, before, 0]
                    a[n, :G * H] = gates[b, t].reshape(G * H)
                    a[n, G * H:] = 0
                    n += 1
                else:
                    states[b, after] = states[b, before]
            for p in range(len(U_panels)):                                  # a += h_prev @ U.T
                add_product(h_prev, n, U_panels, p, 0, H, a, p * lanes)
            for r in range(n):
                b = real[r]
                forward_row(a[r, :G * H].reshape((G, H)), states[b, before], states[b, after], gates[b, t])

    @kernel
    def backward_rows(gates, states, mask, rows, U_panels, reverse, dy, d_state, da):
        """The reverse of ``forward_rows``.  d_state: of the final states on entry, of the initial ones on return.
        Fills da (B,T,G,H) at real steps."""
        _, T, G, H = gates.shape
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        da_now = np.empty((len(rows), G * H), gates.dtype)
        dh_prev = np.empty((len(rows), len(U_panels) * lanes), gates.dtype)
        for turn in range(T):
            t = turn if reverse else T - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    for j in range(H):
                        d_state[b, 0, j] += dy[b, t, j]                     # y = h
                    backward_row(gates[b, t], states[b, before], states[b, after], d_state[b], da[b, t])
                    real[n] = b
                    da_now[n] = da[b, t].reshape(G * H)
                    dh_prev[n] = 0
                    n += 1
            for p in range(len(U_panels)):                                  # a = gates + h_prev @ U.T
                add_product(da_now, n, U_panels, p, 0, G * H, dh_prev, p * lanes)
            for r in range(n):
                b = real[r]
                for j in range(H):
                    d_state[b, 0, j] += dh_prev[r, j]

    return forward_rows, backward_rows
