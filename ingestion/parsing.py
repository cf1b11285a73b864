"""The documents of a batch, parsed: each as soon as it is, so that a slow one holds back no other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from uuid import UUID

from ingestion.batch import Batch
from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem
from ingestion.parse.original import Original
from ingestion.runtime import Kept, Runtime
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


@dataclass(frozen=True)
class GivenBack:
    """Documents that this batch does not begin: its time in the main lane is over."""

    job_ids: list[UUID]


async def parsed(
    runtime: Runtime, batch: Batch, versions: dict[UUID, DocumentVersion], kept: Kept, enough: Callable[[], bool]
) -> AsyncGenerator[Opened | Rejected | Overdue | GivenBack, None]:
    """Yield the documents of a batch in the order in which they are parsed; `versions` by job id.

    Those that take long are added to `kept` while there is room. When the batch has had `enough`, which is asked after
    each document, no further one is begun.

    Raises:
        Unavailable: the object store does not answer, or no parser can be had.
    """
    batch.advance("parsing", 0.05)
    with ExitStack() as stack:
        items: list[tuple[UUID, DocumentVersion, ParseItem]] = []
        for job_id, version in versions.items():
            try:
                content = await runtime.objects.get(version.object_key)
            except NotFound as error:
                yield Rejected(job_id, version, error)
                continue
            original = stack.enter_context(await Original.of(content))
            items.append((job_id, version, ParseItem(original, version.format, version.filename)))
        patience_s = None if batch.slow else runtime.settings.patience_s
        stream = runtime.parsers.stream([item for *_, item in items], patience_s=patience_s)
        async with aclosing(stream.outcomes()) as outcomes:
            async for at, outcome in outcomes:
                job_id, version, _ = items[at]
                if isinstance(outcome, ParsedDocument):
                    yield Opened(job_id, version, outcome)
                elif outcome is not None:
                    kept.leave(job_id)
                    yield Rejected(job_id, version, outcome)
                elif kept.enter(job_id):
                    yield Overdue(job_id, kept=True)
                elif stream.give_up(at):
                    yield Overdue(job_id, kept=False)
                if enough() and (left := stream.stop()):
                    yield GivenBack([items[one][0] for one in left])
