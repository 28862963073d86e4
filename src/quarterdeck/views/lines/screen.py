"""One stream of one rank as a terminal shows it: unfinished lines, carriage returns, moves of the cursor.

A progress bar rewrites its line, nested bars go up and down between a few lines. Everything above those is
finished and handed to the merge. Most output is plain lines; these take a short way that never touches the
cell lists.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from quarterdeck.present.ansi import CONTROL, PLAIN, SGR, TOKEN, UNFINISHED, Style, apply, codes
from quarterdeck.views.lines.rows import Row, Rows

Stream = Literal["stdout", "stderr"]
LINE_LIMIT = 20_000
CUT = f"… (line cut at {LINE_LIMIT:,} characters)"
DEPTH = 24
"""Lines above the cursor that a program may still rewrite; more nested bars than that nobody reads."""


class Line:
    """One line that may still change: a cell per column, and the pen each was written with."""

    __slots__ = ("cells", "cut", "dirty", "row", "styled", "styles")

    def __init__(self, row: Row | None = None) -> None:
        self.cells: list[str] = []
        self.styles: list[Style] = []
        self.styled = False
        self.cut = False
        self.dirty = False
        self.row = row

    def write(self, column: int, text: str, style: Style) -> int:
        """Overwrite from `column` on; returns the column after it."""
        if column + len(text) > LINE_LIMIT:
            self.cut, text = True, text[: max(0, LINE_LIMIT - column)]
        gap, end = column - len(self.cells), column + len(text)
        if gap > 0:
            self.cells.extend(" " * gap)
            self.styles.extend([PLAIN] * gap)
        self.cells[column:end] = text
        self.styles[column:end] = [style] * len(text)
        self.styled = self.styled or style is not PLAIN
        self.dirty = True
        return end

    def erase(self, start: int, end: int | None) -> None:
        """Blank the cells from start to end (None: cut the line off there)."""
        if end is None:
            del self.cells[start:], self.styles[start:]
        else:
            end = min(end, len(self.cells))
            self.cells[start:end], self.styles[start:end] = [" "] * (end - start), [PLAIN] * (end - start)
        self.dirty = True

    def text(self) -> str:
        """The canonical text; blanks that only wipe what stood there before are gone."""
        if not self.styled:
            return "".join(self.cells).rstrip(" ") + (CUT if self.cut else "")
        out: list[str] = []
        pen = PLAIN
        for cell, style in zip(self.cells, self.styles, strict=True):
            if style != pen:
                out.append(("\x1b[0m" if pen != PLAIN else "") + codes(style))
                pen = style
            out.append(cell)
        return "".join(out).rstrip(" ") + ("\x1b[0m" if pen != PLAIN else "") + (CUT if self.cut else "")

    @classmethod
    def parse(cls, text: str, row: Row) -> Line:
        """A finished row's text, made writable again."""
        line, column, style = cls(row), 0, PLAIN
        for number, piece in enumerate(SGR.split(text)):
            if number % 2:
                style = apply(style, piece)
            else:
                column = line.write(column, piece, style)
        line.dirty = False
        return line


class Screen:
    """One stream of one rank."""

    def __init__(self, rank: int, kind: Stream, rows: Rows) -> None:
        self.rank, self.kind, self.rows = rank, kind, rows
        self.lines = [Line()]
        self.at = 0
        self.column = 0
        self.style = PLAIN
        self.moves_up = False
        self.above: deque[Row] = deque(maxlen=DEPTH)
        self.pending = ""

    def feed(self, text: str) -> None:
        """Take text as written: any chunk, codes may be cut anywhere."""
        text, self.pending = self.pending + text, ""
        if CONTROL.search(text):
            self._parse(text)
        elif self.moves_up or self.style is not PLAIN:
            self._write(text)
        else:
            self._plain(text)
        for line in self.lines:
            if line.dirty:
                self._show(line)

    def end(self) -> None:
        """The cell is over: unfinished lines are as finished as they will be."""
        while self.lines and not self.lines[-1].text():
            if (blank := self.lines.pop().row) is not None:
                self.rows.discard(self.rank, blank)
        for line in self.lines:
            self._finish(line)
        self.lines, self.at, self.column, self.pending = [Line()], 0, 0, ""

    def wipe(self) -> None:
        """What was shown is gone (clear_output): start on a clean line."""
        self.lines, self.at, self.column, self.moves_up = [Line()], 0, 0, False
        self.above.clear()

    def _plain(self, text: str) -> None:
        """Text without codes at the bottom line: whole lines go straight to the merge."""
        *whole, rest = text.split("\n")
        if whole and (self.column or self.lines[0].cells):
            self._write(whole.pop(0) + "\n")
        for line in whole:
            self.above.append(self.rows.line(self.rank, self.kind, cut(line.rstrip(" "))))
        if rest:
            self._write(rest)

    def _write(self, text: str) -> None:
        """Text without codes other than newlines, at the cursor."""
        first, *others = text.split("\n")
        if first:
            self.column = self.lines[self.at].write(self.column, first, self.style)
        for line in others:
            self._newline()
            if line:
                self.column = self.lines[self.at].write(self.column, line, self.style)

    def _parse(self, text: str) -> None:
        if cut_off := UNFINISHED.search(text):
            text, self.pending = text[: cut_off.start()], cut_off[0]
        position = 0
        for token in TOKEN.finditer(text):
            if token.start() > position:
                self._write(text[position : token.start()])
            position = token.end()
            if token[2]:
                self._csi(token[1], token[2])
            elif token[3]:
                self._control(token[3])
        if position < len(text):
            self._write(text[position:])

    def _control(self, character: str) -> None:
        if character == "\n":
            self._newline()
        elif character == "\r":
            self.column = 0
        else:
            self.column = max(0, self.column - 1)

    def _csi(self, params: str, final: str) -> None:
        if final == "m":
            if params[:1] not in "<=>?" or not params:
                self.style = apply(self.style, params)
            return
        count = min(int(params[:6]), LINE_LIMIT) if params.isdigit() else 0
        if final == "A":
            self._up(count or 1)
        elif final == "B":
            self.at = min(self.at + (count or 1), len(self.lines) - 1)
        elif final == "C":
            self.column = min(self.column + (count or 1), LINE_LIMIT)
        elif final == "D":
            self.column = max(0, self.column - (count or 1))
        elif final == "G":
            self.column = max(0, (count or 1) - 1)
        elif final == "K":
            self._erase(count)

    def _erase(self, how: int) -> None:
        line = self.lines[self.at]
        if how == 0:
            line.erase(self.column, None)
        elif how == 1:
            line.erase(0, self.column + 1)
        else:
            line.erase(0, None)

    def _newline(self) -> None:
        self.column = 0
        if self.at < len(self.lines) - 1:
            self.at += 1
            return
        if self.moves_up and self.lines[-1].row is None:
            self.lines[-1].row = self.rows.open(self.rank, self.kind)
        self.lines.append(Line())
        # A program that moved up once will do so again: its last lines stay open, lest they merge and split.
        while len(self.lines) > (DEPTH if self.moves_up else 1):
            self._finish(self.lines.pop(0))
        self.at = len(self.lines) - 1

    def _up(self, count: int) -> None:
        self.moves_up = True
        for _ in range(min(count, DEPTH)):
            if self.at:
                self.at -= 1
            elif len(self.lines) < DEPTH and self.above:
                row = self.rows.reopen(self.rank, self.above.pop())
                if row is None:
                    return
                self.lines.insert(0, Line.parse(row.text, row))

    def _finish(self, line: Line) -> None:
        if line.row is None:
            self.above.append(self.rows.line(self.rank, self.kind, line.text()))
            return
        if line.dirty:
            self._show(line)
        self.above.append(self.rows.close(self.rank, line.row))

    def _show(self, line: Line) -> None:
        line.dirty = False
        text = line.text()
        if line.row is None and text:
            line.row = self.rows.open(self.rank, self.kind)
        if line.row is not None:
            self.rows.edit(self.rank, line.row, text)


def cut(text: str) -> str:
    """A line, bounded."""
    return text if len(text) <= LINE_LIMIT else text[:LINE_LIMIT] + CUT
