"""What every embedder keeps: one suite for the bundled model and for models that are computed elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from shards.embed import NAME, NAME_FLOAT32, Embedder
from shards.embed_models import EmbedModels
from shards.minilm_weights import model_folder
from shards.settings import EmbedModel, EmbedSettings
from shards.torch_models import has_torch
from tenants.errors import InvalidRequest
from tests.embedding_server import DIM, EmbeddingServer
from tests.servers import server

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

MINILM = {"dim": 384, "max_tokens": 256}
EMBEDDERS = ["int8", "float32", "stand_in", "vllm", "torch_float32", "torch_bfloat16"]
SHORT = ["Amber is old resin.", "Salt", "Wool comes from the hills, and is spun in the valley below them."]
TEXTS = [*SHORT, " ".join(f"Crate {n} holds amber." for n in range(30))]


@pytest.fixture(scope="module")
def stand_in() -> Iterator[EmbeddingServer]:
    started = EmbeddingServer()
    yield started
    started.close()


def declared(name: str, stand_in: EmbeddingServer) -> EmbedModel | None:
    """Return how a further model is declared; skip where what it needs is not here."""
    if name == "stand_in":
        return EmbedModel(kind="openai", url=stand_in.url, dim=DIM, batch_texts=2)
    if name == "vllm":
        given = server("vllm_embed")
        return EmbedModel(kind="openai", url=given["base_url"], key=given["key"], model=given["model"], **MINILM)
    if name.startswith("torch_"):
        if not has_torch():
            server("torch")
            pytest.skip("run in the environment that has torch, by test_in_torch.py")
        precision = name.removeprefix("torch_")
        folder = str(model_folder())
        return EmbedModel.model_validate(
            {"kind": "sentence-transformers", "model": folder, "device": "cpu", "precision": precision, **MINILM}
        )
    return None


@pytest.fixture(params=EMBEDDERS, scope="module")
def name(request: SubRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
async def models(
    name: str, stand_in: EmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbedModels]:
    further = declared(name, stand_in)
    settings = EmbedSettings(
        cache_dir=tmp_path_factory.mktemp("models"),
        precision="int8" if name == "int8" else "float32",
        models={} if further is None else {"further": further},
    )
    made = EmbedModels(settings)
    yield made
    await made.aclose()


@pytest.fixture(scope="module")
async def embedder(models: EmbedModels) -> Embedder:
    return await models.get("further" if "further" in models.names else NAME)


async def test_passages_are_unit_vectors_in_their_order_however_many(embedder: Embedder) -> None:
    together = await embedder.embed_passages(TEXTS)
    assert together.vectors.shape == (len(TEXTS), embedder.dim)
    assert together.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=1e-3)
    assert len(together.token_bits) == len(TEXTS)
    assert all(len(bits) % 48 == 0 and bits for bits in together.token_bits)
    for at in (0, 3):
        alone = (await embedder.embed_passages([TEXTS[at]])).vectors[0]
        assert float(alone @ together.vectors[at]) > 0.999, "a vector does not depend on its neighbours"
    none = await embedder.embed_passages([])
    assert none.vectors.shape == (0, embedder.dim)
    assert none.token_bits == []


async def test_a_question_is_near_what_answers_it(embedder: Embedder) -> None:
    passages = (await embedder.embed_passages(SHORT)).vectors
    question = await embedder.embed_query("Is amber resin?")
    assert question.vector.shape == (embedder.dim,)
    assert abs(float(np.linalg.norm(question.vector)) - 1) < 1e-3
    assert int(np.argmax(passages @ question.vector)) == 0


async def test_a_passage_is_never_cut_and_a_question_is_of_any_length(embedder: Embedder) -> None:
    spans = embedder.token_spans(TEXTS[3])
    assert TEXTS[3][spans[0][0] : spans[0][1]].lower() == "crate"
    long = "amber " * 4000
    with pytest.raises(InvalidRequest) as error:
        await embedder.embed_passages([TEXTS[0], long])
    assert error.value.code == "text_too_long"
    found = await embedder.embed_query(f"Is amber resin? {long}")
    assert np.isfinite(found.vector).all()


async def test_what_is_declared_passes_its_check(models: EmbedModels) -> None:
    await models.check()
    await models.load(["gpu"])


async def test_minilm_is_the_same_wherever_it_is_computed(models: EmbedModels, embedder: Embedder) -> None:
    if embedder.dim != MINILM["dim"]:
        return  # another model
    exact = await models.get(NAME_FLOAT32)
    here, there = [(await one.embed_passages(TEXTS)).vectors for one in (exact, embedder)]
    cosines = (here * there).sum(axis=1)
    assert cosines.min() > 0.99, cosines
    questions = [(await one.embed_query("Is amber resin?")).vector for one in (exact, embedder)]
    assert float(questions[0] @ questions[1]) > 0.99
