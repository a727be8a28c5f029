"""Arrays whose memory is used again.

The first write to a page of new memory makes the operating system find and clear it, which takes longer than the
arithmetic of a recurrent net on the same numbers.  So the memory of a large array made here is not given back when the
last array that looks at it is gone, but kept for the next one of its size.
"""
import contextlib
import itertools
import math

import numpy as np

SMALLEST = 2**16            # bytes: below it NumPy's own allocation costs less
KEPT = 2**28                # bytes that lie idle at most; beyond, what has been idle longest is given back
ALIGNMENT = 64              # a cache line: a vector that starts on one does not touch two

_idle = {}                  # size in bytes -> list of (moment, memory that nobody has used since)
_moments = itertools.count()


class _Block:
    """A lease of memory: when the last array on it is gone, it is idle again."""

    def __init__(self, memory, size):
        start = -memory.ctypes.data % ALIGNMENT
        self.memory, self.size = memory, size
        self.__array_interface__ = memory[start:start + size].__array_interface__

    def __del__(self, idle=_idle):
        """Python may call this at any moment and in any thread, so each step is one that cannot be cut in two."""
        idle.setdefault(self.size, []).append((next(_moments), self.memory))
        while sum(size * len(blocks) for size, blocks in list(idle.items())) > KEPT:
            with contextlib.suppress(IndexError, ValueError):               # another thread has been faster
                min(filter(None, list(idle.values())), key=lambda blocks: blocks[0]).pop(0)


def _block(size):
    try:
        _, memory = _idle[size].pop()
    except (KeyError, IndexError):
        memory = np.empty(size + ALIGNMENT, np.uint8)
    return _Block(memory, size)


def empty(shape, dtype):
    """As np.empty: the numbers are arbitrary.  The array is aligned to cache lines if it is large."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    return np.asarray(_block(_rounded(size)))[:size].view(dtype).reshape(shape)


def zeros(shape, dtype):
    """As np.zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def copy_of(array):
    """As array.copy(), in contiguous memory."""
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _rounded(size):
    """Up to one of eight sizes between two powers of two, so that sequences of similar lengths share blocks."""
    step = 2 ** max(12, size.bit_length() - 4)
    return -(-size // step) * step
