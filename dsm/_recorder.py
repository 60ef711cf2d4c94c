"""What a profile (``DSM_PROFILE``) records on this rank: the program's calls of dsm by their sites, and its arrays.

The core keeps the numbers (csrc/runtime/profile.h).  This module gives it the sites: a place in the program and a kind
of call have one number.  Nothing of dsm is wrapped unless the environment asks for a profile when dsm is imported, so
that a run without one is as before.

The counts of an array's pages are taken when it is freed, and of those that are left at the end.  `taken` has all of
it, for the modules of ``dsm._profile``.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any, NamedTuple

from dsm import _frames, _lock, _runtime, _settings
from dsm._layout import Layout
from dsm._runtime import Runtime

ON = _settings.profile_folder(os.environ) is not None
KINDS = (
    "barrier",
    "acquire",
    "try",
    "release",
    "wait",
    "set",
    "clear",
    "notify",
    "allocation",
    "free",
    "collective",
    "prefetch",
    "counter",
    "end",
)  # enum dsm_call, which counts alike
BARRIER, ACQUIRE, TRY, RELEASE, WAIT, SET, CLEAR, NOTIFY, ALLOCATION, FREE, COLLECTIVE, PREFETCH, COUNTER, END = range(
    len(KINDS)
)
_ARRAYS_MAX = 20_000  # whose counts are kept
_SAMPLE_S = 0.05  # a sample takes the GIL away, which takes long where all cores are busy

# The calls of a program, by the module and perhaps the class that has them.
_FUNCTIONS = {
    "barrier": BARRIER,
    "zeros": ALLOCATION,
    "empty": ALLOCATION,
    "ones": ALLOCATION,
    "full": ALLOCATION,
    "zeros_like": ALLOCATION,
    "empty_like": ALLOCATION,
    "array": ALLOCATION,
    "load": ALLOCATION,
    "save": COLLECTIVE,
    "broadcast": COLLECTIVE,
    "free": FREE,
    "prefetch": PREFETCH,
}
_METHODS = {
    ("Lock", "release"): RELEASE,
    ("Condition", "__init__"): COLLECTIVE,
    ("Condition", "wait"): WAIT,
    ("Condition", "notify"): NOTIFY,
    ("Condition", "notify_all"): NOTIFY,
    ("Event", "set"): SET,
    ("Event", "clear"): CLEAR,
    ("Event", "wait"): WAIT,
    ("Semaphore", "__init__"): COLLECTIVE,
    ("Semaphore", "acquire"): WAIT,
    ("Semaphore", "release"): NOTIFY,
    ("Barrier", "__init__"): COLLECTIVE,
    ("Barrier", "wait"): WAIT,
    ("Counter", "next"): COUNTER,
}


class Place(NamedTuple):
    """A line of the program, and the kind of its call."""

    file: str
    line: int
    function: str
    call: int


@dataclass
class Watched:
    """An array whose pages are counted; `counts` and `stats` are filled when it is freed, or at the end."""

    region: int
    label: str
    layout: Layout
    page_bytes: int
    pages: int
    place: Place
    allocated_ns: int
    freed_ns: int | None = None
    counts: bytes = b""  # of struct dsm_profile_page
    stats: dict[str, int] = field(default_factory=dict)
    owners: list[tuple[int, int, int]] = field(default_factory=list)
    held_bytes: int = 0  # on this node


_END_OF_PROGRAM = Place("", 0, "", END)


class Recorder:
    """The sites and arrays of this rank, and the samples of its lines."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.lib = runtime.lib
        self.enter, self.leave = runtime.lib.dsm_profile_enter, runtime.lib.dsm_profile_leave
        self.comm = runtime.comm.Dup()
        self.places: list[Place] = [_END_OF_PROGRAM]
        self.labels: list[str | None] = [None]
        self.arrays: dict[int, Watched] = {}
        self.arrays_left = 0
        self.lines: dict[tuple[str, int, str], float] = {}
        self.service_ns = 0
        self.stats: dict[str, int] = {}
        self.lock_stats: dict[int, dict[str, int]] = {}
        self._sites: dict[tuple[int, int, int], tuple[CodeType, int]] = {}  # holds the code: another could get its id
        self._own: set[str] = set()  # files of dsm
        self._known: dict[Place, int] = {_END_OF_PROGRAM: 0}
        self._began_end_ns = 0
        self._stop, self._sampling = threading.Event(), threading.Lock()
        self._sampler = threading.Thread(target=self._sample, name="dsm profile", daemon=True)
        self._sampler.start()

    # ---- sites ---------------------------------------------------------------------------------------------

    def site(self, frame: FrameType, call: int, thing: object = None) -> int:
        """Return the number of the place in the program that makes this call, in or above `frame`.  Local."""
        while frame.f_code.co_filename in self._own and frame.f_back is not None:
            frame = frame.f_back
        found = self._sites.get((id(frame.f_code), frame.f_lasti, call))
        return found[1] if found is not None else self._new_site(frame, call, thing)

    def _new_site(self, frame: FrameType, call: int, thing: object) -> int:
        while _frames.is_own(frame) and frame.f_back is not None:
            self._own.add(frame.f_code.co_filename)
            frame = frame.f_back
        place = place_of(frame, call)
        number = self._known.setdefault(place, len(self.places))
        if number == len(self.places):
            self.places.append(place)
            self.labels.append(_label_of(thing))
        self._sites[id(frame.f_code), frame.f_lasti, call] = (frame.f_code, number)
        return number

    # ---- arrays --------------------------------------------------------------------------------------------

    def watch(self, region: int, label: str, layout: Layout, page_bytes: int, pages: int) -> None:
        """Record the pages of a new array.  Local."""
        if len(self.arrays) >= _ARRAYS_MAX:
            self.arrays_left += 1
            return
        self.lib.dsm_profile_watch(region, pages)
        frame = sys._getframe(1)
        place = self.places[self.site(frame, ALLOCATION)]
        now = int(self.lib.dsm_profile_clock())
        self.arrays[region] = Watched(region, label, layout, page_bytes, pages, place, now)

    def take(self, region: int) -> None:
        """Copy what was counted of an array that is about to be freed, or is left at the end.  Local."""
        array = self.arrays.get(region)
        if array is None or array.freed_ns is not None:
            return
        ffi, lib = self.runtime.ffi, self.lib
        pages = lib.dsm_profile_pages(region)
        if pages != ffi.NULL:
            array.counts = bytes(ffi.buffer(pages, array.pages * ffi.sizeof("struct dsm_profile_page")))
        counted = ffi.new("struct dsm_stats *")
        if lib.dsm_stats_of_region(region, counted) == lib.DSM_OK:
            array.stats = numbers(ffi, counted)
        owners, held = ffi.new("int32_t[]", array.pages), ffi.new("uint64_t *")
        if lib.dsm_profile_owners(region, array.pages, owners, held) == lib.DSM_OK:
            array.owners = runs_of_owners(ffi.unpack(owners, array.pages)) if self.runtime.rank == 0 else []
            array.held_bytes = int(held[0]) * array.page_bytes

    def freed(self, region: int) -> None:
        """The array of which `take` has the counts is freed.  Local."""
        array = self.arrays.get(region)
        if array is not None:
            array.freed_ns = int(self.lib.dsm_profile_clock())
            self.lib.dsm_profile_unwatch(region)

    # ---- lines ---------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        main = threading.main_thread().ident
        while not self._stop.wait(_SAMPLE_S):
            with self._sampling:
                self._look(main or 0)

    def _look(self, thread: int) -> None:
        frame = sys._current_frames().get(thread)
        while frame is not None and not is_of_program(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None:
            key = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
            self.lines[key] = self.lines.get(key, 0.0) + _SAMPLE_S

    def let_go(self) -> None:
        """Wait until no sample holds a frame of a function that has ended, and so its arrays.  Local."""
        with self._sampling:
            pass

    # ---- the end -------------------------------------------------------------------------------------------

    def before_end(self) -> None:
        """Take what only a dsm that is active can tell.  Local."""
        self._stop.set()
        if not self._began_end_ns:
            self._began_end_ns = int(self.lib.dsm_profile_enter(END, 0))
        self.service_ns = int(self.lib.dsm_profile_service_ns())
        counted = self.runtime.ffi.new("struct dsm_stats *")
        self.runtime.check(self.lib.dsm_stats(counted))
        self.stats = numbers(self.runtime.ffi, counted)
        for lock in _lock.lock_kinds():
            self.runtime.check(self.lib.dsm_stats_of_lock(lock, counted))
            self.lock_stats[lock] = numbers(self.runtime.ffi, counted)
        for region in self.arrays:
            self.take(region)

    def seconds(self) -> float:
        """Return how long this rank has recorded.  Local."""
        return (int(self.lib.dsm_profile_clock()) - int(self.lib.dsm_profile().began_ns)) / 1e9

    def end(self) -> None:
        """All ranks have come to the end of the program.  Local."""
        self.lib.dsm_profile_leave(END, 0, 0, self._began_end_ns)


def numbers(ffi: Any, struct: Any) -> dict[str, int]:
    """Return the fields of a struct of the core, which are numbers, by their names.  Local."""
    return {name: int(getattr(struct, name)) for name, _ in ffi.typeof(struct[0]).fields}


def runs_of_owners(owners: list[int]) -> list[tuple[int, int, int]]:
    """Return (first page, pages, rank) for pages that have an owner.  Local."""
    runs: list[tuple[int, int, int]] = []
    for page, owner in enumerate(owners):
        if runs and runs[-1][2] == owner:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1, owner)
        else:
            runs.append((page, 1, owner))
    return [run for run in runs if run[2] >= 0]


def place_of(frame: FrameType, call: int) -> Place:
    """Return the place that a frame has come to.  Local."""
    code = frame.f_code
    return Place(os.path.abspath(code.co_filename), frame.f_lineno, code.co_qualname, call)


@functools.cache
def is_of_program(file: str) -> bool:
    """Tell whether a file is the program's own, not of Python, of an installed package, or of dsm.  Local."""
    if file.startswith("<"):
        return file == "<string>"  # python -c
    folders = (os.path.dirname(os.__file__), os.path.dirname(__file__))
    return "site-packages" not in file and not os.path.abspath(file).startswith(tuple(f + os.sep for f in folders))


def _label_of(thing: object) -> str | None:
    if thing is None:
        return None
    name, number = getattr(thing, "_name", None), getattr(thing, "_number", None)
    return name or f"{type(thing).__name__}{'' if number is None else f' {number}'}"


# ---- the recorder of this process ----------------------------------------------------------------------------------

active: Recorder | None = None


def begin() -> None:
    """Begin to record, if this run makes a profile.  Collective."""
    global active
    runtime = _runtime.active()
    if ON and runtime.settings.profile is not None:
        active = Recorder(runtime)


def before_end() -> None:
    """Take what only a dsm that is active can tell.  Local."""
    if active is not None:
        active.before_end()


def end() -> Recorder | None:
    """End the recording, and return what was recorded; None if nothing was.  Local."""
    global active
    recorder, active = active, None
    if recorder is not None:
        recorder.end()
    return recorder


# The wrappers cost a microsecond, which is as long as a lock takes that is free: they make no closure and no call that
# can be spared.


def _in_place_of(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a wrapper look like the function, to the program and in frames."""

    def named(wrapper: Any) -> Callable[..., Any]:
        code = function.__code__
        wrapper.__code__ = wrapper.__code__.replace(co_name=code.co_name, co_qualname=code.co_qualname)
        return functools.wraps(function)(wrapper)

    return named


def _recorded(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    @_in_place_of(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        recorder = active
        if recorder is not None:
            if call == FREE:
                recorder.let_go()
            begin = recorder.enter(call, 0)
            try:
                return function(*args, **kwargs)
            finally:
                recorder.leave(call, 0, recorder.site(sys._getframe(1), call, None), begin)
        made = function(*args, **kwargs)
        if active is not None:  # the call has started dsm
            active.leave(call, 0, active.site(sys._getframe(1), call, None), active.enter(call, 0))
        return made

    return wrapper


def _recorded_method(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    @_in_place_of(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active
        if recorder is None:
            return function(self, *args, **kwargs)
        number = getattr(self, "_number", 0)
        begin = recorder.enter(call, number)
        try:
            return function(self, *args, **kwargs)
        finally:
            recorder.leave(call, number, recorder.site(sys._getframe(1), call, self), begin)

    return wrapper


def _recorded_take(function: Callable[[Any, FrameType, float | None], bool]) -> Callable[..., bool]:
    @_in_place_of(function)
    def wrapper(self: Any, frame: FrameType, seconds: float | None) -> bool:
        recorder = active
        if recorder is None:
            return function(self, frame, seconds)
        call, number = TRY, self._number
        begin = recorder.enter(TRY, number)
        try:
            if function(self, frame, seconds):
                call = ACQUIRE
        finally:
            recorder.leave(call, number, recorder.site(frame, ACQUIRE, self), begin)
        return call == ACQUIRE

    return wrapper


def install(names: dict[str, Any]) -> None:
    """Wrap the calls of a program, in the names of the package and in its classes.  Local."""
    for name, call in _FUNCTIONS.items():
        names[name] = _recorded(names[name], call)
    for (kind, name), call in _METHODS.items():
        setattr(names[kind], name, _recorded_method(getattr(names[kind], name), call))
    names["Lock"]._take = _recorded_take(names["Lock"]._take)
