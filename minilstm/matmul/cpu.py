"""The product on the processor: packed panels, register blocks, one pool of threads.

    pack       B (K,N) -> panels (P,K,lanes): one panel holds the columns of one cache line, contiguous along k
    product    rows of A in chunks, each multiplied with one panel after the other, where it stands if its numbers are
               neighbours along k, else packed

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
    _add_rows(A, 0, A.shape[1], 1, rows, panels, panel, first_k, depth, C, column, C.shape[1])


@register_jitable
def _add_rows(A, a, a_row, a_k, rows, panels, panel, first_k, depth, C, c, c_row):
    """The same with the first elements a and c, and the distances, as ``block_product`` has them."""
    p = (panel * panels.shape[1] + first_k) * panels.shape[2]
    r = 0
    while r + ROWS <= rows:
        block_of_rows(A, a + r * a_row, a_row, a_k, panels, p, depth, C, c + r * c_row, c_row)
        r += ROWS
    while r + 2 <= rows:
        block_of_two(A, a + r * a_row, a_row, a_k, panels, p, depth, C, c + r * c_row, c_row)
        r += 2
    if r < rows:
        block_of_one(A, a + r * a_row, a_row, a_k, panels, p, depth, C, c + r * c_row, c_row)


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
    """Rows start to stop of C[:, :N] = A @ B + bias.  C contiguous."""
    K, N, lanes = A.shape[1], len(bias), panels.shape[2]
    a_row, c_row = A.strides[0] // A.itemsize, C.shape[1]
    row_is_contiguous = A.strides[1] == A.itemsize
    packed = np.empty((0 if row_is_contiguous else min(K, DEPTH), CHUNK), A.dtype)
    edge = np.empty((CHUNK, lanes), A.dtype)
    for first_row in range(start, stop, CHUNK):
        rows = min(CHUNK, stop - first_row)
        for r in range(rows):
            for n in range(N):
                C[first_row + r, n] = bias[n]
        for first_k in range(0, K, DEPTH):
            depth = min(DEPTH, K - first_k)
            if not row_is_contiguous:
                _pack_rows(A, first_row, rows, first_k, depth, packed)
            for p in range(panels.shape[0]):
                whole = (p + 1) * lanes <= N
                target, c, stride = (C, first_row * c_row + p * lanes, c_row) if whole else (edge, 0, lanes)
                if not whole:
                    edge[:] = 0
                if row_is_contiguous:
                    a = first_row * a_row + first_k
                    _add_rows(A, a, a_row, 1, rows, panels, p, first_k, depth, target, c, stride)
                else:
                    _add_rows(packed, 0, 1, CHUNK, rows, panels, p, first_k, depth, target, c, stride)
                if not whole:
                    for r in range(rows):
                        for n in range(p * lanes, N):
                            C[first_row + r, n] += edge[r, n - p * lanes]


@register_jitable
def _pack_rows(A, first_row, rows, first_k, depth, packed):
    """packed[k,r] = A[first_row+r, first_k+k]: what a column of A has together, stays together."""
    for k in range(depth):
        for r in range(rows):
            packed[k, r] = A[first_row + r, first_k + k]


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
