"""Waiting until a tenant is at rest: every document found or failed, the cells trained."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence

from eval.client import StillUnfinished, TesseraClient
from eval.job_wait import ENDED
from eval.progress import Progress

_STATES = ("queued", "running", "retrying")
_LATER = ("drop_generation", "release")
"""Kinds that wait a while on purpose, and change nothing that a search sees."""
_QUIET_LOOKS = 2
"""A job can slip from one state to another between two lists, so one empty look proves nothing."""


async def settle(
    client: TesseraClient,
    job_ids: Sequence[str],
    progress: Progress,
    *,
    first_pause_s: float = 0.05,
    longest_pause_s: float = 1.0,
    patience_s: float = 900.0,
) -> None:
    """Return when no job of the tenant waits or runs any more. `job_ids` are those of its uploads, oldest first.

    A look costs a few requests however many jobs there are; the pause between two grows from `first_pause_s`
    to `longest_pause_s`.

    Raises:
        StillUnfinished: nothing has moved for `patience_s`.
    """
    progress.start("Ingesting", len(job_ids))
    quiet, done, moved_at, pause = 0, 0, time.monotonic(), first_pause_s
    while quiet < _QUIET_LOOKS:
        before = done
        done = await ended_before(client, job_ids, done)
        progress.reach(done)
        if done > before:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > patience_s:
            raise StillUnfinished(f"{len(job_ids) - done} jobs are not finished, and nothing moves any more.")
        if done == len(job_ids):
            quiet = 0 if await _busy(client) else quiet + 1
        if quiet < _QUIET_LOOKS:
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, longest_pause_s)


async def ended_before(client: TesseraClient, job_ids: Sequence[str], known: int) -> int:
    """Return how many of the first jobs have ended, of which `known` are known to have.

    Jobs are worked on in the order of their upload, nearly, so the end of the work is found by doubling steps and
    then by bisection. A job that is late behind the place found makes the figure too high for a while, never the end
    of the waiting too early: that is decided by the lists of unfinished jobs.
    """
    low, step = known, 1
    while low < len(job_ids) and await _ended(client, job_ids[min(low + step, len(job_ids)) - 1]):
        low = min(low + step, len(job_ids))
        step *= 2
    high = min(low + step, len(job_ids))
    while high - low > 1:
        middle = (low + high) // 2
        if await _ended(client, job_ids[middle - 1]):
            low = middle
        else:
            high = middle
    return low


async def failures(client: TesseraClient, job_ids: Collection[str]) -> dict[str, int]:
    """Return how many of these jobs failed or were cancelled, by code."""
    wanted = set(job_ids)
    found: Counter[str] = Counter()
    for state in ("failed", "cancelled"):
        async for job in client.jobs(state=state):
            if job["id"] in wanted:
                found[job["error"]["code"] if job["error"] else state] += 1
    return dict(found)


async def _ended(client: TesseraClient, job_id: str) -> bool:
    return (await client.job(job_id))["state"] in ENDED


async def _busy(client: TesseraClient) -> bool:
    for state in _STATES:
        async for job in client.jobs(state=state):
            if job["kind"] not in _LATER:
                return True
    return False
