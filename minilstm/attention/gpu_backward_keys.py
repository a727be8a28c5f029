"""Attention on a GPU, backward: dk and dv.  What it computes is said in ``gpu_backward.py``."""
import functools

from numba import cuda, float32

from ..cells.activations import exp
from ..device import ptx
from ..device.kernel import B2, F1, Float, Int, kernel
from .gpu_backward import WEIGHTS_SIZE, clear, load_facts, reader
from .gpu_scores import additive_scores, additive_sums, dot_scores, products
from .gpu_tiles import (
    PASSING, ROWS, THREADS, WEIGHTS, ZERO, loader, place_of_block, real_rows, real_steps, scored, seeing, storer,
    summed)

FACTS_SIZE = PASSING * 4


@functools.cache
def key_gradient_kernel(additive, A, F, causal, aligned):
    """Blocks: (B * heads * parts of the wider of A and F, parts of the keys)."""
    of_q, of_d, of_dk, of_dv = scored(A), scored(F), summed(A, additive), summed(F, additive)
    A_columns, A_stride, F_columns, F_stride = of_q.columns, of_q.stride, of_d.columns, of_d.stride
    dk_columns, dv_columns, parts = of_dk.columns, of_dv.columns, max(of_dk.count, of_dv.count)
    dk_mine, dv_mine, kept = dk_columns // 8, dv_columns // 8, dk_columns // 8 if additive else 1
    own_size, other_size = ROWS * max(A_stride, F_stride), PASSING * max(A_stride, F_stride)
    passing_size = PASSING * max(dk_columns, dv_columns)
    load_keys = loader(ROWS, A, A_columns, A_stride, aligned)
    load_queries = loader(PASSING, A, A_columns, A_stride, aligned)
    load_values = loader(ROWS, F, F_columns, F_stride, aligned)
    load_gradients = loader(PASSING, F, F_columns, F_stride, aligned)
    load_passing_q = loader(PASSING, A, dk_columns, dk_columns, aligned)
    load_passing_d = loader(PASSING, F, dv_columns, dv_columns, aligned)
    add_scores = (additive_scores if additive else dot_scores)(A, A_columns, A_stride)
    add_dots = dot_scores(F, F_columns, F_stride)
    add_dk, add_seen_dk = products(A, dk_columns, False), products(A, dk_columns, True)
    add_dv, add_seen_dv = products(F, dv_columns, False), products(F, dv_columns, True)
    add_gradients = additive_sums(A, dk_columns, False)
    sees, read = seeing(causal), reader(A, dk_columns, aligned)
    store_dk, store_dv = storer(A, dk_columns, aligned), storer(F, dv_columns, aligned)

    @kernel(threads=THREADS, blocks_per_sm=2 if additive or passing_size > PASSING * 64 else 3)
    def of_keys(q: F1, k: F1, v: F1, w: F1, key_mask: B2, query_mask: B2, scale: Float, heads: Int, q_step: Int,
                v_step: Int, d_context: F1, known: F1, dk: F1, dv: F1):
        own = cuda.shared.array(own_size, float32, alignment=16)
        other = cuda.shared.array(other_size, float32, alignment=16)
        passing = cuda.shared.array(passing_size, float32, alignment=16)
        weights = cuda.shared.array(WEIGHTS_SIZE, float32, alignment=16)
        facts = cuda.shared.array(FACTS_SIZE, float32, alignment=16)
        x = cuda.threadIdx.x % 8
        y = cuda.threadIdx.x // 8
        b, head, part = place_of_block(heads, parts)
        column_k = part * dk_columns
        column_v = part * dv_columns
        first = cuda.blockIdx.y * ROWS
        Tq = query_mask.shape[1]
        Tk = key_mask.shape[1]
        keys = real_rows(key_mask, b, first)
        begin = first if causal else 0
        if keys == 0:
            begin = Tq
        start_k = (b * Tk + first) * q_step + head * A
        start_v = (b * Tk + first) * v_step + head * F

        s = cuda.local.array((4, 4), float32)
        dp = cuda.local.array((4, 4), float32)
        acc_k = cuda.local.array((4, dk_mine), float32)
        acc_v = cuda.local.array((4, dv_mine), float32)
        k_mine = cuda.local.array((4, kept), float32)
        none = cuda.local.array(1, float32)
        for i in range(4):
            for c in range(dk_mine):
                acc_k[i, c] = ZERO
            for c in range(dv_mine):
                acc_v[i, c] = ZERO
        if additive:
            read(k_mine, k, keys, start_k, q_step, column_k)

        for query in range(begin, Tq, PASSING):
            real = real_steps(query_mask, b, query)
            if real != 0:
                start_q = (b * Tq + query) * q_step + head * A
                start_d = (b * Tq + query) * v_step + head * F
                clear(s)
                for a in range(0, A, A_columns):
                    cuda.syncthreads()
                    if a == 0:
                        load_facts(facts, known, real, ((b * heads + head) * Tq + query) * 4)
                    load_keys(own, k, keys, start_k, q_step, a)
                    load_queries(other, q, real, start_q, q_step, a)
                    cuda.syncthreads()
                    add_scores(s, own, other, w, head, a)
                clear(dp)
                for f in range(0, F, F_columns):
                    cuda.syncthreads()
                    load_values(own, v, keys, start_v, v_step, f)
                    load_gradients(other, d_context, real, start_d, v_step, f)
                    cuda.syncthreads()
                    add_dots(dp, own, other, w, head, f)                                    # context = p @ v

                for j in range(4):
                    top, share, delta, _ = ptx.load4(facts, (x + 8 * j) * 4)
                    for i in range(4):
                        seen = share != ZERO and sees(real, x + 8 * j, query + x + 8 * j, first + y + 16 * i)
                        p = exp(ptx.times(s[i, j], scale) - top) * share if seen else ZERO
                        weights[(y + 16 * i) * WEIGHTS + x + 8 * j] = p
                        s[i, j] = p * (dp[i, j] - delta) if seen else ZERO                  # p = exp(s) / sum(exp(s))
                load_passing_d(passing, d_context, real, start_d, v_step, column_v)
                cuda.syncthreads()
                diagonal = causal and query < first + ROWS
                if diagonal:
                    add_seen_dv(acc_v, weights, passing)                                    # context = p @ v
                else:
                    add_dv(acc_v, weights, passing)                                         # context = p @ v

                cuda.syncthreads()
                load_passing_q(passing, q, real, start_q, q_step, column_k)
                for i in range(4):
                    for j in range(4):
                        weights[(y + 16 * i) * WEIGHTS + x + 8 * j] = s[i, j]
                cuda.syncthreads()
                if additive:
                    add_gradients(acc_k, none, k_mine, weights, passing)
                elif diagonal:
                    add_seen_dk(acc_k, weights, passing)                                    # s = scale * q @ k.T
                else:
                    add_dk(acc_k, weights, passing)                                         # s = scale * q @ k.T

        for c in range(dk_mine):
            at = column_k + c // 4 * 32 + x * 4 + c % 4
            factor = scale
            if additive:
                factor = w[head * A + at] if at < A else ZERO
            for i in range(4):
                acc_k[i, c] *= factor
        store_dk(acc_k, dk, keys, start_k, q_step, column_k, Tk - first)
        store_dv(acc_v, dv, keys, start_v, v_step, column_v, Tk - first)

    return of_keys
