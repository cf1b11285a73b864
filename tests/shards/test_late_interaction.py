from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.embed import QueryEmbedding
from shards.late_interaction import DIM, TOKEN_BYTES, pack, scores


def asked(bits: NDArray[np.uint8], words: list[str]) -> QueryEmbedding:
    return QueryEmbedding(np.zeros(DIM, dtype=np.float32), bits, words)


def random_bits(seed: int, tokens: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (tokens, TOKEN_BYTES), dtype=np.uint8)


def slow_score(query: QueryEmbedding, idf: dict[str, float], passage: bytes) -> float:
    """The definition, bit by bit."""
    stored = np.unpackbits(np.frombuffer(passage, dtype=np.uint8).reshape(-1, TOKEN_BYTES), axis=1)
    lost = total = 0.0
    for word, token in zip(query.words, np.unpackbits(query.token_bits, axis=1), strict=True):
        least = min(int((token != other).sum()) for other in stored)
        lost += idf[word] * least
        total += idf[word]
    return 1 - lost / (DIM / 2) / total


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    weights=st.lists(st.floats(0.1, 9), min_size=1, max_size=7),
)
def test_scores_follow_the_definition(seed: int, lengths: list[int], weights: list[float]) -> None:
    idf = {f"w{at}": weight for at, weight in enumerate(weights)}
    query = asked(random_bits(seed, len(weights)), list(idf))
    passages = [random_bits(seed + 1 + at, length).tobytes() for at, length in enumerate(lengths)]
    expected = [slow_score(query, idf, passage) for passage in passages]
    found = scores(query, idf, passages)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_passage_that_holds_every_token_scores_one() -> None:
    bits = random_bits(1, 4)
    passage = np.concatenate([random_bits(2, 5), bits[::-1], random_bits(3, 5)]).tobytes()
    assert scores(asked(bits, list("abcd")), dict.fromkeys("abcd", 2.0), [passage])[0] == 1.0


def test_rare_words_decide() -> None:
    bits = random_bits(1, 2)
    has_rare, has_common = bits[:1].tobytes(), bits[1:].tobytes()
    found = scores(asked(bits, ["turbine", "the"]), {"turbine": 7.0, "the": 0.1}, [has_common, has_rare])
    assert found[1] > found[0]


def test_words_without_a_weight_count_for_nothing_and_all_the_same_when_none_has_one() -> None:
    bits = random_bits(1, 2)
    passages = [bits[:1].tobytes(), bits[1:].tobytes()]
    query = asked(bits, ["known", "unknown"])
    assert scores(query, {"known": 1.0}, passages)[0] == 1.0
    evenly = scores(query, {}, passages)
    np.testing.assert_allclose(evenly, scores(query, {"known": 3.0, "unknown": 3.0}, passages))


@pytest.mark.parametrize("passages", [[], [b""], [b"", b""]])
def test_nothing_to_score(passages: list[bytes]) -> None:
    found = scores(asked(random_bits(1, 2), ["a", "b"]), {}, passages)
    np.testing.assert_array_equal(found, np.zeros(len(passages), dtype=np.float32))


def test_an_empty_passage_between_others_scores_nothing_and_moves_none() -> None:
    bits = random_bits(1, 1)
    found = scores(asked(bits, ["a"]), {}, [b"", bits.tobytes(), b"", random_bits(2, 3).tobytes(), b""])
    assert found[1] == 1.0
    assert 0 < found[3] < 1
    np.testing.assert_array_equal(found[[0, 2, 4]], 0)


def test_a_question_without_words_scores_nothing() -> None:
    found = scores(asked(random_bits(1, 0), []), {}, [random_bits(2, 3).tobytes()])
    np.testing.assert_array_equal(found, [0])


def test_a_passage_that_is_not_whole_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="48"):
        scores(asked(random_bits(1, 1), ["a"]), {}, [b"\0" * 47])


def test_one_bit_a_dimension() -> None:
    bits = pack(np.eye(2, DIM, dtype=np.float32) * 2 - 1)
    assert bits.shape == (2, TOKEN_BYTES)
    assert np.unpackbits(bits, axis=1).sum(axis=1).tolist() == [1, 1]
