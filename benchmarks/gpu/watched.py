"""A little of everything, small: what a checker of memory and races watches, without PyTorch.  Prints a line for each
thing, and says at the end whether all of it was right."""
import numpy as np

import minilstm
from gpu import smoke
from minilstm.attention import attend, attend_backward
from minilstm.recurrence import gpu as recurrence

ALLOWED = 1e-4                      # of the largest number of an array
RECURRENT_KERNELS = ("steps", "rows", "blocks")


def programs():
    """dict name -> a function that raises where something is wrong; each wait in vain would only cost time here."""
    found = {name: check for name, check in smoke.CHECKS.items() if name != "waiting_in_vain"}
    for kind in ("LSTM", "GRU"):
        for kernel in RECURRENT_KERNELS:
            found[f"{kind}, {kernel}"] = lambda kind=kind, kernel=kernel: of_layer(kind, kernel)
    return found | {"attention": of_attention}


def of_layer(kind, kernel, B=3, T=4, H=32):
    rng = np.random.default_rng()
    nets = [getattr(minilstm, kind)(H, H, backend=backend) for backend in ("gpu", "reference")]
    x, dy = (rng.standard_normal((B, T, H), dtype="float32") for _ in range(2))
    results = []
    with recurrence.using(kernel):
        for net in nets:
            net.load_state_dict(nets[0].state_dict())
            out, cache = net.forward(x, lengths=[T, T - 1, 1])
            dx = net.backward(cache, dy).dx
            results.append({"y": out.y, "dx": dx, **net.grads})
    compare(*results)


def of_attention(B=2, T=5, d=4):
    rng = np.random.default_rng()
    q, k, v, d_context = (rng.standard_normal((B, T, d), dtype="float32") for _ in range(4))
    results = []
    for backend in ("gpu", "reference"):
        context, cache = attend(q, k, v, causal=True, backend=backend)
        results.append(dict(zip(("context", "dq", "dk", "dv"), (context, *attend_backward(cache, d_context)))))
    compare(*results)


def compare(found, expected):
    for name in expected:
        a, b = np.asarray(found[name]), np.asarray(expected[name])
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error <= ALLOWED:
            raise ArithmeticError(f"{name}: relative error {error:.1e}, allowed {ALLOWED:.0e}")


def run():
    """-> how many were wrong."""
    wrong = 0
    for name, program in programs().items():
        try:
            program()
            print(f"{name}: ok", flush=True)
        except Exception as error:
            wrong += 1
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
    return wrong
