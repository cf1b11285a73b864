"""Late interaction with one-bit token vectors: how well every word of a question is matched somewhere in a passage.

MaxSim is ColBERT's (Khattab and Zaharia, 2020, https://arxiv.org/abs/2004.12832). Here a token vector is one bit
a dimension, `x > mean`, so the similarity is the number of equal bits; each word of the question counts by its idf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from shards.embed import QueryEmbedding

DIM = 384
TOKEN_BYTES = DIM // 8
_WORDS = TOKEN_BYTES // 8
# The mean of each dimension over the token vectors of mixed text, by bench/calibrate_embedder.py.
MEAN_FILE = Path(__file__).with_name("minilm_token_mean.npy")
_MEAN: NDArray[np.float32] = np.load(MEAN_FILE)


def pack(tokens: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Token vectors, float32 (t, 384) of unit rows, as bits, uint8 (t, 48)."""
    return np.packbits(tokens > _MEAN, axis=-1)


def scores(query: QueryEmbedding, idf: Mapping[str, float], passages: Sequence[bytes]) -> NDArray[np.float32]:
    """Float32 (n,), one a passage, higher is better: `1 - sum(idf * least hamming distance) / (192 * sum(idf))`.

    So 1 is a perfect match of every word and 0 what unrelated vectors get. A word absent from `idf` weighs
    nothing; when no word weighs anything, all weigh the same. A passage without tokens scores 0.
    Raises ValueError for a passage that is not a whole number of tokens.
    """
    result = np.zeros(len(passages), dtype=np.float32)
    weights = np.array([idf.get(word, 0.0) for word in query.words], dtype=np.float32)
    if not weights.any():
        weights = np.ones(len(query.words), dtype=np.float32)
    if any(len(passage) % TOKEN_BYTES for passage in passages):
        raise ValueError(f"token bits come in {TOKEN_BYTES} bytes a token")
    filled = [at for at, passage in enumerate(passages) if passage]
    if not len(weights) or not filled:
        return result
    lengths = [len(passages[at]) // TOKEN_BYTES for at in filled]
    stored = np.frombuffer(b"".join(passages[at] for at in filled), dtype=np.uint64).reshape(-1, _WORDS)
    asked = np.ascontiguousarray(query.token_bits).view(np.uint64)
    distances = np.zeros((len(asked), len(stored)), dtype=np.uint16)
    for word in range(_WORDS):
        column = np.ascontiguousarray(stored[:, word])
        distances += np.bitwise_count(asked[:, word, None] ^ column)
    starts = np.cumsum([0, *lengths[:-1]])
    least = np.minimum.reduceat(distances, starts, axis=1)
    result[filled] = 1.0 - weights @ least / (DIM / 2 * weights.sum())
    return result
