"""`run --races`: programs with a data race are told what races, where, and between which lines; others are not."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.node("")  # a search sets the mode that it needs

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parents[1] / "races"
BOTH = "both"


def load(name):
    specification = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def search(run, tmp_path):
    """Run a program, given as text or as words, with a search for races; return the job and what races.json holds."""

    def run_search(ranks, program, *arguments, env=None, seconds=100):
        job = run(ranks, program, *arguments, env={"DSM_RACES": str(tmp_path), **(env or {})}, seconds=seconds)
        return job, json.loads((tmp_path / "races.json").read_text())

    return run_search


def marked_lines():
    """For each program of racy.py: of both sides, the lines where their stretches begin and end."""
    lines = {}
    program = None
    for number, text in enumerate((PROGRAMS / "racy.py").read_text().splitlines(), 1):
        if found := re.match(r"def (\w+)\(rank", text):
            program = lines.setdefault(found[1], {})
        for mark in re.findall(r"[<>][12]", text.partition("  # ")[2]):
            program[mark] = number
    return lines


def sides_of(race):
    """The lines where the stretches of both sides begin and end; of equal sides in no order."""
    sides = [tuple(int(side[at].rpartition(":")[2]) for at in ("began", "ended")) for side in race["sides"]]
    return sides if race["kind"] == "read/write" else sorted(sides)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_each_racy_program_is_told(search, ranks):
    programs, lines = load("racy").PROGRAMS, marked_lines()
    job, report = search(ranks, [str(PROGRAMS / "racy.py")])
    assert job.status == 0, job
    assert report["complete"]
    assert len(programs) >= 25
    wrong = []
    for name, program in programs.items():
        marks = lines[name]
        sides = [(marks["<1"], marks[">1"]), (marks["<2"], marks[">2"])]
        expected = (program.kind, name + program.where(ranks), sides if program.kind == "read/write" else sorted(sides))
        told = [(race["kind"], race["where"], sides_of(race)) for race in report["races"] if race["array"] == name]
        if expected not in told or [race for race in told if race[0] == "write/write"] not in ([], [expected]):
            wrong.append(f"{name}: expected {expected}, told {told}")
    assert not wrong, "\n".join(wrong)
    certain = sum(program.kind == "write/write" for program in programs.values())
    assert job.err.count("dsm race: write/write: ") == certain
    assert f"dsm races: {certain} write/write" in job.err


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_no_write_race_is_told_of_programs_without(search, ranks):
    module = load("race_free")
    assert len(module.PROGRAMS) >= 25
    job, report = search(ranks, [str(PROGRAMS / "race_free.py")])
    assert job.status == 0, job
    assert report["complete"]
    assert not [race["where"] for race in report["races"] if race["certain"]]
    told = {race["array"] for race in report["races"]}
    assert not told & {text for name in module.CLEAN for text in (name, f"total of {name}")}
    assert told  # of pages that ranks share, reads are possible: the search is on


@pytest.mark.parametrize("example", ["heat", "histogram", "kmeans", "primes", "tsp"])
def test_no_write_race_is_told_of_an_example(search, example):
    job, report = search(3, [str(ROOT / "examples" / f"{example}.py")])
    assert job.status == 0, job
    assert report["complete"]
    assert not [race["where"] for race in report["races"] if race["certain"]]


@pytest.mark.slow
def test_no_write_race_is_told_of_an_application(search):
    job, report = search(
        3,
        f"""
        sys.path.append({str(ROOT)!r})
        from benchmarks import apps, suite_rank
        for app in apps.load().values():
            suite_rank.Job(app, app.sizes["tiny"]).run(["dsm"], 1)
        """,
        seconds=400,
    )
    assert job.status == 0, job
    assert report["complete"]
    assert not [race["where"] for race in report["races"] if race["certain"]]


RACE = """
a = dsm.zeros(8, name="a")
a[3] = dsm.rank() + 1
dsm.barrier()
"""


def test_the_command_searches_and_says_so(run, tmp_path):
    file = tmp_path / "program.py"
    file.write_text("import dsm\n" + RACE)
    job = run(0, ["-m", "dsm", "run", "--races", "-n", "2", str(file)])
    assert job.status == 0, job
    assert "DSM_RACES=1 (--races)" in job.err
    line = "dsm race: write/write: a[3:4] by rank 0 (zeros at program.py:3 -> barrier at program.py:5) and rank 1 ("
    assert line in job.err
    assert [race["where"] for race in json.loads((tmp_path / "races.json").read_text())["races"]] == ["a[3:4]"]


def test_it_does_not_search_unless_it_is_told(run, tmp_path):
    job = run(2, RACE + "print(type(dsm._runtime.active().lib).__name__)")
    assert job.status == 0, job
    assert "_Watched" not in job.out
    assert "race" not in job.err
    assert not (tmp_path / "races.json").exists()


def test_other_nodes_are_refused(run):
    job = run(2, RACE, env={"DSM_RACES": "1", "DSM_NODE": "host"})
    assert job.status != 0
    assert "DSM_RACES finds races between nodes: DSM_NODE must be 'rank'" in job.err
    job = run(0, ["-m", "dsm", "run", "--races", "--node", "2", "-n", "2", "program.py"])
    assert job.status != 0
    assert "--races" in job.err


def test_one_rank_has_no_races(run):
    job = run(1, RACE, env={"DSM_RACES": "1"})
    assert job.status == 0, job
    assert "DSM_RACES has nothing to find on one rank" in job.err


def test_what_was_found_before_the_job_died_is_there(search):
    job, report = search(2, RACE + "dsm.barrier()\nsys.exit(3)")
    assert job.status != 0
    assert [race["where"] for race in report["races"]] == ["a[3:4]"]
    assert "dsm race: write/write: a[3:4]" in job.err


def test_an_array_without_a_name_is_told_by_its_variable(search):
    job, report = search(
        2,
        """
        def work():
            plate = dsm.zeros((4, 4))
            plate[1] = dsm.rank() + 1
            dsm.barrier()

        work()
        dsm.zeros(3)[:2] = dsm.rank() + 1
        """,
    )
    assert job.status == 0, job
    assert {race["where"] for race in report["races"]} == {"plate[1:2, 0:4]", "zeros((3,), float64)[0:2]"}


def test_finalize_compares_the_rest(search):
    job, report = search(2, "a = dsm.zeros(8, name='a')\na[3] = dsm.rank() + 1\ndsm.finalize()")
    assert job.status == 0, job
    assert [side["ended"].split(" at ")[0] for race in report["races"] for side in race["sides"]] == ["finalize"] * 2


def test_many_sections_in_an_epoch(search):
    """Thousands of stretches between two barriers; one of them forgets the lock."""
    job, report = search(
        3,
        """
        a, lock = dsm.zeros(4, name="a"), dsm.Lock()
        for step in range(1500):
            with lock:
                a[0] += 1
            if step == 700 + dsm.rank():
                a[1] += dsm.rank() + 1
        dsm.barrier()
        assert a[0] == 4500
        """,
    )
    assert job.status == 0, job
    assert report["complete"]
    assert {race["where"] for race in report["races"] if race["certain"]} <= {"a[1:2]"}
