"""The mask contract: padding changes nothing, rubbish in it reaches nothing, empty rows are legal, holes are pauses."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import (DTYPES_AND_KINDS, KINDS_AND_DTYPES, assert_close, masks, random_batch, random_layer, random_lstm,
                     run, same_bits)

BACKENDS = ["reference", "cpu"]
RUBBISH = [np.nan, np.inf, -np.inf, 1e30]

cases = given(B=st.integers(1, 5), T=st.integers(1, 7), D=st.integers(1, 4), H=st.integers(1, 6),
              seed=st.integers(0, 2**32), bidirectional=st.booleans(), backend=st.sampled_from(BACKENDS),
              data=st.data())


def assert_same(found, expected, name):
    """Outputs and states bit for bit, gradients by rounding at most."""
    if name in ("y", "h_n", "c_n"):
        assert same_bits(found, expected), name
    else:
        double = found.dtype == np.float64
        assert_close(found, expected, "gradients by rounding" if double else "same formulas, float32", name)


def spread_out(array, slots, T):
    """Steps of (B,t,F) moved to the places ``slots`` of a longer array, NaN between them."""
    longer = np.full((array.shape[0], T, array.shape[2]), np.nan, array.dtype)
    longer[:, slots] = array
    return longer


@pytest.mark.parametrize("dtype, kinds", DTYPES_AND_KINDS)
@settings(max_examples=125, deadline=None)
@cases
def test_content_of_masked_steps_changes_nothing(dtype, kinds, B, T, D, H, seed, bidirectional, backend, data):
    kind, rng = data.draw(st.sampled_from(kinds)), np.random.default_rng(seed)
    net = random_layer(rng, kind, D, H, bidirectional=bidirectional, backend=backend, dtype=dtype)
    batch = random_batch(rng, net, B, T)
    mask = data.draw(st.sampled_from(list(masks(rng, B, T).values())[1:]))
    expected = run(net, batch, mask=mask)
    for rubbish in RUBBISH:
        dirty = dict(batch, x=np.where(mask[:, :, None], batch["x"], net.dtype.type(rubbish)),
                     dy=np.where(mask[:, :, None], batch["dy"], net.dtype.type(rubbish)))
        found = run(net, dirty, mask=mask)
        assert all(same_bits(found[name], expected[name]) for name in expected)
    assert not expected["y"][~mask].any() and not expected["dx"][~mask].any()


@pytest.mark.parametrize("dtype, kinds", DTYPES_AND_KINDS)
@settings(max_examples=125, deadline=None)
@cases
def test_amount_and_place_of_padding_change_nothing(dtype, kinds, B, T, D, H, seed, bidirectional, backend, data):
    """Up to nine more masked steps, to the left, to the right and as holes, all filled with NaN."""
    kind, rng = data.draw(st.sampled_from(kinds)), np.random.default_rng(seed)
    net = random_layer(rng, kind, D, H, bidirectional=bidirectional, backend=backend, dtype=dtype)
    batch = random_batch(rng, net, B, T)
    mask = data.draw(st.sampled_from(list(masks(rng, B, T).values())[1:]))
    expected = run(net, batch, mask=mask)
    longer = T + data.draw(st.integers(1, 9))
    slots = np.sort(rng.permutation(longer)[:T])
    padded_mask = np.zeros((B, longer), bool)
    padded_mask[:, slots] = mask
    found = run(net, dict(batch, x=spread_out(batch["x"], slots, longer), dy=spread_out(batch["dy"], slots, longer)),
                mask=padded_mask)
    for name in expected:
        shrunk = found[name][:, slots] if name in ("y", "dx") else found[name]
        assert_same(shrunk, expected[name], name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_masked_batch_is_each_sequence_alone(backend, bidirectional):
    """The states and outputs of a ragged, gappy batch are those of its rows, run one by one without any mask."""
    rng = np.random.default_rng(0)
    net = random_lstm(rng, 3, 4, bidirectional=bidirectional, backend=backend, dtype="float64")
    batch = random_batch(rng, net, B=5, T=6)
    mask = masks(rng, 5, 6)["holes"]
    out, _ = net.forward(batch["x"], mask=mask, h0=batch["h0"], c0=batch["c0"])
    for b in range(5):
        h0, c0 = (batch[name][:, :, b:b + 1] for name in ("h0", "c0"))
        alone, _ = net.forward(batch["x"][b:b + 1, mask[b]], h0=h0, c0=c0)
        assert_close(out.y[b, mask[b]], alone.y[0], "same formulas, float64")
        assert_close(out.h_n[:, :, b], alone.h_n[:, :, 0], "same formulas, float64")
        assert_close(out.c_n[:, :, b], alone.c_n[:, :, 0], "same formulas, float64")


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_row_keeps_its_state_and_passes_its_gradient(backend):
    rng = np.random.default_rng(1)
    net = random_lstm(rng, 3, 4, bidirectional=True, backend=backend)
    batch = random_batch(rng, net, B=3, T=5)
    mask = np.ones((3, 5), bool)
    mask[1] = False
    found = run(net, batch, mask=mask)
    for state in ("h", "c"):
        assert same_bits(found[f"{state}_n"][:, :, 1], batch[f"{state}0"][:, :, 1])
        assert same_bits(found[f"d{state}0"][:, :, 1], batch[f"d{state}_n"][:, :, 1])
    assert not found["y"][1].any() and not found["dx"][1].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_true_mask_and_full_lengths_are_no_mask(backend):
    rng = np.random.default_rng(2)
    net = random_lstm(rng, 3, 4, backend=backend)
    batch = random_batch(rng, net, B=3, T=5)
    expected = run(net, batch)
    for options in ({"mask": np.ones((3, 5), bool)}, {"lengths": np.array([5, 5, 5])}, {"lengths": [5, 5, 5]}):
        found = run(net, batch, **options)
        assert all(same_bits(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_are_a_right_padded_mask(backend):
    rng = np.random.default_rng(3)
    net = random_lstm(rng, 3, 4, backend=backend)
    batch = random_batch(rng, net, B=4, T=5)
    lengths = np.array([5, 0, 2, 3])
    expected = run(net, batch, mask=np.arange(5) < lengths[:, None])
    found = run(net, batch, lengths=lengths)
    assert all(same_bits(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_held_output_is_the_last_real_one_in_each_direction(backend):
    rng = np.random.default_rng(4)
    net = random_lstm(rng, 3, 2, bidirectional=True, backend=backend)
    batch = random_batch(rng, net, B=1, T=5)
    mask = np.array([[False, True, False, True, False]])
    zero, _ = net.forward(batch["x"], mask=mask)
    held, _ = net.forward(batch["x"], mask=mask, masked_output="hold")
    nothing = np.zeros(2, "float32")
    y1, y3 = zero.y[0, 1], zero.y[0, 3]
    assert same_bits(held.y[0, :, :2], np.stack([nothing, y1[:2], y1[:2], y3[:2], y3[:2]]))
    assert same_bits(held.y[0, :, 2:], np.stack([y1[2:], y1[2:], y3[2:], y3[2:], nothing]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind, dtype", KINDS_AND_DTYPES)
def test_a_real_input_that_is_not_finite_spoils_its_own_row_only(kind, dtype, value, bidirectional, backend):
    rng = np.random.default_rng(5)
    net = random_layer(rng, kind, 3, 4, bidirectional=bidirectional, dtype=dtype, backend=backend)
    batch = random_batch(rng, net, B=11, T=6)
    clean, _ = net.forward(batch["x"])
    batch["x"][4, 2, 1] = value
    out, _ = net.forward(batch["x"])
    others = np.arange(11) != 4
    R = net.widths[0]
    assert not np.isfinite(out.y[4, 2:, :R]).any() and not np.isfinite(out.h_n[:, :, 4]).any()
    assert not bidirectional or not np.isfinite(out.y[4, :3, R:]).any()
    assert same_bits(out.y[others], clean.y[others])
    assert all(same_bits(found[:, :, others], expected[:, :, others]) for found, expected in zip(out[1:], clean[1:]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("state", ["h0", "c0"])
def test_an_initial_state_that_is_not_finite_spoils_its_own_row_only(state, value, backend):
    """And not even that in a row that is all padding: there it is handed on as it came, and touches no gradient."""
    rng = np.random.default_rng(6)
    net = random_lstm(rng, 3, 4, backend=backend)
    batch = random_batch(rng, net, B=5, T=6)
    mask = np.ones((5, 6), bool)
    mask[3] = False
    clean = run(net, batch, mask=mask)
    batch[state][:, :, 3] = value
    found = run(net, batch, mask=mask)
    assert same_bits(found[state[0] + "_n"][:, :, 3], batch[state][:, :, 3])
    assert all(same_bits(found[name], clean[name]) for name in clean if name != state[0] + "_n")
    batch[state][0, 0, 1, 2] = value
    found = run(net, batch, mask=mask)
    assert not np.isfinite(found["y"][1]).all(axis=1).any() and not np.isfinite(found["h_n"][0, 0, 1]).all()
    assert same_bits(found["y"][[0, 2, 4]], clean["y"][[0, 2, 4]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_of_masked_steps_is_zero_even_in_a_spoilt_row(backend):
    rng = np.random.default_rng(7)
    net = random_lstm(rng, 3, 4, backend=backend)
    batch = random_batch(rng, net, B=3, T=6)
    mask = masks(rng, 3, 6)["holes"]
    mask[1] = [True, False, True, False, True, False]
    batch["x"][1, 2] = np.nan
    assert not run(net, batch, mask=mask)["dx"][~mask].any()


def test_loss_and_training_do_not_see_padding():
    """The loss, its gradient and a trained model are the same when padding and its content change."""
    rng = np.random.default_rng(6)
    x, target = rng.normal(size=(6, 8, 2)), rng.normal(size=(6, 8, 1))
    mask = np.arange(8) < np.array([8, 3, 0, 5, 1, 6])[:, None]
    trained = []
    for rubbish, more in ((0.0, 0), (np.nan, 5)):
        x_padded, target_padded = (
            np.pad(np.where(mask[:, :, None], a, rubbish), ((0, 0), (0, more), (0, 0)), constant_values=rubbish)
            for a in (x, target))
        model = minilstm.Sequential(minilstm.LSTM(2, 4, dtype="float64"), minilstm.Linear(4, 1, dtype="float64"))
        mask_padded = np.pad(mask, ((0, 0), (0, more)))
        history = minilstm.fit(model, x_padded, target_padded, mask_padded, epochs=5, batch_size=2)
        trained.append(model.state_dict() | {"history": np.array(history)})
    for name in trained[0]:
        assert_close(trained[1][name], trained[0][name], "gradients by rounding", name)
