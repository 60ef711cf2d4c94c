"""The static call graph of csrc/: which function calls which directly, and in which file each is defined.

GCC writes it (-fcallgraph-info); another compiler leaves it to a reading of the text, which knows no macros.  A call
through a pointer (the port) is in neither: it is how a lower layer reaches a higher one without knowing it.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
OWN_LIBRARY = "preload/"  # nothing else is linked with it; it defines pthread_sigmask for others to find
FLAGS = "-std=c11 -pthread -O0 -w -fkeep-inline-functions -DDSM_FOR_MPICH -I. -c -fcallgraph-info".split()


class Function(NamedTuple):
    """A function that csrc/ defines; the file is relative to csrc/."""

    name: str
    file: str
    static: bool


class Call(NamedTuple):
    """A direct call from one function of csrc/ to another, and where in the caller's file it is written."""

    caller: Function
    callee: Function
    line: int
    column: int

    @property
    def modules(self):
        """The modules of the caller and of the function that it calls."""
        return module(self.caller.file), module(self.callee.file)

    def __str__(self):
        return f"{self.caller.name} -> {self.callee.name} ({self.caller.file}:{self.line})"


class Graph(NamedTuple):
    """All functions of csrc/ and all direct calls between them."""

    functions: list[Function]
    calls: list[Call]


def sources(root=ROOT, suffixes=".[ch]"):
    """List the C files below csrc/, relative to it."""
    csrc = pathlib.Path(root) / "csrc"
    return sorted(path.relative_to(csrc).as_posix() for path in csrc.rglob(f"*{suffixes}"))


def module(file):
    """Name the pair of name.c and name.h, which count as one."""
    return file.rsplit(".", 1)[0]


def without_comments(text):
    """Blank comments and strings out; lines and columns stay."""
    return re.sub(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def includes(root=ROOT):
    """Map each C file to the files of csrc/ that it includes by a name in quotes."""
    csrc = pathlib.Path(root) / "csrc"
    found = {}
    for file in sources(root):
        names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', (csrc / file).read_text(), re.M)
        bases = [next((b for b in (csrc, (csrc / file).parent) if (b / name).is_file()), None) for name in names]
        found[file] = [(b / n).relative_to(csrc).as_posix() for b, n in zip(bases, names, strict=True) if b]
    return found


# ---- GCC -----------------------------------------------------------------------------------------------------


def compiler():
    """Return the compiler's command if it writes call graphs, else None."""
    command = shlex.split(os.environ.get("CC", "cc"))
    probe = [*command, "-fcallgraph-info", "-x", "c", "-E", "/dev/null"]
    try:
        return command if subprocess.run(probe, capture_output=True, check=False).returncode == 0 else None
    except OSError:
        return None


def _compiled(command, csrc, file, folder):
    """Compile one source.  Return its functions by title, and its calls as titles, line and column."""
    output = pathlib.Path(folder) / file.replace("/", "-")
    done = subprocess.run(
        [*command, *FLAGS, "-o", f"{output}.o", file], cwd=csrc, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{file} does not compile, so its calls are unknown:\n{done.stderr}")
    text = next(pathlib.Path(folder).glob(f"{output.name}*.ci")).read_text()
    defined = {}
    for title, name, place, shape in re.findall(
        r'^node: \{ title: "([^"]+)" label: "(\w+)\\n([^":]+):[^"]*"( shape)?', text, re.M
    ):
        if not shape and not place.startswith("/"):
            defined[title] = Function(name, os.path.normpath(place), ":" in title)
    calls = re.findall(
        r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)" label: "[^"]+:(\d+):(\d+)" \}', text, re.M
    )
    return defined, [call for call in calls if call[0] in defined]


def _by_compiler(command, root):
    csrc = pathlib.Path(root) / "csrc"
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        units = list(pool.map(lambda file: _compiled(command, csrc, file, folder), sources(root, ".c")))
    functions = {function for defined, _ in units for function in defined.values()}
    outside = {f.name: f for f in functions if not f.static and not f.file.startswith(OWN_LIBRARY)}
    calls = set()
    for defined, edges in units:
        for caller, callee, line, column in edges:
            target = defined.get(callee) or outside.get(callee)
            if target:
                calls.add(Call(defined[caller], target, int(line), int(column)))
    return Graph(sorted(functions), sorted(calls))


# ---- the text ------------------------------------------------------------------------------------------------


def _bodies(text):
    """Yield each function's name, whether it is static, and the offsets of its body: from { to } at the margin."""
    head = r"^(?!typedef|return|else)([a-z_][\w *]*?\b)(\w+)\([^;{}]*\)[^;{}()]*\n\{\n(.*?)^\}"
    for match in re.finditer(head, text, re.M | re.S):
        yield match[2], "static" in match[1].split(), match.start(3), match.end(3)


def _by_text(root):
    texts = {file: without_comments((pathlib.Path(root) / "csrc" / file).read_text()) for file in sources(root)}
    texts = {file: re.sub(r"^\s*#.*", lambda m: " " * len(m[0]), text, flags=re.M) for file, text in texts.items()}
    own = {file: {name: Function(name, file, static) for name, static, *_ in _bodies(texts[file])} for file in texts}
    functions = {function for names in own.values() for function in names.values()}
    outside = {
        f.name: f for f in functions if (not f.static or f.file.endswith(".h")) and not f.file.startswith(OWN_LIBRARY)
    }
    calls = set()
    for file, text in texts.items():
        for name, _, begin, end in _bodies(text):
            for match in re.finditer(r"(?<![\w.>])(\w+)\s*\(", text[begin:end]):
                target = own[file].get(match[1]) or outside.get(match[1])
                if target:
                    place = begin + match.start()
                    line = text.count("\n", 0, place) + 1
                    calls.add(Call(own[file][name], target, line, place - text.rfind("\n", 0, place)))
    return Graph(sorted(functions), sorted(calls))


# ---- what is asked -------------------------------------------------------------------------------------------


@functools.cache
def graph(root=ROOT, by_text=False):
    """Return the call graph of the sources below root/csrc, from the last time if they are as they were then."""
    command = None if by_text else compiler()
    if command is None:
        return _by_text(root)
    digest = hashlib.sha256(repr(command).encode() + pathlib.Path(__file__).read_bytes())
    for file in sources(root):
        digest.update(file.encode() + (pathlib.Path(root) / "csrc" / file).read_bytes())
    kept = ROOT / "build" / "tests" / f"callgraph-{digest.hexdigest()[:16]}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        written = kept.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(_by_compiler(command, root)))
        written.replace(kept)
    functions, calls = json.loads(kept.read_text())
    return Graph(
        [Function(*f) for f in functions], [Call(Function(*a), Function(*b), *place) for a, b, *place in calls]
    )


def circles(edges):
    """Return the strongly connected sets of more than one vertex (Tarjan 1972), largest first."""
    after = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)
        after.setdefault(b, set())
    index, low, stack, found = {}, {}, [], []

    def visit(vertex):
        index[vertex] = low[vertex] = len(index)
        stack.append(vertex)
        for other in sorted(after[vertex]):
            if other not in index:
                visit(other)
            if other in stack:
                low[vertex] = min(low[vertex], low[other])
        if low[vertex] == index[vertex]:
            place = stack.index(vertex)
            if len(stack) > place + 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for vertex in sorted(after):
        if vertex not in index:
            visit(vertex)
    return sorted(found, key=len, reverse=True)
