"""Embedding models that give vectors and nothing else, made into embedders.

The token bits of a chunk are the bundled model's whichever model its vector is from. So reranking and the citing of
sentences work alike for every tenant, and a model needs no token vectors of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shards.call_seconds import BATCH, QUESTION, CallSeconds
from shards.embed import Embedder, PassageEmbeddings, QueryEmbedding
from tenants.errors import InvalidRequest

SPECIAL_TOKENS = 2
Spans = list[tuple[int, int]]
"""Where each token of a text begins and ends."""


class DenseModel(Protocol):
    """Texts to vectors (n, dim) of any length; one that does not answer raises Unavailable (`embedder_unavailable`)."""

    async def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of passages, in their order."""
        ...

    async def question(self, text: str) -> NDArray[np.float32]:
        """Return the vector (dim,) of a question."""
        ...

    async def aclose(self) -> None:
        """Release what it holds."""
        ...


class DenseEmbedder:
    """`Embedder` with the vectors of a `DenseModel`, and tokens counted and packed by the bundled model."""

    def __init__(self, name: str, dim: int, max_tokens: int, model: DenseModel, bundled: Embedder) -> None:
        self.name, self.dim, self.max_tokens = name, dim, max_tokens
        self._model, self._bundled = model, bundled
        self.seconds = CallSeconds()
        """Of the model alone, not of the token bits."""

    async def embed_passages(self, texts: Sequence[str]) -> PassageEmbeddings:
        """See Embedder. A vector of length zero stays what it is: whoever indexes it refuses it."""
        if not texts:
            return PassageEmbeddings(np.empty((0, self.dim), dtype=np.float32), [])
        spans = [self.token_spans(text) for text in texts]
        for at, found in enumerate(spans):
            if len(found) + SPECIAL_TOKENS > self.max_tokens:
                detail = f"text {at} has {len(found) + SPECIAL_TOKENS} tokens, the embedder reads {self.max_tokens}"
                raise InvalidRequest(detail, code="text_too_long")
        embedding = self.seconds.count(BATCH, self._model.passages(texts))
        vectors, bits = await asyncio.gather(embedding, self._bits(texts, spans))
        return PassageEmbeddings(_unit(vectors), bits)

    async def embed_query(self, text: str) -> QueryEmbedding:
        """See Embedder. Words and token bits are left out: those of a question are asked of the bundled model."""
        found = await self.seconds.count(QUESTION, self._model.question(self._ends(text)))
        vector = _unit(found[None])[0]
        return QueryEmbedding(vector, np.empty((0, self._bundled.dim // 8), dtype=np.uint8), [])

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """See Embedder."""
        return self._bundled.token_spans(text)

    async def aclose(self) -> None:
        """See Embedder."""
        await self._model.aclose()

    def _ends(self, text: str) -> str:
        """Return a question, or the beginning and the end of one that is longer than the model reads."""
        spans, most = self.token_spans(text), self.max_tokens - SPECIAL_TOKENS
        if len(spans) <= most:
            return text
        half = most // 2 - 1  # the line between the two may be a token
        return f"{text[: spans[half - 1][1]]}\n{text[spans[-half][0] :]}"

    async def _bits(self, texts: Sequence[str], spans: Sequence[Spans]) -> list[bytes]:
        """Return the token bits of texts that may be longer than the bundled model reads: window by window."""
        windows = [list(self._windows(text, found)) for text, found in zip(texts, spans, strict=True)]
        found = iter((await self._bundled.embed_passages([one for some in windows for one in some])).token_bits)
        return [b"".join(next(found) for _ in some) for some in windows]

    def _windows(self, text: str, spans: Spans) -> Iterator[str]:
        most = self._bundled.max_tokens - SPECIAL_TOKENS
        if len(spans) <= most:
            yield text
            return
        # Cut alone, a text may have a few tokens more than as a part of the whole.
        step = most - most // 8
        for first in range(0, len(spans), step):
            yield text[spans[first][0] : spans[min(first + step, len(spans)) - 1][1]]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return scaled
