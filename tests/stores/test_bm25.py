"""What only the store on disk can show: other processes, crashes, broken folders."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from shards.bm25 import TantivyLexical
from shards.lexical import ChunkText, DamagedIndex
from shards.names import lexical_name
from shards.settings import LexicalSettings
from tenants.errors import Misconfigured, Unavailable

WRITE = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from shards.bm25 import TantivyLexical
from shards.lexical import ChunkText
from shards.settings import LexicalSettings
store = TantivyLexical(LexicalSettings(path=Path(sys.argv[1])))
asyncio.run(store.insert(sys.argv[2], [ChunkText(UUID(sys.argv[3]), 9, "", sys.argv[4])]))
"""
HOLD = """
import sys, time
from pathlib import Path
from shards.bm25 import _HEAP_BYTES, _add, _opened
from shards.lexical import ChunkText
from uuid import uuid4
writer = _opened(Path(sys.argv[1]) / sys.argv[2]).writer(heap_size=_HEAP_BYTES, num_threads=1)
_add(writer, [ChunkText(uuid4(), 1, "", "never committed")])
print("held", flush=True)
time.sleep(600)
"""


def entry(text: str, version: int = 1) -> ChunkText:
    return ChunkText(uuid4(), version, "", text)


@pytest.fixture
def index() -> str:
    return lexical_name(uuid4())


@pytest.fixture
def store(tmp_path: Path) -> TantivyLexical:
    return TantivyLexical(LexicalSettings(path=tmp_path, lock_wait_s=0.3))


async def found(store: TantivyLexical, index: str, query: str) -> set[UUID]:
    return {hit.chunk_id for hit in await store.search(index, query, k=50, scope=None)}


def run(code: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60)


async def test_a_commit_of_another_process_is_seen_by_the_next_search(
    store: TantivyLexical, index: str, tmp_path: Path
) -> None:
    await store.insert(index, [entry("ours")])
    assert await found(store, index, "theirs") == set()
    for _ in range(3):
        theirs = uuid4()
        await asyncio.to_thread(run, WRITE, str(tmp_path), index, str(theirs), "theirs")
        assert theirs in await found(store, index, "theirs")
    assert await store.count(index) == 4
    assert await store.delete_versions(index, [9]) == 3


async def test_a_drop_by_another_process_leaves_readers_with_nothing(tmp_path: Path, index: str) -> None:
    reader, other = (TantivyLexical(LexicalSettings(path=tmp_path)) for _ in range(2))
    await reader.insert(index, [entry("words")])
    assert len(await found(reader, index, "words")) == 1
    assert await other.drop(index)
    assert await found(reader, index, "words") == set()
    assert await reader.count(index) == 0
    again = entry("words again")
    await other.insert(index, [again])
    assert await found(reader, index, "words") == {again.chunk_id}


async def test_a_search_survives_a_drop_in_its_middle(tmp_path: Path, index: str) -> None:
    reader, other = (TantivyLexical(LexicalSettings(path=tmp_path)) for _ in range(2))
    await reader.insert(index, [entry(f"words {number}") for number in range(300)])

    async def search() -> None:
        for _ in range(200):
            assert len(await reader.search(index, "words", k=300, scope=None)) in (0, 300)

    await asyncio.gather(search(), search(), other.drop(index))
    assert await found(reader, index, "words") == set()


async def test_a_writer_waits_for_another_process_and_then_gives_up(
    store: TantivyLexical, index: str, tmp_path: Path
) -> None:
    first = entry("first")
    await store.insert(index, [first])
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(tmp_path), index, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    with pytest.raises(Unavailable) as caught:
        await store.insert(index, [entry("second")])
    assert caught.value.code == "lexical_busy"
    assert await found(store, index, "first") == {first.chunk_id}, "readers need no lock"

    patient = TantivyLexical(LexicalSettings(path=tmp_path, lock_wait_s=60))
    third = entry("third")
    waiting = asyncio.create_task(patient.insert(index, [third]))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    holder.kill()  # the lock goes with the process
    await holder.wait()
    await waiting
    assert await found(store, index, "third never committed") == {third.chunk_id}


async def test_many_small_commits_do_not_pile_up_segments(store: TantivyLexical, index: str, tmp_path: Path) -> None:
    for number in range(40):
        await store.insert(index, [entry(f"shared words {number}", number)])
    assert len(list((tmp_path / index).glob("*.store"))) < 12
    assert await store.count(index) == 40


async def test_open_readers_are_bounded(tmp_path: Path) -> None:
    store = TantivyLexical(LexicalSettings(path=tmp_path, open_readers=3))
    names = [lexical_name(uuid4()) for _ in range(8)]
    for name in names:
        await store.insert(name, [entry("word")])
    for name in [*names, *names]:
        assert len(await found(store, name, "word")) == 1
    assert len(store._readers) == 3
    await store.aclose()
    assert len(store._readers) == 0


async def test_a_folder_that_was_never_finished_is_an_empty_index(
    store: TantivyLexical, index: str, tmp_path: Path
) -> None:
    (tmp_path / index).mkdir()
    (tmp_path / index / ".tmpAbC").write_text("left by a crash")
    assert await found(store, index, "word") == set()
    assert await store.count(index) == 0
    assert await store.indexes() == []
    row = entry("word")
    await store.insert(index, [row])
    assert await found(store, index, "word") == {row.chunk_id}


@pytest.mark.parametrize("damage", ["empty meta", "broken meta", "half a segment", "no segment", "other analysis"])
async def test_a_broken_index_says_so_and_can_be_dropped_and_built_again(
    store: TantivyLexical, index: str, tmp_path: Path, damage: str
) -> None:
    row = entry("word")
    await store.insert(index, [row])
    meta = tmp_path / index / "meta.json"
    segment = next((tmp_path / index).glob("*.idx"))
    match damage:
        case "empty meta":
            meta.write_text("")
        case "broken meta":
            meta.write_text(meta.read_text()[:100])
        case "half a segment":
            segment.write_bytes(segment.read_bytes()[:20])
        case "no segment":
            segment.unlink()
        case "other analysis":
            meta.write_text(meta.read_text().replace("tessera_words", "others_words"))
    fresh = TantivyLexical(LexicalSettings(path=tmp_path))
    with pytest.raises(DamagedIndex, match=index):
        await fresh.search(index, "word", k=5, scope=None)
    with pytest.raises(DamagedIndex):
        await fresh.insert(index, [row])
    with pytest.raises(DamagedIndex):
        await fresh.delete_versions(index, [1])
    assert await fresh.indexes() == [index]
    assert await fresh.drop(index) is True
    await fresh.insert(index, [row])
    assert await found(fresh, index, "word") == {row.chunk_id}


async def test_what_a_drop_could_not_remove_is_removed_by_the_next(
    store: TantivyLexical, index: str, tmp_path: Path
) -> None:
    await store.insert(index, [entry("word")])
    left = tmp_path / ".dropped-0123"
    left.mkdir()
    (left / "x.store").write_text("secret")
    await store.drop(index)
    assert os.listdir(tmp_path) == []


async def test_a_place_that_cannot_be_written_is_unavailable(tmp_path: Path, index: str) -> None:
    (tmp_path / "file").write_text("")
    store = TantivyLexical(LexicalSettings(path=tmp_path / "file" / "lexical"))
    for call in (store.ping(), store.insert(index, [entry("x")])):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.code == "lexical_unavailable"


async def test_folders_are_private(store: TantivyLexical, index: str, tmp_path: Path) -> None:
    nested = TantivyLexical(LexicalSettings(path=tmp_path / "a"))
    await nested.insert(index, [entry("word")])
    for folder in (tmp_path / "a", tmp_path / "a" / index):
        assert folder.stat().st_mode & 0o077 == 0


async def test_a_folder_that_cannot_be_is_a_wrong_setting(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=f"TESSERA_LEXICAL_PATH names {file}/words, .*: Not a directory"):
        await TantivyLexical(LexicalSettings(path=file / "words")).check()
    await TantivyLexical(LexicalSettings(path=tmp_path / "words")).check()
