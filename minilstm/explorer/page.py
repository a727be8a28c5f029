"""A layer's numbers as a page to walk through: one HTML file, which needs nothing but a browser."""
import html
import importlib.resources
import json
import os
from typing import NamedTuple

import numpy as np

from ..arguments import describe, mask_from_lengths, natural
from ..files import write_whole
from ..training.losses import mean_squared_error
from .runs import recurrent_layers, run
from .views import rounded, view_of

UNITS, STEPS = 32, 100          # shown if nobody asks for others


def explore(model, x, mask=None, *, path="explorer.html", target=None, loss=None, dy=None, row=0, units=None,
            steps=None, place=None, layer=None, direction=None, **options):
    """Write a page that shows one sequence's way through the recurrent layers of a model: a slider over time, every
    gate and state, the equations with their numbers, forward and, with a target or dy, backward.  -> the path.

    The numbers and the lines of code are those of ``trace``, taken from the running code by a float64 copy of the
    model; the page only displays them.  It is one file without links: a browser opens it from the disk.

    model           LSTM, GRU or RNN, or a Sequential in which some stand
    x, mask         as for ``model.forward``; in the dtype of the model or in float64
    path            of the file; what was there is replaced, when the new one is complete
    target, loss    the gradients of loss(y, target, mask), as ``fit`` has it; mean_squared_error if None
    dy              or these: the gradient of y, as for ``model.backward``
    row             which sequence of the batch
    units           which units of a layer to show, such as range(32, 64); the first 32 if None
    steps           which time steps to show, such as range(100, 200); the first 100 if None.  The page says where there
                    are more units or steps than it shows; the gradients are those of all of them.  A layer with so
                    many, forward and backward, takes 1.6 MB of the file
    place           in a Sequential, which recurrent layer, as ``state_dict`` counts them: 0, or "2.1" inside another
                    one; all of them if None, and the page has a menu.  So for the next two
    layer           which layer of a stack
    direction       0, or 1 for the backward direction of a bidirectional layer
    options         for ``model.forward``: h0, c0, lengths, masked_output of a recurrent layer

    Raises TypeError or ValueError for what does not fit, as the model's forward and backward do, also for a layer with
    zoneout; OSError where the file cannot be written."""
    places = _checked_model(model)
    path = os.fsdecode(path)
    if target is not None and dy is not None:
        raise ValueError("target, dy: expected at most one of the two, got both")
    if loss is not None and target is None:
        raise ValueError("loss: expected None without a target, got a loss")
    if own := sorted(options.keys() & {"training", "draw", "cache"}):
        raise ValueError(f"{', '.join(own)}: expected none of them, since a model is shown as it is outside training")
    B, T = _checked_sizes(x)
    if natural("row", row) >= B:
        raise ValueError(f"row: expected less than B={B}, got {row}")
    if options.get("lengths") is not None and mask is None:
        mask = mask_from_lengths(options.pop("lengths"), B, T)
    shown = indices("steps", steps, T, STEPS)
    chosen = [(which, net, indices("units", units, net.hidden_size, UNITS))
              for which, net in _chosen(places, place, layer, direction)]
    loss = loss or mean_squared_error
    done = run(model, x, mask, options, target, loss, dy, row)
    views = [view_of(done.uses[which.place], which.layer, which.direction, picked, shown, _name(which, net))
             for which, net, picked in chosen]
    gradient = getattr(loss, "__name__", "loss") if target is not None else "dy" if dy is not None else None
    [value] = [None] if done.loss is None else rounded(np.array([done.loss]))           # "nan" where it is none
    write_whole(path, page({"model": repr(model), "row": int(row), "B": B, "T": T, "loss": value,
                            "gradient": gradient, "views": views}).encode())
    return path


class Which(NamedTuple):
    """A layer in one direction, of those in a model."""
    place: str
    layer: int
    direction: int


def _chosen(places, place, layer, direction):
    """-> [(Which, recurrent layer)], all that is not excluded."""
    found = [(Which(at, number, turn), net) for at, net in places
             for number in range(net.num_layers) for turn in range(len(net.directions))]
    wanted = {"place": None if place is None else str(place), "layer": layer, "direction": direction}
    for name, value in wanted.items():
        known = sorted({getattr(which, name) for which, _ in found})
        if value is not None and value not in known:
            raise ValueError(f"{name}: expected one of {known}, got {value!r}")
        found = [(which, net) for which, net in found if value is None or getattr(which, name) == value]
    return found


def _checked_sizes(x):
    """-> B, T."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x: expected a NumPy array (B,T,D), got {describe(x)}")
    if x.ndim < 2 or 0 in x.shape[:2]:
        raise ValueError(f"x: expected (B,T,D) with B > 0 and T > 0, got {describe(x)}")
    return x.shape[:2]


def _checked_model(model):
    """-> its recurrent layers, [(place, layer)]."""
    places = recurrent_layers(model)
    if not places:
        raise TypeError(f"model: expected an LSTM, GRU or RNN, or a Sequential with one in it, got {_kind(model)}")
    for place, layer in places:
        if any(layer.noise.zoneout.values()):
            raise ValueError(f"model: expected layers without zoneout, got {layer.noise.zoneout}"
                             f"{f' in place {place}' if place else ''}")
    return places


def _kind(model):
    inside = getattr(model, "layers", ())
    return type(model).__name__ + (f" of {', '.join(type(layer).__name__ for layer in inside)}" if inside else "")


def indices(name, wanted, count, most):
    """Which of 0 ... count - 1 to show -> array, rising; the first ``most`` for None."""
    if wanted is None:
        return np.arange(min(count, most))
    try:
        found = [natural(name, number) for number in wanted]
    except (TypeError, ValueError):
        found = []
    if not found or sorted(set(found)) != found or found[-1] >= count:
        raise ValueError(f"{name}: expected numbers from 0 to {count - 1}, rising, such as range({min(count, most)}), "
                         f"got {wanted!r}")
    return np.array(found)


def _name(which, net):
    words = [type(net).__name__ + (f" in place {which.place}" if which.place else "")]
    if net.num_layers > 1:
        words.append(f"layer {which.layer}")
    if len(net.directions) > 1:
        words.append("backward in time" if which.direction else "forward in time")
    return ", ".join(words)


def page(data):
    """The page as text, with everything in it."""
    def part(name):
        return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")

    cells = dict.fromkeys(view["cell"] for view in data["views"])               # each once, in the order of the model
    text = part("page.html").replace("{{title}}", html.escape(f"{' and '.join(cells)}, step by step"))
    for name in ("page.css", "strips.js", "lines.js", "page.js"):
        text = text.replace(f"{{{{{name}}}}}", part(name))
    numbers = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")      # no </script>
    return text.replace("{{data}}", numbers)
