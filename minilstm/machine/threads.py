"""A pool of threads that runs compiled kernels side by side.

Why not Numba's ``prange``: its default threading layer aborts the process when two Python threads enter parallel code
at the same time, and all its layers fight for the cores with NumPy's own threads.  Kernels that release the interpreter
lock on ordinary Python threads can do neither.

A helper that has done its part looks out for the next call for about a millisecond before it sleeps, and a caller that
has done its own looks out for the helpers (``spin.py``): to wake a thread that sleeps takes longer than some steps of
training.  Small work stays on the calling thread (``threads_for``).

Where the system lets us, helpers are kept off the core of the thread that calls them: Linux likes to wake a thread
where its waker runs, and needs milliseconds to see that another core is idle.
"""
import collections
import contextlib
import ctypes
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..arguments import positive
from .locks import ForkSafeLock
from .spin import changes

MULTIPLY_ADDS_WORTH_A_THREAD = 8_000_000        # some 150 microseconds of one core, a few times a hand-over
LOOKS = 2_000_000                                 # at a number, before a thread sleeps: about a millisecond
NAP = 1e-4                                      # seconds that a caller sleeps after so many looks
JOBS = 100                                      # that a helper does before it asks its pool if it may go on

try:
    _core_of_this_thread = ctypes.CDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None
except (OSError, TypeError, AttributeError):
    _core_of_this_thread = None

_lock = ForkSafeLock()      # of all that follows
_num_threads = None
_looks = 0                  # LOOKS, or 0 where there are more threads than cores: the looks would take others' time
_pool = None
_kept_off = {}              # native id of a helper -> the core it is kept off
_jobs = collections.deque()             # each as often as it wants a helper
_awake = 0                              # helpers that will look into _jobs before they sleep
_offers = np.zeros(1, np.int64)         # how often something was put into _jobs


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get_num_threads():
    """How many threads one call may use: set_num_threads, or else MINILSTM_NUM_THREADS, or else the cores at hand."""
    if _num_threads is None:
        set_num_threads(_from_environment() or _cores())
    return _num_threads


def _from_environment():
    text = os.environ.get("MINILSTM_NUM_THREADS", "")
    if text and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"MINILSTM_NUM_THREADS: expected a positive integer, got {text!r}")
    return int(text or 0)


def set_num_threads(count):
    """Use ``count`` threads from now on.  Results are the same bits for any count."""
    global _num_threads, _looks, _pool
    count = positive("count", count)
    with _lock:
        _num_threads = count
        _looks = LOOKS if count <= _cores() else 0
        retired, _pool = _pool, None
    if retired:
        retired.shutdown(wait=False)


def threads_for(multiply_adds):
    """How many threads so much work is worth."""
    return max(1, min(get_num_threads(), int(multiply_adds // MULTIPLY_ADDS_WORTH_A_THREAD)))


def spread(task, count, threads):
    """Call ``task(k)`` once for every k in range(count), on the calling thread and up to ``threads`` - 1 of the pool's;
    returns when all are done.  The calling thread works too, so a pool that others keep busy, or that is gone at the
    end of the program, slows a call down but cannot block it.  An interrupt of the calling thread may leave a helper at
    its last task."""
    helpers = min(threads, count) - 1
    if helpers <= 0:
        for k in range(count):
            task(k)
        return
    job = _Job(task, count, helpers)
    try:
        _offer(job, helpers)
        job.work()
    finally:
        job.end()
    if job.error:
        raise job.error


ABSENT, AT_WORK, GONE = range(3)


class _Job:
    """A task for every k in range(count), each taken by whoever comes first: the caller, or one of its helpers."""

    def __init__(self, task, count, helpers):
        self.task, self.count, self.error = task, count, None
        self.numbers, self.seats = itertools.count(), itertools.count()         # next() on one is atomic
        self.helpers = np.full(helpers, ABSENT, np.int64)

    def work(self):
        while (k := next(self.numbers)) < self.count:
            self.task(k)

    def help(self):
        """What a helper does.  It says that it is at work before it takes a number, so the caller cannot miss it."""
        seat = next(self.seats)
        self.helpers[seat] = AT_WORK
        try:
            self.work()
        except BaseException as error:
            self.error = error
        finally:
            self.helpers[seat] = GONE

    def end(self):
        """Give no number out any more; wait for the helpers that have one."""
        self.count = 0
        for seat in range(len(self.helpers)):
            while self.helpers[seat] == AT_WORK and not changes(self.helpers, seat, AT_WORK, _looks):
                time.sleep(NAP)
        self.task = None                                        # whose arrays it keeps, should it still be in _jobs


def _offer(job, helpers):
    """Hand a job to so many helpers: to those that look out for one, and for the rest wake some that sleep."""
    global _pool
    with _lock:
        if _pool is None:
            changes(_offers, 0, 0, 0)                           # compiled here: a fork finds no helper compiling
            _kept_off.clear()
            _pool = ThreadPoolExecutor(max(1, _num_threads - 1), "minilstm",
                                       lambda: _kept_off.update({threading.get_native_id(): None}))
        _keep_helpers_off_this_core()
        _jobs.extend([job] * helpers)
        _offers[0] += 1
        _wake()


def _wake():
    """Wake as many helpers as the jobs want, or none where there can be none: at the end of the program a pool takes no
    new work, and a system may refuse a thread.  _lock is held."""
    global _awake
    try:
        while _pool and _awake < min(len(_jobs), max(1, _num_threads - 1)):
            _pool.submit(_serve)
            _awake += 1
    except RuntimeError:
        _jobs.clear()


def _serve():
    """A helper from its waking until it sleeps again, or until its pool, which may be at its end, has been asked."""
    global _awake
    for _ in range(JOBS):
        job = _next_job()
        if job is None:
            return
        job.help()
        del job                                                 # it would keep the arrays of its task
        with _lock:
            _awake += 1
    with _lock:
        _awake -= 1
        _wake()


def _next_job():
    """The first of the jobs; None if there is none, and none comes while we look out."""
    global _awake
    in_vain = False
    while True:
        with _lock:
            seen = int(_offers[0])
            if _jobs or in_vain:
                _awake -= 1
                return _jobs.popleft() if _jobs else None
        in_vain = not changes(_offers, 0, seen, _looks)


def _keep_helpers_off_this_core():
    here = _core_of_this_thread() if _core_of_this_thread else None
    away = [helper for helper, core in list(_kept_off.items()) if core != here]
    others = os.sched_getaffinity(0) - {here} if away else ()
    for helper in away if others else ():
        with contextlib.suppress(OSError):                      # a helper of a pool that has been retired
            os.sched_setaffinity(helper, others)
        _kept_off[helper] = here


def _forget_pool():
    """A forked child has none of its parent's threads."""
    global _pool, _awake
    _pool, _awake = None, 0
    _jobs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
