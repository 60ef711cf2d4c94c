"""The commands of `python -m benchmarks`, apart from `micro`: their options, their errors, their exit status.

0: all went well; 1: something that ran failed; 2: the call is wrong, one line says how, and nothing was run or written.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import rich.box
import rich.console
import rich.table

from benchmarks import ablation, apps, granularity, job, results, run
from benchmarks.app import SIZES, VERSIONS, App
from benchmarks.cluster import hosts
from benchmarks.cluster.hosts import RATES
from benchmarks.run import Place, Run, Runner, UsageError
from benchmarks.synthetic import PAGE_SIZES
from dsm import _settings
from dsm._errors import DSMError

RESULTS = results.ROOT / "build" / "benchmarks" / "results.jsonl"
ABLATIONS = RESULTS.with_name("ablation.jsonl")
REPETITIONS, ABLATION_REPETITIONS = 5, 1
RANKS = (1, 2, 4, 8)
SWEEPS = ("granularity", "pages", "ranks", "weak", "networks", "nodes")
BETWEEN_HOSTS = ("granularity", "pages")  # on one host there are no pages and no messages, unless --node says so


class Parser(argparse.ArgumentParser):
    """Tells an error in one line, as all errors of the suite are told."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing how all options are used."""
        raise UsageError(message)


def main(arguments: Sequence[str], about: str) -> int:
    """Carry out a command."""
    # A job has a session of its own and would outlive this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would not have it
    options = argparse.Namespace()
    try:
        options = parser(about).parse_args(arguments)
        status: int = options.command(options)
    except (UsageError, results.ResultsError, DSMError, ValueError) as why:
        print(f"benchmarks: {why}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = getattr(options, "results", None)
        print(f"\nstopped; what was finished is kept{f' in {kept}' if kept else ''}", file=sys.stderr)
        return 130
    return status


def parser(about: str) -> argparse.ArgumentParser:
    """Make the parser."""
    made = Parser(prog="python -m benchmarks", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function)
        return added

    one = command("run", "run applications", run_apps)
    one.add_argument("apps", nargs="*", metavar="APP", help="names, or what stands before the hyphen (default: all)")
    one.add_argument("--ranks", "-n", type=numbers, default=(1, 2), help="numbers of ranks (default 1,2)")
    one.add_argument("--page-size", type=page_sizes, default=(0,), metavar="4K,1M", help="of all arrays")
    one.add_argument("--plain", action="store_true", help="without aggregation: DSM_WITHOUT for all of it")
    _common(one)
    sweep = command("sweep", "run over a range", sweep_over)
    sweep.add_argument("what", choices=SWEEPS)
    sweep.add_argument("apps", nargs="*", metavar="APP", help="applications (default: all)")
    sweep.add_argument("--ranks", "-n", type=numbers, default=None, help="numbers of ranks")
    _common(sweep)
    without = command("ablation", "count what programs send without one optimisation at a time", ablate)
    without.add_argument("apps", nargs="*", metavar="APP", help="applications (default: all)")
    without.add_argument("--ranks", "-n", type=numbers, default=(2, 4), help="numbers of ranks (default 2,4)")
    without.add_argument("--without", type=switches, default=ablation.PREDICTORS, help="words of DSM_WITHOUT")
    without.add_argument("--into", type=Path, metavar="FILE", help="put the tables into a document, too")
    without.add_argument("--kept", action="store_true", help="run nothing: tables of what was measured before")
    _common(without, ABLATIONS, ABLATION_REPETITIONS)
    command("list", "show the applications", list_apps)
    compare = command("compare", "compare two files of results of one machine", compare_files)
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    report = command("report", "write tables and pictures", write_report)
    report.add_argument("file", type=Path, nargs="?", default=RESULTS, help="results (default: %(default)s)")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="default: beside the results")
    report.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    for name, text in (("micro", "measure single operations"), ("reach", "measure what hosts as nodes are to reach")):
        commands.add_parser(name, help=f"{text} (see `{name} --help`)")  # __main__ has taken it
    return made


def _common(added: argparse.ArgumentParser, path: Path = RESULTS, least: int = REPETITIONS) -> None:
    """Add what all commands that measure take."""
    added.add_argument("--size", choices=SIZES, default="small", help="(default small)")
    added.add_argument("--repetitions", type=int, default=least, help=f"(default, and least: {least})")
    added.set_defaults(repetitions_least=least)
    added.add_argument("--results", type=Path, default=path, help="append to this file (default: %(default)s)")
    added.add_argument("--mpi", default="", metavar="LAUNCHER", help="srun, or the path of an mpiexec")
    add_node(added)
    added.add_argument("--per-host", type=int, default=1, metavar="RANKS", help="of each virtual host (default 1)")
    place = added.add_mutually_exclusive_group()
    place.add_argument("--hostfile", default="", help="hosts of a cluster, in the format of the MPI")
    place.add_argument("--hosts", choices=RATES, default="", help="virtual hosts, over TCP (as root); see --per-host")


def add_node(added: argparse.ArgumentParser) -> None:
    """Add the option that says which ranks are a node."""
    added.add_argument("--node", default="", help=f"ranks that are a node of dsm: {job.NODES} (default host)")


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers of ranks."""
    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and 0 < int(word) <= 4096 for word in words):
        raise argparse.ArgumentTypeError(f"numbers of ranks are like 1,2,4 and not {text!r}")
    return tuple(dict.fromkeys(int(word) for word in words))


def page_sizes(text: str) -> tuple[int, ...]:
    """Read sizes of pages: bytes, or with K or M behind."""
    found = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d+)([KkMm]?)", word)
        if not match:
            raise argparse.ArgumentTypeError(f"page sizes are like 4096, 64K or 1M and not {word!r}")
        shift = {"": 0, "k": 10, "m": 20}[match[2].lower()]
        try:
            found.append(_settings.page_bytes_checked(int(match[1]) << shift, f"page size {word}"))
        except ValueError as why:
            raise argparse.ArgumentTypeError(str(why)) from None
    return tuple(dict.fromkeys(found))


def switches(text: str) -> tuple[str, ...]:
    """Read words of DSM_WITHOUT."""
    words = text.split(",")
    for word in words:
        if word not in _settings.WITHOUT:
            raise argparse.ArgumentTypeError(
                f"what can be switched off is {', '.join(_settings.WITHOUT)}, not {word!r}"
            )
    return tuple(dict.fromkeys(words))


def place_of(options: argparse.Namespace) -> Place:
    """Return where jobs are to run, or say why they cannot."""
    if options.hostfile:
        check_hosts(Path(options.hostfile))
    if options.repetitions < options.repetitions_least and options.size != "tiny":
        raise UsageError(
            f"{options.repetitions} repetitions are too few for a median: {options.repetitions_least} or more"
        )
    if options.hosts:
        problem = hosts.why_not()
        if problem:
            raise UsageError(f"no virtual hosts: {problem}")
    if options.per_host < 1 or (options.per_host > 1 and not options.hosts):
        raise UsageError(f"--per-host {options.per_host} needs --hosts, and one rank or more")
    options.node = options.node or "host"
    job.node_environ(options.node)
    if options.results.exists():
        results.load(options.results)  # so that nothing is appended to what cannot be read again
    return Place(options.mpi, options.hostfile, options.hosts, options.per_host, options.node)


def check_hosts(path: Path) -> None:
    """Refuse a host file that is not there or names a host that is not known."""
    try:
        lines = path.read_text().splitlines()
    except OSError as why:
        raise UsageError(f"host file {path}: {why.strerror}") from None
    for line in lines:
        words = re.split(r"[\s:]+", line.partition("#")[0].strip())
        if words[0]:
            try:
                socket.getaddrinfo(words[0], None)
            except OSError:
                raise UsageError(f"host file {path}: there is no host {words[0]!r}") from None


def measure(runs: Sequence[Run], known: Mapping[str, App], place: Place, options: argparse.Namespace) -> int:
    """Check runs, run them, and tell where the results are."""
    run.check(runs, known)
    runner = Runner(known, place, options.repetitions, options.results)
    runner.run(runs)
    return told(runner, options.results)


def told(runner: Runner, path: Path) -> int:
    """Tell where results are and what failed; the exit status."""
    print(f"{runner.kept} results added to {path}")
    for failure in runner.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return int(bool(runner.failures))


def run_apps(options: argparse.Namespace) -> int:
    """Run applications."""
    known = apps.load()
    runs = run.grid(run.chosen(options.apps, known), options.size, options.ranks, options.page_size)
    if options.plain:
        runs = [replace(made, aggregation=False) for made in runs]
    return measure(runs, known, place_of(options), options)


def sweep_over(options: argparse.Namespace) -> int:
    """Run over a range."""
    if options.what in BETWEEN_HOSTS and not (options.hosts or options.hostfile or options.mpi or options.node):
        choose_hosts(options)
    if options.what in ("networks", "nodes"):
        known = apps.load()
        over = networks if options.what == "networks" else nodes
        return over(run.chosen(options.apps, known), known, options)
    place = place_of(options)
    if options.what == "granularity":
        if options.apps or len(options.ranks or ()) > 1:
            raise UsageError("sweep granularity runs a program of its own, on one number of ranks")
        runner = Runner({}, place, options.repetitions, options.results)
        granularity.sweep(runner, (options.ranks or (2,))[0], options.size == "tiny")
        return told(runner, options.results)
    known = apps.load()
    names = run.chosen(options.apps, known)
    ranks = options.ranks or (RANKS if options.what in ("ranks", "weak") else (2,))
    if options.what == "pages":
        runs = run.grid(names, options.size, ranks, PAGE_SIZES)
        runs = [replace(made, aggregation=on) for made in runs for on in (True, False)]
    elif options.what == "weak":
        if options.apps and not all(known[name].grow for name in names):
            raise UsageError(f"these can grow: {', '.join(name for name in known if known[name].grow)}")
        names = [name for name in names if known[name].grow]
        runs = [replace(made, weak=True) for made in run.grid(names, options.size, ranks)]
    else:
        runs = run.grid(names, options.size, ranks)
    return measure(runs, known, place, options)


def choose_hosts(options: argparse.Namespace) -> None:
    """Choose virtual hosts, where pages and messages mean something, or else nodes of one rank."""
    try:
        with hosts.Hosts(1):
            options.hosts = "full"
    except hosts.NoHostsError as why:
        options.node = "rank"
        print(f"no virtual hosts, so nodes of this host stand for them: {why}", file=sys.stderr)


def networks(names: Sequence[str], known: Mapping[str, App], options: argparse.Namespace) -> int:
    """Run on one host, and on virtual hosts with links of each rate."""
    runs = run.grid(names, options.size, options.ranks or (2,))
    status = 0
    per_host = options.per_host
    for rate in ("", *RATES):
        options.hosts, options.per_host = rate, per_host if rate else 1
        status |= measure(runs, known, place_of(options), options)
    return status


def nodes(names: Sequence[str], known: Mapping[str, App], options: argparse.Namespace) -> int:
    """Run on virtual hosts with two ranks or more each, which are one node and then a node for each rank."""
    per_host = max(options.per_host, 2)
    runs = run.grid(names, options.size, options.ranks or (2 * per_host,))
    if not options.hosts:
        choose_hosts(options)
    options.per_host = per_host if options.hosts else 1
    status = 0
    for node in ("host" if options.hosts else str(per_host), "rank"):
        options.node = node
        status |= measure(runs, known, place_of(options), options)
    return status


def ablate(options: argparse.Namespace) -> int:
    """Run without one optimisation at a time, and print the tables."""
    status = 0
    if not options.kept:
        known = apps.load()
        names = run.chosen(options.apps, known)
        if not (options.hosts or options.hostfile or options.mpi or options.node):
            choose_hosts(options)
        place = place_of(options)
        run.check(run.grid(names, options.size, options.ranks), known)
        runner = Runner(known, place, options.repetitions, options.results)
        ablation.measure(runner, names, options.size, options.ranks, options.without)
        status = told(runner, options.results)
    tables = ablation.markdown(ablation.Ablation(results.load(options.results)))
    print(tables)
    if options.into:
        ablation.put_into(options.into, tables)
    return status


def list_apps(_: argparse.Namespace) -> int:
    """Show the applications."""
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ("application", "what", "sharing", "reach", "size `paper`"):
        table.add_column(column)
    for app in apps.load().values():
        table.add_row(app.name, app.title, app.pattern, f"{app.reach:.2f}", rich.markup.escape(str(app.sizes["paper"])))
    console = rich.console.Console()
    rich.console.Console(width=None if console.is_terminal else 160).print(table)
    return 0


def compare_files(options: argparse.Namespace) -> int:
    """Show how much faster each version of NEW is than that of OLD."""
    old, new = results.load(options.old), results.load(options.new)
    results.one_machine(old, new)
    before, after = results.latest(old), results.latest(new)
    common = [key for key in before if key in after]
    if not common:
        raise UsageError(f"{options.old} and {options.new} have no run in common")
    table = rich.table.Table(box=rich.box.SIMPLE, title="speed of NEW over OLD, with its 95 % interval")
    for column in ("run", *VERSIONS):
        table.add_column(column)
    for key in common:
        made = Run(key.app, key.size, key.ranks, key.page_size, key.aggregation, key.scaling == "weak")
        cells = [_faster(before[key], after[key], version) for version in VERSIONS]
        table.add_row(f"{made}, node {key.node}, {key.network}, {key.mpi}", *cells)
    rich.console.Console(width=140).print(table)
    return 0


def _faster(before: Mapping[str, dict], after: Mapping[str, dict], version: str) -> str:
    if version not in before or version not in after:
        return ""
    found = results.ratio(before[version]["times_s"], after[version]["times_s"])
    sure = "" if found.low <= 1 <= found.high else " slower" if found.value < 1 else " faster"
    return f"{found.value:.2f} ({found.low:.2f}-{found.high:.2f}){sure}"


def write_report(options: argparse.Namespace) -> int:
    """Write the page, its pictures and the tables."""
    records = results.load(options.file)
    from benchmarks import report  # matplotlib takes a second

    page = report.write(records, options.out or options.file.parent)
    print(page)
    if options.markdown:
        options.markdown.write_text(report.markdown(records, os.path.relpath(page.parent, options.markdown.parent)))
        print(options.markdown)
    return 0
