"""Wrong servers are named with their setting, cause and mend before the first question finds them out."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from rag.answer.check import check_generation
from rag.settings import GenerationSettings
from tenants.errors import Misconfigured, Unavailable
from tests.certificates import certify
from tests.rag.answer.model_server import ModelServer, running_model_server


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with running_model_server() as running:
        running.says("m", "x")
        yield running


async def check(server: ModelServer, **values: Any) -> None:
    await check_generation(GenerationSettings.model_validate({"base_url": server.url, "model": "m", **values}))


async def test_a_good_server_is_good_and_so_is_none(server: ModelServer) -> None:
    await check(server)
    await check_generation(GenerationSettings())
    server.is_vllm = False  # nothing is known of its version
    await check(server)
    server.scripts.clear()  # it loads what it is asked for
    await check(server)


async def test_a_refused_key(server: ModelServer) -> None:
    server.key = "right"
    await check(server, api_key=SecretStr("right"))
    with pytest.raises(Misconfigured, match=r"refuses the key \(401\): set TESSERA_GENERATION_API_KEY") as refused:
        await check(server, api_key=SecretStr("wrong"))
    assert "wrong" not in refused.value.detail


async def test_an_unknown_model_or_adapter(server: ModelServer) -> None:
    with pytest.raises(Misconfigured, match=r"TESSERA_GENERATION_ADAPTERS: .* has no model 'acme-legal'; it has 'm'"):
        await check(server, adapters=["acme-legal"])
    models = {"large": {"base_urls": [server.url], "model": "org/large"}}
    with pytest.raises(Misconfigured, match=r"TESSERA_GENERATION_MODELS \(large\): .* has no model 'org/large'"):
        await check(server, models=models)


@pytest.mark.parametrize("path", ["/v1/chat", "", "/health"])
async def test_an_address_that_is_no_api(server: ModelServer, path: str) -> None:
    with pytest.raises(Misconfigured, match=r"TESSERA_GENERATION_BASE_URLS .* not an OpenAI-compatible .* up to /v1"):
        await check(server, base_url=server.url.removesuffix("/v1") + path)


@pytest.mark.parametrize(("version", "good"), [("0.8.5.post1", False), ("0.9.0", True), ("1.2rc1+cpu", True)])
async def test_a_vllm_without_salts(server: ModelServer, version: str, good: bool) -> None:
    server.version = version
    if good:
        await check(server)
        return
    with pytest.raises(Misconfigured, match=r"vLLM 0\.8\.5\.post1, which knows no cache_salt.*install 0\.9"):
        await check(server)
    await check(server, cache_salt="off")


async def test_a_required_salt_wants_a_server_that_is_known_to_know_it(server: ModelServer) -> None:
    await check(server, cache_salt="required")
    model = {"base_urls": [server.url], "model": "m", "cache_salt": "required"}
    for server.is_vllm, server.version in ((False, ""), (True, "unknown")):
        await check(server)
        with pytest.raises(Misconfigured, match=r"^TESSERA_GENERATION_CACHE_SALT is required, .* vLLM 0\.9 or newer"):
            await check(server, cache_salt="required")
        with pytest.raises(Misconfigured, match=r"^TESSERA_GENERATION_MODELS \(large\), cache_salt is required"):
            await check(server, models={"large": model})


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_a_server_that_has_no_time_is_unavailable(server: ModelServer, status: int) -> None:
    server.listing = status
    with pytest.raises(Unavailable, match=rf"answers {status}"):
        await check(server)


async def test_a_server_that_is_away_is_unavailable_and_named(server: ModelServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(Unavailable, match=f"{away} of TESSERA_GENERATION_BASE_URLS cannot be reached"):
            await check(server, base_urls=[away])
    with pytest.raises(Misconfigured, match="large"):  # what is wrong for good goes before what is away
        await check(server, base_urls=[away], models={"large": {"base_urls": [server.url]}})


async def test_a_certificate_that_is_not_trusted_is_named_with_what_mends_it(tmp_path: Path) -> None:
    certify(tmp_path)
    async with running_model_server(certified=tmp_path) as server:
        with pytest.raises(Misconfigured, match=r"of TESSERA_GENERATION_BASE_URLS .* in SSL_CERT_FILE"):
            await check(server)


async def test_a_replica_that_is_not_started_is_no_fault_while_another_answers(server: ModelServer) -> None:
    """Its name gets an address when the number of replicas is raised."""
    absent = "http://replica-7.invalid:8000/v1"
    await check(server, base_urls=[absent])
    with pytest.raises(Unavailable, match=f"{absent} of TESSERA_GENERATION_BASE_URLS cannot be reached"):
        await check(server, base_url=absent)
