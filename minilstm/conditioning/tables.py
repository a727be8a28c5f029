"""Tables of one or several series, taken apart and read; what is wrong in one is named with its column and its steps.

    table       dict name -> column.  A target, a past or a known covariate: a list of arrays (T,), one for each series,
                or (S,T) for S series of one length, or (T,) for a single one.  A static covariate: (S,)

Numbers are floats of one dtype throughout, categories integers from 0.  Index 0 is the same moment in all columns of a
series; a column ends with the last step that it knows, so columns may differ in length.
"""
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..arguments import FLOATS, describe


class Series(NamedTuple):
    """One series of a table.  Only the steps that are asked for are read: others cannot matter, not even to errors."""
    number: int             # which one of the table
    columns: dict           # name -> (T,), of a static covariate (1,)
    roles: dict             # name -> "target", "past", "known" or "static"
    categories: dict        # name -> how many
    missing: tuple          # names of those in which NaN means not measured

    def steps(self, name, t, offsets):
        """A column that changes in time, at the steps t + offsets, for each of t (N,) -> values (N,n), 0 before the
        first step and where nothing was measured; measured (N,n), False there.

        Raises ValueError that names the column and the steps: beyond the end, without a number, of no category."""
        column, wanted = self.columns[name], t[:, None] + offsets
        if wanted.size and wanted.max() >= len(column):
            raise ValueError(self._beyond_the_end(name, t, wanted))
        real = wanted >= 0
        values = np.take(column, np.maximum(wanted, 0))
        values[~real] = 0
        if name in self.missing:
            gaps = np.isnan(values)
            values[gaps], real = 0, real & ~gaps
        self._check(name, values, wanted)
        return values, real

    def value(self, name):
        """Of a static covariate, (1,)."""
        self._check(name, self.columns[name], np.zeros(1, int))
        return self.columns[name]

    def _check(self, name, values, wanted):
        """Are these, read at the steps wanted, finite numbers or known categories?"""
        V = self.categories.get(name)
        wrong = ~np.isfinite(values) if V is None else (values < 0) | (values >= V)
        if not wrong.any():
            return
        found = f"expected {'finite numbers' if V is None else f'categories 0 ... {V - 1}'}, got {values[wrong][0]}"
        at = f" at {runs(np.unique(wanted[wrong]))}" if self.roles[name] != "static" else ""
        may_miss = V is None and self.roles[name] in ("target", "past")
        cure = (f"; missing=[{name!r}] lets NaN stand for what was not measured; what is still to come has no place in "
                "a column") if may_miss else ""
        raise ValueError(f"{self._who(name)}: {found}{at}{cure}")

    def _beyond_the_end(self, name, t, wanted):
        last = len(self.columns[name]) - 1
        made = f"a forecast after step {t[0]} reads" if len(t) == 1 else (
            f"windows for forecasts after steps {stretch(t, '')} read")
        there = f"there are {stretch(range(last + 1))}" if last >= 0 else "there are none"
        gap = range(max(last + 1, wanted.min()), wanted.max() + 1)
        cure = "; what is not known so far ahead is a past covariate" if self.roles[name] == "known" else ""
        read = range(max(0, wanted.min()), wanted.max() + 1)
        return f"{self._who(name)}: {made} {stretch(read)}, {there}; missing: {stretch(gap)}{cure}"

    def _who(self, name):
        kind = "target" if self.roles[name] == "target" else f"{self.roles[name]} covariate"
        return f"{name} ({kind}) of series {self.number}"


def stretch(steps, word="step"):
    """Steps in words, from the first to the last: "steps 3 ... 7"."""
    if not len(steps):
        return "one value"
    first, last = min(steps), max(steps)
    word = f"{word}{'s' * (first < last)} " if word else ""
    return f"{word}{first}" if first == last else f"{word}{first} ... {last}"


def runs(steps):
    """Steps in words, in order, each run of neighbours from its first to its last: "steps 3 ... 7, 9"."""
    pieces = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1)
    words = ", ".join(stretch(piece, "") for piece in pieces[:5]) + " and more" * (len(pieces) > 5)
    return f"step{'s' * (len(steps) > 1)} {words}"


def all_series(table, roles, categories, missing):
    """The table -> a list of Series, with the columns in ``roles``; it may have others.

    Raises TypeError or ValueError that names the column that is missing, or of another shape or dtype."""
    if not isinstance(table, Mapping):
        raise TypeError(f"table: expected a dict name -> column, got {describe(table)}")
    if absent := [name for name in roles if name not in table]:
        raise ValueError(f"table: expected the columns {list(roles)}, missing: {absent}")
    columns, first = {}, next(iter(roles))
    for name, role in roles.items():
        found = _static(name, table[name]) if role == "static" else _over_time(name, table[name])
        S = len(columns.get(first, found))
        if len(found) != S:
            cure = "one value for each" if role == "static" else "each with a column of its own; (S,T): time comes last"
            raise ValueError(f"table[{name!r}]: expected {S} series, as {first} has, {cure}, got {len(found)}")
        columns[name] = found
    _check_dtypes(columns, categories)
    return [Series(s, {name: columns[name][s] for name in roles}, roles, categories, missing) for s in range(S)]


def _over_time(name, column):
    """-> a list of arrays (T,)"""
    if _is_plain(column) and column.ndim in (1, 2) and len(np.atleast_2d(column)):
        return list(np.atleast_2d(column))
    arrays = isinstance(column, (list, tuple)) and all(map(_is_plain, column))
    if not arrays or not column or any(one.ndim != 1 for one in column):
        raise TypeError(f"table[{name!r}]: expected an array (T,) for one series or (S,T) for several, or a list of "
                        f"arrays (T,), got {describe(column)}")
    return list(column)


def _static(name, column):
    """-> an array (S,1)"""
    if not _is_plain(column) or column.ndim != 1:
        raise TypeError(f"table[{name!r}]: expected an array (S,), as a static covariate has one value for a series, "
                        f"got {describe(column)}")
    return column[:, None]


def _is_plain(column):
    """Is it an array, and none that has a mask of its own?"""
    return isinstance(column, np.ndarray) and not isinstance(column, np.ma.MaskedArray)


def _check_dtypes(columns, categories):
    """Integers for categories, floats of the first target's dtype for all else."""
    dtype = next(iter(columns.values()))[0].dtype
    for name, column in columns.items():
        came = next((one for one in column if name in categories and one.dtype.kind not in "iu"
                     or name not in categories and (one.dtype.name not in FLOATS or one.dtype != dtype)), None)
        if came is not None and name in categories:
            V = categories[name]
            raise TypeError(f"table[{name!r}]: expected integers from 0 to {V - 1}, got {describe(came)}")
        if came is not None:
            as_first = f"{dtype}, as {next(iter(columns))} has" if dtype.name in FLOATS else " or ".join(FLOATS)
            cure = f"; or categories={{{name!r}: how many}}" if came.dtype.kind in "iu" else ""
            raise TypeError(f"table[{name!r}]: expected {as_first}, got {describe(came)}; nothing is cast silently: "
                            f"pass .astype('{dtype if dtype.name in FLOATS else 'float32'}'){cure}")
