"""How much memory does a training step take, in minilstm and in PyTorch?

For each shape a process of its own builds the layer and its arrays, takes a small step, so that all code is loaded, and
then three at full size.  The figure is how far the peak of its memory lies above what it held before these: outputs,
everything kept for the backward pass, and gradients.  float32, one thread.  Needs /proc, as on Linux.

Run:  pip install -e '.[peers]' && python benchmarks/memory.py                  (about a minute)
      --save: keep the figures in benchmarks/results/
"""
import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from measure import machine, markdown_table, save

SHAPES = [(8, 100, 64, 64), (32, 100, 64, 128), (64, 100, 128, 256), (64, 50, 256, 512), (64, 25, 512, 1024)]


def status(key):
    """A figure of /proc/self/status, in MiB."""
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024


def measure(library, kind, shape):
    """In this process: MiB that the peak of three training steps lies above what was held before them."""
    import torch
    import minilstm
    from minilstm.interop import from_pytorch
    torch.set_num_threads(1)
    minilstm.set_num_threads(1)
    B, T, D, H = shape

    def steps(B, T, D, H, count):
        theirs = getattr(torch.nn, kind)(D, H, batch_first=True)
        ours = from_pytorch(theirs) if library == "minilstm" else None
        x, dy = torch.randn(B, T, D, requires_grad=True), torch.randn(B, T, H)
        before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")                           # the peak begins anew
        for _ in range(count):
            if ours:
                ours.zero_grads()
                out, cache = ours.forward(x.detach().numpy())
                ours.backward(cache, dy.numpy())
                del out, cache
            else:
                theirs.zero_grad()
                x.grad = None
                theirs(x)[0].backward(dy)
        return status("VmHWM") - before

    steps(2, 2, 16, 16, 1)
    return steps(B, T, D, H, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(*json.loads(arguments.one)))
        return
    found = []
    for kind in ("LSTM", "GRU"):
        for shape in SHAPES:
            row = {"kind": kind, "shape": shape}
            for library in ("minilstm", "PyTorch"):
                done = subprocess.run([sys.executable, __file__, "--one", json.dumps([library, kind, shape])],
                                      capture_output=True, text=True, check=True)
                row[library] = round(float(done.stdout), 1)
            found.append(row)
    print(markdown_table(["", "(B, T, D, H)", "minilstm, MiB", "PyTorch, MiB"], [list(row.values()) for row in found]))
    if arguments.save:
        print("saved:", save("memory", {"machine": machine(), "MiB": found}))


if __name__ == "__main__":
    main()
