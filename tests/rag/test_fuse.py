from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from rag.search.fuse import fuse, scale
from rag.search.rerank import blend
from shards.vectors import Scored


def hits(*scores: float, first: int = 0) -> list[Scored]:
    return [Scored(UUID(int=first + i), score) for i, score in enumerate(scores)]


def test_each_list_is_scaled_before_the_sum() -> None:
    fused = fuse(hits(0.9, 0.8, 0.7), hits(30.0, 10.0, first=1), bm25_weight=0.5)
    scores = {hit.chunk_id.int: round(hit.score, 6) for hit in fused}
    assert scores == {0: 0.5, 1: 0.75, 2: 0.0}
    assert [hit.chunk_id.int for hit in fused] == [1, 0, 2]
    assert (fused[0].ann_rank, fused[0].bm25_rank) == (2, 1)
    assert (fused[1].ann_rank, fused[1].bm25_rank) == (1, None)


def test_the_weight_moves_from_one_list_to_the_other() -> None:
    ann, bm25 = hits(0.9, 0.1), hits(9.0, 1.0, first=5)
    assert fuse(ann, bm25, bm25_weight=0.0)[0].chunk_id.int == 0
    assert fuse(ann, bm25, bm25_weight=1.0)[0].chunk_id.int == 5


def test_an_empty_list_leaves_the_order_to_the_other() -> None:
    assert [hit.chunk_id.int for hit in fuse([], hits(3.0, 2.0), bm25_weight=0.0)] == [0, 1]
    assert [hit.chunk_id.int for hit in fuse(hits(3.0, 2.0), [], bm25_weight=1.0)] == [0, 1]
    assert fuse([], [], bm25_weight=0.5) == []


@given(st.lists(st.floats(-100, 100), max_size=20), st.lists(st.floats(-100, 100), max_size=20), st.floats(0, 1))
def test_every_hit_is_kept_once_and_scores_are_bounded(a: list[float], b: list[float], weight: float) -> None:
    ann, bm25 = hits(*sorted(a, reverse=True)), hits(*sorted(b, reverse=True), first=10)
    fused = fuse(ann, bm25, bm25_weight=weight)
    assert {hit.chunk_id for hit in fused} == {hit.chunk_id for hit in ann} | {hit.chunk_id for hit in bm25}
    assert all(-1e-9 <= hit.score <= 1 + 1e-9 for hit in fused)
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)


def test_equal_scores_scale_to_one() -> None:
    assert scale([2.0, 2.0]) == [1.0, 1.0]
    assert scale([]) == []


def test_the_reranker_adds_its_scaled_score() -> None:
    assert blend([0.5, 0.4], [7.0, 9.0], weight=1.0) == [0.5, 1.4]
    assert blend([0.5, 0.4], [7.0, 9.0], weight=0.0) == [0.5, 0.4]
