"""What the gates of a recurrent layer do over time."""
import numpy as np

from ..checks.trace import trace
from .style import (NAMES, check_steps, hatch_columns, heat_map, legend_below, masked_patch, new_figure, whole_numbers,
                    width_for)

CANDIDATES = ("g", "n", "s")        # of a tanh: from -1 to 1.  All other blocks are gates, from 0 to 1


def gates(net, x, mask=None, *, row=0, layer=0, direction=0, **options):
    """The gates, candidates and states of every unit at every step of one sequence, as heat maps: time from left to
    right, units from below to above.  Dark is low and light is high; what has a sign is 0 in the middle of its scale.

    net         LSTM, GRU or RNN, which has no gates, only h
    x, mask     (B,T,D) and (B,T), as for ``net.forward``; so are the options h0, c0, lengths, training and draw.  In
                the dtype of ``net`` or in float64
    row         which sequence of the batch
    layer       which layer of a stack
    direction   0, or 1 for the backward direction of a bidirectional layer

    -> Figure.  Raises TypeError or ValueError for bad input, as ``trace`` does."""
    traced = trace(net, x, mask, row=row, layer=layer, direction=direction, **options)
    real = np.array([step.real for step in traced.steps], bool)
    check_steps(real)
    blocks = [block for block in net.cell.blocks if block in NAMES]
    states = tuple(reversed(net.cell.states))                                           # c is made before h
    widths = dict.fromkeys(blocks, net.hidden_size) | dict(zip(net.cell.states, net.widths))
    columns = 2 if blocks else 1
    rows = -(-len(widths) // columns)
    figure = new_figure(min(16, columns * width_for(len(real)) * 0.75), 1 + 1.9 * rows)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes in grid.flat[len(widths):]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, (*blocks, *states)):
        values = traced.series(name) if real.any() else np.full((len(real), widths[name]), np.nan)
        _draw(figure, axes, name, values, real)
    for axes in grid.flat[max(0, len(widths) - columns):len(widths)]:
        axes.set_xlabel("step t")
        axes.tick_params(labelbottom=True)
    legend_below(figure, [] if real.all() else [masked_patch("masked step")])
    return figure


def _draw(figure, axes, name, values, real):
    low, high = _range(name, values)
    image = heat_map(axes, values.T, np.broadcast_to(real, values.T.shape), low, high)
    hatch_columns(axes, real)
    axes.set(title=f"{name}: {NAMES[name]}", ylabel="unit")
    whole_numbers(axes.xaxis, axes.yaxis)
    figure.colorbar(image, ax=axes, label="value", pad=0.01)


def _range(name, values):
    """Of the colours: that of the squashing, or what a state reaches."""
    if name in ("h", "c"):
        reach = np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0) or 1.0
        return -reach, reach
    return (-1, 1) if name in CANDIDATES else (0, 1)
