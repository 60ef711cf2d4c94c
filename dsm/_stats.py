"""The statistics of the core; the names of the numbers are the fields of `struct dsm_stats`."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from dsm import _lock, _nodes, _regions, _runtime
from dsm._runtime import Runtime
from dsm._table import Table

_OF_ARRAY = {
    "waited": "wait_fault_ns",
    "read faults": "faults_read",
    "write faults": "faults_write",
    "fetched": "fetches",
    "whole": "pages_received",
    "diffs": "diffs_received",
    "diff bytes": "diff_bytes_received",
    "made stale": "invalidations",
}  # columns and the numbers in them
_OF_LOCK = {
    "waited": "wait_lock_ns",
    "acquires": "lock_acquires",
    "without a message": "lock_acquires_local",
    "handed on": "lock_grants",
}


class Stats(Mapping[str, int]):
    """The numbers that one rank counted: a mapping from names to totals, which prints as one line.

    Times are in nanoseconds (names end in ``_ns``), sizes in bytes.

    Attributes
    ----------
    rank, size : int
        The rank that counted, and the number of ranks.
    nodes : tuple of tuple of int
        The ranks of each node.
    apart : str
        Why ranks of this host that were to be one node are not; empty otherwise.
    arrays : dict of str to dict
        The same numbers for each array, by its name or the call that made it.
    locks : dict of str to dict
        The same for each lock, by its class and number.
    host : dict of str to int
        The same numbers for this rank's node: the sums over its ranks, and the memory that the node has once.
    """

    def __init__(
        self,
        totals: dict[str, int],
        arrays: dict[str, dict[str, int]],
        locks: dict[str, dict[str, int]],
        host: dict[str, int],
        runtime: Runtime,
    ) -> None:
        self._totals = totals
        self.arrays = arrays
        self.locks = locks
        self.host = host
        self.rank = runtime.rank
        self.size = runtime.size
        self.nodes = _nodes.nodes_of(runtime)
        self.apart = _nodes.why_apart(runtime)

    def __getitem__(self, name: str) -> int:
        return self._totals[name]

    def __getattr__(self, name: str) -> NoReturn:
        hint = f': use stats()["{name}"]' if name in self.__dict__.get("_totals", ()) else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._totals)

    def __len__(self) -> int:
        return len(self._totals)

    def __str__(self) -> str:
        waited_ns = sum(value for name, value in self.items() if name.startswith("wait_"))
        return (
            f"dsm stats of rank {self.rank} of {self.size}: {self._node()}, "
            f"{self['faults_read']} read and {self['faults_write']} write faults, "
            f"{self['fetches']} pages fetched ({self['pages_received']} whole, {self['diffs_received']} diffs), "
            f"{self['barriers']} barriers, {self['lock_acquires']} acquires ({self['lock_acquires_local']} local), "
            f"{self['messages_sent']} messages and {_readable(self['bytes_sent'])} sent, "
            f"{self['messages_received']} and {_readable(self['bytes_received'])} received, "
            f"{waited_ns / 1e9:.3f} s waited, {_readable(self['memory_bytes_max'])} of protocol memory at most"
        )

    def table(self) -> str:
        """Return tables of the arrays and of the locks, the longest waits of this rank first.  Local.

        Returns
        -------
        str
            A line for each array and each lock that this rank has used.

        Examples
        --------
        >>> import dsm
        >>> dsm.stats().table().startswith(f"Rank {dsm.rank()} of {dsm.size()} waited")
        True
        """
        return "\n".join([self._waits(), *map(str, self._tables())])

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._waits())}</p>{''.join(table.to_html() for table in self._tables())}"

    def _waits(self) -> str:
        waits = {"pages": "fault", "locks": "lock", "barriers": "barrier", "events": "flag", "counters": "counter"}
        parts = ", ".join(f"{_seconds(self[f'wait_{key}_ns'])} for {what}" for what, key in waits.items())
        return f"Rank {self.rank} of {self.size} waited {parts}"

    def _tables(self) -> list[Table]:
        tables = []
        for title, columns, things in (("Arrays", _OF_ARRAY, self.arrays), ("Locks", _OF_LOCK, self.locks)):
            used = {label: counted for label, counted in things.items() if any(counted.values())}
            longest = sorted(used, key=lambda label: (-used[label][columns["waited"]], label))
            rows = [[label, *(_cell(used[label], name) for name in columns.values())] for label in longest]
            if rows:
                tables.append(Table(title, [title[:-1].lower(), *columns], rows))
        return tables

    def _node(self) -> str:
        number, ranks = next((number, ranks) for number, ranks in enumerate(self.nodes) if self.rank in ranks)
        return f"node {number} of {len(self.nodes)} ({_nodes.named(ranks)})"

    def __repr__(self) -> str:
        return f"<dsm.Stats {dict(self._totals)!r}>"


def stats(reset: bool = False) -> Stats:
    """Return the statistics of this rank since the start or the last reset.  Local.

    Parameters
    ----------
    reset : bool, optional
        Start the numbers of this rank again from zero afterwards.

    Returns
    -------
    Stats
        Totals, and the same numbers per array, per lock and for the node of this rank.

    Raises
    ------
    RuntimeError
        dsm is not started.

    Examples
    --------
    >>> import dsm
    >>> dsm.barrier()
    >>> dsm.stats()["barriers"] >= 1
    True
    """
    runtime = _runtime.active()
    lib = runtime.lib
    found = Stats(
        totals=_numbers(runtime, lib.dsm_stats),
        arrays={
            label: _numbers(runtime, lib.dsm_stats_of_region, number)
            for number, label in _regions.region_labels().items()
        },
        locks={
            label: _numbers(runtime, lib.dsm_stats_of_lock, number) for number, label in _lock.lock_labels().items()
        },
        host=_numbers(runtime, lib.dsm_stats_of_host),
        runtime=runtime,
    )
    if reset:
        runtime.check(lib.dsm_stats_reset())
    return found


def print_summary() -> None:
    """Print one line with this rank's totals to standard error, if ``DSM_STATS=1``.  Local."""
    if _runtime.active().settings.stats:
        sys.stderr.write(f"{stats()}\n")  # in one call, because all ranks write to one terminal
        sys.stderr.flush()


def _numbers(runtime: Runtime, call: Any, *arguments: int) -> dict[str, int]:
    counted = runtime.ffi.new("struct dsm_stats *")
    runtime.check(call(*arguments, counted))
    return {name: int(getattr(counted, name)) for name, _ in runtime.ffi.typeof("struct dsm_stats").fields}


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.3f} s"


def _cell(counted: Mapping[str, int], name: str) -> str:
    if name.endswith("_ns"):
        return _seconds(counted[name])
    return _readable(counted[name]) if "bytes" in name else f"{counted[name]:,}"


def _readable(bytes_: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if bytes_ < 1024:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.1f} TiB"
