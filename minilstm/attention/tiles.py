"""The tiles of ``cpu.py``: scores of some keys and some queries, made, used and forgotten.

A tile has a row for a key and a column for a query, so that one vector holds what some queries think of one key.  Then
each query's softmax is a matter of its own column, and no sum runs across a vector.  Forward it is streamed, tile after
tile, while nothing is known of the scores to come:

    top_new = max(top, largest score of the tile)       of each query
    shrink  = exp(top - top_new)                        where the maximum rises, all that was summed before shrinks
    total   = total * shrink + sum(exp(score - top_new))
    context = context * shrink + exp(score - top_new) @ v           at the end divided by total

Sources: M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, 2018, algorithm 3; T. Dao et al.,
FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness, 2022, where backward makes the tiles again.

    i, width     the first of the tile's queries and their number, whole vectors of them: slots of ``gathered.py``
    j, keys      the first of its keys and their number, likewise
    sees (Q,)    query i sees the keys before slot sees[i].  In a row of the batch it never falls, so all tiles are seen
                 by all of their queries, but for those at the border

What a query does not see is never multiplied with, since 0 * NaN is NaN.
"""
import functools
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from ..cells.activations import ONE, exp, tanh
from ..machine.kernel import kernel
from ..machine.rows import clear_row
from ..matmul.cpu import add_one_row, add_rows, multiply

QUERIES, KEYS = 64, 128     # of a tile: 32 KiB of float32, which stay in a near cache


class Side(NamedTuple):
    """q, k, v or the gradient of the context, in the forms that the tiles need; one that is not needed is empty."""
    rows: np.ndarray        # (slots,d)
    columns: np.ndarray     # (slots/lanes,d,lanes): the transpose of rows, in panels
    panels: np.ndarray      # (d/lanes,slots,lanes): rows, in panels


# ------------------------------------------------------------------------------------------------------------- scores

@register_jitable
def dot_scores(q, k, w, i, width, j, keys, tile):
    """tile = k[j:] @ q[i:].T"""
    lanes = q.columns.shape[2]
    zero = np.zeros((1, QUERIES), tile.dtype)
    multiply(k.rows, j * k.rows.shape[1], keys, q.columns, i // lanes, (i + width) // lanes, zero, 0, 0, tile, 0)


@register_jitable
def dot_scores_backward(d_tile, q, k, w, i, width, j, keys, sees, dq, dk, dw, for_q, for_k):
    """The reverse of ``dot_scores``; adds to dq[i:] if for_q, to dk[j:] if for_k."""
    if for_q:
        add_for_queries(d_tile, i, width, j, keys, sees, k.panels, dq)          # tile = k @ q.T
    if for_k:
        add_for_keys(d_tile, i, width, j, keys, sees, q.panels, dk)             # tile = k @ q.T


@register_jitable
def additive_scores(q, k, w, i, width, j, keys, tile):
    """tile[j,i] = sum over a of w[a] * tanh(q[i,a] + k[j,a]), for one vector of keys after the other."""
    lanes = k.columns.shape[2]
    score = np.empty(lanes, tile.dtype)
    for first in range(0, keys, lanes):
        k_columns = k.columns[(j + first) // lanes]
        for query in range(width):
            clear_row(score)
            for a in range(k_columns.shape[0]):
                q_a, w_a = q.rows[i + query, a], w[a]
                for lane in range(k_columns.shape[1]):
                    score[lane] += w_a * tanh(q_a + k_columns[a, lane])
            for lane in range(min(lanes, keys - first)):
                tile[first + lane, query] = score[lane]


@register_jitable
def additive_scores_backward(d_tile, q, k, w, i, width, j, keys, sees, dq, dk, dw, for_q, for_k):
    """The reverse of ``additive_scores``; adds to dq[i:] if for_q, to dk[j:] and dw if for_k."""
    d_sum = np.empty(q.rows.shape[1], d_tile.dtype)
    for query in range(width):
        for key in range(keys):
            d_score = d_tile[key, query]
            if d_score != 0:
                q_row, k_row = q.rows[i + query], k.rows[j + key]
                for a in range(len(d_sum)):
                    t = tanh(q_row[a] + k_row[a])
                    d_sum[a] = d_score * w[a] * (ONE - t * t)                   # score += w * tanh(q + k)
                    if for_k:
                        dw[a] += d_score * t                                    # score += w * tanh(q + k)
                if for_q:
                    for a in range(len(d_sum)):
                        dq[i + query, a] += d_sum[a]
                if for_k:
                    for a in range(len(d_sum)):
                        dk[j + key, a] += d_sum[a]


# -------------------------------------------------------------------------------------------- weights, and what they do

@register_jitable
def hide(tile, i, width, j, keys, sees):
    """-infinity in place of the scores of keys that a query does not see: their weight is 0."""
    if sees[i] < j + keys:                                              # the first query sees least
        for key in range(keys):
            for query in range(width):
                tile[key, query] = -np.inf if j + key >= sees[i + query] else tile[key, query]


@register_jitable
def weigh(tile, width, keys, top, total, shrink):
    """Scores -> exp(score - top) in their place; moves top and total on.  top, total, shrink (QUERIES,).

    -> has any top changed, so that what was summed before has to shrink?"""
    tile_total = np.zeros(QUERIES, tile.dtype)
    for query in range(width):
        shrink[query] = top[query]
    for key in range(keys):
        for query in range(width):
            top[query] = tile[key, query] if tile[key, query] > top[query] else top[query]
    for key in range(keys):
        for query in range(width):
            weight = exp(tile[key, query] - top[query])
            tile[key, query] = weight
            tile_total[query] += weight
    changed = False
    for query in range(width):
        changed |= shrink[query] != top[query]
        shrink[query] = exp(shrink[query] - top[query])
        total[query] = total[query] * shrink[query] + tile_total[query]
    return changed


@register_jitable
def weigh_again(tile, i, width, j, keys, sees, top, share):
    """Scores -> exp(score - top) in their place, 0 for a key that a query does not see and for a query that is none."""
    hides = sees[i] < j + keys
    for query in range(width):
        hides |= share[i + query] == 0
    for key in range(keys):
        for query in range(width):
            tile[key, query] = exp(tile[key, query] - top[i + query])
    if hides:                                                           # chosen, not multiplied: it may be NaN
        for key in range(keys):
            for query in range(width):
                seen = j + key < sees[i + query] and share[i + query] != 0
                tile[key, query] = tile[key, query] if seen else 0


@register_jitable
def add_for_queries(tile, i, width, j, keys, sees, panels, out):
    """out[i:] += tile.T @ rows of the keys from j on.  panels: these rows."""
    if sees[i] >= j + keys:
        add_rows(tile, 0, 1, QUERIES, width, panels, j, keys, out, i)
    else:
        for query in range(width):
            seen = min(max(sees[i + query] - j, 0), keys)
            add_one_row(tile, query, QUERIES, panels, j, seen, out, i + query)


@register_jitable
def add_for_keys(tile, i, width, j, keys, sees, panels, out):
    """out[j:] += tile @ rows of the queries from i on.  panels: these rows."""
    if sees[i] >= j + keys:
        add_rows(tile, 0, QUERIES, 1, keys, panels, i, width, out, j)
    else:
        first = 0
        for key in range(keys):
            while first < width and sees[i + first] <= j + key:         # who sees this key sees all before it
                first += 1
            add_one_row(tile, key * QUERIES + first, 1, panels, i + first, width - first, out, j + key)


@register_jitable
def weights_backward(tile, d_tile, width, keys, i, delta):
    """d_tile: the gradients of the weights -> of the scores, in their place.

    A weight of 0 has the gradient 0 whatever the others are, as a key that is not seen must."""
    for key in range(keys):
        for query in range(width):
            weight = tile[key, query]
            d_score = weight * (d_tile[key, query] - delta[i + query])  # weight = exp(score) / sum(exp(score))
            d_tile[key, query] = 0 if weight == 0 else d_score


# ------------------------------------------------------------------------------------------------------------ kernels

@functools.cache
def kernels(scores, scores_backward):
    """(forward, backward) with these scores compiled into them.

    A task is a row of integers: the first and the last of some queries, and of some keys, all of one head and of one
    row of the batch; the head; whether the gradients of the queries are wanted; and whether those of the keys are."""

    @kernel
    def forward(q, k, v, w, sees, tasks, lowest, context, sums):
        """Fills context (slots,F) and sums (slots,2), top and total, which come as zeros."""
        tile = np.empty((KEYS, QUERIES), context.dtype)
        top, total, shrink = np.empty(QUERIES, tile.dtype), np.empty(QUERIES, tile.dtype), np.empty(QUERIES, tile.dtype)
        for n in range(len(tasks)):
            for i in range(tasks[n, 0], tasks[n, 1], QUERIES):
                width = min(QUERIES, tasks[n, 1] - i)
                top[:], total[:] = lowest, 0
                last = min(tasks[n, 3], sees[i + width - 1])
                for j in range(tasks[n, 2], last, KEYS):
                    keys = min(KEYS, last - j)
                    scores(q, k, w[tasks[n, 4]], i, width, j, keys, tile)
                    hide(tile, i, width, j, keys, sees)
                    if weigh(tile, width, keys, top, total, shrink):
                        for query in range(width):
                            for f in range(context.shape[1]):
                                context[i + query, f] *= shrink[query]
                    add_for_queries(tile, i, width, j, keys, sees, v.panels, context)
                for query in range(width):
                    if sees[i + query] > tasks[n, 2]:
                        sums[i + query, 0], sums[i + query, 1] = top[query], total[query]
                        for f in range(context.shape[1]):
                            context[i + query, f] /= total[query]

    @kernel
    def backward(q, k, v, w, d_context, sees, tasks, top, share, delta, dq, dk, dv, dw):
        """share (slots,): 1 / total, or 0 where a query sees nothing or is none.  A weight is exp(score - top) * share;
        as all gradients are products of weights, d_context and delta come multiplied by share, and tiles without it.

        Adds to dq, dk, dv (slots,...), and to dw, which has a row for each vector of keys."""
        tile, d_tile = np.empty((KEYS, QUERIES), dq.dtype), np.empty((KEYS, QUERIES), dq.dtype)
        lanes = d_context.columns.shape[2]
        for n in range(len(tasks)):
            w_n, for_q, for_k = w[tasks[n, 4]], tasks[n, 5] > 0, tasks[n, 6] > 0
            for j in range(tasks[n, 2], tasks[n, 3], KEYS):
                for i in range(tasks[n, 0], tasks[n, 1], QUERIES):
                    width = min(QUERIES, tasks[n, 1] - i)
                    keys = min(KEYS, min(tasks[n, 3], sees[i + width - 1]) - j)
                    if keys > 0:
                        scores(q, k, w_n, i, width, j, keys, tile)
                        weigh_again(tile, i, width, j, keys, sees, top, share)
                        dot_scores(d_context, v, w_n, i, width, j, keys, d_tile)            # context = weights @ v
                        if for_k:
                            add_for_keys(tile, i, width, j, keys, sees, d_context.panels, dv)   # context = weights @ v
                        weights_backward(tile, d_tile, width, keys, i, delta)
                        scores_backward(d_tile, q, k, w_n, i, width, j, keys, sees, dq, dk, dw[j // lanes],
                                        for_q, for_k)

    return forward, backward
