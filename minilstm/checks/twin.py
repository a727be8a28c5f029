"""Copies of a layer that compute where one can look on: in plain NumPy, on the reference backend."""
import numpy as np

from ..arguments import describe, natural
from ..layers.recurrent import Recurrent


def double_twin(net, layer, direction):
    """A float64 copy of ``net``.  Raises TypeError or ValueError unless it is a recurrent layer that has this layer in
    its stack, and this direction."""
    if not isinstance(net, Recurrent):
        places = [k for k, one in enumerate(getattr(net, "layers", ())) if isinstance(one, Recurrent)]
        cure = f"; net.layers[{places[0]}] is one" if places else ""
        raise TypeError(f"net: expected an LSTM, GRU or RNN, got {describe(net)}{cure}")
    for name, number, count in (("layer", layer, net.num_layers), ("direction", direction, len(net.directions))):
        if natural(name, number) >= count:
            raise ValueError(f"{name}: expected less than {count}, got {number}")
    twin = net.astype("float64")
    twin.backend = "reference"
    return twin


def no_zoneout(net):
    if any(net.noise.zoneout.values()):
        raise ValueError(f"net: expected a layer without zoneout, got one with {net.noise.zoneout}")


def check_row(row, B):
    if natural("row", row) >= B:
        raise ValueError(f"row: expected less than B={B}, got {row}")


def given(**arguments):
    """Those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def doubles(net, arrays):
    """dict name -> value: floating-point arrays, in the dtype of ``net`` or float64, as float64; all else as it is."""
    found = dict(arrays)
    for name, value in arrays.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            if value.dtype not in (net.dtype, np.float64):
                raise TypeError(f"{name}: expected {net.dtype} or float64, got {describe(value)}")
            found[name] = value.astype("float64")
    return found


def call_recurrence(layer, module):
    """Let this copy of a layer call ``module`` in place of ``minilstm/recurrence/reference.py``."""
    others = layer._module
    layer._module = lambda package: module if package == "recurrence" else others(package)
