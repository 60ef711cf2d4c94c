"""Draws the pictures, each from plain data; colours are those of Okabe and Ito, which all readers can tell apart."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.report import words
from benchmarks.report.data import CLOSE, Heat, Split
from benchmarks.results import Interval

WIDTH = 10.4  # inches, of which the page shows 100 pixels each
DPI = 200
INK, SOFT, FAINT = "#222222", "#6b6b6b", "#e4e4e4"
DSM, MPI, MISSED = "#0072B2", "#6b6b6b", "#D55E00"
PARTS = {"compute": "#cfd4d9", "data": "#0072B2", "lock": "#E69F00", "barrier": "#009E73"}
# Binary logarithms of the speed where colours end: the same in all pictures of a kind, so that they can be compared.
COLOURS_END, COLOURS_END_GRAINS = 2, 3
LINES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#222222")
SERIES = (("dsm", DSM, "o", "-"), ("mpi4py", MPI, "s", "--"))
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",  # the same letters everywhere
    "svg.hashsalt": "dsm",  # and the same file for the same data
}


def render(draw: Callable[[], Figure]) -> tuple[bytes, bytes, int]:
    """Draw a picture: as SVG, as PNG, and how many pixels wide it is meant to be."""
    with matplotlib.rc_context(STYLE):
        figure = draw()
        FigureCanvasAgg(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=DPI)
    return svg.getvalue(), png.getvalue(), round(100 * figure.get_figwidth())


def ratios(found: Mapping[str, Interval], reaches: Mapping[str, float], floors: Mapping[str, float]) -> Figure:
    """Draw a dot for each application with its interval, sorted, its reach as a tick, the floor as a diamond."""
    names = sorted(found, key=lambda name: found[name].value)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.27 * len(names)))
    axes = figure.add_subplot()
    axes.axvspan(CLOSE, 1 / CLOSE, color=FAINT, lw=0)
    axes.axvline(1, color=SOFT, lw=0.8)
    for y, name in enumerate(names):
        value, low, high = found[name]
        reach = reaches.get(name)
        missed = reach is not None and value < reach
        colour = MISSED if missed else DSM
        axes.plot([low, high], [y, y], color=colour, lw=1.6, solid_capstyle="round")
        axes.plot(value, y, marker="o", ms=6, color="white" if missed else colour, mec=colour, mew=1.6)
        if reach is not None:
            axes.plot(reach, y, marker="|", ms=11, mew=1.8, color=INK)
        if name in floors:
            axes.plot(floors[name], y, marker="D", ms=4.5, color="white", mec=SOFT, mew=1.2)
        axes.text(1.01, y, words.ratio(value), transform=axes.get_yaxis_transform(), va="center", color=colour)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    low = min([*(interval.low for interval in found.values()), *reaches.values(), *floors.values(), CLOSE])
    high = max([*(interval.high for interval in found.values()), *reaches.values(), *floors.values(), 1 / CLOSE])
    _speed_axis(axes.set_xscale, axes.set_xlim, axes.xaxis, low, high)
    if axes.get_xscale() == "linear":
        axes.set_xlim(left=max(0.0, math.floor(10 * low - 0.5) / 10))  # dots, and not bars, need not begin at 0
    axes.set_xlabel("speed of dsm / speed of mpi4py")
    handles = [
        Line2D([], [], color=DSM, marker="o", ms=6, lw=1.6, label="dsm, with its 95 % interval"),
        Line2D([], [], color=MISSED, marker="o", ms=6, lw=1.6, mfc="white", mew=1.6, label="the same, reach missed"),
        Line2D([], [], color=INK, marker="|", ms=11, mew=1.8, lw=0, label="reach"),
        Patch(color=FAINT, label="within 5 % of mpi4py"),
    ]
    if floors:
        floor = Line2D([], [], color="white", marker="D", ms=4.5, mec=SOFT, mew=1.2, lw=0, label="dsm over the floor")
        handles.append(floor)
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def _speed_axis(scale: Callable, limit: Callable, axis: Any, low: float, high: float) -> None:
    """Scale an axis of speeds: linear from 0 while that shows all, logarithmic where they differ by more than eight."""
    if high / low <= 8:
        limit(0, high * 1.04)
        return
    scale("log", base=2)
    limit(low / 1.15, high * 1.15)
    _doubling(axis, low / 1.15, high * 1.15)


def _doubling(axis: Any, low: float, high: float) -> None:
    """Put ticks on powers of two of a logarithmic axis of ratios, on every second one where there are many."""
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = 1 if last - first < 7 else 2
    ticks = [2.0**power for power in range(first, last + 1) if power % step == 0]
    axis.set_ticks(ticks, labels=[words.power_of_two(tick) for tick in ticks])


def heat(rows: Sequence[str], columns: Sequence[str], values: np.ndarray, label: str) -> Figure:
    """Draw speeds as colours with a figure in each cell; what was not measured stays white."""
    width = max(5.2, min(WIDTH, 1.6 + 0.95 * len(columns)))
    figure = Figure(figsize=(width, 1.6 + 0.27 * len(rows)))
    axes = figure.add_subplot()
    drawn = _cells(axes, rows, columns, values, COLOURS_END)
    axes.set_xlabel(label)
    _colour_bar(figure, drawn, [axes], COLOURS_END, 0.7)
    return figure


def heats(maps: Sequence[Heat]) -> Figure:
    """Draw a map for each pattern, all in the same colours."""
    across = min(2, len(maps))
    down = math.ceil(len(maps) / across)
    tall = max(len(found.bytes) for found in maps)
    figure = Figure(figsize=(WIDTH if across > 1 else 0.6 * WIDTH, 1.0 + down * (1.0 + 0.27 * tall)))
    panels = figure.subplots(down, across, squeeze=False)
    for axes, found in zip(panels.flat, maps, strict=False):
        values = np.array([[found.speed.get((b, p), np.nan) for p in found.page_sizes] for b in found.bytes])
        rows, columns = [words.size(b) for b in found.bytes], [words.size(p) for p in found.page_sizes]
        drawn = _cells(axes, rows, columns, values, COLOURS_END_GRAINS)
        axes.set_title(found.pattern, fontweight="bold")
    for axes in panels.flat[len(maps) :]:
        axes.set_visible(False)
    figure.supxlabel("page size", fontsize=9)
    figure.supylabel("bytes per synchronisation", fontsize=9)
    _colour_bar(figure, drawn, panels.ravel().tolist(), COLOURS_END_GRAINS, 0.6 / across)
    return figure


def _cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, limit: int) -> Any:
    colours = matplotlib.colormaps["RdBu"]
    drawn = axes.pcolormesh(np.log2(values), cmap=colours, vmin=-limit, vmax=limit, edgecolors="white", lw=1)
    for (i, j), value in np.ndenumerate(values):
        if math.isfinite(value):
            red, green, blue, _ = colours((math.log2(value) + limit) / (2 * limit))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = words.ratio(value)
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color="white" if dark else INK, fontsize=8.5)
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def _colour_bar(figure: Figure, drawn: Any, axes: list[Axes], limit: int, part: float) -> None:
    """Put the scale of colours on top, at the left, over a part of the width."""
    ticks = list(range(-limit, limit + 1))
    bar = figure.colorbar(drawn, ax=axes, location="top", anchor=(0, 0), ticks=ticks, shrink=part, aspect=25, pad=0.02)
    labels = [words.power_of_two(2.0**tick) for tick in ticks]
    labels[0], labels[-1] = f"\N{LESS-THAN OR EQUAL TO} {labels[0]}", f"\N{GREATER-THAN OR EQUAL TO} {labels[-1]}"
    bar.ax.set_xticklabels(labels)
    bar.ax.grid(visible=False)
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
    bar.set_label("speed of dsm / speed of mpi4py", loc="left")


def splits(parts: Mapping[str, Split], times: Mapping[str, tuple[float, float | None]]) -> Figure:
    """Draw what the ranks' time goes to, and beside it the times of dsm and of mpi4py."""
    names = sorted(parts, key=lambda name: -parts[name].compute)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.27 * len(names)))
    shares, seconds = figure.subplots(1, 2, sharey=True, width_ratios=(1.7, 1))
    left = np.zeros(len(names))
    for part, colour in PARTS.items():
        lengths = np.array([100 * getattr(parts[name], part) for name in names])
        shares.barh(range(len(names)), lengths, left=left, height=0.72, color=colour, edgecolor="white", lw=0.5)
        left += lengths
    shares.set_yticks(range(len(names)), names)
    shares.set_ylim(-0.7, len(names) - 0.3)
    shares.set_xlim(0, 100)
    shares.set_xlabel("share of the time of dsm's ranks, %")
    for y, name in enumerate(names):
        dsm, mpi = times[name]
        if mpi is not None:
            seconds.plot([dsm, mpi], [y, y], color=FAINT, lw=3, zorder=1)
            seconds.plot(mpi, y, marker="s", color=MPI, ms=5)
        seconds.plot(dsm, y, marker="o", color=DSM, ms=6)
    seconds.set_xscale("log")
    _time_ticks(seconds, [t for pair in times.values() for t in pair if t is not None])
    seconds.set_xlabel("time")
    for axes in (shares, seconds):
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    seconds.spines["left"].set_visible(False)
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "handlelength": 1.4}
    shares.legend(handles=[Patch(color=c, label=_PART_LABELS[part]) for part, c in PARTS.items()], ncols=4, **above)
    dots = [Line2D([], [], color=DSM, marker="o", ms=6, lw=0, label="dsm")]
    dots.append(Line2D([], [], color=MPI, marker="s", ms=5, lw=0, label="mpi4py"))
    seconds.legend(handles=dots, ncols=2, **above)
    return figure


_PART_LABELS = {"compute": "computing", "data": "waits for data", "lock": "for locks", "barrier": "at barriers"}


def _time_ticks(axes: Axes, times: Sequence[float]) -> None:
    """Label a logarithmic axis of times in their units, three to a decade where it has few decades."""
    low, high = min(times) / 1.3, max(times) * 1.3
    steps = (1, 2, 5) if high / low < 30 else (1, 3) if high / low < 300 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [words.seconds(round(tick, 12)) for tick in ticks])
    axes.set_xticks([], minor=True)


Curve = Mapping[Any, Interval] | Mapping[Any, float]


def page_curves(on: Mapping[str, Curve], off: Mapping[str, Curve], usual: int) -> Figure:
    """Draw the speed over the page size, a panel for each application, with aggregation and without."""
    names = list(dict.fromkeys([*on, *off]))
    values = [interval.value for curves in (on, off) for curve in curves.values() for interval in curve.values()]
    sizes = sorted({size for curves in (on, off) for curve in curves.values() for size in curve})
    figure = _multiples_figure(len(names))
    for axes, name in _multiples(figure, names):
        axes.axhline(1, color=SOFT, lw=0.8)
        axes.axvline(usual, color=FAINT, lw=4, zorder=0)
        for curves, colour, marker, line in ((off, MISSED, "s", "--"), (on, DSM, "o", "-")):
            curve = sorted(curves.get(name, {}).items())
            axes.plot([x for x, _ in curve], [y.value for _, y in curve], color=colour, marker=marker, ls=line)
        axes.set_xscale("log", base=2)
        axes.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
        shown = sizes[:: max(1, math.ceil(len(sizes) / 3))]
        axes.set_xticks(shown, [words.size(size).replace("iB", "").replace(" ", "") for size in shown])
        _speed_axis(axes.set_yscale, axes.set_ylim, axes.yaxis, min(values), max([*values, 1]))
    figure.supxlabel("page size, bytes", fontsize=9)
    figure.supylabel("speed, dsm / mpi4py", fontsize=9)
    handles = [Line2D([], [], color=DSM, marker="o", label="dsm")] * bool(on)
    handles += [Line2D([], [], color=MISSED, marker="s", ls="--", label="without aggregation")] * bool(off)
    handles += [Line2D([], [], color=FAINT, lw=4, label="the usual page size")]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


def _multiples_figure(n: int) -> Figure:
    """Make a figure for panels of one size, six or fewer side by side."""
    across = min(6, n)
    return Figure(figsize=(max(5.2, WIDTH * across / 6), 0.9 + 1.55 * math.ceil(n / across)))


def _multiples(figure: Figure, names: Sequence[str]) -> Iterator[tuple[Axes, str]]:
    """Yield panels with shared axes and their names; the lowest of each column keeps its labels."""
    across = min(6, len(names))
    panels = figure.subplots(math.ceil(len(names) / across), across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for number, (axes, name) in enumerate(zip(panels.flat, names, strict=False)):
        axes.set_title(name, pad=3)
        if number + across >= len(names):
            axes.tick_params(labelbottom=True)
        yield axes, name


def scaling(curves: Mapping[str, Mapping[str, Mapping[int, float]]], cores: int, efficiency: bool) -> Figure:
    """Draw speed-ups (or efficiencies) over ranks, a panel for each application; shaded where ranks exceed cores."""
    values = [value for versions in curves.values() for curve in versions.values() for value in curve.values()]
    ranks = sorted({rank for versions in curves.values() for curve in versions.values() for rank in curve})
    figure = _multiples_figure(len(curves))
    for axes, name in _multiples(figure, list(curves)):
        if ranks[-1] > cores:
            axes.axvspan(cores * 1.09, ranks[-1] * 1.25, color="#f1f1f1", lw=0, zorder=0)
        ideal = [1 if efficiency else rank for rank in ranks]
        axes.plot(ranks, ideal, color=SOFT, lw=0.8, ls=":")
        for version, colour, marker, line in reversed(SERIES):
            curve = sorted(curves[name].get(version, {}).items())
            axes.plot([x for x, _ in curve], [y for _, y in curve], color=colour, marker=marker, ls=line)
        axes.set_xscale("log", base=2)
        axes.set_xlim(ranks[0] / 1.25, ranks[-1] * 1.25)
        axes.set_xticks(ranks, [str(rank) for rank in ranks])
        axes.set_ylim(0, 1.08 * max([*values, 1 if efficiency else min(ranks[-1], cores)]))
    figure.supxlabel("ranks", fontsize=9)
    figure.supylabel("efficiency" if efficiency else "speed-up over serial", fontsize=9)
    handles = [Line2D([], [], color=c, marker=m, ls=line, label=version) for version, c, m, line in SERIES]
    handles += [Line2D([], [], color=SOFT, lw=0.8, ls=":", label="ideal")]
    handles += [Patch(color="#f1f1f1", label="more ranks than cores")] * (ranks[-1] > cores)
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure


def networks(table: Mapping[str, Mapping[str, Interval]], order: Sequence[str]) -> Figure:
    """Draw a panel of bars for each network, the applications below each other."""
    names = list(table)[::-1]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.27 * len(names)))
    panels = figure.subplots(1, len(order), sharey=True, sharex=True, squeeze=False)[0]
    high = max([interval.value for row in table.values() for interval in row.values()] + [1])
    for axes, network in zip(panels, order, strict=True):
        for y, name in enumerate(names):
            if network in table[name]:
                value = table[name][network].value
                axes.barh(y, value, color=DSM, height=0.68)
                inside = value > 0.25 * high
                at, side, colour = (-3, "right", "white") if inside else (3, "left", INK)
                text = {"textcoords": "offset points", "va": "center", "ha": side, "fontsize": 8, "color": colour}
                axes.annotate(words.ratio(value), (value, y), (at, -0.5), **text)
        axes.axvline(1, color=SOFT, lw=0.8)
        axes.set_title(network, fontweight="bold")
        axes.set_xlim(0, high * 1.08)
        axes.locator_params(axis="x", nbins=3)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(-0.7, len(names) - 0.3)
    figure.supxlabel("speed of dsm / speed of mpi4py", fontsize=9)
    return figure


def compute(curves: Mapping[int, Mapping[str, Mapping[float, float]]]) -> Figure:
    """Draw the speed over the computing between synchronisations, a panel for each grain, a line for each pattern."""
    values = [v for rows in curves.values() for curve in rows.values() for v in curve.values()]
    patterns = list(dict.fromkeys(pattern for rows in curves.values() for pattern in rows))
    times = sorted({time for rows in curves.values() for curve in rows.values() for time in curve})
    looks = {pattern: {"color": LINES[n % 6], "marker": "osD^vX"[n % 6]} for n, pattern in enumerate(patterns)}
    across = min(3, len(curves))
    down = math.ceil(len(curves) / across)
    figure = Figure(figsize=(max(0.7 * WIDTH, WIDTH * across / 3), 1.3 + (2.6 if across == 1 else 2.1) * down))
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, (bytes_, rows) in zip(panels.flat, curves.items(), strict=False):
        axes.set_title(f"{words.size(bytes_)} per synchronisation", fontweight="bold")
        axes.axhline(1, color=SOFT, lw=0.8)
        for pattern, curve in rows.items():
            at = sorted(curve)
            axes.plot([times.index(time) for time in at], [curve[time] for time in at], **looks[pattern])
        axes.set_xticks(range(len(times)), [words.seconds(t * 1e-6) if t else "none" for t in times])
        axes.tick_params(labelbottom=True)
        _speed_axis(axes.set_yscale, axes.set_ylim, axes.yaxis, min(values), max([*values, 1]))
    figure.supxlabel("computing between synchronisations", fontsize=9)
    figure.supylabel("speed, dsm / mpi4py", fontsize=9)
    handles = [Line2D([], [], label=pattern, **look) for pattern, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=4)
    return figure
