"""Python hidden in magics and shell commands: `%time train(x)`, `!ls {folder}`. Called by `transfer.names`
in the kernel."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

_NAMESPACE = {"time", "capture", "prun", "debug"}
"""Their code runs in the cell's namespace: what it binds stays."""
_PYTHON = _NAMESPACE | {"timeit", "memit", "mprun", "lprun", "snakeviz", "pyinstrument"}
_DOLLAR = re.compile(r"(?<!\$)\$([^\W\d]\w*)")
_ESCAPED = re.compile(r"^(\s*)(?:([\w, ]+?)\s*=\s*)?([!%])(.*)$")


@dataclass(frozen=True, slots=True)
class MagicCall:
    """One call of IPython's shell as it stands in a transformed cell."""

    name: str
    """The magic's name, empty for a shell command."""
    line: str
    body: str = ""
    is_cell: bool = False

    @property
    def keeps_names(self) -> bool:
        return self.name in _NAMESPACE

    def python(self) -> Iterator[ast.Module]:
        """The code it runs, in order. What cannot be parsed is left out: the workers will say what is
        wrong."""
        if self.name not in _PYTHON:
            return
        line = _without_options(self.line) if self.name != "capture" else None
        body = _parse(_transform(self.body)) if self.is_cell else None
        yield from (module for module in (line, body) if module is not None)

    def expressions(self) -> Iterator[ast.expr]:
        """What IPython puts into the line: `{expr}`, `$name`, `${name}`. Bodies of cell magics are not
        expanded."""
        texts = [] if self.name in _PYTHON else [*_fields(self.line), *_DOLLAR.findall(self.line)]
        for text in texts:
            try:
                yield ast.parse(text.strip(), mode="eval").body
            except SyntaxError:
                continue

    def binds(self) -> list[str]:
        """Names that the magic itself binds: `%%capture out`."""
        words = [word for word in self.line.split() if word.isidentifier()]
        return words[:1] if self.name == "capture" else []


def recognise(call: ast.Call) -> MagicCall | None:
    """The magic behind `get_ipython().run_line_magic(...)` and its kin; None for any other call."""
    match call.func:
        case ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=method):
            texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        case _:
            return None
    if len(texts) != len(call.args) or call.keywords:
        return None
    match method, texts:
        case (("system" | "getoutput" | "system_piped" | "system_raw"), [command]):
            return MagicCall("", command)
        case "run_line_magic", [name, line]:
            return MagicCall(name, line)
        case "run_cell_magic", [name, line, body]:
            return MagicCall(name, line, body, is_cell=True)
    return None


def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _without_options(line: str) -> ast.Module | None:
    """The statement of `-n 10 -r3 train(x)`: the longest rest that is Python and does not begin with an
    option."""
    rest = line.strip()
    while rest:
        module = None if rest.startswith("-") else _parse(rest)
        if module is not None:
            return module
        rest = rest.partition(" ")[2].lstrip()
    return None


def _fields(text: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(text) if name]
    except ValueError:
        return []


def _transform(body: str) -> str:
    """The body of a cell magic reaches us untransformed; its own magics and shell lines become calls here."""
    return "\n".join(_transform_line(line) for line in body.splitlines())


def _transform_line(line: str) -> str:
    found = _ESCAPED.match(line)
    if found is None:
        return line
    indent, target, mark, rest = found.groups()
    name, _, argument = rest.partition(" ")
    call = f"system({rest!r})" if mark == "!" else f"run_line_magic({name!r}, {argument!r})"
    return f"{indent}{f'{target} = ' if target else ''}get_ipython().{call}"
