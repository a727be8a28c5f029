"""Batches as dicts of arrays by name: how the laws of masking take them apart, pad, reverse and compare them.

    B  batch     T  time steps     F  features     mask (B,T) bool, True = a real step
"""
import numpy as np

STEPS = {"x", "y", "dx", "dy"}              # names of arrays (B,T,...)
ROWS = {"pooled", "dpooled"}                # (B,F): one result for a row; all others, states, are (layers,dirs,B,...)
WEIGHT = "d "                               # begins the name of a weight's gradient, which has no batch axis


def draw(model, rng, least_B=1, least_T=1):
    """A random batch and its mask, with 0 in the padding of x and dy, and a real step in every row."""
    B, T = rng.integers(least_B, 6), rng.integers(least_T, 8)
    mask = np.arange(T) < rng.integers(1, T + 1, B)[:, None]
    if model.any_mask:
        mask = rng.permuted(mask, axis=1) if rng.random() < 0.5 else mask
    return clean(model.draw(rng, B, T), mask), mask


def clean(batch, mask):
    """0 in the padding of x and dy."""
    return {name: np.where(mask[:, :, None], a, a.dtype.type(0)) if name in STEPS else a for name, a in batch.items()}


def padded(batch, mask, before, behind):
    """More padded steps, with 0 in them -> batch, mask."""
    def pad(a):
        return np.pad(a, ((0, 0), (before, behind)) + ((0, 0),) * (a.ndim - 2))
    return {name: pad(a) if name in STEPS else a for name, a in batch.items()}, pad(mask)


def batch_axis(name):
    return 0 if name in STEPS | ROWS else 2


def along(name, values, array):
    """values (B,), in a shape that goes with the batch axis of an array."""
    return values.reshape([-1 if axis == batch_axis(name) else 1 for axis in range(array.ndim)])


def rows(arrays, which):
    """Some rows of a batch, by number or as bools; gradients of weights, which have no rows, are left out."""
    which = np.flatnonzero(which) if np.asarray(which).dtype == bool else which
    return {name: np.take(a, which, axis=batch_axis(name)) for name, a in arrays.items() if not name.startswith(WEIGHT)}


def steps(arrays, which):
    """Some steps of a batch: a slice, or bools (T,)."""
    return {name: a[:, which] if name in STEPS else a for name, a in arrays.items()}


def real(arrays, mask):
    """Arrays of steps reduced to the real ones, row after row: (n,F)."""
    return {name: a[mask] if name in STEPS else a for name, a in arrays.items()}


def of_weights(arrays):
    return {name: a for name, a in arrays.items() if name.startswith(WEIGHT)}


def states(arrays, end):
    """h and c, of the arrays h_n and c_n with the end "_n"."""
    return {name.removesuffix(end): a for name, a in arrays.items() if name.endswith(end) and not name.startswith("d")}


def reversed_rows(arrays, mask):
    """The real steps of each row in reversed order, in the places of the real steps."""
    found = dict(arrays)
    for name in STEPS & arrays.keys():
        found[name] = arrays[name].copy()
        for b, real_steps in enumerate(mask):
            found[name][b, real_steps] = arrays[name][b, real_steps][::-1]
    return found


def differences(found, expected):
    """dict name -> deviation; both have the same arrays."""
    if found.keys() != expected.keys():
        raise ValueError(f"found: expected the arrays {sorted(expected)}, got {sorted(found)}")
    return {name: deviation(found[name], expected[name]) for name in expected}


def deviation(found, expected):
    """The largest difference, as a part of the largest number expected where that is above 1; 0 for the same bits and
    for nothing else; NaN where a number is not finite."""
    if found.shape != expected.shape:
        raise ValueError(f"found: expected shape {expected.shape}, got {found.shape}")
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return np.nan
    if found.tobytes() == expected.tobytes():
        return 0.0
    with np.errstate(over="ignore"):
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1)
    return max(float(error), 5e-324)                                # -0 in place of 0 has an error of 0, but other bits


def worst(*deviations):
    """The largest deviation of each array, NaN before all."""
    names = dict.fromkeys(name for some in deviations for name in some)
    return {name: float(np.max([some[name] for some in deviations if name in some])) for name in names}
