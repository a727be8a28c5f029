"""Policy gradient: the estimator against exact enumeration, the policy in both its ways, the maze and its optimum."""
import itertools
import warnings

import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, same_bits
from minilstm.training import (
    Episodes, Policy, TMaze, advantages, episode_chances, policy_gradient, policy_loss, reinforce, returns_to_go,
    rollout)
from minilstm.training.softmax import log_softmax, log_softmax_backward
from minilstm.training.t_maze import EAST, NORTH, SOUTH, WEST

DISCOUNT = 0.9


def random_policy(rng, body, actions=4, scale=1.0):
    """A policy with every weight random."""
    policy = Policy(body, actions)
    for _, layer in policy.walk():
        for name, p in layer.params.items():
            layer.params[name] = (scale * rng.normal(size=p.shape)).astype(p.dtype)
    return policy


def bodies(dtype, backend="reference"):
    options = {"dtype": dtype, "backend": backend}
    return {"LSTM": minilstm.LSTM(3, 5, **options), "two layers": minilstm.LSTM(3, 4, num_layers=2, **options),
            "projection": minilstm.LSTM(3, 4, proj_size=2, **options), "GRU": minilstm.GRU(3, 3, **options),
            "RNN": minilstm.RNN(3, 4, **options), "no memory": minilstm.Linear(3, 2, **options)}


def flat(policy):
    return np.concatenate([g.ravel() for _, layer in policy.walk() for g in layer.grads.values()])


# ------------------------------------------------------------------------------------------- the estimator is unbiased

class Enumerated:
    """A maze so short that all its episodes can be listed, an LSTM policy that has begun to learn, and the exact
    gradient of J."""

    def __init__(self, updates):
        self.maze = TMaze(1, limit=3)
        self.episodes, self.sign_chance = self.maze.every_episode()
        self.policy = random_policy(np.random.default_rng(0), minilstm.LSTM(3, 3, dtype="float64"), scale=0.7)
        reinforce(self.policy, self.maze, updates=updates, discount=DISCOUNT, optimizer=minilstm.Adam(0.03),
                  progress=False)
        self.chance = self.sign_chance * episode_chances(self.policy, self.episodes)
        self.returns = self.episodes.rewards @ DISCOUNT ** np.arange(3)
        self.gradient = self.exact()

    def expected_return(self, policy):
        episodes = self.episodes._replace(x=self.episodes.x.astype(policy.dtype))
        return (self.sign_chance * self.returns * episode_chances(policy, episodes)).sum()

    def exact(self):
        """dJ/dtheta by the complex step, number by number: no log, no estimator in it."""
        policy, found = self.policy.astype("complex128"), []
        for _, layer in policy.walk():
            for name, p in list(layer.params.items()):
                for k in range(p.size):
                    moved = p.copy()
                    moved.flat[k] += 1e-30j
                    layer.params[name] = moved
                    found.append(self.expected_return(policy).imag / 1e-30)
                layer.params[name] = p
        return np.array(found)

    def estimates(self, baseline=False, discount=DISCOUNT):
        """The estimate that each single episode gives of dJ: (E, numbers)."""
        found = []
        for e in range(len(self.chance)):
            one = Episodes(*(array[e:e + 1] for array in self.episodes))
            self.policy.zero_grads()
            b = baseline if isinstance(baseline, bool) else baseline[e:e + 1]
            policy_gradient(self.policy, one, discount=discount, baseline=b, value_weight=0)
            found.append(-flat(self.policy))
        return np.array(found)

    def mean_by_history(self, number):
        """(E,T): the mean of number (E,T) over all episodes that are the same until t, before action t is drawn."""
        goals = (self.episodes.x[:, 0, 2] == 1)[:, None]
        found = np.zeros_like(number)
        for t in range(3):
            _, group = np.unique(np.concatenate([goals, self.episodes.actions[:, :t], self.episodes.mask[:, :t + 1]],
                                                axis=1), axis=0, return_inverse=True)
            group = group.ravel()
            found[:, t] = (np.bincount(group, self.chance * number[:, t]) / np.bincount(group, self.chance))[group]
        return found

    def variance(self, estimates):
        return float((self.chance @ (estimates - self.chance @ estimates) ** 2).sum())


@pytest.fixture(scope="module")
def short():
    return Enumerated(updates=30)


def relative(found, exact):
    return np.abs(found - exact).max() / np.abs(exact).max()


def test_the_chances_of_all_episodes_sum_to_one(short):
    assert abs(short.chance.sum() - 1) < 1e-12 and (short.chance > 0).all()
    told = [short.episodes.x.reshape(len(short.chance), -1), short.episodes.actions, short.episodes.mask]
    assert len(short.chance) == len(np.unique(np.concatenate(told, axis=1), axis=0)) == 116


def test_the_exact_gradient_is_also_that_of_central_differences(short):
    """Along one random direction; so neither the complex step nor the enumeration stands alone."""
    direction = np.random.default_rng(1).normal(size=short.gradient.shape)
    moved = []
    for step in (1e-4, -1e-4):
        policy, start = short.policy.astype("float64"), 0
        for _, layer in policy.walk():
            for name, p in list(layer.params.items()):
                layer.params[name] = p + step * direction[start:start + p.size].reshape(p.shape)
                start += p.size
        moved.append(short.expected_return(policy))
    assert abs((moved[0] - moved[1]) / 2e-4 - short.gradient @ direction) < 1e-6 * np.abs(short.gradient).max()
    value_head = sum(p.size for p in short.policy.value.params.values())
    assert short.gradient[:-value_head].all() and not short.gradient[-value_head:].any()


def test_the_estimator_is_unbiased(short):
    """The sum over all episodes of chance * estimate is the gradient, whatever the baseline makes of the past."""
    rng = np.random.default_rng(2)
    past = short.mean_by_history(rng.normal(size=short.episodes.mask.shape))    # any number for each history
    for baseline in (False, True, past, 5 * past + 3, np.full_like(past, 1e3)):
        assert relative(short.chance @ short.estimates(baseline), short.gradient) < 1e-10


def test_what_is_no_baseline_is_found_out(short):
    """One that knows the action, one that knows the future, and a wrong power of the discount: all biased."""
    knows_the_action = np.where(short.episodes.actions == EAST, 0.1, 0.0)
    G = returns_to_go(short.episodes.rewards, short.episodes.mask, discount=DISCOUNT)
    assert relative(short.chance @ short.estimates(knows_the_action), short.gradient) > 0.01
    assert relative(short.chance @ short.estimates(0.1 * G), short.gradient) > 0.01
    without_its_factor = DISCOUNT ** -np.arange(3.0) * G                        # leaves out discount**t
    assert relative(short.chance @ short.estimates(G - without_its_factor), short.gradient) > 0.01
    assert relative(short.chance @ short.estimates(discount=0.89), short.gradient) > 0.003


def test_a_good_baseline_lowers_the_variance():
    """Exactly, by the enumeration.  Returns are now far from 0: what they are expected to be, be it exact or learned by
    the value head, takes more than 40 % away, and a bad guess multiplies the variance."""
    trained = Enumerated(updates=100)
    G = returns_to_go(trained.episodes.rewards, trained.episodes.mask, discount=DISCOUNT)
    none, learned, expected, bad = (trained.variance(trained.estimates(b)) for b in (
        False, True, trained.mean_by_history(G), np.full_like(G, 10.0)))
    assert max(learned, expected) < 0.6 * none and bad > 3 * none


def test_the_mean_over_drawn_episodes_is_the_exact_gradient(short):
    """8,000 of them, their standard errors known exactly: no number is 5 of them off, their squares have mean 1."""
    n = 8000
    for baseline in (False, True):
        short.policy.zero_grads()
        policy_gradient(short.policy, rollout(short.policy, short.maze, n, seed=3), discount=DISCOUNT,
                        baseline=baseline, value_weight=0)
        found = -flat(short.policy)
        estimates = short.estimates(baseline)
        error = np.sqrt(short.chance @ (estimates - short.gradient) ** 2 / n)
        moves = error > 0                                               # those of the value head do not
        z = (found - short.gradient)[moves] / error[moves]
        assert np.abs(z).max() < 5 and 0.2 < (z ** 2).mean() < 3


def test_episodes_are_drawn_as_often_as_they_should(short):
    """Chi-square of 40,000 drawn episodes over all that can happen."""
    n = 40_000
    drawn = rollout(short.policy, short.maze, n, seed=4)

    def keys(episodes):
        goals = episodes.x[:, 0, 2] == 1
        return [(goal, *actions[real]) for goal, actions, real in zip(goals, episodes.actions, episodes.mask)]

    counts = dict.fromkeys(keys(short.episodes), 0)
    assert len(counts) == len(short.chance)
    for key in keys(drawn):
        counts[key] += 1                                                # a KeyError is an episode that cannot be
    expected = n * short.chance
    often = expected >= 5
    chi_square = ((np.array(list(counts.values())) - expected) ** 2 / expected)[often].sum()
    assert abs(chi_square - often.sum()) < 5 * np.sqrt(2 * often.sum())


# --------------------------------------------------------------------------------------------------------- the policy

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("body, backend", [*((body, "reference") for body in bodies("float32")),
                                           ("LSTM", "cpu"), ("GRU", "cpu"), ("no memory", "cpu")])
def test_step_by_step_it_gives_the_chances_of_the_whole(body, dtype, backend):
    rng = np.random.default_rng()
    policy = random_policy(rng, bodies(dtype, backend)[body])
    B, T = 6, 9
    x = rng.normal(size=(B, T, 3)).astype(dtype)
    state, acts = policy.start(B), []
    for t in range(T):
        acts.append(policy.act(x[:, t], state, rng))
        state = acts[-1].state
    actions, log_p, values = (np.stack([getattr(act, name) for act in acts], axis=1)
                              for name in ("actions", "log_probabilities", "values"))
    out, _ = policy.forward(x)
    expected = np.take_along_axis(log_softmax(out.logits), actions[:, :, None], axis=2)[:, :, 0]
    assert_close(log_p, expected, f"same formulas, {dtype}", "log pi")
    assert_close(values, out.values, f"same formulas, {dtype}", "values")
    assert log_p.dtype == values.dtype == dtype
    chances = episode_chances(policy, Episodes(x, actions, np.zeros((B, T), dtype), np.ones((B, T), bool)))
    assert np.allclose(chances, np.exp(log_p.sum(axis=1)), rtol=1e-3)
    if body != "no memory":
        lost = np.stack([policy.act(x[:, t], policy.start(B), rng).values for t in range(T)], axis=1)
        assert np.abs(lost - out.values).max() > 0.01, "the state that is carried matters"


@pytest.mark.parametrize("body", bodies("float64"))
def test_gradients_of_the_policy(body):
    rng = np.random.default_rng()
    policy = random_policy(rng, bodies("float64")[body], actions=2, scale=0.6)
    B, T = 3, 4
    holes = rng.random((B, T)) < 0.7
    holes[1] = False
    for mask in (None, holes):
        report = minilstm.check_gradients(policy, x=rng.normal(size=(B, T, 3)), mask=mask, max_entries=6)
        assert report.ok, f"\n{report}"
    x, d_logits, d_values = (rng.normal(size=shape) for shape in ((B, T, 3), (B, T, 2), (B, T)))
    mask = rng.random((B, T)) < 0.7
    found = []
    for rubbish in (0.0, np.nan, 1e300):
        _, cache = policy.forward(np.where(mask[:, :, None], x, rubbish), mask)
        policy.zero_grads()
        dx = policy.backward(cache, np.where(mask[:, :, None], d_logits, rubbish), np.where(mask, d_values, rubbish))
        found.append((dx, flat(policy)))
        assert not dx[~mask].any() and np.isfinite(found[-1][1]).all()
        assert not any(a[~mask].any() for a in policy.forward(x, mask)[0])
    assert all(same_bits(a, b) for later in found[1:] for a, b in zip(found[0], later))


def test_actions_are_drawn_by_their_chances():
    rng = np.random.default_rng(5)
    policy = random_policy(rng, minilstm.LSTM(3, 4), actions=5)
    n, x = 20_000, rng.normal(size=(1, 3)).astype("float32")
    act = policy.act(np.repeat(x, n, axis=0), policy.start(n), rng)
    log_p = log_softmax(policy.forward(x[:, None])[0].logits)[0, 0]
    p = np.exp(log_p)
    assert (np.abs(np.bincount(act.actions, minlength=5) / n - p) < 5 * np.sqrt(p * (1 - p) / n)).all()
    greedy = policy.act(x, policy.start(1), rng, greedy=True)
    assert greedy.actions[0] == p.argmax() and abs(greedy.log_probabilities[0] - log_p.max()) < 1e-5


def test_an_action_without_a_chance_is_never_drawn():
    policy = Policy(minilstm.Linear(3, 2), 3)
    policy.logits.params["bias"] = np.array([0, -3e38, 0], "float32")
    actions = policy.act(np.zeros((5000, 3), "float32"), (), np.random.default_rng(6)).actions
    assert set(actions.tolist()) == {0, 2}


def lstm_policy():
    return Policy(minilstm.LSTM(3, 4), 2)


@pytest.mark.parametrize("call, error, words", [
    (lambda: Policy(minilstm.LSTM(3, 4, bidirectional=True), 2), TypeError, "body: .* LSTM that reads the future"),
    (lambda: Policy(minilstm.GRU(3, 4, reverse=True), 2), TypeError, "body: .* GRU that reads the future"),
    (lambda: Policy(minilstm.Sequential(minilstm.LSTM(3, 4)), 2), TypeError, "body: expected an LSTM, .* Sequential$"),
    (lambda: Policy(minilstm.LSTM(3, 4), 0), ValueError, "actions: expected a positive integer, got 0"),
    (lambda: lstm_policy().act(np.ones((2, 3)), (), np.random.default_rng()), TypeError, "x: expected float32"),
    (lambda: lstm_policy().act(np.ones((2, 3), "float32"), (), np.random.default_rng()), TypeError, "state: expected"),
    (lambda: lstm_policy().act(np.ones((2, 3), "float32"), lstm_policy().start(1), np.random.default_rng()),
     ValueError, r"h0: expected .*B=2"),
    (lambda: lstm_policy().act(np.ones((2, 3), "f4"), lstm_policy().start(2), 0), TypeError, "rng: .*default_rng"),
    (lambda: lstm_policy().act(np.full((2, 3), np.nan, "float32"), lstm_policy().start(2), np.random.default_rng()),
     FloatingPointError, "x, params: .* NaN"),
    (lambda: lstm_policy().backward(None, np.ones((1, 2, 2), "float32")), TypeError, "cache: expected"),
    (lambda: lstm_policy().backward(lstm_policy().forward(np.ones((1, 2, 3), "f4"))[1], np.ones((1, 2, 3), "f4")),
     ValueError, "d_logits: expected float32 .*A=2"),
])
def test_bad_arguments_of_the_policy_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ------------------------------------------------------------------------------------------------ losses and returns

def test_log_softmax_is_right_and_stays_so_far_out():
    rng = np.random.default_rng()
    a, d, v = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    assert np.allclose(np.exp(log_softmax(a)).sum(axis=1), 1, rtol=1e-14)
    assert np.allclose(log_softmax(a), a - np.log(np.exp(a).sum(axis=1, keepdims=True)), rtol=1e-12)
    step = (v * log_softmax(a + 1e-30j * d)).sum().imag / 1e-30
    assert abs(step - (log_softmax_backward(v, log_softmax(a)) * d).sum()) < 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype, far in (("float32", 1e4), ("float32", 1e38), ("float64", 1e300)):
            log_p = log_softmax(np.array([[far, 0, -far], [far, far, -far]], dtype))
            assert np.isfinite(log_p).all() and np.allclose(np.exp(log_p), [[1, 0, 0], [0.5, 0.5, 0]])
            assert np.isfinite(log_softmax_backward(np.ones_like(log_p), log_p)).all()
        assert log_softmax(np.array([3e38, -3e38], "float32")).tolist() == [0, -np.inf]
        far = np.array([[[3e38, -3e38, 0]], [[0, 3e38, -3e38]]], "float32")
        loss, d_logits = policy_loss(far, np.array([[0], [2]]), np.array([[1], [0]], "float32"), entropy_weight=1.0)
        assert loss == 0 and not d_logits.any()                                 # an advantage of 0 asks no -inf


def loss_case(rng, B, T, A, dtype):
    return {"logits": (2 * rng.normal(size=(B, T, A))).astype(dtype), "actions": rng.integers(0, A, (B, T)),
            "advantages": rng.normal(size=(B, T)).astype(dtype)}


@pytest.mark.parametrize("entropy_weight", [0, 0.7])
@pytest.mark.parametrize("B, T, A", [(4, 5, 3), (5, 5, 2), (3, 4, 3), (2, 3, 3), (2, 6, 1)])
def test_the_gradient_of_the_policy_loss(B, T, A, entropy_weight):
    rng = np.random.default_rng()
    case = loss_case(rng, B, T, A, "float64")
    for name, mask in masks(rng, B, T).items():
        def loss(logits):
            return policy_loss(**case | {"logits": logits}, mask=mask, entropy_weight=entropy_weight)[0]

        _, d_logits = policy_loss(**case, mask=mask, entropy_weight=entropy_weight)
        direction, step = rng.normal(size=d_logits.shape), 5e-4
        near, far = (loss(case["logits"] + s * direction) - loss(case["logits"] - s * direction)
                     for s in (step, 2 * step))
        assert abs((8 * near - far) / (12 * step) - (d_logits * direction).sum()) < 1e-10, name
        assert mask is None or not d_logits[~mask].any()


def test_the_policy_loss_by_hand():
    """Two actions of chance 1/4 and 3/4, two episodes, one step each."""
    logits, log = np.log(np.array([[[1.0, 3.0]], [[1.0, 3.0]]])), np.log
    loss, d_logits = policy_loss(logits, np.array([[0], [1]]), np.array([[2.0], [-1.0]]))
    assert abs(loss + (2 * log(1 / 4) - log(3 / 4)) / 2) < 1e-15
    assert np.allclose(d_logits[:, 0], [[-0.75, 0.75], [-0.125, 0.125]], rtol=1e-14)
    entropy = -(log(1 / 4) / 4 + 3 * log(3 / 4) / 4)
    bonus = policy_loss(logits, np.zeros((2, 1), int), np.zeros((2, 1)), entropy_weight=0.5)[0]
    assert abs(bonus + 0.5 * entropy) < 1e-15


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masked_steps_are_never_read(dtype):
    rng = np.random.default_rng()
    B, T, A = 4, 5, 3
    case, found = loss_case(rng, B, T, A, dtype), []
    rewards, baseline, mask = rng.normal(size=(B, T)).astype(dtype), rng.normal(size=(B, T)).astype(dtype), None
    mask = rng.random((B, T)) < 0.6
    mask[1] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rubbish in (0, np.nan, np.inf, 1e30):
            filled = {name: array if name == "actions" else
                      np.where(mask[:, :, None] if array.ndim == 3 else mask, array, dtype_of(array, rubbish))
                      for name, array in (case | {"rewards": rewards, "baseline": baseline}).items()}
            filled["actions"] = np.where(mask, case["actions"], -7)
            G = advantages(filled.pop("rewards"), mask, discount=0.9, baseline=filled.pop("baseline"))
            loss, d_logits = policy_loss(**filled, mask=mask, entropy_weight=0.1)
            found.append((G, np.array(loss), d_logits))
            assert d_logits.dtype == G.dtype == dtype and not G[~mask].any()
    assert all(same_bits(a, b) for later in found[1:] for a, b in zip(found[0], later))


def dtype_of(array, number):
    return array.dtype.type(number)


def test_a_batch_without_a_real_step_gives_zero():
    rng = np.random.default_rng()
    nothing = np.zeros((2, 3), bool)
    loss, d_logits = policy_loss(np.full((2, 3, 4), np.nan), np.full((2, 3), 9), np.full((2, 3), np.nan), nothing,
                                 entropy_weight=1.0)
    assert loss == 0 and not d_logits.any() and d_logits.shape == (2, 3, 4)
    policy = random_policy(rng, minilstm.LSTM(3, 4, dtype="float64"))
    episodes = Episodes(np.full((2, 3, 3), np.nan), np.zeros((2, 3), int), np.full((2, 3), np.nan), nothing)
    assert policy_gradient(policy, episodes) == (0, 0) and not flat(policy).any()
    assert episode_chances(policy, episodes).tolist() == [1, 1]
    empty = policy_loss(np.zeros((0, 3, 2)), np.zeros((0, 3), int), np.zeros((0, 3)))
    assert empty[0] == 0 and empty[1].shape == (0, 3, 2)


def test_padding_changes_no_gradient():
    rng = np.random.default_rng()
    policy = random_policy(rng, minilstm.LSTM(3, 4, dtype="float64"))
    episodes = rollout(policy, TMaze(1, limit=6), 20, seed=1)
    longer = Episodes(*(np.pad(a, ((0, 0), (0, 5)) + ((0, 0),) * (a.ndim - 2), constant_values=fill)
                        for a, fill in zip(episodes, (np.nan, -1, np.nan, False))))
    found = []
    for batch in (episodes, longer):
        policy.zero_grads()
        policy_gradient(policy, batch, discount=0.9, entropy_weight=0.1)
        found.append(flat(policy))
    assert_close(found[1], found[0], "gradients by rounding")
    assert np.abs(found[0]).max() > 0.01


def test_returns_to_go_by_definition():
    rng = np.random.default_rng()
    B, T = 4, 6
    rewards = rng.normal(size=(B, T))
    for mask in masks(rng, B, T).values():
        real = np.ones((B, T), bool) if mask is None else mask
        for discount in (0, 0.5, 1):
            G, weights = (f(rewards, mask, discount=discount) for f in (returns_to_go, advantages))
            for b in range(B):
                steps = np.flatnonzero(real[b])
                for k, t in enumerate(steps):
                    expected = sum(discount ** j * rewards[b, s] for j, s in enumerate(steps[k:]))
                    assert abs(G[b, t] - expected) < 1e-12 and abs(weights[b, t] - discount ** k * expected) < 1e-12
            assert not G[~real].any() and not weights[~real].any()


def test_the_values_learn_and_the_policy_gradient_does_not_pass_through_them():
    rng = np.random.default_rng()
    policy = random_policy(rng, minilstm.LSTM(3, 4, dtype="float64"))
    episodes = rollout(policy, TMaze(1), 20, seed=1)
    (_, values), _ = policy.forward(episodes.x, episodes.mask)

    def gradient(**options):
        policy.zero_grads()
        losses = policy_gradient(policy, episodes, discount=0.9, **options)
        return flat(policy), losses

    alone, (loss, value_loss) = gradient(value_weight=0)
    assert_close(alone, gradient(baseline=values)[0], "gradients by rounding")
    both, twice = gradient(value_weight=1)[0], gradient(value_weight=2)[0]
    assert_close(twice - both, both - alone, "gradients by rounding")
    G = returns_to_go(episodes.rewards, episodes.mask, discount=0.9)
    assert abs(value_loss - np.square(values - G)[episodes.mask].mean()) < 1e-12
    assert np.abs(both - alone).max() > 1e-3 and loss != 0


@pytest.mark.parametrize("change, error, words", [
    ({"logits": np.ones((2, 3))}, TypeError, r"logits: expected .*\(B,T,A\).* got float64 \(2, 3\)"),
    ({"logits": np.ones((2, 3, 0))}, TypeError, "logits: .*A > 0"),
    ({"actions": np.ones((2, 3))}, TypeError, "actions: expected an array of integers .* got float64"),
    ({"actions": np.ones((3, 2), int)}, TypeError, r"actions: .* got int64 \(3, 2\)"),
    ({"actions": np.full((2, 3), 4)}, ValueError, "actions: expected integers from 0 to A - 1 = 3 .* got 4"),
    ({"actions": np.full((2, 3), -1)}, ValueError, "actions: .* got -1"),
    ({"advantages": np.ones((2, 3), "float32")}, TypeError, "advantages: expected float64"),
    ({"advantages": np.ones((2, 1))}, ValueError, "advantages: expected"),
    ({"mask": np.ones((2, 3))}, ValueError, "mask: expected bool"),
    ({"entropy_weight": -1}, ValueError, "entropy_weight: expected a number from 0"),
    ({"entropy_weight": float("nan")}, ValueError, "entropy_weight: expected"),
])
def test_bad_arguments_of_the_loss_are_named(change, error, words):
    good = {"logits": np.ones((2, 3, 4)), "actions": np.ones((2, 3), int), "advantages": np.ones((2, 3))}
    with pytest.raises(error, match=words):
        policy_loss(**good | change)


@pytest.mark.parametrize("call, error, words", [
    (lambda: returns_to_go(np.ones(3)), TypeError, r"rewards: expected .*\(B,T\)"),
    (lambda: returns_to_go(np.ones((2, 3)), np.ones((2, 2), bool)), ValueError, "mask: expected bool"),
    (lambda: returns_to_go(np.ones((2, 3)), discount=1.1), ValueError, "discount: expected a number from 0 to 1"),
    (lambda: advantages(np.ones((2, 3)), baseline=np.ones((2, 2))), ValueError, "baseline: expected"),
    (lambda: TMaze(0), ValueError, "corridor: expected a positive"),
    (lambda: TMaze(5, limit=5), ValueError, "limit: expected more than corridor=5, .* got 5"),
    (lambda: TMaze(2).start(np.array([1])), ValueError, "goals: expected"),
    (lambda: rollout(lstm_policy(), TMaze(2), 0), ValueError, "episodes: expected a positive"),
    (lambda: reinforce(lstm_policy(), TMaze(2), updates=0), ValueError, "updates: expected a positive"),
])
def test_bad_arguments_of_the_rest_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


# -------------------------------------------------------------------------------------------- the maze, and learning

def test_a_walk_through_the_maze():
    maze = TMaze(2)
    place = maze.start(np.array([NORTH, SOUTH]))
    seen, earned, over = [], [], []
    for action in (WEST, NORTH, EAST, SOUTH, WEST, EAST, EAST, EAST, SOUTH):
        seen.append(maze.observe(place).astype(int).tolist())
        place, rewards, done = maze.step(place, np.full(2, action))
        earned.append(rewards.tolist())
        over.append(done.tolist())
    sign, corridor, junction = [[0, 1, 1], [1, 1, 0]], [[1, 0, 1]] * 2, [[0, 1, 0]] * 2
    assert seen == [sign, sign, sign, corridor, corridor, sign, corridor, junction, junction]
    assert earned == [[-0.1] * 2, [-0.1] * 2, [0, 0], [-0.1] * 2, [0, 0], [0, 0], [0, 0], [-0.1] * 2, [-0.1, 4]]
    assert over == [[False] * 2] * 8 + [[True] * 2]


@pytest.mark.parametrize("corridor, limit", [(1, 2), (1, 4), (2, 4), (3, 5)])
@pytest.mark.parametrize("discount", [1, 0.9, 0.3])
def test_no_walk_is_better_than_the_optimum_and_no_memoryless_policy_than_its_own(corridor, limit, discount):
    """All walks; all deterministic memoryless policies, 4 actions for each of 4 sights, and a thousand random ones."""
    maze = TMaze(corridor, limit=limit)
    episodes, sign_chance = maze.every_episode()
    returns = episodes.rewards @ discount ** np.arange(limit)
    north = episodes.x[:, 0, 2] == 1
    assert abs((returns[north].max() + returns[~north].max()) / 2 - maze.optimum(discount)) < 1e-12
    sights = (episodes.x @ [1, 2, 4]).astype(int)                       # 6, 3, 5, 2
    tables = np.zeros((256 + 1000, 8, 4))
    for k, choice in enumerate(itertools.product(range(4), repeat=4)):
        tables[k, [6, 3, 5, 2], choice] = 1
    rng = np.random.default_rng()
    tables[256:] = rng.dirichlet(np.full(4, 0.3), (1000, 8))
    chances = sign_chance
    for t in range(limit):
        chances = chances * np.where(episodes.mask[:, t], tables[:, sights[:, t], episodes.actions[:, t]], 1)
    assert np.allclose(chances.sum(axis=1), 1)
    assert abs((chances @ returns).max() - maze.memoryless_optimum(discount)) < 1e-12


def test_a_rollout_ends_where_its_episodes_do():
    policy = Policy(minilstm.LSTM(3, 4), 4, seed=1)
    maze = TMaze(1, limit=7)
    walked = rollout(policy, maze, 50, seed=2)
    place, lengths = maze.start(np.where(walked.x[:, 0, 2] == 1, NORTH, SOUTH)), walked.mask.sum(axis=1)
    assert (walked.mask == (np.arange(7) < lengths[:, None])).all() and lengths.min() >= 2
    for t in range(7):
        real = walked.mask[:, t]
        assert np.array_equal(walked.x[real, t], maze.observe(place)[real])
        place, rewards, done = maze.step(place, walked.actions[:, t])
        assert np.allclose(walked.rewards[real, t], rewards[real]) and not walked.rewards[~real, t].any()
        assert (done[real] == (lengths[real] == t + 1)).all() or t == 6
    assert 0 < (lengths == 7).sum() < 50 and set(walked.x[:, 0, 2].tolist()) == {0, 1}
    again, other = rollout(policy, maze, 50, seed=2), rollout(policy, maze, 50, seed=3)
    assert all(same_bits(a, b) for a, b in zip(walked, again)) and not np.array_equal(walked.actions, other.actions)


def success(policy, maze, discount):
    """The mean return of the most likely actions, over both signs."""
    walked = rollout(policy, maze, 100, greedy=True)
    assert set(walked.x[:, 0, 2].tolist()) == {0, 1}
    returns = returns_to_go(walked.rewards, walked.mask, discount=discount)[:, 0]
    return np.mean([returns[walked.x[:, 0, 2] == sign].mean() for sign in (0, 1)])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_lstm_reaches_the_optimum_and_a_memoryless_policy_its_own(backend):
    maze, options = TMaze(3), {"updates": 150, "discount": 0.98, "entropy_weight": 0.02, "progress": False}
    remembers = Policy(minilstm.LSTM(3, 12, backend=backend), 4)
    history = reinforce(remembers, maze, optimizer=minilstm.Adam(0.02), **options)
    assert len(history) == 150 and history[0] < 1.5
    assert np.mean(history[-10:]) > 0.97 * maze.optimum(0.98)
    assert abs(success(remembers, maze, 0.98) - maze.optimum(0.98)) < 1e-5
    forgets = Policy(minilstm.Linear(3, 12, backend=backend), 4)
    history = reinforce(forgets, maze, optimizer=minilstm.Adam(0.02), **options)
    assert 0.9 * maze.memoryless_optimum(0.98) < np.mean(history[-50:]) < 1.1 * maze.memoryless_optimum(0.98)
    assert success(forgets, maze, 0.98) < maze.memoryless_optimum(0.98) + 1e-5


def test_learning_repeats_itself_and_stops_before_it_spoils_the_weights():
    states = []
    for _ in range(2):
        policy = Policy(minilstm.LSTM(3, 4), 4)
        history = reinforce(policy, TMaze(2), updates=3, episodes=8, seed=5, progress=False)
        states.append(policy.state_dict() | {"history": np.array(history)})
    assert all(same_bits(states[0][name], states[1][name]) for name in states[0])

    class Broken(TMaze):
        def step(self, place, actions):
            place, rewards, done = super().step(place, actions)
            return place, np.full_like(rewards, np.nan), done

    before = policy.state_dict()
    with pytest.raises(FloatingPointError, match="the norm of the gradients is nan"):
        reinforce(policy, Broken(2), updates=1, progress=False)
    assert all(same_bits(p, before[name]) for name, p in policy.state_dict().items())
