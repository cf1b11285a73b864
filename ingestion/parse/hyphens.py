"""Words broken by a hyphen at the end of a line, joined again."""

from __future__ import annotations

import re
from collections.abc import Sequence

BREAK = "\ufffe"
"""Stands where a line ended in a hyphen (pdfium's own mark for it)."""
_BROKEN = re.compile(rf"([^\W_]+){BREAK}[ \n]?([^\W_]+)")
_COMPOUND = re.compile(r"[^\W_]+(?:-[^\W_]+)+")
_WORD = re.compile(r"[^\W_]+")


def join_hyphenated(texts: Sequence[str]) -> list[str]:
    """`texts` with every broken word joined.

    The hyphen goes when the document writes the word whole elsewhere. It stays when the document writes it with
    the hyphen elsewhere, when a capital or a digit follows (`Lucene-BM25`), or when a single letter precedes
    (`d-dimensional`). In doubt it goes.
    """
    if not any(BREAK in text for text in texts):
        return list(texts)
    whole: set[str] = set()
    compounds: set[str] = set()
    for text in texts:
        rest = _BROKEN.sub(" ", text)
        whole.update(word.lower() for word in _WORD.findall(rest))
        compounds.update(word.lower() for word in _COMPOUND.findall(rest))

    def joined(match: re.Match[str]) -> str:
        left, right = match[1], match[2]
        if (left + right).lower() in whole:
            return left + right
        kept = f"{left}-{right}".lower() in compounds or not right[0].islower() or len(left) == 1
        return f"{left}-{right}" if kept else left + right

    return [_BROKEN.sub(joined, text).replace(BREAK, "-") for text in texts]
