"""Attention on a GPU, forward: the softmax is streamed, so no score is ever in the GPU's memory.

A block has ROWS queries of one head, and the keys pass by, PASSING at a time.  Of each query it keeps

    top_new = max(top, largest score of the tile)
    shrink  = exp(top - top_new)                        where the maximum rises, all that was summed before shrinks
    total   = total * shrink + sum(exp(score - top_new))
    context = context * shrink + exp(score - top_new) @ v           at the end divided by total

Sources: M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, 2018, algorithm 3; T. Dao et al.,
FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, 2022, algorithm 1.
"""
import functools

import numpy as np
from numba import cuda, float32

from ..cells.activations import ONE, exp
from ..device import ptx
from ..device.kernel import B2, F1, Float, Int, device_function, kernel, unroll
from .gpu_scores import additive_scores, dot_scores, products
from .gpu_tiles import (
    ALL, PASSING, ROWS, THREADS, WEIGHTS, ZERO, loader, place_of_block, real_rows, real_steps, scored, seeing, storer,
    summed)

LOWEST = np.finfo("float32").min
WEIGHTS_SIZE = ROWS * WEIGHTS


@device_function
def largest_of_row(value):
    """Over the eight threads that share a row."""
    for e in unroll(3):
        other = cuda.shfl_xor_sync(ALL, value, 1 << e)
        value = other if other > value else value
    return value


@device_function
def sum_of_row(value):
    """Over the eight threads that share a row; all get the same bits."""
    for e in unroll(3):
        value += cuda.shfl_xor_sync(ALL, value, 1 << e)
    return value


@functools.cache
def forward_kernel(additive, A, F, causal, aligned):
    """A, F: columns of one head of k and v.  Blocks: (B * heads * parts of F's columns, parts of the queries)."""
    of_k, of_v = scored(A), summed(F)
    A_columns, A_stride, F_columns, F_parts = of_k.columns, of_k.stride, of_v.columns, of_v.count
    own_size, other_size, values_size, mine = ROWS * A_stride, PASSING * A_stride, PASSING * F_columns, F_columns // 8
    load_queries = loader(ROWS, A, A_columns, A_stride, aligned)
    load_keys = loader(PASSING, A, A_columns, A_stride, aligned)
    load_values = loader(PASSING, F, F_columns, F_columns, aligned)
    add_scores = (additive_scores if additive else dot_scores)(A, A_columns, A_stride)
    add_products, add_seen = products(F, F_columns, False), products(F, F_columns, True)
    sees, store = seeing(causal), storer(F, F_columns, aligned)

    @kernel(threads=THREADS, blocks_per_sm=2 if F_columns > 64 else 3)
    def forward(q: F1, k: F1, v: F1, w: F1, key_mask: B2, query_mask: B2, scale: Float, heads: Int, q_step: Int,
                v_step: Int, context: F1, sums: F1):
        """q_step, v_step: numbers from one step of q and k, and of v, to the next."""
        own = cuda.shared.array(own_size, float32, alignment=16)
        other = cuda.shared.array(other_size, float32, alignment=16)
        values = cuda.shared.array(values_size, float32, alignment=16)
        weights = cuda.shared.array(WEIGHTS_SIZE, float32, alignment=16)
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        b, head, part = place_of_block(heads, F_parts)
        column = part * F_columns
        first = (cuda.gridDim.y - 1 - cuda.blockIdx.y) * ROWS           # causal, the last have most to do: they begin
        Tq = query_mask.shape[1]
        Tk = key_mask.shape[1]
        queries = real_rows(query_mask, b, first)
        last = min(Tk, first + ROWS) if causal else Tk
        if queries == 0:
            last = 0

        s = cuda.local.array((4, 4), float32)
        acc = cuda.local.array((4, mine), float32)
        top = cuda.local.array(4, float32)
        total = cuda.local.array(4, float32)                            # of this thread's keys
        sighted = cuda.local.array(4, float32)                          # 1: one of them was seen
        for i in range(4):
            top[i], total[i], sighted[i] = LOWEST, ZERO, ZERO
            for c in range(mine):
                acc[i, c] = ZERO

        for key in range(0, last, PASSING):
            real = real_steps(key_mask, b, key)
            if real != 0:
                for i in range(4):
                    for j in range(4):
                        s[i, j] = ZERO
                for a in range(0, A, A_columns):
                    cuda.syncthreads()
                    load_queries(own, q, queries, (b * Tq + first) * q_step + head * A, q_step, a)
                    load_keys(other, k, real, (b * Tk + key) * q_step + head * A, q_step, a)
                    cuda.syncthreads()
                    add_scores(s, own, other, w, head, a)
                load_values(values, v, real, (b * Tk + key) * v_step + head * F, v_step, column)

                for i in range(4):
                    query = first + y + 16 * i
                    top_new = top[i]
                    for j in range(4):
                        s[i, j] = ptx.times(s[i, j], scale)             # the bits of the backward pass
                        seen = sees(real, x + 8 * j, query, key + x + 8 * j)
                        sighted[i] = ONE if seen else sighted[i]
                        score = s[i, j] if seen else LOWEST
                        top_new = score if score > top_new else top_new
                    top_new = largest_of_row(top_new)
                    shrink = exp(top[i] - top_new)
                    top[i] = top_new
                    total[i] *= shrink
                    for c in range(mine):
                        acc[i, c] *= shrink
                    for j in range(4):
                        seen = sees(real, x + 8 * j, query, key + x + 8 * j)
                        weight = exp(s[i, j] - top_new) if seen else ZERO
                        total[i] += weight
                        weights[(y + 16 * i) * WEIGHTS + x + 8 * j] = weight
                cuda.syncthreads()
                if causal and key + PASSING > first:                    # the diagonal cuts the tile
                    add_seen(acc, weights, values)
                else:
                    add_products(acc, weights, values)

        for i in range(4):
            row = y + 16 * i
            all_of_it = sum_of_row(total[i])
            blind = largest_of_row(sighted[i]) == ZERO or queries >> row & 1 == 0
            share = ZERO if blind else ptx.reciprocal(all_of_it)
            for c in range(mine):
                acc[i, c] = ZERO if blind else acc[i, c] * share
            if x == 0 and column == 0 and first + row < Tq:
                place = ((b * heads + head) * Tq + first + row) * 2
                sums[place] = ZERO if blind else top[i]
                sums[place + 1] = ZERO if blind else all_of_it
        store(acc, context, queries, (b * Tq + first) * v_step + head * F, v_step, column, Tq - first)

    return forward
