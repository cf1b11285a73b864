"""Ranking and times of the lexical stores, compared in one run.

`python -m bench.lexical --data DATA [--server URL ...] [--questions N]` indexes the passages of judged sets, whole and
under their titles, with tantivy and on each OpenSearch server, asks every store the same questions in turn, and prints
one JSON line: nDCG@10, recall@10, the median time of a question and the passages written a second, by set and store.
On a server each set lies twice: by itself, and, as `... shared`, in one index with all other sets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from opensearchpy import AsyncOpenSearch

from eval.datasets import JudgedSet, load_set
from eval.metrics import measure
from shards.bm25 import TantivyLexical
from shards.lexical import ChunkText, LexicalStore
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings

SETS = {
    "squad_dev": ("squad_dev", None),
    "cranfield": ("cranfield", None),
    "clapnq": ("mtrag/clapnq", "queries_lastturn.jsonl"),
    "clapnq rewritten": ("mtrag/clapnq", "queries_rewrite.jsonl"),
    "cloud": ("mtrag/cloud", "queries_lastturn.jsonl"),
    "cloud rewritten": ("mtrag/cloud", "queries_rewrite.jsonl"),
    "hotpot100": ("multihop/hotpot100", None),
    "cmrc_zh": ("cmrc_zh", None),
}
DEPTH = 100
BATCH = 500


def chunk_id(document: str) -> UUID:
    """Return the id under which a passage is indexed."""
    return uuid5(NAMESPACE_URL, document)


async def fill(store: LexicalStore, judged: JudgedSet, *, shared: bool) -> tuple[str, float]:
    """Index a set; return the name of its index and the passages written a second."""
    index, began = lexical_name(uuid4()), time.perf_counter()
    await store.place(index, shared=shared)
    for start in range(0, len(judged.corpus), BATCH):
        some = enumerate(judged.corpus[start : start + BATCH], start + 1)
        rows = [ChunkText(chunk_id(row.id), number, row.title or "", row.text or "") for number, row in some]
        await store.insert(index, rows)
    return index, len(judged.corpus) / (time.perf_counter() - began)


async def compare(stores: Mapping[str, tuple[LexicalStore, str]], judged: JudgedSet) -> dict[str, dict[str, float]]:
    """Ask each store each question, in turn; return its figures."""
    documents = {chunk_id(row.id): row.id for row in judged.corpus}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in stores}
    seconds: dict[str, list[float]] = {name: [] for name in stores}
    for question in judged.questions:
        for name, (store, index) in stores.items():
            began = time.perf_counter()
            hits = await store.search(index, question.text, k=DEPTH, scope=None)
            seconds[name].append(time.perf_counter() - began)
            ranked = [documents[hit.chunk_id] for hit in hits]
            found[name].append(measure(ranked, judged.grades[question.id]))
    return {
        name: {
            "ndcg@10": round(statistics.mean(one["ndcg@10"] for one in found[name]), 4),
            "recall@10": round(statistics.mean(one["recall@10"] for one in found[name]), 4),
            "p50_ms": round(1000 * statistics.median(seconds[name]), 2),
        }
        for name in stores
    }


async def removed(url: str, prefix: str) -> None:
    """Delete what the run made on a server."""
    async with AsyncOpenSearch(hosts=[url]) as client:
        for row in await client.cat.indices(index=f"{prefix}*", format="json"):
            await client.indices.delete(index=row["index"])


async def main(data: Path, servers: list[str], questions: int | None, only: list[str]) -> None:
    """Run all and print the line."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-bench-")))
        engines: dict[str, tuple[LexicalStore, bool]] = {
            "tantivy": (TantivyLexical(LexicalSettings(path=folder)), False)
        }
        for url in servers:
            prefix = f"bench-{uuid4().hex[:8]}-"
            store = OpenSearchLexical(LexicalSettings(url=url, prefix=prefix, timeout_s=60, shared_indexes=1))
            stack.push_async_callback(removed, url, prefix)
            stack.push_async_callback(store.aclose)
            async with AsyncOpenSearch(hosts=[url]) as client:
                number = (await client.info())["version"]["number"]
            engines |= {f"opensearch {number}": (store, False), f"opensearch {number} shared": (store, True)}
        report: dict[str, Any] = {"bench": "lexical", "sets": {}}
        sets = {
            name: load_set(data / place, queries=Path(file) if file else None)
            for name, (place, file) in SETS.items()
            if not only or name in only
        }
        corpora = {SETS[name][0]: judged for name, judged in sets.items()}
        filled = {
            place: {engine: await fill(store, judged, shared=shared) for engine, (store, shared) in engines.items()}
            for place, judged in corpora.items()
        }
        for name, judged in sets.items():
            here = filled[SETS[name][0]]
            stores = {engine: (store, here[engine][0]) for engine, (store, _) in engines.items()}
            figures = await compare(stores, judged.sample(questions))
            for engine, (_, rate) in here.items():
                figures[engine]["rows_per_s"] = round(rate)
            report["sets"][name] = {"passages": len(judged.corpus), **figures}
        report["means"] = {
            engine: {
                measured: round(statistics.mean(one[engine][measured] for one in report["sets"].values()), 4)
                for measured in ("ndcg@10", "recall@10", "p50_ms")
            }
            for engine in engines
        }
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--server", action="append", default=[])
    parser.add_argument("--questions", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], choices=list(SETS))
    arguments = parser.parse_args()
    asyncio.run(main(arguments.data, arguments.server, arguments.questions, arguments.set))
