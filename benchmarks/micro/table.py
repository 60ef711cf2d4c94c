"""One line of the table: what was measured, what its rivals took in the same run, and how far it is to reach.

Nothing here needs MPI or dsm, so that the verdicts can be tested by themselves.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MET, MISSED, NO_REACH, NOT_YET, NOT_MEASURED, FAILED = (
    "met",
    "missed",
    "-",
    "not there yet",
    "not measured",
    "failed",
)
HIGHER_IS_BETTER = ("GB/s",)


@dataclasses.dataclass(frozen=True)
class Reach:
    """How good a case is to be.

    Attributes
    ----------
    of : {"ratio", "value", "excess"}
        What is compared with `limit`: measured over rival, measured, or measured less rival.
    limit : float
        The largest value that is good enough; the smallest one for rates.
    hosts : float, optional
        The limit between hosts, over TCP, where it differs.
    """

    of: str
    limit: float
    hosts: float | None = None

    def limit_for(self, hosts: bool) -> float:
        """Return the limit on one host or between hosts.  Local."""
        return self.limit if self.hosts is None or not hosts else self.hosts


@dataclasses.dataclass
class Case:
    """One line: `measured` and every list of `rivals` hold one value per round.

    The rival is the best of `rivals`.  Without any value, `verdict_given` says why there is none, and `note` what is
    missing.
    """

    row: str
    what: str
    unit: str = ""
    measured: list[float] = dataclasses.field(default_factory=list)
    rivals: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    reach: Reach | None = None
    note: str = ""
    counters: dict[str, int] = dataclasses.field(default_factory=dict)
    verdict_given: str = ""

    @property
    def median(self) -> float:
        """Median of the rounds; NaN when nothing was measured.  Local."""
        return statistics.median(self.measured) if self.measured else math.nan

    @property
    def rival(self) -> str:
        """Name of the best rival; empty without rivals.  Local."""
        best = max if self.unit in HIGHER_IS_BETTER else min
        medians = {name: statistics.median(values) for name, values in self.rivals.items() if values}
        return best(medians, key=lambda name: medians[name]) if medians else ""

    @property
    def rival_median(self) -> float:
        """Median of the best rival's rounds; NaN without rivals.  Local."""
        return statistics.median(self.rivals[self.rival]) if self.rival else math.nan

    @property
    def ratio(self) -> float:
        """Measured over rival; NaN where there is no rival, or the rival took nothing.  Local."""
        return self.median / self.rival_median if self.rival and self.rival_median else math.nan

    def verdict(self, hosts: bool = False, oversubscribed: bool = False) -> str:
        """Tell whether the reach is met.  Local."""
        if self.verdict_given or not self.measured:
            return self.verdict_given or NOT_MEASURED
        if self.reach is None or oversubscribed:
            return NO_REACH
        found = {"ratio": self.ratio, "value": self.median, "excess": self.median - self.rival_median}[self.reach.of]
        if math.isnan(found):
            return NOT_MEASURED
        limit = self.reach.limit_for(hosts)
        return MET if (found >= limit if self.unit in HIGHER_IS_BETTER else found <= limit) else MISSED

    def reach_text(self, hosts: bool = False) -> str:
        """Say the reach in words.  Local."""
        if self.reach is None:
            return ""
        sign = ">=" if self.unit in HIGHER_IS_BETTER else "<="
        limit = f"{sign} {self.reach.limit_for(hosts):g}"
        unit = f" {self.unit}" if self.unit else ""
        return limit + {"ratio": " x", "value": unit, "excess": f"{unit} more"}[self.reach.of]


def number(value: float) -> str:
    """Write a number with three digits that count, without exponents; whole numbers as such.  Local."""
    if math.isnan(value):
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def spread(values: Iterable[float]) -> str:
    """Write the smallest and the largest of the rounds.  Local."""
    values = list(values)
    return f"{number(min(values))}-{number(max(values))}" if values else ""


def cells(case: Case, about: dict[str, Any], beside: dict[str, float] | None = None) -> list[str]:
    """Make the cells of a case: what, measured, rival, ratio, reach, verdict, spread, times `beside`.  Local."""
    hosts, oversubscribed = bool(about.get("hosts")), bool(about.get("oversubscribed"))
    unit = f" {case.unit}" if case.unit else ""
    made = [
        case.row,
        case.what + (f" ({case.note})" if case.note else ""),
        number(case.median) + unit if case.measured else "",
        f"{number(case.rival_median)}{unit}: {case.rival}" if case.rival else "",
        number(case.ratio),
        case.reach_text(hosts),
        case.verdict(hosts, oversubscribed),
        "; ".join(filter(None, [spread(case.measured), spread(case.rivals.get(case.rival, []))])),
    ]
    if beside is not None:
        before = beside.get(f"{case.row} {case.what}", math.nan)
        made.append(number(case.median / before) if before else "")
    return made


def title(about: dict[str, Any]) -> str:
    """Say on what all of it was measured.  Local."""
    per_host = about.get("per_host", 1)
    where = f"{about['ranks'] // per_host} hosts over TCP" if about["hosts"] else "one host"
    where += f", node {about.get('node', 'rank')}"
    over = ", oversubscribed: no reach applies" if about["oversubscribed"] else ""
    busy = ": a busy machine, so these figures say little" if about["load"] > about["cores"] / 2 else ""
    return (
        f"{about['ranks']} ranks on {about['cores']} cores, {where}{over}; {about['mpi']}; medians of "
        f"{about['rounds']} rounds in turns; load {about['load']:.1f} before{busy}"
    )


def show(
    cases: list[Case], about: dict[str, Any], beside: dict[str, float] | None = None, counters: bool = False
) -> None:
    """Print the table, and what explains the times.  Local."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title(about), title_justify="left")
    names = ["", "what", "measured", "rival in the same run", "ratio", "reach", "met?", "spread; rival's"]
    for name in names + (["x beside"] if beside is not None else []):
        table.add_column(name, justify="right" if name in ("measured", "ratio", "x beside") else "left")
    colours = {MET: "green", MISSED: "red", FAILED: "bold red"}
    for case in cases:
        row = cells(case, about, beside)
        table.add_row(*row[:6], f"[{colours.get(row[6], 'dim')}]{row[6]}[/]", *row[7:])
    # A pipe or a file has no width; a line that is broken there cannot be read.
    console = Console(width=None if Console().is_terminal else 200)
    console.print(table)
    for case in cases if counters else []:
        if case.counters:
            told = ", ".join(f"{name} {value:,}" for name, value in case.counters.items())
            print(f"{case.row} {case.what}: {told}")


def as_json(cases: list[Case], about: dict[str, Any]) -> str:
    """Write everything: each round of each rival, the counters, the verdicts.  Local."""
    lines = [
        dataclasses.asdict(case)
        | {
            "median": _finite(case.median),
            "rival": case.rival,
            "rival_median": _finite(case.rival_median),
            "ratio": _finite(case.ratio),
            "verdict": case.verdict(bool(about.get("hosts")), bool(about.get("oversubscribed"))),
        }
        for case in cases
    ]
    return json.dumps({"about": about, "cases": lines}, indent=1)


def medians(file: str) -> dict[str, float]:
    """Read the medians of an earlier run's JSON, by row and text.  Local."""
    found = json.loads(Path(file).read_text())
    return {f"{case['row']} {case['what']}": case["median"] for case in found["cases"] if case["median"] is not None}


def from_json(line: str) -> Case:
    """Read one case as `as_json`'s parts and ranks write it.  Local."""
    fields = json.loads(line)
    if fields["reach"] is not None:
        fields["reach"] = Reach(**fields["reach"])
    return Case(**fields)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
