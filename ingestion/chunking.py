"""The documents of a batch, chunked; what would take the embedder long leaves the main lane here.

Uploaded bytes do not tell it: a document of a few kilobytes may unpack into a book within its bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from ingestion.batch import HOLDINGS, Batch
from ingestion.chunk import Chunk, chunk_document
from ingestion.parse.document import LeftOut
from ingestion.parsing import GivenBack, Opened, Overdue, Rejected, parsed
from ingestion.runtime import Kept, Runtime
from shards.models import DocumentVersion

_CHARS_A_TOKEN = 5
"""Of English; other languages have fewer. A text that is longer than the chunks of a long document by this measure
is long, and is not chunked to find that out."""


@dataclass(frozen=True)
class Chunked:
    """One document of a batch after chunking."""

    job_id: UUID
    version: DocumentVersion
    title: str
    pages: int | None
    chunks: list[Chunk]
    left_out: tuple[LeftOut, ...] = ()


@dataclass
class _Turn:
    """What a batch has had of the main lane."""

    batch: Batch
    began: float
    chunks: int = 0

    def over(self) -> bool:
        """Whether others come first now, or this process is to end; never, for a batch that is not in the main lane."""
        settings = self.batch.settings
        late = (
            HOLDINGS.leaving or self.chunks >= settings.batch_chunks or time.monotonic() - self.began > settings.batch_s
        )
        return late and not self.batch.slow


async def chunked(
    runtime: Runtime, batch: Batch, versions: dict[UUID, DocumentVersion], kept: Kept
) -> AsyncGenerator[Chunked | Opened | Rejected | Overdue | GivenBack, None]:
    """Yield the documents of a batch as they are chunked; `versions` by job id.

    A long one, like one that is parsed slowly, is added to `kept` or handed back to the slow lane; one that is long by
    its text comes as it was parsed, to be chunked when it is its turn.
    """
    turn = _Turn(batch, time.monotonic())
    if batch.slow:
        for job_id in versions:
            kept.enter(job_id, anyway=True)
    async with aclosing(parsed(runtime, batch, versions, kept, turn.over)) as found:
        async for one in found:
            if not isinstance(one, Opened):
                yield one
                continue
            long_text = len(one.document.text) > _longest_text(runtime)
            document = one if long_text else await chunk(runtime, batch, one)
            if isinstance(document, Chunked) and len(document.chunks) <= runtime.settings.long_chunks:
                turn.chunks += len(document.chunks)
                kept.leave(one.job_id)
            elif one.job_id not in kept.jobs:
                stays = kept.enter(one.job_id)
                yield Overdue(one.job_id, kept=stays)
                if not stays:
                    continue
            yield document


async def chunk(runtime: Runtime, batch: Batch, one: Opened) -> Chunked:
    """Chunk a document in a thread."""
    with batch.watch.step("chunk"):
        return await asyncio.to_thread(_chunk, runtime, one)


def _longest_text(runtime: Runtime) -> int:
    return runtime.settings.long_chunks * runtime.settings.chunk_tokens * _CHARS_A_TOKEN


def _chunk(runtime: Runtime, one: Opened) -> Chunked:
    version, document = one.version, one.document
    title = version.title if version.title_given else (document.title or version.title)
    chunks = chunk_document(
        document,
        title=title,
        token_spans=runtime.embedder.token_spans,
        max_tokens=runtime.settings.chunk_tokens,
        model_tokens=runtime.embedder.max_tokens,
    )
    return Chunked(one.job_id, version, title, document.pages, chunks, document.left_out)
