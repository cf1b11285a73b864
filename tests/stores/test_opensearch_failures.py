"""What a caller sees when OpenSearch goes away, hangs, is full, or answers in part, and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import numpy as np
import pytest
from opensearchpy import AsyncOpenSearch

from shards.lexical import ChunkText, DamagedIndex
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.opensearch_server import OpenSearchServer
from shards.settings import LexicalSettings
from shards.vectors import VersionScope
from tenants.errors import Unavailable
from tests.servers import server
from tests.stores.opensearch_process import FakeServer, OpenSearchProcess, free_port

T = TypeVar("T")
FULL = {"error": {"type": "rejected_execution_exception", "reason": "queue is full"}}
NO_HITS: dict[str, Any] = {
    "timed_out": False,
    "_shards": {"total": 2, "successful": 2, "failed": 0},
    "hits": {"hits": []},
}


def rows_of(number: int) -> list[ChunkText]:
    return [ChunkText(uuid4(), at + 1, "Log", f"the harbour of number {at}") for at in range(number)]


def calls(store: OpenSearchLexical, index: str) -> list[Callable[[], Awaitable[object]]]:
    """Every call of the protocol."""
    [row] = rows_of(1)
    scope = VersionScope(np.array([1], dtype=np.int64))
    return [
        lambda: store.search(index, "harbour", k=3, scope=None),
        lambda: store.search(index, "harbour", k=3, scope=scope),
        lambda: store.place(lexical_name(uuid4()), shared=True),
        lambda: store.tidy(index, grace=timedelta()),
        lambda: store.insert(index, [row]),
        lambda: store.delete_versions(index, [1]),
        lambda: store.delete_chunks(index, [row.chunk_id]),
        lambda: store.word_idf(index, ["harbour"]),
        lambda: store.count_versions(index, [1]),
        lambda: store.count(index),
        lambda: store.held(index, [row.chunk_id]),
        lambda: store.lacking(index, [row]),
        lambda: anext(store.entries(index)),
        lambda: store.drop(index),
        lambda: store.indexes(),
        lambda: store.ping(),
        lambda: store.check(),
    ]


async def all_unavailable(store: OpenSearchLexical, index: str) -> None:
    for number, call in enumerate(calls(store, index)):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert caught.value.code == "lexical_unavailable", number
        assert caught.value.retryable


async def everything(store: OpenSearchLexical, index: str) -> set[UUID]:
    return {entry.chunk_id async for page in store.entries(index) for entry in page}


@pytest.fixture(params=["opensearch2", "opensearch3"])
def own_opensearch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenSearchProcess]:
    """A server for one test, started."""
    entry = server(request.param)
    process = OpenSearchProcess(tmp_path / "node", free_port(), entry["java"], entry["jars"])
    try:
        process.start()
        yield process
    finally:
        process.stop()


@pytest.fixture
async def store(own_opensearch: OpenSearchProcess) -> AsyncIterator[OpenSearchLexical]:
    async with AsyncOpenSearch(hosts=[own_opensearch.url], timeout=60) as client:
        disk = {"cluster.routing.allocation.disk.threshold_enabled": False}
        await client.cluster.put_settings(body={"persistent": disk})
    store = OpenSearchLexical(LexicalSettings(url=own_opensearch.url, timeout_s=60))
    yield store
    await store.aclose()


async def test_what_was_acknowledged_survives_a_kill_during_writing(
    store: OpenSearchLexical, own_opensearch: OpenSearchProcess
) -> None:
    """Writers of two tenants, one of them pooled; then the store goes on without being made anew."""
    pooled, alone = lexical_name(uuid4()), lexical_name(uuid4())
    acknowledged: dict[str, set[UUID]] = {pooled: set(), alone: set()}
    await store.place(pooled, shared=True)

    async def write(index: str) -> None:
        for _ in range(10_000):
            rows = rows_of(30)
            await store.insert(index, rows)
            acknowledged[index].update(row.chunk_id for row in rows)

    writing = [asyncio.create_task(write(index)) for index in acknowledged]
    while min(map(len, acknowledged.values())) < 150:
        await asyncio.sleep(0.01)
    own_opensearch.kill()
    for task in writing:
        with pytest.raises(Unavailable):
            await task
    await all_unavailable(store, pooled)
    own_opensearch.start()
    for index, written in acknowledged.items():
        held = await everything(store, index)
        assert written <= held
        found = await store.search(index, "harbour", k=10_000, scope=None)
        assert {hit.chunk_id for hit in found} == held
        assert await store.delete_versions(index, [1]) == len(held) // 30
        await store.insert(index, rows_of(5))
        assert await store.count(index) == len(held) - len(held) // 30 + 5


async def test_a_server_that_hangs_costs_its_time_out_and_then_nothing(
    store: OpenSearchLexical, own_opensearch: OpenSearchProcess
) -> None:
    index, rows = lexical_name(uuid4()), rows_of(3)
    await store.insert(index, rows)
    assert await store.count(index) == 3
    hasty = OpenSearchLexical(LexicalSettings(url=own_opensearch.url, timeout_s=2))
    own_opensearch.pause()
    try:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await hasty.count(index)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await hasty.search(index, "harbour", k=3, scope=None)
        assert time.monotonic() - began < 1, "it is left alone for a moment"
    finally:
        own_opensearch.resume()
    async with asyncio.timeout(60):
        while True:
            try:
                assert len(await hasty.search(index, "harbour", k=3, scope=None)) == 3
                break
            except Unavailable:
                await asyncio.sleep(0.2)
    await hasty.aclose()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    store = OpenSearchLexical(LexicalSettings(url=f"http://127.0.0.1:{free_port()}"))
    await all_unavailable(store, lexical_name(uuid4()))
    await store.aclose()


async def test_a_server_without_room_is_asked_again_a_few_times() -> None:
    async with FakeServer({"*": (429, FULL)}) as fake:
        store = OpenSearchLexical(LexicalSettings(url=fake.url))
        asking = asyncio.create_task(store.count(lexical_name(uuid4())))
        while len(fake.seen) < 2:
            await asyncio.sleep(0.01)
        fake.answers["*"] = (200, {"count": 7, "_shards": {"failed": 0}})
        assert await asking == 7
        fake.answers["*"] = (503, FULL)
        fake.seen.clear()
        with pytest.raises(Unavailable) as caught:
            await store.count(lexical_name(uuid4()))
        assert caught.value.code == "lexical_unavailable"
        assert len(fake.seen) < 10
        await store.aclose()


@pytest.mark.parametrize(
    "part",
    [
        {"timed_out": True},
        {"_shards": {"total": 2, "successful": 1, "failed": 1}},
        {"_shards": {"total": 2, "successful": 1, "failed": 0}},
    ],
    ids=["late", "failed", "missing"],
)
async def test_an_answer_in_part_is_no_answer(part: dict[str, Any]) -> None:
    counts = {"hits": {"total": {"value": 3}}, "aggregations": {"languages": {"buckets": []}}}
    async with FakeServer({"*": (200, {**NO_HITS, **counts, **part, "count": 1, "responses": [part]})}) as fake:
        store, index, [row] = OpenSearchLexical(LexicalSettings(url=fake.url)), lexical_name(uuid4()), rows_of(1)
        for call in (
            lambda: store.search(index, "harbour", k=3, scope=None),
            lambda: store.held(index, [row.chunk_id]),
            lambda: store.count(index),
            lambda: store.count_versions(index, [1]),
            lambda: store.lacking(index, [row]),
        ):
            with pytest.raises(Unavailable) as caught:
                await call()
            assert caught.value.code == "lexical_unavailable"
        await store.aclose()


async def test_items_of_a_batch_that_found_no_room_are_written_again() -> None:
    """And only those; an item that is refused for another reason is an error."""
    rows = rows_of(3)
    done, full = {"index": {"status": 201}}, {"index": {"status": 429, "error": FULL["error"]}}
    async with FakeServer({"*": (200, {"errors": True, "items": [done, full, done]})}) as fake:
        store = OpenSearchLexical(LexicalSettings(url=fake.url))
        writing = asyncio.create_task(store.insert(lexical_name(uuid4()), rows))
        while not fake.seen:
            await asyncio.sleep(0.005)
        fake.answers["*"] = (200, {"errors": False, "items": [done]})
        await writing
        assert [len(body.splitlines()) for body in fake.bodies] == [6, 2]
        assert rows[1].chunk_id.hex in fake.bodies[1]
        fake.answers["*"] = (200, {"errors": True, "items": [full]})
        with pytest.raises(Unavailable):
            await store.insert(lexical_name(uuid4()), rows[:1])
        await store.aclose()


async def test_a_blocked_server_says_that_its_disk_may_be_full() -> None:
    blocked = {"error": {"type": "cluster_block_exception", "reason": "index [x] blocked by: [FORBIDDEN/12/...]"}}
    async with FakeServer({"*": (403, blocked)}) as fake:
        store = OpenSearchLexical(LexicalSettings(url=fake.url))
        with pytest.raises(Unavailable, match="disk"):
            await store.insert(lexical_name(uuid4()), rows_of(1))
        await store.aclose()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, "cluster_block_exception"),
        (403, "security_exception"),
        (500, "translog_exception"),
        (502, "node_disconnected"),
    ],
)
async def test_items_that_are_refused_for_what_passes_are_no_damage(status: int, kind: str) -> None:
    """Only what the index would never take is: an upload would fail for good."""
    refused = {"index": {"status": status, "error": {"type": kind, "reason": "..."}}}
    async with FakeServer({"*": (200, {"errors": True, "items": [refused]})}) as fake:
        store = OpenSearchLexical(LexicalSettings(url=fake.url))
        with pytest.raises(Unavailable) as caught:
            await store.insert(lexical_name(uuid4()), rows_of(1))
        assert caught.value.code == "lexical_unavailable"
        assert ("disk" in caught.value.detail) == (kind == "cluster_block_exception")
        refused["index"] |= {"status": 400, "error": {"type": "mapper_parsing_exception", "reason": "..."}}
        with pytest.raises(DamagedIndex, match="mapper_parsing_exception"):
            await store.insert(lexical_name(uuid4()), rows_of(1))
        await store.aclose()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, "too_many_clauses"), (500, "null_pointer_exception"), (404, "search_context_missing_exception")],
)
async def test_an_error_that_nobody_foresaw_is_unavailable(status: int, kind: str) -> None:
    async with FakeServer({"*": (status, {"error": {"type": kind, "reason": "..."}})}) as fake:
        store = OpenSearchLexical(LexicalSettings(url=fake.url))
        for call in calls(store, lexical_name(uuid4()))[:-1]:
            with pytest.raises(Unavailable) as caught:
                await call()
            assert caught.value.code == "lexical_unavailable"
        await store.aclose()


class Noting(OpenSearchServer):
    """Remembers the snapshots that were made."""

    def __init__(self, settings: LexicalSettings) -> None:
        super().__init__(settings)
        self.snapshots: list[str] = []

    async def call(self, work: Callable[[AsyncOpenSearch], Awaitable[T]]) -> T:
        answer = await super().call(work)
        if isinstance(answer, dict) and "creation_time" in answer:
            self.snapshots.append(answer["pit_id"])
        return answer


async def test_a_snapshot_that_ended_is_unavailable(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    """The server keeps it for a time, and knows nothing of it afterwards."""
    index, server = lexical_name(uuid4()), Noting(opensearch_settings)
    await opensearch.insert(index, rows_of(3))
    store = OpenSearchLexical(opensearch_settings, server)
    pages = store.entries(index, batch=1)
    await anext(pages)
    await server.call(lambda client: client.delete_pit(body={"pit_id": server.snapshots}))
    with pytest.raises(Unavailable) as caught:
        await anext(pages)
    assert caught.value.code == "lexical_unavailable"
    await store.aclose()
