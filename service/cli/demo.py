"""The command `tessera demo`: two companies, their handbooks, a cited answer each, and no leak between them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from eval.client import Json, TesseraClient
from service.cli.answer import show_events, show_sources
from service.cli.connection import AdminKeyOption, UrlOption, admin_address, data_folder
from service.cli.demo_hints import NAME_COLUMNS, show_heading, show_hints, show_speech
from service.cli.demo_keys import FILE, DemoKeys, demo_keys
from service.cli.demo_manifest import ForeignQuestion, Manifest, Question, load_manifests
from service.cli.demo_tenants import provision
from service.cli.terminal import complain, line, out, sentence_of
from service.cli.upload import Item, progress_bar, send_all
from service.local.account import private_folder
from service.local.settings import ROOT
from tenants.errors import TesseraError

app = typer.Typer(add_completion=False, rich_markup_mode=None)
EXAMPLES = ROOT / "examples"
_NAME = "tessera demo"


class DemoFailed(TesseraError):
    """A step of the demo did not give what it must."""

    code = "demo_failed"
    title = "Demo failed"


@dataclass(frozen=True)
class Company:
    """A tenant of the demo with its key and a client that uses it."""

    folder: Path
    manifest: Manifest
    key: str
    client: TesseraClient


@app.command()
def demo(
    examples: Annotated[
        Path | None, typer.Option(help="Folder of the companies [examples].", show_default=False)
    ] = None,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
) -> None:
    """Provision two demo tenants, ingest their documents, ask each a question of its own and one of the other's."""
    try:
        address, key = admin_address(url, admin_key)
    except TesseraError as error:
        complain(sentence_of(error), _NAME)
        raise typer.Exit(1) from error
    raise typer.Exit(run_demo(address, key, data_folder(), examples or EXAMPLES))


def run_demo(url: str, admin_key: str, data_dir: Path | None = None, examples: Path = EXAMPLES) -> int:
    """Run the demo against a ready service; return the exit status, 1 after printing the cause of a failure.

    Keys are kept in `data_dir` (by default the settings'), so that the next run finds tenants and documents again.
    """
    try:
        asyncio.run(_demo(url, admin_key, (data_dir or data_folder()).absolute(), examples))
    except TesseraError as error:
        complain(sentence_of(error), _NAME)
        return 1
    except OSError as error:
        complain(f"{error.filename or 'The system'}: {error.strerror or error}.", _NAME)
        return 1
    return 0


async def _demo(url: str, admin_key: str, data_dir: Path, examples: Path) -> None:
    manifests = await asyncio.to_thread(load_manifests, examples)
    async with AsyncExitStack() as clients:
        companies = await _provision(clients, url, admin_key, data_dir, manifests)
        documents = await _ingest_all(companies)
        show_heading("Each asks its own documents")
        for company, known in zip(companies, documents, strict=True):
            await _ask_own(company, company.manifest.questions[0], known)
        show_heading("Each asks what only the other's documents answer")
        for company in companies:
            await _ask_foreign(company, company.manifest.foreign_questions[0])
    keys = {company.manifest.slug: company.key for company in companies}
    show_hints(url, keys, data_dir / FILE, min((q.question for q in companies[0].manifest.questions[1:]), key=len))


async def _provision(
    clients: AsyncExitStack, url: str, admin_key: str, data_dir: Path, manifests: dict[Path, Manifest]
) -> list[Company]:
    kept = await asyncio.to_thread(demo_keys, data_dir)
    keys = dict(kept.tenants) if kept is not None else {}
    companies = []
    async with TesseraClient(url, admin_key) as admin:
        for folder, manifest in manifests.items():
            slug = manifest.slug
            keys[slug] = await provision(admin, slug, manifest.name, keys.get(slug))
            client = await clients.enter_async_context(TesseraClient(url, keys[slug].key))
            companies.append(Company(folder, manifest, keys[slug].key, client))
            # After each: a key that is not kept is lost, since it is shown only once.
            await asyncio.to_thread(_keep, DemoKeys(url=url, tenants=keys), data_dir)
    return companies


def _keep(keys: DemoKeys, data_dir: Path) -> None:
    if not data_dir.exists():
        private_folder(data_dir)
    keys.save(data_dir)


async def _ingest_all(companies: list[Company]) -> list[dict[str, str]]:
    """Upload all documents, wait, and return for each company its external ids by document id."""
    with progress_bar() as progress:
        ingested = await asyncio.gather(*(_ingest(company, progress) for company in companies))
    for company, (sentence, _) in zip(companies, ingested, strict=True):
        show_speech(company.manifest.slug, f"{company.manifest.name}: {sentence}")
    return [documents for _, documents in ingested]


async def _ingest(company: Company, progress: Progress) -> tuple[str, dict[str, str]]:
    began = time.monotonic()
    items = [
        Item(company.folder / document.file, document.external_id, document.title, document.metadata)
        for document in company.manifest.documents
    ]
    done = await send_all(company.client, items, progress, label=f"{company.manifest.slug:<{NAME_COLUMNS}}")
    failed = [item for item in done if item.failed]
    if failed:
        raise DemoFailed(
            f"{len(failed)} of {len(done)} documents failed, the first is {failed[0].path.name}: {failed[0].detail}",
            code=failed[0].code,
        )
    new = sum(item.state == "done" for item in done)
    what = f"{new} ingested in {time.monotonic() - began:.1f} s" if new else "there already"
    documents = {item.document_id: item.external_id for item in done if item.document_id and item.external_id}
    return f"{len(done)} documents, {what}", documents


async def _ask_own(company: Company, asked: Question, documents: dict[str, str]) -> None:
    slug = company.manifest.slug
    answer = await _ask(company, asked.question)
    said = line(answer["answer"])
    missing = [part for part in asked.answer_contains if part not in said]
    if answer["abstained"] or missing:
        raise DemoFailed(
            f"The answer to {slug} does not say {' and '.join(map(repr, missing or asked.answer_contains))}."
        )
    if asked.document not in {documents.get(citation["document_id"]) for citation in answer["citations"]}:
        raise DemoFailed(f"The answer to {slug} does not cite the document {asked.document!r}.")


async def _ask_foreign(company: Company, asked: ForeignQuestion) -> None:
    answer = await _ask(company, asked.question)
    said = line(answer["answer"])
    leaked = [part for part in asked.must_not_contain if part in said]
    if leaked or not answer["abstained"] or answer["citations"]:
        raise DemoFailed(f"{company.manifest.slug} got an answer from the other company's documents.")


async def _ask(company: Company, question: str) -> Json:
    out.print()
    show_speech(company.manifest.slug, question)
    answer = await show_events(company.client.chat(question), out, indent=NAME_COLUMNS)
    show_sources(answer["citations"], out, indent=NAME_COLUMNS)
    if answer["degraded"]:
        out.print(f"{' ' * NAME_COLUMNS}Degraded: {', '.join(answer['degraded'])}.", highlight=False)
    return answer
