"""Measure one tool. Runs as a process of its own, in its own PID and network namespaces."""

import argparse
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.drivers import DRIVERS, Driver
from benchmarks.peers.kernel import Kernel, Ran

N = 2
COLD_STARTS = 3
WARM_CELLS = 60
PUSHES = 3
START_LIMIT_S = 90.0
FAULT_LIMIT_S = 20.0
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1

Figures = dict[str, Any]

COLLECTIVE = "import torch, torch.distributed as dist\ndist.all_reduce(torch.ones(1))\n"
PRINTS = (
    "import time\n"
    "for _ in range(12):\n"
    "    print(f'T{rank}:{time.time_ns()}.', flush=True)\n"
    "    time.sleep(0.25)"
)
RAISES = f"if rank == 1:\n    raise ValueError('boom')\n{COLLECTIVE}"
DIES_AFTER_S = 0.5
DIES = (
    f"import os, time\ntime.sleep({DIES_AFTER_S})\nif rank == 1:\n    os.kill(os.getpid(), 9)\ntime.sleep(60)"
)
KILLED = r"SIGKILL|signal 9|code[ =]-9"


class Session:
    """A kernel with its ranks started, and a way to know what really ran on them."""

    def __init__(self, kernel: Kernel, driver: Driver, folder: Path) -> None:
        self.kernel = kernel
        self.driver = driver
        self._folder = folder
        self._cells = 0

    def start(self) -> float:
        """Start the ranks; when (time.time()) the first user code had run on all of them.

        One tool loses its first cell now and then, so the cell is tried three times.
        """
        for cell in self.driver.start(N):
            self.kernel.run(cell, START_LIMIT_S)
        join = self.driver.join(N, self._folder)
        for _ in range(3):
            times = self.on_ranks(join + COLLECTIVE, START_LIMIT_S)[1]
            if len(times) == N:
                return max(times)
        raise RuntimeError(f"{self.driver.name}: the first cell never ran on {N} ranks")

    def on_ranks(self, code: str, limit_s: float) -> tuple[Ran, list[float]]:
        """Run a cell; its course, and the moments at which each rank reached its end."""
        self._cells += 1
        proof = self._folder / f"proof{self._cells}"
        proof.mkdir()
        tail = (
            "\nimport time\n"
            f"with open({str(proof)!r} + f'/{{rank}}', 'w') as proof:\n"
            "    _ = proof.write(repr(time.time()))"
        )
        ran = self.kernel.run(self.driver.run_cell(code + tail), limit_s)
        return ran, [float(path.read_text()) for path in proof.iterdir() if path.stat().st_size]


@contextmanager
def session(driver: Driver, python: str) -> Iterator[Session]:
    with tempfile.TemporaryDirectory(prefix="qd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Kernel(driver, python, folder, N) as kernel:
            yield Session(kernel, driver, folder)


def import_torch_s(python: str) -> float:
    began = time.perf_counter()
    subprocess.run([python, "-c", "import torch"], check=True, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def cold_start(driver: Driver, python: str) -> Figures:
    import_s = import_torch_s(python)
    began = time.time()
    with session(driver, python) as started:
        took_s = started.start() - began
    return {"import_s": import_s, "took_s": took_s, "ratio": took_s / import_s}


def warm_cells(started: Session) -> Figures:
    """A trivial cell on the ranks and an ordinary one, in turn."""
    figures: Figures = {"ranks_ms": [], "ordinary_ms": []}
    for _ in range(WARM_CELLS):
        ran = started.kernel.run(started.driver.run_cell("x = rank"), FAULT_LIMIT_S)
        figures["ranks_ms"].append(_ms(ran))
        if started.driver.has_notebook:
            figures["ordinary_ms"].append(_ms(started.kernel.run("x = 0", FAULT_LIMIT_S)))
    return figures


def print_latency(started: Session) -> Figures:
    ran = started.kernel.run(started.driver.run_cell(PRINTS), FAULT_LIMIT_S)
    seen: dict[str, float] = {}
    for arrived_s, text in ran.messages:
        for token in re.findall(r"T\d:\d+", text):
            seen.setdefault(token, 1000 * (arrived_s - int(token.split(":")[1]) / 1e9))
    return {"latency_ms": sorted(seen.values())}


def push(started: Session) -> Figures | None:
    """256 MiB to both ranks, a new tensor every time, beside one copy of it in memory."""
    line = started.driver.push("big")
    if line is None or not started.driver.has_notebook:
        return None
    figures: Figures = {"push_s": [], "copy_s": []}
    for i in range(PUSHES):
        started.kernel.run(f"import torch\nbig = torch.full((64 << 20,), {i}.0)", START_LIMIT_S)
        figures["copy_s"].append(started.kernel.run("_ = big.clone()", START_LIMIT_S).took_s)
        figures["push_s"].append(started.kernel.run(line, START_LIMIT_S).took_s)
        check = f"assert big.numel() == 64 << 20 and big[-1].item() == {i}"
        if len(started.on_ranks(check, START_LIMIT_S)[1]) != N:
            raise RuntimeError(f"{started.driver.name}: the tensor did not arrive")
    return figures


def fault(driver: Driver, python: str, code: str, message: str, after_s: float = 0.0) -> Figures:
    """A cell in which rank 1 fails after `after_s`; how much later it ends, and what works afterwards."""
    with session(driver, python) as started:
        started.start()
        ran, _ = started.on_ranks(code, FAULT_LIMIT_S)
        if ran.took_s is None:
            started.kernel.interrupt()
            time.sleep(5)
        after = started.on_ranks("", FAULT_LIMIT_S)[1]
        collective = started.on_ranks(COLLECTIVE, FAULT_LIMIT_S)[1]
    return {
        "ended_s": _later(ran.took_s, after_s),
        "status": ran.status,
        "named_s": _later(ran.first_seen_s(message), after_s),
        "next_cell": len(after) == N,
        "next_collective": len(collective) == N,
    }


def measure(driver: Driver, python: str) -> Figures:
    import_torch_s(python)  # the first one reads the disk
    figures: Figures = {"version": driver.requirement or f"quarterdeck=={version('quarterdeck')}"}
    figures["cold"] = [cold_start(driver, python) for _ in range(COLD_STARTS)]
    with session(driver, python) as started:
        started.start()
        figures["warm"] = warm_cells(started)
        figures["print"] = print_latency(started)
        figures["push"] = push(started)
    figures["raises"] = fault(driver, python, RAISES, "boom")
    figures["dies"] = fault(driver, python, DIES, KILLED, DIES_AFTER_S)
    figures["load"] = os.getloadavg()[1]
    return figures


def loopback_up() -> None:
    """A new network namespace has its loopback interface down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def _later(moment_s: float | None, after_s: float) -> float | None:
    return None if moment_s is None else moment_s - after_s


def _ms(ran: Ran) -> float:
    if ran.took_s is None:
        raise RuntimeError("a trivial cell did not end")
    return 1000 * ran.took_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=DRIVERS)
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    loopback_up()
    figures = measure(DRIVERS[args.tool](), args.python)
    warm = figures["warm"]
    print(args.tool, {name: round(median(ms), 1) for name, ms in warm.items() if ms}, flush=True)
    args.out.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
