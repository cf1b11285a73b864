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
from shards.catalog_postgres import PostgresCatalog, live_header
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
_MOST_TRIES = 3
"""How often a search is done when documents that it finds are replaced meanwhile."""


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
            return await _Search(self, tenant, query).run()


class _Search:
    """One search on its way. Words are looked for as soon as it is known where, vectors once the question has one."""

    def __init__(self, parts: Retriever, tenant: TenantContext, query: Query) -> None:
        self._parts, self._tenant, self._query = parts, tenant, query
        self._settings = parts.settings
        self._watch = Stopwatch()
        self._degraded: list[str] = []

    async def run(self) -> Found:
        """See `Retriever.search`."""
        embedded = asyncio.create_task(self._embed())
        try:
            for _ in range(_MOST_TRIES):
                generation, matches = await self._prepare()
                if generation is None or (matches is not None and not len(matches)):
                    return Found([], [], self._watch.total(), await embedded, {})
                self._degraded = []
                ann, (bm25, idf) = await self._engines(generation, matches, embedded)
                wanted = self._fused(ann, bm25)
                readable = await self._read(wanted)
                if len(readable) == len(wanted) or not await self._is_overtaken(generation):
                    break
            embedding = await embedded
        finally:
            embedded.cancel()
        passages = await self._rank(embedding, idf, [hit for hit in wanted if hit.chunk_id in readable], readable)
        return Found(passages, self._degraded, self._watch.total(), embedding, idf, ann)

    async def _is_overtaken(self, generation: Generation) -> bool:
        """Say whether the index was written to since the search began. Then what is not served any more may have been
        replaced meanwhile, by what the engines could not know yet."""
        with self._watch.step("passages"):
            header = await live_header(self._parts.database, self._tenant.tenant_id)
        known = generation.header
        return header is not None and (header.number, header.stamp) != (known.number, known.stamp)

    async def _embed(self) -> QueryEmbedding:
        with self._watch.step("embed"):
            return await embed_question(self._parts.embedder, self._query.text, self._query.earlier)

    async def _vector(self, embedded: Awaitable[QueryEmbedding], generation: Generation) -> NDArray[np.float32]:
        """Return the question as the model of the tenant's index sees it."""
        name = generation.header.recipe.model
        if name == self._parts.embedder.name:
            return (await embedded).vector
        with self._watch.step("embed_for_index"):
            model = await self._parts.models.get(name)
            return (await embed_question(model, self._query.text, self._query.earlier)).vector

    async def _prepare(self) -> tuple[Generation | None, Matches | None]:
        """Return where is searched, None before the first chunk, and among what, None without a filter."""
        database, indexes, tenant_id = self._parts.database, self._parts.indexes, self._tenant.tenant_id
        with self._watch.step("prefilter"):
            if self._query.filter is None:
                header = await live_header(database, tenant_id)
                generation = None if header is None else indexes.kept(tenant_id, header)
                if header is None or generation is not None:
                    return generation, None
            # One moment: a document that is replaced between the two statements would be in neither.
            async with database.one_moment(tenant_id) as session:
                generation = await indexes.live(PostgresCatalog(session, tenant_id))
                if self._query.filter is None or generation is None:
                    return generation, None
                return generation, await matching(session, tenant_id, generation.number, self._query.filter)

    async def _engines(
        self, generation: Generation, matches: Matches | None, embedded: Awaitable[QueryEmbedding]
    ) -> tuple[AnnHits | None, tuple[list[Scored], dict[str, float]]]:
        """Ask both engines at the same time."""
        by_vector, by_words = await asyncio.gather(
            _unless_away(self._ann(generation, matches, embedded)),
            _unless_away(self._bm25(generation, matches, embedded)),
        )
        if by_vector is None and by_words is None:
            raise Unavailable("Neither search engine answers.", code="search_unavailable")
        self._degraded += [name for name, hits in (("ann", by_vector), ("bm25", by_words)) if hits is None]
        return by_vector, by_words or ([], {})

    async def _ann(
        self, generation: Generation, matches: Matches | None, embedded: Awaitable[QueryEmbedding]
    ) -> AnnHits:
        query, indexes = self._query, self._parts.indexes
        vector = await self._vector(embedded, generation)
        target = self._tenant.settings.recall_target or indexes.settings.recall_target
        wanted = AnnQuery(vector, self._depth, query.k, target, exact=query.exact, matches=matches)
        with self._watch.step("ann"):
            hits = await indexes.search_ann(generation, wanted)
        self._parts.usage.note(generation, vector, hits, filtered=matches is not None)
        return hits

    async def _bm25(
        self, generation: Generation, matches: Matches | None, embedded: Awaitable[QueryEmbedding]
    ) -> tuple[list[Scored], dict[str, float]]:
        """Return what holds the question's words, and how rare those are."""
        indexes, scope = self._parts.indexes, None if matches is None else matches.scope
        with self._watch.step("bm25"):
            hits = await indexes.search_bm25(generation, self._query.text, k=self._depth, scope=scope)
        words = (await embedded).words
        with self._watch.step("bm25"):
            return hits, await indexes.word_idf(generation, words)

    @property
    def _depth(self) -> int:
        return max(self._settings.candidates, 2 * self._query.k)

    @property
    def _rerank_depth(self) -> int:
        return self._settings.rerank_depth if self._parts.reranker is not None else 0

    def _fused(self, ann: AnnHits | None, bm25: list[Scored]) -> list[Fused]:
        """Return the best of both engines, a few more than needed: rows of replaced versions linger in them until they
        are purged."""
        weight = self._tenant.settings.bm25_weight
        with self._watch.step("fuse"):
            fused = fuse(
                ann.hits if ann else [], bm25, bm25_weight=self._settings.bm25_weight if weight is None else weight
            )
        return fused[: max(self._rerank_depth, self._query.k) + 20]

    async def _read(self, wanted: list[Fused]) -> dict[UUID, Candidate]:
        depth = self._rerank_depth
        with self._watch.step("passages"):
            return await read_candidates(
                self._parts.database,
                self._tenant.tenant_id,
                [hit.chunk_id for hit in wanted],
                with_bits=[hit.chunk_id for hit in wanted[: depth + 5]] if depth else [],
            )

    async def _rank(
        self, embedding: QueryEmbedding, idf: dict[str, float], hits: list[Fused], readable: dict[UUID, Candidate]
    ) -> list[Passage]:
        reranker = self._parts.reranker
        scores, reranked = [hit.score for hit in hits], 0
        if reranker is not None and hits:
            with self._watch.step("rerank"):
                reranked = min(self._rerank_depth, len(hits))
                candidates = [readable[hit.chunk_id] for hit in hits[:reranked]]
                scoring = reranker.scores(self._query.text, embedding, idf, candidates)
                extra = await _unless_away(self._parts.reranking.count("rerank", scoring))
            if extra is None:
                self._degraded.append("rerank")
                reranked = 0
            else:
                scores[:reranked] = blend(scores[:reranked], extra, weight=self._settings.rerank_weight)
        order = sorted(range(reranked), key=lambda i: -scores[i]) + list(range(reranked, len(hits)))
        return [
            _ranked(readable[hits[i].chunk_id], hits[i], scores[i], rank if i < reranked else None)
            for rank, i in enumerate(order[: self._query.k], start=1)
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
