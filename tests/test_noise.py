"""Dropout between layers, recurrent dropout, zoneout: what they do, that it repeats, and that gradients go through."""
import sys
import threading

import numpy as np
import pytest

import minilstm
from helpers import (KINDS, KINDS_AND_DTYPES, assert_close, between_backends, masks, random_batch, random_layer, run,
                     same_bits, states_of)
from minilstm.arrays import host
from minilstm.layers.layer import Counter

BACKENDS = ["reference", "cpu"]
ALL = {"dropout": 0.4, "recurrent_dropout": 0.3, "zoneout_h": 0.4, "zoneout_c": 0.2}


def noise_for(kind, **noise):
    """Those of the probabilities that the kind has."""
    return {name: p for name, p in noise.items() if name != "zoneout_c" or kind.startswith("LSTM")}


# ---------------------------------------------------------------------------------------------------------- gradients

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_one_draw(kind, bidirectional, backend):
    """Two layers, all kinds of noise at once, every mask; complex step to 1e-10."""
    rng = np.random.default_rng(1)
    net = random_layer(rng, kind, 2, 3, num_layers=2, bidirectional=bidirectional, backend=backend,
                       **noise_for(kind, **ALL))
    batch = random_batch(rng, net, B=3, T=4)
    for pattern, mask in masks(rng, 3, 4).items():
        report = minilstm.check_gradients(net, methods=("complex step",), max_entries=2, x=batch["x"], mask=mask,
                                          training=True, draw=3, **states_of(batch))
        assert report.ok, f"{pattern}\n{report}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_outside_training(kind, backend):
    """There zoneout mixes old and new."""
    rng = np.random.default_rng(2)
    net = random_layer(rng, kind, 2, 3, backend=backend, **noise_for(kind, zoneout_h=0.4, zoneout_c=0.2))
    batch = random_batch(rng, net, B=3, T=4)
    report = minilstm.check_gradients(net, methods=("complex step",), x=batch["x"], mask=masks(rng, 3, 4)["holes"],
                                      **states_of(batch))
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_cpu_equals_reference(kind, dtype, training):
    rng = np.random.default_rng(3)
    options = dict(dtype=dtype, num_layers=2, bidirectional=True, **noise_for(kind, **ALL))
    nets = [random_layer(np.random.default_rng(4), kind, 3, 5, backend=backend, **options) for backend in BACKENDS]
    batch = random_batch(rng, nets[0], B=7, T=5)
    for mask in masks(rng, 7, 5).values():
        expected, found = (run(net, batch, mask=mask, training=training) for net in nets)
        for name in expected:
            assert_close(found[name], expected[name], between_backends(kind, dtype), name)


# --------------------------------------------------------------------------------------------- what each of them does

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_dropout_takes_columns_out_of_U(kind, backend):
    """Each sequence runs alone as if its own columns of U were zero and the others larger, the same at every step."""
    rng = np.random.default_rng(5)
    p = 0.4
    net = random_layer(rng, kind, 3, 6, dtype="float64", backend=backend, recurrent_dropout=p)
    batch = random_batch(rng, net, B=5, T=6)
    found, _ = net.forward(batch["x"], training=True, draw=1, **states_of(batch))
    keep = net.noise.draw(np.ones((5, 6), bool), net.dtype, True, 1, host).keep(net.widths[0])
    assert set(np.unique(keep)) == {0, 1 / (1 - p)}, "some are dropped, some are kept"
    for b in range(5):
        alone = random_layer(rng, kind, 3, 6, dtype="float64", backend=backend)
        alone.load_state_dict(net.state_dict())
        alone.params["weight_hh_l0"] = net.params["weight_hh_l0"] * keep[b]
        expected, _ = alone.forward(batch["x"][b:b + 1], **{k: s[:, :, b:b + 1] for k, s in states_of(batch).items()})
        assert_close(found.y[b], expected.y[0], "same formulas, float64")


@pytest.mark.parametrize("backend", BACKENDS)
def test_zoneout_holds_units(backend):
    """In training each unit of h stays bit for bit, or becomes what the cell says; about p of them stay."""
    rng = np.random.default_rng(6)
    p = 0.3
    net = random_layer(rng, "RNN, tanh", 3, 50, backend=backend, dtype="float64", zoneout_h=p)
    batch = random_batch(rng, net, B=20, T=30)
    y = net.forward(batch["x"], h0=batch["h0"], training=True)[0].y
    before = np.concatenate([batch["h0"][0, 0][:, None], y[:, :-1]], axis=1)
    weights = [net.params[f"{name}_l0"] for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")]
    cell = np.tanh(batch["x"] @ weights[0].T + weights[1] + before @ weights[2].T + weights[3])
    stayed = y == before
    assert_close(y[~stayed], cell[~stayed], "same formulas, float64")
    assert abs(stayed.mean() - p) < 4 * np.sqrt(p * (1 - p) / y.size)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zoneout_of_c_leaves_h_to_the_fresh_memory(backend):
    """h = o * tanh(f * c_prev + i * g) with all of c new; only the c that is carried on has stayed (Krueger et al.)."""
    rng = np.random.default_rng(7)
    net = random_layer(rng, "LSTM", 3, 4, backend=backend, zoneout_c=0.5)
    plain = minilstm.LSTM(3, 4, backend=backend)
    plain.load_state_dict(net.state_dict())
    batch = random_batch(rng, net, B=9, T=1)
    noisy, _ = net.forward(batch["x"], h0=batch["h0"], c0=batch["c0"], training=True)
    clean, _ = plain.forward(batch["x"], h0=batch["h0"], c0=batch["c0"])
    assert same_bits(noisy.y, clean.y)
    stayed = noisy.c_n == batch["c0"]
    assert stayed.any() and not stayed.all() and same_bits(noisy.c_n[~stayed], clean.c_n[~stayed])


@pytest.mark.parametrize("backend", BACKENDS)
def test_outside_training_zoneout_is_its_mean(backend):
    rng = np.random.default_rng(8)
    net = random_layer(rng, "LSTM", 3, 4, backend=backend, zoneout_h=0.25, zoneout_c=0.5, dtype="float64")
    plain = minilstm.LSTM(3, 4, backend=backend, dtype="float64")
    plain.load_state_dict(net.state_dict())
    batch = random_batch(rng, net, B=9, T=1)
    states = states_of(batch)
    mean, _ = net.forward(batch["x"], **states)
    fresh, _ = plain.forward(batch["x"], **states)
    assert_close(mean.h_n, 0.25 * batch["h0"] + 0.75 * fresh.h_n, "same formulas, float64")
    assert_close(mean.c_n, 0.5 * batch["c0"] + 0.5 * fresh.c_n, "same formulas, float64")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_outside_training_dropout_is_absent(kind, dtype, backend):
    rng = np.random.default_rng(9)
    options = {"num_layers": 2, "dtype": dtype, "backend": backend}
    net = random_layer(rng, kind, 3, 4, dropout=0.5, recurrent_dropout=0.5, **options)
    plain = random_layer(rng, kind, 3, 4, **options)
    plain.load_state_dict(net.state_dict())
    batch = random_batch(rng, net, B=3, T=4)
    found, expected = run(net, batch), run(plain, batch)
    assert all(same_bits(found[name], expected[name]) for name in expected)
    trained = run(net, batch, training=True)
    assert not np.allclose(trained["y"], expected["y"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_between_layers(backend):
    """The second layer reads what is left of the first; the first, and the output of the second, are whole."""
    rng = np.random.default_rng(10)
    p = 0.2
    net = random_layer(rng, "GRU", 3, 20, num_layers=2, bidirectional=True, backend=backend, dropout=p)
    batch = random_batch(rng, net, B=10, T=9)
    mask = masks(rng, 10, 9)["holes"]
    out, _ = net.forward(batch["x"], mask, h0=batch["h0"], training=True, draw=5)
    factors = net.noise.draw(mask, net.dtype, True, 5, host).dropout(40)
    real = factors[mask]
    assert set(np.unique(real)) == {0, np.float32(1 / (1 - p))} and not factors[~mask].any()
    assert abs((real == 0).mean() - p) < 4 * np.sqrt(p * (1 - p) / real.size)
    one, two = (minilstm.GRU(D, 20, bidirectional=True, backend=backend) for D in (3, 40))
    state = net.state_dict()
    for layer, name in ((one, "l0"), (two, "l1")):
        layer.load_state_dict({key.replace(name, "l0"): p for key, p in state.items() if name in key})
    middle, _ = one.forward(batch["x"], mask, h0=batch["h0"][:1])
    top, _ = two.forward(middle.y * factors, mask, h0=batch["h0"][1:])
    assert same_bits(out.y, top.y)


# --------------------------------------------------------------------------------------------------- draws and streams

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_padding_changes_no_draw(kind, dtype, backend):
    """More masked steps, left, right and between, filled with NaN, and a further empty row: the same bits."""
    rng = np.random.default_rng(11)
    net = random_layer(rng, kind, 3, 4, num_layers=2, bidirectional=True, dtype=dtype, backend=backend,
                       **noise_for(kind, **ALL))
    batch = random_batch(rng, net, B=4, T=5)
    mask = masks(rng, 4, 5)["holes"]
    expected, _ = net.forward(batch["x"], mask, training=True, draw=0)
    slots = np.sort(rng.permutation(11)[:5])
    x, padded = np.full((5, 11, 3), np.nan, dtype), np.zeros((5, 11), bool)
    x[:4, slots], padded[:4, slots] = batch["x"], mask
    found, _ = net.forward(x, padded, training=True, draw=0)
    assert same_bits(found.y[:4, slots], expected.y)
    assert all(same_bits(a[:, :, :4], b) for a, b in zip(found[1:], expected[1:]))


def test_calls_differ_and_a_draw_repeats():
    rng = np.random.default_rng(12)
    net, again = (minilstm.LSTM(3, 4, num_layers=2, seed=3, **ALL) for _ in range(2))
    other = minilstm.LSTM(3, 4, num_layers=2, seed=4, **ALL)
    other.load_state_dict(net.state_dict())
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    calls = [net.forward(x, training=True)[0].y for _ in range(3)]
    assert not np.array_equal(calls[0], calls[1]) and not np.array_equal(calls[1], calls[2])
    for number in (2, 0, 1):
        assert same_bits(again.forward(x, training=True, draw=number)[0].y, calls[number])
    assert same_bits(again.forward(x, training=True)[0].y, calls[0]), "a draw by number does not count"
    assert not np.array_equal(other.forward(x, training=True)[0].y, calls[0])


def test_each_kind_has_its_own_stream():
    """Switching one kind on or off leaves the numbers of the others as they were."""
    mask = np.ones((4, 5), bool)
    everything = minilstm.LSTM(3, 4, num_layers=2, **ALL).noise.draw(mask, "float32", True, 0, host)
    arrays = {"dropout": everything.dropout(4), "recurrent_dropout": everything.keep(4),
              **dict(zip(("zoneout_h", "zoneout_c"), everything.zoneout((4, 4))))}
    for name, p in ALL.items():
        alone = minilstm.LSTM(3, 4, num_layers=2, **{name: p}).noise.draw(mask, "float32", True, 0, host)
        found = {"dropout": alone.dropout(4), "recurrent_dropout": alone.keep(4)}
        if name.startswith("zoneout"):
            found |= dict(zip(("zoneout_h", "zoneout_c"), alone.zoneout((4, 4))))
        assert same_bits(found[name], arrays[name])
        assert all(other is None or not other.any() for key, other in found.items() if key != name)


@pytest.mark.parametrize("noise", ALL)
def test_layers_directions_and_calls_draw_different_numbers(noise):
    rng = np.random.default_rng(14)
    net = minilstm.LSTM(3, 8, num_layers=3, bidirectional=True, **{noise: 0.5})
    x = rng.normal(size=(4, 5, 3)).astype("float32")
    drawn = []
    for _ in range(2):
        _, cache = net.forward(x, training=True)
        drawn += [factors for factors in cache.dropped if factors is not None]
        passes = [one for both in cache.runs for one in both]
        drawn += [one.weights.keep for one in passes if one.weights.keep is not None]
        drawn += [one.zone for one in passes if one.zone.size]
    assert len(drawn) == (4 if noise == "dropout" else 12)
    assert len({array.tobytes() for array in drawn}) == len(drawn)


def test_a_draw_of_a_model_repeats_even_with_a_layer_that_stands_in_it_twice():
    rng = np.random.default_rng(15)
    shared = minilstm.RNN(3, 3, zoneout_h=0.5)
    model = minilstm.Sequential(shared, minilstm.Linear(3, 3), shared, minilstm.Sequential(shared))
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    shared.forward(x, training=True)                    # a call of its own does not count in the model
    calls = [model.forward(x, training=True) for _ in range(3)]
    zones = [cache[k].runs[0][0].zone for _, cache in calls for k in (0, 2)]
    assert len({zone.tobytes() for zone in zones}) == len(zones)
    for number, (y, _) in enumerate(calls):
        assert same_bits(model.forward(x, training=True, draw=number)[0], y)


def test_threads_never_share_a_number():
    before = sys.getswitchinterval()
    counter, taken = Counter(), []
    threads = [threading.Thread(target=lambda: taken.extend([counter.take() for _ in range(3000)])) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(taken) == list(range(12000))


def test_training_repeats_and_uses_the_noise():
    rng = np.random.default_rng(13)
    x, target = rng.normal(size=(16, 6, 2)).astype("float32"), rng.normal(size=(16, 6, 1)).astype("float32")

    def history(**noise):
        model = minilstm.Sequential(minilstm.LSTM(2, 8, num_layers=2, **noise), minilstm.Linear(8, 1))
        return minilstm.fit(model, x, target, epochs=3, batch_size=8, progress=False)

    assert history(**ALL) == history(**ALL)
    for name, p in ALL.items():
        assert history(**{name: p}) != history()


@pytest.mark.parametrize("arguments, words", [
    ({"dropout": 1.0, "num_layers": 2}, "dropout: expected a probability, 0 or more and less than 1, got 1.0"),
    ({"recurrent_dropout": -0.1}, "recurrent_dropout: expected a probability"),
    ({"zoneout_h": float("nan")}, "zoneout_h: expected a probability, .* got nan"),
    ({"zoneout_c": "half"}, "zoneout_c: expected a probability, .* got 'half'"),
    ({"zoneout_c": True}, "zoneout_c: expected a probability, .* got True"),
    ({"dropout": 0.5}, "dropout: expected 0 with num_layers=1, since it acts between layers, got 0.5"),
])
def test_bad_probabilities_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        minilstm.LSTM(2, 3, **arguments)


def test_bad_draws_are_named():
    net, x = minilstm.LSTM(2, 3, zoneout_h=0.5), np.ones((1, 2, 2), "float32")
    with pytest.raises(ValueError, match="draw: expected None outside training, got 0"):
        net.forward(x, draw=0)
    with pytest.raises(ValueError, match="draw: expected an integer, 0 or more, got -1"):
        net.forward(x, training=True, draw=-1)
    for layer in (net, minilstm.Sequential(minilstm.Linear(2, 3))):
        with pytest.raises(TypeError, match="training: expected True or False, got 1"):
            layer.forward(x, training=1)
        with pytest.raises(ValueError, match="draw: expected an integer, 0 or more, got 0.5"):
            layer.forward(x, training=True, draw=0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_unit_that_stays_stays_beside_one_that_overflows(backend):
    net = minilstm.RNN(1, 4, activation="relu", zoneout_h=0.5, backend=backend)
    net.params["weight_ih_l0"] = np.full((4, 1), 3e38, "float32")
    h0 = np.ones((1, 1, 3, 4), "float32")
    with np.errstate(over="ignore", invalid="ignore"):
        y = net.forward(np.full((3, 1, 1), 100, "float32"), h0=h0, training=True, draw=1)[0].y
    assert set(y.ravel()) == {1, np.inf}
