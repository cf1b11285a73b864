"""The commands `tessera source ...`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from eval.client import Json, TesseraClient
from eval.source_calls import SourceCalls
from service.cli.connection import Access, KeyOption, TenantOption, UrlOption, tenant_client
from service.cli.terminal import (
    JsonOption,
    err,
    fail,
    is_id,
    json_object,
    line,
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
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Where documents come from: web pages, sitemaps, feeds, Git, buckets, folders.",
)
SourceArgument = Annotated[str, typer.Argument(help="Name or id of the source.", show_default=False)]
_STYLES = {"done": "green", "active": "green", "failed": "red", "paused": "yellow", "vanished": "red"}
_PLACE = {"web": "url", "sitemap": "url", "feed": "url", "git": "url", "objects": "url", "folder": "path"}
_COUNTS = ("added", "changed", "unchanged", "vanished", "failed")


@app.command("add")
def add_source(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(_PLACE)}.", show_default=False)],
    name: Annotated[str, typer.Argument(help="What to call it; its documents name it so.", show_default=False)],
    place: Annotated[str, typer.Argument(help="Its address, or the path of a folder.", show_default=False)],
    cron: Annotated[
        str | None,
        typer.Option("--cron", help="When to read it, such as '0 6 * * *' [when asked].", show_default=False),
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="IANA time zone of --cron.")] = "UTC",
    config: Annotated[
        dict[str, Any] | None,
        typer.Option(
            "--config", parser=json_object, metavar="JSON", help="More of its kind, such as branch.", show_default=False
        ),
    ] = None,
    on_vanish: Annotated[
        str | None,
        typer.Option("--on-vanish", help="keep or delete what is there no more [feeds keep].", show_default=False),
    ] = None,
    misses: Annotated[
        int | None, typer.Option("--misses", help="Runs in which it must be missing.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Register a source."""
    if kind not in _PLACE:
        raise typer.BadParameter(f"must be one of {', '.join(_PLACE)}", param_hint="KIND")
    whole = {_PLACE[kind]: place} | (config or {})
    schedule = {"cron": cron, "timezone": timezone} if cron is not None else None

    async def add(sources: SourceCalls) -> Json:
        return await sources.register(kind, name, whole, schedule=schedule, on_vanish=on_vanish, misses=misses)

    made = run(_with_sources(Access(url, key, tenant), add))
    if as_json:
        print_json(made)
        return
    out.print(text(f"Registered {made['name']} ({made['id']})."))
    if made["next_run_at"]:
        note(f"It is read next at {moment(made['next_run_at'])}; now: tessera source run {made['name']}")
    else:
        note(f"Read it: tessera source run {made['name']}")


@app.command("list")
def list_sources(
    as_json: JsonOption = False, url: UrlOption = None, key: KeyOption = None, tenant: TenantOption = None
) -> None:
    """List the sources, newest first."""

    async def sources(calls: SourceCalls) -> list[Json]:
        return [source async for source in calls.all()]

    found = run(_with_sources(Access(url, key, tenant), sources))
    if as_json:
        print_json(found)
        return
    rows = table("name", "kind", "state", "last run", "outcome", "next run")
    for source in found:
        last = source["last_run"] or {"created_at": None, "state": None}
        rows.add_row(
            *(text(source[name]) for name in ("name", "kind")),
            _styled(source["state"]),
            text(moment(last["created_at"])),
            _styled(last["state"]),
            text(moment(source["next_run_at"])),
        )
    out.print(rows if found else "There are no sources yet: tessera source add KIND NAME PLACE")


@app.command("show")
def show_source(
    source: SourceArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Show one source with its last run."""
    found = run(_with_source(Access(url, key, tenant), source, _same))
    if as_json:
        print_json(found)
        return
    moments = {name: moment(found[name]) for name in ("next_run_at", "last_success_at", "created_at", "updated_at")}
    last = found["last_run"]
    print_fields(found | moments | {"last_run": _summary(last) if last else None})
    if last and last["error"]:
        note(f"{last['error']['detail']} ({last['error']['code']})")


@app.command("run")
def run_source(
    source: SourceArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has been read.")] = True,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Read a source now and show what it brought."""

    async def work(sources: SourceCalls, client: TesseraClient, found: Json) -> Json:
        job = await sources.begin(found["id"], "run")
        if not wait:
            return job
        with err.status(line(f"reading {found['name']}")):
            await client.wait_for_job(job["id"])
        return await _run_of(sources, found, job)

    ended = run(_with_source(Access(url, key, tenant), source, work))
    if as_json:
        print_json(ended)
    elif not wait:
        out.print(text(f"Job {ended['id']} reads it."))
        return
    else:
        out.print(text(_summary(ended)))
        for item in ended["errors"]:
            note(f"{item['key']}: {item['detail']} ({item['code']})")
    if wait:
        _check_done(ended, "The run did not finish.")


@app.command("preview")
def preview_source(
    source: SourceArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Show what a run would do, without doing it."""

    async def work(sources: SourceCalls, client: TesseraClient, found: Json) -> Json:
        job = await sources.begin(found["id"], "preview")
        with err.status(line(f"looking at {found['name']}")):
            return await client.wait_for_job(job["id"])

    job = run(_with_source(Access(url, key, tenant), source, work))
    _check_done(job, "The preview did not finish.")
    seen = job["result"]
    if as_json:
        print_json(seen)
        return
    rows = table("would be", "entry", "title")
    for entry in seen["entries"]:
        rows.add_row(_styled(entry["change"]), text(entry["url"] or entry["key"]), text(entry["title"]))
    if seen["entries"]:
        out.print(rows)
    out.print(text(_counts(seen)))
    if not seen["complete"]:
        note("These are the first entries; there are more.")


@app.command("history")
def list_runs(
    source: SourceArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """List the runs of a source, newest first."""

    async def work(sources: SourceCalls, _client: TesseraClient, found: Json) -> list[Json]:
        return [one async for one in sources.runs(found["id"])]

    runs = run(_with_source(Access(url, key, tenant), source, work))
    if as_json:
        print_json(runs)
        return
    rows = table("began", "cause", "state", *_COUNTS, "error")
    for one in runs:
        counts = [text(one[name]) for name in _COUNTS]
        error = one["error"]["code"] if one["error"] else ""
        rows.add_row(text(moment(one["created_at"])), text(one["cause"]), _styled(one["state"]), *counts, text(error))
    out.print(rows if runs else "It has not been read yet.")


@app.command("pause")
def pause_source(
    source: SourceArgument, url: UrlOption = None, key: KeyOption = None, tenant: TenantOption = None
) -> None:
    """Let the schedule of a source rest."""
    _set_state(Access(url, key, tenant), source, "pause")


@app.command("resume")
def resume_source(
    source: SourceArgument, url: UrlOption = None, key: KeyOption = None, tenant: TenantOption = None
) -> None:
    """Let the schedule of a source go on."""
    _set_state(Access(url, key, tenant), source, "resume")


@app.command("remove")
def remove_source(
    source: SourceArgument,
    documents: Annotated[str, typer.Option("--documents", help="keep or delete what came from it.")] = "keep",
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Remove a source; its documents stay unless told otherwise."""

    async def work(sources: SourceCalls, _client: TesseraClient, found: Json) -> Json:
        return await sources.remove(found["id"], documents=documents)

    removed = run(_with_source(Access(url, key, tenant), source, work))
    if as_json:
        print_json(removed)
    else:
        out.print(text(f"Removed; {removed['deleted_documents']} documents were deleted."))


def _set_state(access: Access, wanted: str, verb: str) -> None:
    async def work(sources: SourceCalls, _client: TesseraClient, found: Json) -> Json:
        return await sources.set_state(found["id"], verb)

    found = run(_with_source(access, wanted, work))
    following = f"; it is read next at {moment(found['next_run_at'])}" if found["next_run_at"] else ""
    out.print(text(f"{found['name']} is {found['state']}{following}."))


async def _with_sources(access: Access, work: Callable[[SourceCalls], Coroutine[Any, Any, Any]]) -> Any:
    async with tenant_client(access) as client:
        return await work(SourceCalls(client))


async def _with_source(
    access: Access, wanted: str, work: Callable[[SourceCalls, TesseraClient, Json], Coroutine[Any, Any, Any]]
) -> Any:
    async with tenant_client(access) as client:
        sources = SourceCalls(client)
        return await work(sources, client, await _find(sources, wanted))


async def _find(sources: SourceCalls, wanted: str) -> Json:
    """Return the source with this id or name; raise `NotFound` when there is none."""
    if is_id(wanted):
        return await sources.get(wanted)
    async for source in sources.all():
        if source["name"] == wanted:
            return source
    raise NotFound(f"There is no source {wanted!r}.")


async def _same(_sources: SourceCalls, _client: TesseraClient, found: Json) -> Json:
    return found


async def _run_of(sources: SourceCalls, found: Json, job: Json) -> Json:
    async for one in sources.runs(found["id"]):
        if one["job_id"] == job["id"]:
            return one
    raise NotFound("The run is not in the history any more.")


def _summary(one: Json) -> str:
    return f"{one['state']}: {_counts(one)}"


def _counts(one: Json) -> str:
    return ", ".join(f"{one[name]} {name}" for name in _COUNTS)


def _styled(state: str | None) -> Any:
    return text(state, _STYLES.get(state or "", ""))


def _check_done(ended: Json, otherwise: str) -> None:
    if ended["state"] != "done":
        error = ended["error"] or {"code": ended["state"], "detail": otherwise}
        fail(f"{error['detail']} ({error['code']})")
