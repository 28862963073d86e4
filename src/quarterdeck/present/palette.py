"""The colours of all that is drawn: light and dark, by what they are for. Pure. `palette.css` of the views is
written from here (`make view`).
"""

from __future__ import annotations

LIGHT = {
    "fg2": "#5f6368",
    "raise": "#f8f9fa", "hover": "#f1f3f5", "line": "#e0e0e0", "soft": "#eceef0", "ctl": "#8a9096",
    "trk": "#e6e8eb",
    "acc": "#1769c2", "acc-t": "#e8f1fc", "ok": "#276b2b", "ok-t": "#e7f4e8", "warn": "#8a5a00",
    "warn-t": "#fff5dc", "err": "#c62828", "err-t": "#fdecea", "idle": "#5f6368", "mean": "#202124",
    "r0": "#004c9e", "r1": "#c24a00", "r2": "#009963", "r3": "#8a3d74", "r4": "#2595b1",
    "r5": "#938110", "r6": "#3a3399", "r7": "#5a1d16",
    "a0": "#202124", "a1": "#c62828", "a2": "#276b2b", "a3": "#8a5a00", "a4": "#1769c2",
    "a5": "#8a3d74", "a6": "#0b6e7f", "a7": "#5f6368",
}  # fmt: skip
"""fg2: text that stands back; -t: a tint, to write on; r0 to r7: ranks, in turn; a0 to a7: what programs
write in the eight colours of a terminal."""
DARK = {
    "fg2": "#a5abb1",
    "raise": "#1a1b1d", "hover": "#232528", "line": "#36393d", "soft": "#26282b", "ctl": "#7d848b",
    "trk": "#2c2f33",
    "acc": "#64b5f6", "acc-t": "#13283b", "ok": "#81c784", "ok-t": "#15291a", "warn": "#ffb74d",
    "warn-t": "#33240f", "err": "#f28b82", "err-t": "#3a1a18", "idle": "#a5abb1", "mean": "#f1f3f4",
    "r0": "#398eef", "r1": "#ff7a33", "r2": "#81e4bc", "r3": "#d47dba", "r4": "#8fecff",
    "r5": "#ddd340", "r6": "#7f79d8", "r7": "#d86c64",
    "a0": "#8a9096", "a1": "#f28b82", "a2": "#81c784", "a3": "#ffb74d", "a4": "#64b5f6",
    "a5": "#d47dba", "a6": "#4dd0e1", "a7": "#e8eaed",
}  # fmt: skip

LIGHT_RANKS = tuple(LIGHT[f"r{number}"] for number in range(8))
DARK_RANKS = tuple(DARK[f"r{number}"] for number in range(8))
LIGHT_ANSI = tuple(LIGHT[f"a{number}"] for number in range(8))
DARK_ANSI = tuple(DARK[f"a{number}"] for number in range(8))


def variables(colours: dict[str, str], prefix: str = "") -> str:
    """As CSS has them: "--fg2:#5f6368;--raise:...;"."""
    return "".join(f"--{prefix}{name}:{colour};" for name, colour in colours.items())


FAINT = f"color:var(--jp-ui-font-color2,{LIGHT['fg2']})"
"""For text beside the matter, in what stands in a page of the notebook's theme."""
