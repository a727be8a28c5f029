"""The GPU backend computes what the readable one defines, whichever way it walks through time."""
import inspect

import numpy as np
import pytest

import compiled
from helpers import assert_close, masks, same_bits
from minilstm import cells, device
from minilstm.cells import GRU_CELL, LSTM_CELL, LSTM_PEEPHOLE_CELL, RNN_TANH_CELL, Weights
from minilstm.recurrence import reference

gpu_backend = pytest.importorskip("minilstm.recurrence.gpu")

CELLS = {cell.name: cell for cell in (getattr(cells, name) for name in cells.__all__ if name.endswith("_CELL"))
         if not (cell.normalises or cell.second_forward_row or cell.fades)}
OTHERS = [cell for cell in (getattr(cells, name) for name in cells.__all__ if name.endswith("_CELL"))
          if cell.name not in CELLS]
WALKS = list(gpu_backend.WALKS)


# ------------------------------------------------------------------------------- one problem, on the GPU and by definition

def random_problem(rng, cell, B, T, D, H, row_bias=False):
    """-> weights, x, initial, dy, d_final: float32, random, nothing is zero."""
    def normal(*shape):
        return rng.normal(size=shape).astype("float32") * np.float32(0.6)

    GH, P = len(cell.blocks) * H, len(cell.own)
    weights = Weights(normal(GH, D), normal(GH, H), normal(GH), normal(GH), normal(P, H), normal(0, H),
                      normal(B, GH) if row_bias else None)
    return (weights, normal(B, T, D), [normal(B, H) for _ in cell.states], normal(B, T, H),
            [normal(B, H) for _ in cell.states])


def outputs(cell, result, gradients=None):
    """What forward and backward return -> dict of arrays by name."""
    y, finals, _ = result
    found = {"y": y, **dict(zip(cell.states, finals))}
    if gradients is not None:
        dx, d_initial, d_weights = gradients
        found |= {"dx": dx, **{f"d{name}0": d for name, d in zip(cell.states, d_initial)},
                  **{f"d {name}": d for name, d in d_weights._asdict().items() if d is not None}}
    return {name: np.asarray(array) for name, array in found.items()}


def by_definition(cell, problem, mask, reverse):
    """The reference's outputs and gradients, in float64."""
    weights, x, initial, dy, d_final = problem
    weights = Weights(*(p if p is None else p.astype("float64") for p in weights))
    x, dy = x.astype("float64"), dy.astype("float64")
    initial, d_final = ([s.astype("float64") for s in states] for states in (initial, d_final))
    result = reference.forward(cell, weights, x, mask, initial, reverse)
    return outputs(cell, result, reference.backward(result[2], dy, d_final))


def on_gpu(cell, problem, mask, reverse, walk):
    """The same from the GPU backend, by the walk with this name."""
    weights, x, initial, dy, d_final = to_device(problem)
    with gpu_backend.using(walk):
        result = gpu_backend.forward(cell, weights, x, device.to_device(mask), initial, reverse)
    return outputs(cell, result, gpu_backend.backward(result[2], dy, d_final))


def to_device(value):
    """Arrays in lists, tuples and Weights -> DeviceArrays."""
    if isinstance(value, Weights):
        return Weights(*map(to_device, value))
    if isinstance(value, (list, tuple)):
        return [to_device(v) for v in value]
    return value if value is None else device.to_device(value)


def check(rng, cell, walk, B, T, D, H, mask, reverse, row_bias=False):
    """One random problem: outputs and gradients by definition, whatever dy says at masked steps."""
    mask = np.ones((B, T), bool) if mask is None else mask
    problem = random_problem(rng, cell, B, T, D, H, row_bias)
    expected = by_definition(cell, problem, mask, reverse)
    problem[3][~mask] = np.nan
    found = on_gpu(cell, problem, mask, reverse, walk)
    for name in expected:
        assert_close(found[name], expected[name], "same formulas, float32", f"{cell.name}, {walk}: {name}")
    assert not found["y"][~mask].any() and not found["dx"][~mask].any()
    empty = ~mask.any(axis=1)
    for name, s, d in zip(cell.states, problem[2], problem[4]):
        assert same_bits(found[name][empty], s[empty]) and same_bits(found[f"d{name}0"][empty], d[empty])


# ------------------------------------------------------------------------------------------------------------ what it is

def test_same_functions_and_parameters_as_the_reference():
    for name in ("forward", "backward"):
        assert inspect.signature(getattr(gpu_backend, name)) == inspect.signature(getattr(reference, name))


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("cell", CELLS.values(), ids=lambda cell: cell.name)
def test_gpu_equals_reference(gpu, cell, walk):
    """Every kind of mask, in one of the two directions each; all outputs, states and gradients."""
    rng = np.random.default_rng(len(cell.name))
    B, T, D, H = (3, 4, 2, 5) if gpu.name == "simulator" else (37, 50, 20, 36)
    for k, mask in enumerate(masks(rng, B, T).values()):
        check(rng, cell, walk, B, T, D, H, mask, reverse=bool(k % 2), row_bias=k % 3 == 0)
