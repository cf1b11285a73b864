"""How a search grows with the tenant, sharded and not, on Milvus Lite; prints one JSON line.

    python -m bench.shard_growth VECTORS [--sizes 10000 50000 150000 500000] [--questions 200]

VECTORS is made by `python -m bench.shard_corpus`. Sizes below that of the corpus are random parts of it. Above it, rows
are added between a row and one of its neighbours, with noise: their number is real, their variety is not. Each size is
laid out twice in a server of its own, in cells and in one partition. Every question is asked of all sizes in turn, so
that other work on the machine slows them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from bench.local_stack import print_line
from bench.shard_corpus import ShardCorpus, load
from bench.shard_engine import Laid, lay_out
from bench.stores import milvus_lite
from shards.calibration import calibrate_on_sentences, true_rows
from shards.cells import cell_count, divide, micros_a_cell
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.probe import AnnHits
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


@dataclass
class Size:
    """Rows laid out in cells and in one partition, the true best ten of each question, and what was measured."""

    laid: Laid
    whole: Space
    best: NDArray[np.int64]
    trained_s: float
    found: list[AnnHits] = field(default_factory=list)
    ms: dict[str, list[float]] = field(default_factory=lambda: {"cells": [], "unsharded": []})

    async def ask(self, number: int, query: NDArray[np.float32]) -> None:
        began = time.perf_counter()
        self.found.append(await self.laid.ask(query, TARGET))
        self.ms["cells"].append(1000 * (time.perf_counter() - began))
        if number % 5 == 0:
            began = time.perf_counter()
            await self.laid.store.search(self.whole, query, k=100, cells=None, scope=None)
            self.ms["unsharded"].append(1000 * (time.perf_counter() - began))

    def figures(self) -> dict[str, Any]:
        recalls = []
        for hits, best in zip(self.found, self.best, strict=True):
            found = {hit.chunk_id for hit in hits.hits[:10]}
            recalls.append(sum(self.laid.ids[row] in found for row in best) / len(best))
        rows = [hits.rows_scanned for hits in self.found]
        return {
            "cells": self.laid.generation.cells,
            "micros": self.laid.generation.header.micros,
            "train_s": round(self.trained_s, 1),
            "recall": round(float(np.mean(recalls)), 4),
            "rows_scanned": round(float(np.mean(rows))),
            "rows_p95": round(float(np.percentile(rows, 95))),
            "cells_visited": round(float(np.mean([hits.cells_visited for hits in self.found])), 1),
            **{
                f"{name}_p{p}_ms": round(float(np.percentile(ms, p)), 1)
                for name, ms in self.ms.items()
                for p in (50, 95)
            },
        }


async def laid_out(store: MilvusVectors, corpus: ShardCorpus, size: int, queries: NDArray[np.float32]) -> Size:
    settings, rows = ShardSettings(), grown(corpus.rows, size)
    began = time.perf_counter()
    cells = max(2, cell_count(size, settings))
    made = divide(rows, cells, micros_a_cell(size, cells, settings), seed=1)
    trained_s = time.perf_counter() - began
    routing = routing_over(rows, made, seed=0)
    sentences = corpus.sentences[: settings.calibration_sentences]
    curve = calibrate_on_sentences(routing, rows, made.micro_of, sentences, 1)
    laid = await lay_out(store, rows, made, routing, curve)
    return Size(laid, await unsharded(store, rows), true_rows(rows, queries), trained_s)


async def bench(folder: Path, sizes: list[int], count: int) -> dict[str, Any]:
    corpus, rng = load(folder), np.random.default_rng(2)
    queries = corpus.questions[rng.permutation(len(corpus.questions))[:count]]
    with ExitStack() as servers:
        made: dict[str, Size] = {}
        for size in sizes:
            kept = servers.enter_context(tempfile.TemporaryDirectory(prefix="tessera-bench-"))
            uri = servers.enter_context(milvus_lite(Path(kept)))
            store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=120))
            made[str(size)] = await laid_out(store, corpus, size, queries)
            await asyncio.sleep(3)
            for query in queries[:10]:
                await made[str(size)].laid.ask(query, TARGET)
            print(size, "laid out", file=sys.stderr, flush=True)
        for number, query in enumerate(queries):
            for one in made.values():
                await one.ask(number, query)
        for one in made.values():
            await one.laid.store.aclose()
    found = {size: one.figures() for size, one in made.items()}
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
