"""Advice about memory: arrays that are never freed, and protocol memory that grows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dsm._report.code import allocation, variable
from dsm._report.found import Found
from dsm._report.profile import Json, Profile, place
from dsm._report.words import count, counted, seconds, size

MANY = 8  # arrays of one line
SPREAD = 0.2  # of the run, between the first and the last of these: fewer are made before the work begins
SAMPLES_MIN = 6
GROWTH_MIN_BYTES = 16 << 20
GROWTH_MIN = 0.1  # of the data


def never_freed(profile: Profile) -> Iterator[Found]:
    """Find lines that make array after array and free none.  Local."""
    made: dict[int, list[Json]] = defaultdict(list)
    for array in profile.arrays:
        if array["allocated_at"] is not None:
            made[array["allocated_at"]].append(array)
    for number, arrays in made.items():
        left = [array for array in arrays if array["alive"]]
        times = sorted(array["allocated_s"] for array in left)
        if len(left) < MANY or times[-1] - times[0] < SPREAD * profile.seconds:
            continue
        total = sum(array["bytes"] for array in left)
        where = place(profile.site(number))
        name = variable(profile, left[0])
        yield Found(
            title=f"{where} makes arrays in a loop, and {counted(len(left), 'array')} of it are never freed",
            evidence=[
                f"The line made {counted(len(arrays), 'array')}; {len(left)} live at the end, {size(total)} together.",
                f"The last one came {seconds(times[-1] - times[0])} after the first.",
            ],
            remedy="A shared array lives until it is freed, even if no variable holds it. Make it once, before the "
            "loop, or free it.",
            code=f"dsm.free({name})  # at the end of the loop's body; first del all views of it",
            gain_s=0.0,
            gain_bytes=total - left[0]["bytes"],
            arrays=[array["id"] for array in left[:MANY]],
            sites=[number],
        )


def growing_memory(profile: Profile) -> Iterator[Found]:
    """Find a node whose protocol memory grows until the end.  Local."""
    found = [
        (growth, node)
        for node in profile.memory
        if (growth := _growth(node)) >= max(GROWTH_MIN_BYTES, GROWTH_MIN * node["data_bytes"][-1])
    ]
    if not found:
        return
    growth, node = max(found, key=lambda pair: pair[0])
    total, data = node["protocol_bytes"][-1], node["data_bytes"][-1]
    copies = node["twin_bytes"][-1] + node["diff_bytes"][-1]
    evidence = [
        f"Node {node['node']} had {size(node['protocol_bytes'][len(node['protocol_bytes']) // 3])} after a third of "
        f"the run and {size(total)} at the end, beside {size(data)} of data.",
        f"{size(node['twin_bytes'][-1])} of it are twins, {size(node['diff_bytes'][-1])} diffs.",
    ]
    if copies > total / 2:
        mib = max(8, int(growth / 4) >> 20)
        remedy = "Old diffs and twins fill it: let a garbage collection come earlier. It costs a barrier each time."
        code = f"DSM_COLLECT_BYTES={mib}M python -m dsm run ..."
        arrays: list[int] = []
    else:
        most = max(profile.arrays, key=lambda array: sum(array["pages_written"]), default=None)
        if most is None:
            return
        remedy = "States of pages fill it, 73 bytes for each page that any node wrote. Larger pages need fewer."
        code = allocation(profile, most, page_size=16 * most["page_bytes"])
        arrays = [most["id"]]
        evidence.append(f"`{most['name']}` has {count(most['pages'])} pages of {size(most['page_bytes'])}.")
    yield Found(
        title=f"Protocol memory grows until the end, by {size(growth)}",
        evidence=evidence,
        remedy=remedy,
        code=code,
        gain_s=0.0,
        gain_bytes=growth,
        arrays=arrays,
    )


def _growth(node: Json) -> int:
    """Return the bytes by which a node's memory grew in the last two thirds of the run, if it never sank."""
    values: list[int] = node["protocol_bytes"]
    if len(values) < SAMPLES_MIN:
        return 0
    third = values[len(values) // 3]
    rest = values[len(values) // 3 :]
    half = rest[len(rest) // 2]
    steady = values[-1] >= 0.9 * max(values) and values[-1] >= half * 1.1 and half >= third
    return values[-1] - third if steady and values[-1] >= 1.5 * third else 0
