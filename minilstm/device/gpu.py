"""Which GPU is in use, and what it does: allocate, copy, launch.

Inside ``with simulated():`` it is the simulator, else the first CUDA GPU, found at its first use.  Whatever stands
above this file cannot tell one from the other.

    device = current()                      raises NoGPU, which says what is missing
    a = to_device(numbers)                  NumPy arrays are copied, arrays on the GPU (PyTorch, CuPy) are not
    b = empty(a.shape, "float32")
    launch(kernel, grid, a, b, 3)
    b.copy_to_host()

Memory that is no longer used is kept for the next array of its size: all work is done in one stream, in its order, so a
kernel that still reads an array ends before one that is launched later writes to the same bytes.  When there is no room
for an array, all that is kept is given back, and asked for once more.
"""
import contextlib
import math

import numpy as np
from numba import types

from ..arguments import flag
from .arrays import DeviceArray

ALIGNMENT = 256             # bytes, as CUDA's own allocator has it
DTYPES = np.dtype("float32"), np.dtype("int32"), np.dtype("bool")


class NoGPU(RuntimeError):
    """There is no GPU that could be used.  The backends "cpu" and "reference" need none."""


_played = []                # simulators in use, the last one counts
_tf32 = False
_real = None                # the GPU, once it has been found


def current():
    """The GPU in use.  Raises NoGPU where there is none."""
    global _real
    if _played:
        return _played[-1]
    if _real is None:
        from .cuda_gpu import CudaGPU
        _real = CudaGPU()
    return _real


@contextlib.contextmanager
def simulated(**options):
    """In this block a simulator plays the GPU; options as for ``simulator.Simulator``, which it gives back.  Raises
    ImportError where greenlet is not installed."""
    try:
        import greenlet                                     # noqa: F401
    except ImportError:
        raise ImportError("the simulator needs greenlet: pip install 'minilstm[simulator]'") from None
    from .simulator import Simulator
    simulator = Simulator(**options)
    _played.append(simulator)
    try:
        yield simulator
    finally:
        _played.remove(simulator)


def allow_tf32(allowed):
    """May products round what they multiply to TF32, 10 bits of mantissa, on tensor cores?  Not unless this is called:
    float32 results then have relative errors of some 1e-3 in place of 1e-6; large products take less time.  PyTorch's
    switches for the same are ``torch.backends.cuda.matmul.allow_tf32`` and ``torch.backends.cudnn.allow_tf32``.
    """
    global _tf32
    _tf32 = flag("allowed", allowed)


def tf32_allowed():
    return _tf32


def empty(shape, dtype="float32"):
    """A DeviceArray of float32, int32 or bool with arbitrary numbers; in the simulator with NaN, so that a read before
    a write shows.  Raises MemoryError."""
    device, dtype = current(), np.dtype(dtype)
    if dtype not in DTYPES:
        raise TypeError(f"dtype: expected float32, int32 or bool, got {dtype}")
    shape = shape if isinstance(shape, tuple) else (shape,)
    size = -(-max(1, math.prod(shape) * dtype.itemsize) // ALIGNMENT) * ALIGNMENT
    return DeviceArray(device, _Block(device, size), shape, dtype)


def zeros(shape, dtype="float32"):
    array = empty(shape, dtype)
    array.device.clear(array.raw)
    return array


def to_device(array):
    """A NumPy array -> a copy of it; an array of another library that is on the GPU -> a view of the same memory, which
    has to be C-contiguous.  float32, int32 or bool."""
    device = current()
    if isinstance(array, DeviceArray):
        if array.device is not device:
            raise ValueError("array: expected one of the GPU in use, got one of another GPU or simulator")
        return array
    if hasattr(array, "__cuda_array_interface__"):
        return device.adopted(array)
    array = np.asarray(array, order="C")
    copy = empty(array.shape, array.dtype)
    device.from_host(array, copy.raw)
    return copy


def launch(kernel, grid, *arguments):
    """Run a Kernel with ``grid`` blocks, a number or a pair; DeviceArrays and numbers.  A grid of 0 does nothing.

    Raises TypeError for arguments of another number, dtype or number of axes than the kernel says, ValueError for a
    number beyond int32, and for a resident kernel with more blocks than fit on the GPU together."""
    device = current()
    grid = tuple(int(n) for n in grid) if isinstance(grid, tuple) else (int(grid), 1)
    if len(arguments) != len(kernel.types):
        raise TypeError(f"{kernel.name}: expected {len(kernel.types)} arguments, {', '.join(kernel.parameters)}, "
                        f"got {len(arguments)}")
    if kernel.resident and math.prod(grid) > device.multiprocessors * kernel.blocks_per_sm:
        raise ValueError(f"{kernel.name}: {math.prod(grid)} blocks wait for each other, and only "
                         f"{device.multiprocessors * kernel.blocks_per_sm} can be on this GPU together")
    if not (0 <= grid[0] < 2**31 and 0 <= grid[1] < 2**16):
        raise ValueError(f"{kernel.name}, grid: expected at most {2**31 - 1} by {2**16 - 1} blocks, got {grid}")
    raw = [_raw(device, kernel, k, argument) for k, argument in enumerate(arguments)]
    if math.prod(grid):
        device.launch(kernel, grid, raw)


def _raw(device, kernel, k, argument):
    """What the device takes for the kernel's k-th argument."""
    expected = kernel.arrays[k]
    if isinstance(argument, DeviceArray) and expected:
        if (argument.dtype, argument.ndim) == expected and argument.device is device:
            return argument.raw
    elif not expected and not isinstance(argument, DeviceArray):
        if kernel.types[k] == types.int32 and not -2**31 <= argument < 2**31:
            raise ValueError(f"{kernel.name}, {kernel.parameters[k]}: expected a number of 32 bits, got {argument}")
        return argument
    if isinstance(argument, DeviceArray) and argument.device is not device:
        raise ValueError(f"{kernel.name}, {kernel.parameters[k]}: expected an array of the GPU in use, got one of "
                         "another GPU or simulator")
    wanted = f"a DeviceArray of {expected[0]} with {expected[1]} axes" if expected else f"a number, {kernel.types[k]}"
    raise TypeError(f"{kernel.name}, {kernel.parameters[k]}: expected {wanted}, got {argument!r}")


def synchronize():
    """Wait for all kernels.  Raises RuntimeError if one of them waited in vain for another block."""
    current().synchronize()


class _Block:
    """A lease of bytes: when the last array on them is gone, they are free for the next."""

    def __init__(self, device, size):
        self.device, self.size, self.bytes = device, size, None
        try:
            self.bytes = device.reused(device.idle[size].pop())
        except (KeyError, IndexError):
            self.bytes = _allocated(device, size)

    def __del__(self):
        """May run in any thread, and while Python ends: it only appends to a list."""
        if self.bytes is not None:
            self.device.idle.setdefault(self.size, []).append(self.bytes)


def _allocated(device, size):
    try:
        return device.allocate(size)
    except MemoryError:
        for kept_size in list(device.idle):
            for memory in device.idle.pop(kept_size):
                device.release(memory)
        return device.allocate(size)
