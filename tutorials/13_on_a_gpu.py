# %% [markdown]
# # 13. On a GPU: from the NumPy loop to a kernel that stays
#
# A GPU does the same to many numbers at once, and a recurrent net cannot begin a step before the last one has ended.
# How does one write the LSTM of `minilstm/cells/lstm.py` for such a machine?  In Python, and from the beginning:
#
# 1. threads: a function that runs once for each number;
# 2. blocks, warps, shared memory and barriers, and what happens without a barrier;
# 3. one step of an LSTM, from the formulas that are there already;
# 4. a walk through time with a launch for each step;
# 5. a walk in which a block keeps the weights in its registers;
# 6. a walk in which many blocks share the weights, and wait for each other's numbers;
# 7. the large products, and what tensor cores do to the digits;
# 8. a model that is trained without leaving the GPU.
#
# **No GPU is needed.**  The kernels here are those of the library, and run in a simulator: one thread after the other,
# in Python, with every access to memory checked.  It cannot say how long anything takes.  What it can say, this page
# shows: who waits for whom, how often memory is read, and which bugs would have been silent.  With the compiler
# installed (`pip install -e '.[gpu]'`) the page also shows what machine code the kernels become.
#
# Run it:  `pip install -e '.[simulator]' && python tutorials/13_on_a_gpu.py`.  It takes less than a minute.  The
# picture is saved in `tutorials/pictures/`.

# %%
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numba import cuda, float32

import minilstm
from minilstm import device
from minilstm.cells import LSTM_CELL, lstm
from minilstm.device import ptx
from minilstm.device.kernel import F1, F2, I1, Int, kernel
from minilstm.device.memory import SimulationError
from minilstm.device.stepping import Steps
from minilstm.matmul import gpu as matmul
from minilstm.recurrence import gpu as recurrence
from minilstm.recurrence import gpu_blocks, gpu_rows, gpu_steps
from minilstm.recurrence.gpu_blocks_kernels import forward_kernel
from minilstm.recurrence.gpu_blocks_plan import plan

started = time.perf_counter()
folder = Path(__file__).parent if "__file__" in globals() else Path(".")


def largest(array):
    return np.abs(array).max()


# %% [markdown]
# ## 1. Threads
#
# A kernel is a function for one thread.  `cuda.grid(1)` says which thread it is, and the thread takes the number with
# this index.  There is no loop: the loop is the launch.  Threads come in blocks of one size, here of 32, so there are
# mostly a few more threads than numbers, and each has to ask whether there is a number for it.
#
# The annotations are the types: `F1` is a float32 array of one axis, `Int` an int32.


# %%
@kernel(threads=32)
def add(x: F1, y: F1, total: F1, n: Int):
    i = cuda.grid(1)
    if i < n:
        total[i] = x[i] + y[i]


@kernel(threads=32)
def add_without_asking(x: F1, y: F1, total: F1, n: Int):
    i = cuda.grid(1)
    total[i] = x[i] + y[i]


rng = np.random.default_rng(13)
x, y = rng.standard_normal((2, 40), dtype="float32")
with device.simulated():
    total = device.empty(40)
    device.launch(add, 2, device.to_device(x), device.to_device(y), total, 40)      # 2 blocks: 64 threads
    assert np.array_equal(total.copy_to_host(), x + y)
    try:
        device.launch(add_without_asking, 2, device.to_device(x), device.to_device(y), total, 40)
        raise AssertionError("the simulator has to notice")
    except SimulationError as error:
        print(f"what a GPU would not tell: {error}")

# %% [markdown]
# On a GPU the second kernel reads and writes whatever stands behind the arrays, and mostly goes on.
#
# ## 2. Blocks
#
# A GPU has some hundred *multiprocessors*; an H100 has 132.  A block of threads runs on one of them, and can use what
# is there and nowhere else: 64 Ki *registers* of 32 bits, dealt out to its threads, and up to 227 KiB of *shared
# memory*, which all of its threads see.  32 neighbouring threads are a *warp*: they run the same instruction together.
# Blocks know nothing of each other.
#
# Threads of a block work together by writing to shared memory what others read, and between the two there has to be a
# *barrier*, `cuda.syncthreads()`: nobody passes it before all have come.  Here 64 threads turn an array round.  The
# simulator shows what threads 0 and 63 do, line by line, in the order in which it lets them run:


# %%
@kernel(threads=64)
def reverse(x: F1, y: F1):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    tile[t] = x[t]
    cuda.syncthreads()
    y[t] = tile[63 - t]


x = rng.standard_normal(64, dtype="float32")
with device.simulated(steps=Steps((0, 0), (0, 63))):
    y = device.empty(64)
    device.launch(reverse, 1, device.to_device(x), y)
assert np.array_equal(y.copy_to_host(), x[::-1])

# %% [markdown]
# Take the barrier out, and thread 0 reads what thread 63 has not written yet.  Shared memory holds NaN in the simulator
# until somebody writes, so it shows in the result; on a GPU there would be old numbers, sometimes the right ones.  And
# the simulator notes each pair of accesses that nothing orders, even where they happen to come in the right order:


# %%
@kernel(threads=64)
def reverse_too_early(x: F1, y: F1):
    tile = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    tile[t] = x[t]
    y[t] = tile[63 - t]


with device.simulated() as simulator:
    y = device.empty(64)
    device.launch(reverse_too_early, 1, device.to_device(x), y)
    unwritten = np.isnan(y.copy_to_host()).sum()
print(f"\nwithout the barrier {unwritten} of 64 numbers were read before they were written; races:")
for race in simulator.races:
    print(f"    {race}")
assert unwritten and simulator.races

# %% [markdown]
# ## 3. One step of an LSTM
#
# The formulas of a unit stand in `minilstm/cells/lstm.py`, once.  `lstm.forward` is plain Python: it runs on NumPy
# arrays, is compiled into the loops of the processor's kernels, and into those of a GPU.  A thread takes one unit of
# one row of the batch:


# %%
@kernel(threads=64)
def lstm_step(a: F2, c_prev: F1, h: F1, c: F1, n: Int):
    """a (4,n): the pre-activations of n units; the others (n,)."""
    j = cuda.grid(1)
    if j < n:
        i, f, g, o, h[j], c[j] = lstm.forward(a[0, j], a[1, j], a[2, j], a[3, j], c_prev[j])


a, c_prev = rng.standard_normal((4, 100), dtype="float32"), rng.standard_normal(100, dtype="float32")
*_, h_expected, c_expected = lstm.forward(*a.astype("float64"), c_prev.astype("float64"))
with device.simulated():
    h, c = device.empty(100), device.empty(100)
    device.launch(lstm_step, 2, device.to_device(a), device.to_device(c_prev), h, c, 100)
    print(f"\none step of 100 units: h differs from float64 by {largest(h.copy_to_host() - h_expected):.0e} at most")
    assert largest(h.copy_to_host() - h_expected) < 1e-6 and largest(c.copy_to_host() - c_expected) < 1e-6

# %% [markdown]
# What does the compiler make of it?  `machine_code.report` needs no GPU.  It says how many of its 255 registers a
# thread uses, and whether any number had to be *spilled* to memory because they did not suffice; and whether there is
# an instruction in double precision, of which a GPU made for graphics does 64 times fewer in a second: a bare `0.5` in
# a formula is one.  tanh and sigmoid are made of two special instructions of a GPU, 2**x and 1/x
# (`minilstm/device/activations.py`).

# %%
try:
    import numba_cuda                                       # noqa: F401  (it takes the place of numba.cuda)

    from minilstm.device.machine_code import report
except ImportError:
    report = None
    print("\nthe GPU compiler is not installed: no machine code (pip install -e '.[gpu]')")


def show(name, of_kernel):
    """A line about a kernel's machine code for an H100."""
    if report:
        found = report(of_kernel, (9, 0))
        assert found.spills == 0 and found.doubles == 0, str(found)
        print(f"{name:34s} {found.threads:5d}{found.registers:11d}{found.spills:9d}{found.doubles:9d}"
              f"{(found.shared + found.dynamic) / 1024:10.1f}{found.multiply_adds:14d}{found.tensor:8d}")


HEADER = (f"\n{'machine code for an H100':34s}threads  registers  spilled  doubles  shared KiB  multiply-adds  tensor")
if report:
    print(HEADER)
show("one step of an LSTM", lstm_step)

# %% [markdown]
# ## 4. Through time: a launch for each step
#
#     a = x @ W.T + b  +  h_prev @ U.T          h, c = lstm.forward(a, c_prev)
#
# The first product does not wait for any state: it is one large product over the whole sequence (part 7).  The second
# one needs all of h_prev, which many blocks have made.  When does a block know that the others are done?  The plainest
# answer: when the launch is over.  `minilstm/recurrence/gpu_steps.py` launches a kernel for every step, in which a
# thread computes one unit of one row: its four sums over h_prev, then the formulas.
#
# Its price: a launch costs some microseconds, T times; and every launch reads U from memory again, since nothing but
# memory outlives a kernel.
#
# ## 5. A block that keeps the weights
#
# Rows of a batch never meet.  So a block can take some rows through the whole sequence, without a word to other blocks,
# and keep U where nothing is nearer: in the registers of its threads (`minilstm/recurrence/gpu_rows.py`).  Between two
# steps there is a barrier in the place of a launch.
#
# Its price: U has to fit.  A multiprocessor has 65,536 registers, an LSTM of H units has 4 H**2 numbers in U, and the
# threads need registers for other things, too.
#
# ## 6. Blocks that share the weights
#
# All registers of an H100 together hold 33 MB, and U of an LSTM with 1,024 units is 16 MB.  So let a *group* of blocks
# share one copy of U: each has the rows of its own units, computes their h, and needs the h of all others
# (`minilstm/recurrence/gpu_blocks.py`).
#
# How do blocks hand over numbers within a kernel?  There is no barrier for them.  But h of each step has to be written
# to memory anyway, each to a place of its own.  So fill that memory beforehand with the bits of a NaN that no
# arithmetic makes, and let whoever needs a number look at it until it is there: `ptx.poll4`.  The numbers are their own
# signal. Two blocks of four threads do just that here.  Each adds up what the other one has said in the step before:


# %%
@kernel(threads=4, resident=True)
def relay(h: F2, error: I1, T: Int):
    """h (T+1, 8): in each step block 0 writes the first four numbers and block 1 the others."""
    own, other = cuda.blockIdx.x * 4, 4 - cuda.blockIdx.x * 4
    for t in range(T):
        heard = ptx.poll4(h, 8 * t + other, error)
        said = heard[0] + heard[1] + heard[2] + heard[3]
        ptx.store_relaxed(h, 8 * (t + 1) + own + cuda.threadIdx.x, said)


@kernel(threads=4, resident=True)
def relay_that_only_reads(h: F2, error: I1, T: Int):
    own, other = cuda.blockIdx.x * 4, 4 - cuda.blockIdx.x * 4
    for t in range(T):
        heard = ptx.load4(h, 8 * t + other)
        said = heard[0] + heard[1] + heard[2] + heard[3]
        ptx.store_relaxed(h, 8 * (t + 1) + own + cuda.threadIdx.x, said)


first = np.arange(8, dtype="float32")
unwritten = np.full((3, 8), ptx.UNWRITTEN, "int32").view("float32")
unwritten[0] = first
with device.simulated(steps=Steps((0, 0), (1, 0), kernel="relay")) as simulator:
    h = device.to_device(unwritten)
    device.launch(relay, 2, h, simulator.error, 2)
assert h.copy_to_host()[2].tolist() == 4 * [4 * first[:4].sum()] + 4 * [4 * first[4:].sum()] and not simulator.races

with device.simulated() as simulator:
    h = device.to_device(unwritten)
    device.launch(relay_that_only_reads, 2, h, simulator.error, 2)
print(f"\nwith an ordinary read: {np.isnan(h.copy_to_host()).sum()} NaN, and a race:\n    {simulator.races[0]}")
assert simulator.races

# %% [markdown]
# A block that polls would wait for ever if the other one could not run, so all blocks of such a kernel have to be on
# the chip together: the kernel says `resident=True`, and a launch of more blocks than there is room for is refused.
# Every wait ends after a number of looks all the same, with an error and not with a machine that hangs.
#
# Now the three walks, on one little LSTM with a padded batch, each beside NumPy in float64.  What the simulator counts:

# %%
T, B, D, H = 6, 3, 5, 16
x = rng.standard_normal((B, T, D), dtype="float32")
lengths = [6, 3, 5]
exact = minilstm.LSTM(D, H, dtype="float64", backend="reference", seed=1)
y_exact = exact.forward(x.astype("float64"), lengths=lengths)[0].y
WALKS = {                                   # the kernel, its argument with the weights, and what it is
    "steps": ("forward_step", "U_T", "a launch a step"), "rows": ("forward_rows", "U_dealt", "a block keeps U"),
    "blocks": ("blocks_forward", "packed", "blocks share U")}
print(f"\nLSTM of {H} units, {B} rows, {T} steps; U has {4 * H * H:,d} numbers")
print(f"{'walk':18s}launches   numbers of U read   the same, by row and step   largest error of y")
reads = {}
for walk, (name, argument, words) in WALKS.items():
    with device.simulated(seed=1) as simulator, recurrence.using(walk):
        net = minilstm.LSTM(D, H, backend="gpu", seed=1)
        y = net.forward(x, lengths=lengths, cache=False)[0].y.copy_to_host()
    reads[walk] = simulator.reads[name, argument]
    print(f"{words:18s}{simulator.launched.count(name):8d}{reads[walk]:20,d}{reads[walk] / sum(lengths):28,.0f}"
          f"{largest(y - y_exact):21.0e}")
    assert largest(y - y_exact) < 1e-6 and not simulator.races

# %% [markdown]
# All three say the same.  The first reads U for every real step of every row.  The other two read it once for each
# block that keeps it, or for each group of blocks that shares it (with some zeros for threads that would have nothing
# to hold), however long the sequence is.
#
# Which walk `backend="gpu"` takes follows from the shape alone.  On an H100, with its 132 multiprocessors, an LSTM of H
# units is walked like this:

# %%
MULTIPROCESSORS = 132                       # of an H100


def share_of(H, B):
    """How the blocks share U, in words."""
    if gpu_rows.fits(LSTM_CELL, B, H, MULTIPROCESSORS):
        return "each block keeps all of U"
    if not gpu_blocks.fits(LSTM_CELL, B, H, MULTIPROCESSORS):
        return "a launch a step"
    shared = plan(gpu_blocks.forward_work(LSTM_CELL, H), False, B, MULTIPROCESSORS)
    layout = shared.layout
    return (f"{shared.groups:2d} groups of {layout.blocks:3d} blocks; a block has {layout.units:2d} units, a thread "
            f"{layout.weights:3d} numbers of U")


print("\n   H     B   U, KiB   who keeps it")
for H, B in ((64, 16), (256, 1), (256, 16), (512, 16), (512, 64), (1024, 16), (2048, 16)):
    print(f"{H:4d}{B:6d}{4 * H * H * 4 // 1024:9,d}   {share_of(H, B)}")

# %% [markdown]
# ## 7. The large products
#
# x @ W.T before the walk, and dx, dW, dU after the walk back, are ordinary products of large matrices.  Each number of
# C needs a row of A and a column of B; read from memory by every thread for itself, that is two reads for a
# multiply-add, and memory is far too slow for that.  So a block computes a *tile* of C, reads what it needs of A and B
# once, and shares it (`matmul/gpu_tiled.py`); so a thread computes several numbers of C, and uses each number several
# times once it is in a register (`gpu_blocked.py`).
#
# *Tensor cores* multiply small matrices in one instruction, but round what they multiply to TF32: 10 bits of mantissa
# in place of 23 (`gpu_tensor.py`).  Unless `device.allow_tf32(True)` was called they are not used.  A number is very
# nearly the sum of two TF32 numbers, so three such products make up one in float32 ("split").

# %%
M, K, N = 32, 64, 32
A, C = rng.standard_normal((M, K), dtype="float32"), rng.standard_normal((K, N), dtype="float32")
product_exact = A.astype("float64") @ C
print(f"\n({M},{K}) @ ({K},{N})   reads from memory for each multiply-add   error / largest number")
errors, per_multiply_add = {}, {}
for name, multiply in matmul.KERNELS.items():
    with device.simulated() as simulator:
        product = multiply(device.to_device(A), device.to_device(C)).copy_to_host()
    errors[name] = largest(product - product_exact) / largest(product_exact)
    per_multiply_add[name] = sum(simulator.reads.values()) / (M * N * K)
    print(f"{name:22s}{per_multiply_add[name]:22.3f}{errors[name]:38.0e}")
assert errors["tensor"] < 3e-3 and all(error < 1e-6 for name, error in errors.items() if name != "tensor")

# %% [markdown]
# ## 8. Training without leaving the GPU
#
# What reads and writes memory of the GPU need not come back after every kernel.  The data are copied there once;
# batches, the loss, the gradients, their norm and the steps of Adam are kernels.  Who wants to see the loss waits for
# the GPU, so `fit` looks once an epoch.  The simulator notes every copy:

# %%
sequences = rng.standard_normal((8, 5, 2), dtype="float32")
target = sequences.sum(axis=2, keepdims=True)


def trained(backend):
    model = minilstm.Sequential(minilstm.LSTM(2, 4, backend=backend), minilstm.Linear(4, 1, backend=backend))
    return minilstm.fit(model, sequences, target, epochs=2, batch_size=4, optimizer=minilstm.Adam(0.02), progress=False)


with device.simulated() as simulator:
    on_gpu = trained("gpu")
on_cpu = trained("reference")
copies = [size for way, size in simulator.copies if way == "to host"]
print(f"\nlosses on the GPU {on_gpu[0]:.6f} {on_gpu[1]:.6f}, with NumPy {on_cpu[0]:.6f} {on_cpu[1]:.6f}")
print(f"{len(simulator.launched)} kernels; copies to the host: {len(copies)}, of {max(copies)} bytes at most")
assert largest(np.subtract(on_gpu, on_cpu)) < 1e-5

# %% [markdown]
# ## What the compiler says of the walks
#
# The kernels above, as machine code: the weights that a thread keeps are a good part of its registers, and none of them
# may be spilled, since then they would come from memory at every step again.

# %%
if report:
    print(HEADER)
layout = plan(gpu_blocks.forward_work(LSTM_CELL, 512), False, 16, MULTIPROCESSORS).layout
show("a launch a step", gpu_steps.forward_kernel(LSTM_CELL, False))
show("a block keeps U, H = 64", gpu_rows.forward_kernel(LSTM_CELL, 64, 1, False))
show("blocks share U, H = 512", forward_kernel(LSTM_CELL, layout, False))

# %% [markdown]
# ## What this page cannot say
#
# How long any of it takes.  The simulator has no clock, and no memory that is slow.  `python
# benchmarks/gpu_vs_cudnn.py` measures these kernels beside cuDNN's, for whoever has a GPU; the README shows what was
# found, as soon as somebody has run it.
#
# ## The picture
#
# Left: U of an LSTM, beside the registers of one multiprocessor and of all of them.  Where U is below the first line, a
# block can keep it; below the second, blocks can share it.  Middle and right: what parts 6 and 7
# have counted.

# %%
BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#999999", "#222222"          # told apart by every eye, and in print
units = np.array([16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
figure = Figure(figsize=(12, 4.2), layout="constrained")
keep, of_U, of_products = figure.subplots(1, 3)
keep.plot(units, 4 * units**2 * 4 / 1024, "o-", color=BLUE)
keep.axhline(256, color=ORANGE, ls="--")
keep.text(units[-1], 256 / 1.25, "registers of\na multiprocessor", color=ORANGE, ha="right", va="top")
keep.axhline(256 * MULTIPROCESSORS, color=ORANGE, ls="--")
keep.text(units[0], 256 * MULTIPROCESSORS * 1.25, "registers of an H100", color=ORANGE)
keep.set(xscale="log", yscale="log", xlabel="units H", ylabel="KiB", title="U of an LSTM, float32")
keep.set_xticks(units[::2], units[::2])
keep.minorticks_off()
for axes, counts, title in ((of_U, {words: reads[walk] for walk, (*_, words) in WALKS.items()},
                             f"Numbers of U read, {sum(lengths)} real steps"),
                            (of_products, per_multiply_add, "Numbers read for each multiply-add")):
    bars = axes.barh(list(counts), list(counts.values()), color=BLUE)
    axes.bar_label(bars, [f"{count:,.3g}" if count < 10 else f"{count:,d}" for count in counts.values()], padding=4)
    axes.set(title=title, xlim=(0, 1.25 * max(counts.values())))
    axes.invert_yaxis()
for axes in (keep, of_U, of_products):
    axes.spines[["top", "right"]].set_visible(False)

picture = folder / "pictures" / "13_on_a_gpu.png"
picture.parent.mkdir(exist_ok=True)
figure.savefig(picture, dpi=110, metadata={"Software": None})
print(f"\npicture: {picture}")
print(f"{time.perf_counter() - started:.0f} seconds")
