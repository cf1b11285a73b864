"""The line that tells the embedder where a passage stands, cut to what room there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ingestion.chunk_split import TokenIndex, TokenSpans
from ingestion.parse.document import Block

SEPARATOR = " > "
_ELLIPSIS = "…"
_MAX_PART_CHARS = 400
_MAX_COLUMNS_CHARS = 400
_SLACK = 8
_CELLS = re.compile(r"(?<!\\)\|")


class ContextLines:
    """The context of the passages of one document. `room` is what the model reads of context and passage together."""

    def __init__(self, title: str, index: TokenIndex, room: int) -> None:
        self._title = title
        self._spans = index.token_spans
        self._room = room
        self._whole: dict[tuple[str, ...], tuple[str, int]] = {}

    def before(self, passage: str, tokens: int, headings: tuple[str, ...], columns: str) -> str:
        """`title > heading > heading` and the column names of a table that goes on, so that they and the passage
        of so many `tokens` fit. The columns go first, then the line is shortened (`shortened`), down to nothing.
        """
        line, size = self._line(headings)
        if columns:
            both = f"{line}\n{columns}" if line else columns
            if self._fits(both, len(self._spans(both)), passage, tokens):
                return both
        budget = self._room - tokens
        while line and not self._fits(line, size, passage, tokens):
            line = shortened([self._title, *headings], token_spans=self._spans, budget=budget)
            size = len(self._spans(line))
            budget = min(budget, size) - _SLACK
        return line

    def _line(self, headings: tuple[str, ...]) -> tuple[str, int]:
        """The whole line and its tokens, worked out once a section."""
        found = self._whole.get(headings)
        if found is None:
            line = SEPARATOR.join(_tidy([self._title, *headings]))
            found = self._whole[headings] = line, len(self._spans(line))
        return found

    def _fits(self, line: str, size: int, passage: str, tokens: int) -> bool:
        """Whether line and passage fit; counted together only when it is close, which spares most passages that."""
        if size + tokens + _SLACK <= self._room:
            return True
        return size + tokens <= self._room and len(self._spans(f"{line}\n{passage}")) <= self._room


def shortened(parts: Sequence[str], *, token_spans: TokenSpans, budget: int) -> str:
    """`parts` joined by ` > ` in at most `budget` tokens.

    The deepest heading says most and the title comes next: the headings between them give way first, from the
    left, to one `…`; then the title is cut short in its middle, then it goes; last the deepest heading is cut.
    Parts over 400 characters are cut in their middle before anything else.
    """
    tidy = _tidy(parts)
    if not tidy or budget < 1:
        return ""
    for line in _candidates(tidy):
        if len(token_spans(line)) <= budget:
            return line
    return _left_part(tidy[-1], token_spans, budget)


def column_names(text: str, block: Block, start: int) -> str:
    """The header of the table that a passage begins in the middle of, else ""."""
    if block.kind != "table" or start <= block.start:
        return ""
    end = text.find("\n", block.start, block.end)
    cells = [cell.strip() for cell in _CELLS.split(text[block.start : end])] if end > 0 else []
    names = " | ".join(filter(None, cells))
    return names if len(names) <= _MAX_COLUMNS_CHARS else ""


def _tidy(parts: Sequence[str]) -> list[str]:
    return [_middle_cut(" ".join(part.split()), _MAX_PART_CHARS) for part in parts if part.strip()]


def _candidates(parts: Sequence[str]) -> Iterator[str]:
    """The same line, ever shorter."""
    first, between, last = parts[0], parts[1:-1], parts[-1]
    if len(parts) == 1:
        yield from (_middle_cut(first, width) for width in (_MAX_PART_CHARS, 200, 100, 50))
        return
    yield SEPARATOR.join(parts)
    yield from (SEPARATOR.join((first, _ELLIPSIS, *between[i:], last)) for i in range(1, len(between) + 1))
    yield from (SEPARATOR.join((_middle_cut(first, width), last)) for width in (100, 50, 25))
    yield last


def _middle_cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f"{text[:half].rstrip()}{_ELLIPSIS}{text[-half:].lstrip()}"


def _left_part(text: str, token_spans: TokenSpans, budget: int) -> str:
    """The beginning of `text` in at most `budget` tokens, an ellipsis included."""
    spans = token_spans(text)
    for kept in range(min(budget, len(spans)) - 1, 0, -1):
        line = text[: spans[kept - 1][1]].rstrip() + _ELLIPSIS
        if len(token_spans(line)) <= budget:
            return line
    return ""
