"""What a search for data races says: each pair of places once, in the axes of the array, as text and as races.json."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dsm._frames import is_own

WRITES, READ, MAYBE_READ = range(3)  # enum race_kind of the core
POSSIBLE_SHOWN_MAX = 10
ELEMENTS_MAX = 1 << 20  # of a set whose shape is looked for, element by element

Ranges = npt.NDArray[np.int64]  # rows of [from, to)


class Array(Protocol):
    """What a report needs of a region."""

    id: int
    address: int
    bytes: int
    page_bytes: int
    name: str | None
    label: str
    shape: tuple[int, ...]
    order: str
    dtype: np.dtype[Any]


class Found(NamedTuple):
    """The races of one comparison; the stretches of each rank, and the places that they name."""

    races: npt.NDArray[Any]
    stretches: Sequence[npt.NDArray[Any]]
    places: Sequence[Sequence[str]]


class Side(NamedTuple):
    """One of two accesses: where its stretch of the program began and ended."""

    began: str
    ended: str

    def __str__(self) -> str:
        return f"{self.began} -> {self.ended}"


# ---- the shape of what was touched ------------------------------------------------------------------------------


def merged(ranges: Ranges) -> Ranges:
    """Return ranges in ascending order, with those that touch or overlap made one.  Local."""
    if len(ranges) < 2:
        return ranges
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    furthest = np.maximum.accumulate(ranges[:, 1])
    first = np.concatenate([[True], ranges[1:, 0] > furthest[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([ranges[first, 0], furthest[last]], axis=1)


def _progression(numbers: npt.NDArray[np.int64]) -> tuple[int, int, int] | None:
    """Return start, stop and step of ascending numbers; None if they have no common step."""
    step = int(numbers[1] - numbers[0]) if len(numbers) > 1 else 1
    if len(numbers) > 2 and not (np.diff(numbers) == step).all():
        return None
    return int(numbers[0]), int(numbers[-1]) + 1, step


def box_of(elements: Ranges, shape: tuple[int, ...], order: str) -> tuple[list[tuple[int, int, int]], bool]:
    """Return a slice for each axis, which together hold all elements, and whether they hold no other one.  Local.

    Parameters
    ----------
    elements : ndarray of int64, shape (ranges, 2)
        The elements, numbered in the order of memory: ascending ranges.
    shape, order
        Those of the array.
    """
    count = int((elements[:, 1] - elements[:, 0]).sum())
    if not shape:
        return [], True
    if count <= ELEMENTS_MAX:
        lengths = elements[:, 1] - elements[:, 0]
        starts = np.repeat(elements[:, 0] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        axes = np.unravel_index(starts + np.arange(count), shape, order=order)  # type: ignore[call-overload]
        touched = [np.unique(axis) for axis in axes]
    else:  # the corners of the ranges are enough for a box around them
        corners = np.unique(np.concatenate([elements[:, 0], elements[:, 1] - 1]))
        axes = np.unravel_index(corners, shape, order=order)  # type: ignore[call-overload]
        outer = 0 if order == "C" else len(shape) - 1
        touched = [np.arange(n) if k != outer else np.unique(axes[k]) for k, n in enumerate(shape)]
        touched[outer] = np.arange(touched[outer][0], touched[outer][-1] + 1)
    found = [_progression(axis) for axis in touched]
    slices = [made or (int(axis[0]), int(axis[-1]) + 1, 1) for made, axis in zip(found, touched, strict=True)]
    size = int(np.prod([len(range(*one)) for one in slices], dtype=np.int64))
    return slices, size == count


def _text_of(one: tuple[int, int, int]) -> str:
    start, stop, step = one
    if step == 1:
        return f"{start}:{stop}"
    if start + step == stop - 1:
        return f"[{start}, {stop - 1}]"
    return f"{start}:{stop}:{step}"


def _field_of(bytes_: Ranges, dtype: np.dtype[Any]) -> str:
    """Return the field of a structured dtype that all bytes lie in, as an index; "" if there is none."""
    for name, (part, at, *_) in (dtype.fields or {}).items():
        inside = bytes_ % dtype.itemsize
        if ((inside[:, 0] >= at) & (bytes_[:, 1] - bytes_[:, 0] + inside[:, 0] <= at + part.itemsize)).all():
            return f"[{name!r}]"
    return ""


class Place(NamedTuple):
    """A part of an array: as text, as slices, and how many elements."""

    text: str
    slices: list[tuple[int, int, int]]
    elements: int


def place_in(array: Array, name: str, bytes_: Ranges) -> Place:
    """Describe bytes of a region in the array's own axes.  Local."""
    size = max(array.dtype.itemsize, 1)
    bytes_ = merged(bytes_)
    elements = merged(np.stack([bytes_[:, 0] // size, -(-bytes_[:, 1] // size)], axis=1))
    count = int((elements[:, 1] - elements[:, 0]).sum())
    index, exact = box_of(elements, array.shape, array.order)
    inside = ", ".join(_text_of(one) for one in index) if index else "()"
    text = f"{name}{_field_of(bytes_, array.dtype)}[{inside}]"
    return Place(text if exact else f"{count} elements of {text}", index, count)


# ---- names -----------------------------------------------------------------------------------------------------


def variable_of(array: Array) -> str | None:
    """Return a variable of the running program that holds all of an array; None if none was found.  Local."""
    frame = sys._getframe(1)
    spaces: list[Mapping[str, object]] = []
    while frame is not None:
        if not is_own(frame):
            spaces.append(frame.f_locals)
        frame = frame.f_back  # type: ignore[assignment]
    main = sys.modules.get("__main__")
    spaces.append(vars(main) if main is not None else {})
    for space in spaces:
        for name, value in list(space.items()):
            if (
                isinstance(value, np.ndarray)
                and value.nbytes == array.dtype.itemsize * int(np.prod(array.shape, dtype=np.int64))
                and value.__array_interface__["data"][0] == array.address
                and value.nbytes
            ):
                return name
    return None


# ---- races -----------------------------------------------------------------------------------------------------


@dataclass
class Race:
    """All races in one array between the same two places of the program."""

    kind: int
    array: Array
    name: str
    sides: tuple[Side, Side]  # the first one wrote
    ranks: tuple[int, int]  # of the first pair
    bytes: Ranges
    pages: int
    pairs: set[tuple[int, int]] = field(default_factory=set)

    @property
    def of(self) -> tuple[object, ...]:
        """The arrays that are one to the reader: a loop may make one after the other in the same line."""
        return self.name, self.array.shape, self.array.dtype

    @property
    def share(self) -> float:
        """How much of the pages was written that the other rank may have read; from 0 to 1."""
        room = min(self.pages * self.array.page_bytes, self.array.bytes)
        return min(1.0, float((self.bytes[:, 1] - self.bytes[:, 0]).sum()) / max(room, 1))

    @property
    def place(self) -> Place:
        """The elements."""
        return place_in(self.array, self.name, self.bytes)

    def __str__(self) -> str:
        (first, second), (one, other) = self.sides, self.ranks
        where = self.place.text
        more = f"; also {len(self.pairs) - 1} other pairs of ranks" if len(self.pairs) > 1 else ""
        if self.kind == WRITES:
            return f"dsm race: write/write: {where} by rank {one} ({first}) and rank {other} ({second}){more}"
        if self.kind == READ:
            how = f"in pages that rank {other} read"
        else:
            how = f"in pages that rank {other} had open, and may have read"
        return f"dsm race, possible: read/write: {where} written by rank {one} ({first}), {how} ({second}){more}"

    def as_json(self) -> dict[str, object]:
        """Return what races.json holds of it (docs/insight.md).  Local."""
        place = self.place
        verbs = ("wrote", ("wrote", "read", "may have read")[self.kind])
        return {
            "kind": "write/write" if self.kind == WRITES else "read/write",
            "certain": self.kind == WRITES,
            "array": self.name,
            "shape": list(self.array.shape),
            "dtype": str(self.array.dtype),
            "where": place.text,
            "index": [list(one) for one in place.slices],
            "elements": place.elements,
            "share": round(self.share, 4),
            "sides": [
                {"rank": rank, "access": verb, "began": side.began, "ended": side.ended}
                for rank, verb, side in zip(self.ranks, verbs, self.sides, strict=True)
            ],
            "pairs": sorted([list(pair) for pair in self.pairs]),
        }


class Report:
    """The races that were found so far.  On rank 0.

    Parameters
    ----------
    ranks : int
        Of the job.
    folder : str
        Where races.json goes.
    """

    def __init__(self, ranks: int, folder: str) -> None:
        self._ranks, self._file = ranks, os.path.join(folder, "races.json")
        self._races: dict[tuple[object, ...], Race] = {}
        self._names: dict[int, str] = {}
        self.cut_short = False
        self.lost = 0

    def add(self, found: Found, arrays: Mapping[int, Array]) -> None:
        """Add the races of a comparison; write/write races in new places are printed at once.  Local."""
        races = found.races
        sides = [self._sites(found, races, k) for k in range(2)]
        keys = np.stack([races["region"], races["kind"], *(column for side in sides for column in side)], axis=1)
        groups, members = np.unique(keys, axis=0, return_inverse=True)
        new = []
        for number, (region, kind, *_) in enumerate(groups.tolist()):
            if region in arrays:
                new += self._add_group(found, races[members.reshape(-1) == number], kind, arrays[region])
        for race in new:
            if race.kind == WRITES:
                print(race, file=sys.stderr, flush=True)
        if new:
            self._write()

    @staticmethod
    def _sites(found: Found, races: npt.NDArray[Any], side: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the numbers of the places where each race's stretch began and ended, made different for each rank."""
        began = np.zeros(len(races), np.int64)
        ended = np.zeros(len(races), np.int64)
        ranks = races["nodes"][:, side].astype(np.int64)
        for rank, stretches in enumerate(found.stretches):
            mine = ranks == rank
            at = stretches[races["stretches"][mine, side]]
            began[mine], ended[mine] = at["began"], at["ended"]
        return began * len(found.stretches) + ranks, ended

    def _add_group(self, found: Found, races: npt.NDArray[Any], kind: int, array: Array) -> list[Race]:
        """Add races of the same two ranks and places; return those whose places are new."""
        first = races[0]
        sides, ranks = [], []
        for rank, stretch in zip(first["nodes"].tolist(), first["stretches"].tolist(), strict=True):
            at = found.stretches[rank][stretch]
            sides.append(Side(found.places[rank][at["began"]], found.places[rank][at["ended"]]))
            ranks.append(rank)
        if kind == WRITES and sides[0] > sides[1]:
            sides.reverse()
            ranks.reverse()
        bytes_ = races["page"].astype(np.int64)[:, None] * array.page_bytes
        bytes_ = np.minimum(bytes_ + np.stack([races["from"], races["to"]], axis=1), array.bytes)
        race = Race(kind, array, self._name(array), (sides[0], sides[1]), (ranks[0], ranks[1]), merged(bytes_), 0)
        race.pages = len(np.unique(races["page"]))
        race.pairs.add((min(ranks), max(ranks)))
        key = (race.of, kind, *sides)
        known = self._races.setdefault(key, race)
        if known is not race:
            known.bytes = merged(np.concatenate([known.bytes, race.bytes]))
            known.pages = max(known.pages, race.pages)
            known.pairs |= race.pairs
        return [race] if known is race else []

    def _name(self, array: Array) -> str:
        if array.name is not None:
            return array.name
        if array.id not in self._names:
            found = variable_of(array)
            if found is None:
                return array.label
            self._names[array.id] = found
        return self._names[array.id]

    def races(self) -> list[Race]:
        """Return what was found, the gravest first: a possible race is left out where a certain one says it.  Local."""
        certain = {(race.of, frozenset(race.sides)) for race in self._races.values() if race.kind == WRITES}
        seen = {(race.of, race.sides) for race in self._races.values() if race.kind == READ}
        told = [
            race
            for race in self._races.values()
            if race.kind == WRITES
            or (
                (race.of, frozenset(race.sides)) not in certain
                and not (race.kind == MAYBE_READ and (race.of, race.sides) in seen)
            )
        ]
        return sorted(told, key=lambda race: (race.kind, -race.share))

    def _write(self) -> None:
        """Write races.json: whole, or not at all."""
        content = {
            "version": 1,
            "ranks": self._ranks,
            "program": sys.argv,
            "complete": not (self.cut_short or self.lost),
            "races": [race.as_json() for race in self.races()],
        }
        with open(f"{self._file}.new", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(f"{self._file}.new", self._file)

    def finish(self) -> None:
        """Print the possible races, a summary, and where the file is.  Local."""
        self._write()
        found = self.races()
        possible = [race for race in found if race.kind != WRITES]
        for race in possible[:POSSIBLE_SHOWN_MAX]:
            print(race, file=sys.stderr)
        shown = f" ({POSSIBLE_SHOWN_MAX} of them shown)" if len(possible) > POSSIBLE_SHOWN_MAX else ""
        print(
            f"dsm races: {len(found) - len(possible)} write/write, {len(possible)} possible read/write{shown}; "
            f"{self._file} has all",
            file=sys.stderr,
        )
        if self.cut_short or self.lost:
            print(
                "dsm races: the search was cut short, because the ranks accessed too much between two barriers; "
                "run it with smaller data, or with more barriers",
                file=sys.stderr,
            )
        sys.stderr.flush()
