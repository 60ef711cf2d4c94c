"""The clocks of the hosts: how far each one is from that of rank 0, at the start and at the end.

Processes of one boot of one machine share a clock, so only one rank of each is asked.  Rank 0 sends a number, the other
rank answers with its time.  The answer with the shortest way says most: its time was that of rank 0 in the middle of
the way, with an error of half the way (Cristian 1989).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsm._numpy import AnyArray

_PINGS = 20
_TAG = 1


class Offset(NamedTuple):
    """What is to be added to a clock at one of its times to get that of rank 0, and the largest error.  Nanoseconds."""

    at_ns: int
    offset_ns: int
    error_ns: int


def offset_of(pings: Sequence[tuple[int, int, int]]) -> Offset:
    """Return the offset of a clock that was asked, from (sent, its answer, received).  Local."""
    sent, answer, received = min(pings, key=lambda ping: ping[2] - ping[0])
    return Offset(answer, (sent + received) // 2 - answer, -(-(received - sent) // 2))


@dataclass(frozen=True)
class Clock:
    """A clock whose offset was measured twice; between and beyond, it moves evenly."""

    first: Offset
    last: Offset

    def aligned_s(self, times_ns: AnyArray | int) -> AnyArray:
        """Return times of this clock as seconds of rank 0's clock.  Local."""
        times = np.asarray(times_ns, np.int64)
        between = self.last.at_ns - self.first.at_ns
        drift = (self.last.offset_ns - self.first.offset_ns) / between if between > 0 else 0.0
        moved = (times - self.first.at_ns) * drift
        seconds: AnyArray = (times + self.first.offset_ns) * 1e-9 + moved * 1e-9
        return seconds

    @property
    def error_s(self) -> float:
        """The largest error of the two measurements."""
        return max(self.first.error_ns, self.last.error_ns) * 1e-9


def boot() -> str:
    """Return a name of this boot of this machine, or "" if it has none.  Local."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def measure(comm: Any, now_ns: Callable[[], int] = time.monotonic_ns) -> Offset:
    """Measure the offset of this rank's clock.  Collective."""
    boots = comm.allgather(boot() or f"rank {comm.Get_rank()}")
    first = {name: rank for rank, name in reversed(list(enumerate(boots)))}
    asked = sorted(set(first.values()) - {0})
    found: dict[str, Offset] = {}
    if comm.Get_rank() == 0:
        found = {boots[rank]: offset_of([_ask(comm, rank, now_ns) for _ in range(_PINGS)]) for rank in asked}
    elif comm.Get_rank() in asked:
        for _ in range(_PINGS):
            comm.recv(source=0, tag=_TAG)
            comm.send(now_ns(), dest=0, tag=_TAG)
    found = comm.bcast(found, root=0)
    return found.get(boots[comm.Get_rank()], Offset(now_ns(), 0, 0))


def _ask(comm: Any, rank: int, now_ns: Callable[[], int]) -> tuple[int, int, int]:
    sent = now_ns()
    comm.send(None, dest=rank, tag=_TAG)
    answer = comm.recv(source=rank, tag=_TAG)
    return sent, answer, now_ns()
