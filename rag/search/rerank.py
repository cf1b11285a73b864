"""Reorder the best of the fused list: by late interaction with stored one-bit token vectors, or by a model
that reads question and passage together.

Late interaction: Khattab and Zaharia, "ColBERT" (SIGIR 2020), here with the embedder's own token states, one bit a
dimension (`shards/late_interaction.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rag.search.fuse import scale
from rag.search.passages import Candidate
from shards import late_interaction
from shards.embed import QueryEmbedding


class Reranker(Protocol):
    """Scores passages for a question; higher is better, the scale is the reranker's own."""

    name: str

    async def scores(
        self, question: str, query: QueryEmbedding, idf: Mapping[str, float], candidates: Sequence[Candidate]
    ) -> list[float]:
        """Return one score a candidate. Raises Unavailable when they cannot be had now."""
        ...

    async def check(self) -> None:
        """Raise Misconfigured when it is set up wrongly, Unavailable when its server does not answer."""
        ...

    async def aclose(self) -> None:
        """Close what it holds open."""
        ...


class PairModel(Protocol):
    """Scores passages for a question by reading them with it."""

    name: str

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return one score a passage."""
        ...

    async def check(self) -> None:
        """See `Reranker.check`."""
        ...

    async def aclose(self) -> None:
        """See `Reranker.aclose`."""
        ...


class LateInteraction:
    """Reranks by the token vectors stored with each chunk: a millisecond for thirty passages."""

    name = "late_interaction"

    async def scores(
        self, question: str, query: QueryEmbedding, idf: Mapping[str, float], candidates: Sequence[Candidate]
    ) -> list[float]:
        """Return the sum over query tokens of the best agreement with any passage token, weighted by idf."""
        return [float(s) for s in late_interaction.scores(query, idf, [c.token_bits for c in candidates])]

    async def check(self) -> None:
        """Nothing can be wrong with it."""

    async def aclose(self) -> None:
        """Nothing of it is open."""


class CrossEncoding:
    """Reranks with a model that reads question and passage together, here or on a server."""

    def __init__(self, model: PairModel) -> None:
        self.name = model.name
        self._model = model

    async def scores(
        self, question: str, query: QueryEmbedding, idf: Mapping[str, float], candidates: Sequence[Candidate]
    ) -> list[float]:
        """Return the model's relevance scores."""
        passages = [candidate.passage for candidate in candidates]
        texts = [" > ".join((passage.title, *passage.headings)) + "\n" + passage.text for passage in passages]
        return await self._model.scores(question, texts)

    async def check(self) -> None:
        """See `Reranker.check`."""
        await self._model.check()

    async def aclose(self) -> None:
        """See `Reranker.aclose`."""
        await self._model.aclose()


def blend(fused: Sequence[float], reranked: Sequence[float], *, weight: float) -> list[float]:
    """Return fused score + weight x reranked score scaled to 0..1; the sum beats either alone (docs/benchmarks.md)."""
    return [score + weight * extra for score, extra in zip(fused, scale(reranked), strict=True)]
