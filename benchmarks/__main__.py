"""`make bench`: measure all rows, or those named, print the table and (with all) write it into README.md."""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks import cells, faults, functions, startup
from benchmarks.notebook import Notebook
from benchmarks.table import Line, markdown, write

README = Path(__file__).with_name("README.md")
FRESH: dict[str, Callable[[], list[Line]]] = {
    "load_ext": lambda: startup.load_ext(kernels=5),
    "cold": lambda: startup.cold(starts=4),
    "kernel_death": lambda: faults.kernel_death(kernels=3),
}
"""Rows that start kernels of their own."""
SHARED: dict[str, Callable[[Notebook], list[Line]]] = {
    "trivial": lambda notebook: cells.trivial(notebook, cells=200, repeats=3),
    "prints": lambda notebook: cells.prints(notebook, lines=40),
    "first_cell": lambda notebook: startup.first_cell(notebook, starts=7, spawns=3),
    "first_ddp": lambda notebook: startup.first_ddp(notebook, starts=7, processes=3),
    "memory": lambda notebook: cells.memory(notebook, groups=3),
    "interrupts": lambda notebook: faults.interrupts(notebook, repeats=7),
    "errors": lambda notebook: faults.errors(notebook, repeats=7),
    "calls": lambda notebook: functions.calls(notebook, repeats=11, launches=5),
    "history": lambda notebook: functions.history(notebook, runs=1000, repeats=11),
    "tensors": lambda notebook: cells.tensors(notebook, repeats=3),
    "results": lambda notebook: functions.results(notebook, repeats=9),
}
"""Rows that share a kernel with a warm zygote; those that import torch into the kernel are last."""


class Table:
    """The lines so far. A row that fails is a line too, and the others go on."""

    def __init__(self, names: list[str]) -> None:
        self.lines: list[Line] = []
        self.failed = False
        self._names = names

    def add(self, name: str, measure: Callable[[], list[Line]]) -> None:
        if name not in self._names:
            return
        began_s = time.monotonic()
        print(f"{name} (load average {os.getloadavg()[0]:.1f})", flush=True)
        try:
            lines = measure()
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            lines = [Line(name, f"failed: {type(error).__name__}")]
        self.lines += lines
        for line in lines:
            print("   ", " | ".join(filter(None, line)), flush=True)
        print(f"    {time.monotonic() - began_s:.0f} s", flush=True)


def main() -> int:
    known = [*FRESH, *SHARED]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"some of: {', '.join(known)} (all)")
    names = parser.parse_args().rows or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such row: {', '.join(unknown)}")
    as_installed()
    began_s, load = time.monotonic(), os.getloadavg()
    table = Table(names)
    table.add("load_ext", FRESH["load_ext"])
    if any(name in SHARED for name in names):
        with Notebook() as notebook:
            notebook.run("%load_ext quarterdeck")
            notebook.wait_until_warm()
            for name, measure in SHARED.items():
                table.add(name, lambda measure=measure: measure(notebook))  # type: ignore[misc]
    for name in ("kernel_death", "cold"):
        table.add(name, FRESH[name])
    text = f"{conditions(load, time.monotonic() - began_s)}\n\n{markdown(table.lines)}"
    print(f"\n{text}")
    if names == known and not table.failed:
        write(README, text)
        print(f"\nwritten into {README}")
    return int(table.failed)


def as_installed() -> None:
    """With bytecode, as pip writes it: without, every process would compile our modules anew."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    package = find_spec("quarterdeck")
    assert package is not None
    assert package.origin is not None
    compileall.compile_dir(Path(package.origin).parent, quiet=1)


def conditions(load: tuple[float, float, float], took_s: float) -> str:
    return (
        f"{time.strftime('%Y-%m-%d')}: torch {version('torch')}, Python {platform.python_version()}, "
        f"Linux {platform.release()}, {os.cpu_count()} cores, load average {load[0]:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after; the whole run took {took_s:.0f} s."
    )


if __name__ == "__main__":
    sys.exit(main())
