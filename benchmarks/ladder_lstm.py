"""From Python to the library in eight rungs: the forward pass of an LSTM layer, each rung one idea faster.

    1  pure Python            every number an object (only a part of the batch: it takes too long)
    2  NumPy per step         the rows of a step at once; BLAS for the products
    3  one projection         x @ W.T of all steps in one product
    4  compiled gates         the formulas in one pass over memory, in vector instructions
    5  whole sequences        the loop over time compiled too: no Python between the steps
    6  micro-kernel           the library on one thread: sums stay in registers, panels of weights in the nearest cache
    7  all threads            each owns some rows for the whole sequence
    8  ragged                 rows of T/4 to T real steps: masked ones are skipped; before it, all are computed

Rungs 1 to 5 stand in ``benchmarks/ladder/rungs.py``, the others are minilstm.LSTM.  Each is checked against the
reference, then all are timed in turn.  A multiply-add of a real step counts two operations; the peak is that of the
micro-kernel's block on data that stays in the nearest cache, measured here, times the threads.

Run:  pip install -e . && python benchmarks/ladder_lstm.py              (about a minute)
      --save: keep the figures and the picture in benchmarks/results/ and the table in README.md
"""
import argparse
import datetime
import os
import statistics
import sys
from typing import Callable, NamedTuple

import matplotlib
import numpy as np

import minilstm
from ladder import rungs
from measure import ROOT, interleaved, into_readme, machine, markdown_table, save
from minilstm.machine.kernel import kernel
from minilstm.matmul.cpu import ROWS, block_of_rows, lanes_of

SHAPE = (32, 100, 64, 128)                                          # (B, T, D, H)
IN_PYTHON = (1, 2)                                                  # rows and steps that rung 1 computes
ALLOWED_ERROR = 1e-4                                                # of the largest number in y


class Rung(NamedTuple):
    name: str
    program: Callable       # without parameters -> y
    expected: np.ndarray
    steps: int              # real ones, of all rows together
    moved: int              # bytes
    threads: int


@kernel
def multiply_adds(A, panel, C, times):
    """One block of the micro-kernel again and again, on the same numbers."""
    for _ in range(times):
        block_of_rows(A, 0, A.shape[1], 1, panel, 0, 0, 0, A.shape[1], C, 0, C.shape[1], C, 0, C.shape[1])


def peak_of_one_core():
    """Multiply-adds a second, times two, of the processor's vector units, as far as the block reaches it."""
    K, times = 256, 20_000
    A, C = np.full((ROWS, K), 1e-3, "float32"), np.zeros((ROWS, lanes_of("float32")), "float32")
    panel = np.full((1, K, C.shape[1]), 1e-3, "float32")
    seconds = interleaved({"peak": lambda: multiply_adds(A, panel, C, times)}, 9)["peak"]
    return 2 * times * K * C.size / min(seconds)


def ladder(threads):
    """-> the rungs, in order."""
    B, T, D, H = SHAPE
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, D), dtype="float32")
    net = minilstm.LSTM(D, H)
    W, U = net.params["weight_ih_l0"], net.params["weight_hh_l0"]
    b = net.params["bias_ih_l0"] + net.params["bias_hh_l0"]
    lengths = np.linspace(T, T // 4, B).round().astype(int)
    reference = minilstm.LSTM(D, H, backend="reference")
    y, y_ragged = (reference.forward(x, lengths=n, cache=False)[0].y for n in (None, lengths))
    rows, steps = IN_PYTHON
    few = np.ascontiguousarray(x[:rows, :steps])

    def library(count, lengths=None):
        minilstm.set_num_threads(count)
        return net.forward(x, lengths=lengths, cache=False)[0].y

    def padding_computed():
        return np.where(np.arange(T)[:, None] < lengths[:, None, None], library(threads), np.float32(0))

    def own(function, moved, name):
        return Rung(name, lambda: function(x, W, U, b), y, B * T, moved(*SHAPE), 1)

    def one_thread(program):
        minilstm.set_num_threads(1)
        return program()

    moved = rungs.bytes_of_the_library(*SHAPE)
    share = lengths.sum() / (B * T)
    return [
        Rung("pure Python", lambda: rungs.pure_python(few, W, U, b), y[:rows, :steps], rows * steps,
             rungs.bytes_of_pure_python(rows, steps, D, H), 1),
        own(rungs.numpy_per_step, rungs.bytes_of_numpy_per_step, "NumPy per step"),
        own(rungs.one_projection, rungs.bytes_of_one_projection, "one projection"),
        own(rungs.compiled_gates, rungs.bytes_of_compiled_gates, "compiled gates"),
        Rung("whole sequences", lambda: one_thread(lambda: rungs.whole_sequences(x, W, U, b)), y, B * T,
             rungs.bytes_of_whole_sequences(*SHAPE), 1),
        Rung("micro-kernel", lambda: library(1), y, B * T, moved, 1),
        Rung("all threads", lambda: library(threads), y, B * T, moved, threads),
        Rung("ragged, padding computed", padding_computed, y_ragged, lengths.sum(), moved, threads),
        Rung("ragged", lambda: library(threads, lengths), y_ragged, lengths.sum(), int(moved * share), threads)]


def measure(found, peak, repeats):
    """-> one row a rung: name, seconds, operations a second, share of the peak, bytes."""
    _, _, D, H = SHAPE
    for rung in found:
        error = np.abs(rung.program() - rung.expected).max() / np.abs(rung.expected).max()
        if not error <= ALLOWED_ERROR:                              # a NaN fails too
            raise SystemExit(f"{rung.name}: relative error {error:.1e}, allowed {ALLOWED_ERROR:.0e}")
    times = interleaved({rung.name: rung.program for rung in found}, repeats, seconds=0.05)
    rows = []
    for rung in found:
        seconds = statistics.median(times[rung.name])
        speed = 2 * rung.steps * 4 * H * (D + H) / seconds
        rows.append({"rung": rung.name, "threads": rung.threads, "ms": 1e3 * seconds, "real steps": int(rung.steps),
                     "GF/s": speed / 1e9, "share of peak": speed / (peak * rung.threads),
                     "bytes a step": rung.moved / rung.steps})
    return rows


def table(rows):
    head = ["rung", "threads", "time of all real steps", "GF/s", "of the peak", "KiB moved a step and row"]
    return markdown_table(head, [[
        row["rung"], row["threads"], f"{row['ms'] * (1 if row['real steps'] > 100 else whole(row)):,.1f} ms",
        f"{row['GF/s']:.3g}", f"{100 * row['share of peak']:.2g} %", f"{row['bytes a step'] / 1024:,.0f}"]
        for row in rows])


def whole(row):
    """How many times the part that rung 1 computes goes into the whole."""
    return SHAPE[0] * SHAPE[1] / row["real steps"]


def draw(rows, peak, path):
    """A bar for each rung; the lines are the peaks of one core and of all that take part."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    names = [f"{row['rung']}" + (f" ({row['threads']} threads)" if row["threads"] > 1 else "") for row in rows]
    speeds = [row["GF/s"] for row in rows]
    axes.barh(names, speeds, color="#4477aa")
    for place, row in enumerate(rows):
        axes.annotate(f"{row['GF/s']:.3g}", (row["GF/s"], place), (5, 0), textcoords="offset points", va="center",
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    for threads in sorted({row["threads"] for row in rows}):
        axes.axvline(threads * peak / 1e9, color="black", linestyle=":" if threads > 1 else "--", linewidth=1,
                     label=f"measured peak, {threads} core{'s' * (threads > 1)}: {threads * peak / 1e9:.0f}")
    axes.set_xscale("log")
    axes.set_xlim(min(speeds) / 2, 6 * max(peak / 1e9, *speeds))
    axes.invert_yaxis()
    axes.set_xlabel("operations of real steps, GF/s (logarithmic)")
    figure.suptitle(f"One forward pass of an LSTM, (B, T, D, H) = {SHAPE}, float32", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--save", action="store_true", help="keep figures, picture and table")
    arguments = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":               # rungs 2 to 4: one thread, like their neighbours;
        os.environ["OPENBLAS_NUM_THREADS"] = "1"                    # NumPy reads it when it is imported
        os.execv(sys.executable, [sys.executable, *sys.argv])
    here = machine()
    threads = here["cores"]
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    peak = peak_of_one_core()
    rows = measure(ladder(threads), peak, arguments.repeats)
    text = table(rows)
    print(f"peak of one core: {peak / 1e9:.1f} GF/s\n{text}")
    if arguments.save:
        path = save("ladder_lstm", {"machine": here, "shape": SHAPE, "peak GF/s": peak / 1e9, "rungs": rows})
        draw(rows, peak, ROOT / "benchmarks" / "results" / "ladder_lstm.png")
        caption = (f"(B, T, D, H) = {SHAPE}, float32, {here['processor']}, {here['cores']} cores, peak of one core "
                   f"{peak / 1e9:.0f} GF/s, {datetime.date.today()}; pure Python computes two steps, its time is "
                   "scaled:\n\n")
        into_readme("ladder_lstm", caption + text)
        print(f"saved: {path}")


if __name__ == "__main__":
    main()
