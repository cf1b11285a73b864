"""What a tantivy index holds, entry by entry: for a check of it against Postgres."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from tantivy import DocAddress, FieldType, Occur, Order, Query, Schema, Searcher

from shards import terms
from shards.lexical import ChunkText, HeldEntry

_NOBODY = UUID(int=0)
_CHUNKS_AT_ONCE = 1000


def pages_of(searcher: Searcher, schema: Schema, batch: int) -> Iterator[list[HeldEntry]]:
    """Yield every entry of one commit, a page by ascending versions at a time.

    A page ends with a whole version, so that the next begins at a version of its own: an offset would make the last
    page cost as much as all of them.
    """
    least, size = 0, batch
    while True:
        later = Query.range_query(schema, "version_no", FieldType.Unsigned, least, None)
        hits = searcher.search(later, limit=size, count=False, order_by_field="version_no", order=Order.Asc).hits
        if len(hits) < size:
            yield _entries(searcher, [at for _, at in hits])
            return
        last = int(hits[-1][0])
        whole = [at for version, at in hits if int(version) < last]
        if not whole:  # a version of more chunks than a page
            size *= 2
            continue
        yield _entries(searcher, whole)
        least, size = last, batch


def held_of(searcher: Searcher, schema: Schema, chunk_ids: Sequence[UUID]) -> list[HeldEntry]:
    """Return the entries of these chunks."""
    found: list[HeldEntry] = []
    for start in range(0, len(chunk_ids), _CHUNKS_AT_ONCE):
        names = [one.hex for one in chunk_ids[start : start + _CHUNKS_AT_ONCE]]
        matching = Query.const_score_query(Query.term_set_query(schema, "chunk_id", names), 1.0)
        hits = searcher.search(matching, limit=2 * len(names), count=False).hits
        found += _entries(searcher, [at for _, at in hits])
    return found


def lacking_of(searcher: Searcher, schema: Schema, rows: Sequence[ChunkText]) -> set[UUID]:
    """Return the chunks of which no entry holds every term."""
    return {row.chunk_id for row in rows if not _holds(searcher, schema, row)}


def _holds(searcher: Searcher, schema: Schema, row: ChunkText) -> bool:
    words, grams = terms.query_terms(f"{row.heading}\n{row.text}")
    wanted = [("chunk_id", row.chunk_id.hex), *(("text", word) for word in words), *(("grams", gram) for gram in grams)]
    parts = [(Occur.Must, Query.term_query(schema, field, term, index_option="basic")) for field, term in wanted]
    found = searcher.search(Query.boolean_query(parts), limit=1, count=False)
    return bool(found.hits)


def _entries(searcher: Searcher, addresses: list[DocAddress]) -> list[HeldEntry]:
    versions = searcher.fast_field_values("version_no", addresses)
    return [
        HeldEntry(_chunk_of(searcher.doc(at)["chunk_id"]), int(version or 0))
        for at, version in zip(addresses, versions, strict=True)
    ]


def _chunk_of(stored: Sequence[str]) -> UUID:
    try:
        return UUID(hex=stored[0])
    except (ValueError, IndexError):  # an entry that nobody here made is one of no chunk
        return _NOBODY
