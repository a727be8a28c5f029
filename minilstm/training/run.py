"""A training run: all that changes while ``fit`` goes on, so that it can be kept in a file and taken up again."""
import functools
import hashlib

import numpy as np

from ..arguments import describe


class History(list):
    """The loss of each epoch on the training data, a list; and beside it

    validation  the loss of each epoch on the validation data, empty without such data
    rates       the optimizer's rate at the end of each epoch
    norms       the mean norm of the gradients in each epoch, before clipping
    best_epoch  the number, from 1 on, of the epoch with the least validation loss; None without validation data, or
                where none was a finite number
    """

    def __init__(self, losses=(), validation=(), rates=(), norms=(), best_epoch=None):
        super().__init__(losses)
        self.validation, self.rates, self.norms = list(validation), list(rates), list(norms)
        self.best_epoch = best_epoch

    def numbers(self):
        """All of it, as the constructor takes it."""
        return [list(self), self.validation, self.rates, self.norms, self.best_epoch]


class Run:
    """Where a run is.

    history     of the epochs that are over
    steps       of the optimizer in all
    losses, norms   of the batches and steps of the epoch that is not over
    rng         whose next draw is the order of the epoch that comes after ``order`` has been drawn
    best        the weights at history.best_epoch, if they are to be restored
    stopped     True: before the last epoch, by patience or a callback
    """

    def __init__(self, model, optimizer, schedule, seed):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.rate = optimizer.rate          # without the schedule's factor
        schedule.begin()
        self.history, self.steps = History(), 0
        self.losses, self.norms = [], []
        self.rng = np.random.default_rng(seed)
        self.before_epoch = self.rng.bit_generator.state
        self.best, self.stopped = {}, False

    def begin_epoch(self):
        """-> the random stream for its order, the same one however often the epoch is begun."""
        self.rng.bit_generator.state = self.before_epoch
        return self.rng

    def step(self):
        """Move the weights along the gradients, at the schedule's rate."""
        self.optimizer.rate = self._rate_of(self.steps)
        self.optimizer.step(self.model)
        self.steps += 1

    def end_epoch(self, loss, norm):
        """The losses of the epoch become one number."""
        self.history.append(loss)
        self.history.norms.append(norm)
        self.history.rates.append(self._rate_of(max(0, self.steps - 1)))    # of the last step, whoever took it
        self.before_epoch = self.rng.bit_generator.state
        self.losses, self.norms = [], []

    def _rate_of(self, step):
        return self.rate * self.schedule.factor(step)

    # --------------------------------------------------------------------------------------------- to a file and back

    def numbers(self):
        counter = getattr(self.model, "counter", None)
        return {"history": self.history.numbers(), "steps": self.steps, "losses": self.losses, "norms": self.norms,
                "order": self.before_epoch, "schedule": self.schedule.state(), "stopped": self.stopped,
                "draws": counter.next if counter else 0}

    def arrays(self):
        parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "best": self.best}
        return {f"{part}/{name}": array for part, state in parts.items() for name, array in state.items()}

    def room(self):
        """Bytes of ``arrays`` once all of them are there: after the first step, and with the best weights."""
        weights = sum(g.size * g.dtype.itemsize for _, layer in self.model.walk() for g in layer.grads.values())
        return weights * (2 + len(self.optimizer.slots))

    def load(self, numbers, arrays):
        def part(name):
            return {full[len(name) + 1:]: array for full, array in arrays.items() if full.startswith(name + "/")}

        self.model.load_state_dict(part("model"))
        self.optimizer.load_state_dict(part("optimizer"), self.model)
        self.best = part("best")
        self.history = History(*numbers["history"])
        self.steps, self.losses, self.norms = numbers["steps"], numbers["losses"], numbers["norms"]
        self.before_epoch, self.stopped = numbers["order"], numbers["stopped"]
        self.schedule.load_state(numbers["schedule"])
        if getattr(self.model, "counter", None):
            self.model.counter.next = numbers["draws"]


def identity(model, data, validation):
    """What tells the model and the data of a run from those of others: dict name -> a text.

    data, validation: Data; None without validation data"""
    found = {"model": repr(model)}
    for prefix, layer in model.walk():
        found[f"model, {prefix}".rstrip(", ")] = repr(layer)
        found |= {f"model, {prefix}{name}": f"{g.dtype} {g.shape}" for name, g in layer.grads.items()}
        if layer.takes_training and hasattr(layer, "noise"):
            found[f"model, seed of noise {prefix}".rstrip()] = str(layer.noise.seed)
    return found | _digests(data) | {"validation": ", ".join(_digests(validation).values()) if validation else None}


def _digests(data):
    """dict name -> a text for each array, which is another one for other numbers."""
    arrays = {"x" if name == "x" else f"x[{name!r}]": array for name, array in data.inputs.items()}
    arrays |= {"target": data.target, "mask": data.mask, "what counts": data.counts, "weights": data.weights}
    return {name: _digest(np.asarray(array)) for name, array in arrays.items() if array is not None}


def _digest(array):
    content = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8)).hexdigest()
    return f"{describe(array)} with content {content[:16]}"


def name_of(function):
    """Of a loss, the same in every process; one lambda has the name of every other."""
    if isinstance(function, functools.partial):
        options = [*map(repr, function.args), *(f"{name}={value!r}" for name, value in function.keywords.items())]
        return f"{name_of(function.func)}({', '.join(options)})"
    return getattr(function, "__qualname__", type(function).__qualname__)
