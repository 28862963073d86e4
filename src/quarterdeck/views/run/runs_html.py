"""Runs as tables: the history, newest first, and the rows of one run's ranks. HTML that follows the theme,
and text.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from quarterdeck.metrics.series import last_of_run
from quarterdeck.present import words
from quarterdeck.present.failure import short
from quarterdeck.present.palette import LIGHT
from quarterdeck.present.tables import Raw, faint, html_table, text_table
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.format import RunHeader
from quarterdeck.store.reader import StoredRun

_SHOWN_CHARS = 80
_METRICS_SHOWN = 3
_CALL_CHARS = 40
_NAME_CHARS = 120
_STATES = {
    "queued": ("\u25cc", "idle"),
    "starting": ("\u25d4", "acc"),
    "running": ("\u25d4", "acc"),
    "restarting": ("\u21bb", "warn"),
    "succeeded": ("\u2713", "ok"),
    "failed": ("\u2715", "err"),
    "stopped": ("\u25a0", "idle"),
    "lost": ("?", "err"),
}
_COLOURS = {
    "acc": f"var(--jp-brand-color1,{LIGHT['acc']})",
    "ok": f"var(--jp-success-color0,{LIGHT['ok']})",
    "warn": f"var(--jp-warn-color0,{LIGHT['warn']})",
    "err": f"var(--jp-error-color0,{LIGHT['err']})",
    "idle": f"var(--jp-ui-font-color2,{LIGHT['idle']})",
}
_RANK_WORDS = {"ok": "succeeded", "error": "failed"}


def history(runs: Sequence[StoredRun], total: int, of: int) -> dict[str, str]:
    """The newest runs as a mime bundle; `total` is how many there are, chosen from so many."""
    if not runs:
        text = f"No run of {of:,} matches." if of else "No runs yet."
        return {"text/plain": text, "text/html": f"<div>{faint(text)}</div>"}
    heads = ["name", "state", "started", "duration", "ranks", "last metrics", "run"]
    plain = [_history_row(run) for run in runs]
    html = [[row[0], _state(run.state, row[1]), *row[2:]] for row, run in zip(plain, runs, strict=True)]
    rest = total - len(runs)
    more = [f"and {rest:,} older: qd.runs(limit=...) shows more"] if rest else []
    return {
        "text/plain": "\n".join([*text_table(heads, plain), *more]),
        "text/html": html_table(heads, html) + "".join(f"<div>{faint(line)}</div>" for line in more),
    }


def called(header: RunHeader) -> str:
    """A function by its call: "train(lr=0.1)"; others by name or title."""
    if not header.arguments:
        return words.one_line(header.name or header.title, _NAME_CHARS)
    return words.one_line(
        f"{header.name or header.title.removesuffix('()')}({header.arguments})", _CALL_CHARS
    )


def _history_row(run: StoredRun) -> list[str]:
    created = datetime.fromtimestamp(run.created_unix_ns / 1e9)
    today = created.date() == datetime.now().date()
    return [
        called(run.header),
        f"{run.state}, detached" if run.detached and not run.terminal else run.state,
        created.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M"),
        _duration(run) if run.started_unix_ns else "",
        str(run.world_size or ""),
        _metrics(run),
        words.one_line(run.run_id, _NAME_CHARS),
    ]


def _metrics(run: StoredRun) -> str:
    """The first few by name; nan and inf as such."""
    last = last_of_run(run.folder)
    told = [f"{name} {words.metric(value)}" for name, value in sorted(last.items())]
    return ", ".join(told[:_METRICS_SHOWN]) + ("…" if len(told) > _METRICS_SHOWN else "")


def rank_row(run: StoredRun, outcome: Outcome) -> list[str]:
    what = outcome.text if outcome.state == "ok" else short(outcome)
    state = _RANK_WORDS.get(outcome.state, outcome.state)
    last = run.last_line(outcome.rank)
    return [str(outcome.rank), state, words.one_line(what, _SHOWN_CHARS), words.one_line(last, _SHOWN_CHARS)]


def _duration(run: StoredRun) -> str:
    return words.seconds(run.duration_s)


def _state(state: str, words: str) -> Raw:
    icon, colour = _STATES[state]
    return Raw(
        f'<span style="white-space:nowrap;color:{_COLOURS[colour]}">{icon} {words.capitalize()}</span>'
    )
