"""Splits a passage into the units an answer can quote: sentences, list items, table rows, headings, code.

Offsets are exact: `text[unit.start:unit.end]` is what is quoted. A table row says nothing without the table's
header, nor a list item without the line that introduces it, so such a unit carries that line's span as its `lead`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from rag.answer.sentences import Span, sentence_spans, trim

Kind = Literal["sentence", "item", "row", "heading", "code"]

_HEADING = re.compile(r"(#{1,6})\s+(?=\S)")
_UNDERLINE = re.compile(r"={3,}|-{3,}|~{3,}")
_BULLET = re.compile(r"(?:[-*+•‣▪◦●·–—]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+(?=\S)")
_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*[^\s`~]*")
"""Begins code, with the name of a language or without; what says more is text. (CommonMark allows more words.)"""
_RULE = re.compile(r"[|+\s:=-]*[-=]{2,}[|+\s:=-]*")
_CLOSING_MARKS = re.compile(r"[#\s]+$")
_GAP = re.compile(r"\S {3,}(?=\S)")
_NUMBERED = re.compile(r"\d+(?:\.\d+)+\.?\s+[^\W\d]")
_LONGEST_WRAPPED = 160
_LONGEST_TITLE = 80


@dataclass(frozen=True)
class Unit:
    """One quotable span. `headings` are the headings seen above it inside the same passage."""

    start: int
    end: int
    kind: Kind
    lead: Span | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """A line without its break and the blank space around it; `indent` is how much stood before it."""

    start: int
    end: int
    text: str
    indent: int


@dataclass
class _Reader:
    """What is known while the lines go by."""

    text: str
    units: list[Unit] = field(default_factory=list)
    paragraph: list[_Line] = field(default_factory=list)
    item: bool = False
    lead: Span | None = None
    headings: list[tuple[int, str]] = field(default_factory=list)

    def add(self, span: Span, kind: Kind, lead: Span | None) -> None:
        """One more unit, below the headings read so far."""
        self.units.append(Unit(*span, kind, lead, tuple(name for _, name in self.headings)))


def split_units(text: str) -> list[Unit]:
    """The quotable units of `text` in reading order; never empty, never overlapping."""
    reader = _Reader(text)
    lines = list(_lines(text))
    i = 0
    while i < len(lines):
        i = _read(reader, lines, i)
    _flush(reader)
    return reader.units


def _lines(text: str) -> Iterator[_Line]:
    at = 0
    for raw in text.splitlines(keepends=True):
        body = raw.strip()
        indent = len(raw) - len(raw.lstrip())
        yield _Line(at + indent, at + indent + len(body), body, indent)
        at += len(raw)


def _read(reader: _Reader, lines: list[_Line], i: int) -> int:
    """Takes the block that begins at line `i`, or one line of running text; returns the next line to read."""
    line, following = lines[i], lines[i + 1] if i + 1 < len(lines) else None
    if not line.text:
        _flush(reader)
        return i + 1
    if following is not None and _FENCE.fullmatch(line.text):
        return _read_code(reader, lines, i)
    if _has_bars(line) and (line.text.startswith("|") or (following is not None and _has_bars(following))):
        return _read_table(reader, lines, i)
    if _has_gap(line) and following is not None and (_has_gap(following) or _RULE.fullmatch(following.text)):
        return _read_columns(reader, lines, i)
    if match := _HEADING.match(line.text):
        _add_heading(reader, line, len(match.group(1)), match.end())
        return i + 1
    if not reader.paragraph and (following is None or not following.text) and _is_title(line):
        _add_heading(reader, line, line.text.split()[0].strip(".").count(".") + 1, 0)
        return i + 1
    if following is not None and _UNDERLINE.fullmatch(following.text):
        _add_heading(reader, line, 1 if following.text[0] == "=" else 2, 0)
        return i + 2
    if match := _BULLET.match(line.text):
        _flush(reader)
        reader.item = True
        line = _Line(line.start + match.end(), line.end, line.text[match.end() :], line.indent)
    reader.paragraph.append(line)
    return i + 1


def _has_bars(line: _Line) -> bool:
    return line.text.startswith("|") or " | " in line.text or "\t" in line.text


def _has_gap(line: _Line) -> bool:
    return _GAP.search(line.text) is not None and not _RULE.fullmatch(line.text)


def _is_title(line: _Line) -> bool:
    """Whether a line that stands alone is a heading that the document only numbers or puts in capitals."""
    if len(line.text) > _LONGEST_TITLE or not line.text[-1].isalpha():
        return False
    return line.text.isupper() or _NUMBERED.match(line.text) is not None


def _add_heading(reader: _Reader, line: _Line, level: int, skip: int) -> None:
    _flush(reader)
    text = _CLOSING_MARKS.sub("", line.text[skip:])
    if not text:
        return
    reader.lead = None
    reader.headings = [(depth, name) for depth, name in reader.headings if depth < level]
    start = line.start + skip
    reader.add((start, start + len(text)), "heading", None)
    reader.headings.append((level, text))


def _read_code(reader: _Reader, lines: list[_Line], i: int) -> int:
    _flush(reader)
    fence = lines[i].text[0]
    j = i + 1
    while j < len(lines) and not (lines[j].text.startswith(3 * fence) and not lines[j].text.strip(fence)):
        j += 1
    body = [line for line in lines[i + 1 : j] if line.text]
    if body:
        reader.add((body[0].start, body[-1].end), "code", reader.lead)
    return j + 1


def _read_table(reader: _Reader, lines: list[_Line], i: int) -> int:
    """A table drawn with bars or tabs."""
    _flush(reader)
    j = i
    while j < len(lines) and lines[j].text and (_has_bars(lines[j]) or _RULE.fullmatch(lines[j].text)):
        j += 1
    block = lines[i:j]
    rows = [(line.start, line.end) for line in block if not _RULE.fullmatch(line.text)]
    _add_rows(reader, rows, headed=_is_ruled(block) or "\t" in block[0].text)
    return j


def _read_columns(reader: _Reader, lines: list[_Line], i: int) -> int:
    """A table drawn with blanks. A line that begins under a later column goes on with the row above it."""
    _flush(reader)
    first = _GAP.search(lines[i].text)
    second_column = lines[i].indent + first.end() if first else 0
    rows: list[Span] = []
    j = i
    while j < len(lines) and lines[j].text:
        line = lines[j]
        if _has_gap(line) and line.indent < second_column - 1:
            rows.append((line.start, line.end))
        elif rows and line.indent >= second_column - 1:
            rows[-1] = (rows[-1][0], line.end)
        elif not _RULE.fullmatch(line.text):
            break
        j += 1
    _add_rows(reader, rows, headed=_is_ruled(lines[i:j]))
    return j


def _is_ruled(block: Sequence[_Line]) -> bool:
    return len(block) > 2 and _RULE.fullmatch(block[1].text) is not None


def _add_rows(reader: _Reader, rows: Sequence[Span], *, headed: bool) -> None:
    """A row's span leaves out the outer bars. A table cut off from its header has rows without a lead."""
    spans = [span for row in rows if (span := trim(reader.text, *row, "|"))]
    header = spans[0] if headed and len(spans) > 1 else None
    for span in spans[1:] if header else spans:
        reader.add(span, "row", header or reader.lead)
    reader.lead = None


def _flush(reader: _Reader) -> None:
    """Ends the paragraph or list item that is being read."""
    lines, reader.paragraph = reader.paragraph, []
    kind: Kind = "item" if reader.item else "sentence"
    reader.item = False
    if not lines:
        return
    spans = [span for start, end in _runs(lines) for span in sentence_spans(reader.text, start, end)]
    for span in spans:
        reader.add(span, kind, reader.lead if kind == "item" else None)
    if kind == "sentence":
        introduces = lines[-1].text.endswith((":", "："))
        reader.lead = spans[-1] if introduces and spans else None


def _runs(lines: list[_Line]) -> Iterator[Span]:
    """Adjacent lines that belong together: the lines of one wrapped paragraph, or each line for itself.

    Text with a very long line is not wrapped, so there every line break is meant. In wrapped text a line that
    stops early without punctuation, before a capital, is a title or a cell rather than half a sentence.
    """
    widest = max(len(line.text) for line in lines)
    start = lines[0].start
    for line, following in pairwise(lines):
        title = len(line.text) < widest // 2 and line.text[-1].isalnum() and not following.text[0].islower()
        if widest > _LONGEST_WRAPPED or title:
            yield start, line.end
            start = following.start
    yield start, lines[-1].end
