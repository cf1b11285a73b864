"""What a caller sees when the vector store goes away and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
from pymilvus import MilvusException

from shards.milvus import MilvusVectors
from shards.milvus_clients import MilvusClients
from shards.names import Space
from shards.settings import MilvusSettings
from shards.vectors import ChunkVector, MissingCollection, VersionScope
from tenants.errors import NoRoom, Unavailable

DIM = 8


def rows(number: int, seed: int = 0) -> list[ChunkVector]:
    vectors = np.random.default_rng(seed).standard_normal((number, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [ChunkVector(uuid4(), version, vector) for version, vector in enumerate(vectors, 1)]


@pytest.fixture
async def store(own_milvus: Any) -> AsyncIterator[MilvusVectors]:
    store = MilvusVectors(MilvusSettings(uri=own_milvus.uri, timeout_s=5))
    yield store
    await store.aclose()


def calls(store: MilvusVectors, space: Space) -> list[Callable[[], Awaitable[object]]]:
    """Every call of the protocol."""
    row = rows(1)[0]
    scope = VersionScope(np.array([1], dtype=np.int64))
    return [
        lambda: store.search(space, row.vector, k=3, cells=None, scope=None),
        lambda: store.search(space, row.vector, k=3, cells=[0], scope=scope),
        lambda: store.insert(space, {0: [row]}),
        lambda: store.delete_versions(space, [1]),
        lambda: store.count(space),
        lambda: store.create(space, cells=2),
        lambda: store.drop(space),
        lambda: store.drop_tenant(uuid4()),
        lambda: store.release(space),
        lambda: store.ping(),
        lambda: anext(store.scan(space)),
    ]


async def test_a_server_that_never_started_is_unavailable(store: MilvusVectors) -> None:
    for call in calls(store, Space(uuid4(), 1, DIM)):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.code == "vectors_unavailable"
        assert caught.value.retryable


async def test_a_killed_server_is_unavailable_and_works_again_when_it_is_back(
    store: MilvusVectors, own_milvus: Any
) -> None:
    own_milvus.start()
    space = Space(uuid4(), 1, DIM)
    await store.create(space, cells=2)
    written = rows(300)
    await store.insert(space, {0: written[:150], 1: written[150:]})
    assert await store.delete_versions(space, [7]) == 1
    own_milvus.kill()
    for call in calls(store, space):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.code == "vectors_unavailable"
    own_milvus.start()
    found = await store.search(space, written[0].vector, k=3, cells=None, scope=None)
    assert found[0].chunk_id == written[0].chunk_id
    assert await store.count(space) == 299
    await store.insert(space, {1: rows(5, seed=1)})
    assert len([row async for page in store.scan(space) for row in page]) == 304


async def test_what_was_acknowledged_survives_a_kill_during_writing(store: MilvusVectors, own_milvus: Any) -> None:
    own_milvus.start()
    space = Space(uuid4(), 1, DIM)
    await store.create(space, cells=2)
    acknowledged: set[Any] = set()

    async def write() -> None:
        for number in range(1000):
            batch = rows(40, seed=number)
            await store.insert(space, {0: batch[::2], 1: batch[1::2]})
            acknowledged.update(row.chunk_id for row in batch)

    task = asyncio.create_task(write())
    while len(acknowledged) < 400:
        await asyncio.sleep(0.01)
    own_milvus.kill()
    with pytest.raises(Unavailable):
        await task
    own_milvus.start()
    held = {row.chunk_id async for page in store.scan(space) for row in page}
    assert acknowledged <= held


async def test_many_callers_at_once_fail_alike_and_recover_alike(store: MilvusVectors, own_milvus: Any) -> None:
    own_milvus.start()
    space = Space(uuid4(), 1, DIM)
    await store.create(space, cells=2)
    written = rows(20)
    await store.insert(space, {0: written})
    own_milvus.kill()

    async def search() -> object:
        return await store.search(space, written[0].vector, k=3, cells=None, scope=None)

    failed = await asyncio.gather(*(search() for _ in range(12)), return_exceptions=True)
    assert {type(result) for result in failed} == {Unavailable}
    own_milvus.start()
    assert all(await asyncio.gather(*(search() for _ in range(12))))


async def test_a_server_that_hangs_is_given_up_on(own_milvus: Any) -> None:
    """It accepts connections and never answers."""

    writers: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", own_milvus.port)
    hung = MilvusVectors(MilvusSettings(uri=own_milvus.uri, timeout_s=1))
    with pytest.raises(Unavailable):
        await hung.ping()
    with pytest.raises(Unavailable):
        await hung.count(Space(uuid4(), 1, DIM))
    await hung.aclose()
    server.close()
    for writer in writers:  # gRPC may keep its end open
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_two_clients_see_each_other(milvus: MilvusSettings) -> None:
    one, two = MilvusVectors(milvus), MilvusVectors(milvus)
    space = Space(uuid4(), 1, DIM)
    await one.create(space, cells=2)
    written = rows(4)
    assert await two.search(space, written[0].vector, k=1, cells=[1], scope=None) == []
    await one.insert(space, {1: written})
    mark = await one.mark(space)
    found = await two.search(space, written[2].vector, k=1, cells=[1], scope=None, mark=mark)
    assert found[0].chunk_id == written[2].chunk_id
    assert await two.delete_versions(space, [3]) == 1
    assert await one.count(space) == 3
    assert await two.drop(space)
    with pytest.raises(MissingCollection):
        await one.count(space)
    await one.aclose()
    await two.aclose()


class Unknown(grpc.RpcError):  # type: ignore[misc]  # grpc is untyped
    """What a server says to a login that it does not know."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAUTHENTICATED

    def details(self) -> str:
        return "auth check failure"


async def test_a_server_without_room_has_answered(lite: MilvusSettings) -> None:
    """So it is not left alone as one that is silent."""
    clients = MilvusClients(lite.model_copy(update={"timeout_s": 1.0}))

    async def silent(_client: Any) -> None:
        await asyncio.sleep(60)

    async def full(_client: Any) -> None:
        raise MilvusException(102, "exceeded the limit number of collections")

    for call, raised in ((silent, Unavailable), (full, NoRoom), (silent, Unavailable)):
        with pytest.raises(raised):
            await clients.call(("", ""), call)
    assert await clients.now(("", "")) == 0
    await clients.aclose()


async def test_what_is_wrong_is_told_once_and_again_when_it_comes_back(
    lite: MilvusSettings, caplog: pytest.LogCaptureFixture
) -> None:
    clients = MilvusClients(lite)

    async def refused(_client: Any) -> None:
        raise Unknown

    for told in (1, 1):
        with pytest.raises(Unavailable):
            await clients.call(("", ""), refused)
        assert caplog.text.count("refuses the login") == told
    await clients.now(("", ""))
    with pytest.raises(Unavailable):
        await clients.call(("", ""), refused)
    assert caplog.text.count("refuses the login") == 2
    await clients.aclose()
