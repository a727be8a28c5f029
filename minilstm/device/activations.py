"""tanh, sigmoid and exp for float32 on a GPU, made of its two special instructions 2**x and 1/x.

The forms that ``cells/activations.py`` compiles for a processor run on a GPU as well, but a division there is a call
with branches: a step of an LSTM has five of them.  After ``register()`` a formula that calls ``tanh`` gets the form of
its target.  The simulator uses these forms too.

    sigmoid(x) = 1 / (1 + 2**(-x / log 2))
    tanh(x)    = sign(x) * (1 - 2 / (1 + 2**(2|x| / log 2)))        from |x| = 0.625 on
    tanh(x)    = x + x**3 * polynomial(x**2)                        below, where that would lose digits
    exp(x)     = 2**(x / log 2)

2**x overflows to infinity and 1 / infinity is 0, so all end at their limits; a NaN stays one.  Results below the
smallest normal number, 1.2e-38, are 0.

x / log 2 is rounded, so the relative error of exp grows with |x|, by at most 8e-8 |x|.  For a weight e**x of a softmax,
x <= 0, that is at most 3e-8 of the largest weight, no more than a rounding to float32: nothing would be gained by a
product in two parts.  ``tests/test_instructions.py`` bounds all errors.
"""
import functools
import math

import numpy as np
from numba import types

from ..cells import activations
from . import ptx

ONE, TWO, SMALL = np.float32(1), np.float32(2), np.float32(0.625)
PER_LOG2, TWICE_PER_LOG2 = np.float32(1 / math.log(2)), np.float32(2 / math.log(2))
C4, C3, C2, C1, C0 = (np.float32(c) for c in activations.polynomial(activations.series_of_tanh(40), 5, 0, 0.625**2))


def _tanh(x):
    a = abs(x)
    large = ONE - TWO * ptx.reciprocal(ONE + ptx.exp2(a * TWICE_PER_LOG2))
    square = a * a
    q = (((C4 * square + C3) * square + C2) * square + C1) * square + C0
    return math.copysign(a * (square * q) + a if a < SMALL else large, x)


def _sigmoid(x):
    return ptx.reciprocal(ONE + ptx.exp2(-x * PER_LOG2))


def _exp(x):
    return ptx.exp2(x * PER_LOG2)


FORMS = {activations.tanh: _tanh, activations.sigmoid: _sigmoid, activations.exp: _exp}


@functools.cache
def register():
    """Have kernels compiled with these forms, from now on."""
    from numba.cuda.extending import overload

    def for_float32(function, form):
        overload(function, target="cuda", jit_options={"forceinline": True})(
            lambda x: form if x == types.float32 else None)

    for function, form in FORMS.items():
        for_float32(function, form)
