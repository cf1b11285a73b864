"""A corpus on its way in: every row becomes a document, through the same door as anybody's."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.bulk import NewDocument, in_requests
from eval.client import ApiProblem, TesseraClient, Uploaded
from eval.datasets import CorpusRow
from eval.progress import Progress
from ingestion.metadata import parse_metadata
from shards.filters import BUILT_INS
from tenants.errors import InvalidMetadata, TesseraError

UNTITLED = "-.txt"
"""File name of a row without a title. The service makes a title of the file's name when it finds none; a hyphen adds
no word to the index, where the row's id would add several."""
_MAX_TITLE = 512
_MAX_METADATA_BYTES = 16 * 1024
_REFUSALS = (413, 415, 422)
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5


@dataclass
class Sent:
    """What has become of the rows so far. `jobs` has a place for each row: its job, or None."""

    jobs: list[str | None]
    refused: Counter[str] = field(default_factory=Counter)
    metadata_dropped: int = 0
    done: int = 0
    seconds: float = 0.0


async def upload_corpus(
    client: TesseraClient, rows: Sequence[CorpusRow], progress: Progress, *, concurrency: int = 4
) -> Sent:
    """Upload rows over `concurrency` kept connections; rows that the service refuses for what they are, are counted.

    Repeating it is harmless: `external_id` is the row's id, and the same content again is the same document.

    Raises:
        TesseraError: the service refuses for another reason, or does not answer.
    """
    progress.start("Uploading", len(rows))
    sent = Sent([None] * len(rows))
    turn = in_requests(enumerate(rows), lambda numbered: len(numbered[1].text or ""))
    began = time.perf_counter()
    workers = [asyncio.create_task(_send_in_turn(client, turn, sent, progress)) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    sent.seconds = time.perf_counter() - began
    return sent


async def _send_in_turn(
    client: TesseraClient, turn: Iterator[list[tuple[int, CorpusRow]]], sent: Sent, progress: Progress
) -> None:
    for group in turn:
        documents = []
        for _, row in group:
            document, dropped = new_document(row)
            documents.append(document)
            sent.metadata_dropped += dropped
        for (place, _), outcome in zip(group, await _upload(client, documents), strict=True):
            if isinstance(outcome, Uploaded):
                sent.jobs[place] = outcome.job["id"] if outcome.job else None
            elif outcome.status in _REFUSALS:
                sent.refused[outcome.code] += 1
            else:
                raise outcome
        sent.done += len(group)
        progress.reach(sent.done)


async def _upload(client: TesseraClient, documents: list[NewDocument]) -> list[Uploaded | ApiProblem]:
    for attempt in range(_ATTEMPTS):
        try:
            return await client.upload_many(documents)
        except TesseraError as error:
            if not error.retryable or attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def new_document(row: CorpusRow) -> tuple[NewDocument, int]:
    """Return the document of a row, and how many values of its metadata the API cannot store."""
    title = fitting_title(row.title)
    metadata, dropped = fitting_metadata(row.metadata or {})
    filename = f"{row.id}.txt" if title else UNTITLED
    content = (row.text or "").encode(errors="replace")
    return NewDocument(filename, content, external_id=row.id, title=title, metadata=metadata), dropped


def fitting_title(title: str | None) -> str | None:
    """Return a title as the API takes it: no control characters, at most 512 characters; None when nothing is left."""
    clean = "".join(" " if ord(character) < 32 else character for character in title or "")
    return clean.strip()[:_MAX_TITLE].strip() or None


def fitting_metadata(metadata: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return what of a row's metadata the API can store, and how many values it cannot.

    A key that is the name of a built-in field gets the prefix `meta_`.
    """
    renamed = {f"meta_{key}" if key in BUILT_INS else key: value for key, value in metadata.items()}
    fitting = {key: value for key, value in renamed.items() if _storable({key: value})}
    if fitting and not _storable(fitting):
        fitting = {}
    return fitting, len(metadata) - len(fitting)


def _storable(metadata: dict[str, Any]) -> bool:
    try:
        parse_metadata(json.dumps(metadata), max_bytes=_MAX_METADATA_BYTES)
    except InvalidMetadata:
        return False
    return True
