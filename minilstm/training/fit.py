"""The training loop: shuffle, batch, forward, loss, backward, clip, step."""
import inspect
import math
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..arguments import describe, natural, positive
from ..layers.layer import first
from ..sequences import batches
from .losses import mean_squared_error
from .optimizers import Adam
from .watch import DeviceWatch, Watch


def fit(model, x, target, mask=None, *, epochs, batch_size=32, loss=mean_squared_error, loss_mask=None, optimizer=None,
        clip_norm=1.0, seed=0, progress=True):
    """Train ``model`` in place -> the loss of each epoch, a list.

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
    loss         function (y, target, mask) -> (mean over what the mask says, dy)
    optimizer    Adam() if None
    clip_norm    limit of the gradients' global norm; None: no clipping
    seed         of the shuffling
    progress     show a bar with the loss; it is silent where the output is no terminal

    The loss of an epoch is the mean over all steps, or sequences, that count, while the weights move from batch to
    batch.  A batch with none is passed over.

    A model on a GPU has its data copied there once, if they are not there already, and nothing comes back but the
    losses of an epoch when it is over.  ``loss`` is then given DeviceArrays.

    Raises TypeError or ValueError for data that do not fit together, FloatingPointError when a loss or a gradient is
    not finite, before it is put to use: the parameters are then those before that batch."""
    epochs, batch_size = positive("epochs", epochs), positive("batch_size", batch_size)
    arrays = model.arrays
    inputs = x if isinstance(x, dict) else {"x": x}
    data = Data(inputs, target, mask, loss_mask).each(arrays.adopted)
    counts = _checked(model, data)
    data = data._replace(counts=counts).each(arrays.data)
    optimizer, limit = optimizer or Adam(), math.inf if clip_norm is None else clip_norm
    watching = DeviceWatch if model.backend == "gpu" else Watch
    rng = np.random.default_rng(natural("seed", seed))
    history = []
    with tqdm(total=epochs, desc="training", unit="epoch", disable=None if progress else True) as bar:
        for epoch in range(1, epochs + 1):
            found = [rows for rows in batches(len(target), batch_size, seed=rng) if counts[rows].any()]
            watch = watching(epoch, found, lambda rows: _why(data.each(lambda _, a: arrays.to_numpy(a)[rows])))
            for rows in watch.rows():
                batch = data.each(lambda _, array: arrays.take(array, rows))
                _train_on(model, batch, loss, optimizer, limit, watch)
            total = sum(counts[rows].sum() * value for rows, value in zip(found, watch.read()))
            history.append(float(total / max(1, counts.sum())))
            bar.set_postfix(loss=f"{history[-1]:.4g}")
            bar.update()
    return history


class Data(NamedTuple):
    """Of all N sequences, or of those in a batch."""
    inputs: dict                    # name -> (N,...)
    target: np.ndarray
    mask: np.ndarray | None         # (N,T)
    counts: np.ndarray | None       # (N,T) or (N,): of the target, what is given as loss_mask, and later what counts

    def each(self, function):
        """function(name, array) in place of every array."""
        others = zip(("target", "mask", "loss_mask"), self[1:])
        return Data({name: function(name, array) for name, array in self.inputs.items()},
                    *(None if array is None else function(name, array) for name, array in others))


def _checked(model, data):
    """Do the arrays fit together?  -> what counts of the target: steps (N,T) bool, or sequences (N,); NumPy's."""
    inputs, known, kinds = data.inputs, model.arrays.KNOWN, model.arrays.KINDS
    data = {"target": data.target, "mask": data.mask, "loss_mask": data.counts}
    if own := sorted(inputs.keys() & {"training", "draw", "cache", *(("mask",) if model.takes_mask else ())}):
        raise ValueError(f"x: expected a dict without {', '.join(own)}, which fit passes itself")
    if model.takes_mask and "lengths" in inputs:
        raise ValueError("x: expected a dict without lengths, of which the loss would not know: pass "
                         "mask=sequences.lengths_to_mask(lengths, T)")
    if not model.walk():
        raise ValueError(f"model: expected one with parameters, got a {type(model).__name__} without: children() names "
                         "the layers inside")
    if data["mask"] is not None and not model.takes_mask and "mask" in inspect.signature(model.forward).parameters:
        raise ValueError(f"mask: {type(model).__name__} would not get it: its class has to say takes_mask = True")
    leader = "x" if "x" in inputs else "target"         # whose N and T the others must have
    data = {leader: (inputs | data)[leader]} | data
    for name, array in data.items():
        is_mask = name.endswith("mask")
        if not (isinstance(array, known) and (array.dtype == bool or not is_mask) or is_mask and array is None):
            raise TypeError(f"{name}: expected {kinds}{' of bool' * is_mask}, got {describe(array)}")
        times = 1 if model.pools and name in ("target", "loss_mask") else 2     # axes that are as in the leader
        is_class = name == "target" and array.dtype.kind in "iu" or name == "x" and model.takes_categories
        axes = ("N", "T")[:times] + (() if is_mask or is_class else ("...",))
        times = 1 if model.pools and leader == "target" else times
        if array is not None and (array.ndim != len(axes) or array.shape[:times] != data[leader].shape[:times]
                                  or len(array) == 0):
            raise ValueError(f"{name}: expected {len(axes)} axes, ({','.join(axes)}), with N > 0, and "
                             f"{' and '.join(axes[:times])} as in {leader}, got {describe(array)}"
                             f"{_cure(name, array, axes, model)}")
    target, mask, loss_mask = data["target"], data["mask"], data["loss_mask"]
    for name, array in inputs.items():
        if not isinstance(array, known) or array.shape[:1] != target.shape[:1]:
            error = ValueError if isinstance(array, known) else TypeError
            raise error(f"{name}: expected {kinds} (N={len(target)},...), got {describe(array)}")
    counts = np.ones(target.shape[:1 if model.pools else 2], bool)
    if mask is not None:
        mask = np.asarray(mask)
        counts = mask.any(axis=1) if model.pools else mask
    return counts if loss_mask is None else counts & np.asarray(loss_mask)


def _cure(name, array, axes, model):
    if name == "target" and array.ndim == len(axes) - 1 == 1:
        return "; target[:, None] gives (N,) numbers an axis of one feature"
    if name == "target" and array.ndim == 2 and not model.pools:
        return "; a model with one output a sequence has a layer that pools, or says pools = True"
    return ""


def _why(batch):
    """A loss that is not finite: are the data to blame?"""
    inputs, target, _, counts = batch
    if target.dtype.kind == "f" and not np.isfinite(target[counts]).all():
        return "; target has NaN or infinity where it counts: leave these out by loss_mask="
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"; {name} has NaN or infinity: fill what is missing (minilstm.sequences), or read it by a GRUD"
    if target.dtype.kind in "iu":
        return f"; the classes in target are {target[counts].min()} to {target[counts].max()}"
    return ""


def _train_on(model, batch, loss, optimizer, limit, watch):
    options = {"mask": batch.mask} if model.takes_mask else {}
    options |= {"training": True} if model.takes_training else {}
    out, cache = model.forward(**batch.inputs, **options)
    value, dy = loss(first(out), batch.target, batch.counts)
    watch.see(value)
    model.zero_grads()
    model.backward(cache, dy)
    watch.clip(model, limit)
    optimizer.step(model)
