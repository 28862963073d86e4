"""Hyperparameters come back as they were kept; a stranger's file gets nothing run; what cannot come back is
refused by name."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import json
import os
import pathlib
import subprocess
import sys
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import pytest
import torch

from quarterdeck.checkpointing.hyperparameters import Difference, UnknownClass, decode, differences, encode
from quarterdeck.errors import UsageError


class Mode(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


class Level(enum.IntEnum):
    LOW = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    THING = object()


class Betas(NamedTuple):
    first: float
    second: float = 0.999


@dataclasses.dataclass
class Adam:
    lr: float
    betas: Betas = Betas(0.9)  # noqa: RUF009
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    path: pathlib.Path
    mode: Mode


@dataclasses.dataclass
class Nested:
    optimizer: Adam
    layers: tuple[int, ...] = (64, 64)
    seed: int = dataclasses.field(init=False, default=7)

    class Inner(NamedTuple):
        x: int


@dataclasses.dataclass
class WithCache:
    n: int

    @functools.cached_property
    def square(self) -> int:
        return self.n**2


def journey(value: Any) -> Any:
    """Through text, twice: what comes back is kept as the same text again."""
    text = json.dumps(encode(value), allow_nan=False)
    back = decode(json.loads(text))
    assert json.dumps(encode(back)) == text
    assert msgspec.json.decode(msgspec.json.encode(encode(value))) == json.loads(text)
    return back


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
VALUES: dict[str, Any] = {
    "none": None,
    "bool": True,
    "int": 3,
    "huge int": 10**40,
    "negative zero": -0.0,
    "smallest float": 5e-324,
    "infinity": -float("inf"),
    "text": "ein Häuschen\n\0\U0001f600",
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"ab"),
    "complex": complex(1, -2.5),
    "list": [1, [2, []]],
    "tuple": (1, ("a", ())),
    "set": {3, 1, "b"},
    "frozenset": frozenset({(1, 2), Mode.FAST}),
    "dict": {"a": {"b": None}},
    "dict with odd keys": {1: "one", (2, 3): "pair", None: 0, Mode.FAST: 1, "$tuple": [1]},
    "ordered": OrderedDict(z=1, a=2),
    "defaultdict": defaultdict(list, {"a": [1]}),
    "defaultdict without default": defaultdict(None, {"a": 1}),
    "counter": Counter("abca"),
    "deque": deque([1, 2], maxlen=5),
    "range": range(0, 10, 3),
    "namespace": types.SimpleNamespace(lr=(0.1,)),
    "arguments": argparse.Namespace(epochs=3, out=pathlib.Path("x")),
    "path": pathlib.Path("/data/mnist"),
    "windows path": pathlib.PureWindowsPath("C:/data"),
    "datetime": dt.datetime(2026, 2, 3, 4, 5, 6, 7),
    "datetime utc": dt.datetime(2026, 2, 3, tzinfo=dt.UTC),
    "datetime zone": dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    "date": dt.date(2026, 2, 3),
    "time": dt.time(4, 5, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    "timedelta": dt.timedelta(days=-1, microseconds=3),
    "decimal": decimal.Decimal("0.10"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=5),
    "enum": Mode.EXACT,
    "int enum": Level.LOW,
    "flag": Access.READ | Access.WRITE,
    "no flag": Access(0),
    "enum of an odd value": Odd.THING,
    "namedtuple": Betas(0.5),
    "dataclass": Adam(0.1, extra={"nesterov": True}),
    "frozen dataclass with slots": Frozen(pathlib.Path("a"), Mode.FAST),
    "nested dataclass": Nested(Adam(1e-3), (1,)),
    "inner class": Nested.Inner(1),
    "dataclass in a dict": {"opt": Adam(1.0), "all": [Betas(0.1), Betas(0.2)]},
    "numpy float32": np.float32(0.1),
    "numpy float64": np.float64("inf"),
    "numpy int": np.int16(-3),
    "numpy uint64": np.uint64(2**64 - 1),
    "numpy bool": np.bool_(True),
    "numpy complex": np.complex64(1 + 2j),
    "numpy text": np.str_("a"),
    "numpy datetime": np.datetime64("2026-02-03T04:05", "ns"),
    "numpy timedelta": np.timedelta64(5, "s"),
    "dtype": torch.bfloat16,
    "device": torch.device("cuda:3"),
    "size": torch.Size([2, 3]),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_equal_and_of_its_type(name: str) -> None:
    value = VALUES[name]
    back = journey({"it": value})["it"]
    assert type(back) is type(value)
    assert back == value
    if not isinstance(value, set | frozenset):  # those have no order
        assert repr(back) == repr(value)


def test_a_list_in_a_namedtuple_in_a_dataclass_keeps_every_type() -> None:
    value = Adam(0.1, Betas(np.float32(0.5)), {"modes": [Mode.FAST, (Mode.EXACT,)]})  # type: ignore[arg-type]
    back = journey(value)
    assert type(back.betas.first) is np.float32
    assert type(back.extra["modes"][1]) is tuple
    assert back == value


def test_nan_comes_back() -> None:
    assert repr(journey([float("nan"), np.float32("nan"), np.datetime64("NaT", "s")])) == (
        "[nan, np.float32(nan), np.datetime64('NaT','s')]"
    )


@pytest.mark.parametrize(
    "array", [np.eye(2, dtype=np.float16), np.zeros((0, 3)), np.array([1j, np.nan]), np.array(True)]
)
def test_small_arrays_come_back(array: Any) -> None:
    back = journey(array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array, equal_nan=True)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, float("inf")]),
        torch.ones(2, 0),
        torch.tensor(0.1, dtype=torch.bfloat16),
        torch.tensor([1 + 2j]),
    ],
)
def test_small_tensors_come_back(tensor: Any) -> None:
    back = journey(tensor)
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)


def test_plain_hyperparameters_are_kept_as_they_would_be_written_by_hand() -> None:
    value = {"lr": 0.001, "layers": [64, 64], "name": "small", "opt": {"nesterov": True, "seed": None}}
    assert encode(value) == value


def test_what_is_kept_names_its_types_readably() -> None:
    assert encode({"betas": (0.9,), "out": pathlib.Path("/x"), "mode": Mode.FAST, "at": Betas(0.5)}) == {
        "betas": {"$tuple": [0.9]},
        "out": {"$path": "/x"},
        "mode": {"$enum": f"{__name__}:Mode", "name": "FAST", "value": "fast"},
        "at": {"$namedtuple": f"{__name__}:Betas", "fields": {"first": 0.5, "second": 0.999}},
    }


def test_a_cached_property_is_no_field_and_is_computed_again() -> None:
    value = WithCache(3)
    assert value.square == 9
    back = journey(value)
    assert vars(back) == {"n": 3}
    assert back.square == 9


def test_sets_are_kept_in_the_same_order_by_every_process() -> None:
    code = (
        "import json; from quarterdeck.checkpointing.hyperparameters import encode\n"
        "print(json.dumps(encode({'a', 'bb', 'ccc', 'dddd', 10, 9})))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert len(texts) == 1


# ---- refusals


class Texts(str):
    pass


class Surprise(NamedTuple("Surprise", [("x", int)])):
    pass


def _surprise() -> Surprise:
    value = Surprise(1)
    value.more = 2  # type: ignore[attr-defined]
    return value


def _with_attribute() -> Adam:
    value = Adam(0.1)
    value.note = "x"  # type: ignore[attr-defined]
    return value


@dataclasses.dataclass
class Closing:
    path: str

    def __del__(self) -> None:
        DELETED.append(self.path)


DELETED: list[str] = []


def _local() -> Any:
    @dataclasses.dataclass
    class Local:
        x: int = 1

    return Local()


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(150):
        value = [value]
    return value


Unnamed = namedtuple("SomethingElse", "x")  # type: ignore[name-match]

REFUSED: dict[str, tuple[Any, str]] = {
    "lambda": (
        {"optimizer": {"betas": [1, lambda: 0]}},
        r"^hyperparameters\.optimizer\.betas\[1\]: a lambda cannot",
    ),
    "function": ({"loss fn": len}, r"hyperparameters\['loss fn'\]: the function `len`"),
    "class": ({"net": Adam}, rf"hyperparameters\.net: the class `{__name__}\.Adam`"),
    "module": ({"m": os}, "the module `os`"),
    "model": ({"m": torch.nn.Linear(1, 1)}, "a `torch.nn.modules.linear.Linear`"),
    "object": ((object(),), r"hyperparameters\[0\]: a `object`"),
    "in a dataclass": (Adam(0.1, extra={"f": lambda: 0}), r"hyperparameters\.extra\.f: a lambda"),
    "str subclass": ([Texts("a")], r"\[0\]: a `.*Texts`"),
    "key": ({"a": {object(): 1}}, r"hyperparameters\.a: a key or set member that is a `object`"),
    "data class as a key": ({Betas(0.1): 1}, "a key or set member"),
    "local class": ({"c": _local()}, "hyperparameters.c: .* defined inside a function"),
    "class under another name": (Unnamed(1), "has no `SomethingElse`"),
    "attribute beside the fields": (_with_attribute(), "would lose its attribute `note`"),
    "attribute of a namedtuple": (_surprise(), "would lose its attribute `more`"),
    "class with a finaliser": (Closing("x"), "could not be made again"),
    "default of a defaultdict": (defaultdict(lambda: 0), "a defaultdict whose default is a lambda"),
    "cycle": (_cycle(), r"hyperparameters\[0\]: a value that contains itself"),
    "deep": (_deep(), "nested deeper"),
    "digits": (10**5000, "more than 4,000 digits"),
    "surrogate": (["\ud800"], r"\[0\]: a string that is not valid Unicode"),
    "surrogate key": ({"\ud800": 1}, "a string that is not valid Unicode"),
    "object array": (np.array([object()]), "cannot be kept with its dtype"),
    "long double": (np.longdouble(1), "cannot be kept with its dtype"),
    "large tensor": (
        {"w": torch.zeros(1000, 1000)},
        r"hyperparameters\.w: .* of 1,000,000 numbers is too large",
    ),
    "gradient": (torch.ones(1, requires_grad=True), "that requires a gradient"),
    "parameter": (torch.nn.Parameter(torch.ones(1)), "a `torch.nn.parameter.Parameter`"),
    "unnamed zone": (
        dt.datetime(2026, 1, 1, tzinfo=type("Z", (dt.tzinfo,), {})()),
        "would lose its time zone",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused_by_its_place(name: str) -> None:
    value, text = REFUSED[name]
    with pytest.raises(UsageError, match=text):
        encode(value)


# ---- classes that are not here, and strangers' files


def test_fields_of_a_class_that_is_not_here_are_shown_and_kept_for_others() -> None:
    data = {"opt": {"$dataclass": "elsewhere:Lion", "fields": {"betas": {"$tuple": [0.9]}, "lr": 0.1}}}
    back = decode(data)["opt"]
    assert isinstance(back, UnknownClass)
    assert back == {"betas": (0.9,), "lr": 0.1}
    assert back.class_name == "elsewhere:Lion"
    assert "elsewhere:Lion, not defined here" in repr(back)
    assert encode({"opt": back}) == data
    back["lr"] = 0.2
    assert encode(back)["fields"]["lr"] == 0.2


def test_a_member_of_an_enum_that_is_not_here_is_shown_and_kept() -> None:
    data = {"$enum": "elsewhere:Mode", "name": "FAST", "value": "fast"}
    assert decode(data) == {"name": "FAST", "value": "fast"}
    assert encode(decode(data)) == data


def test_decoding_imports_nothing() -> None:
    assert "this" not in sys.modules
    assert isinstance(decode({"$dataclass": "this:Zen", "fields": {}}), UnknownClass)
    assert "this" not in sys.modules


def test_a_notebook_class_is_found_in_main_and_may_have_got_fields_since(monkeypatch: Any) -> None:
    notebook = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    source = "import dataclasses\n@dataclasses.dataclass\nclass Config:\n  lr: float"
    exec(source, vars(notebook))
    kept = encode(vars(notebook)["Config"](0.1))
    assert decode(kept) == vars(notebook)["Config"](0.1)
    exec(
        source + "\n  wd: float = 0.5\n  tags: list = dataclasses.field(default_factory=list)", vars(notebook)
    )
    assert decode(kept) == vars(notebook)["Config"](0.1, 0.5, [])
    exec(source.replace("lr", "rate"), vars(notebook))
    assert decode(kept) == {"lr": 0.1}
    assert encode(decode(kept)) == kept


RAN: list[str] = []


@dataclasses.dataclass
class Watching:
    """Everything that making or filling one could run."""

    x: int
    made: ClassVar[int] = 0

    def __new__(cls, *_: Any) -> Watching:
        RAN.append("new")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        RAN.append("post_init")

    def __setattr__(self, name: str, value: Any) -> None:
        RAN.append("setattr")

    def __setstate__(self, state: Any) -> None:
        RAN.append("setstate")


@dataclasses.dataclass
class WithProperty:
    x: int

    @property  # type: ignore[no-redef]
    def x(self) -> int:
        return 1

    @x.setter
    def x(self, value: int) -> None:
        RAN.append("setter")


@dataclasses.dataclass
class WithFactory:
    x: list[int] = dataclasses.field(default_factory=lambda: RAN.append("factory") or [])  # type: ignore[func-returns-value]


class HashingPoint(NamedTuple("HashingPoint", [("x", int)])):
    __slots__ = ()

    def __new__(cls, *_: Any) -> Any:
        RAN.append("tuple new")
        return tuple.__new__(cls, _)

    def __hash__(self) -> int:
        RAN.append("hash")
        return 0


class _Hooked(type):
    def __call__(cls, *args: Any) -> Any:
        RAN.append("call")

    def __getattr__(cls, name: str) -> Any:
        RAN.append("metaclass getattr")
        raise AttributeError(name)


class Ordinary(metaclass=_Hooked):
    pass


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = lambda name: RAN.append("module getattr")  # type: ignore[assignment, method-assign]
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)

    class Loading(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            RAN.append("module load")
            return super().__getattribute__(name)

    monkeypatch.setitem(sys.modules, "loading_module", Loading("loading_module"))
    RAN.clear()
    DELETED.clear()
    yield RAN
    assert DELETED == []


HERE = __name__
HOSTILE: dict[str, Any] = {
    "constructor": {"$dataclass": f"{HERE}:Watching", "fields": {"x": 1}},
    "property": {"$dataclass": f"{HERE}:WithProperty", "fields": {"x": 1}},
    "factory": {"$dataclass": f"{HERE}:WithFactory", "fields": {}},
    "finaliser": {"$dataclass": f"{HERE}:Closing", "fields": {"path": "/etc"}},
    "tuple": {"$namedtuple": f"{HERE}:HashingPoint", "fields": {"x": 1}},
    "hash in a set": {"$set": [{"$namedtuple": f"{HERE}:HashingPoint", "fields": {"x": 1}}]},
    "hash of a key": {
        "$dict": [[{"$tuple": [{"$namedtuple": f"{HERE}:HashingPoint", "fields": {"x": 1}}]}, 1]]
    },
    "no data class": {"$dataclass": f"{HERE}:Ordinary", "fields": {}},
    "no enum": {"$enum": f"{HERE}:Ordinary", "name": "x"},
    "builtin": {"$dataclass": "builtins:eval", "fields": {"x": "1"}},
    "process": {"$dataclass": "subprocess:Popen", "fields": {"args": "true"}},
    "tuple of the system": {"$namedtuple": "os:system", "fields": {"x": "true"}},
    "lazy attribute": {"$dataclass": "lazy_module:Config", "fields": {}},
    "lazy module": {"$dataclass": "loading_module:Config", "fields": {}},
    "method": {"$dataclass": f"{HERE}:Watching.__post_init__", "fields": {}},
    "more fields": {"$dataclass": f"{HERE}:Adam", "fields": {"lr": 1, "__class__": {"$path": "x"}}},
    "zone": {"$datetime": "2026-01-01T00:00:00", "zone": "../../etc/passwd"},
    "dtype": {"$numpy": "object", "value": [1]},
    "torch attribute": {"$torch.dtype": "load"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_decoding_runs_nothing_of_the_files_choice(name: str, ran: list[str]) -> None:
    json.dumps(encode(back := decode({"a": HOSTILE[name]})))
    assert ran == []
    assert set(back) == {"a"}


@pytest.mark.parametrize("name", set(HOSTILE) - {"constructor", "tuple", "zone"})
def test_what_is_no_plain_data_class_stays_a_mapping_that_shows_all(name: str, ran: list[str]) -> None:
    back = decode(HOSTILE[name])
    assert isinstance(back, UnknownClass)
    assert encode(back) == HOSTILE[name]


@pytest.mark.parametrize(
    "module",
    ["quarterdeck", "quarterdeck.flyte.job", "quarterdeck.config.job"],
    ids=["now", "0.1.1", "0.1.0"],
)
def test_public_classes_of_quarterdeck_need_not_have_been_used(module: str) -> None:
    """By all names that stored hyperparameters have for them."""
    code = f"""
import sys
from quarterdeck.checkpointing.hyperparameters import decode, encode
back = decode({{"$dataclass": "{module}:Worker", "fields": {{
    "restart_policy": {{"$enum": "{module}:RestartPolicy", "name": "NEVER"}}, "replicas": 3}}}})
import quarterdeck as qd
assert back == qd.Worker(replicas=3, restart_policy=qd.RestartPolicy.NEVER), back
assert encode(back)["$dataclass"] == "quarterdeck:Worker"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["quarterdeck:system", "quarterdeck.kernel.magics.magics:QuarterdeckMagics"])
def test_what_is_not_public_in_quarterdeck_is_not_imported(name: str) -> None:
    code = f"""
import sys
from quarterdeck.checkpointing.hyperparameters import UnknownClass, decode
before = {{*sys.modules}}
assert type(decode({{"$dataclass": "{name}", "fields": {{}}}})) is UnknownClass
assert {{*sys.modules}} == before, {{*sys.modules}} - before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


DAMAGED: list[Any] = [
    {"$tuple": 5}, {"$set": [[1]]}, {"$dict": [[1]]}, {"$dict": {"a": 1}}, {"$path": None}, {"$float": "x"},
    {"$datetime": "yesterday"}, {"$timedelta": {"weeks": "x"}}, {"$bytes": "!"}, {"$nothing": 1}, {"$": 1},
    {"$dataclass": 3, "fields": {}}, {"$dataclass": f"{HERE}:Adam"},
    {"$dataclass": f"{HERE}:Adam", "fields": 1}, {"$int": "9" * 10_000},
    {"$enum": f"{HERE}:Mode"}, {"$enum": f"{HERE}:Mode", "name": "NONE"},
    {"$enum": f"{HERE}:Mode", "name": []},
    {"$namedtuple": f"{HERE}:Betas", "fields": {}}, {"$namedtuple": f"{HERE}:Betas", "fields": {"third": 1}},
    {"$defaultdict": [], "default": "eval"}, {"$deque": [1], "maxlen": -1}, {"$namespace": [1]},
    {"$array": [1, [2]], "dtype": "int64", "shape": [3]},
    {"$tensor": [1], "dtype": "int64", "shape": [10**9]},
    {"$tensor": ["x"], "dtype": "float32", "shape": [1]}, {"$torch.device": "nowhere"},
    {"$fraction": "1e999999999"}, {"$fraction": "1/0"},
]  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED, ids=repr)
def test_damaged_data_is_shown_and_never_an_error(data: Any) -> None:
    back = decode([data])[0]
    assert isinstance(back, UnknownClass)
    assert encode(back) == data


def test_data_nested_beyond_measure_is_no_error() -> None:
    data: Any = 1
    for _ in range(400):
        data = {"$tuple": [data]}
    decode(data)
    assert differences(data, {}) != []
    for _ in range(3000):
        data = {"$set": [data]}
    assert differences({"a": data}, {"a": 1}) == [Difference("a", "…", "1")]


def test_keeping_and_reading_import_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from quarterdeck.checkpointing.hyperparameters import decode, differences, encode\n"
        "decode(encode({'a': (1, 2.5)})); differences({}, {'a': {'$torch.dtype': 'float32'}})\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- comparison


def test_differences_name_what_changed_where() -> None:
    left = {
        "opt": Adam(0.1, Betas(0.9)),
        "epochs": 5,
        "layers": (1, 2),
        "out": pathlib.Path("/a"),
        "gone": [],
    }
    right = {
        "opt": Adam(0.2, Betas(0.9)),
        "epochs": 5,
        "layers": [1, 3],
        "out": pathlib.Path("/b"),
        "x y": Mode.FAST,
    }
    assert differences(encode(left), encode(right)) == [
        Difference("opt.lr", "0.1", "0.2"),
        Difference("layers[1]", "2", "3"),
        Difference("out", "/a", "/b"),
        Difference("gone", "[]", None),
        Difference("['x y']", None, "Mode.FAST"),
    ]


def test_another_class_is_a_difference_even_with_equal_fields() -> None:
    one, two = {"$dataclass": "a:Adam", "fields": {"lr": 1}}, {"$dataclass": "a:Lion", "fields": {"lr": 1}}
    assert differences({"o": one}, {"o": two}) == [Difference("o", "Adam", "Lion")]


@pytest.mark.parametrize("name", VALUES)
def test_a_value_does_not_differ_from_itself_and_reads_in_one_line(name: str) -> None:
    encoded = encode(VALUES[name])
    assert differences(encoded, encoded) == []
    assert all("\n" not in (d.left or "") for d in differences(encoded, "something else"))


@pytest.mark.parametrize("data", DAMAGED, ids=repr)
def test_damaged_data_can_be_compared(data: Any) -> None:
    assert differences(data, data) == []
    assert differences({"a": data}, {}) != []
