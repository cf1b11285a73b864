"""A passage: one chunk of an active document, as it was read back from Postgres for this caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Ranks:
    """Place of a passage in each stage's list, 1 = best; `None` where the stage did not return it."""

    ann: int | None
    bm25: int | None
    rerank: int | None


@dataclass(frozen=True)
class Passage:
    """One chunk with what a citation needs. `text` is the document's `text[start:end]`."""

    chunk_id: UUID
    document_id: UUID
    external_id: str | None
    title: str
    headings: tuple[str, ...]
    text: str
    page: int | None
    start: int
    end: int
    version: int
    as_of: datetime
    metadata: dict[str, Any]
    score: float
    ranks: Ranks
