"""The command `tessera upload`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from eval.bulk import NewDocument, in_requests
from eval.client import ApiProblem, Json, TesseraClient, Uploaded
from eval.job_wait import ENDED
from service.cli.connection import Access, KeyOption, TenantOption, UrlOption, tenant_client
from service.cli.terminal import WIDEST, JsonOption, err, json_object, note, out, print_json, run, table, text
from tenants.errors import InvalidRequest, TesseraError

app = typer.Typer(add_completion=False, rich_markup_mode=None)
AT_ONCE = 4
SHOWN_FAILURES = 20
_REFUSED_ALTOGETHER = (401, 403)
_NOT_NOW = 429
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One file on its way. `code` and `detail` say why it failed; `state` is its job's, `unchanged` or `refused`."""

    path: Path
    external_id: str | None
    title: str | None = None
    metadata: dict[str, Any] | None = None
    document_id: str | None = None
    job_id: str | None = None
    state: str = "waiting"
    code: str | None = None
    detail: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it will never be found as it is."""
        return self.state in ("refused", "failed", "cancelled")


@app.command()
def upload(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders with --recursive.", show_default=False)],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Take the files of folders, at any depth.")
    ] = False,
    external_id: Annotated[
        str | None,
        typer.Option(help="Your own id of one file [in a folder: the path below it].", show_default=False),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of one file.", show_default=False)] = None,
    metadata: Annotated[
        dict[str, Any] | None,
        typer.Option(parser=json_object, metavar="JSON", help="Metadata of all the files.", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until they can be found.")] = True,
    as_json: JsonOption = False,
    url: UrlOption = None,
    key: KeyOption = None,
    tenant: TenantOption = None,
) -> None:
    """Upload documents and wait until they can be found.

    What is there already with the same content stays; a new content under the same external id replaces the old one.
    """
    items = run(_plan(paths, recursive, external_id, title, metadata))
    done = run(_upload(Access(url, key, tenant), items, wait, quiet=as_json))
    report(done, as_json)
    if any(item.failed for item in done):
        raise typer.Exit(1)


def report(items: Sequence[Item], as_json: bool) -> None:
    """Print how it ended, the failed ones with the reason."""
    if as_json:
        print_json([_as_json(item) for item in items])
        return
    failed = [item for item in items if item.failed]
    counts = Counter("failed" if item.failed else item.state for item in items)
    words = {"done": "ready", "unchanged": "unchanged", "queued": "queued", "failed": "failed"}
    parts = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    out.print(f"{len(items)} document{'s' if len(items) != 1 else ''}: {', '.join(parts)}.")
    if failed:
        out.print(_failures(failed[:SHOWN_FAILURES]))
    if len(failed) > SHOWN_FAILURES:
        note(f"{len(failed) - SHOWN_FAILURES} more have failed: --json shows all.")


def _failures(failed: Sequence[Item]) -> Table:
    rows = table("code")
    rows.columns[0].min_width = max(len(item.code or "") for item in failed)
    rows.add_column("failed", overflow="fold", max_width=min(out.width, WIDEST) // 3)
    rows.add_column("why", overflow="fold")
    for item in failed:
        rows.add_row(text(item.code), text(item.external_id or item.path), text(item.detail))
    return rows


async def send_all(
    client: TesseraClient, items: Sequence[Item], progress: Progress, *, label: str = "", wait: bool = True
) -> list[Item]:
    """Upload, a few at a time, and wait for the jobs; a file that is refused does not stop the others.

    Raises:
        ApiProblem: the key is refused.
    """
    task = progress.add_task("uploading", total=len(items), label=label)
    turn = asyncio.Semaphore(AT_ONCE)

    async def send(group: list[Item]) -> list[Item]:
        async with turn:
            sent = await (_send_one(client, group[0]) if len(group) == 1 else _send_many(client, group))
            progress.advance(task, len(group))
            return sent

    groups = in_requests(items, lambda item: _size(item.path))
    sent = [item for group in await _gather([send(group) for group in groups]) for item in group]
    waited = [item.job_id for item in sent if item.state == "queued" and item.job_id is not None]
    if not wait or not waited:
        return sent
    progress.reset(task, total=len(waited), description="queued")
    states: dict[str, str] = {}

    def changed(job: Json) -> None:
        states[job["id"]] = job["state"]
        ended = sum(state in ENDED for state in states.values())
        progress.update(task, completed=ended, description=_in_words(Counter(states.values())))

    jobs = {job["id"]: job for job in await client.wait_for_jobs(waited, on_change=changed)}
    return [_ended(item, jobs[item.job_id]) if item.job_id in jobs else item for item in sent]


def progress_bar(*, disable: bool = False) -> Progress:
    """Return a bar on standard error that goes away when it is done."""
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    label, bar = TextColumn("{task.fields[label]}"), BarColumn(bar_width=24)
    return Progress(label, bar, *columns, console=err, transient=True, disable=disable)


async def _upload(access: Access, items: Sequence[Item], wait: bool, *, quiet: bool) -> list[Item]:
    async with tenant_client(access) as client:
        with progress_bar(disable=quiet) as progress:
            return await send_all(client, items, progress, wait=wait)


async def _send_one(client: TesseraClient, item: Item) -> list[Item]:
    """Upload one file, streamed from the disk."""
    try:
        uploaded = await _admitted(
            lambda: client.upload(item.path, external_id=item.external_id, title=item.title, metadata=item.metadata)
        )
    except (OSError, TesseraError) as error:
        return [_refused(item, error)]
    return [_uploaded(item, uploaded)]


async def _send_many(client: TesseraClient, group: Sequence[Item]) -> list[Item]:
    """Upload small files in one request."""
    read = await asyncio.to_thread(_read, group)
    documents = [document for document in read if isinstance(document, NewDocument)]
    try:
        outcomes: list[Any] = await _admitted(lambda: client.upload_many(documents)) if documents else []
    except TesseraError as error:
        outcomes = [error] * len(documents)
    answered = iter(outcomes)
    sent = []
    for item, document in zip(group, read, strict=True):
        outcome = document if isinstance(document, OSError) else next(answered)
        sent.append(_uploaded(item, outcome) if isinstance(outcome, Uploaded) else _refused(item, outcome))
    return sent


async def _admitted(send: Callable[[], Awaitable[T]]) -> T:
    """Send, and send again when the service says that it takes no more now, as soon as it says to come back."""
    while True:
        try:
            return await send()
        except ApiProblem as error:
            if error.status != _NOT_NOW:
                raise
            await asyncio.sleep(error.retry_after_s or 1.0)


def _read(group: Sequence[Item]) -> list[NewDocument | OSError]:
    read: list[NewDocument | OSError] = []
    for item in group:
        try:
            content = item.path.read_bytes()
        except OSError as error:
            read.append(error)
        else:
            read.append(NewDocument(item.path.name, content, item.external_id, item.title, item.metadata))
    return read


def _size(path: Path) -> int:
    """Return the bytes of a file; of one that cannot be looked at, 0: reading it will say why."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _refused(item: Item, error: OSError | TesseraError) -> Item:
    if isinstance(error, OSError):
        return replace(item, state="refused", code="unreadable", detail=f"{error.strerror or error}.")
    if isinstance(error, ApiProblem) and error.status in _REFUSED_ALTOGETHER:
        raise error
    return replace(item, state="refused", code=error.code, detail=error.detail)


def _uploaded(item: Item, answer: Uploaded) -> Item:
    job = answer.job
    # The same content again: nothing was queued, unless the first upload of it is still on its way.
    on_its_way = job is not None and (answer.new or (job["kind"] == "ingest" and job["state"] not in ENDED))
    return replace(
        item,
        document_id=answer.document["id"],
        job_id=job["id"] if job else None,
        state="queued" if on_its_way else "unchanged",
    )


async def _gather(work: list[Any]) -> list[list[Item]]:
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _plan(
    paths: Sequence[Path],
    recursive: bool,
    external_id: str | None,
    title: str | None,
    metadata: dict[str, Any] | None,
) -> list[Item]:
    items = [item for path in paths for item in await asyncio.to_thread(items_of, path, recursive)]
    if (external_id or title) and len(items) != 1:
        raise InvalidRequest("--external-id and --title are for one file.", code="one_file_only")
    known: dict[str, Path] = {}
    for item in items:
        if item.external_id is not None and item.external_id in known:
            both = f"{known[item.external_id]} and {item.path}"
            raise InvalidRequest(f"{both} would be one document, {item.external_id!r}.", code="external_id_twice")
        known[item.external_id or ""] = item.path
    if not items:
        raise InvalidRequest("There is no file to upload.", code="no_files")
    return [
        replace(item, external_id=external_id or item.external_id, title=title, metadata=metadata) for item in items
    ]


def items_of(path: Path, recursive: bool) -> list[Item]:
    """Return the files of an argument; in a folder all but hidden ones, named by their path below it.

    Raises:
        InvalidRequest: there is no such file, or it is a folder and `recursive` is not set.
    """
    if path.is_file():
        return [Item(path, None)]
    if not path.is_dir():
        raise InvalidRequest(f"There is no file {path}.", code="no_such_file")
    if not recursive:
        raise InvalidRequest(f"{path} is a folder; add --recursive.", code="is_a_folder")
    below = [(found.relative_to(path), found) for found in sorted(path.rglob("*")) if found.is_file()]
    shown = [(name, found) for name, found in below if not any(part.startswith(".") for part in name.parts)]
    return [Item(found, name.as_posix()) for name, found in shown]


def _ended(item: Item, job: Json) -> Item:
    error = job["error"] if job["state"] != "done" else None
    return replace(
        item, state=job["state"], code=error["code"] if error else None, detail=error["detail"] if error else None
    )


def _in_words(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _as_json(item: Item) -> Json:
    error = {"code": item.code, "detail": item.detail} if item.code else None
    return {
        "path": str(item.path),
        "external_id": item.external_id,
        "document_id": item.document_id,
        "job_id": item.job_id,
        "state": item.state,
        "error": error,
    }
