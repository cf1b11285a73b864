"""Long documents leave the main lane before they are embedded, and a batch gives its place back in time."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest

from ingestion import jobs, pipeline
from ingestion.batch import Batch
from ingestion.models import Lane
from ingestion.parse.sandbox import ParserPool
from ingestion.parsing import GivenBack, Overdue
from ingestion.runtime import Runtime
from ingestion.settings import IngestSettings
from ingestion.tasks import Shell, _commit
from shards.embed import PassageEmbeddings
from shards.models import DocumentVersion
from tenants.db import Database
from tests.ingestion.parse.test_docx import archive, paragraph
from tests.ingestion.queue_rows import LEASE, Queue
from tests.ingestion.test_slow_lane import Originals, Worker, batch_of, parsers

__all__ = ["parsers"]
PAGE = b"word " * 12_000
"""Sixty chunks of 200 tokens."""


@dataclass
class Words:
    """An embedder whose tokens are words. It does not go on with passages that have the word `long` until told to."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    dim: int = 2
    max_tokens: int = 256

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]

    async def embed_passages(self, texts: Sequence[str]) -> PassageEmbeddings:
        if any("long" in text.split() for text in texts):
            await self.go_on.wait()
        return PassageEmbeddings(np.ones((len(texts), 2), dtype=np.float32) / 2**0.5, [b""] * len(texts))


@dataclass
class LineWorker(Worker):
    """What the steps of a batch use of a worker's runtime."""

    embedder: Words = field(default_factory=Words)
    database: Database | None = None


def docx(text: str) -> bytes:
    """A small document of much text."""
    return archive(paragraph(text) * 40)


def work_of(contents: dict[str, bytes], settings: IngestSettings, lane: Lane = Lane.MAIN) -> tuple[Batch, Any]:
    """A batch of these documents, and their versions by job id."""
    batch = batch_of(lane)
    batch.settings = settings
    batch.jobs = [jobs.new_job(batch.tenant_id, "ingest") for _ in contents]
    versions = {}
    for job, name in zip(batch.jobs, contents, strict=True):
        job.lane = lane
        kind = "docx" if contents[name].startswith(b"PK") else "txt"
        versions[job.id] = DocumentVersion(object_key=name, format=kind, filename=name, title=name, title_given=True)
    return batch, versions


async def told(worker: LineWorker, batch: Batch, versions: dict[UUID, DocumentVersion]) -> AsyncIterator[str]:
    """Say what the steps of a batch are, one by one."""
    async with asyncio.timeout(20), aclosing(pipeline.steps(cast(Runtime, worker), batch, versions)) as steps:
        async for step in steps:
            if isinstance(step, pipeline.Embedded):
                for one in step.documents:
                    yield f"{one.title} embedded"
            elif isinstance(step, Overdue):
                yield f"{versions[step.job_id].object_key} {'kept' if step.kept else 'handed back'}"
            elif isinstance(step, GivenBack):
                for job_id in step.job_ids:
                    yield f"{versions[job_id].object_key} given back"


LONG = {
    "text": b"long " * 3_000,
    "chunks": b"long a a a " * 800,
    "docx": docx("long " * 4_000),
}


@pytest.mark.parametrize("long", LONG.values(), ids=LONG)
async def test_short_documents_are_done_while_a_long_one_of_their_batch_is_embedded(
    parsers: ParserPool, long: bytes
) -> None:
    settings = IngestSettings(long_chunks=10)
    contents = {"long": long, "a": b"a note", "second": long, "b": b"a note"}
    worker = LineWorker(Originals(contents), parsers, settings)
    batch, versions = work_of(contents, settings)
    said = []
    async for one in told(worker, batch, versions):
        said.append(one)
        if {"a embedded", "b embedded"} <= set(said) and not worker.embedder.go_on.is_set():
            assert worker.slow.taken == 1
            worker.embedder.go_on.set()
    assert sorted(said[:-1]) == ["a embedded", "b embedded", "long kept", "second handed back"]
    assert said[-1] == "long embedded"
    assert worker.slow.taken == 0, "the place is free again"


async def test_in_the_slow_lane_a_long_document_is_embedded(parsers: ParserPool) -> None:
    settings = IngestSettings(long_chunks=10, batch_chunks=1)
    worker = LineWorker(Originals({"long": LONG["docx"]}), parsers, settings)
    worker.slow.enter()  # the dispatcher bounds the lane, not the worker
    worker.embedder.go_on.set()
    said = [one async for one in told(worker, *work_of({"long": LONG["docx"]}, settings, Lane.SLOW))]
    assert said == ["long embedded"]
    assert worker.slow.taken == 1


async def test_a_batch_that_had_its_turn_begins_no_further_document(parsers: ParserPool) -> None:
    contents = {str(at): PAGE for at in range(9)}
    for settings in (IngestSettings(batch_chunks=100), IngestSettings(batch_s=1e-6)):
        worker = LineWorker(Originals(contents), parsers, settings)
        said = [one async for one in told(worker, *work_of(contents, settings))]
        assert sorted(one[0] for one in said) == sorted(contents), "each is done or given back, and none is both"
        back = {one[0] for one in said if one.endswith("given back")}
        assert {"5", "6", "7", "8"} <= back
        assert "0" not in back


async def test_parsing_waits_for_embedding(parsers: ParserPool) -> None:
    contents = {str(at): b"long " * 12_000 for at in range(30)}
    settings = IngestSettings(batch_chunks=100_000)
    worker = LineWorker(Originals(contents), parsers, settings)
    batch, versions = work_of(contents, settings)
    line = pipeline._Line(cast(Runtime, worker), batch, versions)
    tasks = [asyncio.ensure_future(work) for work in (line.parse(), line.embed())]
    async with asyncio.timeout(30):
        while line._ready._weight + 60 <= pipeline.GROUP_CHUNKS:
            await asyncio.sleep(0.05)
    for _ in range(30):  # time in which more would come
        await asyncio.sleep(0.1)
        if (waiting := line._ready._weight) > pipeline.GROUP_CHUNKS:
            break
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert waiting <= pipeline.GROUP_CHUNKS


async def test_another_tenants_note_goes_on_while_a_long_document_is_embedded(
    queue: Queue, parsers: ParserPool
) -> None:
    hostile, other, _ = queue.tenants
    content = LONG["docx"]
    assert len(content) < 15_000, "many of them fit into one batch"
    settings = IngestSettings(in_flight=1)
    worker = LineWorker(Originals({"long": content}), parsers, settings, database=queue.database)
    queue.start(in_flight=1)
    await queue.add(hostile, cost=len(content))
    await queue.tick()
    await queue.add(other)
    assert await queue.tick() == 0, "the only place of the main lane is taken"
    batch, versions = work_of({"long": content}, settings)
    batch.tenant_id, batch.batch_id = hostile, queue.sent[0].batch_id
    async with queue.transaction(hostile) as session:
        batch.jobs = await jobs.claim(session, hostile, batch.batch_id, lease=LEASE, max_attempts=3)
    [version] = versions.values()
    async with (
        asyncio.timeout(20),
        aclosing(pipeline.steps(cast(Runtime, worker), batch, {batch.jobs[0].id: version})) as steps,
    ):
        first = await anext(steps)
        assert isinstance(first, Overdue)
        await _commit(cast(Runtime, worker), batch, first)
        assert await queue.tick() == 1
        assert queue.sent[1].tenant_id == other
        assert not worker.embedder.go_on.is_set(), "and the long one is not done"


def test_calls_that_wait_for_the_embedder_leave_threads_for_those_of_other_batches() -> None:
    everyone = threading.Barrier(16, timeout=10)

    async def opened() -> Any:
        return None

    async def all_at_once() -> None:
        await asyncio.gather(*(asyncio.to_thread(everyone.wait) for _ in range(16)))

    Shell.open(opened())
    Shell.run(all_at_once())
    Shell.close(opened())
