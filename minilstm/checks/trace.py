"""One sequence through a recurrent layer, step by step and term by term: every number, and the line that made it.

The numbers are taken from the cell's own code (``cells/``) while it runs in NumPy, as a debugger would take them.  No
formula stands here, so the table cannot say anything else than the code does, and every cell has it.
"""
from typing import NamedTuple

import numpy as np

from ..recurrence.reference import walk
from .twin import check_row, double_twin, doubles, given, no_zoneout
from .watching import Watch


class Row(NamedTuple):
    """One number for each unit, or for each input feature."""
    name: str
    value: np.ndarray       # (H,), (R,) or (D,)
    line: str               # of the cell's code; empty for what the step was given


class StepTrace(NamedTuple):
    """One time step."""
    t: int
    real: bool              # False: masked, the state is carried over, and there is nothing to show
    forward: list           # of Row, in the order in which they were computed
    backward: list

    def values(self):
        """dict name -> value, for both parts; the last one, where a name is assigned to more than once."""
        return {row.name: row.value for row in self.forward + self.backward}


class Trace(NamedTuple):
    """The result of ``trace``; prints as tables."""
    steps: list             # of StepTrace, t = 0, 1, ...

    def series(self, name):
        """One quantity at every step: (T,H), or as wide as it is; NaN at masked steps.  Raises KeyError for a name that
        no step has."""
        found = [step.values() for step in self.steps]
        known = {name: len(value) for values in found for name, value in values.items()}
        if name not in known:
            raise KeyError(f"name: expected one of {sorted(known)}, got {name!r}")
        return np.stack([values.get(name, np.full(known[name], np.nan)) for values in found])

    def __str__(self):
        return "\n\n".join(f"{title}\n{_table(rows)}" for title, rows in self._parts())

    def markdown(self):
        """The same as Markdown tables."""
        return "\n\n".join(f"**{title}**\n\n{_markdown_table(rows)}" for title, rows in self._parts())

    def _parts(self):
        for step in self.steps:
            if step.real:
                yield f"step {step.t}, forward", step.forward
            else:
                yield f"step {step.t}, masked: the state is carried over", []
        for step in reversed(self.steps):
            if step.backward:
                yield f"step {step.t}, backward", step.backward


def trace(net, x, mask=None, *, dy=None, dh_n=None, dc_n=None, row=0, layer=0, direction=0, **options):
    """Every number of one sequence's way through one layer in one direction, forward and, if a gradient is given,
    backward: what there is for each unit and each feature.  Parameters are not shown, nor arrays of all blocks
    together, such as a, whose blocks are.

    net             LSTM, GRU or RNN; a float64 copy of it computes, on the reference backend
    x, mask         (B,T,D) and (B,T), as for ``net.forward``; so are the options h0, c0, lengths, masked_output,
                    training and draw.  In the dtype of ``net`` or in float64
    dy, dh_n, dc_n  as for ``net.backward``; without any there is no backward part
    row             which sequence of the batch
    layer           which layer of a stack
    direction       0, or 1 for the backward direction of a bidirectional layer

    -> Trace.  Raises TypeError or ValueError for bad input, as ``net.forward`` and ``net.backward`` do, and ValueError
    for a layer with zoneout, which mixes states between the steps, where no line of a cell sees it."""
    record = record_of(net, x, mask, {"dy": dy, "dh_n": dh_n, "dc_n": dc_n}, row, layer, direction, options)
    widths = {net.hidden_size, *net.widths}
    steps = []
    for t, (real, forward, backward) in enumerate(record.steps):
        ahead = _rows(forward, row, record.B, widths)
        known = {r.name for r in ahead}
        back = [r for r in _rows(backward, row, record.B, widths) if r.name not in known]
        steps.append(StepTrace(t, real, ahead, back))
    return Trace(steps)


class Record(NamedTuple):
    """Every assignment of a run through one layer in one direction."""
    steps: list             # t = 0, 1, ...: (real, list of Assignment forward, the same backward); empty lists where a
    #                         step is masked, and backward where no gradient was given
    B: int


def record_of(net, x, mask, gradients, row, layer, direction, options, within=()):
    """Run ``net``, and its reverse if there are gradients -> Record.

    gradients, options  dicts, of ``net.backward`` and ``net.forward``
    within              also watch these functions, where a step calls them
    All else, and the errors, as in ``trace``."""
    twin = double_twin(net, layer, direction)
    no_zoneout(net)
    gradients = doubles(net, given(**gradients))
    with Watch(net.cell.step, within) as forward:
        _, cache = twin.forward(**doubles(net, {"x": x, "mask": mask, **options}))
    B, T = cache.mask.shape
    check_row(row, B)
    with Watch(net.cell.step_backward, within) as backward:
        if gradients:
            twin.backward(cache, **gradients)

    times = [t for t, _, _ in walk(T, net.directions[direction].reverse)]
    run = layer * len(net.directions) + direction                           # forward takes the runs in this order,
    run_back = (net.num_layers - 1 - layer) * len(net.directions) + direction       # backward the layers from the top
    steps = []
    for t in range(T):
        turn, real = times.index(t), bool(cache.mask[row, t])
        steps.append((real, forward.calls[run * T + turn] if real else [],
                      backward.calls[run_back * T + T - 1 - turn] if real and gradients else []))
    return Record(steps, B)


def of_units(assignments, B, widths):
    """Those assignments that are one number for each unit and each row of the batch, and x and dx, as (name, value,
    line).  Not what the units have for themselves, nor its gradient."""
    found, last = [], {}                            # last: dict name -> the last value
    for a in assignments:
        if a.argument or last.get(a.name) is a.value:       # of a formula; or its result, handed on under its own name
            continue
        last[a.name] = a.value
        if (a.value.ndim == 2 and len(a.value) == B and a.name not in ("own", "d_own")
                and (a.value.shape[1] in widths or a.name in ("x", "dx"))):
            found.append((a.name, a.value, a.line))
    return found


def _rows(assignments, row, B, widths):
    return [Row(name, value[row], line) for name, value, line in of_units(assignments, B, widths)]


# -------------------------------------------------------------------------------------------------------------- tables

def _cells(rows):
    """Rows as text: name, numbers, line."""
    width = max((len(row.value) for row in rows), default=0)
    for row in rows:
        numbers = [f"{number:.4f}" for number in row.value]
        yield [row.name, *numbers, *[""] * (width - len(numbers)), row.line]


def _table(rows):
    lines = list(_cells(rows))
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(n.rjust(w) for n, w in zip(line[1:-1], widths[1:-1])),
                                line[-1]]).rstrip() for line in lines)


def _markdown_table(rows):
    lines = list(_cells(rows))
    if not lines:
        return ""
    numbers = len(lines[0]) - 2
    head = ["", *(f"{k}" for k in range(numbers)), "line"]
    code = [[f"`{line[0]}`", *line[1:-1], f"`{line[-1]}`" if line[-1] else ""] for line in lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---", *["---:"] * numbers, "---"], *code])
