from __future__ import annotations

import io
import json

import pytest

from ingestion.metadata import field_rows, parse_metadata
from ingestion.sources.feed import read_feed
from ingestion.sources.files import file_entry
from ingestion.sources.pages import page_entry
from shards.filters import parse_filter
from tenants.errors import InvalidFilter, InvalidMetadata

LIMIT = 16 * 1024


def test_metadata_is_optional() -> None:
    assert parse_metadata(None, max_bytes=LIMIT) is None
    assert parse_metadata("  ", max_bytes=LIMIT) is None
    assert parse_metadata("{}", max_bytes=LIMIT) == {}


def test_values_become_typed_rows() -> None:
    metadata = parse_metadata('{"tags": ["a", "b"], "n": 3, "draft": false, "due": "2026-01-31"}', max_bytes=LIMIT)
    assert metadata is not None
    rows = {(row["key"], row["ordinal"]): row for row in field_rows(metadata)}
    assert [rows["tags", i]["text_value"] for i in (0, 1)] == ["a", "b"]
    assert rows["n", 0]["number_value"] == 3.0
    assert rows["draft", 0]["bool_value"] is False
    assert rows["draft", 0]["number_value"] is None
    assert rows["due", 0]["time_value"].isoformat() == "2026-01-31T00:00:00+00:00"
    assert rows["due", 0]["text_value"] == "2026-01-31"


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ("{", "metadata"),
        ("[1]", "metadata"),
        ('{"a": NaN}', "metadata"),
        ('{"a": 1e999}', "metadata.a"),
        (f'{{"a": {10**400}}}', "metadata.a"),
        (f'{{"a": -{10**400}}}', "metadata.a"),
        ('{"a": null}', "metadata.a"),
        ('{"a": {"b": 1}}', "metadata.a"),
        ('{"a": [1]}', "metadata.a"),
        ('{"created_at": "2026-01-01"}', "metadata.created_at"),
        ('{"language": "German, of course"}', "metadata.language"),
        ('{"language": ["de"]}', "metadata.language"),
        ('{"a b": 1}', "metadata.a b"),
        (json.dumps({"a": "x" * 2001}), "metadata.a"),
        (json.dumps({"a": "字" * 667}), "metadata.a"),
        ('{"a": "\\u0000"}', "metadata.a"),
        ('{"a": "\\ud800"}', "metadata.a"),
        (json.dumps({f"k{i}": 1 for i in range(65)}), "metadata"),
        (json.dumps({"a": ["x" * 1000] * 20}), "metadata"),
        ("[" * 100_000, "metadata"),
    ],
)
def test_what_cannot_be_stored_is_pointed_at(raw: str, pointer: str) -> None:
    limit = 1_000_000 if raw.startswith("[[") else LIMIT
    with pytest.raises(InvalidMetadata) as raised:
        parse_metadata(raw, max_bytes=limit)
    assert [field.pointer for field in raised.value.fields] == [pointer]


@pytest.mark.parametrize("tag", ["de", "pt-BR", "zh-Hans-CN", "pt_BR"])
def test_the_language_is_a_tag(tag: str) -> None:
    assert parse_metadata(json.dumps({"language": tag}), max_bytes=LIMIT) == {"language": tag}


def test_a_text_is_bounded_by_what_the_index_takes_and_that_is_said() -> None:
    for text in ("x" * 2000, "字" * 666):
        assert parse_metadata(json.dumps({"a": text}), max_bytes=LIMIT) == {"a": text}
        assert parse_filter({"a": {"eq": text}}) is not None
        with pytest.raises(InvalidMetadata, match="2000 bytes"):
            parse_metadata(json.dumps({"a": text + "字"}), max_bytes=LIMIT)
        with pytest.raises(InvalidFilter, match="2000 bytes"):
            parse_filter({"a": {"eq": text + "字"}})


def test_what_a_source_says_of_an_entry_is_cut_to_what_can_be_stored() -> None:
    path = "/".join(["目録"] * 600) + ".md"
    shown = file_entry(path, None).metadata["path"]
    assert path.startswith(shown)
    assert 1990 < len(shown.encode()) <= 2000
    assert len(page_entry("https://example.com/" + "é" * 1500).metadata["url"].encode()) <= 2000
    feed = f"<rss><channel><item><guid>1</guid><link>https://example.com/{'é' * 1500}</link></item></channel></rss>"
    [entry] = read_feed("https://example.com/feed", io.BytesIO(feed.encode()))
    assert len(entry.metadata["url"].encode()) <= 2000
