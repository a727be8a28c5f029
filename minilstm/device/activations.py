"""tanh, sigmoid and exp for float32 on a GPU, made of its two special instructions 2**x and 1/x.

The forms that ``cells/activations.py`` compiles for a processor run on a GPU as well, but a division there is a call
with branches: one step of an LSTM has 432 machine instructions with them and 152 with these.  After ``register()`` a
formula that calls ``tanh`` gets the one of its target.

    sigmoid(x) = 1 / (1 + 2**(-x / log 2))
    tanh(x)    = sign(x) * (1 - 2 / (1 + 2**(2|x| / log 2)))        from |x| = 0.625 on
    tanh(x)    = x + x**3 * polynomial(x**2)                        below, where that would lose digits

2**x overflows to infinity and 1 / infinity is 0, so both end at their limits; a NaN stays one.
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
