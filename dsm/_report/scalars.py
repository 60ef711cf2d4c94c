"""Finds loops that touch shared arrays one number at a time, in the text of a program."""

from __future__ import annotations

import ast
from typing import NamedTuple

MAKERS = {"zeros", "empty", "ones", "full", "array", "load", "local", "zeros_like", "empty_like"}
COMPILED = {"jit", "njit", "vectorize", "guvectorize", "stencil"}  # decorators of numba


class Loop(NamedTuple):
    """A loop of a program, and the first access in it to one element of a shared array."""

    line: int
    last_line: int
    access: str
    access_line: int
    array: str
    indices: int
    made_at: frozenset[int]  # lines that bind the array's name to a shared array


def scalar_loops(source: str) -> list[Loop]:
    """Return the outermost loops in whose body a shared array is indexed by numbers of the loops.  Local.

    A name is shared if some line of the program binds it to what a function of dsm returns.  Functions that numba
    compiles are left out: there such a loop is as fast as any.
    """
    try:
        module = ast.parse(source)
    except SyntaxError:
        return []
    shared = _shared_names(module)
    return [loop for outer in _loops(module) if (loop := _scalar_access(outer, shared))]


def _shared_names(module: ast.Module) -> dict[str, frozenset[int]]:
    """Return the names of shared arrays, each with the lines that make one."""
    names: dict[str, frozenset[int]] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and _makes_array(node.value):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names[target.id] = names.get(target.id, frozenset()) | {node.lineno}
    return names


def _makes_array(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and _dotted(value.func) in {f"dsm.{maker}" for maker in MAKERS}


def _dotted(expression: ast.expr) -> str:
    return ast.unparse(expression) if isinstance(expression, (ast.Attribute, ast.Name)) else ""


def _loops(node: ast.AST) -> list[ast.For]:
    """Return the loops that lie in no other, outside of compiled functions."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef) and any(_is_compiled(word) for word in child.decorator_list):
            continue
        if isinstance(child, ast.For) and _numbers(child):
            inner = _loops(child)
            # An outer loop over steps is not the loop that touches the elements.
            found += [child] if not inner or _indexes_by(child) else inner
        else:
            found += _loops(child)
    return found


def _is_compiled(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return _dotted(called).rpartition(".")[2] in COMPILED


def _numbers(loop: ast.For) -> set[str]:
    """Return the loop's variables that hold numbers: those of range, and the first one of enumerate."""
    if not isinstance(loop.iter, ast.Call):
        return set()
    over, target = _dotted(loop.iter.func), loop.target
    if over == "enumerate" and isinstance(target, ast.Tuple):
        target = target.elts[0]
    return {target.id} if over in ("range", "enumerate") and isinstance(target, ast.Name) else set()


def _indexes_by(loop: ast.For) -> bool:
    """Tell whether an index in the loop contains the loop's own variable."""
    own = _numbers(loop)
    return any(
        isinstance(name, ast.Name) and name.id in own
        for node in ast.walk(loop)
        if isinstance(node, ast.Subscript)
        for name in ast.walk(node.slice)
    )


def _scalar_access(loop: ast.For, shared: dict[str, frozenset[int]]) -> Loop | None:
    numbers = {name for node in ast.walk(loop) if isinstance(node, ast.For) for name in _numbers(node)}
    for node in ast.walk(loop):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id in shared
            and _is_number(node.slice, numbers)
        ):
            name = node.value.id
            indices = len(node.slice.elts) if isinstance(node.slice, ast.Tuple) else 1
            last = loop.end_lineno or loop.lineno
            return Loop(loop.lineno, last, ast.unparse(node), node.lineno, name, indices, shared[name])
    return None


def _is_number(index: ast.expr, numbers: set[str]) -> bool:
    """Tell whether an index names one element: numbers and variables of the loops, one of these at least."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    names = [node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)]
    allowed = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context)
    simple = all(isinstance(node, allowed) for part in parts for node in ast.walk(part))
    return simple and any(name in numbers for name in names)
