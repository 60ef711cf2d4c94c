"""The house rules for dsm/ that a machine can check: layers without a circle, docstrings, the length of functions."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "dsm").rglob("*.py"))
BODY_LINES_MAX = 50  # of a function, without its docstring


def name_of(path: Path) -> str:
    """The name of a module below dsm: "_runtime", "_profile.merge", "_profile.__init__"."""
    return ".".join(path.relative_to(ROOT / "dsm").with_suffix("").parts)


MODULES = {name_of(path) for path in SOURCES}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(module: ast.Module) -> set[str]:
    """Modules of dsm that a module imports, anywhere in it; a public name of the package stands for `__init__`."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[2] or "__init__" for alias in node.names if is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom) and is_ours(node.module or ""):
            inside = (node.module or "").partition(".")[2]
            package = f"{inside}." if inside else ""
            names = {package + alias.name if package + alias.name in MODULES else None for alias in node.names}
            found |= {name or (inside if inside in MODULES else f"{package}__init__") for name in names}
    return found


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "dsm"


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_imports_form_layers() -> None:
    graph = {name_of(path): imported(tree(path)) for path in SOURCES}
    assert "_runtime" in graph["_creation"], "the test does not see imports"
    assert {name for names in graph.values() for name in names} <= MODULES
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"modules of dsm import each other in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_are_absolute_and_at_the_top(path: Path) -> None:
    """An import of dsm inside a function is how circles begin; imports of other packages may be late for their cost."""
    for function in functions(path):
        assert not imported(ast.Module(body=function.body, type_ignores=[])), function.name
    assert not [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_why_it_exists(path: Path) -> None:
    first = (ast.get_docstring(tree(path)) or "").split("\n\n")[0]
    assert len(first.split()) >= 3
    assert first.endswith((".", ":"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_say_on_how_many_ranks_they_are_called(path: Path) -> None:
    """Functions and methods that other modules call, and the classes that users make."""
    module = tree(path)
    classes = [node for node in module.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    scopes: list[ast.Module | ast.ClassDef] = [module, *classes]
    called = [node for scope in scopes for node in scope.body if isinstance(node, ast.FunctionDef)]
    assert [
        node.name
        for node in called
        if not node.name.startswith("_")
        and not any(isinstance(word, ast.Name) and word.id == "property" for word in node.decorator_list)
        and not any(f"  {word}." in in_one_line(node) for word in ("Local", "Collective"))
    ] == []


def in_one_line(node: ast.FunctionDef) -> str:
    """The docstring, with Local. or Collective. after two blanks wherever a line ends before it."""
    return (ast.get_docstring(node) or "").replace("\n", "  ")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    lengths = {function.name: lines_of(function) for function in functions(path)}
    assert {name: lines for name, lines in lengths.items() if lines > BODY_LINES_MAX} == {}


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    return lines - ((first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0)
