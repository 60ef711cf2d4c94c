"""The documents name what exists: files, headings, variables, switches, statistics, messages and rules."""

import re
from functools import cache
from pathlib import Path

import pytest

from dsm import _settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README, PERFORMANCE, DESIGN, WIRE = (
    (ROOT / name).read_text() for name in ("README.md", "docs/performance.md", "DESIGN.md", "docs/wire.md")
)
CORE = "\n".join(path.read_text() for path in sorted((ROOT / "csrc").rglob("*.[ch]")))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its blocks of code, in which brackets and number signs mean something else."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"there is no section {heading!r}"
    return found[1]


def first_column(text: str) -> set[str]:
    """All words in backticks that stand in the first column of the tables of a text."""
    return {word for row in re.findall(r"^\| ([^|]*) \|", text, re.M) for word in re.findall(r"`(\w+)`", row)}


def enum_names(prefix: str) -> set[str]:
    return set(re.findall(rf"^\s*{prefix}(\w+)\b\s*(?:=|,|$)", CORE, re.M))


def test_there_are_pages_to_look_at() -> None:
    assert {"README.md", "DESIGN.md", "CONTRIBUTING.md", "docs/wire.md"} <= set(map(relative, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{relative(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(found), f"{relative(page)} links to {target}: no such heading"


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    records = {path.name for path in folder.glob("[0-9]*.md")}
    assert records == set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text()))
    assert sorted(int(name[:4]) for name in records) == list(range(1, len(records) + 1))


def test_readme_has_every_variable_and_no_other() -> None:
    assert set(re.findall(r"\bDSM_[A-Z_]*[A-Z]\b", README)) == set(_settings.VARIABLES)


def test_every_switch_is_in_readme_and_has_its_gain() -> None:
    row = re.search(r"^\| `DSM_WITHOUT` \|.*$", README, re.M)
    assert row
    named = set(re.findall(r"`(\w+)`", row[0])) - {"DSM_WITHOUT"}
    assert named == set(_settings.WITHOUT)
    assert set(_settings.WITHOUT) <= first_column(section(PERFORMANCE, "What each optimisation gains"))


def test_every_statistic_is_described_and_no_other() -> None:
    struct = re.search(r"^struct dsm_stats \{\n(.*?)^\};", CORE, re.M | re.S)
    assert struct
    fields = re.sub(r"/\*.*?\*/", "", struct[1], flags=re.S)
    names = {name for line in re.findall(r"uint64_t ([^;]+);", fields) for name in re.findall(r"\w+", line)}
    assert first_column(section(PERFORMANCE, "Statistics")) == names


def test_readme_quotes_what_was_measured() -> None:
    rows = re.findall(
        r"^\| [^|]+ \| ([\d.,]+ \([^|]+\)) \w+(?:/s)? \|", section(README, "What an operation costs"), re.M
    )
    assert len(rows) > 5
    assert [row for row in rows if row not in PERFORMANCE] == []
    mean = re.search(r"geometric mean of dsm's speed is (\d\.\d+)", README)
    assert mean
    assert f"the geometric mean of its speed is {mean[1]} of mpi4py's" in (ROOT / "docs/results.md").read_text()


def test_the_bytes_of_a_page_state_are_those_of_the_code() -> None:
    pages = re.search(r"\bREGION_BLOCK_PAGES = (\d+)", CORE)
    assert pages
    figure = f"{round(4096 / int(pages[1]))} bytes"
    assert f"Protocol memory: {figure}" in README
    assert figure in section(DESIGN, "Memory")
    assert f"about {figure}" in " ".join((ROOT / "docs/scale.md").read_text().split())


def test_every_message_and_flag_is_on_the_page_of_the_wire() -> None:
    numbered = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", section(WIRE, "Messages"), re.M)
    enum = re.search(r"^enum message_kind \{\n(.*?)^\};", CORE, re.M | re.S)
    assert enum
    kinds = [kind for kind in re.findall(r"MESSAGE_(\w+)", enum[1]) if kind != "KINDS"]
    assert numbered == [(str(number), kind) for number, kind in enumerate(kinds, 1)]
    assert set(re.findall(r"`FETCH_(\w+)` \d", WIRE)) == enum_names("FETCH_") - {"PIECE_BYTES"}


def test_the_rules_of_the_design_are_numbered_and_referred_to_by_number() -> None:
    rules = [int(number) for number in re.findall(r"^(\d+)\. ", section(DESIGN, "The rules"), re.M)]
    assert rules == list(range(1, 20))
    assert {int(number) for page in PAGES for number in re.findall(r"\bR(\d+)\b", prose(page))} <= set(rules)


def test_the_design_fits_on_a_screen() -> None:
    assert [line for line in DESIGN.splitlines() if len(line) > 120] == []
