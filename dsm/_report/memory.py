"""The section of the page about memory over time, on each node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dsm._report import parts, words
from dsm._report.parts import Cell, Column
from dsm._report.profile import Json, Profile

WIDE, HIGH, LEFT, BELOW = 540, 190, 62, 22
POINTS_MAX = 200
CURVES_MAX = 64

CHARTS = (
    ("protocol_bytes", "Protocol memory: twins, diffs, notices, states of pages, messages", "protocol"),
    ("data_bytes", "Data: the pages that a node has, its own and copies of others'", "written"),
)


def section(profile: Profile) -> str:
    """Return the section.  Local."""
    curves = [node for node in profile.memory if node["time_s"]]
    if not curves:
        return parts.section("memory", "Memory", parts.paragraph("The profile has no samples of memory."))
    charts = "".join(
        f"<figure>{_chart(profile, curves[:CURVES_MAX], what, kind)}<figcaption>{parts.text(title)}, a curve for each "
        "node.</figcaption></figure>"
        for what, title, kind in CHARTS
    )
    return parts.section(
        "memory", "Memory", f'<div class="lockgrid">{charts}</div>', parts.details("Numbers", _numbers(curves))
    )


def _chart(profile: Profile, curves: Sequence[Json], what: str, kind: str) -> str:
    end_s = max(max(node["time_s"][-1] for node in curves), 1e-9)
    top = _round(max(max(node[what], default=0) for node in curves))
    x: Callable[[float], float] = lambda t: LEFT + t / end_s * (WIDE - LEFT - 8)  # noqa: E731
    y: Callable[[float], float] = lambda v: HIGH - BELOW - v / top * (HIGH - BELOW - 10)  # noqa: E731
    grid = "".join(
        f'<path class="axis" d="M{LEFT} {y(value):.1f}H{WIDE - 8}"/>'
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{words.size(value)}</text>'
        for value in (0, top / 2, top)
    )
    times = "".join(
        f'<text x="{x(part * end_s):.1f}" y="{HIGH - 6}" text-anchor="{anchor}">{words.seconds(part * end_s)}</text>'
        for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    lines = ""
    for node in curves:
        step = -(-len(node["time_s"]) // POINTS_MAX)
        last = len(node["time_s"]) - 1
        chosen = sorted({*range(0, last + 1, step), last})
        points = " ".join(f"{x(node['time_s'][i]):.1f},{y(node[what][i]):.1f}" for i in chosen)
        said = f"node {node['node']}, {words.ranks(profile.nodes[node['node']])}: at most {words.size(max(node[what]))}"
        lines += (
            f'<polyline points="{points}" fill="none" style="stroke:var(--of)" stroke-width="1.6" '
            f'opacity="{0.9 if len(curves) <= 4 else 0.5}"><title>{said}</title></polyline>'
        )
    return f'<svg class="{kind}" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" role="img">{grid}{times}{lines}</svg>'


def _round(most: float) -> float:
    """Return the next power of two, or three quarters of it: both have short names."""
    power = 1.0
    while power < max(most, 1):
        power *= 2
    return power * 0.75 if most <= power * 0.75 else power


def _numbers(curves: Sequence[Json]) -> str:
    names = ("protocol_bytes", "twin_bytes", "diff_bytes", "data_bytes", "cached_bytes")
    columns = [Column("node")]
    columns += [Column(name.removesuffix("_bytes") + when) for name in names for when in (", most", ", at the end")]
    rows = []
    for node in curves:
        values = [value for name in names for value in (max(node[name], default=0), (node[name] or [0])[-1])]
        rows.append(("", [Cell(str(node["node"]), node["node"])] + [Cell(words.size(v), v) for v in values]))
    return parts.table(columns, rows)
