"""The command `tessera`. Lists its commands without importing them, so that help answers at once."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from tenants.errors import TesseraError

COMMANDS = {
    "up": ("service.cli.stack:up", "Start the local stack, in the background unless told otherwise."),
    "down": ("service.cli.stack:down", "Drain the local stack and stop it."),
    "status": ("service.cli.stack:status", "Show what runs: state, process, port, memory."),
    "env": ("service.cli.stack:env", "Print the running stack's address and admin key for a shell."),
    "servers": ("service.cli.servers:app", "Fetch, start and end real servers here: what a cluster has."),
    "doctor": ("service.cli.doctor:doctor", "Say what is wrong here and how to mend it."),
    "db": ("service.cli.db:app", "Make the database and bring its schema up to date."),
    "milvus": ("service.cli.milvus:app", "Make the user of a Milvus server, with least privileges."),
    "demo": ("service.cli.demo:app", "Provision two demo tenants, ingest their documents, ask questions."),
    "tenant": ("service.cli.tenant:app", "Create, list, suspend, resume and delete tenants."),
    "key": ("service.cli.key:app", "Create, list and revoke a tenant's API keys."),
    "shards": ("service.cli.shards:app", "Show where a tenant's vectors lie, and how well they are found."),
    "fsck": ("service.cli.fsck:fsck", "Compare every store with Postgres, and mend what differs."),
    "upload": ("service.cli.upload:app", "Upload documents and wait until they can be found."),
    "jobs": ("service.cli.jobs:app", "List, watch, cancel and retry a tenant's jobs."),
    "documents": ("service.cli.documents:app", "List, download and delete documents."),
    "source": ("service.cli.source:app", "Keep documents in step with a site, feed, repository, bucket or folder."),
    "search": ("service.cli.search:app", "Find passages."),
    "ask": ("service.cli.ask:app", "Ask a question and stream the cited answer."),
    "eval": ("service.cli.eval:app", "Measure retrieval with your own documents and questions."),
}
"""Name: where it is (`module:attribute`, a function or a Typer), one line of help."""


class LazyCommands(TyperGroup):
    """A group that imports a command when it is called, and not for the list of commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command; None when there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command()(found)
            found = single
        command = get_command(found)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyCommands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def tessera() -> None:
    """Multi-tenant retrieval-augmented generation with cited answers."""


def main() -> None:
    """Run the command line; what a caller can be told becomes one sentence on standard error and exit status 1."""
    try:
        app()
    except TesseraError as error:
        typer.echo(f"tessera: {error.detail}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
