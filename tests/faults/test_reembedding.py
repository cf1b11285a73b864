"""Moving a tenant to another model through everything that can come in between: a killed worker, a model that is away,
a pause, a change of mind, an original that is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tenants.db import Database
from tenants.settings import DatabaseSettings
from tests.embedding_server import NAME
from tests.faults.victims import kill
from tests.ingestion.damage import GRACE_IS_OVER, fsck, words_of
from tests.ingestion.test_reembedding import Shop, finished, line_of, reindex

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess
    from tests.embedding_server import EmbeddingServer

DOCUMENTS = 72
"""Three steps of a move: it is seen, and stopped, between them."""


@pytest.fixture
def slow(embedding_server: EmbeddingServer) -> Iterator[EmbeddingServer]:
    """The further model, so slow that something can happen meanwhile."""
    embedding_server.delay_s = 0.4
    yield embedding_server
    embedding_server.delay_s, embedding_server.failing = 0.0, False


@pytest.fixture
async def shop(tenant: TenantAccess) -> Shop:
    made = Shop(tenant)
    await made.upload(range(DOCUMENTS))
    return made


@pytest.fixture
async def database(stack: StackState) -> AsyncIterator[Database]:
    """The stack's own database, as the worker sees it."""
    opened = Database(stack.env["TESSERA_DATABASE_WORKER_URL"], DatabaseSettings(pool_size=2))
    yield opened
    await opened.aclose()


async def seen_at(admin: httpx.AsyncClient, location: str, progress: float) -> dict[str, Any]:
    for _ in range(1200):
        job: dict[str, Any] = (await admin.get(location)).json()
        assert job["state"] not in ("done", "failed", "cancelled"), job
        if job["progress"] >= progress:
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(job)


async def wished(admin: httpx.AsyncClient, tenant: TenantAccess, wish: str) -> httpx.Response:
    return await admin.post(f"/v1/admin/tenants/{tenant.id}/reindex/{wish}")


async def rows(database: Database, tenant: TenantAccess, query: str) -> list[Any]:
    async with database.tenant(UUID(tenant.id)) as session:
        return list((await session.execute(text(query))).all())


async def model_of(database: Database, tenant: TenantAccess) -> str:
    [(model,)] = await rows(database, tenant, "SELECT embedder FROM index_generations WHERE state = 'live'")
    return str(model)


async def drop_now(database: Database, tenant: TenantAccess) -> None:
    """Let the grace for readers be over, and wait until what was retired is gone."""
    for _ in range(400):
        if not await rows(database, tenant, "SELECT FROM index_generations WHERE state NOT IN ('live', 'gone')"):
            return
        for change in GRACE_IS_OVER:
            async with database.tenant(UUID(tenant.id)) as session, session.begin():
                await session.execute(text(change))
        await asyncio.sleep(0.1)
    raise AssertionError("what was retired is still there")


async def lexical_indexes(stack: StackState, tenant: TenantAccess) -> list[str]:
    store = words_of(stack)
    names = await store.indexes(of=UUID(tenant.id))
    await store.aclose()
    return names


async def check_all(shop: Shop) -> None:
    for number in sorted({*shop.held, *shop.gone}):
        await shop.check(number)


async def test_a_killed_worker_goes_on_where_it_was(
    stack: StackState, shop: Shop, admin: httpx.AsyncClient, slow: EmbeddingServer, database: Database
) -> None:
    location = await reindex(admin, shop.tenant, embedding_model=NAME)
    before = await seen_at(admin, location, 0.3)
    asked = slow.asked
    kill(Path(stack.env["TESSERA_DATA_DIR"]), "worker", whole=True)
    await shop.check(3)
    after: list[dict[str, Any]] = []
    job = await finished(admin, location, after)
    assert job["state"] == "done", job
    assert min(one["progress"] for one in after) >= before["progress"]
    assert job["result"]["documents"] == DOCUMENTS, "none was written twice"
    # The documents in hand are asked again, and questions ask too: far fewer than all anew.
    assert slow.asked - asked < 12
    slow.delay_s = 0.0
    assert await model_of(database, shop.tenant) == NAME
    await check_all(shop)
    await drop_now(database, shop.tenant)
    assert await rows(database, shop.tenant, "SELECT DISTINCT edition FROM chunks") == [(2,)]
    assert await lexical_indexes(stack, shop.tenant) == [f"t_{UUID(shop.tenant.id).hex}_e2"]
    assert (await fsck(admin, shop.tenant, deep=True))["differences"] == {}
    await check_all(shop)


async def test_a_model_that_is_away_is_waited_for(
    shop: Shop, admin: httpx.AsyncClient, slow: EmbeddingServer, database: Database
) -> None:
    slow.delay_s, slow.failing = 0.0, True
    location = await reindex(admin, shop.tenant, embedding_model=NAME)
    for _ in range(400):
        job = (await admin.get(location)).json()
        if job["error"]:
            break
        await asyncio.sleep(0.05)
    assert (job["state"], job["error"]["code"]) == ("retrying", "embedder_unavailable"), job
    assert NAME in job["error"]["detail"]
    assert "http" not in job["error"]["detail"], "where its server is, is the operators' affair"
    assert job["attempts"] == 0
    await shop.check(5)
    slow.failing = False
    job = await finished(admin, location)
    assert (job["state"], job["error"]) == ("done", None), job
    await check_all(shop)

    slow.failing = True  # after the switch: words still find, and uploads wait
    answer = (await shop.tenant.client.post("/v1/search", json={"query": line_of(7)})).json()
    assert answer["degraded"] == ["ann"]
    assert answer["hits"][0]["external_id"] == "7"
    uploading = asyncio.create_task(shop.upload(range(900, 901)))
    await asyncio.sleep(1)
    assert not uploading.done()
    slow.failing = False
    await uploading
    await shop.check(900)


async def asked_in_the_end(server: EmbeddingServer) -> int:
    """Wait until what a worker had in hand was asked; return how often that was."""
    asked = -1
    while asked != server.asked:
        asked = server.asked
        await asyncio.sleep(3 * server.delay_s)
    return asked


async def test_a_paused_move_goes_on_when_it_is_resumed(
    shop: Shop, admin: httpx.AsyncClient, slow: EmbeddingServer, database: Database
) -> None:
    assert (await wished(admin, shop.tenant, "pause")).json()["code"] == "not_reembedding"
    location = await reindex(admin, shop.tenant, embedding_model=NAME)
    again = await admin.post(f"/v1/admin/tenants/{shop.tenant.id}/reindex", json={"chunk_tokens": 50})
    assert (again.status_code, again.json()["code"]) == (409, "reembedding")
    await seen_at(admin, location, 0.3)
    assert (await wished(admin, shop.tenant, "pause")).status_code == 202
    for _ in range(200):
        paused = (await admin.get(location)).json()
        if paused["stage"] == "paused":
            break
        await asyncio.sleep(0.05)
    assert (paused["stage"], paused["state"]) == ("paused", "queued"), paused
    asked = await asked_in_the_end(slow)
    await shop.upload(range(500, 503))
    await shop.upload(range(3), edition=2)
    await shop.delete(10)
    await check_all(shop)
    assert (await fsck(admin, shop.tenant, repair=True, deep=True))["total"] == 0, "a check leaves it alone"
    assert slow.asked == asked, "nothing went on"
    assert (await admin.get(location)).json()["progress"] == paused["progress"]
    assert (await wished(admin, shop.tenant, "resume")).status_code == 202
    slow.delay_s = 0.0
    job = await finished(admin, location)
    assert job["state"] == "done", job
    assert await model_of(database, shop.tenant) == NAME
    await check_all(shop)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_cancelled_move_leaves_nothing(
    stack: StackState, shop: Shop, admin: httpx.AsyncClient, slow: EmbeddingServer, database: Database, paused: bool
) -> None:
    model = await model_of(database, shop.tenant)
    location = await reindex(admin, shop.tenant, embedding_model=NAME)
    await seen_at(admin, location, 0.3)
    if paused:
        await wished(admin, shop.tenant, "pause")
    assert (await wished(admin, shop.tenant, "cancel")).status_code == 202
    job = await finished(admin, location)
    assert job["state"] == "cancelled", job
    assert await model_of(database, shop.tenant) == model
    await check_all(shop)
    await drop_now(database, shop.tenant)
    assert await rows(database, shop.tenant, "SELECT DISTINCT edition FROM chunks") == [(1,)]
    assert await lexical_indexes(stack, shop.tenant) == [f"t_{UUID(shop.tenant.id).hex}"]
    location = await reindex(admin, shop.tenant, chunk_tokens=40)
    assert (await finished(admin, location))["state"] == "done", "and another may begin"
    await check_all(shop)


async def test_documents_whose_original_is_lost_keep_their_passages(
    stack: StackState, shop: Shop, admin: httpx.AsyncClient, database: Database
) -> None:
    lost = [shop.held[number][0] for number in (4, 34)]
    [key, *_] = [row[0] for row in await rows(database, shop.tenant, "SELECT object_key FROM document_versions")]
    root = Path(stack.env["TESSERA_OBJECTS_URL"].removeprefix("file://"))
    assert (root / key).is_file()
    for document_id in lost:
        query = f"SELECT object_key FROM document_versions WHERE document_id = '{document_id}'"
        [(key,)] = await rows(database, shop.tenant, query)
        (root / key).unlink()
    job = await finished(admin, await reindex(admin, shop.tenant, chunk_tokens=40))
    assert job["state"] == "done", job
    assert job["result"]["documents_failed"] == 2
    assert sorted(one["document_id"] for one in job["result"]["failed"]) == sorted(lost)
    assert {one["code"] for one in job["result"]["failed"]} == {"original_missing"}
    await check_all(shop)
    chunks = (await shop.tenant.client.get(f"/v1/documents/{lost[0]}/chunks")).json()["items"]
    assert len(chunks) > 2
    assert [chunk["position"] for chunk in chunks] == list(range(len(chunks)))


async def test_what_cannot_be_is_refused(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    path = f"/v1/admin/tenants/{tenant.id}/reindex"
    for body, named in (
        ({"embedding_model": "moon"}, NAME),
        ({"chunk_tokens": 255}, "at most 254 tokens"),
        ({"chunk_tokens": 20}, "greater than or equal to 32"),
    ):
        answer = await admin.post(path, json=body)
        assert answer.status_code == 422, body
        assert named in answer.text
    job = await finished(admin, await reindex(admin, tenant, embedding_model=NAME))
    assert (job["state"], job["result"]["documents"]) == ("done", 0)
    shop = Shop(tenant)
    await shop.upload(range(3))
    await check_all(shop)
