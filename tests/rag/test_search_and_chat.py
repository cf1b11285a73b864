"""Search and chat over HTTP on the running stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import TenantAccess

HANDBOOK = {
    "leave.md": "# Leave\n\n## Annual leave\n\nEvery employee has 27 days of annual leave a year.\n\n"
    "## Parental leave\n\nParental leave lasts 16 weeks and is paid in full.\n",
    "travel.md": "# Travel\n\nThe hotel allowance is 140 euros a night. Taxis are refunded after 22:00 only.\n",
    "security.txt": "Passwords have at least 14 characters. Report a lost laptop to extension 4410 within an hour.",
}


@pytest.fixture(scope="module")
async def handbook(make_tenant: Any) -> AsyncIterator[TenantAccess]:
    """A tenant with three small documents."""
    access = await make_tenant("handbook")
    for name, text in HANDBOOK.items():
        assert (await access.upload(text, name, external_id=name))["job"]["state"] == "done"
    yield access
    await access.client.aclose()


def events_of(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


async def test_the_best_passage_comes_first_with_its_ranks_and_timings(handbook: TenantAccess) -> None:
    answer = await handbook.client.post(
        "/v1/search", json={"query": "How many days of annual leave do I have?", "debug": True}
    )
    body = answer.json()
    best = body["hits"][0]
    assert (best["external_id"], best["headings"][-1]) == ("leave.md", "Annual leave")
    assert best["ranks"] == {"ann": 1, "bm25": 1, "rerank": 1}
    assert [hit["score"] for hit in body["hits"]] == sorted((hit["score"] for hit in body["hits"]), reverse=True)
    assert set(body["timings_ms"]) == {"embed", "prefilter", "ann", "bm25", "fuse", "rerank", "passages", "total"}
    assert body["degraded"] == []
    assert body["debug"]["plan"] == "exact"
    text = HANDBOOK["leave.md"]
    assert text[slice(*best["span"])] == best["text"]


async def test_k_bounds_the_hits(handbook: TenantAccess) -> None:
    assert len(await handbook.search("leave", k=1)) == 1
    assert len(await handbook.search("leave", k=100)) >= 3


async def test_an_empty_tenant_has_no_hits_and_abstains(tenant: TenantAccess) -> None:
    assert await tenant.search("anything") == []
    answer = (await tenant.client.post("/v1/chat", json={"message": "anything?", "stream": False})).json()
    assert (answer["abstained"], answer["citations"]) == (True, [])


async def test_an_answer_quotes_and_cites(handbook: TenantAccess) -> None:
    body = {"message": "How long is parental leave?", "stream": False}
    answer = (await handbook.client.post("/v1/chat", json=body)).json()
    assert not answer["abstained"]
    assert "16 weeks" in answer["answer"]
    assert "[1]" in answer["answer"]
    first = answer["citations"][0]
    assert "16 weeks" in first["quote"]
    assert HANDBOOK["leave.md"][slice(*first["span"])] == first["quote"]
    assert answer["model"] == "extractive"


async def test_what_the_documents_do_not_say_is_not_answered(handbook: TenantAccess) -> None:
    for question in ("Who won the football world cup in 1974?", "What is the boiling point of tungsten?"):
        answer = (await handbook.client.post("/v1/chat", json={"message": question, "stream": False})).json()
        assert answer["abstained"], answer
        assert "not in your documents" in answer["answer"]
        assert answer["citations"] == []


async def test_a_stream_is_the_same_answer_in_pieces(handbook: TenantAccess) -> None:
    answer = await handbook.client.post("/v1/chat", json={"message": "What is the hotel allowance?"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    names = [name for name, _ in events]
    assert names[0] == "retrieval"
    assert names[-1] == "done"
    done = events[-1][1]
    assert "".join(data["text"] for name, data in events if name == "delta") == done["answer"]
    assert [data for name, data in events if name == "citation"] == done["citations"]
    assert "140 euros" in done["answer"]


async def test_a_conversation_is_kept_and_a_follow_up_is_understood(handbook: TenantAccess) -> None:
    first = (
        await handbook.client.post("/v1/chat", json={"message": "How long is parental leave?", "stream": False})
    ).json()
    second = (
        await handbook.client.post(
            "/v1/chat",
            json={"message": "Is it paid?", "conversation_id": first["conversation_id"], "stream": False},
        )
    ).json()
    assert second["conversation_id"] == first["conversation_id"]
    kept = (await handbook.client.get(f"/v1/conversations/{first['conversation_id']}")).json()
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"] * 2
    assert kept["messages"][1]["answer"] == first
    assert kept["title"] == "How long is parental leave?"
    retrieved = events_of(
        (
            await handbook.client.post(
                "/v1/chat", json={"message": "Is it paid?", "conversation_id": first["conversation_id"]}
            )
        ).text
    )[0][1]
    assert retrieved["hits"][0]["headings"][-1] == "Parental leave"
    assert (await handbook.client.delete(f"/v1/conversations/{first['conversation_id']}")).status_code == 204
    assert (await handbook.client.get(f"/v1/conversations/{first['conversation_id']}")).status_code == 404


async def test_a_chat_obeys_its_filter(handbook: TenantAccess) -> None:
    body = {"message": "How long is parental leave?", "filter": {"external_id": {"eq": "travel.md"}}}
    events = events_of((await handbook.client.post("/v1/chat", json=body)).text)
    assert {hit["external_id"] for hit in events[0][1]["hits"]} == {"travel.md"}
    assert all("16 weeks" not in str(data) for _, data in events)


REFUSED: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("/v1/search", {}, 422, "invalid_request", "body.query"),
    ("/v1/search", {"query": ""}, 422, "invalid_request", "body.query"),
    ("/v1/search", {"query": " \n"}, 422, "invalid_request", "body.query"),
    ("/v1/search", {"query": "x", "k": 101}, 422, "invalid_request", "body.k"),
    ("/v1/search", {"query": "x", "tenant_id": str(uuid4())}, 422, "invalid_request", "body.tenant_id"),
    ("/v1/search", {"query": "x", "filter": {"a": {"like": 1}}}, 422, "invalid_filter", "filter.a.like"),
    ("/v1/search", {"query": "x", "filter": {}}, 422, "invalid_filter", "filter"),
    ("/v1/chat", {"message": "x", "filter": {"a": 1}}, 422, "invalid_filter", "filter.a"),
    ("/v1/chat", {"message": "x", "conversation_id": "nonsense"}, 422, "invalid_request", "body.conversation_id"),
    ("/v1/chat", {"message": "x", "conversation_id": str(uuid4())}, 404, "not_found", None),
    ("/v1/search", {"query": "x" * 9000}, 422, "invalid_request", "body.query"),
]


@pytest.mark.parametrize(("path", "body", "status", "code", "pointer"), REFUSED)
async def test_a_bad_question_is_pointed_at(
    tenant: TenantAccess, path: str, body: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = await tenant.client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    if pointer is not None:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "query",
    ["title:(", "*", "a AND (b", '"unclosed', "🦄" * 50, "\u202e reversed", "word " * 1500, "-", "?!.,"],
)
async def test_no_question_breaks_the_engines(handbook: TenantAccess, query: str) -> None:
    answer = await handbook.client.post("/v1/search", json={"query": query})
    assert answer.status_code == 200, answer.text
    assert answer.json()["degraded"] == []
