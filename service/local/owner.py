"""One supervisor a data folder, and an end to what a killed one left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from service.local import processes
from service.local.account import private_folder
from service.local.state import StackState, forget_stack, recorded_stack
from tenants.errors import Conflict

LOCK_FILE = "lock"
GRACE_S = 10.0
PATIENCE_S = 1.0


@contextlib.contextmanager
def owned(data_dir: Path) -> Iterator[Path]:
    """Hold the data folder for this process: create it, lock it, end what the last holder left running.

    Yields its absolute path, links resolved.

    The kernel drops the lock when the process ends, however it ends.

    Raises:
        Conflict: another process holds it.
    """
    data_dir = private_folder(data_dir).resolve()
    private_folder(data_dir / "logs")
    descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not locked(descriptor):
            raise Conflict(f"Another process runs a stack from {data_dir}.", code="stack_running")
        end_leftovers(data_dir)
        yield data_dir
    finally:
        os.close(descriptor)


def locked(descriptor: int) -> bool:
    """Take the lock, with a moment's patience: a holder that was just killed may still be on its way out."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def end_leftovers(data_dir: Path) -> list[str]:
    """End the children of a supervisor that is gone; return the names of those that still ran.

    Blocks up to ten seconds a child that drains, then kills. Call with the lock held, or when nobody can hold it.
    """
    state = recorded_stack(data_dir)
    if state is None or state.alive():
        return []
    ended = end_children(state)
    forget_stack(data_dir)
    return ended


def end_children(state: StackState) -> list[str]:
    """Drain and then kill the recorded children, last started first."""
    ended = []
    for child in reversed(state.children):
        members = processes.session_tree(child.pid, child.identity) if child.pid else {}
        if members:
            ended.append(child.name)
            if processes.is_alive(child.pid, child.identity):
                processes.send([child.pid], child.stop_signal)
                processes.wait_gone({child.pid: child.identity}, GRACE_S)
            processes.kill(members | processes.session_tree(child.pid, child.identity))
    return ended
