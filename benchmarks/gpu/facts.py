"""What the figures were measured with: versions, the card as it was found.  Nothing on it is changed."""
import importlib
import importlib.metadata
import platform
import shutil
import subprocess

import torch

from gpu.smoke import THREADS, add_one
from minilstm import device

PACKAGES = ("numpy", "numba", "numba-cuda", "llvmlite", "torch", "cuda-bindings", "cuda-core", "nvidia-cuda-nvcc",
            "nvidia-nvvm", "nvidia-nvjitlink", "pytest", "hypothesis", "greenlet")
CARD = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
        "power.limit", "temperature.gpu", "mig.mode.current")
PROGRAMS = ("nvcc", "ptxas", "compute-sanitizer")


def facts(sides, record):
    record.fact(python=platform.python_version(), simulated=sides.simulated)
    for name in PACKAGES:
        try:
            record.fact(**{name: importlib.metadata.version(name)})
        except importlib.metadata.PackageNotFoundError:
            record.fact(**{name: "not installed"})
    record.fact(**{name: shutil.which(name) or "not on PATH" for name in PROGRAMS})
    here = device.current()
    record.fact(GPU=here.name, compute_capability=here.compute_capability, multiprocessors=here.multiprocessors)
    if not sides.simulated:
        with record.attempt("nvidia-smi"):
            record.fact(**card())
        with record.attempt("PyTorch"):
            record.fact(**of_pytorch())
        with record.attempt("libraries of the compiler"):
            record.fact(**libraries())
    with record.attempt("one stream"):
        found = one_stream(sides)
        record.fact(**{"one stream": found})
        if not found:
            raise ArithmeticError("PyTorch's events do not time minilstm's kernels: no time here is to be used")


def card():
    """What the driver says, its clocks as they are now."""
    said = subprocess.run(["nvidia-smi", f"--query-gpu={','.join(CARD)}", "--format=csv,noheader"],
                          capture_output=True, text=True, timeout=30, check=True)
    return dict(zip(CARD, (word.strip() for word in said.stdout.splitlines()[0].split(","))))


def of_pytorch():
    about = torch.cuda.get_device_properties(0)
    return {"cuDNN": torch.backends.cudnn.version(), "CUDA of PyTorch": torch.version.cuda,
            "L2 MB": getattr(about, "L2_cache_size", 0) / 1e6, "memory GB": about.total_memory / 1e9,
            "stream of PyTorch": torch.cuda.current_stream().cuda_stream}


def libraries():
    """Where the compiler's libraries came from: the ends of their paths."""
    from cuda import pathfinder
    found = {name: pathfinder.load_nvidia_dynamic_lib(name) for name in ("nvvm", "nvrtc", "nvJitLink")}
    return {f"lib{name}": "/".join(str(lib.abs_path).split("/")[-4:]) for name, lib in found.items()}


def one_stream(sides):
    """Does each library wait for the other's work, in the order of the launches?  Only then do PyTorch's events time
    ours.  Both change the same numbers in turn, all of it queued behind a sleep."""
    numbers, times = (64, 2) if sides.simulated else (1 << 16, 50)
    x = sides.random(numbers)
    begin = x.double()
    ours = sides.ours(x)
    theirs = x if not sides.simulated else torch.from_numpy(ours.raw)
    device.launch(add_one(), 1, ours, 0)                                        # compiles
    if not sides.simulated:
        torch.cuda._sleep(40_000_000)
    theirs.mul_(2)
    for _ in range(times):
        device.launch(add_one(), numbers // THREADS, ours, numbers)
    theirs.mul_(2)
    sides.synchronize()
    return bool(torch.allclose(theirs.double(), 2 * (2 * begin + times), rtol=1e-5))
