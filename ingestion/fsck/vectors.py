"""The live generation's rows against Postgres: digests by cell first, sets of keys where those differ.

The scan holds no lock, so what it finds are candidates: uploads, deletes and the division of cells go on. Each is
looked at again, in Postgres and in the store, under the writer lock, where neither changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from ingestion.fsck.check import AT_ONCE, SWITCHES, Check, SwitchedError, pieces
from ingestion.fsck.digest import Digest
from ingestion.fsck.report import Class
from ingestion.fsck.truth import ChunkFact, Key, Truth, VersionFact
from shards.catalog import Catalog, Header
from shards.catalog_postgres import PostgresCatalog
from shards.names import Space
from shards.vectors import HeldRow, MissingCollection


@dataclass(frozen=True)
class _Found:
    """What one look under the writer lock rests on."""

    space: Space
    passed_over: set[str]
    facts: dict[UUID, ChunkFact]
    versions: dict[int, VersionFact]
    present: set[HeldRow]


async def check_vectors(check: Check) -> None:
    """Compare the rows of the live generation with the served chunks."""
    for _ in range(SWITCHES):
        async with check.runtime.database.tenant(check.tenant_id) as session:
            header = await PostgresCatalog(session, check.tenant_id).live()
        if header is None:
            return
        if header.micros == 1 and header.cells > 1:  # made before micro-cells: Postgres does not know its cells
            check.report.skip(f"generation {header.number}", "it is older than micro-cells: reindex the tenant")
            return
        with suppress(SwitchedError):
            await _check_generation(check, header)
            return
    check.report.skip("the live generation", "it was replaced again and again while it was looked at")


async def _check_generation(check: Check, header: Header) -> None:
    space, tenant_id = header.space, check.tenant_id
    async with check.runtime.database.tenant(tenant_id) as session:
        by_cell = await Truth(session, tenant_id).by_cell(header)
        passed_over = await _passed_over(PostgresCatalog(session, tenant_id), header)
    expected = {space.partition(cell): digest for cell, digest in by_cell.items()}
    cells = {space.partition(cell): cell for cell in by_cell}
    found: dict[str, Digest] = defaultdict(Digest)
    with suppress(MissingCollection):
        async for page in check.runtime.indexes.vectors.held_rows(space):
            for row in page:
                found[row.partition].add(row.chunk_id, row.version_no)
    check.report.count("vectors", sum(digest.count for digest in found.values()))
    every = sorted((expected.keys() | found.keys()) - passed_over)
    differing = [one for one in every if expected.get(one, Digest()) != found.get(one, Digest())]
    for number, partition in enumerate(differing):
        check.advance(number / len(differing))
        await _check_partition(check, header, partition, cells.get(partition))


async def _passed_over(catalog: Catalog, header: Header) -> set[str]:
    """Return the partitions whose rows are copies that nobody reads yet, or that nobody reads any more."""
    numbers = [cell for change in await catalog.changes(header.number, "copying") for cell in change.children]
    numbers += [cell for change in await catalog.changes(header.number, "flipped") for cell in change.parents]
    return {header.space.partition(cell) for cell in numbers} if not header.space.pooled else set()


async def _check_partition(check: Check, header: Header, partition: str, cell: int | None) -> None:
    """Compare one partition key by key."""
    space = header.space
    expected: set[Key] = set()
    if cell is not None:
        async with check.runtime.database.tenant(check.tenant_id) as session:
            expected = await Truth(session, check.tenant_id).in_cells(header, [cell])
    right = {(space.key(key.chunk_id, key.cell), key.version_no): key for key in expected}
    extra: list[HeldRow] = []
    with suppress(MissingCollection):
        async for page in check.runtime.indexes.vectors.held_rows(space, partitions=[partition]):
            for row in page:
                if right.pop((row.key, row.version_no), None) is None:
                    extra.append(row)
            for some in pieces(extra) if len(extra) >= AT_ONCE else ():
                await _look_again(check, header, some, [])
            extra = [] if len(extra) >= AT_ONCE else extra
    await _look_again(check, header, extra, [])
    for missing in pieces(list(right.values())):
        await _look_again(check, header, [], missing)


async def _look_again(check: Check, header: Header, extra: Sequence[HeldRow], missing: Sequence[Key]) -> None:
    """Count those candidates that differ while nobody writes; with `repair`, remove what is too many."""
    if not extra and not missing:
        return
    database, tenant_id, vectors = check.runtime.database, check.tenant_id, check.runtime.indexes.vectors
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        catalog, truth = PostgresCatalog(session, tenant_id), Truth(session, tenant_id)
        live = await catalog.live()
        if live is None or live.number != header.number:
            raise SwitchedError
        chunk_ids = [row.chunk_id for row in extra] + [key.chunk_id for key in missing]
        facts = await truth.chunks(chunk_ids, header.number)
        due = {key.chunk_id: _row_of(header.space, key.chunk_id, facts.get(key.chunk_id)) for key in missing}
        wanted = [*extra, *(row for row in due.values() if row is not None)]
        try:
            present = await vectors.still_held(header.space, wanted)
        except MissingCollection:
            present = set()
        versions = await truth.versions([row.version_no for row in extra])
        passed_over = await _passed_over(catalog, header)
        seen = _Found(header.space, passed_over, facts, versions, present)
        gone = [(row, kind) for row in extra if (kind := _class_of(row, seen)) is not None]
        for row, kind in gone:
            check.report.add("vectors", kind, str(row.chunk_id), why=f"{row.key} in {row.partition}")
        for chunk_id, held in due.items():
            if held is not None and held not in present:
                fact = facts[chunk_id]
                check.report.add("vectors", "missing", str(chunk_id), why=f"document {fact.document_id}")
                check.without_vectors.add((fact.document_id, fact.version))
        if check.repair and gone:
            await catalog.serialise(header.space)
            await vectors.delete_rows(header.space, [row for row, _ in gone])


def _row_of(space: Space, chunk_id: UUID, fact: ChunkFact | None) -> HeldRow | None:
    """Return the row that a chunk should have, None when it should have none."""
    if fact is None or not fact.served or fact.cell is None:
        return None
    return HeldRow(space.key(chunk_id, fact.cell), space.partition(fact.cell), chunk_id, fact.version_no)


def _class_of(row: HeldRow, seen: _Found) -> Class | None:
    """Say what is wrong with a row, None when nothing is."""
    if row not in seen.present or row.partition in seen.passed_over:
        return None
    fact = seen.facts.get(row.chunk_id)
    if fact is not None and fact.served and fact.version_no == row.version_no:
        # One without a place is a difference of the catalog; whatever rows it has are made again with it.
        return None if fact.cell is None or row == _row_of(seen.space, row.chunk_id, fact) else "misplaced"
    version = seen.versions.get(row.version_no)
    if version is None:
        return "orphan"
    return None if version.on_its_way else "stale"
