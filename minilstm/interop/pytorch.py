"""PyTorch's modules from minilstm layers, and back, with the same weights.

Names, shapes and block order of the weights are PyTorch's here too, so they pass as they are.  What only one of the two
has is refused, but for ``bias=False``: minilstm's recurrent layers always have biases, and zeros do the same.

Source: the documentation of torch.nn.LSTM, GRU, RNN and Linear, PyTorch 2.13.
"""
from collections.abc import Mapping

import numpy as np

from ..arguments import dtype_of
from ..layers import GRU, LSTM, RNN, Linear, Sequential
from ..layers.recurrent import Recurrent
from .common import check_options, class_of, convert_row, in_a_row, our_row, peer

# our options -> what PyTorch calls them
SHARED = {"num_layers": "num_layers", "bidirectional": "bidirectional", "dropout": "dropout"}
OPTIONS = {LSTM: SHARED | {"proj_size": "proj_size"}, GRU: SHARED, RNN: SHARED | {"activation": "nonlinearity"}}
SIZES = ("input_size", "hidden_size")
REASONS = {
    "reset_after": "PyTorch's GRU resets after the product, which is another function of the same weights",
    "reverse": "PyTorch's layers walk forward, or both ways",
    "merge": "PyTorch only concatenates the two directions",
}


def from_pytorch(module, *, backend="cpu"):
    """A torch.nn.LSTM, GRU, RNN or Linear -> the minilstm layer with the same weights, dtype and dropout; a list, tuple
    or ModuleList of them -> a Sequential, so ``from_pytorch([model.lstm, model.head])`` takes a model apart.

    Not taken over: the device (weights come to the CPU), ``batch_first`` (here the batch is always first).  The biases
    of a recurrent module with ``bias=False`` are zeros here, which would learn if they were trained.  A module that
    stands in a list twice becomes one layer that stands there twice.
    Raises TypeError for another class, also a subclass, since it may compute something else; ValueError for a dtype
    other than float32 and float64, for weights that are not those of its class (parametrised, pruned, without numbers)
    and for layers that do not fit each other."""
    torch = _torch()
    containers = (list, tuple, torch.nn.ModuleList)
    layers = convert_row(lambda one: _import(torch, one, backend), in_a_row(module, containers))
    return Sequential(*layers) if type(module) in containers else layers[0]


def to_pytorch(layer):
    """A minilstm LSTM, GRU, RNN or Linear -> PyTorch's module (``batch_first=True``) with the same weights, dtype and
    dropout, on the CPU; a Sequential -> a torch.nn.ModuleList.

    A torch.nn.Sequential could not run them, as recurrent modules return tuples.  The ModuleList has the parameters by
    place ("0.weight_ih_l0"; a Sequential inside the Sequential is laid flat), and runs with

        for module in modules:
            x = module(x)
            x = x[0] if isinstance(x, tuple) else x

    States are (layers,dirs,B,H) here and (layers*dirs,B,H) there; the last axis of h is R with a projection.
    Raises TypeError for another class of layer, ValueError for a complex one and for options that PyTorch has not."""
    torch = _torch()
    modules = convert_row(lambda one: _export(torch, one), _row(layer))
    return torch.nn.ModuleList(modules) if type(layer) is Sequential else modules[0]


def to_pytorch_state(layer):
    """The parameters of a minilstm layer or Sequential -> a dict of CPU tensors with the names of
    ``layer.state_dict()``: the state_dict of a PyTorch module, unless a layer stands in the Sequential twice or inside
    another Sequential.  Raises as ``to_pytorch`` does."""
    torch = _torch()
    _row(layer)
    return {name: torch.from_numpy(array) for name, array in layer.state_dict().items()}


def load_pytorch_state(layer, state):
    """Put the tensors of a PyTorch state_dict, from any device, into a minilstm layer or Sequential of the same names.

    A recurrent layer of which ``state`` has no bias at all gets zeros, as ``bias=False`` means.
    Raises KeyError, ValueError or TypeError where names, shapes or dtypes differ, and as ``to_pytorch`` does; then
    nothing has been changed."""
    torch = _torch()
    _row(layer)
    if not isinstance(state, Mapping):
        raise TypeError(f"state: expected a dict of tensors, such as module.state_dict(), got {class_of(state)}")
    arrays = {name: _array(torch, name, tensor) for name, tensor in state.items()}
    for prefix, owner in layer.walk():
        biases = {prefix + name: p for name, p in owner.params.items() if name.startswith("bias_")}
        if isinstance(owner, Recurrent) and not biases.keys() & arrays.keys():
            arrays |= {name: np.zeros_like(p) for name, p in biases.items()}
    layer.load_state_dict(arrays)


def _import(torch, module, backend):
    ours = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN, torch.nn.Linear: Linear}.get(type(module))
    if ours is None:
        raise TypeError("module: expected a torch.nn.LSTM, GRU, RNN or Linear, or a list of them, "
                        f"got {class_of(module)}")
    parameters = dict(module.named_parameters())
    if parameters.keys() != module.state_dict().keys() or any(p.is_meta for p in parameters.values()):
        raise ValueError(f"module: expected a {ours.__name__} with its own weights, got one with {sorted(parameters)}: "
                         "remove parametrisations, pruning and weight norm first, and give it numbers")
    common = {"dtype": _dtype("module", next(module.parameters())), "backend": backend, "seed": None}
    if ours is Linear:
        layer = Linear(module.in_features, module.out_features, bias=module.bias is not None, **common)
    else:
        options = {name: getattr(module, theirs) for name, theirs in OPTIONS[ours].items()}
        if module.num_layers == 1:
            options["dropout"] = 0.0            # it acts between layers: PyTorch warns of another, and drops nothing
        layer = ours(module.input_size, module.hidden_size, **options, **common)
    load_pytorch_state(layer, module.state_dict())
    return layer


def _export(torch, layer):
    arguments = layer.arguments()
    if type(layer) is Linear:
        module_class, sizes = torch.nn.Linear, (layer.input_size, layer.output_size)
        options = {"bias": arguments["bias"]}
    else:
        module_class, sizes = getattr(torch.nn, type(layer).__name__), (layer.input_size, layer.hidden_size)
        options = {theirs: arguments[name] for name, theirs in OPTIONS[type(layer)].items()} | {"batch_first": True}
    with torch.random.fork_rng(devices=[]):         # the module draws weights of its own first
        module = module_class(*sizes, **options, dtype=getattr(torch, layer.dtype.name), device="cpu")
    module.load_state_dict(to_pytorch_state(layer))
    return module


def _row(layer):
    """The layers of a minilstm layer or Sequential, in order, all of them such as PyTorch has."""
    row = our_row(layer)
    for one in row:
        if type(one) is not Linear:
            one_way = () if one.bidirectional else ("merge",)           # with one direction there is nothing to merge
            check_options(one, "PyTorch", (*SIZES, *OPTIONS[type(one)], *one_way), REASONS)
    return row


def _array(torch, name, tensor):
    """A tensor as an array on the CPU."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"state[{name!r}]: expected a tensor, got {class_of(tensor)}")
    _dtype(f"state[{name!r}]", tensor)
    return tensor.detach().cpu().numpy()


def _dtype(name, tensor):
    return dtype_of(name, str(tensor.dtype).removeprefix("torch."))


def _torch():
    return peer("torch", "PyTorch")
