"""A tenant grows past the threshold of cells while it uploads, deletes and asks: nothing is lost, doubled or stale."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.conftest import CELL_ROWS, CELLS_FROM, TenantAccess

if TYPE_CHECKING:
    import httpx

GOODS = ("copper", "barley", "cotton", "amber", "timber", "saffron", "wool", "salt", "indigo", "pepper")
DOCUMENTS = CELLS_FROM + 100
"""Of one chunk each."""
GROWN = 5 * CELL_ROWS // 2
"""Enough to fill a cell, too little to have all of them trained anew."""
LOOKS = 1500
"""At 0.05 s and a question each: an upkeep that never comes fails."""


def text_of(number: int) -> str:
    if number >= DOCUMENTS:
        return f"Lot {number} holds {GOODS[0]} and {GOODS[0]}."
    return f"Lot {number} holds {GOODS[number % 10]} and {GOODS[number // 10 % 10]}."


async def upload(tenant: TenantAccess, numbers: range) -> list[dict[str, Any]]:
    files = [("file", (f"{n}.txt", text_of(n).encode(), "text/plain")) for n in numbers]
    form = {"items": json.dumps([{"external_id": str(n), "metadata": {"number": n}} for n in numbers])}
    answer = await tenant.client.post("/v1/documents/bulk", files=files, data=form)
    assert answer.status_code == 202, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def jobs(tenant: TenantAccess, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await tenant.client.get("/v1/jobs", params={"state": state, "limit": 100})).json()[
        "items"
    ]
    return [job for job in found if job["kind"] != "drop_generation"]


async def unfinished(tenant: TenantAccess) -> list[dict[str, Any]]:
    return [job for state in ("queued", "running", "retrying") for job in await jobs(tenant, state)]


async def test_cells_are_trained_while_the_tenant_is_in_use(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    ended = asyncio.Event()
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while not ended.is_set():
            hits = await tenant.search("Lot 0 holds copper and copper.", k=3)
            assert [hit["external_id"] for hit in hits].count("0") == 1, "found at every moment, once"
            asked += 1
            await asyncio.sleep(0.05)

    first = await upload(tenant, range(100))
    await tenant.job(first[0]["job"]["id"])
    asking = asyncio.create_task(ask())
    made = {item["document"]["external_id"]: item["document"]["id"] for item in first}
    for start in range(100, DOCUMENTS, 100):
        items = await upload(tenant, range(start, start + 100))
        made |= {item["document"]["external_id"]: item["document"]["id"] for item in items}
    deleted = [str(n) for n in range(50, DOCUMENTS, 37)]
    upkeep: dict[str, dict[str, Any]] = {}
    for _ in range(LOOKS):
        if any("cells" in one for one in upkeep.values()) and not await unfinished(tenant):
            break
        if deleted:  # deletions go on while the cells are trained and the rows copied
            gone = deleted.pop()
            assert (await tenant.client.delete(f"/v1/documents/{made.pop(gone)}")).status_code == 202
        upkeep |= {job["id"]: job["result"] for job in await jobs(tenant, "done") if job["kind"] == "partition"}
        await asyncio.sleep(0.05)
        assert not asking.done(), "a search failed"
    ended.set()
    await asking
    assert asked > 5
    assert not await jobs(tenant, "failed")
    cells = 0
    for one in (upkeep[job_id] for job_id in sorted(upkeep)):  # ids grow with time; later ones divide and join some
        cells = one["cells"] if "cells" in one else cells + one["split"] - one["merged"]
    assert cells > 10, "cells were trained"

    answer = (
        await tenant.client.post("/v1/search", json={"query": text_of(DOCUMENTS - 1), "k": 3, "debug": True})
    ).json()
    assert answer["hits"][0]["external_id"] == str(DOCUMENTS - 1)
    assert answer["debug"]["cells"]["total"] == cells
    gone_for_good = [number for number in range(50, DOCUMENTS, 37) if str(number) not in made]
    assert len(gone_for_good) > 5, "deletions went on meanwhile"
    for number in gone_for_good:
        hits = await tenant.search(text_of(number), k=5)
        assert str(number) not in [hit["external_id"] for hit in hits], "deleted stays deleted in the new generation"
    for number in range(7, DOCUMENTS, 151):
        body = {"query": text_of(number), "k": 5, "exact": True}
        found = [hit["external_id"] for hit in (await tenant.client.post("/v1/search", json=body)).json()["hits"]]
        assert found.count(str(number)) == (str(number) in made), number

    await one_topic_grows(tenant)
    await what_is_seen_of_it(tenant, admin)


async def one_topic_grows(tenant: TenantAccess) -> None:
    """A cell that takes in too much is divided while the tenant asks; nothing is lost or doubled."""
    ended = asyncio.Event()
    wanted = text_of(DOCUMENTS)

    async def ask() -> None:
        while not ended.is_set():
            hits = await tenant.search(wanted, k=3)
            assert [hit["external_id"] for hit in hits].count(str(DOCUMENTS)) == 1, "found at every moment, once"
            await asyncio.sleep(0.05)

    first = await upload(tenant, range(DOCUMENTS, DOCUMENTS + 1))
    await tenant.job(first[0]["job"]["id"])
    asking = asyncio.create_task(ask())
    grown = range(DOCUMENTS + 1, DOCUMENTS + GROWN)
    for start in range(grown.start, grown.stop, 100):
        await upload(tenant, range(start, min(start + 100, grown.stop)))
    divided: list[dict[str, Any]] = []
    for _ in range(LOOKS):
        if divided and not await unfinished(tenant):
            break
        upkeep = [job for job in await jobs(tenant, "done") if job["kind"] == "partition"]
        divided = [job for job in upkeep if job["result"].get("split")] or divided
        await asyncio.sleep(0.05)
        assert not asking.done(), "a search failed"
    ended.set()
    await asking
    assert not await jobs(tenant, "failed")
    assert divided, "a cell was divided"
    for number in range(DOCUMENTS, DOCUMENTS + GROWN, 47):
        for tree, plan in (({"eq": number}, "matches"), ({"gte": 40, "lte": number}, "cells")):
            body = {"query": text_of(number), "k": 100, "filter": {"number": tree}, "debug": True}
            answer = (await tenant.client.post("/v1/search", json=body)).json()
            assert answer["debug"]["plan"] == plan
            found = [hit["external_id"] for hit in answer["hits"]]
            assert len(found) == len(set(found)) == (1 if plan == "matches" else 100)
            assert plan == "cells" or found == [str(number)]


async def what_is_seen_of_it(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    """The searches were counted by cell, and some were asked again of every cell."""
    path = f"/v1/admin/tenants/{tenant.id}/shards"
    shown: dict[str, Any] = {}
    for number in range(600):
        await tenant.search(text_of(number * 7 % DOCUMENTS), k=5)
        if number % 50 == 49:
            shown = (await admin.get(path)).json()
            if shown["recall"] is not None and sum(cell["heat"] for cell in shown["cells"]) > 50:
                break
            await asyncio.sleep(1)
    assert shown["recall"]["samples"] >= 1
    assert 0 < shown["recall"]["recall"] <= 1
    assert shown["searches"] > 50
    assert sum(cell["heat"] for cell in shown["cells"]) > 50
    assert sum(cell["rows"] for cell in shown["cells"]) == shown["rows"]
    assert [change["kind"] for change in shown["changes"]].count("split") >= 1
    assert shown["calibration"]["source"] in ("sentences", "questions")
    assert shown["calibration"]["target"] == 0.98
