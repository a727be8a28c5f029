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

backend: "cpu", compiled, or "reference", plain NumPy.  "gpu" takes float32 only, NumPy's arrays, which are copied
there, and those on the GPU, and gives DeviceArrays.
"""
import math
import numbers
import warnings
from typing import NamedTuple

import numpy as np

from .. import backends
from ..arguments import FLOATS, describe, flag, floats, one_of, positive
from ..device import DeviceArray, to_device
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
    q, k, v = _arrays(q, k, v, _backend(backend))
    options = _options(q, k, v, key_mask, query_mask, causal, heads, backend)
    options += (_scale(scale, q.shape[2] // options[-1], q.dtype),)
    context, cache = compute(backend, q, k, v, None, *options)
    return _own(context), cache


def attend_backward(cache, d_context):
    """The reverse of ``attend``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F)."""
    return compute_backward(cache, _d_context(cache, d_context, "attend"))[:3]


def attend_additive(q, k, v, w, *, key_mask=None, query_mask=None, causal=False, heads=1, backend="cpu"):
    """w (A,) -> context (B,Tq,F), Cache

    In Bahdanau's form q is W_q times the decoder's state and k is W_k times the encoder's outputs; Keras'
    ``AdditiveAttention`` leaves both products to the user, as this function does."""
    q, k, v = _arrays(q, k, v, _backend(backend))
    w = _own(_floats("w", w, q.dtype, (q.shape[2],), "A", backend), w)
    options = _options(q, k, v, key_mask, query_mask, causal, heads, backend)
    context, cache = compute(backend, q, k, v, w, *options)
    return _own(context), cache


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
    check_mask(name, mask, B, T, letter, isinstance(mask, np.ndarray) and not isinstance(mask, np.ma.MaskedArray))
    return np.array(mask, order="C")


def check_mask(name, mask, B, T, letter, known):
    """Raise unless mask is bool (B,T).  known: is it an array at all?"""
    wanted = f"a bool array (B={B}, {letter}={T}), True = real"
    if not known or mask.dtype != bool:
        cure = (f"; np.array({name}, dtype=bool) makes one of 1 (real) and 0, {name} == 0 one of 0 (real) and -inf, "
                "which others add to scores")
        raise TypeError(f"{name}: expected {wanted}, got {describe(mask)}{cure}")
    if mask.shape != (B, T):
        cure = "; mask.T puts the batch first" if mask.shape == (T, B) else (
            "; a mask for pairs of query and key is not taken, but causal=True is" if mask.shape[-1:] == (T,) else "")
        raise ValueError(f"{name}: expected {wanted}, got {describe(mask)}{cure}")


# ---------------------------------------------------------------------------------------------- what may be passed in

def _backend(name):
    return one_of("backend", name, backends.NAMES)


def _arrays(q, k, v, backend):
    """q (B,Tq,A), k (B,Tk,A) and v (B,Tk,F), checked -> arrays of our own, so that a cache stays true."""
    given = q, k, v
    if backend == "gpu":
        q = backends.arrays("gpu").adopted("q", q)
    known = isinstance(q, (np.ndarray, DeviceArray)) and q.dtype.name in FLOATS and q.dtype.isnative
    if known and backend == "gpu" and q.dtype != np.float32:
        raise ValueError(f"q: expected float32 only, with backend='gpu', got {describe(q)}; nothing is cast silently: "
                         "pass q.astype('float32')")
    dtype = q.dtype if known else "float32" if backend == "gpu" else "float32 or float64"
    q = _floats("q", q, dtype, (None, None, None), ("B", "Tq", "A"), backend)
    k = _floats("k", k, dtype, (len(q), None, q.shape[2]), ("B", "Tk", "A"), backend)
    v = _floats("v", v, dtype, (len(q), k.shape[1], None), ("B", "Tk", "F"), backend)
    return tuple(_own(array, came) for array, came in zip((q, k, v), given))


def _floats(name, value, dtype, shape, letters, backend):
    """As ``arguments.floats``; for a GPU from wherever it is to there."""
    check = backends.arrays("gpu").floats if backend == "gpu" else floats
    return check(name, value, dtype, shape, letters)


def _own(array, came=None):
    """An array that nobody else will write to.  On the host that takes a copy; a DeviceArray is never written to once
    it has its numbers, but the memory of another library may be, which ``came`` as something else."""
    if not isinstance(array, DeviceArray):
        return copy_of(array)
    foreign = came is not None and not isinstance(came, (np.ndarray, DeviceArray))
    return backends.arrays("gpu").copy_of(array) if foreign else array


def _mask(name, mask, B, T, letter, backend):
    """As ``mask_of``; for a GPU from wherever it is to there."""
    if backend != "gpu":
        return mask_of(name, mask, B, T, letter)
    found = backends.arrays("gpu").adopted(name, mask)
    if not isinstance(found, DeviceArray):
        return to_device(mask_of(name, mask, B, T, letter))
    check_mask(name, found, B, T, letter, True)
    return _own(found, mask)


def _options(q, k, v, key_mask, query_mask, causal, heads, backend):
    """-> the options that both scores have, as backends take them, and the warning of one key."""
    (B, Tq, A), (_, Tk, F) = q.shape, v.shape
    heads = positive("heads", heads)
    if A == 0 or A % heads or F % heads:
        raise ValueError(f"heads: expected a number that divides the widths A={A} of q and F={F} of v, got {heads}")
    causal = flag("causal", causal)
    if causal and Tq != Tk:
        raise ValueError("causal: expected as many queries as keys, a query for each step, "
                         f"got Tq={Tq} queries and Tk={Tk} keys")
    masks = (_mask("key_mask", key_mask, B, Tk, "Tk", backend), _mask("query_mask", query_mask, B, Tq, "Tq", backend))
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
    return _floats("d_context", d_context, cache.q.dtype, cache.context.shape, ("B", "Tq", "F"), cache.backend)
