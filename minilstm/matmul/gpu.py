"""The product on a GPU: C = A @ B + bias.  A and B may be ``array.T``.  And the sums of the columns of a matrix.

A ladder of kernels, each in a file of its own that says what it changes and why; read them in this order:

    by_element    gpu_elements.py   one thread for each number of C: the definition
    by_warp       gpu_elements.py   one warp for each: memory is read by neighbours
    tiled         gpu_tiled.py      one block for a tile of C: memory is read more rarely, through shared memory
    blocked       gpu_blocked.py    8 x 8 numbers of C in the registers of a thread: shared memory is read more rarely
    tensor        gpu_tensor.py     16 x 8 numbers of C by one instruction of a warp, from operands rounded to TF32
    split         gpu_tensor.py     the same with each operand in two parts: as near as float32

``product`` takes one of them by the shape:

    by_element    where there is so little to do that the launch takes longer
    by_warp       where C is at most THIN numbers wide or high and both factors lie along k
    tensor        else, if ``device.allow_tf32(True)`` was called
    blocked       else

The last two are tiled, and a small C has fewer tiles than the GPU has multiprocessors.  Then they take smaller tiles,
or cut the range of k into parts that are added in a second kernel, in their order; weight gradients, small with a K of
all time steps, are such products.  Which tile and how many parts follows from an estimate of the time
(``tile_and_parts``) that knows the shape and the number of multiprocessors only: the same shapes on the same GPU give
the same bits.

None of these choices has been measured on a GPU yet.
"""
import functools
from typing import NamedTuple

from ..device.arrays import Transposed
from ..device.gpu import current, tf32_allowed
from . import gpu_blocked, gpu_tensor
from .gpu_blocked import blocked
from .gpu_elements import by_element, by_warp
from .gpu_operands import check
from .gpu_sums import column_sums
from .gpu_tensor import split, tensor
from .gpu_tiled import tiled

__all__ = ["KERNELS", "column_sums", "product"]

KERNELS = {function.__name__: function for function in (by_element, by_warp, tiled, blocked, tensor, split)}

FEW, SHORT = 1 << 15, 256       # multiply-adds, and those of one number, that by_element is taken for
THIN = 4
SHORTEST_PART, MOST_PARTS = 64, 1024
BUSY = 128                      # threads that keep a multiprocessor busy: a warp for each of its four schedulers
READ = 20                       # multiply-adds in the time of reading a number: 128, and 25 bytes, a cycle of an H100
LAUNCH = 400_000                # multiply-adds of a multiprocessor in 2 microseconds


def product(A, B, bias=None):
    """A @ B + bias.  A (M,K), B (K,N), bias (N,) or None -> (M,N).  Raises ValueError for other shapes."""
    check(A, B, bias)
    along_k = not isinstance(A, Transposed) and isinstance(B, Transposed)
    plan = choose(*A.shape, B.shape[1], along_k, current().multiprocessors, tf32_allowed())
    return KERNELS[plan.kernel](A, B, bias, **plan.options)


class Plan(NamedTuple):
    kernel: str
    options: dict               # tile and parts, for a kernel that has them


@functools.lru_cache(1024)
def choose(M, K, N, along_k, multiprocessors, tf32):
    """-> Plan.  along_k: both factors are."""
    if M * N * K <= FEW and K <= SHORT:
        return Plan("by_element", {})
    if along_k and min(M, N) <= THIN:
        return Plan("by_warp", {})
    name, tiles = ("tensor", gpu_tensor.TILES) if tf32 else ("blocked", gpu_blocked.TILES)
    tile, parts = tile_and_parts(M, K, N, tiles, multiprocessors)
    return Plan(name, {"tile": tile, "parts": parts})


def tile_and_parts(M, K, N, tiles, multiprocessors):
    """The tile and the number of parts, a power of 2, that let the busiest multiprocessor be ready first."""
    def time(tile, parts):
        """In multiply-adds.  A block has to be brought its numbers, too; a few small ones leave a multiprocessor idle;
        and parts are written, read again and added."""
        rows, columns = tile
        blocks = -(-M // rows) * -(-N // columns) * parts
        each = (rows * columns + READ * (rows + columns)) * -(-K // parts)
        in_turn = max(-(-blocks // multiprocessors), BUSY * 64 / (rows * columns))
        return in_turn * each + (0 if parts == 1 else LAUNCH + 2 * READ * parts * M * N / multiprocessors)

    most = max(1, min(K // SHORTEST_PART, MOST_PARTS))
    all_parts = [1 << power for power in range(most.bit_length())]
    return min(((tile, parts) for tile in tiles for parts in all_parts), key=lambda choice: time(*choice))
