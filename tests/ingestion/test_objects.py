"""Deleting from a real object store on disk."""

from __future__ import annotations

import asyncio
from io import BytesIO
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from ingestion.objects import Objects, Stored, object_key

if TYPE_CHECKING:
    from pathlib import Path


class Watched(Objects):
    """Notes what is asked of the store, and may list an object that vanishes before it is deleted."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.looks = 0
        self.deletes: list[int] = []
        self.ghosts: list[str] = []

    async def head(self, key: str) -> Stored | None:
        self.looks += 1
        return await super().head(key)

    async def list_tenant(self, tenant_id: UUID) -> list[str]:
        return [*self.ghosts, *await super().list_tenant(tenant_id)]

    async def _deleted(self, keys: list[str]) -> bool:
        self.deletes.append(len(keys))
        return await super()._deleted(keys)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path.as_uri())


async def fill(store: Objects, tenant_id: UUID, count: int) -> list[str]:
    keys = [object_key(tenant_id, UUID(int=number // 2), number % 2 + 1) for number in range(count)]
    await asyncio.gather(*(store.put(key, BytesIO(b"x")) for key in keys))
    return keys


async def test_a_tenants_originals_are_deleted_many_at_a_time(store: Watched) -> None:
    erased, other = uuid4(), uuid4()
    await fill(store, erased, 1500)
    kept = await fill(store, other, 3)
    assert await store.delete_tenant(erased) == 1500
    assert (store.looks, store.deletes) == (0, [1000, 500])
    assert await store.list_tenant(erased) == []
    assert sorted(await store.list_tenant(other)) == sorted(kept)
    assert await store.delete_tenant(erased) == 0


async def test_one_that_vanishes_meanwhile_keeps_no_other(store: Watched) -> None:
    tenant_id = uuid4()
    await fill(store, tenant_id, 40)
    store.ghosts = [object_key(tenant_id, uuid4(), 1)]
    await store.delete_tenant(tenant_id)
    store.ghosts = []
    assert await store.list_tenant(tenant_id) == []


async def test_deleting_says_how_many_existed(store: Watched) -> None:
    tenant_id = uuid4()
    keys = await fill(store, tenant_id, 3)
    assert await store.delete([*keys[:2], object_key(tenant_id, uuid4(), 1)]) == 2
    assert await store.list_tenant(tenant_id) == keys[2:]
    assert await store.delete([]) == 0
