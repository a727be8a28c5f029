"""The parts of the comparison with cuDNN: each runs in a process of its own and may fail alone."""
import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from gpu.processes import Job, last_words, run_all, side_by_side
from gpu.record import read

# (T, B, H), D = H, in the order of their weight
FEW_ROWS = [(512, 16, 256), (512, 1, 256), (512, 16, 512), (1024, 8, 256)]
LARGE = [(1024, 64, 512), (256, 128, 1024)]
SMALL = [(512, 64, 128), (1024, 64, 64), (512, 16, 128)]
SHAPES = FEW_ROWS + LARGE + SMALL
QUICK = ["lstm-512-16-256", "gru-512-16-256", "launches", "training"]
SECONDS = 200               # of one part, at most; most of it is for compiling and waiting for the others
NO_GPU = 3                  # exit status


class Sizes(NamedTuple):
    """What the parts beside LSTM and GRU run at."""
    ladder: list            # (T, B, H)
    steps: tuple            # [(B, H)], a long and a short T
    products: list          # (M, N, K, is A transposed)
    attention: list         # (B, T, d)
    training: list          # (T, B, H)


REAL = Sizes([(512, 16, 256), (512, 16, 64)], ([(1, 256), (16, 256), (16, 512), (64, 512)], 1024, 256),
             [(4096, 1024, 256, False), (1024, 256, 8192, True), (8192, 1024, 1024, False)],
             [(8, 512, 64), (2, 2048, 64)], [(512, 16, 256), (256, 64, 512)])
TOY = Sizes([(2, 2, 8)], ([(2, 8)], 3, 2), [(5, 6, 7, True)], [(1, 5, 4)], [(2, 2, 8)])
TOY_SHAPE = (3, 2, 8)


def names(quick=False):
    """In the order in which they run."""
    def of(kind, shapes):
        return [f"{kind}-{T}-{B}-{H}" for T, B, H in shapes]

    return QUICK if quick else [*of("lstm", FEW_ROWS), *of("gru", FEW_ROWS), "launches", "steps", "ladder",
                                *of("lstm", LARGE), *of("lstm", SMALL), "products", "training", "attention",
                                *of("gru", LARGE), *of("gru", SMALL)]


def chosen(only, quick=False):
    """The parts whose names begin with one of the words of ``only``, as "lstm,ladder"; all without it."""
    words = only.split(",") if only else [""]
    found = [name for name in names(quick and not only) if name.startswith(tuple(words))]
    unknown = [word for word in words if not any(name.startswith(word) for name in found)]
    if unknown:
        raise ValueError(f"only: expected beginnings of {', '.join(names())}, got {', '.join(unknown)}")
    return found


def run(name, sides, record):
    """One part, in this process."""
    sizes = TOY if sides.simulated else REAL
    if name == "facts":
        from gpu.facts import facts
        facts(sides, record)
    elif name in ("launches", "products"):
        from gpu import products
        products.launches(sides, record) if name == "launches" else products.products(sides, record, sizes.products)
    elif name == "ladder":
        from gpu.recurrent import ladder
        ladder(sides, record, sizes.ladder)
    elif name == "steps":
        from gpu.recurrent import steps
        steps(sides, record, *sizes.steps)
    elif name == "attention":
        from gpu.attention import attention
        attention(sides, record, sizes.attention)
    elif name == "training":
        from gpu.training import training
        training(sides, record, sizes.training)
    else:
        from gpu.recurrent import measure
        kind, *shape = name.split("-")
        measure(sides, record, kind.upper(), TOY_SHAPE if sides.simulated else tuple(map(int, shape)))


def in_this_process(name, path, simulated, lock):
    """What the process of a part does -> exit status."""
    from gpu.record import Record
    from minilstm import device
    record = Record(path)
    with device.simulated() if simulated else contextlib.nullcontext():
        try:
            device.current()
        except device.NoGPU as reason:
            print(reason)
            return NO_GPU
        with record.attempt(name):
            from gpu.sides import Sides
            run(name, Sides(simulated, lock), record)
    return 0


def run_parts(parts, folder, until, simulated=False, keep=lambda results: None):
    """Each in a process, some side by side -> dict name -> what it found, its result in a word, and its seconds.

    folder: for what the processes write.  keep: called with the results so far, again and again."""
    program, lock = Path(__file__).resolve().parents[1] / "gpu_vs_cudnn.py", Path(folder, "measuring.lock")
    jobs = [Job(name, [sys.executable, str(program), "--part", name, "--into", str(Path(folder, name + ".json")),
                       "--lock", str(lock), *(["--simulated"] if simulated else [])],
                SECONDS, Path(folder, name + ".log")) for name in parts]

    def found(outcomes):
        results = {}
        for job in jobs:
            data = read(Path(folder, job.name + ".json"))
            outcome = outcomes.get(job.name)
            if outcome and outcome.status != 0:
                data["errors"].append(last_words(job.log))
            seconds = outcome and round(outcome.seconds, 1)
            results[job.name] = {"result": word(outcome, data), "seconds": seconds, **data}
        return results

    return found(run_all(jobs, until, side_by_side(7), environment(), lambda outcomes: keep(found(outcomes))))


def word(outcome, data):
    """How a part went."""
    if outcome is None:
        return "not done"
    if outcome.status != 0:
        return outcome.word
    results = {row.get("result") for row in data["rows"]}
    bad = [one for one in ("WRONG", "other bits") if one in results]
    return bad[0] if bad else "errors" if data["errors"] else "ok"


def environment():
    """Of a process that imports this checkout, installed or not, and whose compiler finds its libraries: in wheels, or
    where CUDA is installed, which is looked at last."""
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    found = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "200",
                          "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0"}
    nvcc = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin"]))
    if nvcc and not {"CUDA_HOME", "CUDA_PATH"} & os.environ.keys():
        found["CUDA_HOME"] = str(Path(nvcc).resolve().parents[1])
    return found
