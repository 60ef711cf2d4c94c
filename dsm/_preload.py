"""The library that helps threads to fault, and the kernel to write into new arrays (csrc/preload/preload.c).

A thread that blocks SIGSEGV cannot fault a page in: the kernel ends the process without a message.  A system call that
fills memory of a node that is the whole job stops where a thread would open it: it is opened before the call.  The
library must be loaded before all others, so its path goes into the environment with which a rank starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import machinery
from pathlib import Path

VARIABLE = "LD_PRELOAD"


def library() -> str | None:
    """Return the path of the library; None if it is not built, or LD_PRELOAD cannot hold its path.  Local."""
    folder = Path(__file__).resolve().parent
    files = (folder / f"_unmask{suffix}" for suffix in machinery.EXTENSION_SUFFIXES)
    found = next((str(file) for file in files if file.is_file()), None)
    return None if found is None or set(found) & set(": ") else found  # the loader separates paths by these


def setting(environ: Mapping[str, str]) -> str | None:
    """Return the LD_PRELOAD that loads the library after the user's own; None if LD_PRELOAD may stay.  Local."""
    path, named = library(), environ.get(VARIABLE, "")
    if path is None or path in named.replace(":", " ").split():
        return None
    return f"{named}:{path}" if named.strip() else path
