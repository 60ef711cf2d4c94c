"""How far each event walks through the protocol, and how often it climbs back up: read from the static call graph.

    python tests/walks.py                       # of this checkout
    python tests/walks.py --root DIR            # of another one, an older commit for example
    python tests/walks.py --list barrier        # the files in the order of the walk, and each climb

A walk starts at the function in which the node takes an event in, and follows direct calls depth first, in the order in
which they are written, into each function once.  It ends at node_settle: that is the way out of every event, and what
the node has left to do there belongs to no event in particular.

- Files entered: those that define a function of the walk, headers with inline functions among them.
- Climbs: pairs of a function and another file which the walk entered before the function's own file, where the function
  calls the file.  A reader who follows along goes back to a file that was already put away.  A call down to a common
  tool counts as well: memory, vectors, the panic of an assert.
- Circular: calls of the walk between files that call each other in a circle (name.c and name.h are one).  No order of
  reading helps there.

Before the protocol had layers (commit 2d12707) files and climbs were: fault 19 / 83, barrier 22 / 304, hand-over (the
release that grants the lock to the next node) 18 / 41, grant (as it arrives) 20 / 139, push 17 / 69.  Calls are read
from the text, so that an old checkout needs neither its compiler nor its MPI.
"""

import argparse
import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))  # python -P does not do it

from native import callgraph

# Where an event begins: the first of these functions that the checkout has.
EVENTS = {
    "fault": ("access_fault", "node_fault"),
    "barrier": ("departure_receive", "meeting_receive_depart"),
    "hand-over": ("lock_release",),
    "grant": ("grant_receive", "lock_receive_grant"),
    "push": ("update_receive_push", "pushed_receive", "push_receive"),
}
END = "node_settle"


def entry(functions, event):
    """Find the function in which an event begins."""
    for name in EVENTS[event]:
        for function in functions:
            if function.name == name:
                return function
    raise LookupError(f"{event}: no function is named {' or '.join(EVENTS[event])}; add the new name to EVENTS")


def walk(calls, start):
    """Return the files in the order in which they are entered, one call for each climb, and all calls of the walk."""
    after = collections.defaultdict(list)
    for call in sorted(calls, key=lambda call: (call.line, call.column)):
        after[call.caller].append(call)
    functions, files = {}, {}  # both in the order of the walk
    left = [start]
    while left:
        function = left.pop()
        if function in functions:
            continue
        functions[function] = [] if function.name == END else after[function]
        files.setdefault(function.file, len(files))
        left += [call.callee for call in reversed(functions[function])]
    climbs = {}
    for function, made in functions.items():
        for call in made:
            if files[call.callee.file] < files[function.file]:
                climbs.setdefault((function, call.callee.file), call)
    return list(files), list(climbs.values()), [call for made in functions.values() for call in made]


def circular(calls, among):
    """Select the calls of the walk between files that lie in one circle of calls."""
    found = callgraph.circles(call.modules for call in calls)
    return [call for call in among if len({*call.modules}) == 2 and any({*call.modules} <= {*files} for files in found)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--root", type=pathlib.Path, default=callgraph.ROOT, help="a checkout; this one by default")
    parser.add_argument("--list", choices=EVENTS, help="print the files and the climbs of one event")
    options = parser.parse_args()
    functions, calls = callgraph.graph(options.root, by_text=True)
    if not functions:
        sys.exit(f"{options.root} has no C sources in csrc/: give the top directory of a checkout")
    print(f"{'event':<10} {'begins in':<44} {'files':>5} {'climbs':>6} {'circular':>8}")
    for event in [options.list] if options.list else EVENTS:
        start = entry(functions, event)
        files, climbs, among = walk(calls, start)
        counts = f"{len(files):>5} {len(climbs):>6} {len(circular(calls, among)):>8}"
        print(f"{event:<10} {f'{start.name} ({start.file})':<44} {counts}")
        if options.list:
            print("\nFiles entered:", *files, sep="\n  ")
            print("\nClimbs:", *climbs, sep="\n  ")


if __name__ == "__main__":
    main()
