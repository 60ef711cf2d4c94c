"""What the report computes from records: which runs belong together, ratios, verdicts, shares, recommendations."""

from __future__ import annotations

import functools
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.app import App
from benchmarks.report.words import geometric_mean
from benchmarks.results import Interval, Key
from dsm._settings import PAGE_BYTES_DEFAULT

Record = dict[str, Any]
ONE_HOST = "one host"
RATES = ("full", "1gbit", "100mbit")  # networks of virtual hosts, from fast to slow
REACH_RANKS = 2  # the reach of an application is given for these
CLOSE = 0.95  # within 5 % of mpi4py's speed
NEAR = 0.8  # the speed from which on a granularity counts as coarse enough


class Verdict(NamedTuple):
    """Whether a reach is met, and whether the interval leaves it open."""

    met: bool
    open: bool


class Split(NamedTuple):
    """Shares of the ranks' time; they add up to 1."""

    compute: float
    data: float
    lock: float
    barrier: float

    @property
    def largest_wait(self) -> str:
        """Name what is waited for most; empty where nothing is."""
        waits = {"data": self.data, "locks": self.lock, "barriers": self.barrier}
        return max(waits, key=lambda name: waits[name]) if any(waits.values()) else ""


class Sweep(NamedTuple):
    """The speed of dsm over mpi4py in one size: of each application, at each value of what was varied."""

    size: str
    values: list[Any]
    table: dict[str, dict[Any, Interval]]

    def means(self) -> tuple[dict[Any, float], list[str]]:
        """Return the geometric mean at each value, and over which applications: those that have all the values.

        Where a sweep is not complete, the values and applications are taken that leave most to compare.
        """
        kept = max(
            ({*row} for row in self.table.values()),
            key=lambda values: (len(values) > 1) * len(values) * sum(values <= {*row} for row in self.table.values()),
        )
        names = [name for name, row in self.table.items() if kept <= {*row}]
        values = [value for value in self.values if value in kept]
        return {v: geometric_mean([self.table[name][v].value for name in names]) for v in values}, names


class Reasons(NamedTuple):
    """What the counters of dsm say about the time of one application."""

    speed: float  # over mpi4py's
    reach: float
    split: Split
    faults_per_s: float
    messages: tuple[int, int]  # of mpi4py and of dsm
    bytes: tuple[int, int]
    diffs: int
    collections: int


class Heat(NamedTuple):
    """The speed of dsm over mpi4py of one pattern, by bytes per synchronisation (rows) and page size (columns)."""

    pattern: str
    page_sizes: list[int]
    bytes: list[int]
    speed: dict[tuple[int, int], float]

    def enough(self, page_size: int) -> int | None:
        """Return the bytes from which on the speed stays near mpi4py's; None where it never does."""
        found = None
        for bytes_ in reversed(self.bytes):
            if self.speed.get((bytes_, page_size), NEAR) < NEAR:
                break
            found = bytes_
        return found


class Measured:
    """All records, by what the report asks for.

    Parameters
    ----------
    records : sequence of dict
        As `results.load` returns them.
    apps : mapping
        The applications by their names; one that is not there has no reach and no paper.
    """

    def __init__(self, records: Sequence[Record], apps: Mapping[str, App]) -> None:
        self.records, self.apps = records, apps
        self.jobs = results.latest(records)
        measured = [key for key in self.jobs if key.aggregation and key.scaling == "strong"] or list(self.jobs)
        self.names = [name for name in apps if any(key.app == name for key in self.jobs)]
        self.names += sorted({key.app for key in self.jobs} - set(apps))
        self.plain = {
            "scaling": "strong",
            "page_size": _usual(self._dsm_runs("page_size"), PAGE_BYTES_DEFAULT),
            "aggregation": True,
            "network": _usual((key.network for key in measured), ONE_HOST, always=True),
            "mpi": _usual((key.mpi for key in measured), ""),
            "node": _usual((key.node for key in measured), "host", always=True),
        }
        self.sizes = self._sizes()
        ranks = {key.ranks for key in self.jobs if key.size in self.sizes[:1] and self._is_plain(key, "ranks")}
        self.ranks = REACH_RANKS if REACH_RANKS in ranks else min(ranks - {1} or {REACH_RANKS})

    def _dsm_runs(self, name: str) -> Iterable[Any]:
        return (record[name] for record in self.records if record["kind"] == "app" and record["aggregation"])

    def _is_plain(self, key: Key, *varied: str) -> bool:
        return all(getattr(key, name) == value for name, value in self.plain.items() if name not in varied)

    def _sizes(self) -> list[str]:
        """Return the sizes of plain runs, the one with the most of them first."""
        runs = Counter(key.size for key in self.jobs if self._is_plain(key))
        return sorted(runs, key=lambda size: -runs[size])

    @property
    def cores(self) -> int:
        """How many cores the machine of the last record has."""
        return int(self.records[-1]["machine"].get("cores", 1)) if self.records else 1

    # ---- one application ----

    def job(self, app: str, size: str, ranks: int | None = None, **varied: Any) -> dict[str, Record]:
        """Return the versions of a job that is plain but for what is given."""
        key = Key(app=app, size=size, **(self.plain | {"ranks": ranks or self.ranks} | varied))
        return self.jobs.get(key, {})

    def serial(self, app: str, size: str) -> Record | None:
        """Return the serial run: of the plain job on one rank, else of any."""
        jobs = [self.job(app, size, 1)]
        jobs += [job for key, job in self.jobs.items() if (key.app, key.size, key.scaling) == (app, size, "strong")]
        return next((job["serial"] for job in jobs if "serial" in job), None)

    def ratio(
        self, app: str, size: str, ranks: int | None = None, rival: str = "mpi4py", **varied: Any
    ) -> Interval | None:
        """Return the speed of dsm over that of a rival: 1 is as fast, less is slower."""
        return speed(self.job(app, size, ranks, **varied), rival)

    def speedup(self, app: str, size: str, version: str, ranks: int | None = None) -> float | None:
        """Return the speed of a version over that of serial."""
        alone, job = self.serial(app, size), self.job(app, size, ranks)
        if alone is None or version not in job:
            return None
        return seconds(alone) / seconds(job[version])

    def verdict(self, app: str, size: str) -> Verdict | None:
        """Judge the reach; None without one, or without a run on two ranks."""
        found = self.ratio(app, size, REACH_RANKS)
        if found is None or app not in self.apps:
            return None
        reach = self.apps[app].reach
        return Verdict(found.value >= reach, found.low < reach <= found.high)

    def ratios(self, size: str, rival: str = "mpi4py") -> dict[str, Interval]:
        """Return the ratio of each application on the usual number of ranks."""
        found = {name: self.ratio(name, size, rival=rival) for name in self.names}
        return {name: value for name, value in found.items() if value is not None}

    def in_size(self, size: str) -> list[str]:
        """Name the applications with a plain run in a size."""
        there = {key.app for key in self.jobs if key.size == size and self._is_plain(key, "ranks")}
        return [name for name in self.names if name in there]

    def all_ranks(self, size: str) -> list[int]:
        """Return the numbers of ranks of plain runs in a size."""
        return sorted({key.ranks for key in self.jobs if key.size == size and self._is_plain(key, "ranks")})

    def reasons(self, app: str, size: str) -> Reasons | None:
        """Return what explains the time of dsm; None without both versions."""
        job, found = self.job(app, size, REACH_RANKS), self.ratio(app, size, REACH_RANKS)
        if found is None or app not in self.apps:
            return None
        dsm, mpi = job["dsm"], job["mpi4py"]
        of, counters = dsm["counters"].get, mpi["counters"]
        return Reasons(
            found.value,
            self.apps[app].reach,
            split(dsm),
            (of("faults_read", 0) + of("faults_write", 0)) / dsm["times_s"][-1],
            (counters.get("messages_sent", 0), of("messages_sent", 0)),
            (counters.get("bytes_sent", 0), of("bytes_sent", 0)),
            of("diffs_made", 0),
            of("collections", 0),
        )

    # ---- many runs ----

    def sweep(self, axis: str, size: str = "", **varied: Any) -> Sweep | None:
        """Return ratios over `axis`, a field of Key, the rest being plain, in the size that has most.

        Applications with one value only are left out; None when nothing is left.
        """
        plain = self.plain | {"ranks": self.ranks} | varied
        plain.pop(axis, None)
        tables: dict[str, dict[str, dict[Any, Interval]]] = {}
        for key, job in self.jobs.items():
            found = speed(job)
            if found and key.size == (size or key.size) and all(getattr(key, n) == v for n, v in plain.items()):
                tables.setdefault(key.size, {}).setdefault(key.app, {})[getattr(key, axis)] = found
        swept = {name: {app: row for app, row in t.items() if len(row) > 1} for name, t in tables.items()}
        best = max(swept, key=lambda name: sum(map(len, swept[name].values())), default="")
        if not swept.get(best):
            return None
        rows = {name: swept[best][name] for name in self.names if name in swept[best]}
        values = {value for row in rows.values() for value in row}
        return Sweep(best, sorted(values, key=_network_order if axis == "network" else None), rows)

    def weak_efficiency(self) -> tuple[str, dict[str, dict[str, dict[int, float]]]]:
        """Return size and, by application, version and ranks, the time alone over that with as many times the work."""
        found: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
        same = {name: value for name, value in self.plain.items() if name != "scaling"}
        for key, job in self.jobs.items():
            alone = self.jobs.get(key._replace(ranks=1), {}).get("serial")
            if key.scaling != "weak" or not alone or any(getattr(key, n) != v for n, v in same.items()):
                continue
            for version in ("mpi4py", "dsm"):
                if version in job:
                    versions = found.setdefault(key.size, {}).setdefault(key.app, {})
                    versions.setdefault(version, {})[key.ranks] = seconds(alone) / seconds(job[version])
        best = max(found, key=lambda name: len(found[name]), default="")
        return best, found.get(best, {})

    @functools.cached_property
    def granularity(self) -> list[Record]:
        """The points of the sweep over granularities: the last of each, those of the usual ranks, network and MPI."""
        points = [r for r in self.records if r["kind"] == "granularity" and r.get("aggregation", True)]
        for name in ("mpi", "network", "node", "ranks"):
            usual = _usual((point[name] for point in points), None)
            points = [point for point in points if point[name] == usual]
        last = {tuple(point[n] for n in ("pattern", "bytes", "compute_us", "page_size")): point for point in points}
        return list(last.values())

    def heats(self) -> list[Heat]:
        """Return a map for each pattern, of the points without computing in between."""
        made = []
        points = [point for point in self.granularity if point["compute_us"] == 0]
        for pattern in dict.fromkeys(point["pattern"] for point in points):
            own = [point for point in points if point["pattern"] == pattern]
            cells = {(p["bytes"], p["page_size"]): point_speed(p) for p in own}
            sizes, bytes_ = sorted({p["page_size"] for p in own}), sorted({p["bytes"] for p in own})
            made.append(Heat(pattern, sizes, bytes_, cells))
        return made

    def compute_curves(self) -> dict[int, dict[str, dict[float, float]]]:
        """Return speeds by bytes, pattern and microseconds of computing, where those vary, at one page size."""
        page_size = self.computed_page_size()
        found: dict[int, dict[str, dict[float, float]]] = {}
        for point in self.granularity:
            if point["page_size"] == page_size:
                curve = found.setdefault(point["bytes"], {}).setdefault(point["pattern"], {})
                curve[point["compute_us"]] = point_speed(point)
        varied = {b: {p: c for p, c in rows.items() if len(c) > 1} for b, rows in sorted(found.items())}
        return {bytes_: rows for bytes_, rows in varied.items() if rows}

    def computed_page_size(self) -> int:
        """Return the page size that most points with computing have."""
        return int(_usual((p["page_size"] for p in self.granularity if p["compute_us"]), self.plain["page_size"]))

    def granularity_page_size(self) -> int:
        """Return the page size of plain runs where the sweep has it, else the one that it has most."""
        return int(_usual((p["page_size"] for p in self.granularity), self.plain["page_size"], always=True))


def seconds(record: Record) -> float:
    """Return the median time of a run."""
    return statistics.median(record["times_s"])


def point_speed(point: Record) -> float:
    """Return the speed of dsm over that of mpi4py at a point of the sweep over granularities."""
    return statistics.median(point["mpi4py_s"]) / statistics.median(point["dsm_s"])


def speed(job: Mapping[str, Record], rival: str = "mpi4py") -> Interval | None:
    """Return the speed of dsm over that of a rival in a job; None without both."""
    if not {rival, "dsm"} <= set(job):
        return None
    return _speed(tuple(job[rival]["times_s"]), tuple(job["dsm"]["times_s"]))


@functools.cache
def _speed(rival: tuple[float, ...], dsm: tuple[float, ...]) -> Interval:
    return results.ratio(rival, dsm)  # a bootstrap: worth keeping


def split(record: Record) -> Split:
    """Split the time of dsm's ranks.  The counters are those of the last repetition, so its time is the whole.

    What is not waiting counts as computing: the work of the protocol on this side, too, and ending before others.
    """
    whole = record["times_s"][-1] * record["ranks"] * 1e9
    of = record["counters"].get
    data, lock = of("wait_fault_ns", 0) / whole, (of("wait_lock_ns", 0) + of("wait_counter_ns", 0)) / whole
    barrier = of("wait_barrier_ns", 0) / whole
    scale = 1 / max(1.0, data + lock + barrier)  # threads of one rank may wait at the same time
    data, lock, barrier = data * scale, lock * scale, barrier * scale
    return Split(max(0.0, 1 - data - lock - barrier), data, lock, barrier)


def _usual(values: Iterable[Any], wanted: Any, always: bool = False) -> Any:
    """Return the most frequent value; `wanted` where it is as frequent, or (`always`) there at all, or none is."""
    counts = Counter(values)
    if not counts or (always and wanted in counts):
        return wanted
    return max(counts, key=lambda value: (counts[value], value == wanted))


def _network_order(name: str) -> tuple[int, str]:
    """Sort networks from fast to slow, and others behind."""
    known, rate = (ONE_HOST, *RATES), name.partition(",")[0]
    return (known.index(rate) if rate in known else len(known), name)
