"""What was measured: one JSON line per run, appended, never rewritten; read back with checks, medians and intervals.

A run is one version of one application in one job (kind "app"), the dsm version with or without one optimisation
(kind "ablation"), or one point of the sweep over granularities, where both programs ran in turns in one job (kind
"granularity").
"""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
CONFIDENCE = 0.95
RESAMPLES = 2000
KINDS: dict[str, tuple[str, ...]] = {
    "app": ("app", "size", "version", "times_s", "checksum", "counters", "lines", "aggregation", "scaling", "job"),
    "ablation": ("app", "size", "without", "times_s", "counters"),
    "granularity": ("pattern", "bytes", "compute_us", "dsm_s", "mpi4py_s", "counters"),
}
COMMON = ("kind", "time", "commit", "machine", "software", "mpi", "network", "ranks", "page_size")


class ResultsError(Exception):
    """A file of results cannot be used; the text is one line that names the file, the place and the trouble."""


class Interval(NamedTuple):
    """A median or a ratio of medians, and the bootstrap interval of 95 % around it."""

    value: float
    low: float
    high: float


def machine() -> dict[str, Any]:
    """Describe this machine, so that runs of different ones are not compared.  Local."""
    model = platform.machine()
    memory_kib = 0
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal"):
                memory_kib = int(line.split()[1])
    except OSError:
        pass  # not Linux: the name of the architecture has to do
    cores = len(os.sched_getaffinity(0))
    return {
        "host": socket.gethostname(),
        "cpu": model,
        "cores": cores,
        "memory_gib": round(memory_kib / 2**20),
        "kernel": platform.release(),
    }


def software() -> dict[str, str]:
    """Tell the versions that decide the speed.  Local."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", "scipy", "mpi4py"):
        found[name] = metadata.version(name)
    return found


def commit() -> str:
    """Name the commit of this tree, with "-dirty" behind it where files differ; "unknown" outside of git.  Local."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def append(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add records to a file; what is there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def load(path: Path) -> list[dict[str, Any]]:
    """Read a file.  A line that is damaged or lacks a field is an error that names it."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as why:
        raise ResultsError(f"{path}: cannot be read: {getattr(why, 'strerror', None) or why}") from None
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            raise ResultsError(f"{path}, line {number}: not JSON; delete the line, the others can be used") from None
        problem = _problem(record)
        if problem:
            raise ResultsError(f"{path}, line {number}: {problem}")
        records.append({"node": "rank"} | record)  # when hosts were no nodes, nothing was said about it
    if not records:
        raise ResultsError(f"{path}: holds no results; `python -m benchmarks run` makes some")
    return records


def _problem(record: Any) -> str:
    """Say what is wrong with a record; empty when nothing is."""
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        return f"not a record of kind {' or '.join(KINDS)}"
    missing = [name for name in COMMON + KINDS[record["kind"]] if name not in record]
    if missing:
        return f"lacks {', '.join(missing)}"
    for name in ("times_s", "dsm_s", "mpi4py_s"):
        times = record.get(name, [1.0])
        if not isinstance(times, list) or not times:
            return f"{name} holds no times"
        if not all(isinstance(t, (int, float)) and math.isfinite(t) and t > 0 for t in times):
            return f"{name} holds something that is not a time"
    return ""


def one_machine(records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> None:
    """Refuse to compare runs of different machines."""
    seen = {json.dumps(record["machine"], sort_keys=True) for record in [*records, *others]}
    if len(seen) > 1:
        told = " and ".join(sorted("{host} ({cpu}, {cores} cores)".format(**json.loads(text)) for text in seen))
        raise ResultsError(f"runs of different machines cannot be compared: {told}")


def median(times: Sequence[float]) -> Interval:
    """Return the median of times with its bootstrap interval (percentiles; Efron 1979)."""
    return _bootstrap((times,), lambda a, axis=-1: np.median(a, axis=axis))


def ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """Return the ratio of two medians with its bootstrap interval; the runs are independent."""
    return _bootstrap((above, below), lambda a, b, axis=-1: np.median(a, axis=axis) / np.median(b, axis=axis))


def _bootstrap(samples: tuple[Sequence[float], ...], statistic: Callable[..., Any]) -> Interval:
    value = float(statistic(*(np.asarray(sample) for sample in samples)))
    if min(len(sample) for sample in samples) < 2:
        return Interval(value, value, value)
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))


class Key(NamedTuple):
    """What tells runs of applications apart, but for their version."""

    app: str
    size: str
    scaling: str
    ranks: int
    page_size: int
    aggregation: bool
    network: str
    mpi: str
    node: str


def key_of(record: dict[str, Any]) -> Key:
    """Return the key of a run of an application."""
    return Key(*(record[name] for name in Key._fields))


def latest(records: Iterable[dict[str, Any]]) -> dict[Key, dict[str, dict[str, Any]]]:
    """Return for each key the versions of the last job that measured it: versions of one job ran in turns."""
    found: dict[Key, dict[str, dict[str, Any]]] = {}
    for record in records:
        if record["kind"] != "app":
            continue
        versions = found.get(key_of(record), {})
        if any(other["job"] != record["job"] for other in versions.values()):
            versions = {}
        found[key_of(record)] = versions | {record["version"]: record}
    return found
