"""Commands of the local stack: up, down, status, env."""

from __future__ import annotations

import importlib
import json
import logging
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.local import logs, processes
from service.local.child import StartFailed
from service.local.daemon import FORMAT, MODULE, prepare_stack, start_daemon, supervisor_log
from service.local.ending import end_stack
from service.local.run import run_here
from service.local.state import StackState, recorded_stack, running_stack
from service.local.supervisor import Event
from service.settings import Settings

console = Console(highlight=False, soft_wrap=True)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)

MARKS = {"healthy": "[green]ready  [/]", "done": "[green]done   [/]", "stopped": "stopped"}
COLOURS = {"healthy": "green", "failed": "red", "unhealthy": "red", "waiting": "yellow"}
ENDINGS = {
    "nothing": "Nothing runs.",
    "drained": "Drained; nothing of the stack runs.",
    "killed": "The supervisor did not answer; everything was killed.",
    "leftovers": "The supervisor had been killed; what it left is ended.",
}
DEMO = ("service.cli.demo", "run_demo")
MIB = 1024**2


def data_folder() -> Path:
    """Return the absolute data folder of the settings."""
    return Settings().data_dir.absolute()


def up(
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay attached; Ctrl-C drains and stops.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Run the demo when the stack is ready.")] = False,
) -> None:
    """Start the local stack and return when it is ready; exit status 1, with the cause, when it cannot start."""
    data_dir = data_folder()
    state = running_stack(data_dir)
    if state is None and foreground:
        start_attached(data_dir, demo)
        return
    if state is None:
        began = time.monotonic()
        try:
            state = start_background(data_dir)
        except OSError as error:
            complain(f"{error}. `tessera doctor` says how to mend it.")
        welcome(state, data_dir, time.monotonic() - began)
    elif not state.ready:
        complain(f"Process {state.supervisor_pid} is starting or draining a stack from {data_dir}; try again shortly.")
    else:
        console.print(f"Already running at [bold]{state.url}[/] (process {state.supervisor_pid}).")
    if demo and (failed := run_demo(state, data_dir)):
        raise typer.Exit(failed)


def start_background(data_dir: Path, module: str = MODULE, words: Sequence[str] = ()) -> StackState:
    """Start a supervisor (see `daemon.start_daemon`), show its progress, return what runs."""
    with start_daemon(data_dir, module, words) as (process, lines):
        try:
            for line in lines:
                message = json.loads(line)
                if message["kind"] == "failed":
                    process.wait()
                    complain_start(message["message"], message["tail"], message["log"])
                if message["kind"] == "ready":
                    break
                show_event(Event(**message))
            else:
                log = data_dir / "logs" / "supervisor.log"
                complain_start(f"The supervisor ended with status {process.wait()}", logs.tail(log), str(log))
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            complain("Stopped before it was ready.")
    state = running_stack(data_dir)
    if state is None:
        complain("The stack ended right after its start; see `tessera doctor`.")
    return state


def start_attached(data_dir: Path, demo: bool) -> None:
    """Run the supervisor in this process until a signal."""
    began = time.monotonic()
    logging.basicConfig(level=logging.INFO, format=FORMAT, filename=supervisor_log(data_dir))

    def ready(state: StackState) -> None:
        welcome(state, data_dir, time.monotonic() - began)
        console.print("Ctrl-C drains and stops.")
        if demo:
            threading.Thread(target=run_demo, args=(state, data_dir), daemon=True).start()

    try:
        run_here(prepare_stack, data_dir, show_event, ready)
    except StartFailed as error:
        complain_start(error.detail, error.tail, str(error.log))
    console.print("Drained; nothing of the stack runs.")


def run_demo(state: StackState, data_dir: Path) -> int:
    """Run the demo against the running stack; return its exit status."""
    entry: Callable[..., int] = getattr(importlib.import_module(DEMO[0]), DEMO[1])
    return entry(url=state.url, admin_key=state.admin_key, data_dir=data_dir)


def down() -> None:
    """Drain the local stack, wait until nothing of it runs; good as well when nothing ran."""
    console.print(ENDINGS[end_stack(data_folder(), show_event)])


def env() -> None:
    """Print export lines of the running stack for a shell: eval "$(tessera env)"."""
    state = running_stack(data_folder())
    if state is None or not state.ready:
        complain("No stack runs from this data folder; start one with `tessera up`.")
    typer.echo(f"export TESSERA_URL={shlex.quote(state.url)}")
    typer.echo(f"export TESSERA_ADMIN_KEY={shlex.quote(state.admin_key)}")


def status() -> None:
    """Show each child; exit status 1 when nothing runs or a child is not healthy."""
    state = recorded_stack(data_folder())
    if state is None:
        complain("Nothing runs. Start it with `tessera up`.")
    if not state.alive():
        complain("The supervisor was killed. `tessera down` ends what it left, `tessera up` starts again.")
    show_children(state)


def show_children(state: StackState) -> None:
    """Print the table of what runs; exit status 1 when a child is not healthy."""
    console.print(f"{state.url or f'{state.of} only'}  ({'ready' if state.ready else 'not ready'})")
    console.print(children_table(state))
    for child in state.children:
        if child.cause:
            console.print(f"{child.name}: last death: {escape(child.cause)} ({child.log})")
    if not all(child.state == "healthy" for child in state.children):
        raise typer.Exit(1)


def children_table(state: StackState) -> Table:
    """Return the table of `status`: uptime in seconds, resident memory of whole process trees in MiB."""
    table = Table("child", "state", *("pid", "port", "uptime", "restarts", "resident MiB"), box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    total = own = processes.resident_bytes(state.supervisor_pid, descendants=False)
    for child in state.children:
        resident = processes.resident_bytes(child.pid) if processes.is_alive(child.pid, child.identity) else 0
        total += resident
        colour = COLOURS.get(child.state, "default")
        pid, port = (str(value) if value else "-" for value in (child.pid, child.port))
        cells = (pid, port, age(child.since), str(child.restarts), f"{resident / MIB:.0f}")
        table.add_row(child.name, f"[{colour}]{child.state}[/]", *cells)
    table.add_row("supervisor", "", str(state.supervisor_pid), "-", age(state.since), "-", f"{own / MIB:.0f}")
    table.add_row("total", "", "", "", "", "", f"{total / MIB:.0f}")
    return table


def age(since: float) -> str:
    """Return the time since a moment as h:mm:ss."""
    minutes, seconds = divmod(max(0, int(time.time() - since)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def show_event(event: Event) -> None:
    """Print one line of progress."""
    console.print(f"  {MARKS[event.kind]} {event.name:<10} {event.seconds:6.2f} s")


def welcome(state: StackState, data_dir: Path, seconds: float) -> None:
    """Say where the stack is."""
    console.print(f"Ready at [bold]{state.url}[/] after {seconds:.1f} s. Data and logs: {data_dir}")
    console.print('For a shell: eval "$(tessera env)". To stop: tessera down.')


def complain(sentence: str) -> NoReturn:
    """Print a sentence on standard error and exit with status 1."""
    complaints.print(escape(sentence))
    raise typer.Exit(1)


def complain_start(cause: str, tail: list[str], log: str) -> NoReturn:
    """Print why the start failed, with the end of the log that says more, and exit with status 1."""
    complaints.print(f"[red]The stack did not start:[/] {escape(cause)}")
    for line in tail:
        complaints.print(f"  | {escape(line)}")
    complain(f"The whole log: {log}" if log else "`tessera doctor` may know more.")
