"""How a product with a matrix that stays on the chip is divided among blocks, and among the threads of a block.

At each step every row of the batch brings a vector of L numbers, and each of H units needs R sums over it:

    forward     the vector is h,        L = H        R = G sums, its pre-activations:        h @ U.T
    backward    the vector is da,       L = G * H    R = 1 sum, the gradient of its h:       da @ U

P blocks are a *group*: each owns some units, the last one perhaps fewer, and with each R rows of the matrix, L long.
A group computes some rows of the batch, so there are as many copies of the matrix on the chip as groups.

    Work        these numbers
    Layout      what a kernel is compiled for: the share of a block and of a thread
    Plan        a Layout, and how a batch is divided among groups

``layouts`` lists every Layout that a multiprocessor has room for, and ``plan`` takes the one with the least estimated
time.  Both are arithmetic alone.  The estimate counts instructions and takes latencies from publications; none of it
was fitted to a GPU.
"""
import functools
from typing import NamedTuple

WARP = 32
REGISTERS = 16384               # of each quarter of a multiprocessor; a thread may have 255 at most
SHARED = 48 * 1024 // 4         # float32 numbers of static shared memory of a block
MOST_THREADS = 512              # of a block: 1024 would leave 64 registers to each, too few to hold weights
MOST_WEIGHTS = 144              # of a thread, in registers,
MOST_WEIGHTS_TENSOR = 128       # or where tensor cores multiply
SPARE, SPARE_BACKWARD = 72, 92  # registers that a thread needs beside its weights, found by compiling,
SPARE_TENSOR = 92               # where tensor cores multiply: besides the sums
MOST_ROWS = 31                  # of a chunk: a bit of an int32 says of each whether its step is real
MOST_CHUNKS = 4                 # of a group: enough for the results of one to arrive while others are computed
TENSOR_ROWS = 16                # of a chunk, where tensor cores multiply


class Work(NamedTuple):
    L: int                  # numbers of a vector
    H: int                  # units
    R: int                  # sums that each unit needs
    carried: int            # numbers that each unit of each row keeps in shared memory from step to step
    spare: int              # registers that a thread needs beside its weights


class Layout(NamedTuple):
    """What a kernel is compiled for.

    A thread of the float32 form has 4 rows of the matrix and ``pieces`` times 4 of their columns: threads with the same
    rows are neighbours, ``across`` of them.  On tensor cores a warp has all rows of the block and ``pieces`` times 16
    columns, and there are ``across`` warps."""
    tensor: bool
    L: int                  # as in Work, like H and R
    H: int
    R: int
    units: int              # of a block, a multiple of 4
    across: int             # threads, or warps, that share the columns of a row
    pieces: int             # of the columns of a thread
    rows: int               # of the batch, at most, of a chunk: multiplied between two barriers
    chunks: int             # at most, of a group
    threads: int            # of a block
    scratch: int            # numbers of shared memory for vectors and partial sums

    @property
    def blocks(self):
        """P, of a group."""
        return -(-self.H // self.units)

    @property
    def sums(self):
        """Rows of the matrix in a block."""
        return self.R * self.units

    @property
    def weights(self):
        """Of a thread."""
        return self.pieces * (4 * tiles(self.sums) if self.tensor else 16)

    @property
    def partials(self):
        """How many partial sums each sum is the sum of, in shared memory."""
        return self.across if self.tensor else max(1, self.across // WARP)

    @property
    def stride(self):
        """From one vector to the next in shared memory: L, filled up so that every thread has ``pieces``."""
        return 4 * self.across * self.pieces


class Plan(NamedTuple):
    layout: Layout
    rows: int               # of the batch, of a chunk
    chunks: int             # of a group
    groups: int             # that are on the chip together; those beyond come when these are done


def sizes(cell):
    """S, G, A, N, P of a cell."""
    G = len(cell.blocks)
    return len(cell.states), G, G * (1 + cell.apart), len(cell.saved), len(cell.own)


def forward_work(cell, H):
    S, G, A, N, P = sizes(cell)
    return Work(H, H, G, S, SPARE)                                      # it carries the states


def backward_work(cell, H):
    S, G, A, N, P = sizes(cell)
    return Work(G * H, H, 1, S + P, SPARE_BACKWARD)                     # it carries their gradients, and those of own


def tiles(sums):
    """Of 8 rows of the matrix, as tensor cores take them."""
    return -(-sums // 8)


def partial_stride(sums):
    """From the partial sums of one row of the batch to the next, in shared memory, where tensor cores made them: the
    four rows that a quarter of a warp writes at once are then in different banks."""
    return sums + (8 - sums) % 32


def registers_for(threads):
    """That each of so many threads may have.  Warps are dealt out to four quarters, so 9 need as many as 12."""
    in_quarter = -(-threads // (4 * WARP)) * WARP
    return min(255, REGISTERS // in_quarter // 8 * 8)


# ------------------------------------------------------------------------------------------------------------- layouts

def layouts(work, tensor):
    """Every Layout that a multiprocessor has room for."""
    make, step, most = (on_tensor_cores, 8, MOST_WEIGHTS_TENSOR) if tensor else (in_float32, 4, MOST_WEIGHTS)
    for units in range(step, work.H + step, step):
        for layout in make(work.L, work.H, work.R, units):
            spare = SPARE_TENSOR + 4 * tiles(layout.sums) if tensor else work.spare
            if layout.weights <= min(most, registers_for(layout.threads) - spare):
                layout = with_rows(layout, work.carried)
                if layout:
                    yield layout


def in_float32(L, H, R, units):
    """A warp sums over at most 32 threads, which have to be a power of 2; warps may be as many as wished."""
    for across in (4, 8, 16, *range(WARP, 8 * WARP + 1, WARP)):
        threads = -(-R * units // 4 * across // WARP) * WARP
        if threads <= MOST_THREADS:
            yield Layout(False, L, H, R, units, across, -(-L // (4 * across)), 0, 0, threads, 0)


def on_tensor_cores(L, H, R, units):
    for across in (1, 2, 4, 8, 16):
        yield Layout(True, L, H, R, units, across, -(-L // (16 * across)), 0, 0, across * WARP, 0)


def with_rows(layout, carried):
    """The Layout with as many rows of the batch as its threads (one for each unit of each row) and shared memory have
    room for, or None if that is none."""
    most = min(MOST_ROWS, layout.threads // layout.units)
    if layout.tensor:
        rows = TENSOR_ROWS if most >= TENSOR_ROWS else 0
        scratch = layout.partials * rows * partial_stride(layout.sums)
    else:
        each = layout.stride + layout.partials * layout.sums
        rows = min(most, max(1, SHARED // (each + MOST_CHUNKS * carried * layout.units)))
        scratch = rows * each
    if rows == 0:
        return None
    chunks = min(MOST_CHUNKS, (SHARED - scratch) // (rows * layout.units * carried))
    return layout._replace(rows=rows, chunks=chunks, scratch=scratch) if chunks > 0 else None


# --------------------------------------------------------------------------------------------------------- the fastest

LATENCY = 1400              # clock cycles from a store in one block to its arrival in another
CHUNK = 700                 # of the barriers, the sums over threads and the formulas of a chunk, however few its rows


@functools.lru_cache(maxsize=256)
def plan(work, tensor, B, multiprocessors):
    """The Plan for a batch of B rows with the least estimated time, or None where none fits."""
    plans = (divided(layout, chunk_rows, B, multiprocessors)
             for layout in layouts(work, tensor) if layout.blocks <= multiprocessors
             for chunk_rows in range(1, min(layout.rows, B) + 1))
    return min(plans, key=lambda plan: cycles(plan, B), default=None)


def divided(layout, chunk_rows, B, multiprocessors):
    """The Plan with so many rows in a chunk: over all groups that find room, then over chunks, then over time."""
    room = multiprocessors // layout.blocks
    chunks = min(layout.chunks, -(-B // (room * chunk_rows)))
    return Plan(layout, chunk_rows, chunks, min(room, -(-B // (chunks * chunk_rows))))


def cycles(plan, B):
    """Estimated clock cycles of a step.  While the result of one chunk is on its way, the next ones are computed."""
    layout, rows, chunks, groups = plan
    rounds = -(-B // (rows * chunks * groups))
    warps = layout.threads // WARP
    if layout.tensor:
        products = layout.pieces * tiles(layout.sums) * 2                   # instructions of a warp
        one = CHUNK + warps * (products * 1.6 + layout.pieces * 6)
        one += rows * (layout.partials * layout.sums / 16 + layout.L / 5)
    else:
        one = CHUNK + rows * (warps * (17 * layout.pieces + 25) / 4 + layout.L / 5)
    return rounds * max(chunks * one, one + LATENCY)
