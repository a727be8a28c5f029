"""Checks of shapes and dtypes, with a word on what to call instead where a mistake is a classic one."""
import numpy as np

from ..arguments import FLOATS, describe, mask_of

DTYPES = tuple(np.dtype(name) for name in FLOATS)


def array(name, value):
    """A NumPy array -> the same.  One with a mask of its own is refused: the mask would be lost on the way."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a plain NumPy array, got a MaskedArray: pass {name}.data, and "
                        f"~np.ma.getmaskarray({name}) as what was observed")
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {describe(value)}; "
                        f"np.array({name}, dtype='float32') makes one")
    return value


def float_array(name, value):
    """An array of float32 or float64 -> the same."""
    if array(name, value).dtype not in DTYPES:
        raise TypeError(f"{name}: expected {' or '.join(FLOATS)}, got {describe(value)}; nothing is cast silently: "
                        f"pass {name}.astype('float32')")
    return value


def float_like(name, value, x):
    """Floats of the dtype that x has -> the same."""
    if float_array(name, value).dtype != x.dtype:
        raise TypeError(f"{name}: expected {x.dtype}, as x has, got {describe(value)}; nothing is cast silently: "
                        f"pass {name}.astype('{x.dtype}')")
    return value


def batch_of(name, value):
    """Floats (B,T,D) -> the same."""
    if float_array(name, value).ndim != 3:
        cure = (f": {name}[None] makes one sequence (T, D) a batch, {name}[:, :, None] gives (B, T) numbers a feature "
                "axis" if value.ndim == 2 else "")
        raise ValueError(f"{name}: expected three axes, (B,T,D), got {describe(value)}{cure}")
    return value


def sequences_of(names, arrays):
    """Arrays (T_i,D), or (T_i,) with D = 1, of one float dtype -> a list of arrays (T_i,D)."""
    columns = []
    for name, sequence in zip(names, arrays):
        if float_array(name, sequence).ndim not in (1, 2):
            raise ValueError(f"{name}: expected (T,D) or (T,), got {describe(sequence)}")
        columns.append(sequence[:, None] if sequence.ndim == 1 else sequence)
        if sequence.dtype != arrays[0].dtype:
            raise TypeError(f"{name}: expected {arrays[0].dtype}, as {names[0]} is, got {describe(sequence)}; nothing "
                            f"is cast silently: pass {name}.astype('{arrays[0].dtype}')")
        if columns[-1].shape[1] != columns[0].shape[1]:
            turned = sequence.ndim == arrays[0].ndim == 2 and len(sequence) == len(arrays[0])
            cure = "; if time is the last axis of yours, pass each sequence's .T" if turned else ""
            raise ValueError(f"{name}: expected D={columns[0].shape[1]} features a step, as {names[0]} has, got "
                             f"{describe(sequence)}{cure}")
    return columns


def names_of(name, many):
    """The names of the arrays in a list, as a user writes them."""
    return [f"{name}[{k}]" for k in range(len(many))]


def listed(name, value):
    """A list or tuple that is not empty -> a list."""
    if not isinstance(value, (list, tuple)):
        cure = f"; {name} (B,T,D) is a batch already" if isinstance(value, np.ndarray) and value.ndim == 3 else ""
        raise TypeError(f"{name}: expected a list of arrays, got {describe(value)}{cure}")
    if not value:
        raise ValueError(f"{name}: expected one array or more, got an empty {type(value).__name__}")
    return list(value)


def lengths_of(lengths):
    """Integers (B,), 0 or more -> the same as an array."""
    try:
        found = np.asarray(lengths)
    except ValueError:
        raise ValueError("lengths: expected one axis, (B,), got rows of different lengths") from None
    if found.ndim != 1:
        raise ValueError(f"lengths: expected one axis, (B,), got {describe(found)}")
    if found.dtype.kind not in "iu" and found.size:
        raise TypeError(f"lengths: expected integers (B,), got {describe(found)}")
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        raise ValueError(f"lengths: expected 0 or more, got {found[row]} in row {row}")
    return found.astype(np.int64)


def time_mask(mask, B, T):
    """The mask (B,T), or all True for None -> (B,T) bool."""
    if isinstance(mask, np.ndarray) and mask.shape == (T, B) != (B, T):
        raise ValueError(f"mask: expected shape (B={B}, T={T}), got {mask.shape}: time comes first in one of the two "
                         "arrays; swap_time_batch puts the batch first")
    return mask_of(np.empty((B, T, 0)), mask, None)


def observed_array(observed, shape):
    """bool (B,T,D), True = was measured -> the same."""
    if not isinstance(observed, np.ndarray) or observed.dtype != bool:
        raise TypeError(f"observed: expected a bool array {shape}, True = was measured, got {describe(observed)}; "
                        "np.array(observed, dtype=bool) makes one where non-zero means measured")
    if observed.shape != shape:
        cure = ("; what holds for whole steps is a mask: pass it as mask=" if observed.shape == shape[:2] else "")
        raise ValueError(f"observed: expected shape {shape}, got {observed.shape}{cure}")
    return observed
