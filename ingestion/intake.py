"""The door of the write line: records uploads, stores their originals, and finds out which are already there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs, upload_rows
from ingestion.models import Job, Priority
from ingestion.objects import Objects
from ingestion.upload_rows import Identity, Upload
from shards.models import Document, DocumentVersion
from tenants.bulk import insert_all
from tenants.errors import Unavailable

_PUTS_AT_ONCE = 16


@dataclass(frozen=True)
class Incoming:
    """An upload and its content."""

    upload: Upload
    content: BinaryIO


@dataclass(frozen=True)
class Taken:
    """The outcome of an upload: its document and newest version, the job that will ingest it, and whether it is new."""

    document: Document
    version: DocumentVersion
    job: Job | None
    new: bool


async def take(
    session: AsyncSession,
    objects: Objects,
    tenant_id: UUID,
    incoming: Sequence[Incoming],
    *,
    priority: Priority = Priority.INTERACTIVE,
) -> list[Taken]:
    """Record uploads in the caller's transaction, in order; the originals are stored before the caller commits.

    The same content (and title) again is the same document: nothing is queued, metadata that was given is taken over.
    """
    known = await upload_rows.find_same(session, tenant_id, [one.upload for one in incoming])
    latest = {identity: Taken(document, version, None, new=False) for identity, (document, version) in known.items()}
    outcomes: list[Taken] = []
    described: dict[Identity, DocumentVersion] = {}
    for upload in (one.upload for one in incoming):
        found = latest.get(upload.identity)
        if found is not None and _is_there(found, upload):
            if upload.metadata is not None and found.version.doc_metadata != upload.metadata:
                upload_rows.describe(found.document, found.version, upload.metadata)
                described |= {} if found.new else {upload.identity: found.version}
            outcomes.append(replace(found, new=False))
            continue
        document, version = upload_rows.new_version(tenant_id, upload, found.document if found else None)
        job = jobs.new_job(
            tenant_id,
            "ingest",
            priority=priority,
            document_id=document.id,
            version=version.version,
            cost=upload.size_bytes,
        )
        outcomes.append(Taken(document, version, job, new=True))
        latest[upload.identity] = outcomes[-1]
    new = [(taken, one.content) for taken, one in zip(outcomes, incoming, strict=True) if taken.new]
    await upload_rows.add_versions(session, [(taken.document, taken.version) for taken, _ in new])
    await insert_all(session, [taken.job for taken, _ in new if taken.job is not None])
    await upload_rows.replace_fields(session, list(described.values()))
    await _put(objects, {taken.version.object_key: content for taken, content in new})
    return await _with_jobs(session, tenant_id, outcomes)


def _is_there(found: Taken, upload: Upload) -> bool:
    version = found.version
    same_title = upload.title is None or upload.title == version.title
    sound = version.state != "failed" and found.document.original == "intact"
    return sound and version.content_sha256 == upload.sha256 and same_title


async def _put(objects: Objects, contents: dict[str, BinaryIO]) -> None:
    turn = asyncio.Semaphore(_PUTS_AT_ONCE)

    async def put(key: str, content: BinaryIO) -> None:
        async with turn:
            await objects.put(key, content)

    puts = [asyncio.create_task(put(key, content)) for key, content in contents.items()]
    try:
        await asyncio.gather(*puts)
    except BaseException:
        for task in puts:
            task.cancel()
        await asyncio.gather(*puts, return_exceptions=True)
        # What was stored belongs to rows that are not going to be.
        with suppress(Unavailable):
            await objects.delete(list(contents))
        raise


async def _with_jobs(session: AsyncSession, tenant_id: UUID, outcomes: list[Taken]) -> list[Taken]:
    """Add the newest job to those outcomes that queued none."""
    without = [taken.document.id for taken in outcomes if taken.job is None]
    if not without:
        return outcomes
    earlier = await jobs.latest_of_documents(session, tenant_id, without)
    return [replace(taken, job=earlier.get(taken.document.id)) if taken.job is None else taken for taken in outcomes]
