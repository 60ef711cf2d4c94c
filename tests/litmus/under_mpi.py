"""Litmus programs under a real MPI: many times each, between random delays, with nodes on changing ranks.

A program gets memory for several runs at once, so that ranks need not wait for each other after every run; who is ahead
takes locks that others still use for the run before, which orders more and allows nothing new; but where a program
holds a lock across a meeting all meet between runs, or who is late would wait for a lock whose holder waits for it.
Memory that is used again is written anew by one rank, between two barriers, so pages have histories: owners elsewhere,
old copies, copies of their own.  Ranks that no node falls to take part in the meetings only.

Each such round writes the program's values as other bytes.  So a byte that is older than its round is told from one
that is not; and no round needs what the protocol cannot give: that a byte becomes the same everywhere when one rank
writes the value that it sees there, after ranks wrote it without synchronisation and now see it differently.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from litmus.programs import MEETINGS, PAGES, Op, Program, Thread, place
from litmus.promise import seen
from mpi4py import MPI

import dsm

PAGE_BYTES = 4096
INSTANCES = 16
LOCKS = 7  # a prime, so that the managers of a program's locks are not always the same ranks
DELAY_S = 60e-6
VALUES = 5  # 0 to 4
ROUNDS = 256 // VALUES


def make_locks() -> list[dsm.Lock]:
    """Make the locks of all programs; they are never given back.  Collective."""
    return [dsm.Lock() for _ in range(LOCKS)]


class _Memory:
    """The variables of one program, `instances` times."""

    def __init__(self, program: Program, placement: str, instances: int) -> None:
        self.program, self.placement, self.instances = program, placement, instances
        self.cells: list[dict[str, np.ndarray]] = []
        self.base = 0  # the byte that stands for 0 in this round
        self.allocate()

    def allocate(self) -> None:
        self.array = dsm.zeros(self.instances * PAGES * PAGE_BYTES, np.uint8, page_size=PAGE_BYTES)
        for instance in range(self.instances):
            cells = {}
            for index, name in enumerate(self.program.variables):
                offset, width = place(self.placement, index, PAGE_BYTES)
                offset += instance * PAGES * PAGE_BYTES
                # Two bytes in two pages are one number, so that one instruction needs both.
                cells[name] = self.array[offset : offset + width].view(np.uint8 if width == 1 else np.uint16)
            self.cells.append(cells)

    def free(self) -> None:
        self.cells.clear()
        dsm.free(self.array)
        del self.array

    def write(self, instance: int, name: str, value: int) -> None:
        cell = self.cells[instance][name]
        cell[0] = (self.base + value) * (257 if cell.itemsize == 2 else 1)

    def read(self, instance: int, name: str) -> int | tuple:
        return seen([byte - self.base for byte in self.cells[instance][name][0].tobytes()])

    def clear(self) -> None:
        for instance in range(self.instances):
            for name in self.program.variables:
                self.write(instance, name, 0)


class _Player:
    """One thread of this rank, which plays a thread of the program in each run."""

    def __init__(
        self, memory: _Memory, locks: dict[str, dsm.Lock], events: list[dict[str, dsm.Event]], rng: random.Random
    ) -> None:
        self.memory, self.locks, self.events, self.rng = memory, locks, events, rng
        self.pins: list = []

    def play(self, thread: Thread, run: int) -> dict[str, int | tuple]:
        instance = run % self.memory.instances
        registers: dict[str, int | tuple] = {}
        for op in thread.ops:
            if self.rng.random() < 0.4:
                self.delay()
            if op.kind == "read":
                registers[str(op.value)] = self.memory.read(instance, op.what)
            else:
                self.do(op, instance, self.events[run])
        return registers

    def delay(self) -> None:
        """Let others go first; sleeping gives them the core, spinning does not."""
        if self.rng.random() < 0.2:
            time.sleep(0)
        end = time.perf_counter() + self.rng.random() * DELAY_S
        while time.perf_counter() < end:
            pass

    def do(self, op: Op, instance: int, events: dict[str, dsm.Event]) -> None:
        if op.kind == "write":
            self.memory.write(instance, op.what, int(op.value))
        elif op.kind == "prefetch":
            self.memory.read(instance, op.what)
        elif op.kind == "acquire":
            self.locks[op.what].acquire()
        elif op.kind == "release":
            self.locks[op.what].release()
        elif op.kind == "set":
            events[op.what].set()
        elif op.kind == "await":
            events[op.what].wait()
        elif op.kind == "clear":
            events[op.what].clear()
        elif op.kind == "barrier":
            dsm.barrier()
        elif op.kind == "free":
            self.memory.free()
        elif op.kind == "allocate":
            self.memory.allocate()
        elif op.kind in ("pin", "pin-r"):
            self.pins.append(dsm.pinned(self.memory.cells[instance][op.what], "rw" if op.kind == "pin" else "r"))
            self.pins[-1].__enter__()
        elif op.kind == "unpin":
            self.pins.pop().__exit__(None, None, None)
        else:
            raise ValueError(op)


def _parts(program: Program) -> list[list[Thread]]:
    """The threads of each node, and, last, what a rank does that has no node: the meetings."""
    parts = [[thread for thread in program.threads if thread.node == node] for node in range(program.nodes)]
    return [*parts, [Thread(-1, tuple(op for op in parts[0][0].ops if op.kind in MEETINGS))]]


def _holds_a_lock_in_a_meeting(thread: Thread) -> bool:
    held = 0
    for op in thread.ops:
        held += (op.kind == "acquire") - (op.kind == "release")
        if held and op.kind in MEETINGS:
            return True
    return False


def run(program: Program, placement: str, runs: int, seed: int, locks: list[dsm.Lock]) -> Counter[tuple]:
    """Run a program and return how often each outcome came, the same on all ranks.  Collective."""
    rank, size = dsm.rank(), dsm.size()
    common = random.Random(seed)  # draws the same on all ranks
    in_step = any(_holds_a_lock_in_a_meeting(thread) for thread in program.threads)
    reallocates = any(op.kind == "free" for thread in program.threads for op in thread.ops)
    memory = _Memory(program, placement, 1 if reallocates else INSTANCES)
    parts = _parts(program)
    chosen = dict(zip(program.locks, common.sample(locks, len(program.locks)), strict=True))
    plan = [(common.randrange(size), common.random() < 0.5) for _ in range(runs)]
    events = [{name: dsm.Event() for name in program.events} for _ in range(runs)]
    found: list[dict[str, int | tuple]] = [{} for _ in range(runs)]

    def part(i: int) -> list[Thread]:
        return parts[min((rank - plan[i][0]) % size, program.nodes)]

    def play_all(number: int, begin: Callable[[int], None]) -> None:
        player = _Player(memory, chosen, events, random.Random(f"{seed} {rank} {number}"))
        for i in range(runs):
            begin(i)
            if number < len(part(i)):
                found[i].update(player.play(part(i)[number], i))

    threads = max(len(threads) for threads in parts)
    local = threading.Barrier(threads)

    def begin(i: int) -> None:
        if threads > 1:  # all threads of the rank have ended the run before
            local.wait()
        if i % memory.instances == 0 and i > 0:
            dsm.barrier()
            if not reallocates:  # a new array begins as zeros
                memory.base = i // memory.instances % ROUNDS * VALUES
            if rank == plan[i][0]:
                memory.clear()
            dsm.barrier()
        elif plan[i][1] or in_step:
            dsm.barrier()
        if threads > 1:
            local.wait()

    beside = [
        threading.Thread(target=play_all, args=(number, lambda i: (local.wait(), local.wait())), daemon=True)
        for number in range(1, threads)
    ]
    for thread in beside:
        thread.start()
    play_all(0, begin)
    for thread in beside:
        thread.join()
    dsm.barrier()
    memory.free()
    return _outcomes(program, MPI.COMM_WORLD.allgather(found))


def _outcomes(program: Program, found: list[list[dict[str, int | tuple]]]) -> Counter[tuple]:
    counts: Counter[tuple] = Counter()
    for parts in zip(*found, strict=True):
        registers = {name: value for part in parts for name, value in part.items()}
        counts[tuple(registers[name] for name in program.registers)] += 1
    return counts
