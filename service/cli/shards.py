"""The commands `tessera shards ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eval.client import Json
from service.cli.connection import AdminKeyOption, UrlOption, admin_client
from service.cli.reembed import COMMANDS
from service.cli.shard_picture import draw
from service.cli.tenant import EndpointOption, TenantArgument, find_tenant, require_done
from service.cli.terminal import JsonOption, err, fail, moment, out, print_fields, print_json, run, table, text

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    help="Where tenants' vectors lie, and how well.",
)
for name, command in COMMANDS.items():
    app.command(name)(command)
_SHOWN = 20


@app.callback()
def shards(
    context: typer.Context, as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None
) -> None:
    """Where tenants' vectors lie, and how well they are found. Alone: room in the engines, tenants by tier."""
    if context.invoked_subcommand is not None:
        return

    async def found() -> Json:
        async with admin_client(url, admin_key) as client:
            return await client.all_shards()

    shown = run(found())
    if as_json:
        print_json(shown)
        return
    print_overview(shown)


@app.command("place")
def place_tenant(
    tenant: TenantArgument,
    tier: Annotated[str, typer.Argument(help="auto, pooled, dedicated or isolated.", show_default=False)],
    endpoint: EndpointOption = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Move the index of a tenant to another tier, or let its size decide (auto), while it is in use."""
    _upkeep(tenant, url, admin_key, "placement", tier=tier, endpoint=endpoint or "")


@app.command("retrain")
def retrain_tenant(
    tenant: TenantArgument,
    cells: Annotated[int | None, typer.Option(help="So many cells [by its size].", show_default=False)] = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Train the cells of a tenant anew, beside the live ones."""
    _upkeep(tenant, url, admin_key, "reindex", cells=cells)


@app.command("calibrate")
def calibrate_tenant(tenant: TenantArgument, url: UrlOption = None, admin_key: AdminKeyOption = None) -> None:
    """Calibrate the recall of a tenant anew."""
    _upkeep(tenant, url, admin_key, "calibrate")


def _upkeep(tenant: str, url: str | None, admin_key: str | None, what: str, **body: object) -> None:
    async def done() -> Json:
        async with admin_client(url, admin_key) as client:
            job = await client.ask_upkeep((await find_tenant(client, tenant))["id"], what, **body)
            with err.status("working on the index"):
                return await client.wait_for_job(job["id"])

    job = run(done())
    require_done(job)
    print_fields(job["result"])


def print_overview(shown: Json) -> None:
    """Print the room on each server, the tenants by tier, and those that take most."""
    servers = table("server", "partitions", "budget", "databases")
    for server in shown["servers"]:
        numbers = (f"{server[name]:,}" for name in ("partitions", "budget", "databases"))
        servers.add_row(text(server["endpoint"] or "main"), *numbers)
    out.print(servers)
    tiers = table("tier", "tenants", "chunks", "cells", "released")
    for tier in shown["tiers"]:
        tiers.add_row(tier["tier"], *(f"{tier[name]:,}" for name in ("tenants", "rows", "cells", "released")))
    out.print(tiers if shown["tiers"] else "No tenant has a document yet.")
    if not shown["largest"]:
        return
    largest = table("tenant", "tier", "chunks", "cells", "searches", "last used")
    for one in shown["largest"][:_SHOWN]:
        where = one["tier"] + (f" on {one['endpoint']}" if one["endpoint"] else "")
        used = moment(one["used_at"]) if one["used_at"] else "never"
        counts = (f"{one[name]:,}" for name in ("rows", "cells", "searches"))
        largest.add_row(text(one["slug"]), text(where), *counts, used + (" (released)" if one["released_at"] else ""))
    out.print(largest)


@app.command("show")
def show_shards(
    tenant: TenantArgument, as_json: JsonOption = False, url: UrlOption = None, admin_key: AdminKeyOption = None
) -> None:
    """Show the index of a tenant: cells, heat, recall promised and measured, changes under way."""

    async def found() -> Json:
        async with admin_client(url, admin_key) as client:
            return await client.shards((await find_tenant(client, tenant))["id"])

    shown = run(found())
    if as_json:
        print_json(shown)
        return
    print_fields(summary(shown))
    if len(shown["cells"]) > 1:
        _print_cells(shown["cells"])
    if shown["changes"]:
        rows = table("change", "state", "cells", "became", "at")
        for change in shown["changes"]:
            before, after = (", ".join(map(str, change[name])) for name in ("parents", "children"))
            rows.add_row(change["kind"], change["state"], before, after, moment(change["changed_at"]))
        out.print(rows)


@app.command("plot")
def plot_shards(
    tenant: TenantArgument,
    to: Annotated[Path, typer.Option("--out", help="File to write: .png, .svg or .pdf [TENANT.png].")] = Path(),
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Draw the index of a tenant: its cells on a plane (area rows, colour heat), and its recall over rows visited."""

    async def found() -> tuple[str, Json]:
        async with admin_client(url, admin_key) as client:
            target = await find_tenant(client, tenant)
            return target["slug"], await client.shards(target["id"])

    slug, shown = run(found())
    if shown["generation"] is None:
        fail(f"{slug} has no document yet: there is nothing to draw.")
    path = to if to.name else Path(f"{slug}.png")
    if path.suffix not in (".png", ".svg", ".pdf"):
        fail(f"{path}: the name must end in .png, .svg or .pdf.")
    draw(slug, shown, path)
    out.print(text(f"Drawn: {path}"))


def summary(shown: Json) -> Json:
    """Return the lines above the tables."""
    if shown["generation"] is None:
        return {"generation": "none: no document has been ingested yet"}
    known, seen = shown["calibration"], shown["recall"]
    fields: Json = {
        "generation": f"{shown['generation']}, {shown['tier']} ({shown['collection']})",
        "embedded by": _recipe(shown),
        "rows": f"{shown['rows']:,} in {len(shown['cells']):,} cell{'s' if len(shown['cells']) != 1 else ''}",
        "searches": f"{shown['searches']:,}; last used {moment(shown['used_at'])}" if shown["used_at"] else "none yet",
    }
    if shown["next"]:
        fields["moving to"] = _recipe(shown["next"])
    if shown["released_at"]:
        fields["memory"] = f"released {moment(shown['released_at'])}: the next question loads it"
    if shown["woke_ms"] is not None:
        fields["last load"] = f"{shown['woke_ms']:.0f} ms"
    if known is None:
        return fields | {"search": "exact: so few rows are all compared"}
    fields["promised"] = (
        f"recall {known['recall']:.3f} for {known['rows_share']:.1%} of the rows (target {known['target']:g}),"
        f" from {known['questions']} {known['source']}"
    )
    if shown["drift"] and shown["drift"]["scatter"] is not None:
        scatter, anew = shown["drift"]["retrain_at"]
        fields["drift"] = (
            f"rows lie {shown['drift']['scatter']:.2f} times as far from their micro-cells as after the training"
            f" (trained anew past {scatter:g}), {shown['drift']['made_anew']:.0%} made anew (past {anew:.0%})"
        )
    fields["measured"] = "nothing yet: a share of the questions is sampled"
    if seen is not None:
        fields["measured"] = (
            f"recall {seen['recall']:.3f} ({seen['low']:.3f} to {seen['high']:.3f}) for {seen['rows_share']:.1%} of the"
            f" rows, {seen['samples']} sampled questions"
        )
    return fields


def _recipe(shown: Json) -> str:
    tokens = shown["chunk_tokens"]
    return f"{shown['embedding_model']}" + (f", chunks of at most {tokens:,} tokens" if tokens else "")


def _print_cells(cells: list[Json]) -> None:
    rows = table("cell", "micro-cells", "rows", "heat")
    for column in rows.columns:
        column.justify = "right"
    hottest = sorted(cells, key=lambda cell: (-cell["heat"], -cell["rows"]))
    for cell in hottest[:_SHOWN]:
        rows.add_row(*(f"{cell[name]:,}" for name in ("cell", "micro_cells", "rows")), f"{cell['heat']:,.1f}")
    out.print(rows)
    if len(cells) > _SHOWN:
        out.print(text(f"and {len(cells) - _SHOWN} cooler cells (--json shows all)"))
