"""The deck "Timeline": phases of all ranks on one time axis, and their sums. Drawn in the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from quarterdeck.decks.page import chips
from quarterdeck.decks.phases import FIRST_STEP, MOST, RUNNING, START_UP, Phase, Phases
from quarterdeck.decks.render.html import escaped, note, table
from quarterdeck.present.tables import Raw
from quarterdeck.present.words import seconds

_KNOWN = {
    START_UP: "p0",
    "rendezvous": "p1",
    FIRST_STEP: "p2",
    RUNNING: "p3",
    "wait": "pw",
    "waiting": "pw",
}
_OTHERS = ("p4", "p5", "p6", "p7", "p8", "p9")
_HEIGHT_PX = 20
_LEAST = 0.0005
"""A share of the axis: gaps smaller than that between phases of one name are not drawn."""
_MOST = 2_000
"""Phases drawn of a rank."""
_COLUMNS = 12
_PATTERN = (
    '<svg width="0" height="0" style="position:absolute"><defs>'
    '<pattern id="qd-wait" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="qd-wait-a" width="6" height="6"/><rect class="qd-wait-b" width="2" height="6"/>'
    "</pattern></defs></svg>"
)
_SCRIPT = """<script>
(()=>{const box=document.querySelector(".qd-time"),at=box.querySelector(".qd-at"),word=at.firstChild;
const left=28,span=Number(box.dataset.seconds);
const list=ranks=>ranks.length>1?ranks.slice(0,-1).join(", ")+" and "+ranks[ranks.length-1]:ranks[0];
box.addEventListener("mousemove",event=>{const area=box.getBoundingClientRect(),width=area.width-left;
const x=event.clientX-area.left-left;if(x<0||x>width)return at.style.display="none";
const place=100*x/width,names=new Map();
for(const row of box.querySelectorAll("svg[data-rank]")){let name="";
for(const bar of row.querySelectorAll("rect")){const start=parseFloat(bar.getAttribute("x"));
if(start<=place&&place<=start+parseFloat(bar.getAttribute("width")))name=bar.dataset.name}
if(name)names.set(name,[...(names.get(name)||[]),row.dataset.rank])}
const said=[...names].map(([name,ranks])=>name+" on "+list(ranks)).join("; ");
word.textContent=(span*place/100).toFixed(span<10?2:1)+" s"+(said?": "+said:"");
at.style.display="block";at.style.left=left+x+"px";
word.style[place>50?"right":"left"]="4px";word.style[place>50?"left":"right"]="auto"});
box.addEventListener("mouseleave",()=>at.style.display="none")})()
</script>"""


def drawn(found: Phases) -> str:
    """As the inside of a page."""
    if not found.phases:
        return note("Nothing has run yet.")
    span = max(1, found.end_unix_ns - found.start_unix_ns)
    classes = _classes(found.phases)
    rows = "".join(_row(rank, list(own), found.start_unix_ns, span, classes) for rank, own in _by_rank(found))
    live = note("The run goes on; this is as of when the deck was opened.") if found.live else ""
    live += note(f"There are more than {MOST:,} phases: those of later attempts are left out.") * found.cut
    return (
        f"{_legend(classes)}"
        f'<div class="qd-time" data-seconds="{span / 1e9:.6f}" role="img" '
        f'aria-label="phases of each rank, {_duration(span)} in all">{_axis(found, span)}{rows}{_foot(span)}'
        f'<div class="qd-at"><span></span></div></div>{live}{_sums(found)}{_SCRIPT}'
    )


def _by_rank(found: Phases) -> Iterable[tuple[int, Iterable[Phase]]]:
    return groupby(found.phases, lambda phase: phase.rank)


def _classes(phases: Sequence[Phase]) -> dict[str, str]:
    """Colours by name: ours first, those of the user in order of appearance."""
    names = {phase.name for phase in phases}
    first = sorted(phases, key=lambda phase: phase.start_unix_ns)
    others = dict.fromkeys(phase.name for phase in first if phase.name not in _KNOWN)
    ours = {name: style for name, style in _KNOWN.items() if name in names and style != "pw"}
    waits = {name: style for name, style in _KNOWN.items() if name in names and style == "pw"}
    users = {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(others)}
    return {**ours, **users, **waits}


def _legend(classes: dict[str, str]) -> str:
    entries = "".join(
        f'<span><svg width="10" height="10"><rect width="10" height="10" rx="2" class="{style}"/></svg>'
        f"{escaped(name, 60)}</span>"
        for name, style in list(classes.items())[:24]
    )
    return f'{_PATTERN}<div class="qd-legend">{entries}</div>'


def _row(rank: int, phases: list[Phase], start: int, span: int, classes: dict[str, str]) -> str:
    bars = "".join(_bar(phase, start, span, classes[phase.name]) for phase in _joined(phases, span)[:_MOST])
    chip = chips([rank])
    return f'{chip}<svg data-rank="{rank}" width="100%" height="{_HEIGHT_PX}">{bars}</svg>'


def _bar(phase: Phase, start: int, span: int, style: str) -> str:
    """Inner spans are lower, on top of those that hold them."""
    inset = min(3 * max(0, phase.depth), 8)
    left = 100 * (phase.start_unix_ns - start) / span
    wide = 100 * (phase.end_unix_ns - phase.start_unix_ns) / span
    words = f"{phase.name} {_duration(phase.end_unix_ns - phase.start_unix_ns)}"
    ended = ", not ended" if phase.open else ""
    name = escaped(phase.name, 60)
    return (
        f'<rect x="{left:.3f}%" y="{inset}" width="{max(wide, 0.08):.3f}%" height="{_HEIGHT_PX - 2 * inset}" '
        f'rx="2" class="{style}{" open" if phase.open else ""}" data-name="{name}">'
        f"<title>{escaped(words + ended, 100)}</title></rect>"
    )


def _joined(phases: list[Phase], span: int) -> list[Phase]:
    """A span of every step, ten thousand times, is one bar on an axis of a thousand pixels."""
    joined: list[Phase] = []
    for phase in phases:
        last = joined[-1] if joined else None
        same = last is not None and (last.name, last.depth) == (phase.name, phase.depth)
        if last is not None and same and phase.start_unix_ns - last.end_unix_ns < span * _LEAST:
            end = max(last.end_unix_ns, phase.end_unix_ns)
            joined[-1] = Phase(last.rank, last.name, last.start_unix_ns, end, last.depth, phase.open)
        else:
            joined.append(phase)
    return joined


def _axis(found: Phases, span: int) -> str:
    grid = "".join(
        f'<line class="gl" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>' for x, _ in _ticks(span)
    )
    places = [(n, 100 * (begun - found.start_unix_ns) / span) for n, begun in found.attempts.items()]
    marks = "".join(
        f'<line class="at" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"><title>attempt {n}</title></line>'
        for n, x in places
    )
    return f'<svg class="qd-axis">{grid}{marks}</svg>'


def _foot(span: int) -> str:
    texts = "".join(
        f'<text x="{x:.2f}%" y="12" text-anchor="{"start" if x == 0 else "middle"}">{words}</text>'
        for x, words in _ticks(span)
        if x < 97
    )
    return f'<svg class="qd-foot" width="100%" height="16">{texts}</svg>'


def _ticks(span: int) -> list[tuple[float, str]]:
    """(percent of the axis, words), five to ten of them."""
    seconds = span / 1e9
    step = next(
        (n * 10.0**p for p in range(-6, 9) for n in (1, 2, 5) if seconds / (n * 10.0**p) <= 8), seconds
    )
    return [(100 * i * step / seconds, f"{i * step:g} s") for i in range(int(seconds / step) + 1)]


def _sums(found: Phases) -> Raw:
    """Seconds by rank and name: of the ground what the spans on it leave over is not told apart."""
    names = [name for name in _classes(found.phases) if name != RUNNING][: _COLUMNS - 1]
    names = [*names, RUNNING] if any(phase.name == RUNNING for phase in found.phases) else names
    sums: dict[tuple[int, str], int] = {}
    for phase in found.phases:
        key = (phase.rank, phase.name)
        sums[key] = sums.get(key, 0) + phase.end_unix_ns - phase.start_unix_ns
    rows = [
        [Raw(chips([rank])), *(_duration(sums[rank, name]) if (rank, name) in sums else "" for name in names)]
        for rank in found.ranks
    ]
    return Raw(f'<div class="qd-sums">{table(["Rank", *names], rows, range(1, len(names) + 1))}</div>')


def _duration(ns: int) -> str:
    return seconds(ns / 1e9)
