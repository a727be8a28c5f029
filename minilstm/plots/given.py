"""Checks of the numbers that are drawn as they are."""
import numpy as np

from ..arguments import describe


def numbers(name, value, shape, letters, where=None):
    """Finite numbers of this shape, in an array of any library or a list -> float64.  An axis given as None may have
    any length; where: which of them have to be finite, a bool array; None: all."""
    array = numbers_or_nan(name, value, shape, letters)
    if not np.isfinite(array if where is None else array[where]).all():
        place = "" if where is None else " wherever the mask is True"
        raise ValueError(f"{name}: expected finite numbers{place}, got NaN or infinity in {describe(array)}")
    return array


def numbers_or_nan(name, value, shape, letters):
    """Likewise, but any of them may be NaN or infinite."""
    try:
        array = np.asarray(value)
    except ValueError:                                              # rows of different lengths
        array = np.array(None)
    wanted = ", ".join(letter if n is None else f"{letter}={n}" for n, letter in zip(shape, letters))
    wanted = f"numbers ({wanted}{',' * (len(shape) == 1)})"
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected {wanted}, got {describe(value)}")
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape)) or not array.size:
        raise ValueError(f"{name}: expected {wanted}, got {describe(array)}")
    return array.astype("float64")


def mask_of(name, mask, length, letter):
    """A mask (length,) bool, or None for True everywhere -> the mask."""
    if mask is None:
        return np.ones(length, bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool:
        raise TypeError(f"{name}: expected a bool array ({letter}={length},), True = real, got {describe(mask)}")
    if mask.shape != (length,):
        raise ValueError(f"{name}: expected shape ({letter}={length},), got {mask.shape}")
    return mask


def texts(name, labels, length, letter):
    """A list of texts, or of what can be one -> list of str; None for None."""
    if labels is None:
        return None
    if isinstance(labels, str) or not hasattr(labels, "__len__"):
        raise TypeError(f"{name}: expected a list of {letter}={length} texts, got {describe(labels)}")
    if len(labels) != length:
        raise ValueError(f"{name}: expected {letter}={length} texts, got {len(labels)}")
    return [str(label) for label in labels]
