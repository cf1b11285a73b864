"""Unpacks gzip and deflate a little at a time, so that what is unpacked can be counted before it is much."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from tenants.errors import SourceFailed

BLOCK = 1 << 16
"""Most bytes that come out at a time."""
_GZIP_OR_ZLIB = 47  # zlib's window bits that tell the two apart by themselves


class Inflater:
    """One packed stream. Raises `SourceFailed` (`source_damaged`) where it is broken."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = False

    def pieces(self, block: bytes) -> Iterator[bytes]:
        """Yield what a block of the packed stream gives, at most `BLOCK` bytes at a time."""
        self._begun = self._begun or bool(block)
        rest, full = block, bool(block)
        while (rest or full) and not self._inflate.eof:
            try:
                piece = self._inflate.decompress(rest, BLOCK)
            except zlib.error as error:
                raise SourceFailed(f"{self._name} is damaged: {error}.", code="source_damaged") from error
            rest, full = self._inflate.unconsumed_tail, len(piece) == BLOCK
            if piece:
                yield piece

    def end(self) -> None:
        """Say that there is no more; a stream that is cut short is damaged."""
        if self._begun and not self._inflate.eof:
            raise SourceFailed(f"{self._name} is damaged: it breaks off.", code="source_damaged")


class Plain:
    """A stream that is not packed, with the same face."""

    def pieces(self, block: bytes) -> Iterator[bytes]:
        """Yield the block, at most `BLOCK` bytes at a time."""
        return (block[at : at + BLOCK] for at in range(0, len(block), BLOCK))

    def end(self) -> None:
        """Say that there is no more."""


def decoder(name: str, encoding: str) -> Inflater | Plain:
    """Return what decodes a body with this `Content-Encoding`; raise `SourceFailed` for one that was not asked for."""
    wanted = encoding.strip().lower()
    if wanted in ("", "identity"):
        return Plain()
    if wanted in ("gzip", "x-gzip", "deflate"):
        return Inflater(name)
    raise SourceFailed(f"{name} is encoded as {wanted[:40]!r}, which was not asked for.", code="source_wrong_type")
