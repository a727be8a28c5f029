# %% [markdown]
# # 6. Missing values
#
# A sensor fails now and then, and for some steps there is no reading.  A network wants a number at every step all the
# same.  Which one shall it be?  And should the network be told that it is made up?
#
# There are many answers, and mostly one can only compare them with one another.  Here we take a signal so simple that
# the best possible forecast is known exactly.  So of every method we can say how far it is from what can be done:
#
# 1. a signal, and a sensor that fails;
# 2. the best forecast that there is: the Kalman filter;
# 3. eleven ways to hand gaps to a network;
# 4. the table: how much worse than the best each of them is;
# 5. when zero hurts, and when it does not;
# 6. how much is missing;
# 7. a case where the simplest thing is enough.
#
# Run it:  `python tutorials/06_missing_values.py`.  It takes less than two minutes, compiling the kernels on the first
# use included.  The picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import minilstm
from minilstm import sequences

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")

# %% [markdown]
# ## 1. A signal, and a sensor that fails
#
#     s[t] = PHI * s[t-1] + noise            the signal: an autoregression of first order, AR(1)
#     x[t] = s[t] + error                    the reading, when there is one
#
# s counts from the mean MEAN, and has the deviation 1.  We choose numbers with which every part of the task matters.
# PHI = 0.95: the signal forgets slowly, so that the last reading still helps in a gap.  ERROR = 0.3: one reading is not
# enough, it pays to look at several.  MEAN = 1: the value 0 is a reading like any other, one deviation below the mean.
# Sections 5 to 7 change the mean, the share of gaps and the error, one at a time.
#
# The sensor works or fails, and stays as it is for a while: a failure lasts LONG steps on average, any length is
# possible, and half of all steps have no reading.  When it fails has nothing to do with what it would have read.
#
# The task: at **every** step, also in a gap, forecast the signal one step ahead from the readings so far.  A network
# is trained as one has to in practice: the target is the next **reading**, and where there is none the step is left
# out of the loss by `loss_mask`.  The targets there are NaN, and nobody ever looks at them.

# %%
PHI, ERROR, MEAN = 0.95, 0.3, 1.0           # ERROR: the variance of the readings' errors
SHARE, LONG = 0.5, 8                        # of the steps without a reading; mean length of a gap
N, T = 2048, 32                             # sequences to train on, and their steps


class Data(NamedTuple):
    x: np.ndarray               # (N,T,1)       the readings, NaN where there is none
    observed: np.ndarray        # (N,T,1) bool  where there is one
    target: np.ndarray          # (N,T,1)       the next reading, NaN where there is none
    has_target: np.ndarray      # (N,T,1) bool
    truth: np.ndarray           # (N,T)         the signal at the next step, known to nobody but us
    best: np.ndarray            # (N,T)         the Kalman filter's forecast of it, and
    variance: np.ndarray        # (N,T)         the variance that it expects around it


def sensor_works(n, steps, share, rng):
    """(n, steps) bool: a failure ends with probability 1 / LONG, and begins as often as makes the share right."""
    ends, begins = 1 / LONG, share / (1 - share) / LONG
    works = np.empty((n, steps), bool)
    works[:, 0] = rng.random(n) >= share
    for t in range(1, steps):
        works[:, t] = rng.random(n) < np.where(works[:, t - 1], 1 - begins, ends)
    return works


def make(n, seed, share=SHARE, mean=MEAN, error=ERROR):
    rng = np.random.default_rng(seed)
    s = rng.standard_normal((n, T + 1))                                 # counts from the mean
    for t in range(T):
        s[:, t + 1] = PHI * s[:, t] + np.sqrt(1 - PHI ** 2) * s[:, t + 1]               # the deviation stays 1
    x = mean + s + np.sqrt(error) * rng.standard_normal((n, T + 1))
    works = sensor_works(n, T + 1, share, rng)
    x[~works] = np.nan
    x = x.astype("float32")[:, :, None]
    best, variance = kalman(x[:, :T, 0].astype("float64"), mean, error)
    seen = works[:, :, None]
    return Data(x[:, :T], seen[:, :T], x[:, 1:], seen[:, 1:], mean + s[:, 1:], best, variance)


# %% [markdown]
# ## 2. The best forecast that there is
#
# All that the readings say about the signal fits into two numbers: what we expect of it, m, and how sure we are, the
# variance P.  Each step has two parts.
#
# * **A reading comes**: m moves towards it.  How far depends on who is the surer, we or the sensor: by the *gain*
#   P / (P + ERROR) of the difference.  Then P is smaller.  If **no reading comes, nothing moves**: the gain is 0.
# * **Time goes by**: m shrinks to PHI * m, and the noise makes us less sure.  In a gap this goes on step by step, m
#   sinks towards the mean and P rises towards 1, the variance of a signal of which nothing is known.
#
# This is the Kalman filter (Kalman 1960).  For a signal and errors from normal distributions, as here, it computes the
# exact conditional mean, and no forecast from the same readings has a smaller mean squared error, no network either.


# %%
def kalman(x, mean, error):
    """x (N,T), NaN where there is no reading -> the forecast of s[t+1] at each step t, and its variance, both (N,T)."""
    m, P = np.zeros(len(x)), np.ones(len(x))                    # before any reading; m counts from the mean
    forecasts, variances = [], []
    for reading in x.T:
        seen = ~np.isnan(reading)
        gain = np.where(seen, P / (P + error), 0)
        m = m + gain * (np.where(seen, reading - mean, 0) - m)
        P = P * (1 - gain)
        m, P = PHI * m, PHI ** 2 * P + 1 - PHI ** 2
        forecasts.append(mean + m)
        variances.append(P)
    return np.stack(forecasts, axis=1), np.stack(variances, axis=1)


# %% [markdown]
# Do we believe it?  Three checks.  Is P, which the filter computes without knowing the signal, the error that it
# really makes?  Is the forecast that of the textbook formula for normal distributions, without a filter: with C the
# covariances, C[next, seen] times the inverse of C[seen, seen] times the readings?  And without errors in the readings
# only the last one can matter, k steps ago: the forecast must be PHI**(k+1) times it, and P = 1 - PHI**(2 (k+1)).


# %%
def age(observed):
    """(N,T,1) -> steps since the last reading (N,T,1), 0 at a reading; before the first one: the steps so far."""
    return np.where(observed, np.float32(0), sequences.time_since_seen(observed))


def after_first(observed):
    """(N,T,1) -> (N,T): there was a reading, at this step or before."""
    return np.maximum.accumulate(observed, axis=1)[:, :, 0]


STEPS_AGO = (0, 1, 2, 4, 8, 16)
check = make(40_000, seed=1000)
ages = np.where(after_first(check.observed), age(check.observed)[:, :, 0], -1)
error_of_best = (check.best - check.truth) ** 2
expected, measured = ([some[ages == n].mean() for n in STEPS_AGO] for some in (check.variance, error_of_best))
print(f"{ages.size} steps, {1 - check.observed.mean():.0%} of them without a reading")
print("\nthe filter's squared error  overall  by steps since the last reading")
print("                                     " + "".join(f"{n:8d}" for n in STEPS_AGO))
for text, overall, numbers in (("P, expected", check.variance, expected), ("measured", error_of_best, measured)):
    print(f"  {text:24s}{overall.mean():9.3f}  " + "".join(f"{number:8.3f}" for number in numbers))

C = PHI ** np.abs(np.subtract.outer(np.arange(T + 1), np.arange(T + 1)))
differences = []
for row in range(100):
    seen = np.flatnonzero(check.observed[row, :, 0])
    weights = np.linalg.solve(C[np.ix_(seen, seen)] + ERROR * np.eye(len(seen)), C[seen, T])
    differences.append(MEAN + weights @ (check.x[row, seen, 0].astype("float64") - MEAN) - check.best[row, -1])
print(f"largest difference from the textbook formula: {np.abs(differences).max():.0e}")

exact = make(4000, seed=1001, error=0.0)
k, known = age(exact.observed)[:, :, 0].astype("float64"), after_first(exact.observed)
last = sequences.fill_forward(exact.x, exact.observed)[:, :, 0].astype("float64")
by_hand, variance_by_hand = MEAN + PHI ** (k + 1) * (last - MEAN), 1 - PHI ** (2 * (k + 1))
print(f"without errors, from the closed form: {np.abs(by_hand - exact.best)[known].max():.0e}, "
      f"of P: {np.abs(variance_by_hand - exact.variance)[known].max():.0e}")


# %% [markdown]
# ## 3. Eleven ways to hand gaps to a network
#
# What stands in a gap (`minilstm.sequences` has functions for the first three):
#
# * **zero**.  Often advised: one popular article pads with "zeros or other default values" where features are missing,
#   another multiplies invalid readings by a mask, which makes them 0 too (and leaves NaN what it was);
# * **mean** of all readings in the training data: never that of the test data;
# * **forward fill**: the last reading again.  Before the first one there is none, and we put the mean;
# * **interpolation**: the straight line from the last reading to the next.  It is often used, and for forecasts it is a
#   mistake.  We come back to it.
#
# What the network is told about it:
#
# * nothing;
# * **indicator**: a second input, 1 at a reading and 0 in a gap;
# * **time since** the last reading, as one more input.  Divided by 10, since numbers around 1 suit a network best.
#
# And two other ways:
#
# * **skip**: the steps without a reading are taken out by the time mask.  The network never sees them.  In a gap, its
#   last forecast stands, held by `fill_forward`.  (A step that is masked has no loss, so only forecasts from readings
#   are trained);
# * **GRU-D** (Che, Purushotham, Cho, Sontag and Liu 2018): a GRU made for the purpose.  In a gap it reads the last
#   reading, **fading to the mean**, it has an indicator, and it lets its own state fade too.  How fast, it learns.

# %%
def interpolated(x, observed):
    """The straight line from reading to reading: it knows how the gap will end."""
    x, steps = x.copy(), np.arange(x.shape[1])
    for row, seen in zip(x[:, :, 0], observed[:, :, 0]):
        row[~seen] = np.interp(steps[~seen], steps[seen], row[seen]) if seen.any() else 0
    return x


def inputs(method, data, mean):
    """What the network reads: (N,T,D)."""
    x, observed = data.x, data.observed
    filling, *told = method.split(" + ")
    match filling:
        case "GRU-D":
            return x                            # NaN and all: it sees for itself where there is no reading
        case "zero" | "skip":
            read = sequences.fill_zero(x, observed)
        case "mean":
            read = sequences.fill_mean(x, observed, mean)
        case "forward":
            read = sequences.fill_forward(x, observed, start=mean)
        case "interpolation":
            read = interpolated(x, observed)
    if "indicator" in told:
        read = sequences.add_indicators(read, observed)
    if "time since" in told:
        read = sequences.add_features(read, sequences.time_since_seen(observed) / np.float32(10))
    if "age" in told:
        read = sequences.add_features(read, age(observed) / np.float32(10))
    return read


METHODS = ("zero", "mean", "forward", "zero + indicator", "mean + indicator", "forward + indicator",
           "forward + indicator + time since", "skip", "skip + time since", "GRU-D", "interpolation")
example = make(1, seed=1)
mean = np.float32([MEAN])
print("\none sequence, from step 8 on")
print("  reading                            "
      + "".join(f"{x:6.2f}" if seen else "     -" for x, seen in zip(example.x[0, 8:20, 0], example.observed[0, 8:20])))
for method in ("zero", "mean", "forward", "interpolation"):
    print(f"  {method:35s}" + "".join(f"{x:6.2f}" for x in inputs(method, example, mean)[0, 8:20, 0]))
for column, name in ((1, "indicator"), (2, "time since, divided by 10")):
    told = inputs("zero + indicator + time since", example, mean)[0, 8:20, column]
    print(f"  {name:35s}" + "".join(f"{number:6.{column - 1}f}" for number in told))

# %% [markdown]
# ## 4. The table
#
# All of them train the same small GRU, with the same data in the same order, for the same number of steps; three times,
# each time with other data and other first weights.  Then they forecast a test set that none of them has seen, and we
# compare with the true signal.  What is printed is the **excess**: by how many percent the mean squared error is above
# that of the Kalman filter.  0 is the best that can be.  The last two columns are the same for the forecasts made at a
# step with a reading, and for those made in a gap.

# %%
H, SEEDS = 16, range(3)


def time_mask(method, data):
    return data.observed[:, :, 0] if method.startswith("skip") else None


def learn(method, data, seed, fading=None):
    """-> the trained model, and the mean of the readings that it learned from.

    fading: of GRU-D, the weight w with which its input fades to the mean, before training."""
    mean = sequences.observed_mean(data.x, data.observed)
    read = inputs(method, data, mean)
    net = (minilstm.GRUD(1, H, mean=mean, seed=seed) if method == "GRU-D" else
           minilstm.GRU(read.shape[2], H, seed=seed))
    if fading is not None:
        net.params["decay_x_weight"] = np.float32([fading])
    model = minilstm.Sequential(net, minilstm.Linear(H, 1, seed=seed))
    for epochs, rate in ((3, 0.02), (1, 0.002)):
        minilstm.fit(model, read, data.target, time_mask(method, data), loss_mask=data.has_target[:, :, 0],
                     epochs=epochs, batch_size=32, optimizer=minilstm.Adam(rate), seed=seed, progress=False)
    return model, mean


def forecast(method, data, model, mean):
    """(n,T)"""
    y, _ = model.forward(inputs(method, data, mean), time_mask(method, data))
    if method.startswith("skip"):
        y = sequences.fill_forward(y, data.observed, start=mean)            # in a gap, the last forecast stands
    return y[:, :, 0]


def squared_errors(forecasts, data):
    return (forecasts - data.truth) ** 2


def excess(forecasts, data, where=True):
    """By how many percent the mean squared error is above the Kalman filter's."""
    ours, least = (squared_errors(some, data).mean(where=where) for some in (forecasts, data.best))
    return 100 * (ours / least - 1)


def show(name, found, data):
    """Print a line of the table -> the excess of each of the forecasts found."""
    seen = data.observed[:, :, 0]
    overall, at_reading, in_gap = ([excess(some, data, where) for some in found] for where in (True, seen, ~seen))
    print(f"  {name:36s}{np.mean(overall):7.1f}  ({min(overall):5.1f} to {max(overall):5.1f})"
          f"{np.mean(at_reading):12.1f}{np.mean(in_gap):10.1f}", flush=True)
    return overall


HEADER = "                                          all                     at reading    in gap"
train = [make(N, seed) for seed in SEEDS]
test = make(4000, seed=2000)
print(f"\nexcess over the best, in percent: mean of {len(SEEDS)} (lowest to highest)\n{HEADER}")
show("no network: always the mean", [np.full(test.truth.shape, MEAN)], test)
show("no network: the last reading again", [inputs("forward", test, mean)[:, :, 0]], test)
learned, found, table = {}, {}, {}
for method in METHODS:
    learned[method] = [learn(method, train[seed], seed) for seed in SEEDS]
    found[method] = [forecast(method, test, *learnt) for learnt in learned[method]]
    table[method] = show(method, found[method], test)

# %% [markdown]
# ### Better than the best?
#
# Look at the last line first.  **No forecast can be better than the best.**  Who comes out below 0 has looked into the
# future: a line that is drawn to the next reading knows where the next reading is.  In most work there is no Kalman
# filter to sound the alarm, and one is just pleased with the small error.  On a live sensor the next reading has not
# come yet, and the line ends at the last one.  So we give the same network at each step the line as it was then:

# %%
live = Data(*(array[:500] for array in test))
as_it_comes = []
for model, _ in learned["interpolation"]:
    lines = [interpolated(live.x[:, :t + 1], live.observed[:, :t + 1]) for t in range(T)]
    as_it_comes.append(np.stack([model.forward(line)[0][:, -1, 0] for line in lines], axis=1))
print(f"\n{HEADER}")
in_use = show("interpolation, live", as_it_comes, live)

# %% [markdown]
# ### What the table says
#
# * **Filling alone is poor**, and zero is the worst.  When a gap begins, the network takes the made-up number for a
#   reading and follows it, until it notices (the picture has an example).
# * **With an indicator every filling is near the best.**  The gain of the Kalman filter is 0 in a gap; to shut its gate
#   there, all that a GRU needs to know is that it is a gap.
# * **Forward fill with all that there is to tell is not better** than zero with an indicator.  A number repeated is the
#   same noisy reading once more, and must not be counted twice.  Zero with an indicator leaves nothing to unlearn.  And
#   the time since the last reading, as an input, helps little: a network that takes part in each step of the gap can
#   count for itself.
# * **Skipping** keeps made-up numbers out of the state, but it skips the time as well.  Look at the two columns on the
#   right.  After a gap the network does not know whether the gap was short, so that its old state is worth something,
#   or long.  The time since the last reading, as an input, gives this back: at a reading the excess is about halved.
#   But in a gap the network reads nothing, and no input can tell it how old its forecast has become.
# * **GRU-D** is among the indicators, and not ahead of them.  It is made for many features that fade at different
#   rates; we have one.
# * **Interpolation**, as it is on a live sensor, is worse in a gap than any other network: it learned to trust a line
#   that is not there.
#
# How much of this depends on our setting, the next sections try.

# %%
TOLD = [method for method in METHODS if "indicator" in method] + ["GRU-D"]
print("\nwith an indicator, or GRU-D: at most "
      f"{1 + max(np.mean(table[method]) for method in TOLD) / 100:.3f} times the error of the best; zero: "
      f"{1 + np.mean(table['zero']) / 100:.3f} times")
assert all(np.mean(table[method]) < 5 for method in TOLD) and np.mean(table["zero"]) > 15

# %% [markdown]
# ## 5. When zero hurts, and when it does not
#
# Zero filling is bad if 0 could be a reading.  What if it could not, for 0 is far away from all readings?  We move the
# mean, and leave everything else.

# %%
DEFAULTS, FEW = {"mean": MEAN, "share": SHARE}, SEEDS[:2]


def sweep(name, values, methods):
    """The excess of each method for each value of one argument of ``make``: method -> (values, FEW)."""
    swept = {method: [] for method in methods}
    for value in values:
        data, held_out = [make(N, seed, **{name: value}) for seed in FEW], make(4000, seed=2000, **{name: value})
        for method in methods:
            swept[method].append(table[method][:len(FEW)] if value == DEFAULTS[name] else              # is done already
                                 [excess(forecast(method, held_out, *learn(method, some, seed)), held_out)
                                  for seed, some in zip(FEW, data)])
    return {method: np.array(found) for method, found in swept.items()}


def show_sweep(title, values, swept):
    print(f"\nexcess in percent, mean of {len(FEW)} (lowest to highest)\n  {title:26s}"
          + "".join(f"{value:<20}" for value in values))
    for method, found in swept.items():
        print(f"  {method:22s}" + "".join(f"{one.mean():6.1f} ({one.min():4.1f} to {one.max():4.1f})" for one in found))


MEANS = (0.0, 1.0, 2.0, 4.0)
by_mean = sweep("mean", MEANS, ("zero", "zero + indicator"))
show_sweep("mean of the readings", MEANS, by_mean)
more = make(4 * N, seed=0)
print("  mean 1, four times the data: " + ", ".join(
    f"{method} {excess(forecast(method, test, *learn(method, more, seed=0)), test):.1f}" for method in by_mean))

# %% [markdown]
# With mean 0, zero filling **is** mean filling.  With mean 2, zero is a reading far below the others, and yet not too
# far to be one.  With mean 4 hardly a reading comes near 0, and then a zero says nearly as much as an indicator: the
# network can see that a reading is missing.  So "zero filling ruins the forecast" is not a law, and a trial with
# readings around 20 degrees does not show what happens with readings around 1.
#
# Nor does it have to end badly.  In our data no reading is *exactly* 0, and with more data the network learns to look
# for it more closely.  An indicator gives it for nothing what is so slow to learn; what excess is left with one is the
# price of a short training, and shrinks with more data too.  And with a sensor that reads whole numbers, where some
# readings really are 0, no data could teach the network to tell one 0 from the other.
#
# ## 6. How much is missing

# %%
SHARES = (0.2, 0.5, 0.8)
by_share = sweep("share", SHARES, ("zero", "GRU-D", "zero + indicator"))
show_sweep("share missing", SHARES, by_share)
print("  the best's own error" + "".join(f"{check.mean():10.3f}{'':10s}" for check in (
    squared_errors(some.best, some) for some in (make(4000, seed=2000, share=share) for share in SHARES))))

# %% [markdown]
# Zero filling does most harm where gaps are **rare**: most of the training has none, a zero is taken for a reading, and
# there is a good forecast to be spoiled.  With four steps of five missing a zero is the normal case, the network soon
# knows it, and the best forecast is poor itself.  The indicator and GRU-D stay near the best at all three shares.
#
# ## 7. Where the simplest thing is enough
#
# The same signal, but readings without errors.  Then the last reading and its age say everything: the best forecast is
# PHI**(age + 1) times the last reading, counted from the mean.  Such a pair is called a *sufficient statistic*.  So
# here we try the two as inputs, forward fill and age, and nothing else.  (Age is 0 at a reading.  The time since the
# last reading, of section 3, is the age **before** the step's own reading, so it needs the indicator beside it.)
#
# GRU-D has a special interest here.  Its input in a gap is
#
#     mean + keeps * (last reading - mean),       keeps = exp(-max(0, w * steps + b))
#
# and if it keeps PHI**steps, this is all there is to know.  Does it find that?  We let it begin from two values of w;
# 0.3 is the library's own.

# %%
print(f"\nreadings without errors: excess in percent, mean of {len(FEW)}, GRU-D {len(SEEDS)} (lowest to highest)")
print(HEADER)
data, held_out = [make(N, seed, error=0.0) for seed in SEEDS], make(4000, seed=2000, error=0.0)
for method in ("zero + indicator", "forward", "forward + indicator + time since", "forward + age"):
    show(method, [forecast(method, held_out, *learn(method, data[seed], seed)) for seed in FEW], held_out)
kept = {}
for start in (0.1, 0.3):
    models = [learn("GRU-D", data[seed], seed, fading=start) for seed in SEEDS]
    show(f"GRU-D, w = {start} at first", [forecast("GRU-D", held_out, *one) for one in models], held_out)
    kept[start] = [model.layers[0].params for model, _ in models]

print("\nsteps since the last reading         " + "".join(f"{n:7d}" for n in STEPS_AGO[1:]))
print("  PHI**steps                         " + "".join(f"{PHI ** n:7.2f}" for n in STEPS_AGO[1:]))
for start, networks in kept.items():
    for seed, params in zip(SEEDS, networks):
        w, b = params["decay_x_weight"][0], params["decay_x_bias"][0]
        print(f"  kept, w = {start} at first, network {seed} "
              + "".join(f"{np.exp(-max(0, w * n + b)):7.2f}" for n in STEPS_AGO[1:]))

# %% [markdown]
# Forward fill and age, two plain inputs, do as well as anything else.  With errors in the readings, zero with an
# indicator was ahead of forward fill that tells how old it is; without them it is behind: now a repeated reading is no
# burden but just what is needed.  (Forward fill alone, without its age, is the worst here.)  Which filling is best
# depends on the signal.  That the network should be told does not.
#
# From 0.3, every GRU-D learns to let its input fade, and the long ages fade about as the signal does.  From 0.1, some
# keep everything for ever.  Early in the training w and b went below 0; there max(0, ...) is 0 and passes no gradient
# back, and they never return.  Then the state has to do what the input should have done, and it can: the excess is
# larger, but still small.  So a good forecast does not show that a part works as its inventors meant it to.  One has
# to look.
#
# ## What to take along
#
# * Say that a value is missing: one more column, `add_indicators`.  In the table it brought every filling to within a
#   twentieth of the best that is possible.
# * Then fill with what is simple: zero or the mean (of the training data) for noisy readings, forward fill and age for
#   exact ones.
# * Skip steps only if time does not matter; else give the time back as an input, and expect nothing inside a gap.
# * Never fill with what comes later, unless you are really allowed to know it.
# * Our gaps say nothing about the signal.  Often they do: a patient is measured when there is reason to worry.  Then
#   the indicator is not only a warning, but news.
# * If you *know* that your signal is an AR(1), take the Kalman filter and no network.
#
# ## The picture

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK = "#009E73", "#CC79A7"
LOOKS = {"zero": ORANGE, "skip + time since": PINK, "GRU-D": BLUE, "zero + indicator": GREEN}
LINES = {"best": "-", "zero": "-", "skip + time since": ":", "GRU-D": "-.", "zero + indicator": "--"}
figure = Figure(figsize=(12, 8.8), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
series, ranking = above.subplots(1, 2, width_ratios=(1.3, 1))
ages_panel, means_panel, shares_panel = below.subplots(1, 3)

works = test.observed[:, :, 0]
rows = np.flatnonzero(works[:, 4:8].all(axis=1) & ~works[:, 9:18].any(axis=1) & works[:, 20:24].all(axis=1))
row = rows[np.argmax(test.best[rows, 8])]                               # a long gap that begins high above the mean
steps = np.arange(T)
spread = np.sqrt(test.variance[row])
series.plot(steps + 1, test.best[row], color=BLACK, lw=1.5, label="best forecast")
series.fill_between(steps + 1, test.best[row] - spread, test.best[row] + spread, color=GREY, alpha=0.25, lw=0,
                    label="its expected deviation")
series.plot(steps + 1, test.truth[row], color=GREY, lw=1.5, label="the signal")
series.plot(steps, test.x[row, :, 0], "o", color=BLACK, ms=5, label="readings")
for method in ("zero", "zero + indicator"):
    series.plot(steps + 1, found[method][0][row], color=LOOKS[method], ls=LINES[method], lw=2,
                label=f"network, {method}")
series.axhline(0, color=BLACK, lw=0.5)
series.set(title="One sequence with a gap: zeros pull the forecast down", xlabel="step", xlim=(0, T))
series.legend(frameon=True, framealpha=1, edgecolor="none")

lines = dict(sorted((table | {"interpolation, live": in_use}).items(), key=lambda item: -np.mean(item[1])))
for place, (method, values) in enumerate(lines.items()):
    ranking.plot(values, [place] * len(values), "o", color=LOOKS.get(method, BLACK), ms=5, alpha=0.8)
ranking.axvline(0, color=BLACK, lw=1)
ranking.axvspan(-22, 0, color=GREY, alpha=0.25, lw=0)
ranking.text(-11, 5, "not possible\nwithout looking\nahead", ha="center", color=BLACK)
ranking.set_yticks(range(len(lines)), lines)
ranking.set(title="Excess over the best forecast", xlabel="percent of its squared error", xlim=(-22, 38))

test_ages = np.where(after_first(test.observed), age(test.observed)[:, :, 0], -1)
for method, color in ({"best": BLACK} | LOOKS).items():
    error = np.mean([squared_errors(some, test) for some in found.get(method, [test.best])], axis=0)
    ages_panel.plot(range(17), [error[test_ages == n].mean() for n in range(17)], color=color, label=method,
                    ls=LINES[method], lw=2.5 if method == "best" else 1.5)
ages_panel.set(title="The longer the gap, the larger the error", xlabel="steps since the last reading",
               ylabel="mean squared error")
ages_panel.legend(frameon=False)

for axes, values, swept in ((means_panel, MEANS, by_mean), (shares_panel, SHARES, by_share)):
    for method, numbers in swept.items():
        axes.plot(values, numbers.mean(axis=1), color=LOOKS[method], ls=LINES[method], label=method)
        axes.plot(values, numbers, "o", color=LOOKS[method], ms=4)
    axes.set(ylim=(0, 45), xticks=values, ylabel="excess in percent")
    axes.legend(frameon=False)
means_panel.set(title="Zero hurts most as a rare reading", xlabel="mean of the readings, in deviations")
shares_panel.set(title="Zero hurts most where gaps are rare", xlabel="share of the steps without a reading")
for axes in (series, ranking, ages_panel, means_panel, shares_panel):
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "06_missing_values.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
