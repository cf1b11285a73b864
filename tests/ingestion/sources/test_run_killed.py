"""A worker that is killed in the middle of a run: the run goes on elsewhere and counts every entry once."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.victims import kill

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.ingestion.sources.conftest import Sources
    from tests.ingestion.sources.site import Site

PAGES = 40


async def test_a_run_whose_worker_is_killed_is_finished_once(stack: StackState, site: Site, sources: Sources) -> None:
    for n in range(PAGES):
        site.put(f"/p{n}", f"<html><title>Page {n}</title><p>The page with number {n}.</p></html>")
    gate = threading.Event()
    site.pages["/p20"].wait = gate
    source = await sources.add("web", {"urls": [f"{site.url}/p{n}" for n in range(PAGES)]})
    client = sources.access.client
    job_id = (await client.post(f"/v1/sources/{source['id']}/run")).json()["job"]["id"]
    while "/p20" not in site.paths():
        await asyncio.sleep(0.05)
    assert (await sources.runs(source))[0]["added"] == 16, "what was read is written and counted, batch by batch"
    kill(Path(stack.env["TESSERA_DATA_DIR"]), "worker", whole=True)
    gate.set()
    job = await sources.access.job(job_id)
    assert (job["state"], job["attempts"]) == ("done", 2), job
    await sources.settled()
    [run] = await sources.runs(source)
    assert (run["state"], run["added"], run["changed"], run["failed"]) == ("done", PAGES, 0, 0)
    documents = (await client.get("/v1/documents", params={"limit": 100})).json()["items"]
    assert sorted(document["title"] for document in documents) == sorted(f"Page {n}" for n in range(PAGES))
    assert site.paths().count("/p0") == 1, "what was written before is not fetched again"
