"""The product with blocks of registers: a block makes a tile of C, each of its threads 8 x 8 numbers of it.

Why registers.  In ``tiled`` a thread reads two numbers from shared memory for each multiply-add, and shared memory
gives 32 numbers while the arithmetic units could do 128 multiply-adds.  A thread that holds 8 x 8 totals in registers
reads 8 + 8 numbers for 64 multiply-adds, 16 bytes at a time.  64 totals, the 16 numbers and some addresses fit into the
128 registers that leave room for 512 threads on a multiprocessor.

Two buffers.  While a block multiplies what is in one, the next tile is copied to the other; one barrier a tile is
enough: it says that the copies have arrived and that nobody reads the other buffer any more.

Bank conflicts.  Shared memory has 32 banks, number i is in bank i % 32, and a bank gives one number at a time: 32
threads that want 32 banks, or the same number, wait once; 32 numbers of one bank are 32 waits.  A tile has k as its
first axis here, so that four neighbouring lines are 16 bytes.  Where a factor lies along k, a warp copies 8 numbers of
4 lines; with rows of 128 numbers all 8 would go to the bank of their line.  With 4 more in a row they go to 8 places, 4
banks apart: 32 numbers, 32 banks.

The 32 threads of a warp have 4 rows of 8 such blocks, numbered so that two neighbours have the same columns and every
second thread the same rows; many threads of a warp then ask for the same 16 bytes.  The 8 x 8 of a thread are four
blocks of 4 x 4, one in each quarter of the tile, so that what the threads of a row read are neighbours.

Source of the numbering: S. Gray, the SGEMM of the assembler maxas for NVIDIA's Maxwell, 2014.
"""
import functools

from numba import cuda, float32, int32

from ..device import ptx
from ..device.kernel import F1, Int, device_function, kernel, unroll
from .gpu_operands import Layout, bias_of, copies, in_parts, tile_of_block

TILES = (128, 128), (64, 64)    # rows and columns of C: 256 or 64 threads, two or eight blocks on a multiprocessor
DEPTH = 8                       # of a tile, along k
PAD = 4                         # numbers between two rows of a tile


def blocked(A, B, bias=None, tile=TILES[0], parts=1):
    """A @ B + bias, with a tile of TILES and the range of k in so many parts."""
    return in_parts(blocked_kernel, tile, DEPTH, A, B, bias, parts)


def blocked_kernel(tile, A_layout, B_layout):
    """A tile has k as its first axis: the neighbours of a factor that lies along k are copied one by one."""
    return _blocked_kernel(*tile, *(Layout(along_k, wide and not along_k) for along_k, wide in (A_layout, B_layout)))


@functools.cache
def place_in_rows_of(stride):
    @device_function
    def place(line, k):
        return k * stride + line

    return place


@functools.cache
def _blocked_kernel(ROWS, COLUMNS, A_layout, B_layout):
    THREADS = ROWS * COLUMNS // 64
    WARPS_IN_A_ROW = COLUMNS // 64
    A_STRIDE, B_STRIDE = ROWS + PAD, COLUMNS + PAD
    A_BUFFER, B_BUFFER = DEPTH * A_STRIDE, DEPTH * B_STRIDE
    A_BUFFERS, B_BUFFERS = 2 * A_BUFFER, 2 * B_BUFFER
    LOWER, RIGHT = ROWS // 2, COLUMNS // 2
    copy_a = copies(A_layout, place_in_rows_of(A_STRIDE), ROWS, DEPTH, THREADS)
    copy_b = copies(B_layout, place_in_rows_of(B_STRIDE), COLUMNS, DEPTH, THREADS)

    @kernel(threads=THREADS, blocks_per_sm=512 // THREADS)
    def blocked_tile(A: F1, B: F1, bias: F1, C: F1, M: Int, N: Int, K: Int, part: Int):
        a_tiles = cuda.shared.array(A_BUFFERS, float32, alignment=16)
        b_tiles = cuda.shared.array(B_BUFFERS, float32, alignment=16)
        lane = cuda.threadIdx.x % 32
        warp = cuda.threadIdx.x // 32
        row = (warp // WARPS_IN_A_ROW * 4 + lane // 16 * 2 + lane % 2) * 4
        column = (warp % WARPS_IN_A_ROW * 8 + lane // 2 % 8) * 4
        first_m, first_n = tile_of_block(N, ROWS, COLUMNS)
        first_row, first_column = int32(first_m + row), int32(first_n + column)
        first_k = int32(cuda.blockIdx.y * part)
        last_k = int32(min(K, first_k + part))
        totals = cuda.local.array((8, 8), float32)
        for i in range(8):
            for j in range(8):
                totals[i, j] = float32(0)

        if first_k < last_k:
            copy_a(a_tiles, 0, A, first_m, M, first_k, last_k, K)
            copy_b(b_tiles, 0, B, first_n, N, first_k, last_k, K)
            ptx.copies_commit()
        buffer = 0
        for k_of_tile in range(first_k, last_k, DEPTH):
            ptx.copies_wait(0)
            cuda.syncthreads()
            following = k_of_tile + DEPTH
            if following < last_k:
                copy_a(a_tiles, (1 - buffer) * A_BUFFER, A, first_m, M, following, last_k, K)
                copy_b(b_tiles, (1 - buffer) * B_BUFFER, B, first_n, N, following, last_k, K)
                ptx.copies_commit()
            for k in unroll(DEPTH):
                a = buffer * A_BUFFER + k * A_STRIDE + row
                b = buffer * B_BUFFER + k * B_STRIDE + column
                upper = ptx.load4(a_tiles, a)
                lower = ptx.load4(a_tiles, a + LOWER)
                left = ptx.load4(b_tiles, b)
                right = ptx.load4(b_tiles, b + RIGHT)
                for i in range(4):
                    for j in range(4):
                        totals[i, j] += upper[i] * left[j]
                        totals[i, j + 4] += upper[i] * right[j]
                        totals[i + 4, j] += lower[i] * left[j]
                        totals[i + 4, j + 4] += lower[i] * right[j]
            buffer = 1 - buffer

        wide = N % 4 == 0
        for half in range(2):
            n = first_column + half * RIGHT
            z0, z1, z2, z3 = bias_of(bias, n), bias_of(bias, n + 1), bias_of(bias, n + 2), bias_of(bias, n + 3)
            for i in range(8):
                m = first_row + i // 4 * LOWER + i % 4
                if m < M:
                    store_row(C, (cuda.blockIdx.y * M + m) * N + n, N - n, wide, totals[i, 4 * half] + z0,
                              totals[i, 4 * half + 1] + z1, totals[i, 4 * half + 2] + z2, totals[i, 4 * half + 3] + z3)

    return blocked_tile


@device_function
def store_row(C, place, left, wide, a, b, c, d):
    """Four neighbours of C, or as many as are left in its row."""
    if wide:
        if left > 0:
            ptx.store4(C, place, a, b, c, d)
    else:
        if left > 0:
            ptx.store(C, place, a)
        if left > 1:
            ptx.store(C, place + 1, b)
        if left > 2:
            ptx.store(C, place + 2, c)
        if left > 3:
            ptx.store(C, place + 3, d)
