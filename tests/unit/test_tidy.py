"""The house rules that a machine can check: who may include whom, where MPI may be named, how long a function may be.

The arrows point one way: protocol knows nobody, machine knows nobody, runtime knows both (DESIGN.md, The house).
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCES = sorted([*CSRC.glob("*.h"), *CSRC.glob("*/*.[ch]")])

MAY_INCLUDE = {
    "": set(),
    "protocol": {"protocol"},
    "machine": {"machine"},
    "preload": set(),
    "python": set(),
    "runtime": {"", "protocol", "machine", "runtime"},
}

# What a pure part may use of the C library: no operating system, no time, no threads, no signals.
PURE = {
    "protocol": {"stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "string.h"},
    "": {"stdbool.h", "stddef.h", "stdint.h"},
}
IMPURE_CALLS = r"\b(malloc|calloc|realloc|free|time|clock_gettime|printf|fprintf|abort|exit|rand|getenv)\s*\("


def folder(path: Path) -> str:
    """The folder of a source below csrc; "" for dsm.h."""
    return path.relative_to(CSRC).parent.as_posix().replace(".", "", 1)


def includes(path: Path) -> tuple[list[str], list[str]]:
    """The headers that a source names in quotes, and those in angles."""
    text = path.read_text()
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M), re.findall(
        r"^\s*#\s*include\s+<([^>]+)>", text, re.M
    )


def without_comments(text: str) -> str:
    return re.sub(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_are_sources_to_look_at() -> None:
    assert {folder(path) for path in SOURCES} == set(MAY_INCLUDE)
    assert len(SOURCES) > 30


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_arrows_point_one_way(path: Path) -> None:
    for name in includes(path)[0]:
        found = [base for base in (CSRC, path.parent) if (base / name).is_file()]
        assert found, f"{relative(path)} includes {name}, which does not exist"
        target = folder(found[0] / name)
        if path.name == "mpi_identity.c" and name == "dsm.h":
            continue  # answers for dsm.h without the runtime, which cannot start with the wrong MPI
        assert target in MAY_INCLUDE[folder(path)], (
            f"{relative(path)} includes {name}: {folder(path)} may not know {target}"
        )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_mpi_is_named_in_two_files_only(path: Path) -> None:
    ours, theirs = includes(path)
    assert ("mpi_known.h" in ours) == (path.name in {"transport.c", "mpi_identity.c"})
    assert ("mpi.h" in theirs) == (path.name == "mpi_known.h")


@pytest.mark.parametrize("path", [p for p in SOURCES if folder(p) in PURE], ids=relative)
def test_the_protocol_is_pure(path: Path) -> None:
    vectors = {"immintrin.h"} if path.name == "diff.c" else set()  # arithmetic, no more
    assert set(includes(path)[1]) <= PURE[folder(path)] | vectors
    assert not re.findall(IMPURE_CALLS, without_comments(path.read_text()))


@pytest.mark.parametrize("path", [p for p in SOURCES if folder(p) == "protocol" and p.suffix == ".c"], ids=relative)
def test_the_protocol_has_no_state_of_its_own(path: Path) -> None:
    """All state hangs on a node: many fit in one process."""
    lines = without_comments(path.read_text()).splitlines()
    variables = [
        line for line in lines if re.match(r"(static\s+)?(?!const)[a-z_][\w *]*\b\w+(\[[^\]]*\])?\s*(=.*)?;$", line)
    ]
    allowed = re.compile(r"^(static )?(struct|enum|typedef|return|extern)\b.*;$")
    assert [line for line in variables if not allowed.match(line)] == []


def functions(text: str) -> list[tuple[str, int]]:
    """Name and length in lines of each function: from its first line at the margin to the closing brace there."""
    found: list[tuple[str, int]] = []
    start, name, opened = None, "", -1
    for number, line in enumerate(without_comments(text).splitlines()):
        if start is None and (match := re.match(r"[A-Za-z_](?:.*?\b)??(\w+)\s*\([^;]*$", line)):
            start, name = number, match.group(1)
        elif start is not None and re.match(r".*\)(\s+__attribute__.*)?;\s*$", line) and opened < start:
            start = None  # a declaration
        if line.startswith("{"):
            opened = number
        elif line.startswith("}") and start is not None:
            found.append((name, number - start + 1))
            start = None
    return found


@pytest.mark.parametrize("path", [p for p in SOURCES if p.suffix == ".c"], ids=relative)
def test_functions_fit_on_a_page(path: Path) -> None:
    lengths = functions(path.read_text())
    assert lengths
    assert [(name, lines) for name, lines in lengths if lines > 70] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_lines_fit_on_the_screen(path: Path) -> None:
    assert [n for n, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 125] == []
