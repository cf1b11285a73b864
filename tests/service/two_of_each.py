"""A second and a third API process, a second worker and a second scheduler beside the running stack."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from service.local.plan import NOT_FOR_API, NOT_FOR_WORKERS, without
from service.local.ports import LOOPBACK, free_port
from service.local.programs import api_child, scheduler_child, worker_child
from service.local.settings import CALM_THREADS, python_environment
from service.local.spec import ChildSpec
from service.local.state import StackState

START_S, END_S = 240.0, 60.0
DELAY_S = 1.0
"""How long an API process goes on taking requests after it was told to stop."""
SECOND = {"TESSERA_API_DRAIN_DELAY_S": str(DELAY_S), "TESSERA_INGEST_DRAIN_S": "0.2"}


@dataclass
class Started:
    """A process of ours: unlike those of the stack, its end is ours to see."""

    spec: ChildSpec
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.spec.port}"

    @property
    def log(self) -> str:
        return self.spec.log.read_text()

    async def healthy(self) -> None:
        """Wait until its own probe says so."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if await self.spec.probe.ready():
                    return
            except OSError:
                pass
            await asyncio.sleep(0.1)
        raise AssertionError(f"{self.spec.name} did not start:\n{self.log[-3000:]}")

    def tell_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for its end and return its exit status."""
        return await asyncio.to_thread(self.process.wait, END_S)


def start(spec: ChildSpec) -> Started:
    """Start a process as the supervisor would."""
    with spec.log.open("ab") as log:
        process = subprocess.Popen(
            spec.argv, env=dict(spec.env), cwd=spec.cwd, stdout=log, stderr=log, start_new_session=True
        )
    return Started(spec, process)


def second_ones(stack: StackState, folder: Path) -> dict[str, Started]:
    """Start `api-b`, `api-c`, `worker-b` and `scheduler-b` on the stores of a running stack."""
    for name in ("logs", "alive"):
        (folder / name).mkdir()
    env = {**stack.env, **SECOND}
    for_api = python_environment(without(env, NOT_FOR_API)) | CALM_THREADS
    for_workers = python_environment(without(env, NOT_FOR_WORKERS)) | CALM_THREADS
    specs = [api_child(folder, name, free_port(), for_api, 10.0) for name in ("api-b", "api-c")]
    specs += [worker_child(folder, "worker-b", for_workers, 10.0)]
    specs += [scheduler_child(folder, "scheduler-b", for_workers)]
    return {spec.name: start(spec) for spec in specs}


def at(url: str, client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return a client of another process with the same key."""
    return httpx.AsyncClient(base_url=url, headers={"Authorization": client.headers["Authorization"]}, timeout=60)
