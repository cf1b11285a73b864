"""A Milvus Lite server for the tests of the stores, which may kill and restart one of their own."""

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

from service.local.milvus import SERVER
from shards.memory import MemoryVectors
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.settings import MilvusSettings
from shards.vectors import VectorStore
from tests.stores.chunk_vectors import CELLS, DIM, Rng

EXTERNAL = os.environ.get("TESSERA_TEST_MILVUS_URI", "")
"""Run the suite of the vector store against this server instead, for example a Milvus cluster."""


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


def _server(folder: Path) -> MilvusServer:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return MilvusServer(folder, port)


@pytest.fixture(scope="session")
def milvus_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server that the tests share."""
    if EXTERNAL:
        yield EXTERNAL
        return
    server = _server(tmp_path_factory.mktemp("milvus") / "data")
    server.start()
    yield server.uri
    server.stop()


@pytest.fixture(scope="session")
async def milvus_store(milvus_uri: str) -> AsyncIterator[MilvusVectors]:
    """The store on the shared server. Strong, so that a cluster shows a write at once, as Milvus Lite always does."""
    store = MilvusVectors(MilvusSettings(uri=milvus_uri, consistency="Strong"))
    yield store
    await store.aclose()


@pytest.fixture(params=["milvus", "memory"])
def store(request: pytest.FixtureRequest) -> VectorStore:
    """Each store of vectors in turn."""
    return request.getfixturevalue("milvus_store") if request.param == "milvus" else MemoryVectors()


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
    server = _server(tmp_path / "data")
    yield server
    server.stop()
