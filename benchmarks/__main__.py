"""`python -m benchmarks micro`: the table of what single operations cost."""

import sys

from benchmarks.micro import launch


def main() -> int:
    """Choose the benchmark that the first word names.  Local."""
    if sys.argv[1:2] != ["micro"]:
        print("usage: python -m benchmarks micro [--help]", file=sys.stderr)
        return 2
    return launch.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
