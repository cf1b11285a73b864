"""JSON and JSON Lines: each record as lines of `name: value`, objects as sections under their names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.decode import decode_text
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.rejections import damaged, rejected

_SECTION_DEPTH = 3
# Numbers stay as they are written: no rounding, no number too long to be read.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, strict=False)


def parse_json(data: bytes, limits: TextLimits) -> ParsedDocument:
    """One value, or several that follow one another. Raises DocumentRejected(nested_too_deeply) and the usual ones."""
    return _parse(data, limits, "json")


def parse_jsonl(data: bytes, limits: TextLimits) -> ParsedDocument:
    """A record a line."""
    return _parse(data, limits, "jsonl")


def _parse(data: bytes, limits: TextLimits, format_name: str) -> ParsedDocument:
    text = decode_text(data).removeprefix("\ufeff")
    if not text.strip():
        raise empty_document()
    builder = DocumentBuilder(format_name, limits)
    try:
        for value in _values(text):
            _add(builder, value, 0)
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    builder.title = ""
    return builder.build()


def _values(text: str) -> Iterator[Any]:
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in " \t\r\n,\x1e":
            at += 1
        if at == end:
            return
        try:
            value, at = _DECODER.raw_decode(text, at)
        except ValueError as error:
            raise damaged("JSON document") from error
        yield value


def _add(builder: DocumentBuilder, value: Any, depth: int) -> None:
    """Add a value: lists record by record, objects as lines and, near the root, as sections."""
    if isinstance(value, list):
        if any(isinstance(item, dict | list) for item in value):
            for item in value:
                _add(builder, item, depth + 1 if isinstance(item, list) else _SECTION_DEPTH)
        else:
            builder.add("list", "\n".join(f"- {_scalar(item)}" for item in value))
    elif isinstance(value, dict):
        _add_object(builder, value, depth)
    else:
        builder.add("paragraph", _scalar(value))


def _add_object(builder: DocumentBuilder, value: dict[str, Any], depth: int) -> None:
    sections = {k: v for k, v in value.items() if depth < _SECTION_DEPTH and _is_section(v)}
    lines = [line for name, item in value.items() if name not in sections for line in _lines(name, item)]
    builder.add("paragraph", "\n".join(lines))
    for name, item in sections.items():
        builder.add("heading", " ".join(name.split()), level=depth + 1)
        _add(builder, item, depth + 1)


def _is_section(value: Any) -> bool:
    """Whether a member is more than a line or two."""
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, dict | list) for item in value)


def _lines(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(f"{name}.{key}", item)
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value, start=1):
            yield from _lines(f"{name}.{number}", item)
    else:
        words = ", ".join(map(_scalar, value)) if isinstance(value, list) else _scalar(value)
        if words:
            yield f"{name}: {words}"


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
