"""The tiles of ``gpu.py``: what the threads of a block do with some rows of the block and some that pass by.

A block owns ROWS rows of one head: queries, or, where the gradients of keys are made, keys.  Those of the other side
pass by, PASSING at a time.  So there are ROWS * PASSING scores in a block at a time, 4 * 4 for each of its THREADS:

    thread = y * 8 + x      its rows are y + 16 * i and its passing ones x + 8 * j,   i, j = 0 to 3
    s[i,j]                  its scores
    acc[i,c]                its sums over all that passed by, in columns part * 32 + x * 4 + d,   c = part * 4 + d

The eight threads of one y lie in one warp, so what belongs to a row goes from thread to thread by shuffles.  With these
rows the 16-byte reads of a warp meet no bank of shared memory twice.

Rows are loaded in slices: some columns of all rows of a tile, so that wide heads fit too.  Columns that do not exist,
rows behind the last step and rows that are masked are zeros in a tile, whatever stands in memory: they are not read.

Arrays are flat in these functions, since the compiler then has less to compute for each address.
"""
import functools
from typing import NamedTuple

import numpy as np
from numba import cuda

from ..device import ptx
from ..device.kernel import device_function

ROWS, PASSING, THREADS = 64, 32, 128
SCORED = 32                 # columns of a slice for scores, at most
SUMMED = 128                # columns that a block sums, at most: for more of them there are more blocks
WEIGHTS = 40                # numbers from a row of weights to the next, so that writes to x + 8 * j meet no bank twice
ALL = 0xffffffff            # lanes of a warp

ZERO = np.float32(0)
ZEROS = ZERO, ZERO, ZERO, ZERO


class Slices(NamedTuple):
    """The columns of a head, cut into slices of one size, a power of two."""
    width: int              # of the head
    columns: int            # of a slice; the last slice may reach beyond the head

    @property
    def count(self):
        return max(1, -(-self.width // self.columns))

    @property
    def stride(self):
        """Numbers from one row of a slice to the next, so that eight rows meet eight times four banks."""
        return self.columns + 4


def scored(width):
    return Slices(width, _power_of_two(width, 4, SCORED))


def summed(width, fewer=False):
    """fewer: half as many, for kernels that keep more for each of them."""
    return Slices(width, _power_of_two(width, 32, SUMMED // 2 if fewer else SUMMED))


def _power_of_two(width, least, most):
    return min(most, max(least, 1 << (width - 1).bit_length())) if width else least


# ------------------------------------------------------------------------------------------ who this is, who is real

@device_function
def divided(a, b):
    """-> a // b, a % b, of numbers from 0 to 2**32 - 1.  A division of 64 bits has branches, behind which the compiler
    no longer knows that the threads of a warp are together: each vote and each shuffle would begin with a question."""
    quotient = np.uint32(a) // np.uint32(b)
    return np.int64(quotient), np.int64(np.uint32(a) - quotient * np.uint32(b))


@device_function
def place_of_block(heads, parts):
    """blockIdx.x counts rows of the batch, heads and parts of a head's columns -> b, head, part"""
    rest, part = divided(cuda.blockIdx.x, parts)
    b, head = divided(rest, heads)
    return b, head, part


@device_function
def real_steps(mask, b, first):
    """PASSING steps from ``first`` on, as bits of an integer: 1 for a real one.  A warp asks together."""
    t = first + cuda.threadIdx.x % 32
    T = mask.shape[1]
    return cuda.ballot_sync(ALL, mask[b, min(t, T - 1)] & (t < T))


@device_function
def real_rows(mask, b, first):
    """The same for ROWS steps."""
    return np.int64(real_steps(mask, b, first)) & ALL | np.int64(real_steps(mask, b, first + 32)) << 32


@functools.cache
def seeing(causal):
    @device_function
    def sees(real, bit, query, key):
        """Does a query see a key?  real: the bits of the passing ones, ``bit`` is the one in question."""
        return (real >> bit & 1 != 0) & (not causal or key <= query)

    return sees


# ------------------------------------------------------------------------------------------------------ load and store

@functools.cache
def loader(rows, width, columns, stride, aligned):
    """aligned: may four neighbours in memory be read at once?"""
    fours = columns // 4
    rows_at_once = THREADS // fours
    turns = -(-rows // rows_at_once)

    @device_function
    def load(tile, x, real, start, step, column):
        """tile[row, c] = x[start + row * step + column + c], or 0 where bit ``row`` of real is 0."""
        c = cuda.threadIdx.x % fours * 4
        at = column + c
        for turn in range(turns):
            row = cuda.threadIdx.x // fours + turn * rows_at_once
            place = start + row * step + at
            values = ZEROS
            if row < rows and at < width and real >> row & 1 != 0:
                if aligned:
                    values = ptx.load4(x, place)
                else:
                    values = (x[place], x[place + 1] if at + 1 < width else ZERO,
                              x[place + 2] if at + 2 < width else ZERO, x[place + 3] if at + 3 < width else ZERO)
            if row < rows:
                ptx.store4(tile, row * stride + c, values[0], values[1], values[2], values[3])

    return load


@functools.cache
def storer(width, columns, aligned):
    parts = columns // 32

    @device_function
    def store(acc, x, real, start, step, column, rows):
        """x[start + row * step + column + c] = acc of each row and column, or 0 where bit ``row`` of real is 0; for the
        first rows of the tile."""
        for i in range(4):
            row = cuda.threadIdx.x // 8 + 16 * i
            if row < rows:
                is_real = real >> row & 1 != 0
                for part in range(parts):
                    at = column + part * 32 + cuda.threadIdx.x % 8 * 4
                    place = start + row * step + at
                    for d in range(4):
                        acc[i, part * 4 + d] = acc[i, part * 4 + d] if is_real else ZERO
                    if aligned:
                        if at < width:
                            ptx.store4(x, place, acc[i, part * 4], acc[i, part * 4 + 1], acc[i, part * 4 + 2],
                                       acc[i, part * 4 + 3])
                    else:
                        for d in range(4):
                            if at + d < width:
                                x[place + d] = acc[i, part * 4 + d]

    return store
