"""On which paths does a gradient travel back through a step?  Its parts, by path, at every step of one sequence.

Step t takes the state before it to the state after it.  Backward it is handed dh (and dc), the gradients of the state
after it, and hands on those of the state before it, dh_prev (and dc_prev).  Each of the two is a sum over the ways that
lead back (for the LSTM, whose dh_prev has no direct part):

    dh_prev = direct + da_i @ U_i + da_f @ U_f + da_g @ U_g + da_o @ U_o        through each block of U
    dc_prev = direct                        what was on the memory line already: dc, times f
            + the parts of dh, seen in c    h = o * tanh(c) was read through U_i, U_f, U_g or U_o at the next real step,
                                            or by the loss: "output"

    GRU     direct is dh * z; the blocks are r, z and n      RNN     one block, a, and nothing direct

The parts come from the cell's own ``step_backward``, as it hands on gradients with only some blocks of U in it, or with
one part of dh alone: no formula stands here, so every cell has them.  Blocks are put in from the last to the first, and
the part of a block is what it adds.  For most cells their order makes no difference; in the GRU that resets before the
product a gradient goes through n on its way to r, and there the part of r is what goes through both.

After S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, 1997, where the memory line is the constant error
carousel; ``tutorials/03_through_time.py`` follows the same paths over many steps.
"""
from typing import NamedTuple

import numpy as np

from ..recurrence import reference
from .twin import call_recurrence, check_row, double_twin, doubles, given, no_zoneout


class GradientPaths(NamedTuple):
    """The result of ``gradient_paths``.  Index t of an array is what step t hands on to the state before it; NaN at
    masked steps, which hand on what they are given."""
    real: np.ndarray        # (T,) bool
    total: dict             # state, "h" or "c" -> (T,H), of h (T,R)
    parts: dict             # state -> dict path -> the same shape.  They add up to the total

    def norms(self):
        """dict state -> dict path -> (T,): the lengths of the parts, and that of the "total".  Lengths of parts that
        point in different directions do not add up."""
        return {state: {path: np.linalg.norm(d, axis=1) for path, d in {"total": total, **self.parts[state]}.items()}
                for state, total in self.total.items()}


def gradient_paths(net, x, mask=None, *, dy=None, dh_n=None, dc_n=None, row=0, layer=0, direction=0, **options):
    """The gradient of one sequence on its way back through one layer in one direction, by the paths that it takes.

    net             LSTM, GRU or RNN; a float64 copy of it computes, on the reference backend
    x, mask         (B,T,D) and (B,T), as for ``net.forward``; so are the options h0, c0, lengths, masked_output,
                    training and draw.  In the dtype of ``net`` or in float64
    dy, dh_n, dc_n  as for ``net.backward``, at least one of them
    row             which sequence of the batch
    layer           which layer of a stack
    direction       0, or 1 for the backward direction of a bidirectional layer

    -> GradientPaths, with the paths "direct", one for each block of the cell and, for c, "output".
    Raises TypeError or ValueError for bad input, as ``net.forward`` and ``net.backward`` do, and ValueError for a layer
    with zoneout, which is one more path between the steps, outside of the cell."""
    twin = double_twin(net, layer, direction)
    no_zoneout(net)
    _, cache = twin.forward(**doubles(net, {"x": x, "mask": mask, **options}))
    check_row(row, len(cache.mask))
    listener = _Listener(cache.runs[layer][direction])
    call_recurrence(twin, listener)
    twin.backward(cache, **doubles(net, given(dy=dy, dh_n=dh_n, dc_n=dc_n)))
    return _followed(listener.run, *listener.handed, row)


class _Listener:
    """The reference backend; it notes what ``backward`` is handed for one run: dy, and the gradients of the final
    states."""
    forward = staticmethod(reference.forward)

    def __init__(self, run):
        self.run = run

    def backward(self, run, dy, d_final):
        if run is self.run:
            self.handed = dy, d_final
        return reference.backward(run, dy, d_final)


def _followed(run, dy, d_final, row):
    """The loop of ``reference.backward`` once more, for one sequence, with the parts of what it hands on."""
    cell, T = run.cell, run.mask.shape[1]
    weights = run.weights._replace(keep=_one(run.weights.keep, row), row_bias=_one(run.weights.row_bias, row))
    d_state = [_one(d, row) for d in d_final]
    of_h = {"output": d_state[0]}                                       # the parts of dh
    real, steps = run.mask[row], {}
    for t, _, _ in reversed(reference.walk(T, run.reverse)):
        if real[t]:
            saved = type(run.steps[t])(*(_one(value, row) for value in run.steps[t]))
            of_h["output"] = of_h.get("output", 0) + dy[row:row + 1, t]     # y is h, the first state
            d_state[0] = d_state[0] + dy[row:row + 1, t]
            parts = {"h": _parts_of_h(cell, weights, saved, d_state)}
            if len(d_state) == 2:
                parts["c"] = _parts_of_c(cell, weights, saved, of_h, d_state[1])
            _, d_state, _ = cell.step_backward(weights, saved, *d_state)
            d_state, of_h = list(d_state), dict(parts["h"])
            steps[t] = dict(zip(cell.states, d_state)), parts
    widths = {state: d.shape[1] for state, d in zip(cell.states, d_state)}
    return GradientPaths(
        real.copy(),
        {state: _over_time(T, width, {t: total[state] for t, (total, _) in steps.items()})
         for state, width in widths.items()},
        {state: {path: _over_time(T, width, {t: parts[state][path] for t, (_, parts) in steps.items()})
                 for path in _paths(cell, state)} for state, width in widths.items()})


def _paths(cell, state):
    return ("direct", *cell.blocks, *(["output"] if state == "c" else []))


def _parts_of_h(cell, weights, saved, d_state):
    """dict path -> (1,R): what the direct path, and then each block of U, adds to dh_prev."""
    H = len(weights.U) // len(cell.blocks)
    U, parts, before = np.zeros_like(weights.U), {}, 0
    for k, path in [(None, "direct"), *reversed(list(enumerate(cell.blocks)))]:
        if k is not None:
            U = U.copy()
            U[k * H:(k + 1) * H] = weights.U[k * H:(k + 1) * H]
        _, (dh_prev, *_), _ = cell.step_backward(weights._replace(U=U), saved, *d_state)
        parts[path], before = dh_prev - before, dh_prev
    return parts


def _parts_of_c(cell, weights, saved, of_h, dc):
    """dict path -> (1,H): what dc, and each part of dh, becomes in dc_prev."""
    def dc_prev(dh, dc):
        return cell.step_backward(weights, saved, dh, dc)[1][1]

    nothing = np.zeros_like(next(iter(of_h.values())))
    parts = {path: dc_prev(of_h.get(path, nothing), np.zeros_like(dc)) for path in _paths(cell, "c")}
    parts["direct"] = parts["direct"] + dc_prev(nothing, dc)
    return parts


def _one(array, row):
    return None if array is None else array[row:row + 1]


def _over_time(T, width, found):
    """found: dict t -> (1,width) -> (T,width), NaN elsewhere."""
    array = np.full((T, width), np.nan)
    for t, numbers in found.items():
        array[t] = numbers
    return array
