"""The local Milvus Lite under calls that come at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from milvus_lite.schema.types import CollectionSchema, DataType, FieldSchema

from service.local.lite_server import SafeLite, Sharing

THREADS = 8


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [{"id": n, "vector": [1.0, float(n)]} for n in range(first, first + count)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed database of one collection that holds a row."""
    lite = SafeLite(str(tmp_path))
    fields = [
        FieldSchema(name="id", dtype=DataType.INT64, is_primary=True),
        FieldSchema(name="vector", dtype=DataType.FLOAT_VECTOR, dim=2),
    ]
    lite.create_collection("things", CollectionSchema(fields=fields)).insert(rows(0, 1))
    lite.close()
    return tmp_path


@pytest.fixture
def lite(folder: Path) -> Iterator[SafeLite]:
    opened = SafeLite(str(folder))
    yield opened
    opened.close()


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Run it in every thread, all of which begin together."""
    together = threading.Barrier(THREADS)

    def begun(number: int) -> Any:
        together.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(begun, range(THREADS)))


def test_a_collection_is_opened_once(lite: SafeLite) -> None:
    opened = at_once(lambda _: lite.get_collection("things"))
    assert len({id(one) for one in opened}) == 1


def test_no_row_is_lost_between_writers_and_flushes(lite: SafeLite) -> None:
    things = lite.get_collection("things")

    def write(thread: int) -> None:
        for n in range(30):
            things.insert(rows(1 + 1000 * thread + 5 * n, 5))
            things.delete([1 + 1000 * thread + 5 * n])
            if n % 10 == thread:
                things.flush()

    at_once(write)
    assert things.num_entities == 1 + THREADS * 30 * 4
    things.close()
    lite._collections.clear()
    assert lite.get_collection("things").num_entities == 1 + THREADS * 30 * 4, "by its files and its log"


def test_a_search_during_a_flush_finds_what_is_being_flushed(lite: SafeLite) -> None:
    things = lite.get_collection("things")
    things.create_index("vector", {"index_type": "FLAT", "metric_type": "IP", "params": {}})
    things.load()
    things.insert(rows(1, 9))
    refresh, found = things._refresh_segment_cache, []
    search = threading.Thread(target=lambda: found.append(things.search([[0.0, 1.0]], top_k=1)[0][0]["id"]))

    def when_searched() -> None:
        search.start()
        search.join(timeout=0.3)  # it waits for the end of the flush
        refresh()

    things._refresh_segment_cache = when_searched
    things.flush()
    search.join()
    assert found == [9]


def test_a_reader_may_read_within_reading_while_a_changer_waits() -> None:
    sharing, changed = Sharing(), threading.Event()

    def change() -> None:
        with sharing.alone():
            changed.set()

    with sharing.shared():
        changer = threading.Thread(target=change)
        changer.start()
        with sharing.shared():
            assert not changed.wait(timeout=0.1)
        assert not changed.is_set()
    changer.join(timeout=10)
    assert changed.is_set()
