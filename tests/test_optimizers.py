"""Optimizers and schedules: against their papers' loops in plain NumPy, and PyTorch's, step for step."""
import math

import numpy as np
import pytest

import minilstm
from helpers import same_bits
from minilstm import training

RATE = 0.05


def by_loop(name, p, gradients, options):
    """The formulas as they stand in the docstrings, one array, all steps."""
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, start=1):
        if name == "SGD":
            momentum = options.get("momentum", 0.0)
            m = momentum * m + g
            p = p - RATE * (g + momentum * m if options.get("nesterov") else m)
        elif name == "RMSprop":
            v = 0.9 * v + 0.1 * g**2
            p = p - RATE * g / (np.sqrt(v) + 1e-8)
        else:
            p = (1 - RATE * options.get("weight_decay", 0.0)) * p
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            p = p - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


CASES = [("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"momentum": 0.8, "nesterov": True}),
         ("RMSprop", {"alpha": 0.9}), ("Adam", {}), ("AdamW", {"weight_decay": 0.1})]


def walk(optimizer, p, gradients, dtype="float64"):
    net = minilstm.Linear(p.shape[1], p.shape[0], bias=False, dtype=dtype)
    net.params["weight"] = p.astype(dtype)
    for g in gradients:
        net.grads["weight"][:] = g
        optimizer.step(net)
    return net.params["weight"]


@pytest.fixture
def task():
    """A parameter (3,4), and a hundred gradients of very different sizes."""
    rng = np.random.default_rng()
    return rng.normal(size=(3, 4)), rng.normal(size=(100, 3, 4)) * 10 ** rng.uniform(-3, 3, (1, 3, 4))


@pytest.mark.parametrize("name, options", CASES)
def test_a_hundred_steps_by_loop(task, name, options):
    p, gradients = task
    found = walk(getattr(minilstm, name)(RATE, **options), p, gradients)
    expected = by_loop(name, p, gradients, options)
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max()) and not same_bits(found, p)


@pytest.mark.peers
@pytest.mark.parametrize("name, options", CASES)
def test_a_hundred_steps_of_pytorch(task, name, options):
    """After each of them."""
    torch = pytest.importorskip("torch")
    p, gradients = task
    theirs = torch.tensor(p, requires_grad=True)
    optimizer = getattr(torch.optim, name)([theirs], lr=RATE, **options)
    net = minilstm.Linear(4, 3, bias=False, dtype="float64")
    net.params["weight"] = p
    ours = getattr(minilstm, name)(RATE, **options)
    for g in gradients:
        theirs.grad = torch.tensor(g)
        optimizer.step()
        net.grads["weight"][:] = g
        ours.step(net)
        expected = theirs.detach().numpy()
        assert np.allclose(net.params["weight"], expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name, options", CASES)
def test_an_optimizer_goes_on_from_its_state(task, name, options):
    """Bit for bit, in float32 too; and one that has not begun can be kept as well."""
    p, gradients = task
    for dtype in ("float32", "float64"):
        make = getattr(minilstm, name)
        expected = walk(make(RATE, **options), p, gradients[:7], dtype)
        net = minilstm.Linear(4, 3, bias=False, dtype=dtype)
        net.params["weight"] = p.astype(dtype)
        optimizer = make(RATE, **options)
        for g in gradients[:7]:
            state, optimizer = optimizer.state_dict(), make(RATE, **options)
            optimizer.load_state_dict(state, net)
            net.grads["weight"][:] = g
            optimizer.step(net)
        assert optimizer.t == 7 and same_bits(net.params["weight"], expected)


def test_a_foreign_state_is_refused_and_changes_nothing():
    net, optimizer = minilstm.Linear(2, 1), minilstm.Adam()
    optimizer.step(net)
    state = optimizer.state_dict()
    with pytest.raises(KeyError, match="state: expected .*v.bias.* got"):
        minilstm.RMSprop().load_state_dict(state, net)
    other = minilstm.Adam()
    with pytest.raises(ValueError, match=r"state\['m.weight'\]: expected float32 \(1, 3\), got float32 \(1, 2\)"):
        other.load_state_dict(state, minilstm.Linear(3, 1))
    assert other.t == 0 and other.state_dict().keys() == {"t"}


@pytest.mark.parametrize("make, words", [
    (lambda: minilstm.SGD(0), "rate: expected a positive number, got 0"),
    (lambda: minilstm.SGD(math.nan), "rate: expected a positive number, got nan"),
    (lambda: minilstm.SGD(momentum=1), "momentum: expected a probability"),
    (lambda: minilstm.SGD(nesterov=True), "nesterov: expected False without momentum"),
    (lambda: minilstm.RMSprop(alpha=-0.1), "alpha: expected a probability"),
    (lambda: minilstm.RMSprop(epsilon=0), "epsilon: expected a positive number"),
    (lambda: minilstm.AdamW(weight_decay=-1), "weight_decay: expected a number, 0 or more, got -1"),
    (lambda: training.StepDecay(0), "every: expected a positive integer, got 0"),
    (lambda: training.StepDecay(3, times=2), "times: expected a number from 0 to 1, got 2"),
    (lambda: training.Cosine(0), "steps: expected a positive integer, got 0"),
    (lambda: training.Plateau(patience=-1), "patience: expected an integer, 0 or more, got -1"),
])
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_clipping_by_value_cuts_each_number():
    net = minilstm.Linear(3, 1, dtype="float64")
    net.grads["weight"][:] = [[-5, 0.5, np.inf]]
    assert training.clip_value(net, 2.0) == 2
    assert net.grads["weight"].tolist() == [[-2, 0.5, 2]]
    net.grads["bias"][:] = np.nan
    with pytest.raises(FloatingPointError, match="the gradient of bias has NaN"):
        training.clip_value(net, 2.0)
    with pytest.raises(ValueError, match="limit: expected a positive number, got 0"):
        training.clip_value(net, 0)


# ----------------------------------------------------------------------------------------------------------- schedules

def factors(schedule, steps):
    return [schedule.factor(step) for step in range(steps)]


def test_schedules_by_hand():
    assert factors(training.Constant(), 3) == [1, 1, 1]
    assert factors(training.StepDecay(2, times=0.5), 5) == [1, 1, 0.5, 0.5, 0.25]
    assert np.allclose(factors(training.Cosine(4, floor=0.2), 6), [1, 0.2 + 0.8 * (1 + 0.5**0.5) / 2, 0.6,
                                                                   0.2 + 0.8 * (1 - 0.5**0.5) / 2, 0.2, 0.2])
    assert factors(training.WarmUp(4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert factors(training.WarmUp(2, then=training.StepDecay(1, times=0.5)), 5) == [0.5, 1, 1, 0.5, 0.25]


def test_a_plateau_lowers_the_rate():
    """Twice more than two epochs without progress; a gain of less than the threshold is none."""
    schedule, found = training.WarmUp(1, then=training.Plateau(0.5, patience=2, threshold=0.01, floor=0.3)), []
    for loss in (1.0, 0.5, 0.499, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4):
        schedule.see(loss)
        other = training.WarmUp(1, then=training.Plateau(0.5, patience=2, threshold=0.01, floor=0.3))
        other.load_state(schedule.state())          # one that goes on from there does not differ
        schedule = other
        found.append(schedule.factor(5))
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3, 0.3]


@pytest.mark.peers
def test_schedules_are_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng()
    makers = [(training.StepDecay(7, times=0.3), lambda o: torch.optim.lr_scheduler.StepLR(o, 7, 0.3)),
              (training.Cosine(40, floor=0.1),
               lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.1))]
    for ours, make in makers:
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        theirs = make(optimizer)
        for step in range(40):
            assert abs(ours.factor(step) - optimizer.param_groups[0]["lr"]) < 1e-12
            optimizer.step()
            theirs.step()
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    ours = training.Plateau(0.5, patience=3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "min", 0.5, 3)
    for loss in np.abs(rng.normal(size=100)) + 3 / np.arange(1, 101):
        ours.see(loss)
        theirs.step(loss)
        assert abs(ours.factor(0) - optimizer.param_groups[0]["lr"]) < 1e-7        # PyTorch ignores steps below 1e-8
