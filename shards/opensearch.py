"""The lexical store on OpenSearch, for installations of more than one machine.

What an index looks like is in `shards.opensearch_mapping`, where it lies in `shards.opensearch_places`, what is asked
in `shards.opensearch_query`. A write is durable (the translog is synced with each request) and seen by every search
when it returns, because it refreshes the shards that it touched.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from opensearchpy import AsyncOpenSearch

from shards import opensearch_query as query
from shards.lexical import ChunkText, DamagedIndex, HeldEntry
from shards.names import checked_index, lexical_name
from shards.opensearch_check import check
from shards.opensearch_places import Places
from shards.opensearch_query import Body, Counts, Piece, owned, pieces_of
from shards.opensearch_server import REFUSED, MissingIndex, OpenSearchServer, away, blocked, whole
from shards.settings import LexicalSettings
from shards.vectors import Scored, VersionScope
from tenants.errors import Unavailable

T = TypeVar("T")

_QUERY_CHARACTERS = 20_000
_BATCH_ROWS = 1_000
_BATCH_BYTES = 1_000_000
"""What the client sends in one piece; a managed server may take no more than 10 MB a request."""
_FULL = (429, 503)
_SERVER_ERROR = 500
_PAUSES_S = (0.1, 0.3, 0.9)
_CHUNKS_AT_ONCE = 1_000
_SEARCHES_AT_ONCE = 100
_PLACES_KEPT = 10_000
_PLACED_S = 60.0
"""How long an index is taken to lie where this process put it: others move it too."""
_COUNTS_KEPT, _QUESTIONS_KEPT = 100, 4
"""Indexes of whose last questions the counts are kept, and of how many: those asked at the same time. Of each some
100 kB at most."""
_SNAPSHOT_S = "120s"
_SNAPSHOT = {"keep_alive": _SNAPSHOT_S, "allow_partial_pit_creation": "false"}
"""The server would leave out a shard that is away."""
_FRESH_S = 2.0
"""How old counts may be that weigh the words of a question again, after the search that counted them."""


class OpenSearchLexical:
    """`LexicalStore` on an OpenSearch server, 2.19 or newer. Used in one event loop."""

    def __init__(
        self,
        settings: LexicalSettings,
        server: OpenSearchServer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._server = server or OpenSearchServer(settings)
        self._places = Places(self._server, settings)
        self._placed: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._languages: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._last: OrderedDict[str, deque[tuple[float, Counts]]] = OrderedDict()
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def check(self) -> None:
        """Raise `Misconfigured` when the server is not one that this store can work on, `Unavailable` when it does not
        answer."""
        await check(self._server, self._settings)

    async def place(self, index: str, *, shared: bool) -> bool:
        """See `LexicalStore.place`. What this process placed a moment ago is taken for placed."""
        placed, at = self._placed.get(checked_index(index), (None, 0.0))
        if placed == shared and self._clock() - at < _PLACED_S:
            return False
        async with self._writer(index):
            left = await self._places.place(index, shared=shared)
            _keep(self._placed, index, (shared, self._clock()))
            return left

    async def tidy(self, index: str, *, grace: timedelta) -> None:
        """See `LexicalStore.tidy`."""
        async with self._writer(checked_index(index)):
            await self._places.tidy(index, grace=grace)

    async def insert(self, index: str, rows: Sequence[ChunkText]) -> None:
        """See `LexicalStore.insert`. An index that nobody placed comes to lie by itself."""
        if not rows:
            return
        async with self._writer(checked_index(index)):
            operations = [_insertion(index, row) for row in rows]
            try:
                await self._bulk(index, operations)
            except MissingIndex:
                await self._places.place(index, shared=self._placed.get(index, (False, 0.0))[0])
                await self._bulk(index, operations)

    async def delete_versions(self, index: str, versions: Sequence[int]) -> int:
        """See `LexicalStore.delete_versions`."""
        removed = 0
        async with self._writer(checked_index(index)):
            for some in _in_pieces(versions, query.MOST_TERMS):
                removed += await self._removed(index, owned(index, query.of_versions(some)))
        return removed

    async def delete_chunks(self, index: str, chunk_ids: Sequence[UUID]) -> None:
        """See `LexicalStore.delete_chunks`."""
        async with self._writer(checked_index(index)):
            for some in _in_pieces(chunk_ids, _CHUNKS_AT_ONCE):
                await self._removed(index, owned(index, query.of_chunks(some)))

    async def count_versions(self, index: str, versions: Sequence[int]) -> int:
        """See `LexicalStore.count_versions`."""
        checked_index(index)
        pieces = _in_pieces(versions, query.MOST_TERMS)
        return sum([await self._places.count(index, query.of_versions(some)) for some in pieces])

    async def count(self, index: str) -> int:
        """See `LexicalStore.count`."""
        return await self._count(checked_index(index), owned(index))

    async def search(self, index: str, query_text: str, *, k: int, scope: VersionScope | None) -> list[Scored]:
        """See `LexicalStore.search`."""
        checked_index(index)
        if k < 1:
            raise ValueError(f"k is {k}")
        pieces = pieces_of(query_text[:_QUERY_CHARACTERS])[: query.MOST_PIECES]
        if not pieces or (scope is not None and not len(scope.versions)):
            return []
        counts = await self._counted(index, pieces)
        held = sorted((piece for piece in pieces if counts.holding[piece]), key=lambda piece: counts.holding[piece])
        if not held:
            return []
        weights = {piece: counts.idf(piece) for piece in held[: self._settings.max_terms]}
        body = query.best(index, weights, languages=counts.languages, heading_boost=self._settings.heading_boost, k=k)
        if scope is not None:
            body["query"]["bool"]["filter"].append(query.within(scope))
        found = await self._searched(index, body)
        return [Scored(_held(index, hit).chunk_id, float(hit["_score"])) for hit in _hits(found)]

    async def word_idf(self, index: str, words: Sequence[str]) -> dict[str, float]:
        """See `LexicalStore.word_idf`."""
        checked_index(index)
        by_word = {word: pieces_of(word[:_QUERY_CHARACTERS])[: query.MOST_PIECES] for word in words}
        wanted = list(dict.fromkeys(piece for pieces in by_word.values() for piece in pieces))
        idf: dict[Piece, float] = {}
        for some in _in_pieces(wanted, query.MOST_PIECES):
            counts = self._fresh(index, some) or await self._counted(index, some)
            idf |= {piece: counts.idf(piece) for piece in some}
        return {word: max((idf[piece] for piece in pieces), default=0.0) for word, pieces in by_word.items()}

    async def entries(self, index: str, *, batch: int = 5000) -> AsyncIterator[list[HeldEntry]]:
        """See `LexicalStore.entries`."""
        alias = self._places.alias(checked_index(index))
        try:
            opened = await self._server.call(lambda client: client.create_pit(index=alias, params=_SNAPSHOT))
        except MissingIndex:
            return
        try:
            after: list[Any] = []
            while True:
                hits = await self._page(index, opened["pit_id"], after, batch)
                if hits:
                    yield [_held(index, hit) for hit in hits]
                if len(hits) < batch:
                    return
                after = hits[-1]["sort"]
        finally:
            with suppress(MissingIndex, Unavailable):  # it ends by itself
                await self._server.call(lambda client: client.delete_pit(body={"pit_id": [opened["pit_id"]]}))

    async def held(self, index: str, chunk_ids: Sequence[UUID]) -> list[HeldEntry]:
        """See `LexicalStore.held`."""
        checked_index(index)
        found: list[HeldEntry] = []
        for some in _in_pieces(chunk_ids, _CHUNKS_AT_ONCE):
            body = {"size": query.MOST_HITS, "query": owned(index, query.of_chunks(some)), **query.KEYS}
            found += [_held(index, hit) for hit in _hits(await self._searched(index, body))]
        return found

    async def lacking(self, index: str, rows: Sequence[ChunkText]) -> set[UUID]:
        """See `LexicalStore.lacking`."""
        checked_index(index)
        questions = [(row.chunk_id, body) for row in rows for body in query.holding_all(index, row)]
        lacking: set[UUID] = set()
        for some in _in_pieces(questions, _SEARCHES_AT_ONCE):
            numbers = await self._numbers(index, [body for _, body in some])
            lacking |= {chunk_id for (chunk_id, _), number in zip(some, numbers, strict=True) if not number}
        return lacking

    async def drop(self, index: str) -> bool:
        """See `LexicalStore.drop`."""
        async with self._writer(checked_index(index)):
            self._placed.pop(index, None)
            self._languages.pop(index, None)
            return await self._places.drop(index)

    async def indexes(self, *, of: UUID | None = None) -> list[str]:
        """See `LexicalStore.indexes`."""
        return await self._places.names("t_" if of is None else lexical_name(of))

    async def ping(self) -> None:
        """See `LexicalStore.ping`."""
        await self._server.call(lambda client: client.info())

    async def aclose(self) -> None:
        """See `LexicalStore.aclose`."""
        await self._server.aclose()

    async def _counted(self, index: str, pieces: Sequence[Piece]) -> Counts:
        """Count in the fields of the languages that the index had last, again if it has another by now."""
        languages = self._languages.get(index, frozenset())
        while True:
            body = query.counting(index, pieces, languages)
            answer = await self._searched(index, body)
            if answer is None:
                return Counts(0, dict.fromkeys(pieces, 0), frozenset())
            counts = query.counted(answer, pieces)
            _keep(self._languages, index, counts.languages)
            if counts.languages <= languages:
                last = self._last.get(index) or deque(maxlen=_QUESTIONS_KEPT)
                last.append((self._clock(), counts))
                _keep(self._last, index, last, most=_COUNTS_KEPT)
                return counts
            languages |= counts.languages

    def _fresh(self, index: str, pieces: Sequence[Piece]) -> Counts | None:
        """Return the newest counts of a question that had all of these pieces."""
        since, wanted = self._clock() - _FRESH_S, set(pieces)
        last = reversed(self._last.get(index, ()))
        return next((counts for at, counts in last if at > since and counts.holding.keys() >= wanted), None)

    async def _searched(self, index: str, body: Body) -> Body | None:
        alias, options = self._places.alias(index), {"allow_partial_search_results": "false"}
        return await self._read(index, lambda client: client.search(index=alias, body=body, params=options))

    async def _count(self, index: str, matching: Body) -> int:
        alias, body = self._places.alias(index), {"query": matching}
        answer = await self._read(index, lambda client: client.count(index=alias, body=body))
        return 0 if answer is None else int(answer["count"])

    async def _numbers(self, index: str, bodies: Sequence[Body]) -> list[int]:
        """Return how many entries each of these searches finds."""
        alias, lines = self._places.alias(index), [line for body in bodies for line in ({}, body)]
        answer = await self._server.call(lambda client: client.msearch(index=alias, body=lines))
        numbers: list[int] = []
        for one in answer["responses"]:
            if one.get("status") == 404:
                numbers.append(0)
            elif "error" in one:
                raise away("Not every shard of the lexical index answers.")
            else:
                numbers.append(int(whole(one)["hits"]["total"]["value"]))
        return numbers

    async def _page(self, index: str, snapshot: str, after: Sequence[Any], batch: int) -> list[Body]:
        body: Body = {"size": min(batch, query.MOST_HITS), "query": owned(index), **query.KEYS}
        body |= {"sort": [{"chunk_id": "asc"}], "pit": {"id": snapshot, "keep_alive": _SNAPSHOT_S}}
        if after:
            body["search_after"] = list(after)
        answer = await self._server.call(lambda client: client.search(body=body))
        return _hits(whole(answer))

    async def _read(self, index: str, ask: Callable[[AsyncOpenSearch], Awaitable[Body]]) -> Body | None:
        """Read through the alias; return None for an index that is not there.

        A search may find what the alias pointed to gone when it arrives: then the alias points elsewhere by now.
        """
        for _ in range(2):
            try:
                return whole(await self._server.call(ask))
            except MissingIndex:
                if await self._places.where(index) is None:
                    return None
        raise away()

    async def _bulk(self, index: str, operations: Sequence[str]) -> None:
        """Write in bounded batches.

        Raises:
            MissingIndex: the index is not there. None is made by the way, whatever the server would allow.
        """
        for batch in _batches(operations):
            left = batch
            for pause in (*_PAUSES_S, 0.0):
                left = await self._written(index, left)
                if not left:
                    break
                await asyncio.sleep(pause)
            if left:
                raise away("The lexical index has no room for more entries at the moment.")

    async def _written(self, index: str, batch: Sequence[str]) -> list[str]:
        """Write a batch; return the operations for which the server had no room.

        Raises:
            DamagedIndex: the index does not take an entry as it is, now or later.
            MissingIndex: the index is not there.
            Unavailable: an entry is refused for what passes, or for what the operator has to change.
        """
        options = {"refresh": "true", "require_alias": "true"}
        alias = self._places.alias(index)
        answer = await self._server.call(lambda client: client.bulk(index=alias, body="".join(batch), params=options))
        if not answer["errors"]:
            return []
        results = [result for item in answer["items"] for result in item.values()]
        failed = [(operation, result) for operation, result in zip(batch, results, strict=True) if "error" in result]
        for _, result in failed:
            if result["error"]["type"] == "index_not_found_exception":
                raise MissingIndex(result["error"]["reason"])
            if result["status"] in _FULL:
                continue
            if result["status"] in REFUSED or result["status"] >= _SERVER_ERROR:
                raise blocked(result["error"]["type"]) or away("The lexical index takes no entries at the moment.")
            raise DamagedIndex(f"The lexical index {index} refuses an entry: {result['error']['type']}")
        return [operation for operation, _ in failed]

    async def _removed(self, index: str, matching: Body) -> int:
        return await self._places.remove(self._places.everywhere(index), matching)

    def _writer(self, index: str) -> asyncio.Lock:
        self._last.pop(index, None)
        return self._writing.setdefault(index, asyncio.Lock())


def _insertion(index: str, row: ChunkText) -> str:
    lines = ({"index": {"_id": f"{index}:{row.chunk_id.hex}"}}, query.entry(index, row))
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def _batches(operations: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for operation in operations:
        if batch and (len(batch) >= _BATCH_ROWS or size + len(operation) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += len(operation)
    if batch:
        yield batch


def _hits(answer: Body | None) -> list[Body]:
    found: list[Body] = answer["hits"]["hits"] if answer else []
    return found


def _held(index: str, hit: Body) -> HeldEntry:
    """Return the entry that a hit is, which must say that it is one of the index."""
    fields = hit["fields"]
    if fields["owner"] != [index]:
        raise DamagedIndex(f"The lexical index {index} answers with an entry of another.")
    return HeldEntry(UUID(hex=fields["chunk_id"][0]), int(fields["version_no"][0]))


def _in_pieces(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _keep(kept: OrderedDict[str, T], index: str, value: T, most: int = _PLACES_KEPT) -> None:
    kept[index] = value
    kept.move_to_end(index)
    while len(kept) > most:
        kept.popitem(last=False)
