"""A GPU played in Python: it runs the kernels of this package thread by thread, and sees what a GPU would not tell.

    with minilstm.device.simulated(seed=1) as simulator:
        net = minilstm.LSTM(3, 8, backend="gpu")
        net.forward(x)
    assert not simulator.races

A kernel's function runs as it stands, with other globals: ``cuda`` is an object of ``cuda_twin.py``, ``ptx`` one of
``twins.py``, and arrays are those of ``memory.py``.  Each thread of the grid is a greenlet (``threads.py``), which runs
until it has to wait.  So a debugger stops in a kernel as in any function: ``breakpoint()`` in one works, and a failed
assertion in it has a traceback.  ``stepping.py`` shows what some threads do, line by line and side by side.

What is an error here, a SimulationError that says which thread did it in which line:

*   an index outside of an array, in any memory; 16 bytes at an index that is no multiple of 4;
*   a state in which nobody can go on: blocks that wait for each other in a kernel that is not ``resident``, whose
    blocks run one after the other here, or lanes of a warp that others left alone;
*   a barrier to which only a part of a block comes, or different parts come in different lines;
*   a shuffle from a lane that is not there; a shared array of different shapes for different threads, or with no room;
*   a float64 stored as a float32; an argument of another dtype or number of axes than the kernel says.

What is noted in ``races``: two accesses to the same number, in shared or in global memory, that nothing orders
(``memory.py`` says what does).

What shows in the results: memory that nobody has written holds NaN, and so does a place to which something is copied
asynchronously, until the copy is waited for.

What is not seen: time.  Memory as a GPU has it: here every store is seen at once by everybody, so a missing fence makes
no difference.  Conflicts of banks.  Double precision that NumPy does not have where Numba has it: float32 times a
Python float is float32 in the one and float64 in the other; ``machine_code.report`` counts such instructions.  A loop
that waits for another block with ordinary reads does not end.

With the same seed the same things happen in the same order.
"""
import contextlib
import math
import random
import types
from collections import Counter

import numpy as np
from numba import cuda
from numba.core import types as numba_types
from numba.np.numpy_support import as_dtype

from . import ptx, twins
from .arrays import DeviceArray
from .cuda_twin import Cuda
from .memory import NATIVE, GlobalArray, Marks, Race, SharedArray, SimulationError, poisoned
from .threads import Block, Run

__all__ = ["Race", "SharedArray", "SimulationError", "Simulator"]


class Simulator:
    """seed             None for the natural order of threads, or a number for one of many others
    multiprocessors     how many the GPU has
    record_races        look for races; takes about half of the time of a launch
    give_up             True: a thread that waits in vain for another block gives up, as on a GPU, and the next
                        ``device.synchronize()`` raises.  False: it is an error at once, which says who waits where
    steps               a ``stepping.Steps``, which prints what some threads do

    races       list of Race
    launched    names of kernels, in order
    copies      ("to device" or "to host", bytes) of each copy, in order
    reads       (kernel, argument) -> how many numbers were read from global memory
    """
    name, compute_capability = "simulator", (9, 0)

    def __init__(self, seed=None, multiprocessors=8, record_races=True, give_up=False, steps=None):
        self.random = None if seed is None else random.Random(seed)
        self.multiprocessors, self.record_races = multiprocessors, record_races
        self.give_up, self.steps = give_up, steps
        self.races, self.launched, self.copies, self.reads, self.idle = [], [], [], Counter(), {}
        self.cuda, self.ptx = Cuda(self), twins.make(self)
        self.current = None                                     # the thread that runs
        self.clock = 0                                          # counts barriers
        self.moved = self.hopeless = False                      # see threads.Run
        self.error = DeviceArray(self, types.SimpleNamespace(bytes=np.zeros(4, np.uint8)), (1,), np.int32)

    # ------------------------------------------------------------------------------------------------ memory, as gpu.py

    def allocate(self, size):
        return poisoned(size)

    def release(self, memory):
        """Nothing is to be done: Python frees it."""

    def reused(self, memory):
        memory[...] = poisoned(memory.size)
        return memory

    def typed(self, block, offset, shape, dtype):
        size = int(np.prod(shape)) * dtype.itemsize
        return block.bytes[offset:offset + size].view(dtype).reshape(shape)

    def clear(self, raw):
        raw.fill(0)

    def from_host(self, array, raw):
        self.copies.append(("to device", array.nbytes))
        raw[...] = array

    def to_host(self, raw):
        self.synchronize()
        self.copies.append(("to host", raw.nbytes))
        return raw.copy()

    def adopted(self, array):
        raise ValueError("array: expected a NumPy array in the simulator, got one that is on a GPU")

    def synchronize(self):
        if self.error.raw[0]:
            self.error.raw[0] = 0
            raise RuntimeError("a kernel waited in vain for another block: its results are not to be used")

    # --------------------------------------------------------------------------------------------------------- a launch

    def launch(self, kernel, grid, arguments):
        """Resident blocks run side by side, others one after the other."""
        self.launched.append(kernel.name)
        self.kernel, self.grid, self.rewritten, self.noted = kernel, grid, {}, set()
        function, marks = self._rewritten(kernel.function), Marks()
        arguments = [self._argument(*of_one, marks) for of_one in zip(kernel.parameters, kernel.types, arguments)]
        places = [(x, y) for y in range(grid[1]) for x in range(grid[0])]
        if self.random:
            self.random.shuffle(places)
        watching = self.steps.watching(self) if self.steps else contextlib.nullcontext()
        self.run = Run(self, function, arguments)
        with np.errstate(all="ignore"), contextlib.closing(self.run), watching:
            for some in [places] if kernel.resident else [[place] for place in places]:
                self.run.side_by_side([Block(place, grid, kernel.threads) for place in some])
        for argument in arguments:
            if isinstance(argument, GlobalArray):
                self.reads[kernel.name, argument.name] += argument.reads

    def _argument(self, name, type_, value, marks):
        if isinstance(type_, numba_types.Array):
            return GlobalArray(self, name, value, marks)
        return NATIVE[as_dtype(type_)](value)

    def look_again(self):
        self.run.look_again()

    def exchange(self, value, mask=0xffffffff, what="an exchange"):
        """Every lane of the warp gives a value and gets the list of all 32, None from a lane that is not there."""
        return self.run.meet_warp(what, mask, value)

    # ------------------------------------------------------------------------------------------------------- complaints

    def fault(self, text):
        """A SimulationError about what the running thread does."""
        return SimulationError(f"{self.kernel.name}, {self.current}, {self.current.line}: {text}")

    def note_race(self, kind, array, index, earlier):
        race = Race(self.kernel.name, kind, array, index, str(earlier), str(self.current), self.current.line)
        if (kind, array, race.line) not in self.noted:
            self.noted.add((kind, array, race.line))
            self.races.append(race)

    # ------------------------------------------------------------------------------------- the same code, other globals

    def _converted(self, value):
        if value is cuda:
            return self.cuda
        if value is ptx:
            return self.ptx
        if isinstance(value, numba_types.Number):
            return as_dtype(value).type
        if value is math:
            return twins.MATH
        if isinstance(value, types.FunctionType):
            return self._rewritten(twins.FORMULAS.get(value, value))
        return value

    def _rewritten(self, function):
        if function not in self.rewritten:
            names = {"__builtins__": __builtins__, "__name__": function.__module__}
            closure = tuple(types.CellType() for _ in function.__closure__ or ())
            self.rewritten[function] = types.FunctionType(function.__code__, names, function.__name__,
                                                          function.__defaults__, closure or None)
            for cell, old in zip(closure, function.__closure__ or ()):
                cell.cell_contents = self._converted(old.cell_contents)
            used = {name for code in _codes(function.__code__) for name in code.co_names}
            names.update({name: self._converted(value) for name, value in function.__globals__.items() if name in used})
        return self.rewritten[function]


def _codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
