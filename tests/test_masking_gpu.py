"""Masks on a GPU: the bits of ``reference``, sums within one unit in the last place; hidden things reach nothing."""
import inspect
import subprocess
import sys

import numpy as np
import pytest

import minilstm
from compiled import check
from helpers import masks, same_bits
from minilstm import device, masking
from minilstm.masking import gpu as gpu_masks
from minilstm.masking import reference

SIZES = [(1, 1, 1), (3, 5, 2), (2, 1, 33), (1, 34, 3)]                  # around the 8 steps and 32 lanes of kernels
LARGE = [(37, 301, 130), (5, 2049, 260)]                                    # for a real GPU
POOLS = ["first_valid", "last_valid", "masked_sum", "masked_mean"]
SUMS = ["masked_sum", "masked_mean"]


def sizes_for(gpu):
    return SIZES if gpu.name == "simulator" else SIZES + LARGE


def garbage(rng, shape):
    return rng.choice(np.float32([np.nan, np.inf, -np.inf, 3e38]), shape)


def random_case(rng, B, T, F):
    """y, d as y, d as a pooled y; then for each pattern the mask, and y with garbage where the mask hides it."""
    y, d, d_pooled = (rng.normal(size=shape).astype("float32") for shape in ((B, T, F), (B, T, F), (B, F)))
    patterns = masks(rng, B, T)
    patterns = [np.ones((B, T), bool), rng.random((B, T)) < 0.1, *(patterns[name] for name in ("holes", "empty row"))]
    return y, d, d_pooled, [(mask, np.where(mask[:, :, None], y, garbage(rng, y.shape))) for mask in patterns]


def on_gpu(function, *arguments, **options):
    """A function of the module with NumPy arrays in and out."""
    found = function(*(device.to_device(a) if isinstance(a, np.ndarray) else a for a in arguments), **options)
    return tuple(a.copy_to_host() for a in found) if isinstance(found, tuple) else found.copy_to_host()


def of_both(name, *arguments):
    return on_gpu(getattr(gpu_masks, name), *arguments), getattr(reference, name)(*arguments)


def units_apart(actual, expected):
    """The largest distance in units in the last place of what was expected."""
    assert actual.dtype == expected.dtype == np.float32 and actual.shape == expected.shape
    assert np.isfinite(actual).all() and np.isfinite(expected).all()
    distance = np.abs(actual.astype("float64") - expected.astype("float64"))
    return (distance / np.spacing(np.abs(expected))).max(initial=0)


# --------------------------------------------------------------------------------------------- values and gradients

def test_the_functions_and_their_parameters_are_those_of_reference():
    def functions(module):
        return {name: list(inspect.signature(value).parameters.values()) for name, value in vars(module).items()
                if inspect.isfunction(value) and value.__module__ == module.__name__ and name in vars(masking)}
    assert functions(gpu_masks) == functions(reference) and len(functions(reference)) == 15


def test_every_choice_of_steps_and_its_gradient_has_the_bits_of_reference(gpu):
    """With NaN, infinity and huge numbers at all hidden steps."""
    rng = np.random.default_rng()
    for sizes in sizes_for(gpu):
        y, d, d_pooled, cases = random_case(rng, *sizes)
        for mask, dirty in cases:
            assert same_bits(*of_both("select", dirty, mask))
            for reverse in (False, True):
                assert same_bits(*of_both("hold", dirty, mask, reverse))
                assert same_bits(*of_both("hold_backward", d, mask, reverse))
            for name in POOLS:
                assert same_bits(*of_both(name + "_backward", d_pooled, mask)), name
            for name in ("first_valid", "last_valid"):
                assert same_bits(*of_both(name, dirty, mask)), name


def test_a_test_of_choices_fails_where_hold_walks_the_wrong_way(gpu, monkeypatch):
    right = gpu_masks.last_real_step
    monkeypatch.setattr(gpu_masks, "last_real_step", lambda mask, reverse: right(mask, not reverse))
    with pytest.raises(AssertionError):
        test_every_choice_of_steps_and_its_gradient_has_the_bits_of_reference(gpu)


def test_the_last_real_step_is_found_over_any_distance(gpu):
    """A warp looks at 32 steps at once, and has to carry on what it found."""
    rng = np.random.default_rng()
    for T in (1, 31, 32, 33, 100, 130):
        for share in (0.02, 0.5):
            mask = rng.random((3, T)) < share
            for reverse in (False, True):
                found = on_gpu(gpu_masks.last_real_step, mask, reverse)
                assert same_bits(found, reference._last_real_step(mask, reverse).astype("int32"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_sums_and_means_are_within_one_unit_in_the_last_place(gpu):
    """Of sums in double precision, of numbers of very different sizes; plain sums in float32 are not."""
    rng = np.random.default_rng()
    for sizes in [(1, 1, 1), (3, 5, 2), (4, 200, 8)] + sizes_for(gpu)[len(SIZES):]:
        y, _, _, cases = random_case(rng, *sizes)
        scale = np.exp(3 * rng.normal(size=sizes)).astype("float32")
        for mask, dirty in cases:
            partial = np.cumsum(reference.select(y * scale, mask), axis=1, dtype="float64")
            cancelled = np.abs(partial[:, -1]) < 1e-5 * np.abs(partial).max(axis=1)
            for name in SUMS:
                found, expected = of_both(name, dirty * scale, mask)
                assert units_apart(np.where(cancelled, 0, found), np.where(cancelled, 0, expected)) <= 1, name
    plain = np.cumsum(y * scale, axis=1, dtype="float32")[:, -1]
    assert np.mean(plain != reference.masked_sum(y * scale, np.ones(sizes[:2], bool))) > 0.3


def test_the_largest_step_its_source_and_its_gradient_are_those_of_reference(gpu):
    """Values are drawn from few, so that many are equal; the source is int32."""
    rng = np.random.default_rng()
    for sizes in sizes_for(gpu):
        _, _, d_pooled, cases = random_case(rng, *sizes)
        for mask, _ in cases:
            few = rng.choice(np.float32([-2, -1, 0, -0.0, 1, -np.inf]), sizes)
            dirty = np.where(mask[:, :, None], few, garbage(rng, sizes))
            (largest, source), (expected, expected_source) = of_both("masked_max", dirty, mask)
            assert same_bits(largest, expected) and same_bits(source, expected_source.astype("int32"))
            found = on_gpu(gpu_masks.masked_max_backward, d_pooled, mask, source)
            assert same_bits(found, reference.masked_max_backward(d_pooled, mask, expected_source))


def test_features_are_masked_with_the_bits_of_reference(gpu):
    rng = np.random.default_rng()
    for B, T, D in sizes_for(gpu):
        x, fill = (rng.normal(size=shape).astype("float32") for shape in ((B, T, D), (D,)))
        for shape in {(B, T, D), (1, T, D), (B, 1, D), (1, 1, D)}:
            keep = rng.random(shape) < 0.5
            dirty = np.where(keep, x, garbage(rng, x.shape))
            assert same_bits(*of_both("feature_mask", dirty, keep, fill))
            assert same_bits(*of_both("feature_mask_backward", dirty, keep))


# -------------------------------------------------------------------------------------------------- laws

def test_padding_anywhere_changes_no_bit(gpu):
    """Hidden steps of garbage are put between, before and behind the real ones."""
    rng = np.random.default_rng()
    for B, T, F in [(2, 9, 3), (1, 17, 33)]:
        real = np.sort(rng.permutation(3 * T)[:T])
        y, d = rng.normal(size=(2, B, T, F)).astype("float32")
        y *= np.exp(3 * rng.normal(size=y.shape)).astype("float32")
        padded, padded_mask = garbage(rng, (B, 3 * T, F)), np.zeros((B, 3 * T), bool)
        padded[:, real], padded_mask[:, real] = y, True
        mask = np.ones((B, T), bool)
        for name in POOLS:
            one, other = (on_gpu(getattr(gpu_masks, name), *pair) for pair in ((y, mask), (padded, padded_mask)))
            assert same_bits(one, other), name
            one, other = (on_gpu(getattr(gpu_masks, name + "_backward"), d[:, 0], m) for m in (mask, padded_mask))
            assert same_bits(one, other[:, real]), name
        one, other = (on_gpu(gpu_masks.masked_max, *pair) for pair in ((y, mask), (padded, padded_mask)))
        assert same_bits(one[0], other[0]) and (real[one[1]] == other[1]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_real_number_that_is_not_finite_shows_as_in_reference(gpu):
    """Also where two of them stand together, and where -0 is all there is."""
    y = np.ones((2, 11, 6), "float32")
    y[1, 4] = [np.nan, np.inf, -np.inf, np.inf, np.nan, -0.0]
    y[1, 7] = [1, 1, 1, -np.inf, np.nan, -0.0]
    mask = np.ones((2, 11), bool)
    mask[1] = False
    mask[1, [4, 7]] = True
    for name in SUMS:
        found, expected = of_both(name, y, mask)
        np.testing.assert_array_equal(found, expected)
        assert same_bits(np.isnan(found), np.isnan(expected)) and same_bits(found[1, 5], np.float32(0))
    for name in ("masked_max", "hold_backward"):
        for found, expected in zip(*of_both(name, y, mask)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_sum_that_leaves_float32_on_the_way_is_not_finite(gpu):
    """In double precision it comes back: this is what the module says it does not do."""
    y = np.float32([3e38, 3e38, -3e38]).reshape(1, 3, 1)
    mask = np.ones((1, 3), bool)
    found, expected = of_both("masked_sum", y, mask)
    assert np.isinf(found) and same_bits(expected, y[:, 0])


def test_no_steps_and_no_rows_are_legal(gpu):
    rng = np.random.default_rng()
    for B, T, F in [(2, 0, 3), (0, 2, 3), (2, 3, 0)]:
        y, d, d_pooled, _ = random_case(rng, 2, 3, 3)
        y, d, d_pooled, mask = y[:B, :T, :F], d[:B, :T, :F], d_pooled[:B, :F], np.ones((B, T), bool)
        for name in POOLS:
            assert same_bits(*of_both(name, y, mask)) and same_bits(*of_both(name + "_backward", d_pooled, mask)), name
        for name, a in (("select", y), ("hold", y), ("hold_backward", d)):
            assert same_bits(*of_both(name, a, mask)), name
        found, expected = of_both("masked_max", y, mask)
        assert same_bits(found[0], expected[0]) and (found[1] == expected[1]).all()


def every_result(y, d, d_pooled, mask):
    yield on_gpu(gpu_masks.hold, y, mask)
    yield on_gpu(gpu_masks.hold_backward, d, mask)
    for name in POOLS:
        yield on_gpu(getattr(gpu_masks, name), y, mask)
        yield on_gpu(getattr(gpu_masks, name + "_backward"), d_pooled, mask)
    yield from on_gpu(gpu_masks.masked_max, y, mask)


def test_same_bits_in_any_order_of_threads():
    rng = np.random.default_rng()
    y, d, d_pooled, cases = random_case(rng, 2, 9, 3)
    found = []
    for seed in (None, 1, 2):
        with device.simulated(seed=seed) as simulator:
            found.append([list(every_result(dirty, d, d_pooled, mask)) for mask, dirty in cases[1:3]])
            assert not simulator.races
    for other in found[1:]:
        assert all(same_bits(a, b) for mine, yours in zip(found[0], other) for a, b in zip(mine, yours))


def test_same_bits_in_every_run(gpu):
    rng = np.random.default_rng()
    y, d, d_pooled, cases = random_case(rng, *sizes_for(gpu)[-1])
    mask, dirty = cases[2]
    assert all(same_bits(a, b) for a, b in zip(every_result(dirty, d, d_pooled, mask),
                                               every_result(dirty, d, d_pooled, mask)))


# ------------------------------------------------------------------------------- by minilstm.masking, and in a Pooling

def calls(rng):
    """name -> (arguments with NumPy arrays, options) for each public function."""
    y, mask, keep = rng.normal(size=(2, 4, 3)).astype("float32"), rng.random((2, 4)) < 0.6, rng.random((4, 3)) < 0.5
    mask[0] = True
    pooled, source = y[:, 0].copy(), np.int32([[3, 0, 1], [-1, -1, -1]])
    found = {name: ((pooled if name.endswith("backward") else y, mask), {}) for name in vars(masking)
             if name.startswith(("masked", "first", "last"))}
    return found | {
        "select": ((y, mask), {}), "zero_input": ((y, mask), {}), "hold": ((y, mask), {"reverse": True}),
        "hold_backward": ((y, mask), {"reverse": True}), "masked_max_backward": ((pooled, mask, source), {}),
        "feature_mask": ((y, keep, np.float32([1, 2, 3])), {"axes": "TD"}),
        "feature_mask_backward": ((y, keep), {"axes": "TD"})}


def test_the_front_takes_arrays_from_anywhere_and_gives_arrays_on_the_gpu(gpu):
    """The same bits from NumPy's arrays and from those on the GPU; and from another backend, but for sums."""
    cases = calls(np.random.default_rng())
    assert len(cases) == 16
    for name, (arguments, options) in cases.items():
        function = getattr(masking, name)
        on_host = [a.astype("int64") if a.dtype == "int32" else a for a in arguments]
        expected = function(*on_host, **options)
        for given in (arguments, [device.to_device(a) for a in arguments]):
            found = function(*given, **options, backend="gpu")
            pairs = zip(found, expected) if isinstance(found, tuple) else [(found, expected)]
            for a, b in pairs:
                assert isinstance(a, device.DeviceArray)
                b = b.astype("int32") if b.dtype == "int64" else b
                assert units_apart(a.copy_to_host(), b) <= 1 if name in SUMS else same_bits(a.copy_to_host(), b), name


def wrong():
    """name -> call, error, words of its message"""
    y, mask = np.ones((2, 4, 3), "float32"), np.ones((2, 4), bool)
    there, mask_there = device.to_device(y), device.to_device(mask)
    pooled, source = y[:, 0].copy(), device.to_device(np.zeros((2, 3), "int32"))
    on_gpu = {"backend": "gpu"}
    return {
        "float64": (lambda: masking.select(y.astype("float64"), mask, **on_gpu), ValueError, "x: expected float32 on"),
        "float64 there": (lambda: masking.select(device.to_device(y.astype("float64")), mask, **on_gpu), ValueError,
                          "got float64 (2, 4, 3) on the GPU"),
        "integers": (lambda: masking.hold(device.to_device(np.ones((2, 4, 3), "int32")), mask, **on_gpu), TypeError,
                     "y: expected float32 or float64 (B,T,F), got int32 (2, 4, 3) on the GPU"),
        "a list": (lambda: masking.hold(y.tolist(), mask, **on_gpu), TypeError, "y: expected a plain NumPy array"),
        "two axes": (lambda: masking.hold(there[0], mask, **on_gpu), ValueError, "y: expected float32 (B, T, F)"),
        "mask": (lambda: masking.hold(y, device.to_device(mask.T), **on_gpu), ValueError, "mask.T puts the batch"),
        "mask of numbers": (lambda: masking.hold(y, there[0], **on_gpu), TypeError, "mask: expected a bool array (B=2"),
        "keep": (lambda: masking.feature_mask(y, mask_there, **on_gpu), ValueError, "keep: (2, 4) may be (T,D) or"),
        "fill": (lambda: masking.feature_mask(y, y > 0, device.to_device(np.float32([0, 0, np.nan])), **on_gpu),
                 ValueError, "fill: expected finite float32"),
        "source, dtype": (lambda: masking.masked_max_backward(pooled, mask, np.zeros((2, 3), int), **on_gpu), TypeError,
                          "source: expected int32 (2, 3), as masked_max returns it, got int64"),
        "source, hidden": (lambda: masking.masked_max_backward(pooled, ~mask, source, **on_gpu), ValueError,
                           "source: expected steps that are real in mask"),
        "not this backend": (lambda: masking.select(there, mask), TypeError, "x: expected a plain NumPy array"),
        "mask, not this backend": (lambda: masking.select(y, mask_there), TypeError, "mask: expected a bool array"),
    }


def test_bad_arguments_are_named_and_explained(gpu):
    for name, (call, error, words) in wrong().items():
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value), f"{name}: {caught.value}"


@pytest.mark.parametrize("how", ["last", "first", "ends", "mean", "sum", "max"])
def test_pooling_is_that_of_reference(gpu, how):
    """Forward and backward, for arrays of NumPy and on the GPU, with garbage at hidden steps."""
    rng = np.random.default_rng()
    x, dy, mask = rng.normal(size=(3, 5, 4)).astype("float32"), rng.normal(size=(3, 4)).astype("float32"), \
        rng.random((3, 5)) < 0.5
    x = np.where(mask[:, :, None], x, garbage(rng, x.shape))
    expected_y, cache = minilstm.Pooling(how, backend="reference").forward(x, mask)
    expected_dx = minilstm.Pooling(how, backend="reference").backward(cache, dy)
    layer = minilstm.Pooling(how, backend="gpu")
    for given in ([x, mask, dy], [device.to_device(a) for a in (x, mask, dy)]):
        y, cache = layer.forward(*given[:2])
        dx = layer.backward(cache, given[2])
        assert units_apart(y.copy_to_host(), expected_y) <= (1 if how in ("mean", "sum") else 0)
        assert same_bits(dx.copy_to_host(), expected_dx)
    assert layer.forward(*given[:2], cache=False)[1] is None


def test_nobody_imports_cuda_who_uses_no_gpu():
    code = ("import sys, numpy, minilstm; minilstm.masking.select(numpy.ones((1, 2, 3)), numpy.ones((1, 2), bool)); "
            "print({'numba.cuda', 'numba_cuda', 'minilstm.masking.gpu', 'minilstm.arrays.gpu'} & set(sys.modules))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------------ machine code

KERNELS = {
    "select": (lambda: gpu_masks._select, 40), "feature_mask": (lambda: gpu_masks._feature_mask, 48),
    "gather": (lambda: gpu_masks._gather, 40), "end_only": (lambda: gpu_masks._end_only, 40),
    "hold_backward": (lambda: gpu_masks._hold_backward(False), 56),
    "hold_backward, reverse": (lambda: gpu_masks._hold_backward(True), 56),
    "last_real_step": (lambda: gpu_masks._last_real_step(False), 64),
    "last_real_step, reverse": (lambda: gpu_masks._last_real_step(True), 64),
    "sum": (lambda: gpu_masks._add_steps(False), 56), "mean": (lambda: gpu_masks._add_steps(True), 64),
    "shares": (lambda: gpu_masks._shares, 48), "max": (lambda: gpu_masks._largest_step, 64),
    "max_backward": (lambda: gpu_masks._largest_step_backward, 48),
}


@pytest.mark.compiler
@pytest.mark.parametrize("name", KERNELS)
def test_machine_code_stays_within_its_registers(name):
    kernel, registers = KERNELS[name]
    check(kernel(), registers)
