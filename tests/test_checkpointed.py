"""Checkpoints in time: the same function and the same gradients, in memory that grows like the root of T."""
import tracemalloc

import numpy as np
import pytest

import minilstm
from helpers import KINDS, assert_close, random_layer, same_bits
from minilstm.layers import Checkpointed
from minilstm.machine import buffers
from test_segments import NOT_IN_SEGMENTS, gradients_of, in_segments, small_model

B, T, D = 4, 11, 3


def batch(rng):
    """x, a mask with an empty row, and dy."""
    mask = rng.random((B, T)) < 0.7
    mask[1] = False
    return rng.normal(size=(B, T, D)), mask, rng.normal(size=(B, T, D))


@pytest.mark.parametrize("segment", [None, 1, 3, 11, 40])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_function_and_the_same_gradients(kind, backend, segment):
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, D, 4, num_layers=2, dtype="float64", backend=backend)
    model = minilstm.Sequential(net, minilstm.Linear(net.output_size, D, dtype="float64", backend=backend))
    checkpointed = Checkpointed(model, segment)
    x, mask, dy = batch(rng)
    for given in (None, mask):
        y, cache = model.forward(x, given)
        model.zero_grads()
        dx = model.backward(cache, dy)
        expected = gradients_of(model)
        found, kept = checkpointed.forward(x, given)
        model.zero_grads()
        assert_close(checkpointed.backward(kept, dy), dx, "gradients by rounding", "dx")
        assert_close(found, y, "same formulas, float64", "y")
        assert same_bits(found, y) or backend == "reference"
        for name, g in gradients_of(checkpointed).items():
            assert_close(g, expected[name], "gradients by rounding", name)
            assert np.abs(g).max() > 0
        without, nothing = checkpointed.forward(x, given, cache=False)
        assert same_bits(without, found) and nothing is None


@pytest.mark.parametrize("kind", ["LSTM", "GRU, layer norm"])
def test_its_gradients_are_derivatives(kind):
    rng = np.random.default_rng(1)
    model = minilstm.Sequential(random_layer(rng, kind, D, 3), minilstm.Linear(3, 2))
    x, mask, _ = batch(rng)
    report = minilstm.check_gradients(Checkpointed(model, 4), max_entries=10, x=x, mask=mask)
    assert report.ok and all(row.largest > 0 for row in report.rows), f"\n{report}"


def test_categories_have_no_gradient():
    rng = np.random.default_rng(2)
    model = minilstm.Sequential(minilstm.Embedding(5, D, dtype="float64"), *small_model(rng).layers)
    x, (_, mask, dy) = rng.integers(0, 5, (B, T)), batch(rng)
    y, cache = model.forward(x, mask)
    model.backward(cache, dy)
    expected = gradients_of(model)
    checkpointed = Checkpointed(model)
    found, kept = checkpointed.forward(x, mask)
    model.zero_grads()
    assert checkpointed.takes_categories and checkpointed.backward(kept, dy) is None and same_bits(found, y)
    for name, g in gradients_of(model).items():
        assert_close(g, expected[name], "gradients by rounding", name)


def test_checkpoints_within_checkpoints_and_within_segments():
    rng = np.random.default_rng(3)
    model, (x, mask, dy) = small_model(rng), batch(rng)
    twice = Checkpointed(Checkpointed(model, 2), 5)
    expected = in_segments(model, x, model.start(B), mask, dy, None)
    gradients = gradients_of(model)
    found = in_segments(twice, x, twice.start(B), mask, dy, None)
    assert same_bits(found[0], expected[0]) and str(found[1]) == str(expected[1])
    assert_close(found[2], expected[2], "gradients by rounding", "dx")
    for d, d_expected in zip(found[3][0], expected[3][0]):
        assert_close(d, d_expected, "gradients by rounding", "d_state")
    for name, g in gradients_of(twice).items():
        assert_close(g, gradients[name], "gradients by rounding", name)


def test_fit_trains_it_as_it_trains_the_model_inside():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(20, 12, D))
    target, mask = np.roll(x[:, :, :1], 2, axis=1), np.arange(12) < rng.integers(3, 13, 20)[:, None]
    losses = []
    for wrap in (lambda net: net, Checkpointed, lambda net: Checkpointed(net, 5)):
        net, head = (minilstm.LSTM(D, 8, dtype="float64"), minilstm.Linear(8, 1, dtype="float64"))
        model = minilstm.Sequential(wrap(minilstm.Sequential(net)), head)
        losses.append(minilstm.fit(model, x, target, mask, epochs=5, batch_size=5, optimizer=minilstm.Adam(0.02)))
    assert losses[0][-1] < 0.9 * losses[0][0]
    for found in losses[1:]:
        assert_close(found, losses[0], "same formulas, float64")


def test_weights_have_the_names_of_the_model_inside_and_come_back_from_a_file(tmp_path):
    rng = np.random.default_rng(5)
    model = small_model(rng).astype("float32")
    checkpointed = minilstm.Sequential(Checkpointed(model, 7), minilstm.Linear(3, 1), Checkpointed(minilstm.RNN(1, 2)))
    assert Checkpointed(model).state_dict().keys() == model.state_dict().keys()
    minilstm.save(tmp_path / "model", checkpointed)
    again = minilstm.load(tmp_path / "model", backend="reference")
    assert [again.layers[k].segment for k in (0, 2)] == [7, None] and again.backend == "reference"
    state = again.state_dict()
    assert state.keys() == checkpointed.state_dict().keys()
    assert all(same_bits(p, state[name]) for name, p in checkpointed.state_dict().items())
    assert repr(again.layers[2]).endswith("zoneout_h=0.0, activation='tanh'), segment=None)")
    cast = checkpointed.astype("float64")
    assert cast.layers[0].dtype == cast.layers[0].layer.layers[0].dtype == np.float64


def test_a_cache_stays_true_or_says_that_it_cannot():
    rng = np.random.default_rng(6)
    model, (x, mask, dy) = small_model(rng), batch(rng)
    checkpointed, before = Checkpointed(model), model.state_dict()
    _, kept = checkpointed.forward(x, mask)
    dx = checkpointed.backward(kept, dy)
    x[:], mask[:] = 7, True
    assert same_bits(checkpointed.backward(kept, dy), dx)
    with pytest.raises(ValueError, match="cache: expected one of this layer with the weights that it has now"):
        Checkpointed(small_model(rng)).backward(kept, dy)
    model.load_state_dict(before)
    with pytest.raises(ValueError, match="cache: .*got one made with other weights"):
        checkpointed.backward(kept, dy)
    with pytest.raises(TypeError, match="cache: expected what forward returned beside its output, got list"):
        checkpointed.backward(model.forward(x)[1], dy)
    with pytest.raises(ValueError, match=r"dy: expected float64 \(B=4, T=11, F=3\), got float64 \(4, 12, 3\)"):
        checkpointed.backward(checkpointed.forward(x)[1], np.ones((4, 12, 3)))


@pytest.mark.parametrize("layer, words", NOT_IN_SEGMENTS, ids=[type(layer).__name__ for layer, _ in NOT_IN_SEGMENTS])
def test_a_layer_that_needs_the_whole_sequence_says_why(layer, words):
    with pytest.raises(ValueError, match=words):
        Checkpointed(layer)


@pytest.mark.parametrize("nested", [False, True])
def test_the_second_pass_draws_what_the_first_drew(nested):
    """Against the derivative of forward with the same draw, for which each number has to be drawn again."""
    rng = np.random.default_rng(8)
    net = random_layer(rng, "LSTM", D, 4, num_layers=2, dtype="float64", dropout=0.4, recurrent_dropout=0.3,
                       zoneout_h=0.2, zoneout_c=0.3)
    model = minilstm.Sequential(net, minilstm.Linear(4, D, dtype="float64"))
    checkpointed = Checkpointed(Checkpointed(model, 2), 5) if nested else Checkpointed(model, 4)
    x, mask, dy = batch(rng)
    y, cache = checkpointed.forward(x, mask, training=True, draw=3)
    assert same_bits(y, checkpointed.forward(x, mask, training=True, draw=3, cache=False)[0])
    assert not same_bits(y, checkpointed.forward(x, mask, training=True, draw=4)[0])
    dx = checkpointed.backward(cache, dy)
    assert checkpointed.counter.next == 0, "a draw by number does not count"
    direction = rng.normal(size=x.shape)
    after, before = (checkpointed.forward(x + e * direction, mask, training=True, draw=3)[0] for e in (1e-6, -1e-6))
    slope = ((after - before) / 2e-6 * dy).sum()
    assert abs((dx * direction).sum() - slope) < 1e-7 * max(1, abs(slope))
    for name, g in gradients_of(checkpointed).items():
        assert np.abs(g).max() > 0, name


def test_other_mistakes_are_named():
    x, quiet = np.ones((2, 5, D), "float32"), Checkpointed(minilstm.LSTM(D, 4))
    assert same_bits(quiet.forward(x, training=True)[0], quiet.forward(x)[0])
    for attempt, error, words in (
            (lambda: Checkpointed("LSTM"), TypeError, "layer: expected a Layer, got str"),
            (lambda: Checkpointed(minilstm.LSTM(D, 4), 0), ValueError, "segment: expected a positive integer, got 0"),
            (lambda: quiet.forward(x, draw=1), ValueError, "draw: expected None outside training, got 1"),
            (lambda: quiet.forward(x[:, :, :2]), ValueError, r"x: expected float32 \(B, T, D=3\)"),
            (lambda: quiet.forward([x]), TypeError, "x: expected a plain NumPy array"),
            (lambda: quiet.forward(x, np.ones((2, 4), bool)), ValueError, r"mask: expected shape \(B=2, T=5\)"),
            (lambda: minilstm.Sequential(quiet, minilstm.Linear(3, 1)), ValueError, "layers: expected input_size=4")):
        with pytest.raises(error, match=words):
            attempt()
    assert quiet.forward(x[:, :0])[0].shape == (2, 0, 4)


def test_memory_grows_like_the_root_of_the_length():
    """The exponent, of peaks over a sequence sixteen times as long: 1 without checkpoints."""
    rng = np.random.default_rng(7)
    model = minilstm.Sequential(minilstm.LSTM(1, 32), minilstm.Linear(32, 1))

    def peak(layer, T):
        x, target = (rng.standard_normal((32, T, 1), dtype="float32") for _ in range(2))
        buffers._idle.clear()               # what earlier calls left would not be counted
        tracemalloc.start()
        y, cache = layer.forward(x)
        _, dy = minilstm.mean_squared_error(y, target)
        layer.backward(cache, dy)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    def exponent(layer):
        peak(layer, 64)
        lengths = [64, 256, 1024]
        return np.polyfit(np.log(lengths), np.log([peak(layer, T) for T in lengths]), 1)[0]

    assert exponent(Checkpointed(model)) < 0.7 and exponent(model) > 0.9
    assert 10 * peak(Checkpointed(model), 1024) < peak(model, 1024)
