"""A cell over a whole sequence, compiled.  Same functions, parameters and results as ``reference``.

What makes it fast:

1.  All input projections of the sequence, x @ W.T + b, are one matrix product; only h @ U.T stays in the loop.
2.  A thread owns some batch rows for the whole sequence.  Rows of a batch never meet, so no step waits for a thread,
    and the cell's formulas run while the pre-activations are in the nearest cache.
3.  U is packed once per call and multiplied by a register-blocked kernel (``matmul/micro_kernel.py``).
4.  A masked step is skipped inside the loop: at every step the rows that are real are gathered, and only these are
    computed.  The products over the whole sequence pass over it.

Rows are dealt to the threads by falling length, like cards, so that each gets long and short ones.  What a row computes
depends on nothing but the row: the results are the same bits for any number of threads, any batch around it and any
padding.

    B  batch     T  time steps     D  input features     H  hidden units     S  states     G  blocks of W and U
    A  pre-activation blocks: G, or 2G (input's, then state's) for a cell that keeps them apart
    N  numbers that a unit saves for the backward pass     P  parameters that a unit has for itself
"""
import functools
from typing import NamedTuple

import numpy as np

from ..cells import Cell, Weights
from ..machine.kernel import is_ours, kernel
from ..machine.threads import spread, threads_for
from ..masking.reference import select
from ..matmul.cpu import add_product, fill_with_product, pack, product
from .cpu_two_products import two_product_kernels

ROWS_AT_ONCE = 32           # in a group, at most: one reading of a panel of U serves them all


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    cell: Cell
    weights: Weights
    x: np.ndarray           # (B,T,D)
    mask: np.ndarray        # (B,T)
    reverse: bool
    saved: np.ndarray       # (B,T,N,H)
    states: np.ndarray      # (B,T+1,S,H)


def forward(cell, weights, x, mask, initial, reverse=False):
    """x (B,T,D), mask (B,T), initial: one (B,H) for each of cell.states -> a tuple of states (B,T+1,H), Cache."""
    B, T, D = x.shape
    W, U, b_ih, b_hh, own = weights
    H = U.shape[1]
    states = np.empty((B, T + 1, len(cell.states), H), x.dtype)
    for k, s0 in enumerate(initial):
        states[:, T if reverse else 0, k] = s0
    saved = np.empty((B, T, len(cell.saved), H), x.dtype)
    fill_with_product(saved.reshape(B * T, len(cell.saved) * H), x.reshape(B * T, D), W.T,
                      b_ih if cell.apart else b_ih + b_hh)
    a_h = b_hh if cell.apart else np.zeros(0, x.dtype)
    U_first, U_last = first_and_last(cell, U)
    U_panels, last_panels = pack(U_first.T), pack(U_last.T)
    forward_rows, _ = kernels(cell)
    threads = threads_for(mask.sum() * U.size)
    groups = deal(mask, threads)
    spread(lambda k: forward_rows(saved, states, mask, groups[k], U_panels, last_panels, a_h, own, reverse),
           len(groups), threads)
    return tuple(states[:, :, k] for k in range(states.shape[2])), Cache(cell, weights, x, mask, reverse, saved, states)


def backward(cache, dy, d_final):
    """dy (B,T,H): gradient of the output h of every real step; d_final: one (B,H) for each state, of its final value.

    -> dx (B,T,D), the gradients of the initial states as a tuple, Weights of gradients."""
    cell, weights, x, mask, reverse, saved, states = cache
    B, T, D = x.shape
    W, U, _, _, own = weights
    GH, H = U.shape
    da = np.zeros((B, T, len(cell.blocks) * (1 + cell.apart), H), x.dtype)
    d_state = np.stack(d_final, axis=1)                                     # (B,S,H)
    d_own = np.zeros((B, *own.shape), x.dtype)                              # row by row, so that threads share none
    U_first, U_last = first_and_last(cell, U)
    U_panels, last_panels = pack(U_first), pack(U_last)
    _, backward_rows = kernels(cell)
    threads = threads_for(mask.sum() * U.size)
    groups = deal(mask, threads)
    spread(lambda k: backward_rows(saved, states, mask, groups[k], U_panels, last_panels, own, reverse, dy, d_state, da,
                                   d_own), len(groups), threads)

    da = da.reshape(B * T, da.shape[2] * H)
    da_x, da_h = da[:, :GH], da[:, -GH:]                                    # the same array unless cell.apart
    h_prev = select(states[:, 1:, 0] if reverse else states[:, :T, 0], mask).reshape(B * T, H)
    dx = product(da_x, W).reshape(B, T, D)                                  # a_x = x @ W.T + b_ih
    dW = product(da_x.T, x.reshape(B * T, D))                               # a_x = x @ W.T + b_ih
    dU = product(da_h[:, :len(U_first)].T, h_prev)                          # a_h = h_prev @ U.T + b_hh
    if len(U_last):
        v = select(saved[:, :, -1], mask).reshape(B * T, H)
        dU = np.concatenate([dU, product(da_h[:, -H:].T, v)])               # a_last += v @ U[-H:].T
    db = da.sum(axis=0)                                                     # a_x = ... + b_ih, a_h = ... + b_hh
    return dx, tuple(d_state.swapaxes(0, 1)), Weights(dW, dU, db[:GH], db[-GH:], d_own.sum(axis=0))


def first_and_last(cell, U):
    """U (G*H,H) in two parts: all of it and nothing or, for a cell with a second product, all but the last block and
    that."""
    first = len(U) - U.shape[1] if cell.second_forward_row else len(U)
    return U[:first], U[first:]


def deal(mask, threads):
    """Batch rows in groups, one call of a kernel each, as many a thread as it takes: longest first, dealt in turn."""
    B = len(mask)
    longest_first = np.argsort(-mask.sum(axis=1), kind="stable")
    groups = threads * max(1, -(-B // (threads * ROWS_AT_ONCE)))
    return [np.ascontiguousarray(longest_first[k::groups]) for k in range(min(B, groups))]


@functools.cache
def kernels(cell):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them."""
    forward_row, backward_row = cell.forward_row, cell.backward_row
    G = len(cell.blocks)
    A = G * (1 + cell.apart)
    rows = (forward_row, backward_row, cell.second_forward_row, cell.second_backward_row)
    compiled = functools.partial(kernel, cached=all(is_ours(row) for row in rows if row))
    if cell.second_forward_row:
        return two_product_kernels(cell, compiled)

    @compiled
    def forward_rows(saved, states, mask, rows, U_panels, last_panels, a_h, own, reverse):
        """The whole sequence for some batch rows.  saved (B,T,N,H) holds x @ W.T + b in its first G blocks on entry,
        what the cell saves on return.  a_h: the bias of the state's part, empty if it is in there already."""
        T, H = saved.shape[1], saved.shape[3]
        lanes = U_panels.shape[2]
        first = (A - G) * H                                                 # column of h_prev @ U.T in a
        real = np.empty(len(rows), np.int64)
        h_prev = np.empty((len(rows), H), saved.dtype)
        a = np.zeros((len(rows), first + len(U_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = T - 1 - turn if reverse else turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    real[n] = b
                    h_prev[n] = states[b, before, 0]
                    a[n, G * H:G * H + len(a_h)] = a_h
                    for k in range(G):
                        a[n, k * H:(k + 1) * H] = saved[b, t, k]
                    n += 1
                else:
                    states[b, after] = states[b, before]
            for p in range(len(U_panels)):                                  # a_h += h_prev @ U.T
                add_product(h_prev, n, U_panels, p, 0, H, a, first + p * lanes)
            for r in range(n):
                b = real[r]
                forward_row(a[r, :A * H].reshape((A, H)), own, states[b, before], states[b, after], saved[b, t])

    @compiled
    def backward_rows(saved, states, mask, rows, U_panels, last_panels, own, reverse, dy, d_state, da, d_own):
        """The reverse of ``forward_rows``.  d_state: of the final states on entry, of the initial ones on return.
        Fills da (B,T,A,H) at real steps, adds to d_own (B,P,H)."""
        T, H = saved.shape[1], saved.shape[3]
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        da_h = np.empty((len(rows), G * H), saved.dtype)
        dh_prev = np.empty((len(rows), len(U_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = turn if reverse else T - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    for j in range(H):
                        d_state[b, 0, j] += dy[b, t, j]                     # y = h
                    backward_row(saved[b, t], own, states[b, before], states[b, after], d_state[b], da[b, t], d_own[b])
                    real[n] = b
                    for k in range(G):
                        da_h[n, k * H:(k + 1) * H] = da[b, t, A - G + k]
                    dh_prev[n] = 0
                    n += 1
            for p in range(len(U_panels)):                                  # a_h = h_prev @ U.T + b_hh
                add_product(da_h, n, U_panels, p, 0, G * H, dh_prev, p * lanes)
            for r in range(n):
                b = real[r]
                for j in range(H):
                    d_state[b, 0, j] += dh_prev[r, j]

    return forward_rows, backward_rows
