"""The product without tiles: one thread for each number of C, or one warp.

``by_element`` is the definition, run by many threads.  It reads every number of A once for each column of C and every
number of B once for each row, M N K multiply-adds from 2 M N K reads: memory, not arithmetic, says how long it takes.
For a small product that is no matter, and nothing has less to do before it begins.

``by_warp`` is for an output that is a few numbers wide, as of a layer with one output, when both factors lie along k.
A thread for each number would walk along its own row, and the 32 threads of a warp read from 32 places.  Here the lanes
of a warp take neighbours of one row, so that a warp reads 128 bytes at once, and then add up what each has, in pairs.
Every number of the longer factor is read from memory once, which is all that can be asked for.
"""
import functools

from numba import cuda, float32

from ..device import ptx
from ..device.arrays import Transposed
from ..device.gpu import empty, launch
from ..device.kernel import F1, F2, Int, kernel
from .gpu_operands import bias_of, factors

THREADS = 256
WARPS = THREADS // 32
EVERY_LANE = 0xffffffff


def by_element(A, B, bias=None):
    (M, K), N = A.shape, B.shape[1]
    C = empty((M, N))
    kernel = element_kernel(isinstance(A, Transposed), isinstance(B, Transposed), bias is not None)
    A, B = (matrix.array if isinstance(matrix, Transposed) else matrix for matrix in (A, B))
    launch(kernel, -(-M * N // THREADS), A, B, empty(0) if bias is None else bias, C, M, N, K)
    return C


@functools.cache
def element_kernel(A_transposed, B_transposed, biased):
    @kernel(threads=THREADS)
    def one_thread_an_element(A: F2, B: F2, bias: F1, C: F2, M: Int, N: Int, K: Int):
        place = cuda.grid(1)
        if place < M * N:
            m = place // N
            n = place % N
            total = float32(0)
            for k in range(K):
                a = A[k, m] if A_transposed else A[m, k]
                b = B[n, k] if B_transposed else B[k, n]
                total += a * b
            C[m, n] = total + bias[n] if biased else total

    return one_thread_an_element


def by_warp(A, B, bias=None):
    (M, K), N = A.shape, B.shape[1]
    a, b = factors(A, B)
    C = empty((M, N))
    launch(warp_kernel(a.layout.along_k, b.layout.along_k), -(-M * N // WARPS), a.numbers, b.numbers,
           empty(0) if bias is None else bias, C.reshape(M * N), M, N, K)
    return C


@functools.cache
def warp_kernel(A_along_k, B_along_k):
    @kernel(threads=THREADS)
    def one_warp_an_element(A: F1, B: F1, bias: F1, C: F1, M: Int, N: Int, K: Int):
        lane = cuda.threadIdx.x % 32
        place = cuda.blockIdx.x * WARPS + cuda.threadIdx.x // 32
        if place < M * N:
            m = place % M if M < N else place // N          # neighbouring warps share a line of the longer factor
            n = place // M if M < N else place % N
            total = float32(0)
            for k in range(lane, K, 32):
                a = ptx.load(A, m * K + k if A_along_k else k * M + m)
                b = ptx.load(B, n * K + k if B_along_k else k * N + n)
                total += a * b
            for distance in (16, 8, 4, 2, 1):
                total += cuda.shfl_down_sync(EVERY_LANE, total, distance)
            if lane == 0:
                ptx.store(C, m * N + n, total + bias_of(bias, n))

    return one_warp_an_element
