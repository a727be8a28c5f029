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

from ..arguments import FLOATS, describe, flag, floats, one_of, positive
from . import cpu, reference

BACKENDS = {"reference": reference, "cpu": cpu}


class OneKeyWarning(UserWarning):
    """Attention over one key gives it all of the weight, whatever query and key are: the context is its value."""


class Cache(NamedTuple):
    """What ``attend_backward`` and ``attend_additive_backward`` need of the forward pass that they reverse."""
    backend: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None        # None: the score is the dot product
    options: tuple              # key_mask, query_mask, causal, heads and, for the dot product, scale
    context: np.ndarray
    lse: np.ndarray             # (B,heads,Tq)


def attend(q, k, v, *, key_mask=None, query_mask=None, causal=False, heads=1, scale=None, backend="cpu"):
    """-> context (B,Tq,F), Cache

    scale: of q . k; None: 1 / sqrt(A / heads), which keeps the scores as large as the numbers in q and k are."""
    q, k, v = _arrays(q, k, v)
    options = _options(q, k, v, key_mask, query_mask, causal, heads)
    options += (_scale(scale, q.shape[2] // options[-1]),)
    context, lse = quietly(_of(backend).dot_product, q, k, v, *options)
    return context.copy(), Cache(backend, q, k, v, None, options, context, lse)


def attend_backward(cache, d_context):
    """The reverse of ``attend``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F)."""
    q, k, v, options, context, lse, d_context = _opened(cache, d_context, "attend")
    return quietly(_of(cache.backend).dot_product_backward, q, k, v, *options, context, lse, d_context)


def attend_additive(q, k, v, w, *, key_mask=None, query_mask=None, causal=False, heads=1, backend="cpu"):
    """w (A,) -> context (B,Tq,F), Cache

    In Bahdanau's form q is W_q times the decoder's state and k is W_k times the encoder's outputs; Keras'
    ``AdditiveAttention`` leaves both products to the user, as this function does."""
    q, k, v = _arrays(q, k, v)
    w = floats("w", w, q.dtype, (q.shape[2],), "A").copy()
    options = _options(q, k, v, key_mask, query_mask, causal, heads)
    context, lse = quietly(_of(backend).additive, q, k, v, w, *options)
    return context.copy(), Cache(backend, q, k, v, w, options, context, lse)


def attend_additive_backward(cache, d_context):
    """The reverse of ``attend_additive``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F), dw (A,)."""
    q, k, v, options, context, lse, d_context = _opened(cache, d_context, "attend_additive")
    return quietly(_of(cache.backend).additive_backward, q, k, v, cache.w, *options, context, lse, d_context)


def attention_weights(cache):
    """The weights behind a context -> (B,heads,Tq,Tk): 0 where a query does not see a key, and each row of a query that
    sees one sums to 1.  An array of this size is built here and nowhere else."""
    _check_cache(cache)
    backend = _of(cache.backend)
    if cache.w is None:
        return quietly(backend.dot_product_weights, cache.q, cache.k, *cache.options, cache.lse)
    return quietly(backend.additive_weights, cache.q, cache.k, cache.w, *cache.options, cache.lse)


def quietly(function, *arrays):
    """Call a function of a backend.  NaN and infinity in real places show in its results, not as NumPy's warnings."""
    with np.errstate(over="ignore", invalid="ignore"):
        return function(*arrays)


def warn_of_one_key(Tk, stacklevel):
    if Tk == 1:
        warnings.warn("attention over one key: its weight is always 1, whatever query and key are, so the context is "
                      "its value and no gradient reaches q and k", OneKeyWarning, stacklevel=stacklevel + 1)


# ---------------------------------------------------------------------------------------------- what may be passed in

def _of(backend):
    return BACKENDS[one_of("backend", backend, tuple(BACKENDS))]


def _arrays(q, k, v):
    """q (B,Tq,A), k (B,Tk,A) and v (B,Tk,F), checked -> copies, so that a cache stays true."""
    known = isinstance(q, np.ndarray) and q.dtype.name in FLOATS
    dtype = q.dtype if known else "float32 or float64"
    q = floats("q", q, dtype, (None, None, None), ("B", "Tq", "A"))
    k = floats("k", k, dtype, (len(q), None, q.shape[2]), ("B", "Tk", "A"))
    v = floats("v", v, dtype, (len(q), k.shape[1], None), ("B", "Tk", "F"))
    return q.copy(), k.copy(), v.copy()


def _options(q, k, v, key_mask, query_mask, causal, heads):
    """-> the options that both scores have, as backends take them, and the warning of one key."""
    (B, Tq, A), (_, Tk, F) = q.shape, v.shape
    heads = positive("heads", heads)
    if A == 0 or A % heads or F % heads:
        raise ValueError(f"heads: expected a number that divides the widths A={A} of q and F={F} of v, got {heads}")
    if flag("causal", causal) and Tq != Tk:
        raise ValueError("causal: expected as many queries as keys, a query for each step, "
                         f"got Tq={Tq} queries and Tk={Tk} keys")
    options = _mask("key_mask", key_mask, B, Tk, "Tk"), _mask("query_mask", query_mask, B, Tq, "Tq"), causal, heads
    warn_of_one_key(Tk, stacklevel=3)
    return options


def _mask(name, mask, B, T, letter):
    """(B,T) bool -> a copy; all True for None."""
    if mask is None:
        return np.ones((B, T), bool)
    wanted = f"a bool array (B={B}, {letter}={T}), True = real"
    if not isinstance(mask, np.ndarray) or isinstance(mask, np.ma.MaskedArray) or mask.dtype != bool:
        additive = isinstance(mask, np.ndarray) and mask.dtype.kind == "f"
        cure = "; for a mask of 0 and -inf, to be added to the scores, pass mask == 0" if additive else (
            f"; np.array({name}, dtype=bool) makes one where non-zero means real")
        raise TypeError(f"{name}: expected {wanted}, got {describe(mask)}{cure}")
    if mask.shape != (B, T):
        cure = "; mask.T puts the batch first" if mask.shape == (T, B) else (
            "; a mask for pairs of query and key is not taken, but causal=True is" if mask.shape[-1:] == (T,) else "")
        raise ValueError(f"{name}: expected {wanted}, got {describe(mask)}{cure}")
    return np.array(mask, order="C")


def _scale(scale, width):
    if scale is None:
        return 1 / math.sqrt(width)
    if isinstance(scale, bool) or not isinstance(scale, numbers.Real) or not math.isfinite(scale):
        raise ValueError(f"scale: expected None or a finite number, got {scale!r}")
    return float(scale)


def _check_cache(cache):
    if not isinstance(cache, Cache):
        raise TypeError(f"cache: expected what attend or attend_additive returned beside the context, "
                        f"got {describe(cache)}")


def _opened(cache, d_context, forward):
    _check_cache(cache)
    came = "attend" if cache.w is None else "attend_additive"
    if came != forward:
        raise ValueError(f"cache: expected one of {forward}, got one of {came}: call {came}_backward")
    d_context = floats("d_context", d_context, cache.q.dtype, cache.context.shape, ("B", "Tq", "F"))
    return cache.q, cache.k, cache.v, cache.options, cache.context, cache.lse, d_context
