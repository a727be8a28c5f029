"""How walks whose blocks share one copy of U divide the work: who owns which weight, and what a GPU has room for.

Then the machine code: ``pytest -m compiler tests/test_recurrence_blocks_plan.py``."""
import numpy as np
import pytest
from compiled import check

from minilstm import cells
from minilstm.recurrence import gpu_blocks
from minilstm.recurrence.gpu_blocks_kernels import backward_kernel, forward_kernel, product_of
from minilstm.recurrence.gpu_blocks_plan import (
    MOST_WEIGHTS, SHARED, backward_work, forward_work, plan, registers_for)


@pytest.fixture
def rng():
    seed = np.random.SeedSequence().entropy % 2**32
    print("seed", seed)                                     # shown where a test fails
    return np.random.default_rng(seed)


def check_plan(work, tensor, B, multiprocessors):
    """Every weight has one owner, and the chip has room for what the plan wants -> the plan, or None."""
    found = plan(work, tensor, B, multiprocessors)
    if found is None:
        return None
    layout, rows, chunks, groups = found
    assert (layout.blocks - 1) * layout.units < work.H <= layout.blocks * layout.units
    assert 1 <= rows <= layout.rows <= 31 and 1 <= chunks <= layout.chunks
    assert layout.rows * layout.units <= layout.threads <= 512 and layout.threads % 32 == 0
    assert 1 <= groups and groups * layout.blocks <= multiprocessors
    assert layout.weights <= MOST_WEIGHTS and layout.weights < registers_for(layout.threads)
    assert layout.scratch + layout.rows * layout.units * layout.chunks * work.carried <= SHARED
    thread, n = np.arange(layout.threads)[:, None], np.arange(layout.weights)
    row, column = np.broadcast_arrays(*product_of(layout).place(thread, n))
    owned = np.bincount((row * work.L + column)[(row < layout.sums) & (column < work.L)],
                        minlength=layout.sums * work.L)
    assert (owned == 1).all()
    return found


def check_plans(H, G, B, multiprocessors):
    for tensor in (False, True):
        for work in (forward_work(cells.LSTM_CELL, H)._replace(R=G),
                     backward_work(cells.LSTM_CELL, H)._replace(L=G * H)):
            found = check_plan(work, tensor, B, multiprocessors)
            assert found or tensor or G * H * H > 0.6 * multiprocessors * 32768, (H, G, B, multiprocessors)


def test_plans(rng):
    """Random sizes; there is one wherever U takes at most 0.6 of the registers for weights."""
    for _ in range(30):
        check_plans(4 * int(rng.integers(1, 257)), int(rng.integers(1, 7)), int(2**rng.uniform(0, 10)),
                    int(rng.choice([80, 108, 132])))


@pytest.mark.long
def test_plans_of_all_sizes(rng):
    for H in range(4, 1025, 4):
        check_plans(H, int(rng.integers(1, 7)), int(2**rng.uniform(0, 10)), 132)


def test_fits():
    def fits(cell, H, B=16, multiprocessors=132):
        return gpu_blocks.fits(cell, B, H, multiprocessors)

    assert fits(cells.LSTM_CELL, 1024) and fits(cells.GRU_CELL, 1024) and fits(cells.RNN_TANH_CELL, 4)
    assert not fits(cells.LSTM_CELL, 1024, multiprocessors=108)             # U is larger than the registers of an A100
    assert fits(cells.LSTM_CELL, 768, multiprocessors=108)
    assert not fits(cells.LSTM_CELL, 1028) and not fits(cells.LSTM_CELL, 30)
    for cell in (cells.LSTM_PROJECTION_CELL, cells.GRU_RESET_BEFORE_CELL, cells.LSTM_LAYER_NORM_CELL, cells.GRU_D_CELL):
        assert not fits(cell, 64), cell.name


# --------------------------------------------------------------------------------------------------------- machine code

CELLS = {cell.name: cell for cell in (
    cells.LSTM_CELL, cells.LSTM_PEEPHOLE_CELL, cells.LSTM_COUPLED_CELL, cells.LSTM_COVARIATE_CELL, cells.GRU_CELL,
    cells.RNN_TANH_CELL, cells.RNN_RELU_CELL)}
SOME = [("LSTM", 1024, False), ("LSTM", 512, True), ("GRU", 512, False)]
ALL = [(cell, H, tensor) for cell in ("LSTM", "GRU") for H in (128, 256, 512, 1024) for tensor in (False, True)]
OTHERS = [(cell, 384, False) for cell in CELLS if cell not in ("LSTM", "GRU")]


SPILLS = 320


def check_machine_code(cell, H, tensor, B=64):
    """The two kernels of such a layer on 132 multiprocessors: all weights are in registers.

    For compute capability 8.0 the compiler adds to each shuffle a call for the case that a warp is not together, and
    keeps some numbers in memory on its account: in float32, where there are shuffles."""
    for work, make in ((forward_work, lambda layout: forward_kernel(CELLS[cell], layout, True)),
                       (backward_work, lambda layout: backward_kernel(CELLS[cell], layout))):
        layout = plan(work(CELLS[cell], H), tensor, B, 132).layout
        check(make(layout), registers=registers_for(layout.threads), targets=[(9, 0)])
        spills = 0 if tensor else SPILLS
        check(make(layout), registers=registers_for(layout.threads), spills=spills, stack=spills, targets=[(8, 0)])


@pytest.mark.compiler
@pytest.mark.parametrize("cell, H, tensor", SOME)
def test_machine_code(cell, H, tensor):
    check_machine_code(cell, H, tensor)


@pytest.mark.long
@pytest.mark.compiler
@pytest.mark.parametrize("cell, H, tensor", [one for one in ALL + OTHERS if one not in SOME])
def test_machine_code_of_other_sizes(cell, H, tensor):
    check_machine_code(cell, H, tensor)


@pytest.mark.long
@pytest.mark.compiler
@pytest.mark.parametrize("cell", ["LSTM with peepholes", "GRU"])
@pytest.mark.parametrize("H, B", [(768, 16), (512, 1), (192, 256)])
@pytest.mark.parametrize("tensor", [False, True])
def test_machine_code_of_other_plans(cell, H, B, tensor):
    """More threads with fewer weights, and blocks of a few units."""
    check_machine_code(cell, H, tensor, B)
