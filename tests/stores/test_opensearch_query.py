"""Requests to OpenSearch as they are made: within the server's limits, and with the barrier in each."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pytest
from pydantic import ValidationError

from shards import opensearch_query as query
from shards.lexical import ChunkText
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.opensearch_mapping import LANGUAGES
from shards.opensearch_query import Piece, pieces_of
from shards.settings import LexicalSettings
from shards.vectors import VersionScope

INDEX = lexical_name(uuid4())
BARRIER = {"term": {"owner": INDEX}}


@pytest.mark.parametrize("seed", range(5))
def test_a_scope_is_said_exactly_and_within_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alone = rng.choice(2_000_000, 90_000, replace=False)
    runs = [
        np.arange(first, first + length) for first, length in zip(alone[:400], rng.integers(50, 400, 400), strict=True)
    ]
    versions = np.unique(np.concatenate([alone, *runs]))
    found: set[int] = set()
    parts = query.within(VersionScope(versions))["bool"]["should"]
    for part in parts:
        if "range" in part:
            found.update(range(part["range"]["version_no"]["gte"], part["range"]["version_no"]["lte"] + 1))
        else:
            assert len(part["terms"]["version_no"]) <= query.MOST_TERMS
            found.update(part["terms"]["version_no"])
    assert found == set(versions.tolist())
    assert len(parts) < 100


def test_every_request_names_the_index() -> None:
    pieces = pieces_of("leave of 北京大学")
    row = ChunkText(uuid4(), 1, "Leave", "words " * 3000, "de")
    bodies = [
        query.counting(INDEX, pieces, ["de"]),
        query.best(INDEX, dict.fromkeys(pieces, 1.0), languages=["de"], heading_boost=0.4, k=5),
        *query.holding_all(INDEX, row),
    ]
    for body in bodies:
        assert BARRIER in body["query"]["bool"]["filter"]
        assert BARRIER in query.owned(INDEX, query.of_versions([1]))["bool"]["filter"]


def test_a_question_is_values_and_never_syntax() -> None:
    hostile = '"}]}},"query":{"match_all":{}} owner:* _exists_:text ../_all {{x}}'
    body = query.best(INDEX, dict.fromkeys(pieces_of(hostile), 1.0), languages=[], heading_boost=0, k=5)
    for part in body["query"]["bool"]["should"]:
        [(kind, fields)] = part.items()
        assert kind == "match"
        assert fields["text"]["query"].isalnum()


def test_a_very_long_text_is_asked_in_several_requests() -> None:
    text = " ".join(f"word{number}" for number in range(2500))
    bodies = list(query.holding_all(INDEX, ChunkText(uuid4(), 1, "", text)))
    assert len(bodies) == 3
    assert sum(len(body["query"]["bool"]["filter"]) - 2 for body in bodies) == 2500


def test_words_are_asked_as_they_are_written_and_once() -> None:
    assert pieces_of("Leaving, leaves: LEAVE") == [Piece("leaving", False)]
    assert pieces_of("東京 tower") == [Piece("tower", False), Piece("東京", True)]


async def test_the_longest_question_in_every_language_and_the_widest_scope_are_answered(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    """All that takes clauses of the server at once, each as far as it may."""
    index, words = lexical_name(uuid4()), " ".join(f"word{number}" for number in range(80))
    rows = [ChunkText(uuid4(), 1 + number * 1000, words, words, tag) for number, tag in enumerate(LANGUAGES)]
    runs = [np.arange(first, first + 100) for first in range(1, 300_000, 1000)]
    alone = np.arange(1_000_000, 1_140_000, 2)
    await opensearch.insert(index, rows)
    scope = VersionScope(np.concatenate([*runs, alone]))
    found = await opensearch.search(index, words, k=50, scope=scope)
    assert {hit.chunk_id for hit in found} == {row.chunk_id for row in rows}
    assert opensearch_settings.max_terms == 64, "which is the most"
    with pytest.raises(ValidationError):
        LexicalSettings(max_terms=65)
