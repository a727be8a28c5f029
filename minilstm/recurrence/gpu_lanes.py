"""How ``gpu_rows.py`` deals U out to the threads of a block, so that each holds its part in registers.

Forward, a unit belongs to four threads, its lanes.  A lane has a quarter of the unit's G rows of U, and multiplies it
by the same quarter of h_prev:

    a_h[g, j] = sum over k of U[g*H+j, k] * h_prev[k]       lane l of unit j: all g, the quads of k number l, l+4 ...

Backward, sixteen lanes have four units together.  A lane has a sixteenth of the four columns of U, and multiplies it
by the same sixteenth of da_h:

    dh_prev[j] = sum over k of U[k, j] * da_h[k]            lane l of units j to j+3: the quads of k number l, l+16 ...

A quad is four neighbours, one access to shared memory.  So each number that is read there is multiplied G times or four
times, and the lanes of a unit read neighbouring quads.
"""
from typing import NamedTuple

from numba import cuda, float32

from ..device.gpu import empty, launch
from ..device.kernel import F2, F3, Int, device_function, kernel

LANES, UNITS = 4, 4         # forward, lanes of one unit; backward, units of LANES * UNITS lanes
ALL_LANES = LANES * UNITS
WARP = 0xffffffff           # all its threads, in a shuffle
THREADS = 256               # that deal


class Deal(NamedTuple):
    threads: int            # of a block, whole warps
    quads: int              # of h_prev or da_h that a lane multiplies
    weights: int            # that it has
    width: int              # of h_prev or da_h, filled up to whole quads for all lanes


def forward_deal(G, H):
    quads = -(-H // (4 * LANES))
    return Deal(-(-H * LANES // 32) * 32, quads, 4 * quads * G, 4 * quads * LANES)


def backward_deal(G, H):
    quads = -(-G * H // (4 * ALL_LANES))
    groups = -(-H // UNITS)
    return Deal(-(-groups * ALL_LANES // 32) * 32, quads, 4 * quads * UNITS, 4 * quads * ALL_LANES)


def registers(threads):
    """So many can a thread have, if a block of so many threads is to run at all.  A multiprocessor has four parts with
    512 registers for each of 32 lanes; its warps are spread over the parts; numbers are multiples of 8, up to 255."""
    warps_of_part = -(-threads // 128)
    return min(255, 512 // warps_of_part // 8 * 8)


# -------------------------------------------------------------------------------------------------------------- dealing

def forward_weights(U, G):
    """U (G*H,H) -> (weights / 4, threads, 4): of each thread its weights in the order of their use, as quads that all
    threads can load together; 0 for units that are not there."""
    deal = forward_deal(G, U.shape[1])
    dealt = empty((deal.weights // 4, deal.threads, 4))
    launch(deal_rows, -(-dealt.size // THREADS), U, dealt, G)
    return dealt


@kernel(threads=THREADS)
def deal_rows(U: F2, dealt: F3, G: Int):
    H = U.shape[1]
    place = cuda.grid(1)
    if place < dealt.size:
        thread = place // 4 % dealt.shape[1]
        n = place // 4 // dealt.shape[1] * 4 + place % 4                    # w[(q * 4 + e) * G + g]
        g, e, q = n % G, n // G % 4, n // G // 4
        j, lane = thread // LANES, thread % LANES
        k = (q * LANES + lane) * 4 + e
        dealt[n // 4, thread, n % 4] = U[g * H + j, k] if j < H and k < H else float32(0)


def backward_weights(U, G):
    """As ``forward_weights``, for the lanes of the backward pass."""
    deal = backward_deal(G, U.shape[1])
    dealt = empty((deal.weights // 4, deal.threads, 4))
    launch(deal_columns, -(-dealt.size // THREADS), U, dealt)
    return dealt


@kernel(threads=THREADS)
def deal_columns(U: F2, dealt: F3):
    GH, H = U.shape
    place = cuda.grid(1)
    if place < dealt.size:
        thread = place // 4 % dealt.shape[1]
        n = place // 4 // dealt.shape[1] * 4 + place % 4                    # w[(q * 4 + e) * UNITS + u]
        u, e, q = n % UNITS, n // UNITS % 4, n // UNITS // 4
        j, lane = thread // ALL_LANES * UNITS + u, thread % ALL_LANES
        k = (q * ALL_LANES + lane) * 4 + e
        dealt[n // 4, thread, n % 4] = U[k, j] if k < GH and j < H else float32(0)


# -------------------------------------------------------------------------------------------------- sums over the lanes

@device_function
def sum_for_all(share):
    """Each of four neighbouring lanes has a share -> the sum, for all of them."""
    share += cuda.shfl_xor_sync(WARP, share, 1)
    return share + cuda.shfl_xor_sync(WARP, share, 2)


@device_function
def sum_of_own(s0, s1, s2, s3, lane):
    """Each of sixteen neighbouring lanes has a share of each of four sums -> the sum with the number lane % 4.

    In each of the first two turns a lane keeps half of its sums, and gives the others to the lane that keeps those."""
    odd, upper = lane & 1, lane >> 1 & 1
    low = (s1 if odd else s0) + cuda.shfl_xor_sync(WARP, s0 if odd else s1, 1)
    high = (s3 if odd else s2) + cuda.shfl_xor_sync(WARP, s2 if odd else s3, 1)
    own = (high if upper else low) + cuda.shfl_xor_sync(WARP, low if upper else high, 2)
    own += cuda.shfl_xor_sync(WARP, own, 4)
    return own + cuda.shfl_xor_sync(WARP, own, 8)
