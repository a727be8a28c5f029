"""The product on the processor: packed panels, register blocks, one pool of threads.

    pack       B (K,N) -> panels (P,K,lanes): one panel holds the columns of one cache line, contiguous along k
    product    rows of A in chunks: each is copied together, then multiplied with one panel after the other

A packed matrix is read with stride one and can be used many times: a recurrent layer packs its U once per call and
multiplies with it at every time step (``add_product``).
"""
import numpy as np
from numba.extending import register_jitable

from ..machine.kernel import kernel
from ..machine.threads import spread, threads_for
from .micro_kernel import LINE_BYTES, ROWS, block_product

DEPTH = 256                 # of a pass over k: 256 lines of a panel are 16 KiB, half of a small first-level cache
CHUNK = 64                  # rows of A that one pass multiplies with a panel

block_of_rows = block_product(ROWS)
block_of_two = block_product(2)
block_of_one = block_product(1)


def lanes_of(dtype):
    """Columns of a panel: one cache line."""
    return LINE_BYTES // np.dtype(dtype).itemsize


@register_jitable
def add_product(A, rows, panels, panel, first_k, depth, C, column):
    """C[:rows, column:column+lanes] += A[:rows, :depth] @ panels[panel, first_k:first_k+depth].  A, C contiguous."""
    a_stride, c_stride = A.shape[1], C.shape[1]
    p_start = (panel * panels.shape[1] + first_k) * panels.shape[2]
    r = 0
    while r + ROWS <= rows:
        block_of_rows(A, r * a_stride, a_stride, panels, p_start, depth, C, r * c_stride + column, c_stride)
        r += ROWS
    while r + 2 <= rows:
        block_of_two(A, r * a_stride, a_stride, panels, p_start, depth, C, r * c_stride + column, c_stride)
        r += 2
    if r < rows:
        block_of_one(A, r * a_stride, a_stride, panels, p_start, depth, C, r * c_stride + column, c_stride)


@kernel
def _pack_panels(B, panels, start, stop):
    K, N = B.shape
    lanes = panels.shape[2]
    for p in range(start, stop):
        for k in range(K):
            for lane in range(lanes):
                n = p * lanes + lane
                panels[p, k, lane] = B[k, n] if n < N else 0


def pack(B):
    """B (K,N), any strides -> panels (P,K,lanes); columns beyond N are zero."""
    K, N = B.shape
    lanes = lanes_of(B.dtype)
    panels = np.empty((-(-N // lanes), K, lanes), B.dtype)
    _in_parts(lambda start, stop: _pack_panels(B, panels, start, stop), len(panels), 4 * K * N)
    return panels


@kernel
def _product_rows(A, panels, bias, C, start, stop):
    """Rows start to stop of C[:, :N] = A @ B + bias."""
    K = A.shape[1]
    N = len(bias)
    lanes = panels.shape[2]
    a = np.empty((CHUNK, min(K, DEPTH)), A.dtype)
    c = np.empty((CHUNK, lanes), A.dtype)
    for row in range(start, stop):
        for n in range(N):
            C[row, n] = bias[n]
    for first_row in range(start, stop, CHUNK):
        rows = min(CHUNK, stop - first_row)
        for first_k in range(0, K, DEPTH):
            depth = min(DEPTH, K - first_k)
            _copy(A, first_row, rows, first_k, depth, a)
            for p in range(panels.shape[0]):
                c[:rows] = 0
                add_product(a, rows, panels, p, first_k, depth, c, 0)
                for r in range(rows):
                    for lane in range(min(lanes, N - p * lanes)):
                        C[first_row + r, p * lanes + lane] += c[r, lane]


@register_jitable
def _copy(A, first_row, rows, first_k, depth, a):
    """a[:rows,:depth] = A[first_row:, first_k:], read along the axis on which A is contiguous."""
    if A.strides[1] <= A.strides[0]:
        for r in range(rows):
            for k in range(depth):
                a[r, k] = A[first_row + r, first_k + k]
    else:
        for k in range(depth):
            for r in range(rows):
                a[r, k] = A[first_row + r, first_k + k]


def product(A, B, bias=None):
    """A @ B + bias.  A (M,K) and B (K,N) of one floating-point type, any strides; bias (N,) or None -> (M,N).

    The bits of a row depend on that row, B and bias alone."""
    C = np.empty((A.shape[0], B.shape[1]), A.dtype)
    fill_with_product(C, A, B, np.zeros(B.shape[1], A.dtype) if bias is None else bias)
    return C


def fill_with_product(C, A, B, bias):
    """The first N columns of C = A @ B + bias.  C contiguous, with N columns or more; the others stay as they are."""
    M, K = A.shape
    panels = pack(B)
    _in_parts(lambda start, stop: _product_rows(A, panels, bias, C, start, stop), M, M * K * len(bias))


def _in_parts(task, count, multiply_adds):
    """task(start, stop) over range(count), cut evenly among as many threads as the work is worth."""
    threads = threads_for(multiply_adds)
    cuts = [count * k // threads for k in range(threads + 1)]
    spread(lambda k: task(cuts[k], cuts[k + 1]), threads, threads)
