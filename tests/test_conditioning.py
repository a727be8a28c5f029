"""Models that take a condition beside the sequence: how they are called, and trained."""
import numpy as np
import pytest

import minilstm
from helpers import same_bits
from minilstm.checks import check_gradients
from minilstm.layers.layer import ConditionedGradients, Layer


class Scaled(Layer):
    """y = x * (condition @ weight): the least that combines the two."""
    takes_condition = True

    def __init__(self, C, D, dtype="float32"):
        super().__init__(dtype, "reference")
        self._own("weight", np.random.default_rng(C).normal(size=(C, D)))

    def forward(self, x, condition, *, cache=True):
        factor = condition @ self._param("weight")
        return x * factor[:, None], (x, condition, factor) if cache else None

    def backward(self, cache, dy):
        x, condition, factor = cache
        d_factor = (dy * x).sum(axis=1)
        self._add_grads({"weight": condition.T @ d_factor})
        return ConditionedGradients(dy * factor[:, None], d_factor @ self._param("weight").T)


def test_a_model_gives_its_condition_to_each_layer_that_takes_one_and_sums_the_gradients():
    """Two such layers, one of them in a model of its own."""
    rng = np.random.default_rng(0)
    inner = minilstm.Sequential(Scaled(4, 3), minilstm.Linear(3, 5))
    model = minilstm.Sequential(minilstm.LSTM(2, 3), inner, Scaled(4, 5), minilstm.Linear(5, 2))
    assert inner.takes_condition and model.takes_condition
    assert not minilstm.Sequential(minilstm.RNN(1, 1)).takes_condition
    x, condition = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 4))
    mask = np.arange(6) < np.array([6, 0, 4])[:, None]
    report = check_gradients(model, x=x, condition=condition, mask=mask)
    assert report.ok and [row.name for row in report.rows][:2] == ["x", "condition"], report


@pytest.mark.parametrize("layers, given, words", [
    ([minilstm.RNN(2, 2)], {"condition": np.ones((3, 4))}, "condition: expected none in this model, got condition"),
    ([minilstm.RNN(2, 2)], {"condition_mask": np.ones((3, 4))}, "condition: expected none .* got condition_mask"),
    ([Scaled(4, 2)], {}, "condition: expected an array, which a layer of this model takes, got None"),
])
def test_a_model_says_whether_it_takes_a_condition(layers, given, words):
    with pytest.raises(ValueError, match=words):
        minilstm.Sequential(*layers).forward(np.zeros((3, 5, 2), "float32"), **given)


def sign_task(rng, N=64, T=6):
    """The condition says whether x comes out as it is or negated."""
    x = rng.normal(size=(N, T, 1)).astype("float32")
    condition = rng.choice([-1.0, 1.0], size=(N, 1)).astype("float32")
    return x, condition, x * condition[:, None]


def test_fit_takes_what_a_model_reads_by_name():
    x, condition, target = sign_task(np.random.default_rng(1))
    model = Scaled(1, 1)
    inputs = {"x": x, "condition": condition}
    history = minilstm.fit(model, inputs, target, epochs=60, batch_size=16, optimizer=minilstm.Adam(0.1))
    assert history[-1] < 1e-3 * history[0]


def test_fit_with_a_dict_of_x_alone_is_fit_with_x():
    x, _, target = sign_task(np.random.default_rng(2))
    mask = np.random.default_rng(3).random(x.shape[:2]) < 0.7
    trained = []
    for given in (x, {"x": x}):
        model = minilstm.Sequential(minilstm.LSTM(1, 3), minilstm.Linear(3, 1))
        minilstm.fit(model, given, target, mask, epochs=2)
        trained.append(model.state_dict())
    assert all(same_bits(trained[0][name], p) for name, p in trained[1].items())


class Forecast(Layer):
    """No x: history (B,T) and known (B,S) -> y (B,S,1), of another length than the history."""

    def __init__(self):
        super().__init__("float32", "reference")
        self._own("weight", np.ones(2))

    def forward(self, history, known):
        y = self._param("weight")[0] * history[:, -1:, None] + self._param("weight")[1] * known[:, :, None]
        return y, (history, known)

    def backward(self, cache, dy):
        history, known = cache
        self._add_grads({"weight": np.array([(dy * history[:, -1:, None]).sum(), (dy * known[:, :, None]).sum()])})


def test_where_there_is_no_x_the_target_says_which_steps_there_are():
    rng = np.random.default_rng(4)
    history, known = rng.normal(size=(20, 7)).astype("float32"), rng.normal(size=(20, 3)).astype("float32")
    target = (2 * history[:, -1:] - 3 * known)[:, :, None]
    counts = rng.random((20, 3)) < 0.5
    target[~counts] = np.nan                        # what does not count is never read
    model, inputs = Forecast(), {"history": history, "known": known}
    minilstm.fit(model, inputs, target, loss_mask=counts, epochs=150, batch_size=6, optimizer=minilstm.Adam(0.1))
    assert np.allclose(model.params["weight"], [2, -3], atol=1e-2)


class Forgets(minilstm.Linear):
    """A layer that takes a mask and does not say so."""

    def __init__(self):
        super().__init__(1, 1)

    def forward(self, x, mask=None, *, cache=True):
        return super().forward(x, cache=cache)


@pytest.mark.parametrize("change, error, words", [
    ({"x": {"condition": np.ones((3, 1), "float32")}}, ValueError,
     r"condition: expected .* \(N=64,...\), got float32 \(3, 1\)"),
    ({"x": {"condition": [1.0]}}, TypeError, r"condition: expected a NumPy array \(N=64,...\), got list"),
    ({"x": {"x": [1.0]}}, TypeError, "x: expected a NumPy array, got list"),
    ({"x": {"x": np.zeros((64, 9, 1), "float32")}}, ValueError, "target: expected 3 axes, .* as in x, got"),
    ({"x": {"a": np.zeros((64, 9), "float32")}, "mask": np.ones((64, 9), bool)}, ValueError,
     r"mask: expected 2 axes, .* as in target, got bool \(64, 9\)"),
    ({"target": np.zeros((64, 5), "float32")}, ValueError, "target: expected 3 axes, .*; .* or says pools = True"),
    ({"model": Forgets(), "mask": np.ones((64, 5), bool)}, ValueError, "mask: Forgets .* say takes_mask = True"),
    ({"model": minilstm.Pooling("last")}, ValueError, "model: expected one with parameters, got a Pooling without"),
    ({"model": minilstm.Sequential(minilstm.Linear(1, 1), minilstm.Pooling("last")),
      "target": np.zeros(64, "float32")}, ValueError, r"target: expected 2 axes, \(N,...\), .*target\[..., None\] g"),
    ({"model": minilstm.GRU(1, 1), "x": {"lengths": np.full(64, 3)}}, ValueError, "x: expected a dict without lengths"),
    ({"x": {"training": np.zeros((64, 9), "float32")}}, ValueError, "x: expected a dict without training"),
])
def test_inputs_that_do_not_fit_together_are_named(change, error, words):
    x, _, target = sign_task(np.random.default_rng(5))
    with pytest.raises(error, match=words):
        minilstm.fit(**({"model": Scaled(1, 1), "x": x, "target": target, "epochs": 1} | change))


def test_an_input_that_is_not_finite_is_named():
    x, condition, target = sign_task(np.random.default_rng(6))
    condition[5] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss is nan; condition\[5, 0\] is nan"):
        minilstm.fit(Scaled(1, 1), {"x": x, "condition": condition}, target, epochs=1)
