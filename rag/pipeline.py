"""The read line's steps in order: embed, pre-filter, two engines at the same time, fuse, read back, rerank."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from rag.passages import Passage, Ranks
from rag.search.fuse import Fused, fuse
from rag.search.passages import Candidate, read_candidates
from rag.search.places import Places
from rag.search.prefilter import matching
from rag.search.rerank import Reranker, blend
from rag.search.rewrite import embed_question
from rag.settings import SearchSettings
from shards.call_seconds import CallSeconds
from shards.catalog_postgres import PostgresCatalog
from shards.embed import Embedder, QueryEmbedding
from shards.embed_models import EmbedModels
from shards.filters import Filter
from shards.generation import Generation
from shards.index import TenantIndexes
from shards.matches import Matches
from shards.probe import AnnHits, AnnQuery
from shards.usage import UsageWatch
from shards.vectors import Scored
from tenants.context import TenantContext
from tenants.db import Database
from tenants.errors import Unavailable
from tenants.stopwatch import Stopwatch

T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """What is asked: `earlier` are the user's former turns when the question is part of a conversation."""

    text: str
    k: int = 10
    filter: Filter | None = None
    exact: bool = False
    earlier: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """The best passages, what was missing on the way, and what an answerer needs further."""

    passages: list[Passage]
    degraded: list[str]
    timings_ms: dict[str, float]
    query: QueryEmbedding
    idf: dict[str, float]
    ann: AnnHits | None = None

    def versions(self) -> dict[UUID, int]:
        """Return which version of which documents the passages are from."""
        return {passage.document_id: passage.version for passage in self.passages}


@dataclass(frozen=True)
class Retriever:
    """Everything a search needs, opened once. `embedder` is the bundled one, which reads every question for its words
    and for the answer; the vector searched with is that of the model recorded on the tenant's index."""

    database: Database
    indexes: TenantIndexes
    embedder: Embedder
    models: EmbedModels
    reranker: Reranker | None
    settings: SearchSettings
    usage: UsageWatch
    places: Places
    reranking: CallSeconds = field(default_factory=CallSeconds)

    async def search(self, tenant: TenantContext, query: Query) -> Found:
        """Answer a search, when it is the tenant's turn.

        Raises:
            TooManyRequests: the tenant searches more at once than it may.
            Unavailable: the database, or both engines, are away.
        """
        async with self.places.taken(tenant.tenant_id):
            return await self._search(tenant, query)

    async def _search(self, tenant: TenantContext, query: Query) -> Found:
        watch = Stopwatch()
        embedding, (generation, matches) = await asyncio.gather(
            self._embed(query, watch), self._prepare(tenant, query, watch)
        )
        degraded: list[str] = []
        if generation is None or (matches is not None and not len(matches)):
            return Found([], degraded, watch.total(), embedding, {})
        vector = await _unless_away(self._vector(query, embedding, generation, watch))
        ann, bm25, idf = await self._engines(tenant, query, embedding, vector, generation, matches, watch, degraded)
        if ann is not None and vector is not None:
            self.usage.note(generation, vector, ann, filtered=matches is not None)
        with watch.step("fuse"):
            weight = tenant.settings.bm25_weight
            fused = fuse(
                ann.hits if ann else [], bm25, bm25_weight=self.settings.bm25_weight if weight is None else weight
            )
        passages = await self._rank(tenant, query, embedding, idf, fused, watch, degraded)
        return Found(passages, degraded, watch.total(), embedding, idf, ann)

    async def _embed(self, query: Query, watch: Stopwatch) -> QueryEmbedding:
        with watch.step("embed"):
            return await embed_question(self.embedder, query.text, query.earlier)

    async def _vector(
        self, query: Query, embedding: QueryEmbedding, generation: Generation, watch: Stopwatch
    ) -> NDArray[np.float32]:
        """Return the question as the model of the tenant's index sees it."""
        name = generation.header.recipe.model
        if name == self.embedder.name:
            return embedding.vector
        with watch.step("embed_for_index"):
            model = await self.models.get(name)
            return (await embed_question(model, query.text, query.earlier)).vector

    async def _prepare(
        self, tenant: TenantContext, query: Query, watch: Stopwatch
    ) -> tuple[Generation | None, Matches | None]:
        with watch.step("prefilter"):
            async with self.database.tenant(tenant.tenant_id) as session:
                generation = await self.indexes.live(PostgresCatalog(session, tenant.tenant_id))
                if query.filter is None or generation is None:
                    return generation, None
                return generation, await matching(session, tenant.tenant_id, generation.number, query.filter)

    async def _engines(
        self,
        tenant: TenantContext,
        query: Query,
        embedding: QueryEmbedding,
        vector: NDArray[np.float32] | None,
        generation: Generation,
        matches: Matches | None,
        watch: Stopwatch,
        degraded: list[str],
    ) -> tuple[AnnHits | None, list[Scored], dict[str, float]]:
        depth = max(self.settings.candidates, 2 * query.k)
        target = tenant.settings.recall_target or self.indexes.settings.recall_target

        async def ann() -> AnnHits | None:
            if vector is None:
                return None
            wanted = AnnQuery(vector, depth, query.k, target, exact=query.exact, matches=matches)
            with watch.step("ann"):
                return await self.indexes.search_ann(generation, wanted)

        scope = None if matches is None else matches.scope

        async def bm25() -> tuple[list[Scored], dict[str, float]]:
            with watch.step("bm25"):
                hits = await self.indexes.search_bm25(generation, query.text, k=depth, scope=scope)
                return hits, await self.indexes.word_idf(generation, embedding.words)

        by_vector, by_words = await asyncio.gather(_unless_away(ann()), _unless_away(bm25()))
        if by_vector is None and by_words is None:
            raise Unavailable("Neither search engine answers.", code="search_unavailable")
        degraded += [name for name, hits in (("ann", by_vector), ("bm25", by_words)) if hits is None]
        hits, idf = by_words or ([], {})
        return by_vector, hits, idf

    async def _rank(
        self,
        tenant: TenantContext,
        query: Query,
        embedding: QueryEmbedding,
        idf: dict[str, float],
        fused: list[Fused],
        watch: Stopwatch,
        degraded: list[str],
    ) -> list[Passage]:
        depth = self.settings.rerank_depth if self.reranker is not None else 0
        # A few more than needed: rows of replaced versions linger in the engines until they are purged.
        wanted = fused[: max(depth, query.k) + 20]
        with watch.step("passages"):
            async with self.database.tenant(tenant.tenant_id) as session:
                readable = await read_candidates(
                    session,
                    tenant.tenant_id,
                    [hit.chunk_id for hit in wanted],
                    with_bits=[hit.chunk_id for hit in wanted[: depth + 5]] if depth else [],
                )
        hits = [hit for hit in wanted if hit.chunk_id in readable]
        scores, reranked = [hit.score for hit in hits], 0
        if self.reranker is not None and hits:
            with watch.step("rerank"):
                reranked = min(depth, len(hits))
                candidates = [readable[hit.chunk_id] for hit in hits[:reranked]]
                scoring = self.reranker.scores(query.text, embedding, idf, candidates)
                extra = await _unless_away(self.reranking.count("rerank", scoring))
            if extra is None:
                degraded.append("rerank")
                reranked = 0
            else:
                scores[:reranked] = blend(scores[:reranked], extra, weight=self.settings.rerank_weight)
        order = sorted(range(reranked), key=lambda i: -scores[i]) + list(range(reranked, len(hits)))
        return [
            _ranked(readable[hits[i].chunk_id], hits[i], scores[i], rank if i < reranked else None)
            for rank, i in enumerate(order[: query.k], start=1)
        ]


def _ranked(candidate: Candidate, hit: Fused, score: float, rank: int | None) -> Passage:
    ranks = Ranks(ann=hit.ann_rank, bm25=hit.bm25_rank, rerank=rank)
    return replace(candidate.passage, score=score, ranks=ranks)


async def _unless_away(work: Awaitable[T]) -> T | None:
    try:
        return await work
    except Unavailable as error:
        if error.code == "database_unavailable":
            raise
        return None


def debug_of(found: Found) -> dict[str, Any]:
    """Return how the search was done, for `debug`."""
    ann = found.ann
    if ann is None:
        return {"plan": "none", "cells": {}, "rows_scanned": None}
    return {
        "plan": ann.plan,
        "cells": {"visited": ann.cells_visited, "total": ann.cells_total},
        "rows_scanned": ann.rows_scanned,
        "rounds": ann.rounds,
        "recall": {"promised": ann.promised, "predicted": ann.predicted},
    }
