"""Collective work whose errors reach all ranks, through a region that lives as long as the work.

An error on one rank is raised on every rank, so that the ranks stay in step.  The ranks do not use MPI for this: if one
of them were in another collective call, the others would wait in an MPI broadcast, which serves no signals and which
the watchdog does not see.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from dsm import _runtime
from dsm._runtime import Runtime
from dsm._settings import PAGE_BYTES_MIN

T = TypeVar("T")

ANSWER_BYTES_MAX = 1 << 20  # shape and dtype of an array; a structured dtype of a thousand fields has 30 KB
FAILURE_BYTES = 4096
TEXT_CHARACTERS_MAX = 900  # of 4 bytes at most

_KINDS = {kind.__name__: kind for kind in (TypeError, ValueError, MemoryError, EOFError, OverflowError)}


def allocate_region(
    runtime: Runtime, bytes_: int, page_bytes: int, what: str, label: str, initial: bytes | None = None
) -> Any:
    """Make a region of the core; ValueError if the text `what` differs between ranks.  Collective."""
    ffi, lib = runtime.ffi, runtime.lib
    made = ffi.new("struct dsm_region *")
    pattern = ffi.NULL if initial is None else ffi.new("char[]", initial)
    pattern_bytes = 0 if initial is None else len(initial)
    label_c, what_c = ffi.new("char[]", label.encode()), ffi.new("char[]", what.encode())
    runtime.wait(
        # NumPy has arrays of no bytes, but the core has no regions of none.
        lambda slice_s: lib.dsm_allocate(
            max(bytes_, 1), page_bytes, pattern, pattern_bytes, label_c, what_c, slice_s, made
        )
    )
    return made


class Exchange:
    """Runs work on one rank (`first`) or on all (`all`), and raises an error of any rank on every rank.  Collective.

    Parameters
    ----------
    runtime : Runtime
        The core.
    label : str
        The call, for messages.
    what : str
        The call with all arguments that must be the same on every rank; ValueError if they are not.
    """

    def __init__(self, runtime: Runtime, label: str, what: str) -> None:
        self._runtime = runtime
        self._label = label
        # The bytes before say which ranks failed, in two sets by turns: a rank of this host that goes on writes while
        # others still read the last set.
        self._answer_at = -(-2 * runtime.size // PAGE_BYTES_MIN) * PAGE_BYTES_MIN
        self._turn = 0
        self._failures_at = self._answer_at + ANSWER_BYTES_MAX
        bytes_ = self._failures_at + runtime.size * FAILURE_BYTES
        region = allocate_region(runtime, bytes_, PAGE_BYTES_MIN, what, label)
        self._region = int(region.id)
        self._memory = runtime.ffi.buffer(region.address, bytes_)

    def first(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0, and return its result on every rank.  At most once.  Collective."""

        def answer_all() -> None:
            text = pickle.dumps(work())
            if len(text) + 8 > ANSWER_BYTES_MAX:
                raise ValueError(
                    f"{self._label}: the description of the dtype takes {len(text)} bytes, more than 1 MiB"
                )
            self._put(self._answer_at, text)

        self.all(answer_all if self._runtime.rank == 0 else None)
        answer: T = pickle.loads(self._get(self._answer_at))
        return answer

    def all(self, work: Callable[[], object] | None) -> None:
        """Run `work`, if there is any, and wait for the other ranks.  Collective."""
        failure = None
        flags = self._turn * self._runtime.size
        self._turn = 1 - self._turn
        try:
            if work is not None:
                work()
        except Exception as error:
            failure = error
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), "")
            report = (kind, getattr(error, "errno", None), text[:TEXT_CHARACTERS_MAX])
            self._put(self._failures_at + self._runtime.rank * FAILURE_BYTES, pickle.dumps(report))
            self._memory[flags + self._runtime.rank : flags + self._runtime.rank + 1] = b"\1"
        _runtime.barrier()
        failed = bytes(self._memory[flags : flags + self._runtime.size]).find(1)
        if failure is not None:
            raise failure
        if failed >= 0:
            kind, number, text = pickle.loads(self._get(self._failures_at + failed * FAILURE_BYTES))
            message = f"{self._label} failed on rank {failed}: {text}"
            raise OSError(number, message) if number is not None else _KINDS.get(kind, RuntimeError)(message)

    def _put(self, at: int, text: bytes) -> None:
        self._memory[at : at + 8 + len(text)] = len(text).to_bytes(8, "little") + text

    def _get(self, at: int) -> bytes:
        length = int.from_bytes(self._memory[at : at + 8], "little")
        return bytes(self._memory[at + 8 : at + 8 + length])

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            return  # an interrupt, say: the other ranks go on, and still use the region
        runtime = self._runtime
        done = runtime.ffi.new("char[]", self._label.encode(errors="replace"))
        runtime.wait(lambda slice_s: runtime.lib.dsm_free(self._region, runtime.ffi.NULL, done, slice_s))
        runtime.check(runtime.lib.dsm_forget(self._region))
