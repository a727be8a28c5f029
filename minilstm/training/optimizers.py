"""Optimizers: from gradients to new parameters."""
import math
import weakref

import numpy as np

from .. import backends
from ..cells.activations import formula
from ..machine.kernel import kernel


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1): steps of about ``rate``, whatever the size of the gradient.

        m = beta1 * m + (1 - beta1) * g             running mean of the gradient
        v = beta2 * v + (1 - beta2) * g**2          running mean of its square
        p = p - rate * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)

    rate, betas, epsilon as in the paper, with its values by default.  One optimizer belongs to one model: its means are
    kept by the names of the parameters.  Raises ValueError for a rate or an epsilon that is not positive, or a beta
    outside [0, 1).
    """

    def __init__(self, rate=1e-3, betas=(0.9, 0.999), epsilon=1e-8):
        if not rate > 0:
            raise ValueError(f"rate: expected a positive number, got {rate!r}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), got {betas!r}")
        if not epsilon > 0:
            raise ValueError(f"epsilon: expected a positive number, got {epsilon!r}")
        self.rate, self.betas, self.epsilon = float(rate), tuple(map(float, betas)), float(epsilon)
        self.t = 0
        self.means = {}         # full name of a parameter -> (m, v)
        self._model = None      # the one it belongs to

    def step(self, model):
        """Move every parameter of ``model`` by one step along its gradient; the gradients stay as they are.

        On a GPU a gradient that is NaN moves nothing: ``clip_global_norm`` makes it so, where others raise an error.

        Raises ValueError for another model than that of the first step."""
        if self._model is None:
            self._model = weakref.ref(model)
        if self._model() is not model:
            raise ValueError("model: expected the one of the first step, whose means this optimizer keeps, got another")
        self.t += 1
        for prefix, layer in model.walk():
            for name, g in layer.grads.items():
                full_name = prefix + name
                if full_name not in self.means:
                    self.means[full_name] = tuple(layer.arrays.zeros(g.shape, g.dtype) for _ in "mv")
                adam = backends.module("training", "gpu").adam if layer.backend == "gpu" else _adam
                layer.params[name] = adam(layer._param(name), g, *self.means[full_name], *self._numbers(g.dtype.type))

    def _numbers(self, number):
        """What ``moved_by_adam`` needs besides arrays."""
        beta1, beta2 = self.betas
        return map(number, (1 - beta1, 1 - beta2, self.rate / (1 - beta1**self.t), 1 / (1 - beta2**self.t),
                            self.epsilon))


@formula
def moved_by_adam(p, g, m, v, part1, part2, rate, per_bias, epsilon):
    """One step for one number -> p, m, v; 1 - beta in part1, part2, and divided by 1 - beta**t what is so above."""
    m = m + part1 * (g - m)
    v = v + part2 * (g * g - v)
    return p - rate * m / (math.sqrt(v * per_bias) + epsilon), m, v


def _adam(p, g, m, v, *numbers):
    """One step for the numbers of one array -> p, a new array that is read-only; m and v are written to."""
    moved = np.empty_like(p)
    _move(*(array.ravel() for array in (p, g, m, v, moved)), *numbers)         # views of contiguous arrays
    moved.flags.writeable = False
    return moved


@kernel
def _move(p, g, m, v, moved, part1, part2, rate, per_bias, epsilon):
    for j in range(p.size):
        moved[j], m[j], v[j] = moved_by_adam(p[j], g[j], m[j], v[j], part1, part2, rate, per_bias, epsilon)
