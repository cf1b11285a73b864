"""CSV and TSV: the rows as one table, the delimiter found by its regularity."""

from __future__ import annotations

import csv
import io
import re

from ingestion.parse.builder import DocumentBuilder, empty_document, too_long
from ingestion.parse.decode import decode_text
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.rejections import rejected
from ingestion.parse.tables import markdown_table

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 64 * 1024
_SAMPLE_ROWS = 50
_CELL_MARKS = 3
_LONGEST_FIELD = 2**31 - 1
"""No bound: the builder says what is too long."""
_SEPARATOR_LINE = re.compile(r"sep=([^\w\s\"]|\t)\r?\n", re.I)


def parse_csv(data: bytes, limits: TextLimits) -> ParsedDocument:
    """The first row holds the names of the columns."""
    return _parse(data, limits, "csv")


def parse_tsv(data: bytes, limits: TextLimits) -> ParsedDocument:
    """As `parse_csv`."""
    return _parse(data, limits, "tsv")


def _parse(data: bytes, limits: TextLimits, format_name: str) -> ParsedDocument:
    text = decode_text(data).removeprefix("\ufeff").replace("\0", "")
    if not text.strip():
        raise empty_document()
    delimiter = "\t" if format_name == "tsv" else None
    named = _SEPARATOR_LINE.match(text)
    if named:
        delimiter, text = named[1], text[named.end() :]
    rows = _rows(text, delimiter or _delimiter(text), limits)
    builder = DocumentBuilder(format_name, limits)
    if max(map(len, rows), default=0) > 1 and len(rows) > 1:
        builder.add("table", markdown_table(rows))
    else:
        builder.add("paragraph", "\n".join(" ".join(filter(None, row)) for row in rows))
    return builder.build()


def _delimiter(text: str) -> str:
    """The one that gives most rows the same number of fields, above one; a comma in doubt."""
    sample = text[:_SAMPLE_CHARS]
    return max(_DELIMITERS, key=lambda delimiter: _regularity(sample, delimiter))


def _regularity(sample: str, delimiter: str) -> float:
    widths: list[int] = []
    try:
        for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
            widths.append(len(row))
            if len(widths) == _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # the sample ends within a field
    usual = max(set(widths), key=widths.count, default=1)
    return widths.count(usual) / len(widths) + min(usual, 20) / 1000 if widths and usual > 1 else 0.0


def _rows(text: str, delimiter: str, limits: TextLimits) -> list[list[str]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[list[str]] = []
    characters = 0
    try:
        for row in reader:
            if any(row):
                rows.append(row)
                characters += sum(map(len, row)) + _CELL_MARKS * len(row)
            if characters > limits.max_text_chars:
                raise too_long(limits)  # before millions of short rows fill the memory
        return rows
    except csv.Error as error:
        raise rejected(
            "document_unreadable", "The table is damaged: a quotation mark is not closed; mend it and send it again."
        ) from error
