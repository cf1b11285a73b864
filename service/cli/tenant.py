"""The commands `tessera tenant ...`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from eval.client import Json, TesseraClient
from service.cli.connection import AdminKeyOption, UrlOption, admin_client
from service.cli.terminal import (
    JsonOption,
    err,
    fail,
    is_id,
    moment,
    note,
    out,
    print_fields,
    print_json,
    run,
    table,
    text,
)
from tenants.errors import NotFound

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="The tenants of the installation."
)
TenantArgument = Annotated[str, typer.Argument(help="Slug or id of the tenant.", show_default=False)]
TierOption = Annotated[
    str | None,
    typer.Option("--tier", help="auto, pooled, dedicated or isolated [auto: by its size].", show_default=False),
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", help="With isolated: another Milvus server.", show_default=False)
]
_STYLES = {"active": "green", "suspended": "yellow", "deleting": "red"}


@app.command("create")
def create_tenant(
    slug: Annotated[str, typer.Argument(help="Short name: lower case, digits, hyphens.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Full name.", show_default=False)],
    plan: Annotated[str | None, typer.Option("--plan", help="Plan [standard].", show_default=False)] = None,
    bm25_weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of BM25 in the fusion [the installation's].", show_default=False),
    ] = None,
    tier: TierOption = None,
    endpoint: EndpointOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Create a tenant; the same again gives the same tenant."""

    async def create() -> tuple[Json, bool]:
        async with admin_client(url, admin_key) as client:
            settings = {"bm25_weight": bm25_weight} if bm25_weight is not None else None
            where = {"tier": tier or "isolated", "endpoint": endpoint or ""}  # another server is for isolated tenants
            placement = where if tier or endpoint else None
            return await client.create_tenant(slug, name, plan=plan, settings=settings, placement=placement)

    tenant, created = run(create())
    if as_json:
        print_json(tenant)
        return
    out.print(text(f"{'Created' if created else 'It existed already:'} {tenant['slug']} ({tenant['id']})"))
    note(f"A key for it: tessera key create {tenant['slug']} --name NAME")


@app.command("list")
def list_tenants(as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None) -> None:
    """List the tenants, newest first."""

    async def tenants() -> list[Json]:
        async with admin_client(url, admin_key) as client:
            return [tenant async for tenant in client.tenants()]

    found = run(tenants())
    if as_json:
        print_json(found)
        return
    rows = table("id", "slug", "name", "state")
    for tenant in found:
        state = text(tenant["state"], _STYLES.get(tenant["state"], ""))
        rows.add_row(text(tenant["id"]), text(tenant["slug"]), text(tenant["name"]), state)
    out.print(rows if found else "There are no tenants yet: tessera tenant create SLUG --name NAME")


@app.command("get")
def get_tenant(
    tenant: TenantArgument, as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None
) -> None:
    """Show one tenant."""
    _show(run(_with_tenant(url, admin_key, tenant, _same)), as_json)


@app.command("set")
def set_tenant(
    tenant: TenantArgument,
    name: Annotated[str | None, typer.Option("--name", help="Full name.", show_default=False)] = None,
    keep_versions: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Versions of a document that can be downloaded.", show_default=False),
    ] = None,
    max_age_days: Annotated[
        int | None,
        typer.Option(min=0, help="Delete what was not updated for so many days; 0 never.", show_default=False),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model that its chats may name; the first given is its default.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Change a tenant: its name, its models, how many versions are kept, how old documents may grow."""

    async def change(client: TesseraClient, found: Json) -> Json:
        settings = found["settings"]
        retention = dict(settings.get("retention") or {})
        retention |= {"keep_versions": keep_versions} if keep_versions is not None else {}
        retention |= {"max_age_days": max_age_days or None} if max_age_days is not None else {}
        changes = {"name": name} if name is not None else {}
        asked: Json = {"retention": retention} if keep_versions is not None or max_age_days is not None else {}
        asked |= {"generation_models": model} if model else {}
        if asked:
            changes["settings"] = settings | asked
        return await client.change_tenant(found["id"], **changes)

    if name is None and keep_versions is None and max_age_days is None and not model:
        fail("Say what to change: --name, --model, --keep-versions or --max-age-days.")
    _show(run(_with_tenant(url, admin_key, tenant, change)), as_json)


@app.command("suspend")
def suspend_tenant(
    tenant: TenantArgument, as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None
) -> None:
    """Suspend a tenant: its keys are refused, nothing is lost."""
    _show(run(_with_tenant(url, admin_key, tenant, lambda client, found: client.suspend_tenant(found["id"]))), as_json)


@app.command("resume")
def resume_tenant(
    tenant: TenantArgument, as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None
) -> None:
    """Resume a suspended tenant."""
    _show(run(_with_tenant(url, admin_key, tenant, lambda client, found: client.resume_tenant(found["id"]))), as_json)


@app.command("delete")
def delete_tenant(
    tenant: TenantArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Delete a tenant and print the receipt.

    Everything it has is removed from every store; the receipt counts what.
    """
    found = run(_with_tenant(url, admin_key, tenant, _same))
    if not yes:
        question = f"Delete {found['slug']} ({found['name']}) with all its documents? This cannot be undone."
        typer.confirm(text(question).plain, abort=True, err=True)

    async def delete(client: TesseraClient, target: Json) -> Json:
        job = await client.delete_tenant(target["id"])
        with err.status("removing every trace"):
            return await client.wait_for_job(job["id"])

    job = run(_with_tenant(url, admin_key, found["id"], delete))
    if as_json:
        print_json(job)
    require_done(job)
    if not as_json:
        show_receipt(found["slug"], job["result"])


def require_done(job: Json) -> None:
    """End the program with the job's error unless it is done."""
    if job["state"] != "done":
        error = job["error"] or {"code": job["state"], "detail": "The job did not finish."}
        fail(f"{error['detail']} ({error['code']}, job {job['id']})")


def show_receipt(slug: str, receipt: Json) -> None:
    """Print what was removed, by store."""
    rows = table("removed", "count")
    rows.columns[1].justify = "right"
    for store, count in receipt.items():
        if isinstance(count, dict):
            for name, number in count.items():
                rows.add_row(text(f"{store}: {name}"), text(number))
        elif isinstance(count, int):
            rows.add_row(text(store.replace("_", " ")), text(count))
    out.print(text(f"Deleted {slug}. Receipt:"))
    out.print(rows)


async def find_tenant(client: TesseraClient, wanted: str) -> Json:
    """Return the tenant with this id or slug.

    Raises:
        NotFound: there is none.
    """
    if is_id(wanted):
        return await client.tenant(wanted)
    async for tenant in client.tenants():
        if tenant["slug"] == wanted:
            return tenant
    raise NotFound(f"There is no tenant {wanted!r}.")


async def _with_tenant(
    url: str | None,
    admin_key: str | None,
    wanted: str,
    work: Callable[[TesseraClient, Json], Coroutine[Any, Any, Json]],
) -> Json:
    async with admin_client(url, admin_key) as client:
        return await work(client, await find_tenant(client, wanted))


async def _same(_client: TesseraClient, tenant: Json) -> Json:
    return tenant


def _show(tenant: Json, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        print_fields(tenant | {name: moment(tenant[name]) for name in ("created_at", "updated_at")})
