"""Attention on a GPU: what ``reference`` gives in float64, hidden things reach nothing, and no array of all scores.

A tile is 64 by 32, and slices are 32 and 128 columns wide: the sizes lie around these."""
import inspect
import subprocess
import sys

import numpy as np
import pytest

from compiled import TARGETS, check, report
from helpers import assert_close, same_bits
from minilstm import attention, device
from minilstm.attention import gpu as gpu_attention
from minilstm.attention import reference
from minilstm.attention.gpu_backward import query_gradient_kernel, query_kernel
from minilstm.attention.gpu_backward_keys import key_gradient_kernel
from minilstm.attention.gpu_forward import forward_kernel
from minilstm.attention.gpu_weights import weights_kernel

SCORES = ["dot_product", "additive"]
EITHER = pytest.mark.parametrize("score", ["dot_product", pytest.param("additive", marks=pytest.mark.long)])
RUBBISH = [np.nan, np.inf, -np.inf, 1e30]
SCALE = 0.7


class Case:
    """One call with everything that it takes.  A, F: columns of a head; masks have holes."""

    def __init__(self, rng, score, B, Tq, Tk, A, F, heads=1, causal=False, holes=True):
        Tk = Tq if causal else Tk
        shapes = {"q": (B, Tq, A * heads), "k": (B, Tk, A * heads), "v": (B, Tk, F * heads), "w": (A * heads,)}
        self.arrays = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
        self.d = rng.normal(size=(B, Tq, F * heads)).astype("float32")
        if score == "dot_product":
            del self.arrays["w"]
        self.score, self.causal, self.heads, self.scale = score, causal, heads, SCALE
        self.key_mask, self.query_mask = (rng.random((B, T)) < (0.7 if holes else 2) for T in (Tk, Tq))

    def options(self, place=lambda array: array):
        options = place(self.key_mask), place(self.query_mask), self.causal, self.heads
        return options if self.score == "additive" else (*options, self.scale)

    def run(self, functions=gpu_attention, weights=True):
        """-> dict of the context, sums, the gradients and the weights, as NumPy arrays."""
        on_gpu = functions is gpu_attention
        place = device.to_device if on_gpu else lambda a: a.astype("float64") if a.dtype == "float32" else a
        arrays, options = [place(a) for a in self.arrays.values()], self.options(place)
        context, sums = getattr(functions, self.score)(*arrays, *options)
        found = {"context": context, "sums": sums}
        gradients = getattr(functions, self.score + "_backward")(*arrays, *options, context, sums, place(self.d))
        found |= {"d" + name: gradient for name, gradient in zip(self.arrays, gradients)}
        if weights:
            scored = [array for name, array in zip(self.arrays, arrays) if name != "v"]
            found["weights"] = getattr(functions, self.score + "_weights")(*scored, *options)
        return {name: np.asarray(array) for name, array in found.items()}

    def agrees(self, **options):
        found, expected = self.run(**options), self.run(reference, **options)
        for name in expected:
            assert found[name].dtype == np.float32
            assert_close(found[name], expected[name], "same formulas, float32", name)
        return found

    def hide(self, value):
        """In all places that a mask hides."""
        for array, mask in ((self.arrays["q"], self.query_mask), (self.arrays["k"], self.key_mask),
                            (self.arrays["v"], self.key_mask), (self.d, self.query_mask)):
            array[~mask] = value


# --------------------------------------------------------------------------------------------- values and gradients

def test_the_functions_and_their_parameters_are_those_of_reference():
    def functions(module):
        return {name: inspect.signature(value) for name, value in vars(module).items()
                if inspect.isfunction(value) and value.__module__ == module.__name__ and name.startswith(tuple(SCORES))}
    assert functions(gpu_attention) == functions(reference) and len(functions(reference)) == 6


@pytest.mark.parametrize("score, sizes", [
    ("dot_product", (1, 3, 5, 3, 5, 2)),                # no width is a multiple of 4
    ("additive", (1, 3, 5, 3, 2)),
    ("dot_product", (1, 65, 33, 4, 4)),                 # one more than a tile, in both directions
    ("additive", (1, 2, 33, 1, 1)),
    ("dot_product", (1, 34, 34, 2, 8, 1, True)),        # the diagonal of a causal attention
    ("additive", (1, 33, 33, 2, 4, 1, True)),
    ("dot_product", (1, 2, 3, 33, 36)),                 # one more than a slice
])
def test_it_is_what_reference_says(gpu, score, sizes):
    Case(np.random.default_rng(), score, *sizes).agrees()


@pytest.mark.long
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("sizes", [
    (1, 64, 32, 8, 4), (1, 63, 31, 5, 3, 2), (1, 1, 97, 4, 4), (1, 129, 1, 4, 4), (3, 1, 1, 1, 1), (1, 40, 33, 1, 7, 3),
    (1, 70, 70, 3, 4, 2, True), (2, 66, 34, 3, 2, 2), (1, 2, 3, 33, 5), (2, 97, 97, 4, 4, 1, True), (1, 3, 4, 64, 32),
    (1, 3, 4, 65, 129), (1, 3, 4, 130, 66), (1, 3, 3, 260, 4, 1, True)])
def test_it_is_what_reference_says_for_many_sizes(gpu, score, sizes):
    Case(np.random.default_rng(), score, *sizes).agrees()


@pytest.mark.parametrize("score", SCORES)
def test_it_is_what_reference_says_for_large_sizes(gpu, score):
    """On a GPU only."""
    if gpu.name == "simulator":
        pytest.skip("takes a real GPU")
    rng = np.random.default_rng()
    for causal in (False, True):
        for A, F, heads in ((32, 32, 4), (64, 64, 2), (128, 128, 2), (33, 70, 3), (300, 500, 1)):
            Case(rng, score, 3, 301, 517, A, F, heads, causal).agrees()


def test_arrays_may_begin_anywhere(gpu):
    """Parts of other arrays, whose first number is at no multiple of 16 bytes."""
    rng = np.random.default_rng()
    case = Case(rng, "dot_product", 1, 3, 4, 4, 4)
    expected = case.run(weights=False)

    def shifted(array):
        longer = np.concatenate([np.zeros(1, "float32"), array.ravel()])
        return device.to_device(longer).part(1, longer.size).reshape(array.shape)

    q, k, v, d = (shifted(a) for a in (*case.arrays.values(), case.d))
    options = case.options(device.to_device)
    context, sums = gpu_attention.dot_product(q, k, v, *options)
    gradients = gpu_attention.dot_product_backward(q, k, v, *options, context, sums, d)
    for name, array in zip(("context", "sums", "dq", "dk", "dv"), (context, sums, *gradients)):
        assert same_bits(array, expected[name]), name


@EITHER
def test_no_rows_no_steps_no_columns_are_legal(gpu, score):
    for B, Tq, Tk, F in ((0, 3, 4, 2), (2, 0, 4, 2), (2, 3, 0, 2), (1, 2, 3, 0)):
        found = Case(np.random.default_rng(), score, B, Tq, Tk, 2, F).agrees()
        assert Tk or not found["context"].any()


def test_large_scores_stay_exact(gpu):
    """Scores of some 10,000, whose exponentials no dtype holds.  They are whole numbers here, so that they have no
    rounding of their own, which would be larger than that of a softmax."""
    rng = np.random.default_rng()
    case = Case(rng, "dot_product", 1, 5, 40, 2, 3)
    case.scale = 1
    case.arrays["q"] = rng.integers(40, 90, case.arrays["q"].shape).astype("float32")
    case.arrays["k"] = rng.integers(40, 90, case.arrays["k"].shape).astype("float32")
    case.arrays["k"][:, 20:36] = case.arrays["k"][:, :16]               # largest ones that are alike
    case.query_mask[0, 0] = case.key_mask[0, 0] = True
    found = case.agrees()
    assert found["sums"][..., 0].max() > 5000 and np.abs(found["weights"].sum(axis=-1).max() - 1) < 1e-6


def test_two_large_scores_that_are_alike_share_the_weight(gpu):
    q, k, v = (device.to_device(np.float32(a).reshape(1, -1, 1)) for a in ([1e4], [1e4, 1e4], [1, 2]))
    options = device.to_device(np.ones((1, 2), bool)), device.to_device(np.ones((1, 1), bool)), False, 1, 1.0
    context, sums = gpu_attention.dot_product(q, k, v, *options)
    d_context = device.to_device(np.ones((1, 1, 1), "float32"))
    dq, dk, dv = gpu_attention.dot_product_backward(q, k, v, *options, context, sums, d_context)
    assert np.asarray(context) == 1.5 and np.asarray(sums).ravel().tolist() == [np.float32(1e8), 2]
    assert np.asarray(dv).ravel().tolist() == [0.5, 0.5] and np.asarray(dk).ravel().tolist() == [-2500, 2500]
    assert np.asarray(dq) == 0


# ---------------------------------------------------------------------------------------------------- what is hidden

def test_what_stands_in_masked_places_changes_no_bit(gpu):
    """In keys, values and queries, and in the gradient of a context that is none."""
    rng = np.random.default_rng()
    case = Case(rng, "dot_product", 1, 3, 35, 4, 4)
    case.key_mask[0, :2] = case.query_mask[0, :2] = False
    expected = case.run()
    case.hide(rng.choice(RUBBISH))
    found = case.run()
    assert all(same_bits(found[name], expected[name]) for name in expected)
    for name, mask in (("context", case.query_mask), ("dq", case.query_mask), ("dk", case.key_mask),
                       ("dv", case.key_mask)):
        assert not found[name][~mask].any(), name


@pytest.mark.long
@pytest.mark.parametrize("rubbish", RUBBISH)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("causal", [False, True])
def test_no_rubbish_in_masked_places_changes_a_bit(gpu, causal, score, rubbish):
    case = Case(np.random.default_rng(), score, 1, 66, 40, 3, 4, 2, causal)
    expected = case.run()
    case.hide(rubbish)
    found = case.run()
    assert all(same_bits(found[name], expected[name]) for name in expected)


@EITHER
def test_what_a_causal_query_may_not_see_does_not_reach_it_nor_its_gradients(gpu, score):
    """The last keys and values are real and NaN, and no real query sees them, though tiles hold both."""
    case = Case(np.random.default_rng(), score, 1, 12, 12, 3, 4, 1, True)
    case.query_mask[:, -3:], case.key_mask[:, -3:] = False, True
    expected = case.run()
    for name in "kv":
        case.arrays[name][:, -3:] = np.nan
    found = case.run()
    assert all(same_bits(found[name], expected[name]) for name in expected)
    assert all(np.isfinite(found[name]).all() for name in found)


@EITHER
def test_what_a_causal_query_may_not_see_hears_nothing_of_it(gpu, score):
    """A query that is NaN makes NaN gradients for the keys that it sees, and for no later ones."""
    case = Case(np.random.default_rng(), score, 1, 40, 40, 3, 4, 1, True, holes=False)
    clean = case.run(weights=False)
    case.arrays["q"][0, 5, 1] = np.nan
    found = case.run(weights=False)
    for name in ("dk", "dv"):
        assert np.isnan(found[name][0, :6]).any(axis=1).all() and same_bits(found[name][:, 6:], clean[name][:, 6:])
    assert np.isnan(found["context"][0, 5]).all() and np.isnan(found["dq"][0, 5]).any()
    others = np.arange(40) != 5
    for name in ("context", "dq", "sums"):
        axis = 2 if name == "sums" else 1
        assert same_bits(found[name].compress(others, axis), clean[name].compress(others, axis))


@pytest.mark.parametrize("score", ["additive", pytest.param("dot_product", marks=pytest.mark.long)])
def test_a_query_that_sees_nothing_has_everything_zero(gpu, score):
    """A row without a real key; a causal query before the first real key; a masked query.  Also where scores are so
    large that a weight made of a top of 0 would be infinite."""
    case = Case(np.random.default_rng(), score, 3, 4, 4, 3, 3, 1, True, holes=False)
    case.arrays["w" if score == "additive" else "q"] *= 1e3
    case.key_mask[0], case.key_mask[1, :2], case.query_mask[2, 3] = False, False, False
    nothing = np.array([[True] * 4, [True, True, False, False], [False, False, False, True]])
    case.d[nothing] = np.nan
    found = case.run()
    assert all(np.isfinite(array).all() for array in found.values())
    for name in ("context", "dq"):
        assert not found[name][nothing].any(), name
    assert not found["sums"][:, 0][nothing].any() and not found["weights"][:, 0][nothing].any()
    assert not found["dk"][0].any() and not found["dv"][0].any() and found["dv"][1, 2].all()


# ------------------------------------------------------------------------------------------------- bits, memory, work

@EITHER
def test_same_inputs_give_the_same_bits_in_any_order_of_threads(gpu, score):
    case = Case(np.random.default_rng(), score, 1, 5, 34, 3, 2)
    first = case.run(weights=False)
    if gpu.name == "simulator":
        with device.simulated(seed=0):
            second = case.run(weights=False)
    else:
        second = case.run(weights=False)
    assert all(same_bits(first[name], second[name]) for name in first)


def test_no_array_of_scores_is_built_and_tiles_without_real_steps_are_skipped(gpu, monkeypatch):
    """Many steps, few of which are real: in no time, and with no allocation that is near Tq * Tk numbers."""
    if gpu.name != "simulator":
        pytest.skip("the simulator's allocations are counted")
    case = Case(np.random.default_rng(), "dot_product", 1, 150, 200, 1, 1)
    case.key_mask[:], case.query_mask[:] = False, False
    case.key_mask[0, [3, 199]], case.query_mask[0, [70, 149]] = True, True
    sizes, allocate = [], gpu.allocate
    monkeypatch.setattr(gpu, "allocate", lambda size: sizes.append(size) or allocate(size))
    case.agrees(weights=False)
    assert 150 * 4 * 4 <= max(sizes) < 0.03 * 150 * 200 * 4


# ----------------------------------------------------------------------------------------------------- what users call

@EITHER
def test_attend_takes_arrays_of_numpy_and_of_the_gpu(gpu, score):
    """Forward, backward and the weights; the bits are those of the functions behind it."""
    case = Case(np.random.default_rng(), score, 1, 3, 4, 4, 4)
    expected = case.run()
    call, backward = {"dot_product": (attention.attend, attention.attend_backward), "additive": (
        attention.attend_additive, attention.attend_additive_backward)}[score]
    more = {"scale": case.scale} if score == "dot_product" else {}
    for place in (np.copy, device.to_device):
        context, cache = call(*(place(a) for a in case.arrays.values()), key_mask=place(case.key_mask), backend="gpu",
                              query_mask=place(case.query_mask), **more)
        found = dict(zip(("dq", "dk", "dv", "dw"), backward(cache, place(case.d))), context=context,
                     weights=attention.attention_weights(cache))
        for name, array in found.items():
            assert isinstance(array, device.DeviceArray) and same_bits(array, expected[name]), name


def test_attend_without_masks_sees_everything(gpu):
    case = Case(np.random.default_rng(), "dot_product", 2, 3, 3, 2, 1, 1, True, holes=False)
    case.scale = 1 / np.sqrt(2)
    context, _ = attention.attend(*case.arrays.values(), causal=True, backend="gpu")
    assert_close(context, case.run(reference, weights=False)["context"], "same formulas, float32")


def test_what_does_not_fit_is_named(gpu):
    q, k, v = Case(np.random.default_rng(), "dot_product", 2, 3, 4, 2, 1).arrays.values()

    def attend(q=q, k=k, v=v, **options):
        return attention.attend(q, k, v, backend="gpu", **options)

    for call, error, message in (
            (lambda: attend(q.astype("float64")), ValueError, "q: expected float32 only, with backend='gpu'"),
            (lambda: attend(q.tolist()), TypeError, "q: expected a .* float32 .B,Tq,A."),
            (lambda: attend(k=device.to_device(k).reshape(2, 2, 4)), ValueError, "k: expected float32 .B=2,Tk,A=2."),
            (lambda: attend(v=v.astype("float64")), TypeError, "v: expected float32"),
            (lambda: attend(key_mask=device.to_device(k)), TypeError, "key_mask: expected a bool array .B=2, Tk=4."),
            (lambda: attend(key_mask=np.ones((4, 2), bool)), ValueError, "key_mask: .*mask.T puts the batch first"),
            (lambda: attend(query_mask=device.to_device(np.ones((2, 4), bool))), ValueError, "query_mask: .*Tq=3"),
            (lambda: attend(heads=2), ValueError, "heads: expected a number that divides"),
            (lambda: attend(scale=np.inf), ValueError, "scale: expected None or a finite float32")):
        with pytest.raises(error, match=message.replace(",", ", ?")):
            call()
    context, cache = attend()
    with pytest.raises(TypeError, match="d_context: expected float32"):
        attention.attend_backward(cache, np.zeros(context.shape))


def test_importing_attention_imports_no_kernels():
    code = "import sys, minilstm; assert not {'minilstm.attention.gpu', 'numba.cuda'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


# -------------------------------------------------------------------------------------------------------- planted bugs

def barriers(kernel):
    """The lines of a kernel's function that are barriers."""
    lines, first = inspect.getsourcelines(kernel.function)
    return [first + n for n, line in enumerate(lines) if "cuda.syncthreads()" in line]


def without_barrier(line, kernel, case):
    """The races that are found when one barrier is left out."""
    with device.simulated(seed=1) as simulator:
        meet, code = simulator.cuda.syncthreads, kernel.function.__code__

        def meet_elsewhere():
            caller = sys._getframe(1)
            if caller.f_code is not code or caller.f_lineno != line:
                meet()

        simulator.cuda.syncthreads = meet_elsewhere
        case.run(weights=False)
        return simulator.races


def test_a_missing_barrier_is_found():
    case = Case(np.random.default_rng(), "dot_product", 1, 2, 3, 4, 4, holes=False)
    kernel = forward_kernel(False, 4, 4, False, True)
    assert without_barrier(barriers(kernel)[-1], kernel, case)


@pytest.mark.long
@pytest.mark.parametrize("make, score", [(forward_kernel, "dot_product"), (query_gradient_kernel, "additive"),
                                         (key_gradient_kernel, "dot_product")])
def test_every_barrier_is_needed(make, score):
    """Two slices and two tiles, so that each place is written again while others may still read it."""
    kernel = make(score == "additive", 33, 33, False, False)
    case = Case(np.random.default_rng(), score, 1, 33, 33, 33, 33, holes=False)
    for line in barriers(kernel):
        assert without_barrier(line, kernel, case), line


# -------------------------------------------------------------------------------------------------------- machine code

def check_all(additive, A, F, causal, aligned=True):
    """No spill on an H100.  For an A100 the compiler calls a function at each vote and each shuffle in a loop, in case
    the threads of the warp are not together, and what lives across a call does not all fit into registers: some
    addresses and sums of a tile's softmax go to memory, none of the inner loops."""
    for make in (forward_kernel, query_gradient_kernel, key_gradient_kernel):
        kernel = make(additive, A, F, causal, aligned)
        on_a100, on_h100 = (report(kernel, cc) for cc in TARGETS)
        for found in (on_a100, on_h100):
            assert found.doubles == 0 and found.shared <= 48 * 1024, str(found)
            assert found.registers <= 65536 // (kernel.threads * kernel.blocks_per_sm), str(found)
        assert on_h100.spills == on_h100.stack == 0, str(on_h100)
        assert on_a100.spills <= 400, str(on_a100)
        assert on_h100.ptx.count("mul.rn.f32") >= 16, "scores are rounded alike, forward and backward"


@pytest.mark.compiler
def test_machine_code_of_a_head_of_64():
    """Causal: with what the diagonal needs, and with what the other tiles need."""
    check_all(False, 64, 64, True)


@pytest.mark.long
@pytest.mark.compiler
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("causal", [False, True])
def test_machine_code(width, additive, causal):
    check_all(additive, width, width, causal)


@pytest.mark.long
@pytest.mark.compiler
def test_machine_code_of_what_else_there_is():
    check_all(False, 33, 70, True, aligned=False)
    check_all(True, 33, 70, False, aligned=False)
    for additive in (False, True):
        check(weights_kernel(additive, True), 96)
    check(query_kernel(64), 64)
