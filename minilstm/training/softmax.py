"""The logarithm of a softmax: from any numbers to the logarithms of chances that sum to 1."""
import numpy as np


def log_softmax(a):
    """log(exp(a) / sum(exp(a))) over the last axis.  a (...,A) -> (...,A)

    The largest a is taken away first, so that exp cannot overflow and the sum is at least 1.  A chance below the
    smallest number has the logarithm -inf only where a difference of two a overflows."""
    with np.errstate(over="ignore"):
        shifted = a - a.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_softmax_backward(d_log_p, log_p):
    """The reverse of ``log_softmax``, from its value.  d_log_p, log_p (...,A) -> da (...,A).  The shift needs no line:
    it changes no value."""
    d_log_sum = -d_log_p.sum(axis=-1, keepdims=True)        # log_p = a - log_sum
    return d_log_p + d_log_sum * np.exp(log_p)              # log_p = a - log_sum, log_sum = log(sum(exp(a)))
