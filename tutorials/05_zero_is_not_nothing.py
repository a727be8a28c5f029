# %% [markdown]
# # 5. Zero is not nothing
#
# Some of the data are not there: the short sequences of a batch are padded, a feature is to be left out, a sensor has
# failed.  The usual advice is to set these places to zero, by multiplying with a mask of ones and zeros.  A popular
# text, "How can LSTM input be zeroed?", begins well: an LSTM does not take zeros for "no information", it processes
# them.  Then it zeroes, too, and promises that "this will make the padding regions have zero influence on the final
# result".  Here we measure what a network makes of zeros:
#
# 1. a step of zeros is a step: the state drifts;
# 2. zeros erase what was remembered;
# 3. gradients are lost, too;
# 4. a bidirectional network: real steps go wrong;
# 5. multiplying is not selecting;
# 6. features: zero, or the mean;
# 7. readings that are not valid;
# 8. when zeros *are* nothing: a theorem;
# 9. how fast zeros wash a memory out;
# 10. padding before or after: an experiment.
#
# Run it:  `python tutorials/05_zero_is_not_nothing.py`.  It takes well under a minute; most of that is the training in
# part 10.  The picture is saved in `tutorials/pictures/`.

# %%
import textwrap
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm
from minilstm import masking, sequences
from minilstm.checks.zeros import leading_zeros_are_masking, memory_left, padding_half_life, trailing_zeros_are_masking

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def largest(array):
    return np.abs(array).max()


# %% [markdown]
# ## 1. A step of zeros is a step
#
#     B  batch      T  time steps      D  input features      H  hidden units      x (B,T,D)
#     mask (B,T) bool, True = a real step
#
# Put x = 0 into the formulas of an LSTM (`minilstm/cells/lstm.py`).  What is left of the pre-activations?
#
#     a = x @ W.T + h_prev @ U.T + b          the first term is 0; the other two are not
#     c = f * c_prev + i * g                  f is between 0 and 1: part of the memory goes; and i * g is written
#     h = o * tanh(c)
#
# A zero switches off W and nothing else.  The popular text pads to five steps and multiplies by the mask.  We do so
# with its sizes, D = 10, H = 20, two layers, real lengths 3, 4 and 5; with initial weights as PyTorch draws them,
# biases too: uniform between -1 and 1 over the root of H.  Beside it the same sequences with the mask given to the
# network, which then does not take the masked steps at all.

# %%
PADDED = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)


def drawn(net, rng):
    """The same network with PyTorch's kind of initial weights."""
    for name, p in net.params.items():
        net.params[name] = rng.uniform(-1, 1, p.shape) / np.sqrt(net.hidden_size)
    return net


def lstm(rng, D, H, **options):
    return drawn(minilstm.LSTM(D, H, dtype="float64", backend="reference", **options), rng)


def final(net, x, mask=None):
    """h of the top layer at the end (B,H)."""
    return net.forward(x, mask)[0].h_n[-1, 0]


def padded(x, zeros):
    """x (B,T,D) with so many steps of zeros after it, and the mask."""
    longer = np.pad(x, ((0, 0), (0, zeros), (0, 0)))
    return longer, np.tile(np.arange(longer.shape[1]) < x.shape[1], (len(x), 1))


drift = []
for seed in range(20):
    rng = np.random.default_rng(seed)
    net, x = lstm(rng, 10, 20, num_layers=2), rng.standard_normal((3, 5, 10))
    alone = np.concatenate([final(net, x[b:b + 1, PADDED[b]]) for b in range(3)])
    assert largest(final(net, x, PADDED) - alone) < 1e-15
    zeroed = final(net, masking.zero_input(x, PADDED))
    drift.append(np.linalg.norm((zeroed - alone)[:2]) / np.linalg.norm(alone[:2]))
print(f"h after steps of zeros, off by this part of its length: {np.median(drift):.2f} ({min(drift):.2f} to "
      f"{max(drift):.2f}, 20 networks)\nwith the mask given to the network: as each sequence alone, up to rounding")
assert min(drift) > 0.1

# %% [markdown]
# That was after one zero or two.  With more of them:

# %%
ZEROS = (0, 1, 2, 5, 10, 20, 50, 200)
rng = np.random.default_rng(0)
net, x = lstm(rng, 10, 20, num_layers=2), rng.standard_normal((2, 3, 10))
alone = final(net, x)
zeroed = [final(net, padded(x, zeros)[0]) for zeros in ZEROS]
masked = [final(net, *padded(x, zeros)) for zeros in ZEROS]
h_off = [np.linalg.norm(h - alone) / np.linalg.norm(alone) for h in zeroed]
print("\nsteps of zeros                    " + "".join(f"{zeros:9d}" for zeros in ZEROS))
print("h is off by, of its length        " + "".join(f"{off:9.3f}" for off in h_off))
print(f"masked, any number of them: the same bits, {all(same_bits(h, alone) for h in masked)}")
assert all(same_bits(h, alone) for h in masked)

# %% [markdown]
# The state runs away from where the sequence had left it, and then stands still: at the point that a step of zeros
# leaves where it is, a property of the weights.  It has nothing to do with the sequence.
#
# ## 2. Zeros erase what was remembered
#
# If all states run to one point, then they run to the *same* point.  Two different sequences, how far apart are their
# states?

# %%
apart = [largest(h[0] - h[1]) for h in zeroed]
print("\nsteps of zeros                    " + "".join(f"{zeros:9d}" for zeros in ZEROS))
print("two sequences end apart by        " + "".join(f"{distance:9.1e}" for distance in apart))
assert apart[-1] < 1e-15

# %% [markdown]
# After twenty zeros hardly anything is left that would tell one from the other, after two hundred nothing that a
# float64 can hold.  No layer behind can bring it back.  (Part 9 measures how fast it goes.)
#
# ## 3. Gradients are lost, too
#
# What the end does not remember, it does not teach.  Below, the loss is a random sum of the last h.  First the gradient
# of x at the sequence's first step.  Then the gradient of all weights: how far it is off that of the sequence alone.

# %%
net, x, dh_n = lstm(rng, 10, 20), rng.standard_normal((8, 5, 10)), rng.standard_normal((1, 1, 8, 20))


def gradients(net, x, mask, dh_n):
    """-> dx (B,T,D), and the gradient of all weights as one vector."""
    _, cache = net.forward(x, mask)
    net.zero_grads()
    dx = net.backward(cache, dh_n=dh_n).dx
    return dx, np.concatenate([g.ravel() for g in net.grads.values()])


dx_alone, of_weights = gradients(net, x, None, dh_n)
first_step, weights_off = [], []
for zeros in ZEROS:
    longer, mask = padded(x, zeros)
    dx, found = gradients(net, longer, None, dh_n)
    first_step.append(np.linalg.norm(dx[:, 0]) / np.linalg.norm(dx_alone[:, 0]))
    weights_off.append(np.linalg.norm(found - of_weights) / np.linalg.norm(of_weights))
    dx, found = gradients(net, longer, mask, dh_n)
    assert same_bits(dx[:, :5], dx_alone) and not dx[:, 5:].any() and np.allclose(found, of_weights, rtol=0, atol=1e-13)
print("\nsteps of zeros                    " + "".join(f"{zeros:9d}" for zeros in ZEROS))
print("dx of the first step, ratio       " + "".join(f"{ratio:9.1e}" for ratio in first_step))
print("gradient of the weights, off by   " + "".join(f"{off:9.2f}" for off in weights_off))
print("masked: dx has the same bits, and is 0 at masked steps; the weights' gradient is the same up to rounding")
assert first_step[ZEROS.index(20)] < 0.01 and weights_off[1] > 0.1

# %% [markdown]
# The real steps are heard less and less.  What trains the weights instead is the walk over the zeros.
#
# ## 4. A bidirectional network
#
# "At least the real steps are right": with zeros behind them, those of a network that walks forward are, since it has
# not seen the zeros yet.  But a bidirectional network also walks from the end, and there it meets the zeros first.  It
# arrives at the real steps with a state that they have made.  One sequence of 8 steps, without zeros and with 12 of
# them; how far off is y, at each real step?

# %%
x = rng.standard_normal((1, 8, 10))
forward, both = lstm(rng, 10, 20), lstm(rng, 10, 20, bidirectional=True)
longer, mask = padded(x, 12)
assert same_bits(forward.forward(longer)[0].y[:, :8], forward.forward(x)[0].y)
assert same_bits(both.forward(longer, mask)[0].y[:, :8], both.forward(x)[0].y)
step_off = np.abs(both.forward(longer)[0].y[0, :8] - both.forward(x)[0].y[0]).max(axis=1)
print("\nreal step                         " + "".join(f"{step:9d}" for step in range(8)))
print("bidirectional, y is off by        " + "".join(f"{off:9.4f}" for off in step_off))
print("forward alone, or bidirectional with the mask: the same bits at all real steps")
assert step_off[-1] > 0.02

# %% [markdown]
# The last real step is hit hardest, and all are wrong.
#
# ## 5. Multiplying is not selecting
#
# Whoever multiplies by a mask expects 0 where the mask is 0.  But 0 times NaN ("not a number", how missing values are
# often marked) is NaN, and so is 0 times infinity.  From there it spreads: each later step of the row reads it.
# `masking.select` does not multiply.  It takes x where the mask is True and writes 0 elsewhere, whatever stood there:

# %%
net, x = lstm(rng, 10, 20), rng.standard_normal((3, 5, 10))
good = masking.select(x, PADDED)
x[~PADDED] = np.nan                                     # 0 * NaN is NaN
multiplied, selected = x * PADDED[:, :, None], masking.select(x, PADDED)
print()
for name, inputs, mask in (("multiplied", multiplied, None), ("selected", selected, None), ("mask given", x, PADDED)):
    out, cache = net.forward(inputs, mask)
    net.zero_grads()
    net.backward(cache, np.ones_like(out.y))
    outputs, numbers = np.isfinite(out.y).mean(), np.mean([np.isfinite(g).mean() for g in net.grads.values()])
    print(f"  {name:12s} outputs that are numbers {outputs:5.0%}, gradients of weights {numbers:5.0%}")
    assert numbers == (name != "multiplied")
assert same_bits(selected, good)

# %% [markdown]
# The treacherous part is that all *real* outputs look fine in the first line, since the padding comes after them.  But
# one NaN anywhere is enough to make the gradient of every weight NaN, and after one step of training so are the
# weights.
#
# ## 6. Features: zero, or the mean
#
# Next the popular text zeroes some features of a step, to "null the influence of a particular feature".  Is the feature
# gone?  If it is zeroed at *every* step, yes: the product with its column of W is 0.  It is the network that one gets
# by taking the column out.

# %%
x, keep = rng.standard_normal((2, 4, 5)), np.arange(5) != 1
net, smaller = lstm(rng, 5, 10), minilstm.LSTM(4, 10, dtype="float64", backend="reference")
smaller.load_state_dict(net.state_dict() | {"weight_ih_l0": net.params["weight_ih_l0"][:, keep]})
difference = largest(net.forward(masking.feature_mask(x, keep))[0].y - smaller.forward(x[:, :, keep])[0].y)
print(f"\nfeature 1 zeroed everywhere, or taken out with its weights: y differs by {difference:.0e}")
assert difference < 1e-15

# %% [markdown]
# But a network that knows the feature, and finds it zeroed *at some steps*, or after training, reads "the feature is
# 0".  What that means depends on what is usual.  Let feature 1 be about 5 (a temperature, say), and hide it: as 0, and
# as its mean.  How far do the outputs move from what they would be if it were there?

# %%
moved = {"0": [], "its mean": []}
for seed in range(20):
    rng = np.random.default_rng(seed)
    net, x = lstm(rng, 5, 10), rng.standard_normal((4, 4, 5))
    x[:, :, 1] = 5 + 0.3 * x[:, :, 1]
    for name, fill in (("0", 0), ("its mean", x.mean(axis=(0, 1)))):
        hidden = masking.feature_mask(x, keep, fill)
        moved[name].append(largest(net.forward(hidden)[0].y - net.forward(x)[0].y))
print("\nfeature 1, about 5, hidden: the largest change of an output, median of 20 networks")
for name, found in moved.items():
    print(f"  as {name:10s} {np.median(found):.2f}")
assert np.median(moved["0"]) > 10 * np.median(moved["its mean"])

# %% [markdown]
# So 0 is fair for features whose mean has been subtracted, and for no others.  Neither filling says "unknown".
#
# The text's mask has the shape (T,D), the same for all sequences of the batch.  `x * mask` takes a (B,D) mask too, if B
# happens to equal T, and gives every sequence the wrong one.  `feature_mask` asks which is meant:

# %%
x, keep = rng.standard_normal((4, 4, 5)), rng.random((4, 5)) < 0.6
wrong, right = net.forward(x * keep)[0].y, net.forward(masking.feature_mask(x, keep, axes="BD"))[0].y
print(f"\nB = T = 4: x * keep runs, with outputs that are wrong by up to {largest(wrong - right):.2f};  feature_mask:")
try:
    masking.feature_mask(x, keep)
except ValueError as error:
    print(textwrap.fill(f"ValueError: {error}", 110, initial_indent="  ", subsequent_indent="    "))
assert largest(wrong - right) > 0.1

# %% [markdown]
# ## 7. Readings that are not valid
#
# The third case of the popular text: "a sensor application which sometimes produces unreliable zero-valued outputs".
# It is a good case, and the text's remedy, to multiply by a mask of valid readings, does nothing in it:

# %%
VALID = np.array([[[1, 0, 1], [1, 1, 0], [1, 1, 1], [0, 1, 0]], [[1, 1, 1], [0, 0, 1], [1, 0, 0], [1, 1, 1]]], bool)
x = np.where(VALID, rng.standard_normal((2, 4, 3)), 0)                  # (B,T,D); what is not valid reads 0
print(f"\nnumbers that multiplying by the mask changes: {np.count_nonzero(x * VALID != x)} of {x.size}")
assert np.array_equal(x * VALID, x)

# %% [markdown]
# What is zero already cannot be zeroed.  The trouble with such readings is another: a true 0 and a broken 0 look the
# same, and the network cannot tell them apart, whatever its weights.  It can if it is told, by more features: 1 where
# a reading is valid, 0 where it is not.  `sequences.add_indicators` puts them behind the others.

# %%
broken, all_true = VALID, VALID.copy()
all_true[0, 0, 1] = True                                # the same x; here this zero is a true reading
net, net_that_knows = lstm(rng, 3, 8), lstm(rng, 6, 8)
apart = {}
print()
for name, model, told in (("zeroed", net, masking.feature_mask),
                          ("with indicators", net_that_knows, sequences.add_indicators)):
    a, b = (model.forward(told(x, valid))[0].y for valid in (broken, all_true))
    apart[name] = largest(a - b)
    print(f"  {name:16s} outputs for a true zero and a broken one differ by {apart[name]:.3f}")
assert apart["zeroed"] == 0 < apart["with indicators"]

# %% [markdown]
# Last, steps at which *no* reading is valid.  Zeroed, they are steps of zeros as in part 1.  To skip them, make a time
# mask of the readings' mask, `valid.any(axis=2)`.  (Or let them be steps: time does go by, and a network that forecasts
# may need to know.  That is a decision about the data, and zeroing takes it without asking.)

# %%
valid = VALID.copy()
valid[:, 2:] = False
x = masking.feature_mask(rng.standard_normal((2, 4, 3)), valid)
before = final(net, x[:, :2])
print(f"\ntwo steps without a valid reading: zeroed, h moves by {largest(final(net, x) - before):.3f}; "
      f"masked, by {largest(final(net, x, valid.any(axis=2)) - before):.0f}")
assert same_bits(final(net, x, valid.any(axis=2)), before)

# %% [markdown]
# ## 8. When zeros are nothing: a theorem
#
# Zeros *after* a sequence do harm.  Zeros *before* it may do none at all, and exactly when, we can prove.  The state is
# zero at the start: h = c = 0.  Let some steps of zeros come, before any real one.  Both products vanish, and every
# pre-activation is its bias b:
#
#     c = f * 0 + i * g = sigmoid(b_i) * tanh(b_g)
#     h = o * tanh(c)
#
# If b_g = 0 in every unit, then c = 0 and h = 0.  The state is what it was, and the next step of zeros finds the same.
# So any number of them changes nothing, and a layer above reads h = 0, zeros again.  If b_g is not 0 in some unit, its
# c is not 0 after the first step, since a sigmoid is above 0.  So:
#
# > **Zero steps in front, from a zero state, equal masked ones if and only if the candidate's bias b_g is 0.**
#
# (In every unit, and in every layer of a stack; b_g is the sum of the two biases, b_ih and b_hh.)  The other biases do
# not matter, the forget bias among them.  For the GRU,
#
#     h = (1 - z) * tanh(b_in + r * b_hn)         r = sigmoid(b_r), b_in and b_hn the candidate's two biases
#
# so the condition is b_in + r * b_hn = 0 in every unit; it holds if both are 0.  Let us see.  Fifty zeros in front of a
# sequence; one bias is random, the others are 0.


# %%
def with_bias(kind, names, H=16, seed=1):
    """A layer whose biases are 0 but for those named, as (which of the two vectors, which block)."""
    net = kind(3, H, dtype="float64", backend="reference")
    for vector in ("bias_ih_l0", "bias_hh_l0"):
        blocks = dict(zip(net.cell.blocks, np.zeros((len(net.cell.blocks), H))))
        for block in [block for of, block in names if of == vector]:
            blocks[block] = np.random.default_rng(seed).uniform(-1, 1, H)
        net.params[vector] = np.concatenate(list(blocks.values()))
    return net


rng = np.random.default_rng(0)
x = rng.standard_normal((4, 10, 3))
in_front = np.pad(x, ((0, 0), (50, 0), (0, 0)))
cases = {f"LSTM, b_{block}": (minilstm.LSTM, [("bias_ih_l0", block)]) for block in "ifgo"}
cases |= {"GRU, b_r": (minilstm.GRU, [("bias_ih_l0", "r")]), "GRU, b_z": (minilstm.GRU, [("bias_ih_l0", "z")]),
          "GRU, b_in": (minilstm.GRU, [("bias_ih_l0", "n")]), "GRU, b_hn": (minilstm.GRU, [("bias_hh_l0", "n")])}
print("\nbias not 0     50 zeros in front move h by   leading_zeros_are_masking   same bits")
for name, (kind, names) in cases.items():
    net = with_bias(kind, names)
    h, moved_h = final(net, x), final(net, in_front)
    says = leading_zeros_are_masking(net)
    print(f"  {name:12s} {largest(moved_h - h):27.4f} {str(says):>27s} {str(same_bits(h, moved_h)):>11s}")
    assert says == same_bits(h, moved_h) == ("g" not in name[5:] and "n" not in name[5:])
    assert not trailing_zeros_are_masking(net)

# %% [markdown]
# Where the table says True, not a bit changes.  (With biases b_in and b_hn that cancel, the equation is one of rounded
# numbers.)  `leading_zeros_are_masking` asks the weights, not the data; `minilstm/checks/zeros.py` has the condition
# for each of the library's cells.
#
# **Zeros behind a sequence never equal masked steps.**  In the LSTM i, f and g of a step of zeros depend on h_prev
# alone.  So at a given h_prev, c = f * c_prev + i * g is a straight line in c_prev, with a slope f below 1.  It can
# leave one c_prev where it is, not each that a sequence may bring.  In the GRU, h_prev stays only if it equals n, the
# tanh of a sum that is bounded; so |h_prev| is below some bound less than 1, and a sequence may bring a state above it.
# (Floats are rounded: the sigmoid of a large number is exactly 1.  Such a gate forgets nothing, and learns nothing
# either.)
#
# This library starts with candidate biases 0, and so does Keras; PyTorch draws them at random.  Training moves them.
# So a test of padding in front on a fresh network may show a difference of exactly 0, and it proves nothing about the
# trained one.
#
# And if b_g is not 0?  Then something is washed out on either side.  Zeros behind wash out the sequence.  Zeros in
# front are washed out *by* the sequence, if it is long enough.  One network with random biases:

# %%
net = lstm(rng, 3, 16)
fresh = with_bias(minilstm.LSTM, [("bias_ih_l0", "f"), ("bias_ih_l0", "i"), ("bias_ih_l0", "o")])
x = rng.standard_normal((16, 10, 3))
SIDES = {"behind": lambda zeros: np.pad(x, ((0, 0), (0, zeros), (0, 0))),
         "in front": lambda zeros: np.pad(x, ((0, 0), (zeros, 0), (0, 0)))}
off = {}
print("\nsteps of zeros                    " + "".join(f"{zeros:9d}" for zeros in ZEROS))
for name, layer, side in (("behind", net, "behind"), ("in front", net, "in front"),
                          ("in front, b_g = 0", fresh, "in front")):
    alone = final(layer, x)
    off[name] = [np.linalg.norm(final(layer, SIDES[side](zeros)) - alone) / np.linalg.norm(alone) for zeros in ZEROS]
    print(f"  {name:17s} h is off by    " + "".join(f"{value:9.3f}" for value in off[name]))
assert off["behind"][-1] > 4 * off["in front"][-1] > 0 == max(off["in front, b_g = 0"])

# %% [markdown]
# ## 9. How fast zeros wash a memory out
#
# `padding_half_life` runs random sequences through a layer, then zeros, and measures how many of them halve what the
# states remember: the distance of the sequences' memories from each other.  `memory_left` gives the whole curve.
#
# What do we expect?  Near the zero state a step of zeros does this to the memory (all gates but f are about 1/2 there,
# and tanh is about a straight line):
#
#     c = f * c_prev + i * U_g @ h_prev = (f + U_g / 4) @ c_prev          as h_prev = o * c_prev
#
# The forget gate is not alone: the network also writes anew what it shows (tutorial 3, part 4).  Here U_g is orthogonal
# at the start; it keeps lengths, and in its slowest direction a step multiplies by up to f + 1/4.  Fresh layers of 32
# units:


# %%
def with_forget_bias(bias, H=32):
    net = minilstm.LSTM(1, H, dtype="float64", backend="reference")
    net.params["bias_ih_l0"] = np.repeat([0.0, bias, 0.0, 0.0], H)
    return net


layers = {f"LSTM, b_f = {bias}": with_forget_bias(bias) for bias in (0, 1, 2, 3)}
layers |= {"LSTM, PyTorch's": lstm(np.random.default_rng(0), 1, 32),
           "GRU": minilstm.GRU(1, 32, dtype="float64", backend="reference")}
left = {name: memory_left(layer, zeros=100) for name, layer in layers.items()}
half_life = {name: padding_half_life(layer) for name, layer in layers.items()}
print("\n                                  half-life        left after")
print("                        f + 1/4   in zeros         10      20     100 zeros")
for name in layers:
    expected = f"{1 / (1 + np.exp(-float(name[-1]))) + 0.25:.2f}" if "=" in name else ""
    measured = f"{half_life[name]:.1f}" if np.isfinite(half_life[name]) else "none"
    print(f"  {name:18s} {expected:>10s} {measured:>10s}    "
          + "".join(f"{left[name][zeros]:8.0e}" for zeros in (10, 20, 100)))
assert half_life["LSTM, PyTorch's"] < 2 < half_life["LSTM, b_f = 1"] < 15 and left["LSTM, b_f = 1"][100] < 0.1
assert half_life["LSTM, b_f = 2"] == np.inf

# %% [markdown]
# With forget bias 0, and in a GRU or an LSTM as PyTorch begins it, a zero or two take half of the memory.  With bias 1
# it is several, and after a hundred some hundredths are left.  With bias 2 and more, f + 1/4 is above 1, and there is
# no half-life: the memory grows, until tanh bends it.  The sequences stay apart, but this is no quiet keeping: what is
# there after a hundred zeros is what the network has made of it in a hundred steps.
#
# ## 10. Padding before or after?
#
# Dwarampudi and Reddy ("Effects of padding on LSTMs and CNNs", 2019) padded tweets with zeros to 93 steps, and trained
# an LSTM to say whether they were positive or negative.  With the padding before the words they report about 80 % right
# answers, with the padding after them about 50 %, which is guessing.  We make a small experiment of this kind.
#
# Random sequences of 5 to 15 numbers, padded to 30 or to 100 steps.  At the end the network says: the last number, the
# sum (scaled down), or the first number.  No mask is given, and the answer is read at the end of the array, as is
# usual; then the mask is given, and the answer is read at the last real step.  The error is that on fresh sequences, as
# a part of that of saying always 0.  All begin from the library's initial weights: forget bias 1, other biases 0.

# %%
TASKS = {"last": lambda s: s[-1], "sum": lambda s: s.sum() / np.sqrt(10), "first": lambda s: s[0]}
SEEDS = range(3)


def batch(task, n, seed, side, T, masked):
    """-> x (n,T,1), target (n,T,1), mask or None, and where the answer is read (n,T)."""
    rng = np.random.default_rng(seed)
    numbers = [rng.standard_normal(length).astype("float32") for length in rng.integers(5, 16, n)]
    x, mask = sequences.pad(numbers, side=side, length=T)
    steps = mask if masked else np.ones_like(mask)
    read = steps & (np.cumsum(steps[:, ::-1], axis=1)[:, ::-1] == 1)    # the last of the steps
    answers = np.array([TASKS[task](s) for s in numbers], "float32")
    return x, np.where(read, answers[:, None], np.float32(0))[:, :, None], mask if masked else None, read


def error(model, task, side, T, masked):
    x, target, mask, read = batch(task, 512, 1000, side, T, masked)
    y, _ = model.forward(x, mask, cache=False)
    return np.square(y - target)[read].mean() / np.square(target)[read].mean()


def trained(task, side, T, masked, seed):
    model = minilstm.Sequential(minilstm.LSTM(1, 16, seed=seed), minilstm.Linear(16, 1, seed=seed))
    x, target, mask, read = batch(task, 256, seed, side, T, masked)
    minilstm.fit(model, x, target, mask, loss_mask=read, epochs=20, optimizer=minilstm.Adam(0.02), seed=seed,
                 progress=False)
    return model


print(f"\nerror, of saying always 0; seeds {', '.join(map(str, SEEDS))}")
print("                            say the last       say the sum        say the first")
results, models = {}, {}
for T, side, masked in ((30, "left", False), (30, "right", False), (100, "left", False), (100, "right", False),
                        (30, "left", True), (30, "right", True)):
    for task in TASKS:
        models[task, T, side, masked] = [trained(task, side, T, masked, seed) for seed in SEEDS]
        results[task, T, side, masked] = [error(model, task, side, T, masked)
                                          for model in models[task, T, side, masked]]
    print(f"  {'mask,' if masked else 'no mask,':8s} to {T:3d}, {'before' if side == 'left' else 'after':6s}"
          + " ".join("".join(f"{e:6.2f}" for e in results[task, T, side, masked]) for task in TASKS), flush=True)
assert all(max(results[task, 30, side, True]) < 0.1 for task in TASKS for side in ("left", "right"))
assert all(max(results[task, 100, "left", False]) < 0.05 for task in ("last", "sum"))
assert sum(e > 0.3 for task in TASKS for e in results[task, 100, "right", False]) > 6
assert 2 * min(results["first", 30, "right", False]) < min(results["first", 30, "left", False])

# %% [markdown]
# Read it in three steps.
#
# * **No mask, little padding.**  To say the last number, or the sum, zeros before are best.  To say the *first*
#   number, zeros after can be better!  For a network that must notice the beginning, zeros in front hide it.
# * **No mask, much padding.**  With zeros after, nearly all networks say 0 and nothing else.  With zeros before, last
#   and sum are learned as if there were none.
# * **With the mask** all three are learned on either side.  What differs are the last bits of gradients, since sums are
#   added up in another order; training enlarges them.
#
# Parts 8 and 9 say why.  At the start b_g = 0, so zeros in front *are* masked steps, to the bit: training begins as if
# there were no padding.  Zeros behind wash the state out, and the gradient with it: training begins with little to go
# by.  This would explain the published numbers, too, if that study began with candidate biases of 0, as Keras does.
# That is our inference; we have not run its code.
#
# So "pad before" is fair advice for those who give no mask, in tasks that do not ask for the beginning.  And the amount
# of padding still matters, since training has moved b_g.  The networks above that learned the sum with zeros before, up
# to 30 steps, are now given other lengths:

# %%
print("\nsay the sum, padded before, trained with 30 steps in all; error with other lengths")
print("  steps in all              " + "".join(f"{T:8d}" for T in (15, 30, 60, 100, 200)))
for masked in (False, True):
    found = [np.median([error(model, "sum", "left", T, masked) for model in models["sum", 30, "left", masked]])
             for T in (15, 30, 60, 100, 200)]
    assert (found[0] > 2 * found[1]) != masked
    print(f"  {'mask' if masked else 'no mask':8s} (median)         " + "".join(f"{e:8.4f}" for e in found))
print("leading_zeros_are_masking:",
      *(leading_zeros_are_masking(model.layers[0]) for model in models["sum", 30, "left", False]))

# %% [markdown]
# Without the mask the network has got used to zeros in front, and errs several times as much where there are fewer.
# With the mask there is nothing to get used to.
#
# To sum up: zero is a value.  If a step is not there, mask it; if a feature is not there, fill it with what is usual,
# and say so to the network; select, and do not multiply.  Tutorial 6 goes on with values that are missing.
#
# ## The picture
#
# Above: the memory c of five units that read eight steps and then zeros (solid), or masked steps (dashed); what zeros
# leave of a memory (part 9); the bidirectional network of part 4.  Below: zeros behind and in front (part 8), and the
# experiment, three networks for each case.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK, AMBER, SKY = "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
figure = Figure(figsize=(12, 8.4), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
panels = figure.subplot_mosaic("aabbcc;ddeeee", height_ratios=(1.1, 1), width_ratios=(1,) * 6)
state, memory, two_ways, sides, experiment = (panels[name] for name in "abcde")

net = lstm(np.random.default_rng(3), 3, 5)
x = np.random.default_rng(4).standard_normal((1, 8, 3))
longer, mask = padded(x, 20)
c = minilstm.trace(net, longer).series("c")                             # (28,H)
c_masked = net.forward(longer, mask)[0].c_n[0, 0, 0]
assert np.array_equal(c_masked, c[7])
for unit, color in enumerate((BLUE, ORANGE, GREEN, PINK, BLACK)):
    state.plot(np.arange(1, 29), c[:, unit], color=color, lw=2)
    state.plot([8, 28], [c_masked[unit]] * 2, color=color, ls="--", lw=1.2)
state.axvspan(8, 28, color=GREY, alpha=0.2, lw=0)
state.set(title="The state runs away over zeros", xlabel="steps", ylabel="c of five units", xlim=(1, 28),
          ylim=(1.15 * c.min(), 1.5 * c.max()))
state.text(18, 1.33 * c.max(), "zeros; dashed: masked", ha="center", color=BLACK)

colors = {"LSTM, b_f = 0": ORANGE, "LSTM, b_f = 1": BLUE, "LSTM, b_f = 2": GREEN, "LSTM, b_f = 3": PINK,
          "LSTM, PyTorch's": GREY, "GRU": BLACK}
labels = {"LSTM, b_f = 0": (28, 1e-3, "b_f = 0"), "LSTM, b_f = 1": (40, 0.05, "b_f = 1"), "GRU": (25, 2.5e-5, "GRU"),
          "LSTM, b_f = 2": (40, 0.55, "b_f = 2"), "LSTM, b_f = 3": (40, 5, "b_f = 3"),
          "LSTM, PyTorch's": (4, 5e-6, "PyTorch's")}
for name, curve in left.items():
    memory.plot(np.arange(61), curve[:61], color=colors[name], lw=2, ls="--" if name == "GRU" else "-")
    memory.text(*labels[name], color=colors[name])
memory.set(title="What zeros leave of a memory", xlabel="steps of zeros", ylabel="of what it was", yscale="log",
           ylim=(1e-6, 20), xlim=(0, 60))

two_ways.bar(range(8), step_off, color=ORANGE, width=0.7)
two_ways.set(title="Bidirectional: real steps are wrong", xlabel="real step (12 zeros follow)",
             ylabel="error of y without a mask", xticks=range(8))
two_ways.text(0, 0.85 * step_off.max(), "with the mask: 0", color=GREEN)

for name, color, text, height in (("behind", ORANGE, "zeros behind", 0.04), ("in front", BLUE, "zeros in front", 0.04)):
    sides.plot(ZEROS[:-2], off[name][:-2], "o-", color=color, lw=2, ms=4)
    sides.text(20, off[name][-3] + height, text, ha="right", color=color)
sides.text(20, -0.085, "masked, or in front, b_g = 0: 0", ha="right", color=GREEN)
sides.plot(ZEROS[:-2], off["in front, b_g = 0"][:-2], color=GREEN, lw=2)
sides.set(title="Ten steps are read, and zeros", xlabel="steps of zeros", ylabel="h is off by, of its length",
          ylim=(-0.12, 0.9), xlim=(-0.5, 20.5), xticks=(0, 5, 10, 15, 20))

CASES = ((30, False, "to 30"), (100, False, "to 100"), (30, True, "mask"))
ticks, names = [], []
for number, task in enumerate(TASKS):
    for place, (T, masked, text) in enumerate(CASES):
        x0 = 4 * number + place
        ticks.append(x0)
        names.append(text)
        for shift, side, color, marker in ((-0.15, "left", BLUE, "o"), (0.15, "right", ORANGE, "s")):
            errors = results[task, T, side, masked]
            experiment.plot(x0 + shift + 0.05 * (np.arange(len(errors)) - 1), np.minimum(errors, 1.1), marker,
                            color=color, ms=5, mfc="none", mew=1.5)
    experiment.text(4 * number + 1, 1.22, f"say the {task}", ha="center", color=BLACK)
experiment.text(2.4, 0.62, "padding before (circles)", color=BLUE)
experiment.text(2.4, 0.52, "padding after (squares)", color=ORANGE)
experiment.axhline(1, color=GREY, ls=":")
experiment.text(2.4, 1.02, "says always 0", color=BLACK, va="bottom", fontsize=9)
experiment.set(title="Padding before or after: error after training", ylim=(-0.05, 1.3), yticks=(0, 0.5, 1),
               ylabel="error, of saying always 0", xlabel="no mask, padded to 30 or to 100 steps; or with the mask")
experiment.set_xticks(ticks, names)
for axes in panels.values():
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "05_zero_is_not_nothing.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
