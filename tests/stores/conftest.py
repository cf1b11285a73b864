"""The stores that tests run on: the twin, a Milvus Lite server and the real one; and a Lite server of a test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from opensearchpy import AsyncOpenSearch

from service.local.milvus import SERVER
from shards.memory_vectors import MemoryVectors
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings, MilvusSettings
from shards.vectors import VectorStore
from tests.servers import server
from tests.stores.chunk_vectors import CELLS, DIM, Rng


@dataclass
class MilvusServer:
    """A server process on a fixed port and data folder."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until the port answers."""
        command = [sys.executable, "-m", SERVER, "server", "--data-dir", str(self.folder)]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            env={**os.environ, "MILVUS_LITE_MEMTABLE_MEMORY_LIMIT_BYTES": "1048576"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            except OSError:
                assert self._process.poll() is None, "the server ended"
                time.sleep(0.05)
            else:
                return
        raise AssertionError("the server does not listen")

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it whatever its state."""
        if self._process is not None:
            self.kill()


def _lite(folder: Path) -> MilvusServer:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return MilvusServer(folder, port)


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusSettings]:
    """How the Milvus Lite server is reached that the tests share."""
    own = _lite(tmp_path_factory.mktemp("milvus") / "data")
    own.start()
    yield MilvusSettings(uri=own.uri)
    own.stop()


@pytest.fixture(scope="session")
def real() -> MilvusSettings:
    """How the real Milvus server is reached, where there is one."""
    known = server("milvus")
    return MilvusSettings(uri=known["uri"], token=known["token"], timeout_s=30)


@pytest.fixture(params=["lite", "real"])
def milvus(request: pytest.FixtureRequest) -> MilvusSettings:
    """How each server is reached, in turn."""
    settings: MilvusSettings = request.getfixturevalue(request.param)
    return settings


@pytest.fixture(scope="session")
async def lite_store(lite: MilvusSettings) -> AsyncIterator[MilvusVectors]:
    """The store on the shared Milvus Lite server."""
    store = MilvusVectors(lite)
    yield store
    await store.aclose()


@pytest.fixture(scope="session")
async def real_store(real: MilvusSettings) -> AsyncIterator[MilvusVectors]:
    """The store on the real server."""
    store = MilvusVectors(real)
    yield store
    await store.aclose()


@pytest.fixture(params=["memory", "lite", "real"])
def store(request: pytest.FixtureRequest) -> VectorStore:
    """Each store of vectors in turn."""
    if request.param == "memory":
        return MemoryVectors()
    store: VectorStore = request.getfixturevalue(f"{request.param}_store")
    return store


@pytest.fixture(params=["dedicated", "isolated"])
async def space(store: VectorStore, request: pytest.FixtureRequest) -> AsyncIterator[Space]:
    """A space of its own with four cells."""
    space = Space(uuid4(), 1, DIM, request.param)
    await store.create(space, cells=CELLS)
    yield space
    await store.drop(space)


@pytest.fixture
def rng() -> Rng:
    """The same numbers for every test."""
    return np.random.default_rng(1)


@pytest.fixture
def own_milvus(tmp_path: Path) -> Iterator[MilvusServer]:
    """A server for one test, not started yet."""
    own = _lite(tmp_path / "data")
    yield own
    own.stop()


@pytest.fixture(params=["opensearch2", "opensearch3"])
def opensearch_settings(request: pytest.FixtureRequest) -> LexicalSettings:
    """Each OpenSearch server in turn, with names that no other test has."""
    entry = server(request.param)
    return LexicalSettings(url=entry["url"], prefix=f"test-{uuid4().hex[:8]}-", timeout_s=30)


@pytest.fixture
async def opensearch(opensearch_settings: LexicalSettings) -> AsyncIterator[OpenSearchLexical]:
    """The store on such a server; what the test made is removed."""
    store = OpenSearchLexical(opensearch_settings)
    yield store
    async with AsyncOpenSearch(hosts=[opensearch_settings.url]) as client:
        for row in await client.cat.indices(index=f"{opensearch_settings.prefix}*", format="json"):
            await client.indices.delete(index=row["index"])
    await store.aclose()
