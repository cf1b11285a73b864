"""The files below a folder of this machine, where the operator allows it; no symbolic link is followed."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

from ingestion.sources.entries import Entry, Known, Read, too_large
from ingestion.sources.files import file_entry, is_wanted
from tenants.errors import SourceFailed, SourceUnavailable

_BATCH = 64
_BLOCK = 1 << 18
_MAX_DEPTH = 100
# As a way to what is below: the folders above an allowed one need not be readable.
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe or a device must not hold up the opening of it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def allowed_folder(path: str, roots: Sequence[str], tenant_id: UUID) -> Path:
    """Return the folder with its links resolved when it lies below one of the operator's roots.

    Raises:
        SourceFailed: it does not (`source_address_refused`), or is not there.
    """
    real = Path(os.path.realpath(path))
    for root in roots:
        allowed = Path(os.path.realpath(root.replace("{tenant}", str(tenant_id))))
        if real == allowed or allowed in real.parents:
            return real
    raise SourceFailed(
        "The folder is refused: the operator names those that may be used.", code="source_address_refused"
    )


class FolderSource:
    """A connector (see `entries.Connector`)."""

    def __init__(self, folder: Path, include: Sequence[str], max_bytes: int) -> None:
        self._folder, self._include, self._max_bytes = folder, include, max_bytes
        self.cursor: dict[str, Any] = {}
        self.complete = True

    async def batches(self) -> AsyncGenerator[list[Entry], None]:
        """Yield the files, folder by folder."""
        if not await asyncio.to_thread(self._folder.is_dir):
            raise SourceFailed("The folder is not there.", code="source_not_found")
        found = _walk(self._folder, self._include)
        while batch := await asyncio.to_thread(lambda: list(islice(found, _BATCH))):
            yield batch

    async def read(self, entry: Entry, known: Known | None, target: BinaryIO) -> Read | None:
        """Copy a file."""
        await asyncio.to_thread(copy_file, self._folder, entry.place, target, self._max_bytes)
        return Read(entry.place.rsplit("/", 1)[-1], "")

    async def aclose(self) -> None:
        """Nothing of its own is open."""


def _walk(folder: Path, include: Sequence[str]) -> Iterator[Entry]:
    def broken(error: OSError) -> None:
        # A part that cannot be listed must not look as if it had vanished.
        raise SourceUnavailable(f"The folder cannot be listed: {error.strerror}.", code="source_error") from error

    try:
        with _opened(folder) as top:
            for where, folders, names, here in os.fwalk(".", dir_fd=top, onerror=broken):
                folders.sort()
                inner = where[2:] + "/" if len(where) > 1 else ""
                if inner.count("/") > _MAX_DEPTH:
                    raise SourceFailed("The folders are nested too deep.", code="source_too_many")
                for name in sorted(names):
                    if not is_wanted(inner + name, include):
                        continue
                    try:
                        status = os.stat(name, dir_fd=here, follow_symlinks=False)
                    except (FileNotFoundError, NotADirectoryError):
                        continue
                    if stat.S_ISREG(status.st_mode):
                        yield file_entry(inner + name, f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_size}")
    except OSError as error:
        broken(error)


@contextmanager
def _opened(folder: Path, parts: Sequence[str] = ()) -> Iterator[int]:
    """Open a folder part by part from the root on: none can have become a link since its path was allowed."""
    here = os.open(folder.anchor, _WAY)
    try:
        for part in (*folder.parts[1:], *parts):
            inner = os.open(part, _WAY, dir_fd=here)
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


def copy_file(folder: Path, relative: str, target: BinaryIO, max_bytes: int) -> None:
    """Copy a file below a folder whose path was allowed; no part of the way may have become a link meanwhile.

    Raises:
        SourceFailed: it is gone (`source_not_found`), is no plain file, or is too large.
        SourceUnavailable: it cannot be read now, or not be kept.
    """
    *parts, name = relative.split("/")
    if not {"", ".", ".."}.isdisjoint([*parts, name]):
        raise SourceFailed(f"{relative!r} is no path below the folder.", code="source_address_refused")
    with ExitStack() as opened:
        with _named(relative):
            here = opened.enter_context(_opened(folder, parts))
            file = opened.enter_context(os.fdopen(os.open(name, _FILE, dir_fd=here), "rb"))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise SourceFailed(f"{relative!r} is no file.", code="source_wrong_type")
        _copy(file, relative, target, max_bytes)


def _copy(file: BinaryIO, relative: str, target: BinaryIO, max_bytes: int) -> None:
    size = 0
    while block := _block(file, relative):
        size += len(block)
        if size > max_bytes:
            raise too_large(repr(relative), max_bytes)
        try:
            target.write(block)
        except OSError as error:
            raise SourceUnavailable(
                f"The worker has no room for {relative!r}: {error.strerror}.", code="source_error"
            ) from error


def _block(file: BinaryIO, relative: str) -> bytes:
    with _named(relative):
        return file.read(_BLOCK)


@contextmanager
def _named(relative: str) -> Iterator[None]:
    """Tell a file that is gone from one that cannot be read now: what is gone is deleted, in time."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceFailed(f"{relative!r} is not there.", code="source_not_found") from error
    except PermissionError as error:
        raise SourceFailed(f"{relative!r} may not be read.", code="source_forbidden") from error
    except OSError as error:
        raise SourceUnavailable(f"{relative!r} cannot be read: {error.strerror}.", code="source_error") from error
