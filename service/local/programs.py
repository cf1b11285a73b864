"""Tessera's own processes as children of the supervisor: the API, one Celery worker, the scheduler, the schema step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from service.local.health import HttpProbe, RedisProbe
from service.local.ports import LOOPBACK
from service.local.settings import ROOT
from service.local.spec import ChildSpec, StepSpec

START_TIMEOUT_S = 120.0
API_DRAIN_S = 10
TASKS = 8
"""Batches under way at one time, over all lanes of the dispatcher: what one waits for, another uses."""


def api_child(data_dir: Path, port: int, env: Mapping[str, str]) -> ChildSpec:
    """Describe the HTTP server."""
    words = ("-m", "uvicorn", "service.app:create_app", "--factory", "--host", LOOPBACK, "--port", str(port))
    return ChildSpec(
        name="api",
        argv=(sys.executable, *words, "--no-access-log", "--timeout-graceful-shutdown", str(API_DRAIN_S)),
        log=data_dir / "logs" / "api.log",
        probe=HttpProbe(LOOPBACK, port, "/readyz"),
        env=env,
        port=port,
        cwd=ROOT,
        grace_s=API_DRAIN_S + 5.0,
        start_timeout_s=START_TIMEOUT_S,
    )


def worker_child(data_dir: Path, redis_url: str, env: Mapping[str, str]) -> ChildSpec:
    """Describe the Celery worker. Its drain ends with the batches at hand; its next life finishes killed ones."""
    words = ("-m", "celery", "-A", "service.worker", "worker", "--pool", "threads", "--concurrency", str(TASKS))
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return ChildSpec(
        name="worker",
        argv=(sys.executable, *words, *quiet, "--loglevel", "INFO"),
        log=data_dir / "logs" / "worker.log",
        probe=RedisProbe(redis_url, "tessera:alive:worker"),
        env=env,
        cwd=ROOT,
        grace_s=30.0,
        start_timeout_s=START_TIMEOUT_S,
    )


def scheduler_child(data_dir: Path, redis_url: str, env: Mapping[str, str]) -> ChildSpec:
    """Describe the scheduler."""
    return ChildSpec(
        name="scheduler",
        argv=(sys.executable, "-m", "service.scheduler"),
        log=data_dir / "logs" / "scheduler.log",
        probe=RedisProbe(redis_url, "tessera:alive:scheduler"),
        env=env,
        cwd=ROOT,
        start_timeout_s=START_TIMEOUT_S,
    )


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
