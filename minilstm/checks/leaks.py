"""Does a forecast know what it cannot know?  Change only what lies ahead; a forecast must not move, not in one bit.

After step t a forecast may read targets and past covariates up to t, and known covariates up to t + horizon: what
``CovariateSpec.reads`` says.  All that lies beyond is changed, column by column:

    redrawn         other numbers like those before; other categories
    raised, lowered far above all others, far below: for a maximum, a median, a threshold over all steps
    with gaps       the last steps before t are made NaN first, in columns where NaN may stand: what fills them?
    ahead gone      all columns end with the last step that may be read, as they do on the day

    print(check_leaks(model.forecast, spec, table, steps=[20, 35, 50]))

It finds leaks in whatever happens inside ``forecast``.  What has been done to the table before, it cannot see: put the
preparation of the data (scaling, filling, averages) into the function, and the training too, if it reads the table.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, natural

CHANGES = ("redrawn", "raised", "lowered")


class LeakRow(NamedTuple):
    """What was found for one column."""
    name: str
    beyond: str             # the first step that a forecast after t may not read
    moved: dict             # change -> how far the forecasts moved at most, NaN where one is not finite; 0: same bits
    uses: bool              # do they move with the last step that they may read?  If not, something is late, or unread

    @property
    def ok(self):
        return not any(self.moved.values())             # a NaN counts as moved

    @property
    def verdict(self):
        return "ok" if self.ok else "LEAKS"


class LeakReport(NamedTuple):
    """The result of ``check_leaks``; prints as a table."""
    rows: list
    gone: str               # what happens without the steps ahead: "" for the same forecasts

    @property
    def ok(self):
        return all(row.ok for row in self.rows) and not self.gone

    def __str__(self):
        head = ["column", "from step", *CHANGES, "uses its last step", ""]
        body = [[row.name, row.beyond, *(f"{moved:.0e}" if moved else "0" for moved in row.moved.values()),
                 "yes" if row.uses else "no", row.verdict] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in [head, *body]]
        return "\n".join([*lines, f"with all of these steps gone: {self.gone or 'the same forecasts'}"])


def check_leaks(forecast, spec, table, steps, *, seed=0):
    """Look for leaks in ``forecast`` -> LeakReport, with ``ok``; print it for a table.

    forecast    function (table, t) -> array: what it foretells after step t
    spec        the CovariateSpec that says what it may read
    table       dict name -> column, as ``CovariateSpec.windows`` takes it, with steps beyond those that may be read
    steps       values of t
    seed        of the changes

    Raises ValueError if there is nothing ahead that could be changed, or if two calls with one table differ."""
    if not callable(forecast):
        raise TypeError(f"forecast: expected a function (table, t) -> array, such as model.forecast, "
                        f"got {describe(forecast)}")
    if not isinstance(steps, (list, tuple, range, np.ndarray)):
        raise TypeError(f"steps: expected a list of steps, got {describe(steps)}")
    steps, rng = [natural("steps", t) for t in steps], np.random.default_rng(natural("seed", seed))
    whole = {t: table for t in steps}
    if any(_moved(forecast(table, t), forecast(table, t)) for t in steps):
        raise ValueError("forecast: expected the same answer each time, got another one in a second call")
    gaps = {name: {t: _with(table, name, t - spec.history // 2, t + 1, lambda part: np.full_like(part, np.nan))
                   for t in steps} for name in spec.missing}
    rows = [_row(forecast, spec, name, whole, name, rng) for name, role in spec.roles.items() if role != "static"]
    rows += [_row(forecast, spec, name, tables, f"{name}, with gaps", rng) for name, tables in gaps.items()]
    gone = [_gone(forecast, spec, tables) for tables in (whole, *gaps.values())]
    return LeakReport(rows, next(filter(None, gone), ""))


def _row(forecast, spec, name, tables, title, rng):
    """tables: dict t -> the table in which a forecast after step t is looked at."""
    V, moved, uses, looked = spec.categories.get(name), dict.fromkeys(CHANGES, 0.0), False, False
    for t, table in tables.items():
        before, last = forecast(table, t), spec.reads(t)[name][-1]
        for change in CHANGES:
            changed = _with(table, name, last + 1, None, lambda part: _changed(part, change, V, rng))
            looked = looked or any(len(column) > last + 1 for column in _columns(table[name]))
            moved[change] = max(moved[change], _moved(before, forecast(changed, t)), key=_size)
        changed = _with(table, name, last, last + 1, lambda part: _changed(part, "raised", V, rng))
        uses = uses or _moved(before, forecast(changed, t)) != 0
    if not looked:
        raise ValueError(f"steps: expected some after which there is something in {name} to be changed, got "
                         f"{list(tables)}: all that is there may be read")
    beyond = spec.reads(spec.history)[name][-1] + 1 - spec.history
    return LeakRow(title, f"t+{beyond}", moved, uses)


def _gone(forecast, spec, tables):
    """What happens without the steps ahead."""
    for t, table in tables.items():
        short = dict(table)
        for name, steps in spec.reads(t).items():
            if steps:
                column, there = table[name], slice(0, steps[-1] + 1)
                is_array = isinstance(column, np.ndarray)
                short[name] = column[..., there] if is_array else [one[there] for one in column]
        try:
            after = forecast(short, t)
        except Exception as error:                          # of whatever kind: it is somebody else's function
            return f"t = {t}: {type(error).__name__}: {error}"
        if _moved(forecast(table, t), after):
            return f"t = {t}: other forecasts"
    return ""


def _columns(column):
    """The column of each series."""
    return list(np.atleast_2d(column)) if isinstance(column, np.ndarray) else column


def _with(table, name, first, stop, change):
    """The table with other numbers in one column, at the steps first ... stop - 1 of each series."""
    def one(column):
        column, part = column.copy(), slice(max(0, first), stop)
        column[..., part] = change(column[..., part])
        return column

    column = table[name]
    return {**table, name: one(column) if isinstance(column, np.ndarray) else [one(array) for array in column]}


def _changed(part, change, categories, rng):
    """Other numbers, or other categories, in the shape of ``part``."""
    if categories is not None:
        return (part + rng.integers(min(1, categories - 1), categories, part.shape)) % categories
    there = part[np.isfinite(part)]
    middle, deviation = (there.mean(), there.std() + 1) if there.size else (0, 1)
    shift = {"redrawn": 0, "raised": 100, "lowered": -100}[change]
    return middle + deviation * (shift + rng.standard_normal(part.shape))


def _moved(before, after):
    """The largest difference; 0 for the same bits, NaN if there is none that is finite."""
    before, after = np.asarray(before), np.asarray(after)
    if before.dtype == after.dtype and before.shape == after.shape and before.tobytes() == after.tobytes():
        return 0.0
    if before.shape != after.shape or not np.isfinite(before).all() or not np.isfinite(after).all():
        return float("nan")
    return float(max(np.abs(before - after).max(), np.finfo(float).tiny))


def _size(moved):
    return float("inf") if np.isnan(moved) else moved
