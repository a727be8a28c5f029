"""Schedules: by what the optimizer's rate is multiplied, from step to step.

``factor(step)`` says it for the step after ``step`` others; ``see(loss)`` is told the loss of each epoch, of the
validation data where there are some, and only ``Plateau`` listens.
"""
import math
import numbers

from ..arguments import instance, natural, positive


class Schedule:
    """The constant one, 1 throughout, and what the others share."""

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.arguments().items())})"

    def arguments(self):
        """How it is built."""
        return {}

    def factor(self, step):
        return 1.0

    def see(self, loss):
        """After each epoch."""

    def begin(self):
        """A new run: nothing has been seen yet."""

    def state(self):
        """What it has seen so far, a list of numbers."""
        return []

    def load_state(self, numbers):
        """Go on from there."""


class Constant(Schedule):
    """The optimizer's own rate all the time."""


class StepDecay(Schedule):
    """Multiplied by ``times`` after every ``every`` steps.  PyTorch's StepLR."""

    def __init__(self, every, times=0.1):
        self.every, self.times = positive("every", every), _part("times", times)

    def arguments(self):
        return {"every": self.every, "times": self.times}

    def factor(self, step):
        return self.times ** (step // self.every)


class Cosine(Schedule):
    """From 1 down to ``floor`` along half a cosine, over ``steps`` steps; then it stays there.

    Source: Loshchilov and Hutter 2017, equation 5, without restarts.  PyTorch's CosineAnnealingLR."""

    def __init__(self, steps, floor=0.0):
        self.steps, self.floor = positive("steps", steps), _part("floor", floor)

    def arguments(self):
        return {"steps": self.steps, "floor": self.floor}

    def factor(self, step):
        done = min(1.0, step / self.steps)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


class WarmUp(Schedule):
    """1/steps, 2/steps ... 1, and then another schedule from its beginning.  Source: Goyal et al. 2017, section 2.2."""

    def __init__(self, steps, then=Constant()):
        self.steps, self.then = positive("steps", steps), instance("then", then, Schedule, "Cosine(steps)")

    def arguments(self):
        return {"steps": self.steps, "then": self.then}

    def factor(self, step):
        return (step + 1) / self.steps if step < self.steps else self.then.factor(step - self.steps)

    def see(self, loss):
        self.then.see(loss)

    def begin(self):
        self.then.begin()

    def state(self):
        return self.then.state()

    def load_state(self, numbers):
        self.then.load_state(numbers)


class Plateau(Schedule):
    """Multiplied by ``times`` whenever more than ``patience`` epochs in a row brought nothing, no loss below the best
    so far by more than the part ``threshold`` of it.  Never below ``floor``.  PyTorch's ReduceLROnPlateau, but where
    losses are negative, of whose size the margin is a part here too."""

    def __init__(self, times=0.1, patience=10, threshold=1e-4, floor=0.0):
        self.times, self.floor = _part("times", times), _part("floor", floor)
        self.patience, self.threshold = natural("patience", patience), _part("threshold", threshold)
        self.begin()

    def begin(self):
        self.now, self.best, self.waited = 1.0, math.inf, 0

    def arguments(self):
        return {"times": self.times, "patience": self.patience, "threshold": self.threshold, "floor": self.floor}

    def factor(self, step):
        return self.now

    def see(self, loss):
        margin = 0.0 if math.isinf(self.best) else self.threshold * abs(self.best)
        if loss < self.best - margin:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1
        if self.waited > self.patience:
            self.now, self.waited = max(self.floor, self.now * self.times), 0

    def state(self):
        return [self.now, self.best, self.waited]

    def load_state(self, numbers):
        self.now, self.best, self.waited = numbers


def _part(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return float(value)
