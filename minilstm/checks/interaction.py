"""Can a model let a condition change what a sequence means?  Or does it only add the one to the other?

A function f of a sequence x and a condition c is additive, f(x,c) = g(x) + k(c), if and only if

    f(x1,c1) - f(x1,c2) - f(x2,c1) + f(x2,c2) = 0            for all x1, x2, c1, c2

(the interaction of a two-way analysis of variance).  Such a model can learn a constant offset for each condition, but
not "add or subtract, as the condition says", however long it is trained: late fusion with one linear layer is one.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe

NEGLIGIBLE = 1e-9           # of the effects of x and c alone: above it a float64 model does combine them


class Interaction(NamedTuple):
    """The largest changes of a model's output."""
    of_x: float             # by another sequence
    of_condition: float     # by another condition
    of_both: float          # what the condition changes in the effect of the sequence

    @property
    def combines(self):
        """Does what x does depend on the condition?"""
        return bool(self.of_both > NEGLIGIBLE * max(self.of_x, self.of_condition))

    def __str__(self):
        verdict = "combines the two" if self.combines else "adds the two, and cannot combine them"
        return (f"sequence {self.of_x:.1e}, condition {self.of_condition:.1e}, interaction {self.of_both:.1e}: "
                f"the model {verdict}")


def interaction(f, x1, x2, c1, c2):
    """f(x1,c1) - f(x1,c2) - f(x2,c1) + f(x2,c2), for any function f(x, c) -> array."""
    return f(x1, c1) - f(x1, c2) - f(x2, c1) + f(x2, c2)


def check_interaction(model, x, condition, mask=None):
    """Compare each sequence and condition of a batch with those of the row before -> Interaction; print it.

    model       a Layer that takes a condition, with random or trained weights; it is not changed, and computes in
                float64
    x           (B,T,...), condition (B,...), B > 1: rows that differ
    mask        (B,T) bool or None.  Steps are compared where both sequences are real

    Raises ValueError where there are no two rows to compare, or in which nothing differs, or where an output is not
    finite, or for a model that takes no condition; TypeError for other kinds of array."""
    if not model.takes_condition:
        raise ValueError(f"model: expected one that takes a condition, got {type(model).__name__}")
    for name, array in (("x", x), ("condition", condition)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name}: expected a NumPy array, got {describe(array)}")
        if len(array) < 2 or len(array) != len(x):
            raise ValueError(f"{name}: expected B > 1 rows, in x as in condition, got {describe(array)}")
        if np.array_equal(array, np.roll(array, 1, axis=0), equal_nan=array.dtype.kind == "f"):
            raise ValueError(f"{name}: expected rows that differ, got {len(array)} times the same: that says nothing")
    model = model.astype("float64")
    x, condition = (array.astype("float64") if array.dtype.kind == "f" else array for array in (x, condition))
    mask = np.ones(x.shape[:2], bool) if mask is None else mask

    def f(sequences, conditions):
        out, _ = model.forward(sequences[0], mask=sequences[1], condition=conditions)
        return out[0] if isinstance(out, tuple) else out

    one, other = (x, mask), (np.roll(x, 1, axis=0), np.roll(mask, 1, axis=0))
    c1, c2 = condition, np.roll(condition, 1, axis=0)
    both = one[1] & other[1]
    y = f(one, c1)
    counts = both if y.ndim == 3 else both.any(axis=1)
    if not counts.any():
        raise ValueError("mask: expected two neighbouring rows with a real step in common, got none")
    changes = f(other, c1) - y, f(one, c2) - y, interaction(f, one, other, c1, c2)
    if not all(np.isfinite(change[counts]).all() for change in changes):
        raise ValueError("x, condition: expected numbers for which the model's output is finite, got others")
    return Interaction(*(float(np.abs(change[counts]).max()) for change in changes))
