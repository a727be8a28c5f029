"""Loss, clipping, optimizer and loop."""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, same_bits


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
    ({"y": np.ones(3)}, TypeError, r"y: expected a floating-point array \(B,T,F\) or \(B,F\), got float64 \(3,\)"),
    ({"target": np.ones((2, 3))}, ValueError, r"target: expected float64 \(2, 3, 1\), as y is, got float64 \(2, 3\)"),
    ({"target": np.ones((2, 3, 1), "float32")}, ValueError, "target: expected float64 .* got float32"),
    ({"mask": np.ones((2, 3))}, ValueError, r"mask: expected bool \(2, 3\), got float64 \(2, 3\)"),
    ({"mask": np.ones((3, 2), bool)}, ValueError, r"mask: expected bool \(2, 3\), got bool \(3, 2\)"),
])
def test_bad_loss_arguments_are_named(change, error, words):
    with pytest.raises(error, match=words):
        minilstm.mean_squared_error(**({"y": np.ones((2, 3, 1)), "target": np.ones((2, 3, 1))} | change))


@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_softmax_cross_entropy_and_its_gradient(shape):
    """Against the formula, and against differences of the loss; NaN and no class at masked places are not read."""
    rng = np.random.default_rng()
    y, target, mask = rng.normal(size=(*shape, 6)) * 3, rng.integers(0, 6, shape), rng.random(shape) < 0.6
    mask.flat[:2] = True, False
    chances = np.exp(y) / np.exp(y).sum(axis=-1, keepdims=True)
    expected = -np.log(np.take_along_axis(chances, target[..., None], axis=-1)[..., 0])[mask].mean()
    direction, step = rng.normal(size=y.shape) * mask[..., None], 1e-5
    ahead, behind = (minilstm.softmax_cross_entropy(y + s * direction, target, mask)[0] for s in (step, -step))
    y[~mask], target[~mask] = np.nan, 99
    loss, dy = minilstm.softmax_cross_entropy(y, target, mask)
    assert abs(loss - expected) < 1e-12 and not dy[~mask].any()
    assert abs((dy * direction).sum() - (ahead - behind) / (2 * step)) < 1e-8
    assert np.allclose(dy.sum(axis=-1), 0, atol=1e-15)


def test_softmax_cross_entropy_far_out_and_of_nothing():
    y = np.array([[3e38, -3e38], [-500, 500]], "float32")
    loss, dy = minilstm.softmax_cross_entropy(y, np.array([0, 0]))
    assert loss == 500 and dy.tolist() == [[0, 0], [-0.5, 0.5]] and dy.dtype == np.float32
    loss, dy = minilstm.softmax_cross_entropy(np.full_like(y, np.nan), np.array([7, 7]), np.zeros(2, bool))
    assert loss == 0 and not dy.any()


@pytest.mark.peers
def test_softmax_cross_entropy_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng()
    y, target, mask = rng.normal(size=(3, 4, 5)), rng.integers(0, 5, (3, 4)), rng.random((3, 4)) < 0.7
    mask[0, 0] = True
    loss, dy = minilstm.softmax_cross_entropy(y, target, mask)
    y_torch = torch.tensor(y, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(y_torch[torch.tensor(mask)], torch.tensor(target)[torch.tensor(mask)])
    expected.backward()
    assert_close(loss, expected.item(), "pytorch, float64")
    assert_close(dy, y_torch.grad.numpy(), "pytorch, float64")


@pytest.mark.parametrize("change, words", [
    ({"target": np.zeros((2, 3))}, r"target: expected integers \(2, 3\), classes from 0 to 3, got float64 \(2, 3\)"),
    ({"target": np.zeros((3, 2), int)}, r"target: expected integers \(2, 3\), .* got int64 \(3, 2\)"),
    ({"target": np.full((2, 3), 4)}, r"target: expected classes from 0 to 3, got 4 in place \(0, 0\)"),
    ({"target": np.array([[0, 0, 0], [0, -1, 0]])}, r"target: expected classes from 0 to 3, got -1 in place \(1, 1\)"),
    ({"mask": np.ones((2, 3))}, r"mask: expected bool \(2, 3\), got float64 \(2, 3\)"),
])
def test_bad_classes_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        minilstm.softmax_cross_entropy(**({"y": np.ones((2, 3, 4)), "target": np.zeros((2, 3), int)} | change))


def test_clipping_scales_all_gradients_by_one_factor():
    model = minilstm.Sequential(minilstm.Linear(2, 2, dtype="float64"), minilstm.Linear(2, 1, dtype="float64"))
    for _, layer in model.walk():
        for g in layer.grads.values():
            g[:] = 2.0
    assert minilstm.clip_global_norm(model, 3.0) == (6.0, 0.5)          # nine twos
    assert all((g == 1).all() for _, layer in model.walk() for g in layer.grads.values())
    assert minilstm.clip_global_norm(model, 3.5) == (3.0, 1.0)
    assert all((g == 1).all() for _, layer in model.walk() for g in layer.grads.values())


def test_clipping_refuses_what_is_not_finite_and_says_where():
    model = minilstm.Sequential(minilstm.Linear(2, 1))
    model.layers[0].grads["bias"][:] = np.nan
    with pytest.raises(FloatingPointError, match="nan; not finite: 0.bias"):
        minilstm.clip_global_norm(model, 1.0)
    with pytest.raises(ValueError, match="limit: expected a positive number, got 0"):
        minilstm.clip_global_norm(model, 0)


def test_a_step_that_cannot_be_taken_moves_nothing():
    model = minilstm.Sequential(minilstm.Linear(2, 2), minilstm.Linear(2, 1))
    model.layers[0].grads["weight"][:] = 1
    before, optimizer = model.layers[0].state_dict(), minilstm.Adam()
    model.layers[1].params["weight"] = np.zeros((3, 3), "float32")
    with pytest.raises(ValueError, match="params"):
        optimizer.step(model)
    assert optimizer.t == 0 and all(same_bits(p, before[name]) for name, p in model.layers[0].state_dict().items())


def test_a_parameter_that_nobody_has_is_named():
    net = minilstm.LSTM(1, 2)
    net.params["weight_ih"] = net.params["weight_ih_l0"]
    with pytest.raises(ValueError, match="params: expected weight_ih_l0, .* got .*, weight_ih$"):
        net.forward(np.ones((1, 2, 1), "float32"))


def test_first_step_of_adam_is_rate_long():
    """m / sqrt(v) is the sign of the gradient after the bias corrections."""
    net = minilstm.Linear(1, 3, dtype="float64")
    before = net.params["weight"]
    net.grads["weight"][:] = [[1e-3], [-5.0], [100.0]]
    minilstm.Adam(0.01).step(net)
    assert np.allclose(net.params["weight"] - before, [[-0.01], [0.01], [-0.01]], rtol=1e-4, atol=0)
    assert net.params["bias"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("options, words", [
    ({"rate": 0}, "rate: expected a positive"), ({"betas": (0.9, 1)}, "betas: expected a probability"),
    ({"betas": (0.9,)}, "betas: expected two"),
    ({"betas": 5}, "betas: expected two"), ({"epsilon": -1}, "epsilon: expected a positive"),
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


def test_fit_learns_classes():
    """Integers as target: at every step, or one for a sequence that is pooled."""
    rng = np.random.default_rng(13)
    x = rng.normal(size=(40, 5, 2)).astype("float32")
    steps = (x[:, :, 0] > x[:, :, 1]).astype(int)
    for target, pooling in ((steps, ()), (steps[:, -1], (minilstm.Pooling("last", backend="reference"),))):
        model = minilstm.Sequential(*pooling, minilstm.Linear(2, 2, backend="reference"))
        history = minilstm.fit(model, x, target, epochs=30, optimizer=minilstm.Adam(0.1),
                               loss=minilstm.softmax_cross_entropy)
        assert history[-1] < 0.2 * history[0]


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
    with pytest.raises(FloatingPointError, match="epoch 1, sequences .*7.*: the loss is nan"):
        minilstm.fit(model, x, target, epochs=1)
    assert all(np.isfinite(p).all() for p in model.state_dict().values())


@pytest.mark.parametrize("change, error, words", [
    ({"epochs": 0}, ValueError, "epochs: expected a positive integer, got 0"),
    ({"batch_size": 2.5}, ValueError, "batch_size: expected a positive integer, got 2.5"),
    ({"seed": -1}, ValueError, "seed: expected an integer, 0 or more, got -1"),
    ({"x": [1.0]}, TypeError, "x: expected a NumPy array, got list"),
    ({"target": None}, TypeError, "target: expected a NumPy array, got NoneType"),
    ({"mask": np.ones((64, 12))}, TypeError, r"mask: expected a NumPy array of bool, got float64 \(64, 12\)"),
    ({"target": np.zeros((3, 12, 1), "float32")}, ValueError, r"target: expected 3 axes, \(N,T,...\), .* as in x, got"),
    ({"mask": np.ones((3, 12), bool)}, ValueError, r"mask: expected 2 axes, \(N,T\), .* as in x, got bool \(3, 12\)"),
    ({"loss_mask": np.ones((64, 9), bool)}, ValueError, r"loss_mask: expected .* got bool \(64, 9\)"),
    ({"mask": np.ones((64, 12, 1), bool)}, ValueError, r"mask: expected 2 axes, \(N,T\), .* got bool \(64, 12, 1\)"),
    ({"x": np.zeros((0, 12, 1), "float32")}, ValueError, "x: expected .* with N > 0"),
])
def test_bad_fit_arguments_are_named(change, error, words):
    x, target = echo_task(np.random.default_rng(4))
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    with pytest.raises(error, match=words):
        minilstm.fit(model, **({"x": x, "target": target, "epochs": 1} | change))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_fit_reports_the_mean_over_all_real_steps(batch_size):
    """Whatever the batches, with ragged rows and an empty one; the rate is too small to move anything."""
    rng = np.random.default_rng(6)
    x, target = echo_task(rng, N=8)
    mask = np.arange(12) < np.array([12, 1, 0, 3, 7, 12, 2, 5])[:, None]
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    expected, _ = minilstm.mean_squared_error(model.forward(x, mask)[0], target, mask)
    [found] = minilstm.fit(model, x, target, mask, epochs=1, batch_size=batch_size, optimizer=minilstm.Adam(1e-12))
    assert abs(found - expected) < 1e-6


def test_fit_gives_the_model_the_mask():
    """Holes that hold rubbish would be read without it, by a causal layer too."""
    rng = np.random.default_rng(7)
    x, target = echo_task(rng, N=8)
    mask = rng.random((8, 12)) < 0.6
    trained = []
    for rubbish in (0.0, 5.0, np.nan):
        model = minilstm.Sequential(minilstm.Linear(1, 3), minilstm.LSTM(3, 4), minilstm.Linear(4, 1))
        minilstm.fit(model, np.where(mask[:, :, None], x, np.float32(rubbish)), target, mask, epochs=2, batch_size=4)
        trained.append(model.state_dict())
    assert all(same_bits(other[name], trained[0][name]) for other in trained[1:] for name in trained[0])


def test_padding_does_not_count_where_a_loss_mask_is_given_too():
    x, target = echo_task(np.random.default_rng(8), N=8)
    warm_up = np.ones((8, 12), bool)
    warm_up[:, :4] = False
    histories = []
    for more in (0, 5):
        pad = ((0, 0), (0, more), (0, 0))
        mask = np.pad(np.ones((8, 12), bool), pad[:2])
        model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
        histories.append(minilstm.fit(model, np.pad(x, pad, constant_values=np.nan), np.pad(target, pad), mask,
                                      loss_mask=np.pad(warm_up, pad[:2], constant_values=True), epochs=2))
    assert np.allclose(histories[0], histories[1], rtol=1e-5, atol=0)


def test_a_nested_model_gets_the_mask():
    rng = np.random.default_rng(9)
    lstm, linear = minilstm.LSTM(1, 4), minilstm.Linear(4, 1)
    x, mask = rng.normal(size=(3, 6, 1)).astype("float32"), rng.random((3, 6)) < 0.6
    flat, nested = minilstm.Sequential(lstm, linear), minilstm.Sequential(minilstm.Sequential(lstm), linear)
    assert same_bits(nested.forward(x, mask)[0], flat.forward(x, mask)[0])
    assert list(nested.state_dict())[0] == "0.0.weight_ih_l0"


def test_fit_clips():
    """With a limit so small that Adam's epsilon outweighs the gradient, nothing moves."""
    x, target = echo_task(np.random.default_rng(10), N=8)
    moved = {}
    for limit in (1e-15, 1.0, None):
        model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
        before = model.state_dict()
        minilstm.fit(model, x, target, epochs=1, clip_norm=limit)
        moved[limit] = max(np.abs(p - before[name]).max() for name, p in model.state_dict().items())
    assert moved[1e-15] < 1e-6 and moved[1.0] > 1e-4 and moved[None] > 1e-4


def test_fit_shuffles_anew_in_every_epoch():
    """A model that notes what it is given; three epochs, three orders, each sequence once an epoch."""
    class Noting(minilstm.Linear):
        def forward(self, x):
            seen.extend(x[:, 0, 0].astype(int).tolist())
            return super().forward(x)

    seen = []
    x = np.arange(20, dtype="float32").reshape(20, 1, 1)
    minilstm.fit(Noting(1, 1), x, x, epochs=3, batch_size=6)
    orders = [tuple(seen[k:k + 20]) for k in (0, 20, 40)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({*orders, tuple(range(20))}) == 4


def test_fit_takes_a_recurrent_layer_alone():
    x, target = echo_task(np.random.default_rng(11))
    history = minilstm.fit(minilstm.GRU(1, 1), x, target, epochs=2, optimizer=minilstm.Adam(0.1))
    assert history[1] < history[0]


def test_a_gradient_that_is_not_finite_stops_fit_even_without_clipping():
    """The loss does not see the step, the weights would."""
    x, target = echo_task(np.random.default_rng(12), N=4)
    x[1, 11] = np.nan
    counts = np.ones((4, 12), bool)
    counts[1] = False
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    before = model.state_dict()
    with pytest.raises(FloatingPointError, match="epoch 1, sequences .*: the norm .* is nan; not finite: 0"):
        minilstm.fit(model, x, target, loss_mask=counts, epochs=1, clip_norm=None)
    assert all(same_bits(p, before[name]) for name, p in model.state_dict().items())


def test_two_steps_of_adam_by_hand():
    net = minilstm.Linear(1, 1, bias=False, dtype="float64")
    net.params["weight"] = np.array([[1.0]])
    optimizer = minilstm.Adam(np.float64(0.1), betas=(0.5, 0.75))
    for g in (2.0, -1.0):
        net.grads["weight"][:] = g
        optimizer.step(net)
    first = 1 - 0.1 * 2 / 2                                         # m = 1, v = 1; corrected 2 and 4
    m, v = (0.5 * 1 - 0.5 * 1) / 0.75, (0.75 * 1 + 0.25 * 1) / (1 - 0.75 ** 2)
    assert abs(net.params["weight"][0, 0] - (first - 0.1 * m / np.sqrt(v))) < 1e-8


def test_adam_keeps_the_dtype_and_its_model():
    net, other = minilstm.Linear(2, 1), minilstm.Linear(2, 1)
    optimizer = minilstm.Adam(np.float64(0.1), epsilon=np.float64(1e-8))
    net.grads["weight"][:] = 1
    optimizer.step(net)
    assert net.params["weight"].dtype == np.float32
    with pytest.raises(ValueError, match="model: expected the one of the first step"):
        optimizer.step(other)


def test_fit_draws_no_bar_where_there_is_no_terminal(capsys):
    x, target = echo_task(np.random.default_rng(5))
    model = minilstm.Sequential(minilstm.LSTM(1, 4), minilstm.Linear(4, 1))
    minilstm.fit(model, x, target, epochs=1)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""
