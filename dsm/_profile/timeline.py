"""The timeline of a run in the Chrome trace format, which Perfetto and chrome://tracing open.

A process is a rank and a thread is a thread of it; locks that a rank has held are further threads.  An arrow is a pair
of events with one number: it leaves a slice on one track and arrives in a slice on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from dsm._numpy import AnyArray
from dsm._profile.part import Part
from dsm._recorder import KINDS, Place

ARROWS_MAX = 5000  # of each kind
HELD_MAX = 50_000
LOCK_TRACK = 100  # the track of lock 0
_PHASE, _FAULTS, _COLLECTION = len(KINDS), len(KINDS) + 1, len(KINDS) + 2

Json = dict[str, Any]


def timeline(parts: Sequence[Part], array_names: dict[int, str], lock_names: dict[int, str]) -> Json:
    """Make the trace of all ranks.  Local."""
    began = min(part.began_s for part in parts)
    events = []
    for part in parts:
        events += _names(part)
        events += _slices(part, array_names, lock_names, began)
    events += _held(parts, lock_names, began)
    events += _data_arrows(parts, began)
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _us(seconds: float, began: float) -> float:
    return round((seconds - began) * 1e6, 3)


def _name(kind: str, pid: int, tid: int | None, name: str) -> Json:
    event = {"ph": "M", "name": kind, "pid": pid, "args": {"name": name}}
    return event if tid is None else event | {"tid": tid}


def _threads(part: Part) -> dict[int, int]:
    """The track of each thread."""
    return {int(thread["number"]): track for track, thread in enumerate(part.threads, 1)}


def _names(part: Part) -> list[Json]:
    found = [_name("process_name", part.rank, None, f"rank {part.rank} on {part.host}")]
    found += [
        _name("thread_name", part.rank, track, "main" if track == 1 else f"thread {track}")
        for track in _threads(part).values()
    ]
    return found


def text_of(place: Place) -> str:
    """Return a place as a name.  Local."""
    return f"{PurePath(place.file).name}:{place.line}" if place.line else "the end"


def _slices(part: Part, arrays: dict[int, str], locks: dict[int, str], began: float) -> Iterator[Json]:
    tracks = _threads(part)
    for event in part.events:
        kind, place = int(event["kind"]), part.site_numbers.get(int(event["site"]))
        slice_ = {
            "ph": "X",
            "pid": part.rank,
            "tid": tracks.get(int(event["thread"]), 1),
            "ts": _us(float(event["begin"]), began),
            "dur": max(0.0, round(float(event["end"] - event["begin"]) * 1e6, 3)),
        }
        if kind == _FAULTS:
            name = arrays.get(int(event["object"]), f"array {int(event['object'])}")
            count = int(event["count"])
            args = {"array": name, "faults": count, "pages": int(event["pages"]), "bytes": int(event["bytes"])}
            args["from"] = int(event["peer"])
            yield slice_ | {"cat": "fault", "name": f"{count} fault{'s'[: count != 1]} on {name}", "args": args}
        elif kind == _COLLECTION:
            yield slice_ | {"cat": "collection", "name": "garbage collection"}
        elif place is not None and kind == _PHASE:
            yield slice_ | {"cat": "phase", "name": text_of(place), "args": {"faults": int(event["count"])}}
        elif place is not None:
            thing = f" {locks.get(int(event['object']), '')}" if KINDS[kind] in ("acquire", "try", "release") else ""
            yield slice_ | {"cat": "wait", "name": f"{KINDS[kind]}{thing} {text_of(place)}"}


def _arrow(number: int, cat: str, leaves: tuple[int, int, float], arrives: tuple[int, int, float]) -> list[Json]:
    ends = []
    for ph, (pid, tid, ts) in (("s", leaves), ("f", arrives)):
        ends.append({"ph": ph, "id": number, "cat": cat, "name": cat, "pid": pid, "tid": tid, "ts": ts})
    ends[1]["bp"] = "e"
    return ends


def _held(parts: Sequence[Part], names: dict[int, str], began: float) -> list[Json]:
    """What was held, and arrows from each release to the acquire of another rank."""
    holds = np.concatenate([part.holds for part in parts])
    ranks = np.repeat([part.rank for part in parts], [len(part.holds) for part in parts])
    order = np.lexsort((holds["acquired"], holds["lock"]))[:HELD_MAX]
    holds, ranks = holds[order], ranks[order]
    end = max(part.ended_s for part in parts)
    found, arrows = [], 0
    for at, hold in enumerate(holds):
        lock, rank = int(hold["lock"]), int(ranks[at])
        track, begins = LOCK_TRACK + lock, _us(float(hold["acquired"]), began)
        ends = _us(min(float(hold["released"]), end), began)
        name = names.get(lock, f"lock {lock}")
        held = {"ph": "X", "cat": "held", "name": name, "pid": rank, "tid": track, "ts": begins}
        found.append(held | {"dur": max(0.0, round(ends - begins, 3))})
        if at and int(holds[at - 1]["lock"]) == lock and int(ranks[at - 1]) != rank and arrows < ARROWS_MAX:
            left = min(_us(float(holds[at - 1]["released"]), began), begins)
            found += _arrow(arrows, "lock", (int(ranks[at - 1]), track, left), (rank, track, begins))
            arrows += 1
    pairs = sorted(set(zip(ranks.tolist(), holds["lock"].tolist(), strict=True)))
    found += [_name("thread_name", rank, LOCK_TRACK + lock, f"holds {names.get(lock, lock)}") for rank, lock in pairs]
    return found


def _data_arrows(parts: Sequence[Part], began: float) -> list[Json]:
    """Arrows from the last call in which the writer could publish to the faults that fetched from it."""
    first = {part.node: part for part in reversed(parts)}
    calls = {node: _calls_of_main(part) for node, part in first.items()}
    fetches = [(part, event) for part in parts for event in part.events[part.events["peer"] >= 0]]
    fetches.sort(key=lambda pair: float(pair[1]["begin"] - pair[1]["end"]))
    found: list[Json] = []
    for part, event in fetches[:ARROWS_MAX]:
        writer = first[int(event["peer"])]
        published = calls[writer.node]
        at = int(np.searchsorted(published["begin"], event["end"])) - 1
        if at < 0:
            continue
        leaves = _us(float(published["begin"][at]), began)
        arrives = _us(float(event["end"]), began)
        track = _threads(part).get(int(event["thread"]), 1)
        found += _arrow(len(found) // 2, "data", (writer.rank, 1, leaves), (part.rank, track, arrives))
    return found


def _calls_of_main(part: Part) -> AnyArray:
    events = part.events
    main = int(part.threads[0]["number"])
    calls: AnyArray = events[(events["kind"] < _PHASE) & (events["thread"] == main)]
    return calls[np.argsort(calls["begin"])]
