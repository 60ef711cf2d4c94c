"""The ablation: what programs send and wait for without one optimisation at a time, as multiples of with all of them.

Counted and not timed: sums over the ranks, medians over the repetitions of a job, and times for comparison only.  All
applications run in one job, since a job takes longer to start than most of them to run.  A job with all optimisations
comes first and another one last: a gain in one application counts as far as it exceeds the difference between these two
(tasks and locks are taken as they come).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.run import ONE_THREAD, Runner, UsageError

PREDICTORS = ("readahead", "guesses", "columns", "pieces", "refetch", "appetite", "push", "preopen", "join")
TIMEOUT_S = 1800.0
# A predictor that gains less in both ways is to be deleted.
MEAN_MIN, ANYWHERE_MIN = 1.03, 1.10
BEGIN, END = "<!-- python -m benchmarks ablation -->", "<!-- end of the ablation -->"


class Measure(NamedTuple):
    """Something that is counted.  `small` is added to both sides of a ratio: next to nothing decides nothing."""

    title: str
    count: Callable[[Mapping[str, int]], int]
    small: int


# A wait: a page fault, an acquire or a barrier that waits for data which no node had sent.
MEASURES = (
    Measure("messages", lambda c: c["messages_sent"], 16),
    Measure("bytes", lambda c: c["bytes_sent"], 64 << 10),
    Measure("waits", lambda c: c["faults_read"] + c["faults_write"] - c["faults_local"] + c["refetch_waits"], 16),
    Measure("faults", lambda c: c["faults_read"] + c["faults_write"], 16),
)


class Gain(NamedTuple):
    """What is saved in an application: the multiple of a measure without the optimisation, beyond the noise."""

    factor: float
    app: str
    measure: str
    ranks: int


def measure(runner: Runner, names: Sequence[str], size: str, ranks: Sequence[int], words: Sequence[str]) -> None:
    """Run all applications with all optimisations, without each of `words`, and with all again."""
    jobs = [(number, word) for number in ranks for word in ("", *words, "")]
    with runner.progress(len(jobs)) as advance:
        for number, word in jobs:
            text = f"{number} ranks, {f'without {word}' if word else 'with all'}"
            advance(text, 0)
            kept = _job(runner, names, size, number, word)
            advance(f"{text}: {kept} applications", 1)


def _job(runner: Runner, names: Sequence[str], size: str, ranks: int, word: str) -> int:
    """Run applications in one job, and after a failure those behind it in another one; how many were measured."""
    kept, left = 0, list(names)
    while left:
        program = [sys.executable, "-P", str(results.ROOT / "benchmarks" / "suite_rank.py"), "--app", ",".join(left)]
        program += ["--size", size, "--versions", "dsm", "--repetitions", str(runner.repetitions)]
        about = {"kind": "ablation", "ranks": ranks, "size": size, "without": word, "page_size": 0}
        environ = ONE_THREAD | {"DSM_WITHOUT": word}
        records, trouble = runner.job(ranks, program, environ, TIMEOUT_S, lambda _, about=about: about)
        kept += len(records)
        left = left[len(records) :]
        if trouble and left:
            runner.failures.append(f"{left[0]} {size}, {ranks} ranks, without {word or 'nothing'}: {trouble}")
        left = left[1:]
    return kept


class Ablation:
    """The last measurements of a file: of each number of ranks the latest place and size that were measured."""

    def __init__(self, records: Iterable[dict[str, Any]]) -> None:
        found = [record for record in records if record["kind"] == "ablation"]
        if not found:
            raise UsageError("no ablation in these results; `python -m benchmarks ablation` makes one")
        self.about = found[-1]
        same = [r for r in found if all(r[name] == self.about[name] for name in ("network", "node", "size", "mpi"))]
        self.ranks = sorted({record["ranks"] for record in same})
        self.words = [word for word in dict.fromkeys(record["without"] for record in same) if word]
        self.apps = list(dict.fromkeys(record["app"] for record in same))
        self.runs: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for record in same:
            self.runs.setdefault((record["app"], record["without"], record["ranks"]), []).append(record)

    def counts(self, app: str, word: str, ranks: int, measure: Measure) -> list[int]:
        """Return what was counted: of the last run, and with all optimisations of the last two."""
        runs = self.runs.get((app, word, ranks), [])
        return [measure.count(record["counters"]) for record in runs[-1 if word else -2 :]]

    def factor(self, app: str, word: str, ranks: int, measure: Measure, surely: bool = False) -> float:
        """Return the multiple without an optimisation; `surely` of the worse run with all.  NaN: not measured."""
        with_all, without = (self.counts(app, what, ranks, measure) for what in ("", word))
        if not with_all or not without:
            return math.nan
        base = max(with_all) if surely else sum(with_all) / len(with_all)
        return (without[0] + measure.small) / (base + measure.small)

    def mean(self, word: str, ranks: int, measure: Measure) -> float:
        """Return the geometric mean over the applications."""
        factors = [self.factor(app, word, ranks, measure) for app in self.apps]
        known = [math.log(factor) for factor in factors if not math.isnan(factor)]
        return math.exp(sum(known) / len(known)) if known else math.nan

    def largest(self, word: str) -> Gain:
        """Return the largest gain in one application."""
        gains = [
            Gain(self.factor(app, word, ranks, measure, surely=True), app, measure.title, ranks)
            for measure in MEASURES
            for ranks in self.ranks
            for app in self.apps
        ]
        return max((gain for gain in gains if not math.isnan(gain.factor)), default=Gain(math.nan, "", "", 0))

    def falls(self, word: str) -> bool:
        """Say whether the optimisation gains too little."""
        means = [self.mean(word, ranks, measure) for measure in MEASURES for ranks in self.ranks]
        return max(means) < MEAN_MIN and self.largest(word).factor < ANYWHERE_MIN

    def seconds(self, app: str, word: str, ranks: int) -> float:
        """Return the median time; NaN where it was not measured."""
        runs = self.runs.get((app, word, ranks), [])
        return results.median(runs[-1]["times_s"]).value if runs else math.nan

    def slower(self, word: str, ranks: int) -> float:
        """Return the geometric mean of the multiples of the time."""
        ratios = [self.seconds(app, word, ranks) / self.seconds(app, "", ranks) for app in self.apps]
        known = [math.log(ratio) for ratio in ratios if not math.isnan(ratio)]
        return math.exp(sum(known) / len(known)) if known else math.nan


def markdown(made: Ablation) -> str:
    """Write the tables: all measures of each optimisation, and the messages of each application."""
    where = made.about["network"] if made.about["node"] == "host" else f"{made.about['network']}, node rank"
    commits = " and ".join(dict.fromkeys(run["commit"] for runs in made.runs.values() for run in runs))
    lines = [
        f"Without one optimisation, as multiples of with all of them: geometric means over {len(made.apps)} "
        f"applications of size `{made.about['size']}`, {' and '.join(map(str, made.ranks))} ranks, {where}, "
        f"{made.about['mpi']}, commit {commits}.",
        "",
        "| without | " + " | ".join(f"{m.title}, {n}" for m in MEASURES for n in made.ranks)
        + " | " + " | ".join(f"time, {n}" for n in made.ranks) + " | largest gain | |",
        "|---|" + "--:|" * (len(made.ranks) * (len(MEASURES) + 1)) + "---|---|",
    ]  # fmt: skip
    for word in made.words:
        cells = [_two(made.mean(word, ranks, measure)) for measure in MEASURES for ranks in made.ranks]
        cells += [_two(made.slower(word, ranks)) for ranks in made.ranks]
        gain = made.largest(word)
        cells.append(f"{_two(gain.factor)}: {gain.measure} of {gain.app}, {gain.ranks} ranks")
        lines.append(f"| `{word}` | {' | '.join(cells)} | {'falls' if made.falls(word) else 'stays'} |")
    for ranks in made.ranks:
        lines += ["", f"Messages, {ranks} ranks:", ""]
        lines += ["| application | with all | " + " | ".join(f"`{word}`" for word in made.words) + " |"]
        lines += ["|---|" + "--:|" * (1 + len(made.words))]
        for app in made.apps:
            base = " to ".join(f"{n:,}" for n in sorted(set(made.counts(app, "", ranks, MEASURES[0]))))
            cells = [_two(made.factor(app, word, ranks, MEASURES[0])) for word in made.words]
            lines.append(f"| {app} | {base} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _two(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.2f}"


def put_into(path: Path, text: str) -> None:
    """Put the tables between their two marks in a document."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"{path} has no place for the ablation: two lines, {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
