"""Questions for a tenant that has not asked any yet: sentences out of its own chunks.

A threshold calibrated on them keeps its promise for real questions too, with a margin: measured on six corpora, recall
.98 asked for gave .981 to .993 (docs/decisions/0010-cells.md).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.editions import live_edition
from shards.embed import Embedder
from shards.models import Chunk

_SHORTEST, _LONGEST = 5, 30
"""Words of a sentence."""


async def own_sentences(session: AsyncSession, tenant_id: UUID, count: int) -> list[str]:
    """Return a stretch of words out of each of `count` chunks, drawn at random."""
    live = (Chunk.tenant_id == tenant_id, Chunk.edition == live_edition(tenant_id))
    drawn = select(Chunk.id).where(*live).order_by(func.random()).limit(count)
    texts = await session.scalars(select(Chunk.text).where(Chunk.tenant_id == tenant_id, Chunk.id.in_(drawn)))
    return [_stretch(text) for text in texts]


async def embedded(embedder: Embedder, questions: Sequence[str]) -> NDArray[np.float32]:
    """Return their vectors as questions (n, dim)."""
    found = []
    for question in questions:
        began = time.monotonic()
        found.append((await embedder.embed_query(question)).vector)
        await asyncio.sleep(time.monotonic() - began)  # documents are embedded by the same model meanwhile
    return np.stack(found) if found else np.empty((0, embedder.dim), dtype=np.float32)


def _stretch(text: str) -> str:
    words = text.split()
    length = random.randint(_SHORTEST, _LONGEST)  # noqa: S311 - not a secret
    start = random.randint(0, max(0, len(words) - length))  # noqa: S311
    return " ".join(words[start : start + length])
