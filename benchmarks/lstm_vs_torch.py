"""How fast is minilstm.LSTM beside torch.nn.LSTM on the same threads of the same processor?

For each shape: check that both give the same outputs and gradients, then time, in turn,

    forward     outputs and final states
    training    forward, then the gradients of x and of every weight and bias, from a given gradient of y

float32, batch first, no mask.  Both programs hold their arrays before the clock starts.  The ratio is PyTorch's time
over ours, the median over pairs of neighbouring runs: above 1, minilstm is faster.

Run:  pip install -e '.[peers]' && python benchmarks/lstm_vs_torch.py            (about four minutes)
      add --save to keep the figures in benchmarks/results/ and the table in README.md
"""
import argparse
import datetime
import statistics

import numpy as np
import torch

import minilstm
from measure import geometric_mean, interleaved, into_readme, machine, markdown_table, median_ratio, save

SHAPES = [(1, 100, 8, 8), (8, 100, 64, 64), (32, 50, 32, 64), (32, 100, 64, 128), (64, 100, 128, 256),
          (64, 50, 256, 512), (64, 25, 512, 1024)]                              # (B, T, D, H)
ALLOWED_ERROR = 1e-4                                                            # of the largest number in an array


def pair(shape):
    """The two layers with the same weights, as four programs without arguments, after a check of their results."""
    B, T, D, H = shape
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(D, H, batch_first=True)
    ours = minilstm.LSTM(D, H)
    ours.load_state_dict({name: p.detach().numpy() for name, p in theirs.named_parameters()})
    x_torch, dy_torch = torch.randn(B, T, D, requires_grad=True), torch.randn(B, T, H)
    x, dy = x_torch.detach().numpy(), dy_torch.numpy()

    def torch_forward():
        with torch.no_grad():
            return theirs(x_torch)

    def torch_training():
        theirs.zero_grad()
        x_torch.grad = None
        y, _ = theirs(x_torch)
        y.backward(dy_torch)
        return y

    def our_forward():
        return ours.forward(x, cache=False)

    def our_training():
        ours.zero_grads()
        out, cache = ours.forward(x)
        return out.y, ours.backward(cache, dy).dx

    y_torch = torch_training()
    y, dx = our_training()
    check("y", y, y_torch)
    check("dx", dx, x_torch.grad)
    for name, p in theirs.named_parameters():
        check(name, ours.grads[name], p.grad)
    return {"torch forward": torch_forward, "our forward": our_forward,
            "torch training": torch_training, "our training": our_training}


def check(name, found, expected):
    expected = expected.detach().numpy()
    error = np.abs(found - expected).max() / np.abs(expected).max()
    if not error <= ALLOWED_ERROR:                                              # a NaN fails too
        raise SystemExit(f"{name}: relative error {error:.1e}, allowed {ALLOWED_ERROR:.0e}")


def measure(threads, repeats):
    torch.set_num_threads(threads)
    minilstm.set_num_threads(threads)
    rows = []
    for shape in SHAPES:
        times = interleaved(pair(shape), repeats)
        row = {"shape": shape, "threads": threads,
               "milliseconds": {name: round(1e3 * statistics.median(t), 4) for name, t in times.items()}}
        for work in ("forward", "training"):
            row[work] = round(median_ratio(times, f"torch {work}", f"our {work}"), 3)
        print(f"{threads} thread(s)  {str(shape):22s} forward {row['forward']:5.2f}   training {row['training']:5.2f}",
              *(f"{name} {t:.2f} ms" for name, t in row["milliseconds"].items()), sep="   ", flush=True)
        rows.append(row)
    means = {work: round(geometric_mean([row[work] for row in rows]), 3) for work in ("forward", "training")}
    print(f"{threads} thread(s)  {'geometric mean':22s} forward {means['forward']:5.2f}   "
          f"training {means['training']:5.2f}")
    return rows, means


def table(results):
    """The README's table: one row a shape, one pair of columns a number of threads."""
    columns = [(threads, work) for threads in results for work in ("forward", "training")]
    head = ["(B, T, D, H)", *(f"{work}, {threads} thread{'s' * (threads > 1)}" for threads, work in columns)]
    lines = [[shape, *(f"{results[threads][0][k][work]:.2f}" for threads, work in columns)]
             for k, shape in enumerate(SHAPES)]
    means = ["geometric mean", *(f"**{results[threads][1][work]:.2f}**" for threads, work in columns)]
    return markdown_table(head, [*lines, means])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and all cores")
    parser.add_argument("--repeats", type=int, default=15, help="pairs of runs for each figure")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/ and README.md")
    arguments = parser.parse_args()
    here = machine() | {"torch": torch.__version__}
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    threads = arguments.threads or sorted({1, here["cores"]})
    results = {count: measure(count, arguments.repeats) for count in threads}
    if arguments.save:
        path = save("lstm_vs_torch", {
            "machine": here, "ratio": "PyTorch's time / ours, median over pairs", "repeats": arguments.repeats,
            "rows": [row for rows, _ in results.values() for row in rows],
            "geometric means": {count: means for count, (_, means) in results.items()}})
        caption = (f"PyTorch's time / ours, float32, {here['processor']}, {here['cores']} cores, PyTorch "
                   f"{here['torch']}, Numba {here['numba']}, {datetime.date.today()}:\n\n")
        into_readme("lstm_vs_torch", caption + table(results))
        print(f"saved: {path}")


if __name__ == "__main__":
    main()
