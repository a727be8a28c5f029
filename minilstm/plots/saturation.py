"""Which gates are open or shut most of the time."""
from matplotlib.lines import Line2D

from ..checks.saturation import gate_saturation
from .style import GREY, LINES, NAMES, legend_below, new_figure


def saturation(net, x, mask=None, *, layer=0, direction=0, limits=(0.1, 0.9), **options):
    """For each gate a panel, and in it for each unit a circle: at which part of the real steps was the gate open, and
    at which part shut?  The two cannot add up to more than 1, the dashed line.  After A. Karpathy, J. Johnson and
    L. Fei-Fei, Visualizing and Understanding Recurrent Networks, 2015, figure 3.

    The arguments are those of ``checks.gate_saturation``, which computes what is drawn.

    -> Figure.  Raises TypeError or ValueError for bad input, as ``checks.gate_saturation`` does."""
    found = gate_saturation(net, x, mask, layer=layer, direction=direction, limits=limits, **options)
    figure = new_figure(1 + 3.1 * len(found), 4.1)
    for axes, (gate, (left, right)) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items()):
        axes.plot([0, 1], [1, 0], color=GREY, linestyle="--", linewidth=1)
        axes.plot(right, left, linestyle="none", marker="o", markersize=8, markerfacecolor=LINES[0]["color"] + "33",
                  markeredgecolor=LINES[0]["color"], clip_on=False)
        axes.set(title=f"{gate}: {NAMES[gate]}", xlim=(0, 1), ylim=(0, 1), aspect="equal",
                 xlabel=f"part of the steps with {gate} > {limits[1]}: open")
        axes.set_ylabel(f"part with {gate} < {limits[0]}: shut")
        axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, [
        Line2D([], [], linestyle="none", marker="o", markersize=8, markerfacecolor=LINES[0]["color"] + "33",
               markeredgecolor=LINES[0]["color"], label="one unit (darker: several)"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="always either open or shut")])
    return figure
