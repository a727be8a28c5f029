r"""sigmoid and tanh, with their derivatives: the only functions that are not plus, minus or times.

A function decorated with ``@formula`` is plain Python.  It runs on NumPy arrays, complex ones included, and the same
source is compiled into ``@njit`` loops and ``@cuda.jit`` kernels.  Two rules keep it fast there:

* constants are typed (``ONE``, not ``1.0``): a bare ``1.0`` would turn float32 arithmetic into float64;
* formulas are inlined by force: left to itself the compiler does not inline a function with five activations in it, and
  a loop that contains a call does not become vector instructions.

On NumPy arrays ``tanh`` is NumPy's.  Compiled code gets ``tanh`` and ``sigmoid`` made of arithmetic, because a call
into the C library cannot be vectorised.  Both follow from one exponential, taken of a negative number so that nothing
overflows:

    exp(-a) = 2**-n * exp(r)        n = round(a / log 2),  r = n * log 2 - a,  |r| <= log(2) / 2
    exp(r)  = 1 + r + r**2 / 2! + r**3 / 3! + ...

    tanh(x)    = sign(x) * (1 - exp(-2|x|)) / (1 + exp(-2|x|))
    sigmoid(x) = 1 / (1 + exp(-|x|))  for x >= 0,   exp(-|x|) / (1 + exp(-|x|))  for x < 0

log 2 is taken in two parts, the first with so few bits that n times it is exact (Cody and Waite, Software Manual for
the Elementary Functions, 1980).  ``tests/test_activations.py`` measures the error against extended precision.
"""
import math

import numpy as np
from numba import types
from numba.extending import overload, register_jitable

ONE, HALF = np.float32(1), np.float32(0.5)

formula = register_jitable(forceinline=True)


def tanh(x):
    return np.tanh(x)


def sigmoid(x):
    z = np.exp(np.where(np.real(x) < 0, x, -x))                     # exp(-|x|): no overflow, and no digit lost below 0
    return np.where(np.real(x) < 0, z, ONE) / (ONE + z)


def relu(x):
    """x where it is positive, 0 elsewhere; the sign of a complex number is its real part's.  A NaN stays NaN."""
    return np.where(np.real(x) < 0, np.asarray(x).dtype.type(0), x)


def d_relu(y):
    """The derivative of relu, from its value y = relu(x): 1 or 0."""
    return np.sign(y)


@formula
def d_tanh(t):
    """The derivative of tanh, from its value t = tanh(x)."""
    return ONE - t * t


@formula
def d_sigmoid(s):
    """The derivative of sigmoid, from its value s = sigmoid(x)."""
    return s * (ONE - s)


# --------------------------------------------------------------------- the compiled forms, for one floating-point type

def _compiled(Float, Int, mantissa_bits, exponent_bias, terms, zero_beyond, log2_high, log2_low):
    """(tanh, sigmoid) for one type.  exp(-a) rounds to zero for a > zero_beyond."""
    one, two, half = Float(1), Float(2), Float(0.5)
    per_log2, high, low, limit = Float(1 / math.log(2)), Float(log2_high), Float(log2_low), Float(zero_beyond)
    shift, bias, one_bit = Int(mantissa_bits), Int(exponent_bias), Int(1)
    coefficients = tuple(Float(1 / math.factorial(k)) for k in range(terms, 1, -1))

    @register_jitable(forceinline=True)
    def power_of_two(n):
        return Int((bias + n) << shift).view(Float)

    @register_jitable(forceinline=True)
    def exp_minus(a):
        """(p, s, t) with exp(-a) = (1 + p) * s * t for a >= 0.  The scale is in two factors, since 2**-n may be
        smaller than the smallest normal number.  A NaN goes through the p, never through the conversion to integer."""
        in_range = a if a < limit else limit
        a = limit if a > limit else a
        whole = Int(in_range * per_log2 + half)
        n = Float(whole)
        r = (n * high - a) + n * low
        p = coefficients[0]
        for k in range(1, len(coefficients)):
            p = p * r + coefficients[k]
        p = p * (r * r) + r
        first = whole >> one_bit
        return p, power_of_two(-first), power_of_two(first - whole)

    def tanh(x):
        p, s, t = exp_minus(two * abs(x))
        scale = s * t
        minus_one = scale * p + (scale - one)                       # exp(-2|x|) - 1, exact for small x too
        return math.copysign(minus_one / (minus_one + two), x)

    def sigmoid(x):
        p, s, t = exp_minus(abs(x))
        z = (one + p) * s * t                                       # exp(-|x|)
        numerator = z if x < Float(0) else one
        return numerator / (one + z)

    return tanh, sigmoid


_FORMS = {
    types.float32: _compiled(np.float32, np.int32, 23, 127, terms=7, zero_beyond=104,
                             log2_high=0.693359375, log2_low=-2.1219444005469057e-4),
    types.float64: _compiled(np.float64, np.int64, 52, 1023, terms=13, zero_beyond=746,
                             log2_high=0.693145751953125, log2_low=1.4286068203094173e-6),
}


@overload(tanh, jit_options={"forceinline": True})
def _tanh_compiled(x):
    return _FORMS[x][0] if x in _FORMS else None


@overload(sigmoid, jit_options={"forceinline": True})
def _sigmoid_compiled(x):
    return _FORMS[x][1] if x in _FORMS else None


@overload(relu, jit_options={"forceinline": True})
def _relu_compiled(x):
    zero = {types.float32: np.float32(0), types.float64: np.float64(0)}.get(x)
    return None if zero is None else lambda x: zero if x < zero else x


@overload(d_relu, jit_options={"forceinline": True})
def _d_relu_compiled(y):
    limits = {types.float32: (np.float32(0), np.float32(1)), types.float64: (np.float64(0), np.float64(1))}.get(y)
    if limits is None:
        return None
    zero, one = limits
    return lambda y: one if y > zero else y             # 0 or NaN
