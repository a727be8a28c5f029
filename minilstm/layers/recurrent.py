"""What the recurrent layers share: a cell, its weights, one or two directions, any number of layers, any mask."""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, flag, floats, mask_of, one_of, positive
from ..cells import Weights
from ..masking.reference import hold, hold_backward, select
from ..recurrence import cpu, reference
from .layer import Layer, stream
from .merge import RULES, merge, merge_backward, width

BACKENDS = {"reference": reference, "cpu": cpu}


class Direction(NamedTuple):
    """One walk through the sequence."""
    suffix: str             # of the names of its parameters
    reverse: bool           # from the end to the beginning


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    runs: list              # [layer][direction], the caches of recurrence.forward
    halves: list            # [layer][direction], outputs (B,T,H) before they are merged; None where no rule needs them
    mask: np.ndarray        # (B,T)
    masked_output: str
    merge: str


class Recurrent(Layer):
    """What LSTM and its relatives share.  A subclass names its cell, and its states in ``forward`` and ``backward``.

    Parameters are PyTorch's, by name and layout: weight_ih_l0 (G*H,D), weight_hh_l0 (G*H,H), bias_ih_l0 and bias_hh_l0
    (G*H,), then _l1 ... for the layers above; the backward direction's end in _reverse.  What each unit of a cell has
    for itself is own_l0 (P,H), its rows in the order of ``cell.own``.
    """
    takes_mask = True

    def __init__(self, cell, input_size, hidden_size, *, num_layers, bidirectional, reverse, merge, dtype, backend,
                 seed):
        super().__init__(dtype, one_of("backend", backend, tuple(BACKENDS)))
        self.cell = cell
        self.input_size = positive("input_size", input_size)
        self.hidden_size = positive("hidden_size", hidden_size)
        self.num_layers = positive("num_layers", num_layers)
        self.bidirectional = flag("bidirectional", bidirectional)
        self.reverse = flag("reverse", reverse)
        self.merge = one_of("merge", merge, RULES)
        if self.bidirectional and self.reverse:
            raise ValueError("bidirectional, reverse: expected at most one of the two to be True, got both")
        self.directions = (Direction("", self.reverse), Direction("_reverse", True))[:1 + self.bidirectional]
        self.output_size = width(merge, len(self.directions), self.hidden_size)
        rng = stream(seed, self.cell.name, self.input_size, self.hidden_size)
        for layer in range(self.num_layers):
            D = self.input_size if layer == 0 else self.output_size
            for direction in self.directions:
                initial = initial_weights(self.cell, D, self.hidden_size, rng)
                for name, array in zip(self._names(layer, direction), initial):
                    self._own(name, array)

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
                "bidirectional": self.bidirectional, "reverse": self.reverse, "merge": self.merge}

    def _forward(self, x, mask, lengths, initial, masked_output):
        """initial: dict name -> (layers,dirs,B,H) or None, one for each of cell.states -> (y, final states), Cache."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "D"))
        mask = mask_of(x, mask, lengths)
        one_of("masked_output", masked_output, ("zero", "hold"))
        read = mask.any(axis=1)[:, None]                                    # rows that are more than padding
        initial = [not_infinite(self._state(name, s, len(x)), read) for name, s in initial.items()]
        y = not_infinite(select(x, mask))
        finals = [np.empty_like(s) for s in initial]
        cache = Cache([], [], mask, masked_output, self.merge)
        for layer in range(self.num_layers):
            runs, halves = [], []
            for k, direction in enumerate(self.directions):
                states, run = BACKENDS[self.backend].forward(
                    self.cell, self._weights(layer, direction), y, mask, [s[layer, k] for s in initial],
                    direction.reverse)
                for final, s in zip(finals, states):
                    final[layer, k] = s[:, 0 if direction.reverse else -1]
                h = states[0][:, :-1] if direction.reverse else states[0][:, 1:]
                held = masked_output == "hold" and layer == self.num_layers - 1
                halves.append(hold(h, mask, direction.reverse) if held else select(h, mask))
                runs.append(run)
            cache.runs.append(runs)
            cache.halves.append(halves if self.merge == "mul" else [None] * len(halves))
            y = merge(self.merge, halves)
        return (y, *finals), cache

    def _backward(self, cache, dy, d_finals):
        """d_finals: dict name -> (layers,dirs,B,H) or None -> dx, then the gradients of the initial states."""
        runs, halves, mask, masked_output, _ = self._own_cache(cache)
        if dy is None and all(d is None for d in d_finals.values()):
            raise ValueError(f"dy, {', '.join(d_finals)}: expected at least one gradient, got None for each")
        B, T = mask.shape
        dy = (np.zeros((B, T, self.output_size), self.dtype) if dy is None
              else floats("dy", dy, self.dtype, (B, T, self.output_size), ("B", "T", "dirs*H")))
        d_finals = [self._state(name, d, B) for name, d in d_finals.items()]
        d_initials = [np.empty_like(d) for d in d_finals]
        for layer in reversed(range(self.num_layers)):
            dx = 0
            d_halves = merge_backward(self.merge, halves[layer], dy)        # y = merge(halves)
            for k, direction in enumerate(self.directions):
                dh = d_halves[k]
                if masked_output == "hold" and layer == self.num_layers - 1:
                    dh = hold_backward(dh, mask, direction.reverse)         # half = hold(h)
                dx_k, d_initial, d_weights = BACKENDS[self.backend].backward(
                    runs[layer][k], dh, [d[layer, k] for d in d_finals])
                dx = dx + dx_k                                              # both directions read the same x
                for total, d in zip(d_initials, d_initial):
                    total[layer, k] = d
                self._add_grads(dict(zip(self._names(layer, direction), d_weights)))
            dy = dx                                                         # x of this layer is y of the one below
        return (dx, *d_initials)

    def _own_cache(self, cache):
        """The cache, if it can be one of this layer's."""
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
        ours = [(self.cell.name, direction.reverse, self.merge, self.params[self._names(layer, direction)[0]].shape)
                for layer in range(self.num_layers) for direction in self.directions]
        theirs = [(run.cell.name, run.reverse, cache.merge, run.weights.W.shape) for runs in cache.runs for run in runs]
        if theirs != ours:
            raise ValueError(f"cache: expected one of this layer, {ours}, got one of {theirs}")
        return cache

    def _names(self, layer, direction):
        """The names of one layer's parameters in one direction, in the order of ``Weights``."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh") + (("own",) if self.cell.own else ())
        return [f"{name}_l{layer}{direction.suffix}" for name in names]

    def _weights(self, layer, direction):
        arrays = [self._param(name) for name in self._names(layer, direction)]
        return Weights(*arrays) if self.cell.own else Weights(*arrays, np.zeros((0, self.hidden_size), self.dtype))

    def _state(self, name, state, B):
        shape = (self.num_layers, len(self.directions), B, self.hidden_size)
        if state is None:
            return np.zeros(shape, self.dtype)
        return floats(name, state, self.dtype, shape, ("layers", "dirs", "B", "H"))


def not_infinite(array, where=True):
    """A copy with NaN in place of infinity, which would only saturate the gates, so that nobody would see it."""
    return np.where(np.isinf(array) & where, array.dtype.type(np.nan), array)


def initial_weights(cell, D, H, rng):
    """Glorot uniform W, orthogonal U, block by block; the forget gate's bias 1, all else 0.  Without rng all is 0."""
    blocks = len(cell.blocks)
    if rng is None:
        GH = blocks * H
        return Weights(np.zeros((GH, D)), np.zeros((GH, H)), np.zeros(GH), np.zeros(GH), np.zeros((len(cell.own), H)))
    limit = np.sqrt(6 / (D + H))                                        # Glorot and Bengio 2010, equation 16
    W = rng.uniform(-limit, limit, (blocks * H, D))
    U = np.concatenate([orthogonal(H, rng) for _ in cell.blocks])        # Saxe, McClelland and Ganguli 2014
    b_ih = np.repeat([1.0 if block == "f" else 0.0 for block in cell.blocks], H)    # Gers et al. 2000, section 4
    return Weights(W, U, b_ih, np.zeros(blocks * H), np.zeros((len(cell.own), H)))


def orthogonal(H, rng):
    """A random (H,H) matrix with orthonormal rows, uniformly distributed: QR with the signs of R's diagonal."""
    Q, R = np.linalg.qr(rng.standard_normal((H, H)))
    return Q * np.sign(np.diag(R))
