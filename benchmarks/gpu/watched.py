"""A little of everything, small: what a checker of memory and races watches, without PyTorch.  Prints a line for each
thing, and says at the end whether all of it was right."""
import functools

import numpy as np

import minilstm
from gpu import smoke
from minilstm import device
from minilstm.attention import attend, attend_backward
from minilstm.matmul import gpu as matmul
from minilstm.recurrence import gpu as recurrence

ALLOWED = {False: 1e-4, True: 1e-2}     # of the largest number of an array; True: where factors are rounded to TF32


def programs():
    """dict name -> a function that raises where something is wrong; each wait in vain would only cost time here."""
    found = {name: check for name, check in smoke.CHECKS.items() if name != "waiting_in_vain"}
    for kind in ("LSTM", "GRU"):
        for walk, tf32 in (("steps", False), ("rows", False), ("blocks", False), ("blocks", True)):
            found[f"{kind}, {walk}, TF32 {tf32}"] = functools.partial(of_layer, kind, walk, tf32)
    found |= {f"product, {name}": functools.partial(of_product, name) for name in matmul.KERNELS}
    return found | {"attention": of_attention}


def of_product(name, M=33, N=20, K=17):
    rng = np.random.default_rng()
    A, B, bias = (rng.standard_normal(shape, dtype="float32") for shape in ((K, M), (K, N), N))
    C = matmul.KERNELS[name](device.to_device(A).T, device.to_device(B), device.to_device(bias))
    compare({"C": C}, {"C": A.T @ B + bias}, name == "tensor")


def of_layer(kind, walk, tf32, B=9, T=3, H=32):
    """On tensor cores where at least eight rows share them."""
    device.allow_tf32(tf32)
    rng = np.random.default_rng()
    nets = [getattr(minilstm, kind)(H, H, backend=backend) for backend in ("gpu", "reference")]
    x, dy = (rng.standard_normal((B, T, H), dtype="float32") for _ in range(2))
    results = []
    with recurrence.using(walk):
        for net in nets:
            net.load_state_dict(nets[0].state_dict())
            out, cache = net.forward(x, lengths=[T] * (B - 2) + [T - 1, 1])
            dx = net.backward(cache, dy).dx
            results.append({"y": out.y, "dx": dx, **net.grads})
    compare(*results, tf32)


def of_attention(B=2, T=5, d=4):
    rng = np.random.default_rng()
    q, k, v, d_context = (rng.standard_normal((B, T, d), dtype="float32") for _ in range(4))
    results = []
    for backend in ("gpu", "reference"):
        context, cache = attend(q, k, v, causal=True, backend=backend)
        results.append(dict(zip(("context", "dq", "dk", "dv"), (context, *attend_backward(cache, d_context)))))
    compare(*results)


def compare(found, expected, tf32=False):
    for name in expected:
        a, b = np.asarray(found[name]), np.asarray(expected[name])
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error <= ALLOWED[tf32]:
            raise ArithmeticError(f"{name}: relative error {error:.1e}, allowed {ALLOWED[tf32]:.0e}")


def run():
    """-> how many were wrong."""
    wrong = 0
    for name, program in programs().items():
        device.allow_tf32(False)
        try:
            program()
            print(f"{name}: ok", flush=True)
        except Exception as error:
            wrong += 1
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
    return wrong
