"""What the GPU backends stand on: arrays in a GPU's memory, kernels, their launches, and a GPU played in Python.

    kernel.py        how a kernel is written: its types, its threads, loops that are written out
    arrays.py        DeviceArray: numbers in a GPU's memory
    gpu.py           which GPU is in use; allocation, copies, launches
    cuda_gpu.py      a real one, through numba-cuda
    ptx.py           the instructions that Numba has no name for: all low-level code is there
    activations.py   tanh, sigmoid and exp for float32 on a GPU
    elementwise.py   small kernels that everything needs: fill, copy, add, multiply, choose, add up squares
    machine_code.py  compiles a kernel without a GPU, and counts what its machine code uses

    simulator.py     plays a GPU in Python, thread by thread: finds races, deadlocks and reads of what nobody wrote
    threads.py       its threads: who runs, who waits, and for whom
    memory.py        its memory: every access is checked
    cuda_twin.py     what a kernel sees as ``cuda`` in it
    twins.py         what the instructions of ptx.py mean in it
    stepping.py      shows what some threads do, line by line and side by side

Nothing here knows of recurrent nets.  Importing this package imports neither CUDA nor the simulator.
"""
from .arrays import DeviceArray
from .gpu import (
    NoGPU, allow_tf32, current, empty, launch, simulated, synchronize, tf32_allowed, to_device, zeros)

__all__ = ["DeviceArray", "NoGPU", "allow_tf32", "current", "empty", "launch", "simulated", "synchronize",
           "tf32_allowed", "to_device", "zeros"]
