"""Cuts a stream of text into sentences, each with the citation markers that follow it.

Nothing is given out before it is whole, so what checks a sentence sees every link, image or tag in it complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rag.answer.citations import MARKER
from rag.answer.sentences import Span, sentence_spans

LONGEST = 1500
"""Characters after which text without an end of sentence is cut, at a blank where there is one."""
_OPEN_MARKER = re.compile(r"[\[【][^\]】]*")


@dataclass(frozen=True)
class Sentence:
    """A whole sentence; `opens_line` if a line break came before it."""

    text: str
    opens_line: bool


class SentenceStream:
    """Takes text in pieces and gives whole sentences."""

    def __init__(self) -> None:
        self._held = ""
        self._after_break = False

    def feed(self, piece: str) -> Iterator[Sentence]:
        """The sentences that are complete now that `piece` has come."""
        self._held += piece
        while "\n" in self._held:
            line, _, self._held = self._held.partition("\n")
            yield from self._give(line)
            self._after_break = True
        spans = _spans(self._held)
        # The last sentence may go on, and a marker that is still being written belongs to the one before it.
        open_marker = bool(spans) and _OPEN_MARKER.fullmatch(self._held, *spans[-1]) is not None
        kept = 2 if open_marker else 1
        if len(spans) > kept:
            at = spans[-kept][0]
            whole, self._held = self._held[:at], self._held[at:]
            yield from self._give(whole)
        while len(self._held) > LONGEST:
            at = self._held.rfind(" ", 0, LONGEST) + 1 or LONGEST
            cut, self._held = self._held[:at], self._held[at:]
            yield from self._give(cut)

    def close(self) -> Iterator[Sentence]:
        """What is left when the stream has ended."""
        rest, self._held = self._held, ""
        yield from self._give(rest)

    def _give(self, text: str) -> Iterator[Sentence]:
        for start, end in _spans(text):
            yield Sentence(text[start:end], self._after_break)
            self._after_break = False


def _spans(text: str) -> list[Span]:
    """Sentences with their markers: a marker is read as closing brackets, which belong to what they follow."""
    masked = MARKER.sub(lambda match: "]" * len(match.group()), text)
    return list(sentence_spans(masked))
