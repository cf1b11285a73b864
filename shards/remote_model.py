"""An embedding model behind a server that speaks OpenAI's `/v1/embeddings` (vLLM, TEI and others)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.model_server import ModelServer, Patience, Refusal, in_halves
from shards.settings import EmbedModel
from shards.text_batches import batches
from tenants.errors import EmbeddingRefused, Unavailable

log = logging.getLogger(__name__)
_QUESTIONS_AT_ONCE = 16


class WrongDimension(Unavailable):
    """A server gives vectors of another dimension than was declared."""


class RemoteModel:
    """`DenseModel` on a server, or on several that serve the same model."""

    def __init__(self, name: str, settings: EmbedModel) -> None:
        self._name, self._settings = name, settings
        patient = Patience(settings.connect_timeout_s, settings.timeout_s, settings.budget_s)
        self._bulk = self._server(patient, settings.at_once)
        # Somebody waits for a question, and does not wait for batches of passages.
        swift = Patience(settings.connect_timeout_s, settings.question_timeout_s, settings.question_timeout_s, True)
        self._single = self._server(swift, _QUESTIONS_AT_ONCE)

    async def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `DenseModel.passages`."""
        prefixed = [self._settings.passage_prefix + text for text in texts]
        vectors = np.empty((len(texts), self._settings.dim), dtype=np.float32)
        groups = batches(prefixed, most=self._settings.batch_texts, tokens=self._settings.batch_tokens)

        async def embed(group: list[int]) -> None:
            vectors[group] = await in_halves(self._passages, [prefixed[at] for at in group])

        asking = [asyncio.create_task(embed(group)) for group in groups]
        try:
            await asyncio.gather(*asking)
        except Refusal as error:
            if error.of_content:
                log.warning("the embedding model %r refuses a text: %s", self._name, error.why)
                raise EmbeddingRefused(f"The embedding model refuses a text ({error.answered}).") from error
            raise
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return vectors

    async def question(self, text: str) -> NDArray[np.float32]:
        """See `DenseModel.question`."""
        vector: NDArray[np.float32] = (await self._ask(self._single, [self._settings.query_prefix + text]))[0]
        return vector

    async def aclose(self) -> None:
        """See `DenseModel.aclose`."""
        await self._bulk.aclose()
        await self._single.aclose()

    def _server(self, patience: Patience, at_once: int) -> ModelServer:
        what = f"The embedding model {self._name!r}"
        given = self._settings
        return ModelServer(what, given.addresses, given.key, patience, code="embedder_unavailable", at_once=at_once)

    async def _passages(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return list(await self._ask(self._bulk, texts))

    async def _ask(self, server: ModelServer, texts: Sequence[str]) -> NDArray[np.float32]:
        body: dict[str, Any] = {
            "model": self._settings.served_as or self._settings.model or self._name,
            "input": list(texts),
            "encoding_format": self._settings.encoding,
        }
        if self._settings.shortened:
            body["dimensions"] = self._settings.dim
        answer = await server.ask("/embeddings", body)
        try:
            vectors = _vectors(answer["data"], len(texts))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise server.away("its answer cannot be read") from error
        if vectors.shape != (len(texts), self._settings.dim):
            detail = f"vectors of shape {vectors.shape} for {len(texts)} texts of {self._settings.dim} dimensions"
            raise WrongDimension(f"The embedding model {self._name!r} gave {detail}.", code="embedder_unavailable")
        if not np.isfinite(vectors).all():
            raise server.away("it gave vectors with numbers that are not finite")
        return vectors


def _vectors(rows: list[dict[str, Any]], count: int) -> NDArray[np.float32]:
    """Return the vectors in the order of their texts, which `index` says; raise `ValueError` when one lacks."""
    by_index = {int(row["index"]): row["embedding"] for row in rows}
    if by_index.keys() != set(range(count)) or len(rows) != count:
        raise ValueError("not one vector a text")
    return np.array([_vector(by_index[at]) for at in range(count)], dtype=np.float32)


def _vector(given: str | list[float]) -> Any:
    """Return one vector: numbers, or the little-endian float32 of base64."""
    return np.frombuffer(base64.b64decode(given, validate=True), dtype="<f4") if isinstance(given, str) else given
