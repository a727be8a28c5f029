"""What is planted is found: the layer, the step, the sequence and the quantity of the first number that is not finite,
and its cause; and nothing is found where nothing is."""
import numpy as np
import pytest

import every_layer
import minilstm
from helpers import KINDS, masks, random_batch, random_layer
from minilstm.checks import NonFinite, find_nonfinite, gradient_paths

HIGHEST = float(np.finfo("float32").max)


def model_of(rng, kind, **options):
    """A Linear, a recurrent layer and a Linear, without biases of 0."""
    net = random_layer(rng, kind, 3, 4, **options)
    model = minilstm.Sequential(minilstm.Linear(2, 3), net, minilstm.Linear(net.output_size, 2))
    model.layers[2].params["bias"] = np.array([0.3, -0.2], "float32")
    return model


def holes(rng, B=3, T=6):
    """A mask whose rows begin and end at different steps."""
    mask = masks(rng, B, T)["holes"]
    return mask if mask.any() else holes(rng, B, T)


def normal(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def planted(layer, name, index, value):
    p = layer.params[name].copy()
    p[index] = value
    layer.params[name] = p


def first_real(mask, reverse=False):
    """(step, row) that a walk through time meets first."""
    t = (np.flatnonzero(mask.any(axis=0))[::-1] if reverse else np.flatnonzero(mask.any(axis=0)))[0]
    return int(t), int(np.flatnonzero(mask[:, t])[0])


def place(found):
    return found.name, found.layer, found.direction, found.t, found.row


# ---------------------------------------------------------------------------------------------------------- parameters

@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["LSTM", "LSTM, coupled", "LSTM, peepholes", "LSTM, projection", "GRU",
                                  "GRU, reset before", "RNN, relu"])
def test_a_nan_in_one_row_of_one_gate(kind, seed):
    """Of W, U or a bias, of one layer of a stack, in one direction."""
    rng = np.random.default_rng(seed)
    model = model_of(rng, kind, num_layers=2, bidirectional=True)
    net, mask = model.layers[1], holes(rng)
    x = np.where(mask[:, :, None], normal(rng, 3, 6, 2), np.nan)
    assert find_nonfinite(model, x, mask, target=normal(rng, 3, 6, 2)) is None
    layer, direction, block, unit = (int(rng.integers(n)) for n in (2, 2, len(net.cell.blocks), net.hidden_size))
    what = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[seed]
    name, row = f"{what}_l{layer}{net.directions[direction].suffix}", block * net.hidden_size + unit
    index = (row, int(rng.integers(net.params[name].shape[1]))) if seed < 2 else (row,)
    planted(net, name, index, np.nan)
    found = find_nonfinite(model, x, mask, target=normal(rng, 3, 6, 2))
    gate = net.cell.blocks[block]
    part = "x" if what.endswith("ih") else "h"
    quantity = {"GRU": f"a_{part}{gate}", "RNN, relu": f"a_{part}"}.get(kind, f"a_{gate}")
    assert place(found) == ("1", layer, direction, *first_real(mask, reverse=direction == 1))
    assert (found.phase, found.kind, found.quantity, found.unit) == ("forward", type(net).__name__, quantity, unit)
    assert np.isnan(found.value)
    assert found.hint == f"parameter 1.{name}[{', '.join(map(str, index))}] is nan"


@pytest.mark.parametrize("where, name, index, quantity, expected", [
    (0, "weight", (2, 1), "y", ("0", None, None, 0, 0)), (2, "bias", (1,), "y", ("2", None, None, 0, 0)),
])
def test_a_parameter_of_a_linear_layer(where, name, index, quantity, expected):
    rng = np.random.default_rng(1)
    model = model_of(rng, "LSTM")
    planted(model.layers[where], name, index, np.inf)
    mask = np.ones((3, 6), bool)
    mask[0, 0] = False
    found = find_nonfinite(model, normal(rng, 3, 6, 2), mask)
    assert place(found) == (*expected[:4], 1)                       # sequence 0 has no step 0
    assert (found.quantity, found.unit) == (quantity, index[0])
    assert found.hint.startswith(f"parameter {where}.{name}[{index[0]}") and found.hint.endswith("is inf")


def test_a_part_of_another_layer():
    """Deep inside, by its full name; a layer that stands in two places by both."""
    rng = np.random.default_rng(2)
    model = every_layer.model(rng)
    x, mask = every_layer.batch(rng)
    planted(model.layers[6], "weight", (0, 1), np.nan)
    found = find_nonfinite(model, x, mask)
    assert (found.name, found.quantity, found.hint) == ("5.1 and 6", "y", "parameter 5.1.weight[0, 1] is nan")
    attends = minilstm.Sequential(minilstm.Attention(2, 4, heads=2), minilstm.AttentionPooling(4, 3, seed=1))
    planted(attends.layers[0].children()["v_proj"], "weight", (1, 0), np.nan)
    found = find_nonfinite(attends, x, mask)
    assert (found.name, found.kind, found.hint) == ("0.v_proj", "Linear", "parameter 0.v_proj.weight[1, 0] is nan")


# ------------------------------------------------------------------------------------------------------------- x and dy

@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN, tanh", "LSTM, layer norm", "GRU, layer norm"])
def test_an_infinity_in_x(kind, seed):
    """At a real step, with NaN in all masked ones."""
    rng = np.random.default_rng(seed)
    net = random_layer(rng, kind, 3, 4, num_layers=2, reverse=seed == 2)
    mask = holes(rng)
    batch = random_batch(rng, net, 3, 6)
    x = np.where(mask[:, :, None], batch["x"], np.float32(np.nan))
    row, t = (int(n) for n in rng.permutation(np.argwhere(mask))[0])
    assert find_nonfinite(net, x, mask, dy=batch["dy"], dh_n=batch["dh_n"]) is None
    x[row, t, 1] = np.inf
    found = find_nonfinite(net, x, mask, dy=batch["dy"])
    assert place(found) == ("", 0, 0, t, row) and (found.quantity, found.unit) == ("x", 1)
    assert found.hint == f"x[{row}, {t}, 1] as passed in is inf" and found.value == np.inf


@pytest.mark.parametrize("first", [lambda: minilstm.Linear(3, 4), lambda: minilstm.Attention(3, 4),
                                   lambda: minilstm.Pooling("mean"), lambda: minilstm.AttentionPooling(3, 4)])
def test_a_nan_in_x_of_a_layer_without_steps(first):
    rng = np.random.default_rng(3)
    mask = holes(rng)
    x = np.where(mask[:, :, None], normal(rng, 3, 6, 3), np.float32(np.nan))
    row, t = np.argwhere(mask)[2].tolist()
    model = minilstm.Sequential(first())
    assert find_nonfinite(model, x, mask) is None
    x[row, t, 2] = np.nan
    found = find_nonfinite(model, x, mask)
    assert place(found) == ("0", None, None, t, row) and (found.quantity, found.unit) == ("x", 2)
    assert found.hint == f"x[{row}, {t}, 2] as passed in is nan"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN, relu"])
def test_a_nan_in_dy(kind, seed):
    """Of a recurrent layer, and of a Linear above it; one at a masked step is not read by the recurrent layer."""
    rng = np.random.default_rng(seed)
    net = random_layer(rng, kind, 3, 4, reverse=seed == 2)
    mask = holes(rng)
    batch = random_batch(rng, net, 3, 6)
    dy = np.where(mask[:, :, None], batch["dy"], np.float32(np.nan))
    row, t = (int(n) for n in rng.permutation(np.argwhere(mask))[0])
    assert find_nonfinite(net, batch["x"], mask, dy=dy) is None
    dy[row, t, 3] = np.nan
    found = find_nonfinite(net, batch["x"], mask, dy=dy)
    assert (found.phase, *place(found), found.quantity, found.unit) == ("backward", "", 0, 0, t, row, "dh", 3)
    assert found.hint == f"dy[{row}, {t}, 3] as passed in is nan"
    model = minilstm.Sequential(net, minilstm.Linear(4, 2))
    dy = normal(rng, 3, 6, 2)
    dy[row, t, 1] = -np.inf
    found = find_nonfinite(model, batch["x"], mask, dy=dy)
    assert (found.phase, *place(found), found.quantity, found.unit) == ("backward", "1", None, None, t, row, "dy", 1)
    assert found.value == -np.inf and found.hint == f"dy[{row}, {t}, 1] as passed in is -inf"


def test_initial_states_and_conditions():
    rng = np.random.default_rng(4)
    x, h0 = normal(rng, 3, 5, 2), normal(rng, 1, 1, 3, 4)
    h0[0, 0, 2, 1] = np.nan
    found = find_nonfinite(random_layer(rng, "GRU", 2, 4), {"x": x, "h0": h0})
    assert (found.t, found.row, found.quantity, found.unit) == (0, 2, "h_prev", 1)
    assert found.hint == "h0[0, 0, 2, 1] as passed in is nan"
    condition = normal(rng, 3, 2)
    condition[1, 0] = np.inf
    for strategy in ("late", "gate_bias", "initial_state", "film", "attend_time"):
        model = minilstm.Conditioned(strategy, input_size=2, condition_size=2, hidden_size=4)
        dy, healthy = normal(rng, 3, 5, model.output_size), np.ones((3, 2), "float32")
        assert find_nonfinite(model, {"x": x, "condition": healthy}, dy=dy) is None
        found = find_nonfinite(model, {"x": x, "condition": condition})
        assert found.row == 1 and found.hint == "condition[1, 0] as passed in is inf"


def test_missing_values_that_a_layer_reads_as_such():
    """NaN in x of a GRUD is none to be found, an infinity is."""
    rng = np.random.default_rng(5)
    x, mask = normal(rng, 3, 5, 2), holes(rng, 3, 5)
    x[rng.random(x.shape) < 0.4] = np.nan
    model = minilstm.Sequential(minilstm.GRUD(2, 4), minilstm.Pooling("last"), minilstm.Linear(4, 1))
    assert np.isnan(x[mask]).any() and find_nonfinite(model, x, mask, target=normal(rng, 3, 1)) is None
    row, t = np.argwhere(mask)[1].tolist()
    x[row, t, 0] = np.inf
    found = find_nonfinite(model, x, mask, target=normal(rng, 3, 1))
    assert (found.name, found.kind, found.t, found.row) == ("0", "GRUD", t, row)
    assert found.hint == f"x[{row}, {t}, 0] as passed in is inf"


# ------------------------------------------------------------------------------------------------------------- overflow

@pytest.mark.parametrize("seed", range(4))
def test_an_overflow_of_a_state_that_grows(seed):
    """h = relu(...) of positive numbers, some thousand times as large at each step: where float64 passes the end of
    float32, and not in a model of float64."""
    rng = np.random.default_rng(seed)
    net = minilstm.RNN(2, 3, activation="relu", dtype="float64", backend="reference", reverse=seed == 3)
    for name, p in net.params.items():
        net.params[name] = np.abs(rng.normal(size=p.shape)) + 0.1
    net.params["weight_hh_l0"] = net.params["weight_hh_l0"] * 1e4
    x, mask = np.abs(normal(rng, 3, 16, 2)), rng.random((3, 16)) < 0.8
    y = net.forward(x.astype("float64"), mask)[0].y
    too_large = (y > HIGHEST).any(axis=2)
    order = np.arange(16)[::-1] if net.reverse else np.arange(16)
    t = int(order[too_large.any(axis=0)[order].argmax()])
    row = int(too_large[:, t].argmax())
    assert too_large[row, t] and not too_large[:, order[0]].any()
    found = find_nonfinite(net.astype("float32"), x, mask)
    assert place(found) == ("", 0, 0, t, row) and (found.phase, found.quantity) == ("forward", "a_h")
    assert found.value == np.inf and y[row, t, found.unit] > HIGHEST
    before = np.flatnonzero(mask[row, :t])[-1] if not net.reverse else t + 1 + np.flatnonzero(mask[row, t + 1:])[0]
    number, last = found.hint.removeprefix("an overflow: ").split(
        ", float32 ends at 3.4e+38; at the step before it was ")
    assert np.isclose(float(number), y[row, t, found.unit], rtol=1e-2)
    assert np.isclose(float(last), y[row, before, found.unit], rtol=1e-2)
    assert find_nonfinite(net, x.astype("float64"), mask, dy=np.zeros_like(y)) is None


def test_an_overflow_on_the_way_back():
    """dh_prev = dh @ U, larger at each step."""
    rng = np.random.default_rng(0)
    net = random_layer(rng, "RNN, relu", 2, 3)
    net.params = {name: np.abs(p) for name, p in net.params.items()}
    net.params["weight_hh_l0"] = (net.params["weight_hh_l0"] + np.float32(0.1)) * np.float32(3)
    x, dy = np.abs(normal(rng, 2, 12, 2)), np.zeros((2, 12, 3), "float32")
    dy[1, -1] = 1e36
    dh = gradient_paths(net, x, row=1, dy=dy).total["h"]                # in float64
    t = int(np.flatnonzero((dh > HIGHEST).any(axis=1))[-1])
    assert 0 < t < 11
    found = find_nonfinite(net, x, dy=dy)
    assert (found.phase, found.t, found.row, found.quantity) == ("backward", t, 1, "dh_prev")
    assert found.hint.startswith("an overflow: ")
    weights = minilstm.Sequential(minilstm.Linear(3, 1))
    found = find_nonfinite(weights, np.full((2, 4, 3), 1e30, "float32"), dy=np.full((2, 4, 1), 1e30, "float32"))
    assert (found.phase, found.name, found.quantity, found.unit) == ("backward", "0", "d weight", (0, 0))
    assert found.t is None and found.row is None and found.hint.startswith("the largest number of dy was 1e+30")


def test_an_overflow_between_layers():
    model = minilstm.Sequential(minilstm.Linear(2, 2), minilstm.LSTM(2, 3))
    model.layers[0].params["weight"] = np.full((2, 2), 2e38, "float32")
    x = np.zeros((2, 4, 2), "float32")
    x[1, 2] = 1
    found = find_nonfinite(model, x)
    assert (*place(found), found.quantity) == ("0", None, None, 2, 1, "y")
    assert found.hint == "the largest number of x was 1, float32 ends at 3.4e+38"


# ----------------------------------------------------------------------------------------------------------- the losses

def test_targets_and_losses():
    """A target that counts, and one that does not; a loss that overflows; a loss whose gradient is wrong."""
    rng = np.random.default_rng(6)
    model, x, mask = model_of(rng, "LSTM"), normal(rng, 3, 6, 2), holes(rng)
    target = np.where(mask[:, :, None], normal(rng, 3, 6, 2), np.float32(np.nan))
    assert find_nonfinite(model, x, mask, target=target) is None
    row, t = np.argwhere(mask)[3].tolist()
    target[row, t, 1] = np.nan
    found = find_nonfinite(model, x, mask, target=target)
    assert (found.quantity, found.kind, found.hint) == (
        "loss", "mean_squared_error", f"target[{row}, {t}, 1] as passed in is nan")
    assert find_nonfinite(model, x, mask, target=target, loss_mask=np.isfinite(target).all(axis=2)) is None

    def broken(y, target, mask):
        dy = np.zeros_like(y)
        dy[2, 4, 1] = np.nan
        return 0.0, dy

    found = find_nonfinite(model, x, target=target, loss=broken)
    assert (found.phase, found.kind, found.quantity, found.t, found.row) == ("backward", "broken", "dy", 4, 2)
    classes = np.zeros((3, 6), int)
    assert find_nonfinite(model, x, mask, target=classes, loss=minilstm.softmax_cross_entropy) is None


# ---------------------------------------------------------------------------------------------------------- all of it

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("training", [False, True])
def test_a_healthy_model_is_left_alone(dtype, training):
    """Every kind of layer; nothing is found, and nothing has changed."""
    rng = np.random.default_rng(7)
    model = every_layer.model(rng).astype(dtype)
    x, mask = every_layer.batch(rng)
    x = np.where(mask[:, :, None], x, np.nan).astype(dtype)
    before, backends = model.state_dict(), [layer.backend for _, layer in model.walk()]
    assert find_nonfinite(model, x, mask, target=rng.normal(size=(3, 5, 1)).astype(dtype), training=training) is None
    assert all((model.state_dict()[name] == p).all() for name, p in before.items())
    assert not any(g.any() for _, layer in model.walk() for g in layer.grads.values())
    assert [layer.backend for _, layer in model.walk()] == backends and "forward" not in vars(model.layers[0])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer(kind):
    """A NaN in a bias is found in its unit; layer normalisation divides it out to no other one."""
    rng = np.random.default_rng(8)
    net = random_layer(rng, kind, 3, 4)
    planted(net, "bias_ih_l0", (2,), np.nan)
    found = find_nonfinite(net, normal(rng, 2, 3, 3))
    assert (found.t, found.row, found.unit) == (0, 0, 2)
    assert found.hint == "parameter bias_ih_l0[2] is nan"


def test_it_is_a_sentence():
    found = NonFinite("forward", "0", "LSTM", 1, 0, 7, 2, "a_f", 3, float("nan"), "parameter 0.bias_hh_l1[7] is nan")
    assert str(found) == ("forward: a_f of unit 3 is nan, step 7, sequence 2, in layer '0' (LSTM), layer 1 of its "
                          "stack, direction 0: parameter 0.bias_hh_l1[7] is nan")
    found = NonFinite("backward", "1", "Linear", None, None, None, None, "d weight", (0, 2), float("inf"))
    assert str(found) == "backward: d weight[0, 2] is inf, in layer '1' (Linear)"
    found = NonFinite("forward", "", "mean_squared_error", None, None, None, None, "loss", None, float("nan"))
    assert str(found) == "forward: loss is nan, in mean_squared_error"


NET, X = minilstm.GRU(2, 3), np.ones((1, 4, 2), "float32")


@pytest.mark.parametrize("arguments, error, message", [
    ({"model": "GRU"}, TypeError, "model: expected a Layer, got str"),
    ({"x": X.astype("float64")}, TypeError, "x: expected float32"),
    ({"mask": np.ones((1, 4))}, TypeError, "mask: expected a bool array"),
    ({"mask": np.ones((1, 3), bool)}, ValueError, "mask: expected shape"),
    ({"x": {"x": X, "mask": np.ones((1, 4), bool)}}, ValueError, "x: expected a dict without mask"),
    ({"model": minilstm.Linear(2, 3), "mask": np.ones((1, 3), bool)}, ValueError, "mask: expected shape"),
    ({"target": X, "loss_mask": np.ones((1, 4))}, TypeError, "loss_mask: expected a bool array"),
    ({"dy": X}, ValueError, "dy: expected float32"),
    ({"dy": X, "target": X}, ValueError, "target, dy: expected a target or gradients, got both"),
    ({"target": X}, ValueError, "target: expected float32"),
])
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        find_nonfinite(**{"model": NET, "x": X} | arguments)
