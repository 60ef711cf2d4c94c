"""The settings of a run: keywords of `init`, then the environment, then the defaults below.

Only this module reads variables of the environment that begin with DSM_.  Its errors name the malformed variable and
show the value as the user wrote it.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
PAGE_BYTES_MIN = 4096
PAGE_BYTES_MAX = 64 << 20
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
PAGE_BYTES_DEFAULT = 4096
WATCHDOG_S_DEFAULT = 10.0
_OURS = "DSM_"
VARIABLES = (
    "DSM_PAGE_SIZE",
    "DSM_PROGRESS",
    "DSM_STATS",
    "DSM_WATCHDOG_S",
    "DSM_CHECK",
    "DSM_TRACE",
    "DSM_COLLECT_BYTES",
    "DSM_CACHE_BYTES",
    "DSM_RANGE_BYTES",
    "DSM_CHAOS",
    "DSM_WITHOUT",
    "DSM_NODE",
    "DSM_RACES",
    "DSM_PROFILE",
    "DSM_WATCH",
)
FOR_TESTS = "DSM_TEST_"  # read by the test suite
OF_OTHERS = ("DSM_CONFIG", "DSM_DIR", "DSM_LOG")  # a backup client's
NODE = ("host", "rank")  # all ranks of a host are a node of the protocol, or each one
NODE_DEFAULT = "host"
RACES_NODE = "rank"
_OFF = ("", "0")
RACES_HERE = "1"  # of DSM_RACES: races.json goes into the working directory
RACES_BYTES = 256 << 20  # of the log of accesses between two comparisons, on each rank
PROGRESS = ("doorbell", "spin", "poll")
WITHOUT = {
    "readahead": 1,
    "refetch": 2,
    "push": 4,
    "preopen": 8,
    "huge": 16,
    "join": 32,
    "evict": 64,
    "crowds": 128,
    "publish": 256,
    "guesses": 512,
    "pieces": 1024,
    "appetite": 2048,
    "columns": 4096,
    "forwards": 65536,
    "habits": 131072,
}  # enum dsm_without


@dataclass(frozen=True)
class Settings:
    """The settings of one run.  For `range_bytes`, `collect_bytes`, `cache_bytes` 0 is the core's default."""

    page_bytes: int
    progress: str
    stats: bool
    watchdog_s: float
    check: int
    trace: str | None
    collect_bytes: int
    cache_bytes: int
    range_bytes: int
    chaos_seed: int
    without: int = 0
    node: int = 0
    races: str | None = None  # the folder of races.json
    profile: str | None = None
    watch: tuple[str, int] = ("", 0)


def unknown(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return variables that only look like dsm's, each with the known variable that it resembles.  Local."""
    ours = {name for name in environ if name.startswith(_OURS) and not name.startswith(FOR_TESTS)}
    names = sorted(ours.difference(VARIABLES, OF_OTHERS))
    known = [name.removeprefix(_OURS) for name in VARIABLES]
    close = {name: difflib.get_close_matches(name.removeprefix(_OURS), known, n=1) for name in names}
    return {name: _OURS + found[0] if found else None for name, found in close.items()}


def page_bytes_checked(value: object, source: str, written: str | None = None) -> int:
    """Return a page size in bytes, or raise ValueError if it is not a power of two within the limits.  Local.

    Parameters
    ----------
    value : int
        The page size.
    source : str
        The keyword or variable that it comes from, for the message.
    written : str, optional
        The value as the user wrote it, for the message.  Default: `value`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{source} must be a whole number of bytes, not {value!r}")
    size: int = value.__index__()
    if not PAGE_BYTES_MIN <= size <= PAGE_BYTES_MAX or size & (size - 1):
        given = size if written is None else repr(written)
        raise ValueError(f"{source} must be a power of two from 4096 bytes (4k) to 64 MiB (64M), not {given}")
    return size


def progress_checked(value: object, source: str) -> str:
    """Return one of `PROGRESS`, or raise ValueError.  Local."""
    if value not in PROGRESS:
        raise ValueError(f"{source} must be one of {', '.join(PROGRESS)}, not {value!r}")
    return str(value)


def node_checked(value: str, source: str) -> int:
    """Return how many ranks of a host are one node at most, 0 for all of them, or raise ValueError.  Local."""
    if value in NODE:
        return NODE.index(value)
    if value.isascii() and value.isdecimal() and 1 <= int(value) <= _INT32_MAX:
        return int(value)
    raise ValueError(f"{source} must be {', '.join(NODE)} or a number of ranks of a host, not {value!r}")


def profile_folder(environ: Mapping[str, str]) -> str | None:
    """Return the folder that a profile is to be written to; None: there is to be none.  Local."""
    return environ.get("DSM_PROFILE", "").strip() or None


def watch_checked(value: str) -> tuple[str, int]:
    """Return host and port of who shows the progress of a run, ("", 0) for nobody, or raise ValueError.  Local."""
    host, _, port = value.rpartition(":")
    if not value:
        return "", 0
    if host and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16:
        return host, int(port)
    raise ValueError(f"DSM_WATCH must be HOST:PORT, not {value!r}")


def settings(
    page_size: int | None = None, progress: str | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Combine keywords, environment and defaults.  Local.

    Parameters
    ----------
    page_size : int, optional
        Keyword of `dsm.init`, bytes.
    progress : str, optional
        Keyword of `dsm.init`.
    environ : mapping, optional
        The environment; ``os.environ`` by default.

    Raises
    ------
    ValueError
        A value is malformed; the text names its keyword or variable.
    """
    if environ is None:
        environ = os.environ
    if page_size is not None:
        page_bytes = page_bytes_checked(page_size, "page_size")
    else:
        given = _bytes(environ, "DSM_PAGE_SIZE", PAGE_BYTES_DEFAULT)
        page_bytes = page_bytes_checked(given, "DSM_PAGE_SIZE", environ.get("DSM_PAGE_SIZE"))
    if progress is not None:
        way = progress_checked(progress, "progress")
    else:
        way = progress_checked(environ.get("DSM_PROGRESS") or PROGRESS[0], "DSM_PROGRESS")
    races = environ.get("DSM_RACES", "").strip()
    return Settings(
        page_bytes=page_bytes,
        progress=way,
        stats=_whole(environ, "DSM_STATS", 0, most=1) == 1,
        watchdog_s=_seconds(environ, "DSM_WATCHDOG_S", WATCHDOG_S_DEFAULT),
        check=_whole(environ, "DSM_CHECK", 0, most=2),
        trace=environ.get("DSM_TRACE") or None,
        collect_bytes=_bytes(environ, "DSM_COLLECT_BYTES", 0),
        cache_bytes=_bytes(environ, "DSM_CACHE_BYTES", 0),
        range_bytes=_bytes(environ, "DSM_RANGE_BYTES", 0),
        chaos_seed=_whole(environ, "DSM_CHAOS", 0),
        without=_bits(environ, "DSM_WITHOUT", WITHOUT),
        node=_node(environ, NODE_DEFAULT if races in _OFF else RACES_NODE),
        races=None if races in _OFF else "." if races == RACES_HERE else races,
        profile=profile_folder(environ),
        watch=watch_checked(environ.get("DSM_WATCH", "").strip()),
    )


def _node(environ: Mapping[str, str], default: str) -> int:
    text = environ.get("DSM_NODE", "").strip()
    if default == RACES_NODE and text not in ("", "1", RACES_NODE):
        raise ValueError(
            f"DSM_RACES finds races between nodes: DSM_NODE must be {RACES_NODE!r}, the default then, not {text!r}"
        )
    return node_checked(text or default, "DSM_NODE")


def _whole(environ: Mapping[str, str], name: str, default: int, most: int = _INT64_MAX) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) > most:
        limit = "2**63 - 1" if most == _INT64_MAX else most
        raise ValueError(f"{name} must be a whole number from 0 to {limit}, not {text!r}")
    return int(text)


def _bytes(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return default
    found = re.fullmatch(r"([0-9]+)\s*(?:([kmgt])(?:i?b)?|b?)", text, flags=re.IGNORECASE)
    count = int(found[1]) << _SHIFTS[(found[2] or "").lower()] if found else None
    if count is None or count > _INT64_MAX:
        limit = "" if count is None else " below 8 EiB"
        raise ValueError(f"{name} must be a number of bytes{limit}, as in 65536, 64k, 1M or 2G, not {text!r}")
    return count


def _bits(environ: Mapping[str, str], name: str, words: Mapping[str, int]) -> int:
    bits = 0
    for word in environ.get(name, "").replace(",", " ").split():
        if word not in words:
            raise ValueError(f"{name} must be some of {', '.join(words)}, not {word!r}")
        bits |= words[word]
    return bits


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {text!r}")
    return seconds
