"""What all pictures share: lines that can be told apart, how masked steps look, names of gates."""
import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

BLACK, GREY = "#000000", "#777777"
LINES = [                                           # Okabe and Ito's colours but for yellow, too pale on white
    {"color": "#0072B2", "linestyle": (0, (7, 2))},
    {"color": "#D55E00", "linestyle": (0, (3, 1.2))},
    {"color": "#009E73", "linestyle": (0, (6, 1.5, 1, 1.5))},
    {"color": "#E69F00", "linestyle": (0, (1, 1))},
    {"color": "#CC79A7", "linestyle": (0, (4, 1.2, 1, 1.2, 1, 1.2))},
    {"color": "#56B4E9", "linestyle": (0, (10, 1.5, 2, 1.5))},
    {"color": GREY, "linestyle": (0, (2, 3))},
]
HANDLE = 3.6                                        # length of a line in a legend, in letters
MARGIN = 0.15                                       # beside a legend, in inches
COLOURS = "cividis"                                 # of heat maps: rises from dark to light, in grey as well
MASKED = {"facecolor": "white", "edgecolor": GREY, "hatch": "////", "linewidth": 0, "zorder": 0.5}
NAMES = {"i": "input gate", "f": "forget gate", "g": "candidate", "o": "output gate", "r": "reset gate",
         "z": "update gate", "n": "candidate", "k": "covariate's gate", "s": "covariate's candidate", "h": "output",
         "c": "memory"}


def new_figure(width, height):
    """In inches."""
    return Figure(figsize=(width, height), layout="constrained")


def width_for(T):
    """Of a picture with T steps from left to right, in inches."""
    return float(np.clip(4 + 0.09 * T, 6, 14))


def check_steps(real):
    """Is there anything to draw?"""
    if not len(real):
        raise ValueError("x: expected at least one step, got T=0")


def hatch_columns(axes, real):
    """Hatch the steps that are not real; each is one unit wide, around its number."""
    for first, stop in _runs(~real):
        hatch_span(axes, first - 0.5, stop - 0.5)


def hatch_span(axes, left, right):
    axes.axvspan(left, right, **MASKED)


def hatch_rows(axes, real):
    """As ``hatch_columns``, from below to above."""
    for first, stop in _runs(~real):
        axes.axhspan(first - 0.5, stop - 0.5, **MASKED)


def _runs(where):
    """The places where a bool array is True, as pairs (first, the one after the last)."""
    return np.flatnonzero(np.diff(where, prepend=False, append=False)).reshape(-1, 2)


def masked_patch(label):
    """For a legend."""
    return Patch(**MASKED, label=label)


def legend_below(figure, handles, columns=4):
    """In as many columns, up to this number, as the figure is wide enough for."""
    if handles:
        widths = [_entry_width(handle.get_label()) for handle in handles]
        fitting = [n for n in range(1, min(columns, len(handles)) + 1)
                   if sum(map(max, _columns(widths, n))) < figure.get_figwidth() - 2 * MARGIN]
        figure.legend(handles=handles, loc="outside lower center", ncols=max(fitting, default=1), frameon=False,
                      handlelength=HANDLE)


def _columns(entries, n):
    """As a legend has them: from above to below, the longer columns first.  n: no more than there are entries"""
    return [part.tolist() for part in np.array_split(np.array(entries), n)]


def _entry_width(label):
    """Of a line, its text and what is left free beside them, in inches."""
    size = FontProperties(size=rcParams["legend.fontsize"]).get_size_in_points()
    text = TextPath((0, 0), label, size=size).get_extents().width
    free = rcParams["legend.handletextpad"] + rcParams["legend.columnspacing"]
    return (text + (HANDLE + free) * size) / 72


def whole_numbers(*axes):
    """Of an axis of steps or units: ticks at whole numbers only."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def heat_map(axes, values, shown, low, high):
    """values (rows, columns), the first row at the bottom; shown: the same shape, bool.  -> the image"""
    return axes.imshow(np.ma.masked_array(values, ~shown), cmap=COLOURS, vmin=low, vmax=high, origin="lower",
                       aspect="auto", interpolation="nearest")
