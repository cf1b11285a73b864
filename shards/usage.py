"""Watching an index in use: which cells are visited, and what share of the true best rows is found.

Visits are counted in memory and written down now and then. A sample of the questions is asked again of every cell, in
the background and one at a time, so that recall is measured and not only predicted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from shards.calibration import K
from shards.generation import Generation
from shards.index import TenantIndexes
from shards.names import Space
from shards.probe import AnnHits
from shards.recalibration import recent_recalls, running_recall
from shards.settings import ShardSettings
from shards.usage_models import IndexUse, ProbeSample
from shards.vectors import MissingCollection
from tenants.db import Database
from tenants.errors import Unavailable
from tenants.models import Tenant

log = logging.getLogger(__name__)
HALF_LIFE_S = 3600.0
"""After this time a visit counts half."""
_EAGER = 100
"""Questions of a generation that are sampled ten times as often: the sooner its threshold rests on real ones."""
_DUE_EVERY = 50
_HEAT = text(
    "INSERT INTO cell_heat AS h (tenant_id, generation, cell, heat, counted_at)"
    " SELECT :tenant, f.generation, f.cell, f.visits, now() FROM unnest(CAST(:generations AS integer[]),"
    " CAST(:cells AS integer[]), CAST(:visits AS double precision[])) AS f (generation, cell, visits)"
    " ON CONFLICT (tenant_id, generation, cell) DO UPDATE SET counted_at = now(), heat = EXCLUDED.heat"
    " + h.heat * power(0.5, extract(epoch FROM now() - h.counted_at) / :half_life)"
)
_USE = text(
    "INSERT INTO index_use AS u (tenant_id, used_at, searches, upkeep_due, woke_ms)"
    " VALUES (:tenant, now(), :searches, :due, :woke_ms) ON CONFLICT (tenant_id) DO UPDATE SET used_at = now(),"
    " searches = u.searches + EXCLUDED.searches, upkeep_due = u.upkeep_due OR EXCLUDED.upkeep_due,"
    " released_at = NULL, woke_ms = coalesce(EXCLUDED.woke_ms, u.woke_ms)"
)


_WRITTEN = text(
    "INSERT INTO index_use (tenant_id, used_at, searches, upkeep_due) VALUES (:tenant, now(), 0, false)"
    " ON CONFLICT (tenant_id) DO UPDATE SET used_at = now(), released_at = NULL"
)


async def used(session: AsyncSession, tenant_id: UUID) -> None:
    """Note that a tenant's index was written to."""
    await session.execute(_WRITTEN, {"tenant": tenant_id})


async def _note_recall(session: AsyncSession, tenant_id: UUID, generation: int) -> None:
    seen = running_recall(await recent_recalls(session, tenant_id, generation))
    if seen is not None:
        values = {"samples": seen.samples, "recall": seen.recall, "recall_low": seen.low, "recall_high": seen.high}
        await session.execute(update(IndexUse).values(values).where(IndexUse.tenant_id == tenant_id))


async def is_cold(session: AsyncSession, tenant_id: UUID, after_s: float) -> bool:
    """Say whether nobody has used the index for so many seconds."""
    use = IndexUse
    query = select(use.used_at < func.now() - timedelta(seconds=after_s)).where(use.tenant_id == tenant_id)
    return bool(await session.scalar(query))


async def released(session: AsyncSession, tenant_id: UUID) -> None:
    """Note that the engine holds the index in memory no more."""
    await session.execute(update(IndexUse).values(released_at=func.now()).where(IndexUse.tenant_id == tenant_id))


@dataclass
class Totals:
    """What this process has counted since it began."""

    searches: Counter[str] = field(default_factory=Counter)
    """By plan."""
    cells_visited: int = 0
    rows_scanned: int = 0
    loads: int = 0
    load_s: float = 0.0


@dataclass
class _Pending:
    """What was counted for one tenant since it was last written down."""

    searches: int = 0
    visits: Counter[tuple[int, int]] = field(default_factory=Counter)
    samples: list[ProbeSample] = field(default_factory=list)
    woke_ms: float | None = None


class UsageWatch:
    """Counts and samples the searches of this process."""

    def __init__(self, database: Database, indexes: TenantIndexes, settings: ShardSettings) -> None:
        self._database, self._indexes, self._settings = database, indexes, settings
        self._pending: dict[UUID, _Pending] = {}
        self._sampled: Counter[tuple[UUID, int]] = Counter()
        self._shadow: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self.totals = Totals()
        self._loop = asyncio.create_task(self._write_now_and_then())
        indexes.vectors.on_wake = self._woke

    def note(self, generation: Generation, vector: NDArray[np.float32], found: AnnHits, *, filtered: bool) -> None:
        """Count a search; ask it again of every cell when it is drawn as a sample."""
        pending = self._pending.setdefault(generation.tenant_id, _Pending())
        pending.searches += 1
        self.totals.searches[found.plan] += 1
        self.totals.cells_visited += found.cells_visited
        self.totals.rows_scanned += found.rows_scanned
        pending.visits.update((generation.number, cell) for cell in found.visited)
        if found.plan == "cells" and not filtered and self._drawn(generation):
            self._shadow = asyncio.create_task(self._ask_again(generation, vector, found))

    async def aclose(self) -> None:
        """Write down what is pending and stop."""
        for task in (self._loop, self._shadow):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        with suppress(Unavailable):
            await self._write()

    def _woke(self, space: Space, took_ms: float) -> None:
        self._pending.setdefault(space.tenant_id, _Pending()).woke_ms = took_ms
        self.totals.loads += 1
        self.totals.load_s += took_ms / 1000
        log.info("the index of tenant %s was loaded in %.0f ms", space.tenant_id, took_ms)

    def _drawn(self, generation: Generation) -> bool:
        if self._shadow is not None and not self._shadow.done():
            return False
        eager = self._sampled[(generation.tenant_id, generation.number)] < _EAGER
        share = min(1.0, self._settings.shadow_share * (10 if eager else 1))
        return time.monotonic() >= self._rest_until and random.random() < share  # noqa: S311 - not a secret

    async def _ask_again(self, generation: Generation, vector: NDArray[np.float32], found: AnnHits) -> None:
        began = time.monotonic()
        with suppress(Unavailable, MissingCollection):
            vectors, mark = self._indexes.vectors, generation.header.mark
            best = await vectors.search(generation.space, vector, k=K, cells=None, scope=None, mark=mark)
            hits = {hit.chunk_id for hit in found.hits[:K]}
            truth = [hit.chunk_id for hit in best]
            sample = ProbeSample(
                tenant_id=generation.tenant_id,
                id=uuid7(),
                generation=generation.number,
                vector=vector.astype(np.float16).tobytes(),
                truth=truth,
                recall=sum(chunk_id in hits for chunk_id in truth) / max(len(truth), 1),
                predicted=found.predicted,
                rows_share=found.rows_scanned / max(generation.rows, 1),
            )
            self._pending.setdefault(generation.tenant_id, _Pending()).samples.append(sample)
            self._sampled[(generation.tenant_id, generation.number)] += 1
        # A search of every cell keeps a small server busy: it rests in proportion.
        self._rest_until = time.monotonic() + (time.monotonic() - began) / self._settings.shadow_load

    async def _write_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._settings.usage_every_s)
            try:
                await self._write()
            except Unavailable as error:
                log.warning("the use of some indexes was not written down: %s", error.detail)

    async def _write(self) -> None:
        for tenant_id in list(self._pending):
            pending = self._pending.pop(tenant_id)
            numbers = {sample.generation for sample in pending.samples}
            due = any(
                self._sampled[(tenant_id, number)] % _DUE_EVERY < sum(s.generation == number for s in pending.samples)
                for number in numbers
            )
            use = {"tenant": tenant_id, "searches": pending.searches, "woke_ms": pending.woke_ms}
            async with self._database.tenant(tenant_id) as session, session.begin():
                state = await session.scalar(select(Tenant.state).where(Tenant.id == tenant_id))
                if state in (None, "deleting"):
                    continue  # nothing of it may be written any more
                await session.execute(_USE, {**use, "due": due})
                if pending.visits:
                    places, visits = zip(*pending.visits.items(), strict=True)
                    values = {
                        "tenant": tenant_id,
                        "generations": [generation for generation, _ in places],
                        "cells": [cell for _, cell in places],
                        "visits": [float(count) for count in visits],
                        "half_life": HALF_LIFE_S,
                    }
                    await session.execute(_HEAT, values)
                if pending.samples:
                    session.add_all(pending.samples)
                    await session.flush()
                    await _note_recall(session, tenant_id, pending.samples[-1].generation)
