"""Arrays in the memory of a GPU."""
import math
from typing import NamedTuple

import numpy as np


class DeviceArray:
    """A C-contiguous array in the memory of a GPU, or of the simulator that plays one.

    shape, dtype, ndim, size, nbytes        as NumPy has them
    copy_to_host()                          a NumPy array, after all kernels launched before; np.asarray does the same
    __cuda_array_interface__                for PyTorch, CuPy and Numba, which so use the same memory without a copy:
                                            ``torch.as_tensor(array, device="cuda")``
    float(array)                            of one number, likewise
    reshape(shape), array[k], array[k, j], array.part(first, last)
                                            views of the same memory: another shape, a part by its first indices, or the
                                            range from first to last of the first axis
    T                                       of two axes, for a product only: see ``Transposed``
    """

    def __init__(self, device, memory, shape, dtype, offset=0):
        """memory: whatever ``device`` gave for the bytes; offset: of the first number in it, in bytes."""
        self.device, self.memory, self.offset = device, memory, offset
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self._raw = None

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize

    @property
    def raw(self):
        """What a kernel is given: Numba's array, or NumPy's in the simulator."""
        if self._raw is None:
            self._raw = self.device.typed(self.memory, self.offset, self.shape, self.dtype)
        return self._raw

    @property
    def __cuda_array_interface__(self):
        return self.raw.__cuda_array_interface__

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("copy: expected True or None, since these numbers are in a GPU's memory, got False")
        host = self.copy_to_host()
        return host if dtype is None else host.astype(dtype, copy=False)

    def __float__(self):
        return float(self.copy_to_host().item())

    def __reduce__(self):
        """To pickle and copy.deepcopy: by way of the host, to the GPU that is then in use."""
        from .gpu import to_device
        return to_device, (self.copy_to_host(),)

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self):
        return f"DeviceArray({self.dtype} {self.shape})"

    def copy_to_host(self):
        return self.device.to_host(self.raw)

    def reshape(self, *shape):
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        if -1 in shape:
            known = math.prod(n for n in shape if n != -1)
            shape = tuple(self.size // known if n == -1 else n for n in shape)
        if math.prod(shape) != self.size:
            raise ValueError(f"shape: expected {self.size} numbers, as in {self.shape}, got {shape}")
        return DeviceArray(self.device, self.memory, shape, self.dtype, self.offset)

    @property
    def T(self):
        if self.ndim != 2:
            raise ValueError(f"T: expected an array of two axes, got {self.shape}")
        return Transposed(self)

    def part(self, first, last):
        if not 0 <= first <= last <= len(self):
            raise IndexError(f"part: expected 0 <= first <= last <= {len(self)}, got {first}, {last}")
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        return DeviceArray(self.device, self.memory, (last - first, *self.shape[1:]), self.dtype,
                           self.offset + first * row)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        if len(index) > self.ndim or not all(isinstance(i, (int, np.integer)) for i in index):
            raise TypeError(f"index: expected integers for the first of {self.ndim} axes, got {index}")
        start = 0
        for i, n in zip(index, self.shape):
            if not -n <= i < n:
                raise IndexError(f"index: {index} is outside of {self.shape}")
            start = start * n + int(i) % n
        rest = self.shape[len(index):]
        return DeviceArray(self.device, self.memory, rest, self.dtype,
                           self.offset + start * math.prod(rest) * self.dtype.itemsize)


class Transposed(NamedTuple):
    """A matrix to be read by columns: ``array.T`` in a product.  Nothing is moved."""
    array: DeviceArray

    @property
    def shape(self):
        return self.array.shape[::-1]
