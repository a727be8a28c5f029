"""More columns for x, and time and batch in the right order.

    B  batch      T  time steps      D  input features of x      F  features that join them
"""
import numpy as np

from ..arguments import describe
from .shapes import array, batch_of, float_like


def add_features(x, *features, static=None):
    """x (B,T,D), features each (B,T,F), static (B,F) -> (B,T,D + all F), a new array in x's dtype.

    static      what holds for a whole sequence: every step gets the same

    The columns stand in the order of the arguments, those of ``static`` last.  Make the mask from the lengths, not
    from the result: a step that was all zeros is so no longer once it has features.

    Raises TypeError for another dtype than x has, ValueError for another B or T, and for two axes where it is not said
    what they are: (B,T) and (B,F) cannot be told apart, and are not guessed."""
    B, T, _ = batch_of("x", x).shape
    columns = [x]
    for k, feature in enumerate(features):
        name = f"features[{k}]"
        if float_like(name, feature, x).ndim != 3 or feature.shape[:2] != (B, T):
            raise ValueError(f"{name}: expected (B={B}, T={T}, F), got {describe(feature)}{_cure(feature.shape, B, T)}")
        columns.append(feature)
    if static is not None:
        if float_like("static", static, x).ndim != 2 or len(static) != B:
            cure = "; static[:, None] makes one number a sequence (B, 1)" if static.shape == (B,) else ""
            raise ValueError(f"static: expected (B={B}, F), got {describe(static)}{cure}")
        columns.append(np.broadcast_to(static[:, None, :], (B, T, static.shape[1])))
    return np.concatenate(columns, axis=2)


def _cure(shape, B, T):
    """What to do with a feature of this shape."""
    if len(shape) == 2:
        return ("; [:, :, None] makes one number a step, (B, T), a feature, and static= takes what holds for a whole "
                "sequence, (B, F)")
    if len(shape) == 3 and shape[:2] == (T, B):
        return "; time comes first here: swap_time_batch puts the batch first"
    return ""


def swap_time_batch(x):
    """x (T,B,...) -> (B,T,...), or the other way round: a new array.

    It moves axes: y[b, t] = x[t, b].  reshape does something else.  It reads the numbers in the order in which they
    lie in memory and cuts them into rows of another length, so that steps of different sequences stand in one row.
    For two sequences of three steps, a0 a1 a2 and b0 b1 b2, time first:

        x                       [[a0, b0], [a1, b1], [a2, b2]]
        swap_time_batch(x)      [[a0, a1, a2], [b0, b1, b2]]
        x.reshape(2, 3)         [[a0, b0, a1], [b1, a2, b2]]        two sequences that never were

    The shape is the right one both times, so nothing complains.  It is the same with PyTorch's view and transpose.

    Raises TypeError or ValueError for what is no array of two axes or more."""
    if array("x", x).ndim < 2:
        raise ValueError(f"x: expected two axes or more, (T,B,...), got {describe(x)}")
    return np.array(x.swapaxes(0, 1), order="C")
