"""Which format a file is of: by its content first, by its name and declared type second."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ingestion.parse.formats import BINARY, COMPOUND, EXTENSIONS, KNOWN_TYPES, MEDIA_TYPES, ZIPPED
from ingestion.parse.office import ENCRYPTED_PACKAGE, OLE
from ingestion.parse.zip_names import zip_names
from tenants.errors import UnsupportedType

HEAD_BYTES = 64 * 1024
"""How much of a file `detect_format` wants to see of its beginning, and of its end."""

_BINARY_MAGIC = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"Rar!", "RAR"),
    (b"\x7fELF", "ELF"),
    (b"MZ\x90", "Windows program"),
    (b"%!PS", "PostScript"),
    (b"SQLite format 3", "SQLite"),
)
_COMPOUND_NAMES = (
    ("WordDocument", "doc"),
    ("PowerPoint Document", "ppt"),
    ("__properties_version1.0", "msg"),
    ("Workbook", "xls"),
    ("Book", "xls"),
)
_LEGACY = {"doc": "a legacy Word file; save it as DOCX", "ppt": "a legacy PowerPoint file; save it as PPTX"}
_OOXML_FOLDERS = (("word/", "docx"), ("xl/", "xlsx"), ("ppt/", "pptx"))
_MIMETYPE = re.compile(
    rb"^PK\x03\x04.{26}mimetype(?:.{0,64}?)application/"
    rb"(epub\+zip|vnd\.oasis\.opendocument\.(text|spreadsheet|presentation))",
    re.S,
)
_OPEN_DOCUMENTS = {b"text": "odt", b"spreadsheet": "ods", b"presentation": "odp"}
# Atomic groups: what was skipped is never tried again, so a hostile head costs one pass.
_SKIPPED = rb"(?>\s+|<!--(?>.*?-->)|<\?xml[^>]*>)*+"
_HTML = re.compile(_SKIPPED + rb"<(?:!doctype\s+html|html|head|body|title)\b", re.I | re.S)
_HTML_PAGE = re.compile(_SKIPPED + rb"<(?:!doctype\s+html|html)\b", re.I | re.S)
_XML = re.compile(rb"\s*<\?xml\b", re.I)
_MAIL = re.compile(
    rb"(?:(?:Return-Path|Received|Delivered-To|From|To|Subject|Date|MIME-Version|Message-ID|X-[\w-]+|DKIM-Signature)"
    rb":[^\n]*\n(?:[ \t][^\n]*\n)*+){3}",
    re.I,
)


def detect_format(head: bytes, filename: str, declared: str | None, tail: bytes = b"") -> str:
    """The format of a file, a key of `FORMATS`.

    `head` is its first `HEAD_BYTES` (or all of it), `tail` its last ones, `declared` the media type its sender
    gave. Content decides wherever it is distinctive. A file whose name promises a format with a signature but whose
    content is something else keeps the promised format, so that its parser says what is wrong. Raises UnsupportedType.
    """
    named = EXTENSIONS.get(PurePosixPath(filename.replace("\\", "/")).suffix.lower())
    promised = named or _media_format(declared)
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zipped(head, tail, filename, promised)
    if head.startswith(OLE):
        return _compound(head + tail, filename, promised)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{\\rtf"):
        return "rtf"
    for magic, what in _BINARY_MAGIC:
        if head.startswith(magic):
            raise _unsupported(filename, what)
    if named in BINARY:
        return named
    return _textual(head, filename, named, declared)


def _zipped(head: bytes, tail: bytes, filename: str, promised: str | None) -> str:
    """By the media type that it begins with, then by the names of its parts, then by what it is said to be."""
    mimetype = _MIMETYPE.match(head)
    if mimetype:
        return _OPEN_DOCUMENTS[mimetype[2]] if mimetype[2] else "epub"
    names = zip_names(head, tail)
    packaged = "[Content_Types].xml" in names or "_rels/.rels" in names
    for folder, format_name in _OOXML_FOLDERS:
        if (packaged or promised == format_name) and any(name.startswith(folder) for name in names):
            return format_name
    if "META-INF/container.xml" in names and promised in (None, "zip", "epub"):
        return "epub"
    if "META-INF/MANIFEST.MF" in names and promised in (None, "zip"):
        raise _unsupported(filename, "a program")
    return promised if promised in ZIPPED else "zip"


def _compound(content: bytes, filename: str, promised: str | None) -> str:
    """By the names of its streams; a document with a password is what it is said to be."""
    if ENCRYPTED_PACKAGE in content:
        return promised if promised in ("docx", "xlsx", "pptx") else "docx"
    found = [kind for name, kind in _COMPOUND_NAMES if name.encode("utf-16-le") in content]
    if promised in COMPOUND and (promised in found or not found):
        return promised
    if not found and promised in ("docx", "xlsx", "pptx"):
        return promised
    kind = found[0] if found else "doc"
    if kind in _LEGACY:
        raise _unsupported(filename, _LEGACY[kind])
    return kind


def _textual(head: bytes, filename: str, named: str | None, declared: str | None) -> str:
    sniffed = _narrow(head)
    if _HTML_PAGE.match(sniffed) or (named not in ("markdown", "xml", "eml") and _HTML.match(sniffed)):
        return "html"
    if named is not None:
        return named
    if _XML.match(sniffed):
        return "xml"
    if b"\0" in sniffed:
        raise _unsupported(filename, "binary")
    promised = _media_format(declared)
    if promised is not None and promised not in BINARY:
        return promised
    if _MAIL.match(sniffed):
        return "eml"
    if not PurePosixPath(filename).suffix and _is_utf8(sniffed):
        return "txt"
    raise _unsupported(filename, declared or "unknown")


def _narrow(head: bytes) -> bytes:
    """UTF-16 reduced to its ASCII characters, so that one pattern serves every encoding."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[2:].replace(b"\0", b"")
    return head.removeprefix(b"\xef\xbb\xbf")


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 4 > 0  # a character cut in two by the end of the head
    return True


def _media_format(declared: str | None) -> str | None:
    return MEDIA_TYPES.get((declared or "").split(";")[0].strip().lower())


def _unsupported(filename: str, what: str) -> UnsupportedType:
    shown = PurePosixPath(filename).name[:100]
    return UnsupportedType(f"{shown!r} is of a type that cannot be ingested ({what}). Known types: {KNOWN_TYPES}.")
