"""Launches and matrix products beside PyTorch's, that is cuBLAS's."""
import statistics
import time

import numpy as np
import torch

from gpu.sides import ALLOWED, FRESH, Program, compared, relative_error, tf32_mode
from gpu.smoke import add_one
from minilstm import device

CHOICE = "product"


def launches(sides, record):
    """Microseconds of the host for a launch and for memory, when nobody waits for the result."""
    times = 2 if sides.simulated else 2000
    x, tensor, kernel = device.to_device(np.arange(1000, dtype="float32")), sides.random(1000), add_one()
    programs = {"a launch": lambda: device.launch(kernel, 1, x, 1000), "PyTorch's add_": lambda: tensor.add_(1),
                "empty(1000)": lambda: device.empty(1000), "zeros(1000)": lambda: device.zeros(1000)}
    for name, program in programs.items():
        with record.attempt(name):
            program()
            with sides.alone():
                rounds = [seconds_a_call(sides, program, times) for _ in range(5)]
            record.row(what="launch", program=name, us=1e6 * statistics.median(rounds))


def seconds_a_call(sides, program, times):
    sides.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        program()
    sides.synchronize()
    return (time.perf_counter() - begin) / times


def products(sides, record, shapes):
    """Every kernel for C = A @ B + bias, and the library's choice among them, at shapes (M, N, K, is A transposed),
    beside torch.addmm in both modes."""
    from minilstm.matmul import gpu as matmul
    for shape in shapes:
        case = Product(sides, *shape)
        with sides.alone():
            exact = case.exact()
        for name, kernel in {CHOICE: matmul.product, **matmul.KERNELS}.items():
            for tf32 in (False, True):
                with record.attempt(f"product {name} {shape}"), tf32_mode(tf32):
                    case.ours(kernel, 0)                                        # compiles
                    with sides.alone():
                        record.row(what="product", kernel=name, shape=shape[:3], transposed=shape[3], tf32=tf32,
                                   **case.measure(kernel, exact, name == "tensor" or tf32 and name == CHOICE))


class Product:
    def __init__(self, sides, M, N, K, transposed):
        self.sides, self.operations = sides, 2 * M * N * K
        self.A = [sides.random(K, M).T if transposed else sides.random(M, K) for _ in range(FRESH)]
        self.B, self.bias = [sides.random(K, N) for _ in range(FRESH)], sides.random(N)
        self.our_A = [sides.ours(A.T).T if transposed else sides.ours(A) for A in self.A]
        self.our_B, self.our_bias = [sides.ours(B) for B in self.B], sides.ours(self.bias)

    def ours(self, kernel, n):
        return kernel(self.our_A[n % FRESH], self.our_B[n % FRESH], self.our_bias)

    def theirs(self, n):
        return torch.addmm(self.bias, self.A[n % FRESH], self.B[n % FRESH])

    def exact(self):
        return self.A[0].double() @ self.B[0].double() + self.bias.double()

    def measure(self, kernel, exact, rounds):
        """Figures of a row.  rounds: to TF32."""
        self.sides.poison()
        error = relative_error(self.sides.theirs(self.ours(kernel, 0)), exact)
        row = {"error": error, "their error": relative_error(self.theirs(0), exact)}
        if not error <= ALLOWED[rounds]:
            return row | {"result": "WRONG"}
        times = self.sides.times({"ours": Program(lambda n: self.ours(kernel, n)), "theirs": Program(self.theirs)}, 0.3)
        row |= {"result": "ok"} | compared(times)
        return row | {"TFLOP/s": 1e-9 * self.operations / row["ms"]}
