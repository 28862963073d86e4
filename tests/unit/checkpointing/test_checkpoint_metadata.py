"""The `.metadata` of torch.distributed.checkpoint: a pickle, whoever wrote it, under whichever Python."""

from __future__ import annotations

import enum
import io
import pickle
import warnings
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import filesystem, metadata

from quarterdeck.checkpointing import sharded
from quarterdeck.checkpointing.errors import CheckpointError, UntrustedCheckpoint
from quarterdeck.checkpointing.pickles import needs, read_dcp

ORDERED = b"ccollections\nOrderedDict\n"
META = b"torch.distributed.checkpoint.metadata"
MEMBER = b"c" + META + b"\n_MEM_FORMAT_ENCODING\n(I0\ntR"

SHARED: list[Any] = [
    *(getattr(metadata, name) for name in metadata.__all__),
    metadata._MEM_FORMAT_ENCODING,
    metadata._MEM_FORMAT_ENCODING.TORCH_CONTIGUOUS_FORMAT,
    filesystem._StorageInfo,
    type(Path()),
    torch.serialization._get_layout,
    torch.Size,
    torch.device,
    OrderedDict,
]


def changed_by_reading(folder: Path) -> list[str]:
    """What is another attribute afterwards, of all that lives on in this process. It is put back: a test that
    fails is not to take all others with it.
    """
    function = torch.serialization._get_layout
    before = [dict(vars(one)) for one in SHARED], function.__defaults__, function.__doc__
    with suppress(CheckpointError):
        read_dcp(folder)
    found = [name for one, known in zip(SHARED, before[0], strict=True) for name in put_back(one, known)]
    found += ["of a function"] * ((function.__defaults__, function.__doc__) != before[1:])
    function.__defaults__, function.__doc__ = before[1:]
    return found


def put_back(one: Any, known: dict[str, Any]) -> list[str]:
    changed = [name for name, value in vars(one).items() if known.get(name, vars) is not value]
    for name in changed:
        if name in known:
            setattr(one, name, known[name])
        else:
            delattr(one, name)
    return changed


def sets(on: bytes, name: str, value: bytes = ORDERED) -> bytes:
    """Set an attribute, as a pickle does it for an object with slots."""
    return on + b"(N}S'" + name.encode() + b"'\n" + value + b"stb."


def of(module: bytes, name: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n"


HOSTILE = {
    "Path.exists": sets(of(b"pathlib", b"PosixPath"), "exists"),
    "Path.__fspath__": sets(of(b"pathlib", b"PosixPath"), "__fspath__", of(b"torch", b"Size")),
    "Metadata.__eq__": sets(of(META, b"Metadata"), "__eq__"),
    "Metadata.__class__": sets(of(META, b"Metadata") + b"(tR", "__class__", of(META, b"StorageMeta")),
    "Index.__hash__": sets(of(META, b"MetadataIndex"), "__hash__"),
    "StorageInfo": sets(of(b"torch.distributed.checkpoint.filesystem", b"_StorageInfo"), "__init__"),
    "Properties": sets(of(META, b"TensorProperties"), "__setstate__"),
    "function": sets(of(b"torch.serialization", b"_get_layout"), "__doc__"),
    "defaults": sets(of(b"torch.serialization", b"_get_layout"), "__defaults__", b"(S'torch.strided'\nt"),
    "function's dict": of(b"torch.serialization", b"_get_layout") + b"}S'x'\nI1\nsb.",
    "enum": sets(of(META, b"_MEM_FORMAT_ENCODING"), "TORCH_CHANNELS_LAST", b"I1\n"),
    "enum's method": sets(of(META, b"_MEM_FORMAT_ENCODING"), "__eq__"),
    "member": MEMBER + b"}S'_value_'\nI5\nsb.",
    "member's name": sets(MEMBER, "_name_", b"S'x'\n"),
    "member by name": sets(
        b"cbuiltins\ngetattr\n(" + of(META, b"_MEM_FORMAT_ENCODING") + b"S'TORCH_CHANNELS_LAST'\ntR",
        "_value_",
    ),
    "getattr": sets(of(b"builtins", b"getattr"), "__doc__"),
    "size": sets(of(b"torch", b"Size"), "x"),
    "a size": sets(of(b"torch", b"Size") + b"((I1\nttR", "x"),
    "a dtype": sets(of(b"torch", b"float32"), "x"),
    "a layout": sets(of(b"torch.serialization", b"_get_layout") + b"(S'torch.strided'\ntR", "x"),
    "device": sets(of(b"torch", b"device"), "x"),
    "OrderedDict": sets(ORDERED, "__getitem__", of(b"torch", b"Size")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_strangers_metadata_changes_nothing_in_this_process(tmp_path: Path, what: str) -> None:
    (tmp_path / ".metadata").write_bytes(HOSTILE[what])
    assert changed_by_reading(tmp_path) == []
    with pytest.raises(CheckpointError):
        read_dcp(tmp_path)


@pytest.mark.parametrize(
    "of_what",
    [
        of(META, b"Metadata") + b"S'__init__'\n",
        of(META, b"Metadata") + b"S'mro'\n",
        of(META, b"_MEM_FORMAT_ENCODING") + b"S'__class__'\n",
        of(META, b"_MEM_FORMAT_ENCODING") + b"S'_member_map_'\n",
        of(b"torch.serialization", b"_get_layout") + b"S'__globals__'\n",
        MEMBER + b"S'value'\n",
        of(b"torch", b"float32") + b"S'itemsize'\n",
    ],
)
def test_getattr_answers_for_a_member_of_the_one_enum_only(tmp_path: Path, of_what: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(b"cbuiltins\ngetattr\n(" + of_what + b"tR.")
    with pytest.raises(UntrustedCheckpoint, match=r"builtins\.getattr"):
        read_dcp(tmp_path)


class Debian12Pickler(pickle.Pickler):
    """Members of enums as Python 3.11.2 has them."""

    def reducer_override(self, value: Any) -> Any:
        return (getattr, (type(value), value.name)) if isinstance(value, enum.Enum) else NotImplemented


def as_python_3_11_2_writes_it(value: Any) -> bytes:
    file = io.BytesIO()
    Debian12Pickler(file, pickle.DEFAULT_PROTOCOL).dump(value)
    return file.getvalue()


def saved_by_torch(folder: Path) -> None:
    from torch.distributed import checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = {"model": {"a": torch.arange(3.0), "b": torch.ones(2, 2)}, "step": 5}
        dcp.save(state, checkpoint_id=folder, no_dist=True)


def test_folders_that_python_3_11_2_has_written_are_read(tmp_path: Path) -> None:
    saved_by_torch(tmp_path)
    described = pickle.loads((tmp_path / ".metadata").read_bytes())
    (tmp_path / ".metadata").write_bytes(as_python_3_11_2_writes_it(described))
    assert b"getattr" in (tmp_path / ".metadata").read_bytes()
    tensors, paths, others = read_dcp(tmp_path)
    assert tensors["model.a"].read((0,), (3,)).tolist() == [0.0, 1.0, 2.0]
    assert paths["model.b"] == ("model", "b")
    assert others["step"]() == 5


def test_what_is_written_is_the_same_under_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce_as_3_11_2(member: enum.Enum, protocol: int) -> Any:
        return getattr, (type(member), member.name)

    monkeypatch.setattr(metadata._MEM_FORMAT_ENCODING, "__reduce_ex__", reduce_as_3_11_2)
    piece = sharded.Piece(("model", "x"), (0,), (4,), (4,), "float32", "__0_0.distcp", 0, 9)
    described = sharded.metadata([piece])
    assert b"getattr" not in described
    assert pickle.loads(described).state_dict_metadata["model.x"].properties.dtype is torch.float32


@pytest.mark.parametrize("form", ["of torch", "of ours", "of Python 3.11.2"])
def test_plain_metadata_needs_no_trust(tmp_path: Path, form: str) -> None:
    piece = sharded.Piece(("model", "x"), (0,), (4,), (4,), "float32", "__0_0.distcp", 0, 9)
    if form == "of torch":
        saved_by_torch(tmp_path)
    elif form == "of ours":
        (tmp_path / ".metadata").write_bytes(sharded.metadata([piece, piece]))
    else:
        described = pickle.loads(sharded.metadata([piece, piece]))
        (tmp_path / ".metadata").write_bytes(as_python_3_11_2_writes_it(described))
    assert needs(tmp_path / ".metadata") == []


def test_what_is_not_plain_is_named_before_it_is_loaded(tmp_path: Path) -> None:
    pickled = pickle.dumps([OrderedDict(a=1), print, {"builtins": [1]}, exec, set])
    (tmp_path / ".metadata").write_bytes(pickled)
    assert needs(tmp_path / ".metadata") == ["builtins.exec", "builtins.print", "builtins.set"]
