"""Reads entries and finds out what is new: by its stamp, by the server's word, and by the hash of its content."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

from ingestion.content import measure, media_type, safe_filename
from ingestion.intake import Incoming
from ingestion.parse.detect import detect_format
from ingestion.sources.entries import Connector, Entry, Known, Read, Validators
from ingestion.sources.models import Source, SourceEntry
from ingestion.upload_rows import Upload
from tenants.errors import SourceFailed, TesseraError


@dataclass(frozen=True)
class Outcome:
    """What became of an entry: `incoming` when there is something to ingest, `error` when it could not be read."""

    entry: Entry
    known: SourceEntry | None
    incoming: Incoming | None = None
    error: TesseraError | None = None
    validators: Validators | None = None

    @property
    def change(self) -> str:
        """Return added, changed, unchanged or failed."""
        if self.error is not None:
            return "failed"
        if self.incoming is None:
            return "unchanged"
        return "changed" if self.known is not None and self.known.document_id is not None else "added"

    @property
    def is_gone(self) -> bool:
        """Whether the server says that the entry is no more, though it is listed."""
        return self.error is not None and self.error.code == "source_not_found"

    def row(self, source: Source, run_id: UUID, document_id: UUID | None) -> dict[str, Any]:
        """Return what is kept about an entry that was read, for `repository.keep_entries`."""
        known = self.known
        before = Validators(known.etag, known.last_modified) if known is not None else Validators()
        validators = self.validators or before
        sha256 = self.incoming.upload.sha256 if self.incoming is not None else known and known.content_sha256
        return {
            "tenant_id": source.tenant_id,
            "source_id": source.id,
            "key": self.entry.key,
            "document_id": document_id or (known.document_id if known is not None else None),
            "etag": validators.etag,
            "last_modified": validators.last_modified,
            "stamp": self.entry.stamp,
            "content_sha256": sha256,
            "run_id": run_id,
            "misses": 0,
        }


async def read_all(
    connector: Connector, source: Source, entries: Sequence[Entry], known: Mapping[str, SourceEntry], *, at_once: int
) -> list[Outcome]:
    """Read entries, some at a time, each into a file of its own; the caller closes what is incoming."""
    turn = asyncio.Semaphore(at_once)

    async def one(entry: Entry) -> Outcome:
        async with turn:
            return await _read(connector, source, entry, known.get(entry.key))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(entry)) for entry in entries]
    return [task.result() for task in tasks]


async def _read(connector: Connector, source: Source, entry: Entry, known: SourceEntry | None) -> Outcome:
    if known is not None and entry.stamp is not None and known.stamp == entry.stamp:
        return Outcome(entry, known)
    file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - goes with the outcome
    kept = False
    try:
        asked = None if known is None else Known(_validators(known), known.stamp, known.content_sha256)
        found = await connector.read(entry, asked, file)
        if found is None:
            return Outcome(entry, known)
        upload = await asyncio.to_thread(_upload, source, entry, found, file)
        if known is not None and known.content_sha256 == upload.sha256:
            return Outcome(entry, known, validators=found.validators)
        kept = True
        return Outcome(entry, known, Incoming(upload, file), validators=found.validators)
    except TesseraError as error:
        return Outcome(entry, known, error=error)
    finally:
        if not kept:
            file.close()


def _validators(known: SourceEntry) -> Validators:
    return Validators(known.etag, known.last_modified)


def _upload(source: Source, entry: Entry, found: Read, file: BinaryIO) -> Upload:
    size, sha256, head, tail = measure(file)
    if size == 0:
        raise SourceFailed(f"{entry.key} is empty.", code="source_empty")
    filename = safe_filename(found.filename)
    return Upload(
        filename=filename,
        content_type=media_type(found.media_type),
        format=detect_format(head, filename, found.media_type or None, tail),
        size_bytes=size,
        sha256=sha256,
        external_id=f"{source.id}:{entry.key}",
        title=entry.title,
        metadata=entry.metadata,
        source=source.name,
    )
