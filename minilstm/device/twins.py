"""What each instruction of ``ptx.py`` means, in Python: the simulator calls these in their place."""
import math
from types import SimpleNamespace

import numpy as np

from ..cells import activations
from .ptx import UNWRITTEN

F = np.float32


def rounded_to_tf32(x):
    """The nearest number with 10 bits of mantissa, ties away from zero -> its bits, as an int32."""
    return np.uint32((int(F(x).view(np.uint32)) + 0x1000) & 0xffffe000).view(np.int32)


def read_as_tf32(bits):
    """A tensor core ignores the 13 last bits of what it multiplies."""
    return (np.int32(bits) & np.int32(~0x1fff)).view(F)


def is_unwritten(x):
    return F(x).view(np.int32) == UNWRITTEN


def make(simulator):
    """The functions of ``ptx.py`` for one simulator, as a namespace."""
    def load4(array, index):
        place = array.place4(index)
        return array.read(place), array.read(place + 1), array.read(place + 2), array.read(place + 3)

    def store4(array, index, *values):
        place = array.place4(index)
        for k, value in enumerate(values):
            array.write(place + k, value)

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
        array.write_relaxed(array.place(index), value)

    def exp2(x):
        return F(2) ** F(x)

    def log2(x):
        return F(math.log2(x)) if x > 0 else F(-np.inf)

    def reciprocal(x):
        return F(1) / F(x)

    def mma_tf32(a, b, c):
        group, t = divmod(simulator.current.lane, 4)
        lanes = simulator.exchange((a, b))

        def row_of_a(r):
            return np.array([read_as_tf32(lanes[r % 8 * 4 + k % 4][0][(r >= 8) + 2 * (k >= 4)]) for k in range(8)])

        def column_of_b(n):
            return np.array([read_as_tf32(lanes[n * 4 + k % 4][1][k >= 4]) for k in range(8)])

        top, bottom = row_of_a(group), row_of_a(group + 8)
        left, right = column_of_b(2 * t), column_of_b(2 * t + 1)
        return F(c[0] + top @ left), F(c[1] + top @ right), F(c[2] + bottom @ left), F(c[3] + bottom @ right)

    def copy4(shared, to, array, index, count):
        source, target = array.place4(index), shared.place4(to)
        for k in range(4):
            shared.write(target + k, array.read(source + k) if k < count else F(0))

    return SimpleNamespace(
        load4=load4, store4=store4, poll4=poll4, store_relaxed=store_relaxed, exp2=exp2, log2=log2,
        reciprocal=reciprocal, bits_of=lambda x: F(x).view(np.int32), float_of=lambda bits: np.int32(bits).view(F),
        to_tf32=rounded_to_tf32, mma_tf32=mma_tf32, copy4=copy4, copies_commit=lambda: None,
        copies_wait=lambda pending: None)


# --------------------------------------------------------- formulas whose NumPy forms are slow for one number at a time

def _sigmoid(x):
    return F(1) / (F(1) + np.exp(-x)) if x >= 0 else np.exp(x) / (F(1) + np.exp(x))


def _relu(x):
    return F(0) if x < 0 else x


FORMULAS = {activations.sigmoid: _sigmoid, activations.relu: _relu}
