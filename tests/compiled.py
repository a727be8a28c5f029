"""What tests of machine code share: a kernel has to stay within what its author says it needs."""
import functools

import pytest

TARGETS = (8, 0), (9, 0)        # compute capabilities: A100 and H100


@functools.cache
def report(kernel, cc):
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    from minilstm.device import machine_code
    return machine_code.report(kernel, cc)


def check(kernel, registers, spills=0, stack=0, shared=48 * 1024, targets=TARGETS):
    """Compile for every target, or for those given; fail where more registers, spilled bytes, bytes of stack or of
    static shared memory are used than said, or double precision."""
    for cc in targets:
        found = report(kernel, cc)
        assert found.doubles == 0, f"{found}: {found.doubles} instructions in double precision"
        assert found.registers <= registers and found.spills <= spills and found.stack <= stack, str(found)
        assert found.shared <= shared, str(found)
