"""Text that is not HTML, said to be so: `deck.append(qd.Markdown("# Report"))`. For users; in any process."""

from __future__ import annotations

from typing import Any

from quarterdeck.public import public


@public
class Markdown:
    """Text in Markdown, for a deck: `deck.append(qd.Markdown("# Report"))`.

    Args:
        text: Markdown, with tables. HTML in it is shown as text.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text, "text/markdown": self.text}


@public
class Code:
    """Source code in colours, for a deck.

    Args:
        text: the code.
        language: a name that pygments knows.
        title: stands above it; "" for none.
    """

    def __init__(self, text: str, language: str = "python", title: str = "") -> None:
        self.text = text
        self.language = language
        self.title = title
