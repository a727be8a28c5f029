"""The recurrent layers of ONNX graphs as layers of ours.  How its operators differ from them: ``onnx_operators``."""
import os

import numpy as np

from .. import backends
from ..arguments import describe, one_of
from ..layers import FormatError
from .common import peer, reorder
from .onnx_operators import BLOCKS, PEEPHOLES, RECURRENT

ACTIVATIONS = {"GRU": [("Sigmoid", "Tanh")], "LSTM": [("Sigmoid", "Tanh", "Tanh")], "RNN": [("Tanh",), ("Relu",)]}


def from_onnx(model_or_path, *, backend="cpu"):
    """The recurrent layers of an ONNX model -> dict name of the node -> LSTM, GRU or RNN with its weights.

    model_or_path   onnx.ModelProto, the bytes of one, or the path of a file
    backend         of the layers, as everywhere

    Each LSTM, GRU or RNN node of the main graph becomes a layer with num_layers=1, forward, reverse or bidirectional
    with merge="concat", in float32 or float64 as its weights are; biases that are not there become zeros.  A node
    without a name goes by its operator and its place among all nodes: "LSTM_3".  The rest of the graph is not read: how
    the nodes hang together, what feeds them, nodes inside If, Loop and Scan, and sequence lengths and initial states,
    also constant ones, which are arguments of ``forward``.

    Raises FormatError, which is a ValueError, for what is no ONNX model, or has damaged parts; ValueError for a model
    without such nodes, and for a node that no layer of ours computes (other activations, clip, peepholes together with
    input_forget), or whose weights are computed in the graph, of another dtype, or do not fit each other; TypeError
    for another kind of argument, OSError for a file that cannot be read, ImportError where the package onnx is not
    installed."""
    onnx = peer("onnx", "ONNX")
    from google.protobuf.message import DecodeError         # protobuf comes with onnx

    one_of("backend", backend, backends.NAMES)
    try:
        return _recurrent_layers(onnx, _read(onnx, model_or_path), backend)
    except (DecodeError, UnicodeDecodeError, onnx.checker.ValidationError) as error:
        source = model_or_path if isinstance(model_or_path, (str, os.PathLike)) else "model"
        raise FormatError(f"{source}: expected an ONNX model with today's attributes (onnx.version_converter makes one "
                          f"of an older model), got one with: {error}") from error


def _read(onnx, source):
    """A model, its bytes or its path -> its graph."""
    if isinstance(source, bytes):
        model = onnx.load_model_from_string(source)
    elif isinstance(source, (str, os.PathLike)):
        model = onnx.load(source, format="protobuf")
    elif isinstance(source, onnx.ModelProto):
        model = source
    else:
        raise TypeError(f"model_or_path: expected an onnx.ModelProto, bytes or a path, got {describe(source)}")
    if not model.HasField("graph"):
        raise FormatError("model: expected an ONNX model, got one without a graph")
    return model.graph


def _recurrent_layers(onnx, graph, backend):
    """Every recurrent node of a graph, dict name -> layer."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: attribute.t for node in graph.node if node.op_type == "Constant" and node.output
                for attribute in node.attribute if attribute.name == "value"}
    layers = {}
    for place, node in enumerate(graph.node):
        if node.op_type in RECURRENT and node.domain in ("", "ai.onnx"):
            name = node.name or f"{node.op_type}_{place}"
            if name in layers:
                raise ValueError(f"model: expected nodes with names of their own, got two called {name!r}")
            layers[name] = _layer(onnx, f"node {name!r}", node, tensors, backend)
    if not layers:
        raise ValueError(f"model: expected at least one node of {', '.join(RECURRENT)} in its main graph, got none "
                         f"among {len(graph.node)} nodes")
    return layers


def _layer(onnx, where, node, tensors, backend):
    """One node -> a layer.  ``where`` begins every message."""
    onnx.checker.check_node(node)
    operator = node.op_type
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    inputs = dict(zip(("W", "R", "B", "lens", "h", "c", "P"), node.input[1:]))      # X, the first, is not a weight
    weights = {letter: _array(onnx, f"{where}, {letter}", inputs[letter], tensors)
               for letter in ("W", "R", "B", "P") if inputs.get(letter)}
    direction = one_of(f"{where}, direction", attributes.get("direction", b"forward").decode(),
                       ("forward", "reverse", "bidirectional"))
    dirs = 2 if direction == "bidirectional" else 1
    options = _options(where, operator, attributes, dirs, "P" in weights)
    D, H = _check_weights(where, weights, dirs, len(BLOCKS[operator]), attributes.get("hidden_size"))
    layer = RECURRENT[operator](D, H, bidirectional=dirs == 2, reverse=direction == "reverse", dtype=weights["W"].dtype,
                                backend=backend, seed=None, **options)
    layer.load_state_dict(_parameters(layer, BLOCKS[operator], weights))
    return layer


def _array(onnx, where, name, tensors):
    """The value called ``name`` -> its array."""
    if name not in tensors:
        raise ValueError(f"{where}: expected an initializer or a constant, got {name!r}, which is computed in the "
                         "graph or given to it; an export with constant folding writes numbers")
    tensor = tensors[name]
    if tensor.data_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        kinds = {number: kind for kind, number in onnx.TensorProto.DataType.items()}
        raise ValueError(f"{where}: expected FLOAT or DOUBLE, got {kinds.get(tensor.data_type, tensor.data_type)}")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"{where}: expected numbers in the model itself, got {name!r} in a file beside it; "
                         "give from_onnx the path of the model")
    onnx.checker.check_tensor(tensor)
    return onnx.numpy_helper.to_array(tensor)


def _options(where, operator, attributes, dirs, peephole):
    """The attributes of a node -> the arguments of a layer that choose its cell."""
    for name in ("clip", "activation_alpha", "activation_beta"):
        if attributes.get(name, []) != []:
            raise ValueError(f"{where}, {name}: expected none, got {attributes[name]}; no layer here has it")
    choices = [activations * dirs for activations in ACTIVATIONS[operator]]
    got = tuple(name.decode() for name in attributes.get("activations", ())) or choices[0]
    if got not in choices:
        raise ValueError(f"{where}, activations: expected {' or '.join(map(str, choices))}, got {got}")
    if operator == "GRU":
        return {"reset_after": attributes.get("linear_before_reset", 0) != 0}
    if operator == "RNN":
        return {"activation": got[0].lower()}
    coupled = attributes.get("input_forget", 0) != 0
    if peephole and coupled:
        raise ValueError(f"{where}, input_forget, P: expected at most one of the two, got both; no cell here has both")
    return {"peephole": peephole, "coupled": coupled}


def _check_weights(where, weights, dirs, G, hidden_size):
    """Do dtypes and shapes fit each other, and ``hidden_size`` if it is given?  -> D, H"""
    dtype = weights["W"].dtype
    for letter in ("W", "R"):
        if weights[letter].ndim != 3:
            raise ValueError(f"{where}, {letter}: expected three axes, got {describe(weights[letter])}")
    D = weights["W"].shape[2]
    H = weights["R"].shape[2] if hidden_size is None else hidden_size
    shapes = {"W": (dirs, G * H, D), "R": (dirs, G * H, H), "B": (dirs, 2 * G * H), "P": (dirs, len(PEEPHOLES) * H)}
    for letter, array in weights.items():
        if array.dtype != dtype or array.shape != shapes[letter]:
            raise ValueError(f"{where}, {letter}: expected {dtype} {shapes[letter]}, got {describe(array)}")
    return D, H


def _parameters(layer, blocks, weights):
    """The weights of an operator, dict letter -> array (dirs,...) -> the ``state_dict`` of the layer."""
    state = {}
    for k, direction in enumerate(layer.directions):
        suffix = f"_l0{direction.suffix}"
        W, R = weights["W"][k], weights["R"][k]
        b_ih, b_hh = np.split(weights["B"][k], 2) if "B" in weights else [np.zeros(len(R), layer.dtype)] * 2
        for name, rows in (("weight_ih", W), ("weight_hh", R), ("bias_ih", b_ih), ("bias_hh", b_hh)):
            state[name + suffix] = reorder(rows, blocks, layer.cell.blocks)
        if layer.cell.own:
            state["own" + suffix] = reorder(weights["P"][k].reshape(len(PEEPHOLES), -1), PEEPHOLES, layer.cell.own)
    return state
