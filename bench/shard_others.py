"""Cells against what else could hold a tenant's vectors, on real vectors at one recall; prints one JSON line.

    OPENBLAS_NUM_THREADS=1 python -m bench.shard_others VECTORS [--questions 200] [--k 100] [--rows 64000]

VECTORS is made by `python -m bench.shard_corpus`; with more ROWS than it holds, rows between neighbours are added.
Every engine holds the same rows and answers the same questions, k hits each. Its own knob (ef_search, probes and
refining, the recall target of the cells) is tuned on these questions to the fastest setting whose recall@10 is at least
.98. Then the engines take turns, 20 questions at a time. `--only milvus_server numpy` takes those that begin so.

LanceDB and a standalone Milvus server are optional: `uv pip install lancedb milvus==2.3.5 setuptools`. That server
listens on every interface: run it where nobody else can reach it, as in `unshare --net --map-root-user`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.local_stack import print_line
from bench.other_engines import (
    MISSING,
    Build,
    Engine,
    Vector,
    exact,
    faiss_graph,
    lance,
    milvus_graph,
    milvus_server,
    pgvector,
    postgres,
    sealed,
    whole,
)
from bench.shard_corpus import ShardCorpus, load
from bench.shard_engine import lay_out
from bench.shard_growth import grown
from bench.stores import milvus_lite
from shards.calibration import K, calibrate_on_sentences, true_rows
from shards.cells import cells_past_threshold, divide
from shards.milvus import MilvusVectors
from shards.probe import AnnHits
from shards.routing import routing_over
from shards.settings import MilvusSettings, ShardSettings

RECALL = 0.98
TARGETS = (0.94, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 0.998)
SERVER_CELLS = (250, 1000, 2500, 5000)
"""Rows a cell on a Milvus server; on Milvus Lite it is what the service takes."""
OTHERS = 9000
_TURN, _GLANCE, _FAR = 20, 40, 0.03
_SETTLE_S = 30.0
"""What a server does after writing (indexing, merging, handing over) goes on for so long."""


async def cells(corpus: ShardCorpus, rows: Vector, k: int, uri: str, pid: int, per_cell: int, *, flush: bool) -> Engine:
    """The service's own search, with so many rows a cell and as many micro-cells as it may have, up to its usual."""
    build, usual = Build(pid), ShardSettings()
    micros = min(64, usual.micros_per_cell * per_cell // usual.rows_per_cell)
    settings = ShardSettings(rows_per_cell=per_cell, micros_per_cell=micros)
    made = divide(rows, cells_past_threshold(len(rows), settings), micros, seed=1)
    routing = routing_over(rows, made, seed=0)
    curve = calibrate_on_sentences(
        routing, rows, made.micro_of, corpus.sentences[: settings.calibration_sentences], seed=1
    )
    store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=120))
    laid = await lay_out(store, rows, made, routing, curve)
    built = build.done(cells=len(routing.cells), micros=len(routing.rows))
    if flush:
        built |= sealed(uri, laid.generation.space.collection)
    place = {chunk_id: row for row, chunk_id in enumerate(laid.ids)}

    async def search(query: Vector, target: float) -> AnnHits:
        return await laid.ask(query, target, k=k)

    return Engine(
        search,
        lambda found: [place[hit.chunk_id] for hit in found.hits],
        TARGETS,
        built,
        lambda found: {"rows_visited": found.rows_scanned, "cells_visited": found.cells_visited},
    )


def lite(servers: AsyncExitStack, folder: Path) -> tuple[str, int]:
    """Start a Milvus Lite server; return its address and process."""
    uri = servers.enter_context(milvus_lite(folder))
    port = uri.rpartition(":")[2]
    return uri, next(one.pid for one in psutil.Process().children() if one.cmdline()[-1:] == [port])


async def engines(
    corpus: ShardCorpus, rows: Vector, k: int, folder: Path, servers: AsyncExitStack, wanted: Callable[[str], bool]
) -> AsyncIterator[tuple[str, Engine]]:
    """Build one engine after another; the servers run until `servers` ends."""
    if wanted("numpy"):
        yield "numpy", exact(rows, k)
    if wanted("faiss_hnsw"):
        yield "faiss_hnsw", faiss_graph(rows, k)
    if wanted("milvus_lite_whole"):
        yield "milvus_lite_whole", await whole(rows, k, *lite(servers, folder / "lite_whole"), flush=False)
    if wanted("milvus_lite_cells"):
        server = lite(servers, folder / "lite_cells")
        yield "milvus_lite_cells", await cells(corpus, rows, k, *server, ShardSettings().rows_per_cell, flush=False)
    if wanted("pgvector"):
        others = grown(corpus.rows, len(corpus.rows) + OTHERS)[-OTHERS:]
        yield "pgvector", pgvector(rows, others, k, *servers.enter_context(postgres(folder / "postgres")))
    for kind in ("IVF_PQ", "IVF_HNSW_SQ"):
        if wanted(f"lancedb_{kind.lower()}") and "lancedb" not in MISSING:
            yield f"lancedb_{kind.lower()}", lance(rows, k, folder / "lance", kind)
    if "milvus_server" not in MISSING:
        async for name, engine in on_server(corpus, rows, k, folder / "milvus_server", servers, wanted):
            yield name, engine


async def on_server(
    corpus: ShardCorpus, rows: Vector, k: int, folder: Path, servers: AsyncExitStack, wanted: Callable[[str], bool]
) -> AsyncIterator[tuple[str, Engine]]:
    """The engines of a standalone Milvus server, which all share one."""
    sizes = {f"milvus_server_cells_{size}": size for size in SERVER_CELLS if 2 * size <= len(rows)}
    if not any(wanted(name) for name in ("milvus_server_whole", "milvus_server_hnsw", *sizes)):
        return
    server = servers.enter_context(milvus_server(folder))
    if wanted("milvus_server_whole"):
        yield "milvus_server_whole", await whole(rows, k, *server, flush=True)
    if wanted("milvus_server_hnsw"):
        yield "milvus_server_hnsw", await milvus_graph(rows, k, *server)
    for name, size in sizes.items():
        if wanted(name):
            yield name, await cells(corpus, rows, k, *server, size, flush=True)


def recall(engine: Engine, found: list[Any], best: NDArray[np.int64]) -> float:
    """Mean share of the true best rows among as many that were found."""
    shares = [len(set(engine.rows(one)[:K]) & set(of.tolist())) / K for one, of in zip(found, best, strict=True)]
    return float(np.mean(shares))


async def asked(engine: Engine, knob: Any, queries: Vector) -> tuple[list[Any], list[float]]:
    """Answers and milliseconds of each question; the first is asked once more before, to warm up."""
    await engine.search(queries[0], knob)
    found, spent = [], []
    for query in queries:
        began = time.perf_counter()
        found.append(await engine.search(query, knob))
        spent.append(1000 * (time.perf_counter() - began))
    return found, spent


async def tuned(engine: Engine, queries: Vector, best: NDArray[np.int64]) -> Any:
    """The knob with the least median time of those that reach the recall; the last one if none does. What is far from
    the recall, or slower than another, on a few questions is not asked the rest."""
    reached: dict[float, Any] = {}
    for knob in engine.knobs:
        found, spent = await asked(engine, knob, queries[:_GLANCE])
        hopeless = recall(engine, found, best[:_GLANCE]) < RECALL - _FAR or np.median(spent) > min(reached, default=1e9)
        if hopeless and len(engine.knobs) > 1:
            continue
        found, spent = await asked(engine, knob, queries)
        if recall(engine, found, best) >= RECALL:
            reached[float(np.median(spent))] = knob
    return reached[min(reached)] if reached else engine.knobs[-1]


async def compared(built: dict[str, Engine], queries: Vector, best: NDArray[np.int64]) -> dict[str, Any]:
    """Recall and times of all engines, which take turns, each turn beginning with another."""
    knobs = {name: await tuned(engine, queries, best) for name, engine in built.items()}
    found: dict[str, list[Any]] = defaultdict(list)
    spent: dict[str, list[float]] = defaultdict(list)
    names = list(built)
    for number, start in enumerate(range(0, len(queries), _TURN)):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            answers, times = await asked(built[name], knobs[name], queries[start : start + _TURN])
            found[name] += answers
            spent[name] += times
    return {name: _figures(built[name], knobs[name], found[name], spent[name], best) for name in names}


def _figures(
    engine: Engine, knob: Any, found: list[Any], spent: list[float], best: NDArray[np.int64]
) -> dict[str, Any]:
    seen, reached = [engine.seen(one) for one in found], recall(engine, found, best)
    return {
        "recall": round(reached, 4),
        **({} if reached >= RECALL else {"falls_short": True}),
        **{f"p{p}_ms": round(float(np.percentile(spent, p)), 2) for p in (50, 95)},
        **({} if knob is None else {"knob": knob}),
        **{name: round(float(np.mean([one[name] for one in seen])), 1) for name in seen[0]},
        **engine.built,
    }


async def bench(folder: Path, count: int, k: int, size: int, only: tuple[str, ...]) -> dict[str, Any]:
    """Build, tune, compare."""
    corpus = load(folder)
    rows = grown(corpus.rows, size or len(corpus.rows))
    queries = corpus.questions[np.random.default_rng(2).permutation(len(corpus.questions))[:count]]
    best = true_rows(rows, queries)
    built: dict[str, Engine] = {}
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as kept:
        os.chmod(kept, 0o755)  # Postgres runs as another account and has a folder in it
        async with AsyncExitStack() as servers:
            async for name, engine in engines(corpus, rows, k, Path(kept), servers, lambda name: name.startswith(only)):
                print(name, engine.built, file=sys.stderr, flush=True)
                built[name] = engine
            await asyncio.sleep(_SETTLE_S)
            found = await compared(built, queries, best)
    return {
        "bench": "shard_others",
        "rows": len(rows),
        "questions": count,
        "k": k,
        "numpy_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
        **found,
        **MISSING,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--k", type=int, default=100, help="hits a search returns; the service asks for 100")
    parser.add_argument("--rows", type=int, default=0, help="how many rows; all that VECTORS holds by default")
    parser.add_argument("--only", nargs="+", default=[""], help="what the names of the engines to build begin with")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.vectors, chosen.questions, chosen.k, chosen.rows, tuple(chosen.only))))


if __name__ == "__main__":
    main()
