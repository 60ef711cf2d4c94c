"""Builds the report from what was measured: its tables, and its pictures with the sentences below them.

A part whose data are missing is a string instead, which says what is missing and which command measures it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from benchmarks.report import figures, sentences, words
from benchmarks.report.data import RATES, REACH_RANKS, Heat, Measured, Reasons, Record, Sweep, split
from benchmarks.report.data import seconds as median_seconds
from benchmarks.report.document import Block, Column, Document, Items, Picture, Section, Table, Text
from benchmarks.report.words import DASH, NOTHING

TITLE = "dsm beside mpi4py"
MISSED = "Reaches that are missed"
COMPARABLE = (
    "The columns of SC'95 are speed-ups of PVM and of TreadMarks on eight workstations with a network of 100 Mbit/s "
    "(Lu, Dwarkadas, Cox, Zwaenepoel 1995), and the second over the first. Comparable is which applications are hard "
    "for shared memory, and roughly the ratio; not comparable are the speed-ups, as processors, network and number of "
    "ranks differ, and as only the size `paper` has the problems of that time."
)
COUNTED = (
    "Messages and bytes are summed over all ranks; a collective call of mpi4py counts as the fewest point-to-point "
    "messages that do its work. Lines of code are those of the serial program, and what each parallel version adds to "
    "it; kernels are shared and not counted. A verdict with ~ has its reach inside the interval."
)
FLOOR = (
    "The floor is the dsm program over memory that the ranks of one host share, with barriers and locks in it and "
    "without dsm: the least that sharing memory can cost there."
)
NO_FLOOR = "There is no floor here: between hosts no memory can be shared (or the results are older than the floor)."


def build(measured: Measured) -> Document:
    """Build the whole report."""
    if not measured.records:
        return Document(TITLE, "There are no results.", [])
    parts = [
        facts(measured),
        applications(measured),
        beside(measured),
        time_split(measured),
        page_sizes(measured),
        granularity(measured),
        ranks(measured),
        weak(measured),
        networks(measured),
        libraries(measured),
        nodes(measured),
        missed(measured),
    ]
    sections = [part for part in parts if isinstance(part, Section)]
    missing = [part for part in parts if isinstance(part, str) and part]
    if missing:
        sections.append(Section("Not in these results", [Text(f"{'; '.join(missing)}.")]))
    return Document(TITLE, sentences.overall(measured), sections)


# ---- what was run ----


def facts(measured: Measured) -> Section:
    """Tell where, when and with what the records were made."""
    records = measured.records
    plain = measured.plain
    rows = [
        ["machine", _distinct(_machine(record) for record in records)],
        ["commit", _distinct(record["commit"] for record in records)],
        ["software", _distinct(_software(record) for record in records)],
        ["MPI", _distinct(record["mpi"] for record in records)],
        ["network", _distinct(record["network"] for record in records)],
        ["node", _distinct(record["node"] for record in records)],
        ["when", _when([record["time"] for record in records])],
        ["repetitions", _repetitions(records)],
    ]
    loads = [record["load"] for record in records if "load" in record]
    if loads:
        rows.append(["load average", f"{min(loads):.1f}{DASH}{max(loads):.1f} at the end of a job"])
    blocks: list[Block] = [Table("", [Column("what", words=True), Column("which", words=True)], rows)]
    told = sentences.noise(records)
    if told:
        blocks.append(Text(told))
    if len({_machine(record) for record in records}) > 1:
        blocks.append(Text("These results are of several machines: compare only what one of them measured."))
    if measured.names:
        blocks.append(
            Text(
                f"Unless it says otherwise a figure is of {plain['mpi']}, {plain['network']}, node {plain['node']}, "
                f"pages of {words.size(plain['page_size'])}. Times are medians; intervals are of 95 % (bootstrap over "
                "the repetitions). The versions of an application ran in turns in one job, and every result was "
                "verified."
            )
        )
    return Section("What was run", blocks)


def _distinct(found: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(found)) or NOTHING


def _machine(record: Record) -> str:
    of = record["machine"]
    told = f"{of.get('host', '?')}: {of.get('cpu', '?')}, {words.counted(of.get('cores', 1), 'core')}"
    told += f", {of['memory_gib']} GiB" if of.get("memory_gib") else ""
    return told + (f", Linux {of['kernel']}" if of.get("kernel") else "")


def _software(record: Record) -> str:
    return ", ".join(f"{name} {version}" for name, version in record["software"].items()) or NOTHING


def _when(times: list[str]) -> str:
    first, last = (f"{t[:16].replace('T', ' ')}{' UTC' * t.endswith('+00:00')}" for t in (min(times), max(times)))
    return first if first == last else f"{first} to {last}"


def _repetitions(records: list[Record]) -> str:
    found = [len(record[name]) for record in records for name in ("times_s", "dsm_s") if name in record]
    return str(min(found)) if min(found) == max(found) else f"{min(found)}{DASH}{max(found)}"


# ---- applications ----


def applications(measured: Measured) -> Section | str:
    """Tabulate the applications in each size, and speed-ups by ranks."""
    if not measured.sizes:
        return "no application (`python -m benchmarks run`)"
    floor = any("floor" in measured.job(name, size) for size in measured.sizes for name in measured.names)
    blocks: list[Block] = [Text(COUNTED), Text(FLOOR if floor else NO_FLOOR), Text(COMPARABLE)]
    for size in measured.sizes:
        blocks += [_speed_table(measured, size), _cost_table(measured, size)]
        if len(measured.all_ranks(size)) > 1:
            blocks.append(_ranks_table(measured, size))
    return Section("Applications", blocks)


def _speed_table(measured: Measured, size: str) -> Table:
    columns = [Column("application", words=True), Column("serial")]
    columns += [Column(version, "speed-up over serial") for version in ("mpi4py", "dsm")]
    columns += [Column(name, "speed of dsm / mpi4py") for name in ("ratio", "95 %", "reach")]
    columns += [Column("verdict", "speed of dsm / mpi4py", words=True)]
    columns += [Column(name, "speed of dsm / floor") for name in ("ratio", "95 %")]
    columns += [Column(name, "SC'95, 8 workstations") for name in ("PVM", "TreadMarks")]
    columns += [Column("ratio", "SC'95, 8 workstations", words=True)]
    rows = [_speed_row(measured, name, size) for name in measured.in_size(size)]
    return Table(f"Speed in size {size}, {words.counted(measured.ranks, 'rank')}", columns, rows)


def _speed_row(measured: Measured, name: str, size: str) -> list[str]:
    alone, app = measured.serial(name, size), measured.apps.get(name)
    found, verdict = measured.ratio(name, size), measured.verdict(name, size)
    row = [name, words.seconds(median_seconds(alone)) if alone else NOTHING]
    row += [_ratio(measured.speedup(name, size, version)) for version in ("mpi4py", "dsm")]
    row += [words.ratio(found.value), words.interval(found)] if found else [NOTHING] * 2
    row.append(f"{app.reach:.2f}" if app else NOTHING)
    row.append(("met" if verdict.met else "missed") + " ~" * verdict.open if verdict else NOTHING)
    above = measured.ratio(name, size, rival="floor")
    row += [words.ratio(above.value), words.interval(above)] if above else [NOTHING] * 2
    if app and app.paper:
        pvm, treadmarks = app.paper
        return [*row, f"{pvm:.2f}", f"{treadmarks:.2f}", words.ratio(treadmarks / pvm)]
    return [*row, NOTHING, NOTHING, (app and app.paper_note) or NOTHING]


def _cost_table(measured: Measured, size: str) -> Table:
    columns = [Column("application", words=True)]
    for group in ("messages", "bytes"):
        columns += [Column(name, group) for name in ("mpi4py", "dsm", "dsm / mpi4py")]
    columns += [Column(name, "lines of code") for name in ("serial", "mpi4py adds", "dsm adds")]
    rows = [_cost_row(measured, name, size) for name in measured.in_size(size)]
    return Table(f"Messages and code in size {size}, {words.counted(measured.ranks, 'rank')}", columns, rows)


def _cost_row(measured: Measured, name: str, size: str) -> list[str]:
    job, alone = measured.job(name, size), measured.serial(name, size)
    row = [name]
    for counter, write in (("messages_sent", "{:,}".format), ("bytes_sent", words.size)):
        mpi, dsm = (job.get(version, {}).get("counters", {}).get(counter) for version in ("mpi4py", "dsm"))
        row += [NOTHING if count is None else write(count) for count in (mpi, dsm)]
        row.append(words.ratio(dsm / mpi) if mpi and dsm is not None else NOTHING)
    versions = ({"serial": alone} if alone else {}) | job
    return row + [str(versions[v]["lines"]) if v in versions else NOTHING for v in ("serial", "mpi4py", "dsm")]


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else words.ratio(value)


def _ranks_table(measured: Measured, size: str) -> Table:
    ranks = measured.all_ranks(size)
    columns = [Column("application", words=True)]
    for rank in ranks:
        group = words.counted(rank, "rank") + " *" * (rank > measured.cores)
        columns += [Column("mpi4py", group), Column("dsm", group), Column("ratio", group)]
    rows = []
    for name in measured.in_size(size):
        row = [name]
        for rank in ranks:
            row += [_ratio(measured.speedup(name, size, version, rank)) for version in ("mpi4py", "dsm")]
            found = measured.ratio(name, size, rank)
            row.append(words.ratio(found.value) if found else NOTHING)
        rows.append(row)
    beyond = f"; * more ranks than the {words.counted(measured.cores, 'core')}" if ranks[-1] > measured.cores else ""
    return Table(f"Size {size}: speed-up over serial, and speed of dsm over mpi4py{beyond}", columns, rows)


# ---- beside mpi4py ----


def beside(measured: Measured) -> Section | str:
    """Draw the speed of dsm over mpi4py for each application, and over ranks."""
    found = measured.ratios(measured.sizes[0]) if measured.sizes else {}
    if not found:
        return "no application with both dsm and mpi4py (`python -m benchmarks run`)"
    judged = measured.ranks == REACH_RANKS
    reaches = {name: measured.apps[name].reach for name in found if judged and name in measured.apps}
    where = f"size {measured.sizes[0]}, {words.counted(measured.ranks, 'rank')}, node {measured.plain['node']}"
    says = sentences.ratios(found, measured, measured.sizes[0])
    above = {name: value.value for name, value in measured.ratios(measured.sizes[0], "floor").items()}
    title = f"Speed of dsm over mpi4py{' and over the floor' if above else ''}, {where}"
    blocks: list[Block] = [Picture("ratios", title, says, lambda: figures.ratios(found, reaches, above))]
    sweep = measured.sweep("ranks", measured.sizes[0])
    if sweep:
        title = f"Speed of dsm over mpi4py by ranks, size {sweep.size}"
        says = sentences.over(sweep, lambda rank: words.counted(rank, "rank"))
        blocks.append(_heat_picture("ranks", title, says, sweep, [str(rank) for rank in sweep.values], "ranks"))
    return Section("Beside mpi4py", blocks)


def _heat_picture(name: str, title: str, says: str, sweep: Sweep, columns: list[str], label: str) -> Picture:
    values = np.array([[row[v].value if v in row else np.nan for v in sweep.values] for row in sweep.table.values()])
    return Picture(name, title, says, lambda: figures.heat(list(sweep.table), columns, values, label))


def time_split(measured: Measured) -> Section | str:
    """Draw what the time of dsm's ranks goes to."""
    size = measured.sizes[0] if measured.sizes else ""
    jobs = {name: measured.job(name, size) for name in measured.names}
    jobs = {name: job for name, job in jobs.items() if job.get("dsm", {}).get("counters")}
    if not jobs:
        return "no counters of dsm (`python -m benchmarks run`)"
    parts = {name: split(job["dsm"]) for name, job in jobs.items()}
    times = {
        name: (median_seconds(job["dsm"]), median_seconds(job["mpi4py"]) if "mpi4py" in job else None)
        for name, job in jobs.items()
    }
    note = Text(
        "Waits are summed over the ranks, as shares of time \N{MULTIPLICATION SIGN} ranks of the same repetition. "
        "Waits for a `dsm.Counter` are among those for locks. What is not waiting is shown as computing: the work of "
        "the protocol on the computing thread belongs to it, too."
    )
    title = f"Where the time of dsm goes, size {size}, {words.counted(measured.ranks, 'rank')}"
    picture = Picture("split", title, sentences.splits(parts), lambda: figures.splits(parts, times))
    return Section("Where the time goes", [picture, note])


# ---- sweeps ----


def page_sizes(measured: Measured) -> Section | str:
    """Draw the speed over page sizes, and recommend one."""
    on = measured.sweep("page_size")
    if not on:
        return "page sizes (`python -m benchmarks sweep pages`)"
    off = measured.sweep("page_size", on.size, aggregation=False)
    usual = measured.plain["page_size"]
    where = f"size {on.size}, {words.counted(measured.ranks, 'rank')}"
    curves = Picture(
        "pages",
        f"Speed over the page size, {where}",
        sentences.pages(on, usual, off),
        lambda: figures.page_curves(on.table, off.table if off else {}, usual),
    )
    columns = [words.size(value) for value in on.values]
    says = sentences.over(on, lambda bytes_: f"pages of {words.size(bytes_)}")
    heat = _heat_picture(
        "pages-heat", f"The same in figures, with aggregation, {where}", says, on, columns, "page size"
    )
    return Section("Page size", [curves, heat])


def granularity(measured: Measured) -> Section | str:
    """Draw the map of page size and bytes per synchronisation of each pattern."""
    maps = measured.heats()
    if not maps and not measured.granularity:
        return "granularity (`python -m benchmarks sweep granularity`)"
    blocks: list[Block] = []
    if maps:
        blocks.append(_maps(measured, maps))
    curves = measured.compute_curves()
    if curves:
        title = f"Computing between synchronisations, pages of {words.size(measured.computed_page_size())}"
        blocks.append(Picture("compute", title, sentences.compute(curves), lambda: figures.compute(curves)))
    return Section("Granularity", blocks)


def _maps(measured: Measured, maps: list[Heat]) -> Picture:
    of = measured.granularity[0]
    title = (
        f"Speed of dsm over mpi4py by page size and grain, {words.counted(of['ranks'], 'rank')}, {of['network']}, "
        f"node {of['node']}"
    )
    says = sentences.heats(maps, measured.granularity_page_size())
    return Picture("granularity", title, says, lambda: figures.heats(maps))


def ranks(measured: Measured) -> Section | str:
    """Draw speed-ups over ranks."""
    size = max(measured.sizes, key=lambda name: len(measured.all_ranks(name)), default="")
    many = measured.all_ranks(size) if size else []
    curves = {
        name: {
            version: {
                rank: value for rank in many if (value := measured.speedup(name, size, version, rank)) is not None
            }
            for version in ("mpi4py", "dsm")
        }
        for name in measured.names
    }
    curves = {name: versions for name, versions in curves.items() if any(len(c) > 1 for c in versions.values())}
    if not curves:
        return "numbers of ranks, with one among them (`python -m benchmarks sweep ranks`)"
    return _scaling(measured, curves, "Ranks", f"Speed-up over serial, size {size}", efficiency=False)


def weak(measured: Measured) -> Section | str:
    """Draw efficiencies where the work grows with the ranks."""
    size, curves = measured.weak_efficiency()
    curves = {name: versions for name, versions in curves.items() if any(len(c) > 1 for c in versions.values())}
    if not curves:
        return "weak scaling (`python -m benchmarks sweep weak`)"
    title = f"Efficiency where the work grows with the ranks, size {size} each"
    return _scaling(measured, curves, "Weak scaling", title, efficiency=True)


def _scaling(measured: Measured, curves: dict, section: str, title: str, efficiency: bool) -> Section:
    """Draw curves over the number of ranks."""
    says = sentences.scaling(curves, measured.cores, "efficiency" if efficiency else "speed-up")
    name = "weak" if efficiency else "scaling"
    picture = Picture(name, title, says, lambda: figures.scaling(curves, measured.cores, efficiency=efficiency))
    return Section(section, [picture])


def networks(measured: Measured) -> Section | str:
    """Draw the speed on each network."""
    sweep = measured.sweep("network")
    if not sweep:
        return "networks (`python -m benchmarks sweep networks`)"
    title = f"Speed of dsm over mpi4py by network, size {sweep.size}, {words.counted(measured.ranks, 'rank')}"
    picture = Picture("networks", title, sentences.networks(sweep), lambda: figures.networks(sweep.table, sweep.values))
    note = Text(
        "`full`, `1gbit` and `100mbit` are virtual hosts on this machine, one for each rank if nothing else is said, "
        "which talk by TCP over links of that rate; on one host MPI passes messages through memory."
    )
    return Section("Networks", [picture, *[note] * any(name.partition(",")[0] in RATES for name in sweep.values)])


def libraries(measured: Measured) -> Section | str:
    """Tabulate the ratio with each MPI, where there are several."""
    sweep = measured.sweep("mpi")
    if not sweep:
        return ""
    where = f"size {sweep.size}, {words.counted(measured.ranks, 'rank')}"
    return Section("MPI libraries", [_by_axis(sweep, "MPI", where)])


def nodes(measured: Measured) -> Section | str:
    """Tabulate the ratio by which ranks are a node, where that differs, and what dsm sent."""
    blocks: list[Block] = []
    for network, ranks in dict.fromkeys((key.network, key.ranks) for key in measured.jobs):
        sweep = measured.sweep("node", network=network, ranks=ranks)
        if sweep:
            where = f"size {sweep.size}, {words.counted(ranks, 'rank')}, {network}"
            speeds = _by_axis(sweep, "node", where)
            sent = [
                [
                    name,
                    *(
                        _bytes_sent(measured.job(name, sweep.size, ranks, network=network, node=n))
                        for n in sweep.values
                    ),
                ]
                for name in sweep.table
            ]
            means, names = sweep.means()
            told = words.listed(f"{words.ratio(mean)} with node {node}" for node, mean in means.items())
            mean = Text(f"The geometric mean over {words.counted(len(names), 'application')} is {told}.")
            blocks += [speeds, mean, Table(f"Bytes that dsm sent by node, {where}", speeds.columns, sent)]
    return Section("Nodes", blocks) if blocks else "nodes (`python -m benchmarks sweep nodes`)"


def _bytes_sent(job: Mapping[str, Record]) -> str:
    counters = job["dsm"]["counters"] if "dsm" in job else {}
    return words.size(counters["bytes_sent"]) if "bytes_sent" in counters else NOTHING


def _by_axis(sweep: Sweep, axis: str, where: str) -> Table:
    """Tabulate the ratio at each value of what was varied."""
    columns = [Column("application", words=True), *(Column(value) for value in sweep.values)]
    rows = [
        [
            name,
            *(f"{words.ratio(row[v].value)} ({words.interval(row[v])})" if v in row else NOTHING for v in sweep.values),
        ]
        for name, row in sweep.table.items()
    ]
    return Table(f"Speed of dsm over mpi4py by {axis}, {where}", columns, rows)


def missed(measured: Measured) -> Section | str:
    """Explain each reach that is missed by the counters."""
    size = measured.sizes[0] if measured.sizes else ""
    verdicts = {name: measured.verdict(name, size) for name in measured.names}
    judged = {name: verdict for name, verdict in verdicts.items() if verdict}
    if not judged:
        return f"runs on {REACH_RANKS} ranks, for which reaches are given (`python -m benchmarks run`)"
    found = {name: measured.reasons(name, size) for name, verdict in judged.items() if not verdict.met}
    reasons = sorted(((n, r) for n, r in found.items() if r), key=lambda pair: pair[1].speed / pair[1].reach)
    if not reasons:
        told = f"Every reach is met, in {words.counted(len(judged), 'application')} of size {size}."
        return Section(MISSED, [Text(told)])
    items = Items([(name, sentences.reasons(found)) for name, found in reasons])
    return Section(MISSED, [_reasons_table(reasons, size), items])


def _reasons_table(reasons: list[tuple[str, Reasons]], size: str) -> Table:
    """Tabulate what the counters say, farthest from the reach first."""
    columns = [Column("application", words=True), Column("ratio", "speed"), Column("reach", "speed")]
    columns += [Column(name, "share of time waiting, %") for name in ("data", "locks", "barriers")]
    columns += [Column(name, "dsm's work") for name in ("faults/s", "diffs made", "collections")]
    columns += [Column(name, "dsm / mpi4py") for name in ("messages", "bytes")]
    rows = []
    for name, found in reasons:
        waits = (found.split.data, found.split.lock, found.split.barrier)
        row = [name, words.ratio(found.speed), f"{found.reach:.2f}", *(f"{100 * wait:.1f}" for wait in waits)]
        row += [f"{count:,.0f}" for count in (found.faults_per_s, found.diffs, found.collections)]
        row += [words.ratio(dsm / mpi) if mpi and dsm else NOTHING for mpi, dsm in (found.messages, found.bytes)]
        rows.append(row)
    return Table(f"Counters, size {size}, {words.counted(REACH_RANKS, 'rank')}", columns, rows)
