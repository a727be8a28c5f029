"""Models as ONNX graphs, to run wherever ONNX runs.  How its operators differ from our layers: ``onnx_operators``."""
import numpy as np

from .. import __version__, cells
from ..arguments import dtype_of
from ..layers import Linear, Sequential
from .common import class_of, peer, reorder
from .onnx_operators import BLOCKS, PEEPHOLES, RECURRENT

# The first operator set whose LSTM, GRU and RNN are today's but for layout, which ONNX Runtime lacks, and the oldest
# that ONNX Runtime promises to run.  From 13 on, the axes of Unsqueeze and ReduceSum would be inputs.
OPSET = 7
IR_VERSION = 4          # the first in which a weight need not be an input of the graph too

ATTRIBUTES = {                                                                      # what tells the cells apart
    cells.GRU_CELL.name: {"linear_before_reset": 1},
    cells.GRU_RESET_BEFORE_CELL.name: {"linear_before_reset": 0},
    cells.LSTM_CELL.name: {"input_forget": 0},
    cells.LSTM_COUPLED_CELL.name: {"input_forget": 1},
    cells.LSTM_PEEPHOLE_CELL.name: {"input_forget": 0},
    cells.RNN_RELU_CELL.name: {"activations": ("Relu",)},
    cells.RNN_TANH_CELL.name: {"activations": ("Tanh",)},
}
REDUCTIONS = {"sum": "ReduceSum", "ave": "ReduceMean", "mul": "ReduceProd"}         # of the axis of directions


def to_onnx(model):
    """An LSTM, GRU or RNN, or a Sequential of them and of Linear layers -> onnx.ModelProto.

    ``onnx.save(to_onnx(model), "model.onnx")`` makes a file of it.

    Inputs of the graph, all of them to be given:

        x               (B,T,D)             of the model's dtype; B > 0 and T are free; not read after the end of a row
        sequence_lens   (B,) int32          the first so many steps of a row are real
        h0              (layers,dirs,B,H)   initial state, zeros to begin with; for an LSTM also c0

    Outputs:

        y               (B,T,F)             as of ``forward`` with ``lengths``: 0 at the padding of a recurrent layer
        h_n             (layers,dirs,B,H)   after the last real step; for an LSTM also c_n

    Where there is more than one recurrent layer their states are named by place, as in ``state_dict``: "0.h0".

    The graph is for inference: dropout, which acts in training only, is left out.  ONNX Runtime sets the final states
    of a row without real steps to 0, where ours are the initial ones; an infinite input saturates its gates, where ours
    counts it as NaN; and it ends the process on an empty batch.  It has no float64 kernels of these operators:
    the graph of a float64 model is good ONNX that it refuses to run; give it ``to_onnx(model.astype("float32"))``.

    Raises TypeError for a layer of another class, ValueError for what no ONNX operator computes (projections, layer
    normalization, zoneout) and for a model without recurrent layers; ImportError where the package onnx is not
    installed."""
    onnx = peer("onnx", "ONNX")
    layers = _layers(model)
    _check_exportable(layers)
    several = sum(type(layer) is not Linear for _, layer in layers) > 1
    graph = _Graph(onnx, dtype_of("model.dtype", model.dtype))
    graph.input("x", graph.dtype, ("B", "T", layers[0][1].input_size))
    graph.input("sequence_lens", np.dtype("int32"), ("B",))
    graph.output("y", ("B", "T", layers[-1][1].output_size))
    y = graph.node("Transpose", ["x"], "x.time_first", perm=[1, 0, 2])
    for place, layer in layers:
        if type(layer) is Linear:
            y = _add_linear(graph, place, layer, y)
        else:
            y = _add_recurrent(graph, place, place if several else "", layer, y)
    graph.node("Transpose", [y], "y", perm=[1, 0, 2])
    return graph.model()


def _layers(model, place=""):
    """The layers that compute, in order, each with its place as ``state_dict`` has it: a list of (place, layer)."""
    if type(model) is Sequential:
        return [found for name, child in model.children().items() for found in _layers(child, f"{place}{name}.")]
    return [(place, model)]


def _check_exportable(layers):
    """Raise an error that says why, if ONNX has no operators for these layers."""
    for place, layer in layers:
        if type(layer) not in (*RECURRENT.values(), Linear):
            raise TypeError(f"model: expected {', '.join(RECURRENT)}, or a Sequential of these and Linear, got "
                            f"{place}{class_of(layer)}; only these have operators in ONNX")
        if type(layer) is not Linear:
            _check_cell(place, layer)
    if all(type(layer) is Linear for _, layer in layers):
        raise ValueError("model: expected at least one recurrent layer, to read sequence_lens, got only Linear")


def _check_cell(place, layer):
    """Raise ValueError if no operator computes what this recurrent layer does outside training."""
    where = f"{place}{type(layer).__name__}"
    if layer.cell.name not in ATTRIBUTES:
        raise ValueError(f"{where}: expected one of the cells {', '.join(map(repr, ATTRIBUTES))}, "
                         f"got {layer.cell.name!r}, which no ONNX operator computes")
    for name in ("zoneout_h", "zoneout_c"):
        if layer.arguments().get(name):
            raise ValueError(f"{where}, {name}: expected 0, got {layer.arguments()[name]}; no ONNX operator lets a "
                             "part of the old state through, as this does outside training too")


def _add_linear(graph, place, layer, x):
    """y = x @ weight.T + bias.  x, y: names of values (T,B,...)."""
    weight = graph.constant(f"{place}weight.T", layer._param("weight").T)
    y = graph.node("MatMul", [x, weight], f"{place}product")
    if "bias" in layer.params:
        y = graph.node("Add", [y, graph.constant(f"{place}bias", layer._param("bias"))], f"{place}y")
    return y


def _add_recurrent(graph, place, prefix, layer, x):
    """One ONNX operator for each of ``num_layers``.  x (T,B,D) -> y (T,B,F), names of values.

    prefix: of the names of the states, as inputs and outputs of the graph"""
    operator, states = type(layer).__name__, layer.cell.states
    shape = (layer.num_layers, len(layer.directions), "B", layer.hidden_size)
    for s in states:
        graph.input(f"{prefix}{s}0", graph.dtype, shape)
    finals = {s: [] for s in states}
    for k in range(layer.num_layers):
        name = f"{place}{operator}_l{k}"
        weights = {letter: graph.constant(f"{name}.{letter}", array)
                   for letter, array in _operator_weights(layer, k).items()}
        index = graph.constant(f"{name}.index", np.array(k, "int64"))
        initial = [graph.node("Gather", [f"{prefix}{s}0", index], f"{name}.initial_{s}", axis=0) for s in states]
        inputs = [x, weights["W"], weights["R"], weights["B"], "sequence_lens", *initial]
        if "P" in weights:
            inputs.append(weights["P"])
        outputs = [f"{name}.Y", *(f"{name}.Y_{s}" for s in states)]
        graph.node(operator, inputs, *outputs, name=name, **_attributes(layer))
        for s in states:
            finals[s].append(graph.node("Unsqueeze", [f"{name}.Y_{s}"], f"{name}.final_{s}", axes=[0]))
        x = _add_merge(graph, name, layer)
    for s in states:
        graph.node("Concat", finals[s], f"{prefix}{s}_n", axis=0)
        graph.output(f"{prefix}{s}_n", shape)
    return x


def _add_merge(graph, name, layer):
    """What becomes of the directions in Y (T,dirs,B,H), as in ``layers/merge.py`` -> the name of y (T,B,F)."""
    if layer.merge in REDUCTIONS:
        return graph.node(REDUCTIONS[layer.merge], [f"{name}.Y"], f"{name}.y", axes=[1], keepdims=0)
    halves = graph.node("Transpose", [f"{name}.Y"], f"{name}.halves", perm=[0, 2, 1, 3])
    shape = graph.constant(f"{name}.shape", np.array([0, 0, layer.output_size], "int64"))   # 0: the axis as it is
    return graph.node("Reshape", [halves, shape], f"{name}.y")


def _operator_weights(layer, k):
    """The weights of one layer of ``num_layers``: W, R, B and, with peepholes, P, dict letter -> array (dirs,...)."""
    blocks = BLOCKS[type(layer).__name__]
    directions = []
    for suffix in (f"_l{k}{direction.suffix}" for direction in layer.directions):
        W, R, b_ih, b_hh = (reorder(layer._param(name + suffix), layer.cell.blocks, blocks)
                            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        weights = {"W": W, "R": R, "B": np.concatenate([b_ih, b_hh])}
        if layer.cell.own:
            weights["P"] = reorder(layer._param("own" + suffix), layer.cell.own, PEEPHOLES).ravel()
        directions.append(weights)
    return {letter: np.stack([weights[letter] for weights in directions]) for letter in directions[0]}


def _attributes(layer):
    """What makes the operator this layer, beside its weights."""
    direction = "bidirectional" if layer.bidirectional else "reverse" if layer.reverse else "forward"
    attributes = {"direction": direction, "hidden_size": layer.hidden_size, **ATTRIBUTES[layer.cell.name]}
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * len(layer.directions)       # they are named for each
    return attributes


class _Graph:
    """An ONNX graph while it grows.  Values go by their names."""

    def __init__(self, onnx, dtype):
        self.onnx = onnx
        self.dtype = dtype
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []

    def input(self, name, dtype, shape):
        self.inputs.append(self._value(name, dtype, shape))

    def output(self, name, shape):
        self.outputs.append(self._value(name, self.dtype, shape))

    def constant(self, name, array):
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def node(self, operator, inputs, *outputs, name=None, **attributes):
        """-> the name of the first output, which is also the node's own if it is given none."""
        node = self.onnx.helper.make_node(operator, inputs, outputs, name=name or outputs[0], **attributes)
        self.nodes.append(node)
        return outputs[0]

    def model(self):
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, "minilstm", self.inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                 producer_name="minilstm", producer_version=__version__)

    def _value(self, name, dtype, shape):
        helper = self.onnx.helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
