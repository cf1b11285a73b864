"""The catalog of a tenant's index in Postgres, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from shards.calibration import Calibration
from shards.catalog import CellChange, Header, MicroRows, Place, Recipe
from shards.index_models import CellChangeRow, ChunkCell, IndexGeneration, MicroCell
from shards.names import Space, Tier
from tenants.db import Database
from tenants.one_trip import Statement

_ADD = text(
    "INSERT INTO chunk_cells (tenant_id, generation, version_no, chunk_id, micro)"
    " SELECT :tenant, :generation, * FROM unnest(CAST(:versions AS bigint[]), CAST(:chunks AS uuid[]),"
    " CAST(:micros AS integer[])) ON CONFLICT DO NOTHING RETURNING chunk_id"
)
_ADD_MICROS = text(
    "INSERT INTO micro_cells (tenant_id, generation, micro, cell, rows, stamp, sum_vector, centroid)"
    " SELECT :tenant, :generation, f.micro, f.cell, f.rows, :stamp, f.sums, f.centroid FROM unnest("
    " CAST(:micros AS integer[]), CAST(:cells AS integer[]), CAST(:rows AS bigint[]), CAST(:sums AS bytea[]),"
    " CAST(:centroids AS bytea[])) AS f (micro, cell, rows, sums, centroid)"
)
_COUNT = text(
    "UPDATE micro_cells m SET rows = f.rows, sum_vector = f.sums, stamp = :stamp FROM unnest("
    " CAST(:micros AS integer[]), CAST(:rows AS bigint[]), CAST(:sums AS bytea[])) AS f (micro, rows, sums)"
    " WHERE m.tenant_id = :tenant AND m.generation = :generation AND m.micro = f.micro"
)
_MOVE = text(
    "UPDATE chunk_cells c SET micro = f.micro FROM unnest(CAST(:versions AS bigint[]), CAST(:chunks AS uuid[]),"
    " CAST(:micros AS integer[])) AS f (version_no, chunk_id, micro) WHERE c.tenant_id = :tenant"
    " AND c.generation = :generation AND c.version_no = f.version_no AND c.chunk_id = f.chunk_id"
)
_EMPTY = text(
    "UPDATE micro_cells SET rows = 0, cell = -1, stamp = :stamp,"
    " sum_vector = decode(repeat('00', length(sum_vector)), 'hex')"
    " WHERE tenant_id = :tenant AND generation = :generation AND micro = ANY(CAST(:micros AS integer[]))"
)
_HEADER = (
    IndexGeneration.generation,
    IndexGeneration.state,
    IndexGeneration.dim,
    IndexGeneration.tier,
    IndexGeneration.bucket,
    IndexGeneration.endpoint,
    IndexGeneration.micros,
    IndexGeneration.cells,
    IndexGeneration.stamp,
    IndexGeneration.dimension,
    IndexGeneration.calibration,
    IndexGeneration.trained_rows,
    IndexGeneration.trained_residual,
    IndexGeneration.edition,
    IndexGeneration.embedder,
    IndexGeneration.chunk_tokens,
    IndexGeneration.mark,
)
_LIVE = Statement(
    select(*_HEADER).where(IndexGeneration.tenant_id == bindparam("tenant_id"), IndexGeneration.state == "live")
)
_SERIALISE = text("SELECT pg_advisory_xact_lock(hashtextextended(:collection, 9))")
_AT_ONCE = 2000


async def live_header(database: Database, tenant_id: UUID) -> Header | None:
    """Return the generation that queries read, as `Catalog.live` does, for whoever reads nothing else."""
    rows = await database.read(tenant_id, _LIVE)
    return _header(tenant_id, *rows[0]) if rows else None


class PostgresCatalog:
    """`Catalog` of one tenant in one session."""

    def __init__(self, session: AsyncSession, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self._session = session

    async def live(self) -> Header | None:
        """See `Catalog.live`."""
        found = await self.generations("live")
        return found[0] if found else None

    async def generations(self, *states: str, before: timedelta | None = None) -> list[Header]:
        """See `Catalog.generations`."""
        table = IndexGeneration
        query = select(*_HEADER).where(table.tenant_id == self.tenant_id, table.state.in_(states))
        if before is not None:
            query = query.where(table.retired_at <= func.now() - before)
        rows = await self._session.execute(query.order_by(table.generation))
        return [_header(self.tenant_id, *row) for row in rows]

    async def last_number(self) -> int:
        """See `Catalog.last_number`."""
        known = select(func.max(IndexGeneration.generation)).where(IndexGeneration.tenant_id == self.tenant_id)
        # What a generation whose row is lost has left must not be taken for the next one's.
        left = select(func.max(MicroCell.generation)).where(MicroCell.tenant_id == self.tenant_id)
        query = select(func.greatest(known.scalar_subquery(), left.scalar_subquery()))
        return int(await self._session.scalar(query) or 0)

    async def last_edition(self) -> int:
        """See `Catalog.last_edition`."""
        query = select(func.max(IndexGeneration.edition)).where(IndexGeneration.tenant_id == self.tenant_id)
        return int(await self._session.scalar(query) or 0)

    async def plan(self, space: Space, *, state: str, recipe: Recipe, edition: int, cells: int = 1) -> None:
        """See `Catalog.plan`."""
        self._session.add(
            IndexGeneration(
                tenant_id=self.tenant_id,
                generation=space.generation,
                state=state,
                collection=space.collection,
                tier=space.tier,
                bucket=space.bucket,
                endpoint=space.endpoint,
                edition=edition,
                embedder=recipe.model,
                chunk_tokens=recipe.chunk_tokens,
                dim=space.dim,
                rows=0,
                cells=cells,
                micros=1,
                next_cell=1,
                stamp=0,
                trained_rows=0,
            )
        )
        await self._session.flush()

    async def serialise(self, space: Space) -> None:
        """See `Catalog.serialise`."""
        if space.pooled:
            await self._session.execute(_SERIALISE, {"collection": space.collection})

    async def micro_rows(
        self, generation: int, *, after: int = -1, first: int = 0, centroids: bool = False
    ) -> MicroRows:
        """See `Catalog.micro_rows`."""
        table = MicroCell
        columns = [table.micro, table.cell, table.rows, table.sum_vector, *([table.centroid] if centroids else [])]
        query = select(*columns).where(*self._of(table, generation), table.stamp > after, table.micro >= first)
        rows = (await self._session.execute(query.order_by(table.micro))).all()
        return MicroRows(
            np.array([row.micro for row in rows], dtype=np.int64),
            np.array([row.cell for row in rows], dtype=np.int64),
            np.array([row.rows for row in rows], dtype=np.int64),
            _matrix([row.sum_vector for row in rows]),
            _matrix([row.centroid for row in rows]) if centroids else None,
        )

    async def add_micros(self, generation: int, micros: MicroRows) -> None:
        """See `Catalog.add_micros`."""
        assert micros.centroids is not None
        stamp = await self._next_stamp(generation)
        for start in range(0, len(micros.micro), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            values = {
                "micros": micros.micro[some].tolist(),
                "cells": micros.cell[some].tolist(),
                "rows": micros.rows[some].tolist(),
                "sums": _blobs(micros.sums[some]),
                "centroids": _blobs(micros.centroids[some]),
            }
            await self._session.execute(_ADD_MICROS, {**self._key(generation), "stamp": stamp, **values})

    async def add(self, generation: int, places: Sequence[Place]) -> set[UUID]:
        """See `Catalog.add`."""
        fresh: set[UUID] = set()
        for start in range(0, len(places), 10 * _AT_ONCE):
            some = places[start : start + 10 * _AT_ONCE]
            values = {
                "versions": [place.version_no for place in some],
                "chunks": [place.chunk_id for place in some],
                "micros": [place.micro for place in some],
            }
            fresh.update(await self._session.scalars(_ADD, {**self._key(generation), **values}))
        return fresh

    async def places(
        self, generation: int, *, versions: Sequence[int] | None = None, micros: Sequence[int] | None = None
    ) -> list[Place]:
        """See `Catalog.places`."""
        table = ChunkCell
        query = select(table.chunk_id, table.version_no, table.micro).where(*self._of(table, generation))
        if versions is not None:
            query = query.where(table.version_no.in_(versions))
        if micros is not None:
            query = query.where(table.micro.in_(micros))
        return [Place(*row) for row in await self._session.execute(query)]

    async def move(self, generation: int, places: Sequence[Place]) -> None:
        """See `Catalog.move`."""
        values = {
            "versions": [place.version_no for place in places],
            "chunks": [place.chunk_id for place in places],
            "micros": [place.micro for place in places],
        }
        await self._session.execute(_MOVE, {**self._key(generation), **values})

    async def remove(self, generation: int, versions: Sequence[int]) -> list[Place]:
        """See `Catalog.remove`."""
        table = ChunkCell
        gone = delete(table).where(*self._of(table, generation), table.version_no.in_(versions))
        rows = await self._session.execute(gone.returning(table.chunk_id, table.version_no, table.micro))
        return [Place(*row) for row in rows]

    async def empty_micros(self, generation: int, micros: Sequence[int]) -> None:
        """See `Catalog.empty_micros`."""
        stamp = await self._next_stamp(generation)
        await self._session.execute(_EMPTY, {**self._key(generation), "stamp": stamp, "micros": list(micros)})

    async def plan_change(self, generation: int, kind: str, parents: Sequence[int], children: int) -> CellChange:
        """See `Catalog.plan_change`."""
        table = IndexGeneration
        raised = update(table).where(*self._of(table, generation)).values(next_cell=table.next_cell + children)
        end = int((await self._session.execute(raised.returning(table.next_cell))).scalar_one())
        numbers = range(end - children, end)
        change = CellChange(uuid7(), generation, kind, "copying", tuple(parents), tuple(numbers))
        row = {"parents": list(change.parents), "children": list(change.children), "id": change.id}
        self._session.add(
            CellChangeRow(**row, tenant_id=self.tenant_id, generation=generation, kind=kind, state="copying")
        )
        await self._session.flush()
        return change

    async def changes(self, generation: int, *states: str, before: timedelta | None = None) -> list[CellChange]:
        """See `Catalog.changes`."""
        table = CellChangeRow
        query = select(table).where(*self._of(table, generation), table.state.in_(states)).order_by(table.id)
        if before is not None:
            query = query.where(table.changed_at <= func.now() - before)
        return [
            CellChange(row.id, generation, row.kind, row.state, tuple(row.parents), tuple(row.children))
            for row in await self._session.scalars(query)
        ]

    async def set_change(self, change: CellChange, state: str) -> None:
        """See `Catalog.set_change`."""
        table = CellChangeRow
        changed = update(table).where(*self._of(table, change.generation), table.id == change.id)
        await self._session.execute(changed.values(state=state, changed_at=func.now()))

    async def count(self, generation: int, changes: Mapping[int, tuple[int, NDArray[np.float32]]]) -> None:
        """See `Catalog.count`."""
        table = MicroCell
        query = select(table.micro, table.rows, table.sum_vector).where(
            *self._of(table, generation), table.micro.in_(list(changes))
        )
        micros, rows, sums = [], [], []
        for row in await self._session.execute(query):
            more, vector = changes[row.micro]
            micros.append(row.micro)
            rows.append(row.rows + more)
            sums.append(_plus(row.sum_vector, vector))
        stamp = await self._next_stamp(generation, more=sum(more for more, _ in changes.values()))
        values = {"micros": micros, "rows": rows, "sums": sums, "stamp": stamp}
        await self._session.execute(_COUNT, {**self._key(generation), **values})

    async def set(self, generation: int, **values: Any) -> None:
        """See `Catalog.set`."""
        if isinstance(values.get("calibration"), Calibration):
            values["calibration"] = values["calibration"].to_json()
        await self._session.execute(
            update(IndexGeneration).where(*self._of(IndexGeneration, generation)).values(values)
        )

    async def retire(self, *states: str) -> None:
        """See `Catalog.retire`."""
        table = IndexGeneration
        mine = (table.tenant_id == self.tenant_id, table.state.in_(states))
        await self._session.execute(update(table).where(*mine).values(state="retired", retired_at=datetime.now(UTC)))

    async def forget(self, generations: Iterable[int]) -> None:
        """See `Catalog.forget`."""
        numbers = list(generations)
        for table in (ChunkCell, MicroCell, CellChangeRow):
            mine = (table.tenant_id == self.tenant_id, table.generation.in_(numbers))
            await self._session.execute(delete(table).where(*mine))
        known, last = IndexGeneration, await self.last_number()
        gone = (known.tenant_id == self.tenant_id, or_(known.generation.in_(numbers), known.state == "gone"))
        await self._session.execute(delete(known).where(*gone, known.generation < last))
        await self._session.execute(update(known).where(*gone, known.generation == last).values(state="gone"))

    async def _next_stamp(self, generation: int, *, more: int = 0) -> int:
        table = IndexGeneration
        raised = update(table).where(*self._of(table, generation))
        raised = raised.values(stamp=table.stamp + 1, rows=table.rows + more)
        return int((await self._session.execute(raised.returning(table.stamp))).scalar_one())

    def _key(self, generation: int) -> dict[str, Any]:
        return {"tenant": self.tenant_id, "generation": generation}

    def _of(self, table: Any, generation: int) -> tuple[Any, ...]:
        return (table.tenant_id == self.tenant_id, table.generation == generation)


def _matrix(blobs: Sequence[bytes]) -> NDArray[np.float32]:
    if not blobs:
        return np.empty((0, 0), dtype=np.float32)
    return np.frombuffer(b"".join(blobs), dtype=np.float32).reshape(len(blobs), -1)


def _blobs(rows: NDArray[np.float32]) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(rows, dtype=np.float32)]


def _plus(blob: bytes, vector: NDArray[np.float32]) -> bytes:
    summed: NDArray[np.float32] = np.frombuffer(blob, dtype=np.float32) + vector
    return summed.tobytes()


def _header(
    tenant_id: UUID,
    number: int,
    state: str,
    dim: int,
    tier: Tier,
    bucket: int,
    endpoint: str,
    micros: int,
    cells: int,
    stamp: int,
    dimension: float | None,
    calibration: dict[str, Any] | None,
    trained_rows: int,
    trained_residual: float | None,
    edition: int,
    embedder: str,
    chunk_tokens: int | None,
    mark: int,
) -> Header:
    """Return what a row of `_HEADER` says."""
    return Header(
        number=number,
        state=state,
        space=Space(tenant_id, number, dim, tier, bucket, endpoint),
        micros=micros,
        cells=cells,
        stamp=stamp,
        dimension=dimension,
        calibration=None if calibration is None else Calibration.from_json(calibration),
        trained_rows=trained_rows,
        trained_residual=trained_residual,
        edition=edition,
        recipe=Recipe(embedder, chunk_tokens),
        mark=mark,
    )
