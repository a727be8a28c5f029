"""A GPU for the tests: the simulator everywhere, a real one where there is one; and the programs that measure it."""
import sys
import zlib
from pathlib import Path

import pytest

from minilstm import device


def pytest_addoption(parser):
    parser.addoption("--share", default="0/1", metavar="K/N", help="of N processes, what number K (from 0) has to run")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """After marks have chosen: neighbours stay together, since they share kernels."""
    k, n = map(int, config.getoption("--share").split("/"))
    items[:] = items[k * len(items) // n:(k + 1) * len(items) // n]


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
