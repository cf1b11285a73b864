"""What a server of models may do wrong, and what is made of it: one suite for embedding and for reranking over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr

from shards.model_server import Away, Refusal
from shards.remote_model import RemoteModel
from shards.remote_reranker import RemoteReranker
from shards.settings import EmbedModel
from tenants.errors import Misconfigured
from tests.certificates import certify
from tests.embedding_server import DIM, EmbeddingServer

Rows = list[dict[str, Any]]
Kind = Literal["question", "passages", "cohere", "tei"]
Ask = Callable[[], Awaitable[object]]
KINDS: list[Kind] = ["question", "passages", "cohere", "tei"]
TEXTS = [f"Crate {n} holds amber." for n in range(30)]


@asynccontextmanager
async def asking(
    kind: Kind, *servers: EmbeddingServer, seconds: float = 1.5, key: str = "", model: str = "words"
) -> AsyncIterator[Ask]:
    """Yield a call that gives as many results as it asks for, within so many seconds."""
    urls = [server.url for server in servers]
    if kind in ("cohere", "tei"):
        reranker = RemoteReranker(model, urls, SecretStr(key), form=kind, budget_s=seconds, at_once=8)
        async with aclosing(reranker):
            yield lambda: reranker.scores("Amber?", TEXTS)
        return
    told = {"timeout_s": seconds, "budget_s": seconds, "question_timeout_s": seconds, "key": key, "model": model}
    embedder = RemoteModel("words", EmbedModel.model_validate({"kind": "openai", "url": urls, "dim": DIM, **told}))
    async with aclosing(embedder):
        yield (lambda: embedder.question("Amber?")) if kind == "question" else (lambda: embedder.passages(TEXTS))


async def why(ask: Ask, code: str) -> str:
    """Return what the operator is told of a call that fails; whoever else is told, learns no address."""
    with pytest.raises(Away) as error:
        await ask()
    assert error.value.code == code
    assert "http" not in error.value.detail
    return error.value.why


def code_of(kind: Kind) -> str:
    return "reranker_unavailable" if kind in ("cohere", "tei") else "embedder_unavailable"


def one_less(rows: Rows) -> Rows:
    return rows[1:]


def of_another(rows: Rows) -> Rows:
    return [row | {"index": row["index"] + 1} for row in rows]


def not_finite(rows: Rows) -> Rows:
    return [row | {"embedding": [float("nan")] * DIM, "relevance_score": 1e999, "score": 1e999} for row in rows]


def nothing_to_read(rows: Rows) -> Rows:
    return [{"place": row["index"]} for row in rows]


@pytest.mark.parametrize("spoil", [one_less, of_another, not_finite, nothing_to_read])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_that_is_wrong_is_not_taken(
    server: EmbeddingServer, kind: Kind, spoil: Callable[[Rows], Rows]
) -> None:
    async with asking(kind, server) as ask:
        server.spoil = spoil
        await why(ask, code_of(kind))
        server.spoil = list
        await ask()


@pytest.mark.parametrize("status", [424, 429, 500])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_passes_is_tried_again(server: EmbeddingServer, kind: Kind, status: int) -> None:
    server.statuses, server.retry_after = [status, status], "0"
    async with asking(kind, server) as ask:
        await ask()
    assert server.asked == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_who_asks_for_more_patience_than_there_is_is_not_asked_again(server: EmbeddingServer, kind: Kind) -> None:
    server.statuses, server.retry_after = [429] * 9, "60"
    async with asking(kind, server) as ask:
        assert f"{server.url} answers 429" in await why(ask, code_of(kind))
    assert server.asked == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_who_does_not_answer_is_left_alone_for_a_moment(server: EmbeddingServer, kind: Kind) -> None:
    async with asking(kind, server, seconds=0.5) as ask:
        server.delay_s = 5
        began = time.monotonic()
        for _ in range(2):
            await why(ask, code_of(kind))
        assert time.monotonic() - began < 3
        asked = server.asked
        assert "left alone" in await why(ask, code_of(kind))
        assert server.asked == asked
        server.delay_s = 0
        async with asyncio.timeout(10):
            while True:
                try:
                    await ask()
                except Away:
                    await asyncio.sleep(0.1)
                else:
                    break


@pytest.mark.parametrize("kind", KINDS)
async def test_of_several_the_next_is_asked(server: EmbeddingServer, other: EmbeddingServer, kind: Kind) -> None:
    async with asking(kind, server, other) as ask:
        server.failing = True
        await ask()
        asked = server.asked
        for _ in range(5):
            await ask()
        assert server.asked == asked, "who answered last is asked first"
        other.failing = True
        assert "answers 500" in await why(ask, code_of(kind))


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_hangs_leaves_time_for_the_next(
    server: EmbeddingServer, other: EmbeddingServer, kind: Kind
) -> None:
    server.delay_s, other.delay_s = 5, 0.3
    async with asking(kind, server, other) as ask:
        await ask()


@pytest.mark.parametrize("given", [{"key": "wrong"}, {"key": "right", "model": "unknown"}])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_key_or_model_makes_work_wait(
    server: EmbeddingServer, kind: Kind, given: dict[str, str]
) -> None:
    if kind == "tei" and "model" in given:
        return  # whose form names no model
    server.key = "right"
    async with asking(kind, server, **given) as ask:  # type: ignore[arg-type]
        with pytest.raises(Refusal):
            await ask()
    assert server.asked == 1


@pytest.mark.parametrize("given", [{"page": "<html>"}, {"statuses": [302] * 99}])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_such_server_is_away_and_the_next_is_asked(
    server: EmbeddingServer, other: EmbeddingServer, kind: Kind, given: dict[str, Any]
) -> None:
    vars(server).update(given)
    async with asking(kind, server, seconds=0.5) as ask:
        with pytest.raises(Away) as error:
            await ask()
        assert error.value.lasts
        assert f"{server.url} is no server of /" in error.value.why
    async with asking(kind, server, other) as ask:
        await ask()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_environments_authority_vouches_for_it_and_its_proxies_see_nothing(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certify(tmp_path)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with closing(EmbeddingServer()) as plain, closing(EmbeddingServer(certified=tmp_path)) as certified:
        async with asking(kind, plain) as ask:
            await ask()
        async with asking(kind, certified) as ask:
            said = await why(ask, code_of(kind))
            assert "CERTIFICATE_VERIFY_FAILED" in said
            assert "in SSL_CERT_FILE" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with asking(kind, certified) as ask:
            await ask()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(Misconfigured, match="SSL_CERT_FILE"):
        async with asking(kind, certified):
            pass
