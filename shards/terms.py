"""Text to search terms, the same for what is indexed and what is asked.

Words are lowercased, stripped of accents and stemmed (English). Scripts that are written without spaces between words
(Chinese, Japanese, Thai and others; Korean, where particles cling to words) would become one endless word; they are cut
into single characters and pairs instead, and kept in a field of their own. Pairs are the usual dictionary-free choice
for them (J. Y. Nie, J. Gao, J. Zhang, M. Zhou, "On the use of words and n-grams for Chinese information retrieval",
IRAL 2000).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

ANALYZER_NAME = "tessera_words_1"
"""Recorded in each index: another analysis needs another name, so that an old index is never read with it."""
_LONGEST_WORD_BYTES = 40
SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"  # kana and iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # ideographs
    "\uac00-\ud7a3"  # Hangul
)
"""The characters of scripts without spaces, as ranges of a regular expression's class."""
_SPACELESS = re.compile(f"[{SPACELESS}]+")


@dataclass(frozen=True)
class Fields:
    """A text as it is indexed: what the word analyser gets, and the characters and pairs of spaceless scripts."""

    words: str
    grams: str


def analyzer() -> TextAnalyzer:
    """Return the word analyser, to be registered with an index as ANALYZER_NAME."""
    builder = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(_LONGEST_WORD_BYTES))
    builder = builder.filter(Filter.lowercase()).filter(Filter.ascii_fold())
    return builder.filter(Filter.stemmer("english")).build()


_WORDS = analyzer()
_SPLITTER = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(_LONGEST_WORD_BYTES)).build()


def normalised(text: str) -> str:
    """Return a text with one form for characters that have several (full width, ligatures, composed accents)."""
    return unicodedata.normalize("NFKC", text)


def query_words(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the words to search for as they are written, each by its English term, and the grams; for an engine that
    analyses words itself. Of words with the same term the first."""
    plain = normalised(text)
    written = _SPLITTER.analyze(_SPACELESS.sub(" ", plain))
    by_term: dict[str, str] = {}
    for word in written:
        for term in _WORDS.analyze(word):
            by_term.setdefault(term, word)
    return by_term, _grams(plain)


def fields(text: str) -> Fields:
    """Split a text into its two fields."""
    plain = normalised(text)
    runs = _SPACELESS.findall(plain)
    if not runs:
        return Fields(plain, "")
    return Fields(_SPACELESS.sub(" ", plain), " ".join(gram for run in runs for gram in (*run, *_pairs(run))))


def all_terms(text: str) -> list[str]:
    """Return every term that is indexed for a text, repeats included."""
    both = fields(text)
    return [*_WORDS.analyze(both.words), *both.grams.split()]


def query_terms(text: str) -> tuple[list[str], list[str]]:
    """Return the distinct word terms and grams to search for. A run of two or more characters is asked by its pairs."""
    plain = normalised(text)
    words = _WORDS.analyze(_SPACELESS.sub(" ", plain))
    return list(dict.fromkeys(words)), _grams(plain)


def _grams(plain: str) -> list[str]:
    grams = [gram for run in _SPACELESS.findall(plain) for gram in (_pairs(run) or [run])]
    return list(dict.fromkeys(grams))


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)]
