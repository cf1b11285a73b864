"""The whole ingestion line against the embedder alone, in slices; prints one JSON line.

    python -m bench.ingestion --data DATASETS [--documents 1200] [--rounds 1]

DATASETS holds squad_dev, mtrag/cloud and mtrag/clapnq. For each slice of documents:

    line      from the first upload over HTTP until the last document is searchable, by the times that the service
              keeps; parsing, chunking, both engines, Postgres and this client are in it
    upkeep    what it takes from then until every job of the tenant has ended, training its cells
    embedder  `embed_passages` of the very same texts, all at once, in this process, with the stack idle, before and
              after the line

The bar is for all slices together: what all these documents take through the line over what their chunks take in the
embedder. Both have the same settings and threads. In the shape `passages` every row is a document, in `joined` the
same rows are Markdown documents of about 40. Each slice has a tenant of its own, so upkeep of what was there before is
not counted. The line must make as many chunks as there are texts, or the run fails.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.local_stack import arguments, print_line, running
from eval.bulk import NewDocument, in_requests
from eval.client import TesseraClient, Uploaded
from eval.datasets import CorpusRow, load_set
from eval.progress import Silent
from eval.scratch import workplace
from eval.settle import settle
from eval.upload import UNTITLED, fitting_title
from ingestion.chunk import chunk_document, embedding_text
from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem
from ingestion.parse.limits import ParseLimits
from ingestion.parse.sandbox import ParserPool
from ingestion.settings import IngestSettings
from shards.embed import Embedder, load_embedder

BAR = 1.15
SETS = {"squad_dev": Path("queries.jsonl"), "mtrag/cloud": Path("queries_rewrite.jsonl")}
SETS["mtrag/clapnq"] = Path("queries_rewrite.jsonl")
JOINED = 40
LEAST = 300
WARM_UP = 30
CONCURRENCY = 2
PAUSE_S = 1.0
"""Between two looks at the jobs. The line is timed by the service's clock, so looking seldom makes no difference."""


@dataclass(frozen=True)
class Doc:
    """A document to upload; without a title it gets its file's name, as the service would name it."""

    id: str
    filename: str
    title: str | None
    text: str


@dataclass(frozen=True)
class Slice:
    """Documents that are measured together."""

    set: str
    shape: str
    docs: list[Doc]


@dataclass(frozen=True)
class Line:
    """What the line took, and upkeep after it: seconds by the service's clock; this client's processor time within."""

    seconds: float
    upkeep_s: float
    client_cpu_s: float
    chunks: int


def passage(row: CorpusRow, tag: str) -> Doc:
    title = fitting_title(row.title)
    return Doc(f"{tag}-{row.id}", "passage.txt" if title else UNTITLED, title, row.text or "")


def joined(rows: list[CorpusRow], tag: str) -> list[Doc]:
    docs = []
    for start in range(0, len(rows), JOINED):
        numbered = enumerate(rows[start : start + JOINED], start=1)
        parts = [f"## {row.title or f'Part {number}'}\n\n{row.text}\n" for number, row in numbered]
        docs.append(Doc(f"{tag}-{start}", "joined.md", f"Collection {start // JOINED + 1}", "\n".join(parts)))
    return docs


def slices(data: Path, documents: int, rounds: int) -> Iterator[Slice]:
    for name, queries in SETS.items():
        rows = [row for row in load_set(data / name, queries=queries).corpus if (row.text or "").strip()]
        for number in range(rounds):
            part = rows[number * documents : (number + 1) * documents]
            if len(part) >= LEAST:
                yield Slice(name, "passages", [passage(row, f"p{number}") for row in part])
        yield Slice(name, "joined", joined(rows[:documents], f"joined-{name}"))


async def texts_of(docs: list[Doc], embedder: Embedder, parsers: ParserPool, settings: IngestSettings) -> list[str]:
    """The embedding texts of documents, made as the line makes them."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        items = []
        for number, doc in enumerate(docs):
            path = Path(folder) / str(number)
            path.write_text(doc.text, encoding="utf-8")
            items.append(ParseItem(path, "markdown" if doc.filename.endswith(".md") else "txt", doc.filename))
        parsed = await parsers.parse(items)
    texts = []
    for doc, one in zip(docs, parsed, strict=True):
        assert isinstance(one, ParsedDocument), one
        title = doc.title or one.title or doc.filename.rsplit(".", 1)[0]
        spans, limits = embedder.token_spans, (settings.chunk_tokens, embedder.max_tokens)
        chunks = chunk_document(one, title=title, token_spans=spans, max_tokens=limits[0], model_tokens=limits[1])
        texts += [embedding_text(title, chunk) for chunk in chunks]
    return texts


async def through_the_line(client: TesseraClient, docs: list[Doc]) -> Line:
    began, cpu = time.time(), resource.getrusage(resource.RUSAGE_SELF)
    new = [NewDocument(doc.filename, doc.text.encode(), doc.id, doc.title) for doc in docs]
    turn = in_requests(new, lambda document: len(document.content))
    job_ids: list[str] = []

    async def send() -> None:
        for documents in turn:
            for answer in await client.upload_many(documents):
                assert isinstance(answer, Uploaded), answer
                assert answer.new, f"{answer.document['external_id']} was there already"
                assert answer.job is not None
                job_ids.append(answer.job["id"])

    await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
    await settle(client, job_ids, Silent(), first_pause_s=PAUSE_S, longest_pause_s=PAUSE_S)
    after = resource.getrusage(resource.RUSAGE_SELF)
    jobs = [job async for job in client.jobs() if job["finished_at"] and moment(job["finished_at"]) >= began]
    own = [job for job in jobs if job["id"] in set(job_ids)]
    failed = [job["error"] for job in own if job["state"] != "done"]
    assert not failed, failed
    assert len(own) == len(docs)
    ended = max(moment(job["finished_at"]) for job in own)
    return Line(
        seconds=ended - began,
        upkeep_s=max(moment(job["finished_at"]) for job in jobs if job["kind"] != "drop_generation") - ended,
        client_cpu_s=after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime,
        chunks=sum(job["result"]["chunks"] for job in own),
    )


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def alone(embedder: Embedder, texts: list[str]) -> float:
    began = time.perf_counter()
    await embedder.embed_passages(texts)
    return time.perf_counter() - began


async def measure(client: TesseraClient, one: Slice, texts: list[str], embedder: Embedder) -> dict[str, Any]:
    """The embedder before and after the line, so that a machine that grows slower or faster favours neither."""
    before = await alone(embedder, texts)
    line = await through_the_line(client, one.docs)
    seconds = (before + await alone(embedder, texts)) / 2
    assert line.chunks == len(texts), f"the line made {line.chunks} chunks, not {len(texts)}"
    return {
        "set": one.set,
        "shape": one.shape,
        "documents": len(one.docs),
        "chunks": len(texts),
        "line_s": round(line.seconds, 2),
        "embedder_s": round(seconds, 2),
        "ratio": round(line.seconds / seconds, 3),
        "upkeep_s": round(line.upkeep_s, 2),
        "client_cpu_s": round(line.client_cpu_s, 2),
    }


async def bench(data_dir: Path, data: Path, documents: int, rounds: int) -> dict[str, Any]:
    state, settings = running(data_dir)
    embedder, parsers = load_embedder(settings.embed), ParserPool(ParseLimits.from_settings(settings.ingest))
    found: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:  # the tenants are erased when everything is measured
        admin = await stack.enter_async_context(TesseraClient(state.url, state.admin_key))

        async def new_tenant() -> TesseraClient:
            scratch = workplace(admin, Silent(), name="bench-ingestion", slug=None, keep=False, bm25_weight=None)
            place = await stack.enter_async_context(scratch)
            return await stack.enter_async_context(TesseraClient(state.url, place.key))

        for number, one in enumerate(slices(data, documents, rounds)):
            texts = await texts_of(one.docs, embedder, parsers, settings.ingest)
            if number == 0:
                await through_the_line(await new_tenant(), one.docs[:WARM_UP])
                await alone(embedder, texts[:WARM_UP])
            found.append(await measure(await new_tenant(), one, texts, embedder))
    await parsers.aclose()
    await embedder.aclose()
    return verdict(found) | {"embedder": embedder.name, "threads": settings.embed.threads or "every core"}


def verdict(found: list[dict[str, Any]]) -> dict[str, Any]:
    by_shape = {shape: [one for one in found if one["shape"] == shape] for shape in ("passages", "joined")}
    medians = {shape: round(statistics.median(one["ratio"] for one in of), 3) for shape, of in by_shape.items() if of}
    lines, embedders = sum(one["line_s"] for one in found), sum(one["embedder_s"] for one in found)
    chunks = sum(one["chunks"] for one in found)
    return {
        "bench": "ingestion",
        "ratio_median": medians,
        "ratio_whole": round(lines / embedders, 3),
        "ratio_whole_with_upkeep": round((lines + sum(one["upkeep_s"] for one in found)) / embedders, 3),
        "bar": BAR,
        "ok": lines / embedders <= BAR,
        "chunks_per_s": {"line": round(chunks / lines, 1), "embedder": round(chunks / embedders, 1)},
        "slices": found,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds squad_dev and mtrag")
    parser.add_argument("--documents", type=int, default=1200, help="rows a slice")
    parser.add_argument("--rounds", type=int, default=1, help="slices of each set in the shape `passages`")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.data, chosen.documents, chosen.rounds)))


if __name__ == "__main__":
    main()
