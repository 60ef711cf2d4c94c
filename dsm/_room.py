"""How much memory is left on this host, and in the control groups that bound this process.

The core holds copies of other hosts' pages up to half of it (``DSM_CACHE_BYTES``).  The kernel frees its cache of files
before it refuses memory, so that counts as left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path


def _number(file: Path, pattern: str = r"(\d+)\s*") -> int | None:
    try:
        found = re.search(rf"^{pattern}$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """The directories of the groups, outermost last, each with the names of its limit and its use."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        here = top / name.lstrip("/")
        while here != top and here.is_relative_to(top):
            yield here, *files
            here = here.parent
        yield top, *files  # in a container the path may be that of the host, and its own group is on top


def left_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of memory that are left, or 0 if the system does not say.  Local.

    Parameters
    ----------
    root : Path, optional
        The directory under which ``proc`` and ``sys`` lie, for tests.
    """
    kilobytes = _number(root / "proc/meminfo", r"MemAvailable:\s+(\d+) kB")
    left = [] if kilobytes is None else [kilobytes << 10]
    for group, limit, use in _groups(root):
        most, used = _number(group / limit), _number(group / use)
        if most is None or used is None:
            continue  # "max", or no such group
        files = sum(_number(group / "memory.stat", rf"{kind}_file (\d+)") or 0 for kind in ("active", "inactive"))
        left.append(max(most - used + files, 0))
    return min(left, default=0)
