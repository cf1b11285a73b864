"""Which format a file is of: by its content first, by its name and declared type second."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from tenants.errors import UnsupportedType

HEAD_BYTES = 64 * 1024
"""How much of a file `detect_format` wants to see."""

EXTENSIONS: dict[str, str] = {
    ".txt": "txt",
    ".text": "txt",
    ".log": "txt",
    ".md": "markdown",
    ".markdown": "markdown",
    ".mdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}
MEDIA_TYPES: dict[str, str] = {
    "text/plain": "txt",
    "text/markdown": "markdown",
    "text/x-markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
}
KNOWN_TYPES = "TXT (.txt, .text, .log), Markdown (.md), HTML (.html, .htm, .xhtml), PDF (.pdf), DOCX (.docx)"

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_BINARY_MAGIC = (
    (b"{\\rtf", "RTF"),
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"\x1f\x8b", "gzip"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"Rar!", "RAR"),
    (b"\x7fELF", "ELF"),
    (b"MZ\x90", "Windows program"),
    (b"%!PS", "PostScript"),
    (b"SQLite format 3", "SQLite"),
)
# Atomic groups: what was skipped is never tried again, so a hostile head costs one pass.
_SKIPPED = rb"(?>\s+|<!--(?>.*?-->)|<\?xml[^>]*>)*+"
_HTML = re.compile(_SKIPPED + rb"<(?:!doctype\s+html|html|head|body|title)\b", re.I | re.S)
_HTML_PAGE = re.compile(_SKIPPED + rb"<(?:!doctype\s+html|html)\b", re.I | re.S)
_XML = re.compile(rb"\s*<\?xml\b", re.I)


def detect_format(head: bytes, filename: str, declared: str | None) -> str:
    """The format ("txt", "markdown", "html", "pdf", "docx") of a file.

    `head` is its first `HEAD_BYTES` (or all of it), `declared` the media type its sender gave. Content decides
    wherever it is distinctive. A file whose name promises PDF or DOCX but whose content is something else keeps
    the promised format, so that its parser says what is wrong. Raises UnsupportedType.
    """
    named = EXTENSIONS.get(PurePosixPath(filename.replace("\\", "/")).suffix.lower())
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _archive(head, filename, named, declared)
    if head.startswith(_OLE):
        if named == "docx" or (_ENCRYPTED_PACKAGE in head and _media_format(declared) == "docx"):
            return "docx"
        raise _unsupported(filename, "a legacy Office file")
    for magic, what in _BINARY_MAGIC:
        if head.startswith(magic):
            raise _unsupported(filename, what)
    if named in ("pdf", "docx"):
        return named
    return _textual(head, filename, named, declared)


def _archive(head: bytes, filename: str, named: str | None, declared: str | None) -> str:
    """DOCX by the names of its parts; when they lie beyond `head`, by the file's own name."""
    if b"word/" in head:
        return "docx"
    if any(mark in head for mark in (b"xl/", b"ppt/", b"mimetypeapplication/", b"META-INF/")):
        raise _unsupported(filename, "an archive of another kind")
    if named == "docx" or (named is None and _media_format(declared) == "docx"):
        return "docx"
    raise _unsupported(filename, "an archive")


def _textual(head: bytes, filename: str, named: str | None, declared: str | None) -> str:
    sniffed = _narrow(head)
    if _HTML_PAGE.match(sniffed) or (named != "markdown" and _HTML.match(sniffed)):
        return "html"
    if named is not None:
        return named
    if _XML.match(sniffed):
        raise _unsupported(filename, "XML")
    if b"\0" in sniffed:
        raise _unsupported(filename, "binary")
    promised = _media_format(declared)
    if promised in ("txt", "markdown", "html"):
        return promised
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
