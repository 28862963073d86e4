"""Values of a notebook arrive in another process as they were, and see that process's names."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from quarterdeck.transfer import shared_buffers
from quarterdeck.transfer.identity import Gone, TravelIds, TravelTable
from quarterdeck.transfer.pickler import dumps, loads
from support.transfer_peer import Peer


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Runs code as a notebook does: in the namespace of `__main__`."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)

    def run(code: str) -> dict[str, Any]:
        exec(textwrap.dedent(code), vars(module))
        return vars(module)

    return run


@pytest.fixture
def send(notebook: Callable[[str], dict[str, Any]], peer: Peer) -> Callable[..., None]:
    def send(code: str, *names: str, **options: Any) -> None:
        namespace = notebook(code)
        touched = peer.send({name: namespace[name] for name in names}, namespace, **options)
        assert touched == []

    return send


Send = Callable[..., None]


def test_functions_see_the_receivers_names_and_bring_none(send: Send, peer: Peer) -> None:
    peer.run("lr = 2.0")
    send("lr = 0.1\ndef train(x):\n  global count\n  count = x\n  return x * lr", "train")
    assert peer.get("train(10)") == 20.0
    peer.run("lr = 3.0")
    assert peer.get("(train(10), count)") == (30.0, 10)


def test_closures_lambdas_defaults_and_recursion_arrive_working(send: Send, peer: Peer) -> None:
    code = """
        import functools
        def outer():
            n = 0
            def bump():
                nonlocal n
                n += 1
                return n
            def read(): return n
            return bump, read
        bump, read = outer()
        fact = lambda n: 1 if n < 2 else n * fact(n - 1)
        def even(n): return True if n == 0 else odd(n - 1)
        def odd(n): return False if n == 0 else even(n - 1)
        def keyword(a, *, b=5): return a + b
        def local():
            def rec(n): return 0 if n == 0 else 1 + rec(n - 1)
            return rec
        rec = local()
        part = functools.partial(keyword, b=7)
        @functools.lru_cache(maxsize=3)
        def cached(x): return x + 1
        @functools.wraps(keyword)
        def wrapped(*a): return keyword(*a)
    """
    names = ["bump", "read", "fact", "even", "odd", "keyword", "rec", "part", "cached", "wrapped"]
    send(code, *names)
    assert peer.get("(bump(), bump(), read())") == (1, 2, 2)
    assert peer.get("(fact(5), even(10), keyword(1), rec(4), part(1))") == (120, True, 6, 4, 8)
    assert peer.get("(cached(1), cached.cache_parameters()['maxsize'], wrapped(1))") == (2, 3, 6)
    assert peer.get("wrapped.__wrapped__ is keyword")


def test_classes_of_every_common_kind_arrive_working(send: Send, peer: Peer) -> None:
    code = """
        import dataclasses, enum, functools, typing
        scale = 1
        class Lazy:
            @functools.cached_property
            def value(self): return scale + 1
        class Base:
            def area(self): return scale * 2
        class Square(Base):
            def area(self): return super().area() + 1
            @property
            def double(self): return self.area() * 2
            @staticmethod
            def s(): return scale
            @classmethod
            def c(cls): return cls.__name__
        @dataclasses.dataclass
        class Config:
            lr: float = 0.1
            layers: list = dataclasses.field(default_factory=list)
        class Mode(enum.Enum):
            A = 1
            B = 2
        class Point(typing.NamedTuple):
            x: int
            y: int = 3
        square = Square()
    """
    peer.run("scale = 10")
    send(code, "Lazy", "Base", "Square", "Config", "Mode", "Point", "square")
    assert peer.get("(Square().area(), square.double, Square.s(), Square.c())") == (21, 42, 10, "Square")
    assert peer.get("Lazy().value") == 11
    assert peer.get("type(square) is Square and isinstance(square, Base)")
    assert peer.get("(Config().lr, Config(layers=[1]) == Config(0.1, [1]), Mode(2) is Mode.B)") == (
        0.1,
        True,
        True,
    )
    assert peer.get("(Point(1).y, Point(1)._asdict())") == (3, {"x": 1, "y": 3})


def test_a_class_keeps_its_identity_when_it_is_sent_again(send: Send, peer: Peer) -> None:
    send("class Net:\n  def f(self): return 1\nnet = Net()", "Net", "net")
    peer.run("first = Net")
    send("Net.f = lambda self: 2", "Net")
    assert peer.get("Net is first and net.f() == 2")
    send("class Net:\n  def f(self): return 3", "Net")
    assert peer.get("Net is not first and net.f() == 2 and Net().f() == 3")


def test_modules_travel_by_name_and_hand_made_ones_by_value(send: Send, peer: Peer) -> None:
    code = """
        import types, xml.etree.ElementTree
        made = types.ModuleType("made")
        made.answer = 42
        def parse(): return xml.etree.ElementTree.fromstring("<a/>").tag
    """
    send(code, "xml", "made", "parse")
    assert peer.get("(xml.__name__, made.answer, parse())") == ("xml", 42, "a")


def test_named_submodules_are_imported_on_arrival(send: Send, peer: Peer) -> None:
    send("import concurrent.futures", "concurrent", imports=["concurrent.futures", "no_such_module"])
    assert peer.get("concurrent.futures.Future.__name__") == "Future"


def test_loading_leaves_the_namespace_alone() -> None:
    source: dict[str, Any] = {"__name__": "__main__"}
    exec("x = 1\ndef f(): return x", source)
    receiver: dict[str, Any] = {"x": 5}
    loaded = loads(dumps({"f": source["f"]}, source).data, [], receiver)
    assert set(receiver) <= {"x", "__builtins__"}
    assert receiver["x"] == 5
    assert loaded["f"]() == 5


def test_the_namespace_itself_becomes_the_receivers() -> None:
    source: dict[str, Any] = {"secret": 1}
    receiver: dict[str, Any] = {}
    assert loads(dumps({"g": source}, source).data, [], receiver)["g"] is receiver


# ---- tensors and arrays


def journey(**values: Any) -> dict[str, Any]:
    """Through a memfd and back, in this process."""
    pickled = dumps(values, {})
    descriptor, spans = shared_buffers.pack(pickled.buffers)
    return loads(pickled.data, shared_buffers.map_buffers(descriptor, spans), {})


BIG = torch.arange(4096, dtype=torch.float32)
TENSORS = {
    "plain": BIG,
    "view": BIG.view(64, 64).t()[3:9, ::2],
    "small": torch.tensor([1.0, 2.0]),
    "empty": torch.empty(0, 3),
    "scalar bool": torch.tensor(True),
    "bfloat16": BIG.to(torch.bfloat16),
    "float8": BIG[:2048].to(torch.float8_e4m3fn),
    "conj": torch.complex(BIG, BIG).conj(),
    "neg": torch.complex(BIG, BIG).conj().imag,
    "sparse": torch.eye(50).to_sparse(),
    "quantised": torch.quantize_per_tensor(BIG, 0.1, 3, torch.quint8),
    "expanded": torch.ones(1).expand(4096),
    "requires grad": torch.ones(1000, requires_grad=True),
    "parameter": torch.nn.Parameter(torch.ones(1000), requires_grad=False),
    "meta": torch.empty(3, device="meta"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_arrives_with_its_values_and_flags(name: str) -> None:
    tensor = TENSORS[name]
    arrived = journey(t=tensor)["t"]
    assert type(arrived) is type(tensor)
    assert (arrived.dtype, arrived.shape, arrived.requires_grad) == (
        tensor.dtype,
        tensor.shape,
        tensor.requires_grad,
    )
    if tensor.device.type == "cpu":
        assert arrived.layout == tensor.layout
        as_float = [
            t.dequantize() if t.is_quantized else t.to_dense() if t.is_sparse else t
            for t in (arrived, tensor)
        ]
        assert torch.equal(*(t.resolve_conj().resolve_neg().to(torch.complex64) for t in as_float))


def test_large_tensors_leave_the_stream_and_arrive_writable() -> None:
    model = torch.nn.Linear(200, 200)
    array = np.arange(5000)
    pickled = dumps({"m": model, "t": BIG, "a": array}, {})
    assert len(pickled.data) < 8000
    assert sum(buffer.nbytes for buffer in pickled.buffers) == 200 * 200 * 4 + 4096 * 4 + 5000 * 8
    got = journey(t=BIG, a=array)
    got["t"] += 1
    got["a"] += 1
    assert got["t"][1] == 2
    assert got["a"][1] == 2
    assert BIG[1] == 1
    assert array[1] == 1


def test_views_of_one_storage_still_share_it() -> None:
    got = journey(base=BIG, view=BIG[10:20], again=BIG)
    got["base"][10] = -1
    assert got["view"][0] == -1
    assert got["again"] is got["base"]


def test_tensors_over_one_array_of_different_lengths_arrive_whole() -> None:
    array = np.arange(4000.0)
    got = journey(short=torch.from_numpy(array[:2000]), long=torch.from_numpy(array))
    assert got["long"][3999] == 3999
    assert got["short"].shape == (2000,)


def test_tensors_with_attributes_and_subclasses_keep_them() -> None:
    class Tagged(torch.Tensor):
        pass

    tagged = torch.ones(1000)
    tagged.note = "mine"  # type: ignore[attr-defined]
    got = journey(a=tagged, b=torch.ones(1000).as_subclass(Tagged))
    assert got["a"].note == "mine"
    assert type(got["b"]).__name__ == "Tagged"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10000).reshape(100, 100)[::2, ::3],
        np.asfortranarray(np.arange(10000).reshape(100, 100)),
        np.array([{"a": 1}, None, "x"] * 200, dtype=object)[::2],
        np.zeros((0, 4)),
        np.array(3.5),
    ],
)
def test_arrays_of_any_layout_keep_their_values(array: Any) -> None:
    arrived = journey(a=array)["a"]
    assert arrived.dtype == array.dtype
    assert np.array_equal(arrived, array)
    assert arrived.flags.writeable


def test_a_scattered_array_leaves_the_stream_too() -> None:
    assert len(dumps({"a": np.arange(100000)[::2]}, {}).data) < 1000


# ---- stateful objects


class Sender:
    """Kernel side of travel ids, for one life."""

    def __init__(self) -> None:
        self.ids = TravelIds()

    def __call__(self, peer: Peer, values: dict[str, Any], namespace: dict[str, Any] | None = None) -> None:
        peer.send(
            values,
            namespace if namespace is not None else {},
            known=lambda obj: self.ids.known(obj, ["a"]),
            remember=self.ids.remember,
        )
        self.ids.confirm(["a"])


def test_an_optimizer_sent_later_steps_the_model_sent_before(peer: Peer) -> None:
    send, model = Sender(), torch.nn.Linear(3, 1)
    send(peer, {"model": model})
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    send(peer, {"opt": optimizer})
    send(peer, {"sched": scheduler, "again": [model, model.weight]})
    assert peer.get("opt.param_groups[0]['params'][0] is model.weight")
    assert peer.get("sched.optimizer is opt and again[0] is model and again[1] is model.weight")
    peer.run(
        "before = model.weight.detach().clone()\n"
        "model(__import__('torch').ones(2, 3)).sum().backward(); opt.step()\n"
        "moved = bool((model.weight != before).any())"
    )
    assert peer.get("moved")


def test_a_model_and_its_optimizer_in_one_payload_stay_connected(peer: Peer) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    Sender()(peer, {"opt": torch.optim.SGD(model.parameters(), 0.1), "model": model})
    assert peer.get(
        "opt.param_groups[0]['params'][0] is model[0].weight and model[1].weight is model[0].weight"
    )
    assert peer.get("model.training and model[0].weight.requires_grad")


def test_a_module_that_refers_to_itself_arrives(notebook: Any, peer: Peer) -> None:
    namespace = notebook(
        """
        import torch
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = torch.nn.Linear(2, 2)
                self.hooks = [self]
            def forward(self, x): return self.inner(x)
        net = Net()
        """
    )
    Sender()(peer, {"net": namespace["net"]}, namespace)
    assert peer.get("net.hooks[0] is net and tuple(net(net.inner.weight).shape) == (2, 2)")


def test_the_table_keeps_nothing_alive_and_tells_what_died(peer: Peer) -> None:
    send, model = Sender(), torch.nn.Linear(2, 1)
    peer.dropped()
    send(peer, {"dying": model})
    peer.run("import gc; del dying; gc.collect()")
    assert len(peer.dropped()) == 3
    with pytest.raises(RuntimeError, match="no longer on this worker"):
        send(peer, {"opt": torch.optim.SGD(model.parameters(), 0.1)})


def test_a_table_raises_for_what_it_lost_and_prefers_the_newest() -> None:
    table, one, two = TravelTable(), torch.nn.Identity(), torch.nn.Identity()
    table.put(1, one)
    table.put(1, two)
    del one
    assert table.get(1) is two
    assert table.take_dropped() == []
    del two
    assert table.take_dropped() == [1]
    with pytest.raises(Gone):
        table.get(1)


def test_an_object_is_known_only_where_it_arrived() -> None:
    ids, model = TravelIds(), torch.nn.Identity()
    travel_id = ids.remember(model)
    assert ids.known(model, ["a"]) is None
    ids.confirm(["a", "b"])
    assert ids.known(model, ["a", "b"]) == travel_id
    assert ids.known(model, ["a", "c"]) is None
    ids.dropped("b", [travel_id])
    assert ids.known(model, ["a"]) == travel_id
    assert ids.known(model, ["a", "b"]) is None
    ids.forget("a")
    assert ids.known(model, ["a"]) is None


def test_an_object_that_was_not_delivered_is_not_known() -> None:
    ids, model = TravelIds(), torch.nn.Identity()
    ids.remember(model)
    ids.abandon()
    ids.confirm(["a"])
    assert ids.known(model, ["a"]) is None


def test_pickling_does_not_import_torch() -> None:
    import subprocess

    code = (
        "import sys, quarterdeck.transfer.pickler as p, quarterdeck.transfer.pickle_diagnosis\n"
        "import quarterdeck.transfer.shared_buffers, quarterdeck.transfer.transfer_state\n"
        "ns = {'__name__': '__main__'}; exec('def f(): return 1', ns); p.dumps({'f': ns['f']}, ns)\n"
        "assert not {'torch', 'numpy', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_spans_outside_the_memfd_are_refused() -> None:
    descriptor, _ = shared_buffers.pack([memoryview(b"abc")])
    with pytest.raises(ValueError, match="values end at byte"):
        shared_buffers.map_buffers(descriptor, [(0, 4)])


def test_a_written_page_is_private() -> None:
    descriptor, spans = shared_buffers.pack([memoryview(b"abc"), memoryview(b""), memoryview(b"xyz")])
    one, two = shared_buffers.map_buffers(descriptor, spans), shared_buffers.map_buffers(descriptor, spans)
    one[0][0] = ord("Z")
    assert [bytes(view) for view in two] == [b"abc", b"", b"xyz"]
    assert all(offset % 64 == 0 for offset, _ in spans)


def test_code_keeps_the_file_it_comes_from_whatever_cloudpickle_does(peer: Peer) -> None:
    """By it tracebacks and `inspect` find the source; 3.1.3 writes a constant in its place."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    code = (
        "def outer(n):\n    def inner():\n        return n\n    return inner\nclass A:\n    def f(self): pass"
    )
    exec(compile(code, "/the/cell.py", "exec"), namespace)
    closure, cls = namespace["outer"](1), namespace["A"]
    peer.send({"outer": namespace["outer"], "closure": closure, "A": cls}, namespace)
    for function in ("outer", "outer(1)", "closure", "A.f"):
        assert peer.get(f"{function}.__code__.co_filename") == "/the/cell.py"
        assert peer.get(f"{function}.__code__.co_qualname") == eval(
            f"{function}.__code__.co_qualname", {**namespace, "closure": closure}
        )
