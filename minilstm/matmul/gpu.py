"""The product on a GPU: C = A @ B + bias.  A and B may be ``array.T``.

The simplest kernel that is right: a thread for each number of C.
"""
import functools

from numba import cuda, float32

from ..device.arrays import Transposed
from ..device.gpu import empty, launch
from ..device.kernel import F1, F2, Int, kernel

THREADS = 256


def product(A, B, bias=None):
    """A @ B + bias.  A (M,K), B (K,N), bias (N,) or None -> (M,N)."""
    (M, K), N = A.shape, B.shape[1]
    C = empty((M, N))
    by_element = one_thread_an_element(isinstance(A, Transposed), isinstance(B, Transposed), bias is not None)
    A, B = (matrix.array if isinstance(matrix, Transposed) else matrix for matrix in (A, B))
    launch(by_element, -(-M * N // THREADS), A, B, empty(0) if bias is None else bias, C, M, N, K)
    return C


@functools.cache
def one_thread_an_element(A_transposed, B_transposed, biased):
    @kernel(threads=THREADS)
    def by_element(A: F2, B: F2, bias: F1, C: F2, M: Int, N: Int, K: Int):
        place = cuda.grid(1)
        if place < M * N:
            m = place // N
            n = place % N
            total = bias[n] if biased else float32(0)
            for k in range(K):
                a = A[k, m] if A_transposed else A[m, k]
                b = B[n, k] if B_transposed else B[k, n]
                total += a * b
            C[m, n] = total

    return by_element


def column_sums(A):
    """A (M,N) -> (N,), each summed in the order of the rows."""
    M, N = A.shape
    sums = empty(N)
    launch(sum_columns, -(-N // THREADS), A, sums, M, N)
    return sums


@kernel(threads=THREADS)
def sum_columns(A: F2, sums: F1, M: Int, N: Int):
    n = cuda.grid(1)
    if n < N:
        total = float32(0)
        for m in range(M):
            total += A[m, n]
        sums[n] = total
