"""The small kernels: each does what NumPy's function does, to the bit, for any size; sums of squares to 1e-6."""
import numpy as np
import pytest

from helpers import same_bits
from minilstm import device
from minilstm.device import elementwise

SHAPES = [(), (1,), (255,), (256,), (257,), (3, 1, 7), (1, 1), (2, 0), (0,), (5, 52, 3)]


def numbers(rng, shape, dtype="float32"):
    """Random, none of them 0: bools are the exception."""
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "int32":
        return rng.integers(1, 1000, shape, np.int32)
    return np.asarray(rng.normal(size=shape), "float32")


def on_gpu(*arrays):
    return [device.to_device(a) for a in arrays]


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_copies_and_fills_are_numpys(gpu, dtype):
    rng = np.random.default_rng()
    for shape in SHAPES:
        source = numbers(rng, shape, dtype)
        [a] = on_gpu(source)
        found = elementwise.copy(a)
        assert found.memory is not a.memory and same_bits(found.copy_to_host(), source)
        target = device.empty(source.size, dtype)
        elementwise.copy_into(a, target)
        assert same_bits(target.copy_to_host(), source.reshape(-1))
        elementwise.fill(a, 1.1)
        assert same_bits(a.copy_to_host(), np.full(shape, 1.1).astype(dtype))


def test_arithmetic_is_numpys(gpu):
    rng = np.random.default_rng()
    for shape in SHAPES:
        x, y = numbers(rng, shape), numbers(rng, shape)
        a, b = on_gpu(x, y)
        assert same_bits(elementwise.add(a, b).copy_to_host(), x + y)
        assert same_bits(elementwise.multiply(a, b).copy_to_host(), x * y)
        assert same_bits(elementwise.scaled(a, 0.1).copy_to_host(), x * np.float32(0.1))
        assert same_bits(a.copy_to_host(), x) and same_bits(b.copy_to_host(), y)
        elementwise.add_into(a, b)
        assert same_bits(a.copy_to_host(), x + y)
        elementwise.scale_by(b, *on_gpu(np.float32([0.3])))
        assert same_bits(b.copy_to_host(), y * np.float32(0.3))
