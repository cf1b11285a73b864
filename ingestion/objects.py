"""Object storage: originals and extracted texts, under names made by the server. The only door to obstore."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlparse
from uuid import UUID

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from tenants.errors import NoRoom, NotFound, Unavailable

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta


_TENANTS = "tenants/"
_DELETED_AT_ONCE = 1000
"""What S3 takes in one request."""


def object_key(tenant_id: UUID, document_id: UUID, version: int) -> str:
    """Return the name of a version's original; the uploader's file name is never part of it."""
    return f"{_TENANTS}{tenant_id}/{document_id}/{version}"


def parts_of(key: str) -> tuple[UUID, int] | None:
    """Return the document and version of an object's name, None when it is not one that `object_key` makes."""
    parts = key.split("/")
    try:
        found = UUID(parts[2]), int(parts[3])
        return found if len(parts) == 4 and key == object_key(UUID(parts[1]), *found) else None
    except (IndexError, ValueError):
        return None


@dataclass(frozen=True)
class Stored:
    """An object as the store lists it."""

    key: str
    size: int
    modified: datetime


class Objects:
    """Puts, reads and deletes objects. Raises `Unavailable` when the store is away."""

    def __init__(self, url: str) -> None:
        self._store: ObjectStore
        if urlparse(url).scheme == "file":
            folder = Path(urlparse(url).path)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._store = LocalStore(folder, automatic_cleanup=True)
        else:
            self._store = from_url(url)

    async def put(self, key: str, content: BinaryIO) -> None:
        """Store a whole object; it is complete when this returns, and absent when this raises.

        Raises:
            NoRoom: the store is full (`objects_full`).
            Unavailable: it does not answer.
        """
        try:
            await obstore.put_async(self._store, key, content)
        except (BaseError, OSError) as error:
            raise (_full() if _is_full(error) else _away(error)) from error

    async def get(self, key: str) -> bytes:
        """Return a whole object; raise `NotFound` when it is missing."""
        try:
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())
        except (NotFoundError, FileNotFoundError) as error:
            raise NotFound("The original of this document is missing.", code="original_missing") from error
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Return the blocks of an object; raise `NotFound` now, not at the first block, when it is missing."""
        try:
            result = await obstore.get_async(self._store, key)
        except (NotFoundError, FileNotFoundError) as error:
            raise NotFound("The original of this document is missing.", code="original_missing") from error
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return _blocks(result)

    async def delete(self, keys: list[str]) -> int:
        """Delete objects; return how many existed."""
        existing = [key for key in keys if await self.head(key) is not None]
        await self._delete(existing)
        return len(existing)

    async def delete_tenant(self, tenant_id: UUID) -> int:
        """Delete every object of a tenant; return how many there were."""
        keys = await self.list_tenant(tenant_id)
        await self._delete(keys)
        return len(keys)

    async def _delete(self, keys: list[str]) -> None:
        """Delete objects that exist, many with one request where the store can."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            some = keys[start : start + _DELETED_AT_ONCE]
            if not await self._deleted(some):  # stores stop at one that is gone meanwhile
                for key in some:
                    await self._deleted([key])

    async def _deleted(self, keys: list[str]) -> bool:
        """Delete objects; False when one of them is missing, and others may then be left."""
        try:
            await obstore.delete_async(self._store, keys)
        except (NotFoundError, FileNotFoundError):
            return False
        except (BaseError, OSError) as error:
            raise _away(error) from error
        return True

    async def head(self, key: str) -> Stored | None:
        """Return what is known of an object, None when there is none."""
        try:
            return _stored(await obstore.head_async(self._store, key))
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def listing(self, tenant_id: UUID) -> AsyncIterator[list[Stored]]:
        """Stream every object of a tenant, a page at a time."""
        try:
            async for page in obstore.list(self._store, prefix=f"{_TENANTS}{tenant_id}/"):
                yield [_stored(meta) for meta in page]
        except (BaseError, OSError) as error:
            raise _away(error) from error

    async def tenants(self) -> list[str]:
        """Return the names under which tenants have objects: their ids, and whatever else lies there."""
        try:
            found = await obstore.list_with_delimiter_async(self._store, prefix=_TENANTS)
        except (BaseError, OSError) as error:
            raise _away(error) from error
        names = [str(prefix) for prefix in found["common_prefixes"]]
        return sorted(name.removeprefix(_TENANTS).strip("/") for name in names)

    async def list_tenant(self, tenant_id: UUID) -> list[str]:
        """Return the keys of every object of a tenant."""
        try:
            pages = obstore.list(self._store, prefix=f"{_TENANTS}{tenant_id}/")
            return [meta["path"] async for page in pages for meta in page]
        except (BaseError, OSError) as error:
            raise _away(error) from error


def _stored(meta: ObjectMeta) -> Stored:
    return Stored(meta["path"], meta["size"], meta["last_modified"])


async def _blocks(result: GetResult) -> AsyncIterator[bytes]:
    async for block in result.stream(min_chunk_size=1 << 18):
        yield bytes(block)


def _is_full(error: Exception) -> bool:
    """obstore passes the operating system's number on in words alone."""
    return any(f"os error {number}" in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def _full() -> NoRoom:
    return NoRoom("The object store is full; the operator has to make room.", code="objects_full")


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"The object store does not answer ({type(error).__name__}).", code="objects_unavailable")
