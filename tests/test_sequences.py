"""From raw data to a batch: what padding, windows, features, batches and missing values keep, and what they refuse."""
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilstm
from helpers import assert_close, masks, random_layer, same_bits
from minilstm import sequences

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

BACKENDS = ["reference", "cpu"]
DTYPES = ["float32", "float64"]
NAN = np.nan

some_cases = settings(max_examples=150, deadline=None)
seeds = st.integers(0, 2**32)
sizes = st.integers(1, 5)


def ragged(rng, lengths, D, dtype):
    return [rng.normal(size=(length, D)).astype(dtype) for length in lengths]


def raises(error, words, function, *arguments, **options):
    """The exception has these words, each of them as it stands here."""
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    for word in [words] if isinstance(words, str) else words:
        assert re.search(re.escape(word), str(caught.value)), str(caught.value)


# ------------------------------------------------------------------------------------------------ padding, and its mask

@some_cases
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), D=sizes, more=st.integers(0, 3), seed=seeds,
       side=st.sampled_from(["left", "right"]), dtype=st.sampled_from(DTYPES), longest=st.booleans())
def test_unpad_gives_back_what_was_padded(lengths, D, more, seed, side, dtype, longest):
    """And the mask is the lengths' own, the made-up steps are 0, and the dtype stays."""
    many = ragged(np.random.default_rng(seed), lengths, D, dtype)
    x, mask = sequences.pad(many, side=side, length=None if longest else max(lengths) + more)
    assert x.dtype == dtype and x.shape == (len(many), max(lengths) + (0 if longest else more), D)
    assert mask.sum(axis=1).tolist() == lengths and not x[~mask].any()
    assert (np.diff(mask.astype(int), axis=1) * (1 if side == "left" else -1) >= 0).all()
    back = sequences.unpad(x, mask)
    assert len(back) == len(many) and all(same_bits(b, s) for b, s in zip(back, many))
    assert same_bits(mask, sequences.lengths_to_mask(lengths, x.shape[1], side=side))
    if side == "right":
        assert sequences.mask_to_lengths(mask).tolist() == lengths


def test_a_small_batch_by_hand():
    one, two = np.array([1.0, 2.0, 3.0]), np.array([4.0])
    right = sequences.pad([one, two, np.array([])], length=4)
    assert right.x[:, :, 0].tolist() == [[1, 2, 3, 0], [4, 0, 0, 0], [0, 0, 0, 0]] and right.x.shape == (3, 4, 1)
    assert right.mask.tolist() == [[True, True, True, False], [True, False, False, False], [False] * 4]
    left = sequences.pad([one, two], side="left")
    assert left.x[:, :, 0].tolist() == [[1, 2, 3], [0, 0, 4]]
    assert left.mask.tolist() == [[True, True, True], [False, False, True]]


def test_a_batch_has_arrays_of_its_own():
    one = np.ones((3, 1))
    for found in (sequences.pad([one]).x, sequences.truncate([one], 3, keep="start")[0],
                  sequences.truncate([one], 3, keep="end")[0], sequences.unpad(one[None], np.ones((1, 3), bool))[0]):
        assert found.flags.owndata and found.flags.writeable and not np.shares_memory(found, one)


def test_a_step_that_is_zero_stays_a_step():
    """Keras' Masking(0.) drops it: the mask is made from lengths here, not from the numbers."""
    many = [np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]]), np.zeros((2, 2))]
    x, mask = sequences.pad(many)
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert (x != 0).any(axis=2).tolist() == [[True, False, True], [False] * 3]      # what Masking(0.) would call real


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_model_for_20_steps_says_the_same_of_15_and_of_15_padded_to_20(kind, side, backend):
    """Bit for bit with the mask, and to rounding beside a longer sequence.  Without it the made-up steps are steps:
    those on the left move the outputs that follow, those on the right the last state."""
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, 1, 8, backend=backend)
    fifteen = rng.random((15, 1)).astype("float32")
    alone, _ = net.forward(fifteen[None])
    x, mask = sequences.pad([fifteen], side=side, length=20)
    padded, _ = net.forward(x, mask=mask)
    assert same_bits(padded.y[mask], alone.y[0]) and same_bits(padded.h_n, alone.h_n)
    blind, _ = net.forward(x)
    moved = blind.y[mask] - alone.y[0] if side == "left" else blind.h_n - alone.h_n
    assert np.abs(moved).max() > 0.05
    x, mask = sequences.pad([rng.random((20, 1)).astype("float32"), fifteen], side=side)
    beside, _ = net.forward(x, mask=mask)
    assert_close(beside.y[1, mask[1]], alone.y[0], "same formulas, float32")
    assert_close(beside.h_n[:, :, 1], alone.h_n[:, :, 0], "same formulas, float32")


def test_truncate_keeps_the_end_that_is_named():
    many = [np.arange(5), np.arange(2), np.arange(0), np.arange(6.0).reshape(3, 2)]
    start, end = (sequences.truncate(many, 2, keep=keep) for keep in ("start", "end"))
    assert [s.tolist() for s in start] == [[0, 1], [0, 1], [], [[0, 1], [2, 3]]]
    assert [s.tolist() for s in end] == [[3, 4], [0, 1], [], [[2, 3], [4, 5]]]
    assert [s.dtype for s in end] == [s.dtype for s in many]
    assert [len(s) for s in sequences.truncate(many, 0, keep="end")] == [0, 0, 0, 0]
    with pytest.raises(TypeError, match="keep"):
        sequences.truncate(many, 2)


def test_a_mask_that_no_length_can_say_is_refused_and_says_where():
    mask = np.array([[True, True, False, False], [True, False, True, False], [False, True, True, True]])
    raises(ValueError, ["got row 1, which has a hole at step 1", "pad(unpad(x, mask))"],
           sequences.mask_to_lengths, mask)
    raises(ValueError, ["got row 1, which is padded on the left", "Pass mask= instead"],
           sequences.mask_to_lengths, mask[[0, 2]])
    x = np.arange(24.0).reshape(3, 4, 2)
    assert sequences.mask_to_lengths(sequences.pad(sequences.unpad(x, mask)).mask).tolist() == [2, 2, 3]
    assert sequences.mask_to_lengths(np.zeros((2, 0), bool)).tolist() == [0, 0]
    assert sequences.lengths_to_mask([]).shape == (0, 0) and sequences.lengths_to_mask([0, 0]).shape == (2, 0)


floats = np.ones((5, 1))
PADDING_ERRORS = {
    "integers": (sequences.pad, ([floats, np.arange(3)],), {}, TypeError,
                 ["sequences[1]: expected float32 or float64, got int64 (3,)", ".astype('float32')"]),
    "half": (sequences.pad, ([floats.astype("float16")],), {}, TypeError, "sequences[0]: expected float32 or float64"),
    "byte order": (sequences.pad, ([floats.astype(">f4")],), {}, TypeError, "got >f4 (5, 1)"),
    "two dtypes": (sequences.pad, ([floats, floats.astype("float32")],), {}, TypeError,
                   ["sequences[1]: expected float64, as sequences[0] is, got float32", ".astype('float64')"]),
    "lists": (sequences.pad, ([floats, [1.0, 2.0]],), {}, TypeError,
              ["sequences[1]: expected a NumPy array, got list", "np.array(sequences[1], dtype='float32')"]),
    "masked array": (sequences.pad, ([np.ma.array([1.0], mask=[True])],), {}, TypeError,
                     "~np.ma.getmaskarray(sequences[0])"),
    "a batch": (sequences.pad, (np.ones((2, 3, 1)),), {}, TypeError, ["got float64 (2, 3, 1)", "is a batch already"]),
    "nothing": (sequences.pad, ([],), {}, ValueError, "sequences: expected one array or more"),
    "three axes": (sequences.pad, ([np.ones((1, 2, 3))],), {}, ValueError, "sequences[0]: expected (T,D) or (T,)"),
    "two widths": (sequences.pad, ([floats, np.ones((3, 2))],), {}, ValueError,
                   "sequences[1]: expected D=1 features a step, as sequences[0] has, got float64 (3, 2)"),
    "time last": (sequences.pad, ([np.ones((2, 5)), np.ones((2, 4))],), {}, ValueError, "pass each sequence's .T"),
    "too long": (sequences.pad, ([floats, floats[:2]],), {"length": 3}, ValueError,
                 ["sequences[0]: expected 3 steps or less", "got 5", "truncate(sequences, 3, keep='start')"]),
    "length": (sequences.pad, ([floats],), {"length": 5.5}, ValueError, "length: expected an integer"),
    "side": (sequences.pad, ([floats],), {"side": "post"}, ValueError, "side: expected one of 'right', 'left'"),
    "keep": (sequences.truncate, ([floats], 2), {"keep": "pre"}, ValueError, "keep: expected one of 'start', 'end'"),
    "no array to cut": (sequences.truncate, ([[1, 2, 3]], 2), {"keep": "end"}, TypeError, "sequences[0]: expected"),
    "no steps to cut": (sequences.truncate, ([np.array(1.0)], 2), {"keep": "end"}, ValueError, "(T,D) or (T,)"),
    "float lengths": (sequences.lengths_to_mask, ([1.0, 2.0],), {}, TypeError, "lengths: expected integers (B,)"),
    "bool lengths": (sequences.lengths_to_mask, ([True],), {}, TypeError, "lengths: expected integers (B,)"),
    "ragged lengths": (sequences.lengths_to_mask, ([[1], [1, 2]],), {}, ValueError, "rows of different lengths"),
    "one length": (sequences.lengths_to_mask, (3,), {}, ValueError, "lengths: expected one axis"),
    "negative length": (sequences.lengths_to_mask, ([1, -2],), {}, ValueError, "0 or more, got -2 in row 1"),
    "length over T": (sequences.lengths_to_mask, ([1, 5], 4), {}, ValueError, "from 0 to T=4, got 5 in row 1"),
    "no mask": (sequences.mask_to_lengths, (np.ones((2, 3)),), {}, TypeError, "mask: expected a bool array (B,T)"),
    "mask of another shape": (sequences.unpad, (np.ones((2, 3, 1)), np.ones((2, 4), bool)), {}, ValueError,
                              "mask: expected shape (B=2, T=3), as x has, got (2, 4)"),
    "mask with time first": (sequences.unpad, (np.ones((2, 3, 1)), np.ones((3, 2), bool)), {}, ValueError,
                             "swap_time_batch"),
    "two axes": (sequences.unpad, (np.ones((2, 3)), np.ones((2, 3), bool)), {}, ValueError,
                 ["x: expected three axes, (B,T,D), got float64 (2, 3)", "x[None]", "x[:, :, None]"]),
}


@pytest.mark.parametrize("name", PADDING_ERRORS)
def test_padding_says_why_not(name):
    function, arguments, options, error, words = PADDING_ERRORS[name]
    raises(error, words, function, *arguments, **options)


# ------------------------------------------------------------------------------------------------ what Keras does there

@pytest.fixture(scope="module")
def pad_sequences():
    os.environ["KERAS_BACKEND"] = "torch"           # read when Keras is imported
    reason = "comparison with Keras: it is not installed, with PyTorch as its backend (pip install -e '.[peers]')"
    pytest.importorskip("torch", reason=reason)
    return pytest.importorskip("keras", reason=reason).utils.pad_sequences


@pytest.mark.peers
def test_keras_pads_to_integers_and_loses_every_number_below_one(pad_sequences):
    """Its default dtype is int32: of 45 numbers from 0 to 1 none survives.  Ours are kept bit for bit."""
    rng = np.random.default_rng(1)
    many = [rng.random((length, 1)) for length in (15, 20, 10)]
    theirs = pad_sequences(many, maxlen=20, padding="post")
    assert theirs.dtype == np.int32 and not theirs.any() and sum(np.count_nonzero(s) for s in many) == 45
    ours = sequences.pad(many, length=20)
    assert all(same_bits(ours.x[b, :len(s)], s) for b, s in enumerate(many))
    assert np.array_equal(ours.x, pad_sequences(many, maxlen=20, padding="post", dtype="float64"))
    assert np.array_equal(sequences.pad(many, side="left").x, pad_sequences(many, dtype="float64"))


@pytest.mark.peers
def test_keras_cuts_off_the_beginning_unless_told_otherwise(pad_sequences):
    assert pad_sequences([[1, 2, 3]], maxlen=2).tolist() == [[2, 3]]
    series = [np.array([1.0, 2.0, 3.0])]
    raises(ValueError, "truncate", sequences.pad, series, length=2)
    for keep, truncating, expected in (("end", "pre", [2, 3]), ("start", "post", [1, 2])):
        ours = sequences.pad(sequences.truncate(series, 2, keep=keep)).x[:, :, 0]
        assert ours.tolist() == [expected] == pad_sequences(series, 2, truncating=truncating).tolist()


# -------------------------------------------------------------------------------------------------------------- windows

@some_cases
@given(T=st.lists(st.integers(8, 15), min_size=1, max_size=3), D=sizes, F=sizes, length=st.integers(1, 4),
       horizon=st.one_of(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=3)),
       stride=st.integers(1, 4), own=st.booleans(), seed=seeds, dtype=st.sampled_from(DTYPES))
def test_windows_and_targets_are_where_their_indices_say(T, D, F, length, horizon, stride, own, seed, dtype):
    """And all that fit are there, each in one series only."""
    rng = np.random.default_rng(seed)
    series = ragged(rng, T, D, dtype)
    target = [rng.integers(0, 99, (t, F)) for t in T] if own else None
    found = sequences.window(series, length, horizon=horizon, stride=stride, target=target)
    expected = [(s, first) for s, t in enumerate(T) for first in range(0, t, stride)
                if first + length - 1 + np.max(horizon) < t]
    assert list(zip(found.series, found.first)) == expected
    of = target or series
    for n, (s, first) in enumerate(expected):
        assert found.last[n] == first + length - 1
        assert same_bits(found.x[n], series[s][first:found.last[n] + 1])
        assert np.array_equal(found.target_step[n], found.last[n] + np.array(horizon))
        assert same_bits(found.target[n], of[s][found.target_step[n]])
    assert found.x.shape == (len(expected), length, D) and found.x.dtype == dtype
    assert found.target.shape == (len(expected), *np.shape(horizon), F if own else D)


def test_windows_of_a_short_series_by_hand():
    w = sequences.window(np.arange(7.0), 3, horizon=2)
    assert w.x[:, :, 0].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]] and w.target[:, 0].tolist() == [4, 5, 6]
    assert (w.first.tolist(), w.last.tolist(), w.target_step.tolist()) == ([0, 1, 2], [2, 3, 4], [4, 5, 6])
    several = sequences.window(np.arange(7.0), 3, horizon=range(1, 4))
    assert several.target[:, :, 0].tolist() == [[3, 4, 5], [4, 5, 6]]
    exactly = sequences.window(np.arange(4.0), 3)
    assert exactly.target.tolist() == [[3]]
    x, target, *_ = sequences.window(np.arange(5.0), 2, horizon=0, target=np.arange(5) * 10)
    assert target[:, 0].tolist() == [10, 20, 30, 40] and target.dtype == np.int64 and x[0, :, 0].tolist() == [0, 1]


def test_a_target_at_every_step_by_the_indices():
    series = np.arange(9.0)[:, None]
    w = sequences.window(series, 4, horizon=2)
    every = series[w.first[:, None] + np.arange(4) + 2]
    assert np.array_equal(every, w.x + 2) and np.array_equal(every[:, -1], w.target)


def test_targets_by_the_rule_of_keras_are_steps_of_the_input():
    """There targets[i] belongs to the window that starts at i.  With the series itself as targets the network is asked
    for what it was just told; the target of ours comes after the window."""
    series, length = np.arange(8.0), 3
    w = sequences.window(series, length)
    by_start = series[w.first]
    assert np.array_equal(by_start, w.x[:, 0, 0])
    assert np.array_equal(w.target[:, 0], w.x[:, -1, 0] + 1)
    assert np.array_equal(series[length:][w.first], w.target[:, 0])         # how its users have to shift the targets


WINDOW_ERRORS = {
    "too short": ((np.ones(5), 4), {"horizon": 2}, ValueError,
                  "series: expected 6 steps or more, for a window of 4 and a target 2 after it, got 5"),
    "one too short": (([np.ones(9), np.ones(3)], 3), {}, ValueError, "series[1]: expected 4 steps or more"),
    "integers": ((np.arange(9), 3), {}, TypeError, ["series: expected float32 or float64", "series.astype('float32')"]),
    "a batch": ((np.ones((2, 9, 1)), 3), {}, ValueError, "series: expected (T,D) or (T,), got float64 (2, 9, 1)"),
    "no series": (([], 3), {}, ValueError, "series: expected one array or more"),
    "a list of numbers": (([1.0, 2.0, 3.0], 2), {}, TypeError, "series[0]: expected a NumPy array, got float"),
    "length": ((np.ones(5), 0), {}, ValueError, "length: expected a positive integer"),
    "stride": ((np.ones(5), 2), {"stride": 0}, ValueError, "stride: expected a positive integer"),
    "the input as target": ((np.ones(5), 2), {"horizon": 0}, ValueError, "the window's own last step"),
    "horizon": ((np.ones(5), 2), {"horizon": 1.5}, ValueError, "horizon: expected an integer, 0 or more, got 1.5"),
    "before the window": ((np.ones(5), 2), {"horizon": [1, -1]}, ValueError, "horizon: expected an integer, 0 or more"),
    "no horizon": ((np.ones(5), 2), {"horizon": []}, ValueError, "horizon: expected an integer or several, got none"),
    "length of target": ((np.ones(5), 2), {"target": np.ones(4)}, ValueError,
                         "target: expected (T,F) or (T,) with T=5, as series has, got float64 (4,)"),
    "number of targets": (([np.ones(5), np.ones(6)], 2), {"target": [np.ones(5)]}, ValueError, "expected 2 arrays"),
    "kind of target": ((np.ones(5), 2), {"target": [1, 2, 3, 4, 5]}, TypeError, "target: expected a NumPy array"),
    "two kinds of target": (([np.ones(5), np.ones(6)], 2), {"target": [np.ones(5), np.ones(6, int)]}, ValueError,
                            "target[1]: expected the dtype and F of target[0], float64 (5,), got int64 (6,)"),
}


@pytest.mark.parametrize("name", WINDOW_ERRORS)
def test_windows_say_why_not(name):
    arguments, options, error, words = WINDOW_ERRORS[name]
    raises(error, words, sequences.window, *arguments, **options)


# ------------------------------------------------------------------------------------------------------------- features

@pytest.mark.parametrize("B, T", [(4, 3), (3, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_features_join_in_the_order_given_and_static_ones_at_every_step(B, T, dtype):
    rng = np.random.default_rng(2)
    x, one, two = (rng.normal(size=(B, T, F)).astype(dtype) for F in (2, 1, 3))
    static = rng.normal(size=(B, 2)).astype(dtype)
    found = sequences.add_features(x, one, two, static=static)
    assert found.dtype == dtype and same_bits(found[:, :, :6], np.concatenate([x, one, two], axis=2))
    assert all(same_bits(found[:, t, 6:], static) for t in range(T))
    alone = sequences.add_features(x)
    assert same_bits(alone, x) and not np.shares_memory(alone, x)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_new_feature_with_input_weights_0_changes_no_bit(dtype, backend):
    """The network of one feature is the network of two whose second column of input weights is 0."""
    rng = np.random.default_rng(3)
    one, two = (minilstm.LSTM(D, 6, dtype=dtype, backend=backend) for D in (1, 2))
    weights = {name: rng.normal(size=p.shape).astype(dtype) for name, p in one.params.items()}
    column = np.zeros((24, 1), dtype)
    for name, p in weights.items():
        one.params[name] = p
        two.params[name] = np.concatenate([p, column], axis=1) if name == "weight_ih_l0" else p
    x, new = rng.normal(size=(2, 5, 20, 1)).astype(dtype)
    y = one.forward(x)[0].y
    assert same_bits(two.forward(sequences.add_features(x, new))[0].y, y)
    two.params["weight_ih_l0"] = np.concatenate([weights["weight_ih_l0"], column + 1], axis=1)
    assert not same_bits(two.forward(sequences.add_features(x, new))[0].y, y)
    with pytest.raises(ValueError, match=r"x: expected .*D=2.*got .*\(5, 20, 1\)"):
        two.forward(x)


def test_reshape_mixes_sequences_and_swap_time_batch_does_not():
    """Two sequences of three steps, 10 20 30 and 11 21 31, time first."""
    x = np.array([[10, 11], [20, 21], [30, 31]])[:, :, None]
    swapped, reshaped = sequences.swap_time_batch(x), x.reshape(2, 3, 1)
    assert swapped[:, :, 0].tolist() == [[10, 20, 30], [11, 21, 31]]
    assert reshaped[:, :, 0].tolist() == [[10, 11, 20], [21, 30, 31]] and reshaped.shape == swapped.shape
    assert same_bits(sequences.swap_time_batch(swapped), x) and swapped.flags.c_contiguous
    mask = np.array([[True, True], [True, False], [True, False]])
    assert sequences.swap_time_batch(mask).tolist() == [[True] * 3, [True, False, False]]
    assert not np.shares_memory(sequences.swap_time_batch(x[:1]), x)


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_reshape_one_sequence_moves_the_output_of_another(backend):
    rng = np.random.default_rng(4)
    net = random_layer(rng, "LSTM", 2, 4, backend=backend)
    time_first = rng.normal(size=(7, 3, 2)).astype("float32")
    changed = time_first.copy()
    changed[:, 0] += 1                                                  # sequence 0 and no other
    for to_batch_first, others in ((sequences.swap_time_batch, False), (lambda x: x.reshape(3, 7, 2), True)):
        before, after = (net.forward(to_batch_first(x))[0].y for x in (time_first, changed))
        assert not same_bits(before[0], after[0]) and (not same_bits(before[1:], after[1:])) == others


x_5_4 = np.ones((5, 4, 2))
FEATURE_ERRORS = {
    "dtype": ((x_5_4, np.ones((5, 4, 1), "float32")), {}, TypeError,
              ["features[0]: expected float64, as x has, got float32 (5, 4, 1)", ".astype('float64')"]),
    "integers": ((x_5_4, np.ones((5, 4, 1), int)), {}, TypeError, "features[0]: expected float32 or float64"),
    "two axes": ((x_5_4, x_5_4, np.ones((5, 4))), {}, ValueError,
                 ["features[1]: expected (B=5, T=4, F), got float64 (5, 4)", "[:, :, None]", "static="]),
    "static without its name": ((x_5_4, np.ones((5, 1))), {}, ValueError, "static= takes what holds for a whole"),
    "time first": ((x_5_4, np.ones((4, 5, 1))), {}, ValueError, "swap_time_batch"),
    "another T": ((x_5_4, np.ones((5, 3, 1))), {}, ValueError, "features[0]: expected (B=5, T=4, F)"),
    "one of all": ((x_5_4, np.ones((1, 4, 1))), {}, ValueError, "features[0]: expected (B=5, T=4, F)"),
    "static by step": ((x_5_4,), {"static": np.ones((5, 4, 1))}, ValueError, "static: expected (B=5, F)"),
    "static number": ((x_5_4,), {"static": np.ones(5)}, ValueError, "static[:, None]"),
    "static of another B": ((x_5_4,), {"static": np.ones((4, 1))}, ValueError, "static: expected (B=5, F)"),
    "static dtype": ((x_5_4,), {"static": np.ones((5, 1), "float32")}, TypeError, "static: expected float64"),
    "x": ((np.ones((5, 4)),), {}, ValueError, "x: expected three axes"),
}


@pytest.mark.parametrize("name", FEATURE_ERRORS)
def test_features_say_why_not(name):
    arguments, options, error, words = FEATURE_ERRORS[name]
    raises(error, words, sequences.add_features, *arguments, **options)


def test_swap_says_why_not():
    raises(ValueError, "x: expected two axes or more", sequences.swap_time_batch, np.ones(3))
    raises(TypeError, "x: expected a NumPy array, got list", sequences.swap_time_batch, [[1.0]])


# -------------------------------------------------------------------------------------------------------------- batches

@some_cases
@given(n=st.integers(0, 30), batch_size=st.integers(1, 8), seed=st.one_of(st.none(), seeds), by_length=st.booleans(),
       other_seed=seeds)
def test_every_sequence_is_in_one_batch(n, batch_size, seed, by_length, other_seed):
    """Same seed, same batches; neighbours by length never overlap in length, and so pad the least."""
    lengths = np.random.default_rng(other_seed).integers(0, 10, n)
    options = {"seed": seed, "lengths": lengths if by_length else None}
    found = sequences.batches(n, batch_size, **options)
    assert np.array_equal(np.sort(np.concatenate([*found, []])), np.arange(n))
    size = sorted(len(batch) for batch in found)
    assert size[1:] == [batch_size] * (len(found) - 1) and all(1 <= s <= batch_size for s in size)
    again = sequences.batches(n, batch_size, **options)
    assert len(again) == len(found) and all(same_bits(a, b) for a, b in zip(again, found))
    if by_length:
        ranges = sorted((lengths[batch].min(), lengths[batch].max()) for batch in found)
        assert all(shorter[1] <= longer[0] for shorter, longer in zip(ranges, ranges[1:]))
        assert seed is not None or [lengths[b].max() for b in found] == sorted(lengths[b].max() for b in found)
        if n % batch_size == 0:
            shuffled = sequences.batches(n, batch_size, seed=other_seed)
            assert sequences.padding_share(lengths, found) <= sequences.padding_share(lengths, shuffled)
    elif seed is None and n:
        assert np.array_equal(np.concatenate(found), np.arange(n))


def test_another_seed_gives_other_batches_and_a_generator_goes_on():
    lengths = np.arange(60) // 2
    for options in ({}, {"lengths": lengths}):
        found = [[b.tolist() for b in sequences.batches(60, 8, seed=seed, **options)] for seed in (0, 1)]
        assert found[0] != found[1]
        rng = np.random.default_rng(0)
        first, second = ([b.tolist() for b in sequences.batches(60, 8, seed=rng, **options)] for _ in range(2))
        assert first == found[0] and first != second
    tops = [lengths[b].max() for b in sequences.batches(60, 8, seed=0, lengths=lengths)]
    assert tops != sorted(tops)


def test_a_generator_draws_the_order_in_which_fit_takes_the_sequences():
    order = np.random.default_rng(5).permutation(10)
    found = sequences.batches(10, 4, seed=np.random.default_rng(5))
    assert np.array_equal(np.concatenate(found), order) and [len(b) for b in found] == [4, 4, 2]


def test_neighbours_by_length_need_little_padding():
    """1000 sequences of 1 to 200 steps in batches of 32: nearly half is padding, and next to nothing when sorted."""
    lengths = np.random.default_rng(6).integers(1, 201, 1000)
    shuffled = sequences.padding_share(lengths, sequences.batches(1000, 32, seed=0))
    together = sequences.padding_share(lengths, sequences.batches(1000, 32, seed=0, lengths=lengths))
    assert shuffled > 0.44 and 0 < together < 0.03
    assert sequences.padding_share([3, 1], [np.array([0, 1])]) == 1 - 4 / 6
    assert sequences.padding_share([3, 1], [np.array([0]), np.array([1])]) == 0
    assert sequences.padding_share([0, 0], [np.array([0, 1])]) == sequences.padding_share([], []) == 0


BATCH_ERRORS = {
    "n": (sequences.batches, (-1, 2), {}, ValueError, "n: expected an integer, 0 or more"),
    "batch_size": (sequences.batches, (3, 0), {}, ValueError, "batch_size: expected a positive integer"),
    "seed": (sequences.batches, (3, 2), {"seed": "a"}, ValueError, "seed: expected an integer"),
    "lengths": (sequences.batches, (3, 2), {"lengths": [1, 2]}, ValueError, "lengths: expected shape (n=3,), got (2,)"),
    "float lengths": (sequences.batches, (1, 2), {"lengths": [1.5]}, TypeError, "lengths: expected integers"),
    "a list as a batch": (sequences.padding_share, ([1, 2], [[0, 1]]), {}, TypeError, "batches[0]: expected integers"),
    "mask as a batch": (sequences.padding_share, ([1, 2], [np.array([True])]), {}, TypeError, "got bool (1,)"),
    "index": (sequences.padding_share, ([1, 2], [np.array([0, 2])]), {}, ValueError, "from 0 to 1, got 0 to 2"),
    "below 0": (sequences.padding_share, ([1, 2], [np.array([-1])]), {}, ValueError, "from 0 to 1, got -1 to -1"),
}


@pytest.mark.parametrize("name", BATCH_ERRORS)
def test_batches_say_why_not(name):
    function, arguments, options, error, words = BATCH_ERRORS[name]
    raises(error, words, function, *arguments, **options)


# ------------------------------------------------------------------------------------------------------- missing values

gappy_cases = given(B=sizes, T=st.integers(0, 7), D=sizes, seed=seeds, dtype=st.sampled_from(DTYPES), data=st.data(),
                    rubbish=st.sampled_from([NAN, np.inf, -np.inf, 1e30]))


def gappy(B, T, D, seed, dtype, data, rubbish):
    """x with rubbish wherever nothing was measured, or the step is masked; observed; mask or None."""
    rng = np.random.default_rng(seed)
    mask = data.draw(st.sampled_from(list(masks(rng, B, T).values()))) if T else np.ones((B, 0), bool)
    observed = rng.random((B, T, D)) < data.draw(st.sampled_from([0.0, 0.4, 1.0]))
    real = np.ones((B, T), bool) if mask is None else mask
    x = np.where(observed & real[:, :, None], rng.normal(size=(B, T, D)), rubbish).astype(dtype)
    return x, observed, mask, real


def filled_slowly(x, observed, real, filling):
    """Step by step.  filling (D,) stands for what was not seen; None: the last value seen, 0.5 before the first."""
    B, T, D = x.shape
    found = np.zeros_like(x)
    for b in range(B):
        for d in range(D):
            last = 0.5
            for t in np.flatnonzero(real[b]):
                if observed[b, t, d]:
                    last = x[b, t, d]
                found[b, t, d] = last if filling is None or observed[b, t, d] else filling[d]
    return found


@some_cases
@gappy_cases
def test_filling_is_what_the_slow_loop_says_and_reads_no_rubbish(B, T, D, seed, dtype, data, rubbish):
    x, observed, mask, real = gappy(B, T, D, seed, dtype, data, rubbish)
    before = x.copy()
    mean = np.arange(1, D + 1).astype(dtype)
    for filled, filling in ((sequences.fill_zero(x, observed, mask), np.zeros(D)),
                            (sequences.fill_mean(x, observed, mean, mask), mean)):
        assert same_bits(filled, filled_slowly(x, observed, real, filling))
    forward = filled_slowly(x, observed, real, None)
    assert same_bits(sequences.fill_forward(x, observed, mask, start=0.5), forward)
    assert same_bits(sequences.fill_forward(x, observed, mask, start=np.full(D, 0.5, dtype)), forward)
    both = sequences.add_indicators(forward, observed, mask)
    seen = observed & real[:, :, None]
    assert same_bits(both, np.concatenate([forward, seen.astype(dtype)], axis=2))
    found = sequences.observed_mean(x, observed, mask)
    assert found.dtype == dtype and same_bits(x, before)
    for d in range(D):
        values = x[:, :, d][seen[:, :, d]].astype("float64")
        assert np.isclose(found[d], values.mean() if len(values) else 0, rtol=1e-6, atol=1e-7)


def since_seen_slowly(observed, real, times):
    """Che et al. 2018, from step to step: s the times, m = 1 for observed; only real steps count as steps."""
    B, T, D = observed.shape
    delta = np.zeros((B, T, D))
    for b in range(B):
        steps = np.flatnonzero(real[b])
        for before, t in zip(steps, steps[1:]):
            for d in range(D):
                passed = times[b, t] - times[b, before]
                delta[b, t, d] = passed if observed[b, before, d] else passed + delta[b, before, d]
    return delta


@some_cases
@gappy_cases
def test_time_since_seen_is_the_recursion_of_the_paper(B, T, D, seed, dtype, data, rubbish):
    _, observed, mask, real = gappy(B, T, D, seed, dtype, data, rubbish)
    counted = np.cumsum(real, axis=1)
    steps = sequences.time_since_seen(observed, mask)
    assert steps.dtype == np.float32 and np.array_equal(steps, since_seen_slowly(observed, real, counted))
    exact = np.cumsum(np.random.default_rng(seed).integers(0, 64, (B, T)), axis=1) / 8      # sums without rounding
    times = np.where(real, exact, rubbish).astype(dtype)
    delta = sequences.time_since_seen(observed, mask, times)
    assert delta.dtype == dtype and np.array_equal(delta, since_seen_slowly(observed, real, exact))


def test_time_since_seen_by_hand():
    """The example that papers draw: measured at 0, 2 and 5 of six times that are not one unit apart."""
    times = np.array([[0.0, 0.1, 0.6, 1.6, 2.2, 2.5]])
    observed = np.array([True, False, True, False, False, True]).reshape(1, 6, 1)
    delta = sequences.time_since_seen(observed, times=times)
    assert np.allclose(delta[0, :, 0], [0, 0.1, 0.6, 1.0, 1.6, 1.9], rtol=1e-15)
    assert sequences.time_since_seen(observed)[0, :, 0].tolist() == [0, 1, 2, 1, 2, 3]
    mask = np.array([[False, True, True, False, True, True]])                   # the first measurement is masked
    assert sequences.time_since_seen(observed, mask)[0, :, 0].tolist() == [0, 0, 1, 0, 1, 2]
    assert np.allclose(sequences.time_since_seen(observed, mask, times)[0, :, 0], [0, 0, 0.5, 0, 1.6, 1.9])


def test_differences_of_large_times_are_taken_before_they_are_rounded():
    """Seconds since 1970: in float32 they are 128 s apart."""
    times = 1.7e9 + np.array([[0.0, 1.0, 3.0]])
    delta = sequences.time_since_seen(np.ones((1, 3, 1), bool), times=times, dtype="float32")
    assert delta.dtype == np.float32 and delta[0, :, 0].tolist() == [0, 1, 2]


def test_missing_is_nan_and_zero_is_a_reading():
    x = np.array([[[0.0, NAN], [NAN, 2.0], [0.0, 0.0]]])
    observed = sequences.observed_of(x)
    assert observed.tolist() == [[[True, False], [False, True], [True, True]]]
    assert sequences.observed_mean(x, observed).tolist() == [0, 1]
    mask = np.array([[True, True, False]])                                      # the zeros of padding are not measured
    assert sequences.observed_mean(x, observed, mask).tolist() == [0, 2]
    assert sequences.add_indicators(np.nan_to_num(x), observed, mask)[0, 2].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_indicator_tells_a_missing_value_from_a_measured_zero(backend):
    """Two rows alike, but for one 0 that in row 1 was not measured.  Multiplying by observed, or filling with 0, makes
    them one; with indicators the network sees two.  And NaN times 0 is NaN: multiplying spoils the row."""
    rng = np.random.default_rng(7)
    x = np.repeat(rng.normal(size=(1, 8, 3)).astype("float32"), 2, axis=0)
    x[:, 4, 1] = 0
    observed = np.ones((2, 8, 3), bool)
    observed[1, 4, 1] = False
    assert same_bits(x * observed, x)                                           # multiplying does nothing at all
    plain, twice = (random_layer(rng, "LSTM", D, 5, backend=backend) for D in (3, 6))
    filled = sequences.fill_zero(x, observed)
    y = plain.forward(filled)[0].y
    assert same_bits(y[0], y[1])
    told = twice.forward(sequences.add_indicators(filled, observed))[0].y
    assert np.abs(told[0, 4:] - told[1, 4:]).max() > 1e-3 and same_bits(told[0, :4], told[1, :4])
    x[1, 4, 1] = NAN
    assert np.isnan(plain.forward(x * observed)[0].y[1, 4:]).all()
    assert same_bits(twice.forward(sequences.add_indicators(sequences.fill_zero(x, observed), observed))[0].y, told)


seen_5_4 = np.ones((5, 4, 2), bool)
hole = x_5_4.copy()
hole[3, 1, 0] = NAN
MISSING_ERRORS = {
    "NaN though observed": (sequences.fill_zero, (hole, seen_5_4), {}, ValueError,
                            ["x: expected a number wherever observed is True", "got NaN in row 3, step 1, feature 0",
                             "observed_of(x)"]),
    "mean of NaN": (sequences.observed_mean, (hole, seen_5_4), {}, ValueError, "x: expected a number wherever"),
    "not filled": (sequences.add_indicators, (hole, seen_5_4), {}, ValueError,
                   ["x_filled: expected a number at every real step, got NaN in row 3", "fill_forward"]),
    "observed as numbers": (sequences.fill_zero, (x_5_4, seen_5_4.astype(int)), {}, TypeError,
                            ["observed: expected a bool array (5, 4, 2)", "np.array(observed, dtype=bool)"]),
    "observed by step": (sequences.fill_forward, (x_5_4, seen_5_4[:, :, 0]), {}, ValueError,
                         ["observed: expected shape (5, 4, 2), got (5, 4)", "pass it as mask="]),
    "mask": (sequences.fill_zero, (x_5_4, seen_5_4, np.ones((5, 3), bool)), {}, ValueError, "mask: expected shape"),
    "masked array": (sequences.fill_zero, (np.ma.array(x_5_4), seen_5_4), {}, TypeError, "~np.ma.getmaskarray(x)"),
    "integers": (sequences.observed_of, (np.ones((5, 4, 2), int),), {}, TypeError, "x: expected float32 or float64"),
    "two axes": (sequences.observed_of, (np.ones((5, 4)),), {}, ValueError, "x: expected three axes"),
    "shape of mean": (sequences.fill_mean, (x_5_4, seen_5_4, np.ones(3)), {}, ValueError,
                      "mean: expected shape (D=2,), one number for each feature, got (3,)"),
    "dtype of mean": (sequences.fill_mean, (x_5_4, seen_5_4, np.ones(2, "float32")), {}, TypeError,
                      "mean: expected float64, as x has"),
    "NaN as mean": (sequences.fill_mean, (x_5_4, seen_5_4, np.array([0, NAN])), {}, ValueError,
                    "mean: expected finite numbers, got nan for feature 1"),
    "NaN as start": (sequences.fill_forward, (x_5_4, seen_5_4), {"start": NAN}, ValueError, "start: expected finite"),
    "list as start": (sequences.fill_forward, (x_5_4, seen_5_4), {"start": [0, 0]}, TypeError,
                      "start: expected a NumPy array, got list"),
    "shape of times": (sequences.time_since_seen, (seen_5_4,), {"times": np.ones(4)}, ValueError,
                       "times: expected shape (B=5, T=4), got (4,)"),
    "falling times": (sequences.time_since_seen, (seen_5_4[:2, :2],), {"times": np.array([[0.0, 1], [1, 0]])},
                      ValueError, "times: expected finite numbers that never fall, got others in row 1"),
    "NaN in times": (sequences.time_since_seen, (seen_5_4[:1, :2],), {"times": np.array([[NAN, 1]])}, ValueError,
                     "times: expected finite numbers that never fall, got others in row 0"),
    "dates": (sequences.time_since_seen, (seen_5_4,), {"times": np.zeros((5, 4), "datetime64[s]")}, TypeError,
              "np.timedelta64(1, 's') are seconds"),
    "whole numbers as times": (sequences.time_since_seen, (seen_5_4,), {"times": np.zeros((5, 4), int)}, TypeError,
                               "times: expected float32 or float64"),
    "dtype": (sequences.time_since_seen, (seen_5_4,), {"dtype": "int32"}, ValueError, "dtype: expected one of"),
    "not by feature": (sequences.time_since_seen, (seen_5_4[:, :, 0],), {}, TypeError, "bool array (B,T,D)"),
}


@pytest.mark.parametrize("name", MISSING_ERRORS)
def test_missing_values_say_why_not(name):
    function, arguments, options, error, words = MISSING_ERRORS[name]
    raises(error, words, function, *arguments, **options)


@some_cases
@gappy_cases
def test_from_gappy_sequences_of_different_lengths_to_a_batch_without_rubbish(B, T, D, seed, dtype, data, rubbish):
    """The whole way: pad, fill, indicators and time since seen.  Each row is what it would be alone."""
    rng = np.random.default_rng(seed)
    many = [np.where(rng.random((length, D)) < 0.5, NAN, rng.normal(size=(length, D))).astype(dtype)
            for length in rng.integers(0, T + 1, B)]

    def features(x, mask):
        observed = sequences.observed_of(x)
        both = sequences.add_indicators(sequences.fill_forward(x, observed, mask), observed, mask)
        return sequences.add_features(both, sequences.time_since_seen(observed, mask, dtype=dtype))

    side = data.draw(st.sampled_from(["left", "right"]))
    x, mask = sequences.pad(many, side=side, length=T)
    rows = sequences.unpad(features(np.where(mask[:, :, None], x, x.dtype.type(rubbish)), mask), mask)
    for row, sequence in zip(rows, many):
        assert same_bits(row, features(*sequences.pad([sequence]))[0]) and np.isfinite(row).all()
