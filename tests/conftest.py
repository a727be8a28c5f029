"""A GPU for the tests: the simulator everywhere, a real one where there is one; and the programs that measure it."""
import sys
import zlib
from pathlib import Path

import pytest

from minilstm import device


@pytest.fixture(params=["simulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request):
    """The GPU in use in a test: a Simulator, whose races are looked at in the end, or the real one.

    A test that takes it runs twice.  ``gpu.name == "simulator"`` says where it is, for sizes that a simulator would
    need minutes for."""
    if request.param == "cuda":
        try:
            yield device.current()
        except device.NoGPU as reason:
            pytest.skip(str(reason))
    else:
        with device.simulated(seed=zlib.crc32(request.node.name.encode())) as simulator:
            yield simulator
        assert not simulator.races, "\n".join(map(str, simulator.races[:5]))


@pytest.fixture
def benchmark_scripts(monkeypatch):
    """The programs in benchmarks/ import each other by name: here a test can do so, too."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("gpu", "gpu_vs_cudnn", "on_a_gpu", "measure"):
            del sys.modules[name]
