"""The first CUDA GPU, through numba-cuda."""
from typing import Any, NamedTuple

import numpy as np

from .arrays import DeviceArray
from .gpu import NoGPU

OLDEST = (8, 0)             # compute capability: asynchronous copies and tensor cores for TF32 begin there
CURE = "The backends 'cpu' and 'reference' need no GPU."


class _Adopted(NamedTuple):
    """Memory that belongs to another library."""
    owner: Any
    bytes: Any


class CudaGPU:
    def __init__(self):
        try:
            import numba_cuda                               # noqa: F401  (it takes the place of numba.cuda)
        except ImportError:
            raise NoGPU("the GPU compiler is not installed: pip install 'minilstm[gpu]'. " + CURE) from None
        from numba import config, cuda
        if not config.ENABLE_CUDASIM and not cuda.is_available():
            raise NoGPU(f"no CUDA GPU, or no driver for it, was found ({_reason(cuda)}). {CURE}")
        from . import activations                                           # noqa: F401  (registers GPU forms)
        self.cuda, self.idle, self.compiled = cuda, {}, {}
        device = cuda.get_current_device()
        self.name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        self.compute_capability = tuple(device.compute_capability)
        if self.compute_capability < OLDEST:
            raise NoGPU(f"{self.name} has compute capability {'.'.join(map(str, self.compute_capability))}, and 8.0 is "
                        f"the oldest that these kernels run on. {CURE}")
        self.multiprocessors = device.MULTIPROCESSOR_COUNT
        self.error = self.adopted(cuda.to_device(np.zeros(1, np.int32)))    # kernels that waited in vain set it to 1

    def allocate(self, size):
        return self.cuda.device_array(size, np.uint8)

    def reused(self, memory):
        return memory

    def typed(self, block, offset, shape, dtype):
        size = int(np.prod(shape)) * dtype.itemsize
        return block.bytes[offset:offset + size].view(dtype).reshape(shape)

    def clear(self, raw):
        memory = raw.reshape(-1).view(np.uint8)
        self.cuda.driver.device_memset(memory, 0, memory.size)

    def from_host(self, array, raw):
        raw.copy_to_device(array)

    def to_host(self, raw):
        host = raw.copy_to_host()
        self._check()
        return host

    def adopted(self, array):
        raw = self.cuda.as_cuda_array(array)
        if not raw.is_c_contiguous():
            raise ValueError("array: expected a C-contiguous array on the GPU, got one with strides "
                             f"{raw.strides}; array.contiguous() makes one")
        return DeviceArray(self, _Adopted(array, raw.reshape(-1).view(np.uint8)), raw.shape, raw.dtype)

    def launch(self, kernel, grid, arguments):
        compiled = self.compiled.get(kernel)
        if compiled is None:
            compiled = self.compiled[kernel] = self._compile(kernel)
        compiled[grid, kernel.threads, 0, kernel.shared_bytes](*arguments)

    def _compile(self, kernel):
        return self.cuda.jit(kernel.types, launch_bounds=(kernel.threads, kernel.blocks_per_sm), lto=False)(
            kernel.unrolled)

    def synchronize(self):
        self.cuda.synchronize()
        self._check()

    def _check(self):
        if self.error.raw.copy_to_host()[0]:
            self.clear(self.error.raw)
            raise RuntimeError("a kernel waited in vain for another block: its results are not to be used")


def _reason(cuda):
    try:
        cuda.get_current_device()
    except Exception as error:
        return str(error).strip().splitlines()[-1]
    return "unknown reason"
