"""The recurrent layers: a cell, its weights, one or two directions, any number of layers, any mask."""
from typing import NamedTuple

import numpy as np

from .. import cells
from ..cells import Weights
from ..masking.reference import hold, hold_backward, select
from ..recurrence import cpu, reference
from .arguments import FLOATS, flag, floats, mask_of, one_of, positive
from .layer import Layer, stream

BACKENDS = {"reference": reference, "cpu": cpu}


class RecurrentOutput(NamedTuple):
    """What a recurrent layer returns.  B batch, T steps, H hidden units, dirs 1 or 2."""
    y: np.ndarray           # (B,T,dirs*H)        h of the top layer at every step
    h_n: np.ndarray         # (layers,dirs,B,H)   h after the last real step of each row
    c_n: np.ndarray         # (layers,dirs,B,H)   c after the last real step of each row


class RecurrentGradients(NamedTuple):
    """What a recurrent layer's ``backward`` returns."""
    dx: np.ndarray          # (B,T,D)
    dh0: np.ndarray         # (layers,dirs,B,H)
    dc0: np.ndarray         # (layers,dirs,B,H)


class Cache(NamedTuple):
    """What ``backward`` needs of the forward pass that it reverses."""
    runs: list              # [layer][direction], the caches of recurrence.forward
    mask: np.ndarray        # (B,T)
    masked_output: str


class Recurrent(Layer):
    """What LSTM and its relatives share.  A subclass names its cell, and its states in ``forward`` and ``backward``.

    Parameters are PyTorch's, by name and layout: weight_ih_l0 (G*H,D), weight_hh_l0 (G*H,H), bias_ih_l0 and bias_hh_l0
    (G*H,), then _l1 ... for the layers above; the backward direction's end in _reverse.
    """
    cell = None

    def __init__(self, input_size, hidden_size, *, num_layers, bidirectional, dtype, backend, seed):
        super().__init__(one_of("dtype", dtype, FLOATS), one_of("backend", backend, tuple(BACKENDS)))
        self.input_size = positive("input_size", input_size)
        self.hidden_size = positive("hidden_size", hidden_size)
        self.num_layers = positive("num_layers", num_layers)
        self.bidirectional = flag("bidirectional", bidirectional)
        self.directions = ("", "_reverse") if self.bidirectional else ("",)
        rng = stream(seed, self.cell.name, self.input_size, self.hidden_size)
        for layer in range(self.num_layers):
            D = self.input_size if layer == 0 else len(self.directions) * self.hidden_size
            for direction in self.directions:
                initial = initial_weights(self.cell, D, self.hidden_size, rng)
                for name, array in zip(weight_names(layer, direction), initial):
                    self._own(name, array)

    def _forward(self, x, mask, lengths, initial, masked_output):
        """initial: dict name -> (layers,dirs,B,H) or None, a name for each of cell.states -> RecurrentOutput, Cache."""
        x = floats("x", x, self.dtype, (None, None, self.input_size), ("B", "T", "D"))
        mask = mask_of(x, mask, lengths)
        one_of("masked_output", masked_output, ("zero", "hold"))
        initial = [self._state(name, s, len(x)) for name, s in initial.items()]
        y = visible(x, mask)
        finals = [np.empty_like(s) for s in initial]
        runs = []
        for layer in range(self.num_layers):
            top = layer == self.num_layers - 1
            halves = []
            runs.append([])
            for k, direction in enumerate(self.directions):
                weights = Weights(*(self._param(name) for name in weight_names(layer, direction)))
                states, run = BACKENDS[self.backend].forward(
                    self.cell, weights, y, mask, [s[layer, k] for s in initial], reverse=bool(direction))
                for final, s in zip(finals, states):
                    final[layer, k] = s[:, 0 if direction else -1]
                h = states[0][:, :-1] if direction else states[0][:, 1:]
                halves.append(hold(h, mask, bool(direction)) if top and masked_output == "hold" else select(h, mask))
                runs[layer].append(run)
            y = np.concatenate(halves, axis=2)
        return (y, *finals), Cache(runs, mask, masked_output)

    def _backward(self, cache, dy, d_finals):
        """d_finals: dict name -> (layers,dirs,B,H) or None -> dx, then the gradients of the initial states."""
        runs, mask, masked_output = cache
        if dy is None and all(d is None for d in d_finals.values()):
            raise ValueError(f"dy, {', '.join(d_finals)}: expected at least one gradient, got None for each")
        B, T = mask.shape
        width = len(self.directions) * self.hidden_size
        dy = (np.zeros((B, T, width), self.dtype) if dy is None
              else floats("dy", dy, self.dtype, (B, T, width), ("B", "T", "dirs*H")))
        d_finals = [self._state(name, d, B) for name, d in d_finals.items()]
        d_initials = [np.empty_like(d) for d in d_finals]
        for layer in reversed(range(self.num_layers)):
            top = layer == self.num_layers - 1
            dx = 0
            for k, direction in enumerate(self.directions):
                dh = np.ascontiguousarray(dy[:, :, k * self.hidden_size:(k + 1) * self.hidden_size])
                if top and masked_output == "hold":
                    dh = hold_backward(dh, mask, bool(direction))
                d_half, d_initial, d_weights = BACKENDS[self.backend].backward(
                    runs[layer][k], dh, [d[layer, k] for d in d_finals])
                dx = dx + d_half                                            # both directions read the same x
                for total, d in zip(d_initials, d_initial):
                    total[layer, k] = d
                self._add_grads(dict(zip(weight_names(layer, direction), d_weights)))
            dy = dx                                                         # x of this layer is y of the one below
        return (dx, *d_initials)

    def _state(self, name, state, B):
        shape = (self.num_layers, len(self.directions), B, self.hidden_size)
        if state is None:
            return np.zeros(shape, self.dtype)
        return floats(name, state, self.dtype, shape, ("layers", "dirs", "B", "H"))


class LSTM(Recurrent):
    """Long short-term memory over a batch of sequences.  The equations are in ``minilstm/cells/lstm.py``.

    input_size      D, features of one step
    hidden_size     H, units of a layer in one direction
    num_layers      layers on top of each other, each reading the y of the one below
    bidirectional   also walk every sequence from its end; y and the layer above get both, side by side
    dtype           "float32" or "float64"
    backend         "cpu" (compiled) or "reference" (plain NumPy)
    seed            of the initial weights: Glorot uniform W, orthogonal U, forget bias 1, all other biases 0
    """
    cell = cells.LSTM

    def __init__(self, input_size, hidden_size, *, num_layers=1, bidirectional=False, dtype="float32", backend="cpu",
                 seed=0):
        super().__init__(input_size, hidden_size, num_layers=num_layers, bidirectional=bidirectional, dtype=dtype,
                         backend=backend, seed=seed)

    def forward(self, x, mask=None, h0=None, c0=None, masked_output="zero", lengths=None):
        """x (B,T,D) -> RecurrentOutput(y, h_n, c_n), cache.

        mask            (B,T) bool, True = a real step; any pattern.  On a masked step h and c are carried bit for bit,
                        and whatever x holds there, NaN included, is never read.
        lengths         (B,) integers, instead of a mask: the first so many steps are real
        h0, c0          (layers,dirs,B,H), zeros if not given
        masked_output   y at a masked step: "zero", or "hold" for the last real output (0 before the first one)

        An infinite real input counts as NaN: it would only saturate the gates, and nobody would see it.
        Raises TypeError for another dtype or kind of array, ValueError for another shape or value."""
        output, cache = self._forward(x, mask, lengths, {"h0": h0, "c0": c0}, masked_output)
        return RecurrentOutput(*output), cache

    def backward(self, cache, dy=None, dh_n=None, dc_n=None):
        """The gradients of y, h_n and c_n (None: zero), in their shapes -> dx (B,T,D), dh0, dc0; adds to ``grads``.

        dx is 0 at masked steps.  Raises ValueError if all three are None, else as ``forward`` does."""
        return RecurrentGradients(*self._backward(cache, dy, {"dh_n": dh_n, "dc_n": dc_n}))


def weight_names(layer, direction):
    """The names of one layer's parameters in one direction, in the order of ``Weights``."""
    return [f"{name}_l{layer}{direction}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def visible(x, mask):
    """A copy of x with 0 at masked steps and NaN in place of infinity."""
    x = select(x, mask)
    x[np.isinf(x)] = np.nan
    return x


def initial_weights(cell, D, H, rng):
    """Glorot uniform W, orthogonal U, block by block; the forget gate's bias 1, all others 0."""
    blocks = len(cell.gates)
    limit = np.sqrt(6 / (D + H))                                        # Glorot and Bengio 2010, equation 16
    W = rng.uniform(-limit, limit, (blocks * H, D))
    U = np.concatenate([orthogonal(H, rng) for _ in cell.gates])        # Saxe, McClelland and Ganguli 2014
    b_ih = np.repeat([1.0 if gate == "f" else 0.0 for gate in cell.gates], H)       # Gers et al. 2000, section 4
    return Weights(W, U, b_ih, np.zeros(blocks * H))


def orthogonal(H, rng):
    """A random (H,H) matrix with orthonormal rows, uniformly distributed: QR with the signs of R's diagonal."""
    Q, R = np.linalg.qr(rng.standard_normal((H, H)))
    return Q * np.sign(np.diag(R))
