"""Waiting for jobs without loading the service: few are asked one by one, many are read from the list in pages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from eval.transport import Json
from tenants.errors import TesseraError, Unavailable

ENDED = ("done", "failed", "cancelled")
_FEW = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_SHARE_OF_POLLING = 10
"""The pause is at least so many times as long as the look before it."""
_FAILURES_BORNE = 5


class StillUnfinished(Unavailable):
    """The jobs are not finished, and the patience or the deadline is over."""

    code = "jobs_unfinished"
    title = "Jobs unfinished"


class Jobs(Protocol):
    """Where jobs are looked at."""

    async def job(self, job_id: str) -> Json:
        """Return one job."""
        ...

    def jobs(self) -> AsyncIterator[Json]:
        """Yield all jobs, newest first."""
        ...


class JobWatch:
    """Remembers how each job was last seen and tells about changes."""

    def __init__(self, jobs: Jobs, job_ids: Sequence[str], on_change: Callable[[Json], None] | None) -> None:
        self._jobs = jobs
        self._order = list(dict.fromkeys(job_ids))
        self._seen: dict[str, Json] = {}
        self._on_change = on_change
        self.pending = set(self._order)

    def results(self) -> list[Json]:
        """Return the jobs as last seen, in the order in which they were given."""
        return [self._seen[job_id] for job_id in self._order]

    async def look(self) -> bool:
        """Look at every pending job once; return whether any has changed."""
        changed = False
        async for job in self._look():
            before = self._seen.get(job["id"])
            self._seen[job["id"]] = job
            if job["state"] in ENDED:
                self.pending.discard(job["id"])
            if before is None or _standing(before) != _standing(job):
                changed = True
                if self._on_change is not None:
                    self._on_change(job)
        return changed

    async def _look(self) -> AsyncIterator[Json]:
        missing = set(self.pending)
        if len(missing) > _FEW:
            async for job in self._jobs.jobs():
                if job["id"] in missing:
                    missing.discard(job["id"])
                    yield job
                if not missing:
                    return
        for job_id in sorted(missing):
            yield await self._jobs.job(job_id)


async def wait(watch: JobWatch, *, deadline_s: float | None, patience_s: float) -> list[Json]:
    """Return the jobs when all have ended, whatever the outcome.

    A short outage of the service is borne. Raises `StillUnfinished` after `deadline_s`, or when no job has changed for
    `patience_s`; and what the service answers when it refuses to show a job.
    """
    began = changed_at = time.monotonic()
    pause, failures = _FIRST_PAUSE_S, 0
    while True:
        looked_at = time.monotonic()
        try:
            changed, failures = await watch.look(), 0
        except TesseraError as error:
            changed, failures = False, failures + 1
            if not error.retryable or failures > _FAILURES_BORNE:
                raise
        if not watch.pending:
            return watch.results()
        now = time.monotonic()
        changed_at = now if changed else changed_at
        if now - changed_at > patience_s or (deadline_s is not None and now - began > deadline_s):
            raise StillUnfinished(f"{len(watch.pending)} jobs are not finished after {now - began:.0f} s.")
        pause = _FIRST_PAUSE_S if changed else min(pause * 1.5, _LONGEST_PAUSE_S)
        await asyncio.sleep(max(pause, _SHARE_OF_POLLING * (now - looked_at)))


def _standing(job: Json) -> tuple[object, ...]:
    return job["state"], job["stage"], job["progress"], job["attempts"]
