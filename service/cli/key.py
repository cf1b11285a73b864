"""The commands `tessera key ...`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from eval.client import Json
from service.cli.connection import AdminKeyOption, UrlOption, admin_client
from service.cli.tenant import TenantArgument, find_tenant
from service.cli.terminal import JsonOption, moment, note, out, print_json, run, table, text

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="The API keys of a tenant.")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(raw: str) -> timedelta:
    """Read `90m`, `12h`, `30d` or `8w`.

    Raises:
        typer.BadParameter: it is nothing of the kind.
    """
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", raw.strip())
    if found is None:
        raise typer.BadParameter("must be a number with m, h, d or w: 90m, 12h, 30d, 8w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@app.command("create")
def create_key(
    tenant: TenantArgument,
    name: Annotated[str, typer.Option("--name", help="What it is for.", show_default=False)],
    expires_in: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="30d", help="When it ends [never].", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Create a key and print it once.

    A tenant has at most two active keys.
    """

    async def create() -> Json:
        async with admin_client(url, admin_key) as client:
            expires_at = (datetime.now(UTC) + expires_in).isoformat() if expires_in else None
            return await client.create_key((await find_tenant(client, tenant))["id"], name, expires_at=expires_at)

    made = run(create())
    if as_json:
        print_json(made)
        return
    # The key alone on standard output, so that `TESSERA_KEY=$(tessera key create ...)` works.
    typer.echo(made["key"])
    ends = f" It ends {moment(made['expires_at'])}." if made["expires_at"] else ""
    note(f"This is the only time that the key is shown; the service keeps no copy of it.{ends}")


@app.command("list")
def list_keys(
    tenant: TenantArgument, as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None
) -> None:
    """List a tenant's keys, newest first, without their secrets."""

    async def keys() -> list[Json]:
        async with admin_client(url, admin_key) as client:
            found = await find_tenant(client, tenant)
            return [key async for key in client.keys(found["id"])]

    found = run(keys())
    if as_json:
        print_json(found)
        return
    rows = table("key id", "name", "state", "ends", "last used")
    for key in found:
        cells = (text(key["id"]), text(key["name"]), text(_state(key)))
        rows.add_row(*cells, moment(key["expires_at"]), moment(key["last_used_at"]))
    out.print(rows if found else "It has no keys.")


@app.command("revoke")
def revoke_key(
    tenant: TenantArgument,
    key_id: Annotated[str, typer.Argument(help="Id of the key, from `tessera key list`.", show_default=False)],
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Revoke a key: it is refused from now on."""

    async def revoke() -> None:
        async with admin_client(url, admin_key) as client:
            await client.revoke_key((await find_tenant(client, tenant))["id"], key_id)

    run(revoke())
    out.print(text(f"Revoked {key_id}."))


def is_active(key: Json) -> bool:
    """Whether a key of a list is neither revoked nor expired."""
    expires_at = key["expires_at"]
    ended = expires_at is not None and datetime.fromisoformat(expires_at) <= datetime.now(UTC)
    return key["revoked_at"] is None and not ended


def _state(key: Json) -> str:
    if key["revoked_at"] is not None:
        return "revoked"
    return "active" if is_active(key) else "ended"
