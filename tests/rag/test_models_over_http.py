"""The models of a tenant over HTTP, on the running stack with a stand-in for a language model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ADAPTERS, STANDIN
from tests.rag.answer.model_server import ModelServer, chunk

if TYPE_CHECKING:
    import httpx

    from tests.conftest import TenantAccess

HANDBOOK = (
    "A full-time employee has 27 days of annual leave in a calendar year. Leave is requested in the staff portal.\n\n"
    "The mileage rate for a private car is CHF 0.68 per kilometre."
)
QUESTION = "How many days of annual leave does a full-time employee have?"
ANSWERED = "A full-time employee has 27 days of annual leave. [1] "


@pytest.fixture
async def asking(admin: httpx.AsyncClient, tenant: TenantAccess) -> TenantAccess:
    """A tenant with a handbook and the stand-in."""
    await allow(admin, tenant, STANDIN, "extractive")
    await tenant.upload(HANDBOOK, "handbook.txt")
    return tenant


@pytest.fixture
def slow(model_server: ModelServer) -> Iterator[ModelServer]:
    """The stand-in, which says a sentence and then thinks for an hour."""

    async def script(_: ModelServer) -> AsyncIterator[str]:
        yield chunk("A full-time employee has 27 days of annual leave [1]. And")
        await asyncio.sleep(3600)

    spoken = model_server.scripts[STANDIN]
    model_server.scripts[STANDIN] = script
    yield model_server
    model_server.scripts[STANDIN] = spoken


async def allow(admin: httpx.AsyncClient, tenant: TenantAccess, *models: str) -> None:
    body = {"settings": {"generation_models": list(models)}}
    changed = await admin.patch(f"/v1/admin/tenants/{tenant.id}", json=body)
    assert changed.status_code == 200, changed.text
    await asyncio.sleep(0.6)  # a key is believed for half a second


async def ask(tenant: TenantAccess, **body: Any) -> dict[str, Any]:
    answer = await tenant.client.post("/v1/chat", json={"message": QUESTION, "stream": False, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until_the_model_answers(tenant: TenantAccess) -> None:
    """A broken stream, as another test makes one, leaves the server alone for up to half a minute."""
    for _ in range(100):
        if not (await ask(tenant))["degraded"]:
            return
        await asyncio.sleep(0.5)
    raise AssertionError("the built-in answers on")


async def until_it_stops(server: ModelServer, running: int) -> None:
    for _ in range(200):
        if server.running == running:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the model writes on")


async def until_it_writes(server: ModelServer) -> None:
    for _ in range(200):
        if server.running:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the model was not asked")


async def outstanding(admin: httpx.AsyncClient) -> float:
    """Answers that the API has written by the model at this moment."""
    page = (await admin.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(page)}
    return sum(sample.value for sample in families["tessera_generation_outstanding"].samples)


async def test_a_tenants_first_model_answers_unless_another_is_named(
    admin: httpx.AsyncClient, asking: TenantAccess, model_server: ModelServer
) -> None:
    listed = (await asking.client.get("/v1/models")).json()
    assert listed["items"] == [{"name": STANDIN, "default": True}, {"name": "extractive", "default": False}]
    by_default, built_in = await ask(asking), await ask(asking, model="extractive")
    assert (by_default["model"], by_default["degraded"]) == (STANDIN, [])
    assert by_default["answer"].startswith(ANSWERED)
    assert (built_in["model"], built_in["degraded"]) == ("extractive", [])
    await allow(admin, asking, ADAPTERS[0])
    assert (await ask(asking))["model"] == ADAPTERS[0]
    assert model_server.requests[-1]["model"] == ADAPTERS[0]


async def test_without_a_list_a_tenant_has_the_installations_default_alone(tenant: TenantAccess) -> None:
    listed = (await tenant.client.get("/v1/models")).json()
    assert listed == {"items": [{"name": "extractive", "default": True}], "next": None}
    refused = await tenant.client.post("/v1/chat", json={"message": QUESTION, "model": STANDIN})
    assert (refused.status_code, refused.json()["code"]) == (403, "model_not_allowed")


async def test_models_that_are_not_declared_are_refused_to_the_operator(
    admin: httpx.AsyncClient, tenant: TenantAccess
) -> None:
    settings = {"generation_models": [STANDIN, "no-such-model"]}
    changed = await admin.patch(f"/v1/admin/tenants/{tenant.id}", json={"settings": settings})
    created = await admin.post("/v1/admin/tenants", json={"slug": "refused", "name": "x", "settings": settings})
    for refused in (changed, created):
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (422, "unknown_model")
        assert [error["pointer"] for error in problem["errors"]] == ["body.settings.generation_models.1"]
        assert STANDIN in problem["detail"], "it says which there are"
    empty = await admin.patch(f"/v1/admin/tenants/{tenant.id}", json={"settings": {"generation_models": []}})
    assert empty.status_code == 422


async def test_each_tenants_prompts_have_a_salt_of_their_own(
    admin: httpx.AsyncClient, asking: TenantAccess, make_tenant: Any, model_server: ModelServer
) -> None:
    other = await make_tenant("other")
    await allow(admin, other, STANDIN)
    await other.upload(HANDBOOK, "handbook.txt")
    before = len(model_server.requests)
    for access in (asking, other, asking):
        await ask(access)
    await other.client.aclose()
    salts = [asked["cache_salt"] for asked in model_server.requests[before:]]
    assert salts[0] == salts[2] != salts[1]
    assert not any(access.id in salt or access.slug in salt for access in (asking, other) for salt in salts)


async def test_when_a_streaming_client_leaves_the_model_stops(asking: TenantAccess, slow: ModelServer) -> None:
    running = slow.running
    async with asking.client.stream("POST", "/v1/chat", json={"message": QUESTION}) as response:
        async for line in response.aiter_lines():
            if line == "event: delta":
                break
        assert slow.running == running + 1
    await until_it_stops(slow, running)


async def test_when_a_streaming_client_leaves_before_the_first_token_its_place_is_free(
    admin: httpx.AsyncClient, asking: TenantAccess, model_server: ModelServer
) -> None:
    async def silent(_: ModelServer) -> AsyncIterator[str]:
        await asyncio.sleep(3600)
        yield chunk("never")

    await until_the_model_answers(asking)
    await until_it_stops(model_server, 0)
    spoken = model_server.scripts[STANDIN]
    model_server.scripts[STANDIN] = silent
    try:
        async with asking.client.stream("POST", "/v1/chat", json={"message": QUESTION}) as response:
            async for line in response.aiter_lines():
                if line == "event: retrieval":
                    await until_it_writes(model_server)
                    assert await outstanding(admin) == 1
                    break
    finally:
        model_server.scripts[STANDIN] = spoken
    async with asyncio.timeout(10):
        while await outstanding(admin):
            await asyncio.sleep(0.1)
    await until_it_stops(model_server, 0)


async def test_when_a_client_leaves_before_its_whole_answer_the_model_stops(
    asking: TenantAccess, slow: ModelServer
) -> None:
    waiting = asyncio.create_task(ask(asking))
    await until_it_writes(slow)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until_it_stops(slow, 0)


async def test_an_answer_that_breaks_off_is_completed_and_kept(asking: TenantAccess, model_server: ModelServer) -> None:
    async def breaks_off(_: ModelServer) -> AsyncIterator[str]:
        yield chunk("The mileage rate for a private car is CHF 0.68 per kilometre [1]. And")

    spoken = model_server.scripts[STANDIN]
    model_server.scripts[STANDIN] = breaks_off
    events: list[tuple[str, Any]] = []
    try:
        async with asking.client.stream("POST", "/v1/chat", json={"message": QUESTION}) as response:
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    events.append((line[7:], None))
                elif line.startswith("data: "):
                    events[-1] = (events[-1][0], json.loads(line[6:]))
    finally:
        model_server.scripts[STANDIN] = spoken
    done = events[-1][1]
    assert [name for name, _ in events].count("done") == 1
    assert "".join(data["text"] for name, data in events if name == "delta") == done["answer"]
    assert done["degraded"] == ["generation_interrupted"]
    assert done["answer"].startswith("The mileage rate")
    assert "27 days" in done["answer"]
    kept = (await asking.client.get(f"/v1/conversations/{done['conversation_id']}")).json()
    assert kept["messages"][-1]["content"] == done["answer"]


async def test_readiness_and_metrics_show_the_models(
    admin: httpx.AsyncClient, asking: TenantAccess, model_server: ModelServer
) -> None:
    await until_the_model_answers(asking)
    assert (await admin.get("/readyz")).json()["generation"] == "ok"
    model_server.health = 503
    try:
        ready = await admin.get("/readyz")
        assert (ready.status_code, ready.json()["generation"]) == (200, "away"), "the built-in answers"
        page = (await admin.get("/metrics")).text
    finally:
        model_server.health = 200
    assert (await admin.get("/readyz")).json()["generation"] == "ok"
    families = {family.name: family for family in text_string_to_metric_families(page)}
    up = {sample.labels["server"]: sample.value for sample in families["tessera_generation_up"].samples}
    assert up == {model_server.url: 0.0}
    first = families["tessera_generation_first_token_seconds"].samples
    counted = {sample.labels.get("le"): sample.value for sample in first if sample.labels["model"] == STANDIN}
    assert counted["+Inf"] >= 1
    assert "tessera_generation_fallbacks" in families
