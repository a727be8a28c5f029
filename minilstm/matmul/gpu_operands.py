"""How the factors of a product lie in memory, how tiles of them are copied, and the launch that kernels with tiles
share.

Every number of C = A @ B is a sum over k, so a factor is a set of lines along k: the rows of A, the columns of B.  It
lies in memory in one of two ways, and ``array.T`` is the other one:

    along k     the neighbours of a number belong to its line:      A as it is, B transposed (x @ W.T has both)
    across k    they belong to other lines, at the same k:          A transposed (da.T @ x), B as it is

Copies from global to shared memory are asynchronous (cp.async): the numbers go past the registers, and threads multiply
meanwhile.  Neighbouring threads copy what are neighbours in global memory, whichever way that is; the kernel says where
a number has its place in the tile.  What is outside of a factor becomes zero, for k in both factors, so that a tile
that sticks out adds 0 * 0.
"""
import functools
from typing import NamedTuple

from numba import cuda, float32, int32

from ..device import ptx
from ..device.arrays import DeviceArray, Transposed
from ..device.gpu import empty, launch
from ..device.kernel import device_function
from .gpu_sums import add_parts


class Layout(NamedTuple):
    along_k: bool
    wide: bool              # four neighbours can be read at once: 16 bytes that begin at a multiple of 16


class Factor(NamedTuple):
    numbers: DeviceArray    # flat
    layout: Layout


def factors(A, B):
    """Two matrices or ``Transposed`` -> two Factors."""
    return _factor(A, not isinstance(A, Transposed)), _factor(B, isinstance(B, Transposed))


def _factor(matrix, along_k):
    array = matrix.array if isinstance(matrix, Transposed) else matrix
    wide = array.shape[1] % 4 == 0 and array.offset % 16 == 0
    return Factor(array.reshape(array.size), Layout(along_k, wide))


def check(A, B, bias):
    """Raises ValueError for shapes that are no product."""
    if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[1] != B.shape[0]:
        raise ValueError(f"A, B: expected shapes (M, K) and (K, N), got {A.shape} and {B.shape}")
    if bias is not None and bias.shape != (B.shape[1],):
        raise ValueError(f"bias: expected shape {(B.shape[1],)}, got {bias.shape}")


# ---------------------------------------------------------------------------------------------------------- in a kernel

@functools.cache
def copies(layout, place_in_tile, LINES, DEPTH, THREADS):
    """A function for kernels: the threads of a block begin to copy a tile of so many lines, DEPTH numbers of each.

    place_in_tile(line, k): a device function.  If the layout is wide, it must keep four neighbours together."""
    along_k, wide = layout
    WIDTH = 4 if wide else 1
    SIDE_BY_SIDE = (DEPTH if along_k else LINES) // WIDTH           # copies that are neighbours in memory
    AT_ONCE = THREADS // SIDE_BY_SIDE                               # such rows that the block copies at a time
    ROUNDS = (LINES if along_k else DEPTH) // AT_ONCE

    @device_function
    def begin_copies(tile, start, X, first_line, lines, first_k, last_k, K):
        """tile[start + ...] = X[first_line:, first_k:last_k], where X has so many lines of K numbers."""
        along = cuda.threadIdx.x % SIDE_BY_SIDE * WIDTH
        across = cuda.threadIdx.x // SIDE_BY_SIDE
        if along_k:
            place, row = (first_line + across) * K + first_k + along, K
            left = int32(lines - first_line - across if first_k + along < last_k else 0)
        else:
            place, row = (first_k + across) * lines + first_line + along, lines
            left = int32(last_k - first_k - across if first_line + along < lines else 0)
        for r in range(ROUNDS):
            there = across + r * AT_ONCE
            to = start + (place_in_tile(there, along) if along_k else place_in_tile(along, there))
            inside = left > r * AT_ONCE
            if wide:
                ptx.copy4(tile, to, X, place if inside else 0, 4 if inside else 0)
            else:
                ptx.copy1(tile, to, X, place if inside else 0, 1 if inside else 0)
            place += AT_ONCE * row

    return begin_copies


@device_function
def tile_of_block(N, ROWS, COLUMNS):
    """The tile of this block -> its first row and column in C.  The next block has the tile to the right: blocks that
    run together read the same rows of A."""
    tiles = (N + COLUMNS - 1) // COLUMNS
    return int32(cuda.blockIdx.x // tiles * ROWS), int32(cuda.blockIdx.x % tiles * COLUMNS)


@device_function
def bias_of(bias, n):
    """0 where there is none, and beyond the last column."""
    return ptx.load(bias, n) if n < bias.size else float32(0)


# ------------------------------------------------------------------------------------------------------------- a launch

def in_parts(kernel_for, tile, depth, A, B, bias, parts):
    """C = A @ B + bias by a kernel whose blocks make one tile each, of one part of the range of k.

    kernel_for: of (tile, layout of A, layout of B).  tile: (rows, columns).  Parts begin at multiples of ``depth``.
    One part is C; more go to memory of their own and are then added in their order, so that the bits are always the
    same.
    """
    (M, K), N = A.shape, B.shape[1]
    a, b = factors(A, B)
    kernel = kernel_for(tile, a.layout, b.layout)
    bias = empty(0) if bias is None else bias
    tiles = -(-M // tile[0]) * -(-N // tile[1])
    part = max(1, -(-K // (parts * depth))) * depth
    parts = max(1, -(-K // part))
    C = empty((M, N))
    if parts == 1:
        launch(kernel, tiles, a.numbers, b.numbers, bias, C.reshape(M * N), M, N, K, part)
    else:
        sums = empty((parts, M * N))
        launch(kernel, (tiles, parts), a.numbers, b.numbers, empty(0), sums.reshape(sums.size), M, N, K, part)
        add_parts(sums, bias, C.reshape(M * N))
    return C
