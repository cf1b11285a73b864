"""One run of a source: what is new goes into the write line as uploads, what vanished is deleted.

Batch by batch: read, then write in one transaction the documents, what is kept of the entries, and the counts. So a run
that is killed and repeated finds what it did and goes on. No function here commits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import intake, jobs
from ingestion.batch import Batch
from ingestion.models import Job, Priority
from ingestion.objects import Objects
from ingestion.sources import repository, runs
from ingestion.sources.models import Source, SourceRun
from ingestion.sources.reading import Outcome
from tenants.errors import SourceFailed, TesseraError

_SHOWN_ERRORS = 50
_FAILURES_IN_A_ROW = 20
"""So many entries that do not answer, one after the other, mean that the source does not."""
_LEAST_DOUBT, _DOUBTED_SHARE = 4, 0.5
_NEVER = 1 << 30
_CONFIRMED = 2
"""In so many runs a disappearance that looks like an error must be seen."""


@dataclass
class Run:
    """A run under way."""

    source: Source
    row: SourceRun
    job: Job
    entries: int = 0
    in_a_row: int = 0
    good: int = 0
    """Entries that the source sent, whatever became of them."""
    failed: dict[str, TesseraError] = field(default_factory=dict)
    gone: dict[str, TesseraError] = field(default_factory=dict)

    @property
    def first_error(self) -> TesseraError | None:
        """Return why the first entry that failed did so."""
        return next(iter((self.failed | self.gone).values()), None)

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """Remember what failed.

        Raises:
            TesseraError: nothing answers any more.
        """
        for outcome in outcomes:
            error = outcome.error
            if error is None:
                self.good, self.in_a_row = self.good + 1, 0
                continue
            (self.gone if outcome.is_gone else self.failed)[outcome.entry.key] = error
            self.good += 0 if _is_the_sources(error) else 1
            self.in_a_row = self.in_a_row + 1 if error.retryable else 0
            if self.in_a_row >= _FAILURES_IN_A_ROW:
                raise error


def _is_the_sources(error: TesseraError) -> bool:
    """Whether an entry failed because it was not sent, and not because of what was sent."""
    return isinstance(error, SourceFailed) and error.code not in ("source_empty", "source_too_large")


class RunLost(Exception):
    """The run belongs to another worker by now, or was cancelled."""


async def begin(session: AsyncSession, job: Job) -> Run:
    """Return the run of a job, marked as under way; raise `NotFound` when its source was removed."""
    source = await repository.get(session, job.tenant_id, UUID(job.payload["source_id"]))
    row = await session.get_one(SourceRun, (job.tenant_id, UUID(job.payload["run_id"])))
    await runs.start(session, row)
    return Run(source, row, job)


async def write(session: AsyncSession, objects: Objects, batch: Batch, run: Run, outcomes: Sequence[Outcome]) -> None:
    """Ingest what is new of a batch, and keep what was found out.

    Raises:
        RunLost: see there.
        NotFound: the source was removed.
    """
    source = await _still_ours(session, batch, run)
    if source.cursor:
        # From here on the index is no longer as the last good run left it: whoever came back to that state would
        # hear that nothing has changed. Only a run that goes through knows better.
        source.cursor = {}
    new = [outcome for outcome in outcomes if outcome.incoming is not None]
    incoming = [one.incoming for one in new if one.incoming is not None]
    priority = Priority.BULK if run.row.cause == runs.MANUAL else Priority.BACKGROUND
    taken = await intake.take(session, objects, run.source.tenant_id, incoming, priority=priority)
    documents = {one.entry.key: it.document.id for one, it in zip(new, taken, strict=True)}
    read = [outcome for outcome in outcomes if outcome.error is None]
    rows = [one.row(run.source, run.row.id, documents.get(one.entry.key)) for one in read]
    await repository.keep_entries(session, rows)
    await runs.add_counts(session, run.row, Counter(one.change for one in read))


async def _still_ours(session: AsyncSession, batch: Batch, run: Run) -> Source:
    if not await jobs.hold(session, batch.tenant_id, batch.batch_id, [run.job.id]):
        raise RunLost
    return await repository.get(session, batch.tenant_id, run.source.id, lock=True)


async def finish(
    session: AsyncSession, batch: Batch, run: Run, *, cursor: dict[str, Any], complete: bool, unchanged: bool
) -> dict[str, int]:
    """End a run that read all there is: count what is missing, delete what vanished, keep the cursor.

    Raises:
        RunLost: see there.
        NotFound: the source was removed.
        TesseraError: no entry was sent.
    """
    await _still_ours(session, batch, run)
    source = run.source
    failures = run.failed | run.gone
    if run.first_error is not None and run.good == 0:
        raise run.first_error
    if unchanged:
        counts = {"unchanged": await repository.count_still_missing(session, source)}
        needed = source.misses
    else:
        counts = {"failed": len(failures)}
        needed = await _count_missing(session, run) if complete else 0
    if needed:
        gone_needed = max(needed, _CONFIRMED) if run.good > len(run.gone) else _NEVER
        counts["vanished"] = await repository.vanish(
            session, source, run.row.id, needed=needed, gone=list(run.gone), gone_needed=gone_needed
        )
    await runs.add_counts(session, run.row, counts)
    row = await session.get_one(SourceRun, (source.tenant_id, run.row.id))
    errors = [{"key": key, **runs.shown(error)} for key, error in list(failures.items())[:_SHOWN_ERRORS]]
    await runs.end(session, row, state="done", errors=errors)
    if not failures:
        # After a failure the next run must not take "nothing has changed" for an answer: there is no cursor then.
        await repository.set_cursor(session, source, cursor)
    result = {name: int(getattr(row, name)) for name in runs.COUNTS}
    await jobs.finish(session, source.tenant_id, {run.job.id: {"run_id": str(row.id), **result}})
    return result


async def _count_missing(session: AsyncSession, run: Run) -> int:
    """Return in how many runs an entry must be missing: more often when what is left looks like an error."""
    missing = await repository.count_missing(
        session, run.source, run.row.id, failed=list(run.failed), gone=list(run.gone)
    )
    lost = missing.before - missing.met
    doubtful = missing.met == 0 or (lost >= _LEAST_DOUBT and lost > _DOUBTED_SHARE * missing.before)
    return max(run.source.misses, _CONFIRMED) if doubtful else run.source.misses


async def fail(session: AsyncSession, batch: Batch, error: TesseraError) -> None:
    """End the run of a job that failed for good; its job was ended by `jobs.fail`."""
    for job in batch.jobs:
        run = await session.get(SourceRun, (job.tenant_id, UUID(job.payload["run_id"])))
        if run is not None and run.finished_at is None:
            await runs.end(session, run, state="failed", error=runs.shown(error))


def require_few(run: Run, most: int) -> None:
    """Raise `SourceFailed` when a source lists more than it may."""
    if run.entries > most:
        raise SourceFailed(f"The source lists more than {most:,} entries.", code="source_too_many")
