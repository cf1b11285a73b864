"""Where sentences end, with exact offsets: Punkt's rules (Kiss and Strunk, 2006) with fixed lists, and CJK marks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rag.answer.words import ABBREVIATIONS, CLOSING_ABBREVIATIONS, STARTERS

Span = tuple[int, int]

_CLOSERS = "\"'”’»)]}*_」』）】》"
_CJK_MARKS = "。！？｡"
_END = re.compile(rf"[{_CJK_MARKS}]+[{re.escape(_CLOSERS)}]*|[.!?…]+[{re.escape(_CLOSERS)}]*(?:\[\d+\])*(?=\s)")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘]+$")
_NEXT_WORD = re.compile(r"\s+([\"'“‘(\[]*)(\S+)")
_INITIALS = re.compile(r"(?:\w\.)+\w")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """The sentences of `text[start:end]`, without the blank space around them.

    Abbreviations, initials, decimals and addresses do not end a sentence; closing quotes, brackets and footnote
    marks belong to the sentence before them.
    """
    stop = len(text) if end is None else end
    begin = start
    for match in _END.finditer(text, start, stop):
        if match.end() < stop and _ends_sentence(text, begin, match, stop):
            yield from _within(text, begin, match.end())
            begin = match.end()
    yield from _within(text, begin, stop)


def trim(text: str, start: int, end: int, also: str = "") -> Span | None:
    """The span without blank space, nor any of `also`, at either end; `None` if nothing is left."""
    while start < end and (text[start].isspace() or text[start] in also):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in also):
        end -= 1
    return (start, end) if end > start else None


def _within(text: str, start: int, end: int) -> Iterator[Span]:
    if span := trim(text, start, end):
        yield span


def _ends_sentence(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    mark = match.group()
    if mark[0] in _CJK_MARKS:
        return True
    following = _NEXT_WORD.match(text, match.end(), end)
    if following is None:
        return True
    word = following.group(2)
    if word[0].islower() and not following.group(1):
        return False
    if not mark.startswith(".") or mark.startswith(".."):
        return True
    before = _LAST_WORD.search(text, begin, match.start())
    last = before.group().lower() if before else ""
    starts = word.lower().strip(",.") in STARTERS
    if last in ABBREVIATIONS or (len(last) == 1 and last.isalpha()):
        return last == "i" and starts
    if last in CLOSING_ABBREVIATIONS or _INITIALS.fullmatch(last):
        return starts
    return True
