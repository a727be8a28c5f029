"""Every kernel of the product on a GPU computes what the reference defines, whatever the shapes and layouts; the same
bits every time; and within the registers that its author says."""
import functools
import inspect
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compiled
from helpers import assert_close, same_bits
from minilstm import device
from minilstm.matmul import gpu as matmul
from minilstm.matmul import gpu_blocked, gpu_elements, gpu_sums, gpu_tensor, gpu_tiled, reference
from minilstm.matmul.gpu_operands import Layout, factors

SMALL, LARGE = (64, 64), (128, 128)
PLAIN = {name: matmul.KERNELS[name] for name in ("by_element", "by_warp", "tiled")}
IN_TILES = {name: functools.partial(matmul.KERNELS[name], tile=SMALL) for name in ("blocked", "tensor", "split")}
KERNELS = PLAIN | IN_TILES
DEPTHS = [("blocked", gpu_blocked.DEPTH), ("tensor", gpu_tensor.DEPTH), ("split", gpu_tensor.DEPTH)]
BOTH_WAYS = [(a, b) for a in (False, True) for b in (False, True)]


def tolerance_of(name):
    return "product, TF32" if name == "tensor" else "product, float32"


def on_gpu(X, transposed):
    return device.to_device(X.T).T if transposed else device.to_device(X)


def operands(rng, M, K, N):
    return tuple(rng.normal(size=shape).astype("float32") for shape in ((M, K), (K, N), (N,)))


def expected(A, B, bias=None):
    return reference.product(*(None if x is None else x.astype("float64") for x in (A, B, bias)))


def check_product(name, product, A, B, bias, transposed):
    a, b = on_gpu(A, transposed[0]), on_gpu(B, transposed[1])
    C = product(a, b, None if bias is None else device.to_device(bias))
    assert C.dtype == np.float32
    assert_close(C, expected(A, B, bias), tolerance_of(name), f"{name} {A.shape} {B.shape} {transposed}")
    return C.copy_to_host()


def variant(module, **replaced):
    """A copy of a module with some of its source replaced: old -> (new, how often it is there)."""
    source = inspect.getsource(module)
    for old, new, count in replaced.values():
        assert source.count(old) == count, old
        source = source.replace(old, new)
    copy = types.ModuleType(module.__name__)
    copy.__package__, copy.__file__ = module.__package__, module.__file__
    exec(compile(source, module.__file__, "exec"), vars(copy))
    return copy


# ---------------------------------------------------------------------------------------------------------- the numbers

def test_signatures_are_the_reference_s():
    assert inspect.signature(matmul.product) == inspect.signature(reference.product)
    for name, product in matmul.KERNELS.items():
        assert list(inspect.signature(product).parameters)[:3] == ["A", "B", "bias"], name


@pytest.mark.parametrize("transposed", BOTH_WAYS)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_kernels_equal_reference(gpu, name, transposed):
    """Shapes at the edges of a tile of 16, a warp and a block; with and without bias."""
    rng = np.random.default_rng()
    for _ in range(4):
        M, K, N = (rng.choice(sizes) for sizes in ([1, 3, 16, 17], [1, 15, 16, 17, 31, 33], [1, 4, 9]))
        M, N = (M, N) if rng.random() < 0.5 else (N, M)
        A, B, bias = operands(rng, M, K, N)
        check_product(name, PLAIN[name], A, B, bias if rng.random() < 0.5 else None, transposed)


@pytest.mark.parametrize("transposed", BOTH_WAYS)
@pytest.mark.parametrize("name, depth", DEPTHS)
def test_kernels_with_tiles_equal_reference(gpu, name, depth, transposed):
    """A little more than a tile holds, and than its depth; rows of 4 n numbers and others, with a bias and without."""
    rng = np.random.default_rng()
    for M, K, N, biased in ((7, depth + 1, 66, True), (68, depth + 4, 4, False)):
        A, B, bias = operands(rng, M, K, N)
        if name != "split" or biased == transposed[0]:                          # slow, and but for its sums ``tensor``
            check_product(name, IN_TILES[name], A, B, bias if biased else None, transposed)


@pytest.mark.parametrize("name, transposed", [("blocked", (False, True)), ("tensor", (True, False))])
def test_large_tiles_equal_reference(gpu, name, transposed):
    product = functools.partial(matmul.KERNELS[name], tile=LARGE)
    check_product(name, product, *operands(np.random.default_rng(), 127, 12, 124), transposed)


@pytest.mark.long
@pytest.mark.parametrize("transposed", BOTH_WAYS)
@pytest.mark.parametrize("tile", [SMALL, LARGE])
@pytest.mark.parametrize("name", IN_TILES)
def test_more_shapes_in_tiles(gpu, name, tile, transposed):
    rng = np.random.default_rng()
    product = functools.partial(matmul.KERNELS[name], tile=tile)
    for _ in range(2):
        M, N = (int(rng.integers(1, side + 5)) for side in tile)
        A, B, bias = operands(rng, M, int(rng.integers(1, 50)), N)
        check_product(name, product, A, B, bias, transposed)


@pytest.mark.parametrize("name", KERNELS)
def test_empty_products(gpu, name):
    """No terms: the bias, or zero; no rows or no columns: an empty array."""
    rng = np.random.default_rng()
    for M, K, N in ((3, 0, 5), (0, 3, 5), (3, 4, 0), (0, 0, 0)):
        A, B, bias = operands(rng, M, K, N)
        for transposed in ((False, False), (True, True)):
            for z in (None, bias):
                assert same_bits(check_product(name, KERNELS[name], A, B, z, transposed),
                                 np.zeros((M, N), "float32") + (0 if z is None else z))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", KERNELS)
def test_nan_stays_in_its_row_and_column(gpu, name):
    """A row of A with a NaN, and a column of B with an infinity, change that row and that column of C alone, though
    tiles stick out of both along k."""
    rng = np.random.default_rng()
    A, B, bias = operands(rng, 5, 11, 7)
    clean = KERNELS[name](device.to_device(A), on_gpu(B, True), device.to_device(bias)).copy_to_host()
    A[2, rng.integers(11)] = np.int32(0x7fffffff).view("float32")                      # the NaN of a GPU's arithmetic
    B[rng.integers(11), 3] = np.inf
    found = KERNELS[name](device.to_device(A), on_gpu(B, True), device.to_device(bias)).copy_to_host()
    assert np.isnan(found[2]).all() and not np.isfinite(found[:, 3]).any()
    others = np.ix_([0, 1, 3, 4], [0, 1, 2, 4, 5, 6])
    assert same_bits(found[others], clean[others])


def test_operands_that_begin_anywhere_and_are_read_twice(gpu):
    """A view whose first number is at no multiple of 16 bytes is read one number at a time, though its rows have 4 n;
    and A may be B."""
    rng = np.random.default_rng()
    X = rng.normal(size=(9, 5)).astype("float32")
    view = device.to_device(X).part(1, 9).reshape(10, 4)
    Y = X[1:].reshape(10, 4)
    assert not factors(view, view.T)[0].layout.wide
    for name, product in IN_TILES.items():
        assert_close(product(view.T, view), expected(Y.T, Y), tolerance_of(name), name)
        assert_close(product(view, view.T), expected(Y, Y.T), tolerance_of(name), name)


def test_shapes_that_are_no_product(gpu):
    a = device.zeros((2, 3))
    for A, B, bias, message in ((a, a, None, r"A, B: .*\(2, 3\) and \(2, 3\)"), (a, a.T, device.zeros(3), "bias: .*2"),
                                (device.zeros(3), a.T, None, "A, B")):
        with pytest.raises(ValueError, match=message):
            matmul.product(A, B, bias)


def test_large_products_on_a_real_gpu(gpu):
    """A thousand of everything, by every kernel, tile and ``product``'s own choice, and the same bits again."""
    if gpu.name == "simulator":
        pytest.skip("a simulator would take hours for it")
    rng = np.random.default_rng()
    every = [("product", matmul.product), *PLAIN.items()] + [
        (name, functools.partial(matmul.KERNELS[name], tile=tile, parts=parts))
        for name in IN_TILES for tile in (SMALL, LARGE) for parts in (1, 3)]
    for M, K, N in ((1000, 1500, 700), (1030, 4096, 64), (64, 20000, 130), (1, 5000, 3)):
        for transposed in BOTH_WAYS:
            A, B, bias = operands(rng, M, K, N)
            for name, product in every:
                first = check_product(name, product, A, B, bias, transposed)
                assert same_bits(check_product(name, product, A, B, bias, transposed), first)


# ---------------------------------------------------------------------------------------------------------- parts, sums

@pytest.mark.parametrize("name, depth", DEPTHS)
def test_parts_of_k(gpu, name, depth):
    """Parts that do not divide K, more parts than there can be, and the bias once."""
    rng = np.random.default_rng()
    for K, parts in ((2 * depth + 3, 2), (depth + 1, 7))[:1 if name == "split" else 2]:
        A, B, bias = operands(rng, 5, K, 6)
        check_product(name, functools.partial(IN_TILES[name], parts=parts), A, B, bias, (True, False))
    if gpu.name == "simulator":
        assert gpu.launched.count("sum_parts") == (1 if name == "split" else 2)


@pytest.mark.parametrize("M, N", [(1, 1), (0, 3), (3, 0), (8, 31), (9, 33), (400, 2), (300, 65)])
def test_column_sums(gpu, M, N):
    A = np.random.default_rng().normal(size=(M, N)).astype("float32")
    a = device.to_device(A)
    sums = matmul.column_sums(a)
    assert_close(sums, A.sum(0, dtype="float64"), "product, float32")
    assert same_bits(matmul.column_sums(a).copy_to_host(), sums.copy_to_host())
    if gpu.name == "simulator":
        assert ("sum_parts" in gpu.launched) == (M > gpu_sums.ROWS_OF_A_PART)


def test_nan_stays_in_its_column(gpu):
    A = np.random.default_rng().normal(size=(300, 40)).astype("float32")
    clean = matmul.column_sums(device.to_device(A)).copy_to_host()
    A[200, 7] = np.nan
    found = matmul.column_sums(device.to_device(A)).copy_to_host()
    assert np.isnan(found[7]) and same_bits(np.delete(found, 7), np.delete(clean, 7))


@pytest.mark.parametrize("name", [*KERNELS, "column_sums"])
def test_bits_do_not_depend_on_the_order_of_threads(name):
    rng = np.random.default_rng()
    A, B, bias = operands(rng, 9, 17, 5)
    rows = rng.normal(size=(270, 3)).astype("float32")
    found = []
    for seed in (None, int(rng.integers(1000))):
        with device.simulated(seed=seed) as gpu:
            options = {"parts": 2} if name in IN_TILES else {}
            C = matmul.column_sums(device.to_device(rows)) if name == "column_sums" else KERNELS[name](
                device.to_device(A), device.to_device(B), device.to_device(bias), **options)
            found.append(C.copy_to_host())
            assert not gpu.races
    assert same_bits(*found)


# ----------------------------------------------------------------------------------------------------------- the choice

def test_choice_for_known_shapes():
    """On a GPU of 132 multiprocessors: M, K, N -> kernel, tile, whether k is cut."""
    for (M, K, N, along_k), kernel, tile, cut in (
            ((65536, 512, 2048, True), "blocked", LARGE, False),            # x @ W.T
            ((65536, 2048, 512, False), "blocked", LARGE, False),           # da @ W
            ((2048, 65536, 512, False), "blocked", LARGE, True),            # da.T @ x
            ((256, 2048, 3, False), "blocked", SMALL, True),                # the same, small
            ((64, 512, 2048, True), "blocked", SMALL, True),                # h @ U.T
            ((65536, 512, 1, True), "by_warp", None, False),                # a layer with one output
            ((1, 512, 2048, True), "by_warp", None, False),                 # h @ U.T for one row
            ((1, 65536, 512, False), "blocked", SMALL, True),               # the weight gradient of one output
            ((1, 1 << 26, 1, False), "blocked", SMALL, True),               # parts are not more than a grid may have
            ((20, 3, 32, True), "by_element", None, False)):
        plan = matmul.choose(M, K, N, along_k, 132, False)
        parts = plan.options.get("parts", 1)
        assert (plan.kernel, plan.options.get("tile"), parts > 1) == (kernel, tile, cut), (M, K, N)
        assert parts <= matmul.MOST_PARTS
        with_tf32 = matmul.choose(M, K, N, along_k, 132, True)
        assert with_tf32.kernel == ("tensor" if kernel == "blocked" else kernel)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**4), st.booleans(), st.integers(1, 200))
def test_choice_for_any_shape(M, K, N, along_k, multiprocessors):
    """A kernel that exists, with parts that have something to do; and with far fewer tiles than multiprocessors, a long
    k is cut."""
    plan = matmul.choose(M, K, N, along_k, multiprocessors, False)
    assert plan.kernel in matmul.KERNELS
    if plan.options:
        (rows, columns), parts = plan.options["tile"], plan.options["parts"]
        assert parts == 1 or K >= parts * matmul.SHORTEST_PART
        tiles = -(-M // rows) * -(-N // columns)
        assert parts > 1 or 2 * tiles > multiprocessors or K < 4096


def test_product_takes_what_was_chosen(gpu):
    """TF32 only where it is allowed, seen in the digits that it costs."""
    A, B, _ = operands(np.random.default_rng(), 60, 12, 60)
    errors = []
    for allowed in (False, True):
        device.allow_tf32(allowed)
        try:
            C = matmul.product(device.to_device(A), device.to_device(B)).copy_to_host()
        finally:
            device.allow_tf32(False)
        errors.append(np.abs(C - expected(A, B)).max() / np.abs(C).max())
    assert errors[0] < 1e-5 and 3e-5 < errors[1] < 2e-3


# ------------------------------------------------------------------------------------------------------------- rounding

def rounded_to_tf32(x):
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xffffe000)).view(np.float32)


def cut_to_tf32(x):
    return (x.view(np.uint32) & np.uint32(0xffffe000)).view(np.float32)


def by_instructions(*pairs):
    """The sum of products of pairs, 8 along k at a time, each exact and added to a float32, as in ``gpu_tensor``."""
    total = np.zeros((len(pairs[0][0]), pairs[0][1].shape[1]), np.float32)
    for k in range(0, pairs[0][0].shape[1], 8):
        for A, B in pairs:
            total = np.float32(total + expected(A[:, k:k + 8], B[k:k + 8]))
    return total


@pytest.mark.parametrize("numbers, worst_rounded, worst_cut", [("normal", 3.1e-4, 8.1e-4), ("random", 1.9e-5, 6.6e-4)])
def test_rounding_and_cutting(numbers, worst_rounded, worst_cut):
    """The figures of ``gpu_tensor`` and of the table of tolerances, for 4096 numbers a sum; and that three products of
    TF32, and one chain of float32, are as near as the tolerance says."""
    rng = np.random.default_rng(0)
    worst = dict.fromkeys(("rounded", "cut", "split", "chain"), 0)
    for _ in range(2):
        A, B = (getattr(rng, numbers)(size=shape).astype("float32") for shape in ((64, 4096), (4096, 64)))
        A_high, B_high = rounded_to_tf32(A), rounded_to_tf32(B)
        A_low, B_low = rounded_to_tf32(A - A_high), rounded_to_tf32(B - B_high)
        chain = np.zeros((64, 64), np.float32)
        for k in range(4096):
            chain = np.float32(chain + expected(A[:, k:k + 1], B[k:k + 1]))
        exact = expected(A, B)
        for name, C in (("rounded", by_instructions((A_high, B_high))), ("chain", chain),
                        ("cut", by_instructions((cut_to_tf32(A), cut_to_tf32(B)))),
                        ("split", by_instructions((A_low, B_high), (A_high, B_low), (A_high, B_high)))):
            worst[name] = max(worst[name], np.abs(C - exact).max() / np.abs(exact).max())
    assert worst["rounded"] == pytest.approx(worst_rounded, rel=0.1)
    assert worst["cut"] == pytest.approx(worst_cut, rel=0.1)
    assert worst["split"] < 5e-6 and worst["chain"] < 5e-6


def test_a_kernel_that_does_not_round_is_seen():
    A, B = (np.random.default_rng().random(shape).astype("float32") for shape in ((8, 128), (128, 8)))
    cutting = variant(gpu_tensor, change=("ptx.to_tf32(x[", "ptx.bits_of(x[", 8))
    errors = []
    for module in (gpu_tensor, cutting):
        with device.simulated():
            C = module.tensor(device.to_device(A), on_gpu(B, True), tile=SMALL).copy_to_host()
            errors.append(np.abs(C / expected(A, B) - 1).max())
    assert errors[0] < 2e-4 < errors[1]


# --------------------------------------------------------------------------------------------------------- planted bugs

BARRIER = "            cuda.syncthreads()\n"
BUGS = {
    "tiled, no barrier before multiplying": (gpu_tiled, "tiled", BARRIER + "            for k", "            for k", 1),
    "tiled, no barrier after": (gpu_tiled, "tiled", BARRIER + "        if m < M", "        if m < M", 1),
    "blocked, no barrier": (gpu_blocked, "blocked", BARRIER, "", 1),
    "blocked, no wait for copies": (gpu_blocked, "blocked", "ptx.copies_wait(0)", "ptx.copies_wait(1)", 1),
    "tensor, no barrier": (gpu_tensor, "tensor", BARRIER, "", 1),
    "tensor, waits for one copy too few": (gpu_tensor, "tensor", "ptx.copies_wait(1)", "ptx.copies_wait(2)", 1),
    "tensor, copies to the tile in use": (gpu_tensor, "tensor", "stage - 1 if stage else STAGES - 1", "stage", 1),
    "sums, no barrier": (gpu_sums, "column_sums", "    cuda.syncthreads()\n", "", 1),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    """By a race or by the numbers; the same call without the bug shows neither (the tests above)."""
    module, name, *change = BUGS[bug]
    rng = np.random.default_rng()
    A, B, _ = operands(rng, 5, 50, 6)
    with device.simulated(seed=int(rng.integers(1000))) as gpu:
        function = getattr(variant(module, change=change), name)
        a, b = device.to_device(A), device.to_device(B)
        options = {"tile": SMALL} if name in IN_TILES else {}
        found = function(a).copy_to_host() if name == "column_sums" else function(a, b, **options).copy_to_host()
        exact = A.sum(0) if name == "column_sums" else expected(A, B)
        assert gpu.races or not np.abs(found - exact).max() < 1e-2


# --------------------------------------------------------------------------------------------------------- machine code

ALONG, ACROSS, NARROW = Layout(True, True), Layout(False, True), Layout(False, False)
FORWARD, WEIGHTS, INPUT = (ALONG, ALONG), (ACROSS, ACROSS), (ALONG, ACROSS)


@pytest.mark.compiler
@pytest.mark.parametrize("kernel, registers", [
    (gpu_elements.element_kernel(False, True, True), 64), (gpu_elements.warp_kernel(True, True), 64),
    (gpu_tiled.tiled_kernel(False, True, True), 64), (gpu_sums.sum_columns, 32), (gpu_sums.sum_parts, 32)],
    ids=lambda value: getattr(value, "name", ""))
def test_machine_code_of_plain_kernels(kernel, registers):
    """At most what lets a multiprocessor hold all the threads it can, or half of them."""
    compiled.check(kernel, registers=registers)


@pytest.mark.compiler
@pytest.mark.parametrize("tile, layouts", [(LARGE, FORWARD), (SMALL, WEIGHTS)] + [
    pytest.param(tile, layouts, marks=pytest.mark.long) for tile in (LARGE, SMALL)
    for layouts in (FORWARD, WEIGHTS, INPUT, (NARROW, NARROW), (ALONG, NARROW), (Layout(True, False), ACROSS))])
def test_machine_code_of_blocked(tile, layouts):
    """512 threads on a multiprocessor, so 128 registers; 8 x 8 x 8 multiply-adds in a row: the loop is written out."""
    kernel = gpu_blocked.blocked_kernel(tile, *layouts)
    assert kernel.threads * kernel.blocks_per_sm == 512
    compiled.check(kernel, registers=128, shared=17 * 1024)
    for cc in compiled.TARGETS:
        assert compiled.report(kernel, cc).multiply_adds == 8 * 8 * gpu_blocked.DEPTH


@pytest.mark.compiler
@pytest.mark.parametrize("tile, layouts", [(LARGE, FORWARD), (LARGE, WEIGHTS), (SMALL, INPUT)] + [
    pytest.param(tile, layouts, marks=pytest.mark.long) for tile in (LARGE, SMALL)
    for layouts in (FORWARD, WEIGHTS, INPUT, (NARROW, NARROW), (ALONG, NARROW), (Layout(True, False), ACROSS))])
@pytest.mark.parametrize("in_two", [False, True])
def test_machine_code_of_tensor(in_two, tile, layouts):
    """512 threads on a multiprocessor, 256 where each operand is in two parts; a warp has rows / 32 x 4 pieces of C and
    two instructions for each, three times as many with both parts.

    64 totals and 24 operands leave too few of 128 registers for all addresses of copies: up to 12 that do not change
    in the loop are read again in it, among 400 instructions; none where both factors of a large tile lie across k."""
    kernel = gpu_tensor.tensor_kernel(in_two, tile, *layouts)
    assert kernel.threads * kernel.blocks_per_sm == (256 if in_two else 512)
    spills = 48 if tile == LARGE and not in_two and layouts != WEIGHTS else 0
    compiled.check(kernel, registers=255 if in_two else 128, spills=spills, stack=spills)
    for cc in compiled.TARGETS:
        assert compiled.report(kernel, cc).tensor == tile[0] // 32 * 4 * 2 * (3 if in_two else 1)
