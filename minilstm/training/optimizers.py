"""Optimizers: from gradients to new parameters."""
import weakref

import numpy as np

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

        Raises ValueError for another model than that of the first step."""
        if self._model is None:
            self._model = weakref.ref(model)
        if self._model() is not model:
            raise ValueError("model: expected the one of the first step, whose means this optimizer keeps, got another")
        self.t += 1
        for prefix, layer in model.walk():
            for name, g in layer.grads.items():
                layer.params[name] = self._moved(prefix + name, layer.params[name], g)

    def _moved(self, full_name, p, g):
        beta1, beta2 = self.betas
        if full_name not in self.means:
            self.means[full_name] = np.zeros_like(g), np.zeros_like(g)
        moved = np.empty_like(p)
        arrays = (array.ravel() for array in (p, g, *self.means[full_name], moved))     # views of contiguous arrays
        numbers = (1 - beta1, 1 - beta2, self.rate / (1 - beta1**self.t), 1 / (1 - beta2**self.t), self.epsilon)
        _adam(*arrays, *map(p.dtype.type, numbers))
        moved.flags.writeable = False
        return moved


@kernel
def _adam(p, g, m, v, moved, part1, part2, rate, per_bias, epsilon):
    """One step for the numbers of one array; 1 - beta in part1, part2, and divided by 1 - beta**t what is so above."""
    for j in range(p.size):
        m[j] += part1 * (g[j] - m[j])
        v[j] += part2 * (g[j] * g[j] - v[j])
        moved[j] = p[j] - rate * m[j] / (np.sqrt(v[j] * per_bias) + epsilon)
