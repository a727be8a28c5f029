"""Models in files: weights as safetensors, and in the file's metadata how to build the layer that they belong to.

    metadata    format   "minilstm"
                version  "1"
                layer    JSON: {"type": "LSTM", "input_size": 3, ...}, or {"type": "Sequential", "layers": [...]}, in
                         which {"same_as": 0} stands for the first of its layers, used again; "noise_seed" is the seed
                         of what a layer draws in training; {"type": "Checkpointed", "layer": ..., "segment": null}
    tensors     the arrays of ``state_dict``, by their names

Nothing in a file is ever executed: safetensors holds plain arrays, JSON plain values.
"""
import json
import math
import os

import safetensors
import safetensors.numpy

from .. import backends
from ..arguments import dtype_of, natural, one_of
from ..files import write_whole
from .attention import Attention, AttentionPooling
from .checkpointed import Checkpointed
from .embedding import Embedding
from .gru_d import GRUD
from .layer import Layer
from .linear import Linear
from .lstm import LSTM
from .non_crossing import NonCrossing
from .one_state import GRU, RNN
from .pooling import Pooling
from .sequential import Sequential

FORMAT, VERSION = "minilstm", "1"
TYPES = {layer_class.__name__: layer_class for layer_class in (
    Attention, AttentionPooling, Embedding, GRU, GRUD, LSTM, Linear, NonCrossing, Pooling, RNN)}
WITHOUT_SEED = {"NonCrossing", "Pooling"}
WITHOUT_TENSORS = set(WITHOUT_SEED)


class FormatError(ValueError):
    """A file that holds no model of this format: foreign, damaged, of an unknown version, or with other tensors."""


def save(path, layer):
    """Write ``layer``, its weights and how it is built, to the file ``path``.

    What a layer has drawn in training so far is not kept: a loaded one begins with draw 0 of its seed.  The file is
    complete or it is not there: it is written beside its place and renamed when it is on the disk.  A link
    is followed.  Raises TypeError or ValueError for what ``load`` could not read: a layer of another class or dtype, a
    parameter of another shape; OSError where the file cannot be written."""
    if not isinstance(layer, Layer):
        raise TypeError(f"layer: expected a Layer, after the path, got {type(layer).__name__}")
    for _, owner in layer.walk():
        dtype_of("layer", owner.dtype)
        for name in owner.params:
            owner._param(name)
    metadata = {"format": FORMAT, "version": VERSION, "layer": json.dumps(_describe(layer, {}))}
    content = safetensors.numpy.save(layer.state_dict(), metadata)
    write_whole(path, content)


def load(path, backend="cpu"):
    """The layer that ``save`` wrote to ``path``, to compute on ``backend``.

    Raises FormatError, which says what is wrong with the file, OSError where it cannot be read, ValueError for a
    backend that is none."""
    one_of("backend", backend, backends.NAMES)
    path = os.fsdecode(path)
    with open(path, "rb") as file:          # a missing file is the OSError that everybody knows
        file.peek(1)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_version(metadata)
            slices = [file.get_slice(name) for name in file.keys()]
            limits = _Limits([(tensor.get_dtype(), tensor.get_shape()) for tensor in slices])
            layer = _build(json.loads(metadata["layer"]), backend, limits)
            layer.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
            return layer
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, MemoryError, RecursionError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise FormatError(f"{path}: expected a {FORMAT} model of version {VERSION}, got one with: {reason}") from error


def _check_version(metadata):
    if metadata.get("format") != FORMAT:
        raise FormatError(f"format {metadata.get('format')!r}")
    if metadata.get("version") != VERSION:
        raise FormatError(f"version {metadata.get('version')!r}")


def _describe(layer, known):
    """How ``layer`` is built, as JSON has it.  ``known``: id -> place, of the layers described already."""
    if type(layer) is Sequential:
        return {"type": "Sequential", "layers": [_describe(child, known) for child in layer.layers]}
    if type(layer) is Checkpointed:
        return {"type": "Checkpointed", "layer": _describe(layer.layer, known), "segment": layer.segment}
    if type(layer) not in TYPES.values():
        known_types = ", ".join(sorted([*TYPES, "Checkpointed", "Sequential"]))
        raise TypeError(f"layer: expected one of {known_types}, got {type(layer).__name__}; of a class of your "
                        "own keep the state_dict()")
    if id(layer) in known:
        return {"same_as": known[id(layer)]}
    known[id(layer)] = len(known)
    drawn = {"noise_seed": layer.noise.seed} if layer.takes_training else {}
    return {"type": type(layer).__name__, **layer.arguments(), "dtype": layer.dtype.name, **drawn}


class _Limits:
    """What a description may ask for, so that a damaged one cannot ask for all memory: no more layers than tensors, and
    no more numbers than they hold.  Also the layers built so far."""

    def __init__(self, tensors):
        """tensors: a list of (dtype as safetensors calls it, shape)"""
        self.tensors = len(tensors)
        self.numbers = sum(math.prod(shape) for dtype, shape in tensors if dtype in ("F32", "F64"))
        self.built = []

    def spend(self, kind, description):
        """Count a layer that is about to be built, at the least that one of its kind and sizes can have."""
        sizes = _sizes(description)
        self.numbers -= LEAST.get(kind, _of_others)(kind, sizes)
        self.tensors -= max(1, sizes.get("num_layers", 1)) if kind not in WITHOUT_TENSORS else 0
        if self.numbers < 0 or self.tensors < 0:
            raise ValueError(f"{sizes}, more than its tensors hold")


def _sizes(description):
    """The integers in a description, 0 or more, and in the dicts in it: dict name -> integer or dict"""
    return {name: _sizes(value) if isinstance(value, dict) else max(0, value)
            for name, value in description.items() if isinstance(value, (int, dict))}


def _of_others(kind, sizes):
    """How many numbers a layer has at the least.  sizes: dict name of an argument -> integer, 0 or more"""
    D, V, F, H, R, layers = (sizes.get(name, 0) for name in (
        "input_size", "categories", "output_size", "hidden_size", "proj_size", "num_layers"))
    blocks = {"LSTM": 3, "GRU": 3, "GRUD": 3}.get(kind, 1)              # of the LSTM with coupled gates, 4 of others
    return (D + V) * F + blocks * H * (D + layers * ((R or H) + 2)) * (1 + bool(sizes.get("bidirectional")))


def _of_attention(kind, sizes):
    D, A = sizes.get("input_size", 0), sizes.get("attention_size", 0)
    E, F = sizes.get("memory_size", D), sizes.get("value_size", A)
    output = sizes.get("output_size", F if sizes.get("heads", 1) > 1 else 0)
    return A * D + A * E + F * E + F * output


def _of_attention_pooling(kind, sizes):
    return sizes.get("attention_size", 0) * sizes.get("input_size", 0)


LEAST = {"Attention": _of_attention, "AttentionPooling": _of_attention_pooling}


def register(layer_class, least, tensors=True):
    """Let files hold layers of this class, from a package above this one.  least(kind, sizes) -> how many numbers such
    a layer has at the least; kind: the name of the class, sizes: dict name of an argument -> integer, 0 or more, or a
    dict of them.  tensors: has it any?"""
    if not tensors:
        WITHOUT_TENSORS.add(layer_class.__name__)
    TYPES[layer_class.__name__] = layer_class
    LEAST[layer_class.__name__] = least


def _build(description, backend, limits):
    description = dict(description)
    if set(description) == {"same_as"}:
        return limits.built[natural("same_as", description["same_as"])]
    kind = description.pop("type")
    if kind == "Sequential" and set(description) == {"layers"}:
        return Sequential(*(_build(child, backend, limits) for child in description["layers"]))
    if kind == "Checkpointed" and set(description) == {"layer", "segment"}:
        return Checkpointed(_build(description["layer"], backend, limits), description["segment"])
    limits.spend(kind, description)
    noise_seed = natural("noise_seed", description.pop("noise_seed", 0)) if TYPES[kind].takes_training else None
    loaded = {"seed": None} if kind not in WITHOUT_SEED else {}        # there are weights, and they will be loaded
    layer = TYPES[kind](**description, backend=backend, **loaded)
    if noise_seed is not None:
        layer.noise.seed = noise_seed
    limits.built.append(layer)
    return layer
