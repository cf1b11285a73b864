"""A thousand small tenants on one local stack against ten; prints one JSON line.

    python -m bench.shard_tenants --data DATASETS [--tenants 1000] [--chunks 200] [--questions 600]

All tenants are made over HTTP, each with a key, and timed. Ten are filled over HTTP with passages of mtrag/clapnq and
mtrag/cloud, and asked: p95 of ten tenants. The others then get a copy of one of the ten each (rows, vectors and lexical
entries, written as ingestion writes them; embedding 200,000 passages would only measure the embedder). Then the ten and
all of them are asked in turns, over HTTP, one at a time. The memory is that of every process of the stack.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import insert, select, update

from bench.local_stack import arguments, print_line, running
from bench.memory import resident, trees
from bench.search import QUESTIONS, SETS, in_turns
from eval.bulk import NewDocument
from eval.client import TesseraClient
from eval.datasets import CorpusRow, load_set
from eval.progress import Silent
from eval.settle import settle
from service.resources import Resources, open_resources
from shards.catalog_postgres import PostgresCatalog
from shards.index import IndexRow
from shards.models import Chunk, Document, DocumentField, DocumentVersion
from shards.usage import used
from tenants.context import Placement

TEMPLATES = 10
CHUNKS_A_PASSAGE = 1.6
"""Of the passages that are uploaded, measured."""
BARS = {"provision_ms": 100.0, "p95_ratio": 1.3, "memory_gb": 3.0}
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Access:
    """A tenant and a client with its key."""

    id: UUID
    client: TesseraClient


async def provision(admin: TesseraClient, url: str, count: int, stack: AsyncExitStack) -> tuple[list[Access], Any]:
    made, spent = [], []
    run = f"{time.time_ns():x}"
    for number in range(count):
        began = time.perf_counter()
        tenant, _ = await admin.create_tenant(f"many-{run}-{number}", f"Tenant {number}")
        spent.append(1000 * (time.perf_counter() - began))
        key = (await admin.create_key(tenant["id"], "bench"))["key"]
        made.append(Access(UUID(tenant["id"]), await stack.enter_async_context(TesseraClient(url, key))))
    shares = {f"p{p}": float(np.percentile(spent, p)) for p in (50, 95, 99)}
    return made, {**shares, "max": max(spent), "over_bar": sum(one > BARS["provision_ms"] for one in spent)}


async def fill(access: Access, passages: list[CorpusRow]) -> None:
    documents = [
        NewDocument(f"{row.id}.txt", (row.text or "").encode(), external_id=row.id, title=row.title) for row in passages
    ]
    jobs = []
    for start in range(0, len(documents), 50):
        found = await access.client.upload_many(documents[start : start + 50])
        jobs += [one.job["id"] for one in found if not isinstance(one, Exception) and one.job is not None]
    await settle(access.client, jobs, Silent())


class Template:
    """What one tenant has, to be written for others."""

    def __init__(self, rows: dict[str, Rows], vectors: dict[UUID, Any]) -> None:
        self.rows, self.vectors = rows, vectors

    @classmethod
    async def read(cls, resources: Resources, tenant_id: UUID) -> Template:
        async with resources.database.tenant(tenant_id) as session:
            live = await resources.indexes.live(PostgresCatalog(session, tenant_id))
            assert live is not None
            tables = [model.__table__ for model in (Document, DocumentVersion, DocumentField, Chunk)]
            rows = {
                str(table.name): [dict(row._mapping) for row in await session.execute(select(table))]
                for table in tables
            }
            pages = resources.indexes.vectors.scan(live.space)
            return cls(rows, {row.chunk_id: row.vector async for page in pages for row in page})

    async def write(self, resources: Resources, tenant_id: UUID) -> int:
        """Write it for a tenant, as ingestion does; return the number of chunks."""
        mine = {name: [{**row, "tenant_id": tenant_id} for row in rows] for name, rows in self.rows.items()}
        database, indexes = resources.database, resources.indexes
        async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
            await session.execute(
                insert(Document.__table__), [{**row, "active_version_no": None} for row in mine["documents"]]
            )
            versions = [{k: v for k, v in row.items() if k != "version_no"} for row in mine["document_versions"]]
            table = DocumentVersion.__table__
            made = await session.execute(insert(table).returning(table.c.document_id, table.c.version_no), versions)
            numbers = {row.document_id: row.version_no for row in made}
            for document_id, number in numbers.items():
                where = (Document.tenant_id == tenant_id, Document.id == document_id)
                await session.execute(update(Document).where(*where).values(active_version_no=number))
            if mine["document_fields"]:
                await session.execute(insert(DocumentField.__table__), mine["document_fields"])
            await session.execute(insert(Chunk.__table__), mine["chunks"])
            catalog = PostgresCatalog(session, tenant_id)
            await indexes.plan_first(catalog, Placement())
            generation = await indexes.open(catalog)
            rows = [
                IndexRow(
                    row["id"],
                    numbers[row["document_id"]],
                    " > ".join(row["headings"]),
                    row["text"],
                    self.vectors[row["id"]],
                )
                for row in mine["chunks"]
            ]
            await indexes.insert(catalog, generation, rows)
            await used(session, tenant_id)
            await session.commit()
        return len(rows)


async def ask(access: Access, question: str) -> float:
    began = time.perf_counter()
    answer = await access.client.search(question, k=10)
    spent = 1000 * (time.perf_counter() - began)
    if not answer["hits"] or answer["degraded"]:
        raise SystemExit(f"a search of {access.id} found {len(answer['hits'])} passages, degraded {answer['degraded']}")
    return spent


async def in_turn(groups: dict[str, list[Access]], questions: list[str]) -> dict[str, list[float]]:
    """Each question to a tenant of each group; the groups take turns to be first."""
    chance, spent = random.Random(5), {name: [] for name in groups}
    for number, question in enumerate(questions):
        names = list(groups)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            spent[name].append(await ask(chance.choice(groups[name]), question))
    return spent


def shown(spent: list[float]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(spent, p)), 1) for p in (50, 95, 99)}


async def bench(data_dir: Path, data: Path, count: int, chunks: int, asked: int) -> dict[str, object]:
    state, settings = running(data_dir)
    sets = [load_set(data / name, queries=QUESTIONS) for name in SETS]
    questions = list(
        itertools.islice(itertools.cycle([q.text for q in in_turns(one.questions for one in sets)]), asked)
    )
    passages = in_turns([row for row in one.corpus if 200 < len(row.text or "") < 1200] for one in sets)
    each = round(chunks / CHUNKS_A_PASSAGE)
    async with AsyncExitStack() as stack, TesseraClient(state.url, state.admin_key) as admin:
        tenants, provisioned = await provision(admin, state.url, count, stack)
        ten, others = tenants[:TEMPLATES], tenants[TEMPLATES:]
        for number, access in enumerate(ten):
            await fill(access, passages[number * each : (number + 1) * each])
        await in_turn({"ten": ten}, questions[:50])
        alone = (await in_turn({"ten": ten}, questions))["ten"]
        resources = await stack.enter_async_context(open_resources(settings, "TESSERA_DATABASE_WORKER_URL"))
        templates = [await Template.read(resources, access.id) for access in ten]
        began, written = time.perf_counter(), sum(len(one.rows["chunks"]) for one in templates)
        for number, access in enumerate(others):
            written += await templates[number % TEMPLATES].write(resources, access.id)
        filled_s = time.perf_counter() - began
        await asyncio.sleep(10)
        await in_turn({"all": tenants}, questions[:50])
        spent = await in_turn({"ten_among_all": ten, "all": tenants}, questions)
        memory = resident([pid for pids in trees(state).values() for pid in pids])
        overview = await admin.all_shards()
    ratio = float(np.percentile(spent["all"], 95) / np.percentile(alone, 95))
    used_gb = (memory.pss or memory.rss) / 1e9
    return {
        "bench": "shard_tenants",
        "tenants": count,
        "chunks": written,
        "provision_ms": {name: round(float(value), 1) for name, value in provisioned.items()},
        "search_ms": {"ten_alone": shown(alone), **{name: shown(values) for name, values in spent.items()}},
        "p95_ratio": round(ratio, 2),
        "memory": memory.shown(),
        "copied_s": round(filled_s, 1),
        "partitions": overview["servers"][0]["partitions"],
        "bars": BARS,
        "ok": provisioned["p99"] <= BARS["provision_ms"]
        and ratio <= BARS["p95_ratio"]
        and used_gb <= BARS["memory_gb"],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds mtrag/cloud and mtrag/clapnq")
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--questions", type=int, default=600)
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.data, chosen.tenants, chosen.chunks, chosen.questions)))


if __name__ == "__main__":
    main()
