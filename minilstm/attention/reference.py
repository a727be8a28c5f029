"""Attention in plain NumPy: the definition that the fast backend is held against.

    B  batch     Tq  queries     Tk  keys     A  width of q and k     F  width of v, both with all heads side by side
    q (B,Tq,A)     k (B,Tk,A)     v (B,Tk,F)     query_mask (B,Tq), key_mask (B,Tk) bool, True = real
    heads          divides A and F: head n has the n-th part of the columns of q, k, v, and of the context
    causal         query t sees the keys at steps 0 to t (Tq = Tk); otherwise every query sees all real keys

In each head, for query t and the keys j that it sees:

    score     s[t,j] = scale * q[t] . k[j]                          (Vaswani et al. 2017, equation 1)
              s[t,j] = sum over a of w[a] * tanh(q[t,a] + k[j,a])   (Bahdanau et al. 2015, appendix A.1.2)
    weight    p[t,j] = exp(s[t,j]) / sum over i of exp(s[t,i])
    context   y[t]   = sum over j of p[t,j] * v[j]

Beside the context a forward function returns two numbers for each query: sums[t] = top, its largest score, and total,
the sum over j of exp(s[t,j] - top).  With them one weight can be had from its own score alone, p = exp(s - top) / total
(top + log(total) would be one number in place of two, but where top is large few digits are left in it).  So the
weights are never kept: ``backward`` makes them again, a block of queries at a time, and memory grows with Tq + Tk and
not with Tq * Tk (Rabe and Staats 2021, Dao et al. 2022).  Only the ..._weights functions build a whole
(B,heads,Tq,Tk).

Real queries and the keys that they see are gathered first.  So what stands in a masked place, or later than a causal
query, reaches nothing.  A masked query, and one that sees no key, has sums, weights, context and gradient 0.

Nothing here checks its arguments: ``attention`` does.  All functions work for complex numbers too.
"""
from typing import NamedTuple

import numpy as np

BLOCK = 64                  # queries that are worked on together: 64 * Tk weights are in memory at a time


# -------------------------------------------------------------------------------------------------------- dot product

def dot_product(q, k, v, key_mask, query_mask, causal, heads, scale):
    """-> context (B,Tq,F), sums (B,heads,Tq,2).  scale: a number, 1 / sqrt(A / heads) for the usual score."""
    context, sums = _zeros(q, v, heads)
    for at in _parts(q, v, key_mask, query_mask, causal, heads, BLOCK):
        p, sums[at.sums] = _softmax((scale * q[at.q]) @ k[at.k].T)
        context[at.context] = p @ v[at.v]
    return context, sums


def dot_product_backward(q, k, v, key_mask, query_mask, causal, heads, scale, context, sums, d_context):
    """The reverse of ``dot_product``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F)."""
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for at in _parts(q, v, key_mask, query_mask, causal, heads, BLOCK):
        p = _weights((scale * q[at.q]) @ k[at.k].T, sums[at.sums])
        ds = _softmax_backward(p, v[at.v], context[at.context], d_context[at.context])
        dv[at.v] += p.T @ d_context[at.context]                         # context = p @ v
        dq[at.q] = scale * (ds @ k[at.k])                               # s = (scale * q) @ k.T
        dk[at.k] += ds.T @ (scale * q[at.q])                            # s = (scale * q) @ k.T
    return dq, dk, dv


def dot_product_weights(q, k, key_mask, query_mask, causal, heads, scale):
    """The weights behind a context -> (B,heads,Tq,Tk), 0 for a key that a query does not see."""
    weights = np.zeros((len(q), heads, q.shape[1], k.shape[1]), q.dtype)
    for at in _parts(q, k, key_mask, query_mask, causal, heads, BLOCK):
        weights[at.weights], _ = _softmax((scale * q[at.q]) @ k[at.k].T)
    return weights


# ----------------------------------------------------------------------------------------------------------- additive

def additive(q, k, v, w, key_mask, query_mask, causal, heads):
    """w (A,), head by head like the columns of q -> context (B,Tq,F), sums (B,heads,Tq,2).

    One query at a time, since its sums q + k are A numbers for each key."""
    context, sums = _zeros(q, v, heads)
    for at in _parts(q, v, key_mask, query_mask, causal, heads, 1):
        p, sums[at.sums] = _softmax((np.tanh(q[at.q] + k[at.k]) @ w[at.w])[None])
        context[at.context] = p @ v[at.v]
    return context, sums


def additive_backward(q, k, v, w, key_mask, query_mask, causal, heads, context, sums, d_context):
    """The reverse of ``additive``.  d_context (B,Tq,F) -> dq (B,Tq,A), dk (B,Tk,A), dv (B,Tk,F), dw (A,)."""
    dq, dk, dv, dw = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), np.zeros_like(w)
    for at in _parts(q, v, key_mask, query_mask, causal, heads, 1):
        u = np.tanh(q[at.q] + k[at.k])
        p = _weights((u @ w[at.w])[None], sums[at.sums])
        ds = _softmax_backward(p, v[at.v], context[at.context], d_context[at.context])
        dv[at.v] += p.T @ d_context[at.context]                         # context = p @ v
        dw[at.w] += ds[0] @ u                                           # s = u @ w
        da = ds.T * w[at.w] * (1 - u * u)                               # u = tanh(a), s = u @ w
        dq[at.q] = da.sum(axis=0)                                       # a = q + k
        dk[at.k] += da                                                  # a = q + k
    return dq, dk, dv, dw


def additive_weights(q, k, w, key_mask, query_mask, causal, heads):
    """The weights behind a context -> (B,heads,Tq,Tk), 0 for a key that a query does not see."""
    weights = np.zeros((len(q), heads, q.shape[1], k.shape[1]), q.dtype)
    for at in _parts(q, k, key_mask, query_mask, causal, heads, 1):
        weights[at.weights], _ = _softmax((np.tanh(q[at.q] + k[at.k]) @ w[at.w])[None])
    return weights


# -------------------------------------------------------------------------------------------------------- what both do

def _softmax(s):
    """s (n,m): the scores of n queries for the m keys that they see -> weights (n,m), sums (n,2)

    No exponent is above 0, so nothing overflows, and in each sum there is a 1, so nothing is divided by 0."""
    top = s.real.max(axis=1, keepdims=True)
    exps = np.exp(s - top)
    total = exps.sum(axis=1, keepdims=True)
    return exps / total, np.concatenate([top, total], axis=1)


def _weights(s, sums):
    """The same weights again, from what was kept of them."""
    top, total = sums[:, :1], sums[:, 1:]
    return np.exp(s - top) / total


def _softmax_backward(p, v, context, d_context):
    """The gradient of the scores -> ds (n,m).

    ds = p * (dp - sum over j of p * dp), and that sum is d_context . context: no other key is needed for it."""
    dp = d_context @ v.T                                                # context = p @ v
    delta = (d_context * context).sum(axis=1, keepdims=True)
    return p * (dp - delta)                                             # p = exp(s) / sum(exp(s))


class _Part(NamedTuple):
    """Where a block of queries of one head, and the keys that all of them see, stand in each array."""
    q: tuple
    k: tuple
    v: tuple
    w: slice
    context: tuple
    sums: tuple
    weights: tuple


def _parts(q, v, key_mask, query_mask, causal, heads, size):
    """Every real query that sees a key is in one of the parts.  The queries of a part, at most ``size``, see the same
    keys."""
    A, F = q.shape[2] // heads, v.shape[2] // heads
    for b in range(len(q)):
        keys, queries = np.nonzero(key_mask[b])[0], np.nonzero(query_mask[b])[0]
        limits = np.searchsorted(keys, queries, side="right") if causal else np.full(len(queries), len(keys))
        for limit in np.unique(limits[limits > 0]):
            seen, alike = keys[:limit], queries[limits == limit]
            for first in range(0, len(alike), size):
                block = alike[first:first + size]
                for n in range(heads):
                    a, f = slice(n * A, (n + 1) * A), slice(n * F, (n + 1) * F)
                    yield _Part(q=(b, block, a), k=(b, seen, a), v=(b, seen, f), w=a, context=(b, block, f),
                                sums=(b, n, block), weights=(b, n, block[:, None], seen))


def _zeros(q, v, heads):
    """Where context and sums will be written."""
    return np.zeros((*q.shape[:2], v.shape[2]), q.dtype), np.zeros((len(q), heads, q.shape[1], 2), q.dtype)
