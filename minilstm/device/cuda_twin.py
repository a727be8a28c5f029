"""What a kernel sees as ``cuda`` in the simulator: Numba's names for what a GPU can do, as far as kernels here go.

Sources: Numba's reference of numba.cuda; NVIDIA, CUDA C++ Programming Guide; NVIDIA, Parallel Thread Execution ISA.
"""
import linecache
import sys
from types import SimpleNamespace

import numpy as np

from .memory import LocalArray, SharedArray, dtype_of
from .threads import ORDERS, WARP, Place

ALL = 0xffffffff                        # lanes of a warp
STATIC_LIMIT = 48 * 1024                # bytes of shared memory of a block, as the assembler has it
LIMIT = 227 * 1024                      # with dynamic shared memory, on an H100


def name_in(frame):
    """What the line assigns to."""
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).partition("=")[0].strip() or "an array"


class Cuda:
    warpsize = WARP

    def __init__(self, simulator):
        self.simulator = simulator
        self.shared = SimpleNamespace(array=self._shared_array)
        self.local = SimpleNamespace(array=self._local_array)
        self.atomic = SimpleNamespace(add=self._atomic(lambda a, b: a + b), max=self._atomic(max),
                                      min=self._atomic(min), exch=self._atomic(lambda a, b: b))

    def __getattr__(self, name):
        raise self.simulator.fault(f"cuda.{name} is not known to the simulator; its place is device/cuda_twin.py")

    # ------------------------------------------------------------------------------------------------------- who am I

    threadIdx = property(lambda self: self.simulator.current.place)
    blockIdx = property(lambda self: self.simulator.current.block.place)
    blockDim = property(lambda self: Place(self.simulator.kernel.threads))
    gridDim = property(lambda self: Place(*self.simulator.grid))
    laneid = property(lambda self: self.simulator.current.lane)

    def grid(self, axes):
        self._one(axes)
        thread = self.simulator.current
        return thread.block.place.x * self.simulator.kernel.threads + thread.index

    def gridsize(self, axes):
        self._one(axes)
        return self.simulator.grid[0] * self.simulator.kernel.threads

    def _one(self, axes):
        if axes != 1:
            raise self.simulator.fault(f"cuda.grid: expected 1 axis, as blocks here have, got {axes}")

    # ---------------------------------------------------------------------------------------------------------- waiting

    def syncthreads(self):
        self.simulator.run.meet_block()

    def syncwarp(self, mask=ALL):
        if int(mask) & ALL != ALL:
            raise self.simulator.fault(f"cuda.syncwarp: expected all lanes, got the mask {mask:#x}")
        self.simulator.run.meet_warp(ORDERS, ALL)

    def threadfence(self):
        """Stores are seen at once by everybody anyway."""

    threadfence_block = threadfence

    def ballot_sync(self, mask, predicate):
        """The answers of a warp's lanes, as the bits of an int32."""
        answers = self.simulator.run.meet_warp("cuda.ballot_sync", mask, bool(predicate))
        bits = sum(1 << lane for lane, answer in enumerate(answers) if answer)
        return bits - (bits >> 31 << 32)

    def any_sync(self, mask, predicate):
        return any(self.simulator.run.meet_warp("cuda.any_sync", mask, bool(predicate)))

    def all_sync(self, mask, predicate):
        return False not in self.simulator.run.meet_warp("cuda.all_sync", mask, bool(predicate))

    def shfl_sync(self, mask, value, lane):
        return self._shuffle("cuda.shfl_sync", mask, value, int(lane) % WARP)

    def shfl_xor_sync(self, mask, value, bits):
        return self._shuffle("cuda.shfl_xor_sync", mask, value, self.laneid ^ int(bits))

    def shfl_down_sync(self, mask, value, distance):
        source = self.laneid + int(distance)
        return self._shuffle("cuda.shfl_down_sync", mask, value, source if source < WARP else self.laneid)

    def shfl_up_sync(self, mask, value, distance):
        source = self.laneid - int(distance)
        return self._shuffle("cuda.shfl_up_sync", mask, value, source if source >= 0 else self.laneid)

    def _shuffle(self, what, mask, value, source):
        found = self.simulator.run.meet_warp(what, mask, value)[source]
        if found is None:
            raise self.simulator.fault(f"{what}: lane {source} is not there, or not in it")
        return found

    # ----------------------------------------------------------------------------------------------- memory, arithmetic

    def _local_array(self, shape, dtype, alignment=None):
        return LocalArray(self.simulator, name_in(sys._getframe(1)), shape, dtype_of(dtype))

    def _shared_array(self, shape, dtype, alignment=None):
        """Threads of a block that come to the same line get the same array.  Shape 0: the dynamic shared memory."""
        block, dtype, frame = self.simulator.current.block, dtype_of(dtype), sys._getframe(1)
        if shape == 0:
            site, shape = "dynamic", self.simulator.kernel.shared_bytes // dtype.itemsize
        else:
            site = frame.f_code, frame.f_lasti
        array = block.shared.get(site)
        if array is None:
            array = SharedArray(self.simulator, name_in(frame), shape, dtype, alignment)
            if site != "dynamic":
                block.shared_bytes += array.nbytes
            self._check_room(block)
            block.shared[site] = array
        if array.dtype != dtype or array.shape != (shape if isinstance(shape, tuple) else (shape,)):
            raise self.simulator.fault(f"cuda.shared.array: {array} for one thread, {dtype} {shape} for another")
        return array

    def _check_room(self, block):
        static, dynamic = block.shared_bytes, self.simulator.kernel.shared_bytes
        if static > STATIC_LIMIT or static + dynamic > LIMIT:
            raise self.simulator.fault(f"cuda.shared.array: {static} bytes of static and {dynamic} of dynamic shared "
                                       f"memory; there are {STATIC_LIMIT} static ones and {LIMIT} together")

    def _atomic(self, operation):
        def atomic(array, index, value):
            place = array.place(index)
            old = array.read_relaxed(place)
            array.write_relaxed(place, operation(old, value))
            return old

        return atomic

    def fma(self, a, b, c):
        """In double precision the product is exact, and the sum is rounded to so many more digits that a second
        rounding hardly ever tells."""
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))
