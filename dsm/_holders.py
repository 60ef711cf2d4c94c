"""Variables through which Python reaches an object: for the error of `free` when other arrays are alive.

The garbage collector does not track NumPy arrays, so `gc.get_referrers` cannot find their holders.  The search goes the
other way: it starts at all modules and at the functions that run in any thread, and follows every reference that the
collector sees.  The shortest path becomes the name.  The search runs no code of the program: it reads no attributes,
and calls `repr` for plain keys only.
"""

from __future__ import annotations

import gc
import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import CellType, FrameType, MemberDescriptorType, ModuleType
from typing import Any

from dsm._frames import is_own, place_of

SEARCHED_MAX = 1 << 20  # objects; about a second
NAME_CHARACTERS_MAX = 200
HOLDS = 1 << 14  # Py_TPFLAGS_HAVE_GC: an object without it, such as a number, refers to nothing
ONLY_THE_FRAME = 3  # references to a dict that only a frame has: its own, the variable, the argument


def holders(is_sought: Callable[[object], bool], most: int) -> list[str]:
    """Name the variables that lead to some objects.  Local.

    Parameters
    ----------
    is_sought : callable
        Tells whether an object is one of those to find.
    most : int
        The search ends after so many objects.

    Returns
    -------
    list of str
        As `module.variable[0].attribute`, or `variable in function() (file:line)`.
    """
    found: list[str] = []
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    roots = [*modules, *_running({id(_namespace(module)) for module in modules})]
    reached_from: dict[int, object] = dict.fromkeys(map(id, roots))  # also keeps objects under way alive
    queue = deque[object](roots)
    while queue and len(found) < most and len(reached_from) < SEARCHED_MAX:
        holder = queue.popleft()
        held = _variables(holder).values() if type(holder) is FrameType else gc.get_referents(holder)
        for thing in held:
            if id(thing) in reached_from:
                continue
            if is_sought(thing):
                reached_from[id(thing)] = holder
                found.append(_way_to(thing, reached_from)[:NAME_CHARACTERS_MAX])
            elif type(thing).__flags__ & HOLDS:
                reached_from[id(thing)] = holder
                queue.append(thing)
    return found[:most]


def _running(namespaces_of_modules: set[int]) -> list[FrameType]:
    frames = []
    innermost = list(sys._current_frames().values())
    while innermost:
        frame: FrameType | None = innermost.pop()
        while frame is not None:
            function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
            if not is_own(frame) and (function or id(frame.f_locals) not in namespaces_of_modules):
                frames.append(frame)
            frame = frame.f_back
    return frames  # this function's own frame must stay out: it would keep itself and its callers alive


def _variables(frame: FrameType) -> Mapping[str, object]:
    seen = frame.f_locals
    variables = dict(seen)
    # Until Python 3.12 the frame of a function keeps the dict made by f_locals, and so all objects in it.
    if type(seen) is dict and frame.f_code.co_flags & inspect.CO_OPTIMIZED and sys.getrefcount(seen) == ONLY_THE_FRAME:
        seen.clear()
    return variables


def _namespace(thing: object) -> dict[str, object]:
    try:
        namespace: dict[str, object] = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return {}
    return namespace


def _way_to(thing: object, reached_from: Mapping[int, Any]) -> str:
    steps = ""
    while (holder := reached_from[id(thing)]) is not None:
        if type(holder) is FrameType:
            name = next((name for name, value in _variables(holder).items() if value is thing), "a value")
            return f"{name}{steps} in {holder.f_code.co_qualname}() ({place_of(holder)})"
        steps = _step(holder, thing, reached_from[id(holder)]) + steps
        thing = holder
    return f"{_namespace(thing).get('__name__')}{steps}"


def _step(holder: Any, thing: object, above: object) -> str:
    kind = type(holder)
    if issubclass(kind, dict):
        key = next((key for key, value in dict.items(holder) if value is thing), None)
        if holder is _namespace(above) or issubclass(type(above), type):
            return f".{key}"
        return f"[{key!r}]" if type(key) in (str, int, bytes) else "[...]"
    if issubclass(kind, (list, tuple)):
        return f"[{next((index for index, value in enumerate(holder) if value is thing), '...')}]"
    if thing is _namespace(holder) or (issubclass(kind, type) and type(thing) is dict):
        return ""
    if kind is CellType:
        return ".cell_contents"
    names = (name for name, value in _attributes(holder) if value is thing)
    return f".{name}" if (name := next(names, None)) else f"<{kind.__name__}>"


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    yield from _namespace(thing).items()
    for kind in type(thing).__mro__:
        for name, member in vars(kind).items():
            if type(member) is MemberDescriptorType:
                try:
                    yield name, member.__get__(thing)
                except AttributeError:
                    continue
