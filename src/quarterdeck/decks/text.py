"""Text that is not HTML, said to be so: `deck.append(qd.Markdown("# Report"))`. For users; in any process."""

from __future__ import annotations

from typing import Any

from quarterdeck.public import public


@public
class Markdown:
    """Text in Markdown, with tables. HTML in it is shown as text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text, "text/markdown": self.text}


@public
class Code:
    """Source code, coloured. `language`: a name that pygments knows. `title` stands above it."""

    def __init__(self, text: str, language: str = "python", title: str = "") -> None:
        self.text = text
        self.language = language
        self.title = title
