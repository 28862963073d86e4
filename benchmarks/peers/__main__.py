"""`make bench-peers`: every tool in its own virtual environment and its own namespaces."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.drivers import DRIVERS, Driver
from benchmarks.peers.table import table

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "bench-peers"
RESULTS = Path(__file__).with_name("RESULTS.md")
TOOL_LIMIT_S = 900
NAMESPACES = ["--fork", "--pid", "--mount-proc", "--net", "--kill-child"]
REFUSED = """\
bench-peers needs PID and network namespaces, and this user may not make them.
nbdistributed kills processes by name pattern all over the machine, and the other tools leave
processes behind, so nothing is run without. Remedy: run as root, or allow unprivileged user
namespaces (sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0
on Ubuntu), or in a container started with the SYS_ADMIN capability."""


def isolation() -> list[str] | None:
    """The command that runs another one in namespaces of its own, if this user may."""
    for who in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *who, *NAMESPACES]
        try:
            done = subprocess.run([*command, "true"], capture_output=True, stdin=subprocess.DEVNULL)
        except FileNotFoundError:
            return None
        if done.returncode == 0:
            return command
    return None


def environment(driver: type[Driver]) -> str:
    """The tool's own virtual environment, built when it is not there; its Python."""
    if driver.requirement is None:
        return sys.executable
    folder = ROOT / ".peers" / driver.name
    stamp = folder / ".installed"
    wanted = f"{driver.requirement}\n{(ROOT / 'constraints.in').read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        install(folder, driver.requirement)
        stamp.write_text(wanted)
    return str(folder / "bin" / "python")


def install(folder: Path, requirement: str) -> None:
    print(f"installing {requirement} into {folder.relative_to(ROOT)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    constrained = ["-c", str(ROOT / "constraints.in")]
    subprocess.run([*pip, *constrained, "torch", "numpy", "ipykernel", requirement], check=True)


def measured(name: str, isolated: list[str]) -> dict[str, Any]:
    """Run `measure.py` in namespaces, under a shell as PID 1: a kernel whose parent is PID 1 ends itself."""
    python, out = environment(DRIVERS[name]), OUT / f"{name}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.peers.measure", name, "--python", python, "--out", str(out)]
    in_shell = [*isolated, "sh", "-c", '"$@"; exit $?', "sh", *command]
    print(f"measuring {name} ...", flush=True)
    try:
        subprocess.run(in_shell, cwd=ROOT, stdin=subprocess.DEVNULL, check=True, timeout=TOOL_LIMIT_S)
    except subprocess.SubprocessError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return {"version": f"{name} (failed)", "failed": True}
    figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def report(tools: dict[str, dict[str, Any]]) -> str:
    imports = [f"{start['import_s']:.1f}" for tool in tools.values() for start in tool.get("cold", [])]
    return (
        "# Other tools on the same cells\n\n"
        f"Made by `make bench-peers` on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores. "
        "Medians, ranges in brackets. What each row means is in [README.md](README.md).\n\n"
        f"{table(tools)}\n"
        f"One `import torch` took {min(imports, key=float)}-{max(imports, key=float)} s.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-peers")
    parser.add_argument("tools", nargs="*", help=f"some of: {', '.join(DRIVERS)} (all)")
    names = parser.parse_args().tools or list(DRIVERS)
    if unknown := [name for name in names if name not in DRIVERS]:
        parser.error(f"no such tool: {', '.join(unknown)}")
    isolated = isolation()
    if isolated is None:
        print(REFUSED, file=sys.stderr)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    tools = {name: measured(name, isolated) for name in names}
    text = report(tools)
    if names == list(DRIVERS):
        RESULTS.write_text(text, encoding="utf-8")
    print(text)
    return int(any("failed" in figures for figures in tools.values()))


if __name__ == "__main__":
    sys.exit(main())
