"""An embedding model of sentence-transformers, in this process. Needs the extra `tessera[torch]`."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.settings import EmbedModel
from tenants.errors import Unavailable


class SentenceModel:
    """`DenseModel` on torch, on a GPU where there is one; one call at a time, which fills it."""

    def __init__(self, name: str, settings: EmbedModel) -> None:
        self._settings = settings
        self._turn = asyncio.Lock()
        try:
            library: Any = importlib.import_module("sentence_transformers")
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"The embedding model {name!r} needs `pip install 'tessera[torch]'`.", code="embedder_unavailable"
            ) from error
        try:
            self._model = library.SentenceTransformer(settings.model or name)
        except (OSError, ValueError, RuntimeError) as error:
            raise Unavailable(
                f"The embedding model {name!r} cannot be loaded: {error}"[:500], code="embedder_unavailable"
            ) from error

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
        async with self._turn:
            found = await asyncio.to_thread(self._model.encode, texts, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)
