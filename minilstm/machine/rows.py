"""What all kernels do with rows: copy and clear.

As loops, since Numba's assignments to slices take longer, and very much longer to compile."""
from numba.extending import register_jitable


@register_jitable(forceinline=True)
def copy_row(target, source):
    """target[:] = source, as many numbers as target has."""
    for j in range(target.shape[0]):
        target[j] = source[j]


@register_jitable(forceinline=True)
def clear_row(target):
    """target[:] = 0."""
    for j in range(target.shape[0]):
        target[j] = 0
