"""Keeps one child running: starts it, watches its health, restarts it with growing pauses, gives up with a cause."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from service.local import logs, processes
from service.local.child import Running, StartFailed, spawn
from service.local.health import FileProbe, is_ready
from service.local.spec import ChildSpec
from service.local.state import ChildRecord, ChildState
from tenants.errors import TesseraError

logger = logging.getLogger(__name__)

ASK_STARTING_S, ASK_RUNNING_S = 0.05, 5.0
UNUSED_GRACE_S = 3.0
"""Grace of a child that was never healthy: nobody has used it, and Python may lose a signal while it imports."""


@dataclass(frozen=True)
class Backoff:
    """Pauses between restarts: `first_s`, doubled each time up to `longest_s`."""

    first_s: float = 0.5
    longest_s: float = 30.0
    attempts: int = 6
    """Quick deaths in a row after which the child is given up."""
    settled_s: float = 10.0
    """A child that was healthy and lived this long starts a new count."""
    away_status: int = os.EX_TEMPFAIL
    """How a child ends that waited for a server in vain: it is started again as often as it takes."""

    def pause(self, deaths: int) -> float:
        """Return the seconds to wait after so many quick deaths in a row (>= 1)."""
        return float(min(self.longest_s, self.first_s * 2 ** (deaths - 1)))


class Keeper:
    """One child over all its lives."""

    def __init__(self, spec: ChildSpec, changed: Callable[[], None], backoff: Backoff) -> None:
        self.spec = spec
        self.state: ChildState = "starting"
        self.cause = ""
        self.restarts = 0
        self.running: Running | None = None
        self._since = 0.0
        self._used = False
        self._changed = changed
        self._backoff = backoff
        self._watch: asyncio.Task[None] | None = None

    def record(self) -> ChildRecord:
        """Return what `status` shows and what the next supervisor needs to end it."""
        running = self.running
        return ChildRecord(
            name=self.spec.name,
            state=self.state,
            pid=running.pid if running else 0,
            identity=running.identity if running else "",
            port=self.spec.port,
            since=self._since,
            restarts=self.restarts,
            cause=self.cause,
            log=self.spec.log,
            stop_signal=self.spec.stop_signal,
        )

    async def start(self) -> None:
        """Start it for the first time and wait until it is healthy; from then on it is kept running.

        Raises:
            StartFailed: it ended, or was not healthy in time.
            Misconfigured: it cannot be started on this machine or from this data folder.
        """
        running = await self._launch()
        await self._first_health(running)
        if running.exited.is_set() or self.state != "healthy":
            cause = running.ending or self._late()
            raise StartFailed(self.spec.name, cause, self.spec.log, since=running.log_start)
        self._watch = asyncio.create_task(self._keep(), name=f"keep {self.spec.name}")

    async def stop(self, hurry: asyncio.Event) -> None:
        """Drain it and do not start it again; kill its whole tree when the grace is over or `hurry` is set."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
        if self.running is not None:
            self._set("stopping")
            grace_s = self.spec.grace_s if self._used else min(self.spec.grace_s, UNUSED_GRACE_S)
            if not await self.running.stop(self.spec.stop_signal, grace_s, hurry):
                logger.warning("%s did not drain in time and was killed", self.spec.name)
        self._set("stopped")

    async def _launch(self) -> Running:
        if self.spec.before is not None:
            await self.spec.before()
        logs.rotate(self.spec.log)
        if isinstance(self.spec.probe, FileProbe):
            self.spec.probe.forget()  # the last life's sign of life would count for this one
        self.running = spawn(self.spec)
        self._since, self._used = time.time(), False
        self._set("starting")
        return self.running

    async def _first_health(self, running: Running) -> None:
        """Return when it is healthy, has ended, or the time is over."""
        deadline = time.monotonic() + self.spec.start_timeout_s
        while time.monotonic() < deadline and not running.exited.is_set():
            if await is_ready(self.spec.probe) and await self._has_its_port(running):
                self._set("healthy")
                return
            await wait(running.exited, ASK_STARTING_S)

    async def _keep(self) -> None:
        deaths, failure = 0, ""
        while True:
            settled, hung = await self._until_end()
            self.cause = failure or hung or (self.running.ending if self.running else "")
            waited = failure == "" and self.running is not None and self.running.status == self._backoff.away_status
            deaths = 1 if settled or waited else deaths + 1
            logger.warning("%s %s", self.spec.name, self.cause)
            if deaths >= self._backoff.attempts:
                self.cause = f"given up after {deaths} quick deaths; the last: {self.cause}"
                self._set("failed")
                logger.error("%s: %s; its log: %s", self.spec.name, self.cause, self.spec.log)
                return
            self._set("waiting")
            await asyncio.sleep(self._backoff.pause(deaths))
            self.restarts += 1
            failure = await self._restart()

    async def _restart(self) -> str:
        """Start it again; return why this life is over before it began, or "" when it may live."""
        self.running = None
        try:
            running = await self._launch()
        except (OSError, TesseraError) as error:
            return f"could not be started: {error}"
        await self._first_health(running)
        if self.state == "starting" and not running.exited.is_set():
            await running.stop(self.spec.stop_signal, UNUSED_GRACE_S)
            return self._late()
        return ""

    async def _until_end(self) -> tuple[bool, str]:
        """Follow its health until it ends, or hangs and is ended; return whether it had settled, and how it hung."""
        running, hung = self.running, ""
        if running is None:
            return False, ""
        began, was_healthy = time.monotonic(), self.state == "healthy"
        well = began
        while not running.exited.is_set():
            await wait(running.exited, ASK_RUNNING_S)
            if running.exited.is_set():
                break
            if await is_ready(self.spec.probe):
                well = time.monotonic()
                self._set("healthy")
            elif self.spec.hangs_s is not None and time.monotonic() - well > self.spec.hangs_s:
                hung = f"did not answer for {self.spec.hangs_s:.0f} s and was ended"
                await running.stop(self.spec.stop_signal, self.spec.grace_s)
            else:
                self._set("unhealthy")
        # What it leaves behind may hold its files and its port.
        await running.sweep()
        return was_healthy and time.monotonic() - began >= self._backoff.settled_s, hung

    async def _has_its_port(self, running: Running) -> bool:
        """Whether it is itself what answered: while it was down, another program may have taken its port. One that
        lives keeps its port."""
        port = self.spec.port
        return port is None or await asyncio.to_thread(lambda: processes.listens(processes.tree(running.pid), port))

    def _late(self) -> str:
        return f"was not healthy within {self.spec.start_timeout_s:.0f} s"

    def _set(self, state: ChildState) -> None:
        self._used = self._used or state == "healthy"
        if state != self.state or state == "starting":
            self.state = state
            self._changed()


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
