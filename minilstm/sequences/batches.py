"""Which sequences go together in one batch: in order, shuffled, or neighbours by length.

    n  sequences      batch  an array of their indices
"""
import numpy as np

from ..arguments import describe, natural, positive
from .shapes import lengths_of


def batches(n, batch_size, *, seed=None, lengths=None):
    """n sequences -> a list of index arrays; each index from 0 to n - 1 is in just one.

    batch_size  sequences in a batch; the last of them may have fewer
    seed        of the shuffling, or a NumPy Generator to draw from, which gives other batches each time; None: in order
    lengths     (n,) integers or None: sequences of like length go together, so that little is padding.  The seed then
                shuffles the order of the batches, and who goes with whom among equal lengths; without a seed they come
                from short to long

    Same seed, same batches.  A batch of neighbours has only as many steps as its longest sequence: pad each by itself,
    or cut x[batch] and mask[batch] to lengths[batch].max() steps.

    Raises TypeError or ValueError that says which argument does not fit."""
    n, batch_size = natural("n", n), positive("batch_size", batch_size)
    rng = seed
    if not (seed is None or isinstance(seed, np.random.Generator)):
        rng = np.random.default_rng(natural("seed", seed))
    order = np.arange(n) if rng is None else rng.permutation(n)
    if lengths is not None:
        lengths = lengths_of(lengths)
        if lengths.shape != (n,):
            raise ValueError(f"lengths: expected shape (n={n},), got {lengths.shape}")
        order = order[np.argsort(lengths[order], kind="stable")]        # equal lengths stay in the order drawn
    found = [order[start:start + batch_size] for start in range(0, n, batch_size)]
    if lengths is not None and rng is not None:
        return [found[k] for k in rng.permutation(len(found))]
    return found


def padding_share(lengths, batches):
    """lengths (n,), batches a list of index arrays -> the part of all steps that is padding, from 0 to less than 1,
    each batch as long as its longest sequence.  0 if there is no step.

    Raises TypeError or ValueError that says which argument does not fit."""
    lengths = lengths_of(lengths)
    real = total = 0
    for k, batch in enumerate(batches):
        if not isinstance(batch, np.ndarray) or batch.ndim != 1 or batch.dtype.kind not in "iu":
            raise TypeError(f"batches[{k}]: expected integers with one axis, got {describe(batch)}")
        if batch.size and not 0 <= batch.min() <= batch.max() < len(lengths):
            raise ValueError(f"batches[{k}]: expected indices from 0 to {len(lengths) - 1}, got {batch.min()} to "
                             f"{batch.max()}")
        real += int(lengths[batch].sum())
        total += len(batch) * int(lengths[batch].max(initial=0))
    return 1 - real / total if total else 0.0
