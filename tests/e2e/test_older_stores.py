"""A store that commit 478c752 (0.1.0) has written is read by what is here now: runs, values, checkpoints.

`tests/fixtures/make_store.py` tells how it was made, and what is in it.
"""

from __future__ import annotations

import importlib
import json
import pickletools
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quarterdeck as qd
from conftest import fresh_notebook
from fixtures.make_store import ARCHIVE, EXPECTED, described
from quarterdeck.metrics.progress import read_progress
from quarterdeck.renamed import module_today, name_today
from quarterdeck.store.folder_checkpoint import FolderCheckpoint
from quarterdeck.store.results import read_result
from quarterdeck.store.spans import read_spans
from support.notebook import Notebook

STATES = {
    "seen-failed": "failed",
    "killed": "failed",
    "given up": "failed",
    "own error": "failed",
    "failed": "failed",
    "flyte": "succeeded",
    "sharded": "succeeded",
    "net, resumed": "succeeded",
    "net": "succeeded",
    "seen": "succeeded",
    "stopped": "stopped",
    "restarted": "succeeded",
    "unpicklable": "succeeded",
    "by value": "succeeded",
    "values": "succeeded",
    "digits": "succeeded",
}
"""Newest first."""

# Results are pickles, which name quarterdeck's own classes and functions by module path. Each of these names
# is in results that users have: where what it names moves, `quarterdeck.renamed` tells where it went. A
# value's class must also take the attributes that it had then.
NAMED = [
    # module                             names                                  stored with
    ("quarterdeck.payload.loaders", """
        load_tensor load_storage"""),                                         # every tensor
    ("quarterdeck.payload.loaders", """
        load_typed_storage itself"""),                                        # conjugate views, storages
    ("quarterdeck.payload.loaders", """
        make_function restore_function receiver_namespace fill_cell
        import_modules make_lru_cache make_cached_property"""),               # functions, notebook classes
    ("quarterdeck.decks.deck", "Deck"),                                       # every rank's decks
    ("quarterdeck.decks.words", "Code Markdown"),                             # qd.Code, qd.Markdown
    ("quarterdeck.context", "Decks"),                                         # qd.current().decks
    ("quarterdeck.metrics.spans", "span"),                                    # qd.span
    ("quarterdeck.worker.helper", "ElasticWorkerResult"),                     # qd.ElasticWorkerResult
    ("quarterdeck.client.function", "DistributedFunction"),                   # what @qd.distributed makes
    ("quarterdeck.client.call_options", "CallOptions"),                       # in it
    ("quarterdeck.config.elastic", "Elastic"),                                # qd.Elastic
    ("quarterdeck.config.job", """
        PyTorch Master Worker RunPolicy RestartPolicy CleanPodPolicy"""),     # qd.PyTorch and its parts
    ("quarterdeck.config.rules", "Fixed ConfigError"),                        # dicts in configs; an error
    ("quarterdeck.errors", """
        QuarterdeckError UsageError ArgumentError WorkersLost RunFailed
        RunTimedOut RunInterrupted RecoverableError"""),                      # errors that ended a rank
    ("quarterdeck.checkpointing.problems", """
        CheckpointError DamagedCheckpoint"""),                                # such errors
    ("quarterdeck.checkpointing.flyte_checks", """
        CheckpointRefused MissingWeights"""),                                 # such errors
    ("quarterdeck.decks.of_run", "NoSuchDeck"),                               # such an error
    ("quarterdeck.checkpointing.flyte", "_rebuild"),                          # qd.PyTorchCheckpoint
    ("quarterdeck.checkpointing.classes", "UnknownClass"),                    # hyperparameters
    ("quarterdeck.checkpointing.loading", "Loaded"),                          # of qd.load_checkpoint
    ("quarterdeck.checkpointing.listing", "Checkpoint Checkpoints"),          # in it
    ("quarterdeck.checkpointing.manifest", """
        Manifest File Summary Tensors TensorInfo"""),                         # in it
    ("quarterdeck.checkpointing.local", "LocalPlace LocalContents"),          # in it
    ("quarterdeck.checkpointing.remote", "RemotePlace RemoteContents"),       # in it, of a URL
]  # fmt: skip

# Hyperparameters are JSON, which names classes in the same way. They are looked up in modules that are loaded
# already, but for quarterdeck's public ones, which are imported.
NAMED_IN_JSON = [
    ("quarterdeck.config.job", "PyTorch Master Worker RunPolicy RestartPolicy CleanPodPolicy"),
]

# Such errors too, which no result of this store has, since they cannot be unpickled, or are rare.
NOT_STORED_HERE = [
    ("quarterdeck.checkpointing.problems", "UntrustedCheckpoint"),
    ("quarterdeck.store.results", "Untrusted"),
    ("quarterdeck.payload.travel", "Gone"),
]

LOOK = """
%load_ext quarterdeck
import datetime, pathlib
import numpy as np
import quarterdeck as qd
import torch
import study
runs = {run.name: run for run in qd.runs()}

def same(one, two):
    "Equal in every bit, through what holds them."
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and one == two

def whole(value):
    return value.full_tensor() if hasattr(value, "full_tensor") else value
"""


def unpacked(folder: Path) -> Path:
    """The folder with `home` and `project` in it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To look at. Nothing is run there."""
    return unpacked(tmp_path_factory.mktemp("older")) / "project"


@pytest.fixture(scope="module")
def expected(project: Path) -> dict[str, dict[str, Any]]:
    """What the readers of 478c752 made of it."""
    return json.loads((project / EXPECTED).read_text())


@pytest.fixture(scope="module")
def runs(project: Path) -> qd.Runs:
    return qd.runs(home=project / ".quarterdeck")


@pytest.fixture(scope="module")
def found(runs: qd.Runs) -> dict[str, dict[str, Any]]:
    return described(runs, read_spans, read_progress)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel in a project folder of its own, with the home that the store's key is in."""
    folder = unpacked(tmp_path_factory.mktemp("older-notebook"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        for name in ("QUARTERDECK_HOME", "QUARTERDECK_KEY_FILE", "XDG_STATE_HOME"):
            patch.delenv(name, raising=False)
        with fresh_notebook(folder / "project") as notebook:
            notebook.ok(LOOK)
            yield notebook


# ---- what is told without running anything


def test_the_runs_are_listed_with_their_states(runs: qd.Runs) -> None:
    assert {run.name: run.status for run in runs} == STATES
    assert [run.name for run in runs] == list(STATES)
    assert [run.name for run in qd.runs("digits", home=runs[0].folder.parents[1])] == ["digits"]
    assert len(runs.filter(state="failed")) == 5
    assert "digits(<Settings>, steps=5)" in repr(runs)


@pytest.mark.parametrize("name", STATES)
def test_what_is_told_of_a_run_is_what_its_own_version_told(
    name: str, found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]
) -> None:
    """Source, environment, outcomes, tracebacks, output, curves, decks, spans, progress, checkpoints."""
    assert list(found[name]) == list(expected[name])
    for what, value in expected[name].items():
        assert found[name][what] == value, what


def test_metrics_have_every_value_of_every_rank(runs: qd.Runs) -> None:
    metrics = runs["digits"].metrics
    assert metrics.names == ["loss", "train/accuracy", "val/accuracy"]
    for rank in (0, 1):
        assert list(metrics["loss"].steps(rank)) == list(range(5))
        assert list(metrics["loss"].values(rank)) == [1 / (step + 1) + rank for step in range(5)]
        assert list(metrics["val/accuracy"].values(rank)) == [step / 16 + rank for step in range(5)]
        assert min(metrics["loss"].times(rank)) > runs["digits"].created.timestamp() * 1e9
    assert len(metrics.to_pandas()) == 2 * 5 * 3
    assert list(runs["restarted"].metrics["w"].values(1)) == [0, 1, 2, 13, 14, 15]
    assert list(runs["net, resumed"].metrics["loss"].steps(0)) == list(range(8))
    assert list(runs["seen"].metrics["x"].values(1)) == [1, 2, 3]


def test_output_lines_are_there_of_every_rank(runs: qd.Runs) -> None:
    for rank in (0, 1):
        assert runs["digits"].logs(rank) == f"rank {rank} begins EXACT\ncaf\u00e9 of rank {rank}\n"
        assert runs["seen"].logs(rank) == f"from rank {rank}\n{10 * rank}\n"
        assert runs["restarted"].logs(rank).splitlines() == [
            "attempt 0 begins at 0 with None",
            f"attempt 1 begins at 3 with b'rank {rank}, attempt 0'",
        ]
    assert runs["failed"].logs() == "--- rank 0\nbefore\n\n--- rank 1\nbefore\n"


def test_decks_hold_what_was_appended(runs: qd.Runs) -> None:
    for rank in (0, 1):
        decks = runs["digits"].decks[rank]
        assert list(decks) == ["mistakes", "weights", "Input", "Output"]
        assert decks["mistakes"].html.startswith(f"<p>of rank {rank}</p>\n")
        assert "<h1>Seen</h1>\n<p><em>all</em> of it</p>" in decks["mistakes"].html
        assert f"Report(rank={rank}" in decks["Output"].html
        assert runs["restarted"].decks[rank]["attempt"].html == f"<p>1 of rank {rank}</p>"
        assert runs["seen"].decks[rank]["of the cell"].html == f"<i>{rank}</i>"
        assert runs["failed"].decks[rank]["so far"].html == "<p>half</p>"


def test_pages_over_all_ranks_are_made_of_it(runs: qd.Runs, tmp_path: Path) -> None:
    decks = runs["digits"].decks
    page = decks.merged("mistakes").save(tmp_path / "mistakes.html").read_text()
    assert "of rank 0" in page
    assert "of rank 1" in page
    timeline = decks.merged("Timeline").save(tmp_path / "timeline.html").read_text()
    assert all(name in timeline for name in ("start-up", "forward", "outer", "inner"))
    assert "settings.mode" in re.sub(
        r"<[^>]+>", "", decks.merged("Source Code").save(tmp_path / "source.html").read_text()
    )
    environment = decks.merged("Environment").save(tmp_path / "environment.html").read_text()
    assert "0.1.0" in environment
    assert "cloudpickle" in environment


def test_spans_and_progress_are_those_of_the_ranks(runs: qd.Runs) -> None:
    for rank in (0, 1):
        spans = read_spans(runs["digits"].folder, 0)[rank]
        assert [span.name for span in spans].count("forward") == 5
        assert [(span.name, span.depth) for span in spans][-2:] == [("outer", 0), ("inner", 1)]
        assert all(span.end_unix_ns for span in spans)
        [bar] = read_progress(runs["digits"].folder, 0)[rank]
        assert (bar.desc, bar.n, bar.total, bar.done) == ("step", 5, 5, True)
        [bar] = read_progress(runs["stopped"].folder, 0)[rank]
        assert (bar.desc, bar.total, bar.done) == ("long", 1000, True)
    assert {len(read_spans(runs["restarted"].folder, attempt)) for attempt in (0, 1)} == {2}


def test_how_each_rank_ended_is_on_record(runs: qd.Runs) -> None:
    def ended(name: str) -> list[tuple[str, str, str]]:
        return [(one.state, one.ename, one.evalue) for one in runs[name].outcomes]

    assert ended("failed") == [("released", "", ""), ("error", "ValueError", "no such digit: 11")]
    assert ended("own error") == [("error", "OutOfRange", "no such digit: 12"), ("released", "", "")]
    assert ended("seen-failed")[1] == ("error", "ZeroDivisionError", "division by zero")
    assert ended("stopped") == [("interrupted", "", "")] * 2
    assert runs["killed"].outcomes[1].signal == 9
    assert runs["given up"].outcomes[1].recoverable
    assert runs["failed"].reason == "rank 1 raised ValueError: no such digit: 11"
    assert runs["stopped"].reason == "stopped by the user"
    assert runs["digits"].outcomes[1].annotations == {"seen": "[1, 2]"}
    assert (runs["restarted"].attempt, runs["digits"].attempt) == (1, 0)


def test_a_run_that_continued_another_still_knows_it(runs: qd.Runs) -> None:
    """Also where the project has been moved."""
    parent = runs["net, resumed"].parent
    assert parent is not None
    assert parent.folder == runs["net"].folder
    assert runs["net"].parent is None


def test_what_was_written_in_flyte_s_form_is_there(runs: qd.Runs, tmp_path: Path) -> None:
    for attempt, rank in ((0, 0), (0, 1), (1, 0), (1, 1)):
        kept = runs["restarted"].folder / "checkpoints" / f"attempt-{attempt}" / f"rank-{rank}"
        checkpoint = FolderCheckpoint(tmp_path / "next", kept)
        assert checkpoint.prev_exists()
        assert checkpoint.read() == b"rank %d, attempt %d" % (rank, attempt)
    notes = sorted(path.read_text() for path in runs["flyte"].folder.rglob("note.txt"))
    assert notes == ["rank 0", "rank 1"]


# ---- module paths


def stored_names(stream: bytes) -> Iterator[str]:
    """What a pickle names, as "module:name". Nothing of it is run."""
    memo: list[str] = []
    pushed: list[str] = []
    for code, value, _ in pickletools.genops(stream):
        if code.name == "MEMOIZE":
            memo.append(pushed[-1])
        elif code.name in ("BINGET", "LONG_BINGET"):
            pushed.append(memo[value])
        else:
            if code.name == "STACK_GLOBAL":
                yield ":".join(pushed[-2:])
            pushed.append(value if "UNICODE" in code.name else "")


def test_the_table_has_all_names_by_which_results_are_stored(project: Path) -> None:
    named = {f"{module}:{name}" for module, names in NAMED for name in names.split()}
    streams = [read_result(path, trust=True)[0] for path in project.rglob("*.result")]
    stored = {name for stream in streams for name in stored_names(stream)}
    assert len(streams) >= 20
    assert {name for name in stored if name.startswith("quarterdeck")} == named
    assert "study:Report" in stored


@pytest.mark.parametrize("module", sorted({module for module, _ in NAMED + NOT_STORED_HERE}))
def test_the_names_of_stored_values_can_still_be_imported(module: str) -> None:
    names = " ".join(names for of, names in NAMED + NOT_STORED_HERE if of == module).split()
    imported = importlib.import_module(module_today(module))
    missing = [name for name in names if not hasattr(imported, name_today(module, name))]
    assert not missing, f"{module} has no {missing}: results that users have could not be loaded"


def test_the_table_has_all_names_that_checkpoints_have(project: Path) -> None:
    """They are in manifests; other files are torch's and safetensors' and name nothing of quarterdeck."""
    kept = [path for path in project.rglob("checkpoints/**/*") if path.is_file()]
    holding = [path for path in [*kept, project / "flyte.pt"] if b"quarterdeck." in path.read_bytes()]
    assert len(kept) > 30
    assert {path.name for path in holding} == {"manifest.json"}
    words = set(re.findall(r"quarterdeck\.[\w.:]+", " ".join(path.read_text() for path in holding)))
    assert words == {f"{module}:{name}" for module, names in NAMED_IN_JSON for name in names.split()}


@pytest.mark.parametrize(
    "name", [f"{module}:{name}" for module, names in NAMED_IN_JSON for name in names.split()]
)
def test_the_classes_in_hyperparameters_are_found_before_they_are_used(name: str) -> None:
    code = f"""
from quarterdeck.checkpointing.classes import find
import quarterdeck
assert find({name!r}) is quarterdeck.{name.partition(":")[2]}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- values


def test_a_value_comes_back_with_its_classes_and_its_numbers(older: Notebook) -> None:
    older.ok("""
run = runs["digits"]
for rank, result in enumerate(run.results):
    value = result.return_value
    assert type(result) is qd.ElasticWorkerResult
    assert type(value) is study.Report and value.rank == rank
    assert value.settings == study.settings() and value.settings.mode is study.Mode.EXACT
    assert type(value.settings.optimizer.betas) is study.Betas
    assert same(value.weights, study.report(rank).weights) and same(value.scores, study.report(rank).scores)
    assert value.weights.is_contiguous() and value.weights.add_(0) is value.weights
    assert [deck.name for deck in result.decks] == ["mistakes", "weights"], result.decks
    for deck in result.decks:
        assert type(deck) is qd.Deck and deck.html == run.decks[rank][deck.name].html
assert same(vars(run.result())["weights"], study.report(0).weights)
""")


def test_values_of_every_kind_come_back(older: Notebook) -> None:
    older.ok("""
value = runs["values"].result()
assert runs["values"].results[1].return_value is None
big = torch.arange(1000.0)
for name, wanted in {
    "big": big, "view": big[10:20], "small": torch.tensor([1, 2]),
    "half": torch.tensor([1.5], dtype=torch.bfloat16), "none": torch.empty(0, 3), "grad": torch.ones(2),
    "conj": torch.tensor([1 - 2j]), "array": np.arange(300), "few": np.array([1.0, 2.0]),
    "scalar": np.float32(0.5),
}.items():
    assert same(value[name], wanted), name
assert value["grad"].requires_grad and value["conj"].is_conj()
assert value["view"].untyped_storage().data_ptr() == value["big"].untyped_storage().data_ptr()
assert value["storage"].data_ptr() == value["big"].untyped_storage().data_ptr()
assert type(value["parameter"]) is torch.nn.Parameter and value["parameter"].tolist() == [7.0] * 3
""")
    older.ok("""
model, optimizer = value["model"], value["optimizer"]
assert type(model) is torch.nn.Sequential and type(model[1]) is torch.nn.Flatten
assert same(model[0].bias.data, torch.arange(20.0) - 0.5)
assert same(model[0].weight.data, torch.arange(400.0).view(20, 20) - 0.5)
assert type(optimizer) is torch.optim.SGD and optimizer.param_groups[0]["lr"] == 0.5
assert optimizer.param_groups[0]["params"][0] is model[0].weight
assert same(optimizer.state[model[0].bias]["momentum_buffer"], torch.ones(20))
checkpoint = value["checkpoint"]
assert type(checkpoint) is qd.PyTorchCheckpoint and checkpoint.hyperparameters == study.settings()
assert same(dict(checkpoint["module_state_dict"]), dict(model.state_dict()))
assert same(checkpoint["optimizer_state_dict"], optimizer.state_dict())
""")


def test_quarterdeck_s_own_objects_come_back(older: Notebook) -> None:
    older.ok("""
value = runs["values"].result()
assert value["elastic"] == qd.Elastic(nproc_per_node=2, max_restarts=1, rdzv_configs={"timeout": 60})
assert value["pytorch"] == qd.PyTorch(
    master=qd.Master(restart_policy=qd.RestartPolicy.FAILURE), worker=qd.Worker(replicas=3),
    run_policy=qd.RunPolicy(clean_pod_policy=qd.CleanPodPolicy.ALL, active_deadline_seconds=9),
)
assert value["result"] == qd.ElasticWorkerResult(1, []) and type(value["result"]) is qd.ElasticWorkerResult
assert value["deck"].name == "own" and value["deck"].append("<i>more</i>").html == "<b>kept</b>\\n<i>more</i>"
assert type(value["markdown"]) is qd.Markdown and type(value["code"]) is qd.Code
assert "<em>text</em>" in qd.Deck("m", value["markdown"], auto_add_to_deck=False).html
assert type(value["span"]) is qd.span and value["span"].name == "stretch"
assert value["unknown"] == {"lr": 0.5} and value["unknown"].class_name == "elsewhere:Gone"
assert list(value["decks"]) == []
""")
    older.ok("""
errors = value["errors"]
assert [type(error).__name__ for error in errors] == [
    "QuarterdeckError", "UsageError", "ConfigError", "WorkersLost", "RunFailed", "RunTimedOut",
    "RunInterrupted", "RecoverableError", "ArgumentError", "CheckpointError", "DamagedCheckpoint",
    "CheckpointRefused", "MissingWeights", "NoSuchDeck",
]
assert [type(error) is getattr(qd, type(error).__name__) for error in errors[:8]] == [True] * 8
assert str(errors[1]) == "b\\ndo c" and errors[1].hint == "do c"
assert (str(errors[4]), errors[4].lines, errors[4].root_cause, errors[4].ename) == (
    "f", ["f", "g"], 1, "ValueError")
assert isinstance(errors[5], qd.RunFailed) and isinstance(errors[6], KeyboardInterrupt)
assert isinstance(errors[8], TypeError) and isinstance(errors[11], AssertionError)
""")


def test_what_a_load_returned_comes_back(older: Notebook) -> None:
    older.ok("""
for result in runs["restarted"].results:
    loaded = result.return_value
    assert (loaded.step, loaded.metrics, loaded.checkpoint.step) == (2, {"w": 2.0}, 2)
    assert loaded.checkpoint.valid and len(loaded.checkpoint.tensors) == 5
    assert same(loaded.model["wide.bias"], torch.ones(8))
loaded = runs["net, resumed"].result()
assert (loaded.step, loaded.epoch, loaded.metrics) == (5, 2.5, {"loss": 3.5})
assert loaded.hyperparameters == study.settings() and loaded.extra["seen"] == [5, "x"]
value = runs["values"].result()
assert value["loaded"].step == 1 and same(value["loaded"].model, {"x": torch.ones(2)})
assert value["loaded"].path == value["loaded"].checkpoint.path == "memory://far/step-00000001"
assert [one.step for one in value["listed"]] == [1] and value["listed"].latest.valid
""")


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the code in them is that of Python 3.11")
def test_functions_and_classes_of_the_notebook_come_back_by_value(older: Notebook) -> None:
    older.ok("""
import xml
value = runs["by value"].result()
point, (more, seen) = value["point"], value["counter"]
assert type(point).__name__ == "Point" and (point.x, point.twice) == (7, 14)
assert (more(), more(), seen()) == (1, 2, 2)
assert value["square"](3) == 9 and value["square"].cache_info().maxsize == 5
assert value["tag"]() == "a"
assert type(value["digits"]) is qd.DistributedFunction and value["digits"].__name__ == "digits"
assert "Point" not in globals()
""")


def test_a_value_that_did_not_come_says_why(older: Notebook) -> None:
    older.ok("""
run = runs["unpicklable"]
assert run.result() == "fine"
stand_in = run.results[1].return_value
assert type(stand_in) is qd.Unpicklable and stand_in.text.startswith("<generator object")
assert "`generator`" in stand_in.why
assert runs["seen"].result() is None and runs["sharded"].result() is None
""")


@pytest.mark.parametrize(
    ("name", "ename", "says"),
    [
        ("failed", "ValueError", "no such digit: 11"),
        ("own error", "OutOfRange", "no such digit: 12"),
        ("given up", "RecoverableError", "the data server did not answer"),
        ("killed", "RunFailed", "rank 1 was killed by SIGKILL"),
        ("stopped", "RunInterrupted", "stopped"),
        ("seen-failed", "RunFailed", "ZeroDivisionError"),
    ],
)
def test_a_failure_is_raised_again_as_it_was(older: Notebook, name: str, ename: str, says: str) -> None:
    raised = older.fails(f"runs[{name!r}].result()")
    assert raised.ename == ename
    assert says in raised.traceback
    if name == "own error":
        older.ok(
            f"try: runs[{name!r}].result()\n"
            "except study.OutOfRange as error: assert (error.digit, error.rank) == (12, 0)"
        )


def test_a_run_and_the_list_of_runs_show_themselves(older: Notebook) -> None:
    shown = older.ok("qd.runs(limit=20)").text
    assert [line.split()[0] for line in shown.splitlines()[-2:]] == ["values", "digits(<Settings>,"]
    for name, state in STATES.items():
        ran = older.ok(f"runs[{name!r}]")
        assert name.partition(",")[0] in ran.text
        assert state in ran.text
        assert "text/html" in ran.mimes()


def test_without_its_key_a_value_is_not_loaded(older: Notebook, tmp_path: Path) -> None:
    """So it is the store's own key that the others are verified with."""
    older.ok(f"import os\nos.environ['QUARTERDECK_KEY_FILE'] = {str(tmp_path / 'key')!r}")
    try:
        ran = older.fails("qd.runs()['digits'].result()")
        assert ran.ename == "UntrustedResult"
    finally:
        older.ok("del os.environ['QUARTERDECK_KEY_FILE']")
    older.ok("qd.runs()['digits'].result()")


# ---- checkpoints


def test_checkpoints_are_listed_and_the_latest_and_the_best_are_found(older: Notebook) -> None:
    older.ok("""
kept = runs["net"].checkpoints
assert [(one.step, one.epoch, one.metrics, one.pinned, one.valid) for one in kept] == [
    (2, 1.0, {"loss": 0.5}, False, True), (4, 2.0, {"loss": 2.5}, True, True),
    (5, 2.5, {"loss": 3.5}, False, True)]
assert kept.latest.step == 5 and kept.best("loss").step == 2 and kept.best("max:loss").step == 5
assert [one.step for one in qd.checkpoints()] == [2, 5, 2, 4, 5, 6, 7, 7], list(qd.checkpoints())
assert len(qd.checkpoints(runs["net"].folder)) == 3
for one in qd.checkpoints():
    one.verify()
    assert [info.name for info in one.tensors if info.part == "model"] == [
        "narrow.bias", "narrow.weight", "scale", "wide.bias", "wide.weight"], one.tensors
try:
    kept.at(4).delete()
except qd.UsageError as error:
    assert "is pinned" in str(error)
else:
    raise AssertionError("deleted")
""")
    assert "step" in older.ok("runs['net'].checkpoints").text


@pytest.mark.parametrize(("name", "steps"), [("net", (2, 4, 5)), ("net, resumed", (6, 7))])
def test_every_bit_of_a_checkpoint_is_loaded(older: Notebook, name: str, steps: tuple[int, ...]) -> None:
    """Beside what torch.save kept of the same training."""
    older.ok(f"""
folder = runs[{name!r}].folder / "checkpoints"
references = torch.load({"net-0.pt" if name == "net" else "net-6.pt"!r})
for step in {steps}:
    model = study.Net()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    loaded = qd.load_checkpoint(step, into=(model, optimizer, scheduler), directory=folder, verify=True)
    assert (loaded.step, loaded.epoch) == (step, step / 2)
    assert loaded.metrics == {{"loss": abs(step - 2) + 0.5}}
    assert same(dict(model.state_dict()), dict(references[step]["model"]))
    assert same(optimizer.state_dict(), references[step]["optimizer"])
    assert loaded.extra["seen"] == [step, "x"] and same(loaded.extra["tensor"], torch.tensor([step, 1.5]))
    alone = qd.load_checkpoint(folder / f"step-{{step:08}}")
    assert all(same(alone.model[key], value) for key, value in references[step]["model"].items())
assert scheduler.state_dict()["last_epoch"] == references[step]["scheduler"]["last_epoch"] == step + 1
assert qd.load_checkpoint("latest", directory=folder).step == {max(steps)}
assert qd.load_checkpoint("best:loss", directory=folder).step == {min(steps)}
""")


def test_generators_that_were_saved_go_on_from_there(older: Notebook) -> None:
    older.ok("""
folder = runs["net"].folder / "checkpoints"
drawn = []
for seed in (1, 2):
    torch.manual_seed(seed)
    qd.load_checkpoint(5, directory=folder, rng=True)
    drawn.append((torch.rand(3), np.random.rand()))
assert same(*drawn)
""")


def test_hyperparameters_are_of_the_kinds_that_they_were(older: Notebook) -> None:
    older.ok("""
for name in ("net", "net, resumed"):
    for one in runs[name].checkpoints:
        found = one.hyperparameters
        assert type(found) is study.Settings and found == study.settings()
        assert found.mode is study.Mode.EXACT and isinstance(found.data, pathlib.PosixPath)
        assert type(found.optimizer) is study.Adam and type(found.optimizer.betas) is study.Betas
        assert type(found.layers) is tuple and type(found.begun) is datetime.datetime
found, wanted = runs["sharded"].checkpoints.latest.hyperparameters, study.by_name()
wanted["job"] = qd.PyTorch(
    master=qd.Master(restart_policy=qd.RestartPolicy.FAILURE), worker=qd.Worker(replicas=3),
    run_policy=qd.RunPolicy(clean_pod_policy=qd.CleanPodPolicy.ALL),
)
assert list(found) == list(wanted)
assert all(found[key] == wanted[key] and type(found[key]) is type(wanted[key]) for key in wanted)
assert type(found["job"].run_policy) is qd.RunPolicy
assert found["mode"] is study.Mode.FAST and list(found["sizes"].items()) == [("train", 1), (2, "two")]
assert {type(one.hyperparameters) for one in runs["restarted"].checkpoints} == {type(None)}
""")


def test_a_sharded_checkpoint_is_loaded_whole(older: Notebook) -> None:
    older.ok("""
path = runs["sharded"].checkpoints.latest.path
reference = torch.load("sharded.pt")
model = study.Net()
optimizer = torch.optim.AdamW(model.parameters())
loaded = qd.load_checkpoint(path, into=(model, optimizer), verify=True)
assert (loaded.step, loaded.metrics, loaded.extra) == (7, {"loss": 0.25}, {"note": "sharded"})
assert same(dict(model.state_dict()), dict(reference["model"]))
state = optimizer.state_dict()["state"]
assert list(state) == list(reference["optimizer"]) == [0, 1, 2, 3]
assert all(same(state[number][key], reference["optimizer"][number][key])
           for number in state for key in ("step", "exp_avg", "exp_avg_sq"))
""")


def test_a_sharded_checkpoint_is_loaded_by_the_ranks_of_a_sharded_model(older: Notebook) -> None:
    ran = older.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=2))
def load(path):
    from torch.distributed.fsdp import fully_shard
    model = study.Net()
    for part in (model.wide, model.narrow, model):
        fully_shard(part)
    optimizer = torch.optim.AdamW(model.parameters())
    qd.load_checkpoint(path, into=(model, optimizer))
    return ({key: whole(value).clone() for key, value in model.state_dict().items()},
            [whole(state["exp_avg"]).clone() for state in optimizer.state_dict()["state"].values()])

reference = torch.load("sharded.pt")
weights, moments = load(str(runs["sharded"].checkpoints.latest.path))
assert same(weights, dict(reference["model"]))
assert same(moments, [state["exp_avg"] for state in reference["optimizer"].values()])
print("the same")
""")
    assert "the same" in ran.lines()


def test_a_file_of_flyte_s_form_is_loaded_with_its_types(older: Notebook) -> None:
    older.ok("""
loaded = qd.PyTorchCheckpoint.load("flyte.pt")
assert type(loaded.hyperparameters) is study.Settings and loaded.hyperparameters == study.settings()
model = study.Net()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.copy_(torch.arange(float(parameter.numel())).view_as(parameter))
assert same(dict(loaded["module_state_dict"]), dict(model.state_dict()))
assert loaded["optimizer_state_dict"]["param_groups"][0]["momentum"] == 0.9
for result in runs["flyte"].results:
    sent = result.return_value
    assert type(sent) is qd.PyTorchCheckpoint and sent.hyperparameters == loaded.hyperparameters
    assert same(dict(sent["module_state_dict"]), dict(loaded["module_state_dict"]))
    assert list(sent) == list(loaded)
""")


def test_an_older_run_is_continued_by_a_new_one(older: Notebook) -> None:
    """What the notebook would do after an upgrade: the function as it was, `resume`."""
    older.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=2), name="after the upgrade")
def train(steps):
    model = study.Net()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    saved = qd.load_checkpoint("latest", into=(model, optimizer, scheduler), rng=True)
    began = {key: value.clone() for key, value in model.state_dict().items()}
    for step in range(saved.step + 1, saved.step + 1 + steps):
        qd.log(loss=abs(step - 2) + 0.5, step=step)
        qd.save_checkpoint(model, optimizer, step=step, metrics={"loss": abs(step - 2) + 0.5})
    return saved.step, began, qd.current().parent_dir.name

for name, last in (("net", 5), ("net, resumed", 7)):
    step, began, parent = train.options(resume=name)(2)
    assert (step, parent) == (last, runs[name].run_id)
    assert same(began, dict(torch.load(f"net-{6 * (last > 5)}.pt")[last]["model"]))
    run = qd.runs("after the upgrade")[0]
    assert run.parent.run_id == runs[name].run_id
    assert list(run.metrics["loss"].steps(1)) == list(range(last + 3))
    assert [one.step for one in run.checkpoints] == [last + 1, last + 2]
""")


def test_what_a_run_wrote_for_its_next_attempt_is_given_to_the_run_that_continues_it(older: Notebook) -> None:
    ran = older.ok("%%distributed -n 2 --fresh --resume restarted\nqd.current().checkpoint.read()")
    assert "[0] b'rank 0, attempt 1'" in ran.lines()
    assert "[1] b'rank 1, attempt 1'" in ran.lines()
