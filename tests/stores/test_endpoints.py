"""Isolated tenants on a server of their own: nothing of theirs is on the main one, and the other way round."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from pymilvus import MilvusClient

from service.settings import Settings
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.settings import MilvusServer, MilvusSettings
from shards.vectors import ChunkVector, MissingCollection, StorePlace
from tenants.errors import Misconfigured, Unavailable

DIM = 8


def rows(number: int) -> list[ChunkVector]:
    vectors = np.random.default_rng(number).standard_normal((number, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [ChunkVector(uuid4(), version, vector) for version, vector in enumerate(vectors, 1)]


@pytest.fixture
async def store(lite: MilvusSettings, own_milvus: Any) -> AsyncIterator[MilvusVectors]:
    own_milvus.start()
    endpoints = {"eu": MilvusServer(uri=own_milvus.uri, partition_budget=7)}
    store = MilvusVectors(MilvusSettings(uri=lite.uri, endpoints=endpoints, timeout_s=5))
    yield store
    await store.aclose()


async def test_each_server_has_its_own(store: MilvusVectors, own_milvus: Any) -> None:
    tenant = uuid4()
    here, there = (Space(tenant, 1, DIM, "isolated", endpoint=endpoint) for endpoint in ("", "eu"))
    assert store.budgets["eu"].partitions == 7
    for space, written in ((here, rows(5)), (there, rows(9))):
        await store.create(space, cells=2)
        await store.insert(space, {1: written})
    assert (await store.count(here), await store.count(there)) == (5, 9)
    own_milvus.kill()
    with pytest.raises(Unavailable):
        await store.count(there)
    assert await store.count(here) == 5, "who is on another server does not notice"
    with pytest.raises(Unavailable):
        await store.drop_tenant(tenant)  # it cannot be told what lies there
    assert {place.endpoint for place in await store.places(tenant, endpoints=[""])} == {""}
    assert await store.drop_tenant(uuid4(), endpoints=[""]) == (0, 0), "who never was there can be erased"
    own_milvus.start()
    assert await store.count(there) == 9
    dropped, _ = await store.drop_tenant(tenant)
    assert dropped >= 1
    for space in (here, there):
        with pytest.raises(MissingCollection):
            await store.count(space)


async def test_a_server_that_is_no_longer_named_is_a_matter_of_settings(store: MilvusVectors) -> None:
    with pytest.raises(Misconfigured, match="TESSERA_MILVUS_ENDPOINTS"):
        await store.count(Space(uuid4(), 1, DIM, "isolated", endpoint="moon"))


async def test_a_server_without_databases_is_one_isolated_tenants(lite: MilvusSettings, own_milvus: Any) -> None:
    own_milvus.start()
    own = MilvusServer(uri=own_milvus.uri, databases=0)
    store, tenant = MilvusVectors(MilvusSettings(uri=lite.uri, endpoints={"own": own})), uuid4()
    assert store.budgets["own"].databases == 1
    space, written = Space(tenant, 1, DIM, "isolated", endpoint="own"), rows(5)
    await store.create(space, cells=2)
    await store.insert(space, {1: written})
    assert len(await store.search(space, written[0].vector, k=9, cells=None, scope=None)) == 5
    client = MilvusClient(own_milvus.uri)
    assert (client.list_databases(), client.list_collections()) == (["default"], [space.collection])
    client.close()
    place = StorePlace("own", space.database, space.collection)
    assert place in await store.places(), "it is known by the name that it would have elsewhere"
    assert await store.places(tenant, endpoints=["own"]) == [place]
    assert await store.drop(space)
    assert await store.places(endpoints=["own"]) == []
    await store.create(space, cells=1)
    assert await store.drop_tenant(tenant) == (1, 0)
    await store.aclose()


def test_one_server_under_two_names_is_refused() -> None:
    with pytest.raises(ValueError, match="two servers"):
        MilvusSettings(uri="http://a:1", endpoints={"eu": MilvusServer(uri="http://a:1")})


def test_endpoints_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_MILVUS_ENDPOINTS", '{"eu": {"uri": "http://127.0.0.1:1", "token": "secret"}}')
    found = Settings().milvus.endpoints["eu"]
    assert (found.uri, found.token.get_secret_value(), "secret" in repr(found)) == (
        "http://127.0.0.1:1",
        "secret",
        False,
    )
