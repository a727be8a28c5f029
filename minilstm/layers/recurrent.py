"""What the recurrent layers share: a cell, its weights, one or two directions, any number of layers, any mask."""
from typing import NamedTuple

import numpy as np

from .. import backends
from ..arguments import flag, natural, one_of, positive
from ..cells import Weights
from .layer import Layer, own_cache, state_of, stream
from .merge import RULES, merge, merge_backward, width
from .noise import Noise

PARAMETERS = {"W": "weight_ih", "U": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh", "own": "own",
              "W_hr": "weight_hr"}          # a field of Weights -> its name in params, before _l0 or _l0_reverse


class Direction(NamedTuple):
    """One walk through the sequence."""
    suffix: str             # of the names of its parameters
    reverse: bool           # from the end to the beginning


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    identity: tuple         # of the layer: its cell, sizes and directions
    runs: list              # [layer][direction], the caches of recurrence.forward
    halves: list            # [layer][direction], outputs (B,T,R) before they are merged; None where no rule needs them
    dropped: list           # [layer], by what dropout multiplied its y (B,T,dirs*R); None where it did not
    mask: np.ndarray        # (B,T)
    masked_output: str


class Recurrent(Layer):
    """What LSTM and its relatives share.  A subclass names its cell, and its states in ``forward`` and ``backward``.

    Parameters are PyTorch's, by name and layout: weight_ih_l0 (G*H,D), weight_hh_l0 (G*H,R), bias_ih_l0 and bias_hh_l0
    (G*H,), then _l1 ... for the layers above; the backward direction's end in _reverse.  R, the width of h, is H or,
    with a projection weight_hr_l0 (R,H), proj_size.  What each unit of a cell has for itself is own_l0 (P,H), its rows
    in the order of ``cell.own``.
    """
    backends = backends.NAMES
    takes_mask = True
    takes_training = True

    def __init__(self, cell, input_size, hidden_size, *, proj_size=0, num_layers, bidirectional, reverse, merge,
                 dropout, recurrent_dropout, zoneout, dtype, backend, seed):
        """zoneout: one probability for each of cell.states; all else as ``LSTM`` has it."""
        super().__init__(dtype, backend)
        self.cell = cell
        self.input_size = positive("input_size", input_size)
        self.hidden_size = positive("hidden_size", hidden_size)
        self.proj_size = natural("proj_size", proj_size)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size: expected less than hidden_size={self.hidden_size}, got {proj_size}")
        self.num_layers = positive("num_layers", num_layers)
        self.bidirectional = flag("bidirectional", bidirectional)
        self.reverse = flag("reverse", reverse)
        self.merge = one_of("merge", merge, RULES)
        if self.bidirectional and self.reverse:
            raise ValueError("bidirectional, reverse: expected at most one of the two to be True, got both")
        self.directions = (Direction("", self.reverse), Direction("_reverse", True))[:1 + self.bidirectional]
        R = self.proj_size or self.hidden_size
        self.widths = (R, self.hidden_size)[:len(cell.states)]              # of h and c
        self.output_size = width(merge, len(self.directions), R)
        drawn_by = (cell.name, self.input_size, self.hidden_size, *([R] if self.proj_size else []))
        self.identity = (*drawn_by, self.num_layers, self.directions, merge)
        self.noise = Noise(dropout, recurrent_dropout, dict(zip(cell.states, zoneout)), seed, drawn_by)
        if self.noise.dropout and self.num_layers == 1:
            raise ValueError(f"dropout: expected 0 with num_layers=1, since it acts between layers, got {dropout}")
        rng = stream(seed, *drawn_by)
        for layer in range(self.num_layers):
            D = self.input_size if layer == 0 else self.output_size
            for direction in self.directions:
                initial = initial_weights(cell, D, self.hidden_size, R, rng)
                for name, array in self._named(layer, direction, initial).items():
                    self._own(name, array)

    @property
    def counter(self):
        """Of the draws in training."""
        return self.noise.counter

    def arguments(self):
        """The arguments that build this layer again, but for dtype, backend and seed."""
        return {"input_size": self.input_size, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
                "bidirectional": self.bidirectional, "reverse": self.reverse, "merge": self.merge,
                **self.noise.arguments()}

    # ------------------------------------------------------------------------------------------- a sequence in segments

    @property
    def needs_whole(self):
        return "it walks from the end of the sequence" if self.directions[-1].reverse else None

    def start(self, B):
        """The zeros that stand for h0 and c0: for each of cell.states (layers,1,B,R or H)."""
        self._check_segments()
        return tuple(self._states({f"{state}0": None for state in self.cell.states}, B))

    def forward_from(self, x, state, mask=None, *, training=False, draw=None, part=(), cache=True):
        self._check_segments()
        initial = dict(zip((f"{name}0" for name in self.cell.states), state_of(state, len(self.cell.states))))
        (y, *state), kept = self._forward(x, mask, None, initial, "zero", training, draw, cache, part=part)
        return (y, tuple(state)), kept

    def backward_to(self, cache, dy, d_state=None):
        d_state = (None,) * len(self.cell.states) if d_state is None else state_of(d_state, len(self.cell.states))
        dx, *d_state = self._backward(cache, dy, dict(zip((f"d{name}_n" for name in self.cell.states), d_state)))
        return dx, tuple(d_state)

    # ------------------------------------------------------------------------------------------------------ both passes

    def _forward(self, x, mask, lengths, initial, masked_output, training, draw, caching, row_biases=(), part=()):
        """initial: dict name -> (layers,dirs,B,R or H) or None, one for each state; row_biases: none, or for each
        direction one (B,G*H), for the first layer; part: of the draw -> (y, final states), Cache."""
        recurrence, masking, arrays = self._module("recurrence"), self._module("masking"), self.arrays
        x = arrays.floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "D"))
        mask = arrays.mask_of(x, mask, lengths)
        one_of("masked_output", masked_output, ("zero", "hold"))
        flag("cache", caching)
        given = any(s is not None for s in initial.values())
        read = arrays.rows_with_steps(mask) if given else None              # rows that are more than padding
        initial = self._states(initial, len(x))                             # copied by the loop over time
        drawn = self.noise.draw(mask, self.dtype, training, draw, arrays, part)
        y = arrays.finite_or_nan(arrays.select(x, mask, copy=caching))      # a cache keeps a copy of its own
        finals = [arrays.empty(s.shape, s.dtype) for s in initial]
        cache = Cache(self.identity, [], [], [], mask, masked_output)
        for layer in range(self.num_layers):
            runs, halves = [], []
            for k, direction in enumerate(self.directions):
                row_bias = row_biases[k] if row_biases and layer == 0 else None
                weights = self._weights(layer, direction)._replace(keep=drawn.keep(self.widths[0]), row_bias=row_bias)
                begin = [arrays.finite_or_nan(s[layer, k], read) if given else s[layer, k] for s in initial]
                half, states, run = recurrence.forward(self.cell, weights, y, mask, begin, direction.reverse,
                                                       drawn.zoneout(self.widths), caching)
                for final, s in zip(finals, states):
                    arrays.copy_into(s, final[layer, k])
                held = masked_output == "hold" and layer == self.num_layers - 1
                halves.append(masking.hold(half, mask, direction.reverse) if held else half)
                runs.append(run)
            cache.runs.append(runs)
            cache.halves.append(halves if self.merge == "mul" else [None] * len(halves))
            y = merge(arrays, self.merge, halves)
            cache.dropped.append(drawn.dropout(self.output_size) if layer < self.num_layers - 1 else None)
            if cache.dropped[layer] is not None:
                y = arrays.multiply(y, cache.dropped[layer])
        return (y, *finals), cache if caching else None

    def _backward(self, cache, dy, d_finals):
        """d_finals: dict name -> (layers,dirs,B,R or H) or None -> dx, then the gradients of the initial states, then
        those of the row biases, if there are any."""
        _, runs, halves, dropped, mask, masked_output = own_cache(cache, Cache, self.identity)
        if dy is None and all(d is None for d in d_finals.values()):
            raise ValueError(f"dy, {', '.join(d_finals)}: expected at least one gradient, got None for each")
        recurrence, masking, arrays = self._module("recurrence"), self._module("masking"), self.arrays
        B, T = mask.shape
        width = ("dirs*" if self.merge == "concat" else "") + ("R" if self.proj_size else "H")
        shape, letters = (B, T, self.output_size), ("B", "T", width)
        dy = (arrays.zeros(shape, self.dtype) if dy is None else
              arrays.floats("dy", dy, self.dtype, shape, letters))
        d_finals = self._states(d_finals, B)
        d_initials, d_row_biases = [arrays.empty(d.shape, d.dtype) for d in d_finals], []
        for layer in reversed(range(self.num_layers)):
            if dropped[layer] is not None:
                dy = arrays.multiply(dy, dropped[layer])                    # y = y * dropped
            dx = None
            held = masked_output == "hold" and layer == self.num_layers - 1
            if self.merge == "mul" and not held:
                dy = arrays.select(dy, mask)                                # which is not read, but 0 * inf would warn
            d_halves = merge_backward(arrays, self.merge, halves[layer], dy)        # y = merge(halves)
            for k, direction in enumerate(self.directions):
                dh = d_halves[k]
                if held:
                    dh = masking.hold_backward(dh, mask, direction.reverse)       # half = hold(h)
                dx_k, d_initial, d_weights = recurrence.backward(
                    runs[layer][k], dh, [d[layer, k] for d in d_finals])
                dx = dx_k if dx is None else arrays.add(dx, dx_k)           # both directions read the same x
                for total, d in zip(d_initials, d_initial):
                    arrays.copy_into(d, total[layer, k])
                self._add_grads(self._named(layer, direction, d_weights))
                d_row_biases += [] if d_weights.row_bias is None else [d_weights.row_bias]
            dy = dx                                                         # x of this layer is y of the one below
        return (dx, *d_initials, *d_row_biases)

    def _names(self, layer, direction):
        """The names of one layer's parameters in one direction, dict field of Weights -> name."""
        has = {"own": bool(self.cell.own), "W_hr": self.cell.projects}
        return {field: f"{name}_l{layer}{direction.suffix}"
                for field, name in PARAMETERS.items() if has.get(field, True)}

    def _named(self, layer, direction, weights):
        """Weights, or their gradients, as parameters: dict name -> array."""
        return {name: getattr(weights, field) for field, name in self._names(layer, direction).items()}

    def _weights(self, layer, direction):
        """The reverse of ``_named``, from the parameters of this layer."""
        nothing = self.arrays.nothing((0, self.hidden_size), self.dtype)
        arrays = {field: self._param(name) for field, name in self._names(layer, direction).items()}
        return Weights(**{"own": nothing, "W_hr": nothing} | arrays)

    def _states(self, given, B):
        """Arrays for the states, dict name -> array or None, checked; zeros for None."""
        found = []
        for (name, state), size, letter in zip(given.items(), self.widths, "RH" if self.proj_size else "HH"):
            shape = (self.num_layers, len(self.directions), B, size)
            found.append(self.arrays.zeros(shape, self.dtype) if state is None else
                         self.arrays.floats(name, state, self.dtype, shape, ("layers", "dirs", "B", letter)))
        return found


def initial_weights(cell, D, H, R, rng):
    """Glorot uniform W and W_hr, orthogonal U, block by block; the forget gate's bias and all gains 1, all else 0.
    Without rng all is 0."""
    G = len(cell.blocks)
    R_projected = R if cell.projects else 0
    if rng is None:
        return Weights(np.zeros((G * H, D)), np.zeros((G * H, R)), np.zeros(G * H), np.zeros(G * H),
                       np.zeros((len(cell.own), H)), np.zeros((R_projected, H)))
    W = glorot(G * H, D, H + D, rng)
    U = np.concatenate([orthogonal(H, R, rng) for _ in cell.blocks])     # Saxe, McClelland and Ganguli 2014
    b_ih = np.repeat([1.0 if block == "f" else 0.0 for block in cell.blocks], H)    # Gers et al. 2000, section 4
    own = np.repeat([1.0 if name.startswith("gain") else 0.0 for name in cell.own], H).reshape(-1, H)
    return Weights(W, U, b_ih, np.zeros(G * H), own, glorot(R_projected, H, R + H, rng))


def glorot(rows, columns, connections, rng):
    """Uniform numbers of variance 2 / connections, those into a unit and out of it: Glorot and Bengio 2010, eq. 16."""
    limit = np.sqrt(6 / connections)
    return rng.uniform(-limit, limit, (rows, columns))


def orthogonal(rows, columns, rng):
    """A random matrix with orthonormal columns, uniformly distributed: QR with the signs of R's diagonal.  rows >=
    columns."""
    Q, R = np.linalg.qr(rng.standard_normal((rows, columns)))
    return Q * np.sign(np.diag(R))
