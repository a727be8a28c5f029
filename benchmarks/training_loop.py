"""What does the loop around a model cost?  A step of ``fit`` (batching, loss, clipping, Adam, progress bar) beside the
forward and backward pass in it.

A Sequential of an LSTM and a Linear layer, float32, an epoch of 20 batches, 1 and 2 threads, in turn, medians of pairs.
"Share" is what is not the model's, of the whole time.

Run:  pip install -e . && python benchmarks/training_loop.py                    (less than a minute)
      --save: keep the figures in benchmarks/results/
"""
import argparse
import contextlib
import datetime
import io
import statistics

import numpy as np

import minilstm
from measure import interleaved, machine, markdown_table, save

SHAPES = [(32, 50, 32, 64), (32, 100, 64, 128)]         # B, T, D, H
BATCHES = 20


class Terminal(io.StringIO):
    """What a progress bar takes for a terminal."""

    def isatty(self):
        return True


def programs(shape):
    """dict name -> an epoch."""
    rng = np.random.default_rng(0)
    B, T, D, H = shape
    model = minilstm.Sequential(minilstm.LSTM(D, H), minilstm.Linear(H, 1))
    x, target = (rng.standard_normal((B * BATCHES, T, F), dtype="float32") for F in (D, 1))
    optimizer, dy = minilstm.Adam(), target[:B] / (B * T)

    def model_alone():
        for first in range(0, len(x), B):
            _, cache = model.forward(x[first:first + B], training=True)
            model.backward(cache, dy)

    def fit():
        with contextlib.redirect_stderr(Terminal()):
            minilstm.fit(model, x, target, epochs=1, batch_size=B, optimizer=optimizer)

    return {"model": model_alone, "fit": fit}


def share(times):
    """The part of fit's time that is not the model's: the median over pairs."""
    return statistics.median(1 - alone / whole for alone, whole in zip(times["model"], times["fit"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="pairs to take the median of")
    parser.add_argument("--save", action="store_true", help="keep the figures")
    arguments = parser.parse_args()
    found = []
    for shape in SHAPES:
        for threads in (1, 2):
            minilstm.set_num_threads(threads)
            times = interleaved(programs(shape), arguments.repeats)
            step = {name: statistics.median(seconds) / BATCHES * 1e6 for name, seconds in times.items()}
            found.append({"shape": shape, "threads": threads, "share": share(times), "microseconds": step})
    rows = [[str(tuple(one["shape"])), one["threads"], f"{one['microseconds']['model']:.0f}",
             f"{one['microseconds']['fit']:.0f}", f"{100 * one['share']:.1f} %"] for one in found]
    print(markdown_table(["(B, T, D, H)", "threads", "model, us a step", "fit, us a step", "share of the loop"], rows))
    if arguments.save:
        print(save("training_loop", {"machine": machine(), "day": str(datetime.date.today()), "found": found}))


if __name__ == "__main__":
    main()
