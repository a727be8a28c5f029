"""What is needed to read a sequence in segments, by whatever of ``Layer``'s verbs: checked arrays, and states as trees.

A state is a tuple of arrays (...,B,width), of other states, or of nothing: ((h, c), ()) for an LSTM and a Linear.
"""
import numpy as np

from ..arguments import check_mask, describe, floats
from .layer import Layer


def on_host(name, model):
    """``model``, if it is a Layer that can read a sequence in segments, and computes on the host."""
    if not isinstance(model, Layer):
        raise TypeError(f"{name}: expected a Layer, got {describe(model)}")
    if model.backend == "gpu":
        raise ValueError(f"{name}: expected one with backend='cpu' or 'reference', got 'gpu'")
    model.start(1)
    return model


def sequences_of(model, x, mask):
    """x (B,T,D), or integers (B,T) for a model of categories, and mask (B,T) or None, checked -> x."""
    if model.takes_categories:
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu" or x.ndim != 2:
            raise TypeError(f"x: expected integers (B,T), got {describe(x)}")
    else:
        x = floats("x", x, model.dtype, (None, None, getattr(model, "input_size", None)), ("B", "T", "D"))
    if mask is not None:
        check_mask(mask, isinstance(mask, np.ndarray), *x.shape[:2])
    return x


def part_of(array, part):
    """array[:, part], or None for None."""
    return None if array is None else array[:, part]


def put(whole, T, part, piece):
    """whole[:, part] = piece (B,steps,...), in a new array of T steps where there is none."""
    if whole is None:
        whole = np.empty((len(piece), T, *piece.shape[2:]), piece.dtype)
    whole[:, part] = piece
    return whole


def leaves(state):
    """The arrays of a state, a list."""
    return [array for part in state for array in (leaves(part) if isinstance(part, tuple) else [part])]


def each(function, state):
    """function(array) in place of every array of a state."""
    return tuple(each(function, part) if isinstance(part, tuple) else function(part) for part in state)
