"""The head of the page: where each rank's time went, what it sent, and which node asked which for pages."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dsm._report import parts, words
from dsm._report.parts import Cell, Column
from dsm._report.profile import Json, Profile

TIMES = (
    ("compute", "computing"),
    ("data", "waiting for data in page faults"),
    ("lock", "waiting for locks"),
    ("barrier", "waiting in barriers"),
    ("event", "waiting for events and conditions"),
    ("other", "allocations, the end and other collective calls"),
    ("protocol", "in other calls of dsm"),
)
COUNTS = (
    ("messages_sent", "messages sent", words.count),
    ("bytes_sent", "bytes sent", words.size),
    ("faults_read", "read faults", words.count),
    ("faults_write", "write faults", words.count),
    ("fetches", "pages fetched", words.count),
    ("pages_received", "as whole pages", words.count),
    ("diffs_received", "diffs received", words.count),
    ("lock_acquires", "acquires", words.count),
    ("barriers", "barriers", words.count),
    ("collections", "collections", words.count),
    ("memory_bytes_max", "protocol memory", words.size),
)


def command(profile: Profile) -> str:
    """Return the program and its arguments, without folders.  Local."""
    program, *rest = profile.run["argv"] or [""]
    return " ".join([os.path.basename(program) or "python", *rest])


def lead(profile: Profile) -> str:
    """Return the sentence that says where the time went.  Local."""
    run = profile.run
    whole = sum(rank["seconds"] for rank in profile.ranks) or 1.0
    spent = [(name, said, sum(rank["time"][f"{name}_s"] for rank in profile.ranks) / whole) for name, said in TIMES]
    computed = spent[0][2]
    waits = sorted(((share, said) for _, said, share in spent[1:] if share >= 0.01), reverse=True)
    said = words.listed([f"{words.share(share)} {name}" for share, name in waits])
    hosts, nodes = words.counted(len(profile.hosts), "host"), words.counted(len(profile.nodes), "node")
    return (
        f"{words.counted(profile.size, 'rank')} on {hosts}, {nodes} of the protocol, ran "
        f"{words.seconds(run['seconds'])}. "
        f"They spent {words.share(computed)} of it computing" + (f", {said}." if said else ".")
    )


def section(profile: Profile) -> str:
    """Return the section.  Local."""
    used = [(name, said) for name, said in TIMES if any(rank["time"][f"{name}_s"] > 0 for rank in profile.ranks)]
    blocks = [parts.key(used), _bars(profile), parts.details("Numbers of each rank", _counts(profile))]
    threads = [(rank, thread) for rank in profile.ranks for thread in rank["threads"]]
    if threads:
        blocks.append(parts.details(f"{words.counted(len(threads), 'further thread')}", _threads(threads)))
    asked = [(a, b, pages) for a, row in enumerate(profile.numbers["traffic"]) for b, pages in enumerate(row)]
    if any(pages for *_, pages in asked):
        square = parts.matrix(asked, len(profile.nodes), "fetched", "pages", "node", "asked node")
        caption = "Pages that a node (down) asked of another (across)."
        blocks.append(f'<div class="lockgrid"><figure>{square}<figcaption>{caption}</figcaption></figure></div>')
    return parts.section("time", "Where the time went", *blocks)


def _bars(profile: Profile) -> str:
    longest = max(rank["seconds"] for rank in profile.ranks) or 1.0
    rows = []
    for rank in profile.ranks:
        times = [
            (name, rank["time"][f"{name}_s"], f"rank {rank['rank']}: {words.seconds(rank['time'][f'{name}_s'])} {said}")
            for name, said in TIMES
        ]
        computed = words.share(rank["time"]["compute_s"] / (rank["seconds"] or 1.0))
        rows.append(f"<span>rank {rank['rank']}</span>{parts.stacked(times, longest)}<span>{computed} computing</span>")
    many = " many" if profile.size > 16 else ""
    return f'<div class="bars{many}">{"".join(rows)}</div>'


def _counts(profile: Profile) -> str:
    columns = [Column("rank"), Column("host", words=True), Column("node"), Column("seconds")]
    columns += [Column(f"{name}, s", says=said) for name, said in TIMES]
    columns += [Column("service thread, s", says="CPU time of the thread that answers other nodes")]
    columns += [Column(said) for _, said, _ in COUNTS]
    rows = []
    for rank in profile.ranks:
        cells = [Cell(str(rank["rank"]), rank["rank"]), Cell(parts.text(profile.hosts[rank["host"]]["name"]))]
        cells += [Cell(str(rank["node"]), rank["node"]), Cell(f"{rank['seconds']:.3f}", rank["seconds"])]
        times = [rank["time"][f"{name}_s"] for name, _ in TIMES] + [rank["service_s"]]
        cells += [Cell(f"{value:.3f}", value) for value in times]
        cells += [Cell(write(rank[name]), rank[name]) for name, _, write in COUNTS]
        rows.append(("", cells))
    return parts.table(columns, rows)


def _threads(threads: Iterable[tuple[Json, Json]]) -> str:
    columns = [Column("rank"), Column("thread", words=True), Column("seconds")]
    columns += [Column(f"{name}, s", says=said) for name, said in TIMES]
    rows = []
    for rank, thread in threads:
        cells = [Cell(str(rank["rank"]), rank["rank"]), Cell(parts.text(thread["name"]))]
        times = [thread["seconds"]] + [thread["time"].get(f"{name}_s", 0.0) for name, _ in TIMES]
        rows.append(("", cells + [Cell(f"{value:.3f}", value) for value in times]))
    return parts.table(columns, rows)
