"""Walks through time on a GPU whose blocks share one copy of U: every cell and mask against the reference, the exchange
between blocks, and what goes wrong.

The simulator is small, so a test says itself over how many blocks, chunks and groups its few units and rows go."""
import sys
from typing import NamedTuple

import numpy as np
import pytest
from helpers import assert_close, masks, same_bits

from minilstm import cells, device
from minilstm.cells import Weights
from minilstm.recurrence import gpu_blocks, reference
from minilstm.recurrence.gpu_blocks_plan import Plan, backward_work, forward_work, layouts, plan, sizes

CELLS = {cell.name: cell for cell in (
    cells.LSTM_CELL, cells.LSTM_PEEPHOLE_CELL, cells.LSTM_COUPLED_CELL, cells.LSTM_COVARIATE_CELL, cells.GRU_CELL,
    cells.RNN_TANH_CELL, cells.RNN_RELU_CELL)}
FLOAT32, TF32 = "same formulas, float32", "TF32, a step after another"
D = 3


@pytest.fixture
def rng():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)                                     # shown where a test fails
    return np.random.default_rng(seed)


# ---------------------------------------------------------------------------------------------- one walk there and back

class Case(NamedTuple):
    cell: cells.Cell
    weights: Weights
    x: np.ndarray           # (B,T,D)
    mask: np.ndarray        # (B,T)
    initial: np.ndarray     # (S,B,H)
    dy: np.ndarray          # (B,T,H), NaN at masked steps
    d_final: np.ndarray     # (S,B,H)
    reverse: bool


def random_case(rng, cell, B, T, H, mask=None, reverse=False):
    S, G, A, N, P = sizes(cell)

    def some(*shape):
        return rng.normal(size=shape).astype("float32")

    weights = Weights(some(G * H, D), some(G * H, H) / np.sqrt(H).astype("float32"), some(G * H), some(G * H),
                      some(P, H), np.zeros((0, H), "float32"))
    mask = np.ones((B, T), bool) if mask is None else mask
    dy = some(B, T, H)
    dy[~mask] = np.nan
    return Case(cell, weights, some(B, T, D), mask, some(S, B, H), dy, some(S, B, H), reverse)


def plan_with(work, units, rows, chunks, groups, tensor=False, across=4):
    """A Plan of the wished size."""
    layout = next(layout for layout in layouts(work, tensor) if layout.units == units and layout.across == across)
    assert rows <= layout.rows and chunks <= layout.chunks
    return Plan(layout, rows, chunks, groups)


def plans_with(cell, H, **wish):
    """Those of the two walks: (forward, backward)."""
    return plan_with(forward_work(cell, H), **wish), plan_with(backward_work(cell, H), **wish)


def walk(case, plans=(None, None), caching=True):
    """The GPU's results -> dict of arrays; without those of the walk back unless caching."""
    cell, weights, x, mask, initial, dy, d_final, reverse = case
    S, G, A, N, P = sizes(cell)
    (B, T, _), H = x.shape, initial.shape[2]
    a_x = x @ weights.W.T + weights.b_ih + (0 if cell.apart else weights.b_hh)
    states = np.full((S, B, T + 1, H), np.nan, "float32")
    states[:, :, T if reverse else 0] = initial
    on_gpu = Weights(*(None if p is None else device.to_device(p) for p in weights))
    b_h = device.to_device(weights.b_hh if cell.apart else np.zeros_like(weights.b_hh))
    mask, states = device.to_device(mask), device.to_device(states)
    saved = device.empty((B, T, N, H)) if caching else None
    y, finals = device.empty((B, T, H)), device.empty((S, B, H))
    gpu_blocks.forward(cell, on_gpu, b_h, device.to_device(a_x.astype("float32")), mask, states, saved, y, finals,
                       reverse, plan=plans[0])
    found = {"y": y.copy_to_host(), "finals": finals.copy_to_host(), "states": states.copy_to_host()}
    if caching:
        d_state, da, d_own = device.to_device(d_final), device.empty((B, T, A * H)), device.empty((B, P, H))
        gpu_blocks.backward(cell, on_gpu, mask, saved, states, device.to_device(dy), d_state, da, d_own, reverse,
                            plan=plans[1])
        found |= {"d_state": d_state.copy_to_host(), "da": da.copy_to_host(), "d_own": d_own.copy_to_host()}
    return found


def with_weights(case, found):
    """What a host makes of a walk's results -> dict of y, finals, dx and all other gradients, in float64."""
    cell, weights, x, mask, _, _, _, reverse = case
    GH = len(weights.U)
    da = found["da"].astype("float64")
    da_x, da_h = da[..., :GH], da[..., -GH:]
    h = found["states"][0]
    h_prev = np.where(mask[..., None], h[:, 1:] if reverse else h[:, :-1], 0)
    return {"y": found["y"], "finals": found["finals"], "dx": da_x @ weights.W, "d initial": found["d_state"],
            "dW": np.einsum("btg,btd->gd", da_x, x), "dU": np.einsum("btg,bth->gh", da_h, h_prev),
            "db_ih": da_x.sum(axis=(0, 1)), "db_hh": da_h.sum(axis=(0, 1)), "d own": found["d_own"].sum(axis=0)}


def expected(case):
    """The same by the reference, in float64."""
    cell, weights, x, mask, initial, dy, d_final, reverse = (
        part.astype("float64") if getattr(part, "dtype", None) == "float32" else part for part in case)
    weights = Weights(*(None if p is None else p.astype("float64") for p in weights))
    y, finals, cache = reference.forward(cell, weights, x, mask, tuple(initial), reverse)
    dx, d_initial, dW = reference.backward(cache, dy, tuple(d_final))
    return {"y": y, "finals": np.stack(finals), "dx": dx, "d initial": np.stack(d_initial), "dW": dW.W, "dU": dW.U,
            "db_ih": dW.b_ih, "db_hh": dW.b_hh, "d own": dW.own}


def compare(case, found, tolerance=FLOAT32):
    wanted = expected(case)
    for name, value in with_weights(case, found).items():
        assert_close(value, wanted[name], tolerance, name)


# ------------------------------------------------------------------------------------------------ against the reference

@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("pattern", ["none", "right", "left", "holes", "empty row", "all empty"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_any_mask(gpu, rng, cell, pattern, reverse):
    """Two blocks, the second one with 4 units of 8; two groups of two chunks of two rows, the last ones with fewer."""
    B, T, H = 5, 3, 12
    case = random_case(rng, CELLS[cell], B, T, H, masks(rng, B, T)[pattern], reverse)
    compare(case, walk(case, plans_with(CELLS[cell], H, units=8, rows=2, chunks=2, groups=2)))


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(gpu, rng, cell):
    B, T, H = 3, 3, 12
    case = random_case(rng, CELLS[cell], B, T, H, masks(rng, B, T)["holes"], bool(rng.integers(2)))
    compare(case, walk(case, plans_with(CELLS[cell], H, units=4, rows=1, chunks=2, groups=2)))


@pytest.mark.parametrize("H, wish", [
    (28, dict(units=16, rows=2, chunks=1, groups=1, across=16)),        # threads with columns beyond the last one
    (16, dict(units=8, rows=1, chunks=3, groups=1, across=64)),         # two warps for a row; many chunks
    (20, dict(units=8, rows=1, chunks=1, groups=2, across=4)),          # more rows than the groups on the chip take
    (4, dict(units=4, rows=1, chunks=2, groups=1, across=8)),           # a single block
])
def test_every_share(gpu, rng, H, wish):
    """Sums by shuffles of 2 to 5 levels and over warps; more groups than there is room for."""
    B, T = 3, 2
    case = random_case(rng, cells.LSTM_CELL, B, T, H, masks(rng, B, T)["holes"])
    compare(case, walk(case, plans_with(cells.LSTM_CELL, H, **wish)))


@pytest.mark.parametrize("cell, H, B, wish", [
    ("LSTM", 12, 3, dict(units=8, rows=3, chunks=1, groups=1, across=4)),
    pytest.param("GRU", 40, 19, dict(units=8, rows=16, chunks=2, groups=1, across=4), marks=pytest.mark.long),
    pytest.param("LSTM with peepholes", 56, 5, dict(units=16, rows=2, chunks=2, groups=2, across=8),
                 marks=pytest.mark.long),
])
def test_tensor_cores(gpu, rng, cell, H, B, wish):
    """Rows in the lower and the upper half of a tile, columns beyond the last one, partly empty blocks."""
    T = 2
    case = random_case(rng, CELLS[cell], B, T, H, masks(rng, B, T)["right"])
    compare(case, walk(case, plans_with(CELLS[cell], H, tensor=True, **wish)), TF32)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_plans_of_our_own(gpu, rng, cell):
    """Without a plan given."""
    B, T, H = (3, 2, 8) if gpu.name == "simulator" else (33, 50, 256)
    case = random_case(rng, CELLS[cell], B, T, H, masks(rng, B, T)["holes"])
    assert gpu_blocks.fits(case.cell, B, H, gpu.multiprocessors)
    compare(case, walk(case))


@pytest.mark.parametrize("H, B, T", [(128, 64, 100), (256, 16, 512), (512, 64, 128), (1024, 20, 64)])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
@pytest.mark.parametrize("tensor", [False, True])
def test_sizes_of_a_real_gpu(gpu, rng, cell, H, B, T, tensor):
    """As a user has them; and the same bits again."""
    if gpu.name == "simulator":
        pytest.skip("these sizes need a real GPU")
    work = forward_work(CELLS[cell], H), backward_work(CELLS[cell], H)
    plans = tuple(plan(one, tensor, B, gpu.multiprocessors) for one in work)
    case = random_case(rng, CELLS[cell], B, T, H, masks(rng, B, T)["holes"])
    found = walk(case, plans)
    compare(case, found, TF32 if tensor else FLOAT32)
    again = walk(case, plans)
    assert all(same_bits(found[name], again[name]) for name in ("y", "finals", "da", "d_state", "d_own"))


def test_without_a_backward_pass(gpu, rng):
    """saved is None: the same bits of all that is left."""
    case = random_case(rng, cells.LSTM_CELL, 2, 3, 8)
    plans = plans_with(case.cell, 8, units=4, rows=1, chunks=2, groups=1)
    found, less = walk(case, plans), walk(case, plans, caching=False)
    for name in less:
        assert same_bits(found[name], less[name]), name


# ----------------------------------------------------------------------------------------------------- numbers like NaN

UNWRITTEN = np.array(-1, "int32").view("float32")


@pytest.mark.parametrize("tensor", [False, True])
def test_a_nan_that_means_unwritten(gpu, rng, tensor):
    """An initial state with these very bits: nobody waits for ever, its row is NaN, the others are as without it."""
    B, T, H = 3, 2, 12
    mask = np.array([[True, True], [False, True], [True, True]])
    case = random_case(rng, cells.LSTM_CELL, B, T, H, mask)
    plans = plans_with(case.cell, H, units=8, rows=3, chunks=1, groups=1, tensor=tensor)
    case.initial[:, 1, 5] = UNWRITTEN
    found = walk(case, plans)
    assert np.isnan(found["y"][1, 1]).all() and np.isnan(found["da"][1, 1]).all()
    case.initial[:, 1, 5] = 0
    for name, value in walk(case, plans).items():
        axis = 1 if name in ("states", "finals", "d_state") else 0
        assert same_bits(np.delete(found[name], 1, axis), np.delete(value, 1, axis)), name


def test_an_empty_row_keeps_its_bits(gpu, rng):
    B, T, H = 3, 3, 12
    mask = masks(rng, B, T)["empty row"]
    case = random_case(rng, cells.LSTM_CELL, B, T, H, mask, reverse=True)
    row = B // 2
    case.initial[:, row, :3] = UNWRITTEN, -0.0, np.float32(1e-42)
    found = walk(case, plans_with(case.cell, H, units=8, rows=2, chunks=2, groups=1))
    assert same_bits(found["finals"][:, row], case.initial[:, row])
    assert same_bits(found["d_state"][:, row], case.d_final[:, row])
    assert not found["da"][row].any() and not found["y"][row].any()


def test_the_same_bits_in_any_order_of_threads(rng):
    case = random_case(rng, cells.GRU_CELL, 3, 3, 12, masks(rng, 3, 3)["holes"])
    found = []
    for seed in (None, 1, 2):
        with device.simulated(seed=seed) as simulator:
            found.append(walk(case, plans_with(case.cell, 12, units=8, rows=1, chunks=1, groups=2)))
            assert not simulator.races
    for other in found[1:]:
        for name, value in other.items():
            assert same_bits(value, found[0][name]), name


# ------------------------------------------------------------------------------------------- what goes wrong is noticed

def test_a_block_that_is_missing(rng):
    """The others give up, and say so."""
    case = random_case(rng, cells.LSTM_CELL, 1, 2, 8)
    plans = plans_with(case.cell, 8, units=4, rows=1, chunks=1, groups=1)
    for walk_back in (False, True):
        with device.simulated(give_up=True) as simulator:
            whole, short = simulator.launch, "blocks_backward" if walk_back else "blocks_forward"
            simulator.launch = lambda kernel, grid, arguments: whole(
                kernel, (grid[0] - (kernel.name == short), 1), arguments)
            with pytest.raises(RuntimeError, match="waited in vain"):
                walk(case, plans)


def walk_with_a_bug(case, plans, plant):
    """Is it noticed, as a race or as a wrong number?  plant(simulator) changes what its kernels see."""
    with device.simulated(seed=3) as simulator:
        plant(simulator)
        try:
            compare(case, walk(case, plans))
        except (AssertionError, RuntimeError):
            return True
        return bool(simulator.races)


def barriers(case, plans):
    """Where in the source the kernels have one: (function, line)."""
    found = set()

    def listen(simulator):
        whole = simulator.cuda.syncthreads

        def syncthreads():
            found.add(place_of(sys._getframe(1)))
            whole()
        simulator.cuda.syncthreads = syncthreads

    assert not walk_with_a_bug(case, plans, listen)
    return sorted(found)


def place_of(frame):
    return frame.f_code.co_filename, frame.f_lineno


@pytest.fixture
def two_blocks(rng):
    """Two warps in each of two blocks, two steps."""
    case = random_case(rng, cells.LSTM_CELL, 2, 2, 12)
    return case, plans_with(case.cell, 12, units=8, rows=2, chunks=1, groups=1, across=8)


def test_every_barrier_is_needed(two_blocks):
    places = barriers(*two_blocks)
    assert len(places) == 3                                 # in the product, and after it in each kernel
    for place in places:
        def plant(simulator):
            whole = simulator.cuda.syncthreads
            simulator.cuda.syncthreads = lambda: None if place_of(sys._getframe(1)) == place else whole()

        assert walk_with_a_bug(*two_blocks, plant), place


def test_every_wait_is_needed(two_blocks):
    def plant(simulator):
        simulator.ptx.poll4 = lambda array, index, error: simulator.ptx.load4(array, index)

    assert walk_with_a_bug(*two_blocks, plant)


def test_every_number_has_to_be_published(two_blocks):
    """One unit of another block's kept back: the waits end, with an error."""
    def plant(simulator):
        whole = simulator.ptx.store_relaxed
        simulator.ptx.store_relaxed = (
            lambda array, index, value: None if index % 12 == 9 else whole(array, index, value))

    assert walk_with_a_bug(*two_blocks, plant)


def test_more_blocks_than_the_chip_holds_are_refused(rng):
    case = random_case(rng, cells.LSTM_CELL, 2, 1, 12)
    with device.simulated(multiprocessors=2), pytest.raises(ValueError, match="wait for each other"):
        walk(case, plans_with(case.cell, 12, units=4, rows=1, chunks=1, groups=1))
