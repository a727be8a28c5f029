"""A pool of threads that runs compiled kernels side by side.

Why not Numba's ``prange``: its default threading layer aborts the process when two Python threads enter parallel code
at the same time, and all its layers fight for the cores with NumPy's own threads.  Kernels that release the interpreter
lock on ordinary Python threads can do neither.  A hand-over to another thread costs tens of microseconds, so small work
stays on the calling thread (``threads_for``).

Where the system lets us, helpers are kept off the core of the thread that calls them: Linux likes to wake a thread
where its waker runs, and needs milliseconds to see that another core is idle.
"""
import contextlib
import ctypes
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from ..arguments import positive

MULTIPLY_ADDS_WORTH_A_THREAD = 8_000_000        # some 150 microseconds of one core, a few times a hand-over


class ForkSafeLock:
    """A lock that a forked child finds open: the thread that held it in the parent does not exist in the child."""

    def __init__(self):
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self):
        self._lock = threading.Lock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *exception):
        self._lock.release()


try:
    _core_of_this_thread = ctypes.CDLL(None).sched_getcpu if hasattr(os, "sched_setaffinity") else None
except (OSError, TypeError, AttributeError):
    _core_of_this_thread = None

_lock = ForkSafeLock()
_pool = None
_kept_off = {}              # native id of a helper -> the core it is kept off
_num_threads = None


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
    global _num_threads, _pool
    count = positive("count", count)
    with _lock:
        _num_threads = count
        retired, _pool = _pool, None
    if retired:
        retired.shutdown(wait=False)


def threads_for(multiply_adds):
    """How many threads so much work is worth."""
    return max(1, min(get_num_threads(), int(multiply_adds // MULTIPLY_ADDS_WORTH_A_THREAD)))


def spread(task, count, threads):
    """Call ``task(k)`` once for every k in range(count), on the calling thread and up to ``threads`` - 1 of the pool's;
    returns when all are done.  The calling thread works too, so a pool that others keep busy, or that is gone at the
    end of the program, slows a call down but cannot block it."""
    if min(threads, count) <= 1:
        for k in range(count):
            task(k)
        return
    numbers = itertools.count()                                 # next() on it is atomic

    def work():
        while (k := next(numbers)) < count:
            task(k)

    futures = _submit(work, min(threads, count) - 1)
    try:
        work()
    finally:
        started = [future for future in futures if not future.cancel()]
        for future in started:
            future.result()


def _submit(work, times):
    global _pool
    if times < 1:
        return []
    futures = []
    helpers = max(1, get_num_threads() - 1)
    with _lock:
        if _pool is None:
            _kept_off.clear()
            _pool = ThreadPoolExecutor(helpers, "minilstm", lambda: _kept_off.update({threading.get_native_id(): None}))
        _keep_helpers_off_this_core()
        try:
            for _ in range(times):
                futures.append(_pool.submit(work))
        except RuntimeError as error:                           # at the end of the program a pool takes no new work
            if "cannot schedule new futures" not in str(error):
                raise
    return futures


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
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
