"""The house rules that a machine can check: layers, circles, names, MPI in few files, lengths of functions and files.

The arrows point one way: protocol knows nobody, machine knows nobody, runtime knows both, and inside the protocol each
layer knows itself and those below it (DESIGN.md, The house).  name.c and name.h count as one file.
"""

import itertools
import re
from collections import defaultdict
from pathlib import Path

import pytest
import walks
from native import callgraph
from native.callgraph import module, without_comments

ROOT = callgraph.ROOT
CSRC = ROOT / "csrc"
SOURCES = callgraph.sources()

MAY_INCLUDE = {
    "": set(),
    "protocol": {"protocol"},
    "machine": {"machine"},
    "preload": set(),
    "python": set(),
    "runtime": {"", "protocol", "machine", "runtime"},
}

# The folders of csrc/protocol, bottom to top.
LAYERS = ("base", "page", "coherence", "predict", "sync", "node")

# What a pure part may use of the C library: no operating system, no time, no threads, no signals.  Atomics are for what
# the processes of a node change in its memory outside of its mutex.
PURE = {
    "protocol": {"stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "string.h"},
    "": {"stdbool.h", "stddef.h", "stdint.h"},
}
IMPURE_CALLS = r"\b(malloc|calloc|realloc|free|time|clock_gettime|printf|fprintf|abort|exit|rand|getenv)\s*\("

# Files without a header of their own, and why.
NO_HEADER = {
    "machine/mpi_identity.c": "answers for dsm.h without the runtime, which cannot start with the wrong MPI",
    "preload/preload.c": "defines functions of the C library for LD_PRELOAD",
}

# Words that were given up, as parts of names in C, and what is said instead; a name with _ is meant as it stands.
OLD_WORDS = {
    "apart": "bulk (a transfer) or persistent (memory of the pool)",
    "early": "deferred (a message) or preopened (a page)",
    "ahead": "readahead (streams) or predecessor (locks)",
    "uncut": "deferred (an encoding)",
    "diff_cut": "diff_encode",
    "page_cut": "page_encode",
    "push_cut": "push_encode",
    "cut_late": "encode_deferred",
    "put_off_cut": "defer_encoding",
    "pass_cut": "cut_pass",
    "wanted": "update set",
    "pages_again": "pages_refetched",
    "again_bytes": "refetch_bytes",
    "without_again": "WITHOUT_REFETCH",
    "want": "request",
    "sample": "probe",
    "samples": "probes",
    "trip": "readahead marker",
    "ridden": "run_length",
    "page_more": "page extension",
    "node_learn": "notices_apply",
    "hurry": "send_blocked",
    "standing": "orphaned",
    "liked": "FETCH_PREFER_WHOLE",
    "disturb": "chaos",
    "bury": "region_release",
}
OLD_FILES = {"ahead", "apart", "disturb", "opening", "touch", "words"}
OTHER_MEANINGS = {"roll_wanted"}  # of a roll call, not of pages
ORDINARY = {"early", "wanted"}  # alone, they are given up in the protocol only


def folder(file: str) -> str:
    """The folder of a source directly below csrc; "" for dsm.h."""
    return file.split("/")[0] if "/" in file else ""


def layer(file: str) -> int:
    """The height of a source of the protocol; -1 where it lies in no layer."""
    parts = file.split("/")
    return LAYERS.index(parts[1]) if len(parts) == 3 and parts[1] in LAYERS else -1


def text_of(file: str) -> str:
    return (CSRC / file).read_text()


def in_angles(file: str) -> set[str]:
    return set(re.findall(r"^\s*#\s*include\s+<([^>]+)>", text_of(file), re.M))


def in_quotes(file: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', text_of(file), re.M)


def nothing(found: list[str], rule: str) -> None:
    """Fail with all that was found against a rule."""
    if found:
        pytest.fail("\n  ".join([f"{rule}:", *found]), pytrace=False)


def test_there_are_sources_to_look_at() -> None:
    assert {folder(file) for file in SOURCES} == set(MAY_INCLUDE)
    assert len(SOURCES) > 30
    functions, calls = callgraph.graph()
    assert len(functions) > 500
    assert len(calls) > 1000


# ---- who may know whom ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SOURCES)
def test_arrows_point_one_way(file: str) -> None:
    found = callgraph.includes()[file]
    assert len(found) == len(in_quotes(file)), f"csrc/{file} includes something that does not exist"
    for target in found:
        if file == "machine/mpi_identity.c" and target == "dsm.h":
            continue  # NO_HEADER says why
        assert folder(target) in MAY_INCLUDE[folder(file)], (
            f"csrc/{file} includes {target}: {folder(file)} may not know {folder(target)}"
        )


def test_each_file_of_the_protocol_lies_in_a_layer() -> None:
    nothing([f for f in SOURCES if folder(f) == "protocol" and layer(f) < 0], f"not in one of {', '.join(LAYERS)}")


def test_no_include_goes_up() -> None:
    pairs = ((file, target) for file, targets in callgraph.includes().items() for target in targets)
    up = [f"{a} includes {b}" for a, b in pairs if folder(a) == folder(b) == "protocol" and layer(a) < layer(b)]
    nothing(up, "includes that go up")


def test_no_call_goes_up() -> None:
    calls = callgraph.graph().calls
    up = [str(c) for c in calls if folder(c.caller.file) == "protocol" and layer(c.caller.file) < layer(c.callee.file)]
    nothing(up, "calls that go up")


def describe_circles(edges: dict[tuple[str, str], list[str]]) -> list[str]:
    """A line for each circle of files, and one for each pair of files in it with what leads from one to the other."""
    lines = []
    for circle in callgraph.circles(edges):
        lines.append(f"a circle of {len(circle)} files: {', '.join(circle)}")
        for a, b in itertools.permutations(circle, 2):
            if (a, b) in edges:
                more = f", and {len(edges[a, b]) - 3} more" if len(edges[a, b]) > 3 else ""
                lines.append(f"  {a} -> {b}: {', '.join(edges[a, b][:3])}{more}")
    return lines


def test_no_circle_of_calls() -> None:
    edges = defaultdict(list)
    for call in callgraph.graph().calls:
        edges[call.modules].append(str(call))
    nothing(describe_circles(edges), "files that call each other in a circle")


def test_no_circle_of_includes() -> None:
    edges = defaultdict(list)
    for file, targets in callgraph.includes().items():
        for target in targets:
            edges[module(file), module(target)].append(f"{file} includes {target}")
    nothing(describe_circles(edges), "files that include each other in a circle")


# The layers of the transport that hold requests of MPI, and what is asked of MPI about this process.
CALL_MPI = {"communicator", "sends", "receives", "parts", "mpi_process", "mpi_identity"}
INCLUDE_MPI = {"communicator.h", "mpi_process.c", "mpi_identity.c"}


@pytest.mark.parametrize("file", SOURCES)
def test_mpi_is_named_in_few_files(file: str) -> None:
    path = Path(file)
    assert ("mpi_known.h" in in_quotes(file)) == (path.name in INCLUDE_MPI)
    assert ("mpi.h" in in_angles(file)) == (path.name == "mpi_known.h")
    calls = re.findall(r"\bMPI_[A-Z][a-z]\w*\s*\(", without_comments(text_of(file)))
    assert bool(calls) == (path.suffix == ".c" and path.stem in CALL_MPI) or path.name == "mpi_known.h"


@pytest.mark.parametrize("file", [f for f in SOURCES if folder(f) in PURE])
def test_the_protocol_is_pure(file: str) -> None:
    vectors = {"immintrin.h"} if Path(file).name == "diff.c" else set()  # arithmetic, no more
    assert in_angles(file) <= PURE[folder(file)] | vectors
    assert not re.findall(IMPURE_CALLS, without_comments(text_of(file)))


@pytest.mark.parametrize("file", [f for f in SOURCES if folder(f) == "protocol" and f.endswith(".c")])
def test_the_protocol_has_no_state_of_its_own(file: str) -> None:
    """All state hangs on a node: many fit in one process."""
    lines = without_comments(text_of(file)).splitlines()
    variables = [
        line for line in lines if re.match(r"(static\s+)?(?!const)[a-z_][\w *]*\b\w+(\[[^\]]*\])?\s*(=.*)?;$", line)
    ]
    allowed = re.compile(r"^(static )?(struct|enum|typedef|return|extern)\b.*;$")
    assert [line for line in variables if not allowed.match(line)] == []


# ---- names ---------------------------------------------------------------------------------------------------


def test_each_file_has_its_own_header() -> None:
    called = {f.file for f in outside_functions() if not is_face(f)}  # what has only calls of dsm.h has that header
    missing = [f for f in SOURCES if f.endswith(".c") and f"{module(f)}.h" not in SOURCES and f not in NO_HEADER]
    missing = [f for f in missing if f in called or folder(f) != "runtime"]
    nothing(missing, "no header of the same name")
    assert set(NO_HEADER) <= set(SOURCES)


def outside_functions() -> list[callgraph.Function]:
    """The functions that other files can call: what is not static, and what a header defines."""
    return [f for f in callgraph.graph().functions if not f.static or f.file.endswith(".h")]


def is_face(function: callgraph.Function) -> bool:
    """Whether a function is one of dsm.h, or takes the place of one of the C library."""
    of_dsm = function.name.startswith("dsm_") and re.search(rf"\b{function.name}\(", text_of("dsm.h"))
    return function.file.startswith(callgraph.OWN_LIBRARY) or (
        bool(of_dsm) and (folder(function.file) == "runtime" or function.file in NO_HEADER)
    )


def test_the_file_is_the_prefix_of_its_functions() -> None:
    wrong = [
        f"{f.file}: {f.name}"
        for f in outside_functions()
        if not re.match(f"{Path(f.file).stem}s?_", f.name) and not is_face(f)  # stream_ or, of several, streams_
    ]
    nothing(wrong, "functions that do not begin with the name of their file")


def test_a_header_declares_the_functions_of_its_file() -> None:
    headers = {module(file): text_of(file) for file in SOURCES if file.endswith(".h")}
    wrong = [
        f"{f.file}: {f.name}"
        for f in outside_functions()
        if not is_face(f) and not re.search(rf"\b{f.name}\(", headers.get(module(f.file), ""))
    ]
    nothing(wrong, "functions that are neither static nor declared in the header of their file")


def test_a_struct_or_enum_has_one_definition() -> None:
    places = defaultdict(set)
    for file in SOURCES:
        for name in re.findall(r"\b((?:struct|enum|union) \w+)\s*\{", without_comments(text_of(file))):
            places[name].add(file)
    nothing([f"{n}: {', '.join(sorted(files))}" for n, files in places.items() if len(files) > 1], "defined twice")


def constants(text: str) -> dict[str, str]:
    """The constants of all enums in a text, with their values as far as the text alone tells them."""
    found: dict[str, str] = {}
    for body in re.findall(r"\benum\b(?: \w+)?\s*\{([^}]*)\}", without_comments(text)):
        base, number = "", 0
        for part in re.sub(r"^\s*#.*", "", body, flags=re.M).split(","):
            match = re.fullmatch(r"\s*(\w+)\s*(?:=(.*))?", part, re.S)
            if not match:
                continue
            if match[2]:
                value = " ".join(match[2].split())
                known = re.fullmatch(r"[-+*<>() 0-9a-fx]+", value)  # digits and operators, hexadecimal too
                base, number = ("", int(eval(value))) if known else (value, 0)
            found[match[1]] = f"{base} + {number}" if base else str(number)
            number += 1
    return found


def test_a_constant_has_one_value() -> None:
    assert constants("enum { A, B = 1 << 4, C, D = A_SIZE, E };") == {
        "A": "0", "B": "16", "C": "17", "D": "A_SIZE + 0", "E": "A_SIZE + 1"
    }  # fmt: skip
    values = defaultdict(dict)
    for file in SOURCES:
        for name, value in constants(text_of(file)).items():
            values[name][file] = value
    wrong = [
        f"{name}: {', '.join(f'{value} in {file}' for file, value in found.items())}"
        for name, found in values.items()
        if len(set(found.values())) > 1
    ]
    nothing(wrong, "constants of one name with different values")


def c_files() -> list[Path]:
    return [*(CSRC / file for file in SOURCES), *sorted((ROOT / "tests" / "native").glob("*.[ch]"))]


def old_word(name: str, in_protocol: bool = True) -> str | None:
    """The given-up word that a name contains, if any."""
    if name in OTHER_MEANINGS or (name in ORDINARY and not in_protocol):
        return None
    return next((word for word in OLD_WORDS if f"_{word}_" in f"_{name.lower()}_"), None)


def test_words_that_were_given_up_are_gone() -> None:
    assert old_word("FETCH_APART") == "apart"
    assert old_word("strip") is None
    found = defaultdict(set)
    for path in c_files():
        for name in set(re.findall(r"[A-Za-z_]\w*", without_comments(path.read_text()))):
            if word := old_word(name, CSRC / "protocol" in path.parents):
                found[name, OLD_WORDS[word]].add(path.name)
    lines = [f"{n} in {', '.join(sorted(files))}: say {new}" for (n, new), files in sorted(found.items())]
    lines += [f"csrc/{file}: has a new name" for file in SOURCES if Path(file).stem in OLD_FILES]
    nothing(lines, "words that were given up")


# ---- rules ---------------------------------------------------------------------------------------------------


def test_each_rule_is_referred_to_where_it_is_implemented() -> None:
    section = re.search(r"^## The rules$(.*?)(?=^## |\Z)", (ROOT / "DESIGN.md").read_text(), re.M | re.S)
    assert section, "DESIGN.md has no section named The rules"
    rules = {int(number) for number in re.findall(r"^(?:\W*R)?(\d+)\W", section[1], re.M)}
    assert rules == set(range(1, len(rules) + 1))
    places = defaultdict(set)
    for file in SOURCES:
        for number in re.findall(r"\bR(\d+)\b", text_of(file)):
            places[int(number)].add(file)
    wrong = [f"R{number}: csrc/ never names it" for number in sorted(rules - set(places))]
    for number in sorted(set(places) - rules):
        wrong.append(f"R{number} in {', '.join(sorted(places[number]))}: DESIGN.md does not have it")
    nothing(wrong, "the rules of DESIGN.md and those that csrc/ names differ")


# ---- lengths -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("file", [f for f in SOURCES if f.endswith(".c")])
def test_functions_fit_on_a_page(file: str) -> None:
    lengths = functions(text_of(file))
    assert lengths
    assert [(name, lines) for name, lines in lengths if lines > 70] == []


@pytest.mark.parametrize("file", SOURCES)
def test_lines_fit_on_the_screen(file: str) -> None:
    assert [n for n, line in enumerate(text_of(file).splitlines(), 1) if len(line) > 120] == []


def test_files_have_at_most_600_lines() -> None:
    lengths = {file: len(text_of(file).splitlines()) for file in SOURCES}
    nothing([f"{file}: {n}" for file, n in lengths.items() if n > 600], "too long")


# ---- the tools -----------------------------------------------------------------------------------------------

LOW = """#include "low.h"
static inline int low_half(int a)
{
    return a / 2; /* high(a) is no call here */
}

int low(int (*give)(int), int a)
{
    return give(low_half(a)) + high(a);
}
"""
HIGH = """#include "low.h"
static int own(int a)
{
    return a;
}

int high(int a)
{
    return low(own, a);
}
"""


@pytest.mark.parametrize("by_text", [False, True])
def test_the_call_graph_holds_direct_calls(tmp_path: Path, by_text: bool) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "low.h").write_text("int low(int (*give)(int), int a);\nint high(int a);\n")
    (tmp_path / "csrc" / "low.c").write_text(LOW)
    (tmp_path / "csrc" / "high.c").write_text(HIGH)
    found, calls = callgraph.graph(tmp_path, by_text)
    assert {(f.name, f.file, f.static) for f in found} == {
        ("low_half", "low.c", True), ("low", "low.c", False), ("own", "high.c", True), ("high", "high.c", False)
    }  # fmt: skip
    assert sorted(map(str, calls)) == [
        "high -> low (high.c:9)", "low -> high (low.c:9)", "low -> low_half (low.c:9)"
    ]  # fmt: skip
    assert callgraph.circles(call.modules for call in calls) == [["high", "low"]]


def test_circles_are_found_and_told_apart() -> None:
    edges = [(1, 2), (2, 0), (2, 3), (3, 1), (3, 4), (4, 5), (5, 4), (5, 6), (6, 6)]
    assert callgraph.circles(edges) == [[1, 2, 3], [4, 5]]


@pytest.mark.skipif(callgraph.compiler() is None, reason="the compiler writes no call graph")
def test_the_text_shows_the_calls_that_the_compiler_sees() -> None:
    """Those between files: macros and attributes hide some calls within a file from the text."""
    compiled, read = ({call.modules for call in callgraph.graph(by_text=by_text).calls} for by_text in (False, True))
    assert read == compiled


@pytest.mark.parametrize("event", walks.EVENTS)
def test_a_walk_has_a_beginning(event: str) -> None:
    found, calls = callgraph.graph(by_text=True)
    files, _, _ = walks.walk(calls, walks.entry(found, event))
    assert len(files) > 1


def test_a_walk_counts_files_and_climbs() -> None:
    a, b, c, d = (callgraph.Function(name, f"{name}.c", False) for name in "abcd")
    calls = [
        callgraph.Call(*ends, line, 1) for line, ends in enumerate([(a, b), (b, c), (c, b), (c, a), (a, c), (d, a)])
    ]
    files, climbs, among = walks.walk(calls, a)
    assert files == ["a.c", "b.c", "c.c"]
    assert {(call.caller, call.callee) for call in climbs} == {(c, b), (c, a)}
    assert len(walks.circular(calls, among)) == len(among) == 5
