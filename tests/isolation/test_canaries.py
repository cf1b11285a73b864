"""One tenant tries to find what the other has, by every way in that takes words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.isolation.conftest import Canaried


def pairs(canaried: tuple[Canaried, Canaried]) -> list[tuple[Canaried, Canaried]]:
    return [canaried, canaried[::-1]]  # type: ignore[list-item]


async def test_the_owner_finds_its_own(canaried: tuple[Canaried, Canaried]) -> None:
    for owner, _ in pairs(canaried):
        hits = await owner.access.search(f"vault code {owner.canary}")
        assert any(owner.canary in hit["text"] for hit in hits)


@pytest.mark.parametrize("question", ["{canary}", "What is the code of the vault?", "Vault {canary} archivist"])
async def test_a_search_never_leaves_the_tenant(canaried: tuple[Canaried, Canaried], question: str) -> None:
    for owner, stranger in pairs(canaried):
        answer = await stranger.access.client.post(
            "/v1/search", json={"query": question.format(canary=owner.canary), "k": 100, "exact": True, "debug": True}
        )
        assert answer.status_code == 200
        assert owner.canary not in answer.text.replace(question.format(canary=owner.canary), "")


FILTERS: list[dict[str, Any]] = [
    {"secret": {"eq": "{canary}"}},
    {"tags": {"in": ["{canary}", "x"]}},
    {"or": [{"shared": {"eq": "same"}}, {"secret": {"exists": True}}]},
    {"not": {"secret": {"eq": "nothing"}}},
    {"external_id": {"eq": "vault-{canary}"}},
    {"title": {"gte": ""}},
]


@pytest.mark.parametrize("filter_", FILTERS, ids=json.dumps)
async def test_no_filter_reaches_across(canaried: tuple[Canaried, Canaried], filter_: dict[str, Any]) -> None:
    for owner, stranger in pairs(canaried):
        raw = json.dumps(filter_).replace("{canary}", owner.canary)
        found = await stranger.access.search("vault code archivist", k=100, filter=json.loads(raw))
        assert {hit["document_id"] for hit in found} <= {stranger.ids["document_id"]}
        listed = await stranger.access.client.get("/v1/documents", params={"filter": raw})
        assert {item["id"] for item in listed.json()["items"]} <= {stranger.ids["document_id"]}


async def test_an_answer_never_leaves_the_tenant(canaried: tuple[Canaried, Canaried]) -> None:
    for owner, stranger in pairs(canaried):
        question = "What is the secret code of the vault that only the archivist may know?"
        answer = await stranger.access.client.post("/v1/chat", json={"message": question, "stream": False})
        assert answer.status_code == 200
        assert owner.canary not in answer.text
        streamed = await stranger.access.client.post("/v1/chat", json={"message": question})
        assert owner.canary not in streamed.text
        assert "event: done" in streamed.text


async def test_the_same_external_id_in_two_tenants_is_two_documents(canaried: tuple[Canaried, Canaried]) -> None:
    owner, stranger = canaried
    taken = f"vault-{owner.canary}"
    mine = await stranger.access.upload("Something quite different.", external_id=taken)
    assert mine["document"]["id"] != owner.ids["document_id"]
    assert mine["document"]["version"] == 1
    kept = (await owner.access.client.get(f"/v1/documents/{owner.ids['document_id']}/content")).text
    assert owner.canary in kept
    await stranger.access.client.delete(f"/v1/documents/{mine['document']['id']}")


async def test_the_same_content_in_two_tenants_is_two_documents(canaried: tuple[Canaried, Canaried]) -> None:
    uploaded = [await tenant.access.upload("Both of us have this very text.") for tenant in canaried]
    assert uploaded[0]["document"]["id"] != uploaded[1]["document"]["id"]
    for tenant, mine in zip(canaried, uploaded, strict=True):
        await tenant.access.client.delete(f"/v1/documents/{mine['document']['id']}")


async def test_cursors_of_one_tenant_are_refused_for_the_other(canaried: tuple[Canaried, Canaried]) -> None:
    owner, stranger = canaried
    await owner.access.upload("A second document, so that a page of one is followed by another.")
    page = (await owner.access.client.get("/v1/documents", params={"limit": 1})).json()
    answer = await stranger.access.client.get("/v1/documents", params={"limit": 1, "cursor": page["next"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
