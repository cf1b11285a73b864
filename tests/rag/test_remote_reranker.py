"""What a server of `/rerank` may do wrong: the search goes on without it, and says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rag.search.build import build_reranker
from rag.settings import SearchSettings
from shards.remote_reranker import RemoteReranker
from tenants.errors import Misconfigured, Unavailable
from tests.certificates import certify
from tests.embedding_server import EmbeddingServer

Rows = list[dict[str, Any]]
PASSAGES = [f"Crate {n} holds amber." for n in range(30)]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    started = EmbeddingServer()
    yield started
    started.close()


def reranker(server: EmbeddingServer, **given: Any) -> RemoteReranker:
    told = {
        "addresses": [server.url],
        "key": SearchSettings().rerank_key,
        "form": "cohere",
        "budget_s": 1.2,
        "at_once": 2,
    }
    return RemoteReranker(given.pop("model", "words"), **{**told, **given})


async def test_a_search_makes_one_request_with_every_candidate(server: EmbeddingServer) -> None:
    made = reranker(server)
    assert len(await made.scores("Amber?", PASSAGES)) == 30
    [body] = server.bodies
    assert (body["model"], body["query"], len(body["documents"])) == ("words", "Amber?", 30)
    await made.scores("Amber? " * 5000, ["salt " * 50_000])
    assert len(server.bodies[1]["query"]) <= 2000
    assert len(server.bodies[1]["documents"][0]) <= 8000
    await made.aclose()


@pytest.mark.parametrize("form", ["cohere", "tei"])
async def test_a_server_that_takes_fewer_passages_is_asked_in_halves_within_one_budget(
    server: EmbeddingServer, form: str
) -> None:
    made = reranker(server, form=form)
    expected = await made.scores("Amber crate 7?", PASSAGES)
    server.most_texts = 8
    assert await made.scores("Amber crate 7?", PASSAGES) == expected
    server.delay_s = 0.5
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await made.scores("Amber?", PASSAGES)
    assert time.monotonic() - began < 2
    await made.aclose()


async def test_a_search_waits_no_longer_than_the_budget_and_for_its_turn_within_it(server: EmbeddingServer) -> None:
    made = reranker(server)
    server.delay_s = 30
    began = time.monotonic()
    # More than have a turn: waiting for one counts.
    found = await asyncio.gather(*(made.scores("Amber?", PASSAGES) for _ in range(6)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in found)
    assert time.monotonic() - began < 10, "not thirty seconds"
    await made.aclose()


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "TESSERA_SEARCH_RERANK_KEY"), ({"key": "right", "model": "unknown"}, "TESSERA_SEARCH_RERANKER")],
)
async def test_the_check_names_what_is_set_up_wrongly(
    server: EmbeddingServer, given: dict[str, str], said: str
) -> None:
    server.key = "right"
    told = {"reranker": f"remote:{given.get('model', 'words')}", "rerank_url": server.url}
    made = build_reranker(SearchSettings.model_validate({**told, "rerank_key": given.get("key", "wrong")}))
    assert made is not None
    with pytest.raises(Misconfigured, match=said):
        await made.check()
    server.failing = True
    with pytest.raises(Unavailable):
        await made.check()
    await made.aclose()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"statuses": [422] * 9}, r"^TESSERA_SEARCH_RERANK_FORM \(`tei` for text-embeddings-inference.*answers 422"),
        ({"statuses": [302] * 99}, r"^TESSERA_SEARCH_RERANK_URL .* is no server of /rerank \(answers 302\): write "),
        ({"page": "<html>"}, r"^TESSERA_SEARCH_RERANK_URL .* is no server of /rerank \(answers no JSON\): write "),
    ],
)
async def test_the_check_names_another_form_and_what_is_no_such_server(
    server: EmbeddingServer, given: dict[str, Any], said: str
) -> None:
    vars(server).update(given)
    made = reranker(server)
    with pytest.raises(Misconfigured, match=said):
        await made.check()
    await made.aclose()


async def test_the_check_says_how_a_certificate_comes_to_be_trusted(tmp_path: Path) -> None:
    certify(tmp_path)
    with closing(EmbeddingServer(certified=tmp_path)) as certified:
        made = reranker(certified)
        with pytest.raises(Misconfigured, match=r"^TESSERA_SEARCH_RERANK_URL .* in SSL_CERT_FILE"):
            await made.check()
        await made.aclose()


@pytest.mark.parametrize("url", ["", "host:8000", "http://one/v1,two/v1"])
def test_a_remote_reranker_needs_an_address(url: str) -> None:
    with pytest.raises(Misconfigured, match="TESSERA_SEARCH_RERANK_URL"):
        build_reranker(SearchSettings(reranker="remote:words", rerank_url=url))
