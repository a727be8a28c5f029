"""What does the loop around a model cost?  Of a step of ``fit`` (batching, loss, clipping, Adam, progress bar), the
time that is not spent in the model's forward and backward pass.

A Sequential of an LSTM and a Linear layer, float32, an epoch of 20 batches, 1 and 2 threads, medians over epochs.
"Share" is what is not the model's, of the whole time of the same epoch.  "Alone": forward and backward pass on one
batch after the other, with nothing between them, in turn with epochs of ``fit``.  That is faster than the same passes
within ``fit``, for nothing else has used the caches of the processor.

Run:  pip install -e . && python benchmarks/training_loop.py                    (some minutes, compiling included)
      --save: keep the figures in benchmarks/results/
"""
import argparse
import contextlib
import datetime
import io
import time

import numpy as np

import minilstm
from measure import interleaved, machine, markdown_table, save

SHAPES = [(32, 50, 32, 64), (32, 100, 64, 128)]         # B, T, D, H
BATCHES = 20


class Terminal(io.StringIO):
    """What a progress bar takes for a terminal."""

    def isatty(self):
        return True


class Timed(minilstm.Sequential):
    """A model that adds up the seconds which it spends in its two passes."""
    seconds = 0.0

    def forward(self, *arguments, **options):
        return self._timed(super().forward, *arguments, **options)

    def backward(self, *arguments, **options):
        return self._timed(super().backward, *arguments, **options)

    def _timed(self, run, *arguments, **options):
        begun = time.perf_counter()
        try:
            return run(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - begun


def measure(shape, repeats):
    """-> dict: medians of microseconds a step, and of the loop's share."""
    rng = np.random.default_rng(0)
    B, T, D, H = shape
    model, epochs = Timed(minilstm.LSTM(D, H), minilstm.Linear(H, 1)), []
    x, target = (rng.standard_normal((B * BATCHES, T, F), dtype="float32") for F in (D, 1))
    optimizer, dy = minilstm.Adam(), target[:B] / (B * T)

    def alone():
        for first in range(0, len(x), B):
            _, cache = model.forward(x[first:first + B], training=True)
            model.backward(cache, dy)

    def fit():
        model.seconds, begun = 0.0, time.perf_counter()
        with contextlib.redirect_stderr(Terminal()):
            minilstm.fit(model, x, target, epochs=1, batch_size=B, optimizer=optimizer)
        epochs.append((time.perf_counter() - begun, model.seconds))

    fit()                                                               # compiles
    epochs.clear()
    times = interleaved({"alone": alone, "fit": fit}, repeats)
    whole, inside = np.array(epochs).T
    seconds = {"fit": whole, "model": inside, "loop": whole - inside, "alone": np.array(times["alone"])}
    return ({name: float(np.median(found) / BATCHES * 1e6) for name, found in seconds.items()}
            | {"share": float(np.median(1 - inside / whole))})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="epochs to take the median of")
    parser.add_argument("--save", action="store_true", help="keep the figures")
    arguments = parser.parse_args()
    found = []
    for shape in SHAPES:
        for threads in (1, 2):
            minilstm.set_num_threads(threads)
            found.append({"shape": shape, "threads": threads} | measure(shape, arguments.repeats))
    kinds = ("fit", "model", "loop", "alone")
    rows = [[str(tuple(one["shape"])), one["threads"], *(f"{one[kind]:.0f}" for kind in kinds),
             f"{100 * one['share']:.1f} %"] for one in found]
    print(markdown_table(["(B, T, D, H)", "threads", "fit, us a step", "its model", "its loop", "model alone", "share"],
                         rows))
    if arguments.save:
        print(save("training_loop", {"machine": machine(), "day": str(datetime.date.today()), "found": found}))


if __name__ == "__main__":
    main()
