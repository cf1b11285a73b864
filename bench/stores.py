"""Times of the two index stores alone: `python bench/stores.py [ROWS]` prints one JSON line a measurement.

Milvus Lite runs as a server of its own in a temporary folder. Vectors are synthetic (384 dimensions, scattered around
some hundred directions): times depend on counts, not on meaning; recall is measured elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from service.local.milvus import SERVER
from shards.bm25 import TantivyLexical
from shards.lexical import ChunkText
from shards.milvus import MilvusVectors
from shards.names import Space, lexical_name
from shards.settings import LexicalSettings, MilvusSettings
from shards.vectors import ChunkVector, VersionScope

DIM = 384
CELLS = 40
ROUNDS = 60
MEMTABLE_BYTES = 1024 * 1024


def report(name: str, **figures: object) -> None:
    """Print one line."""
    print(json.dumps({"bench": name, **figures}), flush=True)


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
        "p95_ms": round(1000 * ordered[int(len(ordered) * 0.95)], 2),
    }


async def timed(call: Callable[[int], Awaitable[object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Time a call, one at a time."""
    seconds = []
    for number in range(rounds):
        start = time.perf_counter()
        await call(number)
        seconds.append(time.perf_counter() - start)
    return quantiles(seconds)


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """Run a server and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", SERVER, "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": str(MEMTABLE_BYTES)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def synthetic(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors and the cell each belongs to."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CELLS, DIM))
    cells = rng.integers(0, CELLS, rows)
    vectors = (centres[cells] + 1.5 * rng.standard_normal((rows, DIM))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), cells


async def vectors(uri: str, rows: int) -> None:
    """Create, insert, search, filter, delete, scan."""
    store = MilvusVectors(MilvusSettings(uri=uri))
    await store.ping()
    matrix, cells = synthetic(rows)
    rng = np.random.default_rng(1)
    space = Space(uuid4(), 1, DIM)
    start = time.perf_counter()
    await store.create(space, cells=CELLS)
    report("vectors.create", cells=CELLS, seconds=round(time.perf_counter() - start, 3))
    start = time.perf_counter()
    for first in range(0, rows, 100):
        by_cell: dict[int, list[ChunkVector]] = {}
        for i in range(first, first + 100):
            by_cell.setdefault(int(cells[i]), []).append(ChunkVector(uuid4(), 3 * (i // 5) + 1, matrix[i]))
        await store.insert(space, by_cell)
    report("vectors.insert", batch=100, rows_per_s=round(rows / (time.perf_counter() - start)))
    await asyncio.sleep(2)
    for visited in (1, 4, 8, 16, CELLS):
        chosen = [[int(c) for c in rng.choice(CELLS, visited, replace=False)] for _ in range(ROUNDS)]
        found = await timed(lambda i, c=chosen: store.search(space, matrix[i], k=100, cells=c[i], scope=None))  # type: ignore[misc]
        report("vectors.search", k=100, cells=visited, of=CELLS, rows=rows, **found)
    known = 3 * np.arange(rows // 5) + 1
    for versions in (10, 100, 256, 1000, len(known) // 2, len(known)):
        scopes = [VersionScope(np.sort(rng.choice(known, versions, replace=False))) for _ in range(ROUNDS)]
        found = await timed(lambda i, s=scopes: store.search(space, matrix[i], k=50, cells=[*range(16)], scope=s[i]))  # type: ignore[misc]
        report("vectors.search in scope", k=50, cells=16, of=CELLS, versions=versions, known=len(known), **found)
    start = time.perf_counter()
    scanned = sum([len(page) async for page in store.scan(space)])
    report("vectors.scan", rows=scanned, seconds=round(time.perf_counter() - start, 2))
    report("vectors.count", **await timed(lambda _: store.count(space), 5))
    found = await timed(lambda i: store.delete_versions(space, [3 * i + 1]), 20)
    report("vectors.delete one version", **found)
    await store.aclose()


async def lexical(folder: Path, rows: int) -> None:
    """Insert and search texts made of words with a natural distribution."""
    store = TantivyLexical(LexicalSettings(path=folder))
    rng = np.random.default_rng(2)
    index = lexical_name(uuid4())

    def text(words: int) -> str:
        return " ".join(f"w{n}" for n in rng.zipf(1.3, words) % 50_000)

    start = time.perf_counter()
    for first in range(0, rows, 1000):
        await store.insert(
            index, [ChunkText(uuid4(), 3 * i + 1, text(6), text(120)) for i in range(first, first + 1000)]
        )
    report("lexical.insert", batch=1000, rows_per_s=round(rows / (time.perf_counter() - start)))
    questions = [text(12) for _ in range(ROUNDS)]
    found = await timed(lambda i: store.search(index, questions[i], k=100, scope=None))
    report("lexical.search", k=100, rows=rows, **found)
    for versions in (100, 10_000):
        scope = VersionScope(np.sort(rng.choice(3 * np.arange(rows) + 1, min(versions, rows), replace=False)))
        found = await timed(lambda i, s=scope: store.search(index, questions[i], k=100, scope=s))  # type: ignore[misc]
        report("lexical.search in scope", versions=versions, **found)
    found = await timed(lambda i: store.insert(index, [ChunkText(uuid4(), i, "", text(50))]), 20)
    report("lexical.insert one", **found)
    await store.aclose()


async def main(rows: int) -> None:
    """Run all."""
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as folder:
        with milvus_lite(Path(folder) / "milvus") as uri:
            await vectors(uri, rows)
        await lexical(Path(folder) / "lexical", rows)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
