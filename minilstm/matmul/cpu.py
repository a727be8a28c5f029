"""The product on the processor: packed panels, register blocks, one pool of threads.

    pack       B (K,N) -> panels (P,K,lanes): one panel holds the columns of one cache line, contiguous along k
    product    one stretch of k after the other: B packed; then rows of A in chunks, each multiplied with one panel
               after the other, where it stands if its numbers are neighbours along k, else packed too

A packed matrix is read with stride one and can be used many times: a recurrent layer packs its U once per call and
multiplies with it at every time step (``add_product``).
"""
import numpy as np
from numba.extending import register_jitable

from ..machine.kernel import kernel
from ..machine.threads import spread, threads_for
from .micro_kernel import LINE_BYTES, ROWS, block_product

DEPTH = 512                 # of a stretch of k: 512 lines of a panel are 32 KiB
CHUNK = 128                 # rows of A that one pass multiplies with a panel

block_of_rows = block_product(ROWS)
block_of_four = block_product(4)
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
    while r + 4 <= rows:
        block_of_four(A, a + r * a_row, a_row, a_k, panels, p, depth, C, c + r * c_row, c_row)
        r += 4
    while r + 2 <= rows:
        block_of_two(A, a + r * a_row, a_row, a_k, panels, p, depth, C, c + r * c_row, c_row)
        r += 2
    if r < rows:
        block_of_one(A, a + r * a_row, a_row, a_k, panels, p, depth, C, c + r * c_row, c_row)


@register_jitable
def _pack_columns(B, first_k, depth, panels, panel):
    """panels[panel,k,lane] = B[first_k+k, panel*lanes+lane]; columns beyond the last are zero."""
    N, lanes = B.shape[1], panels.shape[2]
    for k in range(depth):
        for lane in range(lanes):
            n = panel * lanes + lane
            panels[panel, k, lane] = B[first_k + k, n] if n < N else 0


@kernel
def _pack_panels(B, panels, start, stop):
    for p in range(start, stop):
        _pack_columns(B, 0, B.shape[0], panels, p)


def pack(B):
    """B (K,N), any strides -> panels (P,K,lanes); columns beyond N are zero."""
    K, N = B.shape
    lanes = lanes_of(B.dtype)
    panels = np.empty((-(-N // lanes), K, lanes), B.dtype)
    _in_parts(lambda start, stop: _pack_panels(B, panels, start, stop), len(panels), 4 * K * N)
    return panels


@kernel
def _product_rows(A, B, bias, C, start, stop):
    """Rows start to stop of C[:, :N] = A @ B + bias.  C contiguous."""
    K, N = B.shape
    lanes = LINE_BYTES // B.itemsize
    a_row, c_row = A.strides[0] // A.itemsize, C.shape[1]
    row_is_contiguous = A.strides[1] == A.itemsize
    panels = np.empty((-(-N // lanes), min(K, DEPTH), lanes), A.dtype)
    packed = np.empty((0 if row_is_contiguous else min(K, DEPTH), CHUNK), A.dtype)
    edge = np.zeros((CHUNK, lanes), A.dtype)
    for row in range(start, stop):
        for n in range(N):
            C[row, n] = bias[n]
    for first_k in range(0, K, DEPTH):
        depth = min(DEPTH, K - first_k)
        for p in range(panels.shape[0]):
            _pack_columns(B, first_k, depth, panels, p)
        for first_row in range(start, stop, CHUNK):
            rows = min(CHUNK, stop - first_row)
            if not row_is_contiguous:
                _pack_rows(A, first_row, rows, first_k, depth, packed)
            for p in range(panels.shape[0]):
                whole = (p + 1) * lanes <= N
                target, c, stride = (C, first_row * c_row + p * lanes, c_row) if whole else (edge, 0, lanes)
                if not whole:                               # C has no room for a whole panel here
                    for r in range(rows):
                        for n in range(p * lanes, N):
                            edge[r, n - p * lanes] = C[first_row + r, n]
                if row_is_contiguous:
                    a = first_row * a_row + first_k
                    _add_rows(A, a, a_row, 1, rows, panels, p, 0, depth, target, c, stride)
                else:
                    _add_rows(packed, 0, 1, CHUNK, rows, panels, p, 0, depth, target, c, stride)
                if not whole:
                    for r in range(rows):
                        for n in range(p * lanes, N):
                            C[first_row + r, n] = edge[r, n - p * lanes]


@register_jitable
def _pack_rows(A, first_row, rows, first_k, depth, packed):
    """packed[k,r] = A[first_row+r, first_k+k], a piece of a column at a time: there its numbers are neighbours."""
    columns = A.T
    for k in range(depth):
        packed[k, :rows] = columns[first_k + k, first_row:first_row + rows]


def product(A, B, bias=None):
    """A @ B + bias.  A (M,K) and B (K,N) of one floating-point type, any strides; bias (N,) or None -> (M,N).

    The bits of a row depend on that row, B and bias alone."""
    C = np.empty((A.shape[0], B.shape[1]), A.dtype)
    fill_with_product(C, A, B, np.zeros(B.shape[1], A.dtype) if bias is None else bias)
    return C


def fill_with_product(C, A, B, bias):
    """The first N columns of C = A @ B + bias.  C contiguous, with N columns or more; the others stay as they are."""
    M, K = A.shape
    _in_parts(lambda start, stop: _product_rows(A, B, bias, C, start, stop), M, M * K * len(bias))


def _in_parts(task, count, multiply_adds):
    """task(start, stop) over range(count), cut evenly among as many threads as the work is worth."""
    threads = threads_for(multiply_adds)
    cuts = [count * k // threads for k in range(threads + 1)]
    spread(lambda k: task(cuts[k], cuts[k + 1]), threads, threads)
