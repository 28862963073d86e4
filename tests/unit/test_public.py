"""What users and their notebooks rely on: changing one of these is a deliberate edit of this file."""

import ast
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import tomllib
import typing
from importlib import import_module
from pathlib import Path

import cloudpickle
import pytest

import quarterdeck
from quarterdeck.kernel.magics import parsers

ROOT = Path(__file__).resolve().parents[2]
HOMES = {name: f"quarterdeck.{home}" for home, names in quarterdeck._HOMES.items() for name in names}
HOMES |= dict.fromkeys(("load_ipython_extension", "unload_ipython_extension"), "quarterdeck")


def test_public_names() -> None:
    assert quarterdeck.__all__ == [
        "ArgumentError",
        "Checkpoint",
        "CheckpointError",
        "CheckpointRefused",
        "CheckpointSchema",
        "Checkpoints",
        "CleanPodPolicy",
        "Code",
        "ConfigError",
        "Context",
        "DamagedCheckpoint",
        "Deck",
        "DeckPage",
        "Decks",
        "DistributedFunction",
        "Elastic",
        "ElasticWorkerResult",
        "Evidence",
        "FolderCheckpoint",
        "ListedCheckpoints",
        "Loaded",
        "Markdown",
        "Master",
        "Metrics",
        "MissingWeights",
        "NoSuchDeck",
        "NotARun",
        "Outcome",
        "OverRanks",
        "Points",
        "PyTorch",
        "PyTorchCheckpoint",
        "QuarterdeckError",
        "RankDecks",
        "RankStatus",
        "RecoverableError",
        "Renderable",
        "RestartPolicy",
        "Resumption",
        "Run",
        "RunDecks",
        "RunFailed",
        "RunInterrupted",
        "RunPolicy",
        "RunTimedOut",
        "Runs",
        "Series",
        "Session",
        "Stacks",
        "TensorInfo",
        "UnknownClass",
        "Unpicklable",
        "UntrustedCheckpoint",
        "UntrustedResult",
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


def public_things() -> dict[str, type | typing.Callable]:
    """As they are where they are defined, by name: all but the version and `renderers`."""
    assert set(quarterdeck.__all__) == {*HOMES, "__version__"}
    found = {name: getattr(import_module(home), name) for name, home in HOMES.items()}
    del found["renderers"]
    return found


def defined_errors() -> set[str]:
    """Every class below `src` that derives from QuarterdeckError."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases} for node in classes}
    found = {"QuarterdeckError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


@pytest.mark.parametrize("name", public_things())
def test_a_public_thing_is_called_after_quarterdeck(name: str) -> None:
    thing = public_things()[name]
    assert (thing.__module__, thing.__qualname__) == ("quarterdeck", name)
    assert getattr(quarterdeck, name) is thing


@pytest.mark.parametrize("name", public_things())
@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_public_thing_is_pickled_by_its_name(pickler: typing.Any, name: str) -> None:
    thing = public_things()[name]
    stream = pickler.dumps(thing)
    assert pickle.loads(stream) is thing
    assert len(stream) < 100


def test_a_public_class_has_its_name_before_anybody_has_asked_for_it() -> None:
    """A worker pickles values of classes that it has never looked up."""
    code = """
import pickle, sys, cloudpickle, quarterdeck
from quarterdeck.flyte.job import Master, RestartPolicy
for dumps in (pickle.dumps, cloudpickle.dumps):
    vars(quarterdeck).pop("Master", None), vars(quarterdeck).pop("RestartPolicy", None)
    stream = dumps(Master(restart_policy=RestartPolicy.NEVER))
    assert b"quarterdeck.flyte.job" not in stream, stream
    assert pickle.loads(stream).restart_policy is RestartPolicy.NEVER
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", sorted(defined_errors()))
def test_every_error_is_public(name: str) -> None:
    assert issubclass(getattr(quarterdeck, name), quarterdeck.QuarterdeckError)
    assert name in quarterdeck.__all__


@pytest.mark.parametrize(
    "error",
    [
        quarterdeck.UsageError("text", "hint"),
        quarterdeck.CheckpointRefused("text", "hint"),
        quarterdeck.MissingWeights("text"),
        quarterdeck.NoSuchDeck("text"),
        quarterdeck.RunFailed("text", ["line"], [quarterdeck.Outcome(1, "error")], 1, "ValueError"),
        quarterdeck.RunInterrupted("text"),
        quarterdeck.UntrustedCheckpoint("weights.pt", ["os.system"]),
        quarterdeck.UntrustedResult(Path("rank-0.result")),
        quarterdeck.NotARun("text"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_a_rank_raises_can_be_caught_in_the_notebook(error: Exception) -> None:
    error.add_note("noted")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize(
    "name", sorted(name for name, one in public_things().items() if isinstance(one, type))
)
def test_the_annotations_of_a_public_class_are_found(name: str) -> None:
    """As they would be in the module that defines it."""
    cls = public_things()[name]
    if cls is not quarterdeck.Points:  # Python 3.11 has no array[int]
        assert set(typing.get_type_hints(cls)) >= set(vars(cls).get("__annotations__", ()))


def documented() -> dict[str, tuple[typing.Any, str]]:
    """Public functions, classes and what these define that has no underscore, with their docstrings."""
    found = {}
    for name, thing in public_things().items():
        found[name] = thing, thing.__doc__ or ""
        for part, value in vars(thing).items() if isinstance(thing, type) else ():
            value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if inspect.isfunction(value) and not part.startswith("_") and value.__name__ != "<lambda>":
                found[f"{name}.{part}"] = value, value.__doc__ or ""
    return found


def arguments_in(text: str) -> list[str]:
    """Names below "Args:"."""
    _, _, rest = inspect.cleandoc(text).partition("Args:\n")
    lines = re.findall(r"^    (\w[\w, ]*): ", rest.partition("\n\n")[0], re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


@pytest.mark.parametrize("name", documented())
def test_what_is_public_is_documented_in_the_words_of_its_users(name: str) -> None:
    thing, text = documented()[name]
    assert text.strip()
    assert not re.search(r"\b(zygote|coordinator|incarnation|keeper|zygote_pool)s?\b", text)
    assert not re.search(r"(^|\. )\s*Of |^\s+\w+: of ", text, re.MULTILINE)
    listed = arguments_in(text)
    parameters = inspect.signature(thing).parameters if listed else {}
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        assert set(listed) <= set(parameters)


@pytest.mark.parametrize("name", [name for name, one in public_things().items() if inspect.isfunction(one)])
def test_the_arguments_of_a_public_function_are_documented(name: str) -> None:
    thing = public_things()[name]
    if not name.endswith("_ipython_extension"):
        assert arguments_in(thing.__doc__ or "") == list(inspect.signature(thing).parameters)


def test_help_on_a_class_names_quarterdeck_and_methods_have_their_source() -> None:
    first, _, _ = pydoc.render_doc(quarterdeck.Run).partition("\n")
    assert first.endswith("class Run in module quarterdeck")
    assert inspect.getsource(quarterdeck.Run.wait).startswith("    def wait(")


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
        "safetensors",
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


def test_public_names_import_neither_torch_nor_numpy() -> None:
    code = "import sys, quarterdeck as qd; [getattr(qd, name) for name in qd.__all__]"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}; print({{'torch', 'numpy', 'matplotlib'}} & {{*sys.modules}})"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout == "set()\n", ran.stderr


def test_the_coordinator_imports_neither_torch_nor_ipython() -> None:
    assert imported_by("quarterdeck.coordinator.main", "torch", "IPython", "numpy") == ""
