"""The parts of all ranks as one profile: plain lists and dictionaries, as docs/insight.md describes profile.json."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dsm._numpy import AnyArray
from dsm._profile import bins
from dsm._profile.part import ArrayPart, Part
from dsm._recorder import BARRIER, KINDS, Place

VERSION = 1
ARRAYS_MAX = 400
WORST_MAX = 32
LINES_MAX = 64
OWNERS_MAX = 256
_TIMES = ("compute_s", "data_s", "lock_s", "barrier_s", "event_s", "other_s", "protocol_s")
_OF_RANK = (
    "faults_read faults_write faults_local fetches pages_received diffs_received diff_bytes_received pages_served "
    "diffs_served messages_sent messages_received bytes_sent bytes_received barriers lock_acquires lock_acquires_local "
    "intervals_closed notices_received invalidations twins_made collections pages_readahead pages_refetched "
    "pushes_sent pushes_used memory_bytes_max"
).split()
_OF_ARRAY = (
    "faults_read faults_write fetches pages_received diffs_received diff_bytes_received pages_served diffs_served "
    "invalidations notices_received"
).split()

Json = dict[str, Any]


def merge(parts: Sequence[Part], run: Json, lock_names: dict[int, str], lock_kinds: dict[int, str]) -> Json:
    """Make the profile of the parts of ranks 0, 1, 2 ...  Local.

    Parameters
    ----------
    parts : sequence of Part
        One for each rank.
    run : dict
        What is known of the run beside them.
    lock_names, lock_kinds : dict
        Of each lock, by its number.
    """
    began = min(part.began_s for part in parts)
    sites, site_ids = _sites(parts)
    chosen, left = _chosen(parts)
    names = list(dict.fromkeys(part.host for part in parts))
    hosts = [_host(name, [part for part in parts if part.host == name]) for name in names]
    nodes = [[part.rank for part in parts if part.node == node] for node in range(1 + max(p.node for p in parts))]
    run = run | {
        "seconds": max(part.ended_s for part in parts) - began,
        "size": len(parts),
        "one_node": len(nodes) == 1,
        "oversubscribed": any(len(host["ranks"]) > host["cores"] for host in hosts),
        "clock_error_s": max(part.clock_error_s for part in parts),
        "ended": "normally",
    }
    if run["one_node"]:
        for site in sites:
            site["empty"] = None
    return {
        "version": VERSION,
        "run": run,
        "hosts": hosts,
        "nodes": nodes,
        "ranks": [_rank(part, names.index(part.host), began) for part in parts],
        "sites": sites,
        "locks": _locks(parts, lock_names, lock_kinds, site_ids),
        "arrays": [_array(number, parts, nodes, site_ids, began) for number in chosen],
        "arrays_left_out": left,
        "memory": [_memory(node, parts, began) for node in range(len(nodes))],
        "traffic": [np.sum([parts[rank].asked for rank in ranks], axis=0).tolist() for ranks in nodes],
        "lines": _lines(parts),
        "truncated": [text for part in parts for text in part.truncated],
        "notes": _notes(run),
    }


def _notes(run: Json) -> list[str]:
    if not run["one_node"] or run["size"] == 1:
        return []
    return [
        "All ranks are one node: they share memory, so no page was watched. Run with `--node rank` to see what ranks "
        "of different hosts would write, read and fetch."
    ]


def _host(name: str, parts: Sequence[Part]) -> Json:
    return {
        "name": name,
        "ranks": [part.rank for part in parts],
        "cores": parts[0].cores,
        "memory_bytes": parts[0].memory_bytes,
    }


def _rank(part: Part, host: int, began: float) -> Json:
    main = part.threads[0]
    return {
        "rank": part.rank,
        "host": host,
        "node": part.node,
        "pid": part.pid,
        "began_s": part.began_s - began,
        "seconds": main["seconds"],
        "time": {name: main[name] for name in _TIMES},
        "service_s": part.service_s,
        "threads": [
            {"name": f"thread {i}", "seconds": thread["seconds"], "time": {name: thread[name] for name in _TIMES}}
            for i, thread in enumerate(part.threads[1:], 2)
        ],
        **{name: part.stats[name] for name in _OF_RANK},
    }


# ---- sites -----------------------------------------------------------------------------------------------------


def _sites(parts: Sequence[Part]) -> tuple[list[Json], dict[Place, int]]:
    """Return the sites of all ranks, and the number of each."""
    numbers: dict[Place, int] = {}
    for part in parts:
        for site in part.sites:
            numbers.setdefault(site.place, len(numbers))
    found = [_new_site(number, place, len(parts)) for place, number in numbers.items()]
    faults: list[collections.Counter[int]] = [collections.Counter() for _ in found]
    labels: list[set[str | None]] = [set() for _ in found]
    for part in parts:
        for site in part.sites:
            number = numbers[site.place]
            made = found[number]
            made["source"] = made["source"] or site.source
            for name, value in site.numbers.items():
                made["by_rank"][name][part.rank] = value
            if site.place.call == BARRIER:
                made["empty"] = max(made["empty"], site.empty)
            faults[number].update(site.arrays)
            labels[number].add(site.label)
    for made, counted, label in zip(found, faults, labels, strict=True):
        made["arrays"] = [list(pair) for pair in counted.most_common(8)]
        made["object"] = next(iter(label)) if len(label) == 1 else None
    return found, numbers


def _new_site(number: int, place: Place, size: int) -> Json:
    counts, times = ("calls", "faults", "pages", "bytes"), ("computed_s", "data_s", "waited_s")
    return {
        "id": number,
        "file": place.file,
        "line": place.line,
        "function": place.function,
        "source": "",
        "kind": KINDS[place.call],
        "object": None,
        "by_rank": {
            **{name: [0] * size for name in counts},
            **{name: [0.0] * size for name in (*times, "imbalance_s", "latency_s")},
        },
        "arrays": [],
        "empty": 0 if place.call == BARRIER else None,
    }


# ---- locks -----------------------------------------------------------------------------------------------------


def hand_overs(holds: AnyArray, ranks: AnyArray) -> dict[int, list[list[float]]]:
    """Return for each lock [from rank, to rank, times, seconds that the latter waited].  Local.

    Parameters
    ----------
    holds : numpy.ndarray
        Of dtype HOLD, of all ranks, in any order.
    ranks : numpy.ndarray
        The rank of each.
    """
    order = np.lexsort((holds["acquired"], holds["lock"]))
    holds, ranks = holds[order], ranks[order]
    found: dict[int, dict[tuple[int, int], list[float]]] = {}
    passed = (holds["lock"][1:] == holds["lock"][:-1]) & (ranks[1:] != ranks[:-1])
    for at in np.flatnonzero(passed).tolist():
        pairs = found.setdefault(int(holds["lock"][at]), {})
        pair = pairs.setdefault((int(ranks[at]), int(ranks[at + 1])), [0, 0.0])
        pair[0] += 1
        pair[1] += float(holds["acquired"][at + 1] - holds["asked"][at + 1])
    return {lock: [[*pair, *counted] for pair, counted in sorted(pairs.items())] for lock, pairs in found.items()}


def _locks(parts: Sequence[Part], names: dict[int, str], kinds: dict[int, str], ids: dict[Place, int]) -> list[Json]:
    holds = np.concatenate([part.holds for part in parts])
    passed = hand_overs(holds, np.repeat([part.rank for part in parts], [len(part.holds) for part in parts]))
    taken: dict[int, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for part in parts:
        for hold in part.holds:
            taken[int(hold["lock"])][ids.get(part.site_numbers[int(hold["site"])], -1)] += 1
    found = []
    for number in sorted({number for part in parts for number in part.locks}):
        of_ranks = [part.locks.get(number, {}) for part in parts]
        columns = ("acquires", "local", "waited_s", "held_s")
        found.append(
            {
                "id": number,
                "name": names.get(number, f"lock {number}"),
                "kind": kinds.get(number, "Lock"),
                "by_rank": {name: [counted.get(name, 0) for counted in of_ranks] for name in columns},
                "hand_overs": passed.get(number, []),
                "sites": [[site, calls] for site, calls in taken[number].most_common() if site >= 0],
            }
        )
    return found


# ---- arrays ----------------------------------------------------------------------------------------------------


def _received(array: ArrayPart) -> int:
    stats = array.stats
    return stats.get("pages_received", 0) * array.page_bytes + stats.get("diff_bytes_received", 0)


def _chosen(parts: Sequence[Part]) -> tuple[list[int], int]:
    """Return the numbers of the arrays that are shown, ascending, and how many are not."""
    weights: dict[int, tuple[int, int]] = {}
    for part in parts:
        for array in part.arrays:
            weights[array.region] = (weights.get(array.region, (0, 0))[0] + _received(array), array.bytes)
    most = sorted(weights, key=lambda number: weights[number], reverse=True)
    left = max(part.arrays_left for part in parts) + max(0, len(most) - ARRAYS_MAX)
    return sorted(most[:ARRAYS_MAX]), left


def _array(number: int, parts: Sequence[Part], nodes: list[list[int]], ids: dict[Place, int], began: float) -> Json:
    of_ranks = [next((a for a in part.arrays if a.region == number), None) for part in parts]
    known = [array for array in of_ranks if array is not None]
    first = known[0]
    count, axis = bins.bins_of(first.shape, first.order, first.pages)
    numbers = {name: [a.stats.get(name, 0) if a else 0 for a in of_ranks] for name in _OF_ARRAY}
    freed = next((a.freed_s for a in known if a.freed_s is not None), None)
    return {
        "id": number,
        "name": first.label,
        "named": first.named,
        "shape": list(first.shape),
        "dtype": first.dtype,
        "itemsize": first.itemsize,
        "order": first.order,
        "bytes": first.bytes,
        "page_bytes": first.page_bytes,
        "pages": first.pages,
        "allocated_at": ids.get(first.place),
        "allocated_s": first.allocated_s - began,
        "freed_s": None if freed is None else freed - began,
        "alive": freed is None,
        "by_rank": {
            **numbers,
            "bytes_received": [_received(a) if a else 0 for a in of_ranks],
            "wait_s": [a.stats.get("wait_fault_ns", 0) / 1e9 if a else 0.0 for a in of_ranks],
        },
        "bins": count,
        "bin_axis": axis,
        "bin_bytes": first.bytes / count,
        "strips": _strips(of_ranks, nodes, count),
        "pages_written": [a.pages_written if a else 0 for a in of_ranks],
        "pages_read": [a.pages_read if a else 0 for a in of_ranks],
        "first_writer": _first_writer(of_ranks, count),
        "owners": [list(run) for run in first.owners[:OWNERS_MAX]],
        "contested": _contested(first, of_ranks, parts, nodes),
        "memory_bytes": [_held(of_ranks[ranks[0]]) if len(nodes) > 1 else None for ranks in nodes],
    }


def _held(array: ArrayPart | None) -> int:
    return array.held_bytes if array else 0


def _strips(of_ranks: Sequence[ArrayPart | None], nodes: list[list[int]], count: int) -> list[Json]:
    """What each rank wrote, read and fetched.

    Of a node of several ranks only the whole is known to have written a page: then a rank has, too, if it got the right
    to.  A job that is one node knows of the first touch of each rank only.
    """
    found = []
    for ranks in nodes:
        arrays = {rank: array for rank in ranks if (array := of_ranks[rank])}
        together = sum(bins.spread(array.strips["written"], count) for array in arrays.values())
        for rank, array in arrays.items():
            written = array.strips["written"]
            if len(nodes) == 1:
                written = array.strips["opened"]
            elif len(ranks) > 1:
                written = bins.runs_of(np.where(bins.spread(array.strips["opened"], count) > 0, together, 0))
            strip = {"written": written, "read": array.strips["read"], "fetched": array.strips["fetched"]}
            if any(strip.values()):
                found.append({"rank": rank, **strip})
    return sorted(found, key=lambda strip: strip["rank"])


def _first_writer(of_ranks: Sequence[ArrayPart | None], count: int) -> bins.Runs:
    times = np.array([np.full(count, np.inf) if array is None else array.first_s for array in of_ranks])
    return bins.runs_of(np.where(np.isinf(times.min(axis=0)), -1, times.argmin(axis=0)), -1)


def _contested(
    first: ArrayPart, of_ranks: Sequence[ArrayPart | None], parts: Sequence[Part], nodes: list[list[int]]
) -> Json:
    pages: dict[int, Json] = {}
    for rank, array in enumerate(of_ranks):
        for each in array.contested if array else ():
            page = pages.setdefault(int(each["page"]), {"writers": set(), "phases": 0, "bytes": 0, "common": 0})
            page["writers"] |= {parts[rank].node, *_bits(int(each["rivals"]), len(nodes))}
            page["phases"] = max(page["phases"], int(each["phases"]))
            page["bytes"] += int(each["diff_bytes"])
            page["common"] = max(page["common"], int(each["common"]))
    kinds = {number: _kind_of(page) for number, page in pages.items()}
    worst = sorted(pages, key=lambda number: (-pages[number]["bytes"], -pages[number]["phases"], number))[:WORST_MAX]
    return {
        "pages": len(pages),
        "phases": sum(page["phases"] for page in pages.values()),
        "diff_bytes": sum(page["bytes"] for page in pages.values()),
        "false_pages": sum(kind == "false" for kind in kinds.values()),
        "true_pages": sum(kind == "true" for kind in kinds.values()),
        "worst": [
            {
                "page": number,
                "first": indices(first, number * first.page_bytes),
                "last": indices(first, (number + 1) * first.page_bytes - 1),
                "ranks": sorted(nodes[node][0] for node in pages[number]["writers"]),
                "phases": pages[number]["phases"],
                "diff_bytes": pages[number]["bytes"],
                "overlap_bytes": pages[number]["common"],
                "kind": kinds[number],
            }
            for number in worst
        ],
    }


def _kind_of(page: Json) -> str:
    return "true" if page["common"] else "false" if page["bytes"] else "unknown"


def _bits(mask: int, nodes: int) -> Iterable[int]:
    return (node for node in range(nodes) if mask >> (node % 64) & 1)


def indices(array: ArrayPart, byte: int) -> list[int]:
    """Return the indices of the element that a byte belongs to, of the last one for bytes behind it.  Local."""
    item = min(byte, array.bytes - 1) // array.itemsize
    order: Any = array.order
    return [int(i) for i in np.unravel_index(item, array.shape, order)]


# ---- the rest ----------------------------------------------------------------------------------------------------


def _memory(node: int, parts: Sequence[Part], began: float) -> Json:
    moments = next((part.memory for part in parts if part.node == node and len(part.memory)), parts[0].memory[:0])
    columns = ("protocol_bytes", "twin_bytes", "diff_bytes", "data_bytes", "cached_bytes")
    return {
        "node": node,
        "time_s": (moments["time_ns"] - began).tolist(),
        **{name: moments[name].tolist() for name in columns},
    }


def _lines(parts: Sequence[Part]) -> list[Json]:
    found: dict[tuple[str, int, str], Json] = {}
    for part in parts:
        for file, line, function, source, seconds in part.lines:
            made = found.setdefault(
                (file, line, function),
                {"file": file, "line": line, "function": function, "source": source, "by_rank": [0.0] * len(parts)},
            )
            made["by_rank"][part.rank] += seconds
    return sorted(found.values(), key=lambda line: -sum(line["by_rank"]))[:LINES_MAX]
