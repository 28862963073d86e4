"""`python -m quarterdeck stacks RUN`: where the ranks of a detached run are, from a terminal."""

from __future__ import annotations

import argparse
import sys

from quarterdeck.errors import UsageError
from quarterdeck.kernel.runs import runs


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m quarterdeck")
    verbs = parser.add_subparsers(required=True, metavar="stacks")
    stacks = verbs.add_parser("stacks", help="show where each rank of a detached run is in its code")
    stacks.add_argument("run", metavar="RUN", help="name or id of a run in this folder's run store")
    asked = parser.parse_args(arguments)
    try:
        print(runs()[asked.run].stacks())
    except (UsageError, LookupError) as error:
        print(error.args[0] if isinstance(error, LookupError) else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
