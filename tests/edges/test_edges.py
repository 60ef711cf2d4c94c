"""Random programs come to the end that README promises, and the driver that runs them notices when one does not."""

import dataclasses
import os
import re

import pytest
from edges import drive, programs


@pytest.mark.timeout(3000)
def test_programs_come_to_the_end_that_is_promised(seeds):
    failures = drive.run_all(seeds, workers=2)
    assert not failures, f"{len(failures)} of {len(seeds)} programs:\n" + "\n\n".join(failures)


def test_a_seed_is_a_program():
    assert programs.program(4711) == programs.program(4711)
    assert len({programs.program(seed).text for seed in range(100)}) == 100


def test_some_hundred_seeds_have_every_way_to_end():
    made = [programs.program(seed) for seed in range(600)]
    text = "\n".join(program.text for program in made)
    assert {program.ranks for program in made} == {0, 1, 2, 3, 4}
    assert {program.env["DSM_NODE"] for program in made if program.ranks > 2} == {*programs.NODES}
    assert len({program.kind for program in made}) == 8
    assert {program.by.split()[0] for program in made if program.by} == {word.split()[0] for word in programs.SIGNALS}
    ends = [re.sub(r"\b5\b", "NUMBER", re.escape(end.text)) for end in programs.bad_ends(5)]
    for end in [*ends, *(re.escape(end.text) for end in programs.GOOD_ENDS)]:
        assert re.search(end.replace("NUMBER", r"\d+").replace("\\\n", r"\s*"), text), end


KEPT = dataclasses.replace(
    programs.program(0),
    ranks=0,
    by="",
    env={},
    promise=programs.Promise(frozenset({3}), told=("told",), printed=("printed",)),
    text="import os, sys, time\nprint('printed')\nprint('told', file=sys.stderr)\nsys.exit(3)\n",
)


def test_a_promise_that_is_kept(tmp_path):
    assert drive.run(KEPT, tmp_path) < drive.LIMIT_OF_BUSY_S


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("sys.exit(3)", "sys.exit(4)", "another status"),
        ("print('printed')", "", "'printed' is printed 0 times"),
        ("print('printed')", "print('printed')\nprint('printed')", "'printed' is printed 2 times"),
        ("'told'", "'nothing'", "'told' is not told"),
        ("'told'", "'told\\ndsm: rank 1 of 2: finds an error'", "dsm's last words are about another rank"),
        ("sys.exit(3)", "open('left', 'w')\nsys.exit(3)", "files are left: {'left'}"),
        (
            "sys.exit(3)",
            "open('/dev/shm/dsm_left', 'w')\nsys.exit(3)",
            "files are left in /dev/shm: {'/dev/shm/dsm_left'}",
        ),
        ("sys.exit(3)", "if not os.fork():\n    time.sleep(60)\nos._exit(3)", "processes are left"),
        ("sys.exit(3)", "time.sleep(60)", "still running after"),
    ],
)
def test_a_promise_that_is_broken_is_noticed(tmp_path, monkeypatch, old, new, found):
    if "running" in found:
        monkeypatch.setattr(drive, "limit_s", lambda: 1.5)
    text = KEPT.text.replace("sys.exit(3)", "sys.stdout.flush()\nsys.exit(3)").replace(old, new)
    try:
        with pytest.raises(AssertionError, match=re.escape(found)):
            drive.run(dataclasses.replace(KEPT, text=text), tmp_path)
    finally:
        if "dsm_left" in new:
            os.unlink("/dev/shm/dsm_left")


PROMISE = programs.Promise
ONE_OF_TWO = "dsm: rank 1 of 2: finds an error"


@pytest.mark.parametrize(
    ("promise", "said", "found"),
    [
        (PROMISE(frozenset({0})), "Exception ignored in", "'Exception ignored' is told"),
        (PROMISE(frozenset()), "", "status 0"),
        (PROMISE(frozenset({0}), about=frozenset({1})), f"{ONE_OF_TWO}\n{ONE_OF_TWO}", "more than one last word"),
        (PROMISE(frozenset({0})), "passed", "a rank passed that could not"),
    ],
)
def test_what_must_not_be_is_noticed(tmp_path, promise, said, found):
    text = f"import sys\nfor file in (sys.stdout, sys.stderr):\n    print({said!r}, file=file)\n"
    with pytest.raises(AssertionError, match=found):
        drive.run(dataclasses.replace(KEPT, text=text, promise=promise), tmp_path)
