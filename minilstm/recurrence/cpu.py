"""A cell over a whole sequence, compiled.  Same functions, parameters and results as ``reference``.

What makes it fast:

1.  A thread owns some batch rows for the whole sequence.  Rows of a batch never meet, so no step waits for a thread.
2.  W and U are packed once per call and multiplied by a register-blocked kernel (``matmul/micro_kernel.py``).  The
    cell's formulas run on some units at a time, while their pre-activations are in the nearest cache.
3.  A masked step is skipped: at every moment the rows that are real are gathered, and only these are computed
    (``schedule.py``).
4.  The backward pass goes in stretches of time, so short that the gradients of the pre-activations are still in a cache
    when the gradients of the weights are made of them.
5.  Memory is used again (``machine/buffers.py``), and without a cache for the backward pass next to none is needed.

What a row computes depends on nothing but the row: the results are the same bits for any number of threads, any batch
around it and any padding.

    B  batch     T  time steps     D  input features     H  hidden units     S  states     G  blocks of W and U
    R  width of h: H, or less for a cell that projects its output; then h takes the first R columns of its row
    A  pre-activation blocks: G, or 2G (input's, then state's) for a cell that keeps them apart
    N  numbers that a unit saves for the backward pass     P  parameters that a unit has for itself
    n  real steps of all rows together, in the order of ``schedule.py``
"""
import functools
from typing import NamedTuple

import numpy as np

from ..cells import Cell, Weights
from ..machine.buffers import empty, zeros
from ..machine.kernel import is_ours, kernel
from ..machine.threads import spread, threads_for
from ..matmul.cpu import add_product, lanes_of, no_panels, pack, pack_rows, product
from .cpu_one_product import one_product_kernels
from .cpu_two_products import two_product_kernels
from .schedule import Schedule, groups, schedule, stretches

UNITS_AT_ONCE = 64          # whose formulas are computed together: their pre-activations stay in the nearest cache
ROWS_IN_LOOP = 8            # for a batch of at least so many rows x @ W.T is made inside the loop, a step at a time: it
#                             costs less than to write it for the whole sequence and to read it again;
BYTES_IN_LOOP = 2**16       # and for a W of at most so many bytes, which is read at each step in no time
STRETCH_BYTES = 8 * 2**20   # of gradients of pre-activations that are made before they are used,
STRETCH_STEPS = 512         # but so many steps at least: each use reads and writes the gradients of all weights


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    cell: Cell
    weights: Weights
    x: np.ndarray           # (B,T,D)
    mask: np.ndarray        # (B,T)
    plan: Schedule          # of the mask
    reverse: bool
    zone: np.ndarray        # (B,T,S,H), or (0,0,S,H) without zoneout
    saved: np.ndarray       # (B,T,N,width): H, or more (``units_of``), like the next two
    states: np.ndarray      # (B,T+1,S,width)
    fresh: np.ndarray       # (B,T,S,width): what the cell made of the states, before zoneout; no rows without


def forward(cell, weights, x, mask, initial, reverse=False, zoneout=None, caching=True):
    """x (B,T,D), mask (B,T), initial: one (B,R) or (B,H) for each of cell.states; zoneout: for each of them a (B,T,R)
    or (B,T,H), or None -> y (B,T,R), 0 at masked steps; the final states as a tuple; Cache, or None unless caching."""
    B, T, _ = x.shape
    D = weights.W.shape[1]                                                  # x has more columns for a cell that fades
    GH, R = weights.U.shape
    S, N = len(cell.states), len(cell.saved)
    H = GH // len(cell.blocks)
    width, units = units_of(cell, H, lanes_of(x.dtype))
    slots = T + 1 if caching else 2                                         # of states: all moments, or two in turn
    states = empty((B, slots, S, width), x.dtype)
    for k, s0 in enumerate(initial):
        states[:, T % slots if reverse else 0, k, :s0.shape[1]] = s0
    zone = side_by_side(zoneout, H) if zoneout else np.empty((0, 0, S, H), x.dtype)
    fresh = empty((*zone.shape[:3], width), x.dtype)
    saved = empty((B if caching else 0, T, N, width), x.dtype)
    y = empty((B, T, R), x.dtype)
    plan = schedule(mask)
    n = int(plan.first[T])
    in_loop = multiplies_in_loop(weights.W, B)
    packed = forward_panels(cell, weights, width, units, in_loop)
    b_x = None if in_loop else biases_and_own(cell, weights)[0]
    forward_rows, _ = kernels(cell)
    threads = threads_for(n * (weights.W.size + weights.U.size + weights.W_hr.size))
    shares = groups(plan, threads)
    nothing = np.empty((0, GH), x.dtype)
    steps_at_once = n if in_loop else max(STRETCH_STEPS, STRETCH_BYTES // (GH * x.itemsize))
    for moments in stretches(plan, steps_at_once, backwards=reverse):
        a_x = nothing if in_loop else projected(x, D, weights.W, b_x, places(plan, moments))
        spread(lambda k: forward_rows(
            x, a_x, y, saved, states, fresh, mask, numbers(plan, shares[k], moments), zone, keep_of(weights),
            plan.order[slice(*shares[k])], moments, units, *packed, reverse), len(shares), threads)
    finals = tuple(states[:, 0 if reverse else T % slots, k, :s0.shape[1]] for k, s0 in enumerate(initial))
    return y, finals, Cache(cell, weights, x, mask, plan, reverse, zone, saved, states, fresh) if caching else None


def backward(cache, dy, d_final):
    """dy (B,T,R): gradient of the output h of every real step; d_final: for each state the gradient of its final value.

    -> dx (B,T,D), 0 at masked steps; the gradients of the initial states as a tuple; Weights of gradients."""
    cell, weights, x, mask, plan, reverse, zone, saved, states, fresh = cache
    B, T, _ = x.shape
    D = weights.W.shape[1]
    GH, R = weights.U.shape
    H = GH // len(cell.blocks)
    width = GH * (1 + cell.apart) + len(weights.W_hr)                       # of a step's gradients of pre-activations
    d_state = side_by_side(d_final, H)                                      # (B,S,H)
    _, _, own = biases_and_own(cell, weights)
    d_own = np.zeros((B, *own.shape), x.dtype)                              # row by row, so that threads share none
    d_row_bias = np.zeros((0 if weights.row_bias is None else B, GH), x.dtype)
    first, second = two_matrices(cell, weights)
    in_loop = multiplies_in_loop(weights.W, B)
    W_panels = pack(weights.W) if in_loop else no_panels(x.dtype)
    U_panels = pack(first)
    second_panels = pack(second) if len(second) else no_panels(x.dtype)
    dx = empty(x.shape, x.dtype) if in_loop else zeros(x.shape, x.dtype)
    sums = Sums(cell, weights)
    _, backward_rows = kernels(cell)
    threads = threads_for(int(plan.first[T]) * (weights.W.size + weights.U.size + weights.W_hr.size))
    shares = groups(plan, threads)
    steps_at_once = max(STRETCH_STEPS, STRETCH_BYTES // (width * x.itemsize))
    for moments in stretches(plan, steps_at_once, backwards=not reverse):
        n = int(plan.first[moments[1]] - plan.first[moments[0]])
        da = empty((n, width), x.dtype)
        heard = empty((n, D + R + (H if len(second) else 0)), x.dtype)
        spread(lambda k: backward_rows(
            x, dy, dx, saved, states, fresh, mask, numbers(plan, shares[k], moments), zone, keep_of(weights),
            plan.order[slice(*shares[k])], moments, U_panels, W_panels, second_panels, own, reverse, d_state, da, heard,
            d_own, d_row_bias), len(shares), threads)
        if not in_loop:
            dx[(*places(plan, moments), slice(D))] = product(da[:, :GH], weights.W)     # a_x = x @ W.T + b_ih
        sums.add(da, heard)
    d_initial = tuple(d_state[:, k, :d.shape[1]] for k, d in enumerate(d_final))
    d_weights = sums.weights(d_own.sum(axis=0))
    return dx, d_initial, d_weights if weights.row_bias is None else d_weights._replace(row_bias=d_row_bias)


class Sums:
    """The gradients of the weights, summed over all steps.  da (n,...): the gradients of the pre-activations, of x and
    h apart or together, then of a second product; heard (n,...): x, h_prev * keep, and what a second product read."""

    def __init__(self, cell, weights):
        self.cell, self.W, self.U = cell, weights.W, weights.U
        self.first, self.second = (len(matrix) for matrix in two_matrices(cell, weights))
        GH, D = weights.W.shape
        R, dtype = weights.U.shape[1], weights.W.dtype
        self.together = not cell.apart and not self.second                  # one da for [x, h]
        if self.together:
            self.dWU = zeros((GH, D + R), dtype)
            self.dW, self.dU = self.dWU[:, :D], self.dWU[:, D:]
        else:
            self.dW, self.dU = zeros((GH, D), dtype), zeros((GH, R), dtype)
        self.dW_hr = np.zeros_like(weights.W_hr)
        self.db = np.zeros((1 + cell.apart) * GH, dtype)

    def add(self, da, heard):
        """The share of some steps, all of them or a stretch of time."""
        GH, D = self.W.shape
        R, first = self.U.shape[1], self.first
        x, h, read = heard[:, :D], heard[:, D:D + R], heard[:, D + R:]
        da_h = da[:, GH * self.cell.apart:]
        if self.together:
            add_product(self.dWU, da.T, heard)                              # a = x @ W.T + h @ U.T
        else:
            add_product(self.dW, da[:, :GH].T, x)                           # a_x = x @ W.T
            add_product(self.dU[:first], da_h[:, :first].T, h)              # a_h = h @ U.T
        if self.second:                                                     # w += read @ second.T
            add_product(self.dW_hr if self.cell.projects else self.dU[first:], da[:, -self.second:].T, read)
        if not self.cell.normalises:
            self.db += da[:, :len(self.db)].sum(axis=0)                     # a_x = ... + b_ih,  a_h = ... + b_hh

    def weights(self, d_own):
        """d_own (P,H) -> Weights."""
        GH = len(self.W)
        own, db = d_own, self.db
        if self.cell.normalises:
            own, db = d_own[:len(self.cell.own)], d_own[len(self.cell.own):].ravel()
        return Weights(self.dW, self.dU, db[:GH], db[-GH:], own, self.dW_hr)


def forward_panels(cell, weights, width, units, in_loop):
    """What the forward kernels multiply by and add: panels of W, of U and of the second matrix, the two biases in the
    order of their columns (that beside W for each row of the batch, if these differ, else once), and own, as wide as
    the states."""
    dtype, H = weights.W.dtype, weights.own.shape[1]
    lanes = lanes_of(dtype)
    b_x, b_h, own = biases_and_own(cell, weights)
    if width > H and len(own):
        own = np.pad(own, ((0, 0), (0, width - H)))
    first, second = two_matrices(cell, weights)
    order_x, order_h = (order_of_columns(len(matrix) // H, H, width, units, lanes) for matrix in (weights.W, first))
    return (pack_rows(weights.W, order_x) if in_loop else no_panels(dtype), pack_rows(first, order_h),
            pack(second.T) if len(second) else no_panels(dtype),
            np.take(np.atleast_2d(b_x)[:None if in_loop else 1], order_x, axis=1),      # order -1: any number will do
            b_h[order_x].reshape(-1, lanes), own)


def multiplies_in_loop(W, B):
    """Is x @ W.T made step by step, or for many steps at once?"""
    return B >= ROWS_IN_LOOP or W.nbytes <= BYTES_IN_LOOP


def projected(x, D, W, b_x, places):
    """x @ W.T + b_x (n,G*H) of the steps at ``places``, from the first D columns of x (B,T,...).  b_x (G*H,) or, for
    each row, (B,G*H): each number begins with it, as in the loop, and so has the same bits."""
    if b_x.ndim == 1:
        return product(x[places][:, :D], W.T, b_x)
    a_x = b_x[places[0]]
    add_product(a_x, x[places][:, :D], W.T)
    return a_x


def places(plan, moments):
    """Where in a (B,T) array the real steps of some moments stand, in the order of their numbers: rows, moments."""
    first, last = moments
    t, rank = np.nonzero(plan.real[first:last])
    return plan.order[rank], first + t


def numbers(plan, ranks, moments):
    """(T,) of each moment the number of the first real step of some ranks, counted from the first of the moments."""
    first = plan.first[:-1] - plan.first[moments[0]]
    return first + np.count_nonzero(plan.real[:, :ranks[0]], axis=1) if ranks[0] else first


def side_by_side(arrays, H):
    """One (...,R) or (...,H) for each state -> (...,S,H), with zeros where h is narrower than H."""
    wide = np.zeros((*arrays[0].shape[:-1], len(arrays), H), arrays[0].dtype)
    for k, array in enumerate(arrays):
        wide[..., k, :array.shape[-1]] = array
    return wide


def biases_and_own(cell, weights):
    """What is added to x @ W.T, for each row of the batch or for all; what is added to h_prev @ U.T (nothing, if it is
    in the first already); and what the units have for themselves, which for some cells includes the biases."""
    b_x, b_h, own = weights.b_ih, weights.b_hh, weights.own
    if cell.normalises:
        H = own.shape[1]
        own = np.concatenate([own, b_x.reshape(-1, H), b_h.reshape(-1, H)])
        b_x, b_h = np.zeros_like(b_x), np.zeros_like(b_h)
    elif not cell.apart:
        b_x, b_h = b_x + b_h, np.zeros_like(b_h)
    return b_x if weights.row_bias is None else b_x + weights.row_bias, b_h, own


def two_matrices(cell, weights):
    """What multiplies h_prev, and what the second product inside the step multiplies: nothing for most cells."""
    U, H = weights.U, weights.own.shape[1]
    if cell.projects:
        return U, weights.W_hr
    return (U[:-H], U[-H:]) if cell.second_forward_row else (U, U[:0])


def keep_of(weights):
    """keep (B,R), without rows where there is no recurrent dropout."""
    return np.empty((0, weights.U.shape[1]), weights.U.dtype) if weights.keep is None else weights.keep


def units_of(cell, H, lanes):
    """(the width of a row of states, how many units the formulas are computed for together).

    A row that is shorter than a vector is filled up to one: a loop over less than a vector takes unit by unit.  A cell
    that looks at all units of a row together gets them alone, and all of them."""
    if cell.normalises or cell.second_forward_row:
        return H, H
    return max(H, lanes), min(max(H, lanes), UNITS_AT_ONCE)


@functools.lru_cache(maxsize=64)
def order_of_columns(blocks, H, width, units, lanes):
    """The rows of a matrix of ``blocks`` times H, as columns of panels: for some units at a time, block by block,
    filled up to whole panels, and each block to ``width``, with -1."""
    rows = np.full((blocks, width), -1)
    rows[:, :H] = np.arange(blocks * H).reshape(blocks, H)
    order = []
    for u in range(0, width, units):
        some = rows[:, u:u + units].ravel()
        order += [some, np.full(-len(some) % lanes, -1)]
    return np.concatenate(order)


@functools.cache
def kernels(cell):
    """(forward_rows, backward_rows) with the cell's formulas compiled into them."""
    rows = (cell.forward_row, cell.backward_row, cell.second_forward_row, cell.second_backward_row)
    compiled = functools.partial(kernel, cached=all(is_ours(row) for row in rows if row))
    return (two_product_kernels if cell.second_forward_row else one_product_kernels)(cell, compiled)
