"""From a question to a model's first token: another replica is asked when one fails or is late."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from rag.answer.completion import ChatRequest, Completion, ReplicaFailed, open_completion
from rag.answer.figures import GenerationFigures
from rag.answer.replica_pool import Lease, NoReplica, ReplicaPool
from rag.answer.tries import Tries
from rag.settings import GenerationSettings

logger = logging.getLogger(__name__)

_LOOK_S = 0.1
"""How often it is looked whether a first token is late: what is late changes while others' first tokens come."""


@dataclass(frozen=True)
class Begun:
    """An answer that has begun: its first text, the rest to be read, the place that it holds."""

    completion: Completion
    lease: Lease
    text: str | None


class Race:
    """One question to the replicas of one model."""

    def __init__(
        self,
        pool: ReplicaPool,
        request: ChatRequest,
        tries: Tries,
        *,
        deadline: float,
        settings: GenerationSettings,
        figures: GenerationFigures,
    ) -> None:
        self._pool, self._request = pool, request
        self._tries, self._most = tries, settings.tries
        self._patience_s = settings.first_token_timeout_s
        self._deadline = deadline
        self._figures = figures
        self._running: dict[asyncio.Task[Begun], Lease] = {}
        self._failures: list[str] = []

    async def run(self) -> Begun:
        """Return the first answer that begins, and stop the others.

        Raises:
            ReplicaFailed: none began in time, or within the tries.
        """
        if not self._tries.replicas:
            self._pool.hedges.asked()
        try:
            await self._ask_another()
            asked_at = self._pool.clock()
            while True:
                late_at = asked_at + self._pool.hedge_after_s(self._deadline - asked_at)
                await self._wait(late_at)
                won = self._settle()
                if won is not None:
                    return won
                now = self._pool.clock()
                if now >= self._deadline:
                    raise self._silent()
                if not self._running:
                    await self._ask_another()
                    asked_at = self._pool.clock()
                elif now >= late_at and self._may_hedge():
                    asked_at = now
        finally:
            self._stop()

    async def _ask_another(self) -> None:
        if self._tries.spent >= self._most:
            raise ReplicaFailed("error", "; ".join(self._failures) or "no further try is left")
        try:
            lease = await self._pool.lease(self._tries.replicas, self._deadline)
        except NoReplica:
            raise ReplicaFailed("error", "; ".join(self._failures) or "no replica is there") from None
        if self._tries.cause is not None:
            self._figures.retries[self._tries.cause] += 1
        self._start(lease)

    def _may_hedge(self) -> bool:
        if len(self._running) > 1 or self._tries.spent >= self._most:
            return False
        lease = self._pool.lease_now(self._tries.replicas) if self._pool.hedges.has_one else None
        if lease is None:
            return False
        self._pool.hedges.spend()
        self._figures.retries["late"] += 1
        self._start(lease)
        return True

    def _start(self, lease: Lease) -> None:
        self._tries.begun(lease.replica)
        self._running[asyncio.create_task(self._begin(lease))] = lease

    async def _begin(self, lease: Lease) -> Begun:
        completion = await open_completion(lease.replica, self._request)
        try:
            text = await completion.read()
        except BaseException:
            await completion.aclose()
            raise
        return Begun(completion, lease, text)

    async def _wait(self, late_at: float) -> None:
        now = self._pool.clock()
        until = min(self._deadline, late_at) if late_at > now else self._deadline
        timeout = max(0.0, min(until - now, _LOOK_S))
        await asyncio.wait(self._running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    def _settle(self) -> Begun | None:
        """Return an answer that has begun; note the replicas that failed."""
        for task in [task for task in self._running if task.done()]:
            error = task.exception()
            if error is None:
                self._running.pop(task)
                begun = task.result()
                begun.lease.first_token()
                return begun
            lease = self._running.pop(task)
            if not isinstance(error, ReplicaFailed):
                lease.end()
                raise error
            self._note_failure(lease, error)
        return None

    def _note_failure(self, lease: Lease, error: ReplicaFailed) -> None:
        logger.warning("generation at %s failed before its first token: %s", lease.replica.url, error)
        self._failures.append(str(error))
        self._tries.failed(error.kind)
        try:
            note_failure(lease, error)
        finally:
            lease.end()
        if error.kind == "rejected":
            raise error

    def _silent(self) -> ReplicaFailed:
        # Who was asked at the last moment, or waited for a place till then, has not kept anybody waiting.
        late_s = self._pool.late_after_s(self._patience_s)
        for lease in self._running.values():
            if lease.waited_s >= late_s:
                lease.failed(gone=False)
        return ReplicaFailed("error", "; ".join([*self._failures, "no first token in time"]))

    def _stop(self) -> None:
        """Stop what is under way: another was faster, or the asker has left. The places are free at once."""
        stopped, self._running = self._running, {}
        for task, lease in stopped.items():
            task.cancel()
            lease.overtaken()
            lease.end()
        if stopped:
            self._pool.close(_close_begun(stopped))


async def _close_begun(stopped: Collection[asyncio.Task[Begun]]) -> None:
    """Close what began all the same before it was stopped."""
    ended = await asyncio.gather(*stopped, return_exceptions=True)
    await asyncio.gather(*(one.completion.aclose() for one in ended if isinstance(one, Begun)))


def note_failure(lease: Lease, error: ReplicaFailed) -> None:
    """Tell a replica's state what went wrong there."""
    if error.kind == "busy":
        lease.busy(error.busy_s)
    elif error.kind in ("gone", "error"):
        lease.failed(gone=error.kind == "gone")
