"""Everything that a GPU can tell about this code, in one command of less than ten minutes.

    smoke        small kernels, one for each thing that a GPU and its compiler have to be able to do
    tests        pytest -m gpu, file by file, what is marked long at the end and as far as time allows
    sanitizers   memcheck and racecheck of compute-sanitizer over small runs of everything, beside the tests
    benchmarks   gpu_vs_cudnn.py, the weightiest parts first

Every program runs in a process of its own with a limit of time: a crash, a hang or a wrong number costs that one.  What
was found is on disk after each.  Nothing on the card is changed; its clocks are only read.

In FOLDER: summary.txt, which is also printed last; smoke.txt, tests.txt, sanitizers.txt, gpu_vs_cudnn.json,
gpu_vs_cudnn.md and gpu_vs_cudnn.log.  The tables come into README.md by  gpu_vs_cudnn.py --from FOLDER/... --save.

Needed: an NVIDIA GPU of compute capability 8.0 or later and its driver for CUDA 13;
    pip install -e '.[gpu]'     numba, numba-cuda with its CUDA wheels, and what minilstm itself needs; the package
                                itself need not be installed, a checkout is enough
    pip install torch           a version for CUDA; without it there are no benchmarks
    pip install pytest          without it there are no tests; hypothesis for some of them
    compute-sanitizer           comes with CUDA's toolkit; without it there are no sanitizers
greenlet, which the simulator needs, is not needed here.

Run:  python benchmarks/on_a_gpu.py --out FOLDER
      --only smoke,tests: these; --seconds 540: for everything

Exit status: 0 all is right, 1 something is not, 2 something is not installed, 3 there is no GPU.
"""
import argparse
import contextlib
import importlib.util
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from gpu.parts import NO_GPU, chosen, environment
from gpu.processes import Job, end_on_signals, last_words, run_all, side_by_side
from gpu.record import write

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("smoke", "tests", "sanitizers", "benchmarks")
NEEDED = ("numpy", "numba", "numba_cuda", "matplotlib", "tqdm", "safetensors")
INSTALL = ("pip install 'numba-cuda[cu13]==0.30.4' 'cuda-toolkit==13.0.*' 'cuda-core==1.*' numba matplotlib tqdm "
           "safetensors")
COMPILER = ("numba", "numba-cuda", "cuda-core", "cuda-bindings")
NOT_INSTALLED = 2                           # exit status
CHECKS = ("launch", "wide_loads", "special_functions", "shuffles", "blocks_that_wait", "big_shared_memory",
          "tensor_cores", "asynchronous_copies", "waiting_in_vain")
SECONDS = {"smoke": 45, "tests": 120, "sanitizers": 150}    # of one process at most
UNTIL = {"smoke": 60, "tests": 200}                         # seconds from the start that a stage may last
SHARES = {"test_attention_gpu": 4, "test_recurrence_gpu": 4, "test_recurrence_blocks": 4, "test_matmul_gpu": 2}
#                                                           files that processes share, since they compile for minutes
LONG = "(long)"                                             # ends the name of a process with long tests
LONGEST = 10_000                                            # letters of the summary
TOLD = 12                                                   # lines of one stage in it


class Run(NamedTuple):
    """Where things are, and until when."""
    out: Path
    scratch: Path
    begin: float            # of time.monotonic()
    seconds: float
    simulated: bool

    def until(self, stage):
        """A simulator takes longer."""
        return self.begin + min(self.seconds if self.simulated else UNTIL.get(stage, self.seconds), self.seconds)


def main():
    arguments = parsed()
    if arguments.check:
        return check(arguments.check, arguments.simulated)
    lacking = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if lacking:
        print(f"not installed: {', '.join(lacking)}\n{INSTALL}")
        return NOT_INSTALLED
    end_on_signals()
    stages = arguments.only.split(",") if arguments.only else list(STAGES)
    if not set(stages) <= set(STAGES):
        raise SystemExit(f"--only: expected some of {', '.join(STAGES)}, got {arguments.only}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(arguments.out, Path(scratch), time.monotonic(), arguments.seconds, arguments.simulated)
        probe = Job("probe", command(run, "device"), 60, run.scratch / "probe.log")
        found = run_all([probe], run.until("probe"), 1, environment())["probe"]
        print(last_words(probe.log, length=600) or "the GPU did not answer", flush=True)
        if found.status != 0:
            return NO_GPU
        lines = {"card": ([last_words(probe.log)], True)}
        for names, stage in ((("smoke",), smoke), (("tests", "sanitizers"), tests_and_sanitizers),
                             (("benchmarks",), benchmarks)):
            wanted = [name for name in names if name in stages]
            if wanted:
                lines |= stage(run, wanted)
                write(run.out / "summary.txt", summary(lines))
                print(f"{', '.join(wanted)}: done after {time.monotonic() - run.begin:.0f} s", flush=True)
    print(summary(lines))
    return 0 if all(right for _, right in lines.values()) else 1


def check(name, simulated):
    """In a process of its own: one small thing -> exit status."""
    from minilstm import device
    with device.simulated() if simulated else contextlib.nullcontext():
        try:
            here = device.current()
        except device.NoGPU as reason:
            print(reason)
            return NO_GPU
        if name == "device":
            print(", ".join(f"{package} {version(package)}" for package in COMPILER))
            print(f"{here.name}, compute capability {here.compute_capability}, {here.multiprocessors} multiprocessors")
            return 0
        if name == "watched":
            from gpu.watched import run
            return min(run(), 1)
        from gpu.smoke import CHECKS as functions
        functions[name]()
        print("ok")
        return 0


def command(run, name):
    simulated = ["--simulated"] if run.simulated else []
    return [sys.executable, str(Path(__file__).resolve()), "--out", str(run.out), "--check", name, *simulated]


# ----------------------------------------------------------------------- stages: run -> dict name -> (lines, right?)

def smoke(run, wanted):
    jobs = [Job(name, command(run, name), SECONDS["smoke"], run.scratch / f"{name}.log") for name in CHECKS]
    outcomes = run_all(jobs, run.until("smoke"), side_by_side(8), environment(),
                       lambda outcomes: write(run.out / "smoke.txt", told(jobs, outcomes)))
    bad = [f"{job.name}: {outcomes[job.name].word}. {last_words(job.log)}" for job in jobs
           if outcomes[job.name].status != 0]
    return {"smoke": ([f"{len(jobs) - len(bad)} of {len(jobs)} small kernels are right", *bad], not bad)}


def tests_and_sanitizers(run, wanted):
    """Neither measures time, so they run side by side."""
    lines, jobs = {}, {}
    if "sanitizers" in wanted:
        program = sanitizer()
        if program:
            jobs["sanitizers"] = [
                Job(tool, [program, "--tool", tool, "--error-exitcode", "9", *command(run, "watched")],
                    SECONDS["sanitizers"], run.scratch / f"{tool}.log") for tool in ("memcheck", "racecheck")]
        else:
            lines["sanitizers"] = ["compute-sanitizer is not installed: nothing was watched"], True
    if "tests" in wanted:
        if importlib.util.find_spec("pytest"):
            jobs["tests"] = test_jobs(run)
        else:
            lines["tests"] = ["pytest is not installed: no tests were run"], True

    def keep(outcomes):
        for stage, some in jobs.items():
            write(run.out / f"{stage}.txt", told(some, outcomes))

    outcomes = run_all([job for some in jobs.values() for job in some], run.until("tests"),
                       side_by_side(14, cores_each=1), environment(), keep)
    if "sanitizers" in jobs:
        lines["sanitizers"] = watched(jobs["sanitizers"], outcomes)
    if "tests" in jobs:
        lines["tests"] = tested(jobs["tests"], outcomes)
    return lines


def test_jobs(run):
    """First those that are not marked long; what is shared is begun first."""
    jobs = []
    for marks in ("gpu and not long", "gpu and long"):
        for path in sorted(test_files(), key=lambda path: -SHARES.get(path.stem, 1)):
            shares = SHARES.get(path.stem, 1)
            for k in range(shares):
                name = " ".join([path.name, *([f"{k + 1}/{shares}"] if shares > 1 else []),
                                 *([LONG] if marks == "gpu and long" else [])])
                jobs.append(Job(name, pytest(path, marks, f"{k}/{shares}"), SECONDS["tests"],
                                run.scratch / f"{name.replace('/', ' of ')}.log"))
    return jobs


def pytest(path, marks, share):
    """A line for each test, so that a process that is ended has said what it did; without the options of setup.cfg,
    which need pytest-xdist."""
    return [sys.executable, "-m", "pytest", "-o", "addopts=", "-m", marks, "-v", "-rfEs", "--tb=short", "-p",
            "no:cacheprovider", "--share", share, str(path)]


def test_files():
    """Those with tests that take a GPU."""
    return [path for path in sorted((ROOT / "tests").glob("test_*.py"))
            if re.search(r"def \w+\([^)]*\bgpu\b|mark\.gpu\b", path.read_text())]


def tested(jobs, outcomes):
    """Counts of all files, then what failed, then how many of the long ones found no time."""
    counts, bad, late = Counter(), [], 0
    for job in jobs:
        text, outcome = job.log.read_text(errors="replace") if job.log.exists() else "", outcomes[job.name]
        here = Counter(re.findall(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED)\b", text, re.MULTILINE))
        counts += here
        if job.name.endswith(LONG) and outcome.status is None:
            late += 1
        elif outcome.status not in (0, 5):                                      # 5: no tests were chosen
            how = f"{outcome.word}, {outcome.seconds:.0f} s"
            bad.append(f"{job.name}: {how}: {in_words(here)}. {last_words(job.log, 1)}")
            bad += [f"    {line[:180]}" for line in re.findall(r"^(?:FAILED|ERROR) .*", text, re.MULTILINE)[:4]]
    files, said = len({job.name.split()[0] for job in jobs}), in_words(counts)
    unfinished = [f"{late} processes with long tests had no time, or not enough"] if late else []
    return [f"pytest -m gpu over {files} files: {said}", *bad, *unfinished], not bad


def in_words(counts):
    return ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items()) or "none ran"


def watched(jobs, outcomes):
    lines = []
    for job in jobs:
        text = job.log.read_text(errors="replace") if job.log.exists() else ""
        said = [line for line in text.splitlines() if line.startswith("========= ")]
        lines.append(f"{job.name}: {outcomes[job.name].word}: {said[-1][10:] if said else last_words(job.log)}")
    return lines, all(outcomes[job.name].status == 0 for job in jobs)


def sanitizer():
    """Where compute-sanitizer is, or None."""
    nvcc = shutil.which("nvcc")
    beside = Path(nvcc).resolve().parent if nvcc else Path("/usr/local/cuda/bin")
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=beside)


def benchmarks(run, wanted):
    if not importlib.util.find_spec("torch"):
        return {"benchmarks": (["PyTorch is not installed: nothing was compared with it"], True)}
    from gpu_vs_cudnn import compare, report
    parts = chosen(None, quick=run.simulated)
    results = compare(parts, run.out, run.until("benchmarks"), run.simulated)
    if "no GPU" in results:
        return {"benchmarks": ([results["no GPU"]], False)}
    parts = results["parts"]
    return {"benchmarks": (report(parts).splitlines(), all(part["result"] == "ok" for part in parts.values()))}


# ------------------------------------------------------------------------------------------------------------- in words

def summary(lines):
    """What was found, at most LONGEST letters: all of the benchmarks' lines that fit, the first of the others."""
    text = []
    for name, (said, right) in lines.items():
        kept = said if name == "benchmarks" else said[:TOLD]
        more = [f"    and {len(said) - len(kept)} lines more in {name}.txt"] if len(said) > len(kept) else []
        text.append(f"{name}: {'ok' if right else 'NOT RIGHT'}")
        text += [line if name == "benchmarks" else f"    {line}" for line in kept + more]
    whole = "\n".join(text) + "\n"
    return whole if len(whole) <= LONGEST else whole[:LONGEST - 40] + "\n... more in gpu_vs_cudnn.md\n"


def told(jobs, outcomes, length=200_000):
    """All that some processes printed."""
    text = []
    for job in jobs:
        outcome = outcomes.get(job.name)
        text.append(f"==== {job.name}: {f'{outcome.word}, {outcome.seconds:.1f} s' if outcome else 'not done'}")
        text.append(job.log.read_text(errors="replace")[-length:] if job.log.exists() else "")
    return "\n".join(text)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="for the results")
    parser.add_argument("--only", metavar="STAGE,...", help="some of " + ", ".join(STAGES))
    parser.add_argument("--seconds", type=float, default=540, help="for everything")
    parser.add_argument("--simulated", action="store_true", help="toy sizes in the simulator; the times mean nothing")
    parser.add_argument("--check", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
