# %% [markdown]
# # 8. Conditions: how to tell a network what is wanted
#
# A network reads a sequence.  Beside it there is something that holds for the sequence as a whole: the place that a
# series of temperatures comes from, the kind of a patient, a question about a text.  This is a *condition*.  How does
# it come into the network?
#
# A popular text, "How does an LSTM perform with conditional input?", names three ways: put the condition beside the
# input at every step; give it a branch of its own, which is joined to the last state; let the network attend to it.
# Of the first it says that it "assumes a linear relationship between the conditional information and the sequence",
# of the second that it "allows for a non-linear interaction".  It shows no number.  (Its three examples do not run as
# they stand, or do something else than they say; tutorial 12 mends them.)  Here we ask for numbers:
#
# 1. nine ways, by one argument;
# 2. a condition beside the input is a bias of the gates, and what that saves;
# 3. combine or add: a check to make before any training;
# 4. three tasks whose best possible error is known;
# 5. the table: which way can do what;
# 6. before or behind: what must be remembered.
#
# Run it:  `python tutorials/08_conditions.py`.  It takes about a minute; most of that is the training in parts 5
# and 6.  The picture is saved in `tutorials/pictures/`.

# %%
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import minilstm
from minilstm.attention import OneKeyWarning
from minilstm.checks import check_interaction
from minilstm.conditioning import STRATEGIES, Conditioned, FiLM

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")


def largest(array):
    return np.abs(array).max()


# %% [markdown]
# ## 1. Nine ways, by one argument
#
#     B  batch      T  time steps      D  input features      C  numbers of a condition      H  hidden units
#     x (B,T,D)     c (B,C), one condition for each sequence                h (B,T,H), the outputs of an LSTM
#
# `Conditioned(strategy, D, C, H)` is an LSTM that is told a condition.  The strategies differ in where it comes in.
#
# Before or within the network, so that it knows the condition while it reads:
#
# * `"concat"`: at every step the input is [x_t, c], both side by side;
# * `"gate_bias"`: W c is added to what the input says to the gates;
# * `"initial_state"`: the network begins with a state that is made of c, and is told nothing later;
# * `"gated_cell"`: c has a gate of its own into the memory, which opens anew at every step.
#
# Behind it, so that the network reads without knowing what for:
#
# * `"late"`: [h_t, tanh(W c + b)], the separate branch of the text;
# * `"film"`: gamma * h_t + beta, where c says gamma and beta (a factor and a shift for each unit);
# * `"gated"`: gate * h_t + shift, where c says a gate between 0 and 1 and a shift between -1 and 1;
# * `"attend_conditions"`: the condition is a *set* of vectors, and h_t looks for what it needs among them;
# * `"attend_time"`: the condition is a question; the answer is a mean of h_1 ... h_t, with weights that depend on it.
#
# Behind each of them stand the same two layers: the last real step, and a linear layer.

# %%
H = 16
EXACT = {"dtype": "float64", "backend": "reference"}        # plain NumPy in double precision, for all but training


def model_with(strategy, D, C, units=H, **options):
    """None: without any condition; "film before": a FiLM layer in front of the LSTM, not behind it."""
    if strategy is None:
        first = [minilstm.LSTM(D, units, **options)]
    elif strategy == "film before":
        first = [FiLM(D, C, **options), minilstm.LSTM(D, units, **options)]
    else:
        first = [Conditioned(strategy, D, C, units, **options)]
    pooling = minilstm.Pooling("last", **{name: option for name, option in options.items() if name != "seed"})
    return minilstm.Sequential(*first, pooling, minilstm.Linear(first[-1].output_size, 1, **options))


def told(strategy, c):
    """The condition as the strategy takes it: a set for "attend_conditions", in which vector k holds the number k of c
    in its place, and zeros; so their sum is c."""
    return c[:, None] * np.eye(c.shape[1], dtype=c.dtype) if strategy == "attend_conditions" else c


rng = np.random.default_rng(0)
x, c = rng.standard_normal((5, 6, 2)), rng.standard_normal((5, 3))
print(f"{'strategy':20s}{'y of the layer':>16s}{'parameters':>12s}    answers of a fresh network")
for strategy in STRATEGIES:
    layer = Conditioned(strategy, 2, 3, H, **EXACT)
    y, _ = layer.forward(x, told(strategy, c))
    answers, _ = model_with(strategy, 2, 3, **EXACT).forward(x, condition=told(strategy, c))
    count = sum(p.size for _, part in layer.walk() for p in part.params.values())
    print(f"{strategy:20s}{str(y.shape):>16s}{count:12d}    " + "".join(f"{answer:7.3f}" for answer in answers[:, 0]))

# %% [markdown]
# ## 2. A condition beside the input is a bias of the gates
#
# Look at the first row and the third: `"concat"` and `"gate_bias"` give the same answers.  It is no accident.  Each
# gate of an LSTM starts from a sum, W x_t + U h_{t-1} + b.  With [x_t, c] in place of x_t the matrix W has more
# columns, and falls into two parts:
#
#     W [x_t, c] = W_x x_t + W_c c
#
# The second part does not depend on t.  It is a bias: one that each sequence has for itself.  So it need not be
# computed T times, and c need not be stored T times.  With one seed both begin as the same function.

# %%
B, T, D, C = 32, 100, 4, 128
x, c = rng.standard_normal((B, T, D)), rng.standard_normal((B, C))
dy = rng.standard_normal((B, T, 32))


def both_passes(strategy, times, dtype, backend):
    """-> (y, dx, dc), the shortest of so many times"""
    layer = Conditioned(strategy, D, C, 32, dtype=dtype, backend=backend)
    arrays, seconds = [a.astype(dtype) for a in (x, c, dy)], []
    for _ in range(times):
        begun = time.perf_counter()
        y, cache = layer.forward(*arrays[:2])
        gradients = layer.backward(cache, arrays[2])
        seconds.append(time.perf_counter() - begun)
    return (y, *gradients), min(seconds)


one, other = (both_passes(strategy, 1, **EXACT)[0] for strategy in ("concat", "gate_bias"))
slow, fast = (both_passes(strategy, 5, "float32", "cpu")[1] for strategy in ("concat", "gate_bias"))
off = [largest(a - b) / largest(a) for a, b in zip(one, other)]
print(f"\nconcat and gate_bias differ by {off[0]:.0e} in y, {off[1]:.0e} in dx, {off[2]:.0e} in dc, of the largest")
print(f"a condition of {C} numbers beside {D} features, {T} steps: concat takes {slow / fast:.1f} times as long,\n"
      f"and reads an input {(D + C) // D} times as wide")
assert max(off) < 1e-12

# %% [markdown]
# The longer the sequence and the larger the condition, the more there is to save.
#
# ## 3. Combine, or add?
#
# What may a condition do?  It can *add* something: the temperatures of one place are higher than those of another, by a
# constant.  Or it can change what the sequence *means*: "turn left" asks for another answer than "turn right" to the
# same picture.  A model of the first kind is f(x) + g(c), and for it
#
#     m(x1,c1) - m(x1,c2) - m(x2,c1) + m(x2,c2) = 0        for any two sequences and any two conditions
#
# This is the *interaction*.  If it is 0 with random weights, then no training will make it anything else: what c does
# can never depend on x.  `check_interaction` computes it, and we need no task for it.  We add the separate branch with
# a second LSTM behind it, and attention over a condition that is one single vector, as the text has it.

# %%
x, c = rng.standard_normal((20, 6, 2)), rng.standard_normal((20, 3))
checked = {strategy: check_interaction(model_with(strategy, 2, 3, **EXACT), x, told(strategy, c))
           for strategy in STRATEGIES}
mended = minilstm.Sequential(Conditioned("late", 2, 3, H, **EXACT), *model_with(None, 2 * H, 0, **EXACT).layers)
checked["late, and an LSTM"] = check_interaction(mended, x, c)
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    one_vector = model_with("attend_conditions", 2, 3, **EXACT)
    checked["attend to one vector"] = check_interaction(one_vector, x, c[:, None])
print("\nchanges of the answer            by x       by c     by both    combines")
for name, changes in checked.items():
    print(f"  {name:24s}{changes.of_x:10.2f} {changes.of_condition:10.2f}    {changes.of_both:8.0e}    "
          f"{'yes' if changes.combines else 'no'}")
print(textwrap.fill(f"warning: {warned[0].message}", 110))
assert {name for name, changes in checked.items() if not changes.combines} == {"late", "attend to one vector"}
assert warned[0].category is OneKeyWarning

# %% [markdown]
# So the words of the text are to be turned round.  Concatenation assumes nothing linear: the condition enters sums
# *inside* the gates, and sigmoid, tanh and products follow.  The separate branch is the one that only adds: it has a
# tanh of its own, but behind the place where both are joined there is nothing but a linear layer.  (A second LSTM
# behind that place mends it.)  Attention over one vector adds, too: its weight is 1, whatever the sequence is.
#
# ## 4. Three tasks whose best possible error is known
#
# * **Switch.**  Six numbers x_t, normal with mean 0.4 and variance 1; s is their sum, divided by the root of 6.  The
#   condition says *add* or *subtract*, and y = s or y = -s.
# * **Recall.**  Four items in random order.  Each is a name (1 in one of four features) and a number, normal with
#   variance 1.  The condition is a name, and y is the number that stood beside it.
# * **Offset.**  Six numbers, now with mean 0.  The condition is three numbers, normal with mean 0 and variance 1, and
#   y = s + w . c with w = (2, -1, 2) / 3.
#
# Then noise of variance 0.1 is added to y, so that nobody can do better than 0.1.  What is the best that one can do
# with less?
#
# * *Without the condition* the best answer is the mean of y over all conditions, for the x at hand: 0 in the switch,
#   the mean of the four numbers in recall, s in offset.
# * *Additive*, f(x) + g(c): x and c are drawn independently, so the best f(x) + g(c) is the mean of y given x, plus the
#   mean of y given c, minus the mean of y (here always 0).  In the switch that is the mean of s, with the sign that the
#   condition says; in recall c adds nothing; and offset *is* additive.
#
#                       best     additive                 without the condition
#     switch            0.1      0.1 + 1                  0.1 + 1 + 0.4**2 * 6
#     recall, K items   0.1      0.1 + 1 - 1 / K          0.1 + 1 - 1 / K
#     offset            0.1      0.1                      0.1 + 1
#
# Errors are mean squares.  We test on 4096 fresh sequences, take the distance to the best answer, and add the variance
# of the noise: it is the error to be expected, and its noise need not be drawn.

# %%
NOISE, W = 0.1, np.array([2, -1, 2]) / 3
KNOWN = ("best", "additive", "no condition")
EXPECTED = {"switch": (NOISE, NOISE + 1, NOISE + 1.96), "recall": (NOISE, NOISE + 0.75, NOISE + 0.75),
            "offset": (NOISE, NOISE, NOISE + 1)}


def switch(rng, n):
    """-> x (n,6,1), c (n,2), and the three best answers (n,3): best, additive, without the condition."""
    x, subtract = 0.4 + rng.standard_normal((n, 6, 1)), rng.integers(2, size=n)
    s, sign = x[:, :, 0].sum(axis=1) / np.sqrt(6), 1 - 2 * subtract
    return x, np.eye(2)[subtract], np.stack([sign * s, sign * 0.4 * np.sqrt(6), 0 * s], axis=1)


def recall(rng, n, items=4):
    """-> x (n,items,items+1), c (n,items), best answers (n,3)"""
    numbers, names = rng.standard_normal((n, items)), np.argsort(rng.random((n, items)), axis=1)
    asked = rng.integers(items, size=n)
    x = np.concatenate([np.eye(items)[names], numbers[:, :, None]], axis=2)
    mean = numbers.mean(axis=1)
    return x, np.eye(items)[asked], np.stack([numbers[names == asked[:, None]], mean, mean], axis=1)


def offset(rng, n):
    """-> x (n,6,1), c (n,3), best answers (n,3)"""
    x, c = rng.standard_normal((n, 6, 1)), rng.standard_normal((n, 3))
    s = x[:, :, 0].sum(axis=1) / np.sqrt(6)
    return x, c, np.stack([s + c @ W, s + c @ W, s], axis=1)


def drawn(task, seed, n, **options):
    """-> x, c, y with its noise (n,1), best answers; float32 but the last"""
    rng = np.random.default_rng(seed)
    x, c, answers = task(rng, n, **options)
    y = answers[:, :1] + np.sqrt(NOISE) * rng.standard_normal((n, 1))
    return *(a.astype("float32") for a in (x, c, y)), answers


TASKS = {"switch": switch, "recall": recall, "offset": offset}
known = {}
print("\nerror of the best answers, on the test sequences (and in expectation)")
print(" " * 24 + "".join(f"{task:>18s}" for task in TASKS))
for place, name in enumerate(KNOWN):
    for task, draw in TASKS.items():
        answers = drawn(draw, 1, 4096)[3]
        known[name, task] = NOISE + np.square(answers[:, place] - answers[:, 0]).mean()
        assert abs(known[name, task] - EXPECTED[task][place]) < 0.1
    print(f"  {name:22s}" + "".join(f"{known[name, task]:10.3f} ({EXPECTED[task][place]:.2f}) " for task in TASKS))

# %% [markdown]
# ## 5. The table
#
# The network has 16 units.  Every cell is trained three times, with other weights and other data, always in the same
# way: 144 steps of 64 sequences, each of which is met once, so that nothing can be learned by heart.  It is a short
# training, and the same for all; a different one would give other numbers.

# %%
SEEDS, STEPS, BATCH, RATE = range(3), 144, 64, 0.05


def trained(strategy, draw, seed, steps=STEPS, units=H, **options):
    """A model after training; for the last third of the steps the rate is a fifth."""
    x, c, y, _ = drawn(draw, 100 + seed, steps * BATCH, **options)
    inputs = {"x": x} if strategy is None else {"x": x, "condition": told(strategy, c)}
    model, optimizer = model_with(strategy, x.shape[2], c.shape[1], units, seed=seed), minilstm.Adam(RATE)
    slower = 2 * steps // 3 * BATCH
    for rows, rate in ((slice(0, slower), RATE), (slice(slower, None), RATE / 5)):
        optimizer.rate = rate
        minilstm.fit(model, {name: a[rows] for name, a in inputs.items()}, y[rows], epochs=1, batch_size=BATCH,
                     optimizer=optimizer, seed=seed, progress=False)
    return model


def said(model, strategy, draw, **options):
    """-> the model's answers to the test sequences (n,), the best answers (n,), x, c"""
    x, c, _, answers = drawn(draw, 1, 4096, **options)
    condition = {} if strategy is None else {"condition": told(strategy, c)}
    return model.forward(x, **condition, cache=False)[0][:, 0], answers[:, 0], x, c


def errors_of(strategy, draw, steps=STEPS, units=H, **options):
    """The error for each seed."""
    errors = []
    for seed in SEEDS:
        y, best, *_ = said(trained(strategy, draw, seed, steps, units, **options), strategy, draw, **options)
        errors.append(NOISE + np.square(y - best).mean())
    return errors


errors = {}
print("\nerror; seeds 0, 1, 2\n" + " " * 20 + "".join(f"{task:>24s}" for task in TASKS))
for strategy in (None, *STRATEGIES):
    for task, draw in TASKS.items():
        errors[strategy, task] = errors_of(strategy, draw)
    cells = ["".join(f"{e:7.3f}" for e in errors[strategy, task]) for task in TASKS]
    print(f"{strategy or 'no condition':20s}   " + "   ".join(cells))
for name in KNOWN:
    print(f"{'known: ' + name:20s}" + "".join(f"{known[name, task]:24.3f}" for task in TASKS))

low = {key: min(found) for key, found in errors.items()}
middle = {key: np.median(found) for key, found in errors.items()}
high = {key: max(found) for key, found in errors.items()}
for task in TASKS:
    assert abs(middle[None, task] / known["no condition", task] - 1) < 0.1
    assert abs(middle["late", task] - known["additive", task]) < 0.05
    assert np.allclose(errors["concat", task], errors["gate_bias", task], atol=0.03)
SURE = ("concat", "gate_bias", "gated_cell", "initial_state", "film")
assert max(high[strategy, task] for strategy in SURE for task in ("switch", "offset")) < 0.15
assert max(high[strategy, "recall"] for strategy in SURE) < 0.3
assert max(high["gated", "switch"], high["gated", "offset"]) < 0.15 < 0.3 < middle["gated", "recall"]
assert high["attend_conditions", "offset"] < 0.15 < low["attend_conditions", "switch"]
assert high["attend_conditions", "switch"] < 0.3 < middle["attend_conditions", "recall"]
for task in TASKS:
    others = [middle[strategy, task] for strategy in (*SURE, "gated")]
    assert middle["attend_time", task] < min(others) if task == "recall" else middle["attend_time", task] > max(others)
assert max(STRATEGIES, key=lambda strategy: np.ptp(errors[strategy, "switch"])) == "attend_time"

# %% [markdown]
# Read it from the two rows whose answer we knew before the training:
#
# * **No condition** comes to the best error that there is without a condition, in all three tasks.
# * **Late** comes to the best error of additive models.  That is the best possible error in offset.  In recall it is
#   worth nothing at all.  Part 3 said so beforehand.
#
# The others can combine; what have they learned?
#
# * **concat, gate_bias, gated_cell, initial_state, film** do all three: below 0.15 in switch and offset, below 0.3 in
#   recall, where 0.1 is the best.  The first two have the same errors, as they are one function.  Nothing here says
#   that the simple way, concatenation, is a weak one.
# * **gated** is as good at switch and offset; at recall it is on its way, no more.  Its gates begin half open, and have
#   far to go until they are nearly shut or nearly open.
# * **attend_time** is the best of all at recall: the answer stands at one step, and a question finds it there.  It is
#   worse than those above at offset, the easiest task, and at switch, where its seeds differ most.  What it gives is a
#   mean of what stands at the steps, and c does no more than choose the weights of this mean.
# * **attend_conditions** is as good as any at offset, and learns recall badly.  At switch its error is nearly the same
#   for all seeds, and well above 0.1.  Does that mean something?
#
# Two of these may be a matter of time.  So we train four times as long, with seed 0.  And of attention over the
# conditions, where the condition is a word, *add* or *subtract*, we look at what it says for different s, and at the
# weight that the last step gives to this word.

# %%
LONGER = 4


def longer(strategy, draw, **options):
    model = trained(strategy, draw, 0, LONGER * STEPS, **options)
    y, best, *_ = said(model, strategy, draw, **options)
    return model, NOISE + np.square(y - best).mean()


_, gated_longer = longer("gated", recall)
model, attend_longer = longer("attend_conditions", switch)
print(f"\nseed 0                            error      {LONGER} times as long")
for strategy, task, error in (("gated", "recall", gated_longer), ("attend_conditions", "switch", attend_longer)):
    print(f"  {strategy:18s} {task:10s}{errors[strategy, task][0]:8.3f} {error:18.3f}")

y, best, x, c = said(model, "attend_conditions", switch)
conditioned = model.layers[0]
h = conditioned.recurrent.forward(x)[0].y
looked, _ = conditioned.condition.attention.forward(h, memory=told("attend_conditions", c), return_weights=True)
weight = (looked.weights[:, 0, -1] * c).sum(axis=1)             # of the vector that is not zero, at the last step
s = best * (c[:, 0] - c[:, 1])                                  # "add" is c = (1, 0)
halves = []
print("attend_conditions, where s is       what is said, with its sign      weight of the word")
for least, most in ((-np.inf, -0.5), (-0.5, 0.5), (0.5, 1.5), (1.5, 2.5)):
    rows = (s > least) & (s < most)
    halves.append((s[rows].mean(), (y * (c[:, 0] - c[:, 1]))[rows].mean(), weight[rows].mean()))
    print("  about {:5.2f} {:32.2f} {:28.2f}".format(*halves[-1]))
assert gated_longer < 0.2 < 0.3 < errors["gated", "recall"][0] and 0.15 < attend_longer < 0.3
assert halves[0][0] < -0.8 and abs(halves[0][1]) < 0.3 and halves[0][2] < 0.05
assert all(abs(right - found) < 0.15 for right, found, _ in halves[2:])

# %% [markdown]
# The gates only needed time.  Attention over the conditions did not: it has learned half of the answer.  A weight lies
# between 0 and 1; here it grows with s, and so does what is said.  Below 0 it is shut, and the networks say about 0
# where they should say s.  A steady rise through both signs would be possible, with the weight near a half throughout;
# none of the three has found it.  "Can combine" does not mean "will find it".
#
# ## 6. Before or behind: what must be remembered
#
# In recall, think about what the network has to carry along.
#
# * If the condition comes in **behind** the network, as in film, the network does not know which number will be asked
#   for.  It must remember **all** of them.  If each unit of h holds one number, then H units hold H of K numbers, and
#   the best error is 0.1 + 1 - H / K: 0.6 for two units and four items.
# * If it is known **before**, **one** number is enough.  But the network must find out which: it must compare each name
#   with what it was told, and that takes units, too.  With initial_state the question itself must be remembered, beside
#   the answer.
# * It is easiest if somebody else compares.  A `FiLM` layer can stand **in front** of the LSTM just as well: it
#   multiplies the features of x by factors from c, and can shut all names but one.  It is the same layer as behind.
# * **attend_time** is behind, but it need not remember anything: all h_t are kept, outside the network.
#
# We try it: with fewer units, so that the memory is scarce; and with eight items in place of four, so that there is
# more to remember.  The training is as before.

# %%
PLACES = {"film before": "FiLM in front", "gate_bias": "gate_bias", "initial_state": "initial_state",
          "film": "FiLM behind", "attend_time": "attend_time"}
UNITS, ITEMS = (2, 16), (4, 8)


def memory(units, items):
    """The best error if each unit holds one number."""
    return NOISE + max(0, 1 - units / items)


errors["film before", "recall"] = errors_of("film before", recall)
of_units = {(strategy, units): errors[strategy, "recall"] if units == H else errors_of(strategy, recall, units=units)
            for strategy in PLACES if strategy != "attend_time" for units in UNITS}
of_items = {(strategy, items): errors[strategy, "recall"] if items == 4 else errors_of(strategy, recall, items=items)
            for strategy in PLACES for items in ITEMS}


def row(name, cells):
    print(f"  {name:22s}" + "   ".join("".join(f"{e:7.3f}" for e in cell) for cell in cells))


print("\nrecall of 4 items; seeds 0, 1, 2       " + "                ".join(f"{units:2d} units" for units in UNITS))
for strategy, name in PLACES.items():
    if strategy != "attend_time":
        row(name, [of_units[strategy, units] for units in UNITS])
print("  one number a unit   " + "".join(f"{memory(units, 4):23.2f} " for units in UNITS))
print("\nrecall with 16 units; seeds 0, 1, 2    " + "                 ".join(f"{items} items" for items in ITEMS))
for strategy, name in PLACES.items():
    row(name, [of_items[strategy, items] for items in ITEMS])
without = [NOISE + 1 - 1 / items for items in ITEMS]
print("  without condition   " + "".join(f"{error:23.3f} " for error in without))
_, film_longer = longer("film", recall, items=8)
print(f"  FiLM behind, 8 items, seed 0, {LONGER} times as long: {film_longer:.3f}")

of_two = {strategy: np.median(of_units[strategy, 2]) for strategy in PLACES if strategy != "attend_time"}
assert min(of_units["film", 2]) > memory(2, 4) - 0.03 and of_two["film before"] < 0.2
assert of_two["film before"] < of_two["gate_bias"] < memory(2, 4) < min(of_two["initial_state"], of_two["film"])
of_eight = {strategy: np.median(of_items[strategy, 8]) for strategy in PLACES}
assert max(of_eight["film before"], of_eight["attend_time"]) < 0.3
assert 0.5 < of_eight["gate_bias"] < 0.95 * without[1] < 0.95
assert min(of_eight["initial_state"], of_eight["film"]) > 0.95 * without[1] and film_longer < 0.8

# %% [markdown]
# * **One layer, two places.**  Behind the LSTM, FiLM cannot do more than the memory allows: with two units it is not
#   better than one number a unit.  In front, two units are enough, in two of three networks here.
# * **gate_bias** is between the two.  With two units it is better than two remembered numbers, in the median; so it
#   does use what it knows, but it pays for the comparison.
# * **initial_state** knows the question from the start, and yet is no better than FiLM behind.  It is told once; the
#   rest is memory again.
# * **With eight items** the differences grow.  FiLM in front and attend_time stay below 0.3 (the middle one of the
#   three), gate_bias has begun to learn, initial_state and FiLM behind are where one is without any condition.  Here it
#   is not the room: 16 units could hold 8 numbers.  To remember all is harder to learn, and takes longer: trained four
#   times as long, FiLM behind is on its way.
#
# To sum up:
#
# * Ask first what the condition does.  If it adds, anything will do, and a late branch is the simplest.  If it changes
#   what the sequence means, let `check_interaction` tell whether the model can follow at all.
# * Let the condition come in early if it says what is worth remembering: beside the input, where `"gate_bias"` is
#   `"concat"` for less; or as FiLM in front, where it selects.
# * If the condition asks for something that stands at one step, and all steps are at hand, let it ask: `"attend_time"`.
# * Behind the network the condition comes too late for the memory.  That is no harm where the memory holds all that
#   may be asked for, as in switch: there FiLM behind is as good as any.
#
# ## The picture
#
# Left: the table of part 5, the median of three networks, with the least and the largest error below it; in the blue
# frame the condition and the sequence cannot be combined, so the error is known before the training.  Right: part 6,
# each mark a network, the lines through the medians.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK = "#009E73", "#CC79A7"
COLORS = dict(zip(PLACES, (GREEN, BLUE, PINK, ORANGE, BLACK)))
MARKERS = dict(zip(PLACES, "os^Dv"))
figure = Figure(figsize=(12, 8), layout="constrained")
figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
table_axes = left.subplots()
unit_axes, item_axes = right.subplots(2, 1)

rows = [None, "late", *(strategy for strategy in STRATEGIES if strategy != "late")]
cells = [[known[name, task] for task in TASKS] for name in KNOWN] + [[middle[s, task] for task in TASKS] for s in rows]
table_axes.imshow(np.array(cells), norm=LogNorm(0.09, 3), cmap="YlOrBr", aspect="auto")
for at, column in np.ndindex(len(cells), len(TASKS)):
    value, key = cells[at][column], None if at < 3 else (rows[at - 3], list(TASKS)[column])
    color = "white" if value > 0.9 else BLACK
    table_axes.text(column, at - 0.13 * (key is not None), f"{value:.2f}", ha="center", va="center", color=color)
    if key:
        table_axes.text(column, at + 0.25, f"{low[key]:.2f} to {high[key]:.2f}", ha="center", va="center", color=color,
                        fontsize=8)
table_axes.axhline(2.5, color="white", lw=6)
table_axes.add_patch(Rectangle((-0.5, 2.56), 3, 1.94, fill=False, ec=BLUE, lw=3, clip_on=False, zorder=3))
table_axes.set_yticks(range(len(cells)), ["best", "best additive", "best without", "no condition", *rows[1:]])
table_axes.set_xticks(range(3), TASKS)
table_axes.tick_params(length=0)
table_axes.set(title="Error: known (above the line) and trained")

for number, (strategy, color) in enumerate(COLORS.items()):
    for axes, found, places in ((unit_axes, of_units, UNITS), (item_axes, of_items, ITEMS)):
        if (strategy, places[0]) in found:
            points = np.array([found[strategy, place] for place in places])
            spots = np.array(places)[:, None] * (1 + 0.012 * (number - 2)) * np.ones(3)
            axes.plot(spots, points, MARKERS[strategy], color=color, ms=5, mfc="none")
            axes.plot(spots[:, 0], np.median(points, axis=1), color=color, lw=2, marker=MARKERS[strategy], ms=5,
                      label=PLACES[strategy])
finely = np.geomspace(2, 16, 200)
bounds = [unit_axes.plot(finely, [memory(units, 4) for units in finely], ":", color=ORANGE, lw=2)[0],
          item_axes.plot(ITEMS, without, ":", color=GREY, lw=2)[0]]
unit_axes.set(title="Recall of 4 items: how many units?", xscale="log", xlabel="units", ylabel="error", ylim=(0, 1.1))
unit_axes.set_xticks(UNITS, UNITS)
item_axes.set(title="Recall with 16 units: how many items?", xscale="log", xlabel="items", ylabel="error",
              ylim=(0, 1.1))
item_axes.set_xticks(ITEMS, ITEMS)
for axes in (unit_axes, item_axes):
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
lines = [line for line in item_axes.lines if line.get_label() in PLACES.values()]
right.legend([*lines, *bounds], [*PLACES.values(), "if a unit holds one number", "best without condition"],
             loc="outside lower center", ncols=3, frameon=False)

picture = folder / "pictures" / "08_conditions.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
