"""What is said at the start about an OpenSearch server that will not do."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr, ValidationError

from shards.lexical import ChunkText
from shards.names import lexical_name
from shards.opensearch import OpenSearchLexical
from shards.settings import LexicalSettings
from tenants.errors import Misconfigured, Unavailable
from tests.certificates import certify
from tests.stores.opensearch_process import FakeServer

INFO = {"version": {"distribution": "opensearch", "number": "2.19.1"}}
FORBIDDEN = {"error": {"type": "security_exception", "reason": "no permissions for [indices:admin/create]"}}
WORKS: dict[str, Any] = {
    **INFO,
    "errors": False,
    "items": [],
    "responses": [],
    "pit_id": "one",
    "total": 1,
    "deleted": 1,
    "failures": [],
}
"""What satisfies every call of a check."""
BLOCKED = {
    "error": {"type": "cluster_block_exception", "reason": "blocked by: [FORBIDDEN/10/cluster create-index ...]"}
}
TOO_MANY = {"error": {"type": "rejected_execution_exception", "reason": "queue is full"}}


async def refusal(answers: dict[str, tuple[int, Any]], **settings: Any) -> str:
    """What `check` says to a server that answers so."""
    async with FakeServer(answers) as server:
        store = OpenSearchLexical(LexicalSettings(url=server.url, **settings))
        try:
            with pytest.raises(Misconfigured) as caught:
                await store.check()
        finally:
            await store.aclose()
    return str(caught.value.detail)


async def test_a_server_as_it_should_be_passes_and_keeps_nothing(
    opensearch: OpenSearchLexical, opensearch_settings: LexicalSettings
) -> None:
    await opensearch.check()
    assert await opensearch.indexes() == []


async def test_a_refused_login_names_the_settings() -> None:
    said = await refusal({"*": (401, "Unauthorized")})
    assert "TESSERA_LEXICAL_USER and TESSERA_LEXICAL_PASSWORD" in said
    assert "a request without a user" in said
    said = await refusal({"*": (401, "Unauthorized")}, user="tessera", password=SecretStr("hush"))
    assert "the user 'tessera'" in said
    assert "hush" not in said


async def test_a_password_is_sent_as_the_server_reads_it() -> None:
    async with FakeServer({"*": (200, WORKS)}) as server:
        store = OpenSearchLexical(LexicalSettings(url=server.url, user="jürgen", password=SecretStr("grün 5 €")))
        await store.ping()
        await store.aclose()
    assert f"Basic {base64.b64encode('jürgen:grün 5 €'.encode()).decode()}" in server.heads[0]


async def test_a_missing_privilege_is_named() -> None:
    said = await refusal({"/tessera-": (403, FORBIDDEN), "*": (200, INFO)}, user="tessera")
    assert "no permissions for [indices:admin/create]" in said
    assert "TESSERA_LEXICAL_USER 'tessera'" in said
    assert "tessera-*" in said


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("_bulk", {"errors": True, "items": [{"index": {"status": 403, **FORBIDDEN}}]}),
        ("_msearch", {"responses": [{"status": 403, **FORBIDDEN}]}),
        ("_reindex", {"total": 1, "failures": [{"status": 403, "cause": FORBIDDEN["error"]}]}),
        ("_delete_by_query", {"total": 1, "deleted": 0, "failures": [{"status": 403, "cause": FORBIDDEN["error"]}]}),
    ],
)
async def test_a_refusal_inside_an_answer_is_named(call: str, answer: dict[str, Any]) -> None:
    """The status of these answers is 200, whatever became of their parts."""
    said = await refusal({call: (200, answer), "*": (200, WORKS)}, user="tessera")
    assert "no permissions for [indices:admin/create]" in said
    assert "TESSERA_LEXICAL_USER 'tessera'" in said


@pytest.mark.parametrize(
    ("call", "answer"), [("_reindex", {"total": 0, "failures": []}), ("_delete_by_query", {"deleted": 0})]
)
async def test_a_copy_or_removal_of_nothing_proves_nothing(call: str, answer: dict[str, Any]) -> None:
    said = await refusal({call: (200, answer), "*": (200, WORKS)})
    assert "an entry that was just written" in said


async def test_every_call_of_the_store_is_tried() -> None:
    async with FakeServer({"*": (200, WORKS)}) as server:
        store = OpenSearchLexical(LexicalSettings(url=server.url))
        await store.check()
        await store.aclose()
        seen = {line.partition("?")[0] for line in server.seen}
    for method, place, call in (
        ("PUT", "check-", ""),
        ("DELETE", "check-", ""),
        ("GET", "*", "/_alias/"),
        ("PUT", "check-", "/_alias/"),
        ("DELETE", "*", "/_alias/"),
        ("POST", "check-", "/_count"),
        ("POST", "check-", "/_delete_by_query"),
        ("POST", "check-", "/_search"),
        ("POST", "check-", "/_msearch"),
        ("POST", "check-", "/_search/point_in_time"),
        ("POST", "check-", "/_refresh"),
        ("GET", "check-", "/_mapping"),
    ):
        assert any(line.startswith(f"{method} /tessera-{place}") and call in line for line in seen), (method, call)
    assert {"POST /_aliases", "POST /_reindex", "POST /_search", "GET /_cat/indices/tessera-*"} <= seen


async def test_who_may_not_delete_leaves_one_empty_index_at_most() -> None:
    async with FakeServer({"DELETE /tessera-": (403, FORBIDDEN), "*": (200, WORKS)}) as server:
        store = OpenSearchLexical(LexicalSettings(url=server.url))
        with pytest.raises(Misconfigured):
            await store.check()
        await store.aclose()
        made = [line for line in server.seen if line.startswith("PUT /tessera-check")]
    assert len(made) == 1


async def test_what_is_made_is_removed_in_one_request_whatever_fails() -> None:
    async with FakeServer({"_bulk": (403, FORBIDDEN), "*": (200, WORKS)}) as server:
        store = OpenSearchLexical(LexicalSettings(url=server.url))
        with pytest.raises(Misconfigured):
            await store.check()
        await store.aclose()
        assert server.seen[-1].startswith("DELETE /tessera-check")
        assert server.seen[-1].count("check-") == 2


@pytest.mark.parametrize("call", ["PUT /tessera-", "_bulk"])
async def test_a_full_disk_is_no_missing_privilege(call: str) -> None:
    parts = {"errors": True, "items": [{"index": {"status": 403, **BLOCKED}}]}
    async with FakeServer({call: (200, parts) if call == "_bulk" else (403, BLOCKED), "*": (200, WORKS)}) as server:
        store = OpenSearchLexical(LexicalSettings(url=server.url))
        with pytest.raises(Unavailable, match="disk"):
            await store.check()
        await store.aclose()


@pytest.mark.parametrize("content", [None, "", "no certificate"])
async def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    store = OpenSearchLexical(LexicalSettings(url="https://127.0.0.1:1", ca=file))
    with pytest.raises(Misconfigured, match=rf"TESSERA_LEXICAL_CA names {file}"):
        await store.check()
    await store.aclose()


@pytest.mark.parametrize("number", ["1.3.20", "2.18.0", "2.9.0"])
async def test_an_old_server_is_refused(number: str) -> None:
    said = await refusal({"*": (200, {"version": {"distribution": "opensearch", "number": number}})})
    assert number in said
    assert "2.19 or newer" in said


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"version": {"number": "8.15.0", "build_flavor": "default"}, "tagline": "You Know, for Search"}),
        (200, {"hello": "world"}),
        (200, ["a list"]),
        (404, {"detail": "Not Found"}),
        (500, {"detail": "broken"}),
    ],
    ids=["elasticsearch", "another service", "a list", "404", "500"],
)
async def test_what_is_not_opensearch_is_refused(answer: tuple[int, Any]) -> None:
    said = await refusal({"*": answer})
    assert "is not OpenSearch" in said
    assert "TESSERA_LEXICAL_URL" in said


async def test_a_server_without_the_analysis_is_refused() -> None:
    said = await refusal({"/tessera-": (400, {"error": {"reason": "Unknown filter type [stemmer]"}}), "*": (200, INFO)})
    assert "Unknown filter type [stemmer]" in said
    assert "analysis-common" in said


async def test_nobody_there_and_no_room_are_worth_waiting_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        silent = f"http://127.0.0.1:{probe.getsockname()[1]}"
    async with FakeServer({"*": (429, TOO_MANY)}) as server:
        for url in (silent, server.url):
            store = OpenSearchLexical(LexicalSettings(url=url))
            with pytest.raises(Unavailable) as caught:
                await store.check()
            assert caught.value.code == "lexical_unavailable"
            await store.aclose()


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://host", "http://", "http://user:pw@host:9200", "http://a b"])
def test_an_address_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        LexicalSettings(url=url)


async def test_tls_with_an_authority_of_its_own(opensearch_settings: LexicalSettings, tmp_path: Path) -> None:
    """A real server behind TLS: trusted with the file of its authority, refused in words without."""
    certify(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    host, port = opensearch_settings.url.removeprefix("http://").split(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(host, int(port))

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
            sink.close()

        await asyncio.gather(pipe(reader, upstream), pipe(upstream_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    trusting = OpenSearchLexical(opensearch_settings.model_copy(update={"url": url, "ca": tmp_path / "ca.pem"}))
    await trusting.check()
    index = lexical_name(uuid4())
    await trusting.insert(index, [ChunkText(uuid4(), 1, "", "behind TLS")])
    assert len(await trusting.search(index, "tls", k=3, scope=None)) == 1
    await trusting.drop(index)
    await trusting.aclose()
    doubting = OpenSearchLexical(opensearch_settings.model_copy(update={"url": url}))
    with pytest.raises(Misconfigured, match="TESSERA_LEXICAL_CA"):
        await doubting.check()
    await doubting.aclose()
    server.close()
