"""CSV, TSV, JSON, JSON Lines and XML: records stay whole, names stay beside their values."""

from __future__ import annotations

import json

import pytest

from ingestion.parse.document import TextLimits
from tests.ingestion.parse.packing import read, refusal

_TABLE = "| Line | Price |\n| --- | --- |\n| Red | 4,50 |"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'Line,Price\nRed,"4,50"\n'),
        ("a.csv", "Line;Price\r\nRed;4,50\r\n"),
        ("a.csv", "sep=|\nLine|Price\nRed|4,50"),
        ("a.csv", "Line\tPrice\nRed\t4,50"),
        ("a.tsv", "Line\tPrice\nRed\t4,50"),
    ],
)
def test_rows_are_a_table_whatever_parts_them(name: str, text: str):
    assert read(name, text.encode()).text == _TABLE


@pytest.mark.parametrize("codec", ["cp932", "utf-16", "utf-8-sig"])
def test_tables_in_other_encodings(codec: str):
    text = "名前,住所\n佐藤太郎,東京\n三木英子,大阪\n髙橋淳,名古屋\n"
    assert "| 髙橋淳 | 名古屋 |" in read("a.csv", text.encode(codec)).text


def test_a_field_of_many_megabytes_and_one_that_never_ends():
    assert "word word" in read("a.csv", b'a,b\n"' + b"word " * 400_000 + b'",2\n').text
    assert refusal("a.csv", b'a,b\n"' + b"word " * 400_000, TextLimits(max_text_chars=1_000_000)) == "document_too_long"


def test_millions_of_short_rows_are_too_long_before_they_are_too_large():
    assert refusal("a.csv", b"a,b\n" * 300_000, TextLimits(max_text_chars=1_000_000)) == "document_too_long"


def test_a_single_column_is_lines():
    assert read("a.csv", b"Harbour\nQuay\n").text == "Harbour\nQuay"
    assert refusal("a.csv", b" \n") == "document_empty"


def test_objects_are_sections_and_records_are_paragraphs():
    value = {
        "name": "Harbour",
        "open": True,
        "closed": None,
        "fares": [{"line": "Red", "price": 4.50}, {"line": "Blue"}],
    }
    parsed = read("a.json", json.dumps(value).replace("4.5", "4.50").encode())
    assert parsed.text == "name: Harbour\nopen: true\n\nfares\n\nline: Red\nprice: 4.50\n\nline: Blue"
    assert [block.kind for block in parsed.blocks] == ["paragraph", "heading", "paragraph", "paragraph"]


def test_names_of_what_lies_deep_are_joined():
    assert read("a.json", b'[{"a": {"b": [{"c": 1}, {"c": 2}]}}]').text == "a.b.1.c: 1\na.b.2.c: 2"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_record_a_line(name: str):
    parsed = read(name, '{"q": "Wann?"}\n{"q": "\\u00dcberall"}\n'.encode("utf-8-sig"))
    assert parsed.text == "q: Wann?\n\nq: Überall"
    assert len(parsed.blocks) == 2


def test_json_that_cannot_be_read_has_its_own_code():
    assert refusal("a.json", b"{'a': 1}") == "document_unreadable"
    assert refusal("a.json", b"[" * 100_000) == "nested_too_deeply"
    assert refusal("a.json", b"[" * 500 + b"{}" + b"]" * 500) in ("document_empty", "nested_too_deeply")
    assert refusal("a.json", b"{}") == "document_empty"
    assert refusal("a.json", b"") == "document_empty"
    assert refusal("a.json", b'{"n": ' + b"9" * 10_000 + b"}").startswith("n: 999")


def test_xml_of_records_and_of_running_text():
    data = (
        '<?xml version="1.0" encoding="windows-1251"?><!DOCTYPE list SYSTEM "list.dtd"><list><title>Причал</title>'
        '<boat id="7"><line>Red</line><price>4</price></boat><p>Boats <b>leave</b> at&nbsp;two.</p><e k="v"/></list>'
    )
    parsed = read("a.xml", data.encode("cp1251"))
    assert parsed.text == "Причал\n\nid: 7\nline: Red\nprice: 4\n\nBoats leave at two.\n\nk: v"
    assert parsed.blocks[0].kind == "heading"


_LAUGHS = '<!DOCTYPE a [<!ENTITY b "xxxx"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_entities_are_refused_in_any_encoding(encoding: str):
    assert refusal("a.xml", _LAUGHS.encode(encoding)) == "xml_entities"


def test_xml_that_cannot_be_read_has_its_own_code():
    assert refusal("a.xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>') == "xml_entities"
    assert refusal("a.xml", b'<!DOCTYPE a [<!ENTITY % b SYSTEM "http://x.example/">%b;]><a/>') == "xml_entities"
    assert refusal("a.xml", b"<a>") == "document_unreadable"
    assert refusal("a.xml", b"<a/>") == "document_empty"
    assert refusal("a.xml", b"<a>" * 50_000 + b"x" + b"</a>" * 50_000) == "nested_too_deeply"
