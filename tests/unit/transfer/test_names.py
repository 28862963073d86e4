"""What a cell needs from outside, and what it binds."""

from __future__ import annotations

import dataclasses
import functools
import textwrap

import pytest

from quarterdeck.transfer.names import analyse, referenced_globals, transitive


def needs(code: str) -> set[str]:
    return set(analyse(textwrap.dedent(code)).needs)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1\nx", set()),
        ("x\nx = 1", {"x"}),
        ("x += 1", {"x"}),
        ("x = x + 1", {"x"}),
        ("x[0] = y", {"x", "y"}),
        ("x.attr = 1", {"x"}),
        ("import torch as t, a.b\nt, a", set()),
        ("from m import f as g\ng, f", {"f"}),
        ("for i in xs: i, y\ni", {"xs", "y"}),
        ("with opened as f: f", {"opened"}),
        ("if a: x = 1\nx", {"a", "x"}),
        ("if a: x = 1\nelse: x = 2\nx", {"a"}),
        ("for i in xs: x = 1\nx", {"xs", "x"}),
        ("try: x = 1\nexcept E as e: e\nx", {"E", "x"}),
        ("while (n := step()): n", {"step"}),
        ("a and (y := 1)\ny", {"a", "y"}),
        ("del x", {"x"}),
        ("x = 1\ndel x\nx", {"x"}),
        ("[a + b for a in c if d]", {"b", "c", "d"}),
        ("[a for row in rows for a in row]", {"rows"}),
        ("[(last := a) for a in b]\nlast", {"b", "last"}),
        ("{k: v for k, v in d.items()}", {"d"}),
        ("lambda x=a: x + y", {"a", "y"}),
        ("@deco\ndef f(x: T = d) -> R: return x", {"deco", "T", "d", "R"}),
        ("class A(B, metaclass=M):\n  x = 1\n  y = x + z\n  def f(self): return x", {"B", "M", "z", "x"}),
        ("class A:\n  def f(self): return A", set()),
        ("class A:\n  x: int = 1\n  y = [x for _ in q]", {"int", "q", "x"}),
        ("x: T = v", {"T", "v"}),
        ("x: T\nx", {"T", "x"}),
        ("def f():\n  x: T = 1\n  return x", set()),
        ("match p:\n  case C(a, b=[c, *d]) if e: a, c, d\n  case {'k': v, **r}: v, r", {"p", "C", "e"}),
        ("f'{x!r:>{w}}'", {"x", "w"}),
        ("await x", {"x"}),
        ("print(x)", {"print", "x"}),
    ],
)
def test_needs_are_the_names_read_before_the_cell_binds_them(code: str, expected: set[str]) -> None:
    assert needs(code) == expected


def test_a_function_may_use_what_the_cell_binds_later() -> None:
    assert needs("def f(): return x + y\nx = 1") == {"y"}
    assert needs("def f(): return x\nif a: x = 1") == {"a", "x"}


def test_locals_parameters_and_nonlocals_are_not_needed() -> None:
    code = """
        def outer(a, *args, k=1, **kw):
            b = c = 1
            def inner():
                nonlocal b
                b = a + c + free
                import os
                return os, args, kw, k
            return [b for b in inner()]
    """
    assert needs(code) == {"free"}


def test_a_global_statement_reads_and_binds_the_cell_level_name() -> None:
    names = analyse("def f():\n  global n\n  n += 1")
    assert names.needs == {"n"}
    assert names.binds == {"f", "n"}


def test_binds_holds_conditional_names_too_and_no_locals() -> None:
    code = "import a.b\nif q: x = 1\nfor i in y: pass\ndef f(p): loc = 1\nclass C: attr = 1\n[z for z in y]"
    assert analyse(code).binds == {"a", "x", "i", "f", "C"}


@pytest.mark.parametrize(
    "code",
    [
        "if rank == 0: print(best)",
        "if local_rank in (0, 1):\n  pass\nelse:\n  best",
        "best if rank == 0 else None",
        "rank == 0 and best",
        "def f():\n  if rank == 0: return best",
        "if rank == 0:\n  def f(): return best",
        "match rank:\n  case 0: best",
    ],
)
def test_a_name_read_only_where_the_rank_was_asked_is_guarded(code: str) -> None:
    assert "best" in analyse(code).guarded


def test_one_unguarded_read_is_enough_to_need_the_name_everywhere() -> None:
    assert analyse("if rank == 0: best\nbest").guarded == set()
    assert "rank" not in analyse("if rank == 0: best").guarded


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("get_ipython().run_line_magic('time', 'train(model)')", {"train", "model"}),
        ("get_ipython().run_line_magic('timeit', '-n 10 -r3 f(x)')", {"f", "x"}),
        ("get_ipython().run_cell_magic('time', '', 'y = f(x)\\ny')\ny", {"f", "x"}),
        ("get_ipython().run_cell_magic('timeit', 's = a', 's + b')", {"a", "b"}),
        ("get_ipython().run_cell_magic('capture', 'out', '!ls {d}\\ng()')\nout", {"d", "g"}),
        ("get_ipython().run_cell_magic('bash', '', 'echo $HOME {x}')", set()),
        ("files = get_ipython().getoutput('ls {folder}/$name ${pat}')", {"folder", "name", "pat"}),
        ("get_ipython().system(\"awk '{print $1}' $$x\")", set()),
        ("get_ipython().run_line_magic('cd', '{root.parent}')", {"root"}),
        ("get_ipython().system(cmd)", {"get_ipython", "cmd"}),
    ],
)
def test_names_in_magics_and_shell_commands_are_found(code: str, expected: set[str]) -> None:
    assert needs(code) == expected


def test_dotted_chains_of_needed_names_are_told() -> None:
    assert analyse("xml.etree.ElementTree.parse(p)\nq = 1\nq.real").paths == {"xml.etree.ElementTree.parse"}


def test_a_syntax_error_is_raised() -> None:
    with pytest.raises(SyntaxError):
        analyse("x = ")


# ---- what values refer to


def notebook(code: str) -> dict[str, object]:
    namespace: dict[str, object] = {
        "__name__": "__main__",
        "functools": functools,
        "dataclasses": dataclasses,
    }
    exec(textwrap.dedent(code), namespace)
    return namespace


def refers(code: str, name: str = "f") -> set[str]:
    namespace = notebook(code)
    return referenced_globals(namespace[name], namespace)


BASE = "a = b = c = d = 1\ndef g(): return c\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): return a, (lambda: b)()", {"a", "b"}),
        ("def f(x): return x.a + x.b", set()),
        ("def f(x=g): return x", {"c"}),
        ("def mk(h):\n  return lambda: h()\nf = mk(g)", {"c"}),
        ("f = functools.partial(g, 1)", {"c"}),
        ("@functools.wraps(g)\ndef f(): return a", {"a", "c"}),
        ("@functools.lru_cache\ndef f(): return a", {"a"}),
        ("class f:\n  def m(self): return a\n  @property\n  def p(self): return b", {"a", "b", "f"}),
        (
            "class f:\n  @staticmethod\n  def m(): return a\n  @classmethod\n  def n(c): return b",
            {"a", "b", "f"},
        ),
        ("class B:\n  def m(self): return a\nclass f(B): pass", {"a", "B", "f"}),
        ("class B:\n  def m(self): return a\nf = B()", {"a", "B"}),
        ("class B:\n  def m(self): return a\nf = [B().m]", {"a", "B"}),
        ("@dataclasses.dataclass\nclass f:\n  x: object = dataclasses.field(default_factory=g)", {"c", "f"}),
        ("f = 3", set()),
    ],
)
def test_a_value_refers_to_what_its_code_reads(code: str, expected: set[str]) -> None:
    assert refers(BASE + code) == expected


def test_transitive_follows_only_wanted_names() -> None:
    namespace = notebook("def f(): return g()\ndef g(): return h\ndef k(): return f\nh = 1")
    assert transitive(["k"], namespace, lambda name: True) == {"k", "f", "g", "h"}
    assert transitive(["k", "nothing"], namespace, lambda name: name != "g") == {"k", "f"}
