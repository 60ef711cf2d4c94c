"""What release consistency promises of a litmus program: every outcome that it may have, from happens-before alone.

Happens-before is program order, from each release to the acquires of its lock that come later, from the set that ends
a time in which an event was cleared to the waits that find it set, and from everything before a meeting of all nodes to
everything after it, transitively (Keleher, Cox, Zwaenepoel 1992).  A read may return a write, byte for byte, unless the
read happens before the write, or another write of that byte lies between the two; and no value comes out of thin air:
the writes that are read from, together with happens-before, have no cycle.  Of the order of unsynchronised writes
nothing is promised, nor that two reads agree on it.

All orders of the critical sections, and of what is done to events, are tried.  Nothing here knows of pages, diffs or
messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from litmus.programs import MEETINGS, Program

CHOICES = ("acquire", "set", "clear", "await")  # who goes first matters


@dataclass(frozen=True)
class Access:
    """A write or read in one order of the critical sections; `before`: the accesses that happen before it, as bits."""

    location: tuple[str, int]  # variable, and which array it lies in: the first, or what was allocated next
    value: int | str
    write: bool
    before: int


class _State:
    """How far the threads are, and what each of them and each lock has behind it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.at = [0] * len(program.threads)
        self.known = [0] * len(program.threads)
        self.locks = dict.fromkeys(program.locks, 0)
        self.held: set[str] = set()
        self.sets: dict[str, int] = {}  # events that are set
        self.arrays = [0] * len(program.threads)
        self.accesses: dict[tuple[int, int], Access] = {}
        self.bits = {}
        for t, thread in enumerate(program.threads):
            for k in range(len(thread.ops)):
                self.bits[t, k] = 1 << len(self.bits)
        nodes = [thread.node for thread in program.threads]
        self.mains = [nodes.index(node) for node in range(program.nodes)]

    def copy(self) -> _State:
        new = object.__new__(_State)
        new.__dict__ = {
            name: value.copy() if name in ("at", "known", "locks", "held", "sets", "arrays", "accesses") else value
            for name, value in self.__dict__.items()
        }
        return new

    def next_op(self, t: int) -> tuple[str, str, int | str]:
        ops = self.program.threads[t].ops
        if self.at[t] == len(ops):
            return "end", "", 0
        return ops[self.at[t]].kind, ops[self.at[t]].what, ops[self.at[t]].value

    def run(self) -> None:
        """Run all threads up to their next acquire or event: until there it does not matter who goes first."""
        moved = True
        while moved:
            moved = False
            for t in range(len(self.at)):
                while self.next_op(t)[0] not in (*CHOICES, "end", *MEETINGS):
                    self._step(t)
                    moved = True
            if all(self.next_op(t)[0] in MEETINGS for t in self.mains):
                self._meet()
                moved = True

    def _step(self, t: int) -> None:
        kind, what, value = self.next_op(t)
        if kind in ("read", "write"):
            self.accesses[t, self.at[t]] = Access((what, self.arrays[t]), value, kind == "write", self.known[t])
            self.known[t] |= self.bits[t, self.at[t]]
        elif kind == "release":
            self.held.remove(what)
            self.locks[what] |= self.known[t]
        self.at[t] += 1

    def _meet(self) -> None:
        everything = 0
        for t in self.mains:
            everything |= self.known[t]
        for t in self.mains:
            self.arrays[t] += self.next_op(t)[0] == "allocate"
            self.known[t] = everything
            self.at[t] += 1

    def is_ready(self, t: int) -> bool:
        kind, what, _ = self.next_op(t)
        return (
            kind in ("set", "clear")
            or (kind == "acquire" and what not in self.held)
            or (kind == "await" and what in self.sets)
        )

    def choose(self, t: int) -> None:
        kind, what, _ = self.next_op(t)
        if kind == "acquire":
            self.held.add(what)
            self.known[t] |= self.locks[what]
        elif kind == "set":
            self.sets.setdefault(what, self.known[t])
        elif kind == "clear":
            self.sets.pop(what, None)
        else:
            self.known[t] |= self.sets[what]
        self.at[t] += 1


def _orders(state: _State) -> Iterator[_State]:
    state.run()
    ready = [t for t in range(len(state.at)) if state.is_ready(t)]
    if not ready:
        if any(state.next_op(t)[0] != "end" for t in range(len(state.at))):
            raise ValueError(f"{state.program.name}: deadlock")
        yield state
    for t in ready:
        branch = state.copy()
        branch.choose(t)
        yield from _orders(branch)


def _has_cycle(reads_from: list[tuple[int, int]], before: dict[int, int]) -> bool:
    """Tell whether the (write, read) edges and happens-before have a cycle; `before` is by bit."""
    edges = set(range(len(reads_from)))
    follows = {i: [j for j in edges if before[reads_from[j][0]] & reads_from[i][1]] for i in edges}
    while leaves := {i for i in edges if not any(j in edges for j in follows[i])}:
        edges -= leaves
    return bool(edges)


def _readings(state: _State, width: int) -> Iterator[tuple]:
    """Outcomes of one order."""
    accesses = {state.bits[place]: access for place, access in state.accesses.items()}
    before = {bit: access.before for bit, access in accesses.items()}
    reads = sorted((str(access.value), bit) for bit, access in accesses.items() if not access.write)
    choices = []
    for _, bit in reads:
        location = accesses[bit].location
        writes = [w for w, access in accesses.items() if access.write and access.location == location]
        behind = [w for w in writes if before[bit] & w]
        may = [w for w in writes if not before[w] & bit and not any(before[other] & w for other in behind)]
        choices += [([0] if not behind else []) + may] * width
    for chosen in product(*choices):
        edges = [(w, reads[i // width][1]) for i, w in enumerate(chosen) if w]
        if _has_cycle(edges, before):
            continue
        values = [accesses[w].value if w else 0 for w in chosen]
        yield tuple(seen(values[i : i + width]) for i in range(0, len(values), width))


def seen(values: list) -> int | tuple:
    """Return what a read of these bytes gives: a value, or, torn, the bytes."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def outcomes(program: Program, width: int = 1) -> frozenset[tuple]:
    """Return all outcomes that are allowed when every variable has `width` bytes."""
    orders = {frozenset(state.accesses.items()): state for state in _orders(_State(program))}
    return frozenset(outcome for state in orders.values() for outcome in _readings(state, width))
