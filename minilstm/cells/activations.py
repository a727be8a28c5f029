r"""sigmoid and tanh, with their derivatives: the only functions that are not plus, minus or times.

A function decorated with ``@formula`` is plain Python.  It runs on NumPy arrays, complex ones included, and the same
source is compiled into ``@njit`` loops and ``@cuda.jit`` kernels.  Two rules keep it fast there:

* constants are typed (``ONE``, not ``1.0``): a bare ``1.0`` would turn float32 arithmetic into float64;
* formulas are inlined by force: left to itself the compiler does not inline a function with five activations in it, and
  a loop that contains a call does not become vector instructions.

On NumPy arrays ``tanh`` is NumPy's.  Compiled code gets ``tanh`` and ``sigmoid`` made of arithmetic, because a call
into the C library cannot be vectorised.  Both follow from one exponential:

    exp(t) = s * (1 + p)        s = 2**n,  n = round(t / log 2),  p = exp(r) - 1,  r = t - n * log 2,  |r| <= log(2) / 2

    sigmoid(x) = 1 / (1 + exp(-x))
    tanh(x)    = sign(x) * (1 - 2 / (1 + exp(2|x|)))                    from |x| = 0.625 on
    tanh(x)    = x + x**3 * q(x**2)                                     below, where the difference would lose digits

p = r + r**2 * (1/2 + r/6 + ...) and q are polynomials that meet the function at Chebyshev's points.  log 2 is taken in
two parts, the first with so few bits that n times it is exact (Cody and Waite, Software Manual for the Elementary
Functions, 1980).  1 + exp(t) is rounded once: s * p is added to 1 + s in one instruction, and 1 + s is exact while s is
of moderate size.  ``tests/test_activations.py`` measures the error against extended precision.
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


def exp(x):
    """e**x for x <= 0, as a softmax needs it: compiled, it is 0 where e**x is below the smallest normal number."""
    return np.exp(x)


def softplus(x):
    """log(1 + exp(x)), without overflow; its derivative is sigmoid(x)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


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

def polynomial(series, terms, low, high):
    """The polynomial that meets sum(series[k] * x**k) at Chebyshev's points of [low, high]: its coefficients, the
    highest power's first."""
    found = np.polynomial.Chebyshev.interpolate(np.polynomial.Polynomial(series), terms - 1, [low, high])
    return found.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef[::-1]


def series_of_tanh(terms):
    """Of (tanh(x) - x) / x**3 in powers of x**2, from tanh' = 1 - tanh**2."""
    t = [0.0, 1.0]                                                  # of tanh in powers of x
    for k in range(1, 2 * terms + 3):
        t.append(-sum(t[j] * t[k - j] for j in range(k + 1)) / (k + 1))
    return t[3:2 * terms + 3:2]


def _compiled(Float, Int, mantissa_bits, exponent_bias, exp_terms, tanh_terms, log2_high, log2_low, room, lowest,
              highest):
    """(tanh, sigmoid, exp) for one type.

    room: sigmoid is computed as 2**-room / (2**-room + 2**-room * exp(-x)), so that exp(-x) may go beyond the largest
    number while the result is not yet zero.  lowest, highest: of -x, beyond which sigmoid is 1 and 0."""
    zero, one, two, small = Float(0), Float(1), Float(2), Float(0.625)
    per_log2, high, low = Float(1 / math.log(2)), Float(log2_high), Float(log2_low)
    to_integer = Float(1.5 * 2.0**mantissa_bits)                    # x + it - it is x rounded to an integer,
    shift, bias, bias_less_room = Int(mantissa_bits), Int(exponent_bias), Int(exponent_bias - room)
    unit = Float(2.0**-room)                                        # which the last bits of x + it spell out
    lowest, highest, many = Float(lowest), Float(highest), Float(8)
    tanh_is_one = Float(mantissa_bits + 3)                          # for 2|x| from here on
    exp_is_zero = Float((1 - exponent_bias) * math.log(2))          # for x below
    limit = math.log(2) / 2
    exp_series = polynomial([1 / math.factorial(k + 2) for k in range(25)], exp_terms, -limit, limit)
    exp_series = tuple(Float(c) for c in exp_series)
    tanh_series = tuple(Float(c) for c in polynomial(series_of_tanh(40), tanh_terms, 0, 0.625**2))

    @register_jitable(forceinline=True)
    def parts_of_exp(t, bias):
        """(p, s) with exp(t) = s * (1 + p), s divided by two as often as ``bias`` is smaller than the type's.  t is
        moderate, or NaN: then p is NaN."""
        shifted = Float(t * per_log2 + to_integer)
        n = shifted - to_integer
        r = (t - n * high) - n * low
        p = exp_series[0]
        for k in range(1, len(exp_series)):
            p = p * r + exp_series[k]
        p = p * (r * r) + r
        return p, Int((shifted.view(Int) + bias) << shift).view(Float)

    def tanh(x):
        a = abs(x)
        t = two * a
        p, s = parts_of_exp(tanh_is_one if t > tanh_is_one else t, bias)
        large = one - two / (s * p + (s + one))
        square = a * a
        q = tanh_series[0]
        for k in range(1, len(tanh_series)):
            q = q * square + tanh_series[k]
        return math.copysign(a * (square * q) + a if a < small else large, x)

    def sigmoid(x):
        t = lowest if -x < lowest else -x
        t = highest if t > highest else t
        p, s = parts_of_exp(t, bias_less_room)
        first = zero if t > many else unit                          # 1 goes to s while 1 + s is exact, else to s * p
        return unit / ((s * p + (unit - first)) + (s + first))

    def exp(x):
        p, s = parts_of_exp(exp_is_zero if x < exp_is_zero else x, bias)
        return zero if x < exp_is_zero else s * p + s

    return tanh, sigmoid, exp


_FORMS = {
    types.float32: _compiled(np.float32, np.int32, 23, 127, exp_terms=5, tanh_terms=5, log2_high=0.693359375,
                             log2_low=-2.1219444005469057e-4, room=32, lowest=-65, highest=110),
    types.float64: _compiled(np.float64, np.int64, 52, 1023, exp_terms=11, tanh_terms=11, log2_high=0.693145751953125,
                             log2_low=1.4286068203094173e-6, room=128, lowest=-600, highest=780),
}


@overload(tanh, jit_options={"forceinline": True})
def _tanh_compiled(x):
    return _FORMS[x][0] if x in _FORMS else None


@overload(sigmoid, jit_options={"forceinline": True})
def _sigmoid_compiled(x):
    return _FORMS[x][1] if x in _FORMS else None


@overload(exp, jit_options={"forceinline": True})
def _exp_compiled(x):
    return _FORMS[x][2] if x in _FORMS else None


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
