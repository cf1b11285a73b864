"""Object storage: originals, under names made by the server, on a local folder, S3, Google or Azure alike.

An object is there as a whole or not at all: a large one goes in parts that the store joins at the end, and what breaks
off is never seen. Nothing is held in memory but a few parts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID, uuid4

import obstore
from obstore.exceptions import PreconditionError

from ingestion.object_stores import (
    Failure,
    first_line,
    folder_of,
    is_elsewhere,
    is_full,
    is_missing,
    is_object_missing,
    is_refused,
    lacks_folder,
    lacks_keys,
    open_store,
)
from tenants.errors import Misconfigured, NoRoom, NotFound, TesseraError, Unavailable
from tenants.settings import ObjectSettings
from tenants.urls import without_secrets

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta


_TENANTS = "tenants/"
_PROBES = "probes/"
_DELETED_AT_ONCE = 1000
"""What S3 takes in one request."""
_LOOKS_AT_ONCE = 16
_PART_BYTES = 5 * 1024 * 1024
"""The least that S3 takes."""
_PARTS_AT_ONCE = 3


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
    """Puts, reads and deletes objects.

    Every call may raise `Unavailable`: `objects_unavailable` when the store does not answer, `objects_refused` when it
    refuses the service, until its operator mends that.
    """

    def __init__(self, settings: ObjectSettings) -> None:
        self._url = without_secrets(settings.url)
        self._store = open_store(settings)

    async def put(self, key: str, content: BinaryIO) -> None:
        """Store a whole object; it is complete when this returns, and absent when this raises.

        Raises:
            NoRoom: the store is full (`objects_full`).
        """
        try:
            await obstore.put_async(self._store, key, content, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        except Failure as error:
            raise _refused() if is_object_missing(error) else _failed(error) from error

    async def get(self, key: str) -> bytes:
        """Return a whole object; raise `NotFound` when it is missing."""
        return b"".join([block async for block in await self.open(key)])

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """Return the blocks of an object; raise `NotFound` now, not at the first block, when it is missing.

        A large one is asked for range by range, so that no request lasts as long as its reader takes.
        """
        try:
            result = await obstore.get_async(self._store, key)
        except Failure as error:
            raise _failed(error) from error
        return self._blocks(key, result)

    async def _blocks(self, key: str, result: GetResult) -> AsyncIterator[bytes]:
        size, e_tag = result.meta["size"], result.meta["e_tag"]
        try:
            if size <= _PART_BYTES:
                yield bytes(await result.bytes_async())
                return
            del result  # closes its answer
            for start in range(0, size, _PART_BYTES):
                wanted: GetOptions = {"range": (start, min(start + _PART_BYTES, size)), "if_match": e_tag}
                part = await obstore.get_async(self._store, key, options=wanted)
                yield bytes(await part.bytes_async())
        except PreconditionError as error:
            raise Unavailable("The original was replaced while it was read.", code="objects_unavailable") from error
        except Failure as error:
            raise _failed(error) from error

    async def delete(self, keys: list[str]) -> int:
        """Delete objects; return how many existed.

        Raises:
            Unavailable: also when none can be said to be gone, because their whole bucket is.
        """
        existing: list[str] = []
        for start in range(0, len(keys), _LOOKS_AT_ONCE):
            some = keys[start : start + _LOOKS_AT_ONCE]
            found = await asyncio.gather(*(self.head(key) for key in some))
            existing += [key for key, stored in zip(some, found, strict=True) if stored is not None]
        if len(existing) < len(keys):
            await self._require_bucket()
        await self._delete(existing)
        return len(existing)

    async def delete_tenant(self, tenant_id: UUID) -> int:
        """Delete every object of a tenant; return how many there were."""
        keys = await self.list_tenant(tenant_id)
        await self._delete(keys)
        return len(keys)

    async def _require_bucket(self) -> None:
        """Raise `Unavailable` when the bucket or folder is not there: asked for one object, stores do not tell that
        from an object that is gone. A listing of nothing does."""
        await self._require_folder()
        try:
            await obstore.list_with_delimiter_async(self._store, prefix=f"{_PROBES}{uuid4()}")
        except Failure as error:
            raise _failed(error) from error

    async def _require_folder(self) -> None:
        """Raise `Unavailable` when a local store's folder is not there, in which nothing would be found."""
        if await asyncio.to_thread(lacks_folder, self._store):
            raise _refused()

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
        except Failure as error:
            if is_object_missing(error):
                return False
            raise _failed(error) from error
        return True

    async def head(self, key: str) -> Stored | None:
        """Return what is known of an object, None when there is none."""
        try:
            return _stored(await obstore.head_async(self._store, key))
        except Failure as error:
            if is_object_missing(error):
                return None
            raise _failed(error) from error

    async def listing(self, tenant_id: UUID) -> AsyncIterator[list[Stored]]:
        """Stream every object of a tenant, a page at a time. Raises Unavailable also when the whole bucket is gone."""
        await self._require_folder()
        try:
            async for page in obstore.list(self._store, prefix=f"{_TENANTS}{tenant_id}/"):
                yield [_stored(meta) for meta in page]
        except Failure as error:
            raise _failed(error) from error

    async def tenants(self) -> list[str]:
        """Return the names under which tenants have objects: their ids, and whatever else lies there. Raises as
        `listing` does."""
        await self._require_folder()
        try:
            found = await obstore.list_with_delimiter_async(self._store, prefix=_TENANTS)
        except Failure as error:
            raise _failed(error) from error
        names = [str(prefix) for prefix in found["common_prefixes"]]
        return sorted(name.removeprefix(_TENANTS).strip("/") for name in names)

    async def list_tenant(self, tenant_id: UUID) -> list[str]:
        """Return the keys of every object of a tenant."""
        return [stored.key async for page in self.listing(tenant_id) for stored in page]

    async def check(self) -> None:
        """List, put, read and delete, as the service will.

        Raises:
            Misconfigured: the bucket is missing or in another region, there are no keys, or the service may not do one
                of these; names the setting.
            Unavailable: the store does not answer, or is full.
        """
        key, content = f"{_PROBES}{uuid4()}", b"A probe of Tessera; it may be deleted."
        doing = "listed"
        try:
            await obstore.list_with_delimiter_async(self._store, prefix=_TENANTS)
            doing = "written to"
            await obstore.put_async(self._store, key, content)
            doing = "read"
            await (await obstore.get_async(self._store, key)).bytes_async()
            doing = "deleted from"
            await obstore.delete_async(self._store, [key])
        except Failure as error:
            with suppress(*Failure):
                await obstore.delete_async(self._store, [key])
            raise self._verdict(error, doing) from error

    def _verdict(self, error: Exception, doing: str) -> TesseraError:
        folder = folder_of(self._store)
        if is_full(error):
            return Unavailable(f"The object store {self._url!r} is full: make room.", code="objects_full")
        if folder is not None:
            return _folder_verdict(folder, error, doing)
        if lacks_keys(error):
            return Misconfigured(
                f"TESSERA_OBJECTS_ACCESS_KEY_ID and _SECRET_ACCESS_KEY hold no key for the object store {self._url!r},"
                f" and this machine has no role that gives one ({first_line(error)}): set them, or give it a role."
            )
        if is_elsewhere(error):
            return Misconfigured(
                f"TESSERA_OBJECTS_REGION is not the region of {self._url!r} ({first_line(error)}): correct it, or"
                " TESSERA_OBJECTS_ENDPOINT."
            )
        if is_missing(error):
            detail = f"TESSERA_OBJECTS_URL names {self._url!r}, and there is no such bucket"
            return Misconfigured(f"{detail}: create it, or correct the URL, TESSERA_OBJECTS_ENDPOINT or _REGION.")
        if is_refused(error):
            detail = f"The object store {self._url!r} may not be {doing} with these credentials"
            return Misconfigured(
                f"{detail}: correct TESSERA_OBJECTS_ACCESS_KEY_ID and _SECRET_ACCESS_KEY, or grant them the right."
            )
        return Unavailable(
            f"The object store {self._url!r} does not answer ({type(error).__name__}): start it, or correct"
            " TESSERA_OBJECTS_URL and TESSERA_OBJECTS_ENDPOINT.",
            code="objects_unavailable",
        )


def _folder_verdict(folder: Path, error: Exception, doing: str) -> TesseraError:
    detail = f"TESSERA_OBJECTS_URL: the folder {folder} cannot be {doing} ({first_line(error)})"
    if is_refused(error):
        mend = f"give it to the user of the service (uid {os.geteuid()}), on a mount that can be written to"
        return Misconfigured(f"{detail}: {mend}.")
    return Unavailable(f"{detail}: mend its disk or mount.", code="objects_unavailable")


def _stored(meta: ObjectMeta) -> Stored:
    return Stored(meta["path"], meta["size"], meta["last_modified"])


def _failed(error: Exception) -> TesseraError:
    if is_object_missing(error):
        return NotFound("The original of this document is missing.", code="original_missing")
    if is_full(error):
        return NoRoom("The object store is full; the operator has to make room.", code="objects_full")
    if is_refused(error) or is_missing(error):
        return _refused()
    return Unavailable(f"The object store does not answer ({type(error).__name__}).", code="objects_unavailable")


def _refused() -> Unavailable:
    return Unavailable("The object store refuses the service; the operator has to look.", code="objects_refused")
