"""A sequence read in segments, each from the state in which the one before it ended, is the sequence read at once."""
import numpy as np
import pytest

import minilstm
from helpers import KINDS, assert_close, masks, random_batch, random_layer, same_bits
from minilstm.conditioning.covariate_lstm import CovariateLSTM
from minilstm.layers import Checkpointed, Layer
from minilstm.layers.layer import first
from minilstm.streaming import Streams
from minilstm.training import truncated_bptt

CUTS = [0, 1, 4, 4, 9, 11]                  # also a segment of no steps, and one of one
PARTS = [slice(begin, end) for begin, end in zip(CUTS, CUTS[1:])]


def gradients_of(model):
    """A copy of all gradients, dict name -> array."""
    return {prefix + name: layer.arrays.to_numpy(g)
            for prefix, layer in model.walk() for name, g in layer.grads.items()}


def small_model(rng):
    """Its input and its output are 3 wide."""
    return minilstm.Sequential(random_layer(rng, "LSTM", 3, 4, dtype="float64"),
                               minilstm.Linear(4, 3, dtype="float64"))


def in_segments(model, x, state, mask, dy, d_state):
    """Forward from the first segment to the last, backward from the last to the first, gradients set to zero before ->
    y, state, dx, d_state."""
    def of(array, part):
        return None if array is None else array[:, part]
    ys, dxs, caches = [], [], []
    for part in PARTS:
        (y, state), cache = model.forward_from(x[:, part], state, of(mask, part))
        ys.append(y)
        caches.append(cache)
    model.zero_grads()
    for part, cache in zip(reversed(PARTS), reversed(caches)):
        dx, d_state = model.backward_to(cache, dy[:, part], d_state)
        dxs.insert(0, dx)
    return np.concatenate(ys, axis=1), state, None if dxs[0] is None else np.concatenate(dxs, axis=1), d_state


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_segments_of_a_recurrent_layer_are_the_whole(kind, backend):
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, 3, 4, num_layers=2, dtype="float64", backend=backend)
    for mask in masks(rng, 5, 11).values():
        batch = random_batch(rng, net, B=5, T=11)
        states = [batch[f"{s}0"] for s in net.cell.states]
        d_states = {f"d{s}_n": batch[f"d{s}_n"] for s in net.cell.states}
        (y, *finals), cache = net.forward(batch["x"], mask, *states)
        net.zero_grads()
        dx, *d_initials = net.backward(cache, batch["dy"], **d_states)
        expected = gradients_of(net)
        found = in_segments(net, batch["x"], tuple(states), mask, batch["dy"], tuple(d_states.values()))
        assert same_bits(found[0], y) and all(map(same_bits, found[1], finals))
        assert_close(found[2], dx, "same formulas, float64", "dx")
        for d, d_expected in zip(found[3], d_initials):
            assert_close(d, d_expected, "same formulas, float64", "d_state")
        for name, g in gradients_of(net).items():
            assert_close(g, expected[name], "gradients by rounding", name)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("masked", [False, True])
def test_segments_of_a_model_are_the_whole(masked, backend):
    """Categories, a layer used twice, and layers that look at one step alone."""
    rng = np.random.default_rng(1)
    options = {"dtype": "float64", "backend": backend}
    shared = random_layer(rng, "GRU", 4, 4, **options)
    head = minilstm.Linear(4, 2, seed=3, **options)
    head.params["bias"] = rng.normal(size=2)
    model = minilstm.Sequential(minilstm.Embedding(6, 3, **options), random_layer(rng, "LSTM", 3, 4, **options),
                                minilstm.Sequential(shared, head), minilstm.Linear(2, 4, seed=4, **options), shared)
    x = rng.integers(0, 6, (5, 11))
    mask = rng.random((5, 11)) < 0.6 if masked else None
    if masked:
        x[~mask] = -1
    y, cache = model.forward(x, mask)
    dy = rng.normal(size=y.shape)
    model.zero_grads()
    model.backward(cache, dy)
    expected = gradients_of(model)
    found, state, dx, _ = in_segments(model, x, model.start(5), mask, dy, None)
    assert_close(found, y, "same formulas, float64")
    assert same_bits(found, y) or backend == "reference"
    assert dx is None and [len(part) for part in state] == [0, 2, 2, 0, 1]
    for name, g in gradients_of(model).items():
        assert_close(g, expected[name], "gradients by rounding", name)
        assert np.abs(g).max() > 0


def test_a_covariate_comes_in_segments_too():
    rng = np.random.default_rng(2)
    net = CovariateLSTM(3, 2, 4, dtype="float64")
    batch = random_batch(rng, net, B=5, T=11)
    y, *_ = net.forward(batch["x"])[0]
    assert same_bits(in_segments(net, batch["x"], net.start(5), None, batch["dy"], None)[0], y)


def test_rubbish_in_masked_steps_reaches_nothing():
    rng = np.random.default_rng(3)
    model = small_model(rng)
    x, mask = rng.normal(size=(5, 11, 3)), rng.random((5, 11)) < 0.6
    dirty = np.where(mask[:, :, None], x, np.nan)
    dy = np.where(mask[:, :, None], rng.normal(size=x.shape), 0)
    for layer in (model, *model.layers[:1], minilstm.Linear(3, 3, dtype="float64")):
        narrow = dy if layer is not model.layers[0] else rng.normal(size=(5, 11, 4))
        clean, state, dx, _ = in_segments(layer, x, layer.start(5), mask, narrow, None)
        expected = gradients_of(layer)
        found, state_found, dx_found, _ = in_segments(layer, dirty, layer.start(5), mask, narrow, None)
        assert same_bits(found[mask], clean[mask]) and str(state) == str(state_found) and same_bits(dx_found, dx)
        assert np.isfinite(found).all() and np.isfinite(dx).all()
        assert all(same_bits(g, expected[name]) for name, g in gradients_of(layer).items())


def test_no_gradient_of_y_is_a_gradient_of_zeros():
    rng = np.random.default_rng(4)
    model = small_model(rng)
    x = rng.normal(size=(5, 11, 3))
    (y, state), cache = model.forward_from(x, model.start(5))
    d_state = (tuple(rng.normal(size=s.shape) for s in state[0]), ())
    found = []
    for dy in (None, np.zeros_like(y)):
        model.zero_grads()
        dx, d_before = model.backward_to(cache, dy, d_state)
        found.append([dx, *d_before[0], *gradients_of(model).values()])
    assert all(map(same_bits, *found)) and np.abs(found[0][0]).max() > 0


class Own(Layer):
    """A layer of which nobody has said that it looks at one step alone."""


NOT_IN_SEGMENTS = [
    (minilstm.LSTM(3, 4, bidirectional=True), "LSTM: .*: it walks from the end of the sequence"),
    (minilstm.GRU(3, 4, reverse=True), "GRU: .*: it walks from the end of the sequence"),
    (minilstm.GRUD(3, 4), "GRUD: .*: h carries neither what was last measured nor when"),
    (minilstm.Pooling("last"), "Pooling: .*: it makes one output of all steps"),
    (minilstm.AttentionPooling(3, 4), "AttentionPooling: .*: it makes one output of all steps"),
    (minilstm.Attention(3, 4, causal=True), "Attention: .*: its steps look at each other"),
    (minilstm.Conditioned("film", 3, 2, 4), "Conditioned: .*: its y at a step may depend on other steps"),
    (Own("float32", "cpu"), "Own: .*: its y at a step may depend on other steps"),
    (minilstm.Sequential(minilstm.LSTM(3, 4), minilstm.RNN(4, 2, reverse=True)), "RNN: .*: it walks from the end"),
]


@pytest.mark.parametrize("layer, words", NOT_IN_SEGMENTS, ids=[type(layer).__name__ for layer, _ in NOT_IN_SEGMENTS])
def test_a_layer_that_needs_the_whole_sequence_says_why(layer, words):
    x = np.ones((2, 5, 3), "float32")
    state = ((None, None), (None,)) if isinstance(layer, minilstm.Sequential) else ()
    for attempt in (lambda: layer.start(2), lambda: layer.forward_from(x, state)):
        with pytest.raises(ValueError, match=words):
            attempt()


NOISE = {"dropout": {"dropout": 0.5, "num_layers": 2}, "recurrent dropout": {"recurrent_dropout": 0.5},
         "zoneout": {"zoneout_h": 0.3, "zoneout_c": 0.5}}


@pytest.mark.parametrize("noise", NOISE)
def test_a_segment_that_is_the_whole_draws_as_the_whole(noise):
    rng = np.random.default_rng(5)
    net = random_layer(rng, "LSTM", 3, 4, **NOISE[noise])
    model = minilstm.Sequential(minilstm.Linear(3, 3), net, minilstm.Linear(4, 3))
    x = rng.normal(size=(2, 11, 3)).astype("float32")
    for layer in (net, model):
        y = first(layer.forward(x, training=True, draw=7)[0])
        (found, _), _ = layer.forward_from(x, layer.start(2), training=True, draw=7)
        assert same_bits(found, y) and not same_bits(y, first(layer.forward(x)[0]))
        calls = [layer.forward_from(x, layer.start(2), training=True)[0][0] for _ in range(2)]
        assert same_bits(calls[1], first(layer.forward(x, training=True, draw=1)[0])), "each call is the next draw"
        assert not same_bits(*calls) and layer.counter.next == 2
    dy = np.ones((2, 11, 4), "float32")
    assert same_bits(in_segments(net, x, net.start(2), None, dy, None)[0], net.forward(x)[0].y), "absent outside"


def test_parts_of_a_draw_drop_the_same_units_of_h_and_draw_all_else_anew():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(3, 4, 3)).astype("float32")
    mask = np.array([[True] * 4, [False] * 4, [True, False] * 2])       # a row without a step in this segment
    for name, noise in NOISE.items():
        net = random_layer(rng, "LSTM", 3, 8, **noise)
        found = [net.forward_from(x, net.start(3), m, training=True, draw=1, part=part)[0][0][2]
                 for m, part in ((mask, (0,)), (np.ones((3, 4), bool) & mask[2], (1,)))]
        assert same_bits(*found) == (name == "recurrent dropout")
    for part, error in ((3, TypeError), ((-1,), ValueError)):
        with pytest.raises(error, match="part: expected"):
            net.forward_from(x, net.start(3), training=True, part=part)


@pytest.mark.parametrize("noise", NOISE)
def test_gradients_through_segments_are_those_of_what_was_drawn(noise):
    """Backward against the derivative of what forward does with the same draw, in three parts."""
    rng = np.random.default_rng(7)
    net = random_layer(rng, "GRU" if noise == "dropout" else "LSTM", 3, 4, dtype="float64", **NOISE[noise])
    x, dy = rng.normal(size=(2, 11, 3)), rng.normal(size=(2, 11, 4))

    def passes(x):
        state, ys, caches = net.start(2), [], []
        for k, part in enumerate(PARTS):
            (y, state), cache = net.forward_from(x[:, part], state, training=True, draw=3, part=(k,))
            ys.append(y)
            caches.append(cache)
        return np.concatenate(ys, axis=1), caches

    _, caches = passes(x)
    dxs, d_state = [], None
    for part, cache in zip(reversed(PARTS), reversed(caches)):
        dx, d_state = net.backward_to(cache, dy[:, part], d_state)
        dxs.insert(0, dx)
    direction = rng.normal(size=x.shape)
    slope = ((passes(x + 1e-6 * direction)[0] - passes(x - 1e-6 * direction)[0]) / 2e-6 * dy).sum()
    assert abs((np.concatenate(dxs, axis=1) * direction).sum() - slope) < 1e-7 * max(1, abs(slope))


class Drawing(Own):
    """Random in training, in a way that nobody knows how to part."""
    takes_training = True
    needs_whole = None

    def forward(self, x, *, training=False, draw=None, cache=True):
        return x, None


def test_a_layer_that_cannot_draw_for_a_segment_says_so():
    x = np.ones((2, 5, 3), "float32")
    layer = Drawing("float32", "cpu")
    assert layer.forward_from(x, layer.start(2))[0][0] is x
    with pytest.raises(ValueError, match="training: expected False for a Drawing"):
        layer.forward_from(x, layer.start(2), training=True)


def test_a_state_that_does_not_fit_is_named():
    x, h = np.ones((2, 5, 3), "float32"), np.ones((1, 1, 2, 4), "float32")
    net, head = minilstm.LSTM(3, 4), minilstm.Linear(3, 1)
    model = minilstm.Sequential(net, minilstm.Linear(4, 1))
    for layer, state, error, words in (
            (net, (h,), TypeError, "state: expected what start or forward_from returned, .* of 2, got a tuple of 1"),
            (net, [h, h], TypeError, "state: .* a tuple of 2, got list"),
            (net, (h, h[:, :, :1]), ValueError, r"c0: expected float32 \(layers=1, dirs=1, B=2, H=4\), got .* 1, 4\)"),
            (net, (h.astype("float64"), h), TypeError, "h0: expected float32 .*, got float64"),
            (head, (h,), TypeError, "state: .* a tuple of 0, got a tuple of 1"),
            (model, (h, h, ()), TypeError, "state: .* a tuple of 2, got a tuple of 3")):
        with pytest.raises(error, match=words):
            layer.forward_from(x, state)
    _, cache = model.forward_from(x, model.start(2))
    with pytest.raises(TypeError, match="state: .* a tuple of 2, got a tuple of 1"):
        model.backward_to(cache, np.ones((2, 5, 1), "float32"), ((h, h),))


def test_a_gpu_reads_segments_but_what_stands_on_them_is_for_the_host(gpu):
    rng = np.random.default_rng(6)
    model = minilstm.Sequential(random_layer(rng, "LSTM", 3, 4, backend="gpu"), minilstm.Linear(4, 2, backend="gpu"))
    x, mask = rng.normal(size=(2, 5, 3)).astype("float32"), np.array([[True] * 5, [True, False, True, False, False]])
    y, cache = model.forward(x, mask)
    dy = rng.normal(size=y.shape).astype("float32")
    model.backward(cache, dy)
    expected = gradients_of(model)
    parts, state, found, d_state = [slice(0, 2), slice(2, 5)], model.start(2), [], None
    for part in parts:
        (piece, state), kept = model.forward_from(x[:, part], state, mask[:, part])
        found.append((piece, kept))
    model.zero_grads()
    for part, (_, kept) in zip(reversed(parts), reversed(found)):
        _, d_state = model.backward_to(kept, dy[:, part], d_state)
    assert_close(np.concatenate([np.asarray(piece) for piece, _ in found], axis=1), y, "same formulas, float32")
    for name, g in gradients_of(model).items():
        assert_close(g, expected[name], "same formulas, float32", name)
    for use in (Checkpointed, Streams, lambda model: truncated_bptt(model, x, dy, k1=1, k2=1)):
        with pytest.raises(ValueError, match="expected one with backend='cpu' or 'reference', got 'gpu'"):
            use(model)
