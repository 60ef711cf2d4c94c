"""Litmus programs under this MPI: what all ranks read is what happens-before allows.

`DSM_TEST_LITMUS=1000` runs each program so many times, spread over the placements of its variables; `-rP` shows how
often each outcome came.  A program is not run where it needs more nodes than there are ranks.
"""

import os
import zlib

import pytest
from litmus import programs, promise, under_mpi

import dsm

pytestmark = pytest.mark.mpi

RUNS = int(os.environ.get("DSM_TEST_LITMUS", 200 // dsm.size()))
FITTING = [program for program in programs.PROGRAMS if program.nodes <= dsm.size()]


@pytest.fixture(scope="module")
def locks():
    return under_mpi.make_locks()


@pytest.mark.timeout(120 + RUNS)
@pytest.mark.parametrize("program", FITTING, ids=lambda program: program.name)
def test_outcomes(program, locks):
    dsm.barrier()
    for placement in program.placements:
        seed = zlib.crc32(f"{program.name} {placement}".encode())
        runs = -(-RUNS // len(program.placements))
        counts = under_mpi.run(program, placement, runs, seed, locks)
        width = programs.place(placement, 0, under_mpi.PAGE_BYTES)[1]
        shown = ", ".join(f"{outcome}: {count}" for outcome, count in sorted(counts.items(), key=str))
        print(f"{program.name}, {placement}, {dsm.size()} ranks, {program.registers}: {shown}")
        assert counts.total() == runs
        wrong = counts.keys() - promise.outcomes(program, width)
        assert not wrong, f"{program.name}, {placement}, {program.registers}: {shown}; because {program.why}"


def test_some_programs_fit():
    assert dsm.size() == 1 or len(FITTING) >= {2: 35, 3: 50}.get(dsm.size(), 58)
