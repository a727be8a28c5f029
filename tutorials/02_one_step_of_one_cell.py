# %% [markdown]
# # 2. One step of one cell
#
# The LSTM of tutorial 1 has hundreds of weights, and it is hard to say what a single one of them is for.  Here we take
# two units, set their weights by hand so that we do know, and look at everything that one step computes:
#
# 1. two units with a plain meaning;
# 2. one step forward, line by line;
# 3. the same step backward, line by line, against numeric derivatives;
# 4. a masked step;
# 5. a GRU beside it;
# 6. gates at work over a sequence: those set by hand, and those that training finds.
#
# Run it:  `python tutorials/02_one_step_of_one_cell.py`.  It takes less than a minute; most of that is the training in
# part 6.  The picture is saved in `tutorials/pictures/`.

# %%
import math
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")

# %% [markdown]
# ## 1. Two units, set by hand
#
#     B  batch      T  time steps      D  input features      H  hidden units
#     x (B,T,D)     h, c and the gates i, f, o: H numbers at each step      dX: gradient of the loss with respect to X
#
# The input has D = 3 features: a **number**, and two marks that are 0 or 1, **write** and **show**.  H = 2 units:
#
# * unit 0 is a **store**.  At *write* it takes the number in, and forgets what it held; at *show* it lets its memory be
#   seen; else it holds what it has, and hides it;
# * unit 1 **fades**.  At each step it keeps half of its memory, and adds half of what is new.  It also hears unit 0:
#   what it takes in is the number minus what unit 0 showed a step ago.
#
# The weights W, U and the bias have one block of H rows for each of i, f, g, o, in this order.  A gate is
# sigmoid(pre-activation), and sigmoid(4) = 0.98, sigmoid(-4) = 0.02.  So -4 + 8 * write makes a gate that is nearly
# shut, and nearly open at the mark.

# %%
NUMBER, WRITE, SHOW = range(3)


def with_weights(net, table):
    """The layer with the columns of the table for W (three), bias and U (two)."""
    W, bias, U = np.split(np.array(table, float), [3, 4], axis=1)
    net.params["weight_ih_l0"], net.params["bias_ih_l0"], net.params["weight_hh_l0"] = W, bias[:, 0], U
    return net


def empty(kind, **options):
    """A layer of two units whose weights are all zero."""
    return kind(3, 2, dtype="float64", backend="reference", seed=None, **options)


lstm = with_weights(empty(minilstm.LSTM), [
    # number, write, show, bias, h_prev of unit 0 and 1
    [0,  8, 0, -4,  0, 0],          # i of unit 0: opens at write
    [0,  0, 0,  0,  0, 0],          # i of unit 1: always a half
    [0, -8, 0,  4,  0, 0],          # f of unit 0: shuts at write
    [0,  0, 0,  0,  0, 0],          # f of unit 1: always a half
    [1,  0, 0,  0,  0, 0],          # g of unit 0: the number
    [1,  0, 0,  0, -1, 0],          # g of unit 1: the number minus what unit 0 showed
    [0,  0, 8, -4,  0, 0],          # o of unit 0: opens at show
    [0,  0, 0,  4,  0, 0],          # o of unit 1: always open
])

# %% [markdown]
# ## 2. Forward
#
# One step, T = 1: the number 0.5 arrives with the mark *write*.  The state before it is given: unit 0 holds 0.8 and has
# just been shown.  `minilstm.trace` runs the layer and notes every number together with the line of code that made it
# (the code is `minilstm/cells/lstm.py`).  The first column of numbers is unit 0, the second unit 1; x has three.

# %%
x = np.array([[[0.5, 1.0, 0.0]]])                       # (B,T,D)
h0 = np.array([[[[0.65, -0.3]]]])                       # (layers, directions, B, H)
c0 = np.array([[[[0.8, -0.5]]]])
dh_n = np.array([[[[1.0, 1.0]]]])                       # for the backward pass, part 3
dc_n = np.array([[[[0.5, 0.5]]]])

table = minilstm.trace(lstm, x, h0=h0, c0=c0, dh_n=dh_n, dc_n=dc_n)
forward_part, backward_part = str(table).split("\n\n")
print(forward_part)

# %% [markdown]
# Read it from the top.  The *pre-activations* a are sums of weights times x and h_prev: for unit 0, a_i = -4 + 8 * 1.
# Then the gates.
#
# * Unit 0 has i = 0.98 and f = 0.02, so its new memory is nearly all candidate g, and hardly anything of 0.8.  It
#   forgets because f is near **0**: the forget gate is badly named, it says how much is *kept*.
# * Unit 0 has o = 0.02: it holds 0.47 and shows 0.008.  c is what a unit knows, h is what all others get to see.
# * In unit 1 all is mixed half and half.  Its g is negative although the number is positive, since h_prev of unit 0 is
#   larger than the number.  This is the only way in which one unit hears of another: through h_prev and U.
# * No gate is 0 or 1.  A sigmoid comes near to them and never gets there: 1.8% of 0.8 stay.
#
# Three of the lines, checked in plain Python:


# %%
def sigmoid(a):
    return 1 / (1 + math.exp(-a))


now = table.steps[0].values()
c_by_hand = sigmoid(-4) * 0.8 + sigmoid(4) * math.tanh(0.5)
print("\nunit 0 by hand")
print(f"  i = sigmoid(-4 + 8 * 1)                              {sigmoid(-4 + 8 * 1):.4f}")
print(f"  c = sigmoid(-4) * 0.8 + sigmoid(4) * tanh(0.5)       {c_by_hand:.4f}")
print(f"  h = sigmoid(-4) * tanh(c)                            {sigmoid(-4) * math.tanh(c_by_hand):.4f}")

# %% [markdown]
# ## 3. Backward
#
# A gradient dX says by how much the loss L grows, per unit of X, when X is moved a little.  What later steps and the
# loss say about the state after this step, dh and dc, is given to the backward pass.  We take 1 and 0.5 for both units,
# as if the loss were L = h[0] + h[1] + 0.5 * (c[0] + c[1]).  Both units are told the same, so whatever differs below
# comes from their gates.
#
# The comment behind each line is the forward line that it reverses.

# %%
print("\n" + backward_part)

# %% [markdown]
# Again from the top.
#
# * **do**.  h = o * tanh(c) is a product.  The derivative of a product with respect to one factor is the other, so the
#   gradient of o is dh times tanh(c): dh is 1, and do is tanh_c.
# * **dc_total** has two contributions, since c has two uses.  The next step reads it: that is dc, 0.5, given.  And
#   this step shows it: h = o * tanh(c) adds dh * o * (1 - tanh(c)**2).  In unit 1 the second is the larger one.  In
#   unit 0 the output gate is shut, and next to nothing is added: what is not shown is not to blame for h.
# * **df needs c_prev**.  In c = f * c_prev + i * g, f is multiplied by c_prev.  How much keeping matters depends on
#   what there was to keep; had c_prev been 0, df would be 0.  In unit 1 c_prev is negative, so is df: a little more
#   kept would lower c, and with it L.
# * **dc_prev** is dc_total * f.  Unit 0 has dropped its old memory, and so the gradient of it is dropped, 0.02 of it
#   left; unit 1 hands half of it back.
# * **di, dg**: likewise the other factor, g and i.
# * **da_i ... da_o** go through sigmoid or tanh: times s * (1 - s), or 1 - t * t.  See below.
# * **dx and dh_prev** are da times W and da times U.  dx is a sum over all gates of all units.  dh_prev of unit 0 is
#   -da_g of unit 1, since there stands the one weight in U that is not 0.  Nobody hears unit 1: its dh_prev is 0.

# %%
dc_by_hand = 0.5 + 1 * sigmoid(4) * (1 - math.tanh(now["c"][1]) ** 2)
print("\nunit 1 by hand")
print(f"  dc_total = 0.5 + 1 * sigmoid(4) * (1 - tanh(c)**2)   {dc_by_hand:.4f}")
print(f"  da_f = dc_total * -0.5 * f * (1 - f)                 {dc_by_hand * -0.5 * 0.5 * (1 - 0.5):.4f}")

# %% [markdown]
# ### Is it true?
#
# A gradient is a promise: move one number a little, and L moves by that much times its gradient.  A bias is added to
# its pre-activation, so its gradient is da itself.  We move the two biases of the forget gate, one at a time:


# %%
def loss():
    _, h_n, c_n = lstm.forward(x, h0=h0, c0=c0)[0]
    return (dh_n * h_n).sum() + (dc_n * c_n).sum()


bias, before = lstm.params["bias_ih_l0"], loss()
print(f"\nL = {before:.12f};  then with one bias of f moved by 1e-6:")
for unit in range(2):
    lstm.params["bias_ih_l0"] = bias + 1e-6 * (np.arange(8) == 2 + unit)            # row 2 is f of unit 0
    print(f"  unit {unit}: L = {loss():.12f}, change / 1e-6 = {(loss() - before) / 1e-6:+.6f}, "
          f"da_f = {now['da_f'][unit]:+.6f}")
lstm.params["bias_ih_l0"] = bias

# %% [markdown]
# The same for every weight, every input and the state, in one call; here the loss is a random sum of all outputs:

# %%
print()
print(minilstm.check_gradients(lstm, x=x, h0=h0, c0=c0))

# %% [markdown]
# And the weights?  The gradient of the row of W that makes a_f is da_f times x; of U, da_f times h_prev:

# %%
_, cache = lstm.forward(x, h0=h0, c0=c0)
lstm.backward(cache, dh_n=dh_n, dc_n=dc_n)              # adds to lstm.grads, which are zero until now
print("\ngradients for f of unit 1")
for name, factor in {"bias_ih_l0": 1, "weight_ih_l0": x[0, 0], "weight_hh_l0": h0[0, 0, 0]}.items():
    print(f"  {name:13s} {str(lstm.grads[name][3].round(4)):24s}  da_f * {str(factor):14s}  "
          f"{(now['da_f'][1] * factor).round(4) + 0.0}")

# %% [markdown]
# ### A gate that is shut or open hardly learns
#
# df of unit 0 is more than half as large as that of unit 1, but its da_f is twenty-four times smaller.  Between df and
# da_f stands the derivative of sigmoid, s * (1 - s):

# %%
places = (-8, -4, -2, 0, 2, 4, 8)
print("\n  a              " + "".join(f"{a:8d}" for a in places))
print("  s = sigmoid(a) " + "".join(f"{sigmoid(a):8.4f}" for a in places))
print("  s * (1 - s)    " + "".join(f"{sigmoid(a) * (1 - sigmoid(a)):8.4f}" for a in places))

# %% [markdown]
# It is at most 1/4, for a gate that is undecided, and at 4 or -4 fourteen times less.  Such a gate is *saturated*: it
# does its work, and hardly hears that it should do it otherwise.
#
# Two things are easily confused here.  What arrives **at** the gate f, da_f, is small whether f is shut or open.  What
# goes **past** it to the step before, dc_prev = dc_total * f, is small only if f is shut.  A forget gate that is open
# and saturated keeps the memory and its gradient, and stays as it is.  So such gates are
# useful, and they are a poor place to *begin* from without a reason.  (For the forget gate tutorial 3 has a reason.)
#
# ## 4. A masked step
#
# Sequences of a batch differ in length, and the short ones are filled up with steps that are none.  A mask says which
# steps are real.  On a masked step nothing is computed: the state is handed on, bit for bit, and so is its gradient on
# the way back.  Here two real steps, and between them one that holds rubbish:

# %%
filled = np.array([[[0.5, 1.0, 0.0], [99.0, 1.0, 1.0], [0.2, 0.0, 1.0]]])
mask = np.array([[True, False, True]])
steps = minilstm.trace(lstm, filled, mask, h0=h0, c0=c0, dh_n=dh_n, dc_n=dc_n).steps
first, masked, last = (step.values() for step in steps)
print(f"\nthe mask in the trace: {[step.real for step in steps]}; numbers at step 1: {len(masked)}")
for text, value in {"c after step 0": first["c"], "c_prev of step 2": last["c_prev"],
                    "dc_prev of step 2": last["dc_prev"], "dc of step 0": first["dc"]}.items():
    print(f"  {text:18s} {value[0]:+.16f}  {value[1]:+.16f}")
print("  the same bits:",
      all(np.array_equal(first[state], last[state + "_prev"]) for state in ("h", "c", "dh", "dc")))

filled[0, 1] = 0
unmasked = minilstm.trace(lstm, filled, h0=h0, c0=c0).series("c")[1]
print(f"a step of zeros that is not masked: c = {unmasked[0]:+.4f}  {unmasked[1]:+.4f}")

# %% [markdown]
# The last line shows that zeros are no substitute for a mask.  A step whose input is 0 is a step, and here it takes
# about half of the memory of unit 1.
#
# ## 5. The GRU beside it
#
# A GRU has one state, h, and two gates (`minilstm/cells/gru.py`):
#
#     r = sigmoid(...)                    reset gate: how much the candidate hears of the old state
#     z = sigmoid(...)                    update gate: how much of the old state is kept
#     n = tanh(a_xn + r * a_hn)           candidate; a_xn comes from x, a_hn from h_prev
#     h = (1 - z) * n + z * h_prev
#
# Beside the LSTM's c = f * c_prev + i * g, **z does the work of f**, and **1 - z that of i**; n is g, h is c.  And
# there is no o: what a GRU remembers is what it shows.  (Some papers swap z and 1 - z.)
#
# We set weights for the same two units.  In the LSTM we had chosen a_i = -a_f, and sigmoid(-a) = 1 - sigmoid(a), so z
# can do exactly what i and f did.  The reset gate of unit 0 is nearly shut, that of unit 1 nearly open.  As state
# before the step the GRU gets what the LSTM had as c_prev.

# %%
WEIGHTS = [
    # number, write, show, bias, h_prev of unit 0 and 1
    [0,  0, 0, -4,  0, 0],          # r of unit 0: always shut
    [0,  0, 0,  4,  0, 0],          # r of unit 1: always open
    [0, -8, 0,  4,  0, 0],          # z of unit 0: shuts at write, as f did
    [0,  0, 0,  0,  0, 0],          # z of unit 1: always a half
    [1,  0, 0,  0,  0, 0],          # n of unit 0: the number
    [1,  0, 0,  0, -1, 0],          # n of unit 1: the number minus h of unit 0
]
gru = with_weights(empty(minilstm.GRU), WEIGHTS)
table = minilstm.trace(gru, x, h0=c0, dh_n=dh_n)
print("\n" + str(table))

# %% [markdown]
# Unit 0 does what it did in the LSTM: z = 0.018 is the f of before, and h = 0.4682 is its c.  Unit 1 is another one,
# since what it hears of unit 0 is now nearly all of the 0.8, not the 0.65 that an output gate let through.
#
# Backward, dz = dh * (h_prev - n): to keep more matters as far as the old and the new differ.  There is only dh, no dc:
# one state less, one gradient less.  h_prev has two uses, in h itself with the factor z, and through U.  So dh_prev is
# a sum: dh_direct = dh * z, and dh_through_a.
#
# ### Where the reset stands
#
# The first GRU (Cho et al. 2014) had the reset gate **before** the product with U.  There the gate of the unit that
# *speaks* decides what all others hear of it.  In cuDNN, PyTorch, and here by default, it stands **after** the product,
# and the gate of the unit that *listens* decides.  The same weights, both ways; unit 1 listens to unit 0:

# %%
print("\nunit 1, with r = (0.018, 0.982)")
for text, reset_after in (("after: ", True), ("before:", False)):
    net = with_weights(empty(minilstm.GRU, reset_after=reset_after), WEIGHTS)
    step = minilstm.trace(net, x, h0=c0).steps[0].values()
    r = step["r"]
    heard = f"0.5 + r[1] * (-1 * 0.8) = {0.5 - r[1] * 0.8:+.4f}" if reset_after else \
            f"0.5 - 1 * (r[0] * 0.8)  = {0.5 - r[0] * 0.8:+.4f}"
    print(f"  {text} n = tanh({heard}) = {step['n'][1]:+.4f},  h = {step['h'][1]:+.4f}")

# %% [markdown]
# After the product unit 1 listens, and what it hears turns its candidate negative.  Before the product unit 0 does not
# speak.  So weights trained for one form are in general wrong for the other, and a model file must say which it was.
#
# ## 6. Gates at work
#
# Now fourteen steps, each with a number, two with *write* and three with *show*.  First our own weights.


# %%
def sequences(n, T, seed):
    """n random sequences: x (n,T,3), and what to say (n,T,1): at *show* the number last written, at other steps 0."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, T, 3))
    x[:, :, NUMBER] = rng.uniform(-1, 1, (n, T))
    write = rng.random((n, T)) < 0.2
    write[:, 0] = True
    show = ~write & (rng.random((n, T)) < 0.25)
    x[:, :, WRITE], x[:, :, SHOW] = write, show
    written = np.maximum.accumulate(np.where(write, np.arange(T), 0), axis=1)       # the step of the last write
    target = np.where(show, np.take_along_axis(x[:, :, NUMBER], written, axis=1), 0)
    return x, target[:, :, None]


example = np.zeros((1, 14, 3))
example[0, :, NUMBER] = [0.3, 0.9, -0.7, 0.8, -0.4, -0.2, 0.7, -0.8, 0.1, -0.9, 0.5, 0.1, -0.3, 0.6]
example[0, [1, 7], WRITE] = 1
example[0, [4, 10, 13], SHOW] = 1


def series_of(net, x, names):
    """Of unit 0: name -> one number a step."""
    traced = minilstm.trace(net, x)
    return {name: traced.series(name)[:, 0] for name in names}


by_hand, by_hand_gru = series_of(lstm, example, "ifgoch"), series_of(gru, example, "zh")
print("\nunit 0               LSTM                                   GRU")
print("number mark           i      f      o        c      h         z      h")
for t, (number, write, show) in enumerate(example[0]):
    print(f"{number:6.1f} {'write' if write else 'show' if show else '':6s}"
          + "".join(f"{by_hand[name][t]:7.3f}" for name in "ifo")
          + f"{by_hand['c'][t]:9.3f}{by_hand['h'][t]:7.3f}{by_hand_gru['z'][t]:10.3f}{by_hand_gru['h'][t]:7.3f}")
print(f"largest difference of the GRU's h from the LSTM's c: {np.abs(by_hand_gru['h'] - by_hand['c']).max():.0e}")

# %% [markdown]
# The 0.9 comes in as 0.704, where tanh(0.9) is 0.716.  While it is held it fades, to 0.644 after five steps, since
# 0.982 is not 1; and other numbers leak in, since 0.018 is not 0.  h stays at 0.01 or so until *show*.  The GRU's h is
# the LSTM's c, up to rounding: as a memory it is as good.  But it is seen all the time.
#
# ### What training finds
#
# Would a network come to such gates by itself?  It gets random sequences, and must say at each step: at *show* the
# number last written, else 0.  A linear layer turns h into what is said.  The error is the last epoch's mean
# squared error, as a part of that of saying always 0.

# %%
SEEDS = range(4)
x, target = sequences(512, 16, seed=0)
shown = x[:, :, SHOW] == 1


def train(kind, hidden_size, seed, loss_mask=None):
    """The model, and its error."""
    net = kind(3, hidden_size, dtype="float64", backend="reference", seed=seed)
    model = minilstm.Sequential(net, minilstm.Linear(hidden_size, 1, dtype="float64", backend="reference", seed=seed))
    history = minilstm.fit(model, x, target, loss_mask=loss_mask, epochs=40, batch_size=64, seed=seed,
                           optimizer=minilstm.Adam(0.05), progress=False)
    return model, history[-1] / np.mean(target[loss_mask] ** 2 if loss_mask is not None else target ** 2)


print(f"\n                               weights   error, for {len(SEEDS)} seeds")
trained = {}
for text, kind, hidden_size, loss_mask in (
        ("LSTM, 1 unit", minilstm.LSTM, 1, None), ("LSTM, 4 units", minilstm.LSTM, 4, None),
        ("GRU, 1 unit", minilstm.GRU, 1, None), ("GRU, 4 units", minilstm.GRU, 4, None),
        ("GRU, 1 unit, judged at show", minilstm.GRU, 1, shown)):
    trained[text] = sorted((train(kind, hidden_size, seed, loss_mask) for seed in SEEDS), key=lambda pair: pair[1])
    size = sum(p.size for _, layer in trained[text][0][0].walk() for p in layer.params.values())
    print(f"  {text:28s} {size:7d}   " + "".join(f"{error:7.3f}" for _, error in trained[text]), flush=True)

# %% [markdown]
# Two of the four LSTMs with one unit find it, the others get stuck with a third of the error; with four units all find
# it.  A GRU with one unit cannot.  What it says is a weight times h plus a bias.  To say 0, h must have one certain
# value, and then the number is gone; the LSTM can say 0 with h, and hold the number in c.  With four units, the GRU has
# room for both.  In the last line only the steps with *show* count, so that nothing need be hidden: now one unit is
# enough, from most starts.
#
# What are the gates that it found?  In the LSTM of one unit we can simply read the weights:

# %%
net, linear = trained["LSTM, 1 unit"][0][0].layers


def rows_of_unit_0(net):
    """One row for each of i, f, g, o: weights of the number and the marks, bias, weight of its own h_prev."""
    p = net.params
    return np.column_stack([p["weight_ih_l0"], p["bias_ih_l0"] + p["bias_hh_l0"],
                            p["weight_hh_l0"][:, 0]])[::net.hidden_size]


print("\nthe trained unit, best seed (in brackets: ours)")
print("           number        write         show         bias       h_prev")
for gate, found, ours in zip("ifgo", rows_of_unit_0(net), rows_of_unit_0(lstm)):
    print(f"  a_{gate}" + "".join(f"{w + 0:8.1f} ({v:2.0f})" for w, v in zip(found.round(1), ours)))
print(f"  the linear layer: {linear.params['weight'][0, 0]:.1f} * h")

fresh, _ = sequences(1, 500, seed=1)
steps_at = {"write": fresh[0, :, WRITE] == 1, "show": fresh[0, :, SHOW] == 1}
steps_at["neither"] = ~steps_at["write"] & ~steps_at["show"]
gates_of = {"set by hand": series_of(lstm, fresh, "ifo"), "trained": series_of(net, fresh, "ifo")}
print("\nmean gates, 500 fresh steps")
print("                   set by hand             trained")
print("                   i       f       o       i       f       o")
for mark, steps in steps_at.items():
    means = [gates[name][steps].mean() for gates in gates_of.values() for name in "ifo"]
    print(f"  at {mark:8s} " + "".join(f"{mean:8.4f}" for mean in means))

# %% [markdown]
# Where ours are not 0, the trained weights have the same signs, and most are about as large.  It improved on us, too.
# At *show*, i shuts and f opens further than elsewhere: the memory is better guarded while it is read.  The weight of g
# on the number is smaller, so that tanh bends it less, and the linear layer makes up for it; for an open gate 0.75 will
# do.  "Open" and "shut" are our words: a gate is a number between 0 and 1, and training needs the slope in between.
#
# That a unit comes out as clean as this is owed to the task, which was made for gates, and to there being only one.
# With many units the work is shared, and a single gate need not mean anything by itself.
#
# ## The picture
#
# Above, unit 0 in the step of parts 2 and 3: numbers on their way forward in black, their gradients below them in
# orange; and to the right, the factor between df and da_f.  Below, the fourteen steps, those with a mark in grey.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK = "#009E73", "#CC79A7"
figure = Figure(figsize=(12, 10.5), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
above, below = figure.subfigures(2, 1, height_ratios=(1.05, 1))
scheme, slope = above.subplots(1, 2, width_ratios=(2.9, 1))
panels = below.subplots(2, 3, sharex=True, sharey="row", height_ratios=(1.25, 1))

v = {name: value[0] for name, value in now.items()}                             # unit 0


def wire(*points):
    """A line through the points, with an arrow at its end."""
    scheme.plot(*zip(*points), color=BLACK, lw=1.3, zorder=1)
    scheme.annotate("", points[-1], points[-2], arrowprops={"arrowstyle": "-|>", "color": BLACK, "shrinkB": 0})


def numbers(x, y, forward, backward, align="left"):
    """Above the height y the number that goes forward, below it the gradient that comes back."""
    scheme.text(x, y + 0.07, forward, ha=align, va="bottom", color=BLACK)
    scheme.text(x, y - 0.07, backward, ha=align, va="top", color=ORANGE)


def node(x, y, text, color=BLACK):
    scheme.text(x, y, text, ha="center", va="center", color="white", weight="bold", zorder=3,
                bbox={"boxstyle": "round,pad=0.4", "fc": color, "ec": "none"})


COLUMN = {"f": 2.6, "i": 4.9, "+": 6.1, "g": 7.3, "o": 9.4, "h": 11.2, "end": 13.4}
INPUT, GATE, SHOWN, PRODUCT, TANH, MEMORY = 0.6, 2.4, 3.8, 4.4, 5.3, 6.6        # heights
wire((0, MEMORY), (COLUMN["f"] - 0.25, MEMORY))
wire((COLUMN["f"], MEMORY), (COLUMN["+"] - 0.25, MEMORY))
wire((COLUMN["+"], MEMORY), (COLUMN["end"], MEMORY))
wire((COLUMN["f"], GATE), (COLUMN["f"], MEMORY - 0.3))
wire((COLUMN["i"], GATE), (COLUMN["i"], PRODUCT), (COLUMN["+"] - 0.25, PRODUCT))
wire((COLUMN["g"], GATE), (COLUMN["g"], PRODUCT), (COLUMN["+"] + 0.25, PRODUCT))
wire((COLUMN["+"], PRODUCT), (COLUMN["+"], MEMORY - 0.3))
wire((COLUMN["h"], MEMORY), (COLUMN["h"], TANH + 0.3))
wire((COLUMN["h"], TANH), (COLUMN["h"], SHOWN + 0.3))
wire((COLUMN["o"], GATE), (COLUMN["o"], SHOWN), (COLUMN["h"] - 0.25, SHOWN))
wire((COLUMN["h"], SHOWN), (COLUMN["end"], SHOWN))
scheme.plot([0, COLUMN["o"]], [INPUT, INPUT], color=BLACK, lw=1.3)
scheme.plot(COLUMN["h"], MEMORY, "o", color=BLACK, ms=5)
for gate, text, color in (("f", "keep", BLUE), ("i", "write", GREEN), ("g", "what", BLACK), ("o", "show", PINK)):
    wire((COLUMN[gate], INPUT), (COLUMN[gate], GATE - 0.34))
    node(COLUMN[gate], GATE, f"{gate}  {text}", color)
    numbers(COLUMN[gate] + 0.12, 1.35, f"a_{gate} = {v['a_' + gate]:.3f}", f"da_{gate} = {v['da_' + gate]:.3f}")
for place, height, text in (("f", MEMORY, "×"), ("+", MEMORY, "+"), ("+", PRODUCT, "×"), ("h", SHOWN, "×")):
    node(COLUMN[place], height, text)
node(COLUMN["h"], TANH, "tanh")

dc_total = f"dc_total = {v['dc_total']:.3f}"
numbers(0, MEMORY, f"c_prev = {v['c_prev']:.3f}", f"dc_prev = {v['dc_prev']:.3f}")
numbers((COLUMN["f"] + COLUMN["+"]) / 2, MEMORY, f"f * c_prev = {v['f'] * v['c_prev']:.3f}", dc_total, "center")
numbers((COLUMN["+"] + COLUMN["h"]) / 2, MEMORY, f"c = {v['c']:.3f}", dc_total, "center")
numbers(COLUMN["end"], MEMORY, f"c = {v['c']:.3f}", f"dc = {v['dc']:.3f}", "right")
numbers(COLUMN["h"] + 0.12, 6.05, "", f"h adds {v['dc_total'] - v['dc']:.3f}")
numbers(COLUMN["h"] + 0.12, 4.35, f"tanh_c = {v['tanh_c']:.3f}", "")
numbers(COLUMN["f"] + 0.12, 4.4, f"f = {v['f']:.3f}", f"df = {v['df']:.3f}")
numbers(COLUMN["i"] - 0.12, 3.4, f"i = {v['i']:.3f}", f"di = {v['di']:.3f}", "right")
numbers(COLUMN["+"] + 0.12, 5.4, f"i * g = {v['i'] * v['g']:.3f}", dc_total)
numbers(COLUMN["g"] + 0.12, 3.4, f"g = {v['g']:.3f}", f"dg = {v['dg']:.3f}")
numbers(COLUMN["o"] + 0.12, 3.2, f"o = {v['o']:.3f}", f"do = {v['do']:.3f}")
numbers(COLUMN["end"], SHOWN, f"h = {v['h']:.3f}", f"dh = {v['dh']:.3f}", "right")
scheme.text(0, INPUT + 0.1, "x, h_prev", va="bottom", color=BLACK)
scheme.text(COLUMN["end"], 2.3, "forward", ha="right", color=BLACK, weight="bold")
scheme.text(COLUMN["end"], 1.9, "gradients, backward", ha="right", color=ORANGE, weight="bold")
scheme.set(title="One LSTM step at write: the old memory is dropped, the new one is kept, and not yet shown",
           xlim=(-0.1, 13.5), ylim=(0.4, 7.2))
scheme.axis("off")

a = np.linspace(-7, 7, 141)
s = 1 / (1 + np.exp(-a))
slope.plot(a, s * (1 - s), color=GREY, lw=2)
for place, text, align in ((-4, "shut:\nf and o", "right"), (0, "undecided:\ni and f of unit 1", "center"),
                           (4, "open:\ni", "left")):
    height = sigmoid(place) * (1 - sigmoid(place))
    slope.plot(place, height, "o", color=BLACK)
    slope.annotate(text, (place, height), (0, 8), textcoords="offset points", ha=align, color=BLACK)
slope.set(title="A saturated gate hardly learns", xlabel="pre-activation a", ylabel="derivative of sigmoid(a)",
          xlim=(-7, 7), xticks=[-4, 0, 4], ylim=(0, 0.285))
slope.spines[["top", "right"]].set_visible(False)

by_training = series_of(net, example, "ifoch")
at_step = np.arange(example.shape[1])
RIGHT = len(at_step) - 0.2                              # where the names of the tracks begin


def draw(gates, states, title, tracks, memory, h):
    """Above one track for each gate, below the states."""
    for level, (text, color, values) in zip((2.5, 1.25, 0), tracks):
        gates.bar(at_step, values, bottom=level, color=color, width=0.86)
        gates.hlines([level, level + 1], -0.5, RIGHT - 0.3, color=[BLACK, GREY], lw=[0.8, 0.5])
        gates.text(RIGHT, level + 0.5, text, color=color, va="center")
    gates.set_title(title, pad=16)
    states.bar(at_step, h, color=PINK, width=0.86)
    states.plot(at_step, np.tanh(example[0, :, NUMBER]), "o", color=GREY, ms=4, mfc="none")
    states.step(at_step, memory, where="mid", color=BLACK, lw=1.8)
    states.axhline(0, color=BLACK, lw=0.8)
    for mark, text in ((WRITE, "write"), (SHOW, "show")):
        for step in np.flatnonzero(example[0, :, mark]):
            gates.text(step, 3.6, text, ha="center", color=BLACK, fontsize=9)
    for axes in (gates, states):
        axes.spines[["top", "right"]].set_visible(False)
        for step in np.flatnonzero(example[0, :, [WRITE, SHOW]].any(axis=0)):
            axes.axvspan(step - 0.5, step + 0.5, color=GREY, alpha=0.2, lw=0, zorder=0)


for (gates, states), title, found in zip(panels.T[:2], ("LSTM, set by hand", "LSTM, trained"), (by_hand, by_training)):
    tracks = ("f  keep", BLUE, found["f"]), ("i  write", GREEN, found["i"]), ("o  show", PINK, found["o"])
    draw(gates, states, title, tracks, found["c"], found["h"])
    states.text(RIGHT, 0.6, "c  memory", color=BLACK, va="center")
    states.text(RIGHT, 0.35, "h  output", color=PINK, va="center")
    states.text(RIGHT, 0.1, "o  tanh(number)", color=GREY, va="center")
gates, states = panels[:, 2]
keep = by_hand_gru["z"]
draw(gates, states, "GRU, set by hand", (("z  keep", BLUE, keep), ("1 - z  write", GREEN, 1 - keep)),
     by_hand_gru["h"], by_hand_gru["h"])
gates.text(6.5, 0.5, "no output gate", color=GREY, ha="center", va="center")
states.text(RIGHT, 0.6, "h  memory", color=BLACK, va="center")
states.text(RIGHT, 0.35, "h  output", color=PINK, va="center")
panels[0, 0].set(ylabel="gates", yticks=[0, 1, 1.25, 2.25, 2.5, 3.5], yticklabels=[0, 1] * 3, ylim=(-0.05, 3.55))
panels[1, 0].set(ylabel="states", ylim=(-0.8, 0.8), xlim=(-0.6, RIGHT - 0.2), xticks=[0, 5, 10])
for axes in panels[1]:
    axes.set_xlabel("step")

picture = folder / "pictures" / "02_one_step_of_one_cell.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
