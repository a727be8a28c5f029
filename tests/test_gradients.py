"""Every hand-written gradient against the complex step, central differences and random projections."""
import numpy as np
import pytest

import minilstm
from helpers import KINDS, assert_close, long_unless, masks, random_batch, random_layer, random_lstm, run, states_of
from minilstm import check_gradients
from minilstm.cells import lstm

BACKENDS = ["reference", "cpu"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_under_every_mask(kind, num_layers, bidirectional, backend):
    """All of x, h0, c0, weights and biases, with dy, dh_n and dc_n random; complex step to 1e-10, in float64.

    (Differences, and every single number, which take longer, are in the tests below.)"""
    rng = np.random.default_rng(1)
    net = random_layer(rng, kind, 2, 3, num_layers=num_layers, bidirectional=bidirectional, backend=backend)
    batch = random_batch(rng, net, B=3, T=4)
    for pattern, mask in masks(rng, 3, 4).items():
        report = check_gradients(net, methods=("complex step",), max_entries=3, x=batch["x"], mask=mask,
                                 **states_of(batch))
        assert report.ok, f"{pattern}\n{report}"
        assert [row.name for row in report.rows] == ["x", *states_of(batch), *net.params]


@pytest.mark.parametrize("bidirectional, backend", [(True, "reference"), *(
    long_unless(False, *others) for others in ((True, "cpu"), (False, "reference"), (False, "cpu")))])
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_one_layer(kind, bidirectional, backend):
    rng = np.random.default_rng(2)
    net = random_layer(rng, kind, 2, 3, bidirectional=bidirectional, backend=backend)
    batch = random_batch(rng, net, B=3, T=4)
    for pattern in ("none", "right", "left", "holes"):
        methods = ("complex step", "central", "projection") if pattern == "holes" else ("complex step", "projection")
        report = check_gradients(net, methods=methods, x=batch["x"], mask=masks(rng, 3, 4)[pattern],
                                 **states_of(batch))
        assert report.ok, f"\n{report}"
        assert all(row.largest > 1e-3 for row in report.rows), f"a gradient that is zero proves nothing\n{report}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_held_outputs_and_two_layers(backend):
    rng = np.random.default_rng(2)
    net = random_lstm(rng, 3, 2, num_layers=2, bidirectional=True, backend=backend)
    batch = random_batch(rng, net, B=3, T=5)
    mask = masks(rng, 3, 5)["holes"]
    report = check_gradients(net, x=batch["x"], h0=batch["h0"], c0=batch["c0"], mask=mask, masked_output="hold")
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("D, H, B, T", [(1, 1, 1, 1), (1, 3, 2, 1), (5, 1, 2, 3), (2, 17, 1, 3), (3, 8, 9, 2)])
def test_odd_sizes(D, H, B, T):
    """Single rows, steps and units; more units than a panel is wide; more rows than a block is high."""
    rng = np.random.default_rng(3)
    net = random_lstm(rng, D, H)
    batch = random_batch(rng, net, B, T)
    report = check_gradients(net, x=batch["x"], h0=batch["h0"], c0=batch["c0"], max_entries=40)
    assert report.ok, f"\n{report}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
def test_linear(shape, backend):
    rng = np.random.default_rng(4)
    report = check_gradients(minilstm.Linear(3, 5, backend=backend), x=rng.normal(size=shape))
    assert report.ok, f"\n{report}"


def test_model_of_several_layers():
    rng = np.random.default_rng(5)
    model = minilstm.Sequential(random_lstm(rng, 2, 3), minilstm.Linear(3, 2))
    mask = masks(rng, 3, 4)["right"]
    report = check_gradients(model, x=rng.normal(size=(3, 4, 2)), mask=mask)
    assert report.ok, f"\n{report}"
    assert [row.name for row in report.rows] == ["x", "0.weight_ih_l0", "0.weight_hh_l0", "0.bias_ih_l0",
                                                 "0.bias_hh_l0", "1.weight", "1.bias"]


def test_mean_squared_error_gradient():
    rng = np.random.default_rng(6)
    y, target, mask = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2)), masks(rng, 3, 4)["holes"]
    _, dy = minilstm.mean_squared_error(y, target, mask)
    for k in np.ndindex(y.shape):
        change = np.zeros_like(y)
        change[k] = 1e-5
        up, down = (minilstm.mean_squared_error(y + s * change, target, mask)[0] for s in (1, -1))
        assert abs((up - down) / 2e-5 - dy[k]) < 1e-9


def test_formulas_of_one_unit_by_complex_step():
    """Every partial derivative of (h, c) with respect to the four pre-activations and c_prev."""
    rng = np.random.default_rng(7)
    inputs, dh, dc = rng.normal(size=5), 0.7, -1.3
    i, f, g, o, h, c = lstm.forward(*inputs)
    found = lstm.backward(i, f, g, o, inputs[4], c, dh, dc)
    for k in range(5):
        *_, h, c = lstm.forward(*(inputs + 1e-30j * np.eye(5)[k]))
        assert_close(found[k], (dh * h + dc * c).imag / 1e-30, "same formulas, float64")


# ---------------------------------------------------------------------------------------- is the checker any good?

class Wrong(minilstm.LSTM):
    """An LSTM one of whose gradients is wrong by the given factor in one direction of time or another."""

    def __init__(self, *args, spoil, factor, **options):
        super().__init__(*args, **options)
        self.spoil, self.factor = spoil, factor

    def backward(self, cache, dy=None, dh_n=None, dc_n=None):
        gradients = super().backward(cache, dy, dh_n, dc_n)
        if self.spoil in self.grads:
            self.grads[self.spoil] *= self.factor
            return gradients
        return gradients._replace(**{self.spoil: getattr(gradients, self.spoil) * self.factor})


@pytest.mark.parametrize("method", ["complex step", "central", "projection"])
@pytest.mark.parametrize("spoil", ["dx", "dh0", "dc0", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
def test_a_gradient_wrong_by_a_thousandth_is_rejected(spoil, method):
    rng = np.random.default_rng(8)
    for factor, ok in ((1.001, False), (float("nan"), False), (1, True)):
        net = Wrong(2, 3, spoil=spoil, factor=factor)
        batch = random_batch(rng, net, B=2, T=3)
        report = check_gradients(net, methods=(method,), x=batch["x"], h0=batch["h0"], c0=batch["c0"])
        wrong = [row.name for row in report.rows if not row.ok]
        assert report.ok == ok and (ok or wrong == [spoil.removeprefix("d")]), f"\n{report}"


def test_report_prints_a_row_for_each_array():
    net = minilstm.Linear(2, 1)
    lines = str(check_gradients(net, x=np.ones((3, 2)))).splitlines()
    assert lines[0].split()[:3] == ["array", "shape", "largest"]
    assert [line.split()[0] for line in lines[1:4]] == ["x", "weight", "bias"]
    assert all(line.endswith("ok") for line in lines[1:4])


def test_checker_leaves_the_layer_as_it_was():
    rng = np.random.default_rng(9)
    net = random_lstm(rng, 2, 3)
    batch = random_batch(rng, net, 2, 3)
    before = run(net, batch)
    check_gradients(net, x=batch["x"])
    after = run(net, batch)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_checker_says_what_it_cannot_use():
    net = minilstm.Linear(2, 1)
    with pytest.raises(ValueError, match="methods: expected some of .* got \\['magic'\\]"):
        check_gradients(net, methods=("magic",), x=np.ones((3, 2)))
    with pytest.raises(ValueError, match="methods: expected some of .* got \\[\\]"):
        check_gradients(net, methods=(), x=np.ones((3, 2)))
    with pytest.raises(ValueError, match="max_entries: expected a positive integer, got 0"):
        check_gradients(net, max_entries=0, x=np.ones((3, 2)))


@pytest.mark.parametrize("D, H, num_layers", [(2, 3, 1), (1, 8, 1), (3, 4, 2)])
def test_differences_hold_where_functions_bend(D, H, num_layers):
    """Layer normalisation of a state near 0: its derivatives grow with the powers of 1 / sqrt(EPSILON) = 316."""
    for seed in range(15):
        net = minilstm.LSTM(D, H, layer_norm=True, num_layers=num_layers, seed=seed)
        zero = np.zeros((num_layers, 1, 2, H))
        x = np.random.default_rng(seed).normal(size=(2, 3, D))
        report = check_gradients(net, x=x, h0=zero, c0=zero, max_entries=5)
        assert report.ok, f"\n{report}"


def test_in_training_one_draw_is_checked():
    net = minilstm.LSTM(2, 3, recurrent_dropout=0.5)
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    for model in (net, minilstm.Sequential(net, minilstm.Linear(3, 1))):
        assert check_gradients(model, x=x, training=True).ok


def test_a_gradient_that_is_zero_throughout_is_not_called_ok():
    report = check_gradients(minilstm.LSTM(2, 1), x=np.ones((2, 3, 2)), lengths=[0, 0])
    assert {line.split()[-1] for line in str(report).splitlines()[1:-1]} == {"zero"}
