"""Models in this process: what does not fit is halved, what is not there says so. On torch where it is installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.cross_encoder import CrossEncoder
from shards.embed_models import EmbedModels
from shards.minilm_weights import model_folder
from shards.sentence_model import SentenceModel
from shards.settings import EmbedModel, EmbedSettings
from shards.torch_models import by_halves, has_torch, in_turn, load
from tenants.errors import Misconfigured, Unavailable
from tests.cross_encoder_folder import make
from tests.embedding_server import EmbeddingServer

needs_torch = pytest.mark.skipif(not has_torch(), reason="the extra `torch` is not installed; test_in_torch.py runs it")


def test_a_batch_that_does_not_fit_is_computed_in_halves() -> None:
    seen: list[int] = []

    def compute(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.append(len(texts))
        if len(texts) > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return np.array([len(text) for text in texts], dtype=np.float32)

    found = by_halves(compute, [str(10**n) for n in range(10)], "The model", "embedder_unavailable")
    assert found.tolist() == list(range(1, 11))
    assert seen[0] == 10

    def never(_: Sequence[str]) -> NDArray[np.float32]:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(Unavailable, match="out of memory") as error:
        by_halves(never, ["a", "b"], "The model", "embedder_unavailable")
    assert error.value.code == "embedder_unavailable"


class Work:
    """Computes until it is let go, and notes how many did so at once."""

    def __init__(self) -> None:
        self.go_on, self.began = threading.Event(), threading.Event()
        self.now = self.most = self.calls = 0

    def __call__(self) -> int:
        self.now, self.calls = self.now + 1, self.calls + 1
        self.most = max(self.most, self.now)
        self.began.set()
        assert self.go_on.wait(20)
        self.now -= 1
        return self.calls


async def cancelled_beside_another(work: Work, call: Callable[[], Awaitable[object]]) -> None:
    """Call twice, and cancel the first while it computes."""
    first = asyncio.ensure_future(call())
    assert await asyncio.to_thread(work.began.wait, 20)
    second = asyncio.ensure_future(call())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.2)
    assert work.calls == 1, "it waits for the thread that still computes"
    work.go_on.set()
    await second
    assert (work.calls, work.most) == (2, 1)


async def test_a_call_that_is_cancelled_keeps_its_turn_while_its_thread_computes() -> None:
    work, turn = Work(), asyncio.Lock()
    await cancelled_beside_another(work, lambda: in_turn(turn, work))
    assert not turn.locked()

    def fail() -> None:
        raise Unavailable("Away.")

    with pytest.raises(Unavailable):
        await in_turn(turn, fail)
    assert not turn.locked()


class HeldModel(SentenceModel):
    """Computes when it is let go."""

    work: Work

    def _encode_now(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.work()
        return super()._encode_now(texts)


class HeldReranker(CrossEncoder):
    """The same."""

    work: Work

    def _predict(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        self.work()
        return super()._predict(pairs)


@needs_torch
async def test_models_in_this_process_compute_one_call_at_a_time_whoever_leaves(tmp_path: Path) -> None:
    declared = EmbedModel(kind="sentence-transformers", model=str(model_folder()), dim=384, max_tokens=256)
    model = HeldModel("big", declared)
    model.work = Work()
    await cancelled_beside_another(model.work, lambda: model.question("Amber?"))
    make(tmp_path, model_folder())
    reranker = HeldReranker(str(tmp_path), device="cpu")
    reranker.work = Work()
    await cancelled_beside_another(reranker.work, lambda: reranker.scores("Amber?", ["Resin."]))


@pytest.mark.skipif(has_torch(), reason="the extra `torch` is installed")
async def test_a_process_that_lacks_it_says_what_to_do_and_work_waits(tmp_path: Path) -> None:
    declared = EmbedModel(kind="sentence-transformers", dim=384, max_tokens=256)
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"big": declared}))
    with pytest.raises(Misconfigured, match=r"TESSERA_EMBED_MODELS.*'big'.*`url`.*tessera\[torch\]"):
        await models.check()
    big = await models.get("big")
    with pytest.raises(Unavailable, match=r"tessera\[torch\]") as error:
        await big.embed_passages(["Amber."])
    assert error.value.code == "embedder_unavailable"
    await models.aclose()


async def test_questions_go_to_the_server_where_there_is_one(tmp_path: Path) -> None:
    server = EmbeddingServer()
    declared = EmbedModel(kind="sentence-transformers", url=server.url, dim=64)
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"big": declared}))
    await models.check()
    await (await models.get("big")).embed_query("Amber?")
    assert [body["input"] for body in server.bodies][-1] == ["Amber?"]
    await models.aclose()
    server.close()


@needs_torch
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dim": 385, "max_tokens": 256}, "has 384 dimensions; its `dim` says 385"),
        ({"dim": 384, "max_tokens": 512}, "reads 256 tokens; its `max_tokens` says 512"),
        ({"dim": 384, "max_tokens": 256, "model": "/nowhere"}, "cannot be loaded"),
        ({"dim": 384, "max_tokens": 256, "device": "cuda"}, "sees no GPU"),
    ],
)
async def test_what_is_declared_wrongly_for_torch_is_named(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    declared = EmbedModel.model_validate({"kind": "sentence-transformers", "model": str(model_folder()), **given})
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"big": declared}))
    with pytest.raises(Misconfigured, match=said):
        await models.load(["gpu"])
    await models.aclose()


@needs_torch
async def test_torch_and_a_server_that_has_another_model_are_told_apart(tmp_path: Path) -> None:
    server = EmbeddingServer()
    server.spoil = lambda rows: [row | {"embedding": [1.0] * 384} for row in rows]
    declared = EmbedModel(
        kind="sentence-transformers", model=str(model_folder()), url=server.url, dim=384, max_tokens=256
    )
    models = EmbedModels(EmbedSettings(cache_dir=tmp_path, models={"big": declared}))
    with pytest.raises(Misconfigured, match="another model than the workers load"):
        await models.load(["gpu"])
    await models.aclose()
    server.close()


@needs_torch
def test_half_precision_is_what_torch_computes_in() -> None:
    model = load("SentenceTransformer", str(model_folder()), "cpu", "bfloat16", "TESSERA_EMBED_MODELS")
    assert {str(one.dtype) for one in model.parameters()} == {"torch.bfloat16"}
