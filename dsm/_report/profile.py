"""The numbers of a profile.json as the advice and the page ask for them (docs/insight.md has the schema)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Profile:
    """A profile.json that has been read."""

    def __init__(self, numbers: Json) -> None:
        self.numbers = numbers
        self.run: Json = numbers["run"]
        self.hosts: list[Json] = numbers["hosts"]
        self.nodes: list[list[int]] = numbers["nodes"]
        self.ranks: list[Json] = numbers["ranks"]
        self.sites: list[Json] = numbers["sites"]
        self.locks: list[Json] = numbers["locks"]
        self.arrays: list[Json] = numbers["arrays"]
        self.memory: list[Json] = numbers["memory"]
        self.lines: list[Json] = numbers["lines"]
        self.seconds: float = max(self.run["seconds"], 1e-9)
        self.size: int = self.run["size"]
        barriers = [site["by_rank"]["latency_s"] for site in self.sites if site["kind"] == "barrier"]
        self._latency_s = [sum(values[rank] for values in barriers) for rank in range(self.size)]
        received = [array["by_rank"]["bytes_received"] for array in self.arrays]
        self._received = [sum(values[rank] for values in received) for rank in range(self.size)]

    def site(self, number: int | None) -> Json | None:
        """Return a site by its number; None where no site is known.  Local."""
        return None if number is None else self.sites[number]

    def node_of(self, rank: int) -> int:
        """Return the number of a rank's node.  Local."""
        return int(self.ranks[rank]["node"])

    def cost_s(self, array: Json) -> list[float]:
        """Return by rank the time that an array's data cost at most.  Local.

        The runtime fetches in a barrier what it predicts, without a fault.  So an array costs its page faults, and its
        part of the barriers' latency, by the bytes received.
        """
        return [
            waited_s + self._latency_s[rank] * received / max(self._received[rank], 1)
            for rank, (waited_s, received) in enumerate(
                zip(array["by_rank"]["wait_s"], array["by_rank"]["bytes_received"], strict=True)
            )
        ]

    def strip(self, array: Json, rank: int, what: str) -> list[int]:
        """Return a value for each bin of an array: "written", "read" or "fetched" by a rank.  Local."""
        for strip in array["strips"]:
            if strip["rank"] == rank:
                return spread(strip[what], array["bins"])
        return [0] * array["bins"]


def read(path: Path) -> Profile:
    """Read a profile.json.  Local."""
    return Profile(json.loads(path.read_text(encoding="utf-8")))


def spread(runs: Iterable[Sequence[int]], bins: int, empty: int = 0) -> list[int]:
    """Return a value for each bin, given runs of (first bin, bins, value).  Local."""
    values = [empty] * bins
    for first, count, value in runs:
        values[first : first + count] = [value] * len(values[first : first + count])
    return values


def place(site: Json | None) -> str:
    """Return a site as `file.py:12`; the end of the program has no line.  Local."""
    if site is None:
        return "an unknown line"
    return f"{os.path.basename(site['file'])}:{site['line']}" if site["line"] else "the end of the program"


def dims(array: Json) -> str:
    """Return the shape of an array as NumPy prints it.  Local."""
    return str(tuple(array["shape"]))


def row_bytes(array: Json) -> int:
    """Return the bytes from one index of an array's slowest axis to the next.  Local."""
    shape = array["shape"] if array["order"] == "C" else array["shape"][::-1]
    size = int(array["itemsize"])
    for length in shape[1:]:
        size *= length
    return size
