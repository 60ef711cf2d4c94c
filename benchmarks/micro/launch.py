"""Starts the job, on this host or on several virtual ones, and prints the table of what it measured."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import job
from benchmarks.cluster.hosts import Hosts
from benchmarks.micro import table
from benchmarks.micro.table import FAILED, Case, Reach
from dsm import _launch, _mpi

ROWS = tuple(f"S{number}" for number in range(1, 18))
ALONE = "S16"  # counts memory: what earlier rows left behind would be taken for free
BOUNDED = "S17"  # in a job with a bound, and in one without
WITH_THROTTLE = "S8"
ROUNDS_MIN = 5
PROGRAM = Path(__file__).with_name("rank.py")


def parser() -> argparse.ArgumentParser:
    """Make the parser of `python -m benchmarks micro`."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks micro", description="What single operations cost, beside MPI in the same run."
    )
    made.add_argument("--ranks", "-n", type=int, default=2, help="processes (default 2; reaches are meant for 2)")
    made.add_argument("--rounds", type=int, default=7, help=f"rounds of each row, {ROUNDS_MIN} or more (default 7)")
    made.add_argument("--only", type=rows_named, default=ROWS, metavar="S4,S13", help="these rows")
    made.add_argument("--hosts", action="store_true", help="each rank on a virtual host, over TCP (as root)")
    add_common(made)
    made.add_argument("--beside", metavar="FILE", help="compare with the JSON of another run: a column of ratios")
    return made


def add_common(made: argparse.ArgumentParser) -> None:
    """Add the options of all commands that print such a table."""
    made.add_argument("--node", default="host", help=f"ranks that are a node of dsm: {job.NODES} (default host)")
    made.add_argument("--json", metavar="FILE", help="write everything there, too: each round, the counters")
    made.add_argument("--counters", action="store_true", help="print the statistics of dsm that explain the times")
    made.add_argument("--tiny", action="store_true", help="sizes and rounds that only show that the rows work")
    made.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="the longest time of a job")


def rows_named(text: str) -> tuple[str, ...]:
    """Read `--only`: rows in the order of the table, each once."""
    wanted = {word.strip().upper() for word in text.split(",") if word.strip()}
    if not wanted or not wanted <= set(ROWS):
        raise argparse.ArgumentTypeError(f"rows are {ROWS[0]} to {ROWS[-1]}, not {text!r}")
    return tuple(row for row in ROWS if row in wanted)


class Jobs:
    """The jobs of one call: each runs some rows, and a row that ends its job does not take the others with it.

    Parameters
    ----------
    options : Namespace
        Of the command.
    program : Path, optional
        What a rank runs.
    per_host : int, optional
        Ranks of each virtual host.
    """

    def __init__(self, options: argparse.Namespace, program: Path = PROGRAM, per_host: int = 1) -> None:
        self.options, self.program, self.per_host = options, program, per_host
        self.about: dict[str, Any] = {}

    def run(self, rows: Sequence[str], environ: dict[str, str] | None = None) -> list[Case]:
        """Run rows in one job, and those behind a row that failed in another.  Returns their cases."""
        cases: list[Case] = []
        left = list(rows)
        while left:
            found, status = self._job(left, environ or {})
            cases += found
            # A row that failed may have left some of its cases; those before it left all of theirs.
            done = [row for row in left if any(case.row == row for case in found)]
            if status == 0:
                break
            failed = next((row for row in left if row not in done), None)
            if failed is None:
                break
            cases.append(Case(failed, f"the job ended with status {status}", verdict_given=FAILED))
            left = left[left.index(failed) + 1 :]
        return cases

    def _job(self, rows: Sequence[str], environ: dict[str, str]) -> tuple[list[Case], int]:
        options = self.options
        with tempfile.TemporaryDirectory(prefix="dsm-benchmark-") as folder, contextlib.ExitStack() as stack:
            results = Path(folder) / "results"
            results.touch()
            program = [sys.executable, "-P", str(self.program), "--per-host", str(self.per_host)]
            program += ["--rows", ",".join(rows), "--results", str(results), "--rounds", str(options.rounds)]
            program += ["--tiny"] * options.tiny + ["--hosts"] * options.hosts
            environ = job.node_environ(options.node) | environ
            if options.hosts:
                hosts = stack.enter_context(Hosts(options.ranks // self.per_host, per_host=self.per_host))
                words, made = hosts.command(program, environ)
            else:
                plan = _launch.plan(options.ranks, program, environ=os.environ | environ)
                words, made = plan.words, plan.environ
                if plan.settings:
                    print(f"{words[0]}; set: {'; '.join(plan.settings)}", file=sys.stderr)
            status = job.wait(words, made, options.timeout)
            lines = results.read_text().splitlines()
        if lines and not self.about:  # of the first job: the later ones find the load that the earlier ones made
            self.about = json.loads(lines[0]) | {"node": options.node}
        return [table.from_json(line) for line in lines[1:]], status


def measure(options: argparse.Namespace) -> tuple[list[Case], dict[str, Any]]:
    """Run the rows that were asked for: in one job, and where it matters in one of their own."""
    jobs = Jobs(options)
    cases = jobs.run([row for row in options.only if row not in (ALONE, BOUNDED)])
    throttle = {"MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1", "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "100"}
    if (
        WITH_THROTTLE in options.only
        and not options.hosts
        and options.ranks <= _launch.cores()
        and _mpi.family(_launch.loaded_mpi().library) == "MPICH"
    ):
        with_throttle = jobs.run([WITH_THROTTLE], throttle)
        for case in with_throttle:
            case.what += ", with MPICH's progress throttle"
        cases += with_throttle
    if ALONE in options.only:
        cases += jobs.run([ALONE])
    if BOUNDED in options.only:
        cases += bounded(jobs)
    return sorted(cases, key=lambda case: int(re.sub(r"\D", "", case.row))), jobs.about


def bounded(jobs: Jobs) -> list[Case]:
    """Run the row whose rival is itself without a bound."""
    cases = jobs.run([BOUNDED], {"DSM_CACHE_BYTES": "1M" if jobs.options.tiny else "16M"})
    free = jobs.run([BOUNDED], {"DSM_WITHOUT": "evict"})
    if free[0].measured:
        cases[0].rivals["no bound"] = free[0].measured
        cases[0].reach = Reach("ratio", 0.5)
    return cases


def problem_of(options: argparse.Namespace) -> str:
    """Say in a line why options cannot be carried out; empty when they can.  `--tiny` has few rounds."""
    if options.tiny:
        options.rounds = min(options.rounds, 2)
    elif options.rounds < ROUNDS_MIN:
        return f"{options.rounds} rounds are too few for a median: {ROUNDS_MIN} or more"
    try:
        job.node_environ(options.node)
    except ValueError as why:
        return str(why)
    missing = [name for name in ("numba", "rich") if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}. `pip install {' '.join(missing)}`" if missing else ""


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and tell by the status whether every row ran: 0, or 1."""
    options = parser().parse_args(arguments)
    problem = problem_of(options)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    # The job has a session of its own and would outlive this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    beside = table.medians(options.beside) if options.beside else None
    cases, about = measure(options)
    if not about:
        print("the job ended before it measured anything", file=sys.stderr)
        return 1
    table.show(cases, about, beside, options.counters)
    if options.json:
        Path(options.json).write_text(table.as_json(cases, about) + "\n")
    return int(any(case.verdict_given == FAILED for case in cases))
