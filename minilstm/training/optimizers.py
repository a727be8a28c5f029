"""Optimizers: from gradients to new parameters.  Each names its formula for one number, which is compiled into a loop.

    p  a parameter      g  its gradient      t  the number of the step, from 1 on

The four take the same steps as PyTorch's of the same name: ``tests/test_optimizers.py``.
"""
import math
import weakref

import numpy as np

from .. import backends
from ..arguments import describe, flag, positive_number, probability
from ..cells.activations import formula
from ..machine.kernel import kernel


class Optimizer:
    """What all optimizers share.

    rate    of learning; a schedule may change it between two steps
    t       steps taken

    One optimizer belongs to one model: what it keeps of the past is kept by the names of the parameters."""
    slots = ()              # what is kept for each number of a parameter, zeros at first
    on_gpu = False

    def __init__(self, rate):
        self.rate = positive_number("rate", rate)
        self.t = 0
        self._kept = {}         # full name of a parameter -> a tuple of arrays, one for each slot
        self._model = None      # the one it belongs to

    def __repr__(self):
        arguments = {"rate": self.rate} | self.arguments()
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"

    def arguments(self):
        """How it is built, but for the rate."""
        return {}

    def step(self, model):
        """Move every parameter of ``model`` by one step along its gradient; the gradients stay as they are.

        Raises ValueError for another model than that of the first step, and for a model on a GPU where this optimizer
        is not computed there; TypeError or ValueError for a parameter that somebody has replaced by what does not fit.
        Then nothing has moved."""
        self._belong_to(model)
        found = [(layer, name, prefix + name, layer._param(name), g)            # all of them checked, before one moves
                 for prefix, layer in model.walk() for name, g in layer.grads.items()]
        self.t += 1
        numbers = self._numbers()
        for layer, name, full_name, p, g in found:
            kept = self._kept.get(full_name) or self._new(full_name, layer, g)
            layer.params[name] = self._moved(p, g, kept, map(g.dtype.type, numbers), layer.backend)

    def state_dict(self):
        """What it keeps of the past: "t", and "<slot>.<parameter>" -> a copy of the array, NumPy's."""
        arrays = {f"{slot}.{name}": np.array(array) for name, kept in self._kept.items()
                  for slot, array in zip(self.slots, kept)}
        return {"t": np.array(self.t)} | arrays

    def load_state_dict(self, state, model):
        """Go on with ``model`` from where another optimizer of this kind was.

        Raises KeyError, ValueError or TypeError where the state is not one of this kind and model; then nothing has
        been changed."""
        owners = {prefix + name: layer for prefix, layer in model.walk() for name in layer.params}
        names = {f"{slot}.{name}" for name in owners for slot in self.slots} if state.get("t") else set()
        if state.keys() != names | {"t"}:
            raise KeyError(f"state: expected {sorted(names | {'t'})}, got {sorted(state)}")
        for name, layer in owners.items():
            g = layer.grads[name.split(".")[-1]]
            for slot in self.slots if names else ():
                array = state[f"{slot}.{name}"]
                if not isinstance(array, np.ndarray) or array.dtype != g.dtype or array.shape != g.shape:
                    raise ValueError(f"state[{slot + '.' + name!r}]: expected {describe(g)}, got {describe(array)}")
        self._belong_to(model)
        self.t = int(state["t"])
        self._kept = {name: tuple(layer.arrays.from_numpy(state[f"{slot}.{name}"].copy()) for slot in self.slots)
                      for name, layer in owners.items() if names}

    def _belong_to(self, model):
        if self._model is None:
            if model.backend == "gpu" and not self.on_gpu:
                raise ValueError(f"model: expected one on the host, {type(self).__name__} is not computed on a GPU; "
                                 "Adam and AdamW are")
            self._model = weakref.ref(model)
        if self._model() is not model:
            raise ValueError("model: expected the one of the first step, whose past this optimizer keeps, got another")

    def _new(self, full_name, layer, g):
        self._kept[full_name] = tuple(layer.arrays.zeros(g.shape, g.dtype) for _ in self.slots)
        return self._kept[full_name]

    def _moved(self, p, g, kept, numbers, backend):
        """The parameter after the step, a new array, read-only; the arrays of ``kept`` are written to."""
        moved = np.empty_like(p)
        self._loop(*[array.ravel() for array in (p, g, *kept, moved)], *numbers)        # views of contiguous arrays
        moved.flags.writeable = False
        return moved


# ----------------------------------------------------------------------------------------------------------------- SGD

class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted.

        m = momentum * m + g                        a ball that rolls on
        p = p - rate * m                            or, with nesterov: p - rate * (g + momentum * m)

    rate, momentum and nesterov as written.  Source: Polyak 1964; Sutskever et al. 2013, section 2, in PyTorch's form,
    where the rate stands before the sum.  Raises ValueError for a rate that is not positive, a momentum outside [0, 1),
    or nesterov without momentum."""
    slots = ("m",)

    def __init__(self, rate=0.1, momentum=0.0, nesterov=False):
        super().__init__(rate)
        self.momentum, self.nesterov = probability("momentum", momentum), flag("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected False without momentum, got True")

    def arguments(self):
        return {"momentum": self.momentum, "nesterov": self.nesterov}

    def _numbers(self):
        return self.rate, self.momentum, self.nesterov

    @staticmethod
    @kernel
    def _loop(p, g, m, moved, rate, momentum, nesterov):
        for j in range(p.size):
            moved[j], m[j] = moved_by_sgd(p[j], g[j], m[j], rate, momentum, nesterov)


@formula
def moved_by_sgd(p, g, m, rate, momentum, nesterov):
    """One step for one number -> p, m; nesterov is 1 or 0."""
    m = momentum * m + g
    return p - rate * (nesterov * (g + momentum * m - m) + m), m


# ------------------------------------------------------------------------------------------------------------- RMSprop

class RMSprop(Optimizer):
    """Steps of about ``rate``, whatever the size of the gradient, without the mean that Adam takes of it.

        v = alpha * v + (1 - alpha) * g**2
        p = p - rate * g / (sqrt(v) + epsilon)

    Source: Tieleman and Hinton 2012, lecture 6e of Neural Networks for Machine Learning.  Raises ValueError for a rate
    or an epsilon that is not positive, or an alpha outside [0, 1)."""
    slots = ("v",)

    def __init__(self, rate=1e-2, alpha=0.99, epsilon=1e-8):
        super().__init__(rate)
        self.alpha, self.epsilon = probability("alpha", alpha), positive_number("epsilon", epsilon)

    def arguments(self):
        return {"alpha": self.alpha, "epsilon": self.epsilon}

    def _numbers(self):
        return self.rate, 1 - self.alpha, self.epsilon

    @staticmethod
    @kernel
    def _loop(p, g, v, moved, rate, part, epsilon):
        for j in range(p.size):
            moved[j], v[j] = moved_by_rmsprop(p[j], g[j], v[j], rate, part, epsilon)


@formula
def moved_by_rmsprop(p, g, v, rate, part, epsilon):
    """One step for one number -> p, v; 1 - alpha in part."""
    v = v + part * (g * g - v)
    return p - rate * g / (math.sqrt(v) + epsilon), v


# ---------------------------------------------------------------------------------------------------------------- Adam

class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1): steps of about ``rate``, whatever the size of the gradient.

        m = beta1 * m + (1 - beta1) * g             running mean of the gradient
        v = beta2 * v + (1 - beta2) * g**2          running mean of its square
        p = p - rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

    rate, betas, epsilon as in the paper, with its values by default.  Raises ValueError for a rate or an epsilon that
    is not positive, or a beta outside [0, 1).

    On a GPU a gradient that is NaN moves nothing: ``clip_global_norm`` makes it so, where others raise an error.
    """
    slots = ("m", "v")
    on_gpu = True
    weight_decay = 0.0

    def __init__(self, rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(rate)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        self.betas = tuple(probability("betas", beta) for beta in betas)
        self.epsilon = positive_number("epsilon", epsilon)

    def arguments(self):
        return {"betas": self.betas, "epsilon": self.epsilon}

    def _numbers(self):
        beta1, beta2 = self.betas
        return (1 - self.rate * self.weight_decay, 1 - beta1, 1 - beta2, self.rate / (1 - beta1**self.t),
                1 / (1 - beta2**self.t), self.epsilon)

    def _moved(self, p, g, kept, numbers, backend):
        if backend == "gpu":
            return backends.module("training", "gpu").adam(p, g, *kept, *numbers)
        return super()._moved(p, g, kept, numbers, backend)

    @staticmethod
    @kernel
    def _loop(p, g, m, v, moved, stays, part1, part2, rate, per_bias, epsilon):
        for j in range(p.size):
            moved[j], m[j], v[j] = moved_by_adam(p[j], g[j], m[j], v[j], stays, part1, part2, rate, per_bias, epsilon)


@formula
def moved_by_adam(p, g, m, v, stays, part1, part2, rate, per_bias, epsilon):
    """One step for one number -> p, m, v; 1 - rate * weight_decay in stays, 1 - beta in part1, part2, and divided by
    1 - beta**t what is so above."""
    m = m + part1 * (g - m)
    v = v + part2 * (g * g - v)
    return stays * p - rate * m / (math.sqrt(v * per_bias) + epsilon), m, v


class AdamW(Adam):
    """Adam, with weights that shrink by themselves: p = (1 - rate * weight_decay) * p before the step.  All parameters
    shrink, biases too.

    Source: Loshchilov and Hutter 2019, algorithm 2, in PyTorch's form, where the rate is a factor of the decay.  Raises
    ValueError for a weight_decay below 0, and as Adam does."""

    def __init__(self, rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01):
        super().__init__(rate, betas, epsilon)
        self.weight_decay = positive_number("weight_decay", weight_decay, zero=True)

    def arguments(self):
        return super().arguments() | {"weight_decay": self.weight_decay}
