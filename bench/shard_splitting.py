"""Searches and uploads while an index is trained anew and while its cells are divided; prints one JSON line.

    python -m bench.shard_splitting --data DATASETS [--documents 8000] [--seconds 20]

A tenant is filled over HTTP with passages of mtrag/cloud and mtrag/clapnq. It is asked over HTTP, one question at a
time: in quiet, while its cells are trained anew (once as they should be, once a third as many), and while these large
cells are divided again. Beside each question the vectors alone are asked in this process as the service asks them, and
compared with the true best ten. Then documents are uploaded for as long, in quiet and while the cells are trained anew.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from bench.local_stack import arguments, print_line, running
from bench.search import QUESTIONS, SETS, in_turns, like_the_service
from eval.bulk import NewDocument
from eval.client import ApiProblem, TesseraClient
from eval.datasets import CorpusRow, load_set
from eval.progress import Silent
from eval.retrieval import ingest
from eval.scratch import workplace
from service.resources import Resources, open_resources
from shards.catalog_postgres import PostgresCatalog

BARS = {"p95_ratio": 1.5, "recall": 0.98, "ingestion_share": 0.5}
_LEAST = 60
"""Searches of a phase: an upkeep that ends sooner is begun again."""


@dataclass
class Asked:
    """What the questions of one phase met with."""

    spent: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)

    def shown(self) -> dict[str, float]:
        return {
            "searches": len(self.spent),
            **{f"p{p}_ms": round(float(np.percentile(self.spent, p)), 1) for p in (50, 95, 99)},
            "recall": round(float(np.mean(self.recalls)), 4),
        }


@dataclass
class Asker:
    """Asks one question after another, over HTTP and of the vectors alone."""

    client: TesseraClient
    resources: Resources
    tenant_id: UUID
    questions: list[str]
    vectors: NDArray[np.float32]
    truth: list[set[UUID]]
    at: int = 0

    async def ask(self, asked: Asked) -> None:
        number, self.at = self.at % len(self.questions), self.at + 1
        began = time.perf_counter()
        await self.client.search(self.questions[number], k=10)
        asked.spent.append(1000 * (time.perf_counter() - began))
        indexes = self.resources.indexes
        async with self.resources.database.tenant(self.tenant_id) as session:
            live = await indexes.live(PostgresCatalog(session, self.tenant_id))
        assert live is not None
        found = await indexes.search_ann(live, like_the_service(indexes, self.vectors[number], 100))
        hits = {hit.chunk_id for hit in found.hits[:10]}
        asked.recalls.append(len(hits & self.truth[number]) / len(self.truth[number]))


async def rows_of(resources: Resources, tenant_id: UUID) -> tuple[list[UUID], NDArray[np.float32]]:
    async with resources.database.tenant(tenant_id) as session:
        live = await resources.indexes.live(PostgresCatalog(session, tenant_id))
    assert live is not None
    rows = [row async for page in resources.indexes.vectors.scan(live.space) for row in page]
    return [row.chunk_id for row in rows], np.stack([row.vector for row in rows])


async def during(work: Callable[[], Awaitable[Any]], asker: Asker) -> tuple[dict[str, float], list[Any]]:
    """Ask while `work` is done, again and again until enough was asked."""
    asked, results = Asked(), []
    while len(asked.spent) < _LEAST and len(results) < 8:
        task = asyncio.ensure_future(work())
        while not task.done():
            await asker.ask(asked)
        results.append(await task)
    return asked.shown(), results


async def uploaded(client: TesseraClient, passages: list[CorpusRow], until: Callable[[], bool]) -> float:
    """Upload passages, 50 at a time, until told to stop; return documents a second until all were found."""
    began, sent = time.perf_counter(), 0
    while not until() and sent + 50 <= len(passages):
        documents = [
            NewDocument(f"{row.id}.txt", (row.text or "").encode(), external_id=row.id)
            for row in passages[sent : sent + 50]
        ]
        found = await client.upload_many(documents)
        sent += len(documents)
        jobs = [one.job["id"] for one in found if not isinstance(one, Exception) and one.job]
        await client.wait_for_job(jobs[-1])  # they are worked on in order
    return sent / (time.perf_counter() - began)


async def asked_for(admin: TesseraClient, tenant_id: str, what: str, **body: Any) -> dict[str, Any]:
    """Ask for upkeep as soon as what runs by itself has ended."""
    while True:
        try:
            return await admin.ask_upkeep(tenant_id, what, **body)
        except ApiProblem as problem:
            if problem.code != "upkeep_running":
                raise
            await asyncio.sleep(0.2)


async def bench(data_dir: Path, data: Path, documents: int, seconds: float) -> dict[str, object]:
    state, settings = running(data_dir)
    sets = [load_set(data / name, queries=QUESTIONS) for name in SETS]
    corpus = in_turns([row for row in one.corpus if (row.text or "").strip()] for one in sets)
    questions = in_turns(one.questions for one in sets)[:200]
    async with TesseraClient(state.url, state.admin_key) as admin:
        kept = workplace(admin, Silent(), name="bench-splitting", slug="bench-splitting", keep=True, bm25_weight=None)
        async with kept as place, TesseraClient(state.url, place.key) as client:
            if not place.held:
                await ingest(client, place, corpus[:documents], Silent(), concurrency=8)
            async with open_resources(settings, "TESSERA_DATABASE_URL") as resources:
                tenant_id = UUID(place.id)
                ids, matrix = await rows_of(resources, tenant_id)
                texts = [question.text for question in questions]
                vectors = np.stack([(await resources.embedder.embed_query(text)).vector for text in texts])
                truth = [{ids[at] for at in np.argpartition(-(matrix @ vector), 9)[:10]} for vector in vectors]
                asker = Asker(client, resources, tenant_id, texts, vectors, truth)

                async def upkeep(what: str, **body: Any) -> dict[str, Any]:
                    job = await asked_for(admin, place.id, what, **body)
                    done: dict[str, Any] = await admin.wait_for_job(job["id"])
                    return done["result"] if done["state"] == "done" else {"failed": done["error"]}

                await during(lambda: asyncio.sleep(3), asker)
                quiet, _ = await during(lambda: asyncio.sleep(seconds), asker)
                cells = (await admin.shards(place.id))["cells"]
                trained, _ = await during(lambda: upkeep("reindex"), asker)
                coarse, _ = await during(lambda: upkeep("reindex", cells=max(2, len(cells) // 3)), asker)
                divided, results = await during(lambda: upkeep("calibrate"), asker)
                again, _ = await during(lambda: asyncio.sleep(seconds), asker)
                fresh = itertools.islice(corpus, documents, documents + 20_000)
                rest = list(fresh)
                stop = time.perf_counter() + seconds
                alone = await uploaded(client, rest, lambda: time.perf_counter() > stop)
                job = asyncio.ensure_future(upkeep("reindex"))
                beside = await uploaded(client, rest[5000:], job.done)
                await job
    base = min(quiet["p95_ms"], again["p95_ms"])
    phases = {"trained_anew": trained, "trained_coarsely": coarse, "divided": divided}
    ratios = {name: round(phase["p95_ms"] / base, 2) for name, phase in phases.items()}
    recalls = [phase["recall"] for phase in phases.values()]
    return {
        "bench": "shard_splitting",
        "chunks": len(ids),
        "cells": len(cells),
        "quiet": quiet,
        "quiet_again": again,
        **phases,
        "splits": [result.get("split") for result in results],
        "p95_ratio": ratios,
        "documents_per_s": {"quiet": round(alone, 1), "training": round(beside, 1)},
        "ingestion_share": round(beside / alone, 2),
        "bars": BARS,
        "ok": max(ratios.values()) <= BARS["p95_ratio"]
        and min(recalls) >= BARS["recall"]
        and beside / alone >= BARS["ingestion_share"],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mtrag/cloud and mtrag/clapnq")
    parser.add_argument("--documents", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the quiet phases last")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.data, chosen.documents, chosen.seconds)))


if __name__ == "__main__":
    main()
