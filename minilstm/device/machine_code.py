"""Compiles a kernel for a GPU that is not there, and counts what its machine code uses.

    Python -> PTX (libnvvm) -> machine code (nvJitLink) -> registers, spills, shared memory

No driver, no CUDA toolkit and no GPU are needed, only ``pip install 'minilstm[gpu]'``.  The version of libnvvm is
pinned there, since a newer one writes PTX that the assembler and a driver for CUDA 13.0 do not read.

    print(report(kernel, cc=(9, 0)))
"""
import contextlib
import re
import types
from typing import NamedTuple

from . import activations


class Report(NamedTuple):
    """What one kernel uses."""
    name: str
    cc: tuple               # compute capability it was compiled for
    threads: int            # of a block
    registers: int          # of a thread; at most 255
    spills: int             # bytes that a thread has to keep in memory because registers are too few
    stack: int              # bytes of memory that a thread has for itself
    shared: int             # bytes of static shared memory of a block; at most 48 KiB
    dynamic: int            # bytes of dynamic shared memory of a block
    doubles: int            # instructions in double precision
    multiply_adds: int      # fma.f32 instructions in the PTX
    tensor: int             # mma instructions in the PTX
    ptx: str
    machine_code: bytes

    def __str__(self):
        return (f"{self.name} for sm_{self.cc[0]}{self.cc[1]}: {self.threads} threads, {self.registers} registers, "
                f"{self.spills} bytes spilled, {self.stack} bytes of stack, {self.shared} + {self.dynamic} bytes of "
                f"shared memory, {self.multiply_adds} multiply-adds, {self.tensor} products on tensor cores")


def report(kernel, cc=(9, 0)):
    """A ``kernel.Kernel`` -> Report.  Raises ImportError where the compiler is not installed."""
    ptx = to_ptx(kernel, cc)
    machine_code, log = assemble(ptx, cc)

    def number(pattern):
        found = re.search(pattern, log)
        return int(found[1]) if found else 0

    return Report(kernel.name, cc, kernel.threads, number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores"),
                  number(r"(\d+) bytes stack frame"), sum(map(int, re.findall(r"\.shared .*\[(\d+)\];", ptx))),
                  kernel.shared_bytes, len(re.findall(r"\.f64\b", ptx)),
                  len(re.findall(r"fma\.rn(?:\.ftz)?\.f32", ptx)), ptx.count("mma.sync"), ptx, machine_code)


def compiler():
    """The module numba.cuda, as numba-cuda has it.  Raises ImportError, which says what to install."""
    try:
        import numba_cuda                                       # noqa: F401  (it takes the place of numba.cuda)
    except ImportError:
        raise ImportError("the GPU compiler is not installed: pip install 'minilstm[gpu]'") from None
    from numba import config, cuda
    if "numba_cuda" not in cuda.__file__:
        raise ImportError("numba-cuda is there but not in the place of numba.cuda: Python reads its .pth file in the "
                          "folder of an environment's packages only, so install it there")
    if config.ENABLE_CUDASIM:
        raise ImportError("the GPU compiler is switched off by NUMBA_ENABLE_CUDASIM; the simulator for these kernels "
                          "is minilstm.device.simulated()")
    activations.register()
    return cuda


def to_ptx(kernel, cc):
    cuda = compiler()
    with pretended_gpu(cc):
        ptx, _ = cuda.compile(kernel.unrolled, kernel.types, device=False, abi="numba", cc=cc, output="ptx",
                              launch_bounds=(kernel.threads, kernel.blocks_per_sm))
    return ptx


@contextlib.contextmanager
def pretended_gpu(cc):
    """A kernel that calls another compiled function asks the GPU for its compute capability: answer in its place."""
    from numba.cuda import dispatcher
    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=cc)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


def assemble(ptx, cc):
    """-> machine code, the assembler's log."""
    from cuda.bindings import nvjitlink
    handle = nvjitlink.create(2, [f"-arch=sm_{cc[0]}{cc[1]}", "-verbose"])
    try:
        data = ptx.encode()
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "kernel.ptx")
        nvjitlink.complete(handle)
        machine_code = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, machine_code)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return bytes(machine_code), log.decode()
