"""What all layers share: named parameters, their gradients, and how both are reached from outside."""
import copy
from typing import NamedTuple

import numpy as np

from .. import backends
from ..arguments import COMPLEX, FLOATS, describe, dtype_of, flag, natural, one_of
from ..device import current
from ..machine.locks import ForkSafeLock

_adding = ForkSafeLock()        # one for all layers: it is held for the length of a few additions
_counting = ForkSafeLock()      # likewise, for one addition


class ConditionedGradients(NamedTuple):
    """What ``backward`` of a layer that takes a condition returns."""
    dx: np.ndarray
    dcondition: np.ndarray          # as the condition is


class Layer:
    """A function with parameters.  A subclass has ``forward(x, ...) -> (y, cache)`` and ``backward(cache, dy) -> dx``;
    in place of y and dx alone, tuples that begin with them.

    params      dict name -> array.  The arrays are read-only: to change one, put a new array in its place.  So a cache
                stays true to the weights that made it, and a thread never sees half an array.
    grads       dict name -> array of the same shape.  ``backward`` adds to it; ``zero_grads`` clears it.
    dtype       of the parameters and of everything that goes in and comes out
    backend     who computes: "cpu" (compiled), "reference" (plain NumPy) or "gpu" (a CUDA GPU, float32 only)
    backends        of which it may be one
    takes_mask      does forward take mask=?
    takes_training  does forward take training= and draw=, because it is random in training?  Its draws are numbered by
                    ``counter``
    takes_condition     does forward take condition=, an array (B,...), and condition_mask= where the condition is a
                        set?  backward then returns ConditionedGradients
    takes_categories    is its x (B,T) integers, and no longer (B,T,D) numbers?
    pools           is its output one for a sequence, (B,F), and no longer one for each step, (B,T,F)?
    needs_whole     why it cannot read a sequence in segments, in words; None, for a layer without a ``forward_from`` of
                    its own: because its y at a step depends on x at that step alone, it can

    A layer made of other layers names them in ``children``.

    A sequence may be read in segments, each from the state in which the one before it ended, with the verbs ``start``,
    ``forward_from`` and ``backward_to``.  A state is a tuple: of arrays (...,B,width), of other states, or of nothing.

    With backend="gpu" parameters, gradients and whatever comes out are DeviceArrays (``device/arrays.py``), and stay on
    the GPU until somebody asks for them, as np.asarray(y) does.  What goes in may be a NumPy array, which is copied to
    the GPU, or an array that is there already: a DeviceArray, or one of PyTorch or CuPy.  A new NumPy array may be put
    in the place of a parameter too.  DeviceArrays are values: nobody here writes to one, ``backward`` puts new ones
    into ``grads``, and users should not write to a parameter, a gradient, or a mask whose backward pass is to come.
    """
    backends = backends.HOST
    takes_mask = False
    takes_training = False
    takes_condition = False
    takes_categories = False
    pools = False
    needs_whole = "its y at a step may depend on other steps"

    def __init__(self, dtype, backend):
        self.dtype = dtype_of("dtype", dtype)
        self.backend = one_of("backend", backend, self.backends)
        if backend == "gpu":
            if self.dtype != np.float32:
                raise ValueError(f"dtype: expected 'float32' with backend='gpu', got {self.dtype.name!r}")
            current()                                                       # raises NoGPU where there is none
        self.params = {}
        self.grads = {}

    def __repr__(self):
        """How it is built."""
        arguments = getattr(self, "arguments", dict)()
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"

    def children(self):
        """The layers inside this one, dict name -> Layer."""
        return {}

    def walk(self):
        """Every layer that owns parameters, once, with the prefix of their names: a list of (prefix, layer)."""
        found = {id(self): ("", self)} if self.params else {}
        if not (children := self.children()):
            return list(found.values())
        for name, child in children.items():
            for prefix, layer in child.walk():
                found.setdefault(id(layer), (f"{name}.{prefix}", layer))        # a shared layer goes by its first name
        return list(found.values())

    # ------------------------------------------------------------------------------------------- a sequence in segments

    def start(self, B):
        """The state of B sequences before their first step.

        Raises ValueError for a layer that cannot read a sequence in segments, which says why."""
        self._check_segments()
        return ()

    def forward_from(self, x, state, mask=None, *, training=False, draw=None, part=(), cache=True):
        """A segment of sequences: x (B,T,D), or integers (B,T), and mask of its steps, and the state after the steps
        before it -> (y (B,T,F), the state after its steps), cache.

        However a sequence is cut, its segments have the y that ``forward`` has, for a recurrent layer with 0 at masked
        steps; on the backend "cpu" bit for bit.  (But an infinite state, as a ReLU can reach, is NaN once it has been
        handed over.)

        training, draw  as for ``forward`` of a layer that is random in training
        part            which part of the draw this segment is: (0,), (1,) ...  Each has other numbers (``noise.py``)

        Raises as ``start`` and ``forward`` do."""
        self._check_segments()
        if flag("training", training) and self.takes_training:
            raise ValueError(f"training: expected False for a {type(self).__name__}, which is random in training and "
                             "has no forward_from that knows how")
        state_of(state, 0)
        if mask is not None and not self.takes_mask:
            x = self.arrays.select(x, mask)
        options = {"mask": mask} if self.takes_mask else {}
        out, kept = self.forward(x, **options, **({} if flag("cache", cache) else {"cache": False}))
        return (first(out), ()), kept

    def backward_to(self, cache, dy, d_state=None):
        """The gradients of y and of the state after the segment (None: zero) -> dx, None for zero and for categories,
        and the gradient of the state before the segment; adds to ``grads``."""
        return None if dy is None else first(self.backward(cache, dy)), ()

    def _check_segments(self):
        if self.needs_whole is not None:
            raise ValueError(f"{type(self).__name__}: expected a layer that can read a sequence in segments, got one "
                             f"that cannot: {self.needs_whole}")

    # -------------------------------------------------------------------------------------------- parameters as a whole

    def state_dict(self):
        """All parameters, dict name -> a copy of the array, NumPy's also where a GPU computes."""
        return {prefix + name: layer.arrays.to_numpy(p)
                for prefix, layer in self.walk() for name, p in layer.params.items()}

    def load_state_dict(self, state):
        """Take over the arrays of ``state``.  Names, shapes and dtypes must be those of ``state_dict()``.

        Raises KeyError, ValueError or TypeError; then nothing has been changed."""
        owners = {prefix + name: (layer, name) for prefix, layer in self.walk() for name in layer.params}
        if missing := sorted(owners.keys() - state.keys()):
            raise KeyError(f"state: expected {sorted(owners)}, missing {missing}")
        if extra := sorted(state.keys() - owners.keys()):
            raise KeyError(f"state: expected {sorted(owners)}, got also {extra}")
        for full_name, (layer, name) in owners.items():
            _check_same_kind(f"state[{full_name!r}]", state[full_name], layer.grads[name])
        for full_name, (layer, name) in owners.items():
            layer.params[name] = layer.arrays.frozen(state[full_name])

    def zero_grads(self):
        """Set every gradient to zero."""
        for _, layer in self.walk():
            for name, g in layer.grads.items():
                layer.grads[name] = layer.arrays.cleared(g)

    def astype(self, dtype):
        """A copy of this layer that computes in another dtype.  Complex dtypes run on the reference backend, float64
        of a layer on a GPU on the processor.

        Raises ValueError for a dtype that is neither float32, float64, complex64 nor complex128."""
        dtype = dtype_of("dtype", dtype, FLOATS + COMPLEX)
        other = copy.deepcopy(self)
        other._cast(dtype)
        return other

    def _cast(self, dtype):
        params = {name: self.arrays.to_numpy(p) for name, p in self.params.items()}
        self.dtype = dtype
        if dtype.kind == "c":
            self.backend = "reference"
        elif self.backend == "gpu" and dtype != np.float32:
            self.backend = "cpu"
        for name, p in params.items():
            self._own(name, p)
        for child in self.children().values():
            child._cast(dtype)

    # ------------------------------------------------------------------------------------------------ for subclasses

    def _module(self, package):
        """The module of this package that computes for this layer: of ("matmul"), ``minilstm/matmul/cpu.py``."""
        return backends.module(package, self.backend)

    @property
    def arrays(self):
        """The module of ``minilstm/arrays`` that fits this layer."""
        return backends.arrays(self.backend)

    def _own(self, name, array):
        """Make ``array``, NumPy's, a parameter."""
        self.params[name] = self.arrays.frozen(array.astype(self.dtype))
        self.grads[name] = self.arrays.nothing(array.shape, self.dtype)

    def _param(self, name):
        """A parameter, checked: somebody may have put another array in its place."""
        if len(self.params) != len(self.grads):
            raise ValueError(f"params: expected {', '.join(self.grads)}, got {', '.join(self.params)}")
        p = self.params[name]
        _check_same_kind(f"params[{name!r}]", p, self.grads[name])
        if not self.arrays.is_frozen(p):
            p = self.params[name] = self.arrays.frozen(p)
        return p

    def _add_grads(self, gradients):
        """Add a dict of gradients to ``grads``, safe against another thread that does the same."""
        with _adding:
            for name, d in gradients.items():
                self.grads[name] = self.arrays.accumulated(self.grads[name], d)


class Counter:
    """The numbers 0, 1, 2 ..., each given out once, whatever the number of threads that ask.  next: the one to come"""

    def __init__(self):
        self.next = 0

    def take(self):
        with _counting:
            number = self.next
            self.next += 1
        return number


def first(out):
    """y of what forward returned, or dx of what backward returned: the array itself, or the first of a tuple."""
    return out[0] if isinstance(out, tuple) else out


def state_of(state, n):
    """The state of a layer, if it is a tuple of n."""
    if not isinstance(state, tuple) or len(state) != n:
        came = f"a tuple of {len(state)}" if isinstance(state, tuple) else describe(state)
        raise TypeError(f"state: expected what start or forward_from returned, a tuple of {n}, got {came}")
    return state


def stream(seed, *identity):
    """The random stream of a layer's initial weights, from its seed, kind and sizes.

    Two kinds of layer with one seed must not draw the same numbers: a Linear that repeats the weights of the LSTM below
    it starts, and often ends, as a worse model.  None for the seed None: zeros, for weights that will be loaded."""
    if seed is None:
        return None
    words = [ord(letter) for word in identity for letter in f"{word},"]
    return np.random.default_rng([natural("seed", seed), *words])


def own_cache(cache, kind, identity):
    """The cache, if it is a ``kind`` with this ``identity``, that of a layer."""
    if not isinstance(cache, kind):
        raise TypeError(f"cache: expected what forward returned beside its output, got {describe(cache)}")
    if cache.identity != identity:
        raise ValueError(f"cache: expected one of this layer, {identity}, got one of {cache.identity}")
    return cache


def seed_of(rng):
    """Of a layer inside another one, whose random stream is rng; None if there is none, for weights that will be
    loaded."""
    return None if rng is None else int(rng.integers(2**32))


def _check_same_kind(name, came, model):
    same_dtype = isinstance(came, (np.ndarray, type(model))) and came.dtype == model.dtype
    if same_dtype and came.shape == model.shape:
        return
    expected = f"expected a NumPy array {model.dtype} {model.shape}, got {describe(came)}"
    if same_dtype:
        raise ValueError(f"{name}: {expected}")
    raise TypeError(f"{name}: {expected}; nothing is cast silently")
