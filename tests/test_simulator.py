"""The simulated GPU: bugs planted into small kernels are found, with the thread and the line, and correct kernels have
no findings, in whatever order their threads run."""
import functools
import inspect
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import boolean, cuda, float32, int32

from minilstm import device
from minilstm.device import ptx, stepping
from minilstm.device.kernel import B1, F1, F2, Float, I1, Int, device_function, kernel, unroll
from minilstm.device.simulator import SimulationError

SEEDS = [None, 1, 2, 3]
ALL = 0xffffffff
UNWRITTEN = np.array(ptx.UNWRITTEN, np.int32).view(np.float32)


def numbers(n, rng=None):
    return (rng or np.random.default_rng()).normal(size=n).astype("float32")


def kinds(simulator):
    return {race.kind for race in simulator.races}


def line_of(function, text):
    """The number of the line of a function that has the text in it."""
    lines, first = inspect.getsourcelines(function)
    return first + next(k for k, line in enumerate(lines) if text in line)


# -------------------------------------------------------------------------------------------- kernels with and without

@functools.cache
def reverse(barrier=True):
    """A block's numbers the other way round, through shared memory."""
    @kernel(threads=64)
    def reverse_block(x: F1):
        tile = cuda.shared.array(64, float32)
        t = cuda.threadIdx.x
        tile[t] = x[t]
        if barrier:
            cuda.syncthreads()
        x[t] = tile[63 - t]

    return reverse_block


@functools.cache
def rotate(first=True, second=True):
    """x moved on by one place, twice, through one shared array: a barrier after each write and after each read."""
    @kernel(threads=48)
    def rotate_block(x: F1):
        tile = cuda.shared.array(48, float32)
        t = cuda.threadIdx.x
        for turn in range(2):
            tile[t] = x[t]
            if first:
                cuda.syncthreads()
            x[t] = tile[(t + 1) % 48]
            if second:
                cuda.syncthreads()

    return rotate_block


@functools.cache
def exchange(polling=True, relaxed=True, resident=True, steps=3):
    """h[s + 1] = twice h[s], reversed: each of two blocks needs what the other has written a step before."""
    @kernel(threads=32, resident=resident)
    def exchange_blocks(h: F2, error: I1):
        t = cuda.threadIdx.x
        place = cuda.blockIdx.x * 4 + t
        for s in range(steps):
            if t < 4:
                other = s * 8 + 4 - cuda.blockIdx.x * 4
                if polling:
                    four = ptx.poll4(h, other, error)
                else:
                    four = ptx.load4(h, other)
                twice = four[3 - t] + four[3 - t]
                if relaxed:
                    ptx.store_relaxed(h, (s + 1) * 8 + place, twice)
                else:
                    h[s + 1, place] = twice
            cuda.syncthreads()

    return exchange_blocks


def run_exchange(simulator, blocks=2, **options):
    h = np.full((4, 8), UNWRITTEN)
    h[0] = start = numbers(8)
    h = device.to_device(h)
    device.launch(exchange(**options), blocks, h, simulator.error)
    return h.copy_to_host(), np.array([start, 2 * start[::-1], 4 * start, 8 * start[::-1]])


@kernel(threads=64)
def sum_block(x: F1, total: F1):
    """A block's sum: in each warp by shuffles, then over the warps through shared memory."""
    of_warps = cuda.shared.array(2, float32)
    t = cuda.threadIdx.x
    value = x[t]
    for k in unroll(5):
        value += cuda.shfl_xor_sync(ALL, value, 1 << k)
    if cuda.laneid == 0:
        of_warps[t // 32] = value
    cuda.syncthreads()
    if t == 0:
        total[0] = of_warps[0] + of_warps[1]


# ----------------------------------------------------------------------------------- correct kernels: nothing is found

@pytest.mark.parametrize("seed", SEEDS)
def test_correct_kernels_compute_and_have_no_findings(seed):
    with device.simulated(seed=seed) as simulator:
        start = numbers(64)
        x, total = device.to_device(start), device.empty(1)
        device.launch(sum_block, 1, x, total)
        device.launch(reverse(), 1, x)
        assert (x.copy_to_host() == start[::-1]).all()
        assert np.isclose(total.copy_to_host()[0], start.sum(), rtol=1e-5, atol=1e-5)
        x = device.to_device(start[:48])
        device.launch(rotate(), 1, x)
        assert (x.copy_to_host() == np.roll(start[:48], -2)).all()
        h, expected = run_exchange(simulator)
        assert (h == expected).all()
        assert not simulator.races, simulator.races


@pytest.mark.parametrize("seed", SEEDS)
def test_launches_are_in_order_and_barriers_order_global_memory(seed):
    """What looks like a race and is none: a block reads its own global writes after a barrier; blocks of the next
    launch read and overwrite them."""
    @kernel(threads=32)
    def shift(x: F1, y: F1):
        t = cuda.grid(1)
        x[t] = x[t] + float32(1)
        cuda.syncthreads()
        y[t] = x[t - t % 32 + (t + 1) % 32]

    with device.simulated(seed=seed) as simulator:
        start = np.arange(64, dtype="float32")
        x, y = device.to_device(start), device.empty(64)
        device.launch(shift, 2, x, y)
        device.launch(shift, 2, y, x)
        assert (x.copy_to_host() == np.roll(start.reshape(2, 32) + 2, -2, axis=1).reshape(-1)).all()
        assert not simulator.races


# -------------------------------------------------------------------------------------------------------- planted races

@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_barrier_is_a_race(seed):
    with device.simulated(seed=seed) as simulator:
        x = device.to_device(numbers(64))
        device.launch(reverse(barrier=False), 1, x)
    assert {"read after write"} <= kinds(simulator)
    race = next(race for race in simulator.races if race.kind == "read after write")
    assert (race.kernel, race.array) == ("reverse_block", "tile")
    assert race.line == f"test_simulator.py, line {line_of(reverse, '63 - t')}"
    assert np.isnan(x.raw).any()                    # a thread has read what nobody had written


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("missing", ["first", "second"])
def test_one_of_two_barriers_missing_is_a_race(missing, seed):
    with device.simulated(seed=seed) as simulator:
        device.launch(rotate(**{missing: False}), 1, device.to_device(numbers(48)))
    assert simulator.races


@pytest.mark.parametrize("writer", range(3))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_races_with_every_reader_before(writer, seed):
    """Also if the writer itself has read last; with readers of one warp and of several."""
    @kernel(threads=64)
    def read_then_write(x: F1, who: Int, readers: Int):
        tile = cuda.shared.array(2, float32)
        t = cuda.threadIdx.x
        if t == 0:
            tile[0] = x[0]
        cuda.syncthreads()
        if t < readers:
            x[t] = tile[0]
        if t == who:
            tile[0] = float32(0)

    for readers in (2, 20, 64):
        with device.simulated(seed=seed) as simulator:
            device.launch(read_then_write, 1, device.to_device(numbers(64)), (0, 1, readers - 1)[writer], readers)
        assert kinds(simulator) & {"write after read", "read after write"}, readers


@pytest.mark.parametrize("seed", SEEDS)
def test_two_writers_are_a_race(seed):
    @kernel(threads=2)
    def write_both(x: F1):
        tile = cuda.shared.array(1, float32)
        tile[0] = x[cuda.threadIdx.x]

    with device.simulated(seed=seed) as simulator:
        device.launch(write_both, 1, device.to_device(numbers(2)))
    assert kinds(simulator) == {"write after write"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ordering", ["nothing", "a shuffle", "syncwarp"])
def test_within_a_warp_only_syncwarp_orders_memory(ordering, seed):
    """CUDA C++ Programming Guide: shuffles "do not imply a memory barrier"."""
    by_shuffle, by_syncwarp = ordering == "a shuffle", ordering == "syncwarp"

    @kernel(threads=32)
    def next_of_warp(x: F1):
        tile = cuda.shared.array(32, float32)
        t = cuda.threadIdx.x
        tile[t] = x[t]
        if by_shuffle:
            cuda.shfl_xor_sync(ALL, x[t], 1)
        if by_syncwarp:
            cuda.syncwarp()
        x[t] = tile[(t + 1) % 32]

    with device.simulated(seed=seed) as simulator:
        device.launch(next_of_warp, 1, device.to_device(numbers(32)))
    assert bool(simulator.races) == (not by_syncwarp)


@pytest.mark.parametrize("seed", SEEDS)
def test_syncwarp_does_not_order_two_warps(seed):
    @kernel(threads=64)
    def reverse_by_warps(x: F1):
        tile = cuda.shared.array(64, float32)
        t = cuda.threadIdx.x
        tile[t] = x[t]
        cuda.syncwarp()
        x[t] = tile[63 - t]

    with device.simulated(seed=seed) as simulator:
        device.launch(reverse_by_warps, 1, device.to_device(numbers(64)))
    assert simulator.races


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("blocks", ["one block", "two blocks"])
def test_races_in_global_memory(blocks, seed):
    """Threads of one block without a barrier; and threads of two blocks, which nothing orders, even if the simulator
    runs one after the other."""
    n = 2 if blocks == "two blocks" else 1

    @kernel(threads=32 // n)
    def neighbour(x: F1, y: F1):
        i = cuda.grid(1)
        x[i] = float32(i)
        y[i] = x[31 - i]

    with device.simulated(seed=seed) as simulator:
        device.launch(neighbour, n, device.to_device(numbers(32)), device.empty(32))
    assert simulator.races and {race.array for race in simulator.races} == {"x"}


def test_races_between_two_arguments_on_one_memory():
    @kernel(threads=16)
    def copy_on(x: F1, y: F1):
        t = cuda.threadIdx.x
        y[t] = x[t]

    with device.simulated() as simulator:
        memory = device.to_device(numbers(17))
        device.launch(copy_on, 1, memory.part(0, 16), memory.part(0, 16))
        assert not simulator.races
        device.launch(copy_on, 1, memory.part(0, 16), memory.part(1, 17))
    assert kinds(simulator) == {"read after write"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", ["polling", "relaxed"])
def test_blocks_meet_in_relaxed_accesses_only(fault, seed):
    """A plain load in place of the polling one, and a plain store in place of the relaxed one."""
    with device.simulated(seed=seed) as simulator:
        run_exchange(simulator, **{fault: False})
    assert kinds(simulator) & {"polling": {"read after relaxed write", "relaxed write after read"},
                               "relaxed": {"relaxed read after write", "write after relaxed read"}}[fault]


def test_an_ordinary_read_after_polling_is_a_race():
    """It may come from a cache that has the old number, whatever the thread has polled before."""
    @kernel(threads=4, resident=True)
    def poll_and_read(x: F1, y: F1, error: I1):
        t = cuda.threadIdx.x
        if cuda.blockIdx.x == 0:
            ptx.store_relaxed(x, t, float32(t))
        else:
            ptx.poll4(x, 0, error)
            y[t] = x[t]

    with device.simulated() as simulator:
        device.launch(poll_and_read, 2, device.to_device(np.full(4, UNWRITTEN)), device.empty(4), simulator.error)
    assert kinds(simulator) == {"read after relaxed write"}


def test_atomics_do_not_race_with_each_other():
    @kernel(threads=32)
    def count(x: I1, plain: Int):
        if plain:
            x[0] += 1
        else:
            cuda.atomic.add(x, 0, 1)

    for plain in (0, 1):
        with device.simulated(seed=1) as simulator:
            x = device.zeros(1, "int32")
            device.launch(count, 2, x, plain)
            assert bool(simulator.races) == bool(plain)
            assert x.copy_to_host()[0] == 64                    # here the simulator's threads do not part in between


def test_races_are_not_looked_for_unless_wanted():
    with device.simulated(record_races=False) as simulator:
        device.launch(reverse(barrier=False), 1, device.to_device(numbers(64)))
    assert not simulator.races


# ------------------------------------------------------------------------------------------- reads of what is not there

@pytest.mark.parametrize("where", ["shared", "local", "global", "dynamic"])
def test_memory_that_nobody_has_written_is_nan(where):
    shared, local, dynamic = where == "shared", where == "local", where == "dynamic"

    @kernel(threads=1, shared_bytes=16)
    def read_first(x: F1, y: F1):
        value = x[0]
        if shared:
            value = cuda.shared.array(4, float32)[0]
        if local:
            value = cuda.local.array(4, float32)[0]
        if dynamic:
            value = cuda.shared.array(0, float32)[0]
        y[0] = value

    with device.simulated():
        y = device.zeros(1)
        device.launch(read_first, 1, device.empty(1), y)
        found = y.copy_to_host()
    assert np.isnan(found[0]) and found.view(np.int32)[0] != ptx.UNWRITTEN


def test_memory_that_is_used_again_is_nan():
    with device.simulated():
        device.to_device(numbers(64))
        assert np.isnan(device.empty(64).copy_to_host()).all()


@pytest.mark.parametrize("index", [-1, 8, (0, 0), (1, 8), (2, 0)])
@pytest.mark.parametrize("where", ["shared", "local", "global"])
@pytest.mark.parametrize("write", [False, True])
def test_out_of_bounds(where, index, write):
    flat = not isinstance(index, tuple)
    shape = 8 if flat else (2, 8)
    if index == (0, 0):
        shape = 8                                   # too many axes

    @kernel(threads=1)
    def touch(x: F1, y: F2):
        if where == "shared":
            z = cuda.shared.array(shape, float32)
        elif where == "local":
            z = cuda.local.array(shape, float32)
        else:
            z = x if shape == 8 else y
        if write:
            z[index] = float32(1)
        else:
            z[index]

    with device.simulated(), pytest.raises(SimulationError, match="touch, thread 0 of .*outside of the shape"):
        device.launch(touch, 1, device.zeros(8), device.zeros((2, 8)))


@pytest.mark.parametrize("where", ["shared", "global"])
@pytest.mark.parametrize("index", [1, 6, -4, 8])
@pytest.mark.parametrize("access", ["load", "store"])
def test_accesses_of_16_bytes_are_aligned_and_inside(where, index, access):
    @kernel(threads=1)
    def touch4(x: F1):
        z = cuda.shared.array(8, float32, alignment=16) if where == "shared" else x
        if access == "load":
            ptx.load4(z, index)
        else:
            ptx.store4(z, index, float32(0), float32(0), float32(0), float32(0))

    with device.simulated(), pytest.raises(SimulationError, match=f"16 bytes at number {index} of 8"):
        device.launch(touch4, 1, device.zeros(8))


def test_shared_arrays_are_aligned_if_the_kernel_asks_for_it():
    @kernel(threads=1)
    def load(x: F1):
        ptx.load4(cuda.shared.array(8, float32), 0)

    with device.simulated(), pytest.raises(SimulationError, match="16 bytes at once need .*alignment=16"):
        device.launch(load, 1, device.zeros(8))


def test_a_view_may_end_the_alignment():
    @kernel(threads=1)
    def load(x: F1):
        ptx.load4(x, 0)

    with device.simulated():
        x = device.zeros(12)
        device.launch(load, 1, x.part(4, 12))
        with pytest.raises(SimulationError, match="16 bytes"):
            device.launch(load, 1, x.part(3, 12))


# ------------------------------------------------------------------------------------------------- waits without an end

def test_a_barrier_in_a_branch_that_others_do_not_take():
    @kernel(threads=64)
    def half(x: F1):
        if cuda.threadIdx.x < 20:
            cuda.syncthreads()

    line = line_of(test_a_barrier_in_a_branch_that_others_do_not_take, "cuda.syncthreads()")
    complaint = (f"threads 0-19 of block 0 wait for a barrier of its block in test_simulator.py, line {line}, "
                 "and thread 20 of block 0 has ended")
    with device.simulated(), pytest.raises(SimulationError, match=complaint):
        device.launch(half, 1, device.zeros(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_threads_that_have_ended_are_missed_at_a_barrier(seed):
    @kernel(threads=64)
    def early(x: F1):
        if cuda.threadIdx.x == 5:
            return
        cuda.syncthreads()

    with device.simulated(seed=seed), pytest.raises(SimulationError, match="thread 5 of block 0 has ended"):
        device.launch(early, 1, device.zeros(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_barriers_in_two_branches(seed):
    @kernel(threads=64)
    def either(x: F1):
        if cuda.threadIdx.x < 20:
            cuda.syncthreads()
        else:
            cuda.syncthreads()

    complaint = "threads 0-19 .*; threads 20-63 .*same barrier"
    with device.simulated(seed=seed), pytest.raises(SimulationError, match=complaint):
        device.launch(either, 1, device.zeros(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_lanes_that_others_left_alone(seed):
    @kernel(threads=32)
    def lonely(x: F1):
        if cuda.laneid < 8:
            cuda.shfl_xor_sync(ALL, x[0], 1)
        cuda.syncthreads()

    complaint = "nobody can go on: threads 0-7 .* wait for cuda.shfl_xor_sync of its warp.*threads 8-31 .*barrier"
    with device.simulated(seed=seed), pytest.raises(SimulationError, match=complaint):
        device.launch(lonely, 1, device.zeros(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_that_wait_for_each_other_have_to_be_resident(seed):
    with device.simulated(seed=seed) as simulator:
        with pytest.raises(SimulationError, match="nobody can go on: threads 0-3 of block . wait for what another"):
            run_exchange(simulator, resident=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_waits_that_give_up_end_and_say_so(seed):
    """Without the second block the first one ends all the same; what it has not got is NaN."""
    with device.simulated(seed=seed, give_up=True) as simulator:
        with pytest.raises(RuntimeError, match="waited in vain"):
            run_exchange(simulator, blocks=1)
        h, expected = run_exchange(simulator)                   # the flag is gone, and all goes well again
        assert (h == expected).all()


def test_a_resident_kernel_has_to_fit():
    with device.simulated(multiprocessors=3) as simulator:
        with pytest.raises(ValueError, match="4 blocks wait for each other, and only 3"):
            run_exchange(simulator, blocks=4)


# ---------------------------------------------------------------------------------------------- shuffles, shared arrays

def test_a_shuffle_from_a_lane_that_is_not_there():
    @kernel(threads=40)
    def beyond(x: F1):
        cuda.shfl_sync(ALL, x[0], 20)

    with device.simulated(), pytest.raises(SimulationError, match="thread 32 of .*lane 20 is not there"):
        device.launch(beyond, 1, device.zeros(1))


def test_lanes_that_a_mask_does_not_name():
    @kernel(threads=32)
    def some(x: F1, mask: Int, first: Int):
        t = cuda.laneid
        if t < 4:
            x[t] = cuda.shfl_xor_sync(mask, x[t], first)

    with device.simulated():
        x = device.to_device(np.arange(4, dtype="float32"))
        device.launch(some, 1, x, 0xf, 3)
        assert (x.copy_to_host() == [3, 2, 1, 0]).all()
        with pytest.raises(SimulationError, match="lane 8 is not there, or not in it"):
            device.launch(some, 1, x, 0xf, 8)
        with pytest.raises(SimulationError, match="the mask 0x7 does not name lane 3"):
            device.launch(some, 1, x, 0x7, 1)


def test_shuffles_and_votes():
    """Against their definitions in the CUDA C++ Programming Guide."""
    @kernel(threads=32)
    def ask(x: F1, up: F1, down: F1, swapped: F1, one: F1, votes: I1):
        t = cuda.laneid
        up[t] = cuda.shfl_up_sync(ALL, x[t], 3)
        down[t] = cuda.shfl_down_sync(ALL, x[t], 3)
        swapped[t] = cuda.shfl_xor_sync(ALL, x[t], 5)
        one[t] = cuda.shfl_sync(ALL, x[t], 7)
        ballot = cuda.ballot_sync(ALL, x[t] > float32(0))
        some, every = cuda.any_sync(ALL, t == 31), cuda.all_sync(ALL, t < 31)
        if t == 0:
            votes[0] = ballot
            votes[1] = some
            votes[2] = every

    with device.simulated(seed=1):
        start = numbers(32)
        results = [device.empty(32) for _ in range(4)]
        votes = device.zeros(3, "int32")
        device.launch(ask, 1, device.to_device(start), *results, votes)
        up, down, swapped, one = (array.copy_to_host() for array in results)
    t = np.arange(32)
    assert (up == start[np.where(t < 3, t, t - 3)]).all() and (down == start[np.where(t > 28, t, t + 3)]).all()
    assert (swapped == start[t ^ 5]).all() and (one == start[7]).all()
    assert np.uint32(votes.raw[0].view(np.uint32)) == sum(1 << int(k) for k in np.flatnonzero(start > 0))
    assert list(votes.raw[1:]) == [1, 0]


def test_shared_arrays_of_two_shapes_and_without_room():
    @kernel(threads=2)
    def two_shapes(x: F1):
        cuda.shared.array(4 + cuda.threadIdx.x, float32)

    @kernel(threads=1)
    def static(x: F1):
        cuda.shared.array(12 * 1024, float32)[0] = float32(0)
        cuda.shared.array(1, int32)

    @kernel(threads=1, shared_bytes=200 * 1024)
    def dynamic(x: F1, n: Int):
        cuda.shared.array(0, float32)[50 * 1024 - 1] = float32(0)
        if n:
            cuda.shared.array((7, 1024), float32)

    with device.simulated():
        x = device.zeros(1)
        with pytest.raises(SimulationError, match=r"float32 \(4,\) for one thread, float32 5 for another"):
            device.launch(two_shapes, 1, x)
        with pytest.raises(SimulationError, match="49156 bytes of static"):
            device.launch(static, 1, x)
        device.launch(dynamic, 1, x, 0)
        with pytest.raises(SimulationError, match="28672 bytes of static and 204800 of dynamic"):
            device.launch(dynamic, 1, x, 1)


def test_threads_of_a_block_share_arrays_and_blocks_do_not():
    @device_function
    def scratch():
        return cuda.shared.array(4, float32)

    @kernel(threads=4)
    def through(x: F1):
        t, i = cuda.threadIdx.x, cuda.grid(1)
        first, flags = scratch(), cuda.shared.array((4, 1), boolean)
        first[t] = x[i]
        flags[t, 0] = x[i] > float32(0)
        cuda.syncthreads()
        again = scratch()                           # the compiled function has one array, whoever calls it
        x[i] = again[3 - t] if flags[3 - t, 0] else float32(0)

    with device.simulated(seed=1) as simulator:
        start = numbers(8)
        x = device.to_device(start)
        device.launch(through, 2, x)
        assert (x.copy_to_host() == np.maximum(start.reshape(2, 4)[:, ::-1].reshape(-1), 0)).all()
        assert not simulator.races


# --------------------------------------------------------------------------------------------------- numbers, arguments

def test_double_precision_is_not_stored_as_single():
    double = np.float64(2)

    @kernel(threads=1)
    def scale(x: F1):
        x[0] = x[0] * double

    with device.simulated(), pytest.raises(SimulationError, match="float64 is stored as a float32"):
        device.launch(scale, 1, device.zeros(1))


def test_float32_stays_float32_and_overflows_silently():
    seen = []

    @kernel(threads=1)
    def compute(x: F1, m: B1, n: I1, factor: Float, k: Int):
        values = (x[0] * factor, float32(k) / x[1], x[0] + m[0], abs(x[0]), -x[0], cuda.fma(x[0], factor, x[0]))
        seen.append((values, type(m[0]), type(n[0]), type(k)))

    with device.simulated(), np.errstate(all="raise"):
        device.launch(compute, 1, device.to_device(np.float32([3e38, 0])), device.to_device(np.array([True])),
                      device.to_device(np.int32([7])), 10.0, 1)
    values, *types = seen[0]
    assert {type(value) for value in values} == {np.float32} and types == [bool, int, int]
    assert values[0] == np.inf and values[1] == np.inf


def test_arguments_are_what_the_kernel_says():
    @kernel(threads=1)
    def take(x: F1, y: F2, n: Int, s: Float):
        pass

    with device.simulated() as simulator:
        x, y = device.zeros(4), device.zeros((2, 2))
        device.launch(take, 1, x, y, 3, 0.5)
        for arguments, error, match in [
                ((x, y, 3), TypeError, "take: expected 4 arguments, x, y, n, s, got 3"),
                ((y, y, 3, 0.5), TypeError, "x: expected a DeviceArray of float32 with 1 axes, got"),
                ((device.zeros(4, "int32"), y, 3, 0.5), TypeError, "x: expected a DeviceArray of float32"),
                ((np.zeros(4, "float32"), y, 3, 0.5), TypeError, "x: expected a DeviceArray"),
                ((x, y, x, 0.5), TypeError, "n: expected a number, int32, got"),
                ((x, y, 2**31, 0.5), ValueError, "n: expected a number of 32 bits, got 2147483648")]:
            with pytest.raises(error, match=match):
                device.launch(take, 1, *arguments)
        with pytest.raises(ValueError, match="grid: expected at most 2147483647 by 65535 blocks"):
            device.launch(take, (1, 65536), x, y, 3, 0.5)
        device.launch(take, 0, x, y, 3, 0.5)
        assert simulator.launched == ["take"]
        with device.simulated():
            with pytest.raises(ValueError, match="x: expected an array of the GPU in use, got one of another"):
                device.launch(take, 1, x, y, 3, 0.5)


def test_what_the_simulator_does_not_know():
    @kernel(threads=1)
    def sleep(x: F1):
        cuda.nanosleep(5)

    with device.simulated(), pytest.raises(SimulationError, match="cuda.nanosleep is not known to the simulator"):
        device.launch(sleep, 1, device.zeros(1))


# ------------------------------------------------------------------------------------------------------- same seed, log

def test_a_seed_is_an_order_of_threads():
    @kernel(threads=64)
    def log(x: F1):
        order.append(cuda.grid(1))
        cuda.syncthreads()
        order.append(cuda.grid(1))

    def order_of(seed):
        order.clear()
        with device.simulated(seed=seed):
            device.launch(log, 2, device.zeros(1))
        return tuple(order)

    order = []
    assert order_of(1) == order_of(1) and order_of(None) == order_of(None)
    assert len({order_of(seed) for seed in SEEDS}) == len(SEEDS)
    assert order_of(None) == (*range(64), *range(64), *range(64, 128), *range(64, 128))


def test_same_seed_same_bits():
    def run(seed):
        with device.simulated(seed=seed) as simulator:
            device.launch(rotate(first=False), 1, x := device.to_device(np.arange(48, dtype="float32")))
            return x.raw.tobytes(), simulator.races

    assert run(1) == run(1) and run(1)[0] != run(2)[0]


def test_launches_and_copies_are_logged():
    with device.simulated() as simulator:
        x = device.to_device(numbers(64))
        device.launch(reverse(), 1, x)
        device.zeros((2, 2))
        np.asarray(x)
        assert simulator.launched == ["reverse_block"]
        assert simulator.copies == [("to device", 256), ("to host", 256)]


# -------------------------------------------------------------------------------------------------------------- looking

def test_steps_are_shown_side_by_side():
    text = io.StringIO()
    with device.simulated(steps=stepping.Steps((0, 0), (0, 33), kernel="reverse_block", file=text)):
        x = device.to_device(np.arange(64, dtype="float32"))
        device.launch(reverse(), 1, x)
        device.launch(sum_block, 1, x, device.zeros(1))         # another kernel: not shown
    rows = [[cell.strip() for cell in row.split("|")] for row in text.getvalue().splitlines()]
    assert rows[0] == ["reverse_block", "block 0, thread 0", "block 0, thread 33"]
    for column, other, t in ((1, 2, 0), (2, 1, 33)):
        own = [(row[0].split(" ", 1)[1].strip(), row[column]) for row in rows[1:] if row[column]]
        assert ("tile[t] = x[t]", f"tile[{t}] = {t}") in own
        assert own[-1] == ("x[t] = tile[63 - t]", f"x[{t}] = {63 - t}")
        assert ("cuda.syncthreads()", "waits for a barrier of its block") in own
        assert all(not row[other] for row in rows[1:] if row[column])
    assert sys.gettrace() is None or "Steps" not in repr(sys.gettrace())


def test_a_debugger_sees_the_lines_of_a_kernel():
    """A breakpoint is a trace function: it is told of each line of the kernel's own file, in every thread."""
    function, lines = reverse().function, []

    def trace(frame, event, argument):
        if frame.f_code is function.__code__:
            if event == "line":
                lines.append((frame.f_lineno, frame.f_locals.get("t")))
            return trace

    with device.simulated():
        x = device.to_device(numbers(64))
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            device.launch(reverse(), 1, x)
        finally:
            sys.settrace(before)
    after_barrier = line_of(reverse, "x[t] = tile")
    assert [t for line, t in lines if line == after_barrier] == list(range(64))


def test_pdb_stops_in_a_kernel():
    program = """
from numba import cuda
from minilstm import device
from minilstm.device.kernel import F1, kernel

@kernel(threads=2)
def stop(x: F1):
    t = cuda.threadIdx.x
    if t == 1:
        breakpoint()
    x[t] = t

with device.simulated():
    device.launch(stop, 1, device.zeros(2))
"""
    done = subprocess.run([sys.executable, "-c", program], input="next\np 'thread', t\ncontinue\n", text=True,
                          capture_output=True, env=os.environ | {"PYTHONBREAKPOINT": ""})
    assert done.returncode == 0, done.stderr
    assert "('thread', 1)" in done.stdout


def test_an_error_in_a_kernel_has_its_traceback_and_leaves_the_simulator_well():
    @kernel(threads=4)
    def fail(x: F1):
        cuda.syncthreads()
        if cuda.threadIdx.x == 2:
            assert x[0] == 1, "not what was expected"
        cuda.syncthreads()

    with device.simulated():
        x = device.zeros(1)
        with pytest.raises(AssertionError, match="not what was expected") as caught:
            device.launch(fail, 1, x)
        assert caught.traceback[-1].name == "fail"
        y = device.to_device(numbers(64))
        device.launch(reverse(), 1, y)


# --------------------------------------------------------------------------------------------------------- installation

def test_without_greenlet_the_simulator_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "greenlet", None)
    with pytest.raises(ImportError, match=r"pip install 'minilstm\[simulator\]'"):
        with device.simulated():
            pass


def test_importing_minilstm_imports_neither_cuda_nor_the_simulator():
    program = ("import sys, minilstm, minilstm.device; "
               "print([name for name in sys.modules if name.startswith(('numba.cuda.', 'greenlet', 'cuda.'))])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
