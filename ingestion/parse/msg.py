"""MSG: an Outlook message as an OLE compound file. Sources: [MS-OXMSG], [MS-OXPROPS]."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.compound_file import CompoundFile
from ingestion.parse.compressed_rtf import inflate_rtf
from ingestion.parse.decode import decode_text
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.enclosed import MAX_DEPTH, Enclosure, ParsePart
from ingestion.parse.letter import add_heads, add_text
from ingestion.parse.rejections import DANGEROUS, damaged
from ingestion.parse.rtf import parse_rtf
from ingestion.parse.rtf_tokens import codec_of_page
from tenants.errors import DocumentRejected

_WHAT = "Outlook message"
_SUBJECT, _SENDER, _SENDER_MAIL, _TO, _CC = 0x0037, 0x0C1A, 0x5D01, 0x0E04, 0x0E03
_BODY, _HTML, _RTF = 0x1000, 0x1013, 0x1009
_SENT, _RECEIVED, _CODE_PAGE, _INTERNET_CODE_PAGE = 0x00390040, 0x0E060040, 0x3FFD0003, 0x3FDE0003
_LONG_NAME, _SHORT_NAME, _DISPLAY_NAME, _CONTENT = 0x3707, 0x3704, 0x3001, 0x3701
_ATTACHMENT, _PROPERTIES = "__attach_version1.0_", "__properties_version1.0"
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def parse_msg(parse_part: ParsePart, data: bytes, limits: TextLimits) -> ParsedDocument:
    """The heads, the text (of HTML, RTF and plain the first that is there) and the attachments, as in `parse_eml`."""
    if not data:
        raise empty_document()
    file = CompoundFile(data, what=_WHAT)
    builder = DocumentBuilder("msg", limits)
    expansion = limits.expansion_of(len(data))
    letter = _Letter(file, builder, Enclosure(builder, parse_part, limits, expansion))
    if not letter.sound:
        raise damaged(_WHAT)
    expansion.unpack(sum(name.rpartition("/")[2].startswith(_ATTACHMENT) for name in file.names))
    letter.add("", 1)
    builder.title = letter.string("", _SUBJECT)
    return builder.build()


class _Letter:
    """Reads the properties of a message and of the messages that hang on it."""

    def __init__(self, file: CompoundFile, builder: DocumentBuilder, files: Enclosure) -> None:
        self._file = file
        self._builder = builder
        self._files = files
        self._codec = codec_of_page(self._number("", _CODE_PAGE) or 1252)

    @property
    def sound(self) -> bool:
        """Whether there is a message at all."""
        return any(name.startswith(("__substg1.0_", _PROPERTIES)) for name in self._file.names)

    def add(self, folder: str, level: int) -> None:
        """Add the message in a storage; `level` is one more than the number of messages that it lies in."""
        sender = " ".join(filter(None, (self.string(folder, _SENDER), self.string(folder, _SENDER_MAIL))))
        heads = {
            "Subject": self.string(folder, _SUBJECT),
            "From": sender,
            "To": self.string(folder, _TO),
            "Cc": self.string(folder, _CC),
            "Date": self._moment(folder),
        }
        add_heads(self._builder, heads, level=level)
        self._text(folder, level)
        for attachment in self._attachments(folder):
            self._attachment(attachment, level)

    def string(self, folder: str, number: int) -> str:
        """A property that is text, "" when it is not there."""
        wide = self._stream(folder, f"{number:04X}001F")
        if wide is not None:
            return wide.decode("utf-16-le", "ignore").rstrip("\0")
        narrow = self._stream(folder, f"{number:04X}001E") or b""
        try:
            return decode_text(narrow.rstrip(b"\0"), self._codec)
        except DocumentRejected:
            return narrow.decode(self._codec, "ignore")

    def _text(self, folder: str, level: int) -> None:
        limits = self._files.limits
        html = self._stream(folder, f"{_HTML:04X}0102")
        page = self._number(folder, _INTERNET_CODE_PAGE)
        charset = codec_of_page(page) if page else self._codec
        if html is None:
            html, charset = self.string(folder, _HTML).encode("utf-8", "ignore"), "utf-8"
        if add_text(self._builder, html, html=True, charset=charset, limits=limits, level=level):
            return
        packed = self._stream(folder, f"{_RTF:04X}0102")
        if packed is not None and self._rich_text(packed, level):
            return
        plain = self.string(folder, _BODY).encode("utf-8", "ignore")
        add_text(self._builder, plain, html=False, charset="utf-8", limits=limits, level=level)

    def _rich_text(self, packed: bytes, level: int) -> bool:
        try:
            self._builder.include(parse_rtf(inflate_rtf(packed, self._files.limits), self._files.limits), level=level)
        except DocumentRejected as error:
            if error.code in DANGEROUS:
                raise
            return False
        return True

    def _attachments(self, folder: str) -> Iterator[str]:
        prefix = f"{folder}/" if folder else ""
        for name in self._file.names:
            rest = name[len(prefix) :]
            if name.startswith(prefix) and rest.startswith(_ATTACHMENT) and "/" not in rest:
                yield name

    def _attachment(self, folder: str, level: int) -> None:
        named = (self.string(folder, number) for number in (_LONG_NAME, _SHORT_NAME, _DISPLAY_NAME))
        name = next(filter(None, named), "attachment")
        message = f"{folder}/__substg1.0_{_CONTENT:04X}000D"
        content = self._stream(folder, f"{_CONTENT:04X}0102")
        if content is not None:
            self._files.add(name, content, level=level)
        elif self._file.holds(message) and level + self._files.limits.depth <= MAX_DEPTH:
            self.add(message, level + 1)
        else:
            self._builder.leave_out(name, "archive_too_deep" if self._file.holds(message) else "unsupported_type")

    def _moment(self, folder: str) -> str:
        ticks = self._number(folder, _SENT) or self._number(folder, _RECEIVED)
        try:
            return f"{_EPOCH + timedelta(microseconds=ticks // 10):%Y-%m-%d %H:%M} UTC" if ticks else ""
        except OverflowError:
            return ""

    def _number(self, folder: str, tag: int) -> int:
        """A property of fixed size, 0 when it is not there: 16 bytes each, tag, flags and value."""
        table = self._file.read(f"{folder}/{_PROPERTIES}" if folder else _PROPERTIES) or b""
        for at in range(32 if not folder else 24, len(table) - 15, 16):
            if struct.unpack_from("<I", table, at)[0] == tag:
                return int(struct.unpack_from("<Q" if tag & 0xFFFF == 0x40 else "<I", table, at + 8)[0])
        return 0

    def _stream(self, folder: str, tag: str) -> bytes | None:
        return self._file.read(f"{folder}/__substg1.0_{tag}" if folder else f"__substg1.0_{tag}")
