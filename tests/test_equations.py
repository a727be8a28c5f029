"""The layers compute the equations in their cells' docstrings, here once more in scalar arithmetic on lists of numbers,
sharing no code with the library."""
import math

import numpy as np
import pytest

from helpers import KINDS, assert_close, random_batch, random_layer, states_of


def sigma(a):
    return 1 / (1 + math.exp(-a))


def times(M, v):
    return [sum(m * u for m, u in zip(row, v)) for row in M]


def add(*vectors):
    return [sum(numbers) for numbers in zip(*vectors)]


def normalised(v):
    mean = sum(v) / len(v)
    variance = sum((u - mean) ** 2 for u in v) / len(v)
    return [(u - mean) / math.sqrt(variance + 1e-5) for u in v]


def scaled(v, *gains):
    return [u * g for u, g in zip(v, [g for row in gains for g in row])]


def blocks(a, H):
    return [a[k:k + H] for k in range(0, len(a), H)]


def lstm(kind, p, x, h, c):
    H = len(c)
    W, U, b_ih, b_hh, own = (p[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "own"))
    if "norm" in kind:
        a = add(scaled(normalised(times(W, x)), *own[:4]), b_ih, scaled(normalised(times(U, h)), *own[4:8]), b_hh)
    else:
        a = add(times(W, x), b_ih, times(U, h), b_hh)
    if "coupled" in kind:
        a_i, a_g, a_o = blocks(a, H)
        i = [sigma(u) for u in a_i]
        f = [1 - u for u in i]
    else:
        a_i, a_f, a_g, a_o = blocks(a, H)
        peep_i, peep_f = ((own[0], own[1]) if "peep" in kind else ([0] * H, [0] * H))
        i = [sigma(u + w * m) for u, w, m in zip(a_i, peep_i, c)]
        f = [sigma(u + w * m) for u, w, m in zip(a_f, peep_f, c)]
    c = [f[j] * c[j] + i[j] * math.tanh(a_g[j]) for j in range(H)]
    o = [sigma(a_o[j] + (own[2][j] * c[j] if "peep" in kind else 0)) for j in range(H)]
    shown = add(scaled(normalised(c), own[8]), own[9]) if "norm" in kind else c
    m = [o[j] * math.tanh(shown[j]) for j in range(H)]
    return (times(p["weight_hr"], m) if "projection" in kind else m), c


def gru(kind, p, x, h):
    H = len(h)
    W, U, b_ih, b_hh, own = (p[name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "own"))
    s_x, s_h = times(W, x), times(U, h)
    if "norm" in kind:
        s_x, s_h = scaled(normalised(s_x), *own[:3]), scaled(normalised(s_h), *own[3:])
    (x_r, x_z, x_n), (h_r, h_z, h_n) = blocks(add(s_x, b_ih), H), blocks(add(s_h, b_hh), H)
    r, z = ([sigma(u + v) for u, v in zip(*pair)] for pair in ((x_r, h_r), (x_z, h_z)))
    if "before" in kind:
        hears = add(times(U[2 * H:], [r[j] * h[j] for j in range(H)]), b_hh[2 * H:])
    else:
        hears = [r[j] * h_n[j] for j in range(H)]
    return [(1 - z[j]) * math.tanh(x_n[j] + hears[j]) + z[j] * h[j] for j in range(H)]


def rnn(kind, p, x, h):
    a = add(times(p["weight_ih"], x), p["bias_ih"], times(p["weight_hh"], h), p["bias_hh"])
    return [math.tanh(u) if "tanh" in kind else max(u, 0.0) for u in a]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_is_the_written_equations(kind, backend):
    """One row, step by step and unit by unit."""
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, 2, 3, dtype="float64", backend=backend)
    batch = random_batch(rng, net, B=1, T=4)
    out, _ = net.forward(batch["x"], **states_of(batch))
    p = {name.removesuffix("_l0"): array.tolist() for name, array in net.params.items()} | {
        "own": net.params.get("own_l0", np.zeros((0, 3))).tolist()}
    h, c = batch["h0"][0, 0, 0].tolist(), batch.get("c0", np.zeros((1, 1, 1, 3)))[0, 0, 0].tolist()
    for t in range(4):
        x = batch["x"][0, t].tolist()
        if kind.startswith("LSTM"):
            h, c = lstm(kind, p, x, h, c)
        else:
            h = gru(kind, p, x, h) if kind.startswith("GRU") else rnn(kind, p, x, h)
        assert_close(out.y[0, t], h, "same formulas, float64")
    assert_close(out.h_n[0, 0, 0], h, "same formulas, float64")
    if "c0" in batch:
        assert_close(out.c_n[0, 0, 0], c, "same formulas, float64")
