"""Writes what browser and kernel share: `run.ts` and `checkpoints.ts` in `packages/protocol/src`, from
`quarterdeck.views.run.messages` and `quarterdeck.views.checkpoints.messages`, and `palette.css` in
`packages/views/src/basics`, from `quarterdeck.present.palette`.

Called by `make view` and by the checks: `python labextension/make_protocol.py [--check]`.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
from msgspec import inspect as shapes

from quarterdeck.present.palette import DARK, LIGHT
from quarterdeck.protocol import worker as wire
from quarterdeck.views.checkpoints import messages as shelf
from quarterdeck.views.run import messages as feed

SOURCES = Path(__file__).parent / "packages" / "protocol" / "src"
TARGETS = {feed: SOURCES / "run.ts", shelf: SOURCES / "checkpoints.ts"}
PALETTE = Path(__file__).parent / "packages" / "views" / "src" / "basics" / "palette.css"
BASES = (feed.ViewMessage, shelf.ShelfMessage)
COMMAND = "python labextension/make_protocol.py"


def struct_types(messages: ModuleType) -> list[type]:
    """All messages and their parts, in the order of the Python module."""
    found = [item for item in vars(messages).values() if inspect.isclass(item)]
    ours = messages.__name__, wire.__name__, "quarterdeck"
    own = [item for item in found if item.__module__ in ours]
    return [item for item in own if issubclass(item, msgspec.Struct) and item not in BASES]


def aliases(messages: ModuleType) -> dict[str, object]:
    """Names given to literals and unions of the module, such as `RunState`."""
    return {
        name: value
        for name, value in vars(messages).items()
        if not name.startswith("_") and getattr(value, "__args__", None) and not inspect.isclass(value)
    }


def typescript(shape: shapes.Type, names: dict[frozenset[object], str]) -> str:
    """How TypeScript writes this type; every number is a number there."""
    match shape:
        case shapes.StructType():
            return shape.cls.__name__
        case shapes.LiteralType():
            return names.get(frozenset(shape.values)) or " | ".join(f'"{value}"' for value in shape.values)
        case shapes.UnionType():
            return " | ".join(typescript(part, names) for part in shape.types)
        case shapes.ListType():
            inner = typescript(shape.item_type, names)
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case shapes.DictType():
            return f"Record<string, {typescript(shape.value_type, names)}>"
    plain = {
        shapes.IntType: "number",
        shapes.FloatType: "number",
        shapes.StrType: "string",
        shapes.BoolType: "boolean",
        shapes.NoneType: "null",
    }
    return plain[type(shape)]


def definition(struct: type) -> ast.ClassDef:
    """`inspect.getsource` does not find a public class: it looks where users have it from."""
    home = wire if struct.__module__ == "quarterdeck" else sys.modules[struct.__module__]
    body = ast.parse(inspect.getsource(home)).body
    return next(node for node in body if isinstance(node, ast.ClassDef) and node.name == struct.__name__)


def attribute_notes(struct: type) -> dict[str, str]:
    """The strings written below attributes; Python itself forgets them."""
    notes: dict[str, str] = {}
    for pair in itertools.pairwise(definition(struct).body):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                notes[name] = text
    return notes


def comment(text: str | None, indent: str = "") -> Iterator[str]:
    if text:
        lines = textwrap.wrap(" ".join(text.split()), 104 - len(indent), break_long_words=False)
        for at, line in enumerate(lines):
            start = "/** " if at == 0 else " * "
            yield f"{indent}{start}{line}" + (" */" if at == len(lines) - 1 else "")


def declared(struct: type, names: dict[frozenset[object], str]) -> Iterator[str]:
    """One struct as an interface, or as a tuple if it travels as an array."""
    shape = shapes.type_info(struct)
    assert isinstance(shape, shapes.StructType)
    notes = attribute_notes(struct)
    yield from comment(struct.__doc__)
    if shape.array_like:
        parts = ", ".join(f"{f.encode_name}: {typescript(f.type, names)}" for f in shape.fields)
        yield f"export type {struct.__name__} = [{parts}];"
        return
    yield f"export interface {struct.__name__} {{"
    if shape.tag is not None:
        yield f'  {shape.tag_field}: "{shape.tag}";'
    for field in shape.fields:
        yield from comment(notes.get(field.name), "  ")
        yield f"  {field.encode_name}: {typescript(field.type, names)};"
    yield "}"


def source(messages: ModuleType) -> str:
    """The whole file."""
    origin = messages.__name__.replace(".", "/")
    lines = [f"// Generated by `{COMMAND}` from {origin}.py. Do not edit.\n"]
    names: dict[frozenset[object], str] = {}
    unions: list[str] = []
    for name, value in aliases(messages).items():
        shape = shapes.type_info(value)
        if isinstance(shape, shapes.LiteralType):
            lines.append(
                f"export type {name} =\n  | " + "\n  | ".join(f'"{v}"' for v in value.__args__) + ";\n"
            )
            names[frozenset(shape.values)] = name
        else:
            unions.append(f"export type {name} = {' | '.join(part.__name__ for part in value.__args__)};\n")
    for struct in struct_types(messages):
        lines.extend([*declared(struct, names), ""])
    return "\n".join([*lines, *unions])


def palette() -> str:
    """The colours of the views."""
    themes = {".qd-view": LIGHT, '.qd-view[data-theme="dark"]': DARK}
    lines = [f"/* Generated by `{COMMAND}` from quarterdeck/present/palette.py. Do not edit. */"]
    for theme, colours in themes.items():
        lines += [f"{theme} {{", *(f"  --qd-{name}: {colour};" for name, colour in colours.items()), "}"]
    return "\n".join([*lines, ""])


def main() -> int:
    """0 if the files are as they should be; with `--check` they are only compared."""
    stale = 0
    files = {target: source(messages) for messages, target in TARGETS.items()} | {PALETTE: palette()}
    for target, wanted in files.items():
        if "--check" not in sys.argv[1:]:
            target.write_text(wanted, encoding="utf-8")
        elif not target.exists() or target.read_text(encoding="utf-8") != wanted:
            print(f"{target} does not match what it is written from. Run: {COMMAND}", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
