"""What a server of `/v1/embeddings` may do wrong, and what is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.embed_models import EmbedModels
from shards.model_server import Away
from shards.remote_model import RemoteModel
from shards.settings import EmbedModel, EmbedSettings
from shards.text_batches import batches
from tenants.errors import EmbeddingRefused, Misconfigured, Unavailable
from tests.certificates import certify
from tests.embedding_server import DIM, EmbeddingServer, vector_of

Rows = list[dict[str, Any]]
TEXTS = [f"Crate {n} holds amber{' and salt' * (n % 7)}." for n in range(50)]
EXPECTED = np.stack([vector_of(text) for text in TEXTS])


def model(*servers: EmbeddingServer, **given: Any) -> RemoteModel:
    impatient = {"timeout_s": 2, "budget_s": 2, "question_timeout_s": 1.5, "connect_timeout_s": 0.5}
    urls = [server.url for server in servers]
    return RemoteModel(
        "words", EmbedModel.model_validate({"kind": "openai", "url": urls, "dim": DIM, **impatient, **given})
    )


@pytest.fixture
async def words(server: EmbeddingServer) -> AsyncIterator[RemoteModel]:
    made = model(server)
    yield made
    await made.aclose()


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_many_passages_go_in_bounded_batches_a_few_at_a_time(server: EmbeddingServer, encoding: str) -> None:
    made = model(server, encoding=encoding, batch_texts=8, batch_tokens=200, at_once=3, passage_prefix="passage: ")
    server.delay_s = 0.02
    found = await made.passages(TEXTS)
    assert np.allclose(found, np.stack([vector_of("passage: " + text) for text in TEXTS]), atol=1e-6)
    assert {body["encoding_format"] for body in server.bodies} == {encoding}
    assert max(len(body["input"]) for body in server.bodies) <= 8
    assert max(sum(map(len, body["input"])) for body in server.bodies) <= 200 * 4
    assert sorted(text for body in server.bodies for text in body["input"]) == sorted("passage: " + t for t in TEXTS)
    assert 1 < server.most_at_once <= 3
    assert "dimensions" not in server.bodies[0]
    await made.aclose()


async def test_a_server_is_asked_for_shorter_vectors_where_that_is_declared(server: EmbeddingServer) -> None:
    made = model(server, shortened=True)
    await made.question("Amber?")
    assert server.bodies[0]["dimensions"] == DIM
    await made.aclose()


def test_batches_hold_like_lengths_and_every_text_once() -> None:
    texts = ["x" * (n * 37 % 1000) for n in range(200)]
    found = batches(texts, most=16, tokens=1000)
    assert sorted(at for group in found for at in group) == list(range(200))
    assert max(map(len, found)) <= 16
    costs = [max(len(texts[at]) // 3 + 2 for at in group) * len(group) for group in found]
    assert max(costs) <= 1000
    assert len(found) < 200 / 3, "they are filled"
    assert batches(["x" * 90_000], most=16, tokens=1000) == [[0]]
    assert batches([], most=16, tokens=1000) == []


def reversed_rows(rows: Rows) -> Rows:
    return rows[::-1]


async def test_vectors_are_put_in_order_by_their_index(server: EmbeddingServer, words: RemoteModel) -> None:
    server.spoil = reversed_rows
    assert np.allclose(await words.passages(TEXTS), EXPECTED, atol=1e-6)


def one_twice(rows: Rows) -> Rows:
    return [*rows[:-1], rows[0]]


def of_another_length(rows: Rows) -> Rows:
    return [row | {"embedding": [1.0] * (DIM - 1)} for row in rows]


@pytest.mark.parametrize("spoil", [one_twice, of_another_length])
async def test_vectors_that_are_not_those_of_the_texts_are_not_taken(
    server: EmbeddingServer, words: RemoteModel, spoil: Callable[[Rows], Rows]
) -> None:
    server.spoil = spoil
    for call in (words.passages(TEXTS[:3]), words.passages(TEXTS)):
        with pytest.raises(Unavailable) as error:
            await call
        assert error.value.code == "embedder_unavailable"
    server.spoil = list
    assert np.allclose(await words.passages(TEXTS), EXPECTED, atol=1e-6)


@pytest.mark.parametrize("words_of_time", ["Sat, 22 Nov 2036 09:00:00 GMT", "\u00b2", "-1"])
async def test_a_pause_that_is_no_number_of_seconds_is_not_read(
    server: EmbeddingServer, words: RemoteModel, words_of_time: str
) -> None:
    server.statuses, server.retry_after = [429], words_of_time
    assert np.allclose(await words.question("Amber?"), vector_of("Amber?"), atol=1e-6)


async def test_passages_that_take_as_long_as_one_request_may_are_waited_for(
    server: EmbeddingServer, other: EmbeddingServer
) -> None:
    made = model(server, other, timeout_s=2, budget_s=1)
    server.delay_s = other.delay_s = 1.3
    assert np.allclose(await made.passages(TEXTS), EXPECTED, atol=1e-6)
    await made.aclose()


async def test_a_server_that_takes_fewer_texts_than_a_batch_has_is_asked_in_halves(server: EmbeddingServer) -> None:
    made = model(server, batch_texts=50)
    server.most_texts = 12
    assert np.allclose(await made.passages(TEXTS), EXPECTED, atol=1e-6)
    assert [len(body["input"]) for body in server.bodies] == [50, 25, 12, 13, 6, 7, 25, 12, 13, 6, 7]
    await made.aclose()


async def test_a_refused_text_fails_alone_and_says_nothing_of_the_server(
    server: EmbeddingServer, words: RemoteModel
) -> None:
    with pytest.raises(EmbeddingRefused) as error:
        await words.passages([*TEXTS[:9], "An untakable crate."])
    assert (error.value.code, error.value.retryable) == ("embedding_refused", True)
    assert error.value.detail == "The embedding model refuses a text (400)."
    server.failing = True
    with pytest.raises(Away) as away:
        await words.passages(TEXTS)
    assert away.value.detail == "The embedding model 'words' does not answer."


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_text_can_be_tried_again_alone_and_a_refused_question_is_only_away(
    server: EmbeddingServer, words: RemoteModel, status: int
) -> None:
    server.statuses = [status]
    assert np.allclose(await words.passages(TEXTS[:2]), EXPECTED[:2], atol=1e-6)
    assert server.asked == 3
    server.statuses = [status]
    with pytest.raises(EmbeddingRefused) as error:
        await words.passages(TEXTS[:1])
    assert str(status) in error.value.detail
    server.statuses = [status]
    with pytest.raises(Unavailable):
        await words.question("Amber?")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": "wrong"}, r"TESSERA_EMBED_MODELS: the `key` of 'words' is wrong.*401"),
        ({"key": "right", "model": "unknown"}, r"the `model` or its `url` of 'words' is wrong.*404"),
        ({"key": "right", "dim": DIM + 1}, r"the `dim` of 'words' is wrong.*shape"),
    ],
)
async def test_the_check_names_what_is_declared_wrongly(
    server: EmbeddingServer, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    server.key = "right"
    declared = EmbedModel.model_validate({"kind": "openai", "url": server.url, "dim": DIM, **given})
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"words": declared}))
    with pytest.raises(Misconfigured, match=said):
        await models.check()
    await models.aclose()


async def refusal(server: EmbeddingServer, tmp_path: Path) -> str:
    declared = EmbedModel(kind="openai", url=server.url, dim=DIM, question_timeout_s=0.5, budget_s=0.5)
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"words": declared}))
    with pytest.raises(Misconfigured) as refused:
        await models.check()
    await models.aclose()
    assert refused.value.detail.startswith("TESSERA_EMBED_MODELS: the ")
    return refused.value.detail


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"statuses": [405]}, "the `url` of 'words' is wrong: {url} answers 405"),
        ({"statuses": [422]}, "the `model` of 'words' is wrong: {url} answers 422"),
        ({"statuses": [301] * 99}, "the `url` of 'words' cannot be asked: {url} is no server of /embeddings"),
        ({"page": "<html>"}, "{url} is no server of /embeddings (answers no JSON): write what stands before"),
    ],
)
async def test_the_check_names_an_address_that_is_no_such_server(
    server: EmbeddingServer, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    vars(server).update(given)
    assert said.format(url=server.url) in await refusal(server, tmp_path)


async def test_the_check_says_how_a_certificate_comes_to_be_trusted(tmp_path: Path) -> None:
    certify(tmp_path)
    with closing(EmbeddingServer(certified=tmp_path)) as certified:
        assert "in SSL_CERT_FILE" in await refusal(certified, tmp_path)


@pytest.mark.parametrize("status", [408, 424, 425, 429, 500, 503])
async def test_a_server_that_is_away_is_not_taken_for_a_wrong_one(
    server: EmbeddingServer, tmp_path: Path, status: int
) -> None:
    server.statuses = [status] * 99
    declared = EmbedModel(kind="openai", url=server.url, dim=DIM, question_timeout_s=0.5, budget_s=0.5)
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"words": declared}))
    with pytest.raises(Unavailable, match=f"{server.url} answers {status}"):
        await models.check()
    await models.aclose()
