"""The lexical store in memory: the same behaviour without a server. For tests, and for reading what the real ones
promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import log
from uuid import UUID

import numpy as np

from shards import terms
from shards.lexical import ChunkText, HeldEntry
from shards.names import checked_index, is_lexical_of
from shards.vectors import Scored, VersionScope

_K1 = 1.2
_B = 0.75


@dataclass(frozen=True)
class _Entry:
    version_no: int
    counts: Counter[str]
    length: int


class MemoryLexical:
    """`LexicalStore` in memory: BM25 over heading and text together, with the terms of `shards.terms`."""

    def __init__(self, *, max_terms: int = 64) -> None:
        self._max_terms = max_terms
        self._indexes: dict[str, dict[UUID, _Entry]] = {}

    async def place(self, index: str, *, shared: bool) -> bool:
        """See `LexicalStore.place`."""
        checked_index(index)
        return False

    async def tidy(self, index: str, *, grace: timedelta) -> None:
        """See `LexicalStore.tidy`."""
        checked_index(index)

    async def insert(self, index: str, rows: Sequence[ChunkText]) -> None:
        """See `LexicalStore.insert`."""
        checked_index(index)
        if not rows:
            return
        entries = self._indexes.setdefault(index, {})
        for row in rows:
            counts = Counter(terms.all_terms(f"{row.heading}\n{row.text}"))
            entries[row.chunk_id] = _Entry(row.version_no, counts, counts.total())

    async def delete_versions(self, index: str, versions: Sequence[int]) -> int:
        """See `LexicalStore.delete_versions`."""
        entries, wanted = self._entries(index), set(versions)
        gone = [chunk_id for chunk_id, entry in entries.items() if entry.version_no in wanted]
        for chunk_id in gone:
            del entries[chunk_id]
        return len(gone)

    async def search(self, index: str, query: str, *, k: int, scope: VersionScope | None) -> list[Scored]:
        """See `LexicalStore.search`."""
        entries = self._entries(index)
        if k < 1:
            raise ValueError(f"k is {k}")
        words, grams = terms.query_terms(query)
        held = {term: df for term in [*words, *grams] if (df := _df(entries, term))}
        wanted = sorted(held, key=lambda term: held[term])[: self._max_terms]
        mean = sum(entry.length for entry in entries.values()) / len(entries) if entries else 0.0
        scores: dict[UUID, float] = {}
        for chunk_id, entry in entries.items():
            if scope is not None and not scope.allows(np.array([entry.version_no], dtype=np.int64))[0]:
                continue
            norm = _K1 * (1 - _B + _B * entry.length / mean) if mean else _K1
            found = [(entry.counts[term], _idf(len(entries), held[term])) for term in wanted]
            score = sum(idf * tf * (_K1 + 1) / (tf + norm) for tf, idf in found)
            if score > 0:
                scores[chunk_id] = score
        best = sorted(scores, key=lambda chunk_id: -scores[chunk_id])[:k]
        return [Scored(chunk_id, scores[chunk_id]) for chunk_id in best]

    async def word_idf(self, index: str, words: Sequence[str]) -> dict[str, float]:
        """See `LexicalStore.word_idf`."""
        entries = self._entries(index)
        found: dict[str, float] = {}
        for word in words:
            of_words, of_grams = terms.query_terms(word)
            counts = [_df(entries, term) for term in (*of_words, *of_grams)]
            found[word] = _idf(len(entries), min(counts)) if counts else 0.0
        return found

    async def count_versions(self, index: str, versions: Sequence[int]) -> int:
        """See `LexicalStore.count_versions`."""
        wanted = set(versions)
        return sum(entry.version_no in wanted for entry in self._entries(index).values())

    async def delete_chunks(self, index: str, chunk_ids: Sequence[UUID]) -> None:
        """See `LexicalStore.delete_chunks`."""
        for chunk_id in chunk_ids:
            self._entries(index).pop(chunk_id, None)

    async def entries(self, index: str, *, batch: int = 5000) -> AsyncIterator[list[HeldEntry]]:
        """See `LexicalStore.entries`."""
        held = [HeldEntry(chunk_id, entry.version_no) for chunk_id, entry in self._entries(index).items()]
        for start in range(0, len(held), batch):
            yield held[start : start + batch]

    async def held(self, index: str, chunk_ids: Sequence[UUID]) -> list[HeldEntry]:
        """See `LexicalStore.held`."""
        entries = self._entries(index)
        return [HeldEntry(one, entries[one].version_no) for one in dict.fromkeys(chunk_ids) if one in entries]

    async def lacking(self, index: str, rows: Sequence[ChunkText]) -> set[UUID]:
        """See `LexicalStore.lacking`."""
        entries = self._entries(index)
        wanted = {row.chunk_id: set(terms.all_terms(f"{row.heading}\n{row.text}")) for row in rows}
        return {one for one, words in wanted.items() if one not in entries or words - entries[one].counts.keys()}

    async def count(self, index: str) -> int:
        """See `LexicalStore.count`."""
        return len(self._entries(index))

    async def drop(self, index: str) -> bool:
        """See `LexicalStore.drop`."""
        return self._indexes.pop(checked_index(index), None) is not None

    async def indexes(self, *, of: UUID | None = None) -> list[str]:
        """See `LexicalStore.indexes`."""
        return sorted(name for name in self._indexes if of is None or is_lexical_of(name, of))

    async def ping(self) -> None:
        """See `LexicalStore.ping`."""

    async def aclose(self) -> None:
        """See `LexicalStore.aclose`."""

    def _entries(self, index: str) -> dict[UUID, _Entry]:
        return self._indexes.get(checked_index(index), {})


def _df(entries: Mapping[UUID, _Entry], term: str) -> int:
    return sum(term in entry.counts for entry in entries.values())


def _idf(total: int, df: int) -> float:
    return log(1.0 + (total - df + 0.5) / (df + 0.5))
