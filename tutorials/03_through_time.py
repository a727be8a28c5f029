# %% [markdown]
# # 3. Through time: what becomes of a gradient on a long way back
#
# One step of a cell, forward and backward, is a dozen lines (`minilstm/cells/lstm.py`).  A recurrent network takes that
# step T times, and training takes it T times back.  Here we write this loop and then measure what happens on the way:
#
# 1. the loop over time, both ways;
# 2. truncation: the loop back cut into chunks, and what that loses;
# 3. simple recurrent nets: gradients that vanish, and gradients that explode;
# 4. the LSTM: through which gate a gradient travels, and what the forget gate's bias has to do with it;
# 5. whether it matters: training to remember one number;
# 6. clipping, for gradients that explode.
#
# Run it:  `python tutorials/03_through_time.py`.  It takes less than a minute, compiling the kernels on the first use
# included.  The picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm
from minilstm.cells import GRU_CELL, LSTM_CELL, RNN_TANH_CELL, Weights, lstm

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")


# %% [markdown]
# ## 1. The loop
#
#     B  batch      T  time steps      D  input features      H  hidden units
#     x (B,T,D)     y (B,T,H): h after each step              dX: gradient of the loss with respect to X, shaped as X
#
# A cell comes with two functions.  `step` leads from the state before it to the state after it, and saves what its
# reverse will need.  `step_backward` leads from the gradient of the state after it to that of the state before it.  The
# state of an LSTM is (h, c); an RNN and a GRU have h alone.
#
# Forward, the state is handed on from step to step.  Backward runs through the same steps in the opposite order, and
# hands on the gradient of the state.  Two things happen there that a single step does not have:
#
# * h is used twice, as the output y of its step and by the next step.  So its gradient is a **sum** of two.
# * All steps use the same weights.  So the gradient of the weights is a **sum over the steps**.

# %%
def weights_of(net):
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    nothing = np.zeros((0, net.hidden_size))                            # for what only other cells have
    return Weights(*(net.params[name] for name in names), own=nothing, W_hr=nothing)


def forward(cell, weights, x):
    """x (B,T,D), from a state of zeros -> y (B,T,H), the last state, and what each step saved."""
    B, T, _ = x.shape
    state = [np.zeros((B, weights.U.shape[1])) for _ in cell.states]
    y, saved = [], []
    for t in range(T):
        state, step = cell.step(weights, x[:, t], *state)
        y.append(state[0])
        saved.append(step)
    return np.stack(y, axis=1), state, saved


def backward(cell, weights, saved, dy):
    """dy (B,T,H) -> dx (B,T,D), Weights of gradients, and the gradients of the state that were carried back:
    ``carried[n]`` is that of the state n steps before the end."""
    T = len(saved)
    dx, d_weights = [None] * T, [np.zeros_like(w) for w in weights.parameters()]
    carried = [[np.zeros_like(dy[:, 0]) for _ in cell.states]]
    for t in reversed(range(T)):
        dh, *dc = carried[-1]
        dx[t], d_state, d_step = cell.step_backward(weights, saved[t], dh + dy[:, t], *dc)      # h is used twice
        carried.append(d_state)
        for total, d in zip(d_weights, d_step.parameters()):
            total += d                                                                          # the same weights
    return np.stack(dx, axis=1), Weights(*d_weights), carried


# %% [markdown]
# Is that all?  Beside the library, which runs the same loop compiled:

# %%
B, T, D, H = 32, 60, 8, 32
rng = np.random.default_rng(3)
x = rng.standard_normal((B, T, D))
dy = rng.standard_normal((B, T, H))             # stands for a loss that has something to say about every step


def lstm_with(forget_bias, input_size=D, hidden_size=H, seed=0):
    """The library's initial weights, but for the bias of the forget gate; the blocks stand in the order i, f, g, o."""
    net = minilstm.LSTM(input_size, hidden_size, dtype="float64", seed=seed)
    net.params["bias_ih_l0"] = np.repeat([0.0, forget_bias, 0.0, 0.0], hidden_size)
    return net


net = lstm_with(forget_bias=1)
weights = weights_of(net)
y, (h_n, c_n), saved = forward(LSTM_CELL, weights, x)
dx, d_weights, carried = backward(LSTM_CELL, weights, saved, dy)

out, cache = net.forward(x)
back = net.backward(cache, dy)
pairs = {"y": (y, out.y), "h_n": (h_n, out.h_n[0, 0]), "c_n": (c_n, out.c_n[0, 0]), "dx": (dx, back.dx),
         "dh0": (carried[T][0], back.dh0[0, 0]), "dc0": (carried[T][1], back.dc0[0, 0]),
         "dW": (d_weights.W, net.grads["weight_ih_l0"]), "dU": (d_weights.U, net.grads["weight_hh_l0"]),
         "db": (d_weights.b_ih, net.grads["bias_ih_l0"])}
print("our loop and the library's, the largest difference relative to the largest number")
print("  " + "".join(f"{name:>8s}" for name in pairs))
print("  " + "".join(f"{np.abs(ours - theirs).max() / np.abs(theirs).max():8.0e}" for ours, theirs in pairs.values()))


# %% [markdown]
# The differences are rounding: float64 has about sixteen digits.
#
# ## 2. Truncation
#
# The loop back needs what every step saved, and for a very long sequence that may be too much.  The usual way out is
# to cut the sequence into chunks of k steps.  The state is carried from chunk to chunk, so the forward pass is what it
# was.  But the way back ends at the beginning of each chunk: no gradient is handed on to the chunk before.
#
# What does that lose?  The full gradient is a sum over pairs of steps: how the loss at step t depends on the weights as
# step s used them, s up to t.  Truncation leaves out each pair that has a cut between s and t, and nothing else.

# %%
def gradient(net, dy, k):
    """The gradient of all weights as one vector, with the way back cut every k steps, and dx."""
    net.zero_grads()
    h = c = None
    dx = []
    for start in range(0, T, k):
        (_, h, c), cache = net.forward(x[:, start:start + k], h0=h, c0=c)
        dx.append(net.backward(cache, dy[:, start:start + k]).dx)       # adds to net.grads
    return np.concatenate([g.ravel() for g in net.grads.values()]), np.concatenate(dx, axis=1)


BIASES = (0, 1, 3)
CHUNKS = (1, 2, 5, 10, 20, 30, 60)
truncation = {}
print("\nthe gradient in chunks of k steps beside the full one, T = 60: cosine of the angle (ratio of the lengths)")
print("  forget bias" + "".join(f"{f'k={k}':>13s}" for k in CHUNKS))
for bias in BIASES:
    net = lstm_with(bias)
    full, _ = gradient(net, dy, T)
    cut = [gradient(net, dy, k)[0] for k in CHUNKS]
    truncation[bias] = [g @ full / np.linalg.norm(g) / np.linalg.norm(full) for g in cut]
    ratios = [np.linalg.norm(g) / np.linalg.norm(full) for g in cut]
    print(f"  {bias:11d}" + "".join(f"{c:7.2f} ({r:.2f})" for c, r in zip(truncation[bias], ratios)))

dy_last = np.zeros_like(dy)
dy_last[:, -1] = dy[:, -1]
print(f"forget bias {bias}, a loss at the last step only: the length of dx at the first step, " + ", ".join(
    f"{np.linalg.norm(gradient(net, dy_last, k)[1][:, 0]):.2g} with k={k}" for k in (30, T)))

# %% [markdown]
# With k = T nothing is cut and the cosine is 1.  Below that, the answer depends on the network.  With forget bias 0 it
# hardly remembers: the far pairs are small, and chunks of twenty steps are as good as the whole.  With forget bias 3
# it remembers long, most of the gradient lies in far pairs, and even two halves point somewhere else.  The truncated
# gradient is too short and it is **biased**: more data does not bring back what is always left out.  The last line is
# the extreme case.  If only the last step has a loss, then no step before the last chunk gets a gradient, and dx at the
# first step is not small but exactly 0.
#
# So k must be as long as the dependencies that one wants learned.  (The network may still *use* an older state, since
# it is carried; it just gets no gradient for how it made it.)
#
# ## 3. Vanish or explode: the simple recurrent net
#
# From here on the loss L sits at the last step alone, and we follow its gradient back: how long is dL/dh, n steps
# before the end?  It is what the loop carries there.  At the end we give it the length 1.
#
# In the simple net, h = tanh(x @ W.T + h_prev @ U.T + b), each step back multiplies by 1 - h**2, at most 1, and by U.
# We take U = r times an orthogonal matrix: it turns the gradient and multiplies its length by exactly r.  All its
# eigenvalues have absolute value r, the spectral radius.

# %%
DISTANCES = (1, 5, 10, 20, 40, 60)
dy_last[:, -1] /= np.linalg.norm(dy_last[:, -1])


def decay(cell, net, x):
    """The lengths of the gradients of the state, 0 ... T steps before the end: (T+1, number of states)."""
    weights = weights_of(net)
    _, _, saved = forward(cell, weights, x)
    _, _, carried = backward(cell, weights, saved, dy_last)
    return np.array([[np.linalg.norm(d) for d in d_state] for d_state in carried])


def header(text):
    print(f"\n{text:30s}" + "".join(f"{f'n={n}':>10s}" for n in DISTANCES))


def row(name, lengths):
    print(f"  {name:28s}" + "".join(f"{lengths[n]:10.1e}" for n in DISTANCES))


def rnn_with(radius, input_size=D, seed=0):
    net = minilstm.RNN(input_size, H, dtype="float64", backend="reference", seed=seed)
    net.params["weight_hh_l0"] = radius * net.params["weight_hh_l0"]
    return net


header("dL/dh, n steps before the end")
rnn = {radius: decay(RNN_TANH_CELL, rnn_with(radius), x)[:, 0] for radius in (0.9, 1.5, 2.0)}
silent = decay(RNN_TANH_CELL, rnn_with(1.5), np.zeros_like(x))[:, 0]
for radius, lengths in rnn.items():
    row(f"RNN, radius {radius}", lengths)
row("RNN, radius 1.5, x = 0", silent)

# %% [markdown]
# With radius 0.9 the gradient **must** vanish: no step can lengthen it, and each takes at least a tenth.  With radius 2
# it explodes.  But one often reads that a radius above 1 is enough for that, and it is not.  With 1.5 the gradient
# explodes in a network that hears nothing and stays at h = 0, where tanh does not squash: 1.5**n.  With inputs, the
# same network is driven into the flat parts of tanh, these take more than U adds, and the gradient fades slowly.
#
# ## 4. The LSTM, gate by gate
#
# An LSTM has two states, and two kinds of path back from (h, c) to (h_prev, c_prev):
#
#     c = f * c_prev + i * g              the direct path: c_prev -> c, with nothing on it but the factor f
#     a = x @ W.T + h_prev @ U.T + b      the paths through the gates: h_prev -> a_i ... a_o -> i, f, g, o -> c and h
#
# The direct path was called the *constant error carousel* by Hochreiter and Schmidhuber (1997), whose LSTM had no
# forget gate, that is f = 1.  They even trained with this path alone: a gradient that arrived at a gate was not sent
# further back.  Gers, Schmidhuber and Cummins (2000) put the forget gate in, and with it a factor that can be small:
# along the direct path, n steps multiply the gradient by the product of n values of f, for each unit its own.
#
# First the whole gradient, and beside it what comes along the direct path alone, with three values for the bias of the
# forget gate.  At the start all pre-activations are around 0 but for this bias, so that f is around sigmoid(bias).  The
# library starts from 1.  Gers et al. started from positive values, and Jozefowicz, Zaremba and Sutskever (2015) found
# in a large comparison that a bias of 1 closes the gap between the LSTM and the GRU.
#
# dL/dh and dL/dc are what the loop carries: h and c of one moment count as two separate inputs of all that follows.

# %%
GATES = "ifgo"


def through(open_gates, weights, saved, dh):
    """dL/dc, 0 ... T steps before the end, along the direct path and the paths through the open gates."""
    blocks = dict(zip(GATES, np.split(weights.U, 4)))
    dc = np.zeros_like(dh)
    carried = [dc]
    for s in reversed(saved):
        da_i, da_f, da_g, da_o, dc = lstm.backward(s.i, s.f, s.g, s.o, s.c_prev, s.c, dh, dc)
        da = {"i": da_i, "f": da_f, "g": da_g, "o": da_o}
        dh = sum((da[gate] @ blocks[gate] for gate in open_gates), np.zeros_like(dh))       # all four: da @ U
        carried.append(dc)
    return np.array(carried)


def length(d):
    """(..., B, H) -> the length over the last two axes."""
    return np.sqrt(np.square(d).sum(axis=(-2, -1)))


header("n steps before the end")
memory = {}
for bias in BIASES:
    net = lstm_with(bias)
    weights = weights_of(net)
    _, _, saved = forward(LSTM_CELL, weights, x)
    lengths = decay(LSTM_CELL, net, x)
    direct = length(through("", weights, saved, dy_last[:, -1]))
    memory[bias] = lengths[:, 1], direct
    print(f"  forget bias {bias}, mean f {np.mean([s.f for s in saved]):.2f}")
    row("  dL/dh", lengths[:, 0])
    row("  dL/dc", lengths[:, 1])
    row("  dL/dc, direct path alone", direct)
gru = decay(GRU_CELL, minilstm.GRU(D, H, dtype="float64", backend="reference"), x)[:, 0]
row("GRU, dL/dh", gru)

# %% [markdown]
# "The gradients of an LSTM do not vanish" is not what we see.  With bias 0 they vanish like those of the simple net
# with radius 0.9, with bias 1 more slowly.  Those of the GRU vanish nearly as fast as with bias 0: its direct path
# h_prev -> h has the factor z, at the start around one half.  Only with bias 3 is f near 1, and the direct path loses
# little per step.
#
# But the direct path alone is not the whole gradient either.  Far back it is a small part of it, even with bias 1; and
# with bias 3 the whole grows at last, while the direct path fades: an LSTM can explode too.  The rest must have come
# through the gates.  Through which?
#
# A gradient is a sum over all paths from the end back to c.  At each step a path either stays on c, or goes through
# h_prev and one of the four gates.  `through` above lets it pass some gates only: of da it keeps the open blocks.  This
# has a plain and exact meaning: it is the gradient of a network whose closed gates hear a **recording** of h_prev, made
# in the real run, so that no change of h reaches them.  With all gates closed, what is left is the product of f.  What
# "i open" has more than "all closed" are the paths that go through the input gate, once or more often, and through no
# other gate.  So the whole gradient is exactly
#
#     the direct path + through i only + f only + g only + o only + the paths that use several of the gates
#
# as arrays.  Lengths do not add up, since the parts point in different directions.  (At n = 1 there is no gate yet: in
# the last step, c_prev has no way but f.)

# %%
NAMES = {"direct": "direct path", "i": "through i only", "f": "through f only", "g": "through g only",
         "o": "through o only", "several": "through several gates", "all": "all together"}


def parts(weights, saved, dh):
    """dL/dc, 0 ... T steps before the end, as a sum: dict name -> (T+1,B,H)."""
    direct = through("", weights, saved, dh)
    terms = {"direct": direct} | {gate: through(gate, weights, saved, dh) - direct for gate in GATES}
    whole = through(GATES, weights, saved, dh)
    return terms | {"several": whole - sum(terms.values()), "all": whole}


def nudged(open_gates, weights, saved, dh, n, v):
    """The change of (dh * last h).sum() when c, n steps before the end, moves along v, and the closed gates hear the
    recording.  A complex step: an imaginary part too small to round anything away."""
    h, c = saved[-n].h_prev, saved[-n].c_prev + 1e-30j * v
    for s in saved[-n:]:
        live, recorded = (s.x @ weights.W.T + weights.b_ih + weights.b_hh + state @ weights.U.T
                          for state in (h, s.h_prev))
        blocks = zip(GATES, np.split(live, 4, axis=1), np.split(recorded, 4, axis=1))
        *_, h, c = lstm.forward(*(heard if gate in open_gates else played for gate, heard, played in blocks), c)
    return (dh * h.imag).sum() / 1e-30


net = lstm_with(forget_bias=1)
_, _, saved = forward(LSTM_CELL, weights_of(net), x)
terms = parts(weights_of(net), saved, dy_last[:, -1])
split = {name: length(d) for name, d in terms.items()}

f_product = np.prod([s.f for s in saved[:-1]], axis=0) * terms["direct"][1]     # f of the last step is in [1] already
_, cache = net.forward(x)
dc0 = net.backward(cache, dy_last).dc0[0, 0]
header("parts of dL/dc, forget bias 1")
for name, lengths in split.items():
    row(NAMES[name], lengths)
v, n = rng.standard_normal((B, H)), 20
by_nudge = nudged("g", weights_of(net), saved, dy_last[:, -1], n, v)
by_hand = ((terms["direct"] + terms["g"])[n] * v).sum()
print("relative differences: "
      f"direct path and product of f {length(terms['direct'][T] - f_product) / length(f_product):.0e}, "
      f"all together and the library's dc0 {length(terms['all'][T] - dc0) / length(dc0):.0e},\n"
      f"  g open, and c nudged with the other gates on recordings {abs(by_hand / by_nudge - 1):.0e}")

# %% [markdown]
# At the start, most of what arrives from far away came through **g**, the candidate.  Its path c -> h -> a_g -> g -> c
# is a small simple net beside the memory.  Look at the formulas: on its way through i the gradient is multiplied by g,
# through f by c_prev, numbers of either sign, and by the derivative of a sigmoid, at most 1/4.  On its way through g it
# is multiplied by i, around one half and always positive, and by the derivative of tanh, up to 1.  The output gate does
# least: it does not write to c at all.
#
# ## 5. Does it matter?  To remember one number
#
# 25 steps, at each a random number between -1 and 1; a second input is 1 at the first step and 0 later.  At the end the
# network must say the first number.  Saying always 0 gives a mean squared error of 1/3.  We count a network as having
# learned if its loss in the last epoch is below a tenth of that.
#
# The rest of the table is about the gradient of what the network says at the end.  *Reach* is the length of its dx at
# the first step, relative to dx at the last: how much the number that matters counts, beside one that happens to come
# last.  The last three columns are the lengths of the parts of dL/dc right after the first step, that of the whole
# taken as 1.

# %%
STEPS, SEEDS, EPOCHS = 25, range(5), 30


def remember(n, seed=0):
    rng = np.random.default_rng(seed)
    x = np.zeros((n, STEPS, 2))
    x[:, :, 0] = rng.uniform(-1, 1, (n, STEPS))
    x[:, 0, 1] = 1
    target, at_the_end = np.zeros((n, STEPS, 1)), np.zeros((n, STEPS), bool)
    target[:, -1, 0] = x[:, 0, 0]
    at_the_end[:, -1] = True
    return x, target, at_the_end


def measure(model, x):
    """Of what the network says at the end: the reach, and the parts of dL/dc after the first step, of the whole 1."""
    net, linear = model.layers
    dy = np.zeros((len(x), STEPS, net.hidden_size))
    dy[:, -1] = linear.params["weight"]
    weights = weights_of(net)
    _, _, saved = forward(LSTM_CELL, weights, x)
    dx, _, _ = backward(LSTM_CELL, weights, saved, dy)
    terms = {name: length(d[STEPS - 1]) for name, d in parts(weights, saved, dy[:, -1]).items()}
    return length(dx[:, 0]) / length(dx[:, -1]), *(terms[name] / terms["all"] for name in ("direct", "g", "several"))


numbers, target, at_the_end = remember(512)
curves = {}
print(f"\nremember one number for {STEPS} steps, {len(SEEDS)} seeds, {EPOCHS} epochs; medians of the seeds (range)")
print("                                                   reach              after: dL/dc, of the whole")
print("  forget bias  learned  loss                       before    after    direct    by g  several")
for bias in BIASES:
    curves[bias], before, after = [], [], []
    for seed in SEEDS:
        net = lstm_with(bias, input_size=2, hidden_size=8, seed=seed)
        model = minilstm.Sequential(net, minilstm.Linear(8, 1, dtype="float64", seed=seed))
        before.append(measure(model, numbers[:64]))
        curves[bias].append(minilstm.fit(model, numbers, target, loss_mask=at_the_end, epochs=EPOCHS, seed=seed,
                                         optimizer=minilstm.Adam(0.01), progress=False))
        after.append(measure(model, numbers[:64]))
    last = [history[-1] for history in curves[bias]]
    reach_before, (reach_after, *shares) = np.median(before, axis=0)[0], np.median(after, axis=0)
    print(f"  {bias:11d}  {sum(loss < 1 / 30 for loss in last)} of {len(SEEDS)}  "
          f" {np.median(last):.3f} ({min(last):.3f} to {max(last):.3f})  {reach_before:8.0e} {reach_after:8.0e}"
          + "".join(f"{share:9.2f}" for share in shares), flush=True)


# %% [markdown]
# Before training, with forget bias 0, the gradient of the first step is about ten thousand times shorter than that of
# the last.  Training hears next to nothing of the number to remember, and few of the networks learn it in this time.
# With bias 1 some hundredths arrive, with bias 3 it is even the longer one, and now they learn.  This is why the forget
# bias starts at 1 or above: before a network has learned what to keep, it must keep something.  No value is right for
# all lengths.  sigmoid(1) is 0.73, and after 25 steps hardly anything of the direct path is left; a longer task asks
# for a higher bias.
#
# And do they hold the number in c with f near 1, as it is usually drawn?  Look at bias 1 and 3, where all have learned.
# The direct part is small.  The largest part of what the answer owes to the memory came through g: at each step h tells
# the candidate what to write, and the number is written anew.  Nothing forces a network to use the path that was built
# for it.
#
# ## 6. Clipping, for gradients that explode
#
# `clip_global_norm(model, limit)` shortens the gradient of all weights, taken as one vector, to the limit if it is
# longer, and keeps its direction (Pascanu, Mikolov and Bengio 2013); `fit` does so with the limit 1.  Here simple nets
# with exploding gradients take one step of plain gradient descent, on the task above.

# %%
def loss_and_gradient(model, x, target, at_the_end):
    y, cache = model.forward(x)
    loss, dy = minilstm.mean_squared_error(y, target, at_the_end)
    model.zero_grads()
    model.backward(cache, dy)
    return loss


def descend(model, rate):
    """One step of plain gradient descent."""
    for _, layer in model.walk():
        for name, g in layer.grads.items():
            layer.params[name] = layer.params[name] - rate * g


STARTS, RATE = range(20), 0.01
print(f"\none step of gradient descent, rate {RATE}, {len(STARTS)} starts: how often the loss falls, and the worst "
      "loss after / before")
print("                   norm of the gradient   step as it is      clipped to norm 1")
print("                   (median)               falls      worst   falls      worst")
for radius in (1.5, 2.0, 3.0):
    norms, ratios = [], []
    for seed in STARTS:
        batch = remember(64, seed)
        for limit in (np.inf, 1.0):
            model = minilstm.Sequential(rnn_with(radius, input_size=2, seed=seed),
                                        minilstm.Linear(H, 1, dtype="float64", backend="reference", seed=seed))
            before = loss_and_gradient(model, *batch)
            norms.append(minilstm.clip_global_norm(model, limit).norm)
            descend(model, RATE)
            ratios.append(loss_and_gradient(model, *batch) / before)
    print(f"  RNN, radius {radius}  {np.median(norms):20.0f}  "
          + "".join(f"   {sum(r < 1 for r in some):2d} of {len(STARTS)}  {max(some):6.1f}"
                    for some in (ratios[::2], ratios[1::2])))

# %% [markdown]
# A long gradient says that the loss is steep, not that the way down is long.  As it is, the step overshoots, and can
# make the loss several times what it was.  Clipped, it is short enough for the direction still to be right: with
# radius 1.5 and 2 the loss falls from all or nearly all starts.  With radius 3 clipping does not help much.  The
# gradient is thousands long; where a slope is that steep the direction soon changes too, and even a short step leaves
# the place for which it was right.  Clipping bounds the damage and is no cure.  And for a gradient that has vanished it
# does nothing at all: no rescaling of the whole brings back a part that is lost beside the rest.
#
# ## The picture

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
GREEN, PINK, AMBER, SKY = "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
of_bias = dict(zip(BIASES, (ORANGE, BLUE, GREEN)))
back_in_time = np.arange(1, T + 1)
figure = Figure(figsize=(12, 8.4), layout="constrained")
figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
panels = figure.subplot_mosaic("aabbcc;dddeee", height_ratios=(1.25, 1))
simple, biases, gates, cut, learning = (panels[name] for name in "abcde")


def name_line(axes, lengths, text, color, shift=0):
    """A label at the end of a line, moved up by so many points."""
    axes.annotate(text, (T, lengths[T]), (4, shift), textcoords="offset points", color=color, va="center")


def draw(axes, lengths, color, start=1, **style):
    axes.plot(back_in_time[start - 1:], lengths[start:], color=color, **style)


for radius, lengths in rnn.items():
    draw(simple, lengths, BLACK, lw=2)
    name_line(simple, lengths, f"radius {radius}", BLACK)
simple.set(title="Simple net: fades or explodes", ylabel="length of dL/dh")

for bias, (whole, direct) in memory.items():
    draw(biases, whole, of_bias[bias], lw=2)
    draw(biases, direct, of_bias[bias], ls="--")
    name_line(biases, whole, f"bias {bias}", of_bias[bias], shift=-3 if bias == 0 else 0)
draw(biases, gru, GREY, lw=2)
name_line(biases, gru, "GRU", GREY, shift=4)
biases.plot([], color=BLACK, lw=2, label="whole gradient")
biases.plot([], color=BLACK, ls="--", label="direct path alone")
biases.set(title="LSTM: the forget bias sets the pace", ylabel="length of dL/dc (GRU: dL/dh)")
biases.legend(frameon=False, loc="lower left")

looks = {"all": (BLUE, "all", 7), "g": (PINK, "only g", -4), "several": (BLACK, "several", -9),
         "f": (AMBER, "only f", 8), "direct": (BLUE, "direct", 0), "i": (SKY, "only i", -4), "o": (GREY, "only o", -2)}
for name, (color, text, shift) in looks.items():
    start = {"all": 1, "direct": 1, "several": 3}.get(name, 2)          # the first step with such a path
    draw(gates, split[name], color, start, lw=3 if name == "all" else 1.5, ls="--" if name == "direct" else "-")
    name_line(gates, split[name], text, color, shift)
gates.set(title="LSTM, bias 1: gate g carries most", ylabel="length of the parts of dL/dc")

for axes, lowest, highest in ((simple, 1e-18, 1e4), (biases, 1e-18, 1e4), (gates, 1e-10, 1)):
    axes.set(yscale="log", ylim=(lowest, highest), xlim=(0, T), xlabel="n, steps before the end")

for bias, cosines in truncation.items():
    cut.plot(CHUNKS, cosines, "o-", color=of_bias[bias], lw=2, ms=4)
    cut.annotate(f"bias {bias}", (2, cosines[CHUNKS.index(2)]), (0, -15), textcoords="offset points",
                 color=of_bias[bias])
cut.set(title="LSTM: the longer the memory, the more truncation loses", xscale="log", ylim=(0, 1.05),
        xlabel=f"k, steps in a chunk (of {T})", ylabel="cosine with the full gradient")
cut.set_xticks(CHUNKS, CHUNKS)
cut.minorticks_off()

for bias, histories in curves.items():
    for history in histories:
        label = f"forget bias {bias}" if history is histories[0] else None
        learning.plot(range(1, EPOCHS + 1), history, color=of_bias[bias], ls={0: "-", 1: "--", 3: ":"}[bias], lw=1.5,
                      label=label)
learning.axhline(1 / 3, color=GREY, ls=":")
learning.text(EPOCHS, 0.36, "says always 0", ha="right", va="bottom", color=BLACK)
learning.set(title=f"LSTM: learning to remember a number for {STEPS} steps", xlabel="epoch", yscale="log",
             ylabel="mean squared error", xlim=(0, EPOCHS + 0.5), ylim=(3e-4, 0.6))
learning.legend(frameon=False, loc="lower left")
for axes in panels.values():
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "03_through_time.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
