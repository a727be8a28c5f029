"""The product with tiles in shared memory: the textbook's kernel.

Why tiles.  A block of 16 x 16 threads makes a tile of 16 x 16 numbers of C.  They need 16 rows of A and 16 columns of
B, each number of them 16 times.  So the block takes a tile of A and one of B at a time to its shared memory, every
thread one number of each, and all threads multiply from there: memory is read a sixteenth as often as in
``by_element``.

The barriers.  Nobody may multiply before everybody has brought his numbers, and nobody may bring the next ones before
everybody has multiplied.

Where a tile sticks out of A or B it holds zeros, in both along k: a zero in one of them alone would make a NaN out of
an infinity in the other.
"""
import functools

from numba import cuda, float32

from ..device.arrays import Transposed
from ..device.gpu import empty, launch
from ..device.kernel import F1, F2, Int, kernel

TILE = 16                       # rows and columns of a tile of A, of B and of C


def tiled(A, B, bias=None):
    (M, K), N = A.shape, B.shape[1]
    C = empty((M, N))
    kernel = tiled_kernel(isinstance(A, Transposed), isinstance(B, Transposed), bias is not None)
    A, B = (matrix.array if isinstance(matrix, Transposed) else matrix for matrix in (A, B))
    launch(kernel, -(-M // TILE) * -(-N // TILE), A, B, empty(0) if bias is None else bias, C, M, N, K)
    return C


@functools.cache
def tiled_kernel(A_transposed, B_transposed, biased):
    @kernel(threads=TILE * TILE)
    def one_tile_a_block(A: F2, B: F2, bias: F1, C: F2, M: Int, N: Int, K: Int):
        a_tile = cuda.shared.array((TILE, TILE), float32)
        b_tile = cuda.shared.array((TILE, TILE), float32)
        row = cuda.threadIdx.x // TILE
        column = cuda.threadIdx.x % TILE
        tiles_in_a_row = (N + TILE - 1) // TILE
        m = cuda.blockIdx.x // tiles_in_a_row * TILE + row
        n = cuda.blockIdx.x % tiles_in_a_row * TILE + column
        total = float32(0)
        for first in range(0, K, TILE):
            a, b = float32(0), float32(0)
            if m < M and first + column < K:
                a = A[first + column, m] if A_transposed else A[m, first + column]
            if first + row < K and n < N:
                b = B[n, first + row] if B_transposed else B[first + row, n]
            a_tile[row, column] = a
            b_tile[row, column] = b
            cuda.syncthreads()
            for k in range(TILE):
                total += a_tile[row, k] * b_tile[k, column]
            cuda.syncthreads()
        if m < M and n < N:
            C[m, n] = total + bias[n] if biased else total

    return one_tile_a_block
