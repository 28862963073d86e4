"""What users and their notebooks rely on: changing one of these is a deliberate edit of this file."""

import subprocess
import sys
import tomllib
from pathlib import Path

import quarterdeck
from quarterdeck.kernel.magics import parsers

ROOT = Path(__file__).resolve().parents[2]


def test_public_names() -> None:
    assert quarterdeck.__all__ == [
        "CleanPodPolicy",
        "Code",
        "ConfigError",
        "Context",
        "Deck",
        "DistributedFunction",
        "Elastic",
        "ElasticWorkerResult",
        "Markdown",
        "Master",
        "PyTorch",
        "PyTorchCheckpoint",
        "QuarterdeckError",
        "RecoverableError",
        "RestartPolicy",
        "Run",
        "RunFailed",
        "RunInterrupted",
        "RunPolicy",
        "RunTimedOut",
        "Runs",
        "Session",
        "Unpicklable",
        "UsageError",
        "Worker",
        "WorkersLost",
        "__version__",
        "checkpoints",
        "current",
        "distributed",
        "load_checkpoint",
        "load_ipython_extension",
        "log",
        "progress",
        "renderer",
        "renderers",
        "runs",
        "save_checkpoint",
        "span",
        "spawn_helper",
        "unload_ipython_extension",
    ]
    assert all(getattr(quarterdeck, name) for name in quarterdeck.__all__)


def test_magic_options() -> None:
    cell = [
        "--as", "--backend", "--background", "--collective-timeout", "--debug", "--env", "--name",
        "--no-keep-frames", "--nproc-per-node", "--seed", "--session", "--setup", "--start-method",
        "--tensorboard", "--timeout", "-n",
    ]  # fmt: skip
    assert parsers.rank_parser().option_names() == cell
    closed = ["--detach", "--fresh", "--max-restarts", "--restart", "--resume"]
    assert parsers.distributed_parser().option_names() == sorted([*cell, *closed, "--ranks"])
    assert parsers.WORKER_VERBS == ("status", "start", "restart", "stop", "interrupt", "stacks", "doctor")
    assert parsers.push_parser().option_names() == ["--ranks", "--session"]
    assert parsers.pull_parser().option_names() == ["--rank", "--session"]


def test_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [requirement.partition(">")[0] for requirement in project["dependencies"]]
    assert names == [
        "anywidget",
        "cloudpickle",
        "ipykernel",
        "ipython",
        "markdown-it-py",
        "matplotlib",
        "msgspec",
        "nvidia-ml-py",
        "torch",
    ]


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{quarterdeck.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def imported_by(module: str, *heavy: str) -> str:
    """Which of the heavy packages a fresh interpreter has after importing the module."""
    code = f"import sys, {module}; print(*(name for name in {heavy} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_quarterdeck_and_its_magics_imports_neither_torch_nor_numpy() -> None:
    assert imported_by("quarterdeck.kernel.magics.extension", "torch", "numpy") == ""


def test_the_coordinator_imports_neither_torch_nor_ipython() -> None:
    assert imported_by("quarterdeck.coordinator.main", "torch", "IPython", "numpy") == ""
