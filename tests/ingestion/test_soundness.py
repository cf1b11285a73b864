"""An embedder that gives back what cannot be indexed: only its documents fail, and the chunk is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from ingestion.chunk import Chunk
from ingestion.pipeline import Chunked, Rejected, _sound
from ingestion.soundness import unsound
from shards.embed import PassageEmbeddings

DIM = 4


def unit(rows: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(1).standard_normal((rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def spoiled(at: int, value: float) -> NDArray[np.float32]:
    vectors = unit(3)
    vectors[at] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (spoiled(1, float("nan")), "Chunk 1 was embedded as a vector that holds no number"),
        (spoiled(2, float("inf")), "Chunk 2 was embedded as a vector that holds no number"),
        (spoiled(0, 0.0), "Chunk 0 was embedded as a vector of length zero"),
        (spoiled(2, 3.0), "Chunk 2 was embedded as a vector that is not of length one"),
        (np.ones((3, 7), dtype=np.float32), "7 dimensions; the index has 4"),
    ],
)
def test_what_is_wrong_is_said_of_the_chunk(vectors: NDArray[np.float32], said: str) -> None:
    error = unsound(vectors, dim=DIM)
    assert error is not None
    assert said in error.detail
    assert error.code == "embedding_invalid"


def test_unit_vectors_pass() -> None:
    assert unsound(unit(50), dim=DIM) is None


def test_only_the_document_itself_is_taken_out() -> None:
    def chunked(chunks: int) -> Chunked:
        some = [Chunk(n, (), "t", None, 0, 1, 1) for n in range(chunks)]
        version: Any = SimpleNamespace()
        return Chunked(uuid4(), version, "t", None, some)

    group = [chunked(2), chunked(3), chunked(1)]
    vectors = unit(6)
    vectors[3] = np.nan
    bits = [bytes([n]) for n in range(6)]
    rejected: list[Rejected] = []
    kept, found = _sound(group, PassageEmbeddings(vectors, bits), DIM, rejected)
    assert kept == [group[0], group[2]]
    assert found.token_bits == [bits[0], bits[1], bits[5]]
    assert np.array_equal(found.vectors, vectors[[0, 1, 5]])
    assert [one.job_id for one in rejected] == [group[1].job_id]
    assert "Chunk 1 " in rejected[0].error.detail
