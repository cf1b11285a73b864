"""ZIP: one document whose sections are the files in it, each under its path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from ingestion.parse.archive import Archive, shown_name
from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.enclosed import MAX_DEPTH, Enclosure, ParsePart
from ingestion.parse.rejections import rejected

_SYSTEM_FOLDERS = frozenset({"__MACOSX"})
_SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def parse_zip(parse_part: ParsePart, data: bytes, limits: TextLimits) -> ParsedDocument:
    """Every file of a known type, in the archive's order; the others are named as left out.

    Raises DocumentRejected, see `Archive`; archive_too_deep; what the first file gives when none can be read.
    """
    if not data:
        raise empty_document()
    if limits.depth >= MAX_DEPTH:
        raise rejected("archive_too_deep")
    expansion = limits.expansion_of(len(data))
    archive = Archive(data, replace(limits, expansion=expansion), what="ZIP archive")
    expansion.unpack(len(archive.entries))
    builder = DocumentBuilder("zip", limits)
    files = Enclosure(builder, parse_part, limits, expansion)
    read = 0
    for entry in archive.entries:
        name = shown_name(entry)
        path = PurePosixPath(name)
        if entry.is_dir() or path.name in _SYSTEM_FILES or _SYSTEM_FOLDERS.intersection(path.parts):
            continue
        read += files.add(name, archive.read(entry))
    if not read:
        raise files.failed or rejected(
            "document_empty", "The archive holds no file of a type that can be read; send the documents themselves."
        )
    builder.title = ""
    return builder.build()
