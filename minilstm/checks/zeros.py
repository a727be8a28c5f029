"""Zero is not nothing: when a step of zeros leaves a state alone, and how fast many of them wash it out.

Padding a batch with zeros and passing no mask is masking only where a step on x = 0 changes no state.  Let b be b_ih +
b_hh.  A product with zeros is 0, and so is ``normalise`` of it; sigmoid and tanh are those of real numbers.

**Leading zeros**, from a zero state.  Every pre-activation is its bias.  What the step makes of the state is then

    LSTM            c = sigmoid(b_i) * tanh(b_g),  h = o * tanh(c)              0 if and only if b_g = 0
                    with peepholes (they see c_prev = 0), coupled gates, or a projection (of h = 0) the same
      layer norm    the same c,  h = o * tanh(normalise(c) * gain_c + b_c)      b_g = 0 and b_c = 0
    GRU             h = (1 - z) * tanh(b_in + r * b_hn),  r = sigmoid(b_r)      b_in + r * b_hn = 0; so if both are 0
      layer norm    the same
      reset before  h = (1 - z) * tanh(b_in + b_hn)                             b_in + b_hn = 0
    RNN             h = tanh(b);  h = relu(b)                                   b = 0;  b <= 0

in every unit, since sigmoid and 1 - z are above 0.  A zero state that one step leaves, all leave, and the layer above
reads zeros again.  So zeros in front equal masking if and only if this holds in each layer; no other bias matters.

**Trailing zeros** meet states that a sequence has left, and would have to keep every one of them:

    LSTM            f * c + i * g = c for every c, at the same h.  c = 0 says g = 0, since i > 0; then any other c says
                    f = 1, but sigmoid < 1.  That i and f see c through peepholes changes no word of it
      coupled       (1 - i) * c + i * g = c, so c = g, of which there is one, and not every c
    GRU             (1 - z) * n + z * h = h, so n = h.  n is the tanh of something bounded while every |h| <= 1, so it
                    stays away from 1, and h does not
    RNN, tanh       the same
    RNN, relu       relu(U @ h + b) = h for every h >= 0 if and only if U is the identity and b = 0

So they never equal masking, but for the last: the net of Le, Jaitly and Hinton, A Simple Way to Initialize Recurrent
Networks of Rectified Linear Units, 2015, as it begins.  (In floating-point numbers sigmoid is 1 from about 17 in
float32, 37 in float64, on: a forget gate so wide open forgets nothing either.)
"""
import itertools
import math

import numpy as np

from .. import cells
from ..arguments import describe, natural, positive
from ..cells.activations import sigmoid
from ..layers.recurrent import Recurrent


def leading_zeros_are_masking(layer):
    """Are zero steps at the beginning of the rows, from a zero state, the same as masked ones?  -> bool

    layer: an LSTM, GRU or RNN.  For a direction that walks from the end these are the last steps, and the other
    condition is asked.  With b_hn other than 0 the GRU's equation is one of rounded numbers: a backend that rounds
    otherwise moves the state by a rounding error, which ``normalise`` may enlarge step by step."""
    return _zeros_are_masking(layer, at_the_end=False)


def trailing_zeros_are_masking(layer):
    """The same for zero steps at the end of the rows, from any state that a zero state may have led to."""
    return _zeros_are_masking(layer, at_the_end=True)


def units_at_rest(layer, k=0, suffix=""):
    """Which units of layer k a zero step leaves at 0, if all units are 0: (H,) bool.

    suffix: "" or "_reverse", of the direction"""
    cell, params = layer.cell, layer.params
    b_ih, b_hh = (dict(zip(cell.blocks, np.split(params[f"{name}_l{k}{suffix}"], len(cell.blocks))))
                  for name in ("bias_ih", "bias_hh"))
    if "n" in cell.blocks:
        after = cell != cells.GRU_RESET_BEFORE_CELL
        r = sigmoid(b_ih["r"] + b_hh["r"]) if after else 1
        return b_ih["n"] + r * b_hh["n"] == 0
    if "g" in cell.blocks:
        b_c = params[f"own_l{k}{suffix}"][cell.own.index("b_c")] if "b_c" in cell.own else 0
        return (b_ih["g"] + b_hh["g"] == 0) & (b_c == 0)
    [block] = cell.blocks
    b = b_ih[block] + b_hh[block]
    return b <= 0 if cell == cells.RNN_RELU_CELL else b == 0


def memory_left(layer, x=None, *, zeros, seed=0):
    """What is left of a state's memory after 0, 1, ..., ``zeros`` zero steps behind a sequence, 1 before the first:
    (zeros+1,).

    A memory is what tells sequences apart: the root mean square distance of the rows' c (or h, for a layer without c)
    from their mean.
    x: (B,T,D) two or more sequences, all steps real; None: 16 of 20 random normal steps, drawn from ``seed``
    Raises ValueError for a bidirectional layer, one of whose directions meets the zeros first, and where all rows leave
    the same state."""
    distances = _distances(layer, x, seed)
    return np.array([next(distances) for _ in range(natural("zeros", zeros) + 1)])


def padding_half_life(layer, x=None, *, limit=1000, seed=0):
    """The number of zero steps behind a sequence that halve what a state remembers, measured; between two steps, on a
    curve that falls by the same part in equal times.  math.inf if ``limit`` steps do not.

    x, seed, and the errors raised: as ``memory_left`` has them"""
    before = 1.0
    for k, left in enumerate(itertools.islice(_distances(layer, x, seed), positive("limit", limit) + 1)):
        if left <= 0.5:
            return k - 1 + math.log(before / 0.5) / math.log(before / left) if left > 0 else float(k)
        before = left
    return math.inf


def _zeros_are_masking(layer, at_the_end):
    _check_recurrent(layer)
    return all(_keeps_states(layer, direction.suffix) if direction.reverse != at_the_end else
               bool(units_at_rest(layer, k, direction.suffix).all())
               for k in range(layer.num_layers) for direction in layer.directions)


def _keeps_states(layer, suffix):
    """Does a zero step keep every h >= 0 of a direction?  A stack never counts: what reads an h that is not zero moves,
    or has no input weights."""
    if layer.cell != cells.RNN_RELU_CELL or layer.num_layers > 1:
        return False
    U, b_ih, b_hh = (layer.params[f"{name}_l0{suffix}"] for name in ("weight_hh", "bias_ih", "bias_hh"))
    return np.array_equal(U, np.eye(len(U))) and not (b_ih + b_hh).any()


def _distances(layer, x, seed):
    """Yield how far apart the rows' memories are, 1 after x, then after every further zero step."""
    _check_recurrent(layer)
    if layer.bidirectional:
        raise ValueError("layer: expected one that walks one way, got a bidirectional one")
    if x is None:
        x = np.random.default_rng(natural("seed", seed)).standard_normal((16, 20, layer.input_size)).astype(layer.dtype)
    out, _ = layer.forward(x, cache=False)
    nothing = np.zeros((len(x), 1, layer.input_size), layer.dtype)
    first = _distance(out)
    if not first > 0:
        raise ValueError(f"x: expected two or more sequences that leave different states, got {describe(x)}")
    while True:
        yield _distance(out) / first
        out, _ = layer.forward(nothing, cache=False, **{f"{s}0": getattr(out, f"{s}_n") for s in layer.cell.states})


def _distance(out):
    """Of the memories, the last kind of state that a layer has, from their mean over the batch."""
    memory = out[-1].astype("float64")                                  # (layers,1,B,H)
    return float(np.sqrt(np.mean((memory - memory.mean(axis=2, keepdims=True)) ** 2)))


def _check_recurrent(layer):
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN, got {describe(layer)}")
