"""What moves and crashes leave on OpenSearch: deletes reach it, readers never do, and it goes when nobody needs it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from opensearchpy import AsyncOpenSearch

from shards import opensearch_places
from shards.lexical import DamagedIndex
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings
from tests.stores.opensearch_entries import aliases, found, lying, own_of, rows_of

NONE = timedelta()
MINUTE = timedelta(seconds=60)


@pytest.fixture
def index() -> str:
    return lexical_name(uuid4())


async def moved_out(store: OpenSearchLexical, index: str, number: int = 6) -> list[UUID]:
    """Fill an index in the pool and move it out of it; return its chunks."""
    rows = rows_of(number)
    await store.place(index, shared=True)
    await store.insert(index, rows)
    assert await store.place(index, shared=False) is True
    return [row.chunk_id for row in rows]


async def test_a_move_says_whether_it_left_something(
    opensearch: OpenSearchLexical, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await opensearch.place(index, shared=False) is False, "it is new"
    assert await opensearch.place(index, shared=True) is False, "an index of its own is deleted at once"
    assert await opensearch.place(index, shared=True) is False, "it is there"
    monkeypatch.setattr(opensearch_places, "MAPPING", opensearch_places.MAPPING + 1)
    newer = OpenSearchLexical(opensearch._settings)
    assert await newer.place(index, shared=True) is True, "into another pool"
    assert await newer.place(index, shared=False) is True
    await newer.aclose()


async def test_deletes_reach_what_a_move_left(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    """Before the job that tidies has run."""
    chunks = await moved_out(opensearch, index)
    assert sum((await lying(opensearch_settings)).values()) == 12
    await opensearch.delete_versions(index, [1])
    assert sum((await lying(opensearch_settings)).values()) == 6
    await opensearch.delete_chunks(index, chunks)
    assert await lying(opensearch_settings) == {}


async def test_the_proof_of_a_deletion_sees_what_a_move_left(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    await moved_out(opensearch, index)
    [own] = await own_of(opensearch_settings, index)
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        await client.delete_by_query(index=own, body={"query": {"match_all": {}}}, params={"refresh": "true"})
    assert await opensearch.count(index) == 0
    assert await opensearch.count_versions(index, [1, 2]) == 6
    await opensearch.tidy(index, grace=NONE)
    assert await opensearch.count_versions(index, [1, 2]) == 0


async def test_what_a_move_left_stays_for_the_searches_that_began_before_it(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    await moved_out(opensearch, index)
    await opensearch.tidy(index, grace=MINUTE)
    assert sum((await lying(opensearch_settings)).values()) == 12
    assert len(await found(opensearch, index)) == 6
    await opensearch.tidy(index, grace=NONE)
    assert sum((await lying(opensearch_settings)).values()) == 6
    assert await aliases(opensearch_settings) == {index}
    assert len(await found(opensearch, index)) == 6


async def test_a_copy_that_was_cut_off_finds_nowhere_to_write_afterwards(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    """It may run on when its request was given up; the alias that it writes to is its own, and goes."""
    shared = f"{opensearch_settings.prefix}shared-1-0"
    other = lexical_name(uuid4())
    await opensearch.insert(index, rows_of(6))
    one = OpenSearchLexical(opensearch_settings.model_copy(update={"shared_indexes": 1}))
    await one.place(other, shared=True)
    building = f"{opensearch_settings.prefix}{index}-building-0123abcd"
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        await client.indices.put_alias(index=shared, name=building)
        await one.place(index, shared=True)
        answer = await client.bulk(
            index=building, body=[{"index": {"_id": "late"}}, {}], params={"require_alias": "true"}
        )
        assert answer["errors"], "it writes on"
    assert await aliases(opensearch_settings) == {index, other}
    assert len(await found(one, index)) == 6
    await one.aclose()


async def test_an_alias_on_two_indexes_is_damage_that_a_drop_mends(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    other = lexical_name(uuid4())
    await opensearch.insert(index, rows_of(3))
    await opensearch.place(other, shared=True)
    await opensearch.insert(other, rows_of(3))
    alias = f"{opensearch_settings.prefix}{index}"
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        await client.indices.put_alias(index=f"{opensearch_settings.prefix}shared-*", name=alias)
    fresh = OpenSearchLexical(opensearch_settings)
    with pytest.raises(DamagedIndex):
        await fresh.place(index, shared=False)
    assert await fresh.drop(index) is True
    assert await fresh.indexes() == [other]
    await fresh.insert(index, rows_of(2))
    assert len(await found(fresh, index)) == 2
    assert len(await found(fresh, other)) == 3
    await fresh.aclose()


async def test_an_index_under_the_name_of_an_alias_is_damage_that_a_drop_mends(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings, index: str
) -> None:
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        await client.indices.create(index=f"{opensearch_settings.prefix}{index}")
    with pytest.raises(DamagedIndex):
        await opensearch.place(index, shared=False)
    await opensearch.drop(index)
    await opensearch.insert(index, rows_of(2))
    assert len(await found(opensearch, index)) == 2


async def test_a_move_of_another_process_is_seen_a_minute_later(
    opensearch_settings: LexicalSettings, opensearch: OpenSearchLexical, index: str
) -> None:
    """Two processes have the index, each with what it remembers of its place."""
    seconds = 0.0
    mine = OpenSearchLexical(opensearch_settings, clock=lambda: seconds)
    await mine.place(index, shared=True)
    await mine.insert(index, rows_of(3))
    await opensearch.place(index, shared=False)
    await mine.place(index, shared=True)
    assert len(await own_of(opensearch_settings, index)) == 1, "what is not looked up costs nothing"
    seconds = 61.0
    await mine.place(index, shared=True)
    assert await own_of(opensearch_settings, index) == []
    assert len(await found(opensearch, index)) == 3
    await mine.aclose()


async def test_counts_are_kept_of_some_indexes_only(opensearch: OpenSearchLexical) -> None:
    names = [lexical_name(uuid4()) for _ in range(3)]
    for name in names:
        await opensearch.insert(name, rows_of(1))
    for number in range(260):
        await opensearch.search(names[number % 3], "harbour", k=1, scope=None)
        opensearch._last[f"another {number}"] = opensearch._last[names[number % 3]]
    await opensearch.search(names[0], "harbour", k=1, scope=None)
    assert len(opensearch._last) == 100
    for number in range(9):  # of the same index
        await opensearch.search(names[0], f"harbour {number}", k=1, scope=None)
    assert len(opensearch._last[names[0]]) == 4
