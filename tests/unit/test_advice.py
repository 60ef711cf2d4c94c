"""Advice over profiles made by hand: what is told, with which numbers; and what is not told of a sound program.

tests/faults/test_advice.py has programs with each fault, and without it.
"""

from pathlib import Path

import profiles
import pytest

from dsm._report.advice import KINDS, advise, first_line
from dsm._report.profile import Profile
from dsm._report.scalars import scalar_loops


def told(**parts):
    """The kinds of advice on such a profile, with what each found."""
    return dict(advise(Profile(profiles.profile(**parts))))


def sharing(pages=10, phases=1000, *, writes=(250, 250), **more):
    """An array with pages that two ranks write in one phase, for which ranks wait a quarter of the run."""
    contested = profiles.contested(pages, phases, 64 * phases)
    given = {"wait_s": 0.5, "fetches": 1000, "pages_written": list(writes), "contested": contested}
    return profiles.array(0, "grid", **{"shape": (500, 500), **given, **more})


def test_nothing_is_told_of_a_run_that_computes():
    assert told() == {}
    assert first_line(profiles.profile()) == ""


def test_borders_of_blocks_inside_pages_are_padded():
    found = told(arrays=[sharing()])
    assert set(found) == {"shared-pages"}
    one = found["shared-pages"]
    assert "dsm.zeros((500, 512))[:, :500]" in one.code
    assert one.gain_s == pytest.approx(0.5)
    assert "10 pages" in one.evidence[0]
    assert "1,000 times" in one.evidence[0]


def test_the_line_of_the_program_is_what_changes():
    site = profiles.site(0, "allocation", 9, source='plate = dsm.zeros((500, 500), page_size=65536, name="grid")')
    array = sharing(page_bytes=1 << 16, allocated_at=0)
    assert told(arrays=[array], sites=[site])["large-pages"].code.startswith(
        "plate = dsm.zeros((500, 500), name='grid', "
    )
    site["source"] = "x = make()"
    assert told(arrays=[array], sites=[site])["large-pages"].code.startswith(
        "dsm.zeros((500, 500), 'float64', page_size="
    )
    site["source"] = "a, x = dsm.zeros(9), dsm.zeros(9)"
    assert "dsm.zeros((500, 500), 'float64', page" in told(arrays=[array], sites=[site])["large-pages"].code


def test_rows_too_short_to_pad_begin_with_pages():
    one = told(arrays=[sharing(shape=(9000, 3))])["shared-pages"]
    assert "every 512 rows" in one.remedy
    assert "grid[512 * part.start : 512 * part.stop]" in one.code
    assert "512 rows are 3 pages" in one.code


def test_an_array_of_less_than_a_page_for_each_rank_gets_one():
    assert "dsm.zeros((2, 512))" in told(arrays=[sharing(pages=1, shape=(2,), writes=(1, 1))])["shared-pages"].code


@pytest.mark.parametrize(
    "array",
    [
        sharing(contested=profiles.contested()),
        sharing(contested=profiles.contested(10, 1000, 64, "true")),
        sharing(contested=profiles.contested(10, 3, 64)),
        sharing(wait_s=0.001),
    ],
    ids=["not shared", "same bytes", "seldom", "no wait"],
)
def test_pages_are_not_padded_without_need(array):
    assert told(arrays=[array]) == {}


def test_pages_larger_than_the_pieces_of_ranks_become_smaller():
    found = told(arrays=[sharing(page_bytes=1 << 18, contested=profiles.contested(4, 500, 500 * 2 * 9000))])
    assert set(found) == {"large-pages"}
    assert "page_size=8192" in found["large-pages"].code


def test_items_dealt_out_in_turn_become_blocks():
    found = told(arrays=[sharing(pages=480, writes=(488, 480))])
    assert set(found) == {"interleaved"}
    assert "dsm.local(grid)" in found["interleaved"].code


def fetched(rank, runs):
    return {"rank": rank, "written": [], "read": [], "fetched": runs}


def test_long_reads_of_small_pages_get_larger_ones():
    array = profiles.array(shape=(4096, 512), strips=[fetched(1, [[128, 128, 2]])], fetches=[0, 4096], wait_s=[0, 0.8])
    array |= {"pages_read": [0, 4096]}
    array["by_rank"]["faults_read"] = [0, 4096]
    found = told(arrays=[array])
    assert set(found) == {"small-pages"}
    assert "page_size=65536" in found["small-pages"].code
    assert found["small-pages"].gain_s == pytest.approx(0.75)
    assert told(arrays=[array | {"page_bytes": 1 << 16}]) == {}
    read_ahead = array["by_rank"] | {"faults_read": [0, 600]}
    assert told(arrays=[array | {"by_rank": read_ahead}]) == {}
    scattered = [[2 * i, 1, 2] for i in range(64)]
    assert told(arrays=[array | {"strips": [fetched(1, scattered)]}]) == {}


def table(readers, **more):
    read = [100 if rank in readers else 0 for rank in range(4)]
    strips = [{"rank": 0, "written": [[0, 100, 1]], "read": [], "fetched": []}]
    more = {"pages_written": [100, 0, 0, 0], "fetches": read, "wait_s": [0, 0.2, 0.2, 0.2]} | more
    return profiles.array(0, "table", (100, 512), 4, pages_read=read, strips=strips, **more)


def test_a_table_that_all_read_is_broadcast():
    found = told(size=4, arrays=[table({1, 2, 3})])
    assert set(found) == {"read-by-all"}
    assert found["read-by-all"].code.startswith("dsm.broadcast(table, root=0)")
    assert told(size=4, arrays=[table({1})]) == {}
    call = profiles.site(0, "collective", source="dsm.broadcast(table)", size=4, arrays=[[0, 90]])
    assert told(size=4, arrays=[table({1, 2, 3}, faults_read=[0, 30, 30, 30])], sites=[call]) == {}
    assert told(size=4, arrays=[table({1, 2, 3}, wait_s=0.001)]) == {}


def everything(times=50, read=(256, 256)):
    strips = [
        {"rank": r, "written": [[128 * r, 128, times]], "read": [], "fetched": [[128 * (1 - r), 128, times]]}
        for r in (0, 1)
    ]
    counts = {"pages_written": [256, 256], "pages_read": list(read), "fetches": 5000, "bytes_received": 1 << 20}
    return profiles.array(0, "x", (512, 512), strips=strips, wait_s=0.4, **counts)


def test_reading_all_of_what_the_others_write_is_told():
    found = told(arrays=[everything()])
    assert set(found) == {"reads-everything"}
    assert "x.copy()" in found["reads-everything"].code
    assert "reads-everything" not in told(arrays=[everything(times=1)])
    assert "reads-everything" not in told(arrays=[everything(read=(3, 3))])


def filled(first_writer, pages_received=(0, 500)):
    counts = {"pages_received": list(pages_received), "fetches": [0, 500], "wait_s": [0.0, 0.4]}
    return profiles.array(
        0, "field", (1024, 512), first_writer=first_writer, pages_written=[1024, 512], pages_read=[0, 9], **counts
    )


def test_first_touch_by_a_rank_that_does_not_work_on_it():
    found = told(arrays=[filled([[0, 256, 0]])])
    assert set(found) == {"first-touch"}
    assert "dsm.local(field)" in found["first-touch"].code
    assert told(arrays=[filled([[0, 128, 0], [128, 128, 1]])]) == {}
    assert told(arrays=[filled([[0, 256, 0]], (0, 5))]) == {}


def unread(**more):
    strips = [{"rank": 1, "written": [[0, 256, 90]], "read": [], "fetched": []}]
    more = {"pages_written": [0, 512], "faults_write": [0, 9000], "wait_s": [0, 0.2]} | more
    return profiles.array(0, "log", (512, 512), strips=strips, **more)


def test_what_nobody_reads_becomes_private():
    found = told(arrays=[unread()])
    assert set(found) == {"unread"}
    assert "np.zeros((512, 512), 'float64')" in found["unread"].code
    assert told(arrays=[unread(fetches=[3, 0])]) == {}
    assert told(arrays=[unread(pages_read=[3, 0])]) == {}
    assert told(arrays=[unread()], run={"one_node": True}) == {}, "one node watches no page"


def handed(**more):
    given = {"acquires": 1000, "waited_s": 0.6, "held_s": 0.002, "hand_overs": [[0, 1, 900, 0.6], [1, 0, 900, 0.6]]}
    return profiles.lock(**(given | {"sites": [[0, 2000]]} | more))


def test_a_lock_for_each_item_takes_more_at_a_time():
    sites = [profiles.site(0, "acquire", 31, source="with lock:")]
    found = told(locks=[handed()], sites=sites)
    assert set(found) == {"lock-per-item"}
    assert "prog.py:31" in found["lock-per-item"].code
    assert found["lock-per-item"].gain_s == pytest.approx(0.6, rel=0.05)
    assert told(locks=[handed(held_s=0.9)], sites=sites) == {}, "the work is under the lock"
    assert told(locks=[handed(hand_overs=[[0, 1, 9, 0.6]])], sites=sites) == {}
    worked = [profiles.site(0, "acquire", 31, computed_s=1.9)]
    assert told(locks=[handed()], sites=worked) == {}, "there is more work between than a hand-over takes"
    assert told(locks=[handed(waited_s=0.001)], sites=sites) == {}


def test_a_counter_for_each_item_gives_more_at_a_time():
    sites = [profiles.site(0, "counter", 31, source="while (i := tickets.next()) < n:", calls=2000, waited_s=0.4)]
    sites[0]["by_rank"]["computed_s"] = [0.2, 0.2]
    found = told(sites=sites)
    assert set(found) == {"counter-per-item"}
    assert "tickets.next()" in found["counter-per-item"].code
    sites[0]["by_rank"]["computed_s"] = [30.0, 30.0]
    assert told(sites=sites) == {}


def uneven(computed, imbalance, **more):
    return [profiles.site(calls=100, computed_s=computed, imbalance_s=imbalance, waited_s=imbalance, size=4, **more)]


def test_a_rank_with_more_to_do_gets_less():
    sites = uneven([0.5, 0.5, 0.5, 1.5], [1.0, 1.0, 1.0, 0.0])
    one = told(size=4, sites=sites)["imbalance"]
    assert one.title == "Ranks wait for rank 3 at prog.py:10"
    assert one.gain_s == pytest.approx(0.75)
    assert "50 %" in one.remedy
    assert "1.50 s" in one.evidence[1]


def test_work_of_one_rank_alone_is_shared_out():
    one = told(size=4, sites=uneven([1.5, 0, 0, 0], [0.0, 1.5, 1.5, 1.5]))["imbalance"]
    assert one.title.startswith("Only rank 0 works")


def test_a_delay_that_wanders_is_no_ranks_fault():
    one = told(size=4, sites=uneven([1.0] * 4, [0.3] * 4))["imbalance"]
    assert one.title.startswith("Ranks wait for each other")


def test_even_work_is_sound():
    assert told(size=4, sites=uneven([1.0] * 4, [0.1] * 4)) == {}


def test_a_barrier_with_nothing_before_it_is_deleted():
    sites = [profiles.site(0, calls=100, waited_s=0.1, latency_s=0.1, empty=100), profiles.site(1, line=12, calls=100)]
    found = told(sites=sites)
    assert set(found) == {"empty-barrier"}
    assert "prog.py:10" in found["empty-barrier"].code
    sites[0]["by_rank"]["computed_s"] = [0.01, 0.0]  # time enough for a write that takes no fault
    assert told(sites=sites) == {}
    sites[0]["by_rank"]["computed_s"] = [0.0, 0.0]
    sites[0]["empty"] = 3
    assert told(sites=sites) == {}


LOOP = """\
import dsm
import numpy as np
shared = dsm.zeros((100, 100))
private = np.zeros(100)
for step in range(10):
    {head}
        {body}
    dsm.barrier()
"""


def lines(tmp_path, body, head="for i in range(100):", seconds=1.5):
    file = tmp_path / "prog.py"
    file.write_text(LOOP.format(head=head, body=body))
    source = {"file": str(file), "line": 7, "function": "", "source": body, "by_rank": [seconds, 0.1]}
    sites = [profiles.site(0, "allocation", 3, file=str(file))]
    return {"lines": [source], "sites": sites, "arrays": [profiles.array(0, "shared", (100, 100), allocated_at=0)]}


def test_a_loop_over_single_elements_is_told(tmp_path):
    found = told(**lines(tmp_path, "shared[i, 2 * i + 1] += 1"))
    assert set(found) == {"scalar-loop"}
    one = found["scalar-loop"]
    assert one.title == "The loop at prog.py:6 touches `shared` one number at a time"
    assert "`shared[i, 2 * i + 1]` in line 7" in one.evidence[0]
    assert one.gain_s == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ("shared[i] += 1", {}),
        ("shared[i, :] += 1", {}),
        ("private[i] += 1", {}),
        ("shared[i, i] += 1", {"seconds": 0.01}),
        ("shared[i, 0] += 1", {"head": "for i in items:"}),
    ],
    ids=["row", "slice", "private", "quick", "not numbers"],
)
def test_other_loops_are_sound(tmp_path, body, more):
    assert told(**lines(tmp_path, body, **more)) == {}


def test_compiled_loops_are_sound():
    loop = "import dsm\na = dsm.zeros(9)\n{}def f(a):\n    for i in range(9):\n        a[i] += 1\n"
    assert len(scalar_loops(loop.format(""))) == 1
    assert scalar_loops(loop.format("@numba.njit(cache=True)\n")) == []
    assert scalar_loops("not python at all") == []


def made_in_a_loop(count=20, alive=True):
    return [
        profiles.array(i, f"a{i}", allocated_at=0, allocated_s=0.1 * i, alive=alive, freed_s=None if alive else 0.1 * i)
        for i in range(count)
    ]


def test_arrays_of_a_loop_are_freed():
    sites = [profiles.site(0, "allocation", 5, source="tmp = dsm.zeros((512, 512))")]
    found = told(sites=sites, arrays=made_in_a_loop())
    assert set(found) == {"never-freed"}
    assert found["never-freed"].code.startswith("dsm.free(tmp)")
    assert found["never-freed"].gain_bytes == 19 * 512 * 512 * 8
    assert told(sites=sites, arrays=made_in_a_loop(alive=False)) == {}
    assert told(sites=sites, arrays=made_in_a_loop(3)) == {}
    at_once = [array | {"allocated_s": 0.1} for array in made_in_a_loop()]
    assert told(sites=sites, arrays=at_once) == {}, "arrays made before the work begins"


MIB = 1 << 20


def test_memory_that_grows_is_told():
    values = [i * 20 * MIB for i in range(10)]
    array = profiles.array(pages_written=[256, 256])
    states = told(memory=[profiles.memory(0, values)], arrays=[array])["growing-memory"]
    assert "page_size=65536" in states.code
    diffs = told(memory=[profiles.memory(0, values, diff_bytes=values)], arrays=[array])["growing-memory"]
    assert diffs.code.startswith("DSM_COLLECT_BYTES=30M")
    assert diffs.gain_bytes == 120 * MIB


@pytest.mark.parametrize(
    "values",
    [[20 * MIB] * 10, [i % 3 * 40 * MIB for i in range(10)], [i * 1000 for i in range(10)], [0, 80 * MIB]],
    ids=["level", "up and down", "little", "two samples"],
)
def test_other_memory_is_sound(values):
    assert told(memory=[profiles.memory(0, values)], arrays=[profiles.array(pages_written=[1, 1])]) == {}


def test_more_ranks_than_cores():
    waiting = [profiles.rank(r, 2.0, barrier_s=1.0) for r in range(4)]
    found = told(size=4, cores=2, ranks=waiting)
    assert set(found) == {"more-ranks-than-cores"}
    assert found["more-ranks-than-cores"].code == "python -m dsm run -n 2 prog.py 512"
    assert found["more-ranks-than-cores"].gain_s == pytest.approx(1.0)
    assert told(size=4, cores=4, ranks=waiting) == {}


def test_the_largest_gain_stands_first():
    made = profiles.profile(
        arrays=[sharing()], locks=[handed(sites=[])], memory=[profiles.memory(0, [i * 20 * MIB for i in range(9)])]
    )
    found = advise(Profile(made))
    assert [kind for kind, _ in found][:2] == ["lock-per-item", "shared-pages"]
    assert first_line(made).startswith("Lock 0 goes from rank to rank for each item (at most ")


def test_each_kind_of_advice_has_a_test_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []
