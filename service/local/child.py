"""One running program: started by the launcher, watched by a pidfd, drained, killed with its whole tree if need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from service.local import logs, processes
from service.local.account import Account
from service.local.spec import ChildSpec, StepSpec
from tenants.errors import Unavailable

REAP_S = 5.0
LAUNCHER = Path(__file__).with_name("launch.py")


class StartFailed(Unavailable):
    """A child or step did not come up; `tail` holds the last lines of its log."""

    code = "start_failed"
    title = "The local stack did not start"

    def __init__(self, name: str, cause: str, log: Path, *, since: int = 0) -> None:
        super().__init__(f"{name} {cause}")
        self.name = name
        self.cause = cause
        self.log = log
        self.tail = logs.tail(log, since=since)


class Running:
    """A started program, until it and everything that it started have ended."""

    def __init__(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        self.pid = process.pid
        self.log_start = log_start
        """Size of its log when it was started, bytes."""
        self.identity = processes.identity(process.pid)
        self.exited = asyncio.Event()
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        if self._process.poll() is not None and not self.exited.is_set():
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.exited.set()

    @property
    def ending(self) -> str:
        """How it ended, in words; "" while it runs."""
        code = self._process.returncode
        if code is None:
            return ""
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def succeeded(self) -> bool:
        """Whether it ended with status 0."""
        return self._process.returncode == 0

    def feed(self, text: bytes) -> None:
        """Write all of its standard input and close it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text)
            self._process.stdin.close()
        except BrokenPipeError:
            return  # it ended before it read; its exit status says why

    async def stop(self, number: signal.Signals, grace_s: float, hurry: asyncio.Event | None = None) -> bool:
        """Ask the process to drain; kill its whole tree after the grace, or when `hurry` is set.

        Returns False if it had to be killed.

        The tree is remembered before the signal, for what is left of it when the process itself has ended is nobody's
        descendant any more.
        """
        members = processes.session_tree(self.pid, self.identity)
        processes.send([self.pid] if not self.exited.is_set() else [], number)
        waits = [asyncio.ensure_future(event.wait()) for event in (self.exited, hurry) if event]
        try:
            await asyncio.wait(waits, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in waits:
                waiting.cancel()
        drained = self.exited.is_set()
        await self.sweep(members)
        with contextlib.suppress(TimeoutError):  # a process stuck in the kernel must not hold up the drain of the rest
            async with asyncio.timeout(REAP_S):
                await self.exited.wait()
        return drained

    async def sweep(self, members: dict[int, str] | None = None) -> None:
        """Kill what is left of its tree."""
        left = (members or {}) | processes.session_tree(self.pid, self.identity)
        if processes.alive(left):
            await asyncio.to_thread(processes.kill, left)


def launched(argv: Sequence[str], account: Account | None, death: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command that runs a program as an account, and ends it by a signal when its parent has died."""
    whom = [f"--uid={account.uid}", f"--gid={account.gid}"] if account else []
    return [
        *(sys.executable, "-I", "-S", str(LAUNCHER)),
        *(f"--parent={os.getpid()}", f"--death-signal={int(death)}", *whom, "--"),
        *argv,
    ]


def spawn(spec: ChildSpec | StepSpec) -> Running:
    """Start a program in a session of its own, its output appended to its log. Call from the main thread.

    The kernel's death signal follows the thread that forked, so a helper thread would take its children with it.
    """
    death = spec.death_signal if isinstance(spec, ChildSpec) else signal.SIGKILL
    with os.fdopen(os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        log_start = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(  # noqa: S603  programs of the stack's own specification
            launched(spec.argv, spec.account, death),
            stdin=subprocess.PIPE if isinstance(spec, StepSpec) else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(spec.env),
            cwd=spec.cwd,
            start_new_session=True,
        )
    return Running(process, log_start)


async def run_step(spec: StepSpec) -> None:
    """Run a program to its end.

    Raises:
        StartFailed: it exited with another status than 0, or took too long.
    """
    logs.rotate(spec.log)
    running = spawn(spec)
    running.feed(spec.stdin)
    try:
        async with asyncio.timeout(spec.timeout_s):
            await running.exited.wait()
    except TimeoutError:
        await running.stop(signal.SIGTERM, 2.0)
        late = f"took longer than {spec.timeout_s:.0f} s"
        raise StartFailed(spec.name, late, spec.log, since=running.log_start) from None
    except asyncio.CancelledError:
        await running.stop(signal.SIGTERM, 2.0)
        raise
    if not running.succeeded:
        raise StartFailed(spec.name, running.ending, spec.log, since=running.log_start)
