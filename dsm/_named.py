"""Locks, conditions and the like: every rank makes them in the same order, by a call that the core compares.

The call is compared as text.  The same text stands for a thing without a name in messages.
"""

from __future__ import annotations

from typing import NoReturn


def check_name(name: str | None) -> None:
    """Check a name that the user gives to an array, a lock or the like.  Local."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if name is not None and "\0" in name:
        raise ValueError(f"name holds a null character: {name!r}")


def call_text(kind: str, name: str | None, *arguments: str) -> str:
    """Write the call that makes a thing.  Local."""
    return f"{kind}({', '.join([*arguments, *([] if name is None else [f'name={name!r}'])])})"


def shown(name: str | None) -> str:
    """Write a name as it stands in a repr.  Local."""
    return "" if name is None else f" {name!r}"


class MadeByAllRanks:
    """A thing that every rank knows by one number.  A pickled copy could not get that number elsewhere."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a dsm.{type(self).__name__} cannot be pickled: every rank makes it, in the same order")
