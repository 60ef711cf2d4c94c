"""Code of a remedy in the words of the program: its own names, its own line with other arguments."""

from __future__ import annotations

import ast

from dsm._report.profile import Json, Profile, dims, place

MAKERS = {"zeros", "empty", "ones", "full", "array", "load", "zeros_like", "empty_like"}


def variable(profile: Profile, array: Json) -> str:
    """Return the name by which the program knows an array, as far as the line that allocates it says so.  Local."""
    statement = _statement(profile, array)
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], (ast.Name, ast.Attribute)):
        return ast.unparse(statement.targets[0])
    name = str(array["name"])
    return name if name.isidentifier() else "a"


def allocation(profile: Profile, array: Json, **keywords: int | str) -> str:
    """Return the line that allocates an array, with other keywords, and where it stands.  Local."""
    statement = _statement(profile, array)
    call = statement.value if isinstance(statement, ast.Assign) else None
    where = f"  # {place(profile.site(array['allocated_at']))}"
    if not isinstance(call, ast.Call) or ast.unparse(call.func).rpartition(".")[2] not in MAKERS:
        more = "".join(f", {key}={value!r}" for key, value in keywords.items())
        return f"dsm.zeros({dims(array)}, {array['dtype']!r}{more}){where}"
    call.keywords = [word for word in call.keywords if word.arg not in keywords]
    call.keywords += [ast.keyword(key, ast.Constant(value)) for key, value in keywords.items()]
    return ast.unparse(statement or call) + where


def _statement(profile: Profile, array: Json) -> ast.stmt | None:
    """Return the statement that allocates the array, if it stands on one line."""
    site = profile.site(array["allocated_at"])
    try:
        return ast.parse(site["source"]).body[0] if site else None
    except (SyntaxError, IndexError):
        return None
