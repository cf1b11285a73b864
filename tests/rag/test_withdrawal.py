"""What was deleted or replaced is shown nowhere any more: conversations, follow-ups, remembered answers, receipts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from rag import conversations
from rag.answer.generator import Delta
from rag.api import Exchange
from rag.chat import ChatTurn, turns_of
from rag.passages import Passage, Ranks
from rag.pipeline import Found
from rag.withdrawal import standing
from shards.embed import QueryEmbedding
from tenants.context import TenantContext
from tests.ingestion.damage import GRACE_IS_OVER, opened

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

SECRET = "The vault of the lighthouse opens with the word heliotrope."
CHANGED = "The vault of the lighthouse was walled up and has no door."
QUESTION = "Which word opens the vault of the lighthouse?"


async def ask(tenant: TenantAccess, **body: Any) -> dict[str, Any]:
    answer = await tenant.client.post("/v1/chat", json={"message": QUESTION, "stream": False, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("path", ["/v1/search", "/v1/chat", "stream"])
@pytest.mark.parametrize("how", ["delete", "replace"])
async def test_a_remembered_answer_is_not_replayed(tenant: TenantAccess, path: str, how: str) -> None:
    made = await tenant.upload(SECRET, external_id="vault")
    body = {"query": QUESTION} if path == "/v1/search" else {"message": QUESTION, "stream": path == "stream"}
    url, headers = path if path.startswith("/") else "/v1/chat", {"Idempotency-Key": str(uuid4())}
    first = await tenant.client.post(url, json=body, headers=headers)
    assert "heliotrope" in first.text
    again = await tenant.client.post(url, json=body, headers=headers)
    assert (again.text, again.headers["idempotency-replayed"]) == (first.text, "true")
    if how == "replace":
        await tenant.upload(CHANGED, external_id="vault")
    else:
        answer = await tenant.client.delete(f"/v1/documents/{made['document']['id']}")
        withdrawn = await tenant.client.post(url, json=body, headers=headers)
        assert (withdrawn.status_code, withdrawn.json()["code"]) == (409, "answer_withdrawn"), "at once"
        await tenant.job(answer.json()["job"]["id"])
    withdrawn = await tenant.client.post(url, json=body, headers=headers)
    assert (withdrawn.status_code, withdrawn.json()["code"]) == (409, "answer_withdrawn")
    assert "heliotrope" not in withdrawn.text


async def test_an_upload_is_replayed_although_its_document_was_deleted(tenant: TenantAccess) -> None:
    headers, files = {"Idempotency-Key": str(uuid4())}, {"file": ("n.txt", SECRET.encode())}
    first = await tenant.client.post("/v1/documents", files=files, headers=headers)
    await tenant.job(first.json()["job"]["id"])
    answer = await tenant.client.delete(f"/v1/documents/{first.json()['document']['id']}")
    await tenant.job(answer.json()["job"]["id"])
    again = await tenant.client.post("/v1/documents", files=files, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json()), "else a retry would bring it back"
    assert await tenant.search(QUESTION) == []


async def test_a_conversation_forgets_what_was_deleted(tenant: TenantAccess, stack: StackState) -> None:
    made = await tenant.upload(SECRET)
    await tenant.upload("Gulls nest on the pier in May.", "gulls.txt")
    said = await ask(tenant)
    assert "heliotrope" in said["answer"]
    birds = await ask(tenant, message="Where do gulls nest?", conversation_id=said["conversation_id"])
    path = f"/v1/conversations/{said['conversation_id']}"
    answer = await tenant.client.delete(f"/v1/documents/{made['document']['id']}")
    for moment in ("at once", "after the purge"):
        shown = (await tenant.client.get(path)).json()
        assert "heliotrope" not in json.dumps(shown), moment
        flags = [(one["role"], one["withdrawn"], one["outdated"]) for one in shown["messages"]]
        user, kept = ("user", False, False), ("assistant", False, False)
        assert flags == [user, ("assistant", True, True), user, kept]
        assert shown["messages"][1]["answer"]["citations"] == []
        assert shown["messages"][3]["content"] == birds["answer"], "what cites something else stays"
        followed = await ask(tenant, conversation_id=said["conversation_id"])
        assert "heliotrope" not in json.dumps(followed)
        if moment == "at once":
            receipt = (await tenant.job(answer.json()["job"]["id"]))["result"]
            assert (receipt["messages"], receipt["answers"]) == (1, 0)
            async with opened(stack) as stores:
                rows = await stores.sql(tenant, "SELECT content, answer::text AS answer FROM messages")
                assert not any("heliotrope" in row.content + (row.answer or "") for row in rows)
                await stores.sql(tenant, "DELETE FROM messages WHERE id > :after", after=birds["message_id"])


async def test_an_answer_from_a_replaced_version_stays_as_a_record(tenant: TenantAccess) -> None:
    await tenant.upload(SECRET, external_id="vault")
    said = await ask(tenant)
    await tenant.upload(CHANGED, external_id="vault")
    shown = (await tenant.client.get(f"/v1/conversations/{said['conversation_id']}")).json()["messages"][1]
    assert (shown["withdrawn"], shown["outdated"]) == (False, True)
    assert "heliotrope" in shown["content"]


async def embedded_anew(tenant: TenantAccess, admin: httpx.AsyncClient, stack: StackState) -> None:
    """Move the tenant to other chunks and wait until the old ones are gone."""
    async with opened(stack) as stores:
        before = {row.id for row in await stores.sql(tenant, "SELECT id FROM chunks")}
        answer = await admin.post(f"/v1/admin/tenants/{tenant.id}/reindex", json={"chunk_tokens": 40})
        for _ in range(600):
            job = (await admin.get(answer.headers["location"])).json()
            now = {row.id for row in await stores.sql(tenant, "SELECT id FROM chunks")}
            if job["state"] == "done" and not before & now:
                return
            for change in GRACE_IS_OVER:
                await stores.sql(tenant, change)
            await asyncio.sleep(0.1)
    raise AssertionError(f"{len(before & now)} chunks are still there after {job}")


async def test_what_was_said_holds_when_its_documents_are_embedded_anew(
    tenant: TenantAccess, admin: httpx.AsyncClient, stack: StackState
) -> None:
    await tenant.upload(SECRET, external_id="vault")
    said = await ask(tenant)
    replays = []
    for path, body in (
        ("/v1/search", {"query": QUESTION}),
        ("/v1/chat", {"message": QUESTION, "stream": False}),
        ("/v1/chat", {"message": QUESTION}),
    ):
        headers = {"Idempotency-Key": str(uuid4())}
        first = await tenant.client.post(path, json=body, headers=headers)
        assert first.status_code == 200, first.text
        replays.append((path, body, headers, first.text))
    await embedded_anew(tenant, admin, stack)
    shown = (await tenant.client.get(f"/v1/conversations/{said['conversation_id']}")).json()["messages"][1]
    assert (shown["withdrawn"], shown["outdated"]) == (False, False)
    for path, body, headers, first_text in replays:
        again = await tenant.client.post(path, json=body, headers=headers)
        assert (again.status_code, again.text) == (200, first_text)
    async with opened(stack) as stores, stores.database.tenant(UUID(tenant.id)) as session:
        told = await conversations.messages(session, UUID(tenant.id), UUID(said["conversation_id"]), last=9)
        history = turns_of(told, await standing(session, UUID(tenant.id), told))
        assert [turn.content for turn in history] == [QUESTION, said["answer"]]
    await tenant.upload(CHANGED, external_id="vault")
    shown = (await tenant.client.get(f"/v1/conversations/{said['conversation_id']}")).json()["messages"][1]
    assert (shown["withdrawn"], shown["outdated"]) == (False, True)
    for path, body, headers, _ in replays:
        assert (await tenant.client.post(path, json=body, headers=headers)).status_code == 409


async def test_the_receipt_of_a_delete_proves_it(tenant: TenantAccess, stack: StackState) -> None:
    made = await tenant.upload(SECRET)
    await ask(tenant)
    headers = {"Idempotency-Key": "receipt"}
    await tenant.client.post("/v1/search", json={"query": QUESTION}, headers=headers)
    answer = await tenant.client.delete(f"/v1/documents/{made['document']['id']}")
    receipt = (await tenant.job(answer.json()["job"]["id"]))["result"]
    counts = {name: receipt[name] for name in ("vectors", "lexical", "objects", "chunks", "versions", "messages")}
    assert counts == dict.fromkeys(counts, 1)
    assert receipt["answers"] == 1
    assert receipt["verified"] == {"vectors": 0, "lexical": 0, "objects": 0, "rows": 0}
    assert receipt["deleted_at"] == receipt["invisible_since"] <= receipt["purged_at"]
    async with opened(stack) as stores:
        rows = await stores.sql(tenant, "SELECT body::text AS body FROM idempotent_answers")
        assert not any("heliotrope" in (row.body or "") for row in rows)


class Slow:
    """An answerer that has said half of its answer when the document is deleted."""

    def __init__(self, passage: Passage, halfway: Any) -> None:
        self.passage, self.halfway = passage, halfway

    async def retrieve(self, *_: object) -> Found:
        query = QueryEmbedding(np.zeros(1, dtype=np.float32), np.zeros((0, 1), dtype=np.uint8), [])
        return Found([self.passage], [], {"total": 0.0}, query, {})

    async def answer(self, *_: object) -> AsyncIterator[Delta]:
        yield Delta("The word is ")
        await self.halfway()
        yield Delta("heliotrope.")


async def test_an_answer_that_is_streamed_ends_when_its_document_is_deleted(
    tenant: TenantAccess, stack: StackState
) -> None:
    made = await tenant.upload(SECRET)
    [hit] = await tenant.search(QUESTION, k=1)
    known = {"chunk_id": UUID(hit["chunk_id"]), "document_id": UUID(hit["document_id"]), "text": SECRET}
    empty = {"external_id": None, "title": "", "headings": (), "page": None, "start": 0, "end": 1, "version": 1}
    shown = {"as_of": datetime.now(UTC), "metadata": {}, "score": 1.0, "ranks": Ranks(1, 1, None)}

    async def gone() -> None:
        await tenant.client.delete(f"/v1/documents/{made['document']['id']}")
        await asyncio.sleep(0.6)

    async with opened(stack) as stores:
        slow = Slow(Passage(**known, **empty, **shown), gone)
        state = {"answerer": slow, "database": stores.database, "request_id": "r"}
        request = SimpleNamespace(state=SimpleNamespace(**state, problem=lambda error, _: {"code": error.code}))
        turn = ChatTurn(uuid4(), True, QUESTION, None, [])
        context = TenantContext(UUID(tenant.id), tenant.slug, "key")
        events = [event async for event in Exchange(request, context, turn).events()]  # type: ignore[arg-type]
    assert [event.split("\n")[0] for event in events] == ["event: retrieval", "event: delta", "event: error"]
    assert "answer_withdrawn" in events[-1]
    assert "heliotrope" not in events[1]
    assert (await tenant.client.get("/v1/conversations")).json()["items"] == [], "nothing of it is kept"
