"""A lock that survives a fork."""
import os
import threading


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
