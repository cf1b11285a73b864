"""Measuring retrieval from outside: a judged set goes in through the HTTP API, and its questions are asked over it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eval.client import Json, TesseraClient
from eval.datasets import CorpusRow, JudgedSet
from eval.metrics import judged_ranks, measure
from eval.progress import Progress
from eval.report import Asked, Choices, Ingestion, Report, make_report
from eval.scratch import Workplace, workplace
from eval.settle import failures, settle
from eval.upload import upload_corpus

_WARM_UP = 5


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    k: int = 100
    """Passages asked for, at most 100; several of one document count once, at the best."""
    limit: int | None = None
    bm25_weight: float | None = None
    tenant: str | None = None
    keep: bool = False
    concurrency: int = 8


async def evaluate(admin: TesseraClient, plan: Plan, judged: JudgedSet, progress: Progress) -> Report:
    """Ingest the corpus into a tenant of its own, ask every judged question, and compute the figures.

    Raises:
        TesseraError: the service refuses or does not answer; a scratch tenant is deleted all the same.
    """
    questions = judged.sample(plan.limit)
    place_of = workplace(
        admin, progress, name=judged.name, slug=plan.tenant, keep=plan.keep, bm25_weight=plan.bm25_weight
    )
    async with place_of as place, TesseraClient(admin.url, place.key) as client:
        ingestion = await ingest(client, place, judged.corpus, progress, concurrency=plan.concurrency)
        asked, server_ms = await ask_all(client, questions, progress, k=plan.k)
        slug = place.slug
    return await asyncio.to_thread(
        make_report,
        questions,
        asked,
        tenant=slug,
        choices=Choices(k=plan.k, limit=plan.limit, bm25_weight=plan.bm25_weight),
        ingestion=ingestion,
        server_ms=server_ms,
    )


async def ingest(
    client: TesseraClient, place: Workplace, corpus: Sequence[CorpusRow], progress: Progress, *, concurrency: int
) -> Ingestion | None:
    """Upload what the tenant lacks and wait until it is at rest; None when nothing was uploaded.

    A tenant that no evaluation made is only asked, never written to.
    """
    present = await _present(client) if place.held else set()
    missing = [row for row in corpus if row.id not in present] if place.ours else []
    if not missing:
        return None
    began = time.perf_counter()
    sent = await upload_corpus(client, missing, progress, concurrency=concurrency)
    job_ids = [job_id for job_id in sent.jobs if job_id is not None]
    await settle(client, job_ids, progress)
    seconds = time.perf_counter() - began
    return Ingestion(
        documents=len(missing),
        refused=dict(sent.refused),
        failed=await failures(client, job_ids),
        metadata_dropped=sent.metadata_dropped,
        upload_s=sent.seconds,
        ready_s=seconds,
    )


async def ask_all(
    client: TesseraClient, judged: JudgedSet, progress: Progress, *, k: int
) -> tuple[list[Asked], dict[str, float]]:
    """Ask every question, one after the other; return the answers' worth and the mean of the service's own timings.

    A few questions are asked first and not counted, so that the latency is that of a running service.
    """
    for question in judged.questions[-_WARM_UP:]:
        await client.search(question.text, k=k)
    progress.start("Asking", len(judged.questions))
    asked: list[Asked] = []
    stages: defaultdict[str, float] = defaultdict(float)
    for question in judged.questions:
        began = time.perf_counter()
        answer = await client.search(question.text, k=k)
        latency = 1000 * (time.perf_counter() - began)
        grades, ranked = judged.grades[question.id], documents_of(answer["hits"])
        asked.append(
            Asked(
                id=question.id,
                ranks=judged_ranks(ranked, grades),
                figures=measure(ranked, grades),
                latency_ms=round(latency, 3),
                degraded=answer["degraded"],
            )
        )
        for stage, milliseconds in answer["timings_ms"].items():
            stages[stage] += milliseconds
        progress.reach(len(asked))
    return asked, {stage: round(total / len(asked), 3) for stage, total in stages.items()}


def documents_of(hits: Iterable[Json]) -> list[str]:
    """Return the documents of passages, best first, each once: a document is as good as its best passage."""
    return list(dict.fromkeys(hit["external_id"] or hit["document_id"] for hit in hits))


async def _present(client: TesseraClient) -> set[str]:
    return {document["external_id"] async for document in client.documents() if document["external_id"]}
