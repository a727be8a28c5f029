"""What a forecast may read, step by step, and the arrays that hold just this.

    target      what is forecast: known up to now
    past        known up to now as well: visitors, weather as it was
    known       known ahead: prices that are set, holidays, weekdays
    static      one value for a whole series: the shop's region, its size

A forecast made after step t, with L steps of history and a horizon of K, has seen step t and knows nothing of t+1:

    target, past    t-L+1 ... t          read
    known           t-L+1 ... t+K        read
    target          t+1 ... t+K          forecast

Only the two ranges ``before`` and ``ahead`` in ``CovariateSpec`` say so; what is printed, windows, forecasts and errors
are all made of them.

    N  windows or series    L  history     K  horizon     S  series
    P  past numbers         M  known numbers              C_p, C_k, C_s  past, known and static categories
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, natural, positive
from .tables import all_series, stretch

ROLES = ("target", "past", "known", "static")


class CovariateWindows(NamedTuple):
    """What a Forecaster is trained on: fit(model, w.inputs, w.target, loss_mask=w.target_mask, ...)."""
    inputs: dict                # of arrays, as ``CovariateSpec.inputs_at`` has them
    target: np.ndarray          # (N,K,targets), NaN where it is missing: a loss that reads it shows
    target_mask: np.ndarray     # (N,K) bool: all targets of the step are there
    series: np.ndarray          # (N,) which series of the table
    step: np.ndarray            # (N,) t, the last step that a forecast has seen
    target_step: np.ndarray     # (N,K) t+1 ... t+K


class CovariateSpec:
    """Which columns of a table a forecast reads, and at which steps; ``print`` it for the exact indices.

    target, past, known, static     names, or one name.  Tables: see ``tables.py``
    history         L, how many steps a forecast reads that lie behind it
    horizon         K, how many it looks ahead
    categories      dict name -> how many; covariates that are not in it are numbers
    missing         names of targets and past covariates in which NaN means not measured.  The model reads 0 there, and
                    one more number for each that says whether it was measured.  NaN elsewhere is an error
    min_history     how many steps of a series must be there for a forecast; L if None.  With fewer than L, the history
                    is padded in front, and masked

    Numbers are read as they are: bring them near 1 first, with means and deviations of the training steps only.
    """

    def __init__(self, target, *, history, horizon, past=(), known=(), static=(), categories=None, missing=(),
                 min_history=None):
        self.history, self.horizon = positive("history", history), positive("horizon", horizon)
        self.min_history = positive("min_history", history if min_history is None else min_history)
        if self.min_history > self.history:
            raise ValueError(f"min_history: expected at most history={self.history}, got {min_history}")
        self.roles = {}
        for role, given in zip(ROLES, (target, past, known, static)):
            for name in _names(role, given):
                if name in self.roles:
                    raise ValueError(f"{role}: expected each name once, got {name!r}, which is {self.roles[name]} too")
                self.roles[name] = role
        if not self.of("target"):
            raise ValueError("target: expected one name or more, got none")
        if not isinstance(categories or {}, dict):
            raise TypeError(f"categories: expected a dict name -> how many, got {categories!r}")
        self.categories = {name: positive(f"categories[{name!r}]", V) for name, V in (categories or {}).items()}
        self.missing = tuple(dict.fromkeys(_names("missing", missing)))
        _check_among("categories", self.categories, [name for name, role in self.roles.items() if role != "target"])
        _check_among("missing", self.missing, [name for name in self.of("target", "past")
                                               if name not in self.categories])
        for name in self.missing:
            if f"{name} measured" in self.roles:
                raise ValueError(f"missing: expected no column that is called {name + ' measured'!r}, which this makes")
        self.before = range(1 - self.history, 1)            # steps from t: of what is known up to now
        self.ahead = range(1, self.horizon + 1)             # steps from t: of what is forecast

    def of(self, *roles):
        """The names of the targets, or of the covariates of one kind or several."""
        return tuple(name for name, role in self.roles.items() if role in roles)

    def arguments(self):
        """The arguments that build this specification again, as plain values."""
        return {**{role: list(self.of(role)) for role in ROLES}, "history": self.history, "horizon": self.horizon,
                "categories": dict(self.categories), "missing": list(self.missing), "min_history": self.min_history}

    def __eq__(self, other):
        return isinstance(other, CovariateSpec) and self.arguments() == other.arguments()

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        return f"CovariateSpec({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"

    # ----------------------------------------------------------------------------------------------- which steps, where

    def reads(self, t):
        """What a forecast made after step t reads, dict name -> range of steps; () for a static covariate."""
        t = natural("t", t)
        return {name: range(max(0, t + offsets[0]), t + offsets[-1] + 1) if offsets else ()
                for name, offsets in ((name, self._offsets(role)) for name, role in self.roles.items())}

    def forecasts(self, t):
        """The steps that a forecast made after step t is about."""
        return range(t + self.ahead[0], t + self.ahead[-1] + 1)

    def _offsets(self, role):
        offsets = {"target": self.before, "past": self.before, "known": range(self.before[0], self.ahead[-1] + 1)}
        return offsets.get(role, range(0))

    def columns(self):
        """What stands in the last axis of each array of inputs, dict name -> list of names."""
        measured = [f"{name} measured" for name in self.missing]
        found = {}
        for array, roles in (("past", ("target", "past")), ("known", ("known",)), ("static", ("static",))):
            names = self.of(*roles)
            found[array] = [name for name in names if name not in self.categories] + measured * (array == "past")
            found[f"{array}_categories"] = [name for name in names if name in self.categories]
        return found

    def __str__(self):
        return self.explain(2 * (self.history + self.horizon))

    def explain(self, steps):
        """All indices in words, for a series whose last known step is steps - 1: what training reads in its first and
        its last window, and what a forecast after the last step reads."""
        now, first, last = steps - 1, self.min_history - 1, steps - 1 - self.horizon
        if last < first:
            raise ValueError(f"steps: expected {self.min_history + self.horizon} or more, got {steps}")
        moments = {"training, first": first, "training, last": last, "a forecast": now}
        head = [["", "", "after step t", *moments], ["", "", "", *(f"t = {t}" for t in moments.values())]]
        reads = [[f"  {name}", self._kind(name), _symbols(self._offsets(role)),
                  *(stretch(self.reads(t)[name], "") for t in moments.values())] for name, role in self.roles.items()]
        ahead = [_symbols(self.ahead), *(stretch(self.forecasts(t), "") for t in moments.values())]
        forecasts = [[f"  {name}", "", *ahead] for name in self.of("target")]
        lines = [*head, ["reads"], *reads, ["forecasts"], *forecasts]
        widths = [max(len(line[k]) for line in lines if k < len(line)) for k in range(len(head[0]))]
        padded = f", at least {self.min_history}, padding in front" if self.min_history < self.history else ""
        return "\n".join([
            f"{self.history} steps of history{padded}; {stretch(self.ahead, '')} ahead; a series of {steps} steps, "
            f"{stretch(range(steps), '')}",
            *("   ".join(map(str.ljust, line, widths)).rstrip() for line in lines),
            f"{last - first + 1} windows for training, one after each of {stretch(range(first, last + 1))}"])

    def _kind(self, name):
        count = self.categories.get(name)
        return self.roles[name] + (f", {count} categories" if count else "")

    # ----------------------------------------------------------------------------------------------------- the arrays

    def windows(self, table, *, start=0, stop=None, stride=1):
        """All windows whose forecast steps lie in start ... stop - 1 -> CovariateWindows.

        stop        None: up to the last step of the first target
        stride      steps from one window to the next

        To judge a model on steps that it was not trained on, cut at a step: windows(table, stop=800) and
        windows(table, start=800).  No step is forecast in both.  The latter read a history from before 800: so does a
        forecast.  Raises ValueError that names the column and the steps that are missing, or a series too short."""
        start, stride = natural("start", start), positive("stride", stride)
        parts = []
        for one in all_series(table, self.roles, self.categories, self.missing):
            T = len(one.columns[self.of("target")[0]])
            if T < self.min_history + self.horizon:
                raise ValueError(f"table: expected {self.min_history + self.horizon} steps or more, {self.min_history} "
                                 f"to read and {self.horizon} to forecast, got {T} in series {one.number}")
            end = T if stop is None else min(T, natural("stop", stop))
            t = np.arange(max(self.min_history, start) - 1, end - self.horizon, stride)
            parts.append((self._inputs(one, t), *self._target(one, t), np.full(len(t), one.number), t,
                          t[:, None] + self.ahead))
        inputs, *arrays = zip(*parts)
        if not sum(map(len, arrays[0])):
            raise ValueError(f"start, stop: expected room for {self.horizon} steps that are forecast, and for "
                             f"{self.min_history} before them, got {start} and {stop}")
        return CovariateWindows(_joined(inputs), *map(np.concatenate, arrays))

    def inputs_at(self, table, t=None):
        """What a forecast after step t reads, one for each of the S series -> dict of arrays.

        t   one step for all, or (S,) integers; None: the last step of the first target

            past (S,L,P)        past_categories (S,L,C_p)           history_mask (S,L), False before the first step
            known (S,L+K,M)     known_categories (S,L+K,C_k)
            static (S,M_s)      static_categories (S,C_s)

        No other steps are read: they may hold anything, or not be there.  Raises ValueError that names the column and
        the steps that are missing."""
        series = all_series(table, self.roles, self.categories, self.missing)
        t = self._last(series) if t is None else np.asarray(t)
        if t.dtype.kind not in "iu" or t.shape not in ((), (len(series),)):
            raise ValueError(f"t: expected an integer, or {len(series)}, one for each series, got {describe(t)}")
        t = np.broadcast_to(t, len(series))
        for one, step in zip(series, t):
            if step < self.min_history - 1:
                raise ValueError(f"t: expected {self.min_history - 1} or more, to have {self.min_history} of history, "
                                 f"got {step} for series {one.number}")
        return _joined([self._inputs(one, t[[one.number]]) for one in series])

    def _last(self, series):
        """The last step of the first target, in each series."""
        name = self.of("target")[0]
        for one in series:
            if np.isnan(one.columns[name][-1:]).any():
                raise ValueError(f"t: expected a step, since {name} of series {one.number} ends with NaN: has it not "
                                 "been measured, or is it still to come?")
        return np.array([len(one.columns[name]) - 1 for one in series])

    def _inputs(self, one, t):
        """One series, t (N,) -> dict of arrays (N,...)."""
        values, measured = {}, {}
        for name, role in self.roles.items():
            values[name], measured[name] = (one.steps(name, t, self._offsets(role)) if role != "static" else
                                            (np.repeat(one.value(name), len(t)), None))
        dtype = values[self.of("target")[0]].dtype
        values |= {f"{name} measured": measured[name].astype(dtype) for name in self.missing}
        inputs = {"history_mask": t[:, None] + self.before >= 0}
        for array, names in self.columns().items():
            group, _, categories = array.partition("_")
            kind, steps = np.int64 if categories else dtype, self._offsets(group)
            nothing = np.zeros((len(t), *([len(steps)] if steps else []), 0), kind)
            inputs[array] = np.stack([values[name].astype(kind) for name in names], axis=-1) if names else nothing
        return inputs

    def _target(self, one, t):
        read = [one.steps(name, t, self.ahead) for name in self.of("target")]
        return (np.stack([np.where(there, value, value.dtype.type(np.nan)) for value, there in read], axis=2),
                np.all([there for _, there in read], axis=0))


def _symbols(offsets):
    """Offsets from t in words: "t-3 ... t"."""
    ends = [f"t{offset:+d}" if offset else "t" for offset in (*offsets[:1], *offsets[-1:])]
    return " ... ".join(dict.fromkeys(ends)) or "one value"


def _joined(dicts):
    return {name: np.concatenate([arrays[name] for arrays in dicts]) for name in dicts[0]}


def _names(role, given):
    names = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{role}: expected a name or names, got {given!r}")
    return names


def _check_among(argument, names, allowed):
    for name in names:
        if name not in allowed:
            raise ValueError(f"{argument}: expected some of {list(allowed)}, got {name!r}")
