"""What is found out about a content before it is stored, and names of others made harmless."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from ingestion.parse.detect import HEAD_BYTES

_MAX_FILENAME = 255
_BLOCK = 1 << 20


def measure(content: BinaryIO) -> tuple[int, bytes, bytes, bytes]:
    """Return size in bytes, SHA-256, the head and the tail of a file, and rewind it."""
    digest, size, head, tail = hashlib.sha256(), 0, b"", b""
    content.seek(0)
    while block := content.read(_BLOCK):
        head = head or block[:HEAD_BYTES]
        tail = (tail + block[-HEAD_BYTES:])[-HEAD_BYTES:]
        size += len(block)
        digest.update(block)
    content.seek(0)
    return size, digest.digest(), head, tail


def safe_filename(name: str) -> str:
    """Return the last part of a name, printable and bounded."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return _printable(last)[:_MAX_FILENAME] or "document"


def media_type(declared: str | None) -> str:
    """Return a declared media type, printable and bounded."""
    return _printable(declared or "")[:_MAX_FILENAME] or "application/octet-stream"


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
