"""An embedding model of sentence-transformers, in this process. Needs the extra `tessera[torch]`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards import torch_models
from shards.remote_model import RemoteModel
from shards.settings import EmbedModel
from shards.text_batches import batches
from tenants.errors import Misconfigured, Unavailable

SETTING = "TESSERA_EMBED_MODELS"


class ModelOfWorkers:
    """`DenseModel` of those workers that have torch; other processes ask a server that has the same model too.

    It is loaded when it is first needed, and where it cannot be, what needs it waits (`embedder_unavailable`).
    """

    def __init__(self, name: str, settings: EmbedModel) -> None:
        self._name, self._settings = name, settings
        self._remote = RemoteModel(name, settings) if settings.addresses else None
        self._local: SentenceModel | None = None
        self._loading = asyncio.Lock()

    async def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `DenseModel.passages`."""
        return await (await self._loaded()).passages(texts)

    async def question(self, text: str) -> NDArray[np.float32]:
        """See `DenseModel.question`."""
        if self._remote is not None:
            return await self._remote.question(text)
        return await (await self._loaded()).question(text)

    async def aclose(self) -> None:
        """See `DenseModel.aclose`."""
        if self._remote is not None:
            await self._remote.aclose()

    async def _loaded(self) -> SentenceModel:
        async with self._loading:
            if self._local is None:
                try:
                    self._local = await asyncio.to_thread(SentenceModel, self._name, self._settings)
                except Misconfigured as error:
                    raise Unavailable(error.detail, code="embedder_unavailable") from error
        return self._local


class SentenceModel:
    """`DenseModel` on torch, on a GPU where there is one; one call at a time, which fills it.

    Raises:
        Misconfigured: it cannot be loaded, has another dimension, or reads less than was declared.
    """

    def __init__(self, name: str, settings: EmbedModel) -> None:
        self._name, self._settings = name, settings
        self._turn = asyncio.Lock()
        self._model: Any = torch_models.load(
            "SentenceTransformer", settings.model or name, settings.device, settings.precision, SETTING
        )
        dim, reads = self._model.get_embedding_dimension(), self._model.max_seq_length
        if dim != settings.dim:
            raise Misconfigured(f"{SETTING}: {name!r} has {dim} dimensions; its `dim` says {settings.dim}.")
        if reads is not None and reads < settings.max_tokens:
            # It would leave out the end of a passage without a word.
            detail = f"{SETTING}: {name!r} reads {reads} tokens; its `max_tokens` says {settings.max_tokens}"
            raise Misconfigured(f"{detail}: make it {reads} or less.")

    async def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `DenseModel.passages`."""
        return await self._encode([self._settings.passage_prefix + text for text in texts])

    async def question(self, text: str) -> NDArray[np.float32]:
        """See `DenseModel.question`."""
        vector: NDArray[np.float32] = (await self._encode([self._settings.query_prefix + text]))[0]
        return vector

    async def aclose(self) -> None:
        """See `DenseModel.aclose`."""

    async def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self._settings.dim), dtype=np.float32)
        for group in batches(texts, most=self._settings.batch_texts, tokens=self._settings.batch_tokens):
            # A question comes between two batches of passages.
            compute = partial(self._compute, [texts[at] for at in group])
            vectors[group] = await torch_models.in_turn(self._turn, compute)
        return vectors

    def _compute(self, texts: list[str]) -> NDArray[np.float32]:
        what = f"The embedding model {self._name!r}"
        return torch_models.by_halves(self._encode_now, texts, what, "embedder_unavailable")

    def _encode_now(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = self._model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)
