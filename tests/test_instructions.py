"""The instructions of ``device/ptx.py`` mean in the simulator what NVIDIA's PTX ISA says of them; and the activations
made of them stay near the exact functions, whatever a GPU makes of their last bits.
"""
import compiled
import numpy as np
import pytest
from numba import cuda, float32

from minilstm import device
from minilstm.cells import activations, lstm
from minilstm.device import ptx
from minilstm.device.kernel import B1, F1, F2, I1, Int, device_function, kernel
from minilstm.device.simulator import SimulationError

SUBNORMAL = np.finfo(np.float32).tiny           # numbers below


def numbers(shape):
    return np.random.default_rng().normal(size=shape).astype("float32")


def random_bits(n):
    """Floats of every kind: signs, exponents and mantissas at random, with zeros, infinities and subnormal numbers."""
    bits = np.random.default_rng().integers(-2**31, 2**31, n).astype(np.int32)
    special = np.float32([0, -0.0, np.inf, -np.inf, 1e-40, -1e-40, 1.1754944e-38, 3.4e38, 1, -1])
    values = np.concatenate([bits.view(np.float32), special])
    return values[~np.isnan(values)]


def apply(function, x, **instead):
    """A function of one number to many, in a kernel.  instead: instructions of ptx.py by other ones."""
    @kernel(threads=1)
    def each(x: F1, y: F1, n: Int):
        for i in range(n):
            y[i] = function(x[i])

    with device.simulated() as simulator:
        vars(simulator.ptx).update(instead)
        y = device.empty(x.size)
        device.launch(each, 1, device.to_device(x), y, x.size)
        return y.copy_to_host()


def flushed(x):
    """.ftz: subnormal numbers become zeros of their sign."""
    return np.where(np.abs(x) < SUBNORMAL, np.copysign(0, x), x)


@pytest.mark.parametrize("name, exact", [("exp2", np.exp2), ("log2", np.log2), ("reciprocal", lambda x: 1 / x)])
def test_special_functions(name, exact):
    x = random_bits(300)
    x = np.concatenate([x, np.float32([-126, -126.5, -127, -149, 127.9, 128, np.nan]), numbers(300) * 50])
    with np.errstate(all="ignore"):
        expected = flushed(exact(flushed(x).astype(np.float64)).astype(np.float32))
    found = apply({"exp2": lambda x: ptx.exp2(x), "log2": lambda x: ptx.log2(x),
                   "reciprocal": lambda x: ptx.reciprocal(x)}[name], x)
    same = (found == expected) & (np.signbit(found) == np.signbit(expected)) | np.isnan(found) & np.isnan(expected)
    with np.errstate(all="ignore"):
        assert (same | (np.abs(found - expected) <= 1.2e-7 * np.abs(expected))).all(), x[~same]


def test_a_product_that_is_rounded():
    x = random_bits(100)
    with np.errstate(all="ignore"):
        assert (apply(lambda x: ptx.times(x, ptx.float_of(0x3f800001)), x) == x * (1 + np.finfo("float32").eps)).all()


@pytest.mark.compiler
def test_no_sum_takes_a_rounded_product_into_a_multiply_add():
    @kernel(threads=1)
    def add(x: F1):
        x[0] = ptx.times(x[1], x[2]) + x[3]
        x[4] = x[5] * x[6] + x[7]

    found = compiled.report(add, (9, 0))
    assert found.ptx.count("mul.rn.f32") == found.multiply_adds == 1


def test_bits():
    x = random_bits(100)
    assert (apply(lambda x: ptx.float_of(ptx.bits_of(x) ^ 1), x).view(np.int32) == (x.view(np.int32) ^ 1)).all()


def test_rounding_to_tf32():
    """cvt.rna: to nearest, ties away from zero; 10 bits of mantissa after the first."""
    x = np.concatenate([numbers(300) * 100, np.float32([1 + 2**-11, -1 - 2**-11, 1 + 3 * 2**-11, 0, 1 + 2**-12])])
    mantissa, exponent = np.frexp(np.abs(x).astype(np.float64))
    expected = np.copysign(np.ldexp(np.floor(mantissa * 2**11 + 0.5), exponent - 11), x).astype(np.float32)
    assert (apply(lambda x: ptx.float_of(ptx.to_tf32(x)), x) == expected).all()


@pytest.mark.parametrize("rounded", [True, False])
def test_products_on_tensor_cores(rounded):
    """mma.m16n8k8: whole matrices, spread over the lanes as the PTX ISA has it in its figures for .tf32."""
    @kernel(threads=32)
    def multiply(A: F2, B: F2, C: F2):
        lane = cuda.laneid
        group, t = lane // 4, lane % 4
        a = (operand(A[group, t]), operand(A[group + 8, t]), operand(A[group, t + 4]), operand(A[group + 8, t + 4]))
        b = (operand(B[t, group]), operand(B[t + 4, group]))
        c = (C[group, 2 * t], C[group, 2 * t + 1], C[group + 8, 2 * t], C[group + 8, 2 * t + 1])
        d = ptx.mma_tf32(a, b, c)
        C[group, 2 * t], C[group, 2 * t + 1], C[group + 8, 2 * t], C[group + 8, 2 * t + 1] = d

    @device_function
    def operand(x):
        return ptx.to_tf32(x) if rounded else ptx.bits_of(x)

    def as_tensor_core(X):                          # the 13 last bits are not looked at
        return (np.asarray(X).view(np.int32) & -0x2000).view(np.float32).astype(np.float64)

    A, B, C = numbers((16, 8)), numbers((8, 8)), numbers((16, 8))
    with device.simulated(seed=1) as simulator:
        D = device.to_device(C)
        device.launch(multiply, 1, device.to_device(A), device.to_device(B), D)
        found = D.copy_to_host()
        assert not simulator.races
    if rounded:
        A, B = (apply(lambda x: ptx.float_of(ptx.to_tf32(x)), X.reshape(-1)).reshape(X.shape) for X in (A, B))
    np.testing.assert_allclose(found, as_tensor_core(A) @ as_tensor_core(B) + C, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", range(5))
def test_asynchronous_copies_fill_up_with_zeros(count):
    @kernel(threads=1)
    def copy(x: F1, y: F1):
        tile = cuda.shared.array(8, float32, alignment=16)
        ptx.copy4(tile, 4, x, 8, count)
        ptx.copy1(tile, 3, x, 1, 1)
        ptx.copy1(tile, 2, x, 1, 0)
        ptx.copies_commit()
        ptx.copies_wait(0)
        a, b, c, d = ptx.load4(tile, 4)
        ptx.store4(y, 0, a, b, c, d)
        y[4], y[5] = tile[3], tile[2]

    with device.simulated():
        x, y = numbers(12), device.empty(6)
        device.launch(copy, 1, device.to_device(x), y)
        assert (y.copy_to_host() == [*np.where(np.arange(4) < count, x[8:], 0), x[1], 0]).all()


def test_copies_are_there_when_they_are_waited_for():
    """wait_group n: all groups but the n that were committed last; what is not committed is not waited for."""
    @kernel(threads=1)
    def copy(x: F1, y: F1):
        tile = cuda.shared.array(3, float32)
        for k in range(3):
            ptx.copy1(tile, k, x, k, 1)
            if k < 2:
                ptx.copies_commit()
        for k in range(3):
            y[k] = tile[k]
        ptx.copies_wait(1)
        for k in range(3):
            y[3 + k] = tile[k]
        ptx.copies_wait(0)
        for k in range(3):
            y[6 + k] = tile[k]

    with device.simulated():
        x, y = numbers(3), device.empty(9)
        device.launch(copy, 1, device.to_device(x), y)
        none, first, both = np.isnan(y.copy_to_host()).reshape(3, 3)
        assert none.all() and list(first) == [False, True, True] and list(both) == [False, False, True]
        assert (y.copy_to_host()[6:8] == x[:2]).all()


def test_single_numbers_by_flat_indices():
    @kernel(threads=1)
    def move(x: F2, m: B1, y: F1):
        ptx.store(y, 1, ptx.load(x, 5) if ptx.load(m, 1) else float32(0))
        ptx.load(x, 6)

    with device.simulated():
        x, y = numbers((2, 3)), device.zeros(2)
        with pytest.raises(SimulationError, match="x: number 6 of 6"):
            device.launch(move, 1, device.to_device(x), device.to_device(np.array([False, True])), y)
        assert (y.copy_to_host() == [0, x[1, 2]]).all()


def test_a_first_look_gives_what_is_there():
    """load4_relaxed, as poll4, may meet a relaxed store of another block; but it does not wait."""
    @kernel(threads=4, resident=True)
    def look(x: F1, y: F1, error: I1):
        t = cuda.threadIdx.x
        if cuda.blockIdx.x == 1:
            ptx.store_relaxed(x, t, float32(t))
        elif t == 0:
            early = ptx.load4_relaxed(x, 0)
            late = ptx.poll4(x, 0, error)
            for k in range(4):
                y[k] = early[k]
                y[4 + k] = late[k]

    with device.simulated() as simulator:
        y, unwritten = device.empty(8), np.full(4, ptx.UNWRITTEN, np.int32)
        device.launch(look, 2, device.to_device(unwritten.view(np.float32)), y, simulator.error)
        assert (y.copy_to_host()[:4].view(np.int32) == unwritten).all() and (y.copy_to_host()[4:] == range(4)).all()
        assert not simulator.races


# ------------------------------------------------------------------------------------------------------- activations

def off_by(ulps, instruction):
    """The instruction with so many units in the last place added to its result."""
    def perturbed(x):
        result = instruction(x)
        for _ in range(abs(ulps)):
            result = np.nextafter(result, np.float32(np.copysign(np.inf, ulps)))
        return result

    return perturbed


def all_over(low, high):
    """Floats from low to high, near 0 in particular, and the ends."""
    rng = np.random.default_rng()
    near = np.exp2(rng.uniform(-40, 0, 300)) * rng.choice([-1, 1], 300)
    x = np.concatenate([rng.uniform(low, high, 2000), near[(low <= near) & (near <= high)], [low, high]])
    return x.astype("float32")


# The worst absolute error, and the worst relative one as a + b |x|.  PTX ISA: ex2.approx is off by at most 2 units in
# the last place, rcp.approx by 1.  The worst of 26,000 numbers each: tanh 2.9e-7 (relative), sigmoid 1.8e-7 (absolute)
# and 4.0e-6 (relative, at -80), exp 4.1e-6 (relative, at -87).
EXACT = {
    "tanh": (activations.tanh, np.tanh, -12, 12, 2e-7, (4e-7, 0)),
    "sigmoid": (activations.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -80, 20, 2e-7, (4e-7, 8e-8)),
    "exp": (activations.exp, np.exp, -87, 0, 3e-7, (4e-7, 8e-8)),
}


@pytest.mark.parametrize("exp2, reciprocal", [(0, 0), (2, 1), (2, -1), (-2, 1), (-2, -1)])
@pytest.mark.parametrize("name", EXACT)
def test_error_of_activations(name, exp2, reciprocal):
    formula, exact, low, high, absolute, (relative, with_x) = EXACT[name]
    x = all_over(low, high)
    with device.simulated() as simulator:
        found = apply(formula, x, exp2=off_by(exp2, simulator.ptx.exp2),
                      reciprocal=off_by(reciprocal, simulator.ptx.reciprocal)).astype(np.float64)
    expected = exact(x.astype(np.float64))
    error = np.abs(found - expected)
    assert np.isfinite(found).all() and (error <= absolute).all(), error.max()
    normal = np.abs(expected) >= SUBNORMAL
    assert (error <= (relative + with_x * np.abs(x)) * np.abs(expected))[normal].all()


def test_limits_of_activations():
    x = np.float32([np.inf, 1e30, 100, 0, -0.0, -100, -1e30, -np.inf, np.nan])
    for formula, limits in ((activations.tanh, [1, 1, 1, 0, -0.0, -1, -1, -1, np.nan]),
                            (activations.sigmoid, [1, 1, 1, 0.5, 0.5, 0, 0, 0, np.nan]),
                            (activations.exp, [np.inf, np.inf, np.inf, 1, 1, 0, 0, 0, np.nan]),
                            (activations.relu, [np.inf, 1e30, 100, 0, -0.0, 0, 0, 0, np.nan])):
        found = apply(formula, x)
        np.testing.assert_array_equal(found, np.float32(limits))
        assert (np.signbit(found) == np.signbit(limits))[:-1].all()


def test_results_below_the_smallest_normal_number_are_zero():
    x = np.float32([-87.3, -87.4, -88, -100])
    assert (apply(activations.exp, x) == np.float32([np.exp(np.float64(x[0])), 0, 0, 0])).sum() >= 3
    assert (apply(activations.exp, x)[1:] == 0).all() and (apply(activations.sigmoid, x)[1:] == 0).all()


@kernel(threads=256)
def lstm_step(a: F2, c_prev: F1, h: F1, c: F1, n: Int):
    j = cuda.grid(1)
    if j < n:
        i, f, g, o, h_j, c_j = lstm.forward(a[0, j], a[1, j], a[2, j], a[3, j], c_prev[j])
        h[j] = h_j
        c[j] = c_j


@pytest.mark.compiler
def test_a_step_is_made_of_special_instructions():
    """Two for each of the five activations; no division, and no call."""
    for cc in compiled.TARGETS:
        code = compiled.report(lstm_step, cc).ptx
        assert code.count("ex2.approx.ftz.f32") == code.count("rcp.approx.ftz.f32") == 5
        assert "div." not in code and "call" not in code
    compiled.check(lstm_step, registers=24)
