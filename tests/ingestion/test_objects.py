"""The object store: one suite for a local folder and for every kind of bucket."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID, uuid4

import psutil
import pytest

from ingestion.objects import Objects, Stored, object_key, parts_of
from tenants.errors import NotFound
from tenants.settings import ObjectSettings
from tests.ingestion.azure_container import make_azure_container
from tests.servers import server

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

STORES = ["local", "s3", "azurite"]
FEW_PARTS = 20 * 1024 * 1024
"""Four parts of an upload and four reads."""


class Watched(Objects):
    """Notes what is asked of the store, and may list an object that vanishes before it is deleted."""

    def __init__(self, settings: ObjectSettings) -> None:
        super().__init__(settings)
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


def settings_of(name: str) -> ObjectSettings:
    """Return the settings of a server, with a prefix of its own."""
    given = server(name)
    keys = {key: given[key] for key in ("endpoint", "access_key_id", "secret_access_key") if key in given}
    return ObjectSettings(url=f"{given['url']}/tests/{uuid4()}", **keys)


@pytest.fixture(params=STORES)
async def settings(request: SubRequest, tmp_path: Path) -> AsyncIterator[ObjectSettings]:
    """Where each kind of store keeps its objects."""
    if request.param == "local":
        yield ObjectSettings(url=(tmp_path / "objects").as_uri())
        return
    if request.param == "azurite":
        make_azure_container(server("azurite"))
    yield settings_of(request.param)


@pytest.fixture
def store(settings: ObjectSettings) -> Watched:
    return Watched(settings)


async def fill(store: Objects, tenant_id: UUID, count: int) -> list[str]:
    keys = [object_key(tenant_id, UUID(int=number // 2), number % 2 + 1) for number in range(count)]
    turn = asyncio.Semaphore(16)

    async def put(key: str) -> None:
        async with turn:
            await store.put(key, BytesIO(b"x"))

    await asyncio.gather(*map(put, keys))
    return keys


def noise(size: int) -> bytes:
    return hashlib.shake_256(b"noise").digest(size)


async def test_what_is_put_is_read_whole_and_in_blocks(store: Watched) -> None:
    tenant_id = uuid4()
    for version, content in enumerate([b"", b"a note", noise(FEW_PARTS)], start=1):
        key = object_key(tenant_id, UUID(int=1), version)
        await store.put(key, BytesIO(content))
        assert await store.get(key) == content
        blocks = [block async for block in await store.open(key)]
        assert b"".join(blocks) == content
        assert all(len(block) <= 5 * 1024 * 1024 for block in blocks)
        known = await store.head(key)
        assert known is not None
        assert (known.key, known.size) == (key, len(content))
    listed = [stored async for page in store.listing(tenant_id) for stored in page]
    assert sorted(stored.size for stored in listed) == [0, 6, FEW_PARTS]
    assert {parts_of(stored.key) for stored in listed} == {(UUID(int=1), version) for version in (1, 2, 3)}


async def test_what_is_not_there_says_so_before_the_first_block(store: Watched) -> None:
    key = object_key(uuid4(), uuid4(), 1)
    assert await store.head(key) is None
    for read in (store.get, store.open):
        with pytest.raises(NotFound) as found:
            await read(key)
        assert found.value.code == "original_missing"


async def test_the_same_name_again_replaces_the_object(store: Watched) -> None:
    key = object_key(uuid4(), uuid4(), 1)
    await store.put(key, BytesIO(noise(FEW_PARTS)))
    await store.put(key, BytesIO(b"shorter"))
    assert await store.get(key) == b"shorter"


class BreaksOff(BytesIO):
    """A file of which the end cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > FEW_PARTS // 2:
            raise OSError("the disk is broken")
        return super().read(size)


async def test_what_breaks_off_leaves_no_object(store: Watched) -> None:
    tenant_id = uuid4()
    broken: BinaryIO = BreaksOff(noise(FEW_PARTS))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the library makes of it
        await store.put(object_key(tenant_id, uuid4(), 1), broken)
    assert await store.list_tenant(tenant_id) == []
    key = object_key(tenant_id, uuid4(), 1)
    putting = asyncio.create_task(store.put(key, BytesIO(noise(4 * FEW_PARTS))))
    await asyncio.sleep(0.05)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    found = await store.head(key)
    assert found is None or found.size == 4 * FEW_PARTS, "all of it or nothing"


async def test_tenants_are_listed_apart(store: Watched) -> None:
    one, other = uuid4(), uuid4()
    assert await store.tenants() == []
    await fill(store, one, 3)
    await fill(store, other, 2)
    assert await store.tenants() == sorted([str(one), str(other)])
    assert len(await store.list_tenant(one)) == 3


async def test_a_tenants_originals_are_deleted_many_at_a_time(store: Watched) -> None:
    erased, other = uuid4(), uuid4()
    await fill(store, erased, 1500)
    kept = await fill(store, other, 3)
    pages = [len(page) async for page in store.listing(erased)]
    assert (sum(pages), max(pages) <= 1000) == (1500, True)
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


async def test_a_store_that_is_well_passes_its_check_and_keeps_nothing_of_it(store: Watched) -> None:
    await store.check()
    assert await store.tenants() == []


async def test_a_large_original_takes_little_memory(store: Watched, tmp_path: Path) -> None:
    """The size of an original is no matter: it is put and read part by part."""
    size, key = 200 * 1024 * 1024, object_key(uuid4(), uuid4(), 1)
    large = tmp_path / "large"
    with large.open("wb") as file:
        block = noise(1024 * 1024)
        for _ in range(size // len(block)):
            file.write(block)
    process, most = psutil.Process(os.getpid()), 0
    before = process.memory_info().rss
    with large.open("rb") as file:
        putting = asyncio.create_task(store.put(key, file))
        while not putting.done():
            most = max(most, process.memory_info().rss - before)
            await asyncio.sleep(0.01)
        await putting
    read, digest = 0, hashlib.sha256()
    async for block in await store.open(key):
        most, read = max(most, process.memory_info().rss - before), read + len(block)
        digest.update(block)
    assert read == size
    assert digest.hexdigest() == hashlib.sha256(large.read_bytes()).hexdigest()
    await store.delete([key])
    assert most < 100 * 1024 * 1024
