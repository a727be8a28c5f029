"""Keras' layers from minilstm layers, and back, with the same weights.

Both compute the same functions and keep the numbers in different places:

                    minilstm                                    Keras
    kernels         weight_ih (G*H,D), weight_hh (G*H,H)        kernel (D,G*H), recurrent_kernel (H,G*H)
    LSTM's blocks   i, f, g, o                                  i, f, c, o: its c is our g
    GRU's blocks    r, z, n                                     z, r, h: its h is our n
    biases          two, of (G*H,) each                         the GRU with reset_after: (2,G*H); all others: one
    both ways       bidirectional, merge                        Bidirectional, merge_mode with the same names
    from the end    reverse; y is in place                      go_backwards; the outputs are in the order of the walk
    layers          num_layers                                  a layer of its own each
    linear          weight (F,D)                                kernel (D,F)

One bias becomes b_ih, beside a b_hh of zeros; back, it is b_ih + b_hh.  Wherever Keras has one bias our two only ever
stand as their sum, in the GRU that resets before the product too.

Source: layers/rnn/lstm.py, gru.py, simple_rnn.py, bidirectional.py and rnn.py of Keras 3.15.
"""
import numpy as np

from ..arguments import FLOATS, flag
from ..layers import GRU, LSTM, RNN, Linear, Sequential
from ..layers.merge import RULES
from .common import check_options, class_of, convert_row, in_a_row, our_row, peer, reorder

KERAS_NAME = {LSTM: "LSTM", GRU: "GRU", RNN: "SimpleRNN"}
KERAS_ORDER = {LSTM: "ifgo", GRU: "zrn", RNN: "a"}      # of the blocks, by our names; our order is layer.cell.blocks
OF_A_KIND = {LSTM: (), GRU: ("reset_after",), RNN: ("activation",)}     # options of the same name on both sides
SHARED = ("input_size", "hidden_size", "num_layers", "bidirectional", "reverse", "merge", "reset_after", "activation")
REASONS = {
    "dropout": "Keras has a layer of its own for it; it acts in training alone, the weights are the same without",
    "recurrent_dropout": "Keras' is another one; it acts in training alone, the weights are the same without",
}


def from_keras(layer, *, backend="cpu"):
    """A built Keras LSTM, GRU, SimpleRNN, Bidirectional of one of these, or Dense without activation -> the minilstm
    layer with the same weights and dtype; a keras.Sequential, list or tuple of them -> a Sequential.

    What a Keras layer hands out is for each call to choose here, and not taken over: ``return_sequences`` and
    ``return_state`` (forward returns every step and the final states) and ``zero_output_for_mask`` (our masked_output:
    True is "zero", False is "hold"; a Bidirectional that returns sequences always gives zeros).  So a Dense that Keras
    puts on the last output stands here on every step, and that of the last real step is Keras' (with go_backwards=True,
    that of the first).  What a Bidirectional with return_sequences=False gives alone are the two ends, h_n, merged.
    go_backwards=True becomes reverse=True: Keras' outputs are in the order of its walk, the last step first, ours in
    place.  use_bias=False becomes biases of zeros, which would learn if they were trained.  Initialisers, regularisers,
    constraints and ``trainable`` stay behind.
    Raises TypeError for another class, also a subclass, since it may compute something else; ValueError, which says
    why, for a layer without weights, or one that computes what minilstm does not."""
    keras = _keras()
    containers = (list, tuple, keras.Sequential)
    row = in_a_row(layer, containers)
    layers = convert_row(lambda one: _import(keras, one, backend), row)
    _check_row(keras, row, alone=type(layer) not in containers)
    return Sequential(*layers) if type(layer) in containers else layers[0]


def to_keras(layer, *, return_state=False):
    """A minilstm LSTM, GRU, RNN or Linear -> the built Keras layer with the same weights and dtype; one with several
    layers, or a Sequential -> a keras.Sequential.

    return_state    also return the final states; possible for a recurrent layer alone
    The Keras layers return whole sequences (``return_sequences``), and zeros on masked steps, as ours do by default
    (``zero_output_for_mask``).  Outputs of reverse=True are in the order of the walk there, the last step first.  Keras
    on PyTorch multiplies float64 numbers as float32 ones, but for an LSTM or a reset-after GRU without mask.
    Raises TypeError for another class of layer, ValueError for a complex one and for what Keras has not."""
    keras = _keras()
    flag("return_state", return_state)
    ours = our_row(layer)
    if len({id(one) for one in ours}) < len(ours):
        raise ValueError("layer: expected every layer once, got one that stands in the Sequential twice, which a "
                         "keras.Sequential cannot hold")
    row = [theirs for one in ours for theirs in _export(keras, one, return_state)]
    alone = len(row) == 1 and type(layer) is not Sequential
    if return_state and (not alone or type(layer) is Linear):
        raise ValueError("return_state: expected False, got True: only a recurrent layer alone can return its states, "
                         "not a Dense and not a keras.Sequential")
    _check_row(keras, row, alone)
    if alone:
        return row[0]
    return keras.Sequential([keras.Input((None, ours[0].input_size), dtype=layer.dtype.name), *row])


# -------------------------------------------------------------------------------------------------------- from Keras

def _import(keras, layer, backend):
    if type(layer) is keras.layers.Dense:
        return _import_dense(keras, layer, backend)
    both = type(layer) is keras.layers.Bidirectional
    halves = [layer.forward_layer, layer.backward_layer] if both else [layer]
    ours, arguments = _counterpart(keras, halves[0])
    if both:
        _check_bidirectional(layer, (ours, arguments), _counterpart(keras, halves[1]))
        arguments |= {"bidirectional": True, "merge": layer.merge_mode}
    net = ours(**arguments, reverse=not both and layer.go_backwards, backend=backend, seed=None)
    state = {}
    for half, direction in zip(halves, net.directions):
        weights = _our_weights(net, *_arrays(keras, half.weights))
        state |= {name: weights[field] for field, name in net._names(0, direction).items()}
    net.load_state_dict(state)
    return net


def _import_dense(keras, layer, backend):
    _check_built(layer)
    _check_activation(layer, "activation", (keras.activations.linear,))
    _expect(layer, "quantization_mode", None, "minilstm computes in float32 and float64 alone")
    D, F = layer.kernel.shape
    net = Linear(D, F, bias=layer.use_bias, dtype=layer.compute_dtype, backend=backend, seed=None)
    weight, *bias = _arrays(keras, [layer.kernel, layer.bias] if layer.use_bias else [layer.kernel])
    net.load_state_dict(dict(zip(net.params, [weight.T, *bias])))
    return net


def _arrays(keras, variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _our_weights(net, kernel, recurrent_kernel, bias=None):
    """The arrays of one Keras cell -> dict of W, U, b_ih and b_hh, in our layout."""
    if bias is None:
        bias = np.zeros(kernel.shape[1], kernel.dtype)
    b_ih, b_hh = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    weights = {"W": kernel.T, "U": recurrent_kernel.T, "b_ih": b_ih, "b_hh": b_hh}
    return {field: reorder(array, KERAS_ORDER[type(net)], net.cell.blocks) for field, array in weights.items()}


def _counterpart(keras, layer):
    """A recurrent Keras layer -> our class, and its arguments, those for two directions left out."""
    classes = {getattr(keras.layers, name): ours for ours, name in KERAS_NAME.items()}
    if type(layer) not in classes:
        raise TypeError(f"layer: expected one of Keras' {', '.join(KERAS_NAME.values())}, a Bidirectional of these, a "
                        f"Dense, or a Sequential or list of them, got {class_of(layer)}; of a larger model, give a "
                        "list of the layers that are such")
    ours = classes[type(layer)]
    _check_built(layer)
    _expect(layer, "stateful", False, "minilstm's layers take a state and return one, and keep none between calls")
    for dropout in ("dropout", "recurrent_dropout"):
        _expect(layer, dropout, 0, f"it acts in training alone: set layer.cell.{dropout} = 0, the weights are the same")
    tanh, relu, sigmoid = keras.activations.tanh, keras.activations.relu, keras.activations.sigmoid
    _check_activation(layer, "activation", (tanh, relu) if ours is RNN else (tanh,))
    if ours is not RNN:
        _check_activation(layer, "recurrent_activation", (sigmoid,))
    arguments = {"input_size": layer.cell.kernel.shape[0], "hidden_size": layer.units, "dtype": layer.compute_dtype}
    if ours is GRU:
        arguments["reset_after"] = layer.reset_after
    if ours is RNN:
        arguments["activation"] = layer.activation.__name__
    return ours, arguments


def _check_built(layer):
    if not layer.built:
        raise ValueError(f"{layer.name}: expected a built layer, got one without weights: call it once, or its build "
                         "with the shape of its input")
    if layer.compute_dtype not in FLOATS or layer.variable_dtype != layer.compute_dtype:
        raise ValueError(f"{layer.name}: expected float32 or float64 for weights and computation alike, "
                         f"got {layer.variable_dtype} and {layer.compute_dtype}")


def _check_activation(layer, name, allowed):
    came = getattr(layer, name)
    if came not in allowed:
        raise ValueError(f"{layer.name}.{name}: expected Keras' {' or '.join(one.__name__ for one in allowed)}, "
                         f"got {getattr(came, '__module__', '')}.{getattr(came, '__name__', came)}")


def _expect(layer, name, value, why):
    came = getattr(layer, name)
    if came != value:
        raise ValueError(f"{layer.name}.{name}: expected {value!r}, got {came!r}: {why}")


def _check_bidirectional(layer, forward, backward):
    if layer.merge_mode not in RULES:
        raise ValueError(f"{layer.name}.merge_mode: expected one of {', '.join(map(repr, RULES))}, "
                         f"got {layer.merge_mode!r}: minilstm's y is one array")
    if layer.forward_layer.go_backwards:
        raise ValueError(f"{layer.name}.forward_layer: expected go_backwards=False, got True: Keras would turn "
                         "the outputs of the wrong half round")
    if forward != backward:
        kinds = [f"{ours.__name__} {arguments}" for ours, arguments in (forward, backward)]
        raise ValueError(f"{layer.name}: expected two halves of one kind, got {kinds[0]} and {kinds[1]}")
    if layer.compute_dtype != forward[1]["dtype"]:
        raise ValueError(f"{layer.name}: expected the dtype of its halves, {forward[1]['dtype']}, "
                         f"got {layer.compute_dtype}")


# ---------------------------------------------------------------------------------------------------------- to Keras

def _export(keras, layer, return_state):
    """One of our layers -> a list of built Keras layers, one for each of its own."""
    if type(layer) is Linear:
        dense = keras.layers.Dense(layer.output_size, use_bias="bias" in layer.params, dtype=layer.dtype.name)
        dense.build((None, layer.input_size))
        weight, *bias = layer.params.values()
        dense.set_weights([weight.T, *bias])
        return [dense]
    check_options(layer, "Keras", SHARED, REASONS)
    return [_export_level(keras, layer, level, return_state) for level in range(layer.num_layers)]


def _export_level(keras, layer, level, return_state):
    arguments = layer.arguments()
    dtype = layer.dtype.name
    theirs = getattr(keras.layers, KERAS_NAME[type(layer)])(
        layer.hidden_size, return_sequences=True, return_state=return_state, go_backwards=layer.reverse,
        zero_output_for_mask=True, dtype=dtype, **{name: arguments[name] for name in OF_A_KIND[type(layer)]})
    if layer.bidirectional:
        theirs = keras.layers.Bidirectional(theirs, merge_mode=layer.merge, dtype=dtype)
    theirs.build((None, None, layer.input_size if level == 0 else layer.output_size))
    halves = [theirs.forward_layer, theirs.backward_layer] if layer.bidirectional else [theirs]
    for half, direction in zip(halves, layer.directions):
        weights = {field: layer.params[name] for field, name in layer._names(level, direction).items()}
        half.set_weights(_keras_weights(layer, **weights))
    return theirs


def _keras_weights(layer, W, U, b_ih, b_hh):
    """Our arrays of one direction -> kernel, recurrent_kernel and bias of one Keras cell."""
    W, U, b_ih, b_hh = [reorder(array, layer.cell.blocks, KERAS_ORDER[type(layer)]) for array in (W, U, b_ih, b_hh)]
    two_biases = type(layer) is GRU and layer.arguments()["reset_after"]
    return [W.T, U.T, np.stack([b_ih, b_hh]) if two_biases else b_ih + b_hh]


# -------------------------------------------------------------------------------------------------------------- both

def _check_row(keras, row, alone):
    """What Keras' layers hand on must be what ours hand on."""
    recurrent = (*(getattr(keras.layers, name) for name in KERAS_NAME.values()), keras.layers.Bidirectional)
    for below, layer in enumerate(row):
        above = row[below + 1:]
        if getattr(layer, "go_backwards", False) and any(type(one) in recurrent for one in above):
            raise ValueError(f"{layer.name}: expected no recurrent layer above one that walks backward alone, got one: "
                             "Keras hands on its outputs with the last step first, minilstm in place")
        if type(layer) is keras.layers.Bidirectional and not layer.return_sequences and not alone:
            raise ValueError(f"{layer.name}: expected return_sequences=True in a row of layers, got False: Keras hands "
                             "on the ends of both walks, which a minilstm.Sequential cannot; convert it alone, they "
                             "are its h_n")


def _keras():
    return peer("keras", "Keras", "; without TensorFlow, choose another backend before the import: KERAS_BACKEND=torch")
