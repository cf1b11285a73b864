"""Reads parts of a ZIP that may be hostile: counted entries, counted bytes, plain names, no links, no entities."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from ingestion.parse.document import MAX_ENTRIES, TextLimits
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.xml_tree import parse_xml

_STEP = 1024 * 1024
_XML_HEAD = 64 * 1024
_STRICT = (
    (
        b"http://purl.oclc.org/ooxml/wordprocessingml/main",
        b"http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    ),
    (b"http://purl.oclc.org/ooxml/presentationml/main", b"http://schemas.openxmlformats.org/presentationml/2006/main"),
    (b"http://purl.oclc.org/ooxml/drawingml/main", b"http://schemas.openxmlformats.org/drawingml/2006/main"),
    (
        b"http://purl.oclc.org/ooxml/officeDocument/relationships",
        b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    ),
)
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The others inflate in steps that cannot be bounded."""
_ENCRYPTED_FLAG, _UTF8_FLAG = 0x1, 0x800
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError, OSError)


class Archive:
    """The parts of a ZIP; `what` is what it should be, for messages.

    Raises DocumentRejected: document_unreadable (not a sound ZIP or XML), document_encrypted, archive_bomb,
    archive_too_many_entries, unsafe_path, unsafe_link, xml_entities.
    """

    def __init__(self, data: bytes, limits: TextLimits, *, what: str) -> None:
        self._what = what
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except _UNREADABLE as error:
            raise damaged(what) from error
        self._expansion = limits.expansion_of(len(data))
        self.entries = self._zip.infolist()
        if len(self.entries) > MAX_ENTRIES:
            raise rejected("archive_too_many_entries")
        self._expansion.promise(sum(entry.file_size for entry in self.entries))
        for entry in self.entries:
            _check(entry)
        self._names = frozenset(entry.filename for entry in self.entries)

    @property
    def names(self) -> frozenset[str]:
        """The names of the parts."""
        return self._names

    def xml(self, name: str) -> Element | None:
        """The root of an XML part, None when there is no such part."""
        if name not in self._names:
            return None
        content = self.read(name)
        for strict, transitional in _STRICT:
            content = content.replace(strict, transitional)
        return parse_xml(content, what=self._what)

    def read(self, part: str | zipfile.ZipInfo) -> bytes:
        """Inflated bytes, counted while they come: the sizes in the headers may lie."""
        chunks: list[bytes] = []
        try:
            with self._zip.open(part) as stream:
                while chunk := stream.read(_STEP):
                    self._expansion.inflate(len(chunk))
                    chunks.append(chunk)
        except _UNREADABLE as error:
            if "Overlapped entries" in str(error):
                raise rejected("archive_bomb") from error
            raise damaged(self._what) from error
        return b"".join(chunks)

    def checked_parts(self) -> Iterator[tuple[str, bytes]]:
        """Every part by its name, inflated and counted once: for a library that reads them without our bounds."""
        for entry in self.entries:
            content = self.read(entry)
            if entry.filename.endswith((".xml", ".rels")) and b"<!" in content[:_XML_HEAD]:
                parse_xml(content, what=self._what)
            yield entry.filename, content


def shown_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry as its owner wrote it: without a mark of its encoding it is most often UTF-8."""
    if entry.flag_bits & _UTF8_FLAG:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


def _check(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.orig_filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or entry.orig_filename[1:2] == ":" or "\0" in entry.orig_filename:
        raise rejected("unsafe_path")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise rejected("unsafe_link")
    if entry.flag_bits & _ENCRYPTED_FLAG:
        raise rejected("document_encrypted")
    if entry.compress_type not in _METHODS:
        raise rejected(
            "document_unreadable", "The archive is packed by an uncommon method; pack it again as an ordinary ZIP."
        )
