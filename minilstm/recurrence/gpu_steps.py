"""A cell over a sequence on a GPU, one launch for each step: the plainest way, for any number of units.

A thread computes one unit of one row of the batch, with the formulas of the cell's own file:

    a_h = b_h + h_prev @ U.T                G sums over the H units of the row
    new state = forward_row of a_x, a_h     one unit

A launch ends when all its threads have ended, so at the next one every h_prev is there: no thread ever waits for
another.  What it costs is a launch at every step, and that U is read from memory at every step again.

A block has 32 units of 8 rows.  The 32 threads of a warp read 32 neighbours of U.T in one access, and the 8 warps of a
block the same ones, which are then in the cache of their multiprocessor.

    states (S,B,T+1,W)   the state before step t in slot t and after it in slot t+1, or with ``reverse`` the other way
                         round; W is H or a little more, and nobody reads the columns beyond H
    S  states     G  blocks of U     A  pre-activation blocks: G, or 2G for a cell that keeps input's and state's apart
    N  numbers that a unit saves for the backward pass     P  parameters that a unit has for itself
"""
import functools
from typing import NamedTuple

from numba import cuda, float32

from ..device.gpu import empty, launch
from ..device.kernel import B2, F1, F2, F3, F4, Int, device_function, kernel
from .reference import walk

ROWS, UNITS = 8, 32         # of a block
THREADS = ROWS * UNITS
NONE = -1                   # in place of a step: there is none


class Sizes(NamedTuple):
    """Of a cell; see above."""
    S: int
    G: int
    A: int
    N: int
    P: int

    def local(self):
        """The shapes of what a thread holds of its unit, as the row functions of the cell take them: states, a, saved,
        own.  A local array cannot be empty, so each has one number at least."""
        return tuple((max(1, n), 1) for n in (self.S, self.A, self.N, self.P))


def sizes(cell):
    G = len(cell.blocks)
    return Sizes(len(cell.states), G, G * (1 + cell.apart), len(cell.saved), len(cell.own))


def fits(cell, B, H, multiprocessors):
    """Any shape does."""
    return True


# ------------------------------------------------------------------------------------------------------------ forward

def forward(cell, weights, b_h, a_x, mask, states, saved, y, finals, reverse):
    """a_x (B,T,G*H); b_h (G*H,), zeros unless the cell is apart; mask (B,T); states (S,B,T+1,W) with the initial ones
    in their slot; saved (B,T,N,H), or None if no backward pass follows.

    Fills the other slots of states; saved at real steps; y (B,T,H), 0 at masked steps; finals (S,B,H)."""
    _, T, _ = y.shape
    step = forward_kernel(cell, saved is not None)
    U_T = transposed(weights.U)
    for t, before, after in walk(T, reverse):
        launch(step, grid_for(y), a_x, b_h, U_T, weights.own, mask, states, states if saved is None else saved, y,
               t, before, after)
    launch(copy_slot, grid_for(y), states, finals, 0 if reverse else T)


@functools.cache
def forward_kernel(cell, saving):
    S, G, A, N, P = sizes(cell)
    states_shape, a_shape, saved_shape, own_shape = sizes(cell).local()
    forward_row, apart = cell.forward_row, cell.apart

    @kernel(threads=THREADS)
    def forward_step(a_x: F3, b_h: F1, U_T: F2, own: F2, mask: B2, states: F4, saved: F4, y: F3, t: Int, before: Int,
                     after: Int):
        b, j = place_of_thread()
        B, T, H = y.shape
        if b >= B or j >= H:
            return
        prev = cuda.local.array(states_shape, float32)
        for s in range(S):
            prev[s, 0] = states[s, b, before, j]
        if not mask[b, t]:
            for s in range(S):
                states[s, b, after, j] = prev[s, 0]
            y[b, t, j] = float32(0)
            return

        a_h = cuda.local.array(G, float32)
        for g in range(G):
            a_h[g] = b_h[g * H + j]
        for k in range(H):                                                  # a_h = b_h + h_prev @ U.T
            h_prev = states[0, b, before, k]
            for g in range(G):
                a_h[g] += h_prev * U_T[k, g * H + j]

        a = cuda.local.array(a_shape, float32)
        for g in range(G):
            a[g, 0] = a_x[b, t, g * H + j]
            if apart:
                a[G + g, 0] = a_h[g]
            else:
                a[g, 0] += a_h[g]
        own_j = cuda.local.array(own_shape, float32)
        for p in range(P):
            own_j[p, 0] = own[p, j]
        new = cuda.local.array(states_shape, float32)
        saved_j = cuda.local.array(saved_shape, float32)
        forward_row(a, own_j, prev, new, saved_j)
        for s in range(S):
            states[s, b, after, j] = new[s, 0]
        if saving:
            for n in range(N):
                saved[b, t, n, j] = saved_j[n, 0]
        y[b, t, j] = new[0, 0]

    return forward_step


# ----------------------------------------------------------------------------------------------------------- backward

def backward(cell, weights, mask, saved, states, dy, d_state, da, d_own, reverse):
    """The reverse of ``forward``.  dy (B,T,H); d_state (S,B,H): on entry of the final states, on return of the initial
    ones.  Fills da (B,T,A*H), the gradients of a_x and, for a cell that keeps it apart, of a_h; 0 at masked steps.
    Adds to d_own (B,P,H)."""
    _, T, _ = dy.shape
    step = backward_kernel(cell)
    later = NONE
    for t, before, after in [*reversed(walk(T, reverse)), (NONE, NONE, NONE)]:
        launch(step, grid_for(dy), weights.U, weights.own, mask, saved, states, dy, d_state, da, d_own, t, before,
               after, later)
        later = t


@functools.cache
def backward_kernel(cell):
    S, G, A, N, P = sizes(cell)
    states_shape, a_shape, saved_shape, own_shape = sizes(cell).local()
    backward_row = cell.backward_row

    @kernel(threads=THREADS)
    def backward_step(U: F2, own: F2, mask: B2, saved: F4, states: F4, dy: F3, d_state: F3, da: F3, d_own: F3, t: Int,
                      before: Int, after: Int, later: Int):
        """later: the step that the last launch has reversed.  What it put into da reaches h_prev through U now, when da
        of all units is there."""
        b, j = place_of_thread()
        B, T, H = dy.shape
        if b >= B or j >= H:
            return
        d = cuda.local.array(states_shape, float32)
        for s in range(S):
            d[s, 0] = d_state[s, b, j]
        if later != NONE and mask[b, later]:
            dh = cuda.local.array(G, float32)
            for g in range(G):
                dh[g] = float32(0)
            for k in range(H):
                for g in range(G):
                    dh[g] += da[b, later, (A - G + g) * H + k] * U[g * H + k, j]        # a_h = b_h + h_prev @ U.T
            for g in range(G):
                d[0, 0] += dh[g]

        if t != NONE and mask[b, t]:
            d[0, 0] += dy[b, t, j]                                          # y = h, the first state
            prev = cuda.local.array(states_shape, float32)
            new = cuda.local.array(states_shape, float32)
            for s in range(S):
                prev[s, 0] = states[s, b, before, j]
                new[s, 0] = states[s, b, after, j]
            saved_j = cuda.local.array(saved_shape, float32)
            for n in range(N):
                saved_j[n, 0] = saved[b, t, n, j]
            own_j = cuda.local.array(own_shape, float32)
            d_own_j = cuda.local.array(own_shape, float32)
            for p in range(P):
                own_j[p, 0] = own[p, j]
                d_own_j[p, 0] = d_own[b, p, j]
            d_a = cuda.local.array(a_shape, float32)
            backward_row(saved_j, own_j, prev, new, d, d_a, d_own_j)
            for k in range(A):
                da[b, t, k * H + j] = d_a[k, 0]
            for p in range(P):
                d_own[b, p, j] = d_own_j[p, 0]
        elif t != NONE:
            for k in range(A):
                da[b, t, k * H + j] = float32(0)
        for s in range(S):
            d_state[s, b, j] = d[s, 0]

    return backward_step


# ---------------------------------------------------------------------------------------------------------- small parts

@device_function
def place_of_thread():
    """-> the row of the batch and the unit of this thread."""
    thread = cuda.threadIdx.x
    return cuda.blockIdx.x * ROWS + thread // UNITS, cuda.blockIdx.y * UNITS + thread % UNITS


def grid_for(y):
    """The blocks for all units of all rows.  y (B,T,H)."""
    B, _, H = y.shape
    return -(-B // ROWS), -(-H // UNITS)


@kernel(threads=THREADS)
def copy_slot(states: F4, finals: F3, slot: Int):
    """finals (S,B,H) = the states in one slot."""
    b, j = place_of_thread()
    S, B, H = finals.shape
    if b < B and j < H:
        for s in range(S):
            finals[s, b, j] = states[s, b, slot, j]


def transposed(U):
    """U (G*H,H) -> U.T (H,G*H), in memory of its own."""
    GH, H = U.shape
    U_T = empty((H, GH))
    launch(transpose, -(-GH * H // THREADS), U, U_T)
    return U_T


@kernel(threads=THREADS)
def transpose(U: F2, U_T: F2):
    H, GH = U_T.shape
    place = cuda.grid(1)
    if place < GH * H:
        U_T[place // GH, place % GH] = U[place % GH, place // GH]
