"""A CUDA GPU, through numba-cuda: the first one, or the one whose context another library has made current.

numba-cuda compiles a kernel and loads it.  Its launch asks the driver for the current context and describes every array
anew, each time; here an array is described once, in the same words (numba.cuda.dispatcher._Kernel._prepare_args), and
given to the launch function of cuda.core that numba-cuda uses as well.  All work is done in the default stream.

Use it from one thread at a time.
"""
import ctypes
import threading
from typing import Any, NamedTuple

import numpy as np
from numba import types

from .arrays import DeviceArray
from .gpu import DTYPES, NoGPU
from .machine_code import compiler

OLDEST = (8, 0)             # compute capability: asynchronous copies and tensor cores for TF32 begin there
CURE = "The backends 'cpu' and 'reference' need no GPU."
WIDEST_LOAD = 16            # bytes at once (ptx.py), whose address has to be a multiple of it
DEFAULT_STREAM = 1          # as __cuda_array_interface__ numbers it
SCALARS = {types.float32: ctypes.c_float, types.int32: ctypes.c_int32, types.boolean: bool}


class Memory(NamedTuple):
    """Bytes of the GPU."""
    address: int
    owner: Any = None           # of bytes of another library: its array, with which they go


class Adopted(NamedTuple):
    """Memory that belongs to another library."""
    bytes: Memory


class Raw:
    """An array as a kernel is given it."""
    __slots__ = "address", "shape", "dtype", "nbytes", "arguments"

    def __init__(self, address, shape, dtype):
        self.address, self.shape, self.dtype = address, shape, dtype
        size, strides = 1, []
        for n in reversed(shape):
            strides.insert(0, size * dtype.itemsize)
            size *= n
        self.nbytes = size * dtype.itemsize
        self.arguments = (0, 0, size, dtype.itemsize, self.address, *shape, *strides)   # no meminfo, no parent

    @property
    def __cuda_array_interface__(self):
        return {"version": 3, "shape": self.shape, "typestr": self.dtype.str, "strides": None, "stream": DEFAULT_STREAM,
                "data": (self.address if self.nbytes else 0, False)}


class CudaGPU:
    def __init__(self):
        self.cuda = cuda_with_gpu()
        from cuda import core
        from numba.cuda.cudadrv import driver
        self.driver, self.launch_kernel, self.LaunchConfig = driver, core.launch, core.LaunchConfig
        self.cooperative = "is_cooperative" if core.__version__ >= "1" else "cooperative_launch"
        self.idle, self.compiled, self.thread = {}, {}, threading.local()
        self._enter_thread()
        self.context = self.cuda.current_context()
        device = self.context.device
        self.id, self.name, self.compute_capability = device.id, str(device.name), tuple(device.compute_capability)
        if self.compute_capability < OLDEST:
            raise NoGPU(f"{self.name} has compute capability {'.'.join(map(str, self.compute_capability))}, and "
                        f"{'.'.join(map(str, OLDEST))} is the oldest that these kernels run on. {CURE}")
        self.multiprocessors = device.MULTIPROCESSOR_COUNT
        self.stream = driver._to_core_stream(0)
        self.error = DeviceArray(self, Adopted(self.allocate(4)), (1,), np.int32)   # 1: a kernel has waited in vain
        self.clear(self.error.raw)

    def _enter_thread(self):
        """The driver has a current context in each thread of the host."""
        if not hasattr(self.thread, "entered"):
            self.cuda.current_context()
            self.thread.entered = True

    # ------------------------------------------------------------------------------------------------ memory, as gpu.py

    def allocate(self, size):
        """Raises MemoryError.  Nobody but ``release`` frees these bytes: what numba-cuda allocates it frees by itself,
        of garbage in a cycle even before ``_Block`` keeps it for the next array."""
        self._enter_thread()
        try:
            return Memory(int(self.driver.driver.cuMemAlloc(size)))
        except self.driver.CudaAPIError as error:
            if error.code != self.driver.binding.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise
            raise MemoryError(f"{self.name} has no {size} bytes left") from error

    def release(self, memory):
        """Give bytes back to the driver, when all kernels have ended."""
        self._enter_thread()
        self.driver.driver.cuMemFree(memory.address)

    def reused(self, memory):
        return memory

    def typed(self, block, offset, shape, dtype):
        return Raw(block.bytes.address + offset, shape, dtype)

    def clear(self, raw):
        self._enter_thread()
        if raw.nbytes:
            self.driver.driver.cuMemsetD8(raw.address, 0, raw.nbytes)

    def from_host(self, array, raw):
        self._enter_thread()
        if raw.nbytes:
            self.driver.driver.cuMemcpyHtoD(raw.address, array.ctypes.data, raw.nbytes)

    def to_host(self, raw):
        self._enter_thread()
        host = np.empty(raw.shape, raw.dtype)
        if raw.nbytes:
            self.driver.driver.cuMemcpyDtoH(host.ctypes.data, raw.address, raw.nbytes)
        self._check()
        return host

    def adopted(self, array):
        """A DeviceArray on the memory of another library's array, after what that library has begun on it."""
        self._enter_thread()
        view = self.cuda.as_cuda_array(array)
        if not view.is_c_contiguous():
            raise ValueError("array: expected a C-contiguous array on the GPU, got one with strides "
                             f"{view.strides}; array.contiguous() makes one")
        if view.dtype not in DTYPES:
            raise TypeError(f"array: expected float32, int32 or bool, got {view.dtype}")
        address = view.device_ctypes_pointer.value or 0
        if address % WIDEST_LOAD:
            raise ValueError(f"array: expected one that begins at a multiple of {WIDEST_LOAD} bytes, got a part of "
                             "another that does not; array.clone() makes one that does")
        return DeviceArray(self, Adopted(Memory(address, array)), view.shape, view.dtype)

    def synchronize(self):
        self._enter_thread()
        self.context.synchronize()
        self._check()

    def _check(self):
        flag = np.zeros(1, np.int32)
        self.driver.driver.cuMemcpyDtoH(flag.ctypes.data, self.error.raw.address, flag.nbytes)
        if flag[0]:
            self.clear(self.error.raw)
            raise RuntimeError("a kernel waited in vain for another block: its results are not to be used")

    # --------------------------------------------------------------------------------------------------------- a launch

    def launch(self, kernel, grid, arguments):
        self._enter_thread()
        compiled = self.compiled.get(kernel)
        if compiled is None:
            compiled = self.compiled[kernel] = self._compile(kernel)
        config = compiled.configs.get(grid)
        if config is None:
            config = compiled.configs[grid] = self._configured(kernel, grid)
        values = []
        for argument, scalar in zip(arguments, compiled.scalars):
            if scalar is None:
                values += argument.arguments
            else:
                values.append(scalar(argument))
        self.launch_kernel(self.stream, config, compiled.function.kernel, *values)

    def _compile(self, kernel):
        compiled = self.cuda.jit(kernel.types, launch_bounds=(kernel.threads, kernel.blocks_per_sm), lto=False)(
            kernel.unrolled).overloads[kernel.types]
        compiled.bind()
        function = compiled.library.get_cufunc()
        if kernel.shared_bytes:
            self._allow_shared(kernel, function)
        return Compiled(compiled, function, [SCALARS.get(type_) for type_ in kernel.types], {})

    def _allow_shared(self, kernel, function):
        """More than 48 KiB of shared memory have to be asked for; numba-cuda does not."""
        largest = self.driver.binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        try:
            self.driver.driver.cuKernelSetAttribute(largest, kernel.shared_bytes, function.handle, self.id)
        except self.driver.CudaAPIError as error:
            raise RuntimeError(f"{kernel.name}: {self.name} has not {kernel.shared_bytes} bytes of dynamic shared "
                               f"memory for a block with {function.attrs.shared} static ones") from error

    def _configured(self, kernel, grid):
        """A launch whose blocks wait for each other is "cooperative": it fails where they cannot run all at once."""
        return self.LaunchConfig(grid=(*grid, 1), block=(kernel.threads, 1, 1), shmem_size=kernel.shared_bytes,
                                 **{self.cooperative: kernel.resident})


class Compiled(NamedTuple):
    """A kernel on the GPU."""
    compiled: Any               # numba-cuda's, which keeps the machine code
    function: Any               # and what it has loaded, with the kernel of cuda.core
    scalars: list               # for each argument: None for an array, or what makes the launch's number of it
    configs: dict               # grid -> LaunchConfig


# ------------------------------------------------------------------------------------------------------ what is missing

def cuda_with_gpu():
    """The module numba.cuda.  Raises NoGPU, which says what is missing."""
    try:
        cuda = compiler()
    except ImportError as error:
        raise NoGPU(f"{error}. {CURE}") from None
    missing = None
    if not cuda.is_available():
        missing = cuda.cuda_error() or "the compiler's library libnvvm is missing: pip install 'minilstm[gpu]'"
    elif not len(cuda.gpus):
        missing = "the driver knows of none."
    if missing:
        raise NoGPU(f"no CUDA GPU can be used here: {' '.join(missing.split())} {CURE}")
    return cuda
