"""Scores of a tile for ``gpu.py``, sums with weights, and the reverse of both.  The layout is that of ``gpu_tiles.py``.

Rows and passing ones may be queries and keys, or keys and queries: both scores are symmetrical in q and k, and their
sums run in one order, so forward and backward see the same bits.
"""
import functools

from numba import cuda, float32

from ..cells.activations import d_tanh, tanh
from ..device import ptx
from ..device.kernel import device_function
from .gpu_tiles import PASSING, WEIGHTS, ZERO


# ------------------------------------------------------------------------------------------------- scores of one slice

@functools.cache
def dot_scores(width, columns, stride):
    @device_function
    def add_scores(s, own, other, w, head, column):
        """s += own @ other.T, over the columns of one slice."""
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        rows = cuda.local.array((4, 4), float32)
        passing = cuda.local.array(4, float32)
        for a in range(0, columns, 4):
            for i in range(4):
                rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3] = ptx.load4(own, (y + 16 * i) * stride + a)
            for j in range(4):
                passing[0], passing[1], passing[2], passing[3] = ptx.load4(other, (x + 8 * j) * stride + a)
                for i in range(4):
                    for d in range(4):
                        s[i, j] += rows[i, d] * passing[d]

    return add_scores


@functools.cache
def additive_scores(width, columns, stride):
    @device_function
    def add_scores(s, own, other, w, head, column):
        """s += sum over a of w[a] * tanh(own[a] + other[a]), over the columns of one slice."""
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        for a in range(min(columns, width - column)):
            w_a = w[head * width + column + a]
            for i in range(4):
                row = own[(y + 16 * i) * stride + a]
                for j in range(4):
                    s[i, j] += w_a * tanh(row + other[(x + 8 * j) * stride + a])

    return add_scores


# --------------------------------------------------------------------------------------------- sums over what passes by

@functools.cache
def products(width, columns, guarded):
    """guarded: a weight of 0 is not multiplied with, since 0 * NaN is NaN.  Needed where some rows see what others may
    not see, so in the tiles that the diagonal of a causal attention cuts."""
    parts, full = columns // 32, width % columns == 0

    @device_function
    def add_products(acc, weights, passing):
        """acc += weights @ passing.  weights (ROWS,PASSING), WEIGHTS apart, passing (PASSING,columns)."""
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        p = cuda.local.array((4, 4), float32)
        row = cuda.local.array(4, float32)
        for k in range(0, PASSING, 4):
            for i in range(4):
                p[i, 0], p[i, 1], p[i, 2], p[i, 3] = ptx.load4(weights, (y + 16 * i) * WEIGHTS + k)
            for part in range(parts):
                if full or part * 32 + x * 4 < width:
                    for e in range(4):
                        row[0], row[1], row[2], row[3] = ptx.load4(passing, (k + e) * columns + part * 32 + x * 4)
                        for i in range(4):
                            if not guarded or p[i, e] != ZERO:
                                for d in range(4):
                                    acc[i, part * 4 + d] += p[i, e] * row[d]

    return add_products


@functools.cache
def additive_sums(width, columns, for_w):
    parts, full = columns // 32, width % columns == 0

    @device_function
    def add_gradients(acc, dw, own, ds, passing):
        """The reverse of ``additive_scores``.  With t = tanh(own + passing) of each row, passing one and column:
        acc += ds * (1 - t * t), the gradient of own but for the factor w; if for_w, dw += ds * t.

        own (4,columns/8), dw (columns/8): of this thread's rows and columns; ds, passing as in ``products``."""
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        other = cuda.local.array(4, float32)
        for k in range(PASSING):
            for part in range(parts):
                if full or part * 32 + x * 4 < width:
                    other[0], other[1], other[2], other[3] = ptx.load4(passing, k * columns + part * 32 + x * 4)
                    for i in range(4):
                        d_score = ds[(y + 16 * i) * WEIGHTS + k]
                        if d_score != ZERO:                             # 0 where a query does not see a key
                            for d in range(4):
                                t = tanh(own[i, part * 4 + d] + other[d])
                                acc[i, part * 4 + d] += d_score * d_tanh(t)         # score += w * tanh(own + other)
                                if for_w:
                                    dw[part * 4 + d] += d_score * t                 # score += w * tanh(own + other)

    return add_gradients
