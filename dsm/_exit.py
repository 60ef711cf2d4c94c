"""Programs that end by an error: the rank ends all other ranks, which would wait for it for ever.

A Python program ends in three ways: by an uncaught exception, which `sys.excepthook` sees; by `SystemExit` with a
status, which no hook sees; and by reaching its end.  In the first two cases this module ends all ranks and prints one
line that says which rank failed, and why.  In the third, dsm is finalized.  The module watches from the import of dsm
on, because other ranks may wait in the call that starts dsm.

SystemExit comes in many spellings (`sys.exit`, `exit`, `raise SystemExit`, argparse, a wrapper such as coverage).  In
every case the interpreter reads the attribute `code` of the uncaught exception when no Python frame is left.  So this
module replaces that attribute by one that notices.

Python cannot see an end by SIGKILL or a crash.  The launcher does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable
from types import BuiltinFunctionType, ModuleType, TracebackType
from typing import Any, NoReturn

STATUS_INTERRUPTED = 130  # the status by which a shell reports an end by SIGINT

_LAST_WORDS_S = 0.2  # for ranks that all fail, as under pytest, to print their errors

_Abort = Callable[[str, int], None]

before_traceback: list[Callable[[BaseException], None]] = []  # of modules above this one, as dsm/__init__.py fills it

# Python 3.11 makes the exception of an uncaught `sys.exit` only if something catches it.  A function that the program
# has put into the place of `sys.exit` stays: its memory is not that of a built-in function.
_builtin_exit = sys.exit
_EXIT_LEAVES_NO_INSTANCE = sys.version_info < (3, 12) and type(_builtin_exit) is BuiltinFunctionType


class _Code:
    """The attribute `code` of SystemExit, which notices that the interpreter, not the program, reads it.

    A program may catch `SystemExit` and go on, so raising it means nothing.  The program has a Python frame when it
    reads `code`; the interpreter, at the end, has none left.
    """

    def __init__(self, member: Any) -> None:
        self._member = member
        self.__doc__ = member.__doc__

    def __get__(self, error: SystemExit | None, kind: type | None = None) -> Any:
        if error is None:
            return self
        code = self._member.__get__(error, kind)
        try:
            sys._getframe(1)
        except ValueError:
            _hooks.status = code
        return code

    def __set__(self, error: SystemExit, code: object) -> None:
        self._member.__set__(error, code)

    def __delete__(self, error: SystemExit) -> None:
        self._member.__delete__(error)


def _watch_system_exit() -> None:
    # The attributes of a built-in type can be replaced only in the dictionary behind its read-only view.
    (members,) = gc.get_referents(SystemExit.__dict__)
    if not isinstance(members["code"], _Code):
        members["code"] = _Code(members["code"])
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(SystemExit))


def _exit_by_instance(status: object = None, /) -> NoReturn:
    raise SystemExit(status)


def _replace_exit() -> None:
    """Replace `sys.exit` until the core is loaded: in `sys`, and in modules that imported it from there."""
    for module in list(sys.modules.values()):
        # A module of another type might load something when it is looked at.
        if type(module) is ModuleType and module is not sys.modules[__name__]:
            for name, value in list(vars(module).items()):
                if value is _builtin_exit:
                    setattr(module, name, _exit_by_instance)


class _Hooks:
    """The hooks in the place of Python's own, and what they noticed."""

    def __init__(self) -> None:
        self.abort: _Abort | None = None
        self.status: object = None
        self._excepthook = sys.excepthook

    def install(self, abort: _Abort) -> None:
        self.abort = abort
        _watch_system_exit()
        if _EXIT_LEAVES_NO_INSTANCE:
            _replace_exit()
        sys.excepthook = self._end_by_exception

    def _end_by_exception(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        try:
            for call in before_traceback:
                call(error)
            self._excepthook(kind, error, traceback)
        finally:  # a second Ctrl-C may come while the first one is printed
            if self.abort is not None and not hasattr(sys, "ps1") and not sys.flags.interactive:
                self.abort_by(error)  # at a prompt an exception does not end the program

    def abort_by(self, error: BaseException) -> None:
        assert self.abort is not None
        if isinstance(error, KeyboardInterrupt):
            self.abort("interrupted (KeyboardInterrupt)", STATUS_INTERRUPTED)
        else:
            self.abort(f"uncaught {describe(error)}", 1)


_hooks = _Hooks()


def install(abort: _Abort) -> None:
    """Install the hooks: an uncaught exception calls `abort` with a text and a status.  Local."""
    _hooks.install(abort)


def watch_builtin(lib: Any) -> None:
    """Notice calls of a `sys.exit` that was looked up before the import of dsm, as a launcher does.  Local."""
    if _EXIT_LEAVES_NO_INSTANCE and sys.exit == _exit_by_instance:
        lib.dsm_exit_by_instance(id(_builtin_exit))
        sys.exit = _builtin_exit


def disarm() -> None:
    """Let the process end as it would without dsm.  Local."""
    _hooks.abort = None


def _uncaught() -> BaseException | None:
    """Return the exception that ended the program, if the program has replaced our hook by its own."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if not isinstance(error, BaseException) or error.__traceback__ is None or hasattr(sys, "ps1"):
        return None
    # Debuggers, shells and test runners leave exceptions there as well, which begin in a function of their own.
    outermost = error.__traceback__.tb_frame.f_code
    is_program = outermost.co_name in ("<module>", "_run_module_as_main") and outermost.co_filename != "<console>"
    return error if is_program else None


def abort_if_failed() -> None:
    """End all ranks at exit if the program ended by an exception that no hook of ours has seen.  Local."""
    status = _hooks.status
    if _hooks.abort is None:
        return
    if (error := _uncaught()) is not None:
        _hooks.abort_by(error)
    if status is None or status == 0:
        return
    # As the interpreter: a status that is not a number is a message, which it has printed, and counts as 1.
    number = (int(status) & 0xFF) or 1 if isinstance(status, int) else 1
    time.sleep(_LAST_WORDS_S)
    _hooks.abort(f"sys.exit({int(status) if isinstance(status, int) else repr(status)})", number)


def flush() -> None:
    """Flush the program's output; MPI_Abort does not.  Local."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def describe(error: BaseException) -> str:
    """Describe an exception in one line.  Local."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
