"""REINFORCE: learning from rewards, where nobody says which action would have been right.

An episode is a walk through an environment: at each step t the policy sees x_t and draws an action a_t with chance
pi(a_t), and a reward r_t follows.  J is the mean over all walks of sum_t discount**t * r_t.  Its gradient is also a
mean over walks, so every walk that is tried gives an estimate of it:

    dJ/dtheta = mean of  sum_t  discount**t * (G_t - b_t) * dlog pi(a_t)/dtheta
    G_t = r_t + discount * r_(t+1) + discount**2 * r_(t+2) + ...        the return to go

b_t, the baseline, may be any number that does not depend on a_t or on what comes after it: the mean of
dlog pi(a_t)/dtheta over a_t is 0, so b_t changes the estimate and not its mean.  A good one, such as the return that is
expected at t, makes estimates scatter less.

Sources: Williams 1992, section 5 (episodic REINFORCE, baselines); Sutton et al. 2000 (returns to go); Wierstra et al.
2010 (the policy is an LSTM).  Many programs leave out the factor discount**t before the bracket; what they then follow
is not the gradient of J (Thomas 2014).

    B  episodes in a batch      T  steps      D  numbers in an observation      A  actions
    mask (B,T) bool, True = a real step: episodes end at different times
"""
import math
import numbers
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..arguments import describe, floats, natural, positive
from ..masking.reference import select
from .clipping import clip_global_norm
from .losses import mean_squared_error
from .optimizers import Adam
from .softmax import log_softmax, log_softmax_backward


class Episodes(NamedTuple):
    """A batch of walks.  Masked steps of all arrays stand for nothing."""
    x: np.ndarray           # (B,T,D) what was seen
    actions: np.ndarray     # (B,T) integers, what was done then
    rewards: np.ndarray     # (B,T) what followed
    mask: np.ndarray        # (B,T)


# ---------------------------------------------------------------------------------------------- from rewards to a loss

def returns_to_go(rewards, mask=None, *, discount=1.0):
    """rewards (B,T), mask (B,T) -> G (B,T), G_t = r_t + discount * G at the next real step; 0 at masked steps."""
    rewards, mask = _steps("rewards", rewards, mask)
    discount = _number("discount", discount, 1)
    G, later = np.zeros_like(rewards), np.zeros(len(rewards), rewards.dtype)
    for t in reversed(range(rewards.shape[1])):
        G[mask[:, t], t] = (rewards[:, t] + discount * later)[mask[:, t]]
        later = np.where(mask[:, t], G[:, t], later)
    return G


def advantages(rewards, mask=None, *, discount=1.0, baseline=None):
    """discount**t * (G_t - baseline_t) (B,T), by which the estimator weighs dlog pi(a_t); 0 at masked steps.

    rewards (B,T); baseline (B,T) of the same dtype, or None for 0; t counts the real steps before."""
    rewards, mask = _steps("rewards", rewards, mask)
    G = returns_to_go(rewards, mask, discount=discount)
    b = np.zeros_like(G) if baseline is None else floats("baseline", baseline, G.dtype, G.shape, ("B", "T"))
    factor = float(discount) ** (np.cumsum(mask, axis=1) - mask)
    return np.where(mask, factor * (G - b), 0).astype(G.dtype)


def policy_loss(logits, actions, advantages, mask=None, *, entropy_weight=0.0):
    """-sum over real steps of (advantage * log pi(action) + entropy_weight * entropy of pi) / B, and its gradient.

    logits (B,T,A), advantages (B,T) of one dtype, actions (B,T) integers, mask (B,T) bool -> loss (float), d_logits
    (B,T,A), 0 where masked.  Only the gradient has a meaning here: it is minus the estimate of dJ, a mean over the
    episodes of the batch.  The loss itself need not fall when the policy gets better.

    With advantages of 1 this is the cross-entropy of labels: ``actions`` are then those that a teacher wants.
    entropy_weight > 0 rewards being undecided (Williams and Peng 1991), against settling too early.
    Whatever stands in masked steps, NaN included, is never read.  Without a real step the loss is 0, and so is
    d_logits.  Raises TypeError or ValueError that says which argument does not fit."""
    mask, entropy_weight = _loss_arguments(logits, actions, advantages, mask, entropy_weight)
    log_p = log_softmax(select(logits, mask))
    taken = np.where(mask, actions, 0)[:, :, None]
    log_taken = np.take_along_axis(log_p, taken, axis=2)[:, :, 0]
    weights = np.where(mask, advantages, 0) / max(1, len(mask))                     # the mean over B
    loss = -_product(weights, log_taken).sum(dtype=np.float64)

    d_log_p = np.zeros_like(log_p)
    np.put_along_axis(d_log_p, taken, -weights[:, :, None], axis=2)                 # loss = -sum(weights * log_taken)
    if entropy_weight:
        share = np.where(mask, entropy_weight / max(1, len(mask)), 0).astype(log_p.dtype)[:, :, None]
        p = np.exp(log_p)
        p_log_p = _product(p, log_p)
        loss += (share * p_log_p).sum(dtype=np.float64)                             # entropy = -sum(p * log_p)
        d_log_p += share * (p_log_p + p)                                            # p_log_p = exp(log_p) * log_p
    return float(loss), log_softmax_backward(d_log_p, log_p)                        # log_p = log_softmax(logits)


def policy_gradient(policy, episodes, *, discount=1.0, baseline=True, value_weight=0.5, entropy_weight=0.0):
    """Add the gradient of one batch of Episodes to the ``grads`` of ``policy``: minus the estimate of dJ.

    baseline        True: the policy's own values, False: none, or an array (B,T)
    value_weight    with the policy's own values: of the mean squared error between them and the returns to go, by which
                    they learn.  No gradient passes from the policy's loss through the baseline
    entropy_weight  as in ``policy_loss``

    -> the loss of the policy and that of the values, each without its weight.  Raises as ``policy_loss`` does."""
    x, actions, rewards, mask = episodes
    (logits, values), cache = policy.forward(x, mask)
    own = isinstance(baseline, (bool, np.bool_)) and bool(baseline)
    b = values if own else None if isinstance(baseline, (bool, np.bool_)) else baseline
    weights = advantages(rewards, mask, discount=discount, baseline=b)
    loss, d_logits = policy_loss(logits, actions, weights, mask, entropy_weight=entropy_weight)
    G = returns_to_go(rewards, mask, discount=discount)
    value_loss, d_values = mean_squared_error(values[:, :, None], G[:, :, None], mask)
    d_values = d_values[:, :, 0] * d_values.dtype.type(value_weight) if own and value_weight else None
    policy.backward(cache, d_logits, d_values)
    return loss, value_loss


def episode_chances(policy, episodes):
    """The chance that ``policy`` does what was done in each of these Episodes, when it sees what was seen -> (B,)"""
    log_p = log_softmax(policy.forward(episodes.x, episodes.mask, cache=False)[0].logits)
    taken = np.where(episodes.mask, episodes.actions, 0)[:, :, None]
    return np.exp(select(np.take_along_axis(log_p, taken, axis=2), episodes.mask).sum(axis=(1, 2)))


# ----------------------------------------------------------------------------------------------- walking and learning

def rollout(policy, environment, episodes, *, seed=0, greedy=False):
    """Let the policy walk: so many episodes at once -> Episodes, as many steps long as the longest of them.

    environment     an object such as ``TMaze``: reset(B, rng) -> place; observe(place) -> (B,D); step(place, actions)
                    -> place, rewards (B,), done (B,) bool; and ``limit``, the step at which every episode is over
    seed            of the environment and of the actions, or a NumPy Generator to draw from
    greedy          True: the most likely action at each step"""
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(natural("seed", seed))
    B = positive("episodes", episodes)
    place, state = environment.reset(B, rng), policy.start(B)
    alive, steps = np.ones(B, bool), []
    while alive.any() and len(steps) < environment.limit:
        x = environment.observe(place).astype(policy.dtype)
        act = policy.act(x, state, rng, greedy=greedy)
        place, rewards, done = environment.step(place, act.actions)
        steps.append((x, act.actions, np.where(alive, rewards, 0).astype(policy.dtype), alive))
        state, alive = act.state, alive & ~done
    return Episodes(*(np.stack(arrays, axis=1) for arrays in zip(*steps)))


def reinforce(policy, environment, *, updates, episodes=64, discount=1.0, baseline=True, value_weight=0.5,
              entropy_weight=0.0, optimizer=None, clip_norm=1.0, seed=0, progress=True):
    """Train ``policy`` in place -> the mean discounted return of the episodes before each update, a list.

    updates, episodes       how often to walk and learn, and how many episodes to walk each time
    discount ... weights    as in ``policy_gradient``; environment and seed as in ``rollout``
    optimizer, clip_norm, progress      as in ``fit``

    Raises FloatingPointError when a gradient is not finite, before it is put to use."""
    updates, episodes = positive("updates", updates), positive("episodes", episodes)
    optimizer, rng = optimizer or Adam(), np.random.default_rng(natural("seed", seed))
    history = []
    with tqdm(total=updates, desc="training", unit="update", disable=None if progress else True) as bar:
        for _ in range(updates):
            walked = rollout(policy, environment, episodes, seed=rng)
            policy.zero_grads()
            policy_gradient(policy, walked, discount=discount, baseline=baseline, value_weight=value_weight,
                            entropy_weight=entropy_weight)
            clip_global_norm(policy, math.inf if clip_norm is None else clip_norm)
            optimizer.step(policy)
            history.append(float(returns_to_go(walked.rewards, walked.mask, discount=discount)[:, 0].mean()))
            bar.set_postfix(mean_return=f"{history[-1]:.3f}")
            bar.update()
    return history


# ------------------------------------------------------------------------------------------------------------- checks

def _product(a, b):
    """a * b, and 0 wherever a is 0, also where b is infinite."""
    return np.multiply(a, b, where=a != 0, out=np.zeros_like(b))


def _number(name, value, highest):
    """A number from 0 to ``highest`` -> float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= highest:
        raise ValueError(f"{name}: expected a number from 0 to {highest}, got {value!r}")
    return float(value)


def _mask(mask, shape):
    if mask is None:
        return np.ones(shape, bool)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != shape:
        raise ValueError(f"mask: expected bool {shape}, got {describe(mask)}")
    return mask


def _steps(name, value, mask):
    """A floating-point array (B,T) and its mask."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind != "f":
        raise TypeError(f"{name}: expected a floating-point array (B,T), got {describe(value)}")
    return value, _mask(mask, value.shape)


def _loss_arguments(logits, actions, advantages, mask, entropy_weight):
    if not isinstance(logits, np.ndarray) or logits.ndim != 3 or logits.dtype.kind != "f" or not logits.shape[2]:
        raise TypeError(f"logits: expected a floating-point array (B,T,A), A > 0, got {describe(logits)}")
    B, T, A = logits.shape
    mask = _mask(mask, (B, T))
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "iu" or actions.shape != (B, T):
        raise TypeError(f"actions: expected an array of integers ({B}, {T}), got {describe(actions)}")
    wrong = mask & ~((0 <= actions) & (actions < A))
    if wrong.any():
        raise ValueError(f"actions: expected integers from 0 to A - 1 = {A - 1} at real steps, got {actions[wrong][0]}")
    floats("advantages", advantages, logits.dtype, (B, T), ("B", "T"))
    return mask, _number("entropy_weight", entropy_weight, math.inf)
