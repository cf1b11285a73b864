"""The documents of a batch, parsed: each as soon as it is, so that a slow one holds back no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from uuid import UUID

from ingestion.batch import Batch
from ingestion.models import Lane
from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem
from ingestion.parse.original import Original
from ingestion.runtime import Runtime
from shards.models import DocumentVersion
from tenants.errors import DocumentRejected, NotFound


@dataclass(frozen=True)
class Opened:
    """One document of a batch after parsing."""

    job_id: UUID
    version: DocumentVersion
    document: ParsedDocument


@dataclass(frozen=True)
class Rejected:
    """A document that cannot be ingested."""

    job_id: UUID
    version: DocumentVersion
    error: DocumentRejected | NotFound


@dataclass(frozen=True)
class Overdue:
    """A document that takes long: it goes on in the slow lane, here (`kept`) or when there is room in it."""

    job_id: UUID
    kept: bool


async def parsed(
    runtime: Runtime, batch: Batch, versions: dict[UUID, DocumentVersion]
) -> AsyncGenerator[Opened | Rejected | Overdue, None]:
    """Yield the documents of a batch in the order in which they are parsed; `versions` by job id.

    Raises:
        Unavailable: the object store does not answer, or no parser can be had.
    """
    batch.advance("parsing", 0.05)
    slow = any(job.lane == Lane.SLOW for job in batch.jobs)
    with ExitStack() as stack:
        if slow:
            stack.callback(runtime.slow.leave)
            runtime.slow.enter()
        items: list[tuple[UUID, DocumentVersion, ParseItem]] = []
        for job_id, version in versions.items():
            try:
                content = await runtime.objects.get(version.object_key)
            except NotFound as error:
                yield Rejected(job_id, version, error)
                continue
            original = stack.enter_context(await asyncio.to_thread(Original, content))
            items.append((job_id, version, ParseItem(original, version.format, version.filename)))
        patience_s = None if slow else runtime.settings.patience_s
        stream = runtime.parsers.stream([item for *_, item in items], patience_s=patience_s)
        async with aclosing(stream.outcomes()) as outcomes:
            async for at, outcome in outcomes:
                job_id, version, _ = items[at]
                if isinstance(outcome, ParsedDocument):
                    yield Opened(job_id, version, outcome)
                elif outcome is not None:
                    yield Rejected(job_id, version, outcome)
                elif runtime.slow.full:
                    if stream.give_up(at):
                        yield Overdue(job_id, kept=False)
                else:
                    runtime.slow.enter()
                    stack.callback(runtime.slow.leave)
                    yield Overdue(job_id, kept=True)
