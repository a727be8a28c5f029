"""Layers on a GPU: the same numbers, the same promises and the same errors as anywhere."""
import copy
import pickle

import numpy as np
import pytest

import minilstm
from helpers import assert_close, random_batch, random_layer, same_bits, states_of
from minilstm import device
from test_layers import BAD_FORWARD, X


def run(net, batch, **options):
    """Forward and backward from zero gradients -> dict of every output, state and gradient, NumPy's."""
    out, cache = net.forward(batch["x"], **states_of(batch), **options)
    net.zero_grads()
    gradients = net.backward(cache, **{name: d for name, d in batch.items() if name.startswith("d")})
    found = out._asdict() | gradients._asdict() | {"d " + name: g for name, g in net.grads.items()}
    return {name: np.asarray(array) for name, array in found.items()}


def by_definition(net):
    """The same layer in float64 on the reference backend."""
    twin = net.astype("float64")
    assert twin.backend == "cpu"
    for part in (twin, *twin.children().values()):
        part.backend = "reference"
    return twin


def in_float64(batch):
    return {name: a.astype("float64") for name, a in batch.items()}


HOLES = np.array([[True, False, True], [True, True, True], [False, False, False]])


@pytest.mark.parametrize("kind, options, masked_output, mask", [
    ("LSTM", {"num_layers": 2, "bidirectional": True}, "hold", HOLES),
    ("GRU", {"bidirectional": True, "merge": "mul"}, "zero", HOLES),
    ("RNN, tanh", {"bidirectional": True, "merge": "ave"}, "hold", None),
    ("LSTM, peepholes", {"reverse": True}, "zero", HOLES),
    ("GRU", {"num_layers": 2, "bidirectional": True, "merge": "sum"}, "zero", None),
], ids=str)
def test_every_output_and_gradient_is_that_of_reference(gpu, kind, options, masked_output, mask):
    """With initial states, gradients of all outputs, and NaN at masked steps."""
    rng = np.random.default_rng()
    net = random_layer(rng, kind, 2, 3, backend="gpu", **options)
    batch = random_batch(rng, net, B=3, T=3)
    expected = run(by_definition(net), in_float64(batch), mask=mask, masked_output=masked_output)
    if mask is not None:
        batch["x"][~mask] = np.nan
        if masked_output == "zero":
            batch["dy"][~mask] = np.nan
    found = run(net, batch, mask=mask, masked_output=masked_output)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], "same formulas, float32", f"{kind}: {name}")
    if gpu.name != "simulator":
        again = run(net, batch, mask=mask, masked_output=masked_output)
        assert all(same_bits(again[name], found[name]) for name in found)


@pytest.mark.parametrize("leading", [(), (3,), (2, 0), (2, 1, 2)], ids=str)
def test_linear_takes_any_leading_axes(gpu, leading):
    rng = np.random.default_rng()
    for bias in (True, False):
        net = minilstm.Linear(3, 2, bias=bias, backend="gpu")
        twin = by_definition(net)
        x, dy = (rng.normal(size=(*leading, n)).astype("float32") for n in (3, 2))
        (y, cache), (expected, twins_cache) = net.forward(x), twin.forward(x.astype("float64"))
        dx, expected_dx = net.backward(cache, dy), twin.backward(twins_cache, dy.astype("float64"))
        assert_close(y, expected, "same formulas, float32")
        assert_close(dx, expected_dx, "same formulas, float32")
        for name, g in net.grads.items():
            assert_close(g, twin.grads[name], "same formulas, float32", name)


def a_model(**options):
    return minilstm.Sequential(minilstm.LSTM(2, 3, seed=1, **options), minilstm.Linear(3, 2, seed=2, **options))


def test_a_model_of_layers(gpu):
    """One mask for all, NaN where it hides; without a cache y is the same."""
    rng = np.random.default_rng()
    model = a_model(backend="gpu")
    twin = by_definition(model)
    x, dy = rng.normal(size=(3, 3, 2)).astype("float32"), rng.normal(size=(3, 3, 2)).astype("float32")
    expected, twins_cache = twin.forward(x.astype("float64"), HOLES)
    expected_dx = twin.backward(twins_cache, dy.astype("float64"))
    x[~HOLES] = np.nan
    y, cache = model.forward(x, HOLES)
    dx = model.backward(cache, dy)
    assert isinstance(y, device.DeviceArray) and isinstance(dx, device.DeviceArray)
    assert_close(y, expected, "same formulas, float32")
    assert_close(dx, expected_dx, "same formulas, float32")
    for (_, layer), (_, twins) in zip(model.walk(), twin.walk()):
        for name, g in layer.grads.items():
            assert_close(g, twins.grads[name], "same formulas, float32", name)
    found, nothing = model.forward(x, device.to_device(HOLES), cache=False)
    assert nothing is None and same_bits(found, y)


def test_an_infinite_input_counts_as_nan(gpu):
    net = minilstm.RNN(1, 2, backend="gpu")
    x, h0 = np.ones((3, 2, 1), "float32"), np.zeros((1, 1, 3, 2), "float32")
    x[0, 0], h0[0, 0, 1:] = np.inf, -np.inf
    mask = np.array([[True, True], [True, True], [False, False]])
    y = np.asarray(net.forward(x, mask, h0)[0].y)
    assert np.isnan(y[:2]).all() and not y[2].any()


def test_dropout_between_layers_draws_what_the_processor_draws(gpu):
    rng = np.random.default_rng()
    net = random_layer(rng, "RNN, tanh", 2, 3, num_layers=2, dropout=0.4, backend="gpu")
    batch = random_batch(rng, net, B=3, T=3)
    options = {"mask": HOLES, "training": True, "draw": 5}
    found, expected = run(net, batch, **options), run(by_definition(net), in_float64(batch), **options)
    for name in expected:
        assert_close(found[name], expected[name], "same formulas, float32", name)


@pytest.mark.parametrize("B, T", [(0, 2), (2, 0)])
def test_nothing_to_do_is_legal(gpu, B, T):
    rng = np.random.default_rng()
    net = random_layer(rng, "LSTM", 2, 3, bidirectional=True, backend="gpu")
    batch = random_batch(rng, net, B, T)
    found = run(net, batch)
    assert found["y"].shape == (B, T, 6) and same_bits(found["h_n"], batch["h0"])
    assert same_bits(found["dc0"], batch["dc_n"]) and not any(found["d " + name].any() for name in net.params)


# ----------------------------------------------------------------------------------------------------- what is promised

@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_cache_stays_true(gpu, on_gpu):
    """Whatever happens between forward and backward: changed inputs and outputs, new weights, other calls."""
    rng = np.random.default_rng()
    net = random_layer(rng, "LSTM", 2, 3, backend="gpu")
    batch = random_batch(rng, net, B=2, T=3)
    mask = HOLES[:2]
    expected = run(net, batch, mask=mask)
    place = device.to_device if on_gpu else np.copy
    mine = {name: place(a) for name, a in batch.items()}
    out, cache = net.forward(mine["x"], mask=mask, h0=mine["h0"], c0=mine["c0"])
    for array in (mine["x"], mine["h0"], mine["c0"], *out):
        if isinstance(array, np.ndarray):
            array[:] = 7
        else:
            device.elementwise.fill(array, 7)
    net.zero_grads()
    for name, p in net.params.items():
        net.params[name] = np.ones(p.shape, "float32")
    net.forward(batch["x"])
    dx, dh0, dc0 = net.backward(cache, batch["dy"], batch["dh_n"], batch["dc_n"])
    found = {"dx": dx, "dh0": dh0, "dc0": dc0} | {"d " + name: g for name, g in net.grads.items()}
    assert all(same_bits(d, expected[name]) for name, d in found.items())


def test_gradients_add_up_and_are_cleared_without_a_launch(gpu):
    rng = np.random.default_rng()
    shared = minilstm.Linear(2, 2, backend="gpu")
    model = minilstm.Sequential(shared, shared)
    x, dy = (rng.normal(size=(3, 2)).astype("float32") for _ in range(2))
    twin = by_definition(model)
    for net, kind in ((model, "float32"), (twin, "float64")):
        for _ in range(2):
            _, cache = net.forward(x.astype(kind))
            net.backward(cache, dy.astype(kind))
    for name, g in shared.grads.items():
        assert_close(g, twin.layers[0].grads[name], "same formulas, float32", name)
    launched = len(gpu.launched) if gpu.name == "simulator" else 0
    model.zero_grads()
    assert gpu.name != "simulator" or len(gpu.launched) == launched
    assert not any(np.asarray(g).any() for g in shared.grads.values())


def test_state_dict_is_numpys_and_goes_both_ways(gpu):
    one, two = a_model(backend="gpu"), a_model(backend="cpu")
    state = one.state_dict()
    assert all(isinstance(p, np.ndarray) and same_bits(p, two.state_dict()[name]) for name, p in state.items())
    state["1.bias"][:] = 3
    assert not one.layers[1].params["bias"].copy_to_host().any(), "the layer keeps its own"
    one.load_state_dict(state)
    assert same_bits(one.state_dict()["1.bias"], state["1.bias"])
    with pytest.raises(ValueError, match=r"state\['1.bias'\]: expected a NumPy array float32 \(2,\), got float32 \(3,"):
        one.load_state_dict(state | {"1.bias": np.zeros(3, "float32")})


def test_a_parameter_put_in_place_is_checked_and_copied_when_used(gpu):
    net, x = minilstm.Linear(2, 2, backend="gpu"), np.ones((1, 2), "float32")
    mine = np.eye(2, dtype="float32")
    net.params["weight"] = mine
    assert same_bits(net.forward(x)[0], x)
    mine[:] = 5
    assert same_bits(net.forward(x)[0], x) and isinstance(net.params["weight"], device.DeviceArray)
    net.params["weight"] = device.to_device(mine)
    assert same_bits(net.forward(x)[0], 10 * x)
    for wrong, error in ((np.ones((2, 3), "float32"), ValueError), (np.ones((2, 2)), TypeError), ([[1]], TypeError)):
        net.params["weight"] = wrong
        with pytest.raises(error, match=r"params\['weight'\]: expected a NumPy array float32 \(2, 2\), got"):
            net.forward(x)


def test_copies_of_a_layer_are_layers_of_their_own(gpu, tmp_path):
    """By copy, pickle, astype and file."""
    net = random_layer(np.random.default_rng(), "GRU", 2, 3, backend="gpu")
    x = np.ones((1, 2, 2), "float32")
    expected, state = np.asarray(net.forward(x)[0].y), net.state_dict()
    minilstm.save(tmp_path / "net", net)
    others = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.astype("float32"),
              minilstm.load(tmp_path / "net", backend="gpu")]
    net.load_state_dict({name: np.zeros_like(p) for name, p in state.items()})
    for other in others:
        assert other.backend == "gpu" and same_bits(other.forward(x)[0].y, expected)
    other = minilstm.load(tmp_path / "net", backend="reference")
    assert_close(other.forward(x)[0].y, expected, "same formulas, float32")
    assert net.astype("complex128").backend == "reference"


# --------------------------------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize("name", BAD_FORWARD)
def test_bad_input_is_named(gpu, name):
    arguments, error, words = BAD_FORWARD[name]
    with pytest.raises(error, match=words):
        minilstm.LSTM(3, 4, backend="gpu").forward(**({"x": X} | arguments))


@pytest.mark.parametrize("x, mask, error, words", [
    (np.ones((2, 5), "int32"), None, TypeError, r"x: expected float32 \(B, T, D=3\), got int32 .*on the GPU$"),
    (np.ones((2, 5, 2), "float32"), None, ValueError, r"x: expected float32 \(B, T, D=3\), got .*\(2, 5, 2\) on the"),
    (X, np.ones((2, 5), "float32"), TypeError, r"mask: expected a bool array .* got float32 \(2, 5\) on the GPU"),
    (X, np.ones((5, 2), bool), ValueError, r"mask: expected shape \(B=2, T=5\), as x has, got \(5, 2\)"),
])
def test_bad_arrays_on_the_gpu_are_named(gpu, x, mask, error, words):
    mask = mask if mask is None else device.to_device(mask)
    with pytest.raises(error, match=words):
        minilstm.LSTM(3, 4, backend="gpu").forward(device.to_device(x), mask)


def test_what_a_gpu_does_not_do_is_said(gpu):
    x = np.ones((1, 2, 2), "float32")
    for net in (minilstm.LSTM(2, 3, layer_norm=True, backend="gpu"), minilstm.GRU(2, 3, zoneout_h=0.5, backend="gpu")):
        with pytest.raises(ValueError, match="'gpu'.*'cpu' computes it"):
            net.forward(x)
    for make, words in (
        (lambda: minilstm.LSTM(2, 3, dtype="float64", backend="gpu"), "dtype: expected 'float32' with backend='gpu', "),
        (lambda: minilstm.Sequential(minilstm.RNN(2, 3, backend="gpu"), minilstm.Linear(3, 1)),
         r"layers: expected all of them on the GPU or none, got \['gpu', 'cpu'\]"),
        (lambda: minilstm.GRUD(2, 3, backend="gpu"), "backend: expected one of 'reference', 'cpu', got 'gpu'"),
        (lambda: minilstm.Conditioned("film", 2, 3, 4, backend="gpu"), "backend: expected one of 'reference', 'cpu', "),
        (lambda: minilstm.Embedding(2, 3, backend="gpu"), "backend: expected one of 'reference', 'cpu', got 'gpu'"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    with pytest.raises(TypeError, match=r"x: expected a plain NumPy array .* on the GPU; np.asarray\(x\) copies it"):
        minilstm.Linear(2, 1).forward(device.to_device(x))


def test_without_a_gpu_a_layer_says_so():
    try:
        device.current()
    except device.NoGPU:
        with pytest.raises(device.NoGPU, match="'cpu' and 'reference' need no GPU"):
            minilstm.LSTM(3, 4, backend="gpu")
    else:
        pytest.skip("there is a GPU")
