"""Truncated backpropagation through time: the gradients that its definition names, in the memory of k2 steps."""
import tracemalloc

import numpy as np
import pytest

import minilstm
from helpers import assert_close, random_layer, same_bits
from minilstm.machine import buffers
from minilstm.training import truncated_bptt
from test_segments import gradients_of

B, T, D, F = 4, 11, 3, 2


def model_of(rng, kind="LSTM", **options):
    options = {"dtype": "float64"} | options
    head = minilstm.Linear(4, F, **options)
    head.params["bias"] = rng.normal(size=F).astype(head.dtype)
    return minilstm.Sequential(random_layer(rng, kind, D, 4, **options), head)


def data(rng, T=T):
    return rng.normal(size=(B, T, D)), rng.normal(size=(B, T, F))


def masks(rng):
    """mask, loss_mask: steps that are no steps, a row without any, and a stretch of time in which nothing counts."""
    mask, loss_mask = rng.random((B, T)) < 0.7, np.ones((B, T), bool)
    mask[2] = False
    loss_mask[:, 4:8] = False
    return [(None, None), (mask, None), (None, loss_mask), (mask, loss_mask)]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("k1, k2", [(1, 11), (2, 11), (3, 12), (4, 13), (11, 11), (20, 30)])
def test_through_all_steps_it_is_the_full_gradient(k1, k2, backend):
    rng = np.random.default_rng(0)
    model, (x, target) = model_of(rng, backend=backend), data(rng)
    for mask, loss_mask in masks(rng):
        counts = np.ones((B, T), bool) if mask is None else mask
        counts = counts if loss_mask is None else counts & loss_mask
        y, cache = model.forward(x, mask)
        loss, dy = minilstm.mean_squared_error(y, target, counts)
        model.zero_grads()
        model.backward(cache, dy)
        expected = gradients_of(model)
        model.zero_grads()
        found = truncated_bptt(model, x, target, mask, k1=k1, k2=k2, loss_mask=loss_mask)
        assert abs(found.loss - loss) < 1e-14
        for name, g in gradients_of(model).items():
            assert_close(g, expected[name], "gradients by rounding", name)
            assert np.abs(g).max() > 0


def by_definition(model, x, target, k1, k2):
    """Williams and Peng, word for word: after every k1 steps, a forward pass through the last k2 from a state that is a
    constant, and the gradient of the errors in the last k1 of them -> dict of gradients."""
    net, head = model.layers
    model.zero_grads()
    for end in [*range(k1, T, k1), T]:
        begin, chunk = max(0, end - k2), (end - 1) // k1 * k1
        before, _ = net.forward(x[:, :begin], cache=False)
        out, net_cache = net.forward(x[:, begin:end], h0=before.h_n, **({"c0": before.c_n} if len(before) > 2 else {}))
        y, head_cache = head.forward(out.y)
        dy = np.zeros_like(y)
        dy[:, chunk - begin:] = 2 * (y - target[:, begin:end])[:, chunk - begin:] / target.size
        net.backward(net_cache, head.backward(head_cache, dy))
    return gradients_of(model)


@pytest.mark.parametrize("kind", ["LSTM", "GRU, reset before", "LSTM, projection"])
@pytest.mark.parametrize("k1, k2", [(1, 1), (1, 4), (2, 4), (2, 7), (3, 3), (3, 5), (4, 7), (5, 6), (6, 10), (11, 11)])
def test_truncated_it_is_what_its_definition_says(k1, k2, kind):
    rng = np.random.default_rng(1)
    model, (x, target) = model_of(rng, "LSTM"), data(rng)
    if kind != "LSTM":
        net = random_layer(rng, kind, D, 4, dtype="float64")
        model = minilstm.Sequential(net, minilstm.Linear(net.output_size, F, dtype="float64"))
    expected, full = by_definition(model, x, target, k1, k2), by_definition(model, x, target, 11, 11)
    model.zero_grads()
    truncated_bptt(model, x, target, k1=k1, k2=k2)
    for name, g in gradients_of(model).items():
        assert_close(g, expected[name], "gradients by rounding", name)
    shown = np.abs(expected["0.weight_ih_l0"] - full["0.weight_ih_l0"]).max()
    assert (shown > 1e-6) == (k2 < T), "truncation must show"


def test_what_is_computed_again_needs_the_weights_that_it_was_computed_with():
    rng = np.random.default_rng(12)
    net, (x, target) = model_of(rng), data(rng)
    model = minilstm.Sequential(minilstm.layers.Checkpointed(net))
    before = model.state_dict()
    for k1 in (3, 5):
        with pytest.raises(ValueError, match=f"k1, k2: expected k1 = k2.* in it, got {k1} and 5, and T=11"):
            truncated_bptt(model, x, target, k1=k1, k2=5, optimizer=minilstm.SGD(0.1))
        assert all(same_bits(p, before[name]) for name, p in model.state_dict().items())
    truncated_bptt(model, x, target, k1=3, k2=5)
    truncated_bptt(model, x[:, :3], target[:, :3], k1=5, k2=8, optimizer=minilstm.SGD(1e-9))      # one chunk
    truncated_bptt(model, x[:, :10], target[:, :10], k1=5, k2=5, optimizer=minilstm.SGD(0.1))
    assert not same_bits(model.state_dict()["0.0.weight_ih_l0"], before["0.0.weight_ih_l0"])


@pytest.mark.parametrize("k1, k2", [(4, 11), (11, 11)])
def test_noise_is_one_draw_for_a_call_which_can_be_taken_again(k1, k2):
    """With k2 = T the gradient is that of the loss for what was drawn; a step along it, and the same draws again."""
    rng = np.random.default_rng(11)
    net = random_layer(rng, "LSTM", D, 4, num_layers=2, dtype="float64", dropout=0.4, recurrent_dropout=0.3,
                       zoneout_h=0.2)
    model, (x, target) = minilstm.Sequential(net, minilstm.Linear(4, F, dtype="float64")), data(rng)
    first = truncated_bptt(model, x, target, k1=k1, k2=k2)
    gradients, state = gradients_of(model), model.state_dict()
    direction = {name: rng.normal(size=p.shape) for name, p in state.items()}
    losses = []
    for e in (1e-6, -1e-6):
        model.counter.next = 0
        model.load_state_dict({name: p + e * direction[name] for name, p in state.items()})
        losses.append(truncated_bptt(model, x, target, k1=k1, k2=k2).loss)
    slope = (losses[0] - losses[1]) / 2e-6
    assert abs(sum((g * direction[name]).sum() for name, g in gradients.items()) - slope) < 1e-7 * max(1, abs(slope))
    model.load_state_dict(state)
    assert model.counter.next == 1 and truncated_bptt(model, x, target, k1=k1, k2=k2).loss != first.loss


def test_gradients_are_added_and_a_chunk_in_which_nothing_counts_adds_none():
    rng = np.random.default_rng(2)
    model, (x, target) = model_of(rng), data(rng)
    target[:, 3:6] = np.nan
    counts = np.arange(T) < 3
    truncated_bptt(model, x, target, k1=3, k2=5, loss_mask=np.tile(counts, (B, 1)))
    once = gradients_of(model)
    truncated_bptt(model, x[:, :3], target[:, :3], k1=3, k2=3)
    for name, g in gradients_of(model).items():
        assert_close(g, 2 * once[name], "gradients by rounding", name)
    found = truncated_bptt(model, x, target, np.zeros((B, T), bool), k1=3, k2=5)
    assert found.loss == 0 and not any(s.any() for s in found.state[0])


def test_a_stream_goes_on_where_the_call_before_it_stopped():
    rng = np.random.default_rng(3)
    model, (x, target) = model_of(rng), data(rng, T=12)
    whole = truncated_bptt(model, x, target, k1=4, k2=4)
    expected = gradients_of(model)
    model.zero_grads()
    first = truncated_bptt(model, x[:, :8], target[:, :8], k1=4, k2=4)
    early = gradients_of(model)
    model.zero_grads()
    second = truncated_bptt(model, x[:, 8:], target[:, 8:], k1=4, k2=4, state=first.state)
    assert all(map(same_bits, second.state[0], whole.state[0]))
    assert abs((2 * first.loss + second.loss) / 3 - whole.loss) < 1e-14
    for name, g in gradients_of(model).items():
        assert_close((2 * early[name] + g) / 3, expected[name], "gradients by rounding", name)


def test_an_optimizer_steps_after_each_chunk_and_older_steps_keep_the_weights_that_made_them():
    rng = np.random.default_rng(4)
    model, (x, target) = model_of(rng), data(rng, T=6)
    net, head = model.layers
    start = model.state_dict()
    found = truncated_bptt(model, x, target, k1=2, k2=4, optimizer=minilstm.Adam(0.05), clip_norm=0.3)
    moved = model.state_dict()
    model.load_state_dict(start)
    adam, h0, c0, older, total = minilstm.Adam(0.05), None, None, None, 0
    for k in range(0, 6, 2):
        (y, h0, c0), net_cache = net.forward(x[:, k:k + 2], h0=h0, c0=c0)
        said, head_cache = head.forward(y)
        loss, dy = minilstm.mean_squared_error(said, target[:, k:k + 2])
        model.zero_grads()
        _, dh, dc = net.backward(net_cache, head.backward(head_cache, dy))
        if older is not None:
            net.backward(older, None, dh, dc)
        minilstm.clip_global_norm(model, 0.3)
        adam.step(model)
        older, total = net_cache, total + loss
    assert abs(found.loss - total / 3) < 1e-14
    for name, p in model.state_dict().items():
        assert_close(moved[name], p, "same formulas, float64", name)
        assert np.abs(p - start[name]).max() > 0.01


def test_categories_and_classes():
    rng = np.random.default_rng(5)
    model = minilstm.Sequential(minilstm.Embedding(7, D), random_layer(rng, "GRU", D, 4), minilstm.Linear(4, 5))
    x, target = rng.integers(0, 7, (B, T)), rng.integers(0, 5, (B, T))
    y, cache = model.forward(x)
    loss, dy = minilstm.softmax_cross_entropy(y, target)
    model.backward(cache, dy)
    expected = gradients_of(model)
    model.zero_grads()
    found = truncated_bptt(model, x, target, k1=3, k2=11, loss=minilstm.softmax_cross_entropy)
    assert abs(found.loss - loss) < 1e-6
    for name, g in gradients_of(model).items():
        assert_close(g, expected[name], "same formulas, float32", name)


@pytest.mark.parametrize("k2, learns", [(12, True), (6, False)])
def test_a_net_learns_to_remember_as_far_as_gradients_go_back(k2, learns):
    """A stream of coins, each to be named six steps later.  Over six steps no gradient says so, and what the net then
    knows is the echo that random weights have anyway."""
    rng = np.random.default_rng(6)
    coins = rng.choice([-1, 1], (16, 1200, 1)).astype("float32")
    target = np.roll(coins, 6, axis=1)
    model = minilstm.Sequential(minilstm.GRU(1, 16, seed=1), minilstm.Linear(16, 1))
    state, adam = None, minilstm.Adam(0.01)
    for _ in range(3):
        loss, state = truncated_bptt(model, coins, target, k1=6, k2=k2, state=state, optimizer=adam)
    assert loss < 0.1 if learns else loss > 0.5


def test_memory_is_that_of_k2_steps():
    rng = np.random.default_rng(7)
    model = minilstm.Sequential(minilstm.LSTM(D, 32), minilstm.Linear(32, F))

    def peak(T, k2):
        x, target = (rng.standard_normal((8, T, width), dtype="float32") for width in (D, F))
        buffers._idle.clear()               # what earlier calls left would not be counted
        tracemalloc.start()
        truncated_bptt(model, x, target, k1=20, k2=k2)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1500, 60)                          # Python keeps some small objects for later, which are not counted again
    assert peak(1500, 60) < 1.2 * peak(300, 60) < 0.5 * peak(300, 300)


X, TARGET = np.ones((2, 6, D), "float32"), np.ones((2, 6, F), "float32")


@pytest.mark.parametrize("change, error, words", [
    ({"k1": 0}, ValueError, "k1: expected a positive integer, got 0"),
    ({"k2": 2.0}, ValueError, "k2: expected a positive integer, got 2.0"),
    ({"k1": 4}, ValueError, "k1, k2: expected k1 <= k2, or errors would be left out, got 4 and 3"),
    ({"x": X[:, :, :2]}, ValueError, r"x: expected float32 \(B, T, D=3\), got float32 \(2, 6, 2\)"),
    ({"x": X.astype("float64")}, TypeError, "x: expected float32"),
    ({"target": TARGET[:, :5]}, ValueError, r"target: expected a NumPy array \(B=2, T=6, ...\), got .*\(2, 5, 2\)"),
    ({"target": TARGET[:, :, :1]}, ValueError, "target: expected"),
    ({"mask": np.ones((2, 5), bool)}, ValueError, r"mask: expected shape \(B=2, T=6\)"),
    ({"mask": np.ones((2, 6))}, TypeError, "mask: expected a bool array"),
    ({"loss_mask": np.ones((2, 6))}, ValueError, r"loss_mask: expected bool \(B=2, T=6\), got float64"),
    ({"state": ((), ())}, TypeError, "state: expected what start .* a tuple of 2, got a tuple of 0"),
    ({"model": minilstm.Sequential(minilstm.LSTM(D, 2), minilstm.Pooling("last"))}, ValueError, "Pooling: .*all steps"),
    ({"model": "LSTM"}, TypeError, "model: expected a Layer, got str"),
    ({"target": np.where(np.arange(6)[:, None] == 4, np.float32(np.nan), TARGET)}, FloatingPointError,
     r"steps 3 to 5: the loss is nan; target\[0, 4, 0\] is nan, and counts"),
    ({"x": np.where(np.arange(6)[:, None] == 1, np.float32(np.nan), X)}, FloatingPointError,
     r"steps 0 to 2: the loss is nan; x\[0, 1, 0\] is nan"),
    ({"optimizer": minilstm.Adam}, TypeError, "optimizer: expected one such as"),
])
def test_what_does_not_fit_is_named(change, error, words):
    given = {"model": minilstm.Sequential(minilstm.LSTM(D, 4), minilstm.Linear(4, F)), "x": X, "target": TARGET,
             "k1": 3, "k2": 3} | change
    with pytest.raises(error, match=words):
        truncated_bptt(**given)
