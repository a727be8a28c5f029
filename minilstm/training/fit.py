"""The training loop: shuffle, batch, forward, loss, backward, clip, step."""
import numpy as np
from tqdm import tqdm

from ..layers.arguments import describe, positive
from .clipping import clip_global_norm
from .losses import mean_squared_error
from .optimizers import Adam


def fit(model, x, target, mask=None, *, epochs, batch_size=32, loss=mean_squared_error, loss_mask=None, optimizer=None,
        clip_norm=1.0, seed=0, progress=True):
    """Train ``model`` in place -> the mean loss of each epoch, a list.

    model        a Layer with forward(x, mask) -> (y, cache) and backward(cache, dy), such as Sequential
    x, target    (N,T,D) and (N,T,F): N sequences, shuffled anew in every epoch
    mask         (N,T) bool or None: the real steps, for the model and, unless loss_mask says otherwise, for the loss
    loss_mask    (N,T) bool or None: the steps whose error counts, for example none of a warm-up
    loss         function (y, target, mask) -> (loss, dy)
    optimizer    Adam() if None
    clip_norm    limit of the gradients' global norm; None: no clipping
    seed         of the shuffling
    progress     show a bar with the loss; it is silent where the output is no terminal

    Raises ValueError where the numbers of sequences differ or are 0, FloatingPointError when a loss or a gradient is
    not finite: the parameters are then those before that batch."""
    epochs, batch_size = positive("epochs", epochs), positive("batch_size", batch_size)
    loss_mask = mask if loss_mask is None else loss_mask
    for name, array in {"target": target, "mask": mask, "loss_mask": loss_mask}.items():
        if array is not None and len(array) != len(x):
            raise ValueError(f"{name}: expected {len(x)} sequences, as x has, got {describe(array)}")
    optimizer = optimizer or Adam()
    rng = np.random.default_rng(seed)
    if len(x) == 0:
        raise ValueError(f"x: expected at least one sequence, got {describe(x)}")
    history = []
    with tqdm(total=epochs, desc="training", unit="epoch", disable=None if progress else True) as bar:
        for _ in range(epochs):
            losses = []
            order = rng.permutation(len(x))
            for start in range(0, len(x), batch_size):
                rows = order[start:start + batch_size]
                batch = [None if a is None else a[rows] for a in (x, target, mask, loss_mask)]
                losses.append(_train_on(model, *batch, loss, optimizer, clip_norm) * len(rows))
            history.append(sum(losses) / len(x))
            bar.set_postfix(loss=f"{history[-1]:.4g}")
            bar.update()
    return history


def _train_on(model, x, target, mask, loss_mask, loss, optimizer, clip_norm):
    y, cache = model.forward(x, mask)
    value, dy = loss(y, target, loss_mask)
    if not np.isfinite(value):
        raise FloatingPointError(f"the loss is {value}")
    model.zero_grads()
    model.backward(cache, dy)
    if clip_norm is not None:
        clip_global_norm(model, clip_norm)
    optimizer.step(model)
    return value
