"""A cell over a whole sequence, compiled.  Same functions, parameters and results as ``reference``.

What makes it fast:

1.  The input's part of the pre-activations, x @ W.T + b, is made where it is used, a step at a time for all rows of a
    group, or, for a batch of few rows, in one product for the whole sequence.
2.  A thread owns some batch rows for the whole sequence.  Rows of a batch never meet, so no step waits for a thread,
    and the cell's formulas run while the pre-activations are in the nearest cache.
3.  U is packed once per call and multiplied by a register-blocked kernel (``matmul/micro_kernel.py``).
4.  A masked step is skipped: at every step the rows that are real are gathered, and only these are computed.  (The
    products over the whole sequence pass over it.)

Rows are dealt to the threads by falling length, like cards, so that each gets long and short ones.  What a row computes
depends on nothing but the row: the results are the same bits for any number of threads, any batch around it and any
padding.

    B  batch     T  time steps     D  input features     H  hidden units     S  states     G  blocks of W and U
    R  width of h: H, or less for a cell that projects its output; then h takes the first R columns of its row
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
from .rows import copy_row, mix, mix_backward

ROWS_AT_ONCE = 64           # in a group, at most: one reading of a panel of U serves them all
ROWS_IN_LOOP = 8            # for a batch of at least so many rows x @ W.T is made inside the loop, a step at a time: it
#                             costs less than to write it for the whole sequence and to read it again,
BYTES_IN_LOOP = 4 * 2**20   # and for a W of at most so many bytes: a larger one drives U out of the caches


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    cell: Cell
    weights: Weights
    x: np.ndarray           # (B,T,D)
    mask: np.ndarray        # (B,T)
    reverse: bool
    zone: np.ndarray        # (B,T,S,H), or (0,0,S,H) without zoneout
    saved: np.ndarray       # (B,T,N,H)
    states: np.ndarray      # (B,T+1,S,H)
    fresh: np.ndarray       # like zone: what the cell made of the states, before zoneout


def forward(cell, weights, x, mask, initial, reverse=False, zoneout=None):
    """x (B,T,D), mask (B,T), initial: one (B,R) or (B,H) for each of cell.states; zoneout: for each of them a (B,T,R)
    or (B,T,H), or None -> a tuple of states with T+1 slots, Cache."""
    B, T, D = x.shape
    GH, R = weights.U.shape
    G, S, N = len(cell.blocks), len(cell.states), len(cell.saved)
    H = GH // G
    states = np.empty((B, T + 1, S, H), x.dtype)
    for k, s0 in enumerate(initial):
        states[:, T if reverse else 0, k, :s0.shape[1]] = s0
    zone = side_by_side(zoneout, H) if zoneout else np.empty((0, 0, S, H), x.dtype)
    fresh = np.empty_like(zone)
    saved = np.empty((B, T, N, H), x.dtype)
    b_x, b_h, own = biases_and_own(cell, weights)
    in_loop = B >= ROWS_IN_LOOP and weights.W.nbytes <= BYTES_IN_LOOP
    if not in_loop:
        fill_with_product(saved.reshape(B * T, N * H), x.reshape(B * T, D), weights.W.T, b_x)
    W_panels = pack(weights.W.T if in_loop else weights.W.T[:, :0])
    U_panels, second_panels = (pack(matrix.T) for matrix in two_matrices(cell, weights))
    forward_rows, _ = kernels(cell)
    threads = threads_for(mask.sum() * (weights.W.size + weights.U.size + weights.W_hr.size))
    groups = deal(mask, threads)
    spread(lambda k: forward_rows(x, saved, states, fresh, mask, zone, keep_of(weights), groups[k], R, W_panels,
                                  U_panels, second_panels, b_x, b_h, own, reverse), len(groups), threads)
    found = tuple(states[:, :, k, :s0.shape[1]] for k, s0 in enumerate(initial))
    return found, Cache(cell, weights, x, mask, reverse, zone, saved, states, fresh)


def backward(cache, dy, d_final):
    """dy (B,T,R): gradient of the output h of every real step; d_final: for each state the gradient of its final value.

    -> dx (B,T,D), the gradients of the initial states as a tuple, Weights of gradients."""
    cell, weights, x, mask, reverse, zone, saved, states, fresh = cache
    B, T, D = x.shape
    GH, R = weights.U.shape
    H = GH // len(cell.blocks)
    da = np.zeros((B, T, GH * (1 + cell.apart) + len(weights.W_hr)), x.dtype)
    d_state = side_by_side(d_final, H)                                      # (B,S,H)
    _, _, own = biases_and_own(cell, weights)
    d_own = np.zeros((B, *own.shape), x.dtype)                              # row by row, so that threads share none
    first, second = two_matrices(cell, weights)
    U_panels, second_panels = pack(first), pack(second)
    _, backward_rows = kernels(cell)
    threads = threads_for(mask.sum() * (weights.U.size + weights.W_hr.size))
    groups = deal(mask, threads)
    spread(lambda k: backward_rows(saved, states, fresh, mask, zone, keep_of(weights), groups[k], R, U_panels,
                                   second_panels, own, reverse, dy, d_state, da, d_own), len(groups), threads)

    da = da.reshape(B * T, da.shape[2])
    da_x, da_h = da[:, :GH], da[:, GH * cell.apart:GH * (1 + cell.apart)]   # the same array unless cell.apart
    h_prev = states[:, 1:, 0, :R] if reverse else states[:, :T, 0, :R]
    dx = product(da_x, weights.W).reshape(B, T, D)                          # a_x = x @ W.T + b_ih
    dW = product(da_x.T, x.reshape(B * T, D))                               # a_x = x @ W.T + b_ih
    dU = product(da_h[:, :len(first)].T, heard(weights, h_prev, mask))      # a_h = (h_prev * keep) @ U.T + b_hh
    dW_hr = np.zeros_like(weights.W_hr)
    if cell.projects:
        m = select(saved[:, :, -1], mask).reshape(B * T, H)
        dW_hr = product(da[:, GH:].T, m)                                    # h = m @ W_hr.T
    elif cell.second_forward_row:
        v = heard(weights, saved[:, :, -1], mask)
        dU = np.concatenate([dU, product(da_h[:, -H:].T, v)])               # w += (v * keep) @ U[-H:].T
    d_own, db = np.split(d_own.sum(axis=0), [len(weights.own)])
    if cell.biases_after:
        db_ih, db_hh = db.reshape(2, GH)
    else:
        db_ih = da_x.sum(axis=0)                                            # a_x = ... + b_ih
        db_hh = da_h.sum(axis=0) if cell.apart else db_ih                   # a_h = ... + b_hh
    d_initial = tuple(d_state[:, k, :d.shape[1]] for k, d in enumerate(d_final))
    return dx, d_initial, Weights(dW, dU, db_ih, db_hh, d_own, dW_hr)


def side_by_side(arrays, H):
    """One (...,R) or (...,H) for each state -> (...,S,H), with zeros where h is narrower than H."""
    wide = np.zeros((*arrays[0].shape[:-1], len(arrays), H), arrays[0].dtype)
    for k, array in enumerate(arrays):
        wide[..., k, :array.shape[-1]] = array
    return wide


def biases_and_own(cell, weights):
    """What is added to x @ W.T, what is added to h_prev @ U.T (empty: it is in the first already), and what the units
    have for themselves, which for some cells includes the biases."""
    b_ih, b_hh, own = weights.b_ih, weights.b_hh, weights.own
    if cell.biases_after:
        H = own.shape[1]
        return np.zeros_like(b_ih), np.zeros_like(b_hh), np.concatenate([own, b_ih.reshape(-1, H), b_hh.reshape(-1, H)])
    return (b_ih, b_hh, own) if cell.apart else (b_ih + b_hh, b_hh[:0], own)


def two_matrices(cell, weights):
    """What multiplies h_prev, and what the second product inside the step multiplies: nothing for most cells."""
    U, H = weights.U, weights.own.shape[1]
    if cell.projects:
        return U, weights.W_hr
    return (U[:-H], U[-H:]) if cell.second_forward_row else (U, U[:0])


def keep_of(weights):
    """keep (B,R), without rows where there is no recurrent dropout."""
    return np.empty((0, weights.U.shape[1]), weights.U.dtype) if weights.keep is None else weights.keep


def heard(weights, h, mask):
    """h * keep of every step (B,T,R), 0 where masked -> (B*T,R)."""
    h = select(h, mask)
    if weights.keep is not None:
        h *= weights.keep[:, None]
    return h.reshape(-1, h.shape[2])


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
    def forward_rows(x, saved, states, fresh, mask, zone, keep, rows, R, W_panels, U_panels, second_panels, b_x, b_h,
                     own, reverse):
        """The whole sequence for some batch rows.  Fills saved (B,T,N,H); without W_panels it holds x @ W.T + b_x in
        its first G blocks on entry.  b_h: the bias of the state's part, empty if it is in b_x already."""
        T, H = saved.shape[1], saved.shape[3]
        D, lanes = x.shape[2], U_panels.shape[2]
        first = (A - G) * H                                                 # column of h_prev @ U.T in a
        real = np.empty(len(rows), np.int64)
        x_t = np.empty((len(rows), D), saved.dtype)
        h_prev = np.empty((len(rows), R), saved.dtype)
        a = np.zeros((len(rows), first + len(U_panels) * lanes), saved.dtype)
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
                    copy_row(a[n, G * H:G * H + len(b_h)], b_h)
                    if len(W_panels):
                        copy_row(x_t[n], x[b, t])
                        copy_row(a[n, :G * H], b_x)
                    else:
                        for k in range(G):
                            copy_row(a[n, k * H:(k + 1) * H], saved[b, t, k])
                    n += 1
                else:
                    states[b, after] = states[b, before]
            for p in range(len(W_panels)):                                  # a_x += x @ W.T
                add_product(x_t, n, W_panels, p, 0, D, a, p * lanes)
            for p in range(len(U_panels)):                                  # a_h += h_prev @ U.T
                add_product(h_prev, n, U_panels, p, 0, R, a, first + p * lanes)
            for r in range(n):
                b = real[r]
                new = fresh[b, t] if len(zone) else states[b, after]
                forward_row(a[r, :A * H].reshape((A, H)), own, states[b, before], new, saved[b, t])
                if len(zone):
                    mix(zone[b, t], states[b, before], new, states[b, after])

    @compiled
    def backward_rows(saved, states, fresh, mask, zone, keep, rows, R, U_panels, second_panels, own, reverse, dy,
                      d_state, da, d_own):
        """The reverse of ``forward_rows``.  d_state: of the final states on entry, of the initial ones on return.
        Fills da (B,T,A*H) at real steps, adds to d_own (B,P,H)."""
        T, H = saved.shape[1], saved.shape[3]
        lanes = U_panels.shape[2]
        real = np.empty(len(rows), np.int64)
        stay = np.empty((len(rows), *d_state.shape[1:]), saved.dtype)
        da_h = np.empty((len(rows), G * H), saved.dtype)
        dh_prev = np.empty((len(rows), len(U_panels) * lanes), saved.dtype)
        for turn in range(T):
            t = turn if reverse else T - 1 - turn
            before, after = (t + 1, t) if reverse else (t, t + 1)
            n = 0
            for b in rows:
                if mask[b, t]:
                    for j in range(R):
                        d_state[b, 0, j] += dy[b, t, j]                     # y = h
                    new = fresh[b, t] if len(zone) else states[b, after]
                    if len(zone):
                        mix_backward(zone[b, t], d_state[b], stay[n])
                    backward_row(saved[b, t], own, states[b, before], new, d_state[b],
                                 da[b, t, :A * H].reshape((A, H)), d_own[b])
                    if len(zone):
                        d_state[b] += stay[n]
                    real[n] = b
                    copy_row(da_h[n], da[b, t, (A - G) * H:])
                    for j in range(dh_prev.shape[1]):
                        dh_prev[n, j] = 0
                    n += 1
            for p in range(len(U_panels)):                                  # a_h = h_prev @ U.T + b_hh
                add_product(da_h, n, U_panels, p, 0, G * H, dh_prev, p * lanes)
            for r in range(n):
                b = real[r]
                if len(keep):
                    dh_prev[r, :R] *= keep[b]
                for j in range(R):
                    d_state[b, 0, j] += dh_prev[r, j]

    return forward_rows, backward_rows
