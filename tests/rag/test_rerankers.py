"""What every reranker keeps: one suite for late interaction, for a cross-encoder, and for servers of `/rerank`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rag.passages import Passage, Ranks
from rag.search.build import build_reranker
from rag.search.passages import Candidate
from rag.search.rerank import Reranker
from rag.settings import SearchSettings
from shards.embed import MiniLmEmbedder
from shards.minilm_weights import model_folder
from shards.settings import EmbedSettings
from shards.torch_models import has_torch
from tests.cross_encoder_folder import make
from tests.embedding_server import EmbeddingServer
from tests.servers import server

if TYPE_CHECKING:
    from _pytest.fixtures import SubRequest

RERANKERS = ["late_interaction", "stand_in", "stand_in_tei", "vllm", "torch"]
TEXTS = [f"Crate {n} holds salt and wool from the valley." for n in range(40)]
TEXTS[7] = "Amber is old resin of pines."


@pytest.fixture(scope="module")
def stand_in() -> Iterator[EmbeddingServer]:
    started = EmbeddingServer(key="right")
    yield started
    started.close()


def settings_of(name: str, stand_in: EmbeddingServer, folder: Path) -> SearchSettings:
    """Return the settings of a reranker; skip where what it needs is not here."""
    if name.startswith("stand_in"):
        form = "tei" if name.endswith("tei") else "cohere"
        told = {"rerank_url": stand_in.url, "rerank_key": "right", "rerank_form": form}
        return SearchSettings.model_validate({"reranker": "remote:words", **told})
    if name == "vllm":
        given = server("vllm_rerank")
        told = {"rerank_url": given["base_url"], "rerank_key": given["key"], "rerank_timeout_s": "30"}
        return SearchSettings.model_validate({"reranker": f"remote:{given['model']}", **told})
    if name == "torch":
        if not has_torch():
            server("torch")
            pytest.skip("run in the environment that has torch, by test_in_torch.py")
        make(folder, model_folder())
        return SearchSettings(reranker=f"cross_encoder:{folder}", rerank_device="cpu", rerank_precision="bfloat16")
    return SearchSettings(reranker=name)


@pytest.fixture(params=RERANKERS, scope="module")
def name(request: SubRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
async def reranker(
    name: str, stand_in: EmbeddingServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Reranker]:
    made = build_reranker(settings_of(name, stand_in, tmp_path_factory.mktemp("cross_encoder")))
    assert made is not None
    yield made
    await made.aclose()


@pytest.fixture(scope="module")
async def embedder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MiniLmEmbedder]:
    made = MiniLmEmbedder(EmbedSettings(cache_dir=tmp_path_factory.mktemp("models"), precision="float32"))
    yield made
    await made.aclose()


async def candidates_of(embedder: MiniLmEmbedder, texts: Sequence[str]) -> list[Candidate]:
    bits = (await embedder.embed_passages(texts)).token_bits
    return [Candidate(passage_of(at, text), bits[at]) for at, text in enumerate(texts)]


def passage_of(at: int, text: str) -> Passage:
    return Passage(
        chunk_id=UUID(int=at),
        document_id=UUID(int=1),
        external_id=None,
        title="Goods",
        headings=("Stock",),
        text=text,
        page=None,
        start=0,
        end=len(text),
        version=1,
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        metadata={},
        score=0.0,
        ranks=Ranks(None, None, None),
    )


async def scores_of(reranker: Reranker, embedder: MiniLmEmbedder, question: str, texts: Sequence[str]) -> list[float]:
    query = await embedder.embed_query(question)
    idf = dict.fromkeys(query.words, 1.0)
    return await reranker.scores(question, query, idf, await candidates_of(embedder, texts))


async def test_there_is_one_score_a_candidate_in_their_order(
    name: str, reranker: Reranker, embedder: MiniLmEmbedder
) -> None:
    scores = await scores_of(reranker, embedder, "Is amber resin?", TEXTS)
    assert len(scores) == len(TEXTS)
    assert all(isinstance(score, float) for score in scores)
    turned = await scores_of(reranker, embedder, "Is amber resin?", TEXTS[::-1])
    assert turned[::-1] == pytest.approx(scores, abs=0.02)
    if name not in ("vllm", "torch"):  # whose weights are random
        assert max(range(len(scores)), key=scores.__getitem__) == 7


async def test_none_and_one_and_very_long_ones_are_scored(reranker: Reranker, embedder: MiniLmEmbedder) -> None:
    assert await scores_of(reranker, embedder, "Amber?", []) == []
    assert len(await scores_of(reranker, embedder, "Amber?", TEXTS[:1])) == 1
    long = "Is amber resin? " * 100
    assert len(await scores_of(reranker, embedder, long, TEXTS[:2])) == 2


async def test_what_is_set_up_passes_its_check(reranker: Reranker) -> None:
    await reranker.check()
