"""Search without generation against its parts called alone, in one interleaved run; prints one JSON line.

    python -m bench.search --data DATASETS [--tenant SLUG] [--documents 11000] [--questions 300]

DATASETS holds mtrag/cloud and mtrag/clapnq. A tenant that is not there yet is filled with so many of their passages, in
turns (about two chunks each), and kept; one that is there is taken as it is. Every question is answered by the service
over HTTP (k = 10, one at a time, client-side wall clock), and by each part alone in this process: the embedder, the
Milvus engine (same cells, same depth as the service) and the BM25 engine. The four take turns to be first.

    ratio = p95 of the service / (p95 of the embedding + the larger p95 of the two engines)
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from bench.local_stack import arguments, print_line, running
from eval.client import TesseraClient
from eval.datasets import CorpusRow, load_set
from eval.progress import Silent
from eval.retrieval import ingest
from eval.scratch import workplace
from service.local.state import StackState
from service.resources import Resources, open_resources
from service.settings import Settings
from shards.catalog_postgres import PostgresCatalog
from shards.generation import Generation
from shards.index import TenantIndexes
from shards.probe import AnnQuery

SETS = ("mtrag/cloud", "mtrag/clapnq")
QUESTIONS = Path("queries_rewrite.jsonl")
BARS = {"p95_ms": 60.0, "ratio": 1.5, "chunks": 20_000}
WARM_UP = 20
SHOWN = (0.5, 0.95)
T = TypeVar("T")
Call = Callable[[str], Awaitable[object]]


def in_turns(lists: Iterable[Sequence[T]]) -> list[T]:
    return [item for turn in itertools.zip_longest(*lists) for item in turn if item is not None]


def like_the_service(indexes: TenantIndexes, vector: NDArray[np.float32], depth: int) -> AnnQuery:
    return AnnQuery(vector, k=depth, wanted=10, target=indexes.settings.recall_target)


def calls(
    client: TesseraClient, resources: Resources, generation: Generation, vectors: dict[str, NDArray[np.float32]]
) -> dict[str, Call]:
    """The service and its parts, each as a call with a question; `vectors` are the questions' own, made beforehand."""
    depth, indexes = resources.settings.search.candidates, resources.indexes

    async def service(question: str) -> object:
        return await client.search(question, k=10)

    async def embedding(question: str) -> object:
        return await resources.embedder.embed_query(question)

    async def milvus(question: str) -> object:
        return await indexes.search_ann(generation, like_the_service(indexes, vectors[question], depth))

    async def bm25(question: str) -> object:
        return await indexes.search_bm25(generation, question, k=depth, scope=None)

    async def together(question: str) -> object:
        async def by_vector() -> None:
            await embedding(question)
            await milvus(question)

        return await asyncio.gather(by_vector(), bm25(question))

    return {"service": service, "embedding": embedding, "milvus": milvus, "bm25": bm25, "together": together}


async def timed(parts: dict[str, Call], questions: list[str], *, warm_up: int = WARM_UP) -> dict[str, list[float]]:
    """Milliseconds of every part for every question; `warm_up` of them are asked once before."""
    names = list(parts)
    spent: dict[str, list[float]] = defaultdict(list)
    for number, question in enumerate([*questions[:warm_up], *questions]):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            await parts[name](question)
            milliseconds = 1000 * (time.perf_counter() - began)
            if number >= min(warm_up, len(questions)):
                spent[name].append(milliseconds)
    return spent


def verdict(spent: dict[str, list[float]], chunks: int) -> dict[str, object]:
    p50, p95 = ({name: float(np.quantile(values, share)) for name, values in spent.items()} for share in SHOWN)

    def ratio(of: dict[str, float]) -> float:
        return of["service"] / (of["embedding"] + max(of["milvus"], of["bm25"]))

    return {
        "p50_ms": {name: round(value, 2) for name, value in p50.items()},
        "p95_ms": {name: round(value, 2) for name, value in p95.items()},
        "ratio_p50": round(ratio(p50), 3),
        "ratio_p95": round(ratio(p95), 3),
        "bars": BARS,
        "ok": p95["service"] <= BARS["p95_ms"] and ratio(p95) <= BARS["ratio"] and chunks >= BARS["chunks"],
    }


async def stages(client: TesseraClient, questions: list[str]) -> dict[str, float]:
    """Median of each stage's time as the service reports it."""
    found: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        for stage, milliseconds in (await client.search(question, k=10))["timings_ms"].items():
            found[stage].append(milliseconds)
    return {stage: round(float(np.median(values)), 2) for stage, values in found.items()}


@dataclass(frozen=True)
class Opened:
    """A running stack with the tenant that is searched: its client, its engines, and what is called of them."""

    client: TesseraClient
    resources: Resources
    generation: Generation
    vectors: dict[str, NDArray[np.float32]]
    chunks: int

    @property
    def parts(self) -> dict[str, Call]:
        return calls(self.client, self.resources, self.generation, self.vectors)


def asked_of(data: Path, documents: int, limit: int) -> tuple[list[CorpusRow], list[str]]:
    """The passages that the tenant is filled with, and the questions, of all sets in turns."""
    sets = [load_set(data / name, queries=QUESTIONS) for name in SETS]
    corpus = in_turns([row for row in one.corpus if (row.text or "").strip()] for one in sets)[:documents]
    return corpus, [question.text for question in in_turns(one.questions for one in sets)[:limit]]


@asynccontextmanager
async def opened(
    state: StackState, settings: Settings, slug: str, corpus: list[CorpusRow], texts: list[str]
) -> AsyncIterator[Opened]:
    """Open a stack's engines beside its service, with a tenant that holds the passages."""
    async with TesseraClient(state.url, state.admin_key) as admin:
        kept = workplace(admin, Silent(), name="bench-search", slug=slug, keep=True, bm25_weight=None)
        async with kept as place, TesseraClient(state.url, place.key) as client:
            if not place.held:
                await ingest(client, place, corpus, Silent(), concurrency=8)
            async with open_resources(settings, "TESSERA_DATABASE_URL") as resources:
                async with resources.database.tenant(UUID(place.id)) as session:
                    generation = await resources.indexes.live(PostgresCatalog(session, UUID(place.id)))
                assert generation is not None
                chunks = await resources.indexes.vectors.count(generation.space)
                vectors = {text: (await resources.embedder.embed_query(text)).vector for text in texts}
                yield Opened(client, resources, generation, vectors, chunks)


async def bench(data_dir: Path, data: Path, slug: str, documents: int, limit: int) -> dict[str, object]:
    corpus, texts = asked_of(data, documents, limit)
    async with opened(*running(data_dir), slug, corpus, texts) as on:
        spent = await timed(on.parts, texts)
        asked = like_the_service(on.resources.indexes, on.vectors[texts[0]], 100)
        seen = await on.resources.indexes.search_ann(on.generation, asked)
        return {
            "bench": "search",
            "tenant": slug,
            "chunks": on.chunks,
            "questions": len(texts),
            "cells": {"visited": seen.cells_visited, "total": seen.cells_total},
            **verdict(spent, on.chunks),
            "stages_p50_ms": await stages(on.client, texts[:50]),
        }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mtrag/cloud and mtrag/clapnq")
    parser.add_argument("--tenant", default="bench-search", help="slug of the tenant to fill and keep")
    parser.add_argument("--documents", type=int, default=11_000)
    parser.add_argument("--questions", type=int, default=300)
    chosen = parser.parse_args()
    work = bench(chosen.data_dir, chosen.data, chosen.tenant, chosen.documents, chosen.questions)
    print_line(asyncio.run(work))


if __name__ == "__main__":
    main()
