"""`qd.PyTorchCheckpoint` does what Flyte's does, reads and writes its files, and has none of its traps.

Cases C2 to C5 are those of Flyte's own tests.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import json
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import quarterdeck as qd
from quarterdeck.checkpointing.errors import DamagedCheckpoint, UntrustedCheckpoint
from quarterdeck.checkpointing.hyperparameters import UnknownClass

STATES = ["module_state_dict", "optimizer_state_dict"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.out = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.conv(x)).mean((2, 3)))


class Mode(enum.Enum):
    FAST = "fast"


@dataclasses.dataclass
class Hyperparameters:
    epochs: int = 5
    loss: float = 0.4


class HyperparametersTuple(NamedTuple):
    epochs: int = 5
    loss: float = 0.4


@dataclasses.dataclass
class Rich:
    mode: Mode
    out: pathlib.Path
    inner: Hyperparameters
    betas: tuple[float, float] = (0.9, 0.999)


def trained() -> tuple[Net, torch.optim.SGD]:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    return net, optimizer


def same(one: Any, two: Any) -> bool:
    """Equal in every bit, through nested states."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def flyte_file(path: Path, module: Any, hyperparameters: dict[Any, Any], optimizer: Any) -> Path:
    """As Flyte writes it."""
    torch.save({STATES[0]: module.state_dict(), **hyperparameters, STATES[1]: optimizer.state_dict()}, path)
    return path


# ---- Flyte's behaviour


@pytest.mark.parametrize(
    "given",
    [{"epochs": 5, "loss": 0.4}, Hyperparameters(), HyperparametersTuple()],
    ids=["dict", "dataclass", "NamedTuple"],
)
def test_hyperparameters_and_states_load_into_a_new_model(given: Any, tmp_path: Path) -> None:
    net, optimizer = trained()
    path = qd.PyTorchCheckpoint(net, given, optimizer).save(tmp_path / "c.pt")
    checkpoint = qd.PyTorchCheckpoint.load(path)
    new = Net()
    new_optimizer = torch.optim.SGD(new.parameters(), lr=1.0, momentum=0.5)
    new.load_state_dict(checkpoint["module_state_dict"])
    new_optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    assert (checkpoint["epochs"], checkpoint["loss"]) == (5, 0.4)
    assert same(new.state_dict(), net.state_dict())
    assert same(new_optimizer.state_dict(), optimizer.state_dict())
    assert checkpoint.hyperparameters == given
    assert type(checkpoint.hyperparameters) is type(given)


def test_a_checkpoint_becomes_a_dict_with_flytes_keys() -> None:
    net, optimizer = trained()
    for given in ({"epochs": 5, "loss": 0.4}, Hyperparameters(), HyperparametersTuple()):
        flat = dict(qd.PyTorchCheckpoint(net, given, optimizer))
        assert list(flat) == ["module_state_dict", "epochs", "loss", "optimizer_state_dict"]


def test_a_module_alone_will_do(tmp_path: Path) -> None:
    checkpoint = qd.PyTorchCheckpoint(module=Net())
    assert list(checkpoint) == ["module_state_dict"]
    loaded = qd.PyTorchCheckpoint.load(checkpoint.save(tmp_path / "m.pt"))
    assert list(loaded) == ["module_state_dict"]
    assert loaded.hyperparameters is None


@pytest.mark.parametrize("given", [(), (None, {}), (None, None, None)])
def test_nothing_is_refused_with_flytes_words(given: Any) -> None:
    text = "^Must have at least one of module, hyperparameters, or optimizer$"
    with pytest.raises(ValueError, match=text):
        qd.PyTorchCheckpoint(*given)


@pytest.mark.parametrize("given", [[1], (1, 2), "epochs", Hyperparameters, 5, Mode.FAST])
@pytest.mark.parametrize("error", [ValueError, TypeError, AssertionError, qd.UsageError])
def test_other_hyperparameters_are_refused_with_flytes_words(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        qd.PyTorchCheckpoint(hyperparameters=given)
    words = f"hyperparameters must be a dict, dataclass, or NamedTuple. Got {type(given)}"
    assert str(caught.value) == words


def test_the_seeds_prediction_task_runs_unchanged() -> None:
    class Model(nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.layer = nn.Linear(features, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    model, x = Model(4), torch.randn(5, 4)
    checkpoint = pickle.loads(pickle.dumps(qd.PyTorchCheckpoint(module=model)))
    new = Model(4)
    new.load_state_dict(checkpoint["module_state_dict"])
    assert torch.equal(new(x), model(x))


# ---- Flyte's traps


def test_an_empty_module_is_a_module() -> None:
    assert list(qd.PyTorchCheckpoint(nn.Sequential())) == ["module_state_dict"]


def test_a_module_of_length_zero_keeps_its_parameters(tmp_path: Path) -> None:
    class Sized(nn.Linear):
        def __len__(self) -> int:
            return 0

    path = qd.PyTorchCheckpoint(Sized(2, 2), {"epochs": 5}).save(tmp_path / "c.pt")
    assert list(torch.load(path, weights_only=True)["module_state_dict"]) == ["weight", "bias"]


@pytest.mark.parametrize("name", STATES)
def test_a_hyperparameter_cannot_take_the_place_of_the_weights(name: str, tmp_path: Path) -> None:
    with pytest.raises(qd.UsageError, match=f"must not have the name '{name}'"):
        qd.PyTorchCheckpoint(Net(), {name: 1})
    given: dict[str, Any] = {"epochs": 5}
    checkpoint = qd.PyTorchCheckpoint(Net(), given)
    given[name] = 1
    with pytest.raises(qd.UsageError, match="must not have the name"):
        checkpoint.save(tmp_path / "c.pt")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_module_or_optimizer_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module\. Got <class 'dict'>"):
        qd.PyTorchCheckpoint(module={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim\.Optimizer\. Got .*Linear"):
        qd.PyTorchCheckpoint(optimizer=nn.Linear(1, 1))  # type: ignore[arg-type]


RICH = {
    "mode": Mode.FAST,
    "out": pathlib.Path("/x"),
    "at": dt.datetime(2026, 1, 2),
    "lr": np.float32(0.1),
    "weights": np.array([1.0, 2.0]),
    "counts": defaultdict(int, {"a": 1}),
    "inner": Hyperparameters(),
    "betas": (0.9, [Mode.FAST]),
    "names": frozenset({"a"}),
    3: "three",
}


def test_rich_hyperparameters_load_without_trust_and_with_their_types(tmp_path: Path) -> None:
    path = qd.PyTorchCheckpoint(nn.Linear(1, 1), RICH).save(tmp_path / "c.pt")
    back = qd.PyTorchCheckpoint.load(path).hyperparameters
    assert {key: repr(value) for key, value in back.items()} == {key: repr(v) for key, v in RICH.items()}


def test_every_reader_of_the_file_sees_them_as_plain_values(tmp_path: Path) -> None:
    path = qd.PyTorchCheckpoint(nn.Linear(1, 1), RICH).save(tmp_path / "c.pt")
    for options in ({}, {"mmap": True}):
        flat = torch.load(path, weights_only=True, **options)
        del flat["module_state_dict"]
        assert flat == {
            "mode": "fast",
            "out": "/x",
            "at": "2026-01-02 00:00:00",
            "lr": float(np.float32(0.1)),
            "weights": [1.0, 2.0],
            "counts": {"a": 1},
            "inner": {"epochs": 5, "loss": 0.4},
            "betas": (0.9, ["fast"]),
            "names": {"a"},
            3: "three",
        }


def test_a_nested_dataclass_comes_back_as_itself(tmp_path: Path) -> None:
    rich = Rich(Mode.FAST, pathlib.Path("a"), Hyperparameters(epochs=1))
    path = qd.PyTorchCheckpoint(None, rich).save(tmp_path / "c.pt")
    assert qd.PyTorchCheckpoint.load(path).hyperparameters == rich


def test_torchs_own_values_stay_in_the_file_as_they_are(tmp_path: Path) -> None:
    given = {"w": torch.tensor([1.0, 3.0]), "dtype": torch.float16, "device": torch.device("cuda:1"), "z": 1j}
    path = qd.PyTorchCheckpoint(None, given).save(tmp_path / "c.pt")
    assert same(torch.load(path, weights_only=True), given)
    assert same(qd.PyTorchCheckpoint.load(path).hyperparameters, given)


def test_what_would_not_come_back_is_refused_by_name_and_nothing_is_replaced(tmp_path: Path) -> None:
    path = qd.PyTorchCheckpoint(None, {"lr": 1}).save(tmp_path / "c.pt")
    before = path.read_bytes()
    with pytest.raises(qd.UsageError, match=r"hyperparameters\.opt\.betas\[1\]: a lambda cannot be kept"):
        qd.PyTorchCheckpoint(None, {"opt": {"betas": [1, lambda: 0]}}).save(path)

    class Keeping(nn.Linear):
        def get_extra_state(self) -> Any:
            return pathlib.Path("x")

        def set_extra_state(self, state: Any) -> None: ...

    with pytest.raises(qd.UsageError, match=r"The state holds pathlib\.PosixPath"):
        qd.PyTorchCheckpoint(Keeping(1, 1)).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_wrapped_models_have_the_names_of_the_bare_one(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = Net()
        wrapped = torch.compile(nn.parallel.DistributedDataParallel(torch.compile(net, backend="eager")))
        checkpoint = qd.PyTorchCheckpoint(wrapped)  # type: ignore[arg-type]
        assert same(checkpoint["module_state_dict"], net.state_dict())
        assert same(qd.PyTorchCheckpoint(nn.DataParallel(net))["module_state_dict"], net.state_dict())
    finally:
        torch.distributed.destroy_process_group()


def test_a_sharded_model_is_refused_with_the_way_out() -> None:
    class DTensor(torch.Tensor):
        pass

    net = nn.Linear(1, 1)
    net.register_buffer("part", torch.ones(1).as_subclass(DTensor))
    with pytest.raises(qd.UsageError, match=r"sharded over the ranks\.\nqd\.save_checkpoint"):
        qd.PyTorchCheckpoint(net)


def test_the_states_are_live_until_the_checkpoint_is_sent() -> None:
    net, optimizer = trained()
    checkpoint = qd.PyTorchCheckpoint(net, None, optimizer)
    sent = pickle.loads(pickle.dumps(checkpoint))
    with torch.no_grad():
        net.out.bias.fill_(7)
    assert checkpoint["module_state_dict"]["out.bias"].item() == 7
    assert sent["module_state_dict"]["out.bias"].item() != 7


# ---- files


def test_plain_hyperparameters_give_exactly_flytes_file(tmp_path: Path) -> None:
    net, optimizer = trained()
    path = qd.PyTorchCheckpoint(net, {"epochs": 5, "loss": 0.4}, optimizer).save(tmp_path / "ours.pt")
    theirs = flyte_file(tmp_path / "theirs.pt", net, {"epochs": 5, "loss": 0.4}, optimizer)
    one, two = (torch.load(file, weights_only=True) for file in (path, theirs))
    assert same(one, two)
    records = [
        {name.partition("/")[2] for name in zipfile.ZipFile(file).namelist()} for file in (path, theirs)
    ]
    assert records[0] == records[1]


def test_a_file_of_flytes_loads(tmp_path: Path) -> None:
    net, optimizer = trained()
    path = flyte_file(tmp_path / "theirs.pt", net, {"epochs": 5}, optimizer)
    checkpoint = qd.PyTorchCheckpoint.load(path)
    assert checkpoint.hyperparameters == {"epochs": 5}
    assert same(checkpoint["module_state_dict"], net.state_dict())
    assert same(checkpoint["optimizer_state_dict"], optimizer.state_dict())


def test_a_file_of_flytes_that_needs_trust_says_what_for(tmp_path: Path) -> None:
    net, optimizer = trained()
    path = flyte_file(tmp_path / "theirs.pt", net, {"mode": Mode.FAST, "out": pathlib.Path("/x")}, optimizer)
    with pytest.raises(UntrustedCheckpoint, match=r"(?s)pathlib\.PosixPath.*Mode.*trust=True"):
        qd.PyTorchCheckpoint.load(path)
    assert qd.PyTorchCheckpoint.load(path, trust=True).hyperparameters["mode"] is Mode.FAST


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_runs_nothing(zipped: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "bad.pt", tmp_path / "ran"
    torch.save({"module_state_dict": {}, "x": Bomb(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UntrustedCheckpoint, match=r"posix\.mkdir"):
        qd.PyTorchCheckpoint.load(path)
    assert not mark.exists()


def test_hostile_typed_hyperparameters_are_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with path.open("wb") as file:
        torch.save({"module_state_dict": {}, "epochs": 1}, file)
    with zipfile.ZipFile(path, "a") as archive:
        text = json.dumps({"p": {"$dataclass": "subprocess:Popen", "fields": {"args": "true"}}})
        archive.writestr("archive/.quarterdeck/hyperparameters.json", text)
    back = qd.PyTorchCheckpoint.load(path).hyperparameters
    assert isinstance(back["p"], UnknownClass)
    assert back["p"] == {"args": "true"}


@pytest.mark.parametrize("text", ["[1]", "{", "null", '{"$enum": "x:Y", "name": []}', "[" * 100_000])
def test_damaged_typed_hyperparameters_fall_back_to_the_plain_ones(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    with path.open("wb") as file:
        torch.save({"epochs": 1}, file)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/.quarterdeck/hyperparameters.json", text)
    back = qd.PyTorchCheckpoint.load(path).hyperparameters
    assert back in ({"epochs": 1}, {"$enum": "x:Y", "name": []}, {"name": []})


def test_every_truncation_of_a_file_is_told_and_never_half_loaded(tmp_path: Path) -> None:
    path = qd.PyTorchCheckpoint(nn.Linear(2, 2), RICH).save(tmp_path / "c.pt")
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:size])
        with pytest.raises((DamagedCheckpoint, UntrustedCheckpoint)):
            qd.PyTorchCheckpoint.load(path)


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(DamagedCheckpoint, match="holds a list"):
        qd.PyTorchCheckpoint.load(tmp_path / "list.pt")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DamagedCheckpoint, match=r"notes\.txt"):
        qd.PyTorchCheckpoint.load(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError):
        qd.PyTorchCheckpoint.load(tmp_path / "missing.pt")


def test_a_save_that_dies_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = qd.PyTorchCheckpoint(None, {"lr": 1}).save(tmp_path / "c.pt")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for place, name in ((torch, "save"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(OSError, match="No space"):
                qd.PyTorchCheckpoint(None, {"lr": 2}).save(path)
        assert qd.PyTorchCheckpoint.load(path)["lr"] == 1
        assert list(tmp_path.iterdir()) == [path]


# ---- dicts, JSON, schema


def test_to_dict_and_back_copies_nothing() -> None:
    net, optimizer = trained()
    checkpoint = qd.PyTorchCheckpoint(net, Hyperparameters(), optimizer)
    told = checkpoint.to_dict()
    assert list(told) == ["module", "hyperparameters", "optimizer"]
    back = qd.PyTorchCheckpoint.from_dict(told)
    assert back.module is net
    assert back.optimizer is optimizer
    assert back.hyperparameters == Hyperparameters()
    states = pickle.loads(pickle.dumps(checkpoint)).to_dict()
    assert same(qd.PyTorchCheckpoint.from_dict(states)["module_state_dict"], net.state_dict())


@pytest.mark.parametrize(
    "given", [{"epochs": 5, "betas": (0.9, 0.99)}, Hyperparameters(), HyperparametersTuple()]
)
def test_json_works_with_a_module_and_names_the_weights_by_hash(given: Any, tmp_path: Path) -> None:
    net, optimizer = trained()
    checkpoint = qd.PyTorchCheckpoint(net, given, optimizer)
    text = checkpoint.to_json(indent=2, sort_keys=True)
    assert len(text) < 3000
    told = json.loads(text)
    assert told["module"]["tensors"]["conv.weight"] == "float32 [2, 1, 3, 3]"
    back = qd.PyTorchCheckpoint.from_json(text)
    assert back.hyperparameters == given
    assert type(back.hyperparameters) is type(given)
    assert sorted(back) == sorted(list(checkpoint)[1:-1])
    assert back.to_json(indent=2, sort_keys=True) == text
    path = checkpoint.save(tmp_path / "c.pt")
    for weights in (path, checkpoint):
        whole = qd.PyTorchCheckpoint.from_json(text, weights=weights)
        assert same(whole["module_state_dict"], net.state_dict())
        assert same(whole["optimizer_state_dict"], optimizer.state_dict())


def test_weights_that_json_does_not_hold_are_not_made_up(tmp_path: Path) -> None:
    text = qd.PyTorchCheckpoint(nn.Linear(1, 1)).to_json()
    checkpoint = qd.PyTorchCheckpoint.from_json(text)
    with pytest.raises(qd.UsageError, match=r"names its module_state_dict by hash\.\nGive the file"):
        checkpoint["module_state_dict"]
    assert checkpoint.get("module_state_dict") is None
    with pytest.raises(qd.UsageError, match="by hash"):
        checkpoint.save(tmp_path / "c.pt")
    with pytest.raises(qd.UsageError, match="another module_state_dict than the JSON names"):
        qd.PyTorchCheckpoint.from_json(text, weights=qd.PyTorchCheckpoint(nn.Linear(1, 1)))
    assert pickle.loads(pickle.dumps(checkpoint)).to_json() == text


def test_the_hash_tells_weights_apart_by_every_bit_name_and_shape() -> None:
    def told(**tensors: torch.Tensor) -> str:
        net = nn.Module()
        for name, tensor in tensors.items():
            net.register_buffer(name, tensor)
        return qd.PyTorchCheckpoint(net).to_json()

    zero = torch.zeros(4)
    assert told(a=zero) == told(a=torch.zeros(8)[::2])
    others = [told(b=zero), told(a=-zero), told(a=zero.view(2, 2)), told(a=zero.int()), told(a=zero, b=zero)]
    assert len({told(a=zero), *others}) == 6


def test_hyperparameters_alone_are_json_as_in_flyte() -> None:
    checkpoint = qd.PyTorchCheckpoint(hyperparameters={"epochs": 5})
    assert checkpoint.to_json() == '{"module": null, "hyperparameters": {"epochs": 5}, "optimizer": null}'
    assert qd.PyTorchCheckpoint.from_json(b'{"hyperparameters": {"epochs": 5}}')["epochs"] == 5
    assert qd.PyTorchCheckpoint.from_json('{"hyperparameters": {"x": 1.5}}', parse_float=str)["x"] == "1.5"
    with pytest.raises(ValueError, match="Must have at least one"):
        qd.PyTorchCheckpoint.from_json("{}", infer_missing=True)


@pytest.mark.parametrize("data", [[], "x", {"epochs": 5}, {"hyperparameters": [1]}, {"module": 5.0}])
def test_what_is_no_checkpoint_is_refused(data: Any) -> None:
    with pytest.raises(qd.UsageError):
        qd.PyTorchCheckpoint.from_dict(data)


def test_the_schema_dumps_loads_and_validates() -> None:
    net, _ = trained()
    checkpoint = qd.PyTorchCheckpoint(net, Hyperparameters())
    schema = qd.PyTorchCheckpoint.schema()
    assert schema.dumps(checkpoint) == checkpoint.to_json()
    assert schema.loads(schema.dumps(checkpoint)).hyperparameters == Hyperparameters()
    assert same(
        schema.load(schema.dump(checkpoint), weights=checkpoint)["module_state_dict"], net.state_dict()
    )
    assert schema.validate(schema.dump(checkpoint)) == {}
    assert "no field 'epochs'" in schema.validate({"epochs": 5})["_schema"][0]


def test_the_schema_has_marshmallows_options() -> None:
    both = [qd.PyTorchCheckpoint(nn.Linear(1, 1), {"epochs": count}) for count in (1, 2)]
    schema = qd.PyTorchCheckpoint.schema(only=["hyperparameters"], many=True)
    assert schema.dump(both) == [{"hyperparameters": {"epochs": 1}}, {"hyperparameters": {"epochs": 2}}]
    assert [one["epochs"] for one in schema.load(schema.dump(both))] == [1, 2]
    assert list(schema.validate([{}, {"hyperparameters": {"a": 1}}])) == [0]
    lenient = qd.PyTorchCheckpoint.schema(exclude=["module"], unknown="exclude")
    assert list(lenient.load({"module": 1, "odd": 2, "hyperparameters": {"a": 1}})) == ["a"]
    one_way = qd.PyTorchCheckpoint.schema(
        load_only=["module"], dump_only=["optimizer"], context={}, partial=True
    )
    assert (one_way.fields, one_way.load_fields) == (
        ("hyperparameters", "optimizer"),
        ("module", "hyperparameters"),
    )
    for wrong in ({"only": ["weights"]}, {"unknown": "include"}):
        with pytest.raises(TypeError):
            qd.PyTorchCheckpoint.schema(**wrong)  # type: ignore[arg-type]


# ---- as a value


def test_it_is_a_value_like_others() -> None:
    net, optimizer = trained()
    checkpoint = qd.PyTorchCheckpoint(net, Hyperparameters(), optimizer)
    assert "epochs" in checkpoint
    assert "module" not in checkpoint
    assert len(checkpoint) == 4
    assert checkpoint == checkpoint
    assert checkpoint != copy.copy(checkpoint)
    assert len({checkpoint, checkpoint}) == 1
    assert repr(checkpoint) == (
        "PyTorchCheckpoint(module: 9 tensors, 132 B, optimizer: 6 tensors, 108 B, "
        "hyperparameters=Hyperparameters(epochs=5, loss=0.4))"
    )
    with pytest.raises(KeyError):
        checkpoint["missing"]


def test_importing_it_imports_no_torch() -> None:
    code = (
        "import sys, quarterdeck as qd\n"
        "text = qd.PyTorchCheckpoint(hyperparameters={'a': 1}).to_json()\n"
        "assert qd.PyTorchCheckpoint.from_json(text)['a'] == 1\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
