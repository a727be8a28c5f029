# %% [markdown]
# # 4. Shapes: samples, time steps, features
#
# Most trouble with recurrent networks begins before the network: with the array that goes in.  An LSTM reads one with
# three axes, often called *samples, time steps, features*.  Here we change each of the three, see what the network
# minds and what it does not, and measure on the way what popular advice on the subject gets right and wrong:
#
# 1. three axes, and which of them is in the weights;
# 2. one more feature;
# 3. time and batch in the wrong order;
# 4. one long series into windows;
# 5. sequences of different lengths in one array: padding and the mask;
# 6. what padding does to an answer, with a mask and without;
# 7. sequences that are too long: which end to cut;
# 8. other lengths than those trained on;
# 9. the batch size;
# 10. which sequences go together.
#
# Run it:  `python tutorials/04_shapes.py`.  It takes well under a minute, compiling the kernels on the first use
# included.  The picture is saved in `tutorials/pictures/`.

# %%
import textwrap
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import minilstm
from minilstm import masking, sequences

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def refused(mistake):
    """Print what the library says to a mistake."""
    try:
        mistake()
    except (TypeError, ValueError) as error:
        print(textwrap.fill(f"{type(error).__name__}: {error}", 110, initial_indent="  ", subsequent_indent="    "))
    else:
        raise AssertionError("it was not refused")


# %% [markdown]
# ## 1. Three axes
#
#     B  batch, or samples: how many sequences          T  time steps of each
#     D  features: how many numbers at each step        H  hidden units of the network, our own choice
#
# Three weather stations, five days, two numbers a day: the temperature in tens of degrees, and the rain in centimetres.
# (Numbers of a size around 1 suit a network best.)  So B = 3, T = 5, D = 2, and `x[b, t, d]` is the number d of day t
# at station b.

# %%
stations = np.array(
    [[[1.2, 0.0], [1.4, 0.0], [1.1, 0.7], [0.9, 1.2], [1.0, 0.1]],
     [[2.1, 0.0], [2.3, 0.0], [2.2, 0.0], [2.4, 0.0], [1.8, 2.5]],
     [[0.3, 0.2], [0.1, 0.4], [-0.2, 0.0], [-0.4, 0.0], [0.2, 0.3]]], "float32")       # (B,T,D)

net = minilstm.LSTM(2, 4)                               # D = 2, H = 4
out, _ = net.forward(stations)
print(f"x    {stations.shape}       (B,T,D)")
print(f"y    {out.y.shape}       (B,T,H)                what the network says after each step")
print(f"h_n  {out.h_n.shape}    (layers,directions,B,H)  the same after the last step")
print("x[1] is station 1, x[:, 0] the first day, x[:, :, 0] all temperatures: "
      f"{stations[1].shape}, {stations[:, 0].shape}, {stations[:, :, 0].shape}")

# %% [markdown]
# The batch comes first in x and y.  Then `x[b]` is a sequence, it lies in one piece in memory, and to have fewer
# sequences is to have fewer rows.  (States have two axes in front of it, layer and direction.  Not all libraries agree:
# PyTorch expects time first unless it is told `batch_first=True`.)
#
# Which of these numbers does the network know?  Here are the shapes of its weights:

# %%
print()
for D, H in ((2, 4), (3, 4), (2, 8)):
    shapes = {name: p.shape for name, p in minilstm.LSTM(D, H).params.items()}
    print(f"  D={D}, H={H}: " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))

# %% [markdown]
# D is in the input weights, (4H,D): a row for each of the four gates of each unit, a column for each feature.  H is in
# all of them.  **T and B are in none.**  One step after another is taken with the same weights, and one sequence
# beside another.  So D and H are *architecture*, fixed when the network is made; T and B are *data*, and may be others
# at each call.  Keras' `input_shape=(20, 2)` looks as if the 20 were architecture too, but the layer makes no weight
# of it.  Most of what follows is this one paragraph, seen from several sides.
#
# Three axes are needed even where one of them is 1.  One sequence is a batch of one, and one number a step is one
# feature.  Which axis is missing cannot be guessed, so it is not:

# %%
print()
refused(lambda: net.forward(stations[0]))
print(f"  x[:1]: {stations[:1].shape}, x[0][None]: {stations[0][None].shape}")

# %% [markdown]
# A popular text on this subject, "How can LSTM input dimensions be altered?", calls a line with `np.expand_dims`
# crucial that adds a batch axis to an array which has one already.  Four axes are as wrong as two:

# %%
refused(lambda: net.forward(stations[None]))

# %% [markdown]
# ## 2. One more feature
#
# The stations also measure the humidity.  `add_features` puts it behind the others: the same B, the same T, one column
# more.  What holds for a whole sequence, such as the altitude of a station, is repeated at each step; one says so with
# `static=`.

# %%
humidity = np.random.default_rng(0).uniform(0.3, 0.9, (3, 5, 1)).astype("float32")
altitude = np.array([[0.2], [0.0], [1.6]], "float32")                   # (B,F), kilometres
x3 = sequences.add_features(stations, humidity)
x4 = sequences.add_features(stations, humidity, static=altitude)
print(f"\nx {stations.shape}, with humidity {x3.shape}, with altitude too {x4.shape}")
print(f"station 2 on the first day: {x4[2, 0].round(2)}")
print("two axes may be (B,T), a number for each step, or (B,F), something for each sequence:")
refused(lambda: sequences.add_features(stations, humidity[:, :, 0]))

# %% [markdown]
# The popular text does the same with `np.concatenate(..., axis=2)`, and it is right: that, and a network for the new D,
# is all.  It goes on to train on targets that are random numbers, and the loss falls.  Does that show that the shapes
# are right?  We do it too: 100 sequences, 20 steps, 2 features, 64 units, 10 epochs; the target is a uniform random
# number between 0 and 1, at the last step.

# %%
rng = np.random.default_rng(1)
at_the_end = np.zeros((100, 20), bool)
at_the_end[:, -1] = True
noise_model = minilstm.Sequential(minilstm.LSTM(2, 64), minilstm.Linear(64, 1))
noise_in, noise_out = (rng.random((100, 20, F), "float32") for F in (2, 1))
history = minilstm.fit(noise_model, noise_in, noise_out, loss_mask=at_the_end, epochs=10, progress=False)
print(f"\nloss of the first epoch {history[0]:.3f}, of the last {history[-1]:.3f}; of saying always 0.5: {1 / 12:.3f}")
assert history[0] > 1.5 * history[-1] and history[-1] > 0.9 / 12

# %% [markdown]
# The loss falls, and all that was learned is the mean of the targets: saying 0.5 each time has an error of 1/12, the
# variance of such numbers.  **A loss that falls proves little; compare it with that of a constant.**
#
# ### A feature for a network that is trained already
#
# The new feature needs one more column in the input weights.  If that column is zero, the feature is multiplied by zero
# and nothing changes, to the last bit.  Training can then go on from there, since the gradient of the new column is not
# zero:

# %%
old, wider = minilstm.LSTM(2, 4), minilstm.LSTM(3, 4)
weights = old.state_dict()
weights["weight_ih_l0"] = np.pad(weights["weight_ih_l0"], ((0, 0), (0, 1)))             # (4H,2) -> (4H,3)
wider.load_state_dict(weights)
y_old, (out, cache) = old.forward(stations)[0].y, wider.forward(x3)
assert same_bits(out.y, y_old)
wider.backward(cache, np.ones_like(out.y))
print(f"\nold network and wider one: the same bits, {same_bits(out.y, y_old)}")
print("gradient of the input weights, its length by column: "
      + ", ".join(f"{length:.2f}" for length in np.linalg.norm(wider.grads["weight_ih_l0"], axis=0)))

# %% [markdown]
# For sequences that lack the feature, the text advises zeros "or other default values".  But a humidity of 0 does not
# say "unknown".  It says "drier than any desert".  Tutorial 5 is about this.
#
# ## 3. Time and batch
#
# Data may come the other way round, time first: (T,B,D).  Two sequences of three steps, a0 a1 a2 and b0 b1 b2, one
# column each.  We want one row each.  `reshape` to (B,T) gives just the shape we want, so nothing complains:

# %%
time_first = np.array([["a0", "b0"], ["a1", "b1"], ["a2", "b2"]])       # (T,B)
print()
for name, array in (("time first", time_first), ("reshape(2, 3)", time_first.reshape(2, 3)),
                    ("swap_time_batch", sequences.swap_time_batch(time_first))):
    print(f"  {name:16s}", "   ".join(" ".join(row) for row in array))

# %% [markdown]
# `reshape` does not move numbers.  It reads them in the order in which they lie in memory, a0 b0 a1 b1 a2 b2, and cuts
# them into rows of three: two sequences that never were.  `swap_time_batch` moves axes, `y[b, t] = x[t, b]`.  (In
# PyTorch `view` and `transpose` are the same two things.)
#
# There is a simple test for a whole pipeline, whatever it is made of: change one sequence, and see whose answers move.

# %%
raw = rng.standard_normal((8, 4, 2)).astype("float32")                  # (T,B,D): eight steps of four sequences
changed = raw.copy()
changed[:, 0] += 1                                                      # sequence 0, and no other
for name, turn in (("reshape", lambda raw: raw.reshape(4, 8, 2)), ("swap_time_batch", sequences.swap_time_batch)):
    before, after = (net.forward(turn(array))[0].h_n[0, 0] for array in (raw, changed))
    print(f"  {name:16s} answers that move: {np.flatnonzero((before != after).any(axis=1))}")

# %% [markdown]
# What does it cost?  From here on we have a task: noisy waves, each with a frequency and a phase of its own.  After
# each step the network is to say the next number.  The noise has a standard deviation of 0.1, so no forecast can have a
# smaller error than 0.1 on average; and saying always 0 has an error of about 0.7.

# %%
NOISE = 0.1


def waves(n, shortest, longest, seed):
    """A list of n waves with random lengths (T_i,); each comes with one more number, the last one to forecast."""
    rng = np.random.default_rng(seed)
    found = []
    for length in rng.integers(shortest, longest + 1, n) + 1:
        wave = np.sin(rng.uniform(0.3, 1.2) * np.arange(length) + rng.uniform(0, 2 * np.pi))
        found.append((wave + NOISE * rng.standard_normal(length)).astype("float32"))
    return found


def train(x, target, mask=None, epochs=30, hidden_size=16):
    model = minilstm.Sequential(minilstm.LSTM(x.shape[2], hidden_size), minilstm.Linear(hidden_size, 1))
    history = minilstm.fit(model, x, target, mask, epochs=epochs, optimizer=minilstm.Adam(0.01), progress=False)
    return model, np.sqrt(history[-1])


def root_mean_square(error):
    return np.sqrt(np.mean(np.square(error, dtype="float64")))


long_waves = np.stack(waves(512, 40, 40, seed=0))[:, :, None]           # (512,41,1)
inputs, targets = (array.swapaxes(0, 1).copy() for array in (long_waves[:, :-1], long_waves[:, 1:]))
print(f"\ntime first: {inputs.shape}; error after training:")
mixed_error, swapped_error = (train(turn(inputs), turn(targets))[1]
                              for turn in (lambda array: array.reshape(512, 40, 1), sequences.swap_time_batch))
print(f"  reshape {mixed_error:.3f},  swap_time_batch {swapped_error:.3f},  "
      f"saying always 0 {root_mean_square(targets):.3f}")
assert swapped_error < 0.25 < 2 * swapped_error < mixed_error

# %% [markdown]
# With `reshape` it trains without a word, and the loss falls, since target and input are mixed alike: beside each
# number still stands the next one of the same wave.  But the steps before are those of other waves.  There is no past
# to learn from, and the error is about three times as large.
#
# ## 4. Windows from one long series
#
# Often there is only one sequence, and a long one.  It is cut into windows: short runs of steps, each with a later
# number as its target.  The danger here is to be off by one.  So `window` also says where in the series each window
# begins and ends, and where its target lies.  With the series 0, 1, 2 ... each number is its own index:

# %%
w = sequences.window(np.arange(9, dtype="float32"), 4, horizon=2)
print("\nx of the window   target    first last target_step")
for row in range(len(w.x)):
    print(f"  {w.x[row, :, 0]} {w.target[row, 0]:7.0f} {w.first[row]:11d} {w.last[row]:4d} {w.target_step[row]:11d}")
print(f"x {w.x.shape}, (N,T,D); target {w.target.shape}, (N,F)")

# %% [markdown]
# A horizon of 1 is the number right after the window.  What happens with 0, the last number of the window itself?
# `window` refuses, unless the series is also passed as a target of its own.  We do that here, with the sunspots of
# tutorial 1: years before 1910 to learn from, the years since to judge by; cut in time first, then into windows.
#
# (It is a mistake that others make for you.  With Keras' `timeseries_dataset_from_array`, `targets[i]` belongs to the
# window that *begins* at step i.  Whoever passes the series as its own targets asks for the first number of each
# window.)

# %%
year, sunspots = np.loadtxt(folder / "data" / "sunspots_yearly.csv", delimiter=",", skiprows=4, unpack=True)
sunspots = sunspots.astype("float32") / 100
past, future = sunspots[year < 1910], sunspots[year >= 1910]
LENGTH = 20


def last_step(target):
    """target (N,F) of windows -> at the last of their steps (N,LENGTH,F), and the loss mask that says so."""
    loss_mask = np.zeros((len(target), LENGTH), bool)
    loss_mask[:, -1] = True
    return np.where(loss_mask[:, :, None], target[:, None], np.float32(0)), loss_mask


def forecaster(horizon):
    w = sequences.window(past, LENGTH, horizon=horizon, target=past)
    target, loss_mask = last_step(w.target)
    model = minilstm.Sequential(minilstm.LSTM(1, 16), minilstm.Linear(16, 1))
    minilstm.fit(model, w.x, target, loss_mask=loss_mask, epochs=60, optimizer=minilstm.Adam(0.01), progress=False)
    return model


def error_of(model, horizon):
    w = sequences.window(future, LENGTH, horizon=horizon, target=future)
    return 100 * root_mean_square(model.forward(w.x)[0][:, -1] - w.target)


print("\nerror, in sunspots               by its own targets   for the next year")
errors = {}
for name, horizon in (("target = the next year", 1), ("target = the last input", 0)):
    model = forecaster(horizon)
    errors[horizon] = [error_of(model, horizon), error_of(model, 1)]
    print(f"  {name:30s} {errors[horizon][0]:18.1f} {errors[horizon][1]:19.1f}")
w = sequences.window(future, LENGTH)
as_it_was = 100 * root_mean_square(w.x[:, -1] - w.target)
print(f"  {'next year as this year':30s} {'':18s} {as_it_was:19.1f}")
assert errors[0][0] < errors[1][0] / 3 and abs(errors[0][1] / as_it_was - 1) < 0.05 and errors[1][1] < 0.8 * as_it_was

# %% [markdown]
# By its own targets the model that is off by one is far the better one.  For the next year it is as bad as saying "as
# this year", since that is what it has learned to do: to repeat its last input.  If a forecast looks too good, draw it
# over the truth.  If it is the truth, one step late, look at the indices.
#
# ## 5. Sequences of different lengths
#
# An array has one T.  Three sequences of 15, 20 and 10 numbers, as in the popular text, are put in one array by filling
# up the short ones.  That is *padding*, and `pad` returns two things: x, and a **mask** that says which steps are real.

# %%
three = [rng.random(length, "float32") for length in (15, 20, 10)]
x, mask = sequences.pad(three)
x_left, mask_left = sequences.pad(three, side="left")
print(f"\nx {x.shape}, mask {mask.shape}, real steps {mask.sum(axis=1)}; side='right', then side='left':")
for m in (mask, mask_left):
    print("\n".join("    " + "".join(".#"[real] for real in row) for row in m.astype(int)))

# %% [markdown]
# The text uses Keras' `pad_sequences`, which makes integers (int32) unless it is told otherwise.  What becomes of
# numbers between 0 and 1?

# %%
as_integers = np.concatenate(three).astype("int32")
print(f"\nas integers, {np.count_nonzero(as_integers)} of {len(as_integers)} numbers are left; "
      f"after pad, {np.count_nonzero(x[mask])}")
assert not as_integers.any() and np.count_nonzero(x) == len(as_integers)
refused(lambda: sequences.pad([as_integers]))

# %% [markdown]
# Nothing is left, and a network trains on zeros without complaint.  `pad` keeps the dtype, and takes floats only.
#
# The mask is made from the lengths, not from the numbers.  A rule such as "a step of zeros is padding" drops each real
# reading that happens to be zero, and rain is zero on most days.

# %%
rain = [np.array([0.0, 0.4, 0.0], "float32"), np.array([1.1, 0.2], "float32")]
rain_x, rain_mask = sequences.pad(rain)
print("\ndays of rain: by their lengths", rain_mask.sum(axis=1), " if only steps that are not zero are real",
      (rain_x != 0).any(axis=2).sum(axis=1))

# %% [markdown]
# ## 6. What padding does to an answer
#
# The text says that padding "may impact the model's performance".  It depends on one thing.  We train on waves of 10
# to 40 steps, padded, with the mask, and let the model forecast the number after the end of fresh ones: each wave by
# itself, with nothing around it.  Then with zeros on the left or on the right, as one often sees it, with no mask; and
# with the mask.


# %%
def batch_of(waves):
    """Waves, each with the number to forecast -> x and target, padded, (N,T,1), and the mask (N,T)."""
    x, mask = sequences.pad([wave[:-1] for wave in waves])
    target, _ = sequences.pad([wave[1:] for wave in waves])
    return x, target, mask


model, training_error = train(*batch_of(waves(512, 10, 40, seed=0)))
fresh = waves(256, 10, 40, seed=1)
known, truth = [wave[:-1] for wave in fresh], np.array([wave[-1] for wave in fresh])


def alone(known):
    """The forecast after the last step of each wave, one wave at a time: (N,)."""
    return np.array([model.forward(wave[None, :, None])[0][0, -1, 0] for wave in known])


def padded(known, pads, side, masked):
    """The same in one batch for each length, with so many zeros on a side of every wave."""
    said = []
    for wave in known:
        x, mask = sequences.pad([wave], side=side, length=len(wave) + pads)
        y, _ = model.forward(x, mask if masked else None)
        said.append(masking.last_valid(y, mask)[0, 0] if masked else y[0, -1, 0])
    return np.array(said)


own = alone(known)
own_error = root_mean_square(own - truth)
PADS = (0, 1, 2, 5, 10, 20, 40)
print(f"\nerror of each wave by itself {own_error:.3f} (in training {training_error:.3f}, always 0: "
      f"{root_mean_square(truth):.3f}); the noise alone is {NOISE}")
print("error with so many zeros       " + "".join(f"{pads:7d}" for pads in PADS))
pad_errors = {}
for side in ("left", "right"):
    for masked in (False, True):
        said = [padded(known, pads, side, masked) for pads in PADS]
        pad_errors[side, masked] = [root_mean_square(s - truth) for s in said]
        print(f"  {side + ', ' + ('mask' if masked else 'no mask'):28s} "
              + "".join(f"{error:7.3f}" for error in pad_errors[side, masked])
              + (f"   the same bits: {all(same_bits(s, own) for s in said)}" if masked else ""))
        assert not masked or all(same_bits(s, own) for s in said)
assert pad_errors["right", False][2] > 5 * own_error and pad_errors["left", False][3] < 1.2 * own_error

# %% [markdown]
# * **On the right, without a mask**, the answer is lost with the first zero or two.  After the wave the network sees a
#   wave that stops at zero, and says what comes next after that.
# * **On the left, without a mask**, a few zeros do little here: what the network makes of them, it forgets while it
#   reads the wave.  Many do more.  How much is a matter of the network and the data, and tutorial 5 says on what it
#   depends.
# * **With the mask** neither the side nor the amount changes a single bit.  A masked step is not a step: the state is
#   handed on as it is.
#
# To read the answer, `y[:, -1]` will not do with padding on the right: it is the answer after a step that never was.
# `masking.last_valid(y, mask)` takes it at the last real step of each row.  So padding need not have any impact.
#
# ## 7. Too long: which end to cut
#
# To save time one may cut sequences to some length.  The popular text says that this "loses information from the end".
# Which end is lost depends on who cuts, and in its own example it would be the beginning: unless told otherwise,
# Keras' `pad_sequences` cuts [1, 2, 3] to [2, 3].  `truncate` has no default, one must say which end to keep:

# %%
print()
refused(lambda: sequences.truncate(known, 10))
CUTS = (2, 5, 10, 20, 40)
cut_errors = {keep: [root_mean_square(alone(sequences.truncate(known, steps, keep=keep)) - truth) for steps in CUTS]
              for keep in ("end", "start")}
print("\nerror with so many steps kept" + "".join(f"{steps:7d}" for steps in CUTS))
for keep, found in cut_errors.items():
    print(f"  keep={keep!r:24s}" + "".join(f"{error:7.3f}" for error in found))
assert cut_errors["end"][3] < 1.2 * own_error < 0.5 < cut_errors["start"][2]

# %% [markdown]
# For a forecast the last steps are what counts; the last twenty are nearly as good as all.  The first ten say next to
# nothing about what comes after the end.  In the task of tutorial 3, to remember the first number, it is the other way
# round.  The data decide.
#
# ## 8. Other lengths than those trained on
#
# "The Keras LSTM handles varying sequence lengths during inference", says the text, and it is right that there is no
# error.  It thinks that padding in training is the reason.  The reason is part 1: no weight has a T.  But no error does
# not mean a good answer.  Waves of these lengths, with training on lengths from 10 to 40:

# %%
LENGTHS = (2, 5, 10, 20, 40, 80, 160, 320)
length_errors = []
for length in LENGTHS:
    some = np.stack(waves(256, length, length, seed=2))
    said, _ = model.forward(some[:, :-1, None])
    length_errors.append(root_mean_square(said[:, -1, 0] - some[:, -1]))
print("\nsteps  " + "".join(f"{length:7d}" for length in LENGTHS))
print("error  " + "".join(f"{error:7.3f}" for error in length_errors))
print("another D is another network:")
refused(lambda: model.forward(np.zeros((1, 20, 2), "float32")))

# %% [markdown]
# Two steps of a wave with noise do not tell its frequency, so short ones are hard for anybody.  Long ones are no harder
# than those of 40 steps, although the model has never seen any: what it needs to know lies in the last twenty or so.
# That is good luck with this task, and not a law.  A network that must count, or add up, can run out of the range that
# it was trained in.
#
# ## 9. The batch size
#
# How many sequences go through together is a matter of speed when a network is *used*: each row is computed by itself,
# and its answer is the same to the last bit, whatever stands beside it.  "Typically 1", says the popular text; it may
# be, and then it is slowest.  (The same bits: this holds for the compiled backend.  Where products are left to a
# general library, as in the NumPy reference here, the order of its sums may depend on the number of rows, and the last
# bits with it.)

# %%
x, target, mask = batch_of(fresh)
whole, _ = model.forward(x, mask)
print("\nbatch size        the same bits      milliseconds for all 256")
for size in (1, 4, 16, 64, 256):
    cuts = sequences.batches(len(x), size)
    in_parts = np.concatenate([model.forward(x[rows], mask[rows])[0] for rows in cuts])
    begun = time.perf_counter()
    for rows in cuts:
        model.forward(x[rows], mask[rows], cache=False)
    print(f"  {size:8d} {str(same_bits(in_parts, whole)):>20s} {1000 * (time.perf_counter() - begun):20.1f}")
    assert same_bits(in_parts, whole)

# %% [markdown]
# In *training* the batch size does make a difference, and the popular text is right about it: larger batches give
# steadier gradients.  The gradient of a batch is a sample of that of all sequences.  We measure how far it is off, as a
# part of the length of the true one, for batches drawn at random:

# %%
x, target, mask = batch_of(waves(1024, 10, 40, seed=0))


def gradient(model, x, target, mask):
    """The gradient of all weights as one vector."""
    y, cache = model.forward(x, mask)
    model.zero_grads()
    model.backward(cache, minilstm.mean_squared_error(y, target, mask)[1])
    return np.concatenate([g.ravel() for _, layer in model.walk() for g in layer.grads.values()])


start = minilstm.Sequential(minilstm.LSTM(1, 16), minilstm.Linear(16, 1))
true = gradient(start, x, target, mask)
print("\nbatch size                   " + "".join(f"{size:8d}" for size in (4, 16, 64, 256)))
off = []
for size in (4, 16, 64, 256):
    drawn = [rng.choice(len(x), size, replace=False) for _ in range(40)]
    off.append(np.mean([np.linalg.norm(gradient(start, x[rows], target[rows], mask[rows]) - true) for rows in drawn]))
print("off by, of the true gradient " + "".join(f"{length:8.2f}" for length in off / np.linalg.norm(true)))

# %% [markdown]
# Four times as many sequences, about half the error, as for any mean; and a little less than half at the end, where a
# batch is a good part of all there is.
#
# ## 10. Which sequences go together
#
# A batch is as long as its longest sequence.  If most are short and a few are long, most of a batch is padding, unless
# sequences of like length go together.  `batches` does that if it is told the lengths, and `padding_share` says how
# much of all steps is padding.  Here 512 sequences, 10 steps and more.  One pass of training over all of them, forward
# and backward, the best of three:

# %%
lengths = 10 + rng.exponential(40, 512).astype(int).clip(max=190)
several = [rng.standard_normal((length, 4)).astype("float32") for length in lengths]
big = minilstm.LSTM(4, 48)


def one_pass(plan, masked):
    begun = time.perf_counter()
    for rows in plan:
        x, mask = sequences.pad([several[k] for k in rows])             # as long as the longest of this batch
        out, cache = big.forward(x, mask if masked else None)
        big.backward(cache, np.ones_like(out.y))
    return time.perf_counter() - begun


plans = {"shuffled": sequences.batches(512, 32, seed=0),
         "of like length": sequences.batches(512, 32, seed=0, lengths=lengths)}
shares = {name: sequences.padding_share(lengths, plan) for name, plan in plans.items()}
print(f"\nlengths from {lengths.min()} to {lengths.max()}, median {np.median(lengths):.0f}")
print("                               padding   milliseconds: mask   no mask")
for name, plan in plans.items():
    best = [min(one_pass(plan, masked) for _ in range(3)) for masked in (True, False)]
    print(f"  {name:28s} {shares[name]:8.0%} {1000 * best[0]:19.0f} {1000 * best[1]:9.0f}")
assert shares["of like length"] < 0.2 < 0.6 < shares["shuffled"]

# %% [markdown]
# Seven tenths of the shuffled batches are padding; of the others, about a tenth.  Times depend on the machine, and on
# what else it does; look at their order.  A network that takes a step for each zero of padding pays for all of it, and
# sorting by length saves much.  With a mask, this library skips masked steps, so they cost little in the first place,
# and sorting saves only what is left: memory, and the copying of it.  For answers it makes no difference, as we saw.
# But sequences of one length then often meet in training, and if length has to do with what is to be learned, batches
# are less mixed.  `batches` shuffles the order of the batches, and who is with whom among equal lengths; more it cannot
# do.
#
# ## The picture
#
# Above: a block of numbers (B,T,D); what `swap_time_batch` and `reshape` make of four sequences a, b, c, d of eight
# steps; and windows with their targets.  Below: parts 6, 7 and 8, and 10.  The dotted line is the noise.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK, LIGHT = "#009E73", "#CC79A7", "#DDDDDD"
figure = Figure(figsize=(12, 8.6), layout="constrained")
figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
above, below = figure.subfigures(2, 1, height_ratios=(1, 1))
block, order, cuts = above.subplots(1, 3, width_ratios=(1, 1.1, 1.15))
pads_axes, steps_axes, batch_axes = below.subplots(1, 3)


def cell(axes, x, y, color, text="", alpha=1.0):
    """A square, one wide, with its lower left corner at (x, y)."""
    axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, fc="white", ec="none"))
    axes.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, fc=color, ec="none", alpha=alpha))
    axes.text(x + 0.5, y + 0.45, text, ha="center", va="center", fontsize=9, color=BLACK)


colors = (BLUE, ORANGE, GREEN, PINK)
for b in reversed(range(3)):
    for t in range(5):
        for d in range(2):
            cell(block, t + 1.2 * b, 2 - d + 2.4 * b, colors[b], f"{stations[b, t, d]:.1f}", alpha=0.45)
    block.text(5.2 + 1.2 * b, 2 + 2.4 * b, f"x[{b}]", color=colors[b], va="center")
block.annotate("", (5, 0.7), (0, 0.7), arrowprops={"arrowstyle": "<->", "color": BLACK})
block.annotate("", (-0.3, 1), (-0.3, 3), arrowprops={"arrowstyle": "<->", "color": BLACK})
block.annotate("", (-0.3, 3.6), (2.1, 8.4), arrowprops={"arrowstyle": "<->", "color": BLACK})
block.text(2.5, 0.1, "T = 5 steps", ha="center", va="center", color=BLACK)
block.text(-0.5, 2, "D = 2\nfeatures", ha="right", va="center", color=BLACK)
block.text(0.5, 6.2, "B = 3\nsequences", ha="right", va="center", color=BLACK)
block.set(title="x[b, t, d], shape (B,T,D)", xlim=(-2.2, 9.0), ylim=(-0.6, 8.6), aspect="equal")

indices = np.stack(np.meshgrid(range(8), range(4), indexing="ij"), axis=2)             # (T,B,2): t and b of each
for top, name, rows, meaning in ((11, "swap_time_batch", sequences.swap_time_batch(indices), "one wave"),
                                 (5, "reshape", indices.reshape(4, 8, 2), "a mix of four")):
    order.text(0, top - 0.4, f"{name}: a row is {meaning}", color=BLACK)
    for row, steps in enumerate(rows):
        for column, (t, b) in enumerate(steps):
            cell(order, column, top - 1.7 - row, colors[b], f"{'abcd'[b]}{t}", alpha=0.25 + 0.09 * t)
order.set(title="Time first to batch first", xlim=(-0.8, 8.8), ylim=(0, 11.2), aspect="equal")

shown = sequences.window(np.arange(9, dtype="float32"), 4, horizon=2)
for step in range(9):
    cell(cuts, step, 5, LIGHT, f"s{step}")
for row, (first, last, target_step) in enumerate(zip(shown.first, shown.last, shown.target_step)):
    y = 3.6 - 1.2 * row
    for step in range(first, last + 1):
        cell(cuts, step, y, BLUE, f"s{step}", alpha=0.4)
    cell(cuts, target_step, y, ORANGE, f"s{target_step}", alpha=0.6)
    cuts.annotate("", (target_step + 0.05, y + 0.5), (last + 0.95, y + 0.5),
                  arrowprops={"arrowstyle": "->", "color": BLACK, "shrinkA": 0, "shrinkB": 0})
cuts.text(0, 6.3, "the series", color=GREY)
cuts.text(0, -1.0, "windows of 4 steps", color=BLUE)
cuts.text(9, -1.0, "targets, horizon 2", color=ORANGE, ha="right")
cuts.set(title="One long series into windows", xlim=(-0.2, 9.2), ylim=(-1.4, 7.2), aspect="equal")
for axes in (block, order, cuts):
    axes.axis("off")
    axes.set_anchor("N")

of_side = {"right": ORANGE, "left": BLUE}
for side, color in of_side.items():
    pads_axes.plot(PADS, pad_errors[side, False], "o-", color=color, ms=4, lw=2)
pads_axes.plot(PADS, pad_errors["right", True], "o-", color=GREEN, ms=4, lw=2)
pads_axes.text(8, 0.9, "zeros on the right,\nno mask", color=ORANGE)
pads_axes.text(PADS[-1], pad_errors["left", False][-1] + 0.035, "zeros on the left, no mask", color=BLUE, ha="right")
pads_axes.text(PADS[-1], own_error - 0.05, "either side, with the mask", color=GREEN, ha="right", va="top")
pads_axes.set(title="What padding does to a forecast", xlabel="zeros added", ylabel="error of the forecast")

steps_axes.plot(CUTS, cut_errors["start"], "o-", color=ORANGE, ms=4, lw=2)
steps_axes.plot(CUTS, cut_errors["end"], "o-", color=BLUE, ms=4, lw=2)
steps_axes.plot(LENGTHS, length_errors, "s--", color=BLACK, ms=4, lw=1)
steps_axes.axvspan(10, 40, color=GREY, alpha=0.2, lw=0)
steps_axes.text(20, 0.035, "lengths in training", color=BLACK, ha="center", fontsize=9)
steps_axes.text(44, 0.55, "cut, the start kept", color=ORANGE)
steps_axes.text(2, 0.37, "cut, the end kept", color=BLUE)
steps_axes.text(44, 0.2, "waves of that length", color=BLACK)
steps_axes.set(title="Which end to cut, and other lengths", xscale="log", xlabel="steps that are read")
steps_axes.set_xticks(LENGTHS, LENGTHS)
steps_axes.minorticks_off()
for axes in (pads_axes, steps_axes):
    axes.set_ylim(0, 1.15)
    axes.axhline(NOISE, color=GREY, ls=":")

for top, (name, plan) in zip((34, 16), plans.items()):
    for row, batch in enumerate(plan):
        batch_axes.barh(top - row, lengths[batch].max(), height=0.8, color=LIGHT)
        batch_axes.barh(top - row, lengths[batch].mean(), height=0.8, color=BLUE)
    batch_axes.text(lengths.max() + 8, top - 7.5, f"{name}:\n{shares[name]:.0%} padding",
                    color=BLACK, va="center")
batch_axes.set(title="Sixteen batches: mean length, and padding", xlabel="steps", yticks=[],
               xlim=(0, 1.55 * lengths.max()), xticks=[0, 50, 100, 150, 200])
for axes in (pads_axes, steps_axes, batch_axes):
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "04_shapes.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
