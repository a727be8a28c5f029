"""Real queries and real keys, gathered: what the compiled tiles work on.

A batch (B,T,...) under a mask becomes slots: the real steps of the first row, then those of the second, and so on.
Each row begins at a whole vector, so that a tile never holds steps of two rows; what fills it up is zeros.  With
several heads there are all slots of the first head, then all of the second, and so on.
"""
from typing import NamedTuple

import numpy as np

from ..machine.buffers import empty, zeros
from ..machine.kernel import kernel
from ..machine.rows import copy_row


class Slots(NamedTuple):
    """Where the real steps of a batch went."""
    place: np.ndarray       # (n,) of each real step, in a (B*T,...) array
    slot: np.ndarray        # (n,) the slot that it got
    first: np.ndarray       # (B+1,) the first slot of each row; at the end the number of all slots
    count: np.ndarray       # (B,) real steps of each row


def slots_of(mask, lanes):
    """mask (B,T), lanes: numbers in a vector -> Slots."""
    count = mask.sum(axis=1)
    first = np.concatenate([[0], np.cumsum(-(-count // lanes) * lanes)])
    place = np.flatnonzero(mask)
    slot = np.arange(len(place)) + np.repeat(first[:-1] - (np.cumsum(count) - count), count)
    return Slots(place, slot, first, count)


def gather(x, slots, heads):
    """x (B,T,heads*d) -> (heads*slots,d).  x itself, in another shape, where no step has to move."""
    B, T, width = x.shape
    d, n = width // heads, int(slots.first[-1])
    if _stay(slots, B * T, heads):
        return x.reshape(n, d)
    rows = zeros((heads, n, d), x.dtype)
    _gather(x.reshape(B * T, heads, d), slots.place, slots.slot, rows)
    return rows.reshape(heads * n, d)


def scatter(rows, slots, heads, shape):
    """The reverse of ``gather``: rows (heads*slots,d or more) -> (B,T,heads*d) of this shape, 0 at masked steps."""
    B, T, width = shape
    d, n = width // heads, int(slots.first[-1])
    if _stay(slots, B * T, heads):
        return np.ascontiguousarray(rows[:, :d]).reshape(shape)
    x = (empty if len(slots.place) == B * T else zeros)((B * T, heads, d), rows.dtype)
    _scatter(rows.reshape(heads, n, rows.shape[1]), slots.place, slots.slot, x)
    return x.reshape(shape)


@kernel
def _gather(x, place, slot, rows):
    for n in range(len(place)):
        for head in range(x.shape[1]):
            copy_row(rows[head, slot[n]], x[place[n], head])


@kernel
def _scatter(rows, place, slot, x):
    for n in range(len(place)):
        for head in range(x.shape[1]):
            copy_row(x[place[n], head], rows[head, slot[n]])


def _stay(slots, steps, heads):
    """Is every step real, and each slot that of the step in its place?"""
    return heads == 1 and len(slots.place) == steps == slots.first[-1]


def sees_of(query_mask, key_mask, causal, queries, keys, heads):
    """Of each slot of a query: it sees the keys of its row before this slot.  -> (heads*slots,) integers, in a row
    never falling; a slot that is filled up sees as much as the last query before it."""
    seen = (np.cumsum(key_mask, axis=1) if causal else
            np.broadcast_to(key_mask.sum(axis=1, keepdims=True), query_mask.shape))
    sees = np.zeros(int(queries.first[-1]), np.int64)
    sees[queries.slot] = (keys.first[:-1, None] + seen).ravel()[queries.place]
    last = np.repeat(queries.first[:-1] + np.maximum(queries.count - 1, 0), np.diff(queries.first))
    sees = sees[last - np.maximum(last - np.arange(len(sees)), 0)]
    return (sees + np.arange(heads)[:, None] * keys.first[-1]).ravel()
