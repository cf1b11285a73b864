"""The formats that can be ingested: how people call them, their extensions and media types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_OOXML = "application/vnd.openxmlformats-officedocument."
_ODF = "application/vnd.oasis.opendocument."


@dataclass(frozen=True)
class Format:
    """One format; the first extension is the usual one."""

    shown: str
    extensions: tuple[str, ...]
    media: tuple[str, ...]


FORMATS: Mapping[str, Format] = {
    "txt": Format("TXT", (".txt", ".text", ".log"), ("text/plain",)),
    "markdown": Format("Markdown", (".md", ".markdown", ".mdown"), ("text/markdown", "text/x-markdown")),
    "html": Format("HTML", (".html", ".htm", ".xhtml"), ("text/html", "application/xhtml+xml")),
    "pdf": Format("PDF", (".pdf",), ("application/pdf",)),
    "docx": Format("DOCX", (".docx", ".docm", ".dotx"), (_OOXML + "wordprocessingml.document",)),
    "pptx": Format("PPTX", (".pptx", ".pptm", ".ppsx"), (_OOXML + "presentationml.presentation",)),
    "xlsx": Format("XLSX", (".xlsx", ".xlsm", ".xlsb"), (_OOXML + "spreadsheetml.sheet",)),
    "xls": Format("XLS", (".xls",), ("application/vnd.ms-excel",)),
    "odt": Format("ODT", (".odt", ".ott"), (_ODF + "text",)),
    "ods": Format("ODS", (".ods", ".ots"), (_ODF + "spreadsheet",)),
    "odp": Format("ODP", (".odp", ".otp"), (_ODF + "presentation",)),
    "rtf": Format("RTF", (".rtf",), ("application/rtf", "text/rtf")),
    "epub": Format("EPUB", (".epub",), ("application/epub+zip",)),
    "csv": Format("CSV", (".csv",), ("text/csv",)),
    "tsv": Format("TSV", (".tsv", ".tab"), ("text/tab-separated-values",)),
    "json": Format("JSON", (".json",), ("application/json",)),
    "jsonl": Format("JSON Lines", (".jsonl", ".ndjson"), ("application/jsonl", "application/x-ndjson")),
    "xml": Format("XML", (".xml",), ("application/xml", "text/xml")),
    "eml": Format("EML", (".eml", ".mht", ".mhtml"), ("message/rfc822",)),
    "msg": Format("MSG", (".msg",), ("application/vnd.ms-outlook",)),
    "zip": Format("ZIP", (".zip",), ("application/zip", "application/x-zip-compressed")),
}
EXTENSIONS = {extension: name for name, known in FORMATS.items() for extension in known.extensions}
MEDIA_TYPES = {media: name for name, known in FORMATS.items() for media in known.media}
ZIPPED = frozenset({"docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "zip"})
COMPOUND = frozenset({"xls", "msg"})
BINARY = ZIPPED | COMPOUND | {"pdf", "rtf"}
"""Formats that a signature tells; the others are text."""
PLAIN = frozenset({"txt", "markdown", "csv", "tsv", "json", "jsonl"})
"""Formats whose parsers are Python alone (`text_registry.py`)."""
KNOWN_TYPES = ", ".join(f"{known.shown} ({', '.join(known.extensions)})" for known in FORMATS.values())
