"""Requests to OpenSearch, as it reads them. Nothing that a caller writes is syntax here: it is a value of a field.

Every request names the index that it is about in a filter of its own, although the alias it goes to has the same
filter. Either of them alone keeps one tenant's entries from another.

A question is asked in two steps. The first counts, under that filter, how many entries hold each of its words; the
second asks for the best entries, each word weighed by what the counts say of its rarity. So the weights are the
tenant's own in an index that tenants share, and the same wherever it lies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any
from uuid import UUID

from shards import terms
from shards.lexical import ChunkText
from shards.opensearch_mapping import field_of
from shards.vectors import VersionScope

Body = dict[str, Any]
MOST_TERMS = 65_536
"""The server's limit of the values of one `terms` filter (`index.max_terms_count`)."""
MOST_HITS = 10_000
"""The server's limit of the hits of one answer (`index.max_result_window`)."""
MOST_PIECES = 1_000
"""Words and grams that one request counts; the server takes 1,024 clauses (`indices.query.bool.max_clause_count`)."""
KEYS: Body = {"stored_fields": "_none_", "docvalue_fields": ["owner", "chunk_id", "version_no"]}
"""What is read of a hit: columns, which cost less than what is stored, most of it text."""
_RANGE_FROM = 64
_MOST_RANGES = 64
"""A question of 64 words takes 832 of the server's clauses, in every language; 2.19 counts a range as two of them."""


@dataclass(frozen=True)
class Piece:
    """A word as it is written, which the server analyses, or a gram, which is a term."""

    text: str
    is_gram: bool


@dataclass(frozen=True)
class Counts:
    """Of an index: its entries, those that hold each piece, and the languages of its texts that have a field."""

    entries: int
    holding: Mapping[Piece, int]
    languages: frozenset[str]

    def idf(self, piece: Piece) -> float:
        """Return ln(1 + (N - df + .5) / (df + .5))."""
        holding = self.holding[piece]
        return log(1.0 + (self.entries - holding + 0.5) / (holding + 0.5))


def pieces_of(text: str) -> list[Piece]:
    """Return the words and grams of a text, each once."""
    words, grams = terms.query_words(text)
    return [*(Piece(word.lower(), False) for word in words.values()), *(Piece(gram, True) for gram in grams)]


def owned(index: str, *more: Body) -> Body:
    """Return the query for an index's own entries that fulfil `more`."""
    return {"bool": {"filter": [{"term": {"owner": index}}, *more]}}


def of_versions(versions: Sequence[int]) -> Body:
    """Return the filter for at most MOST_TERMS versions."""
    return {"terms": {"version_no": [int(version) for version in versions]}}


def of_chunks(chunk_ids: Sequence[UUID]) -> Body:
    """Return the filter for at most MOST_TERMS chunks."""
    return {"terms": {"chunk_id": [one.hex for one in chunk_ids]}}


def within(scope: VersionScope) -> Body:
    """Return the filter for a scope: long runs of versions as ranges, the others one by one."""
    runs = [(first, last) for first, last in scope.runs().tolist()]
    longest = sorted((run for run in runs if run[1] - run[0] >= _RANGE_FROM), key=lambda run: run[0] - run[1])
    ranges = set(longest[:_MOST_RANGES])
    single = [version for first, last in runs if (first, last) not in ranges for version in range(first, last + 1)]
    parts: list[Body] = [{"range": {"version_no": {"gte": first, "lte": last}}} for first, last in sorted(ranges)]
    parts += [of_versions(single[start : start + MOST_TERMS]) for start in range(0, len(single), MOST_TERMS)]
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def counting(index: str, pieces: Sequence[Piece], languages: Collection[str]) -> Body:
    """Return the request for `Counts`, of at most MOST_PIECES pieces, searched in the fields of these languages too."""
    filters = {str(number): _holds(piece, languages) for number, piece in enumerate(pieces)}
    aggregations: Body = {"languages": {"terms": {"field": "language", "size": 100}}}
    if filters:
        aggregations["pieces"] = {"filters": {"filters": filters}}
    return {"size": 0, "track_total_hits": True, "query": owned(index), "aggs": aggregations}


def counted(answer: Mapping[str, Any], pieces: Sequence[Piece]) -> Counts:
    """Read the answer to `counting`."""
    found = answer["aggregations"]
    fields = {field_of(bucket["key"]) for bucket in found["languages"]["buckets"]}
    buckets = found["pieces"]["buckets"] if pieces else {}
    holding = {piece: int(buckets[str(number)]["doc_count"]) for number, piece in enumerate(pieces)}
    return Counts(int(answer["hits"]["total"]["value"]), holding, frozenset(field for field in fields if field))


def best(
    index: str, weights: Mapping[Piece, float], *, languages: Collection[str], heading_boost: float, k: int
) -> Body:
    """Return the request for the best entries: each piece counts by its weight and by how the text holds it. Of a
    word's forms in several languages the best counts. Equal scores are told apart by the chunk, so that their order is
    the same in every index."""
    wanted = [_scored(piece, weight, languages, heading_boost) for piece, weight in weights.items()]
    query = owned(index)
    query["bool"] |= {"should": [part for parts in wanted for part in parts], "minimum_should_match": 1}
    return {
        "size": min(k, MOST_HITS),
        "query": query,
        "sort": ["_score", {"chunk_id": "asc"}],
        "track_total_hits": False,
        **KEYS,
    }


def holding_all(index: str, row: ChunkText) -> Iterator[Body]:
    """Yield requests that each find the entry of a chunk if it holds some of the words it should; they share all."""
    field = field_of(row.language)
    pieces = pieces_of(f"{row.heading}\n{row.text}")
    own = [_match(field, piece.text) for piece in pieces if field and not piece.is_gram]
    parts = [_holds(piece, ()) for piece in pieces] + own
    for start in range(0, max(len(parts), 1), MOST_PIECES):
        some = parts[start : start + MOST_PIECES]
        yield {"size": 0, "track_total_hits": True, "query": owned(index, of_chunks([row.chunk_id]), *some)}


def entry(index: str, row: ChunkText) -> Body:
    """Return a chunk's entry. The heading counts as text too."""
    heading = terms.normalised(row.heading)
    text = f"{heading}\n{terms.normalised(row.text)}"
    found: Body = {"owner": index, "chunk_id": row.chunk_id.hex, "version_no": row.version_no}
    found |= {"heading": heading, "text": text}
    field = field_of(row.language)
    return found if field is None else {**found, "language": field, field: text}


def _scored(piece: Piece, weight: float, languages: Collection[str], heading_boost: float) -> list[Body]:
    if piece.is_gram:
        return [{"term": {"text.grams": {"value": piece.text, "boost": weight}}}]
    forms = [_match(field, piece.text, weight) for field in ("text", *sorted(languages))]
    found = [{"dis_max": {"queries": forms}} if len(forms) > 1 else forms[0]]
    return [*found, _match("heading", piece.text, weight * heading_boost)] if heading_boost else found


def _holds(piece: Piece, languages: Collection[str]) -> Body:
    if piece.is_gram:
        return {"term": {"text.grams": piece.text}}
    if not languages:
        return _match("text", piece.text)
    return {"bool": {"should": [_match(field, piece.text) for field in ("text", *sorted(languages))]}}


def _match(field: str, word: str, boost: float = 1.0) -> Body:
    return {"match": {field: {"query": word, "boost": boost, "operator": "and"}}}
