"""`qd.load_checkpoint` and `Checkpoints`: what is found, what fits, what is damaged, and what may not run."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quarterdeck.checkpointing import saver, sharded
from quarterdeck.checkpointing.checkpoint import Checkpoint, Checkpoints
from quarterdeck.checkpointing.checksum_writer import Sink
from quarterdeck.checkpointing.errors import DamagedCheckpoint, UntrustedCheckpoint
from quarterdeck.checkpointing.readers import open_foreign
from quarterdeck.checkpointing.save import Loaded, flush, load_checkpoint, save_checkpoint
from quarterdeck.checkpointing.storage import place_of
from quarterdeck.context import Context, working_for
from quarterdeck.errors import UsageError

DEADLINE_S = 30
FLIPS = 150


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """A run of one rank."""
    with working_for(Context(run_id="r", run_dir=tmp_path / "runs" / "r")) as context:
        yield context
        saver.saver.release()


def trained(seed: int = 1) -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))
    optimizer = torch.optim.Adam(
        [{"params": model[0].parameters()}, {"params": model[1:].parameters(), "lr": 0.5}]
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(seed):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    return model, optimizer, scheduler


def snapshot(*parts: Any) -> str:
    """All of their state, comparable."""
    with torch.no_grad():
        return "\n".join(str(part.state_dict()) for part in parts)


def found(loaded: Loaded | None) -> Loaded:
    assert loaded is not None
    return loaded


def folder(context: Context) -> Path:
    return context.run_dir / "checkpoints"


# ---- what is found


def test_all_of_it_comes_back(here: Context) -> None:
    saved, fresh = trained(3), trained(1)
    save_checkpoint(*saved, step=7, epoch=2.5, metrics={"loss": 0.5}, hyperparameters={"lr": 0.1}, extra=[1])
    into = (fresh[1], None, fresh[2], fresh[0])  # by what they are, in any order
    loaded = found(load_checkpoint(into=into))
    assert snapshot(*fresh) == snapshot(*saved)
    assert (loaded.step, loaded.epoch, loaded.metrics) == (7, 2.5, {"loss": 0.5})
    assert (loaded.hyperparameters, loaded.extra, loaded.model) == ({"lr": 0.1}, [1], None)
    for model, optimizer, _ in (saved, fresh):  # and goes on alike
        torch.manual_seed(9)
        optimizer.zero_grad()
        model(torch.randn(5, 4)).sum().backward()
        optimizer.step()
    assert snapshot(*fresh) == snapshot(*saved)


def test_latest_best_step_and_path(here: Context) -> None:
    assert load_checkpoint() is None
    assert load_checkpoint("best:loss") is None
    for step, loss in enumerate((3.0, 1.0, 2.0)):
        save_checkpoint({"x": torch.tensor(step)}, step=step * 100, metrics={"loss": loss})
    steps: dict[Any, int] = {
        "latest": 200, "best": 100, "best:loss": 100, "best:max:loss": 0, 100: 100, str(folder(here)): 200,
        folder(here) / "step-00000100": 100, f"file://{folder(here)}/step-00000000": 0,
    }  # fmt: skip
    for which, step in steps.items():
        loaded = found(load_checkpoint(which))
        assert (loaded.step, loaded.model) == (step, {"x": torch.tensor(step // 100)})
    assert found(load_checkpoint(Checkpoints(folder(here))[1])).step == 100
    with pytest.raises(UsageError, match=r"no checkpoint of step 130.*\n.*The nearest: 0, 100, 200"):
        load_checkpoint(130)
    with pytest.raises(UsageError, match=r"metric 'acc'.\nThey have: loss"):
        load_checkpoint("best:acc")
    with pytest.raises(UsageError, match="There is no checkpoint at"):
        load_checkpoint(folder(here) / "nothing.pt")
    with pytest.raises(UsageError, match=r"is not a checkpoint: it has no manifest\.json"):
        load_checkpoint(here.run_dir.parent.parent)


def test_a_load_waits_for_what_another_rank_is_writing(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the ranks of one job would go on from different steps."""
    save_checkpoint({"x": torch.tensor(1)}, step=1, wait=True)
    draft = place_of(folder(here)).draft("step-00000002", "other")
    started = threading.Event()
    steps: list[int] = []

    def load() -> None:
        started.set()
        steps.append(found(load_checkpoint()).step)

    thread = threading.Thread(target=load)
    thread.start()
    assert started.wait(DEADLINE_S)
    thread.join(0.3)
    assert thread.is_alive()
    draft.leave()
    thread.join(DEADLINE_S)
    assert steps == [1]


def test_without_a_place_it_gives_the_state_dict(here: Context) -> None:
    model, *_ = trained()
    save_checkpoint(model, step=1)
    loaded = found(load_checkpoint(map_location="meta"))
    assert loaded.model is not None
    assert {tensor.device.type for tensor in loaded.model.values()} == {"meta"}
    loaded = found(load_checkpoint())
    shutil.rmtree(folder(here))
    assert loaded.model is not None
    assert torch.equal(loaded.model["0.weight"], model.state_dict()["0.weight"])  # not a view of the file


def test_modules_keep_state_of_their_own_besides_tensors(here: Context) -> None:
    class Counting(torch.nn.Module):
        count = 0

        def get_extra_state(self) -> dict[str, int]:
            return {"count": self.count}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    model, other = (torch.nn.Sequential(Counting(), torch.nn.Linear(1, 1)) for _ in range(2))
    model[0].count = 5
    save_checkpoint(model, step=1)
    load_checkpoint(into=other)
    assert other[0].count == 5


# ---- what does not fit


def test_what_does_not_fit_is_listed_and_nothing_changes(here: Context) -> None:
    saved = trained(3)
    save_checkpoint(saved[0], saved[1], step=1)
    other = torch.nn.Sequential(
        torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2), torch.nn.Linear(2, 1)
    )
    before = snapshot(other)
    with pytest.raises(UsageError) as caught:
        load_checkpoint(into=other)
    text = str(caught.value)
    assert "does not fit into Sequential; nothing was loaded" in text
    assert "not in the checkpoint: 3.weight, 3.bias" in text
    assert "not in the model: 1.bias" in text
    assert "another shape: 0.weight [6, 4] there, [6, 5] here" in text
    assert "strict=False" in text
    assert snapshot(other) == before
    load_checkpoint(into=other, strict=False)
    assert torch.equal(other[2].weight, saved[0].get_parameter("2.weight"))


@pytest.mark.parametrize(
    "case", ["no scheduler", "other groups", "fewer parameters", "two models", "unknown"]
)
def test_all_is_checked_before_the_first_value_changes(here: Context, case: str) -> None:
    model, optimizer, _ = trained(3)
    save_checkpoint(model, optimizer, step=1)
    fresh, stepper, plan = trained(1)
    into: dict[str, tuple[Any, ...]] = {
        "no scheduler": (fresh, stepper, plan),
        "other groups": (fresh, torch.optim.Adam(fresh.parameters())),
        "fewer parameters": (fresh, torch.optim.Adam(fresh[0].parameters())),
        "two models": (fresh, model),
        "unknown": (fresh, 7),
    }
    before = snapshot(fresh, stepper)
    with pytest.raises(UsageError):
        load_checkpoint(into=into[case])
    assert snapshot(fresh, stepper) == before


def test_parameters_are_told_apart_by_name(here: Context) -> None:
    """Groups whose order is another one get the state of their own parameters."""
    model, optimizer, _ = trained(3)
    save_checkpoint(model, optimizer, step=1)
    fresh, *_ = trained(1)
    turned = torch.optim.Adam(
        [{"params": list(fresh[1:].parameters())[::-1]}, {"params": fresh[0].parameters()}]
    )
    load_checkpoint(into=(fresh, turned))
    assert turned.param_groups[0]["lr"] == optimizer.param_groups[1]["lr"] != optimizer.param_groups[0]["lr"]
    mine, theirs = (
        {name: opt.state[parameter]["exp_avg"] for name, parameter in net.named_parameters()}
        for net, opt in ((fresh, turned), (model, optimizer))
    )
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_model_on_the_meta_device_is_told_what_to_do(here: Context) -> None:
    save_checkpoint(torch.nn.Linear(2, 2), step=1)
    with pytest.raises(UsageError, match="to_empty"):
        load_checkpoint(into=torch.nn.Linear(2, 2, device="meta"))


# ---- what is damaged


def three(context: Context) -> list[Path]:
    """Checkpoints whose values are their steps."""
    paths = []
    for step in (1, 2, 3):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))], momentum=0.9)
        paths.append(
            save_checkpoint(
                {"x": torch.full((5,), float(step))},
                optimizer,
                step=step,
                extra=torch.full((5,), float(step)),
            )
        )
    flush()
    return [Path(path) for path in paths]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "extra.pt", "tensors.json", "manifest.json"]
)
def test_damaged_ones_are_named_and_passed_over(here: Context, name: str) -> None:
    third = three(here)[2] / name
    whole = third.read_bytes()
    for damage in (whole[:-1], whole[: len(whole) // 2], b"", None, whole + b"x"):
        if damage is None:
            third.unlink()
        else:
            third.write_bytes(damage)
        checkpoint = Checkpoints(folder(here))[2]
        assert not checkpoint.valid or (name == "manifest.json" and damage == whole + b"x")
        with pytest.warns(UserWarning, match=r"step-00000003 is passed over.*"):
            assert found(load_checkpoint()).step == 2
        with pytest.raises(DamagedCheckpoint):
            load_checkpoint(third.parent)
        assert [c.step for c in Checkpoints(folder(here)).valid] == [1, 2]
        third.write_bytes(whole)
    assert found(load_checkpoint()).step == 3


def test_no_flipped_bit_passes(here: Context) -> None:
    """In no file: it is found, or it changes nothing of what is loaded."""
    third, dice = three(here)[2], random.Random(3)
    before = found(load_checkpoint())
    seen = 0
    for _ in range(FLIPS):
        path = third / dice.choice(sorted(os.listdir(third)))
        whole = path.read_bytes()
        at, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = found(load_checkpoint())
        if loaded.step == 3:
            assert str(loaded.model) == str(before.model)
            assert str(loaded.extra) == str(before.extra)
        else:
            assert loaded.step == 2
            seen += 1
        path.write_bytes(whole)
    assert seen > FLIPS * 0.9


def test_large_files_are_compared_on_request(here: Context) -> None:
    from quarterdeck.checkpointing import readers

    path = three(here)[2] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CHECKED_BYTES", 10)
        load_checkpoint(3)
        with pytest.raises(DamagedCheckpoint, match=r"model\.safetensors was altered"):
            load_checkpoint(3, verify=True)
        with pytest.raises(DamagedCheckpoint):
            Checkpoints(folder(here))[2].verify()
        with pytest.raises(DamagedCheckpoint):
            Checkpoints(folder(here))[2].export(here.run_dir / "x.pt")
    assert not (here.run_dir / "x.pt").exists()


def test_foreign_folders_are_listed_with_a_reason_and_are_never_fatal(here: Context) -> None:
    three(here)
    for name in ("rank-0", "attempt-1", ".hidden", "notes", "step-00000009", "step-x"):
        (folder(here) / name).mkdir()
    (folder(here) / "file.txt").write_text("x")
    (folder(here) / "step-00000009" / "manifest.json").mkdir()
    os.symlink("/nowhere", folder(here) / "step-00000010")
    checkpoints = Checkpoints(folder(here))
    assert [checkpoint.name for checkpoint in checkpoints.invalid] == ["notes", "step-x", "step-00000009"]
    assert all(checkpoint.problem for checkpoint in checkpoints.invalid)
    assert "it has no manifest.json" in checkpoints[0].problem
    assert checkpoints.latest is not None
    assert checkpoints.latest.step == 3
    assert list(Checkpoints(folder(here) / "nothing")) == []


def test_a_thousand_are_listed_from_their_manifests(here: Context) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(100)))
    path = Path(save_checkpoint(model, step=0, metrics={"loss": 1.0}, hyperparameters={"lr": 0.1}, wait=True))
    for step in range(1, 1000):
        os.mkdir(path.with_name(f"step-{step:08d}"))
        for name in os.listdir(path):
            os.link(path / name, path.with_name(f"step-{step:08d}") / name)
    took_s = []
    for _ in range(5):
        began_s = time.thread_time()
        checkpoints = Checkpoints(folder(here))
        took_s.append(time.thread_time() - began_s)
        assert len(checkpoints.valid) == 1000
    assert min(took_s) < 2  # 0.1 s on a machine that has nothing else to do


# ---- what may not run

MARK = Path(f"/tmp/quarterdeck-test-{os.getpid()}-was-run")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARK}",)


@pytest.fixture
def mark() -> Iterator[Path]:
    MARK.unlink(missing_ok=True)
    yield MARK
    MARK.unlink(missing_ok=True)


def reseal(checkpoint: Path, name: str, data: bytes) -> None:
    """As who makes a whole checkpoint would: manifest and checksums fit."""
    (checkpoint / name).write_bytes(data)
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())["manifest"]
    manifest["files"][name] = {"size_bytes": len(data), "crc32": zlib.crc32(data)}
    _write_manifest(checkpoint, manifest)


def _write_manifest(checkpoint: Path, manifest: dict[str, Any]) -> None:
    inner = json.dumps(manifest).encode()
    outer = b'{"crc32": %d, "manifest": %s}' % (zlib.crc32(inner), inner)
    (checkpoint / "manifest.json").write_bytes(outer)


def torch_bytes(value: Any) -> bytes:
    parts: list[bytes] = []
    sink = Sink(lambda piece: parts.append(bytes(piece)))
    torch.save(value, sink.as_file())
    return b"".join(parts)


@pytest.mark.parametrize("name", ["optimizer.pt", "extra.pt", "rank-00000.pt"])
@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_hostile_pickle_in_a_checkpoint_is_refused(here: Context, mark: Path, name: str, form: str) -> None:
    checkpoint = three(here)[2]
    reseal(checkpoint, name, torch_bytes({"x": Evil()}) if form == "zip" else pickle.dumps(Evil()))
    assert Checkpoints(folder(here))[2].valid  # looking at it is safe
    assert Checkpoints(folder(here))[2].tensors
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(3))])
    with pytest.raises(UntrustedCheckpoint, match=rf"{name} holds posix\.system.*\n.*trust=True"):
        load_checkpoint(into=optimizer, rng=True)
    assert not mark.exists()


def test_trust_is_asked_for_by_name(here: Context, mark: Path) -> None:
    reseal(three(here)[2], "extra.pt", torch_bytes({"x": Evil()}))
    load_checkpoint(trust=True)
    assert mark.exists()


def dcp_folder(path: Path, tensor_item: bytes | None = None, metadata: bytes | None = None) -> Path:
    """As torch.distributed.checkpoint writes one, with what is given in the place of its own."""
    path.mkdir()
    item = torch_bytes(torch.arange(4.0)) if tensor_item is None else tensor_item
    (path / "__0_0.distcp").write_bytes(item)
    piece = sharded.Piece(("model", "x"), (0,), (4,), (4,), "float32", "__0_0.distcp", 0, len(item))
    (path / ".metadata").write_bytes(sharded.metadata([piece]) if metadata is None else metadata)
    return path


def test_hostile_pickles_in_the_distributed_format_are_refused(tmp_path: Path, mark: Path) -> None:
    class Plain(dict[str, Any]):
        pass

    good = dcp_folder(tmp_path / "good")
    loaded = found(load_checkpoint(good))
    assert loaded.model is not None
    assert loaded.model["x"].tolist() == [0.0, 1.0, 2.0, 3.0]
    hostile = {
        "metadata": dcp_folder(tmp_path / "a", metadata=pickle.dumps(Evil())),
        "inside": dcp_folder(tmp_path / "b", metadata=pickle.dumps({"x": [Evil()]})),
        "item": dcp_folder(tmp_path / "c", tensor_item=torch_bytes(Evil())),
    }
    for path in hostile.values():
        with pytest.raises(UntrustedCheckpoint, match=r"posix\.system"):
            load_checkpoint(path)
        with pytest.raises(UntrustedCheckpoint):  # trust is for files of torch.save
            load_checkpoint(path, trust=True)
    for name, text in {"d": b"", "e": b"\x80\x04garbage", "f": pickle.dumps([1])}.items():
        with pytest.raises(DamagedCheckpoint):
            load_checkpoint(dcp_folder(tmp_path / name, metadata=text))
    assert not mark.exists()


def test_the_distributed_format_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    torch.save(torch.ones(4), tmp_path / "secret")
    size = (tmp_path / "secret").stat().st_size
    for file in ("../secret", str(tmp_path / "secret")):
        piece = sharded.Piece(("model", "x"), (0,), (4,), (4,), "float32", file, 0, size)
        path = dcp_folder(tmp_path / f"d{len(file)}", metadata=sharded.metadata([piece]))
        with pytest.raises(DamagedCheckpoint, match="names the file"):
            load_checkpoint(path)


def test_pieces_that_do_not_make_up_their_tensor_are_damage(tmp_path: Path) -> None:
    for at, (offsets, sizes, shape) in enumerate(
        [((1,), (4,), (4,)), ((0,), (3,), (4,)), ((-1,), (4,), (4,))]
    ):
        piece = sharded.Piece(("model", "x"), offsets, sizes, shape, "float32", "__0_0.distcp", 0, 10**9)
        with pytest.raises(DamagedCheckpoint):
            load_checkpoint(dcp_folder(tmp_path / str(at), metadata=sharded.metadata([piece])))


def test_a_manifest_names_no_file_outside_its_folder(here: Context) -> None:
    third = three(here)[2]
    manifest = json.loads((third / "manifest.json").read_bytes())["manifest"]
    for change in ({"files": {"../../x": {"size_bytes": 0, "crc32": 0}}}, {"data": ".."}, {"data": "/etc"}):
        _write_manifest(third, {**manifest, **change})
        assert "outside of its folder" in Checkpoints(folder(here))[2].problem
    _write_manifest(third, {**manifest, "format": 99})
    assert "has format 99" in Checkpoints(folder(here))[2].problem


LIES = [
    b"",
    b"{",
    b"[]",
    b"[" * 5000,
    b'{"x": 1}',
    b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    b'{"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "EVIL", "shape": [1], "data_offsets": [0, 4]}}',
    b'{"x": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 4]}}',
    b'{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
]


@pytest.mark.parametrize("header", LIES)
def test_a_safetensors_file_that_lies_is_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(path)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(path)


def test_a_safetensors_file_that_was_cut_or_has_grown_is_refused_by_its_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, dtype=torch.int8)}, path)
    whole = path.read_bytes()
    for damaged in [whole[:length] for length in range(len(whole))] + [whole + b"\0"]:
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpoint, match=r"x\.safetensors is not a whole safetensors file"):
            open_foreign(path)


def test_of_a_large_tensor_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path, size_bytes = tmp_path / "x.safetensors", 1 << 30
    header = b'{"x": {"dtype": "F32", "shape": [%d], "data_offsets": [0, %d]}}' % (
        size_bytes // 4,
        size_bytes,
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + size_bytes)
    before_bytes = _resident_bytes()
    found = open_foreign(path).tensors["x"].read((1 << 20,), (4,))
    assert found.tolist() == [0.0] * 4
    assert _resident_bytes() - before_bytes < size_bytes // 8


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ---- files of other makes


def test_files_of_torch_save(tmp_path: Path) -> None:
    saved = trained(3)
    weights, state = saved[0].state_dict(), saved[1].state_dict()
    forms: dict[str, Any] = {
        "plain.pt": weights,
        "ddp.pth": {f"module.{name}": value for name, value in weights.items()},
        "compiled.bin": {"state_dict": {f"_orig_mod.{name}": value for name, value in weights.items()}},
        "flyte.pt": {"epochs": 5, "module_state_dict": weights, "optimizer_state_dict": state},
        "usual.pt": {"model": weights, "optimizer": state, "epoch": 3},
    }
    for name, form in forms.items():
        torch.save(form, tmp_path / name, _use_new_zipfile_serialization=name != "plain.pt")
        model, optimizer, _ = trained(1)
        has_optimizer = name in ("flyte.pt", "usual.pt")
        loaded = found(load_checkpoint(tmp_path / name, into=(model, optimizer) if has_optimizer else model))
        assert (loaded.step, loaded.checkpoint) == (-1, None)
        assert snapshot(model) == snapshot(saved[0])
        if has_optimizer:
            assert snapshot(optimizer) == snapshot(saved[1])
    torch.save({"a": 1}, tmp_path / "none.pt")
    with pytest.raises(UsageError, match=r"holds no tensors.*\n.*It has: a"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("form", ["zip", "pickle", "garbage"])
def test_a_hostile_file_of_torch_save_is_refused(tmp_path: Path, mark: Path, form: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(
        {"zip": torch_bytes(Evil()), "pickle": pickle.dumps(Evil()), "garbage": b"gar" * 99}[form]
    )
    with pytest.raises(DamagedCheckpoint if form == "garbage" else UntrustedCheckpoint) as caught:
        load_checkpoint(path)
    assert form == "garbage" or "posix.system" in str(caught.value)
    assert not mark.exists()


def test_folders_and_files_of_hugging_face(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    saved, *_ = trained(3)
    weights = {name: value.clone() for name, value in saved.state_dict().items()}
    names = sorted(weights)
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
    save_file(weights, tmp_path / "one" / "model.safetensors", {"format": "pt"})
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, members in parts.items():
        save_file({name: weights[name] for name in members}, tmp_path / "many" / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    index = tmp_path / "many" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for path in (tmp_path / "one", tmp_path / "many", tmp_path / "one" / "model.safetensors"):
        model, *_ = trained(1)
        load_checkpoint(path, into=model)
        assert snapshot(model) == snapshot(saved)
    index.write_text(json.dumps({"weight_map": {"x": "../one/model.safetensors"}}))
    with pytest.raises(DamagedCheckpoint, match="not there"):
        load_checkpoint(tmp_path / "many")


def test_a_folder_of_torch_distributed_checkpoint(tmp_path: Path) -> None:
    from torch.distributed import checkpoint as dcp

    saved, *_ = trained(3)
    for at, prefix in enumerate(("model", "state_dict")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save({prefix: saved.state_dict(), "step": 5}, checkpoint_id=tmp_path / str(at), no_dist=True)
        model, *_ = trained(1)
        load_checkpoint(tmp_path / str(at), into=model)
        assert snapshot(model) == snapshot(saved)


# ---- one file out of it


def test_export_is_one_file_that_needs_nothing_of_ours(here: Context, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    saved = trained(3)
    save_checkpoint(*saved, step=3, extra={"a": 1}, hyperparameters={"lr": 0.1}, wait=True)
    checkpoint: Checkpoint = Checkpoints(folder(here))[0]
    whole = torch.load(checkpoint.export(tmp_path / "x.pt"), weights_only=True)
    assert whole["step"] == 3
    assert whole["hyperparameters"] == {"lr": 0.1}
    plain, optimizer, scheduler = trained(1)
    plain.load_state_dict(whole["model_state_dict"])
    optimizer.load_state_dict(whole["optimizer_state_dict"])
    scheduler.load_state_dict(whole["scheduler_state_dict"])
    assert snapshot(plain, optimizer, scheduler) == snapshot(*saved)
    weights = load_file(checkpoint.export(tmp_path / "x.safetensors"))
    assert weights.keys() == saved[0].state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in saved[0].state_dict().items())
    assert sorted(os.listdir(tmp_path)) == ["runs", "x.pt", "x.safetensors"]
    with pytest.raises(UsageError, match=r"\.safetensors or \.pt"):
        checkpoint.export(tmp_path / "x.zip")


def test_delete_and_pin(here: Context) -> None:
    three(here)
    first = Checkpoints(folder(here))[0]
    first.pin()
    with pytest.raises(UsageError, match="unpin"):
        first.delete()
    first.unpin()
    first.delete()
    assert [checkpoint.step for checkpoint in Checkpoints(folder(here))] == [2, 3]
