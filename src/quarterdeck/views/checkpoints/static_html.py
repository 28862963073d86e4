"""Checkpoints as a saved notebook keeps them, and as text: a table under the name of each run. No script, no
external resource. In the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from quarterdeck.present import words
from quarterdeck.present.tables import faint, html_table, text_table
from quarterdeck.views.checkpoints.messages import Group, Row
from quarterdeck.views.sink import Bundle

_ROWS = 40
"""The most rows of a group: of a longer one the newest are shown."""
_GROUPS = 10
_METRICS = 4
_CHILD = ".jp-OutputArea-child"
_STYLE = (
    # The live browser is there, and says the same and more.
    f"{_CHILD}:has(.qd-shelf)+{_CHILD}:has(.qd-shelf-static),"
    # Its kernel is gone: of the browser there is only an error about a missing model.
    f"{_CHILD}:has(.jupyter-widgets):not(:has(.qd-shelf)):has(+{_CHILD} .qd-shelf-static)"
    "{display:none}"
    ".qd-shelf-static{font:12px/1.4 var(--jp-ui-font-family,sans-serif);font-variant-numeric:tabular-nums;"
    "color:var(--jp-content-font-color1,inherit)}"
)
EMPTY = "No checkpoints yet. qd.save_checkpoint(model, optimizer, step=step) keeps one."


def of(groups: Sequence[Group], where: str) -> Bundle:
    html, plain = [], []
    for group in groups[:_GROUPS]:
        heads, rows = _table(group)
        html.append(f"<div><b>{escape(group.name)}</b> {faint(group.words)}</div>")
        html.append(html_table(heads, rows))
        plain += [f"{group.name} {group.words}".rstrip(), *text_table(heads, rows)]
        rest = len(group.rows) - len(rows)
        if rest:
            html.append(f"<div>{faint(f'and {rest:,} older')}</div>")
            plain.append(f"and {rest:,} older")
    foot = _foot(groups, where)
    html.append(f"<div>{faint(foot)}</div>")
    return {
        "text/html": f'<style>{_STYLE}</style><div class="qd-shelf-static">{"".join(html)}</div>',
        "text/plain": "\n".join([*plain, foot]),
    }


def _foot(groups: Sequence[Group], where: str) -> str:
    if not groups:
        return EMPTY
    rows = [row for group in groups for row in group.rows]
    count = f"{len(rows):,} checkpoint{'' if len(rows) == 1 else 's'}"
    size = words.size(sum(row.size_bytes for row in rows))
    more = f", {len(groups) - _GROUPS:,} older runs not shown" if len(groups) > _GROUPS else ""
    return f"{count}, {size}, of {where}{more}."


def _table(group: Group) -> tuple[list[str], list[list[str]]]:
    metrics = list(dict.fromkeys(name for row in group.rows for name in row.metrics))[:_METRICS]
    rows = [_cells(row, metrics) for row in group.rows[:_ROWS]]
    heads = ["step", "saved", "size", *metrics, "notes"]
    used = [at for at in range(len(heads)) if at < 3 or any(row[at] for row in rows)]
    return [heads[at] for at in used], [[row[at] for at in used] for row in rows]


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    saved = datetime.fromtimestamp(row.created_ms / 1e3)
    step = words.number(row.step) if row.step >= 0 else row.name
    time = f"{saved:%Y-%m-%d %H:%M:%S}" if row.created_ms else ""
    size = words.size(row.size_bytes) if row.size_bytes else ""
    return [step, time, size, *(_number(row.metrics.get(name)) for name in metrics), _notes(row)]


def _number(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else words.metric(value)


def _notes(row: Row) -> str:
    notes = [f"best {', '.join(row.best)}" if row.best else "", "pinned" if row.pinned else ""]
    notes += [f"skipped: {row.problem}" if row.problem else ""]
    notes += [f"needs trust: {', '.join(row.needs)}" if row.needs else ""]
    return ", ".join(note for note in notes if note)
