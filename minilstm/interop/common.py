"""What the conversions share: the import of the other library, the order of blocks, layers in a row, and options that
only minilstm has."""
import importlib
import inspect

import numpy as np

from ..arguments import dtype_of
from ..layers import GRU, LSTM, RNN, Linear, Sequential

OURS = (LSTM, GRU, RNN, Linear)


def peer(module, name, hint=""):
    """The module of another library.  Raises ImportError, which says how to install it, where it cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{name} cannot be imported ({error}): pip install {module}{hint}") from error


def reorder(rows, have, want):
    """Blocks of rows in the order ``have`` -> in the order ``want``, with zeros for one that is not there."""
    blocks = dict(zip(have, np.split(rows, len(have))))
    nothing = np.zeros_like(blocks[have[0]])
    return np.concatenate([blocks.get(block, nothing) for block in want])


def class_of(value):
    """The full name of its class: many libraries have an LSTM."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def in_a_row(layer, containers):
    """The layers in a container, one of these classes, and in those inside it, in order; any other layer alone.

    Raises ValueError where there is none."""
    if type(layer) not in containers:
        return [layer]
    inside = getattr(layer, "layers", layer)            # a Sequential has layers, a list is them
    row = [one for inner in inside for one in in_a_row(inner, containers)]
    if not row:
        raise ValueError(f"layer: expected one layer or more, got an empty {type(layer).__name__}")
    return row


def our_row(layer):
    """The layers of a minilstm layer or Sequential, in order.

    Raises TypeError for a class that is not minilstm's own, ValueError for a complex dtype, either for a parameter that
    somebody put there and that is not of the layer's shape or dtype."""
    row = in_a_row(layer, (Sequential,))
    for one in row:
        if type(one) not in OURS:
            names = ", ".join(known.__name__ for known in (*OURS, Sequential))
            raise TypeError(f"layer: expected one of minilstm's {names}, got {class_of(one)}")
        dtype_of("layer", one.dtype)
        for name in one.params:
            one._param(name)
    return row


def convert_row(convert, row):
    """``convert`` of every layer; one that stands there twice is converted once, so that it stays one."""
    converted = {id(layer): convert(layer) for layer in row}
    return [converted[id(layer)] for layer in row]


def check_options(layer, peer_name, shared, reasons):
    """Every option of ``layer`` but the ``shared`` ones, which the other library has too, must have its default.

    reasons     dict option -> why it cannot be converted, where there is more to say than that the other has none
    Raises ValueError."""
    parameters = inspect.signature(type(layer)).parameters
    for option, value in layer.arguments().items():
        default = parameters[option].default
        if option not in shared and value != default:
            why = reasons.get(option, f"{peer_name} has no such option")
            raise ValueError(f"{option}: expected {default!r}, got {value!r}: {why}")
