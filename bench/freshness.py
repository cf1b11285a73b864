"""From the 202 of an upload until a search finds the document, idle and under load; prints one JSON line.

    python -m bench.freshness [--uploads 100] [--documents 3000]

The load: another tenant imports `--documents` documents in bulk, and a third asks all the time. The tenant that is
timed has 1,000 documents already. The search is asked every 20 ms, so a time is at most that and one search too long.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from bench.imports import freshness, mark, send
from bench.local_stack import arguments, print_line, running
from eval.client import TesseraClient
from eval.progress import Silent
from eval.scratch import workplace

HELD = 1000
FIRST = 30_000_000


async def ask(client: TesseraClient, until: asyncio.Event) -> int:
    asked = 0
    while not until.is_set():
        await client.search(f"which office recorded entry {mark(asked % HELD)}?")
        asked += 1
    return asked


async def timed(client: TesseraClient, first: int, count: int) -> list[float]:
    return [(await freshness(client, first + number))[1] for number in range(count)]


def shown(seconds: list[float]) -> dict[str, float]:
    return {f"p{at}": round(float(np.percentile(seconds, at)), 3) for at in (50, 95, 100)}


async def bench(data_dir: Path, uploads: int, count: int) -> dict[str, Any]:
    state, _ = running(data_dir)
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(TesseraClient(state.url, state.admin_key))
        clients = []
        for name in ("timed", "importing", "asking"):
            scratch = workplace(admin, Silent(), name=f"bench-{name}", slug=None, keep=False, bm25_weight=None)
            place = await stack.enter_async_context(scratch)
            clients.append(await stack.enter_async_context(TesseraClient(state.url, place.key)))
        own, importing, asking = clients
        for client in (own, asking):
            await client.wait_for_jobs(await send(client, 0, HELD))
        idle = await timed(own, FIRST, uploads)
        done = asyncio.Event()
        asked = asyncio.create_task(ask(asking, done))
        load = asyncio.create_task(send(importing, 0, count))
        await asyncio.sleep(1)
        loaded = await timed(own, FIRST + 10_000, uploads)
        done.set()
        ids = await load
        left = [job["state"] async for job in importing.jobs(state="queued")]
        await importing.wait_for_jobs(ids)
        return {
            "bench": "freshness",
            "uploads": uploads,
            "idle_s": shown(idle),
            "under_load_s": shown(loaded),
            "questions_beside": await asked,
            "import_still_queued_at_the_end": len(left),
        }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--uploads", type=int, default=100, help="uploads timed idle, and again under load")
    parser.add_argument("--documents", type=int, default=3000, help="documents of the import beside them")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.uploads, chosen.documents)))


if __name__ == "__main__":
    main()
