"""Every way to bring a condition into a model of sequences: values, gradients, masks, files, errors."""
import json
import warnings

import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, same_bits
from minilstm.attention import OneKeyWarning
from minilstm.checks import check_gradients, check_interaction, interaction
from minilstm.conditioning import (STRATEGIES, AttendConditions, AttendTime, Concatenated, Conditioned, CovariateLSTM,
                                   FiLM, Gated, Late)
from minilstm.layers import FormatError, load, save


CASES = [(strategy, kind) for strategy in STRATEGIES for kind in ("LSTM", "GRU", "RNN")
         if kind == "LSTM" or strategy != "gated_cell"]
QUICK = [case if case[1] == "LSTM" or case == ("gate_bias", "GRU") else pytest.param(*case, marks=pytest.mark.long)
         for case in CASES]
MASK = np.array([[1, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]], bool)


def randomised(rng, layer):
    """The layer, with every weight and every bias random and non-zero."""
    for _, owner in layer.walk():
        for name, p in owner.params.items():
            owner.params[name] = (rng.normal(size=p.shape) * 0.6).astype(p.dtype)
    return layer


def random_condition(rng, strategy, B, C, M=4):
    return rng.normal(size=(B, M, C) if strategy in ("attend_conditions", AttendConditions) else (B, C))


def both_passes(net, x, condition, dy, **options):
    """dict of y and every gradient, from zero gradients."""
    y, cache = net.forward(x, condition=condition, **options)
    for layer in (net, *[layer for _, layer in net.walk()]):
        layer.zero_grads()
    dx, dcondition = net.backward(cache, dy)
    grads = {prefix + name: g.copy() for prefix, layer in net.walk() for name, g in layer.grads.items()}
    return {"y": y, "dx": dx, "dcondition": dcondition} | grads


@pytest.mark.parametrize("strategy, kind", QUICK)
def test_gradients(strategy, kind):
    """Of x, the condition and all weights, with holes, an empty row, sizes that differ and sizes that are equal."""
    rng = np.random.default_rng(0)
    sizes = ((2, 4, 3, {}), (3, 3, 3, {}), (1, 2, 2, {"bidirectional": True}))
    for D, C, H, options in sizes[:3 if kind == "LSTM" else 1]:
        net = randomised(rng, Conditioned(strategy, D, C, H, kind=kind, **options))
        report = check_gradients(net, methods=("complex step", "projection"), max_entries=12, mask=MASK,
                                 x=rng.normal(size=(3, 5, D)), condition=random_condition(rng, strategy, 3, C))
        assert report.ok and all(row.largest > 0 for row in report.rows), report


@pytest.mark.parametrize("options", [{"num_layers": 2, "bidirectional": True}, {"reverse": True}])
@pytest.mark.parametrize("strategy", ["gate_bias", "initial_state", "film", "attend_time"])
def test_gradients_with_more_layers_and_from_the_end(strategy, options):
    rng = np.random.default_rng(1)
    net = randomised(rng, Conditioned(strategy, 2, 4, 3, **options))
    report = check_gradients(net, methods=("complex step",), max_entries=12, mask=MASK, x=rng.normal(size=(3, 5, 2)),
                             condition=random_condition(rng, strategy, 3, 4))
    assert report.ok and all(row.largest > 0 for row in report.rows), report


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.long)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_cpu_equals_reference(strategy, dtype):
    rng = np.random.default_rng(2)
    for B, T, D, C, H in ((3, 5, 2, 6, 4), (9, 9, 3, 3, 3)):
        nets = [randomised(np.random.default_rng(3), Conditioned(strategy, D, C, H, dtype=dtype, backend=backend))
                for backend in ("reference", "cpu")]
        x, condition = rng.normal(size=(B, T, D)).astype(dtype), random_condition(rng, strategy, B, C).astype(dtype)
        dy = rng.normal(size=(B, T, nets[0].output_size)).astype(dtype)
        for mask in masks(rng, B, T).values():
            expected, found = (both_passes(net, x, condition, dy, mask=mask) for net in nets)
            for name in expected:
                assert found[name].dtype == dtype
                assert_close(found[name], expected[name], f"same formulas, {dtype}", name)


@pytest.mark.parametrize("kind, options", [
    ("LSTM", {}), ("LSTM", {"proj_size": 2, "num_layers": 2}), ("GRU", {"bidirectional": True}),
    ("RNN", {"reverse": True}),
    *(pytest.param(*others, marks=pytest.mark.long) for others in (
        ("LSTM", {"layer_norm": True}), ("GRU", {"reset_after": False}), ("GRU", {"layer_norm": True})))])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_condition_beside_x_is_a_bias_of_the_gates(kind, options, backend):
    """The same function with the same seed, and the same gradients: the columns of W that read the condition are the
    weights of the bias."""
    rng = np.random.default_rng(4)
    B, T, D, C, H = 4, 5, 2, 6, 3
    options = {"kind": kind, "dtype": "float64", "backend": backend, "seed": 5} | options
    concat, bias = (Conditioned(strategy, D, C, H, **options) for strategy in ("concat", "gate_bias"))
    x, condition, dy = (rng.normal(size=shape) for shape in ((B, T, D), (B, C), (B, T, concat.output_size)))
    for mask in masks(rng, B, T).values():
        expected, found = (both_passes(net, x, condition, dy, mask=mask) for net in (concat, bias))
        for name, array in expected.items():
            other = found[name]
            if name.startswith("recurrent.weight_ih_l0"):
                suffix = name.removeprefix("recurrent.weight_ih_")
                other = np.concatenate([other, found[f"condition.{suffix}.weight"]], axis=1)
            assert_close(other, array, "same formulas, float64", name)
            assert name != "dcondition" or mask is not None and not mask.any() or np.abs(array).max() > 1e-3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_padding_changes_nothing(strategy):
    """More of it, before and behind and within, of NaN and 1e300; and a NaN condition of a row without a real step.
    Nothing warns."""
    rng = np.random.default_rng(6)
    B, T, D, C = 3, 5, 2, 4
    net = randomised(rng, Conditioned(strategy, D, C, 3, dtype="float64"))
    x, condition = rng.normal(size=(B, T, D)), random_condition(rng, strategy, B, C)
    dy = rng.normal(size=(B, T, net.output_size))
    expected = both_passes(net, np.where(MASK[:, :, None], x, 0), condition, dy, mask=MASK)
    assert not expected["dcondition"][1].any() and not expected["dx"][~MASK].any() and not expected["y"][~MASK].any()
    pad, told = ((0, 0), (2, 3), (0, 0)), condition.copy()
    told[1] = np.nan
    for rubbish in (np.nan, np.inf, 1e300):
        padded = [np.pad(np.where(MASK[:, :, None], a, rubbish), pad, constant_values=rubbish) for a in (x, dy)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = both_passes(net, padded[0], told, padded[1], mask=np.pad(MASK, pad[:2]))
        for name in ("y", "dx"):
            assert not found[name][:, :2].any() and not found[name][:, 7:].any()
            found[name] = found[name][:, 2:7]
        for name in expected:
            assert_close(found[name], expected[name], "same formulas, float64", name)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rubbish", [np.nan, np.inf])
def test_a_condition_that_is_not_finite_shows_in_its_row_alone(strategy, rubbish):
    rng = np.random.default_rng(7)
    net = randomised(rng, Conditioned(strategy, 2, 4, 3))
    x, condition = (a.astype("float32") for a in (rng.normal(size=(3, 5, 2)), random_condition(rng, strategy, 3, 4)))
    expected, _ = net.forward(x, condition)
    condition[1, ..., 2] = rubbish
    found, _ = net.forward(x, condition)
    assert np.isnan(found[1]).any(axis=1).all()
    assert same_bits(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("layer_class", [FiLM, Gated, Late, Concatenated, AttendTime])
def test_nor_does_it_reach_the_gradient_of_a_masked_step(layer_class):
    rng = np.random.default_rng(23)
    layer, x, condition = layer_class(2, 4), np.ones((3, 5, 2), "float32"), np.ones((3, 4), "float32")
    condition[0] = np.nan
    y, cache = layer.forward(x, condition, MASK)
    assert not layer.backward(cache, rng.normal(size=y.shape).astype("float32")).dx[~MASK].any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_does_not_know_the_others(strategy, backend):
    """Each row alone, and the batch in another order."""
    rng = np.random.default_rng(8)
    net = randomised(rng, Conditioned(strategy, 2, 4, 3, dtype="float64", backend=backend))
    x, condition, order = rng.normal(size=(4, 4, 2)), random_condition(rng, strategy, 4, 4), [2, 0, 3, 1]
    y, _ = net.forward(x, condition)
    assert_close(net.forward(x[order], condition[order])[0], y[order], "same formulas, float64")
    for b in range(4):
        assert_close(net.forward(x[b:b + 1], condition[b:b + 1])[0], y[b:b + 1], "same formulas, float64")


def test_what_stands_behind_the_recurrence_is_its_formula():
    """Written out once more, from h of the recurrent layer inside."""
    rng = np.random.default_rng(9)
    x, c = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 4))
    for strategy, formula in {
        "late": lambda h, p: np.concatenate([h, np.tile(np.tanh(p("branch"))[:, None], (1, 5, 1))], axis=2),
        "film": lambda h, p: (1 + p("gamma"))[:, None] * h + p("beta")[:, None],
        "gated": lambda h, p: h / (1 + np.exp(-p("gate")))[:, None] + np.tanh(p("shift"))[:, None],
    }.items():
        net = randomised(rng, Conditioned(strategy, 2, 4, 3, dtype="float64"))
        state = net.state_dict()
        h = net.recurrent.forward(x)[0].y
        expected = formula(h, lambda name: c @ state[f"condition.{name}.weight"].T + state[f"condition.{name}.bias"])
        assert_close(net.forward(x, c)[0], expected, "same formulas, float64", strategy)


def test_an_initial_state_is_what_the_recurrent_layer_begins_with():
    rng = np.random.default_rng(10)
    net = randomised(rng, Conditioned("initial_state", 2, 4, 3, num_layers=2, bidirectional=True, dtype="float64"))
    x, c, p = rng.normal(size=(5, 6, 2)), rng.normal(size=(5, 4)), net.state_dict()
    h0, c0 = (c @ p[f"condition.{s}0.weight"].T + p[f"condition.{s}0.bias"] for s in "hc")
    states = [s.reshape(5, 2, 2, 3).transpose(1, 2, 0, 3).copy() for s in (np.tanh(h0), c0)]
    assert_close(net.forward(x, c)[0], net.recurrent.forward(x, None, *states)[0].y, "same formulas, float64")


def test_a_set_of_conditions_has_no_order_and_may_be_ragged():
    """A masked vector may hold anything; an empty set leaves what the sequence says; one vector is pointed out."""
    rng = np.random.default_rng(11)
    net = randomised(rng, Conditioned("attend_conditions", 2, 4, 3, dtype="float64"))
    x, c, dy = rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 6, 4)), rng.normal(size=(3, 5, 6))
    real = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 1, 1], [0] * 6], bool)
    expected = both_passes(net, x, c, dy, condition_mask=real)
    order = [3, 5, 0, 1, 4, 2]
    c[~real] = np.nan
    found = both_passes(net, x, c[:, order], dy, condition_mask=real[:, order])
    found["dcondition"] = found["dcondition"][:, np.argsort(order)]
    for name in expected:
        assert_close(found[name], expected[name], "same formulas, float64", name)
    assert not found["dcondition"][~real].any() and not found["y"][2, :, 3:].any()
    assert_close(found["y"][:, :, :3], net.recurrent.forward(x)[0].y, "same formulas, float64")
    with pytest.warns(OneKeyWarning):
        net.forward(x, c[:, 1:2])


def test_attention_over_time_does_not_see_what_comes():
    rng = np.random.default_rng(12)
    net = randomised(rng, Conditioned("attend_time", 2, 4, 3))
    x, c = rng.normal(size=(3, 6, 2)).astype("float32"), rng.normal(size=(3, 4)).astype("float32")
    y, _ = net.forward(x, c)
    x[:, 4:] += 1
    assert same_bits(net.forward(x, c)[0][:, :4], y[:, :4])


# ------------------------------------------------------------------------------------------------------- interaction

@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_late_fusion_with_one_linear_layer_cannot_combine(strategy):
    rng = np.random.default_rng(13)
    for C in (3, 4):
        net = randomised(rng, Conditioned(strategy, 2, C, 4))
        model = minilstm.Sequential(net, randomised(rng, minilstm.Linear(net.output_size, 2)))
        x, c = rng.normal(size=(5, 6, 2)), random_condition(rng, strategy, 5, C)
        mask = rng.random((5, 6)) < 0.8
        report = check_interaction(model, x, c, mask)
        assert min(report.of_x, report.of_condition) > 1e-3, report
        assert report.combines == (strategy != "late") and ("cannot" in str(report)) == (strategy == "late"), report
        if strategy == "late":
            assert report.of_both < 1e-14 * max(report.of_x, report.of_condition)
    pooled = minilstm.Sequential(net, minilstm.Pooling("last"), minilstm.Linear(net.output_size, 1))
    assert check_interaction(pooled, x, c, mask).combines == (strategy != "late")


def test_late_fusion_combines_with_more_than_one_layer_on_top():
    rng = np.random.default_rng(14)
    model = randomised(rng, minilstm.Sequential(Conditioned("late", 2, 3, 4), minilstm.LSTM(8, 4)))
    assert check_interaction(model, rng.normal(size=(4, 5, 2)), rng.normal(size=(4, 3))).combines


def test_interaction_is_the_mixed_difference():
    x1, x2, c1, c2 = np.random.default_rng(15).normal(size=4)
    assert abs(interaction(lambda x, c: x * c + 3 * x - c**2, x1, x2, c1, c2) - (x1 - x2) * (c1 - c2)) < 1e-12


@pytest.mark.parametrize("model, change, error, words", [
    (minilstm.LSTM(2, 3), {}, ValueError, "model: expected one that takes a condition, got LSTM"),
    (FiLM(2, 3), {"x": [1]}, TypeError, "x: expected a NumPy array, got list"),
    (FiLM(2, 3), {"condition": np.ones((3, 3))}, ValueError, r"condition: expected B > 1 rows.*, got float64 \(3, 3\)"),
    (FiLM(2, 3), {"mask": np.eye(4, dtype=bool)}, ValueError, "mask: expected two neighbouring rows with a real step"),
    (FiLM(2, 3), {"x": np.where(np.arange(32.0) == 5, np.nan, np.arange(32.0)).reshape(4, 4, 2)}, ValueError,
     "x, condition: expected numbers for which the model's output is finite"),
    (FiLM(2, 3), {"condition": np.ones((4, 3))}, ValueError, "condition: expected rows that differ, got 4 times"),
    (FiLM(2, 3), {"x": np.ones((4, 4, 2))}, ValueError, "x: expected rows that differ, got 4 times the same"),
])
def test_interaction_says_what_it_cannot_compare(model, change, error, words):
    x, condition = np.arange(32.0).reshape(4, 4, 2), np.arange(12.0).reshape(4, 3)
    with pytest.raises(error, match=words):
        check_interaction(model, **({"x": x, "condition": condition} | change))


# --------------------------------------------------------------------------------------------- in models, and in files

LAYERS = [(AttendConditions, {"heads": 3, "score": "additive"}), (AttendTime, {"attention_size": 5}),
          (Concatenated, {}), (FiLM, {}), (Gated, {}), (Late, {"branch_size": 2})]


@pytest.mark.parametrize("layer_class, options", LAYERS)
def test_each_layer_of_a_strategy_stands_alone_in_a_model(layer_class, options):
    rng = np.random.default_rng(16)
    layer = layer_class(3, 4, **options)
    model = randomised(rng, minilstm.Sequential(minilstm.LSTM(2, 3), layer, minilstm.Linear(layer.output_size, 1)))
    report = check_gradients(model, methods=("complex step",), max_entries=12, mask=MASK, x=rng.normal(size=(3, 5, 2)),
                             condition=random_condition(rng, layer_class, 3, 4))
    assert report.ok and all(row.largest > 0 for row in report.rows), report


def test_two_conditioned_layers_on_top_of_each_other():
    rng = np.random.default_rng(17)
    model = randomised(rng, minilstm.Sequential(
        Conditioned("initial_state", 2, 4, 3, kind="GRU"), Conditioned("gate_bias", 3, 4, 2), minilstm.Linear(2, 1)))
    report = check_gradients(model, methods=("complex step",), max_entries=12, mask=MASK, x=rng.normal(size=(3, 5, 2)),
                             condition=rng.normal(size=(3, 4)))
    assert report.ok, report


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_holds_them(strategy, tmp_path):
    rng = np.random.default_rng(18)
    options = {} if strategy == "gated_cell" else {"num_layers": 2, "dropout": 0.5}
    net = Conditioned(strategy, 2, 3, 4, bidirectional=True, recurrent_dropout=0.25, seed=7, **options)
    F = net.output_size
    layers = [] if strategy == "attend_conditions" else [Concatenated(F, 3), FiLM(F + 3, 3), Gated(F + 3, 3),
                                                         Late(F + 3, 3, branch_size=1), AttendTime(F + 4, 3, heads=1)]
    model = minilstm.Sequential(net, *layers)
    x, c = (a.astype("float32") for a in (rng.normal(size=(3, 5, 2)), random_condition(rng, strategy, 3, 3)))
    save(tmp_path / "model", randomised(rng, model))
    for backend in ("cpu", "reference"):
        loaded = load(tmp_path / "model", backend=backend)
        assert loaded.layers[0].arguments() == net.arguments() and loaded.layers[0].recurrent.backend == backend
        for given in ({}, {"training": True, "draw": 3}):
            y, other = (m.forward(x, condition=c, **given)[0] for m in (model, loaded))
            assert_close(other, y, "same formulas, float32") if backend == "reference" else None
            assert backend == "reference" or same_bits(other, y)


@pytest.mark.parametrize("name", ["input_size", "condition_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_damaged_file_cannot_ask_for_all_memory(strategy, name, tmp_path, monkeypatch):
    """Nothing of that size is ever drawn, or made."""
    if (strategy, name) == ("gated_cell", "num_layers"):
        return
    net = Conditioned(strategy, 2, 3, 4)
    net.arguments = lambda: Conditioned.arguments(net) | {name: 10**6}
    save(tmp_path / "model", net)
    monkeypatch.setattr(Conditioned, "__init__", None)
    with pytest.raises(FormatError, match="more than its tensors hold"):
        load(tmp_path / "model")


def test_a_covariate_lstm_is_saved_too(tmp_path):
    rng = np.random.default_rng(19)
    net = randomised(rng, CovariateLSTM(2, 3, 4, bidirectional=True, merge="sum", zoneout_h=0.25))
    save(tmp_path / "net", net)
    assert json.loads(json.dumps(net.arguments())) == load(tmp_path / "net").arguments()
    x = rng.normal(size=(3, 4, 5)).astype("float32")
    assert same_bits(load(tmp_path / "net").forward(x)[0].y, net.forward(x)[0].y)


def test_a_draw_can_be_repeated():
    rng = np.random.default_rng(20)
    net = Conditioned("film", 2, 3, 4, recurrent_dropout=0.5)
    x, c = rng.normal(size=(3, 5, 2)).astype("float32"), rng.normal(size=(3, 3)).astype("float32")
    one, again, other = (net.forward(x, c, training=True, draw=draw)[0] for draw in (3, 3, 4))
    assert same_bits(one, again) and not same_bits(one, other)


def test_without_a_cache_the_bits_are_the_same():
    rng = np.random.default_rng(21)
    for strategy in STRATEGIES:
        net = Conditioned(strategy, 2, 3, 4)
        x, c = (a.astype("float32") for a in (rng.normal(size=(3, 5, 2)), random_condition(rng, strategy, 3, 3)))
        (y, _), (other, nothing) = net.forward(x, c, MASK), net.forward(x, c, MASK, cache=False)
        assert same_bits(y, other) and nothing is None


def test_training_learns_to_switch_and_late_fusion_does_not():
    """The condition says whether x comes out as it is or negated, and each x comes with both.  An additive model can
    do no better than 0."""
    rng = np.random.default_rng(22)
    x, condition = np.tile(rng.normal(size=(64, 4, 1)), (2, 1, 1)), np.repeat([-1.0, 1.0], 64)[:, None]
    x, condition = x.astype("float32"), condition.astype("float32")
    target = x * condition[:, None]
    losses = {}
    for strategy in ("late", "film", "gate_bias"):
        net = Conditioned(strategy, 1, 1, 12)
        model = minilstm.Sequential(net, minilstm.Linear(net.output_size, 1))
        losses[strategy] = minilstm.fit(model, {"x": x, "condition": condition}, target, epochs=40,
                                        optimizer=minilstm.Adam(0.02))[-1]
    assert losses["late"] > 0.95 * np.mean(target**2)
    assert max(losses["film"], losses["gate_bias"]) < 0.15 * np.mean(target**2)


# ------------------------------------------------------------------------------------------------------------- errors

@pytest.mark.parametrize("arguments, options, error, words", [
    (("add", 2, 3, 4), {}, ValueError, "strategy: expected one of 'concat', .*, got 'add'"),
    (("film", 2, 0, 4), {}, ValueError, "condition_size: expected a positive integer, got 0"),
    (("film", 2.5, 3, 4), {}, ValueError, "input_size: expected a positive integer, got 2.5"),
    (("film", 2, 3, -1), {}, ValueError, "hidden_size: expected a positive integer, got -1"),
    (("film", 2, 3, 4), {"kind": "CNN"}, ValueError, "kind: expected one of 'LSTM', 'GRU', 'RNN', got 'CNN'"),
    (("gated_cell", 2, 3, 4), {"kind": "GRU"}, ValueError, "kind: expected 'LSTM', .*, got 'GRU'"),
    (("gated_cell", 2, 3, 4), {"num_layers": 2}, TypeError, "num_layers: expected options of CovariateLSTM, bidirect"),
    (("film", 2, 3, 4), {"kind": "GRU", "peephole": True}, TypeError, "peephole: expected options of GRU, reset_after"),
    (("film", 2, 3, 4), {"backend": "gpu"}, ValueError, "backend: expected one of .*, got 'gpu'"),
    (("film", 2, 3, 4), {"dtype": "int8"}, ValueError, "dtype: expected one of .*, got 'int8'"),
])
def test_bad_arguments_are_named(arguments, options, error, words):
    with pytest.raises(error, match=words):
        Conditioned(*arguments, **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("change, error, words", [
    ({"condition": None}, TypeError, r"condition: expected a plain NumPy array float32 \(B=3, .*C=4\), got NoneType"),
    ({"condition": "float64"}, TypeError, r"condition: expected float32 .*, got float64 .*astype\('float32'\)"),
    ({"condition": "another width"}, ValueError, r"condition: expected float32 \(B=3, .*C=4\), got"),
    ({"condition": "another batch"}, ValueError, r"condition: expected float32 \(B=3, .*C=4\), got"),
    ({"condition": "another kind"}, ValueError, r"condition: expected .*C=4\).*, got .*'attend_"),
    ({"x": np.ones((3, 5), "float32")}, ValueError, r"x: expected float32 \(B, T, D=2\), got float32 \(3, 5\)"),
    ({"mask": np.ones((3, 4), bool)}, ValueError, r"mask: expected shape \(B=3, T=5\)"),
    ({"cache": 1}, TypeError, "cache: expected True or False, got 1"),
])
def test_what_does_not_fit_is_named(strategy, change, error, words):
    right = np.ones((3, 7, 4) if strategy == "attend_conditions" else (3, 4), "float32")
    wrong = {"float64": right.astype("float64"), "another width": right[..., :3], "another batch": right[:2],
             "another kind": right[:, 0] if right.ndim == 3 else right[:, None]}
    if isinstance(change.get("condition"), str):
        change = {"condition": wrong[change["condition"]]}
    with pytest.raises(error, match=words):
        Conditioned(strategy, 2, 4, 3).forward(**({"x": np.ones((3, 5, 2), "float32"), "condition": right} | change))


def test_a_mask_of_conditions_needs_a_set():
    arrays = np.ones((3, 5, 2), "float32"), np.ones((3, 4), "float32")
    with pytest.raises(ValueError, match=r"condition_mask: expected None with 'film', .* got bool \(3, 1\)"):
        Conditioned("film", 2, 4, 3).forward(*arrays, condition_mask=np.ones((3, 1), bool))
    with pytest.raises(TypeError, match=r"condition_mask: expected a bool array \(B=3, M=7\).*, got float64"):
        Conditioned("attend_conditions", 2, 4, 3).forward(arrays[0], np.ones((3, 7, 4), "float32"),
                                                          condition_mask=np.ones((3, 7)))


def test_a_cache_of_another_layer_is_refused():
    x, c = np.ones((3, 5, 2), "float32"), np.ones((3, 4), "float32")
    film, late = Conditioned("film", 2, 4, 3), Conditioned("late", 2, 4, 3)
    y, cache = film.forward(x, c)
    with pytest.raises(ValueError, match="cache: expected one of this layer"):
        late.backward(cache, y)
    with pytest.raises(TypeError, match="cache: expected what forward returned beside its output, got NoneType"):
        film.backward(None, y)
    with pytest.raises(ValueError, match=r"dy: expected float32 \(B=3, T=5, F=3\), got float32 \(3, 5, 2\)"):
        film.backward(cache, x)


def test_a_file_holds_a_layer_without_weights_among_others(tmp_path):
    for model in (Concatenated(2, 3), minilstm.Sequential(Concatenated(2, 3), Concatenated(5, 3), Concatenated(8, 3),
                                                          minilstm.Linear(11, 1))):
        minilstm.save(tmp_path / "model", model)
        assert str(minilstm.load(tmp_path / "model")) == str(model)
