"""Starts the stages of a stack in order, keeps every child running, drains them in the opposite order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.local.child import run_step
from service.local.keeper import Backoff, Keeper
from service.local.spec import Member, Stage, StepSpec
from service.local.state import ChildRecord


@dataclass(frozen=True)
class Event:
    """Something that a waiting person wants to see."""

    kind: Literal["healthy", "done", "stopped"]
    name: str
    seconds: float


class Supervisor:
    """All children of one stack."""

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        report: Callable[[Event], None] = lambda event: None,
        record: Callable[[tuple[ChildRecord, ...]], None] = lambda children: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._stages = stages
        self._report = report
        self._record = record
        self._backoff = backoff or Backoff()
        self._keepers: list[Keeper] = []
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """Start stage after stage; the members of a stage at the same time. The caller drains after a failure.

        Raises:
            StartFailed: a child or a step did not come up.
            Misconfigured: a child cannot be started on this machine or from this data folder.
        """
        for stage in self._stages:
            await first_failure([self._start_in_turn(one if isinstance(one, tuple) else (one,)) for one in stage])

    async def stop(self) -> None:
        """Drain in the opposite order, one after the other, so that nobody loses what it still needs."""
        for keeper in reversed(self._keepers):
            began = time.monotonic()
            await keeper.stop(self._hurry)
            self._report(Event("stopped", keeper.spec.name, time.monotonic() - began))
        self._keepers.clear()

    def hurry(self) -> None:
        """Stop waiting for the drain: kill what still runs, in order."""
        self._hurry.set()

    def children(self) -> tuple[ChildRecord, ...]:
        """Return all children in the order of their start."""
        return tuple(keeper.record() for keeper in self._keepers)

    def _changed(self) -> None:
        self._record(self.children())

    async def _start_in_turn(self, members: tuple[Member, ...]) -> None:
        for member in members:
            await self._start_one(member)

    async def _start_one(self, member: Member) -> None:
        began = time.monotonic()
        if isinstance(member, StepSpec):
            await run_step(member)
            self._report(Event("done", member.name, time.monotonic() - began))
            return
        keeper = Keeper(member, self._changed, self._backoff)
        self._keepers.append(keeper)
        await keeper.start()
        self._report(Event("healthy", member.name, time.monotonic() - began))


async def first_failure(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run at the same time; at the first failure cancel the others, wait for their end, and raise it."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    real = [failure for failure in failures if not isinstance(failure, asyncio.CancelledError)]
    for failure in real or failures:
        raise failure
