"""A run as a saved notebook keeps it: a sentence, a table of ranks, its decks. No script of ours, no external
resource; it reads well where a sanitizer takes all styles away. In the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from quarterdeck.metrics.series import Metrics
from quarterdeck.present import words
from quarterdeck.present.palette import FAINT
from quarterdeck.present.tables import html_table, text_table
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.run import faults
from quarterdeck.views.run.runs_html import called, rank_row
from quarterdeck.views.sink import Bundle

if TYPE_CHECKING:
    from quarterdeck.decks.reader import StoredDecks

__all__ = ["called", "empty", "of", "sentence"]

_METRICS = 4
_DECKS_LIMIT_BYTES = 1_000_000
"""The most that all decks take in a notebook's file; larger ones are in the run store only."""
_CHILD = ".jp-OutputArea-child"
_STYLE = (
    # Live: the picture and these tables, the view's two neighbours, would say the same again.
    f"{_CHILD}:has(.qd-view)+{_CHILD}:has(+{_CHILD} .qd-static),"
    f"{_CHILD}:has(.qd-view)+{_CHILD}+{_CHILD}:has(.qd-static),"
    # Its kernel is gone: of the view there is only an error about a missing model.
    f"{_CHILD}:has(.jupyter-widgets):not(:has(.qd-view)):has(+{_CHILD}+{_CHILD} .qd-static)"
    "{display:none}"
    ".qd-static{font:12px/1.4 var(--jp-ui-font-family,sans-serif);font-variant-numeric:tabular-nums;"
    "color:var(--jp-content-font-color1,inherit)}"
    ".qd-static summary{cursor:pointer;padding:4px 0}"
    ".qd-static iframe{width:100%;height:420px;resize:vertical;background:#fff;"
    "border:1px solid var(--jp-border-color2,#e0e0e0);border-radius:6px}"
)


def empty() -> str:
    """The place of what `of` gives, before there is anything: with the rules for its neighbours."""
    return f'<style>{_STYLE}</style><div class="qd-static"></div>'


def of(
    run: StoredRun, metrics: Metrics, state: str = "", outcomes: Sequence[Outcome] | None = None
) -> Bundle:
    """The run as it is now; `state` and `outcomes` where more is known than the store could keep."""
    metrics = metrics.own  # those that it began with are not what its ranks have done
    heads, rows = _table(run, metrics, run.outcomes() if outcomes is None else outcomes)
    text, foot = sentence(run, last_step(metrics), state), _foot(run)
    html = [
        f"<div><b>{escape(called(run.header))}</b> {escape(text)}</div>",
        html_table(heads, rows) if rows else "",
        *_decks(run),
        f'<div style="{FAINT}">{escape(foot)}</div>',
    ]
    plain = [f"{called(run.header)} {text}", *text_table(heads, rows), foot]
    return {
        "text/html": f'<style>{_STYLE}</style><div class="qd-static">{"".join(html)}</div>',
        "text/plain": "\n".join(plain),
    }


def sentence(run: StoredRun, step: int | None = None, state: str = "") -> str:
    """How it is, or how it ended: "failed at step 1,342: rank 1 raised ValueError"."""
    ended = faults.sentence(run, step)
    if ended:
        return ended
    after = f" after {words.seconds(run.duration_s)}" if run.started_unix_ns else ""
    return f"{state or run.state}{'' if step is None else f' at step {step:,}'}{after}"


def last_step(metrics: Metrics) -> int | None:
    """The greatest that any rank has logged."""
    steps = [int(one.steps[-1]) for name in metrics.names for one in metrics[name].by_rank.values()]
    return max(steps, default=None)


def _table(
    run: StoredRun, metrics: Metrics, outcomes: Sequence[Outcome]
) -> tuple[list[str], list[list[str]]]:
    """A row per rank; of the ranks' values where there are any, the last ones."""
    names = metrics.names[:_METRICS]
    by_rank = {outcome.rank: outcome for outcome in outcomes}
    known = sorted({*by_rank, *metrics.ranks})  # once it is over: those that took part
    ranks = known if run.state == "succeeded" and known else range(run.world_size) or known
    heads = ["rank", "state", *(["last step", *names] if names else []), "value", "last line"]
    rows = [_row(run, rank, by_rank.get(rank), metrics, names) for rank in ranks]
    empty = {at for at in range(len(heads)) if rows and not any(row[at] for row in rows)}
    return (
        [head for at, head in enumerate(heads) if at not in empty],
        [[cell for at, cell in enumerate(row) if at not in empty] for row in rows],
    )


def _row(run: StoredRun, rank: int, outcome: Outcome | None, metrics: Metrics, names: list[str]) -> list[str]:
    if outcome is not None:
        _, state, value, line = rank_row(run, outcome)
    else:
        state, value, line = ("" if run.terminal else run.state), "", ""
    values = [_last(metrics, name, rank) for name in names]
    steps = [int(metrics[name].by_rank[rank].steps[-1]) for name in names if rank in metrics[name].ranks]
    step = [f"{max(steps):,}" if steps else ""] if names else []
    return [str(rank), state, *step, *values, value, line]


def _last(metrics: Metrics, name: str, rank: int) -> str:
    series = metrics[name]
    return words.metric(series.last(rank)) if rank in series.ranks else ""


def _foot(run: StoredRun) -> str:
    again = f'qd.runs()["{run.run_id}"].show() draws it again.'
    decks = len([head for head in _stored_decks(run).heads() if not head.automatic])
    resumed = f"It {run.resumed}. " if run.resumed else ""
    return f"{resumed}{decks} deck{'s' if decks > 1 else ''}. {again}" if decks else f"{resumed}{again}"


def _stored_decks(run: StoredRun) -> StoredDecks:
    from quarterdeck.decks.reader import StoredDecks  # loading the extension needs none

    return StoredDecks(run.folder)


def _decks(run: StoredRun) -> Iterator[str]:
    """Those that user code has written, folded but for the first, in frames that touch nothing around."""
    left = _DECKS_LIMIT_BYTES
    unfold = " open"  # the first one
    decks = _stored_decks(run)
    for head in decks.heads():
        if head.automatic:
            continue
        page = decks.page(head.name, None) if head.size_bytes <= left else ""
        if page and len(page) <= left:  # a page of plotly's figures holds its library, too
            left -= len(page)
            when = "eager" if unfold else "lazy"  # in sight at once, also on paper
            frame = (
                f'<iframe sandbox="allow-scripts" loading="{when}" title="{escape(head.name)}" '
                f'srcdoc="{escape(page)}"></iframe>'
            )
            yield f"<details{unfold}><summary>{escape(head.name)}</summary>{frame}</details>"
            unfold = ""
        else:
            size = words.size(max(head.size_bytes, len(page)))
            yield f"<div>{escape(head.name)} ({size}) is too large for a notebook: run.decks has it.</div>"
