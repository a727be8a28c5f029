"""A cell over a whole sequence on a GPU.  Same functions, parameters and results as ``reference``, float32 only.

All arrays are DeviceArrays.  What does not depend on the step before is one large product over the whole sequence:
x @ W.T before the walk through time, and dx, dW, dU after the walk back.  The walk itself is done by one of these
modules, the first that can take the cell and the shape:

    gpu_rows      a block owns some rows of the batch for the whole sequence, with U in its registers: no thread ever
                  waits for another block, and no number of U is read twice; for a U that fits into a block
    gpu_blocks    blocks share U out among their registers, and wait for each other's h at every step: U stays on the
                  chip for the whole sequence; for H a multiple of 4 up to 1024, as far as the chip has room
    gpu_steps     a launch at every step; for any shape

``with using("steps"):`` asks for one of them by its name.  They add the products of h_prev and U in different orders,
each in one order, so the same call gives the same bits.  In the walks "rows" and "steps" a row has the same bits in any
batch; "blocks" chooses its order by the number of rows and of multiprocessors, and by whether TF32 is allowed.

    B  batch     T  time steps     D  input features      H  hidden units     S  states     G  blocks of W and U
    A  pre-activation blocks: G, or 2G (input's, then state's) for a cell that keeps them apart
    N  numbers that a unit saves for the backward pass     P  parameters that a unit has for itself
"""
import contextlib
from types import ModuleType
from typing import NamedTuple

from numba import cuda, float32

from ..cells import Cell, Weights
from ..device.arrays import DeviceArray
from ..device.elementwise import add, columns, copy_into
from ..device.gpu import current, empty, launch, zeros
from ..device.kernel import B2, F2, F4, Int, kernel
from ..matmul.gpu import column_sums, product
from . import gpu_blocks, gpu_rows, gpu_steps
from .gpu_steps import sizes

THREADS = 256


class Walk(NamedTuple):
    """A way through time: a module with forward, backward and fits."""
    module: ModuleType
    limit: str              # what keeps it from taking a shape


WALKS = {                   # the first that fits is taken
    "rows": Walk(gpu_rows, "U has to fit into the registers of a block"),
    "blocks": Walk(gpu_blocks, "H has to be a multiple of 4 up to 1024, and U to fit into the registers of all blocks"),
    "steps": Walk(gpu_steps, ""),
}


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    cell: Cell
    weights: Weights
    x: DeviceArray          # (B,T,D)
    mask: DeviceArray       # (B,T)
    reverse: bool
    walk: ModuleType
    saved: DeviceArray      # (B,T,N,H)
    states: DeviceArray     # (S,B,T+1,W)


# ------------------------------------------------------------------------------------------------ forward and backward

def forward(cell, weights, x, mask, initial, reverse=False, zoneout=None, caching=True):
    """x (B,T,D), finite at masked steps too, mask (B,T), initial: one (B,H) for each of cell.states -> y (B,T,H), 0 at
    masked steps; the final states as a tuple; Cache, or None unless caching.

    Raises ValueError for a cell that is more than formulas of one unit, for zoneout and for recurrent dropout."""
    refuse_others(cell, weights, zoneout)
    B, T, D = x.shape
    S, G, A, N, P = sizes(cell)
    H = weights.U.shape[1]
    walk = walk_for(cell, B, T, H)
    a_x = projected(cell, weights, x)
    b_h = weights.b_hh if cell.apart else zeros(G * H)
    states = empty((S, B, T + 1, -(-H // 4) * 4))
    for k, s0 in enumerate(initial):
        each(fill_slot, s0.size, s0, states, k, T if reverse else 0)
    saved = empty((B, T, N, H)) if caching else None
    y, finals = empty((B, T, H)), empty((S, B, H))
    walk.forward(cell, weights, b_h, a_x, mask, states, saved, y, finals, reverse)
    finals = tuple(finals[k] for k in range(S))
    return y, finals, Cache(cell, weights, x, mask, reverse, walk, saved, states) if caching else None


def backward(cache, dy, d_final):
    """dy (B,T,H): gradient of the output h of every real step; d_final: for each state the gradient of its final value.

    -> dx (B,T,D), 0 at masked steps; the gradients of the initial states as a tuple; Weights of gradients."""
    cell, weights, x, mask, reverse, walk, saved, states = cache
    B, T, D = x.shape
    S, G, A, N, P = sizes(cell)
    H = weights.U.shape[1]
    d_state, da, d_own = empty((S, B, H)), empty((B, T, A * H)), zeros((B, P, H))
    for k, d in enumerate(d_final):
        copy_into(d, d_state[k])
    walk.backward(cell, weights, mask, saved, states, dy, d_state, da, d_own, reverse)
    da = da.reshape(B * T, A * H)
    da_x, da_h = (columns(da, 0, G * H), columns(da, G * H, A * H)) if cell.apart else (da, da)
    h_prev = empty((B * T, H))
    each(gather_h_prev, h_prev.size, states, mask, h_prev, reverse)
    dx = product(da_x, weights.W).reshape(B, T, D)                          # a_x = x @ W.T + b_ih
    dW = product(da_x.T, x.reshape(B * T, D))                               # a_x = x @ W.T + b_ih
    dU = product(da_h.T, h_prev)                                            # a_h = h_prev @ U.T + b_hh
    db_ih = column_sums(da_x)                                               # a_x = x @ W.T + b_ih
    db_hh = column_sums(da_h) if cell.apart else db_ih                      # a_h = h_prev @ U.T + b_hh
    d_own = column_sums(d_own.reshape(B, P * H)).reshape(P, H)              # each row of the batch has the same own
    d_row_bias = None
    if weights.row_bias is not None:
        d_row_bias = empty((B, G * H))
        each(sum_over_time, d_row_bias.size, da_x, d_row_bias, T)           # a_x = x @ W.T + b_ih + row_bias
    d_weights = Weights(dW, dU, db_ih, db_hh, d_own, empty((0, H)), d_row_bias)
    return dx, tuple(d_state[k] for k in range(S)), d_weights


# -------------------------------------------------------------------------------------------------------- which walk

_asked = []                 # names, the last one counts


@contextlib.contextmanager
def using(walk):
    """In this block the walk with this name is taken, and a shape that it cannot take is an error."""
    if walk not in WALKS:
        raise ValueError(f"walk: expected one of {', '.join(map(repr, WALKS))}, got {walk!r}")
    _asked.append(walk)
    try:
        yield
    finally:
        _asked.remove(walk)


def walk_for(cell, B, T, H):
    """The module that walks a cell with H units over B rows of T steps."""
    def fits(walk):
        return walk.module.fits(cell, B, H, current().multiprocessors)

    if not _asked:
        return next(walk.module for walk in WALKS.values() if fits(walk))
    walk = WALKS[_asked[-1]]
    if not fits(walk):
        raise ValueError(f"walk: {_asked[-1]!r} cannot take {cell.name} with H = {H}, B = {B}: {walk.limit}")
    return walk.module


def refuse_others(cell, weights, zoneout):
    """Raise ValueError for what no walk can do."""
    if cell.normalises or cell.second_forward_row or cell.fades:
        raise ValueError(f"backend: 'gpu' computes cells whose step is formulas of one unit, and {cell.name} is more; "
                         "'cpu' computes it")
    if zoneout is not None:
        raise ValueError("backend: 'gpu' does not compute zoneout; 'cpu' computes it")
    if weights.keep is not None:
        raise ValueError("backend: 'gpu' does not compute recurrent dropout; 'cpu' computes it")


# -------------------------------------------------------------------------------------------------------- small kernels

def each(small, count, *arguments):
    """Launch a kernel with a thread for each of ``count`` numbers."""
    launch(small, -(-count // THREADS), *arguments)


def projected(cell, weights, x):
    """a_x = x @ W.T + b (B,T,G*H), with all that is added to it at every step."""
    B, T, D = x.shape
    GH = len(weights.W)
    b = weights.b_ih if cell.apart else add(weights.b_ih, weights.b_hh)
    a_x = product(x.reshape(B * T, D), weights.W.T, b)
    if weights.row_bias is not None:
        each(add_row_bias, a_x.size, a_x, weights.row_bias, T)
    return a_x.reshape(B, T, GH)


@kernel(threads=THREADS)
def add_row_bias(a_x: F2, row_bias: F2, T: Int):
    """a_x (B*T,G*H) += row_bias (B,G*H), at every step."""
    B, GH = row_bias.shape
    i = cuda.grid(1)
    if i < B * T * GH:
        a_x[i // GH, i % GH] += row_bias[i // GH // T, i % GH]


@kernel(threads=THREADS)
def sum_over_time(da_x: F2, d_row_bias: F2, T: Int):
    """da_x (B*T,G*H) -> d_row_bias (B,G*H), in the order of time."""
    B, GH = d_row_bias.shape
    i = cuda.grid(1)
    if i < B * GH:
        total = float32(0)
        for t in range(T):
            total += da_x[i // GH * T + t, i % GH]
        d_row_bias[i // GH, i % GH] = total


@kernel(threads=THREADS)
def fill_slot(s0: F2, states: F4, k: Int, slot: Int):
    """One slot of states (S,B,T+1,W), of state number k: s0 (B,H)."""
    B, H = s0.shape
    i = cuda.grid(1)
    if i < B * H:
        states[k, i // H, slot, i % H] = s0[i // H, i % H]


@kernel(threads=THREADS)
def gather_h_prev(states: F4, mask: B2, h_prev: F2, reverse: Int):
    """h before every step, from its slot: h_prev (B*T,H), 0 at masked steps."""
    B, T = mask.shape
    H = h_prev.shape[1]
    i = cuda.grid(1)
    if i < B * T * H:
        b, t, j = i // H // T, i // H % T, i % H
        h_prev[i // H, j] = states[0, b, t + reverse, j] if mask[b, t] else float32(0)
