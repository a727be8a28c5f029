"""Compiled code is never stale, importing is cheap, threads behave."""
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from numba.core.caching import FunctionCache

import minilstm
from minilstm.cells import GRU_RESET_BEFORE_CELL, LSTM_CELL, RNN_RELU_CELL
from minilstm.cells.rnn import cell_with
from minilstm.machine import buffers, spin, threads
from minilstm.machine.kernel import CACHE_FOLDER
from minilstm.recurrence import cpu

PACKAGE = Path(minilstm.__file__).parent

OUTPUTS = """
import numpy as np
from minilstm.cells import LSTM_CELL, Weights
from minilstm.recurrence import cpu, reference
rng = np.random.default_rng(0)
weights = Weights(*(rng.normal(size=s) for s in ((12, 2), (12, 3), 12, 12, (0, 3), (0, 3))))
x, mask, initial = rng.normal(size=(2, 4, 2)), np.ones((2, 4), bool), (np.ones((2, 3)), np.ones((2, 3)))
for backend in (reference, cpu):
    y, (h, c), _ = backend.forward(LSTM_CELL, weights, x, mask, initial)
    print(repr(float(y.sum())), repr(float(c.sum())))
from minilstm.machine.kernel import CACHE_FOLDER
print(CACHE_FOLDER)
"""


def in_new_process(script, folder, **environment):
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers(line):
    return [float(text) for text in line.split()]


@pytest.mark.long
def test_an_edited_formula_is_in_the_compiled_kernels_of_the_next_run(tmp_path):
    """Numba's own cache would go on with the old machine code: it does not look at the file of the formula."""
    shutil.copytree(PACKAGE, tmp_path / "minilstm", ignore=shutil.ignore_patterns("__pycache__"))
    formulas = tmp_path / "minilstm" / "cells" / "lstm.py"
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def compiled_files():
        return sorted(path for path in (tmp_path / "cache").rglob("*.nbc"))

    reference, cpu, _ = in_new_process(OUTPUTS, tmp_path, **cache)
    assert numbers(cpu) == pytest.approx(numbers(reference), rel=1e-12)
    files = compiled_files()
    assert files, "machine code is kept on disk"

    assert in_new_process(OUTPUTS, tmp_path, **cache)[:2] == [reference, cpu]
    assert compiled_files() == files, "and found again"

    source = formulas.read_text()
    assert source.count("    c = f * c_prev + i * g\n") == 1
    formulas.write_text(source.replace("    c = f * c_prev + i * g\n", "    c = f * c_prev - i * g\n"))
    reference_edited, cpu_edited, _ = in_new_process(OUTPUTS, tmp_path, **cache)
    assert numbers(cpu_edited) == pytest.approx(numbers(reference_edited), rel=1e-12)
    assert numbers(cpu_edited) != pytest.approx(numbers(cpu), rel=1e-3)


@pytest.mark.long
def test_it_runs_where_no_cache_can_be_written(tmp_path):
    """No home, no cache folder, no temporary one: everything is compiled anew, and works."""
    blocked = tmp_path / "a file"
    blocked.write_text("")
    home = {name: str(blocked / "below") for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME")}
    script = f"import tempfile; tempfile.tempdir = {str(blocked)!r}\n{OUTPUTS}"
    reference, cpu, folder = in_new_process(script, PACKAGE.parent, **home)
    assert numbers(cpu) == pytest.approx(numbers(reference), rel=1e-12) and folder == "None"


def test_it_runs_where_there_is_no_home(tmp_path):
    """Python itself cannot name a home: HOME is unset, and the user is in no list of users."""
    script = """
import os
os.path.expanduser = lambda path: path
from minilstm.machine.kernel import CACHE_FOLDER
print(CACHE_FOLDER)
"""
    [folder] = in_new_process(script, PACKAGE.parent, NUMBA_CACHE_DIR="", XDG_CACHE_HOME="", TMPDIR=str(tmp_path))
    assert Path(folder).parent.parent == tmp_path


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="file modes are a matter of POSIX systems")
def test_cache_folder_is_private_and_only_old_ones_of_ours_are_removed(tmp_path):
    root, long_ago = tmp_path / "minilstm-kernels", time.time() - 31 * 24 * 3600
    ours_old, ours_recent, foreign = root / "0123456789abcdef0123", root / "3210fedcba9876543210", root / "precious"
    for folder in (ours_old, ours_recent, foreign, tmp_path / "target"):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0 if folder == ours_recent else long_ago))
    os.utime(ours_recent)
    (root / "aaaaaaaaaaaaaaaaaaaa").symlink_to(tmp_path / "target")
    (root / "bbbbbbbbbbbbbbbbbbbb").symlink_to(tmp_path / "nowhere")
    [folder] = in_new_process("from minilstm.machine.kernel import CACHE_FOLDER; print(CACHE_FOLDER)", PACKAGE.parent,
                              NUMBA_CACHE_DIR=str(tmp_path))
    assert Path(folder).parent == root and stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert not ours_old.exists() and ours_recent.exists() and foreign.exists() and (tmp_path / "target").exists()


def test_formulas_from_outside_the_package_are_never_cached():
    """Their sources are not in the name of the cache folder."""
    def forward_row(a, own, before, after, saved):
        after[0, 0] = a[0, 0]

    def formula(*arguments):
        return arguments[0]

    inside = (LSTM_CELL, GRU_RESET_BEFORE_CELL, RNN_RELU_CELL)
    outside = (LSTM_CELL._replace(forward_row=forward_row), cell_with("mine", formula, formula),
               GRU_RESET_BEFORE_CELL._replace(second_forward_row=forward_row))
    for cell, cached in [*((cell, True) for cell in inside), *((cell, False) for cell in outside)]:
        for compiled in cpu.kernels(cell):
            assert isinstance(compiled._cache, FunctionCache) == (cached and CACHE_FOLDER is not None)


def test_kernels_made_in_many_threads_go_to_our_folder(tmp_path):
    """Numba's cache folder is a global that is ours only while we decorate."""
    script = """
import sys, threading, numba
sys.setswitchinterval(1e-6)
from minilstm.cells.activations import d_tanh
from minilstm.machine.kernel import CACHE_FOLDER, kernel
made, start = [], threading.Barrier(8)
def work():
    start.wait()
    for _ in range(20):
        made.append(kernel(d_tanh))
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(all(k._cache.cache_path.startswith(str(CACHE_FOLDER)) for k in made), len(made), numba.config.CACHE_DIR)
"""
    [line] = in_new_process(script, PACKAGE.parent, NUMBA_CACHE_DIR=str(tmp_path))
    assert line == f"True 160 {tmp_path}"


def test_import_is_cheap_and_compiles_nothing():
    """After NumPy and Numba it takes at most 1.5 times as long as Numba did, the best of five (1.0 is usual); no plots,
    no CUDA, no simulator; no kernel compiled."""
    script = """
import time, numpy
begin = time.perf_counter()
import numba
middle = time.perf_counter()
import minilstm
print((time.perf_counter() - middle) / (middle - begin))
import sys
print([name for name in ("matplotlib", "numba.cuda", "greenlet", "torch") if name in sys.modules])
from minilstm.cells import LSTM_CELL
from minilstm.matmul import cpu as matmul
from minilstm.recurrence import cpu
made = [kernel.cache_info().currsize for kernel in (matmul.pack_panels, matmul.product_rows)]
print(sum(made) + sum(len(kernel.signatures) for kernel in cpu.kernels(LSTM_CELL)))
"""
    runs = [in_new_process(script, PACKAGE.parent) for _ in range(5)]
    assert min(float(ratio) for ratio, _, _ in runs) < 1.5
    assert all(loaded == "[]" and compiled == "0" for _, loaded, compiled in runs)


# -------------------------------------------------------------------------------------------------------------- threads

@pytest.fixture
def restored_threads():
    before = minilstm.get_num_threads()
    yield
    minilstm.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_spread_does_every_task_once(restored_threads, count):
    minilstm.set_num_threads(5)
    for tasks in (0, 1, 2, 100):
        done = []
        threads.spread(done.append, tasks, count)
        assert sorted(done) == list(range(tasks))


def test_spread_uses_as_many_threads_as_it_may(restored_threads):
    """Three tasks that wait for each other can only end side by side; with one thread all run on the caller's."""
    minilstm.set_num_threads(3)
    meeting = threading.Barrier(3)
    threads.spread(lambda k: meeting.wait(timeout=30), 3, 3)
    names = set()
    threads.spread(lambda k: names.add(threading.current_thread().name), 20, 1)
    assert names == {threading.current_thread().name}


def test_small_work_stays_on_the_calling_thread(restored_threads):
    minilstm.set_num_threads(4)
    assert [threads.threads_for(work) for work in (0, 1e5, 1e7, 2e7, 1e12)] == [1, 1, 1, 2, 4]


def test_spread_works_from_many_threads_and_inside_itself(restored_threads):
    minilstm.set_num_threads(2)
    done = []
    outer = [threading.Thread(target=lambda: threads.spread(
        lambda k: threads.spread(lambda j: done.append((k, j)), 5, 2), 5, 2)) for _ in range(4)]
    for thread in outer:
        thread.start()
    for thread in outer:
        thread.join(timeout=30)
    assert len(done) == 100


def test_an_error_in_a_task_reaches_the_caller(restored_threads):
    minilstm.set_num_threads(3)

    def task(k):
        if k == 7:
            raise RuntimeError("seven")

    with pytest.raises(RuntimeError, match="seven"):
        threads.spread(task, 10, 3)
    done = []
    threads.spread(done.append, 10, 3)
    assert len(done) == 10, "the pool is as good as before"


def test_a_look_ends_with_a_change_or_after_so_many():
    numbers = np.array([5, 7])
    assert not spin.changes(numbers, 1, 7, 1000) and spin.changes(numbers, 1, 5, 1000)
    other = threading.Timer(0.05, lambda: numbers.__setitem__(1, 8))
    other.start()
    assert spin.changes(numbers, 1, 7, 10**11), "seen while we look, not only before"
    other.join()


def test_a_helper_that_looks_out_takes_the_next_job_unasked_and_holds_nothing_meanwhile(restored_threads, monkeypatch):
    minilstm.set_num_threads(2)
    meeting = threading.Barrier(2)
    until(lambda: threads._awake == 0)                                      # nobody is left of the tests before
    monkeypatch.setattr(threads, "_looks", 10**11)

    def together():
        held = np.empty(3)
        threads.spread(lambda k, held=held: meeting.wait(timeout=30), 2, 2)
        return weakref.ref(held)

    try:
        gone = together()
        until(lambda: threads._awake == 1 and gone() is None)
        monkeypatch.setattr(threads._pool, "submit", lambda task: pytest.fail("nobody sleeps"))
        together()
    finally:
        threads._offers[0] += 1                                             # the helper looks up, in vain,
        monkeypatch.setattr(threads, "_looks", 0)
        threads._offers[0] += 1                                             # and goes to sleep
    until(lambda: threads._awake == 0 and not threads._jobs)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.001)


def test_many_callers_and_changing_counts_lose_no_task(restored_threads):
    """Helpers that sleep, look out, come late, belong to a pool that has been retired: each task is done once."""
    done = [[] for _ in range(4)]

    def call(caller):
        rng = np.random.default_rng(caller)
        for turn in range(300):
            if caller == 0 and turn % 20 == 0:
                minilstm.set_num_threads(int(rng.integers(2, 5)))
            count = int(rng.integers(1, 6))
            threads.spread(lambda k: done[caller].append((turn, k)), count, int(rng.integers(1, 5)))
            assert sum(t == turn for t, _ in done[caller][-count:]) == count, "all are done when spread returns"

    callers = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
        assert not caller.is_alive()
    assert all(len(found) == len(set(found)) and {turn for turn, _ in found} == set(range(300)) for found in done)
    until(lambda: threads._awake == 0 and not threads._jobs)


def test_a_call_that_has_ended_holds_nothing_though_no_helper_came(restored_threads):
    """The only helper is busy elsewhere meanwhile, and afterwards nothing is left for it to do."""
    minilstm.set_num_threads(2)
    came, go = threading.Barrier(3), threading.Event()

    def wait(k):
        came.wait(timeout=30)
        go.wait(timeout=30)

    elsewhere = threading.Thread(target=lambda: threads.spread(wait, 2, 2))
    elsewhere.start()
    came.wait(timeout=30)
    held = []
    for _ in range(20):
        array = np.empty(3)
        held.append(weakref.ref(array))
        threads.spread(lambda k, array=array: None, 4, 2)
        del array
    assert not any(reference() is not None for reference in held)
    go.set()
    elsewhere.join(timeout=30)
    until(lambda: threads._awake == 0 and not threads._jobs)


def test_a_program_ends_though_a_daemon_thread_calls_without_pause():
    script = """
import threading, time
from minilstm.machine import threads
threads.set_num_threads(2)
def call():
    while True:
        threads.spread(lambda k: None, 4, 2)
threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
print("the main thread ends")
"""
    start = time.monotonic()
    assert in_new_process(script, PACKAGE.parent) == ["the main thread ends"]
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_bad_thread_counts_are_named(count):
    with pytest.raises(ValueError, match="count: expected a positive integer, got"):
        minilstm.set_num_threads(count)


def test_thread_count_from_the_environment():
    script = "import minilstm; print(minilstm.get_num_threads())"
    assert in_new_process(script, PACKAGE.parent, MINILSTM_NUM_THREADS="3") == ["3"]
    script = "import minilstm\ntry: minilstm.get_num_threads()\nexcept ValueError as error: print(error)"
    [message] = in_new_process(script, PACKAGE.parent, MINILSTM_NUM_THREADS="many")
    assert message == "MINILSTM_NUM_THREADS: expected a positive integer, got 'many'"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_and_locks_of_its_own():
    """Forked while the parent holds every lock that a forward and a backward pass take."""
    script = """
import os, signal
import numpy as np
import minilstm
from minilstm.layers import layer
from minilstm.machine import kernel, threads
minilstm.set_num_threads(3)
threads.spread(lambda k: None, 10, 3)
net = minilstm.LSTM(2, 3)
with layer._adding, kernel._decorating, threads._lock:
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        out, cache = net.forward(np.ones((1, 2, 2), "float32"))
        net.backward(cache, out.y)
        done = []
        threads.spread(done.append, 50, 3)
        os._exit(len(done))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert in_new_process(script, PACKAGE.parent) == ["50"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
                    reason="one core, or a system that does not say where a thread may run")
def test_helpers_stay_off_the_core_of_their_caller(restored_threads):
    """Wherever the caller is: it is moved, here, from one core to another."""
    minilstm.set_num_threads(2)
    meeting = threading.Barrier(2)
    allowed = os.sched_getaffinity(0)
    found = {}

    def task(k):
        meeting.wait(timeout=30)
        found[threading.current_thread().name] = os.sched_getaffinity(0)

    try:
        threads.spread(task, 2, 2)                                          # makes the helper
        for core in sorted(allowed)[:2]:
            os.sched_setaffinity(0, {core})                                 # there we are
            os.sched_setaffinity(0, allowed)
            here = threads._core_of_this_thread()
            threads.spread(task, 2, 2)
            [helper] = [cores for name, cores in found.items() if name.startswith("minilstm")]
            assert helper == allowed - {here}
            assert found[threading.current_thread().name] == allowed, "the caller goes where it likes"
    finally:
        os.sched_setaffinity(0, allowed)


def test_it_works_after_the_main_thread_has_ended():
    """Python takes no new work for thread pools then; the calling thread does it all."""
    script = """
import threading, time
from minilstm.machine import buffers, spin, threads
threads.set_num_threads(3)
def late():
    threading.main_thread().join()
    time.sleep(0.2)
    done = []
    threads.spread(done.append, 50, 3)
    print(len(done))
threading.Thread(target=late).start()
"""
    assert in_new_process(script, PACKAGE.parent) == ["50"]


# -------------------------------------------------------------------------------------------------------------- buffers

def test_memory_of_large_arrays_is_used_again_and_never_while_somebody_looks():
    shape = (300, 200)
    first = buffers.empty(shape, "float32")
    first.fill(1)
    assert first.ctypes.data % buffers.ALIGNMENT == 0 and first.flags.c_contiguous and first.flags.writeable
    place, view = first.ctypes.data, first[10:, 5]
    del first
    second = buffers.empty(shape, "float32")
    second.fill(2)
    assert second.ctypes.data != place and (view == 1).all(), "a view keeps the memory"
    del view
    third = buffers.empty(shape, "float64")                                 # twice as large: another block
    assert third.ctypes.data != place and third.dtype == "float64" and third.shape == shape
    fourth = buffers.zeros(shape, "float32")
    assert fourth.ctypes.data == place and not fourth.any()


def test_memory_that_lies_idle_is_bounded(monkeypatch):
    monkeypatch.setattr(buffers, "_idle", idle := {})
    monkeypatch.setattr(buffers._Block.__del__, "__defaults__", (idle,))
    monkeypatch.setattr(buffers, "KEPT", 2**20)
    arrays = [buffers.empty((2**16,), "float32") for _ in range(10)]        # 256 KiB each
    places = [array.ctypes.data for array in arrays]
    while arrays:
        arrays.pop(0)
    assert sum(size * len(blocks) for size, blocks in idle.items()) == 2**20
    again = [buffers.empty((2**16,), "float32") for _ in range(4)]
    assert {array.ctypes.data for array in again} == set(places[-4:]), "what has been idle longest is given back"
    small = [buffers.empty((2**15,), "float32") for _ in range(8)]
    del again
    small.clear()
    assert list(map(len, idle.values())) == [0, 8], "memory of another size does not stand in its way"


def test_buffers_in_many_threads_do_not_overlap():
    wrong = []

    def work(number):
        for _ in range(200):
            arrays = [buffers.empty((20_000,), "float32") for _ in range(3)]
            for k, array in enumerate(arrays):
                array.fill(10 * number + k)
            wrong.extend(k for k, array in enumerate(arrays) if not (array == 10 * number + k).all())

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
