"""Shows what some threads of a simulated kernel do, line by line and side by side.

    steps = Steps((0, 0), (0, 33), kernel="reverse")            # thread 0 and thread 33 of block 0
    with minilstm.device.simulated(steps=steps):
        launch(reverse, 1, x)

    reverse                                    | block 0, thread 0          | block 0, thread 33
      11 t = cuda.threadIdx.x                  | t = 0                      |
      12 tile[t] = x[t]                        | tile[0] = 0.25             |
      13 cuda.syncthreads()                    | waits for a barrier        |
      11 t = cuda.threadIdx.x                  |                            | t = 33
    ...

A row stands for a line that a thread has run, or in which it begins to wait, in the order in which the simulator does
it: between two rows other threads may have run.  In its column stands what has changed: variables, numbers of arrays.
The lines of functions that the kernel calls are shown if they are ``device_function``s.

For more, a debugger: ``breakpoint()`` in a kernel, or a breakpoint at one of its lines.  In it ``up`` leads from the
kernel to nowhere, since each thread is a stack of its own; ``cuda.threadIdx.x`` says which one it is.
"""
import contextlib
import linecache
import sys

import numpy as np

LINE, COLUMN = 50, 36                               # characters


class Steps:
    """threads: pairs (block, thread); kernel: the name of the only one to show; file: to write to, or None for standard
    output."""

    def __init__(self, *threads, kernel=None, file=None):
        self.threads, self.kernel, self.file = threads, kernel, file
        self.shown = set()                          # code objects whose lines are shown
        self.stores = {}                            # thread -> what it has stored in this line

    @contextlib.contextmanager
    def watching(self, simulator):
        """Within, show the threads of the simulator's launch."""
        self.simulator = simulator
        self.shown = {function.__code__ for function in simulator.rewritten
                      if function is simulator.kernel.function or hasattr(function, "runs_on_gpu")}
        if self.kernel not in (None, simulator.kernel.name):
            self.shown = set()
            yield
            return
        self._print(simulator.kernel.name, [f"block {block}, thread {thread}" for block, thread in self.threads])
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(before)

    # ------------------------------------------------------------------------------------------ what Python tells

    def _called(self, frame, event, argument):
        column = self._column(self.simulator.current) if frame.f_code in self.shown else None
        return None if column is None else _Lines(self, column, frame)

    # ----------------------------------------------------------------------------------- what the simulator tells

    def stored(self, array, index, value):
        thread = self.simulator.current
        if self._column(thread) is not None:
            index = index if isinstance(index, tuple) else (index,)
            text = f"{array.name}[{', '.join(map(str, index))}] = {_shown(value)}"
            self.stores.setdefault(thread, []).append(text)

    def waits(self, thread, what):
        if self._column(thread) is not None and self.shown:
            self.row(self._column(thread), thread.frame, [f"waits for {what}"])

    # ----------------------------------------------------------------------------------------------------- output

    def _column(self, thread):
        place = thread.block.index, thread.index
        return self.threads.index(place) if place in self.threads else None

    def row(self, column, frame, texts, line=None):
        line = line or frame.f_lineno
        cells = [""] * len(self.threads)
        cells[column] = ", ".join(texts) or "goes on"
        self._print(f"{line:4} {linecache.getline(frame.f_code.co_filename, line).strip()}", cells)

    def _print(self, line, cells):
        print(" | ".join([f"{line[:LINE]:{LINE}}"] + [f"{cell:{COLUMN}}" for cell in cells]).rstrip(" "),
              file=self.file or sys.stdout)


class _Lines:
    """One call of a function by one thread: at each line that begins, says what the one before has changed."""

    def __init__(self, steps, column, frame):
        self.steps, self.column, self.line = steps, column, None
        self.thread, self.values = steps.simulator.current, self._values(frame)

    def __call__(self, frame, event, argument):
        if self.line is not None:
            values = self._values(frame)
            changes = [f"{name} = {value}" for name, value in values.items() if self.values.get(name) != value]
            changes += self.steps.stores.pop(self.thread, [])
            self.values = values
            self.steps.row(self.column, frame, changes, self.line)
        self.line = frame.f_lineno if event == "line" else None
        return self

    @staticmethod
    def _values(frame):
        return {name: _shown(value) for name, value in frame.f_locals.items() if name not in frame.f_code.co_freevars}


def _shown(value):
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return str(value)
