"""One long series to many short ones, each with the value to predict.

A window is a run of steps of the series, and its target a value that lies ``horizon`` steps after its last step:

    series            s0  s1  s2  s3  s4  s5 ...
    x[0]              s0  s1  s2                    length 3; first[0] = 0, last[0] = 2
    target[0]                         s4            horizon 2; target_step[0] = last[0] + 2 = 4

    N  windows      T  steps of the series      D  its features      F  features of the target      K  horizons

Windows overlap.  To judge a model by data that it has not seen, cut the series in time first, and each part into
windows then: window([series[:800], series[800:]], ...) makes none that reaches across the border.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, natural, positive
from .shapes import array, listed, names_of, sequences_of


class Windows(NamedTuple):
    """Windows and their targets, and where in the series each stands."""
    x: np.ndarray               # (N,length,D)
    target: np.ndarray          # (N,F), or (N,K,F) for K horizons
    first: np.ndarray           # (N,) of the series' steps, the window's first one
    last: np.ndarray            # (N,) its last one, first + length - 1
    target_step: np.ndarray     # (N,) or (N,K), last + horizon
    series: np.ndarray          # (N,) which series of the list; 0 if there is but one


def window(series, length, *, horizon=1, stride=1, target=None):
    """series (T,D) or (T,) floats -> Windows, in the dtype it has: all that fit with their targets.

    length      steps of a window
    horizon     how many steps after the window's last step the target lies: 1, the next one.  Several at once, such as
                range(1, 4), give the target an axis (N,K,F) for them
    stride      steps from one window's first step to the next one's
    target      an array as long as the series, (T,F) or (T,), if something else is to be predicted than the series
                itself; for a list of series, a list.  Its dtype is kept too.  horizon may then be 0, the last step

    series may be a list of arrays: no window reaches from one into the next, and ``series`` says where each is from.
    Steps at the end that no whole window has room for are in none.  For a target at every step of the window take
    series[w.first[:, None] + np.arange(length) + horizon], with shape (N,length,D) if the series is (T,D).  The target
    (N,F) of a Windows is what a model wants that pools: Sequential(LSTM(D, H), Pooling("last"), Linear(H, F)).

    Keras' timeseries_dataset_from_array counts otherwise: there targets[i] belongs to the window that starts at i, so
    that passing the series itself as targets asks for the first step of the input.

    Raises TypeError or ValueError that says which argument does not fit, or which series is too short."""
    length, stride = positive("length", length), positive("stride", stride)
    ahead = _horizons(horizon, own_target=target is not None)
    several = isinstance(series, (list, tuple))
    many = listed("series", series) if several else [series]
    names = names_of("series", many) if several else ["series"]
    inputs = sequences_of(names, many)
    targets = inputs if target is None else _targets(target, names, inputs, several)
    needed = length + int(ahead.max())
    parts = []
    for k, (x, y) in enumerate(zip(inputs, targets)):
        if len(x) < needed:
            raise ValueError(f"{names[k]}: expected {needed} steps or more, for a window of {length} and a target "
                             f"{ahead.max()} after it, got {len(x)}")
        first = np.arange(0, len(x) - needed + 1, stride)
        last = first + length - 1
        target_step = np.add.outer(last, ahead)                         # (N,) or (N,K)
        parts.append(Windows(x[first[:, None] + np.arange(length)], y[target_step], first, last, target_step,
                             np.full(len(first), k)))
    return Windows(*(np.concatenate(field) for field in zip(*parts)))


def _horizons(horizon, own_target):
    """One integer, or several -> an array of no axis, or of one."""
    try:
        ahead = np.array([natural("horizon", h) for h in horizon], int)
    except TypeError:                                                   # one, not several
        ahead = np.array(natural("horizon", horizon))
    if ahead.size == 0:
        raise ValueError("horizon: expected an integer or several, got none")
    if ahead.min() == 0 and not own_target:
        raise ValueError("horizon: expected 1 or more, got 0: the target would be the window's own last step; with "
                         "target= of its own it may be 0")
    return ahead


def _targets(target, names, inputs, several):
    """What is given as target -> a list of arrays (T_i,F), one for each series."""
    many = listed("target", target) if several else [target]
    if len(many) != len(inputs):
        raise ValueError(f"target: expected {len(inputs)} arrays, one for each series, got {len(many)}")
    for name, series, y in zip(names, inputs, many):
        own = name.replace("series", "target")
        if array(own, y).ndim not in (1, 2) or len(y) != len(series):
            raise ValueError(f"{own}: expected (T,F) or (T,) with T={len(series)}, as {name} has, got {describe(y)}")
        if y.dtype != many[0].dtype or y.shape[1:] != many[0].shape[1:]:
            raise ValueError(f"{own}: expected the dtype and F of target[0], {describe(many[0])}, got {describe(y)}")
    return [y[:, None] if y.ndim == 1 else y for y in many]
