# %% [markdown]
# # 9. Covariates
#
# A shop forecasts what it will sell.  It knows more than its sales so far: what discount it gives, and will give, since
# it sets the prices itself; what kind of day it is, and will be; how large the shop is.  Such things beside the series
# are called *covariates*.  What are they worth?  And how can one be sure that a forecast reads nothing that nobody can
# know yet?
#
# As in tutorial 6 we take a signal so simple that the best possible forecast is known exactly, for every selection of
# covariates.  So it can be said how much each of them is worth, how near a network comes, and, when a forecast is
# *better than the best*, that something is wrong:
#
# 1. sales, and what they depend on;
# 2. who knows what, and when: a specification;
# 3. the best forecast that there is;
# 4. a network: one LSTM for the history, one for what lies ahead;
# 5. the table: what each covariate is worth;
# 6. a forecast that is better than possible;
# 7. when a long history makes up for what is not said.
#
# Run it:  `python tutorials/09_covariates.py`.  It takes about a minute, compiling the kernels on the first use
# included.  The picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm
from minilstm.checks import check_leaks
from minilstm.conditioning import CovariateSpec, Forecaster

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")

# %% [markdown]
# ## 1. Sales, and what they depend on
#
#     discount[t] = KEEPS * discount[t-1] + noise             a discount goes on for a while
#     sales[t]    = STAYS * sales[t-1] + PULL * discount[t] + DAYS[day[t]] + (1 - STAYS) * size + NOISE * noise
#
# All numbers count from a mean, so sales may be negative.  Four fifths of what went well yesterday go on today; the
# discount of a day acts on that day; there are four kinds of days, in no order, each with an effect of its own; and
# sales hang around the size of the shop, which never changes.

# %%
STAYS, KEEPS, PULL, NOISE, SIZE = 0.8, 0.7, 0.3, 0.3, 0.8           # SIZE: how much shops differ, as a deviation
DAYS = np.array([-0.4, -0.1, 0.1, 0.4])                             # the effect of each kind of day
HISTORY, HORIZON = 12, 4
BEFORE = 60                 # steps that nobody sees: after them nothing is left of how the series began


def simulate(drive, shock, day, size):
    """Random numbers drive and shock (n,steps), effects of the days (n,steps), sizes (n,) -> sales, discount."""
    sales, discount = np.zeros_like(drive), np.zeros_like(drive)
    for t in range(1, drive.shape[1]):
        discount[:, t] = KEEPS * discount[:, t - 1] + np.sqrt(1 - KEEPS**2) * drive[:, t]
        sales[:, t] = STAYS * sales[:, t - 1] + PULL * discount[:, t] + day[:, t] + (1 - STAYS) * size
        sales[:, t] += NOISE * shock[:, t]
    return sales[:, BEFORE:], discount[:, BEFORE:]


def make(shops, steps, seed):
    """A table: dict name -> column, (S,T), or (S,) for what never changes."""
    rng = np.random.default_rng(seed)
    drive, shock = rng.standard_normal((2, shops, BEFORE + steps))
    day, size = rng.integers(0, len(DAYS), drive.shape), SIZE * rng.standard_normal(shops)
    sales, discount = simulate(drive, shock, DAYS[day], size)
    return {"sales": sales.astype("float32"), "discount": discount.astype("float32"), "day": day[:, BEFORE:],
            "size": size.astype("float32")}


train, test = make(1200, 31, seed=1), make(4000, HISTORY + HORIZON, seed=2)
for name, column in train.items():
    print(f"{name:10s} {column.dtype} {column.shape}")

# %% [markdown]
# ## 2. Who knows what, and when
#
# Most mistakes with covariates are not in the network.  They are in the question which number was read at which step.
# There are four kinds of columns:
#
# * the **target**, known up to now;
# * **past** covariates, known up to now as well, such as the weather, or the number of visitors;
# * **known** covariates, known ahead: prices that are set, the calendar;
# * **static** ones: one value for a whole series.
#
# `CovariateSpec` says which is which.  Print it, and it says for every column which steps are read, to the exact index:
# in general, for the first and the last window of training, and for a forecast after the last step of a series.

# %%
everything = CovariateSpec("sales", history=HISTORY, horizon=HORIZON, known=["discount", "day"], static="size",
                           categories={"day": 4})
print()
print(everything.explain(steps=31))

# %% [markdown]
# Read the line of the discount: training reads it four steps beyond t, so a forecast **needs** it four steps beyond t,
# too.  If it is not there, that is no reason to guess, and none to read zeros:

# %%
short = {name: column[:, :29] if name == "discount" else column for name, column in train.items()}
try:
    everything.inputs_at(short, t=26)
except ValueError as error:
    print(f"\n{error}")

# %% [markdown]
# If the discount is not known ahead, it is a past covariate.  That is another specification, another network, and, as
# we shall see, a worse forecast.
#
# ## 3. The best forecast that there is
#
# Everything here is a sum of random numbers, each times something.  How far two such sums move together is their
# *covariance*: the mean of their product, as both have mean 0.  (Of a sum with itself it is the variance.)  With the
# covariances of all that is seen and of all that is to be forecast, the best forecast is a weighted sum of what is
# seen, and its error is known before a single forecast is made.  The covariances come from the simulation itself: fed
# with 1 in one place and 0 elsewhere, it tells what that one random number does to every step; and the covariance of
# two sums is the sum, over all random numbers, of what each does to the one times what it does to the other.


# %%
def covariances(history):
    """Of sales, discount and the effects of the days, at history + HORIZON steps each, and of the size."""
    steps = BEFORE + history + HORIZON
    drive, shock, day, size = np.split(np.eye(3 * steps + 1), [steps, 2 * steps, 3 * steps], axis=1)
    day, size = DAYS.std() * day, SIZE * size
    sales, discount = simulate(drive, shock, day, size[:, 0])
    effects = np.concatenate([sales, discount, day[:, BEFORE:], size], axis=1)      # of each random number on all
    return effects.T @ effects


def places(spec, history):
    """Which of these numbers a forecast reads: sales behind, a past covariate behind, a known one ahead as well."""
    steps, found = history + HORIZON, list(range(history))
    for first, name in ((steps, "discount"), (2 * steps, "day")):
        seen = {"past": history, "known": steps}.get(spec.roles.get(name), 0)
        found += range(first, first + seen)
    return found + [3 * steps] * ("size" in spec.roles)


def best(spec, history=HISTORY):
    """-> the weights of all that is seen, for each step ahead, and the mean squared errors of these forecasts."""
    C, seen, ahead = covariances(history), places(spec, history), range(history, history + HORIZON)
    weights = np.linalg.solve(C[np.ix_(seen, seen)], C[np.ix_(seen, ahead)])
    return weights, np.diag(C[np.ix_(ahead, ahead)] - C[np.ix_(ahead, seen)] @ weights)


# %% [markdown]
# Is that right?  With everything known only the noise is left, and what stays of it: after k steps the error is
# NOISE^2 (1 + STAYS^2 + ... + STAYS^(2(k-1))).  Without the day its effects come on top of the noise.  Both can be
# computed by hand.
#
# The best forecast is a weighted sum because the random numbers are normal.  The days are not.  That makes no
# difference where the discount and the size are given, or where the day is: there what is unknown either cannot be
# guessed, or is normal.  Only for *sales alone* we have nothing but the best **weighted sum**; a network that is no sum
# might do a little better.

# %%


def with_columns(past=(), known=(), static=()):
    return CovariateSpec("sales", history=HISTORY, horizon=HORIZON, past=past, known=known, static=static,
                         categories={"day": 4} if "day" in known else None)


SPECS = {"sales alone": with_columns(),
         "without the discount": with_columns(known="day", static="size"),
         "the discount up to now": with_columns(past="discount", known="day", static="size"),
         "without the day": with_columns(known="discount", static="size"),
         "without the size": with_columns(known=["discount", "day"]),
         "everything": everything}
stays = np.cumsum(STAYS ** (2 * np.arange(HORIZON)))
off = [np.abs(best(SPECS[name])[1] - variance * stays).max() for name, variance in (
    ("everything", NOISE**2), ("without the day", NOISE**2 + DAYS.var()))]
print(f"\nlargest difference from the errors by hand: {max(off):.0e}")
assert max(off) < 1e-9

# %% [markdown]
# ## 4. A network
#
# A `Forecaster` has two LSTMs.  The **encoder** reads the history: sales and past covariates, and the known ones of
# those steps.  The **decoder** begins with the state in which the encoder ended, and walks on into the days ahead, with
# what is known of them; a linear layer makes a forecast of each of its outputs.  The kind of day goes through an
# `Embedding`: four numbers for each kind, which are learnt.  The size stands beside the other inputs, at every step.
#
# So all covariates are simply put beside one another.  One popular answer says that this often gives poor results, and
# might mislead an LSTM.  We shall see.  (The class that it offers in its place takes the number of covariates for the
# number of categories.  It stops at numbers, and at whole numbers as well, unless there are as many covariates as
# steps; then it runs, and shows each covariate to the network at one step only.)
#
# For training, `spec.windows` cuts the table into windows: w.inputs and w.target, and w.target_mask, which says at
# which steps the target is there.  As `loss_mask` it tells `fit` which errors count.  Here nothing is missing, and all
# of them do.


# %%
def learn(spec, table, seed):
    w, model = spec.windows(table), Forecaster(spec, 16, seed=seed)
    for rate in (0.01, 0.002):
        minilstm.fit(model, w.inputs, w.target, loss_mask=w.target_mask, epochs=1, batch_size=64,
                     optimizer=minilstm.Adam(rate), seed=seed, progress=False)
    return model


def forecasts(model, table):
    """After the step HISTORY - 1 of each shop: (shops, HORIZON)."""
    return model.forecast(table, HISTORY - 1)[:, :, 0]


def best_forecasts(spec, table):
    """The same by the weights of section 3."""
    numbers = np.concatenate([table["sales"], table["discount"], DAYS[table["day"]], table["size"][:, None]], axis=1)
    return numbers[:, places(spec, HISTORY)].astype("float64") @ best(spec)[0]


def errors(found, table=test):
    """Mean squared, at each step ahead."""
    return np.square(found - table["sales"][:, HISTORY:]).mean(axis=0)


# %% [markdown]
# ## 5. What each covariate is worth
#
# Six selections of covariates, two networks for each.  They forecast 4000 shops that they have not seen.  *Possible* is
# the error of section 3.  The *excess* says by how many percent the network's error is above that of the best forecast
# for the same 4000 shops, on average over the four steps.

# %%
SEEDS = range(2)
models = {name: [learn(spec, train, seed) for seed in SEEDS] for name, spec in SPECS.items()}


def excess(found, spec):
    return 100 * (errors(found).mean() / errors(best_forecasts(spec, test)).mean() - 1)


print("\nmean squared error           possible, by steps ahead              network   excess in percent")
print("                                 1      2      3      4   average   average")
table = {}
for name, spec in SPECS.items():
    found = [forecasts(model, test) for model in models[name]]
    table[name] = [excess(one, spec) for one in found]
    possible = best(spec)[1]
    print(f"  {name:25s}" + "".join(f"{error:7.3f}" for error in possible) + f"{possible.mean():10.3f}"
          f"{np.mean([errors(one).mean() for one in found]):10.3f}   "
          + " and ".join(f"{one:.1f}" for one in table[name]), flush=True)
print("  (sales alone: the best weighted sum)")
average = {name: best(spec)[1].mean() for name, spec in SPECS.items()}
assert all(-0.5 < one < 5.5 for found in table.values() for one in found)
assert min(average["without the discount"], average["the discount up to now"]) > 2 * average["everything"]
assert average["without the size"] == min(average[name] for name in SPECS if name != "everything")

# %% [markdown]
# What the covariates say, and when, decides nearly everything.  What the network does with it decides a few percent:
# the largest excess is about 5, although all covariates are just put side by side.
#
# * Without the discount of the days ahead the best possible error is more than twice that of *everything*, whether the
#   past discounts are known or not.  **Known ahead** is the point.  What discounts did in the past is in the sales
#   already; that they go on for a while is all that is left to learn from them.
# * The day is worth more the further we look.  Its effects add up, as the noise does.
# * The size is worth least.  A network that is not told it can see from twelve days what kind of shop it is.  Section 7
#   comes back to that.
#
# ## 6. A forecast that is better than possible
#
# Somebody has an idea: sales jump up and down, so let us give the network a smooth **trend**, too, the average of three
# days.  It is computed in one line over the whole table, and it is a past covariate: read up to t, no further.


# %%
def with_trend(table):
    """The average of each day, the day before and the day after."""
    sales = np.pad(table["sales"], ((0, 0), (1, 1)), mode="edge")
    return table | {"trend": (sales[:, :-2] + sales[:, 1:-1] + sales[:, 2:]) / 3}


trendy = CovariateSpec("sales", history=HISTORY, horizon=HORIZON, past="trend", known=["discount", "day"],
                       static="size", categories={"day": 4})
models["with the trend"] = [learn(trendy, with_trend(train), seed) for seed in SEEDS]
found = [forecasts(model, with_trend(test)) for model in models["with the trend"]]
table["with the trend"] = [excess(one, everything) for one in found]
print(f"\n  {'with the trend':25s}" + "".join(f"{one:7.3f}" for one in np.mean([errors(one) for one in found], axis=0))
      + f"   excess over everything: {' and '.join(f'{one:.1f}' for one in table['with the trend'])} percent")
assert max(table["with the trend"]) < -10

# %% [markdown]
# The test shops were not in the training data, no window reads a step beyond t, and the errors are much smaller.  A
# triumph, or it would be, if we did not know that nobody can be better than *everything*.  With data from the real
# world nobody could tell.
#
# The average at step t has the sales of step t+1 in it.  The windows are right: the leak was in the table before.  To
# find such a thing, change what lies ahead, and look whether the forecast moves.  `check_leaks` does that, column by
# column.  It must see the whole way from the raw table to the forecast, the trend included:

# %%
raw = make(5, 40, seed=3)
for name, forecast in (("everything", models["everything"][0].forecast),
                       ("with the trend", lambda some, t: models["with the trend"][0].forecast(with_trend(some), t))):
    report = check_leaks(forecast, everything, raw, steps=[15, 20, 30])
    print(f"\n{name}\n{report}")
    assert report.ok == (name == "everything")

# %% [markdown]
# How to read this: `from step` is the first step of a column that a forecast after t may not read.  From there on the
# column was changed in three ways: *redrawn*, other numbers like those that stood there; *raised*, far above all that
# ever occurs; *lowered*, far below.  (For the day, which is a category, it is other kinds of days each time.)  The
# numbers say how far the forecasts moved at most; 0 is the same to the bit.  *Uses its last step* turns the question
# round: do they move if the last step changes that they may read?  A "no" would say that a column comes a step late, or
# is not read at all.  And in the last line the steps ahead are not changed, but cut off, as they are on the day.
#
# Other sales from t+1 on move the forecast that was made after t: a leak.  What would have happened on the day?  There
# is no sale of tomorrow, so the trend of today can only be an average of two days.  The network has learnt to rely on
# what it now does not get:

# %%
on_the_day = with_trend(test)
on_the_day["trend"][:, HISTORY - 1] = test["sales"][:, HISTORY - 2:HISTORY].mean(axis=1)
live = [excess(forecasts(model, on_the_day), everything) for model in models["with the trend"]]
print(f"\nwith the trend, on the day: excess {' and '.join(f'{one:.0f}' for one in live)} percent")
assert min(live) > 15

# %% [markdown]
# Behind "better than possible" is a forecast that is much worse than that of the network without the idea.  The other
# leaks that are often met are of the same kind: scaling by the mean of the whole series, filling a gap with the reading
# that comes after it, a window that is off by one.
#
# ## 7. When a long history makes up for it
#
# The error without the size was only a little larger.  How much depends on the history, and the yardstick can say so
# without any training:

# %%
HISTORIES = (1, 2, 4, 12, 48)
without = [best(SPECS["without the size"], history)[1].mean() for history in HISTORIES]
print("\nsteps of history                " + "".join(f"{history:8d}" for history in HISTORIES))
print("possible without the size       " + "".join(f"{error:8.3f}" for error in without))
print(f"possible with the size          {average['everything']:8.3f}    whatever the history")
assert without[0] > 1.4 * average["everything"] and without[-1] < 1.06 * average["everything"]

# %% [markdown]
# After one day the error without the size is more than 40 percent larger, after 48 days hardly more than 5 percent.  So
# a static covariate matters most for series that have just begun: a new shop, a new product.  (For such series there is
# `min_history`: the history may then be shorter, is padded in front, and masked.)
#
# ## What to take along
#
# * Ask of every column: up to which step is it known, on the day?  Write that down as a specification, and print it.
# * Putting covariates side by side is enough for a network to come within a few percent of the best that is possible.
#   What is known **ahead** must be given ahead, step by step.
# * A forecast that is too good is a leak until it is shown to be none.  Put all that is done to the data into one
#   function of the table and of t, and let `check_leaks` look at it.
# * What a series says itself need not be told, if its history is long enough.
#
# ## The picture

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK = "#009E73", "#CC79A7"
LOOKS = {"without the discount": ORANGE, "the discount up to now": PINK, "without the day": GREEN, "everything": BLUE}
LINES = dict(zip(LOOKS, ("-", ":", "--", "-.")))
figure = Figure(figsize=(12, 8.8), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
(reading, example), (by_step, ranking) = figure.subplots(2, 2)

steps = {name: list(everything.reads(HISTORY - 1)[name]) for name in ("sales", "discount", "day")}
for row, name in enumerate(("sales", "discount", "day", "size")):
    there = [t - HISTORY + 1 for t in steps.get(name, range(HISTORY + HORIZON))]
    reading.plot(there, [-row] * len(there), "s" if name != "size" else "-", color=BLUE, ms=13, lw=9, alpha=0.85)
ahead = [t - HISTORY + 1 for t in everything.forecasts(HISTORY - 1)]
reading.plot(ahead, [0] * HORIZON, "s", color="white", mec=ORANGE, mew=2.5, ms=12)
reading.axvline(0.5, color=BLACK, lw=1)
reading.text(0.6, 0.55, "ahead", color=BLACK, ha="left")
reading.text(0.4, 0.55, "known by now", color=BLACK, ha="right")
reading.set_yticks([0, -1, -2, -3], ["sales", "discount\n(known ahead)", "day\n(known ahead)", "size\n(static)"])
reading.set_xticks([-11, -8, -4, 0, 1, 4], ["t-11", "t-8", "t-4", "t", "t+1", "t+4"])
reading.set(title="What a forecast after step t reads (blue), and forecasts (orange)", ylim=(-3.6, 0.95),
            xlim=(-12, 5))

known, unknown = (best_forecasts(SPECS[name], test) for name in ("everything", "without the discount"))
likely = np.abs(known - test["sales"][:, HISTORY:]).max(axis=1) < 0.35
shop = np.flatnonzero(likely)[np.argmax((known - unknown).min(axis=1)[likely])]     # a discount nobody could see coming
here = {name: column[shop:shop + 1] for name, column in test.items()}
days, low = np.arange(1 - HISTORY, HORIZON + 1), here["sales"].min() - 1.2
example.plot(days, here["sales"][0], "o-", color=BLACK, lw=1.5, ms=4, label="sales")
example.bar(days, here["discount"][0] * 0.25, bottom=low, color=GREY, alpha=0.6, label="discount, from its mean")
for name in ("without the discount", "the discount up to now", "everything"):
    example.plot(days[HISTORY:], forecasts(models[name][0], here)[0], color=LOOKS[name], ls=LINES[name], lw=2,
                 marker="o", ms=4, label=name)
example.axvline(0.5, ymax=0.78, color=BLACK, lw=1)
example.set(title="A discount that the past does not show", xlabel="steps from t", xlim=(-12, 5),
            ylim=(low - 0.8, here["sales"].max() + 2))
example.legend(frameon=False, loc="upper left", ncols=2, fontsize=9, columnspacing=1)

for name, color in LOOKS.items():
    by_step.plot(range(1, HORIZON + 1), best(SPECS[name])[1], color=color, ls=LINES[name], lw=2, label=name)
    for model in models[name]:
        by_step.plot(range(1, HORIZON + 1), errors(forecasts(model, test)), "o", color=color, ms=5)
leaking = np.mean([errors(one) for one in found], axis=0)
by_step.plot(range(1, HORIZON + 1), leaking, "x", color=BLACK, ms=8, mew=2, label="with the trend, which leaks")
by_step.set(title="Best possible errors (lines) and networks (dots)", xlabel="steps ahead",
            ylabel="mean squared error", xticks=range(1, HORIZON + 1), ylim=(0, None))
by_step.legend(frameon=False)

lines = {"with the trend, on the day": live} | dict(reversed(table.items()))
for place, (name, values) in enumerate(lines.items()):
    ranking.plot(values, [place] * len(values), "o", color=LOOKS.get(name, BLACK), ms=6, alpha=0.8)
low = 1.3 * min(map(min, lines.values()))
ranking.axvline(0, color=BLACK, lw=1)
ranking.axvspan(low, 0, color=GREY, alpha=0.25, lw=0)
ranking.text(low / 2, 4.5, "not possible\nwithout\na leak", ha="center", va="center", color=BLACK)
ranking.set_yticks(range(len(lines)), lines)
ranking.set(title="Excess over the best possible error", xlabel="percent", xlim=(low, None))
for axes in (reading, example, by_step, ranking):
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "09_covariates.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
