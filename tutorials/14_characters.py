# %% [markdown]
# # 14. Read a text that goes on and on: Python, one character at a time
#
# A network that says which character comes next has learnt how its text is written: words, brackets that close, how far
# a line is indented.  The text is one that every reader of this has: the source of Python's own standard library.  It
# is four million characters long, far too long to go back through at once, so it is read in **segments**, with
# the state handed on from each to the next.
#
# 1. the text, and a part of it that is kept for the end;
# 2. what two old friends make of it: gzip, and counting (an n-gram model);
# 3. an LSTM, trained by truncated backpropagation through time;
# 4. the score, in bits per character;
# 5. the network writes.
#
# Run it:  `python tutorials/14_characters.py`, which takes less than two minutes.  `python tutorials/14_characters.py
# 11000` trains with 11000 segments in place of 1000, which takes some four minutes.  Another version of Python has
# another library, so the numbers differ a little.  The picture is saved in `tutorials/pictures/`.

# %%
import gzip
import math
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import minilstm

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")
SEGMENTS = int(sys.argv[1]) if "__file__" in globals() and len(sys.argv) > 1 else 1000

# %% [markdown]
# ## 1. The text
#
# The modules at the top of the library, one behind the other.  Every tenth of them is set aside: what a model is worth
# shows on files that it has never seen.  Characters outside of ASCII become "?".

# %%
paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
texts = [path.read_text(encoding="utf-8", errors="replace").encode("ascii", "replace") for path in paths]
seen = b"".join(text for k, text in enumerate(texts) if k % 10 != 5)
unseen = b"".join(texts[5::10])
alphabet = np.unique(np.frombuffer(seen + unseen, np.uint8))            # all characters that occur
V = len(alphabet)
train, test = (np.searchsorted(alphabet, np.frombuffer(text, np.uint8)) for text in (seen, unseen))
print(f"{len(paths)} files: {len(train):,} characters to learn from, {len(test):,} to be judged by; {V} kinds")

# %% [markdown]
# A model that gives the chance p to the character that then comes needs -log2(p) **bits** to write it down: an
# arithmetic coder, with the model in it, makes a file of that size.  So bits per character measure a model and a
# compressor by the same scale.  Without any knowledge it is log2 of the number of kinds; knowing how frequent each
# character is helps a little:

# %%
frequency = np.bincount(train, minlength=V) + 1
by_frequency = -np.log2(frequency / frequency.sum())[test].mean()
print(f"bits per character, all kinds alike: {math.log2(V):.2f}, by their frequencies: {by_frequency:.2f}")

# %% [markdown]
# ## 2. gzip, and counting
#
# gzip looks for repetitions in the last 32,768 characters, and knows nothing but what it has just read.
#
# An n-gram model counts what followed each string of n - 1 characters.  Long strings say much, but few of them have
# been seen, so the counts of all lengths are mixed.  Kneser and Ney (1995) take D from every count and give what they
# have taken to the string that is one shorter, p'; t is the number of different characters that followed:
#
#     p(c | string) = (max(count(string, c) - D, 0) + D * t * p'(c)) / count(string)
#
# And in the shorter strings it does not count how often a character stood there, but behind how many different strings:
# a character that comes after one string only says little about others.

# %%
by_gzip = 8 * len(gzip.compress(unseen)) / len(unseen)
D = 0.9


def numbered(text, n):
    """A number for the n characters that end at each place, the last one in front: number // (V + 1) drops it."""
    number = np.zeros(len(text), np.int64)
    for back in range(n):
        number[back:] += (text[:len(text) - back] + 1) * np.int64(V + 1)**back
    return number


def looked_up(numbers, counts, wanted):
    """The count of each wanted number, 0 for one that is not there."""
    place = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    return np.where(numbers[place] == wanted, counts[place], 0)


def by_counting(longest):
    """Bits per character on the text set aside, of strings of up to ``longest`` characters."""
    p = np.full(len(test) - longest, 1 / V)
    for n in range(1, longest + 1):
        seen_here = numbered(train, n) if n == longest else np.unique(numbered(train, n + 1)) % (V + 1)**n
        strings, counts = np.unique(seen_here, return_counts=True)                          # with c at their end
        shorter, begin, followers = np.unique(strings // (V + 1), return_index=True, return_counts=True)
        wanted = numbered(test, n)[longest:]
        count, t = (looked_up(shorter, found, wanted // (V + 1))
                    for found in (np.add.reduceat(counts, begin), followers))
        mixed = (np.maximum(looked_up(strings, counts, wanted) - D, 0) + D * t * p) / np.maximum(count, 1)
        p = np.where(count > 0, mixed, p)
    return -np.log2(p).mean()


by_n_gram = {n: by_counting(n) for n in (2, 4, 6, 8)}
print(f"bits per character, gzip {by_gzip:.2f}, "
      + ", ".join(f"{n}-gram {bits:.2f}" for n, bits in by_n_gram.items()))

# %% [markdown]
# ## 3. An LSTM
#
# Each character becomes 32 numbers, an LSTM of 160 units reads them, and a linear layer says how likely each character
# is to come next.  The text is cut into 16 **streams**, read side by side, 64 characters at a time.  The state at the
# end of such a segment is where the next one begins: what the network remembers may be much older than 64 characters.
# Only the gradient goes no further back (`truncated_bptt` with k1 = k2 = 64).  After a warm-up the rate falls along
# half a cosine to nothing.

# %%
B, T, H = 16, 64, 160
model = minilstm.Sequential(minilstm.Embedding(V, 32), minilstm.LSTM(32, H), minilstm.Linear(H, V))
streams = train[:len(train) // B * B].reshape(B, -1)
places = streams.shape[1] - T - 1                                       # where a segment may begin
optimizer = minilstm.Adam(6e-3)
schedule = minilstm.training.WarmUp(50, then=minilstm.training.Cosine(max(1, SEGMENTS - 50)))
rate, state, bits = optimizer.rate, None, []
begun = time.perf_counter()
for segment in range(SEGMENTS):
    at = segment * T % places
    optimizer.rate = rate * schedule.factor(segment)
    loss, state = minilstm.truncated_bptt(
        model, streams[:, at:at + T], streams[:, at + 1:at + T + 1], k1=T, k2=T, state=state,
        loss=minilstm.softmax_cross_entropy, optimizer=optimizer)
    bits.append(loss / math.log(2))
    if (segment + 1) % max(1, SEGMENTS // 6) == 0:
        print(f"segment {segment + 1:5d}, characters read {(segment + 1) * B * T:10,}: "
              f"{np.mean(bits[-SEGMENTS // 6:]):.2f} bits per character")
print(f"{time.perf_counter() - begun:.0f} seconds of training")

# %% [markdown]
# ## 4. The score
#
# On the text set aside, as 64 streams; the first segment begins without knowing anything.

# %%
columns = test[:len(test) // 64 * 64].reshape(64, -1)
surprises, state = [], model.start(64)
for at in range(0, columns.shape[1] - 1, 400):
    part = columns[:, at:at + 401]
    (y, state), _ = model.forward_from(part[:, :-1], state, cache=False)
    log_p = np.take_along_axis(minilstm.training.log_softmax(y), part[:, 1:, None], axis=-1)[..., 0]
    surprises.append(-log_p / math.log(2))
surprises = np.concatenate(surprises, axis=1)                           # (64, ...), in bits, of columns[:, 1:]
by_lstm = surprises.mean()
print(f"bits per character: LSTM {by_lstm:.2f}, 8-gram {by_n_gram[8]:.2f}, gzip {by_gzip:.2f}")

# %% [markdown]
# gzip has an advantage: it **learns while it reads**, and every file has names of its own that come again and again.
# So may the network: it says how likely each of the next 32 characters is, is told, takes a step, and goes on (dynamic
# evaluation: Mikolov et al. 2010).  No character has been learnt from before it is judged by.  One pass through
# `truncated_bptt` with an optimizer is just that, since the loss of each chunk is taken before the step.

# %%
learner = model.astype("float32")                                       # a copy
columns_read = test[:len(test) // B * B].reshape(B, -1)
loss, _ = minilstm.truncated_bptt(learner, columns_read[:, :-1], columns_read[:, 1:], k1=32, k2=32,
                                  loss=minilstm.softmax_cross_entropy, optimizer=minilstm.Adam(2e-3))
by_learner = loss / math.log(2)
print(f"bits per character of an LSTM that goes on learning: {by_learner:.2f}")

# %% [markdown]
# After a thousand segments the network has read a quarter of the text, once, and counting is still better.  Eleven
# thousand, some four minutes, bring it to 2.18 bits on files that it has not seen, about as good as counting strings of
# eight, and to 1.76 where it goes on learning, with gzip at 2.00 (the library of Python 3.11).
#
# ## 5. It writes
#
# Ask for the chances of the next character, draw one, hand it in as the next input: a stream that reads what it writes.
# `minilstm.Streams` keeps its state.  Below a **temperature** of 1 likely characters become more likely still.
# (Try 0.5: a network that has read little may then end in what is likeliest of all, spaces.)


# %%
def written(beginning, length, temperature, seed=0):
    """What the model goes on with."""
    rng, streams, text = np.random.default_rng(seed), minilstm.Streams(model), beginning
    for k in range(len(beginning) + length - 1):
        read = np.searchsorted(alphabet, ord(text[k]))
        chances = np.exp(minilstm.training.log_softmax(streams.step(["text"], np.array([read]))[0] / temperature))
        if k >= len(beginning) - 1:
            text += chr(alphabet[rng.choice(V, p=chances / chances.sum())])
    return text


for temperature in (0.7, 1.0):
    print(f"\n---- temperature {temperature}")
    print(written("\ndef ", 300, temperature))

# %% [markdown]
# ## The picture
#
# Left: bits per character while it learns, and the scores.  Right: a piece of a file that it had never seen.  The
# darker a character, the more it came as a surprise: the beginnings of words and names, but hardly their ends, and not
# the indentation.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
figure = Figure(figsize=(11, 5), layout="constrained")
curve, page = figure.subplots(1, 2, width_ratios=[2, 3])
width = max(1, SEGMENTS // 60)
smooth = np.convolve(bits, np.ones(width) / width, "valid")
curve.plot((np.arange(len(smooth)) + width) * B * T / 1e6, smooth, color=BLUE, lw=2, label="LSTM, while it learns")
scores = (("LSTM, on other files", by_lstm, "-", BLUE), ("8-gram", by_n_gram[8], "--", ORANGE),
          ("gzip", by_gzip, ":", BLACK), ("LSTM that goes on learning", by_learner, "-.", BLUE))
for name, value, style, color in scores:
    curve.axhline(value, color=color, ls=style, lw=1, label=f"{name}: {value:.2f}")
curve.set(title="Python's standard library", xlabel="million characters read", ylabel="bits per character",
          ylim=(1, 5))
curve.legend(frameon=False)
curve.spines[["top", "right"]].set_visible(False)

ROWS, COLUMNS, START = 16, 64, 3000
shown = columns[20, START + 1:START + 1 + ROWS * COLUMNS]
lines, line = [], []
for character, surprise in zip(shown, surprises[20, START:]):
    if chr(alphabet[character]) == "\n" or len(line) == COLUMNS:
        lines.append(line)
        line = []
    if chr(alphabet[character]) != "\n":
        line.append((chr(alphabet[character]), surprise))
shades = np.full((ROWS, COLUMNS), np.nan)
for row, line in enumerate(lines[1:ROWS + 1]):
    for column, (character, surprise) in enumerate(line):
        shades[row, column] = surprise
        page.text(column, row, character, ha="center", va="center", family="monospace", fontsize=7,
                  color="white" if surprise > 5 else BLACK)
image = page.imshow(shades, cmap="Blues", vmin=0, vmax=8, aspect="auto")
figure.colorbar(image, ax=page, label="bits")
page.set(title="What came as a surprise", xticks=[], yticks=[])

picture = folder / "pictures" / "14_characters.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
