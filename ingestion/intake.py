"""The door of the write line: limit, hash and store an upload, and find out whether it is already there."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import BinaryIO
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs, repository
from ingestion.models import Job
from ingestion.objects import Objects
from ingestion.repository import Upload
from shards.models import Document, DocumentVersion
from tenants.errors import TooLarge

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Taken:
    """The outcome of an upload: its document and newest version, the job that will ingest it, and whether it is new."""

    document: Document
    version: DocumentVersion
    job: Job | None
    new: bool


async def measure(content: BinaryIO, *, limit: int) -> tuple[int, bytes, bytes]:
    """Return size in bytes, SHA-256 and the first 64 KiB of an upload, and rewind it.

    Raises:
        TooLarge: it has more than `limit` bytes.
    """
    return await asyncio.to_thread(_measure, content, limit)


def _measure(content: BinaryIO, limit: int) -> tuple[int, bytes, bytes]:
    digest, size, head = hashlib.sha256(), 0, b""
    content.seek(0)
    while block := content.read(_BLOCK):
        head = head or block[: 1 << 16]
        size += len(block)
        digest.update(block)
    content.seek(0)
    if size > limit:
        raise TooLarge(f"The file is larger than {limit} bytes.")
    return size, digest.digest(), head


async def take(session: AsyncSession, objects: Objects, tenant_id: UUID, upload: Upload, content: BinaryIO) -> Taken:
    """Record an upload in the caller's transaction; the original is stored before the caller commits.

    The same content (and title) again is the same document: nothing is queued, metadata that was given is taken over.
    """
    document = await repository.find_same(session, tenant_id, upload)
    if document is not None:
        version = await repository.latest_version(session, document)
        if _is_there(version, upload):
            if upload.metadata is not None and version.doc_metadata != upload.metadata:
                await repository.replace_metadata(session, version, upload.metadata)
                if document.active_version == version.version:
                    document.doc_metadata = upload.metadata
            job = await jobs.latest_for_document(session, tenant_id, document.id)
            return Taken(document, version, job, new=False)
    document, version = await repository.add_version(session, tenant_id, upload, document)
    job = jobs.new_job(
        tenant_id, "ingest", document_id=version.document_id, version=version.version, cost=upload.size_bytes
    )
    session.add(job)
    await objects.put(version.object_key, content)
    return Taken(document, version, job, new=True)


def _is_there(version: DocumentVersion, upload: Upload) -> bool:
    same_title = upload.title is None or upload.title == version.title
    return version.state != "failed" and version.content_sha256 == upload.sha256 and same_title
