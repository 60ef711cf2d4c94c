"""What the protocol costs on up to 1,024 nodes, on paper: counts by the real code, time by the LogGP model.

    python tests/native/scale.py [--nodes 1024] [--docs docs]

Runs scale.c for every operation, number of nodes and network, and writes scale.md (tables) and scale.svg (figure).
Needs matplotlib.  What the page claims about growth is checked before it is written.
"""

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "csrc" / "protocol"
SOURCE = pathlib.Path(__file__).with_suffix(".c")
PAGE = SOURCE.with_name("scale_page.md")
FLAGS = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", f"-I{ROOT / 'csrc'}"]

# In a barrier of N nodes with k dirty pages each, N * N * k notices are taken in, in one process: about 200 bytes each.
NOTICES_MAX = 4_200_000


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """Parameters of LogGP and of a node, in picoseconds (G for a byte), each with where it is from."""

    name: str
    L: int
    o: int
    g: int
    G: int
    sources: dict[str, str]
    trap: int = 5_000_000
    notice: int = 100_000

    def arguments(self) -> list[str]:
        return [str(value) for value in (self.L, self.o, self.g, self.G, self.trap, self.notice)]


ETHERNET = Network(
    "10 GbE",
    L=12_000_000,
    o=1_800_000,
    g=1_800_000,
    G=850,
    sources={
        "L": "Poke, Hoefler, Glass (HPDC 2017), LogP of TCP sockets on their cluster; quoted from memory of the paper",
        "o": "the same",
        "g": "assumed to be o: the processor is the bottleneck for small messages, as in the netgauge run of the CODES "
        "project (`ng-mpi-tukey.dat`, MPI: o = 1.1 us, g = 1.08 us)",
        "G": "arithmetic: 1,448 bytes of payload in 1,538 bytes on a wire of 10 Gbit/s",
    },
)
FABRIC = Network(
    "100 Gb/s fabric",
    L=380_000,
    o=260_000,
    g=260_000,
    G=97,
    sources={
        "L": "L + 2 o = 0.90 us was measured (Open MPI, 8 bytes, OSU benchmarks; published as GitHub gist "
        "jfgrimm/3af692a5475bdd4ed836b5a18197a209; the network is not named there, its bandwidth tells)",
        "o": "that split of it is an assumption, after the 0.26 us that Zambre et al. (Breaking Band, 2020) give for "
        "handing a message to EDR InfiniBand by MPI; quoted from memory of the paper",
        "g": "assumed to be o",
        "G": "measured in the same gist: 10.3 GB/s at 32 KiB",
    },
)
NETWORKS = (ETHERNET, FABRIC)


@dataclasses.dataclass(frozen=True)
class Operation:
    """A row of the tables: what scale.c runs, and what message passing would do instead."""

    name: str
    k: int
    title: str
    rival: str

    def possible(self, nodes: int) -> bool:
        if self.name == "fault":
            return self.k < nodes
        if self.name.startswith("barrier"):
            return nodes * nodes * self.k <= NOTICES_MAX
        return True


BARRIER = "dissemination barrier"
OPERATIONS = (
    Operation("fault", 1, "fault, page written by 1 node", "one message of 4 KiB"),
    Operation("fault", 16, "fault, page written by 16 nodes", "one message of 4 KiB"),
    Operation("fault", 256, "fault, page written by 256 nodes", "one message of 4 KiB"),
    Operation("lock", 0, "lock hand-over, nothing written", "one empty message"),
    Operation("lock", 16, "lock hand-over, 16 pages written", "one empty message"),
    Operation("lock_all", 0, "lock hand-over, all had it since the cut", "one empty message"),
    Operation("barrier", 0, "barrier, nothing written", BARRIER),
    Operation("barrier", 1, "barrier, 1 page written by each", BARRIER),
    Operation("barrier", 16, "barrier, 16 neighbouring pages each", BARRIER),
    Operation("barrier_apart", 16, "barrier, 16 scattered pages each", BARRIER),
    Operation("barrier", 256, "barrier, 256 neighbouring pages each", BARRIER),
    Operation("lock_barrier", 0, "barrier, all had a lock since the cut", BARRIER),
    Operation("broadcast", 1, "all read 1 page of node 0", "MPI_Bcast of 4 KiB"),
    Operation("broadcast", 64, "all read 64 pages of node 0", "MPI_Bcast of 256 KiB"),
    Operation("jacobi", 0, "one Jacobi step, barrier included", "two MPI_Sendrecv of 4 KiB"),
)


@functools.cache
def program() -> pathlib.Path:
    """Compile scale.c, once for each state of the sources."""
    sources = [SOURCE, *sorted(PROTOCOL.glob("*/*.c"))]
    digest = hashlib.sha256()
    for path in [*sources, *sorted(PROTOCOL.glob("*/*.h"))]:
        digest.update(path.read_bytes())
    built = ROOT / "build" / "scale" / f"scale-{digest.hexdigest()[:16]}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
        partial = built.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *FLAGS, "-o", partial, *sources], check=True)
        partial.rename(built)
    return built


@functools.cache
def measure(name: str, nodes: int, k: int, network: Network = ETHERNET) -> dict:
    """Run one operation and return its counts and times."""
    command = [program(), name, str(nodes), str(k), *network.arguments()]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def sizes(most: int) -> list[int]:
    return [2**i for i in range(1, most.bit_length()) if 2**i <= most]


# --- what is claimed -------------------------------------------------------------------------------------------------


def levels(nodes: int) -> int:
    """Levels of the meetings' tree below its root."""
    depth, last = 0, 0
    while last < nodes - 1:
        last = 4 * last + 4
        depth += 1
    return depth


def check_growth(nodes: Sequence[int]) -> None:
    """Stop if something grows faster than the page says."""

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise SystemExit(f"scale: does not hold: {what}")

    for n in nodes:
        need(measure("barrier", n, 0)["rounds"] == 2 * levels(n), f"a barrier of {n} nodes goes up and down a tree")
        need(2 * levels(n) <= 2 + math.log2(n), f"rounds of a barrier of {n} nodes are at most log2 N + 2")
    for small, large in itertools.pairwise(nodes):
        for operation in OPERATIONS:
            if not (operation.possible(small) and operation.possible(large)) or small < 8:
                continue
            before, after = (measure(operation.name, n, operation.k)["rank_bytes"] for n in (small, large))
            need(after <= 2.5 * before, f"bytes of a node grow at most with N: {operation.title}, {small} to {large}")


# --- the page --------------------------------------------------------------------------------------------------------


def human(value: float) -> str:
    """Three digits, with k, M or G for large counts."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            break
        value /= 1000
    if unit == "":
        return f"{value:.0f}"
    return f"{value:.{0 if value >= 99.5 else 1 if value >= 9.95 else 2}f} {unit}"


def in_bytes(value: float) -> str:
    return human(value) + ("B" if value >= 999.5 else " bytes")


def microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    aligned = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, aligned, *rows])


def counts_table(nodes: Sequence[int]) -> str:
    rows = []
    for operation in OPERATIONS:
        for n in nodes:
            if not operation.possible(n):
                continue
            m = measure(operation.name, n, operation.k)
            counts = (m["messages"], m["bytes"], m["rank_messages"], m["rank_bytes"])
            rows.append([operation.title, str(n), str(m["rounds"]), *map(human, counts)])
    head = ["operation", "N", "rounds", "messages", "bytes", "messages, busiest", "bytes, busiest"]
    return table(head, rows)


def times_table(nodes: Sequence[int], network: Network) -> str:
    rows = []
    for operation in OPERATIONS:
        cells = []
        for n in nodes:
            if operation.possible(n):
                m = measure(operation.name, n, operation.k, network)
                ratio = m["time_us"] / m["mpi_us"]
                cells.append(f"{microseconds(m['time_us'])} ({ratio:.{0 if ratio >= 9.95 else 1}f})")
            else:
                cells.append("")
        rows.append([operation.title, operation.rival, *cells])
    return table(["operation", "by message passing", *(f"N = {n}" for n in nodes)], rows).replace("---:", "---", 1)


def memory_table(nodes: Sequence[int]) -> str:
    def cell(name: str, n: int, k: int) -> str:
        return human(measure(name, n, k)["pool_bytes"])

    rows = [
        ["nothing written", *(cell("barrier", n, 0) for n in nodes)],
        ["1 page written by each", *(cell("barrier", n, 1) for n in nodes)],
        ["after the Jacobi steps", *(cell("jacobi", n, 0) for n in nodes)],
    ]
    return table(["bytes", *(f"N = {n}" for n in nodes)], rows)


def parameters_table(network: Network) -> str:
    values = {"L": f"{network.L / 1e6:g} us", "o": f"{network.o / 1e6:g} us", "g": f"{network.g / 1e6:g} us",
              "G": f"{network.G / 1e3:g} ns"}  # fmt: skip
    rows = [[f"{network.name}: {name}", value, network.sources[name]] for name, value in values.items()]
    return table(["parameter", "value", "from"], rows).replace("---:", "---")


def state_bytes(n: int) -> float:
    """Protocol memory for one page that another node wrote, in bytes."""
    return (measure("barrier", n, 16)["pool_bytes"] - measure("barrier", n, 0)["pool_bytes"]) / (16 * n)


def text(nodes: Sequence[int]) -> str:
    """Fill the page in; the sentences are in scale_page.md."""
    most, few = nodes[-1], [n for n in (2, 16, 128, 1024) if n <= nodes[-1]]
    half = max(n for n in nodes if n * n * 16 <= NOTICES_MAX)
    state, crowd = state_bytes(half), measure("broadcast", most, 64)
    return PAGE.read_text().format(
        most=f"{most:,}",
        barrier_rounds=measure("barrier", most, 0)["rounds"],
        mpi_rounds=math.ceil(math.log2(most)),
        fault_bytes=f"{measure('fault', most, 1)['bytes']:,}",
        lock_bytes=measure("lock", most, 16)["bytes"],
        notice_bytes=in_bytes(measure("barrier", most, 1)["rank_bytes"]),
        grant_bytes=in_bytes(measure("lock_all", most, 0)["bytes"]),
        broadcast_ms=f"{measure('broadcast', most, 1)['time_us'] / 1e3:.1f}",
        bcast_ms=f"{measure('broadcast', most, 1)['mpi_us'] / 1e3:.2f}",
        crowd_sent=crowd["rank_bytes_sent"] / (64 * 4096),
        crowd_ms=crowd["time_us"] / 1e3,
        crowd_mpi_ms=crowd["mpi_us"] / 1e3,
        half=f"{half:,}",
        half_levels=levels(half),
        half_ms=f"{measure('barrier', half, 16)['time_us'] / 1e3:.1f}",
        take_in_ms=f"{16 * (half - 1) * ETHERNET.notice / 1e9:.1f}",
        state_bytes=int(state),
        state_part=f"{4096 / state:.0f}",
        clock_kib=40 * most // 1024,
        trap_us=f"{ETHERNET.trap / 1e6:g}",
        notice_ns=f"{ETHERNET.notice / 1e3:g}",
        parameters="\n\n".join(parameters_table(network) for network in NETWORKS),
        ethernet_times=times_table(few, ETHERNET),
        fabric_times=times_table(few, FABRIC),
        counts=counts_table(few),
        memory=memory_table(few),
    )


# --- the figure ------------------------------------------------------------------------------------------------------

CURVES = (
    ("barrier", 0, "barrier, clean", "C0"),
    ("barrier", 1, "barrier, 1 page each", "C1"),
    ("jacobi", 0, "Jacobi step", "C2"),
    ("fault", 1, "fault, 1 writer", "C3"),
    ("lock", 0, "lock hand-over", "C4"),
    ("broadcast", 1, "all read one page", "C5"),
)
RIVALS = {"barrier, clean": "MPI_Barrier", "Jacobi step": "MPI_Sendrecv", "all read one page": "MPI_Bcast"}


def plot_times(axes, nodes: Sequence[int], network: Network) -> None:
    for name, k, title, colour in CURVES:
        rows = [measure(name, n, k, network) for n in nodes]
        axes.plot(nodes, [row["time_us"] for row in rows], "o-", ms=3.5, color=colour, label=title)
        if title in RIVALS:
            axes.plot(nodes, [row["mpi_us"] for row in rows], "--", color=colour, label=RIVALS[title])
    axes.set_title(f"Time on {network.name} (LogGP)")
    axes.set_ylabel("time, microseconds")
    axes.set_yscale("log")
    axes.legend(fontsize=7.5, ncols=2, loc="upper left")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 12)


def plot_bytes(axes, nodes: Sequence[int]) -> None:
    for name, k, title, colour in CURVES:
        axes.plot(nodes, [measure(name, n, k)["rank_bytes"] for n in nodes], "o-", ms=3.5, color=colour, label=title)
    few = [n for n in nodes if n <= 512]
    values = [measure("fault", n, n - 1)["rank_bytes"] for n in few]
    axes.plot(few, values, "s-", ms=3.5, color="C6", label="fault, N - 1 writers")
    axes.plot(nodes, [40 * n for n in nodes], ":", color="black", lw=1, label="grows as N")
    axes.plot(nodes, [40 * n * n for n in nodes], "-.", color="black", lw=1, label="grows as N squared")
    axes.set_title("Bytes that the busiest node sends and receives")
    axes.set_ylabel("bytes")
    axes.set_yscale("log")
    axes.legend(fontsize=7.5, ncols=2, loc="upper left")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * 30)


def plot_rounds(axes, nodes: Sequence[int]) -> None:
    for name, k, title, colour in CURVES:
        if (name, k) != ("barrier", 1):
            axes.plot(nodes, [measure(name, n, k)["rounds"] for n in nodes], "o-", ms=3.5, color=colour, label=title)
    axes.plot(nodes, [math.log2(n) for n in nodes], ":", color="black", lw=1, label="log2 N")
    axes.set_title("Rounds: messages that wait for one another")
    axes.set_ylabel("rounds")
    axes.set_yticks(range(0, 21, 2))
    axes.legend(fontsize=7.5, ncols=2, loc="upper left")


def draw(nodes: Sequence[int], path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scale"  # the same figure is the same file
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    plot_times(axes[0, 0], nodes, ETHERNET)
    plot_times(axes[0, 1], nodes, FABRIC)
    plot_bytes(axes[1, 0], nodes)
    plot_rounds(axes[1, 1], nodes)
    for each in axes.flat:
        each.set_xscale("log", base=2)
        each.set_xticks(nodes, [str(n) for n in nodes])
        each.set_xlabel("nodes N")
        each.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1024, help="the largest number of nodes")
    parser.add_argument("--docs", type=pathlib.Path, default=ROOT / "docs", help="where the page and the figure go")
    arguments = parser.parse_args()
    nodes = sizes(arguments.nodes)
    check_growth(nodes)
    (arguments.docs / "scale.md").write_text(text(nodes))
    draw(nodes, arguments.docs / "scale.svg")
    print(f"wrote scale.md and scale.svg in {arguments.docs}", file=sys.stderr)


if __name__ == "__main__":
    main()
