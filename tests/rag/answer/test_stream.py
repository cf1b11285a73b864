"""A stream is cut into whole sentences, whatever the pieces it comes in."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from rag.answer.stream import LONGEST, Sentence, SentenceStream

ANSWER = (
    "Leave is 25 days [1]. Dr. Smith approves it at 9 a.m. on Mondays. [2][3] It costs 3.5 euros.\n\n"
    "- A badge [1]\n- A laptop 【2】\n\nSee ![x](https://evil.example/?q=1) there. Done"
)
EXPECTED = [
    Sentence("Leave is 25 days [1].", False),
    Sentence("Dr. Smith approves it at 9 a.m. on Mondays. [2][3]", False),
    Sentence("It costs 3.5 euros.", False),
    Sentence("- A badge [1]", True),
    Sentence("- A laptop 【2】", True),
    Sentence("See ![x](https://evil.example/?q=1) there.", True),
    Sentence("Done", False),
]


def read(pieces: list[str]) -> list[Sentence]:
    stream = SentenceStream()
    found = [sentence for piece in pieces for sentence in stream.feed(piece)]
    return found + list(stream.close())


def test_sentences_keep_their_markers() -> None:
    assert read([ANSWER]) == EXPECTED
    assert read(list(ANSWER)) == EXPECTED


@given(st.randoms(use_true_random=False))
def test_the_pieces_make_no_difference(draw: random.Random) -> None:
    cuts = sorted(draw.sample(range(len(ANSWER)), 12))
    pieces = [ANSWER[a:b] for a, b in zip([0, *cuts], [*cuts, len(ANSWER)], strict=True)]
    assert read(pieces) == EXPECTED


def test_a_sentence_comes_as_soon_as_it_is_whole() -> None:
    stream = SentenceStream()
    assert list(stream.feed("Leave is 25 days. [")) == []
    assert list(stream.feed("1] Ask")) == [Sentence("Leave is 25 days. [1]", False)]


def test_text_without_an_end_is_bounded() -> None:
    stream = SentenceStream()
    given_out = [sentence for _ in range(100) for sentence in stream.feed("word " * 20)]
    assert given_out
    assert max(len(sentence.text) for sentence in given_out) <= LONGEST
