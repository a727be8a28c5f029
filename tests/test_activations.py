"""Compiled tanh, sigmoid and exp against extended precision; the formulas on every target they are written for."""
import os
import re
import subprocess
import sys

import numba
import numpy as np
import pytest

from minilstm.cells import activations, lstm
from minilstm.machine.kernel import SETTINGS, kernel

MAX_ULP = 2         # measured: 1.7 in float32, 1.99 in float64, at most


@kernel
def tanh_all(x, y):
    for j in range(x.size):
        y[j] = activations.tanh(x[j])


@kernel
def sigmoid_all(x, y):
    for j in range(x.size):
        y[j] = activations.sigmoid(x[j])


@kernel
def exp_all(x, y):
    for j in range(x.size):
        y[j] = activations.exp(x[j])


def compiled(function, x):
    y = np.full_like(x, np.nan)
    function(x, y)
    return y


def exact(name, x):
    """In float64 for float32 numbers, in extended precision for float64 ones."""
    x = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    with np.errstate(over="ignore"):
        return {"tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "exp": np.exp}[name](x)


def many_numbers(dtype):
    """Uniform in every decade of interest, and logarithmic from the smallest to beyond saturation; both signs."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform(0, limit, 100_000) for limit in (1e-3, 0.1, 1, 3, 10, 30, 110, 800)]
    positive = np.concatenate([*parts, np.logspace(-30, 2.9, 200_000)])
    return np.concatenate([positive, -positive]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= 52, reason="nothing to compare with: long double is no wider than float64 here"))])
@pytest.mark.parametrize("name, function", [("tanh", tanh_all), ("sigmoid", sigmoid_all)])
def test_error_in_units_of_the_last_place(name, function, dtype):
    x = many_numbers(dtype)
    y, true = compiled(function, x), exact(name, x)
    assert y.dtype == dtype
    ulp = np.abs(y.astype(true.dtype) - true) / np.spacing(np.abs(true).astype(dtype)).astype(true.dtype)
    worst = np.argmax(np.where(np.isnan(ulp), np.inf, ulp))
    assert ulp[worst] <= MAX_ULP, f"{ulp[worst]} ulp at {x[worst]!r}"


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= 52, reason="nothing to compare with: long double is no wider than float64 here"))])
def test_exp_is_right_below_zero_until_it_is_zero(dtype):
    x = -np.abs(many_numbers(dtype))
    y, true = compiled(exp_all, x), exact("exp", x)
    normal = true >= np.finfo(dtype).tiny * 1.001
    assert (y[~normal] <= np.finfo(dtype).tiny * 1.002).all() and (y[true < np.finfo(dtype).tiny * 0.999] == 0).all()
    ulp = np.abs(y - true)[normal] / np.spacing(true[normal].astype(dtype)).astype(true.dtype)
    assert ulp.max() <= MAX_ULP
    ends = compiled(exp_all, np.array([0, -0.0, -np.inf, -1e30, np.nan], dtype))
    assert ends[:4].tolist() == [1, 1, 0, 0] and np.isnan(ends[4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_are_exact_and_nan_stays_nan(dtype):
    x = np.array([np.inf, -np.inf, 1e30, -1e30, 0.0, -0.0, np.nan], dtype)
    y = compiled(tanh_all, x)
    assert y[:6].tolist() == [1, -1, 1, -1, 0, 0] and np.signbit(y[5]) and np.isnan(y[6])
    y = compiled(sigmoid_all, x)
    assert y[:6].tolist() == [1, 0, 1, 0, 0.5, 0.5] and np.isnan(y[6])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_and_its_derivative_are_numpys(dtype):
    @numba.njit
    def both(x, y, dy):
        for j in range(x.size):
            y[j] = activations.relu(x[j])
            dy[j] = activations.d_relu(y[j])

    x = np.array([-np.inf, -2, -0.0, 0, 3, np.inf, np.nan], dtype)
    y, dy = np.empty_like(x), np.empty_like(x)
    both(x, y, dy)
    assert np.array_equal(y, activations.relu(x), equal_nan=True) and np.isnan(y[6])
    assert np.array_equal(dy, activations.d_relu(y), equal_nan=True) and dy[:6].tolist() == [0, 0, 0, 0, 1, 1]


def test_loops_over_formulas_become_vector_instructions():
    """Left to itself the compiler calls the formulas one number at a time, many times slower."""
    matrix = numba.float32[:, ::1]
    row = numba.njit((matrix, matrix, matrix, matrix, matrix), **SETTINGS)(lstm.forward_row)
    [assembly] = row.inspect_asm().values()
    vector_divisions = re.findall(r"divps|fdiv\tv\d+\.4s|fdiv\s+v\d+\.4s", assembly)
    assert len(vector_divisions) >= 5, "five activations, a vector division in each"


GPU_STEP = """
import numpy as np
from numba import cuda
from minilstm.cells import lstm

def step(a, c_prev, h, c):
    j = cuda.grid(1)
    if j < c.size:
        _, _, _, _, h[j], c[j] = lstm.forward(a[0, j], a[1, j], a[2, j], a[3, j], c_prev[j])

def step_backward(gates, c_prev, c, dh, dc, da):
    j = cuda.grid(1)
    if j < c.size:
        da[0, j], da[1, j], da[2, j], da[3, j], dc[j] = lstm.backward(
            gates[0, j], gates[1, j], gates[2, j], gates[3, j], c_prev[j], c[j], dh[j], dc[j])
"""

IN_SIMULATOR = GPU_STEP + """
rng = np.random.default_rng(0)
a, gates = (rng.normal(size=(4, 40)).astype("float32") for _ in range(2))
c_prev, c_given, dh, dc = (rng.normal(size=40).astype("float32") for _ in range(4))
h, c, da = np.full(40, np.nan, "float32"), np.full(40, np.nan, "float32"), np.full((4, 40), np.nan, "float32")
dc_out = dc.copy()
cuda.jit(step)[2, 32](a, c_prev, h, c)
cuda.jit(step_backward)[2, 32](gates, c_prev, c_given, dh, dc_out, da)
_, _, _, _, h_expected, c_expected = lstm.forward(*a, c_prev)
*da_expected, dc_expected = lstm.backward(*gates, c_prev, c_given, dh, dc)
for found, expected in ((h, h_expected), (c, c_expected), (da, np.array(da_expected)), (dc_out, dc_expected)):
    assert found.dtype == expected.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()
print("simulated")
"""

TO_PTX = GPU_STEP + """
import types
import numba.cuda.dispatcher
from numba import float32
numba.cuda.dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=(9, 0))   # there is none
for kernel, signature in ((step, (float32[:, ::1], float32[::1], float32[::1], float32[::1])),
                          (step_backward, (float32[:, ::1], *[float32[::1]] * 4, float32[:, ::1]))):
    ptx, _ = cuda.compile_ptx(kernel, signature, cc=(9, 0))
    print(ptx.count("fma.rn.f32"), ptx.count(".f64"))
"""


def in_new_process(script, **environment):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_formulas_run_in_cuda_kernels():
    """In Numba's simulator, forward and backward, against NumPy arrays."""
    assert in_new_process(IN_SIMULATOR, NUMBA_ENABLE_CUDASIM="1").strip() == "simulated"


@pytest.mark.compiler
def test_float32_formulas_compile_for_a_gpu_without_double_precision():
    pytest.importorskip("numba_cuda", reason="the GPU compiler is not installed (pip install -e '.[gpu]')")
    for line in in_new_process(TO_PTX).splitlines():
        multiply_adds, doubles = map(int, line.split())
        assert multiply_adds > 0 and doubles == 0, line
