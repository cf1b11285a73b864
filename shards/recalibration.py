"""What the samples say of a generation's recall, and a threshold from them instead of from sentences."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shards.calibration import Calibration, calibrate, calibrate_on_sentences
from shards.catalog import Catalog
from shards.generation import Generation
from shards.index_models import ChunkCell
from shards.usage_models import ProbeSample
from shards.vectors import VectorStore

LEAST = 100
"""Samples from which a threshold is calibrated."""
_LAST = 500
_MORE = 1.5
"""Samples, in multiples of those of the last calibration, from which it is repeated."""


class Sampled(Protocol):
    """What a sample says of one question."""

    @property
    def recall(self) -> float:
        """Recall@10."""

    @property
    def rows_share(self) -> float:
        """Share of the rows visited."""


@dataclass(frozen=True)
class RunningRecall:
    """Mean recall@10 of the last samples with its 95% confidence interval, and the mean share of rows visited."""

    samples: int
    recall: float
    low: float
    high: float
    rows_share: float


async def last_samples(session: AsyncSession, tenant_id: UUID, generation: int) -> list[ProbeSample]:
    """Return the newest samples of a generation."""
    query = select(ProbeSample).where(ProbeSample.tenant_id == tenant_id, ProbeSample.generation == generation)
    return list(await session.scalars(query.order_by(ProbeSample.created_at.desc()).limit(_LAST)))


async def recent_recalls(session: AsyncSession, tenant_id: UUID, generation: int) -> Sequence[Sampled]:
    """Return recall and share of rows of the newest samples, without their questions."""
    query = select(ProbeSample.recall, ProbeSample.rows_share)
    query = query.where(ProbeSample.tenant_id == tenant_id, ProbeSample.generation == generation)
    found: Sequence[Any] = (await session.execute(query.order_by(ProbeSample.created_at.desc()).limit(_LAST))).all()
    return found


def running_recall(samples: Sequence[Sampled]) -> RunningRecall | None:
    """Return the recall that the samples show, None without any."""
    if not samples:
        return None
    recalls = np.array([sample.recall for sample in samples])
    mean, count = float(recalls.mean()), len(recalls)
    # The interval of a mean, and where all samples agree that of a share of ten hits a question (rule of three).
    half = max(1.96 * float(recalls.std()) / count**0.5, 3.0 / (10 * count))
    rows = float(np.mean([sample.rows_share for sample in samples]))
    return RunningRecall(count, mean, max(0.0, mean - half), min(1.0, mean + half), rows)


def is_due(generation: Generation, samples: list[ProbeSample], target: float) -> bool:
    """Say whether to calibrate from the samples: for the first time, with many more, or because recall fell."""
    known, seen = generation.header.calibration, running_recall(samples)
    if generation.routing is None or seen is None or seen.samples < LEAST:
        return False
    if known is None or known.source == "sentences" or seen.samples >= _MORE * known.questions:
        return True
    return seen.high < target


async def recalibrated(session: AsyncSession, generation: Generation, samples: list[ProbeSample]) -> Calibration:
    """Return the calibration that the samples give."""
    assert generation.routing is not None
    truth = await true_cells_of(session, generation, samples)
    found = calibrate(generation.routing, vectors_of(samples), truth, source="questions")
    known = generation.header.calibration
    return found if known is None else replace(found, filtered=known.filtered)


async def recalibrated_on_sentences(
    catalog: Catalog, vectors: VectorStore, generation: Generation, queries: NDArray[np.float32]
) -> Calibration:
    """Return the calibration that sentences of the chunks (q, dim) give, over the rows as they lie now."""
    assert generation.routing is not None
    micro_of = {place.chunk_id: place.micro for place in await catalog.places(generation.number)}
    rows = [row async for page in vectors.scan(generation.space) for row in page if row.chunk_id in micro_of]
    matrix = np.stack([row.vector for row in rows])
    micros = np.array([micro_of[row.chunk_id] for row in rows], dtype=np.int64)
    return await asyncio.to_thread(
        calibrate_on_sentences, generation.routing, matrix, micros, queries, generation.number
    )


async def true_cells_of(
    session: AsyncSession, generation: Generation, samples: list[ProbeSample]
) -> list[NDArray[np.int64]]:
    """Return for each sample the cells (places in the routing's) that its true best chunks lie in by now."""
    assert generation.routing is not None
    wanted = {chunk_id for sample in samples for chunk_id in sample.truth}
    query = select(ChunkCell.chunk_id, ChunkCell.micro).where(
        ChunkCell.tenant_id == generation.tenant_id,
        ChunkCell.generation == generation.number,
        ChunkCell.chunk_id.in_(wanted),
    )
    micro_of = {row.chunk_id: row.micro for row in await session.execute(query)}
    cell_of = generation.routing.cell_of
    return [
        cell_of[np.array([micro_of[chunk_id] for chunk_id in sample.truth if chunk_id in micro_of], dtype=np.int64)]
        for sample in samples
    ]


def vectors_of(samples: list[ProbeSample]) -> NDArray[np.float32]:
    """Return the questions' vectors (samples, dim)."""
    return np.stack([np.frombuffer(sample.vector, dtype=np.float16) for sample in samples]).astype(np.float32)
