"""The product of ``gpu_blocks_products.py`` on tensor cores, in TF32: same functions, other shares.

A warp has all rows of its block's share of the matrix and ``pieces`` times 16 columns, as the operand B of
``ptx.mma_tf32``; 16 rows of the batch are the operand A.  The warps of a block have different columns, so a number of a
vector is needed by one lane only: it goes from the memory to which another block wrote it straight into that lane's
registers, and shared memory holds nothing but the partial sums of the warps.

A sum over columns may be taken in any order, so a lane with t = lane % 4 takes as columns t and t + 4 of one product,
then of a second one, the four neighbours 4t, 4t + 1, 4t + 2, 4t + 3 of 16: one 16-byte load.
"""
from numba import cuda, float32

from ..device import ptx
from ..device.kernel import device_function, unroll
from .gpu_blocks_plan import TENSOR_ROWS, WARP, partial_stride, tiles
from .gpu_blocks_products import Product, missing

AT_ONCE = 2                 # pieces whose loads a lane begins before it looks whether the numbers have arrived


def tensor_product(layout):
    """layout: a Layout with ``tensor`` True; -> Product."""
    L, ACROSS, PIECES = layout.L, layout.across, layout.pieces
    TILES, STRIDE = tiles(layout.sums), partial_stride(layout.sums)
    CHOSEN = min(AT_ONCE, PIECES)
    ROUNDS = -(-PIECES // CHOSEN)
    EXACT = ACROSS * PIECES * 16 == L                       # no lane has columns beyond the last one

    @device_function
    def place(thread, n):
        return n // 4 % TILES * 8 + thread % WARP // 4, first_column(thread) + n // 4 // TILES * 16 + n % 4

    @device_function
    def first_column(thread):
        return thread // WARP * PIECES * 16 + thread % 4 * 4

    @device_function
    def clear(scratch):
        pass

    @device_function
    def look(got, k, source, at, there):
        """The first look at four numbers -> got[k]; zeros where there are none."""
        got[k, 0], got[k, 1], got[k, 2], got[k, 3] = float32(0), float32(0), float32(0), float32(0)
        if there:
            got[k, 0], got[k, 1], got[k, 2], got[k, 3] = ptx.load4_relaxed(source, at)

    @device_function
    def wait(got, k, source, at, there, error):
        if there and missing(got[k, 0], got[k, 1], got[k, 2], got[k, 3]):
            got[k, 0], got[k, 1], got[k, 2], got[k, 3] = ptx.poll4(source, at, error)

    @device_function
    def add_product(sums, n, w, at, lows, highs, k):
        """sums[n] += the vectors' columns of piece k, times the weights w[at:at + 4]: two products of 8 columns."""
        s = sums[n, 0], sums[n, 1], sums[n, 2], sums[n, 3]
        s = ptx.mma_tf32((ptx.to_tf32(lows[k, 0]), ptx.to_tf32(highs[k, 0]), ptx.to_tf32(lows[k, 1]),
                          ptx.to_tf32(highs[k, 1])), (ptx.bits_of(w[at]), ptx.bits_of(w[at + 1])), s)
        s = ptx.mma_tf32((ptx.to_tf32(lows[k, 2]), ptx.to_tf32(highs[k, 2]), ptx.to_tf32(lows[k, 3]),
                          ptx.to_tf32(highs[k, 3])), (ptx.bits_of(w[at + 2]), ptx.bits_of(w[at + 3])), s)
        sums[n, 0], sums[n, 1], sums[n, 2], sums[n, 3] = s

    @device_function
    def multiply(w, source, first, stride, may_wait, real, rows, scratch, error):
        low = cuda.threadIdx.x % WARP // 4                  # the two rows of the batch whose numbers this lane gives
        high = low + 8
        low_there, high_there = real >> low & 1 == 1, real >> high & 1 == 1
        column = first_column(cuda.threadIdx.x)
        low_at, high_at = first + low * stride + column, first + high * stride + column
        sums = cuda.local.array((TILES, 4), float32)
        for n in range(TILES):
            for j in range(4):
                sums[n, j] = float32(0)
        lows = cuda.local.array((CHOSEN, 4), float32)
        highs = cuda.local.array((CHOSEN, 4), float32)
        for round in unroll(ROUNDS):
            for k in range(CHOSEN):
                ahead = 16 * (round * CHOSEN + k)
                inside = (EXACT or column < L - ahead) and round * CHOSEN + k < PIECES
                look(lows, k, source, low_at + ahead, inside and low_there)
                look(highs, k, source, high_at + ahead, inside and high_there)
            for k in range(CHOSEN):
                ahead = 16 * (round * CHOSEN + k)
                inside = may_wait and (EXACT or column < L - ahead) and round * CHOSEN + k < PIECES
                wait(lows, k, source, low_at + ahead, inside and low_there, error)
                wait(highs, k, source, high_at + ahead, inside and high_there, error)
            for k in unroll(CHOSEN):
                if round * CHOSEN + k < PIECES:
                    for n in unroll(TILES):
                        add_product(sums, n, w, ((round * CHOSEN + k) * TILES + n) * 4, lows, highs, k)
        cuda.syncthreads()
        place = (cuda.threadIdx.x // WARP * TENSOR_ROWS + low) * STRIDE + 2 * (cuda.threadIdx.x % 4)
        for n in range(TILES):
            for j in range(2):
                ptx.store(scratch, place + 8 * n + j, sums[n, j])
                ptx.store(scratch, place + 8 * STRIDE + 8 * n + j, sums[n, 2 + j])

    @device_function
    def total(scratch, r, row, constant):
        at = r * STRIDE + row
        s = ptx.load(scratch, at + constant)
        for k in range(1, ACROSS):
            s += ptx.load(scratch, at + k * TENSOR_ROWS * STRIDE + constant)
        return s

    return Product(place, clear, multiply, total)
