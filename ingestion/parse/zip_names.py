"""What a ZIP holds, from its first and last bytes alone. Source: PKWARE's APPNOTE, 4.3.7, 4.3.12 and 4.3.16."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_STREAMED = 0x8  # the size stands behind the content
_MARK = b"PK\x01\x02"


def zip_names(head: bytes, tail: bytes) -> list[str]:
    """Names of the entries: those of the directory that `tail` reaches, and the first ones that `head` shows."""
    return [*_directory(tail), *_first(head)]


def _first(head: bytes) -> Iterator[str]:
    at = 0
    while len(head) - at >= _LOCAL.size:
        mark, _, flags, *_, packed, _, name_length, extra_length = _LOCAL.unpack_from(head, at)
        if mark != b"PK\x03\x04":
            return
        start = at + _LOCAL.size
        yield head[start : start + name_length].decode("utf-8", "replace")
        if flags & _STREAMED:
            return
        at = start + name_length + extra_length + packed


def _directory(tail: bytes) -> Iterator[str]:
    end = tail.rfind(b"PK\x05\x06")
    if not 0 <= end <= len(tail) - _END.size:
        return
    _, *_, size, _, _ = _END.unpack_from(tail, end)
    at = tail.find(_MARK, max(end - size, 0))  # in the middle of the directory where it is longer than `tail`
    while 0 <= at <= end - _CENTRAL.size:
        fields = _CENTRAL.unpack_from(tail, at)
        if fields[0] != _MARK:
            at = tail.find(_MARK, at + 1)  # what looked like an entry was not one
            continue
        name_length, extra_length, comment_length = fields[10:13]
        start = at + _CENTRAL.size
        yield tail[start : start + name_length].decode("utf-8", "replace")
        at = start + name_length + extra_length + comment_length
