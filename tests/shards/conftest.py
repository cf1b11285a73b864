"""Servers of models that tests of `shards` ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.embedding_server import EmbeddingServer


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    started = EmbeddingServer()
    yield started
    started.close()


@pytest.fixture
def other() -> Iterator[EmbeddingServer]:
    started = EmbeddingServer()
    yield started
    started.close()
