"""Rows as HTML and as plain text: rank chips in a gutter, the text beside them in the notebook's code font.

Colours follow the theme (`--jp-*` with fallbacks; a second set for dark themes of JupyterLab, nbconvert, VS
Code and Colab). No script, no external resource, and everything reads in order when a sanitizer takes all
styles away. The values are those of the design tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby

from quarterdeck.present import ansi, words
from quarterdeck.present.palette import DARK, DARK_ANSI, DARK_RANKS, LIGHT, LIGHT_ANSI, LIGHT_RANKS
from quarterdeck.views.lines.rows import Row

IN_THE_DARK = ":is([data-jp-theme-light=false],.vscode-dark,[theme=dark]) .qd"


def _colours(of: dict[str, str]) -> str:
    return f"--q2:{of['fg2']};--qe:{of['hover']};--qw:{of['warn']};--qv:{of['warn-t']};"


_BASE = (
    f".qd{{{_colours(LIGHT)}margin:0!important;font-variant-numeric:tabular-nums;"
    "font-size:var(--jp-code-font-size,13px);line-height:var(--jp-code-line-height,1.31)}"
    f"{IN_THE_DARK}{{{_colours(DARK)}}}"
    ".qd .qg{display:grid;grid-template-columns:var(--qd-w,44px) minmax(0,1fr);column-gap:8px}"
    ".qd pre{margin:0;padding:0;border:0;background:none;color:var(--jp-content-font-color1,inherit);"
    "font:inherit;font-family:var(--jp-code-font-family,monospace);white-space:pre-wrap;overflow-wrap:anywhere;"
    "word-break:normal;tab-size:8}"
    ".qd pre.qe{background:var(--qe);box-shadow:-4px 0 var(--qe)}"
)
_CHIPS = (
    ".qd .qc{display:flex;flex-wrap:wrap;align-content:flex-start;gap:1px 2px;"
    "user-select:none;padding-top:1px}"
    ".qd .qc b{box-sizing:border-box;min-width:18px;height:15px;padding:0 4px;border:1px solid var(--c);"
    "border-radius:3px;"
    "background:color-mix(in srgb,var(--c) 10%,transparent);text-align:center;white-space:nowrap;"
    "font:600 11px/13px var(--jp-ui-font-family,sans-serif);font-variant-numeric:tabular-nums;"
    "color:color-mix(in srgb,var(--c) 72%,var(--jp-ui-font-color0,currentColor));--c:var(--q2)}"
    ".qd .qc i{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:pre}"
)
_NOTES = (
    ".qd .qn{color:var(--q2);font:12px/18px var(--jp-ui-font-family,sans-serif);"
    "font-variant-numeric:tabular-nums;overflow-wrap:anywhere}"
    ".qd .qn svg{width:12px;height:12px;margin-right:6px;vertical-align:-1px;fill:none;stroke:currentColor;"
    "stroke-width:1.5;stroke-linecap:round;stroke-linejoin:round}"
    ".qd .qn.w{color:var(--qw);background:var(--qv);padding:1px 4px;margin:0 -4px;border-radius:3px}"
)
_ICONS = {
    "info": '<circle cx="8" cy="8" r="6"/><path d="M8 7.4v3.4M8 5v.1"/>',
    "warning": '<path d="M8 2.2 14.3 13H1.7z"/><path d="M8 6.4v3.2M8 11.3v.1"/>',
}
_ANSI_CLASS = re.compile(r'<span class="([a-z0-9 ]+)"')


def segment(rows: Iterable[Row], world_size: int) -> str:
    """A text segment. With one rank in the group there is no gutter."""
    body: list[str] = []
    ranks: set[int] = set()
    for (note, _), group in groupby(rows, key=lambda row: (row.members == 0, row.members)):
        same = list(group)
        if note:
            body.extend(_note(row) for row in same)
        elif world_size == 1:
            body.append(_text(same))
        else:
            ranks.update(same[0].ranks)
            body.append(f'<div class="qg">{chips(same[0].ranks, world_size)}<div>{_text(same)}</div></div>')
    return _frame("".join(body), ranks, world_size)


def label(ranks: Sequence[int], world_size: int) -> str:
    """The line above a display: whose it is."""
    return _frame(f"<div>{chips(ranks, world_size)}</div>", set(ranks), world_size)


def plain(rows: Iterable[Row], world_size: int) -> str:
    """The same for a front end without HTML, every line behind its ranks."""
    return "\n".join(line for row in rows for line in _plain_lines(row, world_size))


def plain_label(ranks: Sequence[int], world_size: int) -> str:
    """The label of a display in plain text."""
    return f"[{words.short(ranks, world_size)}]"


def error(lines: Sequence[str]) -> dict[str, str]:
    """A failure in ANSI, as a mime bundle of its own."""
    text = "\n".join(lines)
    body = f"<pre>\n{ansi.to_html(text)}\n</pre>"
    return {"text/html": _frame(body, set(), 1), "text/plain": ansi.strip(text)}


def chips(ranks: Sequence[int], world_size: int) -> str:
    """Coloured numbers; the word "rank" is there for screen readers and for pages without styles."""
    texts = words.labels(ranks, world_size)
    several = len(ranks) > 1
    parts = [f"<i>rank{'s' if several else ''} </i>"]
    for number, text in enumerate(texts):
        kind = f' class="q{int(text) % 8}"' if text.isdigit() else ""
        parts.append(f"{'<i>, </i>' if number else ''}<b{kind}>{text}</b>")
    return f'<div class="qc">{"".join(parts)}</div>'


def gutter(world_size: int) -> int:
    """Width in px of the rank column: fixed, so that nothing moves while lines come in."""
    digits = len(str(world_size - 1))
    return {1: 0, 2: 36}.get(world_size, 66 if world_size <= 8 else 54 + 12 * digits)


def _text(rows: Sequence[Row]) -> str:
    """Neighbouring rows of the same ranks: one block per kind."""
    parts: list[str] = []
    for faint, group in groupby(rows, key=lambda row: row.kind == "stderr"):
        # A newline right after <pre> is dropped by browsers, so one is always given.
        text = "\n".join(ansi.to_html(row.text) for row in group)
        parts.append(f"<pre{' class=qe' if faint else ''}>\n{text}\n</pre>")
    return "".join(parts)


def _note(row: Row) -> str:
    icon = f'<svg viewBox="0 0 16 16" aria-hidden="true">{_ICONS[row.kind]}</svg>'
    if row.kind == "warning":
        return f'<div class="qn w">{icon}Warning: {escape(row.text, quote=False)}</div>'
    return f'<div class="qn">{icon}{escape(row.text, quote=False)}</div>'


def _plain_lines(row: Row, world_size: int) -> Iterator[str]:
    if not row.members:
        yield f"Warning: {row.text}" if row.kind == "warning" else row.text
        return
    prefix = "" if world_size == 1 else plain_label(row.ranks, world_size) + " "
    for line in ansi.strip(row.text).split("\n"):
        yield prefix + line


def _frame(body: str, ranks: set[int], world_size: int) -> str:
    """The segment's element with just the rules that it uses."""
    width = f' style="--qd-w:{gutter(world_size)}px"' if world_size > 1 else ""
    return f'<style>{_style(body, ranks)}</style><div class="qd"{width}>{body}</div>'


def _style(body: str, ranks: set[int]) -> str:
    rules = [_BASE]
    if ranks:
        rules.append(_CHIPS)
    if 'class="qn' in body:
        rules.append(_NOTES)
    for slot in sorted({rank % 8 for rank in ranks}):
        rules.append(
            f".qd .qc .q{slot}{{--c:{LIGHT_RANKS[slot]}}}{IN_THE_DARK} .qc .q{slot}{{--c:{DARK_RANKS[slot]}}}"
        )
    used = {name for names in _ANSI_CLASS.findall(body) for name in names.split()}
    rules.extend(_ansi_rule(name) for name in sorted(used))
    return "".join(rules)


def _ansi_rule(name: str) -> str:
    """Text in a colour that both themes can show; backgrounds as a tint, so that text on them is readable."""
    if name == "dm":
        return ".qd pre .dm{opacity:.7}"
    slot = int(name[1])
    if name[0] == "f":
        return (
            f".qd pre .{name}{{color:{LIGHT_ANSI[slot]}}}{IN_THE_DARK} pre .{name}{{color:{DARK_ANSI[slot]}}}"
        )
    return (
        f".qd pre .{name}{{background:color-mix(in srgb,{LIGHT_ANSI[slot]} 25%,transparent)}}"
        f"{IN_THE_DARK} pre .{name}{{background:color-mix(in srgb,{DARK_ANSI[slot]} 30%,transparent)}}"
    )
