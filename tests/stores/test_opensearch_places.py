"""Where an index lies on OpenSearch: moved while it is read, cut off anywhere, and never among others' by mistake."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import pytest
from opensearchpy import AsyncOpenSearch

from shards import opensearch_places
from shards.lexical import ChunkText
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.opensearch_server import OpenSearchServer
from shards.settings import LexicalSettings
from tests.stores.opensearch_entries import found, lying, own_of, rows_of

T = TypeVar("T")


class CutError(Exception):
    """The process ends here."""


class CutServer(OpenSearchServer):
    """A connection of a process that ends with its `last` request, before it is made or after."""

    def __init__(self, settings: LexicalSettings, last: int, *, made: bool) -> None:
        super().__init__(settings)
        self.last, self.made, self.requests = last, made, 0

    async def call(self, work: Callable[[AsyncOpenSearch], Awaitable[T]]) -> T:
        self.requests += 1
        if self.requests < self.last:
            return await super().call(work)
        if self.made:
            await super().call(work)
        raise CutError


@pytest.fixture
def index() -> str:
    return lexical_name(uuid4())


async def test_an_index_lies_shared_or_by_itself(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    pooled, alone, unplaced = (lexical_name(uuid4()) for _ in range(3))
    await opensearch.place(pooled, shared=True)
    await opensearch.place(alone, shared=False)
    for name in (pooled, alone, unplaced):
        await opensearch.insert(name, rows_of(4))
    places = await lying(opensearch_settings)
    assert [count for name, count in places.items() if name.startswith("shared-")] == [4]
    assert sum(name.startswith(f"{alone}-own-") for name in places) == 1
    assert sum(name.startswith(f"{unplaced}-own-") for name in places) == 1
    assert await opensearch.indexes() == sorted([pooled, alone, unplaced])


@pytest.mark.parametrize("shared", [True, False], ids=["into the pool", "out of the pool"])
async def test_a_move_keeps_every_hit_and_score(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str, shared: bool
) -> None:
    """Other tenants are in the pool, and the index has several shards: neither shows."""
    other = lexical_name(uuid4())
    await opensearch.place(other, shared=True)
    await opensearch.insert(other, rows_of(50))
    await opensearch.aclose()
    opensearch = OpenSearchLexical(opensearch_settings.model_copy(update={"shards": 3}))
    rows = rows_of(60)
    await opensearch.place(index, shared=not shared)
    await opensearch.insert(index, rows)
    before = await opensearch.search(index, "number 7 of the harbour", k=1000, scope=None)
    await opensearch.place(index, shared=shared)
    assert await opensearch.search(index, "number 7 of the harbour", k=1000, scope=None) == before
    assert len(before) == 60
    await opensearch.tidy(index, grace=timedelta())
    assert sum((await lying(opensearch_settings)).values()) == 110
    await opensearch.insert(index, [replace(rows[0], text="moved")])
    await opensearch.delete_chunks(index, [rows[1].chunk_id])
    assert await opensearch.count(index) == 59
    assert await found(opensearch, other) != []
    await opensearch.aclose()


async def test_readers_find_every_entry_once_during_moves(opensearch: OpenSearchLexical, index: str) -> None:
    rows = rows_of(30)
    await opensearch.place(index, shared=True)
    await opensearch.insert(index, rows)
    moving, answers = True, 0

    async def read() -> None:
        nonlocal answers
        while moving:
            assert Counter(await found(opensearch, index)) == Counter(row.chunk_id for row in rows)
            assert await opensearch.count(index) == 30
            answers += 1

    async def move() -> None:
        nonlocal moving
        try:
            for shared in (False, True, False):
                await opensearch.place(index, shared=shared)
        finally:
            moving = False

    await asyncio.gather(move(), read(), read())
    assert answers > 3


@pytest.mark.parametrize("made", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("shared", [True, False], ids=["into the pool", "out of the pool"])
async def test_a_move_cut_off_anywhere_is_repaired_by_the_next(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, shared: bool, made: bool
) -> None:
    rows = rows_of(12)
    wanted = Counter(row.chunk_id for row in rows)
    for last in range(1, 40):
        index = lexical_name(uuid4())
        await opensearch.place(index, shared=not shared)
        await opensearch.insert(index, rows)
        cut = CutServer(opensearch_settings, last, made=made)
        broken = OpenSearchLexical(opensearch_settings, cut)
        whole = True
        try:
            await broken.place(index, shared=shared)
        except CutError:
            whole = False
        await broken.aclose()
        fresh = OpenSearchLexical(opensearch_settings)
        assert Counter(await found(fresh, index)) == wanted, last
        await fresh.place(index, shared=shared)
        assert Counter(await found(fresh, index)) == wanted, last
        await fresh.tidy(index, grace=timedelta())
        places = await lying(opensearch_settings)
        assert sum(places.values()) == 12, (last, places)
        assert len(await own_of(opensearch_settings, index)) == (not shared), last
        assert await fresh.drop(index)
        assert await fresh.indexes() == []
        await fresh.aclose()
        if whole:
            assert last > 8
            return
    raise AssertionError("the move never came to its end")


async def test_what_lies_by_itself_was_never_among_others(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    """Not even an index that tenants share is made for it, from the first entry to the last."""
    await opensearch.place(index, shared=False)
    await opensearch.insert(index, rows_of(5))
    await opensearch.place(index, shared=False)
    await opensearch.drop(index)
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        assert await client.cat.indices(index=f"{opensearch_settings.prefix}*", format="json") == []


async def test_an_older_mapping_is_built_again_behind_the_alias(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, pooled, alone = rows_of(20), lexical_name(uuid4()), lexical_name(uuid4())
    for name, shared in ((pooled, True), (alone, False)):
        await opensearch.place(name, shared=shared)
        await opensearch.insert(name, rows)
    before = {name: await opensearch.search(name, "harbour 7", k=50, scope=None) for name in (pooled, alone)}
    monkeypatch.setattr(opensearch_places, "MAPPING", opensearch_places.MAPPING + 1)
    newer = OpenSearchLexical(opensearch_settings)
    for name, shared in ((pooled, True), (alone, False)):
        old = await own_of(opensearch_settings, name)
        await newer.place(name, shared=shared)
        assert await newer.search(name, "harbour 7", k=50, scope=None) == before[name]
        await newer.tidy(name, grace=timedelta())
        assert shared or set(await own_of(opensearch_settings, name)).isdisjoint(old)
    assert sum((await lying(opensearch_settings)).values()) == 40
    assert sum(name.startswith(f"shared-{opensearch_places.MAPPING}-") for name in await lying(opensearch_settings))
    await newer.aclose()


async def test_a_write_makes_no_index_that_somebody_dropped(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    """The server would make one by itself, without our mapping."""
    await opensearch.place(index, shared=True)
    await opensearch.insert(index, rows_of(3))
    elsewhere = OpenSearchLexical(opensearch_settings)
    await elsewhere.drop(index)
    await elsewhere.aclose()
    await opensearch.insert(index, rows_of(2))
    assert await opensearch.count(index) == 2
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        names = [
            row["index"] for row in await client.cat.indices(index=f"{opensearch_settings.prefix}*", format="json")
        ]
    assert all("-own-" in name or "shared-" in name for name in names)


async def test_what_a_crash_left_without_an_alias_is_listed_and_dropped(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    pooled, alone = lexical_name(uuid4()), lexical_name(uuid4())
    for name, shared in ((pooled, True), (alone, False)):
        await opensearch.place(name, shared=shared)
        await opensearch.insert(name, rows_of(3))
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        await client.indices.delete_alias(index="*", name=f"{opensearch_settings.prefix}t_*")
    assert await opensearch.indexes() == sorted([pooled, alone])
    for name in (pooled, alone):
        assert await opensearch.count(name) == 0
        assert await opensearch.drop(name) is True
    assert await opensearch.indexes() == []


async def test_other_tenants_change_no_hit_no_order_and_no_score(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    """Those in the same index, in the same shard, that have the same words more often, in longer texts."""
    one = OpenSearchLexical(opensearch_settings.model_copy(update={"shared_indexes": 1, "shared_shards": 1}))
    mine, theirs = lexical_name(uuid4()), lexical_name(uuid4())
    rows = [ChunkText(uuid4(), at, "Harbour", f"crane {'rope ' * (at % 5)} number {at % 4}") for at in range(40)]
    await one.place(mine, shared=True)
    await one.insert(mine, rows)
    questions = ["crane rope", "number 3 rope", "harbour crane", "rope"]
    before = [await one.search(mine, text, k=25, scope=None) for text in questions]
    words = await one.word_idf(mine, ["crane", "rope", "zebra", "3"])
    await one.place(theirs, shared=True)
    for _ in range(4):
        await one.insert(theirs, [ChunkText(uuid4(), at, "Rope", "rope zebra 3 " * (1 + at % 50)) for at in range(100)])
    async with AsyncOpenSearch(hosts=[opensearch_settings.url], timeout=60) as client:
        await client.indices.forcemerge(index=f"{opensearch_settings.prefix}shared-*", max_num_segments=1)
    assert [await one.search(mine, text, k=25, scope=None) for text in questions] == before
    assert await one.word_idf(mine, ["crane", "rope", "zebra", "3"]) == words
    assert await found(one, mine, "zebra") == []
    await one.aclose()


async def test_either_barrier_alone_keeps_tenants_apart(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    one = OpenSearchLexical(opensearch_settings.model_copy(update={"shared_indexes": 1, "shared_shards": 1}))
    mine, theirs = lexical_name(uuid4()), lexical_name(uuid4())
    rows, secret = rows_of(3), rows_of(4, "harbour secret")
    for name, some in ((mine, rows), (theirs, secret)):
        await one.place(name, shared=True)
        await one.insert(name, some)
    alias = f"{opensearch_settings.prefix}{mine}"
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        answer = await client.search(index=alias, body={"query": {"match_all": {}}, "size": 50})
        assert {hit["_source"]["owner"] for hit in answer["hits"]["hits"]} == {mine}, "the alias alone"
        physical = next(iter(await client.indices.get_alias(name=alias)))
        await client.indices.update_aliases(
            body={
                "actions": [
                    {"remove": {"index": physical, "alias": alias}},
                    {"add": {"index": physical, "alias": alias}},
                ]
            }
        )
    assert set(await found(one, mine)) == {row.chunk_id for row in rows}, "the filter alone"
    assert await one.count(mine) == 3
    assert await found(one, mine, "secret") == []
    assert len(set((await one.word_idf(mine, ["secret", "zebra"])).values())) == 1
    assert len([entry async for page in one.entries(mine) for entry in page]) == 3
    assert await one.held(mine, [row.chunk_id for row in secret]) == []
    await one.delete_chunks(mine, [row.chunk_id for row in secret])
    await one.delete_versions(mine, [1, 2])
    assert await one.count(theirs) == 4
    await one.aclose()
