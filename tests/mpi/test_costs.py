"""What must cost nothing: the promises that are statistics rather than values."""

import time

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096


def test_data_that_only_its_writer_touches(shared, counted, undisturbed, exact_counts):
    """After the first interval no fault, no fetch, and no message but those of an empty barrier."""
    a = shared.zeros((dsm.size(), 20 * PAGE // 8), page_size=PAGE, name="own data")
    mine = a[dsm.rank()]
    for turn in range(3):
        mine[:] = turn
        dsm.barrier()
    with counted() as empty:
        for _ in range(50):
            dsm.barrier()
    before = dsm.stats().arrays["own data"]
    with counted() as growth:
        for turn in range(50):
            mine[:] = turn
            dsm.barrier()
    after = dsm.stats().arrays["own data"]
    assert growth["barriers"] == empty["barriers"] == 50
    if undisturbed:
        assert growth["faults_read"] == growth["faults_write"] == growth["fetches"] == 0
        assert all(after[name] == before[name] for name in ("twins_made", "diffs_made", "faults_local"))
        # Pages of other arrays that were left open are closed some barriers after their last use.
        assert growth["protects"] < 10
    if exact_counts:  # of several ranks of a node, the one that arrives last sends the arrival
        assert growth["messages_sent"] == empty["messages_sent"]
        assert growth["messages_received"] == empty["messages_received"]
        assert growth["bytes_sent"] <= empty["bytes_sent"]
    assert (mine == 49).all()
    dsm.barrier()
    assert (a == 49).all()


def test_zeros_that_are_written_over_zeros_again_and_again(shared, counted, exact_counts):
    """A page that was opened along a stream and does not change is not opened and closed for ever."""
    a = shared.zeros((dsm.size(), 500 * PAGE // 8), page_size=PAGE)
    mine = a[dsm.rank()]
    for _ in range(4):
        mine[:] = 0
        dsm.barrier()
    with counted() as growth:
        for _ in range(20):
            mine[:] = 0
            dsm.barrier()
    if exact_counts:
        assert growth["faults_write"] == growth["fetches"] == growth["pages_preopened"] == 0
    dsm.barrier()
    assert not a.any()


def test_a_row_that_was_written_in_one_piece_is_read_with_one_fault(shared, counted, exact_counts):
    """And nothing beside it is brought."""
    rows = (0, 14, 4, 22, 6, 18, 10, 30)  # no stream
    a = shared.zeros((32, 3 * PAGE // 8), page_size=PAGE)
    if dsm.rank() == 0:
        a[::2] = 1
    dsm.barrier()
    with counted() as growth:
        for row in rows:
            assert (a[row] == 1).all()
    if exact_counts:
        readers = dsm.rank() > 0
        assert growth["faults_read"] == readers * len(rows)
        assert growth["fetches"] == readers * 3 * len(rows)
        assert growth["pages_readahead"] == readers * 2 * len(rows)
    dsm.barrier()


def test_blocks_that_are_read_in_order_come_in_few_pieces(shared, counted, exact_counts):
    """The next block is read as the last one was, and what another rank wrote behind it is left alone."""
    blocks, pages = 12, 40
    a = shared.zeros((blocks, 2, pages * PAGE // 8), page_size=PAGE)
    for block in range(blocks):
        if block == blocks // 2:
            before = dsm.stats()
        if dsm.rank() == 0:
            a[block:, 0] = block + 1
        if dsm.rank() == dsm.size() - 1:
            a[block:, 1] = block + 1
        dsm.barrier()
        assert (a[block, 0] == block + 1).all()
        dsm.barrier()
    if exact_counts and dsm.rank():
        growth = {name: value - before[name] for name, value in dsm.stats().items()}
        assert growth["faults_read"] <= 3 * (blocks // 2)  # 6 or 7 a block when each begins anew
        assert growth["fetches"] <= 1.1 * pages * (blocks // 2)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(("read", "pages", "sent"), [((0, 1, 2, 3), 4, 32), ((0, 2), 4, 60), ((0, 7), 8, 60)])
def test_panels_of_columns_are_read_with_what_is_between_them(shared, counted, exact_counts, read, pages, sent):
    """A product of matrices reads so: 64 rows of a panel, of the next one, and then further rows."""
    rows, panel = 256, PAGE // 8
    a = shared.zeros((rows, pages * panel), page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 1
    dsm.barrier()
    with counted() as growth:
        if dsm.rank() == 1:
            for block in range(0, rows, 64):
                for column in read:
                    assert a[block : block + 64, column * panel].all()
    if exact_counts and dsm.rank() == 1:
        used = rows * len(read)
        assert growth["fetches"] <= (used if len(read) == pages else 1.1 * used)
        assert growth["messages_sent"] <= sent
        if len(read) == pages:
            assert growth["protects"] <= 0.8 * used  # the third panel brings the fourth
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(("used", "brought"), [(32, 32), (2, 2), (4, 4), (6, 8)])
def test_columns_side_by_side_are_read_ever_more_at_a_time(shared, counted, exact_counts, used, brought):
    """A transform along the first axis reads so.  What is brought in vain is less than half of what is used."""
    rows, columns = 32, 64
    a = shared.zeros((rows, columns, PAGE // 8), page_size=PAGE)
    for turn in range(2):
        if dsm.rank() == 0:
            a[:] = turn + 1
        dsm.barrier()
        with counted() as growth:
            if dsm.rank() == 1:
                for column in range(used):
                    assert (a[:, column] == turn + 1).all()
        if exact_counts and dsm.rank() == 1:
            assert growth["fetches"] == rows * brought
            assert growth["faults_read"] <= (30, 16)[turn]  # the second time it is known how many
        dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_pages_at_a_stride_are_closed_together(shared, counted, exact_counts):
    """Who serves every fourth page closes what lies between with one call, and its next writes open all of it again."""
    pages = 512
    a = shared.zeros((pages, PAGE // 8), page_size=PAGE)
    for value in (1, 2):
        with counted() as writing:
            if dsm.rank() == 0:
                a[:] = value
        dsm.barrier()
        with counted() as growth:
            if dsm.rank() == 1:
                assert (a[::4, 0] == value).all()
            dsm.barrier()
        if exact_counts and dsm.rank() == 0:
            assert growth["pages_served"] + growth["diffs_served"] >= pages // 4
            assert growth["protects"] <= pages // 16
            assert writing["faults_write"] <= 16
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_blocks_that_are_written_in_order_cost_a_fault_each(shared, counted, exact_counts):
    """Halves of planes in turn, as in a transpose of three dimensions: each begins as the last one did."""
    planes, half = 16, 32
    a = shared.zeros((planes, 2, half, PAGE // 8), page_size=PAGE)
    mine, other = (0, 1) if dsm.rank() == 0 else (1, 0)
    for value in (1, 2):
        with counted() as growth:
            if dsm.rank() < 2:
                a[:, mine] = value
        dsm.barrier()
        assert dsm.rank() > 1 or (a[:, other] == value).all()
        dsm.barrier()
    if exact_counts and dsm.rank() < 2:
        assert growth["faults_write"] <= 1.5 * planes


@pytest.mark.mpi(min_size=2)
def test_no_diff_is_cut_of_pages_that_are_sent_whole(shared, counted, exact_counts):
    """Of two ranks the one that reads has the page then, and nobody is left who could ask for its diff."""
    pages, turns = 600, 4  # more than a barrier brings along
    a = shared.zeros(pages * PAGE // 4, np.int32, page_size=PAGE)

    def count_up(turns):
        for _ in range(turns):
            if dsm.rank() == 0:
                a[:] += 1
            dsm.barrier()
            if dsm.rank() == 1:
                assert (a == a[0]).all()
            dsm.barrier()

    count_up(turns)
    with counted() as growth:
        count_up(turns)
    if exact_counts and dsm.size() == 2:
        assert growth["pages_served"] == (dsm.rank() == 0) * pages * turns
        assert growth["diffs_made"] == growth["diffs_received"] == 0
    assert (a == 2 * turns).all()


@pytest.mark.mpi(min_size=2)
def test_what_is_written_in_order_is_opened_in_pieces_of_a_huge_page(shared, counted, exact_counts):
    """No faster than the rank comes to it, and all of each: so their memory can be huge pages."""
    huge, blocks = 2 << 20, 6
    a = shared.zeros((dsm.size(), blocks * huge), "u1", page_size=PAGE, name="huge")
    mine = a[dsm.rank()]
    assert a.ctypes.data % huge == 0
    mine[:huge] = 1
    with counted() as growth:
        mine[huge:] = 1
    if exact_counts:
        assert growth["faults_write"] == blocks - 1
        assert growth["pages_preopened"] == (blocks - 1) * (huge // PAGE - 1)
    dsm.barrier()
    assert (a == 1).all()


def test_a_wrong_guess_is_not_repeated(shared, counted, exact_counts):
    """After a stream of 64 pages single ones are read, far apart."""
    a = shared.zeros((2, 1024 * PAGE // 8), page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 1
    dsm.barrier()
    assert (a[0, : 64 * PAGE // 8] == 1).all()
    with counted() as growth:
        for spot in (3, 0, 5, 6, 1, 4, 7, 2):
            assert a[1, spot * 128 * PAGE // 8] == 1
    if exact_counts and dsm.rank():
        assert growth["pages_readahead"] <= 128  # one guess: half of what the stream brought, ahead included
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_a_bell_is_for_a_rank_that_computes(shared, counted, exact_counts, comm):
    """A rank that waits in a barrier is hardly rung, one that sits in a call of MPI is."""
    apart, order = 16, np.random.default_rng(5).permutation(64)  # hardly a stream, no piece
    a = shared.zeros((2, 64, apart * PAGE // 8), page_size=PAGE)
    if dsm.rank() == 1:
        a[:, order, 0] = 1.0
    dsm.barrier()
    with counted() as waiting:
        if dsm.rank() == 0:
            comm.recv(source=1)
            time.sleep(0.05)  # until rank 1 is in the barrier
            assert all(a[0, i, 0] == 1.0 for i in order)
        elif dsm.rank() == 1:
            comm.send("going to wait", 0)
        dsm.barrier()
    with counted() as computing:
        if dsm.rank() == 0:
            assert all(a[1, i, 0] == 1.0 for i in order)
            comm.send("read", 1)
        elif dsm.rank() == 1:
            comm.recv(source=0)
        dsm.barrier()
    if exact_counts and dsm.rank() == 0:
        assert min(waiting["faults_read"], computing["faults_read"]) > 32
        assert waiting["bells_rung"] <= waiting["wait_fault_ns"] / 30_000 + 4  # so long an answer is waited for
        assert computing["bells_rung"] > 0


def test_reading_again_what_was_read(shared, counted, undisturbed):
    a = shared.zeros(50 * PAGE // 8, page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 1
    dsm.barrier()
    assert a.sum() == a.size
    dsm.barrier()
    with counted() as growth:
        for _ in range(20):
            assert a.sum() == a.size
            dsm.barrier()
    if undisturbed:
        assert growth["faults_read"] == growth["faults_write"] == growth["fetches"] == 0


def test_fresh_pages_hold_the_initial_value_without_a_message(shared, counted, undisturbed):
    a = shared.full(100 * PAGE // 8, 2.5, page_size=PAGE)
    dsm.barrier()
    with counted() as growth:
        assert (a == 2.5).all()
    if undisturbed:
        assert growth["messages_sent"] == growth["fetches"] == growth["pages_received"] == 0


@pytest.mark.mpi(min_size=2)
def test_a_change_costs_about_as_many_bytes_as_it_has(shared, counted, exact_counts):
    """A few bytes of a page travel as a few bytes; the other pages do not travel."""
    a = shared.zeros((100, PAGE), np.uint8, page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 1
    dsm.barrier()
    assert (a == 1).all()
    dsm.barrier()
    if dsm.rank() == 0:
        a[::10, 7] = 2
    with counted() as growth:
        dsm.barrier()
        assert (a[:, 7] == np.where(np.arange(100) % 10, 1, 2)).all()
        assert (a[:, 8] == 1).all()
    if exact_counts and dsm.rank() > 0:
        assert growth["fetches"] == 10
        assert growth["bytes_received"] < 10 * PAGE


def test_what_is_counted(shared, comm, alone):
    lock = dsm.Lock()
    a = shared.zeros(4 * PAGE, np.uint8, page_size=PAGE, name="counted array")
    comm.Barrier()
    before = dsm.stats().arrays["counted array"]
    if dsm.rank() == 0:
        a[::PAGE] = 1
    dsm.barrier()
    assert (a[::PAGE] == 1).all()
    with lock:
        pass
    dsm.barrier()
    after = dsm.stats()
    if not alone:
        assert after.nodes[0][0] == 0
    elif dsm.rank() == 0:
        faults = after.arrays["counted array"]["faults_write"] - before["faults_write"]
        assert 1 <= faults <= 4 if dsm.size() > 1 else faults == 0  # a small array of one node is open
    else:
        assert after.arrays["counted array"]["fetches"] - before["fetches"] == 4
        assert after.arrays["counted array"]["fetches"] <= after["fetches"]
    assert list(after.locks.values())[-1]["lock_acquires"] == 1
    assert "\n" not in str(after)
    assert str(after).startswith(f"dsm stats of rank {dsm.rank()} of {dsm.size()}:")


ONCE = {
    "memory_bytes",
    "memory_bytes_max",
    "twin_bytes",
    "diff_bytes",
    "data_bytes",
    "cached_bytes",
}  # of a node, in its ranks' numbers


def sums_over_nodes(comm):
    """Return what all ranks count, by rank, with what they say of their nodes, when nothing is on its way any more."""
    for _ in range(100):
        found = dict(dsm.stats())
        comm.Barrier()  # the sums are taken while no rank takes its own numbers
        every = comm.allgather((found, dsm.stats().host))
        again = comm.allgather(dict(dsm.stats()))
        if all(rank[0] == same for rank, same in zip(every, again, strict=True)):
            break
        time.sleep(0.02)
    return every


def test_the_numbers_of_a_host_are_the_sums_over_its_ranks(shared, comm, undisturbed):
    a, lock, counter = shared.zeros((dsm.size(), 40 * PAGE // 8), page_size=PAGE), dsm.Lock(), dsm.Counter()
    for turn in range(1, 4):
        a[dsm.rank()] = turn
        dsm.barrier()
        assert (a == turn).all()
        dsm.barrier()
        with lock:
            a[:, dsm.rank()] = counter.next()
        dsm.barrier()
    every = sums_over_nodes(comm)
    nodes = dsm.stats().nodes
    assert sorted(rank for ranks in nodes for rank in ranks) == list(range(dsm.size()))
    for name in every[0][0] if undisturbed else ():
        for ranks in nodes:
            of_ranks, of_node = [every[rank][0][name] for rank in ranks], {every[rank][1][name] for rank in ranks}
            assert of_node == ({of_ranks[0]} if name in ONCE else {sum(of_ranks)}), (name, ranks)
    host = every[dsm.rank()][1]
    assert host["data_bytes"] >= a.nbytes, "all ranks have read all of it"
    assert host["twin_bytes"] + host["diff_bytes"] <= host["memory_bytes"] <= host["memory_bytes_max"]
    if len(nodes) > 1:
        assert host["pages_received"] + host["diffs_received"] > 0
    assert host["lock_acquires"] >= 3 * len(next(ranks for ranks in nodes if dsm.rank() in ranks))


def test_ranks_that_are_one_node_are_silent_after_the_first_touch(shared, comm, undisturbed):
    a, lock, counter = shared.zeros((dsm.size(), 1000 * PAGE // 8), page_size=PAGE), dsm.Lock(), dsm.Counter()
    for turn in range(1, 4):
        a[dsm.rank()] = turn
        dsm.barrier()
        assert (a[:, ::100] == turn).all()
        dsm.barrier()
        with lock:
            a[:, dsm.rank()] = counter.next()
        dsm.barrier()
        if turn == 1:
            first = dsm.stats().host
            comm.Barrier()
    last = dsm.stats().host
    if len(dsm.stats().nodes) > 1:
        assert last["messages_sent"] > first["messages_sent"]
    elif undisturbed:
        names = ("faults_read", "faults_write", "messages_sent", "bells_rung", "protects")
        assert {name: last[name] - first[name] for name in names} == dict.fromkeys(names, 0)
        assert last["twins_made"] == last["diff_bytes"] == last["twin_bytes"] == 0


def test_reset(shared):
    a = shared.zeros(10, name="reset")
    a[:] = 1
    dsm.barrier()
    assert dsm.stats(reset=True)["barriers"] > 0
    now = dsm.stats()
    assert now["barriers"] == now["lock_acquires"] == now["faults_write"] == 0
    assert now.arrays["reset"]["faults_write"] == 0
    dsm.barrier()
    assert dsm.stats()["barriers"] == 1


def test_info_tells_who_wrote_what(shared):
    a = shared.zeros((dsm.size() + 1, PAGE), np.uint8, page_size=PAGE, name="grid")
    assert dsm.info(a).owners == ((0, dsm.size(), None),)
    dsm.barrier()
    a[dsm.rank()] = 1
    dsm.barrier()
    told = dsm.info(a)
    assert (told.name, told.nbytes, told.page_size, told.pages) == ("grid", a.nbytes, PAGE, dsm.size() + 1)
    nodes = dsm.stats().nodes
    if len(nodes) == 1:  # a node that is alone shares with nobody
        assert told.owners == ((0, dsm.size(), None),)
    else:
        assert told.owners == (*((ranks[0], ranks[-1], ranks[0]) for ranks in nodes), (dsm.size(), dsm.size(), None))
    assert (dsm.info(a[1:]).first_page, dsm.info(a[1:]).last_page) == (1, dsm.size())


def test_an_event_that_is_known_as_set_costs_nothing(counted, undisturbed):
    event = dsm.Event()
    if dsm.rank() == 0:
        event.set()
    dsm.barrier()
    assert event.wait()
    with counted() as growth:
        for _ in range(1000):
            event.wait()
    if undisturbed:
        assert growth["messages_sent"] == 0
    dsm.barrier()


def test_a_hand_over_by_events_is_one_message_and_one_request(shared, counted, exact_counts):
    """The setter sends data and event together; the waiter's request travels while it waits."""
    rounds, rank = 200, dsm.rank()
    a = shared.zeros(2 * PAGE // 8, page_size=PAGE)
    mine, other = ([dsm.Event() for _ in range(rounds)] for _ in range(2))
    if rank % 2:
        mine, other = other, mine
    dsm.barrier()
    with counted() as growth:
        for turn in range(rounds if rank < 2 and dsm.size() > 1 else 0):
            if rank == 0:
                a[0] = turn
                mine[turn].set()
                other[turn].wait()
            else:
                other[turn].wait()
                assert a[0] == turn
                mine[turn].set()
    if exact_counts and dsm.size() == 2:
        assert growth["messages_sent"] < 2.5 * rounds
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_what_is_read_and_written_in_turns_comes_open(shared, counted, exact_counts):
    """Each of two ranks adds to what the other one left, with no fault but for usage probes."""
    first, rounds, rank = 16, 128, dsm.rank()
    a = shared.zeros(PAGE // 8, page_size=PAGE)
    done = [[dsm.Event() for _ in range(rounds)] for _ in range(2)]

    def hand_over(turns):
        for turn in turns if rank < 2 else ():
            if turn or rank:
                done[1 - rank][turn - (rank == 0)].wait()
            a[:8] += 1
            done[rank][turn].set()
        dsm.barrier()

    hand_over(range(first))
    with counted() as growth:
        hand_over(range(first, rounds))
    if exact_counts:
        assert growth["faults_read"] + growth["faults_write"] <= rounds // 16
    assert (a[:8] == 2 * rounds).all()
