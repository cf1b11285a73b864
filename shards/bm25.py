"""The lexical store on tantivy: one folder an index, no server.

tantivy's BM25 has k1 = 1.2, b = 0.75 and counts terms over the whole index. A commit syncs to the disk (15-90 ms
whatever its size), so it is made once a batch. A commit of any process is seen by the next search: it replaces
meta.json, and looking whether that file is still the same costs a microsecond, reading the index anew 30.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import log
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from tantivy import Document, FieldType, Index, IndexWriter, Occur, Query, Schema, SchemaBuilder, Searcher

from shards import terms
from shards.bm25_entries import held_of, lacking_of, pages_of
from shards.lexical import ChunkText, DamagedIndex, HeldEntry
from shards.names import INDEX, checked_index, is_lexical_of
from shards.settings import LexicalSettings
from shards.vectors import Scored, VersionScope
from tenants.errors import Misconfigured, Unavailable

T = TypeVar("T")
Stamp = tuple[int, int, int]

_HEAP_BYTES = 16_000_000
"""tantivy takes no less than 15 MB."""
_QUERY_CHARACTERS = 20_000
_LOCK_POLL_S = 0.05
_RANGE_FROM = 64
_DROPPED = ".dropped-"


def _schema() -> Schema:
    builder = SchemaBuilder()
    builder.add_text_field("chunk_id", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("version_no", indexed=True, fast=True)
    builder.add_text_field("heading", tokenizer_name=terms.ANALYZER_NAME, index_option="freq")
    builder.add_text_field("text", tokenizer_name=terms.ANALYZER_NAME, index_option="freq")
    builder.add_text_field("grams", tokenizer_name="whitespace", index_option="freq")
    return builder.build()


_SCHEMA = _schema()


@dataclass
class _Reader:
    index: Index
    stamp: Stamp


class _BusyError(Exception):
    """Another process is writing to this index."""


class TantivyLexical:
    """`LexicalStore` in a folder. Safe to share between threads; searches run in threads and release the GIL."""

    def __init__(self, settings: LexicalSettings) -> None:
        self._settings = settings
        self._readers: OrderedDict[str, _Reader] = OrderedDict()
        self._opening = threading.Lock()
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def place(self, index: str, *, shared: bool) -> bool:
        """See `LexicalStore.place`. Each index has a folder of its own."""
        checked_index(index)
        return False

    async def tidy(self, index: str, *, grace: timedelta) -> None:
        """See `LexicalStore.tidy`."""
        checked_index(index)

    async def insert(self, index: str, rows: Sequence[ChunkText]) -> None:
        """See `LexicalStore.insert`."""
        if not rows:
            return
        async with self._writer(checked_index(index)):
            await self._write(index, lambda writer: _add(writer, rows))

    async def delete_versions(self, index: str, versions: Sequence[int]) -> int:
        """See `LexicalStore.delete_versions`."""
        matching = Query.term_set_query(_SCHEMA, "version_no", [int(version) for version in versions])
        async with self._writer(checked_index(index)):
            found = await self._read(index, lambda searcher: _number(searcher, matching), 0)
            if found:
                await self._write(index, lambda writer: writer.delete_documents_by_query(matching))
        return found

    async def count_versions(self, index: str, versions: Sequence[int]) -> int:
        """See `LexicalStore.count_versions`."""
        matching = Query.term_set_query(_SCHEMA, "version_no", [int(version) for version in versions])
        return await self._read(checked_index(index), lambda searcher: _number(searcher, matching), 0)

    async def delete_chunks(self, index: str, chunk_ids: Sequence[UUID]) -> None:
        """See `LexicalStore.delete_chunks`."""
        async with self._writer(checked_index(index)):
            if await self._read(index, lambda searcher: bool(searcher.num_docs), False):
                matching = Query.term_set_query(_SCHEMA, "chunk_id", [one.hex for one in chunk_ids])
                await self._write(index, lambda writer: writer.delete_documents_by_query(matching))

    async def entries(self, index: str, *, batch: int = 5000) -> AsyncIterator[list[HeldEntry]]:
        """See `LexicalStore.entries`."""
        pages = await self._read(checked_index(index), lambda searcher: pages_of(searcher, _SCHEMA, batch), None)
        while pages is not None:
            page = await self._read(index, lambda _: next(pages, None), None)
            if page is None:
                return
            yield page

    async def held(self, index: str, chunk_ids: Sequence[UUID]) -> list[HeldEntry]:
        """See `LexicalStore.held`."""
        return await self._read(checked_index(index), lambda searcher: held_of(searcher, _SCHEMA, chunk_ids), [])

    async def lacking(self, index: str, rows: Sequence[ChunkText]) -> set[UUID]:
        """See `LexicalStore.lacking`."""
        without = {row.chunk_id for row in rows}
        return await self._read(checked_index(index), lambda searcher: lacking_of(searcher, _SCHEMA, rows), without)

    async def search(self, index: str, query: str, *, k: int, scope: VersionScope | None) -> list[Scored]:
        """See `LexicalStore.search`."""
        checked_index(index)
        if k < 1:
            raise ValueError(f"k is {k}")
        if scope is not None and not len(scope.versions):
            return []
        return await self._read(index, lambda searcher: self._found(searcher, query, k, scope), [])

    async def word_idf(self, index: str, words: Sequence[str]) -> dict[str, float]:
        """See `LexicalStore.word_idf`."""
        checked_index(index)
        return await self._read(index, lambda searcher: _idf(searcher, words), None) or _idf(None, words)

    async def count(self, index: str) -> int:
        """See `LexicalStore.count`."""
        return await self._read(checked_index(index), lambda searcher: searcher.num_docs, 0)

    async def drop(self, index: str) -> bool:
        """See `LexicalStore.drop`. The folder is renamed first, so that it is gone at one instant."""
        folder = self._folder(checked_index(index))
        async with self._writer(index):
            return await asyncio.to_thread(self._drop, index, folder)

    async def indexes(self, *, of: UUID | None = None) -> list[str]:
        """See `LexicalStore.indexes`."""
        names = await asyncio.to_thread(self._indexes)
        return [name for name in names if of is None or is_lexical_of(name, of)]

    async def ping(self) -> None:
        """See `LexicalStore.ping`."""
        await asyncio.to_thread(self._ping)

    async def check(self) -> None:
        """Raise `Misconfigured` when nothing can be kept in the folder."""
        try:
            await self.ping()
        except Unavailable as error:
            cause = error.__cause__
            why = cause.strerror if isinstance(cause, OSError) else cause
            raise Misconfigured(
                f"TESSERA_LEXICAL_PATH names {self._settings.path}, where nothing can be kept: {why}. Let the service"
                " write there, or name another folder."
            ) from error

    async def aclose(self) -> None:
        """See `LexicalStore.aclose`."""
        with self._opening:
            self._readers.clear()

    def _found(self, searcher: Searcher, query: str, k: int, scope: VersionScope | None) -> list[Scored]:
        wanted = self._query(searcher, query)
        if wanted is None:
            return []
        if scope is not None:
            within = Query.const_score_query(_scope_query(scope), 0.0)
            wanted = Query.boolean_query([(Occur.Must, wanted), (Occur.Must, within)])
        hits = searcher.search(wanted, limit=k, count=False).hits
        return [Scored(UUID(hex=searcher.doc(at)["chunk_id"][0]), float(score)) for score, at in hits]

    def _query(self, searcher: Searcher, text: str) -> Query | None:
        """Return the terms of `text`, any of which may match, or None if the index has none of them."""
        words, grams = terms.query_terms(text[:_QUERY_CHARACTERS])
        known = [("text", word, searcher.doc_freq("text", word)) for word in words]
        known += [("grams", gram, searcher.doc_freq("grams", gram)) for gram in grams]
        rarest = sorted((term for term in known if term[2]), key=lambda term: term[2])[: self._settings.max_terms]
        parts: list[tuple[Occur, Query]] = []
        for field, term, _ in rarest:
            parts.append((Occur.Should, _term(field, term)))
            if field == "text" and self._settings.heading_boost:
                boosted = Query.boost_query(_term("heading", term), self._settings.heading_boost)
                parts.append((Occur.Should, boosted))
        return Query.boolean_query(parts) if parts else None

    async def _read(self, index: str, work: Callable[[Searcher], T], missing: T) -> T:
        """Run `work` on the newest commit, in a thread; return `missing` for an index that is not there."""

        def run() -> T:
            reader = self._reader(index)
            return missing if reader is None else work(reader.index.searcher())

        try:
            return await asyncio.to_thread(run)
        except (ValueError, OSError) as error:
            raise _translated(error, index) from error

    def _reader(self, index: str) -> _Reader | None:
        folder = self._folder(index)
        with self._opening:
            stamp = _stamp(folder)
            if stamp is None:
                self._readers.pop(index, None)
                return None
            reader = self._readers.pop(index, None)
            try:
                if reader is None:
                    reader = _Reader(_opened(folder), stamp)
                elif reader.stamp != stamp:
                    reader.index.reload()
                    reader.stamp = stamp
            except ValueError:
                if _stamp(folder) is None:  # dropped by another process since the line above
                    return None
                raise
            self._readers[index] = reader
            while len(self._readers) > self._settings.open_readers:
                self._readers.popitem(last=False)
            return reader

    async def _write(self, index: str, change: Callable[[IndexWriter], object]) -> None:
        """Make one commit, waiting a while for a writer of another process."""
        deadline = asyncio.get_running_loop().time() + self._settings.lock_wait_s
        while True:
            try:
                return await asyncio.to_thread(self._commit, self._folder(index), change)
            except _BusyError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise Unavailable("The lexical index is being written to.", code="lexical_busy") from error
                await asyncio.sleep(_LOCK_POLL_S)
            except (ValueError, OSError) as error:
                raise _translated(error, index) from error

    def _commit(self, folder: Path, change: Callable[[IndexWriter], object]) -> None:
        self._make_room()
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            writer = _opened(folder).writer(heap_size=_HEAP_BYTES, num_threads=1)
        except ValueError as error:
            if "LockBusy" in str(error):
                raise _BusyError from error
            raise
        try:
            change(writer)
            writer.commit()
        finally:
            # Otherwise the merge that a commit begins is lost with the writer, and segments pile up.
            writer.wait_merging_threads()

    def _drop(self, index: str, folder: Path) -> bool:
        with self._opening:
            self._readers.pop(index, None)
        grave = folder.with_name(f"{_DROPPED}{uuid4().hex}")
        try:
            folder.rename(grave)
            present = True
        except FileNotFoundError:
            present = False
        for left in folder.parent.glob(f"{_DROPPED}*"):
            shutil.rmtree(left, ignore_errors=True)
        return present

    def _indexes(self) -> list[str]:
        if not self._settings.path.is_dir():
            return []
        names = (entry.name for entry in os.scandir(self._settings.path))
        return sorted(name for name in names if INDEX.fullmatch(name) and _stamp(self._folder(name)))

    def _ping(self) -> None:
        try:
            self._make_room()
            (self._settings.path / ".writable").touch()
        except OSError as error:
            raise _away() from error

    def _make_room(self) -> None:
        self._settings.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _folder(self, index: str) -> Path:
        return self._settings.path / index

    def _writer(self, index: str) -> asyncio.Lock:
        return self._writing.setdefault(index, asyncio.Lock())


def _opened(folder: Path) -> Index:
    """Open the index, making it when there is none; a folder without meta.json is one that was never finished."""
    index = Index(_SCHEMA, str(folder), reuse=True)
    index.register_tokenizer(terms.ANALYZER_NAME, terms.analyzer())
    return index


def _stamp(folder: Path) -> Stamp | None:
    """Return what changes with every commit, None if there was none."""
    try:
        found = (folder / "meta.json").stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _add(writer: IndexWriter, rows: Sequence[ChunkText]) -> None:
    for row in rows:
        heading, text = terms.fields(row.heading), terms.fields(row.text)
        document = Document()
        document.add_text("chunk_id", row.chunk_id.hex)
        document.add_unsigned("version_no", row.version_no)
        document.add_text("heading", heading.words)
        # The heading counts as text too: measured better than two fields that share no length.
        document.add_text("text", f"{heading.words}\n{text.words}")
        document.add_text("grams", f"{heading.grams} {text.grams}")
        writer.delete_documents_by_term("chunk_id", row.chunk_id.hex)
        writer.add_document(document)


def _term(field: str, term: str) -> Query:
    return Query.term_query(_SCHEMA, field, term, index_option="freq")


def _scope_query(scope: VersionScope) -> Query:
    parts: list[Query] = []
    single: list[int] = []
    for first, last in scope.runs().tolist():
        if last - first >= _RANGE_FROM:
            parts.append(Query.range_query(_SCHEMA, "version_no", FieldType.Unsigned, first, last))
        else:
            single.extend(range(first, last + 1))
    if single:
        parts.append(Query.term_set_query(_SCHEMA, "version_no", single))
    return Query.boolean_query([(Occur.Should, part) for part in parts])


def _number(searcher: Searcher, matching: Query) -> int:
    return int(searcher.search(matching, limit=1, count=True).count)  # type: ignore[attr-defined]


def _idf(searcher: Searcher | None, words: Sequence[str]) -> dict[str, float]:
    return {word: _word_idf(searcher, word) for word in words}


def _word_idf(searcher: Searcher | None, word: str) -> float:
    of_words, of_grams = terms.query_terms(word)
    if not of_words and not of_grams:
        return 0.0
    if searcher is None:
        return log(2.0)
    total = searcher.num_docs
    counts = [searcher.doc_freq("text", term) for term in of_words]
    counts += [searcher.doc_freq("grams", term) for term in of_grams]
    # Deleted entries count until their segment is merged.
    rarest = min(*counts, total) if counts else total
    return log(1.0 + (total - rarest + 0.5) / (rarest + 0.5))


def _translated(error: Exception, index: str) -> Exception:
    # tantivy raises ValueError for everything; an error of the operating system shows by its number.
    if isinstance(error, OSError) or "Os {" in str(error):
        return _away()
    return DamagedIndex(f"The lexical index {index} cannot be read: {error}")


def _away() -> Unavailable:
    return Unavailable("The lexical index cannot be reached.", code="lexical_unavailable")
