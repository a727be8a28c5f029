# %% [markdown]
# # 1. Train an LSTM: forecast the sunspots
#
# Since 1700 astronomers have counted the dark spots on the Sun.  Their number rises and falls in cycles of about eleven
# years, but no two cycles are alike in height or length.  We train a small LSTM to say, each year, what the next year
# will bring, and hold it against two forecasters that know nothing of neural networks:
#
# * **persistence**: next year will be as this year;
# * **linear autoregression**, AR(p): next year is a weighted sum of the last p years, the weights found by least
#   squares.  For a short series this is a strong opponent.
#
# Run it:  `python tutorials/01_forecast_sunspots.py`.  It takes well under a minute, compiling the kernels on the
# first use included.  The picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")

# %% [markdown]
# ## The data
#
# 309 numbers, one a year, in a small text file that names its source.

# %%
year, sunspots = np.loadtxt(folder / "data" / "sunspots_yearly.csv", delimiter=",", skiprows=4, unpack=True)
year = year.astype(int)
print(f"{len(year)} years, {year[0]} to {year[-1]}; from {sunspots.min():.0f} to {sunspots.max():.0f} sunspots")

# %% [markdown]
# Time decides what may be known.  A forecaster is fitted to the years **before 1910**, choices such as the size of the
# network are made by its errors in **1910-1959**, and the years **1960-2008** are looked at once, at the end.

# %%
VALIDATE, TEST, END = 1910, 1960, 2009


def place(of_year):
    """The index of a year in the series."""
    return of_year - year[0]


def scaling(before):
    """Functions to scaled values and back, from the years before ``before`` alone.

    High cycles vary more than low ones, and the square root makes the variation alike; then mean 0, deviation 1."""
    known = np.sqrt(sunspots[:place(before)])
    mean, deviation = known.mean(), known.std()
    return (lambda s: (np.sqrt(s) - mean) / deviation), (lambda v: np.maximum(v * deviation + mean, 0) ** 2)


def rmse(forecast, of_years):
    """Root mean squared error, in sunspots."""
    return np.sqrt(np.mean((forecast - sunspots[place(of_years[0]):place(of_years[1])]) ** 2))


# %% [markdown]
# ## The linear opponent
#
# With v the scaled series, AR(p) is  v[t+1] = w[0] v[t] + w[1] v[t-1] + ... + w[p-1] v[t-p+1] + bias.  The order p is
# the one with the smallest Akaike criterion, n log(mean squared error) + 2 (p + 1), on the years it is fitted to.

# %%
def lags(values, p):
    """The last p values before each step, newest first, and a 1 for the bias: (len(values) - p, p + 1)."""
    n = len(values) - p
    return np.column_stack([values[p - 1 - k:p - 1 - k + n] for k in range(p)] + [np.ones(n)])


def fit_linear(values, p):
    return np.linalg.lstsq(lags(values, p), values[p:], rcond=None)[0]


def akaike(values, p):
    errors = values[p:] - lags(values, p) @ fit_linear(values, p)
    return len(errors) * np.log(np.mean(errors ** 2)) + 2 * (p + 1)


def linear_forecast(series, before, years_ahead):
    """From every year on, ``years_ahead`` years: each forecast is taken for true and the next one built on it."""
    known = series[:place(before)]
    p = min(range(1, 20), key=lambda order: akaike(known, order))
    weights = fit_linear(known, p)
    recent = np.stack([series[o - p:o][::-1] for o in range(place(before), len(series))])       # newest first
    steps = []
    for _ in range(years_ahead):
        steps.append(recent @ weights[:-1] + weights[-1])
        recent = np.column_stack([steps[-1], recent[:, :-1]])
    return p, np.stack(steps, axis=1)


# %% [markdown]
# ## Windows: what an LSTM reads
#
# A batch of sequences is an array `x` of shape `(B, T, D)`: B sequences, T steps, D numbers at each step.  Here D = 1,
# and we cut v into overlapping windows of T = 44 years: long enough for four cycles, of which we know.  The network
# says at **every** step what comes next, so the target has the shape of x, one year later:
#
#     x[b]       v[b]        v[b+1]  ...  v[b+T-1]
#     target[b]  v[b+1]-v[b]         ...  v[b+T]-v[b+T-1]
#
# The target is the *change* to the next year.  A network that says 0 is then just persistence, a good place to start
# from.  In its first years a window has no past to judge by; `loss_mask` leaves these steps out of the loss.

# %%
T, WARM_UP = 44, 11


def windows(series):
    starts = np.arange(len(series) - T)[:, None] + np.arange(T)                 # (B,T)
    x, following = series[starts], series[starts + 1]
    return x[:, :, None].astype("float32"), (following - x)[:, :, None].astype("float32")


# %% [markdown]
# ## The model
#
#     x (B,T,1)  ->  LSTM: h (B,T,H)  ->  Linear: y (B,T,1)
#
# At each step the LSTM updates its memory c and its output h (the equations stand in `minilstm/cells/lstm.py`):
#
#     i, f, o = sigmoid(...)      how much to write, to keep, to show; in the brackets stands a weighted sum of x
#     g       = tanh(...)         what to write;                       and of the h of the step before
#     c       = f * c_prev + i * g
#     h       = o * tanh(c)
#
# H, the number of units, is the length of c and h.  `fit` goes through all windows twenty times (twenty *epochs*), in
# random batches of 32.  For each batch it computes the loss, here the mean squared error, and its gradient; shortens
# the gradient if it is too long; and lets Adam, a gradient method with a step of its own for each weight, take a step.
# The rate and the number of epochs were found on the validation years below, like H.

# %%
def train(series, before, hidden_size, seed, progress=False):
    """A model fitted to the years before ``before``, and its loss epoch by epoch."""
    x, target = windows(series[:place(before)])
    loss_mask = np.ones(x.shape[:2], bool)
    loss_mask[:, :WARM_UP] = False
    model = minilstm.Sequential(minilstm.LSTM(1, hidden_size, seed=seed), minilstm.Linear(hidden_size, 1, seed=seed))
    history = minilstm.fit(model, x, target, loss_mask=loss_mask, epochs=20, batch_size=32,
                           optimizer=minilstm.Adam(0.02), seed=seed, progress=progress)
    return model, history


def lstm_forecast(model, series, before, years_ahead):
    """Like ``linear_forecast``: the window before each year, then the network's own forecasts appended to it."""
    window = np.stack([series[o - T:o] for o in range(place(before), len(series))])[:, :, None].astype("float32")
    steps = []
    for _ in range(years_ahead):
        change, _ = model.forward(window)
        following = window[:, -1:] + change[:, -1:]
        window = np.concatenate([window, following], axis=1)
        steps.append(following[:, 0, 0])
    return np.stack(steps, axis=1)


# %% [markdown]
# ## How many units?
#
# A choice for the validation years.  Each size is trained from five seeds, since one lucky start proves nothing.

# %%
SEEDS = range(5)
to_scale, to_sunspots = scaling(VALIDATE)
series = to_scale(sunspots[:place(TEST)])
p, linear = linear_forecast(series, VALIDATE, 1)
print(f"\n{VALIDATE}-{TEST - 1}, one year ahead: root mean squared error in sunspots; of five seeds the mean (range)")
print(f"  AR({p})            {rmse(to_sunspots(linear[:, 0]), (VALIDATE, TEST)):5.1f}")
validation = {}
for hidden_size in (2, 4, 8, 16):
    trained = [train(series, VALIDATE, hidden_size, seed) for seed in SEEDS]
    errors = [rmse(to_sunspots(lstm_forecast(model, series, VALIDATE, 1)[:, 0]), (VALIDATE, TEST))
              for model, _ in trained]
    validation[hidden_size] = np.mean(errors)
    print(f"  LSTM, {hidden_size:2d} units   {np.mean(errors):5.1f}   ({min(errors):.1f} to {max(errors):.1f}), "
          f"loss of training {np.mean([history[-1] for _, history in trained]):.3f}", flush=True)
best = min(validation, key=validation.get)

# %% [markdown]
# The loss of training, in scaled units, falls with every size; the error on years not seen does not.  166 windows of
# one and the same series are not much.  The best size is trained once more, now on all years before 1960, and the
# forecasts of the five networks are averaged.
#
# ## The test
#
# At the end of each year from 1959 to 2007, forecasts for the next one to eleven years; those beyond 2008 are left out.

# %%
AHEAD = 11
to_scale, to_sunspots = scaling(TEST)
series = to_scale(sunspots)
trained = [train(series, TEST, best, seed, progress=True) for seed in SEEDS]
networks = [to_sunspots(lstm_forecast(model, series, TEST, AHEAD)) for model, _ in trained]
p, linear = linear_forecast(series, TEST, AHEAD)
forecasts = {
    "persistence": np.repeat(sunspots[place(TEST) - 1:-1, None], AHEAD, axis=1),
    f"AR({p})": to_sunspots(linear),
    f"LSTM, mean of {len(SEEDS)}": np.mean(networks, axis=0),
}
truth = np.full((len(sunspots) - place(TEST), AHEAD), np.nan)
for k in range(AHEAD):
    truth[:len(truth) - k, k] = sunspots[place(TEST) + k:]
by_horizon = {name: np.sqrt(np.nanmean((forecast - truth) ** 2, axis=0)) for name, forecast in forecasts.items()}

print(f"\n{TEST}-{END - 1}: root mean squared error in sunspots")
print("  years ahead        " + "".join(f"{k:6d}" for k in (1, 2, 3, 5, 8, 11)))
for name, errors in by_horizon.items():
    print(f"  {name:18s} " + "".join(f"{errors[k - 1]:6.1f}" for k in (1, 2, 3, 5, 8, 11)))
single = [np.sqrt(np.mean((network[:, 0] - truth[:, 0]) ** 2)) for network in networks]
print(f"  the five networks alone, one year ahead: {min(single):.1f} to {max(single):.1f}")

# %% [markdown]
# Read the first column first.  The LSTM halves the error of persistence: from windows of numbers alone it has learned
# the cycle.  AR(9) found, on the same years, that nine of them are enough; it has ten weights where a network of eight
# units and its linear layer have 361, and it is as good or a little better, and clearly better when forecasts are built
# on forecasts.  On three hundred numbers that is the usual result, and a reason always to run the linear model too.  At
# eleven years persistence recovers: one cycle later the Sun is about where it was.
#
# ## The picture

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
styles = dict(zip(forecasts, ({"color": GREY, "ls": ":"}, {"color": ORANGE, "ls": "--"}, {"color": BLUE, "lw": 2})))
figure = Figure(figsize=(10, 7), layout="constrained")
whole, near, far = figure.subplot_mosaic([["whole", "whole"], ["near", "far"]]).values()

whole.fill_between(year, sunspots, color=BLACK, alpha=0.15, lw=0)
whole.plot(year, sunspots, color=BLACK, lw=0.9)
spans = ((1700, VALIDATE, "fitted"), (VALIDATE, TEST, "size chosen,\nthen fitted"), (TEST, END, "tested"))
for first, last, text in spans:
    whole.axvline(last, color=GREY, lw=0.8)
    whole.text((first + last) / 2, 222, text, ha="center", va="top", color=BLACK)
whole.set(title="Sunspots, yearly means", xlim=(1700, END), ylim=(0, 225), ylabel="sunspots")

near.plot(year[place(TEST):], truth[:, 0], "o", color=BLACK, ms=4, label="counted")
for name in list(forecasts)[1:]:
    near.plot(year[place(TEST):], forecasts[name][:, 0], label=name, **styles[name])
near.set(title="Forecast one year ahead", xlim=(TEST - 1, END), ylim=(0, 225), ylabel="sunspots")
near.legend(frameon=False, ncol=3, loc="upper center")

for name, errors in by_horizon.items():
    far.plot(range(1, AHEAD + 1), errors, label=name, marker=".", **styles[name])
far.set(title="Error of forecasts further ahead", xlabel="years ahead", ylabel="root mean squared error, sunspots",
        xlim=(0.5, AHEAD + 0.5), ylim=(0, None), xticks=range(1, AHEAD + 1))
far.legend(frameon=False)
for axes in (whole, near, far):
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "01_forecast_sunspots.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
