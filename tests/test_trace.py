"""The trace shows the numbers that the layers compute, for the sequence, layer, direction and step asked for."""
import sys

import numpy as np
import pytest

import minilstm
from helpers import (KINDS, KINDS_AND_DTYPES, assert_close, gradients_of, masks, random_batch, random_layer,
                     states_of)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_states_and_gradients_are_those_of_the_layer(kind, dtype, bidirectional):
    """h of the top layer is y, dx of the bottom layers add up to dx, with holes in the mask."""
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, 3, 4, num_layers=2, bidirectional=bidirectional, dtype=dtype)
    batch = random_batch(rng, net, B=3, T=5)
    mask = masks(rng, 3, 5)["holes"]
    out, cache = net.forward(batch["x"], mask, **states_of(batch))
    dx = net.backward(cache, **gradients_of(batch)).dx
    R, dxs = net.widths[0], 0
    for k in range(len(net.directions)):
        top, bottom = (minilstm.trace(net, batch["x"], mask, row=1, layer=layer, direction=k, **states_of(batch),
                                      **gradients_of(batch)) for layer in (1, 0))
        assert [step.real for step in top.steps] == mask[1].tolist()
        h, dx_k = top.series("h"), bottom.series("dx")
        assert np.isnan(h[~mask[1]]).all() and np.isnan(dx_k[~mask[1]]).all()
        assert_close(h[mask[1]], out.y[1, mask[1], k * R:(k + 1) * R], f"same formulas, {dtype}")
        dxs = dxs + dx_k[mask[1]]
    assert_close(dxs, dx[1, mask[1]], f"same formulas, {dtype}")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_sizes(kind):
    """Not where D is as wide as all blocks together, nor where the batch has as many rows as a unit has parameters."""
    names = []
    for D, B in ((2, 1), (12, 3), (9, 10), (3, 6), (12, 4)):
        net = random_layer(np.random.default_rng(0), kind, D, 3)
        batch = random_batch(np.random.default_rng(0), net, B, T=1)
        step = minilstm.trace(net, batch["x"], **states_of(batch), **gradients_of(batch)).steps[0]
        names.append([row.name for row in step.forward + step.backward])
    assert names.count(names[0]) == len(names)


def test_every_term_of_an_lstm_step():
    """The rows of one step, in the order of the code, each computed here from the others."""
    rng = np.random.default_rng(1)
    net = random_layer(rng, "LSTM", 12, 3, dtype="float64")             # as many features as a has numbers
    batch = random_batch(rng, net, B=1, T=1)
    step = minilstm.trace(net, batch["x"], **states_of(batch), **gradients_of(batch)).steps[0]
    v = step.values()
    assert [row.name for row in step.forward] == ["x", "h_prev", "c_prev", "a_i", "a_f", "a_g", "a_o", "i", "f", "g",
                                                  "o", "c", "h"]
    assert [row.name for row in step.backward] == ["dh", "dc", "tanh_c", "do", "dc_total", "df", "dc_prev", "di", "dg",
                                                   "da_i", "da_f", "da_g", "da_o", "dx", "dh_prev"]
    p = net.params
    a = p["weight_ih_l0"] @ v["x"] + p["bias_ih_l0"] + p["weight_hh_l0"] @ v["h_prev"] + p["bias_hh_l0"]
    da = np.concatenate([v[f"da_{gate}"] for gate in "ifgo"])
    for name, expected in {
        "a_i": a[:3], "a_f": a[3:6], "a_g": a[6:9], "a_o": a[9:], "f": 1 / (1 + np.exp(-v["a_f"])),
        "c": v["f"] * v["c_prev"] + v["i"] * v["g"], "h": v["o"] * np.tanh(v["c"]),
        "dh": batch["dy"][0, 0] + batch["dh_n"][0, 0, 0], "dc": batch["dc_n"][0, 0, 0],
        "dc_total": v["dc"] + v["dh"] * v["o"] * (1 - np.tanh(v["c"]) ** 2), "df": v["dc_total"] * v["c_prev"],
        "da_f": v["df"] * v["f"] * (1 - v["f"]), "dx": da @ p["weight_ih_l0"], "dh_prev": da @ p["weight_hh_l0"],
    }.items():
        assert_close(v[name], expected, "same formulas, float64", name)


def test_lines_are_those_of_the_code():
    trace = minilstm.trace(minilstm.LSTM(2, 3), np.ones((1, 2, 2), "float32"), dh_n=np.ones((1, 1, 1, 3), "float32"))
    lines = {row.name: row.line for row in trace.steps[0].forward + trace.steps[0].backward}
    assert lines["c"] == "c = f * c_prev + i * g"
    assert lines["df"] == "df = dc_total * c_prev    # c = f * c_prev + i * g"
    assert lines["a_f"].startswith("a_i, a_f, a_g, a_o = np.split(a, 4") and lines["x"] == ""
    before = minilstm.trace(minilstm.GRU(2, 3, reset_after=False), np.ones((1, 1, 2), "float32"))
    lines = [row.line for row in before.steps[0].forward if row.name == "a_n"]
    assert lines == ["a_r, a_z, a_n = np.split(s_x + weights.b_ih + weights.b_hh, 3, axis=1)",
                     "a_n = a_n + heard(weights, v) @ U_n.T"]


def test_tables():
    x = np.ones((1, 2, 2), "float32")
    trace = minilstm.trace(minilstm.LSTM(2, 3), x, lengths=[1], dh_n=np.ones((1, 1, 1, 3), "float32"))
    text, markdown = str(trace), trace.markdown()
    heads = ["step 0, forward", "step 1, masked: the state is carried over", "step 0, backward"]
    assert [line for line in text.splitlines() if line.startswith("step")] == heads
    assert [line for line in markdown.splitlines() if line.startswith("**")] == [f"**{head}**" for head in heads]
    row = next(row for row in trace.steps[0].forward if row.name == "g")
    numbers = [f"{number:.4f}" for number in row.value]
    assert any(line.split() == ["g", *numbers, "g", "=", "tanh(a_g)"] for line in text.splitlines())
    assert "| `g` | " + " | ".join(numbers) + " | `g = tanh(a_g)` |" in markdown


def test_forward_alone_has_no_backward():
    trace = minilstm.trace(minilstm.GRU(2, 3), np.ones((2, 3, 2), "float32"))
    assert all(step.forward and not step.backward for step in trace.steps) and "backward" not in str(trace)


def test_a_draw_can_be_traced():
    rng = np.random.default_rng(2)
    net = random_layer(rng, "GRU", 2, 4, recurrent_dropout=0.5)
    x = rng.normal(size=(1, 3, 2)).astype("float32")
    y = net.forward(x, training=True, draw=4)[0].y
    assert_close(minilstm.trace(net, x, training=True, draw=4).series("h"), y[0], "same formulas, float32")


def test_the_interpreter_is_left_as_it_was():
    """Whoever traces already, a debugger perhaps, goes on; also after an error."""
    net, x = minilstm.LSTM(2, 3), np.ones((1, 2, 2), "float32")

    def somebody(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(somebody)
    try:
        minilstm.trace(net, x, dy=np.ones((1, 2, 3), "float32"))
        with pytest.raises(ValueError, match="x: expected"):
            minilstm.trace(net, x[0])
        assert sys.gettrace() is somebody
    finally:
        sys.settrace(before)
    assert net.backend == "cpu" and not any(g.any() for g in net.grads.values())


def test_a_layer_that_walks_backward():
    rng = np.random.default_rng(3)
    net = random_layer(rng, "GRU", 2, 3, reverse=True)
    x = rng.normal(size=(1, 4, 2)).astype("float32")
    trace = minilstm.trace(net, x)
    assert_close(trace.series("h"), net.forward(x)[0].y[0], "same formulas, float32")
    assert_close(trace.series("h_prev")[:-1], trace.series("h")[1:], "same formulas, float64")


@pytest.mark.parametrize("arguments, error, words", [
    ({"net": minilstm.Linear(2, 3)}, TypeError, "net: expected an LSTM, GRU or RNN, got Linear"),
    ({"layer": 1}, ValueError, "layer: expected less than 1, got 1"),
    ({"direction": 1}, ValueError, "direction: expected less than 1, got 1"),
    ({"row": 2}, ValueError, "row: expected less than B=2, got 2"),
    ({"row": -1}, ValueError, "row: expected an integer, 0 or more, got -1"),
    ({"dy": np.ones((2, 3, 4), "float32")}, ValueError, "dy: expected .*got float64 .2, 3, 4."),
    ({"x": np.ones((2, 3, 2), "float16")}, TypeError, "x: expected float32 or float64, got float16"),
    ({"net": minilstm.RNN(2, 3, zoneout_h=0.5)}, ValueError, "net: expected a layer without zoneout, got .*0.5"),
])
def test_bad_input_is_named(arguments, error, words):
    with pytest.raises(error, match=words):
        minilstm.trace(**({"net": minilstm.LSTM(2, 3), "x": np.ones((2, 3, 2), "float32")} | arguments))


def test_an_unknown_quantity_is_named():
    trace = minilstm.trace(minilstm.RNN(1, 1), np.ones((1, 1, 1), "float32"))
    with pytest.raises(KeyError, match="name: expected one of .*'h'.*, got 'i'"):
        trace.series("i")
