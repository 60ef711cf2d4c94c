"""Profiles of programs whose numbers are known: calls, hand-overs of locks, rows written and read, pages contested."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

NODES = ["rank", "host"]
ASKED = "readahead guesses columns pieces appetite push"  # without these a rank fetches what it touches, and no more
TIMES = ("compute_s", "data_s", "lock_s", "barrier_s", "event_s", "other_s", "protocol_s")

# A row is a page.  Each rank writes its eight rows in each step, and reads the first one of the next rank.
ROWS = """
ROWS, STEPS = 8, 5
size, rank = dsm.size(), dsm.rank()
grid = dsm.zeros((ROWS * size, 512), name="grid")
for step in range(STEPS):
    grid[ROWS * rank : ROWS * (rank + 1)] = step + 1
    dsm.barrier()
    assert grid[ROWS * (rank + 1) % len(grid), 7] == step + 1
    dsm.barrier()
"""

# The ranks take turns, TURNS times each.
TURNS = """
TURNS = 6
size, rank = dsm.size(), dsm.rank()
lock, total = dsm.Lock(name="turns"), dsm.zeros(1, name="total")
for step in range(TURNS * size):
    if step % size == rank:
        with lock:
            total[0] += 1
    dsm.barrier()
assert total[0] == TURNS * size
"""

# Elements of all ranks lie side by side in one page; and all ranks write one element, under a lock.
SHARED = """
STEPS = 4
size, rank = dsm.size(), dsm.rank()
mixed, total, lock = dsm.zeros(512, name="mixed"), dsm.zeros(1, name="total"), dsm.Lock()
for step in range(STEPS):
    mixed[rank::size] += 1 + rank
    with lock:
        total[0] += 1
    dsm.barrier()
    assert mixed.sum() > 0 and total[0] == (step + 1) * size
    dsm.barrier()
"""


@pytest.fixture
def profiled(run, tmp_path):
    """Run a program with a profile; returns profile.json, the events of trace.json, and the job."""

    def run_job(ranks, program, node="rank", **more):
        folder = tmp_path / "out"
        job = run(ranks, program, env={"DSM_NODE": node, "DSM_PROFILE": str(folder), **more})
        assert job.status == 0, job
        profile, trace = (json.loads((folder / f"{name}.json").read_text()) for name in ("profile", "trace"))
        check(profile, ranks or 1)
        check_trace(trace["traceEvents"], ranks or 1)
        return profile, trace["traceEvents"], job

    return run_job


def check(profile, size):
    """What holds in any profile."""
    assert profile["version"] == 1
    assert profile["run"]["size"] == size == len(profile["ranks"])
    assert profile["truncated"] == []
    assert [site["id"] for site in profile["sites"]] == list(range(len(profile["sites"])))
    for rank in profile["ranks"]:
        assert sum(rank["time"].values()) == pytest.approx(rank["seconds"], abs=1e-6)
        assert set(rank["time"]) == set(TIMES)
        assert min(rank["time"].values()) >= 0
        assert rank["seconds"] <= profile["run"]["seconds"] + 1e-6
    for site in profile["sites"]:
        for parts in zip(*(site["by_rank"][name] for name in ("waited_s", "imbalance_s", "latency_s")), strict=True):
            assert parts[0] == pytest.approx(parts[1] + parts[2], abs=1e-6)
            assert min(parts) >= 0
    for name, column in (("compute_s", "computed_s"), ("data_s", "data_s")):
        for rank in profile["ranks"]:
            by_sites = sum(site["by_rank"][column][rank["rank"]] for site in profile["sites"])
            by_threads = sum(thread["time"][name] for thread in rank["threads"])
            assert by_sites == pytest.approx(rank["time"][name] + by_threads, abs=1e-3)
    for array in profile["arrays"]:
        for strip in array["strips"]:
            for name in ("written", "read", "fetched"):
                assert all(first >= 0 and first + bins <= array["bins"] for first, bins, _ in strip[name])


def check_trace(events, size):
    assert {event["pid"] for event in events} == set(range(size))
    tracks = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    slices = [event for event in events if event["ph"] == "X"]
    assert {(event["pid"], event["tid"]) for event in slices} <= tracks
    assert min(event["dur"] for event in slices) >= 0
    ends = {ph: {(e["cat"], e["id"]): e for e in events if e["ph"] == ph} for ph in "sf"}
    assert set(ends["s"]) == set(ends["f"])
    for key, leaves in ends["s"].items():
        assert leaves["ts"] <= ends["f"][key]["ts"]
        assert leaves["pid"] != ends["f"][key]["pid"]


def sites(profile, kind, text=""):
    return [site for site in profile["sites"] if site["kind"] == kind and text in site["source"]]


def array(profile, name):
    return next(array for array in profile["arrays"] if array["name"] == name)


def rows(array, rank, name):
    """The rows (bins) with a count in a strip."""
    runs = next((strip[name] for strip in array["strips"] if strip["rank"] == rank), [])
    return [row for first, bins, _ in runs for row in range(first, first + bins)]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("ranks", [0, 2, 4])
def test_sites_count_calls(profiled, ranks, node):
    profile, _, job = profiled(ranks, ROWS, node)
    size = ranks or 1
    barriers = sites(profile, "barrier")
    assert [site["by_rank"]["calls"] for site in barriers] == [[5] * size] * 2
    assert {site["source"] for site in barriers} == {"dsm.barrier()"}
    assert barriers[0]["line"] + 2 == barriers[1]["line"]
    assert barriers[0]["file"].endswith("program0.py")
    (made,) = sites(profile, "allocation")
    assert array(profile, "grid")["allocated_at"] == made["id"]
    assert profile["run"]["one_node"] == (node == "host" or size == 1)
    assert "dsm profile: " in job.err
    assert "wrote " in job.err
    assert ("--node rank" in job.err) == (profile["run"]["one_node"] and size > 1)


@pytest.mark.parametrize("ranks", [2, 4])
def test_strips_show_who_wrote_and_read(profiled, ranks):
    profile, events, _ = profiled(ranks, ROWS, DSM_WITHOUT=ASKED)
    grid = array(profile, "grid")
    assert (grid["bins"], grid["bin_axis"], grid["pages"]) == (8 * ranks, "rows", 8 * ranks)
    for rank in range(ranks):
        own = list(range(8 * rank, 8 * rank + 8))
        assert rows(grid, rank, "written") == own
        assert rows(grid, rank, "fetched") == [8 * (rank + 1) % (8 * ranks)]
    assert grid["pages_written"] == [8] * ranks
    assert grid["first_writer"] == [[8 * rank, 8, rank] for rank in range(ranks)]
    assert grid["owners"] == [[8 * rank, 8, rank] for rank in range(ranks)]
    assert grid["contested"]["pages"] == 0
    assert sum(grid["by_rank"]["fetches"]) == 5 * ranks
    assert grid["alive"]
    assert grid["memory_bytes"] == [9 * 4096] * ranks
    arrows = Counter(event["pid"] for event in events if event["ph"] == "f" and event["cat"] == "data")
    assert set(arrows) == set(range(ranks)), "each rank fetches from another one"


def test_ranks_of_a_node_are_told_apart(profiled):
    profile, _, _ = profiled(4, ROWS, "2", DSM_WITHOUT=f"{ASKED} preopen")
    assert profile["nodes"] == [[0, 1], [2, 3]]
    grid = array(profile, "grid")
    for rank in range(4):
        assert rows(grid, rank, "written") == list(range(8 * rank, 8 * rank + 8))
    fetched = {row for rank in range(4) for row in rows(grid, rank, "fetched")}
    assert fetched == {0, 16}


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("ranks", [0, 2, 4])
def test_hand_overs_of_a_lock(profiled, ranks, node):
    profile, events, _ = profiled(ranks, TURNS, node)
    size = ranks or 1
    (lock,) = [lock for lock in profile["locks"] if lock["name"] == "turns"]
    assert lock["kind"] == "Lock"
    assert lock["by_rank"]["acquires"] == [6] * size
    turns = [step % size for step in range(6 * size)]
    expected = Counter(pair for pair in itertools.pairwise(turns) if pair[0] != pair[1])
    assert {(a, b): count for a, b, count, _ in lock["hand_overs"]} == expected
    arrows = [event for event in events if event["ph"] == "s" and event["cat"] == "lock"]
    assert len(arrows) == sum(expected.values())
    (taken,) = sites(profile, "acquire")
    assert lock["sites"] == [[taken["id"], 6 * size]]
    assert taken["source"] == "with lock:"
    assert taken["object"] == "turns"


@pytest.mark.parametrize("ranks", [2, 4])
def test_false_and_true_sharing_are_told_apart(profiled, ranks):
    profile, _, _ = profiled(ranks, SHARED)
    mixed, total = array(profile, "mixed")["contested"], array(profile, "total")["contested"]
    assert (mixed["pages"], mixed["false_pages"], mixed["true_pages"]) == (1, 1, 0)
    assert (mixed["worst"][0]["first"], mixed["worst"][0]["last"]) == ([0], [511])
    assert mixed["worst"][0]["ranks"] == list(range(ranks))
    assert mixed["worst"][0]["phases"] == 4
    assert mixed["diff_bytes"] > 0
    assert (total["pages"], total["true_pages"]) == (1, 1)
    assert total["worst"][0]["overlap_bytes"] > 0


def test_a_late_rank_is_imbalance(profiled):
    program = """
    a = dsm.zeros(1)
    for _ in range(4):
        if dsm.rank() == 1:
            time.sleep(0.1)
        dsm.barrier()
    """
    profile, _, _ = profiled(2, program)
    (barrier,) = sites(profile, "barrier")
    assert barrier["by_rank"]["imbalance_s"][0] > 0.2
    assert barrier["by_rank"]["imbalance_s"][1] < 0.2
    assert barrier["by_rank"]["computed_s"][1] > 0.3
    assert barrier["empty"] == 0


def test_barriers_with_nothing_between_are_counted(profiled):
    program = """
    a = dsm.zeros(1000)
    for step in range(200):
        a[dsm.rank()] = step
        dsm.barrier()
        dsm.barrier()  # again
    """
    profile, _, _ = profiled(2, program)
    (useful,) = [site for site in sites(profile, "barrier") if "again" not in site["source"]]
    (again,) = sites(profile, "barrier", "again")
    assert useful["empty"] == 0
    assert again["empty"] > 0


def test_threads_conditions_and_events(profiled):
    program = """
    changed, ready, box = dsm.Condition(), dsm.Event(), dsm.zeros(8, name="box")
    lock = dsm.Lock(name="of threads")
    def work():
        for _ in range(10):
            with lock:
                box[1] += 1
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if dsm.rank() == 0:
        with changed:
            box[0] = 1
            changed.notify_all()
        ready.set()
    with changed:
        changed.wait_for(lambda: box[0] == 1)
    ready.wait()
    dsm.barrier()
    assert box[1] == 30 * dsm.size()
    """
    profile, _, _ = profiled(2, program)
    (lock,) = [lock for lock in profile["locks"] if lock["name"] == "of threads"]
    assert lock["by_rank"]["acquires"] == [30, 30]
    assert all(len(rank["threads"]) == 3 for rank in profile["ranks"])
    assert [sum(site["by_rank"]["calls"]) for site in sites(profile, "set")] == [1]
    assert [sum(site["by_rank"]["calls"]) for site in sites(profile, "notify")] == [1]
    assert [site["by_rank"]["calls"] for site in sites(profile, "wait", "ready.wait()")] == [[1, 1]]


def test_arrays_that_come_and_go(profiled):
    program = """
    for step in range(6):
        a = dsm.zeros(512 * 4, name="loop")
        a[512 * dsm.rank() : 512 * (dsm.rank() + 1)] = 1
        dsm.barrier()
        assert a.sum() == 512 * dsm.size()
        dsm.barrier()
        dsm.free(a)
    kept = dsm.zeros(10, name="kept")
    """
    profile, _, _ = profiled(2, program)
    loop = [each for each in profile["arrays"] if each["name"] == "loop"]
    assert len(loop) == 6
    for each in loop:
        assert not each["alive"]
        assert each["allocated_s"] <= each["freed_s"]
        assert each["pages_written"] == [1, 1]
        assert each["by_rank"]["fetches"] == [1, 1]
    assert array(profile, "kept")["alive"]
    assert array(profile, "kept")["strips"] == []


def test_clocks_of_hosts_are_compared(run):
    program = """
    from dsm._profile import clocks
    rank = MPI.COMM_WORLD.rank
    clocks.boot = lambda: f"host {rank // 2}"  # two hosts of two ranks, whose clocks differ by a second
    found = clocks.measure(MPI.COMM_WORLD, lambda: time.monotonic_ns() + rank // 2 * 10**9)
    assert abs(found.offset_ns + rank // 2 * 10**9) <= found.error_ns, found
    assert (found.error_ns > 0) == (rank >= 2), found
    """
    job = run(4, program)
    assert job.status == 0, job


def test_a_job_that_dies_says_that_the_profile_is_lost(run, tmp_path):
    program = """
    dsm.barrier()
    if dsm.rank() == 1:
        sys.exit(3)
    dsm.barrier()
    """
    job = run(2, program, env={"DSM_PROFILE": str(tmp_path / "out")})
    assert job.status != 0
    assert "the profile is lost" in job.err


def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    job = run(2, "dsm.barrier()", env={"DSM_PROFILE": str(tmp_path / "file" / "out")})
    assert job.status == 0, job
    assert "the profile is lost: cannot write to" in job.err


def test_explicit_finalize_and_another_communicator(profiled):
    program = """
    dsm.init(MPI.COMM_WORLD.Dup())
    a = dsm.zeros(10, name="a")
    dsm.barrier()
    dsm.finalize()
    """
    profile, _, _ = profiled(2, program)
    assert array(profile, "a")["alive"]
    assert [site["by_rank"]["calls"] for site in sites(profile, "end")] == [[1, 1]]


def test_nothing_is_wrapped_without_a_profile(run):
    job = run(0, "assert not hasattr(dsm.barrier, '__wrapped__') and not hasattr(dsm.Lock._take, '__wrapped__')")
    assert job.status == 0, job


def test_every_key_is_described(profiled):
    profile, _, _ = profiled(2, SHARED)
    page = (Path(__file__).parents[2] / "docs" / "insight.md").read_text()
    section = page.partition("## profile.json")[2].partition("## trace.json")[0]
    named = {word for text in re.findall(r"`([\w.]+)`", section) for word in text.split(".")}
    of_stats = set(profile["ranks"][0]) | set(profile["arrays"][0]["by_rank"])
    parts = [profile, profile["run"], profile["hosts"][0], profile["machine"], profile["ranks"][0]["time"]]
    parts += [profile["sites"][0], profile["sites"][0]["by_rank"], profile["locks"][0], profile["locks"][0]["by_rank"]]
    grid = profile["arrays"][0]
    parts += [grid, grid["contested"], grid["contested"]["worst"][0], grid["strips"][0], profile["memory"][0]]
    assert {key for part in parts for key in part} - named - {"id"} == set()
    stats = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    assert {key for key in of_stats if f"`{key}`" not in stats} <= named
