"""The content words of a question: search terms with weights, and how much of that weight a text covers."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rag.answer.words import STOP_WORDS
from shards.terms import all_terms, query_terms

_WORD = re.compile(r"[^\W_]+")
# "how long": the adjective only says what kind of answer is asked for.
_DEGREE = re.compile(
    r"\bhow\s+(long|far|often|old|big|high|tall|large|deep|wide|heavy|hot|cold|fast|soon|quickly|frequently|late|early"
    r"|close|near|well|strong|common|expensive)\b",
    re.IGNORECASE,
)
# "what volume": the noun names the kind of answer, and a text that answers seldom repeats it.
_ASKED = re.compile(r"\b(?:what|which)\s+(?:(?:other|kinds?|types?|sorts?)\s+(?:of\s+)?)?([^\W\d_]+)", re.IGNORECASE)
ASKED_WEIGHT = 0.3


@dataclass(frozen=True)
class Term:
    """One content word of a question.

    `word` is its lower-case surface, `stem` what it is in the index, `weight` its idf; `named` says that it looks
    like a name, a code or a number.
    """

    word: str
    stem: str
    weight: float
    named: bool


def stems(text: str) -> frozenset[str]:
    """The search terms of `text`: stemmed words, characters and pairs of scripts without spaces."""
    return frozenset(all_terms(text))


def question_terms(question: str, idf: Mapping[str, float]) -> list[Term]:
    """The distinct content words in order; every word when the question has nothing but stop words.

    A word that `idf` does not know weighs as much as the rarest that it knows.
    """
    found = [(match.start(), match.group()) for match in _WORD.finditer(question)]
    degrees = {match.start(1) for match in _DEGREE.finditer(question)}
    asked = {match.start(1) for match in _ASKED.finditer(question)}
    content = [(at, word) for at, word in found if word.lower() not in STOP_WORDS and at not in degrees] or found
    unknown = max(idf.values(), default=1.0)
    terms: dict[str, Term] = {}
    for at, word in content:
        weight = idf.get(word.lower(), unknown) * (ASKED_WEIGHT if at in asked else 1.0)
        named = _is_named(word, opens=not question[:at].strip())
        words, grams = query_terms(word)
        for stem in words + grams:
            terms.setdefault(stem, Term(word.lower(), stem, weight, named))
    return list(terms.values())


def _is_named(word: str, *, opens: bool) -> bool:
    """Whether a word has a digit, or a capital that does not come from opening the question."""
    if any(character.isdigit() for character in word):
        return True
    return word[0].isupper() and (not opens or (len(word) > 1 and word.isupper()))


def coverage(terms: Sequence[Term], present: Collection[str]) -> float:
    """Share of the terms' weight, 0..1, whose stems are in `present`; 0 without terms."""
    total = sum(term.weight for term in terms)
    return sum(term.weight for term in terms if term.stem in present) / total if total else 0.0
