"""Small kernels that everything above needs: fill, copy, add, multiply, choose rows and columns, add up squares.

One thread for each number of the result; neighbours in memory belong to neighbours among the threads, so a warp reads
and writes whole lines.  All of them are limited by memory: what a thread computes does not count.

Arrays are float32, and those that are only copied or filled may be int32 or bool as well.  Shapes must be equal where
numbers meet; nothing is broadcast.  Results are new arrays, but for the functions that say "in place".  An array may
have at most 2**31 - 1 numbers, as kernels count them with 32 bits.
"""
import functools
import math

import numpy as np
from numba import cuda, float32

from ..cells.activations import formula
from .arrays import DeviceArray
from .gpu import empty, launch
from .kernel import B1, F1, F2, Float, I1, Int, device_function, kernel

THREADS = 256
OF_DTYPE = {"float32": F1, "int32": I1, "bool": B1}         # what kernels call a row of such numbers
INFINITY, NAN = np.float32(np.inf), np.float32(np.nan)

MOST_BLOCKS = 512           # that share out one array's squares; fixed, so that all GPUs add in the same order
NUMBERS_A_THREAD = 16       # that a thread should have to add up, before a block more is worth it


def blocks_for(n):
    """How many blocks have a thread for each of n numbers."""
    if n >= 2**31:
        raise ValueError(f"array: expected at most {2**31 - 1} numbers, got {n}")
    return -(-n // THREADS)


def _one_of_dtypes(name, array, *dtypes):
    if not isinstance(array, DeviceArray) or array.dtype.name not in dtypes:
        raise TypeError(f"{name}: expected a DeviceArray of {' or '.join(dtypes)}, got {array!r}")


def _same_shape(a, b, names):
    for name, array in zip(names, (a, b)):
        _one_of_dtypes(name, array, "float32")
    if a.shape != b.shape:
        raise ValueError(f"{names[1]}: expected {a.shape}, as {names[0]} has, got {b.shape}")


# ------------------------------------------------------------------------------------------------------ fill and copy

def fill(array, value):
    """array[...] = value, in place."""
    _one_of_dtypes("array", array, *OF_DTYPE)
    launch(_fill(array.dtype.name), blocks_for(array.size), array.reshape(-1), array.dtype.type(value), array.size)


@functools.cache
def _fill(dtype):
    Numbers = OF_DTYPE[dtype]

    @kernel(threads=THREADS)
    def fill_numbers(array: Numbers, value: Numbers.dtype, n: Int):
        i = cuda.grid(1)
        if i < n:
            array[i] = value

    return fill_numbers


def copy(source):
    """A new array with the same numbers."""
    target = empty(source.shape, source.dtype)
    copy_into(source, target)
    return target


def copy_into(source, target):
    """target[...] = source, in place: as many numbers of the same dtype, whatever the shapes."""
    _one_of_dtypes("source", source, *OF_DTYPE)
    _one_of_dtypes("target", target, source.dtype.name)
    if source.size != target.size:
        raise ValueError(f"target: expected {source.size} numbers, as source {source.shape} has, got {target.shape}")
    launch(_copy(source.dtype.name), blocks_for(source.size), source.reshape(-1), target.reshape(-1), source.size)


@functools.cache
def _copy(dtype):
    Numbers = OF_DTYPE[dtype]

    @kernel(threads=THREADS)
    def copy_numbers(source: Numbers, target: Numbers, n: Int):
        i = cuda.grid(1)
        if i < n:
            target[i] = source[i]

    return copy_numbers


# ----------------------------------------------------------------------------------------------------------- arithmetic

def add(a, b):
    """a + b"""
    _same_shape(a, b, "ab")
    total = empty(a.shape)
    launch(_add, blocks_for(a.size), a.reshape(-1), b.reshape(-1), total.reshape(-1), a.size)
    return total


def add_into(target, b):
    """target += b, in place."""
    _same_shape(target, b, ("target", "b"))
    flat = target.reshape(-1)
    launch(_add, blocks_for(b.size), flat, b.reshape(-1), flat, b.size)


@kernel(threads=THREADS)
def _add(a: F1, b: F1, total: F1, n: Int):
    i = cuda.grid(1)
    if i < n:
        total[i] = a[i] + b[i]


def multiply(a, b):
    """a * b"""
    _same_shape(a, b, "ab")
    product = empty(a.shape)
    launch(_multiply, blocks_for(a.size), a.reshape(-1), b.reshape(-1), product.reshape(-1), a.size)
    return product


@kernel(threads=THREADS)
def _multiply(a: F1, b: F1, product: F1, n: Int):
    i = cuda.grid(1)
    if i < n:
        product[i] = a[i] * b[i]


def scaled(a, factor):
    """a * factor, a number, which is rounded to float32."""
    _one_of_dtypes("a", a, "float32")
    product = empty(a.shape)
    launch(_scale, blocks_for(a.size), a.reshape(-1), np.float32(factor), product.reshape(-1), a.size)
    return product


@kernel(threads=THREADS)
def _scale(a: F1, factor: Float, product: F1, n: Int):
    i = cuda.grid(1)
    if i < n:
        product[i] = a[i] * factor


def finite_or_nan(array, where=None):
    """NaN in place of plus and minus infinity, all else as it is.  where bool (len(array),): only in these rows."""
    _one_of_dtypes("array", array, "float32")
    everywhere = where is None
    if not everywhere:
        _one_of_dtypes("where", where, "bool")
        if where.shape != array.shape[:1]:
            raise ValueError(f"where: expected shape {array.shape[:1]}, as the first axis of array has, "
                             f"got {where.shape}")
    result = empty(array.shape)
    launch(_finite_or_nan(everywhere), blocks_for(array.size), array.reshape(-1),
           empty(0, bool) if everywhere else where, result.reshape(-1), math.prod(array.shape[1:]), array.size)
    return result


@functools.cache
def _finite_or_nan(everywhere):
    @kernel(threads=THREADS)
    def infinity_to_nan(array: F1, where: B1, result: F1, row: Int, n: Int):
        i = cuda.grid(1)
        if i < n:
            value = array[i]
            chosen = everywhere or where[i // row]
            result[i] = NAN if abs(value) == INFINITY and chosen else value

    return infinity_to_nan


# ----------------------------------------------------------------------------------------------------- rows and columns

def side_by_side(arrays):
    """(..., m), (..., n), any number of them -> (..., m + n): one behind the other along the last axis."""
    for k, array in enumerate(arrays):
        _one_of_dtypes(f"arrays[{k}]", array, arrays[0].dtype.name)
        if array.shape[:-1] != arrays[0].shape[:-1]:
            raise ValueError(f"arrays[{k}]: expected {arrays[0].shape[:-1]} before the last axis, as arrays[0] has, "
                             f"got {array.shape}")
    joined = empty((*arrays[0].shape[:-1], sum(array.shape[-1] for array in arrays)), arrays[0].dtype)
    first = 0
    for array in arrays:
        _copy_block(array, 0, joined, first, array.shape[-1])
        first += array.shape[-1]
    return joined


def columns(array, first, last):
    """array[..., first:last]"""
    if not 0 <= first <= last <= array.shape[-1]:
        raise IndexError(f"columns: expected 0 <= first <= last <= {array.shape[-1]}, got {first}, {last}")
    part = empty((*array.shape[:-1], last - first), array.dtype)
    _copy_block(array, first, part, 0, last - first)
    return part


def _copy_block(source, source_first, target, target_first, width):
    """So many columns of source, from one on, to those of target, from another on."""
    _one_of_dtypes("array", source, *OF_DTYPE)
    n = math.prod(source.shape[:-1]) * width
    launch(_copy_columns(source.dtype.name), blocks_for(n), source.reshape(-1), source_first, source.shape[-1],
           target.reshape(-1), target_first, target.shape[-1], width, n)


@functools.cache
def _copy_columns(dtype):
    Numbers = OF_DTYPE[dtype]

    @kernel(threads=THREADS)
    def copy_columns(source: Numbers, source_first: Int, source_row: Int,
                     target: Numbers, target_first: Int, target_row: Int, width: Int, n: Int):
        i = cuda.grid(1)
        if i < n:
            row = i // width
            column = i - row * width
            target[row * target_row + target_first + column] = source[row * source_row + source_first + column]

    return copy_columns


def take(array, rows):
    """array[rows] along the first axis.  rows int32 (n,), each from 0 to len(array) - 1: a GPU does not check that."""
    _one_of_dtypes("array", array, *OF_DTYPE)
    _one_of_dtypes("rows", rows, "int32")
    if rows.ndim != 1:
        raise ValueError(f"rows: expected shape (n,), got {rows.shape}")
    taken = empty((len(rows), *array.shape[1:]), array.dtype)
    launch(_take(array.dtype.name), blocks_for(taken.size), array.reshape(-1), rows, taken.reshape(-1),
           math.prod(array.shape[1:]), taken.size)
    return taken


@functools.cache
def _take(dtype):
    Numbers = OF_DTYPE[dtype]

    @kernel(threads=THREADS)
    def take_rows(array: Numbers, rows: I1, taken: Numbers, row: Int, n: Int):
        i = cuda.grid(1)
        if i < n:
            k = i // row
            taken[i] = array[rows[k] * row + i - k * row]

    return take_rows


# ----------------------------------------------------------------------------------------------------------------- sums

@formula
def two_sum(a, b):
    """a + b rounded, and what the rounding left out, exactly (Knuth, The Art of Computer Programming, volume 2, 4.2.2,
    theorem B).  Where the sum is not finite the second is NaN."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@formula
def with_rest(total, rest):
    """A sum and what its roundings left out -> one number; a sum that is not finite has no such rest."""
    return total + rest if rest == rest else total


def sum_of_squares(arrays):
    """The sum of the squares of all numbers of some float32 arrays -> (1,).

    Two stages: each block adds up a part of one array, then one block adds up what these found.  Each number is added
    with what its rounding left out, so the result is within 1e-6 of the exact sum, relatively, for any number of them.
    The order depends on the shapes alone.  A NaN gives NaN, and a sum above 3.4e38 infinity."""
    for k, array in enumerate(arrays):
        _one_of_dtypes(f"arrays[{k}]", array, "float32")
    shares = [min(MOST_BLOCKS, -(-blocks_for(array.size) // NUMBERS_A_THREAD)) for array in arrays]
    partial, first = empty((max(1, sum(shares)), 2)), 0
    for array, share in zip(arrays, shares):
        launch(_add_squares, share, array.reshape(-1), partial.part(first, first + share), share * THREADS, array.size)
        first += share
    return added_up(partial, first)


@kernel(threads=THREADS)
def _add_squares(x: F1, partial: F2, all_threads: Int, n: Int):
    total, rest = float32(0), float32(0)
    for i in range(cuda.grid(1), n, all_threads):
        total, left_out = two_sum(total, x[i] * x[i])
        rest += left_out
    store_partial(partial, total, rest)


@device_function
def store_partial(partial, total, rest):
    """What the threads of a block have added up, as the block's row of partial."""
    total, rest = block_sum(total, rest)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x, 0], partial[cuda.blockIdx.x, 1] = total, rest


def added_up(partial, n):
    """The sum of the first n rows of partial, in which blocks have stored their sums -> (1,)"""
    total = empty(1)
    launch(_add_partial, 1, partial, total, n)
    return total


@kernel(threads=THREADS)
def _add_partial(partial: F2, result: F1, n: Int):
    total, rest = float32(0), float32(0)
    for i in range(cuda.threadIdx.x, n, THREADS):
        total, left_out = two_sum(total, partial[i, 0])
        rest += left_out + partial[i, 1]
    total, rest = block_sum(total, rest)
    if cuda.threadIdx.x == 0:
        result[0] = with_rest(total, rest)


@device_function
def block_sum(total, rest):
    """The sum over a block of what each thread has, with the rests of all roundings, for its first thread."""
    totals, rests = cuda.shared.array(THREADS, float32), cuda.shared.array(THREADS, float32)
    thread, half = cuda.threadIdx.x, THREADS // 2
    while half > 0:
        totals[thread], rests[thread] = total, rest
        cuda.syncthreads()
        if thread < half:
            total, left_out = two_sum(total, totals[thread + half])
            rest += left_out + rests[thread + half]
        cuda.syncthreads()
        half //= 2
    return total, rest
