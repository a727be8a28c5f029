"""The training loop: shuffle, batch, forward, loss, backward, clip, step."""
import functools
import inspect
import math
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ..arguments import describe, flag, instance, natural, one_of, positive, positive_number
from ..layers.layer import first
from ..sequences import batches
from . import clipping
from .checkpoint import Checkpoint, Saver
from .data import blamed, prepared
from .losses import mean_squared_error
from .optimizers import Adam, Optimizer
from .reduction import REDUCTIONS, total_weight
from .run import History, Run, identity, name_of
from .schedules import Constant, Schedule
from .watch import DeviceWatch, Watch


class Epoch(NamedTuple):
    """What a callback is told."""
    number: int                 # from 1 on
    loss: float                 # on the training data, while the weights moved
    validation: float | None    # on the validation data
    rate: float                 # the optimizer's
    norm: float                 # of the gradients, the mean, before clipping
    model: Any
    history: History


def fit(model, x, target, mask=None, *, epochs, batch_size=32, loss=mean_squared_error, loss_mask=None, weights=None,
        class_weights=None, reduction="steps", optimizer=None, schedule=None, clip_norm=1.0, clip_value=None,
        accumulate=1, validation=None, patience=None, callbacks=(), checkpoint=None, checkpoint_steps=None, seed=0,
        progress=True):
    """Train ``model`` in place -> History, a list of the loss of each epoch, with more beside it.

    Data
    model        a Layer, such as Sequential: forward(x) -> (y, cache), backward(cache, dy); forward is also given mask=
                 and training=True where ``takes_mask`` and ``takes_training`` say that it takes them
    x, target    (N,T,D) and (N,T,F): N sequences, shuffled anew in every epoch; x (N,T) for a model that takes
                 categories, target (N,F) for one that pools; integers, one for a step, have no axis F
                 x may hold NaN if the model reads it so, as GRUD does
                 For a model that takes more than x: a dict of arrays (N,...) in place of x, which go to forward by
                 their names: {"x": x, "condition": c}.  Without "x" among them N and T are those of target
    mask         (N,T) bool or None: the real steps
    loss_mask    (N,T) bool or None: of the real steps, those whose error counts, for example none of a warm-up; (N,)
                 for a model that pools: of the sequences that have a real step
    weights      (N,T) or (N,), 0 or more: how much each of them counts; None: all alike
    class_weights   (F,), how much a step of each class counts, where target are classes
    seed         of the shuffling; what layers draw in training follows from their own seeds

    A step
    loss         function (y, target, mask) -> (loss, dy); also given weights= and reduction= where they are not None
                 and "steps"
    reduction    the mean is over "steps", or over "sequences", or it is the "sum" (``reduction.py``)
    batch_size   sequences in a batch
    accumulate   batches whose gradients are added up for one step, which is that of one batch as large as all of them
    optimizer    Adam() if None;  schedule: by what its rate is multiplied at each step
    clip_value   limit of each number of the gradients;  clip_norm: limit of their global norm; None: no clipping

    Over epochs
    validation   (x, target), (x, target, mask) or (x, target, mask, loss_mask), as above: its loss is computed after
                 each epoch, by the same reduction, but without weights or class weights
    patience     stop after so many epochs in a row without a new least validation loss, and in the end, stopped or not,
                 restore the weights of the best epoch
    callbacks    functions, called with an Epoch after each one; if one returns True, it was the last
    checkpoint   path of a file that is written after each epoch and, with ``checkpoint_steps``, after so many steps.
                 If it is there already, the run goes on from it, and ends with the same bits as if it had never
                 stopped; more ``epochs`` than before prolong it, and where there are as many already nothing is done.
                 A call with another model, other data or other settings than those of the file is refused; callbacks
                 are not looked at, and one lambda for a loss is like any other
    progress     show a bar with epoch, loss and rate; it is silent where the output is no terminal

    The loss of an epoch is the mean (or sum) over all that counts, while the weights move from step to step.  A batch
    where nothing counts is passed over.

    A model on a GPU has its data copied there once, if they are not there already, and nothing comes back but the
    losses and norms of an epoch when it is over.  ``loss`` is then given DeviceArrays.

    Raises TypeError or ValueError for data that do not fit together, FloatingPointError when a loss or a gradient is
    not finite, before it is put to use: the parameters are then those before that step.  OSError where a checkpoint
    cannot be written, as soon as that is known: before the first epoch, or after one that is in the file."""
    epochs, batch_size, accumulate = (positive(name, value) for name, value in (
        ("epochs", epochs), ("batch_size", batch_size), ("accumulate", accumulate)))
    one_of("reduction", reduction, REDUCTIONS)
    clip_norm, clip_value = (None if limit in (None, math.inf) else positive_number(name, limit) for name, limit in (
        ("clip_norm", clip_norm), ("clip_value", clip_value)))
    seed, patience = natural("seed", seed), None if patience is None else positive("patience", patience)
    flag("progress", progress)
    _check_backend(model, reduction, accumulate, clip_value, checkpoint_steps)
    optimizer, schedule = optimizer or Adam(), schedule or Constant()
    _check_kinds(loss, optimizer, schedule, callbacks)
    data, counts, weights = prepared(model, x, target, mask, loss_mask, weights, class_weights)
    plan = Plan(loss, reduction, batch_size, accumulate, clip_norm, clip_value)
    run = Run(model, optimizer, schedule, seed)
    validate, validation_data = _validation(model, validation, patience, plan)
    saver = None
    if checkpoint is not None:
        settings = plan.settings() | {"seed": seed, "optimizer": repr(optimizer), "schedule": repr(schedule),
                                      "patience": patience} | identity(model, data, validation_data)
        saver = Saver(run, Checkpoint(checkpoint, settings), checkpoint_steps)
    del validation_data                                 # on a GPU a copy, which evaluate makes for itself
    if checkpoint is None and checkpoint_steps is not None:
        raise ValueError(f"checkpoint_steps: expected None without a checkpoint, got {checkpoint_steps!r}")
    try:
        if saver:
            saver.begin()
        with Bar(epochs, -(-len(counts) // (batch_size * accumulate)), run, progress) as bar:
            while len(run.history) < epochs and not run.stopped:
                train_epoch(run, plan, data, counts, weights, bar, saver)
                after_epoch(run, validate, patience, callbacks)
                if saver:
                    saver.save()
    finally:
        optimizer.rate = run.rate
        if saver:
            saver.end()
    if run.best:
        model.load_state_dict(run.best)
    return run.history


def evaluate(model, x, target, mask=None, *, loss=mean_squared_error, loss_mask=None, weights=None, class_weights=None,
             reduction="steps", batch_size=256):
    """-> the loss of the model as it is, over all that counts; the arguments are those of ``fit``.  Nothing is drawn
    and nothing changes.  Raises what ``fit`` does, but for a loss that is not finite, which is the answer then."""
    data, counts, weights = prepared(model, x, target, mask, loss_mask, weights, class_weights)
    plan = Plan(loss, reduction, positive("batch_size", batch_size), 1, None, None)
    arrays, found = model.arrays, []
    for rows in batches(len(counts), plan.batch_size):
        if counts[rows].any():
            batch = data.each(lambda _, array: arrays.take(array, arrays.integers("rows", rows)))
            value, _ = plan.loss_of(batch, _forward(model, batch, **_without_cache(model))[0])
            found.append((plan.weight_of(rows, counts, weights), float(value)))
    return _overall(found, reduction)


class Plan(NamedTuple):
    """What a step is, as ``fit`` has it."""
    loss: Any
    reduction: str
    batch_size: int
    accumulate: int
    clip_norm: float | None
    clip_value: float | None

    def settings(self):
        """As JSON has it."""
        return self._asdict() | {"loss": name_of(self.loss)}

    def weight_of(self, rows, counts, weights):
        """By what the loss of a batch is weighed among others."""
        return total_weight(counts[rows], None if weights is None else weights[rows], self.reduction)

    def steps(self, rng, counts):
        """The batches of an epoch, those of each step of the optimizer in a list; without batches and steps in which
        nothing counts."""
        order = batches(len(counts), self.batch_size, seed=rng)
        steps = [order[k:k + self.accumulate] for k in range(0, len(order), self.accumulate)]
        steps = [[rows for rows in step if counts[rows].any()] for step in steps]
        return [step for step in steps if step]

    def shares(self, step, counts, weights):
        """By what the gradient of each batch of a step is multiplied."""
        if self.reduction == "sum" or len(step) == 1:
            return np.ones(len(step))
        shares = np.array([self.weight_of(rows, counts, weights) for rows in step])
        return shares / shares.sum()

    def loss_of(self, batch, y):
        """-> loss, dy"""
        options = {} if batch.weights is None else {"weights": batch.weights}
        options |= {} if self.reduction == "steps" else {"reduction": self.reduction}
        found = self.loss(y, batch.target, batch.counts, **options)
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError("loss: expected a function that returns (loss, gradient of y), got one that returns "
                            f"{describe(found)}")
        return found


def train_epoch(run, plan, data, counts, weights, bar, saver):
    """The next epoch, or what is left of it; its loss and the mean norm go into the history."""
    model, arrays = run.model, run.model.arrays
    steps = plan.steps(run.begin_epoch(), counts)
    order = [rows for step in steps for rows in step]
    watch = _watch(run, order, lambda rows: blamed(data.each(lambda _, array: arrays.to_numpy(array)), rows))
    taken = watch.rows()
    for step in steps[len(run.norms):]:
        model.zero_grads()
        for rows, share in zip(step, plan.shares(step, counts, weights)):
            batch = data.each(functools.partial(_take, arrays, next(taken)))
            _add_gradients(model, batch, plan, share, watch)
        if plan.clip_value is not None:
            clipping.clip_value(model, plan.clip_value)
        watch.clip(model, math.inf if plan.clip_norm is None else plan.clip_norm)
        run.step()
        run.losses, run.norms = watch.losses, watch.norms
        bar.step(run)
        if saver:
            saver.after_step()
    losses, norms = watch.read()
    weight = [plan.weight_of(rows, counts, weights) for rows in order]
    run.end_epoch(_overall(list(zip(weight, losses)), plan.reduction), float(np.mean(norms)) if norms else 0.0)


def _take(arrays, rows, _, array):
    return arrays.take(array, rows)


def _watch(run, order, why):
    epoch = len(run.history) + 1
    if run.model.backend == "gpu":
        return DeviceWatch(epoch, order, why)
    return Watch(epoch, order, why, run.losses, run.norms)


def _forward(model, batch, **options):
    """-> y, cache"""
    inputs = batch.inputs
    if model.takes_mask:
        options["mask"] = batch.mask
    elif batch.mask is not None and "x" in inputs and not model.takes_categories:
        inputs = inputs | {"x": model.arrays.select(inputs["x"], batch.mask)}       # nothing masked of x is read
    out, cache = model.forward(**inputs, **options)
    return first(out), cache


def _without_cache(model):
    """Options of forward where no backward pass follows."""
    return {"cache": False} if "cache" in inspect.signature(model.forward).parameters else {}


def _add_gradients(model, batch, plan, share, watch):
    """Of one batch, times its share of the step."""
    y, cache = _forward(model, batch, **({"training": True} if model.takes_training else {}))
    value, dy = plan.loss_of(batch, y)
    watch.see(value)
    model.backward(cache, dy if share == 1 else dy * dy.dtype.type(share))


def _overall(found, reduction):
    """[(weight, loss)] of batches -> the loss of all of them."""
    total = sum(weight * value for weight, value in found)
    if reduction == "sum":
        return float(total)
    return float(total / (sum(weight for weight, _ in found) or 1))


def _validation(model, validation, patience, plan):
    """-> a function without arguments that computes the validation loss, and its Data; None without validation data.
    """
    if validation is None:
        if patience is not None:
            raise ValueError(f"patience: expected None without validation data, got {patience!r}")
        return None, None
    if not isinstance(validation, tuple) or not 2 <= len(validation) <= 4:
        came = f"a tuple of {len(validation)}" if isinstance(validation, tuple) else describe(validation)
        raise TypeError("validation: expected a tuple (x, target), (x, target, mask) or (x, target, mask, loss_mask), "
                        f"got {came}")
    x, target, mask, loss_mask = (*validation, None, None)[:4]
    try:
        data, counts, _ = prepared(model, x, target, mask, loss_mask, None, None)
        if not counts.any():
            raise ValueError("expected at least one step that counts, got none")
    except (TypeError, ValueError) as error:
        raise type(error)(f"validation: {error}") from None
    return functools.partial(evaluate, model, x, target, mask, loss_mask=loss_mask, loss=plan.loss,
                             reduction=plan.reduction, batch_size=plan.batch_size), data


def after_epoch(run, validate, patience, callbacks):
    """Validation, the best weights, the schedule, callbacks; and is it enough?"""
    history = run.history
    if validate:
        history.validation.append(validate())
        if history.validation[-1] < (history.validation[history.best_epoch - 1] if history.best_epoch else math.inf):
            history.best_epoch = len(history)
            run.best = run.model.state_dict() if patience else {}
    run.schedule.see((history.validation or history)[-1])
    epoch = Epoch(len(history), history[-1], history.validation[-1] if validate else None, history.rates[-1],
                  history.norms[-1], run.model, history)
    asked = [bool(callback(epoch)) for callback in callbacks]           # all of them are called
    run.stopped = any(asked) or bool(patience) and len(history) - (history.best_epoch or 0) >= patience


class Bar:
    """The progress bar, in steps; a context manager."""

    def __init__(self, epochs, per_epoch, run, progress):
        self.epochs, self.per_epoch = epochs, per_epoch
        done = min(len(run.history), epochs) * per_epoch + len(run.norms)
        self.bar = tqdm(total=epochs * per_epoch, initial=done, desc="training", unit="step",
                        disable=None if progress else True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def step(self, run):
        if self.bar.disable:
            return
        known = f", loss {run.losses[-1]:.4g}" if run.losses else ""
        self.bar.set_postfix_str(f"epoch {len(run.history) + 1}/{self.epochs}{known}, rate {run.optimizer.rate:.2g}",
                                 refresh=False)
        self.bar.update()


def _check_kinds(loss, optimizer, schedule, callbacks):
    if not callable(loss):
        raise TypeError(f"loss: expected a function, such as minilstm.mean_squared_error, got {loss!r}")
    instance("optimizer", optimizer, Optimizer, "minilstm.Adam()")
    instance("schedule", schedule, Schedule, "minilstm.training.Cosine(steps)")
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise TypeError(f"callbacks: expected a list of functions, got {callbacks!r}")


def _check_backend(model, reduction, accumulate, clip_value, checkpoint_steps):
    """What is there only on the host?"""
    if model.backend != "gpu":
        return
    for name, value, plain in (("reduction", reduction, "steps"), ("accumulate", accumulate, 1),
                               ("clip_value", clip_value, None), ("checkpoint_steps", checkpoint_steps, None)):
        if value != plain:
            raise ValueError(f"{name}: expected {plain!r} for a model on a GPU, got {value!r}")
