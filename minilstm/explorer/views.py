"""What the page shows of one layer in one direction, as JSON has it: names, texts, and tables of numbers.

    view    name, cell, file    what it is, and where its code stands
            axes                dict axis -> the indices of its numbers: of units, outputs (of a projection), features
            sizes               of the same, how many there are
            times, real         which steps are shown, and which of them are no masked ones
            reverse             does it walk from the end?
            forward, backward   lists of line
            strips              lists of [name, number of a table], forward and backward: what is drawn over time
            tables              lists of rows of numbers, a row for each time, or one for all of them where these are
                                the same; null at masked steps, a string for NaN and infinities
    line    name, axis, code, comment, symbols      as ``equations.Line`` has them
            value               number of a table
            numbers             texts, and numbers of tables
            sums                [text, values, left, right]: numbers of tables; right has a row for each of the values
"""
import inspect
import math
from pathlib import Path

import numpy as np

from ..checks.trace import record_of
from .equations import WATCHED, Shape, lines_of

DIGITS = 7


def view_of(use, layer, direction, units, steps, name):
    """use: a ``runs.Use``; units, steps: arrays of indices -> view."""
    net, cell = use.layer, use.layer.cell
    record = record_of(net, use.x, use.mask, {"dy": use.dy}, 0, layer, direction, use.options, WATCHED)
    shape = Shape(net.hidden_size, net.widths[0], cell.blocks, units)
    found = [lines_of(*record.steps[t][1:], shape) if record.steps[t][0] else None for t in steps]
    tables = Tables([lines is not None for lines in found])
    forward, backward = (_packed([lines[part] for lines in found if lines], tables) for part in (0, 1))
    D = net.input_size if layer == 0 else net.output_size
    return {
        "name": name, "cell": cell.name, "file": _file_of(cell), "reverse": net.directions[direction].reverse,
        "axes": {"unit": units.tolist(), "output": units[units < shape.R].tolist(), "feature": list(range(D))},
        "sizes": {"unit": shape.H, "output": shape.R, "feature": D},
        "times": steps.tolist(), "real": tables.real, "forward": forward, "backward": backward,
        "strips": {"forward": _strips(forward, ["x", *cell.blocks, *cell.saved, *reversed(cell.states)]),
                   "backward": _strips(backward, ["dx", *(f"d{state}" for state in cell.states), *_all_da(backward)])},
        "tables": tables.rows,
    }


class Tables:
    """Tables of numbers, each kept once."""

    def __init__(self, real):
        """real: for each time, is there anything?"""
        self.real = real
        self.rows = []
        self._known = {}            # bytes -> number of the table

    def of_steps(self, rows):
        """rows: an array (n,) for each real step -> number of the table."""
        rows = np.array(rows)
        key = (rows.shape, rows.tobytes())
        if key not in self._known:
            same = (rows == rows[0]).all()
            numbers = iter([rounded(row) for row in rows])
            self._add(key, [rounded(rows[0])] if same else [next(numbers) if r else None for r in self.real])
        return self._known[key]

    def fixed(self, rows):
        """The same at every step: rows (n,K) -> number of the table."""
        key = (rows.shape, rows.tobytes(), "fixed")
        if key not in self._known:
            self._add(key, [rounded(row) for row in rows])
        return self._known[key]

    def _add(self, key, rows):
        self._known[key] = len(self.rows)
        self.rows.append(rows)


def rounded(numbers):
    """Numbers as JSON can have them, in as many digits as a float32 has."""
    return [float(f"{n:.{DIGITS}g}") if math.isfinite(n) else str(n) for n in numbers.tolist()]


def _packed(steps, tables):
    """steps: for each real step its lines, the same ones -> list of line."""
    return [_line(lines, tables) for lines in zip(*steps)]


def _line(lines, tables):
    first = lines[0]
    numbers = [tables.of_steps([line.numbers[k] for line in lines]) if isinstance(piece, np.ndarray) else piece
               for k, piece in enumerate(first.numbers)]
    sums = [[part.text, tables.of_steps([line.sums[k].values for line in lines]),
             tables.of_steps([line.sums[k].left for line in lines]), tables.fixed(part.right.T)]
            for k, part in enumerate(first.sums)]
    return {"name": first.name, "axis": first.axis, "code": first.code, "comment": first.comment,
            "symbols": first.symbols, "value": tables.of_steps([line.value for line in lines]), "numbers": numbers,
            "sums": sums}


def _strips(lines, names):
    """Of the names, those that are lines, with their axis and table: of several lines of one name the last."""
    found = {line["name"]: [line["name"], line["axis"], line["value"]] for line in lines}
    return [found[name] for name in dict.fromkeys(names) if name in found]


def _all_da(lines):
    return [line["name"] for line in lines if line["name"].startswith("da")]


def _file_of(cell):
    """Where a cell's code stands, from the package on."""
    path = Path(inspect.getsourcefile(cell.step))
    return "/".join(path.parts[path.parts.index("cells") - 1:])
