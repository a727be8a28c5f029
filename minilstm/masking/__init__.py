"""Ways to hide parts of a sequence, each a function with one meaning and, beside it, its backward pass.

    a net that skips steps              net.forward(x, mask=mask): the state stays as it is, bit for bit
    an input that is 0 at some steps    zero_input          the net still takes these steps: its state moves
    an input without some features      feature_mask        gaps too: keep (B,T,D) False where a reading is missing
    outputs that are 0 at some steps    select
    outputs that stay as they were      hold
    one output for a sequence           first_valid, last_valid, masked_sum, masked_mean, masked_max

    B  batch      T  time steps      D  input features      F  features
    mask (B,T) bool, True = a real step; any pattern.  dX: the gradient of the loss with respect to X

What holds for all of them: what stands in a hidden place, NaN and infinity too, reaches no value and no gradient.  A
row without a real step gives 0, and its gradient is 0.  What a row gives depends on nothing but its own steps: padding,
the other rows and the number of threads change no bit.  NaN at a real step is not hidden: it shows, in its own row and
feature.

Arrays are float32 or float64, and results have the same dtype.  ``backend``: "cpu", compiled, or "reference", plain
NumPy; both give the same bits.  "gpu" takes float32 only, NumPy's arrays, which are copied there, and those on the GPU,
and gives DeviceArrays.  Its bits are those of the others, but for sums and means, which are within one unit in the last
place (``gpu.py`` names an exception).

Anything that does not fit raises a TypeError or ValueError that names the argument.
"""
import numbers

import numpy as np

from .. import backends
from ..arguments import FLOATS, check_floats, describe, flag, floats, one_of
from ..device import DeviceArray, to_device

AXES = ("D", "TD", "BD", "BTD")                                         # that a feature mask may have


# -------------------------------------------------------------------------------------------------- a sequence for one

def select(x, mask, *, backend="cpu"):
    """x (B,T,F) at the real steps, 0 at the others.  Its backward pass is itself: dx = select(dy, mask)."""
    x = _floats("x", x, "BTF", backend)
    return _of(backend).select(x, _mask(mask, x, backend))


def zero_input(x, mask, *, backend="cpu"):
    """``select`` of an input: what ``inputs * mask[:, :, None]`` means to be, without 0 * NaN.  For comparison.

    All that it does is to put in zeros.  A zero is an input like any other, so the biases and the recurrent weights of
    a net move its state on.  To skip a step give the net the mask: forward(x, mask=mask)."""
    return select(x, mask, backend=backend)


def feature_mask(x, keep, fill=0, *, axes=None, backend="cpu"):
    """x (B,T,D) where ``keep`` is True, and ``fill`` where it is False.

    keep    bool (D,): the same features in every row, at every step
            bool (B,T,D): any places, such as the readings of a sensor that are valid
            two axes with their names, since T and B may be equal: (T,D) with axes="TD", (B,D) with axes="BD"
    fill    a number, or (D,) in the dtype of x: finite

    A feature that is 0 everywhere is out of the net: the result is that of an input without it.  Where it is hidden at
    some steps only, 0 says "as 0", which is far from "as usual" for a feature whose mean is not 0 (``fill`` its mean
    then); and neither says "unknown": give the net ``keep`` as more input features for that."""
    x = _floats("x", x, "BTD", backend)
    return _of(backend).feature_mask(x, _keep(keep, x, axes, backend), _fill(fill, x, backend))


def feature_mask_backward(dy, keep, *, axes=None, backend="cpu"):
    """The reverse of ``feature_mask``.  dy (B,T,D) -> dx (B,T,D), 0 where ``keep`` is False."""
    dy = _floats("dy", dy, "BTD", backend)
    return _of(backend).feature_mask_backward(dy, _keep(keep, dy, axes, backend))


def hold(y, mask, reverse=False, *, backend="cpu"):
    """y (B,T,F) at the real steps; at the others the last real y before, 0 where there is none.

    reverse: walk from the end to the beginning, as for the outputs of a net that does."""
    y = _floats("y", y, "BTF", backend)
    return _of(backend).hold(y, _mask(mask, y, backend), flag("reverse", reverse))


def hold_backward(d_held, mask, reverse=False, *, backend="cpu"):
    """The reverse of ``hold``.  d_held (B,T,F) -> dy (B,T,F): a real step gets the gradients of all its copies."""
    d_held = _floats("d_held", d_held, "BTF", backend)
    return _of(backend).hold_backward(d_held, _mask(mask, d_held, backend), flag("reverse", reverse))


# ------------------------------------------------------------------------------------------------- one step for a row

def first_valid(y, mask, *, backend="cpu"):
    """y (B,T,F) at the first real step of each row -> (B,F).  That is the last one for a net that walks in reverse."""
    y = _floats("y", y, "BTF", backend)
    return _of(backend).first_valid(y, _mask(mask, y, backend))


def first_valid_backward(d_first, mask, *, backend="cpu"):
    """The reverse of ``first_valid``.  d_first (B,F) -> dy (B,T,F), 0 at all other steps."""
    d_first = _floats("d_first", d_first, "BF", backend)
    return _of(backend).first_valid_backward(d_first, _mask(mask, d_first, backend))


def last_valid(y, mask, *, backend="cpu"):
    """y (B,T,F) at the last real step of each row -> (B,F).  ``y[:, -1]`` is padding in every row but the longest."""
    y = _floats("y", y, "BTF", backend)
    return _of(backend).last_valid(y, _mask(mask, y, backend))


def last_valid_backward(d_last, mask, *, backend="cpu"):
    """The reverse of ``last_valid``.  d_last (B,F) -> dy (B,T,F), 0 at all other steps."""
    d_last = _floats("d_last", d_last, "BF", backend)
    return _of(backend).last_valid_backward(d_last, _mask(mask, d_last, backend))


# ------------------------------------------------------------------------------------------------ all steps in one row

def masked_sum(y, mask, *, backend="cpu"):
    """The sum of y (B,T,F) over the real steps of each row -> (B,F).  Added up in the order of time, in double
    precision; on a GPU in float32, with all that the roundings leave out."""
    y = _floats("y", y, "BTF", backend)
    return _of(backend).masked_sum(y, _mask(mask, y, backend))


def masked_sum_backward(d_sum, mask, *, backend="cpu"):
    """The reverse of ``masked_sum``.  d_sum (B,F) -> dy (B,T,F): the same at every real step."""
    d_sum = _floats("d_sum", d_sum, "BF", backend)
    return _of(backend).masked_sum_backward(d_sum, _mask(mask, d_sum, backend))


def masked_mean(y, mask, *, backend="cpu"):
    """The mean of y (B,T,F) over the real steps of each row -> (B,F).  Added up as in ``masked_sum``."""
    y = _floats("y", y, "BTF", backend)
    return _of(backend).masked_mean(y, _mask(mask, y, backend))


def masked_mean_backward(d_mean, mask, *, backend="cpu"):
    """The reverse of ``masked_mean``.  d_mean (B,F) -> dy (B,T,F): the same share for every real step of a row."""
    d_mean = _floats("d_mean", d_mean, "BF", backend)
    return _of(backend).masked_mean_backward(d_mean, _mask(mask, d_mean, backend))


def masked_max(y, mask, *, backend="cpu"):
    """The largest y (B,T,F) over the real steps of each row -> (B,F); and for the backward pass the step it stands at,
    int64 (B,F), int32 on a GPU, -1 in a row without a real step.

    Of several equal ones it is the first step, which alone gets the gradient (PyTorch's ``amax`` shares it out; both
    are right, as the maximum has no derivative there).  A NaN counts as the largest of all."""
    y = _floats("y", y, "BTF", backend)
    return _of(backend).masked_max(y, _mask(mask, y, backend))


def masked_max_backward(d_max, mask, source, *, backend="cpu"):
    """The reverse of ``masked_max``.  d_max (B,F), source (B,F) from ``masked_max`` -> dy (B,T,F), 0 but at the source
    of each.  The check of ``source`` waits for a GPU; the layer ``Pooling``, which has its own, does without."""
    d_max = _floats("d_max", d_max, "BF", backend)
    mask = _mask(mask, d_max, backend)
    return _of(backend).masked_max_backward(d_max, mask, _source(source, d_max, mask, backend))


# ---------------------------------------------------------------------------------------------- what may be passed in

def _of(backend):
    return backends.module("masking", one_of("backend", backend, backends.NAMES))


def _found(name, value, backend):
    """What is on the GPU already as a DeviceArray, for a backend that computes there; else the value itself."""
    on_gpu = backends.module("arrays", "gpu").placed(name, value) if backend == "gpu" else None
    return value if on_gpu is None else on_gpu


def _is_array(value, backend):
    return isinstance(value, (np.ndarray, DeviceArray) if backend == "gpu" else np.ndarray)


def _own(array, backend):
    """The array where and as the kernels take it.  On the host it is copied if it is not contiguous or not writable:
    kernels are compiled for such arrays only."""
    return to_device(array) if backend == "gpu" else np.require(array, requirements="CW")


def _floats(name, value, letters, backend):
    """A float32 or float64 array with as many axes as letters, of any lengths."""
    value = _found(name, value, backend)
    known = _is_array(value, backend) and value.dtype.name in FLOATS
    if _is_array(value, backend) and not known:
        raise TypeError(f"{name}: expected float32 or float64 ({','.join(letters)}), got {describe(value)}; "
                        f"nothing is cast silently: pass {name}.astype('float32')")
    if known and backend == "gpu" and value.dtype != np.float32:
        raise ValueError(f"{name}: expected float32 only, with backend='gpu', got {describe(value)}; nothing is cast "
                         f"silently: pass {name}.astype('float32')")
    shape = (None,) * len(letters)
    if known and isinstance(value, DeviceArray):
        check_floats(name, value, value.dtype, shape, letters)
        return value
    return _own(floats(name, value, value.dtype if known else "float32 or float64", shape, letters), backend)


def _mask(mask, of, backend):
    """mask (B,T), T being free where ``of`` is a (B,F) -> the same in contiguous memory."""
    B, T = of.shape[0], of.shape[1] if of.ndim == 3 else None
    wanted = f"(B={B}, T)" if T is None else f"(B={B}, T={T})"
    mask = _bool("mask", mask, wanted, backend)
    if mask.ndim != 2 or len(mask) != B or T not in (None, mask.shape[1]):
        cure = "; mask.T puts the batch first" if mask.ndim == 2 and mask.shape[::-1] == (B, T) else ""
        raise ValueError(f"mask: expected bool {wanted}, got {describe(mask)}{cure}")
    return _own(mask, backend)


def _keep(keep, x, axes, backend):
    """-> bool, three axes, with 1 for an axis that ``keep`` does not have."""
    B, T, D = x.shape
    sizes = {"B": B, "T": T, "D": D}
    wanted = f"(D={D},), (B={B}, T={T}, D={D}), or two axes with axes='TD' or axes='BD'"
    keep = _bool("keep", keep, wanted, backend)
    if keep.ndim == 2 and axes is None:
        whole = " To hide whole steps, (B,T), call select." if keep.shape == (B, T) else ""
        raise ValueError(f"keep: {keep.shape} may be (T,D) or (B,D): say axes='TD' (T={T}, D={D}; the same in every "
                         f"row) or axes='BD' (B={B}, D={D}; the same at every step).{whole}")
    letters = {1: "D", 3: "BTD"}.get(keep.ndim) if axes is None else one_of("axes", axes, AXES)
    if letters is None or keep.shape != tuple(sizes[letter] for letter in letters):
        if axes is not None:
            wanted = "(" + ", ".join(f"{letter}={sizes[letter]}" for letter in letters) + f") for axes={axes!r}"
        raise ValueError(f"keep: expected bool {wanted}, got {describe(keep)}")
    return _own(keep, backend).reshape(tuple(sizes[letter] if letter in letters else 1 for letter in "BTD"))


def _fill(fill, x, backend):
    """-> (D,) in the dtype of x."""
    D = x.shape[2]
    fill = _found("fill", fill, backend)
    fill = np.asarray(fill) if backend == "gpu" and isinstance(fill, DeviceArray) else fill
    if isinstance(fill, np.ndarray) and fill.ndim:
        fill = floats("fill", fill, x.dtype, (D,), "D")
    elif isinstance(fill, bool) or not isinstance(fill, numbers.Real):
        raise TypeError(f"fill: expected a number or {x.dtype} (D={D},), got {describe(fill)}")
    with np.errstate(over="ignore"):
        filled = np.full(D, fill, x.dtype)
    if not np.isfinite(filled).all():
        raise ValueError(f"fill: expected finite {x.dtype}, got {fill!r}")
    return _own(filled, backend)


def _source(source, d_max, mask, backend):
    """-> (B,F) int64, int32 on a GPU, each -1 or a real step."""
    source = _found("source", source, backend)
    dtype = np.dtype("int32" if backend == "gpu" else "int64")
    if not _is_array(source, backend) or source.dtype != dtype or source.shape != d_max.shape:
        raise TypeError(f"source: expected {dtype} {d_max.shape}, as masked_max returns it, got {describe(source)}")
    steps = np.asarray(source)
    real = np.pad(np.asarray(mask), ((0, 0), (0, 1)), constant_values=True)         # -1 is the last column
    inside = (steps >= -1) & (steps < mask.shape[1])
    if not inside.all() or not np.take_along_axis(real, steps, axis=1).all():
        raise ValueError("source: expected steps that are real in mask, or -1, as masked_max returns them for it")
    return _own(source, backend)


def _bool(name, value, wanted, backend):
    value = _found(name, value, backend)
    if not _is_array(value, backend) or isinstance(value, np.ma.MaskedArray) or value.dtype != bool:
        cure = f"; np.array({name}, dtype=bool) makes one where non-zero means real" if value is not None else ""
        raise TypeError(f"{name}: expected a bool array {wanted}, True = real, got {describe(value)}{cure}")
    return value
