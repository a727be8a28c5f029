"""Checks of what users pass in.  Every message names the argument, what came and what was expected.

Nothing is cast and nothing is guessed: a float64 array for a float32 layer is an error that says how to convert it.
"""
import math
import numbers

import numpy as np

FLOATS = ("float32", "float64")
COMPLEX = ("complex64", "complex128")


def describe(value):
    """What came, in a few words: dtype and shape of an array, or else the type."""
    if hasattr(value, "copy_to_host"):
        return f"{value.dtype} {value.shape} on the GPU"
    return f"{value.dtype} {value.shape}" if _plain(value) else type(value).__name__


def _plain(value):
    return isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray)


def positive(name, value):
    """A positive integer (a NumPy one too, a bool not) -> int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {_short(value)}")
    return int(value)


def positive_number(name, value, zero=False):
    """A finite number above 0 (a bool is none), or with ``zero`` 0 itself -> float."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf or value == 0 and not zero:
        raise ValueError(f"{name}: expected a {'number, 0 or more' if zero else 'positive number'}, got "
                         f"{_short(value)}")
    return float(value)


def natural(name, value):
    """An integer, 0 or more -> int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"{name}: expected an integer, 0 or more, got {_short(value)}")
    return int(value)


def _short(value):
    return describe(value) if isinstance(value, np.ndarray) else repr(value)


def probability(name, value):
    """A number from 0 to less than 1 -> float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"{name}: expected a probability, 0 or more and less than 1, got {value!r}")
    return float(value)


def instance(name, value, kind, example):
    """``value``, if it is a ``kind``.  example: how one is made, for the message"""
    if not isinstance(value, kind):
        came = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
        raise TypeError(f"{name}: expected one such as {example}, got {came}")
    return value


def one_of(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def dtype_of(name, value, choices=FLOATS):
    """A dtype, or its name -> the np.dtype, one of ``choices``."""
    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError, SyntaxError):        # NumPy parses strings such as "f4,i4"
        dtype = None
    if value is None or dtype is None or dtype.name not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return dtype


def flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def floats(name, value, dtype, shape, letters, kinds="a plain NumPy array"):
    """An array of just this dtype and shape -> the same, or a copy if it is not contiguous or not writable.

    ``letters`` names the axes, as in "(B,T,D)"; an axis given as None may have any length, and a first one given as ...
    may be any number of axes.  kinds: of arrays that the caller takes, for messages."""
    if not _plain(value):
        cure = f"; np.asarray({name}) copies it to the host" if hasattr(value, "copy_to_host") else ""
        raise TypeError(f"{name}: expected {kinds} {dtype} {_wanted(shape, letters)}, got {describe(value)}{cure}")
    check_floats(name, value, dtype, shape, letters)
    return value if value.flags.c_contiguous and value.flags.writeable else np.array(value, order="C")


def check_floats(name, value, dtype, shape, letters):
    """Raise unless value, an array wherever it is, has this dtype and shape, which are as for ``floats``."""
    known = shape[1:] if shape[:1] == (...,) else shape
    fits = value.ndim == len(shape) or known is not shape and value.ndim >= len(known)
    last = value.shape[value.ndim - len(known):]
    if fits and value.dtype == dtype and all(n is None or n == m for n, m in zip(known, last)):
        return
    wanted = _wanted(shape, letters)
    if value.dtype != dtype:
        cure = (f"; nothing is cast silently: pass {name}.astype('{dtype}'), or build the layer with another dtype"
                if value.dtype.kind in "fiub" and _plain(value) else "")
        raise TypeError(f"{name}: expected {dtype} {wanted}, got {describe(value)}{cure}")
    cure = ("; x[None] makes one sequence (T, D) a batch, x[:, :, None] gives (B, T) numbers a feature axis"
            if name == "x" and (value.ndim, len(shape)) == (2, 3) else "")
    raise ValueError(f"{name}: expected {dtype} {wanted}, got {describe(value)}{cure}")


def _wanted(shape, letters):
    named = (letter if n in (None, ...) else f"{letter}={n}" for letter, n in zip(letters, shape))
    return "(" + ", ".join(named) + ")"


def mask_of(x, mask, lengths):
    """The (B,T) bool mask of x (B,T,D), from a mask, from lengths, or all True."""
    B, T, _ = x.shape
    if mask is not None and lengths is not None:
        raise ValueError("mask, lengths: expected at most one of the two, got both")
    if lengths is not None:
        return mask_from_lengths(lengths, B, T)
    if mask is None:
        return np.ones((B, T), bool)
    check_mask(mask, isinstance(mask, np.ndarray), B, T)
    return mask.copy()


def check_mask(mask, known, B, T):
    """Raise unless mask is bool (B,T).  known: is it an array at all?"""
    if not known or mask.dtype != bool:
        raise TypeError(f"mask: expected a bool array (B={B}, T={T}), True = a real step, got {describe(mask)}; "
                        f"{cure_of_mask(mask)}")
    if mask.shape != (B, T):
        cure = "; x may be (T,B,D): sequences.swap_time_batch(x) puts the batch first" if mask.shape == (T, B) else ""
        raise ValueError(f"mask: expected shape (B={B}, T={T}), as x has, got {mask.shape}{cure}")


def cure_of_mask(mask, of_sequences=False):
    """For one that is no array of bool.  of_sequences: it may be (B,)"""
    if isinstance(mask, np.ndarray) and mask.ndim == 1 and not of_sequences:
        return "sequences.lengths_to_mask(lengths, T) makes one of lengths"
    return "np.array(mask, dtype=bool) makes one where non-zero means real"


def mask_from_lengths(lengths, B, T):
    """lengths (B,) integers from 0 to T: the first ``length`` steps of a row are real -> (B,T) bool."""
    try:
        lengths = np.asarray(lengths)
    except ValueError:
        raise ValueError(f"lengths: expected shape (B={B},), got rows of different lengths") from None
    if lengths.dtype.kind not in "iu" and lengths.size:
        raise TypeError(f"lengths: expected integers (B={B},), got {describe(lengths)}")
    if lengths.shape != (B,):
        raise ValueError(f"lengths: expected shape (B={B},), got {lengths.shape}")
    for row, length in enumerate(lengths):
        if not 0 <= length <= T:
            raise ValueError(f"lengths: expected values from 0 to T={T}, got {length} in row {row}")
    return np.arange(T) < lengths[:, None]
