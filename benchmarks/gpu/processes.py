"""Programs in processes of their own: a crash or a hang of one costs that one only."""
import contextlib
import os
import signal
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

TICK, LOOK = 0.1, 2         # seconds between two glances at the processes, and between two looks at their results
STUCK = 10                  # seconds for a killed process to go; one that waits in the driver for ever is left alone


class Job(NamedTuple):
    name: str
    command: list
    seconds: float          # it may take at most
    log: Path               # what it prints, errors too


class Outcome(NamedTuple):
    status: object          # exit status, -signal, or None: it took too long or was not started in time
    seconds: float

    @property
    def word(self):
        if self.status is None:
            return "time-out" if self.seconds else "no time left"
        return "ok" if self.status == 0 else f"exit {self.status}" if self.status > 0 else f"signal {-self.status}"


def run_all(jobs, until, workers=1, environment=None, look=lambda outcomes: None):
    """Run jobs in their order, some at a time, none beyond ``until`` (of time.monotonic()) -> dict name -> Outcome.

    ``look`` is called with the outcomes so far every LOOK seconds and after each end, to put results on disk."""
    waiting, running, outcomes, looked = list(jobs), {}, {}, 0
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                now = time.monotonic()
                if now >= until:
                    outcomes[job.name] = Outcome(None, 0)
                else:
                    running[start(job, environment)] = job, now, min(until, now + job.seconds)
            ended = 0
            for process, (job, begin, end) in list(running.items()):
                status, now = process.poll(), time.monotonic()
                if status is not None or now > end:
                    del running[process]
                    kill(process)                                               # its children, too
                    outcomes[job.name] = Outcome(status, now - begin)
                    ended += 1
            if ended or time.monotonic() - looked > LOOK:
                look(outcomes)
                looked = time.monotonic()
            if running:
                time.sleep(TICK)
    finally:
        for process in running:
            kill(process)
    look(outcomes)
    return outcomes


def start(job, environment):
    with open(job.log, "wb") as log:
        return subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                env=environment, preexec_fn=os.setpgrp)


def kill(process):
    """The process and all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STUCK)


def side_by_side(most, cores_each=2):
    """How many processes may run together, each with so many cores; a single one where a GPU lets no more in."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if shutil.which("nvidia-smi"):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            mode = subprocess.run(["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"],
                                  capture_output=True, text=True, timeout=STUCK)
            most = 1 if "Exclusive" in mode.stdout else most
    return max(1, min(most, cores // cores_each))


def end_on_signals():
    """A polite request to end becomes an exception, so that ``run_all`` takes its processes with it."""
    def leave(number, frame):
        raise SystemExit(f"ended by signal {number}")

    signal.signal(signal.SIGTERM, leave)


def last_words(log, lines=3, length=300):
    """The end of what a process printed."""
    text = Path(log).read_text(errors="replace") if Path(log).exists() else ""
    kept = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(kept)[-length:]
