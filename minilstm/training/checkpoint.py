"""Checkpoints: a training run in a file, from which it goes on as if it had never stopped.

    metadata    format    "minilstm checkpoint"
                version   "2"
                settings  JSON: what the run was started with, to tell it from others
                numbers   JSON: where it is
    tensors     its arrays, by name: weights, what the optimizer keeps

The file is complete at every moment.  The next one is written beside it, into a file ".<name>.next" whose room on the
disk was taken before the work began that it is to keep, and then renamed: so a full disk or a folder that cannot be
written to is an error before an epoch, not after it.  One run at a time may use a file.
"""
import contextlib
import json
import os
from pathlib import Path

import safetensors
import safetensors.numpy

from ..arguments import positive
from ..layers.saving import FormatError

FORMAT, VERSION = "minilstm checkpoint", "2"
SPARE = 1 << 16             # bytes by which the next file may be longer: the history grows


class Checkpoint:
    """The file at ``path``, of a run with these ``settings``: dict name -> what JSON can hold.

    Raises ValueError for a path that is none of a file."""

    def __init__(self, path, settings):
        if not isinstance(path, (str, os.PathLike)) or os.path.isdir(path):
            came = f"the folder {os.fspath(path)!r}" if isinstance(path, (str, os.PathLike)) else repr(path)
            raise ValueError(f"checkpoint: expected the path of a file, got {came}")
        self.path = Path(os.path.realpath(path))
        self.next = self.path.with_name(f".{self.path.name}.next")
        self.settings = json.loads(json.dumps(settings))

    def read(self):
        """-> numbers, arrays, as they were written; None where there is no file.

        Raises FormatError for a file that is no checkpoint, ValueError for one of another run."""
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                found = metadata.get("format"), metadata.get("version")
                if found != (FORMAT, VERSION):
                    raise FormatError(f"format {found[0]!r}, version {found[1]!r}")
                settings, numbers = json.loads(metadata["settings"]), json.loads(metadata["numbers"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (safetensors.SafetensorError, LookupError, TypeError, ValueError) as error:
            raise FormatError(f"{self.path}: expected a {FORMAT} of version {VERSION}, got one with: {error}"
                              ) from error
        self._compare(settings)
        return numbers, arrays

    def write(self, numbers, arrays, room=0):
        """Put this in the file's place, and take the room for the next, whose arrays have up to ``room`` bytes.  Raises
        OSError, with the old file in place or, where it is the next one that has no room, the new one."""
        metadata = {"format": FORMAT, "version": VERSION, "settings": json.dumps(self.settings),
                    "numbers": json.dumps(numbers)}
        content = safetensors.numpy.save(arrays, metadata)
        with open(self.next, "r+b" if self.next.exists() else "xb") as file:
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        os.replace(self.next, self.path)
        self._reserve(max(len(content), room) + SPARE)

    def _reserve(self, size):
        with open(self.next, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())

    def close(self):
        """Give back the room for the next file."""
        with contextlib.suppress(OSError):
            self.next.unlink()

    def remove(self):
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _compare(self, settings):
        for name in sorted(settings.keys() | self.settings.keys()):
            there, here = settings.get(name), self.settings.get(name)
            if there != here:
                there, here = _differing(there, here)
                raise ValueError(f"{name}: expected {there}, with which the run in {self.path} began, got {here}; for "
                                 "another run take another path, or delete the file")


def _differing(there, here):
    """Of two long texts the words that are not the same."""
    if not isinstance(there, str) or not isinstance(here, str) or min(len(there), len(here)) < 100:
        return there, here
    words, others = there.split(), here.split()
    same = min([k for k, (word, other) in enumerate(zip(words, others)) if word != other],
               default=min(len(words), len(others)) - 1)
    return (f"... {text[same].rstrip(',')} ..." for text in (words, others))


class Saver:
    """A run and its file.  every: steps between two writings within an epoch; None: only after epochs."""

    def __init__(self, run, file, every):
        self.run, self.file, self.begun, self.is_new = run, file, False, False
        self.every = None if every is None else positive("checkpoint_steps", every)
        if run.model.takes_training and not hasattr(run.model, "counter"):
            raise TypeError(f"checkpoint: expected a model with a counter of its draws, got {type(run.model).__name__}")

    def begin(self):
        """Go on where the file is, and make sure that it can be written."""
        if (found := self.file.read()) is not None:
            self.run.load(*found)
        self.begun, self.is_new = True, found is None
        self.save()

    def save(self):
        self.file.write(self.run.numbers(), self.run.arrays(), self.run.room())

    def after_step(self):
        if self.every and self.run.steps % self.every == 0:
            self.save()

    def end(self):
        if self.begun:                                  # else the room may be that of another run, which goes on
            self.file.close()
        if self.begun and self.is_new and not self.run.steps and not self.run.history:
            self.file.remove()                              # of a call that failed at once, and may be made again
