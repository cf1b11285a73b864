"""How a search grows with the tenant, sharded and not, on Milvus Lite; prints one JSON line.

    python -m bench.shard_growth VECTORS [--sizes 10000 50000 150000 500000] [--questions 200]

VECTORS is made by `python -m bench.shard_corpus`. Sizes below that of the corpus are random parts of it. Above it, rows
are added between a row and one of its neighbours, with noise: their number is real, their variety is not. Each size is
laid out twice in the same server, in cells and in one partition; the questions take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from bench.local_stack import print_line
from bench.shard_corpus import load
from bench.shard_engine import Laid, lay_out
from bench.stores import milvus_lite
from shards.calibration import calibrate_on_sentences
from shards.cells import cell_count, divide
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.routing import routing_over
from shards.settings import MilvusSettings, ShardSettings
from shards.vectors import ChunkVector, VectorStore

TARGET = 0.98


def grown(rows: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A part of the rows, or all of them with rows between neighbours."""
    rng = np.random.default_rng(11)
    if size <= len(rows):
        return rows[np.sort(rng.permutation(len(rows))[:size])]
    order = np.argsort(rows @ rows[0])  # a cheap ordering in which neighbours are often near
    more = []
    for start in range(0, size - len(rows), len(rows)):
        count = min(len(rows), size - len(rows) - start)
        first = rng.permutation(len(rows))[:count]
        other = order[np.clip(np.searchsorted(rows[order] @ rows[0], rows[first] @ rows[0]) + 1, 0, len(rows) - 1)]
        share = rng.uniform(0.6, 0.95, (count, 1)).astype(np.float32)
        made = share * rows[first] + (1 - share) * rows[other]
        made += 0.3 * rng.standard_normal(made.shape).astype(np.float32) / np.sqrt(made.shape[1])
        more.append(made / np.linalg.norm(made, axis=1, keepdims=True))
    return np.concatenate([rows, *more]).astype(np.float32)


async def unsharded(store: VectorStore, rows: NDArray[np.float32]) -> Space:
    space = Space(uuid4(), 1, rows.shape[1])
    await store.create(space, cells=1)
    for start in range(0, len(rows), 4000):
        part = rows[start : start + 4000]
        await store.insert(space, {0: [ChunkVector(uuid4(), start + at, row) for at, row in enumerate(part)]})
    return space


async def asked(laid: Laid, whole: Space, rows: NDArray[np.float32], queries: NDArray[np.float32]) -> dict[str, Any]:
    place = {chunk_id: row for row, chunk_id in enumerate(laid.ids)}
    spent: dict[str, list[float]] = {"cells": [], "unsharded": []}
    scanned, recalls, visited = [], [], []
    for number, query in enumerate(queries):
        began = time.perf_counter()
        found = await laid.ask(query, TARGET)
        spent["cells"].append(1000 * (time.perf_counter() - began))
        scanned.append(found.rows_scanned)
        visited.append(found.cells_visited)
        best = np.argpartition(-(rows @ query), 9)[:10]
        recalls.append(len({place[hit.chunk_id] for hit in found.hits[:10]} & set(best.tolist())) / 10)
        if number % 5 == 0:
            began = time.perf_counter()
            await laid.store.search(whole, query, k=100, cells=None, scope=None)
            spent["unsharded"].append(1000 * (time.perf_counter() - began))
    return {
        "recall": round(float(np.mean(recalls)), 4),
        "rows_scanned": round(float(np.mean(scanned))),
        "cells_visited": round(float(np.mean(visited)), 1),
        **{f"{name}_p{p}_ms": round(float(np.percentile(ms, p)), 1) for name, ms in spent.items() for p in (50, 95)},
    }


async def bench(folder: Path, sizes: list[int], count: int) -> dict[str, Any]:
    corpus, settings = load(folder), ShardSettings()
    sentences = corpus.sentences[: settings.calibration_sentences]
    rng = np.random.default_rng(2)
    queries = corpus.questions[rng.permutation(len(corpus.questions))[:count]]
    found: dict[str, Any] = {}
    for size in sizes:
        rows = grown(corpus.rows, size)
        with tempfile.TemporaryDirectory(prefix="tessera-bench-") as kept, milvus_lite(Path(kept)) as uri:
            store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=120))
            began = time.perf_counter()
            made = divide(rows, max(2, cell_count(size, settings)), settings.micros_per_cell, seed=1)
            trained_s = time.perf_counter() - began
            routing = routing_over(rows, made, seed=0)
            curve = calibrate_on_sentences(routing, rows, made.micro_of, sentences, 1)
            laid = await lay_out(store, rows, made, routing, curve)
            whole = await unsharded(store, rows)
            await asyncio.sleep(3)
            await asked(replace(laid), whole, rows, queries[:10])
            found[str(size)] = {
                "cells": len(routing.cells),
                "micros": len(routing.rows),
                "train_s": round(trained_s, 1),
                **await asked(laid, whole, rows, queries),
            }
            await store.aclose()
    growth = None
    if {"50000", "500000"} <= found.keys():
        growth = round(found["500000"]["cells_p95_ms"] / found["50000"]["cells_p95_ms"], 2)
    return {"bench": "shard_growth", "questions": count, **found, "p95_growth_50k_500k": growth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 50_000, 150_000, 500_000])
    parser.add_argument("--questions", type=int, default=200)
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.vectors, chosen.sizes, chosen.questions)))


if __name__ == "__main__":
    main()
