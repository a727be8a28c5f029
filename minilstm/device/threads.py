"""The threads of a simulated launch: who runs, who waits, and for whom.

Each thread runs until it has to wait.  Then the next one that can go on has its turn, in a fixed order or in one that a
seed shuffles for each round.  This needs function calls that can be left in their middle and gone on with later:
greenlets.  A greenlet whose thread has ended takes the next one that begins, since they are dear to make, and most
kernels never wait.

A Meeting is what threads wait for: it is over when all threads of a block, or all lanes of a warp that a mask names,
have come.  As on a GPU, a thread that has ended is not waited for by its warp; for a barrier of its block it is missed.
"""
import contextvars
import os
import sys

from greenlet import getcurrent, greenlet

from .memory import SimulationError

NOT_OF_KERNELS = {os.path.join(os.path.dirname(__file__), name + ".py")
                  for name in ("simulator", "threads", "memory", "cuda_twin", "twins", "stepping")}
WARP = 32
ORDERS = "cuda.syncwarp"                # the one meeting of a warp that puts accesses to memory in order


class Place:
    """One of the three-component numbers of CUDA."""

    def __init__(self, x=1, y=1, z=1):
        self.x, self.y, self.z = x, y, z


class Block:
    warp = None

    def __init__(self, place, grid, threads):
        self.index, self.place, self.block = place[0] + place[1] * grid[0], Place(*place, 0), self
        self.opened = 0                                         # when its threads passed a barrier for the last time
        self.shared, self.shared_bytes = {}, 0                  # where a shared array is made -> the array
        self.meeting = None
        self.warps = [Warp(self, first) for first in range(0, threads, WARP)]
        self.threads = [Thread(self, index) for index in range(threads)]

    def __str__(self):
        return f"threads of block {self.index}"


class Warp:
    def __init__(self, block, first):
        self.block, self.first, self.warp = block, first, self
        self.opened = 0
        self.lanes = 0                                          # that have not ended, as bits
        self.meetings = {}                                      # what for, mask -> Meeting
        self.multiplied = None, None                            # what the lanes brought to a product, and the product

    def __str__(self):
        return f"threads of warp {self.first // WARP} of block {self.block.index}"


class Thread:
    def __init__(self, block, index):
        self.block, self.index, self.lane, self.warp = block, index, index % WARP, block.warps[index // WARP]
        self.warp.lanes |= 1 << self.lane
        self.place = Place(index, 0, 0)
        self.greenlet, self.dead = None, False
        self.waits_for = "its turn"
        self.copies = [[]]                                      # asynchronous ones under way, by group

    def __str__(self):
        return f"thread {self.index} of block {self.block.index}"

    @property
    def frame(self):
        """Where it is in the kernel, or in a function of the kernel's."""
        frame = sys._getframe() if self.greenlet is getcurrent() else self.greenlet.gr_frame
        while frame.f_code.co_filename in NOT_OF_KERNELS and frame.f_back is not None:
            frame = frame.f_back
        return frame

    @property
    def line(self):
        return f"{os.path.basename(self.frame.f_code.co_filename)}, line {self.frame.f_lineno}"


class Meeting:
    """threads: that have come; sites: where in the kernel; values: what each lane of a warp has brought, or None."""

    def __init__(self):
        self.threads, self.sites, self.values = [], set(), [None] * WARP


def call_site(depth):
    """Which instruction is it, of the kernel's and of the functions' that it calls?"""
    frame, site = sys._getframe(depth), []
    while frame is not None:
        site.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(site)


class Run:
    """The threads of a launch, some blocks of it at a time."""

    def __init__(self, simulator, function, arguments):
        self.simulator, self.function, self.arguments = simulator, function, arguments
        self.hub = getcurrent()
        self.greenlets, self.free = [], []

    def side_by_side(self, blocks):
        """Run these blocks until all their threads have ended."""
        threads = [thread for block in blocks for thread in block.threads]
        self.ready, self.idle = list(threads), 0                # idle: rounds in which nobody moved
        while self.ready:
            self.round()
            if self.simulator.hopeless and not self.simulator.give_up:
                raise self.deadlock(threads)
        if not all(thread.dead for thread in threads):
            raise self.deadlock(threads)

    def close(self):
        for one in self.greenlets:
            one.throw()

    def round(self):
        """A turn for everybody who can go on.  After a round in which nobody has stored, met or ended, all are looking
        at memory that stays as it is: if another round is like that, so are all others."""
        simulator = self.simulator
        turns, self.ready = self.ready, []
        if simulator.random:
            simulator.random.shuffle(turns)
        simulator.moved = False
        for thread in turns:
            simulator.current = thread
            if thread.greenlet is None:
                self.begin(thread)
            else:
                thread.greenlet.switch()
            if thread.dead:
                self.end(thread)
        self.idle = 0 if simulator.moved else self.idle + 1
        simulator.hopeless = self.idle >= 2

    def begin(self, thread):
        if self.free:
            thread.greenlet = self.free.pop()
        else:
            thread.greenlet = greenlet(self.threads_in_turn)
            thread.greenlet.gr_context = contextvars.copy_context()     # in which NumPy keeps its errstate
            self.greenlets.append(thread.greenlet)
        thread.greenlet.switch(thread)

    def threads_in_turn(self, thread):
        """What a greenlet does: a thread from its beginning to its end, then, when the hub says so, another one."""
        while True:
            self.function(*self.arguments)
            thread.dead = True
            self.free.append(thread.greenlet)
            thread = self.hub.switch()

    def end(self, thread):
        self.simulator.moved = True
        block, warp = thread.block, thread.warp
        warp.lanes &= ~(1 << thread.lane)
        if block.meeting:
            raise self.not_together(f"{who_waits(block.meeting.threads)}, and {thread} has ended")
        for key in list(warp.meetings):
            self.end_if_complete(warp, *key)

    # ----------------------------------------------------------------------------- called by a thread that has to wait

    def look_again(self):
        """The running thread has looked in vain at memory: let others run before it looks again."""
        thread = self.simulator.current
        thread.waits_for = "what another block writes"
        self.ready.append(thread)
        if self.simulator.steps:
            self.simulator.steps.waits(thread, thread.waits_for)
        self.hub.switch()

    def meet_block(self):
        thread = self.simulator.current
        block = thread.block
        if block.meeting is None:
            block.meeting = Meeting()
            for other in block.threads:
                if other.dead:
                    raise self.not_together(f"{who_waits([thread], thread)}, and {other} has ended")
        meeting = block.meeting
        meeting.threads.append(thread)
        meeting.sites.add(call_site(3))
        if len(meeting.threads) == len(block.threads):
            if len(meeting.sites) > 1:
                raise self.not_together(who_waits(meeting.threads, thread))
            block.meeting = None
            self.simulator.clock += 1
            for group in (block, *block.warps):
                group.opened = self.simulator.clock
            self.ready += meeting.threads
        self.wait(thread, "a barrier of its block")

    def meet_warp(self, what, mask, value=None):
        """-> what each lane has brought."""
        thread = self.simulator.current
        warp, mask = thread.warp, int(mask) & 0xffffffff
        if not mask >> thread.lane & 1:
            raise self.simulator.fault(f"{what}: the mask {mask:#x} does not name lane {thread.lane}, which calls it")
        meeting = warp.meetings.setdefault((what, mask), Meeting())
        meeting.threads.append(thread)
        meeting.values[thread.lane] = value
        self.end_if_complete(warp, what, mask)
        self.wait(thread, f"{what} of its warp")
        return meeting.values

    def end_if_complete(self, warp, what, mask):
        meeting = warp.meetings[what, mask]
        if len(meeting.threads) == (warp.lanes & mask).bit_count():
            del warp.meetings[what, mask]
            self.ready += meeting.threads
            if what == ORDERS:
                self.simulator.clock += 1
                warp.opened = self.simulator.clock

    def wait(self, thread, what):
        self.simulator.moved = True
        thread.waits_for = what
        if self.simulator.steps:
            self.simulator.steps.waits(thread, what)
        self.hub.switch()

    # ------------------------------------------------------------------------------------------------------ complaints

    def not_together(self, who):
        return SimulationError(f"{self.simulator.kernel.name}: {who}: all threads of a block have to come to the same "
                               "barrier")

    def deadlock(self, threads):
        living = [thread for thread in threads if not thread.dead]
        return SimulationError(f"{self.simulator.kernel.name}: nobody can go on: {who_waits(living)}")


def who_waits(threads, running=None):
    """Threads that wait at one place are named together; the running one waits as well."""
    groups = {}
    for thread in sorted(threads, key=lambda thread: (thread.block.index, thread.index)):
        what = "a barrier of its block" if thread is running else thread.waits_for
        groups.setdefault((thread.block.index, what, thread.line), []).append(thread.index)
    return "; ".join(f"threads {ranges(indices)} of block {block} wait for {what} in {line}"
                     for (block, what, line), indices in groups.items())


def ranges(numbers):
    """[0, 1, 2, 5] -> "0-2, 5" """
    parts = []
    for n in numbers:
        if parts and parts[-1][1] == n - 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    return ", ".join(f"{first}-{last}" if first < last else f"{first}" for first, last in parts)
