"""Products of a few vectors with a matrix that stays in registers: in float32, by ordinary multiply-adds.

A thread has 4 rows of its block's share of the matrix, and of these rows ``pieces`` times 4 columns: so a number of a
vector, once it is in a register, is used 4 times.  ``across`` neighbours have the same rows:

    rows 0-3     thread 0            thread 1            ...  thread across - 1
                 columns 0-3         columns 4-7         ...                      piece 0
                 columns 4 * across  ...                                          piece 1
    rows 4-7     thread across       thread across + 1   ...

The vectors come from other blocks, through global memory: ``gather`` waits for them and puts them into shared memory,
where every thread finds its columns.  Then each thread multiplies, and the sums over the threads of a row are made by
shuffles, within a warp.  If ``across`` is more than a warp, each of its warps leaves a partial sum.
"""
from typing import Callable, NamedTuple

from numba import cuda, float32

from ..device import ptx
from ..device.kernel import device_function
from ..device.ptx import UNWRITTEN
from .gpu_blocks_plan import WARP

AT_ONCE = 4                 # loads that a thread begins before it looks whether the numbers have arrived


class Product(NamedTuple):
    """What a kernel uses of one form of the product.

    place(thread, n)                    row and column, in the block's share of the matrix, of weight n of a thread
    clear(scratch)                      before the first product
    multiply(w, source, first, stride, may_wait, real, rows, scratch, error)
                                        vector r < rows begins at source[first + r * stride], flat, and is multiplied if
                                        bit r of ``real`` is set; may_wait: its numbers are written by other blocks
                                        meanwhile.  All threads of a block call it, and it has a barrier inside; after
                                        one more the partial sums are in scratch
    total(scratch, r, row, constant)    the sum of vector r and row ``row + constant`` of the block's share
    """
    place: Callable
    clear: Callable
    multiply: Callable
    total: Callable


@device_function
def missing(a, b, c, d):
    """Is one of four numbers not written yet?"""
    return (ptx.bits_of(a) == UNWRITTEN or ptx.bits_of(b) == UNWRITTEN or ptx.bits_of(c) == UNWRITTEN
            or ptx.bits_of(d) == UNWRITTEN)


@device_function
def add_products(s, w, at, v):
    """s + w[at:at + 4] @ v, v a tuple of four."""
    return s + w[at] * v[0] + w[at + 1] * v[1] + w[at + 2] * v[2] + w[at + 3] * v[3]


def float32_product(layout):
    """layout: a Layout with ``tensor`` False -> Product."""
    L, L4, ACROSS, PIECES = layout.L, layout.L // 4, layout.across, layout.pieces
    THREADS, SUMS, ROWS, STRIDE, PARTIALS = layout.threads, layout.sums, layout.rows, layout.stride, layout.partials
    LANES = min(ACROSS, WARP)                               # of a warp that have the same rows
    SUMS_AT = ROWS * STRIDE                                 # in scratch, behind the vectors
    PADDING = STRIDE - L

    @device_function
    def place(thread, n):
        return thread // ACROSS * 4 + n % 16 // 4, n // 16 * 4 * ACROSS + thread % ACROSS * 4 + n % 4

    @device_function
    def clear(scratch):
        """Columns beyond the last one, which some threads have, times zero have to be zero."""
        for n in range(cuda.threadIdx.x, ROWS * PADDING, THREADS):
            scratch[n // PADDING * STRIDE + L + n % PADDING] = float32(0)

    @device_function
    def gather(source, first, stride, may_wait, real, rows, scratch, error):
        """The vectors into shared memory.  All loads of a thread are under way before it waits for the first."""
        got = cuda.local.array((AT_ONCE, 4), float32)
        for begin in range(cuda.threadIdx.x, rows * L4, AT_ONCE * THREADS):
            for k in range(AT_ONCE):
                r, column = (begin + k * THREADS) // L4, (begin + k * THREADS) % L4 * 4
                if r < rows and real >> r & 1:
                    got[k, 0], got[k, 1], got[k, 2], got[k, 3] = ptx.load4_relaxed(source, first + r * stride + column)
            for k in range(AT_ONCE):
                r, column = (begin + k * THREADS) // L4, (begin + k * THREADS) % L4 * 4
                if r < rows and real >> r & 1:
                    if may_wait and missing(got[k, 0], got[k, 1], got[k, 2], got[k, 3]):
                        got[k, 0], got[k, 1], got[k, 2], got[k, 3] = ptx.poll4(
                            source, first + r * stride + column, error)
                    ptx.store4(scratch, r * STRIDE + column, got[k, 0], got[k, 1], got[k, 2], got[k, 3])

    @device_function
    def multiply(w, source, first, stride, may_wait, real, rows, scratch, error):
        gather(source, first, stride, may_wait, real, rows, scratch, error)
        cuda.syncthreads()
        row, across = cuda.threadIdx.x // ACROSS * 4, cuda.threadIdx.x % ACROSS
        for r in range(rows):
            if real >> r & 1:
                s0, s1, s2, s3 = float32(0), float32(0), float32(0), float32(0)
                for k in range(PIECES):
                    v = ptx.load4(scratch, r * STRIDE + 4 * (k * ACROSS + across))
                    s0 = add_products(s0, w, 16 * k, v)
                    s1 = add_products(s1, w, 16 * k + 4, v)
                    s2 = add_products(s2, w, 16 * k + 8, v)
                    s3 = add_products(s3, w, 16 * k + 12, v)
                s = over_threads(s0, s1, s2, s3, across)
                if across % LANES < 4 and row < SUMS:
                    ptx.store(scratch, SUMS_AT + (across // LANES * ROWS + r) * SUMS + row + across % 4, s)

    @device_function
    def over_threads(s0, s1, s2, s3, across):
        """The four sums of all threads of a row -> sum number ``across % 4``: two of four are passed on, then one of
        two, and so each thread adds up one of them."""
        high, odd = across & 2, across & 1
        even_sum = (s2 if high else s0) + cuda.shfl_xor_sync(0xffffffff, s0 if high else s2, 2)
        odd_sum = (s3 if high else s1) + cuda.shfl_xor_sync(0xffffffff, s1 if high else s3, 2)
        s = (odd_sum if odd else even_sum) + cuda.shfl_xor_sync(0xffffffff, even_sum if odd else odd_sum, 1)
        distance = 4
        while distance < LANES:
            s += cuda.shfl_xor_sync(0xffffffff, s, distance)
            distance *= 2
        return s

    @device_function
    def total(scratch, r, row, constant):
        at = r * SUMS + row
        s = ptx.load(scratch, at + SUMS_AT + constant)
        for k in range(1, PARTIALS):
            s += ptx.load(scratch, at + SUMS_AT + k * ROWS * SUMS + constant)
        return s

    return Product(place, clear, multiply, total)
