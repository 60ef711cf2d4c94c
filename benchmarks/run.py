"""Runs applications: one job after the other, each measured run appended to the results as soon as its job is over."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from benchmarks import job, results
from benchmarks.app import RIVALS, App
from benchmarks.cluster.hosts import Hosts
from benchmarks.lines import lines_of
from dsm import _launch, _mpi, _settings

ONE_HOST = "one host"
# Each rank computes on one thread; BLAS would take all cores in every rank.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
TIMEOUT_S = 900.0


class UsageError(Exception):
    """The call cannot be carried out; the text is one line that names what is wrong."""


@dataclass(frozen=True)
class Place:
    """Where jobs run.

    Attributes
    ----------
    launcher : str
        "" for the mpiexec of the MPI that mpi4py loads, "srun", or the path of another mpiexec.
    hostfile : str
        Hosts of a cluster, in the MPI's format; "" for this host.
    rate : str
        Virtual hosts with links of this rate ("full", "1gbit", "100mbit"); "" for none.
    per_host : int
        Ranks of each virtual host.
    node : str
        Which ranks are a node of dsm: those of a "host", each "rank" by itself, or a number of ranks.
    """

    launcher: str = ""
    hostfile: str = ""
    rate: str = ""
    per_host: int = 1
    node: str = "host"

    @property
    def network(self) -> str:
        """What lies between the ranks, as the results name it."""
        if self.rate and self.per_host > 1:
            return f"{self.rate}, {self.per_host} ranks a host"
        return self.rate or (f"hosts of {Path(self.hostfile).name}" if self.hostfile else ONE_HOST)

    @contextlib.contextmanager
    def command(
        self, ranks: int, program: Sequence[str], environ: Mapping[str, str]
    ) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Make the command that runs `program` on some ranks, and its environment, to which `environ` belongs."""
        all_ = os.environ | job.node_environ(self.node) | dict(environ)
        if self.rate:
            with Hosts(-(-ranks // self.per_host), self.rate, self.per_host) as hosts:
                yield hosts.command(program, all_, ranks)
        elif self.launcher == "srun":
            yield ["srun", "-n", str(ranks), *program], all_
        else:
            hostfile, mpiexec = self.hostfile or None, self.launcher or None
            yield _launch.command(ranks, program, hostfile=hostfile, mpiexec=mpiexec, environ=all_)


@dataclass(frozen=True)
class Run:
    """One job to run: an application in a size, on some ranks, with pages of a size."""

    app: str
    size: str
    ranks: int
    page_size: int = 0  # 0: the default, or DSM_PAGE_SIZE
    aggregation: bool = True
    weak: bool = False  # the size is one rank's: it grows with the ranks

    def __str__(self) -> str:
        pages = f", pages of {self.page_size >> 10} KiB" if self.page_size else ""
        plain = "" if self.aggregation else ", no aggregation"
        weak = " each" if self.weak else ""
        return f"{self.app} {self.size}{weak}, {self.ranks} rank{'s' * (self.ranks > 1)}{pages}{plain}"

    def environ(self) -> dict[str, str]:
        """Return what the job needs beyond the environment of this process."""
        made = dict(ONE_THREAD)
        if self.page_size:
            made["DSM_PAGE_SIZE"] = str(self.page_size)
        if not self.aggregation:
            made["DSM_WITHOUT"] = ",".join(_settings.WITHOUT)
        return made

    def program(self, repetitions: int) -> list[str]:
        """Return the command of a rank, but for the file of results."""
        versions = "serial,mpi4py,dsm,floor" if self.ranks == 1 else "mpi4py,dsm,floor"
        words = [sys.executable, "-P", str(results.ROOT / "benchmarks" / "suite_rank.py")]
        words += ["--app", self.app, "--size", self.size, "--versions", versions]
        words += ["--weak"] * self.weak
        return [*words, "--repetitions", str(repetitions)]


class Runner:
    """Runs jobs and keeps what they measured.

    Parameters
    ----------
    apps : mapping
        The applications by their names.
    place : Place
        Where.
    repetitions : int
        Of each version, after one to warm up.
    path : Path
        The file that results are appended to.
    """

    def __init__(self, apps: Mapping[str, App], place: Place, repetitions: int, path: Path) -> None:
        self.apps, self.place, self.repetitions, self.path = apps, place, repetitions, path
        self.console = rich.console.Console()
        self.kept = 0
        self.failures: list[str] = []
        self.about = {
            "commit": results.commit(),
            "machine": results.machine(),
            "software": results.software(),
            "mpi": _mpi.short(_launch.loaded_mpi().library),
            "network": place.network,
            "node": place.node,
        }

    def run(self, runs: Sequence[Run]) -> None:
        """Run all; one that fails is told and does not take the others with it."""
        with self.progress(len(runs)) as advance:
            for made in runs:
                start = time.perf_counter()
                advance(f"{made}", 0)
                records, trouble = self.one(made)
                if trouble:
                    self.failures.append(f"{made}: {trouble}")
                told = trouble or _figures(records)
                advance(f"{made}: {told}  [{time.perf_counter() - start:.0f} s]", 1)

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Any]:
        """Show what runs and how long still on a terminal, and a plain line for each that is done elsewhere."""
        if not self.console.is_terminal:
            yield lambda text, done: print(text, flush=True) if done else None
            return
        columns = (
            rich.progress.SpinnerColumn(),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.description}", markup=False),
        )
        with rich.progress.Progress(*columns, console=self.console) as shown:
            task = shown.add_task("", total=total)

            def advance(text: str, done: int) -> None:
                if done:
                    shown.console.print(text, markup=False, highlight=False)
                    shown.advance(task)
                else:
                    shown.update(task, description=text)

            yield advance

    def one(self, made: Run) -> tuple[list[dict[str, Any]], str]:
        """Run an application: its records, and what went wrong."""
        app, now = self.apps[made.app], datetime.now(UTC)
        about = {
            "kind": "app",
            "job": f"{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}",
            "ranks": made.ranks,
            "page_size": made.page_size or _settings.settings().page_bytes,
            "aggregation": made.aggregation,
            "app": made.app,
            "size": made.size,
            "scaling": "weak" if made.weak else "strong",
        }
        return self.job(
            made.ranks,
            made.program(self.repetitions),
            made.environ(),
            TIMEOUT_S,
            lambda measured: about | {"lines": lines_of(app, measured["version"])},
        )

    def job(
        self,
        ranks: int,
        program: Sequence[str],
        environ: Mapping[str, str],
        timeout_s: float,
        about: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> tuple[list[dict[str, Any]], str]:
        """Run a program that appends lines of JSON to a file that `--results` names, and keep them as records.

        What it had measured is kept, too, when it fails or Ctrl-C ends it.  `about` tells what else belongs to a line's
        record.  Returns the records, and what went wrong.
        """
        with tempfile.TemporaryDirectory(prefix="dsm-benchmark-") as folder:
            file, output = Path(folder) / "results", Path(folder) / "output"
            file.touch()
            try:
                command = self.place.command(ranks, [*program, "--results", str(file)], environ)
                with command as (words, made), output.open("w") as said:
                    status = job.wait(words, made, timeout_s, said)
            finally:
                now = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}
                text = file.read_text()  # of a job that was ended the last line may be a part of one
                lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
                records = [now | self.about | about(line) | line for line in lines]
                results.append(self.path, records)
                self.kept += len(records)
            return records, trouble_of(status, output.read_text(errors="replace"), timeout_s)


def trouble_of(status: int, output: str, timeout_s: float) -> str:
    """Say in a line what ended a job; empty when it went well."""
    if status == 0:
        return ""
    if status == job.TIMED_OUT:
        return f"no end after {timeout_s:g} s"
    lines = [line for line in output.splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith("wrong result:")]
    errors = [line for line in lines if "Error" in line or line.startswith("dsm:")]
    if wrong:
        return wrong[0]
    return (errors or lines or [f"the job ended with status {status}"])[-1]


def _figures(records: Sequence[dict[str, Any]]) -> str:
    """Say the medians of a job's versions in a line."""
    medians = {record["version"]: results.median(record["times_s"]).value for record in records}
    told = ", ".join(f"{version} {seconds:.4g} s" for version, seconds in medians.items())
    over = [f"{rival} {medians[rival] / medians['dsm']:.2f}" for rival in RIVALS if {rival, "dsm"} <= set(medians)]
    return f"{told}; speed of dsm over {', over '.join(over)}" if over else told


def memory_needed(app: App, made: Run) -> int:
    """Estimate the bytes that a job touches on this machine: each rank's problem and shared copy, rank 0's results."""
    size = app.sizes[made.size]
    if made.weak and app.grow:
        size = app.grow(size, made.ranks)
    return app.memory(size) * (2 * made.ranks + 3)


def memory_available() -> int:
    """Return the bytes that the kernel would give; a great number where it does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 1 << 62


def check(runs: Sequence[Run], apps: Mapping[str, App]) -> None:
    """Refuse, before anything runs, what cannot run here."""
    for made in runs:
        needed = memory_needed(apps[made.app], made)
        if needed > memory_available():
            raise UsageError(
                f"{made} needs about {needed / 2**30:.1f} GiB, and {memory_available() / 2**30:.1f} GiB are free: "
                "take a smaller --size or fewer --ranks"
            )


def chosen(words: Sequence[str], apps: Mapping[str, App]) -> list[str]:
    """Return the applications that words name: by name, or all variants by what stands before the hyphen."""
    if not words:
        return list(apps)
    found: list[str] = []
    for word in words:
        named = [name for name in apps if word in (name, name.partition("-")[0])]
        if not named:
            raise UsageError(f"there is no application {word!r}; there are {', '.join(apps)}")
        found += [name for name in named if name not in found]
    return found


def grid(names: Sequence[str], size: str, ranks: Sequence[int], page_sizes: Sequence[int] = (0,)) -> list[Run]:
    """Return the runs of all combinations, an application after the other."""
    return [Run(name, size, r, page_size) for name in names for r in ranks for page_size in page_sizes]
