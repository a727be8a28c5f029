"""Loss, clipping, optimizer and loop."""
import numpy as np
import pytest

import minilstm
from helpers import same_bits


def test_mean_squared_error_is_the_mean_over_real_steps():
    y, target = np.array([[[1.0, 2], [3, 4]], [[5, 6], [7, 8]]]), np.zeros((2, 2, 2))
    mask = np.array([[True, False], [True, False]])
    loss, dy = minilstm.mean_squared_error(y, target, mask)
    assert loss == (1 + 4 + 25 + 36) / 4
    assert np.array_equal(dy, np.array([[[0.5, 1], [0, 0]], [[2.5, 3], [0, 0]]]))


def test_loss_of_nothing_is_zero():
    y = np.full((2, 3, 1), np.nan, "float32")
    loss, dy = minilstm.mean_squared_error(y, y, np.zeros((2, 3), bool))
    assert loss == 0 and dy.dtype == np.float32 and not dy.any()


@pytest.mark.parametrize("change, error, words", [
    ({"y": [1.0]}, TypeError, "y: expected a floating-point array .* got list"),
    ({"y": np.ones((2, 3))}, TypeError, r"y: expected a floating-point array \(B,T,F\), got float64 \(2, 3\)"),
    ({"target": np.ones((2, 3))}, ValueError, r"target: expected float64 \(2, 3, 1\), as y is, got float64 \(2, 3\)"),
    ({"target": np.ones((2, 3, 1), "float32")}, ValueError, "target: expected float64 .* got float32"),
    ({"mask": np.ones((2, 3))}, ValueError, r"mask: expected bool \(2, 3\), got float64 \(2, 3\)"),
    ({"mask": np.ones((3, 2), bool)}, ValueError, r"mask: expected bool \(2, 3\), got bool \(3, 2\)"),
])
def test_bad_loss_arguments_are_named(change, error, words):
    with pytest.raises(error, match=words):
        minilstm.mean_squared_error(**({"y": np.ones((2, 3, 1)), "target": np.ones((2, 3, 1))} | change))


def test_clipping_scales_all_gradients_by_one_factor():
    model = minilstm.Sequential(minilstm.Linear(2, 2, dtype="float64"), minilstm.Linear(2, 1, dtype="float64"))
    for _, layer in model.walk():
        for g in layer.grads.values():
            g[:] = 2.0
    assert minilstm.clip_global_norm(model, 3.0) == 6.0         # nine twos
    assert all((g == 1).all() for _, layer in model.walk() for g in layer.grads.values())
    assert minilstm.clip_global_norm(model, 3.5) == 3.0
    assert all((g == 1).all() for _, layer in model.walk() for g in layer.grads.values())


def test_clipping_refuses_what_is_not_finite_and_says_where():
    model = minilstm.Sequential(minilstm.Linear(2, 1))
    model.layers[0].grads["bias"][:] = np.nan
    with pytest.raises(FloatingPointError, match="nan; not finite: 0.bias"):
        minilstm.clip_global_norm(model, 1.0)
    with pytest.raises(ValueError, match="limit: expected a positive number, got 0"):
        minilstm.clip_global_norm(model, 0)


def test_first_step_of_adam_is_rate_long():
    """m / sqrt(v) is the sign of the gradient after the bias corrections."""
    net = minilstm.Linear(1, 3, dtype="float64")
    before = net.params["weight"]
    net.grads["weight"][:] = [[1e-3], [-5.0], [100.0]]
    minilstm.Adam(0.01).step(net)
    assert np.allclose(net.params["weight"] - before, [[-0.01], [0.01], [-0.01]], rtol=1e-4, atol=0)
    assert net.params["bias"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("options, words", [
    ({"rate": 0}, "rate: expected a positive"), ({"betas": (0.9, 1)}, "betas: expected two"),
    ({"betas": (0.9,)}, "betas: expected two"), ({"epsilon": -1}, "epsilon: expected a positive"),
])
def test_bad_adam_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        minilstm.Adam(**options)


def echo_task(rng, N=64, T=12):
    """Say at every step what was heard two steps before."""
    x = rng.choice([-1.0, 1.0], (N, T, 1)).astype("float32")
    target = np.zeros_like(x)
    target[:, 2:] = x[:, :-2]
    return x, target


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_fit_learns_what_needs_memory(backend):
    """Without memory the best possible loss is that of the mean, 10/12."""
    x, target = echo_task(np.random.default_rng(0))
    model = minilstm.Sequential(minilstm.LSTM(1, 16, backend=backend), minilstm.Linear(16, 1, backend=backend))
    history = minilstm.fit(model, x, target, epochs=60, optimizer=minilstm.Adam(0.02))
    assert len(history) == 60 and history[0] > 0.7 and history[-1] < 0.02


def test_fit_repeats_itself():
    x, target = echo_task(np.random.default_rng(1))
    results = []
    for _ in range(2):
        model = minilstm.Sequential(minilstm.LSTM(1, 8), minilstm.Linear(8, 1))
        history = minilstm.fit(model, x, target, epochs=3, batch_size=10, seed=5)
        results.append(model.state_dict() | {"history": np.array(history)})
    assert all(same_bits(results[0][name], results[1][name]) for name in results[0])


def test_fit_reports_the_mean_loss_of_all_sequences():
    """With a rate too small to move anything, it is the loss of the model: batches of 10, 10 and 4."""
    x, target = echo_task(np.random.default_rng(2), N=24)
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    expected, _ = minilstm.mean_squared_error(model.forward(x)[0], target)
    [found] = minilstm.fit(model, x, target, epochs=1, batch_size=10, optimizer=minilstm.Adam(1e-12))
    assert abs(found - expected) < 1e-6


def test_fit_stops_before_it_spoils_the_weights():
    x, target = echo_task(np.random.default_rng(3))
    target[7, 3] = np.nan
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        minilstm.fit(model, x, target, epochs=1)
    assert all(np.isfinite(p).all() for p in model.state_dict().values())


@pytest.mark.parametrize("change, words", [
    ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
    ({"batch_size": 2.5}, "batch_size: expected a positive integer, got 2.5"),
    ({"target": np.zeros((3, 12, 1), "float32")}, "target: expected 64 sequences, as x has"),
    ({"mask": np.ones((3, 12), bool)}, "mask: expected 64 sequences, as x has"),
    ({"x": np.zeros((0, 12, 1), "float32"), "target": np.zeros((0, 12, 1), "float32")}, "x: expected at least one"),
])
def test_bad_fit_arguments_are_named(change, words):
    x, target = echo_task(np.random.default_rng(4))
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    with pytest.raises(ValueError, match=words):
        minilstm.fit(model, **({"x": x, "target": target, "epochs": 1} | change))


def test_fit_draws_no_bar_where_there_is_no_terminal(capsys):
    x, target = echo_task(np.random.default_rng(5))
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    minilstm.fit(model, x, target, epochs=1)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
