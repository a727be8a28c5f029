"""The memory of the simulated GPU: checked at every access, and it knows who may race with whom.

    LocalArray      of one thread
    SharedArray     of one block
    GlobalArray     of the GPU: what a kernel is given

Two accesses to one number race if one of them writes, neither is ordered before the other, and not both are relaxed
(``ptx.poll4``, ``ptx.store_relaxed``, ``cuda.atomic``).  What orders them:

*   they are one thread's own;
*   they are of one block, and a ``cuda.syncthreads()`` lies between;
*   they are of one warp, and a ``cuda.syncwarp()`` lies between.  A shuffle, a vote and a product on tensor cores wait
    for the other lanes as well, but promise nothing about memory.

Nothing orders two blocks of one launch, even where the simulator plays one after the other, and everything orders two
launches.  So a number that one block writes and another one reads has to be written by ``store_relaxed`` and read by
``poll4``, and by these alone: an ordinary read may come from a cache that has not heard of the write, even if the same
thread has polled the number before.

For each number there is a Mark: the last ordinary write, and who has read it since.  "Who" is the smallest group that
holds all of them: a thread, a warp, a block or the grid.  This is exact: if two lanes of a warp have read a number,
whoever writes it next is not both of them.  What a write or a barrier has put in order need not be remembered, since
whatever comes after the later access comes after the earlier one too.
"""
import functools
import itertools
from typing import NamedTuple

import numpy as np
from numba.core import types as numba_types
from numba.np import numpy_support

POISON = np.uint32(0x7fc0dead)              # the bits of a NaN, and not of the one that says "not yet written"
F32 = np.float32


class SimulationError(RuntimeError):
    """A kernel did what a GPU would answer with rubbish, a crash or a hang."""


class Race(NamedTuple):
    """Two accesses to a number that nothing orders.  The first such pair of a line is noted, for each array and kind.
    """
    kernel: str
    kind: str                   # "write after read" ...: the later access and the earlier one
    array: str
    index: int                  # of the number, counted from the first of its array
    earlier: str                # who
    later: str
    line: str                   # of the later access

    def __str__(self):
        return (f"{self.kernel}: {self.kind} of {self.array}, number {self.index}: {self.earlier}, then {self.later} "
                f"in {self.line}, with no barrier between")


@functools.cache                            # a kernel asks for it in each thread, and NumPy's answer takes a while
def dtype_of(dtype):
    dtype = numpy_support.as_dtype(dtype) if isinstance(dtype, numba_types.Type) else np.dtype(dtype)
    if dtype not in NATIVE:
        raise SimulationError(f"dtype: expected float32, int32 or bool, got {dtype}")
    return dtype


def poison(dtype):
    """What memory of this dtype holds before anybody has written."""
    return POISON.view(F32) if dtype == F32 else np.full(8, 0xad, np.uint8).view(dtype)[0].item()


def poisoned(size):
    """Bytes with POISON in them; size is a multiple of 4."""
    return np.full(size // 4, POISON).view(np.uint8)


# --------------------------------------------------------------------------------------------------- values and places

def as_float32(value, fault):
    if isinstance(value, np.float64):
        raise fault("a float64 is stored as a float32: somewhere a computation was done in double precision")
    return F32(value)


def as_int32(value, fault):
    value = int(value)
    if not -2**31 <= value < 2**31:
        raise fault(f"{value} does not fit into an int32")
    return value


FLOAT, INT, BOOL = map(np.dtype, ("float32", "int32", "bool"))
CONVERTED = {FLOAT: as_float32, INT: as_int32, BOOL: lambda value, fault: bool(value)}
NATIVE = {FLOAT: F32, INT: int, BOOL: bool}                 # what a kernel sees of a number of this dtype


class Places(dict):
    """index -> the place of the number, counted from the first one of an array; filled as it is asked for."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def __missing__(self, index):
        """Raises IndexError."""
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) != len(self.shape) or not all(0 <= i < n for i, n in zip(indices, self.shape)):
            raise IndexError(f"{', '.join(map(str, indices))} is outside of the shape {self.shape}")
        place = 0
        for i, n in zip(indices, self.shape):
            place = place * n + int(i)
        self[index] = place
        return place


places_of = functools.lru_cache(64)(Places)


class LocalArray(dict):
    """The numbers of one thread, by their index; at first poison."""

    def __init__(self, simulator, name, shape, dtype):
        shape = shape if isinstance(shape, tuple) else (shape,)
        super().__init__(_poisoned_numbers(shape, dtype))
        self.simulator, self.name, self.shape, self.dtype = simulator, name, shape, dtype
        self.native, self.converted = NATIVE[dtype], CONVERTED[dtype]

    def __missing__(self, index):
        raise self.simulator.fault(f"{self.name}: {index} is outside of the shape {self.shape}")

    def __setitem__(self, index, value):
        if index not in self:
            self.__missing__(index)
        if type(value) is not self.native:
            value = self.converted(value, self.simulator.fault)
        dict.__setitem__(self, index, value)
        if self.simulator.steps:
            self.simulator.steps.stored(self, index, value)

    def __repr__(self):
        return f"{self.dtype} {self.shape}"


@functools.cache
def _poisoned_numbers(shape, dtype):
    places = range(*shape) if len(shape) == 1 else itertools.product(*map(range, shape))
    return dict.fromkeys(places, poison(dtype))


# ------------------------------------------------------------------------------------------------ who has touched what

class Mark:
    """Who has touched a number, and when: ``by`` is a thread, or the group of those who have not been ordered since."""
    __slots__ = ("reader", "read", "writer", "written", "poller", "polled", "setter", "set")

    def __init__(self):
        self.reader = self.writer = self.poller = self.setter = None
        self.read = self.written = self.polled = self.set = 0


def ordered(group, time, thread):
    """Does an access by the group, at that time, come before what the thread does now?"""
    if group.warp is thread.warp:
        return time < thread.warp.opened
    return group.block is thread.block and time < thread.block.opened


def together(group, time, thread):
    """The smallest group for the thread and those of the group that are not ordered before it."""
    if group is None or group is thread or ordered(group, time, thread):
        return thread
    if group.warp is thread.warp:
        return thread.warp
    return thread.block if group.block is thread.block else GRID


class Grid:
    """Threads of several blocks."""
    warp = block = None

    def __str__(self):
        return "threads of several blocks"


GRID = Grid()


class CheckedArray:
    """An array whose accesses are checked and marked.

    numbers   of all, flat: a list or a NumPy array
    marks     place of a number in memory -> Mark
    first     place in memory of the first number
    reads     how many numbers were read"""

    def __init__(self, simulator, name, shape, dtype, numbers, marks, first):
        self.simulator, self.name, self.shape, self.dtype = simulator, name, shape, dtype
        self.ndim, self.size = len(shape), len(numbers)
        self.numbers, self.marks, self.first = numbers, marks, first
        self.places = places_of(shape)
        self.native, self.converted = NATIVE[dtype], CONVERTED[dtype]
        self.reads = 0

    def __repr__(self):
        return f"{self.dtype} {self.shape}"

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        return self.read(self.place(index))

    def __setitem__(self, index, value):
        self.write(self.place(index), value)

    def place(self, index):
        try:
            return self.places[index]
        except IndexError as error:
            raise self.simulator.fault(f"{self.name}: {error}") from None

    def flat_place(self, index):
        if not 0 <= index < self.size:
            raise self.simulator.fault(f"{self.name}: number {index} of {self.size}")
        return int(index)

    def place4(self, index):
        """The first of four neighbours, for an access of 16 bytes."""
        index = int(index)
        if (self.first + index) % 4 or not 0 <= index <= self.size - 4:
            raise self.simulator.fault(f"{self.name}: 16 bytes at number {index} of {self.size}, which has to be a "
                                       "multiple of 4 inside of it")
        return index

    # Each of these knows what may race with it; ``race`` looks whether it does.

    def read(self, place):
        self.reads += 1
        simulator = self.simulator
        if simulator.record_races:
            thread, mark = simulator.current, self.marks[self.first + place]
            if mark.writer is not thread and mark.writer is not None:
                self.race("read after write", mark.writer, mark.written, place)
            if mark.setter is not None:
                self.race("read after relaxed write", mark.setter, mark.set, place)
            if mark.reader is not GRID:
                if mark.reader is not thread:
                    mark.reader = together(mark.reader, mark.read, thread)
                mark.read = simulator.clock
        return self.numbers[place]

    def write(self, place, value):
        simulator = self.simulator
        if simulator.record_races:
            thread, mark = simulator.current, self.marks[self.first + place]
            if mark.writer is not thread and mark.writer is not None:
                self.race("write after write", mark.writer, mark.written, place)
            if mark.reader is not thread and mark.reader is not None:
                self.race("write after read", mark.reader, mark.read, place)
            if mark.setter is not None:
                self.race("write after relaxed write", mark.setter, mark.set, place)
            if mark.poller is not None:
                self.race("write after relaxed read", mark.poller, mark.polled, place)
            mark.writer, mark.written = thread, simulator.clock
            mark.reader = mark.poller = mark.setter = None
        self._store(place, value)

    def read_relaxed(self, place):
        self.reads += 1
        simulator = self.simulator
        if simulator.record_races:
            mark = self.marks[self.first + place]
            self.race("relaxed read after write", mark.writer, mark.written, place)
            mark.poller, mark.polled = together(mark.poller, mark.polled, simulator.current), simulator.clock
        return self.numbers[place]

    def write_relaxed(self, place, value):
        simulator = self.simulator
        if simulator.record_races:
            mark = self.marks[self.first + place]
            self.race("relaxed write after write", mark.writer, mark.written, place)
            self.race("relaxed write after read", mark.reader, mark.read, place)
            mark.setter, mark.set = together(mark.setter, mark.set, simulator.current), simulator.clock
        self._store(place, value)

    def race(self, kind, group, time, place):
        """Note a race with what the group did, unless that is ordered before what the running thread does."""
        thread = self.simulator.current
        if group is not None and group is not thread and not ordered(group, time, thread):
            self.simulator.note_race(kind, self.name, place, group)

    def _store(self, place, value):
        simulator = self.simulator
        if type(value) is not self.native:
            value = self.converted(value, simulator.fault)
        self.numbers[place] = value
        simulator.moved = True
        if simulator.steps:
            simulator.steps.stored(self, tuple(map(int, np.unravel_index(place, self.shape))), value)


class SharedArray(CheckedArray):
    """Shared memory of one block.  alignment: in bytes, as the kernel has asked for it, or None."""

    def __init__(self, simulator, name, shape, dtype, alignment):
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape))
        super().__init__(simulator, name, shape, dtype, [poison(dtype)] * size, [Mark() for _ in range(size)], 0)
        self.nbytes, self.alignment = size * dtype.itemsize, alignment

    def place4(self, index):
        if not self.alignment or self.alignment % 16:
            raise self.simulator.fault(f"{self.name}: 16 bytes at once need cuda.shared.array(..., alignment=16)")
        return super().place4(index)


class GlobalArray(CheckedArray):
    """An argument of a kernel.  Two arguments may lie on the same memory: marks are kept by address."""

    def __init__(self, simulator, name, array, marks):
        flat = array.reshape(-1)
        numbers = flat if array.dtype == F32 else memoryview(flat)      # a memoryview gives Python's own numbers
        first = array.__array_interface__["data"][0] // array.itemsize
        super().__init__(simulator, name, array.shape, array.dtype, numbers, marks, first)


class Marks(dict):
    """Of the global memory, for one launch."""

    def __missing__(self, address):
        mark = self[address] = Mark()
        return mark
