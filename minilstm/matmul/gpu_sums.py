"""Sums on a GPU, in two stages and in one order: the sums of columns, and of the parts of a product.

A sum of many numbers is cut into parts, so that all multiprocessors have work: each part is summed by one block, and a
second kernel adds the parts.  How many parts there are follows from the shape and the number of multiprocessors, and
every sum has a fixed order; no block adds to what another one wrote.  So the bits are the same every time.

Neighbouring threads read neighbouring columns: the 32 threads of a warp then ask for 128 bytes in a row, which is one
access to memory; a thread a row would be 32 of them.
"""
from numba import cuda, float32

from ..device.gpu import current, empty, launch
from ..device.kernel import F1, F2, Int, kernel

THREADS = 256
COLUMNS, ROWS = 32, 8           # of a block of sum_columns at a time: a warp for each row
ROWS_OF_A_PART = 128            # at least: less would be over before it is launched
BLOCKS = 8                      # of THREADS on a multiprocessor: as many threads as it can hold


def column_sums(A):
    """A (M,N) -> (N,), the sum of each column."""
    M, N = A.shape
    sums = empty(N)
    blocks = -(-N // COLUMNS)
    parts = max(1, min(-(-M // ROWS_OF_A_PART), BLOCKS * current().multiprocessors // max(1, blocks)))
    rows = -(-M // parts)
    parts = max(1, -(-M // max(1, rows)))
    target = sums.reshape(1, N) if parts == 1 else empty((parts, N))
    launch(sum_columns, (blocks, parts), A, target, M, N, rows)
    if parts > 1:
        add_parts(target, empty(0), sums)
    return sums


@kernel(threads=THREADS)
def sum_columns(A: F2, sums: F2, M: Int, N: Int, rows: Int):
    """sums[part, n] = the sum of so many rows of A[:, n]: warp w takes each eighth row, then the eight are added."""
    of_warps = cuda.shared.array((ROWS, COLUMNS), float32)
    lane = cuda.threadIdx.x % COLUMNS
    warp = cuda.threadIdx.x // COLUMNS
    n = cuda.blockIdx.x * COLUMNS + lane
    part = cuda.blockIdx.y
    total = float32(0)
    if n < N:
        for m in range(part * rows + warp, min(M, part * rows + rows), ROWS):
            total += A[m, n]
    of_warps[warp, lane] = total
    cuda.syncthreads()
    if warp == 0 and n < N:
        for other in range(1, ROWS):
            total += of_warps[other, lane]
        sums[part, n] = total


def add_parts(parts, bias, sums):
    """sums (size,) = the sum of parts (parts, size) in their order, + bias, again for each of its lengths."""
    launch(sum_parts, -(-sums.size // THREADS), parts, bias, sums, len(parts))


@kernel(threads=THREADS)
def sum_parts(parts: F2, bias: F1, sums: F1, count: Int):
    i = cuda.grid(1)
    if i < sums.size:
        total = parts[0, i]
        for part in range(1, count):
            total += parts[part, i]
        if bias.size:
            total += bias[i % bias.size]
        sums[i] = total
