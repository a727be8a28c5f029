"""What the GPU backends stand on: arrays in a GPU's memory, kernels, their launches, and a GPU played in Python.

    kernel.py        how a kernel is written: its types, its threads, loops that are written out
    arrays.py        DeviceArray: numbers in a GPU's memory
    gpu.py           which GPU is in use; allocation, copies, launches
    ptx.py           the instructions that Numba has no name for: all low-level code is there
    activations.py   tanh, sigmoid and exp for float32 on a GPU
    simulator.py     runs the same kernels in Python, thread by thread, and finds races and reads of what nobody wrote
    machine_code.py  compiles a kernel without a GPU, and counts what its machine code uses

Nothing here knows of recurrent nets.  Importing this package imports neither CUDA nor the simulator.
"""
from .arrays import DeviceArray
from .gpu import (
    NoGPU, allow_tf32, current, empty, launch, simulated, synchronize, tf32_allowed, to_device, zeros)

__all__ = ["DeviceArray", "NoGPU", "allow_tf32", "current", "empty", "launch", "simulated", "synchronize",
           "tf32_allowed", "to_device", "zeros"]
