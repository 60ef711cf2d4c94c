"""``python -m dsm run --progress``: a line that says which ranks wait, for what, with their memory and faults.

The watchdog thread of each rank sends a datagram now and then (``DSM_WATCH``); a rank in a page fault or in a long
computation sends it, too.  This process starts mpiexec as its child, and shows the line until that ends.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from dsm import _nodes

_EVERY_S = 0.5  # on a terminal
_PLAIN_EVERY_S = 5.0  # elsewhere, each time a line of its own
_FIRST_S = 1.0
_SILENT_S = 3.0
_SOON_S = 0.2  # a wait that is shorter is none
_DATAGRAM_BYTES = 1024


class State(NamedTuple):
    """What a rank has sent last, and when."""

    heard_s: float
    rank: int
    size: int
    faults: int
    protocol_bytes: int
    data_bytes: int
    waited_s: float
    what: str


def state_of(datagram: bytes, now_s: float) -> State | None:
    """Read a datagram; None if it is none of ours.  Local."""
    words = datagram.decode(errors="replace").split(" ", 6)
    try:
        rank, size, faults, protocol, data, waited_ms = map(int, words[:6])
    except ValueError:
        return None
    if not 0 <= rank < size:
        return None
    return State(now_s, rank, size, faults, protocol, data, waited_ms / 1000, " ".join(words[6:]).strip())


class Board:
    """What is known of all ranks."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {}
        self._faults = (0.0, 0)

    def take(self, datagram: bytes, now_s: float) -> None:
        """Note what a rank has sent.  Local."""
        state = state_of(datagram, now_s)
        if state is not None:
            self.states[state.rank] = state

    def line(self, now_s: float) -> str:
        """Return the line for now; "" before any rank has sent something.  Local."""
        if not self.states:
            return ""
        states = sorted(self.states.values(), key=lambda state: state.rank)
        size = states[0].size
        waits: dict[str, list[State]] = collections.defaultdict(list)
        for state in states:
            if state.what and state.waited_s >= _SOON_S:
                waits[state.what].append(state)
        parts = [f"{sum(map(len, waits.values()))} of {size} ranks wait"]
        for what, waiting in sorted(waits.items(), key=lambda item: -len(item[1])):
            longest = max(state.waited_s for state in waiting)
            parts.append(f"{_nodes.named([state.rank for state in waiting])} {longest:.1f} s {what}")
        silent = [state.rank for state in states if now_s - state.heard_s > _SILENT_S]
        if silent:
            parts.append(f"nothing heard of {_nodes.named(silent)}")
        megabytes = sum(state.protocol_bytes + state.data_bytes for state in states) / 2**20
        return f"{'; '.join(parts)} | {megabytes:,.0f} MiB | {self._rate(now_s):,.0f} faults/s"

    def _rate(self, now_s: float) -> float:
        before_s, before = self._faults
        faults = sum(state.faults for state in self.states.values())
        self._faults = (now_s, faults)
        return max(0, faults - before) / (now_s - before_s) if before_s and now_s > before_s else 0.0


def run(words: Sequence[str], environ: Mapping[str, str], local: bool) -> int:
    """Run a command as a child, and show the progress of its ranks; return its exit status.  Local.

    Parameters
    ----------
    words : sequence of str
        The command.
    environ : mapping
        Its environment, to which ``DSM_WATCH`` is added.
    local : bool
        Whether all ranks run on this host.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        host = "127.0.0.1" if local else socket.gethostname()
        ear.bind((host if local else "", 0))
        ear.settimeout(_EVERY_S / 5)
        child = subprocess.Popen(words, env={**environ, "DSM_WATCH": f"{host}:{ear.getsockname()[1]}"})
        with _signals_to(child), _shown() as show:
            board = Board()
            while child.poll() is None:
                with contextlib.suppress(TimeoutError):
                    board.take(ear.recv(_DATAGRAM_BYTES), time.monotonic())
                show(board)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


@contextlib.contextmanager
def _signals_to(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the job answer signals: the terminal sends Ctrl-C to it as well."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: child.send_signal(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[Board], None]]:
    """Yield what shows the board: a line that changes on a terminal with rich, else plain lines."""
    live = None
    every_s = _PLAIN_EVERY_S
    if sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            live = Live(console=Console(file=sys.stderr), auto_refresh=False, transient=True, redirect_stdout=False)
            every_s = _EVERY_S
    due_s = time.monotonic() + min(every_s, _FIRST_S)

    def show(board: Board) -> None:
        nonlocal due_s
        now_s = time.monotonic()
        if now_s < due_s:
            return
        due_s = now_s + every_s
        line = board.line(now_s)
        if live is not None:
            live.update(Text(line), refresh=True)
        elif line:
            sys.stderr.write(f"dsm progress: {line}{os.linesep}")
            sys.stderr.flush()

    with live or contextlib.nullcontext():
        yield show
