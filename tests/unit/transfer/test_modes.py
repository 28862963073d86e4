"""What the user has told torch (a default device, a dtype, a grad mode) changes nothing in what quarterdeck
does with tensors, and a failed save leaves nothing behind that breaks the next.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from quarterdeck.checkpointing import hyperparameters, saver
from quarterdeck.checkpointing.checkpoint import Checkpoints
from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.checkpointing.save import flush, load_checkpoint, save_checkpoint
from quarterdeck.context import Context, working_for
from quarterdeck.decks.render import modules, numbers
from quarterdeck.errors import UsageError
from quarterdeck.flyte.pytorch_checkpoint import PyTorchCheckpoint
from quarterdeck.metrics.log import log
from quarterdeck.metrics.series import Metrics
from quarterdeck.transfer.pickler import dumps, loads
from quarterdeck.worker.environment import seed_everything
from quarterdeck.worker.revive import _checksum


class Seeing(TorchFunctionMode):
    """As a profiler of the user's has it."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@contextmanager
def told(tell: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    tell(value)
    try:
        yield
    finally:
        tell(before)


Mode = Callable[[], AbstractContextManager[Any]]

MODES: dict[str, Mode] = {
    "none": nullcontext,
    "default device": lambda: told(torch.set_default_device, "meta", None),
    "in a block": lambda: torch.device("meta"),
    "float64": lambda: told(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: told(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "tensor type": lambda: told(torch.set_default_tensor_type, torch.DoubleTensor, torch.FloatTensor),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "grad off": lambda: told(torch.set_grad_enabled, False, True),
    "deterministic": lambda: told(torch.use_deterministic_algorithms, True, False),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "functions seen": Seeing,
    "dispatch seen": Dispatching,
}
"""A default device "cuda" takes the same lines as "meta" does."""

under_every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Context]:
    """A run of one rank."""
    with working_for(Context(run_id="r", run_dir=tmp_path / "runs" / "r")) as context:
        yield context
        with suppress(CheckpointError):
            flush()
        saver.saver.release()


class Sampler:
    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.generator = torch.Generator()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def trained(seed: int = 1) -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    train(model, optimizer)
    scheduler.step()
    return model, optimizer, scheduler


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()


def state(parts: Any) -> str:
    with torch.no_grad():
        return "\n".join(str(part.state_dict()) for part in parts)


def is_trainable(tensor: torch.Tensor) -> bool:
    (tensor.clone().requires_grad_() * 2).sum().backward()
    return tensor.device.type == "cpu" and not tensor.is_inference()


# ---- checkpoints


@under_every_mode
def test_what_is_saved_under_a_mode_is_what_was_there_and_the_next_save_works(mode: Mode) -> None:
    parts, extra = trained(), {"x": torch.arange(3.0), "y": [torch.ones(2, requires_grad=True)]}
    with mode():
        save_checkpoint(*parts, step=1, extra=extra, rng=True, sampler=Sampler(3), wait=True)
    first = state(parts)
    train(*parts[:2])
    save_checkpoint(*parts, step=2, extra=extra, wait=True)
    for step, expected in ((1, first), (2, state(parts))):
        found = trained(2)
        loaded = load_checkpoint(step, into=found)
        assert state(found) == expected
        assert loaded is not None
        assert loaded.extra["x"].tolist() == [0.0, 1.0, 2.0]


@under_every_mode
def test_what_is_loaded_under_a_mode_can_be_trained_with(mode: Mode) -> None:
    parts = trained()
    extra = {"x": torch.ones(3), "e": torch.ones(0)}
    save_checkpoint(*parts, step=1, extra=extra, rng=True, sampler=Sampler(3), wait=True)
    found, sampler = trained(2), Sampler()
    with mode():
        loaded = load_checkpoint(into=(*found, sampler), rng=True)
    assert loaded is not None
    assert state(found) == state(parts)
    assert sampler.epoch == 3
    assert all(map(is_trainable, loaded.extra.values()))
    train(*found[:2])
    with mode():
        alone = load_checkpoint()
        elsewhere = load_checkpoint(map_location="meta")
    assert alone is not None
    assert alone.model is not None
    assert all(map(is_trainable, (it for it in alone.model.values() if it.is_floating_point())))
    assert elsewhere is not None
    assert elsewhere.model is not None
    assert elsewhere.model["0.weight"].is_meta


@under_every_mode
def test_files_of_other_makes_and_exports(tmp_path: Path, mode: Mode) -> None:
    from safetensors.torch import load_file, save_file

    parts = trained()
    torch.save({"model": parts[0].state_dict(), "optimizer": parts[1].state_dict()}, tmp_path / "x.pt")
    save_file({"e": torch.empty(0)}, tmp_path / "e.safetensors")
    path = save_checkpoint(*parts, step=1, wait=True)
    found = trained(2)
    with mode():
        load_checkpoint(tmp_path / "x.pt", into=found[:2])
        empty = load_checkpoint(tmp_path / "e.safetensors")
        Checkpoints(Path(path).parent)[0].export(tmp_path / "out.safetensors")
        Checkpoints(Path(path).parent)[0].export(tmp_path / "out.pt")
    assert state(found[:2]) == state(parts[:2])
    train(*found[:2])
    assert empty is not None
    assert empty.model is not None
    assert empty.model["e"].device.type == "cpu"
    whole = torch.load(tmp_path / "out.pt", weights_only=True)["model_state_dict"]
    for name, tensor in parts[0].state_dict().items():
        assert torch.equal(whole[name], tensor)
        assert torch.equal(load_file(tmp_path / "out.safetensors")[name], tensor)


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of one rank."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@under_every_mode
def test_a_sharded_state(group: None, mode: Mode) -> None:
    from torch.distributed.fsdp import fully_shard

    def sharded(seed: int) -> tuple[Any, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model: Any = torch.nn.Linear(4, 4)
        fully_shard(model)
        optimizer = torch.optim.Adam(model.parameters())
        train(model, optimizer)
        return model, optimizer

    parts, found = sharded(1), sharded(2)
    with mode():
        save_checkpoint(*parts, step=1, wait=True)
        load_checkpoint(1, into=found)
    assert state(found) == state(parts)
    train(*found)
    save_checkpoint(*found, step=2, wait=True)
    with mode():
        alone = load_checkpoint(2)
    assert alone is not None
    assert alone.model is not None
    assert torch.equal(alone.model["weight"], found[0].weight.full_tensor())


@under_every_mode
def test_inference_tensors_are_saved_and_loaded_into(mode: Mode) -> None:
    with torch.inference_mode():
        model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    with mode():
        save_checkpoint(model, step=1, wait=True)
    with torch.inference_mode():
        load_checkpoint(1, into=other)
    assert torch.equal(other.weight, model.weight)
    save_checkpoint(other, step=2, wait=True)


@under_every_mode
def test_hyperparameters_and_flytes_form(tmp_path: Path, mode: Mode) -> None:
    model = trained()[0]
    with mode():
        PyTorchCheckpoint(model, {"lr": 0.1}).save(tmp_path / "f.pt")
        weight = PyTorchCheckpoint.load(tmp_path / "f.pt")["module_state_dict"]["0.weight"]
    assert torch.equal(weight, model[0].weight)
    assert is_trainable(weight)
    kept = {"t": torch.tensor([1.0, 2.0]), "half": torch.ones(2, dtype=torch.bfloat16)}
    with mode():
        found = hyperparameters.decode(hyperparameters.encode(kept))
    assert all(
        torch.equal(found[name], tensor) and is_trainable(found[name]) for name, tensor in kept.items()
    )


# ---- travel


def travellers() -> dict[str, Any]:
    return {
        "small": torch.arange(3.0),
        "large": torch.arange(1000.0),
        "empty": torch.empty(0),
        "whole numbers": torch.tensor([1, 2]),
        "trained": torch.ones(3, requires_grad=True),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "coo": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "on meta": torch.empty(3, device="meta"),
    }


@pytest.mark.parametrize("side", ["sender", "receiver"])
@under_every_mode
def test_tensors_arrive_as_they_left(mode: Mode, side: str) -> None:
    values, namespace = travellers(), {}
    with mode() if side == "sender" else nullcontext():
        sent = dumps(values, namespace)
    with mode() if side == "receiver" else nullcontext():
        found: Any = loads(sent.data, [bytearray(buffer) for buffer in sent.buffers], namespace)
    for name, tensor in values.items():
        arrived = found[name]
        assert (arrived.device, arrived.layout, arrived.dtype) == (tensor.device, tensor.layout, tensor.dtype)
        assert not arrived.is_inference(), name
        assert arrived.requires_grad == tensor.requires_grad
        if not tensor.is_meta:
            assert torch.equal(dense(arrived), dense(tensor)), name


def dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


@under_every_mode
def test_modules_and_optimizers_arrive_fit_for_training(mode: Mode) -> None:
    parts, namespace = trained()[:2], {}
    sent = dumps({"parts": parts}, namespace)
    with mode():
        found: Any = loads(sent.data, [bytearray(buffer) for buffer in sent.buffers], namespace)["parts"]
    assert state(found) == state(parts)
    train(*found)


# ---- metrics, decks, workers


@under_every_mode
def test_logged_tensors(here: Context, mode: Mode) -> None:
    grown = torch.tensor(2.0, requires_grad=True) * 2
    values = {"loss": torch.tensor(1.5), "grown": grown, "half": torch.tensor(1.25, dtype=torch.bfloat16)}
    with mode():
        log(**values)
    metrics = Metrics.read(here.run_dir)
    assert [list(metrics[name].values(0)) for name in values] == [[1.5], [4.0], [1.25]]


def test_a_logged_tensor_without_data_is_named() -> None:
    with (
        torch.device("meta"),
        pytest.raises(TypeError, match="'loss' is on the meta device, without a value"),
    ):
        log(loss=torch.ones(()))


@under_every_mode
def test_decks_show_the_same(mode: Mode) -> None:
    parts = trained()
    shown = [
        torch.randn(20, 20), torch.randn(3), torch.randn(3, 8, 8), torch.ones(2, dtype=torch.complex64),
        torch.eye(3).to_sparse(), torch.tensor([1, 2]), torch.tensor(True), parts[0][0].weight,
    ]  # fmt: skip

    def drawn() -> list[str]:
        return [*map(numbers.tensor, shown), modules.module(parts[0]), modules.optimizer(parts[1])]

    expected = drawn()
    with mode():
        assert drawn() == expected


@under_every_mode
def test_seeds_and_the_checksum_of_replicas(mode: Mode) -> None:
    model = trained()[0]
    expected = _checksum(model)
    with mode():
        assert _checksum(model) == expected
        seed_everything(3, 0)
    drawn = torch.rand(2).tolist()
    seed_everything(3, 0)
    assert drawn == torch.rand(2).tolist()


# ---- a save that fails


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_copied(targets: Any, sources: Any, **_: Any) -> None:
    targets[0].copy_(sources[0])
    raise KeyboardInterrupt


def no_memory(self: Any, key: Any, shape: Any, dtype: Any, pinned: bool) -> Any:
    self._kept[key] = torch.empty(tuple(shape), dtype=dtype, device="meta")
    raise MemoryError


FAILURES: dict[str, tuple[str, Any]] = {
    "interrupted before the copy": ("torch.optim.Adam.state_dict", interrupted),
    "interrupted in the copy": ("torch._foreach_copy_", half_copied),
    "no memory": ("quarterdeck.checkpointing.staging.Staging._memory", no_memory),
    "no place": ("quarterdeck.checkpointing.local.LocalPlace.draft", full),
    "a full disk": ("quarterdeck.checkpointing.snapshot.Snapshot.write", full),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_save_that_fails_leaves_nothing_that_breaks_the_next(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = trained()
    save_checkpoint(*parts, step=1, extra=[torch.ones(3)], wait=True)
    with monkeypatch.context() as patch:
        patch.setattr(*FAILURES[what])
        with pytest.raises((KeyboardInterrupt, MemoryError, CheckpointError)):
            save_checkpoint(*parts, step=2, extra=[torch.zeros(3)], wait=True)
    train(*parts[:2])
    for step in (2, 3):
        save_checkpoint(*parts, step=step, extra=[torch.full((3,), step)], wait=True)
        found = trained(2)
        loaded = load_checkpoint(step, into=found)
        assert state(found) == state(parts)
        assert loaded is not None
        assert loaded.extra[0].tolist() == [step] * 3


def fake() -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(3)


UNKEPT: dict[str, tuple[Callable[[], Any], str]] = {
    "coo": (lambda: torch.eye(3).to_sparse(), r"layout torch\.sparse_coo.*\n.*to_dense"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), r"layout torch\.sparse_csr.*\n.*to_dense"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), r"quantized.*\n.*dequantize"
    ),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), r"nested.*\n.*unbind"),
    "meta": (lambda: torch.empty(3, device="meta"), "no data"),
    "fake": (fake, "no data"),
    "four bits": (lambda: torch.empty(2, dtype=torch.int4), r"torch\.int4.*\n.*view"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNKEPT)
def test_a_tensor_that_no_file_keeps_is_refused_by_name_and_the_next_save_works(what: str) -> None:
    tensor, words = UNKEPT[what][0](), UNKEPT[what][1]
    for step in (0, 1):
        with pytest.raises(UsageError, match=rf"extra\['x'\]\[0\] is a .*{words}") as caught:
            save_checkpoint({"w": torch.ones(3)}, step=step, extra={"x": [tensor]}, wait=True)
        assert "running code" not in str(caught.value)
        with pytest.raises(UsageError, match=rf"model\.w is a .*{words}") as caught:
            save_checkpoint({"w": tensor}, step=step, wait=True)
        assert "extra" not in str(caught.value)
        save_checkpoint({"w": torch.ones(3)}, step=step, extra={"x": [torch.ones(3)]}, wait=True)


def test_a_mode_in_which_no_tensor_has_data_costs_its_own_save_only() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    weights = {"w": torch.arange(3.0)}
    with pytest.raises(AssertionError, match="FakeTensor"), FakeTensorMode():
        save_checkpoint(weights, step=1, wait=True)
    save_checkpoint(weights, step=1, wait=True)
    loaded = load_checkpoint()
    assert loaded is not None
    assert loaded.model is not None
    assert torch.equal(loaded.model["w"], weights["w"])
