"""The error about a value that cannot be pickled names it and the way to it."""

from __future__ import annotations

import sqlite3
import threading
import time
import types
from typing import Any

import pytest

from quarterdeck.transfer.pickle_diagnosis import name_culprit
from quarterdeck.transfer.pickler import dumps


class Holder:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Refusing:
    def __reduce__(self) -> Any:
        raise ValueError("I stay here")


def culprit(values: dict[str, Any], namespace: dict[str, Any] | None = None) -> str:
    namespace = {} if namespace is None else namespace
    try:
        dumps(values, namespace)
    except Exception as error:
        return name_culprit(values, namespace, error)
    raise AssertionError("it was pickled")


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (LOCK, "x", "_thread.lock"),
        (Holder(dataset=Holder(_lock=LOCK)), "x.dataset._lock", "_thread.lock"),
        ({"a": [1, LOCK]}, "x['a'][1]", "_thread.lock"),
        ((i for i in range(3)), "x", "generator"),
        (Holder(conn=sqlite3.connect(":memory:")), "x.conn", "sqlite3.Connection"),
    ],
)
def test_the_path_leads_to_the_value(value: Any, path: str, kind: str) -> None:
    assert culprit({"fine": [1, 2], "x": value}).startswith(f"`{path}` (a `{kind}`) cannot be pickled")


def test_a_file_open_for_writing_is_named(tmp_path: Any) -> None:
    with open(tmp_path / "log", "w") as file:
        said = culprit({"cfg": Holder(log=file)})
    assert said.startswith("`cfg.log` (a `_io.TextIOWrapper`) cannot be pickled")


def test_a_variable_that_a_function_closes_over_is_named() -> None:
    conn = {"lock": LOCK}

    def train() -> object:
        return conn

    said = culprit({"train": train})
    assert "`conn['lock']`" in said
    assert "the variable `conn` that `train` closes over" in said


def test_a_default_argument_is_named() -> None:
    def train(lock: Any = LOCK) -> None: ...

    assert "a default argument" in culprit({"train": train})


def test_the_function_that_uses_the_value_is_named() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "cfg": Holder(lock=LOCK)}
    exec("def train(): return cfg", namespace)
    said = culprit({"train": namespace["train"], "cfg": namespace["cfg"]}, namespace)
    assert said == "`cfg.lock` (a `_thread.lock`), used by `train`, cannot be pickled"


def test_a_reason_of_its_own_is_repeated() -> None:
    assert culprit({"x": [Refusing()]}).endswith("cannot be pickled: I stay here")


def test_deep_nesting_is_said_and_not_walked() -> None:
    deep: list[Any] = []
    for _ in range(100000):
        deep = [deep]
    assert culprit({"deep": deep}).startswith("`deep` (a `list`)")


def test_it_ends_in_time_and_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarterdeck.transfer.pickle_diagnosis._LIMIT_S", 0.1)
    values = {"x": [Holder(n=i) for i in range(300_000)]}
    began = time.monotonic()
    assert name_culprit(values, {}, TypeError("boom")) == "a value cannot be pickled: boom"
    assert time.monotonic() - began < 1
    broken = types.SimpleNamespace()
    assert "boom" in name_culprit({"x": broken}, None, TypeError("boom"))  # type: ignore[arg-type]
