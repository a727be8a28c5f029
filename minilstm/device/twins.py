"""What each instruction of ``ptx.py`` means, in Python: the simulator calls these in their place."""
from types import SimpleNamespace

import numpy as np

from ..cells import activations
from . import activations as forms
from .ptx import UNWRITTEN

F = np.float32
SMALLEST = np.finfo(F).tiny             # normal number: an instruction with .ftz takes and gives 0 for smaller ones


def flushed(x):
    return np.copysign(F(0), x) if abs(x) < SMALLEST else F(x)


def is_unwritten(x):
    return F(x).view(np.int32) == UNWRITTEN


def rounded_to_tf32(x):
    """The nearest number with 10 bits of mantissa, ties away from zero -> its bits, as an int32."""
    if x != x:
        return 0x7fffffff
    return int(np.uint32((int(F(x).view(np.uint32)) + 0x1000) & 0xffffe000).view(np.int32))


def read_as_tf32(bits):
    """A tensor core ignores the 13 last bits of what it multiplies."""
    return (np.asarray(bits, np.int32) & np.int32(~0x1fff)).view(F)


def make(simulator):
    """The functions of ``ptx.py`` for one simulator, as a namespace."""
    def load(array, index):
        return array.read(array.flat_place(index))

    def store(array, index, value):
        array.write(array.flat_place(index), value)

    def load4(array, index):
        place = array.place4(index)
        return array.read(place), array.read(place + 1), array.read(place + 2), array.read(place + 3)

    def store4(array, index, *values):
        place = array.place4(index)
        for k, value in enumerate(values):
            array.write(place + k, value)

    def load4_relaxed(array, index):
        place = array.place4(index)
        return tuple(array.read_relaxed(place + k) for k in range(4))

    def poll4(array, index, error):
        place = array.place4(index)
        while True:
            seen = tuple(array.read_relaxed(place + k) for k in range(4))
            if not any(map(is_unwritten, seen)) or error.numbers[0]:
                return seen
            if simulator.hopeless:
                error.write_relaxed(0, 1)
            simulator.look_again()

    def store_relaxed(array, index, value):
        array.write_relaxed(array.flat_place(index), value)

    def exp2(x):
        return flushed(F(2) ** flushed(x))

    def log2(x):
        return F(np.log2(flushed(x)))

    def reciprocal(x):
        return flushed(F(1) / flushed(x))

    def mma_tf32(a, b, c):
        """The first lane that goes on multiplies for all of them."""
        lanes, warp = simulator.exchange((a, b), what="ptx.mma_tf32"), simulator.current.warp
        if warp.multiplied[0] is not lanes:
            of_lanes = [read_as_tf32(np.array([lane[operand] for lane in lanes], np.int32)) for operand in (0, 1)]
            A = of_lanes[0].reshape(8, 4, 2, 2).transpose(3, 0, 2, 1).reshape(16, 8)    # group, t, half of k, of rows
            B = of_lanes[1].reshape(8, 4, 2).transpose(2, 1, 0).reshape(8, 8)           # group, t, half of k
            warp.multiplied = lanes, A.astype("float64") @ B
        product = warp.multiplied[1]
        group, t = divmod(simulator.current.lane, 4)
        return (F(c[0] + product[group, 2 * t]), F(c[1] + product[group, 2 * t + 1]),
                F(c[2] + product[group + 8, 2 * t]), F(c[3] + product[group + 8, 2 * t + 1]))

    def begin_copy(shared, first, values):
        """Until it is waited for there is NaN where the copy will be."""
        for k in range(len(values)):
            shared.write(first + k, F(np.nan))
        simulator.current.copies[-1].append((shared, first, values))

    def copy4(shared, to, array, index, count):
        source = array.place4(index)
        begin_copy(shared, shared.place4(to), [array.read(source + k) if k < count else F(0) for k in range(4)])

    def copy1(shared, to, array, index, count):
        source = array.flat_place(index)
        begin_copy(shared, shared.flat_place(to), [array.read(source) if count else F(0)])

    def copies_commit():
        simulator.current.copies.append([])

    def copies_wait(pending):
        groups = simulator.current.copies
        while len(groups) - 1 > pending:
            for shared, first, values in groups.pop(0):
                for k, value in enumerate(values):
                    shared.write(first + k, value)

    return SimpleNamespace(
        load=load, store=store, load4=load4, store4=store4, load4_relaxed=load4_relaxed, poll4=poll4,
        store_relaxed=store_relaxed, exp2=exp2, log2=log2, reciprocal=reciprocal, times=lambda a, b: F(a) * F(b),
        bits_of=lambda x: int(F(x).view(np.int32)),
        float_of=lambda bits: np.int32(bits).view(F), to_tf32=rounded_to_tf32, mma_tf32=mma_tf32, copy4=copy4,
        copy1=copy1, copies_commit=copies_commit, copies_wait=copies_wait)


# ------------------------------------------------------------------------- functions that have another form on a GPU

FORMULAS = forms.FORMS | {activations.relu: lambda x: F(0) if x < 0 else x}

MATH = SimpleNamespace(**{name: getattr(np, name) for name in (
    "sqrt", "exp", "log", "tanh", "copysign", "fabs", "floor", "ceil", "isnan", "isinf", "isfinite", "pi", "inf",
    "nan")})
