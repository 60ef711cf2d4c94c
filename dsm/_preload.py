"""The library that keeps SIGSEGV and SIGBUS out of the signal masks of a rank's threads (csrc/preload/preload.c).

A thread that blocks SIGSEGV cannot fault a page in: the kernel ends the process without a word.  A library that is
already loaded can no longer be changed, so this one is for the environment that a rank is started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import machinery
from pathlib import Path

VARIABLE = "LD_PRELOAD"


def library() -> str | None:
    """Return the path of the library; None when it is not built, or the loader cannot be told its path.  Local."""
    folder = Path(__file__).resolve().parent
    files = (folder / f"_unmask{suffix}" for suffix in machinery.EXTENSION_SUFFIXES)
    found = next((str(file) for file in files if file.is_file()), None)
    return None if found is None or set(found) & set(": ") else found  # what the loader separates paths by


def setting(environ: Mapping[str, str]) -> str | None:
    """Return what LD_PRELOAD must be so that the library is loaded behind the user's own; None: leave it.  Local."""
    path, named = library(), environ.get(VARIABLE, "")
    if path is None or path in named.replace(":", " ").split():
        return None
    return f"{named}:{path}" if named.strip() else path
