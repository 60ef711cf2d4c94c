"""Notes on exceptions that the kernel or MPI causes when it touches shared memory that this rank cannot access yet.

If the program touches such a page, dsm fetches or opens it.  A system call, and an MPI that copies by one, fails
instead: with EFAULT, or with fewer bytes than expected.  The error does not mention dsm, so this module adds a note to
an error that the program does not catch.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from collections.abc import Iterator
from types import ModuleType, TracebackType

from dsm import _regions, _runtime

# Words in the errors of NumPy's tofile, of MPI and of HDF5; functions of MPICH that copy by a system call; and the
# beginning of MPICH's texts, which may be truncated before the name of the function.
_TELLS = re.compile(
    rf"\b\d+ requested and \d+ written|\berrno\W{{1,4}}{errno.EFAULT}\b|\bBad address\b"
    r"|CMA_copy_data|process_vm_|\bOther MPI error\b",
    re.IGNORECASE,
)
_FRAMES_MAX = 50
_ITEMS_MAX = 100
_NAMED_MAX = 8


def note(error: BaseException | None) -> None:
    """Add a note to an exception, or to one of its causes, if unpinned shared memory may have caused it.  Local."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        with contextlib.suppress(Exception):  # the program must end by its own error
            if _may_be_of_memory(error) and _runtime.is_active():
                found = sorted(set(_in_reach(error.__traceback__))) or sorted(_regions.region_labels().values())
                if found:
                    error.add_note(_words(found))
        error = error.__context__ if error.__cause__ is None else error.__cause__


def watch_threads() -> None:
    """Add notes to exceptions that end a thread, too.  Local."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs, /) -> None:
        note(args.exc_value)
        before(args)

    threading.excepthook = hook


def _words(found: list[str]) -> str:
    more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
    return (
        "dsm: the kernel and MPI cannot fetch or open a page of shared memory, as a thread that touches it does, so "
        "their call fails. "
        f"Shared arrays that the call may have touched: {', '.join(found[:_NAMED_MAX])}{more}. Pin the array during "
        'the call: `with dsm.pinned(view, "r"):` ("w" if the call fills it)'
    )


def _may_be_of_memory(error: BaseException) -> bool:
    return getattr(error, "errno", None) == errno.EFAULT or _TELLS.search(str(error)) is not None


def _in_reach(traceback: TracebackType | None) -> Iterator[str]:
    for _ in range(_FRAMES_MAX):
        if traceback is None:
            return
        for name, value in list(traceback.tb_frame.f_locals.items())[:_ITEMS_MAX]:
            yield from _named(name, value)
            for suffix, item in _inside(value):
                yield from _named(f"{name}{suffix}", item)
        traceback = traceback.tb_next


def _inside(value: object) -> list[tuple[str, object]]:
    if isinstance(value, (list, tuple)):
        return [(f"[{index}]", item) for index, item in enumerate(value[:_ITEMS_MAX])]
    if isinstance(value, ModuleType):  # every function can reach a module
        return []
    return [(f".{name}", item) for name, item in list(getattr(value, "__dict__", {}).items())[:_ITEMS_MAX]]


def _named(name: str, value: object) -> Iterator[str]:
    label = _regions.label_of(value)
    if label is not None:
        yield f"{name} ({label})"
