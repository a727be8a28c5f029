"""The product on tensor cores: 16 x 8 numbers of C by one instruction of a warp, from operands rounded to TF32.

TF32 is float32 with 10 bits of mantissa in place of 23; the products are exact and their sums are float32.  A tensor
core ignores the 13 last bits of what it is given, so numbers could be handed over as they are: that is rounding towards
zero, and every product then is too small, by up to 2**-9 of it.  Here they are rounded to the nearest (cvt.rna), one
PTX instruction and two of the machine a number: half the largest error, and errors of both signs, which cancel in long
sums.  Largest error of 4096 numbers a sum, as a part of the largest result: 3.1e-4 in place of 8.1e-4 for normal random
numbers, 1.9e-5 in place of 6.6e-4 for positive ones (``test_rounding_and_cutting`` repeats it, in NumPy).

Three products are nearly exact.  Write a = a_high + a_low, a_high = a rounded to TF32, a_low = the rest rounded to
TF32; then a_low is below 2**-11 of a and a = a_high + a_low up to 2**-22 of it.  Of

    a b = a_high b_high + a_high b_low + a_low b_high + a_low b_low

the last term is below 2**-22 of a b, as little as the rounding of a few float32 sums, and is left out.  ``split`` is
this form; it adds the small terms first.  How the hardware rounds the sums inside of one instruction is not documented;
it has been found to cut them (Ootomo and Yokota, 2022, arXiv 2203.03341), which a simulator cannot show.  That is why
``product`` takes ``blocked`` where TF32 is not allowed, though ``split`` needs fewer instructions; which of the two
takes less time has not been measured.

Three stages: while a block multiplies one tile, two are on their way.  A tile is kept so that four numbers that
neighbour in k are 16 bytes where the factor lies along k; a lane (t = lane % 4) takes k = 4 t .. 4 t + 3 of 16, for two
instructions.  Which k of the 16 an instruction takes to be its first is no matter as long as A and B agree.  Where the
factor lies across k, the tile has k as its first axis, and its lines are swapped in groups of 8, otherwise for each t:
then the 32 lanes read from 32 banks (``gpu_blocked.py`` says what those are).
"""
import functools

from numba import cuda, float32, int32

from ..device import ptx
from ..device.kernel import F1, Int, device_function, kernel, unroll
from .gpu_operands import bias_of, copies, in_parts, tile_of_block

TILES = (128, 128), (64, 64)    # rows and columns of C: a warp has half the rows and 32 columns of it
DEPTH = 16                      # of a tile, along k: two instructions
STAGES = 3


def tensor(A, B, bias=None, tile=TILES[0], parts=1):
    """A @ B + bias with A and B rounded to TF32: relative errors of some 1e-4."""
    return in_parts(functools.partial(tensor_kernel, False), tile, DEPTH, A, B, bias, parts)


def split(A, B, bias=None, tile=TILES[0], parts=1):
    """A @ B + bias with A and B each as the sum of two numbers in TF32: as near as float32."""
    return in_parts(functools.partial(tensor_kernel, True), tile, DEPTH, A, B, bias, parts)


# ------------------------------------------------------------------------------------------------ a tile and its pieces

@functools.cache
def place_of(along_k, LINES):
    @device_function
    def place(line, k):
        return line * DEPTH + k if along_k else k * LINES + (line ^ k // 4 * 8)

    return place


@functools.cache
def piece_of(along_k, LINES):
    @device_function
    def piece(tile, start, line, eight, t):
        """-> the numbers at k = 4 t .. 4 t + 3 of a line: one of the first 8 of 32, and so many eights further."""
        if along_k:
            return ptx.load4(tile, start + (line + 8 * eight) * DEPTH + 4 * t)
        place = start + 4 * t * LINES + line + 8 * (eight ^ t)
        return (ptx.load(tile, place), ptx.load(tile, place + LINES), ptx.load(tile, place + 2 * LINES),
                ptx.load(tile, place + 3 * LINES))

    return piece


@device_function
def rounded(x):
    """Four numbers -> their TF32 bits."""
    return ptx.to_tf32(x[0]), ptx.to_tf32(x[1]), ptx.to_tf32(x[2]), ptx.to_tf32(x[3])


@device_function
def rest(x, high):
    """What rounding took from four numbers, as TF32 bits."""
    return (ptx.to_tf32(x[0] - ptx.float_of(high[0])), ptx.to_tf32(x[1] - ptx.float_of(high[1])),
            ptx.to_tf32(x[2] - ptx.float_of(high[2])), ptx.to_tf32(x[3] - ptx.float_of(high[3])))


@device_function
def multiply(a, a_below, b, totals, i, j):
    """Add to 16 x 8 totals.  a: of the lane's line of A; a_below: of the one 8 lines below; b: of its line of B."""
    c = totals[i, j, 0], totals[i, j, 1], totals[i, j, 2], totals[i, j, 3]
    c = ptx.mma_tf32((a[0], a_below[0], a[1], a_below[1]), (b[0], b[1]), c)
    c = ptx.mma_tf32((a[2], a_below[2], a[3], a_below[3]), (b[2], b[3]), c)
    totals[i, j, 0], totals[i, j, 1], totals[i, j, 2], totals[i, j, 3] = c


# ----------------------------------------------------------------------------------------------------------- the kernel

@functools.cache
def tensor_kernel(in_two, tile, A_layout, B_layout):
    ROWS, COLUMNS = tile
    WARPS_IN_A_ROW = COLUMNS // 32
    THREADS = 2 * WARPS_IN_A_ROW * 32
    WARP_ROWS, PIECES = ROWS // 2, ROWS // 32
    A_TILE, STAGE = ROWS * DEPTH, (ROWS + COLUMNS) * DEPTH
    ALL_STAGES = STAGES * STAGE
    copy_a = copies(A_layout, place_of(A_layout.along_k, ROWS), ROWS, DEPTH, THREADS)
    copy_b = copies(B_layout, place_of(B_layout.along_k, COLUMNS), COLUMNS, DEPTH, THREADS)
    piece_of_a, piece_of_b = piece_of(A_layout.along_k, ROWS), piece_of(B_layout.along_k, COLUMNS)

    @kernel(threads=THREADS, blocks_per_sm=(256 if in_two else 512) // THREADS)
    def tensor_tile(A: F1, B: F1, bias: F1, C: F1, M: Int, N: Int, K: Int, part: Int):
        tiles = cuda.shared.array(ALL_STAGES, float32, alignment=16)
        group = cuda.threadIdx.x % 32 // 4
        t = cuda.threadIdx.x % 4
        warp = cuda.threadIdx.x // 32
        row = warp // WARPS_IN_A_ROW * WARP_ROWS + group
        column = warp % WARPS_IN_A_ROW * 32
        first_m, first_n = tile_of_block(N, ROWS, COLUMNS)
        first_k = int32(cuda.blockIdx.y * part)
        last_k = int32(min(K, first_k + part))
        first_row, first_column = int32(first_m + row), int32(first_n + column + 2 * t)
        totals = cuda.local.array((PIECES, 4, 4), float32)
        for i in range(PIECES):
            for j in range(4):
                for c in range(4):
                    totals[i, j, c] = float32(0)

        for stage in range(STAGES - 1):
            k = first_k + stage * DEPTH
            if k < last_k:
                copy_a(tiles, stage * STAGE, A, first_m, M, k, last_k, K)
                copy_b(tiles, stage * STAGE + A_TILE, B, first_n, N, k, last_k, K)
            ptx.copies_commit()
        stage = 0
        for k_of_tile in range(first_k, last_k, DEPTH):
            ptx.copies_wait(1)
            cuda.syncthreads()
            k = k_of_tile + (STAGES - 1) * DEPTH
            if k < last_k:
                free = stage - 1 if stage else STAGES - 1
                copy_a(tiles, free * STAGE, A, first_m, M, k, last_k, K)
                copy_b(tiles, free * STAGE + A_TILE, B, first_n, N, k, last_k, K)
            ptx.copies_commit()

            a_start = stage * STAGE
            b_start = a_start + A_TILE
            b0 = piece_of_b(tiles, b_start, column + group, 0, t)
            b1 = piece_of_b(tiles, b_start, column + group, 1, t)
            b2 = piece_of_b(tiles, b_start, column + group, 2, t)
            b3 = piece_of_b(tiles, b_start, column + group, 3, t)
            b0_high, b1_high, b2_high, b3_high = rounded(b0), rounded(b1), rounded(b2), rounded(b3)
            for i in unroll(PIECES):
                a = piece_of_a(tiles, a_start, row + i // 2 * 32, i % 2 * 2, t)
                a_below = piece_of_a(tiles, a_start, row + i // 2 * 32, i % 2 * 2 + 1, t)
                a_high, a_below_high = rounded(a), rounded(a_below)
                if in_two:
                    a_low, a_below_low = rest(a, a_high), rest(a_below, a_below_high)
                    multiply(a_low, a_below_low, b0_high, totals, i, 0)
                    multiply(a_low, a_below_low, b1_high, totals, i, 1)
                    multiply(a_low, a_below_low, b2_high, totals, i, 2)
                    multiply(a_low, a_below_low, b3_high, totals, i, 3)
                    multiply(a_high, a_below_high, rest(b0, b0_high), totals, i, 0)
                    multiply(a_high, a_below_high, rest(b1, b1_high), totals, i, 1)
                    multiply(a_high, a_below_high, rest(b2, b2_high), totals, i, 2)
                    multiply(a_high, a_below_high, rest(b3, b3_high), totals, i, 3)
                multiply(a_high, a_below_high, b0_high, totals, i, 0)
                multiply(a_high, a_below_high, b1_high, totals, i, 1)
                multiply(a_high, a_below_high, b2_high, totals, i, 2)
                multiply(a_high, a_below_high, b3_high, totals, i, 3)
            stage = stage + 1 if stage < STAGES - 1 else 0

        for j in range(4):
            n = first_column + 8 * j
            z0, z1 = bias_of(bias, n), bias_of(bias, n + 1)
            for i in range(PIECES):
                m = first_row + 16 * i
                if m < M:
                    store_pair(C, (cuda.blockIdx.y * M + m) * N + n, N - n, totals[i, j, 0] + z0, totals[i, j, 1] + z1)
                if m + 8 < M:
                    store_pair(C, (cuda.blockIdx.y * M + m + 8) * N + n, N - n, totals[i, j, 2] + z0,
                               totals[i, j, 3] + z1)

    return tensor_tile


@device_function
def store_pair(C, place, left, a, b):
    """Two neighbours of C, or as many as are left in its row."""
    if left > 0:
        ptx.store(C, place, a)
    if left > 1:
        ptx.store(C, place + 1, b)
