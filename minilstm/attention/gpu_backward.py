"""Attention on a GPU, backward: the tiles of scores are made again, twice.

    of_queries      a block has ROWS queries, and the keys pass by: dq, and for the additive score a part of dw
    of_keys         a block has ROWS keys, and the queries pass by: dk and dv; ``gpu_backward_keys.py``

So each gradient is summed by one thread, in one order, and nothing is added to memory that others add to.  The sums
over all keys that the gradient of a softmax needs are known before, from the forward pass (Dao et al. 2022, algorithm
4):

    top, share = 1 / total, delta = d_context . context     of each query: ``describe_queries``
    p  = exp(score - top) * share                           the weight
    ds = p * (d_context . v - delta)                        the gradient of the score
    dv = sum over queries of p * d_context                  # context = p @ v
    dq = scale * sum over keys of ds * k                    # score = scale * q . k
    dk = scale * sum over queries of ds * q                 # score = scale * q . k

The gradients of the additive score are in ``gpu_scores.additive_sums``.
"""
import functools

from numba import cuda, float32

from ..cells.activations import exp
from ..device import ptx
from ..device.kernel import B2, F1, Float, Int, device_function, kernel
from .gpu_scores import additive_scores, additive_sums, dot_scores, products
from .gpu_tiles import (
    ALL, PASSING, ROWS, THREADS, WEIGHTS, ZERO, ZEROS, divided, loader, place_of_block, real_rows, real_steps, scored,
    seeing, storer, summed)

WEIGHTS_SIZE = ROWS * WEIGHTS


# ----------------------------------------------------------------------------------------- what is known of each query

@functools.cache
def query_kernel(F):
    """A warp for each query of each head: grid of B * heads * Tq / 4 blocks."""

    @kernel(threads=THREADS)
    def describe_queries(context: F1, d_context: F1, sums: F1, query_mask: B2, heads: Int, v_step: Int,
                         known: F1):
        """known (B,heads,Tq,4): top, share, delta and a 0; all are 0 for a query that sees nothing or is masked."""
        lane = cuda.threadIdx.x % 32
        Tq = query_mask.shape[1]
        place = cuda.blockIdx.x * (THREADS // 32) + cuda.threadIdx.x // 32
        b_and_head, t = divided(place, Tq)
        b, head = divided(b_and_head, heads)
        if b < query_mask.shape[0]:
            total = sums[place * 2 + 1]
            delta = ZERO
            if query_mask[b, t] and total != ZERO:
                start = (b * Tq + t) * v_step + head * F
                for f in range(lane, F, 32):
                    delta += d_context[start + f] * context[start + f]
            for e in range(5):
                delta += cuda.shfl_xor_sync(ALL, delta, 1 << e)
            if lane == 0:
                ptx.store4(known, place * 4, sums[place * 2], ZERO if total == ZERO else ptx.reciprocal(total), delta,
                           ZERO)

    return describe_queries


# ------------------------------------------------------------------------------------------------- what both kernels do

@device_function
def clear(s):
    for i in range(4):
        for j in range(4):
            s[i, j] = ZERO


@device_function
def load_facts(facts, known, real, start):
    """facts (PASSING,4) = top, share, delta, 0 of the queries that pass by."""
    query = cuda.threadIdx.x
    if query < PASSING:
        values = ZEROS
        if real >> query & 1 != 0:
            values = ptx.load4(known, start + query * 4)
        ptx.store4(facts, query * 4, values[0], values[1], values[2], values[3])


@functools.cache
def reader(width, columns, aligned):
    """Of a thread's own rows and columns, for the additive score."""
    parts = columns // 32

    @device_function
    def read(mine, x, real, start, step, column):
        """mine[i, c] = x[start + row * step + column + its column]; 0 where bit ``row`` of real is 0."""
        for i in range(4):
            row = cuda.threadIdx.x // 8 + 16 * i
            for part in range(parts):
                at = column + part * 32 + cuda.threadIdx.x % 8 * 4
                for d in range(4):
                    is_there = real >> row & 1 != 0 and at + d < width
                    mine[i, part * 4 + d] = x[start + row * step + at + d] if is_there else ZERO

    return read


# ------------------------------------------------------------------------------------------------------- dq, and dw

@functools.cache
def query_gradient_kernel(additive, A, F, causal, aligned):
    """Blocks: (B * heads * parts of A's columns, parts of the queries)."""
    of_k, of_v, of_dq = scored(A), scored(F), summed(A, additive)
    A_columns, A_stride, F_columns, F_stride = of_k.columns, of_k.stride, of_v.columns, of_v.stride
    columns, parts, mine = of_dq.columns, of_dq.count, of_dq.columns // 8
    own_size, other_size = ROWS * max(A_stride, F_stride), PASSING * max(A_stride, F_stride)
    passing_size, kept = PASSING * columns, of_dq.columns // 8 if additive else 1
    load_queries = loader(ROWS, A, A_columns, A_stride, aligned)
    load_keys = loader(PASSING, A, A_columns, A_stride, aligned)
    load_gradients = loader(ROWS, F, F_columns, F_stride, aligned)
    load_values = loader(PASSING, F, F_columns, F_stride, aligned)
    load_passing = loader(PASSING, A, columns, columns, aligned)
    add_scores = (additive_scores if additive else dot_scores)(A, A_columns, A_stride)
    add_dots = dot_scores(F, F_columns, F_stride)
    add_products, add_seen = products(A, columns, False), products(A, columns, True)
    add_gradients = additive_sums(A, columns, True)
    sees, read, store = seeing(causal), reader(A, columns, aligned), storer(A, columns, aligned)

    @kernel(threads=THREADS, blocks_per_sm=2 if additive or columns > 64 else 3)
    def of_queries(q: F1, k: F1, v: F1, w: F1, key_mask: B2, query_mask: B2, scale: Float, heads: Int, q_step: Int,
                   v_step: Int, d_context: F1, known: F1, dq: F1, dw: F1):
        """dw (B * parts of the queries, heads * A): what each block finds.  q_step, v_step: numbers from one step of q
        and k, and of v, to the next."""
        own = cuda.shared.array(own_size, float32, alignment=16)
        other = cuda.shared.array(other_size, float32, alignment=16)
        passing = cuda.shared.array(passing_size, float32, alignment=16)
        weights = cuda.shared.array(WEIGHTS_SIZE, float32, alignment=16)
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        b, head, part = place_of_block(heads, parts)
        column = part * columns
        tile = cuda.gridDim.y - 1 - cuda.blockIdx.y                     # causal, the last have most to do: they begin
        first = tile * ROWS
        Tq = query_mask.shape[1]
        Tk = key_mask.shape[1]
        queries = real_rows(query_mask, b, first)
        last = min(Tk, first + ROWS) if causal else Tk
        if queries == 0:
            last = 0
        start_q = (b * Tq + first) * q_step + head * A
        start_d = (b * Tq + first) * v_step + head * F

        s = cuda.local.array((4, 4), float32)
        dp = cuda.local.array((4, 4), float32)
        acc = cuda.local.array((4, mine), float32)
        top = cuda.local.array(4, float32)
        share = cuda.local.array(4, float32)
        delta = cuda.local.array(4, float32)
        q_mine = cuda.local.array((4, kept), float32)
        dw_mine = cuda.local.array(kept, float32)
        for i in range(4):
            row = y + 16 * i
            top[i], share[i], delta[i] = ZERO, ZERO, ZERO
            if queries >> row & 1 != 0:
                place = ((b * heads + head) * Tq + first + row) * 4
                top[i], share[i], delta[i], _ = ptx.load4(known, place)
            for c in range(mine):
                acc[i, c] = ZERO
        if additive:
            read(q_mine, q, queries, start_q, q_step, column)
            for c in range(kept):
                dw_mine[c] = ZERO

        for key in range(0, last, PASSING):
            real = real_steps(key_mask, b, key)
            if real != 0:
                start_k = (b * Tk + key) * q_step + head * A
                start_v = (b * Tk + key) * v_step + head * F
                clear(s)
                for a in range(0, A, A_columns):
                    cuda.syncthreads()
                    load_queries(own, q, queries, start_q, q_step, a)
                    load_keys(other, k, real, start_k, q_step, a)
                    cuda.syncthreads()
                    add_scores(s, own, other, w, head, a)
                clear(dp)
                for f in range(0, F, F_columns):
                    cuda.syncthreads()
                    load_gradients(own, d_context, queries, start_d, v_step, f)
                    load_values(other, v, real, start_v, v_step, f)
                    cuda.syncthreads()
                    add_dots(dp, own, other, w, head, f)                                    # context = p @ v
                load_passing(passing, k, real, start_k, q_step, column)

                for i in range(4):
                    query = first + y + 16 * i
                    for j in range(4):
                        seen = share[i] != ZERO and sees(real, x + 8 * j, query, key + x + 8 * j)
                        p = exp(ptx.times(s[i, j], scale) - top[i]) * share[i]
                        ds = p * (dp[i, j] - delta[i])                                      # p = exp(s) / sum(exp(s))
                        weights[(y + 16 * i) * WEIGHTS + x + 8 * j] = ds if seen else ZERO
                cuda.syncthreads()
                if additive:
                    add_gradients(acc, dw_mine, q_mine, weights, passing)
                elif causal and key + PASSING > first:                  # the diagonal cuts the tile
                    add_seen(acc, weights, passing)                                         # s = scale * q @ k.T
                else:
                    add_products(acc, weights, passing)                                     # s = scale * q @ k.T

        for c in range(mine):
            at = column + c // 4 * 32 + x * 4 + c % 4
            factor = scale
            if additive:
                factor = w[head * A + at] if at < A else ZERO
            for i in range(4):
                acc[i, c] *= factor
        store(acc, dq, queries, start_q, q_step, column, Tq - first)
        if additive:
            cuda.syncthreads()
            for c in range(mine):
                passing[y * columns + c // 4 * 32 + x * 4 + c % 4] = dw_mine[c]
            cuda.syncthreads()
            c = cuda.threadIdx.x
            if c < columns and column + c < A:
                total = ZERO
                for row in range(THREADS // 8):
                    total += passing[row * columns + c]
                dw[((b * cuda.gridDim.y + tile) * heads + head) * A + column + c] = total

    return of_queries
