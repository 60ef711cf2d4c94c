"""The report of a profiled run: report.html, made of profile.json, trace.json and, if it is there, races.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsm._errors import DSMError
from dsm._report import page, profile


def write(folder: Path) -> Path:
    """Write report.html beside the profile.json of a folder, and return its path.  Local."""
    trace = _read(folder / "trace.json")
    shown = page.write(
        profile.read(folder / "profile.json"), trace["traceEvents"] if trace else [], _read(folder / "races.json")
    )
    file = folder / "report.html"
    file.write_text(shown, encoding="utf-8")
    return file


def main(folder: str) -> int:
    """Write the report of a folder again, and say where it is.  Local."""
    if not (Path(folder) / "profile.json").exists():
        raise DSMError(
            f"{folder} has no profile.json: give the folder that `python -m dsm run --profile DIR` has written"
        )
    print(f"dsm: wrote {write(Path(folder))}")
    return 0


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
