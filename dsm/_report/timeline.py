"""The timeline of the page: the spans and arrows of trace.json, thinned so that a long run fits into a page."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dsm._report.profile import Json

SPANS_MAX = 30_000  # a page of about 1 MB
ARROWS_MAX = 8_000

# Kinds as CSS colours them; the first are states of a thread, the others happen inside of one.
STATES = ("compute", "data", "lock", "barrier", "event", "other", "protocol")
KINDS = (*STATES, "fault", "collection")


# First words of the names of waits; the others are calls that only this rank makes, as a release.
WAITS = {"acquire": "lock", "barrier": "barrier", "wait": "event"}
WAITS |= dict.fromkeys(("allocation", "free", "collective", "end"), "other")
HELD_TRACKS = 100  # and above: tracks of locks


class Span(NamedTuple):
    """What a thread did for a while; `many` spans that were too short to show lie behind it."""

    track: int
    kind: int
    name: int
    start_s: float
    length_s: float
    many: int = 1


class Names:
    """Texts by number: each is written into the page once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text, a new one for a new text.  Local."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]


def timeline(events: Sequence[Json]) -> Json | None:
    """Return what the page draws, made of the events of a trace.json; None if there are none.  Local."""
    names = Names()
    shown = [event for event in events if event["ph"] == "X" and event["tid"] < HELD_TRACKS and _kind(event) >= 0]
    tracks = sorted({(event["pid"], event["tid"]) for event in shown})
    numbers = {track: number for number, track in enumerate(tracks)}
    spans = [
        Span(
            numbers[event["pid"], event["tid"]],
            _kind(event),
            names.number(event["name"]),
            event["ts"] / 1e6,
            event.get("dur", 0) / 1e6,
        )
        for event in shown
    ]
    if not spans:
        return None
    return {
        "tracks": [f"rank {pid}" + (f", thread {tid}" if tid > 1 else "") for pid, tid in tracks],
        "names": names.texts,
        "kinds": KINDS,
        "layers": len(STATES),
        "end": max(span.start_s + span.length_s for span in spans),
        "spans": [(*span[:3], round(span[3], 6), round(span[4], 6), span[5]) for span in thinned(spans)],
        "arrows": every(_arrows(events, numbers), ARROWS_MAX),
    }


def _kind(event: Json) -> int:
    """Return the number of an event's kind; -1 if the timeline does not show it."""
    category = event.get("cat", "")
    if category == "phase":
        return KINDS.index("compute")
    if category == "wait":
        return KINDS.index(WAITS.get(event["name"].partition(" ")[0], "protocol"))
    return KINDS.index(category) if category in KINDS else -1


def _arrows(events: Iterable[Json], numbers: dict[tuple[int, int], int]) -> list[tuple[int, float, int, float, str]]:
    """Return (track, seconds, track, seconds, kind) for each pair of a start and an end with the same number."""
    starts: dict[Any, Json] = {}
    found = []
    for event in sorted((event for event in events if event["ph"] in "sf"), key=lambda event: event["ph"] == "f"):
        if event["ph"] == "s":
            starts[event["cat"], event["id"]] = event
        elif begun := starts.get((event["cat"], event["id"])):
            # Arrows between the tracks of a lock are drawn between the main threads.
            a, b = (numbers.get((one["pid"], one["tid"] if one["tid"] < HELD_TRACKS else 1)) for one in (begun, event))
            if a is not None and b is not None:
                found.append((a, round(begun["ts"] / 1e6, 6), b, round(event["ts"] / 1e6, 6), str(event["cat"])))
    return found


def thinned(spans: Sequence[Span], most: int = SPANS_MAX) -> list[Span]:
    """Return at most about `most` spans: short neighbours of a track become one span for each kind.  Local."""
    if len(spans) <= most:
        return list(spans)
    end_s = max(span.start_s + span.length_s for span in spans)
    found = list(spans)
    resolution_s = end_s / most
    while len(found) > most and resolution_s < end_s:
        resolution_s *= 3
        found = _thinned_to(found, resolution_s)
    return found


def _thinned_to(spans: Iterable[Span], resolution_s: float) -> list[Span]:
    tracks: dict[tuple[int, bool], list[Span]] = {}
    for span in spans:
        tracks.setdefault((span.track, span.kind >= len(STATES)), []).append(span)
    found: list[Span] = []
    for members in tracks.values():
        members.sort(key=lambda span: span.start_s)
        windows = itertools.groupby(
            members, key=lambda span: -1 if span.length_s >= resolution_s else int(span.start_s / resolution_s)
        )
        for window, run in windows:
            found += run if window < 0 else _one_for_each_kind(list(run))
    return found


def _one_for_each_kind(run: Sequence[Span]) -> list[Span]:
    """Lay the kinds of a short time one after the other, each as long as its spans together."""
    kinds: dict[int, list[Span]] = {}
    for span in run:
        kinds.setdefault(span.kind, []).append(span)
    found = []
    start_s = run[0].start_s
    for kind, members in sorted(kinds.items()):
        length_s = sum(span.length_s for span in members)
        name = max(members, key=lambda span: span.length_s).name
        found.append(Span(run[0].track, kind, name, start_s, length_s, sum(span.many for span in members)))
        start_s += length_s
    return found


def every(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` items, evenly chosen.  Local."""
    return list(items[:: -(-len(items) // most) or 1])
