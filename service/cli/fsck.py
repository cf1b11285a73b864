"""The command `tessera fsck`."""

from __future__ import annotations

from typing import Annotated

import typer

from eval.client import Json, TesseraClient
from service.cli.connection import AdminKeyOption, UrlOption, admin_client
from service.cli.tenant import find_tenant, require_done
from service.cli.terminal import JsonOption, err, fail, out, print_json, run, table, text

_PATIENCE_S = 3 * 3600.0


def fsck(
    tenants: Annotated[list[str] | None, typer.Argument(help="Slugs or ids of tenants.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every tenant, and what belongs to none.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what differs.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read the originals and compare their checksums.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Compare Postgres, originals, vectors and lexical index; the status is 1 when something differs and stays so, or
    could not be looked at.

    It may run while the tenants are in use: an upload or a delete under way is no difference.
    """
    if bool(tenants) == everything:
        fail("Name tenants, or give --all.")

    async def check(client: TesseraClient, tenant_id: str | None) -> Json:
        job = await client.fsck(tenant_id, repair=repair, deep=deep)
        with err.status("comparing"):
            return await client.wait_for_job(job["id"], patience_s=_PATIENCE_S)

    async def checked() -> list[tuple[str, Json]]:
        async with admin_client(url, admin_key) as client:
            if everything:
                return [("installation", await check(client, None))]
            found = [await find_tenant(client, wanted) for wanted in tenants or []]
            return [(tenant["slug"], await check(client, tenant["id"])) for tenant in found]

    jobs = run(checked())
    for _, job in jobs:
        require_done(job)
    if as_json:
        print_json({name: job["result"] for name, job in jobs})
    else:
        for name, job in jobs:
            _show(name, job["result"])
    if any(job["result"]["left_total"] or job["result"]["not_checked"] for _, job in jobs):
        raise typer.Exit(1)


def _show(name: str, report: Json) -> None:
    compared = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in report["checked"].items())
    out.print(text(f"{name}: {report['total']:,} differences ({compared}; {report['seconds']:.1f} s)"))
    for skipped in report["not_checked"]:
        out.print(text(f"  not checked: {skipped['what']} ({skipped['why']})"))
    if not report["total"]:
        return
    rows = table("store", "class", "found", "left")
    for store, classes in report["differences"].items():
        for kind, count in classes.items():
            rows.add_row(text(store), text(kind), text(count), text(report["left"].get(store, {}).get(kind, 0)))
    out.print(rows)
    for example in report["examples"]:
        why = f" ({example['why']})" if "why" in example else ""
        out.print(text(f"  {example['store']} {example['class']}: {example['what']}{why}"))
