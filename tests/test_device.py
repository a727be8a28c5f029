"""What the GPU backends stand on: arrays, launches, the memory that is used again, loops written out, machine code.

The real GPU's part is driven by numba-cuda on a driver that is played here: its memory is the host's, and a launch runs
the kernel in the simulator, on what the arguments of the launch point to.  So all is tested but the driver itself.
"""
import ctypes
import gc
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import compiled
import numpy as np
import pytest
from numba import cuda, float32

from minilstm import device
from minilstm.device import arrays, gpu, machine_code, ptx
from minilstm.device import kernel as kernels
from minilstm.device.kernel import B2, F1, F3, Float, I1, Int, device_function, kernel, unroll


def numbers(shape):
    return np.random.default_rng().normal(size=shape).astype("float32")


@kernel(threads=32)
def scale(x: F1, factor: Float, n: Int):
    i = cuda.grid(1)
    if i < n:
        x[i] *= factor


# --------------------------------------------------------------------------------------- on every GPU: arrays, launches

def test_arrays_go_to_the_gpu_and_back(gpu):
    for host in (numbers((3, 4)), np.arange(6, dtype="int32"), np.array([[True], [False]]), numbers((0, 3)),
                 np.float32(3)):
        array = device.to_device(host)
        assert (array.shape, array.dtype, array.ndim, array.size, array.nbytes) == (
            host.shape, host.dtype, host.ndim, host.size, host.nbytes)
        back = array.copy_to_host()
        assert back.dtype == host.dtype and back.shape == host.shape and (back == host).all()
        assert (np.asarray(array) == host).all()


def test_arrays_that_are_not_contiguous_are_copied_as_they_read(gpu):
    host = numbers((4, 6))
    for view in (host.T, host[::2], host[:, ::-1], np.broadcast_to(host[0], (3, 6)), np.asfortranarray(host)):
        assert (device.to_device(view).copy_to_host() == view).all()


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "complex64", ">f4"])
def test_other_numbers_are_refused(gpu, dtype):
    for make in (device.empty, device.zeros, lambda shape, dtype: device.to_device(np.zeros(shape, dtype))):
        with pytest.raises(TypeError, match="dtype: expected float32, int32 or bool, got"):
            make(3, dtype)


def test_zeros_are_zeros_in_memory_that_was_used(gpu):
    device.to_device(numbers(64))
    assert (device.zeros(64).copy_to_host() == 0).all()
    assert (device.zeros((3, 5), "int32").copy_to_host() == 0).all()
    assert not device.zeros(3, "bool").copy_to_host().any()
    assert device.zeros(0).copy_to_host().shape == (0,)


def test_views_share_the_memory(gpu):
    host = numbers((3, 4, 5))
    array = device.to_device(host)
    for view, expected in ((array[1], host[1]), (array[-1, 2], host[-1, 2]), (array[2, 3, 4], host[2, 3, 4]),
                           (array.part(1, 3), host[1:3]), (array.part(2, 2), host[2:2]), (array.reshape(12, 5), None),
                           (array.reshape((6, -1)), None), (array.reshape(-1), None), (array[1].reshape(2, 10), None)):
        expected = host.reshape(-1)[:0] if expected is None and view.size == 0 else expected
        if expected is None:
            expected = (host[1] if view.size == 20 else host).reshape(view.shape)
        assert (view.copy_to_host() == expected).all() and view.shape == expected.shape
    device.launch(scale, 1, array[1].reshape(-1), 2.0, 20)
    host[1] *= 2
    assert (array.copy_to_host() == host).all()
    assert isinstance(array[0].T, arrays.Transposed) and array[0].T.shape == (5, 4)


def test_wrong_views_are_errors(gpu):
    array = device.zeros((3, 4))
    for make, error, match in ((lambda: array[3], IndexError, r"\(3,\) is outside of \(3, 4\)"),
                               (lambda: array[0:1], TypeError, "expected integers for the first of 2 axes"),
                               (lambda: array[0, 0, 0], TypeError, "expected integers"),
                               (lambda: array.part(1, 4), IndexError, "expected 0 <= first <= last <= 3, got 1, 4"),
                               (lambda: array.reshape(5, 2), ValueError, "expected 12 numbers"),
                               (lambda: array[0].T, ValueError, "expected an array of two axes"),
                               (lambda: np.array(array, copy=False), ValueError, "copy: expected True or None")):
        with pytest.raises(error, match=match):
            make()


def test_a_launch_on_a_part(gpu):
    host = numbers(100)
    array = device.to_device(host)
    device.launch(scale, 2, array.part(10, 50), 0.5, 40)
    device.launch(scale, 0, array, 3.0, 100)
    host[10:50] *= np.float32(0.5)
    assert (array.copy_to_host() == host).all()
    device.synchronize()


def test_memory_is_used_again(gpu):
    first = device.empty(1000)
    place = first.memory.bytes
    assert device.empty(1000).memory.bytes is not place
    view = first.part(10, 20)
    del first
    assert device.empty(1000).memory.bytes is not place        # a view keeps it
    del view
    assert device.empty(1000).memory.bytes is place


def test_memory_may_be_let_go_in_another_thread(gpu):
    held = [device.empty(1000)]
    place = held[0].memory.bytes
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert device.empty(1000).memory.bytes is place


def test_memory_in_garbage_that_refers_to_itself_is_kept_and_can_be_used(gpu):
    """More of it than a library frees late at once; on a GPU a freed address would be an error."""
    class Node:
        pass

    places = set()
    for _ in range(40):
        node = Node()
        node.itself, node.array = node, device.zeros(3000)
        places.add(id(node.array.memory.bytes))
        del node
    gc.collect()
    again = [device.to_device(np.full(3000, k, "float32")) for k in range(40)]
    device.synchronize()
    assert places & {id(array.memory.bytes) for array in again}
    assert all((array.copy_to_host() == k).all() for k, array in enumerate(again))


def test_when_memory_is_full_what_is_kept_is_given_back():
    from minilstm.device.simulator import Simulator

    class Small(Simulator):
        room = 3000

        def allocate(self, size):
            if size > self.room:
                raise MemoryError(f"no {size} bytes left")
            self.room -= size
            return super().allocate(size)

        def release(self, memory):
            self.room += memory.size

    held, small = [], Small()
    gpu._played.append(small)
    try:
        device.empty(500)                                       # 2048 bytes, let go at once
        held.append(device.empty(600).memory)                   # 2560 bytes: only if those are given back
        assert not small.idle
        with pytest.raises(MemoryError, match="no 2048 bytes left"):
            device.empty(500)
    finally:
        gpu._played.remove(small)


# ---------------------------------------------------------------------------------------------------- loops written out

def test_unrolled_loops_compute_the_same():
    n, offsets = 3, (5, 7, 11)

    def count(x):
        total = 0
        for i in unroll(n):
            for k in unroll(i + 1):
                if x > k:
                    total += 10**i * k + offsets[i]
        for k in range(2):
            total += k
        return total

    out = kernels.written_out(count)
    assert [out(x) for x in range(5)] == [count(x) for x in range(5)]
    assert out.__code__.co_firstlineno == count.__code__.co_firstlineno
    assert "unroll" not in out.__code__.co_names and kernels.written_out(out) is out


# --------------------------------------------------------------------------------------------------------- machine code

@kernel(threads=64)
def double_precision(x: F1):
    x[cuda.grid(1)] *= 0.1


@kernel(threads=1024)
def greedy(x: F1):
    """Needs more than the 64 registers that a thread of 1024 can have."""
    kept = cuda.local.array(70, float32)
    i = cuda.grid(1)
    for k in unroll(70):
        kept[k] = x[i + 1024 * k]
    cuda.syncthreads()
    for k in unroll(70):
        x[i + 1024 * k] = kept[k] * kept[69 - k]


def adds(n, written_out):
    @kernel(threads=64)
    def add(x: F1, y: F1):
        tile = cuda.shared.array(64, float32)
        i = cuda.threadIdx.x
        tile[i] = x[i]
        cuda.syncthreads()
        total = float32(0)
        if written_out:
            for k in unroll(n):
                total += tile[k] * y[k]
        else:
            for k in range(n):
                total += tile[k] * y[k]
        x[i] = total

    return add


@pytest.mark.compiler
@pytest.mark.parametrize("cc", compiled.TARGETS)
def test_reports(cc):
    found = compiled.report(adds(64, False), cc)
    assert (found.cc, found.threads, found.spills, found.stack, found.doubles) == (cc, 64, 0, 0, 0)
    assert found.shared == 64 * 4 and found.dynamic == found.tensor == 0
    assert 8 <= found.registers <= 64 and f".target sm_{cc[0]}{cc[1]}" in found.ptx
    assert f"add for sm_{cc[0]}{cc[1]}: 64 threads, {found.registers} registers, 0 bytes spilled" in str(found)
    assert found.machine_code.startswith(b"\x7fELF")
    assert compiled.report(adds(64, True), cc).multiply_adds == 64 > found.multiply_adds
    assert compiled.report(greedy, cc).spills > 0
    assert compiled.report(double_precision, cc).doubles > 0


@pytest.mark.compiler
def test_budgets_are_kept():
    compiled.check(scale, registers=16)
    with pytest.raises(AssertionError, match="in double precision"):
        compiled.check(double_precision, registers=255)
    with pytest.raises(AssertionError, match="bytes spilled"):
        compiled.check(greedy, registers=255)
    with pytest.raises(AssertionError, match="bytes spilled"):
        compiled.check(scale, registers=2)
    with pytest.raises(AssertionError):
        compiled.check(adds(4, True), registers=64, shared=255)


@pytest.mark.compiler
def test_unrolled_device_functions_and_tensor_cores_compile():
    @device_function
    def product(a, b, c):
        return ptx.mma_tf32((a, a, a, a), (b, b), (c, c, c, c))

    @kernel(threads=32)
    def multiply(x: F1):
        a, c = ptx.to_tf32(x[0]), x[1]
        for k in unroll(3):
            c, _, _, _ = product(a, a, c)
        x[0] = c

    for cc in compiled.TARGETS:
        assert compiled.report(multiply, cc).tensor >= 1


def test_without_the_compiler_a_report_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    with pytest.raises(ImportError, match=r"GPU compiler is not installed: pip install 'minilstm\[gpu\]'"):
        machine_code.report(scale)


@pytest.mark.compiler
def test_the_compiler_for_gpus_leaves_the_cpu_backend_as_it_is():
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    program = """
import numba_cuda, numpy as np, minilstm
from numba import cuda
from minilstm.device import machine_code
machine_code.compiler()
x = np.random.default_rng().normal(size=(3, 5, 2)).astype("float32")
y, reference = (minilstm.LSTM(2, 8, seed=1, backend=b).forward(x)[0].y for b in ("cpu", "reference"))
assert np.abs(y - reference).max() < 1e-5
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# ------------------------------------------------------------------------------------------ a GPU with a played driver

class PlayedDriver:
    """What CudaGPU asks of numba-cuda and of the driver, with addresses of the host's memory."""
    room, launches = 10**8, 0

    def __init__(self):
        self.id, self.name, self.compute_capability, self.MULTIPROCESSOR_COUNT = 0, "Played GPU", (9, 0), 4
        self.device, self.sizes, self.buffers, self.calls, self.attributes = self, {}, {}, [], {}

    # the context
    def synchronize(self):
        self.calls.append("synchronize")

    def create_module_image(self, code, setup, teardown):
        assert code.code.startswith(b"\x7fELF")
        return SimpleNamespace(initialized=True, get_function=lambda name: SimpleNamespace(
            module=SimpleNamespace(initialized=True), kernel=name, handle=f"handle of {name}",
            attrs=SimpleNamespace(shared=0)))

    # the driver
    def cuMemAlloc(self, size):
        from numba.cuda.cudadrv import driver
        if size > self.room:
            raise driver.CudaAPIError(driver.binding.CUresult.CUDA_ERROR_OUT_OF_MEMORY, "played")
        buffer = np.full(size + 256, 0xad, np.uint8)
        address = -(-buffer.ctypes.data // 256) * 256
        self.sizes[address], self.buffers[address] = size, buffer
        self.room -= size
        return driver.binding.CUdeviceptr(address)

    def cuMemFree(self, address):
        del self.buffers[address]
        self.room += self.sizes.pop(address)

    def cuMemcpyHtoD(self, to, source, size):
        self._copy(to, source, size, to)

    def cuMemcpyDtoH(self, to, source, size):
        self._copy(to, source, size, source)

    def cuMemsetD8(self, address, value, size):
        self._inside(address, size)
        ctypes.memset(address, value, size)

    def cuKernelSetAttribute(self, attribute, value, handle, number):
        if value > 227 * 1024:
            from numba.cuda.cudadrv import driver
            raise driver.CudaAPIError(driver.binding.CUresult.CUDA_ERROR_INVALID_VALUE, "played")
        self.attributes[handle] = attribute.name, value, number

    def _copy(self, to, source, size, on_gpu):
        self._inside(on_gpu, size)
        ctypes.memmove(to, source, size)

    def _inside(self, address, size):
        assert size > 0 and any(first <= address and address + size <= first + n for first, n in self.sizes.items())

    # cuda.core
    def config(self, is_cooperative, **options):
        """With ``is_cooperative`` it asks the driver whether the GPU can."""
        real = self.real_config(is_cooperative=False, **options)
        return SimpleNamespace(grid=real.grid, block=real.block, shmem_size=real.shmem_size,
                               is_cooperative=is_cooperative)

    def launch(self, stream, config, name, *values):
        """Run the kernel that is compiled under this name, on what the arguments point to."""
        from minilstm.device.simulator import Simulator
        assert stream == "default stream"
        played = next(k for k, compiled in self.gpu.compiled.items() if compiled.function.kernel == name)
        assert config.block == (played.threads, 1, 1) and config.grid[2] == 1
        assert config.shmem_size == played.shared_bytes and config.is_cooperative == played.resident
        values, arguments = list(values), []
        for type_, of_array in zip(played.types, played.arrays):
            if of_array is None:
                arguments.append(getattr(value := values.pop(0), "value", value))
                continue
            dtype, axes = of_array
            meminfo, parent, size, itemsize, address = (values.pop(0) for _ in range(5))
            shape, strides = ([values.pop(0) for _ in range(axes)] for _ in range(2))
            assert (meminfo, parent, size, itemsize) == (0, 0, np.prod(shape), dtype.itemsize)
            memory = (ctypes.c_uint8 * max(1, size * itemsize)).from_address(address)
            arguments.append(np.ndarray(shape, dtype, memory, strides=strides))
        assert not values
        self.launches += 1
        Simulator().launch(played, config.grid[:2], arguments)


@pytest.fixture
def played(monkeypatch):
    """A CudaGPU in use, and its driver."""
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    import cuda.core
    from numba.cuda.cudadrv import devices, driver
    played = PlayedDriver()
    monkeypatch.setattr("numba.cuda.is_available", lambda: True)
    monkeypatch.setattr("numba.cuda.gpus", [played])
    monkeypatch.setattr(devices._runtime, "get_or_create_context", lambda number=None: played)
    monkeypatch.setattr(devices._runtime, "ensure_context", lambda: threading.Lock())
    monkeypatch.setattr(driver, "_to_core_stream", lambda stream: {0: "default stream"}[stream])
    played.real_config = cuda.core.LaunchConfig
    monkeypatch.setattr(cuda.core, "LaunchConfig", played.config)
    monkeypatch.setattr(cuda.core, "launch", played.launch)
    for name in ("cuMemAlloc", "cuMemFree", "cuMemcpyHtoD", "cuMemcpyDtoH", "cuMemsetD8", "cuKernelSetAttribute"):
        monkeypatch.setitem(vars(driver.driver), name, getattr(played, name))
    monkeypatch.setattr(gpu, "_real", None)
    played.gpu = device.current()
    return played


@pytest.mark.compiler
def test_what_the_gpu_is(played):
    assert (played.gpu.name, played.gpu.multiprocessors, played.gpu.compute_capability) == ("Played GPU", 4, (9, 0))
    assert device.current() is played.gpu


@pytest.mark.compiler
@pytest.mark.parametrize("test", [
    test_arrays_go_to_the_gpu_and_back, test_arrays_that_are_not_contiguous_are_copied_as_they_read,
    test_zeros_are_zeros_in_memory_that_was_used, test_views_share_the_memory, test_wrong_views_are_errors,
    test_a_launch_on_a_part, test_memory_is_used_again, test_memory_may_be_let_go_in_another_thread,
    test_memory_in_garbage_that_refers_to_itself_is_kept_and_can_be_used])
def test_arrays_and_launches_with_the_played_driver(played, test):
    test(played.gpu)


@pytest.mark.compiler
def test_arguments_are_laid_out_as_numba_cuda_does_it(played):
    from numba.cuda.cudadrv.devicearray import DeviceNDArray
    from numba.cuda.dispatcher import _Kernel

    @kernel(threads=32)
    def take(a: F3, b: B2, c: I1, s: Float, n: Int):
        pass

    laid_out = []
    played.gpu.launch_kernel = lambda stream, config, name, *values: laid_out.extend(values)
    given = [device.zeros((2, 3, 4)), device.zeros((3, 1), "bool"), device.zeros(5, "int32").part(2, 4), 0.5, 7]
    device.launch(take, 1, *given)
    expected = []
    for type_, value in zip(take.types, given):
        if isinstance(value, arrays.DeviceArray):
            host = np.zeros(value.shape, value.dtype)
            data = SimpleNamespace(device_ctypes_pointer=ctypes.c_size_t(value.raw.address))
            value = DeviceNDArray(host.shape, host.strides, host.dtype, gpu_data=data)
        _Kernel._prepare_args(SimpleNamespace(extensions=[]), type_, value, 0, [], expected)
    assert [getattr(v, "value", v) for v in laid_out] == [getattr(v, "value", v) for v in expected]
    assert [type(v) for v in laid_out] == [type(v) for v in expected]


@pytest.mark.compiler
def test_compiled_once_and_configured_once_for_a_grid(played):
    x = device.zeros(64)
    for grid in (1, 2, 1, (1, 1)):
        device.launch(scale, grid, x, 2.0, 64)
    compiled = played.gpu.compiled[scale]
    assert played.launches == 4 and list(played.gpu.compiled) == [scale] and list(compiled.configs) == [(1, 1), (2, 1)]


@pytest.mark.compiler
def test_resident_kernels_are_launched_together(played):
    @kernel(threads=32, resident=True)
    def together(x: F1):
        x[cuda.blockIdx.x] = float32(1)

    x = device.zeros(4)
    device.launch(together, 4, x)
    assert (x.copy_to_host() == 1).all() and played.gpu.compiled[together].configs[4, 1].is_cooperative
    with pytest.raises(ValueError, match="5 blocks wait for each other, and only 4"):
        device.launch(together, 5, x)


@pytest.mark.compiler
def test_dynamic_shared_memory_is_asked_for(played):
    def of(size):
        @kernel(threads=32, shared_bytes=size)
        def dynamic(x: F1):
            tile = cuda.shared.array(0, float32)
            tile[cuda.threadIdx.x] = x[0]

        return dynamic

    device.launch(of(100 * 1024), 1, device.zeros(1))
    assert list(played.attributes.values()) == [("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", 100 * 1024, 0)]
    with pytest.raises(RuntimeError, match="dynamic: Played GPU has not 235520 bytes of dynamic shared memory"):
        device.launch(of(230 * 1024), 1, device.zeros(1))


@pytest.mark.compiler
def test_full_memory_is_a_memory_error(played):
    """After all that was kept for later has been given back."""
    for k in range(5):
        device.empty(10**7 // 4 + 64 * k)                               # let go at once
    held = device.empty(2 * 10**7)
    assert len(played.sizes) == 2 and not played.gpu.idle, "what is in use stays"
    with pytest.raises(MemoryError, match="Played GPU has no 400000000 bytes left"):
        device.empty(10**8)
    assert held.memory.bytes.address in played.sizes


@pytest.mark.compiler
def test_a_wait_in_vain_is_reported_once(played):
    x = device.zeros(1)
    for ask in (x.copy_to_host, device.synchronize):
        ctypes.memset(played.gpu.error.raw.address, 1, 1)
        with pytest.raises(RuntimeError, match="waited in vain"):
            ask()
        ask()
    assert played.calls == ["synchronize"] * 2


@pytest.mark.compiler
def test_arrays_of_other_libraries(played):
    class Theirs:
        def __init__(self, host, memory, offset=0):
            self.memory = memory
            self.__cuda_array_interface__ = {
                "version": 3, "shape": host.shape, "typestr": host.dtype.str, "strides": host.strides,
                "data": (memory + offset, False), "stream": None}

    host = numbers((3, 4))
    memory = int(played.cuMemAlloc(host.nbytes))
    ctypes.memmove(memory, host.ctypes.data, host.nbytes)
    theirs = Theirs(host, memory)
    array = device.to_device(theirs)
    assert (array.shape, array.dtype) == ((3, 4), np.float32) and (array.copy_to_host() == host).all()
    device.launch(scale, 1, array.reshape(-1), 2.0, 12)
    assert (device.to_device(theirs)[1].copy_to_host() == 2 * host[1]).all()
    assert array.memory.bytes.owner is theirs                           # kept as long as our view of it

    ours = array[1].__cuda_array_interface__
    assert ours["data"] == (theirs.__cuda_array_interface__["data"][0] + 16, False)
    assert (ours["shape"], ours["typestr"], ours["strides"], ours["version"]) == ((4,), "<f4", None, 3)
    assert device.empty((0, 3)).__cuda_array_interface__["data"] == (0, False)

    with pytest.raises(ValueError, match=r"expected a C-contiguous array on the GPU, got one with strides \(4, 16\)"):
        device.to_device(Theirs(host.T, memory))
    with pytest.raises(TypeError, match="array: expected float32, int32 or bool, got float64"):
        device.to_device(Theirs(np.zeros(1), memory))
    with pytest.raises(ValueError, match="array: expected one that begins at a multiple of 16 bytes, got a part"):
        device.to_device(Theirs(host[0, 1:], memory, offset=4))


@pytest.mark.compiler
def test_a_card_that_is_too_old(played, monkeypatch):
    monkeypatch.setattr(gpu, "_real", None)
    played.compute_capability = (7, 5)
    with pytest.raises(device.NoGPU, match="Played GPU has compute capability 7.5, and 8.0 is the oldest.*'reference'"):
        device.current()


def test_arrays_of_gpus_are_not_taken_by_the_simulator():
    with device.simulated(), pytest.raises(ValueError, match="array: expected a NumPy array in the simulator"):
        device.to_device(SimpleNamespace(__cuda_array_interface__={}))


# ------------------------------------------------------------------------------------------------------ there is no GPU

def test_without_the_compiler_there_is_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba_cuda", None)
    monkeypatch.setattr(gpu, "_real", None)
    with pytest.raises(device.NoGPU, match=r"pip install 'minilstm\[gpu\]'. The backends .* need no GPU"):
        device.empty(3)


@pytest.mark.compiler
def test_a_driver_without_a_card(monkeypatch):
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    monkeypatch.setattr(gpu, "_real", None)
    monkeypatch.setattr("numba.cuda.is_available", lambda: True)
    monkeypatch.setattr("numba.cuda.gpus", [])
    with pytest.raises(device.NoGPU, match="the driver knows of none. The backends"):
        device.current()


@pytest.mark.compiler
def test_a_compiler_that_is_not_in_its_place(monkeypatch):
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    monkeypatch.setattr("numba.cuda.__file__", "site-packages/numba/cuda/__init__.py")
    with pytest.raises(ImportError, match="numba-cuda is there but not in the place of numba.cuda"):
        machine_code.compiler()


@pytest.mark.compiler
@pytest.mark.parametrize("error, reason", [
    ("\nCUDA driver library cannot be found.\nEnsure that it is installed.\n",
     "CUDA driver library cannot be found. Ensure that it is installed."),
    ("CUDA_ERROR_NO_DEVICE (100)", "CUDA_ERROR_NO_DEVICE"),
    (None, r"libnvvm is missing: pip install 'minilstm\[gpu\]'")])
def test_without_a_driver_or_a_card_there_is_no_gpu(monkeypatch, error, reason):
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    monkeypatch.setattr(gpu, "_real", None)
    monkeypatch.setattr("numba.cuda.is_available", lambda: False)
    monkeypatch.setattr("numba.cuda.cuda_error", lambda: error)
    with pytest.raises(device.NoGPU, match=f"no CUDA GPU can be used here: .*{reason}.* need no GPU"):
        device.current()


@pytest.mark.compiler
def test_numbas_own_simulator_is_no_gpu():
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    program = """
from minilstm import device
try:
    device.current()
except device.NoGPU as reason:
    print(reason)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"})
    assert "switched off by NUMBA_ENABLE_CUDASIM" in done.stdout and "minilstm.device.simulated()" in done.stdout


def test_tf32_is_a_switch():
    assert not device.tf32_allowed()
    device.allow_tf32(True)
    assert device.tf32_allowed()
    device.allow_tf32(False)
    assert not device.tf32_allowed()
    with pytest.raises(TypeError, match="allowed: expected"):
        device.allow_tf32(1)
