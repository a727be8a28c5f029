"""The two libraries side by side: the same memory for both, fair times, errors against float64.

On a GPU PyTorch's tensors and our arrays are views of the same bytes, and both launch into the same stream.  Without
one, with ``simulated``, PyTorch computes on the processor and our kernels in the simulator: the same program at toy
sizes, whose times mean nothing.
"""
import contextlib
import faulthandler
import math
import statistics
import time
from typing import Callable, NamedTuple

import numpy as np
import torch

from minilstm import device

FRESH = 3                               # sets of inputs in turn, so that no run finds its own in the cache
SECONDS, FEWEST, MOST = 0.25, 5, 15     # of one comparison; pairs of runs
HANGS = 60                              # seconds after which a measurement has gone wrong, and others may begin
FASTEST_CLOCK = 2e9                     # cycles a second, at most
POISON = 0x7f7f7f7f                     # as a float32 3.4e38: whatever reads it unwritten is far from right


class Program(NamedTuple):
    run: Callable                       # of n, which chooses the inputs
    before: Callable = lambda n: None   # not timed


class Times(NamedTuple):
    """Milliseconds, one number for each repeat."""
    device: list                        # between two events, with work queued before, so that no launch is waited for
    host: list                          # the host's clock, from an idle GPU to an idle GPU


class Sides:
    def __init__(self, simulated=False, lock=None):
        """lock: the path of a file that programs lock while they measure, each in a process of its own."""
        self.simulated, self.lock = simulated, lock
        self.where = "cpu" if simulated else "cuda"
        torch.manual_seed(0)

    def random(self, *shape):
        return torch.randn(*shape, device=self.where)

    def ours(self, tensor):
        """A DeviceArray of a tensor: the same memory, on a GPU."""
        tensor = tensor.detach().contiguous()
        return device.to_device(tensor.numpy() if self.simulated else tensor)

    def theirs(self, array):
        """A tensor with a copy of what a DeviceArray, or a NumPy array, holds now."""
        if hasattr(array, "copy_to_host") and not self.simulated:
            return torch.as_tensor(array, device="cuda").clone()
        return torch.from_numpy(np.array(array)).to(self.where)

    def synchronize(self):
        device.synchronize()
        if not self.simulated:
            torch.cuda.synchronize()

    def poison(self):
        """Fill the memory that is free for the next arrays: a result from the run before must not pass for this one's.
        The simulator does so by itself."""
        if not self.simulated:
            free = [(size, len(blocks)) for size, blocks in device.current().idle.items()]
            for array in [device.empty(size // 4, "int32") for size, count in free for _ in range(count)]:
                torch.as_tensor(array, device="cuda").fill_(POISON)

    @contextlib.contextmanager
    def alone(self):
        """In this block no other process measures.  If it takes too long this process ends, and prints where it was."""
        with contextlib.ExitStack() as stack:
            if self.lock:
                import fcntl
                fcntl.flock(stack.enter_context(open(self.lock, "a")), fcntl.LOCK_EX)
            if not self.simulated:
                faulthandler.dump_traceback_later(HANGS, exit=True)
                stack.callback(faulthandler.cancel_dump_traceback_later)
            yield

    # ------------------------------------------------------------------------------------------------------------ times

    def times(self, programs, seconds=SECONDS):
        """dict name -> Program, run in turn, A B A B ... -> dict name -> Times."""
        if self.simulated:
            once = {name: [self.host_time(program, 0)] for name, program in programs.items()}
            return {name: Times(ms, ms) for name, ms in once.items()}
        queued = {name: self.seconds_to_launch(program) for name, program in programs.items()}
        times = {name: Times([], []) for name in programs}
        begin = time.perf_counter()
        for n in range(MOST):
            for name, program in programs.items():
                times[name].device.append(self.device_time(program, n, queued[name]))
                times[name].host.append(self.host_time(program, n))
            if n + 1 >= FEWEST and time.perf_counter() - begin > seconds:
                break
        return times

    def seconds_to_launch(self, program):
        """How long the host is busy with a warm program, before the GPU has to be done."""
        for n in range(FRESH + 1):
            program.before(n)
            self.synchronize()
            begin = time.perf_counter()
            program.run(n)
            busy = time.perf_counter() - begin
        self.synchronize()
        return busy

    def device_time(self, program, n, busy):
        program.before(n)
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(int(FASTEST_CLOCK * min(1.5 * busy + 50e-6, 0.1)))
        start.record()
        program.run(n)
        stop.record()
        self.synchronize()
        return start.elapsed_time(stop)

    def host_time(self, program, n):
        program.before(n)
        self.synchronize()
        begin = time.perf_counter()
        program.run(n)
        self.synchronize()
        return 1e3 * (time.perf_counter() - begin)


def compared(times, ours="ours", theirs="theirs"):
    """Figures of a row: medians in ms, and their time over ours, the median over pairs."""
    def ratio(which):
        return statistics.median(t / o for t, o in zip(getattr(times[theirs], which), getattr(times[ours], which)))

    return {"ms": statistics.median(times[ours].device), "their ms": statistics.median(times[theirs].device),
            "ratio": ratio("device"), "host ms": statistics.median(times[ours].host),
            "their host ms": statistics.median(times[theirs].host), "host ratio": ratio("host")}


# -------------------------------------------------------------------------------------------------------------- errors

# The largest ||found - exact|| / ||exact|| that is right; more is, too, where PyTorch in the same mode is as far off.
ALLOWED = {False: 2e-5, True: 5e-3}     # tf32 off: the rounding of some 1000 steps; on: of 10 bits of mantissa


def relative_error(found, exact):
    """||found - exact|| / ||exact||, and NaN where anything is not finite: no comparison lets that pass."""
    found, exact = found.detach().double(), exact.detach().double()
    if found.shape != exact.shape:
        raise ValueError(f"found: expected the shape {tuple(exact.shape)}, got {tuple(found.shape)}")
    if not (found.isfinite().all() and exact.isfinite().all()):
        return math.nan
    return ((found - exact).norm() / exact.norm()).item()


def judged(ours, again, theirs, exact, tf32):
    """dicts name -> tensor: two runs of ours, theirs, and float64 -> figures of a row, with ``result``: "ok", "WRONG"
    or "other bits" where the second run of ours differs from the first."""
    errors = {name: relative_error(ours[name], exact[name]) for name in exact}
    their_errors = {name: relative_error(theirs[name], exact[name]) for name in exact}
    right = all(error <= max(ALLOWED[tf32], 2 * their_errors[name]) for name, error in errors.items())
    same = all(torch.equal(bits(ours[name]), bits(again[name])) for name in exact)
    return {"result": "WRONG" if not right else "ok" if same else "other bits", "errors": errors,
            "their errors": their_errors}


def bits(tensor):
    return tensor.contiguous().view(torch.int32)


@contextlib.contextmanager
def tf32_mode(on):
    """TF32 for both libraries, or for neither."""
    def switch(on):
        device.allow_tf32(on)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on

    switch(on)
    try:
        yield
    finally:
        switch(False)
