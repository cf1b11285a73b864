"""What only a real Milvus server can show: recovery after a crash, TLS, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import pytest

from shards.milvus import MilvusVectors
from shards.names import TIERS, Space
from shards.settings import MilvusSettings
from shards.vectors import ChunkVector
from tenants.errors import Misconfigured, Unavailable
from tests.servers import server
from tests.stores.chunk_vectors import DIM, Rng, chunks, found, listed, unit
from tests.stores.real_milvus import Authority, RealMilvus

T = TypeVar("T")
RECOVERED_S = 120
SEARCHES = """enabled: false
    searchRate:
      collection:
        max: -1"""
"""How the configuration limits searches, in vectors a second."""


@asynccontextmanager
async def running(folder: Path, changed: dict[str, str] | None = None) -> AsyncIterator[RealMilvus]:
    server("milvus")  # where there are no servers there is no program either
    own = RealMilvus(folder, changed)
    try:
        await own.start()
        yield own
    finally:
        await own.kill()


async def answered(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the store answers: nothing else may go wrong meanwhile."""
    async with asyncio.timeout(RECOVERED_S):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.3)
    raise AssertionError("not reached")


class Writer:
    """Writes batch after batch into a space, each until it is acknowledged, until it is told to stop."""

    def __init__(self, store: MilvusVectors, space: Space, rng: Rng) -> None:
        self.store, self.space, self.rng = store, space, rng
        self.acknowledged: set[UUID] = set()
        self.stopped = asyncio.Event()

    async def run(self) -> None:
        version = 0
        while not self.stopped.is_set():
            version += 1
            rows = chunks(self.rng, [version] * 10)
            await answered(partial(self.store.insert, self.space, {0: rows}))
            self.acknowledged |= {row.chunk_id for row in rows}
            await asyncio.sleep(0.02)

    async def reaches(self, more: int) -> None:
        wanted = len(self.acknowledged) + more
        async with asyncio.timeout(RECOVERED_S):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.1)


async def test_a_server_killed_while_it_is_written_to_and_searched_comes_back_with_all_that_was_acknowledged(
    tmp_path: Path, rng: Rng
) -> None:
    async with running(tmp_path) as own:
        writing, reading = MilvusVectors(own.settings), MilvusVectors(own.settings)
        tenant = uuid4()
        spaces = [Space(tenant, number, DIM, tier, bucket=number) for number, tier in enumerate(TIERS, 1)]
        for space in spaces:
            await answered(partial(writing.create, space, cells=1))
        writers = [Writer(writing, space, rng) for space in spaces]
        stopped = asyncio.Event()

        async def search() -> None:
            while not stopped.is_set():
                for space in spaces:
                    await answered(partial(reading.search, space, unit(rng), k=5, cells=None, scope=None))

        tasks = [asyncio.create_task(writer.run()) for writer in writers] + [asyncio.create_task(search())]
        await asyncio.gather(*(writer.reaches(200) for writer in writers))
        await own.kill()
        await asyncio.sleep(0.5)
        await own.start()
        await asyncio.gather(*(writer.reaches(100) for writer in writers))
        stopped.set()
        for writer in writers:
            writer.stopped.set()
        await asyncio.gather(*tasks)
        for writer in writers:
            rows = await answered(partial(scanned, reading, writer.space))
            assert writer.acknowledged <= {row.chunk_id for row in rows}
            assert len(rows) == len({row.chunk_id for row in rows})
        assert await answered(partial(writing.drop_tenant, tenant)) != (0, 0)
        await writing.aclose()
        await reading.aclose()


async def scanned(store: MilvusVectors, space: Space) -> list[ChunkVector]:
    return await listed(store.scan(space))


async def test_tls_by_an_authority_of_its_own_and_certificates_on_both_sides(tmp_path: Path, rng: Rng) -> None:
    authority, stranger = Authority(tmp_path), Authority(_made(tmp_path / "stranger"))
    certificate, key = authority.signed("milvus")
    ours = authority.signed("tessera")
    changed = {
        "tlsMode: 0": "tlsMode: 2",
        "serverPemPath: server.pem": f"serverPemPath: {certificate}",
        "serverKeyPath: server.key": f"serverKeyPath: {key}",
        "caPemPath:  ca.pem": f"caPemPath: {authority.pem}",
    }
    async with running(tmp_path / "server", changed) as own:
        plain = own.settings
        https = plain.model_copy(update={"uri": plain.uri.replace("http:", "https:")})
        login = {"ca": authority.pem, "client_cert": ours[0], "client_key": ours[1]}
        store, space = MilvusVectors(https.model_copy(update=login)), Space(uuid4(), 1, DIM)
        await answered(store.check)
        await store.create(space, cells=1)
        rows = chunks(rng, [1, 2])
        await store.insert(space, {0: rows})
        assert len(await found(store, space, rows[0].vector, 5)) == 2
        await store.aclose()
        for wrong in (
            https,
            https.model_copy(update={**login, "ca": stranger.pem}),
            https.model_copy(update={"ca": authority.pem}),
        ):
            await refused(wrong)


async def refused(settings: MilvusSettings) -> None:
    store = MilvusVectors(settings)
    with pytest.raises(Misconfigured, match="TESSERA_MILVUS_"):
        await store.check()
    await store.aclose()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


async def test_a_server_at_its_limits_is_unavailable_and_may_be_asked_again(tmp_path: Path, rng: Rng) -> None:
    few = {SEARCHES: SEARCHES.replace("enabled: false", "enabled: true").replace("max: -1", "max: 0.1")}
    async with running(tmp_path, few) as own:
        store, space = MilvusVectors(own.settings.model_copy(update={"timeout_s": 3})), Space(uuid4(), 1, DIM)
        await answered(partial(store.create, space, cells=1))
        with pytest.raises(Unavailable) as caught:
            await until_refused(partial(store.search, space, unit(rng), k=1, cells=None, scope=None))
        assert (caught.value.code, caught.value.retryable) == ("vectors_unavailable", True)
        await store.aclose()


async def until_refused(call: Callable[[], Awaitable[object]]) -> None:
    """Call again and again: the server looks at its quotas now and then."""
    async with asyncio.timeout(RECOVERED_S):
        while True:
            await call()
            await asyncio.sleep(0.5)
