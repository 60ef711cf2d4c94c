"""What a rank of a job of the suite runs: the versions of an application in turns; rank 0 appends what it measured.

Each version runs once to warm up, mpi4py once more with its messages counted, then all `repetitions` times in turns
whose order alternates.  Every result is verified, and one that is wrong ends the job: it is an error and not a time.
Counters are medians over the repetitions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Last, so that an installed dsm, or the one that PYTHONPATH names, is the one that is measured.
sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks import apps, floor
from benchmarks.app import App, Result, Team, WrongResultError, checksum, free_others, private, regions
from benchmarks.counting import CountedComm

POLL_S = 0.001


def wait_asleep() -> None:
    """Wait for all ranks without spinning, while one of them works.  Collective."""
    request = MPI.COMM_WORLD.Ibarrier()
    while not request.Test():
        time.sleep(POLL_S)


def summed(counters: Mapping[str, int]) -> dict[str, int]:
    """Add up counters of all ranks.  Collective."""
    total = np.array(list(counters.values()), np.int64)
    if total.size:
        MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, total)
    return {name: int(value) for name, value in zip(counters, total, strict=True)}


def medians(counted: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the median of each counter; of an even number the lower one."""
    return {name: statistics.median_low(counters[name] for counters in counted) for name in counted[0]}


class Job:
    """One application in one size, as the application's `make` takes it, on the ranks of this job."""

    def __init__(self, app: App, size: Any) -> None:
        self.app, self.comm = app, MPI.COMM_WORLD
        self.problem = app.make(size)
        self.reference: Result | None = None
        self.sum = ""  # of the last result

    def once(self, version: str, counted: bool = False) -> tuple[float, dict[str, int]]:
        """Run a version and verify its result: seconds of the slowest rank, counters of all.  Collective."""
        alone = version == "serial"
        team = Team(self.comm, self.comm.rank, self.comm.size)
        if alone:
            team = Team(None, 0, 1)
        elif version == "dsm":
            team.comm, team.statistics = None, dsm.stats
        elif version == "floor":
            team.comm = None
        elif counted:
            team.comm = CountedComm(self.comm)
        kept = regions()
        wrong = ""
        result: Result | None = None
        if not alone or self.comm.size == 1:
            result = self._solve(version, team)
        if self.comm.rank == 0:
            assert result is not None
            if alone:
                self.reference = result
            try:
                self.app.verify(self.problem, result, self.reference)
            except WrongResultError as why:
                wrong = f"{self.app.name}, {version}: {why}"
            self.sum = checksum(result)
        wait_asleep()
        wrong = self.comm.bcast(wrong)
        if wrong:
            raise WrongResultError(wrong)
        if version == "dsm":
            free_others(kept)
        return self.comm.allreduce(team.seconds, MPI.MAX), summed(team.counters)

    def _solve(self, version: str, team: Team) -> Result | None:
        """Run a version; returns a private copy of its result on rank 0, and lets go of the others'.  Collective."""
        program = getattr(self.app, version)
        with floor.instead_of_dsm(program, self.comm) if version == "floor" else contextlib.nullcontext():
            result = program(self.problem, team)
            return private(result) if self.comm.rank == 0 else None

    def make_reference(self) -> None:
        """Solve alone on rank 0, while the others sleep.  Collective."""
        if self.comm.rank == 0:
            self.reference = private(self.app.serial(self.problem, Team(None, 0, 1)))
        wait_asleep()

    def run(self, versions: list[str], repetitions: int) -> list[dict[str, Any]]:
        """Measure; a record for each version.  Collective."""
        if not self.app.published and "serial" not in versions:
            self.make_reference()
        records: dict[str, dict[str, Any]] = {}
        for version in versions:
            records[version] = {"app": self.app.name, "version": version, "times_s": [], "counters": {}}
        counted = []
        for version in versions:
            self.once(version)  # compiles, and after it who takes which task is as it will be
        if "mpi4py" in versions:
            records["mpi4py"]["counters"] = self.once("mpi4py", counted=True)[1]
        for turn in range(repetitions):
            for version in versions if turn % 2 else reversed(versions):
                seconds, counters = self.once(version)
                records[version]["times_s"].append(seconds)
                records[version]["checksum"] = self.sum
                if version == "dsm":
                    counted.append(counters)
                    records[version]["counters"] = medians(counted)
        return list(records.values())


def main() -> int:
    """Run applications, one after the other; the status is 3 after a wrong result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True, help="names, with commas between them")
    parser.add_argument("--size", required=True)
    parser.add_argument("--weak", action="store_true")
    parser.add_argument("--versions", required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    parser.add_argument("--results", required=True)
    options = parser.parse_args()
    dsm.init()
    for name in options.app.split(","):
        try:
            records = run_app(apps.load_one(name), options)
        except WrongResultError as why:
            if MPI.COMM_WORLD.rank == 0:
                print(f"wrong result: {why}", file=sys.stderr, flush=True)
            return 3
        if MPI.COMM_WORLD.rank == 0:
            with open(options.results, "a") as file:
                for record in records:
                    print(json.dumps(record), file=file, flush=True)
    return 0


def run_app(app: App, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one application; a record for each version.  Collective."""
    size = app.sizes[options.size]
    if options.weak:
        assert app.grow is not None
        size = app.grow(size, MPI.COMM_WORLD.size)
    versions = options.versions.split(",")
    if not floor.on_one_host(MPI.COMM_WORLD):
        versions = [version for version in versions if version != "floor"]
    return Job(app, size).run(versions, options.repetitions)


if __name__ == "__main__":
    sys.exit(main())
