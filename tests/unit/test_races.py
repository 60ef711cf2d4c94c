"""The search for races, without a job: what is watched, how logs are cut, how a part of an array is described."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsm import _race_report, _races

ROOT = Path(__file__).parents[2]
PUBLISH_NOTHING = {"dsm_init", "dsm_counter_add", "dsm_counter_await", "dsm_flag_clear"}


def test_each_call_that_may_wait_is_watched():
    header = (ROOT / "csrc" / "dsm.h").read_text()
    waiting = set(re.findall(r"\bint (dsm_\w+)\([^)]*\bslice_s\b", header))
    assert len(waiting) > 10
    watched = {name for name in vars(_races._Watched) if name.startswith("dsm_")}
    assert waiting - watched == PUBLISH_NOTHING
    # These take no slice, and synchronise all the same.
    assert watched - waiting == {"dsm_acquire_here", "dsm_release", "dsm_flag_is_here", "dsm_flag_is_set"}


def test_any_other_function_of_the_core_is_itself():
    lib = SimpleNamespace(dsm_rank_of=lambda: 3)
    watched = _races._Watched(lib, None)
    assert watched.dsm_rank_of is lib.dsm_rank_of
    assert watched.dsm_rank_of() == 3


# ---- logs ---------------------------------------------------------------------------------------------------------

STRETCH = np.dtype([("arrivals", "u8"), ("departures", "u8")])
EDGE = np.dtype([("stretch", "u4")])
PAGE = np.dtype([("page", "u8"), ("stretch", "u4"), ("region", "u4"), ("run_first", "u4"), ("run_count", "u4")])
RUN = np.dtype([("from", "u4"), ("to", "u4")])


def log():
    """Three stretches; the second one reads page 1 and writes pages 2 and 3, the third one writes page 1."""
    stretches = np.array([(0, 0), (0, 0), (1, 1)], STRETCH)
    pages = np.array([(1, 1, 7, 0, 0), (2, 1, 7, 0, 2), (3, 1, 7, 2, 1), (1, 2, 7, 3, 1)], PAGE)
    runs = np.array([(0, 8), (16, 24), (4, 5), (8, 16)], RUN)
    return _races.Log(stretches, np.array([(1,), (2,)], EDGE), pages, runs)


def written(of):
    """Page, stretch and bytes of what a log holds."""
    return [
        (int(page["page"]), int(page["stretch"]), of.runs[page["run_first"] :][: page["run_count"]].tolist())
        for page in of.pages
    ]


def test_a_part_of_a_log_keeps_its_bytes():
    part = log().only(np.array([True, False, True, True]))
    assert written(part) == [(1, 1, []), (3, 1, [(4, 5)]), (1, 2, [(8, 16)])]
    assert len(part.runs) == 2
    assert len(part.stretches) == 3
    assert written(log().only(np.zeros(4, bool))) == []


def test_what_ended_before_a_meeting_is_dropped():
    rest = log().since(1)
    assert written(rest) == [(1, 0, [(8, 16)])]
    assert rest.stretches["departures"].tolist() == [1]
    assert rest.edges["stretch"].tolist() == [0]
    assert written(log().since(0)) == written(log())


def test_a_log_goes_on_behind_another_one():
    both = log().since(1).then(log())
    assert written(both) == [(1, 0, [(8, 16)]), *((page, at + 1, runs) for page, at, runs in written(log()))]
    assert both.edges["stretch"].tolist() == [0, 2, 3]


def test_a_page_of_an_array_is_one_number():
    keys = log().keys()
    assert keys[0] == keys[3]
    assert len(set(keys.tolist())) == 3


# ---- places ---------------------------------------------------------------------------------------------------------


def place(elements, shape, dtype=float, order="C", itemsize=None):
    """The text for these elements, given by their numbers in the order of memory."""
    dtype = np.dtype(dtype)
    array = SimpleNamespace(shape=shape, order=order, dtype=dtype)
    size = itemsize or dtype.itemsize
    ranges = np.array([[k * size, (k + 1) * size] for k in elements], np.int64)
    return _race_report.place_in(array, "a", ranges).text


@pytest.mark.parametrize(
    ("where", "shape"),
    [
        (np.s_[3:7], (20,)),
        (np.s_[3:4], (20,)),
        (np.s_[0:20:4], (20,)),
        (np.s_[2:5, 0:6], (8, 6)),
        (np.s_[2:5, 3:4], (8, 6)),
        (np.s_[0:8:2, 1:6:2], (8, 6)),
        (np.s_[0:1, 2:4, 1:3], (2, 4, 3)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_box_is_found_again(where, shape, order):
    numbers = np.arange(np.prod(shape)).reshape(shape, order=order)[where]
    text = place(sorted(numbers.ravel().tolist()), shape, order=order)
    name = f"a[{', '.join(_race_report._text_of(one.indices(n)) for one, n in zip(_tuple(where), shape, strict=True))}]"
    made = eval(text, {"a": np.arange(np.prod(shape)).reshape(shape, order=order)})  # the text is an expression
    assert sorted(made.ravel().tolist()) == sorted(numbers.ravel().tolist()), (text, name)


def _tuple(where):
    return where if isinstance(where, tuple) else (where,)


def test_what_is_no_box_is_counted_within_one():
    assert place([0, 1, 5], (20,)) == "3 elements of a[0:6]"
    assert place([0, 7], (4, 5)) == "2 elements of a[0:2, [0, 2]]"


def test_a_set_too_large_to_look_at_each_element_has_a_box(monkeypatch):
    monkeypatch.setattr(_race_report, "ELEMENTS_MAX", 3)
    assert place(range(10, 20), (8, 5)) == "a[2:4, 0:5]"
    assert place(range(11, 20), (8, 5)) == "9 elements of a[2:4, 0:5]"


def test_a_scalar_and_a_field():
    assert place([0], ()) == "a[()]"
    dtype = np.dtype([("x", np.int32), ("y", np.int16, 4)])
    array = SimpleNamespace(shape=(5,), order="C", dtype=dtype)
    assert _race_report.place_in(array, "a", np.array([[24, 26]])).text == "a['x'][2:3]"
    assert _race_report.place_in(array, "a", np.array([[30, 32]])).text == "a['y'][2:3]"
    assert _race_report.place_in(array, "a", np.array([[26, 32]])).text == "a[2:3]"


def test_a_byte_of_an_element_is_the_element():
    array = SimpleNamespace(shape=(5,), order="C", dtype=np.dtype(float))
    assert _race_report.place_in(array, "a", np.array([[15, 17]])).text == "a[1:3]"


def test_ranges_that_touch_are_one():
    ranges = np.array([[8, 16], [0, 4], [4, 9], [20, 21], [10, 12]])
    assert _race_report.merged(ranges).tolist() == [[0, 16], [20, 21]]


# ---- the report -----------------------------------------------------------------------------------------------------

RACE = np.dtype(
    [
        ("page", "u8"),
        ("from", "u4"),
        ("to", "u4"),
        ("region", "u4"),
        ("kind", "u4"),
        ("nodes", "i4", 2),
        ("stretches", "u4", 2),
    ]
)


def reported(races, folder, capsys):
    """The lines and the file for races between stretches of two ranks, all of which began and ended elsewhere."""
    array = SimpleNamespace(
        id=1, address=0, bytes=8192, page_bytes=4096, name="a", label="", shape=(1024,), order="C", dtype=np.dtype("f8")
    )
    stretches = np.array([(0, 1), (1, 2), (2, 0)], [("began", "u4"), ("ended", "u4")])
    places = [f"rank {rank}: " + text for rank in range(2) for text in ("one", "two", "three")]
    report = _race_report.Report(2, str(folder))
    report.add(_race_report.Found(np.array(races, RACE), [stretches] * 2, [places[:3], places[3:]]), {1: array})
    report.finish()
    return capsys.readouterr().err.splitlines(), json.loads((folder / "races.json").read_text())["races"]


def test_each_pair_of_places_is_told_once(tmp_path, capsys):
    race = (0, 8, 16, 1, 0, (0, 1), (0, 0))
    lines, races = reported([race, (1, 0, 8, 1, 0, (0, 1), (0, 0)), (0, 0, 8, 1, 0, (0, 1), (1, 0))], tmp_path, capsys)
    assert {found["where"] for found in races} == {"a[[1, 512]]", "a[0:1]"}
    assert len(lines) == 3
    assert lines[-1].startswith("dsm races: 2 write/write, 0 possible")


def test_a_possible_race_that_a_certain_one_says_is_left_out(tmp_path, capsys):
    certain = (0, 8, 16, 1, 0, (0, 1), (0, 0))
    lines, races = reported([certain, (0, 8, 16, 1, 1, (1, 0), (0, 0))], tmp_path, capsys)
    assert [race["kind"] for race in races] == ["write/write"]
    assert len(lines) == 2


def test_whole_pages_come_before_a_byte(tmp_path, capsys):
    byte, page = (0, 0, 1, 1, 1, (0, 1), (0, 0)), (0, 0, 4096, 1, 1, (0, 1), (1, 1))
    _, races = reported([byte, page, (0, 0, 4096, 1, 2, (0, 1), (2, 2))], tmp_path, capsys)
    assert [(race["sides"][1]["access"], race["elements"]) for race in races] == [
        ("read", 512),
        ("read", 1),
        ("may have read", 512),
    ]
    assert races[0]["share"] == 1


def test_an_array_of_dsm_itself_is_not_told(tmp_path, capsys):
    lines, races = reported([(0, 0, 8, 5, 0, (0, 1), (0, 0))], tmp_path, capsys)
    assert races == []
    assert len(lines) == 1
