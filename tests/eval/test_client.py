"""The client against the real service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eval.client import ApiProblem, TesseraClient

TEXT = b"# Harbour\n\n## Closing time\n\nThe harbour closes at 19:00 in summer.\n\n## Boats\n\nAll boats are red.\n"


@pytest.fixture
async def client(stack: Any, tenant: Any) -> AsyncIterator[TesseraClient]:
    async with TesseraClient(stack.url, tenant.key) as opened:
        yield opened


@pytest.fixture
async def operator(stack: Any) -> AsyncIterator[TesseraClient]:
    async with TesseraClient(stack.url, stack.admin_key) as opened:
        yield opened


async def test_a_document_from_upload_to_answer_to_delete(client: TesseraClient, tmp_path: Path) -> None:
    path = tmp_path / "hafen – größe.md"
    path.write_bytes(TEXT)
    sent = await client.upload(
        path, external_id="harbour", title="Harbour rules", metadata={"team": "port", "year": 2026}
    )
    assert sent.new
    assert sent.job is not None
    states: list[str] = []
    job = await client.wait_for_job(sent.job["id"], on_change=lambda seen: states.append(seen["state"]))
    assert (job["state"], states[-1]) == ("done", "done")

    again = await client.upload(
        TEXT, filename="x.md", external_id="harbour", title="Harbour rules", metadata={"team": "port"}
    )
    assert (again.new, again.document["id"]) == (False, sent.document["id"])

    document_id = sent.document["id"]
    assert [found["id"] async for found in client.documents(filter={"team": {"eq": "port"}})] == [document_id]
    assert [found["id"] async for found in client.documents(state="failed")] == []
    async with client.download(document_id) as original:
        assert original.filename == "hafen – größe.md"
        assert b"".join([block async for block in original.blocks]) == TEXT
    chunks = [chunk async for chunk in client.chunks(document_id)]
    assert chunks[0]["headings"][-1] == "Closing time"

    found = await client.search("When does the harbour close?", k=1, debug=True)
    assert "19:00" in found["hits"][0]["text"]
    events = [event async for event in client.chat("When does the harbour close?")]
    assert [events[0][0], events[-1][0]] == ["retrieval", "done"]
    conversation = events[-1][1]["conversation_id"]
    whole = await client.ask("And what colour are the boats?", conversation_id=conversation)
    assert whole["conversation_id"] == conversation
    assert len((await client.conversation(conversation))["messages"]) == 4
    await client.delete_conversation(conversation)
    assert [item async for item in client.conversations()] == []

    gone = await client.wait_for_job((await client.delete_document(document_id))["id"])
    assert gone["state"] == "done"
    with pytest.raises(ApiProblem) as caught:
        await client.document(document_id)
    assert (caught.value.status, bool(caught.value.request_id)) == (404, True)


async def test_lists_are_read_to_their_end(client: TesseraClient) -> None:
    sent = [await client.upload(f"Number {n}.".encode(), filename=f"{n}.txt", external_id=str(n)) for n in range(5)]
    listed = [found["external_id"] async for found in client.documents(page=2)]
    assert listed == ["4", "3", "2", "1", "0"]
    jobs = await client.wait_for_jobs([upload.job["id"] for upload in sent if upload.job])
    assert {job["state"] for job in jobs} == {"done"}
    assert len([job async for job in client.jobs(state="done")]) == 5


async def test_tenants_and_keys(operator: TesseraClient, tenant: Any) -> None:
    same, made = await operator.create_tenant(tenant.slug, "tenant")
    assert (same["id"], made) == (tenant.id, False)
    changed = await operator.change_tenant(tenant.id, settings={"bm25_weight": 0.4})
    assert changed["settings"] == {"bm25_weight": 0.4}
    key = await operator.create_key(tenant.id, "second", expires_at="2099-01-01T00:00:00Z")
    assert [item["name"] async for item in operator.keys(tenant.id)] == ["second", "test"]
    await operator.revoke_key(tenant.id, key["id"])
    assert (await operator.suspend_tenant(tenant.id))["state"] == "suspended"
    assert (await operator.resume_tenant(tenant.id))["state"] == "active"
    assert tenant.id in [item["id"] async for item in operator.tenants()]
    erased = await operator.wait_for_job((await operator.delete_tenant(tenant.id))["id"])
    assert erased["result"]["tenant_id"] == tenant.id


async def test_an_id_is_one_part_of_the_path_whatever_it_holds(client: TesseraClient) -> None:
    with pytest.raises(ApiProblem) as caught:
        await client.document("../admin/tenants?limit=1#")
    assert caught.value.status == 404
