"""What is made of the records of a profile: clocks, bins, hand-overs, the timeline; tables and the line of progress."""

import itertools
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dsm import _launch, _progress, _settings
from dsm._profile import bins, merge, output, part, timeline
from dsm._profile.clocks import Clock, Offset, offset_of
from dsm._recorder import ACQUIRE, ALLOCATION, BARRIER, KINDS, Place
from dsm._table import Table

MAIN = Place("/home/prog.py", 7, "main", BARRIER)
WITH = Place("/home/prog.py", 9, "main", ACQUIRE)
MADE = Place("/home/prog.py", 3, "main", ALLOCATION)

# ---- clocks ------------------------------------------------------------------------------------------------------


@hypothesis.given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=9),
)
def test_a_clock_is_found_within_half_of_the_shortest_way(ahead, ways):
    sent = list(itertools.accumulate((there + back + 1 for there, back in ways), initial=10**9))
    pings = [(at, at + there + ahead, at + there + back) for at, (there, back) in zip(sent, ways, strict=False)]
    found = offset_of(pings)
    assert abs(found.offset_ns + ahead) <= found.error_ns
    assert found.error_ns <= min(there + back for there, back in ways) / 2 + 1


def test_clocks_that_drift_are_aligned():
    # It was 5 ms behind, and is 7 ms behind ten seconds later.
    clock = Clock(Offset(10**9, 5 * 10**6, 1000), Offset(11 * 10**9, 7 * 10**6, 3000))
    times = clock.aligned_s(np.array([10**9, 6 * 10**9, 11 * 10**9]))
    assert times == pytest.approx([1.005, 6.006, 11.007], abs=1e-9)
    assert clock.error_s == 3e-6
    assert Clock(Offset(5, 0, 0), Offset(5, 0, 0)).aligned_s(10**9) == 1.0


# ---- bins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "order", "pages", "expected"),
    [
        ((512, 512), "C", 512, (256, "rows")),
        ((100, 512), "C", 100, (100, "rows")),
        ((10, 51200), "C", 1000, (256, "pages")),  # ten bins would show little
        ((10, 512), "C", 10, (10, "rows")),
        ((512, 512), "F", 512, (256, "pages")),
        ((), "C", 1, (1, "rows")),
        ((0,), "C", 1, (1, "pages")),
    ],
)
def test_bins_divide_rows_or_pages(shape, order, pages, expected):
    assert bins.bins_of(shape, order, pages) == expected


@hypothesis.given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_bin_has_the_largest_count_of_its_pages(number, bytes_, page_bytes, data):
    pages = math.ceil(bytes_ / page_bytes)
    counts = np.array(data.draw(st.lists(st.integers(0, 9), min_size=pages, max_size=pages)), np.uint32)
    found = bins.binned(counts, number, bytes_, page_bytes)
    for at in range(number):
        low, high = at * bytes_ / number, (at + 1) * bytes_ / number
        touched = [c for page, c in enumerate(counts) if page * page_bytes < high and (page + 1) * page_bytes > low]
        assert found[at] == max(touched)


@hypothesis.given(st.lists(st.integers(0, 2), max_size=40))
def test_runs_are_the_values(values):
    runs = bins.runs_of(np.array(values, np.int64))
    assert bins.spread(runs, len(values)).tolist() == values
    assert all(a[0] + a[1] < b[0] or a[2] != b[2] for a, b in itertools.pairwise(runs))


# ---- the parts of the ranks --------------------------------------------------------------------------------------


def a_part(rank, **more):
    """A rank that has met another one at a barrier."""
    thread = dict.fromkeys(("seconds", *merge._TIMES), 0.0) | {"number": 10 * (rank + 1), "seconds": 2.0}
    numbers = {"calls": 3, "faults": 4, "pages": 5, "bytes": 6}
    times = {"computed_s": 1.0, "data_s": 0.1, "waited_s": 0.5, "imbalance_s": 0.4, "latency_s": 0.1}
    site = part.Site(MAIN, "dsm.barrier()", None, numbers | times, {1: 4}, empty=rank)
    given = {
        "rank": rank,
        "node": rank,
        "host": "alpha",
        "pid": 100 + rank,
        "cores": 2,
        "memory_bytes": None,
        "began_s": 50.0 + rank,
        "ended_s": 53.0,
        "threads": [thread],
        "service_s": 0.1,
        "stats": dict.fromkeys(merge._OF_RANK, rank),
        "sites": [site],
        "site_numbers": {1: MAIN, 2: WITH},
        "locks": {},
        "holds": np.zeros(0, part.HOLD),
        "arrays": [],
        "arrays_left": 0,
        "memory": np.zeros(0, [(name, float) for name in ("time_ns", *MEMORY)]),
        "asked": np.arange(2),
        "lines": [],
        "events": np.zeros(0, part.EVENT),
        "clock_error_s": 1e-6 * rank,
    }
    return part.Part(**given | more)


MEMORY = ("protocol_bytes", "twin_bytes", "diff_bytes", "data_bytes", "cached_bytes")


def an_array(contested=(), **more):
    given = {
        "region": 1,
        "label": "grid",
        "named": True,
        "shape": (4, 512),
        "dtype": "float64",
        "itemsize": 8,
        "order": "C",
        "bytes": 4 * 4096,
        "page_bytes": 4096,
        "pages": 4,
        "place": MADE,
        "allocated_s": 51.0,
        "freed_s": None,
        "stats": {},
        "owners": [],
        "held_bytes": 0,
        "strips": {name: [] for name in ("written", "opened", "read", "fetched")},
        "first_s": np.full(4, np.inf),
        "pages_written": 0,
        "pages_read": 0,
        "contested": np.array(list(contested), part.CONTESTED),
    }
    return part.ArrayPart(**given | more)


def test_sites_of_ranks_are_one_site():
    profile = merge.merge([a_part(0), a_part(1)], {"page_bytes": 4096}, {}, {})
    (site,) = profile["sites"]
    assert (site["file"], site["line"], site["kind"]) == ("/home/prog.py", 7, "barrier")
    assert site["by_rank"]["calls"] == [3, 3]
    assert site["arrays"] == [[1, 8]]
    assert site["empty"] == 1
    assert not profile["run"]["one_node"]
    assert not profile["run"]["oversubscribed"]
    assert profile["run"]["seconds"] == 3.0
    assert [rank["began_s"] for rank in profile["ranks"]] == [0.0, 1.0]
    assert profile["run"]["clock_error_s"] == 1e-6
    assert profile["traffic"] == [[0, 1], [0, 1]]


def test_ranks_of_one_host_beyond_its_cores_are_seen():
    profile = merge.merge([a_part(0, cores=1), a_part(1, cores=1)], {}, {}, {})
    assert profile["hosts"] == [{"name": "alpha", "ranks": [0, 1], "cores": 1, "memory_bytes": None}]
    assert profile["run"]["oversubscribed"]


def test_one_node_says_what_it_cannot_show():
    profile = merge.merge([a_part(0, node=0), a_part(1, node=0)], {}, {}, {})
    assert profile["run"]["one_node"]
    assert "--node rank" in profile["notes"][0]
    assert [site["empty"] for site in profile["sites"]] == [None]


@pytest.mark.parametrize(("common", "diff_bytes", "kind"), [(0, 100, "false"), (3, 100, "true"), (0, 0, "unknown")])
def test_a_page_that_two_nodes_wrote(common, diff_bytes, kind):
    arrays = [an_array([(2, 5, diff_bytes, common, 1 << (1 - rank))]) for rank in range(2)]
    profile = merge.merge([a_part(rank, arrays=[arrays[rank]]) for rank in range(2)], {}, {}, {})
    contested = profile["arrays"][0]["contested"]
    assert (contested["pages"], contested["phases"], contested["diff_bytes"]) == (1, 5, 2 * diff_bytes)
    assert contested["worst"] == [
        {
            "page": 2,
            "first": [2, 0],
            "last": [2, 511],
            "ranks": [0, 1],
            "phases": 5,
            "diff_bytes": 2 * diff_bytes,
            "overlap_bytes": common,
            "kind": kind,
        }
    ]


def test_the_first_writer_is_the_earliest():
    times = [np.array([1.0, 2.0, np.inf, np.inf]), np.array([2.0, 1.0, np.inf, 5.0])]
    parts = [a_part(rank, arrays=[an_array(first_s=times[rank])]) for rank in range(2)]
    profile = merge.merge(parts, {}, {}, {})
    assert profile["arrays"][0]["first_writer"] == [[0, 1, 0], [1, 1, 1], [3, 1, 1]]


def test_most_fetched_arrays_are_shown_and_others_counted():
    many = [an_array(region=i, stats={"pages_received": i}) for i in range(merge.ARRAYS_MAX + 7)]
    profile = merge.merge([a_part(0, arrays=many), a_part(1)], {}, {}, {})
    assert profile["arrays_left_out"] == 7
    assert [array["id"] for array in profile["arrays"]] == list(range(7, merge.ARRAYS_MAX + 7))


def holds_of(*given):
    """Holds from (lock, rank, asked, acquired, released)."""
    holds = np.zeros(len(given), part.HOLD)
    for name, column in zip(("lock", "asked", "acquired", "released"), (0, 2, 3, 4), strict=True):
        holds[name] = [hold[column] for hold in given]
    holds["site"] = 2
    return holds, np.array([hold[1] for hold in given])


def test_hand_overs_follow_the_order_of_acquires():
    holds, ranks = holds_of((0, 0, 0, 0, 1), (0, 1, 0, 1.5, 2), (0, 1, 3, 3, 4), (0, 0, 3.5, 4.5, 5), (1, 1, 0, 0, 9))
    order = np.random.default_rng(0).permutation(len(holds))
    found = merge.hand_overs(holds[order], ranks[order])
    assert found == {0: [[0, 1, 1, 1.5], [1, 0, 1, 1.0]]}


def test_arrows_of_the_timeline_pair_up_and_lead_forward():
    holds = [holds_of((0, rank, 50 + rank, 51 + rank, 51.5 + rank))[0] for rank in range(2)]
    events = [np.zeros(2, part.EVENT) for _ in range(2)]
    for rank, made in enumerate(events):
        made["thread"] = 10 * (rank + 1)
        made["site"], made["peer"] = 1, -1
        made["begin"], made["end"] = [50.5 + rank, 51.5 + rank], [51 + rank, 52 + rank]
        made["kind"] = [BARRIER, len(KINDS) + 1]
    events[1]["peer"][1] = 0  # rank 1 fetched from rank 0
    parts = [a_part(rank, holds=holds[rank], events=events[rank]) for rank in range(2)]
    trace = timeline.timeline(parts, {0: "grid"}, {0: "mine"})["traceEvents"]
    ends = {ph: {event["cat"]: event for event in trace if event["ph"] == ph} for ph in "sf"}
    assert set(ends["s"]) == set(ends["f"]) == {"lock", "data"}
    assert all(ends["s"][cat]["id"] == ends["f"][cat]["id"] for cat in ends["s"])
    assert (ends["s"]["lock"]["pid"], ends["f"]["lock"]["pid"]) == (0, 1)
    assert (ends["s"]["lock"]["ts"], ends["f"]["lock"]["ts"]) == (1.5e6, 2e6)
    assert (ends["s"]["data"]["pid"], ends["s"]["data"]["ts"]) == (0, 0.5e6)
    assert (ends["f"]["data"]["pid"], ends["f"]["data"]["ts"]) == (1, 3e6)
    assert {event["name"] for event in trace if event["ph"] == "X"} == {"barrier prog.py:7", "0 faults on grid", "mine"}


def test_three_lines_say_where_the_time_went(tmp_path):
    parts = [a_part(0), a_part(1)]
    for each in parts:
        each.threads[0] |= {"compute_s": 1.5, "barrier_s": 0.5}
    lines = output.lines_of(merge.merge(parts, {}, {}, {}), tmp_path)
    assert lines[0] == "3.00 s on 2 ranks: 75% compute, 25% barriers"
    assert lines[1].startswith("no report: "), "a report that fails does not end the job"
    assert str(tmp_path / "profile.json") in lines[-1]


# ---- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "folder", "program"),
    [
        (["--profile", "-n", "2", "prog.py"], _launch.PROFILE_FOLDER, ["prog.py"]),
        (["--profile", "out", "-n", "2", "prog.py"], "out", ["prog.py"]),
        (["--profile=out", "prog.py", "--profile"], "out", ["prog.py", "--profile"]),
        (["--profile", "prog.py"], _launch.PROFILE_FOLDER, ["prog.py"]),
        (["-n", "2", "prog.py"], None, ["prog.py"]),
    ],
)
def test_the_folder_of_a_profile_may_be_left_out(words, folder, program):
    split = _launch._split(words)
    assert _launch._parser().parse_args(split.ours).profile == folder
    assert split.program == program


def test_the_address_of_progress_is_checked():
    assert _settings.settings(environ={"DSM_WATCH": "host:99"}).watch == ("host", 99)
    for wrong in ("host", ":99", "host:0", "host:x", "host:70000"):
        with pytest.raises(ValueError, match="DSM_WATCH must be HOST:PORT"):
            _settings.settings(environ={"DSM_WATCH": wrong})


# ---- progress and tables -----------------------------------------------------------------------------------------


def test_the_line_of_progress_says_who_waits_for_what():
    board = _progress.Board()
    assert board.line(0.0) == ""
    for rank in range(3):
        board.take(b"%d 4 100 1048576 1048576 %d in barrier()" % (rank, 1500 if rank < 2 else 10), 10.0)
    board.take(b"3 4 100 0 0 0 ", 5.0)
    board.take(b"\xff nonsense", 10.0)
    board.take(b"7 4 1 1 1 1 ", 10.0)
    expected = "2 of 4 ranks wait; ranks 0-1 1.5 s in barrier(); nothing heard of rank 3 | 6 MiB"
    assert board.line(10.0) == f"{expected} | 0 faults/s"
    board.take(b"0 4 300 1048576 1048576 2500 in barrier()", 12.0)
    assert board.line(12.0).endswith("| 100 faults/s")


def test_tables_are_aligned_and_escaped():
    table = Table("Arrays", ["array", "waited"], [["a<b", "1.0 s"], ["long name", "10.0 s"]])
    assert str(table).splitlines() == ["Arrays", "  array      waited", "  a<b         1.0 s", "  long name  10.0 s"]
    assert "a&lt;b" in table.to_html()
    assert table.to_html().count("<tr>") == 3
