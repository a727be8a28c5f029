"""A row bias, what a row of the batch says at every step, is more columns of x that do not change in time."""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, long_unless, masks, same_bits
from minilstm import cells
from minilstm.cells import Weights
from minilstm.recurrence import cpu, reference, schedule

CELLS = {cell.name: cell for cell in vars(cells).values() if isinstance(cell, cells.Cell)}


def random_weights(rng, cell, D, H, scale=0.5):
    """Weights, and R, the width of h."""
    GH, R = len(cell.blocks) * H, max(H - 1, 1) if cell.projects else H
    shapes = ((GH, D), (GH, R), (GH,), (GH,), (len(cell.own), H), (R if cell.projects else 0, H))
    return Weights(*(scale * rng.normal(size=shape) for shape in shapes)), R


def random_call(rng, cell, B, T, D, C, H, scale=0.5):
    """The arguments of forward and backward, and a condition (B,C) with its weights (G*H,C).  A cell that fades reads
    R factors behind the D features."""
    weights, R = random_weights(rng, cell, D, H, scale)
    x = rng.normal(size=(B, T, D + (R if cell.fades else 0)))
    widths = (R, H)[:len(cell.states)]
    initial, d_final = ([rng.normal(size=(B, width)) for width in widths] for _ in range(2))
    zoneout = [(rng.random((B, T, width)) < 0.3).astype(float) for width in widths]
    keep = (rng.random((B, R)) < 0.7) / 0.7
    condition, W_c = rng.normal(size=(B, C)), scale * rng.normal(size=(len(cell.blocks) * H, C))
    return weights._replace(keep=keep), x, initial, zoneout, rng.normal(size=(B, T, R)), d_final, condition, W_c


def run(backend, cell, weights, x, mask, initial, reverse, zoneout, dy, d_final):
    y, finals, cache = backend.forward(cell, weights, x, mask, initial, reverse, zoneout)
    dx, d_initial, d_weights = backend.backward(cache, dy, d_final)
    return y, *finals, *d_initial, dx, d_weights


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("backend", [reference, cpu])
def test_a_row_bias_equals_a_condition_that_is_tiled_over_time(monkeypatch, name, backend):
    """Values and gradients, under every mask, in both directions, with dropout and zoneout; where x @ W.T is made
    within the loop and before it; in stretches of time."""
    rng = np.random.default_rng(1)
    cell = CELLS[name]
    monkeypatch.setattr(cpu, "STRETCH_STEPS", 8)
    monkeypatch.setattr(cpu, "STRETCH_BYTES", 1)
    for B, T, D, C, H, bytes_in_loop in ((3, 5, 2, 4, 6, 0), (9, 4, 3, 2, 5, 0), (2, 6, 3, 1, 70, 2**30)):
        monkeypatch.setattr(cpu, "BYTES_IN_LOOP", bytes_in_loop)
        weights, x, initial, zoneout, dy, d_final, condition, W_c = random_call(rng, cell, B, T, D, C, H, 1 / H)
        tiled = np.insert(x, [D] * C, condition[:, None], axis=2)
        for mask in masks(rng, B, T).values():
            mask = np.ones((B, T), bool) if mask is None else mask
            for reverse, zone in ((False, None), (True, zoneout)):
                rest = (mask, initial, reverse, zone, dy, d_final)
                one = weights._replace(row_bias=condition @ W_c.T)
                other = weights._replace(W=np.concatenate([weights.W, W_c], axis=1))
                *found, d_one = run(backend, cell, one, x, *rest)
                *expected, d_other = run(backend, cell, other, tiled, *rest)
                columns = expected[-1][:, :, D:D + C]
                expected[-1] = np.delete(expected[-1], range(D, D + C), axis=2)
                for a, b in zip(found, expected):
                    assert_close(a, b, "same formulas, float64", name)
                for field in ("U", "b_ih", "b_hh", "own", "W_hr"):
                    assert_close(getattr(d_one, field), getattr(d_other, field), "same formulas, float64", field)
                both = np.concatenate([d_one.W, d_one.row_bias.T @ condition], axis=1)
                assert_close(both, d_other.W, "same formulas, float64", "W")
                assert_close(d_one.row_bias @ W_c, np.where(mask[:, :, None], columns, 0).sum(axis=1),
                             "same formulas, float64", "condition")


@pytest.mark.parametrize("name", [name for name in CELLS if "relu" not in name])
@pytest.mark.parametrize("backend", [reference, cpu])
def test_its_gradient_is_the_derivative(name, backend):
    """By the complex step: of the readable backend's forward pass, against both backends' backward pass."""
    rng = np.random.default_rng(2)
    cell, (B, T, D, H) = CELLS[name], (3, 4, 2, 3)
    weights, x, initial, zoneout, dy, d_final, _, _ = random_call(rng, cell, B, T, D, 1, H)
    row_bias = rng.normal(size=(B, len(weights.W)))
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]], bool)
    zoneout = None if cell.fades else zoneout           # no layer has both
    with_bias = weights._replace(row_bias=row_bias)
    *_, d_weights = run(backend, cell, with_bias, x, mask, initial, True, zoneout, dy, d_final)
    numeric = np.empty_like(row_bias)
    for k in range(row_bias.size):
        moved = row_bias.astype(complex)
        moved.flat[k] += 1e-30j
        y, finals, _ = reference.forward(cell, weights._replace(row_bias=moved), x.astype(complex), mask,
                                         [s.astype(complex) for s in initial], True, zoneout)
        numeric.flat[k] = sum(np.sum(d * s) for d, s in zip([dy, *d_final], [y, *finals])).imag / 1e-30
    assert_close(d_weights.row_bias, numeric, "pytorch, float64", name)
    assert numeric[0].any() and numeric[2].any() and not d_weights.row_bias[1].any()        # the empty row


@pytest.mark.parametrize("name", ["LSTM", "GRU", "LSTM with projection", long_unless(False, "GRU, reset before")])
def test_a_row_has_the_same_bits_whatever_the_threads_the_batch_and_the_padding(monkeypatch, name):
    """Also where one batch is multiplied within the loop and the other before it."""
    rng = np.random.default_rng(3)
    monkeypatch.setattr(cpu, "BYTES_IN_LOOP", 0)
    monkeypatch.setattr(schedule, "ROWS_AT_ONCE", 4)
    cell, before = CELLS[name], minilstm.get_num_threads()
    weights, x, initial, _, dy, d_final, _, _ = random_call(rng, cell, 20, 6, 3, 1, 40)
    call = [array.astype("float32") for array in (x, dy, *initial, *d_final, rng.normal(size=(20, len(weights.W))))]
    weights = weights._replace(keep=None)
    weights = Weights(*(p.astype("float32") for p in weights.parameters()))
    results = []
    try:
        for threads, rows, more in ((1, 20, 0), (3, 20, 0), (2, 3, 0), (1, 20, 2)):
            minilstm.set_num_threads(threads)
            x, dy, *states, row_bias = (array[:rows] for array in call)
            pad = ((0, 0), (more, 0), (0, 0))
            mask = np.pad(np.ones((rows, 6), bool), pad[:2])
            states, d_final = states[:len(initial)], states[len(initial):]
            y, *rest, dx, d_weights = run(cpu, cell, weights._replace(row_bias=row_bias), np.pad(x, pad), mask, states,
                                          False, None, np.pad(dy, pad), d_final)
            results.append([a[:3] for a in (y[:, more:], dx[:, more:], *rest, d_weights.row_bias)])
    finally:
        minilstm.set_num_threads(before)
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(other, results[0]))
