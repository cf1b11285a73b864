"""The commands `tessera jobs ...`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from eval.client import Json
from service.cli.connection import Access, KeyOption, TenantOption, UrlOption, tenant_client
from service.cli.terminal import JsonOption, err, moment, note, out, print_fields, print_json, run, table, text

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="A tenant's jobs: ingestion, removal, runs of sources.",
)
JobArgument = Annotated[str, typer.Argument(help="Id of the job.", show_default=False)]
_STYLES = {"done": "green", "failed": "red", "cancelled": "red", "running": "yellow", "retrying": "yellow"}
_MOST = 10_000
"""As many as the service queues again in one call."""
_WAITS = {
    "turn": "for its turn",
    "worker": "for a worker, in a moment",
    "pause": "before the next attempt",
    "slow_lane": "for other slow documents",
    "scheduler": "for the scheduler, which is not running",
    "workers": "for a worker; none is running",
    "model_workers": "for a worker that computes its tenant's embedding model; none is running",
}


@app.command("list")
def list_jobs(
    state: Annotated[
        str | None,
        typer.Option("--state", help="queued, running, retrying, done, failed or cancelled.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """List jobs, newest first: where each stands, or why it failed."""

    async def found() -> list[Json]:
        jobs: list[Json] = []
        async with tenant_client(Access(url, key, tenant)) as client:
            async for job in client.jobs(state=state):
                jobs.append(job)
                if len(jobs) > limit:
                    break
        return jobs

    shown = run(found())
    if as_json:
        print_json(shown[:limit])
        return
    rows = table("id", "kind", "state", "created")
    rows.add_column("how it stands", overflow="fold")
    for job in shown[:limit]:
        cells = [text(job["id"]), text(job["kind"]), text(job["state"], _STYLES.get(job["state"], ""))]
        rows.add_row(*cells, text(moment(job["created_at"])), text(standing(job)))
    out.print(rows if shown else "There are no such jobs.")
    if len(shown) > limit:
        note(f"There are more than {limit}: --limit shows them.")


@app.command("show")
def show_job(
    job: JobArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Show one job."""

    async def found() -> Json:
        async with tenant_client(Access(url, key, tenant)) as client:
            return await client.job(job)

    _print(run(found()), as_json)


@app.command("watch")
def watch_job(job: JobArgument, url: UrlOption = None, key: KeyOption = None, tenant: TenantOption = None) -> None:
    """Follow a job to its end with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn())

    async def follow() -> Json:
        seen: Json = {}
        with Progress(*columns, console=err, transient=True) as progress:
            bar = progress.add_task("waiting", total=1.0)
            async with tenant_client(Access(url, key, tenant)) as client:
                async for seen in client.job_events(job):
                    progress.update(bar, completed=seen["progress"], description=standing(seen))
        return seen

    ended = run(follow())
    out.print(text(f"{ended['state']}: {standing(ended)}", _STYLES.get(ended["state"], "")))
    if ended["state"] != "done":
        raise typer.Exit(1)


@app.command("cancel")
def cancel_jobs(
    jobs: Annotated[list[str], typer.Argument(help="Ids of jobs.", show_default=False)],
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Cancel jobs that wait or run."""

    async def cancel() -> None:
        async with tenant_client(Access(url, key, tenant)) as client:
            await asyncio.gather(*(client.cancel_job(job) for job in jobs))

    run(cancel())
    out.print(f"{len(jobs)} cancelled.")


@app.command("retry")
def retry_jobs(
    jobs: Annotated[
        list[str] | None, typer.Argument(help="Ids of jobs; without one, all that failed.", show_default=False)
    ] = None,
    code: Annotated[
        str | None, typer.Option("--code", help="Only those that failed with this code.", show_default=False)
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Try failed jobs again; documents that were deleted or replaced since are left out."""

    async def retry() -> int:
        async with tenant_client(Access(url, key, tenant)) as client:
            if jobs:
                return len(await asyncio.gather(*(client.retry_job(job) for job in jobs)))
            return await client.retry_jobs(code=code)

    again = run(retry())
    out.print(f"{again} queued again.")
    if not jobs and again == _MOST:
        note("There may be more: call this again when these are done.")


def standing(job: Json) -> str:
    """Say in a few words where a job stands: its place and what it waits for, its stage, its result or its error."""
    if job["state"] in ("queued", "retrying"):
        place = f"{job['position']}. in the queue, waits " if job["position"] else "waits "
        cause = f" ({job['error']['detail']})" if job["error"] else ""
        return f"{place}{_WAITS.get(job['waiting_for'], '')}{cause}"
    if job["state"] == "running":
        return f"{job['stage']} {job['progress']:.0%}"
    if job["error"]:
        return f"{job['error']['code']}: {job['error']['detail']}"
    return ", ".join(f"{name} {value}" for name, value in (job["result"] or {}).items() if isinstance(value, int | str))


def _print(job: Json, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    times = {name: moment(job[name]) for name in ("created_at", "started_at", "finished_at", "next_attempt_at")}
    print_fields(job | times)
