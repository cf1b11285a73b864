"""Reorder the best of the fused list: by late interaction with stored one-bit token vectors, or by a cross-encoder.

Late interaction: Khattab and Zaharia, "ColBERT" (SIGIR 2020), here with the embedder's own token states, one bit a
dimension (`shards/late_interaction.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from rag.search.fuse import scale
from rag.search.passages import Candidate
from shards import late_interaction
from shards.cross_encoder import CrossEncoder
from shards.embed import QueryEmbedding


class Reranker(Protocol):
    """Scores passages for a question; higher is better, the scale is the reranker's own."""

    name: str

    async def scores(
        self, question: str, query: QueryEmbedding, idf: Mapping[str, float], candidates: Sequence[Candidate]
    ) -> list[float]:
        """Return one score a candidate."""
        ...


class LateInteraction:
    """Reranks by the token vectors stored with each chunk: a millisecond for thirty passages."""

    name = "late_interaction"

    async def scores(
        self, question: str, query: QueryEmbedding, idf: Mapping[str, float], candidates: Sequence[Candidate]
    ) -> list[float]:
        """Return the sum over query tokens of the best agreement with any passage token, weighted by idf."""
        return [float(s) for s in late_interaction.scores(query, idf, [c.token_bits for c in candidates])]


class CrossEncoding:
    """Reranks with a cross-encoder, which reads question and passage together."""

    def __init__(self, model: CrossEncoder) -> None:
        self.name = model.name
        self._model = model

    async def scores(
        self, question: str, query: QueryEmbedding, idf: Mapping[str, float], candidates: Sequence[Candidate]
    ) -> list[float]:
        """Return the model's relevance scores."""
        passages = [candidate.passage for candidate in candidates]
        texts = [" > ".join((passage.title, *passage.headings)) + "\n" + passage.text for passage in passages]
        return await asyncio.to_thread(self._model.scores, question, texts)


def blend(fused: Sequence[float], reranked: Sequence[float], *, weight: float) -> list[float]:
    """Return fused score + weight x reranked score scaled to 0..1; the sum beats either alone (docs/benchmarks.md)."""
    return [score + weight * extra for score, extra in zip(fused, scale(reranked), strict=True)]
