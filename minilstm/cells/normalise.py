"""Layer normalisation: the numbers of one row, brought to mean 0 and variance 1.

    n = (s - mean) / sqrt(variance + EPSILON)               mean and variance of the row's K numbers

    ds = (dn - mean(dn) - n * mean(dn * n)) / sqrt(variance + EPSILON)

So the size of s does not matter, as long as its variance is far above EPSILON and a float can hold it: float32 numbers
beyond 1e19 have none, and n is 0.  The reverse has three terms because a number of s moves its own n, the mean, and the
variance.

Source: J. Ba, J. Kiros and G. Hinton, Layer Normalization, 2016, equation 3.  EPSILON, which keeps a row of equal
numbers from a division by zero, is that of PyTorch and haste.
"""
import numpy as np

from .activations import formula

EPSILON = 1e-5


# ----------------------------------------------------------------------------------------------------- a whole batch

def normalise(s):
    """s (B,K) -> n (B,K).  Squares, not absolute values: the complex step goes through."""
    centred = s - s.mean(axis=1, keepdims=True)
    return centred / _deviation(centred)


def normalise_backward(s, dn):
    """The reverse of ``normalise``.  s, dn (B,K) -> ds (B,K)."""
    centred = s - s.mean(axis=1, keepdims=True)
    deviation = _deviation(centred)
    n = centred / deviation
    return (dn - dn.mean(axis=1, keepdims=True) - n * (dn * n).mean(axis=1, keepdims=True)) / deviation


def _deviation(centred):
    return np.sqrt((centred * centred).mean(axis=1, keepdims=True) + centred.dtype.type(EPSILON))


# ------------------------------------------------------------------------------------------ one row, for compiled loops

@formula
def moments(s):
    """s (G,H), all one row -> mean, 1 / sqrt(variance + EPSILON)."""
    Float = s.dtype.type
    count = Float(s.size)
    total = Float(0)
    for k in range(s.shape[0]):
        for j in range(s.shape[1]):
            total += s[k, j]
    mean = total / count
    squares = Float(0)
    for k in range(s.shape[0]):
        for j in range(s.shape[1]):
            squares += (s[k, j] - mean) * (s[k, j] - mean)
    return mean, Float(1) / np.sqrt(squares / count + Float(EPSILON))


@formula
def normalise_row_backward(s, d):
    """d (G,H): dn on entry, ds on return."""
    Float = s.dtype.type
    count = Float(s.size)
    mean, scale = moments(s)
    total, with_n = Float(0), Float(0)
    for k in range(s.shape[0]):
        for j in range(s.shape[1]):
            total += d[k, j]
            with_n += d[k, j] * ((s[k, j] - mean) * scale)
    for k in range(s.shape[0]):
        for j in range(s.shape[1]):
            n = (s[k, j] - mean) * scale
            d[k, j] = (d[k, j] - total / count - n * (with_n / count)) * scale
