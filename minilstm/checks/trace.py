"""One sequence through a recurrent layer, step by step and term by term: every number, and the line that made it.

The numbers are taken from the cell's own code (``cells/``) while it runs in NumPy, as a debugger would take them.  No
formula stands here, so the table cannot say anything else than the code does, and every cell has it.
"""
import ast
import functools
import inspect
import sys
from typing import NamedTuple

import numpy as np

from ..recurrence.reference import walk
from .twin import check_row, double_twin, doubles, given, no_zoneout


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
    twin = double_twin(net, layer, direction)
    no_zoneout(net)
    gradients = doubles(net, given(dy=dy, dh_n=dh_n, dc_n=dc_n))
    with Watch(net.cell.step) as forward:
        _, cache = twin.forward(**doubles(net, {"x": x, "mask": mask, **options}))
    B, T = cache.mask.shape
    check_row(row, B)
    with Watch(net.cell.step_backward) as backward:
        if gradients:
            twin.backward(cache, **gradients)

    reverse = net.directions[direction].reverse
    times = [t for t, _, _ in walk(T, reverse)]
    run = layer * len(net.directions) + direction                           # forward takes the runs in this order,
    run_back = (net.num_layers - 1 - layer) * len(net.directions) + direction       # backward the layers from the top
    widths = {net.hidden_size, *net.widths}
    steps = []
    for t in range(T):
        turn = times.index(t)
        real = bool(cache.mask[row, t])
        ahead = _rows(forward.calls[run * T + turn], row, B, widths) if real else []
        back = []
        if real and gradients:
            known = {r.name for r in ahead}
            rows = _rows(backward.calls[run_back * T + T - 1 - turn], row, B, widths)
            back = [r for r in rows if r.name not in known]
        steps.append(StepTrace(t, real, ahead, back))
    return Trace(steps)


def of_units(assignments, B, widths):
    """Those assignments that are one number for each unit and each row of the batch, and x and dx.  Not parameters and
    their gradients: matrices, which have capital letters, and what the units have for themselves."""
    return [(name, value, line) for name, value, line in assignments
            if isinstance(value, np.ndarray) and value.ndim == 2 and len(value) == B
            and name.islower() and name not in ("own", "d_own")
            and (value.shape[1] in widths or name in ("x", "dx"))]


def _rows(assignments, row, B, widths):
    return [Row(name, value[row], line) for name, value, line in of_units(assignments, B, widths)]


# --------------------------------------------------------------------------------------------- watching a function run

class Watch:
    """While it is open: for every call of ``function``, the assignments to local names in it and in the formulas that
    it calls, as ``calls``: a list of lists of (name, value, line of code)."""

    def __init__(self, function):
        self.calls = []
        self._outer = function.__code__
        formulas = [f for f in function.__globals__.values() if inspect.isfunction(f) and _is_formula(f)]
        self._codes = {self._outer, *(f.__code__ for f in formulas)}

    def __enter__(self):
        self._previous = sys.gettrace()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *exception):
        sys.settrace(self._previous)

    def _on_call(self, frame, event, arg):
        """Python calls this at the beginning of a function, and what it returns before each line and at the end."""
        if frame.f_code not in self._codes:
            return None
        seen = dict(frame.f_locals)                         # the arguments
        if frame.f_code is self._outer:
            self.calls.append([(name, value, "") for name, value in seen.items()])
        line = frame.f_lineno

        def on_line(frame, event, arg):
            nonlocal line
            for name, value in frame.f_locals.items():
                if seen.get(name) is not value:
                    seen[name] = value
                    self._note(name, value, _statements(frame.f_code)[line])
            line = frame.f_lineno
            return on_line

        return on_line

    def _note(self, name, value, line):
        """An assignment, unless a formula's result is only handed on under its own name."""
        known = [old for other, old, _ in self.calls[-1] if other == name]
        if not known or known[-1] is not value:
            self.calls[-1].append((name, value, line))


def _is_formula(function):
    """Is it mathematics of one unit, such as ``lstm.forward``?  Then its lines belong into the table."""
    return function.__name__.startswith(("forward", "backward")) and not function.__name__.endswith("_row")


@functools.cache
def _statements(code):
    """Number of a line in a file -> the statement on it, with its comment, for the lines of one function."""
    lines, first = inspect.getsourcelines(code)
    indent = len(lines[0]) - len(lines[0].lstrip())
    found = {}
    for node in ast.walk(ast.parse("".join(line[indent:] for line in lines))):
        if isinstance(node, ast.Assign):
            text = " ".join(line.strip() for line in lines[node.lineno - 1:node.end_lineno])
            formula, _, comment = text.partition("#")
            text = formula.strip() + (f"    # {comment.strip()}" if comment else "")
            found |= dict.fromkeys(range(first + node.lineno - 1, first + node.end_lineno), text)
    return found


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
