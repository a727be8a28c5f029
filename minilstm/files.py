"""Files that are complete or are not there."""
import contextlib
import os
import secrets
from pathlib import Path


def write_whole(path, content):
    """Write bytes to the file ``path``, in the place of what was there: beside it first, renamed when they are on the
    disk, so that nobody ever sees half of them.  A link is followed.  Raises OSError where that cannot be done."""
    path = Path(os.path.realpath(path))
    unfinished = path.parent / f"{secrets.token_hex(8)}.part"
    try:
        with open(unfinished, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
