"""The end of a profile: the parts go to rank 0, which writes the files and prints three lines.

It comes after the meeting at the end of the program, so all ranks are there, and MPI may be used.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
from pathlib import Path

import numpy as np

from dsm import _lock, _mpi, _recorder
from dsm._profile import clocks
from dsm._profile.merge import Json, merge
from dsm._profile.part import part_of
from dsm._profile.timeline import timeline
from dsm._recorder import Recorder

_SHARES = {
    "compute_s": "compute",
    "data_s": "data",
    "lock_s": "locks",
    "barrier_s": "barriers",
    "event_s": "events",
    "other_s": "other collective calls",
    "protocol_s": "protocol",
}

_first: clocks.Offset | None = None


def begin() -> None:
    """Begin to record, if this run makes a profile, and compare the clocks.  Collective."""
    global _first
    _recorder.begin()
    if _recorder.active is not None:
        _first = clocks.measure(_recorder.active.comm)


def end() -> None:
    """Write the profile of this run, if it makes one.  Collective."""
    recorder = _recorder.end()
    if recorder is None or _first is None:
        return
    clock = clocks.Clock(_first, clocks.measure(recorder.comm))
    parts = recorder.comm.gather(part_of(recorder, clock), root=0)
    recorder.comm.Free()
    if parts is None:
        return
    names = _lock.lock_labels()
    profile = merge(parts, _run(recorder), names, _lock.lock_kinds()) | {"machine": _machine()}
    arrays = {array["id"]: array["name"] for array in profile["arrays"]}
    folder = Path(str(recorder.runtime.settings.profile))
    try:
        _write(folder, "profile.json", profile)
        _write(folder, "trace.json", timeline(parts, arrays, names))
    except OSError as error:
        _say(f"the profile is lost: cannot write to {folder}: {error.strerror}; name another folder (DSM_PROFILE)")
        return
    for line in lines_of(profile, folder):
        _say(line)


def _say(text: str) -> None:
    sys.stderr.write(f"dsm profile: {text}\n")
    sys.stderr.flush()


def _write(folder: Path, name: str, content: Json) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))


def _run(recorder: Recorder) -> Json:
    runtime = recorder.runtime
    now = datetime.datetime.now(datetime.UTC)
    return {
        "program": shlex.join(sys.orig_argv),
        "argv": sys.argv,
        "folder": os.getcwd(),
        "began": (now - datetime.timedelta(seconds=recorder.seconds())).isoformat(timespec="seconds"),
        "page_bytes": runtime.settings.page_bytes,
        "node": {0: "host", 1: "rank"}.get(runtime.settings.node, str(runtime.settings.node)),
        "dsm": _version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mpi": _mpi.short(runtime.mpi.Get_library_version().strip("\0")),
    }


def _machine() -> Json:
    names = re.findall(r"^model name\s*:\s*(.*)$", _text(Path("/proc/cpuinfo")), re.M)
    return {"cpu": names[0] if names else platform.machine(), "kernel": platform.release()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def lines_of(profile: Json, folder: Path) -> list[str]:
    """Return the three lines that rank 0 prints: the time, the first advice, and the path.  Local."""
    ranks = profile["ranks"]
    total = sum(rank["seconds"] for rank in ranks) or 1.0
    shares = {text: sum(rank["time"][name] for rank in ranks) / total for name, text in _SHARES.items()}
    parts = [
        f"{share:.0%} {text}" for text, share in sorted(shares.items(), key=lambda item: -item[1]) if share > 0.005
    ]
    lines = [f"{profile['run']['seconds']:.2f} s on {len(ranks)} ranks: {', '.join(parts)}"]
    advice, report = _report(profile, folder)
    lines += [line for line in (*profile["notes"], advice) if line][:1]
    return [*lines, f"wrote {report}, and trace.json for https://ui.perfetto.dev"]


def _report(profile: Json, folder: Path) -> tuple[str, str]:
    """Return the first advice, and the file that was written; a report that fails does not end the job."""
    try:
        # Late, because a run without a profile needs none of it.
        first = importlib.import_module("dsm._report.advice").first_line(profile)
        return str(first), str(importlib.import_module("dsm._report").write(folder))
    except Exception as error:
        return f"no report: {type(error).__name__}: {error}", str(folder / "profile.json")


def _version() -> str:
    try:
        return importlib.metadata.version("dsm-mpi")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
