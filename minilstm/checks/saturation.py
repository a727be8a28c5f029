"""How often is a gate wide open or shut?  (A. Karpathy, J. Johnson and L. Fei-Fei, Visualizing and Understanding
Recurrent Networks, 2015, section 4.2.)

A saturated gate does not weigh, it decides: a forget gate that is right-saturated at nearly all steps belongs to a unit
that remembers, one that never is right-saturated to a unit that cannot.  Through a saturated gate hardly any gradient
travels.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe
from .twin import double_twin, doubles

CANDIDATES = ("g", "n", "s", "a")           # blocks that are no gates: they have a sign, or no upper end


class Saturation(NamedTuple):
    """Of one gate: of all real steps of all sequences, the part where it was saturated."""
    left: np.ndarray        # (H,) shut, below the lower limit
    right: np.ndarray       # (H,) open, above the upper one


def gate_saturation(net, x, mask=None, *, layer=0, direction=0, limits=(0.1, 0.9), **options):
    """How often each gate of each unit is saturated -> dict gate -> Saturation.

    net             a layer with gates: of an LSTM i, f and o (with ``coupled`` i and o), of a GRU r and z.  A float64
                    copy of it computes, on the reference backend
    x, mask         (B,T,D) and (B,T), as for ``net.forward``; so are the options.  In the dtype of ``net`` or float64
    layer           which layer of a stack
    direction       0, or 1 for the backward direction of a bidirectional layer
    limits          below the first a gate is left-saturated, above the second right-saturated; the paper's

    Raises TypeError or ValueError for bad input, as ``net.forward`` does, ValueError for a cell without gates and where
    no step is real."""
    twin = double_twin(net, layer, direction)
    gates = [block for block in net.cell.blocks if block not in CANDIDATES]
    if not gates:
        raise ValueError(f"net: expected a layer with gates, got {type(net).__name__}")
    low, high = _limits(limits)
    _, cache = twin.forward(**doubles(net, {"x": x, "mask": mask, **options}))
    if not cache.mask.any():
        raise ValueError(f"mask: expected at least one real step, got none in {describe(cache.mask)}")
    steps = cache.runs[layer][direction].steps
    found = {}
    for gate in gates:
        values = np.stack([getattr(steps[t], gate) for t in sorted(steps)], axis=1)[cache.mask]     # (real steps, H)
        found[gate] = Saturation((values < low).mean(axis=0), (values > high).mean(axis=0))
    return found


def _limits(limits):
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError):
        raise TypeError(f"limits: expected two numbers, got {limits!r}") from None
    if not 0 <= low <= high <= 1:
        raise ValueError(f"limits: expected two numbers from 0 to 1, the smaller one first, got {limits!r}")
    return low, high
