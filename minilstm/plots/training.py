"""How a training went."""
import numpy as np

from ..arguments import describe, positive
from .given import numbers, numbers_or_nan
from .style import BLACK, LINES, legend_below, new_figure, whole_numbers

FURTHER = {"rates": "learning rate", "norms": "gradient norm"}              # attributes of what fit returns
MARKERS = "os^DvPX"     # one for each training: in print two colours may be one grey
WIDE = 20               # the largest loss as a multiple of the smallest: above it the axis is logarithmic


def training_curves(history):
    """The losses of a training over its epochs; below them, where they are known, the learning rate and the norm of the
    gradients.

    history     what ``fit`` returns, a list of losses: its attributes ``validation``, ``rates`` and ``norms`` are drawn
                too if it has them and they are not empty, and ``best_epoch``, counted from 1, is marked.  Or a dict
                name -> history, to compare up to seven trainings
    A validation loss that is not finite is a gap in its line.
    A list that is not as long as that of the losses is spread over all epochs.  The axis of the losses is logarithmic
    where all are positive and the largest is more than twenty times the smallest.

    -> Figure.  Raises TypeError or ValueError for bad input."""
    histories = history if isinstance(history, dict) else {"": history}
    if not 1 <= len(histories) <= len(LINES):
        raise ValueError(f"history: expected 1 to {len(LINES)} of them, got {len(histories)}")
    runs = {str(name): _Run(f"history[{name!r}]" if isinstance(history, dict) else "history", one)
            for name, one in histories.items()}
    further = [name for name in FURTHER if any(name in run.curves for run in runs.values())]
    figure = new_figure(8, 4.2 + 1.9 * len(further))
    panels = figure.subplots(1 + len(further), 1, sharex=True, squeeze=False,
                             height_ratios=[2.2, *[1] * len(further)])[:, 0]
    handles = []
    lines = LINES if len(runs) > 1 else [{"color": BLACK, "linestyle": "-"}]
    for (name, run), line, marker in zip(runs.items(), lines, MARKERS):
        handles += _losses(panels[0], name, run, line, marker)
        for axes, quantity in zip(panels[1:], further):
            axes.plot(*run.curves.get(quantity, ([], [])), **line, linewidth=1.6)
    losses = np.concatenate([run.curves[kind][1] for run in runs.values() for kind in ("loss", "validation")
                             if kind in run.curves])
    losses = losses[np.isfinite(losses)]
    wide = losses.min() > 0 and losses.max() > WIDE * losses.min()
    panels[0].set(ylabel="loss", yscale="log" if wide else "linear")
    for axes, quantity in zip(panels[1:], further):
        axes.set(ylabel=FURTHER[quantity], ylim=(0, None))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        whole_numbers(axes.xaxis)
    panels[-1].set_xlabel("epoch")
    figure.align_ylabels(panels)
    legend_below(figure, handles, columns=3)
    return figure


class _Run:
    """One history, checked.  curves: "loss", "validation", "rates", "norms" -> (epochs, values), those that there are;
    best: an epoch or None."""

    def __init__(self, name, history):
        if not isinstance(history, (list, tuple, np.ndarray)):
            raise TypeError(f"{name}: expected a list of losses, as fit returns it, got {describe(history)}")
        epochs = len(numbers(name, history, (None,), ("epochs",)))
        self.curves = {}
        further = {kind: getattr(history, kind, None) for kind in ("validation", *FURTHER)}
        for kind, values in {"loss": history, **further}.items():
            if values is not None and len(values):
                check = numbers_or_nan if kind == "validation" else numbers
                values = check(name if kind == "loss" else f"{name}.{kind}", values, (None,), ("epochs",))
                values = np.where(np.isfinite(values), values, np.nan)          # infinity is a gap in the line too
                self.curves[kind] = np.arange(1, len(values) + 1) * (epochs / len(values)), values
        self.best = getattr(history, "best_epoch", None)
        if self.best is not None and positive(f"{name}.best_epoch", self.best) > epochs:
            raise ValueError(f"{name}.best_epoch: expected at most {epochs}, the number of epochs, got {self.best}")


def _losses(axes, name, run, line, marker):
    """Draw the losses of one training -> the handles of a legend."""
    title = f"{name}, " if name else ""
    handles = axes.plot(*run.curves["loss"], **line, linewidth=1.8, label=f"{title}training")
    judged = run.curves.get("validation", run.curves["loss"])
    if "validation" in run.curves:
        epochs, values = judged
        handles += axes.plot(epochs, values, color=line["color"], linewidth=0.8, marker=marker, markersize=4.5,
                             markerfacecolor="white", markevery=max(1, len(values) // 25), label=f"{title}validation")
    if run.best is not None:
        at = np.interp(run.best, *judged)
        handles += axes.plot([run.best], [at], color=line["color"], linestyle="none", marker=marker, markersize=11,
                             markeredgecolor="white", zorder=5, label=f"{title}best: epoch {run.best}")
    return handles
