"""Who computes: the names of the backends, and the module of a package that belongs to one.

    reference   plain NumPy, the definition
    cpu         compiled for this processor
    gpu         compiled for a CUDA GPU, in float32; its arrays stay there (``device/``)

``recurrence``, ``matmul``, ``masking`` and ``attention`` have a module for each.  It is imported when it is first
needed, so that whoever uses no GPU imports nothing of CUDA.
"""
import functools
import importlib

HOST = ("reference", "cpu")
NAMES = (*HOST, "gpu")


@functools.cache
def module(package, backend):
    """For example ``minilstm/recurrence/gpu.py``, of ("recurrence", "gpu")."""
    return importlib.import_module(f".{package}.{backend}", __package__)


def arrays(backend):
    """The module of ``minilstm/arrays`` for the arrays of a backend."""
    return module("arrays", "gpu" if backend == "gpu" else "host")
