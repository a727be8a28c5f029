"""The GPU backend computes what the readable one defines, whichever way it walks through time."""
import importlib.util
import inspect
from pathlib import Path

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
OF_ANY_SIZE = [walk for walk in WALKS if walk != "blocks"]


def allowed(walk, H):
    """The next H that a walk can take."""
    return H if walk in OF_ANY_SIZE else -(-H // 4) * 4


# ------------------------------------------------------------------------------ one problem, by definition and on the G

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
    H = allowed(walk, H)
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


# ------------------------------------------------------------------------------------------------------- by definition

def test_same_functions_and_parameters_as_the_reference():
    for name in ("forward", "backward"):
        assert inspect.signature(getattr(gpu_backend, name)) == inspect.signature(getattr(reference, name))


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))
def test_gpu_equals_reference(gpu, cell, walk):
    """All outputs, states and gradients; in the simulator a cell with some of the masks, every other one reversed."""
    rng = np.random.default_rng(len(cell.name))
    index = list(CELLS).index(cell.name)
    B, T, D, H = (3, 4, 2, 5) if gpu.name == "simulator" else (37, 50, 20, 36)
    kinds = list(masks(rng, B, T).values())
    if gpu.name == "simulator":
        kinds = kinds[index % 2::2] if walk in OF_ANY_SIZE else kinds[index % 3::3]
    for k, mask in enumerate(kinds):
        check(rng, cell, walk, B, T, D, H, mask, reverse=bool((k + index // 2) % 2), row_bias=k % 3 == 0)


@pytest.mark.long
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))
def test_gpu_equals_reference_for_all_masks_directions_and_many_sizes(gpu, cell, walk):
    rng = np.random.default_rng(1)
    for B, T, D, H in (1, 1, 1, 1), (2, 5, 3, 8), (9, 3, 1, 4), (3, 2, 2, 18):
        for mask in masks(rng, B, T).values():
            for reverse in (False, True):
                check(rng, cell, walk, B, T, D, H, mask, reverse, row_bias=reverse)


@pytest.mark.parametrize("walk", OF_ANY_SIZE)
@pytest.mark.parametrize("B,T,H", [(1, 1, 1), (9, 2, 3), (17, 1, 16), (33, 2, 1), (2, 2, 33), (1, 2, 65)])
def test_sizes_around_the_edges_of_blocks(gpu, walk, B, T, H):
    """One row in a block and more, a last block with fewer; units that do not fill a warp, and more than a tile."""
    rng = np.random.default_rng(B + H)
    check(rng, RNN_TANH_CELL, walk, B, T, 1, H, masks(rng, B, T)["holes"], reverse=False)


@pytest.mark.parametrize("walk", OF_ANY_SIZE)
def test_no_rows_and_no_steps(gpu, walk):
    rng = np.random.default_rng(2)
    for B, T in (0, 2), (2, 0):
        check(rng, LSTM_CELL, walk, B, T, 2, 3, None, reverse=False)


# ---------------------------------------------------------------------------------------------------------------- laws

@pytest.mark.parametrize("walk", WALKS)
def test_a_row_has_the_same_bits_in_any_batch(walk):
    """Alone; among others, two of them in a block; for other orders of the threads.  So do its gradients.  In blocks
    that is so for few units, since there is one way to divide them."""
    rng = np.random.default_rng(3)
    B, T, D, H = 5, 3, 2, allowed(walk, 5)
    weights, *rows = random_problem(rng, LSTM_PEEPHOLE_CELL, B, T, D, H)
    mask = masks(rng, B, T)["holes"]
    for seed in range(2):
        with device.simulated(seed=seed, multiprocessors=4):
            together = on_gpu(LSTM_PEEPHOLE_CELL, (weights, *rows), mask, True, walk)
            if not seed:
                first = together
            assert all(same_bits(together[name], first[name]) for name in first)
    for b in (0, 4):
        x, initial, dy, d_final = rows
        alone = x[b:b + 1], [s[b:b + 1] for s in initial], dy[b:b + 1], [d[b:b + 1] for d in d_final]
        with device.simulated():
            found = on_gpu(LSTM_PEEPHOLE_CELL, (weights, *alone), mask[b:b + 1], True, walk)
        for name in found:
            assert name.startswith("d ") or same_bits(found[name][0], first[name][b]), name


def test_in_blocks_a_batch_of_another_size_may_be_added_up_in_another_order():
    """A row alone and the same row among eight: equal to rounding, and for this shape not to the bit."""
    rng = np.random.default_rng(5)
    weights, x, initial, dy, d_final = random_problem(rng, LSTM_CELL, 8, 4, 2, 20)
    first = slice(0, 1)
    alone = weights, x[first], [s[first] for s in initial], dy[first], [d[first] for d in d_final]
    with device.simulated(multiprocessors=8):
        together = on_gpu(LSTM_CELL, (weights, x, initial, dy, d_final), np.ones((8, 4), bool), False, "blocks")
        found = on_gpu(LSTM_CELL, alone, np.ones((1, 4), bool), False, "blocks")
    for name in ("y", "h", "c", "dx", "dh0", "dc0"):
        assert_close(found[name][0], together[name][0], "same formulas, float32", name)
    assert not same_bits(found["y"][0], together["y"][0])


@pytest.mark.parametrize("walk", WALKS)
def test_no_cache_same_bits(gpu, walk):
    rng = np.random.default_rng(4)
    weights, x, initial, *_ = to_device(random_problem(rng, GRU_CELL, 2, 4, 2, allowed(walk, 5)))
    mask = device.to_device(masks(rng, 2, 4)["right"])
    with gpu_backend.using(walk):
        kept, without = (gpu_backend.forward(GRU_CELL, weights, x, mask, initial, True, caching=caching)
                         for caching in (True, False))
    assert without[2] is None
    assert same_bits(kept[0], without[0]) and same_bits(kept[1][0], without[1][0])


def test_a_row_bias_is_an_input_that_does_not_change(gpu):
    """weights.row_bias = z @ V.T is the same as [x, z] @ [W, V].T with z at every step; and d_row_bias.T @ z is the
    gradient of V."""
    rng = np.random.default_rng(5)
    B, T, D, H, C = 3, 4, 2, 5, 2
    weights, x, *rest = random_problem(rng, LSTM_CELL, B, T, D, H)
    V, z = (rng.normal(size=shape).astype("float32") for shape in ((4 * H, C), (B, C)))
    mask = masks(rng, B, T)["holes"]
    wide = weights._replace(W=np.concatenate([weights.W, V], axis=1))
    xz = np.concatenate([x, np.broadcast_to(z[:, None], (B, T, C))], axis=2)
    expected = on_gpu(LSTM_CELL, (wide, xz, *rest), mask, False, WALKS[0])
    found = on_gpu(LSTM_CELL, (weights._replace(row_bias=z @ V.T), x, *rest), mask, False, WALKS[0])
    for name in ("y", "h", "c", "dh0", "dc0", "d U", "d b_ih"):
        assert_close(found[name], expected[name], "same formulas, float32", name)
    assert_close(found["dx"], expected["dx"][..., :D], "same formulas, float32", "dx")
    assert_close(found["d row_bias"].T @ z, expected["d W"][:, D:], "same formulas, float32", "dV")


# ----------------------------------------------------------------------------------------------- which walk, and errors

def test_the_first_walk_that_fits_is_taken():
    with device.simulated():
        for H, walk in (1, "rows"), (96, "rows"), (97, "steps"), (100, "blocks"), (2000, "steps"):
            assert gpu_backend.walk_for(LSTM_CELL, 4, 10, H) is gpu_backend.WALKS[walk].module, H
        assert gpu_backend.walk_for(RNN_TANH_CELL, 4, 10, 128) is gpu_backend.WALKS["rows"].module
        with gpu_backend.using("steps"):
            assert gpu_backend.walk_for(LSTM_CELL, 4, 10, 8) is gpu_backend.WALKS["steps"].module
            with gpu_backend.using("rows"), pytest.raises(ValueError, match=(
                    "^walk: 'rows' cannot take LSTM with H = 97, B = 4: U has to fit into the registers of a block$")):
                gpu_backend.walk_for(LSTM_CELL, 4, 10, 97)
    with pytest.raises(ValueError, match=r"^walk: expected one of .*'rows'.*, got 'no'$"), gpu_backend.using("no"):
        pass


@pytest.mark.parametrize("cell", OTHERS, ids=lambda cell: cell.name)
def test_other_cells_are_refused_by_name(cell):
    with pytest.raises(ValueError, match=f"^backend: 'gpu' .*{cell.name.split(',')[0]}.*; 'cpu' computes it$"):
        gpu_backend.forward(cell, None, None, None, None)


# --------------------------------------------------------------------------------------------------------- planted bugs

BUGS = {                    # what is changed in gpu_rows.py, so many times
    "forward: no barrier": ("            cuda.syncthreads()\n            t += step", "            t += step", 1),
    "backward: no barrier": ("            cuda.syncthreads()\n            for r", "            for r", 1),
    "forward: one place": ("            place = 1 - place\n            if mine", "            if mine", 1),
    "backward: one place": ("            place = 1 - place\n\n", "\n", 1),
    "state not carried": ("s * size + slot, state[s, 0])", "s * size + slot, new[s, 0])", 1),
    "mask of the wrong row": ("real >> row & 1", "real >> 0 & 1", 1),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(monkeypatch, tmp_path, bug):
    """A race that the simulator notes, or numbers that are wrong."""
    rows = gpu_backend.WALKS["rows"]
    source = Path(rows.module.__file__).read_text()
    old, new, times = BUGS[bug]
    assert source.count(old) == times
    (tmp_path / "planted.py").write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location("minilstm.recurrence.planted", tmp_path / "planted.py")
    planted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planted)
    monkeypatch.setitem(gpu_backend.WALKS, "rows", rows._replace(module=planted))
    rng = np.random.default_rng(6)
    with device.simulated(seed=6, multiprocessors=1) as simulator:
        try:
            check(rng, LSTM_CELL, "rows", 3, 4, 2, 9, masks(rng, 3, 4)["holes"], reverse=False)
        except AssertionError:
            return
    assert simulator.races


# --------------------------------------------------------------------------------------------------------- machine code

@pytest.mark.compiler
def test_machine_code_of_a_step():
    steps = gpu_backend.WALKS["steps"].module
    compiled.check(steps.forward_kernel(LSTM_CELL, True), registers=96)
    compiled.check(steps.backward_kernel(LSTM_CELL), registers=80)


def largest(cell):
    """The largest H whose U fits into the registers of a block."""
    return max(H for H in range(1, 300) if gpu_backend.WALKS["rows"].module.fits(cell, 1, H, 1))


def check_rows(cell, H, rows_of_block):
    """All weights in registers and none spilled; but on compute capability 8.0 not for four rows in a block: there the
    assembler puts calls in place of shuffles, for lanes that may be elsewhere, and keeps less across them."""
    rows, spills = gpu_backend.WALKS["rows"].module, 400 if rows_of_block == 4 else 0
    for kernel in rows.forward_kernel(cell, H, rows_of_block, True), rows.backward_kernel(cell, H, rows_of_block):
        compiled.check(kernel, registers=rows.registers(kernel.threads), spills=spills, stack=spills)
        found = compiled.report(kernel, (9, 0))
        assert found.spills == found.stack == 0, str(found)


@pytest.mark.compiler
def test_machine_code_of_rows():
    """The largest LSTM."""
    check_rows(LSTM_CELL, largest(LSTM_CELL), 4)


@pytest.mark.long
@pytest.mark.compiler
@pytest.mark.parametrize("cell", CELLS.values(), ids=list(CELLS))
def test_machine_code_of_rows_of_all_cells(cell):
    """Every cell, for two sizes that fill their threads' registers in different ways."""
    check_rows(cell, largest(cell), 1)
    check_rows(cell, largest(cell) // 2 + 1, 4)
