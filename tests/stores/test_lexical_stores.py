from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from math import log
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from shards.bm25 import TantivyLexical
from shards.lexical import ChunkText, HeldEntry, LexicalStore
from shards.memory import MemoryLexical
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings
from shards.vectors import VersionScope

HOSTILE = [
    "",
    " ",
    "*",
    "title:(",
    'text:"unclosed',
    "a AND OR NOT (",
    "[1 TO 5]",
    "chunk_id:* OR version_no:[0 TO *]",
    "\\",
    "\x00\x01",
    "😀 🏳️‍🌈",
    "'; DROP TABLE chunks; --",
    "^~+-!{}",
    "\ud800".encode("utf-8", "replace").decode(),
    "x" * 200_000,
    "word " * 50_000,
    "北" * 5_000,
]


def entry(text: str, version: int = 1, heading: str = "") -> ChunkText:
    return ChunkText(uuid4(), version, heading, text)


def scope(versions: Sequence[int]) -> VersionScope:
    return VersionScope(np.array(sorted(set(versions)), dtype=np.int64))


async def ids(
    store: LexicalStore, index: str, query: str, k: int = 10, within: Sequence[int] | None = None
) -> list[UUID]:
    found = await store.search(index, query, k=k, scope=None if within is None else scope(within))
    return [hit.chunk_id for hit in found]


class LexicalStoreConformance:
    """What `LexicalStore` promises. A subclass names the store."""

    @pytest.fixture
    def index(self) -> str:
        return lexical_name(uuid4())

    async def test_finds_entries_that_share_a_word(self, store: LexicalStore, index: str) -> None:
        rows = [entry("the annual leave is thirty days"), entry("travel expenses need a receipt"), entry("nothing")]
        await store.insert(index, rows)
        assert await ids(store, index, "how many days of leave?") == [rows[0].chunk_id]
        assert await ids(store, index, "zebra") == []
        assert await ids(store, index, "receipt leave") != []

    async def test_the_rarer_word_and_the_shorter_text_count_more(self, store: LexicalStore, index: str) -> None:
        rare = entry("policy about hamsters")
        common = [entry(f"policy number {number}") for number in range(20)]
        long = entry("policy about hamsters " + "and many other things besides " * 20)
        await store.insert(index, [*common, long, rare])
        found = await store.search(index, "hamsters policy", k=30, scope=None)
        assert [hit.chunk_id for hit in found[:2]] == [rare.chunk_id, long.chunk_id]
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        assert len(found) == 22

    @pytest.mark.parametrize("batch", [1, 3, 100])
    async def test_lists_every_entry_once(self, store: LexicalStore, index: str, batch: int) -> None:
        assert [page async for page in store.entries(index) if page] == []
        versions = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]
        rows = [entry(f"word{number}", version) for number, version in enumerate(versions)]
        for start in range(0, len(rows), 4):
            await store.insert(index, rows[start : start + 4])
        await store.insert(index, rows[:2])
        found = [held async for page in store.entries(index, batch=batch) for held in page]
        assert len(found) == len(rows)
        assert set(found) == {HeldEntry(row.chunk_id, row.version_no) for row in rows}

    async def test_looks_up_counts_and_removes_entries_by_chunk(self, store: LexicalStore, index: str) -> None:
        rows = [entry(f"word{number}", number % 3) for number in range(9)]
        await store.delete_chunks(index, [rows[0].chunk_id])
        assert await store.held(index, [rows[0].chunk_id]) == []
        await store.insert(index, rows)
        wanted = [rows[1].chunk_id, uuid4(), rows[2].chunk_id]
        assert set(await store.held(index, wanted)) == {HeldEntry(row.chunk_id, row.version_no) for row in rows[1:3]}
        assert await store.count_versions(index, [0, 2, 77]) == 6
        await store.delete_chunks(index, wanted)
        assert await store.held(index, wanted) == []
        assert await store.count(index) == 7
        assert await store.count_versions(index, [1, 2]) == 4

    async def test_says_whose_entry_lacks_a_word(self, store: LexicalStore, index: str) -> None:
        row = entry("The cranes were painted 北京市 on Tuesdays.", heading="Harbour > Cranes")
        await store.insert(index, [row, entry("zeppelin")])
        assert await store.lacking(index, [row]) == set()
        for changed in (
            ChunkText(row.chunk_id, 1, row.heading, f"{row.text} zeppelin"),
            ChunkText(row.chunk_id, 1, "Harbour > Lamps", row.text),
            ChunkText(row.chunk_id, 1, row.heading, row.text.replace("北京市", "上海市")),
            ChunkText(uuid4(), 1, row.heading, row.text),
        ):
            assert await store.lacking(index, [row, changed]) == {changed.chunk_id}
        assert await store.lacking(lexical_name(uuid4()), [row]) == {row.chunk_id}

    async def test_stems_and_ignores_case_and_accents(self, store: LexicalStore, index: str) -> None:
        row = entry("Reimbursements for CAFÉ visits and résumés")
        await store.insert(index, [row, entry("unrelated")])
        for query in ("reimbursement", "REIMBURSEMENTS", "cafe", "café", "resume", "Résumé", "ｃａｆｅ"):
            assert await ids(store, index, query) == [row.chunk_id], query

    async def test_the_heading_is_searched_and_counts(self, store: LexicalStore, index: str) -> None:
        headed = entry("the rules are as follows here", heading="Handbook > Parking")
        passing = entry("the rules for parking are unclear")
        await store.insert(index, [headed, passing, entry("the rules")])
        assert set(await ids(store, index, "parking")) == {headed.chunk_id, passing.chunk_id}
        assert await ids(store, index, "handbook") == [headed.chunk_id]

    async def test_scripts_without_spaces_are_found(self, store: LexicalStore, index: str) -> None:
        rows = {
            "zh": entry("北京大学位于中国首都北京市海淀区。"),
            "ja": entry("東京の図書館は九時に開きます。カタカナもあります。"),
            "ko": entry("서울의 도서관은 아홉시에 문을 엽니다."),
            "th": entry("ห้องสมุดเปิดเวลาเก้าโมงเช้า"),
            "en": entry("The library opens at nine."),
        }
        await store.insert(index, list(rows.values()))
        assert await ids(store, index, "北京大学在哪里？") == [rows["zh"].chunk_id]
        assert await ids(store, index, "海") == [rows["zh"].chunk_id]
        assert (await ids(store, index, "図書館は何時に開きますか"))[0] == rows["ja"].chunk_id
        assert (await ids(store, index, "ｶﾀｶﾅ"))[0] == rows["ja"].chunk_id
        assert (await ids(store, index, "도서관"))[0] == rows["ko"].chunk_id
        assert (await ids(store, index, "ห้องสมุด"))[0] == rows["th"].chunk_id
        assert await ids(store, index, "library 北欧") == [rows["en"].chunk_id]

    @pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
    async def test_any_string_is_a_harmless_query(self, store: LexicalStore, index: str, query: str) -> None:
        await store.insert(index, [entry("an ordinary sentence", 5), entry("title text heading chunk", 6)])
        await store.search(index, query, k=5, scope=None)
        assert await store.search(index, query, k=5, scope=scope([99])) == []
        await store.word_idf(index, [query])
        assert await store.count(index) == 2

    async def test_a_query_is_never_syntax(self, store: LexicalStore, index: str) -> None:
        row = entry("something else entirely")
        await store.insert(index, [row])
        for query in ("*", "some*", "NOT zebra", "-zebra", "version_no:1", f"chunk_id:{row.chunk_id.hex}", "[a TO z]"):
            assert await ids(store, index, query) == [], query

    async def test_any_text_can_be_an_entry(self, store: LexicalStore, index: str) -> None:
        rows = [entry(text, heading=text) for text in HOSTILE]
        await store.insert(index, rows)
        assert await store.count(index) == len(HOSTILE)

    async def test_of_a_very_long_query_the_rarest_terms_count(self, store: LexicalStore, index: str) -> None:
        filler = [f"filler{number}" for number in range(300)]
        needle = entry("needle")
        await store.insert(index, [entry(" ".join(filler)), entry(" ".join(filler)), needle])
        assert needle.chunk_id in await ids(store, index, " ".join([*filler, "needle"]))

    async def test_returns_the_k_best(self, store: LexicalStore, index: str) -> None:
        await store.insert(index, [entry("leave " * number + "and so on", number) for number in range(1, 30)])
        assert len(await ids(store, index, "leave", k=7)) == 7
        all_hits = await ids(store, index, "leave", k=1000)
        assert len(all_hits) == 29
        assert await ids(store, index, "leave", k=7) == all_hits[:7]
        with pytest.raises(ValueError, match="k is 0"):
            await store.search(index, "leave", k=0, scope=None)

    async def test_obeys_any_scope_exactly(self, store: LexicalStore, index: str) -> None:
        rng = np.random.default_rng(1)
        words = ["leave", "travel", "parking", "salary", "insurance"]
        rows = [
            entry(" ".join(rng.choice(words, rng.integers(1, 9))), int(version))
            for version in rng.permutation(np.repeat(np.arange(200) * 2 + 1, 2))
        ]
        await store.insert(index, rows)
        every = {hit.chunk_id: hit.score for hit in await store.search(index, "leave salary", k=500, scope=None)}
        version_of = {row.chunk_id: row.version_no for row in rows}
        for trial in range(30):
            known = np.arange(200) * 2 + 1
            within = [rng.choice(known, rng.integers(1, 150), replace=False), np.arange(50, 250), known][trial % 3]
            allowed = set(within.tolist())
            k = int(rng.choice([1, 10, 500]))
            found = await store.search(index, "leave salary", k=k, scope=scope(within.tolist()))
            matching = {chunk_id: score for chunk_id, score in every.items() if version_of[chunk_id] in allowed}
            assert {hit.chunk_id for hit in found} <= set(matching)
            best = sorted(matching.values(), reverse=True)[:k]
            assert [hit.score for hit in found] == pytest.approx(best, abs=1e-4), "a scope changes no score"
        assert await store.search(index, "leave", k=5, scope=scope([])) == []
        assert await store.search(index, "leave", k=5, scope=scope([2, 10**15])) == []

    async def test_the_same_chunk_again_replaces_its_entry(self, store: LexicalStore, index: str) -> None:
        row = entry("about apples", 1)
        await store.insert(index, [row, entry("about pears", 1)])
        await store.insert(index, [ChunkText(row.chunk_id, 2, "", "about plums")])
        await store.insert(index, [ChunkText(row.chunk_id, 2, "", "about plums")])
        assert await store.count(index) == 2
        assert await ids(store, index, "apples") == []
        assert await ids(store, index, "plums") == [row.chunk_id]
        assert await ids(store, index, "plums", within=[1]) == []

    async def test_deletes_versions_and_counts_them(self, store: LexicalStore, index: str) -> None:
        rows = [entry(f"shared word{number}", number // 2) for number in range(10)]
        await store.insert(index, rows)
        assert await store.delete_versions(index, [0, 3, 77]) == 4
        assert await store.delete_versions(index, [0, 3]) == 0
        assert await store.delete_versions(index, []) == 0
        assert set(await ids(store, index, "shared")) == {row.chunk_id for row in rows if row.version_no not in (0, 3)}
        assert await store.count(index) == 6
        await store.insert(index, rows[:1])
        assert rows[0].chunk_id in await ids(store, index, "shared")

    async def test_word_idf_follows_the_formula(self, store: LexicalStore, index: str) -> None:
        await store.insert(
            index, [entry("leaves of absence"), entry("a leave", heading="Leave"), entry("parking 北京")]
        )
        found = await store.word_idf(
            index, ["leave", "Leaving", "parking", "zebra", "the", "?", "北", "state-of-leave"]
        )
        once, twice, never = (log(1 + (3 - df + 0.5) / (df + 0.5)) for df in (1, 2, 0))
        assert found == pytest.approx(
            {
                "leave": twice,
                "Leaving": twice,
                "parking": once,
                "zebra": never,
                "the": never,
                "?": 0.0,
                "北": once,
                "state-of-leave": never,
            }
        )
        assert await store.word_idf(index, []) == {}

    async def test_an_index_never_written_is_empty(self, store: LexicalStore, index: str) -> None:
        assert await ids(store, index, "anything") == []
        assert await store.count(index) == 0
        assert await store.delete_versions(index, [1]) == 0
        assert await store.word_idf(index, ["one", "?"]) == pytest.approx({"one": log(2), "?": 0.0})
        assert await store.drop(index) is False
        await store.insert(index, [])
        assert index not in await store.indexes()

    async def test_lists_and_drops_indexes(self, store: LexicalStore) -> None:
        names = [lexical_name(uuid4()) for _ in range(3)]
        for name in names:
            await store.insert(name, [entry("something")])
        listed = await store.indexes()
        assert set(names) <= set(listed)
        assert await store.indexes(of=UUID(names[1][2:])) == [names[1]]
        assert await store.indexes(of=uuid4()) == []
        assert listed == sorted(listed)
        assert await store.drop(names[0]) is True
        assert await store.drop(names[0]) is False
        assert names[0] not in await store.indexes()
        assert await ids(store, names[0], "something") == []
        assert await store.count(names[1]) == 1

    async def test_a_dropped_index_can_be_filled_again(self, store: LexicalStore, index: str) -> None:
        await store.insert(index, [entry("old words")])
        assert await ids(store, index, "old") != []
        await store.drop(index)
        row = entry("new words")
        await store.insert(index, [row])
        assert await ids(store, index, "words") == [row.chunk_id]

    async def test_indexes_do_not_share_entries(self, store: LexicalStore) -> None:
        one, two = lexical_name(uuid4()), lexical_name(uuid4())
        await store.insert(one, [entry("the secret of one")])
        await store.insert(two, [entry("nothing here")])
        assert await ids(store, two, "secret") == []

    @pytest.mark.parametrize(
        "name", ["", "..", "t_1", "../t_" + "a" * 32, f"t_{'a' * 32}_g1", f"t_{'A' * 32}", "t_" + "a" * 32 + "\n"]
    )
    async def test_a_name_not_of_ours_is_refused(self, store: LexicalStore, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            await store.insert(name, [entry("x")])
        with pytest.raises(ValueError, match="name"):
            await store.search(name, "x", k=1, scope=None)
        with pytest.raises(ValueError, match="name"):
            await store.delete_versions(name, [1])
        with pytest.raises(ValueError, match="name"):
            await store.word_idf(name, ["x"])
        with pytest.raises(ValueError, match="name"):
            await store.count(name)
        with pytest.raises(ValueError, match="name"):
            await store.drop(name)

    async def test_overlapping_writers_and_readers_of_one_process(self, store: LexicalStore, index: str) -> None:
        async def read() -> None:
            for _ in range(20):
                await store.search(index, "shared", k=5, scope=None)

        writes = (store.insert(index, [entry(f"shared {number}", number + 1)]) for number in range(6))
        await asyncio.gather(*writes, read(), store.delete_versions(index, [99]))
        assert await store.count(index) == 6

    async def test_answers_a_ping(self, store: LexicalStore) -> None:
        await store.ping()


class TestTantivyLexical(LexicalStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LexicalStore:
        return TantivyLexical(LexicalSettings(path=tmp_path / "lexical"))


class TestMemoryLexical(LexicalStoreConformance):
    @pytest.fixture
    def store(self) -> LexicalStore:
        return MemoryLexical()


class TestOpenSearchLexical(LexicalStoreConformance):
    @pytest.fixture
    def store(self, opensearch: OpenSearchLexical) -> LexicalStore:
        return opensearch


def test_the_schema_of_an_index_is_recorded(tmp_path: Path) -> None:
    """The tokenizers are named in the index, so that another analysis is refused instead of silently mixed in."""
    store = TantivyLexical(LexicalSettings(path=tmp_path))
    index = lexical_name(uuid4())
    asyncio.run(store.insert(index, [entry("x")]))
    assert "tessera_words_1" in json.dumps(json.loads((tmp_path / index / "meta.json").read_text()))
