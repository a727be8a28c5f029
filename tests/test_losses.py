"""Losses and what counts in them: against loops that follow the definition, numeric derivatives, and PyTorch."""
import math
from functools import partial

import numpy as np
import pytest

import minilstm
from helpers import assert_close, same_bits
from minilstm import training

QUANTILES = (0.1, 0.4, 0.95)


def softplus(s):
    return math.log1p(math.exp(s))


def of_step(name, y, target):
    """The loss of one step by its definition, number by number: the mean over features, or over quantiles too."""
    if name == "softmax_cross_entropy":
        return -math.log(math.exp(y[target]) / sum(math.exp(a) for a in y))
    F = len(target)
    if name == "quantile_loss":
        pairs = [(q, target[f] - y[f * len(QUANTILES) + k]) for f in range(F) for k, q in enumerate(QUANTILES)]
        return np.mean([q * d if d > 0 else (q - 1) * d for q, d in pairs])
    if name == "gaussian_loss":
        sigmas = [1e-3 + softplus(s) for s in y[F:]]
        return np.mean([0.5 * ((t - m) / sigma) ** 2 + math.log(sigma * math.sqrt(2 * math.pi))
                        for m, sigma, t in zip(y, sigmas, target)])
    one = {"mean_squared_error": lambda a, t: (a - t) ** 2,
           "mean_absolute_error": lambda a, t: abs(a - t),
           "huber": lambda a, t: (a - t) ** 2 / 2 if abs(a - t) <= 0.7 else 0.7 * (abs(a - t) - 0.35),
           "binary_cross_entropy": lambda a, t: -t * math.log(1 / (1 + math.exp(-a)))
           - (1 - t) * math.log(1 - 1 / (1 + math.exp(-a)))}[name]
    return np.mean([one(a, t) for a, t in zip(y, target)])


LOSSES = {"mean_squared_error": (2, 2), "mean_absolute_error": (2, 2), "huber": (2, 2), "binary_cross_entropy": (3, 3),
          "quantile_loss": (6, 2), "gaussian_loss": (4, 2), "softmax_cross_entropy": (5, 0)}
OPTIONS = {"huber": {"delta": 0.7}, "quantile_loss": {"quantiles": QUANTILES}}


def loss_function(name):
    return partial(getattr(minilstm, name), **OPTIONS.get(name, {}))


@pytest.fixture
def rng():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)                                     # shown where a test fails
    return np.random.default_rng(seed)


def a_batch(rng, name, shape, dtype="float64"):
    """y, target, mask, weights, all random; at least one step counts, and one does not.  y lies on a grid and target
    half-way between its points: no difference is so near a loss's kink that a small step would cross it."""
    wide, F = LOSSES[name]
    y = rng.normal(size=(*shape, wide)).round(3).astype(dtype)
    between = (rng.uniform(0.1, 0.9, (*shape, F)).round(3) + 5e-4).astype(dtype)
    target = between if F else rng.integers(0, wide, shape)
    mask = rng.random(shape) < 0.6
    mask.flat[:2] = True, False
    return y, target, mask, rng.uniform(0.2, 2, shape).astype(dtype)


def expected_loss(name, y, target, mask, weights, reduction):
    """By loops over sequences and steps."""
    rows = []
    for b in range(len(y)):
        places = [(b, t) for t in range(y.shape[1])] if y.ndim == 3 else [(b,)]
        counted = [(weights[place], of_step(name, y[place], target[place])) for place in places if mask[place]]
        rows.append(counted)
    if reduction == "sum":
        F = 1 if name == "softmax_cross_entropy" else y.shape[-1] // (2 if name == "gaussian_loss" else 1)
        return F * sum(w * cost for row in rows for w, cost in row)
    if reduction == "sequences":
        return np.mean([sum(w * cost for w, cost in row) / sum(w for w, _ in row) for row in rows if row])
    return sum(w * cost for row in rows for w, cost in row) / sum(w for row in rows for w, _ in row)


@pytest.mark.parametrize("reduction", ["steps", "sequences", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (5,)])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(rng, name, shape, weighted, reduction):
    """The gradient against differences of the loss, along a random direction; what is masked is not read."""
    loss = loss_function(name)
    y, target, mask, weights = a_batch(rng, name, shape)
    options = {"reduction": reduction} | ({"weights": weights} if weighted else {})
    expected = expected_loss(name, y, target, mask, weights if weighted else np.ones(shape), reduction)
    direction, step = rng.normal(size=y.shape) * mask[..., None], 1e-6
    ahead, behind = (loss(y + s * direction, target, mask, **options)[0] for s in (step, -step))
    y[~mask] = np.nan
    target[~mask] = 99 if target.dtype.kind == "i" else np.nan
    value, dy = loss(y, target, mask, **options)
    assert abs(value - expected) < 1e-12 * max(1, abs(expected))
    assert dy.shape == y.shape and dy.dtype == y.dtype and not dy[~mask].any()
    limit = 1e-7 + 1e-8 * abs(value)                        # the loss is rounded: some 1e-16 of it / step
    assert abs((dy * direction).sum() - (ahead - behind) / (2 * step)) < limit


@pytest.mark.parametrize("reduction", ["steps", "sequences", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_that_counts_is_zero(rng, name, reduction):
    y, target, mask, weights = a_batch(rng, name, (3, 4), "float32")
    for options in ({"mask": np.zeros((3, 4), bool)}, {"weights": np.zeros((3, 4), "float32")}):
        value, dy = loss_function(name)(y, target, reduction=reduction, **options)
        assert value == 0 and dy.dtype == np.float32 and not dy.any()


@pytest.mark.parametrize("reduction", ["steps", "sequences"])
@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing(rng, name, reduction):
    y, target, mask, weights = a_batch(rng, name, (3, 4))
    padded = [np.concatenate([array, array[:, :2]], axis=1) for array in (y, target, mask, weights)]
    padded[2][:, 4:] = False
    value, dy = loss_function(name)(y, target, mask, weights=weights, reduction=reduction)
    other, d_padded = loss_function(name)(*padded[:3], weights=padded[3], reduction=reduction)
    assert abs(value - other) < 1e-15 * max(1, abs(value)) * 8
    assert_close(d_padded[:, :4], dy, "gradients by rounding")


@pytest.mark.parametrize("size", [1e3, 1e30, 3e38])
def test_extreme_logits_stay_finite(size):
    """Classes, chances and spreads: the loss is what it costs to be so wrong, and the gradient is a bounded number."""
    y = np.array([[size], [-size], [size], [-size]], "float32")
    target = np.array([[1], [1], [0], [0]], "float32")
    value, dy = minilstm.binary_cross_entropy(y, target)
    assert_close(value, np.float64(np.float32(size)) / 2, "same formulas, float32")
    assert np.array_equal(dy[:, 0] * 4, [0, -1, 1, 0])
    for s in (size, -size):
        value, dy = minilstm.gaussian_loss(np.array([[0.5, s]], "float32"), np.array([[0.25]], "float32"))
        assert np.isfinite(value) and np.isfinite(dy).all()


def test_a_lucky_guess_has_a_floor():
    """With mean = target and s far below 0 the spread is the floor, and the loss no less than that of it."""
    value, _ = minilstm.gaussian_loss(np.array([[2.0, -1e4]]), np.array([[2.0]]), floor=0.01)
    assert abs(value - math.log(0.01 * math.sqrt(2 * math.pi))) < 1e-12
    mean, sigma = training.gaussian_of(np.array([[2.0, -1e4]]), floor=0.01)
    assert mean.tolist() == [[2.0]] and sigma.tolist() == [[0.01]]


@pytest.mark.parametrize("y", [5.0, 88.8, 1e4, 1e38])
def test_the_chances_of_classes_stay_finite(y):
    """Without the largest number taken off first, exp overflows at 88.8."""
    logits = np.array([[[y, -y], [-y, y]]], "float32")
    value, dy = minilstm.softmax_cross_entropy(logits, np.array([[0, 0]]))
    assert np.isfinite(value) and np.isfinite(dy).all() and abs(value / np.float32(y) - 1) < 0.01


def test_at_the_target_nothing_pulls():
    y = np.array([[1.0, 2.0, 3.0]])
    assert not minilstm.mean_absolute_error(y, y)[1].any()
    dy = minilstm.quantile_loss(y, y[:, 1:2])[1]
    assert dy[0, 1] == 0 and np.allclose(dy, [[-0.1 / 3, 0.0, 0.1 / 3]])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["steps", "sequences", "sum"])
def test_no_sequence_at_all_is_zero(rng, name, reduction):
    y, target, mask, weights = (array[:0] for array in a_batch(rng, name, (3, 4)))
    value, dy = loss_function(name)(y, target, mask, reduction=reduction, weights=weights)
    assert value == 0 and dy.shape == y.shape


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["steps", "sequences", "sum"])
def test_weights_where_masked_are_not_read(rng, name, reduction):
    y, target, mask, weights = a_batch(rng, name, (3, 4))
    found = [loss_function(name)(y, target, mask, reduction=reduction, weights=np.where(mask, weights, rubbish))
             for rubbish in (0, np.nan, np.inf, -1)]
    assert all(value == found[0][0] and same_bits(dy, found[0][1]) for value, dy in found)


def test_masked_arrays_are_not_taken_for_masks():
    y = np.ma.masked_array(np.ones((2, 3, 1)), np.zeros((2, 3, 1), bool))
    with pytest.raises(TypeError, match="y: expected a floating-point array .* got MaskedArray"):
        minilstm.mean_squared_error(y, np.ones((2, 3, 1)))
    for y, error in ((np.ones((2, 3)), ValueError), ([1.0, 2.0], TypeError)):
        with pytest.raises(error, match="y: expected"):
            training.gaussian_of(y)


def test_the_best_constant_is_what_each_loss_is_for(rng):
    """The mean, the median and the quantiles of a skewed sample, found by where the gradient changes its sign."""
    sample = rng.exponential(size=(4001, 1))
    for loss, best in ((minilstm.mean_squared_error, sample.mean()), (minilstm.mean_absolute_error, np.median(sample)),
                       (partial(minilstm.quantile_loss, quantiles=(0.9,)), np.quantile(sample, 0.9))):
        below, above = (loss(np.full_like(sample, best + shift), sample)[1].sum() for shift in (-0.01, 0.01))
        assert below < 0 < above


def test_class_weights_are_weights_of_steps(rng):
    y, target, mask, weights = a_batch(rng, "softmax_cross_entropy", (3, 4))
    of_classes = rng.uniform(0.5, 3, 5)
    found = minilstm.softmax_cross_entropy(y, target, mask, class_weights=of_classes, weights=weights)
    expected = minilstm.softmax_cross_entropy(y, target, mask, weights=weights * of_classes[target])
    assert found[0] == expected[0] and np.array_equal(found[1], expected[1])


@pytest.mark.peers
@pytest.mark.parametrize("reduction, theirs", [("steps", "mean"), ("sum", "sum")])
@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "huber", "binary_cross_entropy",
                                  "gaussian_loss", "softmax_cross_entropy"])
def test_losses_are_pytorchs(rng, name, reduction, theirs):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    y, target, mask, _ = a_batch(rng, name, (3, 4))
    of_classes = rng.uniform(0.5, 3, 5)
    y_torch = torch.tensor(y, requires_grad=True)
    a, t = y_torch[torch.tensor(mask)], torch.tensor(target)[torch.tensor(mask)]
    options = {}
    if name == "softmax_cross_entropy":
        expected = F.cross_entropy(a, t, weight=torch.tensor(of_classes), reduction=theirs)
        options = {"class_weights": of_classes}
    elif name == "gaussian_loss":
        mean, s = a.chunk(2, dim=-1)
        expected = F.gaussian_nll_loss(mean, t, (1e-3 + F.softplus(s)) ** 2, full=True, eps=0, reduction=theirs)
    else:
        function = {"mean_squared_error": F.mse_loss, "mean_absolute_error": F.l1_loss,
                    "huber": partial(F.huber_loss, delta=0.7),
                    "binary_cross_entropy": F.binary_cross_entropy_with_logits}[name]
        expected = function(a, t, reduction=theirs)
    expected.backward()
    value, dy = loss_function(name)(y, target, mask, reduction=reduction, **options)
    assert_close(value, expected.item(), "pytorch, float64")
    assert_close(dy, y_torch.grad.numpy(), "pytorch, float64")


@pytest.mark.parametrize("name, change, error, words", [
    ("huber", {"delta": 0}, ValueError, "delta: expected a positive number, got 0"),
    ("huber", {"target": np.zeros((2, 3, 1))}, ValueError, r"target: expected float64 \(2, 3, 2\), as y is"),
    ("huber", {"reduction": "mean"}, ValueError, "reduction: expected one of 'steps', 'sequences', 'sum', got 'mean'"),
    ("huber", {"weights": np.ones((2, 3, 1))}, TypeError, r"weights: expected float64 \(2, 3\), got float64 \(2, 3, 1"),
    ("huber", {"weights": -np.ones((2, 3))}, ValueError, "weights: expected finite numbers, 0 or more, got -1.0"),
    ("huber", {"weights": np.full((2, 3), np.nan)}, ValueError, "weights: expected finite numbers"),
    ("binary_cross_entropy", {"target": np.full((2, 3, 2), 1.5)}, ValueError, "target: expected numbers from 0"),
    ("binary_cross_entropy", {"target": np.full((2, 3, 2), np.nan)}, ValueError, "target: expected numbers from"),
    ("quantile_loss", {"quantiles": (0.5, 0.1)}, ValueError, "quantiles: expected numbers between 0 and 1, each"),
    ("quantile_loss", {"quantiles": (0.0, 0.5)}, ValueError, "quantiles: expected numbers between 0 and 1"),
    ("quantile_loss", {"quantiles": (0.1, 0.5, 0.9)}, ValueError, "y: expected 3 numbers for each feature"),
    ("quantile_loss", {"quantiles": (0.2, 0.5)}, ValueError, r"target: expected float64 \(2, 3, 1\), since y has 2"),
    ("gaussian_loss", {"floor": -1}, ValueError, "floor: expected a positive number, got -1"),
    ("gaussian_loss", {}, ValueError, r"target: expected float64 \(2, 3, 1\), since y has 2"),
    ("softmax_cross_entropy", {"target": np.zeros((2, 3), int), "class_weights": np.ones(3)}, TypeError,
     r"class_weights: expected float64 \(2,\), got float64 \(3,\)"),
])
def test_bad_arguments_are_named(name, change, error, words):
    with pytest.raises(error, match=words):
        getattr(minilstm, name)(**({"y": np.ones((2, 3, 2)), "target": np.ones((2, 3, 2)) / 2} | change))


# ------------------------------------------------------------------------------------------------- quantiles in order

def test_quantiles_do_not_cross_and_the_gradient_is_right(rng):
    layer = minilstm.NonCrossing(6, quantiles=3, dtype="float64")
    x = rng.normal(size=(2, 5, 6)) * 4
    y, _ = layer.forward(x)
    assert (np.diff(y.reshape(2, 5, 2, 3)) > 0).all() and np.array_equal(y[..., ::3], x[..., ::3])
    assert minilstm.check_gradients(layer, x=x)


def test_quantiles_learn_an_exponential(rng):
    """Of noise the best answer are its quantiles, -log(1 - q) for an exponential distribution, whose numbers these are
    at even distances of probability, in a random order."""
    x, p = np.ones((4000, 1, 1), "float32"), (rng.permutation(4000).reshape(-1, 1, 1) + 0.5) / 4000
    model = minilstm.Sequential(minilstm.Linear(1, 3), minilstm.NonCrossing(3, quantiles=3))
    minilstm.fit(model, x, -np.log(1 - p).astype("float32"), epochs=30, batch_size=200, optimizer=minilstm.Adam(0.03),
                 schedule=minilstm.training.Cosine(600),
                 loss=partial(minilstm.quantile_loss, quantiles=(0.1, 0.5, 0.9)))
    found = model.forward(x[:1])[0][0, 0]
    assert np.allclose(found, -np.log([0.9, 0.5, 0.1]), atol=0.05, rtol=0), found


def test_a_layer_of_quantiles_is_saved_and_checks_its_sizes(rng, tmp_path):
    model = minilstm.Sequential(minilstm.Linear(2, 4), minilstm.NonCrossing(4, quantiles=2))
    minilstm.save(tmp_path / "model", model)
    x = rng.normal(size=(3, 2, 2)).astype("float32")
    assert np.array_equal(minilstm.load(tmp_path / "model").forward(x)[0], model.forward(x)[0])
    with pytest.raises(ValueError, match="input_size: expected a multiple of quantiles=3, got 4"):
        minilstm.NonCrossing(4, quantiles=3)
