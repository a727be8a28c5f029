"""Attention on a GPU.  Same functions and parameters as ``reference``, for DeviceArrays: float32, and bool for masks.

1.  Scores exist in the registers of a block's threads only, some queries by some keys at a time, forward
    (``gpu_forward.py``) and, made again, backward (``gpu_backward.py``); ``gpu_tiles.py`` says who holds what, and
    ``gpu_scores.py`` what the two scores are.
2.  Tiles without any real key, or any real query, are skipped, and those behind the last query of a causal attention.
    What is masked in the others is loaded as zero: nobody reads it.
3.  A head may have any width.  Up to 128 columns one block sums all of them; wider heads are shared out among blocks,
    each of which makes the scores for itself.

Each number is summed by one thread in one order: same inputs, same bits.
"""
import numpy as np

from ..device.gpu import empty, launch
from ..matmul.gpu import column_sums
from .gpu_backward import query_gradient_kernel, query_kernel
from .gpu_backward_keys import key_gradient_kernel
from .gpu_forward import forward_kernel
from .gpu_tiles import ROWS, THREADS, summed
from .gpu_weights import weights_kernel

WARPS = THREADS // 32


# -------------------------------------------------------------------------------------------------------- dot product

def dot_product(q, k, v, key_mask, query_mask, causal, heads, scale):
    """-> context (B,Tq,F), sums (B,heads,Tq,2).  scale: a number, 1 / sqrt(A / heads) for the usual score."""
    return _forward(q, k, v, None, key_mask, query_mask, causal, heads, scale)


def dot_product_backward(q, k, v, key_mask, query_mask, causal, heads, scale, context, sums, d_context):
    """The reverse of ``dot_product``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F)."""
    return _backward(q, k, v, None, key_mask, query_mask, causal, heads, scale, context, sums, d_context)[:3]


def dot_product_weights(q, k, key_mask, query_mask, causal, heads, scale):
    """The weights behind a context -> (B,heads,Tq,Tk), 0 for a key that a query does not see."""
    return _weights(q, k, None, key_mask, query_mask, causal, heads, scale)


# ----------------------------------------------------------------------------------------------------------- additive

def additive(q, k, v, w, key_mask, query_mask, causal, heads):
    """w (A,), head by head like the columns of q -> context (B,Tq,F), sums (B,heads,Tq,2)."""
    return _forward(q, k, v, w, key_mask, query_mask, causal, heads, 1)


def additive_backward(q, k, v, w, key_mask, query_mask, causal, heads, context, sums, d_context):
    """The reverse of ``additive``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F), dw (A,)."""
    return _backward(q, k, v, w, key_mask, query_mask, causal, heads, 1, context, sums, d_context)


def additive_weights(q, k, w, key_mask, query_mask, causal, heads):
    """The weights behind a context -> (B,heads,Tq,Tk), 0 for a key that a query does not see."""
    return _weights(q, k, w, key_mask, query_mask, causal, heads, 1)


# -------------------------------------------------------------------------------------------------------- what both do

def _forward(q, k, v, w, key_mask, query_mask, causal, heads, scale):
    """w None: the dot product."""
    (B, Tq, width_q), (*_, width_v) = q.shape, v.shape
    A, F = width_q // heads, width_v // heads
    context, sums = empty((B, Tq, width_v)), empty((B, heads, Tq, 2))
    forward = forward_kernel(w is not None, A, F, bool(causal), aligned(A, F, q, k, v))
    launch(forward, (B * heads * summed(F).count, _tiles(Tq)), flat(q), flat(k), flat(v), _or_empty(w), key_mask,
           query_mask, np.float32(scale), heads, width_q, width_v, flat(context), flat(sums))
    return context, sums


def _backward(q, k, v, w, key_mask, query_mask, causal, heads, scale, context, sums, d_context):
    """-> dq, dk, dv, dw; w None: the dot product, and dw is empty."""
    (B, Tq, width_q), (_, Tk, width_v) = q.shape, v.shape
    A, F = width_q // heads, width_v // heads
    known = empty((B, heads, Tq, 4))
    launch(query_kernel(F), -(-B * heads * Tq // WARPS), flat(context), flat(d_context), flat(sums), query_mask, heads,
           width_v, flat(known))

    dq, dk, dv = empty(q.shape), empty(k.shape), empty(v.shape)
    dw = empty((B * _tiles(Tq), width_q)) if w is not None else empty((0, 0))
    kind = w is not None, A, F, bool(causal), aligned(A, F, q, k, v, d_context)
    given = (flat(q), flat(k), flat(v), _or_empty(w), key_mask, query_mask, np.float32(scale), heads, width_q, width_v,
             flat(d_context), flat(known))
    parts_of_A, parts_of_F = (summed(width, fewer=w is not None).count for width in (A, F))
    launch(query_gradient_kernel(*kind), (B * heads * parts_of_A, _tiles(Tq)), *given, flat(dq), flat(dw))
    launch(key_gradient_kernel(*kind), (B * heads * max(parts_of_A, parts_of_F), _tiles(Tk)), *given, flat(dk),
           flat(dv))
    return dq, dk, dv, column_sums(dw)


def _weights(q, k, w, key_mask, query_mask, causal, heads, scale):
    (B, Tq, width_q), Tk = q.shape, k.shape[1]
    weights = empty((B, heads, Tq, Tk))
    launch(weights_kernel(w is not None, bool(causal)), -(-B * heads * Tq // WARPS), flat(q), flat(k), _or_empty(w),
           key_mask, query_mask, np.float32(scale), heads, width_q // heads, flat(weights))
    return weights


def _tiles(T):
    return -(-T // ROWS)


def flat(array):
    return array.reshape(array.size)


def _or_empty(w):
    return empty(0) if w is None else w


def aligned(A, F, *arrays):
    """Can kernels read and write four neighbours at once?  Heads have to begin at multiples of 16 bytes, and so has the
    memory of arrays that belong to another library or are parts of others."""
    return A % 4 == 0 and F % 4 == 0 and all(_address(array) % 16 == 0 for array in arrays)


def _address(array):
    raw = array.raw
    return (raw.__array_interface__ if isinstance(raw, np.ndarray) else raw.__cuda_array_interface__)["data"][0]
