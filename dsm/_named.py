"""Locks, conditions and the like: every rank makes them in the same order, by a call that the core compares.

The call is compared as text, at the next collective call.  The same text stands for a thing without a name in messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from dsm import _runtime


def check_name(name: str | None) -> None:
    """Check a name that the user gives to an array, a lock or the like.  Local."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if name is not None and "\0" in name:
        raise ValueError(f"name holds a null character: {name!r}")


def call_text(kind: str, name: str | None, *arguments: str) -> str:
    """Write the call that makes a thing.  Local."""
    return f"{kind}({', '.join([*arguments, *([] if name is None else [f'name={name!r}'])])})"


def made(new: Callable[..., int], call: str, name: str | None, label: str) -> int:
    """Make a thing in the core and return its number; with DSM_CHECK, ranks compare it at once.  Collective.

    Parameters
    ----------
    new : callable
        The function of the core, which is given the call, the label and where the number goes.
    call : str
        Compared with that of the other ranks.
    name : str or None
        Of the user; where there is none, DSM_CHECK has the lines of the program compared, too.
    label : str
        In messages; "": none.
    """
    runtime = _runtime.started()
    number = runtime.ffi.new("uint32_t *")
    call = runtime.made_here(call) if name is None else call
    texts = [runtime.ffi.new("char[]", text.encode(errors="replace")) for text in (call, label)]
    runtime.check(new(*texts, number))
    if runtime.settings.check:
        runtime.wait(runtime.lib.dsm_barrier)  # here a difference is told with the line that makes it
    return int(number[0])


def shown(name: str | None) -> str:
    """Write a name as it stands in a repr.  Local."""
    return "" if name is None else f" {name!r}"


class MadeByAllRanks:
    """A thing that every rank knows by one number.  A pickled copy could not get that number elsewhere."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a dsm.{type(self).__name__} cannot be pickled: every rank makes it, in the same order")
