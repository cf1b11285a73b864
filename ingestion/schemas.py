"""Bodies of the write line's answers, and how rows are rendered into them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ingestion.intake import Taken
from ingestion.models import Job, Priority
from shards.models import Chunk, Document, DocumentVersion
from tenants.errors import TesseraError
from tenants.plain_text import PlainText

DocumentState = Literal["pending", "active", "failed"]
JobState = Literal["queued", "running", "retrying", "done", "failed", "cancelled"]
PriorityName = Literal["interactive", "bulk", "background"]
WaitingFor = Literal["turn", "worker", "pause", "slow_lane", "scheduler", "workers", "model_workers"]


_PRIORITIES: dict[int, PriorityName] = {
    Priority.INTERACTIVE: "interactive",
    Priority.BULK: "bulk",
    Priority.BACKGROUND: "background",
}


class DocumentOut(BaseModel):
    """A document. `version` is the newest one, `active_version` the one that is searched."""

    id: UUID
    external_id: str | None
    title: str
    state: DocumentState
    version: int
    active_version: int | None
    source: str
    format: str
    metadata: dict[str, Any]
    original: Literal["intact", "missing", "damaged"]
    """Whether the uploaded file is as it was, by the last check of the stores; if not, upload it again."""
    created_at: datetime
    updated_at: datetime


class JobError(BaseModel):
    """Why a job failed or is tried again."""

    code: str
    detail: str


class JobOut(BaseModel):
    """A unit of long work."""

    id: UUID
    kind: str
    state: JobState
    stage: str | None
    progress: float
    priority: PriorityName
    position: int | None = None
    """Of a job that waits its turn: its place among the tenant's own, 1 being the next."""
    waiting_for: WaitingFor | None = None
    """Of a job that waits. turn: for the jobs before it; worker: it was given out and begins in a moment; pause: for
    `next_attempt_at`; slow_lane: for other slow documents; scheduler, workers: for a process that is not running."""
    next_attempt_at: datetime | None = None
    attempts: int
    document_id: UUID | None
    error: JobError | None
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class UploadOut(BaseModel):
    """The answer to an upload."""

    document: DocumentOut
    job: JobOut | None


class Refusal(BaseModel):
    """Why a document was refused, as a problem document says it; `errors` points at what is wrong."""

    code: str
    status: int
    detail: str
    errors: list[FieldRefusal]


class FieldRefusal(BaseModel):
    """One field that is wrong."""

    pointer: str
    detail: str


class BulkItem(BaseModel):
    """What became of one file: its document and job, `new` unless the same content was there already, or `error`."""

    document: DocumentOut | None = None
    job: JobOut | None = None
    new: bool = False
    error: Refusal | None = None


class BulkOut(BaseModel):
    """The answer to many uploads, in the order of the files."""

    items: list[BulkItem]


class DocumentList(BaseModel):
    """A page of documents, newest first."""

    items: list[DocumentOut]
    next: str | None


class RetryIn(BaseModel):
    """Which jobs are to be tried again."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["failed", "cancelled"] = "failed"
    code: PlainText | None = Field(default=None, max_length=64)
    """Only those that failed with this code."""


class RetryOut(BaseModel):
    """How many jobs were queued again; 10,000 at most, so repeat until it is 0."""

    retried: int


class JobList(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobOut]
    next: str | None


class Accepted(BaseModel):
    """The job that does what was asked."""

    job: JobOut


class DeleteOut(Accepted):
    """The job that removes the last traces of something that is invisible already."""


class ChunkOut(BaseModel):
    """One passage. `span` is its place in the document's extracted text, in characters."""

    chunk_id: UUID
    position: int
    headings: list[str]
    text: str
    page: int | None
    span: tuple[int, int]


class ChunkList(BaseModel):
    """A page of chunks, in the order of the document."""

    items: list[ChunkOut]
    next: str | None


class VersionOut(BaseModel):
    """A version of a document whose original can be downloaded. `current` is the one that is searched."""

    version: int
    current: bool
    state: Literal["pending", "active", "failed", "kept"]
    title: str
    filename: str
    size_bytes: int
    metadata: dict[str, Any]
    created_at: datetime
    indexed_at: datetime | None


class VersionList(BaseModel):
    """A page of versions, newest first."""

    items: list[VersionOut]
    next: str | None


def version_out(version: DocumentVersion, document: Document) -> VersionOut:
    """Render a version."""
    return VersionOut(
        version=version.version,
        current=version.version == document.active_version,
        state=version.state,  # type: ignore[arg-type]  # the column holds one of the literals
        title=version.title,
        filename=version.filename,
        size_bytes=version.size_bytes,
        metadata=version.doc_metadata,
        created_at=version.created_at,
        indexed_at=version.indexed_at,
    )


def document_out(document: Document, *, pending: DocumentVersion | None = None) -> DocumentOut:
    """Render a document; `pending` fills in what a version that is not active yet brings."""
    shown = pending if pending is not None and document.active_version is None else None
    return DocumentOut(
        id=document.id,
        external_id=document.external_id,
        title=shown.title if shown else document.title,
        state=document.state,  # type: ignore[arg-type]  # the column holds one of the literals
        version=document.latest_version,
        active_version=document.active_version,
        source=document.source,
        format=document.format,
        metadata=document.doc_metadata,
        original=document.original or "intact",  # type: ignore[arg-type]  # the column holds one of the literals
        created_at=document.created_at,
        updated_at=document.updated_at,
    )


def upload_out(taken: Taken) -> UploadOut:
    """Render the outcome of an upload."""
    document = document_out(taken.document, pending=taken.version)
    return UploadOut(document=document, job=job_out(taken.job) if taken.job else None)


def bulk_item(taken: Taken | TesseraError) -> BulkItem:
    """Render the outcome of one upload of many."""
    if isinstance(taken, TesseraError):
        errors = [FieldRefusal(pointer=field.pointer, detail=field.detail) for field in taken.fields]
        return BulkItem(error=Refusal(code=taken.code, status=taken.status, detail=taken.detail, errors=errors))
    one = upload_out(taken)
    return BulkItem(document=one.document, job=one.job, new=taken.new)


def job_out(job: Job, *, position: int | None = None, waiting_for: WaitingFor | None = None) -> JobOut:
    """Render a job; where a waiting one stands is found by `job_view.py`."""
    return JobOut(
        id=job.id,
        kind=job.kind,
        state=job.state,  # type: ignore[arg-type]  # the column holds one of the literals
        stage=job.stage,
        progress=job.progress,
        priority=_PRIORITIES[job.priority],
        position=position,
        waiting_for=waiting_for,
        next_attempt_at=job.not_before if waiting_for == "pause" else None,
        attempts=job.attempts,
        document_id=job.document_id,
        error=JobError(**job.error) if job.error else None,
        result=job.result,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def chunk_out(chunk: Chunk) -> ChunkOut:
    """Render a chunk."""
    return ChunkOut(
        chunk_id=chunk.id,
        position=chunk.position,
        headings=chunk.headings,
        text=chunk.text,
        page=chunk.page,
        span=(chunk.span_start, chunk.span_end),
    )
