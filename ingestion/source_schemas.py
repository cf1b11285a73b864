"""Bodies of the routes of sources, and how rows are rendered into them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingestion.schemas import JobError
from ingestion.sources.config import Kind, redacted
from ingestion.sources.models import Source, SourceClock, SourceRun
from ingestion.sources.schedule import check_cron, check_timezone

RunState = Literal["queued", "running", "done", "failed", "cancelled"]
OnVanish = Literal["keep", "delete"]
_NAME = Field(
    min_length=1,
    max_length=200,
    pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$",
    examples=["handbook"],
)
_MISSES = Field(default=None, ge=1, le=100)
_RESERVED = "upload"


class Schedule(BaseModel):
    """When a source is read: cron with five fields, in an IANA time zone."""

    model_config = ConfigDict(extra="forbid")

    cron: str = Field(max_length=200, examples=["0 6 * * 1-5"])
    timezone: str = Field(default="UTC", max_length=100, examples=["Europe/Berlin"])

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        return check_cron(value)

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        return check_timezone(value)


class SourceIn(BaseModel):
    """A source to register. What its `config` holds depends on its kind."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    name: str = _NAME
    config: dict[str, Any] = Field(examples=[{"url": "https://example.com/feed.xml"}])
    schedule: Schedule | None = None
    """Without one it is read when it is asked for."""
    on_vanish: OnVanish | None = None
    """What becomes of a document whose entry vanished; without it `keep` for feeds, which show their last entries
    only, and `delete` for the others."""
    misses: int | None = _MISSES
    """In how many runs in a row an entry must be missing; without it 2 for what is on the web, else 1."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return _checked_name(value)


class SourcePatch(BaseModel):
    """What may be changed of a source; what is absent stays. A `schedule` of null takes it away."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    config: dict[str, Any] | None = None
    """The whole of it, but for credentials, which stay unless they are given. They have to be given again when the
    host, the bucket, the account or the endpoint changes."""
    schedule: Schedule | None = None
    on_vanish: OnVanish | None = None
    misses: int | None = _MISSES

    @field_validator("name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        return None if value is None else _checked_name(value)


def _checked_name(value: str) -> str:
    bare = value.strip()
    if not bare or bare == _RESERVED:
        raise ValueError(f"must not be empty or {_RESERVED!r}")
    return bare


class RunOut(BaseModel):
    """One reading of a source: what was new, what had changed, what is gone, what could not be read."""

    id: UUID
    state: RunState
    cause: Literal["manual", "schedule"]
    job_id: UUID
    added: int
    changed: int
    unchanged: int
    vanished: int
    failed: int
    error: JobError | None
    """Why the whole run failed."""
    errors: list[dict[str, Any]]
    """The first entries that failed: `{key, code, detail}`."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class SourceOut(BaseModel):
    """A source. Credentials are never shown: `config.credentials` is `set` where there are any."""

    id: UUID
    kind: Kind
    name: str
    config: dict[str, Any]
    schedule: Schedule | None
    on_vanish: OnVanish
    misses: int
    state: Literal["active", "paused"]
    next_run_at: datetime | None
    last_success_at: datetime | None
    last_run: RunOut | None
    created_at: datetime
    updated_at: datetime


class SourceList(BaseModel):
    """A page of sources, newest first."""

    items: list[SourceOut]
    next: str | None


class RunList(BaseModel):
    """A page of runs, newest first."""

    items: list[RunOut]
    next: str | None


class Removed(BaseModel):
    """What the removal of a source did."""

    id: UUID
    deleted_documents: int
    """They are invisible at once; a job for each removes it from every store."""


def source_out(source: Source, clock: SourceClock, run: SourceRun | None) -> SourceOut:
    """Render a source."""
    scheduled = source.cron is not None and source.timezone is not None
    return SourceOut(
        id=source.id,
        kind=source.kind,  # type: ignore[arg-type]  # the column holds one of the literals
        name=source.name,
        config=redacted(source.config, sealed=source.sealed is not None),
        schedule=Schedule.model_construct(cron=source.cron, timezone=source.timezone) if scheduled else None,
        on_vanish=source.on_vanish,  # type: ignore[arg-type]  # the same
        misses=source.misses,
        state=source.state,  # type: ignore[arg-type]  # the same
        next_run_at=clock.next_run_at,
        last_success_at=clock.last_success_at,
        last_run=run_out(run) if run is not None else None,
        created_at=source.created_at,
        updated_at=source.updated_at,
    )


def run_out(run: SourceRun) -> RunOut:
    """Render a run."""
    return RunOut.model_validate(run, from_attributes=True)
