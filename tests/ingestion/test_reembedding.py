"""A tenant moves to another embedding model, or other chunks, while it is in use: nothing is lost, doubled or stale."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.embedding_server import NAME

if TYPE_CHECKING:
    import httpx

    from tests.conftest import TenantAccess
    from tests.embedding_server import EmbeddingServer

GOODS = ("copper", "barley", "cotton", "amber", "timber", "saffron", "wool", "salt", "indigo", "pepper")
FIRST = 40
"""More than one step of a move writes."""


def line_of(number: int, edition: int = 1) -> str:
    goods = f"{GOODS[number % 10]} and {GOODS[number // 10 % 10]}"
    return f"Lot {number} of store {number * 37} holds {goods}, seen {edition}."


def text_of(number: int, edition: int = 1) -> str:
    """Some paragraphs, so that a document has one chunk of 200 tokens and several of 40."""
    rows = [f"Row {row} of the ledger: {GOODS[(number + row) % 10]} was weighed at gate {row}." for row in range(6)]
    return "\n\n".join([line_of(number, edition), *rows])


@dataclass
class Shop:
    """A tenant, what it holds now, and what was found wrong."""

    tenant: TenantAccess
    held: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Document id and edition of the text, by number."""
    gone: set[int] = field(default_factory=set)
    changing: set[int] = field(default_factory=set)
    """Documents whose next text is on its way: either may be found."""
    asked: int = 0

    async def upload(self, numbers: range, edition: int = 1) -> None:
        self.changing |= set(numbers)
        files = [("file", (f"{n}.txt", text_of(n, edition).encode(), "text/plain")) for n in numbers]
        form = {"items": json.dumps([{"external_id": str(n), "metadata": {"number": n}} for n in numbers])}
        answer = await self.tenant.client.post("/v1/documents/bulk", files=files, data=form)
        assert answer.status_code == 202, answer.text
        items = answer.json()["items"]
        for item in items:
            job = await self.tenant.job(item["job"]["id"])
            assert job["state"] == "done", job
        for number, item in zip(numbers, items, strict=True):
            self.held[number] = (item["document"]["id"], edition)
        self.changing -= set(numbers)

    async def delete(self, number: int) -> None:
        document_id, _ = self.held.pop(number)
        self.gone.add(number)
        assert (await self.tenant.client.delete(f"/v1/documents/{document_id}")).status_code == 202

    async def ask(self, number: int) -> dict[str, Any]:
        body = {"query": line_of(number), "k": 40, "exact": True, "filter": {"number": {"eq": number}}, "debug": True}
        answer = await self.tenant.client.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["degraded"] == [], found["degraded"]
        return found

    async def check(self, number: int) -> None:
        """What was held before and after a question is found in it, each passage once; what was deleted is not."""
        before, gone = self.held.get(number), number in self.gone
        stable = number not in self.changing
        hits = (await self.ask(number))["hits"]
        self.asked += 1
        assert len({hit["chunk_id"] for hit in hits}) == len(hits)
        if gone:
            assert hits == [], number
        elif before is not None and stable and number not in self.changing and self.held.get(number) == before:
            whole = " ".join(hit["text"] for hit in hits)
            assert whole.count(line_of(number, before[1])) == 1, (number, whole)
            for row in range(6):
                assert whole.count(f"Row {row} of the ledger") == 1, (number, row, whole)

    async def chat(self, number: int, conversation: str | None = None) -> dict[str, Any]:
        """Ask for an answer; it is whole, and its citation says where it is from."""
        body = {"message": f"What does lot {number} of store {number * 37} hold?", "stream": False}
        body |= {"conversation_id": conversation} if conversation else {}
        answer = await self.tenant.client.post("/v1/chat", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert (found["degraded"], found["abstained"]) == ([], False)
        assert self.held[number][0] in [citation["document_id"] for citation in found["citations"]]
        return found

    async def keep_asking(self, ended: asyncio.Event) -> None:
        number = 0
        while not ended.is_set():
            number += 7
            known = sorted({*self.held, *self.gone})
            await self.check(known[number % len(known)])
            await asyncio.sleep(0.05)


async def finished(admin: httpx.AsyncClient, location: str, seen: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    for _ in range(1200):
        job: dict[str, Any] = (await admin.get(location)).json()
        if seen is not None:
            seen.append(job)
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(job)


async def reindex(admin: httpx.AsyncClient, tenant: TenantAccess, **wanted: Any) -> str:
    answer = await admin.post(f"/v1/admin/tenants/{tenant.id}/reindex", json=wanted)
    assert answer.status_code == 202, answer.text
    location: str = answer.headers["location"]
    return location


async def divided(admin: httpx.AsyncClient, tenant: TenantAccess, cells: int) -> None:
    """Wait until the upkeep after the switch has divided the new vectors."""
    for _ in range(600):
        shown = (await admin.get(f"/v1/admin/tenants/{tenant.id}/shards")).json()
        if len(shown["cells"]) == cells:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(shown)


@pytest.mark.parametrize("tier", ["pooled", "dedicated"])
async def test_a_tenant_moves_while_it_is_in_use(
    tenant: TenantAccess, admin: httpx.AsyncClient, embedding_server: EmbeddingServer, tier: str
) -> None:
    shop = Shop(tenant)
    await shop.upload(range(FIRST))
    placed = await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": tier})
    assert (await finished(admin, placed.headers["location"]))["state"] == "done"
    first = await shop.chat(5)
    ended = asyncio.Event()
    asking, overlapped = asyncio.create_task(shop.keep_asking(ended)), 0
    moves: dict[str, list[dict[str, Any]]] = {
        "pooled": [{"chunk_tokens": 40, "embedding_model": NAME}],
        "dedicated": [
            {"embedding_model": NAME, "cells": 3},
            {"chunk_tokens": 40, "embedding_model": "all-MiniLM-L6-v2-float32"},
        ],
    }
    for move in moves[tier]:
        embedding_server.delay_s = 0.3
        location = await reindex(admin, tenant, **move)
        turn = max(shop.held)
        for round_ in range(3):  # uploads, replacements and deletions go on
            before = (await admin.get(location)).json()["state"]
            await shop.upload(range(turn + 1 + 4 * round_, turn + 5 + 4 * round_))
            await shop.upload(range(20 + 2 * round_, 22 + 2 * round_), edition=shop.held[20][1] + 1)
            await shop.delete(sorted(shop.held)[10 + round_])
            assert not asking.done(), "a question failed"
            overlapped += before != "done"
        embedding_server.delay_s = 0.0
        job = await finished(admin, location)
        assert job["state"] == "done", job
        assert job["result"]["embedding_model"] == move["embedding_model"]
        assert job["result"]["documents_failed"] == 0
        if tier == "dedicated" and "cells" in move:
            await divided(admin, tenant, move["cells"])
        hits = (await shop.ask(5))["hits"]
        assert min(hit["ranks"]["rerank"] for hit in hits) == 1, "reranked by any model"
        assert (await shop.chat(6, first["conversation_id"]))["conversation_id"] == first["conversation_id"]
        for number in sorted({*shop.held, *shop.gone})[::2]:
            await shop.check(number)
        assert not asking.done(), "a question failed"
    ended.set()
    await asking
    told = (await tenant.client.get(f"/v1/conversations/{first['conversation_id']}")).json()["messages"]
    assert told[1]["answer"]["citations"] == first["citations"], "what was answered before stays"
    assert shop.asked > FIRST
    assert overlapped >= 2
    assert job["result"]["chunks"] > job["result"]["documents"]
