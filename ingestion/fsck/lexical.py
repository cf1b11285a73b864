"""The lexical index against Postgres: digests by buckets of chunk ids first, sets of keys where those differ.

As with vectors, what a scan finds is looked at again under the writer lock before it counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.fsck.check import SWITCHES, Check, SwitchedError, pieces
from ingestion.fsck.digest import Digest, bucket_of, groups_of
from ingestion.fsck.report import Class
from ingestion.fsck.texts import texts_after, texts_of
from ingestion.fsck.truth import ChunkFact, Truth, VersionFact
from shards import names
from shards.catalog_postgres import PostgresCatalog
from shards.lexical import DamagedIndex, HeldEntry


async def check_lexical(check: Check) -> None:
    """Compare the lexical index of the tenant's live edition with the served chunks; one of an edition that no
    generation has is nobody's."""
    for _ in range(SWITCHES):
        index = await _check_editions(check)
        with suppress(SwitchedError):
            await _read(check, index)
            return
    check.report.skip("the lexical index", "the edition that is read changed again and again")


async def _read(check: Check, index: str) -> None:
    try:
        await _check_index(check, index)
    except DamagedIndex as error:
        check.report.add("lexical", "damaged", index, why=error.detail)
        if check.repair:
            async with check.runtime.database.writer_lock(check.tenant_id):
                await check.runtime.indexes.lexical.drop(index)
            await _check_index(check, index)


async def _require_live(session: AsyncSession, tenant_id: UUID, index: str) -> None:
    """Raise `SwitchedError` when queries read another index by now: it holds the chunks of another edition."""
    if names.lexical_name(tenant_id, await Truth(session, tenant_id).edition()) != index:
        raise SwitchedError


async def _check_editions(check: Check) -> str:
    """Return the name of the index that is read; look, while nobody writes, for others that are nobody's."""
    database, tenant_id, lexical = check.runtime.database, check.tenant_id, check.runtime.indexes.lexical
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        headers = await catalog.generations("live", "building", "embedding", "retired")
        read = await Truth(session, tenant_id).edition()
        editions = {header.edition for header in headers} | {read}
        known = {names.lexical_name(tenant_id, edition) for edition in editions}
        for name in await lexical.indexes(of=tenant_id):
            if name not in known:
                check.report.add("lexical", "orphan", name)
                if check.repair:
                    await lexical.drop(name)
    return names.lexical_name(tenant_id, read)


async def _check_index(check: Check, index: str) -> None:
    lexical = check.runtime.indexes.lexical
    async with check.runtime.database.tenant(check.tenant_id) as session:
        expected = await Truth(session, check.tenant_id).by_bucket()
    found: dict[int, Digest] = defaultdict(Digest)
    async for page in lexical.entries(index):
        for entry in page:
            found[bucket_of(entry.chunk_id)].add(entry.chunk_id, entry.version_no)
    check.report.count("lexical", sum(digest.count for digest in found.values()))
    every = sorted(expected.keys() | found.keys())
    differing = [one for one in every if expected.get(one, Digest()) != found.get(one, Digest())]
    sizes = {one: expected.get(one, Digest()).count + found.get(one, Digest()).count for one in differing}
    for buckets in groups_of(sizes):
        await _check_buckets(check, index, buckets)
    if check.deep:
        await _check_words(check, index)


async def _check_buckets(check: Check, index: str, buckets: Sequence[int]) -> None:
    async with check.runtime.database.tenant(check.tenant_id) as session:
        keys = await Truth(session, check.tenant_id).in_buckets(buckets)
    expected = {HeldEntry(key.chunk_id, key.version_no) for key in keys}
    held: Counter[HeldEntry] = Counter()
    wanted = frozenset(buckets)
    async for page in check.runtime.indexes.lexical.entries(index):
        held.update(entry for entry in page if bucket_of(entry.chunk_id) in wanted)
    suspects = {entry.chunk_id for entry, times in held.items() if times > 1 or entry not in expected}
    suspects |= {entry.chunk_id for entry in expected if entry not in held}
    for some in pieces(sorted(suspects)):
        await _look_again(check, index, some)


async def _look_again(check: Check, index: str, chunk_ids: Sequence[UUID]) -> None:
    """Count those candidates that differ while nobody writes; with `repair`, remove what is too many."""
    database, tenant_id, lexical = check.runtime.database, check.tenant_id, check.runtime.indexes.lexical
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        await _require_live(session, tenant_id, index)
        truth = Truth(session, tenant_id)
        facts = await truth.chunks(chunk_ids)
        held: dict[UUID, list[HeldEntry]] = defaultdict(list)
        for entry in await lexical.held(index, chunk_ids):
            held[entry.chunk_id].append(entry)
        numbers = [entry.version_no for entries in held.values() for entry in entries]
        versions = await truth.versions(numbers)
        gone: list[UUID] = []
        for chunk_id in chunk_ids:
            kind, surplus = _class_of(held[chunk_id], facts.get(chunk_id), versions)
            if kind is None:
                continue
            check.report.add("lexical", kind, str(chunk_id))
            gone += [chunk_id] if surplus else []
            fact = facts.get(chunk_id)
            if fact is not None and fact.served:
                check.without_words.add((fact.document_id, fact.version))
        if check.repair and gone:
            await lexical.delete_chunks(index, gone)


def _class_of(
    held: Sequence[HeldEntry], fact: ChunkFact | None, versions: Mapping[int, VersionFact]
) -> tuple[Class | None, bool]:
    """Say what is wrong with a chunk's entries, and whether there are some to be removed."""
    if fact is not None and fact.served:
        right = [entry for entry in held if entry.version_no == fact.version_no]
        if not right:
            return "missing", bool(held)
        return (None, False) if len(held) == 1 else ("misplaced", True)
    if not held:
        return None, False
    known = [versions.get(entry.version_no) for entry in held]
    if any(version is not None and version.on_its_way for version in known):
        return None, False
    return ("orphan", True) if all(version is None for version in known) else ("stale", True)


async def _check_words(check: Check, index: str) -> None:
    """Ask the index whether each entry holds the words of its chunk."""
    last = UUID(int=0)
    while True:
        async with check.runtime.database.tenant(check.tenant_id) as session:
            texts = await texts_after(session, check.tenant_id, last)
        if not texts:
            return
        last = texts[-1].row.chunk_id
        lacking = await check.runtime.indexes.lexical.lacking(index, [text.row for text in texts])
        if lacking:
            await _words_again(check, index, sorted(lacking))


async def _words_again(check: Check, index: str, chunk_ids: Sequence[UUID]) -> None:
    database, tenant_id, lexical = check.runtime.database, check.tenant_id, check.runtime.indexes.lexical
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        await _require_live(session, tenant_id, index)
        texts = {text.row.chunk_id: text for text in await texts_of(session, tenant_id, chunk_ids)}
        # One without an entry is counted as missing.
        there = {entry.chunk_id for entry in await lexical.held(index, list(texts))}
        for chunk_id in await lexical.lacking(index, [texts[one].row for one in there]):
            text = texts[chunk_id]
            check.report.add("lexical", "text", str(chunk_id), why=f"document {text.document_id}")
            check.without_words.add((text.document_id, text.version))
