"""A lock that survives a fork."""
import os
import threading


def ForkSafeLock():
    """A lock that a forked child finds open: the thread that held it in the parent does not exist in the child.

    A lock of Python's own, and no class around one: with it, ``with`` cannot be interrupted between taking the lock and
    making sure that it is given back."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)
    return lock
