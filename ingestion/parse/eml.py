"""EML: the heads of a message, what its reader sees of its text, and its attachments."""

from __future__ import annotations

import email
import re
from collections.abc import Iterator
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.message import Message

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.decode import decode_text
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.enclosed import MAX_DEPTH, Enclosure, ParsePart
from ingestion.parse.letter import add_heads, add_text
from ingestion.parse.rejections import damaged, rejected
from tenants.errors import DocumentRejected

_HEADS = ("Subject", "From", "To", "Cc", "Date")
_SIGNATURES = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})
_ENCRYPTED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime", "multipart/encrypted"})
_TEXTS = ("text/html", "text/plain")
_USUAL = "cp1252"
_WIDE = re.compile(rb"\xff\xfe|\xfe\xff|[\x20-\x7e]\0|\0[\x20-\x7e]")


def parse_eml(parse_part: ParsePart, data: bytes, limits: TextLimits) -> ParsedDocument:
    """Of alternatives the richest that can be read, since that is the one its reader sees.

    An attachment of an unknown type, or one that cannot be read, is named as left out; so are messages nested more than
    three deep. Raises DocumentRejected: document_encrypted (S/MIME, PGP), archive_too_many_entries and the usual ones.
    """
    if not data.strip():
        raise empty_document()
    if _WIDE.match(data):
        data = decode_text(data).encode("utf-8", "surrogatepass")
    try:
        message = email.message_from_bytes(data.lstrip(b"\xef\xbb\xbf\r\n"))
    except (MessageError, ValueError, IndexError, LookupError) as error:
        raise damaged("mail message") from error
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    if not message.keys():
        raise damaged("mail message")
    builder = DocumentBuilder("eml", limits)
    expansion = limits.expansion_of(len(data))
    files = Enclosure(builder, parse_part, limits, expansion)
    try:
        expansion.unpack(sum(1 for part in message.walk() if not part.is_multipart()))
        _Letter(builder, files).add(message, 1)
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    builder.title = _head(message, "Subject")
    return builder.build()


class _Letter:
    """Walks the parts of a message."""

    def __init__(self, builder: DocumentBuilder, files: Enclosure) -> None:
        self._builder = builder
        self._files = files

    def add(self, message: Message, level: int) -> None:
        """Add a message; `level` is one more than the number of messages that it lies in."""
        add_heads(self._builder, {name: _head(message, name) for name in _HEADS}, level=level)
        self._part(message, level)

    def _part(self, part: Message, level: int) -> bool:
        """Add a part; whether there was anything to read in it."""
        kind = part.get_content_type()
        if kind in _ENCRYPTED and "signed-data" not in str(part.get_param("smime-type", "")):
            raise rejected("document_encrypted")
        if kind == "message/rfc822":
            return self._enclosed(part, level)
        if part.is_multipart():
            parts = [inner for inner in part.get_payload() if isinstance(inner, Message)]
            if kind == "multipart/alternative":
                parts.sort(key=_is_text)
                return any(self._part(inner, level) for inner in reversed(parts))
            read = [self._part(inner, level) for inner in parts]
            return any(read)
        return self._leaf(part, kind, level)

    def _enclosed(self, part: Message, level: int) -> bool:
        for inner in part.get_payload() if part.is_multipart() else ():
            if not isinstance(inner, Message):
                continue
            if level + self._files.limits.depth > MAX_DEPTH:
                self._builder.leave_out(f"message {_head(inner, 'Subject')}", "archive_too_deep")
            else:
                self.add(inner, level + 1)
        return True

    def _leaf(self, part: Message, kind: str, level: int) -> bool:
        content = part.get_payload(decode=True)
        name = _decoded(part.get_filename() or "", _charset(part) or _USUAL)
        if not isinstance(content, bytes) or kind in _SIGNATURES:
            return False
        attached = part.get_content_disposition() == "attachment"
        if kind.startswith("multipart/"):  # said to have parts, but has none
            kind = "text/plain"
        if kind in _TEXTS and not attached and not name:
            charset = _charset(part)
            limits, html = self._files.limits, kind == "text/html"
            return add_text(self._builder, content, html=html, charset=charset, limits=limits, level=level)
        if kind.startswith("image/") and not attached:
            return False  # part of the message's look
        return self._files.add(name or f"attachment ({kind})", content, level=level, declared=kind)


def _is_text(part: Message) -> bool:
    """Whether an alternative is for readers; others, such as the calendar entry of an invitation, are for programs."""
    return part.get_content_type() in _TEXTS or part.get_content_maintype() == "multipart"


def _charset(part: Message) -> str | None:
    try:
        return part.get_content_charset()
    except (LookupError, ValueError, TypeError):
        return None


def _charset_of_text(message: Message) -> str | None:
    """The charset of the first part that names one: heads in raw bytes are mostly written in it."""
    try:
        return next((charset for charset in message.get_charsets() if charset), None)
    except (LookupError, ValueError, TypeError):
        return None


def _head(message: Message, name: str) -> str:
    for key, value in message.raw_items():
        if key.lower() == name.lower():
            return _decoded(str(value), _charset_of_text(message) or _USUAL)
    return ""


def _decoded(text: str, charset: str) -> str:
    """A head's words: encoded words decoded, raw bytes in UTF-8 or else in `charset`."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        plain = decode_text(raw, charset) if not raw.isascii() else text
        return "".join(_words(plain))
    except (HeaderParseError, ValueError, LookupError, DocumentRejected):
        return raw.decode("utf-8", "ignore")


def _words(text: str) -> Iterator[str]:
    for part, charset in decode_header(text):
        if isinstance(part, str):
            yield part
        elif charset is None:
            yield part.decode("raw_unicode_escape" if part.isascii() else "utf-8", "ignore")
        else:
            yield decode_text(part, charset)
