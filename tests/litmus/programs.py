"""Litmus programs: a few operations on two to four nodes, and what release consistency says of what they may read.

The one source for the simulator, which runs them on all schedules of a bounded depth (`in_simulator`), and for MPI,
which runs them many times (`under_mpi`).  `promise` derives from a program all that it may read; each program also says
in its own words what it is about, and both must agree.

A thread is a line: its node, and operations separated by semicolons.

    x=1            write; values are 1 to 9, and all memory begins as 0
    r0=x           read into a register; each register is read once
    acquire l      release l
    set e          await e, clear e: an event, which is cleared at first
    barrier        of all nodes; only the first thread of a node may
    free           allocate: the array that holds all variables; collective as the barrier
    prefetch x     the page is read, the value does not matter
    pin x          pin-r x, unpin: for writing, for reading; the last pin ends
    |              a barrier where the program is synchronised by barriers, else nothing

The shapes are those of the literature on memory models (Sarkar et al. 2009; Alglave, Maranget, Tautschnig 2014, table
of names); each is run racy, with one lock around every access, with a lock for each variable, and with barriers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

PLACEMENTS = ("neighbours", "one page", "two pages", "straddling")
MEETINGS = ("barrier", "free", "allocate")


@dataclass(frozen=True)
class Op:
    """One operation: `what` is a variable or lock, `value` what is written or the register that is read into."""

    kind: str
    what: str = ""
    value: int | str = 0


@dataclass(frozen=True)
class Thread:
    """What one thread of a node does."""

    node: int
    ops: tuple[Op, ...]


@dataclass(frozen=True)
class Program:
    """A litmus program.

    `never` and `reached` are expressions over the registers: an outcome that must not be, and outcomes that all
    schedules together must show.  `why` is the reason in terms of happens-before.  `beyond` is an outcome that release
    consistency allows, and this protocol does not produce.  `only` are placements where the program says something that
    it does not say elsewhere; `collecting`: a collection may begin at any moment.
    """

    name: str
    text: str
    why: str
    never: str = "False"
    reached: tuple[str, ...] = ()
    beyond: str = "False"
    only: tuple[str, ...] = ()
    collecting: bool = False

    @cached_property
    def threads(self) -> tuple[Thread, ...]:
        return tuple(_thread(line) for line in self.text.strip().splitlines())

    @cached_property
    def nodes(self) -> int:
        return 1 + max(thread.node for thread in self.threads)

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return self._names("write", "read", "prefetch", "pin", "pin-r")

    @cached_property
    def locks(self) -> tuple[str, ...]:
        return self._names("acquire")

    @cached_property
    def events(self) -> tuple[str, ...]:
        return self._names("set", "await", "clear")

    @cached_property
    def registers(self) -> tuple[str, ...]:
        return tuple(sorted(str(op.value) for thread in self.threads for op in thread.ops if op.kind == "read"))

    def _names(self, *kinds: str) -> tuple[str, ...]:
        return tuple(sorted({op.what for thread in self.threads for op in thread.ops if op.kind in kinds}))

    @cached_property
    def placements(self) -> tuple[str, ...]:
        """Those that differ: one variable has no neighbours."""
        return self.only or (PLACEMENTS if len(self.variables) > 1 else ("one page", "straddling"))

    def says(self, expression: str, outcome: tuple) -> bool:
        """Tell whether an outcome, the values of the registers in their order, is one of those."""
        return bool(eval(expression, {}, dict(zip(self.registers, outcome, strict=True))))


def _op(text: str) -> Op:
    if read := re.fullmatch(r"(r\d+)=([a-z]+)", text):
        return Op("read", read[2], read[1])
    if write := re.fullmatch(r"([a-z]+)=([1-9])", text):
        return Op("write", write[1], int(write[2]))
    kind, _, what = text.partition(" ")
    if not re.fullmatch(
        r"(acquire|release|set|await|clear|prefetch|pin|pin-r) [a-z]+|barrier|free|allocate|unpin", text
    ):
        raise ValueError(f"no operation: {text!r}")
    return Op(kind, what)


def _thread(line: str) -> Thread:
    node, ops = line.split(":")
    return Thread(int(node), tuple(_op(op.strip()) for op in re.split(";", ops) if op.strip()))


def place(placement: str, index: int, page_bytes: int) -> tuple[int, int]:
    """Return offset and bytes of the variable `index` of a program.

    A variable that straddles has two bytes in two pages, and each page holds bytes of two variables.
    """
    return {
        "neighbours": (page_bytes // 2 + index, 1),
        "one page": (8 * index, 1),
        "two pages": (index % 2 * page_bytes + 8 * index, 1),  # the third lies with the first
        "straddling": ((index + 1) * page_bytes - 1, 2),
    }[placement]


PAGES = 5  # that the variables of any program need


# ---- the shapes of the literature --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Accesses only; `weak` is the outcome that tells a weak memory from a strong one.

    `racy_...`: what is promised without synchronisation, and outcomes that must show then, the weak one among them
    where the protocol can produce it.
    """

    name: str
    text: str
    weak: str
    racy_never: str
    racy_reached: tuple[str, ...]
    racy_why: str
    racy_beyond: str = "False"


NEVER = "False"

SHAPES = (
    Shape(
        "message passing",
        """
        0: x=1 | y=1 |
        1:     |     | r0=y; r1=x
        """,
        weak="r0 == 1 and r1 == 0",
        racy_never=NEVER,
        racy_reached=("r0 == 0 and r1 == 0", "r0 == 0 and r1 == 1", "r0 == 1 and r1 == 1"),
        racy_why="nothing orders the accesses; notices travel with cuts only, so the reader may see none, or all",
    ),
    Shape(
        "store buffering",
        """
        0: x=1 | r0=y
        1: y=1 | r1=x
        """,
        weak="r0 == 0 and r1 == 0",
        racy_never=NEVER,
        racy_reached=("r0 == 0 and r1 == 0", "r0 == 1 and r1 == 0", "r0 == 0 and r1 == 1", "r0 == 1 and r1 == 1"),
        racy_why="nothing orders the accesses, so both may read what was there before",
    ),
    Shape(
        "load buffering",
        """
        0: r0=x | y=1
        1: r1=y | x=1
        """,
        weak="r0 == 1 and r1 == 1",
        racy_never="r0 == 1 and r1 == 1",
        racy_reached=("r0 == 0 and r1 == 0", "r0 == 1 and r1 == 0", "r0 == 0 and r1 == 1"),
        racy_why="each value would have to come from a write that follows its own read: out of thin air",
    ),
    Shape(
        "2+2W",
        """
        0: x=1 | y=2; barrier; r0=x; r1=y
        1: y=1 | x=2; barrier
        """,
        weak="r0 == 1 and r1 == 1",
        racy_never="0 in (r0, r1)",
        racy_reached=("r0 == 2 and r1 == 1",),
        racy_why="which of two unordered writes stays is open, but both happen before the reads: not the initial value",
    ),
    Shape(
        "WRC",
        """
        0: x=1 |           |
        1:     | r0=x; y=1 |
        2:     |           | r1=y; r2=x
        """,
        weak="r0 == 1 and r1 == 1 and r2 == 0",
        racy_never=NEVER,
        racy_reached=("r0 == 0 and r1 == 0 and r2 == 0", "r0 == 1"),
        racy_why="nothing orders the accesses",
    ),
    Shape(
        "ISA2",
        """
        0: x=1; y=1 |           |
        1:          | r0=y; z=1 |
        2:          |           | r1=z; r2=x
        """,
        weak="r0 == 1 and r1 == 1 and r2 == 0",
        racy_never=NEVER,
        racy_reached=("r0 == 0 and r1 == 0 and r2 == 0", "r0 == 1"),
        racy_why="nothing orders the accesses",
    ),
    Shape(
        "IRIW",
        """
        0: x=1 |
        1: y=1 |
        2:     | r0=x; r1=y
        3:     | r2=y; r3=x
        """,
        weak="r0 == 1 and r1 == 0 and r2 == 1 and r3 == 0",
        racy_never=NEVER,
        racy_reached=("r0 == 0 and r1 == 0 and r2 == 0 and r3 == 0",),
        racy_why="nothing orders the accesses, and no two nodes need agree on an order of the writes",
    ),
    Shape(
        "CoRR",
        """
        0: x=1 |      | x=2 |
        1:     | r0=x |     | r1=x
        """,
        weak="(r0, r1) in ((1, 0), (2, 0), (2, 1))",
        racy_never=NEVER,
        racy_reached=("r0 == 0 and r1 == 0", "r0 == 2 and r1 == 2"),
        racy_why="reads that nothing orders may see any of the writes, and nothing that nobody wrote",
        racy_beyond="(r0, r1) in ((1, 0), (2, 0), (2, 1))",  # a copy only ever gains writes
    ),
    Shape(
        "CoWW",
        """
        0: x=1 | x=2; barrier; r0=x
        1:     |    ; barrier; r1=x
        """,
        weak="r0 != 2 or r1 != 2",
        racy_never="r0 != 2 or r1 != 2",
        racy_reached=("r0 == 2 and r1 == 2",),
        racy_why="the second write follows the first in its own thread, and happens before both reads",
    ),
    Shape(
        "CoWR",
        """
        0: x=1; r0=x |    ; barrier; r1=x
        1:           | x=2; barrier; r2=x
        """,
        weak="r0 == 0 or r1 == 0 or r2 == 0",
        racy_never="r0 == 0 or r1 == 0 or r2 == 0",
        racy_reached=("r0 == 1",),
        racy_why="a thread reads its own write or the other one, never what was before; both precede the barrier",
    ),
    Shape(
        "CoRW",
        """
        0:     | r0=x | x=1; barrier; r1=x
        1: x=2 |      |    ; barrier; r2=x
        """,
        weak="r0 == 1 or r0 == 2 and (r1, r2) != (1, 1)",
        racy_never="r0 == 1 or r1 == 0 or r2 == 0",
        racy_reached=("r0 == 0",),
        racy_why="a read does not see the write that follows it in its own thread; both writes happen before the end",
    ),
)


def _rewritten(text: str, bar: str, access: str) -> str:
    """Put `bar` where a bar stands, and `access` around every access: {} is it, {v} its variable."""
    lines = []
    for line in text.strip().splitlines():
        node, ops = line.split(":")
        ops = re.sub(r"r\d+=([a-z]+)|([a-z]+)=\d", lambda found: access.format(found[0], v=found[1] or found[2]), ops)
        lines.append(f"{node.strip()}: {ops.replace('|', bar)}")
    return "\n".join(lines)


def variants(shape: Shape) -> list[Program]:
    """Return the shape racy, under one lock, under a lock for each variable if there are several, with barriers."""
    racy = Program(
        f"{shape.name}, racy",
        _rewritten(shape.text, ";", "{}"),
        shape.racy_why,
        shape.racy_never,
        shape.racy_reached,
        shape.racy_beyond,
        collecting=True,
    )
    one = Program(
        f"{shape.name}, one lock",
        _rewritten(shape.text, ";", "acquire l; {}; release l"),
        "critical sections of one lock happen one after the other, in an order that all threads see alike",
        shape.weak,
    )
    each = replace(
        one,
        name=f"{shape.name}, a lock for each variable",
        text=_rewritten(shape.text, ";", "acquire l{v}; {}; release l{v}"),
        why="free of races, so every outcome is one of some order of all accesses that keeps the order in the threads",
    )
    barriers = Program(
        f"{shape.name}, barriers",
        _rewritten(shape.text, "; barrier;", "{}"),
        "what is before a barrier happens before all that is after it, on every node",
        shape.weak,
    )
    return [racy, one, *([each] if len(racy.variables) > 1 else []), barriers]


# ---- those of a distributed shared memory -------------------------------------------------------------------------

OWN = (
    Program(
        "two threads of one node",
        """
        0: x=1; acquire l; y=1; release l; barrier; r0=x
        0: acquire l; r1=y; release l; r2=x
        """,
        "the lock orders threads of one node as any others",
        never="r0 != 1 or r1 == 1 and r2 != 1",
        reached=("r1 == 0", "r1 == 1"),
    ),
    Program(
        "data beside the lock",
        """
        0: x=1; acquire l; y=1; release l
        1: prefetch x; acquire l; r0=y; release l; r1=x
        """,
        "who sees y under the lock has acquired it after its writer, and x was written before that",
        never="r0 == 1 and r1 == 0",
        reached=("r0 == 0 and r1 == 0", "r0 == 1 and r1 == 1"),
    ),
    Program(
        "data beside a chain of locks",
        """
        0: x=1; acquire a; y=1; release a
        1: acquire a; r0=y; release a; acquire b; z=1; release b
        2: prefetch x; acquire b; r1=z; release b; r2=x
        """,
        "happens-before is transitive over locks: the grant of b must tell of what came with the grant of a",
        never="r0 == 1 and r1 == 1 and r2 == 0",
        reached=("r0 == 1 and r1 == 1 and r2 == 1", "r0 == 0 and r1 == 1 and r2 == 0"),
    ),
    Program(
        "a chain of four nodes and three locks",
        """
        0: acquire a; x=1; release a
        1: acquire a; r0=x; release a; acquire b; y=1; release b
        2: acquire b; r1=y; release b; acquire c; z=1; release c
        3: prefetch x; acquire c; r2=z; release c; r3=x
        """,
        "the same over one more node, which itself never looked at x",
        never="r0 == 1 and r1 == 1 and r2 == 1 and r3 == 0",
        reached=("r2 == 1",),
    ),
    Program(
        "diff of an open interval, racy",
        """
        0: z=1; barrier; y=1; x=1
        1: barrier; r0=x; r1=y
        """,
        "x lies in the page that z made stale, so its diff may bring x before y is told of: weak message passing",
        reached=("r0 == 1 and r1 == 0", "r0 == 0 and r1 == 0"),
        only=("two pages",),
    ),
    Program(
        "diff of an open interval, old value on top",
        """
        0: barrier; acquire a; x=1; release a
        1: y=1; barrier; acquire a; r0=x; x=2; z=1; release a
        2: barrier; r1=y; acquire a; r2=x; r3=z; release a
        """,
        "who sees z sees the second write of x, if that followed the first; it may have come early, with y (R3)",
        never="r1 != 1 or r0 == 1 and r3 == 1 and r2 != 2",
        reached=("r0 == 1 and r3 == 1", "r0 == 0 and r2 == 1"),
        only=("neighbours", "one page", "straddling"),
    ),
    Program(
        "1 -> 2 -> 1",
        """
        0: x=1; barrier; x=2; acquire l; y=1; release l; x=1; barrier; r0=x
        1: barrier; acquire l; r1=y; release l; r2=x; barrier; r3=x
        """,
        "a write that restores what a peer has not copied is a write: the peer's copy of 2 is older than the last one",
        never="r0 != 1 or r3 != 1 or r2 == 0",
        reached=("r1 == 1 and r2 == 2", "r1 == 0"),
    ),
    Program(
        "two writers of one page",
        """
        0: x=1; barrier; r0=x; r1=y; barrier; x=3; barrier; r2=y
        1: y=2; barrier; r3=x; r4=y; barrier; y=4; barrier; r5=x
        """,
        "both write what only they write, and both writes happen before the reads, byte for byte",
        never="(r0, r1, r2, r3, r4, r5) != (1, 2, 4, 1, 2, 3)",
        only=("neighbours", "one page", "straddling"),
    ),
    Program(
        "three writers of neighbouring bytes under locks of their own",
        """
        0: acquire a; x=1; release a; acquire b; r0=y; release b
        1: acquire b; y=2; release b; acquire c; r1=z; release c
        2: acquire c; z=3; release c; acquire a; r2=x; release a
        """,
        "each critical section sees the one before it of its lock, whatever else happens to its page",
        never="(r0, r1, r2) == (0, 0, 0)",
        reached=("(r0, r1, r2) == (2, 3, 1)",),
        only=("neighbours", "straddling"),
    ),
    Program(
        "prefetched and never used",
        """
        0: x=1; barrier; x=2; barrier; x=3; barrier; r0=x
        1: prefetch x; barrier; prefetch x; barrier; barrier; r1=x
        """,
        "a copy that nobody looked at becomes stale as any other",
        never="r0 != 3 or r1 != 3",
    ),
    Program(
        "prefetched before the lock",
        """
        0: acquire l; x=1; release l; acquire l; x=2; y=1; release l
        1: prefetch x; acquire l; r0=x; release l; prefetch y; acquire l; r1=y; r2=x; release l
        """,
        "the second write of x comes with that of y",
        never="r1 == 1 and r2 != 2 or r0 == 2 and r2 != 2",
        reached=("r0 == 0 and r1 == 1", "r0 == 1 and r1 == 1", "r0 == 1 and r1 == 0"),
    ),
    Program(
        "collection while a request is under way",
        """
        0: x=1; barrier; y=1; barrier; r0=x
        1: barrier; r1=x; x=2; barrier; r2=y; r3=x
        """,
        "a collection changes who has what, and nothing that is read; x has another writer in each phase",
        never="r1 != 1 or r2 != 1 or r3 != 2 or r0 != 2",
        collecting=True,
    ),
    Program(
        "collection while a lock is passed",
        """
        0: acquire l; x=1; release l
        1: acquire l; r0=x; x=2; release l; acquire l; r1=x; release l
        """,
        "the chain of a lock goes on through a collection, and so does what it tells of",
        never="r1 == 0 or r0 == 1 and r1 != 2",
        reached=("r0 == 0", "r0 == 1"),
        collecting=True,
    ),
    Program(
        "collection, and a lock chain over three nodes",
        """
        0: acquire l; x=1; release l
        1: acquire l; r0=x; y=1; release l
        2: acquire l; r1=y; r2=x; release l
        """,
        "the third node sees what the second one saw",
        never="r0 == 1 and r1 == 1 and r2 == 0",
        collecting=True,
    ),
    Program(
        "a grant from a node that is one cut ahead",
        """
        0: x=1; barrier; acquire l; y=1; release l
        1: barrier; r0=x
        1: acquire l; r1=y; r2=x; release l
        """,
        "who sees y has acquired the lock from a node that passed the barrier, to which x came before",
        never="r0 != 1 or r1 == 1 and r2 != 1",
        reached=("r1 == 1", "r1 == 0"),
    ),
    Program(
        "a grant from beyond the cut, of a third node's write",
        """
        0: x=1; barrier
        1: barrier; r0=x
        1: acquire l; r1=y; r2=x; release l
        2: acquire l; barrier; y=1; release l
        """,
        "the granting node's log no longer names x, which the departure tells; so the grant waits for it (R7)",
        never="r0 != 1 or r1 == 1 and r2 != 1",
        reached=("r1 == 1", "r1 == 0"),
    ),
    Program(
        "a write beside a barrier, told by who saw it",
        """
        0: barrier
        0: acquire l; x=1; release l
        1: acquire l; r0=x; release l; barrier
        2: prefetch x; barrier; r1=x
        """,
        "a thread may write when its node has arrived; who sees that and then arrives publishes it (R7)",
        never="r0 == 1 and r1 == 0",
        reached=("r0 == 1 and r1 == 1", "r0 == 0"),
    ),
    Program(
        "free and reuse of an address",
        """
        0: x=1; barrier; free; allocate; r0=y; x=2; barrier
        1: barrier; prefetch x; y=1; free; allocate; r1=y; r2=x; barrier; r3=x; r4=y
        """,
        "a new array begins as its initial value, whatever was at its addresses, and is written as any other",
        never="r0 != 0 or r1 != 0 or r2 not in (0, 2, (2, 0), (0, 2)) or r3 != 2 or r4 != 0",
        reached=("r2 == 0",),
    ),
    Program(
        "upgrade from read to write while the page is served",
        """
        0: x=1; barrier; r0=x; y=2; barrier; r1=x; r2=y
        1: barrier; r3=x; z=3; barrier; r4=y; r5=z; r6=x
        """,
        "serving a page takes nothing from its writers, and opening it takes nothing from its readers",
        never="(r0, r1, r2, r3, r4, r5, r6) != (1, 1, 2, 1, 2, 3, 1)",
    ),
    Program(
        "lock passed on while its holder waits for a page",
        """
        0: x=1; barrier; acquire l; y=1; release l
        1: barrier; acquire l; r0=x; r1=y; y=2; release l
        2: barrier; acquire l; r2=y; r3=x; release l
        """,
        "a request that finds the holder in a fault waits for the release, and sees what was written until then",
        never="r0 != 1 or r3 != 1",
        reached=("r2 == 0", "r2 == 1", "r2 == 2"),
    ),
    Program(
        "lock passed on while a thread beside waits for a page",
        """
        0: x=1; barrier; acquire l; y=1; release l
        1: barrier; r0=x; z=1
        1: acquire l; r1=y; y=2; release l
        2: barrier; acquire l; r2=y; r3=x; release l
        """,
        "the token goes on, and the page comes in, each in its own time",
        never="r0 != 1 or r3 != 1",
        reached=("r2 == 2",),
        only=("one page", "two pages"),
    ),
    Program(
        "a pinned page is served",
        """
        0: pin x; x=1; barrier; x=2; acquire l; y=1; release l; x=3; barrier; unpin; r0=x
        1: barrier; acquire l; r1=y; release l; r2=x; barrier; r3=x
        """,
        "a page that stays open is served from a snapshot, and what is written after it is noticed all the same",
        never="r0 != 3 or r3 != 3 or r1 == 1 and r2 == 1 or r2 == 0",
    ),
    Program(
        "a page pinned for reading",
        """
        0: x=1; acquire l; y=1; release l; barrier; x=2; barrier
        1: pin-r x; acquire l; r0=y; r1=x; release l; barrier; barrier; r2=x; unpin
        """,
        "an acquire brings pinned pages up to date before it returns, and so does a barrier",
        never="r0 == 1 and r1 == 0 or r2 != 2",
        reached=("r0 == 0", "r0 == 1 and r1 == 1"),
    ),
    Program(
        "an event passes a message",
        """
        0: x=1; set e
        1: await e; r0=x
        """,
        "the set happens after the write and before what follows the wait",
        never="r0 != 1",
        collecting=True,
    ),
    Program(
        "events pass on what others wrote",
        """
        0: x=1; set e
        1: await e; y=1; set f
        2: await f; r0=x; r1=y
        """,
        "happens-before is transitive: the second setter knows what the first one wrote",
        never="r0 != 1 or r1 != 1",
    ),
    Program(
        "an event that is cleared and set again",
        """
        0: x=1; set e; await f; x=2; set e
        1: await e; r0=x; clear e; set f; await e; r1=x
        """,
        "after the clear only the second set ends a wait",
        never="r0 != 1 or r1 != 2",
        collecting=True,
    ),
    Program(
        "an event that a third node clears",
        """
        0: x=1; set e; await g; x=2; set e
        1: await e; r0=x; await f; await e; r1=x
        2: await e; clear e; set f; set g
        """,
        "the wait behind the clear, which came along with the other event, knows that the first set does not count",
        never="r0 == 0 or r1 != 2",
    ),
    Program(
        "an event of two setters",
        """
        0: x=1; set e
        1: y=1; set e
        2: await e; r0=x; r1=y
        """,
        "the wait follows at least one of the sets",
        never="r0 == 0 and r1 == 0",
        reached=("r0 == 1",),
    ),
    Program(
        "what a lock tells of an event",
        """
        0: x=1; set e; acquire l; y=1; release l; clear e; x=2; set f
        1: acquire l; r0=y; release l; await f; r1=x
        """,
        "sets and clears travel with the notices of a lock, and their order is that of the setter",
        never="r1 != 2",
        reached=("r0 == 0", "r0 == 1"),
    ),
)

PROGRAMS = (*(program for shape in SHAPES for program in variants(shape)), *OWN)
