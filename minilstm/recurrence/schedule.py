"""Who computes which steps, and where a step's numbers stand: from a mask alone, before the loop over time.

Rows are ranked by falling length.  A thread owns some neighbours in that order for the whole sequence: few long rows or
many short ones, so that all have as many steps.  The real steps of a batch are numbered in the order of time and, in
one moment, of rank.  So a group's rows of one moment are neighbours, and what is summed over all steps is summed in an
order that no number of threads can change.
"""
import functools
from typing import NamedTuple

import numpy as np

ROWS_AT_ONCE = 64           # in a group, about: one reading of the weights serves them all


class Schedule(NamedTuple):
    """B batch rows, T steps, n real steps of the whole batch."""
    order: np.ndarray       # (B,) rows, longest first
    real: np.ndarray        # (T,B) bool, by rank
    first: np.ndarray       # (T+1,) number of the first real step at a moment or after it; first[T] = n


def schedule(mask):
    """mask (B,T) -> Schedule."""
    return _without_padding(*mask.shape) if mask.all() else _of(mask)


@functools.lru_cache(maxsize=8)
def _without_padding(B, T):
    return _of(np.ones((B, T), bool))


def _of(mask):
    order = np.argsort(-mask.sum(axis=1), kind="stable")
    real = np.ascontiguousarray(mask[order].T)
    first = np.concatenate([[0], np.cumsum(np.count_nonzero(real, axis=1))])
    return Schedule(order, real, first)


def groups(plan, threads):
    """Ranges of ranks (first, last) with about as many real steps in each, some for every thread."""
    B = len(plan.order)
    parts = threads * max(1, -(-B // (threads * ROWS_AT_ONCE)))
    if parts == 1:
        return [(0, B)]
    steps = np.cumsum(plan.real.sum(axis=0))
    cuts = np.searchsorted(steps, steps[-1] * np.arange(1, parts) / parts, side="right")
    cuts = [0, *(int(cut) for cut in cuts), B]
    return [(first, last) for first, last in zip(cuts, cuts[1:]) if first < last]


def stretches(plan, steps_at_once, backwards):
    """Ranges of moments (first, last), each with at most so many real steps or one moment, in walking order."""
    T = len(plan.real)
    if plan.first[T] <= steps_at_once:
        return [(0, T)]
    cuts = [0]
    while cuts[-1] < T:
        last = int(np.searchsorted(plan.first, plan.first[cuts[-1]] + steps_at_once, side="right")) - 1
        cuts.append(max(last, cuts[-1] + 1))
    found = list(zip(cuts, cuts[1:]))
    return found[::-1] if backwards else found
