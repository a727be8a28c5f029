"""A cell over a whole sequence, in plain NumPy: the definition that the fast backends are held against.

    B  batch     T  time steps     D  input features     H  hidden units     R  width of h, H for most cells
    x (B,T,D)    mask (B,T), True = a real step    states h (B,T+1,R), c (B,T+1,H)

A state array has T+1 slots, the moments between the steps: step t leads from slot t to slot t+1 and, with ``reverse``,
from slot t+1 to slot t.  So the initial state stands in slot 0, in reverse in slot T, and the final one at the other
end.  On a masked step the state is carried over bit for bit.  x must be finite there, such as the zeros that
``masking.select`` puts in; which numbers they are does not matter.

Zoneout (Krueger et al., Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations, 2017) is a mask of single
units: of a state s, the part zoneout stays as it was and the rest becomes what the cell made of it,

    s = zoneout * s_prev + (1 - zoneout) * s_new            zoneout 0 or 1 in training, its expectation otherwise

These functions work for any cell and any dtype, complex ones included.
"""
from typing import NamedTuple

import numpy as np

from ..cells import Cell, Weights
from ..cells.products import zeros_like
from ..masking.reference import select


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    cell: Cell
    weights: Weights
    mask: np.ndarray        # (B,T)
    reverse: bool
    zoneout: tuple | None
    steps: dict             # t -> what cell.step saved
    D: int


def walk(T, reverse):
    """The steps in order of time: (t, slot before it, slot after it)."""
    return [(t, t + 1, t) for t in reversed(range(T))] if reverse else [(t, t, t + 1) for t in range(T)]


def forward(cell, weights, x, mask, initial, reverse=False, zoneout=None, caching=True):
    """x (B,T,D), mask (B,T), initial: one (B,R) or (B,H) for each of cell.states; zoneout: for each of them a (B,T,R)
    or (B,T,H), or None -> y (B,T,R), 0 at masked steps; the final states as a tuple; Cache, or None unless caching."""
    B, T, D = x.shape
    states = [np.empty((B, T + 1, s.shape[1]), x.dtype) for s in initial]
    for s, s0 in zip(states, initial):
        s[:, T if reverse else 0] = s0
    steps = {}
    for t, before, after in walk(T, reverse):
        real = mask[:, t, None]
        x_t = np.ascontiguousarray(x[:, t])             # or the product of one step would round as T's stride decides
        prev = [np.where(real, s[:, before], 0) for s in states]        # masked rows compute with zeros, for nothing
        new, steps[t] = cell.step(weights, x_t, *prev)
        if not caching:
            del steps[t]
        if zoneout:                                     # a unit that stays hears nothing of s_new, be it infinite
            new = [np.where(z[:, t] == 1, s_prev, z[:, t] * s_prev + (1 - z[:, t]) * s_new)
                   for z, s_prev, s_new in zip(zoneout, prev, new)]
        for s, s_new in zip(states, new):
            s[:, after] = np.where(real, s_new, s[:, before])
    y = select(states[0][:, :-1] if reverse else states[0][:, 1:], mask)
    finals = tuple(s[:, 0 if reverse else T] for s in states)
    return y, finals, Cache(cell, weights, mask, reverse, zoneout, steps, D) if caching else None


def backward(cache, dy, d_final):
    """dy (B,T,R): gradient of the output h of every real step; d_final: for each state the gradient of its final value.

    -> dx (B,T,D); the gradients of the initial states as a tuple; Weights of gradients."""
    cell, weights, mask, reverse, zoneout, steps, D = cache
    B, T, _ = dy.shape
    dx = np.empty((B, T, D), dy.dtype)
    d_weights = zeros_like(weights)
    d_state = list(d_final)
    for t, before, after in reversed(walk(T, reverse)):
        real = mask[:, t, None]
        d_new = [np.where(real, d, 0) for d in d_state]                     # s[:, after] = np.where(real, s_new, ...)
        d_new[0] = d_new[0] + np.where(real, dy[:, t], 0)                   # y is h, the first state
        d_stay = [0] * len(d_new)
        if zoneout:
            d_stay = [z[:, t] * d for z, d in zip(zoneout, d_new)]          # z * s_prev + (1 - z) * s_new
            d_new = [(1 - z[:, t]) * d for z, d in zip(zoneout, d_new)]     # z * s_prev + (1 - z) * s_new
        dx[:, t], d_before, d_step = cell.step_backward(weights, steps[t], *d_new)
        d_state = [np.where(real, d_b + d_s, d) for d_b, d_s, d in zip(d_before, d_stay, d_state)]
        for total, d in zip(d_weights.parameters(), d_step.parameters()):
            total += d
    return dx, tuple(d_state), d_weights
