"""Is a hand-written backward pass the derivative of its forward pass?  Three independent answers.

Let L = sum(v * out) over all outputs, with random v.  ``backward`` claims dL/dp for every number p.  Against it stand

    complex step     Im L(p + 1e-30 i) / 1e-30          no difference is taken, so nothing cancels: exact to rounding
    central          (8 D(s) - D(2s)) / 12s with D(s) = L(p + s) - L(p - s): needs nothing but forward; right to about
                     nine digits
    projection       <dL/dA, u> against the same difference along a random direction u of a whole array A: four forward
                     passes however large the array is

Where L bends within a step, a difference is no derivative, and it can tell: then D(s) / 2s is another number.  What the
two differ by is its doubt, and of an error only what goes beyond it counts.  The complex step has no such doubt.

The complex step (Squire and Trapp 1998) needs a forward pass that accepts complex numbers and is smooth: the layers
here do it on their reference backend.  For functions that NumPy does not continue to complex numbers as it would have
to be, such as |x| and maximum, leave it out: ``methods=("central", "projection")``.

The gradients under test, and the differences, come from the layer's own backend, in float64.  A GPU has float32 only
here, so of a layer on one its formulas are tested, on the processor; its numbers are for ``tests`` to compare.
"""
from typing import NamedTuple

import numpy as np

from ..arguments import describe, natural, positive

TINY = 1e-30                # of the complex step: its square vanishes beside 1
STEP = 1e-5                 # of the differences: rounding is about 1e-16 / s, truncation s**4 times a fifth derivative
TOLERANCES = {"complex step": 1e-10, "central": 1e-6, "projection": 1e-6}


class Row(NamedTuple):
    """What was found for one array."""
    name: str
    shape: tuple
    largest: float          # the largest gradient in it: if it is 0, the check says little, and prints "zero"
    errors: dict            # method -> largest error, as a part of the largest derivative

    @property
    def ok(self):
        return all(error <= TOLERANCES[method] for method, error in self.errors.items())    # a NaN is not <= anything

    @property
    def verdict(self):
        return "WRONG" if not self.ok else "zero" if self.largest == 0 else "ok"


class GradientReport(NamedTuple):
    """The result of ``check_gradients``; prints as a table."""
    rows: list

    @property
    def ok(self):
        return all(row.ok for row in self.rows)

    def __str__(self):
        methods = list(self.rows[0].errors)
        head = ["array", "shape", "largest", *methods, ""]
        body = [[row.name, "x".join(map(str, row.shape)), f"{row.largest:.1e}",
                 *(f"{row.errors[method]:.0e}" for method in methods), row.verdict]
                for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in [head, *body]]
        limits = ", ".join(f"{method} {TOLERANCES[method]:.0e}" for method in methods)
        return "\n".join([*lines, f"relative errors; allowed: {limits}"])


def check_gradients(layer, *, methods=tuple(TOLERANCES), max_entries=200, seed=0, **inputs):
    """Compare ``layer.backward`` with numeric derivatives, for every parameter and every floating-point input.

    layer         a Layer: forward(**inputs) -> (out, cache), out an array or a tuple of arrays;
                  backward(cache, *d_out) -> the gradient of x, or a NamedTuple with fields dx, dh0, ...
    methods       some of "complex step", "central", "projection"
    max_entries   of each array, chosen at random, for the first two methods
    inputs        the arguments of forward by name.  Floating-point arrays are checked, in float64; all others (mask=,
                  lengths=, masked_output=) are passed on.  Give every state (h0=, c0=), or its gradient is not checked.
                  With training=True all passes repeat one draw, draw=0 if none is given.

    -> GradientReport, with ``ok``; print it for a table.  The layer itself is not changed.
    Raises ValueError for an unknown method or where there is nothing to check."""
    if not methods or any(method not in TOLERANCES for method in methods):
        raise ValueError(f"methods: expected some of {list(TOLERANCES)}, got {list(methods)}")
    arrays = {name: value for name, value in inputs.items() if _is_float(value)}
    options = {name: value for name, value in inputs.items() if name not in arrays}
    if layer.takes_training and options.get("training"):
        options = {"draw": 0} | options
    max_entries = positive("max_entries", max_entries)
    rng = np.random.default_rng(natural("seed", seed))
    probe = _Probe(layer, "float64", arrays, options)
    gradients = probe.gradients(rng)
    if not gradients:
        came = {name: describe(value) for name, value in inputs.items()}
        raise ValueError(f"inputs: expected a floating-point array, for a layer without parameters, got {came}")
    if "complex step" in methods:
        complex_probe = _Probe(layer, "complex128", arrays, options)
        complex_probe.v = probe.v
    rows = []
    for name, gradient in gradients.items():
        entries = rng.permutation(gradient.size)[:max_entries]
        direction = rng.standard_normal(gradient.shape)
        direction /= max(np.linalg.norm(direction), TINY)
        errors = {}
        units, claimed = [_unit(gradient.shape, k) for k in entries], gradient.reshape(-1)[entries]
        for method in methods:
            if method == "projection":
                numeric, doubt = _central(probe, name, direction)
                errors[method] = _relative(np.sum(gradient * direction) - numeric, np.linalg.norm(gradient), doubt)
            elif method == "central":
                numeric, doubt = np.array([_central(probe, name, unit) for unit in units]).reshape(-1, 2).T
                errors[method] = _relative(claimed - numeric, numeric, doubt)
            else:
                numeric = np.array([_complex_step(complex_probe, name, unit) for unit in units])
                errors[method] = _relative(claimed - numeric, numeric)
        rows.append(Row(name, gradient.shape, float(np.abs(gradient).max(initial=0)), errors))
    return GradientReport(rows)


class _Probe:
    """A copy of a layer in another dtype, as a function of all its arrays: L = sum(v * outputs)."""

    def __init__(self, layer, dtype, inputs, options):
        self.layer = layer.astype(dtype)
        self.inputs = {name: a.astype(dtype) for name, a in inputs.items()}
        self.options = options
        self.owners = {prefix + name: (owner, name) for prefix, owner in self.layer.walk() for name in owner.params}
        self.v = None               # one array for each output

    def gradients(self, rng):
        """name -> gradient, for inputs first and then parameters, from one backward pass with fresh random v."""
        out, cache = self.layer.forward(**self.inputs, **self.options)
        self.v = [rng.standard_normal(y.shape) for y in _as_tuple(out)]
        self.layer.zero_grads()
        returned = self.layer.backward(cache, *self.v)
        named = returned._asdict() if hasattr(returned, "_asdict") else {"dx": returned}
        gradients = {name: named["d" + name] for name in self.inputs}
        return gradients | {name: owner.grads[own_name] for name, (owner, own_name) in self.owners.items()}

    def loss(self, name, change):
        """L with ``change`` added to the array ``name``."""
        holder, key = self.inputs, name
        if name in self.owners:
            owner, key = self.owners[name]
            holder = owner.params
        original = holder[key]
        holder[key] = original + change
        out, _ = self.layer.forward(**self.inputs, **self.options)
        holder[key] = original
        return sum(np.sum(v * y) for v, y in zip(self.v, _as_tuple(out)))


def _complex_step(probe, name, direction):
    return probe.loss(name, TINY * 1j * direction).imag / TINY


def _central(probe, name, direction):
    """-> the derivative along a direction, and its doubt."""
    near, far = (probe.loss(name, s * direction) - probe.loss(name, -s * direction) for s in (STEP, 2 * STEP))
    derivative = (8 * near - far) / (12 * STEP)
    return derivative, abs(derivative - near / (2 * STEP))


def _unit(shape, k):
    direction = np.zeros(shape)
    direction.flat[k] = 1
    return direction


def _relative(difference, scale, doubt=0):
    """The largest of |difference| - doubt, as a part of the largest of |scale| where that is not zero; NaN if one is in
    it."""
    beyond = np.maximum(np.abs(difference) - doubt, 0)
    largest, scale = np.max(beyond, initial=0), np.max(np.abs(scale), initial=0)
    return float(largest / scale if scale != 0 else largest)


def _is_float(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _as_tuple(out):
    return out if isinstance(out, tuple) else (out,)
