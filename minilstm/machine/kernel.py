"""The ``@kernel`` decorator: Numba's ``njit`` with this project's settings and a disk cache that cannot be stale.

Numba compares a cached kernel with the file that the kernel stands in, and with no other.  A formula of ``cells/``
that is edited would leave the old machine code of ``recurrence/cpu.py`` in use, silently.  So the cache folder is named
after a hash of every source file of the package and of the versions that compile it: after an edit there is a new,
empty folder, and the next run compiles again.  Kernels with formulas from outside the package are not cached at all.
"""
import contextlib
import functools
import hashlib
import inspect
import os
import platform
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba import types

from .locks import ForkSafeLock

PACKAGE = Path(__file__).resolve().parents[1]
DAYS_KEPT = 30
OUR_FOLDERS = re.compile(r"[0-9a-f]{20}")


def fingerprint():
    """A hash of the package's sources and of everything that turns them into machine code, as 20 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in (platform.python_version(), np.__version__, numba.__version__, llvmlite.__version__):
        digest.update(text.encode() + b"\0")
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def cache_roots():
    """Folders to try, best first: below NUMBA_CACHE_DIR, the user's cache folder, the folder of temporary files."""
    home = os.path.expanduser("~")          # stays "~" where there is no home
    user = os.getuid() if hasattr(os, "getuid") else "user"
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR) / "minilstm-kernels"
    if os.environ.get("XDG_CACHE_HOME") or home != "~":
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path(home) / ".cache") / "minilstm-kernels"
    yield Path(tempfile.gettempdir()) / f"minilstm-kernels-{user}"


def private_folder(path):
    """Make ``path`` and show that it is a folder of ours that can be written to: cached code from it will be run."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or hasattr(os, "getuid") and found.st_uid != os.getuid():
        raise PermissionError(f"{path} is a link, or belongs to another user")
    with tempfile.TemporaryFile(dir=path):
        return path


def remove_old(root):
    """Delete the cache folders below ``root`` that no process has opened for DAYS_KEPT days, and nothing else."""
    oldest = time.time() - DAYS_KEPT * 24 * 3600
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if OUR_FOLDERS.fullmatch(folder.name) and stat.S_ISDIR(found.st_mode) and found.st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def open_cache_folder():
    """The folder for this version of the sources, or None where nothing can be written: then nothing is cached."""
    for root in cache_roots():
        with contextlib.suppress(OSError):
            folder = private_folder(private_folder(root) / fingerprint())
            os.utime(folder)
            remove_old(root)
            return folder
    return None


CACHE_FOLDER = open_cache_folder()

SETTINGS = {
    "nogil": True,                  # no interpreter lock: threads run side by side
    "error_model": "numpy",         # a division does not raise; a loop that may raise is not vectorised
    "fastmath": {"contract"},       # a*b + c in one instruction, and no other liberty: NaN and infinity stay
}

_decorating = ForkSafeLock()


def kernel(function, cached=True, any_order=False):
    """Compile ``function`` with SETTINGS on its first call; if ``cached``, keep the machine code in CACHE_FOLDER.

    any_order: the compiler may choose the order in which it adds numbers up, and add several sums side by side."""
    settings = SETTINGS | {"fastmath": SETTINGS["fastmath"] | {"reassoc"}} if any_order else SETTINGS
    if CACHE_FOLDER is None or not cached:
        return numba.njit(**settings)(function)
    with _decorating:                                           # Numba reads the folder, a global, while it decorates
        previous = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(CACHE_FOLDER)
        try:
            return numba.njit(cache=True, **settings)(function)
        finally:
            numba.config.CACHE_DIR = previous


def Read(ndim):
    """An array with any strides, which is only read."""
    return lambda scalar: types.Array(scalar, ndim, "A", readonly=True, aligned=False)


def Written(ndim):
    """A contiguous array."""
    return lambda scalar: types.Array(scalar, ndim, "C")


def Integer(scalar):
    return types.int64


def Places(scalar):
    """A contiguous array of integers, which is only read."""
    return types.Array(types.int64, 1, "C", readonly=True)


def kernel_for(*kinds):
    """A decorator for functions of arguments of these kinds: dtype -> the kernel for arrays of that dtype.

    It is compiled once.  Left to itself, Numba would compile it again for each layout of each array, and for read-only
    arrays once more."""
    def decorate(function):
        @functools.cache
        def kernel_of(dtype):
            compiled = kernel(function)
            scalar = numba.from_dtype(dtype)
            compiled.compile(tuple(kind(scalar) for kind in kinds))
            compiled.disable_compile()
            return compiled

        return kernel_of

    return decorate


def is_ours(function):
    """Does ``function`` stand in this package, whose sources the cache folder is named after, with all functions that
    it was made with?"""
    made_with = [cell.cell_contents for cell in function.__closure__ or ()]
    return (function.__module__.split(".")[0] == __name__.split(".")[0]
            and all(is_ours(inner) for inner in made_with if inspect.isfunction(inner)))
