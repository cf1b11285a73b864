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

from shards.embed import Embedder, PassageEmbeddings, QueryEmbedding

SPECIAL_TOKENS = 2


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

    async def embed_passages(self, texts: Sequence[str]) -> PassageEmbeddings:
        """See Embedder. A vector of length zero stays what it is: whoever indexes it refuses it."""
        if not texts:
            return PassageEmbeddings(np.empty((0, self.dim), dtype=np.float32), [])
        vectors, bits = await asyncio.gather(self._model.passages(texts), self._bits(texts))
        return PassageEmbeddings(_unit(vectors), bits)

    async def embed_query(self, text: str) -> QueryEmbedding:
        """See Embedder. Words and token bits are left out: those of a question are asked of the bundled model."""
        vector = _unit((await self._model.question(text))[None])[0]
        return QueryEmbedding(vector, np.empty((0, self._bundled.dim // 8), dtype=np.uint8), [])

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """See Embedder."""
        return self._bundled.token_spans(text)

    async def aclose(self) -> None:
        """See Embedder."""
        await self._model.aclose()

    async def _bits(self, texts: Sequence[str]) -> list[bytes]:
        """Return the token bits of texts that may be longer than the bundled model reads: window by window."""
        windows = [list(self._windows(text)) for text in texts]
        found = iter((await self._bundled.embed_passages([one for some in windows for one in some])).token_bits)
        return [b"".join(next(found) for _ in some) for some in windows]

    def _windows(self, text: str) -> Iterator[str]:
        spans = self._bundled.token_spans(text)
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
