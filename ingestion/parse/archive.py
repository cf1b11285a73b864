"""Reads parts of a ZIP that may be hostile: counted entries, counted bytes, plain names, XML without a DTD."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, ParseError, XMLParser

from tenants.errors import DocumentRejected

MAX_ENTRIES = 1000
MAX_EXPANDED = 512 * 1024**2
MAX_RATIO = 100
RATIO_FLOOR = 1_000_000
"""Expanded size up to which the ratio does not matter (as in Apache Tika's SecureContentHandler): tiny files of
boilerplate compress beyond any ratio and harm nobody."""
_OUT_OF_MEMORY = 1  # expat's XML_ERROR_NO_MEMORY
_STEP = 1024 * 1024
_STRICT = b"http://purl.oclc.org/ooxml/wordprocessingml/main"
_TRANSITIONAL = b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_ENCRYPTED_FLAG = 0x1
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError, OSError)


class Archive:
    """The parts of an Office document.

    Raises DocumentRejected: document_unreadable (not a sound ZIP or XML), document_encrypted, document_unsafe
    (too many entries, an expansion over min(512 MiB, 100 x the file), a name that leaves the archive, a DTD).
    """

    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _UNREADABLE as error:
            raise DocumentRejected("The file is not a sound Office document.") from error
        self._left = min(MAX_EXPANDED, max(MAX_RATIO * len(data), RATIO_FLOOR))
        entries = self._zip.infolist()
        if len(entries) > MAX_ENTRIES:
            raise _unsafe(f"holds more than {MAX_ENTRIES:,} parts")
        if sum(entry.file_size for entry in entries) > self._left:
            raise _unsafe("expands far beyond its size")
        for entry in entries:
            if _leaves(entry.filename):
                raise _unsafe("holds a part whose name leaves the archive")
            if entry.flag_bits & _ENCRYPTED_FLAG:
                raise DocumentRejected("The document is encrypted.", code="document_encrypted")
        self._names = frozenset(entry.filename for entry in entries)

    @property
    def names(self) -> frozenset[str]:
        """The names of the parts."""
        return self._names

    def xml(self, name: str) -> Element | None:
        """The root of an XML part, None when there is no such part."""
        if name not in self._names:
            return None
        content = _utf8(self._read(name))
        if b"<!DOCTYPE" in content:
            raise _unsafe("declares an XML document type")
        # The given encoding overrides a declared one, so that no other spelling of <!DOCTYPE gets by.
        parser = XMLParser(encoding="utf-8")  # noqa: S314 - there is no DTD, hence no entity
        try:
            parser.feed(content.replace(_STRICT, _TRANSITIONAL))
            return parser.close()
        except ParseError as error:
            if error.code == _OUT_OF_MEMORY:
                raise MemoryError from error
            raise DocumentRejected("The document's XML is damaged.") from error

    def _read(self, name: str) -> bytes:
        """Inflated bytes, counted while they come: the sizes in the headers may lie."""
        chunks: list[bytes] = []
        try:
            with self._zip.open(name) as part:
                while chunk := part.read(_STEP):
                    self._left -= len(chunk)
                    if self._left < 0:
                        raise _unsafe("expands far beyond its size")
                    chunks.append(chunk)
        except _UNREADABLE as error:
            raise DocumentRejected("The file is damaged.") from error
        return b"".join(chunks)


def _utf8(content: bytes) -> bytes:
    """UTF-16, which the parser would recognise by itself, as UTF-8: so a DTD has one spelling only."""
    if b"\0" not in content:
        return content
    big = content.startswith((b"\xfe\xff", b"\0"))
    try:
        return content.decode("utf-16-be" if big else "utf-16-le").removeprefix("\ufeff").encode()
    except UnicodeError as error:
        raise DocumentRejected("The document's XML is damaged.") from error


def _leaves(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":")


def _unsafe(what: str) -> DocumentRejected:
    return DocumentRejected(f"The document is refused: it {what}.", code="document_unsafe")
