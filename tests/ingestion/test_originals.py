"""Originals have no name while they are parsed: a killed worker leaves none where no delete would find it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from ingestion.models import Lane
from ingestion.parse.original import Original
from ingestion.parse.sandbox import ParserPool
from ingestion.reembedding import _parsed
from ingestion.runtime import Runtime
from ingestion.settings import IngestSettings
from shards.models import DocumentVersion
from tests.ingestion.test_slow_lane import Originals, Worker, batch_of, parsers, run, versions_of

__all__ = ["parsers"]
SMALL, LARGE = b"1000", b"1000" + b" " * 300_000
"""Contents of a document that is parsed for long: one that is kept in memory, one that is not."""


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """The temporary folder of this process, for the time of the test."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path)
    yield tmp_path
    tempfile.tempdir = before


async def ingested(worker: Worker, versions: list[DocumentVersion]) -> object:
    return await run(worker, batch_of(Lane.SLOW), {one.document_id: one for one in versions})


async def embedded_anew(worker: Worker, versions: list[DocumentVersion]) -> object:
    return await _parsed(cast(Runtime, worker), versions)


@pytest.mark.parametrize("work", [ingested, embedded_anew])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_nothing_lies_in_the_temporary_folder_while_a_document_is_parsed(
    parsers: ParserPool,
    temporary: Path,
    work: Callable[[Worker, list[DocumentVersion]], Awaitable[object]],
    content: bytes,
) -> None:
    worker = Worker(Originals({"a": content}), parsers, IngestSettings())
    versions = versions_of({"a": ("sleep", content)})
    for job_id, version in versions.items():
        version.document_id, version.version_no = job_id, 1
    working = asyncio.ensure_future(work(worker, list(versions.values())))
    while not _in_a_parser():
        assert not working.done()
        await asyncio.sleep(0.02)
    found = os.listdir(temporary)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert found == []


@pytest.mark.parametrize("content", [b"", b"few", b"many" * 100_000])
def test_an_original_is_read_from_its_beginning_each_time(content: bytes) -> None:
    with Original(content) as original:
        for _ in range(2):
            descriptor = original.open()
            with open(descriptor, "rb") as file:
                assert file.read() == content
                with pytest.raises(OSError, match="descriptor"):
                    os.write(descriptor, b"what a parser may not")


def _in_a_parser() -> bool:
    """Whether a process of a document runs: its worker is the nursery's child, and it the worker's."""
    return len(psutil.Process().children(recursive=True)) >= 3
