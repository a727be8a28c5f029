"""What each instruction of ``ptx.py`` means, in Python: the simulator calls these in their place."""
import math
from types import SimpleNamespace

import numpy as np

from ..cells import activations

F = np.float32
TRIES = 1000                # of a wait, before it gives up


def rounded_to_tf32(x):
    """The nearest number with 10 bits of mantissa, ties away from zero -> its bits, as an int32."""
    if x != x:
        return np.int32(0x7fffffff)
    return np.uint32((int(F(x).view(np.uint32)) + 0x1000) & 0xffffe000).view(np.int32)


def read_as_tf32(bits):
    """A tensor core ignores the 13 last bits of what it multiplies."""
    return (np.asarray(bits, np.int32) & np.int32(~0x1fff)).view(F)


def make(simulator):
    """The functions of ``ptx.py`` for one simulator, as a namespace."""
    from .simulator import SharedArray, SimulationError

    def flat(array):
        return array.array.reshape(-1)

    def check4(array, index):
        if index % 4 or not 0 <= index <= array.size - 4:
            raise SimulationError(f"{array.name}: 16 bytes at number {index} of {array.size}, which has to be a "
                                  "multiple of 4 inside of it")

    def check_flat(array, index):
        if not 0 <= index < array.size:
            raise SimulationError(f"{array.name}: number {index} of {array.size}")

    def place(array, index):
        return tuple(int(i) for i in np.unravel_index(index, array.shape)) if array.ndim > 1 else index

    def load(array, index):
        if isinstance(array, SharedArray):
            return array[place(array, int(index))]
        check_flat(array, index)
        return flat(array)[int(index)]

    def store(array, index, value):
        if isinstance(array, SharedArray):
            array[place(array, int(index))] = value
        else:
            check_flat(array, index)
            flat(array)[int(index)] = value

    def load4(array, index):
        index = int(index)
        check4(array, index)
        if isinstance(array, SharedArray):
            return tuple(array[place(array, index + k)] for k in range(4))
        return tuple(flat(array)[index:index + 4])

    def store4(array, index, *values):
        index = int(index)
        check4(array, index)
        for k, value in enumerate(values):
            if isinstance(array, SharedArray):
                array[place(array, index + k)] = value
            else:
                flat(array)[index + k] = value

    def poll4(array, index, error):
        check4(array, int(index))
        seen = flat(array)[int(index):int(index) + 4]
        tries = 0
        while (seen.view(np.int32) == -1).any() and not flat(error)[0]:
            tries += 1
            simulator.look_again()
            if tries >= TRIES:
                flat(error)[0] = 1
        return tuple(seen.copy())

    def store_relaxed(array, index, value):
        flat(array)[int(index)] = value

    def exp2(x):
        return F(2) ** F(x)

    def log2(x):
        return F(math.log2(x)) if x > 0 else F(-np.inf)

    def reciprocal(x):
        return F(1) / F(x)

    def mma_tf32(a, b, c):
        """The first lane that goes on multiplies for all of them."""
        lanes, warp = simulator.exchange((a, b)), simulator.current.warp
        if getattr(warp, "multiplied", (None,))[0] is not lanes[0]:
            of_lanes = [read_as_tf32(np.array([lane[operand] for lane in lanes])) for operand in (0, 1)]
            A = of_lanes[0].reshape(8, 4, 2, 2).transpose(3, 0, 2, 1).reshape(16, 8)    # group, t, half of k, of rows
            B = of_lanes[1].reshape(8, 4, 2).transpose(2, 1, 0).reshape(8, 8)           # group, t, half of k
            warp.multiplied = lanes[0], A.astype("float64") @ B
        product = warp.multiplied[1]
        group, t = divmod(simulator.current.lane, 4)
        return (F(c[0] + product[group, 2 * t]), F(c[1] + product[group, 2 * t + 1]),
                F(c[2] + product[group + 8, 2 * t]), F(c[3] + product[group + 8, 2 * t + 1]))

    def begin_copy(shared, to, values):
        for k in range(len(values)):
            shared[place(shared, int(to) + k)] = F(np.nan)
        simulator.current.copies[-1].append((shared, int(to), values))

    def copy4(shared, to, array, index, count):
        check4(array, int(index))
        check4(shared, int(to))
        begin_copy(shared, to, [flat(array)[int(index) + k] if k < count else F(0) for k in range(4)])

    def copy1(shared, to, array, index, count):
        check_flat(array, index)
        begin_copy(shared, to, [flat(array)[int(index)] if count else F(0)])

    def copies_commit():
        simulator.current.copies.append([])

    def copies_wait(pending):
        groups = simulator.current.copies
        while len(groups) - 1 > pending:
            for shared, to, values in groups.pop(0):
                for k, value in enumerate(values):
                    shared[place(shared, to + k)] = value

    return SimpleNamespace(
        load=load, store=store, load4=load4, store4=store4, poll4=poll4, store_relaxed=store_relaxed, exp2=exp2,
        log2=log2, reciprocal=reciprocal, bits_of=lambda x: F(x).view(np.int32),
        float_of=lambda bits: np.int32(bits).view(F), to_tf32=rounded_to_tf32, mma_tf32=mma_tf32, copy4=copy4,
        copy1=copy1, copies_commit=copies_commit, copies_wait=copies_wait)


# --------------------------------------------------------- formulas whose NumPy forms are slow for one number at a time

def _sigmoid(x):
    return F(1) / (F(1) + np.exp(-x)) if x >= 0 else np.exp(x) / (F(1) + np.exp(x))


def _relu(x):
    return F(0) if x < 0 else x


FORMULAS = {activations.sigmoid: _sigmoid, activations.relu: _relu}
