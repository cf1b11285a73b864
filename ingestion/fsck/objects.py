"""Originals in the object store against the versions that Postgres knows; with `deep`, their content too."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.fsck.check import Check
from ingestion.fsck.digest import Digest, bucket_column, bucket_of, columns, digest_of, groups_of
from ingestion.fsck.truth import ON_ITS_WAY
from ingestion.objects import Stored, object_key, parts_of
from tenants.errors import NotFound

_NUMBER = "v.size_bytes + (CAST(v.version AS bigint) << 40)"
_BUCKET = bucket_column("v.document_id")
_MINE = "FROM document_versions v WHERE v.tenant_id = :tenant"
_BY_BUCKET = text(f"SELECT {_BUCKET} AS bucket, {columns('v.document_id', _NUMBER)} {_MINE} GROUP BY 1")
_IN_BUCKETS = text(
    f"SELECT v.document_id, v.version, v.size_bytes {_MINE} AND {_BUCKET} = ANY(CAST(:buckets AS integer[]))"
)
_NOW = text(
    f"SELECT v.size_bytes, {ON_ITS_WAY.format('v', 'document_id')} AS on_its_way {_MINE}"
    " AND v.document_id = :document AND v.version = :version"
)
_LOCK = text("SELECT 1 FROM documents WHERE tenant_id = :tenant AND id = :document FOR UPDATE")
_ALL = text(
    f"SELECT v.document_id, v.version, v.content_sha256 {_MINE}"
    " AND (v.document_id, v.version) > (:document, :version) ORDER BY 1, 2 LIMIT 500"
)
Version = tuple[UUID, int]


async def check_objects(check: Check) -> None:
    """Compare the tenant's originals with its versions."""
    async with check.runtime.database.tenant(check.tenant_id) as session:
        rows = await session.execute(_BY_BUCKET, {"tenant": check.tenant_id})
        expected = {row.bucket: digest_of(row.keys, row.xor_keys, row.weight) for row in rows}
    found: dict[int, Digest] = defaultdict(Digest)
    strange: list[Stored] = []
    async for page in check.runtime.objects.listing(check.tenant_id):
        check.report.count("objects", len(page))
        for stored in page:
            parts = parts_of(stored.key)
            if parts is None:
                strange.append(stored)
            else:
                found[bucket_of(parts[0])].add(parts[0], stored.size + (parts[1] << 40))
    for stored in strange:
        await _surplus(check, stored)
    every = sorted(expected.keys() | found.keys())
    differing = [one for one in every if expected.get(one, Digest()) != found.get(one, Digest())]
    sizes = {one: expected.get(one, Digest()).count + found[one].count for one in differing}
    for buckets in groups_of(sizes):
        await _check_buckets(check, buckets)
    if check.deep:
        await _check_contents(check)


async def _check_buckets(check: Check, buckets: Sequence[int]) -> None:
    async with check.runtime.database.tenant(check.tenant_id) as session:
        values = {"tenant": check.tenant_id, "buckets": list(buckets)}
        rows = (await session.execute(_IN_BUCKETS, values)).all()
    expected: dict[Version, int] = {(row.document_id, row.version): row.size_bytes for row in rows}
    async for page in check.runtime.objects.listing(check.tenant_id):
        for stored in page:
            parts = parts_of(stored.key)
            if parts is None or bucket_of(parts[0]) not in buckets:
                continue
            size = expected.pop(parts, None)
            if size is None:
                await _surplus(check, stored)
            elif size != stored.size:
                await _damaged(check, parts, f"{stored.size} bytes instead of {size}")
    for version in expected:
        await _missing(check, version)


async def _surplus(check: Check, stored: Stored) -> None:
    """Look again at an object of no version. One that is young may be of an upload that has not committed yet."""
    young = datetime.now(UTC) - stored.modified < timedelta(seconds=check.runtime.settings.fsck_object_age_s)
    if young:
        check.report.count("young_objects")
        return
    parts = parts_of(stored.key)
    async with check.runtime.database.tenant(check.tenant_id) as session:
        if parts is not None:
            # An upload of this document's next version holds this lock until it has committed.
            await session.execute(_LOCK, {"tenant": check.tenant_id, "document": parts[0]})
            if await _now(session, check.tenant_id, parts) is not None:
                return
        if await check.runtime.objects.head(stored.key) != stored:
            return
        check.report.add("objects", "orphan", stored.key)
        if check.repair:
            await check.runtime.objects.delete([stored.key])


async def _missing(check: Check, version: Version) -> None:
    async with check.runtime.database.tenant(check.tenant_id) as session:
        now = await _now(session, check.tenant_id, version)
        if now is None or now.on_its_way:
            return
        key = object_key(check.tenant_id, *version)
        if await check.runtime.objects.head(key) is None:
            check.report.add("objects", "missing", key, why="cannot be mended: upload the document again")
            check.originals[version] = "missing"


async def _damaged(check: Check, version: Version, why: str) -> None:
    async with check.runtime.database.tenant(check.tenant_id) as session:
        now = await _now(session, check.tenant_id, version)
        if now is not None and not now.on_its_way:
            key = object_key(check.tenant_id, *version)
            check.report.add("objects", "checksum", key, why=f"{why}; cannot be mended: upload the document again")
            check.originals[version] = "damaged"


async def _now(session: AsyncSession, tenant_id: UUID, version: Version) -> Any:
    values = {"tenant": tenant_id, "document": version[0], "version": version[1]}
    return (await session.execute(_NOW, values)).first()


async def _check_contents(check: Check) -> None:
    """Read every original and compare its SHA-256 with that of the upload."""
    last: Version = (UUID(int=0), 0)
    while True:
        async with check.runtime.database.tenant(check.tenant_id) as session:
            values = {"tenant": check.tenant_id, "document": last[0], "version": last[1]}
            rows = (await session.execute(_ALL, values)).all()
        if not rows:
            return
        for row in rows:
            last = (row.document_id, row.version)
            check.report.count("originals_read")
            digest = await _sha256(check, last)
            if digest is not None and digest != bytes(row.content_sha256) and last not in check.originals:
                await _damaged(check, last, "its SHA-256 is another")


async def _sha256(check: Check, version: Version) -> bytes | None:
    digest = hashlib.sha256()
    try:
        async for block in await check.runtime.objects.open(object_key(check.tenant_id, *version)):
            digest.update(block)
    except NotFound:  # counted as missing, unless it was purged a moment ago
        return None
    return digest.digest()
