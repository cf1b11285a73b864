"""Cuts blocks into pieces that fit, and packs pieces into passages."""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from ingestion.parse.document import Block

TokenSpans = Callable[[str], list[tuple[int, int]]]
"""Character offsets of each token of a text, special tokens left out."""

SPECIAL_TOKENS = 2
_WINDOW = 50_000
_SLACK = 8
"""A tokenizer may see a cut-out passage a little differently than the whole; counts this near the limit are
taken again."""

_ROWS = re.compile(r"\n(?!\|(?: ?:?-+:? ?\|)+(?:\n|$))")  # a table's header keeps the rule under it
_ITEMS = re.compile(r"\n(?=[^\S\n]*(?:[-*+•]|\d{1,9}[.)])[^\S\n])")
_LINES = re.compile(r"\n+")
_SENTENCES = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=\S)|[。！？；｡][”’」』）】]*|\n{2,}")
_CLAUSES = re.compile(r"[,;:–—]\s+|[，、：]")
_WORDS = re.compile(r"\s+")
_ABBREVIATED = re.compile(r"(?:\b[A-Z]|\b(?:e\.g|i\.e|cf|vs|Dr|Mr|Mrs|Ms|Prof|St|No|Nr|Fig|Sec|Art|approx|ca))\.$")
_LEVELS: dict[str, tuple[re.Pattern[str], ...]] = {
    "table": (_ROWS, _SENTENCES, _CLAUSES, _WORDS),
    "list": (_ITEMS, _LINES, _SENTENCES, _CLAUSES, _WORDS),
    "code": (_LINES, _WORDS),
    "paragraph": (_SENTENCES, _CLAUSES, _WORDS),
    "heading": (_SENTENCES, _CLAUSES, _WORDS),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that is not cut any more. A `hard` one was cut between tokens and stays alone."""

    start: int
    end: int
    hard: bool = False


class TokenIndex:
    """Where the tokens of a text lie. The text is tokenised once, in windows, so that memory stays bounded."""

    def __init__(self, text: str, token_spans: TokenSpans) -> None:
        self.token_spans = token_spans
        self._starts: array[int] = array("I")
        self._ends: array[int] = array("I")
        for at, window in _windows(text):
            for start, end in token_spans(window):
                self._starts.append(at + start)
                self._ends.append(at + end)

    def count(self, start: int, end: int) -> int:
        """Tokens that begin in [start, end)."""
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def edge(self, start: int, end: int, tokens: int) -> int:
        """The latest place in (start, end) between two tokens with at most `tokens` before it, else the first
        place possible."""
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, end)
        for i in chain(range(min(first + tokens, last - 1), first, -1), range(first + tokens + 1, last)):
            if self._starts[i] > start and self._ends[i - 1] <= self._starts[i]:
                return self._starts[i]
        return start + max((end - start) // 2, 1)


def _windows(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    while at < len(text):
        end = at + _WINDOW
        if end < len(text):
            end = max(text.rfind("\n", at, end), text.rfind(" ", at, end)) + 1 or end
        yield at, text[at:end]
        at = end


def split_block(text: str, block: Block, index: TokenIndex, limit: int) -> Iterator[Piece]:
    """The block itself if it has at most `limit` tokens, else pieces of it, as few and as natural as that allows."""
    return _split(text, block.start, block.end, _LEVELS[block.kind], index, limit)


def _split(
    text: str, start: int, end: int, levels: Sequence[re.Pattern[str]], index: TokenIndex, limit: int
) -> Iterator[Piece]:
    start, end = _trimmed(text, start, end)
    if start == end:
        return
    if index.count(start, end) <= limit:
        yield Piece(start, end)
        return
    if not levels:
        yield from _hard_cut(text, start, end, index, limit)
        return
    at = start
    for cut in [*_cuts(text, start, end, levels[0]), end]:
        yield from _split(text, at, cut, levels[1:], index, limit)
        at = cut


def _hard_cut(text: str, start: int, end: int, index: TokenIndex, limit: int) -> Iterator[Piece]:
    """Cuts between tokens. The beginning of a word may become other tokens than the word, so they are counted again."""
    while start < end:
        tokens, cut = limit, end
        if index.count(start, end) > limit:
            cut = index.edge(start, end, limit)
        while cut - start > 1 and (excess := len(index.token_spans(text[start:cut])) - limit) > 0:
            tokens = max(tokens - excess, 1)
            cut = index.edge(start, cut, tokens)
        yield Piece(start, cut, hard=True)
        start = cut


def _cuts(text: str, start: int, end: int, pattern: re.Pattern[str]) -> Iterator[int]:
    """Where the next part begins."""
    for match in pattern.finditer(text, start, end):
        if pattern is _SENTENCES and match[0][-1].isspace() and "\n\n" not in match[0]:
            before = text[max(match.start() - 8, start) : match.start()]
            if text[match.end()].islower() or _ABBREVIATED.search(before):
                continue
        if match.end() < end:
            yield match.end()


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def pack(pieces: Sequence[Piece], index: TokenIndex, limit: int) -> Iterator[tuple[int, int]]:
    """(start, end) of passages of neighbouring pieces with at most `limit` tokens, of about equal length."""
    i = 0
    for end in _soft_ends(pieces):
        while i < end:
            left = index.count(pieces[i].start, pieces[end - 1].end)
            target = left / max(math.ceil(left / limit), 1)
            start, j = pieces[i].start, i + 1
            while j < end and index.count(start, pieces[j - 1].end) < target:
                if index.count(start, pieces[j].end) > limit:
                    break
                j += 1
            yield start, pieces[j - 1].end
            i = j


def _soft_ends(pieces: Sequence[Piece]) -> Iterator[int]:
    """Where a run of pieces that may be packed together ends; a hard piece is a run of its own."""
    for i in range(1, len(pieces)):
        if pieces[i].hard or pieces[i - 1].hard:
            yield i
    if pieces:
        yield len(pieces)


def fitting(
    text: str, passages: Iterable[tuple[int, int]], index: TokenIndex, room: int
) -> Iterator[tuple[int, int, int]]:
    """(start, end, tokens) of passages that surely have at most `room` tokens; one that has more is cut in two."""
    for start, end in passages:
        waiting = [(start, end)]
        while waiting:
            start, end = waiting.pop()
            tokens = index.count(start, end)
            if tokens + _SLACK > room:
                tokens = len(index.token_spans(text[start:end]))
            if tokens <= room or end - start == 1:
                yield start, end, tokens
                continue
            cut = index.edge(start, end, index.count(start, end) // 2)
            waiting.extend(part for part in ((cut, end), (start, cut)) if text[part[0] : part[1]].strip())
