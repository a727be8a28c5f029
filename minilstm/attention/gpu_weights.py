"""The weights of attention on a GPU, to look at: an array (B,heads,Tq,Tk), which ``gpu.py`` never builds else.

The simplest kernel that is right: a warp for each query of each head, whose lanes share out the keys.
"""
import functools

from numba import cuda

from ..cells.activations import exp, tanh
from ..device import ptx
from ..device.kernel import B2, F1, Float, Int, device_function, kernel
from .gpu_forward import LOWEST
from .gpu_tiles import ALL, THREADS, ZERO, divided


@device_function
def dot_score(q, k, w, q_start, k_start, w_start, A, scale):
    score = ZERO
    for a in range(A):
        score += q[q_start + a] * k[k_start + a]
    return scale * score


@device_function
def additive_score(q, k, w, q_start, k_start, w_start, A, scale):
    score = ZERO
    for a in range(A):
        score += w[w_start + a] * tanh(q[q_start + a] + k[k_start + a])
    return score


@functools.cache
def weights_kernel(additive, causal):
    """Grid of B * heads * Tq / 4 blocks."""
    score_of = additive_score if additive else dot_score

    @kernel(threads=THREADS)
    def weights_of_all(q: F1, k: F1, w: F1, key_mask: B2, query_mask: B2, scale: Float, heads: Int, A: Int,
                       weights: F1):
        lane = cuda.threadIdx.x % 32
        Tq = query_mask.shape[1]
        Tk = key_mask.shape[1]
        place = cuda.blockIdx.x * (THREADS // 32) + cuda.threadIdx.x // 32
        b_and_head, t = divided(place, Tq)
        b, head = divided(b_and_head, heads)
        if b < query_mask.shape[0]:
            last = (t + 1 if causal else Tk) if query_mask[b, t] else 0
            q_start = ((b * Tq + t) * heads + head) * A
            top = LOWEST
            for key in range(lane, last, 32):
                if key_mask[b, key]:
                    score = score_of(q, k, w, q_start, ((b * Tk + key) * heads + head) * A, head * A, A, scale)
                    weights[place * Tk + key] = score
                    top = score if score > top else top
            for e in range(5):
                other = cuda.shfl_xor_sync(ALL, top, 1 << e)
                top = other if other > top else top
            total = ZERO
            for key in range(lane, last, 32):
                if key_mask[b, key]:
                    total += exp(weights[place * Tk + key] - top)
            for e in range(5):
                total += cuda.shfl_xor_sync(ALL, total, 1 << e)
            share = ZERO if total == ZERO else ptx.reciprocal(total)
            for key in range(lane, Tk, 32):
                seen = key < last and key_mask[b, key]
                weights[place * Tk + key] = exp(weights[place * Tk + key] - top) * share if seen else ZERO

    return weights_of_all
