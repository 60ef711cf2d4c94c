"""Litmus programs in the simulator: on schedules drawn by seed, and on all schedules of a bounded depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from litmus.programs import MEETINGS, PAGES, Op, Program, place
from litmus.promise import seen
from native import simulator

PAGE_BYTES = 256  # so that diffs are shorter than pages
SCHEDULES_MAX = 10_000_000


def partitions(count: int, groups: int = 0) -> Iterator[tuple[int, ...]]:
    """Yield all ways to put `count` things into groups: the group of each; new groups are numbered in order."""
    if count == 0:
        yield ()
    for group in range(groups + 1 if count else 0):
        for rest in partitions(count - 1, max(groups, group + 1)):
            yield group, *rest


def homes(program: Program) -> list[tuple[tuple[int, int], ...]]:
    """Return all ways to run the nodes of a program: the host of each, and its process among all.

    The last one is as the program says: each a host of its own.  Two can be threads of one process only if neither
    takes part in meetings.
    """
    meets = any(op.kind in MEETINGS for thread in program.threads for op in thread.ops)
    ways = []
    for processes in [tuple(range(program.nodes))] if meets else partitions(program.nodes):
        for hosts in partitions(1 + max(processes)):
            ways.append(tuple((hosts[process], process) for process in processes))
    return sorted(ways, key=lambda way: len(set(way)) + len({host for host, _ in way}))


class Translated:
    """A litmus program with its placement, as the simulator takes it.

    `home`: the host and the process of each of its nodes; each is a host of its own if not said.
    """

    def __init__(self, program: Program, placement: str, home: tuple[tuple[int, int], ...] | None = None) -> None:
        self.program, self.width = program, place(placement, 0, PAGE_BYTES)[1]
        home = home or tuple((node, node) for node in range(program.nodes))
        processes = sorted(set(home))
        hosts = [host for host, _ in processes]
        self.simulated = simulator.Program(1 + hosts[-1], [hosts.count(host) for host in range(1 + hosts[-1])])
        arrays = 1 + sum(op.kind == "allocate" for op in program.threads[0].ops)
        self.slots = [self.simulated.slot(PAGES * PAGE_BYTES, PAGE_BYTES, later=a > 0) for a in range(arrays)]
        at = {name: place(placement, i, PAGE_BYTES) for i, name in enumerate(program.variables)}
        self.cells = [{name: self.simulated.cell(slot, *at[name]) for name in at} for slot in self.slots]
        first = self.simulated.locks(len(program.locks)) if program.locks else 0
        self.locks = {name: first + i for i, name in enumerate(program.locks)}
        first = self.simulated.flags(len(program.events)) if program.events else 0
        self.flags = {name: first + i for i, name in enumerate(program.events)}
        self.registers: dict[tuple[int, int], str] = {}
        for thread in program.threads:
            self._thread(self.simulated.thread(processes.index(home[thread.node])), thread.ops)
        if program.collecting:
            self.simulated.op(self.simulated.thread(0), "request")

    def _thread(self, number: int, ops: Iterable[Op]) -> None:
        array = 0
        for op in ops:
            if op.kind == "allocate":
                array += 1
            cells = self.cells[array]
            translated = {
                "write": lambda op, cells=cells: [("write", cells[op.what], op.value)],
                "read": lambda op, cells=cells: [("peek", cells[op.what])],
                "prefetch": lambda op, cells=cells: [("hint", cells[op.what])],
                "pin": lambda op, cells=cells: [("pin", cells[op.what], 1)],
                "pin-r": lambda op, cells=cells: [("pin", cells[op.what], 0)],
                "unpin": lambda op: [("unpin",)],
                "acquire": lambda op: [("acquire", self.locks[op.what])],
                "release": lambda op: [("release", self.locks[op.what])],
                "set": lambda op: [("set", self.flags[op.what])],
                "await": lambda op: [("await", self.flags[op.what])],
                "clear": lambda op: [("clear", self.flags[op.what])],
                "barrier": lambda op: [("barrier",)],
                "free": lambda op, slot=self.slots[array]: [("meet", 3, slot), ("forget", slot)],
                "allocate": lambda op, slot=self.slots[array]: [("meet", 2, slot)],
            }[op.kind](op)
            last = self.simulated.ops(number, *translated)
            if op.kind == "read":
                self.registers[number, last] = str(op.value)

    def outcome(self, observed: Iterable[tuple[int, int, int]]) -> tuple:
        """Return the values of the registers, in their order, from what the simulator saw."""
        values = {self.registers[thread, op]: value for thread, op, value in observed}
        return tuple(seen(list(values[name].to_bytes(self.width, "little"))) for name in self.program.registers)

    def sample(self, seeds: Iterable[int], **knobs: int) -> Counter[tuple]:
        """Run schedules drawn by seed."""
        return Counter(self.outcome(self.simulated.run(seed, **knobs)) for seed in seeds)

    def explore(self, decisions: int, **knobs: int) -> tuple[int, Counter[tuple]]:
        """Run all schedules that differ in so many decisions, 0: all there are; returns their number and outcomes."""
        found = self.simulated.explore(limit=SCHEDULES_MAX, depth=decisions, **knobs)
        if found.limited:
            raise ValueError(f"{self.program.name}: more than {SCHEDULES_MAX} schedules")
        counts: Counter[tuple] = Counter()
        for observed, schedules in found.outcomes.items():
            counts[self.outcome(observed)] += schedules
        return found.schedules, counts
