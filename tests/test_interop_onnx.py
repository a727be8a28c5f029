"""ONNX models of our layers compute what the layers do, and layers read from ONNX models are those models' own.

Three judges that know nothing of minilstm: ONNX's checker (is it valid?), ONNX Runtime (float32, any lengths) and the
evaluator that comes with ONNX (float64, full sequences: it reads neither sequence_lens nor input_forget, and has no
Relu)."""
import subprocess
import sys

import numpy as np
import pytest

import minilstm
from helpers import KINDS, assert_close, random_batch, random_layer, same_bits, states_of
from minilstm.interop import from_onnx, to_onnx
from torch_layers import CASES, make_inputs, options_of, run_torch

onnx = pytest.importorskip("onnx", reason="ONNX is not installed (pip install -e '.[peers]')")
pytestmark = pytest.mark.peers

EXPORTED = ["LSTM", "LSTM, peepholes", "LSTM, coupled", "GRU", "GRU, reset before", "RNN, tanh", "RNN, relu"]
DIRECTIONS = {"forward": {}, "reverse": {"reverse": True}, "both": {"bidirectional": True}}
MERGED = [("forward", "concat"), ("reverse", "sum"), *(("both", merge) for merge in ("concat", "sum", "ave", "mul"))]
SHAPES = {"LSTM": (4, 3, 2), "GRU": (3, 2, 1), "RNN": (1, 1, 1)}        # gates, activations and states of an operator
NOT_INSTALLED = "ONNX Runtime is not installed (pip install -e '.[peers]')"


def run_onnx(model, feed):
    """What ONNX Runtime computes, dict name -> array, of a model that ONNX's checker accepts."""
    onnxruntime = pytest.importorskip("onnxruntime", reason=NOT_INSTALLED)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip((value.name for value in model.graph.output), session.run(None, feed)))


def feed_of(batch, lengths):
    return {"x": batch["x"], "sequence_lens": np.array(lengths, "int32"), **states_of(batch)}


def compare(found, expected, tolerance):
    """The same names, and close; an assertion for each array."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert_close(found[name], array, tolerance, name)


# -------------------------------------------------------------------------------------------------------------- export

@pytest.mark.parametrize("direction, merge", MERGED)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", EXPORTED)
def test_onnxruntime_computes_what_we_do(kind, num_layers, direction, merge):
    """One model, batches of several sizes, ragged rows, padding that must not be read, initial states not zero."""
    rng = np.random.default_rng(0)
    net = random_layer(rng, kind, 3, 4, num_layers=num_layers, merge=merge, **DIRECTIONS[direction])
    model = to_onnx(net)
    for T, lengths in ((7, [7, 1, 4, 3]), (5, [3]), (4, [2, 2, 1, 2, 3, 1])):       # also padding in every row
        batch = random_batch(rng, net, len(lengths), T)
        batch["x"][np.arange(T) >= np.array(lengths)[:, None]] = np.nan
        expected, _ = net.forward(batch["x"], **states_of(batch), lengths=lengths)
        compare(run_onnx(model, feed_of(batch, lengths)), expected._asdict(), "onnxruntime, float32")


@pytest.mark.parametrize("kind", EXPORTED)
def test_one_hidden_unit_and_one_feature(kind):
    rng = np.random.default_rng(1)
    net = random_layer(rng, kind, 1, 1, bidirectional=True)
    batch = random_batch(rng, net, 3, 1)
    expected, _ = net.forward(batch["x"], **states_of(batch))
    compare(run_onnx(to_onnx(net), feed_of(batch, [1, 1, 1])), expected._asdict(), "onnxruntime, float32")


@pytest.mark.parametrize("direction, merge", MERGED)
@pytest.mark.parametrize("kind", ["LSTM", "LSTM, peepholes", "GRU", "GRU, reset before", "RNN, tanh"])
def test_reference_evaluator_computes_what_we_do_in_float64(kind, direction, merge):
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(2)
    net = random_layer(rng, kind, 3, 4, num_layers=2, merge=merge, dtype="float64", backend="reference",
                       **DIRECTIONS[direction])
    batch = random_batch(rng, net, 3, 5)
    model = to_onnx(net)
    onnx.checker.check_model(model, full_check=True)
    found = ReferenceEvaluator(model).run(None, feed_of(batch, [5, 5, 5]))
    expected, _ = net.forward(batch["x"], **states_of(batch))
    compare(dict(zip(expected._fields, found)), expected._asdict(), "same formulas, float64")


@pytest.mark.parametrize("kind", EXPORTED)
def test_onnxruntime_has_no_float64_kernels(kind):
    """What ``to_onnx`` warns of; float32 is the way out."""
    rng = np.random.default_rng(3)
    net = random_layer(rng, kind, 2, 3, dtype="float64")
    batch = random_batch(rng, net, 2, 4)
    with pytest.raises(Exception, match="does not support double|Could not find an implementation"):
        run_onnx(to_onnx(net), feed_of(batch, [4, 2]))
    batch = {name: a.astype("float32") for name, a in batch.items()}
    expected, _ = net.astype("float32").forward(batch["x"], **states_of(batch), lengths=[4, 2])
    found = run_onnx(to_onnx(net.astype("float32")), feed_of(batch, [4, 2]))
    compare(found, expected._asdict(), "onnxruntime, float32")


def test_dropout_is_left_out_since_it_acts_in_training_only():
    rng = np.random.default_rng(15)
    net = random_layer(rng, "GRU", 2, 3, num_layers=2, dropout=0.5, recurrent_dropout=0.5)
    batch = random_batch(rng, net, 3, 4)
    expected, _ = net.forward(batch["x"], **states_of(batch), lengths=[4, 1, 3])
    compare(run_onnx(to_onnx(net), feed_of(batch, [4, 1, 3])), expected._asdict(), "onnxruntime, float32")


def stack(rng):
    """Recurrent layers and Linear ones mixed, one of them twice, and a Sequential inside."""
    shared = minilstm.Linear(4, 4)
    model = minilstm.Sequential(
        minilstm.Linear(2, 3, bias=False), random_layer(rng, "LSTM", 3, 4, bidirectional=True, merge="ave"), shared,
        minilstm.Sequential(random_layer(rng, "GRU", 4, 4, num_layers=2, reverse=True), shared), minilstm.Linear(4, 1))
    for _, layer in model.walk():
        if "bias" in layer.params:
            layer.params["bias"] = rng.normal(size=layer.output_size).astype("float32")
    return model


def test_a_stack_with_heads():
    rng = np.random.default_rng(4)
    first, lstm, shared, inner, head = (model := stack(rng)).layers
    x, lengths = rng.normal(size=(3, 6, 2)).astype("float32"), [6, 2, 3]
    h, c = rng.normal(size=(2, 1, 2, 3, 4)).astype("float32")
    h_gru = rng.normal(size=(2, 1, 3, 4)).astype("float32")
    over, _ = lstm.forward(first.forward(x)[0], h0=h, c0=c, lengths=lengths)
    top, _ = inner.layers[0].forward(shared.forward(over.y)[0], h0=h_gru, lengths=lengths)
    y, _ = head.forward(shared.forward(top.y)[0])
    feed = {"x": x, "sequence_lens": np.array(lengths, "int32"), "1.h0": h, "1.c0": c, "3.0.h0": h_gru}
    expected = {"1.h_n": over.h_n, "1.c_n": over.c_n, "3.0.h_n": top.h_n, "y": y}
    compare(run_onnx(to_onnx(model), feed), expected, "onnxruntime, float32")


def test_padding_behind_a_head_holds_its_bias():
    """A recurrent layer says 0 there; a Linear makes its bias of that, in ONNX as in ours."""
    rng = np.random.default_rng(5)
    model = minilstm.Sequential(random_layer(rng, "GRU", 2, 3), minilstm.Linear(3, 1))
    model.layers[1].params["bias"] = np.array([0.75], "float32")
    x, h = rng.normal(size=(2, 4, 2)).astype("float32"), np.zeros((1, 1, 2, 3), "float32")
    ours, _ = model.forward(x, mask=np.arange(4) < np.array([[4], [2]]))
    theirs = run_onnx(to_onnx(model), {"x": x, "sequence_lens": np.array([4, 2], "int32"), "h0": h})["y"]
    assert (ours[1, 2:] == 0.75).all() and (theirs[1, 2:] == 0.75).all()
    assert_close(theirs, ours, "onnxruntime, float32")


@pytest.mark.parametrize("kind", EXPORTED)
def test_a_row_without_steps_is_where_the_two_differ(kind):
    """Ours keeps the initial state; ONNX Runtime says 0, and the specification says nothing.  y is 0 in both."""
    rng = np.random.default_rng(6)
    net = random_layer(rng, kind, 2, 3, bidirectional=True)
    batch = random_batch(rng, net, 3, 4)
    ours, _ = net.forward(batch["x"], **states_of(batch), lengths=[4, 0, 2])
    theirs = run_onnx(to_onnx(net), feed_of(batch, [4, 0, 2]))
    assert not ours.y[1].any() and not theirs["y"][1].any()
    for s in net.cell.states:
        ours_n, theirs_n = getattr(ours, f"{s}_n"), theirs[f"{s}_n"]
        assert same_bits(ours_n[:, :, 1], batch[f"{s}0"][:, :, 1])
        assert not theirs_n[:, :, 1].any()
        assert_close(theirs_n[:, :, [0, 2]], ours_n[:, :, [0, 2]], "onnxruntime, float32")


def test_what_the_graph_says_of_itself():
    model = to_onnx(minilstm.LSTM(3, 4, num_layers=2, bidirectional=True, merge="sum"))
    assert (model.producer_name, model.producer_version) == ("minilstm", minilstm.__version__)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (4, [("", 7)])
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    described = {}
    for value in (*inferred.graph.input, *inferred.graph.output):
        shape = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        described[value.name] = (onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name, shape)
    state = ("float32", [2, 2, "B", 4])
    assert described == {"x": ("float32", ["B", "T", 3]), "sequence_lens": ("int32", ["B"]), "h0": state, "c0": state,
                         "y": ("float32", ["B", "T", 4]), "h_n": state, "c_n": state}
    assert [node.name for node in model.graph.node if node.op_type == "LSTM"] == ["LSTM_l0", "LSTM_l1"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["kind"] in EXPORTED])
def test_from_pytorch_by_way_of_minilstm(name):
    """The weights of a PyTorch layer in ours, exported: ONNX Runtime says what PyTorch says, packed."""
    pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    case = CASES[name]
    weights, batch = make_inputs(case, seed=7)
    layer_class, of_kind = KINDS[case["kind"]]
    net = layer_class(case["D"], case["H"], **of_kind, **options_of(case))
    net.load_state_dict({name: w.astype("float32") for name, w in weights.items()})
    lengths = case.get("lengths", [case["T"]] * case["B"])
    found = run_onnx(to_onnx(net), feed_of({name: a.astype("float32") for name, a in batch.items()}, lengths))
    expected = run_torch(case, weights, batch)
    for name, array in found.items():
        assert_close(array, expected[name], "pytorch, float32", name)


class Twice(minilstm.Layer):
    """A layer that only this file knows."""
    input_size = output_size = 2

    def __init__(self):
        super().__init__("float32", "cpu")


class OwnLSTM(minilstm.LSTM):
    """Nobody knows what a subclass computes."""


@pytest.mark.parametrize("make, error, message", [
    (lambda: Twice(), TypeError, "expected GRU, LSTM, RNN, or a Sequential of these and Linear, got .*Twice"),
    (lambda: OwnLSTM(2, 3), TypeError, "got .*OwnLSTM"),
    (lambda: minilstm.Sequential(minilstm.RNN(2, 2), Twice()), TypeError, r"got 1\..*Twice; only these"),
    (lambda: "model.onnx", TypeError, "got .*str"),
    (lambda: minilstm.Linear(2, 3), ValueError, "at least one recurrent layer, to read sequence_lens, got only Linear"),
    (lambda: minilstm.LSTM(2, 3, proj_size=2), ValueError,
     "LSTM: expected one of the cells .*, got 'LSTM with projection', which no ONNX operator computes"),
    (lambda: minilstm.LSTM(2, 3, layer_norm=True).astype("float64"), ValueError, "got 'LSTM, layer-normalised'"),
    (lambda: minilstm.Sequential(minilstm.GRU(2, 3, layer_norm=True)), ValueError, r"^0\.GRU: .* 'GRU, layer-norm"),
    (lambda: minilstm.RNN(2, 3, zoneout_h=0.25), ValueError, "RNN, zoneout_h: expected 0, got 0.25; no ONNX operator"),
    (lambda: minilstm.LSTM(2, 3, zoneout_c=0.5), ValueError, "LSTM, zoneout_c: expected 0, got 0.5"),
    (lambda: minilstm.GRU(2, 3).astype("complex128"), ValueError, "dtype: expected one of 'float32', 'float64', got "),
])
def test_what_cannot_be_exported(make, error, message):
    with pytest.raises(error, match=message):
        to_onnx(make())


# -------------------------------------------------------------------------------------------------------------- import

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", EXPORTED)
def test_round_trip_is_bit_for_bit(kind, direction, dtype):
    net = random_layer(np.random.default_rng(8), kind, 2, 3, dtype=dtype, **DIRECTIONS[direction])
    (name, again), = from_onnx(to_onnx(net), backend="reference").items()
    assert name == f"{type(net).__name__}_l0" and again.backend == "reference"
    assert type(again) is type(net) and again.dtype == net.dtype and again.arguments() == net.arguments()
    assert again.params.keys() == net.params.keys()
    assert all(same_bits(again.params[name], p) for name, p in net.params.items())


def test_every_level_is_a_layer_and_files_and_bytes_are_read(tmp_path):
    model = stack(np.random.default_rng(9))
    exported = to_onnx(model)
    onnx.save(exported, tmp_path / "model.onnx")
    onnx.save(to_onnx(model), tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="weights")
    for source in (exported, exported.SerializeToString(), tmp_path / "model.onnx", str(tmp_path / "split.onnx")):
        layers = from_onnx(source)
        assert list(layers) == ["1.LSTM_l0", "3.0.GRU_l0", "3.0.GRU_l1"]
        assert same_bits(layers["3.0.GRU_l1"].params["weight_hh_l0"], model.state_dict()["3.0.weight_hh_l1"])


def made_by_hand(rng, operator, dtype="float32", H=3, without="", computed=(), opset=14, name="net", outputs=("Y",),
                 change=lambda arrays: None, **attributes):
    """A model of one node, made without our exporter.

    without: letters of the inputs to leave out; computed: inputs that are no constants; change: of the arrays, last"""
    gates, _, states = SHAPES[operator]
    dirs, D = 1 + (attributes.get("direction") == "bidirectional"), 2
    shapes = {"W": (dirs, gates * H, D), "R": (dirs, gates * H, H), "B": (dirs, 2 * gates * H), "P": (dirs, 3 * H)}
    arrays = {letter: (0.6 * rng.normal(size=shape)).astype(dtype) for letter, shape in shapes.items()
              if letter not in without}
    change(arrays)
    helper, float_type = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    fed = {"X": ("T", "N", D), "lens": ("N",), "h": (dirs, "N", H), "c": (dirs, "N", H)}
    fed = dict(list(fed.items())[:2 + states])
    order = ["X", "W", "R", "B", *list(fed)[1:], "P"]
    inputs = [letter if letter in fed or letter in arrays else "" for letter in order]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(operator, inputs, outputs, name=name, **({"hidden_size": H} | attributes))
    types = {letter: onnx.TensorProto.INT32 if letter == "lens" else float_type for letter in fed}
    given = [helper.make_tensor_value_info(letter, types[letter], shape) for letter, shape in fed.items()]
    given += [helper.make_tensor_value_info(letter, float_type, arrays[letter].shape) for letter in computed]
    results = [helper.make_tensor_value_info(output, float_type, ("T",) * (output == "Y") + (dirs, "N", H))
               for output in outputs]
    constants = [onnx.numpy_helper.from_array(array, letter) for letter, array in arrays.items()
                 if letter not in computed]
    graph = helper.make_graph([node], "by hand", given, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


NODES = {
    "LSTM": ("LSTM", dict(without="P")),
    "LSTM, no biases": ("LSTM", dict(without="BP", direction="reverse")),
    "LSTM, peepholes": ("LSTM", dict(direction="bidirectional")),
    "LSTM, peepholes and no biases": ("LSTM", dict(without="B")),
    "LSTM, input_forget": ("LSTM", dict(without="P", input_forget=1, direction="bidirectional")),
    "LSTM, all activations named": ("LSTM", dict(without="P", activations=["Sigmoid", "Tanh", "Tanh"])),
    "GRU, reset before": ("GRU", dict(without="P")),
    "GRU, reset before, both": ("GRU", dict(without="P", direction="bidirectional", linear_before_reset=0)),
    "GRU, reset after": ("GRU", dict(without="P", linear_before_reset=1, direction="bidirectional", opset=22)),
    "GRU, no biases": ("GRU", dict(without="BP", linear_before_reset=1, direction="reverse", opset=7)),
    "RNN": ("RNN", dict(without="P", direction="bidirectional")),
    "RNN, relu": ("RNN", dict(without="P", activations=["Relu"], direction="reverse")),
    "RNN, relu, both": ("RNN", dict(without="P", activations=["Relu"] * 2, direction="bidirectional")),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_made_by_hand_and_the_layer_read_from_it(name):
    """ONNX Runtime runs the node, time first; the layer gives the same, batch first."""
    rng = np.random.default_rng(10)
    operator, options = NODES[name]
    states = ["h", "c"][:SHAPES[operator][2]]
    model = made_by_hand(rng, operator, **options, outputs=["Y", *(f"Y_{s}" for s in states)])
    net = from_onnx(model)["net"]
    batch = random_batch(rng, net, 4, 5)
    lengths = np.array([5, 2, 1, 4], "int32")
    initial = {s: batch[f"{s}0"][0] for s in states}
    found = run_onnx(model, {"X": batch["x"].swapaxes(0, 1), "lens": lengths, **initial})
    expected, _ = net.forward(batch["x"], **states_of(batch), lengths=lengths)
    halves = found.pop("Y").transpose(2, 0, 1, 3)                                   # (T,dirs,B,H) -> (B,T,dirs,H)
    assert_close(halves.reshape(expected.y.shape), expected.y, "onnxruntime, float32", "y")
    for s in states:
        assert_close(found[f"Y_{s}"], getattr(expected, f"{s}_n")[0], "onnxruntime, float32", f"{s}_n")


def test_nodes_without_names_and_weights_in_constant_nodes():
    """Names by operator and place; a foreign domain's LSTM is not ONNX's, and is passed over."""
    rng = np.random.default_rng(11)
    model = made_by_hand(rng, "GRU", without="P", name="")
    graph, helper = model.graph, onnx.helper
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in graph.initializer]
    foreign = helper.make_node("LSTM", ["X"], ["Z"], domain="org.example")
    recurrent = list(graph.node)
    expected = from_onnx(model)["GRU_0"]
    del graph.initializer[:], graph.node[:]
    graph.node.extend([*constants, foreign, *recurrent])
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    (name, found), = from_onnx(model).items()
    assert name == "GRU_4"
    assert all(same_bits(found.params[name], p) for name, p in expected.params.items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_what_pytorch_exports_is_read(tmp_path, kind):
    """The weights come back; a model of two layers is two nodes."""
    torch = pytest.importorskip("torch", reason="live comparison: PyTorch is not installed (pip install -e '.[peers]')")
    theirs = getattr(torch.nn, kind)(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    torch.onnx.export(theirs, (torch.zeros(1, 5, 3),), str(tmp_path / "model.onnx"), dynamo=False)
    layers = list(from_onnx(tmp_path / "model.onnx").values())
    assert [type(layer).__name__ for layer in layers] == [kind, kind]
    for name, weight in theirs.named_parameters():
        level = int("_l1" in name)
        assert same_bits(layers[level].params[name.replace("_l1", "_l0")], weight.detach().numpy()), name


def shaped(letter, *shape):
    """A change of ``made_by_hand``: another shape for one of the weights."""
    return lambda arrays: arrays.update({letter: np.zeros(shape, "float32")})


@pytest.mark.parametrize("operator, options, message", [
    ("LSTM", dict(activations=["Sigmoid", "Relu", "Tanh"]),
     r"node 'net', activations: expected \('Sigmoid', 'Tanh', 'Tanh'\), got \('Sigmoid', 'Relu', 'Tanh'\)"),
    ("GRU", dict(activations=["Relu", "Tanh"]), r"expected \('Sigmoid', 'Tanh'\), got \('Relu', 'Tanh'\)"),
    ("RNN", dict(activations=["Elu"]), r"expected \('Tanh',\) or \('Relu',\), got \('Elu',\)"),
    ("RNN", dict(activations=["Tanh", "Relu"], direction="bidirectional"),
     r"expected \('Tanh', 'Tanh'\) or \('Relu', 'Relu'\), got \('Tanh', 'Relu'\)"),
    ("LSTM", dict(clip=3.0), r"node 'net', clip: expected none, got 3\.0"),
    ("GRU", dict(clip=0.0), r"node 'net', clip: expected none, got 0\.0"),
    ("RNN", dict(activation_alpha=[0.5]), r"node 'net', activation_alpha: expected none, got \[0\.5\]"),
    ("GRU", dict(activation_beta=[0.5]), r"node 'net', activation_beta: expected none, got \[0\.5\]"),
    ("LSTM", dict(without="", input_forget=1), "'net', input_forget, P: expected at most one of the two, got both"),
    ("GRU", dict(direction="sideways"), "node 'net', direction: expected one of 'forward', .*, got 'sideways'"),
    ("LSTM", dict(computed=["R"]),
     "node 'net', R: expected an initializer or a constant, got 'R', which is computed .*folding"),
    ("GRU", dict(dtype="float16"), "node 'net', W: expected FLOAT or DOUBLE, got FLOAT16"),
    ("GRU", dict(change=shaped("R", 1, 9)), r"node 'net', R: expected three axes, got float32 \(1, 9\)"),
    ("LSTM", dict(change=shaped("R", 1, 12, 4)), r"R: expected float32 \(1, 12, 3\), got float32 \(1, 12, 4\)"),
    ("LSTM", dict(change=shaped("W", 2, 12, 2)), r"W: expected float32 \(1, 12, 2\), got float32 \(2, 12, 2\)"),
    ("RNN", dict(change=shaped("B", 1, 3)), r"B: expected float32 \(1, 6\), got float32 \(1, 3\)"),
    ("LSTM", dict(without="", change=shaped("P", 1, 3)), r"P: expected float32 \(1, 9\), got float32 \(1, 3\)"),
    ("GRU", dict(change=lambda arrays: arrays.update(B=arrays["B"].astype("float64"))),
     r"B: expected float32 \(1, 18\), got float64 \(1, 18\)"),
    ("GRU", dict(hidden_size=4), r"W: expected float32 \(1, 12, 2\), got float32 \(1, 9, 2\)"),
])
def test_nodes_that_no_layer_can_be(operator, options, message):
    model = made_by_hand(np.random.default_rng(12), operator, **({"without": "P"} | options))
    with pytest.raises(ValueError, match=message) as raised:
        from_onnx(model)
    assert type(raised.value) is ValueError


def test_models_without_such_nodes_or_with_two_of_one_name():
    empty = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Tanh", ["x"], ["y"])], "g", [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1,))], []))
    empty.ir_version = 7
    with pytest.raises(ValueError, match="one node of GRU, LSTM, RNN in its main graph, got none among 1 nodes"):
        from_onnx(empty)
    model = made_by_hand(np.random.default_rng(13), "RNN", without="P")
    model.graph.node.append(model.graph.node[0])
    model.graph.node[1].output[0] = "Z"
    with pytest.raises(ValueError, match="names of their own, got two called 'net'"):
        from_onnx(model)


def test_weights_in_a_file_beside_bytes(tmp_path, monkeypatch):
    """A file of that name where the program happens to run is not the model's."""
    onnx.save(to_onnx(minilstm.RNN(2, 3)), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0,
              location="weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'RNN_l0', W: expected numbers in the model itself, .* the path of the model"):
        from_onnx((tmp_path / "m.onnx").read_bytes())
    (tmp_path / "weights").unlink()
    with pytest.raises(minilstm.FormatError, match="m.onnx: expected an ONNX model.* got one with: .*weights"):
        from_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("content", [b"", b"{}", b"no model at all", bytes(40), b"\x08\x07"])
def test_files_that_are_not_onnx(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    for source in (tmp_path / "model.onnx", content):
        with pytest.raises(minilstm.FormatError, match="model.*: expected an ONNX model.* got one with"):
            from_onnx(source)


def test_damaged_parts():
    model = made_by_hand(np.random.default_rng(14), "LSTM", without="P", output_sequence=1)     # of a first, older LSTM
    with pytest.raises(minilstm.FormatError, match="model: expected an ONNX model.* got one with: .*output_sequence"):
        from_onnx(model)
    model = made_by_hand(np.random.default_rng(14), "RNN", without="P")
    model.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(minilstm.FormatError, match="model: expected an ONNX model.* got one with: .*W"):
        from_onnx(model)
    content = made_by_hand(np.random.default_rng(14), "GRU", without="P", direction="reverse").SerializeToString()
    with pytest.raises(minilstm.FormatError, match="model: expected an ONNX model.* got one with: .*can't decode byte"):
        from_onnx(content.replace(b"reverse", b"rev\xffrse"))


def test_other_wrong_arguments(tmp_path):
    with pytest.raises(TypeError, match="model_or_path: expected an onnx.ModelProto, bytes or a path, got int"):
        from_onnx(3)
    with pytest.raises(ValueError, match="backend: expected one of 'reference', 'cpu', 'gpu', got 'tpu'"):
        from_onnx(to_onnx(minilstm.RNN(1, 1)), backend="tpu")
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "missing.onnx")


def test_onnx_is_imported_when_it_is_needed_and_missed_with_a_cure(monkeypatch):
    subprocess.run([sys.executable, "-c", "import sys, minilstm.interop; assert 'onnx' not in sys.modules"], check=True)
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (lambda: to_onnx(minilstm.RNN(1, 1)), lambda: from_onnx(b"")):
        with pytest.raises(ImportError, match="ONNX cannot be imported .*: pip install onnx"):
            call()
