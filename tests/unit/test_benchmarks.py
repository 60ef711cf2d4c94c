"""`python -m benchmarks micro`: its verdicts, and that every row of it runs."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: what is measured is the dsm that is installed, or named by PYTHONPATH

from benchmarks.micro import launch, table  # noqa: E402
from benchmarks.micro.table import Case, Reach  # noqa: E402
from benchmarks.reach import launch as reach  # noqa: E402

ABOUT = {"ranks": 2, "cores": 2, "hosts": False, "oversubscribed": False, "mpi": "X 1", "rounds": 3, "load": 0.5}


def case(measured, rivals=None, reach=None, unit="us"):
    return Case("S1", "a thing", unit, measured, rivals or {}, reach)


# ---- verdicts ----


@pytest.mark.parametrize(
    ("reach", "measured", "verdict"),
    [
        (Reach("ratio", 1.3), [13.0], "met"),
        (Reach("ratio", 1.3), [13.1], "missed"),
        (Reach("value", 13), [13.0], "met"),
        (Reach("value", 13), [13.1], "missed"),
        (Reach("excess", 3), [13.0], "met"),
        (Reach("excess", 3), [13.1], "missed"),
    ],
)
def test_what_takes_time_must_stay_below_its_reach(reach, measured, verdict):
    assert case(measured, {"rival": [10.0]}, reach).verdict() == verdict


@pytest.mark.parametrize(("measured", "verdict"), [([7.0], "met"), ([6.9], "missed")])
def test_a_rate_must_stay_above_its_reach(measured, verdict):
    made = case(measured, {"rival": [10.0]}, Reach("ratio", 0.7), "GB/s")
    assert made.verdict() == verdict
    assert made.reach_text() == ">= 0.7 x"


def test_medians_decide_and_not_the_best_or_the_last_round():
    made = case([1.0, 20.0, 30.0], {"rival": [10.0, 10.0, 1000.0]}, Reach("ratio", 1))
    assert (made.median, made.rival_median, made.ratio, made.verdict()) == (20.0, 10.0, 2.0, "missed")
    assert table.spread(made.measured) == "1-30"


def test_the_rival_is_the_best_one():
    rivals = {"slow": [20.0, 21.0, 22.0], "fast": [9.0, 10.0, 30.0]}
    assert case([10.0], rivals).rival == "fast"
    assert case([10.0], rivals, unit="GB/s").rival == "slow"


def test_between_hosts_another_reach_may_apply():
    made = case([100.0], reach=Reach("value", 70, hosts=140))
    assert (made.verdict(), made.verdict(hosts=True)) == ("missed", "met")
    assert (made.reach_text(), made.reach_text(hosts=True)) == ("<= 70 us", "<= 140 us")
    assert case([100.0], reach=Reach("value", 70)).verdict(hosts=True) == "missed"


def test_with_more_ranks_than_cores_no_reach_applies():
    assert case([1.0], reach=Reach("value", 70)).verdict(oversubscribed=True) == table.NO_REACH


def test_what_was_not_measured_meets_nothing():
    assert case([], reach=Reach("value", 70)).verdict() == table.NOT_MEASURED
    assert case([1.0], {"rival": [0.0]}, Reach("ratio", 2)).verdict() == table.NOT_MEASURED
    assert Case("S15", "a thing", reach=Reach("ratio", 2), verdict_given=table.NOT_YET).verdict() == "not there yet"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.012345, "0.0123"), (1.2345, "1.23"), (12.345, "12.3"), (1234.5, "1,234"), (math.nan, ""), (4.0, "4")],
)
def test_numbers_have_three_digits(value, text):
    assert table.number(value) == text


# ---- the table and the file ----


def test_cells_of_a_case():
    made = case([9.0, 10.0, 12.0], {"rival": [5.0, 4.0, 6.0]}, Reach("ratio", 1.3))
    made.note = "few"
    assert table.cells(made, ABOUT, {"S1 a thing": 4.0}) == [
        "S1",
        "a thing (few)",
        "10 us",
        "5 us: rival",
        "2",
        "<= 1.3 x",
        "missed",
        "9-12; 4-6",
        "2.50",
    ]
    assert table.cells(made, ABOUT, {})[-1] == ""


def test_json_holds_every_round_and_can_be_compared_with(tmp_path):
    cases = [case([9.0, 10.0, 12.0], {"rival": [5.0, 4.0, 6.0]}, Reach("ratio", 1.3)), Case("S2", "nothing")]
    file = tmp_path / "run.json"
    file.write_text(table.as_json(cases, ABOUT))
    written = json.loads(file.read_text())
    assert written["about"] == ABOUT
    first, second = written["cases"]
    assert (first["measured"], first["rivals"]) == ([9.0, 10.0, 12.0], {"rival": [5.0, 4.0, 6.0]})
    assert (first["median"], first["ratio"], first["verdict"]) == (10.0, 2.0, "missed")
    assert (second["median"], second["verdict"]) == (None, table.NOT_MEASURED)
    assert table.medians(str(file)) == {"S1 a thing": 10.0}


def test_the_table_is_printed_with_its_verdicts(capsys):
    pytest.importorskip("rich", reason="the table is printed by rich: `pip install rich`")
    table.show([case([9.0], {"rival": [9.0]}, Reach("ratio", 1.3))], ABOUT)
    printed = capsys.readouterr().out
    assert "a thing" in printed
    assert "9 us: rival" in printed
    assert "met" in printed
    assert "2 ranks on 2 cores, one host" in printed


def test_the_title_says_what_takes_the_meaning_from_figures():
    assert "busy" not in table.title(ABOUT)
    assert "busy" in table.title(ABOUT | {"load": 1.1})
    assert "oversubscribed: no reach applies" in table.title(ABOUT | {"ranks": 4, "oversubscribed": True})
    assert "2 hosts over TCP" in table.title(ABOUT | {"hosts": True})
    assert "1 hosts over TCP, node host" in table.title(ABOUT | {"hosts": True, "per_host": 2, "node": "host"})


# ---- the command ----


def test_only_takes_rows_in_any_order_and_refuses_others():
    assert launch.rows_named("s13, S4,S4") == ("S4", "S13")
    for text in ("S18", "", "S4,x"):
        with pytest.raises(argparse.ArgumentTypeError):
            launch.rows_named(text)


def test_a_median_needs_five_rounds(capsys):
    assert launch.main(["--rounds", "4"]) == 2
    assert "5 or more" in capsys.readouterr().err


def test_another_word_than_micro_is_refused():
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks", "macro"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (made.returncode, made.stdout) == (2, "")
    assert "micro" in made.stderr


def test_a_row_that_ends_its_job_does_not_take_the_others_with_it(monkeypatch):
    asked = []

    def job(self, rows, environ):
        asked.append(list(rows))
        done = rows[: rows.index("S5")] if "S5" in rows else rows
        return [Case(row, "done", "us", [1.0]) for row in done], int("S5" in rows)

    monkeypatch.setattr(launch.Jobs, "_job", job)
    cases = launch.Jobs(argparse.Namespace()).run(["S4", "S5", "S6", "S7"])
    assert asked == [["S4", "S5", "S6", "S7"], ["S6", "S7"]]
    assert [(case.row, case.verdict()) for case in cases] == [("S4", "-"), ("S5", "failed"), ("S6", "-"), ("S7", "-")]


# ---- the rows ----


def test_a_node_that_is_none_is_refused(capsys):
    for command in (launch, reach):
        assert command.main(["--tiny", "--node", "some"]) == 2
        assert "a node is host, rank or a number of ranks, not 'some'" in capsys.readouterr().err


def test_rows_of_reach_are_named_in_any_order():
    assert reach.rows_named("lock, memory,lock") == ("memory", "lock")
    with pytest.raises(argparse.ArgumentTypeError):
        reach.rows_named("memory,S1")


@pytest.mark.timeout(240)  # 13 s of computing, which a busy machine stretches
def test_every_row_runs():
    """At sizes that say nothing about speed; each row checks its results and ends the job when one is wrong."""
    options = launch.parser().parse_args(["--tiny", "--node", "rank", "--rounds", "1", "--timeout", "200"])
    jobs = launch.Jobs(options)
    cases = jobs.run(launch.ROWS)
    assert [case.what for case in cases if case.verdict_given == table.FAILED] == []
    assert {case.row for case in cases} == set(launch.ROWS)
    assert (jobs.about["ranks"], jobs.about["rounds"]) == (2, 1)
    for made in cases:
        if not made.verdict_given:
            assert all(math.isfinite(value) and value >= 0 for value in made.measured), made.what
            assert made.measured, made.what
            assert made.verdict() != table.NOT_MEASURED, made.what
    fetched = next(made for made in cases if made.row == "S4")
    assert 2 << 20 <= fetched.counters["bytes_received"] < 2.5 * (1 << 20)  # every byte travelled, and once


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mapped", [True, False])
def test_every_row_of_reach_runs(mapped, monkeypatch):
    """On virtual hosts where they can be made, and on one host with nodes that stand for them."""
    if not mapped:
        monkeypatch.setattr(reach.hosts, "why_not", lambda: "none here")
    words = [] if mapped else ["--only", "local-rank,crowd"]
    options = reach.parser().parse_args(["--tiny", "--rounds", "1", "--timeout", "200", *words])
    made = reach.measure(options)
    cases = [case for cases, _ in made for case in cases]
    assert [case.what for case in cases if case.verdict_given] == []
    assert {case.row for case in cases} == set(options.only)
    assert all(case.measured and math.isfinite(case.median) for case in cases)
    assert [about["node"] for _, about in made][-1] == ("host" if about_hosts(made) else "2")
    if not mapped:
        assert not about_hosts(made)


def about_hosts(made):
    """Whether the last layout ran on virtual hosts."""
    return made[-1][1]["hosts"]
