"""Which steps attention looks at."""
import numpy as np

from .given import mask_of, numbers_or_nan, texts
from .style import hatch_columns, hatch_rows, heat_map, legend_below, masked_patch, new_figure, whole_numbers

COLUMNS = 4             # heads side by side


def attention_map(weights, key_mask=None, query_mask=None, *, key_labels=None, query_labels=None, head_labels=None):
    """The weights of attention as a heat map, one panel for each head, all in one scale of colours.  Each row is a
    query, the first one on top, and shows on which keys it looks.

    weights         (Tq,Tk) or (heads,Tq,Tk): those of one sequence, such as ``Attention`` gives with return_weights.
                    Those of a pooling, (heads,T), are drawn with a head as a row
    key_mask        (Tk,) bool, True = a real step; None: all are
    query_mask      (Tq,) bool, likewise.  Masked columns and rows are hatched, whatever stands there
    key_labels      Tk texts in place of numbers; query_labels Tq and head_labels as many as heads, likewise

    -> Figure.  Raises TypeError or ValueError for bad input, and where a weight is not from 0 to 1."""
    ndim = 3 if np.ndim(weights) == 3 else 2
    weights = numbers_or_nan("weights", weights, (None,) * ndim, ("heads", "Tq", "Tk")[-ndim:])
    weights = weights if ndim == 3 else weights[None]
    heads, Tq, Tk = weights.shape
    keys, queries = mask_of("key_mask", key_mask, Tk, "Tk"), mask_of("query_mask", query_mask, Tq, "Tq")
    labels = (texts("key_labels", key_labels, Tk, "Tk"), texts("query_labels", query_labels, Tq, "Tq"))
    titles = texts("head_labels", head_labels, heads, "heads") or [f"head {k}" for k in range(heads)] * (heads > 1)
    shown = queries[:, None] & keys
    if not ((weights >= 0) & (weights <= 1 + 1e-5) | ~shown).all():
        raise ValueError("weights: expected numbers from 0 to 1 wherever query and key are real, got "
                         f"{weights[:, shown].min()} to {weights[:, shown].max()}")
    high = weights[:, shown].max(initial=0) or 1.0
    columns = min(heads, COLUMNS)
    rows = -(-heads // columns)
    figure = new_figure(1.6 + columns * _inches(Tk, columns), 1.3 + rows * _inches(Tq, columns))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[heads:]:
        axes.set_axis_off()
    for k, (axes, of_head) in enumerate(zip(grid.flat, weights)):
        image = heat_map(axes, of_head, shown, 0, high)
        axes.invert_yaxis()
        hatch_columns(axes, keys)
        hatch_rows(axes, queries)
        axes.set(xlabel="key, the step looked at" if k // columns == rows - 1 or k + columns >= heads else "",
                 ylabel="query, the step that looks" if k % columns == 0 else "", title=titles[k] if titles else "")
        _ticks(axes, *labels)
    figure.colorbar(image, ax=grid, label="weight", pad=0.01)
    legend_below(figure, [] if shown.all() else [masked_patch("masked step")])
    return figure


def _inches(length, columns):
    """Of a panel's side: room for labels, within what a page holds."""
    return float(np.clip(0.3 * length, 2.2, 7 if columns == 1 else 3.5))


def _ticks(axes, key_labels, query_labels):
    whole_numbers(axes.xaxis, axes.yaxis)
    if key_labels:
        upright = max(map(len, key_labels)) <= 2
        axes.set_xticks(range(len(key_labels)), key_labels, rotation=0 if upright else 90)
    if query_labels:
        axes.set_yticks(range(len(query_labels)), query_labels)
