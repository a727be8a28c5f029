"""What all layers with a condition do with it before they read it."""
import numpy as np

from ..arguments import describe, floats
from ..arrays.host import finite_or_nan


def condition_of(condition, C, dtype, mask):
    """condition (B,C), checked; mask (B,T) -> (B,C), zeros in rows without a real step, which have nothing to read it.

    An infinite number counts as NaN: it would only saturate what reads it, and nobody would see it."""
    if isinstance(condition, np.ndarray) and condition.ndim == 3:
        raise ValueError(f"condition: expected {dtype} (B={len(mask)}, C={C}), one for a sequence, got "
                         f"{describe(condition)}; what changes from step to step is more features of x "
                         "(sequences.add_features), a set of conditions is for 'attend_conditions'")
    condition = floats("condition", condition, dtype, (len(mask), C), ("B", "C"))
    return finite_or_nan(np.where(mask.any(axis=1)[:, None], condition, dtype.type(0)))
