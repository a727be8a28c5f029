"""Checkpoints in time: a backward pass over T steps in the memory of about sqrt(T).

A backward pass needs the gates of every step, several times what the net puts out, and a forward pass has to keep them
all that time.  It may also keep the states at some moments alone, and compute the rest again, from each of these
moments to the next, when the backward pass gets there.  With segments of k steps that is

    T / k states, and the gates of k steps          least where both are about sqrt(T)

and one more forward pass: 2F + B in place of F + B.  Nothing is approximated: the second pass makes the same numbers as
the first.  Within a segment the same trick can be played again, ``Checkpointed(Checkpointed(net, 10), 100)``, for the
cube root and a third forward pass.

Source: Chen, Xu, Zhang and Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016; for recurrent nets Gruslys,
Munos, Danihelka, Lanctot and Graves, Memory-Efficient Backpropagation Through Time, 2016.
"""
import math
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, positive
from .layer import Counter, Layer
from .noise import number_of_draw
from .segments import each, on_host, part_of, put, sequences_of


LEAST = 64          # steps: a call of a layer costs a fixed time, and the gates of fewer steps take little memory


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    weights: list           # of the layer: dicts name -> array, read-only
    x: np.ndarray           # (B,T,D) or (B,T)
    mask: np.ndarray | None         # (B,T)
    begins: list            # the states at which the segments begin
    segments: list          # slices of time
    options: list           # of each: what it has drawn
    shape: tuple            # of y


class Checkpointed(Layer):
    """A layer, or a model, that keeps of a forward pass its input and a state now and then, and computes the rest again
    when the backward pass needs it.  The formulas and the figures stand in this file's head.

    layer       LSTM, GRU or RNN of one direction, Sequential of these with layers that look at one step alone, or any
                other Layer with ``forward_from``; on the host
    segment     steps from one kept state to the next; None: the square root of T, 64 at least

    It is the same function as ``layer``, whose weights it has, by their names: a state_dict fits both.  What comes out
    for each step, y and dx, is as long as the sequence, so wrap the whole model, ``Checkpointed(Sequential(LSTM(1, 64),
    Linear(64, 1)))``, and not the LSTM alone.

    Raises TypeError or ValueError for a layer that cannot read a sequence in segments."""
    takes_mask = True
    takes_training = True
    needs_whole = None

    def __init__(self, layer, segment=None):
        self.layer = on_host("layer", layer)
        super().__init__(layer.dtype, layer.backend)
        self.segment = None if segment is None else positive("segment", segment)
        self.takes_categories = layer.takes_categories
        self.counter = Counter()
        self.input_size, self.output_size = (getattr(layer, name, None) for name in ("input_size", "output_size"))

    def __repr__(self):
        return f"Checkpointed({self.layer!r}, segment={self.segment})"

    def children(self):
        return {"layer": self.layer}

    def walk(self):
        return self.layer.walk()

    def forward(self, x, mask=None, *, training=False, draw=None, cache=True):
        """x (B,T,D), or integers (B,T); mask (B,T) bool or None -> y (B,T,F), cache.

        training, draw      as for ``LSTM``.  Each segment is a part of the draw, so the numbers are not those that the
                            layer by itself draws, but as many, and the second pass draws them again
        cache               False: keep nothing for a backward pass, and return None in its place

        Raises as the layer does."""
        x = sequences_of(self.layer, x, mask)
        (y, _), kept = self.forward_from(x, self.start(len(x)), mask, training=training, draw=draw, cache=cache)
        return y, kept

    def backward(self, cache, dy):
        """dy (B,T,F), the gradient of y -> dx (B,T,D), 0 at masked steps, or None for categories; adds to ``grads``.

        Raises ValueError if the weights are no longer those of that forward pass: it could not be repeated."""
        return self.backward_to(cache, dy)[0]

    def start(self, B):
        return self.layer.start(B)

    def forward_from(self, x, state, mask=None, *, training=False, draw=None, part=(), cache=True):
        keeps = flag("cache", cache)
        draw = number_of_draw(training, draw, self.counter)
        x = sequences_of(self.layer, x, mask)
        if keeps:                                                           # a cache keeps copies of its own
            x, state = x.copy(), each(np.copy, state)
            mask = None if mask is None else mask.copy()
        T = x.shape[1]
        y, begins, segments = None, [], self._segments(T)
        draws = draw is not None and self.layer.takes_training
        options = [{"training": True, "draw": draw, "part": (*part, k)} if draws else {} for k in range(len(segments))]
        for steps, drawing in zip(segments, options):
            begins += [state] if keeps else []
            (piece, state), _ = self.layer.forward_from(x[:, steps], state, part_of(mask, steps), cache=False,
                                                        **drawing)
            y = put(y, T, steps, piece)
        return (y, state), Cache(self._weights(), x, mask, begins, segments, options, y.shape) if keeps else None

    def backward_to(self, cache, dy, d_state=None):
        _, x, mask, begins, segments, options, shape = self._own_cache(cache)
        dy = None if dy is None else floats("dy", dy, self.dtype, shape, ("B", "T", "F"))
        dx = None
        for begin, steps, drawing in zip(reversed(begins), reversed(segments), reversed(options)):
            piece, d_state = self._through(x[:, steps], begin, part_of(mask, steps), drawing, part_of(dy, steps),
                                           d_state)
            dx = dx if piece is None else put(dx, x.shape[1], steps, piece)
        return dx, d_state

    def _through(self, x, state, mask, drawing, dy, d_state):
        """Forward and backward through one segment, whose cache is gone when this is over -> dx, d_state."""
        _, kept = self.layer.forward_from(x, state, mask, **drawing)
        return self.layer.backward_to(kept, dy, d_state)

    def _segments(self, T):
        """The segments of T steps, as slices, one at least."""
        k = self.segment or max(LEAST, math.ceil(math.sqrt(T)))
        return [slice(t, min(t + k, T)) for t in range(0, max(T, 1), k)]

    def _weights(self):
        return [dict(layer.params) for _, layer in self.walk()]

    def _own_cache(self, cache):
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        now = self._weights()
        same = [then.keys() == params.keys() and all(params[name] is p for name, p in then.items())
                for then, params in zip(cache.weights, now)]
        if len(now) != len(cache.weights) or not all(same):
            raise ValueError("cache: expected one of this layer with the weights that it has now, since backward "
                             "repeats that forward pass, got one made with other weights")
        return cache
