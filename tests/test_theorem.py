"""When zero steps are masking, exactly; and how fast they wash out a state where they are not."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import (DTYPES_AND_KINDS, KINDS, KINDS_AND_DTYPES, assert_close, long_unless, random_batch, random_layer,
                     same_bits)
from minilstm import cells
from minilstm.cells.activations import sigmoid
from minilstm.checks.zeros import (
    leading_zeros_are_masking, memory_left, padding_half_life, trailing_zeros_are_masking, units_at_rest)

BACKENDS = ["reference", "cpu"]
D, H = 3, 4


def every_layer(test):
    """Every kind, by both backends, in both dtypes, some of these where tests may take long."""
    return pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)(pytest.mark.parametrize("backend", BACKENDS)(test))


def blocks(net, name):
    """A writable copy of a bias or ``own``, by block or by row: dict, and a function that puts it back."""
    array = net.params[name].copy()
    rows = array.reshape(-1, net.hidden_size)
    names = net.cell.own if name.startswith("own") else net.cell.blocks

    def put():
        net.params[name] = array
    return dict(zip(names, rows)), put


def candidate(net):
    """The block whose activation is tanh, or relu."""
    return next(block for block in "gna" if block in net.cell.blocks)


def at_rest(net):
    """The same layer with its candidate biases such that a zero step leaves a zero state; all other biases as random as
    they were."""
    for k in range(net.num_layers):
        for direction in net.directions:
            end = f"_l{k}{direction.suffix}"
            (b_ih, put_ih), (b_hh, put_hh) = blocks(net, "bias_ih" + end), blocks(net, "bias_hh" + end)
            block = candidate(net)
            if net.cell in (cells.GRU_CELL, cells.GRU_LAYER_NORM_CELL):
                b_ih["n"][:] = b_hh["n"][:] = 0
            elif net.cell == cells.RNN_RELU_CELL:
                b_ih[block][:] = -abs(b_hh[block]) - abs(b_ih[block])
            else:
                b_ih[block][:] = -b_hh[block]
            if "b_c" in net.cell.own:
                own, put_own = blocks(net, "own" + end)
                own["b_c"][:] = 0
                put_own()
            put_ih()
            put_hh()
    return net


def final(out):
    """The final states, side by side (layers,dirs,B,...)."""
    return np.concatenate(out[1:], axis=-1)


def with_zeros(x, before, behind):
    return np.pad(x, ((0, 0), (before, behind), (0, 0)))


# ------------------------------------------------------------------------------------------------------ leading zeros

@every_layer
@pytest.mark.parametrize("num_layers", [1, 2])
def test_leading_zeros_are_masking_where_the_candidate_bias_is_zero(kind, backend, dtype, num_layers):
    """No bit differs, with any other biases, after one zero or forty."""
    rng = np.random.default_rng(0)
    net = at_rest(random_layer(rng, kind, D, H, backend=backend, dtype=dtype, num_layers=num_layers))
    assert leading_zeros_are_masking(net)
    x = random_batch(rng, net, 3, 5)["x"]
    expected, _ = net.forward(x)
    for zeros in (1, 40):
        found, _ = net.forward(with_zeros(x, zeros, 0))
        assert same_bits(found.y[:, zeros:], expected.y) and not found.y[:, :zeros].any()
        assert same_bits(final(found), final(expected))


@every_layer
def test_leading_zeros_move_the_state_where_one_candidate_bias_is_not_zero(kind, backend, dtype):
    rng = np.random.default_rng(1)
    for num_layers in (1, 2):
        net = at_rest(random_layer(rng, kind, D, H, backend=backend, dtype=dtype, num_layers=num_layers))
        bias, put = blocks(net, f"bias_ih_l{num_layers - 1}")
        bias[candidate(net)][1] = 0.5 + abs(net.params["bias_hh_l0"]).max()
        put()
        assert not leading_zeros_are_masking(net)
        assert units_at_rest(net, num_layers - 1).tolist() == [unit != 1 for unit in range(net.hidden_size)]
        x = random_batch(rng, net, 3, 5)["x"]
        found, expected = (net.forward(some)[0] for some in (with_zeros(x, 7, 0), x))
        assert abs(final(found) - final(expected)).max() > 1e-5


@pytest.mark.parametrize("dtype, kinds", DTYPES_AND_KINDS)
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), backend=st.sampled_from(BACKENDS), data=st.data())
def test_each_unit_at_rest_stays_at_zero_and_no_other(dtype, kinds, seed, backend, data):
    """Biases from -1, 0 and 1, so that all combinations come up: what is said of a unit is what one zero step does."""
    kind, rng = data.draw(st.sampled_from(kinds)), np.random.default_rng(seed)
    net = random_layer(rng, kind, D, H, backend=backend, dtype=dtype)
    for name in ("bias_ih_l0", "bias_hh_l0"):
        net.params[name] = rng.integers(-1, 2, net.params[name].shape).astype(dtype)
    if "b_c" in net.cell.own:
        own, put = blocks(net, "own_l0")
        own["b_c"][:] = rng.integers(0, 2, net.hidden_size)
        put()
    out, _ = net.forward(np.zeros((1, 1, D), dtype))
    resting = units_at_rest(net)
    c_or_h = out[-1][0, 0, 0]
    if "b_c" not in net.cell.own:
        assert (resting == (c_or_h == 0)).all()
    assert leading_zeros_are_masking(net) == resting.all() == (not final(out).any())


@every_layer
def test_default_biases_are_at_rest_and_random_ones_are_not(kind, backend, dtype):
    """So zeros in front do no harm before training, and some after it."""
    layer_class, options = KINDS[kind]
    assert leading_zeros_are_masking(layer_class(D, H, **options, backend=backend, dtype=dtype))
    assert not leading_zeros_are_masking(random_layer(np.random.default_rng(2), kind, D, H, dtype=dtype))


@pytest.mark.parametrize("kind, dtype, rounding", [
    ("GRU", "float32", 1e-6), ("GRU", "float64", 1e-15), ("GRU, layer norm", "float64", 1e-15),
    long_unless(False, "GRU, layer norm", "float32", 1e-6)])
def test_two_biases_of_the_gru_cancel_through_the_reset_gate(kind, dtype, rounding):
    """b_in = -r * b_hn, neither of them 0: exact where r is rounded as here, a rounding error elsewhere."""
    rng = np.random.default_rng(3)
    net = random_layer(rng, kind, D, H, dtype=dtype, backend="reference")
    (b_ih, put), (b_hh, _) = blocks(net, "bias_ih_l0"), blocks(net, "bias_hh_l0")
    b_ih["n"][:] = -sigmoid(b_ih["r"] + b_hh["r"]) * b_hh["n"]
    put()
    assert leading_zeros_are_masking(net) and abs(b_ih["n"]).min() > 0.01
    assert not net.forward(np.zeros((1, 30, D), dtype))[0].h_n.any()
    compiled = minilstm.GRU(**net.arguments(), dtype=dtype)
    compiled.load_state_dict(net.state_dict())
    assert abs(compiled.forward(np.zeros((1, 1, D), dtype))[0].h_n).max() < rounding


def test_both_biases_of_the_gru_that_resets_after_count_but_not_as_a_sum():
    """b_in + b_hn = 0 is the other GRU's condition."""
    for reset_after in (True, False):
        net = minilstm.GRU(D, H, reset_after=reset_after)
        for name, sign in (("bias_ih_l0", 1), ("bias_hh_l0", -1)):
            bias, put = blocks(net, name)
            bias["n"][:] = sign
            put()
        assert leading_zeros_are_masking(net) != reset_after


@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_zeros_are_at_the_end_of_a_walk_from_the_end(kind, dtype):
    """So a layer that walks both ways never takes zeros for masking, on either side; but for none of its outputs: in
    front, only the backward half's final state is wrong."""
    rng = np.random.default_rng(4)
    backward = at_rest(random_layer(rng, kind, D, H, dtype=dtype, reverse=True))
    assert trailing_zeros_are_masking(backward) and not leading_zeros_are_masking(backward)
    x = random_batch(rng, backward, 2, 5)["x"]
    expected, found = (backward.forward(some)[0] for some in (x, with_zeros(x, 0, 6)))
    assert same_bits(final(found), final(expected)) and same_bits(found.y[:, :5], expected.y)
    both = at_rest(random_layer(rng, kind, D, H, dtype=dtype, bidirectional=True))
    assert not trailing_zeros_are_masking(both) and not leading_zeros_are_masking(both)
    expected, found = (both.forward(some)[0] for some in (x, with_zeros(x, 6, 0)))
    assert same_bits(found.y[:, 6:], expected.y) and same_bits(found.h_n[:, 0], expected.h_n[:, 0])
    assert abs(found.h_n[:, 1] - expected.h_n[:, 1]).max() > 0.01


# ----------------------------------------------------------------------------------------------------- trailing zeros

@every_layer
def test_trailing_zeros_are_never_masking(kind, backend, dtype):
    """Not even where leading ones are."""
    rng = np.random.default_rng(5)
    for net in (random_layer(rng, kind, D, H, backend=backend, dtype=dtype),
                at_rest(random_layer(rng, kind, D, H, backend=backend, dtype=dtype)),
                KINDS[kind][0](D, H, **KINDS[kind][1], backend=backend, dtype=dtype)):
        assert not trailing_zeros_are_masking(net)
        x = random_batch(rng, net, 4, 5)["x"]
        expected, found = (net.forward(some)[0] for some in (x, with_zeros(x, 0, 3)))
        assert abs(final(found) - final(expected)).max() > 1e-3


@pytest.mark.parametrize("kind", ["LSTM", "LSTM, peepholes"])
def test_a_memory_without_candidate_shrinks_by_its_forget_gate(kind):
    """The step of the proof: where g = 0 the memory is f * c, and f < 1, also where f sees c."""
    rng = np.random.default_rng(6)
    net = at_rest(random_layer(rng, kind, D, H, dtype="float64"))
    U = net.params["weight_hh_l0"].copy()
    U[2 * H:3 * H] = 0
    net.params["weight_hh_l0"] = U
    c0, h0 = 3 * rng.normal(size=(2, 1, 1, 50, H))
    found, _ = net.forward(np.zeros((50, 1, D)), h0=h0, c0=c0)
    f = found.c_n / c0
    assert (f > 0).all() and (f < 1).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [long_unless(False, "float32"), "float64"])
def test_a_relu_net_with_identity_and_no_bias_keeps_its_state(backend, dtype):
    """The one exception, at the end and in front; anything else in U or b undoes it."""
    rng = np.random.default_rng(7)
    net = minilstm.RNN(D, H, activation="relu", backend=backend, dtype=dtype)
    net.params["weight_hh_l0"] = np.eye(H, dtype=dtype)
    assert trailing_zeros_are_masking(net) and leading_zeros_are_masking(net)
    x = random_batch(rng, net, 3, 5)["x"]
    expected, _ = net.forward(x)
    assert expected.h_n.any()
    assert same_bits(net.forward(with_zeros(x, 9, 30))[0].h_n, expected.h_n)
    assert padding_half_life(net) == math.inf
    for name in ("weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        other = net.astype(dtype)
        changed = other.params[name].copy()
        changed.flat[1] += 0.01
        other.params[name] = changed
        assert not trailing_zeros_are_masking(other)
    stack = minilstm.RNN(D, H, activation="relu", num_layers=2, dtype=dtype)
    for name in ("weight_hh_l0", "weight_hh_l1"):
        stack.params[name] = np.eye(H, dtype=dtype)
    assert leading_zeros_are_masking(stack) and not trailing_zeros_are_masking(stack)


def test_a_float_sigmoid_reaches_one():
    """Which a real one does not: where the docstring says so."""
    assert sigmoid(np.float32(17)) == 1 > sigmoid(np.float32(16))
    assert sigmoid(np.float64(37)) == 1 > sigmoid(np.float64(36))


# ----------------------------------------------------------------------------------------------------- how fast, then

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("forget_bias", [-1.0, 1.0, 3.0])
def test_memory_without_recurrence_falls_by_the_forget_gate(backend, forget_bias):
    """U = 0: the distance of two memories is f times what it was, so the half-life is log(1/2) / log(f)."""
    net = minilstm.LSTM(D, H, backend=backend, dtype="float64")
    net.params["weight_hh_l0"] = np.zeros((4 * H, H))
    bias, put = blocks(net, "bias_ih_l0")
    bias["f"][:] = forget_bias
    put()
    f = 1 / (1 + math.exp(-forget_bias))
    assert_close(memory_left(net, zeros=12), f ** np.arange(13), "same formulas, float64")
    assert padding_half_life(net) == pytest.approx(math.log(0.5) / math.log(f), rel=1e-9)


def keras_lstm(D, H, seed):
    """An LSTM as Keras initialises it: Glorot over, and orthogonal across, the four blocks together; b_f = 1."""
    rng = np.random.default_rng(seed)
    net = minilstm.LSTM(D, H, dtype="float64")
    net.params["weight_hh_l0"] = np.linalg.qr(rng.standard_normal((4 * H, H)))[0]
    limit = math.sqrt(6 / (D + 4 * H))
    net.params["weight_ih_l0"] = rng.uniform(-limit, limit, (4 * H, D))
    return net


def test_twenty_zeros_wash_out_an_lstm_as_keras_begins_it():
    """|c| falls to 0.61, 0.33, 0.14 and 0.03 of what it was after 2, 5, 10 and 20 zeros, in another measurement."""
    left, half_lives = [], []
    for seed in range(5):
        net = keras_lstm(8, 64, seed)
        assert leading_zeros_are_masking(net)
        x = np.random.default_rng(seed).standard_normal((32, 30, 8))
        c = [abs(net.forward(with_zeros(x, 0, zeros))[0].c_n).mean() for zeros in (0, 2, 5, 10, 20)]
        left.append(np.array(c[1:]) / c[0])
        half_lives.append(padding_half_life(net))
    assert np.mean(left, axis=0) == pytest.approx([0.61, 0.33, 0.14, 0.03], abs=0.04)
    assert 2.5 < np.mean(half_lives) < 3.2


def test_memory_left_begins_with_one_and_is_the_same_for_the_same_seed():
    net = random_layer(np.random.default_rng(8), "GRU", D, H)
    left = memory_left(net, zeros=6)
    assert left.shape == (7,) and left[0] == 1 and same_bits(left, memory_left(net, zeros=6))
    assert not same_bits(left, memory_left(net, zeros=6, seed=1))
    x = np.random.default_rng(9).standard_normal((4, 8, D), dtype="float32")
    out, _ = net.forward(with_zeros(x, 0, 5))
    before, _ = net.forward(x)
    assert_close(memory_left(net, x, zeros=5)[5], rms(out.h_n) / rms(before.h_n),
                 "same formulas, float32")


def rms(h):
    h = h.astype("float64")
    return np.sqrt(np.mean((h - h.mean(axis=2, keepdims=True)) ** 2))


@pytest.mark.parametrize("kind", KINDS)
def test_half_life_lies_where_the_memory_is_halved(kind):
    net = random_layer(np.random.default_rng(10), kind, D, H, dtype="float64")
    left = memory_left(net, zeros=200)
    half_life = padding_half_life(net, limit=200)
    if half_life == math.inf:
        assert (left > 0.5).all()
    else:
        assert left[math.ceil(half_life)] <= 0.5 and (left[:math.ceil(half_life)] > 0.5).all()
        assert padding_half_life(net, limit=math.ceil(half_life) - 1 or 1) == (
            math.inf if half_life > 1 else half_life)


def test_a_memory_that_is_gone_at_once_has_a_half_life_of_one_step():
    net = minilstm.RNN(D, H, activation="relu", dtype="float64")
    net.params["weight_hh_l0"] = np.zeros((H, H))
    assert memory_left(net, zeros=2).tolist() == [1, 0, 0] and padding_half_life(net) == 1


def test_what_cannot_be_measured_is_an_error_that_says_why():
    net = minilstm.LSTM(D, H)
    for function in (leading_zeros_are_masking, trailing_zeros_are_masking, padding_half_life):
        with pytest.raises(TypeError, match="layer: expected an LSTM, GRU or RNN, got Linear"):
            function(minilstm.Linear(D, H))
    with pytest.raises(ValueError, match="layer: expected one that walks one way, got a bidirectional one"):
        padding_half_life(minilstm.LSTM(D, H, bidirectional=True))
    with pytest.raises(ValueError, match=r"x: expected two or more sequences .* got float32 \(1, 4, 3\)"):
        padding_half_life(net, np.ones((1, 4, D), "float32"))
    with pytest.raises(ValueError, match="limit: expected a positive integer, got 0"):
        padding_half_life(net, limit=0)
    with pytest.raises(ValueError, match="zeros: expected an integer, 0 or more, got -1"):
        memory_left(net, zeros=-1)
