"""How a tenant's index stands: its cells, their heat, the recall promised and measured, changes under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shards.catalog import Header
from shards.catalog_postgres import PostgresCatalog
from shards.cell_map import positions, recall_by_cell
from shards.generation import Generation
from shards.index import TenantIndexes
from shards.index_models import CellChangeRow
from shards.names import Tier
from shards.placement import CHANGED, SCATTERED, made_anew, scatter
from shards.recalibration import last_samples, running_recall, true_cells_of, vectors_of
from shards.usage import HALF_LIFE_S
from shards.usage_models import CellHeat, IndexUse, ProbeSample

_LAST_CHANGES = 20
_USE = ("searches", "used_at", "released_at", "woke_ms")
_MAPPED = 200
"""Samples that recall by cell is worked out from."""


class CellOut(BaseModel):
    """One cell. `heat` counts visits, halved every hour."""

    cell: int
    micro_cells: int
    rows: int
    heat: float
    x: float = 0.0
    y: float = 0.0
    """Place on a plane on which cells of like content are near."""
    recall: float | None = None
    """Share of the true best rows in it that the sampled questions would find; None where none had one here."""


class CurveOut(BaseModel):
    """Recall and share of rows visited over falling thresholds."""

    threshold: list[float]
    recall: list[float]
    rows_share: list[float]


class CalibrationOut(BaseModel):
    """What the threshold rests on, and what it promises at the tenant's target."""

    source: str
    questions: int
    target: float
    threshold: float
    recall: float
    rows_share: float
    curve: CurveOut


class RecallOut(BaseModel):
    """Recall@10 of the last sampled questions, with its 95% confidence interval."""

    samples: int
    recall: float
    low: float
    high: float
    rows_share: float


class DriftOut(BaseModel):
    """How far the cells have moved from what they were trained on. Past `retrain_at` they are trained anew."""

    scatter: float | None
    """How far rows lie from the mean of their micro-cell, in multiples of that after the training."""
    made_anew: float
    """Micro-cells that were divided or joined since, as a share of those there are."""
    retrain_at: tuple[float, float] = (SCATTERED, CHANGED)


class ChangeOut(BaseModel):
    """Cells that became others."""

    kind: str
    state: str
    parents: list[int]
    children: list[int]
    changed_at: datetime


class NextOut(BaseModel):
    """The tenant's chunks by another recipe, on their way."""

    generation: int
    embedding_model: str
    chunk_tokens: int | None


class ShardsOut(BaseModel):
    """The index of one tenant. Without a document it has no generation."""

    tenant_id: UUID
    generation: int | None
    tier: Tier | None = None
    collection: str | None = None
    """Where it lies: the collection, for isolated tenants with its server and database, in the pool with its bucket."""
    embedding_model: str | None = None
    chunk_tokens: int | None = None
    """Upper bound of a chunk; None follows the installation's setting."""
    next: NextOut | None = None
    """The edition that it is being moved to."""
    rows: int = 0
    cells: list[CellOut] = []
    trained_rows: int = 0
    calibration: CalibrationOut | None = None
    recall: RecallOut | None = None
    drift: DriftOut | None = None
    changes: list[ChangeOut] = []
    searches: int = 0
    used_at: datetime | None = None
    released_at: datetime | None = None
    """Since when the engine holds it in memory no more; it is loaded by the next question."""
    woke_ms: float | None = None
    """How long it took to load when that was last needed."""


async def report(session: AsyncSession, indexes: TenantIndexes, tenant_id: UUID, target: float | None) -> ShardsOut:
    """Return how the index of a tenant stands; `target` is the recall that the tenant chose."""
    use = await session.get(IndexUse, tenant_id)
    known_use = {} if use is None else {name: getattr(use, name) for name in _USE}
    catalog = PostgresCatalog(session, tenant_id)
    live = await indexes.live(catalog)
    if live is None:
        return ShardsOut(tenant_id=tenant_id, generation=None, **known_use)
    samples = await last_samples(session, tenant_id, live.number)
    seen = running_recall(samples)
    known = _calibration(live, target or indexes.settings.recall_target)
    recalls = await _recalls(session, live, samples[:_MAPPED], known)
    return ShardsOut(
        tenant_id=tenant_id,
        generation=live.number,
        collection=str(live.space),
        tier=live.space.tier,
        embedding_model=live.header.recipe.model,
        chunk_tokens=live.header.recipe.chunk_tokens,
        next=_next(await catalog.generations("embedding")),
        rows=live.rows,
        cells=_cells(live, await heat_of(session, live), recalls),
        trained_rows=live.header.trained_rows,
        calibration=known,
        recall=None if seen is None else RecallOut(**vars(seen)),
        drift=None if live.routing is None else DriftOut(scatter=scatter(live), made_anew=made_anew(live)),
        changes=await _changes(session, live),
        **known_use,
    )


async def heat_of(session: AsyncSession, generation: Generation) -> dict[int, float]:
    """Return the heat of the generation's cells, as of now."""
    age = func.extract("epoch", func.now() - CellHeat.counted_at)
    query = select(CellHeat.cell, CellHeat.heat * func.power(0.5, age / HALF_LIFE_S)).where(
        CellHeat.tenant_id == generation.tenant_id, CellHeat.generation == generation.number
    )
    return {cell: float(heat) for cell, heat in await session.execute(query)}


async def _recalls(
    session: AsyncSession, live: Generation, samples: list[ProbeSample], known: CalibrationOut | None
) -> NDArray[np.float64] | None:
    if live.routing is None or known is None or not samples:
        return None
    truth = await true_cells_of(session, live, samples)
    return await asyncio.to_thread(recall_by_cell, live.routing, vectors_of(samples), truth, known.threshold)


def _cells(live: Generation, heat: dict[int, float], recalls: NDArray[np.float64] | None) -> list[CellOut]:
    routing = live.routing
    if routing is None:
        return [CellOut(cell=0, micro_cells=1, rows=live.rows, heat=round(heat.get(0, 0.0), 2))]
    micros = np.bincount(routing.cell_of, weights=routing.rows > 0, minlength=len(routing.cells))
    places = positions(routing)
    return [
        CellOut(
            cell=int(cell),
            micro_cells=int(micros[at]),
            rows=int(routing.cell_rows[at]),
            heat=round(heat.get(int(cell), 0.0), 2),
            x=round(float(places[at, 0]), 4),
            y=round(float(places[at, 1]), 4),
            recall=None if recalls is None or np.isnan(recalls[at]) else round(float(recalls[at]), 4),
        )
        for at, cell in enumerate(routing.cells)
    ]


def _next(embedding: Sequence[Header]) -> NextOut | None:
    if not embedding:
        return None
    header = embedding[-1]
    recipe = header.recipe
    return NextOut(generation=header.number, embedding_model=recipe.model, chunk_tokens=recipe.chunk_tokens)


def _calibration(live: Generation, target: float) -> CalibrationOut | None:
    known = live.header.calibration
    if known is None:
        return None
    found = known.threshold(target)
    return CalibrationOut(
        source=known.source,
        questions=known.questions,
        target=target,
        threshold=round(found.worth, 6),
        recall=round(found.recall, 4),
        rows_share=round(found.rows, 4),
        curve=CurveOut(threshold=list(known.worth), recall=list(known.recall), rows_share=list(known.rows)),
    )


async def _changes(session: AsyncSession, live: Generation) -> list[ChangeOut]:
    table = CellChangeRow
    query = select(table).where(table.tenant_id == live.tenant_id, table.generation == live.number)
    rows = await session.scalars(query.order_by(table.changed_at.desc()).limit(_LAST_CHANGES))
    return [
        ChangeOut(kind=row.kind, state=row.state, parents=row.parents, children=row.children, changed_at=row.changed_at)
        for row in rows
    ]
