"""Attention: what it gives, that its backward pass is its derivative, that hidden things reach nothing, in little
memory; and that it is PyTorch's and Keras' wherever these mean the same."""
import inspect
import itertools
import math
import os
import tracemalloc
import warnings

import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, same_bits
from minilstm import attention, backends
from minilstm.attention import OneKeyWarning, reference, tiles
from minilstm.machine import threads as machine_threads

BACKENDS = ["reference", "cpu"]
DTYPES = ["float32", "float64"]
SCORES = ["dot_product", "additive"]
SIZES = [(2, 4, 5, 6, 9), (2, 4, 4, 6, 9), (4, 4, 5, 6, 9), (5, 4, 5, 6, 9), (2, 4, 5, 6, 6), (2, 4, 6, 6, 9),
         (2, 6, 5, 6, 9), (2, 9, 5, 6, 9), (3, 3, 3, 3, 3), (2, 4, 1, 6, 3), (3, 1, 7, 3, 3)]        # B, Tq, Tk, A, F
RUBBISH = [np.nan, np.inf, -np.inf, 1e30]
pytestmark = [pytest.mark.filterwarnings("error::RuntimeWarning"), pytest.mark.filterwarnings("ignore:__array__"),
              pytest.mark.filterwarnings("ignore::minilstm.attention.OneKeyWarning")]


class Case:
    """One call of a backend with everything that it takes; ``run`` computes all that there is."""

    def __init__(self, rng, score, sizes, heads=1, causal=False, dtype="float64", size=1.0):
        B, Tq, Tk, A, F = sizes
        Tk = Tq if causal else Tk
        shapes = {"q": (B, Tq, A), "k": (B, Tk, A), "v": (B, Tk, F), "w": (A,), "d": (B, Tq, F)}
        arrays = {name: (size * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}
        self.d = arrays.pop("d")
        if score == "dot_product":
            del arrays["w"]
        self.score, self.arrays = score, arrays
        self.key_mask, self.query_mask = np.ones((B, Tk), bool), np.ones((B, Tq), bool)
        self.causal, self.heads = causal, heads

    def options(self):
        return (self.key_mask, self.query_mask, self.causal, self.heads,
                *((0.7,) if self.score == "dot_product" else ()))

    def forward(self, backend="reference", **changed):
        function = getattr(backends.module("attention", backend), self.score)
        with np.errstate(over="ignore", invalid="ignore"):
            return function(*(self.arrays | changed).values(), *self.options())

    def run(self, backend):
        """-> dict of the context, sums, the gradients and the weights"""
        functions = backends.module("attention", backend)
        context, sums = self.forward(backend)
        with np.errstate(over="ignore", invalid="ignore"):
            gradients = getattr(functions, self.score + "_backward")(*self.arrays.values(), *self.options(), context,
                                                                     sums, self.d)
            scored = [array for name, array in self.arrays.items() if name != "v"]
            weights = getattr(functions, self.score + "_weights")(*scored, *self.options())
        return {"context": context, "sums": sums, "weights": weights} | {
            "d" + name: gradient for name, gradient in zip(self.arrays, gradients)}

    def hidden_in(self, name):
        """The mask, or None, of what may not be read of an array."""
        return {"q": self.query_mask, "k": self.key_mask, "v": self.key_mask, "d": self.query_mask}.get(name)


def cases(rng, score, heads=(1, 3), **options):
    """Every pattern of masks, with and without causal, some sizes after the other."""
    sizes = itertools.cycle(SIZES)
    for causal, n, pattern in itertools.product((False, True), heads, [*masks(rng, 3, 3), "no real query"]):
        case = Case(rng, score, next(sizes), n, causal, **options)
        if pattern == "no real query":
            case.query_mask[0] = False
        elif pattern != "none":
            case.key_mask = masks(rng, *case.key_mask.shape)[pattern]
            case.query_mask = case.key_mask.copy() if causal else masks(rng, *case.query_mask.shape)["holes"]
        yield case


def slowly(case):
    """The definition once more, one query after the other, in Python's numbers -> context, weights (B,heads,Tq,Tk)."""
    q, k, v = (case.arrays[name].astype("float64") for name in "qkv")
    (B, Tq, A), (_, Tk, F), heads = q.shape, v.shape, case.heads
    w = case.arrays.get("w", np.zeros(A)).astype("float64").reshape(heads, -1)
    context, weights = np.zeros((B, Tq, heads, F // heads)), np.zeros((B, heads, Tq, Tk))
    q, k, v = (array.reshape(*array.shape[:2], heads, -1) for array in (q, k, v))
    for b, n, t in itertools.product(range(B), range(heads), range(Tq)):
        keys = [j for j in range(Tk) if case.key_mask[b, j] and (j <= t or not case.causal)]
        if not keys or not case.query_mask[b, t]:
            continue
        if case.score == "dot_product":
            scores = [0.7 * float(q[b, t, n] @ k[b, j, n]) for j in keys]
        else:
            scores = [sum(w_a * math.tanh(a) for w_a, a in zip(w[n], q[b, t, n] + k[b, j, n])) for j in keys]
        exps = [math.exp(s - max(scores)) for s in scores]
        for j, e in zip(keys, exps):
            weights[b, n, t, j] = e / sum(exps)
            context[b, t, n] += weights[b, n, t, j] * v[b, j, n]
    return context.reshape(B, Tq, F), weights


# --------------------------------------------------------------------------------------------- values and gradients

def test_backends_have_the_same_functions():
    names = {name for name, f in vars(reference).items() if inspect.isfunction(f)
             and f.__module__ == reference.__name__ and name[0] != "_"}
    assert names == {score + part for score in SCORES for part in ("", "_backward", "_weights")}
    for backend in BACKENDS:
        for name in names:
            function = getattr(backends.module("attention", backend), name)
            assert inspect.signature(function) == inspect.signature(getattr(reference, name))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_it_is_what_a_slow_loop_says(score, backend, dtype):
    for case in cases(np.random.default_rng(), score, dtype=dtype):
        found = case.run(backend)
        context, weights = slowly(case)
        assert all(array.dtype == dtype for array in found.values())
        assert_close(found["context"], context, f"same formulas, {dtype}")
        assert_close(found["weights"], weights, f"same formulas, {dtype}")
        assert same_bits(found["weights"] == 0, weights == 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_backward_is_the_derivative_by_complex_step(score, backend):
    """To 1e-10 of the largest gradient, at some places of each array and along a random direction of all of it."""
    rng = np.random.default_rng()
    for case in cases(rng, score):
        found = case.run(backend)
        for name, array in case.arrays.items():
            directions = [rng.normal(size=array.shape), *(np.zeros(array.shape) for _ in range(6))]
            for direction in directions[1:]:
                direction.flat[rng.integers(array.size)] = 1
            gradient = found["d" + name]
            for direction in directions:
                everything = {other: a.astype("complex128") for other, a in case.arrays.items()}
                context, _ = case.forward(**everything | {name: array + 1e-30j * direction})
                derivative = np.sum(case.d * context.imag) / 1e-30
                scale = max(np.abs(gradient).max(), 0.1) * np.linalg.norm(direction)
                assert abs(np.sum(gradient * direction) - derivative) <= 1e-10 * scale, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
@pytest.mark.parametrize("score", SCORES)
def test_backends_agree(score, backend, dtype):
    """Also where there are more queries and keys than any of them takes at a time."""
    rng = np.random.default_rng()
    long = [Case(rng, score, (2, 150, 301, 4, 6), heads, causal, dtype) for heads, causal in
            [(1, False), (2, False), (1, True), (2, True)]]
    for case in long[1:]:
        case.key_mask &= rng.random(case.key_mask.shape) < 0.8
        case.query_mask &= rng.random(case.query_mask.shape) < 0.8
    for case in [*long, *cases(rng, score, dtype=dtype)]:
        found, expected = case.run(backend), case.run("reference")
        for name in expected:
            assert_close(found[name], expected[name], f"same formulas, {dtype}", name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_extreme_scores_stay_finite(score, backend, dtype):
    """Scores of some 10,000, whose exponentials no dtype holds."""
    rng = np.random.default_rng()
    for causal in (False, True):
        case = Case(rng, score, (2, 5, 6, 4, 3), 1, causal, dtype)
        if score == "dot_product":
            case.arrays |= {name: 100 * case.arrays[name] for name in "qk"}
        else:
            case.arrays["w"] *= case.arrays["w"].dtype.type(1e4)
        found = case.run(backend)
        assert np.abs(found["sums"][..., 0]).max() > 3000
        assert all(np.isfinite(array).all() for array in found.values())
        assert np.abs(found["weights"].sum(axis=-1) - 1).max() < 10 * np.finfo(dtype).eps
        if dtype == "float64":
            assert_close(found["context"], slowly(case)[0], "pytorch, float64")


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_large_scores_that_are_alike_share_the_weight(backend):
    """Forward and backward: the logarithm of a sum of large exponentials has no digit left to tell 1 from 2 of them."""
    q, k, v = (np.array(a, "float32").reshape(1, -1, 1) for a in ([1e4], [1e4, 1e4], [1, 2]))
    context, cache = attention.attend(q, k, v, scale=1, backend=backend)
    dq, dk, dv = attention.attend_backward(cache, np.ones_like(context))
    assert context == 1.5 and attention.attention_weights(cache).ravel().tolist() == [0.5, 0.5]
    assert dv.ravel().tolist() == [0.5, 0.5] and dk.ravel().tolist() == [-2500, 2500] and dq == 0


@pytest.mark.parametrize("dtype, largest", [("float32", 88.75), ("float64", 709.8)])
def test_slots_that_only_fill_up_a_vector_of_queries_have_no_weight(dtype, largest):
    """One query: the others of its vector are zeros, whose scores here are as large as an exponential can bear."""
    q, k, v = (np.array(a, dtype).reshape(1, -1, 1) for a in ([0], [10, 9], [1, 2]))
    found = {}
    for backend in BACKENDS:
        context, cache = attention.attend_additive(q, k, v, np.array([largest], dtype), backend=backend)
        found[backend] = (context, *attention.attend_additive_backward(cache, np.ones_like(context)))
        k_of_infinity = np.array([[[np.inf], [1]]], dtype)
        context, cache = attention.attend(-np.ones_like(q), k_of_infinity, v, scale=1, backend=backend)
        found[backend] += (context, *attention.attend_backward(cache, np.ones_like(context))[1:])
    for array, expected in zip(found["cpu"], found["reference"]):
        assert np.allclose(array, expected, rtol=1e-4, atol=1e-6), (array, expected)


def test_kernels_are_compiled_once_for_all_arrays_of_a_dtype():
    """For a w that can be written to, which stays so, and for a layer's, which cannot."""
    forward, backward = tiles.kernels(tiles.additive_scores, tiles.additive_scores_backward)
    case, compiled = Case(np.random.default_rng(), "additive", SIZES[0]), {}
    for writeable in (True, False):
        case.arrays["w"].flags.writeable = writeable
        case.run("cpu")
        compiled[writeable] = forward.signatures + backward.signatures
        assert case.arrays["w"].flags.writeable == writeable
    assert compiled[True] == compiled[False]


# ---------------------------------------------------------------------------------------------------- what is hidden

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_what_stands_in_masked_places_changes_no_bit(score, backend, dtype):
    """In keys, values and queries, and in the gradient of a context that is none."""
    for case in cases(np.random.default_rng(), score, heads=(3,), dtype=dtype):
        expected = case.run(backend)
        clean, clean_d = case.arrays, case.d
        for rubbish in [*RUBBISH, *((1e300,) if dtype == "float64" else ())]:
            case.arrays = {name: array.copy() for name, array in clean.items()}
            case.d = clean_d.copy()
            for name, array in (case.arrays | {"d": case.d}).items():
                if name != "w":
                    array[~case.hidden_in(name)] = rubbish
            found = case.run(backend)
            assert all(same_bits(found[name], expected[name]) for name in expected)
        for name, mask in (("dq", case.query_mask), ("dk", case.key_mask), ("dv", case.key_mask)):
            assert not expected[name][~mask].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_amount_and_place_of_padding_change_no_bit(score, backend):
    """More masked steps, full of NaN, anywhere between the others."""
    rng = np.random.default_rng()
    for case in [*cases(rng, score, dtype="float32"), Case(rng, score, (2, 80, 150, 3, 6), 3, False, "float32"),
                 Case(rng, score, (2, 150, 150, 3, 6), 1, True, "float32")]:
        expected = case.run(backend)
        slots = {}
        for kind, mask in (("q", case.query_mask), ("k", case.key_mask)):
            T, more = mask.shape[1], rng.integers(1, 40)
            slots[kind] = slots["q"] if kind == "k" and case.causal else np.sort(rng.permutation(T + more)[:T])
        longer = 200
        padded = Case(rng, score, (len(case.d), longer, longer, case.arrays["q"].shape[2], case.d.shape[2]), case.heads,
                      case.causal, "float32")
        padded.key_mask[:] = padded.query_mask[:] = False
        padded.key_mask[:, slots["k"]], padded.query_mask[:, slots["q"]] = case.key_mask, case.query_mask
        for name, array in (padded.arrays | {"d": padded.d}).items():
            array[...] = np.nan
            array[(slice(None), slots["q" if name in "qd" else "k"]) if name != "w" else ...] = (
                case.arrays | {"d": case.d})[name]
        found = padded.run(backend)
        for name in ("context", "dq"):
            assert same_bits(found[name][:, slots["q"]], expected[name]), name
        for name in ("dk", "dv"):
            assert same_bits(found[name][:, slots["k"]], expected[name]), name
        assert same_bits(found["weights"][:, :, slots["q"]][..., slots["k"]], expected["weights"])
        assert "dw" not in found or same_bits(found["dw"], expected["dw"])
        assert all(np.isfinite(array).all() for array in found.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_what_a_causal_query_may_not_see_does_not_reach_it_nor_its_gradients(score, backend):
    """The last keys and values are real, and NaN; no real query sees them."""
    rng = np.random.default_rng()
    for T in (7, 150):
        case = Case(rng, score, (2, T, T, 3, 6), 3, True)
        case.query_mask[:, -3:] = False
        expected = case.run(backend)
        for rubbish in (*RUBBISH, 1e300):
            case.arrays = {name: array.copy() for name, array in case.arrays.items()}
            for name in "kv":
                case.arrays[name][:, -3:] = rubbish
            found = case.run(backend)
            assert all(same_bits(found[name], expected[name]) for name in expected)
        case.query_mask[:] = True
        found = case.run(backend)
        assert same_bits(found["context"][:, :-3], expected["context"][:, :-3])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_a_change_later_moves_no_causal_context_before(score, backend):
    rng = np.random.default_rng()
    case = Case(rng, score, (2, 100, 100, 3, 3), 3, True)
    before = case.run(backend)
    for name in "qkv":
        case.arrays[name] = case.arrays[name].copy()
        case.arrays[name][:, 70:] += 1
    after = case.run(backend)
    assert same_bits(after["context"][:, :70], before["context"][:, :70])
    assert not np.triu(before["weights"], 1).any() and (np.diagonal(before["weights"], axis1=2, axis2=3) > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_a_query_that_sees_nothing_has_weights_context_and_gradient_zero(score, backend):
    """A row without a real key; a causal query before the first real key; a masked query."""
    rng = np.random.default_rng()
    case = Case(rng, score, (3, 4, 4, 3, 3), 1, True)
    case.key_mask[0], case.key_mask[1, :2], case.query_mask[2, 3] = False, False, False
    nothing = np.array([[True] * 4, [True, True, False, False], [False, False, False, True]])
    found = case.run(backend)
    assert not found["context"][nothing].any() and not found["dq"][nothing].any()
    assert not found["weights"][:, 0][nothing].any() and not found["sums"][:, 0][nothing].any()
    assert_close(found["weights"][:, 0].sum(axis=-1), (~nothing).astype(float), "same formulas, float64")
    assert not found["dk"][0].any() and not found["dv"][0].any() and found["dv"][1, 2:].all()
    case.d[nothing] = np.nan
    assert all(same_bits(array, found[name]) for name, array in case.run(backend).items())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_no_rows_no_steps_no_columns_are_legal(score, backend):
    for sizes in itertools.product((0, 2), (0, 3), (0, 4), (2,), (0, 4)):
        found = Case(np.random.default_rng(), score, sizes).run(backend)
        assert found["context"].shape == (sizes[0], sizes[1], sizes[4])
        assert sizes[2] or not found["context"].any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_a_real_number_that_is_not_finite_spoils_its_own_row_and_head_only(score, backend, value):
    rng = np.random.default_rng()
    for name in "qkv":
        case = Case(rng, score, (3, 4, 5, 6, 4), 2)
        clean = case.run(backend)
        case.arrays[name][1, 2, 0] = value
        found = case.run(backend)
        others = np.array([True, False, True])
        for array in ("context", "dq", "dk", "dv"):
            assert same_bits(found[array][others], clean[array][others])
            half = found[array].shape[2] // 2
            assert same_bits(found[array][1, :, half:], clean[array][1, :, half:])
        spoilt = ~np.isfinite(found["context"][1, :, :2])
        if name == "v" or np.isnan(value):
            assert spoilt.any(axis=1).tolist() == ([False, False, True, False] if name == "q" else [True] * 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_what_a_causal_query_may_not_see_hears_nothing_of_it(score, backend):
    """A query that is NaN makes NaN gradients for the keys that it sees, and for no later ones."""
    rng = np.random.default_rng()
    case = Case(rng, score, (1, 70, 70, 3, 4), 1, True)
    clean = case.run(backend)
    case.arrays["q"][0, 5, 1] = np.nan
    found = case.run(backend)
    for name in ("dk", "dv"):
        assert np.isnan(found[name][0, :6]).any(axis=1).all() and same_bits(found[name][:, 6:], clean[name][:, 6:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_a_row_is_the_same_alone_and_in_any_batch(score, backend):
    rng = np.random.default_rng()
    case = Case(rng, score, (5, 20, 30, 3, 6), 3, False, "float32")
    case.key_mask, case.query_mask = (rng.random(mask.shape) < 0.7 for mask in (case.key_mask, case.query_mask))
    together = case.run(backend)
    arrays, d, key_mask, query_mask = case.arrays, case.d, case.key_mask, case.query_mask
    for b in range(5):
        case.arrays = {name: array if name == "w" else array[b:b + 1] for name, array in arrays.items()}
        case.d, case.key_mask, case.query_mask = d[b:b + 1], key_mask[b:b + 1], query_mask[b:b + 1]
        alone = case.run(backend)
        assert all(same_bits(alone[name], together[name][b:b + 1]) for name in alone if name != "dw")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("B", [1, 5])
def test_same_bits_for_any_number_of_threads(monkeypatch, B, score, causal):
    """One row, whose queries and keys are shared out, and several rows.  The gradients of w are sums over tasks."""
    rng = np.random.default_rng()
    case = Case(rng, score, (B, 150, 140, 4, 4), 2, causal, "float32")
    case.key_mask &= rng.random(case.key_mask.shape) < 0.8
    before = minilstm.get_num_threads()
    monkeypatch.setattr(machine_threads, "MULTIPLY_ADDS_WORTH_A_THREAD", 1)
    try:
        results = []
        for count in (1, 2, 3):
            minilstm.set_num_threads(count)
            results.append(case.run(BACKENDS[-1]))
    finally:
        minilstm.set_num_threads(before)
    for found in results[1:]:
        assert all(same_bits(found[name], results[0][name]) for name in found)


# ------------------------------------------------------------------------------------------------------------ memory

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_memory_grows_with_the_number_of_steps_and_not_with_its_square(score, backend):
    """Forward and backward, of twice the steps: not four times the memory, and far from one (Tq,Tk) array."""
    peaks = []
    for T in (64, 1024, 2048):                                          # the first for what is compiled
        case = Case(np.random.default_rng(), score, (1, T, T, 2, 2))
        tracemalloc.start()
        try:
            context, sums = case.forward(backend)
            backward = getattr(backends.module("attention", backend), score + "_backward")
            backward(*case.arrays.values(), *case.options(), context, sums, case.d)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] < 0.25 * 2048 * 2048 * 8 and peaks[2] < 3.3 * peaks[1]


# ------------------------------------------------------------------------------------------------------- other programs

def torch_or_skip():
    return pytest.importorskip("torch", reason="live comparison: PyTorch is not installed "
                                               "(pip install -e '.[peers]')")


def attend(score, arrays, backend, **options):
    """The front -> context, dict of gradients as a function of d_context"""
    if score == "dot_product":
        context, cache = attention.attend(*arrays.values(), backend=backend, **options)
        return context, lambda d: dict(zip(arrays, attention.attend_backward(cache, d)))
    context, cache = attention.attend_additive(*arrays.values(), backend=backend, **options)
    return context, lambda d: dict(zip(arrays, attention.attend_additive_backward(cache, d)))


@pytest.mark.peers
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_pytorchs_scaled_dot_product_attention(backend, heads, causal):
    """Outputs and gradients, with holes among the keys and a row without any; its heads are an axis of their own."""
    torch = torch_or_skip()
    from torch.nn.functional import scaled_dot_product_attention
    rng = np.random.default_rng()
    for pattern in ("none", "holes", "left", "empty row"):
        case = Case(rng, "dot_product", (3, 5, 7, 6, 9), heads, causal)
        key_mask = masks(rng, *case.key_mask.shape)[pattern]
        context, backward = attend("dot_product", case.arrays, backend, key_mask=key_mask, heads=heads, causal=causal)
        tensors = {name: torch.tensor(array, requires_grad=True) for name, array in case.arrays.items()}
        split = [t.unflatten(2, (heads, -1)).transpose(1, 2) for t in tensors.values()]
        if key_mask is None:
            theirs = scaled_dot_product_attention(*split, is_causal=causal)
        else:
            sees = torch.tensor(key_mask)[:, None, None] & torch.ones(case.d.shape[1], key_mask.shape[1]).tril(
                0 if causal else 99).bool()
            theirs = scaled_dot_product_attention(*split, attn_mask=sees)
        theirs = theirs.transpose(1, 2).flatten(2)
        theirs.backward(torch.tensor(case.d))
        assert_close(context, theirs.detach().numpy(), "pytorch, float64")
        for name, gradient in backward(case.d).items():
            assert_close(gradient, tensors[name].grad.numpy(), "pytorch, float64", name)


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    torch_or_skip()
    return pytest.importorskip("keras", reason="comparison with Keras: it is not installed (pip install -e '.[peers]')")


def keras_layer(keras, score, w):
    if score == "dot_product":
        return keras.layers.Attention(use_scale=False, dtype="float64")
    layer = keras.layers.AdditiveAttention(dtype="float64")
    layer.build([(None, None, len(w))] * 3)
    layer.set_weights([w])
    return layer


@pytest.mark.peers
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_it_is_keras_attention(keras, score, backend, causal):
    """``Attention`` and ``AdditiveAttention``, whose ``scale`` is our w: outputs and gradients, with masks of queries
    and keys.  Keras takes query, value, key."""
    import torch
    rng = np.random.default_rng()
    for pattern in ("none", "right", "holes"):
        case = Case(rng, score, (3, 5, 7, 4, 6), 1, causal)
        key_mask = masks(rng, *case.key_mask.shape)[pattern]
        if key_mask is not None:
            key_mask[:, 0] = True                                       # every query sees a key: see the next test
        query_mask = masks(rng, *case.query_mask.shape)[pattern]
        scale = {"scale": 1.0} if score == "dot_product" else {}
        context, backward = attend(score, case.arrays, backend, key_mask=key_mask, query_mask=query_mask, causal=causal,
                                   **scale)
        layer = keras_layer(keras, score, case.arrays.get("w"))
        tensors = {name: torch.tensor(case.arrays[name], requires_grad=True) for name in "qkv"}
        theirs = layer([tensors["q"], tensors["v"], tensors["k"]], use_causal_mask=causal, mask=None if key_mask is None
                       else [torch.tensor(query_mask), torch.tensor(key_mask)])
        theirs.backward(torch.tensor(case.d))
        assert_close(context, theirs.detach().numpy(), "keras")
        gradients = {name: t.grad for name, t in tensors.items()}
        gradients |= {"w": layer.weights[0].value.grad} if score == "additive" else {}
        for name, gradient in backward(case.d).items():
            assert_close(gradient, gradients[name].numpy(), "keras", name)


@pytest.mark.peers
@pytest.mark.parametrize("score", SCORES)
def test_in_a_row_without_a_key_keras_gives_the_mean_of_the_padding(keras, score):
    """It subtracts 1e9 from masked scores; where all are masked that is no difference.  Here the context is 0."""
    import torch
    case = Case(np.random.default_rng(), score, (2, 3, 5, 4, 6))
    case.arrays |= {name: case.arrays[name] / 1000 for name in "qk"}    # scores near 0
    case.key_mask[1] = False
    layer = keras_layer(keras, score, case.arrays.get("w"))
    q, k, v = (torch.tensor(case.arrays[name]) for name in "qkv")
    theirs, weights = layer([q, v, k], mask=[None, torch.tensor(case.key_mask)], return_attention_scores=True)
    assert np.abs(weights[1].detach().numpy() - 1 / 5).max() < 0.01
    assert np.abs(theirs[1].detach().numpy() - case.arrays["v"][1].mean(axis=0)).max() < 0.05
    ours = case.run("reference")
    assert not ours["context"][1].any() and ours["context"][0].any()


# -------------------------------------------------------------------------------------------------------- the front

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("score", SCORES)
def test_front_keeps_what_backward_needs_whatever_becomes_of_the_arrays(score, backend):
    rng = np.random.default_rng()
    case = Case(rng, score, (2, 4, 5, 6, 9), 3, dtype="float32")
    case.key_mask[0, 2:], case.query_mask[1, 3] = False, False
    expected = case.run(backend)
    options = {"key_mask": case.key_mask, "query_mask": case.query_mask, "heads": 3}
    options |= {"scale": 0.7} if score == "dot_product" else {}
    call = attention.attend if score == "dot_product" else attention.attend_additive
    back = attention.attend_backward if score == "dot_product" else attention.attend_additive_backward
    context, cache = call(*(np.asfortranarray(array) for array in case.arrays.values()), backend=backend, **options)
    assert same_bits(context, expected["context"])
    for array in [context, case.key_mask, case.query_mask, *case.arrays.values()]:
        array[...] = 0
    for _ in range(2):
        gradients = back(cache, case.d)
        assert all(same_bits(d, expected["d" + name]) for name, d in zip(case.arrays, gradients))
        assert len(gradients) == len(case.arrays)
    assert same_bits(attention.attention_weights(cache), expected["weights"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_usual_scale_is_one_over_the_root_of_the_width_of_a_head(backend):
    rng = np.random.default_rng()
    q, k, v = (rng.normal(size=(2, 3, 8)) for _ in range(3))
    for heads in (1, 2):
        usual, _ = attention.attend(q, k, v, heads=heads, backend=backend)
        named, _ = attention.attend(q, k, v, heads=heads, scale=1 / math.sqrt(8 / heads), backend=backend)
        assert same_bits(usual, named)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_key_is_pointed_out_for_its_weight_is_always_one(backend, score):
    rng = np.random.default_rng()
    case = Case(rng, score, (2, 4, 1, 3, 5))
    with pytest.warns(OneKeyWarning, match="its weight is always 1, whatever query and key are") as caught:
        context, backward = attend(score, case.arrays, backend)
    assert caught[0].filename == __file__
    assert same_bits(context, np.repeat(case.arrays["v"], 4, axis=1))
    gradients = backward(case.d)
    assert gradients["v"].all()
    assert all(np.abs(d).max() < 1e-14 for name, d in gradients.items() if name != "v")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attend(score, Case(rng, score, (2, 4, 2, 3, 5)).arrays, backend)


Q, K, V, W = np.zeros((2, 3, 4)), np.zeros((2, 5, 4)), np.zeros((2, 5, 6)), np.zeros(4)
MASK = np.ones((2, 5), bool)
BAD = {
    "a list": (lambda: attention.attend(Q.tolist(), K, V), TypeError, "q: expected a plain NumPy array", "got list"),
    "integers": (lambda: attention.attend(Q.astype(int), K, V), TypeError, "q: expected float32 or float64 (B, Tq, A)",
                 "int64 (2, 3, 4)"),
    "two dtypes": (lambda: attention.attend(Q, K.astype("float32"), V), TypeError, "k: expected float64 (B=2, Tk, A=4)",
                   "float32 (2, 5, 4)", "nothing is cast silently"),
    "another width": (lambda: attention.attend(Q, V, V), ValueError, "k: expected float64 (B=2, Tk, A=4)", "(2, 5, 6)"),
    "another batch": (lambda: attention.attend(Q[:1], K, V), ValueError, "k: expected float64 (B=1, Tk, A=4)"),
    "values for other keys": (lambda: attention.attend(Q, K, V[:, :4]), ValueError,
                              "v: expected float64 (B=2, Tk=5, F)"),
    "two axes": (lambda: attention.attend(Q[0], K, V), ValueError, "q: expected float64 (B, Tq, A)", "(3, 4)"),
    "no columns": (lambda: attention.attend(Q[..., :0], K[..., :0], V), ValueError, "heads", "A=0"),
    "heads": (lambda: attention.attend(Q, K, V, heads=3), ValueError,
              "heads: expected a number that divides the widths A=4 of q and F=6 of v, got 3"),
    "no heads": (lambda: attention.attend(Q, K, V, heads=0), ValueError, "heads: expected a positive integer, got 0"),
    "mask of numbers": (lambda: attention.attend(Q, K, V, key_mask=MASK.astype(float)), TypeError,
                        "key_mask: expected a bool array (B=2, Tk=5), True = real", "float64 (2, 5)",
                        "np.array(key_mask, dtype=bool) makes one of 1 (real) and 0", "key_mask == 0"),
    "mask of other keys": (lambda: attention.attend(Q, K, V, key_mask=MASK[:, :3]), ValueError,
                           "key_mask: expected a bool array (B=2, Tk=5)", "bool (2, 3)"),
    "mask, time first": (lambda: attention.attend(Q, K, V, query_mask=MASK[:, :3].T), ValueError,
                         "query_mask: expected a bool array (B=2, Tq=3)", "bool (3, 2)", "mask.T puts the batch first"),
    "mask of pairs": (lambda: attention.attend(Q, K, V, key_mask=np.ones((3, 5), bool)), ValueError, "bool (3, 5)",
                      "a mask for pairs of query and key is not taken, but causal=True is"),
    "mask that masks itself": (lambda: attention.attend(Q, K, V, key_mask=np.ma.array(MASK)), TypeError, "MaskedArray"),
    "causal, other keys": (lambda: attention.attend(Q, K, V, causal=True), ValueError,
                           "causal: expected as many queries as keys", "Tq=3 queries and Tk=5 keys"),
    "causal, a number": (lambda: attention.attend(Q, K, V, causal=1), TypeError,
                         "causal: expected True or False, got 1"),
    "scale": (lambda: attention.attend(Q, K, V, scale=np.inf), ValueError, "scale: expected None or a finite float"),
    "scale, a string": (lambda: attention.attend(Q, K, V, scale="1"), ValueError, "scale: ", "got '1'"),
    "backend": (lambda: attention.attend(Q, K, V, backend="tpu"), ValueError, "backend: expected one of 'reference'"),
    "w": (lambda: attention.attend_additive(Q, K, V, W[:3]), ValueError, "w: expected float64 (A=4)", "(3,)"),
    "no cache": (lambda: attention.attend_backward(None, Q), TypeError, "cache: expected what attend or", "NoneType"),
    "weights of no cache": (lambda: attention.attention_weights(Q), TypeError, "cache: expected", "float64 (2, 3, 4)"),
    "another cache": (lambda: attention.attend_backward(attention.attend_additive(Q, K, V, W)[1], V[:, :3]), ValueError,
                      "cache: expected one of attend, got one of attend_additive: call attend_additive_backward"),
    "d_context": (lambda: attention.attend_backward(attention.attend(Q, K, V)[1], V), ValueError,
                  "d_context: expected float64 (B=2, Tq=3, F=6), got float64 (2, 5, 6)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name):
    call, error, *words = BAD[name]
    with pytest.raises(error) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value
