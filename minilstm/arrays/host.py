"""Arrays of NumPy."""
import numpy as np

from ..arguments import floats, mask_of
from ..masking import reference

__all__ = ["KINDS", "KNOWN", "accumulated", "add", "adopted", "cleared", "column_sums", "columns", "copy_into",
           "copy_of", "data", "empty", "everywhere", "finite_or_nan", "floats", "from_numpy", "frozen", "integers",
           "is_frozen", "mask_of", "multiply", "nothing", "rows_with_steps", "scaled", "select", "side_by_side", "take",
           "to_numpy", "zeros"]

empty, zeros = np.empty, np.zeros
KNOWN, KINDS = (np.ndarray,), "a NumPy array"           # what may be passed in


def adopted(name, value):
    """``value``, if it is an array of another library on a GPU as a DeviceArray, where the backend can use it."""
    return value


# ------------------------------------------------------------------------------------------------ there and back again

def from_numpy(array):
    """The same numbers where the backend computes; it may be the array itself."""
    return array


def to_numpy(array):
    """A copy of the user's own."""
    return array.copy()


def data(name, array):
    """What batches are taken of, checked as far as the backend is in need of it."""
    return array


def integers(name, array):
    """Integers as kernels take them."""
    return array


def frozen(array):
    """A read-only copy, for a parameter."""
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def is_frozen(array):
    return not array.flags.writeable


# ----------------------------------------------------------------------------------------------------------- gradients

def nothing(shape, dtype):
    """Zeros, for a gradient to begin with."""
    return np.zeros(shape, dtype)


def cleared(gradient):
    """Zeros in place of a gradient; on the host it is the same array."""
    gradient.fill(0)
    return gradient


def accumulated(gradient, d):
    """gradient + d; on the host it is the same array."""
    gradient += d
    return gradient


# ---------------------------------------------------------------------------------------------------------- arithmetic

def copy_of(array):
    return array.copy()


def copy_into(source, target):
    """target[...] = source"""
    target[...] = source


def add(a, b):
    return a + b


def multiply(a, b):
    return a * b


def scaled(a, factor):
    """a * factor, a number."""
    return a * a.dtype.type(factor)


def finite_or_nan(array, where=None):
    """NaN in place of infinity; where (len(array),) bool: only in these rows.  The array itself if its sum is finite:
    then so is every number in it."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):
            return array
    rows = True if where is None else where.reshape(-1, *(1,) * (array.ndim - 1))
    return np.where(np.isinf(array) & rows, array.dtype.type(np.nan), array)


def column_sums(A):
    """A (M,N) -> (N,)"""
    return A.sum(axis=0)


# ---------------------------------------------------------------------------------------------------- rows and columns

def everywhere(shape):
    """A mask that is True everywhere."""
    return np.ones(shape, bool)


def take(array, rows):
    """array[rows] along the first axis."""
    if array.flags.c_contiguous:
        return array.take(rows, axis=0)         # the faster way, but it would first copy all of another array
    return array[rows]


def side_by_side(arrays):
    """One behind the other along the last axis."""
    return np.concatenate(arrays, axis=-1)


def columns(array, first, last):
    """array[..., first:last]"""
    return np.ascontiguousarray(array[..., first:last])


def select(x, mask, copy=True):
    """x (B,T,F) at the real steps, 0 at the others: a new array, or, without a copy, x itself where all are real."""
    return x if not copy and mask.all() else reference.select(x, mask)


def rows_with_steps(mask):
    """mask (B,T) -> bool (B,): has this row a real step?"""
    return mask.any(axis=1)
