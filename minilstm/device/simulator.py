"""A GPU played in Python: it runs the kernels of this package thread by thread, and sees what a GPU would not tell.

    with minilstm.device.simulated(seed=1) as simulator:
        net = minilstm.LSTM(3, 8, backend="gpu")
        net.forward(x)
    assert not simulator.races

A kernel's function runs with other globals: ``cuda`` is an object of this file and ``ptx`` one of ``twins.py``.  Each
thread of the grid is a greenlet, which runs until it has to wait: at a barrier, in a shuffle, in a loop that polls
memory.  So a debugger stops in a kernel as in any function, and a failed assertion in it has a traceback.

What it does beyond computing:

*   the blocks of a resident kernel are on the chip together, those of any other run one after the other, so that a
    kernel that waits for another block and does not say so is a deadlock here;
*   the order of threads is fixed or, with a seed, shuffled anew at every turn;
*   shared, local and freshly allocated memory holds NaN, so that a read of what nobody wrote shows;
*   each index is checked, and so is the alignment of 16-byte accesses;
*   two accesses to one place of shared memory by two threads, one of them a write, with no barrier between them, are
    noted in ``races``;
*   a state in which nobody can go on is an error.

What it does not have: time, and the memory model of a GPU: every store is seen at once by everybody.
"""
import random
import types

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda as real_cuda
from numba.core import types as numba_types
from numba.np import numpy_support

from . import ptx, twins
from .arrays import DeviceArray

BLOCK, WARP, GRID, SPIN = "block", "warp", "grid", "spin"       # what a suspended thread waits for
POISON = np.uint32(0x7fc0dead)                                  # a NaN, and not the one that says "not yet written"
PATIENCE = 2000                                                 # turns in which nothing moves


class SimulationError(RuntimeError):
    """A kernel did what a GPU would answer with rubbish, a crash or a hang."""


class Simulator:
    """seed: None for the natural order of threads; multiprocessors: how many the GPU has; record_races: note them."""
    name, compute_capability = "simulator", (9, 0)

    def __init__(self, seed=None, multiprocessors=8, record_races=True):
        self.random = None if seed is None else random.Random(seed)
        self.multiprocessors, self.record_races, self.races = multiprocessors, record_races, []
        self.launched = []                                      # names of kernels, in order
        self.idle = {}
        self.cuda = FakeCuda(self)
        self.ptx = twins.make(self)
        self.error = DeviceArray(self, types.SimpleNamespace(bytes=np.zeros(4, np.uint8)), (1,), np.int32)

    # ------------------------------------------------------------------------------------------------ memory, as gpu.py

    def allocate(self, size):
        return np.full(size // 4, POISON).view(np.uint8)

    def reused(self, memory):
        memory.view(np.uint32).fill(POISON)
        return memory

    def typed(self, block, offset, shape, dtype):
        size = int(np.prod(shape)) * dtype.itemsize
        return block.bytes[offset:offset + size].view(dtype).reshape(shape)

    def clear(self, raw):
        raw.fill(0)

    def from_host(self, array, raw):
        raw[...] = array

    def to_host(self, raw):
        self.synchronize()
        return raw.copy()

    def adopted(self, array):
        raise ValueError("array: expected a NumPy array in the simulator, got one that is on a GPU")

    def synchronize(self):
        if self.error.raw[0]:
            self.error.raw[0] = 0
            raise RuntimeError("a kernel waited in vain for another block: its results are not to be used")

    # --------------------------------------------------------------------------------------------------------- a launch

    def launch(self, kernel, grid, arguments):
        self.launched.append(kernel.name)
        self.kernel, self.grid = kernel, grid
        self.rewritten = {}
        run = self._rewrite(kernel.function)
        arguments = [GlobalArray(a, name) if isinstance(a, np.ndarray) else a
                     for a, name in zip(arguments, kernel.parameters)]
        places = [(x, y) for y in range(grid[1]) for x in range(grid[0])]
        if self.random:
            self.random.shuffle(places)
        for some in [places] if kernel.resident else [[place] for place in places]:
            self._run([Block(place, grid, kernel) for place in some], run, arguments)

    def _run(self, blocks, run, arguments):
        """Run some blocks side by side until all their threads are done."""
        self.hub = getcurrent()
        self.blocks = blocks
        threads = [Thread(run, block, index) for block in blocks for index in range(self.kernel.threads)]
        idle = 0
        while threads:
            order = list(threads)
            if self.random:
                self.random.shuffle(order)
            moved = False
            for thread in order:
                if thread.waits_for in (None, SPIN):
                    spun = thread.waits_for == SPIN
                    self.current, thread.waits_for = thread, None
                    if thread.started:
                        thread.switch()
                    else:
                        thread.started = True
                        thread.switch(*arguments)
                    moved |= not (spun and thread.waits_for == SPIN)
            threads = [thread for thread in threads if not thread.dead]
            moved |= self._open_barriers(threads)
            idle = 0 if moved else idle + 1
            if idle > PATIENCE:
                waiting = [(thread.block.index, thread.index, thread.waits_for) for thread in threads[:6]]
                raise SimulationError(f"{self.kernel.name}: nobody can go on; (block, thread, waits for): {waiting}")

    def _open_barriers(self, threads):
        """Let go of every barrier that all its live threads have reached -> was there one?"""
        members = {}
        for thread in threads:
            for what, group in ((BLOCK, thread.block), (WARP, thread.warp), (GRID, None)):
                members.setdefault((what, group), []).append(thread)
        opened = False
        for (what, group), group_threads in members.items():
            if all(thread.waits_for == what for thread in group_threads):
                opened = True
                for thread in group_threads:
                    thread.waits_for = None
                for one in self.blocks if what == GRID else [group]:
                    one.epoch += 1
        return opened

    # ---------------------------------------------------------------------------------------------- suspending a thread

    def wait(self, what):
        self.current.waits_for = what
        self.hub.switch()

    def look_again(self):
        """For a thread that polls memory: let others run first."""
        self.wait(SPIN)

    def exchange(self, value):
        """Every lane of the warp gives a value and gets the list of all 32, None from a lane that is not there."""
        thread = self.current
        slots = thread.warp.slots[thread.exchanges & 1]         # two in turn: a fast lane is at most one ahead
        thread.exchanges += 1
        slots[thread.lane] = value
        self.wait(WARP)
        return slots

    def shuffle(self, value, source):
        found = self.exchange(value)[source(self.current.lane)]
        if found is None:
            raise SimulationError(f"{self.kernel.name}: a shuffle from a lane that is not there")
        return found

    # ------------------------------------------------------------------------------------- the same code, other globals

    def _converted(self, value):
        if value is real_cuda:
            return self.cuda
        if value is ptx:
            return self.ptx
        if getattr(value, "runs_on_gpu", False):
            return self._rewrite(value)
        return twins.FORMULAS.get(value, value) if isinstance(value, types.FunctionType) else value

    def _rewrite(self, function):
        if function not in self.rewritten:
            names = {}
            closure = tuple(types.CellType(self._converted(cell.cell_contents)) for cell in function.__closure__ or ())
            self.rewritten[function] = types.FunctionType(function.__code__, names, function.__name__,
                                                          function.__defaults__, closure or None)
            used = {name for code in _codes(function.__code__) for name in code.co_names}
            names.update({name: self._converted(value) for name, value in function.__globals__.items() if name in used})
            names["__builtins__"] = __builtins__
        return self.rewritten[function]


def _codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


# ------------------------------------------------------------------------------------------------- who runs, and where

class Place:
    """One of the three-component numbers of CUDA."""

    def __init__(self, x=1, y=1, z=1):
        self.x, self.y, self.z = x, y, z


class Block:
    def __init__(self, place, grid, kernel):
        self.index = place[0] + place[1] * grid[0]
        self.place = Place(*place, 0)
        self.epoch = 0                                          # how many barriers its threads have passed
        self.shared = {}
        self.dynamic = np.full(max(kernel.shared_bytes, 4) // 4, POISON).view(np.float32)
        self.warps = [Warp() for _ in range(-(-kernel.threads // 32))]


class Warp:
    def __init__(self):
        self.slots = [None] * 32, [None] * 32
        self.epoch = 0


class Thread(greenlet):
    def __init__(self, run, block, index):
        super().__init__(run)
        self.block, self.index, self.lane, self.warp = block, index, index % 32, block.warps[index // 32]
        self.place = Place(index, 0, 0)
        self.waits_for, self.started = None, False
        self.shared_calls = self.exchanges = 0


class FakeCuda:
    """What a kernel sees as ``cuda``."""
    warpsize = 32

    def __init__(self, simulator):
        self.simulator = simulator
        self.shared = types.SimpleNamespace(array=self._shared_array)
        self.local = types.SimpleNamespace(array=lambda shape, dtype, alignment=None: poisoned(shape, dtype_of(dtype)))
        self.atomic = types.SimpleNamespace(add=self._atomic_add)

    threadIdx = property(lambda self: self.simulator.current.place)
    blockIdx = property(lambda self: self.simulator.current.block.place)
    blockDim = property(lambda self: Place(self.simulator.kernel.threads))
    gridDim = property(lambda self: Place(*self.simulator.grid))
    laneid = property(lambda self: self.simulator.current.lane)

    def grid(self, axes):
        if axes != 1:
            raise SimulationError("cuda.grid: expected 1 axis, as blocks here have")
        return self.blockIdx.x * self.simulator.kernel.threads + self.threadIdx.x

    def gridsize(self, axes):
        return self.simulator.kernel.threads * self.simulator.grid[0]

    def syncthreads(self):
        self.simulator.wait(BLOCK)

    def syncwarp(self, mask=0xffffffff):
        self.simulator.wait(WARP)

    def threadfence(self):
        pass

    def shfl_sync(self, mask, value, lane):
        return self.simulator.shuffle(value, lambda own: int(lane) % 32)

    def shfl_xor_sync(self, mask, value, bits):
        return self.simulator.shuffle(value, lambda own: own ^ int(bits))

    def shfl_down_sync(self, mask, value, distance):
        return self.simulator.shuffle(value, lambda own: own + distance if own + distance < 32 else own)

    def shfl_up_sync(self, mask, value, distance):
        return self.simulator.shuffle(value, lambda own: own - distance if own >= distance else own)

    def ballot_sync(self, mask, predicate):
        """The answers of a warp's lanes, as the bits of an int32."""
        bits = sum(1 << lane for lane, answer in enumerate(self.simulator.exchange(bool(predicate))) if answer)
        return np.uint32(bits).view(np.int32)

    def fma(self, a, b, c):
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))

    def _shared_array(self, shape, dtype, alignment=None):
        """The threads of a block get the same array: the n-th call of one is the n-th call of another."""
        thread, dtype = self.simulator.current, dtype_of(dtype)
        name = "dynamic" if shape == 0 else f"shared array {thread.shared_calls}"
        thread.shared_calls += 1
        if name not in thread.block.shared:
            array = thread.block.dynamic.view(dtype) if shape == 0 else poisoned(shape, dtype)
            thread.block.shared[name] = SharedArray(self.simulator, array, name)
        return thread.block.shared[name]

    @staticmethod
    def _atomic_add(array, index, value):
        old = array.array[index]
        array.array[index] = old + value
        return old


# ------------------------------------------------------------------------------------------------------------- memory

def dtype_of(dtype):
    return numpy_support.as_dtype(dtype) if isinstance(dtype, numba_types.Type) else np.dtype(dtype)


def poisoned(shape, dtype):
    array = np.empty(shape, dtype)
    array.reshape(-1).view(np.uint8)[...] = 0xad
    if dtype == np.float32:
        array.reshape(-1).view(np.uint32)[...] = POISON
    return array


class GlobalArray:
    """An argument of a kernel: every index is checked."""

    def __init__(self, array, name):
        self.array, self.name = array, name
        self.shape, self.size, self.dtype, self.ndim = array.shape, array.size, array.dtype, array.ndim

    def __getitem__(self, index):
        check_index(index, self)
        return self.array[index]

    def __setitem__(self, index, value):
        check_index(index, self)
        self.array[index] = value


def check_index(index, array):
    indices = index if isinstance(index, tuple) else (index,)
    if len(indices) != len(array.shape) or not all(0 <= i < n for i, n in zip(indices, array.shape)):
        raise SimulationError(f"{array.name}[{index}] is outside of its shape {array.shape}")


class SharedArray:
    """Shared memory of one block, in which each number remembers who read and who wrote it last."""

    def __init__(self, simulator, array, name):
        self.simulator, self.array, self.name = simulator, array, name
        self.shape, self.size, self.dtype, self.ndim = array.shape, array.size, array.dtype, array.ndim
        self.read, self.written = {}, {}                        # flat index -> (thread, block's epoch, warp's epoch)

    def __getitem__(self, index):
        flat = self._place(index)
        self._note("read after write", self.written.get(flat), index)
        self.read[flat] = self._now()
        return self.array[index]

    def __setitem__(self, index, value):
        flat = self._place(index)
        self._note("write after write", self.written.get(flat), index)
        self._note("write after read", self.read.get(flat), index)
        self.written[flat] = self._now()
        self.array[index] = value

    def _place(self, index):
        check_index(index, self)
        return int(np.ravel_multi_index(index, self.shape)) if isinstance(index, tuple) else int(index)

    def _now(self):
        thread = self.simulator.current
        return thread, thread.block.epoch, thread.warp.epoch

    def _note(self, kind, other, index):
        """A race, if no barrier of the block or, within one warp, of the warp lies between."""
        if other is None or not self.simulator.record_races:
            return
        thread, epoch, warp_epoch = self._now()
        their_thread, their_epoch, their_warp_epoch = other
        if their_thread is thread or their_epoch != epoch:
            return
        if their_thread.warp is thread.warp and their_warp_epoch != warp_epoch:
            return
        self.simulator.races.append((self.simulator.kernel.name, kind, self.name, index, their_thread.index,
                                     thread.index, thread.block.index))
