"""Runs one program over dsm and over the floor, in turns with what mpi4py does for it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import dsm
from benchmarks.app import free_others, regions
from benchmarks.floor import Floor, on_one_host
from benchmarks.micro.bench import Bench
from benchmarks.micro.table import NOT_MEASURED, Case, Reach

Shared = ModuleType | Floor  # what a program takes in place of dsm
Program = Callable[[Shared], float]


def over(bench: Bench, program: Program) -> dict[str, Callable[[], float]]:
    """Return how to measure a program over dsm and, on one host, over the floor; its arrays are freed.  Collective."""

    def by_dsm() -> float:
        kept = regions()
        value = program(dsm)
        free_others(kept)
        return value

    def on_floor() -> float:
        with Floor(bench.comm) as floor:
            return program(floor)

    return {"dsm": by_dsm} | ({"floor": on_floor} if on_one_host(bench.comm) else {})


def cases(
    bench: Bench, row: str, what: str, unit: str, program: Program, mpi: dict[str, Callable[[], float]], reach: Reach
) -> list[Case]:
    """Measure a program in turns with its rivals: a case beside mpi4py, and one beside the floor.  Collective."""
    samples = bench.in_turns(**over(bench, program), **mpi)
    measured, counters = samples["dsm"], bench.counters.get("dsm", {})
    rivals = {name: samples[name] for name in mpi}
    if "floor" in samples:
        above = Case(row, f"{what}: the floor", unit, measured, {"the same over shared memory": samples["floor"]})
    else:
        above = Case(row, f"{what}: the floor", note="several hosts", verdict_given=NOT_MEASURED)
    return [Case(row, what, unit, measured, rivals, reach, counters=counters), above]
