"""What an application of the suite is: one kernel, and around it a serial, an mpi4py and a dsm program."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.counting import CountedComm
from dsm import _regions

SIZES = ("tiny", "small", "paper", "large")
RIVALS = ("mpi4py", "floor")  # of dsm
VERSIONS = ("serial", "mpi4py", "dsm", "floor")  # floor: the dsm program over memory of the host (floor.py)

# The same compiled loop serves all versions of an application; without the GIL, as a careful author would have it.
kernel = numba.njit(cache=True, nogil=True)

Result = Mapping[str, Any]


class WrongResultError(Exception):
    """A version computed something else than the verification allows; the text says what."""


def require(right: bool, what: str) -> None:
    """Raise WrongResultError unless `right`; `what` says which condition failed, with the figures."""
    if not right:
        raise WrongResultError(what)


def verify_grid(problem: object, result: Result, reference: Result | None) -> None:
    """Verify the ``grid`` of a stencil, bit by bit against serial."""
    assert reference is not None
    wrong = int((result["grid"] != reference["grid"]).sum())
    require(wrong == 0, f"{wrong} of {reference['grid'].size} points differ from serial")


@dataclass(frozen=True)
class App:
    """An application.  The three versions take (problem, team) and do their measured part inside ``team.timed()``.

    Attributes
    ----------
    name : str
        As in SC'95 or NPB, lower case, with the variant behind a hyphen.
    title, pattern : str
        What it computes, and how its data are shared, in a few words.
    sizes : mapping
        What `make` gets for ``tiny`` (verifies in well under a second), ``small`` (a serial run takes about 0.3 s),
        ``paper`` (as published) and ``large`` (several seconds).
    make : callable
        ``make(size)`` returns the problem, the same on every rank: inputs in private memory.
    serial, mpi4py, dsm : callable
        ``version(problem, team)`` returns the result, as names with arrays or numbers; rank 0's counts.
    verify : callable
        ``verify(problem, result, reference)`` raises WrongResultError; `reference` is serial's result, or None where
        `published` values decide.
    memory : callable
        ``memory(size)``: bytes of the problem's data, once.
    reach : float
        Speed of dsm over that of mpi4py that is wanted on 2 ranks.
    published : bool
        The verification needs no serial run.
    grow : callable, optional
        ``grow(size, ranks)``: the size with `ranks` times the work, for weak scaling.
    paper : tuple of float, optional
        Speed-ups on 8 processors of PVM and TreadMarks in Lu et al. 1995, where given as figures.
    paper_note : str
        What that paper says in words, where it gives none.
    """

    name: str
    title: str
    pattern: str
    sizes: Mapping[str, Any]
    make: Callable[[Any], Any]
    serial: Callable[[Any, Team], Result]
    mpi4py: Callable[[Any, Team], Result]
    dsm: Callable[[Any, Team], Result]
    verify: Callable[[Any, Result, Result | None], None]
    memory: Callable[[Any], int]
    reach: float
    published: bool = False
    grow: Callable[[Any, int], Any] | None = None
    paper: tuple[float, float] | None = None
    paper_note: str = ""

    @property
    def floor(self) -> Callable[[Any, Team], Result]:
        """The dsm program, which `floor.instead_of_dsm` lets run without dsm."""
        return self.dsm


@dataclass
class Team:
    """The ranks that work on a problem together, as a version sees them.

    Attributes
    ----------
    comm : MPI.Intracomm
        For the mpi4py version; the same calls as MPI.COMM_WORLD, which are counted in one repetition.
    rank, size : int
        Which of how many.
    seconds : float
        How long the timed part took on this rank.
    counters : dict
        What dsm's statistics of this rank grew by in it.
    """

    comm: Any
    rank: int
    size: int
    statistics: Callable[[], Mapping[str, int]] | None = None
    seconds: float = 0.0
    counters: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Measure the block, which all ranks begin together.  The slowest rank's time is the version's.  Collective."""
        before = dict(self.statistics()) if self.statistics else {}
        if isinstance(self.comm, CountedComm):
            self.comm.reset()
        if self.size > 1:
            MPI.COMM_WORLD.Barrier()
        start = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - start
        if self.statistics:
            self.counters = {name: value - before[name] for name, value in self.statistics().items()}
        elif isinstance(self.comm, CountedComm):
            self.counters = self.comm.counters()


def checksum(result: Result) -> str:
    """Tell results apart: 16 hexadecimal digits of the SHA-256 of all that is in one."""
    digest = hashlib.sha256()
    for name in sorted(result):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(result[name]).tobytes())
    return digest.hexdigest()[:16]


def private(result: Result | None) -> dict[str, np.ndarray]:
    """Copy a result out of shared arrays."""
    return {name: np.array(value) for name, value in (result or {}).items()}


def regions() -> set[int]:
    """Return which shared arrays there are, by the numbers of their regions.  Local."""
    return _regions.numbers()


def free_others(kept: set[int]) -> None:
    """Free the shared arrays but `kept`: where a program ends, here the next repetition follows.  Collective."""
    dsm.barrier()
    gc.collect()
    for number in sorted(regions() - kept):
        root = _regions.root_of_region(number)
        if root is not None:
            _regions.discard(root, "free_others")
