"""``python -m dsm run | report | info | doctor``."""

from __future__ import annotations

import os
import sys

from dsm import _doctor, _launch, _report
from dsm._errors import DSMError

USAGE = """\
usage: python -m dsm COMMAND

  run -n RANKS prog.py ...   run a program with the mpiexec that belongs to the MPI that mpi4py loads
  report DIR                 write DIR/report.html again, from the profile.json there
  info                       versions, MPI, settings in force and limits of this machine
  doctor                     look for every known trap and say the remedy; exit status 1 if there is one
"""


def main(arguments: list[str]) -> int:
    """Carry out one command and return its exit status.  Local."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    try:
        if name == "run":
            return _launch.run(rest)
        if name == "report" and len(rest) == 1:
            return _report.main(rest[0])
        if name == "info" and not rest:
            return _doctor.info()
        if name == "doctor" and not rest:
            return _doctor.doctor()
    except DSMError as error:
        print(f"dsm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    asked = name in ("-h", "--help", "help")
    print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
