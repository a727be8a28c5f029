"""What the public objects promise: shapes, initial weights, caches that stay true, and errors that explain."""
import copy
import threading

import numpy as np
import pytest

import minilstm
from helpers import assert_close, random_batch, random_lstm, run, same_bits


def test_shapes_and_names_are_as_documented():
    net = minilstm.LSTM(3, 4, num_layers=2, bidirectional=True)
    out, cache = net.forward(np.ones((5, 7, 3), "float32"))
    assert (out.y.shape, out.h_n.shape, out.c_n.shape) == ((5, 7, 8), (2, 2, 5, 4), (2, 2, 5, 4))
    dx, dh0, dc0 = net.backward(cache, out.y)
    assert (dx.shape, dh0.shape, dc0.shape) == ((5, 7, 3), (2, 2, 5, 4), (2, 2, 5, 4))
    shapes = {name: p.shape for name, p in net.params.items()}
    assert shapes["weight_ih_l0_reverse"] == (16, 3) and shapes["weight_ih_l1"] == (16, 8)
    assert shapes["weight_hh_l1_reverse"] == (16, 4) and shapes["bias_hh_l1"] == (16,) and len(shapes) == 16
    assert {name: g.shape for name, g in net.grads.items()} == shapes


def test_final_states_are_the_outputs_at_the_two_ends():
    rng = np.random.default_rng(0)
    net = random_lstm(rng, 3, 4, bidirectional=True)
    out, _ = net.forward(rng.normal(size=(5, 7, 3)).astype("float32"))
    assert same_bits(out.y[:, -1, :4], out.h_n[0, 0]) and same_bits(out.y[:, 0, 4:], out.h_n[0, 1])


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("rule, expected", [
    ("sum", lambda f, b: f + b), ("ave", lambda f, b: (f + b) / 2), ("mul", lambda f, b: f * b),
])
@pytest.mark.parametrize("masked_output", [pytest.param("zero", marks=pytest.mark.long), "hold"])
def test_merged_directions(rule, expected, masked_output, backend):
    """The rule applied to the halves of a layer that puts them side by side, and its gradients."""
    rng = np.random.default_rng(10)
    side_by_side = random_lstm(rng, 3, 4, bidirectional=True, backend=backend)
    merged = minilstm.LSTM(3, 4, bidirectional=True, merge=rule, backend=backend)
    merged.load_state_dict(side_by_side.state_dict())
    x, mask = rng.normal(size=(3, 5, 3)).astype("float32"), rng.random((3, 5)) < 0.6
    halves, _ = side_by_side.forward(x, mask, masked_output=masked_output)
    found, _ = merged.forward(x, mask, masked_output=masked_output)
    assert_close(found.y, expected(halves.y[:, :, :4], halves.y[:, :, 4:]), "same formulas, float32")
    assert same_bits(found.h_n, halves.h_n) and same_bits(found.c_n, halves.c_n)

    deep = random_lstm(rng, 3, 4, bidirectional=True, num_layers=2, merge=rule, backend=backend)
    state = rng.normal(size=(2, 2, 3, 4))
    report = minilstm.check_gradients(deep, max_entries=5, x=x, h0=state, c0=state, mask=mask,
                                      masked_output=masked_output)
    assert report.ok and deep.params["weight_ih_l1"].shape == (16, 4), f"\n{report}"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_reverse_is_the_backward_direction_alone(num_layers, backend):
    rng = np.random.default_rng(11)
    backward_only = random_lstm(rng, 3, 4, reverse=True, num_layers=num_layers, backend=backend)
    assert all("reverse" not in name for name in backward_only.params)
    forward_only = minilstm.LSTM(3, 4, num_layers=num_layers, backend=backend)
    forward_only.load_state_dict(backward_only.state_dict())
    batch = random_batch(rng, backward_only, B=3, T=5)
    mask = rng.random((3, 5)) < 0.6
    flipped = {name: np.ascontiguousarray(a[:, ::-1]) if name in ("x", "dy") else a for name, a in batch.items()}
    found, expected = run(backward_only, batch, mask=mask), run(forward_only, flipped, mask=mask[:, ::-1])
    for name in ("y", "dx"):
        assert same_bits(found[name], expected[name][:, ::-1])
    for name in ("h_n", "c_n", "dh0", "dc0"):
        assert same_bits(found[name], expected[name])


def test_initial_weights():
    net = minilstm.LSTM(30, 40, dtype="float64", seed=3)
    W, U = net.params["weight_ih_l0"], net.params["weight_hh_l0"].reshape(4, 40, 40)
    limit = np.sqrt(6 / 70)
    assert np.abs(W).max() <= limit and np.abs(W).max() > 0.99 * limit and abs(W.mean()) < 0.02 * limit
    for block in U:
        assert_close(block @ block.T, np.eye(40), "same formulas, float64")
    b_ih = net.params["bias_ih_l0"].reshape(4, 40)
    assert (b_ih[1] == 1).all() and not b_ih[[0, 2, 3]].any() and not net.params["bias_hh_l0"].any()


def test_initial_projection():
    """Glorot W_hr, orthonormal columns in U; another proj_size is another random stream."""
    net, other = (minilstm.LSTM(5, 60, proj_size=R, dtype="float64") for R in (20, 19))
    W_hr, limit = net.params["weight_hr_l0"], np.sqrt(6 / 80)
    assert np.abs(W_hr).max() <= limit and np.abs(W_hr).max() > 0.98 * limit
    for block in np.split(net.params["weight_hh_l0"], 4):
        assert_close(block.T @ block, np.eye(20), "same formulas, float64")
    assert not np.array_equal(net.params["weight_ih_l0"], other.params["weight_ih_l0"])


def test_seed_decides_the_weights():
    one, same, other = (minilstm.LSTM(3, 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(same_bits(one[name], same[name]) for name in one)
    assert not np.array_equal(one["weight_ih_l0"], other["weight_ih_l0"])


def test_layers_with_one_seed_draw_different_numbers():
    """Weights that repeat each other's random numbers are proportional: correlation 1."""
    lstm, linear = minilstm.LSTM(1, 50, seed=0), minilstm.Linear(50, 4, seed=0)
    pair = lstm.params["weight_ih_l0"].ravel(), linear.params["weight"].ravel()
    assert abs(np.corrcoef(*pair)[0, 1]) < 0.3


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("B, T", [(0, 4), (3, 0), (0, 0)])
def test_nothing_to_do_is_legal(B, T, backend):
    rng = np.random.default_rng(1)
    net = random_lstm(rng, 3, 4, bidirectional=True, backend=backend)
    batch = random_batch(rng, net, B, T)
    found = run(net, batch)
    assert found["y"].shape == (B, T, 8) and found["dx"].shape == (B, T, 3)
    assert same_bits(found["h_n"], batch["h0"]) and same_bits(found["dc0"], batch["dc_n"])
    assert not any(found["d " + name].any() for name in net.params)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_odd_memory_layouts_and_read_only_arrays_are_welcome(backend):
    rng = np.random.default_rng(2)
    net = random_lstm(rng, 3, 4, backend=backend)
    batch = random_batch(rng, net, B=5, T=6)
    expected = run(net, batch)
    odd = {}
    for name, a in batch.items():
        wide = np.repeat(a, 2, axis=-1)[..., ::2]           # every other number of a wider array
        odd[name] = np.asfortranarray(wide) if name == "dy" else wide
        odd[name].flags.writeable = False
    found = run(net, odd)
    assert all(same_bits(found[name], expected[name]) for name in expected)
    dy = np.broadcast_to(np.float32(1), batch["dy"].shape)
    assert_close(run(net, dict(odd, dy=dy))["dx"], run(net, dict(batch, dy=dy.copy()))["dx"], "same formulas, float32")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_cache_stays_true(backend):
    """Whatever happens between forward and backward: other calls, changed inputs and outputs, new weights."""
    rng = np.random.default_rng(3)
    net = random_lstm(rng, 3, 4, bidirectional=True, backend=backend)
    batch = random_batch(rng, net, B=5, T=6)
    mask = rng.random((5, 6)) < 0.7
    expected = run(net, batch, mask=mask)

    mine = copy.deepcopy(batch)
    my_mask = mask.copy()
    out, cache = net.forward(mine["x"], mask=my_mask, h0=mine["h0"], c0=mine["c0"])
    for array in (mine["x"], mine["h0"], mine["c0"], out.y, out.h_n, out.c_n):
        array[:] = 7
    my_mask[:] = False
    run(net, random_batch(rng, net, B=2, T=3))
    minilstm.Adam(0.1).step(net)
    net.zero_grads()
    dx, dh0, dc0 = net.backward(cache, batch["dy"], batch["dh_n"], batch["dc_n"])
    assert same_bits(dx, expected["dx"]) and same_bits(dh0, expected["dh0"]) and same_bits(dc0, expected["dc0"])
    assert all(same_bits(net.grads[name], expected["d " + name]) for name in net.grads)


def test_weights_cannot_be_changed_behind_a_cache():
    net = minilstm.LSTM(3, 4)
    with pytest.raises(ValueError, match="read-only"):
        net.params["weight_hh_l0"] *= 2
    mine = np.ones((16, 4), "float32")
    net.params["weight_hh_l0"] = mine
    out, cache = net.forward(np.ones((1, 2, 3), "float32"))
    before = net.backward(cache, out.y).dx
    mine[:] = 5
    assert same_bits(net.backward(cache, out.y).dx, before)


def test_backward_adds_to_the_gradients():
    rng = np.random.default_rng(4)
    net = random_lstm(rng, 3, 4)
    batch = random_batch(rng, net, B=2, T=3)
    once = run(net, batch)["d weight_hh_l0"]
    _, cache = net.forward(batch["x"], h0=batch["h0"], c0=batch["c0"])
    net.backward(cache, batch["dy"], batch["dh_n"], batch["dc_n"])
    assert same_bits(net.grads["weight_hh_l0"], once + once)


def test_gradients_not_given_are_zero():
    rng = np.random.default_rng(5)
    net = random_lstm(rng, 3, 4)
    batch = random_batch(rng, net, B=2, T=3)
    out, cache = net.forward(batch["x"])
    zeros = [np.zeros_like(a) for a in out]
    for k, given in enumerate(("dy", "dh_n", "dc_n")):
        full = zeros[:k] + [batch[given]] + zeros[k + 1:]
        assert same_bits(net.backward(cache, **{given: batch[given]}).dx, net.backward(cache, *full).dx)


def test_no_gradient_is_lost_between_threads():
    """Arrays so large that two additions without a lock collide."""
    net = minilstm.Linear(1000, 1000)
    ones = {name: np.ones_like(p) for name, p in net.params.items()}
    threads = [threading.Thread(target=lambda: [net._add_grads(ones) for _ in range(50)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((g == 100).all() for g in net.grads.values())


def test_two_threads_may_use_one_layer_at_once():
    """Outputs and input gradients are the bits of a single thread, and no weight gradient is lost."""
    rng = np.random.default_rng(6)
    net = random_lstm(rng, 40, 48)
    batches = [random_batch(rng, net, B=24, T=30) for _ in range(3)]
    expected = [run(net, batch) for batch in batches]
    net.zero_grads()
    found, start = {}, threading.Barrier(len(batches))

    def work(k):
        start.wait()
        for turn in range(10):
            b = batches[k]
            out, cache = net.forward(b["x"], h0=b["h0"], c0=b["c0"])
            found[k, turn] = out._asdict() | net.backward(cache, b["dy"], b["dh_n"], b["dc_n"])._asdict()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    for (k, _), result in found.items():
        assert all(same_bits(result[name], expected[k][name]) for name in result)
    for name, g in net.grads.items():
        assert_close(g, 10 * sum(e["d " + name] for e in expected), "same formulas, float32", name)


def test_state_dict_round_trip_and_its_errors():
    one, two = (minilstm.Sequential(minilstm.LSTM(3, 4, seed=s), minilstm.Linear(4, 2, seed=s)) for s in (1, 2))
    state = one.state_dict()
    two.load_state_dict(state)
    x = np.ones((2, 3, 3), "float32")
    assert same_bits(one.forward(x)[0], two.forward(x)[0])
    state["1.bias"][:] = 9
    assert not two.layers[1].params["bias"].any(), "the layer keeps its own copy"

    good = one.state_dict()
    for spoilt, error, words in (
        ({k: v for k, v in good.items() if k != "1.bias"}, KeyError, r"missing \['1.bias'\]"),
        (good | {"2.bias": good["1.bias"]}, KeyError, r"got also \['2.bias'\]"),
        (good | {"1.bias": np.zeros(3, "float32")}, ValueError, r"state\['1.bias'\]: expected .*\(2,\), got .*\(3,\)"),
        (good | {"1.bias": np.zeros(2)}, TypeError, r"state\['1.bias'\]: expected .*float32 .* got float64 "),
        (good | {"1.bias": [0, 0]}, TypeError, r"state\['1.bias'\]: .* got list"),
    ):
        before = two.state_dict()
        with pytest.raises(error, match=words):
            two.load_state_dict(spoilt)
        assert all(same_bits(two.state_dict()[name], before[name]) for name in before), "nothing is half loaded"


def test_a_shared_layer_is_one_set_of_parameters():
    shared = minilstm.Linear(3, 3)
    model = minilstm.Sequential(shared, shared)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert minilstm.check_gradients(model, x=np.random.default_rng(0).normal(size=(4, 3))).ok


# ------------------------------------------------------------------------------------------------------------ bad input

X = np.ones((2, 5, 3), "float32")
MASK = np.ones((2, 5), bool)
STATE = np.zeros((1, 1, 2, 4), "float32")

BAD_FORWARD = {
    "2-D x": ({"x": X[0]}, ValueError, r"x: expected float32 \(B, T, D=3\), got float32 \(5, 3\); x\[None\] makes"),
    "masked array": ({"x": np.ma.masked_invalid(X)}, TypeError, r"x: expected a plain NumPy array .* got MaskedArray"),
    "4-D x": ({"x": X[None]}, ValueError, r"x: expected float32 \(B, T, D=3\), got float32 \(1, 2, 5, 3\)"),
    "wrong width": ({"x": X[:, :, :2]}, ValueError, r"x: expected .*D=3\), got float32 \(2, 5, 2\)"),
    "float64 x": ({"x": X.astype("float64")}, TypeError, r"x: expected float32 .* got float64 .*x.astype\('float32'\)"),
    "integer x": ({"x": X.astype(int)}, TypeError, r"x: expected float32 .* got int64"),
    "object x": ({"x": X.astype(object)}, TypeError, r"x: expected float32 .* got object"),
    "complex x": ({"x": X.astype(complex)}, TypeError, r"x: expected float32 .* got complex128"),
    "list x": ({"x": X.tolist()}, TypeError, r"x: expected a plain NumPy array .* got list"),
    "no x": ({"x": None}, TypeError, r"x: expected a plain NumPy array .* got NoneType"),
    "mask of another shape": ({"mask": MASK[:, :4]}, ValueError, r"mask: expected shape \(B=2, T=5\).* got \(2, 4\)"),
    "transposed mask": ({"mask": MASK.T}, ValueError, r"mask: expected shape \(B=2, T=5\).* got \(5, 2\)"),
    "3-D mask": ({"mask": MASK[:, :, None]}, ValueError, r"mask: expected shape .* got \(2, 5, 1\)"),
    "integer mask": ({"mask": MASK.astype(int)}, TypeError, r"mask: expected a bool .* got int64 .*dtype=bool\)"),
    "list mask": ({"mask": MASK.tolist()}, TypeError, r"mask: expected a bool array .* got list"),
    "both": ({"mask": MASK, "lengths": [5, 5]}, ValueError, r"mask, lengths: expected at most one"),
    "length above T": ({"lengths": [5, 6]}, ValueError, r"lengths: expected values from 0 to T=5, got 6 in row 1"),
    "negative length": ({"lengths": [-1, 2]}, ValueError, r"lengths: expected values from 0 to T=5, got -1 in row 0"),
    "float lengths": ({"lengths": [2.0, 3.0]}, TypeError, r"lengths: expected integers .* got float64"),
    "bool lengths": ({"lengths": [True, True]}, TypeError, r"lengths: expected integers .* got bool"),
    "ragged lengths": ({"lengths": [[1], [2, 3]]}, ValueError, r"lengths: expected shape \(B=2,\), got rows of"),
    "too few lengths": ({"lengths": [2]}, ValueError, r"lengths: expected shape \(B=2,\), got \(1,\)"),
    "h0 without layers": ({"h0": STATE[0, 0]}, ValueError, r"h0: expected float32 \(layers=1, dirs=1, B=2, H=4\), got"),
    "c0 of another dtype": ({"c0": STATE.astype("float64")}, TypeError, r"c0: expected float32 .* got float64"),
    "another masked_output": ({"masked_output": "last"}, ValueError, r"masked_output: expected one of 'zero', 'hold'"),
}


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", BAD_FORWARD)
def test_bad_input_is_named(name, backend):
    arguments, error, words = BAD_FORWARD[name]
    with pytest.raises(error, match=words):
        minilstm.LSTM(3, 4, backend=backend).forward(**({"x": X} | arguments))


@pytest.mark.parametrize("arguments, error, words", [
    ({}, ValueError, "dy, dh_n, dc_n: expected at least one gradient"),
    ({"dy": np.ones((2, 5, 3), "float32")}, ValueError, r"dy: expected float32 \(B=2, T=5, dirs\*H=4\), got float32"),
    ({"dy": np.ones((2, 5, 4))}, TypeError, "dy: expected float32 .* got float64"),
    ({"dh_n": np.ones((2, 4), "float32")}, ValueError, "dh_n: expected float32 .* got"),
    ({"dc_n": 1.0}, TypeError, "dc_n: expected a plain NumPy array .* got float"),
])
def test_bad_gradients_are_named_and_add_nothing(arguments, error, words):
    net = minilstm.LSTM(3, 4)
    _, cache = net.forward(X)
    with pytest.raises(error, match=words):
        net.backward(cache, **arguments)
    assert not any(g.any() for g in net.grads.values())


def test_a_cache_of_something_else_is_refused():
    net, dy = minilstm.LSTM(3, 4), np.ones((2, 5, 4), "float32")
    for other in (minilstm.LSTM(3, 4, num_layers=2), minilstm.LSTM(3, 5), minilstm.LSTM(3, 4, reverse=True),
                  minilstm.LSTM(3, 4, merge="sum"), minilstm.GRU(3, 4)):
        with pytest.raises(ValueError, match="cache: expected one of this layer"):
            net.backward(other.forward(X)[1], dy)
    plain, peephole = (minilstm.LSTM(3, 4, peephole=peephole, dtype="float64") for peephole in (False, True))
    with pytest.raises(ValueError, match="cache: expected one of this layer"):
        plain.backward(peephole.forward(X.astype("float64"))[1], dy.astype("float64"))
    narrow, wide = (minilstm.LSTM(3, 4, proj_size=R) for R in (1, 3))
    with pytest.raises(ValueError, match="cache: expected one of this layer"):
        wide.backward(narrow.forward(X)[1], dy[:, :, :3])
    assert not any(g.any() for g in wide.grads.values())
    for layer in (net, minilstm.Linear(3, 4)):
        with pytest.raises(TypeError, match="cache: expected what forward returned beside its output, got float32"):
            layer.backward(X, dy)
    model, shorter = minilstm.Sequential(net, minilstm.Linear(4, 1)), minilstm.Sequential(net)
    with pytest.raises(TypeError, match="cache: expected .*, a list of 2, got list"):
        model.backward(shorter.forward(X)[1], dy[:, :, :1])
    assert not any(g.any() for g in net.grads.values())


@pytest.mark.parametrize("options, letters", [
    ({}, r"dirs\*H=4"), ({"proj_size": 2}, r"dirs\*R=2"), ({"bidirectional": True, "merge": "sum"}, "T=5, H=4"),
    ({"proj_size": 2, "merge": "ave"}, "T=5, R=2"),
])
def test_messages_name_the_widths_of_this_layer(options, letters):
    net = minilstm.LSTM(3, 4, **options)
    _, cache = net.forward(X)
    with pytest.raises(ValueError, match=f"dy: expected float32 .*{letters}"):
        net.backward(cache, np.ones((2, 5, 9), "float32"))
    R = "R=2" if "proj_size" in options else "H=4"
    with pytest.raises(ValueError, match=f"h0: expected float32 .*{R}"):
        net.forward(X, h0=np.ones((1, 1, 2, 9), "float32"))
    with pytest.raises(ValueError, match="c0: expected float32 .*H=4"):
        net.forward(X, c0=np.ones((1, 1, 2, 9), "float32"))


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), "float64", float])
def test_a_dtype_may_be_given_in_any_form(dtype):
    assert minilstm.LSTM(3, 4, dtype=dtype).params["weight_ih_l0"].dtype == np.float64


def test_linear_without_bias():
    net = minilstm.Linear(3, 2, bias=False, dtype="float64")
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert list(net.params) == ["weight"] and minilstm.check_gradients(net, x=x).ok
    assert_close(net.forward(x)[0], x @ net.params["weight"].T, "same formulas, float64")


@pytest.mark.parametrize("make, error, words", [
    (lambda: minilstm.LSTM(0, 4), ValueError, "input_size: expected a positive integer, got 0"),
    (lambda: minilstm.LSTM(3, 4.0), ValueError, "hidden_size: expected a positive integer, got 4.0"),
    (lambda: minilstm.LSTM(3, True), ValueError, "hidden_size: expected a positive integer, got True"),
    (lambda: minilstm.LSTM(3, 4, num_layers=-1), ValueError, "num_layers: expected a positive integer, got -1"),
    (lambda: minilstm.LSTM(3, 4, bidirectional=2), TypeError, "bidirectional: expected True or False, got 2"),
    (lambda: minilstm.LSTM(3, 4, peephole=True, coupled=True), ValueError, "peephole, coupled: expected at most one"),
    (lambda: minilstm.LSTM(3, 4, bidirectional=True, reverse=True), ValueError, "bidirectional, reverse: expected at"),
    (lambda: minilstm.GRU(3, 4, reset_after=None), TypeError, "reset_after: expected True or False, got None"),
    (lambda: minilstm.GRU(3, 4, merge="max"), ValueError, "merge: expected one of 'concat', 'sum', 'ave', 'mul', got"),
    (lambda: minilstm.LSTM(3, 4, peephole=1), TypeError, "peephole: expected True or False, got 1"),
    (lambda: minilstm.RNN(3, 4, activation="gelu"), ValueError, "activation: expected one of 'tanh', 'relu', got"),
    (lambda: minilstm.LSTM(3, 4, dtype="f4,,"), ValueError, "dtype: expected one of 'float32', 'float64', got 'f4,,'"),
    (lambda: minilstm.LSTM(3, 4, dtype=None), ValueError, "dtype: expected one of 'float32', 'float64', got None"),
    (lambda: minilstm.LSTM(3, 4).astype("int32"), ValueError, "dtype: expected one of .*, got 'int32'"),
    (lambda: minilstm.LSTM(3, 4, dtype="float16"), ValueError, "dtype: expected one of 'float32', 'float64', got"),
    (lambda: minilstm.LSTM(3, 4, backend="tpu"), ValueError, "backend: expected one of 'reference', 'cpu', 'gpu', "),
    (lambda: minilstm.LSTM(3, 4, seed=-1), ValueError, "seed: expected an integer, 0 or more, got -1"),
    (lambda: minilstm.Linear(3, 4, seed=0.5), ValueError, "seed: expected an integer, 0 or more, got 0.5"),
    (lambda: minilstm.Linear(3, 0), ValueError, "output_size: expected a positive integer, got 0"),
    (lambda: minilstm.Linear(3, 1).forward(np.ones((2, 4), "float32")), ValueError, r"x: expected .*D=3\), got"),
    (lambda: minilstm.Linear(3, 1).forward([1, 2, 3]), TypeError, "x: expected a plain NumPy array .* got list"),
    (lambda: minilstm.Sequential(), TypeError, "layers: expected layers, one or more"),
    (lambda: minilstm.Sequential(minilstm.Linear(1, 1), "relu"), TypeError, r"layers: .*'Linear', 'str'"),
    (lambda: minilstm.Sequential([minilstm.Linear(1, 1)]), TypeError, r"layers: .* of their own, .*'list'"),
    (lambda: minilstm.Sequential(minilstm.LSTM(1, 2), minilstm.Sequential(minilstm.Linear(4, 1))), ValueError,
     "layers: expected input_size=2 in place 1, as the layer before it gives, got 4"),
    (lambda: minilstm.Sequential(minilstm.Linear(1, 1), minilstm.Linear(1, 1, dtype="float64")), ValueError,
     r"layers: expected one dtype, got \['float32', 'float64'\]"),
])
def test_bad_construction_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_a_parameter_put_in_place_is_checked_when_used():
    net = minilstm.LSTM(3, 4)
    net.params["weight_hh_l0"] = np.ones((4, 16), "float32")
    with pytest.raises(ValueError, match=r"params\['weight_hh_l0'\]: expected .*\(16, 4\), got .*\(4, 16\)"):
        net.forward(X)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_model_without_a_cache_says_the_same(backend):
    rng = np.random.default_rng(9)
    model = minilstm.Sequential(minilstm.LSTM(3, 5, backend=backend), minilstm.GRU(5, 4, backend=backend),
                                minilstm.Linear(4, 2, backend=backend))
    x, mask = rng.standard_normal((4, 6, 3), dtype="float32"), rng.random((4, 6)) < 0.7
    expected, _ = model.forward(x, mask)
    found, cache = model.forward(x, mask, cache=False)
    assert cache is None and same_bits(found, expected)
    for layer in (model, *model.layers):
        with pytest.raises(TypeError, match="cache: expected True or False, got 1"):
            layer.forward(x[:, :, :1].repeat(layer.input_size, axis=2), cache=1)


def test_a_model_prints_how_it_is_built():
    model = minilstm.Sequential(minilstm.GRU(2, 3, seed=5), minilstm.Pooling("last"), minilstm.Linear(3, 1, bias=False))
    first, *lines, last = str(model).splitlines()
    assert (first, last, lines[1]) == ("Sequential(", ")", "    Pooling(how='last'),")
    assert lines[0].startswith("    GRU(input_size=2, hidden_size=3, num_layers=1, bidirectional=False, ")
    assert lines[2] == "    Linear(input_size=3, output_size=1, bias=False),"
