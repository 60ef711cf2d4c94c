"""How far each litmus program is explored: (decisions that are tried in all ways, schedules), one for each placement.

0 decisions stands for all of them: every schedule.  The numbers were measured; a test compares, so that a scope that
shrinks is noticed.  After a change of the protocol or of a program, make the table again:

    PYTHONPATH=tests python -P -m litmus.scope [RUNS]

which takes as many decisions as fit RUNS runs (1000), counting those that the explorer gives up as redundant.
"""

import sys

from litmus.in_simulator import Translated
from litmus.programs import PROGRAMS

RUNS = 1000
SCOPE: dict[str, tuple[tuple[int, int], ...]] = {}


def measure(translated, runs):
    """Return the deepest scope that fits."""
    found = translated.simulated.explore(limit=runs, depth=0)
    if not found.limited and found.schedules + found.redundant <= runs:
        return 0, found.schedules
    scope = (1, 1)
    for depth in range(2, 100):
        found = translated.simulated.explore(limit=runs, depth=depth)
        if found.limited or found.schedules + found.redundant > runs:
            break
        scope = (depth, found.schedules)
    return scope


def main():
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    print("SCOPE = {")
    for program in PROGRAMS:
        scopes = tuple(measure(Translated(program, placement), runs) for placement in program.placements)
        print(f'    "{program.name}": {scopes},', flush=True)
    print("}")


if __name__ == "__main__":
    main()
