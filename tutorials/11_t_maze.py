# %% [markdown]
# # 11. The T-maze: learning from rewards
#
# In all tutorials so far somebody knew the right answer: next year's sunspots, the number to remember.  Here nobody
# does.  An agent walks through a maze, and at the end it gets a reward or not; which of its steps were good is for
# itself to find out.  And what it saw at the first step decides what is right at the last, so it needs a memory.
#
# A popular text, "How does an LSTM perform with conditional input?", ends its explanation with the advice that
# "techniques like reinforcement learning (RL) with appropriate reward functions can guide the network's learning
# process towards more efficient use of the conditional information".  It shows no code.  The sign in our maze is such a
# condition, so at the end we can look at what there is to it:
#
# 1. the maze, and what is known about it;
# 2. a gradient without an answer: REINFORCE, derived;
# 3. is it true?  All 116 walks of a short maze;
# 4. the baseline: the same mean, another scatter;
# 5. an LSTM finds the way, and a policy without memory cannot;
# 6. where the sign is kept;
# 7. do rewards make better use of a condition?
#
# Run it:  `python tutorials/11_t_maze.py`.  It takes about a minute; most of that is the training in parts 5
# and 7.  The picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm
from minilstm.training import (
    Episodes, Policy, TMaze, episode_chances, log_softmax, policy_gradient, policy_loss, reinforce, returns_to_go,
    rollout)
from minilstm.training.t_maze import EAST, NORTH, SOUTH, WEST

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")

# %% [markdown]
# ## 1. The maze
#
# It is Bram Bakker's (2002), in `minilstm/training/t_maze.py`:
#
#                                    goal?
#     sign -> [0][1][2] ... [N-1][N]
#                                    goal?
#
# The agent starts at place 0, where a sign tells whether the goal is north or south.  From place 1 on all places look
# alike, until the junction at place N, and that looks the same for both goals too.  At each step it chooses one of four
# actions, north, east, south, west.  The right turn at the junction earns 4, the wrong one -0.1, and either ends the
# walk.  A step into a wall costs 0.1, any other step nothing.  After 2 * (N + 1) steps the walk is over in any case.
#
#     B  walks (episodes)      T  steps      x (B,T,3) what is seen      mask (B,T), True = a real step

# %%
maze = TMaze(3)
place = maze.start(np.array([NORTH]))
print("a walk, N = 3, goal in the north")
for action, name in ((WEST, "west"), (EAST, "east"), (EAST, "east"), (EAST, "east"), (SOUTH, "south")):
    position, seen = place.positions[0], maze.observe(place)[0].astype(int)
    place, rewards, done = maze.step(place, np.array([action]))
    print(f"  place {position}, sees {seen}, goes {name:5s} reward {rewards[0]:+.1f}{', the end' if done[0] else ''}")

signs = maze.observe(maze.start(np.array([NORTH, SOUTH])))
assert signs.tolist() == [[0, 1, 1], [1, 1, 0]]

# %% [markdown]
# What is seen is three numbers, and there are four sights: [0 1 1] is the sign for north, [1 1 0] that for south,
# [1 0 1] the corridor, and [0 1 0] the junction.
#
# What is wanted?  Rewards that come soon count more than late ones: the reward of step t counts DISCOUNT**t of itself,
# and the sum is the **return** of the walk.  We want its mean J to be as large as it can be.  Two numbers are known:
#
# * **the optimum**: N steps east and the turn to the goal, 4 * DISCOUNT**N.  No walk has a higher return;
# * **the best without memory**: a policy that only looks at what it sees now cannot tell north from south at the
#   junction.  It can go east, turn, and be right every other time: (4 - 0.1) / 2 * DISCOUNT**N.  (That nothing else
#   helps it, such as waiting at the sign, is argued in `TMaze.memoryless_optimum`, and the tests try.)

# %%
N, DISCOUNT = 10, 0.98
maze = TMaze(N)
OPTIMUM, WITHOUT = maze.optimum(DISCOUNT), maze.memoryless_optimum(DISCOUNT)
print(f"\nN = {N}, discount {DISCOUNT}: optimum {OPTIMUM:.3f}, best without memory {WITHOUT:.3f}")

# %% [markdown]
# Why not train as before, with inputs and targets?
#
# * There is no target.  The reward says how good a walk was, not which action would have been better.
# * It is late.  The four points come at step 10, and perhaps they were earned at step 0, by looking at the sign.
# * The data depend on the network.  What it does decides what it sees next; one that never goes east never learns
#   what the junction is like.
# * And no derivative leads through the maze: `step` is a table of rules, and an action is a choice.
#
# ## 2. A gradient without an answer
#
# The way out is to let the network **choose by chance**.  It does not say "east"; it gives a chance pi to each action
# (the softmax of its four outputs, the *logits*), and an action is drawn.  Which walk w comes out is then a matter of
# chance too, p(w), and J is a sum over all walks that can be.  R(w) is the return of a walk:
#
#     J = sum over w of  p(w) * R(w)
#
# The weights theta move the chances, smoothly, so J has a gradient.  Only p depends on theta:
#
#     dJ = sum over w of  dp(w) * R(w)  =  sum over w of  p(w) * [R(w) * dlog p(w)]        since dp = p * dlog p
#
# This is the whole trick: a sum with weights p(w) is a mean over walks.  We cannot list all walks, but we can walk, as
# often as we like, and take the mean of the bracket.  And the bracket needs no rules of the maze:  p(w) is the
# product of what the maze does, which theta does not move, and of the chances of the actions taken, so
#
#     dlog p(w) = sum over t of dlog pi(a_t)
#
# An action cannot change rewards that came before it.  They drop out on average, and what remains is the **return to
# go**, G_t = r_t + DISCOUNT * r_(t+1) + ...:
#
#     dJ = mean over walks of  sum over t of  DISCOUNT**t * G_t * dlog pi(a_t)
#
# That is REINFORCE (Williams 1992).  In words: do again what was followed by much.  What remains is to differentiate
# log pi(a_t), and that is backpropagation through the LSTM, as in tutorial 3.  `policy_gradient` does it, and
# `minilstm/training/rewards.py` is short.
#
# A `Policy` is an LSTM with two linear heads: the logits, and a guess of G_t, of which more in part 4.  To act it goes
# one step at a time and hands on its state; to learn it goes over whole walks.  Both give the same chances:

# %%
rng = np.random.default_rng(0)
policy = Policy(minilstm.LSTM(3, 16), 4)
place, state, acted = maze.reset(64, rng), policy.start(64), []
for _ in range(12):
    x = maze.observe(place).astype("float32")
    act = policy.act(x, state, rng)
    acted.append((x, act.actions, act.log_probabilities))
    place, state = maze.step(place, act.actions)[0], act.state
x, actions, log_p = (np.stack(arrays, axis=1) for arrays in zip(*acted))
whole = np.take_along_axis(log_softmax(policy.forward(x)[0].logits), actions[:, :, None], axis=2)[:, :, 0]
print(f"\nlog pi(a_t), step by step against the whole walk: differs by {np.abs(log_p - whole).max():.0e}")
assert np.abs(log_p - whole).max() < 1e-5

# %% [markdown]
# ## 3. Is it true?
#
# In a maze of one step, N = 1, cut off after 3 steps, only 116 different walks are possible.  `every_episode` lists
# them.  So J can be computed exactly, and its gradient by moving one weight at a time a little up and down; there is
# no logarithm in that, and no estimator.  Against it stands what REINFORCE says: the estimate from each single walk,
# as if that were all we had seen, and their mean with the chances of the walks.
#
# The LSTM here is small and has had a little training, so that it often finds the goal, and often does not.

# %%
SHORT = TMaze(1, limit=3)
walks, sign_chance = SHORT.every_episode()
returns = returns_to_go(walks.rewards, walks.mask, discount=DISCOUNT)[:, 0]


def chances(policy):
    return sign_chance * episode_chances(policy, walks)


def exact_gradient(policy, step=1e-5):
    """dJ, weight by weight, by central differences of J over all walks."""
    found = []
    for _, layer in policy.walk():
        for name, p in list(layer.params.items()):
            for k in range(p.size):
                J = []
                for sign in (1, -1):
                    moved = p.copy()
                    moved.flat[k] += sign * step
                    layer.params[name] = moved
                    J.append(chances(policy) @ returns)
                found.append((J[0] - J[1]) / (2 * step))
            layer.params[name] = p
    return np.array(found)


def estimate(policy, walked, baseline=False):
    """What these walks say of dJ, as one vector.  (``policy_gradient`` gives the gradient of a loss: of minus J.)"""
    policy.zero_grads()
    policy_gradient(policy, walked, discount=DISCOUNT, baseline=baseline, value_weight=0)
    return np.concatenate([-g.ravel() for _, layer in policy.walk() for g in layer.grads.values()])


def estimates(policy, baseline=False):
    """What each of the 116 walks alone says of dJ: (walks, weights)."""
    return np.array([estimate(policy, Episodes(*(array[k:k + 1] for array in walks)),
                              baseline if isinstance(baseline, bool) else baseline[k:k + 1])
                     for k in range(len(returns))])


policy = Policy(minilstm.LSTM(3, 4, dtype="float64", backend="reference"), 4)
reinforce(policy, SHORT, updates=30, discount=DISCOUNT, optimizer=minilstm.Adam(0.03), progress=False)
p, gradient = chances(policy), exact_gradient(policy)
single = estimates(policy)
off = np.abs(p @ single - gradient).max() / np.abs(gradient).max()
print(f"\n{len(p)} walks, their chances sum to {p.sum():.12f}; J = {p @ returns:.3f}; {len(gradient)} weights")
weight = np.abs(gradient).argmax()
print(f"one weight: dJ = {gradient[weight]:+.4f} exactly; walks say from {single[:, weight].min():+.2f} to "
      f"{single[:, weight].max():+.2f}, their mean is {p @ single[:, weight]:+.4f}")
print(f"all weights: the mean is off by {off:.0e} of the largest")
assert abs(p.sum() - 1) < 1e-12 and off < 1e-8

# %% [markdown]
# Single walks contradict each other wildly, and their mean is exact, up to the rounding of the differences: the
# estimator is **unbiased**.  Now what happens if one walks, as one has to?  The mean of n drawn walks comes near to dJ
# as one over the root of n:

# %%
for n in (10, 100, 1000, 10_000):
    drawn = estimate(policy, rollout(policy, SHORT, n, seed=n))
    expected = np.sqrt((p @ (single - gradient) ** 2).sum() / n)
    error = np.linalg.norm(drawn - gradient)
    print(f"  {n:6d} walks: error {error / np.linalg.norm(gradient):.3f} of the length of dJ, expected about "
          f"{expected / np.linalg.norm(gradient):.3f}")
    assert 0.2 < error / expected < 4

# %% [markdown]
# ## 4. The baseline
#
# Suppose that all returns lie between 3 and 4.  Then REINFORCE says of every action taken "more of that", only a little
# louder for the good ones; the bad ones lose only because the chances must sum to 1.  Better to say how much the return
# was above what was expected.  So take a number b_t away from G_t:
#
#     dJ = mean over walks of  sum over t of  DISCOUNT**t * (G_t - b_t) * dlog pi(a_t)
#
# What stands before dlog pi(a_t) is called the **advantage** of this action: by how much it went better than expected.
#
# Is that allowed?  What is added is b_t times the mean of dlog pi(a_t), and that mean is the sum over the actions of
# pi * dlog pi = dpi, and as the chances sum to 1, their changes sum to 0.  So b_t may be **anything that does not
# depend on a_t, nor on what comes after it**.  It may depend on all that was seen before; so it can be a second output
# of the same LSTM, the *value*, which learns to guess G_t.  We try that, and some that are wrong.


# %%
def bias(baseline):
    return np.abs(p @ estimates(policy, baseline) - gradient).max() / np.abs(gradient).max()


G = returns_to_go(walks.rewards, walks.mask, discount=DISCOUNT)
late = DISCOUNT ** -np.arange(G.shape[1])                   # undoes the factor DISCOUNT**t
found = {"the value head": bias(True), "a thousand": bias(np.full_like(G, 1000.0)),
         "0.5 if the action is east": bias(np.where(walks.actions == EAST, 0.5, 0.0)),
         "half of the return to come": bias(G / 2),
         "none, and no DISCOUNT**t": bias(G - late * G)}
print("\nbaseline                        bias, of the largest dJ")
for name, value in found.items():
    print(f"  {name:30s}{value:10.1e}")
assert max(list(found.values())[:2]) < 1e-7 and min(list(found.values())[2:]) > 0.005

# %% [markdown]
# The first two are right: the value head, which has not learned anything yet to speak of, and even an absurd constant.
# The third knows the action, the fourth the future, and both are biased.  So is the last one, and many programs do it:
# they weigh all steps alike and discount only G.  That follows no gradient of J (Thomas 2014); how far it is off
# depends on how much is discounted, and here that is little.
#
# So what is a baseline good for?  For the **scatter** of the estimates.  We look at the maze with N = 10, while an LSTM
# learns in it.  At each stage 30 batches of 64 walks estimate dJ, without a baseline and with the value head, from the
# same walks.  The scatter below is the sum of the variances of all weights, for one walk.  The error of a mean over n
# walks is the root of scatter / n, so half the scatter means half the walks.


# %%
def look(policy, rng):
    """J, and the scatter of the estimates without a baseline and with the value head, from the same walks."""
    J, estimated = [], {False: [], True: []}
    for _ in range(30):
        walked = rollout(policy, maze, 64, seed=rng)
        J.append(returns_to_go(walked.rewards, walked.mask, discount=DISCOUNT)[:, 0].mean())
        for baseline, found in estimated.items():
            found.append(estimate(policy, walked, baseline))
    return np.mean(J), [64 * np.var(found, axis=0, ddof=1, dtype=np.float64).sum() for found in estimated.values()]


def fresh_policy(seed):
    return Policy(minilstm.LSTM(3, 16, seed=seed), 4, seed=seed)


policy = fresh_policy(3)
optimizer, rng = minilstm.Adam(0.02), np.random.default_rng(3)
scatter, updates = {}, 0
print("\nafter updates       J    scatter: no baseline   value head    ratio")
for stage in (0, 25, 50, 100, 200):
    if stage:
        reinforce(policy, maze, updates=stage - updates, discount=DISCOUNT, entropy_weight=0.02, optimizer=optimizer,
                  seed=10 + stage, progress=False)
    updates = stage
    J, scatter[stage] = look(policy, rng)
    without, with_values = scatter[stage]
    print(f"  {stage:11d} {J:7.2f} {without:23.1f} {with_values:12.2f} {without / with_values:8.1f}")
saved = {stage: 1 - with_values / without for stage, (without, with_values) in scatter.items()}
assert saved[0] > 0.2 and 0.3 < saved[25] < saved[50] < 0.6 and saved[200] > 0.9
at_first = [without / with_values for _, (without, with_values) in (
    look(fresh_policy(seed), np.random.default_rng(seed)) for seed in range(6))]
print("the ratio before any update, seeds 0 to 5:" + "".join(f"{ratio:6.1f}" for ratio in at_first))
assert min(at_first) < 0.8 and max(at_first) > 1.2

# %% [markdown]
# At first the value head has learned nothing.  Here, with seed 3, its guesses happen to help; with other seeds a ratio
# below 1 says that they add scatter.  Soon it saves a third to a half of the walks, and in the end it makes all the
# difference: when nearly every walk earns the same, there is nearly nothing to learn from it, and with the baseline the
# estimate says so.  Without one it goes on pulling at all weights.
#
# ## 5. The corridor of ten
#
# Now N = 10.  Three policies, three seeds each, 240 updates with 64 walks each: an LSTM with the value head as
# baseline, the same without, and one without memory: linear maps of what is seen now.  (Linear is enough: four sights
# need four rows of chances, and a linear map of three inputs and a bias can give any.)  A small bonus for being
# undecided, `entropy_weight`, keeps all from settling too early.
#
# The table shows J in the last 20 updates, how often 95 % of the optimum was reached, and after how many walks; and
# what the most likely actions earn, without any dice.

# %%
UPDATES, WALKS, SEEDS = 240, 64, range(3)


def learn(body, world, seed, updates=UPDATES, **options):
    """-> the trained policy, and J before each update."""
    policy = Policy(body, 4, seed=seed)
    return policy, np.array(reinforce(
        policy, world, updates=updates, episodes=WALKS, discount=DISCOUNT, entropy_weight=0.02,
        optimizer=minilstm.Adam(0.02), seed=seed, progress=False, **options))


def smooth(history):
    """Means over ten updates."""
    return np.convolve(history, np.full(10, 0.1), "valid")


def walks_until(history):
    """Walks until the mean of ten updates is above 95 % of the optimum; infinity if it never is."""
    above = smooth(history) > 0.95 * OPTIMUM
    return (above.argmax() + 10) * WALKS if above.any() else np.inf


def greedy(policy, world):
    """The mean return of the most likely actions, both signs counted alike."""
    walked = rollout(policy, world, 64, greedy=True)
    earned = returns_to_go(walked.rewards, walked.mask, discount=DISCOUNT)[:, 0]
    north = walked.x[:, 0, 2] == 1                          # the sign at place 0 is [0 1 1], and not [1 1 0]
    return (earned[north].mean() + earned[~north].mean()) / 2


def show(name, histories, policies, world):
    counts = [walks_until(history) for history in histories]
    reached = [count for count in counts if count < np.inf]
    print(f"  {name:26s} {np.mean([history[-20:].mean() for history in histories]):6.2f}     {len(reached)} of "
          f"{len(counts)}   {' '.join(f'{count:7.0f}' for count in reached):26s} "
          + " ".join(f"{greedy(policy, world):5.2f}" for policy in policies), flush=True)
    return counts


KINDS = {"LSTM, baseline": (minilstm.LSTM, True), "LSTM, no baseline": (minilstm.LSTM, False),
         "no memory, baseline": (minilstm.Linear, True)}
HEAD = "                             J at end   reached   after walks                most likely actions"
print(f"\noptimum {OPTIMUM:.2f}, best without memory {WITHOUT:.2f}\n{HEAD}")
curves, policies, counts = {}, {}, {}
for kind, (body, baseline) in KINDS.items():
    results = [learn(body(3, 16, seed=seed), maze, seed, baseline=baseline) for seed in SEEDS]
    policies[kind], curves[kind] = zip(*results)
    counts[kind] = show(kind, curves[kind], policies[kind], maze)
best = max(policies["LSTM, baseline"], key=lambda policy: greedy(policy, maze))
assert max(counts["LSTM, baseline"]) < np.inf and abs(greedy(best, maze) - OPTIMUM) < 1e-5
assert all(greedy(policy, maze) < WITHOUT + 1e-5 for policy in policies["no memory, baseline"])

# %% [markdown]
# With the baseline every LSTM reaches the optimum, and its most likely actions are the optimal ones for both signs.
# Look at the curves in the picture: first they climb to the best that can be had without memory, rest there for a
# while, and then find the sign.  Without the baseline none gets beyond that first stage in this time.  And the policy
# without memory comes to the number that we computed for it, and stays.
#
# Nothing here is guaranteed.  One curve in the picture finds the sign and loses it again for a while.  Each update is
# made from 64 walks, and these are a matter of chance; three seeds show a little of that, and not all that can happen.
#
# ## 6. Where the sign is kept
#
# We walk the best way twice, once for each sign.  From the second step on, all that is seen is the same for both, so
# every difference in the network is memory.  How far apart are h and c of the two walks, and which unit of c is
# furthest?


# %%
def best_walk(world, goals):
    """N steps east and the turn to the goal: x (B,N+1,D) and the actions (B,N+1)."""
    place, seen, done = world.start(goals), [], []
    for _ in range(N + 1):
        actions = np.where(place.positions == N, place.goals, EAST)
        seen.append(world.observe(place).astype("float32"))
        done.append(actions)
        place, _, _ = world.step(place, actions)
    return np.stack(seen, axis=1), np.stack(done, axis=1)


x, _ = best_walk(maze, np.array([NORTH, SOUTH]))
traces = [minilstm.trace(best.body, x, row=row) for row in range(2)]
apart = {name: traces[0].series(name) - traces[1].series(name) for name in "hc"}
unit = np.abs(apart["c"][-2]).argmax()
gate = {name: np.mean([trace.series(name)[1:-1, unit] for trace in traces]) for name in "if"}
print("\nplace                        " + "".join(f"{t:7d}" for t in range(N + 1)))
for name in "hc":
    print(f"{name}: the two walks apart by    " + "".join(f"{d:7.2f}" for d in np.linalg.norm(apart[name], axis=1)))
print(f"c of unit {unit:2d}, sign north     " + "".join(f"{c:7.2f}" for c in traces[0].series("c")[:, unit]))
print("              sign south     " + "".join(f"{c:7.2f}" for c in traces[1].series("c")[:, unit]))
for trace in traces:
    added = np.diff(trace.series("c")[1:, unit])                        # at places 2, 3, ... N
    assert (added > 0).all() or (added < 0).all()
assert gate["f"] > 0.9 and np.abs(apart["c"][-2, unit]) > np.abs(apart["c"][1, unit])
print(f"its gates in the corridor, means: f {gate['f']:.2f}, i {gate['i']:.2f}")

# %% [markdown]
# The difference is laid down at the sign, and on the way it does not fade: it grows.  The unit keeps what it has, f is
# nearly 1, and from place 2 on each step adds something of the same sign.  Nobody told the network to keep it; the
# reward ten steps later did.  Does the junction read it from there?  We can ask by a **transplant**.  Two walks go to
# the middle of the corridor; there the second one, which has seen *south*, gets h, or c, or both from the first.


# %%
def chance_of_north(h0, c0, middle=N // 2):
    """At the junction, for one walk that goes on from the middle with this state."""
    h = best.body.forward(x[:1, middle:], h0=h0, c0=c0)[0].y
    return np.exp(log_softmax(best.logits.forward(h)[0]))[0, -1, NORTH]


state = best.body.forward(x[:, :N // 2])[0]
h, c = ([s[:, :, row:row + 1].copy() for row in range(2)] for s in (state.h_n, state.c_n))
transplants = {"north": (h[0], c[0]), "south": (h[1], c[1]), "south, with the h of north": (h[0], c[1]),
               "south, with the c of north": (h[1], c[0])}
north = {name: chance_of_north(*given) for name, given in transplants.items()}
print("\nhas seen, at the middle of the corridor      chance to turn north")
for name, chance in north.items():
    print(f"  {name:42s} {chance:.3f}")
assert north["north"] > 0.9 and north["south"] < 0.1
assert north["south, with the c of north"] > 0.8 and north["south, with the h of north"] < 0.2

# %% [markdown]
# With another's c the agent follows another's sign; with another's h it hardly does.  So the sign is in c.
#
# ## 7. Do rewards make better use of a condition?
#
# Back to the popular text.  The sign is a condition, and rewards did teach the LSTM to use it.  Was that because they
# were *rewards*?  We change one thing at a time.
#
# * **Labels**: a teacher who knows the best way.  The same LSTM on best walks.  What is made small is the
#   *cross-entropy*, the usual loss for labels: the sum of -log pi(a_t) over the right actions.  That needs no new code:
#   REINFORCE makes the sum of -advantage * log pi(a_t) small, so with all advantages 1 `policy_loss` is the
#   cross-entropy.
# * **The sign at every step**, as one more input, in place of at the start only: how a condition is usually given.
#   Then the policy without memory will do.
# * **Another reward**: the wrong turn costs 8 in place of 0.1.  The best policy and the optimum are what they were.


# %%
class SignEverywhere(TMaze):
    """The sign is seen at every step, as a fourth number."""
    observation_size = 4

    def observe(self, place):
        sign = np.where(place.goals == NORTH, 1.0, -1.0)
        return np.concatenate([super().observe(place), sign[:, None]], axis=1)


class Stern(TMaze):
    """The wrong turn costs 8."""

    def step(self, place, actions):
        place, rewards, done = super().step(place, actions)
        return place, np.where(done & (rewards < 0), -8.0, rewards), done


FEWER = 160                                 # updates


def taught(seed):
    """The same LSTM, taught the best walks by labels -> policy, J before each update."""
    policy = Policy(minilstm.LSTM(3, 16, seed=seed), 4, seed=seed)
    optimizer, rng, history = minilstm.Adam(0.02), np.random.default_rng(seed), []
    for _ in range(FEWER):
        walked = rollout(policy, maze, WALKS, seed=rng)                 # only to measure J; nothing is learned from it
        history.append(returns_to_go(walked.rewards, walked.mask, discount=DISCOUNT)[:, 0].mean())
        x, labels = best_walk(maze, maze.reset(WALKS, rng).goals)
        (logits, _), cache = policy.forward(x)
        _, d_logits = policy_loss(logits, labels, advantages=np.ones(labels.shape, "float32"))
        policy.zero_grads()
        policy.backward(cache, d_logits)
        minilstm.clip_global_norm(policy, 1.0)
        optimizer.step(policy)
    return policy, np.array(history)


print(f"\n{HEAD}")
show("LSTM, rewards (part 5)", curves["LSTM, baseline"], policies["LSTM, baseline"], maze)
ways = {"LSTM, labels": (taught, maze)}
ways["no memory, sign everywhere"] = (
    lambda seed: learn(minilstm.Linear(4, 16, seed=seed), SignEverywhere(N), seed, FEWER), SignEverywhere(N))
ways["LSTM, a stern reward"] = (lambda seed: learn(minilstm.LSTM(3, 16, seed=seed), Stern(N), seed, FEWER), Stern(N))
for name, (way, world) in ways.items():
    policies[name], curves[name] = zip(*[way(seed) for seed in SEEDS])
    counts[name] = show(name, curves[name], policies[name], world)
stuck = rollout(policies["LSTM, a stern reward"][0], Stern(N), 200)
turned = (stuck.mask.sum(axis=1) < maze.limit).mean()
print(f"under the stern reward, walks that end with a turn: {turned:.0%}")
assert max(counts["LSTM, labels"]) < np.inf
assert max(counts["no memory, sign everywhere"]) < min(counts["LSTM, baseline"])
assert np.mean([history[-20:].mean() for history in curves["LSTM, a stern reward"]]) < 1

# %% [markdown]
# * **Labels** teach the same network somewhat faster, not by much.  Most of the time goes into what is the same for
#   both: to find, at the end of a corridor, that something seen at its beginning matters.  So rewards make no better
#   use of the condition; they make use of it **without a teacher**, and that is what they are for.  (Here.  In a longer
#   corridor, where a walk by chance hardly ever gets to the junction, the teacher's walks would be worth more.)
# * **The sign at every step** shortens learning more than anything else, and no memory is needed.  If the condition is
#   known at every step, give it at every step.
# * **The stern reward** has the same optimum, and from it none of the three learns the way in the time given.  While
#   the sign is not understood a turn costs 2 on average, so the first thing to learn is never to turn; and who never
#   turns never learns what the sign means.  In the popular text's sentence the word that carries the weight is
#   *appropriate*.
#
# ## The picture

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK = "#009E73", "#CC79A7"
figure = Figure(figsize=(12, 8.4), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
panels = figure.subplot_mosaic("ab;cd")
learning, reasons, memory, spread = (panels[name] for name in "abcd")


def lines(axes, kind, color, label, style="-"):
    for k, history in enumerate(curves[kind]):
        axes.plot(WALKS * np.arange(10, len(history) + 1), smooth(history), color=color, ls=style, lw=1.5,
                  label=label if k == 0 else None)


for axes in (learning, reasons):
    for height, text in ((OPTIMUM, "optimum"), (WITHOUT, "best without memory")):
        axes.axhline(height, color=BLACK, ls=":", lw=1)
        axes.text(UPDATES * WALKS, height + 0.2, text, ha="right", va="bottom", color=BLACK)
    axes.set(xlabel="walks", ylabel="J, mean of ten updates", xlim=(0, UPDATES * WALKS), ylim=(-1.2, 3.9))
lines(learning, "LSTM, no baseline", GREY, "LSTM, no baseline")
lines(learning, "no memory, baseline", ORANGE, "no memory, baseline", "--")
lines(learning, "LSTM, baseline", BLUE, "LSTM, baseline")
learning.set(title="Learning from rewards, three seeds each")
lines(reasons, "LSTM, baseline", BLUE, "rewards, as on the left")
lines(reasons, "LSTM, labels", GREEN, "labels", "--")
lines(reasons, "no memory, sign everywhere", PINK, "sign at every step, no memory", "-.")
lines(reasons, "LSTM, a stern reward", ORANGE, "wrong turn costs 8", ":")
reasons.set(title="What helps to use the sign")
for axes in (learning, reasons):
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.24))

for other in range(16):
    memory.plot(apart["c"][:, other], color=BLUE if other == unit else GREY, lw=2.5 if other == unit else 1,
                zorder=3 if other == unit else 2)
memory.axhline(0, color=BLACK, ls=":", lw=1)
memory.set(title="16 units: c after sign north minus c after sign south", ylabel="difference", xticks=range(N + 1),
           xlabel="place (0: the sign, 10: the junction)", xlim=(0, N))
memory.text(8, 1.1 * apart["c"][8, unit], f"unit {unit}", color=BLUE, ha="right")

stages = list(scatter)
for k, (label, color) in enumerate((("no baseline", GREY), ("value head as baseline", BLUE))):
    heights = [scatter[updates][k] for updates in stages]
    bars = spread.bar(np.arange(len(stages)) + 0.4 * k - 0.2, heights, 0.38, color=color, label=label)
    spread.bar_label(bars, [f"{height:.2f}" if height < 1 else f"{height:.3g}" for height in heights], color=BLACK)
spread.set(title="What a baseline is good for", xlabel="updates so far", yscale="log", ylim=(0.1, 1e4),
           ylabel="scatter of the estimate from one walk")
spread.set_xticks(range(len(stages)), stages)
spread.legend(frameon=False, loc="upper left")
for axes in panels.values():
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "11_t_maze.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
