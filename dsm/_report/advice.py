"""The advice of a report: known faults of programs on shared memory, each with its evidence, remedy and gain.

A kind of advice is a function that looks at a profile and returns what it found.  `KINDS` lists them.  The gain is a
bound: the longest time that any one rank spent on the fault.  A remedy seldom brings all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dsm._report import advice_data, advice_memory, advice_sharing, advice_waits
from dsm._report.found import Found
from dsm._report.profile import Json, Profile
from dsm._report.words import seconds, share

KINDS: dict[str, Callable[[Profile], Iterator[Found]]] = {
    "shared-pages": advice_sharing.shared_pages,
    "large-pages": advice_sharing.large_pages,
    "small-pages": advice_data.small_pages,
    "interleaved": advice_sharing.interleaved,
    "read-by-all": advice_data.read_by_all,
    "lock-per-item": advice_waits.lock_per_item,
    "counter-per-item": advice_waits.counter_per_item,
    "imbalance": advice_waits.imbalance,
    "empty-barrier": advice_waits.empty_barrier,
    "unread": advice_data.unread,
    "reads-everything": advice_data.reads_everything,
    "first-touch": advice_data.first_touch,
    "scalar-loop": advice_waits.scalar_loop,
    "never-freed": advice_memory.never_freed,
    "growing-memory": advice_memory.growing_memory,
    "more-ranks-than-cores": advice_waits.more_ranks_than_cores,
}


def advise(profile: Profile) -> list[tuple[str, Found]]:
    """Return all that is found, by kind, the largest gain first; what gains memory comes after time.  Local."""
    found = [(kind, one) for kind, look in KINDS.items() for one in look(profile)]
    return sorted(found, key=lambda pair: (-pair[1].gain_s, -pair[1].gain_bytes))


def first_line(numbers: Json) -> str:
    """Return the first advice in a line, for the end of a run; empty if there is none.  Local."""
    profile = Profile(numbers)
    found = advise(profile)
    if not found:
        return ""
    one = found[0][1]
    gain = f" (at most {seconds(one.gain_s)}, {share(one.gain_s / profile.seconds)} of the run)" if one.gain_s else ""
    return one.title.replace("`", "") + gain
