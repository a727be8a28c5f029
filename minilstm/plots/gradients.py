"""The way of a gradient back through time."""
import numpy as np

from ..checks.paths import gradient_paths
from .style import (BLACK, LINES, check_steps, hatch_columns, legend_below, masked_patch, new_figure, whole_numbers,
                    width_for)


def gradient_flow(net, x, mask=None, *, dy=None, dh_n=None, dc_n=None, row=0, layer=0, direction=0, **options):
    """How long is the gradient that each step hands back, and on which paths did it come?  One panel for each state,
    with a logarithmic axis; the arguments are those of ``checks.gradient_paths``, which computes what is drawn and
    says what the paths are.

    On a logarithmic axis a straight line is a gradient that fades, or grows, by the same factor at each step.  Lengths
    do not add up: parts that point in opposite directions may each be longer than the whole.  What is 0 has no place on
    such an axis and is left out.

    -> Figure.  Raises TypeError or ValueError for bad input, as ``checks.gradient_paths`` does."""
    paths = gradient_paths(net, x, mask, dy=dy, dh_n=dh_n, dc_n=dc_n, row=row, layer=layer, direction=direction,
                           **options)
    check_steps(paths.real)
    T, norms = len(paths.real), paths.norms()
    figure = new_figure(width_for(T), 1 + 2.9 * len(norms))
    comes_from = "left" if net.directions[direction].reverse else "right"
    looks = _looks(net.cell.blocks)
    handles = {}
    for axes, (state, lengths) in zip(figure.subplots(len(norms), 1, squeeze=False).flat, norms.items()):
        for path, length in lengths.items():
            if not (length[paths.real] > 0).any():
                continue
            shown = np.ma.masked_array(length, ~(paths.real & (length > 0)))
            handles[path], = axes.plot(np.arange(T), shown, label=_label(path), **looks[path])
        hatch_columns(axes, paths.real)
        axes.set(yscale="log", xlim=(-0.5, T - 0.5), xlabel=f"step t (the gradient comes from the {comes_from})",
                 ylabel="length", title=f"dL/d{state} before step t, and its parts")
        whole_numbers(axes.xaxis)
        if not axes.lines:
            axes.text(0.5, 0.5, "no gradient", transform=axes.transAxes, ha="center", va="center", color=BLACK)
    known = [handles[path] for path in looks if path in handles]
    legend_below(figure, known + ([] if paths.real.all() else [masked_patch("masked step")]))
    return figure


def _looks(blocks):
    """dict path -> how its line is drawn."""
    looks = {"total": {"color": BLACK, "linestyle": "-", "linewidth": 3, "zorder": 1.9}}          # below its parts
    for path, line in zip(("direct", *blocks, "output"), LINES):
        looks[path] = {**line, "linewidth": 1.6}
    return {path: look | {"marker": ".", "markersize": 4} for path, look in looks.items()}


def _label(path):
    names = {"total": "all together", "direct": "directly", "output": "from the loss at step t", "a": "through U"}
    return names.get(path, f"through {path}")
