"""The product on the processor: packed panels, register blocks, one pool of threads.

    pack            B (K,N) -> panels (P,K,lanes): one panel holds the columns of one cache line, contiguous along k
    multiply        rows times panels, from inside a kernel: a recurrent layer packs its U once per call and multiplies
                    with it at every time step
    product         A @ B: one stretch of k after the other, B packed; then rows of A in chunks, each multiplied with
                    one panel after the other, where it stands if its numbers are neighbours along k, else packed too
    add_product     C += A @ B, likewise

Every element is one chain of multiply-adds in the order of k, however k is cut and wherever it is computed.

NumPy's BLAS is about as fast on one thread, for small products a little faster.  It is not used: its threads and ours
would fight for the cores, and its sums are in an order of its own, so that a row's bits would depend on the others.
"""
import numpy as np
from numba.extending import register_jitable

from ..machine.buffers import empty
from ..machine.kernel import Integer, Places, Read, Written, kernel_for
from ..machine.threads import spread, threads_for
from .micro_kernel import LINE_BYTES, ROWS, block_copy, block_product, block_transpose

DEPTH = 512                 # of a stretch of k: 512 lines of a panel are 32 KiB
CHUNK = 128                 # rows of A that one pass multiplies with a panel
APART = 2                   # lines between their blocks: 4 KiB apart, all would want the same place in the cache
PANELS = ROWS // 2          # that rows left over are multiplied with at a time

block_of_rows = block_product(ROWS)
block_of_four = block_product(4)
block_of_two = block_product(2)
block_of_one = block_product(1)
wide_block_of_four = block_product(4, PANELS)
wide_block_of_two = block_product(2, PANELS)
wide_block_of_one = block_product(1, PANELS)
copy_block = block_copy(ROWS)
transpose_block = block_transpose(ROWS)


def lanes_of(dtype):
    """Columns of a panel: one cache line."""
    return LINE_BYTES // np.dtype(dtype).itemsize


@register_jitable
def multiply(A, a, rows, panels, first, last, S, s, s_row, C, c):
    """C[row, c:] = S[row, s:] + A[row, a:] @ panels[first:last] for so many rows, which begin at the places a, s, c of
    the flat arrays.  A, S, C contiguous, of two axes; s_row: the distance of two rows of S, 0 to take one for all.
    C may be S.  C is filled up to the last lane of the last panel."""
    K, lanes = panels.shape[1:]
    a_row = A.shape[1]
    left_over = rows % ROWS
    whole = rows - left_over
    for p in range(first, last):
        column = (p - first) * lanes
        for k in range(0, K if whole else 0, DEPTH):
            depth, start = min(DEPTH, K - k), (p * K + k) * lanes
            if k == 0:
                _multiply_rows(A, a, ROWS * a_row, a_row, 1, whole, panels, start, depth, S, s + column, s_row,
                               C, c + column, C.shape[1])
            else:
                _multiply_rows(A, a + k, ROWS * a_row, a_row, 1, whole, panels, start, depth, C, c + column, C.shape[1],
                               C, c + column, C.shape[1])
    if left_over:
        _multiply_few(A, a + whole * A.shape[1], left_over, panels, first, last, S, s + whole * s_row, s_row,
                      C, c + whole * C.shape[1])


@register_jitable
def _multiply_few(A, a, rows, panels, first, last, S, s, s_row, C, c):
    """``multiply`` for fewer than ROWS rows, as four, two and one of them: several panels at a time."""
    K, lanes = panels.shape[1:]
    a_row, c_row = A.shape[1], C.shape[1]
    four, all_but_one = rows & 4, rows - 1
    a_two, s_two, c_two = a + four * a_row, s + four * s_row, c + four * c_row
    a_one, s_one, c_one = a + all_but_one * a_row, s + all_but_one * s_row, c + all_but_one * c_row
    panel = first
    while panel < last:
        p, n = panel * K * lanes, (panel - first) * lanes
        if panel + PANELS <= last:
            if rows & 4:
                wide_block_of_four(A, a, a_row, 1, panels, p, p, 0, K, S, s + n, s_row, C, c + n, c_row)
            if rows & 2:
                wide_block_of_two(A, a_two, a_row, 1, panels, p, p, 0, K, S, s_two + n, s_row, C, c_two + n, c_row)
            if rows & 1:
                wide_block_of_one(A, a_one, 0, 1, panels, p, p, 0, K, S, s_one + n, 0, C, c_one + n, 0)
            panel += PANELS
        else:
            if rows & 4:
                block_of_four(A, a, a_row, 1, panels, p, p, 0, K, S, s + n, s_row, C, c + n, c_row)
            if rows & 2:
                block_of_two(A, a_two, a_row, 1, panels, p, p, 0, K, S, s_two + n, s_row, C, c_two + n, c_row)
            if rows & 1:
                block_of_one(A, a_one, 0, 1, panels, p, p, 0, K, S, s_one + n, 0, C, c_one + n, 0)
            panel += 1


@register_jitable
def _multiply_rows(A, a, a_block, a_row, a_k, rows, panels, p, depth, S, s, s_row, C, c, c_row):
    """One stretch of a panel, which begins at p, for any number of rows.  a_block: from ROWS rows of A to the next; the
    other distances as ``block_product`` has them.  Each block meanwhile fetches a part of the stretch that follows."""
    lanes = panels.shape[2]
    step = lanes // min(max(rows // ROWS, 1), lanes)
    ahead = p + depth * lanes
    left = rows
    while left >= ROWS:
        block_of_rows(A, a, a_row, a_k, panels, p, ahead, step, depth, S, s, s_row, C, c, c_row)
        left -= ROWS
        ahead += depth * step
        a += a_block
        s += ROWS * s_row
        c += ROWS * c_row
    if left >= 4:
        block_of_four(A, a, a_row, a_k, panels, p, ahead, step, depth, S, s, s_row, C, c, c_row)
        left -= 4
        a += 4 * a_row
        s += 4 * s_row
        c += 4 * c_row
    for r in range(left):
        block_of_one(A, a + r * a_row, 0, a_k, panels, p, ahead, step, depth, S, s + r * s_row, 0, C, c + r * c_row, 0)


@register_jitable
def add_rows(A, a, a_row, a_k, rows, panels, first, depth, C, row):
    """C[row:] += some rows of A @ so many lines of the panels, from the line ``first`` on.

    A stands in a flat array, from a on, with these distances between the neighbours of a column and of a row.  panels
    (P,K,lanes); C contiguous, with room for whole panels."""
    lanes, c_row = panels.shape[2], C.shape[1]
    for p in range(panels.shape[0]):
        start, c = (p * panels.shape[1] + first) * lanes, row * c_row + p * lanes
        _multiply_rows(A, a, ROWS * a_row, a_row, a_k, rows, panels, start, depth, C, c, c_row, C, c, c_row)


@register_jitable
def add_one_row(A, a, a_k, panels, first, depth, C, row):
    """``add_rows`` for one row, and several panels at a time."""
    lanes = panels.shape[2]
    panel = 0
    while panel < panels.shape[0]:
        start, c = (panel * panels.shape[1] + first) * lanes, row * C.shape[1] + panel * lanes
        if panel + PANELS <= panels.shape[0]:
            wide_block_of_one(A, a, 0, a_k, panels, start, start, 0, depth, C, c, 0, C, c, 0)
            panel += PANELS
        else:
            block_of_one(A, a, 0, a_k, panels, start, start, 0, depth, C, c, 0, C, c, 0)
            panel += 1


@register_jitable
def _pack_columns(B, first_k, depth, panels, panel):
    """panels[panel,k,lane] = B[first_k+k, panel*lanes+lane]; columns beyond the last are zero."""
    lanes, first, place = panels.shape[2], panel * panels.shape[2], panel * panels.shape[1] * panels.shape[2]
    b_row, b_column = B.strides[0] // B.itemsize, B.strides[1] // B.itemsize
    columns, done = min(lanes, B.shape[1] - first), 0
    if columns == lanes and b_column == 1:
        done = depth
        for k in range(depth):
            for lane in range(0, lanes, ROWS):
                copy_block(B, (first_k + k) * b_row + first + lane, panels, place + k * lanes + lane)
    elif columns == lanes and b_row == 1:
        done = depth - depth % ROWS
        _turn(B, first_k + first * b_column, b_column, done, panels, place)
    for k in range(done, depth):
        for lane in range(lanes):
            panels[panel, k, lane] = B[first_k + k, first + lane] if lane < columns else 0


@register_jitable
def _turn(B, b, b_step, depth, panels, place):
    """The rows of B from b on, which lie b_step apart, become the columns of a panel, flat from ``place`` on."""
    lanes = panels.shape[2]
    for k in range(0, depth, ROWS):
        for lane in range(0, lanes, ROWS):
            transpose_block(B, b + lane * b_step + k, b_step, panels, place + k * lanes + lane, lanes)


@kernel_for(Read(2), Written(3), Integer, Integer)
def pack_panels(B, panels, start, stop):
    for p in range(start, stop):
        _pack_columns(B, 0, B.shape[0], panels, p)


@kernel_for(Read(2), Places, Written(3), Integer, Integer)
def pack_rows_as_columns(B, order, panels, start, stop):
    """panels[p,k,lane] = B[order[p*lanes+lane], k], zero where that is -1."""
    K, lanes = panels.shape[1:]
    b_row = B.strides[0] // B.itemsize
    for p in range(start, stop):
        rows = order[p * lanes:(p + 1) * lanes]
        in_turn = rows[0] >= 0 and B.strides[1] == B.itemsize
        for lane in range(1, lanes):
            in_turn &= rows[lane] == rows[0] + lane
        done = K - K % ROWS if in_turn else 0
        _turn(B, rows[0] * b_row, b_row, done, panels, p * K * lanes)
        for first_k in range(done, K, lanes):               # one cache line of a row after the other
            for lane in range(lanes):
                for k in range(first_k, min(first_k + lanes, K)):
                    panels[p, k, lane] = B[rows[lane], k] if rows[lane] >= 0 else 0


def pack(B):
    """B (K,N) -> panels (P,K,lanes); columns beyond N are zero."""
    K, N = B.shape
    lanes = lanes_of(B.dtype)
    panels, packer = empty((-(-N // lanes), K, lanes), B.dtype), pack_panels(B.dtype)
    _in_parts(lambda start, stop: packer(B, panels, start, stop), len(panels), 4 * K * N)
    return panels


def pack_rows(B, order):
    """B (N,K), order: which row of B becomes which column, -1 for none, whole panels -> panels (P,K,lanes)."""
    lanes = lanes_of(B.dtype)
    panels, packer = empty((len(order) // lanes, B.shape[1], lanes), B.dtype), pack_rows_as_columns(B.dtype)
    _in_parts(lambda start, stop: packer(B, order, panels, start, stop), len(panels), 4 * B.size)
    return panels


def no_panels(dtype):
    """For a matrix that is not there."""
    return np.empty((0, 0, lanes_of(dtype)), dtype)


@kernel_for(Read(2), Read(2), Read(1), Written(2), Integer, Integer, Written(3), Written(2))
def product_rows(A, B, bias, C, start, stop, panels, packed):
    """Rows start to stop of C = A @ B + bias, or of C += A @ B if bias is empty.  panels, packed: room for a stretch of
    B, and for a stretch of some rows of A; none for the latter if its rows are contiguous."""
    K, N = B.shape
    lanes = panels.shape[2]
    a_row, c_row = A.strides[0] // A.itemsize, C.shape[1]
    row_is_contiguous, room = len(packed) == 0, panels.shape[1] + APART
    edge = np.zeros((CHUNK, lanes), A.dtype)
    for row in range(start, stop):
        for n in range(len(bias)):
            C[row, n] = bias[n]
    for first_k in range(0, K, DEPTH):
        depth = min(DEPTH, K - first_k)
        for p in range(panels.shape[0]):
            _pack_columns(B, first_k, depth, panels, p)
        for first_row in range(start, stop, CHUNK):
            rows = min(CHUNK, stop - first_row)
            if row_is_contiguous:
                rows_of_A, a, a_block, a_step, a_k = A, first_row * a_row + first_k, ROWS * a_row, a_row, 1
            else:
                _pack_rows(A, first_row, rows, first_k, depth, packed, room)
                rows_of_A, a, a_block, a_step, a_k = packed, 0, ROWS * room, 1, ROWS
            for p in range(panels.shape[0]):
                whole = (p + 1) * lanes <= N
                target, c, stride = (C, first_row * c_row + p * lanes, c_row) if whole else (edge, 0, lanes)
                if not whole:                               # C has no room for a whole panel here
                    for r in range(rows):
                        for n in range(p * lanes, N):
                            edge[r, n - p * lanes] = C[first_row + r, n]
                _multiply_rows(rows_of_A, a, a_block, a_step, a_k, rows, panels, p * panels.shape[1] * lanes, depth,
                               target, c, stride, target, c, stride)
                if not whole:
                    for r in range(rows):
                        for n in range(p * lanes, N):
                            C[first_row + r, n] = edge[r, n - p * lanes]


@register_jitable
def _pack_rows(A, first_row, rows, first_k, depth, packed, room):
    """packed[r//ROWS * room + k, r%ROWS] = A[first_row+r, first_k+k], a piece of a column at a time: there its numbers
    are neighbours."""
    a_k, whole = A.strides[1] // A.itemsize, rows // ROWS
    for k in range(depth):
        a = (first_k + k) * a_k + first_row
        for block in range(whole):
            copy_block(A, a + block * ROWS, packed, (block * room + k) * ROWS)
        for r in range(whole * ROWS, rows):
            packed[whole * room + k, r - whole * ROWS] = A[first_row + r, first_k + k]


def product(A, B, bias=None):
    """A @ B + bias.  A (M,K) and B (K,N) of one floating-point type, any strides; bias (N,) or None -> (M,N).

    The bits of a row depend on that row, B and bias alone."""
    C = empty((A.shape[0], B.shape[1]), A.dtype)
    _fill(C, A, B, np.zeros(B.shape[1], A.dtype) if bias is None else bias)
    return C


def add_product(C, A, B):
    """C += A @ B.  C (M,N) contiguous, A (M,K), B (K,N)."""
    _fill(C, A, B, np.empty(0, A.dtype))


def _fill(C, A, B, bias):
    K, N = B.shape
    if A.itemsize not in A.strides:                         # neither rows nor columns of A are neighbours
        A = np.ascontiguousarray(A)
    lanes, stretch = lanes_of(B.dtype), min(K, DEPTH)
    blocks = 0 if A.strides[1] == A.itemsize else CHUNK // ROWS
    rows = product_rows(A.dtype)

    def part(start, stop):
        panels = empty((-(-N // lanes), stretch, lanes), B.dtype)
        packed = empty((blocks * (stretch + APART), ROWS), B.dtype)
        rows(A, B, bias, C, start, stop, panels, packed)

    _in_parts(part, len(A), A.size * N)


def _in_parts(task, count, multiply_adds):
    """task(start, stop) over range(count), cut evenly among as many threads as the work is worth."""
    threads = threads_for(multiply_adds)
    if threads == 1 or not count:
        return task(0, count)
    cuts = [count * k // threads for k in range(threads + 1)]
    spread(lambda k: task(cuts[k], cuts[k + 1]), threads, threads)
