"""Rows that measure in one process of their own: `python -m benchmarks.NAME` prints them, and calls itself,
with the number of repeats, in a folder that is gone afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.table import Line, markdown


def measured(module: str, repeats: int, limit_s: float) -> Any:
    """What `measure` of that module gives, in a process that does nothing else."""
    command = [sys.executable, "-m", module, str(repeats)]
    done = subprocess.run(command, check=True, timeout=limit_s, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(measure: Callable[[int], Any], lines: Callable[[], list[Line]]) -> None:
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(json.dumps(measure(int(sys.argv[1]))))
            os.chdir(Path(__file__).parent)
        return
    print(markdown(lines()))
