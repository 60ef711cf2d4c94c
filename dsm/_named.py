"""Things that every rank makes in the same order: their names, and the calls that make them, as text.

The core compares these calls between ranks, and messages show them.
"""

from __future__ import annotations


def check_name(name: str | None) -> str | None:
    """Check what a user calls a thing.  Local."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if name is not None and "\0" in name:
        raise ValueError(f"name holds a null character: {name!r}")
    return name
