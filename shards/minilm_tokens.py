"""The word pieces of all-MiniLM-L6-v2: bounded, never truncated in silence, and which of them carry a word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

MAX_TOKENS = 256
SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Pieces:
    """One text as the model sees it. `ids` int64 (t,) with [CLS] and [SEP]; `kept` the positions of the pieces that
    belong to a word (no special tokens, no punctuation); `words` the lower-case surface word of each of those."""

    ids: NDArray[np.int64]
    kept: NDArray[np.intp]
    words: list[str]


def load(folder: Path) -> Tokenizer:
    """The tokenizer, with the truncation and padding its file asks for switched off."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def pieces(encoding: Encoding, text: str) -> Pieces:
    """What `encoding` says of `text`; long when `text` is."""
    words, kept = _words(encoding, text)
    return Pieces(np.asarray(encoding.ids, dtype=np.int64), np.asarray(kept, dtype=np.intp), words)


def ends(whole: Pieces, limit: int) -> Pieces:
    """`whole`, or when it has more than `limit` tokens its beginning and its end joined: a long question
    states its subject first and asks last."""
    count = len(whole.ids)
    if count <= limit:
        return whole
    head = limit // 2
    tail = count - (limit - head)
    ids = np.concatenate([whole.ids[:head], whole.ids[tail:]])
    inside = [(at, word) for at, word in zip(whole.kept.tolist(), whole.words, strict=True) if at < head or at >= tail]
    kept = [at if at < head else at - tail + head for at, _ in inside]
    return Pieces(ids, np.asarray(kept, dtype=np.intp), [word for _, word in inside])


def _words(encoding: Encoding, text: str) -> tuple[list[str], list[int]]:
    spans: dict[int, tuple[int, int]] = {}
    for word, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            spans[word] = (spans.get(word, (start, end))[0], end)
    surfaces = {word: text[start:end].lower() for word, (start, end) in spans.items()}
    carrying = {word: surface for word, surface in surfaces.items() if any(map(str.isalnum, surface))}
    kept = [(at, carrying[word]) for at, word in enumerate(encoding.word_ids) if word in carrying]
    return [surface for _, surface in kept], [at for at, _ in kept]
