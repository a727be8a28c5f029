"""Arrays in a GPU's memory.  Same functions and parameters as ``host``.

Whatever comes from a user may be a NumPy array, which is copied to the GPU; an array that is there already, PyTorch's
or CuPy's, which is not; or a DeviceArray.  A DeviceArray is never written to once it has its numbers: a gradient that
grows and a parameter that moves are new arrays.  So nothing needs a copy to stay true, but for the memory of another
library.
"""
import functools

import numpy as np
from numba import cuda

from .. import arguments
from ..device import DeviceArray, current, empty, to_device, zeros
from ..device.elementwise import (
    THREADS, add, blocks_for, columns, copy_into, fill, finite_or_nan, multiply, scaled, side_by_side, take)
from ..device.elementwise import copy as copy_of
from ..device.gpu import launch
from ..device.kernel import B1, B2, Int, kernel
from ..masking import gpu as masking
from ..matmul.gpu import column_sums

__all__ = ["KINDS", "KNOWN", "accumulated", "add", "adopted", "cleared", "column_sums", "columns", "copy_into",
           "copy_of", "data", "empty", "everywhere", "finite_or_nan", "floats", "from_numpy", "frozen", "integers",
           "is_frozen", "mask_of", "multiply", "nothing", "rows_with_steps", "scaled", "select", "side_by_side", "take",
           "to_numpy", "zeros"]

KNOWN, KINDS = (np.ndarray, DeviceArray), "a plain NumPy array or one on the GPU"


# ------------------------------------------------------------------------------------------------- what users pass in

def floats(name, value, dtype, shape, letters):
    """As ``arguments.floats``, whatever kind of array it is -> a DeviceArray."""
    value = adopted(name, value)
    if not isinstance(value, DeviceArray):
        return to_device(arguments.floats(name, value, dtype, shape, letters, KINDS))
    arguments.check_floats(name, value, dtype, shape, letters)
    return value


def mask_of(x, mask, lengths):
    """As ``arguments.mask_of`` -> bool (B,T) on the GPU.  A mask of another library is copied."""
    B, T, _ = x.shape
    if mask is None and lengths is None:
        return everywhere((B, T))
    found = adopted("mask", mask)
    if not isinstance(found, DeviceArray) or lengths is not None:
        return to_device(arguments.mask_of(x, mask, lengths))
    arguments.check_mask(found, True, B, T)
    return found if found is mask else copy_of(found)


def adopted(name, value):
    """``value``, an array of another library on the GPU as a DeviceArray of the same memory."""
    if not isinstance(value, DeviceArray) and not hasattr(value, "__cuda_array_interface__"):
        return value
    try:
        return to_device(value)
    except ValueError as error:
        raise ValueError(f"{name}{str(error).removeprefix('array')}") from None


# ------------------------------------------------------------------------------------------------ there and back again

def from_numpy(array):
    return to_device(array)


def to_numpy(array):
    return array.copy() if isinstance(array, np.ndarray) else to_device(array).copy_to_host()


def data(name, array):
    """-> float32, bool or int32 on the GPU."""
    if array.dtype.kind in "iu":
        return integers(name, array)
    if array.dtype not in (np.float32, bool):
        raise TypeError(f"{name}: expected float32, bool or integers, got {arguments.describe(array)}; nothing is cast "
                        f"silently: pass {name}.astype('float32')")
    return to_device(array)


def integers(name, array):
    """-> int32 on the GPU, and -1 for a number that is none."""
    if isinstance(array, np.ndarray):
        return to_device(np.where(array == array.astype("int32"), array, -1).astype("int32"))
    if array.dtype != np.int32:
        raise TypeError(f"{name}: expected int32 on the GPU, got {arguments.describe(array)}")
    return array


def frozen(array):
    return to_device(array)


def is_frozen(array):
    return isinstance(array, DeviceArray)


# ----------------------------------------------------------------------------------------------------------- gradients

def nothing(shape, dtype):
    """Always the same array for one shape, so that it is known to hold zeros without a look at them."""
    return _zeros_of(current(), tuple(shape))


@functools.lru_cache(maxsize=256)
def _zeros_of(device, shape):
    return zeros(shape)


def cleared(gradient):
    return nothing(gradient.shape, gradient.dtype)


def accumulated(gradient, d):
    return d if gradient is nothing(gradient.shape, gradient.dtype) else add(gradient, d)


# ---------------------------------------------------------------------------------------------------------------- rows

def select(x, mask, copy=True):
    return masking.select(x, mask)


def everywhere(shape):
    mask = empty(shape, bool)
    fill(mask, True)
    return mask


def rows_with_steps(mask):
    found = empty(len(mask), bool)
    launch(find_steps, blocks_for(len(mask)), mask, found, *mask.shape)
    return found


@kernel(threads=THREADS)
def find_steps(mask: B2, found: B1, B: Int, T: Int):
    b = cuda.grid(1)
    if b < B:
        any_step = False
        for t in range(T):
            any_step = any_step or mask[b, t]
        found[b] = any_step
