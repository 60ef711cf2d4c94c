"""Litmus programs in the simulator, judged by happens-before; and the judge itself.

Each program runs on all schedules that differ in their first decisions, as many as scope.py says, and on schedules and
policies of the protocol that seeds choose.  `DSM_TEST_DEPTH=2` takes two more decisions than that, each of which
multiplies the schedules by a number between one and two, and four times as many seeds.
"""

import os

import pytest
from litmus import in_simulator, programs, promise
from litmus.scope import SCOPE
from native import simulator

DEEPER = int(os.environ.get("DSM_TEST_DEPTH", "0"))
SHARED_SEEDS, SHARED_DECISIONS = 10 << DEEPER, 4 + DEEPER  # for each way to share hosts
SEEDS = 100 << DEEPER  # for shapes; three times as many for programs that are made for one rule

every_program = pytest.mark.parametrize("program", programs.PROGRAMS, ids=lambda program: program.name)


# --- the judge -------------------------------------------------------------------------------------------------------


def test_the_source_is_as_large_as_it_was():
    assert len({program.name for program in programs.PROGRAMS}) == len(programs.PROGRAMS) >= 60
    assert sum(len(program.placements) for program in programs.PROGRAMS) >= 200


@every_program
def test_programs_say_what_happens_before_says(program):
    """What a program calls impossible must not be allowed, and what it wants to see must be."""
    for width in {programs.place(placement, 0, 64)[1] for placement in program.placements}:
        allowed = promise.outcomes(program, width)
        assert not [outcome for outcome in allowed if program.says(program.never, outcome)]
        assert allowed
        for expression in program.reached:
            assert any(program.says(expression, outcome) for outcome in allowed)


def interleaved(threads, at=None, memory=None, registers=None):
    """All outcomes of a program without locks when one operation after the other is carried out."""
    at, memory, registers = at or [0] * len(threads), memory or {}, registers or {}
    ready = [t for t, thread in enumerate(threads) if at[t] < len(thread.ops)]
    if not ready:
        yield tuple(value for _, value in sorted(registers.items()))
    elif all(threads[t].ops[at[t]].kind == "barrier" for t in ready):
        yield from interleaved(threads, [k + (t in ready) for t, k in enumerate(at)], memory, registers)
    for t in ready:
        op = threads[t].ops[at[t]]
        after = [k + (t == i) for i, k in enumerate(at)]
        if op.kind == "write":
            yield from interleaved(threads, after, memory | {op.what: op.value}, registers)
        elif op.kind == "read":
            yield from interleaved(threads, after, memory, registers | {op.value: memory.get(op.what, 0)})


@pytest.mark.parametrize("shape", programs.SHAPES, ids=lambda shape: shape.name)
def test_free_of_races_means_interleaved(shape):
    """The promise of the shapes under locks is that of one memory that does one access after the other."""
    racy, *locked, barriers = programs.variants(shape)
    expected = set(interleaved(racy.threads))
    assert [promise.outcomes(program) for program in locked] == [expected] * len(locked)
    assert promise.outcomes(barriers) == set(interleaved(barriers.threads))
    assert expected <= promise.outcomes(racy)
    assert not [outcome for outcome in expected if racy.says(shape.weak, outcome)]


def test_the_judge_is_neither_blind_nor_strict():
    def allowed(text):
        return promise.outcomes(programs.Program("", text, ""))

    assert allowed("0: x=1; x=2; r0=x") == {(2,)}
    assert allowed("0: x=1\n1: r0=x") == {(0,), (1,)}
    assert allowed("0: x=1; barrier\n1: x=2; barrier; r0=x") == {(1,), (2,)}
    assert allowed("0: r0=x; y=1\n1: r1=y; x=1") == {(0, 0), (0, 1), (1, 0)}
    assert allowed("0: x=1; free; allocate\n1: free; allocate; r0=x") == {(0,)}
    with pytest.raises(ValueError, match="deadlock"):
        allowed("0: acquire a; acquire b\n1: acquire b; acquire a")
    with pytest.raises(ValueError, match="no operation"):
        allowed("0: x==1")


# --- the protocol ----------------------------------------------------------------------------------------------------


def test_the_scope_is_as_large_as_it_was():
    assert SCOPE.keys() == {program.name for program in programs.PROGRAMS}
    scopes = [scope for scopes in SCOPE.values() for scope in scopes]
    assert len(scopes) == sum(len(program.placements) for program in programs.PROGRAMS)
    assert sum(schedules for _, schedules in scopes) >= 125_000
    assert sum(decisions == 0 for decisions, _ in scopes) >= 40  # these are explored to the end


@every_program
def test_outcomes(program):
    """Only what is promised, and all that is expected, on as many schedules as there were."""
    shown = set()
    for placement, (decisions, schedules) in zip(program.placements, SCOPE[program.name], strict=True):
        translated = in_simulator.Translated(program, placement)
        explored, counts = translated.explore(decisions + DEEPER if decisions else 0)
        assert explored >= 0.75 * schedules, f"{placement}: there were {schedules} schedules, now there are {explored}"
        counts += translated.sample(range(3 * SEEDS if program in programs.OWN else SEEDS))
        wrong = counts.keys() - promise.outcomes(program, translated.width)
        assert not wrong, f"{placement}, {program.registers}: {counts}; because {program.why}"
        assert not [outcome for outcome in counts if program.says(program.beyond, outcome)]
        shown |= counts.keys()
    assert [e for e in program.reached if not any(program.says(e, outcome) for outcome in shown)] == []


def test_there_are_as_many_homes_as_ways_to_share_hosts_and_processes():
    texts = ("0: x=1\n1: x=2", "0: x=1\n1: x=2\n2: x=3", "0: barrier\n1: barrier\n2: barrier")
    two, three, meeting = (programs.Program("", text, "") for text in texts)
    assert in_simulator.homes(two) == [((0, 0), (0, 0)), ((0, 0), (0, 1)), ((0, 0), (1, 1))]
    assert [len(in_simulator.homes(program)) for program in (three, meeting)] == [12, 5]


@every_program
def test_outcomes_of_nodes_that_share_hosts(program):
    """What is promised of nodes is promised of processes of one host, and of threads of one process."""
    for home in in_simulator.homes(program)[:-1]:
        for placement in program.placements:
            translated = in_simulator.Translated(program, placement, home)
            _, counts = translated.explore(SHARED_DECISIONS, any_space=1)
            counts += translated.sample(range(SHARED_SEEDS))
            wrong = counts.keys() - promise.outcomes(program, translated.width)
            assert not wrong, f"{placement}, {home}, {program.registers}: {counts}; because {program.why}"


def test_what_writes_without_order_leave_behind():
    """The one place where this protocol gives less than happens-before promises, so that nobody takes it for more.

    Two nodes wrote a byte without synchronisation and now see it differently.  A later write, in good order, of the
    value that its own node sees changes no byte there: no diff tells the other node, which keeps its own.  A different
    value comes through.
    """

    def wrong(later):
        text = f"""
            0: x=1; barrier; r0=x; barrier; x={later}; barrier; r1=x
            1: x=2; barrier; r2=x; barrier; barrier; r3=x
            """
        program = programs.Program("unordered writes", text, "")
        translated = in_simulator.Translated(program, "one page")
        return translated.sample(range(300)).keys() - promise.outcomes(program)

    assert wrong(3) == set()
    with pytest.raises(simulator.Failed, match=r"peeked [12] .* too old or never written; the latest is 2"):
        wrong(2)
