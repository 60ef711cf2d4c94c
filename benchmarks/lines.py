"""Counts the code lines that a version of an application needs beyond the kernel and what serial has as well.

Counted are the functions and classes of the application's file that the version reaches by name.  Left out are those
that serial reaches too, compiled kernels, and of the rest blank lines, comments and docstrings.
"""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Callable
from typing import Any

from benchmarks.app import App

Definition = ast.FunctionDef | ast.ClassDef
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(app: App, version: str) -> int:
    """Return the code lines of ``serial`` as they are, and of another version beyond what serial has."""
    first = _function(getattr(app, version))
    source = inspect.getsource(sys.modules[first.__module__])
    definitions = {node.name: node for node in ast.parse(source).body if isinstance(node, Definition)}
    shared = set() if version == "serial" else _reached(_function(app.serial).__name__, definitions)
    code = _code_lines(source)
    counted: set[int] = set()
    for name in _reached(first.__name__, definitions) - shared:
        node = definitions[name]
        if not _is_kernel(node):
            counted |= code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            counted -= _docstring_lines(node)
    return len(counted)


def _function(version: Callable[..., Any]) -> Any:
    """Return the function behind a partial one."""
    while hasattr(version, "func"):
        version = version.func
    return version


def _is_kernel(node: Definition) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "kernel" for part in node.decorator_list)


def _reached(first: str, definitions: dict[str, Definition]) -> set[str]:
    """Return the names of all definitions that `first` uses, directly or not, and its own."""
    found, left = set(), [first]
    while left:
        name = left.pop()
        if name in found or name not in definitions:
            continue
        found.add(name)
        left += [node.id for node in ast.walk(definitions[name]) if isinstance(node, ast.Name)]
    return found


def _docstring_lines(node: Definition) -> set[int]:
    """Return the lines of the docstrings of a definition and of those inside it."""
    lines: set[int] = set()
    for part in ast.walk(node):
        if isinstance(part, Definition) and ast.get_docstring(part) is not None:
            text = part.body[0]
            lines |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def _code_lines(source: str) -> set[int]:
    """Return the lines on which there is something other than blanks and comments."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines
