"""The commands `tessera db`: the roles, the database and its schema."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from migrations.head import HEAD
from migrations.run import upgrade as run_upgrade
from migrations.runner import STATEMENT_TIMEOUT_S, Run
from migrations.state import schema_state
from service.cli.settings import InitSettings
from service.cli.terminal import fail, note
from service.database import SUPERUSER_SETTING, initialise
from service.settings import Settings
from tenants.errors import Misconfigured

app = typer.Typer(no_args_is_help=True, help="Make the database and bring its schema up to date.")


@app.command()
def init(
    database: Annotated[str, typer.Option(help="Name of the database; by default that in the settings.")] = "",
    superuser_url_file: Annotated[
        str,
        typer.Option(metavar="FILE", help=f"File with the address, - for standard input. Else {SUPERUSER_SETTING}."),
    ] = "",
) -> None:
    """Make the three roles and the database; nothing that exists is lost. Needs a role that may create both."""
    settings = InitSettings()
    address = _superuser_url(superuser_url_file, settings)
    made = initialise(address, settings.database, database)
    for sentence in made.done:
        note(sentence)
    if made.exports:
        note("new passwords, shown this once; keep them where the service finds its settings:")
    for name, value in made.exports.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    note("next: tessera db upgrade")


@app.command()
def upgrade(
    statement_timeout: Annotated[
        int, typer.Option(min=1, metavar="SECONDS", help="Longest time of one statement.")
    ] = STATEMENT_TIMEOUT_S,
) -> None:
    """Bring the schema to the newest version, one migration after the other; what is done stays done."""
    url = _owner_url(Settings())
    done = run_upgrade(
        Run(
            url,
            applied=lambda step: typer.echo(f"{step.revision}  {step.title}"),
            waits=note,
            statement_timeout_s=statement_timeout,
        )
    )
    typer.echo(
        f"{len(done)} migrations done; the schema is at {HEAD}." if done else f"The schema is at {HEAD} already."
    )


@app.command()
def status() -> None:
    """Say which version the schema has and what is pending; exit status 1 if something is."""
    found = schema_state(_owner_url(Settings()))
    typer.echo(f"schema   {found.revision or 'none'}\nrelease  {HEAD}")
    for step in found.pending:
        typer.echo(f"pending  {step.revision}  {step.title}")
    if found.newer:
        typer.echo("The schema is newer than this release.")
    if found.pending:
        fail(f"{len(found.pending)} migrations are pending: run `tessera db upgrade`.")


def _owner_url(settings: Settings) -> str:
    if not settings.database.owner_url:
        raise Misconfigured("The setting TESSERA_DATABASE_OWNER_URL is missing; `tessera db init` makes it.")
    return settings.database.owner_url


def _superuser_url(file: str, settings: InitSettings) -> str:
    """Find the address where no other account can read it; never among the arguments."""
    if file == "-":
        return sys.stdin.readline().strip()
    if file:
        return Path(file).read_text(encoding="utf-8").strip()
    if settings.superuser_url is not None:
        return settings.superuser_url.get_secret_value()
    if not sys.stdin.isatty():
        raise Misconfigured(f"Give the address of a superuser by {SUPERUSER_SETTING} or --superuser-url-file.")
    address: str = typer.prompt("Address of a superuser (postgresql://...)", hide_input=True)
    return address
