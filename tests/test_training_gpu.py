"""Training on a GPU: the losses, the clipping, the steps and the loop of a processor, and no copy on the way."""
import numpy as np
import pytest

import minilstm
from compiled import check
from helpers import assert_close, same_bits
from minilstm import device


def on_gpu(*arrays):
    return [device.to_device(a) for a in arrays]


def random_task(rng, N=4, T=3):
    """x, target, and a mask with an empty row."""
    x, target = (rng.normal(size=(N, T, width)).astype("float32") for width in (2, 1))
    mask = rng.random((N, T)) < 0.7
    mask[:2] = [[True] * T, [False] * T]
    return x, target, mask


def a_model(backend):
    return minilstm.Sequential(minilstm.RNN(2, 3, backend=backend), minilstm.Linear(3, 1, backend=backend))


def a_linear(backend="gpu"):
    return minilstm.Linear(2, 1, backend=backend)


# -------------------------------------------------------------------------------------------------------------- losses

@pytest.mark.parametrize("shape, F, losses", [
    ((2, 3), 1, "both"), ((5,), 3, "both"), ((3, 11), 33, "both"), ((3, 0), 2, "both"),
    ((4097,), 1, "mean_squared_error"), pytest.param((30, 40), 40, "both", marks=pytest.mark.long),
], ids=str)
def test_losses_are_those_of_the_processor(gpu, shape, F, losses):
    """Sizes around a warp of classes, 8 steps a block and 4096 numbers a block; NaN and no class where masked."""
    rng = np.random.default_rng()
    y, numbers = (3 * rng.normal(size=(*shape, F)) for _ in range(2))
    classes, mask = rng.integers(0, F, shape), rng.random(shape) < 0.7
    y, numbers = y.astype("float32"), numbers.astype("float32")
    y[~mask], numbers[~mask], classes[~mask] = np.nan, np.nan, -3
    for loss, target in ((minilstm.mean_squared_error, numbers), (minilstm.softmax_cross_entropy, classes)):
        if losses not in ("both", loss.__name__):
            continue
        in_float64 = target.astype("float64") if target is numbers else target
        expected, expected_dy = loss(y.astype("float64"), in_float64, mask)
        target_32 = target if target is numbers else target.astype("int32")
        found, dy = loss(*on_gpu(y, target_32, mask))
        assert isinstance(found, device.DeviceArray) and found.shape == (1,)
        assert_close(float(found), expected, "same formulas, float32")
        assert_close(dy, expected_dy, "same formulas, float32")
        if gpu.name == "simulator":
            gpu.random = None                                               # another order of threads
        again, dy_again = loss(device.to_device(y), target, mask)           # target and mask from the host
        assert same_bits(again, found) and same_bits(dy_again, dy)


def test_losses_of_nothing_are_zero(gpu):
    y = np.full((2, 3), np.nan, "float32")
    nothing = np.zeros(2, bool)
    for loss, target in ((minilstm.mean_squared_error, y), (minilstm.softmax_cross_entropy, np.array([7, 7]))):
        value, dy = loss(device.to_device(y), target, nothing)
        assert float(value) == 0 and not np.asarray(dy).any()


def test_without_a_mask_every_step_counts(gpu):
    y = np.array([[1, 2], [3, 5]], "float32")
    assert float(minilstm.mean_squared_error(*on_gpu(y, np.zeros_like(y)))[0]) == 39 / 4
    assert abs(float(minilstm.softmax_cross_entropy(device.to_device(y), np.array([1, 1]))[0]) - 0.2200949) < 1e-6


def test_a_class_that_is_none(gpu):
    """On the GPU nobody looks, and the loss is NaN; from the host it is an error."""
    y = np.zeros((3, 2), "float32")
    classes = np.array([1, 2, 0], "int32")
    loss, dy = minilstm.softmax_cross_entropy(*on_gpu(y, classes))
    assert np.isnan(float(loss)) and np.isnan(np.asarray(dy)).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"target: expected classes from 0 to 1, got 2 in place \(1,\)"):
        minilstm.softmax_cross_entropy(device.to_device(y), classes)


def test_numbers_that_are_not_finite_show(gpu):
    y = np.array([[1, np.inf], [np.nan, 0]], "float32")
    for row in (0, 1):
        for loss, target in ((minilstm.mean_squared_error, np.ones_like(y)),
                             (minilstm.softmax_cross_entropy, np.array([0, 1]))):
            value, _ = loss(device.to_device(y), target, np.arange(2) == row)
            assert not np.isfinite(float(value))


@pytest.mark.parametrize("change, error, words", [
    ({"target": np.ones((2, 3), "float32")}, ValueError, r"target: expected float32 \(2, 3, 1\) on the GPU, as y is, "),
    ({"mask": np.ones((3, 2), bool)}, ValueError, r"mask: expected bool \(2, 3\), got bool \(3, 2\)"),
])
def test_bad_loss_arguments_are_named(gpu, change, error, words):
    ones = np.ones((2, 3, 1), "float32")
    with pytest.raises(error, match=words):
        minilstm.mean_squared_error(**({"y": device.to_device(ones), "target": ones} | change))


# ---------------------------------------------------------------------------------------------------- clipping and Adam

def with_gradients(model, rng):
    for _, layer in model.walk():
        for name, g in layer.grads.items():
            layer.grads[name] = layer.arrays.from_numpy(rng.normal(size=g.shape).astype(g.dtype))
    return model


@pytest.mark.parametrize("limit", [0.5, 1000, np.inf])
def test_clipping_is_that_of_the_processor(gpu, limit):
    found, expected = (with_gradients(a_model(backend), np.random.default_rng(3)) for backend in ("gpu", "reference"))
    clipped, by_host = (minilstm.clip_global_norm(model, limit) for model in (found, expected))
    assert clipped.norm.shape == clipped.factor.shape == (1,)
    assert_close(float(clipped.norm), by_host.norm, "same formulas, float32")
    assert_close(float(clipped.factor), by_host.factor, "same formulas, float32")
    for (_, one), (_, other) in zip(found.walk(), expected.walk()):
        for name, g in one.grads.items():
            assert_close(g, other.grads[name], "same formulas, float32", name)
    with pytest.raises(ValueError, match="limit: expected a positive number, got 0"):
        minilstm.clip_global_norm(found, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_gradients_that_are_not_finite_move_nothing(gpu, bad):
    """1e25: its square is infinite in float32."""
    model, optimizer = a_linear(), minilstm.Adam(0.1)
    model.grads["weight"] = device.to_device(np.array([[1, bad]], "float32"))
    before = model.state_dict()
    assert not np.isfinite(float(minilstm.clip_global_norm(model, 1.0).norm))
    assert all(np.isnan(np.asarray(g)).all() for g in model.grads.values())
    optimizer.step(model)
    assert all(same_bits(p, before[name]) for name, p in model.state_dict().items())
    assert not any(array.any() for name, array in optimizer.state_dict().items() if name != "t")


def test_adam_steps_are_those_of_the_processor(gpu):
    """Three of them; parameters that a forward pass has seen are not written to."""
    found, expected = a_model("gpu"), a_model("reference")
    one, other = minilstm.Adam(0.05), minilstm.Adam(0.05)
    held = {name: p for name, p in found.layers[0].params.items()}
    before = {name: p.copy_to_host() for name, p in held.items()}
    for step in range(3):
        for model, optimizer in ((found, one), (expected, other)):
            optimizer.step(with_gradients(model, np.random.default_rng(step)))
    for name, p in found.state_dict().items():
        assert_close(p, expected.state_dict()[name], "same formulas, float32", name)
    assert all(same_bits(p, before[name]) for name, p in held.items())


# ------------------------------------------------------------------------------------------------------------------ fit

def test_fit_is_that_of_the_processor(gpu):
    """Same losses, same parameters, up to rounding: ragged rows, a loss mask, a batch of one sequence; same order."""
    rng = np.random.default_rng()
    x, target, mask = random_task(rng)
    counts = rng.random(mask.shape) < 0.8
    counts[0, 0] = True
    options = {"mask": mask, "loss_mask": counts, "epochs": 2, "batch_size": 3, "seed": 4, "clip_norm": 0.3,
               "validation": (x, target, mask), "schedule": minilstm.training.StepDecay(1, times=0.5)}
    results = []
    for backend in ("gpu", "reference"):
        model = a_model(backend)
        history = minilstm.fit(model, x, target, optimizer=minilstm.Adam(0.02), **options)
        numbers = {"losses": history, "validation": history.validation, "norms": history.norms, "rates": history.rates}
        results.append(model.state_dict() | {name: np.array(found) for name, found in numbers.items()})
    for name, found in results[0].items():
        assert_close(found, results[1][name], "same formulas, float32", name)


def test_a_run_on_the_gpu_goes_on_from_its_file(gpu, tmp_path):
    x, target, _ = random_task(np.random.default_rng(), N=3)
    results = []
    for path, stops in ((tmp_path / "run", (1, 2)), (None, (2,))):
        for epochs in stops:
            model = a_linear()
            history = minilstm.fit(model, x, target, epochs=epochs, batch_size=2, checkpoint=path)
        results.append(model.state_dict() | {"history": np.array(history)})
    assert all(same_bits(found, results[1][name]) for name, found in results[0].items())


@pytest.mark.parametrize("change, words", [
    ({"accumulate": 2}, "accumulate: expected 1 for a model on a GPU, got 2"),
    ({"reduction": "sum"}, "reduction: expected 'steps' for a model on a GPU"),
    ({"weights": np.ones((4, 3), "float32")}, "weights, class_weights: expected None for a model on a GPU"),
    ({"optimizer": minilstm.SGD()}, "model: expected one on the host, SGD is not computed on a GPU; Adam and"),
    ({"loss": minilstm.huber}, "y: expected a NumPy array; on a GPU there are"),
])
def test_what_there_is_only_on_the_host_says_so(gpu, change, words):
    x, target, _ = random_task(np.random.default_rng())
    with pytest.raises(ValueError, match=words):
        minilstm.fit(a_linear(), x, target, epochs=1, **change)


def test_fit_takes_arrays_that_are_on_the_gpu(gpu):
    x, target, mask = random_task(np.random.default_rng())
    results = []
    for place in (device.to_device, np.copy):
        model = a_linear()
        history = minilstm.fit(model, {"x": place(x)}, place(target), loss_mask=place(mask), epochs=1)
        results.append(model.state_dict() | {"history": np.array(history)})
    assert all(same_bits(found, results[1][name]) for name, found in results[0].items())


def test_a_training_step_copies_nothing(gpu):
    """And an epoch of fit copies its order there, and its losses back."""
    if gpu.name != "simulator":
        pytest.skip("only the simulator keeps a log of copies")
    x, target, mask = random_task(np.random.default_rng(), N=2)
    model, optimizer = a_model("gpu"), minilstm.Adam()
    x_there, target_there, mask_there = on_gpu(x, target, mask)
    before = list(gpu.copies)
    y, cache = model.forward(x_there, mask_there)
    loss, dy = minilstm.mean_squared_error(y, target_there, mask_there)
    model.zero_grads()
    model.backward(cache, dy)
    minilstm.clip_global_norm(model, 1.0)
    optimizer.step(model)
    assert gpu.copies == before
    copies = []
    for epochs in (1, 2):
        before = len(gpu.copies)
        minilstm.fit(a_linear(), x_there, target_there, epochs=epochs)
        copies.append([direction for direction, _ in gpu.copies[before:]])
    assert copies[1] == copies[0] + ["to device", "to host"]


@pytest.mark.parametrize("where, words", [
    ("target", r"epoch 1, sequences \[.*\]: the loss is nan; target\[., 1, 0\] is nan, and counts"),
    ("x", r"epoch 1, sequences \[.*\]: the norm of the gradients is nan"),
])
def test_fit_stops_before_it_spoils_the_weights(gpu, where, words):
    """The parameters are those before the bad batch, though more batches follow; a processor's are the same."""
    rng = np.random.default_rng(5)
    x, target, _ = random_task(rng, N=3)
    counts = np.ones((3, 3), bool)
    bad = np.random.default_rng(0).permutation(3)[1]    # the second that fit will come to
    if where == "target":
        target[bad, 1] = np.nan
    else:
        x[bad, 1], counts[bad, 1] = np.nan, False       # the loss does not see this step, the weights would
    results = []
    for backend in ("gpu", "reference"):
        model = a_linear(backend)
        with pytest.raises(FloatingPointError, match=words) as caught:
            minilstm.fit(model, x, target, loss_mask=counts, epochs=2, batch_size=1, optimizer=minilstm.Adam(0.1))
        assert f"[{bad}]" in str(caught.value)
        results.append(model.state_dict())
    assert not same_bits(results[0]["weight"], a_linear("reference").params["weight"]), "the first batch has moved them"
    for name, p in results[0].items():
        assert_close(p, results[1][name], "same formulas, float32", name)


def test_fit_learns_a_class_for_each_sequence(gpu):
    """With a mask; and with a loss that is written for NumPy: it copies, and it works."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(4, 2, 2)).astype("float32")
    target, mask = (x[:, 0, 0] > x[:, 0, 1]).astype(int), np.array([[True, False]] * 4)

    def on_the_host(y, target, mask):
        return minilstm.softmax_cross_entropy(*map(np.asarray, (y, target, mask)))

    histories = []
    for loss in (minilstm.softmax_cross_entropy, on_the_host):
        model = minilstm.Sequential(minilstm.Pooling("last", backend="gpu"), minilstm.Linear(2, 2, backend="gpu"))
        histories.append(minilstm.fit(model, x, target, mask, epochs=2, optimizer=minilstm.Adam(0.1), loss=loss))
    assert histories[0][1] < histories[0][0]
    assert_close(histories[0], histories[1], "same formulas, float32")


def test_fit_stops_at_a_class_that_is_none(gpu):
    x, classes = np.ones((3, 2, 2), "float32"), np.array([[0, 1], [0, 2], [0, 0]])
    with pytest.raises(FloatingPointError, match="epoch 1, sequences .*: the loss is nan; the classes .* are 0 to 2"):
        minilstm.fit(minilstm.Linear(2, 2, backend="gpu"), x, classes, epochs=1, loss=minilstm.softmax_cross_entropy)


@pytest.mark.parametrize("change, error, words", [
    ({"x": [1.0]}, TypeError, "x: expected a plain NumPy array or one on the GPU, got list"),
    ({"x": np.zeros((4, 3, 2))}, TypeError, r"x: expected float32, as the model computes, got float64 \(4, 3, 2\)"),
    ({"mask": np.ones((4, 3))}, TypeError, "mask: expected a plain NumPy array or one on the GPU of bool, got float64"),
    ({"target": np.zeros((3, 3, 1), "float32")}, ValueError, r"target: expected 3 axes, \(N,T,...\), .* as in x, got"),
])
def test_bad_fit_arguments_are_named(gpu, change, error, words):
    x, target, mask = random_task(np.random.default_rng())
    with pytest.raises(error, match=words):
        minilstm.fit(a_model("gpu"), **({"x": x, "target": target, "mask": mask, "epochs": 1} | change))


# --------------------------------------------------------------------------------------------------------- machine code

@pytest.mark.compiler
@pytest.mark.parametrize("name, registers, shared", [
    ("square_differences", 48, 3072), ("cross_entropies", 64, 3072), ("count", 40, 3072), ("judge", 32, 0),
    ("multiply_by_one", 16, 0), ("move", 32, 0),
])
def test_kernels_stay_small(name, registers, shared):
    from minilstm.training import gpu as training
    check(getattr(training, name), registers=registers, shared=shared)


@pytest.mark.compiler
def test_the_kernel_of_masks_stays_small():
    from minilstm.arrays.gpu import find_steps
    check(find_steps, registers=32, shared=0)
