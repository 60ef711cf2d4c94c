"""What a rank of the job of a sweep runs: point after point; rank 0 appends a line of JSON for each.

The two programs of a point run in turns whose order alternates: `FIRST` steps and a few more each, from which the
number of steps in a batch follows, then a batch for each repetition.  A batch's time is the median of its steps, on
that rank where it is longest.  Every sum is verified; one that is wrong ends the job.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Last, so that an installed dsm, or the one that PYTHONPATH names, is the one that is measured.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks import synthetic
from benchmarks.app import WrongResultError, free_others, regions, require
from benchmarks.suite_rank import summed, wait_asleep
from benchmarks.synthetic import PATTERNS, WORD_BYTES, Exchange, Place, Point

# What dsm learns about a program, it has learnt in so many steps.
FIRST = 8
BATCH_S, BATCH_MIN, BATCH_MAX = 0.04, 4, 500
TINY_BATCH = 4
CALIBRATION_ROUNDS = 1 << 21
# With which the kernels are compiled beforehand: views of one piece are contiguous, those of several are not.
COMPILED_GRAINS = (8, 128)


class Program:
    """One of the two programs of a point."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.done = 0  # steps
        self.seconds = 0.0  # of all steps
        self.first_s = 0.0  # of a step among the first, on average
        self.batches: list[float] = []
        self.counters: dict[str, float] = {}

    def run(self, steps: int) -> float:
        """Run steps and verify them: returns the median of their times on the slowest rank.  Collective."""
        comm, step, first = MPI.COMM_WORLD, self.exchange.step, self.done
        sums, stamps = [0] * steps, np.empty(steps + 1)
        before = dict(dsm.stats())
        comm.Barrier()
        stamps[0] = time.perf_counter()
        for number in range(steps):
            sums[number] = step(first + number)
            stamps[number + 1] = time.perf_counter()
        comm.Barrier()
        growth = summed({name: value - before[name] for name, value in dsm.stats().items()})
        self.counters = {name: value / steps for name, value in growth.items() if value}
        self.done += steps
        together(functools.partial(self._verify, first, sums))
        self.seconds += comm.allreduce(float(stamps[-1] - stamps[0]), MPI.MAX)
        self.first_s = self.first_s or self.seconds / steps
        return comm.allreduce(float(np.median(np.diff(stamps))), MPI.MAX)

    def _verify(self, first: int, sums: list[int]) -> None:
        for number, found in enumerate(sums, first):
            wanted = self.exchange.expected(number)
            require(
                found == wanted,
                f"{type(self.exchange).__name__}, rank {self.exchange.rank}, step {number}: {found}, not {wanted}",
            )


def together(check: Callable[[], None]) -> None:
    """Raise on all ranks what `check` raises on one.  Collective."""
    wrong = ""
    try:
        check()
    except WrongResultError as why:
        wrong = str(why)
    for told in MPI.COMM_WORLD.allgather(wrong):
        require(not told, told)


def rounds_in_a_microsecond() -> float:
    """Find out how many rounds of the computation rank 0 does while the others sleep.  Collective."""
    times = []
    if MPI.COMM_WORLD.rank == 0:
        synthetic.compute(0, 1)
        for _ in range(7):
            start = time.perf_counter()
            synthetic.compute(0, CALIBRATION_ROUNDS)
            times.append(time.perf_counter() - start)
    wait_asleep()
    return MPI.COMM_WORLD.bcast(CALIBRATION_ROUNDS / min(times) / 1e6 if times else None)


def measure(point: Point, repetitions: int, tiny: bool, rounds_us: float) -> dict[str, Any]:
    """Measure a point and free its arrays; returns its record.  Collective."""
    comm = MPI.COMM_WORLD
    kept = regions()
    rounds = round(point.compute_us * rounds_us)
    place = Place(comm.rank, comm.size, point.bytes // WORD_BYTES, point.page_size, rounds)
    programs = {name: Program(made(place)) for name, made in PATTERNS[point.pattern].items()}
    for program in programs.values():
        program.run(FIRST)
    slower_s = max(program.run(TINY_BATCH) for program in programs.values())
    steps = TINY_BATCH if tiny else int(np.clip(BATCH_S / slower_s, BATCH_MIN, BATCH_MAX))
    for turn in range(repetitions):
        for program in list(programs.values())[:: 1 if turn % 2 else -1]:
            program.batches.append(program.run(steps))
    for program in programs.values():
        together(functools.partial(program.exchange.finish, program.done))
    record = as_record(point, programs, steps)
    del programs, program
    free_others(kept)
    return record


def as_record(point: Point, programs: Mapping[str, Program], steps: int) -> dict[str, Any]:
    """Make the record of a point: seconds of a step in each batch, on average over all steps, and over the first.

    The counters are dsm's, of a step of the last batch, summed over the ranks.
    """
    record: dict[str, Any] = point._asdict() | {"ranks": MPI.COMM_WORLD.size, "steps": steps}
    for name, program in programs.items():
        record[f"{name}_s"] = program.batches
        record |= {f"{name}_mean_s": program.seconds / program.done, f"{name}_first_s": program.first_s}
    return record | {"counters": programs["dsm"].counters, "load": os.getloadavg()[0]}


def numbers(text: str) -> list[int]:
    """Read numbers separated by commas."""
    return [int(word) for word in text.split(",") if word]


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", required=True, metavar="FILE", help="a line of JSON is appended for each point")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--patterns", type=lambda text: text.split(","), default=list(PATTERNS))
    parser.add_argument("--page-sizes", type=numbers, default=[], metavar="BYTES,...")
    parser.add_argument("--grains", type=numbers, default=[], metavar="BYTES,...")
    parser.add_argument("--computes", type=numbers, default=[], metavar="US,...")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.patterns if name not in PATTERNS]
    if unknown:
        parser.error(f"patterns are {', '.join(PATTERNS)}, not {', '.join(unknown)}")
    if any(grain < WORD_BYTES or grain & (grain - 1) for grain in options.grains):
        parser.error(f"grains are powers of two, {WORD_BYTES} or more")
    return options


def measure_all(options: argparse.Namespace) -> None:
    """Measure the points that were asked for and fit in memory.  Collective."""
    comm = MPI.COMM_WORLD
    rounds_us = rounds_in_a_microsecond()
    for pattern, grain in itertools.product(options.patterns, COMPILED_GRAINS):
        measure(Point(pattern, grain, 0, 4096), 1, True, rounds_us)
    points = synthetic.points(options.tiny, options.patterns, options.grains, options.page_sizes, options.computes)
    with open(options.results if comm.rank == 0 else os.devnull, "a") as file:
        for point in points:
            if synthetic.memory_bytes(point, comm.size) <= synthetic.MEMORY_BYTES_MAX:
                record = measure(point, options.repetitions, options.tiny, rounds_us)
                print(json.dumps(record), file=file, flush=True)


def main() -> int:
    """Run a sweep; the status is 3 after a wrong sum."""
    options = options_of()
    dsm.init()
    try:
        measure_all(options)
    except WrongResultError as why:
        if MPI.COMM_WORLD.rank == 0:
            print(f"wrong result: {why}", file=sys.stderr, flush=True)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
