"""Is padding free?  The time of a training step of a padded batch, beside one of the same shape that is all real.

"ragged": lengths spread evenly from 1 to T, so that about half of all steps are padding.  "holes": each step is masked
with probability 1/2.  Free is a ratio equal to the share of real steps; a library that computes what it masks has 1.
float32, 1 and 2 threads, programs in turn, medians of pairs.  Checked first: each row by itself gives the same bits.

Run:  pip install -e . && python benchmarks/padding.py                          (about a minute)
      --save: keep the figures in benchmarks/results/ and the table in README.md
"""
import argparse
import datetime

import numpy as np

import minilstm
from measure import interleaved, into_readme, machine, markdown_table, median_ratio, save

SHAPES = [(32, 50, 32, 64), (32, 100, 64, 128), (64, 100, 128, 256)]
MASKS = {
    "ragged": lambda rng, B, T: np.arange(T) < np.linspace(1, T, B).round()[rng.permutation(B), None],
    "holes": lambda rng, B, T: rng.random((B, T)) < 0.5,
}


def programs(kind, shape):
    """dict name -> a training step, and dict name -> the share of real steps."""
    rng = np.random.default_rng(0)
    B, T, D, H = shape
    net = getattr(minilstm, kind)(D, H)
    x, dy = (rng.standard_normal((B, T, F), dtype="float32") for F in (D, H))
    masks = {"full": None} | {name: make(rng, B, T) for name, make in MASKS.items()}
    for mask in list(masks.values())[1:]:
        check(net, x, mask)

    def step(mask):
        net.zero_grads()
        out, cache = net.forward(x, mask)
        net.backward(cache, dy)

    shares = {name: 1.0 if mask is None else float(mask.mean()) for name, mask in masks.items()}
    return {name: lambda mask=mask: step(mask) for name, mask in masks.items()}, shares


def check(net, x, mask):
    """Row by row, without padding."""
    y = net.forward(x, mask, cache=False)[0].y
    for b in range(0, len(x), 7):
        alone = net.forward(x[b:b + 1, mask[b]], cache=False)[0].y
        if not np.array_equal(y[b, mask[b]], alone[0]):
            raise SystemExit(f"row {b}: other bits in the batch than alone")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="pairs to take the median of")
    parser.add_argument("--save", action="store_true", help="keep the figures, and the table in README.md")
    arguments = parser.parse_args()
    found = []
    for kind in ("LSTM", "GRU"):
        for shape in SHAPES:
            for threads in (1, 2):
                minilstm.set_num_threads(threads)
                steps, shares = programs(kind, shape)
                times = interleaved(steps, arguments.repeats)
                for name in MASKS:
                    found.append({"kind": kind, "shape": shape, "threads": threads, "mask": name, "real": shares[name],
                                  "time": median_ratio(times, name, "full")})
    rows = []
    for kind in ("LSTM", "GRU"):
        for shape in SHAPES:
            cells = []
            for name in MASKS:
                one, two = (row for row in found if (row["kind"], row["shape"], row["mask"]) == (kind, shape, name))
                cells += [f"{one['real']:.2f}", f"{one['time']:.2f} / {two['time']:.2f}"]
            rows.append([kind, str(shape), *cells])
    table = markdown_table(["", "(B, T, D, H)", "ragged: real steps", "time", "holes: real steps", "time"], rows)
    print(table)
    if arguments.save:
        print("saved:", save("padding", {"machine": machine(), "parts of the full batch": found}))
        here = machine()
        into_readme("padding", f"Parts of a full batch of the same shape, time on 1 / 2 threads, float32, "
                               f"{here['processor']}, {here['cores']} cores, {datetime.date.today()}:\n\n{table}")


if __name__ == "__main__":
    main()
