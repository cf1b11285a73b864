"""The content of a document while it is parsed: without a name, so nothing of it outlives the process that holds it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import IO, Self

_IN_MEMORY = 256 * 1024
"""Bytes up to which a content is kept in memory: a batch has hundreds of small documents, and each open file takes a
descriptor."""


class Original:
    """One content. A file that holds it is never linked into a folder: it goes with its last descriptor, also when the
    process is killed, and there is nothing to clear up that a delete or an erasure would have to know of."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._file: IO[bytes] | None = None
        if len(content) > _IN_MEMORY:
            self._file, self._content = _nameless(content), b""

    @classmethod
    async def of(cls, content: bytes) -> Self:
        """Hold a content, in a thread where it is written to a file."""
        return await asyncio.to_thread(cls, content) if len(content) > _IN_MEMORY else cls(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def open(self) -> int:
        """Return a descriptor for reading, at the beginning; the caller closes it. Raises OSError."""
        if self._file is not None:
            return _opened_again(self._file)
        with _nameless(self._content) as file:
            return _opened_again(file)


def _nameless(content: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        file.write(content)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


def _opened_again(file: IO[bytes]) -> int:
    """A descriptor with a place of its own: a parser that is tried again does not go on where the first one was."""
    return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
