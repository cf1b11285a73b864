"""Killing processes of a running stack, and waiting until its supervisor has brought them back."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

from service.local import logs, processes
from service.local.state import ChildRecord, StackState, running_stack

VICTIMS = ("api", "worker", "scheduler", "redis", "milvus", "postgres")
BACK_S = 90.0


def child_of(data_dir: Path, name: str) -> ChildRecord:
    """Return what the supervisor says of a child now."""
    return next(child for child in _state(data_dir).children if child.name == name)


def kill(data_dir: Path, name: str, *, whole: bool) -> int:
    """Kill a child with SIGKILL, with everything it started if `whole`; return the killed process, 0 if it was down."""
    child = child_of(data_dir, name)
    members = processes.session_tree(child.pid, child.identity) if whole else {child.pid: child.identity}
    living = processes.alive(members)
    processes.send(living, SIGKILL)
    return child.pid if child.pid in living else 0


async def back(data_dir: Path, name: str, killed: int) -> float:
    """Wait until a child lives again under another number and is healthy; return the seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < BACK_S:
        child = child_of(data_dir, name)
        if child.pid != killed and child.state == "healthy":
            return time.monotonic() - began
        if child.state == "failed":
            break
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} did not come back in {BACK_S:.0f} s: {child.state}, {child.cause}")


async def all_healthy(data_dir: Path) -> None:
    """Wait until every child is healthy."""
    for child in _state(data_dir).children:
        await back(data_dir, child.name, 0)


@asynccontextmanager
async def held_still(data_dir: Path, name: str) -> AsyncIterator[None]:
    """Stop every process of a child with SIGSTOP for the time of the context: it is there, and does not answer."""
    child = child_of(data_dir, name)
    members = processes.session_tree(child.pid, child.identity)
    try:
        processes.send(members, SIGSTOP)
        yield
    finally:
        processes.send(members, SIGCONT)


def log_tails(data_dir: Path, lines: int = 12) -> str:
    """Return the ends of all logs."""
    tails = []
    for child in _state(data_dir).children:
        tail = logs.tail(child.log)[-lines:]
        tails.append("\n".join([f"--- {os.path.basename(child.log)}", *tail]))
    return "\n".join(tails)


def _state(data_dir: Path) -> StackState:
    state = running_stack(data_dir)
    assert state is not None, f"no stack runs from {data_dir}"
    return state
