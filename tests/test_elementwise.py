"""The small kernels: each does what NumPy's function does, to the bit, for any size; sums of squares to 1e-6."""
import math

import numpy as np
import pytest

from compiled import check
from helpers import same_bits
from minilstm import device
from minilstm.device import elementwise

SHAPES = [(1,), (255,), (257,), (3, 1, 7), (2, 0), (0,), (5, 52, 3)]       # around the 256 threads of a block
DTYPES = ["float32", "int32", "bool"]


def numbers(rng, shape, dtype="float32"):
    """Random, none of them 0: bools are the exception."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "int32":
        return rng.integers(1, 1000, shape, np.int32)
    return rng.normal(size=shape).astype("float32")


def on_gpu(*arrays):
    return [device.to_device(a) for a in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_and_fills_are_numpys(gpu, dtype):
    rng = np.random.default_rng()
    for shape in SHAPES:
        source = numbers(rng, shape, dtype)
        [a] = on_gpu(source)
        found = elementwise.copy(a)
        assert found.memory is not a.memory and same_bits(found.copy_to_host(), source)
        target = device.empty(source.size, dtype)
        elementwise.copy_into(a, target)
        assert same_bits(target.copy_to_host(), source.reshape(-1))
        elementwise.fill(a, 1.1)
        assert same_bits(a.copy_to_host(), np.full(shape, 1.1).astype(dtype))


def test_a_view_is_filled_and_copied_alone(gpu):
    """Views begin anywhere, here at no multiple of 16 bytes."""
    x = numbers(np.random.default_rng(), (4, 3, 5))
    [a] = on_gpu(x)
    elementwise.copy_into(a[3], a.part(1, 2))
    elementwise.fill(a[0, 2], 7)
    x[1], x[0, 2] = x[3], 7
    assert same_bits(a.copy_to_host(), x)


def test_arithmetic_is_numpys(gpu):
    rng = np.random.default_rng()
    for shape in SHAPES:
        x, y = numbers(rng, shape), numbers(rng, shape)
        a, b = on_gpu(x, y)
        assert same_bits(elementwise.add(a, b).copy_to_host(), x + y)
        assert same_bits(elementwise.multiply(a, b).copy_to_host(), x * y)
        assert same_bits(elementwise.scaled(a, 0.1).copy_to_host(), x * np.float32(0.1))
        assert same_bits(a.copy_to_host(), x) and same_bits(b.copy_to_host(), y)
        elementwise.add_into(a, b)
        assert same_bits(a.copy_to_host(), x + y)


def test_infinity_becomes_nan_and_nothing_else_changes(gpu):
    rng = np.random.default_rng()
    for shape in [(5,), (4, 3, 25), (3, 0)]:
        x = rng.choice(np.float32([np.inf, -np.inf, np.nan, 3.4e38, -0.0, 2]), shape)
        rows = numbers(rng, len(x), "bool")
        a, where = on_gpu(x, rows)
        spoilt = np.isinf(x)
        assert same_bits(elementwise.finite_or_nan(a).copy_to_host(), np.where(spoilt, np.float32(np.nan), x))
        spoilt[~rows] = False
        assert same_bits(elementwise.finite_or_nan(a, where).copy_to_host(), np.where(spoilt, np.float32(np.nan), x))


# ----------------------------------------------------------------------------------------------------- rows and columns

@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_and_columns_are_numpys(gpu, dtype):
    rng = np.random.default_rng()
    for lead in [(), (1,), (3,), (2, 43), (0,)]:
        parts = [numbers(rng, (*lead, width), dtype) for width in (2, 1, 5)]
        together = np.concatenate(parts, axis=-1)
        found = elementwise.side_by_side(on_gpu(*parts))
        assert same_bits(found.copy_to_host(), together)
        for first, last in [(0, 8), (2, 3), (3, 8), (4, 4)]:
            assert same_bits(elementwise.columns(found, first, last).copy_to_host(), together[..., first:last])
    for shape in [(1,), (4,), (5, 3), (3, 2, 50), (4, 0)]:
        array, rows = numbers(rng, shape, dtype), rng.integers(0, shape[0], 7).astype("int32")
        assert same_bits(elementwise.take(*on_gpu(array, rows)).copy_to_host(), array[rows])
        assert elementwise.take(*on_gpu(array, rows[:0])).shape == (0, *shape[1:])


# ------------------------------------------------------------------------------------------------------ sums of squares

def sum_of_squares(*arrays):
    [total] = elementwise.sum_of_squares(on_gpu(*arrays)).copy_to_host()
    return total


def test_sum_of_squares_is_exact_to_1e_6(gpu, monkeypatch):
    """Of numbers of many sizes, also where each thread has many; a plain sum in float32, one number after the other, is
    not."""
    rng = np.random.default_rng()
    if gpu.name == "simulator":
        monkeypatch.setattr(elementwise, "MOST_BLOCKS", 2)
    lots = 20_000 if gpu.name == "simulator" else 20_000_000
    for shapes in [[(1,)], [(0,), (3,)], [(2, 5), (257,), (1, 1)], [(lots,), (300, 3)]]:
        arrays = [(numbers(rng, shape) * np.exp(3 * numbers(rng, shape))).astype("float32") for shape in shapes]
        exact = math.fsum(np.square(a, dtype="float64").sum() for a in arrays)
        assert abs(sum_of_squares(*arrays) - exact) <= 1e-6 * exact
    assert sum_of_squares() == 0
    equal = np.full(lots, 1.1, "float32")
    exact = lots * float(equal[0])**2
    assert abs(sum_of_squares(equal) - exact) <= 1e-6 * exact
    assert abs(np.cumsum(equal * equal)[-1] - exact) > 1e-6 * exact


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sum_of_squares_shows_what_is_not_finite(gpu):
    x = np.ones(300, "float32")
    for value, expected in [(np.inf, np.inf), (-np.inf, np.inf), (3e38, np.inf), (np.nan, np.nan)]:
        x[290] = value
        np.testing.assert_equal(sum_of_squares(np.ones(5, "float32"), x), expected)


def test_sum_of_squares_has_the_same_bits_in_any_order_of_threads_and_every_run(gpu):
    x = np.exp(3 * numbers(np.random.default_rng(), 3000)).astype("float32")
    found = [sum_of_squares(x, x[:7]), sum_of_squares(x, x[:7])]
    for seed in (None, 1) if gpu.name == "simulator" else ():
        with device.simulated(seed=seed, multiprocessors=3) as simulator:
            found.append(sum_of_squares(x, x[:7]))
        assert not simulator.races
    assert len({f.tobytes() for f in found}) == 1


# -------------------------------------------------------------------------------------------------------------- errors

def wrong():
    """name -> call, error, words of its message"""
    [a, b, flags, rows] = on_gpu(*(np.ones(shape, dtype) for shape, dtype in (
        ((2, 3), "float32"), ((3, 2), "float32"), ((2,), bool), ((2,), "int32"))))
    return {
        "another shape": (lambda: elementwise.add(a, b), ValueError, "b: expected (2, 3), as a has, got (3, 2)"),
        "in place": (lambda: elementwise.add_into(a, b), ValueError, "b: expected (2, 3), as target has"),
        "NumPy": (lambda: elementwise.multiply(np.ones(3), a), TypeError, "a: expected a DeviceArray of float32"),
        "another dtype": (lambda: elementwise.scaled(rows, 2), TypeError, "a: expected a DeviceArray of float32"),
        "copy, dtype": (lambda: elementwise.copy_into(flags, rows), TypeError, "target: expected a DeviceArray of boo"),
        "copy, size": (lambda: elementwise.copy_into(a, a[0]), ValueError, "target: expected 6 numbers"),
        "where": (lambda: elementwise.finite_or_nan(b, flags), ValueError, "where: expected shape (3,)"),
        "sides": (lambda: elementwise.side_by_side([a, b]), ValueError, "arrays[1]: expected (2,) before the last"),
        "columns": (lambda: elementwise.columns(a, 2, 4), IndexError, "columns: expected 0 <= first <= last <= 3"),
        "rows": (lambda: elementwise.take(a, a), TypeError, "rows: expected a DeviceArray of int32"),
        "squares": (lambda: elementwise.sum_of_squares([a, rows]), TypeError, "arrays[1]: expected a DeviceArray"),
        "too many": (lambda: elementwise.blocks_for(2**31), ValueError, "at most 2147483647 numbers, got 2147483648"),
    }


def test_bad_arguments_are_named_and_explained(gpu):
    for name, (call, error, words) in wrong().items():
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value), name


# --------------------------------------------------------------------------------------------------------- machine code

KERNELS = {
    "fill": (lambda: elementwise._fill("float32"), 24), "fill bools": (lambda: elementwise._fill("bool"), 24),
    "copy": (lambda: elementwise._copy("float32"), 24), "add": (lambda: elementwise._add, 24),
    "multiply": (lambda: elementwise._multiply, 24), "scale": (lambda: elementwise._scale, 24),
    "finite_or_nan": (lambda: elementwise._finite_or_nan(True), 32),
    "finite_or_nan, rows": (lambda: elementwise._finite_or_nan(False), 40),
    "columns": (lambda: elementwise._copy_columns("float32"), 40), "take": (lambda: elementwise._take("float32"), 40),
    "squares": (lambda: elementwise._add_squares, 48), "partial": (lambda: elementwise._add_partial, 48),
}


@pytest.mark.compiler
@pytest.mark.parametrize("name", KERNELS)
def test_machine_code_stays_within_its_registers(name):
    kernel, registers = KERNELS[name]
    check(kernel(), registers)
