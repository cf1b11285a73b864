"""What a check of a tenant's stores takes, by its size; prints one JSON line.

    python -m bench.fsck [--data-dir .tessera] [--chunks 2000,8000] [--deep]

For each size a tenant is filled with documents of one chunk, and when it is at rest it is checked. `seconds` are those
that the check itself says; `grown_mb` is how far the worker's processes grew above what they held before it, by their
resident memory looked at twenty times a second. The report must find nothing, and as many rows in each store as there
are chunks, or the run fails.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bench.local_stack import arguments, print_line, running
from eval.bulk import NewDocument, in_requests
from eval.client import TesseraClient, Uploaded
from eval.progress import Silent
from eval.scratch import workplace
from eval.settle import settle
from service.local import processes
from service.local.state import StackState

_LOOK_S = 0.05
_GOODS = ("copper", "barley", "cotton", "amber", "timber", "saffron", "wool", "salt", "indigo", "pepper")


def documents(count: int) -> list[NewDocument]:
    """Return documents of one chunk each, all of them different."""
    texts = [
        f"Lot {n} holds {_GOODS[n % 10]} and {_GOODS[n // 10 % 10]}, weighed {n % 97} times." for n in range(count)
    ]
    return [NewDocument(f"{n}.txt", text.encode(), external_id=str(n)) for n, text in enumerate(texts)]


def worker_bytes(state: StackState) -> int:
    """Return the resident memory of the worker and its children."""
    worker = next(child for child in state.children if child.name == "worker")
    tree = processes.session_tree(worker.pid, worker.identity)
    return sum(processes.resident_bytes(pid, descendants=False) for pid in tree)


async def checked(admin: TesseraClient, state: StackState, tenant_id: str, *, deep: bool) -> tuple[dict[str, Any], int]:
    """Check a tenant; return the report, and by how many bytes the worker grew meanwhile."""
    before = most = worker_bytes(state)
    job = await admin.fsck(tenant_id, deep=deep)
    while job["state"] not in ("done", "failed"):
        most = max(most, worker_bytes(state))
        await asyncio.sleep(_LOOK_S)
        job = await admin.job(job["id"])
    if job["state"] != "done":
        raise SystemExit(f"the check failed: {job['error']}")
    return job["result"], most - before


async def measured(state: StackState, chunks: int, *, deep: bool) -> dict[str, Any]:
    """Fill a tenant, check it, and return the figures."""
    assert state.url is not None
    async with (
        TesseraClient(state.url, state.admin_key or "") as admin,
        workplace(admin, Silent(), name="fsck", slug=None, keep=False, bm25_weight=None) as tenant,
        TesseraClient(state.url, tenant.key) as client,
    ):
        jobs: list[str] = []
        for group in in_requests(documents(chunks), lambda one: len(one.content)):
            for taken in await client.upload_many(group):
                assert isinstance(taken, Uploaded), taken
                assert taken.job is not None
                jobs.append(taken.job["id"])
        await settle(client, jobs, Silent())
        report, grown = await checked(admin, state, tenant.id, deep=deep)
    held = [report["checked"][kind] for kind in ("chunks", "vectors", "lexical", "objects")]
    if report["total"] or held != [chunks] * 4:
        raise SystemExit(f"{chunks} chunks, but the report is {report}")
    return {"chunks": chunks, "seconds": report["seconds"], "grown_mb": round(grown / 1e6, 1)}


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--chunks", default="2000,8000", help="sizes, separated by commas")
    parser.add_argument("--deep", action="store_true", help="read the originals and ask for the words of each chunk")
    chosen = parser.parse_args()
    state, _ = running(chosen.data_dir)
    sizes = [int(size) for size in chosen.chunks.split(",")]
    found = [asyncio.run(measured(state, size, deep=chosen.deep)) for size in sizes]
    print_line({"bench": "fsck", "deep": chosen.deep, "sizes": found})


if __name__ == "__main__":
    main()
