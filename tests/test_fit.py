"""What the training loop can do beyond the plain one of test_training.py: weights, accumulation, schedules, validation,
callbacks; and what it costs in memory."""
import gc
import tracemalloc
from functools import partial

import numpy as np
import pytest

import minilstm
from helpers import assert_close, same_bits
from minilstm import training


def a_task(rng, N=24, T=6, dtype="float64"):
    """Say the mean of the last two numbers."""
    x = rng.normal(size=(N, T, 1)).astype(dtype)
    target = x.copy()
    target[:, 1:] = (x[:, 1:] + x[:, :-1]) / 2
    return x, target


def a_model(dtype="float64", H=5, **options):
    return minilstm.Sequential(minilstm.LSTM(1, H, dtype=dtype, **options), minilstm.Linear(H, 1, dtype=dtype))


def same_weights(one, other):
    others = other.state_dict()
    return all(same_bits(p, others[name]) for name, p in one.state_dict().items())


@pytest.mark.parametrize("reduction", ["steps", "sequences", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_accumulated_batches_are_one_large_batch(reduction, weighted):
    """Ragged rows, so that batches have different numbers of steps, and many empty ones, so that some have none; to
    rounding, also the losses."""
    rng = np.random.default_rng()
    x, target = a_task(rng, N=23)
    mask = (np.arange(6) < rng.integers(1, 7, 23)[:, None]) & (rng.random((23, 1)) < 0.4)
    options = {"reduction": reduction, "weights": rng.uniform(0.1, 2, (23, 6)) if weighted else None}
    results = []
    for batch_size, accumulate in ((4, 3), (12, 1)):
        model = a_model()
        history = minilstm.fit(model, x, target, mask, epochs=4, batch_size=batch_size, accumulate=accumulate,
                               optimizer=minilstm.SGD(0.01), clip_norm=None, **options)
        results.append((model.state_dict(), history))
    (few, losses_few), (many, losses_many) = results
    assert np.allclose(losses_few, losses_many, rtol=1e-10)
    for name, p in few.items():
        assert_close(p, many[name], "gradients by rounding", name)


def test_one_step_is_the_gradient_of_the_weighted_loss():
    """With SGD the weights move by rate times the gradient of what is asked for."""
    rng = np.random.default_rng()
    x, target = a_task(rng)
    classes, of_classes = (target[..., 0] > 0).astype(int), np.array([0.3, 1.7])
    weights = rng.uniform(0.1, 2, (24, 6))
    model = minilstm.Sequential(minilstm.Linear(1, 2, dtype="float64"))
    before = model.state_dict()
    y, cache = model.forward(x)
    _, dy = minilstm.softmax_cross_entropy(y, classes, weights=weights, class_weights=of_classes, reduction="sequences")
    model.zero_grads()
    model.backward(cache, dy)
    expected = before["0.weight"] - 0.1 * model.layers[0].grads["weight"]
    minilstm.fit(model, x, classes, epochs=1, batch_size=24, loss=minilstm.softmax_cross_entropy, weights=weights,
                 class_weights=of_classes, reduction="sequences", optimizer=minilstm.SGD(0.1), clip_norm=None)
    assert_close(model.state_dict()["0.weight"], expected, "gradients by rounding")


def test_the_schedule_sets_the_rate_of_each_step():
    """Each step with a constant gradient is as long as the rate: the whole way is their sum.  In the end the optimizer
    has its own rate again."""
    net = minilstm.Linear(1, 1, bias=False, dtype="float64")
    net.params["weight"] = np.zeros((1, 1))
    optimizer = minilstm.SGD(0.5)
    history = minilstm.fit(net, np.ones((6, 1, 1)), np.zeros((6, 1, 1)), epochs=2, batch_size=2, optimizer=optimizer,
                           loss=lambda y, target, mask: (1.0, np.full_like(y, 0.5)), clip_norm=None,
                           schedule=training.StepDecay(2, times=0.5))
    assert history.rates == [0.25, 0.125] and optimizer.rate == 0.5
    assert net.params["weight"][0, 0] == -(0.5 + 0.5 + 0.25 + 0.25 + 0.125 + 0.125)


def test_validation_early_stopping_and_the_best_weights():
    """On few sequences with noise the validation loss rises in the end; the weights are those of where it was least."""
    rng = np.random.default_rng(4)
    x, target = a_task(rng, N=8)
    noisy = target + rng.normal(size=target.shape)
    fresh = a_task(rng, N=50)
    model, kept = a_model(H=20), []
    history = minilstm.fit(model, x, noisy, epochs=300, optimizer=minilstm.Adam(0.02), validation=fresh, patience=10,
                           callbacks=[lambda epoch: kept.append(epoch.model.state_dict())])
    best = int(np.argmin(history.validation))
    assert history.best_epoch == best + 1 and len(history) == best + 11 < 300
    assert history[-1] < history[best] and history.validation[-1] > history.validation[best]
    assert all(same_bits(p, kept[best][name]) for name, p in model.state_dict().items())
    assert minilstm.evaluate(model, *fresh, batch_size=32) == history.validation[best]


def test_without_patience_the_last_weights_stay():
    rng = np.random.default_rng(5)
    x, target = a_task(rng, N=8)
    model, plain = a_model(), a_model()
    history = minilstm.fit(model, x, target, epochs=3, validation=(x, target, np.ones((8, 6), bool)))
    minilstm.fit(plain, x, target, epochs=3)
    assert same_weights(model, plain) and len(history.validation) == 3
    assert history.validation[-1] == minilstm.evaluate(model, x, target)


def test_a_validation_loss_of_nan_is_never_the_best():
    rng = np.random.default_rng(12)
    x, target = a_task(rng, N=4)
    model = a_model()
    history = minilstm.fit(model, x, target, epochs=9, validation=(x, np.full_like(target, np.nan)), patience=3)
    assert len(history) == 3 and np.isnan(history.validation).all() and history.best_epoch is None


def test_a_plateau_follows_the_validation_loss():
    """Which does not move, since its target is out of reach of rates as small as this."""
    rng = np.random.default_rng(6)
    x, target = a_task(rng, N=8)
    history = minilstm.fit(a_model(), x, target, epochs=7, optimizer=minilstm.SGD(1e-9), validation=(x, target + 100),
                           schedule=training.Plateau(0.5, patience=1))
    assert history.rates == [1e-9] * 3 + [5e-10] * 2 + [2.5e-10] * 2


def test_callbacks_are_told_and_can_stop():
    rng = np.random.default_rng(7)
    x, target = a_task(rng)
    told = []

    def third(epoch):
        told.append(epoch)
        return epoch.number == 3

    history = minilstm.fit(a_model(), x, target, epochs=9, callbacks=[third, lambda epoch: None])
    assert len(history) == 3 and [epoch.number for epoch in told] == [1, 2, 3]
    assert [epoch.loss for epoch in told] == history and told[2].norm == history.norms[2] > 0
    assert told[0].validation is None and told[0].rate == 1e-3


@pytest.mark.parametrize("reduction", ["steps", "sequences", "sum"])
def test_evaluate_is_the_loss_whatever_the_batches(reduction):
    rng = np.random.default_rng()
    x, target = a_task(rng, N=11)
    mask = np.arange(6) < rng.integers(0, 7, 11)[:, None]
    mask[0] = True
    weights = rng.uniform(0, 2, (11, 6))
    model = a_model(H=3)
    expected, _ = minilstm.huber(model.forward(x, mask)[0], target, mask, weights=weights, reduction=reduction)
    for batch_size in (1, 4, 100):
        found = minilstm.evaluate(model, x, target, mask, loss=minilstm.huber, weights=weights, reduction=reduction,
                                  batch_size=batch_size)
        assert abs(found - expected) < 1e-12 * max(1, expected)


def test_a_loss_with_options_and_clipping_by_value():
    rng = np.random.default_rng(8)
    x, target = a_task(rng)
    model = a_model()
    before = model.state_dict()
    minilstm.fit(model, x, target, epochs=1, batch_size=24, loss=partial(minilstm.huber, delta=0.1), clip_value=1e-9,
                 optimizer=minilstm.SGD(1.0), clip_norm=None)
    moved = max(np.abs(p - before[name]).max() for name, p in model.state_dict().items())
    assert abs(moved - 1e-9) < 1e-12


def test_a_thousand_steps_keep_no_memory():
    """From one fifth to the next nothing is left but the history, for one of them at least: a leak is in each, but
    something may be made once, at any time.  Kernels are compiled before."""
    rng = np.random.default_rng(9)
    x, target = a_task(rng, N=40, dtype="float32")
    model, optimizer, sizes = a_model("float32"), minilstm.Adam(), []

    def look(epoch):
        if epoch.number % 20 == 0:
            gc.collect()                        # threads are handed functions that know each other
            sizes.append(tracemalloc.get_traced_memory()[0])

    minilstm.fit(model, x, target, epochs=1, batch_size=4, optimizer=optimizer)
    tracemalloc.start()
    try:
        minilstm.fit(model, x, target, epochs=100, batch_size=4, optimizer=optimizer, callbacks=[look])
    finally:
        tracemalloc.stop()
    assert len(sizes) == 5 and min(np.diff(sizes)) < 4_000         # 20 epochs of the history, three numbers each


def test_what_weighs_nothing_does_not_count():
    """It takes no step, not even one of weight decay, and its target may be missing."""
    x, target = a_task(np.random.default_rng(20))
    model = a_model()
    before = model.state_dict()
    history = minilstm.fit(model, x, np.full_like(target, np.nan), epochs=2, weights=np.zeros((24, 6)),
                           optimizer=minilstm.AdamW(0.1))
    assert history == [0, 0] and all(same_bits(p, before[name]) for name, p in model.state_dict().items())
    weights = np.ones((24, 6))
    weights[:, 3] = 0
    found = []
    for third in (target[:, 3], np.nan):
        target[:, 3], net = third, a_model()
        found.append((minilstm.fit(net, x, target, epochs=2, weights=weights), net))
    assert found[0][0] == found[1][0] and same_weights(found[0][1], found[1][1])


def test_what_stands_in_padding_is_not_read_by_a_layer_without_a_mask():
    x, target = a_task(np.random.default_rng(21))
    mask = np.arange(6) < 4
    mask = np.tile(mask, (24, 1))
    dirty = np.where(mask[:, :, None], x, np.nan)
    nets = [minilstm.Linear(1, 1, dtype="float64") for _ in range(2)]
    histories = [minilstm.fit(net, data, target, mask, epochs=2) for net, data in zip(nets, (x, dirty))]
    assert histories[0] == histories[1] and same_weights(*nets)
    assert minilstm.find_nonfinite(nets[0], dirty, mask, target=target) is None


@pytest.mark.parametrize("what, words", [
    ("x", r"loss is nan; x\[7, 2, 0\] is nan: fill what is missing"),
    ("target", r"loss is nan; target\[7, 2, 0\] is nan, and counts"),
    ("padding", "loss is inf; minilstm.find_nonfinite says where it began; a smaller rate or clip_norm"),
])
def test_a_loss_that_is_not_finite_says_where_to_look(what, words):
    """NaN in padding is no reason for anything."""
    x, target = a_task(np.random.default_rng(22))
    mask = np.ones((24, 6), bool)
    if what == "padding":
        mask[3, 5] = False
        x[3, 5], target[3, 5], target[7, 2] = np.nan, np.nan, 1e200
    else:
        (x if what == "x" else target)[7, 2] = np.nan
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match=words):
        minilstm.fit(minilstm.Sequential(minilstm.Linear(1, 1, dtype="float64")), x, target, mask, epochs=1)


def test_the_sequences_named_are_all_those_of_the_step():
    def loss(y, target, mask):
        return 1.0, np.full_like(y, np.nan)

    x, target = a_task(np.random.default_rng(23), N=6)
    with pytest.raises(FloatingPointError, match=r"sequences \[(\d, ){3}\d\]: the norm of the gradients is nan"):
        minilstm.fit(a_model(), x, target, epochs=1, batch_size=2, accumulate=2, loss=loss)


def test_a_view_is_not_copied_as_a_whole_for_each_batch():
    """Windows over a series share its memory; all of them together would be 200 times as large."""
    series = np.random.default_rng(27).normal(size=20_000)
    x = np.lib.stride_tricks.sliding_window_view(series, 200)[:, :, None]
    model = minilstm.Sequential(minilstm.Pooling("mean", dtype="float64"), minilstm.Linear(1, 1, dtype="float64"))
    tracemalloc.start()
    minilstm.fit(model, x, x[:, -1:, 0], epochs=1, batch_size=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.size * 8 / 3


def test_a_schedule_begins_anew_with_each_call():
    """A Plateau that has once reduced the rate would start a second training with it."""
    x, target = a_task(np.random.default_rng(24))
    schedule = training.WarmUp(1, then=training.Plateau(patience=0, threshold=1.0))
    rates = [minilstm.fit(a_model(), x, target, epochs=4, schedule=schedule).rates for _ in range(2)]
    assert rates[0] == rates[1] and rates[0][-1] < rates[0][0]


@pytest.mark.parametrize("option, value", [("loss_mask", None), ("reduction", "sum")])
def test_validation_counts_as_evaluate_does(option, value):
    rng = np.random.default_rng(25)
    x, target = a_task(rng)
    mask, loss_mask = np.ones((24, 6), bool), rng.random((24, 6)) < 0.5
    model = a_model()
    options = {"reduction": value} if option == "reduction" else {}
    given = (x, target, mask, loss_mask) if option == "loss_mask" else (x, target, mask)
    history = minilstm.fit(model, x, target, epochs=1, validation=given, **options)
    options |= {"loss_mask": loss_mask} if option == "loss_mask" else {}
    expected = minilstm.evaluate(model, x, target, mask, batch_size=32, **options)
    assert history.validation == [expected] and expected != minilstm.evaluate(model, x, target)


def test_a_class_of_padding_has_no_weight():
    """-1 in padding would be the last class."""
    rng = np.random.default_rng(26)
    x, mask = rng.normal(size=(8, 6, 1)), np.arange(6) < 4
    mask = np.tile(mask, (8, 1))
    found = []
    for padding in (-1, 0):
        target = np.where(mask, x[..., 0] > 0, padding)
        model = minilstm.Sequential(minilstm.Linear(1, 2, dtype="float64"))
        found.append(minilstm.fit(model, x, target, mask, epochs=2, loss=minilstm.softmax_cross_entropy,
                                  class_weights=np.array([1.0, 3.0])))
    assert found[0] == found[1]


@pytest.mark.parametrize("change, error, words", [
    ({"accumulate": 0}, ValueError, "accumulate: expected a positive integer, got 0"),
    ({"reduction": "mean"}, ValueError, "reduction: expected one of 'steps'"),
    ({"patience": 3}, ValueError, "patience: expected None without validation data, got 3"),
    ({"validation": 0.1}, TypeError, r"validation: expected a tuple \(x, target\), .* got float"),
    ({"validation": (np.ones((2, 6, 1)), np.ones((3, 6, 1)))}, ValueError, "validation: target: expected"),
    ({"weights": np.ones((24, 5))}, TypeError, r"weights: expected float64 \(24, 6\), got float64 \(24, 5\)"),
    ({"class_weights": np.ones(2)}, ValueError, "class_weights: expected None, since the target is no class"),
    ({"checkpoint_steps": 3}, ValueError, "checkpoint_steps: expected None without a checkpoint, got 3"),
    ({"clip_value": -1}, ValueError, "clip_value: expected a positive number, got -1"),
    ({"target": np.ones((24, 6, 1), "float32")}, TypeError, r"target: expected float64, .*; nothing .* target.astype"),
    ({"x": np.ones((24, 6, 1), "float16")}, TypeError, r"x: expected float64, .* got float16 \(24, 6, 1\); nothing is"),
    ({"clip_norm": True}, ValueError, "clip_norm: expected a positive number, got True"),
    ({"progress": "no"}, TypeError, "progress: expected True or False, got 'no'"),
    ({"optimizer": minilstm.Adam}, TypeError, r"optimizer: expected one such as minilstm.Adam\(\), got the class Adam"),
    ({"optimizer": "adam"}, TypeError, r"optimizer: expected one such as minilstm.Adam\(\), got 'adam'"),
    ({"schedule": training.Cosine}, TypeError, "schedule: expected one such as .*, got the class Cosine"),
    ({"schedule": 0.1}, TypeError, "schedule: expected one such as .*, got 0.1"),
    ({"loss": "mse"}, TypeError, "loss: expected a function, such as .*, got 'mse'"),
    ({"loss": lambda y, target, mask: 1.0}, TypeError, r"loss: expected a function that returns \(loss, gradient"),
    ({"callbacks": print}, TypeError, "callbacks: expected a list of functions, got <built-in function print>"),
    ({"mask": np.full(24, 6)}, TypeError, r"mask: .*; sequences.lengths_to_mask\(lengths, T\) makes one of lengths"),
    ({"validation": (np.ones((2, 6, 1)),) * 5}, TypeError, "validation: expected a tuple .*, got a tuple of 5"),
    ({"validation": (np.ones((2, 6, 1)),) * 2 + (np.zeros((2, 6), bool),)}, ValueError,
     "validation: expected at least one step that counts"),
])
def test_bad_arguments_are_named(change, error, words):
    x, target = a_task(np.random.default_rng(10))
    with pytest.raises(error, match=words):
        minilstm.fit(a_model(), **{"x": x, "target": target, "epochs": 1} | change)


POOLED = minilstm.Sequential(minilstm.LSTM(1, 3), minilstm.Pooling("last"), minilstm.Linear(3, 2))


@pytest.mark.parametrize("model, target, error, words", [
    (minilstm.LSTM(1, 2), np.zeros(4, int), ValueError, r"2 axes, \(N,T\), .*; one target a seq.* Pooling\('last'\)"),
    (minilstm.LSTM(1, 2), np.zeros((4, 2), "float32"), ValueError, r"3 axes.*; one target a seq.* target.astype\(int"),
    (minilstm.LSTM(1, 2), np.zeros((4, 6), "float32"), ValueError, r"classes are integers: target.astype\(int\)"),
    (minilstm.LSTM(1, 2), np.zeros((4, 6, 1), int), ValueError, r"classes have no axis of their own: target\[..., 0\]"),
    (POOLED, np.zeros((4, 1), int), ValueError, r"1 axis, \(N\), .*target\[..., 0\]; numbers .* target.astype\('float"),
    (minilstm.LSTM(1, 2), np.zeros((4, 6, 2), int), ValueError, r"own: target.argmax\(axis=-1\)"),
    (POOLED, np.zeros((4, 6), int), ValueError, r"argmax.*; a model that pools has one target a sequence"),
    (POOLED, np.zeros(4, "float32"), ValueError, r"target\[..., None\] gives .*classes are integers"),
    (POOLED, np.array(list("abab")), TypeError, r"got <U1 \(4,\); np.unique\(target, return_inverse=True\)\[1\]"),
])
def test_targets_that_do_not_fit_say_what_would(model, target, error, words):
    with pytest.raises(error, match=f"target: expected .*{words}"):
        minilstm.fit(model, np.ones((4, 6, 1), "float32"), target, epochs=1, loss=minilstm.softmax_cross_entropy)


@pytest.mark.parametrize("target, words", [(3, "from 0 to 2, got 0 to 3"), (-1, "from 0 to 2, got -1 to 0")])
def test_with_class_weights_a_wrong_class_is_the_targets_fault(target, words):
    classes = np.zeros((4, 6), int)
    classes[2, 3] = target
    with pytest.raises(ValueError, match=f"target: expected classes {words}"):
        minilstm.fit(minilstm.Linear(1, 3), np.ones((4, 6, 1), "float32"), classes, epochs=1,
                     loss=minilstm.softmax_cross_entropy, class_weights=np.ones(3, "float32"))


@pytest.mark.parametrize("n", [2, 4])
def test_another_number_of_class_weights_is_refused(n):
    x, target = a_task(np.random.default_rng(11))
    with pytest.raises(ValueError, match="class_weights: expected one for each class, from 0 to 2, got float64"):
        minilstm.fit(minilstm.Linear(1, 3, dtype="float64"), x, np.full((24, 6), 2), epochs=1,
                     loss=minilstm.softmax_cross_entropy, class_weights=np.ones(n))
