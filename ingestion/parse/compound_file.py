"""The streams of an OLE compound file that may be damaged."""

from __future__ import annotations

import io
import struct

import olefile

from ingestion.parse.rejections import damaged

_MAX_STREAMS = 10_000
_BROKEN = (OSError, ValueError, IndexError, KeyError, struct.error, TypeError, AttributeError, OverflowError)
"""What the library raises on damaged files."""


class CompoundFile:
    """Streams by path ("storage/stream"), in any letter case. Raises DocumentRejected(document_unreadable)."""

    def __init__(self, data: bytes, *, what: str) -> None:
        if not data.startswith(olefile.MAGIC):
            raise damaged(what)
        try:
            self._ole = olefile.OleFileIO(io.BytesIO(data))
            self.names = ["/".join(path) for path in self._ole.listdir(streams=True, storages=True)[:_MAX_STREAMS]]
        except _BROKEN as error:
            raise damaged(what) from error
        self._names = {name.lower(): name for name in self.names}

    def holds(self, path: str) -> bool:
        """Whether there is a stream or storage of that path."""
        return path.lower() in self._names

    def read(self, path: str) -> bytes | None:
        """The content of a stream, None when it is not there or damaged."""
        name = self._names.get(path.lower())
        if name is None:
            return None
        try:
            return bytes(self._ole.openstream(name).read())
        except _BROKEN:
            return None
