"""What `%workers status`, `stacks` and `doctor` show: an HTML table that follows the theme, and the same as
text.
"""

from __future__ import annotations

import linecache
import re
from html import escape
from typing import Any

from quarterdeck.present.tables import html_table, text_table
from quarterdeck.protocol.kernel import Answer, RankStatus
from quarterdeck.protocol.stacks import FRAME, cell_number


def show(shell: Any, what: str, answer: Answer) -> None:
    """Publish one answer in the notebook."""
    if what == "stacks":
        print(stacks_text(shell, answer))
        return
    rows = _status_rows(answer) if what == "status" else []
    facts = [[key, value] for key, value in answer.facts.items() if key != "state"]
    parts = [f"<div>{escape(answer.text)}</div>"]
    lines = [answer.text]
    for table, heads, numbers in ((rows, _STATUS_HEADS, _STATUS_NUMBERS), (facts, [], ())):
        if table:
            parts.append(html_table(heads, table, numbers))
            lines += text_table(heads, table, numbers)
    data = {"text/plain": "\n".join(lines), "text/html": "".join(parts)}
    shell.display_pub.publish(data)


_STATUS_HEADS = ["rank", "state", "device", "pid", "names", "memory MB", "private MB"]
_STATUS_NUMBERS = (0, 3, 4, 5, 6)


def _status_rows(answer: Answer) -> list[list[str]]:
    return [_status_row(rank) for rank in answer.ranks]


def _status_row(rank: RankStatus) -> list[str]:
    return [
        str(rank.rank),
        rank.state,
        rank.device,
        str(rank.pid),
        f"{rank.names:,}",
        f"{rank.memory_bytes / 1e6:,.0f}",
        f"{rank.private_bytes / 1e6:,.0f}",
    ]


_OURS = ("quarterdeck/worker/", "IPython/core/interactiveshell.py", "IPython/core/async_helpers.py")


def stacks_text(shell: Any, answer: Answer) -> str:
    """Every rank's main thread, innermost call last as in a traceback, with the notebook's source lines."""
    if not answer.stacks:
        return answer.text
    parts = [answer.text]
    for rank, stack in sorted(answer.stacks.items()):
        frames = _main_thread(stack)
        shown = [_frame_words(shell, frame) for frame in frames] if frames else []
        parts.append(f"rank {rank}: {'no user code is running' if not shown else ''}".rstrip(": "))
        parts += [f"  {line}" for line in shown]
    return "\n".join(parts)


def _main_thread(stack: str) -> list[re.Match[str]]:
    """faulthandler lists the newest frame first, and the main thread last."""
    main = re.split(r"^(?:Current thread|Thread) .*$", stack, flags=re.MULTILINE)[-1]
    frames = [match for line in main.splitlines() if (match := FRAME.match(line))]
    return [frame for frame in reversed(frames) if not _is_ours(frame["file"])]


def _is_ours(file: str) -> bool:
    return (
        any(part in file for part in _OURS)
        or file.endswith("runpy.py")
        or file in ("<string>", "<frozen runpy>")
    )


def _frame_words(shell: Any, frame: re.Match[str]) -> str:
    file, line = frame["file"], int(frame["line"])
    cell = cell_number(file)
    number = cell if cell is not None else getattr(shell.compile, "_filename_map", {}).get(file)
    where = f"Cell In[{number}], line {line}" if number else f"{file}:{line}"
    source = _source_line(shell, file, line, cell)
    return f"{where}, in {frame['function']}" + (f"\n      {source}" if source else "")


def _source_line(shell: Any, file: str, line: int, cell: int | None) -> str:
    """A line of a worker's cell, from the notebook's input history, where the magic line is the first."""
    if cell is not None:
        inputs = shell.user_ns.get("In", [])
        lines = shell.history_manager.input_hist_raw[cell].splitlines() if cell < len(inputs) else []
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return linecache.getline(file, line).strip()
