"""How the protocol's cost grows with the number of nodes: counts by the real code, compared with those made by hand."""

import math
import re

import pytest
from native import scale, simulator

NODES = scale.sizes(64)

# Bytes on the wire, field by field (message.h, meeting.c, lock.c, fetch.c, interval.h).
HEADER = 4 + 1 + 1 + 2 + 4 + 4 + 8 + 8
VARIANT = 3 * 4 + 4 * 8 + 3 * 4
ARRIVE = HEADER + 4 + 4 + VARIANT + 4 + 4 + 4 + 4
DEPART = HEADER + 4 + 8 + 4 + 8 + 4 + VARIANT + 4 + 4
REQUEST = HEADER + 4 * 4 + 4
GRANT = HEADER + 4 + 8 + 4
INTERVAL, RUN, ENTRY = 16, 16, 12
FETCH = HEADER + 8 + 4 + 4 + 8 + 8
REPLY = HEADER + 4 + 4 + 4 * 8 + 4


def counts(name, nodes, k, *what):
    measured = scale.measure(name, nodes, k)
    return tuple(measured[key] for key in what)


# --- counted by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", NODES)
def test_a_clean_barrier_sends_one_arrival_and_one_departure_to_each_node_but_the_root(nodes):
    assert counts("barrier", nodes, 0, "messages", "bytes") == (2 * (nodes - 1), (nodes - 1) * (ARRIVE + DEPART))


def test_a_barrier_of_five_nodes_with_one_dirty_page_each():
    # Four children bring one interval each; the departure lists all five.
    total = 4 * (ARRIVE + INTERVAL + RUN) + 4 * (DEPART + 5 * (INTERVAL + RUN))
    assert counts("barrier", 5, 1, "messages", "bytes", "rank_bytes", "rounds") == (8, total, total, 2)


def test_neighbouring_pages_are_one_run_and_scattered_pages_are_not():
    assert counts("barrier", 5, 16, "bytes") == counts("barrier", 5, 1, "bytes")
    runs_more = 15 * (4 + 4 * 5)
    assert counts("barrier_apart", 5, 16, "bytes")[0] == counts("barrier", 5, 1, "bytes")[0] + runs_more * RUN


@pytest.mark.parametrize("nodes", NODES[1:])
def test_a_lock_goes_over_in_three_messages_however_many_nodes_there_are(nodes):
    assert counts("lock", nodes, 0, "messages", "bytes", "rounds") == (3, 2 * REQUEST + GRANT, 3)
    assert counts("lock", nodes, 16, "messages", "bytes", "rounds") == (3, 2 * REQUEST + GRANT + INTERVAL + RUN, 3)


@pytest.mark.parametrize("nodes", NODES)
def test_a_page_of_one_writer_comes_in_two_messages_however_many_nodes_there_are(nodes):
    vector = 4 + ENTRY
    total = FETCH + vector + REPLY + ENTRY + 4096
    assert counts("fault", nodes, 1, "messages", "bytes", "rounds") == (2, total, 2)


def test_the_time_of_a_barrier_of_two():
    network = scale.FABRIC
    flight = 2 * network.o + network.L
    expected_ps = 2 * flight + (ARRIVE - 1 + DEPART - 1) * network.G
    measured = scale.measure("barrier", 2, 0, network)
    assert measured["time_us"] == pytest.approx(expected_ps / 1e6, abs=1e-3)
    assert measured["mpi_us"] == pytest.approx(flight / 1e6, abs=1e-3)


def test_the_time_of_a_fault():
    network = scale.ETHERNET
    size = counts("fault", 2, 1, "bytes")[0]
    expected_ps = network.trap + 2 * (2 * network.o + network.L) + (size - 2) * network.G
    assert counts("fault", 2, 1, "time_us")[0] == pytest.approx(expected_ps / 1e6, abs=1e-3)


# --- growth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("k", [0, 1, 16])
def test_rounds_of_a_barrier_grow_as_the_logarithm(nodes, k):
    assert counts("barrier", nodes, k, "rounds")[0] <= math.log2(nodes) + 2


@pytest.mark.parametrize(
    ("name", "k"),
    [("barrier", 0), ("barrier", 1), ("barrier", 16), ("barrier_apart", 16), ("lock_barrier", 0), ("lock_all", 0),
     ("broadcast", 1), ("broadcast", 64), ("jacobi", 0)],
)  # fmt: skip
def test_bytes_of_the_busiest_node_grow_at_most_as_the_number_of_nodes(name, k):
    """A node of the tree has fewer than four children, and a broadcast one reader less, when nodes are few."""
    per_node = [counts(name, nodes, k, "rank_bytes")[0] / nodes for nodes in NODES if nodes >= 8]
    assert max(per_node) <= 1.4 * per_node[0]  # as N squared it would be 8


@pytest.mark.parametrize("nodes", [8, 16, 64, 1024])
@pytest.mark.parametrize("pages", [1, 64])
def test_readers_of_a_version_serve_each_other(nodes, pages):
    """The busiest node sends at most 4 log2 N times the data: all N - 1 times, if it were the only server."""
    sent = counts("broadcast", nodes, pages, "rank_bytes_sent")[0] / (4096 * pages)
    assert sent <= min(4 * math.log2(nodes), nodes + 1)


def test_two_nodes_pay_nothing_for_crowds():
    assert counts("broadcast", 2, 1, "messages", "bytes") == (2, FETCH + 4 + REPLY + ENTRY + 4096)


def test_bytes_of_a_fault_grow_at_most_as_the_number_of_writers():
    """Each writer's reply names what the reader was not told, not all that its copy contains."""
    per_writer = [counts("fault", 64, k, "bytes")[0] / k for k in (8, 16, 32, 63)]
    assert max(per_writer) <= 1.1 * per_writer[0]


def go_on(run, held=()):
    """Take every step that can be taken, but for messages on the channels that are held."""
    while steps := [choice for choice in run.choices() if choice not in held]:
        run.choose(steps[0])


def test_a_reader_that_has_not_passed_the_cut_is_told_what_is_below_it_too():
    """Else it would apply the writer's diff without the first one's, and the first one's on top of it later."""
    program = simulator.Program(4)
    slot, elsewhere = program.slot(64), program.slot(64)
    x, y, z = program.cell(slot, 0), program.cell(slot, 8), program.cell(elsewhere, 0)
    program.locks(3)
    root, first, writer, reader, other = (program.thread(node) for node in (0, 1, 2, 3, 3))
    run = simulator.Open(program, whole=1)  # never a whole page

    def section(thread, lock, *what):
        for op in (("acquire", lock), what, ("release", lock)):
            run.op(thread, *op)
        go_on(run)

    section(first, 0, "write", x, 1)
    section(writer, 2, "write", y, 1)  # lock 2 begins at its manager, node 2
    run.op(reader, "barrier")
    section(other, 2, "peek", z)  # its node knows of the writer's interval, not of the first one's
    section(writer, 0, "peek", x)
    run.op(first, "write", z, 1)  # closes an interval after the writer was served
    for thread in (root, first, writer):
        run.op(thread, "barrier")
    departure = 0 * 16 + 3  # from the root to the reader (sim.h)
    go_on(run, {departure})
    assert not run.idle(reader)
    run.op(writer, "write", x, 2)
    run.op(other, "peek", y)
    go_on(run, {departure})
    assert run.idle(writer)
    assert run.idle(other)
    go_on(run)
    for thread in (root, first, writer, reader):
        run.op(thread, "barrier")
    go_on(run)
    run.op(reader, "peek", x)
    go_on(run)
    assert run.seen(reader) == 2
    run.close()


def test_memory_of_a_node_is_bounded_by_what_was_written():
    for nodes in (16, 64):
        clean, dirty = (counts("barrier", nodes, k, "pool_bytes")[0] for k in (0, 16))
        assert dirty - clean <= 16 * nodes * 300


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_every_operation_and_no_gap():
    scale.check_growth(NODES[:4])
    page = scale.text(NODES[:4])
    assert all(page.count(f"| {operation.title} |") >= 2 for operation in scale.OPERATIONS if operation.k < 16)
    assert not re.search(r"[{}]|\bnan\b|\binf\b", page)


def test_counts_are_written_with_three_digits():
    values = {0: "0", 96: "96", 999: "999", 4256: "4.26 k", 25684: "25.7 k", 233244: "233 k", 33904252: "33.9 M"}
    assert {value: scale.human(value) for value in values} == values
    assert (scale.in_bytes(176), scale.in_bytes(186772)) == ("176 bytes", "187 kB")


def test_growth_that_is_too_fast_is_refused(monkeypatch):
    def measure(name, nodes, k, network=scale.ETHERNET):
        return {"rounds": 2 * scale.levels(nodes), "rank_bytes": nodes * nodes}

    monkeypatch.setattr(scale, "measure", measure)
    with pytest.raises(SystemExit, match="grow at most with N"):
        scale.check_growth([8, 16])
