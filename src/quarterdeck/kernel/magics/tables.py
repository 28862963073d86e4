"""What `%workers status` and `doctor` show: an HTML table that follows the theme, and the same as
text.
"""

from __future__ import annotations

from html import escape
from typing import Any

from quarterdeck.present.tables import html_table, text_table
from quarterdeck.protocol.kernel import Answer, RankStatus


def show(shell: Any, what: str, answer: Answer) -> None:
    """Publish one answer in the notebook."""
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
