"""One small kernel for each thing that a GPU, its driver and the compiler have to be able to do: where one fails, all
that stands on it will, too, and this says which.  Each runs through ``minilstm.device``, as the library's kernels do,
and is checked against NumPy."""
import functools

import numpy as np
from numba import cuda, float32

from minilstm import device
from minilstm.device import ptx
from minilstm.device.kernel import F1, F2, I1, Int, kernel

THREADS = 64
BIG = 100 * 1024                    # bytes of shared memory of a block: 48 KB need no permission, 100 KB do
ONE = np.float32(1)


def check(found, expected, allowed=0.0):
    """Raises ArithmeticError where a number is farther off than ``allowed``, or not finite."""
    error = np.abs(np.asarray(found, "float64") - expected).max()
    if not error <= allowed:
        raise ArithmeticError(f"largest error {error:.1e}, allowed {allowed:.0e}")


def random(*shape):
    return np.random.default_rng().standard_normal(shape, dtype="float32")


@functools.cache
def add_one():
    @kernel(threads=THREADS)
    def add(x: F1, n: Int):
        k = cuda.grid(1)
        if k < n:
            x[k] += ONE

    return add


def launch():
    """A kernel starts, and its result comes back."""
    numbers = random(1000)
    x = device.to_device(numbers)
    device.launch(add_one(), -(-1000 // THREADS), x, 1000)
    check(x.copy_to_host(), numbers + ONE)


def wide_loads():
    """16 bytes in one instruction, from global memory and back."""
    @kernel(threads=THREADS)
    def doubled(x: F1, y: F1):
        k = 4 * cuda.grid(1)
        a, b, c, d = ptx.load4(x, k)
        ptx.store4(y, k, a + a, b + b, c + c, d + d)

    numbers = random(8 * THREADS)
    y = device.empty(numbers.shape)
    device.launch(doubled, 2, device.to_device(numbers), y)
    check(y.copy_to_host(), 2 * numbers)


def special_functions():
    """2**x and 1/x of the special function units, to the digits that tanh and sigmoid are made of."""
    @kernel(threads=THREADS)
    def apply(x: F1, powers: F1, inverses: F1):
        k = cuda.grid(1)
        powers[k] = ptx.exp2(x[k])
        inverses[k] = ptx.reciprocal(x[k])

    numbers = np.linspace(0.1, 10, THREADS, dtype="float32")
    powers, inverses = device.empty(THREADS), device.empty(THREADS)
    device.launch(apply, 1, device.to_device(numbers), powers, inverses)
    exact = numbers.astype("float64")
    check(powers.copy_to_host() / 2**exact, 1, 1e-6)
    check(inverses.copy_to_host() * exact, 1, 1e-6)


def shuffles():
    """Lanes of a warp give each other numbers."""
    @kernel(threads=THREADS)
    def summed(x: F1, sums: F1):
        k = cuda.grid(1)
        total = x[k]
        for bits in (16, 8, 4, 2, 1):
            total += cuda.shfl_xor_sync(0xffffffff, total, bits)
        sums[k] = total

    numbers = random(THREADS)
    sums = device.empty(THREADS)
    device.launch(summed, 1, device.to_device(numbers), sums)
    check(sums.copy_to_host(), np.repeat(numbers.reshape(-1, 32).sum(1, dtype="float64"), 32), 1e-5)


def blocks_that_wait():
    """Blocks on the chip together pass numbers on: each waits for what its neighbour wrote a step before."""
    @kernel(threads=4, resident=True)
    def passed_on(x: F1, steps: Int, error: I1):
        blocks, block, lane = cuda.gridDim.x, cuda.blockIdx.x, cuda.threadIdx.x
        for t in range(steps):
            numbers = ptx.poll4(x, 4 * (t * blocks + (block + 1) % blocks), error)
            here = 4 * ((t + 1) * blocks + block) + lane
            ptx.store_relaxed(x, here, numbers[0] + numbers[1] + numbers[2] + numbers[3])

    blocks, steps = device.current().multiprocessors, 5
    numbers = np.full((steps + 1, blocks, 4), -1, np.int32).view("float32")
    numbers[0] = np.random.default_rng().integers(0, 9, (blocks, 4))
    x = device.to_device(numbers.reshape(-1))
    device.launch(passed_on, blocks, x, steps, device.current().error)
    for t in range(steps):
        numbers[t + 1] = np.roll(numbers[t].sum(1), -1)[:, None]
    check(x.copy_to_host(), numbers.reshape(-1))


def waiting_in_vain():
    """A kernel that waits for what nobody writes gives up by itself, and the library says so; the simulator at once."""
    @kernel(threads=4, resident=True)
    def waits(x: F1, error: I1):
        x[cuda.threadIdx.x] = ptx.poll4(x, 4, error)[0]

    x = device.to_device(np.full(8, -1, np.int32).view("float32"))
    try:
        device.launch(waits, 1, x, device.current().error)
        device.synchronize()
    except RuntimeError:
        return
    raise ArithmeticError("nobody wrote, and the wait ended without a word")


def big_shared_memory():
    """More shared memory than a kernel gets unless it asks for it."""
    @kernel(threads=THREADS, shared_bytes=BIG)
    def reverse(x: F1, n: Int):
        shared = cuda.shared.array(0, float32)
        for k in range(cuda.threadIdx.x, n, THREADS):
            shared[k] = x[k]
        cuda.syncthreads()
        for k in range(cuda.threadIdx.x, n, THREADS):
            x[k] = shared[n - 1 - k]

    n = BIG // 4 if device.current().name != "simulator" else 256
    numbers = random(n)
    x = device.to_device(numbers)
    device.launch(reverse, 1, x, n)
    check(x.copy_to_host(), numbers[::-1])


def tensor_cores():
    """One product of a warp in TF32."""
    @kernel(threads=32)
    def product(A: F2, B: F2, C: F2):
        group, t = cuda.laneid // 4, cuda.laneid % 4
        a = (ptx.to_tf32(A[group, t]), ptx.to_tf32(A[group + 8, t]),
             ptx.to_tf32(A[group, t + 4]), ptx.to_tf32(A[group + 8, t + 4]))
        b = (ptx.to_tf32(B[t, group]), ptx.to_tf32(B[t + 4, group]))
        zero = float32(0)
        c = ptx.mma_tf32(a, b, (zero, zero, zero, zero))
        C[group, 2 * t], C[group, 2 * t + 1] = c[0], c[1]
        C[group + 8, 2 * t], C[group + 8, 2 * t + 1] = c[2], c[3]

    A, B = random(16, 8), random(8, 8)
    C = device.empty((16, 8))
    device.launch(product, 1, device.to_device(A), device.to_device(B), C)
    check(C.copy_to_host(), A.astype("float64") @ B, 1e-2)


def asynchronous_copies():
    """Numbers go from global to shared memory past the registers."""
    @kernel(threads=THREADS)
    def through_shared(x: F1, y: F1):
        shared = cuda.shared.array(256, float32, alignment=16)
        k = 4 * cuda.threadIdx.x
        ptx.copy4(shared, k, x, k, 4)
        ptx.copies_commit()
        ptx.copies_wait(0)
        cuda.syncthreads()
        for j in range(4):
            y[k + j] = shared[255 - k - j]

    numbers = random(4 * THREADS)
    y = device.empty(numbers.shape)
    device.launch(through_shared, 1, device.to_device(numbers), y)
    check(y.copy_to_host(), numbers[::-1])


CHECKS = {check.__name__: check for check in (
    launch, wide_loads, special_functions, shuffles, blocks_that_wait, big_shared_memory, tensor_cores,
    asynchronous_copies, waiting_in_vain)}
