"""A walk through time on a GPU in which U never leaves the chip: several blocks share one copy of it, in registers.

One launch does a whole sequence.  P blocks are a group, which computes some rows of the batch.  Each block owns some
units, and with them their rows of all G blocks of U:

                          units 0 to 15     units 16 to 31     ...     the last units, 16 or fewer
    rows 0 to 7           block 0           block 1            ...     block P - 1
    rows 8 to 15          block P           block P + 1        ...     block 2P - 1
                          with the same share of U in each column of this table

A block needs h_prev of all units and makes h of its own.  At each step, for each *chunk* of its group's rows, it

    1.  waits for h_prev of all units;
    2.  multiplies it by its rows of U;
    3.  adds up what its threads have summed;
    4.  applies the cell's formulas, a thread for each unit of each row;
    5.  publishes h.

With several chunks, the results of one travel while the next is computed.  The walk back is the same with other names:
the block owns columns of U, waits for da of all units, and makes dh of its own.  ``gpu_blocks_products.py`` has the
product in float32, ``gpu_blocks_tensor.py`` the one on tensor cores, for which TF32 has to be allowed.

How blocks exchange numbers.  h of every step has to be written to memory anyway, each step to a place of its own.  That
memory is filled with the bits UNWRITTEN before; a block that needs a number looks at it until it is there.  So there is
no flag and no barrier among blocks, and nothing is overwritten that somebody may still read.  All blocks have to be on
the chip together.  Nobody waits for ever: see ``ptx.poll4``.

Masks.  A bit for each row of a chunk says whether its step is real (``real_rows``).  A row whose step is masked is
neither waited for nor multiplied: the threads that own it hand its state on.  A step at which no row of a chunk is real
is over without a barrier.

    B  batch     T  time steps     H  hidden units     S  states     G  blocks of W and U
    A  pre-activation blocks: G, or 2G (input's, then state's) for a cell that keeps them apart
    N  numbers that a unit saves for the backward pass     P  parameters that a unit has for itself

Source: G. Diamos et al., Persistent RNNs: Stashing Recurrent Weights On-Chip, 2016 (U in registers).
"""
import math

from numba import cuda

from ..device import ptx
from ..device.gpu import current, empty, launch, tf32_allowed
from ..device.kernel import B2, F1, I2, Int, kernel
from ..device.ptx import UNWRITTEN
from .gpu_blocks_kernels import backward_kernel, forward_kernel, pack_kernel
from .gpu_blocks_plan import backward_work, forward_work, plan

MOST_UNITS = 1024
ROWS_FOR_TENSOR = 8         # a group has to compute so many rows before tensor cores take less time
THREADS = 256               # of the small kernels


# ----------------------------------------------------------------------------------------------------- which form, when

def chosen(work, B, multiprocessors, tensor):
    """The Plan on tensor cores where that is wished, possible and sensible, else in float32; None where none fits."""
    if tensor:
        found = plan(work, True, B, multiprocessors)
        if found and found.rows * found.chunks >= ROWS_FOR_TENSOR:
            return found
    return plan(work, False, B, multiprocessors)


def fits(cell, B, H, multiprocessors):
    """Can these kernels walk the cell?  Its step has to be formulas of one unit, H a multiple of 4, and U has to fit
    into the registers of so many multiprocessors."""
    if cell.normalises or cell.second_forward_row or cell.fades or H % 4 or not 4 <= H <= MOST_UNITS or B < 1:
        return False
    return None not in (plan(work(cell, H), False, B, multiprocessors) for work in (forward_work, backward_work))


# -------------------------------------------------------------------------------------------------------- the two walks

def forward(cell, weights, b_h, a_x, mask, states, saved, y, finals, reverse, plan=None):
    """The walk forward.  All arrays are DeviceArrays.

    weights.U (G*H,H), weights.own (P,H); b_h (G*H,), added to h_prev @ U.T for a cell that keeps it apart, else not
    used; a_x (B,T,G*H): x @ W.T + biases; mask (B,T); states (S,B,T+1,H), whose initial slot (0; T if reverse) is
    filled.  Fills the other slots, saved (B,T,N,H) at real steps (None: nothing is saved), y (B,T,H), 0 at masked
    steps, and finals (S,B,H), which are the initial states bit for bit for a row without a real step.
    plan: a Plan, or None for the one that ``chosen`` gives."""
    S, B, slots, H = states.shape
    saves = saved is not None and len(cell.saved) > 0
    plan = plan or chosen(forward_work(cell, H), B, current().multiprocessors, tf32_allowed())
    real = real_rows_of(mask, plan)
    unwritten(states[0], H, slots, slots - 1 if reverse else 0)
    launch(forward_kernel(cell, plan.layout, saves), plan.groups * plan.layout.blocks,
           packed(weights.U, plan.layout, False), some(weights.own), b_h, a_x, real, states,
           saved if saves else empty((1, 1, 1, 1)), y, finals, current().error, plan.rows, plan.chunks,
           plan.groups, reverse)


def backward(cell, weights, mask, saved, states, dy, d_state, da, d_own, reverse, plan=None):
    """The walk back.  weights, mask, saved, states, plan: as in ``forward``; dy (B,T,H), of which masked steps are not
    read; d_state (S,B,H): the gradients of the final states, replaced by those of the initial ones.  Fills da
    (B,T,A*H), 0 at masked steps, and d_own (B,P,H), which each row of the batch has for itself."""
    S, B, slots, H = states.shape
    plan = plan or chosen(backward_work(cell, H), B, current().multiprocessors, tf32_allowed())
    real = real_rows_of(mask, plan)
    unwritten(da, da.shape[2], 1, -1)
    launch(backward_kernel(cell, plan.layout), plan.groups * plan.layout.blocks,
           packed(weights.U, plan.layout, True), some(weights.own), real, some(saved), states, dy, d_state, da,
           some(d_own), current().error, plan.rows, plan.chunks, plan.groups, reverse)


def some(array):
    """The array, or one with a number in it where it has none: not every driver takes an address of nothing."""
    return array if array.size else empty((1,) * array.ndim)


def packed(U, layout, backward):
    """U, or its transpose, in the order in which the threads of a group load it."""
    shares = empty(layout.blocks * layout.weights * layout.threads)
    launch(pack_kernel(layout, backward), layout.blocks * layout.weights, U, shares)
    return shares


def unwritten(array, width, slots, kept):
    """Fill rows of ``width`` numbers with UNWRITTEN, but for number ``kept`` of every ``slots`` rows."""
    flat = array.reshape(array.size)
    launch(fill_unwritten, -(-array.size // (4 * THREADS)), flat, width, slots, kept)


def real_rows_of(mask, plan):
    """mask (B,T) -> (chunks of all groups, T) int32: bit r says whether the step of row r of the chunk is real."""
    B, T = mask.shape
    of_group = plan.chunks * plan.rows
    real = empty((-(-B // of_group) * plan.chunks, T), "int32")
    launch(real_rows, -(-math.prod(real.shape) // THREADS), mask, real, plan.rows)
    return real


# ---------------------------------------------------------------------------------------------------- the small kernels

@kernel(threads=THREADS)
def fill_unwritten(array: F1, width: Int, slots: Int, kept: Int):
    place = cuda.grid(1) * 4
    if place < array.size and place // width % slots != kept:
        nothing = ptx.float_of(UNWRITTEN)
        ptx.store4(array, place, nothing, nothing, nothing, nothing)


@kernel(threads=THREADS)
def real_rows(mask: B2, real: I2, rows: Int):
    chunk, t = cuda.grid(1) // real.shape[1], cuda.grid(1) % real.shape[1]
    if chunk < real.shape[0]:
        bits = 0
        for r in range(min(rows, mask.shape[0] - chunk * rows)):
            if mask[chunk * rows + r, t]:
                bits |= 1 << r
        real[chunk, t] = bits
