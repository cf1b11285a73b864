"""Runs a whole stack in this process until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from service.local import processes
from service.local.account import unprivileged_account
from service.local.owner import owned
from service.local.plan import Plan, plan_stack, wanted_ports
from service.local.ports import choose_ports
from service.local.settings import given_settings
from service.local.state import ChildRecord, Installation, StackState, forget_stack
from service.local.supervisor import Event, Supervisor
from service.settings import Settings

logger = logging.getLogger(__name__)

DRAIN_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def prepare_plan(settings: Settings, data_dir: Path) -> Plan:
    """Choose ports, remember them, and describe the stack. The data folder must be held (`owner.owned`).

    Raises:
        Misconfigured: a setting or the state file is wrong.
        OSError: no port is free, or the data folder cannot be written.
    """
    given = given_settings()
    installation = Installation.load(data_dir)
    ports = choose_ports(wanted_ports(settings, installation, given))
    installation = installation.model_copy(update={"ports": installation.ports | ports})
    installation.save(data_dir)
    return plan_stack(settings, installation, data_dir, given, unprivileged_account())


def run_here(
    prepare: Callable[[Path], Plan],
    data_dir: Path,
    report: Callable[[Event], None],
    ready: Callable[[StackState], None],
) -> None:
    """Hold the data folder, start what is planned, call `ready`, keep it running until a signal, drain. Blocks.

    Args:
        prepare: makes the plan when the folder is held, such as `prepare_plan`.
        data_dir: the folder.
        report: is told of each child.
        ready: is called once, when all are healthy.

    Raises:
        Conflict: another process runs a stack from this folder.
        StartFailed: a child or step did not come up; what had started was drained.
        Misconfigured: a setting, the machine or the data folder does not allow it.
    """
    with owned(data_dir) as folder:
        plan = prepare(folder)

        async def until_signal() -> None:
            await Stack(plan, folder, report).run(ready)

        asyncio.run(until_signal())


class Stack:
    """A plan at work: keeps the record in the data folder true, and obeys signals."""

    def __init__(self, plan: Plan, data_dir: Path, report: Callable[[Event], None]) -> None:
        me = os.getpid()
        self._data_dir = data_dir
        self._supervisor = Supervisor(plan.stages, report=report, record=self._record)
        self._stopping = asyncio.Event()
        self.state = StackState(
            supervisor_pid=me,
            supervisor_identity=processes.identity(me),
            since=time.time(),
            of=plan.of,
            url=plan.url,
            admin_key=plan.admin_key,
            env=dict(plan.env),
        )

    async def run(self, ready: Callable[[StackState], None]) -> None:
        """Start, call `ready`, keep running until SIGINT, SIGTERM or SIGHUP, drain. A second signal ends the patience.

        Raises:
            StartFailed: a child or step did not come up; what had started was drained.
            Misconfigured: a child cannot be started on this machine or from this data folder.
        """
        loop = asyncio.get_running_loop()
        for number in DRAIN_ON:
            loop.add_signal_handler(number, self._signalled)
        self.state.save(self._data_dir)
        try:
            if await self._started():
                self.state = self.state.model_copy(update={"ready": True})
                self.state.save(self._data_dir)
                ready(self.state)
                await self._stopping.wait()
        finally:
            await self._supervisor.stop()
            forget_stack(self._data_dir)
            for number in DRAIN_ON:
                loop.remove_signal_handler(number)

    async def _started(self) -> bool:
        """Start all; False when a signal came first."""
        start = asyncio.create_task(self._supervisor.start())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((start, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not start.done():
            start.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await start
            return False
        start.result()
        return True

    def _signalled(self) -> None:
        if self._stopping.is_set():
            self._supervisor.hurry()
        self._stopping.set()

    def _record(self, children: tuple[ChildRecord, ...]) -> None:
        self.state = self.state.model_copy(update={"children": children})
        try:
            self.state.save(self._data_dir)
        except OSError as error:  # a full disk must not end the watch over the children
            logger.error("the record of what runs is out of date: %s", error)
