"""Attention: each query looks at all keys, and takes a weighted mean of the values that stand beside them.

    attend              scores scale * q . k: the dot product (scale=1), or the scaled one, which is the default
    attend_additive     scores sum(w * tanh(q + k)), for q and k that are projected to one width (Bahdanau et al. 2015)
    attention_weights   the weights themselves, to look at

    B  batch     Tq  queries     Tk  keys     A  width of q and k     F  width of v, both with all heads side by side
    q (B,Tq,A)     k (B,Tk,A)     v (B,Tk,F)     context (B,Tq,F)     dX: the gradient of the loss with respect to X
    key_mask       (B,Tk) bool, True = a real key: others have weight 0, and are never read.  None: all are real
    query_mask     (B,Tq) bool, True = a real query: others have context 0.  None: all are real
    causal         query t sees no key behind step t; Tq = Tk
    heads          divides A and F: the columns of q, k and v are split into so many parts, each with weights of its own

What holds for all of them: what stands in a masked key, value or query, or in a key that a causal query may not see,
NaN and infinity too, reaches no value and no gradient.  A query without any real key to look at has weights 0, context
0 and gradient 0.  No array (B,Tq,Tk) is built, forward or backward, but by ``attention_weights``.

True means "real" here.  PyTorch's ``key_padding_mask`` has it the other way round: pass its ``~``.  Arrays are float32
or float64, all of one dtype.  Anything that does not fit raises a TypeError or ValueError that names the argument.
"""
import math
import numbers
import warnings
from typing import NamedTuple

import numpy as np

from .. import backends
from ..arguments import FLOATS, describe, flag, floats, one_of, positive
from ..machine.buffers import copy_of

QUIET = {"over": "ignore", "invalid": "ignore"}     # NaN and infinity in real places show in results, not as warnings


class OneKeyWarning(UserWarning):
    """Attention over one key gives it all of the weight, whatever query and key are: the context is its value."""


class Cache(NamedTuple):
    """What the backward functions need of the forward pass that they reverse."""
    backend: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None        # None: the score is the dot product
    options: tuple              # key_mask, query_mask, causal, heads and, for the dot product, scale
    context: np.ndarray
    sums: np.ndarray            # (B,heads,Tq,2): the largest score, and the sum of exp(score - largest)


def attend(q, k, v, *, key_mask=None, query_mask=None, causal=False, heads=1, scale=None, backend="cpu"):
    """-> context (B,Tq,F), Cache

    scale: of q . k; None: 1 / sqrt(A / heads), which keeps the scores as large as the numbers in q and k are."""
    q, k, v = _arrays(q, k, v)
    options = _options(q, k, v, key_mask, query_mask, causal, heads)
    options += (_scale(scale, q.shape[2] // options[-1], q.dtype),)
    context, cache = compute(_backend(backend), q, k, v, None, *options)
    return copy_of(context), cache


def attend_backward(cache, d_context):
    """The reverse of ``attend``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F)."""
    return compute_backward(cache, _d_context(cache, d_context, "attend"))[:3]


def attend_additive(q, k, v, w, *, key_mask=None, query_mask=None, causal=False, heads=1, backend="cpu"):
    """w (A,) -> context (B,Tq,F), Cache

    In Bahdanau's form q is W_q times the decoder's state and k is W_k times the encoder's outputs; Keras'
    ``AdditiveAttention`` leaves both products to the user, as this function does."""
    q, k, v = _arrays(q, k, v)
    w = floats("w", w, q.dtype, (q.shape[2],), "A").copy()
    options = _options(q, k, v, key_mask, query_mask, causal, heads)
    context, cache = compute(_backend(backend), q, k, v, w, *options)
    return copy_of(context), cache


def attend_additive_backward(cache, d_context):
    """The reverse of ``attend_additive``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F), dw (A,)."""
    return compute_backward(cache, _d_context(cache, d_context, "attend_additive"))


def attention_weights(cache):
    """The weights behind a context -> (B,heads,Tq,Tk): 0 where a query does not see a key, and each row of a query that
    sees one sums to 1.  An array of this size is built here and nowhere else."""
    backend, q, k, _, w, options, *_ = _checked(cache)
    scores = backends.module("attention", backend)
    with np.errstate(**QUIET):
        if w is None:
            return scores.dot_product_weights(q, k, *options)
        return scores.additive_weights(q, k, w, *options)


# --------------------------------------------------------------------------------- for layers, which check on their own

def compute(backend, q, k, v, w, *options):
    """Arrays and options as backends take them, complex numbers too; w None: the dot product -> context, Cache."""
    scores = backends.module("attention", backend)
    with np.errstate(**QUIET):
        if w is None:
            context, sums = scores.dot_product(q, k, v, *options)
        else:
            context, sums = scores.additive(q, k, v, w, *options)
    return context, Cache(backend, q, k, v, w, options, context, sums)


def compute_backward(cache, d_context):
    """The reverse of ``compute`` -> dq, dk, dv, dw, which is None for the dot product."""
    backend, q, k, v, w, options, context, sums = cache
    scores = backends.module("attention", backend)
    with np.errstate(**QUIET):
        if w is None:
            return (*scores.dot_product_backward(q, k, v, *options, context, sums, d_context), None)
        return scores.additive_backward(q, k, v, w, *options, context, sums, d_context)


def warn_of_one_key(Tk, stacklevel):
    if Tk == 1:
        warnings.warn("attention over one key: its weight is always 1, whatever query and key are, so the context is "
                      "its value and no gradient reaches q and k", OneKeyWarning, stacklevel=stacklevel + 1)


def mask_of(name, mask, B, T, letter):
    """mask (B,T) bool -> a copy; all True for None.  name, letter: what messages call it and its T."""
    if mask is None:
        return np.ones((B, T), bool)
    wanted = f"a bool array (B={B}, {letter}={T}), True = real"
    if not isinstance(mask, np.ndarray) or isinstance(mask, np.ma.MaskedArray) or mask.dtype != bool:
        cure = (f"; np.array({name}, dtype=bool) makes one of 1 (real) and 0, {name} == 0 one of 0 (real) and -inf, "
                "which others add to scores")
        raise TypeError(f"{name}: expected {wanted}, got {describe(mask)}{cure}")
    if mask.shape != (B, T):
        cure = "; mask.T puts the batch first" if mask.shape == (T, B) else (
            "; a mask for pairs of query and key is not taken, but causal=True is" if mask.shape[-1:] == (T,) else "")
        raise ValueError(f"{name}: expected {wanted}, got {describe(mask)}{cure}")
    return np.array(mask, order="C")


# ---------------------------------------------------------------------------------------------- what may be passed in

def _backend(name):
    return one_of("backend", name, backends.HOST)


def _arrays(q, k, v):
    """q (B,Tq,A), k (B,Tk,A) and v (B,Tk,F), checked -> copies, so that a cache stays true."""
    known = isinstance(q, np.ndarray) and q.dtype.name in FLOATS and q.dtype.isnative
    dtype = q.dtype if known else "float32 or float64"
    q = floats("q", q, dtype, (None, None, None), ("B", "Tq", "A"))
    k = floats("k", k, dtype, (len(q), None, q.shape[2]), ("B", "Tk", "A"))
    v = floats("v", v, dtype, (len(q), k.shape[1], None), ("B", "Tk", "F"))
    return copy_of(q), copy_of(k), copy_of(v)


def _options(q, k, v, key_mask, query_mask, causal, heads):
    """-> the options that both scores have, as backends take them, and the warning of one key."""
    (B, Tq, A), (_, Tk, F) = q.shape, v.shape
    heads = positive("heads", heads)
    if A == 0 or A % heads or F % heads:
        raise ValueError(f"heads: expected a number that divides the widths A={A} of q and F={F} of v, got {heads}")
    causal = flag("causal", causal)
    if causal and Tq != Tk:
        raise ValueError("causal: expected as many queries as keys, a query for each step, "
                         f"got Tq={Tq} queries and Tk={Tk} keys")
    masks = mask_of("key_mask", key_mask, B, Tk, "Tk"), mask_of("query_mask", query_mask, B, Tq, "Tq")
    warn_of_one_key(Tk, stacklevel=3)
    return *masks, causal, heads


def _scale(scale, width, dtype):
    if scale is None:
        return 1 / math.sqrt(width)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real) or not abs(scale) <= np.finfo(dtype).max:
        raise ValueError(f"scale: expected None or a finite {dtype}, got {scale!r}")
    return float(scale)


def _checked(cache):
    if not isinstance(cache, Cache):
        raise TypeError(f"cache: expected what attend or attend_additive returned beside the context, "
                        f"got {describe(cache)}")
    return cache


def _d_context(cache, d_context, forward):
    """d_context, checked, for a cache of the function ``forward``."""
    came = "attend" if _checked(cache).w is None else "attend_additive"
    if came != forward:
        raise ValueError(f"cache: expected one of {forward}, got one of {came}: call {came}_backward")
    return floats("d_context", d_context, cache.q.dtype, cache.context.shape, ("B", "Tq", "F"))
