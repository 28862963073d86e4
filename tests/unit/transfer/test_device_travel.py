"""Tensors, modules and checkpoints travel between processes with and without a GPU.

No GPU is needed: a process without one is this one, and what a GPU would be asked for is recorded (a storage
on torch's `meta` device stands for one on the GPU).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import quarterdeck as qd
from quarterdeck.transfer import shared_buffers, unpickle
from quarterdeck.transfer.pickler import _Storage, dumps, loads
from support.transfer_peer import Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def journey(**values: Any) -> dict[str, Any]:
    pickled = dumps(values, {})
    descriptor, spans = shared_buffers.pack(pickled.buffers)
    return loads(pickled.data, shared_buffers.map_buffers(descriptor, spans), {})


class OnGpu:
    """A storage that says it lies on a GPU, with its bytes here."""

    device = torch.device("cuda:1")

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self._storage = storage

    def cpu(self) -> torch.UntypedStorage:
        return self._storage.clone()


class Tagged(torch.Tensor):
    pass


def with_note() -> torch.Tensor:
    tensor = torch.arange(1000.0)
    tensor.note = "mine"  # type: ignore[attr-defined]
    return tensor


def with_hook() -> nn.Parameter:
    parameter = nn.Parameter(torch.arange(1000.0))
    parameter.note = "mine"  # type: ignore[attr-defined]
    return parameter


# Tensors of which storage, dtype and strides do not say everything: torch's own reductions carry them.
SPECIAL = {
    "subclass": torch.arange(1000.0).as_subclass(Tagged),
    "attribute": with_note(),
    "parameter with an attribute": with_hook(),
    "conjugate": torch.complex(torch.arange(1000.0), torch.ones(1000)).conj(),
    "negative": torch.complex(torch.arange(1000.0), torch.ones(1000)).conj().imag,
    "quantised": torch.quantize_per_tensor(torch.arange(4000.0), 0.5, 3, torch.quint8),
    "sparse": torch.eye(200).to_sparse(),
    "sparse rows": torch.eye(200).to_sparse_csr(),
}


def dense(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_quantized:
        return tensor.dequantize()
    return (
        (tensor.to_dense() if tensor.layout is not torch.strided else tensor)
        .detach()
        .resolve_conj()
        .resolve_neg()
    )


@pytest.mark.parametrize("name", SPECIAL)
def test_no_tensor_remembers_the_device_it_lay_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each lay on GPU 5: torch writes that into the stream, and loading fails where there is none."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:5")
    arrived = journey(t=SPECIAL[name])["t"]
    assert type(arrived) is type(SPECIAL[name])
    assert torch.equal(dense(arrived), dense(SPECIAL[name]))
    assert getattr(arrived, "note", None) == getattr(SPECIAL[name], "note", None)


@pytest.mark.parametrize(
    "name", ["subclass", "attribute", "parameter with an attribute", "conjugate", "quantised"]
)
def test_special_tensors_leave_the_stream_as_buffers(name: str) -> None:
    pickled = dumps({"t": SPECIAL[name]}, {})
    assert len(pickled.data) < 1000
    assert len(pickled.buffers) == 1


def test_special_and_plain_tensors_over_one_memory_still_share_it() -> None:
    base = torch.arange(1000.0)
    arrived = journey(base=base, tagged=base.as_subclass(Tagged), storage=base.untyped_storage())
    arrived["base"][3] = -1
    assert arrived["tagged"][3] == -1
    assert arrived["storage"].data_ptr() == arrived["base"].data_ptr()


@pytest.mark.parametrize("count", [4, 1000])
def test_memory_of_a_gpu_goes_to_the_cpu_where_there_is_no_gpu(count: int) -> None:
    values = torch.arange(float(count))
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(_Storage(OnGpu(values.untyped_storage())), 5, buffer_callback=buffers.append)
    arrived = pickle.loads(data, buffers=[bytearray(buffer) for buffer in buffers])
    assert arrived.device.type == "cpu"
    assert torch.equal(unpickle.load_tensor(arrived, torch.float32, 0, (count,), (1,), False), values)


@pytest.mark.parametrize("size", [0, 16, 4096])
def test_memory_of_a_gpu_goes_to_this_processs_own_gpu(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def cuda(storage: torch.UntypedStorage, device: int) -> torch.UntypedStorage:
        asked.append((storage.nbytes(), device))
        return torch.empty(storage.nbytes(), dtype=torch.uint8, device="meta").untyped_storage()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.UntypedStorage, "cuda", cuda)
    arrived = unpickle.load_storage(bytearray(size), True)
    tensor = unpickle.load_tensor(arrived, torch.float32, 0, (size // 4,), (1,), True)
    assert asked == [(size, 3)]
    assert (tensor.device.type, tensor.shape, tensor.requires_grad) == ("meta", (size // 4,), True)
    assert unpickle.load_storage(bytearray(size), False).device.type == "cpu"
    assert len(asked) == 1


# ---- checkpoints


def trained() -> qd.PyTorchCheckpoint:
    net = nn.Linear(100, 100)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    return qd.PyTorchCheckpoint(net, {"epochs": 5}, optimizer)


def test_a_checkpoint_travels_by_its_states_and_as_buffers() -> None:
    checkpoint = trained()
    pickled = dumps({"c": checkpoint}, {})
    assert len(pickled.data) < 5000
    assert sum(buffer.nbytes for buffer in pickled.buffers) == 3 * 100 * 100 * 4
    arrived = journey(c=checkpoint)["c"]
    assert arrived.module is None
    assert list(arrived) == list(checkpoint)
    assert torch.equal(arrived["module_state_dict"]["weight"], checkpoint["module_state_dict"]["weight"])


def test_a_checkpoint_of_a_notebooks_model_arrives_without_the_models_class(peer: Peer) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "import torch, dataclasses, quarterdeck as qd\n"
        "@dataclasses.dataclass\nclass Config:\n  lr: float = 0.5\n"
        "class Net(torch.nn.Module):\n"
        "  def __init__(self): super().__init__(); self.out = torch.nn.Linear(50, 50)\n"
        "checkpoint = qd.PyTorchCheckpoint(Net(), Config())",
        namespace,
    )
    peer.send({"checkpoint": namespace["checkpoint"]}, namespace)
    assert peer.get("list(checkpoint['module_state_dict'])") == ["out.weight", "out.bias"]
    assert peer.get("(checkpoint['lr'], type(checkpoint.hyperparameters).__name__)") == (0.5, "Config")
    assert peer.get("'Net' in globals()") is False
    total = namespace["checkpoint"]["module_state_dict"]["out.weight"].double().sum().item()
    assert peer.get("checkpoint['module_state_dict']['out.weight'].double().sum().item()") == total


def test_a_model_and_its_checkpoint_in_one_payload_share_their_memory() -> None:
    net = nn.Linear(100, 100)
    pickled = dumps({"net": net, "c": qd.PyTorchCheckpoint(net)}, {})
    assert sum(buffer.nbytes for buffer in pickled.buffers) == 100 * 100 * 4


def test_a_file_saved_on_a_gpu_loads_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained()
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:5")
    path = checkpoint.save(tmp_path / "c.pt")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path, weights_only=True)
    arrived = qd.PyTorchCheckpoint.load(path)
    assert torch.equal(arrived["module_state_dict"]["weight"], checkpoint["module_state_dict"]["weight"])
    assert arrived["optimizer_state_dict"]["state"][0]["exp_avg"].device.type == "cpu"


def test_a_file_saved_on_a_gpu_loads_onto_this_processs_own_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    def restore(storage: Any, location: str) -> Any:
        asked.add(location)
        return storage

    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:5")
    path = trained().save(tmp_path / "c.pt")
    accelerator = SimpleNamespace(
        is_available=lambda: True, current_accelerator=lambda: "cuda", current_device_index=lambda: 3
    )
    monkeypatch.setattr(torch, "accelerator", accelerator)
    monkeypatch.setattr(torch.serialization, "default_restore_location", restore)
    qd.PyTorchCheckpoint.load(path)
    assert asked == {"cuda:3"}


def test_what_lay_on_the_cpu_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = trained().save(tmp_path / "c.pt")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert qd.PyTorchCheckpoint.load(path)["module_state_dict"]["weight"].device.type == "cpu"


def test_map_location_says_otherwise(tmp_path: Path) -> None:
    path = trained().save(tmp_path / "c.pt")
    assert qd.PyTorchCheckpoint.load(path, map_location="meta")["module_state_dict"]["weight"].is_meta


def test_a_checkpoint_pickled_by_others_loads_too() -> None:
    file = io.BytesIO()
    checkpoint = trained()
    pickle.dump(checkpoint, file)
    file.seek(0)
    arrived = pickle.load(file)
    assert torch.equal(arrived["module_state_dict"]["weight"], checkpoint["module_state_dict"]["weight"])
