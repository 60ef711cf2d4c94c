"""Frames of the program that calls dsm, as opposed to frames of dsm itself."""

from __future__ import annotations

import os
import sys
from types import FrameType

_OWN_FOLDER = os.path.dirname(sys._getframe().f_code.co_filename)  # in the spelling of dsm's frames


def is_own(frame: FrameType) -> bool:
    """Tell whether a frame runs a function of dsm.  Local."""
    return os.path.dirname(frame.f_code.co_filename) == _OWN_FOLDER


def place_of(frame: FrameType) -> str:
    """Return the file and line of a frame, without the folder, which may differ between hosts.  Local."""
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def place_of_caller() -> str:
    """Return the file and line where the program calls dsm.  Local."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_own(frame):
        frame = frame.f_back
    return place_of(frame) if frame is not None else "?"
