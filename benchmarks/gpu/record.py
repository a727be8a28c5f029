"""What a part of a benchmark found, on disk after every change: a process that is killed loses nothing."""
import contextlib
import json
import math
import os
from pathlib import Path


class Record:
    """facts: name -> value; rows: dicts of figures; errors: what ended a part of the work, in words."""

    def __init__(self, path=None):
        self.path, self.data = path, empty()
        self.keep()

    def fact(self, **facts):
        self.data["facts"] |= plain(facts)
        self.keep()

    def row(self, **figures):
        self.data["rows"].append(plain(figures))
        self.keep()

    @contextlib.contextmanager
    def attempt(self, name):
        """An exception in this block costs this block."""
        try:
            yield
        except Exception as error:
            self.data["errors"].append(f"{name}: {in_words(error)}")
            self.keep()

    def keep(self):
        if self.path:
            write(self.path, self.data)


def empty():
    return {"facts": {}, "rows": [], "errors": []}


def write(path, data):
    """As a whole or not at all: whoever reads the file never sees half of it."""
    new = Path(f"{path}.{os.getpid()}.new")
    new.write_text(data if isinstance(data, str) else json.dumps(data, indent=1) + "\n")
    os.replace(new, path)


def read(path):
    """A file of a Record; an empty one where there is none, as when a process ended before it began to write."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return empty()


def plain(value):
    """For JSON: numbers with five digits, infinity and NaN as words, tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return value


def in_words(error, length=300):
    """The kind of an exception and the last line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:length]
