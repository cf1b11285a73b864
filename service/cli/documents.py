"""The commands `tessera documents ...`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.text import Text

from eval.client import Json, TesseraClient
from service.cli.connection import Access, KeyOption, TenantOption, UrlOption, tenant_client
from service.cli.terminal import (
    FilterOption,
    JsonOption,
    is_id,
    line,
    moment,
    note,
    out,
    plain,
    print_fields,
    print_hanging,
    print_json,
    run,
    table,
    text,
)
from tenants.errors import Conflict, NotFound

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="A tenant's documents.")
DocumentArgument = Annotated[str, typer.Argument(help="Id or external id of the document.", show_default=False)]
_STYLES = {"active": "green", "failed": "red", "pending": "yellow"}


@app.command("list")
def list_documents(
    state: Annotated[str | None, typer.Option("--state", help="pending, active or failed.", show_default=False)] = None,
    filter: FilterOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")] = 100,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """List documents, newest first."""
    found = run(_list(Access(url, key, tenant), state, filter, limit + 1))
    shown = found[:limit]
    if as_json:
        print_json(shown)
    else:
        rows = table("id", "title", "external id", "state")
        for item in shown:
            cells = [text(item[name]) for name in ("id", "title", "external_id")]
            rows.add_row(*cells, text(item["state"], _STYLES.get(item["state"], "")))
        out.print(rows if shown else "There are no such documents.")
    if len(found) > limit:
        note(f"There are more than {limit}: --limit shows them.")


@app.command("get")
def get_document(
    document: DocumentArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Show one document."""

    async def get() -> Json:
        async with tenant_client(Access(url, key, tenant)) as client:
            return await find_document(client, document)

    found = run(get())
    if as_json:
        print_json(found)
    else:
        print_fields(found | {name: moment(found[name]) for name in ("created_at", "updated_at")})


@app.command("delete")
def delete_document(
    document: DocumentArgument,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone from every store.")] = True,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Delete a document for good.

    It is invisible at once, and then removed from every store.
    """

    async def delete() -> Json:
        async with tenant_client(Access(url, key, tenant)) as client:
            job = await client.delete_document((await find_document(client, document))["id"])
            return await client.wait_for_job(job["id"]) if wait else job

    job = run(delete())
    if as_json:
        print_json(job)
    elif job["state"] == "done":
        out.print("Deleted; nothing of it is left in any store.")
    elif not wait:
        out.print(text(f"Deleted. Job {job['id']} removes the last traces."))
    if job["state"] in ("failed", "cancelled"):
        note(f"It is invisible, but job {job['id']} has {job['state']}: {(job['error'] or {}).get('detail', '')}")
        raise typer.Exit(1)


@app.command("download")
def download_document(
    document: DocumentArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="File to write, - for standard output [the name of the upload].", show_default=False
        ),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Download the original, byte for byte."""
    written = run(_download(Access(url, key, tenant), document, output))
    if written is not None:
        note(f"Written to {written}.")


@app.command("chunks")
def list_chunks(
    document: DocumentArgument,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Show the passages into which a document was cut, in order."""

    async def chunks() -> list[Json]:
        async with tenant_client(Access(url, key, tenant)) as client:
            found = await find_document(client, document)
            return [chunk async for chunk in client.chunks(found["id"])]

    found = run(chunks())
    if as_json:
        print_json(found)
        return
    for chunk in found:
        page = [f"page {chunk['page']}"] if chunk["page"] is not None else []
        where = " · ".join([*page, f"characters {chunk['span'][0]} to {chunk['span'][1]}"])
        path = " > ".join(line(part) for part in chunk["headings"])
        shown = Text.assemble((path, "bold"), " · " if path else "", (where, "dim"))
        print_hanging(Text(f"{chunk['position']:>3}  ", "cyan"), shown)
        print_hanging(Text(" " * 5), Text(plain(chunk["text"])))
        out.print()
    if not found:
        out.print("It has no passages: no version of it is active.")


async def find_document(client: TesseraClient, wanted: str) -> Json:
    """Return the document with this id or this external id.

    Raises:
        NotFound: there is none.
    """
    if is_id(wanted):
        return await client.document(wanted)
    async for found in client.documents(filter={"external_id": {"eq": wanted}}, page=1):
        return found
    raise NotFound(f"There is no document with the id or external id {wanted!r}.")


async def _list(access: Access, state: str | None, filter: dict[str, Any] | None, wanted: int) -> list[Json]:
    found: list[Json] = []
    async with tenant_client(access) as client:
        async for document in client.documents(state=state, filter=filter, page=min(wanted, 100)):
            found.append(document)
            if len(found) == wanted:
                break
    return found


async def _download(access: Access, document: str, output: Path | None) -> Path | None:
    async with tenant_client(access) as client:
        found = await find_document(client, document)
        async with client.download(found["id"]) as original:
            if output == Path("-"):
                async for block in original.blocks:
                    await asyncio.to_thread(sys.stdout.buffer.write, block)
                return None
            target = output or Path(original.filename)
            if output is None and await asyncio.to_thread(target.exists):
                raise Conflict(f"{target} exists here; name a file with -o.", code="file_exists")
            # Under another name until it is whole: a broken connection leaves no half of a file that looks whole.
            part = target.with_name(target.name + ".part")
            file: BinaryIO = await asyncio.to_thread(part.open, "wb")
            try:
                async for block in original.blocks:
                    await asyncio.to_thread(file.write, block)
            finally:
                await asyncio.to_thread(file.close)
            await asyncio.to_thread(part.rename, target)
            return target
