"""Where objects are held, as far as Python can tell: for the error of a `free` that other arrays stand in the way of.

The garbage collector does not know NumPy's arrays, so it cannot be asked what refers to one.  What does is found from
the other end: from all modules, and the functions that run in any thread, through all that the collector sees in them.
The shortest way gives the name.  No code of the program runs meanwhile: no attribute is asked for, and no `repr` but
that of plain keys.
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
HOLDS = 1 << 14  # Py_TPFLAGS_HAVE_GC: what has it not, a number say, leads nowhere
ONLY_THE_FRAME = 3  # references to a dict that nobody else has: its own, the variable, the argument


def holders(wanted: Callable[[object], bool], most: int) -> list[str]:
    """Say by which way at most so many objects are reached.  Local.

    Parameters
    ----------
    wanted : callable
        Tells whether it is one of the objects.
    most : int
        Ends the search.

    Returns
    -------
    list of str
        As `module.variable[0].attribute`, or `variable in function() (file:line)`.
    """
    found: list[str] = []
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    roots = [*modules, *_running({id(_namespace(module)) for module in modules})]
    reached_from: dict[int, object] = dict.fromkeys(map(id, roots))  # also keeps what is under way from ending
    queue = deque[object](roots)
    while queue and len(found) < most and len(reached_from) < SEARCHED_MAX:
        holder = queue.popleft()
        held = _variables(holder).values() if type(holder) is FrameType else gc.get_referents(holder)
        for thing in held:
            if id(thing) in reached_from:
                continue
            if wanted(thing):
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
    return frames  # and this function's own frame, which would keep itself and its callers, is in no variable


def _variables(frame: FrameType) -> Mapping[str, object]:
    seen = frame.f_locals
    variables = dict(seen)
    # Until Python 3.12 the frame of a function keeps what was made for this question, and so all that is in it.
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
