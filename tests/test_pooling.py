"""One output for a sequence: right under any mask, differentiated, in a model, in training, in a file."""
import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, part_of_constant, random_lstm, same_bits, trained
from minilstm import sequences

BACKENDS = ["reference", "cpu"]
HOWS = ["last", "first", "ends", "mean", "sum", "max"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", HOWS)
def test_it_is_what_its_name_says_of_the_real_steps(how, backend):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, 4))
    for mask in masks(rng, 5, 6).values():
        y, _ = minilstm.Pooling(how, dtype="float64", backend=backend).forward(x, mask)
        for b, row in enumerate(x):
            real = row if mask is None else row[mask[b]]
            expected = np.zeros(4)
            if len(real):
                expected = {"last": real[-1], "first": real[0], "ends": np.append(real[-1, :2], real[0, 2:]),
                            "mean": real.mean(axis=0), "sum": real.sum(axis=0), "max": real.max(axis=0)}[how]
            assert_close(y[b], expected, "same formulas, float64")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["none", "left", "holes", "empty row", "all empty"])
def test_gradients(kind, how, backend):
    rng = np.random.default_rng(1)
    layer = minilstm.Pooling(how, dtype="float64", backend=backend)
    methods = ("central", "projection") if how == "max" else ("complex step", "central", "projection")
    report = minilstm.check_gradients(layer, x=rng.normal(size=(4, 5, 6)), mask=masks(rng, 4, 5)[kind], methods=methods)
    assert report.ok, report


@pytest.mark.parametrize("how", HOWS)
def test_backends_agree_bit_for_bit_and_padding_changes_nothing(how):
    rng = np.random.default_rng(2)
    x, dy = rng.normal(size=(4, 5, 6)).astype("float32"), rng.normal(size=(4, 6)).astype("float32")
    mask = masks(rng, 4, 5)["holes"]
    dirty = np.pad(np.where(mask[:, :, None], x, np.float32(np.nan)), ((0, 0), (2, 3), (0, 0)),
                   constant_values=np.inf)
    found = []
    for backend in BACKENDS:
        layer = minilstm.Pooling(how, backend=backend)
        y, cache = layer.forward(x, mask)
        padded, padded_cache = layer.forward(dirty, np.pad(mask, ((0, 0), (2, 3))))
        assert same_bits(padded, y) and same_bits(layer.backward(padded_cache, dy)[:, 2:7], layer.backward(cache, dy))
        assert layer.forward(x, mask, cache=False)[1] is None
        found.append((y, layer.backward(cache, dy)))
    assert same_bits(found[0][0], found[1][0]) and same_bits(found[0][1], found[1][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ends_of_a_bidirectional_net_are_its_final_states(backend):
    """So is the last step of a forward net; but the last step of both halves is another thing."""
    rng = np.random.default_rng(3)
    net = random_lstm(rng, 3, 4, bidirectional=True, backend=backend)
    x, lengths = rng.normal(size=(5, 6, 3)).astype("float32"), [6, 1, 3, 0, 5]
    out, _ = net.forward(x, lengths=lengths)
    ends, _ = minilstm.Pooling("ends", backend=backend).forward(out.y, lengths=lengths)
    assert same_bits(ends, np.concatenate(list(out.h_n[0]), axis=1))
    last, _ = minilstm.Pooling("last", backend=backend).forward(out.y, lengths=lengths)
    assert same_bits(last[:, :4], ends[:, :4]) and np.abs(last[:, 4:] - ends[:, 4:]).max() > 0.01


def test_the_ends_of_a_bidirectional_net_learn_what_its_last_step_does_not():
    """The first of 20 to 40 numbers less the last: below 5 %, of the error of a constant.  At the last real step the
    half that walks from the end has read one number, and the other must keep one for all the way: more than 25 %."""
    rng = np.random.default_rng(6)

    def batch():
        several = [rng.standard_normal((length, 1)).astype("float32") for length in rng.integers(20, 41, 192)]
        x, mask = sequences.pad(several)
        x[~mask] = np.nan
        return x, mask, np.array([sequence[0] - sequence[-1] for sequence in several])

    (x, mask, target), (fresh, fresh_mask, fresh_target) = batch(), batch()
    error = {how: part_of_constant(trained(1, x, target, mask, how=how, epochs=12, bidirectional=True),
                                   fresh, fresh_target, fresh_mask) for how in ("ends", "last")}
    assert error["ends"] < 0.05 < 0.25 < error["last"]


def test_a_model_that_pools_learns_one_number_a_sequence_and_comes_back_from_a_file(tmp_path):
    """The mean of the real steps; the padding holds NaN, and a sequence without a step counts nowhere."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 9, 1)).astype("float32")
    mask = np.arange(9) < rng.integers(1, 10, 200)[:, None]
    mask[7] = False
    target = (np.where(mask[:, :, None], x, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)[:, None]).astype("float32")
    target[7] = np.nan
    x[~mask] = np.nan
    model = minilstm.Sequential(minilstm.LSTM(1, 8), minilstm.Pooling("mean"), minilstm.Linear(8, 1))
    assert model.pools and not minilstm.Sequential(minilstm.LSTM(1, 8)).pools
    losses = minilstm.fit(model, x, target, mask, epochs=60, optimizer=minilstm.Adam(0.02), progress=False)
    counted = np.delete(target, 7)
    assert losses[-1] < 0.05 * counted.var()
    minilstm.save(tmp_path / "model.safetensors", model)
    again = minilstm.load(tmp_path / "model.safetensors")
    assert same_bits(again.forward(x, mask)[0], model.forward(x, mask)[0])
    report = minilstm.check_gradients(model, x=np.where(mask[:3, :, None], x[:3], 0), mask=mask[:3])
    assert report.ok, report


def test_loss_mask_leaves_sequences_out():
    rng = np.random.default_rng(5)
    x, target = rng.normal(size=(6, 4, 2)).astype("float32"), rng.normal(size=(6, 1)).astype("float32")
    target[3:] = np.nan
    trained = []
    for some in (slice(None), slice(3)):
        model = minilstm.Sequential(minilstm.GRU(2, 3), minilstm.Pooling("last"), minilstm.Linear(3, 1))
        options = {"loss_mask": np.arange(6) < 3} if some == slice(None) else {}
        history = minilstm.fit(model, x[some], target[some], epochs=1, batch_size=6, progress=False, **options)
        trained.append(model.state_dict() | {"history": np.array(history)})
    for name in trained[0]:
        assert_close(trained[0][name], trained[1][name], "same formulas, float32", name)


@pytest.mark.parametrize("call, error, text", [
    (lambda: minilstm.Pooling("median"), ValueError, "how: expected one of 'last', 'first', .*, got 'median'"),
    (lambda: minilstm.Pooling("ends").forward(np.zeros((2, 3, 5), "float32")), ValueError, "even number of features"),
    (lambda: minilstm.Pooling("mean").forward(np.zeros((2, 3))), TypeError, r"x: expected float32 \(B, T, F\)"),
    (lambda: minilstm.Pooling("mean").backward([], np.zeros((2, 3))), TypeError, "cache: expected what forward"),
    (lambda: minilstm.Sequential(minilstm.Pooling("last"), minilstm.LSTM(2, 3)), ValueError,
     r"layers: expected layers without time behind one that pools, got \['LSTM'\]"),
    (lambda: minilstm.fit(minilstm.Sequential(minilstm.GRU(2, 3), minilstm.Pooling("last")), np.zeros((4, 5, 2)),
                          np.zeros((4, 5, 3)), epochs=1), ValueError, r"target: expected 2 axes, \(N,...\)"),
])
def test_what_does_not_fit_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_a_cache_of_another_kind_is_refused():
    x = np.ones((2, 3, 4), "float32")
    _, cache = minilstm.Pooling("max").forward(x)
    with pytest.raises(ValueError, match="cache: expected one of this layer, how='mean', got one of how='max'"):
        minilstm.Pooling("mean").backward(cache, x[:, 0])
    with pytest.raises(ValueError, match=r"dy: expected float32 \(2, 4\), as y is, got float32 \(2, 3\)"):
        minilstm.Pooling("max").backward(cache, x[:, 0, :3])
