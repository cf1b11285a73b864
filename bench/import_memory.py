"""Memory of every process while 10,000 small documents are ingested in one go; prints one JSON line.

    python -m bench.import_memory [--documents 10000]

PSS (RSS where the kernel does not tell) of each child of the stack is read every second. A first tenth warms the
processes up; the slope is that of a straight line (least squares) through the rest, in MB for 1,000 documents, and is
given beside what the straight line cannot explain. Milvus and Postgres hold the documents, so theirs cannot be flat:
what 1,000 documents take in them is the slope. At the end no job may be left waiting or running.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.imports import send
from bench.local_stack import arguments, print_line, running
from bench.memory import resident, trees
from eval.client import TesseraClient
from eval.progress import Silent
from eval.scratch import workplace
from eval.settle import settle
from service.local.state import StackState

FLAT_MB = 2.0
"""Growth for 1,000 documents of a process that holds none of them, below which it counts as flat."""
HOLDERS = ("milvus", "postgres")


async def watched(state: StackState, done: asyncio.Event) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    while not done.is_set():
        for name, pids in (await asyncio.to_thread(trees, state)).items():
            held = await asyncio.to_thread(resident, pids)
            found[name].append((held.pss or held.rss) / 1e6)
        await asyncio.sleep(1)
    return found


def slope(sizes: list[float], documents: int) -> dict[str, float]:
    """Through nine tenths of the run, which is taken as even."""
    kept = np.array(sizes[len(sizes) // 10 :])
    at = np.linspace(0.1, 1.0, len(kept)) * documents / 1000
    grown, base = np.polyfit(at, kept, 1)
    off = float(np.std(kept - (grown * at + base)))
    return {
        "mb_per_1000": round(float(grown), 2),
        "first_mb": round(float(kept[0]), 1),
        "last_mb": round(float(kept[-1]), 1),
        "residual_mb": round(off, 1),
    }


async def bench(data_dir: Path, count: int) -> dict[str, Any]:
    state, _ = running(data_dir)
    async with TesseraClient(state.url, state.admin_key) as admin:
        scratch = workplace(admin, Silent(), name="bench-memory", slug=None, keep=False, bm25_weight=None)
        async with scratch as place, TesseraClient(state.url, place.key) as client:
            await client.wait_for_jobs(await send(client, 50_000_000, 200))
            done = asyncio.Event()
            watching = asyncio.create_task(watched(state, done))
            began = time.perf_counter()
            ids = await send(client, 0, count)
            await settle(client, ids, Silent(), first_pause_s=1.0, longest_pause_s=2.0)
            seconds = time.perf_counter() - began
            done.set()
            sizes = await watching
            states = Counter([job["state"] async for job in client.jobs() if job["kind"] != "drop_generation"])
            searchable = len([None async for _ in client.documents(state="active")])
    slopes = {name: slope(values, count) for name, values in sizes.items() if len(values) > 10}
    left = sum(states[state] for state in ("queued", "running", "retrying", "failed"))
    flat = {name: one["mb_per_1000"] <= FLAT_MB for name, one in slopes.items() if name not in HOLDERS}
    return {
        "bench": "import_memory",
        "documents": count,
        "seconds": round(seconds, 1),
        "processes": slopes,
        "flat": flat,
        "jobs": dict(states),
        "active_documents": searchable,
        "ok": all(flat.values()) and not left and searchable == count + 200,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--documents", type=int, default=10_000, help="documents to ingest")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.documents)))


if __name__ == "__main__":
    main()
