"""Completion and inspection in `%%distributed` cells: options on the magic line, the workers' real names in
the body.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from quarterdeck.kernel.magics import parsers
from quarterdeck.kernel.session import Session
from quarterdeck.kernel.sessions import calls_of

_CELL_MAGICS = {"distributed": parsers.distributed_parser, "rank": parsers.rank_parser}
_FIRST_LINE = re.compile(r"\s*%%(distributed|rank)\b")
_SESSION = re.compile(r"\s--session[= ]\s*([\w-]+)")
_WORKERS_LINE = re.compile(r"\s*%workers\s+(\S*)$")


def matcher() -> Callable[[CompletionContext], Any]:
    """A matcher for `ip.Completer.custom_matchers`."""

    @context_matcher()  # type: ignore[untyped-decorator]
    def quarterdeck_matcher(context: CompletionContext) -> dict[str, Any]:
        found = _FIRST_LINE.match(context.full_text)
        if found and context.cursor_line == 0:
            return _first_line(context, found[1])
        if found:
            return _body(context)
        return _workers_line(context)

    return quarterdeck_matcher  # type: ignore[no-any-return]


def _session(text: str) -> Session:
    """The session of the cell that begins with this magic line."""
    named = _SESSION.search(text.split("\n", 1)[0])
    return calls_of(named[1] if named else "default")


def _nothing() -> dict[str, Any]:
    """A new one each time: IPython writes into what it gets."""
    return {"completions": [], "suppress": False}


def _first_line(context: CompletionContext, magic: str) -> dict[str, Any]:
    line = context.full_text.split("\n", 1)[0][: context.cursor_position]
    word = re.search(r"\S*$", line)
    fragment = word[0] if word else ""
    if fragment.startswith("%%"):
        return _nothing()
    names = [name for name in _CELL_MAGICS[magic]().option_names() if name.startswith(fragment)]
    completions = [SimpleCompletion(text=name, type="option") for name in names]
    return {"completions": completions, "suppress": True, "matched_fragment": fragment}


def _workers_line(context: CompletionContext) -> dict[str, Any]:
    found = _WORKERS_LINE.match(context.line_with_cursor[: context.cursor_position])
    if not found:
        return _nothing()
    verbs = [verb for verb in parsers.WORKER_VERBS if verb.startswith(found[1])]
    completions = [SimpleCompletion(text=verb, type="verb") for verb in verbs]
    return {"completions": completions, "suppress": True, "matched_fragment": found[1]}


def _body(context: CompletionContext) -> dict[str, Any]:
    code, cursor = _without_first_line(context.full_text, context.cursor_line, context.cursor_position)
    answer = _session(context.full_text).complete(code, cursor)
    if answer is None or not answer.matches:
        return _nothing()
    fragment = code[answer.start : answer.end]
    completions = [SimpleCompletion(text=text, type="worker") for text in answer.matches]
    return {"completions": completions, "suppress": False, "matched_fragment": fragment}


def _without_first_line(text: str, cursor_line: int, column: int) -> tuple[str, int]:
    lines = text.split("\n")
    cursor = sum(len(line) + 1 for line in lines[1:cursor_line]) + column
    return "\n".join(lines[1:]), cursor


def inspecting(kernel_inspect: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel's `do_inspect` that asks the workers first, for cells that run there."""

    def do_inspect(code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()) -> Any:
        found = _FIRST_LINE.match(code)
        first_line = code.split("\n", 1)[0]
        if not found or cursor_pos <= len(first_line):
            return kernel_inspect(code, cursor_pos, detail_level, omit_sections)
        offset = len(first_line) + 1
        answer = _session(code).inspect(code[offset:], cursor_pos - offset, detail_level)
        if answer is None or not answer.found:
            return kernel_inspect(code, cursor_pos, detail_level, omit_sections)
        return {"status": "ok", "found": True, "data": answer.data, "metadata": {}}

    return do_inspect
