"""The sentences of the report.  Each is computed: it says what the data show and nothing that they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.report.data import CLOSE, NEAR, ONE_HOST, REACH_RANKS, Heat, Measured, Reasons, Record, Split, Sweep
from benchmarks.report.words import counted, geometric_mean, listed, percent, ratio, seconds, size
from benchmarks.results import Interval

WAITED_FOR = {"data": "for data", "locks": "for locks", "barriers": "at barriers"}


def overall(measured: Measured) -> str:
    """Say in one sentence how dsm does beside mpi4py."""
    found = measured.ratios(measured.sizes[0]) if measured.sizes else {}
    if not found:
        return "No application was measured with both dsm and mpi4py."
    close = sum(value.value >= CLOSE for value in found.values())
    told = (
        f"On {counted(measured.ranks, 'rank')}, in size `{measured.sizes[0]}`, dsm is within 5 % of mpi4py, or faster, "
        f"in {close} of {counted(len(found), 'application')}"
    )
    verdicts = [measured.verdict(name, measured.sizes[0]) for name in found]
    judged = [verdict for verdict in verdicts if verdict]
    if judged and measured.ranks == REACH_RANKS:
        of = "" if len(judged) == len(found) else f" of {len(judged)}"
        told += f" and meets the reach in {sum(verdict.met for verdict in judged)}{of}"
    mean = geometric_mean([value.value for value in found.values()])
    told += f"; the geometric mean of its speed is {ratio(mean)} of mpi4py's"
    above = measured.ratios(measured.sizes[0], "floor")
    if above:
        told += f" and {ratio(geometric_mean([value.value for value in above.values()]))} of the floor's"
    return f"{told}."


def noise(records: Sequence[Record]) -> str:
    """Say how many runs had other work beside them, by the load at their end; empty when none had."""
    loaded = [record for record in records if "load" in record]
    noisy = [record for record in loaded if record["load"] > max(record["ranks"], record["machine"]["cores"]) + 1]
    if not noisy:
        return ""
    return (
        f"In {len(noisy)} of {counted(len(loaded), 'run')} the load average was above ranks and cores by more than "
        "one: other work ran beside them, and their times are noisy."
    )


def ratios(found: Mapping[str, Interval], measured: Measured, in_size: str) -> str:
    """Say how far the ratios range and how many reaches are met."""
    slow, fast = min(found, key=lambda n: found[n].value), max(found, key=lambda n: found[n].value)
    told = f"The speed of dsm is {ratio(found[slow].value)} of mpi4py's"
    if slow == fast:
        told += f" in {slow}"
    else:
        told += f" in {slow}, the slowest beside it, and {ratio(found[fast].value)} in {fast}"
    judged = [verdict for name in found if (verdict := measured.verdict(name, in_size))]
    if not judged:
        return f"{told}."
    told += f"; {sum(verdict.met for verdict in judged)} of {len(judged)} meet the reach"
    undecided = sum(verdict.open for verdict in judged)
    return told + (f", and for {undecided} the interval leaves it open." if undecided else ".")


def over(sweep: Sweep, write: Callable[[Any], str]) -> str:
    """Say how the mean goes over what was varied, and where the worst cell is."""
    means, names = sweep.means()
    first, *_, last = means
    cells = [(found.value, name, at) for name, row in sweep.table.items() for at, found in row.items()]
    worst = min(cells, key=lambda cell: cell[0])
    return (
        f"From {write(first)} to {write(last)} the geometric mean over {counted(len(names), 'application')} "
        f"goes from {ratio(means[first])} to {ratio(means[last])}; the lowest is {ratio(worst[0])}, {worst[1]} with "
        f"{write(worst[2])}."
    )


def splits(parts: Mapping[str, Split]) -> str:
    """Say how much is waiting, and for what most."""
    if len(parts) == 1:
        ((name, part),) = parts.items()
        most = f", most of it {WAITED_FOR[part.largest_wait]}" if part.largest_wait else ""
        return f"{percent(1 - part.compute)} of the time of dsm's ranks in {name} is waiting{most}."
    waiting = [1 - part.compute for part in parts.values()]
    told = f"{percent(sum(waiting) / len(waiting))} of the time of dsm's ranks is waiting, in the mean over "
    told += counted(len(parts), "application")
    largest = Counter(part.largest_wait for part in parts.values() if part.largest_wait)
    if not largest:
        return f"{told}."
    most = max(parts, key=lambda name: 1 - parts[name].compute)
    named = listed(f"{WAITED_FOR[wait]} in {n}" for wait, n in largest.most_common())
    return f"{told}; the largest wait is {named}. {most} waits most, {percent(1 - parts[most].compute)}."


def pages(sweep: Sweep, usual: int, plain: Sweep | None) -> str:
    """Recommend a page size, and say what the usual one and a fixed unit without aggregation lose."""
    means, names = sweep.means()
    best = max(means, key=lambda page_size: means[page_size])
    told = (
        f"Pages of {size(best)} have the best geometric mean of the ratio, {ratio(means[best])} over "
        f"{counted(len(names), 'application')}"
    )
    if best == usual:
        told += ", and are the usual ones."
    elif usual in means:
        told += (
            f"; the usual {size(usual)} has {ratio(means[usual])} and loses {percent(1 - means[usual] / means[best])}."
        )
    else:
        told += "."
    return told + (_fixed(plain, means.get(usual)) if plain else "")


def _fixed(plain: Sweep, with_aggregation: float | None) -> str:
    """Compare the usual pages with aggregation and the best fixed unit, as Amza et al. 1997 did."""
    means, _ = plain.means()
    best = max(means, key=lambda page_size: means[page_size])
    told = f" Without aggregation the best is {size(best)} with {ratio(means[best])}"
    if with_aggregation is None:
        return f"{told}."
    gain = with_aggregation / means[best] - 1
    return f"{told}: aggregation on the usual pages is {percent(abs(gain))} {'ahead' if gain >= 0 else 'behind'}."


def heats(maps: Sequence[Heat], page_size: int) -> str:
    """Say how many points are close, which pages are best, and from which grain on each pattern is near."""
    values = [value for found in maps for value in found.speed.values()]
    close = sum(value >= CLOSE for value in values)
    told = f"At {close} of {counted(len(values), 'point')} dsm is within 5 % of mpi4py, or faster"
    means = _means_by_page_size(maps)
    if len(means) > 1:
        best = max(means, key=lambda pages: means[pages])
        told += (
            f"; pages of {size(best)} have the best geometric mean over all grains and patterns, {ratio(means[best])}"
        )
    enough: dict[int | None, list[str]] = {}
    for found in maps:
        if page_size in found.page_sizes:
            enough.setdefault(found.enough(page_size), []).append(found.pattern)
    if not enough:
        return f"{told}."
    grains = [f"from {size(grain)} on in {_patterns(enough[grain])}" for grain in sorted(set(enough) - {None})]
    if None in enough:
        grains.append(f"at no grain in {_patterns(enough[None])}")
    return (
        f"{told}. With pages of {size(page_size)} its speed stays at {NEAR:g} of mpi4py's or more {'; '.join(grains)}."
    )


def _patterns(names: Sequence[str]) -> str:
    return listed(f"`{name}`" for name in names)


def _means_by_page_size(maps: Sequence[Heat]) -> dict[int, float]:
    """Return the geometric mean of all points with each page size that every pattern has at each of its grains."""
    sizes = [size for size in maps[0].page_sizes if all((b, size) in m.speed for m in maps for b in m.bytes)]
    return {size: geometric_mean([m.speed[b, size] for m in maps for b in m.bytes]) for size in sizes}


def compute(curves: Mapping[int, Mapping[str, Mapping[float, float]]]) -> str:
    """Say what computing between synchronisations does to the ratio."""
    every = [curve for rows in curves.values() for curve in rows.values()]
    least, most = (pick({time for curve in every for time in curve}) for pick in (min, max))
    both = [curve for curve in every if least in curve and most in curve]
    if not both:
        return "No pattern was measured with the least and with the most computing."
    before, after = (geometric_mean([curve[time] for curve in both]) for time in (least, most))
    return (
        f"With {seconds(most * 1e-6)} of computing between synchronisations the geometric mean is {ratio(after)}, "
        f"beside {ratio(before)} with {seconds(least * 1e-6) if least else 'none'}."
    )


def scaling(curves: Mapping[str, Mapping[str, Mapping[int, float]]], cores: int, what: str) -> str:
    """Say where both versions are at the most ranks that have a core each, and at the most of all."""
    ranks = sorted({rank for versions in curves.values() for curve in versions.values() for rank in curve})
    fitting = [rank for rank in ranks if rank <= cores]
    told = []
    for rank in dict.fromkeys([*fitting[-1:], ranks[-1]]):
        both = [c for c in curves.values() if all(rank in c.get(version, {}) for version in ("dsm", "mpi4py"))]
        if both:
            dsm, mpi = (geometric_mean([c[version][rank] for c in both]) for version in ("dsm", "mpi4py"))
            told.append(
                f"on {counted(rank, 'rank')} the geometric mean of the {what} is {ratio(dsm)} with dsm and "
                f"{ratio(mpi)} with mpi4py"
            )
    if not told:
        return f"No number of ranks has a {what} of both versions."
    text = "; ".join(told)
    beyond = f"; with more than {counted(cores, 'core')} ranks take turns on them" if ranks[-1] > cores else ""
    return f"{text[0].upper()}{text[1:]}{beyond}."


def networks(sweep: Sweep) -> str:
    """Say the mean on each network, and who loses most on the slowest."""
    means, names = sweep.means()
    told = listed(f"{ratio(mean)} on {_network(network)}" for network, mean in means.items())
    last = [*means][-1]
    worst = min(names, key=lambda name: sweep.table[name][last].value)
    return (
        f"The geometric mean over {counted(len(names), 'application')} is {told}; on {_network(last)} {worst} is "
        f"lowest, {ratio(sweep.table[worst][last].value)}."
    )


def _network(name: str) -> str:
    return name if name == ONE_HOST else f"`{name}`"


def reasons(found: Reasons) -> str:
    """Explain a speed by the counters."""
    waiting = 1 - found.split.compute
    told = f"{ratio(found.speed)} of mpi4py's speed instead of {found.reach:.2f}: dsm takes "
    told += f"{ratio(1 / found.speed)} times as long, and {percent(waiting)} of its ranks' time is waiting"
    if found.split.largest_wait:
        told += f"; the largest wait is {WAITED_FOR[found.split.largest_wait]}"
    if waiting < 1 - found.speed:
        told += ". Waiting does not explain all of it: the rest goes to the computing side (faults, twins, diffs)"
    return f"{told}."
