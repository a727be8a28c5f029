"""Sequences of different lengths to one batch, and back.

A batch is an array, and an array has one T for all its rows: shorter sequences are filled up with steps that are not
real.  The mask says which are, and it is made from the lengths, never from the numbers: a real step may be all zeros,
and a made-up one must not count as a measurement of zero.  What stands in the made-up steps is 0, and nobody reads it.

    B  batch      T  time steps      D  input features      T_i  the length of sequence i
    x (B,T,D)     mask (B,T) bool, True = a real step
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, natural, one_of
from .shapes import array, batch_of, lengths_of, listed, names_of, sequences_of, time_mask

SIDES = ("right", "left")


class Padded(NamedTuple):
    """A batch.  ``x, mask = pad(sequences)``"""
    x: np.ndarray           # (B,T,D), 0 where not real
    mask: np.ndarray        # (B,T) bool, True = a real step


def pad(sequences, *, side="right", length=None):
    """sequences, a list of (T_i,D) or (T_i,) float arrays -> Padded(x (B,T,D), mask (B,T)), in the dtype they have.

    side     where the made-up steps stand: "right", after the sequence, or "left", before it
    length   T; None: that of the longest sequence

    (T_i,) stands for one feature, D = 1.  A sequence may have no step at all, as (0,D) or (0,).

    Raises TypeError for anything but float32 or float64, or both in one list: a cast to integers would make 0 of 0.7.
    Raises ValueError for sequences of different D, and for one longer than ``length``: nothing is cut off here."""
    one_of("side", side, SIDES)
    sequences = listed("sequences", sequences)
    columns = sequences_of(names_of("sequences", sequences), sequences)
    lengths = np.array([len(column) for column in columns])
    T = int(lengths.max()) if length is None else natural("length", length)
    if lengths.max() > T:
        row = int(np.argmax(lengths > T))
        raise ValueError(f"sequences[{row}]: expected {T} steps or less, as length says, got {lengths[row]}; "
                         f"truncate(sequences, {T}, keep='start') or keep='end' cuts, and says which end stays")
    mask = lengths_to_mask(lengths, T, side=side)
    x = np.zeros((*mask.shape, columns[0].shape[1]), columns[0].dtype)
    x[mask] = np.concatenate(columns)           # row by row, and in each row from its first real step to its last
    return Padded(x, mask)


def unpad(x, mask):
    """The reverse of ``pad``: x (B,T,D), mask (B,T) -> a list of B arrays (T_i,D), the real steps of each row in order.

    Any mask will do, with padding left or right or holes: pad(unpad(x, mask)) moves all made-up steps to the right.

    Raises TypeError or ValueError that says which argument does not fit."""
    B, T, _ = batch_of("x", x).shape
    return [steps[real] for steps, real in zip(x, time_mask(mask, B, T))]


def truncate(sequences, length, *, keep):
    """A list of arrays (T_i,...) -> a list of copies with ``length`` steps at most.

    keep     "start": the first steps stay; "end": the last ones.  There is no default: libraries differ, and which end
             matters only you know

    Raises TypeError or ValueError that says which argument does not fit."""
    length = natural("length", length)
    one_of("keep", keep, ("start", "end"))
    kept = []
    for name, sequence in zip(names_of("sequences", listed("sequences", sequences)), sequences):
        if array(name, sequence).ndim == 0:
            raise ValueError(f"{name}: expected (T,D) or (T,), got {describe(sequence)}")
        first = max(0, len(sequence) - length) if keep == "end" else 0
        kept.append(sequence[first:first + length].copy())
    return kept


def lengths_to_mask(lengths, T=None, *, side="right"):
    """lengths (B,) integers -> mask (B,T) bool: ``length`` real steps in each row, and the others on their ``side``.

    T is the greatest length if None.

    Raises TypeError or ValueError for lengths that are no integers, or not from 0 to T."""
    one_of("side", side, SIDES)
    lengths = lengths_of(lengths)
    T = int(lengths.max(initial=0)) if T is None else natural("T", T)
    if (lengths > T).any():
        row = int(np.argmax(lengths > T))
        raise ValueError(f"lengths: expected values from 0 to T={T}, got {lengths[row]} in row {row}")
    steps = np.arange(T) if side == "right" else np.arange(T)[::-1]
    return steps < lengths[:, None]


def mask_to_lengths(mask):
    """mask (B,T) bool, padded on the right -> lengths (B,).

    Raises TypeError or ValueError for what is no mask, and ValueError where a length cannot say what the mask says: a
    masked step with a real one after it."""
    if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype != bool:
        raise TypeError(f"mask: expected a bool array (B,T), True = a real step, got {describe(mask)}")
    lengths = mask.sum(axis=1)
    hole = ~mask & (np.arange(mask.shape[1]) < lengths[:, None])        # what would be real if padded on the right
    if hole.any():
        row = int(np.argmax(hole.any(axis=1)))
        left = mask[row, mask.shape[1] - lengths[row]:].all()
        step = int(np.argmax(hole[row]))
        what = "is padded on the left" if left else f"has a hole at step {step}"
        raise ValueError(f"mask: expected padding on the right, got row {row}, which {what}: a length cannot say that. "
                         "Pass mask= instead, which may have any pattern, or pad(unpad(x, mask)), padded on the right")
    return lengths
