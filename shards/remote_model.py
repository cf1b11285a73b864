"""An embedding model behind a server that speaks OpenAI's `/v1/embeddings` (vLLM, TEI and others)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openai
from numpy.typing import NDArray

from shards.settings import EmbedModel
from tenants.errors import Unavailable

_AT_ONCE = 64
_RETRIES = 1


class RemoteModel:
    """`DenseModel` on a server."""

    def __init__(self, name: str, settings: EmbedModel) -> None:
        self._name, self._settings = name, settings
        self._client = openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=settings.key.get_secret_value() or "none",
            timeout=settings.timeout_s,
            max_retries=_RETRIES,
        )

    async def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `DenseModel.passages`."""
        prefixed = [self._settings.passage_prefix + text for text in texts]
        parts = [await self._ask(prefixed[at : at + _AT_ONCE]) for at in range(0, len(prefixed), _AT_ONCE)]
        return np.concatenate(parts)

    async def question(self, text: str) -> NDArray[np.float32]:
        """See `DenseModel.question`."""
        vector: NDArray[np.float32] = (await self._ask([self._settings.query_prefix + text]))[0]
        return vector

    async def aclose(self) -> None:
        """See `DenseModel.aclose`."""
        await self._client.close()

    async def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        model = self._settings.model or self._name
        try:
            answer = await self._client.embeddings.create(model=model, input=texts, encoding_format="float")
            rows = [row.embedding for row in sorted(answer.data, key=lambda row: row.index)]
            vectors = np.array(rows, dtype=np.float32)
        except openai.OpenAIError as error:
            raise self._away(f"{type(error).__name__}: {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise self._away("its answer cannot be read") from error
        if vectors.shape != (len(texts), self._settings.dim):
            raise self._away(
                f"it gave vectors of shape {vectors.shape} for {len(texts)} texts of {self._settings.dim} dimensions"
            )
        return vectors

    def _away(self, why: str) -> Unavailable:
        return Unavailable(
            f"The embedding model {self._name!r} does not answer: {why}"[:500], code="embedder_unavailable"
        )
