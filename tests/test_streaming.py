"""Streams, one step at a time: the bits of the whole sequence, whoever else comes along, and nobody else's state."""
import threading

import numpy as np
import pytest

import minilstm
from helpers import KINDS_AND_DTYPES, random_layer, same_bits
from minilstm.layers import Layer
from minilstm.streaming import Streams
from minilstm.training import truncated_bptt

T, D = 9, 3


def with_head(rng, net):
    head = minilstm.Linear(net.output_size, 2, dtype=net.dtype)
    head.params["bias"] = rng.normal(size=2).astype(net.dtype)
    return minilstm.Sequential(net, head)


def arrivals(rng, names, steps):
    """Who comes when: every stream as often as it has steps, in batches of any size and any order."""
    left = dict.fromkeys(names, steps)
    while left:
        chosen = rng.permutation(len(left))[:rng.integers(1, len(left) + 1)]
        keys = [list(left)[k] for k in chosen]
        for key in keys:
            left[key] -= 1
        left = {key: n for key, n in left.items() if n}
        yield keys


def run(streams, rng, data):
    """data: dict name -> (T,D) or (T,) -> dict name -> (T,F), from steps in batches that change."""
    said = {key: [] for key in data}
    for keys in arrivals(rng, list(data), len(next(iter(data.values())))):
        y = streams.step(keys, np.stack([data[key][len(said[key])] for key in keys]))
        for key, y_key in zip(keys, y):
            said[key].append(y_key)
    return {key: np.stack(ys) for key, ys in said.items()}


@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
@pytest.mark.parametrize("H", [4, 21])
def test_bits_are_those_of_the_whole_sequence_whatever_the_batch(kind, dtype, H):
    rng = np.random.default_rng(0)
    model = with_head(rng, random_layer(rng, kind, D, H, num_layers=2, dtype=dtype))
    x = rng.normal(size=(13, T, D)).astype(dtype)
    data = {f"stream {k}": x_k for k, x_k in enumerate(x)}
    streams = Streams(model)
    expected, _ = model.forward(x)
    found = run(streams, rng, data)
    assert len(streams) == 13 and set(streams) == set(data)
    for key, y in zip(data, expected):
        assert same_bits(found[key], y), key
    finals = model.layers[0].forward(x)[0][1:]
    for k, key in enumerate(data):
        assert all(same_bits(s, final[:, :, k:k + 1]) for s, final in zip(streams.state(key)[0], finals))


def test_a_wide_net_whose_products_are_made_in_another_way_for_a_large_batch():
    rng = np.random.default_rng(1)
    model = with_head(rng, random_layer(rng, "LSTM", 300, 64))
    x = rng.normal(size=(11, 4, 300)).astype("float32")
    found = run(Streams(model), rng, dict(enumerate(x)))
    assert all(same_bits(found[k], y) for k, y in enumerate(model.forward(x)[0]))


def test_the_reference_backend_and_categories():
    rng = np.random.default_rng(2)
    x = rng.integers(0, 6, (5, T))
    for backend in ("cpu", "reference"):
        layers = minilstm.Embedding(6, D, backend=backend), random_layer(rng, "GRU", D, 4, backend=backend)
        model = minilstm.Sequential(*layers)
        found = run(Streams(model), rng, dict(enumerate(x)))
        assert all(np.abs(found[k] - y).max() < 1e-6 for k, y in enumerate(model.forward(x)[0]))
        assert backend == "reference" or all(same_bits(found[k], y) for k, y in enumerate(model.forward(x)[0]))


def test_a_forgotten_stream_begins_anew_and_its_place_is_used_again():
    rng = np.random.default_rng(3)
    model = with_head(rng, random_layer(rng, "LSTM", D, 4))
    streams, x = Streams(model), rng.normal(size=(2, D)).astype("float32")
    fresh = streams.step(["a"], x[:1])
    later = streams.step(["a", "b"], x)
    assert not same_bits(later[0], fresh[0])
    streams.forget("a")
    assert "a" not in streams and "b" in streams and len(streams) == 1
    assert same_bits(streams.step(["c"], x[:1]), fresh) and same_bits(streams.step(["a"], x[:1]), fresh)
    for name in ("state", "forget"):
        with pytest.raises(KeyError, match="key: expected the name of a stream, got 'd'"):
            getattr(streams, name)("d")


def test_a_stream_may_begin_with_a_state():
    rng = np.random.default_rng(4)
    model = with_head(rng, random_layer(rng, "LSTM", D, 4))
    x = rng.normal(size=(1, T, D)).astype("float32")
    whole, _ = model.forward(x)
    (_, state), _ = model.forward_from(x[:, :6], model.start(1))
    passed = truncated_bptt(model, x[:, :6], np.zeros((1, 6, 2), "float32"), k1=2, k2=3)
    streams = Streams(model)
    streams.step(["again"], x[:, 0])
    for key, given in (("new", state), ("again", passed.state)):
        streams.begin(key, given)
        assert same_bits(streams.step([key], x[:, 6])[0], whole[0, 6])
        streams.begin(key)
        assert same_bits(streams.step([key], x[:, 0])[0], whole[0, 0])
    streams.state("new")[0][0][:] = 7                                       # a copy
    assert same_bits(streams.step(["new"], x[:, 1])[0], whole[0, 1])
    for given in (model.start(2), state[0], (state[0][:1], ()), state[0][0]):
        with pytest.raises(ValueError, match=r"state: expected \(\('float32 \(1, 1, 1, 4\)', .*, got "):
            streams.begin("new", given)
    assert same_bits(streams.step(["new"], x[:, 2])[0], whole[0, 2])


def test_bad_input_changes_no_state():
    rng = np.random.default_rng(5)
    model = minilstm.Sequential(minilstm.Embedding(6, D), random_layer(rng, "LSTM", D, 4))
    x = rng.integers(0, 6, (2, T))
    streams, whole = Streams(model), model.forward(x)[0]
    streams.step(["a", "b"], x[:, 0])
    for keys, came, error, words in (
            (["a", "c", "a"], x[[0, 1, 0], 1], ValueError, "keys: expected each name once, got 'a' twice"),
            (["a", "c"], x[:1, 1], TypeError, r"x: expected integers \(B=2,\), got int64 \(1,\)"),
            (["a", "c"], np.ones((2, D), "float32"), TypeError, "x: expected integers"),
            (["a", "c"], np.array([1, 6]), ValueError, "x: expected categories from 0 to 5, got 6"),
            ("ac", x[:, 1], TypeError, r"keys: expected a list of names, got the text 'ac'; \['ac'\] is a list of one"),
            ([["a"], "c"], x[:, 1], TypeError, "unhashable")):
        with pytest.raises(error, match=words):
            streams.step(keys, came)
        assert list(streams) == ["a", "b"]
    assert same_bits(streams.step(["b", "a"], x[::-1, 1]), whole[::-1, 1])
    numbers = Streams(minilstm.LSTM(D, 4))
    for came, error, words in ((np.ones((2, D), "float32"), ValueError, r"x: expected float32 \(B=1, D=3\)"),
                               (np.ones((1, D)), TypeError, "x: expected float32"),
                               (np.ones((1, 1, D), "float32"), ValueError, r"x: expected .*, got float32 \(1, 1, 3\)")):
        with pytest.raises(error, match=words):
            numbers.step(["a"], came)
    assert len(numbers) == 0 and "a" not in numbers
    assert numbers.step([], np.ones((0, D), "float32")).shape == (0, 4)


class Faded(Layer):
    """A running mean: a layer of a user's own, with a state of its own shape."""

    def start(self, B):
        return (np.zeros((B, D), self.dtype),)

    def forward_from(self, x, state, mask=None, *, training=False, cache=True):
        y, s = np.empty_like(x), state[0]
        for t in range(x.shape[1]):
            y[:, t] = s = (s + x[:, t]) / 2
        return (y, (s,)), None


def test_a_layer_of_ones_own():
    rng = np.random.default_rng(6)
    model = minilstm.Sequential(Faded("float32", "cpu"), random_layer(rng, "GRU", D, 4))
    x = rng.normal(size=(10, T, D)).astype("float32")
    found = run(Streams(model), rng, dict(enumerate(x)))
    (expected, _), _ = model.forward_from(x, model.start(10))
    assert all(same_bits(found[k], y) for k, y in enumerate(expected))


def test_several_threads():
    rng = np.random.default_rng(7)
    model = with_head(rng, random_layer(rng, "LSTM", D, 4))
    x = rng.normal(size=(4, 5, 40, D)).astype("float32")
    streams, found = Streams(model), {}

    def feed(k):
        found[k] = run(streams, np.random.default_rng(k), {(k, row): x_row for row, x_row in enumerate(x[k])})

    threads = [threading.Thread(target=feed, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(streams) == 20
    for k in range(4):
        assert all(same_bits(found[k][k, row], y) for row, y in enumerate(model.forward(x[k])[0]))


def test_a_model_that_needs_the_whole_sequence_is_refused():
    with pytest.raises(ValueError, match="LSTM: .*: it walks from the end of the sequence"):
        Streams(minilstm.LSTM(D, 4, bidirectional=True))
    with pytest.raises(TypeError, match="model: expected a Layer, got str"):
        Streams("LSTM")
