"""The parsers of text formats. They are Python alone: a process that holds no more is forked in two thirds of the time
of one that holds every parser's libraries, and most documents of a large import are text."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ingestion.parse.delimited import parse_csv, parse_tsv
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.formats import PLAIN
from ingestion.parse.json_records import parse_json, parse_jsonl
from ingestion.parse.markdown import parse_markdown
from ingestion.parse.txt import parse_txt

Parser = Callable[[bytes, TextLimits], ParsedDocument]

TEXT_PARSERS: Mapping[str, Parser] = {
    "txt": parse_txt,
    "markdown": parse_markdown,
    "csv": parse_csv,
    "tsv": parse_tsv,
    "json": parse_json,
    "jsonl": parse_jsonl,
}
assert TEXT_PARSERS.keys() == PLAIN
