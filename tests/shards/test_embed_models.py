"""The models of an installation: loaded when needed, shared, and read for words by the bundled one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shards.call_seconds import BOUNDS_S
from shards.catalog import Recipe
from shards.embed import NAME, NAME_FLOAT32
from shards.embed_models import EmbedModels, check_recipe
from shards.model_server import Away
from shards.settings import EmbedModel, EmbedSettings
from tenants.errors import InvalidRequest, Misconfigured, Unavailable
from tests.embedding_server import DIM, EmbeddingServer, vector_of

if TYPE_CHECKING:
    from pathlib import Path

LONG = " ".join(f"crate {n} of amber," for n in range(200))


@pytest.fixture
async def models(server: EmbeddingServer, tmp_path: Path) -> AsyncIterator[EmbedModels]:
    declared = {
        "words": EmbedModel(
            kind="openai", url=server.url, dim=DIM, query_prefix="asked: ", max_tokens=2000, budget_s=1
        ),
        "wrong": EmbedModel(kind="openai", url=server.url, dim=DIM + 1),
    }
    made = EmbedModels(EmbedSettings(cache_dir=tmp_path, precision="int8", threads=1, models=declared))
    yield made
    await made.aclose()


async def test_a_model_on_a_server_gives_the_vectors_and_the_bundled_one_the_token_bits(models: EmbedModels) -> None:
    texts = ["Amber and salt.", "Wool from the hills.", LONG]
    words = await models.get("words")
    assert words is await models.get("words")
    made = await words.embed_passages(texts)
    assert np.allclose(made.vectors, np.stack([vector_of(text) for text in texts]), atol=1e-6)
    bundled = await models.bundled.embed_passages(texts[:2])
    assert made.token_bits[:2] == bundled.token_bits
    spans = models.bundled.token_spans(LONG)
    assert len(spans) > 2 * models.bundled.max_tokens
    assert len(made.token_bits[2]) > 48 * 500, "of a long text too, window by window"
    question = await words.embed_query("Amber?")
    assert np.allclose(question.vector, vector_of("asked: Amber?"), atol=1e-6)
    assert (await words.embed_passages([])).vectors.shape == (0, DIM)


async def test_float32_is_a_model_of_its_own_and_near_the_other(models: EmbedModels) -> None:
    exact = await models.get(NAME_FLOAT32)
    assert (exact.name, models.bundled.name) == (NAME_FLOAT32, NAME)
    ours, theirs = [(await one.embed_passages(["Amber."])).vectors[0] for one in (exact, models.bundled)]
    assert 0.99 < float(ours @ theirs) < 0.999999
    assert (await models.bundled.embed_query("Amber")).vector.tolist() == (
        await exact.embed_query("Amber")
    ).vector.tolist()


async def test_calls_are_timed_by_model_and_kind_and_apart_when_it_is_away(
    models: EmbedModels, server: EmbeddingServer
) -> None:
    words = await models.get("words")
    server.delay_s = 0.3
    await words.embed_query("Amber")
    server.delay_s = 0
    await words.embed_passages(["Amber", "Salt"])
    server.failing = True
    with pytest.raises(Away):
        await words.embed_query("Amber")
    found = models.seconds["words"].found
    assert {key: sum(seconds.counts) for key, seconds in found.items()} == {
        ("question", "answered"): 1,
        ("batch", "answered"): 1,
        ("question", "away"): 1,
    }
    question = found["question", "answered"]
    assert question.counts[BOUNDS_S.index(0.5)] == 1
    assert 0.3 <= question.total_s < 0.5
    assert {call for call, _ in models.seconds[NAME].found} == {"batch"}, "the bundled model reads the tokens"


async def test_a_model_that_is_away_says_why(models: EmbedModels, server: EmbeddingServer) -> None:
    with pytest.raises(Unavailable, match="shape") as found:
        await (await models.get("wrong")).embed_query("Amber")
    assert found.value.code == "embedder_unavailable"
    server.failing = True
    with pytest.raises(Away) as away:
        await (await models.get("words")).embed_passages(["Amber"])
    assert "out of memory" in away.value.why
    with pytest.raises(Unavailable, match="not declared"):
        await models.get("gone")


def test_what_is_declared_wrongly_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="not one of all-MiniLM-L6-v2, all-MiniLM-L6-v2-float32"):
        EmbedModels(EmbedSettings(cache_dir=tmp_path, model="moon"))
    named = {NAME: EmbedModel(kind="openai", url="http://x", dim=4)}
    with pytest.raises(Misconfigured, match="bundled"):
        EmbedModels(EmbedSettings(cache_dir=tmp_path, models=named))
    with pytest.raises(ValueError, match="url"):
        EmbedModel(kind="openai", dim=4)


def test_a_recipe_is_checked_against_the_model(models: EmbedModels) -> None:
    check_recipe(models, Recipe(NAME), "words", 500)
    with pytest.raises(InvalidRequest, match="at most 254"):
        check_recipe(models, Recipe(NAME), None, 500)
    with pytest.raises(InvalidRequest, match="only all-MiniLM-L6-v2, "):
        check_recipe(models, Recipe(NAME), "moon", None)
