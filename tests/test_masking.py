"""Every way to hide data: what it gives, that its backward pass is its derivative, that hidden things reach nothing."""
import functools
import inspect
import math
import os
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import assert_close, masks, random_lstm, same_bits
from minilstm import masking
from minilstm.machine import threads as machine_threads
from minilstm.masking import cpu, reference

BACKENDS = ["reference", "cpu"]
DTYPES = ["float32", "float64"]
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


# --------------------------------------------------------------------------- each function once more, as a slow loop
# For one row and one feature: what stands at its steps, and which of these are real.

def at_real_steps(values, real):
    return [value if r else 0 for value, r in zip(values, real)]


def held(values, real):
    last, found = 0, []
    for value, r in zip(values, real):
        last = value if r else last
        found.append(last)
    return found


def held_in_reverse(values, real):
    return held(values[::-1], real[::-1])[::-1]


def of_real_steps(function):
    """A pooling: ``function`` of the list of what stands at the real steps, 0 if there is none."""
    def pool(values, real):
        values = [value for value, r in zip(values, real) if r]
        return [function(values) if values else 0]
    return pool


def mean(values):
    return math.fsum(values) / len(values)


def feature_by_feature(loop, y, mask):
    """(B,T,F) -> (B,T,F), or (B,1,F) for a pooling."""
    found = [[loop(list(map(float, row[:, j])), real) for j in range(y.shape[2])] for row, real in zip(y, mask)]
    return np.array(found, dtype=y.dtype).transpose(0, 2, 1)


# name -> forward(y, mask), backward(d, mask, y) of one backend; the slow loop; does it pool
def operations(backend="cpu"):
    call = {name: functools.partial(getattr(masking, name), backend=backend) for name in NAMES}

    def of(name, *options):
        return (lambda y, mask: call[name](y, mask, *options)), (
            lambda d, mask, y: call[name + "_backward"](d, mask, *options))

    return {
        "select": (call["select"], lambda d, mask, y: call["select"](d, mask), at_real_steps, False),
        "hold": (*of("hold"), held, False),
        "hold, reverse": (*of("hold", True), held_in_reverse, False),
        "first_valid": (*of("first_valid"), of_real_steps(lambda values: values[0]), True),
        "last_valid": (*of("last_valid"), of_real_steps(lambda values: values[-1]), True),
        "masked_sum": (*of("masked_sum"), of_real_steps(math.fsum), True),
        "masked_mean": (*of("masked_mean"), of_real_steps(mean), True),
        "masked_max": (lambda y, mask: call["masked_max"](y, mask)[0],
                       lambda d, mask, y: call["masked_max_backward"](d, mask, call["masked_max"](y, mask)[1]),
                       of_real_steps(max), True),
    }


NAMES = [name for name, value in vars(masking).items() if inspect.isfunction(value)
         and value.__module__ == masking.__name__ and name[0] != "_" and name != "zero_input"]
OPERATIONS = list(operations())
POOLS = [name for name in OPERATIONS if operations()[name][3]]
SIZES = [(2, 3, 4), (4, 2, 3), (3, 3, 2), (2, 4, 4), (3, 4, 3), (3, 3, 3), (5, 1, 1), (1, 7, 1)]


def random_case(rng, B, T, F, dtype="float64"):
    """y, and name -> mask."""
    patterns = masks(rng, B, T) | {"none": np.ones((B, T), bool)}
    return rng.normal(size=(B, T, F)).astype(dtype), patterns


def upstream(rng, name, y):
    shape = (len(y), y.shape[2]) if name in POOLS else y.shape
    return rng.normal(size=shape).astype(y.dtype)


def both(name, backend, y, mask, d):
    forward, backward, *_ = operations(backend)[name]
    return forward(y, mask), backward(d, mask, y)


def derivative(function, y, d):
    """That of sum(d * function(y)), by differences.  The functions here are linear, or so within 1: it is exact."""
    dy = np.empty_like(y)
    for place in np.ndindex(y.shape):
        change = np.zeros_like(y)
        change[place] = 1
        dy[place] = np.sum(d * (function(y + change) - function(y - change))) / 2
    return dy


# --------------------------------------------------------------------------------------------- values and gradients

def test_backends_have_the_same_functions_and_the_front_adds_only_keywords():
    assert len(NAMES) == 15
    for name in NAMES:
        one, other, front = (inspect.signature(getattr(m, name)).parameters for m in (reference, cpu, masking))
        assert list(one.values()) == list(other.values())
        assert list(front)[:len(one)] == list(one) and set(front) - set(one) <= {"axes", "backend"}
        assert front["backend"].default == "cpu"
    forward = {name for name in NAMES if not name.endswith("_backward")}
    assert {name + "_backward" for name in forward - {"select"}} | forward == set(NAMES)


def test_zero_input_is_select_by_the_name_of_what_it_is_used_for():
    for backend in BACKENDS:
        assert same_bits(masking.zero_input(X, MASK, backend=backend), masking.select(X, MASK, backend=backend))
    assert inspect.signature(masking.zero_input) == inspect.signature(masking.select)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_it_is_what_a_slow_loop_says(name, backend, dtype):
    rng = np.random.default_rng()
    forward, _, loop, pools = operations(backend)[name]
    for sizes in SIZES:
        y, patterns = random_case(rng, *sizes, dtype)
        for mask in patterns.values():
            expected = feature_by_feature(loop, y, mask)
            found = forward(y, mask)
            assert found.dtype == dtype and found.flags.c_contiguous and not np.shares_memory(found, y)
            assert_close(found, expected[:, 0] if pools else expected, "same formulas, float64", name)   # float32 too


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_backward_is_the_derivative(name, backend):
    rng = np.random.default_rng()
    for sizes in SIZES:
        y, patterns = random_case(rng, *sizes)
        y += 20 * rng.permutation(y.size).reshape(y.shape)              # no two of them within 2
        d = upstream(rng, name, y)
        for mask in patterns.values():
            _, found = both(name, backend, y, mask, d)
            expected = derivative(lambda y: operations(backend)[name][0](y, mask), y, d)
            assert found.flags.c_contiguous
            assert_close(found, expected, "same formulas, float64")
            assert name.startswith("hold") or not found[~mask].any()


@settings(max_examples=300, deadline=None)
@given(B=st.integers(0, 5), T=st.integers(0, 9), F=st.integers(0, 20), seed=st.integers(0, 2**32),
       name=st.sampled_from(OPERATIONS), dtype=st.sampled_from(DTYPES))
def test_backends_give_the_same_bits(B, T, F, seed, name, dtype):
    """All of them, backward too: nothing is left to the order of a sum.  No rows, no steps, no features are legal."""
    rng = np.random.default_rng(seed)
    y, d = (rng.choice([-0.0, 0.0, 1.5, *rng.normal(size=9)], (B, T, F)).astype(dtype) for _ in range(2))
    d = d.sum(axis=1) if name in POOLS else d
    mask = rng.random((B, T)) < rng.choice([0, 0.3, 0.7, 1])
    for one, other in zip(both(name, "reference", y, mask, d), both(name, "cpu", y, mask, d)):
        assert same_bits(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_of_many_small_numbers_keep_their_digits(backend):
    """Double precision inside: single precision makes 999.90 of this sum, and infinity of a mean of huge numbers."""
    y = np.full((1, 10**4, 1), 0.1, "float32")
    mask = np.ones((1, 10**4), bool)
    assert abs(np.cumsum(y)[-1] - 999.903) < 1e-3
    assert masking.masked_sum(y, mask, backend=backend) == np.float32(10**4 * float(y[0, 0, 0]))
    assert masking.masked_mean(y, mask, backend=backend) == y[0, 0]
    huge = np.full((1, 9, 1), 3e38, "float32")
    assert masking.masked_mean(huge, mask[:, :9], backend=backend) == huge[0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_of_equal_maxima_gets_all_of_the_gradient(backend):
    y = np.array([9, 1, 5, 5, 2, 5], "float32")[None, :, None]
    mask = np.array([[False, True, True, True, True, True]])
    largest, source = masking.masked_max(y, mask, backend=backend)
    assert largest == 5 and source == 2 and source.dtype == np.int64
    dy = masking.masked_max_backward(np.array([[7]], "float32"), mask, source, backend=backend)
    assert dy[0, :, 0].tolist() == [0, 0, 7, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_maximum_of_nothing_but_minus_infinity_stands_at_a_real_step(backend):
    """Whoever fills the masked steps with -inf finds the maximum in the padding, and sends the gradient there."""
    y = np.full((1, 4, 1), -np.inf)
    largest, source = masking.masked_max(y, np.array([[False, False, True, True]]), backend=backend)
    assert largest == -np.inf and source == 2


# ---------------------------------------------------------------------------------------------------- what is hidden

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_stands_at_masked_steps_changes_no_bit(name, backend, dtype):
    rng = np.random.default_rng()
    for sizes in SIZES:
        y, patterns = random_case(rng, *sizes, dtype)
        d = upstream(rng, name, y)
        for mask in patterns.values():
            expected = both(name, backend, y, mask, d)
            for rubbish in (np.nan, np.inf, -np.inf, 1e300 if dtype == "float64" else 1e38):
                dirty, dirty_d = y.copy(), d.copy()
                dirty[~mask] = rubbish
                if name in POOLS:
                    dirty_d[~mask.any(axis=1)] = rubbish                # of a row that has no real step
                elif name == "select":
                    dirty_d[~mask] = rubbish
                found = both(name, backend, dirty, mask, dirty_d)
                assert all(same_bits(f, e) for f, e in zip(found, expected))
            if not mask.any():
                assert not any(array.any() for array in expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_steps_before_the_first_real_one_are_not_read_by_hold(reverse, backend):
    mask = np.array([[False, True, False]])
    d = np.array([np.nan, 2, 3])[None, :, None]
    d, mask = (d[:, ::-1], mask[:, ::-1]) if reverse else (d, mask)
    assert masking.hold_backward(d, mask, reverse, backend=backend)[0, :, 0].tolist() == [0, 5, 0]


@settings(max_examples=300, deadline=None)
@given(B=st.integers(1, 5), T=st.integers(1, 9), F=st.integers(1, 20), more=st.integers(1, 30),
       seed=st.integers(0, 2**32), name=st.sampled_from(POOLS), backend=st.sampled_from(BACKENDS),
       dtype=st.sampled_from(DTYPES))
def test_amount_and_place_of_padding_change_no_bit(B, T, F, more, seed, name, backend, dtype):
    """More masked steps, full of NaN, anywhere between the others."""
    rng = np.random.default_rng(seed)
    y, patterns = random_case(rng, B, T, F, dtype)
    mask = patterns[rng.choice(list(patterns))]
    d = upstream(rng, name, y)
    slots = np.sort(rng.permutation(T + more)[:T])
    longer, longer_mask = np.full((B, T + more, F), np.nan, dtype), np.zeros((B, T + more), bool)
    longer[:, slots], longer_mask[:, slots] = y, mask
    out, dy = both(name, backend, y, mask, d)
    found, found_dy = both(name, backend, longer, longer_mask, d)
    assert same_bits(found, out) and same_bits(found_dy[:, slots], dy)
    assert np.count_nonzero(found_dy) == np.count_nonzero(dy)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_row_is_the_same_alone_and_in_any_batch(name, backend):
    rng = np.random.default_rng()
    y, patterns = random_case(rng, 5, 6, 3, "float32")
    d = upstream(rng, name, y)
    order = rng.permutation(5)
    for mask in patterns.values():
        out, dy = both(name, backend, y, mask, d)
        mixed_out, mixed_dy = both(name, backend, y[order], mask[order], d[order])
        assert same_bits(mixed_out, out[order]) and same_bits(mixed_dy, dy[order])
        for b in range(5):
            alone, alone_dy = both(name, backend, y[b:b + 1], mask[b:b + 1], d[b:b + 1])
            assert same_bits(alone[0], out[b]) and same_bits(alone_dy[0], dy[b])


@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_for_any_number_of_threads(monkeypatch, name):
    rng = np.random.default_rng()
    before = minilstm.get_num_threads()
    y, patterns = random_case(rng, 7, 5, 4, "float32")
    d = upstream(rng, name, y)
    expected = both(name, "cpu", y, patterns["holes"], d)
    monkeypatch.setattr(machine_threads, "MULTIPLY_ADDS_WORTH_A_THREAD", 1)
    try:
        for count in (2, 3, 11):
            minilstm.set_num_threads(count)
            found = both(name, "cpu", y, patterns["holes"], d)
            assert all(same_bits(f, e) for f, e in zip(found, expected))
    finally:
        minilstm.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_real_reading_that_is_not_finite_shows_in_its_own_row_and_feature(value, name, backend):
    """Where it stands in the middle of three real steps; what only looks at one end does not meet it."""
    y = np.random.default_rng().normal(size=(3, 5, 4))
    mask = np.array([[False, True, True, True, False]] * 3)
    d = upstream(np.random.default_rng(), name, y)
    clean, _ = both(name, backend, y, mask, d)
    y[1, 2, 3] = value
    found, _ = both(name, backend, y, mask, d)
    spoilt = ~np.isfinite(found)
    assert spoilt.sum() == (0 if "valid" in name else 1)
    assert name not in POOLS or "valid" in name or spoilt[1, 3]
    assert same_bits(found[~spoilt], clean[~spoilt])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ends_of_the_outputs_of_a_net_are_its_final_states(backend):
    """last_valid for the direction that walks forward, first_valid for the other; out.y[:, -1] is neither."""
    rng = np.random.default_rng()
    net = random_lstm(rng, 3, 4, bidirectional=True, backend=backend)
    x, patterns = random_case(rng, 5, 6, 3, "float32")
    for mask in patterns.values():
        out, _ = net.forward(x, mask=mask)
        assert same_bits(masking.last_valid(out.y[:, :, :4], mask, backend=backend), out.h_n[0, 0])
        assert same_bits(masking.first_valid(out.y[:, :, 4:], mask, backend=backend), out.h_n[0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_reversal_of_time_exchanges_the_ends_and_the_directions(backend):
    """Bit for bit, the backward passes too."""
    rng = np.random.default_rng()
    y, patterns = random_case(rng, 5, 6, 3, "float32")
    for mask in patterns.values():
        for one, other in (("first_valid", "last_valid"), ("hold", "hold, reverse")):
            d = upstream(rng, one, y)
            out, dy = both(one, backend, y, mask, d)
            turned = d if one in POOLS else d[:, ::-1]
            found, found_dy = both(other, backend, y[:, ::-1], mask[:, ::-1], turned)
            assert same_bits(found if one in POOLS else found[:, ::-1], out) and same_bits(found_dy[:, ::-1], dy)


# ------------------------------------------------------------------------------------------------- masks of features

def keeps(rng, B, T, D):
    """name -> (keep, axes, the same as (B,T,D))"""
    shapes = {"D": ((D,), None), "D named": ((D,), "D"), "TD": ((T, D), "TD"), "BD": ((B, D), "BD"),
              "BTD": ((B, T, D), None)}
    for name, (shape, axes) in shapes.items():
        keep = rng.random(shape) < 0.5
        yield name, keep, axes, np.broadcast_to(keep[:, None] if axes == "BD" else keep, (B, T, D))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_feature_mask_is_a_choice_place_by_place(sizes, backend, dtype):
    """Forward and backward, for every kind of mask and of fill, with NaN in all that is hidden."""
    rng = np.random.default_rng()
    x, dy = (rng.normal(size=sizes).astype(dtype) for _ in range(2))
    for name, keep, axes, full in keeps(rng, *sizes):
        dirty, dirty_dy = (np.where(full, a, a.dtype.type(np.nan)) for a in (x, dy))
        for fill in (0, -2.5, 3, rng.normal(size=sizes[2]).astype(dtype)):
            found = masking.feature_mask(dirty, keep, fill, axes=axes, backend=backend)
            expected = np.empty_like(x)
            for b, t, j in np.ndindex(sizes):
                filled = fill[j] if isinstance(fill, np.ndarray) else fill
                expected[b, t, j] = x[b, t, j] if full[b, t, j] else filled
            assert same_bits(found, expected), name
        dx = masking.feature_mask_backward(dirty_dy, keep, axes=axes, backend=backend)
        assert same_bits(dx, np.where(full, dy, dy.dtype.type(0))), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_of_feature_mask_is_the_derivative(backend):
    rng = np.random.default_rng()
    x, dy = rng.normal(size=(2, 2, 3, 4))
    for _, keep, axes, _ in keeps(rng, *x.shape):
        expected = derivative(lambda x: masking.feature_mask(x, keep, 5, axes=axes, backend=backend), x, dy)
        found = masking.feature_mask_backward(dy, keep, axes=axes, backend=backend)
        assert_close(found, expected, "same formulas, float64")


def test_feature_mask_gives_the_same_bits_for_any_number_of_threads_and_any_batch(monkeypatch):
    rng = np.random.default_rng()
    before = minilstm.get_num_threads()
    x, keep = rng.normal(size=(7, 5, 4)), rng.random((7, 5, 4)) < 0.5
    expected = masking.feature_mask(x, keep, 2)
    monkeypatch.setattr(machine_threads, "MULTIPLY_ADDS_WORTH_A_THREAD", 1)
    minilstm.set_num_threads(3)
    try:
        assert same_bits(masking.feature_mask(x, keep, 2), expected)
    finally:
        minilstm.set_num_threads(before)
    assert same_bits(masking.feature_mask(x[2:3], keep[2:3], 2), expected[2:3])


# -------------------------------------------------------------------------------------------------------- bad input

X, MASK, KEEP = np.zeros((2, 4, 3)), np.ones((2, 4), bool), np.ones((2, 4, 3), bool)
D_MAX, SOURCE = np.zeros((2, 3)), np.zeros((2, 3), np.int64)
BAD = {
    "a list": (lambda: masking.select(X.tolist(), MASK), TypeError, "x: expected a plain NumPy array", "got list"),
    "integers": (lambda: masking.select(X.astype(int), MASK), TypeError, "x: expected float32 or float64 (B,T,F)",
                 "int64 (2, 4, 3)", "x.astype('float32')"),
    "two axes": (lambda: masking.hold(X[0], MASK), ValueError, "y: expected float64 (B, T, F)", "(4, 3)"),
    "three axes": (lambda: masking.masked_sum_backward(X, MASK), ValueError, "d_sum: expected float64 (B, F)"),
    "no mask": (lambda: masking.masked_mean(X, None), TypeError, "mask: expected a bool array (B=2, T=4)", "NoneType"),
    "mask of numbers": (lambda: masking.select(X, MASK.astype(int)), TypeError, "mask: expected a bool array",
                        "int64 (2, 4)", "np.array(mask, dtype=bool)"),
    "mask that masks itself": (lambda: masking.select(X, np.ma.array(MASK)), TypeError, "MaskedArray"),
    "mask, time first": (lambda: masking.last_valid(X, MASK.T), ValueError, "mask: expected bool (B=2, T=4)",
                         "bool (4, 2)", "mask.T puts the batch first"),
    "mask with an axis of features": (lambda: masking.select(X, MASK[:, :, None]), ValueError, "got bool (2, 4, 1)"),
    "mask of another batch": (lambda: masking.last_valid_backward(D_MAX, MASK[:1]), ValueError,
                              "mask: expected bool (B=2, T)"),
    "backend": (lambda: masking.select(X, MASK, backend="cuda"), ValueError, "backend: expected one of", "'cuda'"),
    "reverse": (lambda: masking.hold(X, MASK, 1), TypeError, "reverse: expected True or False, got 1"),
    "source": (lambda: masking.masked_max_backward(D_MAX, MASK, SOURCE[0]), TypeError, "source: expected int64 (2, 3)"),
    "source, too late": (lambda: masking.masked_max_backward(D_MAX, MASK, SOURCE + 4), ValueError, "source: expected"),
    "source, too early": (lambda: masking.masked_max_backward(D_MAX, MASK, SOURCE - 2), ValueError, "source"),
    "source, masked": (lambda: masking.masked_max_backward(D_MAX, ~MASK, SOURCE), ValueError, "real in mask"),
    "keep, numbers": (lambda: masking.feature_mask(X, KEEP.astype(float)), TypeError,
                      "keep: expected a bool array (D=3,)", "np.array(keep, dtype=bool)"),
    "keep, two axes": (lambda: masking.feature_mask(X, KEEP[0]), ValueError, "keep: (4, 3) may be (T,D) or (B,D)",
                       "axes='TD' (T=4, D=3", "axes='BD' (B=2, D=3"),
    "keep, (B,T)": (lambda: masking.feature_mask(X, MASK), ValueError, "To hide whole steps, (B,T), call select"),
    "keep, other axes": (lambda: masking.feature_mask(X, KEEP[0], axes="BD"), ValueError,
                         "keep: expected bool (B=2, D=3) for axes='BD', got bool (4, 3)"),
    "keep, other rank": (lambda: masking.feature_mask_backward(X, KEEP[0, 0], axes="TD"), ValueError, "(T=4, D=3)"),
    "keep, 1 for an axis": (lambda: masking.feature_mask(X, KEEP[:, :1]), ValueError, "keep: expected bool (D=3,), (B"),
    "keep, other D": (lambda: masking.feature_mask(X, np.ones(4, bool)), ValueError, "got bool (4,)"),
    "axes": (lambda: masking.feature_mask(X, MASK, axes="BT"), ValueError, "axes: expected one of 'D', 'TD'", "'BT'"),
    "fill, NaN": (lambda: masking.feature_mask(X, KEEP, np.nan), ValueError, "fill: expected finite float64, got nan"),
    "fill, huge": (lambda: masking.feature_mask(X.astype("float32"), KEEP, 1e300), ValueError, "finite float32"),
    "fill, text": (lambda: masking.feature_mask(X, KEEP, "mean"), TypeError, "fill: expected a number or float64 (D=3"),
    "fill, other dtype": (lambda: masking.feature_mask(X, KEEP, np.zeros(3, "float32")), TypeError,
                          "fill: expected float64"),
    "fill, other D": (lambda: masking.feature_mask(X, KEEP, np.zeros(4)), ValueError, "fill: expected float64 (D=3)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named_and_explained(case):
    call, error, *words = BAD[case]
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_are_read_only_or_not_contiguous_are_fine(backend):
    rng = np.random.default_rng()
    y, patterns = random_case(rng, 4, 6, 4)
    mask = patterns["holes"]
    mask.flags.writeable = y.flags.writeable = False
    keep = np.broadcast_to(rng.random(4) < 0.5, y.shape)
    expected = masking.masked_mean(y, mask), masking.feature_mask(y, keep)
    assert same_bits(masking.masked_mean(y, mask, backend=backend), expected[0])
    turned = np.asfortranarray(y), np.asfortranarray(mask)
    assert same_bits(masking.masked_mean(*turned, backend=backend), expected[0])
    assert same_bits(masking.feature_mask(turned[0], keep, backend=backend), expected[1])


# ---------------------------------------------------------------------------------------------- beside other libraries

@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")


def pools_of_torch(torch, y, mask):
    """What one writes there: each for rows with at least one real step."""
    real = mask[:, :, None]
    first = mask.int().argmax(dim=1)
    last = mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1)
    return {
        "masked_sum": torch.where(real, y, 0).sum(dim=1),
        "masked_mean": torch.where(real, y, 0).sum(dim=1) / mask.sum(dim=1, keepdim=True),
        "masked_max": y.masked_fill(~real, -torch.inf).amax(dim=1),
        "last_valid": y.gather(1, last[:, None, None].expand(-1, 1, y.shape[2]))[:, 0],
        "first_valid": y.gather(1, first[:, None, None].expand(-1, 1, y.shape[2]))[:, 0],
    }


@pytest.mark.peers
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", POOLS)
def test_pools_and_their_gradients_are_pytorchs(torch, name, backend):
    rng = np.random.default_rng()
    y, patterns = random_case(rng, 5, 6, 3)
    mask = patterns["holes"]
    mask[np.arange(5), rng.integers(0, 6, 5)] = True
    d = upstream(rng, name, y)
    tensor = torch.tensor(y, requires_grad=True)
    expected = pools_of_torch(torch, tensor, torch.tensor(mask))[name]
    expected.backward(torch.tensor(d))
    out, dy = both(name, backend, y, mask, d)
    assert_close(out, expected.detach().numpy(), "pytorch, float64")
    assert_close(dy, tensor.grad.numpy(), "pytorch, float64")


@pytest.mark.peers
def test_an_empty_row_is_nan_and_minus_infinity_in_pytorch_and_0_here(torch):
    y, mask = np.ones((2, 3, 1)), np.array([[False] * 3, [True] * 3])
    theirs = pools_of_torch(torch, torch.tensor(y), torch.tensor(mask))
    assert theirs["masked_mean"][0].isnan() and theirs["masked_max"][0] == -np.inf
    assert masking.masked_mean(y, mask)[0] == 0 and masking.masked_max(y, mask)[0][0] == 0


@pytest.mark.peers
def test_pytorchs_amax_shares_a_gradient_among_equal_maxima(torch):
    y = np.array([1, 5, 5, 5.])[None, :, None]
    tensor = torch.tensor(y, requires_grad=True)
    tensor.amax(dim=1).backward(torch.ones(1, 1, dtype=torch.float64))
    mask = np.ones((1, 4), bool)
    dy = masking.masked_max_backward(np.ones((1, 1)), mask, masking.masked_max(y, mask)[1])
    assert tensor.grad[0, :, 0].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert dy[0, :, 0].tolist() == [0, 1, 0, 0]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:__array__ implementation")          # Keras' own, with NumPy 2
def test_keras_finds_maxima_in_the_padding_and_averages_nothing_to_nan(torch):
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras", reason="comparison with Keras: it is not installed")
    y = np.array([[[-5, -6], [-1, -2], [0, 0]]], "float32")
    mask = np.array([[True, True, False]])
    masked = keras.layers.Masking(0.0)(y)                               # carries the mask of above with it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        largest = keras.layers.GlobalMaxPooling1D()(masked)
        mean_of_nothing = keras.layers.GlobalAveragePooling1D()(y, mask=torch.tensor(~mask & mask))
    assert largest.tolist() == [[0, 0]] and bool(np.isnan(mean_of_nothing.numpy()).all())
    assert masking.masked_max(y, mask)[0].tolist() == [[-1, -2]]
    assert masking.masked_mean(y, ~mask & mask).tolist() == [[0, 0]]
    their_mean = keras.layers.GlobalAveragePooling1D()(y, mask=torch.tensor(mask))
    assert masking.masked_mean(y, mask).tolist() == their_mean.tolist() == [[-3, -4]]
