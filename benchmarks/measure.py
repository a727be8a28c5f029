"""What the benchmarks share: the machine in words, fair timing of two programs, tables, and where results are kept."""
import datetime
import json
import os
import platform
import re
import statistics
import time
from pathlib import Path

import numba
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
REST = 0.03         # seconds: idle workers of a thread pool spin for some milliseconds and would slow the next one down


def machine():
    """Processor, cores and versions, as a dict."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = found.group(1).strip() if found else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": cores, "system": platform.system(), "python": platform.python_version(),
            "numpy": np.__version__, "numba": numba.__version__}


def calls_for(program, seconds):
    """How many calls of ``program`` last about ``seconds``; the first call, which may compile, does not count."""
    program()
    start = time.perf_counter()
    program()
    return max(1, int(seconds / (time.perf_counter() - start)))


def interleaved(programs, repeats, seconds=0.02):
    """Time programs in turn, A B A B ...: dict name -> list of seconds a call, one for each repeat.

    Each turn rests first, makes one call that does not count, then enough calls to last ``seconds``."""
    calls = {name: calls_for(program, seconds) for name, program in programs.items()}
    times = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            time.sleep(REST)
            program()
            start = time.perf_counter()
            for _ in range(calls[name]):
                program()
            times[name].append((time.perf_counter() - start) / calls[name])
    return times


def median_ratio(times, peer, ours):
    """The median over pairs of the peer's time over ours: above 1, we are faster."""
    return statistics.median(theirs / own for theirs, own in zip(times[peer], times[ours]))


def geometric_mean(numbers):
    return float(np.exp(np.mean(np.log(numbers))))


def markdown_table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def save(name, result, day=None):
    """Write benchmarks/results/<date>_<name>.json; of today, if no other date is given."""
    path = ROOT / "benchmarks" / "results" / f"{day or datetime.date.today()}_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def into_readme(name, text):
    """Put ``text`` between the markers <!-- name --> and <!-- /name --> of README.md."""
    path = ROOT / "README.md"
    pattern = re.compile(f"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    old = path.read_text()
    if not pattern.search(old):
        raise ValueError(f"README.md: expected the markers <!-- {name} --> and <!-- /{name} -->")
    path.write_text(pattern.sub(lambda found: found.group(1) + text + found.group(2), old))
