"""Ends a stack from outside: asks its supervisor to drain, or ends what a killed supervisor left behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from service.local import processes
from service.local.owner import end_leftovers, owned
from service.local.state import StackState, recorded_stack
from service.local.supervisor import Event
from tenants.errors import Conflict

PATIENCE_S = 150.0
"""More than the graces of all children together: after it the supervisor itself must be stuck."""

Ending = Literal["nothing", "drained", "killed", "leftovers"]


def end_stack(data_dir: Path, report: Callable[[Event], None], *, patience_s: float = PATIENCE_S) -> Ending:
    """End the stack of a data folder and wait until nothing of it runs. Blocks.

    Returns:
        `nothing` ran; it `drained`; its supervisor was stuck and everything was `killed`; or the supervisor had been
        killed before and its `leftovers`, if any still ran, were ended.

    Raises:
        Conflict: the folder is held by a process that started only the stores (a test session); end that one.
    """
    state = recorded_stack(data_dir)
    if state is None:
        return "nothing"
    if not state.alive():
        with owned(data_dir):  # ends them on entry
            return "leftovers"
    if state.of == "stores":
        raise Conflict(
            f"{data_dir} is held by process {state.supervisor_pid}, which runs only the stores; end that one."
        )
    supervisor = {state.supervisor_pid: state.supervisor_identity}
    processes.send(supervisor, signal.SIGTERM)
    follow(data_dir, state, report, patience_s)
    if not processes.alive(supervisor):
        return "drained"
    processes.kill(supervisor)
    end_leftovers(data_dir)
    return "killed"


def follow(data_dir: Path, state: StackState, report: Callable[[Event], None], patience_s: float) -> None:
    """Report each child as it stops, until the supervisor has ended or patience has."""
    began = time.monotonic()
    left = {child.name for child in state.children}
    while state.alive() and time.monotonic() - began < patience_s:
        now = recorded_stack(data_dir) or state
        for child in reversed(now.children):
            if child.state == "stopped" and child.name in left:
                left.discard(child.name)
                report(Event("stopped", child.name, time.monotonic() - began))
        time.sleep(0.05)
    if not state.alive():
        for name in (child.name for child in reversed(state.children) if child.name in left):
            report(Event("stopped", name, time.monotonic() - began))
