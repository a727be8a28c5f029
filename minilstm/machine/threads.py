"""A pool of threads that runs compiled kernels side by side.

Why not Numba's ``prange``: its default threading layer aborts the process when two Python threads enter parallel code
at the same time, and all its layers fight for the cores with NumPy's own threads.  Kernels that release the interpreter
lock on ordinary Python threads can do neither.  A hand-over to another thread costs about twenty microseconds, so small
work stays on the calling thread (``parts``).
"""
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

MULTIPLY_ADDS_WORTH_A_THREAD = 2_000_000        # some forty microseconds of one core: twice the price of a hand-over

_lock = threading.Lock()
_pool = None
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
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: expected a positive integer, got {count!r}")
    with _lock:
        _num_threads = count
        retired, _pool = _pool, None
    if retired:
        retired.shutdown(wait=False)


def parts(count, multiply_adds):
    """Into how many parts to cut ``count`` equal pieces of work of ``multiply_adds`` in all: at most one a thread."""
    worth = int(multiply_adds // MULTIPLY_ADDS_WORTH_A_THREAD)
    return max(1, min(get_num_threads(), count, worth))


def spread(task, count):
    """Call ``task(k)`` once for every k in range(count), on the calling thread and the pool's; returns when all are
    done.  The calling thread works too, so a pool that others keep busy slows a call down but cannot block it."""
    helpers = min(get_num_threads(), count) - 1
    if helpers < 1:
        for k in range(count):
            task(k)
        return
    numbers = itertools.count()                                 # next() on it is atomic

    def work():
        while (k := next(numbers)) < count:
            task(k)

    futures = _submit(work, helpers)
    try:
        work()
    finally:
        started = [future for future in futures if not future.cancel()]
        for future in started:
            future.result()


def _submit(work, times):
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, _num_threads - 1), thread_name_prefix="minilstm")
        return [_pool.submit(work) for _ in range(times)]


def _forget_pool():
    """A forked child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
