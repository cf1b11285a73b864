"""What the start of the service and `tessera doctor` say of a Milvus server that cannot be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc  # type: ignore[import-untyped]
import pytest
from pydantic import ValidationError
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from service.local.ports import free_port
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.settings import MilvusServer, MilvusSettings
from tenants.errors import Misconfigured, Unavailable


async def checked(**values: Any) -> None:
    store = MilvusVectors(MilvusSettings(timeout_s=5, **values))
    try:
        await store.check()
    finally:
        await store.aclose()


async def test_a_server_that_can_be_used_is_not_complained_of(milvus: MilvusSettings) -> None:
    await checked(uri=milvus.uri, token=milvus.token)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "localhost:19530",
        "milvus.db",
        "tcp://127.0.0.1:19530",
        "http://root:Milvus@127.0.0.1:1",
        "http://a/db",
        "http://h:99999",
        "http://h:port",
        "http://h:",
        "http://h:0",
    ],
)
async def test_a_uri_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(Misconfigured, match="TESSERA_MILVUS_URI") as caught:
        await checked(uri=uri)
    assert "root:Milvus" not in caught.value.detail


def test_a_server_that_is_named_twice_is_said_without_its_login() -> None:
    twice = "http://root:hush@host:19530"
    with pytest.raises(ValidationError) as caught:
        MilvusSettings(uri=twice, endpoints={"eu": MilvusServer(uri=twice)})
    [fault] = caught.value.errors(include_input=False)
    assert "http://host:19530" in fault["msg"]
    assert "hush" not in fault["msg"]


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"TESSERA_MILVUS_CA .*nowhere\.pem"):
        await checked(uri="https://127.0.0.1:1", ca=tmp_path / "nowhere.pem")
    there = tmp_path / "there.pem"
    there.write_text("")
    with pytest.raises(Misconfigured, match=r"TESSERA_MILVUS_CA .*there\.pem, which holds no certificate"):
        await checked(uri="https://127.0.0.1:1", ca=there)
    with pytest.raises(Misconfigured, match="TESSERA_MILVUS_CLIENT_KEY"):
        await checked(uri="https://127.0.0.1:1", client_cert=there)


async def test_nobody_there_is_unavailable(own_milvus: Any) -> None:
    said = f"The Milvus server at {own_milvus.uri} does not answer. Start it, or correct TESSERA_MILVUS_URI."
    for endpoints in ({}, {"eu": MilvusServer(uri=f"http://127.0.0.1:{free_port()}")}):
        with pytest.raises(Unavailable) as caught:
            await checked(uri=own_milvus.uri, endpoints=endpoints)
        assert caught.value.detail == said


async def test_an_endpoint_is_named(lite: MilvusSettings, own_milvus: Any) -> None:
    with pytest.raises(Misconfigured, match="'eu' of TESSERA_MILVUS_ENDPOINTS"):
        await checked(uri=lite.uri, endpoints={"eu": MilvusServer(uri="eu:19530")})
    with pytest.raises(
        Unavailable, match=f"'eu' of .* at {own_milvus.uri} .*`uri` of 'eu' in TESSERA_MILVUS_ENDPOINTS"
    ):
        await checked(uri=lite.uri, endpoints={"eu": MilvusServer(uri=own_milvus.uri)})


async def test_tls_with_a_server_that_has_none_is_named(milvus: MilvusSettings) -> None:
    with pytest.raises(Misconfigured, match=r"no TLS.*https:// in TESSERA_MILVUS_URI"):
        await checked(uri=milvus.uri.replace("http:", "https:"), token=milvus.token)


@pytest.fixture
async def http_port() -> AsyncIterator[int]:
    """A server of another kind."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_server_of_another_kind_is_named(http_port: int) -> None:
    with pytest.raises(Misconfigured, match=r"not a Milvus server.*TESSERA_MILVUS_URI"):
        await checked(uri=f"http://127.0.0.1:{http_port}")


class Fake(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]  # generated code
    """What a Milvus of a version answers of itself. `refused` is how it answers a call that is not heard."""

    def __init__(self, version: str, *, clock: bool = True, refused: grpc.StatusCode | None = None) -> None:
        self._version, self._clock, self._refused = version, clock, refused

    def Connect(self, request: Any, context: Any) -> Any:
        return milvus_pb2.ConnectResponse(status=common_pb2.Status(), identifier=1)

    def GetVersion(self, request: Any, context: Any) -> Any:
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self._version)

    def AllocTimestamp(self, request: Any, context: Any) -> Any:
        if not self._clock:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method AllocTimestamp")
        return milvus_pb2.AllocTimestampResponse(status=common_pb2.Status(), timestamp=1)

    def Query(self, request: Any, context: Any) -> Any:
        if self._refused is not None:
            context.abort(self._refused, "not now")
        return milvus_pb2.QueryResults(status=common_pb2.Status(code=100))

    def DescribeCollection(self, request: Any, context: Any) -> Any:
        return milvus_pb2.DescribeCollectionResponse(status=common_pb2.Status())

    def ShowPartitions(self, request: Any, context: Any) -> Any:
        return milvus_pb2.ShowPartitionsResponse(status=common_pb2.Status(), partition_names=["c0"])

    def DescribeIndex(self, request: Any, context: Any) -> Any:
        index = milvus_pb2.IndexDescription(index_name="vector", field_name="vector")
        return milvus_pb2.DescribeIndexResponse(status=common_pb2.Status(), index_descriptions=[index])

    def LoadCollection(self, request: Any, context: Any) -> Any:
        return common_pb2.Status()

    def GetLoadingProgress(self, request: Any, context: Any) -> Any:
        return milvus_pb2.GetLoadingProgressResponse(status=common_pb2.Status(), progress=10)


@contextmanager
def served(fake: Fake) -> Iterator[str]:
    """Serve it; yield its URI."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(("version", "clock"), [("v2.2.16", True), ("v2.2.16", False), ("built by us", False)])
async def test_a_server_that_is_too_old_is_named(version: str, clock: bool) -> None:
    wanted = r"oldest that serves is 2\.3|older than 2\.3"
    with served(Fake(version, clock=clock)) as uri, pytest.raises(Misconfigured, match=wanted):
        await checked(uri=uri)


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Unavailable),
        (grpc.StatusCode.UNAUTHENTICATED, Misconfigured),
        (grpc.StatusCode.PERMISSION_DENIED, Misconfigured),
    ],
)
async def test_a_privilege_that_could_not_be_tried_is_not_one_that_is_there(
    status: grpc.StatusCode, raised: type[Exception]
) -> None:
    with served(Fake("v2.3.5", refused=status)) as uri, pytest.raises(raised):
        await checked(uri=uri)


async def test_a_server_that_is_away_hides_no_fault_of_another(own_milvus: Any) -> None:
    with pytest.raises(Misconfigured, match="'eu' of TESSERA_MILVUS_ENDPOINTS"):
        await checked(uri=own_milvus.uri, endpoints={"eu": MilvusServer(uri="eu:19530")})


async def test_a_collection_that_is_never_loaded_is_waited_for_as_long_as_is_set() -> None:
    """pymilvus would ask for its progress for ever, with the writer's lock held."""
    with served(Fake("v2.3.5")) as uri:
        store = MilvusVectors(MilvusSettings(uri=uri, timeout_s=1))
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10):
                await store.create(Space(uuid4(), 1, 8), cells=1)
        await store.aclose()
