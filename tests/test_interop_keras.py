"""Layers to and from Keras: the same outputs, states and gradients, and a reason wherever that cannot be."""
import os
import sys

import numpy as np
import pytest

import minilstm
from helpers import assert_close, masks, random_batch, random_layer, run, same_bits, states_of
from minilstm.interop import from_keras, to_keras, to_pytorch
from minilstm.layers.layer import first

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")       # Keras' own, with NumPy 2

B, T, D, H = 4, 6, 3, 5

LAYERS = {                          # the kinds of helpers.KINDS that Keras has: its class and options
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {"reset_after": True}),
    "GRU, reset before": ("GRU", {"reset_after": False}),
    "RNN, tanh": ("SimpleRNN", {"activation": "tanh"}),
    "RNN, relu": ("SimpleRNN", {"activation": "relu"}),
}
WALKS = {                           # our options
    "forward": {},
    "backward": {"reverse": True},
    **{merge: {"bidirectional": True, "merge": merge} for merge in ("concat", "sum", "ave", "mul")},
}


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "torch"           # read when Keras is imported; these tests take PyTorch's gradients
    reason = "comparison with Keras: it is not installed, with PyTorch as its backend (pip install -e '.[peers]')"
    torch = pytest.importorskip("torch", reason=reason)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)                        # arrays are small here, and threads wait for threads
    yield pytest.importorskip("keras", reason=reason)
    torch.set_num_threads(threads)


def build(layer, rng):
    """Build a Keras layer, and draw all its weights, biases too."""
    layer.build((None, None, D))
    layer.set_weights([0.6 * rng.normal(size=w.shape) for w in layer.weights])
    return layer


def random_keras(keras, rng, kind, walk="forward", dtype="float32", **options):
    name, of_kind = LAYERS[kind]
    layer = getattr(keras.layers, name)(
        H, return_sequences=True, return_state=True, go_backwards=walk == "backward", dtype=dtype, **of_kind, **options)
    if walk not in ("forward", "backward"):
        layer = keras.layers.Bidirectional(layer, merge_mode=walk, dtype=dtype)
    return build(layer, rng)


def run_keras(layer, batch, mask, in_place=True):
    """The same dict as helpers.run.  in_place=False: the layer's outputs are in reversed order of time."""
    import torch

    tensors = {name: torch.tensor(a, requires_grad=not name.startswith("d")) for name, a in batch.items()}
    initial = zip(*(tensors[name][0] for name in states_of(batch)))         # h and c of each direction
    initial = [state for states in initial for state in states]
    for variable in layer.weights:
        variable.value.grad = None
    y, *final = layer(tensors["x"], initial_state=initial, mask=None if mask is None else torch.tensor(mask))
    y = y if in_place else y.flip(1)
    names = ("h_n", "c_n")[:len(states_of(batch))]
    found = {"y": y} | {name: torch.stack(final[k::len(names)])[None] for k, name in enumerate(names)}
    torch.autograd.backward(list(found.values()), [tensors["d" + name] for name in found])
    found |= {"d" + name: tensors[name].grad for name in ("x", *states_of(batch))}
    return {name: tensor.detach().numpy() for name, tensor in found.items()} | converted_gradients(layer)


def converted_gradients(layer):
    """The gradients of a Keras layer's weights, in our layout: they go through the conversion in place of the weights.

    Where Keras has one bias for our two, both of ours have its gradient."""
    weights = [variable.value.detach().numpy().copy() for variable in layer.weights]
    layer.set_weights([variable.value.grad.numpy() for variable in layer.weights])
    gradients = from_keras(layer).params
    layer.set_weights(weights)
    if len(weights[2].shape) == 1:
        gradients |= {name: gradients[name.replace("hh", "ih")] for name in gradients if name.startswith("bias_hh")}
    return {"d " + name: g for name, g in gradients.items()}


def compare(net, layer, batch, mask, tolerance, **options):
    expected = run_keras(layer, batch, mask, in_place=not net.reverse)
    found = run(net, batch, mask=mask, **options)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert_close(found[name], array, tolerance, name)


# ----------------------------------------------------------------------------------------------------- the same numbers
# What is in the padding is random here, but finite: NaN there makes all weight gradients NaN in Keras.

@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("kind", LAYERS)
def test_from_keras(keras, kind, walk, dtype):
    rng = np.random.default_rng(0)
    for zero in (True, False) if walk in ("forward", "backward") else (True,):      # Bidirectional always gives zero
        layer = random_keras(keras, rng, kind, walk, dtype, zero_output_for_mask=zero)
        net = from_keras(layer, backend="reference")
        assert net.dtype == dtype
        for mask in masks(rng, B, T).values():
            compare(net, layer, random_batch(rng, net, B, T), mask, "keras", masked_output="zero" if zero else "hold")


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("kind", LAYERS)
def test_to_keras(keras, kind, walk, dtype):
    rng = np.random.default_rng(1)
    net = random_layer(rng, kind, D, H, backend="reference", dtype=dtype, **WALKS[walk])
    layer = to_keras(net, return_state=True)
    for mask in masks(rng, B, T).values():
        compare(net, layer, random_batch(rng, net, B, T), mask, "keras")


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_to_float64_precision_where_keras_has_it(keras, kind):
    """Without a mask these two run in PyTorch's own LSTM and GRU: there nothing hides behind float32."""
    rng = np.random.default_rng(2)
    for walk in ("forward", "backward", "concat"):
        layer = random_keras(keras, rng, kind, walk, "float64")
        net = from_keras(layer, backend="reference")
        compare(net, layer, random_batch(rng, net, B, T), None, "keras, compiled, float64")


@pytest.mark.peers
@pytest.mark.parametrize("kind", LAYERS)
def test_these_comparisons_notice_a_swapped_block_and_a_lost_bias(keras, kind):
    rng = np.random.default_rng(3)
    layer = random_keras(keras, rng, kind)
    right = from_keras(layer, backend="reference")
    batch = random_batch(rng, right, B, T)
    for name, p in right.params.items():
        blocks = np.split(p, len(right.cell.blocks))
        swaps = [[*blocks[:k], blocks[k + 1], blocks[k], *blocks[k + 2:]] for k in range(len(blocks) - 1)]
        wrong = [np.concatenate(swap) for swap in swaps] + [np.zeros_like(p)]
        for array in wrong:
            if same_bits(array, p):
                continue                            # the second bias, where Keras has one, is zero
            net = from_keras(layer, backend="reference")
            net.params[name] = array
            with pytest.raises(AssertionError, match="relative error"):
                compare(net, layer, batch, None, "keras")


@pytest.mark.peers
@pytest.mark.parametrize("kind", LAYERS)
def test_there_and_back_computes_the_same(keras, kind):
    """Weights come back bit for bit, and so does the sum of the two biases where Keras has only that."""
    rng = np.random.default_rng(4)
    net = random_layer(rng, kind, D, H, bidirectional=True)
    back = from_keras(to_keras(net))
    assert back.arguments() == net.arguments()
    for name, p in net.params.items():
        if name.startswith("weight") or kind == "GRU":
            assert same_bits(back.params[name], p), name
        elif name.startswith("bias_ih"):
            assert same_bits(back.params[name], p + net.params[name.replace("ih", "hh")]), name
        else:
            assert not back.params[name].any(), name


@pytest.mark.peers
@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("kind", LAYERS)
def test_no_bias_is_a_bias_of_zeros(keras, kind, walk):
    rng = np.random.default_rng(5)
    layer = random_keras(keras, rng, kind, walk, use_bias=False)
    net = from_keras(layer, backend="reference")
    x = rng.normal(size=(B, T, D)).astype("float32")
    y, *final = (tensor.detach().numpy() for tensor in layer(x))
    out, _ = net.forward(x)
    assert_close(out.y, y[:, ::-1] if net.reverse else y, "keras", "y")
    assert_close(out.h_n[0], final[::len(net.cell.states)], "keras", "h_n")


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense(keras, use_bias, dtype):
    rng = np.random.default_rng(6)
    dense = keras.layers.Dense(4, use_bias=use_bias, dtype=dtype)
    dense.build((None, D))
    dense.set_weights([rng.normal(size=w.shape) for w in dense.weights])
    linear = from_keras(dense)
    again = to_keras(linear)
    x = rng.normal(size=(B, T, D)).astype(dtype)
    y, _ = linear.forward(x)
    assert y.dtype == dtype
    assert_close(y, dense(x).detach().numpy(), "keras", "y")
    assert_close(y, again(x).detach().numpy(), "keras", "y again")


@pytest.mark.peers
def test_dense_with_lora_is_the_layer_that_it_computes(keras):
    rng = np.random.default_rng(7)
    dense = keras.layers.Dense(4)
    dense.build((None, D))
    dense.enable_lora(2)
    dense.set_weights([rng.normal(size=w.shape) for w in dense.weights])
    x = rng.normal(size=(B, D)).astype("float32")
    assert_close(from_keras(dense).forward(x)[0], dense(x).detach().numpy(), "keras", "y")


# ------------------------------------------------------------------------------------------------------- several layers

def random_model(rng, **options):
    return minilstm.Sequential(
        random_layer(rng, "LSTM", D, H, num_layers=2, bidirectional=True, **options),
        random_layer(rng, "GRU", 2 * H, H, **options), minilstm.Linear(H, 2, **options))


def random_stack(rng, **options):
    return random_layer(rng, "LSTM", D, H, num_layers=3, bidirectional=True, merge="sum", **options)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Layer 'sequential")         # a keras.Sequential hands no mask on to what follows it
@pytest.mark.parametrize("make, dtype", [(random_model, "float32"), (random_stack, "float64")])
def test_several_layers_there_and_back(keras, make, dtype):
    import torch

    rng = np.random.default_rng(8)
    model = make(rng, dtype=dtype, backend="reference")
    theirs = to_keras(model)
    assert type(theirs) is keras.Sequential
    back = from_keras(theirs, backend="reference")
    assert type(back) is minilstm.Sequential
    assert back.dtype == dtype
    x = rng.normal(size=(B, T, D)).astype(dtype)
    for mask in masks(rng, B, T).values():
        y = first(model.forward(x, mask=mask)[0])
        expected = theirs(torch.tensor(x), mask=None if mask is None else torch.tensor(mask)).detach().numpy()
        compiled = mask is None and dtype == "float64"
        assert_close(y, expected, "keras, compiled, float64" if compiled else "keras", "y")
        assert_close(back.forward(x, mask=mask)[0], y, "keras", "y back")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Layer 'sequential")        # that nothing after it sees the mask
def test_the_usual_keras_model_is_in_every_step(keras):
    """An LSTM that hands on its last output: the same number stands at the last real step of ours, or, where Keras
    walks backward, at the first."""
    import torch

    rng = np.random.default_rng(9)
    x, mask = rng.normal(size=(B, T, D)).astype("float32"), np.arange(T) < np.array([T, 2, 1, 4])[:, None]
    for go_backwards in (False, True):
        theirs = keras.Sequential([keras.Input((T, D)), keras.layers.LSTM(H, go_backwards=go_backwards),
                                   keras.layers.Dense(2)])
        theirs.set_weights([0.6 * rng.normal(size=w.shape) for w in theirs.weights])
        expected = theirs(x, mask=torch.tensor(mask)).detach().numpy()
        step = np.zeros(B, int) if go_backwards else mask.sum(axis=1) - 1
        for model in (from_keras(theirs), from_keras(theirs.layers), from_keras(tuple(theirs.layers))):
            assert_close(model.forward(x, mask)[0][np.arange(B), step], expected, "keras", "y")


@pytest.mark.peers
@pytest.mark.parametrize("merge", ["concat", "sum", "ave", "mul"])
def test_what_a_bidirectional_hands_on_without_sequences_are_the_two_ends(keras, merge):
    rng = np.random.default_rng(14)
    theirs = build(keras.layers.Bidirectional(keras.layers.GRU(H), merge_mode=merge), rng)
    x = rng.normal(size=(B, T, D)).astype("float32")
    ends = from_keras(theirs).forward(x)[0].h_n[0]
    expected = {"concat": np.concatenate(list(ends), axis=1), "sum": ends[0] + ends[1], "ave": (ends[0] + ends[1]) / 2,
                "mul": ends[0] * ends[1]}[merge]
    assert_close(expected, theirs(x).detach().numpy(), "keras", "ends")


@pytest.mark.peers
def test_a_layer_that_stands_in_a_list_twice_stays_one(keras):
    dense = build(keras.layers.Dense(D), np.random.default_rng(10))
    below, above = from_keras([dense, dense]).layers
    assert below is above


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN, tanh", "RNN, relu"])
def test_from_keras_on_to_pytorch(keras, kind):
    rng = np.random.default_rng(11)
    layer = random_keras(keras, rng, kind, "concat")
    module = to_pytorch(from_keras(layer))
    import torch

    x = torch.tensor(rng.normal(size=(B, T, D)).astype("float32"))
    y, *final = layer(x)
    y_torch, state = module(x)
    assert_close(y_torch.detach().numpy(), y.detach().numpy(), "keras", "y")
    h_n = state[0] if kind == "LSTM" else state
    assert_close(h_n.detach().numpy(), [h.detach().numpy() for h in final[::len(final) // 2]], "keras", "h_n")


# --------------------------------------------------------------------------------------------- what is refused, and why

def built(layer, shape=(2, T, D)):
    layer.build(shape)
    return layer


def both(keras, forward, backward=None, **options):
    return built(keras.layers.Bidirectional(forward, backward_layer=backward, **options))


def quantized(dense):
    dense.quantize("int8")
    return dense


FROM_KERAS = {                      # what came, of keras.layers and keras itself; the error; what it says
    "another class": (lambda k, keras: k.Embedding(3, D), TypeError, "expected one of Keras' LSTM.*got .*Embedding"),
    "a cell in a loop": (lambda k, keras: built(k.RNN(k.LSTMCell(H))), TypeError, "got .*RNN"),
    "a subclass": (lambda k, keras: built(type("Mine", (k.LSTM,), {})(H)), TypeError, "got .*Mine"),
    "a wrapped class": (lambda k, keras: both(keras, k.ConvLSTM1D(2, 3)), TypeError, "got .*ConvLSTM1D"),
    "no layer": (lambda k, keras: np.zeros(3), TypeError, "got .*ndarray"),
    "in a model": (lambda k, keras: keras.Sequential([keras.Input((T, D)), k.Masking(), k.LSTM(H)]), TypeError,
                   "got .*Masking"),
    "not built": (lambda k, keras: k.GRU(H), ValueError, "^gru.*expected a built layer"),
    "halves not built": (lambda k, keras: k.Bidirectional(k.GRU(H)), ValueError, "expected a built layer"),
    "Dense not built": (lambda k, keras: k.Dense(H), ValueError, "^dense.*expected a built layer"),
    "activation": (lambda k, keras: built(k.LSTM(H, activation="relu")), ValueError,
                   "activation: expected Keras' tanh, got .*relu"),
    "recurrent_activation": (lambda k, keras: built(k.GRU(H, recurrent_activation="hard_sigmoid")), ValueError,
                             "recurrent_activation: expected Keras' sigmoid, got .*hard_sigmoid"),
    "activation of the simple RNN": (lambda k, keras: built(k.SimpleRNN(H, activation="gelu")), ValueError,
                                     "activation: expected Keras' tanh or relu, got .*gelu"),
    "activation of Dense": (lambda k, keras: built(k.Dense(H, activation="softmax")), ValueError,
                            "activation: expected Keras' linear, got .*softmax"),
    "dropout": (lambda k, keras: built(k.LSTM(H, dropout=0.1)), ValueError,
                r"dropout: expected 0, got 0.1: .*set layer.cell.dropout = 0, the weights are the same"),
    "recurrent_dropout": (lambda k, keras: built(k.SimpleRNN(H, recurrent_dropout=0.1)), ValueError,
                          r"recurrent_dropout: expected 0, got 0.1"),
    "stateful": (lambda k, keras: built(k.LSTM(H, stateful=True)), ValueError,
                 "stateful: expected False, got True: .*keep none between calls"),
    "merge_mode": (lambda k, keras: both(keras, k.LSTM(H), merge_mode=None), ValueError,
                   "merge_mode: expected one of 'concat', .*got None"),
    "halves of two sizes": (lambda k, keras: both(keras, k.LSTM(H), k.LSTM(H + 1, go_backwards=True)), ValueError,
                            "two halves of one kind, got LSTM .*5.* and LSTM .*6"),
    "halves of two classes": (lambda k, keras: both(keras, k.LSTM(H), k.GRU(H, go_backwards=True)), ValueError,
                              "two halves of one kind, got LSTM .* and GRU"),
    "halves of two forms": (lambda k, keras: both(keras, k.GRU(H), k.GRU(H, go_backwards=True, reset_after=False)),
                            ValueError, "two halves of one kind"),
    "halves change places": (lambda k, keras: both(keras, k.LSTM(H, go_backwards=True), k.LSTM(H)), ValueError,
                             "forward_layer: expected go_backwards=False, got True"),
    "a cast around": (lambda k, keras: both(keras, k.LSTM(H, dtype="float64")), ValueError,
                      "expected the dtype of its halves, float64, got float32"),
    "float16": (lambda k, keras: built(k.Dense(H, dtype="float16")), ValueError, "expected float32 or float64"),
    "mixed precision": (lambda k, keras: built(k.Dense(H, dtype="mixed_bfloat16")), ValueError,
                        "alike, got float32 and bfloat16"),
    "quantized": (lambda k, keras: quantized(built(k.Dense(H))), ValueError,
                  "quantization_mode: expected None, got 'int8'"),
    "above a reversed one": (lambda k, keras: [built(k.LSTM(D, go_backwards=True)), [built(k.GRU(D))]],
                             ValueError, "^lstm.*no recurrent layer above one that walks backward"),
    "both ends": (lambda k, keras: keras.Sequential([keras.Input((T, D)), k.Bidirectional(k.LSTM(H))]),
                  ValueError, "return_sequences=True in a row of layers, got False.*they are its h_n"),
    "nothing": (lambda k, keras: [], ValueError, "layer: expected one layer or more, got an empty list"),
}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:The `quantize`")
@pytest.mark.parametrize("name", FROM_KERAS)
def test_from_keras_says_why_not(keras, name):
    make, error, message = FROM_KERAS[name]
    layer = make(keras.layers, keras)
    with pytest.raises(error, match=message):
        from_keras(layer)


@pytest.mark.peers
def test_dropout_can_be_set_to_zero_as_the_message_says(keras):
    layer = built(keras.layers.LSTM(H, dropout=0.1, recurrent_dropout=0.2))
    layer.cell.dropout = layer.cell.recurrent_dropout = 0
    weight = keras.ops.convert_to_numpy(layer.cell.kernel)
    assert same_bits(from_keras(layer).params["weight_ih_l0"], weight.T)


SHARED = minilstm.Linear(D, D)
TO_KERAS = {
    "peepholes": (lambda: minilstm.LSTM(D, H, peephole=True), {}, ValueError,
                  "peephole: expected False, got True: Keras has no such option"),
    "coupled gates": (lambda: minilstm.LSTM(D, H, coupled=True), {}, ValueError, "coupled: expected False, got True"),
    "layer norm": (lambda: minilstm.GRU(D, H, layer_norm=True), {}, ValueError, "layer_norm: expected False, got True"),
    "projection": (lambda: minilstm.LSTM(D, H, proj_size=2), {}, ValueError, "proj_size: expected 0, got 2"),
    "dropout": (lambda: minilstm.GRU(D, H, num_layers=2, dropout=0.1), {}, ValueError,
                "^dropout: expected 0.0, got 0.1: Keras has a layer of its own for it"),
    "recurrent dropout": (lambda: minilstm.RNN(D, H, recurrent_dropout=0.1), {}, ValueError,
                          "recurrent_dropout: expected 0.0, got 0.1: .*the weights are the same without"),
    "zoneout of h": (lambda: minilstm.RNN(D, H, zoneout_h=0.1), {}, ValueError, "zoneout_h: expected 0.0, got 0.1"),
    "zoneout of c": (lambda: minilstm.LSTM(D, H, zoneout_c=0.1), {}, ValueError, "zoneout_c: expected 0.0, got 0.1"),
    "complex": (lambda: minilstm.LSTM(D, H).astype("complex128"), {}, ValueError, "layer: expected one of 'float32'"),
    "no layer": (lambda: np.zeros(3), {}, TypeError, "expected one of minilstm's LSTM.*got .*ndarray"),
    "a subclass": (lambda: type("Mine", (minilstm.LSTM,), {})(D, H), {}, TypeError, "got .*Mine"),
    "one layer twice": (lambda: minilstm.Sequential(SHARED, minilstm.LSTM(D, D), SHARED), {}, ValueError,
                        "every layer once"),
    "backward in two layers": (lambda: minilstm.LSTM(D, H, num_layers=2, reverse=True), {}, ValueError,
                               "no recurrent layer above one that walks backward"),
    "above a reversed one": (lambda: minilstm.Sequential(minilstm.GRU(D, D, reverse=True), SHARED, minilstm.RNN(D, H)),
                             {}, ValueError, "^gru.*no recurrent layer above one that walks backward"),
    "states of a stack": (lambda: minilstm.LSTM(D, H, num_layers=2), {"return_state": True}, ValueError,
                          "return_state: expected False, got True"),
    "states of a model": (lambda: minilstm.Sequential(minilstm.LSTM(D, H)), {"return_state": True}, ValueError,
                          "return_state: expected False, got True"),
    "states of a Linear": (lambda: SHARED, {"return_state": True}, ValueError,
                           "return_state: expected False, got True"),
    "states of what kind": (lambda: minilstm.LSTM(D, H), {"return_state": 2}, TypeError,
                            "return_state: expected True or False, got 2"),
}


@pytest.mark.peers
@pytest.mark.parametrize("name", TO_KERAS)
def test_to_keras_says_why_not(keras, name):
    make, options, error, message = TO_KERAS[name]
    with pytest.raises(error, match=message):
        to_keras(make(), **options)


def test_without_keras_there_is_a_word_on_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    for convert in (from_keras, to_keras):
        with pytest.raises(ImportError, match=r"Keras cannot be imported .*pip install keras; .*KERAS_BACKEND"):
            convert(minilstm.LSTM(D, H))
