"""One tenant's import beside another's single uploads; prints one JSON line.

    python -m bench.fairness [--documents 5000] [--idle 7] [--during 12]

Tenant B uploads single documents while nothing else goes on, each timed from the request until a search finds it. Then
tenant A imports its documents as fast as they are taken, and B uploads again, one at a time, until A's are done or
`--during` uploads are timed; so does A itself, beside its own import. Bar: no upload of B takes longer than twice its
median time on the idle stack, or five seconds, whichever is more.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

from bench.imports import freshness, send
from bench.local_stack import arguments, print_line, running
from eval.client import TesseraClient
from eval.progress import Silent
from eval.scratch import workplace

LEAST_BAR_S = 5.0
OWN, OTHER = 10_000_000, 20_000_000
"""First numbers of A's and B's single documents; its import begins at 0."""


async def whole(client: TesseraClient, number: int) -> float:
    return sum(await freshness(client, number))


async def ended(client: TesseraClient, ids: list[str]) -> int:
    """How many of the jobs have ended; the list is read newest first, so the last page says it soonest."""
    waiting = 0
    for state in ("queued", "running", "retrying"):
        async for job in client.jobs(state=state):
            waiting += job["kind"] == "ingest"
    return len(ids) - waiting


async def bench(data_dir: Path, count: int, idle: int, during: int) -> dict[str, Any]:
    state, _ = running(data_dir)
    async with TesseraClient(state.url, state.admin_key) as admin:
        places = [
            workplace(admin, Silent(), name=f"bench-fair-{name}", slug=None, keep=False, bm25_weight=None)
            for name in ("a", "b")
        ]
        async with (
            places[0] as a,
            places[1] as b,
            TesseraClient(state.url, a.key) as large,
            TesseraClient(state.url, b.key) as small,
        ):
            await whole(small, OTHER)  # the first makes the tenant's index
            quiet = [await whole(small, OTHER + 1 + number) for number in range(idle)]
            began = time.perf_counter()
            importing = asyncio.create_task(send(large, 0, count))
            busy, own = [], []
            for number in range(during):
                busy.append(await whole(small, OTHER + 1000 + number))
                own.append(await whole(large, OWN + number))
            ids = await importing
            uploaded_s = time.perf_counter() - began
            under_way = len(ids) - await ended(large, ids)
            await large.wait_for_jobs(ids)
            import_s = time.perf_counter() - began
    bar = max(LEAST_BAR_S, 2 * statistics.median(quiet))
    return {
        "bench": "fairness",
        "documents": count,
        "idle_s": {"median": round(statistics.median(quiet), 3), "worst": round(max(quiet), 3)},
        "beside_import_s": {"median": round(statistics.median(busy), 3), "worst": round(max(busy), 3)},
        "own_upload_beside_import_s": {"median": round(statistics.median(own), 3), "worst": round(max(own), 3)},
        "uploads_timed": len(busy),
        "documents_under_way_after_them": under_way,
        "import_s": {"taken": round(uploaded_s, 1), "done": round(import_s, 1)},
        "bar_s": round(bar, 2),
        "ok": max(busy) <= bar,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--documents", type=int, default=5000, help="documents of the import")
    parser.add_argument("--idle", type=int, default=7, help="uploads timed on the idle stack")
    parser.add_argument("--during", type=int, default=12, help="uploads of each tenant timed beside the import")
    chosen = parser.parse_args()
    print_line(asyncio.run(bench(chosen.data_dir, chosen.documents, chosen.idle, chosen.during)))


if __name__ == "__main__":
    main()
