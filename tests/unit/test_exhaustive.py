"""Every schedule of small programs: which message is delivered next, which thread runs next, in all ways.

The number of schedules is asserted, so that a scope that shrinks is noticed: a message more or less, a step that has
become one with another, a state that is not reached any more.  Whoever changes the protocol's messages changes the
numbers.  One schedule stands for all that differ only in the order of steps of different nodes (sim_explore.c says why
that is enough).
"""

import pytest
from native import simulator


def one_lock(nodes, times, spaces=None):
    """Each rank takes the lock, reads, writes and releases; one rank per node if `spaces` does not say more."""
    program = simulator.Program(nodes, spaces)
    cell, lock = program.cell(program.slot(64), 0), program.locks()
    for rank in range(nodes if spaces is None else sum(spaces)):
        thread = program.thread(rank)
        for turn in range(times):
            value = 1 + rank + 16 * turn
            program.ops(thread, ("acquire", lock), ("read", cell), ("write", cell, value), ("release", lock))
    return program


def one_barrier(nodes, *, reading):
    """Each node makes a page of its own dirty; after the barrier each may read its neighbour's."""
    program = simulator.Program(nodes)
    slot = program.slot(64 * nodes)
    cells = [program.cell(slot, 64 * node) for node in range(nodes)]
    for node in range(nodes):
        thread = program.thread(node)
        program.ops(thread, ("write", cells[node], 1 + node), ("barrier",))
        if node in reading:
            program.op(thread, "read", cells[(node + 1) % nodes])
    return program


def two_writers(*, by_lock, straddling=False):
    """Two nodes write neighbouring bytes of one page, or on both sides of its border; a third one reads both."""
    program = simulator.Program(3)
    slot, lock = program.slot(128), program.locks()
    at = 63 if straddling else 0
    cells, both = [program.cell(slot, at), program.cell(slot, at + 1)], program.cell(slot, at, 2)
    uses = [("write", cells[0], 1), ("write", cells[1], 2), ("read", both)]
    for node, use in enumerate(uses):
        thread = program.thread(node)
        if by_lock:
            program.ops(thread, ("acquire", lock), use, ("release", lock))
        else:
            program.ops(thread, *[use, ("barrier",)][:: -1 if node == 2 else 1])
    return program


def a_shared_host(*, spaces, readers):
    """Each rank writes a byte of its own in one page; after the barrier some ranks read all of them."""
    program = simulator.Program(len(spaces), spaces)
    ranks, slot = sum(spaces), program.slot(64)
    cells, all_of_them = [program.cell(slot, at) for at in range(ranks)], program.cell(slot, 0, ranks)
    for rank in range(ranks):
        program.ops(program.thread(rank), ("write", cells[rank], 1 + rank), ("barrier",))
        if rank in readers:
            program.op(rank, "read", all_of_them)
    return program


def a_write_beside(*, last):
    """Two spaces of a node and another node pass a lock on; a space writes a byte of the page beside, and may lag."""
    program = simulator.Program(2, [2, 1 + last])
    slot, lock = program.slot(64), program.locks()
    guarded, beside = program.cell(slot, 0), program.cell(slot, 1)
    section = [("acquire", lock), ("read", guarded), ("release", lock)]
    program.ops(program.thread(0), *section[:2], ("write", guarded, 1), section[2])
    program.ops(program.thread(1), ("write", beside, 2), *section)
    program.ops(program.thread(2), *section[:2], ("write", guarded, 3), section[2])
    if last:
        program.ops(program.thread(3), *section)
    return program


def a_collection(*, by_lock):
    """Two nodes write one page, in turns or bytes of their own, and one of them asks for a collection."""
    if by_lock:
        program = one_lock(2, 1)
        program.op(1, "request")
        return program
    program = simulator.Program(2)
    slot = program.slot(64)
    both, cells = program.cell(slot, 0, 2), [program.cell(slot, 0), program.cell(slot, 1)]
    for node in range(2):
        program.ops(program.thread(node), ("write", cells[node], 1 + node), ("barrier",))
    program.ops(1, ("request",), ("read", both))  # it may be fetched while the collection begins
    return program


ALL_THREE = 1 | 2 << 8 | 3 << 16
IN_TURNS = {(0, 1, 2), (0, 3, 1), (2, 0, 1), (2, 3, 0), (3, 0, 2), (3, 1, 0)}

# What is run, how many schedules it has, how many decisions the longest of them has, and what the threads read.
BOTH = 1 | 2 << 8
SCOPES = {
    "a lock, 2 nodes": (lambda: one_lock(2, 1), 15, 23, {(0, 1), (2, 0)}),
    "a lock twice, 2 nodes": (
        lambda: one_lock(2, 2),
        1585,
        49,
        # 1 and 17 are what node 0 writes, 2 and 18 what node 1 does.
        {(0, 1, 17, 2), (0, 2, 1, 17), (0, 18, 1, 2), (2, 1, 0, 17), (2, 18, 0, 1), (18, 1, 0, 2)},
    ),
    "a lock, 3 nodes": (
        lambda: one_lock(3, 1),
        534,
        37,
        IN_TURNS,
    ),
    "a lock, 2 spaces of one node": (lambda: one_lock(1, 1, [2]), 10, 11, {(0, 1), (2, 0)}),
    "a lock, 2 spaces and a node": (lambda: one_lock(2, 1, [2, 1]), 2612, 34, IN_TURNS),
    "a lock, a node and 2 spaces": (lambda: one_lock(2, 1, [1, 2]), 6434, 39, IN_TURNS),
    "a barrier, 3 nodes": (lambda: one_barrier(3, reading=()), 20, 19, {()}),
    "a barrier, 3 nodes, 1 reads": (lambda: one_barrier(3, reading=(0,)), 60, 24, {(2,)}),
    "a barrier, 3 nodes, 2 read": (lambda: one_barrier(3, reading=(0, 1)), 560, 29, {(2, 3)}),
    "2 writers and a barrier": (lambda: two_writers(by_lock=False), 192, 24, {(BOTH,)}),
    "2 writers and a lock": (lambda: two_writers(by_lock=True), 292, 31, {(0,), (1,), (2 << 8,), (BOTH,)}),
    "2 spaces, a node and a barrier": (lambda: a_shared_host(spaces=[2, 1], readers=(2,)), 2040, 22, {(ALL_THREE,)}),
    "2 spaces, a node and a barrier, at home": (
        lambda: a_shared_host(spaces=[2, 1], readers=(0,)),
        6720,
        22,
        {(ALL_THREE,)},
    ),
    "a write beside a lock, 2 spaces and a node": (
        lambda: a_write_beside(last=False),
        26424,
        37,
        {(0, 0, 1), (0, 1, 1), (0, 3, 1), (3, 0, 0), (3, 1, 0), (3, 3, 0)},
    ),
    "2 pages and a barrier": (lambda: two_writers(by_lock=False, straddling=True), 192, 26, {(BOTH,)}),
    "2 pages and a lock": (
        lambda: two_writers(by_lock=True, straddling=True),
        295,
        31,
        {(0,), (1,), (2 << 8,), (BOTH,)},
    ),
    "a collection and a lock": (lambda: a_collection(by_lock=True), 3761, 38, {(0, 1), (2, 0)}),
    "a collection and a barrier": (lambda: a_collection(by_lock=False), 3608, 32, {(BOTH,)}),
}


def values(exploration):
    """The values that were seen, thread by thread."""
    return {tuple(value for _, _, value in outcome) for outcome in exploration.outcomes}


@pytest.mark.parametrize("name", SCOPES)
def test_all_schedules(name):
    make, schedules, decisions, seen = SCOPES[name]
    found = make().explore(limit=100_000)
    assert not found.limited
    assert values(found) == seen
    assert (found.schedules, found.decisions_max) == (schedules, decisions)
    assert found.classes == schedules  # no two of them are the same but for the order of independent steps
    assert sum(found.outcomes.values()) == schedules


@pytest.mark.parametrize(
    "make",
    [lambda: one_lock(2, 1), lambda: one_barrier(2, reading=(0,)), lambda: racing(2)],
    ids=["lock", "barrier", "race"],
)
def test_the_reduction_leaves_nothing_out(make):
    """Without it there are more schedules of the same classes, and no other outcome."""
    reduced, full = make().explore(), make().explore(reduce=False)
    assert full.schedules > 2 * reduced.schedules
    assert full.classes == reduced.schedules
    assert set(full.outcomes) == set(reduced.outcomes)


@pytest.mark.parametrize("name", [name for name in SCOPES if "spaces" in name])
def test_any_space_of_a_node_can_handle_its_messages(name):
    make, _, _, seen = SCOPES[name]
    found = make().explore(limit=100_000, any_space=1)
    assert not found.limited
    assert values(found) == seen


@pytest.mark.parametrize("any_space", [0, 1])
def test_two_nodes_of_two_spaces(any_space):
    """As far as a bounded depth goes: a lock is handed over within each of the nodes and between them."""
    found = a_write_beside(last=True).explore(depth=9, any_space=any_space)
    assert found.schedules > 2000
    assert {outcome[:3] for outcome in values(found)} <= SCOPES["a write beside a lock, 2 spaces and a node"][3]
    assert {outcome[3] for outcome in values(found)} == {0, 1, 3}


def handed_on(*, by_lock):
    """Node 1 writes a page after node 0, and so becomes its owner; 0 and 2, which have a copy, read it again."""
    program = simulator.Program(3)
    slot, lock = program.slot(64), program.locks()
    first, second, both = program.cell(slot, 0), program.cell(slot, 1), program.cell(slot, 0, 2)
    order = [("acquire", lock), ("release", lock)] if by_lock else [("barrier",), ("barrier",)]
    read = [("read", both), *order[1:]] if by_lock else [("read", both)]
    program.ops(program.thread(0), ("write", first, 1), ("barrier",), order[0], *read)
    program.ops(program.thread(1), ("barrier",), *order[: int(by_lock)], ("write", second, 2), order[1])
    program.ops(program.thread(2), ("barrier",), *[("read", first)] * (not by_lock), order[0], *read)
    return program


@pytest.mark.parametrize("by_lock", [False, True])
def test_copies_that_are_given_up_at_once_come_again(by_lock):
    """As far as a bounded depth goes: each node gives up all that it may, after each step."""
    found = handed_on(by_lock=by_lock).explore(depth=12, evict=1000, cache_bytes=1 << 20)
    assert found.schedules > 100
    assert {outcome[-1] for outcome in values(found)} == ({1, BOTH} if by_lock else {BOTH})


def racing(nodes):
    """After a barrier that makes its page stale for all but one, each node writes a byte and reads its neighbour's."""
    program = simulator.Program(nodes)
    slot = program.slot(64)
    cells = [program.cell(slot, node) for node in range(nodes)]
    for node in range(nodes):
        thread = program.thread(node)
        first = [("write", cells[0], 9)] if node == 0 else []
        program.ops(thread, *first, ("barrier",), ("write", cells[node], 1 + node), ("peek", cells[(node + 1) % nodes]))
    return program


def test_a_bound_on_the_depth_bounds_the_search():
    all_of_them = racing(2).explore()
    bounded = [racing(2).explore(depth=depth) for depth in (1, 8, all_of_them.decisions_max)]
    assert bounded[0].schedules < bounded[1].schedules < all_of_them.schedules == bounded[2].schedules
    assert set(bounded[1].outcomes) <= set(all_of_them.outcomes) == set(bounded[2].outcomes)
    limited = racing(2).explore(limit=3)
    assert limited.limited
    assert limited.schedules == 3


def test_a_failure_is_replayed_by_its_decisions():
    """A race that is declared to be none fails in some schedule, and that schedule can be run again."""
    program = simulator.Program(2)
    cell = program.cell(program.slot(64), 0)
    program.ops(program.thread(0), ("barrier",), ("write", cell, 1))
    program.ops(program.thread(1), ("barrier",), ("read", cell))
    with pytest.raises(simulator.Failed, match="read 0 at offset 0") as found:
        program.explore()
    with pytest.raises(simulator.Failed) as again:
        program.replay(found.value.decisions)
    assert str(found.value).startswith(str(again.value))
    with pytest.raises(simulator.Failed, match="cannot run"):
        program.replay([257, 257, 257, 257])  # it waits in the barrier
