"""constraints.txt and what an environment holds: run with that environment's Python, as `make` does.

write: make the file anew from this environment
check: fail if this environment holds anything in another version, or anything that is not pinned
drift: show what differs, and succeed
file:  print which file an installation with this Python takes its pins from
"""

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "constraints.txt"
DECIDED = ROOT / "constraints.in"
MADE_FOR = (3, 11)
# quarterdeck is what is developed. pip comes with Python, and no requirement brings it.
NOT_BROUGHT = {"quarterdeck", "pip"}
# Only a CUDA build of torch brings these. It names their versions, and a CPU build must give the same file.
OF_CUDA = re.compile(r"nvidia-(?!ml-py)|cuda-|triton$")
HEADER = """\
# Every package that development and CI install, direct and indirect, each in one version.
# Made by `make constraints`; do not edit. It is for Python 3.11. Another one may refuse some of these:
# with it, `make setup` pins only what constraints.in does.
# It was made with a CPU build of torch. The pin fits CUDA builds, too, which bring packages of their own in
# versions that they name.
"""


def held() -> dict[str, str]:
    """What this environment holds. `+cpu` and the like are left out: a pin without fits every build."""
    found = {
        re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(): each.version.partition("+")[0]
        for each in distributions()
    }
    return {
        name: found[name] for name in sorted(found) if name not in NOT_BROUGHT and not OF_CUDA.match(name)
    }


def pinned() -> dict[str, str]:
    lines = [line for line in PINS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def drift() -> list[tuple[str, str, str]]:
    """(package, pinned, here), where they differ."""
    here, pins = held(), pinned()
    return [
        (name, pins.get(name, "-"), here.get(name, "-"))
        for name in sorted(here | pins)
        if pins.get(name) != here.get(name)
    ]


def table(rows: list[tuple[str, str, str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    order = sys.argv[1] if len(sys.argv) == 2 else ""
    if order == "write":
        lines = [f"{name}=={version}\n" for name, version in held().items()]
        PINS.write_text(HEADER + "".join(lines), encoding="utf-8")
        print(f"{PINS.name}: {len(lines)} packages")
    elif order == "file":
        print((PINS if sys.version_info[:2] == MADE_FOR else DECIDED).name)
    elif order == "drift":
        rows = drift()
        print(f"{len(rows)} of {len(held())} packages are not as in {PINS.name}")
        if rows:
            print(table([("package", "pinned", "here"), *rows]))
    elif order == "check":
        if sys.version_info[:2] != MADE_FOR:
            print(f"{PINS.name} is for Python {MADE_FOR[0]}.{MADE_FOR[1]}, and this is another: not compared")
        elif rows := drift():
            print(f"{sys.prefix} does not hold what {PINS.name} pins:", file=sys.stderr)
            print(table([("package", "pinned", "here"), *rows]), file=sys.stderr)
            print("After a change of requirements: make constraints. Else: make clean setup", file=sys.stderr)
            return 1
        else:
            print(f"all {len(pinned())} packages are as in {PINS.name}")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
