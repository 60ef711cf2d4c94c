"""Timeouts, with the checks and the messages of threading."""

from __future__ import annotations

import threading
import time


def seconds_of(blocking: bool, timeout: float) -> float | None:
    """Check the two arguments of `acquire`; return the longest wait in seconds, None for ever.  Local."""
    _check_number(timeout)
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout == -1:
        return None
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    _check_length(timeout)
    return float(timeout)


def end_of(timeout: float | None) -> float | None:
    """Check a timeout in seconds; return its end on the monotonic clock, None for never.  Local."""
    if timeout is None:
        return None
    _check_number(timeout)
    _check_length(timeout)
    return time.monotonic() + max(float(timeout), 0.0)


def left_of(end_s: float | None) -> float | None:
    """Return the seconds that are left until the end, None for ever.  Local."""
    return None if end_s is None else end_s - time.monotonic()


def _check_number(timeout: float) -> None:
    if timeout != timeout:
        raise ValueError("timeout value must not be NaN")


def _check_length(timeout: float) -> None:
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
