"""A GPU for the tests: the simulator everywhere, and a real one where there is one."""
import zlib

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
