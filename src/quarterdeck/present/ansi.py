"""ANSI escape codes: splitting a stream into text and codes, the SGR state, and its HTML.

Colours and weights are kept, because programs mean them. A row's text holds them in one canonical form (a
reset before every change, none at the end), so that equal looks make equal text and rows of several ranks
can be folded by comparison.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from typing import NamedTuple

TOKEN = re.compile(
    r"\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])"  # CSI: parameters, final character
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC (titles, links): dropped
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # DCS and its like: dropped
    r"|\x1b[ -/]*[0-Z\\^-~]"  # two-character codes: dropped
    r"|([\n\r\b])"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # other control characters: dropped
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Anything but text, tab and newline."""
UNFINISHED = re.compile(r"\x1b(?:\[[0-9;:?<=>]*[ -/]*|[\]PX^_][^\x07\x1b]{0,4000}\x1b?|[ -/]*)?\Z")
"""A code cut off by the end of a chunk."""
SGR = re.compile(r"\x1b\[([0-9;]*)m")


class Style(NamedTuple):
    """The state of a terminal's pen. `fg` and `bg` are SGR parameters ("31", "38;5;208") or empty."""

    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    inverse: bool = False
    fg: str = ""
    bg: str = ""


PLAIN = Style()
_FLAGS = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse"}
_UNSET = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",)}


@lru_cache(maxsize=2048)
def apply(style: Style, params: str) -> Style:
    """The style after `ESC [ params m`."""
    codes = [int(part[:4] or 0) for part in params.replace(":", ";").split(";")[:32]]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = PLAIN
        elif code in _FLAGS:
            style = _with(style, True, _FLAGS[code])
        elif code in _UNSET:
            style = _with(style, False, *_UNSET[code])
        elif code in (38, 48):
            colour = _extended(code, codes)
            style = style._replace(fg=colour) if code == 38 else style._replace(bg=colour)
        elif 30 <= code <= 39 or 90 <= code <= 97:
            style = style._replace(fg="" if code == 39 else str(code))
        elif 40 <= code <= 49 or 100 <= code <= 107:
            style = style._replace(bg="" if code == 49 else str(code))
    return style


def _with(style: Style, on: bool, *flags: str) -> Style:
    return Style(**{**style._asdict(), **dict.fromkeys(flags, on)})


def _extended(code: int, rest: list[int]) -> str:
    """256-colour and true-colour parameters; takes what belongs to them from `rest`."""
    length = {5: 2, 2: 4}.get(rest[0] if rest else 0, 1)
    taken, rest[:length] = rest[:length], []
    if len(taken) < 2 or len(taken) < length or any(part > 255 for part in taken):
        return ""
    return ";".join(map(str, [code, *taken]))


@lru_cache(maxsize=2048)
def codes(style: Style) -> str:
    """The escape sequence that turns a plain pen into this one."""
    parts = [str(code) for code, name in _FLAGS.items() if getattr(style, name)]
    parts += [part for part in (style.fg, style.bg) if part]
    return f"\x1b[{';'.join(parts)}m" if parts else ""


def strip(text: str) -> str:
    """The text without colours."""
    return SGR.sub("", text) if "\x1b" in text else text


def to_html(text: str) -> str:
    """Escaped text; weights as <b>, <i>, <u>, colours as classes that view.html knows."""
    if "\x1b" not in text:
        return escape(text, quote=False)
    parts = SGR.split(text)
    out = [escape(parts[0], quote=False)]
    style = PLAIN
    for params, piece in zip(parts[1::2], parts[2::2], strict=True):
        style = apply(style, params)
        opening, closing = tags(style)
        if piece:
            out.append(f"{opening}{escape(piece, quote=False)}{closing}")
    return "".join(out)


@lru_cache(maxsize=512)
def tags(style: Style) -> tuple[str, str]:
    """Opening and closing tags of a style."""
    fg, bg = _colours(style)
    classes, inline = _paint(fg, "f", "color"), _paint(bg, "k", "background")
    names = " ".join(part for part in (classes[0], inline[0], "dm" if style.dim else "") if part)
    css = ";".join(part for part in (classes[1], inline[1]) if part)
    opening = closing = ""
    if names or css:
        opening = "<span" + (f' class="{names}"' if names else "") + (f' style="{css}"' if css else "") + ">"
        closing = "</span>"
    for tag, on in (("b", style.bold), ("i", style.italic), ("u", style.underline)):
        if on:
            opening, closing = f"{opening}<{tag}>", f"</{tag}>{closing}"
    return opening, closing


def looks(text: str) -> tuple[str, list[tuple[int, str]]]:
    """The text without colours, and from which places on it looks how, in the live view's CSS. Places are
    counted as JavaScript does: in units of UTF-16.
    """
    if "\x1b" not in text:
        return text, []
    first, *parts = SGR.split(text)
    plain, style, found = [first], PLAIN, []
    at = _utf16_units(first)
    for params, piece in zip(parts[::2], parts[1::2], strict=True):
        style = apply(style, params)
        if piece:
            found.append((at, as_css(style)))
            plain.append(piece)
            at += _utf16_units(piece)
    return "".join(plain), found


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@lru_cache(maxsize=512)
def as_css(style: Style) -> str:
    """A style as the live view shows it, whose sheet has the eight named colours as variables."""
    fg, bg = _colours(style)
    rules = {
        "font-weight:bold": style.bold,
        "opacity:.7": style.dim,
        "font-style:italic": style.italic,
        "text-decoration:underline": style.underline,
        f"color:{fg if fg[:1] == '#' else f'var(--qd-a{fg})'}": fg,
        f"background:{bg if bg[:1] == '#' else f'color-mix(in srgb,var(--qd-a{bg}) 27%,transparent)'}": bg,
    }
    return ";".join(rule for rule, on in rules.items() if on)


def _paint(colour: str, prefix: str, css_property: str) -> tuple[str, str]:
    """(class, inline style) of a colour: the eight named ones follow the theme, others are as given."""
    if colour[:1] == "#":
        return "", f"{css_property}:{colour}"
    return (f"{prefix}{colour}" if colour else ""), ""


def _colours(style: Style) -> tuple[str, str]:
    """Colours of text and background: "0" to "7" for the named ones, "#c62828" for others, "" for none."""
    fg, bg = (style.bg, style.fg or "37") if style.inverse else (style.fg, style.bg)
    return _colour(fg), _colour(bg)


def _colour(params: str) -> str:
    if not params:
        return ""
    parts = [int(part) for part in params.split(";")]
    if len(parts) == 5:
        return "#" + "".join(f"{part:02x}" for part in parts[2:])
    index = parts[2] if parts[0] in (38, 48) and parts[1] == 5 else parts[0] % 10
    return str(index % 8) if index < 16 else _xterm(index)


def _xterm(index: int) -> str:
    """The colour cube and grey ramp of 256-colour terminals."""
    if index >= 232:
        return "#" + f"{8 + 10 * (index - 232):02x}" * 3
    levels = (0, 95, 135, 175, 215, 255)
    index -= 16
    return "#" + "".join(f"{levels[part]:02x}" for part in (index // 36, index // 6 % 6, index % 6))
