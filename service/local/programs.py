"""Tessera's own processes as children of the supervisor: the API, one Celery worker, the scheduler, the schema step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from service.local.account import private_folder
from service.local.health import FileProbe, HttpProbe
from service.local.ports import LOOPBACK
from service.local.settings import ROOT
from service.local.spec import ChildSpec, StepSpec

START_TIMEOUT_S = 120.0
END_S = 10.0
"""What a process needs to close its stores after its drain."""
HANGS_S = 60.0
"""How long a worker or the scheduler may not get round, as in the chart."""
TASKS = 8
"""Batches under way at one time, over all lanes of the dispatcher: what one waits for, another uses."""


def numbered(role: str, number: int) -> str:
    """Return what the n-th process of a role is called: `api`, `api-2`."""
    return role if number == 1 else f"{role}-{number}"


def api_child(data_dir: Path, name: str, port: int, env: Mapping[str, str], drain_s: float) -> ChildSpec:
    """Describe an HTTP server; `drain_s` is how long it takes to leave by its settings."""
    own = {"TESSERA_API_HOST": LOOPBACK, "TESSERA_API_PORT": str(port), "TESSERA_PROCESS_NAME": name}
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-m", "service.serve"),
        log=data_dir / "logs" / f"{name}.log",
        probe=HttpProbe(LOOPBACK, port, "/readyz"),
        env={**env, **own},
        port=port,
        cwd=ROOT,
        grace_s=drain_s + END_S,
        start_timeout_s=START_TIMEOUT_S,
    )


def worker_child(data_dir: Path, name: str, env: Mapping[str, str], drain_s: float, *, queues: int = 1) -> ChildSpec:
    """Describe a Celery worker. In its drain it ends the batches at hand, or hands them back.

    Each of its `queues` is given as many batches as if it were alone, so it has places for all.
    """
    places = str(TASKS * queues)
    words = ("-m", "celery", "-A", "service.worker", "worker", "--pool", "threads", "--concurrency", places)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return ChildSpec(
        name=name,
        argv=(sys.executable, *words, *quiet, "--loglevel", "INFO"),
        log=data_dir / "logs" / f"{name}.log",
        probe=FileProbe(alive_file(data_dir, name)),
        env={**env, **_named(data_dir, name)},
        cwd=ROOT,
        before=partial(_make_alive_folder, data_dir),
        grace_s=drain_s + END_S,
        start_timeout_s=START_TIMEOUT_S,
        hangs_s=HANGS_S,
    )


def scheduler_child(data_dir: Path, name: str, env: Mapping[str, str]) -> ChildSpec:
    """Describe the scheduler."""
    return ChildSpec(
        name=name,
        argv=(sys.executable, "-m", "service.scheduler"),
        log=data_dir / "logs" / f"{name}.log",
        probe=FileProbe(alive_file(data_dir, name)),
        env={**env, **_named(data_dir, name)},
        cwd=ROOT,
        before=partial(_make_alive_folder, data_dir),
        start_timeout_s=START_TIMEOUT_S,
        hangs_s=HANGS_S,
    )


def alive_file(data_dir: Path, name: str) -> Path:
    """Return what a process touches as long as it answers. Not its key in Redis: that server may be away, or hold
    whatever may be lost, and a process that does without it is well."""
    return data_dir / "alive" / name


def _named(data_dir: Path, name: str) -> dict[str, str]:
    return {"TESSERA_PROCESS_NAME": name, "TESSERA_PROCESS_ALIVE_FILE": str(alive_file(data_dir, name))}


async def _make_alive_folder(data_dir: Path) -> None:
    private_folder(data_dir / "alive")


def schema_step(data_dir: Path, order: bytes, env: Mapping[str, str]) -> StepSpec:
    """Describe the step that makes roles and the newest schema; `order` is its standard input (see schema.py)."""
    return StepSpec(
        name="schema",
        argv=(sys.executable, "-m", "service.local.schema"),
        log=data_dir / "logs" / "schema.log",
        env=env,
        stdin=order,
        cwd=ROOT,
    )
