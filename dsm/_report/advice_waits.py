"""Advice about waits and loops: locks for each item, uneven work, barriers without need, scalars, too many ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from dsm._report.found import GAIN_MIN, Found
from dsm._report.profile import Json, Profile, place
from dsm._report.scalars import Loop, scalar_loops
from dsm._report.words import count, counted, ranks, seconds, share

HAND_OVERS_MIN = 50
TICKETS_MIN = 8  # for each rank: fewer leave ranks without work at the end
EMPTY_MIN = 10
EMPTY_MAX_S = 4e-6  # before a call: a write to a page that is open takes no fault, but a NumPy expression takes longer
IMBALANCE_MIN = 0.1  # of the run
JITTER_S = 2e-4  # a call: the operating system delays ranks as much
SCALARS_MIN = 0.1  # of the run


def lock_per_item(profile: Profile) -> Iterator[Found]:
    """Find locks that go from rank to rank for little work.  Local."""
    for lock in profile.locks:
        rows = lock["by_rank"]
        acquires, overs = sum(rows["acquires"]), sum(one[2] for one in lock["hand_overs"])
        waited_s = max(rows["waited_s"])
        once_a_phase = acquires <= 2 * sum(rank["barriers"] for rank in profile.ranks)
        if overs < HAND_OVERS_MIN or once_a_phase:
            continue
        held_s, wait_s = sum(rows["held_s"]) / acquires, sum(rows["waited_s"]) / overs
        taken = [profile.sites[number]["by_rank"] for number, _ in lock["sites"]]
        between_s = sum(sum(site["computed_s"]) + sum(site["data_s"]) for site in taken) / acquires
        if held_s > wait_s or between_s > wait_s:
            continue  # others wait for the work under the lock, or seldom
        # With so many items at a time the hand-over is a tenth of what lies between.
        together = min(1024, max(4, 1 << math.ceil(math.log2(10 * wait_s / max(held_s, wait_s / 50)))))
        gain_s = waited_s * (1 - 1 / together)
        if gain_s < GAIN_MIN * profile.seconds:
            continue
        where = [place(profile.sites[number]) for number, _ in lock["sites"][:2]]
        yield Found(
            title=f"`{lock['name']}` goes from rank to rank for each item",
            evidence=[
                f"{count(acquires)} acquires, {count(overs)} of them after another rank: at {' and '.join(where)}.",
                f"A hand-over took {seconds(wait_s)} on average. The lock was then held for {seconds(held_s)}, and "
                f"{seconds(between_s)} of work lay before the next acquire.",
                f"One rank waited {seconds(waited_s)} for it.",
            ],
            remedy="Add up in private memory and take the lock once in a phase; or, if the lock guards the next item, "
            f"take more at a time, for example {together}. To share out work, `dsm.Counter` is cheaper than a lock.",
            code=f"for item in mine:\n    part += ...  # private\nwith lock:  # once, {' and '.join(where)}\n"
            "    total[0] += part\n"
            f"# or\nwith lock:\n    first, next_item[0] = next_item[0], next_item[0] + {together}",
            gain_s=gain_s,
            locks=[lock["id"]],
            sites=[number for number, _ in lock["sites"][:2]],
        )


def counter_per_item(profile: Profile) -> Iterator[Found]:
    """Find counters that hand out pieces of work which take no longer than the call.  Local."""
    for site in profile.sites:
        rows = site["by_rank"]
        calls = sum(rows["calls"])
        if site["kind"] != "counter" or calls < HAND_OVERS_MIN:
            continue
        call_s, piece_s = sum(rows["waited_s"]) / calls, (sum(rows["computed_s"]) + sum(rows["data_s"])) / calls
        together = 1 << math.ceil(math.log2(max(10 * call_s / max(piece_s, call_s / 100), 1)))
        together = min(together, 1 << int(math.log2(max(calls / (TICKETS_MIN * profile.size), 1))))
        gain_s = max(rows["waited_s"]) * (1 - 1 / together)
        if gain_s < GAIN_MIN * profile.seconds:
            continue
        yield Found(
            title=f"The counter at {place(site)} gives little work at a time",
            evidence=[
                f"{count(calls)} calls took {seconds(call_s)} each, on average, and the work between two of them "
                f"{seconds(piece_s)}.",
                f"One rank spent {seconds(max(rows['waited_s']))} in these calls.",
            ],
            remedy=f"Let a ticket stand for {together} pieces in place of one. With more, ranks would be without "
            "work at the end.",
            code=f"{site['source'] or 'ticket = counter.next()'}  # {place(site)}\n"
            f"    for piece in range({together} * ticket, min({together} * (ticket + 1), pieces)): ...",
            gain_s=gain_s,
            sites=[site["id"]],
        )


def imbalance(profile: Profile) -> Iterator[Found]:
    """Find barriers at which ranks wait for one that has more to do.  Local."""
    for site in profile.sites:
        rows = site["by_rank"]
        # In each call a rank waits from its own arrival to the last one; the mean over the ranks is what the call would
        # be earlier if all arrived together.
        gain_s = sum(rows["imbalance_s"]) / profile.size
        if site["kind"] != "barrier" or gain_s < IMBALANCE_MIN * profile.seconds or profile.size < 2:
            continue
        busy = [a + b for a, b in zip(rows["computed_s"], rows["data_s"], strict=True)]
        mean = sum(busy) / profile.size
        last = max(range(profile.size), key=lambda rank: busy[rank])
        systematic = busy[last] - mean > 0.5 * gain_s
        if not systematic and gain_s < JITTER_S * max(rows["calls"]):
            continue
        evidence = [
            f"{counted(max(rows['calls']), 'call')} at {place(site)}. Until the last rank arrived, the others waited "
            f"{seconds(gain_s)} on average, {seconds(max(rows['imbalance_s']))} at most.",
        ]
        if systematic:
            evidence.append(f"Rank {last} worked {seconds(busy[last])} before it, the mean is {seconds(mean)}.")
        else:
            evidence.append(f"No rank is always the last: each worked {seconds(min(busy))} to {seconds(busy[last])}.")
        title, remedy, code = _balanced(profile, busy, last, mean, systematic)
        yield Found(
            title=f"{title} at {place(site)}",
            evidence=evidence,
            remedy=remedy,
            code=code,
            gain_s=gain_s,
            sites=[site["id"]],
        )


def _balanced(profile: Profile, busy: list[float], last: int, mean: float, systematic: bool) -> tuple[str, str, str]:
    others = [value for rank, value in enumerate(busy) if rank != last]
    if systematic and max(others) < 0.1 * busy[last]:
        return (
            f"Only rank {last} works before the barrier",
            "Share the work out: each rank does its block.",
            f"mine = dsm.split(n)  # in place of `if dsm.rank() == {last}:`",
        )
    if systematic:
        part = mean / busy[last]
        return (
            f"Ranks wait for rank {last}",
            f"Give rank {last} less to do, about {share(part)} of what it has now, or let ranks take pieces as they "
            "are ready for them.",
            "tickets = dsm.Counter()  # before the loop, on all ranks\n"
            "while (piece := tickets.next()) < pieces:\n    ...",
        )
    return (
        "Ranks wait for each other",
        "Let ranks take pieces of the work as they are ready for them, or do more between two barriers.",
        "tickets = dsm.Counter()  # before the loop, on all ranks\nwhile (piece := tickets.next()) < pieces:\n    ...",
    )


def empty_barrier(profile: Profile) -> Iterator[Found]:
    """Find barriers before which nothing happened since the one before.  Local."""
    for site in profile.sites:
        calls, empty = max(site["by_rank"]["calls"]), site["empty"] or 0
        before_s = max(site["by_rank"]["computed_s"]) / max(calls, 1)
        if empty < EMPTY_MIN or empty < 0.5 * calls or before_s > EMPTY_MAX_S:
            continue
        gain_s = max(site["by_rank"]["waited_s"]) * empty / calls
        if gain_s < 0.25 * GAIN_MIN * profile.seconds:
            continue
        yield Found(
            title=f"Nothing happens between the barrier at {place(site)} and the one before it",
            evidence=[
                f"In {count(empty)} of {count(calls)} calls no rank had faulted or written since the last barrier; "
                f"a rank had computed for {seconds(before_s)} on average.",
                f"A rank waited {seconds(max(site['by_rank']['waited_s']))} there.",
            ],
            remedy="Delete the call, unless it orders something else.",
            code=f"{site['source'] or 'dsm.barrier()'}  # delete it: {place(site)}",
            gain_s=gain_s,
            sites=[site["id"]],
        )


def scalar_loop(profile: Profile) -> Iterator[Found]:
    """Find loops that touch shared arrays one number at a time.  Local."""
    by_file: dict[str, list[Json]] = {}
    for line in profile.lines:
        if line["line"] is None:
            continue  # an instruction that the compiler added
        by_file.setdefault(line["file"], []).append(line)
    for file, lines in by_file.items():
        for loop in scalar_loops(_text(file)):
            inside = [line for line in lines if loop.line <= line["line"] <= loop.last_line]
            spent = [sum(values) for values in zip(*(line["by_rank"] for line in inside), strict=True)]
            gain_s = max(spent, default=0.0)
            if gain_s < SCALARS_MIN * profile.seconds or not _is_element(profile, file, loop):
                continue
            name = f"{Path(file).name}:{loop.line}"
            yield Found(
                title=f"The loop at {name} touches `{loop.array}` one number at a time",
                evidence=[
                    f"`{loop.access}` in line {loop.access_line} is one element.",
                    f"A rank spent {seconds(gain_s)} in the loop, as sampled: Python takes about 100 ns for each "
                    "access, NumPy about 1 ns.",
                ],
                remedy="Work on whole rows or blocks with NumPy, or compile the loop with numba. Shared arrays are "
                "plain NumPy arrays, so both work as usual.",
                code=f"mine = dsm.local({loop.array})\nmine += ...  # one NumPy expression in place of the loop\n"
                f"# or: @numba.njit on the function that has the loop of {name}",
                gain_s=gain_s,
            )


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _is_element(profile: Profile, file: str, loop: Loop) -> bool:
    """Tell whether the access names one element: with fewer indices than the array has axes it is a row."""
    sites = [site["id"] for site in profile.sites if site["file"] == file and site["line"] in loop.made_at]
    arrays = [array for array in profile.arrays if array["allocated_at"] in sites]
    return all(len(array["shape"]) <= loop.indices for array in arrays)


def more_ranks_than_cores(profile: Profile) -> Iterator[Found]:
    """Find hosts with more ranks than cores.  Local."""
    crowded = [host for host in profile.hosts if len(host["ranks"]) > host["cores"]]
    if not crowded:
        return
    gain_s = sum(rank["seconds"] - rank["time"]["compute_s"] for rank in profile.ranks) / profile.size
    cores = sum(min(host["cores"], len(host["ranks"])) for host in profile.hosts)
    yield Found(
        title="There are more ranks than cores",
        evidence=[
            f"Host {host['name']} has {counted(len(host['ranks']), 'rank')} on {counted(host['cores'], 'core')} "
            f"({ranks(host['ranks'])})."
            for host in crowded[:4]
        ]
        + [f"While one rank computes, others that could go on wait: {seconds(gain_s)} on average."],
        remedy="Start one rank for each core. For more parallelism use threads or more hosts.",
        code=f"python -m dsm run -n {cores} {' '.join(profile.run['argv'])}",
        gain_s=gain_s,
    )
