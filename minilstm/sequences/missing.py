"""Values that were not measured: ways to fill them, and ways to tell the network.

    B  batch      T  time steps      D  input features
    x         (B,T,D)         observed values; whatever stands where nothing was measured, NaN included, is not read
    observed  (B,T,D) bool    True = was measured.  It comes with the data: a 0 may be a reading like any other
    mask      (B,T) bool      True = a real step; None: all are.  A masked step is neither observed nor filled: it is 0

Zero is not nothing: filling alone makes a missing value and a measured one that happens to equal the filling look the
same.  ``add_indicators`` and ``time_since_seen`` keep the difference, as more features for the network:

    filled = fill_forward(x, observed, mask)
    since = time_since_seen(observed, mask, dtype=x.dtype)
    x_all = add_features(add_indicators(filled, observed, mask), since)

A step at which nothing at all was measured is still a step: time went by.  To skip it, take it out of the mask.
"""
import numbers

import numpy as np

from ..arguments import FLOATS, describe, dtype_of
from .shapes import array, batch_of, float_array, float_like, observed_array, time_mask


def observed_of(x):
    """x (B,T,D) in which NaN, and nothing else, means not measured -> observed (B,T,D).

    The zeros of padding count as measured here: the functions below take mask= for that.

    Raises TypeError or ValueError for what is no batch of floats."""
    return ~np.isnan(batch_of("x", x))


# ------------------------------------------------------------------------------------------------------------ filling

def fill_zero(x, observed, mask=None):
    """x where observed, 0 elsewhere -> (B,T,D).

    A fair guess only where 0 is the mean of a feature, so after subtracting it.

    Raises TypeError or ValueError that says which argument does not fit, as all functions here do; so also where
    observed is True and x is NaN."""
    seen, _ = _seen(x, observed, mask)
    return np.where(seen, x, x.dtype.type(0))


def fill_mean(x, observed, mean, mask=None):
    """x where observed, elsewhere the feature's mean (D,) -> (B,T,D).

    mean comes from the training data, by ``observed_mean``, also when validation or test data are filled."""
    seen, real = _seen(x, observed, mask)
    mean = _one_a_feature("mean", mean, x)
    return np.where(real, np.where(seen, x, mean), x.dtype.type(0))


def observed_mean(x, observed, mask=None):
    """The mean of what was observed -> (D,); 0 for a feature that never was."""
    seen, _ = _seen(x, observed, mask)
    total = np.where(seen, x, x.dtype.type(0)).sum(axis=(0, 1), dtype=np.float64)
    return (total / np.maximum(1, seen.sum(axis=(0, 1)))).astype(x.dtype)


def fill_forward(x, observed, mask=None, start=0.0):
    """The last observed value, this step's if there is one -> (B,T,D).

    start       what stands before the first one: a number, or one for each feature (D,), such as the mean"""
    seen, real = _seen(x, observed, mask)
    if isinstance(start, numbers.Real):
        start = np.full(x.shape[2], start, x.dtype)
    start = _one_a_feature("start", start, x)
    source = last_true(seen)
    last = np.take_along_axis(x, np.maximum(source, 0), axis=1)
    return np.where(real, np.where(source >= 0, last, start), x.dtype.type(0))


# ----------------------------------------------------------------------------------------------- telling the network

def add_indicators(x_filled, observed, mask=None):
    """x_filled (B,T,D), from one of the functions above -> (B,T,2D): its D columns, then 1 where observed, 0 elsewhere.

    Masked steps are 0 in all columns."""
    B, T, _ = batch_of("x_filled", x_filled).shape
    seen = observed_array(observed, x_filled.shape)
    real = time_mask(mask, B, T)[:, :, None]
    no_nan("x_filled", x_filled, real, "at every real step", "fill_zero, fill_mean and fill_forward leave no NaN")
    both = np.concatenate([x_filled, seen.astype(x_filled.dtype)], axis=2)
    return np.where(real, both, x_filled.dtype.type(0))


def time_since_seen(observed, mask=None, times=None, dtype=None):
    """How long ago, at each step, a feature was last measured before that step -> delta (B,T,D).

    times       (B,T) floats, when each step was; None: real steps are one unit apart
    dtype       of delta; None: that of times, or else float32.  The subtraction comes before any rounding to it

    With s the times and m = 1 for observed, for each feature:

        delta_0 = 0
        delta_t = s_t - s_{t-1} + delta_{t-1}       if m_{t-1} = 0
        delta_t = s_t - s_{t-1}                     if m_{t-1} = 1

    so that m_t does not matter: delta tells the age of what was known when step t came.  A feature not yet seen counts
    from the first step.  Masked steps are not steps: t - 1 is the real step before t, and delta is 0 where masked.

    The sum of differences is one difference, so the code has no loop: delta_t = s_t - s_k, with k the last step before
    t at which the feature was observed, or else the first step.

    Source: Z. Che, S. Purushotham, K. Cho, D. Sontag and Y. Liu, Recurrent Neural Networks for Multivariate Time Series
    with Missing Values, Scientific Reports 8:6085, 2018, the definition of the time interval delta."""
    if not isinstance(observed, np.ndarray) or observed.ndim != 3:
        raise TypeError(f"observed: expected a bool array (B,T,D), True = was measured, got {describe(observed)}")
    B, T, D = observed_array(observed, observed.shape).shape
    mask = time_mask(mask, B, T)
    steps = np.cumsum(mask, axis=1)                                     # 1 at the first real step
    times = steps.astype(FLOATS[0]) if times is None else _times(times, mask)
    first = mask & (steps == 1)
    known = observed & mask[:, :, None] | first[:, :, None]
    k = np.concatenate([np.zeros((B, 1, D), int), last_true(known)], axis=1)[:, :T]           # before t, not at t
    later = (mask & ~first)[:, :, None]
    delta = np.where(later, times[:, :, None] - times[np.arange(B)[:, None, None], k], times.dtype.type(0))
    return delta.astype(times.dtype if dtype is None else dtype_of("dtype", dtype))


# ------------------------------------------------------------------------------------------------------------- checks

def _seen(x, observed, mask):
    """-> where a value was measured at a real step (B,T,D), and the real steps (B,T,1)."""
    B, T, _ = batch_of("x", x).shape
    real = time_mask(mask, B, T)[:, :, None]
    seen = observed_array(observed, x.shape) & real
    no_nan("x", x, seen, "wherever observed is True", "observed_of(x) is False where x is NaN")
    return seen, real


def no_nan(name, x, where, place, cure):
    nan = np.isnan(x) & where
    if nan.any():
        row, step, feature = np.argwhere(nan)[0]
        raise ValueError(f"{name}: expected a number {place}, got NaN in row {row}, step {step}, feature {feature}; "
                         f"{cure}")


def _one_a_feature(name, value, x):
    """(D,) in x's dtype, all finite -> the same."""
    if float_like(name, value, x).shape != x.shape[2:]:
        raise ValueError(f"{name}: expected shape (D={x.shape[2]},), one number for each feature, got {value.shape}")
    if not np.isfinite(value).all():
        feature = int(np.argmin(np.isfinite(value)))
        raise ValueError(f"{name}: expected finite numbers, got {value[feature]} for feature {feature}")
    return value


def last_true(marks):
    """The last True at each step or before it, (B,T,D) bool -> step numbers, -1 for none."""
    return np.maximum.accumulate(np.where(marks, np.arange(marks.shape[1])[:, None], -1), axis=1)


def _times(times, mask):
    """(B,T) floats, finite and never falling over the real steps of a row -> the same, 0 where masked."""
    if array("times", times).dtype.kind == "M":
        raise TypeError(f"times: expected floats, got {describe(times)}; (times - times.min()) / np.timedelta64(1, 's')"
                        " are seconds")
    if float_array("times", times).shape != mask.shape:
        raise ValueError(f"times: expected shape (B={mask.shape[0]}, T={mask.shape[1]}), got {times.shape}")
    times = np.where(mask, times, times.dtype.type(0))
    for row, real in enumerate(mask):
        if not np.isfinite(times[row]).all() or (np.diff(times[row, real]) < 0).any():
            raise ValueError(f"times: expected finite numbers that never fall, got others in row {row}")
    return times
