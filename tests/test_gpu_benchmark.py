"""The programs that measure on a GPU, where there is none: what hangs, crashes or computes wrong numbers costs itself
only, results are on disk, and what was found becomes tables."""
import datetime
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minilstm import device

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"

pytestmark = pytest.mark.usefixtures("benchmark_scripts")


def job(tmp_path, name, code, seconds=30):
    from gpu.processes import Job
    return Job(name, [sys.executable, "-c", code], seconds, tmp_path / f"{name}.log")


# ------------------------------------------------------------------------------------------------------------ processes

def test_a_tool_that_does_not_answer_holds_nobody_up(tmp_path, monkeypatch):
    from gpu import processes
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(processes, "STUCK", 0.5)
    begin = time.monotonic()
    assert processes.side_by_side(1) == 1 and time.monotonic() - begin < 10


def test_a_program_that_takes_too_long_is_ended_with_all_it_started(tmp_path):
    from gpu.processes import run_all
    code = ("import subprocess, time; child = subprocess.Popen(['sleep', '60']); "
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)")
    outcome = run_all([job(tmp_path, "hangs", code, 3)], time.monotonic() + 60)["hangs"]
    assert outcome.status is None and outcome.word == "time-out" and outcome.seconds < 20
    time.sleep(0.2)
    assert not alive((tmp_path / "pid").read_text())


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_crash_costs_one_program_and_leaves_its_last_words(tmp_path):
    from gpu.processes import last_words, run_all
    crash = job(tmp_path, "crash", "import os; print('last words', flush=True); os.abort()")
    jobs = [crash, job(tmp_path, "fails", "raise SystemExit(4)"), job(tmp_path, "right", "print('done')")]
    seen = []
    outcomes = run_all(jobs, time.monotonic() + 60, 2, look=lambda outcomes: seen.append(len(outcomes)))
    assert {name: outcome.word for name, outcome in outcomes.items()} == {
        "crash": "signal 6", "fails": "exit 4", "right": "ok"}
    assert last_words(crash.log) == "last words" and {1, 2, 3} & set(seen) and seen[-1] == 3


def test_nothing_starts_when_the_time_is_over(tmp_path):
    from gpu.processes import run_all
    outcome = run_all([job(tmp_path, "late", "print(1)")], time.monotonic() - 1)["late"]
    assert outcome.word == "no time left" and not (tmp_path / "late.log").exists()


def test_all_processes_end_when_the_whole_is_interrupted(tmp_path):
    from gpu.processes import run_all
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt(outcomes):
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([job(tmp_path, "long", code)], time.monotonic() + 60, look=interrupt)
    assert not alive((tmp_path / "pid").read_text())


def test_what_a_killed_part_had_found_is_kept(tmp_path):
    """Each row is in the file when it is known; infinity and NaN are words, so that any reader takes them."""
    from gpu.record import Record, read
    record = Record(tmp_path / "part.json")
    record.row(ms=1.23456789, error=math.nan)
    with record.attempt("second"):
        raise ValueError("first line\nwhat went wrong")
    found = read(tmp_path / "part.json")
    assert found["rows"] == [{"ms": 1.2346, "error": "nan"}]
    assert found["errors"] == ["second: ValueError: what went wrong"]
    assert read(tmp_path / "nothing.json") == {"facts": {}, "rows": [], "errors": []}


@pytest.mark.parametrize("status, rows, errors, expected", [
    (0, [{"result": "ok"}], [], "ok"), (0, [{"result": "ok"}, {"result": "WRONG"}], [], "WRONG"),
    (0, [{"result": "other bits"}], [], "other bits"), (0, [], ["what"], "errors"), (-11, [], [], "signal 11"),
    (None, [], [], "time-out")])
def test_how_a_part_went(status, rows, errors, expected):
    from gpu.parts import word
    from gpu.processes import Outcome
    assert word(Outcome(status, 1.0), {"rows": rows, "errors": errors}) == expected
    assert word(None, {"rows": rows, "errors": errors}) == "not done"


def test_parts_are_chosen_by_the_beginnings_of_their_names():
    from gpu.parts import chosen, names
    assert chosen(None) == names() and len(names()) == 24
    assert chosen("ladder,lstm-512-16") == ["lstm-512-16-256", "lstm-512-16-512", "ladder", "lstm-512-16-128"]
    with pytest.raises(ValueError, match="got nothing"):
        chosen("ladder,nothing")


# ------------------------------------------------------------------------------------------------------- whole programs

def run(script, *options, tmp_path=None):
    from gpu.parts import environment
    return subprocess.run([sys.executable, str(BENCHMARKS / script), *options], capture_output=True, text=True,
                          env=environment(), cwd=tmp_path)


def has_gpu():
    try:
        return bool(device.current())
    except device.NoGPU:
        return False


@pytest.mark.long
@pytest.mark.parametrize("script, options", [("gpu_vs_cudnn.py", ()), ("on_a_gpu.py", ("--out", "there"))])
def test_without_a_gpu(tmp_path, script, options):
    if has_gpu():
        pytest.skip("there is a GPU")
    done = run(script, *options, tmp_path=tmp_path)
    assert done.returncode == 3 and "The backends 'cpu' and 'reference' need no GPU." in done.stdout


def test_what_is_not_installed_is_named(monkeypatch, capsys, tmp_path):
    import on_a_gpu
    found = on_a_gpu.importlib.util.find_spec
    monkeypatch.setattr(on_a_gpu.importlib.util, "find_spec",
                        lambda name: None if name == "numba_cuda" else found(name))
    monkeypatch.setattr(sys, "argv", ["on_a_gpu.py", "--out", str(tmp_path)])
    assert on_a_gpu.main() == 2 and capsys.readouterr().out.startswith("not installed: numba_cuda\npip install ")


@pytest.mark.long
def test_the_one_command_in_the_simulator(tmp_path):
    """All stages but the benchmarks; there is no GPU for the tests, so that they are skipped."""
    done = run("on_a_gpu.py", "--out", str(tmp_path), "--simulated", "--only", "smoke,sanitizers", "--seconds", "500")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 of 9 small kernels are right" in done.stdout
    assert (tmp_path / "summary.txt").read_text() in done.stdout and (tmp_path / "smoke.txt").exists()


@pytest.mark.long
def test_tests_are_run_file_by_file(monkeypatch, tmp_path):
    """One hangs and one fails; what they did before is counted and kept.  Two processes share the third; a long test
    comes last."""
    import on_a_gpu
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    head = "import pytest, time\n@pytest.mark.gpu\ndef test_right():\n    pass\n@pytest.mark.gpu\ndef test_it():\n    "
    for name, code in (("hangs", "time.sleep(60)"), ("fails", "assert 1 == 2"), ("right", "pass")):
        (tmp_path / f"test_{name}.py").write_text(head + code + "\n")
    with open(tmp_path / "test_right.py", "a") as file:
        file.write("@pytest.mark.long\n@pytest.mark.gpu\ndef test_long():\n    pass\n")
    monkeypatch.setattr(on_a_gpu, "SHARES", {"test_right": 2})
    monkeypatch.setattr(on_a_gpu, "test_files", lambda: sorted(tmp_path.glob("test_*.py")))
    monkeypatch.setitem(on_a_gpu.SECONDS, "tests", 12)
    run = on_a_gpu.Run(tmp_path, tmp_path, time.monotonic(), 100, False)
    lines, right = on_a_gpu.tests_and_sanitizers(run, ["tests"])["tests"]
    assert not right and lines[0] == "pytest -m gpu over 3 files: 5 passed, 1 failed"
    assert lines[1].startswith("test_fails.py: exit 1") and "assert 1 == 2" in lines[2]
    assert lines[3].startswith("test_hangs.py: time-out, 12 s: 1 passed")
    kept = (tmp_path / "tests.txt").read_text()
    assert "==== test_hangs.py: time-out" in kept and all(f"==== test_right.py {k}/2: ok" in kept for k in (1, 2))
    assert "test_right.py::test_long PASSED" in kept.split("==== test_right.py 1/2 (long)")[1]


def test_summary_is_short_and_counts_tests(tmp_path):
    import on_a_gpu
    from gpu.processes import Outcome
    jobs = [job(tmp_path, "a", ""), job(tmp_path, "b", "")]
    jobs[0].log.write_text("tests/a.py::test_it[cuda] PASSED [ 50%]\ntests/a.py::test_it[a b] SKIPPED (why) [100%]\n")
    jobs[1].log.write_text("tests/b.py::test_that PASSED [ 50%]\ntests/b.py::test_it FAILED [100%]\n"
                           "FAILED tests/b.py::test_it - AssertionError: far off\n1 failed, 1 passed in 1.00s\n")
    lines, right = on_a_gpu.tested(jobs, {"a": Outcome(0, 2.0), "b": Outcome(1, 1.0)})
    assert not right and lines[0] == "pytest -m gpu over 2 files: 2 passed, 1 skipped, 1 failed"
    assert lines[1].startswith("b: exit 1, 1 s: 1 passed, 1 failed") and "far off" in lines[2]
    text = on_a_gpu.summary({"tests": (lines * 30, right), "benchmarks": (["x" * 100] * 200, True)})
    assert len(text) <= on_a_gpu.LONGEST and text.startswith("tests: NOT RIGHT") and "lines more in tests.txt" in text


@pytest.mark.peers
@pytest.mark.long
def test_the_whole_comparison_in_the_simulator(tmp_path):
    done = run("gpu_vs_cudnn.py", "--simulated", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu_vs_cudnn.json").read_text())["parts"]
    assert list(found) == ["facts", "lstm-512-16-256", "gru-512-16-256", "launches", "training"]
    assert "| (3, 2, 8) |" in (tmp_path / "gpu_vs_cudnn.md").read_text()


# ---------------------------------------------------------------------------------------------------- tables and README

def rows_of(kind, shape, ratios):
    return [{"kind": kind, "shape": shape, "layout": layout, "work": work, "tf32": tf32, "result": "ok", "ms": 0.5,
             "ratio": ratios[tf32]} for layout in ("dense", "ragged") for work in ("forward", "forward + backward")
            for tf32 in (False, True)]


def test_tables_have_the_goals_beside_the_ratios():
    from gpu import tables
    rows = rows_of("LSTM", [512, 16, 256], (4.5, 2.5)) + rows_of("LSTM", [256, 128, 1024], (1.0, 0.45))
    rows[1] = {key: value for key, value in rows[1].items() if key not in ("ratio", "ms")} | {"result": "WRONG"}
    parts = {"lstm": {"facts": {}, "rows": rows, "errors": []}}
    lines = tables.recurrent(parts, "LSTM").splitlines()
    assert lines[2] == ("| (512, 16, 256) | 4.50 / WRONG (0.5 ms) | 4 / 4 | 4.50 / 2.50 (0.5 ms) | 3 / 3 | "
                        "4.50 / 2.50 (0.5 ms) | 4 / 4 | 4.50 / 2.50 (0.5 ms) | 3 / 3 |")
    assert lines[3].startswith("| (256, 128, 1024) | 1.00 / 0.45 (0.5 ms) | 0.9 / 0.5 | 1.00 / 0.45 (0.5 ms) | 0.8 / ")
    below = tables.missed(parts)
    assert len(below) == 4 and below[0] == "LSTM (512, 16, 256) ragged forward, TF32 on: 2.50 of 4"
    assert "LSTM (256, 128, 1024) dense forward, TF32 on: 0.45 of 0.5" in below


def test_a_figure_that_is_no_number_stops_nothing():
    import gpu_vs_cudnn
    parts = {"lstm": {"result": "ok", "seconds": 1.0, "facts": {}, "errors": [],
                      "rows": rows_of("LSTM", [512, 16, 256], ("nan", 4.2))}}
    assert "nan / 4.20 (0.5 ms)" in gpu_vs_cudnn.report(parts)
    parts["lstm"]["rows"][0]["ms"] = "inf"
    assert gpu_vs_cudnn.report(parts).startswith("no tables, for ValueError: ")


def test_readme_takes_the_tables(monkeypatch, tmp_path):
    """Without figures the sentence that README.md has now; with them, tables and what they were measured with."""
    import measure
    from gpu import tables
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    tables.readme({"facts": {"facts": {"GPU": "some GPU", "torch": "9.9"}, "rows": [], "errors": []},
                   "lstm": {"facts": {}, "rows": rows_of("LSTM", [512, 16, 256], (4.5, 4.2)), "errors": []}},
                  datetime.date(2030, 1, 2))
    text = readme.read_text()
    assert "| (512, 16, 256) | 4.50 / 4.20 (0.5 ms) | 4 / 4 |" in text and "some GPU" in text and "2030-01-02" in text
    assert tables.UNMEASURED not in text
    tables.readme()
    assert f"<!-- gpu -->\n{tables.UNMEASURED}\n<!-- /gpu -->" in readme.read_text()


def test_tables_of_an_earlier_run(tmp_path):
    parts = {"facts": {"result": "ok", "seconds": 1.0, "facts": {"GPU": "some GPU"}, "rows": [], "errors": []},
             "lstm": {"result": "ok", "seconds": 9.5, "facts": {}, "errors": [],
                      "rows": rows_of("LSTM", [512, 16, 256], (4.5, 4.2))}}
    (tmp_path / "earlier.json").write_text(json.dumps({"date": "2030-01-02", "parts": parts}))
    done = run("gpu_vs_cudnn.py", "--from", str(tmp_path / "earlier.json"))
    assert done.returncode == 0 and "| (512, 16, 256) | 4.50 / 4.20 (0.5 ms) | 4 / 4 |" in done.stdout
