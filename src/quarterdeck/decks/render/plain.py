"""Text in its forms: HTML, numbers, Markdown, code, exceptions, and what a class says of itself. Imported by
the registry when one of these is shown.
"""

from __future__ import annotations

import traceback
from typing import Any

from quarterdeck.decks.render.html import escaped, note


def html(value: str) -> str:
    """As it is: a user's str is HTML, and the page keeps it from everything else."""
    return str(value)


def number(value: object) -> str:
    return f'<p class="qd-num">{escaped(str(value))}</p>'


def exception(error: BaseException) -> str:
    lines = "".join(traceback.format_exception(error))
    head = f"{type(error).__name__}: {error}"
    return f'{note(head, "err")}<pre class="qd-code">{escaped(lines)}</pre>'


def markdown(value: Any) -> str:
    """As `commonmark` with tables; HTML in it is text."""
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        return f"{note('markdown-it-py is not installed: the text as it is')}<pre>{escaped(value.text)}</pre>"
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    return f'<div class="qd-md">{parser.render(value.text)}</div>'


def ipython_markdown(value: Any) -> str:
    from quarterdeck.decks.text import Markdown

    return markdown(Markdown(str(value.data)))


def ipython_html(value: Any) -> str:
    return str(value.data)


def code(value: Any) -> str:
    """Coloured by classes, whose colours the page's theme gives."""
    title = f'<div class="qd-cap"><b>{escaped(value.title)}</b></div>' if value.title else ""
    return f'{title}<pre class="qd-code">{_coloured(value.text, value.language)}</pre>'


def _coloured(text: str, language: str) -> str:
    try:
        from pygments import highlight  # type: ignore[import-untyped]
        from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]
        from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
        from pygments.util import ClassNotFound  # type: ignore[import-untyped]
    except ImportError:
        return escaped(text, 1_000_000)
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return escaped(text, 1_000_000)
    formatter: Any = HtmlFormatter(nowrap=True)
    return str(highlight(text, lexer, formatter)).rstrip("\n")


def own_html(value: Any) -> str:
    """ "" if it has none, as the next two."""
    found = value._repr_html_()
    return found if isinstance(found, str) else ""


def own_bundle(value: Any) -> str:
    found = value._repr_mimebundle_(include=None, exclude=None)
    bundle = found[0] if isinstance(found, tuple) else found
    if isinstance(bundle, dict) and isinstance(bundle.get("text/html"), str):
        return str(bundle["text/html"])
    return ""
