"""How a program ends when it does not end well.

A rank that dies of an exception leaves the others waiting for it for ever.  Python ends in three ways: by an uncaught
exception, which `sys.excepthook` sees; by `sys.exit` with a status, which nothing sees; and by reaching its end, when
atexit runs.  The first two end all ranks here, with one line that says which rank and why; the third finalizes.
Python's atexit comes before MPI_Finalize, which mpi4py calls from Py_AtExit, so the other ranks can still be answered.

What Python cannot see (os._exit, SIGKILL, a crash) is the launcher's to notice, and it does.  ``raise SystemExit(1)``
looks like the third: the rank waits in finalize, and others that go on to a barrier get the error that names both.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

STATUS_INTERRUPTED = 130  # what a shell reports of a program that SIGINT ended

_Abort = Callable[[str, int], None]


class _Exit(SystemExit):
    """A SystemExit that notices when the interpreter, not the program, asks for its code: then it is the end.

    `sys.exit` may be caught and the program may go on, so the call alone means nothing.  Whoever in the program reads
    `code` has a Python frame of its own; the interpreter, at the end, has none left.
    """

    @property
    def code(self) -> Any:  # type: ignore[override]
        """The argument of `sys.exit`."""
        code = self.args[0] if self.args else None
        try:
            sys._getframe(1)
        except ValueError:
            _hooks.status = code
        return code


class _Hooks:
    """What was put in place of Python's own, to be taken back by `remove`."""

    def __init__(self) -> None:
        self.abort: _Abort | None = None
        self.status: object = None
        self._excepthook = sys.excepthook
        self._exit: Callable[..., NoReturn] = sys.exit

    def install(self, abort: _Abort) -> None:
        self.abort = abort
        self._excepthook, sys.excepthook = sys.excepthook, self._end_by_exception
        self._exit, sys.exit = sys.exit, self._end_by_exit

    def remove(self) -> None:
        self.abort = None
        # Somebody may have wrapped ours in the meantime; it then stays, and does nothing without `abort`.
        if sys.excepthook == self._end_by_exception:
            sys.excepthook = self._excepthook
        if sys.exit == self._end_by_exit:
            sys.exit = self._exit

    def _end_by_exception(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if self.abort is None or hasattr(sys, "ps1") or sys.flags.interactive:
            self._excepthook(kind, error, traceback)  # at a prompt an exception does not end the program
            return
        try:
            self._excepthook(kind, error, traceback)
        finally:  # also when a second Ctrl-C comes while the first is printed
            if issubclass(kind, KeyboardInterrupt):
                self.abort("interrupted (KeyboardInterrupt)", STATUS_INTERRUPTED)
            else:
                self.abort(f"uncaught {describe(error)}", 1)

    def _end_by_exit(self, code: object = None, /) -> NoReturn:
        if self.abort is None or threading.current_thread() is not threading.main_thread():
            self._exit(code)  # in another thread it ends that thread only
        raise _Exit(code)


_hooks = _Hooks()


def install(abort: _Abort) -> None:
    """From now on an uncaught exception calls `abort` with a text and a status.  Local."""
    _hooks.install(abort)


def remove() -> None:
    """Put Python's own hooks back.  Local."""
    _hooks.remove()


def abort_if_failed() -> None:
    """At exit: end all ranks when the program ended by `sys.exit` with an error.  Local."""
    status = _hooks.status
    if _hooks.abort is None or status is None or status == 0:
        return
    # As the interpreter does: what is no number is a message that it has printed, and counts as 1.
    number = (int(status) & 0xFF) or 1 if isinstance(status, int) else 1
    _hooks.abort(f"sys.exit({status!r})", number)


def flush() -> None:
    """Print what the program has written so far; MPI_Abort does not.  Local."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def describe(error: BaseException) -> str:
    """Say an exception in one line.  Local."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
