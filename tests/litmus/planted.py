"""Take one rule out of a copy of the protocol at a time, and show which litmus programs notice.

    PYTHONPATH=tests python -P -m litmus.planted [--only WORD] [--seeds 300] [--most 3]

The faults are those of native/planted.py.  Prints for each the first programs that notice it, and how.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

from litmus import in_simulator, programs, promise
from litmus.scope import SCOPE
from native import planted, simulator


def noticed(program, placement, decisions, seeds):
    """Return how a program notices that something is wrong, or None."""
    translated = in_simulator.Translated(program, placement)
    try:
        outcomes = translated.explore(decisions)[1] | translated.sample(range(seeds))
    except simulator.Failed as failure:
        return str(failure).splitlines()[0]
    wrong = outcomes.keys() - promise.outcomes(program, translated.width)
    return f"{program.registers} = {min(wrong, key=str)}" if wrong else None


def notice(seeds, most):
    """Print a line for each program that notices the fault in these sources, until there are enough.

    Those made for one rule come first, before the shapes that everything goes through.
    """
    for program in (*programs.OWN, *(program for program in programs.PROGRAMS if program not in programs.OWN)):
        for placement, (decisions, _) in zip(program.placements, SCOPE[program.name], strict=True):
            how = noticed(program, placement, decisions, seeds)
            if how:
                print(f"{program.name}, {placement}: {how}", flush=True)
                most -= 1
                break
        if most == 0:
            return


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--here", action="store_true", help="only look for a fault in these sources")
    arguments = parser.parse_args()
    if arguments.here:
        notice(arguments.seeds, arguments.most)
        return
    for fault in planted.FAULTS:
        if arguments.only not in fault.name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tree = pathlib.Path(folder)
            planted.plant(fault, tree, "csrc", "tests/native", "tests/litmus")
            options = ["--here", f"--seeds={arguments.seeds}", f"--most={arguments.most}"]
            command = [sys.executable, "-P", "-m", "litmus.planted", *options]
            environment = os.environ | {"PYTHONPATH": str(tree / "tests"), "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        found = done.stdout.splitlines()
        if done.returncode:
            found.append(f"the simulator ended with status {done.returncode}: {done.stderr[-200:]}")
        print(fault.name, *(f"    {line[:170]}" for line in found or ["NOT CAUGHT"]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
