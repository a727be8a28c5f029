"""A forecast that says how sure it is."""
import numpy as np
from matplotlib.dates import ConciseDateFormatter, date2num
from matplotlib.patheffects import withStroke

from ..arguments import describe
from .given import mask_of, numbers
from .style import BLACK, GREY, hatch_span, legend_below, masked_patch, new_figure

SHADES = ("#9FC5E8", "#5B9BD0", "#0072B2", "#004F7C", "#00304C")        # from the widest interval to the narrowest
HATCHES = ("", "////", "\\\\\\\\", "....", "xxxx")


def quantile_forecast(times, past, forecast, levels, target=None, *, mask=None, unit="value"):
    """A fan chart: what was, and for each step ahead the intervals between pairs of quantiles, the median as a line.

    times       (P+K,) rising numbers or dates (datetime64): those of the past, then those of the forecast
    past        (P,) what was measured
    forecast    (K,Q) the quantiles of the K steps ahead
    levels      (Q,) rising, between 0 and 1 and the same from both ends, such as [0.05, 0.25, 0.5, 0.75, 0.95]: at most
                five intervals.  Without 0.5 there is no line of the median
    target      (K,) what came, if it is known
    mask        (P,) bool, True = was measured: what past holds elsewhere is not drawn, and the place is hatched
    unit        of the vertical axis

    Where quantiles cross each other, so do the edges of the intervals.

    -> Figure.  Raises TypeError or ValueError for bad input."""
    levels = _levels(levels)
    forecast = numbers("forecast", forecast, (None, len(levels)), ("K", "Q"))
    mask = mask_of("mask", mask, np.size(past), "P")
    past = numbers("past", past, (None,), ("P",), where=mask)
    times, are_dates = _times(times, len(past), len(forecast))
    before, ahead = np.split(times, [len(past)])
    edges = np.concatenate([before, ahead[:1]])
    edges = np.concatenate([[1.5 * edges[0] - 0.5 * edges[1]], (edges[1:] + edges[:-1]) / 2])      # around each step
    at, quantiles = ahead, forecast
    if len(ahead) == 1:                                             # a single step would have no width
        at, quantiles = np.array([edges[-1], 2 * ahead[0] - edges[-1]]), np.repeat(forecast, 2, axis=0)
    figure = new_figure(9, 4.6)
    axes = figure.subplots()
    handles = axes.plot(before, np.ma.masked_array(past, ~mask), color=BLACK, linewidth=1.4, marker=".",
                        label="measured")
    handles += [_interval(axes, at, quantiles, levels, k) for k in range(len(levels) // 2)]
    if len(levels) % 2:
        handles += axes.plot(at, quantiles[:, len(levels) // 2], color=BLACK, linewidth=1.8, linestyle="--",
                             path_effects=[withStroke(linewidth=4, foreground="white")], label="median")
    if target is not None:
        handles += axes.plot(ahead, numbers("target", target, (len(forecast),), ("K",)), color=BLACK, linestyle="none",
                             marker="o", markersize=5, markerfacecolor="white", label="what came")
    for k in np.flatnonzero(~mask):
        hatch_span(axes, edges[k], edges[k + 1])
    handles += [] if mask.all() else [masked_patch("not measured")]
    handles.append(axes.axvline(edges[-1], color=GREY, linestyle=":", linewidth=1.4, label="the forecast begins"))
    axes.set(xlabel="time", ylabel=unit, xlim=(edges[0], max(times[-1], at[-1]) + (times[-1] - times[0]) * 0.01))
    axes.spines[["top", "right"]].set_visible(False)
    if are_dates:
        axes.xaxis_date()
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    legend_below(figure, handles)
    return figure


def _interval(axes, at, quantiles, levels, k):
    """Between the k-th quantile from below and from above."""
    low, high = levels[k], levels[-1 - k]
    return axes.fill_between(at, quantiles[:, k], quantiles[:, -1 - k], facecolor=SHADES[k], edgecolor="white",
                             hatch=HATCHES[k], linewidth=0, label=f"{100 * (high - low):.3g} %: {low:g} to {high:g}")


def _levels(levels):
    levels = numbers("levels", levels, (None,), ("Q",))
    rising = (np.diff(levels) > 0).all() and 0 < levels[0] and levels[-1] < 1
    if not rising or not np.allclose(levels + levels[::-1], 1, atol=1e-6) or len(levels) > 2 * len(SHADES) + 1:
        raise ValueError("levels: expected rising numbers between 0 and 1, the same from both ends, such as [0.1, 0.5, "
                         f"0.9], at most {2 * len(SHADES) + 1}, got {levels.tolist()}")
    return levels


def _times(times, P, K):
    """-> (P+K,) float64, matplotlib's own numbers of days for dates; are they dates?"""
    are_dates = isinstance(times, np.ndarray) and times.dtype.kind == "M"
    found = numbers("times", date2num(times) if are_dates else times, (P + K,), ("P+K",))
    if not (np.diff(found) > 0).all():
        raise ValueError(f"times: expected rising numbers or dates, got some that do not "
                         f"rise in {describe(np.asarray(times))}")
    return found, are_dates
