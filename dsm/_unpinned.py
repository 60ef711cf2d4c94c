"""Words for an exception that the kernel or MPI causes when it meets shared memory that is not here.

The processor faults and the page is fetched; a system call, and an MPI that copies by one, fails instead: EFAULT, or
fewer bytes than were asked for.  The error says nothing of dsm, so a note is added to one that nobody catches.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
from collections.abc import Iterator
from types import TracebackType

from dsm import _regions, _runtime

# What NumPy's tofile says, what MPI and HDF5 put into their texts, the function of MPICH that copies by a system call,
# and what is left of its texts where they are cut off before that.
_TELLS = re.compile(
    rf"\b\d+ requested and \d+ written|\berrno\W{{1,4}}{errno.EFAULT}\b|\bBad address\b"
    r"|CMA_copy_data|process_vm_|\bOther MPI error\b",
    re.IGNORECASE,
)
_FRAMES_MAX = 50
_ITEMS_MAX = 100
_NAMED_MAX = 8


def note(error: BaseException | None) -> None:
    """Add a note to an exception, and to those that it came of, that unpinned shared memory may have caused.  Local."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        with contextlib.suppress(Exception):  # a program that is about to end must do so with its own error
            if _may_be_of_memory(error) and _runtime.is_active():
                found = sorted(set(_in_reach(error.__traceback__))) or sorted(_regions.region_labels().values())
                if found:
                    error.add_note(_words(found))
        error = error.__context__ if error.__cause__ is None else error.__cause__


def watch_threads() -> None:
    """Do so for exceptions that end a thread.  Local."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs, /) -> None:
        note(args.exc_value)
        before(args)

    threading.excepthook = hook


def _words(found: list[str]) -> str:
    more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
    return (
        "dsm: the kernel, and MPI, fail at a page of shared memory that is not here, where the program would fetch it. "
        f"Shared arrays that may be meant: {', '.join(found[:_NAMED_MAX])}{more}. Pin what a call is to touch: "
        '`with dsm.pinned(view, "r"):` around it ("w" for what it fills)'
    )


def _may_be_of_memory(error: BaseException) -> bool:
    return getattr(error, "errno", None) == errno.EFAULT or _TELLS.search(str(error)) is not None


def _in_reach(traceback: TracebackType | None) -> Iterator[str]:
    for _ in range(_FRAMES_MAX):
        if traceback is None:
            return
        for name, value in list(traceback.tb_frame.f_locals.items())[:_ITEMS_MAX]:
            yield from _named(name, value)
            if isinstance(value, (list, tuple)):
                for index, item in enumerate(value[:_ITEMS_MAX]):
                    yield from _named(f"{name}[{index}]", item)
            elif not isinstance(value, type(contextlib)):  # a module is in reach of everybody
                for attribute, item in list(getattr(value, "__dict__", {}).items())[:_ITEMS_MAX]:
                    yield from _named(f"{name}.{attribute}", item)
        traceback = traceback.tb_next


def _named(name: str, value: object) -> Iterator[str]:
    label = _regions.label_of(value)
    if label is not None:
        yield f"{name} ({label})"
