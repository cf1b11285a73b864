"""The pre-filter over a tenant of a million chunks, for filters that match 1,000 to all of them; prints one JSON line.

    python -m bench.shard_prefilter [--data-dir .tessera] [--chunks 1000000]

Asks the running stack's Postgres, as the API does, for the matching chunks and their micro-cells. The rows are made up
(20 chunks a document, 16,384 micro-cells) and stay in a suspended tenant; Postgres has analysed the tables before.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import text

from bench.local_stack import arguments, print_line, running
from rag.search.prefilter import matching
from shards.filters import parse_filter
from tenants.db import Database

TENANT = UUID("00000000-0000-7000-8000-00000000f111")
A_DOCUMENT, MICROS, TIMES = 20, 16_384, 5
_FILL = (
    "INSERT INTO documents (tenant_id, id, title, state, source, format, metadata, content_sha256, latest_version,"
    " active_version, active_version_no) SELECT :t, md5('d' || g)::uuid, 't', 'active', 'upload', 'txt', '{}',"
    " decode(md5('d' || g), 'hex'), 1, 1, -g FROM generate_series(1, :documents) g",
    "INSERT INTO document_versions (tenant_id, document_id, version, version_no, title, title_given, filename,"
    " content_type, format, size_bytes, content_sha256, object_key, metadata, state) OVERRIDING SYSTEM VALUE"
    " SELECT :t, md5('d' || g)::uuid, 1, -g, 't', true, 'f', 't', 'txt', 1, 'x', 'k', '{}', 'active'"
    " FROM generate_series(1, :documents) g",
    "INSERT INTO document_fields (tenant_id, document_id, version, key, ordinal, number_value)"
    " SELECT :t, md5('d' || g)::uuid, 1, 'n', 0, g % 1000 FROM generate_series(1, :documents) g",
    "INSERT INTO chunk_cells (tenant_id, generation, version_no, chunk_id, micro)"
    " SELECT :t, 1, -1 - g % :documents, md5('c' || g)::uuid, g % :micros FROM generate_series(1, :chunks) g",
)
_LOOKED = text(
    "SELECT count(*) FROM pg_stat_user_tables WHERE relname IN ('documents', 'document_fields', 'chunk_cells')"
    " AND last_autoanalyze > now() - interval '10 minutes'"
)


async def fill(worker: Database, chunks: int) -> None:
    async with worker.admin() as session, session.begin():
        made = "INSERT INTO tenants (id, slug, name, plan, state, placement, settings) VALUES (:t, 'bench-prefilter',"
        await session.execute(
            text(made + " 'n', 'p', 'suspended', 'auto', '{}') ON CONFLICT DO NOTHING"), {"t": TENANT}
        )
    bounds = {"t": TENANT, "documents": chunks // A_DOCUMENT, "micros": MICROS, "chunks": chunks}
    async with worker.tenant(TENANT) as session, session.begin():
        if await session.scalar(text("SELECT count(*) FROM documents")):
            return
        for statement in _FILL:
            await session.execute(text(statement), {name: bounds[name] for name in bounds if f":{name}" in statement})
    for _ in range(150):  # until Postgres has looked at the new rows, as it does within a minute
        async with worker.tenant(TENANT) as session:
            if await session.scalar(_LOOKED) == 3:
                return
        await asyncio.sleep(1)


async def bench(data_dir: Path, chunks: int) -> dict[str, Any]:
    _, settings = running(data_dir)
    worker, app = (Database(url, settings.database) for url in (settings.database.worker_url, settings.database.url))
    await fill(worker, chunks)
    found = {}
    for below in (1, 10, 100, 500, 1000):
        tree, spent = parse_filter({"n": {"lt": below}}), []
        for _ in range(TIMES):
            began = time.perf_counter()
            async with app.tenant(TENANT) as session:
                matches = await matching(session, TENANT, 1, tree)
            matches.by_micro(MICROS)
            spent.append(1000 * (time.perf_counter() - began))
        size = matches.version_nos.nbytes + matches.micros.nbytes + len(matches.ids)
        found[str(len(matches))] = {"p50_ms": round(float(np.median(spent)), 1), "mb": round(size / 1e6, 1)}
    await worker.aclose()
    await app.aclose()
    return {"bench": "shard_prefilter", "chunks": chunks, "matches": found}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.chunks)))


if __name__ == "__main__":
    main()
