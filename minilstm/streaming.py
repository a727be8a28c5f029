"""Many streams, one step at a time: a recurrent net where its numbers come in.

A net that has read t steps knows of them what its state holds, so the next step costs the same after ten steps as after
ten million.  Each stream has a state, found by the stream's name; a call takes those streams of which a number has come
in, puts their states side by side as a batch, takes a step, and puts the new states back.  On the backend "cpu" no bit
of a result depends on who else was in the batch.
"""
import threading

import numpy as np

from .arguments import describe, floats
from .layers.segments import each, leaves, on_host


class Streams:
    """The states of any number of streams, each a sequence that a model reads one step at a time.

    model       a Layer that can read a sequence in segments: LSTM, GRU or RNN of one direction, Sequential of these and
                layers that look at one step alone; on the host.  Not trained meanwhile: dropout is absent, and a change
                of its weights shows in the next step

    ``len``, ``in`` and iteration are over the names of the streams that have a state.  Calls from several threads take
    their turns.  Raises TypeError or ValueError for another model."""

    def __init__(self, model):
        self.model = on_host("model", model)
        self._first = model.start(1)            # the state of a stream before its first step
        self._columns = {}                      # name -> column in the arrays of self._stored
        self._free = []                         # columns of no stream, which hold zeros
        self._stored = [np.empty((*s.shape[:-2], 0, s.shape[-1]), s.dtype) for s in leaves(self._first)]
        self._lock = threading.Lock()

    def step(self, keys, x):
        """The next step of some streams: keys, a list of B names, and x (B,D), or integers (B,) for a model that takes
        categories -> y (B,F).

        A stream that is new, or was forgotten, begins with zeros.  On the backend "cpu" y has the bits that ``forward``
        gives the whole sequence.  NaN is a number that came in: it shows in y, and stays in the state.

        Raises ValueError for a name that comes twice, and TypeError or ValueError for an x that does not fit; no state
        has then changed."""
        if isinstance(keys, str):
            raise TypeError(f"keys: expected a list of names, got the text {keys!r}; [{keys!r}] is a list of one")
        keys = list(keys)
        x = self._checked(x, len(keys))
        if len(set(keys)) < len(keys):
            raise ValueError(f"keys: expected each name once, got {next(k for k in keys if keys.count(k) > 1)!r} twice")
        with self._lock:
            new = self._columns_for([key for key in keys if key not in self._columns])
            columns = np.array([self._columns[key] if key in self._columns else new[key] for key in keys], np.intp)
            held = iter([s.take(columns, axis=-2) for s in self._stored])
            state = each(lambda _: next(held), self._first)
            (y, state), _ = self.model.forward_from(x[:, None], state, cache=False)
            self._keep(new, columns, state)
        return y[:, 0]

    def begin(self, key, state=None):
        """Let a stream begin, anew if it has, with a state: that of ``state``, or what ``forward_from`` and
        ``truncated_bptt`` return for one sequence; None: zeros.

        Raises ValueError for a state that does not fit."""
        state = self._first if state is None else state
        came, expected = (str(each(describe, s)) if isinstance(s, tuple) else describe(s) for s in (state, self._first))
        if came != expected:
            raise ValueError(f"state: expected {expected}, got {came}")
        with self._lock:
            new = self._columns_for([] if key in self._columns else [key])
            self._keep(new, [new[key] if new else self._columns[key]], state)

    def state(self, key):
        """A copy of a stream's state, as the model has it for one sequence.  Raises KeyError for an unknown name."""
        with self._lock:
            held = iter([s.take([self._column(key)], axis=-2) for s in self._stored])
        return each(lambda _: next(held), self._first)

    def forget(self, key):
        """The stream has ended.  Raises KeyError for an unknown name."""
        with self._lock:
            column = self._column(key)
            for stored in self._stored:
                stored[..., column, :] = 0
            del self._columns[key]
            self._free.append(column)

    def __len__(self):
        return len(self._columns)

    def __contains__(self, key):
        return key in self._columns

    def __iter__(self):
        return iter(list(self._columns))

    def _column(self, key):
        if key not in self._columns:
            raise KeyError(f"key: expected the name of a stream, got {key!r}")
        return self._columns[key]

    def _columns_for(self, keys):
        """Free columns for new streams, which are still nobody's: dict name -> column."""
        if missing := max(0, len(keys) - len(self._free)):
            held = len(self._columns) + len(self._free)
            more = max(missing, held, 8)                                    # twice as many: a stream is moved seldom
            self._stored = [np.concatenate([s, np.zeros((*s.shape[:-2], more, s.shape[-1]), s.dtype)], axis=-2)
                            for s in self._stored]
            self._free += range(held, held + more)
        return dict(zip(keys, reversed(self._free)))

    def _keep(self, new, columns, state):
        """The states after a step, in their columns; those of new streams are now theirs."""
        for stored, after in zip(self._stored, leaves(state)):
            stored[..., columns, :] = after
        del self._free[len(self._free) - len(new):]
        self._columns |= new

    def _checked(self, x, B):
        if not self.model.takes_categories:
            return floats("x", x, self.model.dtype, (B, getattr(self.model, "input_size", None)), ("B", "D"))
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu" or x.shape != (B,):
            raise TypeError(f"x: expected integers (B={B},), got {describe(x)}")
        return x
