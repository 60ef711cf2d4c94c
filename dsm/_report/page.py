"""Writes the page: one HTML file with its style sheet, its script and what the script draws; nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections import Counter
from pathlib import Path
from string import Template

from dsm._report import arrays, memory, overview, parts, places, races, words
from dsm._report.advice import advise
from dsm._report.found import Found
from dsm._report.profile import Json, Profile, place
from dsm._report.timeline import STATES, timeline

OF_A_KIND = 3  # advice that is unfolded
SCRIPTS = ("page.js", "strips.js", "timeline.js")

PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
<p class="note">$run</p>
$notes
</header>
<nav aria-label="Sections"><ul>$contents</ul></nav>
<main>
$sections
</main>
<footer>$machine</footer>
<div id="tip" hidden></div>
<script type="application/json" id="drawn">$drawn</script>
<script>
$script</script>
</body>
</html>
"""
)

TIMELINE = """<div class="timeline">
<div class="tools"><button id="zoom-in">zoom in</button><button id="zoom-out">zoom out</button>
<button id="zoom-all">all</button><label><input type="checkbox" id="arrows" checked> arrows</label>
<span class="soft" id="window"></span><span class="soft" id="arrows-note"></span></div>
<div class="overview"><canvas id="overview" role="img" aria-label="Share of the ranks in each state"></canvas></div>
<div class="view"><canvas id="tracks" tabindex="0" role="img" aria-label="A track for each rank"></canvas></div>
</div>"""


def write(profile: Profile, events: list[Json], found_races: Json | None = None) -> str:
    """Return the page.  Local."""
    arrays_section, strips = arrays.section(profile)
    drawn_timeline = timeline(events)
    sections = [
        ("time", "time", overview.section(profile)),
        ("advice", "advice", _advice(profile)),
        ("races", "races", races.section(found_races) if found_races is not None else ""),
        ("sites", "synchronisation", places.sites(profile)),
        ("lines", "lines", places.lines(profile)),
        ("locks", "locks", places.locks(profile)),
        ("arrays", "arrays", arrays_section),
        ("timeline", "timeline", _timeline(drawn_timeline)),
        ("memory", "memory", memory.section(profile)),
    ]
    present = [(name, said, shown) for name, said, shown in sections if shown]
    drawn = json.dumps({"strips": strips, "timeline": drawn_timeline}, separators=(",", ":"))
    here = Path(__file__).parent
    return PAGE.substitute(
        title=parts.text(f"dsm profile: {overview.command(profile)}"),
        style=(here / "page.css").read_text(encoding="utf-8"),
        lead=parts.text(overview.lead(profile)),
        run=_run(profile),
        notes="".join(parts.paragraph(note, "note") for note in _notes(profile)),
        contents="".join(f'<li><a href="#{name}">{said}</a></li>' for name, said, _ in present),
        sections="\n".join(shown for *_, shown in present),
        machine=_machine(profile),
        drawn=drawn.replace("<", "\\u003c"),  # text of the program must not end the script
        script="".join(_script(here / name) for name in SCRIPTS),
    )


def _script(path: Path) -> str:
    """Return a script in a scope of its own, apart from `page`, which all of them use."""
    words_of = path.read_text(encoding="utf-8")
    return words_of if path.name == "page.js" else f"{{\n{words_of}}}\n"


def _notes(profile: Profile) -> list[str]:
    return [*profile.numbers["notes"], *profile.numbers["truncated"]]


def _run(profile: Profile) -> str:
    run = profile.run
    facts = [
        f"started {run['began'][:19].replace('T', ' ')}",
        f"nodes: {run['node']}",
        f"pages of {words.size(run['page_bytes'])}",
        f"dsm {run['dsm']}",
        f"Python {run['python']}",
        f"NumPy {run['numpy']}",
        run["mpi"],
    ]
    if run["clock_error_s"]:
        facts.append(f"clocks aligned to {words.seconds(run['clock_error_s'])}")
    return parts.text(" · ".join(facts))


def _machine(profile: Profile) -> str:
    hosts = [
        f"{host['name']}: {words.ranks(host['ranks'])}, {words.counted(host['cores'], 'core')}"
        + (f", {words.size(host['memory_bytes'])}" if host["memory_bytes"] else "")
        for host in profile.hosts[:16]
    ]
    machine = profile.numbers["machine"]
    said = f"{'; '.join(hosts)}. {machine['cpu']}, Linux {machine['kernel']}."
    return parts.paragraph(said, "note") + parts.paragraph(
        "profile.json has all numbers; trace.json opens in Perfetto.", "note"
    )


def _advice(profile: Profile) -> str:
    found = advise(profile)
    if not found:
        nothing = "The profile shows none of the faults that dsm knows."
        if profile.run["one_node"]:
            nothing += " One node watches no page: `--node rank` shows more."
        return parts.section("advice", "Advice", parts.paragraph(nothing))
    seen: Counter[str] = Counter()
    shown: list[str] = []
    more: list[str] = []
    for kind, one in found:
        seen[kind] += 1
        (shown if seen[kind] <= OF_A_KIND else more).append(_item(profile, kind, one))
    folded = f'<ul class="advice">{"".join(more)}</ul>'
    return parts.section(
        "advice",
        "Advice",
        parts.paragraph("The gain is a bound: the time that the fault cost. A remedy seldom brings all of it."),
        f'<ol class="advice">{"".join(shown)}</ol>',
        parts.details(f"{len(more)} more of the same kinds", folded) if more else "",
    )


def _item(profile: Profile, kind: str, one: Found) -> str:
    links = [f'<a href="#array-{number}">array</a>' for number in one.arrays[:1]]
    links += [f'<a href="#site-{number}">{parts.text(place(profile.sites[number]))}</a>' for number in one.sites]
    links += [f'<a href="#lock-{number}">lock</a>' for number in one.locks]
    seen = f'<p class="note">See {", ".join(links)}.</p>' if links else ""
    evidence = "".join(f"<li>{parts.text(sentence)}</li>" for sentence in one.evidence)
    code = f"<pre>{html.escape(one.code)}</pre>" if one.code else ""
    return (
        f'<li data-kind="{kind}"><div><h3>{parts.text(one.title)}</h3></div>\n{_gain(profile, one)}\n'
        f"<div><ul>{evidence}</ul>{parts.paragraph(one.remedy)}{code}{seen}</div></li>\n"
    )


def _gain(profile: Profile, one: Found) -> str:
    part = one.gain_s / profile.seconds
    if one.gain_s:
        said = f"<b>{words.seconds(one.gain_s)}</b> at most, {words.share(part)} of the run"
        bar = f'<div class="bar"><i style="width:{min(part, 1) * 100:.1f}%"></i></div>'
    else:
        said, bar = f"<b>{words.size(one.gain_bytes)}</b> of memory at most", ""
    return f'<div class="gain">{said}{bar}</div>'


def _timeline(drawn: Json | None) -> str:
    title = "Timeline"
    if drawn is None:
        return parts.section("timeline", title, parts.paragraph("There is no trace.json beside the profile."))
    used = {span[1] for span in drawn["spans"]}
    said = {
        "compute": "phases, named by the call that ends them",
        "data": "data",
        "lock": "waiting for locks, and arrows from a release to the next acquire",
        "barrier": "waiting in barriers",
        "event": "waiting for events and conditions",
        "other": "other collective calls",
        "protocol": "other calls of dsm",
        "fault": "page faults, below the phase; arrows from the writer to the rank that fetched",
        "collection": "garbage collections",
    }
    kinds = [(kind, said[kind]) for number, kind in enumerate(drawn["kinds"]) if number in used]
    return parts.section(
        "timeline",
        title,
        parts.paragraph(
            "Drag over a part to zoom into it, double-click for all; Ctrl and the wheel, or the keys + and -."
        ),
        parts.key([("data" if kind == "fault" else kind, words_) for kind, words_ in kinds]),
        TIMELINE,
    )


assert set(STATES) == {name for name, _ in overview.TIMES}
