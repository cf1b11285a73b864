"""Commands of the real servers: servers up, down, status, env."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.stack import ENDINGS, complain, console, show_children, show_event, start_background
from service.local.ending import end_stack
from service.local.state import StackState, recorded_stack, running_stack
from service.servers.addresses import FILE, STACK
from service.servers.cache import Cache
from service.servers.daemon import MODULE
from service.servers.fetched import Fetched
from service.servers.installation import ALL, FOR_TESTS, SERVERS, TORCH
from service.servers.needs import disk_is_short, examine_needs
from service.servers.plan import running_servers
from service.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False)

SHOWN = ("superuser_url", "url", "uri", "base_urls", "base_url", "endpoint", "model")
Names = Annotated[
    list[str] | None,
    typer.Argument(help=f"Of {', '.join(SERVERS)}; these without a name. Tests have more: {', '.join(FOR_TESTS)}."),
]
Everything = Annotated[bool, typer.Option("--all", help="What tests have more, too.")]


def servers_folder() -> Path:
    """Return the absolute folder of the servers' data."""
    return Settings().servers.dir.absolute()


@app.command()
def up(names: Names = None, everything: Everything = False) -> None:
    """Fetch and start the servers, and return when all are ready; says before what it fetches and leaves out."""
    if unknown := set(names or ()) - set(ALL):
        complain(f"There is no server {', '.join(sorted(unknown))}; there are {', '.join(ALL)}.")
    wanted = [server for server in ALL if server in (names or (ALL if everything else SERVERS))]
    folder = servers_folder()
    state = running_stack(folder)
    if state is None:
        state = start(wanted, folder)
    elif not state.ready:
        complain(f"Process {state.supervisor_pid} is starting or ending servers from {folder}; try again shortly.")
    elif names and (missing := set(names) - {TORCH, *running_servers(state)}):
        complain(f"Others run already, without {', '.join(sorted(missing))}: `tessera servers down` first.")
    show_addresses(folder)


def start(wanted: list[str], folder: Path) -> StackState:
    """Say what is needed, fetch it, start what can be started."""
    cache = Cache(Settings().servers.cache_folder(), lambda sentence: console.print(f"  {sentence}"))
    needs = examine_needs(wanted, cache)
    for sentence in needs.sentences():
        console.print(sentence)
    if short := disk_is_short(needs, cache):
        complain(short)
    if not needs.possible:
        complain("None of them can be started here.")
    began = time.monotonic()
    fetched = Fetched(cache)
    for server in needs.possible:
        fetched.all_of(server)
    fetched_s = time.monotonic() - began
    state = start_background(folder, MODULE, needs.possible)
    started_s = time.monotonic() - began - fetched_s
    console.print(f"Ready after {started_s:.0f} s, and {fetched_s:.0f} s to fetch. Data and logs: {folder}")
    return state


def show_addresses(folder: Path) -> None:
    """Print where each server is; passwords stay in the file."""
    for name, entry in addresses(folder)["servers"].items():
        places = (entry[key] for key in SHOWN if key in entry)
        console.print(f"  {name:<14} {'  '.join(map(shown, places))}", markup=False)
    console.print(
        f"With passwords: {folder / FILE}, or as settings: tessera servers env. To stop: tessera servers down."
    )


def shown(value: Any) -> str:
    """Return a value without the password of a URL."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    scheme, sign, rest = text.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}{sign}{login.partition(':')[0]}{at}{place}" if at else text


def addresses(folder: Path) -> dict[str, Any]:
    """Return what is known of the servers that run; exit status 1 when none do."""
    state = running_stack(folder)
    if state is None or not state.ready:
        complain("No servers run; start them with `tessera servers up`.")
    known: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return known


@app.command()
def down() -> None:
    """End the servers, and the stack on them first; good as well when nothing ran. Their data stay."""
    folder = servers_folder()
    if recorded_stack(folder / STACK) is not None:
        end_stack(folder / STACK, show_event)
    console.print(ENDINGS[end_stack(folder, show_event)])


@app.command()
def status() -> None:
    """Show each server; exit status 1 when nothing runs or one is not healthy."""
    state = recorded_stack(servers_folder())
    if state is None or not state.alive():
        complain("No servers run. Start them with `tessera servers up`.")
    show_children(state)


@app.command()
def env() -> None:
    """Print export lines by which `tessera` uses the servers: eval "$(tessera servers env)"."""
    for name, value in addresses(servers_folder())["settings"].items():
        typer.echo(f"export {name}={shlex.quote(value)}")
