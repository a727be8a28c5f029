# %% [markdown]
# # 10. Heads and pooling: from all the steps to an answer
#
# A recurrent network gives an output at every step.  The task wants one number for a sequence, or one for each step.
# What comes between is called the *head*.  A popular text, "How can LSTMs be correctly combined with linear layers?",
# names three: a linear layer on the **last** output, a linear layer at **every** step, and a linear layer on the
# **mean** of all outputs.  All three are right as long as all sequences of a batch have the same length.  It also says
# that for other lengths "padding or other sequence management techniques would be necessary", and stops there.  Here we
# go on from there:
#
# 1. the three heads, on sequences of full length;
# 2. `out[:, -1]` in a padded batch;
# 3. a bidirectional network has two last steps;
# 4. every step: the loss needs a mask, too;
# 5. the mean over padding;
# 6. the maximum over padding;
# 7. what the popular forms cost in training;
# 8. which head for which task: a table.
#
# Run it:  `python tutorials/10_heads_and_pooling.py`.  It takes about a minute; most of that is the training in
# parts 7 and 8.  The picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import minilstm
from minilstm import AttentionPooling, masking, sequences

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")
EXACT = {"dtype": "float64", "backend": "reference"}    # plain NumPy in double precision, for all but training


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def largest(array):
    return np.abs(array).max()


def off_by(found, right):
    """How far off, as a part of the length of what is right."""
    return np.linalg.norm(found - right) / np.linalg.norm(right)


# %% [markdown]
# ## 1. The three heads
#
#     B  batch      T  time steps      D  input features      H  hidden units      F  outputs
#     x (B,T,D)     y (B,T,H), the outputs of an LSTM         mask (B,T) bool, True = a real step
#
# The sizes are those of the popular text: 32 sequences of 50 steps and 10 features, 20 units, one output.  The weights
# are drawn as PyTorch draws them, biases too: uniform between -1 and 1 over the root of H.

# %%
B, T, D, H = 32, 50, 10, 20


def drawn(net, rng):
    """The same layer with PyTorch's kind of initial weights."""
    for name, p in net.params.items():
        net.params[name] = rng.uniform(-1, 1, p.shape) / np.sqrt(H)
    return net


rng = np.random.default_rng(0)
net = drawn(minilstm.LSTM(D, H, **EXACT), rng)
linear = drawn(minilstm.Linear(H, 1, **EXACT), rng)
x = rng.standard_normal((B, T, D))
out, _ = net.forward(x)
every, _ = linear.forward(out.y)
last, _ = linear.forward(out.y[:, -1].copy())
mean, _ = linear.forward(out.y.mean(axis=1))
print(f"y {out.y.shape};  last {last.shape}, every step {every.shape}, mean {mean.shape}")
print(f"the last y is the state at the end, h_n: the same bits, {same_bits(out.y[:, -1].copy(), out.h_n[0, 0])}")
step_by_step = np.stack([linear.forward(out.y[:, t].copy())[0] for t in range(T)], axis=1)
print(f"linear on all steps at once, or on one after another: they differ by {largest(every - step_by_step):.0e}")
assert same_bits(out.y[:, -1].copy(), out.h_n[0, 0]) and largest(every - step_by_step) < 1e-14
mean_of_linear = every.mean(axis=1)
print(f"the mean of the linear layer's outputs, or the linear layer of the mean: {largest(mean_of_linear - mean):.0e}")
assert largest(mean_of_linear - mean) < 1e-14

# %% [markdown]
# So much is right.  (One slip of the text: the `_` in `lstm_out, _ = lstm(x)` is not the cell state.  It is a pair, h
# at the end and c at the end, and that h is what the text then takes out of `lstm_out`.)
#
# The text calls the second form "multi-step prediction".  Each of its outputs has read the steps up to its own and none
# after it.  We change the second half of x, and look at the first half of the answers:

# %%
changed = x.copy()
changed[:, 25:] += 1
moved = linear.forward(net.forward(changed)[0].y)[0] - every
print(f"\nthe second half of x changed: answers move by {largest(moved[:, :25]):.0f} in the first half, "
      f"by {largest(moved[:, 25:]):.2f} in the second")
assert not moved[:, :25].any() and moved[:, 25:].all()

# %% [markdown]
# This is what one wants, as nobody can read the future.  But it is one answer a step, about that step: 50 steps in, 50
# answers out.  A forecast of the *next* 50 steps is another thing; it needs 50 outputs at the last step, or a network
# that goes on by itself.
#
# ## 2. `out[:, -1]` in a padded batch
#
# Now the sequences have lengths from 5 to 50, and zeros fill up the rest.  What is `out[:, -1]`?  Three cases:
#
# * **no mask**: the network walks on over the zeros, and its state drifts (tutorial 5);
# * **mask given, `out[:, -1]`**: y is 0 at masked steps, so the head reads zeros in all rows but the longest.  It is
#   the same in PyTorch for a packed sequence that is unpacked again: packing alone does not make `[:, -1]` right;
# * **mask given, the last real step**: `masking.last_valid(y, mask)`, or h_n.
#
# We compare with each sequence by itself, without any padding, and let the padding grow.

# %%
lengths = rng.integers(5, T + 1, B)
several = [x[b, :length] for b, length in enumerate(lengths)]
alone = np.concatenate([net.forward(sequence[None])[0].h_n[0, 0] for sequence in several])
PADDED_TO = (50, 60, 80, 120)
last_off = {"no mask, y[:, -1]": [], "mask, y[:, -1]": [], "mask, last real step": []}
for steps in PADDED_TO:
    padded, mask = sequences.pad(several, length=steps)
    blind, out = net.forward(padded)[0], net.forward(padded, mask)[0]
    last_off["no mask, y[:, -1]"].append(off_by(blind.y[:, -1], alone))
    last_off["mask, y[:, -1]"].append(off_by(out.y[:, -1], alone))
    last_off["mask, last real step"].append(off_by(masking.last_valid(out.y, mask), alone))
    assert same_bits(masking.last_valid(out.y, mask), out.h_n[0, 0])
print("\npadded to, steps                     " + "".join(f"{steps:8d}" for steps in PADDED_TO))
for name, found in last_off.items():
    print(f"  {name:24s} off by    " + "".join(f"{off:8.2f}" if off > 1e-15 else f"{off:8.0f}" for off in found))
assert min(last_off["no mask, y[:, -1]"]) > 0.3 and last_off["mask, y[:, -1]"][-1] == 1
assert max(last_off["mask, last real step"]) < 1e-15

# %% [markdown]
# "Off by" is a part of the length of the right state.  1 is as far off as saying 0, and the second row comes to just
# that.  The last row is 0 up to rounding, and `last_valid` and h_n are the same bits: a network that skips masked steps
# has its last real state at the end.
#
# As a layer of a model this is `Pooling("last")`.  It takes the mask, and hands the gradient to the last real step of
# each row and to no other; whatever stands in the padding, NaN too, is never read:

# %%
padded, mask = sequences.pad(several)
dirty = np.where(mask[:, :, None], padded, np.nan)
model = minilstm.Sequential(net, minilstm.Pooling("last", **EXACT), linear)
y, cache = model.forward(dirty, mask)
dx = model.backward(cache, np.ones_like(y))
print(f"\nNaN in the padding: answers {np.isfinite(y).mean():.0%} numbers, dx {np.isfinite(dx).mean():.0%} numbers, "
      f"largest dx in the padding {largest(dx[~mask]):.0f}")
assert largest(y - linear.forward(alone)[0]) < 1e-15 and not dx[~mask].any() and dx[mask].any()

# %% [markdown]
# ## 3. A bidirectional network has two last steps
#
# A bidirectional layer has two halves.  One walks forward and has read everything at the last step.  The other walks
# backward and has read everything at the *first*.  So `out[:, -1]` is right for one half; in the other half it has read
# a single step.  No padding is needed to go wrong here:

# %%
both = drawn(minilstm.LSTM(D, H, bidirectional=True, **EXACT), rng)
out, _ = both.forward(x)
ends, _ = minilstm.Pooling("ends", **EXACT).forward(out.y)
right = np.concatenate([out.h_n[0, 0], out.h_n[0, 1]], axis=1)
print("\noff by                 forward half   backward half")
half_off = {}
for name, found in (("y[:, -1]", out.y[:, -1]), ("y[:, 0]", out.y[:, 0]), ('Pooling("ends")', ends)):
    half_off[name] = off_by(found[:, :H], right[:, :H]), off_by(found[:, H:], right[:, H:])
    print(f"  {name:18s} {half_off[name][0]:14.2f} {half_off[name][1]:15.2f}")
one_step, _ = both.forward(x[:, -1:].copy())
alone_there = same_bits(one_step.y[:, 0, H:], out.y[:, -1, H:])
print(f"y[:, -1] of the backward half has read the last step alone: {alone_there}")
assert same_bits(ends, right) and half_off["y[:, -1]"][0] == half_off["y[:, 0]"][1] == 0 < half_off["y[:, -1]"][1]
assert alone_there

# %% [markdown]
# `Pooling("ends")` takes each half where it has read all of the sequence: the first half at the last real step, the
# second half at the first real step.  That is h_n of the two directions side by side, under any mask.
#
# ## 4. Every step: the loss needs a mask, too
#
# With one answer a step, padded steps have answers, too.  Their targets are made up, 0 most often, and the network
# finds 0 easy to say.  What does the mean squared error tell?  Here the targets are random numbers of variance 1, which
# a fresh network cannot know: its error is about 1.

# %%
target = [rng.standard_normal((length, 1)) for length in lengths]
print("\npadded to, steps                     " + "".join(f"{steps:8d}" for steps in PADDED_TO))
losses = {"all steps count": [], "real steps count": []}
gradient_off = []
for steps in PADDED_TO:
    padded, mask = sequences.pad(several, length=steps)
    wanted, _ = sequences.pad(target, length=steps)
    model = minilstm.Sequential(net, linear)
    gradients = {}
    for name, given in (("all steps count", None), ("real steps count", mask)):
        y, cache = model.forward(padded, given)
        loss, dy = minilstm.mean_squared_error(y, wanted, given)
        model.zero_grads()
        model.backward(cache, dy)
        losses[name].append(loss)
        gradients[name] = np.concatenate([g.ravel() for _, layer in model.walk() for g in layer.grads.values()])
    share = mask.mean()
    gradient_off.append(off_by(gradients["all steps count"] / share, gradients["real steps count"]))
for name, found in losses.items():
    print(f"  loss, {name:28s} " + "".join(f"{loss:8.4f}" for loss in found))
print("  gradient of the first, off by      " + "".join(f"{off:8.2f}" for off in gradient_off))
assert losses["all steps count"][-1] < 0.5 * losses["all steps count"][0]
assert abs(losses["all steps count"][-1] / losses["real steps count"][-1] - 0.25) < 0.02
assert np.ptp(losses["real steps count"]) < 1e-14 and min(gradient_off) > 0.1

# %% [markdown]
# The network is the same in all columns, and so are the data.  Yet its loss falls by more than half, to a quarter of
# the true one, since there are ever more steps at which nothing is asked.  A loss that depends on the padding cannot be
# compared with another one: not across batches, not across data sets, not with the error of a constant.  The masked
# mean is one number.  (The gradient is compared after it was divided by the share of real steps, so that its size is
# not held against it.  The rest is what the network learns about made-up steps.)
#
# There is a small case where the harm can be computed.  Let a model have one number to learn, a constant, for targets
# around 5.  The best constant is their mean.  If padded steps count, the best one is the mean over all steps, zeros
# included: 5 times the share of real steps.

# %%
padded, mask = sequences.pad([5 + numbers for numbers in target])
best = {"all steps count": padded.mean(), "real steps count": padded[mask].mean()}
print(f"\nshare of real steps {mask.mean():.2f}; the best constant: " +
      ", ".join(f"{value:.2f} if {name}" for name, value in best.items()))
assert abs(best["all steps count"] - best["real steps count"] * mask.mean()) < 1e-12

# %% [markdown]
# In minilstm the loss gets the mask: `mean_squared_error(y, target, mask)`, and `fit(model, x, target, mask)` does so
# by itself.  Padded steps then get a gradient of exactly 0.
#
# ## 5. The mean over padding
#
# The third head of the text is `torch.mean(lstm_out, dim=1)`.  In a padded batch it is wrong in two ways at once: there
# are states in the sum that drifted over zeros, and it divides by T, not by the length.  Giving the mask to the network
# mends the first: y is 0 at masked steps.  It does not mend the second.  The sum is right then, and the mean is the
# right one times length / T:

# %%
padded, mask = sequences.pad(several)
blind, out = net.forward(padded)[0].y, net.forward(padded, mask)[0].y
right_mean = np.stack([net.forward(sequence[None])[0].y[0].mean(axis=0) for sequence in several])
pooled = masking.masked_mean(out, mask)
ratio = (out.mean(axis=1) / pooled).mean(axis=1)
print("\nmean over time, off by")
for name, found in (("no mask, y.mean(axis=1)", blind.mean(axis=1)), ("mask, y.mean(axis=1)", out.mean(axis=1)),
                    ("mask, masked_mean", pooled)):
    print(f"  {name:26s} {off_by(found, right_mean):8.2f}")
print(f"masked outputs, divided by T: the right mean times length / T, to {largest(ratio - lengths / T):.0e}")
assert off_by(blind.mean(axis=1), right_mean) > 0.2 and largest(ratio - lengths / T) < 1e-13
assert largest(pooled - right_mean) < 1e-15

# %% [markdown]
# With such a head a short sequence gets a small vector, a long one a large one, and the linear layer cannot tell small
# from short.  The right form is `masking.masked_mean(y, mask)`, as a layer `Pooling("mean")`: the sum over real steps,
# divided by their number.  A row without any real step gives 0; nothing is divided by 0.
#
# ## 6. The maximum over padding
#
# "Max pooling" takes the largest value that each unit has had.  In a padded batch, 0 may be the largest: a unit that
# was below 0 at all real steps then says 0, a value it never had.

# %%
right_max = np.stack([net.forward(sequence[None])[0].y[0].max(axis=0) for sequence in several])
with_zeros = out.max(axis=1)
never = (with_zeros != right_max)
pooled, _ = masking.masked_max(out, mask)
print(f"\nmaximum over time of y with its zeros: {never.mean():.0%} of the values are none that the unit had, "
      f"{never[lengths < 10].mean():.0%} in sequences below 10 steps,\n"
      f"by up to {largest(with_zeros - right_max):.2f}.  No mask: off by {off_by(blind.max(axis=1), right_max):.2f};  "
      f"masked_max: {off_by(pooled, right_max):.2f}")
assert never.any() and largest(pooled - right_max) < 1e-15

# %% [markdown]
# The more so, the shorter the sequence, and the more the unit leans to one side.  `masking.masked_max`, as a layer
# `Pooling("max")`, looks at real steps only.
#
# ## 7. What the popular forms cost in training
#
# A network that is trained on padded sequences without a mask can get used to it.  Does it matter then?  Three tasks,
# each with the head that suits it: say the last number, the mean, the largest number of 5 to 25 (scaled to variance 1).
# The network has 16 units.  As written: no mask anywhere.  Right: the same with the mask.  The error is that on fresh
# sequences, as a part of the error of a constant; then on the same sequences with 35 more steps of padding.

# %%
TASKS = ("last number", "mean", "largest", "how many > 0", "marker there?", "number at marker")
SEEDS = range(3)


def batch(n, seed, shortest, longest):
    """-> x (n,T,2), mask, targets (n,6).  x: a number, and a marker, 1 at one step of every second sequence, else 0."""
    rng = np.random.default_rng(seed)
    many, answers = [], []
    for length in rng.integers(shortest, longest + 1, n):
        numbers, there, where = rng.standard_normal(length), rng.random() < 0.5, rng.integers(length)
        marker = there & (np.arange(length) == where)
        many.append(np.stack([numbers, marker], axis=1).astype("float32"))
        answers.append((numbers[-1], numbers.mean(), numbers.max(), (numbers > 0).sum(), there, there * numbers[where]))
    return *sequences.pad(many), np.array(answers)


train_x, train_mask, answers = batch(384, 0, 5, 25)
shift, scale = answers.mean(axis=0), answers.std(axis=0)
train_target = ((answers - shift) / scale).astype("float32")            # variance 1, so that a constant has error 1


def fresh(seed, shortest, longest):
    x, mask, answers = batch(512, seed, shortest, longest)
    return x, mask, (answers - shift) / scale


def error(model, task, x, mask, target):
    """The mean squared error for one task, as a part of that of the best constant."""
    y, _ = model.forward(x, mask, cache=False)
    wanted = target[:, TASKS.index(task)]
    return np.square(y[:, 0] - wanted).mean() / wanted.var()


def trained(task, head, seed, mask=train_mask):
    model = minilstm.Sequential(minilstm.LSTM(2, 16, seed=seed), head(seed), minilstm.Linear(16, 1, seed=seed))
    target = train_target[:, [TASKS.index(task)]]
    minilstm.fit(model, train_x, target, mask, epochs=26, batch_size=64, optimizer=minilstm.Adam(0.03), seed=seed,
                 progress=False)
    return model


def pooling(how):
    return lambda seed: minilstm.Pooling(how)


fresh_x, fresh_mask, fresh_target = fresh(1, 5, 25)
more = ((0, 0), (0, 35), (0, 0))
models, cost = {}, {}
print("\nerror / error of a constant; seeds 0, 1, 2     padded as in training      35 more steps of padding")
for task, how in (("last number", "last"), ("mean", "mean"), ("largest", "max")):
    for given in ("no mask", "mask"):
        of_task = [trained(task, pooling(how), seed, train_mask if given == "mask" else None) for seed in SEEDS]
        mask, longer_mask = (fresh_mask, np.pad(fresh_mask, more[:2])) if given == "mask" else (None, None)
        as_trained = [error(model, task, fresh_x, mask, fresh_target) for model in of_task]
        longer = [error(model, task, np.pad(fresh_x, more), longer_mask, fresh_target) for model in of_task]
        cost[task, given], models[task, how, given] = (as_trained, longer), of_task
        print(f"  {task:12s} {how + ', ' + given:28s}" + "".join(f"{e:9.3f}" for e in as_trained) + "   "
              + "".join(f"{e:9.3f}" for e in longer))
        assert given == "no mask" or as_trained == longer
assert min(cost["last number", "no mask"][0]) > 0.2 > 0.01 > max(cost["last number", "mask"][0])
assert min(cost["mean", "no mask"][0]) > 2 * max(cost["mean", "mask"][0]) and min(cost["mean", "no mask"][1]) > 0.4
assert 0.9 < max(cost["mean", "no mask"][1]) < 1.3
assert max(cost["largest", "no mask"][0]) < 0.1

# %% [markdown]
# * **Last.**  Without a mask it learns little: the answer must be carried over all the zeros.  (Tutorial 5, part 10,
#   has more on this, and on padding in front.)
# * **Mean.**  It does learn, with several times the error.  But what it has learned holds for padding as in training:
#   what was right with T steps is wrong with another T.  With 35 more steps it is from half as bad to as bad
#   as a constant.
# * **Maximum.**  This head minds the least: made-up steps do nothing, unless one of them is the largest.
#
# With the mask the errors are small, and the same to the bit for any padding.
#
# ## 8. Which head for which task?
#
# The text says: "the selection of the appropriate strategy depends entirely on the specific task".  True; but on what?
# We take six tasks.  In all of them the best possible error is 0, as the answer is a function of what was read:
#
# * the **last** number of the sequence; the **mean** of all; the **largest**; **how many** are above 0;
# * a second feature is 1 at one step of every second sequence: was the **marker there**?
# * the **number at the marker**, 0 if there was none.
#
# And five heads: the last state; mean, maximum and sum over time; and attention, in which each step gets a weight from
# what stands in it, and the weights of a sequence add up to 1 (tutorial 7).  The network is the same, 16 units.  Every
# cell is trained three times, on sequences of 5 to 25 steps with their mask, and tested twice: on fresh sequences of
# the same lengths, and on sequences of 60 steps, longer than any in training.

# %%
HEADS = {how: pooling(how) for how in ("last", "mean", "max", "sum")}
HEADS["attention"] = lambda seed: AttentionPooling(16, 8, seed=seed)
LENGTHS = {"5 to 25 steps, as in training": (fresh_x, fresh_mask, fresh_target), "60 steps": fresh(2, 60, 60)}
errors = {}
for head, make in HEADS.items():
    for task in TASKS:
        of_task = models.get((task, head, "mask")) or [trained(task, make, seed) for seed in SEEDS]
        for name, data in LENGTHS.items():
            errors[name, head, task] = [error(model, task, *data) for model in of_task]


def short(number):
    return f"{number:.3f}" if number < 1 else f"{number:.1f}"


for name in LENGTHS:
    print(f"\nerror on {name} / error of a constant; seeds 0, 1, 2\n" + 10 * " "
          + "".join(f"{task:>18s}" for task in TASKS))
    for head in HEADS:
        print(f"{head:10s}" + "".join(f"{short(e):>6s}" for task in TASKS for e in errors[name, head, task]))
FITTING = {"last number": "last", "mean": "mean", "largest": "max", "how many > 0": "sum",
           "number at marker": "attention"}
of_60 = {(head, task): np.median(errors["60 steps", head, task]) for head in HEADS for task in TASKS}
for task, own in FITTING.items():
    assert of_60[own, task] < min(of_60[head, task] for head in HEADS if head != own), task
for head in ("last", "max", "attention"):
    assert max(max(errors[name, head, "marker there?"]) for name in LENGTHS) < 0.005
of_25 = {key[1:]: found for key, found in errors.items() if key[0] != "60 steps"}
longer = {task: of_60[own, task] / np.median(of_25[own, task]) for task, own in FITTING.items()}
print("\nmedian error of the head of the task's form, 60 steps against 5 to 25, times:\n  "
      + ", ".join(f"{task} {ratio:.1f}" for task, ratio in longer.items()))
assert max(longer[task] for task in ("last number", "mean", "number at marker")) < 1.3
assert min(longer["largest"], longer["how many > 0"]) > 2
assert max(max(of_25[head, task]) for head in ("last", "attention") for task in TASKS) < 0.1
assert min(of_25["mean", "last number"]) > 0.5
for task in ("last number", "mean", "largest"):
    assert max(of_25[FITTING[task], task]) <= min(max(of_25[head, task]) for head in HEADS if head != "attention"), task

# %% [markdown]
# Look at the first table.
#
# * **The last state is a fair default**, and so is attention: for every task they are below a tenth of a constant's
#   error.  A recurrent network can add up, compare and remember by itself, and then say it at the end.
# * **The mean cannot say the last number.**  All steps have the same weight, and a network that walks forward cannot
#   know that a step is the last one.  (The sum can do it with a trick: if every step says by how much it differs from
#   the one before, the differences add up to the last number.  These networks have found a part of it.)
# * **Where head and task fit**, the error of the last number, the mean and the largest is the least, or nearly.  A
#   softmax can put all its weight on one step, so attention can do what a maximum does.
#
# The second table shows why this matters.  A network that was made to do by itself what the head could have done has
# learned it for the lengths that it has met.  At 60 steps the last state fails to say the mean, the largest number, and
# above all how many numbers there were; attention fails to say the last number, since a softmax cannot tell which step
# is the last.  The head that has the task's form is the best of the five.  The last state, the mean and attention go on
# as before, each with its own task, or better.  The maximum and the sum have several times the error that they had: the
# sum since each step says nearly what it should, and 60 small errors add up.  (All errors of "how many" are this large
# since a constant for 60 steps is a good answer, and the networks are far beyond what they have seen.)
#
# For *marker there?* no head is best.  The last state, the maximum and attention all solve it, at either length, and
# each for a good reason: remember it, look for the largest, look at that step.  So no cell of its column is framed.
#
# So: let the head have the form of the question.  *What now?* is a question for the last state; *on the whole?* for
# the mean; *ever?* for the maximum; *how many, how much?* for the sum; *what was at the place that ...?* for
# attention.
#
# To sum up: nothing in a batch may be read at `[:, -1]`, averaged or maximised over T, or put in a loss, before it is
# known which steps are real.  With the mask in the network, in the head and in the loss, padding has no effect at all.
#
# ## The picture
#
# Above: what `y[:, -1]` is in a padded batch (part 2) and in the two halves of a bidirectional layer (part 3), the loss
# of one and the same network (part 4), and the three heads of part 7, each trained three times.  Below: the two tables
# of part 8, the median of three networks.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN = "#009E73"
figure = Figure(figsize=(12, 8.2), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
above, below = figure.subfigures(2, 1, height_ratios=(1, 1.05))
last_axes, half_axes, loss_axes, cost_axes = above.subplots(1, 4, width_ratios=(1, 1, 1, 1.25))
tables = below.subplots(1, 2)

for (name, found), color, text, height in zip(last_off.items(), (ORANGE, BLACK, GREEN),
                                              ("no mask, y[:, -1]", "mask, y[:, -1]", "mask, last real step"),
                                              (0.66, 1.04, 0.04)):
    last_axes.plot(PADDED_TO, found, "o-", color=color, lw=2, ms=4)
    last_axes.text(120, height, text, ha="right", color=color)
last_axes.set(title="The last state", xlabel="padded to, steps", ylabel="off by, of its length", ylim=(-0.05, 1.2))

for aside, half, color, text in ((-0.2, 0, BLUE, "forward half"), (0.2, 1, ORANGE, "backward half")):
    bars = half_axes.bar(np.arange(3) + aside, [off[half] for off in half_off.values()], width=0.4, color=color)
    half_axes.bar_label(bars, fmt="%.2f", color=color, fontsize=8)
    half_axes.text(2.5, 0.75 - 0.1 * half, text, ha="right", color=color, fontsize=9)
half_axes.set_xticks(range(3), ["y[:, -1]", "y[:, 0]", "ends"])
half_axes.set(title="Bidirectional", ylabel="off by, of its length", ylim=(0, 1.2))

loss_axes.plot(PADDED_TO, losses["all steps count"], "o-", color=ORANGE, lw=2, ms=4)
loss_axes.plot(PADDED_TO, losses["real steps count"], "o-", color=GREEN, lw=2, ms=4)
loss_axes.text(120, losses["real steps count"][0] - 0.08, "real steps count", ha="right", color=GREEN)
loss_axes.text(120, 0.46, "all steps count", ha="right", color=ORANGE)
loss_axes.set(title="The loss of one network", xlabel="padded to, steps", ylabel="mean squared error", ylim=(0, 1.2))

ticks = []
for place, (task, given) in enumerate(cost):
    ticks.append(place + 0.3 * (place // 2))
    for aside, found, marker in ((-0.14, cost[task, given][0], "o"), (0.14, cost[task, given][1], "s")):
        cost_axes.plot(ticks[-1] + aside + 0.05 * (np.arange(3) - 1), found, marker, ms=5, mfc="none", mew=1.5,
                       color=GREEN if given == "mask" else ORANGE)
for left, task in zip(ticks[::2], ("last", "mean", "maximum")):
    cost_axes.text(left + 0.5, 3.2, task, ha="center", color=BLACK)
cost_axes.set(title="The three heads, trained", yscale="log", ylim=(2e-4, 7), ylabel="error / error of a constant",
              xlabel="circles: padded as in training;\nsquares: 35 more steps")
cost_axes.axhline(1, color=GREY, ls=":")
cost_axes.set_xticks(ticks, ["no\nmask", "mask"] * 3, fontsize=8)

for axes, name in zip(tables, LENGTHS):
    medians = np.array([[np.median(errors[name, head, task]) for task in TASKS] for head in HEADS])
    axes.imshow(medians, norm=LogNorm(1e-3, 10), cmap="YlOrBr", aspect="auto")
    for row, column in np.ndindex(medians.shape):
        value = medians[row, column]
        axes.text(column, row, short(value), ha="center", va="center", color="white" if value > 1 else BLACK)
    axes.set_xticks(range(len(TASKS)), [task.replace(" ", "\n", 1) for task in TASKS], fontsize=9)
    axes.set_yticks(range(len(HEADS)), HEADS)
    axes.tick_params(length=0)
    axes.set(title=f"Error on {name}", xlabel="task")
    for row, head in enumerate(HEADS):
        for column in [TASKS.index(task) for task, own in FITTING.items() if own == head]:
            axes.add_patch(Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, fill=False, ec=BLUE, lw=2.5))
tables[0].set_ylabel("head (framed: of the task's form)")
for axes in (last_axes, half_axes, loss_axes, cost_axes):
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "10_heads_and_pooling.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
