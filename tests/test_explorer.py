"""The page holds the numbers of the layer and the lines of its code, and needs nothing but itself."""
import os
import re
from pathlib import Path

import numpy as np
import pytest

import minilstm
from explorer_pages import FUNCTIONS, random_page, read, strip, table
from helpers import KINDS, assert_close, random_layer
from minilstm.explorer import explore

PRINTED = 1e-5              # of a number in seven digits, through a line of code, beside the largest of its numbers


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_forward_and_backward(tmp_path, kind, bidirectional):
    net, given, data = random_page(tmp_path / "page.html", kind, bidirectional=bidirectional)
    real = given["mask"][1]
    out, cache = net.forward(given["x"], given["mask"])
    dx = net.backward(cache, given["dy"]).dx[1, real]
    R, dxs = net.widths[0], 0
    assert len(data["views"]) == 1 + bidirectional
    for k, view in enumerate(data["views"]):
        assert view["real"] == real.tolist() and not real.all()
        h, end = strip(view, "h"), 0 if view["reverse"] else -1
        assert np.isnan(h[~real]).all()
        assert_close(h[real], out.y[1, real, k * R:(k + 1) * R], "onnxruntime, float32", "h")
        if "c" in net.cell.states:
            assert_close(strip(view, "c")[end], out.c_n[0, k, 1], "onnxruntime, float32", "c")
        dxs = dxs + strip(view, "dx")[real]
    assert_close(dxs, dx, "onnxruntime, float32", "dx")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN, tanh"])
def test_da_are_those_of_backward(tmp_path, kind):
    """Summed over the steps of the only sequence they are the gradient of the bias b_hh, block by block."""
    net, given, data = random_page(tmp_path / "page.html", kind, B=1, row=0)
    net.backward(net.forward(given["x"], given["mask"])[1], given["dy"])
    names = {"LSTM": ["da_i", "da_f", "da_g", "da_o"], "GRU": ["da_r", "da_z", "da_hn"], "RNN, tanh": ["da"]}[kind]
    da = np.concatenate([np.nansum(strip(data["views"][0], name), axis=0) for name in names])
    assert_close(da, net.grads["bias_hh_l0"], "onnxruntime, float32", "da")


def evaluated(view, line, t, k):
    """A line's numbers at one step for one unit -> what they amount to."""
    text = "".join(piece if isinstance(piece, str) else f"({table(view, piece)[t, k]!r})".replace("np.float64", "")
                   for piece in line["numbers"])
    return eval(text, dict(FUNCTIONS))


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_is_true(tmp_path, kind):
    """What stands on the right, with its numbers, is what stands on the left; every product is the sum of its terms;
    and every line stands in the file that the page names."""
    _, _, data = random_page(tmp_path / "page.html", kind, T=3)
    view = data["views"][0]
    code = " ".join((Path(minilstm.__file__).parents[1] / view["file"]).read_text().split())
    code += (Path(minilstm.__file__).parent / "cells/products.py").read_text()
    lines = view["forward"] + view["backward"]
    assert {"x", "h_prev", "h", "dh", "dx", "dh_prev"} <= {line["name"] for line in lines}
    assert len([line for line in lines if line["symbols"]]) > 3
    formulas = ["lstm.py"] if "projection" in kind else ["gru.py"] if kind == "GRU, layer norm" else []
    for name in formulas:                                               # these two cells take them from another one
        code += (Path(minilstm.__file__).parent / "cells" / name).read_text()
    for line in lines:
        assert line["code"] in code
        values = table(view, line["value"])
        for t in np.flatnonzero(view["real"]):
            for k in range(values.shape[1]):
                if line["symbols"]:
                    used = [table(view, n)[t, k] for n in line["numbers"] if isinstance(n, int)]
                    limit = PRINTED * max(map(abs, [*used, values[t, k]]))
                    assert abs(evaluated(view, line, t, k) - values[t, k]) <= limit, line["name"]
                for text, total, left, right in line["sums"]:
                    factors, weights = table(view, left)[t], np.array(view["tables"][right][k])
                    size = abs(factors * weights).sum()
                    assert abs(factors @ weights - table(view, total)[t, k]) <= PRINTED * size, text


def test_lines_of_an_lstm(tmp_path):
    _, _, data = random_page(tmp_path / "page.html", "LSTM", D=12)      # as many features as a has numbers
    view = data["views"][0]
    assert [line["name"] for line in view["forward"]] == ["x", "h_prev", "c_prev", "a_i", "a_f", "a_g", "a_o", "i", "f",
                                                          "g", "o", "c", "h"]
    assert [line["name"] for line in view["backward"]] == [
        "dh", "dc", "tanh_c", "do", "dc_total", "df", "dc_prev", "di", "dg", "da_i", "da_f", "da_g", "da_o", "dx",
        "dh_prev"]
    symbols = {line["name"]: line["symbols"] for line in view["forward"] + view["backward"]}
    assert symbols["a_f"] == "x @ W.T + b_ih + h_prev @ U.T + b_hh" and symbols["c"] == "f * c_prev + i * g"
    assert symbols["da_f"] == "df * d_sigmoid(f)" and symbols["dh_prev"] == "da @ U" and symbols["x"] == ""
    [comment] = [line["comment"] for line in view["backward"] if line["name"] == "df"]
    assert comment == "c = f * c_prev + i * g"
    assert [name for name, _, _ in view["strips"]["forward"]] == ["x", "i", "f", "g", "o", "c", "h"]
    assert [name for name, _, _ in view["strips"]["backward"]] == ["dx", "dh", "dc", "da_i", "da_f", "da_g", "da_o"]


@pytest.mark.parametrize("kind", ["LSTM, layer norm", "GRU, layer norm"])
def test_what_is_normalised_is_shown_block_by_block(tmp_path, kind):
    net, given, data = random_page(tmp_path / "page.html", kind)
    view, real = data["views"][0], given["mask"][1]
    s_x = (given["x"][1, real] @ net.params["weight_ih_l0"].T).reshape(real.sum(), len(net.cell.blocks), 3)
    values = {line["name"]: table(view, line["value"])[real] for line in view["forward"] + view["backward"]}
    for k, block in enumerate(net.cell.blocks):
        assert_close(values[f"s_x[{block}]"], s_x[:, k], "onnxruntime, float32", block)
        assert f"s_h[{block}]" in values and f"ds_x[{block}]" in values and f"ds_h[{block}]" in values


def test_gradients_of_a_model_are_those_of_its_loss(tmp_path):
    """Through all layers above, with the mask of the loss; and rubbish in masked steps is not in the page."""
    rng = np.random.default_rng(1)
    plain = {"backend": "reference"}                                                    # nothing to be compiled
    model = minilstm.Sequential(minilstm.GRU(2, 3, bidirectional=True, **plain), minilstm.LSTM(6, 4, **plain),
                                minilstm.Pooling("mean", **plain), minilstm.Linear(4, 1, **plain))
    x, target = rng.normal(size=(3, 5, 2)).astype("float32"), rng.normal(size=(3, 1)).astype("float32")
    mask = np.arange(5) < np.array([5, 3, 4])[:, None]
    x[~mask] = np.nan
    explore(model, x, mask, target=target, row=1, path=tmp_path / "page.html")
    data = read(tmp_path / "page.html")
    assert not any(p.any() for layer in model.layers for p in layer.grads.values())
    y, cache = model.forward(x, mask)
    loss, dy = minilstm.mean_squared_error(y, target)
    dx = model.backward(cache, dy)[1, mask[1]]
    assert [view["name"] for view in data["views"]] == [
        "GRU in place 0, forward in time", "GRU in place 0, backward in time", "LSTM in place 1"]
    assert data["gradient"] == "mean_squared_error" and abs(data["loss"] - loss) < 1e-6
    found = sum(strip(view, "dx")[mask[1]] for view in data["views"][:2])
    assert_close(found, dx, "same formulas, float32", "dx")
    x_above = np.concatenate([strip(view, "h") for view in data["views"][:2]], axis=1)
    assert_close(strip(data["views"][2], "x")[mask[1]], x_above[mask[1]], "onnxruntime, float32", "x of the LSTM")
    assert "'nan'" not in str(data["views"])


def test_a_choice_of_layers(tmp_path):
    x = np.ones((1, 2, 2), "float32")
    shared = minilstm.RNN(3, 3)
    model = minilstm.Sequential(minilstm.LSTM(2, 3, num_layers=2), minilstm.Sequential(shared, minilstm.Linear(3, 3)),
                                shared)

    def names(**chosen):
        explore(model, x, path=tmp_path / "page.html", **chosen)
        return [view["name"] for view in read(tmp_path / "page.html")["views"]]

    assert names() == ["LSTM in place 0, layer 0", "LSTM in place 0, layer 1", "RNN in place 1.0", "RNN in place 2"]
    assert names(place=0, layer=1) == ["LSTM in place 0, layer 1"] and names(place="1.0") == ["RNN in place 1.0"]
    first, second = (strip(view, "x") for view in read(tmp_path / "page.html")["views"] * 2)
    explore(model, x, place=2, path=tmp_path / "page.html")
    assert not np.allclose(strip(read(tmp_path / "page.html")["views"][0], "x"), first)     # each use has its own input
    assert not {"forward", "backward"} & vars(shared).keys()


def test_of_many_units_and_steps_some_are_shown(tmp_path):
    rng = np.random.default_rng(2)
    net = random_layer(rng, "GRU", 1, 40, backend="reference")
    x = rng.normal(size=(1, 120, 1)).astype("float32")
    y = net.forward(x)[0].y[0]
    explore(net, x, path=tmp_path / "page.html")
    view = read(tmp_path / "page.html")["views"][0]
    assert view["axes"]["unit"] == list(range(32)) and view["sizes"]["unit"] == 40
    assert view["times"] == list(range(100)) and read(tmp_path / "page.html")["T"] == 120
    explore(net, x, path=tmp_path / "page.html", units=[3, 39], steps=range(110, 120))
    view = read(tmp_path / "page.html")["views"][0]
    assert_close(strip(view, "h"), y[110:, [3, 39]], "same formulas, float32")
    [sums] = [line["sums"] for line in view["forward"] if line["name"] == "a_hn"]
    assert len(view["tables"][sums[0][3]]) == 2 and len(view["tables"][sums[0][3]][0]) == 40    # terms of all the units


def test_states_lengths_and_a_loss_of_ones_own(tmp_path):
    rng = np.random.default_rng(3)
    net = random_layer(rng, "LSTM", 2, 3)
    x, h0 = rng.normal(size=(2, 3, 2)).astype("float32"), rng.normal(size=(1, 1, 2, 3)).astype("float32")

    def half(y, target, mask):
        assert mask.tolist() == [[True] * 3, [True, False, False]]
        return 0.5, target / 2

    explore(net, x, lengths=[3, 1], h0=h0, c0=-h0, target=np.ones((2, 3, 3)), loss=half, row=1,
            path=tmp_path / "page.html")
    data = read(tmp_path / "page.html")
    view = data["views"][0]
    values = {line["name"]: table(view, line["value"])[0] for line in view["forward"] + view["backward"]}
    assert_close(values["h_prev"], h0[0, 0, 1], "onnxruntime, float32")
    assert_close(values["c_prev"], -h0[0, 0, 1], "onnxruntime, float32")
    assert data["loss"] == 0.5 and data["gradient"] == "half" and values["dh"].tolist() == [0.5] * 3


def test_without_a_gradient_there_is_no_backward_part(tmp_path):
    explore(minilstm.LSTM(1, 2), np.ones((1, 2, 1), "float32"), path=tmp_path / "page.html")
    data = read(tmp_path / "page.html")
    [view] = data["views"]
    assert data["gradient"] is None and view["backward"] == [] and view["strips"]["backward"] == []


def test_a_sequence_of_masked_steps_alone(tmp_path):
    x, mask = np.full((1, 2, 1), np.nan, "float32"), np.zeros((1, 2), bool)
    explore(minilstm.GRU(1, 2), x, mask, path=tmp_path / "page.html")
    view = read(tmp_path / "page.html")["views"][0]
    assert view["real"] == [False, False] and view["forward"] == []


def test_a_nan_that_is_real_is_shown(tmp_path):
    x = np.ones((1, 2, 1), "float32")
    x[0, 1] = np.nan
    explore(minilstm.RNN(1, 2), x, path=tmp_path / "page.html")
    view = read(tmp_path / "page.html")["views"][0]
    [h] = [number for name, _, number in view["strips"]["forward"] if name == "h"]
    assert view["tables"][h][1] == ["nan", "nan"]
    explore(minilstm.RNN(1, 2), x, target=np.ones((1, 2, 2), "float32"), path=tmp_path / "page.html")
    assert read(tmp_path / "page.html")["loss"] == "nan"


def test_the_page_is_whole_and_nothing_in_it_leads_out(tmp_path):
    """No address, no file beside it; and a text that looks like HTML stays a text."""
    class Odd(minilstm.RNN):
        def __repr__(self):
            return "</script><b>&{{data}}\u2028<!-- <script>"

    path = explore(Odd(1, 2), np.ones((1, 2, 1), "float32"), path=tmp_path / "page.html")
    text = Path(path).read_text()
    assert read(tmp_path / "page.html")["model"] == repr(Odd(1, 2)) and "<b>" not in text and "<!-- " not in text
    assert text.count("</script>") == 2 and "{{" not in text.replace("{{data}}", "", 1)
    assert "://" not in text and not re.search(r"\bsrc=|url\(|@import|\bfetch\b|XMLHttp", text)
    assert re.findall(r'href="(.*?)"', text) == ["data:,"]


def test_a_page_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    def full_disk(file):
        raise OSError("no space left")

    net, x, path = minilstm.RNN(1, 2), np.ones((1, 2, 1), "float32"), tmp_path / "page.html"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        explore(net, x, path=path)
    monkeypatch.undo()
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["page.html"]
    assert explore(net, x, path=path) == str(path) and read(path)["T"] == 2 and os.listdir(tmp_path) == ["page.html"]
    with pytest.raises(FileNotFoundError):
        explore(net, x, path=tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize("arguments, error, words", [
    ({"model": minilstm.Linear(2, 3)}, TypeError, "model: expected an LSTM, GRU or RNN, or .*, got Linear"),
    ({"model": minilstm.Sequential(minilstm.Linear(2, 3))}, TypeError, "model: expected .* got Sequential of Linear"),
    ({"model": minilstm.RNN(2, 3, zoneout_h=0.5)}, ValueError, "model: expected layers without zoneout, got .*0.5"),
    ({"x": [1, 2]}, TypeError, "x: expected a NumPy array .B,T,D., got list"),
    ({"x": np.ones((2, 0, 2), "float32")}, ValueError, "x: expected .* T > 0, got float32 .2, 0, 2."),
    ({"x": np.ones((2, 3, 2), "float16")}, TypeError, "x: expected float32 or float64, got float16"),
    ({"mask": np.ones((2, 4), bool)}, ValueError, "mask: expected shape .B=2, T=3."),
    ({"row": 2}, ValueError, "row: expected less than B=2, got 2"),
    ({"layer": 1}, ValueError, r"layer: expected one of \[0\], got 1"),
    ({"direction": 1}, ValueError, r"direction: expected one of \[0\], got 1"),
    ({"place": 0}, ValueError, r"place: expected one of \[''\], got '0'"),
    ({"units": [0, 3]}, ValueError, r"units: expected numbers from 0 to 2, rising, such as range\(3\), got \[0, 3\]"),
    ({"units": [1, 0]}, ValueError, "units: expected numbers from 0 to 2, rising"),
    ({"steps": 3}, ValueError, "steps: expected numbers from 0 to 2, rising, .* got 3"),
    ({"steps": []}, ValueError, "steps: expected numbers from 0 to 2, rising"),
    ({"dy": np.ones((2, 3, 4), "float32")}, ValueError, "dy: expected .*got float64 .2, 3, 4."),
    ({"target": np.ones((2, 3), "float32")}, ValueError, "target: expected float64 .2, 3, 3., as y is"),
    ({"target": np.ones((2, 3, 3)), "dy": np.ones((2, 3, 3))}, ValueError, "target, dy: expected at most one"),
    ({"loss": minilstm.mean_squared_error}, ValueError, "loss: expected None without a target"),
    ({"training": True, "draw": 1}, ValueError, "draw, training: expected none of them"),
])
def test_bad_input_is_named(arguments, error, words, tmp_path):
    known = {"model": minilstm.LSTM(2, 3), "x": np.ones((2, 3, 2), "float32"), "path": tmp_path / "page.html"}
    with pytest.raises(error, match=words):
        explore(**(known | arguments))
    assert not os.listdir(tmp_path)
