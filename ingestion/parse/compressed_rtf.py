"""RTF as Outlook keeps it: LZFu, a dictionary coder with a window of 4,096 bytes. Source: [MS-OXRTFCP]."""

from __future__ import annotations

import struct

from ingestion.parse.document import TextLimits
from ingestion.parse.rejections import damaged

_PRIMED = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor "
    b"MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20"
    b"\\b\\i\\u\\tab\\tx"
)
_WINDOW = 4096
_HEADER = struct.Struct("<III4x")
_COMPRESSED, _STORED = 0x75465A4C, 0x414C454D


def inflate_rtf(data: bytes, limits: TextLimits) -> bytes:
    """The RTF itself. Raises DocumentRejected: document_unreadable, archive_bomb."""
    if len(data) < _HEADER.size:
        raise damaged("Outlook message")
    _, size, kind = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if kind == _STORED:
        return body[:size]
    if kind != _COMPRESSED:
        raise damaged("Outlook message")
    content = _inflated(body)
    limits.expansion_of(len(data)).inflate(len(content))
    return content[:size]


def _inflated(body: bytes) -> bytes:
    """At most nine times as long as `body`: a reference of two bytes stands for up to 17."""
    window = bytearray(_PRIMED.ljust(_WINDOW, b" "))
    write, at = len(_PRIMED), 0
    out = bytearray()
    while at < len(body):
        control = body[at]
        at += 1
        for bit in range(8):
            if at >= len(body):
                break
            if not control >> bit & 1:
                piece = body[at : at + 1]
                at += 1
            else:
                if at + 1 >= len(body):
                    return bytes(out)
                reference = body[at] << 8 | body[at + 1]
                at += 2
                read = reference >> 4
                if read == write:
                    return bytes(out)
                piece = _copied(window, read, write, (reference & 0xF) + 2)
            for byte in piece:
                window[write] = byte
                write = (write + 1) % _WINDOW
            out += piece
    return bytes(out)


def _copied(window: bytearray, read: int, write: int, length: int) -> bytes:
    """A reference may run into the bytes that it is itself writing."""
    distance = (write - read) % _WINDOW
    span = bytes(window[(read + i) % _WINDOW] for i in range(min(distance, length)))
    return (span * (length // len(span) + 1))[:length]
