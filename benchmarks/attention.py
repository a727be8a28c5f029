"""How fast is attention beside PyTorch's, and how much memory does it take?

    dot         forward and the gradients of q, k and v, one head, beside PyTorch's scaled_dot_product_attention
    padded      the same with lengths from T/2 to T; PyTorch gets them as a mask of keys
    causal      the same, every query sees the keys up to its own step
    additive    scores sum(w * tanh(q + k)), beside the same formula written with PyTorch's operators

Every program is checked before it is timed: contexts and gradients agree, where a step is real.  float32, the same
number of threads for both, programs in turn; a ratio is PyTorch's time over ours, the median over pairs: above 1,
minilstm is faster.

Memory: in a process of its own, how far the peak of a forward and backward pass of one sequence, d = 64, lies above
what was held before it.  Needs /proc, as on Linux.

Run:  pip install -e '.[peers]' && python benchmarks/attention.py               (about six minutes)
      --save: keep figures in benchmarks/results/ and the tables in README.md
"""
import argparse
import datetime
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import minilstm
from measure import interleaved, into_readme, machine, markdown_table, median_ratio, save
from memory import status
from minilstm.attention import attend, attend_additive, attend_additive_backward, attend_backward

SHAPES = [(32, 50, 64), (8, 512, 64), (2, 2048, 64)]                            # (B, T, d)
WORK = ("dot", "padded", "causal", "additive")
LONG = [512, 1024, 2048, 4096, 8192]                                            # T, for the memory
ALLOWED_ERROR = 1e-4                                                            # of the largest number in an array


class Case:
    """One piece of work, in both libraries."""

    def __init__(self, work, shape):
        B, T, d = shape
        torch.manual_seed(0)
        self.work = work
        self.theirs = [torch.randn(B, 1, T, d, requires_grad=True) for _ in range(3)]
        self.d_theirs = torch.randn(B, 1, T, d)
        self.w_theirs = torch.randn(d, requires_grad=True)
        *self.ours, self.d_ours = (a.detach().numpy()[:, 0].copy() for a in (*self.theirs, self.d_theirs))
        self.w_ours = self.w_theirs.detach().numpy().copy()
        lengths = np.linspace(T // 2, T, B).round() if work == "padded" else np.full(B, T)
        self.mask = np.arange(T) < lengths[:, None]
        self.mask_theirs = torch.from_numpy(self.mask)[:, None, None, :]
        self.check()

    def our_program(self):
        """-> context, dq, dk, dv"""
        if self.work == "additive":
            context, cache = attend_additive(*self.ours, self.w_ours)
            return context, *attend_additive_backward(cache, self.d_ours)[:3]
        masks = {"key_mask": self.mask, "query_mask": self.mask} if self.work == "padded" else {}
        context, cache = attend(*self.ours, causal=self.work == "causal", **masks)
        return context, *attend_backward(cache, self.d_ours)

    def their_program(self):
        for a in (*self.theirs, self.w_theirs):
            a.grad = None
        q, k, v = self.theirs
        if self.work == "additive":
            scores = torch.tanh(q[:, :, :, None] + k[:, :, None]) @ self.w_theirs
            context = torch.softmax(scores, dim=-1) @ v
        else:
            context = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=self.mask_theirs if self.work == "padded" else None, is_causal=self.work == "causal")
        context.backward(self.d_theirs)
        return context

    def check(self):
        """Both agree; where a query is padding, its gradient is none in ours, so PyTorch's is made 0, too."""
        self.d_theirs[~torch.from_numpy(self.mask)[:, None, :].expand(self.d_theirs.shape[:3])] = 0
        self.d_ours[~self.mask] = 0
        context = self.their_program()
        for name, found, expected in zip(("context", "dq", "dk", "dv"), self.our_program(),
                                         (context, *(a.grad for a in self.theirs))):
            expected = expected.detach().numpy()[:, 0]
            error = np.abs(found - expected)[self.mask].max() / np.abs(expected[self.mask]).max()
            if not error < ALLOWED_ERROR:
                raise SystemExit(f"{self.work}: {name}: relative error {error:.1e}, allowed {ALLOWED_ERROR:.0e}")


def peak(T):
    """In this process: MiB that the peak of a forward and backward pass lies above what was held before it."""
    def run(T):
        rng = np.random.default_rng(0)
        q, k, v, d_context = (rng.standard_normal((1, T, 64), dtype="float32") for _ in range(4))
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")                           # the peak begins anew
        _, cache = attend(q, k, v)
        attend_backward(cache, d_context)
        return status("VmHWM") - before

    run(16)
    return run(T)


def times(repeats):
    """A list of dicts, one for each work, shape and number of threads."""
    found = []
    for work in WORK:
        for shape in SHAPES:
            case = Case(work, shape)
            for threads in (1, 2):
                minilstm.set_num_threads(threads)
                torch.set_num_threads(threads)
                seconds = interleaved({"minilstm": case.our_program, "PyTorch": case.their_program}, repeats)
                found.append({"work": work, "shape": shape, "threads": threads,
                              "ratio": median_ratio(seconds, "PyTorch", "minilstm"),
                              "ms": 1e3 * float(np.median(seconds["minilstm"]))})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="pairs to take the median of")
    parser.add_argument("--save", action="store_true", help="keep the figures, and the tables in README.md")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(arguments.peak))
        return
    found = times(arguments.repeats)
    rows = []
    for shape in SHAPES:
        pairs = [[row for row in found if (row["work"], row["shape"]) == (work, shape)] for work in WORK]
        rows.append([str(shape), *(f"{one['ratio']:.2f} / {two['ratio']:.2f} ({two['ms']:.1f} ms)"
                                   for one, two in pairs)])
    table = markdown_table(["(B, T, d)", *WORK], rows)
    memory = {T: round(float(subprocess.run([sys.executable, __file__, "--peak", str(T)], capture_output=True,
                                            text=True, check=True).stdout), 1) for T in LONG}
    memory_table = markdown_table(["T", *LONG], [["MiB", *memory.values()], [
        "MiB of one matrix of scores", *(round(4 * T * T / 2**20, 1) for T in LONG)]])
    print(table, memory_table, sep="\n\n")
    if arguments.save:
        here, torch_version = machine(), importlib.metadata.version("torch")
        print("saved:", save("attention", {"machine": here | {"torch": torch_version}, "times": found, "MiB": memory}))
        into_readme("attention", f"PyTorch's time / ours on 1 / 2 threads, forward and backward (ours on 2 threads), "
                                 f"float32, {here['processor']}, {here['cores']} cores, torch {torch_version}, "
                                 f"{datetime.date.today()}:\n\n{table}\n\nPeak memory of one sequence, d = 64, forward "
                                 f"and backward:\n\n{memory_table}")


if __name__ == "__main__":
    main()
