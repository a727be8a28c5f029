"""The compiled backend computes what the readable one defines, whatever the sizes, masks, directions and threads."""
import inspect
import re

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import (DTYPES_AND_KINDS, KINDS, KINDS_AND_DTYPES, assert_close, between_backends, masks, random_batch,
                     random_layer, random_lstm, run, same_bits, states_of)
from minilstm.machine import threads as machine_threads
from minilstm.machine.kernel import SETTINGS
from minilstm.matmul import cpu as matmul_cpu
from minilstm.matmul import reference as matmul_reference
from minilstm.recurrence import cpu, reference, schedule


@pytest.fixture
def threads():
    before = minilstm.get_num_threads()
    yield minilstm.set_num_threads
    minilstm.set_num_threads(before)


def test_backends_have_the_same_functions_and_parameters():
    for one, other, names in ((reference, cpu, ["forward", "backward"]), (matmul_reference, matmul_cpu, ["product"])):
        for name in names:
            assert inspect.signature(getattr(one, name)) == inspect.signature(getattr(other, name))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_two_grus_agree_where_they_must_and_only_there(backend):
    """r * (U_n h) = U_n (r * h) for a diagonal U_n, if no bias stands beside it; otherwise they differ."""
    rng = np.random.default_rng(12)
    after, before = (random_layer(np.random.default_rng(1), kind, 2, 4, dtype="float64", backend=backend)
                     for kind in ("GRU", "GRU, reset before"))
    batch = random_batch(rng, after, B=3, T=5)
    different = after.forward(batch["x"])[0].y - before.forward(batch["x"])[0].y
    assert np.abs(different).max() > 0.01
    U, b_hh = after.params["weight_hh_l0"].copy(), after.params["bias_hh_l0"].copy()
    U[8:] = np.diag(rng.normal(size=4))
    b_hh[8:] = 0
    for net in (after, before):
        net.params["weight_hh_l0"], net.params["bias_hh_l0"] = U, b_hh
    expected, found = run(after, batch), run(before, batch)
    for name in ("y", "h_n", "dx", "dh0", "d weight_ih_l0", "d bias_ih_l0"):
        assert_close(found[name], expected[name], "same formulas, float64", name)


@pytest.mark.parametrize("dtype, kinds", DTYPES_AND_KINDS)
@settings(max_examples=75, deadline=None)
@given(B=st.integers(1, 12), T=st.integers(1, 9), D=st.integers(1, 20), H=st.integers(1, 20),
       seed=st.integers(0, 2**32), bidirectional=st.booleans(), data=st.data())
def test_cpu_equals_reference(dtype, kinds, B, T, D, H, seed, bidirectional, data):
    kind = data.draw(st.sampled_from(kinds))
    rng = np.random.default_rng(seed)
    options = {"bidirectional": bidirectional, "dtype": dtype}
    nets = [random_layer(np.random.default_rng(seed), kind, D, H, backend=backend, **options)
            for backend in ("reference", "cpu")]
    batch = random_batch(rng, nets[0], B, T)
    for mask in masks(rng, B, T).values():
        expected, found = (run(net, batch, mask=mask) for net in nets)
        for name in expected:
            assert found[name].dtype == dtype
            assert_close(found[name], expected[name], between_backends(kind, dtype), name)


@pytest.mark.parametrize("kind", KINDS)
def test_many_units_rows_and_stretches_of_time(monkeypatch, kind):
    """More units than are computed together, more rows than a group, fewer steps in a stretch than in the sequence, an
    input too wide for the loop: every seam of the compiled backend, in both directions."""
    monkeypatch.setattr(cpu, "STRETCH_BYTES", 1)
    monkeypatch.setattr(cpu, "STRETCH_STEPS", 20)
    monkeypatch.setattr(schedule, "ROWS_AT_ONCE", 8)
    monkeypatch.setattr(cpu, "BYTES_IN_LOOP", 0)
    for B, H in ((19, 70), (3, 9)):                                         # within the loop, and before it
        rng = np.random.default_rng(B)
        nets = [random_layer(np.random.default_rng(7), kind, 6, H, backend=backend, dtype="float64", bidirectional=True)
                for backend in ("reference", "cpu")]
        for net in nets:                                                    # small ones: large sums would be chaotic
            net.load_state_dict({name: 0.1 * p for name, p in net.state_dict().items()})
        batch = random_batch(rng, nets[0], B, T=11)
        for mask in masks(rng, B, 11).values():
            expected, found = (run(net, batch, mask=mask) for net in nets)
            for name in expected:
                assert_close(found[name], expected[name], between_backends(kind, "float64"), name)


@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_without_a_cache_the_bits_are_the_same(kind, dtype, backend):
    rng = np.random.default_rng(6)
    for options in ({}, {"num_layers": 2, "bidirectional": True}, {"reverse": True, "zoneout_h": 0.2}):
        net = random_layer(rng, kind, 3, 5, dtype=dtype, backend=backend, **options)
        batch = random_batch(rng, net, B=9, T=6)
        for mask in masks(rng, 9, 6).values():
            for masked_output in ("zero", "hold"):
                arguments = {"mask": mask, "masked_output": masked_output, **states_of(batch)}
                expected, _ = net.forward(batch["x"], **arguments)
                found, cache = net.forward(batch["x"], cache=False, **arguments)
                assert cache is None
                assert all(same_bits(a, b) for a, b in zip(found, expected))


def test_an_output_is_the_users_own():
    """Writing into y, or into x after the forward pass, changes no gradient."""
    rng = np.random.default_rng(8)
    net = random_lstm(rng, 3, 5)
    batch = random_batch(rng, net, B=4, T=6)
    expected = run(net, batch)
    x = batch["x"].copy()
    out, cache = net.forward(x, **states_of(batch))
    for array in (x, *out):
        array.fill(np.nan)
    net.zero_grads()
    found = net.backward(cache, **{name: d for name, d in batch.items() if name.startswith("d")})
    assert all(same_bits(a, expected[name]) for name, a in found._asdict().items())
    assert all(same_bits(g, expected["d " + name]) for name, g in net.grads.items())


@settings(max_examples=60, deadline=None)
@given(B=st.integers(1, 40), T=st.integers(1, 12), seed=st.integers(0, 2**32), threads=st.integers(1, 5),
       steps=st.integers(1, 50))
def test_a_schedule_deals_every_real_step_once(B, T, seed, threads, steps):
    rng = np.random.default_rng(seed)
    for mask in masks(rng, B, T).values():
        mask = np.ones((B, T), bool) if mask is None else mask
        plan = schedule.schedule(mask)
        assert sorted(plan.order) == list(range(B)) and plan.first[T] == mask.sum()
        shares = schedule.groups(plan, threads)
        assert [rank for first, last in shares for rank in range(first, last)] == list(range(B))
        for backwards in (False, True):
            found = schedule.stretches(plan, steps, backwards)
            ordered = found[::-1] if backwards else found
            assert [t for first, last in ordered for t in range(first, last)] == list(range(T))
            assert all(last - first == 1 or plan.first[last] - plan.first[first] <= steps for first, last in found)
        rows, moments = cpu.places(plan, (0, T))
        numbered = np.full((B, T), -1)
        for ranks in shares:
            for t, first in enumerate(cpu.numbers(plan, ranks, (0, T))):
                real = [b for b in plan.order[slice(*ranks)] if mask[b, t]]
                numbered[real, t] = first + np.arange(len(real))
        assert np.array_equal(numbered[rows, moments], np.arange(mask.sum()))
        assert np.array_equal(numbered >= 0, mask)


@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_same_bits_for_any_number_of_threads(monkeypatch, threads, kind, dtype):
    monkeypatch.setattr(machine_threads, "MULTIPLY_ADDS_WORTH_A_THREAD", 1000)      # so that small work is shared too
    rng = np.random.default_rng(1)
    net = random_layer(rng, kind, 30, 60, dtype=dtype)
    batch = random_batch(rng, net, B=37, T=60)
    mask = masks(rng, 37, 60)["right"]
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        assert machine_threads.threads_for(mask.sum() * net.params["weight_hh_l0"].size) == count, "it is shared"
        found.append(run(net, batch, mask=mask))
    for other in found[1:]:
        assert all(same_bits(other[name], found[0][name]) for name in found[0])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_row_does_not_depend_on_the_batch_around_it(backend):
    rng = np.random.default_rng(2)
    net = random_lstm(rng, 3, 5, backend=backend, dtype="float64")
    batch = random_batch(rng, net, B=11, T=6)
    whole = run(net, batch)
    order = rng.permutation(11)
    permuted = run(net, {name: a[:, :, order] if a.ndim == 4 else a[order] for name, a in batch.items()})
    for name in ("y", "dx"):
        assert_close(permuted[name], whole[name][order], "same formulas, float64")
        assert backend == "reference" or same_bits(permuted[name], whole[name][order])


@pytest.mark.parametrize("D, H", [(3, 5), (600, 9), (40, 16)])
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_a_row_alone_has_the_same_bits(kind, dtype, D, H):
    """A batch of one row multiplies its input for the whole sequence at once, a large one step by step."""
    rng = np.random.default_rng(5)
    net = random_layer(rng, kind, D, H, dtype=dtype)
    batch = random_batch(rng, net, B=11, T=4)
    batch["x"] *= net.dtype.type(0.1)
    whole, cache = net.forward(batch["x"], **states_of(batch))
    dx = net.backward(cache, batch["dy"]).dx
    for b in (0, 7):
        states = {name: s[:, :, b:b + 1] for name, s in states_of(batch).items()}
        alone, cache = net.forward(batch["x"][b:b + 1], **states)
        assert same_bits(alone.y[0], whole.y[b])
        assert same_bits(net.backward(cache, batch["dy"][b:b + 1]).dx[0], dx[b])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_chunks_with_carried_state_are_the_whole(kind, dtype, backend):
    rng = np.random.default_rng(3)
    net = random_layer(rng, kind, 3, 5, dtype=dtype, backend=backend)
    batch = random_batch(rng, net, B=4, T=7)
    mask = masks(rng, 4, 7)["holes"]
    whole, _ = net.forward(batch["x"], mask=mask, **states_of(batch))
    first, _ = net.forward(batch["x"][:, :3], mask=mask[:, :3], **states_of(batch))
    carried = dict(zip(("h0", "c0"), first[1:]))
    second, _ = net.forward(batch["x"][:, 3:], mask=mask[:, 3:], **carried)
    assert same_bits(np.concatenate([first.y, second.y], axis=1), whole.y)
    assert all(same_bits(found, expected) for found, expected in zip(second[1:], whole[1:]))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_backward_direction_is_the_forward_one_on_reversed_time(backend):
    rng = np.random.default_rng(4)
    both = random_lstm(rng, 3, 5, bidirectional=True, backend=backend)
    forward_only = minilstm.LSTM(3, 5, backend=backend)
    for name in forward_only.params:
        forward_only.params[name] = both.params[name + "_reverse"]
    batch = random_batch(rng, both, B=4, T=6)
    mask = masks(rng, 4, 6)["holes"]
    out, _ = both.forward(batch["x"], mask=mask, h0=batch["h0"], c0=batch["c0"])
    flipped, _ = forward_only.forward(
        batch["x"][:, ::-1], mask=mask[:, ::-1], h0=batch["h0"][:, 1:], c0=batch["c0"][:, 1:])
    assert same_bits(out.y[:, :, 5:], flipped.y[:, ::-1])
    assert same_bits(out.h_n[:, 1], flipped.h_n[:, 0]) and same_bits(out.c_n[:, 1], flipped.c_n[:, 0])


@pytest.mark.long
def test_the_formulas_inside_the_loop_over_time_are_vector_instructions():
    """The compiler gives up where it cannot see that a row's numbers are neighbours: ten times slower, and right."""
    net = minilstm.LSTM(2, 20)
    net.forward(np.ones((9, 2, 2), "float32"))
    forward_rows, _ = cpu.kernels(net.cell)
    anew = numba.njit(forward_rows.signatures[0], **SETTINGS)(forward_rows.py_func)
    [assembly] = anew.inspect_asm().values()
    vector_divisions = re.findall(r"divp[sd]|fdiv\s+v\d+\.[24][sd]", assembly)
    assert len(vector_divisions) >= 5, "five activations, a vector division in each"


# ------------------------------------------------------------------------------------------------- the matrix product

STRIDES = (
    lambda A: A,
    lambda A: np.asfortranarray(A),
    lambda A: np.repeat(A, 2, axis=1)[:, ::2],                              # neither rows nor columns are neighbours
    lambda A: np.concatenate([A, A], axis=1)[:, :A.shape[1]],               # rows lie apart
    lambda A: np.concatenate([A, A], axis=0).T.copy().T[:A.shape[0]],       # columns do
    lambda A: A[::-1].copy()[::-1],
    lambda A: A[:, ::-1].copy()[:, ::-1])


@settings(max_examples=100, deadline=None)
@given(M=st.integers(0, 150), K=st.integers(0, 600), N=st.integers(1, 50), seed=st.integers(0, 2**32),
       strides_a=st.sampled_from(STRIDES), strides_b=st.sampled_from(STRIDES),
       dtype=st.sampled_from(["float64", "float32"]))
def test_product_is_numpys(M, K, N, seed, strides_a, strides_b, dtype):
    rng = np.random.default_rng(seed)
    A = strides_a(rng.normal(size=(M, K)).astype(dtype))
    B = strides_b(rng.normal(size=(K, N)).astype(dtype))
    bias = rng.normal(size=N).astype(dtype)
    B.flags.writeable = bias.flags.writeable = False
    found = matmul_cpu.product(A, B, bias)
    assert found.dtype == dtype
    assert_close(found, A.astype("float64") @ B + bias, f"same formulas, {dtype}")
    added = bias * np.ones((M, 1), dtype)
    matmul_cpu.add_product(added, A, B)
    assert same_bits(added, found)
    if M:
        row = int(rng.integers(M))
        assert same_bits(matmul_cpu.product(np.ascontiguousarray(A[row:row + 1]), B, bias)[0], found[row])
    assert len(matmul_cpu.product_rows(A.dtype).signatures) == 1, "compiled once, whatever the strides"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_rows_become_columns(dtype):
    """In turn, which whole squares of them take as vectors; in any order; with columns of zeros among them."""
    rng = np.random.default_rng()
    lanes = matmul_cpu.lanes_of(dtype)
    for K in (1, 7, 8, 21, 40):
        for strides in STRIDES:
            B = strides(rng.normal(size=(3 * lanes, K)).astype(dtype))
            order = np.concatenate([np.arange(lanes, 2 * lanes), rng.permutation(3 * lanes)[:lanes], np.arange(lanes)])
            order[[lanes + 2, -1]] = -1
            columns = np.where(order[:, None] >= 0, B[order], 0).T
            found = matmul_cpu.pack_rows(B, order)
            assert same_bits(found.transpose(1, 0, 2).reshape(K, 3 * lanes), np.ascontiguousarray(columns))
            for N in (3 * lanes, 2 * lanes + 1):
                packed = matmul_cpu.pack(B.T[:, :N]).transpose(1, 0, 2).reshape(K, 3 * lanes)
                assert same_bits(packed[:, :N], np.ascontiguousarray(B.T[:, :N])) and not packed[:, N:].any()
