"""The commands `tessera milvus`: the user that the service is to a Milvus server."""

from __future__ import annotations

import typer

from service.cli.settings import MilvusInitSettings
from service.cli.terminal import note, run
from shards.milvus_user import ADMIN_SETTING, make_user
from tenants.errors import Misconfigured

app = typer.Typer(no_args_is_help=True, help="Make the user of a Milvus server.")


@app.callback()
def milvus() -> None:
    """Make the user of a Milvus server."""


@app.command()
def init() -> None:
    """Make the user that TESSERA_MILVUS_TOKEN names, with the privileges that are needed and no others.

    The administrator, `root:password` as a rule, is read from TESSERA_MILVUS_ADMIN_TOKEN. Nothing that exists is lost.
    """
    settings = MilvusInitSettings()
    if settings.milvus_admin_token is None:
        raise Misconfigured(
            f"Give the login of an administrator of the Milvus server, user:password, by {ADMIN_SETTING}."
        )
    if not settings.milvus.uri:
        raise Misconfigured("The setting TESSERA_MILVUS_URI is missing: it names the server.")
    done = run(make_user(settings.milvus, settings.milvus_admin_token.get_secret_value()))
    for sentence in done or ["all is there"]:
        note(sentence)
